"""The attack of Carlini and Wagner in L2."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.oracles import WhiteBox, predicted
from seewhy.attack.sizes import DRAWN, LONGER, Nearest, known_sizes
from seewhy.errors import SpecError

#: black and white lie at infinity in the variable w; this much of the way to them is where it starts
INSIDE = 0.999999
#: how often in a search progress is looked at, and the share by which an image's loss must have fallen to go on
CHECKS, PROGRESS = 10, 1e-4

#: images (M, 3, H, W) of the originals (M,) -> what the margin has still to fall (M,), and its gradients (M, 3, H, W)
Ask = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
#: rows (M,) -> which of them may ask once more (M,)
May = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CarliniWagner(Attack[WhiteBox]):
    """Minimises ‖x′ − x‖² + c·max(m(x′) + κ, 0) over w, x′ = (tanh w + 1) / 2, by Adam, for the smallest c that fools.

    m is the margin of the logits: f_y − max_{j≠y} f_j, or towards a target class t max_{j≠t} f_j − f_t; it must fall to −κ
    (`confidence`). c starts at twice what a linear m would need, rises tenfold until an image that fools is met, and
    is then bisected: `searches` values of c, each with at most `steps` steps of Adam at `rate`. An image whose loss falls no
    longer leaves the batch.
    The distance is L2. The nearest image that fools of all seen on the way comes back, if κ = 0 drawn towards the original
    by bisection as long as it fools; then, as a level of its own, one that fools when it is rounded to 8 bits; before them the
    image at each size of `eps`.
    Cost at most: `searches`·`steps` + 21 + 2 for each size forward, `searches`·`steps` + 1 backward passes an image.
    Limits: a local minimum; its distance is an upper bound of the distance to the boundary.
    Deviation: the paper starts from c = 0.001 for all, stops by the progress of the whole batch, and draws nothing in.
    Source: Carlini & Wagner 2017, arXiv 1608.04644, sections V and VI-A.

    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = CarliniWagner(searches=2, steps=20)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> found.distances["l2"].shape
    torch.Size([2, 1])
    """

    searches: int = 6
    steps: int = 200
    rate: float = 0.01
    confidence: float = 0.0
    eps: tuple[float, ...] = ()

    name = "carlini-wagner"
    shows = "How near the nearest image is that fools, by a search that weighs the distance against the margin of the logits."
    reading = "A short distance is a fact; a long one may only be a local minimum. Confidence makes the change larger."
    source = "Carlini & Wagner 2017, arXiv 1608.04644"
    norm = "l2"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        if self.searches < 1 or self.steps < 1:
            raise SpecError(f"expected searches ≥ 1 and steps ≥ 1, got {self.searches} and {self.steps}")
        if not self.rate > 0:
            raise SpecError(f"expected rate > 0, got {self.rate:g}")
        if not self.confidence >= 0:
            raise SpecError(f"expected confidence ≥ 0, got {self.confidence:g}")

    @property
    def passes(self) -> tuple[int, int]:
        asked = 1 + self.searches * self.steps
        return asked + DRAWN + len(LONGER) + 1 + 2 * (len(self.eps) + 2), asked

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        nearest = Nearest(pixels)

        def ask(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            logits, slopes = view.gradient(images, rows, lambda part, at: goal.of(rows[at]).margin(part))
            missing = goal.of(rows).margin(logits) + self.confidence
            fools = goal.of(rows).reached(predicted(logits)) & (missing <= 0)
            nearest.keep(rows[fools], images[fools])
            return missing, slopes

        every = torch.arange(len(pixels))
        rows = every[view.can(every)]
        c = torch.ones(len(pixels))
        missing, slopes = ask(pixels[rows], rows)
        c[rows] = (
            4 * missing / slopes.flatten(1).square().sum(1)
        )  # with half of it a linear m would end on the boundary
        c = torch.where((c > 0) & c.isfinite(), c, 1)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        start, images = torch.atanh((2 * pixels - 1) * INSIDE), pixels.clone()
        for _ in range(self.searches):
            nearest.forget()
            self._descend(ask, partial(nearest.goes_on, view), pixels, start, images, c)
            low, high = torch.where(nearest.met, low, c), torch.where(nearest.met, c, high)
            c = torch.where(high.isinf(), 10 * low, (low + high) / 2)
        return nearest.settled(view, images, goal, self.eps, draw=not self.confidence)

    def _descend(self, ask: Ask, may: May, pixels: Tensor, start: Tensor, images: Tensor, c: Tensor) -> None:
        """Adam from `start` for each image with its own c (N,), while it may ask; `images` gets where it went."""
        rows, w = torch.arange(len(pixels)), start.clone()
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        best, before = torch.full((2, len(pixels)), torch.inf)
        for step in range(1, self.steps + 1):
            going = torch.ones(len(rows), dtype=torch.bool)
            if step % math.ceil(self.steps / CHECKS) == 0:
                going = best[rows] <= (1 - PROGRESS) * before[rows]
                before[rows] = best[rows]
            going[going.clone()] = may(rows[going])
            if not bool(going.all()):
                rows, w, mean, square = rows[going], w[going], mean[going], square[going]
            if not len(rows):
                break
            bent = w.tanh()
            images[rows] = (bent + 1) / 2
            missing, slopes = ask(images[rows], rows)
            away = images[rows] - pixels[rows]
            loss = away.flatten(1).square().sum(1) + c[rows] * missing.clamp_min(0)
            best[rows] = best[rows].minimum(loss)
            pull = (c[rows] * (missing > 0)).view(-1, 1, 1, 1)
            slope = (pull * slopes + 2 * away) * (1 - bent.square()) / 2
            mean, square = mean.lerp(slope, 0.1), square.lerp(slope.square(), 0.001)
            w = w - self.rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
