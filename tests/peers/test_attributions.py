"""Beside Captum and pytorch-grad-cam on torchvision's networks: equal where they are right, different where they are not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.classifier import Classifier
from seewhy.explain import (
    Attribution,
    Deconvolution,
    ExpectedGradients,
    Explainer,
    GradCAM,
    Gradient,
    GradientTimesInput,
    GuidedBackprop,
    GuidedGradCAM,
    IntegratedGradients,
    SmoothGrad,
)
from seewhy.zoo import load

pytestmark = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torchvision_net(name: str) -> Classifier:
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).eval()
    for child in module.modules():
        if isinstance(child, nn.ReLU):
            child.inplace = False  # the peers' hooks cannot bear it
    return Classifier(module, mean=MEAN, std=STD, size=96, check=False)


def picture(size: int) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))


def peers(name: str) -> Callable[[nn.Module], Any]:
    import captum.attr

    made: Callable[[nn.Module], Any] = getattr(captum.attr, name)
    return made


PAIRS: list[tuple[Explainer, str, dict[str, Any]]] = [
    (Gradient(), "Saliency", {"abs": False}),
    (GuidedBackprop(), "GuidedBackprop", {}),
    (Deconvolution(), "Deconvolution", {}),
]


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
@pytest.mark.parametrize(("ours", "peer", "words"), PAIRS, ids=lambda each: getattr(each, "name", ""))
def test_equal_where_captum_is_right(name: str, ours: Explainer, peer: str, words: dict[str, Any]) -> None:
    net, image = torchvision_net(name), picture(96)
    found = ours(net, image, 7).values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peers(peer)(net.module).attribute(net.normalise(image).requires_grad_(), target=7, **words)
    theirs = (theirs / torch.tensor(STD).view(1, 3, 1, 1)).detach()
    assert float((found - theirs).norm() / theirs.norm()) <= 1e-5


@pytest.mark.parametrize(("ours", "peer"), [(GuidedBackprop(), "GuidedBackprop"), (Deconvolution(), "Deconvolution")])
def test_different_from_the_gradient_where_captum_is_not(ours: Explainer, peer: str) -> None:
    net = load("efficientnet-lite0")  # its rectifiers are ReLU6
    image = picture(224)
    gradient = Gradient()(net, image, 7).values
    found = ours(net, image, 7).values
    net.module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peers(peer)(net.module).attribute(net.normalise(image).requires_grad_(), target=7)
    theirs = (theirs / torch.tensor(net.std).view(1, 3, 1, 1)).detach()

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    assert cosine(theirs, gradient) > 0.999  # the peer's is the plain gradient under another name
    assert cosine(found, gradient) < 0.5


class Inside(nn.Module):
    """The network on pixels in [0, 1], its normalisation within."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.logits(x)


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_gradient_times_input_is_captums_on_pixels(name: str) -> None:
    net, image = torchvision_net(name), picture(96)
    found = GradientTimesInput()(net, image, 7).values
    theirs = peers("InputXGradient")(Inside(net)).attribute(image.clone().requires_grad_(), target=7).detach()
    assert float((found - theirs).norm() / theirs.norm()) <= 1e-5


@pytest.mark.parametrize(("name", "layer"), [("resnet50", "layer4"), ("vgg16", "features.29")])
def test_guided_grad_cam_is_captums(name: str, layer: str) -> None:
    import captum.attr

    net, image = torchvision_net(name), picture(96)
    target = int(net.predict(image).argmax())  # of others Grad-CAM may find nothing
    found = GuidedGradCAM()(net, image, target)
    assert found.layer == layer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = captum.attr.GuidedGradCam(net.module, net.module.get_submodule(layer))
        given = net.normalise(image).requires_grad_()
        theirs = peer.attribute(given, target=target, interpolate_mode="bilinear").detach()
    theirs = theirs / torch.tensor(STD).view(1, 3, 1, 1)
    assert float(theirs.norm()) > 0
    assert float((found.values - theirs).norm() / theirs.norm()) <= 1e-4


def apart(found: Attribution, theirs: Tensor) -> float:
    """How far two means of equally many independent draws lie apart, in the deviations that their standard error foretells."""
    error = found.standard_error
    assert error is not None
    return float((found.values - theirs).norm() / (2**0.5 * error.norm()))


@pytest.mark.parametrize("statistic", ["mean", "square", "variance"])
def test_smoothgrad_is_captums_within_its_standard_error(statistic: str) -> None:
    net, image, samples, noise = torchvision_net("resnet18"), picture(64), 200, 0.15
    found = SmoothGrad(samples=samples, noise=noise, statistic=statistic)(net, image, 7)
    kind = {"mean": "smoothgrad", "square": "smoothgrad_sq", "variance": "vargrad"}[statistic]
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(2)
        tunnel = peers("NoiseTunnel")(peers("Saliency")(Inside(net)))
        theirs = tunnel.attribute(
            image, nt_type=kind, nt_samples=samples, nt_samples_batch_size=20,
            stdevs=noise * float(image.max() - image.min()), target=7, abs=False,
        )  # fmt: skip
    assert 0.8 <= apart(found, theirs.detach()) <= 1.25
    other = SmoothGrad(samples=samples, noise=2 * noise, statistic=statistic)(net, image, 7)
    assert apart(found, other.values) > 1.5  # what another noise would do is seen


def test_expected_gradients_are_captums_within_their_standard_error() -> None:
    net, image, samples = torchvision_net("resnet18"), picture(64), 200
    found = ExpectedGradients(samples=samples)(net, image, 7)
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(2)
        np.random.seed(2)  # the peer draws from it, too
        colours = torch.rand(5000, 3, 1, 1).expand(-1, -1, 64, 64)  # so many that it hardly draws one twice
        theirs = peers("GradientShap")(Inside(net)).attribute(image, colours, n_samples=samples, target=7).detach()
    assert 0.6 <= apart(found, theirs) <= 1.15  # ours draws evenly along the way, and so errs less
    black = IntegratedGradients(tolerance=0.01)(net, image, 7)
    assert apart(found, black.values) > 1.5  # what other baselines would do is seen


def test_integrated_gradients_are_captums_with_many_steps() -> None:
    net, image = torchvision_net("resnet50"), picture(96)
    found = IntegratedGradients(tolerance=1e-9, steps=300)(net, image, 7)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captum = peers("IntegratedGradients")(Inside(net))
        theirs = captum.attribute(image, target=7, n_steps=300, method="riemann_middle", internal_batch_size=10)
    assert found.measures["steps"].item() == 300
    assert float((found.values - theirs).norm() / theirs.norm()) < 0.03  # two sums of one integral


@pytest.mark.parametrize(("name", "layer"), [("resnet50", "layer4"), ("vgg16", "features.29")])
def test_grad_cam_has_the_shape_of_the_peers(name: str, layer: str) -> None:
    from pytorch_grad_cam import GradCAM as PeerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, image = torchvision_net(name), picture(96)
    found = GradCAM()(net, image)
    assert found.layer == layer
    assert not found.notes
    targets = [ClassifierOutputTarget(int(found.target))]
    with PeerCAM(model=net.module, target_layers=[net.module.get_submodule(layer)]) as cam:
        theirs = torch.from_numpy(cam(input_tensor=net.normalise(image), targets=targets))
    ours = found.heatmap()
    low, high = ours.min(), ours.max()
    torch.testing.assert_close((ours - low) / (high - low), theirs, rtol=0.02, atol=0.02)
