"""Fixed sizes, many sizes at once, and the smallest: what an attack of either kind answers to each."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from seewhy.attack.base import Perturbed, size_of
from seewhy.errors import SpecError, nearest

#: the sizes that are tried where none are given, in 255ths of each value
STEPS = (0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def known_sizes(eps: tuple[float, ...], norm: str, norms: tuple[str, ...] = ("linf", "l2")) -> None:
    """Raise `SpecError` for a norm that an attack does not have, and for sizes that cannot be meant."""
    if norm not in norms:
        raise SpecError(f'expected norm {" or ".join(norms)}, got "{norm}"{nearest(norm, norms)}')
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


#: what looks for a fooling image within a size: (rows (M,), sizes (M,)) -> images (M, 3, H, W), and whether each fools (M,)
Within = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def swept(within: Within, pixels: Tensor, eps: tuple[float, ...], refine: int) -> Perturbed:
    """What an attack within a given size answers: a level for each of the sizes `eps` (from small to large).

    One run serves the whole curve: what fools at one size is the answer at every larger one, so an image is attacked until
    the first success. With `refine` one more level holds the smallest size found by so many bisections below it.
    """
    grid = torch.tensor(eps)
    images = pixels.expand(len(grid), *pixels.shape).clone()
    fooled = torch.zeros(len(pixels), dtype=torch.bool)
    first = torch.full((len(pixels),), len(grid) - 1)
    for level, size in enumerate(grid):
        rows = (~fooled).nonzero()[:, 0]
        if level:
            images[level, fooled] = images[level - 1, fooled]
        if len(rows):
            images[level, rows], fooled[rows] = within(rows, size.expand(len(rows)))
            first[rows[fooled[rows]]] = level
    sizes = grid[:, None].expand(-1, len(pixels))
    if not refine:
        return Perturbed(images, sizes)
    best, high = images[-1].clone(), grid[first]
    low = torch.where(first > 0, grid[(first - 1).clamp_min(0)], torch.zeros(()))
    rows = fooled.nonzero()[:, 0]
    for _ in range(refine if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        tried, now = within(rows, middle)
        best[rows[now]], high[rows[now]] = tried[now], middle[now]
        low[rows[~now]] = middle[~now]
    return Perturbed(torch.cat([images, best[None]]), torch.cat([sizes, high[None]]))


def nearest_found(found: Tensor, pixels: Tensor, eps: tuple[float, ...], norm: str) -> Perturbed:
    """What an attack answers that looks for the nearest fooling images and found `found` (N, 3, H, W).

    The last level holds them at their own sizes. Before it, a level for each size of `eps`: where the image found is farther
    than that, what lies at that size on the way to it. An image for which nothing fools comes back as the attack left it,
    and is judged like any other.
    """
    sizes = size_of(found - pixels, norm)
    levels = [
        pixels + (size / sizes.clamp_min(1e-12)).clamp_max(1).view(-1, 1, 1, 1) * (found - pixels)
        for size in sorted(eps)
    ]
    asked = torch.tensor(sorted(eps))[:, None].expand(-1, len(pixels))
    return Perturbed(torch.stack([*(level.clamp(0, 1) for level in levels), found]), torch.cat([asked, sizes[None]]))
