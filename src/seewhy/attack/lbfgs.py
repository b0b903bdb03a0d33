"""The first attack: a box-constrained quasi-Newton search, for all images at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.oracles import WhiteBox, predicted
from seewhy.attack.sizes import DRAWN, LONGER, Nearest, known_sizes
from seewhy.errors import SpecError

#: how much a step must fall, as a share of what its slope promised (Armijo)
SUFFICIENT = 1e-4
#: a problem is solved once its value falls by less than this share, or its projected gradient is as short as that
STILL = 1e-6


@dataclass(frozen=True)
class LBFGS(Attack[WhiteBox]):
    """Minimises c·‖r‖² − log P(goal | x + r) inside 0 ≤ x + r ≤ 1, for the largest c whose solution still fools.

    P(goal) is the probability of the target class, as in the paper, or without a target 1 − P(y). c starts where the problem
    with a linear log-odds ends on the boundary, changes by a factor of 4 until one c whose search meets an image that fools
    and one whose search does not are known, then goes to their geometric mean: `searches` values of c, each solved by at most
    `steps` evaluations of a projected L-BFGS with memory `history`, from the solution before. All images advance at once, and
    leave when they are solved.
    The distance is L2. The nearest image that fools of all seen on the way comes back, drawn towards the original by
    bisection as long as it fools; then, as a level of its own, one that fools when it is rounded to 8 bits; before them the
    image at each size of `eps`.
    Cost at most: `searches`·`steps` + 21 + 2 for each size forward, `searches`·`steps` + 1 backward passes an image.
    Limits: a local minimum; its distance is an upper bound of the distance to the boundary. Memory: 2·`history` images each.
    Deviation: ‖r‖² in the place of |r|, which has no gradient where the search begins; untargeted by 1 − P(y).
    Source: Szegedy et al. 2014, arXiv 1312.6199, section 4.1; L-BFGS: Nocedal & Wright 2006, algorithm 7.4; projection:
    Bertsekas 1982, doi 10.1137/0320018.

    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = LBFGS(searches=4)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> found.distances["l2"].shape
    torch.Size([2, 1])
    """

    searches: int = 5
    steps: int = 20
    history: int = 10
    eps: tuple[float, ...] = ()

    name = "lbfgs"
    shows = "How near the nearest image is that fools, by a search that uses the curvature of the model."
    reading = "A short distance is a fact; a long one may only be a local minimum. The change has no shape that people would see."
    source = "Szegedy et al. 2014, arXiv 1312.6199"
    norm = "l2"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        for value, what in ((self.searches, "searches"), (self.steps, "steps"), (self.history, "history")):
            if value < 1:
                raise SpecError(f"expected {what} ≥ 1, got {value}")

    @property
    def passes(self) -> tuple[int, int]:
        asked = 1 + self.searches * self.steps
        return asked + DRAWN + len(LONGER) + 1 + 2 * (len(self.eps) + 2), asked

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        clean, nearest = pixels.flatten(1), Nearest(pixels)

        def ask(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Logits (M, C), logarithms of P(not the goal) / P(goal) (M,) and their gradients (M, n)."""
            images = points.unflatten(1, pixels.shape[1:])
            logits, slopes = view.gradient(images, rows, lambda part, at: goal.of(rows[at]).margin(part, soft=True))
            reached = goal.of(rows).reached(predicted(logits))
            nearest.keep(rows[reached], images[reached])
            return logits, goal.of(rows).margin(logits.double(), soft=True), slopes.flatten(1)

        every = torch.arange(len(pixels))
        rows = every[view.can(every)]
        found = clean.clone()
        logits, odds, slopes = ask(clean[rows], rows)
        # where log P and its slope are lines, the solution for this c lies on the boundary
        c = torch.ones(len(pixels))
        c[rows] = slopes.square().sum(1) / (4 * goal.of(rows).margin(logits).clamp_min(1e-3))
        c[~(c > 0)] = 1
        value, gradient = torch.zeros(len(pixels), dtype=torch.double), torch.zeros_like(clean)
        value[rows], gradient[rows] = F.softplus(odds), odds.sigmoid().float()[:, None] * slopes
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(self.searches):
            nearest.forget()

            def penalised(points: Tensor, rows: Tensor, c: Tensor = c) -> tuple[Tensor, Tensor]:
                _, odds, slopes = ask(points, rows)
                away = points - clean[rows]
                value = c[rows] * away.double().square().sum(1) + F.softplus(odds)
                return value, 2 * c[rows, None] * away + odds.sigmoid().float()[:, None] * slopes

            may = partial(nearest.goes_on, view)
            found, value, gradient = minimise(
                penalised, found, value, gradient, 2 * c, self.steps, self.history, may=may
            )
            low, high = torch.where(nearest.met, c, low), torch.where(nearest.met, high, c)
            next_c = torch.where(high.isinf(), 4 * low, torch.where(low > 0, (low * high).sqrt(), high / 4))
            away, more = found - clean, next_c - c
            value, gradient = value + more * away.double().square().sum(1), gradient + 2 * more[:, None] * away
            c = next_c
        return nearest.settled(view, found.unflatten(1, pixels.shape[1:]), goal, self.eps)


def minimise(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    value: Tensor,
    gradient: Tensor,
    curvature: Tensor,
    steps: int,
    history: int,
    low: float = 0,
    high: float = 1,
    may: Callable[[Tensor], Tensor] = torch.ones_like,
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise N functions of n variables inside a box, all at once: points (N, n), values (N,) and gradients (N, n).

    `function(points, rows)` answers values (M,) and gradients (M, n) of the functions `rows` (M,); `start` (N, n) lies inside
    the box, with its `value` and `gradient`, and `curvature` (N,) is what the first step supposes. At most `steps` evaluations
    each, and none for which `may(rows)` says no. Every evaluation is of all functions that are not solved: some take
    a step, others shorten one.
    """
    points, value, gradient = start.clone(), value.clone(), gradient.clone()
    count, size = start.shape
    moves, bends = start.new_zeros(2, count, history, size)
    weight, kept = start.new_zeros(count, history), torch.zeros(count, dtype=torch.long)
    scale, length = 1 / curvature, start.new_ones(count)
    direction, fresh = torch.zeros_like(start), torch.ones(count, dtype=torch.bool)

    def newton(rows: Tensor) -> Tensor:
        """−H·gradient by the two loops, among the variables that are not held by the box."""
        x, g = points[rows], gradient[rows]
        free = ~((x <= low) & (g > 0) | (x >= high) & (g < 0))
        way, parts = g * free, []
        for back in range(1, min(history, int(kept[rows].max())) + 1):
            at = rows, (kept[rows] - back) % history  # where nothing is kept yet, its weight is zero
            part = weight[at] * (moves[at] * way).sum(1)
            way = way - part[:, None] * bends[at]
            parts.append((at, part))
        way = way * scale[rows, None]
        for at, part in reversed(parts):
            way = way + (part - weight[at] * (bends[at] * way).sum(1))[:, None] * moves[at]
        return -way * free

    rows = torch.arange(count)
    for _ in range(steps):
        still = (points[rows] - (points[rows] - gradient[rows]).clamp(low, high)).abs().amax(1) <= STILL
        rows = rows[~still]
        rows = rows[may(rows).bool()]
        if not len(rows):
            break
        new = rows[fresh[rows]]
        if len(new):
            direction[new] = newton(new)
        here = points[rows]
        there = (here + length[rows, None] * direction[rows]).clamp(low, high)
        step = there - here
        promised = (gradient[rows] * step).sum(1)
        found, slope = function(there, rows)
        risen = found - value[rows]
        good = (risen <= SUFFICIENT * promised) & (promised < 0)
        taken, bend = rows[good], (slope - gradient[rows])[good]
        along, square = (step[good] * bend).sum(1), bend.square().sum(1)
        curved = along > 1e-8 * square
        put = taken[curved]
        at = put, kept[put] % history
        moves[at], bends[at], weight[at] = step[good][curved], bend[curved], 1 / along[curved]
        scale[put] = along[curved] / square[curved]
        kept[put] += 1
        points[taken], value[taken], gradient[taken] = there[good], found[good], slope[good]
        # a parabola through value, slope and what was found there
        shorter = (-promised / (2 * (risen - promised))).nan_to_num(0.1, 0.1, 0.1).clamp(0.1, 0.5).to(length.dtype)
        length[rows] = torch.where(good, 1, length[rows] * shorter)
        fresh[rows] = good
        solved = torch.where(good, -risen <= STILL * value[rows].abs(), length[rows] < 1e-6)
        rows = rows[~solved]
    return points, value, gradient
