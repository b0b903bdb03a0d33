"""Each rule of the rescale lens: additive in float64, and equal to what is written out by hand or enumerated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import lively
from seewhy.errors import UnknownOperation
from seewhy.lens.rescale import RULES, Rescale, linear, rule


def multipliers(module: Callable[[Tensor], Tensor], x: Tensor, other: Tensor) -> Tensor:
    """Multipliers of the sum of a module's output."""
    held = module if isinstance(module, nn.Module) else Called(module)
    held.eval().requires_grad_(False)
    leaf, start = x.clone().requires_grad_(), other.clone().requires_grad_()
    reference = Rescale(held)
    with reference:
        held(start)
    with Rescale(held, reference):
        answer = held(leaf)
    with torch.no_grad():
        torch.testing.assert_close(answer, held(x.clone()))  # the rules change the way back only
    (found,) = torch.autograd.grad(answer.sum(), leaf)
    return found


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _ignored(x: Tensor) -> Tensor:
    y = 2 * x
    y.relu_()
    z = y[:, 1:]
    z *= y[:, :-1].sigmoid()
    return y


def _kept_then_overwritten(x: Tensor) -> Tensor:
    y = x * 1.5
    gate = torch.sigmoid(y)
    y += 3  # neither the gate's rule nor the product's may see this
    y = y * gate
    gate.mul_(0)
    return y


def _rectified_by_index(x: Tensor) -> Tensor:
    y = x * 2
    y[y < 0] = 0
    return y


def _by_itself_in_place(x: Tensor) -> Tensor:
    y = x * 2
    y *= y
    return y


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        name: getattr(F, name)
        for name in (
            *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "silu", "gelu", "hardswish", "mish"),
            *("softplus", "hardsigmoid", "logsigmoid", "sigmoid", "tanh"),
        )
    },
    "threshold": lambda x: F.threshold(x, 0.2, -1.0),
    "prelu": lambda x: F.prelu(x, torch.arange(4.0, dtype=x.dtype) / 8),
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.3, 0.7),
    "clamp to a tensor": lambda x: torch.clamp(x, min=draw(4, 6, 6, seed=9)),
    "exp": torch.exp,
    "erf": torch.erf,
    "sqrt": lambda x: (x.square() + 0.1).sqrt(),
    "log": lambda x: (x.exp() + 0.1).log(),
    "power": lambda x: (x.abs() + 0.1) ** 1.7,
    "square": lambda x: x**2 + x.pow(3),
    "exponent": lambda x: 2**x,
    "reciprocal": lambda x: 1 / (x.square() + 1) + torch.rsqrt(x.exp()),
    "product": lambda x: x[:, :2] * x[:, 2:],
    "itself": lambda x: x * x,
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "quotient": lambda x: x / (1 + x.exp().sum(1, keepdim=True)),
    "quotient in place": lambda x: (x * 2).div_(1 + x.exp()),
    "matrices": lambda x: x @ x.transpose(2, 3) + torch.einsum("ncij,nckj->ncik", x, x.tanh()),
    "convolution by a map": lambda x: F.conv2d(x.reshape(1, -1, 6, 6), x.reshape(-1, 1, 6, 6)[:, :, :3, :3], groups=8),
    "addcmul": lambda x: torch.addcmul(x, x.tanh(), x, value=0.5),
    "max-pooling": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max-pooling, dilated": lambda x: F.max_pool2d(x.relu(), 2, 1, 0, 2, True),
    "power average": lambda x: F.lp_pool2d(x, 2, 2) + F.lp_pool2d(x, 4.0, 2, 2),
    "power average, odd": lambda x: F.lp_pool2d(x.exp(), 3, (2, 4), 2, ceil_mode=True),
    "adaptive max-pooling": lambda x: F.adaptive_max_pool2d(x, (4, 2)),
    "amax": lambda x: x.amax((2, 3), keepdim=True) + x.amin(1, keepdim=True),
    "max": lambda x: x.max(2).values + x.min(3, keepdim=True)[0].squeeze(3),
    "maximum": lambda x: torch.maximum(x, x.flip(2)) + torch.minimum(x, x[:, :1]) + torch.maximum(x, x.new_zeros(1)),
    "max-out": lambda x: torch.max(x[:, :2], x[:, 2:]),
    "softmax": lambda x: x.softmax(1) * draw(4, 6, 6, seed=8),
    "log-softmax": lambda x: (40 * x).log_softmax(1) * draw(4, 6, 6, seed=8),
    "glu": lambda x: F.glu(x, 1),
    "layer norm": lambda x: F.layer_norm(x, (6, 6), draw(6, 6, seed=3), draw(6, 6, seed=4)) ** 2,
    "rms norm": lambda x: F.rms_norm(x, (6,), draw(6, seed=3)).relu(),
    "group norm": lambda x: F.group_norm(x, 2, draw(4, seed=3), draw(4, seed=4)).relu(),
    "instance norm": lambda x: F.instance_norm(x, weight=draw(4, seed=3), bias=draw(4, seed=4)).relu(),
    "local response norm": lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 2.0),
    "normalize": lambda x: F.normalize(x, dim=1).relu() + x.norm(dim=1, keepdim=True),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear").relu(),
    "layout": lambda x: torch.cat([x.roll(1, 2), F.pad(x, (1, 1))[..., 1:-1]], 1).permute(0, 2, 3, 1).flatten(1).relu(),
    "answer ignored, and views written to": _ignored,
    "itself, in place": _by_itself_in_place,
    "kept, then overwritten": _kept_then_overwritten,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_rule_is_additive(name: str) -> None:
    run = OPERATIONS[name]
    x, other = draw(2, 4, 6, 6), draw(2, 4, 6, 6, seed=1)
    other[:, :, :2] = x[:, :, :2]  # where nothing differs
    other[:, :, 2] = x[:, :, 2] + 1e-7  # and hardly anything
    found = multipliers(run, x, other)
    rise = float((run(x.clone()) - run(other.clone())).sum())
    assert torch.isfinite(found).all()
    assert float((found * (x - other)).sum()) == pytest.approx(rise, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("name", list(OPERATIONS)[:-3])  # the last three cannot be run backwards
def test_multipliers_from_a_reference_close_by_are_the_gradient(name: str) -> None:
    run, x = OPERATIONS[name], draw(2, 4, 6, 6)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run(leaf * 1).sum(), leaf)
    for other in (x, x + 1e-6 * draw(2, 4, 6, 6, seed=1)):
        torch.testing.assert_close(multipliers(run, x, other), gradient, rtol=1e-3, atol=1e-4)


def test_two_layers_of_rectifiers_by_hand() -> None:
    module = lively(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 1))).double()
    x, other = draw(1, 5), -draw(1, 5)
    found = multipliers(module, x, other)[0]
    assert isinstance(module, nn.Sequential)
    weights = [module.get_parameter(f"{index}.weight") for index in (0, 2, 4)]
    pre = [[module[0](start), module[:3](start)] for start in (x, other)]
    ratios = [
        draw(0).new_tensor([(max(a, 0) - max(b, 0)) / (a - b) for a, b in zip(one.tolist(), two.tolist(), strict=True)])
        for (one,), (two,) in zip(*pre, strict=True)
    ]
    assert any(0 < ratio < 1 for each in ratios for ratio in each.tolist())  # on both sides of the kink
    paths = torch.einsum("k,kj,j,ji->i", weights[2][0] * ratios[1], weights[1], ratios[0], weights[0])
    torch.testing.assert_close(found, paths, rtol=1e-12, atol=1e-14)


def test_a_linear_net_has_its_gradient() -> None:
    module = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 1))
    lively(module).double()
    x = draw(2, 4, 6, 6).requires_grad_()
    found = multipliers(module, x.detach(), draw(2, 4, 6, 6, seed=1))
    torch.testing.assert_close(found, torch.autograd.grad(module(x).sum(), x)[0], rtol=1e-12, atol=1e-14)


def test_a_product_is_shared_as_two_players_share_it() -> None:
    (a, b), (a0, b0) = draw(2, 50), draw(2, 50, seed=1)
    found = multipliers(lambda x: x[:1] * x[1:], torch.stack([a, b]), torch.stack([a0, b0]))
    first = ((a * b0 - a0 * b0) + (a * b - a0 * b)) / 2  # a comes first, or second
    second = ((a * b - a * b0) + (a0 * b - a0 * b0)) / 2
    torch.testing.assert_close(found * torch.stack([a - a0, b - b0]), torch.stack([first, second]))


def test_softmax_is_the_product_of_its_two_pieces() -> None:
    x, other = draw(3, 6), draw(3, 6, seed=1)
    weight = draw(6, seed=2)
    found = multipliers(lambda x: x.softmax(1) * weight, x, other)
    pieces = multipliers(lambda x: x.exp() * (1 / x.exp().sum(1, keepdim=True)) * weight, x, other)
    torch.testing.assert_close(found, pieces, rtol=1e-8, atol=1e-10)
    found = multipliers(lambda x: x.log_softmax(1) * weight, x, other)
    pieces = multipliers(lambda x: (x - x.exp().sum(1, keepdim=True).log()) * weight, x, other)
    torch.testing.assert_close(found, pieces, rtol=1e-8, atol=1e-10)


def test_max_pooling_by_hand() -> None:
    x = torch.tensor([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 1.0, 1.0]])[None, None]
    other = torch.tensor([[2.0, 1.0, 7.0, 0.0], [0.0, 2.0, 3.0, 3.0]])[None, None]
    # left: 5 against 2, the image's maximum rose from 1; right: 2 against 7, the reference's fell to 2
    expected = torch.tensor([[0.0, 3 / 4, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])[None, None]
    torch.testing.assert_close(multipliers(lambda x: F.max_pool2d(x, 2), x, other), expected)
    # a flat reference has its maximum where the image has it
    flat = torch.full_like(x, 6.0)
    gradient = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])[None, None]
    torch.testing.assert_close(multipliers(lambda x: F.max_pool2d(x, 2), x, flat), gradient)


@pytest.mark.parametrize("power", [2, 3, 10])
def test_a_root_of_nothing_that_stays_nothing(power: int) -> None:
    x, other = draw(2, 4, 6, 6).abs(), draw(2, 4, 6, 6, seed=1).abs()
    for each in (x, other):
        each[:, :2] = 0
    other[:, 2] = 0

    def run(x: Tensor) -> Tensor:
        return F.lp_pool2d(x, power, 2) + x.square().sum((2, 3), keepdim=True).sqrt()

    found = multipliers(run, x, other)
    assert torch.isfinite(found).all()
    assert float((found * (x - other)).sum()) == pytest.approx(float((run(x) - run(other)).sum()), rel=1e-8)


def test_a_gate_in_float32_does_not_take_rounding_for_a_slope() -> None:
    x = torch.full((1, 1000), 0.3)
    other = x + 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    slope = float(torch.tensor(0.3).sigmoid() * (1 - torch.tensor(0.3).sigmoid()))
    torch.testing.assert_close(multipliers(torch.sigmoid, x, other), torch.full_like(x, slope), rtol=1e-4, atol=0)


def test_what_has_no_rule_is_refused_with_its_place_and_can_be_registered() -> None:
    x, other = draw(1, 3, 8, 8), draw(1, 3, 8, 8, seed=1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), Called(lambda x: x.cumsum(1))).double()
    with pytest.raises(UnknownOperation, match=r"rescale lens .* cumsum, called in 1.*seewhy.lens.rescale.rule"):
        multipliers(module, x, other)
    rule("cumsum")(linear)
    try:
        found = multipliers(module, x, other)
        assert float((found * (x - other)).sum()) == pytest.approx(float((module(x) - module(other)).sum()))
    finally:
        del RULES["cumsum"]
    q = draw(1, 3, 8, 8)
    refused: list[tuple[Callable[[Tensor], Tensor], str]] = [
        (lambda x: x * (x > 0), "mask computed from the image"),
        (_rectified_by_index, "mask computed from the image"),
        (lambda x: torch.where(x > 0, x, 0), "mask computed from the image"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "scaled_dot_product_attention"),
        (lambda x: x.std(1), "std"),
        (lambda x: x.amax((0, 1, 2, 3)).max(), "over everything"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], "several tensors"),
        (lambda x: F.batch_norm(x, None, None, training=True), "over the images of a batch"),
        (lambda x: x.abs() ** x, "of two maps"),
        (lambda x: x.relu() if float(x.detach().sum()) > float(q.sum()) - 1e-9 else x.sigmoid(), "another way"),
    ]
    for run, words in refused:
        with pytest.raises(UnknownOperation, match=words):
            multipliers(run, q, q - 1)
