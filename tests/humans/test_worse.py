"""Worse images: each way against an independent one, levels and seeds, and what is said of the loss."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]
from torch import nn

from seewhy.classifier import Classifier
from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import DataError, InputError, SpecError
from seewhy.humans.estimate import share
from seewhy.humans.match import LabelMap
from seewhy.humans.say import NBSP
from seewhy.humans.worse import KINDS, Point, blurred, coarsened, compressed, faded, noisy, worse


def photographs(n: int = 6, side: int = 24) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(n, 3, 5, 5, generator=drawn), (side, side), mode="bilinear")
    return (smooth + 0.2 * torch.rand(n, 3, side, side, generator=drawn)).clamp(0, 1)


def test_blur_is_scipys_gaussian() -> None:
    pixels = photographs(2).double()
    for level in (0.01, 0.04, 0.08):
        theirs = ndimage.gaussian_filter(pixels.numpy(), (0, 0, 24 * level, 24 * level), mode="nearest", truncate=8)
        np.testing.assert_allclose(blurred(pixels, level).numpy(), theirs, atol=2e-4)


def test_jpeg_is_pillows() -> None:
    pixels = photographs(2)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels[1].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=20, subsampling="4:2:0"
    )
    theirs = np.asarray(Image.open(buffer)) / 255
    np.testing.assert_allclose(compressed(pixels, 20)[1].permute(1, 2, 0).numpy(), theirs, atol=1e-6)


def test_contrast_noise_and_resolution() -> None:
    pixels = photographs(2)
    assert faded(pixels, 0.3).std() == pytest.approx(0.3 * float(pixels.std()), rel=1e-5)
    assert faded(torch.full((1, 3, 2, 2), 0.5), 0.1).unique().tolist() == [0.5]
    noise = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    grey = torch.full((2, 3, 24, 24), 0.5)
    assert float((noisy(grey, 0.1, noise) - grey).std()) == pytest.approx(0.1, rel=0.05)
    assert noisy(pixels, 5.0, noise).min() >= 0
    assert noisy(pixels, 5.0, noise).max() <= 1
    coarse = coarsened(pixels, 1 / 24)
    np.testing.assert_allclose(coarse.amax((2, 3)), pixels.mean((2, 3)), atol=1e-6)  # one pixel is the mean
    blocks = pixels.reshape(2, 3, 12, 2, 12, 2).mean((3, 5))
    theirs = torch.nn.functional.interpolate(blocks, (24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(coarsened(pixels, 0.5), theirs)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gets_worse_and_stays_an_image(name: str) -> None:
    kind, pixels = KINDS[name], photographs()
    more = (torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)),) if name == "noise" else ()
    kept = pixels.clone()
    off = []
    for level in kind.levels:
        changed = kind.make(pixels, level, *more)
        assert changed.shape == pixels.shape
        assert changed.dtype == torch.float32
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1
        off.append(float((changed - pixels).square().mean()))
        assert torch.equal(changed[2:3], kind.make(pixels[2:3], level, *(part[2:3] for part in more)))
    assert torch.equal(pixels, kept)
    assert off == sorted(off)


def brightness(side: int = 8) -> Classifier:
    """Two classes: darker or brighter than mid-grey, by a sharp edge in the middle of the image; contrast cannot hide it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(400.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            edge = (x[..., : side // 2] - x[..., side // 2 :]).mean((1, 2, 3))
            return torch.stack([torch.zeros_like(edge) + 20, self.weight * (edge.abs() - 0.05) + 20], 1)

    return Classifier(Net(), size=side, labels=("flat", "edge"))


def edges(n: int = 40, side: int = 8) -> DataSet:
    """Half of the images flat, half with an edge of 40 of 255."""
    array = np.full((n, side, side, 3), 108, np.uint8)
    array[1::2, :, : side // 2] += 40
    return DataSet(
        "edges", tuple(f"{i}.png" for i in range(n)), Arrays(array), tuple([0, 1] * (n // 2)), ("flat", "edge")
    )


def test_the_accuracy_falls_where_it_must() -> None:
    data, net = edges(), brightness()
    found = worse(net, data, data.labels or (), kinds=("contrast", "resolution"))
    # an edge of 40/255 is seen from 0.05 on: contrast of 30 % leaves 0.047
    assert [point.right.value for point in found.curves["contrast"]] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert [point.right.value for point in found.curves["resolution"]] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert found.curves["contrast"][0].count == 40
    assert found.right.shape == (2, 6, 40)
    said = " ".join(found.words()).replace(NBSP, " ")
    assert "is right on 100 % (95 %: 91.2 to 100) of 40 images as they are" in said
    assert "With contrast 5 % it is right on 50.0 % (95 %: 35.2 to 64.8)" in said
    assert (
        "the loss is clear from contrast 30 % on (exact McNemar test), and half of what it has above chance is gone"
        in said
    )
    assert found.cost.forward == 40 * (1 + 10)
    assert len(found.table()) == 12
    assert len(found.plot().axes) >= 2


def test_levels_that_cost_nothing_are_said_to() -> None:
    data, net = edges(), brightness()
    found = worse(net, data, data.labels or (), kinds=("jpeg",))
    assert "no level tried costs more than these images can show" in " ".join(found.words())


def test_a_draw_depends_on_the_seed_alone_and_not_on_the_batch() -> None:
    data, net = edges(), brightness()
    first = worse(net, data, data.labels or (), kinds=("noise",), limit=20, seed=3)
    assert len(first.images) == 20
    assert "20 of 40 images, drawn by the seed 3" in first.notes
    net.engine.batch = 3
    again = worse(net, data, data.labels or (), kinds=("noise",), limit=20, seed=3)
    assert again.images == first.images
    assert torch.equal(again.right, first.right)
    assert worse(net, data, data.labels or (), kinds=("noise",), limit=20, seed=4).images != first.images


def test_people_stand_beside_it() -> None:
    data, net = edges(), brightness()
    people = [Point("clear", None, share(0.9, 100), 100), Point("c30", None, share(0.8, 100), 100)]
    mine = [Point("clear", None, share(0.99, 100), 100), Point("c30", None, share(0.5, 100), 100)]
    found = worse(net, data, data.labels or (), kinds=("contrast",), people=people, beside=mine)
    said = " ".join(found.words()).replace(NBSP, " ")
    assert (
        "In the condition c30 people are right on 80.0 % (95 %: 71.1 to 86.7), it on 50.0 % (95 %: 40.4 to 59.6)."
        in said
    )
    assert {(row["who"], row["kind"]) for row in found.table()} == {
        ("model", "contrast"), ("people", "condition"), ("model", "condition")}  # fmt: skip
    assert [axis.get_title() for axis in found.plot().axes if axis.get_visible()][-1] == "as people saw them"


def test_it_answers_in_peoples_categories() -> None:
    data, net = edges(), brightness()
    upside_down = LabelMap(net.labels, ("line", "nothing"), np.array([1, 0]))
    found = worse(net, data, [1 - (label or 0) for label in data.labels or ()], upside_down, kinds=("contrast",))
    assert found.curves["contrast"][0].right.value == 1.0


def test_bad_input() -> None:
    data, net = edges(), brightness()
    with pytest.raises(SpecError, match='there is no "contarst"; did you mean "contrast"'):
        worse(net, data, data.labels or (), kinds=("contarst",))
    with pytest.raises(SpecError, match="expected at least one of"):
        worse(net, data, data.labels or (), kinds=())
    with pytest.raises(InputError, match="expected a label for each of 40 images, got 2"):
        worse(net, data, [0, 1])
    with pytest.raises(DataError, match="no image of edges has a true class"):
        worse(net, data, [None] * 40)
