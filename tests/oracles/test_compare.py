"""How maps are brought to one shape and compared, against SciPy, enumeration and geometry worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage  # type: ignore[import-untyped]
import scipy.stats  # type: ignore[import-untyped]
import torch
from PIL import Image
from torch import Tensor

from seewhy.data.images import Geometry, Images
from seewhy.engine import Cost
from seewhy.errors import InputError, SpecError
from seewhy.explain import Attribution, agreement, contrast, side_by_side
from seewhy.explain.base import Sign, smallest_region
from seewhy.explain.compare import DISAGREE, on_grid, rank_correlations
from seewhy.report import pictures

#: a photograph of 60 × 40, of which the model sees the middle 40 × 40 at 20 × 20
GEOMETRY = Geometry((40, 60), (10.0, 0.0, 50.0, 40.0), (20, 20))


def made(values: Tensor, method: str = "m", sign: Sign = "signed", label: str = "cat", target: int = 0) -> Attribution:
    pixels = torch.rand(len(values), 3, 20, 20, generator=torch.Generator().manual_seed(7))
    images = Images(pixels, geometry=(GEOMETRY,) * len(values))
    score, targets = torch.full((len(values),), 2.0 + target), torch.full((len(values),), target)
    return Attribution(method, values, targets, score, (label,) * len(values), images, "", Cost(), (), {}, sign)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spot(row: int, column: int) -> Tensor:
    values = torch.zeros(1, 1, 20, 20)
    values[0, 0, row, column] = 1.0
    return values


def drawn_scale(picture: Image.Image) -> float:
    return float(picture.info["scale"])


# Heat maps


def test_signs_are_worked_out_after_the_channels_are_added() -> None:
    values = torch.tensor([[[[1.0, -3.0]], [[-2.0, 1.0]]]])
    found = made(values)
    size = (1, 2)
    assert found.heatmap("signed", size).tolist() == [[[-1.0, -2.0]]]
    assert found.heatmap("positive", size).tolist() == [[[0.0, 0.0]]]
    assert found.heatmap("absolute", size).tolist() == [[[3.0, 4.0]]]


def test_smoothing_is_a_gaussian_that_keeps_the_sum_away_from_the_border() -> None:
    found = made(spot(10, 9))
    smooth = found.heatmap(smooth=1.5)[0]
    expected = scipy.ndimage.gaussian_filter(spot(10, 9)[0, 0].numpy(), 1.5, mode="nearest", radius=4)
    assert np.allclose(smooth.numpy(), expected, atol=1e-6)
    assert float(smooth.sum()) == pytest.approx(1, abs=1e-5)
    assert int(smooth.argmax()) == 10 * 20 + 9
    border = made(spot(0, 0)).heatmap(smooth=1.5)[0]  # the border repeated counts again: more than the sum
    assert float(border.sum()) > 1.1
    assert torch.allclose(made(torch.full((1, 1, 20, 20), 3.0)).heatmap(smooth=2.0), torch.tensor(3.0))
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="expected smooth ≥ 0"):
            found.heatmap(smooth=wrong)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 15), (19, 19)])
def test_a_map_lies_where_the_model_looked_on_the_photograph(row: int, column: int) -> None:
    laid = made(spot(row, column)).on_photo()
    assert laid.shape == (40, 60)
    assert laid[:, :10].isnan().all()
    assert laid[:, 50:].isnan().all()
    assert not laid[:, 10:50].isnan().any()
    strong = torch.where(laid.isnan(), 0, laid) == laid[:, 10:50].max()
    # pixel (i, j) of the input covers rows 2i and 2i + 1, columns 10 + 2j and 11 + 2j
    assert {tuple(place) for place in strong.nonzero().tolist()} <= {
        (2 * row + down, 10 + 2 * column + across) for down in (0, 1) for across in (0, 1)
    }
    with pytest.raises(InputError, match="expected an image from 0 to 0, got 1"):
        made(spot(row, column)).on_photo(1)


def test_the_whole_photograph_is_drawn_and_another_is_refused() -> None:
    photo = Image.new("RGB", (60, 40), (200, 200, 200))
    found = made(spot(5, 5))
    drawn = np.asarray(found.over(photo, contour=1.0))
    assert drawn.shape == (40, 60, 3)
    assert drawn[20, 2].max() < drawn[20, 40].max(), "darker where the model did not look"
    y, x = np.unravel_index(int((drawn[..., 0].astype(int) - drawn[..., 2]).argmax()), (40, 60))
    assert (10 <= y <= 11 and 20 <= x <= 21) or drawn[10:12, 20:22].max() == 255  # orange, or its outline
    values = found.on_photo().numpy()
    assert drawn_scale(found.over(photo)) == float(np.quantile(np.abs(values[~np.isnan(values)]), 0.999))
    assert drawn_scale(made(torch.zeros(1, 1, 20, 20)).over(photo)) == 0
    with pytest.raises(InputError, match="60 × 40 pixels, got one of 30 × 20"):
        found.over(photo.resize((30, 20)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_region_is_the_smallest_that_holds_the_share(seed: int, share: float) -> None:
    values = noise(seed, 1, 3, 3)
    region = smallest_region(values, share)[0]
    positive = values[0].clamp_min(0).double()
    held = float(positive[region].sum() / positive.sum())
    assert held >= share - 1e-9
    best = np.sort(positive.flatten().numpy())[::-1].cumsum() / float(positive.sum())
    assert int(region.sum()) == int(np.searchsorted(best, share - 1e-9)) + 1
    assert not region[values[0] <= 0].any()


def test_a_region_of_nothing_is_empty_and_a_wrong_share_refused() -> None:
    assert not made(-torch.ones(1, 1, 20, 20)).region().any()
    for wrong in (0.0, 1.5):
        with pytest.raises(SpecError, match=r"in \(0, 1\]"):
            made(spot(1, 1)).region(wrong)


def test_an_outline_is_the_border_of_the_region() -> None:
    mask = np.zeros((7, 7), bool)
    mask[2:5, 2:5] = True
    ringed = pictures.ringed(np.full((7, 7, 3), 90, np.uint8), mask)
    assert ringed[3, 3].tolist() == [90] * 3
    assert all(ringed[y, x].tolist() == [255] * 3 for y, x in ((2, 2), (2, 3), (4, 4)))
    assert all(ringed[y, x].tolist() == [0] * 3 for y, x in ((1, 2), (5, 3), (3, 1)))
    assert ringed[0, 0].tolist() == [90] * 3


# Agreement


@pytest.mark.parametrize("seed", range(3))
def test_rank_correlations_are_spearmans(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = draw.integers(0, 6, (4, 200)).astype(np.float32)  # many ties
    found = rank_correlations(torch.from_numpy(rows)).numpy()
    assert np.allclose(found, scipy.stats.spearmanr(rows.T).statistic, atol=1e-9)
    constant = rank_correlations(torch.stack([torch.from_numpy(rows[0]), torch.zeros(200)]))
    assert constant.isnan().tolist() == [[False, True], [True, True]]


def test_maps_of_any_size_meet_on_one_grid() -> None:
    fine = noise(0, 1, 28, 42)
    blocks = fine.reshape(1, 14, 2, 14, 3).mean((2, 4))
    assert torch.allclose(on_grid(fine), blocks, atol=1e-6)
    small = on_grid(noise(1, 1, 7, 7))
    assert small.shape == (1, 14, 14)
    same = noise(2, 1, 14, 14)
    assert torch.equal(on_grid(same), same)


def test_agreement_is_spearmans_on_the_grid_in_the_sense_that_both_have() -> None:
    a, b = made(noise(0, 2, 3, 20, 20), "a"), made(noise(1, 2, 3, 20, 20), "b", "absolute")
    c, d = made(noise(2, 2, 1, 7, 7), "c", "positive"), made(noise(3, 2, 1, 20, 20), "d")
    found = agreement([a, b, c, d])
    assert found.methods == ("a", "b", "c", "d")
    assert (found.grid, found.notes) == (14, ())
    senses: dict[tuple[int, int], Sign] = {
        **{(0, 1): "absolute", (0, 2): "positive", (0, 3): "signed"},
        **{(1, 2): "absolute", (1, 3): "absolute", (2, 3): "positive"},
    }
    for index in range(2):
        for (i, j), sense in senses.items():
            cells = []
            for each in ((a, b, c, d)[i], (a, b, c, d)[j]):
                own = each.heatmap(sense, tuple(each.values.shape[2:]))  # type: ignore[arg-type]
                cells.append(on_grid(own)[index].flatten().numpy())
            expected = scipy.stats.spearmanr(*cells).statistic
            assert float(found.correlations[index, i, j]) == pytest.approx(expected, abs=1e-9)
    assert torch.equal(found.correlations, found.correlations.mT)


def test_smoothed_maps_are_compared_as_they_are_drawn() -> None:
    a, b = made(noise(0, 1, 3, 20, 20), "a"), made(noise(1, 1, 3, 20, 20), "b", "absolute")
    c, d = made(noise(2, 1, 1, 7, 7), "c", "positive"), made(noise(3, 1, 1, 20, 20), "d")
    found = agreement([a, b, c, d], smooth=1.5).correlations[0]
    pairs: list[tuple[int, int, Sign]] = [(0, 1, "absolute"), (0, 2, "positive"), (0, 3, "signed"), (1, 2, "absolute")]
    for i, j, sense in pairs:
        cells = [
            on_grid(each.heatmap(sense, smooth=1.5)).flatten().numpy() for each in ((a, b, c, d)[k] for k in (i, j))
        ]
        assert float(found[i, j]) == pytest.approx(scipy.stats.spearmanr(*cells).statistic, abs=1e-9)
    with pytest.raises(SpecError, match="expected smooth ≥ 0"):
        agreement([a, d], smooth=-1.0)


def test_who_disagrees_is_said_the_worst_first() -> None:
    base = noise(0, 1, 1, 20, 20)
    found = agreement([made(base, "lrp"), made(-base, "lime"), made(base * 3, "shap")])
    assert [pair[:2] for pair in found.disagreements()] == [("lrp", "lime"), ("lime", "shap")]
    assert found.warnings()[0] == (
        "lrp and lime disagree here (rank correlation −1.00): no single map should be read as the reason"
    )
    assert found.disagreements(below=-1.1) == ()
    assert 0 < DISAGREE < 0.5
    assert len(found.plot().axes) == 1


def test_a_constant_map_has_no_correlation_and_a_note() -> None:
    found = agreement([made(noise(0, 1, 1, 20, 20), "a"), made(torch.ones(1, 1, 20, 20), "b")])
    assert found.correlations[0].isnan().tolist() == [[False, True], [True, True]]
    assert found.disagreements() == ()
    assert found.notes == (
        "the map of b is constant for image 1: it has no order, and its correlations are not defined",
    )
    assert any("–" in text.get_text() for text in found.plot().axes[0].texts)


def test_a_map_without_anything_positive_beside_maps_of_that_alone_is_said() -> None:
    """One speaks against the class everywhere, where the others show what speaks for it: the pairs have no number."""
    for_it = noise(0, 1, 1, 20, 20).abs()
    signed, flat = made(-for_it, "a"), made(noise(3, 1, 1, 20, 20).sign(), "b")
    given = [signed, made(for_it, "c", "positive"), made(noise(1, 1, 1, 20, 20).abs(), "d", "positive")]
    found = agreement(given)
    assert found.correlations[0, 0, 1:].isnan().all()
    assert found.correlations[0].diagonal().isfinite().all()
    assert found.correlations[0, 1, 2].isfinite()
    assert found.notes == (
        "a cannot be compared for image 1 with c, d by their positive parts: those of a are the same everywhere",
    )
    assert (
        agreement([made(for_it, "c", "positive"), signed])
        .notes[0]
        .startswith("a cannot be compared for image 1 with c")
    )
    (note,) = agreement([flat, signed, made(for_it, "e", "absolute")], grid=20).notes
    assert (
        note == "b cannot be compared for image 1 with e by their absolute values: those of b are the same everywhere"
    )
    assert agreement(given, sign="signed").notes == ()


def test_what_cannot_be_compared_is_refused() -> None:
    one = made(noise(0, 1, 1, 20, 20))
    with pytest.raises(InputError, match="at least two explanations to compare, got 1"):
        agreement([one])
    with pytest.raises(InputError, match="at least one explanation"):
        side_by_side([])
    other = replace(one, images=Images(torch.zeros(1, 3, 20, 20)))
    calls: list[Any] = [
        lambda: agreement([one, other]),
        lambda: contrast(one, other),
        lambda: side_by_side([one, other]),
    ]
    for call in calls:
        with pytest.raises(InputError, match="explanations of the same images"):
            call()
    with pytest.raises(InputError, match="by one method, got m and n"):
        contrast(one, replace(one, method="n"))
    with pytest.raises(InputError, match="of one shape"):
        contrast(one, made(noise(0, 1, 1, 7, 7)))
    with pytest.raises(InputError, match="from 0 to 0, got 3"):
        side_by_side([one], 3)


# Side by side


def test_contrast_is_the_difference() -> None:
    one, other = made(noise(0, 1, 3, 20, 20)), made(noise(1, 1, 3, 20, 20), label="dog", target=1)
    found = contrast(one, other)
    assert torch.equal(found.values, one.values - other.values)
    assert (found.labels, found.sign, float(found.score[0])) == (("cat − dog",), "signed", -1.0)


def panels(figure: Any) -> list[tuple[str, str]]:
    return [(axes.get_title(), axes.get_xlabel()) for axes in figure.axes if axes.get_visible()]


def test_classes_of_one_method_share_a_scale_and_methods_do_not() -> None:
    weak, strong = made(noise(0, 1, 1, 20, 20) / 10), made(noise(1, 1, 1, 20, 20) * 10, label="dog", target=1)
    other = made(noise(2, 1, 1, 20, 20).abs() * 1000, "n", "positive")
    shown = panels(side_by_side([weak, strong, contrast(weak, strong), other]))
    stack = torch.stack([weak.values, strong.values, weak.values - strong.values]).abs()
    scale = f"{float(np.quantile(stack.numpy(), 0.999)):.3g}"
    assert [label for _, label in shown[1:4]] == [f"±{scale}, one scale for this method"] * 3
    assert shown[4][1].startswith("0 to ")
    assert shown[4][1].endswith("its own scale")
    assert [title.partition("\n")[2] for title, _ in shown[1:4]] == ["cat", "dog", "cat − dog"]


def test_zero_is_white_and_colours_grow_darker_evenly_on_both_sides() -> None:
    strength = np.linspace(-1, 1, 201)
    colours = pictures.white_to(strength, "signed")
    assert colours[100].tolist() == [255] * 3
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness[:101]) > 0).all()
    assert (np.diff(lightness[100:]) < 0).all()
    assert colours[150, 0] > colours[150, 2], "orange above"
    assert colours[50, 0] < colours[50, 2], "blue below"
    assert pictures.white_to(np.zeros(1), "positive").tolist() == [[255.0] * 3]
    drawn = np.asarray(pictures.on_white(np.array([[0.0, 2.0, -2.0]]), 2.0, "signed", (3, 1)))
    assert drawn[0, 0].tolist() == [255] * 3
    assert drawn[0, 1].tolist() == np.rint(colours[-1]).tolist()
    assert drawn[0, 2].tolist() == np.rint(colours[0]).tolist()
