"""The nearest boundary, linearised again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.iterated import known_walk
from seewhy.attack.oracles import WhiteBox, Work, predicted
from seewhy.attack.sizes import LONGER, ROUNDED, known_sizes, nearest_found, steepest, surviving
from seewhy.errors import SpecError

#: a candidate is differentiated anew while its distance, by the last length of its gradient, is at most so many times the
#: smallest known
AGAIN = 1.25
#: what is added to each step's length, so that the last one ends beyond the boundary
BEYOND = 1e-4
#: a gradient shorter than this has no direction
SILENT = 1e-12
#: an image is not drawn nearer for less than this share of its change
GAIN = 1e-3


@dataclass(frozen=True)
class DeepFool(Attack[WhiteBox]):
    """xᵢ₊₁ = clip(x + (1 + η)·Σr), rᵢ = −(f_y − f_k)·w/‖w‖², w = ∇(f_y − f_k), k the class with the smallest (f_y − f_k)/‖w‖.

    With `norm=linf` rᵢ = −(f_y − f_k)·sign(w)/‖w‖₁ and k by the smallest (f_y − f_k)/‖w‖₁. The classes k are the `candidates`
    most likely ones, y among them; towards a target t there is one, by max_{j≠t} f_j − f_t. η is the `overshoot`. An image
    leaves when it fools, after at most `steps` steps; then `refine` forward passes or fewer draw it towards the original, by
    the secant of the margin, as far as it fools.
    All gradients of a step share one forward pass. At the first step every candidate is differentiated; later only those
    whose distance, by the last length of their gradient, is up to 1.25 times the smallest: on affine models all that can win.
    Values (E, N, 3, H, W): a level for each of the sizes `eps` in [0, 1] pixels, the last of those that follow which is no
    farther, or what lies there on the way to the image found; the image found; and after it one on the same line that fools
    rounded to 8 bits, and is so, if there is one up to eight times as far, or, where no value changes by half a step of
    8 bits, up to 16 steps. Sizes in `norm`.
    Raises `SpecError` for sizes, norms and counts that cannot be meant.
    Cost: at most 13 + `steps` + `refine` forward passes, two more for each size, and `steps`·(`candidates` − 1) backward
    passes, an image; a few forward passes and `candidates` backward passes are usual.
    Limits: linear steps; the true nearest boundary may be nearer, and one that bends away may not be reached.
    Deviation: fewer gradients after the first step, the drawing back, and the target.
    Source: Moosavi-Dezfooli, Fawzi & Frossard 2016, arXiv 1511.04599, algorithm 2 and equations 10 to 12.

    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> found = DeepFool()(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.success[-2])
    True
    """

    norm: str = "l2"
    candidates: int = 10
    steps: int = 50
    overshoot: float = 0.02
    refine: int = 3
    eps: tuple[float, ...] = ()

    name = "deepfool"
    shows = "How far the nearest boundary between two classes is, and which class lies beyond it."
    reading = (
        "A short distance is a fact; a long one is an upper bound, as the boundary is followed by straight lines only."
    )
    source = "Moosavi-Dezfooli, Fawzi & Frossard 2016, arXiv 1511.04599"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_walk(self.steps, self.refine)
        if self.candidates < 2:
            raise SpecError(f"expected candidates ≥ 2, the true class and another, got {self.candidates}")
        if self.overshoot < 0:
            raise SpecError(f"expected overshoot ≥ 0, got {self.overshoot:g}")

    @property
    def passes(self) -> tuple[int, int]:
        asked = self.steps + 1 + self.refine + len(LONGER)
        return 1 + asked + 2 * (len(self.eps) + 2), self.steps * (self.candidates - 1)

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        found, total = pixels.clone(), torch.zeros_like(pixels)
        margins = torch.full((2, len(pixels)), torch.inf)  # of the original, and of what fools
        lengths = torch.full(
            (len(pixels), view.net.classes), torch.inf
        )  # of the gradients towards each class, when last seen
        live = view.can(torch.arange(len(pixels))).nonzero()[:, 0]
        for step in range(self.steps + 1):
            if not len(live):
                break
            last = step == self.steps
            if last:
                logits, moves = view.logits(found[live], live), found[:0]
            else:
                seen = lengths.clone()
                logits, moves = view.backwards(found[live], live, self._moves(pixels, goal, live, lengths, seen))
                lengths = seen
            margin, fools = goal.of(live).margin(logits), goal.of(live).reached(predicted(logits))
            if step == 0:
                margins[0, live] = margin
            margins[1, live[fools]] = margin[fools]
            if last:
                break
            stay = ~fools & moves.flatten(1).any(1)  # without a gradient there is no way on
            stay[stay.clone()] = view.goes_on(live[stay])
            live, moves = live[stay], moves[stay]
            total[live] += moves
            found[live] = (pixels[live] + (1 + self.overshoot) * total[live]).clamp_(0, 1)
        found = self._drawn(view, found, pixels, goal, margins)
        return nearest_found(found, pixels, self.eps, self.norm, surviving(view, found, pixels, goal))

    def _moves(self, pixels: Tensor, goal: Goal, live: Tensor, lengths: Tensor, seen: Tensor) -> Work:
        """What moves the images `live` (M,) over the nearest boundary, were it flat; lengths of gradients go into `seen`."""

        def work(logits: Tensor, at: Tensor, gradient: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            rows, now = live[at], logits.detach().to(live.device)
            aims = goal.of(rows)
            if aims.target is None:
                own = aims.labels[:, None]
                classes = now.scatter(1, own, -torch.inf).topk(min(self.candidates, now.shape[1]) - 1).indices
                gaps = logits.gather(1, own.to(logits.device)) - logits.gather(1, classes.to(logits.device))
            else:
                classes, gaps = aims.target[:, None], aims.margin(logits)[:, None]
            missing, known = gaps.detach().to(live.device).clamp_min(0), lengths[rows].gather(1, classes)
            longest = known.masked_fill(known.isinf(), 0).amax(1, keepdim=True)
            guesses = missing / torch.where(known.isinf() & (longest > 0), longest, known)
            unfooled, nearest = ~aims.reached(predicted(now)), torch.full((len(rows),), torch.inf)
            moves = torch.zeros(len(rows), *pixels.shape[1:])
            for column in guesses.argsort(dim=1, stable=True).T[:, :, None]:
                wanted = unfooled & (guesses.gather(1, column)[:, 0] <= AGAIN * nearest)
                if not bool(wanted.any()):
                    break
                slope = gradient(gaps.gather(1, column.to(gaps.device))[:, 0], wanted)
                flat = slope.flatten(1)
                length = (flat.norm(dim=1) if self.norm == "l2" else flat.abs().sum(1)).clamp_min(SILENT)
                seen[rows[wanted], classes.gather(1, column)[wanted, 0]] = length[wanted]
                distance = missing.gather(1, column)[:, 0] / length
                nearer = wanted & (distance < nearest)
                nearest = torch.where(nearer, distance, nearest)
                step = (distance + BEYOND).view(-1, 1, 1, 1) * steepest(slope, self.norm)
                moves = torch.where(nearer.view(-1, 1, 1, 1), -step, moves)
            return moves

        return work

    def _drawn(self, view: WhiteBox, found: Tensor, pixels: Tensor, goal: Goal, margins: Tensor) -> Tensor:
        """What of `found` fools drawn towards `pixels` by the secant of the margin, kept between one that fools and one not."""
        ends, found = found, found.clone()
        low, high = torch.zeros(len(pixels)), torch.ones(len(pixels))
        rows = margins[1].isfinite().nonzero()[:, 0]
        for _ in range(self.refine):
            missing, beyond = margins[:, rows]
            zero = low[rows] + (high - low)[rows] * missing / (missing - beyond).clamp_min(1e-12)
            at = zero + (high[rows] - zero) / 10  # rather beyond the boundary
            worth = high[rows] - at > GAIN * high[rows]
            worth[worth.clone()] = view.goes_on(rows[worth], 1 + ROUNDED)
            rows, at = rows[worth], at[worth]
            if not len(rows):
                break
            tried = torch.lerp(pixels[rows], ends[rows], at.view(-1, 1, 1, 1))
            logits = view.logits(tried, rows)
            good = goal.of(rows).reached(predicted(logits))
            margins[good.long(), rows] = goal.of(rows).margin(logits)
            found[rows[good]], high[rows[good]], low[rows[~good]] = tried[good], at[good], at[~good]
        return found
