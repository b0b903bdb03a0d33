"""Colours that mean what is said of them."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from seewhy.report import pictures
from seewhy.report.pictures import ABOVE, BELOW, GREY

Array = np.ndarray[Any, Any]


def brightest(picture: Image.Image) -> tuple[int, int]:
    values = np.asarray(picture, dtype=float).sum(2)
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 3), (3, 2)])
def test_overlay_lights_the_right_place(row: int, column: int) -> None:
    values = np.zeros((4, 4))
    values[row, column] = 3.0
    laid = pictures.overlay(Image.new("RGB", (40, 40), "grey"), values, "positive")
    assert laid.scale == pytest.approx(3.0, rel=0.2)
    y, x = brightest(laid.picture)
    assert (y // 10, x // 10) == (row, column)


def test_signs_have_their_colours_and_zero_shows_the_photograph() -> None:
    values = np.array([[1.0, 0.0, -1.0]])
    laid = np.asarray(pictures.overlay(Image.new("RGB", (3, 1), (200, 200, 200)), values, "signed").picture)
    assert np.abs(laid[0, 0].astype(int) - ABOVE).max() <= 6
    assert np.abs(laid[0, 2].astype(int) - BELOW).max() <= 6
    assert laid[0, 1].tolist() == [round(GREY[0] + (GREY[1] - GREY[0]) * 200 / 255)] * 3


def test_scale_ignores_a_few_outliers_but_never_everything() -> None:
    values = np.linspace(0, 1, 10_000).reshape(100, 100)
    values[0, 0] = 1e6
    assert pictures.robust_scale(values) == pytest.approx(pictures.SHARE, abs=1e-3)
    single = np.zeros((100, 100))
    single[3, 4] = -7
    assert pictures.robust_scale(single) == 7
    assert pictures.robust_scale(np.zeros((3, 3))) == 0
    dark = pictures.overlay(Image.new("RGB", (3, 3)), np.zeros((3, 3)), "signed")
    assert dark.scale == 0
    assert dark.picture.getpixel((1, 1)) == (GREY[0],) * 3


def test_ramp_is_inferno() -> None:
    strength = np.linspace(0, 1, 101)
    expected = matplotlib.colormaps["inferno"](strength)[:, :3] * 255
    assert np.abs(pictures.ramp(strength) - expected).max() < 12
    lightness = pictures.ramp(strength) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all(), "lighter is always more"


def test_heat_is_the_explainers_own() -> None:
    import torch

    from seewhy.data.images import Images
    from seewhy.engine import Cost
    from seewhy.explain.base import Attribution

    values = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    images, target = Images(torch.zeros(2, 3, 5, 5)), torch.tensor([0, 1])
    found = Attribution("m", values, target, target.float(), ("a", "b"), images, "", Cost(), (), {}, "signed")
    signs: tuple[pictures.Sign, ...] = ("absolute", "positive", "signed")
    for sign in signs:
        expected = found.heatmap(sign)
        for index in range(2):
            drawn = pictures.heat(values[index].numpy(), sign)
            assert np.allclose(drawn, expected[index].numpy(), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 8, 32, 200])
def test_amplified_difference_fits_and_is_as_large_as_can_be(steps: int) -> None:
    original = np.full((3, 4, 4), 0.1)
    changed = original.copy()
    changed[0, 1, 2] += steps / 255
    picture, factor = pictures.amplified(original, changed)
    assert factor * steps / 255 <= 0.5 + 1e-4 or factor == 1
    assert factor * steps / 255 > 0.19, "a larger round factor would fit"
    red = np.asarray(picture)[1, 2, 0]
    assert abs(int(red) - min(255, 127.5 + factor * steps)) <= 1
    assert np.asarray(picture)[0, 0].tolist() in ([127] * 3, [128] * 3)


def test_where_says_the_ninth() -> None:
    spots = {(0, 0): "in the upper left", (0, 4): "at the top", (4, 4): "in the centre", (8, 8): "in the lower right"}
    for (row, column), words in spots.items():
        values = np.full((9, 9), 0.01)
        values[row, column] = -5
        assert pictures.where(values) == f"strongest {words}"
    assert pictures.where(np.ones((7, 7))) == "spread over the whole picture"
    assert pictures.where(np.zeros((7, 7))) == "zero everywhere"


def test_region_and_outline_keep_to_the_box() -> None:
    photo = Image.new("RGB", (60, 40), (100, 150, 200))
    part = pictures.region(photo, (-10, 0, 30, 40))
    assert part.size == (40, 40)
    assert part.getpixel((5, 20)) == (0, 0, 0), "past the photograph"
    assert part.getpixel((20, 20)) == (100, 150, 200)
    framed = pictures.outlined(photo, (10, 0, 50, 40))
    assert framed.getpixel((30, 20)) == (100, 150, 200)
    assert framed.getpixel((2, 20)) == (45, 68, 90)
    assert pictures.outlined(photo, (0, 0, 60, 40)) is photo


def test_filter_tiles_are_on_one_scale() -> None:
    tiles = np.stack([np.full((3, 3, 3), value) for value in (-0.5, 0.0, 0.5)])
    levels = [tile.getpixel((0, 0)) for tile in pictures.filter_tiles(tiles, 0.5, 12)]
    assert levels == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    assert pictures.filter_tiles(tiles, 0.5, 12)[0].size == (12, 12)
