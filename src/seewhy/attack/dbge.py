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

#: the queries for each dimension after which directions are drawn evenly, where a step leans on the whole of an estimate
EVEN = 10

#: what grey and the two colours across it are made of, as orthonormal rows
COLOURS = ((3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, -(2**-0.5), 0.0), (6**-0.5, 6**-0.5, -2 * 6**-0.5))

#: of grey and of colour so many rings of frequencies; the deviation of the densities thought at first; and the least part of the
#: greatest density, and of the mean energy of an image's surroundings, with which there is still looked
RINGS, UNSURE, LEAST, FLOOR = 8, 0.5, 0.05, 0.1


def basis(space: str, side: int, size: int) -> Tensor:
    """Orthonormal rows (side, size) that span what varies slowly along one axis: cosines, or what resizing makes of pixels."""
    if space == "full":
        return torch.eye(size)
    if space == "dct":
        rows = torch.cos(math.pi / size * (torch.arange(size) + 0.5) * torch.arange(side)[:, None])
        return F.normalize(rows, dim=1)
    resized = F.interpolate(torch.eye(side)[None], size=size, mode="linear", align_corners=False)[0]
    return torch.linalg.qr(resized.T.double())[0].T.float()


def bands(space: str, height: int, width: int) -> Tensor:
    """Which of 2·`RINGS` bands each coefficient (3, h, w) is in, as rows (3·h·w, 2·RINGS) of zeros and a one.

    Grey by the ring of its frequency, then the two colours together likewise; where there are no frequencies all are in one ring.
    """
    frequency = torch.hypot(torch.arange(height)[:, None] / height, torch.arange(width) / width) * (space == "dct")
    ring = (RINGS * frequency / math.sqrt(2)).long()
    return F.one_hot(torch.stack([ring, ring + RINGS, ring + RINGS]).flatten(), 2 * RINGS).float()


def weights(decisions: Tensor, asked: Tensor, dimensions: int) -> Tensor:
    """What each of the decisions (M, B) adds of its direction to the estimate of the normal, see `normal`."""
    asked = asked.float()
    number = asked.sum(1, keepdim=True)
    mean = (decisions * asked).sum(1, keepdim=True) / number
    agreed = mean.abs() == 1
    # the mean length of one coordinate of a uniform unit vector
    scale = math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)) / math.sqrt(math.pi)
    return asked * torch.where(agreed, decisions, decisions - mean) / torch.where(agreed, number, number - 1) / scale


def normal(decisions: Tensor, asked: Tensor, directions: Tensor) -> Tensor:
    """Estimates (M, C, h, w) of the boundary's unit normal, towards what fools.

    `decisions` (M, B) are ±1 on either side of a boundary point stepped to along `directions` (B, C, h, w), uniform and of length
    one, `asked` where there is one. Σ_b (φ_b − φ̄)·u_b / ((B − 1)·E|u·n|): its expectation on a flat boundary is the unit
    normal n. Where all decisions agree the baseline φ̄ would leave nothing, and is left out.
    """
    found = weights(decisions, asked, directions[0].numel()) @ directions.flatten(1)
    return found.view(-1, *directions.shape[1:])


def energies(decisions: Tensor, asked: Tensor, directions: Tensor, members: Tensor) -> Tensor:
    """How much of the unit normal's energy (M, K) lies in bands of coordinates (C·h·w, K), without bias: a part may be below 0.

    Σ_{b≠c} w_b·w_c·(u_b·u_c) over a band, with the weights w of `normal`: what its parts agree on, and noise does not.
    """
    weighed = weights(decisions, asked, directions[0].numel())
    every = directions.flatten(1)
    return (weighed @ every).square() @ members - weighed.square() @ (every.square() @ members)


def across(images: Tensor, along: Tensor) -> Tensor:
    """What of images (M, 3, H, W) is at right angles to those of length one, or 0, `along`."""
    return images - (images * along).flatten(1).sum(1).view(-1, 1, 1, 1) * along


def surroundings(away: Tensor) -> Tensor:
    """The energy (M, 1, H, W) that changes (M, 3, H, W) have around each pixel, as a part of its mean; never near 0."""
    window = 2 * round(min(away.shape[-2:]) / 16) + 1
    energy = F.avg_pool2d(
        away.square().sum(1, keepdim=True), window, stride=1, padding=window // 2, count_include_pad=False
    )
    return FLOOR + (1 - FLOOR) * energy / energy.mean((1, 2, 3), keepdim=True)


def evened(densities: Tensor, even: float) -> Tensor:
    """Densities between as they are (0) and all alike (1)."""
    return densities + even * (1 - densities)


class Belief:
    """How dense (N, 2·RINGS) the energy of each image's normal is thought to be in each band, and how surely."""

    def __init__(self, count: int, colour: float) -> None:
        first = torch.tensor([1.0] * RINGS + [colour**2] * RINGS).expand(count, -1)
        self.certain = torch.full_like(first, UNSURE**-2)
        self.mean = first.clone()

    def density(self, rows: Tensor) -> Tensor:
        """Of images `rows`; above 0, so that every band is looked at, and all alike where nothing was found to agree."""
        return torch.maximum(self.mean[rows], LEAST * self.mean[rows].amax(1, keepdim=True).clamp_min(LEAST))

    def learn(self, rows: Tensor, drawn: Tensor, members: Tensor, found: Tensor, number: Tensor) -> None:
        """Weigh in the `energies` (M, 2·RINGS) found in so many decisions (M,), along directions drawn with such densities.

        The part of the energy expected in a band is as its size, its density, and that of the directions; what is found deviates
        from it by π·√(size/2)/number, the noise of the estimate.
        """
        density, sizes = self.density(rows), members.sum(0)
        expected = F.normalize(density * drawn * sizes, p=1, dim=1)
        more = 2 / sizes.clamp_min(1) * (number[:, None] * expected / (math.pi * density)) ** 2
        seen = density * found / expected.clamp_min(1e-12)
        self.certain[rows] += more
        self.mean[rows] += more / self.certain[rows] * (seen - self.mean[rows])


#: images (B, 3, H, W) made of coefficients (B, 3, h, w) for each of these rows (B,)
Shape = Callable[[Tensor, Tensor], Tensor]


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
    `dimensions` for every query spent, so that a large image is seen coarsely while samples are few. What is known of the
    normal shapes them. On an arc they are at right angles to x̃ − x, since that part of the normal needs no finding. With `learn`
    they are as strong at each pixel as x̃ − x is around it, and in each ring of frequencies, of grey and of colour, as the
    estimates so far agree with themselves there: Σ_{b≠c} φ_b·φ_c·(u_b·u_c) over the ring is its part of the normal's energy
    without bias. Of colour the part `colour` is drawn at first (1: all), since networks' normals are more grey than not. The
    estimate is shaped as the vectors are; where it is no arc that uses it, less and less, and not after 10 queries for each
    dimension. `bisections` is the most for each way to the boundary, `queries` the most for an image,
    `tries` the most for its first. All images advance at once, each with its own count. With `curve` one more level holds what
    was found after each of those numbers of queries.
    Values (E, N, 3, H, W): a level for each of the sizes `eps` (none at first), one for each of `curve`, the nearest image, and
    one that also fools once rounded to 8 bits; sizes in the `norm`.
    Raises `SpecError` for sizes, norms and numbers that cannot be meant.
    Cost: at most `queries` forward passes an image, and two a level to judge; none backward.
    Limits: an upper bound of the distance, that falls with the queries. Towards a target it needs noise of that class to
    start from; where there is none the image comes back as it was, and a note says so.
    Deviation: HopSkipJump is `space=full,colour=1,learn=false,step=geometric` with a far smaller δ, for which it must bisect
    twice as long. QEBA's spaces are of one size, and in colour; these grow from 32 × 32, so that small images are seen whole: of
    a network for these next to nothing of the normal is slow, and most is grey. Vectors at right angles to x̃ − x, and shaped by
    what was found, are ours.
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
    learn: bool = True
    samples: int = 20
    reach: float = 0.1
    step: str = "arc"
    bisections: int = 7
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
        belief = Belief(len(pixels), self.colour)
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
            members = bands(self.space, len(height), len(width))
            noise = steepest(rng.normal((samples, 3, len(height), len(width)), draw), "l2")
            # an arc finds what is left, however it leans; the other steps would lean with the estimate for ever
            even = 0.0 if self._arcs else min(1, planned / (EVEN * noise[0].numel()))
            density = evened(belief.density(rows), even)
            shaped = self._shape(search, rows, density @ members.T, height, width, even)
            decisions, asked = self._decisions(search, rows, noise, affordable[rows].clamp_max(samples), shaped)
            if self.learn:
                belief.learn(rows, density, members, energies(decisions, asked, noise, members), asked.sum(1))
            self._step(search, rows, shaped(normal(decisions, asked, noise), torch.arange(len(rows))), turn)
            turn += 1

    def _shape(
        self, search: Search, rows: Tensor, density: Tensor, height: Tensor, width: Tensor, even: float
    ) -> Shape:
        """Makes images of coefficients (B, 3, h, w), as the normals of the boundary at `rows[which]` are thought to be.

        A linear map S for each image. To a direction S·u the normal n says what S'·n says to u: the estimate from u is that of
        S'·n, and S makes of it S·S'·n, in which little is left of what is thought to be noise.
        """
        gain = density.sqrt().view(-1, 3, len(height), len(width))
        colours = torch.tensor(COLOURS)
        away = search.images[rows] - search.pixels[rows]
        strength = evened(surroundings(away), even if self.learn else 1).sqrt()
        along = steepest(away, "l2") if self._arcs else torch.zeros_like(away)

        def shaped(coefficients: Tensor, which: Tensor) -> Tensor:
            mixed = torch.einsum("cd,bchw->bdhw", colours, gain[which] * coefficients)
            return across(strength[which] * (height.T @ mixed @ width), along[which])

        return shaped

    def _decisions(
        self, search: Search, rows: Tensor, noise: Tensor, number: Tensor, shaped: Shape
    ) -> tuple[Tensor, Tensor]:
        """On which side (M, B) of the boundary lie the images along the first `number` (M,) of the directions made of noise."""
        at = search.images[rows]
        reach = self.reach * size_of(at - search.pixels[rows], "l2").view(-1, 1, 1, 1)
        asked = torch.arange(len(noise)) < number[:, None]
        which, sample = asked.nonzero(as_tuple=True)

        def ask(part: Tensor) -> Tensor:
            who = which[part]
            along = steepest(shaped(noise[sample[part]], who), "l2")
            return search.fools((at[who] + reach[who] * along).clamp(0, 1), rows[who])

        decisions = torch.zeros(asked.shape)
        decisions[which, sample] = 2 * in_parts(len(which), at[0].numel(), ask).float() - 1
        return decisions, asked

    @property
    def _arcs(self) -> bool:
        return self.norm == "l2" and self.step == "arc"

    def _step(self, search: Search, rows: Tensor, estimate: Tensor, turn: int) -> None:
        """From the boundary along the estimate, and back to the boundary."""
        direction = steepest(estimate, self.norm)
        if self._arcs:
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
    aside = steepest(across(direction, along), "l2")

    def at(position: Tensor) -> Tensor:
        angle = (math.pi / 2 * position).view(-1, 1, 1, 1)
        return (originals + size * angle.cos() * (angle.cos() * along + angle.sin() * aside)).clamp(0, 1)

    return at
