"""The twelve families of torchvision with random weights, at the smallest size that they bear, and five spellings of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.classifier import Classifier

CLASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: name: (constructor in torchvision.models, its words, size)
TWELVE: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet": ("resnet18", {}, 64),
    "vgg": ("vgg11_bn", {}, 64),
    "densenet": ("densenet121", {}, 64),
    "mobilenet": ("mobilenet_v3_small", {}, 64),
    "efficientnet": ("efficientnet_b0", {}, 64),
    "convnext": ("convnext_tiny", {}, 64),
    "googlenet": ("googlenet", {"aux_logits": False, "init_weights": False, "transform_input": True}, 64),
    "inception": ("inception_v3", {"aux_logits": False, "init_weights": False, "transform_input": True}, 96),
    "squeezenet": ("squeezenet1_1", {}, 64),
    "shufflenet": ("shufflenet_v2_x0_5", {}, 64),
    "regnet": ("regnet_y_400mf", {}, 64),
    "mnasnet": ("mnasnet0_5", {}, 64),
}

SPELLINGS = ("module", "in place", "reused", "functional", "ignored")
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    nn.ReLU: (torch.relu, torch.relu_),
    nn.ReLU6: (F.relu6, lambda x: F.relu6(x, inplace=True)),
    nn.Hardswish: (F.hardswish, lambda x: F.hardswish(x, inplace=True)),
    nn.SiLU: (F.silu, lambda x: F.silu(x, inplace=True)),
}


class _Called(nn.Module):
    """A function in a module's place."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def _ignoring(overwrite: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        overwrite(x)
        return x

    return run


def respelled(module: nn.Module, spelling: str) -> nn.Module:
    """The same network with its rectifiers written otherwise; changes the module."""
    shared: dict[type[nn.Module], nn.Module] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            kind = type(child)
            if kind not in _ACTIVATIONS:
                continue
            setattr(parent, name, _written(kind, spelling, shared))
    return module


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _written(kind: type[nn.Module], spelling: str, shared: dict[type[nn.Module], nn.Module]) -> nn.Module:
    functional, overwriting = _ACTIVATIONS[kind]
    if spelling == "functional":
        return _Called(functional)
    if spelling == "ignored":
        return _Called(_ignoring(overwriting))
    if spelling == "reused":
        return shared.setdefault(kind, kind())
    return kind(inplace=spelling == "in place")


@cache
def _state(name: str) -> dict[str, Tensor]:
    """Weights drawn once, with the statistics that pictures leave in the normalisations."""
    module = _made(name)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, tensor in module.named_parameters():
            if tensor.ndim == 1:
                near = 1.0 if key.endswith("weight") else 0.0
                tensor.copy_(near + 0.1 * torch.randn(tensor.shape, generator=draw))
        norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
        module.train()
        for child in module.modules():
            if isinstance(child, nn.Dropout) or type(child).__name__ == "StochasticDepth":
                child.eval()
        for norm in norms:
            norm.momentum = None  # the plain mean over what comes
        shown = pictures(name, 16, seed=5)
        greys = torch.linspace(0, 1, 8).view(-1, 1, 1, 1).expand(-1, *shown.shape[1:])
        noise = torch.rand(shown[:8].shape, generator=draw)
        module(_normalised(torch.cat([shown, greys, noise])))
        for norm in norms:  # what hardly varied in these few pictures must not be blown up in others
            variance = norm.running_var
            assert variance is not None
            variance.clamp_(min=float(variance.mean()) / 2)
        module.eval()
        logits = module(_normalised(pictures(name, 4, seed=6)))
        last = [child for child in module.modules() if isinstance(child, nn.Linear | nn.Conv2d)][-1]
        for parameter in last.parameters():
            parameter.mul_(2 / logits.std())
    return module.state_dict()


def _made(name: str) -> nn.Module:
    import torchvision

    constructor, words, _ = TWELVE[name]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        module: nn.Module = getattr(torchvision.models, constructor)(weights=None, num_classes=CLASSES, **words)
        if name == "vgg":  # its 120 million weights between maps and classes are one more linear layer only
            module.classifier = nn.Sequential(
                nn.Linear(512 * 49, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, CLASSES)
            )
    return module


def pictures(name: str, count: int = 2, seed: int = 1) -> Tensor:
    """Random pictures with some structure, of the family's size, in [0, 1]."""
    size = TWELVE[name][2]
    draw = torch.Generator().manual_seed(seed)
    coarse, fine = torch.rand((count, 3, 5, 5), generator=draw), torch.rand((count, 3, size, size), generator=draw)
    return (0.7 * F.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1) + 0.3 * fine).clamp(0, 1)


def family(name: str, spelling: str | None = None) -> Classifier:
    """A classifier of one of the twelve families, as torchvision spells it or otherwise."""
    module = _made(name)
    module.load_state_dict(_state(name))
    if spelling is not None:
        respelled(module, spelling)
    return Classifier(module.eval(), mean=MEAN, std=STD, size=TWELVE[name][2], name=name)
