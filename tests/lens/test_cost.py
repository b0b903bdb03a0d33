"""Costs against closed forms, published totals, and torch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import nets
from seewhy.classifier import Classifier
from seewhy.errors import LayerError
from seewhy.lens import ops
from seewhy.lens.cost import RULES, cost


class Part(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1)


def total(function: Callable[[Tensor], Tensor]) -> int:
    """Multiply-adds of a function of an image (1, 3, 8, 8)."""
    return cost(Classifier(Part(function), size=8, check=False)).multiply_adds


def attend(x: Tensor) -> Tensor:
    tokens = x.flatten(2).mT  # (1, 64, 3)
    return F.scaled_dot_product_attention(tokens[:, :5], tokens, torch.cat([tokens, tokens], -1))


CLOSED: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "conv": (lambda x: F.conv2d(x, torch.ones(5, 3, 3, 3)), 5 * 6 * 6 * 3 * 9),
    "grouped": (lambda x: F.conv2d(x, torch.ones(6, 1, 3, 2), stride=2, padding=1, groups=3), 6 * 4 * 5 * 1 * 6),
    "transposed": (lambda x: F.conv_transpose2d(x, torch.ones(3, 4, 2, 2), stride=2), 3 * 64 * 4 * 4),
    "conv1d": (lambda x: F.conv1d(x.flatten(2), torch.ones(2, 3, 5)), 2 * 60 * 3 * 5),
    "linear": (lambda x: F.linear(x, torch.ones(10, 8)), 3 * 8 * 8 * 10),
    "matmul": (lambda x: x @ torch.ones(8, 5), 3 * 8 * 8 * 5),
    "bmm": (lambda x: torch.bmm(x[0], x[0]), 3 * 8 * 8 * 8),
    "einsum": (lambda x: torch.einsum("nchw,nkhw->nck", x, x), 3 * 3 * 64),
    "addmm": (lambda x: torch.addmm(torch.ones(4), x[0, 0], torch.ones(8, 4))[None], 8 * 8 * 4),
    "attention": (attend, 5 * 64 * (3 + 6)),
    "no products": (lambda x: F.max_pool2d(F.relu(x * x + 1), 2), 0),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str) -> None:
    function, expected = CLOSED[name]
    assert total(function) == expected


def test_multi_head_attention() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.reshape(1, -1, 12)  # 16 tokens
            return self.attention(tokens, tokens, tokens, need_weights=False)[0].flatten(1)

    # four projections, and twice every token with every token
    assert cost(Classifier(Attention(), size=8, check=False)).multiply_adds == 4 * 16 * 12 * 12 + 2 * 16 * 16 * 12


@pytest.mark.parametrize("name", nets.FAMILIES)
def test_agrees_with_torch(name: str) -> None:
    net = nets.classifier(nets.FAMILIES[name]())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.logits(nets.photos(1))
    costs = cost(net)
    assert 2 * costs.multiply_adds == counter.get_total_flops()  # a multiplication and an addition
    assert costs.parameters == net.parameters


@pytest.mark.parametrize(
    ("name", "size", "billions"),
    [("resnet50", 224, 4.09), ("vgg16", 224, 15.47), ("mobilenet_v2", 224, 0.30), ("densenet121", 224, 2.83)],
)
def test_published_totals(name: str, size: int, billions: float) -> None:
    models = pytest.importorskip("torchvision.models")
    net = Classifier(models.get_model(name, weights=None), size=size, check=False)
    costs = cost(net)
    assert costs.multiply_adds / 1e9 == pytest.approx(billions, abs=0.006)
    assert costs.parameters == net.parameters


def test_efficientnet_lite0() -> None:
    timm = pytest.importorskip("timm")
    net = Classifier(timm.create_model("efficientnet_lite0"), size=224, check=False)
    assert cost(net).multiply_adds / 1e9 == pytest.approx(0.39, abs=0.006)


class Branches(nn.Module):
    """a feeds b and c; only c goes on to the end through d, b's map is written into by c's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(4))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b, c = self.b(a), self.c(a)
        half = c[:, :1]
        half.relu_()  # through a view, with the answer ignored
        return self.d(c).mean((2, 3)) + self.relu(b).mean((2, 3))


def test_what_follows() -> None:
    one = 9 * 64
    costs = cost(Classifier(Branches(), size=8, check=False))
    assert costs.multiply_adds == 4 * one
    assert costs.after("a") == 3 * one
    assert costs.after("b") == costs.after("d") == 0
    assert costs.after("c") == costs.after(":relu") == costs.after(":getitem") == one
    assert costs.after("relu") == 0
    with pytest.raises(LayerError, match=r"did you mean"):
        costs.after("relo")


def test_bytes_and_views() -> None:
    costs = cost(Classifier(Branches(), size=8, check=False))
    written = {each.address: each.bytes for each in costs.operations}
    assert written["a:conv2d"] == 3 * 64 * 4
    assert written[":getitem"] == written[":relu"] == written["relu:relu"] == 0
    assert written[":mean"] == 3 * 4
    assert [each.address for each in costs.operations if each.in_place] == [":relu", "relu:relu"]


def test_a_shared_parameter_counts_once() -> None:
    layer = nn.Conv2d(3, 3, 1)
    costs = cost(Classifier(nn.Sequential(layer, nn.ReLU(), layer, nn.Flatten()), size=8, check=False))
    assert [each.parameters for each in costs.operations] == [12, 0, 0, 0]
    assert costs.multiply_adds == 2 * 9 * 64


def test_whatever_multiplies_has_a_rule() -> None:
    multiplying = {op for op, (kind, _) in ops.VOCABULARY.items() if kind in ("affine", "attention")}
    assert multiplying == set(RULES)
