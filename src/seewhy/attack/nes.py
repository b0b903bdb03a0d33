"""Natural evolution strategies: gradients estimated from scores along random directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed
from seewhy.attack.decisions import in_parts, known_queries, shares
from seewhy.attack.oracles import Scores
from seewhy.attack.sizes import STEPS, given, known_sizes, outlives, projected, steepest, swept
from seewhy.errors import SpecError
from seewhy.rng import generator, normal


def antithetic(view: Scores, goal: Goal, images: Tensor, rows: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Estimates (M, 3, H, W) of the margin's gradient at images (M, 3, H, W) of the originals `rows`.

    Σ_b (m(x + σ·u_b) − m(x − σ·u_b))·u_b / (2σB) over the directions u of `noise` (B, 3, H, W): unbiased for a linear margin
    and standard normal directions. 2B queries an image.
    """
    pairs = len(noise)

    def ask(part: Tensor) -> Tensor:
        who = part // (2 * pairs)
        which = part % (2 * pairs)
        signed = noise[which // 2] * (1 - 2 * (which % 2)).view(-1, 1, 1, 1)
        of = rows[who]
        return goal.of(of).margin(view.scores((images[who] + sigma * signed).clamp(0, 1), of))

    margins = in_parts(2 * pairs * len(images), images[0].numel(), ask).view(-1, pairs, 2)
    slopes = ((margins[..., 0] - margins[..., 1]) / (2 * sigma * pairs)).nan_to_num(0, 0, 0)
    return (slopes @ noise.flatten(1)).view_as(images)


@dataclass(frozen=True)
class NES(Attack[Scores]):
    """x ← Π(x − α·sign ĝ), ĝ = Σ_b (m(x + σ·u_b) − m(x − σ·u_b))·u_b / (2σB) from scores alone, u_b standard normal.

    m is what is missing to the goal, in log-probabilities: that of the true class less the largest other, or the largest
    other less that of the target. `pairs` is B, half the queries of a step, `sigma` σ, `rate` the step α in parts of ε,
    `momentum` the part of the last estimate that is kept. With `norm=l2` ĝ/‖ĝ‖ stands for the sign. Π keeps the image within
    ε of the original, inside [0, 1]. `queries` is the most for an image; the sizes `eps` (eleven from 0.5/255 to 32/255 where
    none are given) and the `refine` bisections for the smallest size share them evenly. An image is done at the first success
    that outlives rounding to 8 bits, which is one query more.
    Values (E, N, 3, H, W): one level for each size and one for the smallest found, in the `norm` of its sizes.
    Raises `SpecError` for sizes, norms and numbers that cannot be meant, and for fewer queries than the 2B + 1 of one step.
    Cost: at most `queries` forward passes an image, and two a level to judge; none backward.
    Limits: rounded scores hide small differences; then take a larger `sigma`. A size whose share is less than one step is not
    tried (said). With one size it gets all the queries, which is the stronger attack.
    Deviation: the paper descends the cross-entropy towards a target that it approaches from an image of it; here the margin,
    from the image itself.
    Source: Ilyas, Engstrom, Athalye & Lin 2018, arXiv 1804.08598, algorithm 1 and section 3.1.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = NES(queries=200, eps=(8 / 255,), refine=0)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.queries.max() <= 200)
    True
    """

    queries: int = 5000
    eps: tuple[float, ...] = ()
    norm: str = "linf"
    pairs: int = 25
    sigma: float = 0.01
    rate: float = 0.2
    momentum: float = 0.9
    refine: int = 4
    seed: int = 0

    name = "nes"
    shows = "Whether a small change that is found from the scores alone, without gradients, changes the decision."
    reading = (
        "What it finds a stranger who only sees scores can find. A failure may be the budget's: give more queries."
    )
    source = "Ilyas, Engstrom, Athalye & Lin 2018, arXiv 1804.08598"
    view = Scores

    def __post_init__(self) -> None:
        known_sizes(self.eps, self.norm)
        known_queries(self.queries)
        if self.pairs < 1 or self.refine < 0:
            raise SpecError(f"expected pairs ≥ 1 and refine ≥ 0, got {self.pairs} and {self.refine}")
        if self.queries < self._turn:
            raise SpecError(
                f"expected at least 2·pairs + 1 = {self._turn} queries, those of one step, got {self.queries}; "
                "give more queries or fewer pairs"
            )
        if not (self.sigma > 0 and self.rate > 0 and 0 <= self.momentum < 1):
            raise SpecError(
                "expected sigma > 0, rate > 0 and 0 ≤ momentum < 1, "
                f"got {self.sigma:g}, {self.rate:g} and {self.momentum:g}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.queries + 2 * (len(self.eps or STEPS) + bool(self.refine)), 0

    def perturb(self, view: Scores, pixels: Tensor, goal: Goal) -> Perturbed:
        view.limit(self.queries)
        sizes = given(self.eps, self.norm, pixels)
        allowed = shares(view, len(sizes) + self.refine)

        def within(rows: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            draw = generator(self.seed, self.name)  # the same steps at each size
            share = allowed(rows)
            kept = view.left[rows] - share  # for the other sizes
            images, found = pixels[rows].clone(), pixels[rows].clone()
            fooled, settled = torch.zeros(2, len(rows), dtype=torch.bool)
            past = torch.zeros_like(images)
            while len(on := (~settled & (view.left[rows] - kept >= self._turn)).nonzero()[:, 0]):
                noise = normal((self.pairs, *pixels.shape[1:]), draw)
                of = rows[on]
                past[on] = self.momentum * past[on] + antithetic(view, goal, images[on], of, noise, self.sigma)
                step = (self.rate * size[on]).view(-1, 1, 1, 1) * steepest(past[on], self.norm)
                images[on] = projected(images[on] - step, pixels[of], size[on], self.norm)
                now = goal.of(of).reached(view.labels(images[on], of))
                latest = on[now | ~fooled[on]]
                found[latest] = images[latest]
                fooled[on] |= now
                new = on[now]
                settled[new] = outlives(view, images[new], rows[new], goal.of(rows[new]))
            return found, settled, share >= self._turn

        return swept(within, pixels, sizes, self.refine)

    @property
    def _turn(self) -> int:
        """The queries of one step: an estimate, and a look at where it leads."""
        return 2 * self.pairs + 1
