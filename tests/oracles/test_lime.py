"""LIME against closed forms, dense weighted least squares, enumeration of all coalitions, and its own spread over seeds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets import Mobile, classifier, photos
from seewhy.classifier import Classifier
from seewhy.errors import InputError, SpecError
from seewhy.explain import Lime, lime
from seewhy.explain.lime import lasso, sandwich
from seewhy.explain.players import hidden, play, segments


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 12 * 12, 3)
        nn.init.normal_(self.fc.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


class Curved(nn.Module):
    """A small net that is far from linear in the segments of a 12 × 12 image."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.one, self.two = nn.Linear(3 * 12, 24), nn.Linear(24, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=2.5, generator=draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(nn.functional.adaptive_avg_pool2d(x, (3, 4)).flatten(1))))


def net_of(module: nn.Module) -> Classifier:
    return Classifier(module.eval(), size=12, check=False)


def picture() -> Tensor:
    return torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def per_segment(found: Tensor, labels: Tensor) -> Tensor:
    """The one value that a map (H, W) has in each segment."""
    values = torch.stack([found[labels == each][0] for each in range(int(labels.max()) + 1)])
    assert torch.equal(values[labels], found)
    return values


def kernel(kept: np.ndarray[Any, Any], width: float) -> np.ndarray[Any, Any]:
    """π by the definition of the cosine distance between a coalition and that of all."""
    whole = np.ones(kept.shape[1])
    weights = []
    for row in kept.astype(float):
        norm = np.linalg.norm(row) * np.linalg.norm(whole)
        distance = 1 - (row @ whole / norm if norm else 0.0)
        weights.append(math.exp(-(distance**2) / width**2))
    return np.array(weights)


def dense(
    kept: np.ndarray[Any, Any], answers: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], float]:
    """Coefficients and R² of weighted least squares, by a QR of the whole weighted design."""
    root = np.sqrt(weights)[:, None]
    design = np.concatenate([np.ones((len(kept), 1)), kept.astype(float)], 1)
    solution = np.linalg.lstsq(root * design, root[:, 0] * answers, rcond=None)[0]
    residual = answers - design @ solution
    around = answers - np.average(answers, weights=weights)
    return solution[1:], 1 - float(np.sum(weights * residual**2) / np.sum(weights * around**2))


@pytest.mark.parametrize(("count", "samples"), [(9, 2000), (36, 200)])
def test_a_net_that_is_linear_in_the_segments_has_exactly_its_weights(count: int, samples: int) -> None:
    module, image = Linear(), picture()
    found = Lime(segments="grid", count=count, samples=samples, fill="white")(net_of(module), image, 1)
    labels = segments(image[0], "grid", count)
    rise = (module.fc.weight[1].view(3, 12, 12) * (image[0] - 1)).sum(0)
    expected = torch.stack([rise[labels == each].sum() for each in range(count)]).detach()
    torch.testing.assert_close(per_segment(found.values[0, 0], labels), expected, rtol=1e-3, atol=1e-3)
    assert found.measures["R²"].item() == pytest.approx(1, abs=1e-6)
    assert found.standard_error is not None
    assert float(found.standard_error.max()) < 1e-3
    assert found.measures["segments"].item() == count


def test_few_segments_are_enumerated_and_the_fit_is_the_papers_weighted_one() -> None:
    net, image = net_of(Curved()), picture()
    found = Lime(segments="grid", count=6, samples=64, width=0.3)(net, image, 2)
    labels = segments(image[0], "grid", 6)
    kept = np.array(list(itertools.product([False, True], repeat=6)))
    grey = torch.full_like(image[0], 0.5)
    answers = net.predict(hidden(image[0], grey, labels, torch.from_numpy(kept)))[:, 2].double().numpy()
    expected, explained = dense(kept, answers, kernel(kept, 0.3))
    np.testing.assert_allclose(per_segment(found.values[0, 0], labels).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert found.measures["R²"].item() == pytest.approx(explained, abs=1e-5)
    assert found.cost.forward == 65
    assert found.standard_error is not None
    assert not found.standard_error.any()


def test_a_width_that_reaches_the_nearest_coalitions_alone_leaves_out_each_segment_in_turn() -> None:
    net, image = net_of(Curved()), picture()
    found = Lime(segments="grid", count=6, width=0.03)(net, image, 0)
    labels = segments(image[0], "grid", 6)
    kept = torch.cat([torch.ones(1, 6), 1 - torch.eye(6)]).bool()
    answers = net.predict(hidden(image[0], torch.full_like(image[0], 0.5), labels, kept))[:, 0]
    torch.testing.assert_close(per_segment(found.values[0, 0], labels), answers[0] - answers[1:], rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match=r"width=0\.01, which leaves 100 % of the weight to the unchanged image"):
        Lime(segments="grid", count=8, width=0.01)(net, image, 0)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(*given: Any) -> Tensor:
        seen.append((given[4], play(*given)))
        return seen[-1][1]

    monkeypatch.setattr(lime, "play", watched)
    return seen


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_the_sampled_fit_is_dense_least_squares_on_the_same_masks(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    net, image = classifier(Mobile(nn.SiLU)), photos(1)
    seen = recorded(monkeypatch)
    found = Lime(segments="grid", count=16, samples=300, tolerance=0, output=output)(net, image, 3)
    kept = torch.cat([each for each, _ in seen]).numpy()
    logits = torch.cat([each for _, each in seen]).double()
    assert kept.shape == (300, 16)
    assert found.cost.forward == 301
    answers = (logits if output == "logit" else logits.softmax(1))[:, 3].numpy()
    expected, explained = dense(kept, answers, np.ones(300))
    labels = segments(image[0], "grid", 16)
    found_values = per_segment(found.values[0, 0], labels).numpy()
    np.testing.assert_allclose(found_values, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert found.measures["R²"].item() == pytest.approx(1 - (1 - explained) * 299 / (300 - 17), abs=1e-5)
    assert "standard error" in found.notes[0]

    seen.clear()
    ridged = Lime(segments="grid", count=16, samples=300, tolerance=0, output=output, ridge=5.0)(net, image, 3)
    centred = kept - kept.mean(0)
    by_hand = np.linalg.solve(centred.T @ centred + 5 * np.eye(16), centred.T @ (answers - answers.mean()))
    ridged_values = per_segment(ridged.values[0, 0], labels).numpy()
    np.testing.assert_allclose(ridged_values, by_hand, rtol=1e-4, atol=1e-6 * np.abs(by_hand).max())


def test_coalitions_come_in_proportion_to_the_kernel_and_in_near_complements(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = recorded(monkeypatch)
    Lime(segments="grid", count=12, samples=4000, tolerance=0)(net_of(Curved()), picture(), 0)
    kept = torch.cat([each for each, _ in seen])
    every = np.array(list(itertools.product([False, True], repeat=12)))
    weights = kernel(every, 0.25)
    expected = np.bincount(every.sum(1), weights=weights, minlength=13) / weights.sum()
    shares = kept.sum(1).bincount(minlength=13).double().numpy() / len(kept)
    np.testing.assert_allclose(shares, expected, atol=0.01)
    # every segment, and every pair of them, as often as the others
    together = (kept.double().T @ kept.double() / len(kept)).numpy()
    second = np.average((every[:, :2] == 1).all(1), weights=weights)
    np.testing.assert_allclose(together[~np.eye(12, dtype=bool)], second, atol=0.04)
    np.testing.assert_allclose(np.diag(together), np.average(every[:, 0], weights=weights), atol=0.03)
    first, partner = kept[::2].double(), kept[1::2].double()
    assert float(torch.corrcoef(torch.stack([first.flatten(), partner.flatten()]))[0, 1]) < -0.6


def test_intervals_hold_the_value_of_all_coalitions_in_nineteen_of_twenty_seeds() -> None:
    net, image = net_of(Curved()), picture()
    labels = segments(image[0], "grid", 12)
    whole = Lime(segments="grid", count=12, samples=4096)(net, image, 0)
    assert whole.cost.forward == 4097
    exact = per_segment(whole.values[0, 0], labels)
    assert 0.2 < whole.measures["R²"].item() < 0.95  # there is something that is not linear
    inside, values, errors = [], [], []
    for seed in range(60):
        found = Lime(segments="grid", count=12, samples=200, tolerance=0, seed=seed)(net, image, 0)
        assert found.standard_error is not None
        values.append(per_segment(found.values[0, 0], labels))
        errors.append(per_segment(found.standard_error[0, 0], labels))
        inside.append((values[-1] - exact).abs() <= 1.96 * errors[-1])
    assert 0.92 <= float(torch.stack(inside).double().mean()) <= 0.985
    spread = torch.stack(values).std(0)
    ratio = torch.stack(errors).square().mean(0).sqrt().square().mean().sqrt() / spread.square().mean().sqrt()
    assert 0.9 <= float(ratio) <= 1.2
    # no bias: the mean over seeds is the exact value
    far = (torch.stack(values).mean(0) - exact) / (spread / 60**0.5)
    assert float(far.abs().max()) < 4


def test_standard_errors_are_those_of_leaving_out_each_pair() -> None:
    draw = torch.Generator().manual_seed(0)
    terms = torch.cat([torch.ones(40, 1), (torch.rand(40, 5, generator=draw) < 0.5).float()], 1).double()
    answers = torch.randn(40, generator=draw).double()
    hat = torch.linalg.pinv(terms)
    whole = hat @ answers
    without = []
    for pair in range(20):
        left = [row for row in range(40) if row // 2 != pair]
        without.append(torch.linalg.lstsq(terms[left], answers[left]).solution - whole)
    expected = (torch.stack(without).square().sum(0) * 19 / 20).sqrt()
    torch.testing.assert_close(sandwich(terms, hat, answers - terms @ whole), expected)


def test_it_stops_as_soon_as_the_intervals_are_narrow_enough_and_says_when_they_are_not() -> None:
    net, image = net_of(Curved()), picture()
    costs = []
    for tolerance in (0.5, 0.2, 0.1):
        found = Lime(segments="grid", count=12, samples=4000, tolerance=tolerance)(net, image, 0)
        assert found.measures["relative standard error"].item() <= tolerance
        assert found.measures["samples"].item() == found.cost.forward - 1
        assert not any("standard error" in note for note in found.notes)
        costs.append(found.cost.forward)
    assert costs[0] < costs[1] < costs[2] < 4001
    hasty = Lime(segments="grid", count=12, samples=64, tolerance=0.01)(net, image, 0)
    assert "for 1 of 1 images 64 samples left a standard error" in hasty.notes[0]


def test_targets_share_their_passes_and_each_is_as_if_alone() -> None:
    net, image = net_of(Curved()), picture()
    method = Lime(segments="grid", count=12, samples=1000)
    both = method.each(net, image, [0, 2])
    alone = [method(net, image, target) for target in (0, 2)]
    for one, other in zip(both, alone, strict=True):
        assert torch.equal(one.values, other.values)
        assert one.standard_error is not None
        assert other.standard_error is not None
        assert torch.equal(one.standard_error, other.standard_error)
    assert both[0].cost.forward == max(each.cost.forward for each in alone)


def test_the_lassos_path_is_that_of_its_optimality_conditions() -> None:
    draw = torch.Generator().manual_seed(2)
    terms = (torch.rand(200, 8, generator=draw) < 0.5).double()
    terms[:, 1] = torch.where(torch.rand(200, generator=draw) < 0.8, terms[:, 0], terms[:, 1])  # two that are alike
    answers = terms @ torch.tensor([2.0, -1.5, 0.8, 0.5, 0.2, 0.0, 0.0, 0.1]).double()
    answers += 0.3 * torch.randn(200, generator=draw)
    weights = torch.rand(200, generator=draw).double() + 0.1
    root = weights.sqrt()[:, None]
    x = ((terms - weights @ terms / weights.sum()) * root).numpy()
    y = ((answers - weights @ answers / weights.sum()) * root[:, 0]).numpy()
    # coordinate descent over falling penalties: the first support of each size
    supports: dict[int, list[int]] = {}
    beta, gram, pull = np.zeros(8), x.T @ x, x.T @ y
    for step in range(150):
        penalty = np.abs(pull).max() * 0.95**step
        for _ in range(20):
            for j in range(8):
                own = pull[j] - gram[j] @ beta + gram[j, j] * beta[j]
                beta[j] = np.sign(own) * max(abs(own) - penalty, 0) / gram[j, j]
        support = beta.nonzero()[0].tolist()
        supports.setdefault(len(support), support)
    for features in (1, 2, 3, 4, 5):
        assert lasso(terms, answers, weights, features).tolist() == supports[features]
    assert lasso(terms, answers, weights, 20).tolist() == list(range(8))


def test_k_features_are_chosen_and_fitted_by_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = net_of(Curved()), picture()
    seen = recorded(monkeypatch)
    found = Lime(segments="grid", count=12, samples=400, tolerance=0, features=4)(net, image, 1)
    labels = segments(image[0], "grid", 12)
    values = per_segment(found.values[0, 0], labels)
    chosen = values.nonzero()[:, 0].numpy()
    assert len(chosen) == 4
    kept = torch.cat([each for each, _ in seen]).numpy()[:, chosen]
    answers = torch.cat([each for _, each in seen])[:, 1].double().numpy()
    np.testing.assert_allclose(values[chosen].numpy(), dense(kept, answers, np.ones(400))[0], rtol=1e-4)


def test_what_cannot_be_explained_is_said() -> None:
    net, image = net_of(Curved()), picture()
    flat = torch.full((1, 3, 12, 12), 0.5)
    found = Lime(segments="grid", count=9)(net, torch.cat([flat, image]))
    assert not found.values[0].any()
    assert found.values[1].any()
    assert "the grey fill is the image itself for image 1" in found.notes[0]
    assert found.cost.forward == 2 + 512
    alone = Lime(segments="grid", count=9)(net, flat)
    assert alone.notes[0].startswith("the grey fill is the image itself: hiding changes nothing")

    deaf = Linear()
    nn.init.zeros_(deaf.fc.weight)
    nothing = Lime(segments="grid", count=16, samples=200)(net_of(deaf), image)
    assert not nothing.values.any()
    assert any("zero everywhere" in note for note in nothing.notes)

    with pytest.raises(InputError, match="at least 74 samples for 36 segments, got samples=60"):
        Lime(segments="grid", count=36, samples=60)(net, image)
    with pytest.raises(InputError, match=r"width=0\.0001"):
        Lime(segments="grid", count=36, samples=100, width=1e-4)(net, image)
    with pytest.raises(InputError, match="never hid some of the 36 segments"):
        Lime(segments="grid", count=36, samples=74, width=0.008)(net, image)
    for words, field in {
        "black, white": {"fill": "pink"},
        "slic, grid": {"segments": "voronoi"},
        "logit or probability": {"output": "loss"},
        "width > 0": {"width": 0.0},
        "samples ≥ 4": {"samples": 3},
    }.items():
        with pytest.raises(SpecError, match=words):
            Lime(**field)  # type: ignore[arg-type]


def test_a_rough_account_is_called_one() -> None:
    class Parity(nn.Module):
        """±1 by whether an even number of four quarters is bright: nothing linear in it."""

        def forward(self, x: Tensor) -> Tensor:
            quarters = nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)
            sign = (quarters - 0.5).sign().prod(1) + 0.01 * quarters.sum(1)
            return torch.stack([sign, -sign], 1)

    found = Lime(segments="grid", count=4, fill="black", width=1.0)(net_of(Parity()), torch.ones(1, 3, 12, 12))
    assert found.measures["R²"].item() < 0.5
    assert "rough account" in found.notes[0]
