"""The maps that a layer answers to an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, LayerError, SpecError
from seewhy.lens.capture import capture, find, last_map
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

    def plot(self, index: int = 0) -> Figure:
        """The maps of one image, on one scale, beside the image."""
        from seewhy.report.figures import activations

        return activations(self, index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Activations(Look):
    """The maps of a layer that respond most to an image.

    `layer`: an address as `seewhy model` prints it (None: the last spatial map). `channels`: how many, the ones with
    the largest mean absolute response first, 0 for all of them in order. Cost: one forward pass an image, ended after the layer.
    Source: Yosinski et al. 2015, arXiv 1506.06579, section 2.
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

    def __call__(self, net: Classifier, images: Tensor | Images | None = None) -> ActivationMaps:
        if images is None:
            raise InputError("activations are answers to images: give at least one")
        pixels = net.check(images)
        layer = find(net, self.layer) if self.layer else last_map(net)
        with Meter() as meter:
            found = net.engine.map(lambda part, _: capture(net, part, [layer])[layer].float().cpu(), pixels, "forward")
        if found.ndim != 4:
            raise LayerError(
                f"{layer} answers {tuple(found.shape[1:])} for an image, not maps (C, H, W); choose another"
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
