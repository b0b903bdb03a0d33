"""Error consistency and agreement among people, against plain loops, statsmodels, krippendorff and published values."""

from __future__ import annotations

import csv
import math
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from crowds import answers, counts, sure
from seewhy.humans import Trials, Votes, agreement
from seewhy.humans.kappa import Consistency, consistency, kappa, raters
from seewhy.humans.resample import draw
from seewhy.humans.sample import sample
from seewhy.humans.votes import counted


def by_hand(one: Any, other: Any) -> float:
    """κ of two lists of right and wrong, as the paper writes it."""
    total = len(one)
    first, second = sum(one) / total, sum(other) / total
    expected = first * second + (1 - first) * (1 - second)
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / total
    return (observed - expected) / (1 - expected)


def found(votes: Votes, said: Any, rounds: int = 200) -> Consistency:
    given = sample(votes, said, None)
    return consistency(given, draw(len(given), len(given.annotators), rounds, 0), 0)


def test_kappa_by_hand() -> None:
    one, other = [1, 1, 1, 0, 0, 1, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1, 0, 1, 1, 0]
    # 7 and 6 of 10 right; 5 together, 2 neither: c_obs 0.7, c_exp 0.54
    assert by_hand(one, other) == pytest.approx((0.7 - 0.54) / 0.46)
    assert float(kappa(np.array(0.7), np.array(0.6), np.array(0.5))) == pytest.approx((0.7 - 0.54) / 0.46)
    assert math.isnan(float(kappa(np.array(1.0), np.array(1.0), np.array(1.0))))
    assert float(kappa(np.array(0.5), np.array(0.5), np.array(0.0))) == -1


def test_pairs_are_those_of_a_plain_loop_also_with_gaps() -> None:
    random = np.random.default_rng(0)
    people, images, classes = 6, 60, 3
    labels = random.integers(classes, size=images)
    table = np.where(random.random((people, images)) < 0.6, labels, random.integers(-1, classes, (people, images)))
    table[random.random((people, images)) < 0.15] = -2
    said = np.where(random.random(images) < 0.7, labels, (labels + 1) % classes)
    held = found(answers(table, labels, classes), sure(said, classes))
    seen, right = table > -2, table == labels
    pairs = []
    for one, other in combinations(range(people), 2):
        both = seen[one] & seen[other]
        pairs.append(by_hand(right[one][both], right[other][both]))
    each = [by_hand((said == labels)[seen[who]], right[who][seen[who]]) for who in range(people)]
    assert held.pairs == 15
    assert held.people.value == pytest.approx(fmean(pairs))
    assert held.each == pytest.approx(each)
    assert held.network.value == pytest.approx(fmean(each))
    assert held.difference.value == pytest.approx(fmean(each) - fmean(pairs))
    assert held.people.low < held.people.value < held.people.high


def test_kappa_is_averaged_over_conditions() -> None:
    random = np.random.default_rng(1)
    labels = np.zeros(80, dtype=int)
    easy = np.arange(80) < 40
    table = (random.random((4, 80)) > np.where(easy, 0.95, 0.4)).astype(int)
    said = (random.random(80) > np.where(easy, 0.9, 0.3)).astype(int)
    held = found(answers(table, labels, 2, ["easy" if each else "hard" for each in easy]), sure(said, 2))
    expected = [
        fmean(by_hand(table[one][part] == 0, table[other][part] == 0) for one, other in combinations(range(4), 2))
        for part in (easy, ~easy)
    ]
    assert held.people.value == pytest.approx(fmean(expected))
    whole = fmean(by_hand(table[one] == 0, table[other] == 0) for one, other in combinations(range(4), 2))
    assert held.people.value < whole  # difficulty alone makes errors coincide
    assert any("mean over the conditions" in note for note in held.notes)


def test_pooled_kappa_is_that_of_two_drawn_at_random() -> None:
    table = np.array([[4, 1], [2, 2], [0, 3], [5, 0], [1, 0]])
    hits = np.array([1, 1, 0, 1, 0])
    held = found(counts(table, [0] * 5), sure(1 - hits, 2))
    alike, right = [], []
    for row in table:
        votes = [1] * row[0] + [0] * row[1]
        pairs = list(combinations(votes, 2))
        if pairs:
            alike.append(fmean(a == b for a, b in pairs))
            right.append(fmean(votes))
    one = fmean(right)
    expected = one**2 + (1 - one) ** 2
    assert held.people.value == pytest.approx((fmean(alike) - expected) / (1 - expected))
    shares = table[:, 0] / table.sum(1)
    both = float((hits * shares).mean())
    assert held.network.value == pytest.approx(float(kappa(hits.mean(), shares.mean(), np.array(both))))
    assert held.pairs == 0
    assert held.each == ()


def test_leaving_people_out_is_leaving_them_out() -> None:
    """The pooled κ's jackknife against the same statistic of votes from which an annotator was really taken."""
    random = np.random.default_rng(3)
    table = np.where(random.random((12, 30)) < 0.7, 0, 1)
    table[random.random((12, 30)) < 0.6] = -2
    votes, said = answers(table, [0] * 30, 2), sure((random.random(30) > 0.7).astype(int), 2)
    assert found(votes, said).pairs == 0

    def plain(of: Votes) -> float:
        kept = np.flatnonzero(of.counts.sum(1))
        bare = Votes("bare", tuple(of.images[k] for k in kept), of.classes, of.counts[kept], (0,) * len(kept))
        return found(bare, said[kept]).people.value

    values = [
        plain(votes.of_annotators([name for name in votes.annotators if name != out])) for out in votes.annotators
    ]
    jackknife = 11 / 12 * ((np.array(values) - fmean(values)) ** 2).sum()
    given = sample(votes, said, None)
    from seewhy.humans.kappa import _pooled

    spread = _pooled(given, draw(30, 12, 8000, 0)).moved.spread()
    assert spread.of_people[0] == pytest.approx(jackknife, rel=0.05)


def test_one_annotator_has_no_kappa_with_people() -> None:
    table = np.array([[0, 0, 1, 0, 1] * 10])
    held = found(answers(table, [0] * 50, 2), sure([0, 1, 1, 0, 0] * 10, 2))
    assert not held.people.known
    assert not held.difference.known
    assert held.network.value == pytest.approx(by_hand(table[0] == 0, np.array([1, 0, 0, 1, 1] * 10) == 1))
    assert any("one annotator only" in note for note in held.notes)


def test_kappa_is_not_defined_where_nobody_errs() -> None:
    for votes in (answers(np.zeros((4, 30), dtype=int), [0] * 30, 2), counts([[5, 0]] * 30, [0] * 30)):
        held = found(votes, sure([0] * 30, 2))
        assert not held.people.known
        assert not held.network.known
        assert any("nobody is ever wrong" in note for note in held.notes)


def test_many_people_are_paired_by_lot() -> None:
    random = np.random.default_rng(4)
    table = (random.random((210, 25)) > 0.7).astype(int)
    votes, said = answers(table, [0] * 25, 2), sure([0, 1] * 12 + [0], 2)
    held = found(votes, said, 100)
    assert held.pairs == 20_000
    assert any("drawn by lot" in note for note in held.notes)
    right = (table == 0).astype(float)
    rates, both = right.mean(1), right @ right.T / 25
    every = kappa(rates[:, None], rates[None], both)[np.triu_indices(210, 1)]
    assert held.people.value == pytest.approx(float(np.nanmean(every)), abs=0.005)


def test_fleiss_is_that_of_statsmodels() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="needs statsmodels")
    random = np.random.default_rng(5)
    table = random.multinomial(9, [0.6, 0.3, 0.1], 40)
    assert raters(table, draw(40, 0, 100, 0)).fleiss.value == pytest.approx(inter_rater.fleiss_kappa(table))


def test_alpha_is_that_of_krippendorff() -> None:
    peer = pytest.importorskip("krippendorff", reason="needs krippendorff")
    table = np.random.default_rng(6).poisson([3, 1.0, 0.4], (50, 3))
    table[0] = 0  # nobody answered
    table[1] = (1, 0, 0)  # one only: nobody to agree with
    expected = peer.alpha(value_counts=table[table.sum(1) > 0], level_of_measurement="nominal")
    held = raters(table, draw(50, 0, 200, 0))
    assert held.krippendorff.value == pytest.approx(expected)
    assert held.images == int((table.sum(1) > 1).sum())
    assert held.krippendorff.low < expected < held.krippendorff.high


def test_agreement_is_not_defined_where_all_say_the_same_or_nobody_is_asked_twice() -> None:
    same = raters(np.array([[5, 0]] * 20), draw(20, 0, 100, 0))
    assert same.agree.value == 1
    assert not same.fleiss.known
    assert not same.krippendorff.known
    once = raters(np.array([[1, 0]] * 20), draw(20, 0, 100, 0))
    assert once.images == 0
    assert not once.agree.known


def edges(shared: Path) -> tuple[Votes, dict[str, dict[str, int]]]:
    """The ten people's answers to edge drawings, read here by plain Python, and whether each was right."""
    rows = []
    for path in sorted((shared / "shapes" / "human-responses").glob("*.csv")):
        with path.open() as file:
            rows += list(csv.DictReader(file))
    names = sorted({row["imagename"].rpartition("_")[2] for row in rows})
    classes, people = sorted({row["category"] for row in rows}), sorted({row["subj"] for row in rows})
    labels = {row["imagename"].rpartition("_")[2]: classes.index(row["category"]) for row in rows}
    trials = Trials(
        np.array([names.index(row["imagename"].rpartition("_")[2]) for row in rows]),
        np.array([people.index(row["subj"]) for row in rows]),
        np.array([classes.index(row["object_response"]) if row["object_response"] in classes else -1 for row in rows]),
        tuple(people),
    )
    votes = Votes(
        "edges",
        tuple(names),
        tuple(classes),
        counted(trials, len(names), len(classes)),
        tuple(labels[name] for name in names),
        trials,
    )
    right: dict[str, dict[str, int]] = {}
    for row in rows:
        image = row["imagename"].rpartition("_")[2]
        right.setdefault(row["subj"], {})[image] = int(row["object_response"] == row["category"])
    return votes, right


def test_the_ten_people_of_the_edge_drawings(shared: Path) -> None:
    votes, right = edges(shared)
    said = sure([(label or 0) if place % 3 else 0 for place, label in enumerate(votes.labels or ())], 16)
    held = agreement(votes, said, model="net")
    people = {each.name: each for each in held.rates.observers if each.kind == "annotator"}
    for name, by_image in right.items():
        assert people[name].accuracy.value == pytest.approx(fmean(by_image.values()))
        assert people[name].images == 160
    pairs = [
        by_hand([one[image] for image in votes.images], [other[image] for image in votes.images])
        for one, other in combinations(right.values(), 2)
    ]
    assert held.consistency.pairs == 45
    assert held.consistency.people.value == pytest.approx(fmean(pairs))
    assert round(held.consistency.people.value, 3) == 0.318  # as published for these drawings
    mine = [int(each.argmax() == label) for each, label in zip(said, votes.labels or (), strict=True)]
    for name, value in zip(votes.annotators, held.consistency.each, strict=True):
        assert value == pytest.approx(by_hand(mine, [right[name][image] for image in votes.images]))
    assert held.rates.main.people.value == pytest.approx(fmean(fmean(each.values()) for each in right.values()))
    assert any("34 of 1,600 times nobody answered" in note for note in held.notes)
