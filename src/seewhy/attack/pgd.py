"""Projected gradient descent with random restarts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.iterated import ascending, known_walk, most_passes, noise, within
from seewhy.attack.oracles import WhiteBox
from seewhy.attack.sizes import given, known_sizes, swept


@dataclass(frozen=True)
class PGD(Attack[WhiteBox]):
    """xᵢ₊₁ = Π(xᵢ + α·sign ∇J(xᵢ)) from a random x₀ in the ball of ε around x, Π being the projection onto it and into [0, 1].

    J is the log-odds log P(goal)/P(not the goal), the goal being any class but y, or the target: the sign of its gradient is
    that of cross-entropy's. α is the share `step` of ε. With `norm=l2` ∇J/‖∇J‖ stands for the sign, and the ball is Euclidean.
    There are `restarts` starts in all, drawn with `seed` from the ball, the same for every image; those after the first are
    for the images that do not fool yet.
    The sizes `eps` in [0, 1] pixels, eleven from 0.5/255 to 32/255 where none are given (in L2 the same for each value), are
    tried from small to large until an image fools, also rounded to 8 bits; the larger ones then have the same answer.
    `refine` bisections narrow down the smallest size below that one.
    Values (E, N, 3, H, W): a level for each size, and with `refine` one for the smallest found; sizes in `norm`.
    Raises `SpecError` for sizes, steps and norms that cannot be meant.
    Cost for E sizes: at most 2·E + 3 forward passes, and for each size, refinement and restart 2·`steps` + 2 forward and
    `steps` backward passes, an image; one that fools leaves.
    Limits: what is found at ε shows that ε is too much; what is not found shows nothing by itself.
    Deviation: images leave when they fool, so their loss is not the highest in the ball.
    Source: Madry et al. 2018, arXiv 1706.06083, section 2.1; α = ε/4 as their 2/255 at 8/255.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = PGD(eps=(8 / 255,), refine=0)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.distances["linf"].max() <= 8 / 255 + 1e-6)
    True
    """

    eps: tuple[float, ...] = ()
    norm: str = "linf"
    steps: int = 10
    step: float = 0.25
    restarts: int = 1
    refine: int = 4
    seed: int = 0

    name = "pgd"
    shows = "Whether gradient steps from random starts find, inside a ball of a given size, an image that changes the decision."
    reading = "The usual test at a fixed size: success refutes robustness; failure, with more steps and restarts, suggests it."
    source = "Madry et al. 2018, arXiv 1706.06083"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_walk(self.steps, self.refine, self.step, self.restarts)

    @property
    def passes(self) -> tuple[int, int]:
        return most_passes(self.eps, self.refine, self.steps, self.restarts)

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        draws = partial(noise, self.seed, self.name, self.norm, pixels.shape[1:], self.restarts)
        attack = within(view, pixels, goal, self.norm, self.steps, ascending(self.norm, self.step), starts=draws)
        return swept(attack, pixels, given(self.eps, self.norm, pixels), self.refine)
