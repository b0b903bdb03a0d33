"""Beside Captum and pytorch-grad-cam on torchvision's networks: equal where they are right, different where they are not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.classifier import Classifier
from seewhy.explain import Deconvolution, Explainer, GradCAM, Gradient, GuidedBackprop, IntegratedGradients
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


def test_integrated_gradients_are_captums_with_many_steps() -> None:
    net, image = torchvision_net("resnet50"), picture(96)
    found = IntegratedGradients(tolerance=1e-9, steps=300)(net, image, 7)

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net.logits(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captum = peers("IntegratedGradients")(Inside())
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
