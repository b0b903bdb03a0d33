"""Where people and a network part: the sets against brute force, the effects against simulation and scipy."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
import skimage.color
import skimage.filters
import skimage.measure
import torch

from nets import photos
from seewhy.errors import InputError, SpecError
from seewhy.humans.parting import FEWEST, PARTED, SETS, Parting, _auc, _drawn, _wilcoxon, most, parting
from seewhy.humans.properties import PROPERTIES, measured
from seewhy.humans.votes import Votes

CLASSES = ("cat", "dog", "elk")


def simulated(n: int = 400, seed: int = 0, **words: Any) -> tuple[Votes, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Votes of five people and a network's probabilities, both right more often than not."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 3, n)
    weights = np.eye(3)[truth] * words.get("clear", 0.45) + (1 - words.get("clear", 0.45)) / 3
    counts = np.array([draw.multinomial(5, row) for row in weights])
    chances = draw.dirichlet(np.ones(3), n) * 0.6 + 0.4 * np.eye(3)[truth]
    return Votes("five", tuple(f"image {i}" for i in range(n)), CLASSES, counts), chances, truth


@pytest.mark.parametrize("rule", ["most", "majority"])
def test_every_image_stands_in_the_set_that_a_plain_reading_gives(rule: Any) -> None:
    votes, chances, truth = simulated()
    found = parting(votes, chances, truth, rule=rule, rounds=1)
    for place in range(len(votes)):
        tally = Counter({k: int(n) for k, n in enumerate(votes.counts[place])}).most_common()
        tie = tally[0][1] == tally[1][1] or (rule == "majority" and tally[0][1] * 2 <= 5)
        answer, people, right = int(np.argmax(chances[place])), tally[0][0], int(truth[place])
        if tie:
            expected = "undecided"
        elif people == right:
            expected = "both right" if answer == right else "people right"
        elif answer == right:
            expected = "model right"
        else:
            expected = "wrong alike" if people == answer else "wrong differently"
        assert list(SETS)[found.group[place]] == expected
        assert found.people[place] == (-1 if tie else people)
        assert found.clarity[place] == pytest.approx(tally[0][1] / 5 * chances[place].max())
    assert sum(found.counts().values()) == len(votes)
    assert all(found.counts().values())
    for name in SETS:
        clarity = found.clarity[found.of(name)]
        assert (np.diff(clarity) <= 0).all()
        assert set(found.group[found.of(name, 3)]) == {list(SETS).index(name)}


def test_the_auc_counts_pairs_of_one_class_and_the_test_is_wilcoxons() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.integers(0, 9, 30).astype(float), draw.integers(0, 8, 60).astype(float)  # with ties
    one, other = draw.integers(0, 3, 30), draw.integers(0, 3, 60)
    draws = _drawn(draw, one, 50), _drawn(draw, other, 50)
    auc, _ = _auc(first, one, second, other, draws)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, k), (b, m) in product(zip(first, one, strict=True), zip(second, other, strict=True))
        if k == m
    ]
    assert auc == pytest.approx(np.mean(pairs))
    same = np.zeros(30, int), np.zeros(60, int)
    peer = scipy.stats.mannwhitneyu(first, second, method="asymptotic", use_continuity=False)
    assert _wilcoxon(first, same[0], second, same[1]) == pytest.approx(peer.pvalue, rel=1e-9)
    # several classes: a permutation within classes gives the same chance
    observed, both = abs(auc - 0.5), np.concatenate([first, second])
    place, more = np.concatenate([one, other]), 0
    for _ in range(2000):
        shuffled = both.copy()
        for label in range(3):
            inside = np.flatnonzero(place == label)
            shuffled[inside] = draw.permutation(shuffled[inside])
        again, _ = _auc(shuffled[:30], one, shuffled[30:], other, (draws[0][:2], draws[1][:2]))
        more += abs(again - 0.5) >= observed - 1e-12
    assert _wilcoxon(first, one, second, other) == pytest.approx(more / 2000, abs=0.03)


def test_a_class_is_not_taken_for_a_failing() -> None:
    """The property is the class's own, and failing goes with the class: within classes nothing is left."""
    draw = np.random.default_rng(5)
    truth = np.repeat([0, 1], 300)
    counts = np.eye(3, dtype=int)[truth] * 5
    wrong = draw.random(600) < np.where(truth == 0, 0.6, 0.1)
    chances = np.where(wrong[:, None], np.eye(3)[2], np.eye(3)[truth]) * 0.9 + 0.1 / 3
    value = truth + 0.2 * draw.standard_normal(600)
    votes = Votes("five", tuple(map(str, range(600))), CLASSES, counts)
    found = parting(votes, chances, truth, properties={"hue": value}, rounds=200)
    (effect,) = [each for each in found.effects if each.measure == "hue"]
    assert effect.group == "people right"
    assert abs(effect.auc - 0.5) < 0.1
    assert not effect.clear
    assert scipy.stats.mannwhitneyu(value[wrong], value[~wrong]).pvalue < 1e-10  # which a plain test takes for one


def test_the_intervals_cover_and_the_correction_holds() -> None:
    """95 % intervals of a known AUC cover it about as often; without any effect one in twenty comparisons is clear at most."""
    draw = np.random.default_rng(7)
    truth = scipy.stats.norm.cdf(0.8 / np.sqrt(2))  # two normal distributions 0.8 apart
    first, second = np.repeat([0, 1], 40), np.repeat([0, 1], 60)
    inside = 0
    for _ in range(200):
        draws = _drawn(draw, first, 200), _drawn(draw, second, 200)
        values = draw.standard_normal(80) + 0.8, draw.standard_normal(120)
        _, (low, high) = _auc(values[0], first, values[1], second, draws)
        inside += low <= truth <= high
    assert 0.91 <= inside / 200 <= 0.985
    clear = 0
    for seed in range(100):
        votes, chances, labels = simulated(160, seed)
        noise = {str(k): draw.standard_normal(160) for k in range(6)}
        found = parting(votes, chances, labels, properties=noise, rounds=1)
        assert found.effects
        clear += any(each.clear for each in found.effects if each.measure != "people's entropy")
    assert clear / 100 <= 0.11  # 0.05, and two and a half standard errors


def test_holm_against_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    votes, chances, labels = simulated(2000, 2, clear=0.2)
    draw = np.random.default_rng(0)
    held = {"drawn": draw.standard_normal(2000), "confidence": chances.max(1), "more": draw.standard_normal(2000)}
    effects = parting(votes, chances, labels, properties=held, rounds=20).effects
    assert {each.group for each in effects} == set(PARTED)
    expected = multitest.multipletests([each.p for each in effects], method="holm")[1]
    assert [each.adjusted for each in effects] == pytest.approx(expected)


def test_what_goes_with_it_is_said_as_association() -> None:
    votes, chances, labels = simulated(900, 4)
    wrong = chances.argmax(1) != labels
    dark = -2.0 * wrong + np.random.default_rng(1).standard_normal(900)
    found = parting(votes, chances, labels, properties={"brightness": dark}, rounds=100, model="resnet20")
    effect = next(each for each in found.effects if (each.group, each.measure) == ("people right", "brightness"))
    assert effect.clear
    assert effect.auc < 0.2
    assert effect.interval[0] < effect.auc < effect.interval[1]
    words = found.words()
    assert (
        "Where people are right, resnet20 is wrong, images have, beside those that both get right: lower brightness"
        in words
    )
    assert "association" in words
    assert "not a cause" in words
    # what the votes made is not taken for what goes with them
    assert {each.group for each in found.effects if each.measure == "people's entropy"} == {"people right"}
    rows = {row["set"]: row for row in found.rows()}
    assert sum(row["images"] for row in rows.values()) == 900
    assert rows["people right"]["effects"][0]["clear"] is True
    again = parting(votes, chances, labels, properties={"brightness": dark}, rounds=100, model="resnet20")
    assert again.effects == found.effects


def test_few_images_are_said_to_be_few() -> None:
    truth = np.zeros(30, int)
    chances = np.tile([0.8, 0.1, 0.1], (30, 1))
    chances[: FEWEST - 1] = [0.1, 0.8, 0.1]
    votes = Votes("all", tuple(map(str, range(30))), CLASSES, np.tile([5, 0, 0], (30, 1)))
    found = parting(votes, chances, truth, properties={"x": np.arange(30.0)}, rounds=5)
    assert found.counts()["people right"] == FEWEST - 1
    assert found.effects == ()


def test_images_without_votes_are_left_out_and_counted() -> None:
    votes = Votes("some", ("a", "b", "c"), CLASSES, np.array([[1, 0, 0], [0, 0, 0], [0, 2, 1]]))
    found = parting(votes, np.full((3, 3), 1 / 3), [0, 1, 1], rounds=1)
    assert found.images == ("a", "c")
    assert found.notes == ("left out, without votes: 1 of 3 images (b)",)


def test_wrong_words_get_one_sentence() -> None:
    votes, chances, labels = simulated(20)
    with pytest.raises(InputError, match=r"expected probabilities of shape \(20, 3\)"):
        parting(votes, chances[:, :2], labels)
    with pytest.raises(InputError, match="take their softmax"):
        parting(votes, chances * 5, labels)
    with pytest.raises(InputError, match="expected 20 labels"):
        parting(votes, chances, labels[:5])
    with pytest.raises(InputError, match="expected labels from 0 to 2"):
        parting(votes, chances, [3, *labels[1:]])
    with pytest.raises(InputError, match="expected 20 values of size"):
        parting(votes, chances, labels, properties={"size": np.zeros(3)})
    with pytest.raises(SpecError, match='"most" or "majority", got "all"'):
        parting(votes, chances, labels, rule="all")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="at least one bootstrap round"):
        parting(votes, chances, labels, rounds=0)
    with pytest.raises(InputError, match='did you mean "people right"'):
        parting(votes, chances, labels, rounds=1).of("people rigth")
    nobody = Votes("nobody", ("a",), CLASSES, np.zeros((1, 3), int))
    with pytest.raises(InputError, match="no image with votes, a true class and a prediction"):
        parting(nobody, np.full((1, 3), 1 / 3), [0])


def test_ties_and_majorities() -> None:
    counts = np.array([[0, 0], [1, 1], [2, 1], [4, 5]])
    assert most(counts).tolist() == [-1, -1, 0, 1]
    assert most(np.array([[2, 1, 1]]), "majority").tolist() == [-1]


def test_properties_against_scikit_image_and_plain_loops() -> None:
    pixels = photos(4)
    found = dict(zip(PROPERTIES, measured(pixels).T.numpy(), strict=True))
    for place, picture in enumerate(pixels):
        plain = picture.permute(1, 2, 0).numpy().astype(np.float64)
        grey = plain @ [0.2126, 0.7152, 0.0722]
        assert np.allclose(grey, skimage.color.rgb2gray(plain), atol=1e-3)  # whose weights have three digits more
        assert found["brightness"][place] == pytest.approx(grey.mean(), rel=1e-5)
        assert found["contrast"][place] == pytest.approx(grey.std(), rel=1e-4)
        laplacian = skimage.filters.laplace(grey)[1:-1, 1:-1]  # type: ignore[no-untyped-call]
        assert found["sharpness"][place] == pytest.approx(laplacian.var(), rel=1e-4)
        levels = np.rint(grey * 255).astype(np.uint8)
        assert found["entropy"][place] == pytest.approx(skimage.measure.shannon_entropy(levels), abs=0.02)  # type: ignore[no-untyped-call]
        red, green, blue = plain.reshape(-1, 3).T
        across, along = red - green, 0.5 * (red + green) - blue
        colourful = np.hypot(across.std(), along.std()) + 0.3 * np.hypot(across.mean(), along.mean())
        assert found["colourfulness"][place] == pytest.approx(colourful, rel=1e-4)
        size = np.hypot(skimage.filters.sobel_h(grey), skimage.filters.sobel_v(grey))[1:-1, 1:-1]  # type: ignore[no-untyped-call]
        assert found["edges"][place] == pytest.approx((size / 2 > 0.1).mean(), abs=0.005)
    ramp = torch.linspace(0, 1, 11).expand(1, 3, 12, 11)  # 0.1 a pixel across
    steep = torch.linspace(0, 1, 9).expand(1, 3, 12, 9)  # 0.125 a pixel
    assert measured(ramp * 0.99)[0, list(PROPERTIES).index("edges")] == 0
    assert measured(steep)[0, list(PROPERTIES).index("edges")] == 1


def test_pictures_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 3 × 3, got \(1, 3, 2, 5\)"):
        measured(torch.zeros(1, 3, 2, 5))


def test_it_draws_and_saves_itself(tmp_path: Any) -> None:
    votes, chances, labels = simulated(300, 6)
    found: Parting = parting(votes, chances, labels, properties={"x": chances.max(1)}, rounds=20)
    assert found._repr_html_().startswith("<img alt=")
    found.save(tmp_path / "parting.npz")
    with np.load(tmp_path / "parting.npz") as held:
        assert held["group"].tolist() == found.group.tolist()
