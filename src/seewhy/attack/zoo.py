"""Zeroth-order optimisation: coordinate descent on finite differences of the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.decisions import KEPT, Search, in_parts, known, known_queries
from seewhy.attack.oracles import Scores
from seewhy.attack.sizes import known_sizes
from seewhy.errors import SpecError
from seewhy.rng import generator

SOLVERS, BOXES = ("newton", "adam"), ("clip", "tanh")

#: Adam's step, its decay of means and squares, and what keeps it from dividing by nothing
ADAM, BETAS, TINY = 0.02, (0.9, 0.999), 1e-8

#: the least curvature that Newton reckons with; that of ‖x′ − x‖² is 2 for a pixel that is free to move
FLATTEST = 0.05

#: the part of the queries that goes evenly to all coordinates whatever their importance
EVEN = 0.1

#: c grows or shrinks by so much a turn, at most, and fully where half the first margin is missing
GROWTH, FULLY = 1.2, 0.5

#: an image is done whose nearest has not come nearer by this part within a turn for every coordinate
SLOW = 0.01

#: bisections from the nearest image found towards the original
BISECTIONS = 8


def resized(offsets: Tensor, size: tuple[int, int]) -> Tensor:
    """Offsets (M, 3, h, w) of a smaller attack space as those of pixels (M, 3, H, W)."""
    if offsets.shape[-2:] == size:
        return offsets
    return F.interpolate(offsets, size=size, mode="bilinear", align_corners=False)


def nearby(
    values: Callable[[Tensor, Tensor], Tensor],
    offsets: Tensor,
    rows: Tensor,
    coordinates: Tensor,
    h: float,
    numbers: int,
) -> Tensor:
    """Values (M, K, 2, V) with h more, and h less, of one coordinate each: `coordinates` (M, K) of the `rows` (M,) of offsets.

    `values` answers (m, V) for offsets (m, 3, h, w) of rows (m,), images of so many numbers each. Half the difference over h
    is the derivative.
    """
    count = coordinates.shape[1]
    flat = coordinates.flatten()

    def ask(part: Tensor) -> Tensor:
        of = rows[part // (2 * count)]
        moved = offsets[of].flatten(1)
        moved[torch.arange(len(part)), flat[part // 2]] += h * (1 - 2 * (part % 2))
        return values(moved.view(-1, *offsets.shape[1:]), of)

    return in_parts(2 * flat.numel(), numbers, ask).unflatten(0, (len(rows), count, 2))


@dataclass(frozen=True)
class ZOO(Attack[Scores]):
    """∂L/∂z_i ≈ (L(z + h·e_i) − L(z − h·e_i)) / 2h from scores alone, L = ‖x′ − x‖² + c·m(x′): coordinate descent on L.

    m is what is missing to the goal, in log-probabilities: that of the true class less the largest other, or the largest other
    less that of the target. Each turn moves `coordinates` coordinates: with `solver=newton` by the first over the second
    difference, with `solver=adam` by Adam's rule; `rate` multiplies either. x′ = x + z cut off at black and white (`box=clip`),
    or (tanh(w + z) + 1)/2 (`box=tanh`). z has the resolutions `sides` one after the other, each resized to the image (a coarse
    attack space first, then finer; none finer than the image). With `importance` coordinates near those that moved most are
    chosen more often. The first pass over the coordinates sets c to where a linear m would vanish; then c grows while m > 0 and
    shrinks while it is below. `queries` is the most for an image; one that no longer comes nearer is done. At last the nearest
    image found is bisected towards the original. With `curve` one more level holds what was found after each of those numbers.
    Values (E, N, 3, H, W): a level for each of the sizes `eps` (none at first), one for each of `curve`, the nearest image, and
    one that also fools once rounded to 8 bits; sizes in l2.
    Raises `SpecError` for sizes and numbers that cannot be meant.
    Cost: at most `queries` forward passes an image, 2·`coordinates` + 1 a turn, and two a level to judge; none backward.
    Limits: one pass over all coordinates of 32 × 32 takes 6,144 queries; scores that are rounded need a larger `h`.
    Deviation: c moves while it runs, where the paper starts anew for each of nine values; h is 0.01, since differences of
    0.0001 drown in single precision; Newton keeps the exact curvature of ‖x′ − x‖² where that of m is negative.
    Source: Chen, Zhang, Sharma, Yi & Hsieh 2017, arXiv 1708.03999, algorithms 1 to 3, sections 3.3 to 3.6.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = ZOO(queries=300, coordinates=12)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.queries.max() <= 300)
    True
    """

    queries: int = 20_000
    solver: str = "newton"
    coordinates: int = 128
    sides: tuple[int, ...] = (32,)
    importance: bool = True
    box: str = "clip"
    rate: float = 1.0
    h: float = 0.01
    curve: tuple[int, ...] = ()
    eps: tuple[float, ...] = ()
    seed: int = 0

    name = "zoo"
    shows = "How small a change someone finds who sees the scores, by trying one pixel after the other."
    reading = "The distance is an upper bound, near that of attacks with gradients once every pixel was tried."
    source = "Chen, Zhang, Sharma, Yi & Hsieh 2017, arXiv 1708.03999"
    view = Scores
    norm = "l2"

    def __post_init__(self) -> None:
        known_sizes(self.eps, "l2")
        known_queries(self.queries, self.curve)
        known(self.solver, SOLVERS, "solver")
        known(self.box, BOXES, "box")
        if self.coordinates < 1 or not self.sides or min(self.sides) < 1:
            raise SpecError(f"expected coordinates ≥ 1 and sides ≥ 1, got {self.coordinates} and {self.sides}")
        if not (0 < self.h < 1 and self.rate > 0):
            raise SpecError(f"expected 0 < h < 1 and rate > 0, got {self.h:g} and {self.rate:g}")

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.queries + 2 * (len(self.eps) + len(self.curve) + 2), 0

    def perturb(self, view: Scores, pixels: Tensor, goal: Goal) -> Perturbed:
        view.limit(self.queries)
        draw = generator(self.seed, self.name)
        search = Search(view, pixels, goal, "l2", self.curve)
        height, width = pixels.shape[-2:]
        spaces = list(dict.fromkeys((min(side, height), min(side, width)) for side in self.sides))
        left = int(view.left.min()) - len(spaces) - BISECTIONS - KEPT  # the same for all: nothing was asked yet
        turns = left // (2 * self.coordinates + 1) // len(spaces)
        offsets = torch.zeros(len(pixels), 3, *spaces[0])
        for space in spaces:
            offsets = resized(offsets, space)
            self._descend(view, search, offsets, turns, draw)
        rows = search.sizes.isfinite().nonzero()[:, 0]
        search.walk(search.towards(search.images[rows], rows), rows, BISECTIONS)
        return search.answer(self.eps)

    def _descend(self, view: Scores, search: Search, offsets: Tensor, turns: int, draw: torch.Generator) -> None:
        """So many turns in one attack space; `offsets` (N, 3, h, w) are moved in place."""
        pixels, goal = search.pixels, search.goal
        start = torch.atanh((2 * pixels - 1) * 0.999) if self.box == "tanh" else pixels

        def made(moved: Tensor, of: Tensor) -> Tensor:
            reached = start[of] + resized(moved, (pixels.shape[-2], pixels.shape[-1]))
            return (reached.tanh() + 1) / 2 if self.box == "tanh" else reached.clamp(0, 1)

        def values(moved: Tensor, of: Tensor) -> Tensor:
            images = made(moved, of)
            missing = goal.of(of).margin(view.scores(images, of))
            return torch.stack([missing, (images - pixels[of]).flatten(1).square().sum(1)], 1)

        rows = torch.arange(len(pixels))
        whole = offsets[0].numel()
        each = min(self.coordinates, whole)
        sweep = -(-whole // each)
        now = values(offsets, rows) if turns > 0 else torch.zeros(len(rows), 2)
        scale = now[:, 0].abs()
        means, squares, visits = (torch.zeros(len(pixels), whole) for _ in range(3))
        c, energy, slow = (torch.zeros(len(pixels)) for _ in range(3))
        mark = search.sizes.clone()
        for turn in range(turns):
            if not len(rows):
                return
            order = visits[rows] + torch.rand((1, whole), generator=draw)
            if self.importance and turn >= sweep:
                moved_most = F.max_pool2d(offsets[rows].abs(), 3, 1, 1).flatten(1)
                order = order / (moved_most / moved_most.mean(1, keepdim=True).clamp_min(TINY) + EVEN)
            chosen = order.topk(each, largest=False).indices
            around = nearby(values, offsets, rows, chosen, self.h, pixels[0].numel())
            first = (around[:, :, 0] - around[:, :, 1]) / (2 * self.h)
            second = (around.sum(2) - 2 * now[rows, None]) / self.h**2
            age = visits[rows].gather(1, chosen) + 1
            visits[rows] = visits[rows].scatter(1, chosen, age)
            if turn < sweep:  # c at which a linear margin would vanish, from the slopes so far
                energy[rows] += (first[..., 0].square() / second[..., 1].clamp_min(FLATTEST)).sum(1)
                c[rows] = scale[rows] * min(1, (turn + 1) * each / whole) / energy[rows].clamp_min(TINY)
            slope = c[rows, None] * first[..., 0] + first[..., 1]
            if self.solver == "newton":
                step = slope / (c[rows, None] * second[..., 0].clamp_min(0) + second[..., 1].clamp_min(FLATTEST))
            else:
                mean = BETAS[0] * means[rows].gather(1, chosen) + (1 - BETAS[0]) * slope
                square = BETAS[1] * squares[rows].gather(1, chosen) + (1 - BETAS[1]) * slope**2
                means[rows] = means[rows].scatter(1, chosen, mean)
                squares[rows] = squares[rows].scatter(1, chosen, square)
                step = ADAM * mean / (1 - BETAS[0] ** age) / ((square / (1 - BETAS[1] ** age)).sqrt() + TINY)
            offsets[rows] = offsets[rows].flatten(1).scatter_add(1, chosen, -self.rate * step).view_as(offsets[rows])
            now[rows] = values(offsets[rows], rows)
            there = rows[now[rows, 0] < 0]
            search.keep(made(offsets[there], there), there)
            if turn + 1 >= sweep:
                c[rows] *= GROWTH ** (now[rows, 0] / scale[rows] / FULLY).clamp(-1, 1)
            nearer = search.sizes < (1 - SLOW) * mark
            mark[nearer] = search.sizes[nearer]
            slow = torch.where(nearer, torch.zeros_like(slow), slow + 1)
            rows = rows[(slow[rows] < sweep) | mark[rows].isinf()]
