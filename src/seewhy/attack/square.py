"""The Square attack: random squares, kept where they help."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.decisions import known_queries, shares
from seewhy.attack.oracles import Scores
from seewhy.attack.sizes import STEPS, given, known_sizes, outlives, projected, swept
from seewhy.errors import SpecError
from seewhy.rng import generator, signs, uniform

#: after how many of 10,000 queries the share of changed pixels is halved
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

#: by how much the margin must fall for a square to be kept: more than rounding makes of nothing
GAIN = 1e-5


@lru_cache(maxsize=64)
def bump(side: int) -> Tensor:
    """η (side, side) of length one: a hill and, on its other half, the same as a valley; each a sum of nested squares."""

    def hill(height: int) -> Tensor:
        rows = (torch.arange(height) - height // 2).abs()[:, None]
        columns = (torch.arange(side) - side // 2).abs()[None]
        steps = 1 / torch.arange(1, side + 2, dtype=torch.float32) ** 2
        nested = steps.flip(0).cumsum(0).flip(0)  # Σ_{k ≥ distance} 1/(k + 1)²
        return nested[torch.maximum(rows, columns)]

    with torch.device("cpu"):  # remembered, wherever it is asked for
        up, down = hill(side // 2), hill(side - side // 2)
        whole = torch.cat([up / up.norm().clamp_min(1e-12), -down / down.norm()])
        return whole / whole.norm()


@dataclass(frozen=True)
class Square(Attack[Scores]):
    """x ← x + δ where that lowers what is missing to the goal; δ leads to ±ε on a random square, one sign for each channel.

    It begins with vertical stripes of ±ε, one sign for each column and channel. A square covers the share `share` of the
    image at first and ever less: halved after 0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 % of the queries. With `norm=l2` the
    change is a hill and a valley, whose length is taken from a second square that is set back, so that the whole stays at
    length ε. What is missing is the log-probability of the true class less the largest other, or the largest other less that
    of the target. `queries` is the most for an image; the sizes `eps` (eleven from 0.5/255 to 32/255 where none are given; in
    L2 the same for each value) and the `refine` bisections for the smallest size share them evenly. An image is done at the
    first success that outlives rounding to 8 bits, which is one query more.
    Values (E, N, 3, H, W): one level for each size and one for the smallest found, in the `norm` of its sizes.
    Raises `SpecError` for sizes, norms and numbers that cannot be meant.
    Cost: at most `queries` forward passes an image, and two a level to judge; none backward.
    Limits: with many sizes each has few queries, or none (said); for a curve to quote give few sizes, or more queries.
    Deviation: margins of log-probabilities also for targets, where the paper takes the cross-entropy; all images get the same
    squares, so that none depends on its neighbours.
    Source: Andriushchenko, Croce, Flammarion & Hein 2020, arXiv 1912.00049, algorithms 1 to 3.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
    >>> found = Square(queries=100, eps=(8 / 255,), refine=0)(Classifier(module, size=4), torch.rand(1, 3, 4, 4))
    >>> bool(found.distances["linf"].max() <= 8 / 255 + 1e-6)
    True
    """

    queries: int = 5000
    eps: tuple[float, ...] = ()
    norm: str = "linf"
    share: float = 0.8
    refine: int = 4
    seed: int = 0

    name = "square"
    shows = "Whether random squares of colour, kept where the scores say that they help, change the decision."
    reading = "It needs no gradients: where it fools and gradient attacks do not, the model hides its gradients."
    source = "Andriushchenko, Croce, Flammarion & Hein 2020, arXiv 1912.00049"
    view = Scores

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_queries(self.queries)
        if not (0 < self.share <= 1 and self.refine >= 0):
            raise SpecError(f"expected 0 < share ≤ 1 and refine ≥ 0, got {self.share:g} and {self.refine}")

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.queries + 2 * (len(self.eps or STEPS) + bool(self.refine)), 0

    def perturb(self, view: Scores, pixels: Tensor, goal: Goal) -> Perturbed:
        view.limit(self.queries)
        sizes = given(self.eps, self.norm, pixels)
        allowed = shares(view, len(sizes) + self.refine)

        def within(rows: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            draw = generator(self.seed, self.name)  # the same squares at each size
            turns = allowed(rows)
            kept = view.left[rows] - turns  # for the other sizes
            first = projected(pixels[rows] + self._start(pixels, size, draw), pixels[rows], size, self.norm)
            images, margins = first, torch.full((len(rows),), torch.inf)
            settled = torch.zeros(len(rows), dtype=torch.bool)
            on = (turns > 0).nonzero()[:, 0]
            for turn in range(int(turns.max())):
                on = on[~settled[on] & (view.left[rows[on]] > kept[on])]
                if not len(on):
                    break
                of = rows[on]
                tried = images[on]
                if turn:
                    sides = self._sides(turn, turns[on], pixels)
                    change = self._linf if self.norm == "linf" else self._l2
                    tried = change(tried, pixels[of], size[on], sides, draw)
                now = goal.of(of).margin(view.scores(tried, of))
                better = now < margins[on] - GAIN
                images[on[better]], margins[on[better]] = tried[better], now[better]
                new = on[better & (now < 0)]
                settled[new] = outlives(view, images[new], rows[new], goal.of(rows[new]))
            return images, settled, turns > 0

        return swept(within, pixels, sizes, self.refine)

    def _sides(self, turn: int, turns: Tensor, pixels: Tensor) -> Tensor:
        """The squares' sides (M,) after `turn` of so many queries."""
        height, width = pixels.shape[-2:]
        halvings = torch.searchsorted(torch.tensor(HALVED), turn * 10_000 // turns)
        sides = (self.share / 2**halvings * height * width).sqrt().round().long()
        return sides.clamp(1, max(1, min(height, width) - 1))

    def _start(self, pixels: Tensor, size: Tensor, draw: torch.Generator) -> Tensor:
        """Stripes of ±ε; in L2 a pattern of bumps all over, of length ε."""
        height, width = pixels.shape[-2:]
        if self.norm == "linf":
            return size.view(-1, 1, 1, 1) * signs((1, 3, 1, width), draw)
        side = max(1, min(height, width) // 5)
        down, across = -(-height // side), -(-width // side)
        turned = signs((3, down, across), draw)
        pattern = torch.einsum("cij,yx->ciyjx", turned, bump(side).to(pixels.device)).reshape(
            3, down * side, across * side
        )
        pattern = pattern[:, :height, :width]
        return size.view(-1, 1, 1, 1) * pattern / pattern.norm()

    def _linf(self, images: Tensor, originals: Tensor, size: Tensor, sides: Tensor, draw: torch.Generator) -> Tensor:
        inside = _windows(images, sides, draw)
        ends = originals + size.view(-1, 1, 1, 1) * signs((1, 3, 1, 1), draw)
        return torch.where(inside, ends, images).clamp(0, 1)

    def _l2(self, images: Tensor, originals: Tensor, size: Tensor, sides: Tensor, draw: torch.Generator) -> Tensor:
        sides = (sides.clamp_min(3) // 2 * 2 + 1).clamp_max(min(images.shape[-2:]))
        state = draw.get_state()
        difference = images - originals
        changed = difference.clone()
        for side in sides.unique():  # one, but for images whose queries were spent at smaller sizes
            draw.set_state(state)
            same = sides == side
            changed[same] = self._moved(difference[same], size[same], int(side), draw)
        return projected(originals + changed, originals, size, "l2")

    def _moved(self, difference: Tensor, size: Tensor, side: int, draw: torch.Generator) -> Tensor:
        """Differences (M, 3, H, W) with a bump of one window, whose length another window gives."""
        height, width = difference.shape[-2:]
        (up, left), (up2, left2) = (
            [int(uniform((), draw) * (room - side + 1)) for room in (height, width)] for _ in range(2)
        )
        here = (..., slice(up, up + side), slice(left, left + side))
        there = (..., slice(up2, up2 + side), slice(left2, left2 + side))
        shape = bump(side).to(difference.device)
        shape = shape if uniform((), draw) < 0.5 else shape.T
        signed = shape * signs((3, 1, 1), draw)
        either = torch.zeros(height, width)
        either[here[1:]], either[there[1:]] = 1, 1
        unused = (size**2 - difference.flatten(1).square().sum(1)).clamp_min(0)[:, None] / 3
        room = ((difference * either).square().sum((-1, -2)) + unused).sqrt()
        old = difference[here]
        new = signed + old / old.flatten(2).norm(dim=2).clamp_min(1e-12)[..., None, None]
        changed = difference.clone()
        changed[there] = 0
        changed[here] = new / new.flatten(2).norm(dim=2).clamp_min(1e-12)[..., None, None] * room[..., None, None]
        return changed


def _windows(images: Tensor, sides: Tensor, draw: torch.Generator) -> Tensor:
    """Masks (M, 1, H, W) of one square in each image, of its own side."""
    inside = torch.ones(len(images), 1, *images.shape[-2:], dtype=torch.bool)
    for axis, room in ((-2, images.shape[-2]), (-1, images.shape[-1])):
        first = (uniform((), draw) * (room - sides + 1)).long().view(-1, 1)
        place = torch.arange(room)
        line = (place >= first) & (place < first + sides.view(-1, 1))
        inside &= line.view(len(images), 1, -1, 1) if axis == -2 else line.view(len(images), 1, 1, -1)
    return inside
