"""Each explainer against something independent: closed forms, finite differences, hooks, hand-written backward passes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from nets import FAMILIES, SIZE, Mobile, Spelled, classifier, lively, photos, vgg
from seewhy.classifier import Classifier
from seewhy.errors import DataError, LayerError, NothingToExplain, SpecError, UnknownOperation
from seewhy.explain import (
    Deconvolution,
    ExpectedGradients,
    GradCAM,
    Gradient,
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    SmoothGrad,
)
from seewhy.explain.baseline import baseline, blurred
from seewhy.lens import Kept, capture
from seewhy.lens.backward import RULES, rule
from seewhy.lens.ops import Call
from seewhy.lens.replay import replay
from seewhy.method import parse


def plain(module: nn.Module, size: int = 4) -> Classifier:
    return Classifier(module, size=size, check=False)


def test_gradient_agrees_with_finite_differences() -> None:
    module = lively(Mobile(nn.SiLU)).double().eval()
    net = Classifier(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), size=SIZE, check=False)
    image = photos(1).double()
    found = Gradient()(net, image, 3).values[0]
    draw = torch.Generator().manual_seed(5)
    for _ in range(5):
        step = torch.randn(image.shape, generator=draw, dtype=torch.float64)
        step *= 1e-5 / step.norm()
        with torch.no_grad():
            rise = net.logits(image + step)[0, 3] - net.logits(image - step)[0, 3]
        assert float((found * step[0]).sum()) * 2 == pytest.approx(float(rise), rel=1e-4)


def test_gradient_times_input_of_a_net_without_biases_adds_up_to_the_logit() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, 4, bias=False)
    )
    net = plain(lively(module), 4)
    images = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = GradientTimesInput()(net, images)
    torch.testing.assert_close(found.values.sum((1, 2, 3)), found.score, rtol=1e-4, atol=1e-5)


def test_smoothgrad_without_noise_is_the_gradient_and_with_noise_the_mean_over_a_plain_loop() -> None:
    net, images = classifier(Mobile(nn.ReLU6)), photos(2)
    still = SmoothGrad(samples=2, noise=0.0)(net, images)
    torch.testing.assert_close(still.values, Gradient()(net, images).values, rtol=1e-4, atol=1e-6)
    assert still.measures["standard error"].max() < 1e-5

    found = SmoothGrad(samples=40, noise=0.1, seed=3)(net, images, 1)
    again = SmoothGrad(samples=40, noise=0.1, seed=4)(net, images, 1)
    distance = (found.values - again.values).flatten(1).norm(dim=1) / found.values.flatten(1).norm(dim=1)
    # two independent means differ by √2 standard errors
    torch.testing.assert_close(distance, 2**0.5 * found.measures["standard error"], rtol=0.25, atol=0.0)


def test_smoothgrad_squared_and_vargrad_are_moments_of_the_same_draws() -> None:
    net, images = classifier(Mobile(nn.ReLU6)), photos(2)
    found = {
        statistic: SmoothGrad(samples=9, noise=0.1, statistic=statistic)(net, images, 1)
        for statistic in ("mean", "square", "variance")
    }
    mean, square, variance = (each.values for each in found.values())
    torch.testing.assert_close(variance, square - mean.square(), rtol=1e-3, atol=1e-5)
    error = found["mean"].standard_error
    assert error is not None
    torch.testing.assert_close(error.square() * 9, variance * 9 / 8, rtol=1e-3, atol=1e-6)
    still = SmoothGrad(samples=3, noise=0.0, statistic="square")(net, images, 1).values
    torch.testing.assert_close(still, Gradient()(net, images, 1).values.square(), rtol=1e-3, atol=1e-6)
    assert not SmoothGrad(samples=1, statistic="variance")(net, images[:1], 1).values.any()
    with pytest.raises(SpecError, match='mean, square or variance, got "median"'):
        SmoothGrad(statistic="median")


def test_expected_gradients_of_a_quadratic_are_their_closed_form() -> None:
    # f(x) = (w·x)²: for one baseline r the integral is (x − r) w (w·x + w·r); over flat random colours r its mean is known
    module = Square()
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found = ExpectedGradients(samples=4000)(plain(module), image, 0)
    weight = module.weight.detach().view(3, 4, 4)
    colours = torch.rand(400_000, 3, generator=torch.Generator().manual_seed(2))
    along = colours @ weight.sum((1, 2))
    x, f = image[0], float((image[0] * weight).sum())
    # E[(x − r)(f + w·r)] of each colour channel
    expected = weight * (x * (f + along.mean()) - (colours * (f + along)[:, None]).mean(0).view(3, 1, 1))
    assert found.standard_error is not None
    deviations = (found.values[0] - expected) / found.standard_error[0]
    assert deviations.abs().max() < 5
    assert 0.2 < deviations.square().mean().sqrt() < 2
    assert found.measures["additivity error"][0] < 0.05
    assert found.cost.forward <= ExpectedGradients(samples=4000).passes[0] + 1


@pytest.mark.parametrize("references", ["colours", "noise", "folder"])
def test_expected_gradients_of_a_linear_net_are_exact_but_for_the_references(references: str, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    if references == "folder":
        for name, value in (("a", 0), ("b", 255)):
            Image.new("RGB", (4, 4), (value, value, value)).save(tmp_path / f"{name}.png")
    explainer = ExpectedGradients(samples=64, references=str(tmp_path) if references == "folder" else references)
    found = explainer(plain(module), images, 1)
    assert found.measures["additivity error"].max() < 1e-4
    mean = images - found.values / module.get_parameter("1.weight")[1].view(3, 4, 4)  # x − φ/w is the references' mean
    assert (mean[0] - mean[1]).abs().max() < 1e-4
    assert (mean.mean((0, 2, 3)) - 0.5).abs().max() < 0.2
    if references == "folder":
        assert mean.std() < 1e-4
    else:
        assert mean[0, 0].std() < 1e-4 if references == "colours" else mean[0, 0].std() > 0.01


def test_expected_gradients_say_what_references_are_missing() -> None:
    with pytest.raises(DataError, match="nowhere"):
        ExpectedGradients(references="nowhere")(plain(Square()), torch.rand(1, 3, 4, 4))
    with pytest.raises(SpecError, match="samples ≥ 2"):
        ExpectedGradients(samples=1)


class Square(nn.Module):
    """f(x) = (w·x)², whose integrated gradients from black are w_i x_i (w·x)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        along = x.flatten(1) @ self.weight
        return torch.stack([along.square(), along], 1)


def test_integrated_gradients_of_a_quadratic_are_its_closed_form() -> None:
    module = Square()
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found = IntegratedGradients()(plain(module), images, 0)
    flat = images.flatten(1)
    expected = flat * module.weight * (flat @ module.weight)[:, None]
    torch.testing.assert_close(found.values.flatten(1), expected.detach(), rtol=1e-4, atol=1e-5)
    assert found.measures["steps"].tolist() == [9, 9]


def test_integrated_gradients_from_noise_are_those_of_the_seed() -> None:
    module = Square()
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for seed in (0, 5):  # class 1 is linear: what a pixel adds is its weight times its rise
        found = parse(f"integrated-gradients:baseline=noise,seed={seed}")(plain(module), images, 1)
        expected = (images - baseline("noise", images, seed)).flatten(1) * module.weight.detach()
        torch.testing.assert_close(found.values.flatten(1), expected, rtol=1e-4, atol=1e-5)


def chosen(target: Tensor, logits: Tensor, _: slice) -> Tensor:
    return logits[:, target]


def test_integrated_gradients_refine_until_complete_and_say_where_they_are_not() -> None:
    net, images = classifier(Spelled("functional")), photos(2)
    exact = IntegratedGradients(tolerance=1e-3, steps=999)(net, images)
    assert exact.measures["completeness error"].max() <= 1e-3
    rise = exact.score - net.predict(torch.zeros_like(images)).gather(1, exact.target[:, None])[:, 0]
    torch.testing.assert_close(exact.values.sum((1, 2, 3)), rise, rtol=4e-3, atol=1e-5)
    for which in range(2):
        # the sum that is not adaptive, over many even points
        way = images[which] * ((torch.arange(3000) + 0.5) / 3000).view(-1, 1, 1, 1)
        _, gradient = net.gradient(way, partial(chosen, exact.target[which]))
        even = gradient.mean(0) * images[which]
        assert float((even - exact.values[which]).norm() / even.norm()) <= 0.03

    hasty = IntegratedGradients(tolerance=1e-6, steps=9)(net, images)
    assert "9 steps left a completeness error above" in hasty.notes[0]
    assert hasty.measures["steps"].tolist() == [9, 9]
    two = IntegratedGradients(tolerance=1e-6, steps=2)(net, images)  # the trapezium of the two ends
    black, here = (
        net.gradient(each, lambda logits, where: logits.gather(1, two.target[where, None])[:, 0])[1]
        for each in (images * 0, images)
    )
    torch.testing.assert_close(two.values, images * (black + here) / 2, rtol=1e-4, atol=1e-6)


class Step(nn.Module):
    """f(x) = σ(k (mean x − at)), steep: all of its rise on a thousandth of the way."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([torch.sigmoid(4000 * (mean - 0.123)), torch.sin(2 * torch.pi * 3 * mean) + 1e-5 * mean], 1)


def test_integrated_gradients_find_a_step_on_the_way_which_even_points_miss() -> None:
    image = torch.full((1, 3, 4, 4), 0.5)
    found = IntegratedGradients(tolerance=0.01)(plain(Step()), image, 0)
    assert found.measures["completeness error"][0] <= 0.01
    torch.testing.assert_close(found.values, torch.full_like(image, 1 / 48), rtol=0.011, atol=0.0)
    assert found.measures["steps"][0] < 100
    assert not found.notes


class Bent(nn.Module):
    """f(x) = m + (m − ½)⁴ of the mean m: what three even points miss on one half of the way they make up for on the other."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([mean + (mean - 0.5) ** 4, mean], 1)


def test_integrated_gradients_say_where_the_values_add_up_by_luck() -> None:
    white = torch.ones(1, 3, 4, 4)
    found = IntegratedGradients(tolerance=0.01, steps=3)(plain(Bent()), white, 0)
    assert found.measures["completeness error"].item() < 1e-5
    # by hand: the trapezium of slopes 1 ∓ 4/8 and 1 misses ∓ 1/16 of each half, and the rise is 1
    assert found.measures["error along the way"].item() == pytest.approx(2**0.5 / 16, rel=1e-4)
    assert found.notes == (
        "for 1 of 1 images 3 steps left an error along the way above 2 % (worst 8.84 %): the values add up by luck alone; "
        "allow more steps",
    )
    assert not IntegratedGradients(tolerance=0.01)(plain(Bent()), white, 0).notes


def test_integrated_gradients_say_a_saturated_class_and_an_image_that_is_its_baseline() -> None:
    net = plain(Step())
    saturated = IntegratedGradients(steps=17)(net, torch.full((1, 3, 4, 4), 1 / 3), 1)
    assert "a saturated class" in saturated.notes[-1]
    still = IntegratedGradients()(net, torch.cat([torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.4)]), 0)
    assert not still.values[0].any()
    assert still.values[1].any()
    assert "1 of 2 images equal their baseline (black)" in still.notes[0]
    assert "zero everywhere for" in still.notes[-1]


def test_blur_keeps_a_flat_image_and_spreads_a_point_as_a_gaussian() -> None:
    flat = torch.full((1, 3, 9, 9), 0.3)
    torch.testing.assert_close(blurred(flat, 2.0), flat)
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    spread = blurred(point, 3.0)[0, 0]
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    rows = torch.arange(41.0) - 20
    assert float((spread.sum(1) * rows.square()).sum()) == pytest.approx(9, rel=0.05)


def sent_back_by_hand(module: nn.Sequential, image: Tensor, target: int, rule: str) -> Tensor:
    """The backward pass of a sequential net written out, with the papers' rules at its rectifiers."""
    maps = [image]
    for layer in module:
        maps.append(layer(maps[-1].clone()))
    back = torch.zeros_like(maps[-1])
    back[0, target] = 1
    layers: list[nn.Module] = list(module)
    for layer, x in zip(reversed(layers), reversed(maps[:-1]), strict=True):
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            positive = back.clamp(min=0)
            active = (x > 0) & (x < 6) if isinstance(layer, nn.ReLU6) else x > 0
            back = positive if rule == "deconvolution" else positive * active
        else:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                (back,) = torch.autograd.grad(layer(leaf), leaf, back)
    return back[0]


@pytest.mark.parametrize("rule", ["deconvolution", "guided"])
@pytest.mark.parametrize("six", [False, True])
def test_backward_rules_agree_with_a_backward_pass_written_out(rule: str, six: bool) -> None:
    module = lively(vgg()).eval()
    assert isinstance(module, nn.Sequential)
    if six:
        for index in (1, 4, 9):
            module[index] = nn.ReLU6(inplace=True)
        module.get_parameter("0.weight").data.mul_(6)  # so that both ends of the rectifier cut
    for layer in module:
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = False
    image = photos(1)
    explainer = Deconvolution() if rule == "deconvolution" else GuidedBackprop()
    expected = sent_back_by_hand(module, image, 2, rule)
    for layer in module:
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = True
    found = explainer(Classifier(module, size=SIZE, check=False), image, 2)
    torch.testing.assert_close(found.values[0], expected, rtol=1e-4, atol=1e-6)
    gradient = Gradient()(Classifier(module, size=SIZE, check=False), image, 2)
    assert (found.values - gradient.values).norm() > 0.1 * gradient.values.norm()


@pytest.mark.parametrize("layer", ["1", "2", "2:max_pool2d", "3"])
def test_a_layer_as_input_is_the_rest_of_the_net_by_itself(layer: str) -> None:
    whole = classifier(FAMILIES["vgg"]())
    images = photos(2)
    cut = int(layer[0]) + 1
    assert isinstance(whole.module, nn.Sequential)
    module: nn.Sequential = whole.module.eval()

    class Rest(nn.Module):
        """What follows the layer, on maps in the place of pixels."""

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = module[cut:](x.clone())
            return answer

    with torch.no_grad():
        maps, start = (module[:cut](whole.normalise(each)) for each in (images, images * 0))
    leaf = maps.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Rest()(leaf)[:, 3].sum(), leaf)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(Gradient(layer=layer)(whole, images, 3).values, gradient, rtol=1e-4, atol=1e-6)
    found = GradientTimesInput(layer=layer)(whole, images, 3)
    torch.testing.assert_close(found.values, maps * gradient, rtol=1e-4, atol=1e-6)
    assert found.layer == layer

    path = IntegratedGradients(layer=layer, tolerance=2e-4, steps=999)(whole, images, 3)
    points = ((torch.arange(4000) + 0.5) / 4000).view(-1, 1, 1, 1)
    for i in range(2):
        leaf = (start[i] + points * (maps[i] - start[i])).requires_grad_()
        (even,) = torch.autograd.grad(Rest()(leaf)[:, 3].sum(), leaf)
        expected = even.mean(0) * (maps[i] - start[i])
        assert float((path.values[i] - expected).norm() / expected.norm()) < 0.03
    rise = Rest()(maps)[:, 3] - Rest()(start)[:, 3]
    torch.testing.assert_close(path.values.sum((1, 2, 3)), rise.detach(), rtol=2e-3, atol=1e-4)

    for explainer, name in ((GuidedBackprop(layer), "guided"), (Deconvolution(layer), "deconvolution")):
        layers = list(module.children())[cut:]
        rest = nn.Sequential(*(nn.ReLU() if isinstance(each, nn.ReLU) else each for each in layers)).eval()
        expected = torch.stack([sent_back_by_hand(rest, each[None], 3, name) for each in maps])
        torch.testing.assert_close(explainer(whole, images, 3).values, expected, rtol=1e-4, atol=1e-6)


def test_a_layer_on_a_branch_leaves_the_other_as_it_is() -> None:
    net, images = classifier(Spelled("in-place")), photos(1)
    found = IntegratedGradients(layer="bn2", tolerance=1e-3, steps=999)(net, images, 2)
    maps, start = (capture(net, each, ["bn2"])["bn2"] for each in (images, images * 0))
    kept = Kept(net, images)
    with torch.no_grad():
        rise = replay(kept, at="bn2", value=maps)[:, 2] - replay(kept, at="bn2", value=start)[:, 2]
    torch.testing.assert_close(found.values.sum((1, 2, 3)), rise, rtol=2e-3, atol=1e-4)
    assert found.values.shape == (1, 8, SIZE, SIZE)
    assert "no rectifier after relu2" in Deconvolution("relu2")(net, images).notes[0]


RECTIFIERS: dict[str, Any] = {
    "relu": F.relu,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "max": lambda x: torch.max(x, torch.zeros_like(x)),
    "max, constant first": lambda x: torch.max(torch.zeros(()), other=x),
    "max, after one along a dimension": lambda x: torch.max(x - 0 * x.max(1, True)[0].detach(), torch.zeros(())),
    "aten max": lambda x: torch.ops.aten.max.other(x, torch.zeros(())),
    "clamp to a tensor": lambda x: torch.clamp(x, min=torch.zeros(())),
    "clamp_min to a tensor": lambda x: x.clamp_min(torch.zeros_like(x)),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 1e6),
    "leaky with slope 0": lambda x: F.leaky_relu(x, 0.0),
    "in place": lambda x: x.clamp_(min=0),
    "aten": torch.ops.aten.relu.default,
}


class Spelt(nn.Module):
    def __init__(self, rectify: Any) -> None:
        super().__init__()
        self.rectify = rectify
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.rectify(self.b(self.rectify(self.a(x)))).mean((2, 3)))


@pytest.mark.parametrize("spelling", RECTIFIERS)
@pytest.mark.parametrize("explainer", [Deconvolution(), GuidedBackprop()], ids=lambda each: each.name)
def test_a_rectifier_is_seen_however_it_is_written(spelling: str, explainer: Any) -> None:
    expected = explainer(classifier(Spelt(F.relu)), photos(), 1).values
    found = explainer(classifier(Spelt(RECTIFIERS[spelling])), photos(), 1).values
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda x: torch.max(x, x.roll(1, 2)),
        lambda x: torch.clamp(x, min=x.roll(1, 2)),
        lambda x: torch.max(x, 1, keepdim=True).values.expand_as(x),
        lambda x: torch.max(x, torch.tensor(-0.1)),
        lambda x: torch.maximum(x, torch.tensor(-0.1)),
        lambda x: torch.clamp(x, min=torch.tensor(-0.1)),
        lambda x: torch.clamp(x, max=torch.zeros(())),
    ],
    ids=["max of two", "clamp to a map", "along a dimension", "max", "maximum", "clamp", "clamp from above"],
)
def test_what_is_no_rectifier_has_its_gradient(spelling: Any) -> None:
    net = classifier(Spelt(spelling))
    for explainer in (Deconvolution(), GuidedBackprop()):
        found = explainer(net, photos(), 1)
        torch.testing.assert_close(found.values, Gradient()(net, photos(), 1).values)
        assert "has no rectifier" in found.notes[0]


@pytest.mark.parametrize(
    "spelling",
    [
        lambda x: torch.max(x, torch.linspace(-1, 1, x.shape[-1])),
        lambda x: torch.clamp(x, min=torch.linspace(-1, 1, x.shape[-1])),
    ],
)
def test_a_bound_that_rectifies_in_places_is_refused(spelling: Any) -> None:
    with pytest.raises(UnknownOperation, match="a bound that is below zero in some places and not in others"):
        GuidedBackprop()(classifier(Spelt(spelling)), photos(), 1)


def _with_zeros(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


@pytest.mark.parametrize(
    "hidden",
    [
        lambda x: x * (x > 0),
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x.masked_fill(x < 0, 0),
        lambda x: _with_zeros(x),
        lambda x: x * torch.sign(x).clamp(0),
    ],
    ids=["times a mask", "where", "masked fill", "assignment", "times a sign"],
)
def test_a_rectifier_hidden_in_a_mask_is_refused_not_missed(hidden: Any) -> None:
    with pytest.raises(UnknownOperation, match="mask computed from the image"):
        GuidedBackprop()(classifier(Spelt(hidden)), photos())
    Gradient()(classifier(Spelt(hidden)), photos())  # which has no need of a rule


def test_an_operation_outside_the_vocabulary_is_refused_by_name_and_place() -> None:
    with pytest.raises(UnknownOperation, match="backward lens has no rule for the operation cumsum"):
        GuidedBackprop()(classifier(Spelt(lambda x: x.cumsum(2))), photos())


def test_a_registered_rule_makes_an_operation_known() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.relu(x) + torch.special.log1p(x.clamp(min=0)) * 0

    net = classifier(Spelt(Twice()))
    with pytest.raises(UnknownOperation, match="log1p"):
        GuidedBackprop()(net, photos(), 1)

    @rule("special_log1p", "log1p")
    def _smooth(call: Call) -> bool:
        return False

    try:
        found = GuidedBackprop()(net, photos(), 1).values
    finally:
        del RULES["special_log1p"], RULES["log1p"]
    torch.testing.assert_close(found, GuidedBackprop()(classifier(Spelt(F.relu)), photos(), 1).values)


def test_smooth_rectifiers_carry_a_note() -> None:
    assert "silu is not flat below zero" in GuidedBackprop()(classifier(FAMILIES["efficientnet"]()), photos()).notes[0]
    assert (
        "no rectifier"
        in GuidedBackprop()(plain(nn.Sequential(nn.Flatten(), nn.Linear(48, 2))), torch.rand(1, 3, 4, 4)).notes[0]
    )


@pytest.mark.parametrize("family", ["resnet", "vgg", "mobilenet", "inception"])
def test_grad_cam_agrees_with_hooks(family: str) -> None:
    expected_layer = {"resnet": "relu2", "vgg": "4", "mobilenet": "head"}
    net, images = classifier(FAMILIES[family]()), photos(2)
    found = GradCAM()(net, images)
    if family == "inception":
        assert found.layer == ":cat"
        net.module.eval()
        kept: dict[str, Tensor] = {}
        pooled = net.module.get_submodule("fc").register_forward_pre_hook(lambda _, args: kept.update(x=args[0]))
        logits = net.logits(images)
        pooled.remove()
        # the head is linear on the pooled maps, so the weights are the classifier's own, divided by the positions
        weights = net.module.get_parameter("fc.weight")[logits.argmax(1)] / 144
        assert kept["x"].shape == (2, 12)
        assert (found.values.mean((2, 3))[:, 0] >= (weights * kept["x"]).sum(1).clamp_min(0) - 1e-5).all()
        return
    assert found.layer == expected_layer[family]
    net.module.eval()
    layer = net.module.get_submodule(found.layer)
    maps: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        leaf = output.detach().clone().requires_grad_()
        maps.append(leaf)
        return leaf.clone()

    handle = layer.register_forward_hook(keep)
    logits = net.logits(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), maps[0])
    expected = torch.relu((gradient.mean((2, 3), keepdim=True) * maps[0]).sum(1, keepdim=True)).detach()
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.score, logits.max(1).values.detach())


def test_grad_cam_layers_are_checked() -> None:
    net = classifier(Spelled("module"))
    with pytest.raises(LayerError, match='did you mean "conv1"'):
        GradCAM("conv11")(net, photos())
    with pytest.raises(LayerError, match="needs a layer that answers maps"):
        GradCAM("fc")(net, photos())
    for layer in ("conv1", "bn1", "relu", ":add", ":max_pool2d"):
        assert GradCAM(layer)(net, photos()).layer == layer
    assert GradCAM(":relu")(classifier(Spelled("functional")), photos()).layer == ":relu"


def test_what_cannot_be_explained_is_refused() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().mean((2, 3))

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x).abs().sqrt().mean((2, 3)) + x.mean((2, 3))

    with pytest.raises(NothingToExplain, match="does not depend on its input"):
        Gradient()(plain(Cut()), torch.rand(1, 3, 4, 4))
    with pytest.raises(NothingToExplain, match="not finite"):
        Gradient()(plain(Root()), torch.rand(1, 3, 4, 4))

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.mean((2, 3)) * 0).clamp(min=-1)

    assert "zero everywhere" in Gradient()(plain(Flat()), torch.rand(1, 3, 4, 4)).notes[0]
