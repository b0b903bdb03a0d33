"""Fixed sizes, many sizes at once, and the smallest: what an attack of either kind answers to each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from seewhy.attack.base import Goal, Perturbed, size_of
from seewhy.attack.oracles import View, as_saved
from seewhy.errors import SpecError, nearest

#: the sizes that are tried where none are given, in 255ths of each value
STEPS = (0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def known_sizes(eps: tuple[float, ...] | float, norm: str, norms: tuple[str, ...] = ("linf", "l2")) -> None:
    """Raise `SpecError` for a norm that an attack does not have, and for sizes that cannot be meant."""
    if norm not in norms:
        raise SpecError(f'expected norm {" or ".join(norms)}, got "{norm}"{nearest(norm, norms)}')
    if isinstance(eps, int | float):
        raise SpecError(f"expected a tuple of sizes, as in eps=(8/255,), got the number {eps:g}")
    for size in eps:
        if not size > 0:
            raise SpecError(f"expected sizes eps > 0 in units of [0, 1] pixels, got {size:g}")
        if norm != "l2" and size > 1:
            meant = f"; did you mean {size:g}/255?" if norm == "linf" and size <= 255 else ""
            raise SpecError(f"expected sizes eps ≤ 1 in units of [0, 1] pixels, got {size:g}{meant}")


def given(eps: tuple[float, ...], norm: str, pixels: Tensor) -> tuple[float, ...]:
    """The sizes to try, from small to large: `eps`, or `STEPS`; in L2 their length when every value changes as much."""
    length = math.sqrt(pixels[0].numel()) if norm == "l2" else 1.0
    return tuple(sorted(eps)) or tuple(step / 255 * length for step in STEPS)


def projected(images: Tensor, pixels: Tensor, sizes: Tensor, norm: str) -> Tensor:
    """The images nearest to `images` in the ball of `sizes` (M,) around `pixels`, then cut off at black and white."""
    sizes = sizes.view(-1, 1, 1, 1)
    difference = images - pixels
    if norm == "linf":
        difference = difference.clamp(-sizes, sizes)
    else:
        length = difference.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        difference = difference * (sizes / length.clamp_min(1e-12)).clamp_max(1)
    return (pixels + difference).clamp(0, 1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The direction of length one in a norm along which a score with this gradient (M, 3, H, W) rises most."""
    if norm == "linf":
        return gradient.sign()
    return gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)


#: what looks for a fooling image within a size: (rows (M,), sizes (M,)) -> images (M, 3, H, W), whether each fools as it is and
#: rounded to 8 bits (M,), and whether the queries sufficed (M,): to the end of the search, or until something fooled
Within = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

#: the note where the smallest size is less exact than was asked
NOT_NARROWED = "the queries left did not suffice to narrow down the smallest size"


def swept(within: Within, pixels: Tensor, eps: tuple[float, ...], refine: int) -> Perturbed:
    """What an attack within a given size answers: a level for each of the sizes `eps` (from small to large).

    One run serves the whole curve: what fools at one size is the answer at every larger one, so an image is attacked until
    the first success. With `refine` one more level holds the smallest size found by so many bisections below it.
    Sizes that the queries did not suffice to try are counted in a note.
    """
    grid = torch.tensor(eps)
    sizes = grid[:, None].repeat(1, len(pixels))
    untried = torch.zeros_like(sizes, dtype=torch.bool)
    images = pixels.expand(len(grid), *pixels.shape).clone()
    fooled = torch.zeros(len(pixels), dtype=torch.bool)
    first = torch.full((len(pixels),), len(grid) - 1)
    for level, size in enumerate(grid):
        if level:
            images[level] = images[level - 1]
        rows = (~fooled).nonzero()[:, 0]
        if len(rows):
            found, fooled[rows], tried = within(rows, size.expand(len(rows)))
            images[level, rows[tried]] = found[tried]
            untried[level, rows[~tried]] = True
            sizes[level, rows[~tried]] = sizes[level - 1, rows[~tried]] if level else 0.0
            first[rows[fooled[rows]]] = level
    count, every = int(untried.sum()), untried.numel()
    notes: tuple[str, ...] = ()
    if count:
        notes = (
            f"the queries did not suffice to try {count} of {every} sizes (of all images together): their levels repeat the "
            "one before",
        )
    if not refine:
        return Perturbed(images, sizes, notes, untried)
    best, high = images[-1].clone(), torch.where(fooled, grid[first], sizes[-1])
    low = torch.where(first > 0, grid[(first - 1).clamp_min(0)], torch.zeros(()))
    rows, narrowed = fooled.nonzero()[:, 0], True
    for _ in range(refine if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        found, now, tried = within(rows, middle)
        best[rows[now]], high[rows[now]] = found[now], middle[now]
        low[rows[tried & ~now]] = middle[tried & ~now]
        narrowed &= bool(tried.all())
    notes = notes if narrowed else (*notes, NOT_NARROWED)
    images, sizes = torch.cat([images, best[None]]), torch.cat([sizes, high[None]])
    return Perturbed(images, sizes, notes, torch.cat([untried, untried[-1:]]))


def outlives(view: View, images: Tensor, of: Tensor, goal: Goal) -> Tensor:
    """Whether images (M, 3, H, W) that fool also do rounded to 8 bits: a query where that changes them, if one is left.

    They are made of the originals `of` (M,), and `goal` is that of these M.
    """
    saved = as_saved(images)
    good = (saved == images).flatten(1).all(1)
    ask = (~good & view.can(of)).nonzero()[:, 0]
    if len(ask):
        good[ask] = goal.of(ask).reached(view.labels(saved[ask], of[ask]))
    return good


#: how often an image found is drawn towards the original by half of what is not known
DRAWN = 8


def drawn(view: View, found: Tensor, pixels: Tensor, goal: Goal, rows: Tensor) -> Tensor:
    """Images `found` (N, 3, H, W), those of `rows` (M,), which fool, drawn towards `pixels` by bisection while they fool."""
    found = found.clone()
    low, high = torch.zeros(len(pixels)), torch.ones(len(pixels))
    ends = found.clone()
    for _ in range(DRAWN):
        rows = rows[view.goes_on(rows, 1 + ROUNDED)]
        if not len(rows):
            break
        middle = (low[rows] + high[rows]) / 2
        tried = torch.lerp(pixels[rows], ends[rows], middle.view(-1, 1, 1, 1))
        good = goal.of(rows).reached(view.labels(tried, rows))
        found[rows[good]], high[rows[good]], low[rows[~good]] = tried[good], middle[good], middle[~good]
    return found


#: how much longer than the change found another one along it may be that is to outlive rounding
LONGER = (1, 1.05, 1.2, 1.5, 2, 4, 8)

#: a little more than half a step of 8 bits: a change that is nowhere as much is mostly nothing once it is rounded
HALF = 0.51 / 255


def longer(changes: Tensor, factors: tuple[float, ...] = LONGER) -> Tensor:
    """How many times (K, N) as long as changes (N, 3, H, W) those along them are that may outlive rounding: `factors`.

    Where no value changes by `HALF` they are 1, and what makes the greatest change of a value `HALF`, twice, four times that, …

    >>> longer(torch.tensor([0.1, 0.00002]).view(2, 1, 1, 1).expand(2, 3, 2, 2), (1, 2, 4)).round()
    tensor([[  1.,   1.],
            [  2., 100.],
            [  4., 200.]])
    """
    half = HALF / changes.flatten(1).abs().amax(1).clamp_min(1e-12)
    faint = torch.cat([torch.ones_like(half)[None], half * 2.0 ** torch.arange(len(factors) - 1)[:, None]])
    return torch.where(half > 1, faint, torch.tensor(factors)[:, None])


def surviving(view: View, found: Tensor, pixels: Tensor, goal: Goal) -> Tensor:
    """What of `found` (N, 3, H, W) can be saved: rounded to 8 bits, on the way from `pixels` through `found`, and fooling.

    The nearest by the factors of `longer`, between which three queries decide, as far as the budget goes; `found` as it is
    where none fools.
    """
    kept, changes = found.clone(), found - pixels
    factors = longer(changes)
    low, high = torch.full((len(found),), -1), torch.full((len(found),), len(LONGER))
    while len(rows := (high - low > 1).nonzero()[:, 0]) and len(rows := rows[view.goes_on(rows)]):
        middle = (low + high)[rows] // 2
        moved = pixels[rows] + factors[middle, rows].view(-1, 1, 1, 1) * changes[rows]
        tried = as_saved(moved.clamp_(0, 1))
        good = goal.of(rows).reached(view.labels(tried, rows))
        kept[rows[good]], high[rows[good]], low[rows[~good]] = tried[good], middle[good], middle[~good]
    return kept


def nearest_found(
    found: Tensor, pixels: Tensor, eps: tuple[float, ...], norm: str, saved: Tensor | None = None
) -> Perturbed:
    """What an attack answers that looks for the nearest fooling images and found `found` (N, 3, H, W).

    They are a level at their own sizes, and so are `saved`, those that outlive rounding, after it. Before them, a level for
    each size of `eps`: the last of these that is no farther than that; where both are, what lies at that size on the way to
    the image found. An image for which nothing fools comes back as the attack left it, and is judged like any other.
    """
    last = found[None] if saved is None else torch.stack([found, saved])
    own = size_of(last - pixels, norm)
    levels = []
    for size in sorted(eps):
        share = (size / own[0].clamp_min(1e-12)).clamp_max(1).view(-1, 1, 1, 1)
        level = (pixels + share * (found - pixels)).clamp(0, 1)
        levels.append(torch.where((own[-1] <= size).view(-1, 1, 1, 1), last[-1], level))
    asked = torch.tensor(sorted(eps))[:, None].expand(-1, len(pixels))
    return Perturbed(torch.cat([level[None] for level in levels] + [last]), torch.cat([asked, own]))


#: the most queries that `surviving` takes; and what a search that has found something keeps for it and for `drawn`
ROUNDED = len(LONGER).bit_length()
KEPT = DRAWN + ROUNDED


@final
class Nearest:
    """Of the fooling images that a search meets, the nearest to each original in L2, and who met one since `forget`."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.images = pixels.clone()
        self.sizes = torch.full((len(pixels),), torch.inf)
        self.forget()

    def forget(self) -> None:
        self.met = torch.zeros(len(self.pixels), dtype=torch.bool)

    def keep(self, rows: Tensor, images: Tensor) -> None:
        """Images (M, 3, H, W) of the originals `rows` (M,), each once, that fool."""
        self.met[rows] = True
        sizes = size_of(images - self.pixels[rows], "l2")
        nearer = sizes < self.sizes[rows]
        self.images[rows[nearer]], self.sizes[rows[nearer]] = images[nearer], sizes[nearer]

    def goes_on(self, view: View, rows: Tensor) -> Tensor:
        """Which searches (M,) have a query left, those that have found something beside the `KEPT` ones."""
        return view.goes_on(rows, torch.where(self.sizes[rows].isinf(), 1, 1 + KEPT))

    def settled(self, view: View, failed: Tensor, goal: Goal, eps: tuple[float, ...], draw: bool = True) -> Perturbed:
        """What the search answers: the nearest, as `nearest_found` does, after `drawn` and with `surviving`.

        Where nothing was found `failed` (N, 3, H, W) comes back. At most `DRAWN` + `LONGER` queries.
        """
        found = self.sizes.isfinite()
        images = torch.where(found.view(-1, 1, 1, 1), self.images, failed)
        if draw:
            images = drawn(view, images, self.pixels, goal, found.nonzero()[:, 0])
        return nearest_found(images, self.pixels, eps, "l2", surviving(view, images, self.pixels, goal))
