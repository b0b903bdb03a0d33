"""The incremental lens against dense passes over every occlusion, one by one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import FAMILIES, SIZE, SPELLINGS, Spelled, classifier, photos
from seewhy.classifier import Classifier
from seewhy.errors import UnknownOperation
from seewhy.lens import incremental
from seewhy.lens.incremental import Batch, Incremental, Spans, Value


def corners(length: int, window: int, stride: int) -> list[int]:
    return sorted({*range(0, length - window + 1, stride), length - window})


def dense(net: Classifier, image: Tensor, fill: Tensor, window: int, rows: list[int], columns: list[int]) -> Tensor:
    """Logits of every occluded image, made one by one."""
    images = []
    for top in rows:
        for left in columns:
            covered = image.clone()
            covered[..., top : top + window, left : left + window] = fill[..., top : top + window, left : left + window]
            images.append(covered)
    with torch.no_grad():
        return torch.cat([net.logits(torch.cat(images[k : k + 32])) for k in range(0, len(images), 32)])


def difference(net: Classifier, window: int, stride: int, size: int = 16, image: Tensor | None = None) -> float:
    """How far the lens is from dense passes, relative to the largest logit."""
    image = photos(1) if image is None else image
    fill = photos(1, seed=5) if image.shape[2] == SIZE else 1 - image
    rows, columns = (corners(length, window, stride) for length in image.shape[2:])
    expected = dense(net, image, fill, window, rows, columns).view(len(rows), len(columns), -1)
    found = torch.full_like(expected, float("nan"))
    spans = [Spans(np.array(each), np.array(each) + window, image.shape[2]) for each in (rows, columns)]
    with torch.no_grad(), net.session():
        lens = Incremental(net, image, *spans)
        filled = lens.filled(net.normalise(fill))
        for batch in lens.batches(np.arange(len(rows)), np.arange(len(columns)), size):
            found[batch.rows, batch.columns] = lens.answer(lens.windows(filled, batch))
    torch.testing.assert_close(lens.clean, net.logits(image))
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("window", "stride"), [(1, 5), (2, 2), (4, 2), (5, 3), (9, 4), (17, 7), (23, 1), (24, 1)])
def test_equals_dense_passes(family: str, window: int, stride: int) -> None:
    assert difference(classifier(FAMILIES[family](), check=False), window, stride) < 1e-5


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same(spelling: str) -> None:
    assert difference(classifier(Spelled(spelling), check=False), 4, 3) < 1e-5


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_batch_changes_nothing(size: int) -> None:
    assert difference(classifier(FAMILIES["inception"](), check=False), 6, 4, size) < 1e-5


class Made(nn.Module):
    """A stem, whatever is tested, and a head; `shift` tells one place of the map from another."""

    def __init__(self, middle: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = middle
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.stem(x)).flatten(1))


def weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) / 4


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return torch.conv2d(x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w), weight(8, 8, 3, 3))


def gated(x: Tensor) -> Tensor:
    return F.max_pool2d(x * torch.sigmoid(x.mean((2, 3), keepdim=True)), 4)


def split(x: Tensor) -> Tensor:
    one, two = x.chunk(2, 1)
    two = torch.relu_(two.clone())
    return F.avg_pool2d(torch.cat([one[:, 1:3], two.sub_(1)], 1), 4)


MIDDLES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "stride and dilation": (lambda x: torch.conv2d(x, weight(4, 8, 3, 3), stride=2, padding=2, dilation=2), 4 * 144),
    "groups and a flat kernel": (lambda x: torch.conv2d(x, weight(8, 4, 1, 5), groups=2, padding=(0, 2)), 8 * 576),
    "same padding": (lambda x: torch.conv2d(x, weight(4, 8, 5, 3), padding="same"), 4 * 576),
    "stride beyond the kernel": (lambda x: torch.conv2d(x, weight(4, 8, 2, 2), stride=5), 4 * 25),
    "uneven padding": (lambda x: torch.conv2d(F.pad(x, (0, 1, 2, 1)), weight(4, 8, 3, 3), stride=2), 4 * 156),
    "reflected border": (lambda x: torch.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight(4, 8, 3, 3)), 4 * 576),
    "cropped": (lambda x: F.pad(x, (-2, -2, -1, 0)), 8 * 23 * 20),
    "max pooling in ceil mode": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), 8 * 169),
    "max pooling past the border": (lambda x: F.max_pool2d(x, 5, 5, ceil_mode=True), 8 * 25),
    "pooling with indices": (lambda x: F.max_pool2d(x, 4, return_indices=True)[0], 8 * 36),
    "mean pooling": (lambda x: F.avg_pool2d(x, 3, 2, 1), 8 * 144),
    "mean pooling, true counts": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 8 * 144),
    "mean pooling in ceil mode": (lambda x: F.avg_pool2d(x, 5, 5, ceil_mode=True), 8 * 25),
    "adaptive pooling": (lambda x: F.adaptive_avg_pool2d(x, (4, 6)), 8 * 24),
    "uneven adaptive pooling": (lambda x: F.adaptive_avg_pool2d(x, 5), 8 * 25),
    "mean over the map": (lambda x: x.mean((-1, -2)), 8),
    "mean over the rows": (lambda x: x.mean(2), 8 * 24),
    "maximum over the map": (lambda x: x.amax((2, 3)), 8),
    "shuffled channels": (shuffled, 8 * 22 * 22),
    "a gate": (gated, 8 * 36),
    "parts": (split, 6 * 36),
    "turned": (lambda x: F.max_pool2d(x.transpose(2, 3), 3), 8 * 64),
    "flipped": (lambda x: F.max_pool2d(x.flip(3), 3), 8 * 64),
    "rolled": (lambda x: F.max_pool2d(x.roll(5, 2), 3), 8 * 64),
    "every second": (lambda x: x[:, :, ::2, 1::2], 8 * 144),
    "enlarged": (lambda x: F.interpolate(x[..., ::2, ::2], scale_factor=2.0, mode="bilinear"), 8 * 576),
    "group norm": (lambda x: F.max_pool2d(F.group_norm(x, 2), 4), 8 * 36),
    "layer norm": (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)[:, :, 3::6], 8 * 96),
    "layer norm over the map": (lambda x: F.layer_norm(x, (8, 24, 24))[:, :, 3::6], 8 * 96),
    "softmax over channels": (lambda x: F.max_pool2d(F.softmax(x, 1), 4), 8 * 36),
    "softmax over columns": (lambda x: F.max_pool2d(F.softmax(x, 3), 4), 8 * 36),
    "a place of its own": (lambda x: F.max_pool2d(x + weight(8, 24, 24), 4), 8 * 36),
    "a mask": (lambda x: F.max_pool2d(x * (x > 0), 4), 8 * 36),
    "where": (lambda x: F.max_pool2d(torch.where(x > 0.1, x, 0.3 * x.square()), 4), 8 * 36),
    "twice the same": (lambda x: F.max_pool2d(x + x, 4), 8 * 36),
    "normalised first": (lambda x: F.max_pool2d(F.batch_norm(x, weight(8), weight(8).abs() + 1), 4), 8 * 36),
    "pixels to channels": (lambda x: F.pixel_unshuffle(x, 2)[:, :, 2::5], 32 * 24),
    "attention": (
        lambda x: F.scaled_dot_product_attention(*(F.avg_pool2d(x, 4).flatten(2).transpose(1, 2),) * 3),
        8 * 36,
    ),
    "outside the vocabulary": (lambda x: F.max_pool2d(x, 4).cumsum(2), 8 * 36),
    "used again after it was overwritten": (lambda x: F.max_pool2d(x.relu_() + x.mul_(0.5).exp(), 4), 8 * 36),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_operations(name: str) -> None:
    middle, width = MIDDLES[name]
    net = classifier(Made(middle, width), check=False)
    for window, stride in ((4, 3), (13, 5)):
        assert difference(net, window, stride) < 1e-5


def test_computes_what_changes_and_no_more() -> None:
    """By hand: a window of 4 makes 6 of 24 after a 3 × 3 convolution, less at the border."""
    net = classifier(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 576, 5)), check=False)
    starts = np.array([0, 10, 20])
    with torch.no_grad(), net.session():
        lens = Incremental(net, photos(1), Spans(starts, starts + 4, SIZE), Spans(starts, starts + 4, SIZE))
    rows, columns = np.array([1, 0]), np.array([1, 2])
    assert lens.least(rows, columns) == 27 * 4 * (36 + 25) + 2 * 5 * 4 * 576
    assert lens.multiply_adds(Batch(rows, columns)) == 2 * (27 * 4 * 36 + 5 * 4 * 576)
    assert lens.dense == 27 * 4 * 576 + 5 * 4 * 576


def test_normalisation_goes_into_the_convolution() -> None:
    net = classifier(Spelled("module"), check=False)
    starts = np.array([0])
    with torch.no_grad(), net.session():
        lens = Incremental(net, photos(1), Spans(starts, starts + 4, SIZE), Spans(starts, starts + 4, SIZE))
    assert [step.op for step in lens.steps].count("batch_norm") == 0


def test_a_planted_fault_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that is too small by one pixel shows."""
    right = incremental._Sliding.touched

    def wrong(self: incremental._Sliding, spans: Spans, size: int) -> Spans:
        found = right(self, spans, size)
        return Spans(found.low, np.maximum(found.low + 1, found.high - (self.kernel > 1)), size)

    monkeypatch.setattr(incremental._Sliding, "touched", wrong)
    assert difference(classifier(FAMILIES["vgg"](), check=False), 4, 3) > 1e-4


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_view_is_tried_out_where_the_network_lies(device: str) -> None:
    seen = []

    def view(x: Tensor) -> Tensor:
        seen.append(x.device.type)
        return x[:, 1:3].transpose(2, 3)

    clean = torch.zeros(1, 8, 5, 7, device=device)
    rows, columns = (Spans(np.array([0]), np.array([2]), side) for side in (5, 7))
    value = Value(clean, (1, 8, 5, 7), (2, 3), rows, columns)
    plain = incremental._Plain(view, (clean,), {}, lambda _: value)
    unused: Any = SimpleNamespace(op="getitem")
    step = incremental._view(unused, unused, plain, view(clean))
    assert seen == [device, device]
    assert step is not None
    assert step.outputs[0].axes == (3, 2)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        return means if means.tolist()[0][0] > 0 else x.amax((2, 3))


class Writing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x[:, :1]
        y.mul_(2)
        return x.mean((2, 3))


class Joining(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.mean((2, 3)).reshape(-1), torch.ones(3, 3))[None]


@pytest.mark.parametrize(
    ("module", "words"), [(Deciding(), "depends on the image"), (Writing(), "other views"), (Joining(), "dimension")]
)
def test_refuses_what_it_cannot_follow(module: nn.Module, words: str) -> None:
    net = Classifier(module, size=SIZE, check=False)
    starts = np.array([0])
    with torch.no_grad(), net.session(), pytest.raises(UnknownOperation, match=words):
        Incremental(net, photos(1), Spans(starts, starts + 4, SIZE), Spans(starts, starts + 4, SIZE))
