"""Attacks beside each other on the same images, and one model's fooling images shown to others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seewhy.attack.base import Adversarial, Goal
from seewhy.attack.oracles import as_saved, predicted
from seewhy.classifier import Classifier, Target
from seewhy.data.images import Images
from seewhy.engine import Cost
from seewhy.errors import InputError
from seewhy.intervals import wilson
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


#: what attacks a model: an attack, or a function of model, images and true classes that answers as one, such as through a view
Attacker = Callable[[Classifier, Tensor | Images, Target], Adversarial]


@dataclass(frozen=True)
class Comparison:
    """What A attacks came to on the same N images; failures are infinite and stay in every count.

    `smallest` (A, N) are the smallest sizes that fool, in each attack's own norm (`norms`), `distances` (A, N), for each of
    l0, l2, linf and rms, those of the same images; `wrong_at_start` (N,) stand apart. `passes` (A, N) are the queries and
    gradients that the attack asked for, `stopped` (A, N) the largest sizes that it tried, and `largest` (A,) those on any image.
    """

    attacks: tuple[str, ...]
    norms: tuple[str, ...]
    images: Images
    smallest: Tensor
    distances: Mapping[str, Tensor]
    wrong_at_start: Tensor
    largest: Tensor
    stopped: Tensor
    passes: Tensor
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]

    @property
    def fair(self) -> int:
        """How many images were right at the start."""
        return int((~self.wrong_at_start).sum())

    @property
    def tried(self) -> Tensor:
        """The sizes (A,) up to which each attack tried all images that it left standing: what stands there may fall beyond."""
        standing = self.smallest.isinf() & ~self.wrong_at_start
        return self.largest.minimum(self.stopped.masked_fill(~standing, torch.inf).amin(1))

    def accuracy(self, attack: int, sizes: Tensor) -> Tensor:
        """For each of `sizes` (E,) the share of the images right at the start that stay so, and Wilson's interval: (E, 3)."""
        smallest = self.smallest[attack][~self.wrong_at_start]
        stay = [int((smallest > size).sum()) for size in sizes]
        return torch.tensor([(k / max(self.fair, 1), *wilson(k, self.fair)) for k in stay])

    def table(self) -> list[dict[str, Any]]:
        """A row an attack: how many it fooled with Wilson's interval, medians over all images, failures being infinite."""
        kept = ~self.wrong_at_start
        rows = []
        for place, attack in enumerate(self.attacks):
            fooled = int(self.smallest[place, kept].isfinite().sum())
            rows.append(
                {
                    "attack": attack,
                    "norm": self.norms[place],
                    "fooled": fooled,
                    "of": self.fair,
                    "interval": wilson(fooled, self.fair),
                    "median size": _median(self.smallest[place, kept]),
                    **{f"median {name}": _median(values[place, kept]) for name, values in self.distances.items()},
                    "passes": _median(self.passes[place, kept].float()),
                    "seconds": self.costs[place].seconds,
                }
            )
        return rows

    def plot(self) -> Figure:
        """Accuracy against ε of all attacks, with intervals, a plot for each norm."""
        from seewhy.report.attacks import accuracy

        return accuracy(self)

    def plot_distances(self) -> Figure:
        """How the smallest distances are distributed, attack by attack."""
        from seewhy.report.attacks import distances

        return distances(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), "accuracy against the size of the change")


def compare(found: Sequence[Adversarial]) -> Comparison:
    """What several attacks came to on the same images; counted is what fools also after rounding to 8 bits.

    >>> from torch import nn
    >>> from seewhy.attack import FGSM
    >>> _ = torch.manual_seed(0)
    >>> net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), size=2)
    >>> images = torch.full((2, 3, 2, 2), 0.5)
    >>> both = compare([FGSM(eps=(1.0,))(net, images), FGSM(eps=(3.0,), norm="l2")(net, images)])
    >>> [(row["attack"], row["fooled"], row["of"]) for row in both.table()]
    [('fgsm:eps=1.0', 2, 2), ('fgsm:eps=3.0,norm=l2', 2, 2)]
    """
    if not found:
        raise InputError("expected at least one attack to compare, got none")
    first = found[0]
    for each in found[1:]:
        if not torch.equal(each.original.pixels, first.original.pixels) or not torch.equal(each.labels, first.labels):
            raise InputError(
                f"expected attacks on the same images and classes; {first.method} and {each.method} had others"
            )
        if not torch.equal(each.wrong_at_start, first.wrong_at_start):
            raise InputError(
                f"expected attacks on one model; {first.method} and {each.method} met models that get different images wrong "
                "before any attack"
            )
    every = torch.arange(len(first.labels))
    return Comparison(
        attacks=tuple(each.method for each in found),
        norms=tuple(each.norm for each in found),
        images=first.original,
        smallest=torch.stack([each.smallest_eps for each in found]),
        distances={
            name: torch.stack(
                [
                    torch.where(each.best < 0, torch.inf, each.distances[name][each.best.clamp_min(0), every])
                    for each in found
                ]
            )
            for name in first.distances
        },
        wrong_at_start=first.wrong_at_start,
        largest=torch.stack(
            [each.eps[:, ~each.wrong_at_start].max() if bool(each.eps.any()) else torch.zeros(()) for each in found]
        ),
        stopped=torch.stack([each.eps.amax(0) for each in found]),
        passes=torch.stack([each.queries + each.gradients for each in found]),
        costs=tuple(each.cost for each in found),
        notes=tuple(dict.fromkeys(f"{each.method}: {note}" for each in found for note in each.notes)),
    )


def together(parts: Sequence[Comparison]) -> Comparison:
    """Comparisons of the same attacks on several images as one."""
    first = parts[0]
    return replace(
        first,
        images=Images.join([part.images for part in parts]),
        smallest=torch.cat([part.smallest for part in parts], 1),
        distances={name: torch.cat([part.distances[name] for part in parts], 1) for name in first.distances},
        wrong_at_start=torch.cat([part.wrong_at_start for part in parts]),
        largest=torch.stack([part.largest for part in parts]).amax(0),
        stopped=torch.cat([part.stopped for part in parts], 1),
        passes=torch.cat([part.passes for part in parts], 1),
        costs=tuple(sum(costs[1:], costs[0]) for costs in zip(*(part.costs for part in parts), strict=True)),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


@dataclass(frozen=True)
class Transfer:
    """Whose fooling images fool whom: `fooled` and `of` (S, V), sources in rows, victims in columns.

    Counted are the images that the source's attack fooled it with and that the victim had right before the change, all
    rounded to 8 bits. Transfers between the same models on several images add up.
    """

    method: str
    sources: tuple[str, ...]
    victims: tuple[str, ...]
    fooled: Tensor
    of: Tensor

    def __add__(self, other: Transfer) -> Transfer:
        return replace(self, fooled=self.fooled + other.fooled, of=self.of + other.of)

    @property
    def share(self) -> Tensor:
        """The share (S, V) that is fooled; NaN where there was nothing to fool."""
        return self.fooled / self.of

    def interval(self, source: int, victim: int) -> tuple[float, float]:
        """Wilson's interval of one share."""
        return wilson(int(self.fooled[source, victim]), int(self.of[source, victim]))

    def plot(self) -> Figure:
        """The matrix, with its numbers."""
        from seewhy.report.attacks import transfer

        return transfer(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), "transfer between models")


def alike(nets: Mapping[str, Classifier]) -> None:
    """Raise `InputError` where models cannot be shown each other's images: another size, other classes, or another order."""
    if len({(net.classes, net.size) for net in nets.values()}) != 1:
        told = ", ".join(f"{name} {net.classes} and {net.size[0]} × {net.size[1]}" for name, net in nets.items())
        raise InputError(f"expected at least one model, all of the same classes and input size, got {told or 'none'}")
    named = {name: net.labels for name, net in nets.items() if net.labels_given}
    first = next(iter(named), "")
    for name, labels in named.items():
        if labels != named[first] and sorted(labels) == sorted(named[first]):
            raise InputError(f"expected the same classes in the same order, got those of {first} in another in {name}")


def transferred(
    nets: Mapping[str, Classifier], attack: Attacker, images: Tensor | Images, labels: Target = None
) -> Transfer:
    """Attack every model and show what fools it to all of them. All take the same images and classes (`InputError`).

    True classes are `labels`, or those of `images`; where neither says, each model's attack leads away from its own prediction.
    Where the attack had a target, a victim is fooled that says so.
    """
    alike(nets)
    method = ""
    fooled, of = torch.zeros(2, len(nets), len(nets), dtype=torch.long)
    for row, net in enumerate(nets.values()):
        found = attack(net, images, labels)
        method = found.method
        chosen = (found.best >= 0).nonzero()[:, 0]
        if not len(chosen):
            continue
        changed, goal = as_saved(found.fooling[chosen]), Goal(found.labels, found.target).of(chosen)
        for column, victim in enumerate(nets.values()):
            fair = predicted(victim.predict(found.original.pixels[chosen]).cpu()) == goal.labels
            gone = goal.reached(predicted(victim.predict(changed).cpu()))
            fooled[row, column], of[row, column] = (gone & fair).sum(), fair.sum()
    return Transfer(method, tuple(nets), tuple(nets), fooled, of)


def _median(values: Tensor) -> float:
    """The median, failures being infinite; NaN of nothing."""
    return float(median(values.tolist())) if len(values) else math.nan
