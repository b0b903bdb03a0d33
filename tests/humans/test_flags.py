"""Odd annotators are found, the others are not, and nothing is dropped unasked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy.errors import DataError
from seewhy.humans import Trials, Votes
from seewhy.humans.flags import duplicates, flagged, without
from seewhy.humans.load import load
from seewhy.humans.votes import counted


def simulated(skills: list[float], images: int = 60, classes: int = 3, seed: int = 0) -> Votes:
    """Everybody sees every image; with the chance `skill` they know it, else they guess."""
    drawn = np.random.default_rng(seed)
    truth = drawn.integers(0, classes, images)
    answers = [np.where(drawn.random(images) < skill, truth, drawn.integers(0, classes, images)) for skill in skills]
    trials = Trials(
        np.tile(np.arange(images), len(skills)),
        np.repeat(np.arange(len(skills)), images),
        np.concatenate(answers),
        tuple(f"p{index}" for index in range(len(skills))),
        seconds=np.full(images * len(skills), 1.0),
    )
    return of(trials, images, classes, truth)


def of(trials: Trials, images: int, classes: int, truth: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> Votes:
    return Votes(
        "made",
        tuple(f"i{index}" for index in range(images)),
        tuple(f"c{index}" for index in range(classes)),
        counted(trials, images, classes),
        None if truth is None else tuple(truth.tolist()),
        trials,
    )


def whats(votes: Votes) -> dict[str, tuple[str, ...]]:
    return {flag.what: flag.annotators for flag in flagged(votes)}


def test_who_answers_at_chance_is_flagged_and_kept() -> None:
    votes = simulated([0.9, 0.8, 0.0, 0.6])
    (flag,) = flagged(votes)
    assert (flag.what, flag.annotators) == ("at chance", ("p2",))
    assert flag.sentence.startswith("1 annotator answers at chance: p2 (")
    assert votes.annotators == ("p0", "p1", "p2", "p3")
    kept, said = without(votes, [flag])
    assert kept.annotators == ("p0", "p1", "p3")
    assert int(kept.counts.sum()) == 180
    assert said == ("1 annotator with 60 answers left out: p2",)
    with pytest.raises(DataError, match="all 1 annotators of made are flagged"):
        without(votes.of_annotators(["p2"]), flagged(votes.of_annotators(["p2"])))


def test_guessers_are_found_and_the_able_are_not() -> None:
    votes = simulated([0.0] * 200 + [0.5] * 200, images=80)
    odd = whats(votes)["at chance"]
    guessers = sum(int(name[1:]) < 200 for name in odd)
    assert guessers >= 180  # of 200 guessers one in twenty does better by chance
    assert len(odd) == guessers


def test_always_the_same_answer_is_chance_however_often_it_is_right() -> None:
    truth = np.array([0] * 80 + [1] * 20)
    trials = Trials(np.arange(100), np.zeros(100, int), np.zeros(100, int), ("ann",))
    assert whats(of(trials, 100, 2, truth))["at chance"] == ("ann",)
    able = Trials(np.arange(100), np.zeros(100, int), truth, ("ann",))
    assert "at chance" not in whats(of(able, 100, 2, truth))
    few = Trials(np.arange(10), np.zeros(10, int), np.zeros(10, int), ("ann",))
    assert "at chance" not in whats(of(few, 100, 2, truth))  # ten answers judge nobody


def test_who_answers_in_no_time_is_flagged() -> None:
    votes = simulated([0.9] * 4)
    assert votes.trials is not None
    assert votes.trials.seconds is not None
    assert flagged(votes) == ()
    votes.trials.seconds[:60] = 0.1  # p0, below what eyes and hands can do
    votes.trials.seconds[60:100] = np.nan
    assert whats(votes)["in no time"] == ("p0",)
    votes.trials.seconds[:] = 30.0
    votes.trials.seconds[180:] = 3.0  # p3, a tenth of what is usual
    assert whats(votes)["in no time"] == ("p3",)


def test_second_answers_are_found_in_their_session_only() -> None:
    trials = Trials(
        np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), np.array([0, 1, 0, 1]), ("ann",), session=np.array([0, 0, 1, 0])
    )
    assert duplicates(trials).tolist() == [False, True, False, False]
    votes = of(trials, 2, 2, np.array([0, 1]))
    found = {flag.what: flag.sentence for flag in flagged(votes)}
    assert found["duplicates"] == (
        "answers too many, of one annotator for the same image in the same session: 1, by ann"
    )
    assert 'all answers are those of one annotator, "ann"' in found["one annotator"]
    kept, said = without(votes, flagged(votes))
    assert kept.counts.tolist() == [[2, 0], [0, 1]]
    assert said == ("1 second answer left out",)


def test_empty_classes_are_told_apart() -> None:
    votes = Votes("v", ("a", "b"), ("cat", "dog", "fox", "owl"), np.array([[2, 0, 0, 1], [1, 0, 0, 1]]), (0, 1))
    assert [flag.sentence for flag in flagged(votes)] == [
        "nobody ever answered dog, though images show it",
        "nobody ever answered fox, and no image shows it",
        "no image shows owl, which people answered: there is no recall of it",
    ]


def test_the_real_workers(shared: Path) -> None:
    assert flagged(load(shared / "shapes" / "human-responses")) == ()
    votes = load(shared / "humans" / "cifar10n.npz")
    (flag,) = flagged(votes)
    assert (flag.what, flag.annotators) == ("in no time", ("177",))
