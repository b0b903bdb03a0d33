"""Shapley and Owen values against orders of players written out, and the sampled ones against the exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, SIZE, classifier, photos
from seewhy.classifier import Classifier
from seewhy.errors import InputError, NothingToExplain, SpecError
from seewhy.explain import Shap, ShapPartition
from seewhy.explain.baseline import baseline
from seewhy.explain.shap import DOUBTED
from seewhy.explain.shapley import Group, everyone, exact, owen, pairs, regress
from seewhy.rng import generator


def by_orders(value: Callable[[frozenset[int]], float], orders: list[tuple[int, ...]]) -> Tensor:
    """The mean of what each player adds over orders of joining."""
    found = torch.zeros(len(orders[0]), dtype=torch.float64)
    for order in orders:
        for place, player in enumerate(order):
            found[player] += value(frozenset(order[: place + 1])) - value(frozenset(order[:place]))
    return found / len(orders)


def game(players: int, seed: int = 0, targets: int = 1) -> Tensor:
    """The values (2^S, T) of a game without any structure."""
    return torch.randn(2**players, targets, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def looked_up(values: Tensor, column: int = 0) -> Callable[[frozenset[int]], float]:
    return lambda members: float(values[sum(1 << i for i in members), column])


def ask(values: Tensor, kept: Tensor) -> Tensor:
    return values[(kept.long() << torch.arange(kept.shape[1])).sum(1)]


def rises(values: Tensor, kept: Tensor) -> Tensor:
    return (ask(values, kept) - ask(values, ~kept))[:, 0]


def smooth(players: int, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A game as a net would play it: a small random perceptron on who is there."""
    draw = torch.Generator().manual_seed(seed)
    first = torch.randn(players, 30, generator=draw, dtype=torch.float64) * 2 / players**0.5
    last = torch.randn(30, generator=draw, dtype=torch.float64)
    return lambda kept: torch.relu(kept.double() @ first + 0.2) @ last


@pytest.mark.parametrize("players", [2, 3, 6])
def test_exact_values_are_the_mean_over_all_orders(players: int) -> None:
    values = game(players, targets=2)
    found = exact(values)
    for column in range(2):
        expected = by_orders(looked_up(values, column), list(itertools.permutations(range(players))))
        torch.testing.assert_close(found[:, column], expected)


def test_symmetric_players_get_the_same_and_a_dummy_nothing() -> None:
    kept = everyone(5).double()
    values = (kept[:, 0] * kept[:, 1] + kept[:, 2] * kept[:, 3] * kept[:, 0])[:, None]
    found = exact(values)[:, 0]
    expected = torch.tensor([1 / 2 + 1 / 3, 1 / 2, 1 / 3, 1 / 3, 0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("players", "count"), [(7, 20), (8, 127), (9, 100), (10, 300), (12, 500), (30, 60), (30, 500), (51, 20)]
)
def test_pairs_are_different_and_no_complements(players: int, count: int) -> None:
    kept = pairs(players, count, generator(0))
    rows = {tuple(row) for row in kept.tolist()} | {tuple(row) for row in (~kept).tolist()}
    assert len(kept) == min(count, 2 ** (players - 1) - 1)
    assert len(rows) == 2 * len(kept)
    sizes = kept.sum(1)
    assert 1 <= int(sizes.min()) <= int(sizes.max()) <= players // 2


def test_pairs_have_every_size_alike_and_each_coalition_of_a_size_with_equal_chance() -> None:
    sizes = torch.zeros(16)
    members = torch.zeros(30)
    for seed in range(200):
        kept = pairs(30, 100, generator(seed))
        sizes += torch.bincount(kept.sum(1), minlength=16)
        middle = kept[kept.sum(1) == 15]
        members += torch.cat([middle, ~middle]).sum(0)
    shares = sizes[1:] / 200
    torch.testing.assert_close(shares[:-1], torch.full((14,), 100 / 14.5), rtol=0.02, atol=0.0)
    assert float(shares[-1]) == pytest.approx(50 / 14.5, rel=0.05)  # in the middle a pair has both its sides
    assert float(members.std() / members.mean()) < 1e-6  # each pair has every player once
    assert int(torch.bincount(pairs(12, 80, generator(1)).sum(1))[1]) == 12  # few enough to be there all


def test_linear_games_are_exact_from_few_coalitions() -> None:
    for players, count in ((10, 14), (50, 60), (50, 255)):
        worth = torch.randn(players, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
        kept = pairs(players, count, generator(0))
        found, error = regress(kept, (kept.double() * 2 - 1) @ worth, float(worth.sum()))
        torch.testing.assert_close(found, worth, rtol=1e-4, atol=1e-4)
        assert float(error.max()) < 2e-3


@pytest.mark.parametrize("players", [5, 8, 9])
def test_all_pairs_give_the_exact_values_of_any_game(players: int) -> None:
    values = game(players, 3)
    kept = pairs(players, 2**players, generator(0))
    found, error = regress(kept, rises(values, kept), float(values[-1] - values[0]))
    torch.testing.assert_close(found, exact(values)[:, 0], rtol=1e-5, atol=1e-6)
    assert float(error.max()) < 1e-4


def test_sampled_values_come_to_the_exact_ones_and_beat_least_squares() -> None:
    play, players = smooth(12), 12
    values = play(everyone(players))[:, None]
    wanted, total = exact(values)[:, 0], float(values[-1] - values[0])
    errors, plain = [], []
    for count in (40, 160, 640, 1600):
        kept = pairs(players, count, generator(1))
        found, _ = regress(kept, rises(values, kept), total)
        assert float(found.sum()) == pytest.approx(total)
        errors.append(float((found - wanted).norm() / wanted.norm()))
        plain.append(float((least_squares(kept, rises(values, kept), total) - wanted).norm() / wanted.norm()))
    assert errors[0] < 0.5
    assert errors[2] < 0.1
    assert errors[3] < 0.03
    assert all(ours < 0.8 * theirs for ours, theirs in zip(errors[1:], plain[1:], strict=True))


def least_squares(kept: Tensor, rises: Tensor, total: float) -> Tensor:
    """The papers' regression: kernel weights over the chance to be drawn, which is alike for all of a size."""
    players, sizes = kept.shape[1], kept.sum(1)
    numbers = torch.bincount(sizes, minlength=players + 1)[sizes]
    ways = torch.tensor([float(math.comb(players, s)) / (1 + (2 * s == players)) for s in sizes.tolist()])
    kernel = 1 / (torch.tensor([float(math.comb(players, s)) for s in sizes.tolist()]) * sizes * (players - sizes))
    root = (kernel * ways / numbers).double().sqrt()[:, None]
    signs = kept.double() * 2 - 1
    # the last player has what is missing of the total
    reduced = signs[:, :-1] - signs[:, -1:]
    found = torch.linalg.lstsq(root * reduced, root[:, 0] * (rises - signs[:, -1] * total)).solution
    return torch.cat([found, total - found.sum(0, keepdim=True)])


def test_standard_errors_hold() -> None:
    ratios = []
    for seed in range(40):
        play, players = smooth(12, seed), 12
        values = play(everyone(players))[:, None]
        kept = pairs(players, 60, generator(seed))
        found, error = regress(kept, rises(values, kept), float(values[-1] - values[0]))
        ratios.append((found - exact(values)[:, 0]) / error)
    ratio = torch.cat(ratios)
    assert 0.75 < float(ratio.square().mean().sqrt()) < 1.25
    assert 0.91 < float((ratio.abs() < 1.96).double().mean()) < 0.985


def together(order: tuple[int, ...], group: Group) -> bool:
    """Whether every group of a hierarchy is in one piece."""
    if len(group.members) == 1:
        return True
    places = sorted(order.index(i) for i in group.members.tolist())
    return places[-1] - places[0] == len(places) - 1 and all(together(order, half) for half in group.halves)


@pytest.mark.parametrize("players", [4, 7])
def test_owen_values_are_the_mean_over_the_orders_that_keep_groups_together(players: int) -> None:
    values = game(players, 5, targets=2)
    places = torch.rand(players, 2, generator=torch.Generator().manual_seed(2))
    group = Group(torch.arange(players), places)
    found = owen(lambda kept: ask(values, kept), group, values[[0, -1]], 10_000)
    orders = [order for order in itertools.permutations(range(players)) if together(order, group)]
    assert len(orders) == 2 ** (players - 1)
    for column in range(2):
        torch.testing.assert_close(found[:, column], by_orders(looked_up(values, column), orders))
    few = owen(lambda kept: ask(values, kept), group, values[[0, -1]], 6)
    torch.testing.assert_close(few.sum(0), values[-1] - values[0])


def test_groups_are_halved_across_their_longer_side_between_players() -> None:
    rows, columns = torch.meshgrid(torch.arange(2.0), torch.arange(5.0), indexing="ij")
    left, right = Group(torch.arange(10), torch.stack([rows.flatten(), columns.flatten()], 1)).halves
    assert {tuple(sorted(half.members.tolist())) for half in (left, right)} == {(0, 1, 5, 6), (2, 3, 4, 7, 8, 9)}
    same = Group(torch.arange(3), torch.zeros(3, 2))  # as rings have one centre
    assert sorted(len(half.members) for half in same.halves) == [1, 2]


def linear_net() -> Classifier:
    return classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5)))


def test_a_net_that_is_linear_in_the_segments_has_their_gradient_times_difference() -> None:
    net, images = linear_net(), photos(1)
    weight = net.module.get_parameter("1.weight")[3].view(3, SIZE, SIZE) / 0.25
    std = torch.tensor(net.std).view(3, 1, 1) / 0.25
    each = ((weight / std) * (images[0] - baseline("black", images)[0])).sum(0).detach()
    found = Shap(segments="grid", count=36, fill="black", evaluations=120)(net, images, 3)
    side = SIZE // 6
    cells = each.unflatten(0, (6, side)).unflatten(2, (6, side)).sum((1, 3))
    torch.testing.assert_close(found.values[0, 0, ::side, ::side], cells, rtol=1e-3, atol=1e-3)
    fine = ShapPartition(segments="grid", count=SIZE * SIZE, fill="black", evaluations=3000)(net, images, 3)
    assert float(fine.values.sum()) == pytest.approx(float(cells.sum()), rel=1e-4)
    # each of the 16 equal regions that are split surely has its own sum
    quarters = each.unflatten(0, (4, 6)).unflatten(2, (4, 6)).sum((1, 3))
    torch.testing.assert_close(
        fine.values[0, 0].unflatten(0, (4, 6)).unflatten(2, (4, 6)).sum((1, 3)), quarters, rtol=1e-3, atol=1e-3
    )


def test_on_a_net_the_sampled_values_are_the_exact_ones_within_their_errors() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(2)
    exactly = Shap(segments="grid", count=12, evaluations=4096)(net, images)
    assert "image 2: exact values, of all 4,096 coalitions of 12 segments" in exactly.notes
    alone = Shap(segments="grid", count=4, evaluations=16)(net, images[1:])
    assert (
        alone.notes[0] == "exact values, of all 16 coalitions of 4 segments"
    )  # which of several it is, it cannot know
    assert exactly.cost.forward == 2 * 4097
    assert not exactly.standard_error.any()  # type: ignore[union-attr]
    assert exactly.measures["additivity error"].max() < 1e-5
    assert not exactly.measures["relative standard error"].any()
    sampled = Shap(segments="grid", count=12, evaluations=200)(net, images)
    assert sampled.measures["evaluations"].tolist() == [200, 200]
    assert sampled.standard_error is not None
    off = (sampled.values - exactly.values).abs() / sampled.standard_error
    assert float(off.max()) < 4
    assert float((sampled.values - exactly.values).norm() / exactly.values.norm()) < 0.1


def test_the_relative_standard_error_falls_as_more_is_asked_and_is_about_the_true_error() -> None:
    net, image = classifier(FAMILIES["vgg"]()), photos(1)
    exactly = Shap(segments="grid", count=12, evaluations=4096)(net, image).values[0, 0, ::8, ::6]
    told, true = [], []
    for evaluations in (30, 120, 480):
        found = [Shap(segments="grid", count=12, evaluations=evaluations, seed=seed)(net, image) for seed in range(4)]
        told.append(torch.stack([each.measures["relative standard error"][0] for each in found]))
        off = torch.stack([each.values[0, 0, ::8, ::6] - exactly for each in found])
        true.append(off.square().mean((1, 2)).sqrt() / exactly.std(correction=0))
        for each, measure in zip(found, told[-1].tolist(), strict=True):
            assert each.standard_error is not None
            values, errors = (part[0, 0, ::8, ::6] for part in (each.values, each.standard_error))
            assert measure == pytest.approx(float(errors.square().mean().sqrt() / values.std(correction=0)), rel=1e-4)
            assert (measure > DOUBTED) == any(
                "evaluations left a standard error of up to" in note for note in each.notes
            )
    for more, fewer in zip(told[1:], told[:-1], strict=True):
        assert float(more.mean()) < 0.7 * float(fewer.mean())
    for measure, error in zip(told, true, strict=True):
        assert 0.5 < float(measure.square().mean().sqrt() / error.square().mean().sqrt()) < 2


def test_how_much_is_chance_is_said_for_each_class_and_not_where_there_is_none() -> None:
    net, images = classifier(FAMILIES["vgg"]()), torch.cat([photos(1), torch.full((1, 3, SIZE, SIZE), 0.5)])
    few = Shap(segments="grid", count=12, evaluations=26).each(net, images, [0, 1])
    for found in few:
        measure = found.measures["relative standard error"]
        assert measure[0] > 0
        assert measure[1] == 0
        said = f"for 1 of 2 images 26 evaluations left a standard error of up to {100 * float(measure[0]):.3g} %"
        assert (measure[0] > DOUBTED) == any(said in note for note in found.notes)
    partition = ShapPartition(evaluations=64, count=16)(net, images)
    assert "relative standard error" not in partition.measures
    assert partition.standard_error is None


@pytest.mark.parametrize(
    "method", [Shap(evaluations=64, segments="grid", count=16), ShapPartition(evaluations=64, count=16)]
)
def test_targets_share_their_passes(method: Shap | ShapPartition) -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(2)
    both = method.each(net, images, [1, 3])
    assert both[0].cost.forward == 2 * 65
    if isinstance(method, Shap):
        torch.testing.assert_close(both[1].values, method(net, images, 3).values)
    logits, hidden = net.predict(images), net.predict(baseline("grey", images))
    for found, target in zip(both, (1, 3), strict=True):
        sums = found.values[:, 0, ::6, ::6].sum((1, 2)) if isinstance(method, Shap) else found.values.sum((1, 2, 3))
        torch.testing.assert_close(sums, (logits - hidden)[:, target], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_asked_is_refused_or_said(tmp_path: Path) -> None:
    net, images = classifier(FAMILIES["resnet"]()), photos(1)
    with pytest.raises(InputError, match="at least 74 evaluations for 36 segments, got 64"):
        Shap(evaluations=64, segments="grid", count=36)(net, images)
    with pytest.raises(SpecError, match="6 to 16384"):
        Shap(evaluations=20_000)
    with pytest.raises(SpecError, match="evaluations ≥ 4"):
        ShapPartition(evaluations=3)
    for one in (np.zeros((SIZE, SIZE), dtype=np.int64), np.zeros((3, 3), dtype=np.int64)):
        np.save(tmp_path / "map.npy", one)
        with pytest.raises(InputError, match=r"two segments|label map of 24"):
            Shap(segments=str(tmp_path / "map.npy"))(net, images)
    for method in (Shap(), ShapPartition()):
        grey = method(net, torch.full((1, 3, SIZE, SIZE), 0.5))
        assert not grey.values.any()
        assert "the grey fill is the image itself" in grey.notes[0]
        assert "zero everywhere" in grey.notes[1]

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.mean((2, 3)) - 0.2).sqrt()

    bright = 0.3 + 0.7 * photos(1)
    with pytest.raises(NothingToExplain, match="where segments are hidden"):
        Shap(fill="black")(Classifier(Root(), size=SIZE, check=False), bright)
