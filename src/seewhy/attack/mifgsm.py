"""The iterated fast gradient sign method with momentum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.iterated import State, ascending, known_walk, most_passes, within
from seewhy.attack.oracles import WhiteBox
from seewhy.attack.sizes import given, known_sizes, swept
from seewhy.errors import SpecError


@dataclass(frozen=True)
class MIFGSM(Attack[WhiteBox]):
    """gᵢ₊₁ = μ·gᵢ + ∇J(xᵢ)/‖∇J(xᵢ)‖₁, xᵢ₊₁ = clip(xᵢ + α·sign gᵢ₊₁) into the ball of ε around x and into [0, 1].

    J is the log-odds log P(goal)/P(not the goal), the goal being any class but y, or the target: its gradient has the direction
    of cross-entropy's, and ‖·‖₁ takes its length away. μ is `momentum`, α the share `step` of ε. With `norm=l2` g/‖g‖ stands for
    the sign, and the ball is Euclidean.
    The sizes `eps` in [0, 1] pixels, eleven from 0.5/255 to 32/255 where none are given (in L2 the same for each value), are
    tried from small to large until an image fools, also rounded to 8 bits; the larger ones then have the same answer.
    `refine` bisections narrow down the smallest size below that one.
    Values (E, N, 3, H, W): a level for each size, and with `refine` one for the smallest found; sizes in `norm`.
    Raises `SpecError` for sizes, steps, norms and momenta that cannot be meant.
    Cost for E sizes: at most 2·E + 3 forward passes, and for each size and refinement 2·`steps` + 2 forward and `steps`
    backward passes, an image; one that fools leaves.
    Limits: made for images that fool other models too; for those, do not let `refine` take their margin away.
    Deviation: images leave when they fool; the paper goes on to the last step.
    Source: Dong et al. 2018, arXiv 1710.06081, algorithm 1.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = MIFGSM(eps=(8 / 255,), refine=0)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.distances["linf"].max() <= 8 / 255 + 1e-6)
    True
    """

    eps: tuple[float, ...] = ()
    norm: str = "linf"
    steps: int = 10
    step: float = 0.1
    momentum: float = 1.0
    refine: int = 4

    name = "mifgsm"
    shows = (
        "Whether a few steps along a gradient that is remembered change the decision, and so may that of another model."
    )
    reading = (
        "As strong as the iterated method on the model itself, and steadier: its images fool other models more often."
    )
    source = "Dong et al. 2018, arXiv 1710.06081"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_walk(self.steps, self.refine, self.step)
        if self.momentum < 0:
            raise SpecError(f"expected momentum ≥ 0, got {self.momentum:g}")

    @property
    def passes(self) -> tuple[int, int]:
        return most_passes(self.eps, self.refine, self.steps)

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        plain = ascending(self.norm, self.step)

        def move(images: Tensor, gradient: Tensor, values: Tensor, state: State, step: int) -> Tensor:
            length = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
            state["g"] = gradient / length + self.momentum * state.get("g", torch.zeros(()))
            return plain(images, state["g"], values, state, step)

        attack = within(view, pixels, goal, self.norm, self.steps, move)
        return swept(attack, pixels, given(self.eps, self.norm, pixels), self.refine)
