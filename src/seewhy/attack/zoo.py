"""Zeroth-order optimisation: coordinate descent on finite differences of the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.decisions import KEPT, Search, in_parts, known, known_queries
from seewhy.attack.oracles import Scores
from seewhy.attack.sizes import known_sizes
from seewhy.errors import SpecError
from seewhy.rng import generator, uniform

SOLVERS, BOXES = ("newton", "adam"), ("clip", "tanh")

#: Adam's step, its decay of means and squares, and what keeps it from dividing by nothing
ADAM, BETAS, TINY = 0.02, (0.9, 0.999), 1e-8

#: the least curvature that Newton reckons with; that of ‖x′ − x‖² is 2 for a pixel that is free to move
FLATTEST = 0.05

#: the part of the queries that goes evenly to all coordinates whatever their importance
EVEN = 0.1

#: how often in a turn of the first pass c is tried, and how far past the boundary, as a part of the first margin, it aims
LOOKS, PAST = 4, 0.02

#: how far around a coordinate those seen speak for it, and as how many of them the mean of all counts beside theirs
NEAR, FEW = 2, 2.0

#: c grows or shrinks by so much a time, at most, and fully where half the first margin is missing
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
    less that of the target. Each turn asks about `coordinates` coordinates. In the first pass over them all of those seen so
    far then move together, along their slopes to where m vanishes: something that fools is found long before all were seen.
    After it only those asked about move: with `solver=newton` by the first over the second difference, with `solver=adam` by
    Adam's rule; `rate` multiplies either. x′ = x + z cut off at black and white (`box=clip`), or (tanh(w + z) + 1)/2
    (`box=tanh`). z has the resolutions `sides` one after the other, each resized to the image (a coarse attack space first,
    then finer; none finer than the image). With `importance` coordinates are chosen more often near those that are steepest,
    and after the first pass near those that moved most. c is what a linear m takes to vanish, at first; it grows while m > 0
    and shrinks while it is below. `queries` is the most for an image; one that no longer comes nearer is done. At last the
    nearest image found is bisected towards the original. With `curve` one more level holds what was found after each of those
    numbers.
    Values (E, N, 3, H, W): a level for each of the sizes `eps` (none at first), one for each of `curve`, the nearest image, and
    one that also fools once rounded to 8 bits; sizes in l2.
    Raises `SpecError` for sizes and numbers that cannot be meant.
    Cost: at most `queries` forward passes an image, 2·`coordinates` + 1 a turn (3 more in the first pass), and two a level to
    judge; none backward.
    Limits: one pass over all coordinates of 32 × 32 takes 6,144 queries, so a small budget leaves most unseen; scores that are
    rounded need a larger `h`.
    Deviation: the first pass, where the paper moves each coordinate alone from the start; c moves while it runs, where the
    paper starts anew for each of nine values; h is 0.01, since differences of
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
    coordinates: int = 64
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
        offsets, dear = torch.zeros(len(pixels), 3, *spaces[0]), []
        for place, size in enumerate(spaces):
            turn = 2 * min(self.coordinates, 3 * size[0] * size[1]) + LOOKS
            turns = left // (len(spaces) - place) // turn
            offsets = resized(offsets, size)
            if turns > 0:
                self._descend(Space(view, search, self.box == "tanh"), offsets, turns, draw)
                left -= turns * turn
            else:
                dear.append(f"{size[0]} × {size[1]}, which takes {turn}")
        rows = search.sizes.isfinite().nonzero()[:, 0]
        search.walk(search.towards(search.images[rows], rows), rows, BISECTIONS)
        answer = search.answer(self.eps)
        nothing = ": nothing was tried" if len(dear) == len(spaces) else ""
        said = [f"the queries did not suffice for one turn at {' and at '.join(dear)}{nothing}"] if dear else []
        return replace(answer, notes=(*said, *answer.notes))

    def _descend(self, space: Space, offsets: Tensor, turns: int, draw: torch.Generator) -> None:
        """So many turns in one attack space; `offsets` (N, 3, h, w) are moved in place."""
        sizes, count, whole = space.search.sizes, len(offsets), offsets[0].numel()
        each = min(self.coordinates, whole)
        sweep = -(-whole // each)
        rows = torch.arange(count)
        now = space.values(offsets, rows)
        first_pass = Known(now[:, 0].clone(), offsets.flatten(1).clone())
        scale = now[:, 0].abs()
        means, squares, visits = (torch.zeros(count, whole) for _ in range(3))
        c, slow, factor = torch.zeros(count), torch.zeros(count), torch.ones(count)
        mark = sizes.clone()
        for turn in range(turns):
            if not len(rows):
                return
            order = visits[rows] + uniform((1, whole), draw)
            if self.importance and turn >= sweep:
                order = order / (moving(offsets[rows]) + EVEN)
            elif self.importance and turn > 0:
                order = order / (promise(first_pass.slopes[rows].view_as(offsets[rows]), visits[rows] > 0) + EVEN)
            chosen = order.topk(each, largest=False).indices
            around = nearby(space.values, offsets, rows, chosen, self.h, space.search.pixels[0].numel())
            # what is no number says nothing of a slope
            first = ((around[:, :, 0] - around[:, :, 1]) / (2 * self.h)).nan_to_num(0, 0, 0)
            second = ((around.sum(2) - 2 * now[rows, None]) / self.h**2).nan_to_num(0, 0, 0)
            age = visits[rows].gather(1, chosen) + 1
            visits[rows] = visits[rows].scatter(1, chosen, age)
            if turn < sweep:
                first_pass.note(rows, chosen, offsets[rows].flatten(1).gather(1, chosen), first, second[..., 1])
                for _ in range(LOOKS):
                    c[rows], moved = first_pass.joint(rows, factor[rows])
                    offsets[rows] = moved.view_as(offsets[rows])
                    now[rows] = space.taken(offsets[rows], rows)
                    factor[rows] *= grown(now[rows, 0] + PAST * scale[rows], scale[rows])
            else:
                slope = c[rows, None] * first[..., 0] + first[..., 1]
                if self.solver == "newton":
                    step = slope / (c[rows, None] * second[..., 0].clamp_min(0) + second[..., 1].clamp_min(FLATTEST))
                else:
                    mean = BETAS[0] * means[rows].gather(1, chosen) + (1 - BETAS[0]) * slope
                    square = BETAS[1] * squares[rows].gather(1, chosen) + (1 - BETAS[1]) * slope**2
                    means[rows] = means[rows].scatter(1, chosen, mean)
                    squares[rows] = squares[rows].scatter(1, chosen, square)
                    step = ADAM * mean / (1 - BETAS[0] ** age) / ((square / (1 - BETAS[1] ** age)).sqrt() + TINY)
                offsets[rows] = (
                    offsets[rows].flatten(1).scatter_add(1, chosen, -self.rate * step).view_as(offsets[rows])
                )
                now[rows] = space.taken(offsets[rows], rows)
                c[rows] *= grown(now[rows, 0], scale[rows])
            nearer = sizes < (1 - SLOW) * mark
            mark[nearer] = sizes[nearer]
            slow = torch.where(nearer, torch.zeros_like(slow), slow + 1)
            rows = rows[(slow[rows] < sweep) | mark[rows].isinf()]


def grown(missing: Tensor, scale: Tensor) -> Tensor:
    """By how much (M,) the weight of m grows while m is missing, and shrinks where it is more than reached."""
    return GROWTH ** (missing / scale.clamp_min(TINY) / FULLY).clamp(-1, 1).nan_to_num(0)


def moving(offsets: Tensor) -> Tensor:
    """How much (M, 3·h·w) is moved at and beside each coordinate, in units of the mean."""
    most = F.max_pool2d(offsets.abs(), 3, 1, 1).flatten(1)
    return most / most.mean(1, keepdim=True).clamp_min(TINY)


def promise(slopes: Tensor, seen: Tensor) -> Tensor:
    """How steep (M, 3·h·w) m is around each coordinate, by those seen near it, in units of the mean.

    Slopes (M, 3, h, w), 0 where `seen` (M, 3·h·w) is not. With few seen nearby it is nearly the mean's.
    """
    near = 2 * NEAR + 1
    number = F.avg_pool2d(seen.view_as(slopes).float().sum(1, keepdim=True), near, 1, NEAR) * near**2
    sums = F.avg_pool2d(slopes.abs().sum(1, keepdim=True), near, 1, NEAR) * near**2
    mean = (slopes.abs().flatten(1).sum(1) / seen.sum(1)).clamp_min(TINY).view(-1, 1, 1, 1)
    return ((sums / mean + FEW) / (number + FEW)).expand_as(slopes).flatten(1)


@dataclass(frozen=True)
class Space:
    """Offsets (m, 3, h, w) of the originals `of` (m,), as images and as what these are worth."""

    view: Scores
    search: Search
    tanh: bool

    def made(self, offsets: Tensor, of: Tensor) -> Tensor:
        pixels = self.search.pixels[of]
        moved = resized(offsets, (pixels.shape[-2], pixels.shape[-1]))
        if self.tanh:
            return ((torch.atanh((2 * pixels - 1) * 0.999) + moved).tanh() + 1) / 2
        return (pixels + moved).clamp(0, 1)

    def values(self, offsets: Tensor, of: Tensor) -> Tensor:
        """What is missing to the goal, and the squared distance (m, 2). One query each."""
        return self._values(self.made(offsets, of), of)

    def taken(self, offsets: Tensor, of: Tensor) -> Tensor:
        """The same, and the images that fool are kept."""
        images = self.made(offsets, of)
        values = self._values(images, of)
        fooled = values[:, 0] < 0
        self.search.keep(images[fooled], of[fooled])
        return values

    def _values(self, images: Tensor, of: Tensor) -> Tensor:
        missing = self.search.goal.of(of).margin(self.view.scores(images, of))
        return torch.stack([missing, (images - self.search.pixels[of]).flatten(1).square().sum(1)], 1)


class Known:
    """What the first pass over the coordinates has seen of each: with it all of those are moved together.

    At `base` (N, n) as much as `missing` (N,) is missing. By the slopes g of m and the curvatures k of the distance, that alone
    would be least at z₀, z = z₀ − c·g/k has the least distance for its m, and c = (missing + g·(z₀ − base)) / Σ g²/k is where a
    linear m vanishes.
    """

    def __init__(self, missing: Tensor, base: Tensor) -> None:
        self.missing, self.base = missing, base
        self.slopes, self.curved, self.least = torch.zeros_like(base), torch.ones_like(base), base.clone()

    def note(self, rows: Tensor, chosen: Tensor, at: Tensor, first: Tensor, curved: Tensor) -> None:
        """Coordinates `chosen` (M, K) at offsets (M, K): the slopes (M, K, 2) of m and of the distance, and its curvature."""
        curved = curved.clamp_min(FLATTEST)
        for held, value in (
            (self.slopes, first[..., 0]),
            (self.curved, curved),
            (self.least, at - first[..., 1] / curved),
        ):
            held[rows] = held[rows].scatter(1, chosen, value)

    def joint(self, rows: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """c (M,), by a factor more than a linear m takes, and the offsets (M, n) with it."""
        slopes, curved, least = self.slopes[rows], self.curved[rows], self.least[rows]
        needed = self.missing[rows] + (slopes * (least - self.base[rows])).sum(1)
        c = factor * needed.clamp_min(0) / (slopes.square() / curved).sum(1).clamp_min(TINY)
        return c, least - c[:, None] * slopes / curved
