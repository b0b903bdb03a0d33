"""RISE against enumeration of every mask, plain loops, and its own spread over seeds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import Mobile, classifier, photos
from seewhy.classifier import Classifier
from seewhy.errors import SpecError
from seewhy.explain import Rise
from seewhy.explain.baseline import baseline
from seewhy.explain.rise import Masks
from seewhy.rng import generator


class Curved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.one, self.two = nn.Linear(3 * 6, 16), nn.Linear(16, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=1.5, generator=draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(F.adaptive_avg_pool2d(x, (2, 3)).flatten(1))))


def net_of(module: nn.Module, size: tuple[int, int] = (6, 9)) -> Classifier:
    return Classifier(module.eval(), size=size, check=False)


def picture() -> Tensor:
    return torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(1))


def enlarged(grid: Tensor, size: tuple[int, int], down: int, right: int) -> Tensor:
    """A mask as the paper makes it: a grid of h × w, enlarged to (h + 1) · C, and cut out at a shift."""
    cells = len(grid)
    height, width = (-(-side // cells) for side in size)
    whole = (cells + 1) * height, (cells + 1) * width
    mask = F.interpolate(grid[None, None], size=whole, mode="bilinear", align_corners=False)[0, 0]
    return mask[down : down + size[0], right : right + size[1]]


def test_masks_are_enlarged_grids_cut_out_at_a_shift() -> None:
    masks = Masks((14, 20), 3, 0.4, 50, torch.Generator().manual_seed(0))
    shifts = {(down, right) for down in range(5) for right in range(7)}
    met = set()
    for grid, mask in zip(masks.grids, masks[:], strict=True):
        fits = {at for at in shifts if torch.allclose(enlarged(grid, (14, 20), *at), mask, atol=1e-6)}
        assert fits
        met |= fits
    assert len(met) > 20
    many = Masks((14, 20), 3, 0.4, 20000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(many[:].mean(0), torch.full((14, 20), 0.4), atol=0.015, rtol=0)
    assert torch.equal(many[5:9], many[:][5:9])


def every_mask(size: tuple[int, int], visible: float) -> tuple[Tensor, Tensor]:
    """All masks of 2 × 2 cells, and how probable each is."""
    masks, chances = [], []
    for cells in itertools.product([0.0, 1.0], repeat=4):
        for down, right in itertools.product(range(-(-size[0] // 2)), range(-(-size[1] // 2))):
            masks.append(enlarged(torch.tensor(cells).view(2, 2), size, down, right))
            chances.append(visible ** sum(cells) * (1 - visible) ** (4 - sum(cells)))
    chance = torch.tensor(chances)
    return torch.stack(masks), chance / chance.sum()


@pytest.mark.parametrize("visible", [0.5, 0.3])
def test_intervals_hold_the_expectation_over_every_mask(visible: float) -> None:
    net, image = net_of(Curved()), picture()
    masks, chance = every_mask((6, 9), visible)
    scores = net.predict(image * masks[:, None])[:, 1]
    papers = (chance[:, None, None] * scores[:, None, None] * masks).sum(0) / visible  # equation 6
    mean = float((chance * scores).sum())
    inside, values, errors = [], [], []
    for seed in range(60):
        found = Rise(cells=2, visible=visible, samples=500, tolerance=0, seed=seed)(net, image, 1)
        assert found.standard_error is not None
        values.append(found.values[0, 0])
        errors.append(found.standard_error[0, 0])
        inside.append((values[-1] - (papers - mean)).abs() <= 1.96 * errors[-1])
        assert found.measures["mean score"].item() == pytest.approx(mean, abs=5 * float(scores.std()) / 500**0.5)
    assert 0.91 <= float(torch.stack(inside).double().mean()) <= 0.985
    spread = torch.stack(values).std(0)
    ratio = torch.stack(errors).square().mean().sqrt() / spread.square().mean().sqrt()
    assert 0.88 <= float(ratio) <= 1.12
    far = (torch.stack(values).mean(0) - (papers - mean)) / (spread / 60**0.5)
    assert float(far.abs().max()) < 4.5


def test_the_sums_are_those_of_a_plain_loop_over_the_same_masks() -> None:
    net, image = classifier(Mobile(nn.SiLU)), photos(1)
    found = Rise(samples=200, tolerance=0, cells=4, fill="blur", visible=0.4)(net, image, 2)
    draw = generator(0, "rise")
    masks = torch.cat([Masks((24, 24), 4, 0.4, count, draw)[:] for count in (128, 72)]).double()
    stand_in = baseline("blur", image)[0]
    scores = torch.stack(
        [net.predict((image[0] * mask + stand_in * (1 - mask)).float()[None])[0, 2] for mask in masks]
    ).double()
    f = (scores - scores.mean())[:, None, None]
    covariance = (f * (masks - 0.4)).sum(0) / 199
    error = ((f * (masks - 0.4)).var(0, correction=0) / 200).sqrt() / 0.4
    scale = float(covariance.abs().max())
    torch.testing.assert_close(found.values[0, 0].double(), covariance / 0.4, rtol=1e-3, atol=1e-4 * scale)
    assert found.standard_error is not None
    # the standard error centres by the covariance with n − 1
    torch.testing.assert_close(found.standard_error[0, 0].double(), error, rtol=1e-2, atol=1e-4 * scale)
    assert found.measures["mean score"].item() == pytest.approx(float(scores.mean()), abs=1e-4)
    assert found.cost.forward == 201


def test_it_stops_when_the_errors_are_small_and_says_when_they_are_not() -> None:
    net, image = net_of(Curved()), picture()
    costs = []
    for tolerance in (0.4, 0.2, 0.12):
        found = Rise(cells=2, tolerance=tolerance)(net, image, 0)
        assert found.measures["relative standard error"].item() <= tolerance
        assert found.measures["samples"].item() == found.cost.forward - 1
        costs.append(found.cost.forward)
    assert costs[0] < costs[2] <= 4001
    hasty = Rise(samples=20)(net, image, 0)
    assert "for 1 of 1 images 20 masks left a standard error" in hasty.notes[0]


def test_targets_share_their_passes_and_each_is_as_if_alone() -> None:
    net, image = net_of(Curved()), picture()
    method = Rise(cells=2, tolerance=0.2)
    both = method.each(net, image, [0, 2])
    alone = [method(net, image, target) for target in (0, 2)]
    for one, other in zip(both, alone, strict=True):
        assert torch.equal(one.values, other.values)
        assert one.measures["samples"] == other.measures["samples"]
    assert both[0].cost.forward == max(each.cost.forward for each in alone)


def test_a_region_that_matters_is_found_and_the_rest_is_zero_within_its_error() -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            corner = x[:, :, :8, :8].mean((1, 2, 3))
            return torch.stack([4 * corner + 20, -corner], 1)

    found = Rise(samples=4000, cells=6, tolerance=0.02)(net_of(Corner(), (24, 24)), torch.ones(1, 3, 24, 24), 0)
    assert found.standard_error is not None
    values, errors = found.values[0, 0], found.standard_error[0, 0]
    assert divmod(int(values.argmax()), 24) < (8, 8)
    far = values[14:, 14:] / errors[14:, 14:]
    assert float(far.square().mean()) < 4
    assert float(values[2:6, 2:6].min()) > 10 * float(errors.max())


def test_where_nothing_can_be_found_it_is_said() -> None:
    dark = torch.zeros(1, 3, 6, 9)
    found = Rise(cells=2, samples=200)(net_of(Curved()), dark)
    assert not found.values.any()
    assert any("zero everywhere" in note for note in found.notes)
    for words, field in {
        "black, white": {"fill": "pink"},
        "cells ≥ 2": {"cells": 1},
        "between 0 and 1": {"visible": 1.0},
    }.items():
        with pytest.raises(SpecError, match=words):
            Rise(**field)  # type: ignore[arg-type]
