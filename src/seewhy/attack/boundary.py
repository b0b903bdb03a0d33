"""The boundary attack: a random walk along the boundary that comes ever nearer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attack.base import Attack, Goal, Perturbed, size_of
from seewhy.attack.decisions import KEPT, Search, known_queries
from seewhy.attack.oracles import LabelsOnly
from seewhy.attack.sizes import known_sizes
from seewhy.errors import SpecError
from seewhy.rng import generator, normal

#: the share of trials that should fool: of those along the sphere, and of those towards the original
ALONG, TOWARDS = 0.5, 0.25

#: bisections from the first image that fools to the boundary
BISECTIONS = 10


@dataclass(frozen=True)
class Boundary(Attack[LabelsOnly]):
    """x̃ ← x + (1 − ε)·r·(x̃ − x + δ·r·η)/‖x̃ − x + δ·r·η‖ while it fools, r = ‖x̃ − x‖.

    η is a random unit vector at right angles to x̃ − x.
    From noise that fools, brought to the boundary by bisection. Each step first goes along the sphere around the original (one
    query), and from there, where that fools, towards the original (another). `along` and `towards` are the first δ and ε; each
    grows by a success and shrinks by a failure, so that a half and a quarter of the trials fool. `queries` is the most for an
    image, `tries` the most for its first. With `curve` one more level holds what was found after each of those numbers.
    Values (E, N, 3, H, W): a level for each of the sizes `eps` (none at first), one for each of `curve`, the nearest image, and
    one that also fools once rounded to 8 bits; sizes in l2.
    Raises `SpecError` for sizes and numbers that cannot be meant.
    Cost: at most `queries` forward passes an image, and two a level to judge; none backward.
    Limits: slow to converge, many tens of thousands of queries on photographs; dbge needs far fewer. Towards a target it needs
    noise of that class to start from.
    Deviation: δ and ε move at every trial instead of by the statistics of the last hundred.
    Source: Brendel, Rauber & Bethge 2018, arXiv 1712.04248, section 2.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> found = Boundary(queries=200)(Classifier(module, size=2), torch.rand(1, 3, 2, 2))
    >>> bool(found.queries.max() <= 200)
    True
    """

    queries: int = 5000
    along: float = 0.1
    towards: float = 0.1
    tries: int = 50
    curve: tuple[int, ...] = ()
    eps: tuple[float, ...] = ()
    seed: int = 0

    name = "boundary"
    shows = "How near a random walk that sees nothing but the predicted class comes to the original."
    reading = "The distance is an upper bound, and falls with the queries; gradients of the boundary (dbge) find a nearer one."
    source = "Brendel, Rauber & Bethge 2018, arXiv 1712.04248"
    view = LabelsOnly
    norm = "l2"

    def __post_init__(self) -> None:
        known_sizes(self.eps, "l2")
        known_queries(self.queries, self.curve)
        if not (self.along > 0 and 0 < self.towards < 1 and self.tries > 0):
            raise SpecError(
                "expected along > 0, 0 < towards < 1 and tries ≥ 1, "
                f"got {self.along:g}, {self.towards:g} and {self.tries}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.queries + 2 * (len(self.eps) + len(self.curve) + 2), 0

    def perturb(self, view: LabelsOnly, pixels: Tensor, goal: Goal) -> Perturbed:
        view.limit(self.queries)
        search = Search(view, pixels, goal, "l2", self.curve)
        rows = search.start(self.tries, BISECTIONS, generator(self.seed, self.name, "start"))
        draw = generator(self.seed, self.name)
        along = torch.full((len(pixels),), self.along)
        towards = torch.full((len(pixels),), self.towards)
        while len(rows := rows[view.can(rows, 2 + KEPT)]):
            originals = pixels[rows]
            away = search.images[rows] - originals
            size = search.sizes[rows].view(-1, 1, 1, 1)
            noise = normal((1, *pixels.shape[1:]), draw)
            noise = noise - (noise * away).flatten(1).sum(1).view(-1, 1, 1, 1) * away / size**2
            noise = noise / size_of(noise, "l2").view(-1, 1, 1, 1)
            sphere = away + along[rows].view(-1, 1, 1, 1) * size * noise
            sphere = sphere * size / size_of(sphere, "l2").view(-1, 1, 1, 1)
            fooled = search.fools((originals + sphere).clamp(0, 1), rows)
            along[rows] = _moved(along[rows], fooled, ALONG)
            on = rows[fooled]
            if not len(on):
                continue
            tried = pixels[on] + (1 - towards[on]).view(-1, 1, 1, 1) * sphere[fooled]
            tried = tried.clamp(0, 1)
            nearer = search.fools(tried, on)
            towards[on] = _moved(towards[on], nearer, TOWARDS).clamp_max(0.5)
            search.keep(tried[nearer], on[nearer])
        return search.answer(self.eps)


def _moved(lengths: Tensor, good: Tensor, share: float) -> Tensor:
    """Lengths (M,) longer after a success and shorter after a failure; they stand still where `share` of the trials succeed."""
    return lengths * 1.1 ** torch.where(good, (1 - share) / share, -1.0)
