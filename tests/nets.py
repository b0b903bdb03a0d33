"""Small networks for tests: one architecture in six spellings of ReLU, and the families that users have."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.method import Method, parse

SIZE = 24
#: where the methods' contract is tested: SEEWHY_TEST_DEVICE=cuda python -m pytest tests/contract
DEVICE = os.environ.get("SEEWHY_TEST_DEVICE", "cpu")

#: what stands for a method where its defaults would take long on small nets: name -> spec
QUICK: dict[str, str] = {
    "boundary": "boundary:queries=150",
    "dbge": "dbge:queries=150,reach=1",
    "nes": "nes:norm=l2,queries=510,eps=0.5+1+2,pairs=8,sigma=0.1,refine=2",
    "square": "square:queries=200",
    "zoo": "zoo:queries=1500,sides=8,coordinates=96,h=0.1",
    "apgd": "apgd:eps=2/255+8/255,steps=12",
    "carlini-wagner": "carlini-wagner:searches=2,steps=10",
    "exemplars": "exemplars:k=2",
    "ifgsm": "ifgsm:eps=2/255+8/255,steps=4,refine=1",
    "jsma": "jsma:steps=12",
    "lbfgs": "lbfgs:searches=2,steps=6",
    "mifgsm": "mifgsm:eps=2/255+8/255,steps=4,refine=1",
    "pgd": "pgd:eps=2/255+8/255,steps=4,restarts=2,refine=1",
    "deepdream": "deepdream:octaves=2,steps=3",
    "invert": "invert:steps=12",
    "maximize": "maximize:steps=6,snapshots=1",
    "lime": "lime:segments=grid,count=9,samples=40",
    "rise": "rise:cells=3,samples=64",
    "shap": "shap:evaluations=64,segments=grid,count=16",
    "shap-partition": "shap-partition:evaluations=64",
}
SPELLINGS = ("module", "in-place", "reused", "functional", "torch", "ignored")


class Spelled(nn.Module):
    """A small residual net with batch normalisation, whose rectifiers are written in one of six ways."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 4, 5)
        self.relu = nn.ReLU(inplace=spelling == "in-place")
        self.relu2 = nn.ReLU(inplace=spelling == "in-place")

    def rectify(self, x: Tensor, first: bool) -> Tensor:
        if self.spelling in ("module", "in-place"):
            return (self.relu if first else self.relu2)(x)
        if self.spelling == "reused":
            return self.relu(x)
        if self.spelling == "functional":
            return F.relu(x)
        if self.spelling == "torch":
            return torch.relu(x)
        x.relu_()
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectify(self.bn1(self.conv1(x)), True)
        y = self.bn2(self.conv2(x))
        y += x
        x = F.max_pool2d(self.rectify(y, False), 2)
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


class Dense(nn.Module):
    """Densely connected, normalised before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.fc = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)), inplace=True)))
        return self.fc(torch.cat(features, 1).mean((2, 3)))


class Mobile(nn.Module):
    """Inverted residual with a depthwise convolution and a squeeze-and-excitation gate."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), activation())
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), activation())
        self.depth = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), activation())
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.Conv2d(8, 12, 1), activation())
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depth(self.expand(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.project(y * gate)
        return self.fc(self.drop(F.adaptive_avg_pool2d(self.head(x), 1).flatten(1)))


class Inception(nn.Module):
    """Branches of different windows, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.a, self.b, self.c = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        branches = [F.relu(self.a(x)), F.relu(self.b(x)), self.c(F.max_pool2d(x, 3, 1, 1)).relu()]
        return self.fc(F.avg_pool2d(torch.cat(branches, 1), 12).flatten(1))


class ConvNext(nn.Module):
    """A block whose normalisation works on permuted maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        x = x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return self.fc(x.mean([-2, -1]))


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(108, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: Spelled("in-place"),
    "densenet": Dense,
    "mobilenet": lambda: Mobile(nn.ReLU6),
    "efficientnet": lambda: Mobile(nn.SiLU),
    "hardswish": lambda: Mobile(lambda: nn.Hardswish(inplace=True)),
    "vgg": vgg,
    "inception": Inception,
    "convnext": ConvNext,
}


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with seeded weights and with statistics in its normalisations, so that nothing cancels by luck."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(module.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            values = torch.randn(tensor.shape, generator=draw)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * values.abs())
            else:
                fan = max(1, tensor[0].numel()) if tensor.ndim > 1 else 25
                tensor.copy_(values * (1.5 / fan) ** 0.5)
    return module


def classifier(module: nn.Module, **words: object) -> Classifier:
    """A classifier with an ordinary normalisation around a small module, in train mode as a user may leave it."""
    settings: dict[str, object] = {
        "mean": (0.45, 0.45, 0.4),
        "std": (0.25, 0.25, 0.25),
        "size": SIZE,
        "labels": ["ant", "bee", "cat", "dog", "elk"],
        **words,
    }
    return Classifier(lively(module).to(DEVICE), **settings)  # type: ignore[arg-type]


def photos(count: int = 2, seed: int = 1) -> Tensor:
    """Random pictures with some structure, (count, 3, SIZE, SIZE) in [0, 1]."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 4, 4), generator=draw)
    fine = torch.rand((count, 3, SIZE, SIZE), generator=draw)
    return (0.7 * F.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1) + 0.3 * fine).clamp(0, 1)


def made(name: str) -> Method:
    """The method of a name, in its quick form where it has one."""
    return parse(QUICK.get(name, name))


class Dividing(nn.Module):
    """Answers no numbers to a black image, by functions that the receptive lens does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.fc = nn.Identity(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        bright = (x.mean((1, 2, 3), keepdim=True) > 0.01).float()
        return self.fc(self.same(x * (bright / bright)).mean((2, 3)).nan_to_num())
