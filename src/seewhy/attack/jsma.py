"""The attack by the Jacobian's saliency map: few features, each changed as far as it goes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.attack.base import Attack, Goal, Perturbed, size_of
from seewhy.attack.oracles import WhiteBox, predicted
from seewhy.attack.sizes import known_sizes, outlives
from seewhy.errors import SpecError

#: how many pairs are multiplied in one piece
TABLE = 2**22

#: when a pixel is changed that is not
LATEST = 2**62


@dataclass(frozen=True)
class JSMA(Attack[WhiteBox]):
    """Each step adds θ to the two features i, j (values of pixels) that maximise −(α_i + α_j)·(β_i + β_j).

    α = ∂Z_t/∂x and β = Σ_{k≠t} ∂Z_k/∂x are slopes of the logits Z for the target class t; only pairs count whose α is positive
    and whose β is negative, or with `theta` below 0 the other way round. `pairs=false` takes one feature a step. What has
    reached black or white leaves the search. With `at_once` as many pairs are changed by one map, the best, then the best of the
    features left, and so on: so many times fewer passes, for a few pixels more; an image that this does not fool is tried again
    with half as many, at last with one. There are as many steps as change the share `gamma` of the features, and at most `steps`
    a try; an image is done when it fools, rounded to 8 bits too. Without a target the
    attack goes away from the true class: t = y, with the signs of α and β exchanged.
    The best pair is the exact one, without a table of all pairs: a feature that two others beat in both slopes is in no best
    pair, and sorting finds the few that remain.
    The distance is L0, the share of pixels changed; `eps` are such shares: at each, only the pixels changed first.
    Cost at most: 2·`steps` + 3 + 2 for each size forward and 2·`steps` backward passes an image, whatever the number of classes,
    and as many steps for each further try; about `steps` forward where what fools outlives rounding.
    Limits: greedy, no change is taken back; an image stops where no pair has both signs (said). Large images take many steps.
    Deviation: the logits' slopes, as the paper advises, not the probabilities'; without a target as Wiyatno & Xu; the paper
    changes one pair by a map.
    Source: Papernot et al. 2016, arXiv 1511.07528, equations 8 to 10, algorithms 2 and 3; Wiyatno & Xu 2018, arXiv 1808.07945.

    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = JSMA(gamma=1.0)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool((found.distances["l0"] <= 1).all())
    True
    """

    theta: float = 1.0
    gamma: float = 0.1
    pairs: bool = True
    at_once: int = 1
    steps: int = 1000
    eps: tuple[float, ...] = ()

    name = "jsma"
    shows = "Whether changing a few pixels, as far as they go, changes the decision, and which pixels those are."
    reading = "The pixels that the class hangs on most, one after the other. Few in number, but each change is plainly visible."
    source = "Papernot et al. 2016, arXiv 1511.07528"
    norm = "l0"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm, (self.norm,))
        if not 0 < abs(self.theta) <= 1:
            raise SpecError(f"expected theta from −1 to 1 and not 0, in units of [0, 1] pixels, got {self.theta:g}")
        if not 0 < self.gamma <= 1:
            raise SpecError(f"expected gamma, a share of the features, over 0 and up to 1, got {self.gamma:g}")
        if self.steps < 1 or self.at_once < 1:
            raise SpecError(f"expected steps ≥ 1 and at_once ≥ 1, got {self.steps} and {self.at_once}")

    @property
    def passes(self) -> tuple[int, int]:
        steps = 2 * self.steps * self.at_once.bit_length()
        return 1 + steps + 2 * (len(self.eps) + 1), steps

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        images, fooled = pixels.clone(), torch.zeros(len(pixels), dtype=torch.bool)
        first = torch.full((len(pixels), pixels[0, 0].numel()), LATEST)  # when each pixel was first changed
        stuck, most = 0, max(1, int(self.gamma * pixels[0].numel() / (1 + self.pairs)))
        pace = min(self.at_once, most)
        while pace and len(rows := (~fooled & view.can(torch.arange(len(pixels)))).nonzero()[:, 0]):
            images[rows], first[rows] = pixels[rows], LATEST
            total = min(self.steps * pace, most)
            stuck = self._tried(view, goal, rows, pace, total, images, first, fooled)
            pace //= 2
        said = (f"for {stuck} of {len(pixels)} images no features with both signs were left",) if stuck else ()
        return Perturbed(*_levels(images, pixels, first, self.eps), said)

    def _tried(
        self,
        view: WhiteBox,
        goal: Goal,
        rows: Tensor,
        pace: int,
        total: int,
        images: Tensor,
        first: Tensor,
        fooled: Tensor,
    ) -> int:
        """Change `total` pairs of the `images` rows (M,), `pace` by a map, and note those `fooled`; how many had no pair left."""
        found, area, stuck = images.clone(), first.shape[1], 0
        best = best_pair if self.pairs else best_one

        def slopes_of(logits: Tensor, at: Tensor) -> Tensor:
            own = logits.gather(1, goal.named[rows[at]].to(logits.device)[:, None])[:, 0]
            return torch.stack([own, logits.sum(1) - own], 1)

        sign = 1 if (self.theta > 0) == (goal.target is not None) else -1
        for done in range(0, total, pace):
            rows = rows[view.goes_on(rows)]
            if not len(rows):
                break
            logits, slopes = view.gradient(images[rows], rows, slopes_of)
            now = goal.of(rows).reached(predicted(logits))
            reached = rows[now]
            found[reached], fooled[reached] = images[reached], True
            going = ~now
            going[now] = ~outlives(view, images[reached], reached, goal.of(reached))
            rows, flat = rows[going], images[rows[going]].flatten(1)
            if not len(rows):
                break
            full = flat >= 1 if self.theta > 0 else flat <= 0
            own, others = slopes[going].flatten(2).unbind(1)
            rise, fall = (sign * own).masked_fill(full, -torch.inf), (-sign * others).masked_fill(full, -torch.inf)
            there = able = torch.arange(len(rows))
            for change in range(done, min(done + pace, total)):
                value, chosen = best(rise[there], fall[there])
                there, chosen = there[value > 0], chosen[value > 0]
                if change == done:
                    stuck += len(rows) - len(there)
                    able = there
                place = there[:, None], chosen
                flat[place] = (flat[place] + self.theta).clamp(0, 1)
                rise[place] = fall[place] = -torch.inf  # a map changes no feature twice
                for order, pixel in enumerate((chosen % area).T):
                    first[rows[there], pixel] = first[rows[there], pixel].clamp_max(2 * change + order)
            images[rows] = flat.view(-1, *images.shape[1:])
            rows = rows[able]
        rows = rows[view.can(rows)] if pace > 1 else rows[:0]  # is another try called for?
        if len(rows):
            now = goal.of(rows).reached(view.labels(images[rows], rows))
            found[rows[now]], fooled[rows[now]] = images[rows[now]], True
        images[fooled] = found[fooled]
        return stuck


def best_one(rise: Tensor, fall: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of (N, n) the greatest product rise_i·fall_i of two positive numbers (N,), or 0, and i (N, 1)."""
    value, chosen = (rise.clamp_min(0) * fall.clamp_min(0)).max(1, keepdim=True)
    return value[:, 0], chosen


def best_pair(rise: Tensor, fall: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of (N, n) the greatest product (rise_i + rise_j)·(fall_i + fall_j), i ≠ j, and the pair (N, 2).

    Both sums must be positive; 0 where no pair has that. A feature that two others match or beat in both numbers is in no
    better pair than one of them is: what remains are the features k that at most one other beats, found by sorting. Before that,
    all leave that cannot beat a good pair even beside the largest numbers there are. Costs n·log n + k² time, n + k memory; in
    practice k is some dozens. −inf keeps a feature out.
    """
    tops = rise.amax(1, keepdim=True), fall.amax(1, keepdim=True)
    # the two that are best when both are added, each in units of its largest
    weighed = rise / tops[0].abs().clamp_min(1e-30) + fall / tops[1].abs().clamp_min(1e-30)
    two = weighed.topk(min(2, rise.shape[1]), 1).indices
    sums = [each.gather(1, two).double().sum(1, keepdim=True).clamp_min(0) for each in (rise, fall)]
    bound = (sums[0] * sums[1] * (1 - 1e-5)).float()
    with_tops = [each + top for each, top in zip((rise, fall), tops, strict=True)]
    able = (with_tops[0] > 0) & (with_tops[1] > 0) & (with_tops[0] * with_tops[1] >= bound)
    index, (rise, fall) = _packed(able, rise, fall)

    order = rise.argsort(1, descending=True)
    index, rise, fall = (each.gather(1, order) for each in (index, rise, fall))
    none = torch.full((len(fall), 1), -torch.inf)
    best = torch.cat([none, fall.cummax(1).values], 1)[:, :-1]  # of those before
    second = torch.cat([none, fall.minimum(best).cummax(1).values], 1)[:, :-1]
    where, (rise, fall) = _packed(fall > second, rise, fall)
    index = index.gather(1, where)

    rise, fall = rise.double(), fall.double()
    count, size = rise.shape
    value, pair = torch.zeros(count, dtype=torch.double), index[:, [0, -1]]
    part = max(1, TABLE // (count * size))
    for start in range(0, size, part):
        here = slice(start, start + part)
        x, y = rise[:, here, None] + rise[:, None], fall[:, here, None] + fall[:, None]
        product = torch.where((x > 0) & (y > 0), x * y, 0)
        product.diagonal(start, 1, 2).zero_()
        found, at = product.flatten(1).max(1)
        places = torch.stack([start + at // size, at % size], 1)
        better = found > value
        value, pair = torch.where(better, found, value), torch.where(better[:, None], index.gather(1, places), pair)
    return value, pair


def _packed(keep: Tensor, *values: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Of each row of (N, n) the columns to keep (N, k) and the values there; what is missing has the column 0 and −inf."""
    row, column = keep.nonzero(as_tuple=True)
    at = row, keep.cumsum(1)[row, column] - 1
    shape = len(keep), max(1, int(keep.sum(1).max()))
    columns = column.new_zeros(shape).index_put(at, column)
    return columns, tuple(torch.full(shape, -torch.inf).index_put(at, value[row, column]) for value in values)


def _levels(found: Tensor, pixels: Tensor, first: Tensor, shares: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Images (E, N, 3, H, W) and sizes (E, N): for each share the pixels with the lowest `first` (N, H·W) changed, then all."""
    ends = F.pad(first.sort(1).values, (1, 0), value=-1)
    last = [ends[:, int(share * first.shape[1]), None] for share in sorted(shares)]
    images = [torch.where((first <= end).view(-1, 1, *pixels.shape[2:]), found, pixels) for end in last]
    asked = torch.tensor(sorted(shares))[:, None].expand(-1, len(pixels))
    return torch.stack([*images, found]), torch.cat([asked, size_of(found - pixels, "l0")[None]])
