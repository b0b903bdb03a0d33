"""A network's own numbers, against scikit-learn and statsmodels; galleries against the parts that they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics

from nets import Spelled, classifier, photos
from seewhy.data.folders import photos as photographs
from seewhy.errors import InputError
from seewhy.explain import GradCAM, Gradient
from seewhy.humans.baselines import baseline
from seewhy.humans.gallery import NAMED, Case, cases, gallery
from seewhy.humans.parting import PARTED, parting
from seewhy.humans.performance import Performance, performance
from seewhy.humans.votes import Votes

NAMES = ("nv", "mel", "bkl", "df")


def drawn(seed: int = 0, n: int = 500) -> tuple[Performance, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    draw = np.random.default_rng(seed)
    truth = draw.choice(3, n, p=[0.8, 0.15, 0.05])  # no image shows df
    chances = draw.dirichlet(np.ones(4), n) * 0.5 + 0.5 * np.eye(4)[np.where(draw.random(n) < 0.7, truth, 3)]
    return performance(chances, truth, NAMES, data="lesions", model="net"), chances, truth


def test_the_numbers_are_scikit_learns() -> None:
    found, chances, truth = drawn()
    answers = chances.argmax(1)
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(truth, answers))
    recalls = metrics.recall_score(truth, answers, average=None, labels=range(4), zero_division=np.nan)
    assert [each.recall.value for each in found.classes] == pytest.approx(recalls, nan_ok=True)
    assert found.balanced.value == pytest.approx(np.nanmean(recalls))  # df, which no image shows, has no recall
    precision = metrics.precision_score(truth, answers, average=None, labels=range(4), zero_division=np.nan)
    assert [each.precision.value for each in found.classes] == pytest.approx(precision, nan_ok=True)
    assert found.confusion.tolist() == metrics.confusion_matrix(truth, answers, labels=range(4)).tolist()
    assert found.commonest == "nv"
    assert found.always == pytest.approx((truth == 0).mean())
    assert found.among_five.value == 1  # of four classes
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    ends = proportion.proportion_confint((answers == truth).sum(), len(truth), method="wilson")
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx(ends)


def test_balanced_accuracys_interval_covers() -> None:
    """Of classes of very different sizes, 95 % intervals hold the true mean recall about as often."""
    draw, inside = np.random.default_rng(1), 0
    recalls, sizes = np.array([0.95, 0.7, 0.5]), (400, 60, 15)
    truth = np.repeat(np.arange(3), sizes)
    for _ in range(300):
        right = draw.random(len(truth)) < recalls[truth]
        answers = np.where(right, truth, (truth + 1) % 3)
        found = performance(np.eye(3)[answers], truth, NAMES[:3])
        inside += found.balanced.low <= recalls.mean() <= found.balanced.high
    assert 0.92 <= inside / 300 <= 0.985


def test_five_of_many_classes() -> None:
    draw = np.random.default_rng(2)
    chances, truth = draw.dirichlet(np.ones(20), 300), draw.integers(0, 20, 300)
    found = performance(chances, truth, tuple(map(str, range(20))))
    assert found.among_five.value == pytest.approx(metrics.top_k_accuracy_score(truth, chances, k=5, labels=range(20)))
    error = found.measure("top-5 error")
    assert error is not None
    assert error.value == pytest.approx(1 - found.among_five.value)
    assert error.low < error.value < error.high
    assert found.measure("something else") is None


def test_words_lead_with_balanced_accuracy_where_classes_are_unequal() -> None:
    found, _, truth = drawn()
    assert found.unequal
    words = found.words()
    assert words.startswith("net on 500 images of lesions: balanced accuracy ")
    assert f"Who always answers “nv” is right on {(truth == 0).mean():.1%}" in words
    assert "No image shows df." in words
    even = performance(np.eye(2)[[0, 1, 1, 0]], [0, 1, 0, 0], ["a", "b"])
    assert not even.unequal
    assert ": accuracy" in even.words()


def test_beside_a_published_result_it_is_indirect() -> None:
    found, _, _ = drawn()
    readers = baseline("ham10000-readers")
    told = found.beside(readers)
    assert "indirect, and no verdict" in told  # nine in ten images are of one class
    assert "better" not in told
    for share, lie in ((0.99, "both lie above it"), (0.1, "both lie below it")):
        right = np.random.default_rng(0).random(3000) < share
        truth = np.repeat([0, 0, 0, 0, 1, 2], 500)
        other = performance(np.eye(3)[np.where(right, truth, (truth + 1) % 3)], truth, NAMES[:3])
        assert other.unequal
        assert lie in other.beside(readers)
    even = performance(np.eye(2)[[0, 1] * 50], [0, 1] * 50, ["a", "b"])
    assert even.beside(readers) == readers.compare(even.accuracy)
    assert "not a result of people" in found.beside(baseline("ham10000-77"))
    assert "another measure" in found.beside(baseline("imagenet-multilabel"))
    record = found.record()
    assert record["rows"][0]["what"] == "balanced accuracy"
    empty = next(row for row in record["rows"] if row.get("class") == "df")
    assert (empty["value"], empty["low"]) == (None, None)
    assert found._repr_html_().startswith("<img alt=")


def test_wrong_words_get_one_sentence() -> None:
    with pytest.raises(InputError, match=r"expected probabilities \(N, 2\) and N true classes"):
        performance(np.zeros((3, 3)), [0, 1, 1], ["a", "b"])
    with pytest.raises(InputError, match="at least one"):
        performance(np.zeros((0, 2)), [], ["a", "b"])
    with pytest.raises(InputError, match="expected finite probabilities"):
        performance(np.full((1, 2), np.nan), [0], ["a", "b"])
    with pytest.raises(InputError, match="expected true classes from 0 to 1, got 0 to 2"):
        performance(np.full((2, 2), 0.5), [0, 2], ["a", "b"])


@pytest.fixture
def shown(tmp_path: Path) -> Any:
    """A net, a data set of photographs, and votes that part from it."""
    net = classifier(Spelled("in-place"))
    files = []
    for number, pixels in enumerate(photos(12)):
        file = tmp_path / f"{number:02d}.png"
        Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).save(file)
        files.append(file)
    data = photographs(files)
    chances = net.predict(data.images(slice(None), net.preprocess)).double().softmax(1).numpy()
    answers = chances.argmax(1)
    labels = [int((answer + place % 2) % 5) for place, answer in enumerate(answers)]  # every second is wrong
    counts = (
        np.eye(5, dtype=int)[labels] * 7 + np.eye(5, dtype=int)[(np.array(labels) + 1) % 5] * np.arange(12)[:, None] % 5
    )
    votes = Votes("seven", data.names, net.labels, counts)
    return net, data, parting(votes, chances, labels, rounds=1, model="net")


def test_a_gallery_shows_the_most_clear_cut(shown: Any) -> None:
    net, data, parted = shown
    found = gallery(net, data, parted, count=2, explainer=Gradient())
    assert [case.group for case in found.cases] == [case.group for name in PARTED for case in cases(parted, name, 2)]
    first = found.cases[0]
    assert first.group == "people right"
    assert first.place == parted.of("people right")[0]
    assert Case.of(first.row()) == first
    answer, people = net.index(first.answer), net.index(first.people)
    assert [each.labels[0] for each in found.explanations[0]] == [net.labels[answer], net.labels[people]]
    images = data.item(data.names.index(first.image)).read(net.preprocess)
    assert torch.equal(found.explanations[0][1].values, Gradient()(net, images, people).values)
    assert dict(first.votes)[first.people] == pytest.approx(parted.shares[first.place].max())
    assert dict(first.chances)[first.answer] == pytest.approx(parted.probabilities[first.place].max())
    assert len(first.votes) <= NAMED
    assert found._repr_html_().startswith("<img alt=")
    assert gallery(net, data, parted, count=1).explanations[0][0].method == GradCAM().spec


def test_galleries_refuse_what_they_cannot_show(shown: Any) -> None:
    net, data, parted = shown
    with pytest.raises(InputError, match="has no image"):
        gallery(net, data.subset(slice(0, 1)), parted)
    with pytest.raises(InputError, match="there is nothing to show"):
        gallery(net, data, parted, sets=())
