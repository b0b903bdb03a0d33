"""The maps that a layer answers to an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, LayerError, SpecError
from seewhy.lens.capture import capture, find, last_map, trace
from seewhy.look.base import Look
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ActivationMaps:
    """The maps of one layer for N images: `maps` (N, K, h, w) of the channels `channels` (N, K), the strongest first.

    `mean` (N, C) is each channel's mean over positions; `zero` (N,) the share of values that are zero or below.
    """

    method: str
    layer: str
    images: Images
    maps: Tensor
    channels: Tensor
    mean: Tensor
    zero: Tensor
    cost: Cost
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """The channels shown of each image with their means, as plain values."""
        return {
            "images": [
                {
                    "image": name,
                    "at or below zero": float(self.zero[row]),
                    "channels": [
                        {"channel": channel, "mean": float(self.mean[row, channel])}
                        for channel in self.channels[row].tolist()
                    ],
                }
                for row, name in enumerate(self.images.names)
            ]
        }

    def plot(self, index: int = 0, *, over: bool = False) -> Figure:
        """The maps of one image, on one scale, beside the image; with `over`, laid over it."""
        from seewhy.report.learned import activations

        return activations(self, index, over)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Activations(Look):
    """a_c(x), the maps of the channels c of a layer with the largest mean of |a_c(x)|, the largest first.

    `layer`: an address as `seewhy model` prints it, a module's or an operation's (none: the last spatial map). `channels`: how
    many, 0 for all of them in order. Answers `ActivationMaps`: maps (N, K, h, w) in the layer's own units; `plot(over=True)`
    lays them over the photograph.

    Raises `LayerError` for a layer that answers no maps.
    Cost: one forward pass an image, ended after the layer.
    Limits: where a map is strong, its window on the photograph is often much larger than one place; see `seewhy model`.
    Source: Yosinski et al. 2015, arXiv 1506.06579, section 2.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> Activations(channels=2)(Classifier(module, size=8), torch.rand(1, 3, 8, 8)).maps.shape
    torch.Size([1, 2, 6, 6])
    """

    layer: str | None = None
    channels: int = 16

    name = "activations"
    needs_images = True
    shows = "Which maps of a layer respond to this image, and where."
    reading = "Early maps follow edges and colours, late ones parts and objects. One scale for all maps of a layer."
    source = "Yosinski et al. 2015, arXiv 1506.06579"

    def __post_init__(self) -> None:
        if self.channels < 0:
            raise SpecError(f"expected channels ≥ 0, got {self.channels}")

    def check(self, net: Classifier) -> None:
        map_of(net, self.layer)

    def __call__(self, net: Classifier, images: Tensor | Images | None = None) -> ActivationMaps:
        if images is None:
            raise InputError("activations are answers to images: give at least one")
        pixels = net.check(images)
        layer = map_of(net, self.layer)
        with Meter(net.engine.device) as meter:
            found = net.engine.map(
                lambda part, _: maps_first(net, layer, capture(net, part, [layer])[layer]).float().cpu(),
                pixels,
                "forward",
            )
        strength = found.abs().mean((2, 3))
        count = min(self.channels, found.shape[1]) or found.shape[1]
        if self.channels:
            channels = strength.topk(count, dim=1).indices
        else:
            channels = torch.arange(count).expand(len(found), -1)
        return ActivationMaps(
            method=self.spec,
            layer=layer,
            images=images if isinstance(images, Images) else Images(pixels.detach().cpu()),
            maps=found.gather(1, channels[:, :, None, None].expand(-1, -1, *found.shape[2:])),
            channels=channels,
            mean=found.mean((2, 3)),
            zero=(found <= 0).float().flatten(1).mean(1),
            cost=meter.cost,
            notes=() if count == found.shape[1] else (f"{count} of {found.shape[1]} channels are shown",),
        )


def map_of(net: Classifier, layer: str | None) -> str:
    """The address of a layer (None: the last spatial map), checked to answer maps; raises `LayerError`."""
    address = find(net, layer) if layer else last_map(net)
    shape = next(each.shape for each in trace(net) if each.address == address)
    if len(shape) != 4:
        raise LayerError(f"{address} answers {shape[1:]} for an image, not maps (C, H, W); choose another")
    return address


def maps_first(net: Classifier, layer: str, answer: Tensor) -> Tensor:
    """The maps (N, C, h, w) of a layer's answer, whose channels may come last, as ConvNeXt's and Swin's do."""
    seen = next(each for each in trace(net) if each.address == layer)
    return answer if seen.channels_first else answer.permute(0, 3, 1, 2)
