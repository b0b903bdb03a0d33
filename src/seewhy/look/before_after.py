"""How a layer's maps change from one image to another: before and after an attack, an occlusion, a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, SpecError
from seewhy.lens.capture import capture
from seewhy.look.activations import map_of, maps_first
from seewhy.look.base import Look
from seewhy.look.statistics import rectified
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class BeforeAfterMaps:
    """The maps of one layer for two images, `before` and `after` (K, h, w), of the channels `channels` (K,) that change most.

    `change` (C,) is ‖after − before‖ / ‖before‖ of each channel, infinite where only the second answers; `growth` that of
    whole layers by address, from the pixels ("") through the last rectifier at each resolution. `said` is the predicted class
    of each image.
    """

    method: str
    layer: str
    images: Images
    before: Tensor
    after: Tensor
    channels: Tensor
    change: Tensor
    growth: Mapping[str, float]
    said: tuple[str, str]
    cost: Cost
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What changed, as plain values."""
        change = [float(self.change[channel]) for channel in self.channels]
        return {
            "predicted": list(self.said),
            "change of layers": {layer or "pixels": value for layer, value in self.growth.items()},
            "channels": [
                {"channel": channel, "change": value if value < float("inf") else None}
                for channel, value in zip(self.channels.tolist(), change, strict=True)
            ],
        }

    def plot(self) -> Figure:
        """Both images and the maps that change most, before, after and their difference, on one scale each."""
        from seewhy.report.looks import before_after

        return before_after(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class BeforeAfter(Look):
    """a(x′) − a(x): how the maps a of a layer change from one image x to another x′, an adversarial one, say.

    Shown are the `channels` channels with the largest ‖a_c(x′) − a_c(x)‖, the largest first. `layer`: an address as
    `seewhy model` prints it (none: the last spatial map). Takes two images, the one before first. Answers a
    `BeforeAfterMaps`: maps (K, h, w), and ‖a(x′) − a(x)‖ / ‖a(x)‖ of the pixels and of what the last rectifier at each
    resolution answers: where a small change grows.

    Raises `InputError` unless there are two images, `LayerError` for a layer that answers no maps.
    Cost: three forward passes an image.
    Limits: a large change of a map need not matter to the decision; `seewhy attack --why` measures what does.
    Source: maps of clean and adversarial images as in Xie et al. 2019, arXiv 1812.03411, figure 2.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    >>> found = BeforeAfter(channels=1)(Classifier(module, size=8), torch.rand(2, 3, 8, 8))
    >>> found.before.shape, list(found.growth)
    (torch.Size([1, 6, 6]), ['', '1'])
    """

    layer: str | None = None
    channels: int = 6

    name = "before-after"
    needs_images = True
    of_sets = True
    of_pairs = True
    shows = "Which maps of a layer change most from one image to another, and where."
    reading = (
        "Two images that look alike should have maps that look alike. Where the maps change much more than the pixels, and more "
        "from stage to stage, the network makes much of a small change."
    )
    source = "Xie et al. 2019, arXiv 1812.03411"

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise SpecError(f"expected channels ≥ 1, got {self.channels}")

    @property
    def passes(self) -> tuple[int, int]:
        return 3, 0

    def check(self, net: Classifier) -> None:
        map_of(net, self.layer)

    def __call__(self, net: Classifier, images: Tensor | Images | DataSet | None = None) -> BeforeAfterMaps:
        if images is None or len(images) != 2:
            count = "none" if images is None else str(len(images))
            raise InputError(f"expected two images, the one before and the one after, got {count}")
        if isinstance(images, DataSet):
            images = images.images(slice(None), net.preprocess)
        pixels = net.check(images).detach()
        layer = map_of(net, self.layer)
        along = rectified(net)
        layers = [*dict.fromkeys((*along, layer))]
        with Meter(net.engine.device) as meter:
            found = capture(net, pixels.to(net.engine.device), layers)
            logits = net.predict(pixels).cpu()
        maps = {"": pixels, **{each: found[each].float() for each in layers}}
        before, after = maps_first(net, layer, maps[layer]).cpu()
        apart = (after - before).flatten(1).norm(dim=1)
        size = before.flatten(1).norm(dim=1)
        channels = apart.argsort(descending=True, stable=True)[: self.channels]
        notes = [] if len(channels) == len(apart) else [f"{len(channels)} of {len(apart)} channels are shown"]
        if not bool(apart.any()):
            notes.append(f"{layer} answers the same to both images")
        growth = {
            each: float((both[1] - both[0]).norm() / both[0].norm().clamp_min(1e-30))
            for each, both in maps.items()
            if each != layer or each in along
        }
        return BeforeAfterMaps(
            method=self.spec,
            layer=layer,
            images=images if isinstance(images, Images) else Images(pixels.cpu()),
            before=before[channels],
            after=after[channels],
            channels=channels,
            change=torch.where(apart > 0, apart / size, torch.zeros_like(apart)),
            growth=growth,
            said=(net.labels[int(logits[0].argmax())], net.labels[int(logits[1].argmax())]),
            cost=meter.cost,
            notes=tuple(notes),
        )
