"""Is it better than people? Better, worse, or not told apart: in words, with what was compared, and what cannot be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from seewhy.humans import say
from seewhy.humans.accuracy import Rates
from seewhy.humans.paired import McNemar
from seewhy.humans.sample import Sample

Outcome = Literal["better", "worse", "not told apart"]

#: annotators below whose number an interval over people says little
_FEW = 5
#: the risk that is allowed for calling something a difference
_LEVEL = 0.05


@final
@dataclass(frozen=True)
class Verdict:
    """The network against the mean annotator, planned as the one test that decides; all else is described beside it."""

    outcome: Outcome
    headline: str
    sample: str
    limits: tuple[str, ...]


def decide(found: Rates, model: str, given: Sample, limits: tuple[str, ...]) -> Verdict:
    """The outcome by the 95 % interval of the difference: better or worse where it leaves 0 out."""
    main = found.main.difference
    outcome: Outcome = "better" if main.above(0) else "worse" if main.below(0) else "not told apart"
    whom = _whom(given)
    right = f"{say.percent(found.main.network.value)} right against {say.percent(found.main.people.value)}"
    by = f"a difference of {say.difference(main)} on the same {say.counted(len(given), 'image')}"
    verb = {"better": f"is better than {whom}", "worse": f"is worse than {whom}"}
    verb["not told apart"] = f"and {whom} cannot be told apart"
    return Verdict(outcome, f"{model} {verb[outcome]}: {right}, {by}.", _sample(found, outcome, given), limits)


def _whom(given: Sample) -> str:
    names = given.annotators
    if len(names) == 1:
        return f"the only annotator, {names[0]}"
    return f"the mean of {len(names):,} annotators" if names else "the mean annotator"


def _sample(found: Rates, outcome: Outcome, given: Sample) -> str:
    """What this sample tells, and which one would tell the difference seen."""
    need, seen = found.needed, abs(found.main.difference.value)
    if not math.isfinite(need.least) or need.least <= 0:
        return "This sample is too small to say which differences it could tell."
    tells = f"A sample like this tells a difference of {say.points(need.least).lstrip('+')} four times in five."
    if outcome != "not told apart":
        return tells
    if seen == 0:
        return f"{tells} No difference was seen, so no sample can be named that would tell one."
    ways = []
    if math.isfinite(need.images):
        ways.append(f"{say.about(need.images)} images" + (" with as many annotators" if given.annotators else ""))
    if math.isfinite(need.annotators):
        ways.append(f"{say.about(need.annotators)} annotators on as many images")
    if not ways:
        return (
            f"{tells} If the true difference is the one seen, more images and more annotators would be needed together."
        )
    return f"{tells} If the true difference is the one seen ({say.points(seen).lstrip('+')}), it would take {', or '.join(ways)}."


def limits(given: Sample, people: str, truth: str, unlike: int) -> tuple[str, ...]:
    """What the comparison does not say: who the people are, where the truth comes from, what the intervals leave out."""
    told = []
    told.append(
        f"The people: {people}. Others may do better or worse."
        if people
        else "Nothing is known here about who the people are, how they were trained or paid: others may do better or worse."
    )
    told.append(
        f"The truth: {truth}."
        if truth
        else f"Right means as the labels of {given.votes.name} say; who made them, and from what, is not known here."
    )
    if unlike:
        told.append(
            f"For {say.counted(unlike, 'image')} most people name another class than the label: "
            "where the label is wrong, whoever sees rightly counts as wrong."
        )
    count = len(given.annotators)
    if not count:
        told.append(
            "Who gave which vote is not known: intervals are over images, each drawn with its votes, not over people, "
            "so they are too narrow for people in general; no person's own accuracy, and no test against a person, can be given."
        )
    elif count == 1:
        told.append("One annotator only: intervals are over images alone, and say nothing about other people.")
    elif count < _FEW:
        told.append(f"Only {count} annotators: the interval over people rests on very few.")
    return tuple(told)


def against_each(tests: Sequence[McNemar]) -> str:
    """How the network stands against each annotator."""
    better = sum(1 for test in tests if test.adjusted < _LEVEL and test.only_network > test.only_observer)
    worse = sum(1 for test in tests if test.adjusted < _LEVEL and test.only_network < test.only_observer)
    rest = len(tests) - better - worse
    people = say.counted(len(tests), "annotator")
    return (
        f"Of {people} it is better than {better}, worse than {worse} and not told apart from {rest} "
        "(exact McNemar tests on the images that each saw, Holm's correction for their number)."
    )


def contradicted(given: Sample) -> int:
    """Images where more than half of the votes go to one class that is not the label."""
    counts = given.votes.counts
    most = counts.argmax(1)
    return int(((counts.max(1) * 2 > counts.sum(1)) & (most != given.labels)).sum())


def from_people(given: Sample) -> tuple[str, ...]:
    """A note where the labels are the majority's answers on every image: they may be made of these votes."""
    counts = given.votes.counts
    clear = (counts == counts.max(1, keepdims=True)).sum(1) == 1
    if len(given) >= 20 and clear.any() and bool(np.all(counts.argmax(1)[clear] == given.labels[clear])):
        return (
            "the labels are the majority's answer on every image: if they were made of these votes, "
            "nothing follows from how often people are right",
        )
    return ()
