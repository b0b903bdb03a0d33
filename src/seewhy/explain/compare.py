"""Explanations beside each other: how far methods agree, what one class's map has that another's has not, one figure of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import InputError
from seewhy.explain.base import Attribution, Sign, flatten, heat
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

#: positions to a side of the grid on which maps are compared, whatever their size
GRID = 14

#: two maps whose rank correlation is below this are said to disagree
DISAGREE = 0.2

#: how two maps can be compared, from what says most to what says least; and what is compared then
_SENSES: tuple[Sign, ...] = ("signed", "positive", "absolute")
_PARTS: dict[Sign, str] = {"signed": "values", "positive": "positive parts", "absolute": "absolute values"}


@dataclass(frozen=True)
class Agreement:
    """How far maps agree: Spearman's rank correlations (N, M, M) between M maps of each image.

    They are NaN where a map is constant, or constant in the sense in which the two are compared, which a note says. `grid` is the
    number of positions to a side at which they were compared.
    """

    methods: tuple[str, ...]
    images: tuple[str, ...]
    correlations: Tensor
    grid: int
    notes: tuple[str, ...] = ()

    def disagreements(self, index: int = 0, below: float = DISAGREE) -> tuple[tuple[str, str, float], ...]:
        """The pairs of maps of an image whose correlation is defined and below a threshold, the worst first."""
        matrix = self.correlations[index]
        pairs = [(one, other, float(matrix[i, j])) for (i, one), (j, other) in combinations(enumerate(self.methods), 2)]
        return tuple(sorted((pair for pair in pairs if pair[2] < below), key=lambda pair: pair[2]))

    def warnings(self, index: int = 0, below: float = DISAGREE) -> tuple[str, ...]:
        """A sentence for each pair that disagrees."""
        return tuple(disagreement(*pair) for pair in self.disagreements(index, below))

    def plot(self, index: int = 0) -> Figure:
        """The matrix of one image in colours, with its numbers."""
        from seewhy.report.explanations import agreement

        return agreement(self, index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), "agreement between methods")


def agreement(
    attributions: Sequence[Attribution], *, sign: Sign | None = None, smooth: float = 0.0, grid: int = GRID
) -> Agreement:
    """Spearman's rank correlation of every two of several explanations of the same images.

    Each map is enlarged bilinearly where it has fewer than `grid` × `grid` positions, or where `smooth` is given made as
    `heatmap` makes it, at the input's size, and averaged over the cells of that grid: so pixels, superpixels and a layer's
    positions can be compared, and single pixels do not count. Two maps are compared in the sense that both have: with their
    signs where both are usually shown signed, else by their positive parts, and by their absolute values where one is shown
    so; or all in the sense of `sign`. Raises `InputError` for fewer than two explanations, and for those of different images.

    >>> from torch import nn
    >>> from seewhy import Classifier, explain
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2)), size=16)
    >>> images = torch.rand(1, 3, 16, 16)
    >>> found = agreement([explain.Gradient()(net, images, 0), explain.GradCAM()(net, images, 0)])
    >>> found.methods, found.grid, tuple(found.correlations.shape)
    (('gradient', 'grad-cam'), 14, (1, 2, 2))
    """
    given = list(attributions)
    if len(given) < 2:
        raise InputError(f"expected at least two explanations to compare, got {len(given)}")
    _alike(given)
    if grid < 2:
        raise InputError(f"expected a grid of at least 2 positions to a side, got {grid}")
    names = _names(given)
    signs = [sign or each.sign for each in given]
    height, width = given[0].images.shape[2:]
    drawn: Callable[[Tensor, Sign], Tensor] = partial(heat, size=(height, width), smooth=smooth) if smooth else flatten
    images = range(len(given[0]))
    correlations = torch.stack([correlated([each.values[i] for each in given], signs, grid, drawn) for i in images])
    notes = [
        f"the map of {name} is constant for {image}: it has no order, and its correlations are not defined"
        for position, image in enumerate(given[0].images.names)
        for name, defined in zip(names, correlations[position].diagonal().isfinite().tolist(), strict=True)
        if not defined
    ]
    notes += [
        sentence
        for position, image in enumerate(given[0].images.names)
        for sentence in incomparable(names, signs, correlations[position], f"for {image}")
    ]
    return Agreement(names, given[0].images.names, correlations, grid, tuple(notes))


def contrast(first: Attribution, second: Attribution) -> Attribution:
    """What speaks for one class rather than for another: the difference of one method's maps for the same images.

    Where a method is linear in the logit (gradients, LRP, occlusion, SHAP, LIME), this explains the difference of the two
    logits; where it cuts off what is negative (Grad-CAM), it is only the difference of two maps. Raises `InputError`
    where methods, images or shapes differ.
    """
    if first.method != second.method:
        raise InputError(f"expected two explanations by one method, got {first.method} and {second.method}")
    _alike([first, second])
    if first.values.shape != second.values.shape:
        raise InputError(
            f"expected two explanations of one shape, got {tuple(first.values.shape)} and {tuple(second.values.shape)}"
        )
    return replace(
        first,
        values=first.values - second.values,
        score=first.score - second.score,
        labels=tuple(f"{one} − {other}" for one, other in zip(first.labels, second.labels, strict=True)),
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))),
        measures={},
        sign="signed",
        standard_error=None,  # both maps may come from the same samples, so their errors do not simply add up
    )


def side_by_side(
    attributions: Sequence[Attribution],
    index: int = 0,
    *,
    sign: Sign | None = None,
    smooth: float = 0.0,
    contour: float | None = None,
) -> Figure:
    """One photograph and many explanations of it, as small multiples.

    Maps of one method (for several classes, or their `contrast`) share one scale; different methods, whose units differ,
    have each their own. Every panel says its scale: the size below which 99.9 % of the values lie. Zero is white; orange
    speaks for the class, blue against it. `contour` outlines the smallest region that holds this share of the positive
    values. Raises `InputError` for none, and for those of different images.
    """
    from seewhy.report.explanations import multiples

    given = list(attributions)
    if not given:
        raise InputError("expected at least one explanation to draw, got none")
    _alike(given)
    return multiples(given, index, sign, smooth, contour)


def disagreement(one: str, other: str, correlation: float) -> str:
    """What it means that two maps disagree, in a sentence.

    >>> disagreement("lrp", "lime", -0.1)
    'lrp and lime disagree here (rank correlation −0.10): no single map should be read as the reason'
    """
    number = f"{correlation:.2f}".replace("-", "−")
    return f"{one} and {other} disagree here (rank correlation {number}): no single map should be read as the reason"


def incomparable(names: Sequence[str], signs: Sequence[Sign], correlations: Tensor, where: str = "here") -> list[str]:
    """A sentence for each map that varies, but not in the sense in which others are compared with it: `correlated`'s NaN.

    >>> nan = math.nan
    >>> incomparable(["lime", "grad-cam"], ["signed", "positive"], torch.tensor([[1.0, nan], [nan, 1.0]]))
    ['lime cannot be compared here with grad-cam by their positive parts: those of lime are the same everywhere']
    """
    varies = correlations.diagonal().isfinite().tolist()
    found: dict[tuple[str, Sign], list[str]] = {}
    for pair in combinations(range(len(names)), 2):
        if all(varies[i] for i in pair) and not correlations[pair].isfinite():
            # they are compared in the sense of one of them, in which that one varies
            flat, other = sorted(pair, key=lambda i: _SENSES.index(signs[i]))
            found.setdefault((names[flat], signs[other]), []).append(names[other])
    return [
        f"{name} cannot be compared {where} with {', '.join(others)} by their {_PARTS[sense]}: those of {name} are the same "
        "everywhere"
        for (name, sense), others in found.items()
    ]


def correlated(
    maps: Sequence[Tensor],
    signs: Sequence[Sign],
    grid: int = GRID,
    made: Callable[[Tensor, Sign], Tensor] = flatten,
) -> Tensor:
    """The rank correlations (M, M) of one image's maps (C, h, w) on a grid, each pair in the sense that both have.

    `made(values, sense)` is one map (N, H, W) of values (N, C, h, w) in that sense.
    """
    ranks = torch.tensor([_SENSES.index(sign) for sign in signs])
    least = torch.maximum(ranks[:, None], ranks[None])
    result = torch.full(least.shape, math.nan, dtype=torch.float64)
    for place, sense in enumerate(_SENSES):
        if (least == place).any():
            rows = torch.cat([on_grid(made(values[None], sense), grid).flatten(1) for values in maps])
            result = torch.where(least == place, rank_correlations(rows), result)
    return result


def on_grid(maps: Tensor, grid: int = GRID) -> Tensor:
    """Maps (N, h, w) as means over the cells of a grid (N, grid, grid); smaller ones are enlarged bilinearly first."""
    height, width = maps.shape[1:]
    room = (max(height, grid), max(width, grid))
    if room != (height, width):
        maps = F.interpolate(maps[:, None], size=room, mode="bilinear", align_corners=False)[:, 0]
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]


def rank_correlations(rows: Tensor) -> Tensor:
    """Spearman's rank correlations (M, M) of rows (M, P), ties having their mean rank; NaN with a constant row.

    >>> rank_correlations(torch.tensor([[1.0, 2.0, 3.0], [10.0, 30.0, 90.0], [5.0, 4.0, 3.0]]))[0].tolist()
    [1.0, 1.0, -1.0]
    """
    ranks = np.stack([_ranks(row) for row in rows.double().numpy()])
    ranks -= ranks.mean(1, keepdims=True)
    lengths = np.linalg.norm(ranks, axis=1)
    lengths[lengths == 0] = math.nan
    return torch.from_numpy(np.round(ranks @ ranks.T / np.outer(lengths, lengths), 12))


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _names(given: Sequence[Attribution]) -> tuple[str, ...]:
    """The methods' specs, with the class where one method stands there for several."""
    specs = [each.method for each in given]
    return tuple(
        spec if specs.count(spec) == 1 else f"{spec} ({', '.join(dict.fromkeys(each.labels))})"
        for spec, each in zip(specs, given, strict=True)
    )


def _alike(given: Sequence[Attribution]) -> None:
    """Check that explanations are of the same images."""
    first = given[0]
    for other in given[1:]:
        if other.images.shape != first.images.shape or not torch.equal(other.images.pixels, first.images.pixels):
            raise InputError(
                f"expected explanations of the same images; {first.method} explains {', '.join(first.images.names[:3])} "
                f"{tuple(first.images.shape)}, {other.method} {', '.join(other.images.names[:3])} {tuple(other.images.shape)}"
            )
