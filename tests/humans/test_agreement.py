"""The whole comparison: its verdict, what it refuses, what it survives, and the real votes on CIFAR-10."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crowds import World, answers, counts, sure
from seewhy.errors import InputError
from seewhy.humans import Agreement, Votes, agreement
from seewhy.humans.tables import TABLES
from seewhy.report import people as figures

FIGURES = (
    *("overview", "observers", "classes", "conditions", "confusions", "consistency"),
    *("reliability", "abstaining", "deferring"),
)


def looked_at(found: Agreement, *names: str) -> None:
    """Everything that can be made of an agreement is made, without a warning; of figures those named, or the overview."""
    assert not any(re.search(r"\bnan\b", sentence) for sentence in found.words())
    for name in names or ("overview",):
        getattr(figures, name)(found).canvas.draw()
    for table in TABLES:
        json.dumps(found.rows(table))
    json.dumps(found.to_json(), allow_nan=False)


def test_the_whole_of_it(tmp_path: Path) -> None:
    votes, said = World(people=0.5, images=1.0).draw(0, 60, 6)
    found = agreement(votes, said, model="net", people="six students", truth="drawn by lot", rounds=200)
    looked_at(found, *FIGURES)
    found.save(tmp_path / "found.json")
    read = json.loads((tmp_path / "found.json").read_text())
    assert read["model"] == "net"
    assert read["rates"]["main"]["difference"]["value"] == found.rates.main.difference.value
    assert "six students" in " ".join(found.words())
    assert "drawn by lot" in " ".join(found.words())
    assert "<img" in found._repr_html_()
    assert "net" in repr(found)
    assert found.rates.main.difference.value == pytest.approx(
        found.rates.main.network.value - found.rates.main.people.value
    )
    assert [row["against"] for row in found.rows("tests")] == ["mean annotator", "majority", *votes.annotators]
    with pytest.raises(InputError, match='no table "accurary"; did you mean "accuracy"'):
        found.rows("accurary")


def test_the_same_seed_gives_the_same_answer_and_tensors_are_taken() -> None:
    votes, said = World(people=0.5, images=1.0).draw(1, 50, 5)
    first = agreement(votes, said, rounds=200).to_json()
    assert agreement(votes, torch.from_numpy(said), torch.zeros(50, dtype=torch.long), rounds=200).to_json() == first
    assert agreement(votes, said, rounds=200, seed=1).to_json() != first


@pytest.mark.parametrize(
    ("right", "outcome", "said"),
    [
        (0.97, "better", "is better than"),
        (0.5, "worse", "is worse than"),
        (0.8, "not told apart", "cannot be told apart"),
    ],
)
def test_verdicts(right: float, outcome: str, said: str) -> None:
    random = np.random.default_rng(0)
    table = (random.random((8, 200)) > 0.8).astype(int)
    network = np.zeros(200, dtype=int)
    network[: round(200 * (1 - right))] = 1
    found = agreement(answers(table, [0] * 200, 2), sure(network, 2), model="net", rounds=200)
    assert found.verdict.outcome == outcome
    assert said in found.verdict.headline
    if outcome == "not told apart":
        assert "it would take" in found.verdict.sample or "needed together" in found.verdict.sample
        assert found.rates.main.p > 0.05
    else:
        assert found.rates.main.p < 0.05
    assert "tells a difference of" in found.verdict.sample


def test_what_is_no_probability_is_refused() -> None:
    votes = counts([[3, 1], [1, 3]], [0, 1])
    for wrong, said in (
        (np.array([[4.0, -2.0], [0.1, 0.2]]), "look like logits: take their softmax"),
        (np.array([[0.5, 0.2], [0.5, 0.5]]), "add up to 1, got 0.7 for 0.png .* divide each row by its sum"),
        (np.array([[0.5, np.nan], [0.5, 0.5]]), "expected finite probabilities"),
        (np.array([[0.5, np.inf], [0.5, 0.5]]), "expected finite probabilities"),
        (np.ones((2, 3)) / 3, r"shape \(2, 2\).*got \(2, 3\); map the network's classes"),
        (np.ones((3, 2)) / 2, r"shape \(2, 2\).*got \(3, 2\)"),
    ):
        with pytest.raises(InputError, match=said):
            agreement(votes, wrong)


def test_labels_that_do_not_fit_are_refused() -> None:
    votes, said = counts([[3, 1], [1, 3]]), sure([0, 1], 2)
    cases: tuple[tuple[Any, str], ...] = (
        (None, "has no true classes: give labels"),
        ([0], "expected 2 labels"),
        ([0, 2], "labels from 0 to 1, or −1 where unknown, got 0 to 2"),
        (["a", "b"], "places in made up's classes, got 'a'"),
        ([-1, None], "no image with votes, a true class and a prediction"),
    )
    for labels, words in cases:
        with pytest.raises(InputError, match=words):
            agreement(votes, said, labels)


def test_images_without_votes_label_or_prediction_are_left_out_and_said() -> None:
    table = [[3, 1], [0, 0], [2, 2], [1, 3], [0, 4]] * 4
    said = sure([0, 0, 0, 1, 1] * 4, 2)
    said[4] = np.nan
    labels: list[Any] = [0, 0, None, 1, 1] * 4
    found = agreement(counts(table), said, labels, rounds=200)
    assert found.images == 11
    notes = " ".join(found.notes)
    assert "left out, without votes: 4 of 20 images (1.png, 6.png, 11.png and 1 more)" in notes
    assert "without a true class: 4 of 20" in notes
    assert "without a prediction of the network: 1 of 20 images (4.png)" in notes
    kept = [place for place in range(20) if place != 4 and place % 5 not in (1, 2)]
    alone = agreement(counts([table[k] for k in kept], [labels[k] for k in kept]), said[kept], rounds=200)
    assert alone.rates.main == found.rates.main
    looked_at(found)


def test_one_image() -> None:
    found = agreement(counts([[3, 1]], [0]), sure([0], 2), rounds=200)
    assert found.images == 1
    assert found.verdict.outcome == "not told apart"
    assert found.rates.main.network.low < 0.25
    assert found.rates.main.network.high == 1.0
    looked_at(found)


def test_one_annotator() -> None:
    found = agreement(answers([[0, 1, 0, 0] * 10], [0] * 40, 2), sure([0] * 40, 2), model="net", rounds=200)
    words = " ".join(found.words())
    assert "the only annotator, annotator 1" in found.verdict.headline
    assert "One annotator only" in words
    assert "no κ of people with people" in words
    assert found.soft is None
    assert len(found.each) == 1
    looked_at(found)


def test_everybody_right_is_no_certainty() -> None:
    found = agreement(answers(np.zeros((5, 40), dtype=int), [0] * 40, 2), sure([0] * 40, 2), rounds=200)
    assert found.rates.main.network.low == pytest.approx(found.rates.main.people.low)
    assert found.rates.main.people.low < 0.95
    assert found.verdict.outcome == "not told apart"
    assert "unanimous" in " ".join(found.notes)
    assert "labels are the majority's answer" in " ".join(found.notes)
    looked_at(found)


def test_a_class_without_images_and_one_that_nobody_votes_for() -> None:
    table = np.column_stack([np.tile([[4, 1], [1, 3]], (10, 1)), np.zeros((20, 2), dtype=int)])
    found = agreement(counts(table, [0, 1] * 9 + [2, 2]), sure([0, 1] * 9 + [2, 1], 4), rounds=200)
    recall = {part.name: part for part in found.rates.classes}
    assert recall["d"].images == 0
    assert not recall["d"].network.known
    assert recall["c"].people.value == 0
    assert recall["c"].people.high > 0.5
    assert found.rates.balanced.network.value == pytest.approx((1 + 1 + 0.5) / 3)  # three classes have images
    assert found.rates.balanced.people.value == pytest.approx(np.mean([0.8, 0.75, 0]))
    looked_at(found)


def test_ties_and_mcnemar_against_the_majority() -> None:
    table = [[3, 1]] * 10 + [[2, 2]] * 4 + [[1, 3]] * 6
    network = [0] * 8 + [1] * 2 + [0] * 4 + [0, 0, 0, 1, 1, 1]
    found = agreement(counts(table, [0] * 20), sure(network, 2), rounds=200)
    assert found.rates.tied == 4
    assert found.majority is not None
    assert (found.majority.images, found.majority.only_network, found.majority.only_observer) == (16, 3, 2)
    crowd = next(each for each in found.rates.observers if each.kind == "majority")
    assert crowd.accuracy.value == pytest.approx((10 + 4 / 2) / 20)


def test_conditions_stand_apart() -> None:
    random = np.random.default_rng(3)
    hard = np.arange(90) % 3
    table = (random.random((6, 90)) > 0.95 - 0.25 * hard).astype(int)
    found = agreement(
        answers(table, [0] * 90, 2, [("easy", "middling", "hard")[each] for each in hard]),
        sure((random.random(90) > 0.9 - 0.3 * hard).astype(int), 2),
        rounds=200,
    )
    assert [part.name for part in found.rates.conditions] == ["easy", "middling", "hard"]
    for place, part in enumerate(found.rates.conditions):
        assert part.people.value == pytest.approx((table[:, hard == place] == 0).mean())
        assert part.images == 30
        assert part.adjusted >= part.p
    looked_at(found, "conditions")


def test_many_classes_are_drawn_too() -> None:
    random = np.random.default_rng(4)
    labels = random.integers(60, size=240)
    table = np.zeros((240, 60), dtype=int)
    np.add.at(table, (np.repeat(np.arange(240), 5), np.where(random.random(1200) < 0.8, np.repeat(labels, 5), 0)), 1)
    names = tuple(f"class $_{place}" for place in range(60))  # no formula
    votes = Votes("many", tuple(map(str, range(240))), names, table, tuple(labels.tolist()))
    found = agreement(votes, sure(labels, 60), model="$net_{0}", rounds=100)
    looked_at(found, "observers", "classes", "confusions")


def test_the_votes_on_cifar10(shared: Path) -> None:
    from seewhy.data import cifar10
    from seewhy.data.fetch import cached

    if cached("cifar10") is None:
        pytest.skip("needs CIFAR-10, which `seewhy data get cifar10` brings")
    table = np.load(shared / "humans" / "cifar10h-counts.npy")
    labels = np.array([label for label in cifar10().labels or () if label is not None])
    votes = Votes("CIFAR-10H", tuple(f"{k:05d}" for k in range(10_000)), cifar10().classes or (), table)
    found = agreement(votes, sure(labels, 10), labels, rounds=100)
    assert found.votes == 511_000
    assert found.verdict.outcome == "better"
    crowd = next(each for each in found.rates.observers if each.kind == "majority")
    assert crowd.accuracy.value == pytest.approx(0.9921, abs=1e-4)
    assert float((table.argmax(1) == labels).mean()) == 0.9921
    assert found.rates.main.people.value == pytest.approx((table[np.arange(10_000), labels] / table.sum(1)).mean())
    assert found.rates.main.people.value == pytest.approx(0.952, abs=5e-4)
    assert found.ceiling.most.value == pytest.approx(0.954, abs=5e-4)
    assert found.soft is not None
    assert found.soft.images == 10_000
