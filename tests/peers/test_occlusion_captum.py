"""Occlusion beside Captum, and against dense passes on torchvision's families."""

from __future__ import annotations

import pytest
import torch

from nets import lively
from seewhy.classifier import Classifier
from seewhy.explain import Occlusion

pytestmark = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FAMILIES = (
    *("resnet18", "vgg11_bn", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"),
    *("googlenet", "inception_v3", "squeezenet1_1", "shufflenet_v2_x0_5", "regnet_y_400mf", "mnasnet0_5"),
)


def torchvision_net(name: str, size: int) -> Classifier:
    import torchvision

    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module = getattr(torchvision.models, name)(weights=None, num_classes=10, **more)
    return Classifier(lively(module), mean=MEAN, std=STD, size=size, check=False)


def picture(size: int) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("window", "stride"), [(10, 9), (33, 31)])
def test_equals_dense_passes(name: str, window: int, stride: int) -> None:
    """Against covered images made one by one; the lens follows every family."""
    size = 96 if name == "inception_v3" else 64
    net, image = torchvision_net(name, size), picture(size)
    found = Occlusion(window=(window,), stride=stride, fill="black")(net, image, 3)
    assert not any("because" in note or "differed" in note for note in found.notes)
    starts = sorted({*range(0, size - window + 1, stride), size - window})
    total, count = torch.zeros(size, size), torch.zeros(size, size)
    logits = net.predict(image)[0]
    for top in starts:
        row = image.repeat(len(starts), 1, 1, 1)
        for covered, left in zip(row, starts, strict=True):
            covered[:, top : top + window, left : left + window] = 0
        for left, answer in zip(starts, net.predict(row)[:, 3], strict=True):
            total[top : top + window, left : left + window] += logits[3] - answer
            count[top : top + window, left : left + window] += 1
    assert (found.values[0, 0] - total / count).abs().max() <= 1e-5 * logits.abs().max()


@pytest.mark.parametrize(
    ("name", "window", "stride"), [("resnet18", 16, 8), ("mobilenet_v2", 8, 7), ("vgg11_bn", 12, 12)]
)
def test_equals_captum(name: str, window: int, stride: int) -> None:
    from captum.attr import Occlusion as Peer

    net, image = torchvision_net(name, 64), picture(64)
    black = net.normalise(torch.zeros(1, 3, 64, 64))
    with torch.no_grad(), net.session():
        theirs = Peer(net.module).attribute(
            net.normalise(image),
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            baselines=black,
            target=3,
            perturbations_per_eval=16,
        )
    ours = Occlusion(window=(window,), stride=stride, fill="black")(net, image, 3).values
    if (64 - window) % stride:  # its last window is cut off by the border; ours is flush with it
        last = 64 - window
        ours, theirs = ours[..., :last, :last], theirs[..., :last, :last]
    scale = net.predict(image).abs().max()
    assert (ours - theirs[:, :1]).abs().max() <= 1e-5 * scale
