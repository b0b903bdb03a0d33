"""The parts of a tuning beside closed forms, automatic differentiation and scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]
from sklearn import metrics
from torch import nn
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import ModelError
from seewhy.tune import Recipe, augmented, marks, offsets, weights
from seewhy.tune.augment import mixed
from seewhy.tune.average import Average
from seewhy.tune.depthwise import Depthwise, FastDepthwise
from seewhy.tune.network import first_parts, with_classes
from seewhy.tune.pictures import Pictures, split


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Classes of unlike sizes


def test_drawing_by_weights_gives_each_class_its_power() -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    for power in (0.0, 0.5, 1.0):
        found = weights(labels, 3, power)
        wanted = np.array([60, 30, 10.0]) ** power
        by_class = [float(found[torch.tensor(labels) == label].sum()) for label in range(3)]
        assert by_class == pytest.approx((wanted / wanted.sum()).tolist())


def test_sampler_and_loss_have_the_same_operating_point() -> None:
    """On a finite set of cells, both losses are convex, and their gradients vanish at log p(class | cell) − ½ log prior."""
    counts = torch.tensor([[40.0, 5, 1], [10, 20, 3], [2, 4, 15]])  # cells × classes
    labels = [label for label, n in enumerate(counts.sum(0).int().tolist()) for _ in range(n)]
    prior = counts.sum(0) / counts.sum()
    wanted = (counts / counts.sum(1, keepdim=True)).log() - 0.5 * prior.log()
    drawn = weights(labels, 3, 0.5)[torch.tensor([labels.index(label) for label in range(3)])].float()
    for cells, moved in ((counts, offsets(labels, 3, 0.5)), (counts * drawn, torch.zeros(3))):
        logits = wanted.clone().requires_grad_()
        loss = -(cells / cells.sum() * (logits + moved).log_softmax(1)).sum()
        assert float(torch.autograd.grad(loss, logits)[0].abs().max()) < 1e-6
    loss = -(counts / counts.sum() * wanted.requires_grad_().log_softmax(1)).sum()
    assert float(torch.autograd.grad(loss, wanted)[0].abs().max()) > 0.01  # neither drawn nor moved: another point


# Averages and rates


def test_the_average_is_the_closed_form() -> None:
    layer, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
    average = Average(nn.Sequential(layer, norm), 0.9)
    wanted = float(layer.weight.detach()[0, 0])
    for step, value in enumerate(torch.randn(40, generator=draw()).tolist(), 1):
        with torch.no_grad():
            layer.weight.fill_(value)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
    kept = average.module.state_dict()
    assert float(kept["0.weight"][0, 0]) == pytest.approx(wanted, abs=1e-5)
    assert int(kept["1.num_batches_tracked"]) == 40
    assert not average.module.training


def test_the_rate_rises_and_falls_as_a_cosine() -> None:
    recipe = Recipe(lr=0.1, warmup=2)
    rates = [recipe.rate(step, 10, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert rates[19] == rates[20] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.05)
    assert rates[99] == pytest.approx(0.05 * (1 + math.cos(math.pi * 79 / 80)))
    assert np.all(np.diff(rates[20:]) < 0)


# Pictures


def test_without_any_change_a_picture_stays_what_it_is() -> None:
    pictures = torch.randint(0, 256, (3, 3, 20, 30), dtype=torch.uint8, generator=draw())
    still = Recipe(crop=1, turn=0, colour=0)
    found = augmented(pictures, (20, 30), still, draw())
    wanted = pictures.float() / 255
    for picture, answer in zip(wanted, found, strict=True):
        mirror = picture.flip(2)
        assert min(float((answer - each).abs().max()) for each in (picture, mirror)) < 1e-4


def test_a_turned_picture_keeps_its_shape() -> None:
    """A disc in a wide picture stays a disc: turning goes by pixels, not by the sides' shares."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(128), indexing="ij")
    disc = (((rows - 31.5) ** 2 + (columns - 63.5) ** 2) < 20**2).to(torch.uint8) * 255
    pictures = disc.expand(16, 3, 64, 128).contiguous()
    found = augmented(pictures, (64, 128), Recipe(crop=1, colour=0), draw())
    middle = slice(34, 94)  # what lies farther out may show the disc again, reflected
    assert float(((found > 0.5) != (pictures > 127))[..., middle].float().mean()) < 0.01


def test_colours_move_by_one_affine_map_a_picture() -> None:
    pictures = torch.randint(40, 200, (4, 3, 16, 16), dtype=torch.uint8, generator=draw())
    found = augmented(pictures, (16, 16), Recipe(crop=1, turn=0, colour=0.5), draw(3))
    for picture, answer in zip(pictures.double() / 255, found.double(), strict=True):
        given = torch.cat([picture.flatten(1), torch.ones(1, 256)]).T
        errors = []
        for each in (given, torch.cat([picture.flip(2).flatten(1), torch.ones(1, 256)]).T):
            fitted = torch.linalg.lstsq(each, answer.flatten(1).T).solution
            errors.append(float((each @ fitted - answer.flatten(1).T).abs().max()))
        assert min(errors) < 1e-3


def test_mixing_mixes_pictures_and_targets_alike() -> None:
    pixels, targets = torch.rand(6, 3, 4, 4, generator=draw()), torch.eye(6)
    both, shares = mixed(pixels, targets, Recipe(mixup_share=1, mixup=1), draw(5))
    share = float(shares[0, 0])
    assert 0.5 <= share < 1
    assert torch.allclose(both, share * pixels + (1 - share) * pixels.flip(0), atol=1e-6)
    assert torch.allclose(shares.sum(1), torch.ones(6))
    assert mixed(pixels, targets, Recipe(mixup_share=0), draw())[0] is pixels


def held(labels: list[int], groups: list[str] | None, array: Any = None) -> Pictures:
    if array is None:
        array = np.zeros((len(labels), 4, 4, 3), np.uint8)
    names = tuple(map(str, range(len(labels))))
    classes = tuple(f"class {label}" for label in range(max(labels) + 1))
    data = DataSet("made", names, Arrays(array), tuple(labels), classes, None if groups is None else tuple(groups))
    return Pictures(data, array, names, ())


@pytest.mark.parametrize("seed", range(5))
def test_a_split_never_parts_a_group(seed: int) -> None:
    chance = np.random.default_rng(seed)
    groups = [f"lesion {each}" for each in chance.integers(0, 60, 300)]
    of = {group: int(chance.integers(0, 3)) for group in groups}
    found = split(held([of[group] for group in groups], groups), 0.25, seed, watched=True)
    parts = [{groups[place] for place in part} for part in (found.train, found.watch, found.held)]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts))
    assert sorted((*found.train, *found.watch, *found.held)) == list(range(300))
    for label in range(3):
        members = [place for place in range(300) if of[groups[place]] == label]
        assert len(set(members) & set(found.held)) / len(members) == pytest.approx(0.25, abs=0.1)


def test_twins_are_not_held_out() -> None:
    pictures = held([0] * 20 + [1] * 20, None)
    twins = Pictures(pictures.data, pictures.array, ("same",) * 6 + pictures.digests[6:], ())
    found = split(twins, 0.5, 0)
    assert not set(range(6)) & set(found.held)
    assert any("pixel for pixel" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_every_class_trains_however_small(seed: int, share: float) -> None:
    labels, groups = [0] * 10 + [1] * 2 + [2], ["a"] * 4 + ["b"] * 6 + ["c", "d", "e"]
    found = split(held(labels, groups), share, seed, watched=True)
    assert {labels[place] for place in found.train} == {0, 1, 2}
    assert not {groups[place] for place in found.train} & {groups[place] for place in found.held}
    assert any("all pictures of class 2 are of one group" in note for note in found.notes)


# Depthwise convolutions


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_convolutions_gradients_are_autograds(kernel: int, stride: int) -> None:
    images = (
        torch.randn(2, 6, 11, 13, generator=draw()).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    )
    weight = torch.randn(6, 1, kernel, kernel, generator=draw(1)).to(torch.bfloat16)
    padding = kernel // 2

    def gradients(own: bool, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        pictures, windows = (each.detach().to(dtype).requires_grad_() for each in (images, weight))
        answer: torch.Tensor
        if own:
            answer = Depthwise.apply(pictures, windows, [stride] * 2, [padding] * 2)  # type: ignore[no-untyped-call]
        else:
            answer = F.conv2d(pictures, windows, None, stride, padding, 1, 6)
        pull = torch.randn(answer.shape, generator=draw(2)).to(torch.bfloat16).to(dtype)
        return answer.detach(), *torch.autograd.grad(answer, (pictures, windows), pull)

    for found, wanted in zip(gradients(True, torch.bfloat16), gradients(False, torch.float64), strict=True):
        assert found.dtype == torch.bfloat16
        assert float((found.double() - wanted).abs().max()) <= 0.01 * float(wanted.abs().max())


def test_only_depthwise_convolutions_under_autocast_are_taken_over() -> None:
    images, weight = torch.randn(2, 4, 9, 9, generator=draw()), torch.randn(4, 1, 5, 5, generator=draw(1))
    weight.requires_grad_()
    with FastDepthwise():
        assert "Depthwise" not in str(F.conv2d(images, weight, padding=2, groups=4).grad_fn)
        with torch.autocast("cpu", torch.bfloat16):
            assert "Depthwise" in str(torch.conv2d(images, weight, None, 1, 2, 1, 4).grad_fn)
            assert "Depthwise" not in str(F.conv2d(images, weight, padding=2, groups=4, dilation=2).grad_fn)
            assert "Depthwise" not in str(F.conv2d(images, weight.expand(4, 4, 5, 5)).grad_fn)
            assert "Depthwise" not in str(F.conv2d(images, weight, torch.zeros(4), groups=4).grad_fn)


# Networks


class Squeezed(nn.Module):
    """A last convolution, as SqueezeNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6))
        self.last = nn.Conv2d(6, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.features(x)).relu().mean((2, 3))


def test_the_last_layer_is_found_and_replaced() -> None:
    net = Classifier(Squeezed(), size=12)
    made, address = with_classes(net, ["a", "b", "c"], seed=3)
    assert address == "last"
    assert made.classes == 3
    assert net.classes == 5
    again, other = (with_classes(net, ["a", "b", "c"], seed=seed)[0].module.state_dict() for seed in (3, 4))
    assert torch.equal(again["last.weight"], made.module.state_dict()["last.weight"])
    assert not torch.equal(other["last.weight"], again["last.weight"])
    linear = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 4)), size=2)
    assert with_classes(linear, ["x", "y"])[1] == "3"
    with pytest.raises(ModelError, match="no last layer to replace"):
        with_classes(Classifier(nn.Flatten(), size=2), ["x", "y"])


def test_the_first_parts_end_before_the_next_convolution() -> None:
    module = Squeezed()
    parts = list(module.features)
    images = torch.rand(2, 3, 12, 12)
    assert first_parts(module, images, 0) == []
    assert first_parts(module, images, 1) == parts[:2]
    assert first_parts(module, images, 2) == [parts[0], parts[1], parts[3]]
    assert module.training


# Marks


def test_marks_are_scikit_learns() -> None:
    chance = np.random.default_rng(0)
    labels = chance.choice(4, 400, p=[0.7, 0.2, 0.08, 0.02])
    logits = torch.tensor(chance.normal(size=(400, 4)) + 2 * np.eye(4)[labels], dtype=torch.float32)
    found = marks(logits, labels.tolist(), ["a", "b", "c", "d"])
    chosen = logits.argmax(1).numpy()
    told = found.to_json()
    assert told["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, chosen))
    assert told["accuracy"] == pytest.approx(metrics.accuracy_score(labels, chosen))
    assert told["confusion"] == metrics.confusion_matrix(labels, chosen).tolist()
    assert [each["recall"] for each in told["classes"]] == pytest.approx(
        metrics.recall_score(labels, chosen, average=None)
    )
    assert [each["precision"] for each in told["classes"]] == pytest.approx(
        metrics.precision_score(labels, chosen, average=None)
    )
    assert told["log_loss"] == pytest.approx(metrics.log_loss(labels, logits.double().softmax(1).numpy()))
    recalls, totals = np.array([each["recall"] for each in told["classes"]]), np.bincount(labels)
    ends = [
        stats.binomtest(round(recall * total), total).proportion_ci(method="wilson")
        for recall, total in zip(recalls, totals, strict=True)
    ]
    low, high = told["balanced_accuracy_interval"]
    assert recalls.mean() - low == pytest.approx(
        np.hypot.reduce([r - e.low for r, e in zip(recalls, ends, strict=True)]) / 4
    )
    assert high - recalls.mean() == pytest.approx(
        np.hypot.reduce([e.high - r for r, e in zip(recalls, ends, strict=True)]) / 4
    )
    assert sum(count for count, _, _ in told["reliability"]) == 400


def test_calibration_by_hand() -> None:
    shares = torch.tensor([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10)
    found = marks(shares.log(), [0] * 8 + [1] * 2 + [1] * 4 + [0] * 6, ["a", "b"])
    assert found.calibration_error == pytest.approx(0.5 * abs(0.9 - 0.8) + 0.5 * abs(0.7 - 0.4), abs=1e-6)


def test_a_class_without_pictures_has_no_recall() -> None:
    found = marks(torch.eye(3)[[0, 1, 1]], [0, 1, 0], ["a", "b", "c"])
    assert found.recalls == (0.5, 1.0, None)
    assert found.balanced_accuracy == 0.75


# Mirror images


def test_views_are_the_mean_over_mirror_images() -> None:
    from seewhy.zoo.source import Views

    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images = torch.rand(5, 3, 4, 4, generator=draw())
    mirrored = (images, images.flip(3), images.flip(2), images.flip(3).flip(2))
    for count in (2, 4):
        wanted = sum(module(each) for each in mirrored[:count]) / count
        assert torch.allclose(Views(module, count)(images), wanted, atol=1e-6)
