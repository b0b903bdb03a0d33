"""The fast gradient sign method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.iterated import log_odds
from seewhy.attack.oracles import WhiteBox, as_saved
from seewhy.attack.sizes import NOT_NARROWED, STEPS, given, known_sizes, steepest
from seewhy.errors import SpecError


@dataclass(frozen=True)
class FGSM(Attack[WhiteBox]):
    """x′ = clip(x + ε·sign g), g = ∂/∂x CE(f(x), y), or g = −∂/∂x CE(f(x), t) towards a target class t.

    With `norm=l2`, FGM: g/‖g‖ in the place of sign g. One gradient serves every size of the sweep `eps` in [0, 1] pixels;
    where none are given, eleven from 0.5/255 to 32/255 (in L2 the same for each value). Then `refine` bisections between the
    largest size below the first success and that success narrow down the smallest size that fools: once in floating point,
    and once as the image would be saved, in 8 bits. They are two more levels, with their own size for each image.
    Cost for E sizes: 6 + 4·E + 2·`refine` forward passes and one backward pass an image; without refinement 2 + 2·E.
    Limits: one straight line, by the gradient at the image alone; where the loss bends, larger sizes may fool less than smaller.
    Deviation: the paper has one ε and no refinement; ε is in units of [0, 1] pixels. g is the gradient of the log-odds
    log P(goal)/P(not the goal): the direction of that of cross-entropy, also where this rounds to nothing or to another.
    Source: Goodfellow, Shlens & Szegedy 2015, arXiv 1412.6572, section 4; targeted: Kurakin et al. 2017, arXiv 1611.01236;
    L2: Miyato et al. 2017, arXiv 1605.07725.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = FGSM(eps=(8 / 255,))(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.distances["linf"].max() <= 8 / 255 + 1e-6)
    True
    """

    eps: tuple[float, ...] = ()
    norm: str = "linf"
    refine: int = 6

    name = "fgsm"
    shows = "Whether one step against the gradient, equal in size for every pixel, changes the decision, and how small it may be."
    reading = "Confidence falls along one straight line. A stronger attack may need less: a large ε here proves no robustness."
    source = "Goodfellow, Shlens & Szegedy 2015, arXiv 1412.6572"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        if self.refine < 0:
            raise SpecError(f"expected refine ≥ 0, got {self.refine}")

    @property
    def passes(self) -> tuple[int, int]:
        sizes = len(self.eps or STEPS)
        levels = sizes + 2 * bool(self.refine)
        return 2 + 2 * levels + (2 * (sizes + self.refine) if self.refine else 0), 1

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        every = torch.arange(len(pixels))
        _, gradient = view.gradient(pixels, every, lambda logits, rows: log_odds(logits, goal.of(rows)))
        direction = steepest(gradient, self.norm)

        def at(sizes: Tensor) -> Tensor:
            return torch.addcmul(pixels, sizes.view(-1, 1, 1, 1), direction).clamp_(0, 1)

        grid = sizes = torch.tensor(given(self.eps, self.norm, pixels))[:, None].expand(-1, len(pixels))
        images = torch.stack([at(sizes) for sizes in grid])
        if not self.refine:
            return Perturbed(images, sizes)
        if not bool(view.can(every, 2 * (len(grid) + self.refine)).all()):
            return Perturbed(images, sizes, (NOT_NARROWED,))
        flat = images.flatten(0, 1)

        def fooled(candidates: Tensor) -> Tensor:
            found = view.labels(candidates, every.repeat(len(candidates) // len(pixels)))
            return goal.reached(found.view(-1, len(pixels)))

        for seen in (torch.clone, as_saved):

            def tried(sizes: Tensor, seen: Callable[[Tensor], Tensor] = seen) -> Tensor:
                return fooled(seen(at(sizes)))[0]

            size = self._refined(grid, fooled(seen(flat)), tried)
            images, sizes = torch.cat([images, at(size)[None]]), torch.cat([sizes, size[None]])
        return Perturbed(images, sizes)

    def _refined(self, grid: Tensor, reached: Tensor, fooled: Callable[[Tensor], Tensor]) -> Tensor:
        """For each image (N,) the smallest size that fools, between the last failure on the grid and the first success."""
        any_reached = reached.any(0)
        first = torch.where(any_reached, reached.int().argmax(0), len(grid) - 1)
        high = grid.gather(0, first[None])[0]
        low = torch.where(first > 0, grid.gather(0, (first - 1).clamp_min(0)[None])[0], torch.zeros_like(high))
        for _ in range(self.refine if bool(any_reached.any()) else 0):
            middle = (low + high) / 2
            good = fooled(middle) & any_reached
            high, low = torch.where(good, middle, high), torch.where(good | ~any_reached, low, middle)
        return high
