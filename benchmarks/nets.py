"""The networks that everything is measured on, as PyTorch gives them and as seewhy holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import vision as vision  # torchvision imports on any torch
from seewhy.classifier import Classifier

NETS = ("resnet50", "vgg16", "efficientnet-lite0")


def plain(name: str, **words: Any) -> nn.Module:
    """The module in eval mode; random weights, but for EfficientNet-Lite0, which has its own. `words` are torchvision's."""
    torch.manual_seed(0)
    if name == "efficientnet-lite0":
        from seewhy.zoo import load

        module = load(name).module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    else:
        import torchvision

        module = getattr(torchvision.models, name)(weights=None, **words)
    return module.eval()


def pixels(count: int) -> Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def ready(name: str) -> Classifier:
    """The network as seewhy's users have it."""
    from seewhy.zoo import load, prepare

    if name == "efficientnet-lite0":
        return load(name)
    net = Classifier(plain(name), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, check=False)
    prepare(net)
    return net
