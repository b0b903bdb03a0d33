"""Each relevance rule against a twin that has every layer as a matrix, in float64."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nets
from seewhy.classifier import Classifier
from seewhy.errors import SpecError, UnknownOperation
from seewhy.explain import LRP
from seewhy.lens import relevance as lens
from seewhy.lens.relevance import RULES, Relevance
from seewhy.lens.rules import COMPOSITES, TINY, Entry, chosen, composite
from seewhy.method import parse

Function = Callable[[Tensor], Tensor]
LOW, HIGH = -0.7, 1.3


def matrix(run: Function, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """W and b of an affine function on maps (1, *shape), from what it makes of unit vectors."""
    size = int(torch.tensor(shape).prod())
    with torch.no_grad():
        offset = run(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        units = torch.eye(size, dtype=torch.float64).view(size, *shape)
        columns = [run(unit[None]).flatten() - offset for unit in units]
    return torch.stack(columns, 1), offset


def shared(contributions: Tensor, rest: Tensor, relevance: Tensor, epsilon: float = TINY) -> Tensor:
    z = contributions.sum(1) + rest
    return (contributions * (relevance / (z + torch.where(z < 0, -epsilon, epsilon)))[:, None]).sum(0)


def twin(rule: str, weight: Tensor, bias: Tensor, ones: Tensor, x: Tensor, relevance: Tensor) -> Tensor:
    """The rules as the papers write them, on a matrix; `ones` says which inputs each output has."""
    name, _, text = rule.partition(":")
    value = float(text or 0)
    c = weight * x
    if name == "epsilon":
        return shared(c, bias, relevance, value)
    if name == "z-plus":
        return shared(c.clamp(min=0), value * bias.clamp(min=0), relevance)
    if name == "alpha-beta":
        positive = shared(c.clamp(min=0), bias.clamp(min=0), relevance)
        return value * positive - (value - 1) * shared(c.clamp(max=0), bias.clamp(max=0), relevance)
    if name == "gamma":
        z = c.sum(1) + bias
        up = shared(c + value * c.clamp(min=0), bias + value * bias.clamp(min=0), relevance * (z > 0))
        return up + shared(c + value * c.clamp(max=0), bias + value * bias.clamp(max=0), relevance * (z < 0))
    none = torch.zeros_like(bias)
    if name == "z-box":
        return shared(c - LOW * weight.clamp(min=0) - HIGH * weight.clamp(max=0), none, relevance)
    return shared(weight.square() if name == "w-squared" else ones, none, relevance)


def found(module: nn.Module, rule: str, x: Tensor, start: Tensor, to: str = "") -> Tensor:
    """Relevance by the lens, from `start` at the module's output to its input, or to the output at `to`."""
    bounds = (torch.full((1, 3, 1, 1), LOW, dtype=torch.float64), torch.full((1, 3, 1, 1), HIGH, dtype=torch.float64))
    watch = Relevance(module, (Entry(rule),), bounds if x.shape[1] == 3 else None)
    with torch.no_grad(), watch:
        module(x)
    watch.settle()
    target = watch.addresses[to] if to else watch.images
    assert target is not None
    with torch.no_grad():
        answer = watch.back(watch.answers[0][1], start.view(watch.answers[0][0].shape), target)
    assert answer is not None
    return answer


AFFINE: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(3, 4, 3, padding=1),
    "stride": lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "dilation": lambda: nn.Conv2d(3, 2, 2, dilation=2, padding=(1, 0)),
    "groups": lambda: nn.Conv2d(3, 6, 3, groups=3, stride=(1, 2)),
    "no bias": lambda: nn.Conv2d(3, 4, 3, bias=False),
    "same": lambda: nn.Conv2d(3, 4, 3, padding="same"),
    "same, even": lambda: nn.Conv2d(3, 4, (2, 4), padding="same"),
    "transposed": lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, output_padding=1),
    "merged": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "merged, groups": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6)),
    "merged, transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 3), nn.BatchNorm2d(2)),
    "merged, transposed, groups": lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
}
RULE_NAMES = (
    "epsilon:0.01",
    "z-plus:1",
    "z-plus:0",
    "alpha-beta:2",
    "alpha-beta:1",
    "gamma:0.3",
    "z-box",
    "w-squared",
    "flat",
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ready(module: nn.Module) -> Any:
    return nets.lively(module).double().eval()


def connections(module: Any, shape: tuple[int, ...]) -> Tensor:
    """Which inputs each output reads."""
    plain: Any = deepcopy(module[0] if isinstance(module, nn.Sequential) else module)
    with torch.no_grad():
        plain.weight.fill_(1)
    plain.bias = None
    return matrix(plain, shape)[0]


@pytest.mark.parametrize("rule", RULE_NAMES)
@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_affine_layers(name: str, rule: str, signed: bool) -> None:
    module = ready(AFFINE[name]())
    x = drawn(1, 3, 6, 5).clamp(LOW if signed else 0, HIGH)
    weight, bias = matrix(module, (3, 6, 5))
    start = drawn(len(bias), seed=1)
    expected = twin(rule, weight, bias, connections(module, (3, 6, 5)), x.flatten(), start)
    torch.testing.assert_close(found(module, rule, x, start).flatten(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("rule", [rule for rule in RULE_NAMES if rule != "z-box"])
@pytest.mark.parametrize("spelling", ["linear", "matmul", "addmm", "merged"])
def test_linear_layers(rule: str, spelling: str) -> None:
    inner = ready(nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4)) if spelling == "merged" else nn.Linear(7, 4))

    class Spelled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if spelling == "matmul":
                return x @ inner.weight.t()
            if spelling == "addmm":
                return torch.addmm(inner.bias, x, inner.weight.t())
            return inner(x)

    module, x, start = Spelled(), drawn(1, 7), drawn(4, seed=1)
    weight, bias = matrix(module, (7,))
    expected = twin(rule, weight, bias, torch.ones_like(weight), x.flatten(), start)
    torch.testing.assert_close(found(module, rule, x, start).flatten(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rule", ["epsilon:0.01", "z-plus:1", "alpha-beta:2", "gamma:0.3"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("behind", [False, True])
def test_a_normalisation_before_the_convolution(rule: str, groups: int, behind: bool) -> None:
    # with zero padding its shift is another bias at each border; the first layer only makes it stand inside the network
    parts = [nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, groups=groups), *([nn.BatchNorm2d(4)] if behind else [])]
    pair = ready(nn.Sequential(*parts))
    module = nn.Sequential(nn.Identity(), ready(nn.Conv2d(3, 4, 1)), nn.ReLU(), *pair)
    x = drawn(1, 3, 4, 5)
    inside = module[:3](x)
    weight, bias = matrix(pair, (4, 4, 5))
    start = drawn(len(bias), seed=1)
    expected = twin(rule, weight, bias, weight, inside.detach().flatten(), start)
    torch.testing.assert_close(found(module, rule, x, start, "2:relu").flatten(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rule", ["epsilon:0.01", "z-plus:1", "pass"])
def test_a_normalisation_that_stands_alone(rule: str) -> None:
    norm = ready(nn.BatchNorm2d(4))
    module = nn.Sequential(
        ready(nn.Conv2d(3, 4, 1)) if rule != "pass" else nn.Conv2d(3, 4, 1).double(), nn.ReLU(), norm
    )
    x, start = drawn(1, 3, 4, 5), drawn(80, seed=1)
    weight, bias = matrix(norm, (4, 4, 5))
    expected = start
    if rule != "pass":
        expected = twin(rule, weight, bias, weight, module[:2](x).detach().flatten(), start)
    watch = (Entry("epsilon", op="conv2d"), Entry(rule))
    seen = Relevance(module, watch)
    with torch.no_grad(), seen:
        module(x)
    seen.settle()
    answer = seen.back(seen.answers[0][1], start.view(1, 4, 4, 5), seen.addresses["1:relu"])
    assert answer is not None
    torch.testing.assert_close(answer.flatten(), expected, rtol=1e-9, atol=1e-10)


class ReadTwice(nn.Module):
    """The normalisation behind the convolution is not its only reader, so that they are two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.cat([self.norm(y).relu_(), y], 1)


def test_a_convolution_that_others_read_too_is_not_merged() -> None:
    module = ready(ReadTwice())
    x, start = drawn(1, 3, 4, 5), drawn(160, seed=1)
    y = module.conv(x).detach()
    weight, bias = matrix(module.norm, (4, 4, 5))
    alone = twin("epsilon:0.01", weight, bias, weight, y.flatten(), start[:80]) + start[80:]
    weight, bias = matrix(module.conv, (3, 4, 5))
    expected = twin("epsilon:0.01", weight, bias, weight, x.flatten(), alone)
    torch.testing.assert_close(found(module, "epsilon:0.01", x, start).flatten(), expected, rtol=1e-9, atol=1e-10)


class Run(nn.Module):
    def __init__(self, run: Function) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


MASK = drawn(1, 3, 6, 5, seed=3) > 0

BY_VALUE: dict[str, Function] = {
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, padding=1),
    "avg_pool, inside": lambda x: F.avg_pool2d(x, 2, 1, padding=1, count_include_pad=False, ceil_mode=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    "mean": lambda x: x.mean((2, 3)),
    "mean, kept": lambda x: x.mean([-1, -2], keepdim=True),
    "sum": lambda x: x.sum(1),
    "nearest": lambda x: F.interpolate(x, size=(4, 9)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "residual": lambda x: x + x.flip(2),
    "residual, scaled": lambda x: torch.add(x, x.roll(1, 2), alpha=0.5),
    "difference": lambda x: x - 0.3 * x.roll(1, 1),
    "in place": lambda x: x.mul(1).add_(x.flip(3)),
    "iadd": lambda x: _iadd(x.mul(1), x.flip(3)),
    "broadcast": lambda x: x + x[:, :1],
}


def _iadd(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


@pytest.mark.parametrize("name", BY_VALUE)
def test_averages_and_sums_share_by_value(name: str) -> None:
    x = drawn(1, 3, 6, 5)
    weight, bias = matrix(BY_VALUE[name], (3, 6, 5))
    assert not bias.any()
    start = drawn(len(bias), seed=1)
    expected = shared(weight * x.flatten(), bias, start)
    torch.testing.assert_close(
        found(Run(BY_VALUE[name]), "epsilon", x, start).flatten(), expected, rtol=1e-7, atol=1e-9
    )


MOVED: dict[str, Function] = {
    "zero padding": lambda x: F.pad(x, (1, 2, 0, 1)),
    "reflect": lambda x: F.pad(x, (2, 2, 2, 2), mode="reflect"),
    "replicate": lambda x: F.pad(x, (2, 2, 2, 2), mode="replicate"),
    "circular": lambda x: F.pad(x, (2, 2, 2, 2), mode="circular"),
    "cropped": lambda x: F.pad(x, (-1, 0, 0, -1)),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "channels": lambda x: x.view(1, 3, 2, 3, 5).transpose(1, 2).contiguous().view(1, 6, 3, 5),
    "chunk": lambda x: x.chunk(3, 1)[1],
    "unequal": lambda x: x.split([1, 2], 1)[1].flatten(1),
    "slice": lambda x: x[:, 1:, ::2, -3:],
    "one": lambda x: x[:, 0].unsqueeze(1),
    "cat": lambda x: torch.cat([x, x[:, :2], torch.ones(1, 1, 6, 5)], 1),
    "twice": lambda x: torch.cat([x, x], 1),
    "stack": lambda x: torch.stack([x, x.flip(2)], 1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "expand": lambda x: x[:, :, :1].expand(1, 3, 4, 5),
    "shuffle": lambda x: F.channel_shuffle(x, 3),
    "dropout": lambda x: F.dropout(x, training=False),
    "mask": lambda x: x.masked_fill(MASK, 0),
    "where": lambda x: torch.where(MASK, x, torch.zeros_like(x)),
    "where, two": lambda x: torch.where(MASK, x, x.flip(3)),
    "copied": lambda x: torch.zeros(1, 3, 6, 5, dtype=torch.float64).copy_(x),
}


@pytest.mark.parametrize("name", MOVED)
def test_what_is_moved_keeps_its_relevance(name: str) -> None:
    x = drawn(1, 3, 6, 5)
    weight, _ = matrix(MOVED[name], (3, 6, 5))
    start = drawn(len(weight), seed=1)
    expected = (weight != 0).double().T @ start
    torch.testing.assert_close(found(Run(MOVED[name]), "epsilon", x, start).flatten(), expected)


POWERS: dict[str, tuple[int, Function, Function]] = {  # power, pooling, and the averages of the same windows
    "squares": (2, lambda x: F.lp_pool2d(x, 2, 2), lambda x: F.avg_pool2d(x, 2)),
    "overlapping": (4, lambda x: F.lp_pool2d(x, 4.0, 3, 1), lambda x: F.avg_pool2d(x, 3, 1)),
    "at the border": (
        *(2, lambda x: F.lp_pool2d(x, 2, (2, 3), 2, ceil_mode=True)),
        lambda x: F.avg_pool2d(x, (2, 3), 2, ceil_mode=True),
    ),
    "odd": (3, lambda x: F.lp_pool2d(x.relu(), 3, 2), lambda x: F.avg_pool2d(x, 2)),
    "module": (2, nn.LPPool2d(2, 2), lambda x: F.avg_pool2d(x, 2)),
}


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_power_averages_share_by_powers(name: str, size: float) -> None:
    power, pool, average = POWERS[name]
    x = drawn(1, 3, 6, 5) * size
    windows, _ = matrix(average, (3, 6, 5))
    powers = (windows != 0) * (x.clamp(min=0) if name == "odd" else x).flatten() ** power
    start = drawn(len(windows), seed=1)
    total = powers.sum(1, keepdim=True)
    expected = (powers / total.where(total > 0, 1.0)).T @ start
    torch.testing.assert_close(found(Run(pool), "epsilon", x, start).flatten(), expected, rtol=1e-9, atol=1e-12)


def test_a_power_average_of_zeros_has_nothing_to_share() -> None:
    x = drawn(1, 3, 6, 5)
    x[:, :, :2, :2] = 0
    answer = found(Run(POWERS["squares"][1]), "epsilon", x, drawn(18, seed=1))
    assert torch.isfinite(answer).all()
    assert not answer[:, :, :2, :2].any()
    assert answer[:, :, 2:, :4].all()


POOLED: dict[str, Function] = {
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "window": lambda x: F.max_pool2d(x, 3, stride=(2, 1), padding=1, ceil_mode=True),
    "dilation": lambda x: F.max_pool2d(x, 2, stride=1, dilation=2),
    "indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "adaptive": lambda x: F.adaptive_max_pool2d(x, 2),
    "amax": lambda x: x.amax((2, 3)),
    "max": lambda x: x.max(1)[0],
    "of two": lambda x: torch.maximum(x, x.roll(1, 2)),
}


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_maximum_takes_all(name: str, layout: torch.memory_format) -> None:
    x = drawn(1, 3, 6, 5)
    values = POOLED[name](x).flatten()
    winner = (values[:, None] == x.flatten()).double()  # all values differ
    start = drawn(len(values), seed=1)
    answer = found(Run(POOLED[name]), "epsilon", x.contiguous(memory_format=layout), start)
    torch.testing.assert_close(answer.flatten(), winner.T @ start)


PASSED: dict[str, Function] = {
    "relu": torch.relu,
    "in place": lambda x: x.mul(2).relu_(),
    "ignored": lambda x: _ignored(x.mul(2)),
    "hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "silu": F.silu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "silu, spelled": lambda x: x * torch.sigmoid(x),
    "hardswish, spelled": lambda x: x * F.relu6(x + 3) / 6,
    "mask": lambda x: x * (x > 0),
    "gate": lambda x: torch.sigmoid(x.mean((2, 3), keepdim=True)) * x,
    "gate of its shape": lambda x: (2 * x) * torch.sigmoid(x.flip(2)),
    "scaled": lambda x: -3 * (x / torch.tensor(2.0)),
    "over its length": lambda x: x / x.pow(2).sum((1, 2, 3), keepdim=True).sqrt(),
    "pixels": lambda x: (x - 0.4) / 0.2 + 0.1,
    "bounded": lambda x: x.clamp(min=0).maximum(torch.zeros(())),
}


def _ignored(x: Tensor) -> Tensor:
    x.relu_()
    return x


@pytest.mark.parametrize("name", PASSED)
def test_what_works_place_by_place_passes(name: str) -> None:
    x, start = drawn(1, 3, 6, 5), drawn(1, 3, 6, 5, seed=1)
    torch.testing.assert_close(found(Run(PASSED[name]), "epsilon", x, start), start)


@pytest.mark.parametrize(
    ("norm", "groups"), [(nn.LayerNorm([3, 6, 5]), 1), (nn.GroupNorm(3, 3), 3), (nn.InstanceNorm2d(3, affine=True), 3)]
)
def test_normalisation_by_its_own_statistics_is_affine_once_they_are_held(norm: nn.Module, groups: int) -> None:
    module, x, start = ready(norm), drawn(1, 3, 6, 5), drawn(90, seed=1)
    deviation = torch.sqrt(x.view(1, groups, -1).var(2, correction=0) + 1e-5).view(1, groups, 1)
    weight, bias = module.weight.detach(), module.bias.detach()
    if weight.ndim == 1:
        weight, bias = weight.view(1, 3, 1, 1), bias.view(1, 3, 1, 1)

    def held(x: Tensor) -> Tensor:
        split = x.reshape(1, groups, -1)
        return ((split - split.mean(2, keepdim=True)) / deviation).view(1, 3, 6, 5) * weight + bias

    torch.testing.assert_close(held(x), module(x).detach())
    matrix_, offset = matrix(held, (3, 6, 5))
    expected = shared(matrix_ * x.flatten(), offset, start)
    torch.testing.assert_close(found(module, "epsilon", x, start).flatten(), expected, rtol=1e-7, atol=1e-8)


def test_pixels_are_normalised_inside_the_model_and_bounded_all_the_same() -> None:
    conv = ready(nn.Conv2d(3, 4, 3))

    def shift(x: Tensor) -> Tensor:  # as GoogLeNet transforms its input
        return torch.cat([x[:, i : i + 1] * (1 + i) - 0.5 for i in range(3)], 1)

    x, start = drawn(1, 3, 6, 5).clamp(LOW, HIGH), drawn(48, seed=1)
    given = shift(x).flatten()
    low, high = (shift(torch.full((1, 3, 6, 5), end, dtype=torch.float64)).flatten() for end in (LOW, HIGH))
    weight, _ = matrix(lambda x: conv(x) - conv(torch.zeros_like(x)), (3, 6, 5))
    c = weight * given - low * weight.clamp(min=0) - high * weight.clamp(max=0)
    expected = shared(c, torch.zeros(48).double(), start)
    module = nn.Sequential(Run(shift), conv)
    torch.testing.assert_close(found(module, "z-box", x, start).flatten(), expected, rtol=1e-7, atol=1e-9)


OVERWRITTEN: dict[str, tuple[Function, Function]] = {
    "an input": (lambda x: _after(x * 2), lambda x: torch.cat([(x * 2).mean((2, 3)), (x * 2).relu().mean((2, 3))], 1)),
    "a summand": (lambda x: _summed(x * 2), lambda x: ((x * 2).sigmoid() + x * 2).relu()),
}


def _after(x: Tensor) -> Tensor:
    first = x.mean((2, 3))
    x.relu_()
    return torch.cat([first, x.mean((2, 3))], 1)


def _summed(x: Tensor) -> Tensor:
    y = x.sigmoid()
    y += x
    return y.relu_()


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_what_the_network_overwrites_is_kept_as_it_was(name: str) -> None:
    x = drawn(1, 3, 6, 5)
    spelled, plain = OVERWRITTEN[name]
    start = drawn(*plain(x).shape, seed=1)
    torch.testing.assert_close(plain(x), spelled(x))
    torch.testing.assert_close(
        found(Run(spelled), "epsilon", x, start), found(Run(plain), "epsilon", x, start), rtol=1e-9, atol=1e-9
    )


def _through_a_view(x: Tensor) -> Tensor:
    x = x * 2
    x[:, 0].relu_()
    return x.mean((2, 3))


def _assigned(x: Tensor) -> Tensor:
    x = x * 2
    x[:, 0] = x[:, 1]
    return x.mean((2, 3))


REFUSED: dict[str, tuple[Function, str]] = {
    "matmul": (lambda x: x @ x.transpose(2, 3), "matmul.*two maps"),
    "einsum": (lambda x: torch.einsum("nchw,nchw->nhw", x, x.flip(2)), "einsum"),
    "product": (
        lambda x: x.flip(2) * x.roll(1, 3).flip(3).mean(1, keepdim=True).expand(1, 3, 6, 5),
        "neither of which",
    ),
    "attention": (lambda x: torch.softmax(x, 1) + x, "softmax"),
    "unknown": (lambda x: x.cumsum(2), "no rule for the operation cumsum, called in the model itself"),
    "power": (lambda x: x.pow(2), "pow"),
    "divisor": (lambda x: 1 / x, "rdiv|reciprocal"),
    "view": (_through_a_view, "overwritten through a view"),
    "assigned": (_assigned, "overwritten through a view"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name: str) -> None:
    run, words = REFUSED[name]
    x = drawn(1, 3, 6, 5)
    with pytest.raises(UnknownOperation, match=words):
        found(Run(run), "epsilon", x, torch.ones_like(run(x)))


def test_an_unknown_operation_that_no_relevance_reaches_does_not_matter() -> None:
    x, start = drawn(1, 3, 6, 5), drawn(1, 3, 6, 5, seed=1)

    def gated(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.cumsum(2).mean((2, 3), keepdim=True))

    torch.testing.assert_close(found(Run(gated), "epsilon", x, start), start)


def test_a_rule_can_be_registered() -> None:
    @lens.rule("cumsum")
    def _(step: lens.Step) -> lens.Spread:
        return lambda relevance: 2 * relevance

    try:
        x, start = drawn(1, 3, 6, 5), drawn(1, 3, 6, 5, seed=1)
        torch.testing.assert_close(found(Run(lambda x: x.cumsum(2)), "epsilon", x, start), 2 * start)
    finally:
        del RULES["cumsum"]


def test_composites_are_plain_data() -> None:
    made = composite(
        "mine",
        [{"depth": "0-1", "op": "conv*", "rule": "gamma:1/4"}, {"path": "fc*", "rule": "pass"}, {"rule": "flat"}],
    )
    try:
        assert [entry.value for entry in made] == [0.25, 0.0, 0.0]
        assert made[0].fits("conv2d", "affine", "a.b", 1)
        assert not made[0].fits("conv2d", "affine", "a.b", 2)
        assert not made[0].fits("linear", "affine", "a.b", 1)
        assert made[1].fits("linear", "affine", "fc1", 7)
        assert LRP("mine").spec == "lrp:composite=mine"
    finally:
        del COMPOSITES["mine"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([{"rule": "epsilom"}], 'did you mean "epsilon"'),
        ([{"rule": "flat:2"}], "no parameter"),
        ([{"rule": "alpha-beta:0.5"}], "at least 1"),
        ([{"rule": "gamma:x"}], "number"),
        ([{"deep": 0, "rule": "flat"}], 'did you mean "depth"'),
        ([{"depth": "deep", "rule": "flat"}, {"rule": "flat"}], "expected a depth"),
        ([{"op": "conv2d"}], "expected a rule"),
        ([{"op": "conv2d", "rule": "flat"}], "last entry"),
        ([], "last entry"),
        ([{"op": None, "rule": "flat"}, {"rule": "flat"}], "text or a whole number as op, got None"),
        ([["rule", "flat"]], "expected a list of tables"),
    ],
)
def test_bad_composites_are_refused(table: list[dict[str, object]], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        composite("bad", table)
    assert "bad" not in COMPOSITES


ROWS = '[{"depth": 0, "rule": "z-box"}, {"op": "conv*", "rule": "gamma:0.1"}, {"rule": "epsilon"}]'
TABLES = """
[[composite]]
depth = 0
rule = "z-box"

[[composite]]
op = "conv*"
rule = "gamma:0.1"

[[composite]]
rule = "epsilon"
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("mine.json", ROWS), ("named.JSON", f'{{"composite": {ROWS}}}'), ("mine.toml", TABLES)],
)
def test_a_composite_is_read_from_a_file_once(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert chosen(str(path)) == (Entry("z-box", depth="0"), Entry("gamma:0.1", op="conv*"), Entry("epsilon"))
    assert str(path) not in COMPOSITES
    method = parse(f"lrp:composite={path}")
    assert isinstance(method, LRP)
    path.unlink()  # what was read stays
    net = nets.classifier(nets.vgg())
    rules = {row.address: row.rule for row in method.plan(net).rows}
    assert [rules[f"{at}:conv2d"] for at in (0, 3)] == ["z-box", "gamma:0.1"]
    assert rules["8:linear"] == "epsilon"
    composite("mine", [{"depth": 0, "rule": "z-box"}, {"op": "conv*", "rule": "gamma:0.1"}, {"rule": "epsilon"}])
    try:
        expected = LRP("mine")(net, nets.photos()).values
    finally:
        del COMPOSITES["mine"]
    torch.testing.assert_close(method(net, nets.photos()).values, expected)
    with pytest.raises(SpecError, match="there is no file of a composite"):
        parse(method.spec)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("mine.json", b"[", "is not JSON"),
        ("mine.toml", b"[[composite]", "is not TOML"),
        ("mine.toml", b"\xff", "is not TOML"),
        ("mine.json", b'{"rules": []}', "expected a list of tables"),
        ("mine.json", b'{"composite": [], "more": 1}', "expected a list of tables"),
        ("mine.json", b'["epsilon"]', "expected a list of tables"),
        ("mine.json", b'[{"rule": ["epsilon"]}]', "text or a whole number as rule"),
        ("mine.toml", b"[[composite]]\ndepht = 0\nrule = 'flat'", 'did you mean "depth"'),
        ("mine.txt", b"[]", "one of your own is a file"),
    ],
)
def test_a_file_that_is_no_composite_is_refused(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=words):
        LRP(str(tmp_path / name))


def test_a_composite_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(SpecError, match=r'did you mean "mine\.toml"'):
        LRP(str(tmp_path / "mein.toml"))
    with pytest.raises(SpecError, match="cannot be read"):
        LRP(str(tmp_path / "mine.toml"))


def test_rules_that_do_not_fit_a_layer_are_refused() -> None:
    net = nets.classifier(nets.vgg())
    for rule, words in (("pass", "one shape"), ("z-box", "first layer")):
        composite("bad", [{"depth": "1-", "rule": rule}, {"rule": "epsilon"}])
        try:
            with pytest.raises(SpecError, match=words):
                LRP("bad")(net, nets.photos())
        finally:
            del COMPOSITES["bad"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_a_scripted_network_is_refused() -> None:
    net = Classifier(torch.jit.trace(nets.vgg().eval(), nets.photos()), size=nets.SIZE, check=False)
    with pytest.raises(UnknownOperation, match="scripted"):
        LRP()(net, nets.photos())
