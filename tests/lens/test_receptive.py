"""Receptive fields against the nets themselves: which pixels reach a unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nets
from benchmarks.receptive import NETS, Box, box, fields, heard, positive, windows
from seewhy.classifier import Classifier
from seewhy.errors import UnknownOperation
from seewhy.lens import ops, stages
from seewhy.lens.ops import Call
from seewhy.lens.receptive import RULES, Windows, receptive_fields, rule


def compare(module: nn.Module, size: int, *, local: bool = False, only: tuple[str, ...] = ()) -> int:
    """Compare every map of a net (or only some) with what autograd finds; answers how many windows were compared."""
    compared = 0
    for address, place, found, expected in windows(module, size, local=local, only=only):
        assert found == expected, (address, place)
        compared += 1
    return compared


class Head(nn.Module):
    """A part of a net, written as a function of its layers, and a classifier's end."""

    def __init__(self, function: Callable[[nn.ModuleList, Tensor], Tensor], layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        made = self.function(self.layers, x)
        return made.mean((2, 3)) if made.ndim == 4 else made.flatten(1)


LAYERS: dict[str, nn.Module] = {
    "3×3": nn.Conv2d(3, 4, 3),
    "padded, strided": nn.Conv2d(3, 4, 5, stride=2, padding=2),
    "dilated, uneven": nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(0, 3), dilation=(2, 1)),
    "same": nn.Conv2d(3, 4, 4, padding="same"),
    "reflected": nn.Conv2d(3, 4, 5, padding=2, padding_mode="reflect"),
    "replicated": nn.Conv2d(3, 4, 5, padding=2, padding_mode="replicate"),
    "circular": nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "wide padding": nn.Conv2d(3, 4, 2, padding=4, stride=2),
    "grouped": nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=2), nn.ReLU6()),
    "zero pad": nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(3, 4, 3, stride=2)),
    "crop": nn.Sequential(nn.ZeroPad2d((-1, -2, -3, 0)), nn.Conv2d(3, 4, 3)),
    "max pool": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1)),
    "max pool, ceil": nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 4, 3)),
    "max pool, dilated": nn.MaxPool2d(2, stride=1, dilation=3),
    "average pool": nn.AvgPool2d((3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    "adaptive, uneven": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((5, 3))),
    "transposed": nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ConvTranspose2d(4, 3, 3, 2, 1, 1, dilation=2)),
    "nearest": nn.Sequential(nn.Conv2d(3, 4, 3, stride=3), nn.Upsample(scale_factor=2.0)),
    "bilinear": nn.Sequential(nn.Conv2d(3, 4, 3, stride=3), nn.Upsample(size=(11, 17), mode="bilinear")),
    "corners": nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True)),
    "bicubic": nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2.0, mode="bicubic")),
    "pixel shuffle": nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.PixelShuffle(2), nn.Conv2d(2, 3, 2)),
    "pixel unshuffle": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 0)), nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 3)),
    "response norm": nn.Sequential(nn.Conv2d(3, 4, 3), nn.LocalResponseNorm(3)),
    "prelu": nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str) -> None:
    assert compare(Head(lambda layers, x: layers[0](x), [LAYERS[name]]), 12) >= 9


def residual(parts: nn.ModuleList, x: Tensor) -> Tensor:
    y = parts[0](x)
    z = parts[1](F.relu(y))
    z += y
    return z.relu_()


def inception(parts: nn.ModuleList, x: Tensor) -> Tensor:
    joined = torch.cat([parts[0](x), parts[1](x), F.max_pool2d(x, 3, 1, 1)], 1)
    return parts[2](joined[:, 2:9])  # a slice that leaves out some branches


def shuffle(parts: nn.ModuleList, x: Tensor) -> Tensor:
    x = parts[0](x)
    one, two = x.chunk(2, dim=1)
    x = torch.cat((one, parts[1](two)), 1)
    n, c, h, w = x.shape
    x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
    one, two = x.split(2, 1)
    return torch.cat((parts[1](one), two), 1)


def half_in_place(parts: nn.ModuleList, x: Tensor) -> Tensor:
    x = parts[0](x)
    x[:, :2] += parts[1](x[:, 2:])  # views: the whole must know
    third = x[:, 2:3]
    third.add_(parts[1](parts[1](x[:, 2:]))[:, :1])  # nothing but the view is named
    half = x[:, :, ::2]
    half.mul_(2)
    x[:, 3, 1] = x[:, 0, 5]
    return x


def channels_last(parts: nn.ModuleList, x: Tensor) -> Tensor:
    x = parts[0](x)
    y = parts[1](x).permute(0, 2, 3, 1)
    y = parts[3](F.gelu(parts[2](F.layer_norm(y, (4,)))))
    return x + y.permute(0, 3, 1, 2)


def windows_apart(parts: nn.ModuleList, x: Tensor) -> Tensor:
    """Attention in 3×3 windows, as Swin's."""
    x = parts[0](x)[:, :, :9, :12]
    n, c, h, w = x.shape
    t = x.view(n, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, c)
    t = F.scaled_dot_product_attention(t, t, t)
    t = t.view(n, h // 3, w // 3, 3, 3, c).permute(0, 5, 1, 3, 2, 4)
    return t.reshape(n, c, h, w).roll((1, 2), (2, 3))


def products(parts: nn.ModuleList, x: Tensor) -> Tensor:
    x = parts[0](x)
    rows = torch.einsum("nchw,nchv->nhwv", x, x)  # a row's columns with each other
    return rows + torch.matmul(x[:, 0], x[:, 1].mT).sum(-1)[:, :, None, None]


PARTS: dict[str, Callable[[], Head]] = {
    "residual": lambda: Head(residual, [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)]),
    "inception": lambda: Head(inception, [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(7, 2, 3)]),
    "shuffle": lambda: Head(shuffle, [nn.Conv2d(3, 4, 3, 2), nn.Conv2d(2, 2, 3, 1, 1)]),
    "channels last": lambda: Head(
        channels_last,
        [nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 5, 1, 2, groups=4), nn.Linear(4, 8), nn.Linear(8, 4)],
    ),
    "windows": lambda: Head(windows_apart, [nn.Conv2d(3, 4, 2)]),
    "products": lambda: Head(products, [nn.Conv2d(3, 4, 2)]),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part(name: str) -> None:
    assert compare(PARTS[name](), 12) >= 9


def test_writing_into_views() -> None:
    """Against perturbing one pixel after another: in-place operations on views leave no gradient to ask."""
    size = 12
    module = Head(half_in_place, [nn.Conv2d(3, 4, 1), nn.Conv2d(2, 2, 3, 1, 1)])
    kept: dict[str, Tensor] = {}

    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept["map"] = x.clone()
            return x

    function = module.function
    module.function = lambda layers, x: layers[2](function(layers, x))
    module.layers.append(Last())
    field = fields(module, size)["layers.2"]
    made = positive(module)
    image = torch.rand(1, 3, size, size + 3, dtype=torch.float64)
    places = size * (size + 3)
    moved = image.expand(places, -1, -1, -1).clone()
    moved.flatten(2)[torch.arange(places), :, torch.arange(places)] += 1
    with torch.no_grad():
        made(torch.cat([image, moved]))
    changed = (kept["map"][1:] - kept["map"][:1]).abs().sum(1).view(size, size + 3, size, size + 3) > 0
    for y in range(size):
        for x in range(size + 3):
            rows, columns = (changed[:, :, y, x].any(1 - axis).nonzero().flatten() for axis in (0, 1))
            expected = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
            # windows of rows and of columns are kept apart, so the bounding box of a row's units is common to them
            assert _covers(field.window(y, x), expected), (y, x)
    assert field.window(5, 5) == (3, 3, 8, 8)  # channel 2 sees two neighbours on each side
    assert field.window(1, 0) == (0, 0, 7, 3)  # row 1 of channel 3 is row 5 of channel 0
    assert field.window(8, 3) == (6, 1, 11, 6)


def _covers(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


FAMILIES = {
    name: make for name, make in nets.FAMILIES.items() if name not in ("mobilenet", "efficientnet", "hardswish")
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name: str) -> None:
    assert compare(FAMILIES[name](), 25) >= 9


#: torchvision's own, smaller ones of the same families
REAL = ("resnet18", "vgg11", "densenet121", "googlenet", "mobilenet_v2")


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_net(name: str) -> None:
    """Every stage of nets of the five families, at their depth, whose windows reach past the picture."""
    torchvision = pytest.importorskip("torchvision")
    module = getattr(torchvision.models, name)(weights=None, **NETS.get(name, {}))
    net = Classifier(module, size=(96, 99), check=False)
    assert compare(module, 96, only=stages(net)) >= 20


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("name", ["mobilenet", "efficientnet", "hardswish"])
def test_gates(name: str, local: bool) -> None:
    """With the gate the strict window is the whole image; with the gate held constant it is the local one."""
    module = nets.FAMILIES[name]()
    found = fields(module, 24)
    assert found["project"].gated
    assert found["project"].size == (24, 27)
    assert found["project"].local_size == (7, 7)
    assert not found["depth"].gated
    kept = {"stem", "expand", "depth", "project", ":add"}
    image, outputs = heard(module, 24, gates=not local)
    for address in kept:
        for y, x in ((0, 0), (5, 6), (11, 13)):
            expected = box(image, outputs[address][:, :, y, x])
            assert found[address].window(y, x, local=local) == expected, (address, y, x)


def test_a_squeezed_gate_expanded_to_the_map() -> None:
    def gated(layers: nn.ModuleList, x: Tensor) -> Tensor:
        x = layers[0](x)
        gate = torch.sigmoid(x.mean((2, 3)))[:, :, None, None]
        return gate.expand_as(x) * x

    field = fields(Head(gated, [nn.Conv2d(3, 4, 3)]), 12)[":mul"]
    assert field.gated
    assert (field.size, field.local_size) == ((12, 15), (3, 3))


def test_a_gate_that_differs_from_place_to_place_is_no_gate() -> None:
    def attended(layers: nn.ModuleList, x: Tensor) -> Tensor:
        return x * torch.sigmoid(layers[0](x))

    field = fields(Head(attended, [nn.Conv2d(3, 1, 5, padding=2)]), 12)[":mul"]
    assert not field.gated
    assert field.size == (5, 5)


def test_strides_and_shapes() -> None:
    layers = [nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1)]
    found = receptive_fields(Classifier(nn.Sequential(*layers, nn.Flatten()), size=64, check=False))
    assert [found[str(i)].stride for i in range(5)] == [(2, 2), (4, 4), (8, 8), (0, 0), (0, 0)]
    assert [found[str(i)].size for i in range(4)] == [(7, 7), (11, 11), (19, 19), (64, 64)]
    assert found["2"].shape == (1, 4, 8, 8)
    assert found["2"].window(0, 4) == (0, 23, 10, 42)  # 8·4 − 9, 8·4 + 10


def test_padding_alone_is_empty() -> None:
    field = fields(Head(lambda layers, x: layers[0](x), [nn.Conv2d(3, 2, 1, padding=2)]), 8)["layers.0"]
    assert field.window(0, 5) == (0, 0, 0, 0)
    assert field.window(2, 2) == (0, 0, 1, 1)


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(2).mean((2, 3))


def test_an_operation_without_a_rule_is_named() -> None:
    net = Classifier(nn.Sequential(nn.Conv2d(3, 2, 3), Strange()), size=8, check=False)
    with pytest.raises(UnknownOperation, match=r"cumsum, called in 1; .*seewhy\.lens\.receptive\.rule"):
        receptive_fields(net)

    @rule("cumsum")
    def _everything(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> Windows | None:
        seen = windows(call.arguments["input"])
        return None if seen is None else seen.whole()

    try:
        assert receptive_fields(net)["1"].size == (8, 8)
    finally:
        del RULES["cumsum"]


def test_every_operation_of_the_vocabulary_has_a_rule() -> None:
    assert set(ops.VOCABULARY) == set(RULES)


def test_nothing_is_left_behind() -> None:
    net = Classifier(nets.FAMILIES["resnet"](), size=24)
    before = {key: value.clone() for key, value in net.module.state_dict().items()}
    receptive_fields(net)
    assert all(torch.equal(value, before[key]) for key, value in net.module.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.module.modules())
    assert net.module.training
