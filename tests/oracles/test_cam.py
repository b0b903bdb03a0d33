"""CAMs against closed forms on a net whose head is linear, against their formulas by hand, and against brute force."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import FAMILIES, SIZE, classifier, lively, photos
from seewhy.classifier import Classifier
from seewhy.errors import LayerError
from seewhy.explain import (
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from seewhy.explain.cam import fused, principal
from seewhy.lens import capture
from seewhy.lens.capture import _Operation
from seewhy.method import parse

ONE_PASS = ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "eigen-cam")


class Pooled(nn.Module):
    """Convolutions, the mean over positions, one linear layer: its maps' gradient is the class's weights / positions."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 7, 3), nn.ReLU()
        )
        self.fc = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.maps(x).mean((2, 3)))


@pytest.fixture
def pooled() -> tuple[Classifier, Tensor, Tensor, Tensor]:
    """The net, images, its maps A (2, 7, 10, 10), and the weights (5, 7) of the classes."""
    net, images = classifier(Pooled()), photos(2)
    with torch.no_grad():
        net.module.get_parameter("maps.3.bias")[2] = -9  # a dead channel
    return net, images, capture(net, images, ["maps"])["maps"], net.module.get_parameter("fc.weight").detach()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)


def relu_sum(terms: Tensor) -> Tensor:
    return terms.sum(1, keepdim=True).clamp_min(0)


@pytest.mark.parametrize("target", range(5))
def test_closed_forms_where_the_head_is_linear(pooled: tuple[Classifier, Tensor, Tensor, Tensor], target: int) -> None:
    net, images, maps, weights = pooled
    w = weights[target].view(1, 7, 1, 1)
    mean, n = maps.mean((2, 3), keepdim=True), maps[0, 0].numel()
    close(GradCAM()(net, images, target).values, relu_sum(w * maps) / n)
    close(XGradCAM()(net, images, target).values, relu_sum(w * maps) / n)  # the gradient is the same everywhere
    close(LayerCAM()(net, images, target).values, relu_sum(w.clamp_min(0) * maps) / n)
    close(
        AblationCAM()(net, images, target).values, relu_sum(w * mean * maps)
    )  # without map k the logit loses w_k mean A_k
    exact = HiResCAM()(net, images, target)
    close(exact.values, (w * maps).sum(1, keepdim=True) / n)
    close(exact.values.sum((1, 2, 3)) + net.module.get_parameter("fc.bias")[target], exact.score)
    # α is the same everywhere: G² / (2 G² + G³ ΣA) = 1 / (2 + w mean A)
    close(GradCAMPlusPlus()(net, images, target).values, relu_sum(w.clamp_min(0) / (2 + w.clamp_min(0) * mean) * maps))


def by_hand(net: Classifier, images: Tensor, layer: str, target: int) -> tuple[Tensor, Tensor]:
    """A layer's maps and their gradient, by a hook and autograd."""
    net.module.eval()
    held: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        held.append(output.detach().clone().requires_grad_())
        return held[0].clone()

    handle = net.module.get_submodule(layer).register_forward_hook(keep)
    logits = net.logits(images)
    handle.remove()
    return held[0].detach(), torch.autograd.grad(logits[:, target].sum(), held[0])[0]


def plus_plus(maps: Tensor, gradient: Tensor) -> Tensor:
    """Equation 19 as it stands, channel by channel and position by position."""
    result = torch.zeros(len(maps), 1, *maps.shape[2:])
    for i, (a, g) in enumerate(zip(maps, gradient, strict=True)):
        for k in range(len(a)):
            weight = 0.0
            for y in range(a.shape[1]):
                for x in range(a.shape[2]):
                    slope = float(g[k, y, x])
                    if slope > 0:
                        weight += slope**2 / (2 * slope**2 + float(a[k].sum()) * slope**3) * slope
            result[i, 0] += weight * a[k]
    return result.clamp_min(0)


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad-cam": lambda a, g: torch.einsum("nkyx,nk->nyx", a, g.mean((2, 3)))[:, None].clamp_min(0),
    "grad-cam++": plus_plus,
    "xgrad-cam": lambda a, g: relu_sum(a * (g * (a / (a.sum((2, 3), keepdim=True) + 1e-12))).sum((2, 3), keepdim=True)),
    "hires-cam": lambda a, g: torch.einsum("nkyx,nkyx->nyx", a, g)[:, None],
    "layer-cam": lambda a, g: torch.einsum("nkyx,nkyx->nyx", a, g.relu())[:, None].clamp_min(0),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("layer", ["1", "4"])
def test_formulas_with_a_gradient_by_hand(name: str, layer: str) -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(2)
    expected = FORMULAS[name](*by_hand(net, images, layer, 3))
    found = parse(f"{name}:layer={layer}")(net, images, 3)
    assert found.layer == layer
    assert found.values.abs().max() > 0
    close(found.values, expected)


def test_eigen_cam_is_the_first_singular_vector(pooled: tuple[Classifier, Tensor, Tensor, Tensor]) -> None:
    net, images, maps, _ = pooled
    found = EigenCAM()(net, images)
    for i, a in enumerate(maps):
        rows = a.flatten(1).T.double().numpy()
        _, s, vt = np.linalg.svd(rows, full_matrices=False)
        projection = rows @ vt[0]
        close(found.values[i].flatten().double(), torch.from_numpy(projection * np.sign(projection.sum())))
        assert float(found.measures["explained"][i]) == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-4)
    assert found.values.min() >= -1e-6  # no map is negative
    assert torch.equal(found.values, EigenCAM()(net, images, 1).values)
    assert found.cost.forward == 2
    few = torch.randn(2, 9, 2, 3, generator=torch.Generator().manual_seed(0))  # more channels than positions
    close(principal(few)[0].flatten(1).norm(dim=1), torch.linalg.matrix_norm(few.flatten(2), 2))
    assert not principal(torch.zeros(1, 3, 2, 2))[0].any()


def logits_without(net: Classifier, images: Tensor, layer: str, channel: int) -> Tensor:
    """A whole pass in which one channel of a layer is overwritten by zeros."""

    def zero(*given: Any) -> Any:
        given[-1][:, channel] = 0
        return given[-1]

    with torch.no_grad(), contextlib.ExitStack() as undo:
        if ":" in layer:
            return net.logits(images, lambda: _Operation(net.module, layer, zero))
        undo.callback(net.module.get_submodule(layer).register_forward_hook(zero).remove)
        return net.logits(images)


@pytest.mark.parametrize(
    ("family", "layer"), [("vgg", "4"), ("mobilenet", "project"), ("resnet", ":add"), ("densenet", "")]
)
def test_ablation_cam_is_zeroing_channels_one_by_one(family: str, layer: str) -> None:
    net, images = classifier(FAMILIES[family]()), photos(2)
    found = AblationCAM(layer or None)(net, images, 2)
    layer = found.layer
    maps = capture(net, images, [layer])[layer]
    whole = net.predict(images)[:, 2]
    expected = torch.zeros_like(found.values)
    for k in range(maps.shape[1]):
        expected += (whole - logits_without(net, images, layer, k)[:, 2]).view(-1, 1, 1, 1) * maps[:, k : k + 1]
    assert expected.abs().max() > 1e-2
    close(found.values, expected.clamp_min(0))


def test_ablation_cam_counts_nothing_for_dead_channels_and_answers_targets_together(
    pooled: tuple[Classifier, Tensor, Tensor, Tensor],
) -> None:
    net, images, _, _ = pooled
    net.engine.batch = 1
    first, second = AblationCAM().each(net, images[:1], [0, 3])
    assert first.cost.forward <= 1 + 2 + 8 * 6
    close(first.values, AblationCAM()(net, images[:1], 0).values)
    close(second.values, AblationCAM()(net, images[:1], 3).values)


def test_score_cam_is_its_algorithm_by_hand(pooled: tuple[Classifier, Tensor, Tensor, Tensor]) -> None:
    net, images, maps, _ = pooled
    found = ScoreCAM()(net, images, 1)
    net.module.eval()
    for i in range(2):
        scores, used = [], []
        for k in range(7):
            mask = F.interpolate(maps[i : i + 1, k : k + 1], SIZE, mode="bilinear", align_corners=False)
            if mask.max() == mask.min():
                assert k == 2
                continue
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            with torch.no_grad():
                scores.append(net.module(net.normalise(images[i : i + 1]) * mask)[0, 1])
            used.append(k)
        weights = torch.stack(scores).softmax(0)
        close(found.values[i], torch.einsum("k,kyx->yx", weights, maps[i, used])[None].clamp_min(0))
    assert found.cost.forward == 2 + 2 * (1 + 6)
    both = ScoreCAM().each(net, images, [1, 4])
    close(both[0].values, found.values)
    assert both[0].cost.forward == 2 + 2 + 2 * (1 + 6)
    assert (both[0].values - both[1].values).abs().max() > 1e-4


def test_several_layers_are_scaled_and_averaged() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(2)
    fine, coarse = (LayerCAM(layer)(net, images, 1).values for layer in ("1", "4"))
    found = parse("layer-cam:layer=1+4")(net, images, 1)
    assert found.layer == "1+4"
    enlarged = F.interpolate(coarse / coarse.amax((2, 3), keepdim=True), fine.shape[2:], mode="bilinear")
    close(found.values, (fine / fine.amax((2, 3), keepdim=True) + enlarged) / 2)
    assert torch.equal(fused([torch.zeros(1, 1, 2, 2)] * 2), torch.zeros(1, 1, 2, 2))
    for spec in ("ablation-cam", "score-cam", "eigen-cam", "grad-cam++"):
        both = parse(f"{spec}:layer=1+4")(net, images, 1)
        one, two = (parse(f"{spec}:layer={layer}")(net, images, 1).values for layer in ("1", "4"))
        close(both.values, fused([one, two]))


def test_guided_grad_cam_is_the_product() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(2)
    expected = GuidedBackprop()(net, images, 2).values * GradCAM()(net, images, 2).heatmap()[:, None]
    found = GuidedGradCAM()(net, images, 2)
    close(found.values, expected)
    assert found.layer == "head"


def test_layers_that_have_no_maps_and_maps_with_poles_are_said() -> None:
    net = classifier(FAMILIES["convnext"]())
    for spec in ("layer-cam", "ablation-cam", "score-cam", "eigen-cam", "gradient"):
        with pytest.raises(LayerError, match="its channels last"):
            parse(f"{spec}:layer=norm")(net, photos())
        with pytest.raises(LayerError, match="needs a layer that answers maps"):
            parse(f"{spec}:layer=fc")(net, photos())
        with pytest.raises(LayerError, match='did you mean "norm"'):
            parse(f"{spec}:layer=nrom")(net, photos())
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        lively(module)
        module.get_parameter("0.bias").fill_(-40)
        module.get_parameter("3.weight").fill_(1)
    assert "pass a pole" in GradCAMPlusPlus("0")(Classifier(module, size=8), torch.rand(1, 3, 8, 8)).notes[0]


def test_a_map_of_nothing_is_said() -> None:
    net, images = classifier(Pooled()), photos(1)
    with torch.no_grad():
        net.module.get_parameter("maps.3.bias").fill_(-99)  # every channel is dead
    for name in (*ONE_PASS, "score-cam", "ablation-cam"):
        found = parse(name)(net, images)
        assert not found.values.any()
        assert "zero everywhere for image 1" in found.notes[-1], name
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        module.get_parameter("0.weight").abs_()
        module.get_parameter("4.weight")[0] = -1.0  # everything speaks against it
    for name in (*ONE_PASS, "ablation-cam"):
        found = parse(name)(Classifier(module, size=8, check=False), torch.rand(1, 3, 8, 8), 0)
        if not found.values.any():
            assert found.notes[-1].endswith("nothing speaks for the class there; what speaks against it is cut off"), (
                name
            )
        assert found.values.any() == (name in ("hires-cam", "eigen-cam")), name
