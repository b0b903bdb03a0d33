"""DeepFool against distances in closed form on affine models, and against the steps of the paper written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, classifier, photos
from seewhy.attack import DeepFool, WhiteBox
from seewhy.attack.base import size_of
from seewhy.classifier import Classifier
from seewhy.errors import SpecError


def affine(classes: int) -> Classifier:
    """Gradients of very different lengths, and boundaries near enough that nothing is clipped."""
    linear = nn.Linear(48, classes)
    draw = torch.Generator().manual_seed(classes)
    with torch.no_grad():
        scale = torch.logspace(-1, 1, classes)[torch.randperm(classes, generator=draw)]
        linear.weight.copy_(torch.randn(classes, 48, generator=draw) * scale[:, None])
        grey = torch.full((48,), 0.5)
        linear.bias.copy_(-linear.weight @ grey + 0.1 * torch.randn(classes, generator=draw))
    return Classifier(nn.Sequential(nn.Flatten(), linear), size=4, check=False)


def near_grey(count: int) -> Tensor:
    return 0.5 + 0.05 * torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(3))


def exact(net: Classifier, images: Tensor, norm: str) -> Tensor:
    """Distances (N, C) to the boundary with each class, infinite for the predicted one."""
    weight, bias = (net.module.get_parameter(f"1.{name}").detach().double() for name in ("weight", "bias"))
    logits = images.flatten(1).double() @ weight.T + bias
    own = logits.argmax(1)
    gaps = logits.gather(1, own[:, None]) - logits
    lengths = (weight[own][:, None] - weight).norm(2 if norm == "l2" else 1, dim=2)
    return (gaps / lengths).scatter(1, own[:, None], torch.inf)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("classes", [2, 10])
def test_distance_to_the_nearest_boundary_of_an_affine_model_is_exact(norm: str, classes: int) -> None:
    net, images = affine(classes), near_grey(40)
    found = DeepFool(norm=norm, candidates=classes)(net, images)
    nearest = exact(net, images, norm).min(1)
    inside = (found.images[0] > 0).flatten(1).all(1) & (found.images[0] < 1).flatten(1).all(1)
    assert inside.sum() > 30
    assert found.success[0].all()
    torch.testing.assert_close(found.eps[0, inside], nearest.values[inside].float(), rtol=1e-3, atol=2e-6)
    assert (found.eps[0, inside] >= nearest.values[inside] * (1 - 1e-4)).all()
    assert torch.equal(found.predictions[0, inside], nearest.indices[inside])
    torch.testing.assert_close(found.eps[0], size_of(found.images[0] - images, norm))
    # one step, with a gradient for each other class, and one look behind the boundary
    assert (found.gradients == classes - 1).all()
    assert (found.queries <= 2 + 3 + 3).all()  # and drawn back, and rounded


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_distance_to_a_target_of_an_affine_model_is_exact_where_one_boundary_lies_between(norm: str) -> None:
    net, images = affine(5), near_grey(60)
    own = net.predict(images).argmax(1)
    target = (own + 1) % 5
    distance = exact(net, images, norm).gather(1, target[:, None])[:, 0].float()
    found = DeepFool(norm=norm)(net, images, target=target)
    assert torch.equal(found.success[0], found.predictions[0] == target)
    inside = (found.images[0] > 0).flatten(1).all(1) & (found.images[0] < 1).flatten(1).all(1)
    # the straight way over that boundary ends in the target, no third class lies between
    weight = net.module.get_parameter("1.weight").detach()
    way = weight[target] - weight[own]
    way = (way / way.norm(dim=1, keepdim=True) if norm == "l2" else way.sign()).view(-1, 3, 4, 4)
    straight = net.predict((images + (1.001 * distance.view(-1, 1, 1, 1)) * way).clamp(0, 1)).argmax(1) == target
    assert (inside & straight).sum() >= 10
    alone = inside & straight & (found.gradients == 1)
    assert alone.sum() >= 5
    torch.testing.assert_close(found.eps[0, alone], distance[alone], rtol=1e-3, atol=2e-6)
    reached = found.success[0] & inside
    assert (found.eps[0, reached] >= distance[reached] * (1 - 1e-4)).all()  # no way is shorter


def by_the_book(net: Classifier, image: Tensor, norm: str, overshoot: float) -> Tensor:
    """Algorithm 2 of the paper for one image, with a gradient for every class in every step."""
    total, changed = torch.zeros_like(image), image
    own = int(net.predict(image[None]).argmax())
    for _ in range(50):
        leaf = changed.clone().requires_grad_()
        logits = net.logits(leaf[None])[0]
        if int(logits.argmax()) != own:
            break
        best, step = torch.inf, total
        for k in range(len(logits)):
            if k == own:
                continue
            (w,) = torch.autograd.grad(logits[k] - logits[own], leaf, retain_graph=True)
            gap = float((logits[own] - logits[k]).detach())
            length = float(w.norm() if norm == "l2" else w.abs().sum())
            if gap / length < best:
                best = gap / length
                step = (best + 1e-4) * (w / w.norm() if norm == "l2" else w.sign())
        total = total + step
        changed = (image + (1 + overshoot) * total).clamp(0, 1)
    return changed


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("family", ["resnet", "efficientnet"])
def test_steps_are_those_of_the_paper(norm: str, family: str) -> None:
    net, images = classifier(FAMILIES[family]()), photos(6)
    found = DeepFool(norm=norm, candidates=5, refine=0)(net, images)
    with net.session():
        expected = torch.stack([by_the_book(net, image, norm, 0.02) for image in images])
    torch.testing.assert_close(found.images[0], expected, rtol=1e-3, atol=1e-4)
    assert (found.gradients < 4 * (found.queries - 1)).any()  # some gradients were not needed


def test_drawing_back_ends_nearer_and_still_fools() -> None:
    net, images = classifier(FAMILIES["densenet"]()), photos(6)
    rough, fine = DeepFool(refine=0, overshoot=0.5)(net, images), DeepFool(refine=6, overshoot=0.5)(net, images)
    assert rough.success[0].all()
    assert fine.success[0].all()
    assert (fine.eps[0] <= rough.eps[0]).all()
    assert (fine.eps[0] < rough.eps[0]).sum() >= 3


def test_the_second_level_can_be_saved() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), (photos(6) * 255).round() / 255
    found = DeepFool()(net, images)
    saved = (found.images[1] * 255).round() / 255
    kept = found.success_8bit[1]
    assert kept.any()
    torch.testing.assert_close(found.images[1, kept], saved[kept])
    assert (found.best[kept] >= 0).all()


def test_levels_at_given_sizes_lie_on_the_way() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(3)
    found = DeepFool(eps=(0.02, 0.01))(net, images)
    assert found.images.shape[0] == 4
    torch.testing.assert_close(found.eps[:2, 0], torch.tensor([0.01, 0.02]))
    assert (found.distances["l2"][:2] <= found.eps[:2] + 1e-5).all()


def test_an_image_leaves_when_it_fools_and_a_budget_ends_the_search() -> None:
    net, images = affine(10), near_grey(8)
    for budget in range(1, 6):
        found = DeepFool()(WhiteBox(net, budget=budget), images)
        assert (found.queries <= budget).all()
    assert not DeepFool()(WhiteBox(net, budget=1), images).success[0].any()


@pytest.mark.parametrize(
    "field", [{"candidates": 1}, {"steps": 0}, {"overshoot": -0.1}, {"norm": "l1"}, {"refine": -1}]
)
def test_settings_that_cannot_be_meant(field: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="expected"):
        DeepFool(**field)  # type: ignore[arg-type]
