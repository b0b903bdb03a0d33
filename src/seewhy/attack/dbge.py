"""Decision-based gradient estimation: the boundary's normal from labels alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy import rng
from seewhy.attack.base import Attack, Goal, Perturbed, size_of
from seewhy.attack.decisions import KEPT, Search, in_parts, known, known_queries
from seewhy.attack.oracles import LabelsOnly
from seewhy.attack.sizes import known_sizes, steepest
from seewhy.errors import SpecError
from seewhy.rng import generator

#: spaces in which the normal is looked for, and ways to step from the boundary
SPACES, STEPS = ("dct", "resize", "full"), ("arc", "geometric")

#: the fewest samples of which an estimate is made
FEWEST = 8

#: the queries for each dimension after which no colour is left out
COLOURED = 10


def basis(space: str, side: int, size: int) -> Tensor:
    """Orthonormal rows (side, size) that span what varies slowly along one axis: cosines, or what resizing makes of pixels."""
    if space == "full":
        return torch.eye(size)
    if space == "dct":
        rows = torch.cos(math.pi / size * (torch.arange(size) + 0.5) * torch.arange(side)[:, None])
        return F.normalize(rows, dim=1)
    resized = F.interpolate(torch.eye(side)[None], size=size, mode="linear", align_corners=False)[0]
    return torch.linalg.qr(resized.T.double())[0].T.float()


def directions(samples: int, rows: Tensor, columns: Tensor, draw: torch.Generator) -> Tensor:
    """Directions (samples, 3, H, W) of length one, uniform in the space of images that two bases span."""
    noise = rng.normal((samples, 3, len(rows), len(columns)), draw)
    return (
        F.normalize(noise.flatten(1), dim=1).view_as(noise).transpose(-1, -2).matmul(rows).transpose(-1, -2) @ columns
    )


def greyed(images: Tensor, colour: float) -> Tensor:
    """Images (B, 3, H, W) of which only so much is left that is colour: a symmetric product, 1 for grey and `colour` across."""
    return colour * images + (1 - colour) * images.mean(1, keepdim=True)


def normal(decisions: Tensor, asked: Tensor, directions: Tensor, dimensions: int) -> Tensor:
    """Estimates (M, 3, H, W) of the boundary's unit normal, towards what fools.

    `decisions` (M, B) are ±1 on either side of a boundary point stepped to along `directions` (B, 3, H, W), `asked` where
    there is one. Σ_b (φ_b − φ̄)·u_b / ((B − 1)·E|u·n|): its expectation on a flat boundary is the unit normal's projection
    on the space that the directions fill, over the length of that projection. Where all decisions agree the baseline φ̄ would
    leave nothing, and is left out.
    """
    asked = asked.to(directions.dtype)
    number = asked.sum(1, keepdim=True)
    mean = (decisions * asked).sum(1, keepdim=True) / number
    agreed = mean.abs() == 1
    weights = asked * torch.where(agreed, decisions, decisions - mean) / torch.where(agreed, number, number - 1)
    # the mean length of one coordinate of a uniform unit vector
    scale = math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)) / math.sqrt(math.pi)
    return (weights / scale @ directions.flatten(1)).view(-1, *directions.shape[1:])


@dataclass(frozen=True)
class DBGE(Attack[LabelsOnly]):
    """n̂ ∝ Σ_b (φ_b − φ̄)·u_b at a boundary point x̃: the boundary's normal from labels alone, φ_b = ±1 as x̃ + δ·u_b fools or not.

    Starts at noise that fools, brought to the boundary by bisection; then in turns: estimate the normal from random unit
    vectors u_b, `samples`·√(turn + 1) of them and δ = `reach`·‖x̃ − x‖ long, step, and go back to the boundary. With `step=arc` x̃
    moves on the circle that has x and x̃ as ends of a diameter, in the plane of n̂: a flat boundary is met there in the point
    nearest to x, and one bisection is the whole step. With `step=geometric`, and always in linf, it steps by
    ‖x̃ − x‖/√(turn + 1) along n̂ (its signs in linf), half as far until it fools, then back along the line to x (in linf by
    clipping to ever smaller sizes). Vectors are drawn from the lowest frequencies (`space=dct`), from resized small images
    (`resize`), or from all images (`full`): of `side` × `side` frequencies or pixels, and of more once those are fewer than
    `dimensions` for every query spent, so that a large image is seen coarsely while samples are few. Of a vector's colour only
    the part `colour` is kept at first (1: all), since networks' normals are more grey than not, and all of it after 10 queries
    for each dimension. `bisections` is the most for each way to the boundary, `queries` the most for an image, `tries` the most
    for its first. All images advance at once, each with its own count. With `curve` one more level holds what was found after
    each of those numbers of queries.
    Values (E, N, 3, H, W): a level for each of the sizes `eps` (none at first), one for each of `curve`, the nearest image, and
    one that also fools once rounded to 8 bits; sizes in the `norm`.
    Raises `SpecError` for sizes, norms and numbers that cannot be meant.
    Cost: at most `queries` forward passes an image, and two a level to judge; none backward.
    Limits: an upper bound of the distance, that falls with the queries. Towards a target it needs noise of that class to
    start from; where there is none the image comes back as it was, and a note says so.
    Deviation: HopSkipJump is `space=full,colour=1,step=geometric` with a far smaller δ, for which it must bisect twice as long.
    QEBA's spaces are of one size, and in colour; these grow from 32 × 32, so that small images are seen whole: of a network for
    these next to nothing of the normal is slow, and most is grey.
    Source: Chen, Jordan & Wainwright 2020, arXiv 1904.02144, equations 9 to 16; spaces: Li et al. 2020, arXiv 2005.14137; arc:
    Reza et al. 2023, arXiv 2308.03163.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = DBGE(queries=200)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.queries.max() <= 200)
    True
    """

    queries: int = 5000
    norm: str = "l2"
    space: str = "dct"
    side: int = 32
    dimensions: float = 1.0
    colour: float = 0.3
    samples: int = 40
    reach: float = 0.1
    step: str = "arc"
    bisections: int = 9
    tries: int = 50
    curve: tuple[int, ...] = ()
    eps: tuple[float, ...] = ()
    seed: int = 0

    name = "dbge"
    shows = "How small a change someone finds who sees nothing but the predicted class."
    reading = "The distance is an upper bound, and falls with the queries: small after a thousand means easily fooled."
    source = "Chen, Jordan & Wainwright 2020, arXiv 1904.02144; Li et al. 2020, arXiv 2005.14137"
    view = LabelsOnly

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_queries(self.queries, self.curve)
        known(self.space, SPACES, "space")
        known(self.step, STEPS, "step")
        if self.samples < FEWEST or min(self.side, self.bisections, self.tries) < 1:
            raise SpecError(
                f"expected samples ≥ {FEWEST} and side, bisections and tries ≥ 1, "
                f"got {self.samples}, {self.side}, {self.bisections} and {self.tries}"
            )
        if not (self.reach > 0 and self.dimensions > 0 and 0 < self.colour <= 1):
            raise SpecError(
                "expected reach > 0, dimensions > 0 and colour above 0 and at most 1, "
                f"got {self.reach:g}, {self.dimensions:g} and {self.colour:g}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.queries + 2 * (len(self.eps) + len(self.curve) + 2), 0

    def perturb(self, view: LabelsOnly, pixels: Tensor, goal: Goal) -> Perturbed:
        view.limit(self.queries)
        search = Search(view, pixels, goal, self.norm, self.curve)
        rows = search.start(self.tries, self.bisections, generator(self.seed, self.name, "start"))
        draw = generator(self.seed, self.name)
        turn = planned = 0
        while True:
            # what follows the estimate must be paid too: the way to the boundary, and rounding
            affordable = view.left - self.bisections - KEPT
            rows = rows[affordable[rows] >= FEWEST]
            if not len(rows):
                return search.answer(self.eps)
            samples = int(self.samples * math.sqrt(turn + 1))
            planned += samples + self.bisections
            side = max(self.side, round(math.sqrt(self.dimensions * planned / 3)))
            height, width = (basis(self.space, min(side, size), size) for size in pixels.shape[-2:])
            drawn = directions(samples, height, width, draw)
            dimensions = 3 * len(height) * len(width)
            colour = self._colour(planned, dimensions)
            decisions, asked = self._decisions(search, rows, drawn, affordable[rows].clamp_max(samples), colour)
            self._step(search, rows, greyed(normal(decisions, asked, drawn, dimensions), colour), turn)
            turn += 1

    def _colour(self, spent: int, dimensions: int) -> float:
        """How much colour to keep: its square grows evenly to 1, while what is grey of the normal becomes known."""
        return math.sqrt(self.colour**2 + (1 - self.colour**2) * min(1, spent / (COLOURED * dimensions)))

    def _decisions(
        self, search: Search, rows: Tensor, drawn: Tensor, number: Tensor, colour: float
    ) -> tuple[Tensor, Tensor]:
        """On which side (M, B) of the boundary lie the images along the first `number` (M,) of the directions drawn, greyed.

        To the greyed direction G·u the normal n says what G·n, its greyed self, says to u: the estimate is that of G·n.
        """
        drawn = steepest(greyed(drawn, colour), "l2")
        at = search.images[rows]
        reach = self.reach * size_of(at - search.pixels[rows], "l2").view(-1, 1, 1, 1)
        asked = torch.arange(len(drawn)) < number[:, None]
        which, sample = asked.nonzero(as_tuple=True)

        def ask(part: Tensor) -> Tensor:
            who = which[part]
            return search.fools((at[who] + reach[who] * drawn[sample[part]]).clamp(0, 1), rows[who])

        decisions = torch.zeros(asked.shape)
        decisions[which, sample] = 2 * in_parts(len(which), drawn[0].numel(), ask).float() - 1
        return decisions, asked

    def _step(self, search: Search, rows: Tensor, estimate: Tensor, turn: int) -> None:
        """From the boundary along the estimate, and back to the boundary."""
        direction = steepest(estimate, self.norm)
        if self.norm == "l2" and self.step == "arc":
            search.walk(arc(search.images[rows], search.pixels[rows], direction), rows, self.bisections)
            return
        lengths = search.sizes / math.sqrt(turn + 1)
        at = search.images[rows]
        for _ in range(self.bisections):
            able = search.spare(rows)
            rows, at, direction = rows[able], at[able], direction[able]
            if not len(rows):
                return
            tried = (at + lengths[rows].view(-1, 1, 1, 1) * direction).clamp(0, 1)
            fooled = search.fools(tried, rows)
            there = rows[fooled]
            search.walk(search.towards(tried[fooled], there), there, self.bisections)
            rows, at, direction = rows[~fooled], at[~fooled], direction[~fooled]
            lengths = lengths / 2


def arc(images: Tensor, originals: Tensor, direction: Tensor) -> Callable[[Tensor], Tensor]:
    """The path from images (M, 3, H, W) to their originals on half a circle, in the plane of that line and a direction."""
    away = images - originals
    size = size_of(away, "l2").view(-1, 1, 1, 1)
    along = away / size
    across = steepest(direction - (direction * along).flatten(1).sum(1).view(-1, 1, 1, 1) * along, "l2")

    def at(position: Tensor) -> Tensor:
        angle = (math.pi / 2 * position).view(-1, 1, 1, 1)
        return (originals + size * angle.cos() * (angle.cos() * along + angle.sin() * across)).clamp(0, 1)

    return at
