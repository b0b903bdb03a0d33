"""Inversion: what of an image is still in a layer's answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seewhy import rng
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, NothingToExplain, SpecError
from seewhy.lens.capture import capture, find, middle_map
from seewhy.lens.reach import reach
from seewhy.look.base import Look
from seewhy.look.maximize import climb, in_batches, on_the_way, risen
from seewhy.look.objectives import TotalVariation, View
from seewhy.look.parametrize import Frequencies, Moves, colours
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Inverted:
    """Images and their inversions, `images` and `inversions` (N, 3, H, W) in [0, 1].

    `errors` (N,) is ‖Φ(x) − Φ(x₀)‖ / ‖Φ(x₀)‖ of each inversion, `start` (N,) that of the noise it began with; `snapshots`
    (K, N, 3, H, W) after `steps` (K,); `kept` (N,) whether the model says the same class of both.
    """

    method: str
    layer: str
    images: Images
    inversions: Tensor
    errors: Tensor
    start: Tensor
    snapshots: Tensor
    steps: Tensor
    kept: Tensor
    cost: Cost
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """How far off each inversion is, as plain values."""
        rows = zip(self.images.names, self.start.tolist(), self.errors.tolist(), self.kept.tolist(), strict=True)
        return {
            "images": [
                {"image": name, "start": start, "error": error, "same class": kept} for name, start, error, kept in rows
            ]
        }

    def plot(self) -> Figure:
        """Each image beside its inversion."""
        from seewhy.report.learned import pairs

        said = [
            f"{100 * error:.3g} % off; " + ("the same class" if same else "another class")
            for error, same in zip(self.errors.tolist(), self.kept.tolist(), strict=True)
        ]
        return pairs(self.images, self.inversions, f"seen from {self.layer} alone", said)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Invert(Look):
    """argmin over x of ‖Φ(x) − Φ(x₀)‖² / ‖Φ(x₀)‖² + λ·TV(x): an image that a layer Φ cannot tell from x₀, found from noise.

    `layer`: an address as `seewhy model` prints it (none: the last map of the last stage but one). `tv` is λ, TV the mean over
    pixels and colours of the squared differences. `steps` of Adam at `rate`, on the image's spectrum
    (`seewhy.look.parametrize.Frequencies`).
    Answers `Inverted`: images (N, 3, H, W) in [0, 1] and how far each code is off.

    Raises `LayerError` for a layer that is not there, `NothingToExplain` for an image to which it answers zero everywhere.
    Cost: a forward and a backward pass a step and image, each ended at the layer; five forward passes more.
    Limits: one of many images with that code; what looks natural in it comes from the layer and from TV alike.
    Deviation: a spectrum and Adam in place of pixels and momentum; a sigmoid keeps pixels in range, not a norm.
    Source: Mahendran & Vedaldi 2015, arXiv 1412.0035.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> found = Invert("0", steps=50)(net, torch.rand(1, 3, 8, 8))
    >>> bool(found.errors < found.start)
    True
    """

    layer: str | None = None
    steps: int = 200
    rate: float = 0.05
    tv: float = 1.0
    snapshots: int = 0
    seed: int = 0

    name = "invert"
    needs_images = True
    shows = "An image, made from noise, that a layer cannot tell from the photograph: what the layer still knows of it."
    reading = "What looks as in the photograph is kept by the layer; what is blurred, moved or gone is lost to all that follows."
    source = "Mahendran & Vedaldi 2015, arXiv 1412.0035"

    def __post_init__(self) -> None:
        for good, words in (
            (self.steps >= 1, f"steps ≥ 1, got {self.steps}"),
            (self.rate > 0, f"rate > 0, got {self.rate:g}"),
            (self.tv >= 0, f"tv ≥ 0, got {self.tv:g}"),
            (self.snapshots >= 0, f"snapshots ≥ 0, got {self.snapshots}"),
        ):
            if not good:
                raise SpecError(f"expected {words}")

    @property
    def passes(self) -> tuple[int, int]:
        return self.steps + 5, self.steps

    def check(self, net: Classifier) -> None:
        self._layer(net)

    def _layer(self, net: Classifier) -> str:
        return find(net, self.layer) if self.layer else middle_map(net)

    def __call__(self, net: Classifier, images: Tensor | Images | None = None) -> Inverted:
        if images is None:
            raise InputError("an inversion is of a photograph: give at least one")
        pixels = net.check(images).detach()
        layer = self._layer(net)
        variation = TotalVariation()
        with Meter(net.engine.device) as meter:
            codes = in_batches(net, lambda part, _: capture(net, part, [layer])[layer].cpu(), pixels, "code")
            length = codes.flatten(1).square().sum(1)
            silent = (length == 0).nonzero()[:, 0].tolist()
            given = images if isinstance(images, Images) else Images(pixels.cpu())
            if silent:
                raise NothingToExplain(
                    f"{layer} answers zero everywhere to {given.names[silent[0]]}: there is nothing to invert"
                )

            def score(plain: Tensor, moved: Tensor, of: Tensor) -> Tensor:
                found = reach(net, moved, [layer])[layer]
                off = (found - codes[of].to(found)).flatten(1).square().sum(1) / length[of].to(found)
                return -off - self.tv * variation.value(View(plain, {}, of), net)

            size = (int(pixels.shape[2]), int(pixels.shape[3]))
            made = Frequencies(size, colours())
            kept = on_the_way(self.steps, self.snapshots)
            # the same start for every image: which neighbours it has must not matter
            first = made.start([rng.generator(self.seed, self.name)]).expand(len(pixels), -1, -1, -1, -1)
            climbed = climb(net, score, made, first, self.rate, Moves(0, 0, 0), torch.zeros(self.steps, 4), kept)
            same = net.predict(climbed.pixels).argmax(1).cpu() == net.predict(pixels).argmax(1).cpu()
        noise = made.image(first[:1]).expand_as(climbed.pixels)
        off = [
            (-value - self.tv * variation.value(View(seen, {}, same), net)).clamp_min(0).sqrt()
            for value, seen in ((climbed.scores, climbed.pixels), (climbed.start, noise))
        ]
        return Inverted(
            method=self.spec,
            layer=layer,
            images=given,
            inversions=climbed.pixels,
            errors=off[0],
            start=off[1],
            snapshots=climbed.snapshots,
            steps=torch.tensor(kept, dtype=torch.long),
            kept=same,
            cost=meter.cost,
            notes=tuple(risen(climbed)),
        )
