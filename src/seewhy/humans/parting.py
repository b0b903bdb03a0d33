"""Where people and a network part: on which images one is right and the other wrong, and what goes with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from scipy.stats import norm, rankdata  # type: ignore[import-untyped]
from torch import Tensor

from seewhy.errors import InputError, SpecError, nearest
from seewhy.humans.paired import holm
from seewhy.humans.sample import sample
from seewhy.humans.votes import Floats, Integers, Votes
from seewhy.intervals import wilson
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

Rule = Literal["most", "majority"]

#: what an image can be: each set's name and what it holds; {model} stands for the network's name
SETS: Mapping[str, str] = {
    "both right": "people and {model} are right",
    "people right": "people are right, {model} is wrong",
    "model right": "{model} is right, people are wrong",
    "wrong alike": "both are wrong in the same way",
    "wrong differently": "both are wrong, each in another way",
    "undecided": "people have no answer",
}

#: the sets in which somebody is wrong, which are compared with the images that both get right
PARTED = ("people right", "model right", "wrong alike", "wrong differently")

#: images of a set below which nothing is said of what goes with it
FEWEST = 8

#: the level of the corrected tests
LEVEL = 0.05

Array = np.ndarray[Any, Any]


@final
@dataclass(frozen=True)
class Effect:
    """How a property of the images of a set differs from that of the images that both get right.

    `auc` is the chance that an image of the set has the higher value than one that both get right, of the same true class:
    0.5 where nothing goes with it. `interval` is its bootstrap interval of 95 %, `p` that of Wilcoxon's test with the rank sums
    of the classes added up, `adjusted` Holm's correction over all tests of a comparison. `images` and `beside` count the images
    of either side that had a counterpart.
    """

    group: str
    measure: str
    images: int
    beside: int
    auc: float
    interval: tuple[float, float]
    p: float
    adjusted: float = math.nan

    @property
    def clear(self) -> bool:
        """Whether it is told from nothing after the correction."""
        return self.adjusted < LEVEL


@final
@dataclass(frozen=True, eq=False, repr=False)
class Parting:
    """Where people (`people`) and a network (`answers`) answer alike and where not, of N images in K classes.

    `people` (N,) is the class that most people chose, −1 where there is none; `answers` (N,) the network's. `group` (N,)
    counts through `SETS`. `clarity` (N,) is the share of people who gave people's answer times the probability that the
    network gives its own: the chance that one person's vote and one draw from the network's probabilities are just these
    two. `shares` and `probabilities` (N, K) are what both answered, `properties` the images' measures by name, `effects`
    what goes with being parted.
    """

    name: str
    model: str
    rule: Rule
    images: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Integers
    people: Integers
    answers: Integers
    group: Integers
    clarity: Floats
    shares: Floats
    probabilities: Floats
    properties: Mapping[str, Floats]
    effects: tuple[Effect, ...]
    rounds: int
    seed: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        told = ", ".join(f"{count:,} {name}" for name, count in self.counts().items() if count)
        return f"Parting({self.name!r}, {len(self):,} images: {told})"

    def counts(self) -> dict[str, int]:
        """How many images each set holds."""
        return {name: int((self.group == place).sum()) for place, name in enumerate(SETS)}

    def of(self, name: str, count: int | None = None) -> Integers:
        """The places of a set's images, the most clear-cut first; raises `InputError` with the nearest names."""
        if name not in SETS:
            raise InputError(f'there is no set "{name}"{nearest(name, SETS)}; there are: {", ".join(SETS)}')
        inside = np.flatnonzero(self.group == list(SETS).index(name))
        return inside[np.argsort(-self.clarity[inside], kind="stable")][:count]

    def rows(self) -> list[dict[str, Any]]:
        """A row a set: its images, its share with Wilson's interval, and its effects as plain values."""
        return [
            {
                "set": name,
                "what": SETS[name].format(model=self.model),
                "images": count,
                "share": count / len(self),
                "interval": list(wilson(count, len(self))),
                "effects": [
                    {
                        "property": each.measure,
                        "images": each.images,
                        "beside": each.beside,
                        "auc": _finite(each.auc),
                        "interval": [_finite(end) for end in each.interval],
                        "p": _finite(each.p),
                        "adjusted": _finite(each.adjusted),
                        "clear": each.clear,
                    }
                    for each in self.effects
                    if each.group == name
                ],
            }
            for name, count in self.counts().items()
        ]

    def words(self) -> str:
        """A paragraph made of the numbers: the sets, and what goes with them, as association."""
        return paragraph(self.rows(), self.model, self.rule)

    def plot(self) -> Figure:
        """The effects with their intervals, a column of dots for each set."""
        from seewhy.report.parting import effects

        return effects(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.words())


def parting(
    votes: Votes,
    probabilities: Array | Tensor,
    labels: Sequence[int | None] | Array | Tensor | None = None,
    *,
    properties: Mapping[str, Array] | None = None,
    rule: Rule = "most",
    rounds: int = 1000,
    seed: int = 0,
    model: str = "the CNN",
) -> Parting:
    """Sort images by who is right, people or a network, and compare the sets' properties with those that both get right.

    `probabilities` (N, K) are the network's for the images and categories of `votes`, in their order, `labels` (N,) the true
    ones (None: those of `votes`). People's answer is the category with most votes (`rule` "most"), or one with more than half
    of them ("majority"); a tie, or no majority, is no answer. `properties` holds a number (N,) for each image by name, such
    as those of `seewhy.humans.properties.measured`; how far people are of one mind is added where the votes do not make the
    set.

    Only images of one true class are compared with each other, so that what goes with a class is not taken for what goes with
    failing. An effect is an association: nothing says that it is the cause. Images without votes or true class are left out
    and counted in the notes. Raises `InputError` for what is no probability and for shapes and labels that do not fit,
    `SpecError` for another rule.

    Cost: no passes; time grows with images × properties × `rounds`. Source: the sum over classes of Wilcoxon's rank sums as in
    van Elteren 1960, every pair counting the same; Holm 1979.

    >>> votes = Votes("two looks", ("a", "b"), ("cat", "dog"), np.array([[3, 1], [0, 4]]))
    >>> parting(votes, np.array([[0.2, 0.8], [0.1, 0.9]]), [0, 1]).counts()["people right"]
    1
    """
    if rule not in ("most", "majority"):
        raise SpecError(f'expected the rule "most" or "majority", got "{rule}"')
    if rounds < 1:
        raise SpecError(f"expected at least one bootstrap round, got {rounds}")
    for name, values in (properties or {}).items():
        if np.shape(values) != (len(votes),):
            raise InputError(f"expected {len(votes)} values of {name}, one an image, got {np.shape(values)}")
    given = sample(votes, probabilities, labels)
    place = {name: index for index, name in enumerate(votes.images)}
    kept = np.array([place[name] for name in given.votes.images])
    counts, chances, truth = given.votes.counts, given.probabilities, given.labels
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    people, answers = most(counts, rule), given.answers
    notes = list(given.notes)
    group = _grouped(people, answers, truth)
    each = np.arange(len(kept))
    share = np.where(people < 0, shares.max(1), shares[each, people])
    held = {name: np.asarray(values, np.float64)[kept] for name, values in (properties or {}).items()}
    entropy = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(1)
    broken = [name for name, values in held.items() if not np.isfinite(values).all()]
    notes += [f"{name} is not finite for every image, and is left out of the comparison" for name in broken]
    compared = {name: values for name, values in held.items() if name not in broken}
    effects = _effects(group, truth, compared, entropy, rounds, seed)
    return Parting(
        name=votes.name,
        model=model,
        rule=rule,
        images=given.votes.images,
        classes=votes.classes,
        labels=truth,
        people=people,
        answers=answers,
        group=group,
        clarity=share * chances[each, answers],
        shares=shares,
        probabilities=chances,
        properties={**held, "people's entropy": entropy},
        effects=effects,
        rounds=rounds,
        seed=seed,
        notes=tuple(notes),
    )


def most(counts: Integers, rule: Rule = "most") -> Integers:
    """What most people answered of votes (N, K): (N,), −1 for a tie, or where "majority" asks for more than half.

    >>> most(np.array([[3, 1, 1], [2, 2, 1], [2, 1, 1]])).tolist()
    [0, -1, 0]
    >>> most(np.array([[3, 1, 1], [2, 2, 1], [2, 1, 1]]), "majority").tolist()
    [0, -1, -1]
    """
    top = counts.max(1)
    clear = (counts == top[:, None]).sum(1) == 1
    if rule == "majority":
        clear &= 2 * top > counts.sum(1)
    found: Integers = np.where(clear & (top > 0), counts.argmax(1), -1)
    return found


def paragraph(rows: Sequence[Mapping[str, Any]], model: str, rule: str = "most") -> str:
    """What `Parting.rows` say, in words."""
    total = sum(row["images"] for row in rows)
    counts = {row["set"]: row["images"] for row in rows}
    who = "most people" if rule == "most" else "the majority of people"
    said = [
        f"Of {total:,} images, {who} and {model} are both right on {counts['both right']:,}; people alone are right on "
        f"{counts['people right']:,} and {model} alone on {counts['model right']:,}; both are wrong on "
        f"{counts['wrong alike'] + counts['wrong differently']:,}, {counts['wrong alike']:,} of them in the same way."
    ]
    if counts["undecided"]:
        reason = "a tie" if rule == "most" else "no class above half"
        said.append(f"On {counts['undecided']:,} people have no answer ({reason}).")
    tested = False
    for row in rows:
        effects = row["effects"]
        tested = tested or bool(effects)
        clear = [each for each in effects if each["clear"]]
        if not clear:
            continue
        clear.sort(key=lambda each: -abs(each["auc"] - 0.5))
        told = ", ".join(
            f"{'higher' if each['auc'] > 0.5 else 'lower'} {each['property']} (AUC {each['auc']:.2f}, "
            f"{each['interval'][0]:.2f} to {each['interval'][1]:.2f})"
            for each in clear
        )
        said.append(f"Where {row['what']}, images have, beside those that both get right: {told}.")
    if tested and len(said) <= 1 + bool(counts["undecided"]):
        said.append("None of the properties goes clearly with it.")
    small = [row["what"] for row in rows if row["set"] in PARTED and 0 < row["images"] < FEWEST]
    if tested:
        said.append("This is association, within each true class and corrected for the number of tests; not a cause.")
        if small:
            said.append(f"Too few images to say what goes with it: {'; '.join(small)}.")
    return " ".join(said)


def _grouped(people: Integers, answers: Integers, truth: Integers) -> Integers:
    right, correct = people == truth, answers == truth
    chosen = [
        people < 0,
        right & correct,
        right & ~correct,
        ~right & correct,
        ~right & ~correct & (people == answers),
    ]
    places = [
        list(SETS).index(name) for name in ("undecided", "both right", "people right", "model right", "wrong alike")
    ]
    found: Integers = np.select(chosen, places, list(SETS).index("wrong differently")).astype(np.int64)
    return found


def _effects(
    group: Integers, truth: Integers, properties: Mapping[str, Floats], entropy: Floats, rounds: int, seed: int
) -> tuple[Effect, ...]:
    """Every property in every set of enough images, with Holm's correction over all of them."""
    found: list[Effect] = []
    beside = group == list(SETS).index("both right")
    for name in PARTED:
        inside = group == list(SETS).index(name)
        compared = {**properties, "people's entropy": entropy} if name == "people right" else properties
        if inside.sum() < FEWEST or not compared:
            continue
        # only classes that are on both sides have pairs
        common = np.isin(truth, np.intersect1d(truth[inside], truth[beside]))
        first, second = np.flatnonzero(inside & common), np.flatnonzero(beside & common)
        if len(first) < FEWEST:
            continue
        generator = np.random.default_rng([seed, PARTED.index(name)])
        draws = _drawn(generator, truth[first], rounds), _drawn(generator, truth[second], rounds)
        for word, values in compared.items():
            auc, interval = _auc(values[first], truth[first], values[second], truth[second], draws)
            p = _wilcoxon(values[first], truth[first], values[second], truth[second])
            found.append(Effect(name, word, len(first), len(second), auc, interval, p))
    corrected = holm([each.p for each in found])
    return tuple(replace(each, adjusted=p) for each, p in zip(found, corrected, strict=True))


def _drawn(generator: np.random.Generator, truth: Integers, rounds: int) -> Array:
    """How often each image is drawn in each bootstrap round (rounds, n), classes keeping their sizes."""
    drawn = np.empty((rounds, len(truth)), np.float32)
    for label in np.unique(truth):
        inside = np.flatnonzero(truth == label)
        drawn[:, inside] = generator.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=rounds)
    return drawn


def _auc(
    first: Floats, first_truth: Integers, second: Floats, second_truth: Integers, draws: tuple[Array, Array]
) -> tuple[float, tuple[float, float]]:
    """The share of pairs of one class in which the first is higher (a tie counts half), and its percentile interval."""
    wins, pairs = 0.0, 0.0
    resampled: Array = np.zeros(len(draws[0]))
    for label in np.unique(first_truth):
        one, other = np.flatnonzero(first_truth == label), np.flatnonzero(second_truth == label)
        higher = np.sign(first[one][:, None] - second[other][None]).astype(np.float32) / 2 + np.float32(0.5)
        wins += float(higher.sum(dtype=np.float64))
        pairs += higher.size
        resampled += ((draws[0][:, one] @ higher) * draws[1][:, other]).sum(1, dtype=np.float64)
    low, high = np.quantile(resampled / pairs, (0.025, 0.975))
    return wins / pairs, (float(low), float(high))


def _wilcoxon(first: Floats, first_truth: Integers, second: Floats, second_truth: Integers) -> float:
    """The two-sided p that the first are neither higher nor lower: rank sums within classes, added up; normal, with ties."""
    excess, variance = 0.0, 0.0
    for label in np.unique(first_truth):
        one, other = first[first_truth == label], second[second_truth == label]
        both = np.concatenate([one, other])
        n, m, total = len(one), len(other), len(both)
        ranks = rankdata(both)
        ties = np.unique(both, return_counts=True)[1].astype(np.float64)
        excess += float(ranks[:n].sum()) - n * (total + 1) / 2
        variance += n * m / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    return float(2 * norm.sf(abs(excess) / math.sqrt(variance))) if variance > 0 else 1.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
