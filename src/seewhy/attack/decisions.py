"""What attacks without gradients share: asking in parts, a first image that fools, bisection, and the nearest so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.attack.base import Goal, Perturbed, size_of
from seewhy.attack.oracles import View, as_saved
from seewhy.attack.sizes import longer, nearest_found
from seewhy.errors import SpecError, nearest
from seewhy.rng import uniform

#: how many numbers of images that are only asked about may lie in memory at once: 64 MB
HELD = 2**24

#: the part by which an image must be nearer to count: a walk that creeps up to the boundary would end in its rounding
GAIN = 1e-4

#: how far off the boundary the nearest image is put, so that rounding elsewhere does not bring it back
OFF = 1.001

#: how far past the boundary an image is pushed, one after the other, until it also fools once it is rounded to 8 bits
PUSHES = (1, 1.05, 1.1, 1.2, 1.4, 2, 4)

#: the queries that an attack keeps for these
KEPT = 1 + len(PUSHES)


def known_queries(queries: int, curve: tuple[int, ...] = ()) -> None:
    """Raise `SpecError` for numbers of queries that cannot be meant."""
    if queries < 1:
        raise SpecError(f"expected queries ≥ 1 an image, got {queries}")
    for each in curve:
        if not 1 <= each <= queries:
            raise SpecError(f"expected numbers of queries for the curve from 1 to queries={queries}, got {each}")


def known(value: str, values: tuple[str, ...], what: str) -> None:
    """Raise `SpecError` for a word that is none of those known."""
    if value not in values:
        raise SpecError(f'expected {what} {" or ".join(values)}, got "{value}"{nearest(value, values)}')


def in_parts(total: int, numbers: int, ask: Callable[[Tensor], Tensor]) -> Tensor:
    """The answers to `total` questions of so many numbers each; `ask` gets the questions' places (m,), a part at a time."""
    size = max(1, HELD // numbers)
    return torch.cat([ask(part) for part in torch.arange(total).split(size)])


def shares(view: View, calls: int) -> Callable[[Tensor], Tensor]:
    """How many queries images (M,) may spend now, where what each has left is shared evenly by so many calls of this."""
    done = torch.zeros(len(view.queries), dtype=torch.long)

    def share(rows: Tensor) -> Tensor:
        left = view.left[rows] // (calls - done[rows]).clamp_min(1)
        done[rows] += 1
        return left

    return share


@dataclass
class Search:
    """The nearest fooling image so far of each original, and the same after so many queries as `curve` says."""

    view: View
    pixels: Tensor
    goal: Goal
    norm: str
    curve: tuple[int, ...] = ()
    images: Tensor = field(init=False)
    #: sizes (N,), infinite where nothing fools yet
    sizes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.images = self.pixels.clone()
        self.sizes = torch.full((len(self.pixels),), torch.inf)
        self.traced = self.pixels.expand(len(self.curve), *self.pixels.shape).clone()

    def fools(self, images: Tensor, rows: Tensor) -> Tensor:
        """Whether images (M, 3, H, W) made of the originals `rows` fool. One query each."""
        return self.goal.of(rows).reached(self.view.labels(images, rows))

    def spare(self, rows: Tensor) -> Tensor:
        """Which images may spend a query more, beside those that are kept for rounding."""
        return self.view.can(rows, 1 + KEPT)

    def keep(self, images: Tensor, rows: Tensor) -> None:
        """Note images (M, 3, H, W) that fool, where they are nearer than those before, and by more than rounding makes."""
        sizes = size_of(images - self.pixels[rows], self.norm)
        nearer = sizes < (1 - GAIN) * self.sizes[rows]
        rows, images = rows[nearer], images[nearer]
        self.images[rows], self.sizes[rows] = images, sizes[nearer]
        for level, most in enumerate(self.curve):
            in_time = self.view.queries[rows] <= most
            self.traced[level, rows[in_time]] = images[in_time]

    def start(self, tries: int, steps: int, draw: torch.Generator) -> Tensor:
        """Find a first image that fools and bring it to the boundary; the rows (M,) of the images that have one.

        Uniform noise, fine and coarse in turn, then the same of pure colours; the same for every original.
        """
        height, width = self.pixels.shape[-2:]
        for trial in range(tries):
            rows = (self.sizes.isinf() & (self.view.left > 0)).nonzero()[:, 0]
            if not len(rows):
                break
            cells = (max(1, height >> trial % 5), max(1, width >> trial % 5))
            noise = F.interpolate(uniform((1, 3, *cells), draw), size=(height, width))
            noise = noise.round() if trial // 5 % 2 else noise
            noise = noise.expand(len(rows), -1, -1, -1)
            fooled = self.fools(noise, rows)
            self.keep(noise[fooled], rows[fooled])
        rows = self.sizes.isfinite().nonzero()[:, 0]
        self.walk(self.towards(self.images[rows], rows), rows, steps)
        return rows

    def walk(self, path: Callable[[Tensor], Tensor], rows: Tensor, steps: int) -> None:
        """Bisect along a path to the boundary, and keep what is nearer than before."""
        position, images = self.bisected(path, rows, steps)
        moved = position > 0
        self.keep(images[moved], rows[moved])

    def bisected(self, at: Callable[[Tensor], Tensor], rows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Along a path from 0, which fools, to 1, which doesn't: the last position (M,) known to fool, and its images.

        `at` (M,) answers the images at positions. At most `steps` queries an image; fewer where its budget ends.
        """
        good, bad = torch.zeros(len(rows)), torch.ones(len(rows))
        images = at(good)
        for _ in range(steps):
            asked = self.spare(rows)
            if not bool(asked.any()):
                break
            middle = (good + bad) / 2
            tried, fooled = at(middle), asked.clone()
            fooled[asked] = self.fools(tried[asked], rows[asked])
            images[fooled] = tried[fooled]
            good = torch.where(fooled, middle, good)
            bad = torch.where(asked & ~fooled, middle, bad)
        return good, images

    def towards(self, images: Tensor, rows: Tensor) -> Callable[[Tensor], Tensor]:
        """The path from images (M, 3, H, W) to their originals: a straight line, or in linf clipping to ever smaller sizes."""
        originals = self.pixels[rows]
        away = images - originals
        if self.norm == "l2":
            return lambda position: originals + (1 - position).view(-1, 1, 1, 1) * away
        size = away.flatten(1).abs().amax(1)

        def at(position: Tensor) -> Tensor:
            most = ((1 - position) * size).view(-1, 1, 1, 1)
            return originals + away.clamp(-most, most)

        return at

    def answer(self, eps: tuple[float, ...]) -> Perturbed:
        """Levels: the sizes `eps`, the numbers of queries `curve`, the nearest found, and one that fools after rounding."""
        rows = self.sizes.isfinite().nonzero()[:, 0]
        rows = rows[self.view.can(rows)]
        if len(rows):
            pushed = (self.pixels[rows] + OFF * (self.images[rows] - self.pixels[rows])).clamp(0, 1)
            safe = self.fools(pushed, rows)
            self.images[rows[safe]] = pushed[safe]
        saved, changes = self.images.clone(), self.images - self.pixels
        for push in longer(changes, PUSHES):
            rows = rows[self.view.can(rows)]
            if not len(rows):
                break
            pushed = (self.pixels[rows] + push[rows].view(-1, 1, 1, 1) * changes[rows]).clamp(0, 1)
            good = self.fools(as_saved(pushed), rows)
            saved[rows[good]] = pushed[good]
            rows = rows[~good]
        found = nearest_found(self.images, self.pixels, eps, self.norm, saved)
        more = torch.stack([*self.traced, self.images, saved])
        images = torch.cat([found.images[:-2], more])
        notes: tuple[str, ...] = ()
        lost = int(self.sizes.isinf().sum())
        if lost:
            notes = (
                f"nothing that fools was found for {lost} of {len(self.pixels)} images: they come back as they were",
            )
        return Perturbed(images, torch.cat([found.eps[:-2], size_of(more - self.pixels, self.norm)]), notes)
