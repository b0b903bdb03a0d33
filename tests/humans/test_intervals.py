"""Intervals and tests against closed forms, statsmodels, SciPy and simulated people whose accuracies are known."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from crowds import Array, World, answers, counts, sure
from seewhy.errors import InputError
from seewhy.humans import Votes, agreement
from seewhy.humans.accuracy import Rates, majority, rates
from seewhy.humans.estimate import Estimate, combined, doubt, quantile, share
from seewhy.humans.kappa import Consistency, consistency
from seewhy.humans.paired import holm, mcnemar, needed
from seewhy.humans.resample import Draws, Replicates, alone, correlation, draw, numbers
from seewhy.humans.sample import sample
from seewhy.intervals import wilson_mean

proportion = pytest.importorskip("statsmodels.stats.proportion", reason="needs statsmodels, a peer in the tests")


@pytest.mark.parametrize(("count", "total"), [(0, 7), (3, 7), (7, 7), (812, 1000)])
def test_a_share_has_wilsons_interval(count: int, total: int) -> None:
    found = share(count / total, total)
    assert (found.low, found.high) == pytest.approx(
        proportion.proportion_confint(count, total, method="wilson"), abs=1e-9
    )


def test_a_clustered_share_counts_as_its_effective_sample() -> None:
    plain, clustered = share(0.8, 100), share(0.8, 100, error=math.sqrt(0.8 * 0.2 / 25), freedom=9)
    assert (plain.low, plain.high) == pytest.approx(proportion.proportion_confint(80, 100, method="wilson"))
    t = stats.t.ppf(0.975, 9)
    alpha = 2 * stats.norm.sf(t)
    assert (clustered.low, clustered.high) == pytest.approx(
        proportion.proportion_confint(20, 25, method="wilson", alpha=alpha), abs=1e-9
    )


@pytest.mark.parametrize(("first", "second"), [((56, 70), (48, 80)), ((10, 10), (0, 20)), ((9, 10), (3, 10))])
def test_a_difference_of_independent_shares_has_newcombes_interval(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    found = combined([share(a / n, n) for a, n in (first, second)], [1, -1])
    expected = proportion.confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_a_mean_of_shares_has_the_same_interval_on_a_card_and_in_a_comparison() -> None:
    counts, totals = (3, 40, 12), (12, 44, 16)
    found = combined([share(count / total, total) for count, total in zip(counts, totals, strict=True)], [1 / 3] * 3)
    assert wilson_mean(counts, totals) == pytest.approx((found.low, found.high), abs=1e-12)


def test_a_paired_difference_has_newcombes_interval() -> None:
    # Newcombe 1998, Statistics in Medicine 17:2635, table II, method 8: 36, 12, 2, 0 of 50
    both, one, other, none = 36, 12, 2, 0
    total = both + one + other + none
    phi = (both * none - one * other) / math.sqrt((both + one) * (other + none) * (both + other) * (one + none))
    found = combined(
        [share((both + one) / total, total), share((both + other) / total, total)],
        [1, -1],
        np.array([[1, phi], [phi, 1]]),
    )
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


def test_the_p_value_is_where_the_interval_ends() -> None:
    def interval(confidence: float) -> Estimate:
        return combined([share(0.62, 90, confidence=confidence), share(0.5, 80, confidence=confidence)], [1, -1])

    p = doubt(interval)
    reached = interval(1 - p)
    assert min(abs(reached.low), abs(reached.high)) < 1e-9
    assert (p < 0.05) == (interval(0.95).low > 0)


@pytest.mark.parametrize(("one", "other"), [(0, 0), (1, 0), (3, 12), (12, 3), (7, 7), (40, 90)])
def test_mcnemar_is_the_exact_binomial_test(one: int, other: int) -> None:
    expected = stats.binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected)


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    values = [0.04, 0.001, 0.2, 0.03, 0.03, 0.9]
    assert holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1])
    assert holm([math.nan, 0.03, 0.02])[1:] == [0.04, 0.04]
    assert math.isnan(holm([math.nan])[0])


def test_students_quantile() -> None:
    assert quantile(0.95, 9) == pytest.approx(stats.t.ppf(0.975, 9))
    assert quantile() == pytest.approx(stats.norm.ppf(0.975))


def test_draws_are_as_many_as_there_are_and_the_same_for_a_seed() -> None:
    first, again, other = draw(50, 7, 300, 3), draw(50, 7, 300, 3), draw(50, 7, 300, 4)
    assert (first.images.sum(1) == 50).all()
    assert (first.annotators.sum(1) == 7).all()
    assert (first.images == again.images).all()
    assert (first.annotators == again.annotators).all()
    assert (first.images != other.images).any()
    assert first.images.var() == pytest.approx(1 - 1 / 50, abs=0.03)  # a multinomial count's variance
    columns = np.random.default_rng(0).random((50, 3))
    assert first.sums(columns) == pytest.approx(first.images.astype(float) @ columns, abs=1e-4)
    with pytest.raises(InputError, match="at least 100 rounds"):
        draw(5, 0, 10, 0)


def test_the_bootstraps_error_is_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(1).random(200)
    draws = draw(200, 0, 4000, 0)
    spread = alone(draws.sums(values[:, None]) / 200 - values.mean(), 200).spread()
    assert spread.error[0] == pytest.approx(values.std(ddof=1) / math.sqrt(200), rel=0.03)
    assert spread.freedom[0] == pytest.approx(199)
    found = spread.estimate(float(values.mean()))
    half = stats.t.ppf(0.975, 199) * values.std(ddof=1) / math.sqrt(200)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert spread.estimate(0.5, reflected=True).low == pytest.approx(0.5 - (found.high - values.mean()))


def test_the_variance_over_images_and_people_is_that_of_the_two_way_table() -> None:
    """Mean squares of a crossed table without repetition: their combination is the unbiased variance of the mean."""
    random = np.random.default_rng(5)
    people, images = 12, 150
    right = random.random((people, images)) < np.clip(
        0.7 + random.normal(0, 0.1, (people, 1)) + random.normal(0, 0.15, images), 0, 1
    )
    votes = answers(np.where(right, 0, 1), [0] * images, 2)
    given = sample(votes, sure([0] * images, 2), None)
    moved = given.moved(draw(images, people, 6000, 0), np.ones((images, 1)))
    table = right.astype(float)
    rows, columns = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    of_people = images * rows.var(ddof=1)
    of_images = people * columns.var(ddof=1)
    of_answers = ((table - rows - columns + table.mean()) ** 2).sum() / ((people - 1) * (images - 1))
    expected = (of_people + of_images - of_answers) / (people * images)
    assert moved.spread().error[0] ** 2 == pytest.approx(expected, rel=0.06)
    assert moved.answers[0] == pytest.approx(
        of_answers / (people * images), rel=0.1
    )  # more: it holds people's part once


def test_rounds_in_which_something_is_not_defined_are_left_out() -> None:
    held = np.array([[0.1], [math.nan], [-0.1], [0.2]])
    assert alone(held, 30).spread().error[0] > 0
    assert correlation(held, -held)[0] == pytest.approx(-1)
    lost = np.full((4, 1), math.nan)
    found = Replicates(lost, np.zeros((4, 1)), np.zeros(1), 30, 0).spread().estimate(0.5)
    assert found.value == 0.5
    assert math.isnan(found.low)


def test_the_majority_shares_its_point_when_tied() -> None:
    held, tied = majority(np.array([[4, 1, 0], [2, 2, 1], [1, 1, 1], [0, 0, 0]]))
    assert held.sum(1).tolist() == pytest.approx([1, 1, 1, 0])
    assert held[1].tolist() == [0.5, 0.5, 0]
    assert tied.tolist() == [1, 2, 3, 0]


def test_the_sample_needed_has_the_power_that_it_says() -> None:
    random = np.random.default_rng(8)
    images = 400
    hits, right = random.random(images) < 0.80, random.random(images) < 0.75
    votes = counts(np.stack([right, ~right], 1) * 1, [0] * images)
    found = agreement(votes, sure(np.where(hits, 0, 1), 2), rounds=4000).rates
    apart = found.main.difference.value
    scatter = (hits.astype(float) - right).std(ddof=1)
    reach = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert found.needed.images == pytest.approx((reach * scatter / apart) ** 2, rel=0.1)
    assert found.needed.least == pytest.approx(reach * scatter / math.sqrt(images), rel=0.05)
    assert math.isinf(found.needed.annotators)


def test_no_number_of_images_makes_up_for_few_people() -> None:
    random = np.random.default_rng(2)
    moved = Replicates(random.normal(0, 0.01, (500, 1)), random.normal(0, 0.05, (500, 1)), np.array([1e-5]), 100, 5)
    found = needed(0.05, moved.spread(), 0, 100, 5)
    assert math.isinf(found.images)
    assert 5 < found.annotators < 100


def test_the_networks_interval_covers_as_it_should() -> None:
    """Exactly, by enumeration: the mean over true accuracies of how often Wilson's interval holds them."""
    for total in (30, 160):
        seen = np.arange(total + 1)
        ends = np.array([(found.low, found.high) for found in (share(k / total, total) for k in seen.tolist())])
        held = [
            float(stats.binom.pmf(seen, total, p)[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum())
            for p in np.linspace(0.02, 0.98, 193)
        ]
        assert 0.945 < fmean(held) < 0.96


# Coverage: how often the intervals hold what an endless sample would show.


def covered(
    world: World, images: int, annotators: int, samples: int, each: int | None, alone: bool
) -> dict[str, float]:
    truth = world.truth()
    held: dict[str, list[bool]] = {}
    for seed in range(samples):
        votes, said = world.draw(seed, images, annotators, each)
        if alone:
            votes = Votes(votes.name, votes.images, votes.classes, votes.counts, votes.labels)
        found, kappa = _both(votes, said, seed)
        kind = "pairs" if kappa.pairs else "pooled"
        for name, estimate, value in (
            ("people", found.main.people, truth["people"]),
            ("difference", found.main.difference, truth["difference"]),
            ("κ", kappa.people, truth[kind]),
            ("κ of the network", kappa.network, truth[f"network {kind}"]),
            ("difference of κ", kappa.difference, truth[f"network {kind}"] - truth[kind]),
        ):
            held.setdefault(name, []).append(estimate.low <= value <= estimate.high)
    return {name: fmean(each) for name, each in held.items()}


def _both(votes: Votes, said: Array, seed: int) -> tuple[Rates, Consistency]:
    given = sample(votes, said, None)
    draws: Draws = draw(len(given), len(given.annotators), 500, seed)
    return rates(given, draws, "net", seed), consistency(given, draws, seed)


def test_intervals_hold_the_truth_quickly() -> None:
    found = covered(World(people=0.5, images=1.0), 120, 8, 60, None, False)
    assert all(value >= 0.85 for value in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "images", "annotators", "each", "alone"),
    [
        (World(people=0.5, images=1.0), 200, 15, None, False),
        (World(people=0.5, images=1.0), 300, 40, 8, False),
        (World(people=0.0, images=1.0), 600, 400, 12, True),
    ],
    ids=["15 people, all images", "40 people, eight an image", "counts alone"],
)
def test_intervals_hold_the_truth(world: World, images: int, annotators: int, each: int | None, alone: bool) -> None:
    found = covered(world, images, annotators, 1000, each, alone)
    assert all(0.93 <= value <= 0.97 for value in found.values()), found


def test_numbers_depend_on_the_seed_and_the_words() -> None:
    assert numbers(0, "a").random() == numbers(0, "a").random() != numbers(0, "b").random()
