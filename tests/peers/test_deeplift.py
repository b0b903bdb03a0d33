"""Beside Captum's DeepLift: equal where it is right, additive where it is not."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from families import TWELVE, family, pictures
from seewhy.classifier import Classifier
from seewhy.explain import DeepShap
from seewhy.explain.baseline import baseline
from seewhy.zoo import load

pytestmark = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Apart(nn.Module):
    """Hands its input on as another tensor: on one tensor, Captum runs the hook of the rectifier before the pooling's."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def torchvision_net(name: str) -> Classifier:
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).eval()
    for child in module.modules():
        if isinstance(child, nn.ReLU):
            child.inplace = False  # the peer's hooks cannot bear it
    return Classifier(module, mean=MEAN, std=STD, size=96, check=False)


def captum(net: Classifier, image: Tensor, reference: Tensor, target: int) -> Tensor:
    from captum.attr import DeepLift

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given, start = net.normalise(image).requires_grad_(), net.normalise(reference)
        return DeepLift(net.module.eval()).attribute(given, start, target=target).detach()


def rise(net: Classifier, image: Tensor, reference: Tensor, target: int) -> float:
    net.module.eval()
    with torch.no_grad():
        return float(net.logits(image)[0, target] - net.logits(reference)[0, target])


def picture(size: int) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_equals_captum_on_vgg16_where_its_hooks_are_kept_apart() -> None:
    net, image = torchvision_net("vgg16"), picture(96)
    found = DeepShap(("noise",))(net, image, 7)
    reference = baseline("noise", image)
    # as torchvision has it, max-pooling follows a rectifier directly, and Captum's rule for it never reaches the rectifier
    theirs = captum(net, image, reference, 7)
    assert abs(float(theirs.sum()) / rise(net, image, reference, 7) - 1) > 0.02
    assert found.measures["additivity error"].item() <= 1e-4
    features = net.module.get_submodule("features")
    assert isinstance(features, nn.Sequential)
    for index, child in enumerate(features):
        if isinstance(child, nn.MaxPool2d):
            features[index] = nn.Sequential(Apart(), child)
    theirs = captum(net, image, reference, 7)
    assert float((found.values - theirs).norm() / theirs.norm()) <= 1e-4


def test_additive_on_resnet50_where_captum_fails() -> None:
    net, image = torchvision_net("resnet50"), picture(96)
    with pytest.raises(RuntimeError, match="used more than"):
        captum(net, image, torch.zeros_like(image), 7)
    assert DeepShap()(net, image, 7).measures["additivity error"].item() <= 1e-3


def test_additive_on_lite0_where_captum_is_not() -> None:
    net, image = load("efficientnet-lite0"), picture(224)
    found = DeepShap()(net, image)
    assert found.measures["additivity error"].item() <= 1e-3
    black, target = torch.zeros_like(image), int(found.target)
    theirs = captum(net, image, black, target)
    assert abs(float(theirs.sum()) / rise(net, image, black, target) - 1) > 0.5


@pytest.mark.parametrize("name", TWELVE)
def test_additive_on_torchvisions_families(name: str) -> None:
    found = DeepShap(("black", "blur"))(family(name), pictures(name))
    assert found.measures["additivity error"].max() <= 1e-3
    assert not found.notes
