"""Occlusion against a plain loop over windows, pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, SIZE, SPELLINGS, Spelled, classifier, photos
from seewhy.classifier import Classifier
from seewhy.errors import InputError, SpecError
from seewhy.explain import Occlusion
from seewhy.explain.baseline import baseline
from seewhy.lens.incremental import Incremental
from seewhy.method import parse


def by_loop(net: Classifier, image: Tensor, target: int, sides: tuple[int, ...], stride: int, fill: Tensor) -> Tensor:
    """The mean fall over the windows on each pixel, then over the sides, as it is written."""
    height, width = image.shape[1:]
    clean = net.predict(image[None])[0, target]
    maps = []
    for side in sides:
        total, count = torch.zeros(height, width), torch.zeros(height, width)
        for top in sorted({*range(0, height - side + 1, stride), height - side}):
            for left in sorted({*range(0, width - side + 1, stride), width - side}):
                where = (..., slice(top, top + side), slice(left, left + side))
                covered = image.clone()
                covered[where] = fill[where]
                total[where] += clean - net.predict(covered[None])[0, target]
                count[where] += 1
        assert count.min() > 0
        maps.append(total / count)
    return torch.stack(maps).mean(0)


def close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_loop(family: str) -> None:
    net, images = classifier(FAMILIES[family]()), photos(2)
    found = Occlusion(window=(7,), stride=5, fill="black")(net, images, [1, 3])
    for index, target in enumerate((1, 3)):
        expected = by_loop(net, images[index], target, (7,), 5, torch.zeros(3, SIZE, SIZE))
        close(found.values[index, 0], expected)
    assert found.measures["difference from dense passes"].max() < 1e-5


@pytest.mark.parametrize("fill", ["black", "white", "grey", "mean", "blur", "noise"])
def test_fills(fill: str) -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(1)
    found = Occlusion(window=(6,), fill=fill, seed=4)(net, images, 2)
    close(found.values[0, 0], by_loop(net, images[0], 2, (6,), 3, baseline(fill, images, 4)[0]))


def test_several_windows_are_averaged() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(1)
    found = parse("occlusion:window=4+9+24,stride=4,fill=white")(net, images, 0)
    close(found.values[0, 0], by_loop(net, images[0], 0, (4, 9, 24), 4, torch.ones(3, SIZE, SIZE)))


def test_an_image_that_is_not_square() -> None:
    net = classifier(FAMILIES["densenet"](), size=(18, 30))
    images = torch.rand(1, 3, 18, 30, generator=torch.Generator().manual_seed(2))
    found = Occlusion(window=(5,), fill="black")(net, images, 1)
    close(found.values[0, 0], by_loop(net, images[0], 1, (5,), 3, torch.zeros(3, 18, 30)))


def test_one_set_of_passes_serves_every_target() -> None:
    net, images = classifier(FAMILIES["resnet"]()), photos(2)
    several = Occlusion().each(net, images, [0, 4, None])
    for found, target in zip(several, (0, 4, None), strict=True):
        alone = Occlusion()(net, images, target)
        torch.testing.assert_close(found.values, alone.values, rtol=0, atol=1e-6)
        assert found.cost.forward == alone.cost.forward


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_are_followed_not_refused(spelling: str) -> None:
    found = Occlusion()(classifier(Spelled(spelling)), photos(1), 0)
    assert "computed in windows, exactly" in found.notes[0]
    assert found.measures["share of dense multiply-adds"][0] < 0.15


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_batches_change_nothing(batch: int) -> None:
    net, images = classifier(FAMILIES["inception"]()), photos(1)
    expected = Occlusion()(net, images, 1).values
    net.engine.batch = batch
    torch.testing.assert_close(Occlusion()(net, images, 1).values, expected, rtol=0, atol=1e-5)


def test_dense_passes_where_windows_save_nothing() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(1)
    found = Occlusion(window=(22,), stride=1, fill="black")(net, images, 2)
    assert "in dense passes: windows would take" in found.notes[0]
    assert found.measures["share of dense multiply-adds"][0] == 1
    close(found.values[0, 0], by_loop(net, images[0], 2, (22,), 1, torch.zeros(3, SIZE, SIZE)))


class Writing(nn.Module):
    """Writes into a part of its map, which the lens does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).clone()
        x[:, 1] = 2 * x[:, 0]
        return self.fc(x.square().mean((2, 3)))


def test_dense_passes_where_the_lens_cannot_follow() -> None:
    net, images = classifier(Writing()), photos(1)
    found = Occlusion(fill="black")(net, images, 2)
    assert "in dense passes, because the incremental lens has no rule for the operation setitem" in found.notes[0]
    close(found.values[0, 0], by_loop(net, images[0], 2, (4,), 2, torch.zeros(3, SIZE, SIZE)))


class Counting(nn.Module):
    """Takes its batch apart by the number of images that it saw."""

    def __init__(self, mask: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.mask = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), mask

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x[torch.ones(len(x), dtype=torch.bool)] if self.mask else x.split([len(x)])[0]
        return self.fc(x.square().mean((2, 3)))


@pytest.mark.parametrize("mask", [False, True])
def test_dense_passes_where_a_view_fits_one_image_alone(mask: bool) -> None:
    net, images = classifier(Counting(mask)), photos(1)
    found = Occlusion(fill="black")(net, images, 2)
    assert "the incremental lens cannot run this network for several occlusions at once" in found.notes[0]
    close(found.values[0, 0], by_loop(net, images[0], 2, (4,), 2, torch.zeros(3, SIZE, SIZE)))


def test_a_tape_that_is_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense passes at two positions notice it, and the answer is theirs."""
    net, images = classifier(FAMILIES["vgg"]()), photos(1)
    right = Incremental.answer
    monkeypatch.setattr(Incremental, "answer", lambda self, joints: 1.001 * right(self, joints))
    found = Occlusion(fill="black")(net, images, 2)
    assert "in dense passes: the lens differed from them by 1e-03" in found.notes[0]
    close(found.values[0, 0], by_loop(net, images[0], 2, (4,), 2, torch.zeros(3, SIZE, SIZE)))


def test_a_fill_that_is_the_image() -> None:
    net = classifier(FAMILIES["vgg"]())
    found = Occlusion(fill="grey")(net, torch.full((1, 3, SIZE, SIZE), 0.5))
    assert not found.values.any()
    assert "the fill is the image itself" in found.notes[0]
    assert found.cost.forward == 1


def test_windows_that_the_fill_leaves_alone_cost_nothing() -> None:
    """A spot of light on black: windows beside it are exactly zero, those on it are not."""
    net, image = classifier(FAMILIES["resnet"]()), torch.zeros(1, 3, SIZE, SIZE)
    image[:, :, 10:12, 4:6] = 1
    found = Occlusion(fill="black")(net, image, 1)
    close(found.values[0, 0], by_loop(net, image[0], 1, (4,), 2, torch.zeros(3, SIZE, SIZE)))
    assert not found.values[..., 14:, :].any()
    assert found.values[0, 0, 10, 4]
    assert found.cost.forward < 12


def test_default_window_is_scaled_to_the_image() -> None:
    for side, window, positions in ((224, 16, 27), (32, 4, 15), (299, 21, 27)):
        (grid,) = Occlusion().grids((side, side))
        assert grid.window == window
        assert abs(len(grid.rows) - positions) <= 1
        assert grid.rows[-1] == side - window
    assert all(len(Occlusion().grids((side, side))[0].rows) <= 31 for side in range(8, 600))


@pytest.mark.parametrize("spec", ["occlusion", "occlusion:window=9", "occlusion:window=12+16,stride=5"])
@pytest.mark.parametrize("size", [(24, 24), (16, 56), (56, 16)])
def test_no_more_is_spent_than_passes_say_for_the_size(spec: str, size: tuple[int, int]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    method, net = parse(spec), Classifier(module, size=size, check=False)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    spent = method(net, image, 0).cost.forward
    assert method.passes_on(size)[0] - 2 <= spent <= method.passes_on(size)[0]


def test_passes_are_those_of_the_size() -> None:
    assert Occlusion(window=(75,)).passes_on((600, 600)) == (3 + 15 * 15, 0)
    assert Occlusion().passes_on((224, 224)) == (3 + 27 * 27, 0)
    assert Occlusion().passes_on((64, 512)) == (3 + 21 * 170, 0)
    assert all(Occlusion().passes_on((side, side)) <= Occlusion().passes for side in range(8, 600))
    assert Occlusion(stride=20).passes[0] > 3  # larger than the window, which the image is told, not the plan


def test_refuses_what_cannot_be() -> None:
    for spec, words in {
        "occlusion:window=0": "at least 1 pixel",
        "occlusion:stride=0": "at least 1 pixel",
        "occlusion:window=4,stride=5": "never be covered",
        "occlusion:window=16+4,stride=5": "never be covered",
        "occlusion:fill=pink": "black, white",
    }.items():
        with pytest.raises(SpecError, match=words):
            parse(spec)
    net = classifier(FAMILIES["vgg"]())
    with pytest.raises(InputError, match="within the image of 24 × 24 pixels, got window=25"):
        Occlusion(window=(25,))(net, photos(1))
    with pytest.raises(InputError, match="at most the window of 4 pixels"):
        Occlusion(stride=5)(net, photos(1))
