"""What an explainer is, and what it answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier, Target
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, NothingToExplain, SpecError
from seewhy.explain.baseline import blurred
from seewhy.lens.capture import find
from seewhy.method import Method
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

Sign = Literal["absolute", "positive", "signed"]


@dataclass(frozen=True)
class Map:
    """What an explainer found: values (N, 3, H, W), or a declared smaller map (N, 1, h, w).

    `layer` names the layer that was looked at, `notes` what a reader must know, `measures` a number (N,) for each image,
    such as a completeness error; `standard_error`, of the values' shape, how far each may be off by chance, from a
    method that samples.
    """

    values: Tensor
    layer: str = ""
    notes: tuple[str, ...] = ()
    measures: Mapping[str, Tensor] = field(default_factory=dict)
    standard_error: Tensor | None = None


class Question:
    """Which logit is explained for each image: a class that was asked for, or the one that the pass itself predicts.

    Used as a score, `question(logits, where)`, it picks the logits of the images in slice `where` and remembers them, so
    that a method of one pass needs no second one to know what was predicted.
    """

    def __init__(self, count: int, target: Tensor | None) -> None:
        self.target = torch.full((count,), -1) if target is None else target.clone()
        self.score = torch.full((count,), float("nan"))

    def __call__(self, logits: Tensor, where: slice) -> Tensor:
        chosen = self.target[where]
        chosen = torch.where(chosen < 0, logits.detach().argmax(1).cpu(), chosen)
        picked = logits.gather(1, chosen.to(logits.device)[:, None])[:, 0]
        self.target[where], self.score[where] = chosen, picked.detach().float().cpu()
        return picked

    def settle(self, net: Classifier, pixels: Tensor) -> Tensor:
        """The targets (N,) before the method's own passes: one forward pass an image, if not known yet."""
        if self.score.isnan().any():
            self(net.predict(pixels), slice(0, len(pixels)))
        return self.target

    def of(self, index: int) -> Callable[[Tensor, slice], Tensor]:
        """The score of image `index` alone, for a batch of variants of it."""
        target = int(self.target[index])
        return lambda logits, _: logits[:, target]


def settle(questions: Sequence[Question], net: Classifier, pixels: Tensor) -> None:
    """Every question's target before the method's own passes: one forward pass an image for all of them."""
    logits = net.predict(pixels)
    for question in questions:
        question(logits, slice(0, len(pixels)))


def flatten(values: Tensor, sign: Sign) -> Tensor:
    """One map (N, h, w) of values (N, C, h, w): channels added up, signed, their positive part or absolute values."""
    summed = values.abs().sum(1) if sign == "absolute" else values.sum(1)
    return summed.clamp_min(0) if sign == "positive" else summed


def heat(values: Tensor, sign: Sign, size: tuple[int, int], smooth: float = 0.0) -> Tensor:
    """One map (N, H, W) of values (N, C, h, w): flattened, brought to `size` bilinearly, under a Gaussian of `smooth` pixels."""
    if not 0 <= smooth < float("inf"):
        raise SpecError(f"expected smooth ≥ 0, the deviation of a Gaussian in pixels, got {smooth}")
    flat = flatten(values, sign)[:, None]
    if flat.shape[2:] != size:
        flat = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return (blurred(flat, smooth) if smooth else flat)[:, 0]


def smallest_region(maps: Tensor, share: float) -> Tensor:
    """The fewest pixels of each of `maps` (N, h, w) that hold `share` of the sum of its positive values; none where that is 0.

    >>> smallest_region(torch.tensor([[[4.0, 1.0], [-9.0, 3.0]]]), 0.5)
    tensor([[[ True, False],
             [False, False]]])
    """
    flat = maps.flatten(1).clamp_min(0).double()
    order = flat.argsort(dim=1, descending=True, stable=True)
    held = flat.gather(1, order).cumsum(1)
    total = held[:, -1:]
    before = torch.cat([torch.zeros_like(total), held[:, :-1]], 1)
    # what is needed is less than what is missing by rounding alone
    needed = (before < share * total * (1 - 1e-12)) & (total > 0)
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, needed).reshape(maps.shape)


@dataclass(frozen=True)
class Attribution:
    """An explanation of a batch: signed values for each pixel or map position, and what they are about.

    `values` is (N, 3, H, W), or (N, 1, h, w) for a method that explains a layer; `target` the class indices (N,);
    `score` the explained logits (N,). `cost`, `notes` and `measures` say what it took and how far to trust it;
    `standard_error`, of the values' shape, is there for methods that sample.
    """

    method: str
    values: Tensor
    target: Tensor
    score: Tensor
    labels: tuple[str, ...]
    images: Images
    layer: str
    cost: Cost
    notes: tuple[str, ...]
    measures: Mapping[str, Tensor]
    sign: Sign
    standard_error: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def heatmap(self, sign: Sign | None = None, size: tuple[int, int] | None = None, smooth: float = 0.0) -> Tensor:
        """One map (N, H, W) an image: channels added up, then signed, positive part or absolute value; `size` or the input's.

        Not scaled: the numbers are the method's own. A smaller map is enlarged bilinearly, so that its values, not its sum,
        stay. `smooth` lays a Gaussian of that deviation, in pixels of the result, over it at the end, the border being
        repeated: away from the border the sum stays, a constant map stays as it is, and nothing becomes negative.
        """
        height, width = size or self.images.shape[2:]
        return heat(self.values, sign or self.sign, (height, width), smooth)

    def on_photo(self, index: int = 0, sign: Sign | None = None, smooth: float = 0.0) -> Tensor:
        """The map of one image laid over the original photograph: (H, W) of its pixels, NaN where the model did not look.

        `smooth` is in pixels of the model's input. An image whose geometry is not known is its own photograph.
        """
        (at,) = self._chosen(index)
        values, geometry = self.heatmap(sign, smooth=smooth)[at], self.images.geometry[at]
        return values if geometry is None else geometry.project(values)

    def region(self, share: float = 0.5, smooth: float = 0.0) -> Tensor:
        """The smallest region (N, H, W) of the input whose pixels hold `share` of what speaks for the class.

        That is of the positive part's sum; empty where nothing is positive. Of equal pixels the first in reading order count.
        """
        if not 0 < share <= 1:
            raise SpecError(f"expected a share of the positive values in (0, 1], such as 0.5, got {share}")
        return smallest_region(self.heatmap("positive", smooth=smooth), share)

    def over(
        self,
        photo: Picture | str | os.PathLike[str],
        index: int = 0,
        *,
        sign: Sign | None = None,
        smooth: float = 0.0,
        contour: float | None = None,
    ) -> Picture:
        """The whole original photograph, at its own size, with the map over it; what the model did not see is darkened.

        `photo` is its file, or the picture itself, upright. `contour` outlines the region that holds this share of the
        positive values, see `region`. `info["scale"]` of the picture is the size of the values at which its colours are
        strongest. Raises `InputError` where the photograph has another size than the one explained.
        """
        from seewhy.report.explanations import over_photo

        (at,) = self._chosen(index)
        return over_photo(self, photo, at, sign or self.sign, smooth, contour)

    def plot(
        self,
        index: int | None = None,
        *,
        sign: Sign | None = None,
        smooth: float = 0.0,
        contour: float | None = None,
    ) -> Figure:
        """The maps over the photographs, one row an image (or only image `index`), each on its own scale, which is said.

        `sign` and `smooth` as in `heatmap`; `contour` outlines the region that holds this share of the positive values.
        """
        from seewhy.report.explanations import explanation

        chosen = range(len(self)) if index is None else self._chosen(index)
        return explanation(self, chosen, sign or self.sign, smooth, contour)

    def _chosen(self, index: int) -> list[int]:
        if not -len(self) <= index < len(self):
            raise InputError(f"expected an image from 0 to {len(self) - 1}, got {index}")
        return [index % len(self)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Explainer(Method):
    """A method that says which pixels an output rests on. A new one defines `attribute` and gives itself a `name`.

    `default_sign` is how its values are usually shown as one map; `nothing` says why one is zero everywhere, for methods
    where only one thing can be the reason.
    """

    room = "explain"
    default_sign: ClassVar[Sign] = "signed"
    nothing: ClassVar[str] = ""

    def check(self, net: Classifier) -> None:
        """Raise, before any work, where the network lacks a layer that the method names, or several joined by `+`.

        One forward pass.
        """
        layer = getattr(self, "layer", None)
        for each in layer.split("+") if layer else ():
            find(net, each)

    @abstractmethod
    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        """Explain the logits that `question` picks, for `pixels` (N, 3, H, W)."""

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        """A map for each of several questions about the same images; a method whose passes answer them all overrides it."""
        return [self.attribute(net, pixels, question) for question in questions]

    @final
    def __call__(self, net: Classifier, images: Tensor | Images, target: Target = None) -> Attribution:
        """Explain why each image gets the logit of `target`: a class, one for each image, or None for the predicted ones.

        Checks the pixels, counts the cost, and refuses maps that are not finite (`NothingToExplain`).
        """
        return self.each(net, images, [target])[0]

    @final
    def each(self, net: Classifier, images: Tensor | Images, targets: Sequence[Target]) -> tuple[Attribution, ...]:
        """Explain several targets of the same images; passes that serve them all run once.

        The cost of each is that of all together.
        """
        pixels = net.check(images)
        questions = [Question(len(pixels), None if each is None else net.targets(each, images)) for each in targets]
        with Meter(net.engine.device) as meter, net.session():
            maps = self.attribute_each(net, pixels, questions)
            for question in questions:
                question.settle(net, pixels)
        held = images if isinstance(images, Images) else Images(pixels.detach().cpu())
        return tuple(
            self._finished(net, held, found, question, meter.cost)
            for found, question in zip(maps, questions, strict=True)
        )

    def _finished(self, net: Classifier, images: Images, found: Map, question: Question, cost: Cost) -> Attribution:
        values = found.values.detach().float().cpu()
        if len(values) != len(images) or values.ndim != 4:
            raise InputError(
                f"{self.name}: expected values (N, C, H, W) for {len(images)} images, got {tuple(values.shape)}"
            )
        if not (torch.isfinite(values).all() and torch.isfinite(question.score).all()):
            raise NothingToExplain(
                f"{self.spec} on {net.name} gave values that are not finite (NaN or infinity); "
                "look for a division, a logarithm or a root of zero inside the model"
            )
        notes = found.notes
        if self.bears_bf16 and net.engine.precision == "bf16" and not net.engine.halves:
            notes += ("bf16 was allowed, but this device is slower in it: run in float32",)
        empty = [name for name, value in zip(images.names, values, strict=True) if not value.any()]
        if empty:
            why = f": {self.nothing}" if self.nothing else ""
            notes += (f"the map is zero everywhere for {', '.join(empty[:5])}{why}",)
        error = found.standard_error
        return Attribution(
            method=self.spec,
            values=values,
            target=question.target,
            score=question.score,
            labels=tuple(net.labels[index] for index in question.target.tolist()),
            images=images,
            layer=found.layer,
            cost=cost,
            notes=notes,
            measures={key: value.detach().float().cpu() for key, value in found.measures.items()},
            sign=self.default_sign,
            standard_error=None if error is None else error.detach().float().cpu(),
        )
