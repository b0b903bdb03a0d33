"""DeepDream: a photograph in which a layer sees more and more of what it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy import rng
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter, count
from seewhy.errors import InputError, LayerError, NothingToExplain, SpecError
from seewhy.lens.capture import middle_map
from seewhy.lens.reach import reach
from seewhy.look.base import Look
from seewhy.look.maximize import in_batches, steps_told
from seewhy.look.objectives import Layer, Neuron, Objective, Term, View, objective
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Dream:
    """Photographs and what became of them, `images` and `dreams` (N, 3, H, W) in [0, 1].

    `scores` (N,) is the objective of the dreams and `start` (N,) that of the photographs, at full size.
    """

    method: str
    layer: str
    objective: str
    images: Images
    dreams: Tensor
    scores: Tensor
    start: Tensor
    cost: Cost
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """How far the objective rose for each image, as plain values."""
        rows = zip(self.images.names, self.start.tolist(), self.scores.tolist(), strict=True)
        return {
            "objective": self.objective,
            "images": [{"image": name, "start": start, "score": score} for name, start, score in rows],
        }

    def plot(self) -> Figure:
        """Each photograph beside its dream."""
        from seewhy.report.learned import pairs

        said = [f"{a:.3g} → {b:.3g}" for a, b in zip(self.start.tolist(), self.scores.tolist(), strict=True)]
        return pairs(self.images, self.dreams, self.objective, said)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class DeepDream(Look):
    """x ← clip(x + r·g/mean|g|), g the gradient of an objective at x, from a photograph, at one size after the other.

    `objective` as in `Maximize`, one unit; none: `layer(…)`, the mean square of the last map of the last stage but one.
    `octaves` sizes, each `ratio` times the next, the last being the photograph's: what was added at one size is enlarged and
    goes on at the next. `steps` at each, of `rate` a pixel on average; before each the picture is shifted around by up to
    `jitter`, a share of its side. Answers `Dream`: images (N, 3, H, W) in [0, 1].

    Raises `LayerError` for an objective past the point where the network takes one size alone: use octaves=1, or a layer before;
    `SpecError` for a neuron at a place, which is one of one size alone.
    Cost: `octaves` · `steps` forward and backward passes an image, most of them of smaller pictures; two forward passes more.
    Limits: shows what a layer can be made to see, not what it saw.
    Source: Mordvintsev, Olah & Tyka 2015, "Inceptionism: going deeper into neural networks".

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> found = DeepDream("layer(1)", octaves=2, steps=5)(net, torch.rand(1, 3, 8, 8))
    >>> bool(found.scores > found.start)
    True
    """

    objective: str | None = None
    octaves: int = 4
    ratio: float = 0.7
    steps: int = 10
    rate: float = 0.015
    jitter: float = 0.1
    seed: int = 0

    name = "deepdream"
    needs_images = True
    shows = "What a layer sees in a photograph, made stronger until everyone can see it."
    reading = "Early layers draw strokes and textures, late ones parts of objects: what the network was trained on."
    source = "Mordvintsev, Olah & Tyka 2015"

    def __post_init__(self) -> None:
        given: object = self.objective
        if isinstance(given, Term | Objective):
            object.__setattr__(self, "objective", str(given))
        if self.objective is not None:
            if "," in self.objective:
                raise SpecError(f'expected semicolons between the arguments of an objective, got "{self.objective}"')
            wanted = objective(self.objective)
            if wanted.units > 1 or wanted.together:
                raise SpecError(f"expected an objective of one unit and of each image alone, got {wanted}")
            placed = [str(term) for _, term in wanted.terms if isinstance(term, Neuron) and term.row is not None]
            if placed and self.octaves > 1:
                raise SpecError(
                    f"expected octaves=1 for {placed[0]}, a place that pictures of other sizes have elsewhere or not at all, got "
                    f"octaves={self.octaves}; without row and column it is the centre of any size"
                )
        for good, words in (
            (self.octaves >= 1, f"octaves ≥ 1, got {self.octaves}"),
            (0 < self.ratio < 1, f"ratio between 0 and 1, got {self.ratio:g}"),
            (self.steps >= 1, f"steps ≥ 1, got {self.steps}"),
            (self.rate > 0, f"rate > 0, got {self.rate:g}"),
            (0 <= self.jitter <= 1, f"jitter from 0 to 1, got {self.jitter:g}"),
        ):
            if not good:
                raise SpecError(f"expected {words}")

    @property
    def passes(self) -> tuple[int, int]:
        return self.octaves * self.steps + 2, self.octaves * self.steps

    def check(self, net: Classifier) -> None:
        self._objective(net).check(net)

    def __call__(self, net: Classifier, images: Tensor | Images | None = None) -> Dream:
        if images is None:
            raise InputError("DeepDream starts from a photograph: give at least one")
        pixels = net.check(images)
        with Meter(net.engine.device) as meter:
            wanted = self._objective(net)
            wanted.check(net)
            scores = torch.zeros(2, len(pixels))

            def run(part: Tensor, where: slice) -> Tensor:
                part = part.to(net.engine.device, torch.float32)
                dream = self._dream(net, wanted, part, tell)
                with torch.no_grad():
                    for row, each in enumerate((part, dream)):
                        scores[row, where] = _value(net, wanted, each).float().cpu()
                return dream.cpu()

            with steps_told(net, len(pixels) * self.octaves * self.steps) as tell:
                dreams = in_batches(net, run, pixels.detach(), self.name)
        lower = int((scores[1] <= scores[0]).sum())
        return Dream(
            method=self.spec,
            layer=", ".join((*wanted.layers, *["logits"] * wanted.logits)),
            objective=str(wanted),
            images=images if isinstance(images, Images) else Images(pixels.detach().cpu()),
            dreams=dreams,
            scores=scores[1],
            start=scores[0],
            cost=meter.cost,
            notes=(f"the objective of {lower} of {len(dreams)} images did not rise",) if lower else (),
        )

    def _objective(self, net: Classifier) -> Objective:
        if self.objective is not None:
            return objective(self.objective)
        # the last maps of all are of few places, and often cut off from above: what they see in a picture is hardly seen
        return 1.0 * Layer(middle_map(net))

    def _dream(self, net: Classifier, wanted: Objective, pixels: Tensor, tell: Callable[[int], None]) -> Tensor:
        draw = rng.generator(self.seed, self.name)
        sizes = [tuple(max(1, round(side * self.ratio**k)) for side in pixels.shape[2:]) for k in range(self.octaves)]
        added = torch.zeros_like(pixels)
        for size in reversed(sizes):
            start = _resized(pixels, size)
            dream = (start + _resized(added, size)).clamp(0, 1)
            for _ in range(self.steps):
                drawn = 2 * torch.rand(2, generator=draw) - 1
                shift = (drawn * self.jitter * torch.tensor(size)).round().int().tolist()
                leaf = dream.roll(shift, (2, 3)).requires_grad_()
                with torch.enable_grad():
                    value = self._at(net, wanted, leaf, tuple(pixels.shape[2:]))
                if not value.requires_grad:
                    raise NothingToExplain(
                        f"{wanted} does not depend on the input of {net.name} by any differentiable way"
                    )
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
                count(backward=len(pixels))
                step = gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
                dream = (leaf.detach() + self.rate * step).clamp(0, 1).roll([-each for each in shift], (2, 3))
                tell(len(pixels))
            added = dream - start
        return dream

    def _at(self, net: Classifier, wanted: Objective, pixels: Tensor, whole: tuple[int, ...]) -> Tensor:
        try:
            return _value(net, wanted, pixels)
        except RuntimeError as error:
            if tuple(pixels.shape[2:]) == whole or ("size" not in str(error) and "shape" not in str(error)):
                raise
            raise LayerError(
                f"{net.name} takes pictures of {whole[1]} × {whole[0]} pixels alone as far as {wanted} looks; use octaves=1, "
                "or a layer before it flattens its maps"
            ) from error


def _value(net: Classifier, wanted: Objective, pixels: Tensor) -> Tensor:
    answers = reach(net, pixels, wanted.layers, logits=wanted.logits)
    return wanted(View(pixels, answers, torch.zeros(len(pixels), dtype=torch.long)), net)


def _resized(pixels: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
