"""Carlini & Wagner's attack against closed forms on linear classifiers: the distance to a plane, with and without confidence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, classifier, photos
from seewhy.attack import CarliniWagner, WhiteBox
from seewhy.classifier import Classifier
from seewhy.errors import SpecError


def plane(classes: int) -> tuple[Classifier, Tensor, Tensor]:
    """A linear classifier with its weights and biases."""
    torch.manual_seed(0)
    net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, classes)), size=4, check=False)
    for parameter in net.module.parameters():
        parameter.data *= 10
    return net, net.module.get_parameter("1.weight").detach(), net.module.get_parameter("1.bias").detach()


def images(count: int) -> Tensor:
    """Away from black and white, so that nothing is cut off."""
    return 0.4 + 0.2 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_distance_to_the_nearest_plane(confidence: float) -> None:
    net, weight, bias = plane(4)
    pixels = images(8)
    logits = pixels.flatten(1) @ weight.T + bias
    labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits + confidence
    lengths = (weight[labels][:, None] - weight[None]).norm(dim=-1)
    exact = (gaps / lengths).masked_fill(lengths == 0, torch.inf).amin(1)
    found = CarliniWagner(confidence=confidence)(net, pixels, labels)
    assert found.success[0].all()
    size = found.distances["l2"][0]
    assert (size >= exact * (1 - 1e-4)).all()
    assert (size <= exact * 1.05).all()
    assert size.mean() <= 1.02 * exact.mean()
    after = found.images[0].flatten(1) @ weight.T + bias
    margin = after.gather(1, labels[:, None])[:, 0] - after.scatter(1, labels[:, None], -torch.inf).amax(1)
    assert (margin <= -confidence + 1e-5).all()


def test_distance_to_the_target_class() -> None:
    net, weight, bias = plane(2)
    pixels = images(6)
    logits = pixels.flatten(1) @ weight.T + bias
    labels = logits.argmax(1)
    exact = (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).norm()
    found = CarliniWagner(searches=4, steps=200)(net, pixels, labels, 1 - labels)
    assert found.success[0].all()
    torch.testing.assert_close(found.distances["l2"][0], exact, rtol=0.01, atol=0)
    assert found.success_8bit[1].all()


def test_a_search_is_adam_on_the_papers_objective() -> None:
    """The path in w against torch's Adam with autograd, for two images with their own c."""
    pixels, c = images(2), torch.tensor([0.5, 4.0])
    way, offset = torch.randn(2, 48, generator=torch.Generator().manual_seed(2)), torch.tensor([1.0, 1.5])

    def ask(at: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        view.queries[rows] += 1
        inner = (at - pixels[rows]).flatten(1)
        return (way[rows] * inner + inner**2).sum(1) + offset[rows], (way[rows] + 2 * inner).view_as(at)

    start, last = torch.atanh(2 * pixels - 1), pixels.clone()
    view = WhiteBox(plane(2)[0], budget=40).opened(2)
    CarliniWagner(steps=1000, rate=0.02)._descend(ask, view.can, pixels, start, last, c)

    w = start.clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=0.02)
    met = False
    for _ in range(40):
        at = (w.tanh() + 1) / 2
        margin = ask(at, torch.arange(2))[0]
        met |= bool((margin < 0).any())
        loss = (at - pixels).flatten(1).square().sum(1) + c * margin.clamp_min(0)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
    assert met
    torch.testing.assert_close(last, at.detach(), rtol=1e-4, atol=1e-5)


def test_c_rises_until_it_fools() -> None:
    """The margin u·|u| + u/10 is flat on the boundary, so that the first c is too small; the distance to it stays u / ‖a‖."""

    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.way = nn.Linear(48, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            u = 0.5 - self.way(x.flatten(1) - 0.5)
            margin = u * u.abs() + u / 10
            return torch.cat([margin, torch.zeros_like(margin)], 1)

    torch.manual_seed(0)
    module = Bent()
    net, pixels = Classifier(module, size=4, check=False), images(4)
    assert not CarliniWagner(searches=1)(net, pixels, 0).success[0].any()
    found = CarliniWagner(searches=6)(net, pixels, 0)
    assert found.success[0].all()
    with torch.no_grad():
        exact = (0.5 - module.way(pixels.flatten(1) - 0.5))[:, 0] / module.way.weight.norm()
    torch.testing.assert_close(found.distances["l2"][0], exact, rtol=0.06, atol=0)


def test_an_image_that_stands_still_leaves_at_the_second_look() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.mean((2, 3)) * 0) + torch.tensor([1.0, 0, 0])

    found = CarliniWagner(searches=3, steps=100)(Classifier(Flat(), size=4, check=False), images(2))
    assert found.gradients.tolist() == [1 + 3 * 19] * 2
    assert "gradient is zero" in found.notes[0]
    assert found.smallest_eps.isinf().all()


def test_costs_what_the_view_counts() -> None:
    net, pixels = classifier(FAMILIES["mobilenet"]()), photos(3)
    found = CarliniWagner(searches=2, steps=30)(net, pixels)
    assert found.cost.backward == int(found.gradients.sum())
    judged = found.cost.forward - int(found.queries.sum())
    assert 3 * 2 <= judged <= 3 * (1 + 2 * 2)


def test_a_budget_is_kept() -> None:
    net, pixels = classifier(FAMILIES["mobilenet"]()), photos(3)
    found = CarliniWagner()(WhiteBox(net, budget=7), pixels)
    assert found.queries.tolist() == [7, 7, 7]


def test_bad_settings_are_refused() -> None:
    for words in ({"searches": 0}, {"steps": 0}, {"rate": 0.0}, {"confidence": -1.0}, {"rate": float("nan")}):
        with pytest.raises(SpecError, match="expected"):
            CarliniWagner(**words)
    with pytest.raises(SpecError, match="sizes eps > 0"):
        CarliniWagner(eps=(-1.0,))
