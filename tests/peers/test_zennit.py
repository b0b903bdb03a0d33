"""Beside Zennit with its canonizers, in float64, on networks whose normalisations have lively statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.classifier import Classifier
from seewhy.explain import LRP
from seewhy.zoo import load

pytestmark = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TARGET = 7


def torchvision_net(name: str) -> Classifier:
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).eval()
    with torch.no_grad():
        norms: list[Any] = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
        for norm in norms:
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.1)
    return Classifier(module.double(), mean=MEAN, std=STD, size=64, check=False)


def theirs(net: Classifier, name: str, image: Tensor, **words: Any) -> Tensor:
    composites = pytest.importorskip("zennit.composites")
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    canonizer = ResNetCanonizer() if hasattr(net.module, "layer1") else VGGCanonizer()
    composite = getattr(composites, name)(canonizers=[canonizer], **words)
    with Gradient(model=net.module, composite=composite) as attributor:
        found: Tensor = attributor(
            net.normalise(image), lambda logits: torch.eye(logits.shape[1]).to(logits)[[TARGET]] * logits
        )[1]
    return found


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
@pytest.mark.parametrize(
    ("ours", "peer"),
    [
        ("epsilon-plus-flat", "EpsilonPlusFlat"),
        ("epsilon-plus", "EpsilonPlus"),
        ("epsilon-gamma-box", "EpsilonGammaBox"),
        ("alpha2-beta1", "EpsilonAlpha2Beta1"),
        ("alpha2-beta1-flat", "EpsilonAlpha2Beta1Flat"),
    ],
)
def test_equal_to_zennit_with_its_canonizers(name: str, ours: str, peer: str) -> None:
    net = torchvision_net(name)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ends = [net.normalise(torch.full((1, 3, 64, 64), end)) for end in (0.0, 1.0)]
    words = dict(zip(("low", "high"), ends, strict=True)) if "box" in ours else {}
    found, other = LRP(ours)(net, image, TARGET).values, theirs(net, peer, image, **words)
    # what is left is the ε of batch normalisation, which Zennit's canonizer counts twice
    assert float((found - other).norm() / other.norm()) <= 1e-3


def test_on_a_network_that_zennit_does_not_merge_nothing_is_made_up() -> None:
    net = load("efficientnet-lite0")
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    found = LRP()(net, image)
    assert 0 < float(found.values.sum()) <= float(found.score)
    assert any("read the pattern" in note for note in found.notes)
