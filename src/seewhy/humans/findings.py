"""What an agreement says, in sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from seewhy.humans import say
from seewhy.humans.estimate import Estimate
from seewhy.humans.verdict import against_each

if TYPE_CHECKING:
    from seewhy.humans.agreement import Agreement


def findings(found: Agreement) -> tuple[str, ...]:
    """The verdict, each finding, the limits, and what was noted."""
    said = [
        found.verdict.headline,
        found.verdict.sample,
        _crowd(found),
        against_each(found.each) if len(found.each) > 1 else "",
        _balanced(found),
        _classes(found),
        _conditions(found),
        _consistency(found),
        _raters(found),
        _soft(found),
        _choices(found),
        _calibration(found),
        _together(found),
        _ceiling(found),
        _shape(found),
        *found.verdict.limits,
        *(f"Note: {note}." for note in found.notes),
    ]
    return tuple(sentence for sentence in said if sentence)


def _towards(difference: Estimate) -> str:
    """Better, worse or not told apart."""
    if difference.above(0):
        return "better than"
    return "worse than" if difference.below(0) else "not told apart from"


def _crowd(found: Agreement) -> str:
    majority = next(each for each in found.rates.observers if each.kind == "majority")
    test = found.majority
    if test is None:
        return ""
    ties = f"; {say.counted(found.rates.tied, 'image')} with a tied majority left out" if found.rates.tied else ""
    return (
        f"The majority of people is right on {say.shares(majority.accuracy)}; {found.model} is {_towards(test.difference)} it: "
        f"{say.difference(test.difference)}, only the network is right {test.only_network:,} times, only the majority "
        f"{test.only_observer:,} times, {say.p_value(test.p)} (exact McNemar test{ties})."
    )


def _balanced(found: Agreement) -> str:
    held = found.rates.balanced
    if not held.difference.known:
        return ""
    return (
        f"Balanced accuracy, each class weighing the same: {found.model} {say.shares(held.network)}, "
        f"the mean annotator {say.shares(held.people)}, {say.difference(held.difference)}."
    )


def _classes(found: Agreement) -> str:
    parts = [part for part in found.rates.classes if math.isfinite(part.adjusted)]
    better = [part.name for part in parts if part.adjusted < 0.05 and part.difference.value > 0]
    worse = [part.name for part in parts if part.adjusted < 0.05 and part.difference.value < 0]
    if len(parts) < 2:
        return ""
    rest = len(parts) - len(better) - len(worse)
    told = [f"{word} on {_some(names)}" for word, names in (("better", better), ("worse", worse)) if names]
    told += (
        [f"not told apart on {_some([part.name for part in parts]) if rest == len(parts) else rest} of {len(parts)}"]
        if rest and told
        else []
    )
    if not told:
        return f"By class the network is not told apart from the mean annotator on any of {len(parts)} (Holm's correction)."
    return f"By class, with Holm's correction for {len(parts)}, the network is {'; '.join(told)}."


def _conditions(found: Agreement) -> str:
    parts = found.rates.conditions
    if not parts:
        return ""
    told = [f"{part.name}: {say.difference(part.difference)}" for part in parts[:8]]
    more = f"; and {len(parts) - 8} more" if len(parts) > 8 else ""
    return f"Network less mean annotator by condition: {'; '.join(told)}{more}."


def _consistency(found: Agreement) -> str:
    held = found.consistency
    if not held.network.known:
        return ""
    if not held.people.known:
        return f"Error consistency κ of the network with people is {say.number(held.network)}."
    how = "pairs of annotators" if held.pairs else "two people drawn at random"
    verdict = (
        "its errors fall less where people's do than another person's"
        if held.difference.below(0)
        else "its errors fall more where people's do than another person's"
        if held.difference.above(0)
        else "whether its errors are as much like people's as another person's is not told"
    )
    return (
        f"Error consistency κ ({how}; 0: errors coincide as by chance, 1: always): people with people {say.number(held.people)}, "
        f"the network with people {say.number(held.network)}: {verdict} (difference {say.number(held.difference)})."
    )


def _raters(found: Agreement) -> str:
    held = found.raters
    if not held.agree.known:
        return ""
    return (
        f"Two people give an image the same answer in {say.shares(held.agree)}; beyond chance that is Fleiss' κ "
        f"{say.number(held.fleiss)} and Krippendorff's α {say.number(held.krippendorff)}."
    )


def _soft(found: Agreement) -> str:
    held = found.soft
    if held is None:
        return ""
    cross, brier = held.cross_entropy, held.brier
    return (
        f"Against the votes the network's cross-entropy is {say.number(cross.network, 3)} nats: {say.number(cross.floor, 3)} is "
        f"people's own disagreement (corrected for the finite number of votes), {say.number(cross.excess, 3)} the network's "
        f"distance from them (KL); an image's other votes predict one left out with {say.number(cross.people, 3)}. "
        f"Brier's score is {say.number(brier.network, 3)}, its floor {say.number(brier.floor, 3)}, and other votes reach "
        f"{say.number(brier.people, 3)}."
    )


def _choices(found: Agreement) -> str:
    held = found.soft
    if held is None:
        return ""
    told = []
    if held.first.known:
        told.append(
            f"The network's first choice is the people's on {say.shares(held.first)} of {say.counted(held.firsts, 'image')}"
        )
    if held.second.known:
        told.append(
            f"its second choice on {say.shares(held.second)} of the {held.seconds:,} where people have a clear second one"
        )
    if held.entropies.known:
        most = f" of at most {held.reach:.2f} that so many votes allow" if math.isfinite(held.reach) else ""
        told.append(f"the rank correlation of its entropy with theirs is {say.number(held.entropies)}{most}")
    return f"{'; '.join(told)}." if told else ""


def _calibration(found: Agreement) -> str:
    told = []
    for each in found.calibration[:2]:
        who = "the network's probability" if each.who == "network" else "the people's share of votes"
        sense = (
            "too high" if each.over.above(0) else "too low" if each.over.below(0) else "neither too high nor too low"
        )
        told.append(
            f"{who} has a calibration error of {say.number(each.width, 3)} (a perfectly calibrated one would show "
            f"{each.perfect:.3f}), and is {sense} in the mean: {say.difference(each.over)}"
        )
    return f"As a confidence in being right, {'; '.join(told)}." if told else ""


def _together(found: Agreement) -> str:
    held = found.coverage.together
    told = []
    if held.one.known:
        told.append(
            f"one person and the network combined are right on {say.shares(held.one)}, {say.difference(held.gain)} beside the "
            "better of the two alone"
        )
    told.append(
        f"the network with one person for the {100 * held.to_people:.0f}{say.NBSP}% that it is least sure of (a share chosen on "
        f"other images) on {say.shares(held.deferred)}"
    )
    told.append(f"the mean of its distribution and that of all votes on {say.shares(held.mean)}")
    return f"Together: {'; '.join(told)}."


def _ceiling(found: Agreement) -> str:
    held = found.ceiling
    if not held.images:
        return ""
    return (
        f"The network foretells a person's answer in {say.shares(held.network)}, the majority of the image's other votes in "
        f"{say.shares(held.others)}, and nothing can in more than about {say.percent(held.most.value)} (the noise ceiling)."
    )


def _shape(found: Agreement) -> str:
    held = found.shape
    if held is None:
        return ""
    return (
        f"Where shape and texture contradict each other ({say.counted(held.images, 'image')}), the network goes by shape in "
        f"{say.shares(held.network)} of its answers for either, people in {say.shares(held.people)}."
    )


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
