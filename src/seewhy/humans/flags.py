"""What is odd about votes: people who answer at chance or in no time, doubled answers, classes that nobody chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from seewhy.errors import DataError
from seewhy.humans import say
from seewhy.humans.answers import listed
from seewhy.humans.votes import Integers, Trials, Votes

#: below this many answers an annotator is not judged; above this chance of doing as well by guessing they are flagged
ANSWERS, CHANCE = 20, 0.05
#: nobody sees a picture, decides and answers in less (seconds); and this part of the others' time is odd
QUICKEST, PART = 0.2, 0.2


@final
@dataclass(frozen=True)
class Flag:
    """Something odd. `what` is a word for it, `annotators` whom it is about (nobody in particular: none)."""

    what: str
    sentence: str
    annotators: tuple[str, ...] = ()


def flagged(votes: Votes, labels: Sequence[int | None] | None = None) -> tuple[Flag, ...]:
    """Everything odd about votes. `labels` are the images' true categories; without them the votes' own are taken.

    *At chance*: of at least 20 answers to images of known class so few are right that somebody who gives the same answers in
    a random order would do as well in more than 5 % of cases (an exact one-sided binomial test against Σ over classes of the
    share of answers times the share of truths). *In no time*: half of the answers came in less than 0.2 s, or in less than a
    fifth of what is usual (the median of all annotators' medians). *Duplicates*: several answers of one annotator for one
    image in one session and condition. *One annotator*, *empty class* (never answered, though some images show it).
    """
    truth = labels if labels is not None else votes.labels
    known = np.array([-1 if label is None else label for label in truth or (None,) * len(votes)], dtype=np.int64)
    found: list[Flag] = []
    trials = votes.trials
    if trials is not None:
        found += _at_chance(trials, known, len(votes.classes))
        found += _in_no_time(trials)
        doubled = duplicates(trials)
        if doubled.any():
            names = [trials.annotators[who] for who in np.unique(trials.annotator[doubled])]
            found.append(
                Flag(
                    "duplicates",
                    "answers too many, of one annotator for the same image in the same session: "
                    f"{int(doubled.sum()):,}, by {listed(names)}",
                )
            )
        if len(np.unique(trials.annotator)) == 1:
            found.append(
                Flag(
                    "one annotator",
                    f'all answers are those of one annotator, "{trials.annotators[int(trials.annotator[0])]}": how well '
                    "people agree with each other cannot be told, nor how much people differ",
                )
            )
    empty = votes.counts.sum(0) == 0
    if empty.any():
        shown = np.bincount(known[known >= 0], minlength=len(votes.classes))[: len(votes.classes)] > 0
        for names, why in (
            (
                [name for name, is_it in zip(votes.classes, empty & shown, strict=True) if is_it],
                "though images show it",
            ),
            (
                [name for name, is_it in zip(votes.classes, empty & ~shown, strict=True) if is_it],
                "and no image shows it",
            ),
        ):
            if names:
                found.append(Flag("empty class", f"nobody ever answered {listed(names)}, {why}"))
    unseen = [
        name
        for index, name in enumerate(votes.classes)
        if not empty[index] and (known >= 0).any() and not (known == index).any()
    ]
    if unseen:
        found.append(
            Flag("empty class", f"no image shows {listed(unseen)}, which people answered: there is no recall of it")
        )
    return tuple(found)


def without(votes: Votes, flags: Sequence[Flag]) -> tuple[Votes, tuple[str, ...]]:
    """The votes without flagged annotators and second answers, and what was dropped in sentences.

    Raises `DataError` where nobody would be left.
    """
    trials = votes.trials
    if trials is None:
        return votes, ()
    said = []
    doubled = duplicates(trials) if any(flag.what == "duplicates" for flag in flags) else np.zeros(len(trials), bool)
    if doubled.any():
        said.append(f"{say.counted(int(doubled.sum()), 'second answer')} left out")
        votes = votes.of_trials(~doubled)
    odd = dict.fromkeys(name for flag in flags for name in flag.annotators)
    if odd:
        kept = [name for name in trials.annotators if name not in odd]
        if not kept:
            raise DataError(f"all {len(odd)} annotators of {votes.name} are flagged, so that nobody is left; keep them")
        answers = int(np.isin(trials.annotator, [trials.annotators.index(name) for name in odd]).sum())
        said.append(
            f"{say.counted(len(odd), 'annotator')} with {say.counted(answers, 'answer')} left out: {listed(list(odd))}"
        )
        votes = votes.of_annotators(kept)
    return votes, tuple(said)


def duplicates(trials: Trials) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether an answer (T,) is another one of the same annotator for the same image in the same session and condition."""
    key = trials.image * len(trials.annotators) + trials.annotator
    for held in (trials.session, trials.condition):
        if held is not None:
            key = key * (int(held.max(initial=0)) + 1) + held
    first = np.unique(key, return_index=True)[1]
    again = np.ones(len(trials), bool)
    again[first] = False
    return again


def _at_chance(trials: Trials, known: Integers, classes: int) -> list[Flag]:
    from scipy.special import betainc  # type: ignore[import-untyped]

    judged = (known[trials.image] >= 0) & (trials.answer >= 0)
    who, answer, truth = trials.annotator[judged], trials.answer[judged], known[trials.image[judged]]
    people = len(trials.annotators)
    answers, truths = np.zeros((people, classes)), np.zeros((people, classes))
    np.add.at(answers, (who, answer), 1)
    np.add.at(truths, (who, truth), 1)
    total = answers.sum(1)
    right = np.bincount(who, weights=answer == truth, minlength=people)
    chance = (answers * truths).sum(1) / np.maximum(total, 1) ** 2
    # P(X ≥ right) of a binomial X, by its incomplete beta function
    as_well = np.where(right > 0, betainc(np.maximum(right, 1), total - right + 1, chance), 1.0)
    odd = np.flatnonzero((total >= ANSWERS) & (as_well > CHANCE))
    if not len(odd):
        return []
    worst = odd[np.argsort(-as_well[odd], kind="stable")]
    shown = [
        f"{trials.annotators[one]} ({int(right[one])} of {int(total[one])} right, {chance[one] * total[one]:.1f} by chance)"
        for one in worst
    ]
    names = tuple(trials.annotators[one] for one in odd)
    return [Flag("at chance", f"{_who(names)} at chance: {listed(shown)}", names)]


def _in_no_time(trials: Trials) -> list[Flag]:
    if trials.seconds is None:
        return []
    timed = np.isfinite(trials.seconds)
    order = np.lexsort((trials.seconds[timed], trials.annotator[timed]))
    who, seconds = trials.annotator[timed][order], trials.seconds[timed][order]
    people, start, count = np.unique(who, return_index=True, return_counts=True)
    if not len(people):
        return []
    middle = (seconds[start + (count - 1) // 2] + seconds[start + count // 2]) / 2
    usual = float(np.median(middle))
    odd = np.flatnonzero((middle < QUICKEST) | (middle < PART * usual))
    if not len(odd):
        return []
    quickest = odd[np.argsort(middle[odd], kind="stable")]
    shown = [f"{trials.annotators[people[one]]} (half in less than {middle[one]:.2g} s)" for one in quickest]
    names = tuple(trials.annotators[people[one]] for one in odd)
    return [Flag("in no time", f"{_who(names)} in no time, where {usual:.2g} s are usual: {listed(shown)}", names)]


def _who(names: Sequence[str]) -> str:
    return f"{say.counted(len(names), 'annotator')} " + ("answer" if len(names) > 1 else "answers")
