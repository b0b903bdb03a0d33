"""The iterated fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.iterated import ascending, known_walk, most_passes, within
from seewhy.attack.oracles import WhiteBox
from seewhy.attack.sizes import given, known_sizes, swept


@dataclass(frozen=True)
class IFGSM(Attack[WhiteBox]):
    """x₀ = x, xᵢ₊₁ = clip(xᵢ + α·sign ∇J(xᵢ)) into the ball of ε around x and into [0, 1]; also called BIM.

    J is the log-odds log P(goal)/P(not the goal), the goal being any class but y, or the target: the sign of its gradient is
    that of cross-entropy's. α is the share `step` of ε; by default `steps`·α = 1.25·ε, as in the paper. With `norm=l2` ∇J/‖∇J‖
    stands for the sign, and the ball is Euclidean.
    The sizes `eps` in [0, 1] pixels, eleven from 0.5/255 to 32/255 where none are given (in L2 the same for each value), are
    tried from small to large until an image fools, also rounded to 8 bits; the larger ones then have the same answer.
    `refine` bisections narrow down the smallest size below that one.
    Values (E, N, 3, H, W): a level for each size, and with `refine` one for the smallest found; sizes in `norm`.
    Raises `SpecError` for sizes, steps and norms that cannot be meant.
    Cost for E sizes: at most 2·E + 3 forward passes, and for each size and refinement 2·`steps` + 2 forward and `steps`
    backward passes, an image; one that fools leaves.
    Limits: one start; a loss with several hills may hide a fooling image from it, see pgd.
    Deviation: the paper has no early leaving, one ε, and min(255·ε + 4, 1.25·255·ε) steps of 1/255.
    Source: Kurakin, Goodfellow & Bengio 2017, arXiv 1607.02533, section 2.2.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = IFGSM(eps=(8 / 255,), refine=0)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.distances["linf"].max() <= 8 / 255 + 1e-6)
    True
    """

    eps: tuple[float, ...] = ()
    norm: str = "linf"
    steps: int = 10
    step: float = 0.125
    refine: int = 4

    name = "ifgsm"
    shows = "Whether a few small steps against the gradient, inside a ball of a given size, change the decision."
    reading = "Stronger than one step of the same size. A failure proves no robustness: restarts or another attack may find more."
    source = "Kurakin, Goodfellow & Bengio 2017, arXiv 1607.02533"

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_walk(self.steps, self.refine, self.step)

    @property
    def passes(self) -> tuple[int, int]:
        return most_passes(self.eps, self.refine, self.steps)

    def perturb(self, view: WhiteBox, pixels: Tensor, goal: Goal) -> Perturbed:
        attack = within(view, pixels, goal, self.norm, self.steps, ascending(self.norm, self.step))
        return swept(attack, pixels, given(self.eps, self.norm, pixels), self.refine)
