"""L-BFGS against SciPy's on problems with a box, and against closed forms of the distance to a plane inside it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize  # type: ignore[import-untyped]
from torch import Tensor, nn

from nets import FAMILIES, classifier, photos
from seewhy.attack import LBFGS, WhiteBox
from seewhy.attack.lbfgs import minimise
from seewhy.classifier import Classifier
from seewhy.errors import SpecError


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def solved(
    function: object, start: Tensor, curvature: Tensor, low: float, high: float, **words: int
) -> tuple[Tensor, Tensor]:
    """Points and values of our search, from plain evaluations at the start."""
    every = torch.arange(len(start))
    value, gradient = function(start, every)  # type: ignore[operator]
    settings = {"steps": 400, "history": 10, **words}
    points, values, _ = minimise(function, start, value, gradient, curvature, low=low, high=high, **settings)  # type: ignore[arg-type]
    return points, values


@pytest.mark.parametrize("condition", [1, 30, 1000])
def test_quadratics_in_a_box_as_scipy_solves_them(condition: float) -> None:
    count, size = 6, 40
    turn = torch.linalg.qr(torch.randn(count, size, size, generator=draw(0), dtype=torch.double))[0]
    bend = torch.logspace(0, np.log10(condition), size, dtype=torch.double)
    square = turn @ torch.diag(bend) @ turn.mT
    middle = 0.5 + torch.randn(count, size, generator=draw(1), dtype=torch.double)  # most lie outside the box

    def function(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        away = points - middle[rows]
        slope = (square[rows] @ away[..., None])[..., 0]
        return (away * slope).sum(1) / 2, slope

    start = torch.full((count, size), 0.5, dtype=torch.double)
    points, values = solved(function, start, torch.ones(count, dtype=torch.double), 0, 1)
    for row in range(count):
        peer = minimize(
            lambda x, row=row: [each[0].numpy() for each in function(torch.tensor(x)[None], torch.tensor([row]))],
            start[row].numpy(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * size,
            options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 5000},
        )  # fmt: skip
        held = (peer.x <= 0) | (peer.x >= 1)
        assert 5 < held.sum() < size
        assert float(values[row]) <= peer.fun * (1 + 1e-5)
        assert np.abs(points[row].numpy() - peer.x).max() < 0.02


def test_a_bent_valley_is_followed_by_each_at_its_own_pace() -> None:
    """Rosenbrock's function of 6 variables from five starts; each must be solved as alone, within a box that holds two."""

    def function(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            a, b = leaf[:, :-1], leaf[:, 1:]
            value = (100 * (b - a**2) ** 2 + (1 - a) ** 2).sum(1)
            return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]

    start = torch.rand(5, 6, generator=draw(2), dtype=torch.double) * 0.8
    ones = torch.full((5,), 100.0, dtype=torch.double)
    points, values = solved(function, start, ones, -2, 2, steps=2000)
    assert float(values.max()) < 1e-3
    inside, _ = solved(function, start, ones, -0.9, 0.9, steps=2000)
    peer = minimize(
        lambda x: [each[0].numpy() for each in function(torch.tensor(x)[None], torch.arange(1))],
        start[0].numpy(), jac=True, method="L-BFGS-B", bounds=[(-0.9, 0.9)] * 6,
    )  # fmt: skip
    assert float(function(inside[:1], torch.arange(1))[0]) <= peer.fun * (1 + 1e-3)
    for row in range(5):
        alone, _ = solved(function, start[row : row + 1], ones[:1], -2, 2, steps=2000)
        torch.testing.assert_close(alone[0], points[row], rtol=1e-6, atol=1e-8)


def test_what_is_solved_is_asked_no_more() -> None:
    asked = torch.zeros(2, dtype=torch.long)

    def function(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        asked[rows] += 1
        steep = torch.tensor([1.0, 1e4])[rows, None] ** torch.linspace(0, 1, points.shape[1])
        return (steep * points.square()).sum(1) / 2, steep * points

    start = torch.rand(2, 20, generator=draw(3)) + 0.5
    solved(function, start, torch.ones(2), -2, 2)
    assert asked[0] <= 4  # one to begin with, one step, and what shows that it is over
    assert asked[1] > 10


def test_what_no_step_lowers_is_given_up() -> None:
    """At the kink of Σ|x − 0.3| the slope is never short, and no step is short enough."""
    asked = torch.zeros(1, dtype=torch.long)

    def function(points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        asked[rows] += 1
        away = points - 0.3
        return away.abs().sum(1), torch.where(away >= 0, 1.0, -1.0)

    points, _ = solved(function, torch.full((1, 3), 0.9), torch.ones(1), 0, 1)
    torch.testing.assert_close(points, torch.full((1, 3), 0.3), rtol=0, atol=1e-3)
    assert asked[0] < 60


@pytest.mark.parametrize("targeted", [True, False])
def test_each_problem_is_the_penalty_plus_the_surprise(targeted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is minimised, and what the search before hands on, against autograd of c·‖r‖² − log P(goal)."""
    net, images = classifier(FAMILIES["efficientnet"]()), photos(3)
    labels = net.predict(images).argmax(1)
    target = (labels + 2) % 5
    weights: list[Tensor] = []

    def watched(
        function: Any, start: Tensor, value: Tensor, gradient: Tensor, curvature: Tensor, *rest: Any, **words: Any
    ) -> Any:
        weights.append(curvature / 2)
        rows = torch.tensor([2, 0])
        near = (start[rows] + 0.05 * torch.rand(2, start.shape[1], generator=draw(7))).clamp(0, 1)
        for points, found in ((near, function(near, rows)), (start[rows], (value[rows], gradient[rows]))):
            leaf = points.clone().requires_grad_()
            chances = net.logits(leaf.view(2, *images.shape[1:])).softmax(1)
            named = (target if targeted else labels)[rows, None]
            chance = chances.gather(1, named)[:, 0] if targeted else 1 - chances.gather(1, named)[:, 0]
            away = leaf - images.flatten(1)[rows]
            wanted = weights[-1][rows] * away.square().sum(1) - chance.log()
            torch.testing.assert_close(found[0].float(), wanted.detach(), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[1], torch.autograd.grad(wanted.sum(), leaf)[0], rtol=1e-3, atol=1e-4)
        return minimise(function, start, value, gradient, curvature, *rest, **words)

    monkeypatch.setattr("seewhy.attack.lbfgs.minimise", watched)
    with net.session():
        LBFGS(searches=4, steps=5)(net, images, labels, target if targeted else None)
    assert len(weights) == 4
    assert all((one != two).all() for one, two in itertools.pairwise(weights))


def plane(scale: float = 1.0, classes: int = 2) -> tuple[Classifier, Tensor, Tensor]:
    """A linear classifier with its weights and biases; the larger its logits, the more a softmax is a maximum."""
    torch.manual_seed(0)
    net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, classes)), size=4, check=False)
    for parameter in net.module.parameters():
        parameter.data *= scale
    return net, net.module.get_parameter("1.weight").detach(), net.module.get_parameter("1.bias").detach()


def to_plane(image: Tensor, weight: Tensor, offset: float) -> float:
    """The distance from an image (n,) with weight·x + offset > 0 to the nearest one in [0, 1] where that is 0.

    It is x − λ·weight cut off at the box, for the λ that does it.
    """
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        at = (image - middle * weight).clamp(0, 1)
        low, high = (middle, high) if float(weight @ at) + offset > 0 else (low, middle)
    return float((image - (image - high * weight).clamp(0, 1)).norm())


@pytest.mark.parametrize(("centre", "spread"), [(0.4, 0.2), (0.0, 1.0)])
def test_exact_distance_on_a_linear_model_also_where_the_box_is_felt(centre: float, spread: float) -> None:
    net, weight, bias = plane()
    images = (centre + spread * torch.rand(8, 3, 4, 4, generator=draw(4))).round(decimals=1 if centre == 0 else 4)
    weight, bias = weight.double(), bias.double()
    labels = net.predict(images).argmax(1)
    for target in (None, 1 - labels):
        found = LBFGS(searches=8, steps=40)(net, images, labels, target)
        for row, label in enumerate(labels.tolist()):
            apart = weight[label] - weight[1 - label]
            exact = to_plane(images[row].flatten().double(), apart, float(bias[label] - bias[1 - label]))
            assert found.success[0, row]
            assert exact * (1 - 1e-4) <= float(found.distances["l2"][0, row]) <= exact * 1.01
    assert found.success_8bit[1].all()
    assert torch.equal(found.images[1], (found.images[1] * 255).round() / 255)


def test_nearest_of_several_planes() -> None:
    net, weight, bias = plane(scale=60, classes=4)
    images = 0.4 + 0.2 * torch.rand(8, 3, 4, 4, generator=draw(5))
    logits = images.flatten(1) @ weight.T + bias
    labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits
    lengths = (weight[labels][:, None] - weight[None]).norm(dim=-1)
    exact = (gaps / lengths).masked_fill(gaps == 0, torch.inf).amin(1)
    found = LBFGS(searches=10, steps=60)(net, images, labels)
    assert found.success[0].all()
    assert (found.distances["l2"][0] >= exact * (1 - 1e-4)).all()
    assert found.distances["l2"][0].mean() <= 1.03 * exact.mean()


def test_costs_what_the_view_counts_and_keeps_to_a_budget() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(3)
    found = LBFGS(searches=2, steps=5, eps=(0.1, 0.5))(net, images)
    assert found.cost.backward == int(found.gradients.sum())
    judged = found.cost.forward - int(found.queries.sum())
    assert 3 * 2 <= judged <= 3 * (1 + 2 * 4)
    assert (found.queries <= LBFGS(searches=2, steps=5, eps=(0.1, 0.5)).passes[0]).all()
    short = LBFGS()(WhiteBox(net, budget=7), images)
    assert short.queries.tolist() == [7, 7, 7]
    torch.testing.assert_close(found.eps[:2, 0], torch.tensor([0.1, 0.5]))
    assert (found.distances["l2"][:2] <= found.eps[:2] + 1e-5).all()


def test_a_model_without_slopes_is_said_to_be_one() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.mean((2, 3)) * 0) + torch.tensor([1.0, 0, 0])

    found = LBFGS()(Classifier(Flat(), size=4, check=False), torch.rand(2, 3, 4, 4, generator=draw(6)))
    assert "gradient is zero" in found.notes[0]
    assert found.smallest_eps.isinf().all()


def test_bad_settings_are_refused() -> None:
    for words in ({"searches": 0}, {"steps": 0}, {"history": 0}):
        with pytest.raises(SpecError, match="≥ 1"):
            LBFGS(**words)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="sizes eps > 0"):
        LBFGS(eps=(-1.0,))
