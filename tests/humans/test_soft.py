"""Soft labels, calibration, abstaining and ceilings, against plain loops, exact expectations and SciPy."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from crowds import answers, counts, sure
from seewhy.humans import Votes
from seewhy.humans.calibration import BINS, calibration, equal_mass, equal_width
from seewhy.humans.ceiling import ceiling, left_out
from seewhy.humans.confusion import confusion
from seewhy.humans.coverage import coverage, surest, temperature
from seewhy.humans.resample import draw
from seewhy.humans.sample import Sample, sample
from seewhy.humans.shape_bias import cues, shape_bias
from seewhy.humans.soft import entropy, halved, soft, spearman

RANDOM = np.random.default_rng(0)


def made(votes: Votes, said: Any, rounds: int = 200) -> tuple[Sample, Any]:
    given = sample(votes, said, None)
    return given, draw(len(given), len(given.annotators), rounds, 0)


def crowd(images: int = 40, classes: int = 4, votes: int = 9, seed: int = 1) -> tuple[Votes, Any]:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=images)
    chances = random.dirichlet(np.ones(classes), images) * 0.5
    chances[np.arange(images), labels] += 0.5
    table = np.stack([random.multinomial(votes, each) for each in chances])
    said = random.dirichlet(np.ones(classes), images) * 0.6
    said[np.arange(images), labels] += 0.4
    return counts(table, labels), said


def test_scores_are_those_of_single_votes() -> None:
    votes, said = crowd()
    given, draws = made(votes, said)
    held = soft(given, draws, 0)
    assert held is not None
    logarithmic, square, floors, others = [], [], [], []
    for row, q in zip(votes.counts, said, strict=True):
        ballots = np.repeat(np.arange(4), row)
        total = len(ballots)
        logarithmic.append(fmean(-math.log(q[vote]) for vote in ballots))
        square.append(fmean(((q - np.eye(4)[vote]) ** 2).sum() for vote in ballots))
        floors.append(1 - sum(c * (c - 1) for c in row) / (total * (total - 1)))
        left = []
        for vote in ballots:
            rest = (row - np.eye(4)[vote]) / (total - 1)
            left.append(((rest - np.eye(4)[vote]) ** 2).sum())
        others.append(fmean(left))
    assert held.cross_entropy.network.value == pytest.approx(fmean(logarithmic))
    assert held.brier.network.value == pytest.approx(fmean(square))
    assert held.brier.floor.value == pytest.approx(fmean(floors))
    assert held.brier.excess.value == pytest.approx(fmean(square) - fmean(floors))
    assert held.brier.people.value == pytest.approx(fmean(others))
    assert held.unlike.value == pytest.approx(abs(said - votes.shares()).sum(1).mean() / 2)
    for score in (held.cross_entropy, held.brier):
        assert score.network.low < score.network.value < score.network.high


def test_the_floors_do_not_depend_on_how_many_votes_there_are() -> None:
    """Known distributions: cross-entropy, KL and Brier from 25 votes an image against those of the distributions themselves."""
    random = np.random.default_rng(4)
    true, said = random.dirichlet(np.ones(4), 3000), random.dirichlet(np.ones(4), 3000)
    votes = counts(np.stack([random.multinomial(25, each) for each in true]), [0] * 3000)
    given, draws = made(votes, said)
    held = soft(given, draws, 0)
    assert held is not None
    cross, own = -(true * np.log(said)).sum(1).mean(), -(true * np.log(true)).sum(1).mean()
    assert held.cross_entropy.network.value == pytest.approx(cross, abs=0.02)
    assert held.cross_entropy.floor.value == pytest.approx(own, abs=0.015)  # rare classes are still missed
    assert held.cross_entropy.excess.value == pytest.approx(cross - own, abs=0.02)
    assert held.brier.excess.value == pytest.approx(((true - said) ** 2).sum(1).mean(), abs=0.01)
    shares = votes.shares()
    plain = -(shares * np.log(np.maximum(shares, 1e-300))).sum(1).mean()
    assert own - plain > 4 * abs(own - held.cross_entropy.floor.value)  # the plain entropy is too small


@pytest.mark.parametrize("total", [2, 5, 9])
def test_the_entropy_of_votes_has_its_known_expectation(total: int) -> None:
    chance = 0.3
    outcomes = [(k, math.comb(total, k) * chance**k * (1 - chance) ** (total - k)) for k in range(total + 1)]
    mean = sum(weight * float(entropy(np.array([[k, total - k]]))[0]) for k, weight in outcomes)
    series = sum((chance * (1 - chance) ** order + (1 - chance) * chance**order) / order for order in range(1, total))
    assert mean == pytest.approx(series)  # Σ_m Σ_k p (1 − p)^m / m up to m = n − 1: entropy is the sum to infinity


def test_choices_are_compared_where_peoples_are_untied() -> None:
    table = [[5, 3, 1], [5, 2, 2], [4, 4, 1], [6, 0, 3], [9, 0, 0]]
    said = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.4, 0.5, 0.1], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1]])
    given, draws = made(counts(table, [0] * 5), said)
    held = soft(given, draws, 0)
    assert held is not None
    assert (held.firsts, held.seconds) == (4, 2)
    assert held.first.value == pytest.approx(3 / 4)
    assert held.second.value == pytest.approx(1 / 2)


def test_rank_correlation_counts_repeated_images() -> None:
    one, other = RANDOM.random(30).round(1), RANDOM.random(30).round(1)
    weights = draw(30, 0, 100, 0).images
    found = spearman(one, other, weights)
    for row in range(0, 100, 17):
        expected = stats.spearmanr(np.repeat(one, weights[row]), np.repeat(other, weights[row])).statistic
        assert found[row] == pytest.approx(expected, abs=1e-5)
    assert math.isnan(spearman(np.ones(5), np.arange(5.0), np.ones((1, 5)))[0])


def test_halves_are_halves() -> None:
    table = RANDOM.integers(0, 12, (200, 5))
    half = halved(table, np.random.default_rng(3))
    assert (half.sum(1) == table.sum(1) // 2).all()
    assert (half <= table).all()
    assert (half >= 0).all()
    assert half.sum(0) / table.sum(0) == pytest.approx(0.5, abs=0.05)


def test_few_votes_leave_images_out_or_everything() -> None:
    given, draws = made(counts([[1, 0], [3, 1], [0, 2], [2, 2]], [0, 0, 1, 1]), sure([0, 0, 1, 1], 2))
    held = soft(given, draws, 0)
    assert held is not None
    assert held.images == 3
    assert "fewer than two votes" in held.notes[0]
    given, draws = made(counts([[1, 0]] * 4, [0] * 4), sure([0] * 4, 2))
    assert soft(given, draws, 0) is None


def test_calibration_error_is_that_of_a_plain_loop() -> None:
    votes, said = crowd(images=150)
    given, draws = made(votes, said)
    held = {each.who: each for each in calibration(given, draws, 0)}
    labels = np.array(votes.labels)
    top, right = said.max(1), (said.argmax(1) == labels).astype(float)
    expected = 0.0
    for low in range(BINS):
        inside = (top > low / BINS) & (top <= (low + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    network = held["network"]
    assert network.width.value == pytest.approx(expected)
    assert sum(each.images for each in network.bins) == 150 == sum(each.images for each in network.equal)
    assert network.over.value == pytest.approx((top - right).mean())
    assert held["people"].over.value == pytest.approx(
        (votes.shares().max(1) - majority_right(votes.counts, labels)).mean()
    )
    said_by = votes.shares()[np.arange(150), said.argmax(1)]
    assert held["network as people"].over.value == pytest.approx((top - said_by).mean())
    assert max(each.images for each in network.equal) - min(each.images for each in network.equal) <= 1


def majority_right(table: Any, labels: Any) -> Any:
    best = table == table.max(1, keepdims=True)
    return best[np.arange(len(labels)), labels] / best.sum(1)


def test_the_calibration_error_of_a_calibrated_network_is_near_what_it_should_show() -> None:
    random = np.random.default_rng(9)
    top = random.uniform(0.5, 1, 2000)
    labels = (random.random(2000) > top).astype(int)
    given, draws = made(counts([[3, 1]] * 2000, labels), np.stack([top, 1 - top], 1), 400)
    found = calibration(given, draws, 0)[0]
    assert found.width.value == pytest.approx(found.perfect, abs=0.012)
    assert found.width.low == 0.0
    assert found.over.low < 0 < found.over.high


def test_bins() -> None:
    assert equal_width(np.array([0.0, 0.2, 0.21, 1.0]), 5)[0].tolist() == [0, 0, 1, 4]
    bins, edges = equal_mass(np.array([1.0, 1.0, 1.0, 0.5]), 3)
    assert bins.tolist() == [1, 1, 1, 0] or len(set(bins.tolist())) == 1  # equal confidences stay together
    assert edges[0] == 0.5
    assert edges[-1] == 1
    assert equal_mass(np.full(5, 0.7))[0].tolist() == [0] * 5


def test_accuracy_over_coverage_is_that_of_the_surest() -> None:
    votes, said = crowd(images=40)
    given, draws = made(votes, said)
    held = coverage(given, draws, 0)
    labels = np.array(votes.labels)
    order = np.argsort(-said.max(1))
    right = (said.argmax(1) == labels)[order]
    network = held.abstain[0]
    for at, each in zip(network.coverage, network.accuracy, strict=True):
        assert each.value == pytest.approx(right[: round(at * 40)].mean())
    shares = (votes.counts[np.arange(40), labels] / 9)[order]
    then_person = held.deferred[0]
    for at, each in zip(then_person.coverage, then_person.accuracy, strict=True):
        kept = round(at * 40)
        assert each.value == pytest.approx((right[:kept].sum() + shares[kept:].sum()) / 40)
    both = ((said + votes.shares()) / 2).argmax(1) == labels
    assert held.together.mean.value == pytest.approx(both.mean())


def test_equally_sure_images_are_kept_in_equal_parts() -> None:
    kept = surest(np.array([0.9, 0.5, 0.5, 0.1]), np.array([0.25, 0.5, 1.0]))
    assert kept.tolist() == [[1, 1, 1], [0, 0.5, 1], [0, 0.5, 1], [0, 0, 1]]


def test_a_person_and_the_network_together_beat_both_where_their_errors_differ() -> None:
    random = np.random.default_rng(2)
    images, classes = 2000, 4
    labels = random.integers(classes, size=images)
    table = np.where(random.random((3, images)) < 0.8, labels, random.integers(classes, size=(3, images)))
    top = random.uniform(0.4, 1, images)
    hit = random.random(images) < top
    said = sure(np.where(hit, labels, (labels + 1) % classes), classes)
    said = said * 0 + ((1 - top) / (classes - 1))[:, None]
    said[np.arange(images), np.where(hit, labels, (labels + 1) % classes)] = top
    given, draws = made(answers(table, labels, classes), said)
    held = coverage(given, draws, 0).together
    # the network is to be followed against a person where p > 17 / 20, as the person's odds of being right are 17 to 1 a class:
    # a quarter of the images, with p = 0.925 in the mean
    assert held.gain.value == pytest.approx(0.25 * (0.15 * 0.925 - 0.85 * 0.075), abs=0.008)
    assert held.gain.low > 0
    assert held.deferred.value > max(given.hits.mean(), given.shares.mean())


def test_the_temperature_that_was_put_in_comes_out() -> None:
    random = np.random.default_rng(3)
    true = random.dirichlet(np.ones(5), 4000)
    labels = (true.cumsum(1) > random.random((4000, 1))).argmax(1)
    assert temperature(np.log(true) * 2.0, labels) == pytest.approx(2.0, rel=0.1)


def test_the_ceiling_is_what_the_other_votes_foretell() -> None:
    votes, said = crowd(votes=5)
    given, draws = made(votes, said)
    held = ceiling(given, draws, 0)
    foretold = []
    for row in votes.counts:
        ballots = np.repeat(np.arange(4), row)
        points = []
        for vote in ballots:
            rest = row - np.eye(4, dtype=int)[vote]
            best = rest == rest.max()
            points.append(best[vote] / best.sum())
        foretold.append(fmean(points))
    assert left_out(votes.counts) == pytest.approx(foretold)
    assert held.others.value == pytest.approx(fmean(foretold))
    shares = votes.shares()
    assert held.network.value == pytest.approx(shares[np.arange(40), said.argmax(1)].mean())
    assert held.most.value == pytest.approx(shares.max(1).mean())
    assert held.others.value <= held.most.value


def test_confusions_share_out_votes() -> None:
    given, _ = made(counts([[3, 1], [2, 2], [0, 4]], [0, 0, 1]), sure([0, 1, 1], 2))
    held = confusion(given)
    assert held.people.tolist() == [[0.625, 0.375], [0, 1]]
    assert held.network.tolist() == [[0.5, 0.5], [0, 1]]
    assert held.most_different() == [("a", "b", 0.5, 0.375)]


def test_shape_bias_by_names() -> None:
    names = ("cat1-dog2.png", "dog3-cat1.png", "cat2-cat3.png", "dog1-cat9.png")
    assert cues(names, ("cat", "dog", "owl")).tolist() == [[0, 1], [1, 0], [-1, -1], [1, 0]]  # type: ignore[union-attr]
    assert cues(("cat.png", *names), ("cat", "dog")) is None
    table = np.array([[3, 1, 0], [1, 2, 1], [4, 0, 0], [0, 0, 4]])
    votes = Votes("cue conflict", names, ("cat", "dog", "owl"), table, (0, 1, 0, 1))
    given, draws = made(votes, sure([1, 1, 0, 2], 3))
    held = shape_bias(given, draws)
    assert held is not None
    assert held.images == 3
    assert held.network.value == pytest.approx(1 / 2)  # one by texture, one by shape, one by neither
    assert held.people.value == pytest.approx((3 + 2) / (3 + 1 + 2 + 1))
    assert held.decided == pytest.approx((2 / 3, (1 + 3 / 4) / 3))
