"""The rules of layer-wise relevance propagation, each a function of one affine layer, and composites of them as plain data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import SpecError, nearest
from seewhy.units import number

#: keeps denominators that are sums of one sign, or that only nothing can meet at zero, from being zero
TINY = 1e-9


@dataclass(frozen=True)
class Affine:
    """A layer z = x∗w + b, whatever operation computes it.

    `apply(x, w, b)` computes it for other weights, `back(s, w, x)` is the transposed product s∗wᵀ, new and shaped like x.
    `z` is its result for the input at hand, where it was kept; `box` the smallest and largest value that each of its
    inputs can have, where they are pixels.
    """

    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    back: Callable[[Tensor, Tensor, Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None = None
    z: Tensor | None = None
    box: tuple[Tensor, Tensor] | None = None
    convolves: bool = False


def stabilised(z: Tensor, epsilon: float = TINY) -> Tensor:
    """z, moved away from zero by ε."""
    return z + torch.where(z < 0, -epsilon, epsilon)


def _part(layer: Affine, x: Tensor, relevance: Tensor, sign: int, bias: float) -> Tensor:
    """Relevance shared out over the contributions x_i·w_ij of one sign."""
    same, other = (torch.Tensor.clamp_min, torch.Tensor.clamp_max)[::sign]
    weight = same(layer.weight, 0)
    offset = None if layer.bias is None or not bias else same(layer.bias, 0) * bias
    if x.min() >= 0:  # as after a rectifier: half the work
        z = layer.apply(x, weight, offset).add_(sign * TINY)
        return layer.back(torch.div(relevance, z, out=z), weight, x).mul_(x)
    against = other(layer.weight, 0)
    positive, negative = x.clamp_min(0), x.clamp_max(0)
    z = layer.apply(positive, weight, offset).add_(layer.apply(negative, against, None)).add_(sign * TINY)
    shares = torch.div(relevance, z, out=z)
    found = layer.back(shares, weight, x).mul_(positive)
    return found.add_(layer.back(shares, against, x).mul_(negative))


def epsilon(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """R_i = x_i Σ_j w_ij R_j / (z_j ± ε)."""
    z = layer.apply(x, layer.weight, layer.bias) if layer.z is None else layer.z
    return layer.back(relevance / stabilised(z, value), layer.weight, x).mul_(x)


def z_plus(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """R_i = Σ_j (x_i w_ij)⁺ / (Σ_i (x_i w_ij)⁺ + value·b_j⁺) R_j."""
    return _part(layer, x, relevance, 1, value)


def alpha_beta(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """R_i = Σ_j (α (x_i w_ij)⁺/z_j⁺ − β (x_i w_ij)⁻/z_j⁻) R_j, with z_j⁺ and z_j⁻ including b_j⁺ and b_j⁻, β = α − 1."""
    found = _part(layer, x, relevance, 1, 1.0)
    return found if value == 1 else found.mul_(value).sub_(_part(layer, x, relevance, -1, 1.0).mul_(value - 1))


def gamma(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """ε's rule with contributions of z_j's own sign raised: x_i w_ij + γ (x_i w_ij)^± over the sum of these and b_j + γ b_j^±.

    For x ≥ 0 and z_j > 0 that is w_ij + γ w_ij⁺ in place of w_ij.
    """
    z = layer.apply(x, layer.weight, layer.bias) if layer.z is None else layer.z
    found = torch.zeros_like(x)
    signed = bool(x.min() < 0)
    for sign in (1, -1):
        chosen = relevance * (z * sign > 0)
        if not chosen.any():
            continue
        same, other = (torch.Tensor.clamp_min, torch.Tensor.clamp_max)[::sign]
        raised = layer.weight + value * same(layer.weight, 0)
        offset = None if layer.bias is None else layer.bias + value * same(layer.bias, 0)
        positive = x.clamp_min(0)
        sums = layer.apply(positive, raised, offset)
        lowered, negative = layer.weight + value * other(layer.weight, 0), x.clamp_max(0)
        if signed:
            sums = sums + layer.apply(negative, lowered, None)
        shares = chosen / stabilised(sums)
        found += layer.back(shares, raised, x).mul_(positive)
        if signed:
            found += layer.back(shares, lowered, x).mul_(negative)
    return found


def z_box(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """R_i = Σ_j (x_i w_ij − l_i w_ij⁺ − h_i w_ij⁻) / Σ_i (…) R_j, for inputs between l and h: pixels."""
    if layer.box is None:
        raise SpecError(
            'the rule "z-box" is for the first layer, whose inputs are pixels; choose another for depth > 0'
        )
    low, high = layer.box
    positive, negative = layer.weight.clamp_min(0), layer.weight.clamp_max(0)
    z = layer.apply(x, layer.weight, None) - layer.apply(low, positive, None) - layer.apply(high, negative, None)
    shares = relevance / z.add_(TINY)
    found = layer.back(shares, layer.weight, x).mul_(x)
    found -= layer.back(shares, positive, x).mul_(low)
    return found.sub_(layer.back(shares, negative, x).mul_(high))


def w_squared(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """R_i = Σ_j w_ij² / Σ_i w_ij² R_j, whatever the input is."""
    squared = layer.weight.square()
    return layer.back(relevance / (layer.apply(torch.ones_like(x[:1]), squared, None) + TINY), squared, x)


def flat(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """R_i = Σ_j R_j / (the number of inputs that j has), whatever weights and input are."""
    if layer.convolves:  # over all channels: they get the same, so one is computed
        relevance, one = relevance.sum(1, keepdim=True), x[:, :1]
        kernel = torch.ones_like(layer.weight[:1, :1])
        window = layer.apply(torch.ones_like(one[:1]), kernel, None) * x.shape[1]
        return layer.back(relevance / window, kernel, one).expand(x.shape)
    kernel = torch.ones_like(layer.weight)
    return layer.back(relevance / (layer.apply(torch.ones_like(x[:1]), kernel, None) + TINY), kernel, x)


def passed(layer: Affine, x: Tensor, relevance: Tensor, value: float) -> Tensor:
    """R_i = R_j, each input being paired with the output at its place."""
    if x.shape != relevance.shape:
        shapes = f"{tuple(x.shape[1:])} and {tuple(relevance.shape[1:])}"
        raise SpecError(f'the rule "pass" is for layers whose input and output have one shape, not {shapes}')
    return relevance


Function = Callable[[Affine, Tensor, Tensor, float], Tensor]

#: name: (function, its parameter's default, the parameter's smallest value); None where there is no parameter
AFFINE_RULES: dict[str, tuple[Function, float | None, float]] = {
    "epsilon": (epsilon, 1e-6, 0.0),
    "gamma": (gamma, 0.25, 0.0),
    "alpha-beta": (alpha_beta, 2.0, 1.0),
    "z-plus": (z_plus, 1.0, 0.0),
    "z-box": (z_box, None, 0.0),
    "w-squared": (w_squared, None, 0.0),
    "flat": (flat, None, 0.0),
    "pass": (passed, None, 0.0),
}


@dataclass(frozen=True)
class Entry:
    """A line of a composite: the layers that it is for, and their rule.

    `rule` is a name of `AFFINE_RULES`, with its parameter if it is not the default: "epsilon:1e-3", "gamma:0.1",
    "alpha-beta:2" (β = α − 1), "z-plus:0" (without the bias). `op`, `kind` and `path` (the module's) may have `*`;
    `depth` is the number of affine layers before it: "0" for the first ones, "1-3", "4-", or "*".
    """

    rule: str
    op: str = "*"
    kind: str = "*"
    path: str = "*"
    depth: str = "*"

    def __post_init__(self) -> None:
        name, given, text = self.rule.partition(":")
        if name not in AFFINE_RULES:
            way_out = nearest(name, AFFINE_RULES) or "; there are: " + ", ".join(AFFINE_RULES)
            raise SpecError(f'there is no relevance rule "{name}"{way_out}')
        _, default, least = AFFINE_RULES[name]
        if given and default is None:
            raise SpecError(f'the rule "{name}" has no parameter, got "{self.rule}"')
        if self.value < least:
            raise SpecError(f'expected a parameter of at least {least:g} for the rule "{name}", got {text}')
        self.depths  # noqa: B018  reads it, so that a bad one is refused now

    @cached_property
    def named(self) -> str:
        """The rule's name without its parameter."""
        return self.rule.partition(":")[0]

    @cached_property
    def value(self) -> float:
        """The rule's parameter."""
        _, given, text = self.rule.partition(":")
        return number(text) if given else AFFINE_RULES[self.named][1] or 0.0

    @cached_property
    def depths(self) -> tuple[float, float]:
        """The smallest and the largest depth."""
        if self.depth == "*":
            return 0, float("inf")
        low, dash, high = self.depth.partition("-")
        if not low.isdecimal() or not (high.isdecimal() or (dash and not high) or not dash):
            raise SpecError(f'expected a depth such as "0", "1-3", "4-" or "*", got "{self.depth}"')
        return int(low), int(high) if high else float("inf") if dash else int(low)

    def fits(self, op: str, kind: str, path: str, depth: int) -> bool:
        """Whether it is for a layer."""
        low, high = self.depths
        named = ((op, self.op), (kind, self.kind), (path, self.path))
        return low <= depth <= high and all(fnmatchcase(name, pattern) for name, pattern in named)

    def __call__(self, layer: Affine, x: Tensor, relevance: Tensor) -> Tensor:
        return AFFINE_RULES[self.named][0](layer, x, relevance, self.value)


Composite = tuple[Entry, ...]

#: by name; the first entry that fits a layer counts. They are for affine layers and for normalisations that stand alone
COMPOSITES: dict[str, Composite] = {}


#: what reads a composite's file, by the end of its name
FILES: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}


def composite(name: str, table: Sequence[Mapping[str, Any]]) -> Composite:
    """Register a composite under a name: a list of tables, each with a `rule` and the layers that it is for (`Entry`).

    The last one has a rule only, so that no layer is left out. Raises `SpecError` for what cannot be understood.

    >>> mine = composite("mine", [
    ...     {"depth": 0, "rule": "z-box"}, {"op": "conv*", "rule": "gamma:0.1"}, {"rule": "epsilon"},
    ... ])
    >>> mine[1].fits("conv2d", "affine", "layer1.0.conv1", 3)
    True
    >>> del COMPOSITES["mine"]
    """
    COMPOSITES[name] = _understood(name, table)
    return COMPOSITES[name]


def chosen(name: str) -> Composite:
    """A registered composite, or the one in a file (.json, .toml), see `read`; raises `SpecError` with the nearest names."""
    if name in COMPOSITES:
        return COMPOSITES[name]
    if Path(name).suffix.lower() in FILES:
        return read(name)
    way_out = nearest(name, COMPOSITES) or "; there are: " + ", ".join(COMPOSITES)
    raise SpecError(
        f'there is no composite "{name}"{way_out}; one of your own is a file (.json, .toml), or registered by '
        "seewhy.lens.rules.composite"
    )


def read(path: str) -> Composite:
    """The composite in a file: a list of tables as `composite` has them in JSON, `[[composite]]` tables in TOML.

    Raises `SpecError` where the file is not there or cannot be understood.
    """
    file = Path(path).expanduser()
    kind = file.suffix.lower()
    try:
        held = FILES[kind](file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = [each.name for each in file.parent.glob("*") if each.suffix.lower() in FILES]
        raise SpecError(f'there is no file of a composite at "{path}"{nearest(file.name, there)}') from None
    except OSError as error:
        raise SpecError(f'the composite at "{path}" cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise SpecError(f'the composite at "{path}" is not {kind[1:].upper()}: {error}') from None
    if isinstance(held, dict) and set(held) == {"composite"}:
        held = held["composite"]
    return _understood(path, held)


def _understood(name: str, table: object) -> Composite:
    """The entries of a composite."""
    if not isinstance(table, Sequence) or not all(isinstance(row, Mapping) for row in table):
        raise SpecError(
            f'composite "{name}": expected a list of tables, each with a rule ([{{"rule": "epsilon"}}] in JSON, [[composite]] '
            f"in TOML), got {table!r:.80}"
        )
    names = [field.name for field in fields(Entry)]
    made = []
    for row in table:
        for key, value in row.items():
            if key not in names:
                raise SpecError(
                    f'composite "{name}" has no key "{key}"{nearest(key, names) or ": " + ", ".join(names)}'
                )
            if not isinstance(value, str | int) or isinstance(value, bool):
                raise SpecError(f'composite "{name}": expected text or a whole number as {key}, got {value!r:.80}')
        if "rule" not in row:
            raise SpecError(f'composite "{name}": expected a rule in each entry, got {dict(row)}')
        made.append(Entry(**{key: str(value) for key, value in row.items()}))
    if not made or made[-1] != replace(Entry("pass"), rule=made[-1].rule):
        raise SpecError(
            f'composite "{name}": expected a last entry with a rule only, for the layers that no other fits'
        )
    return tuple(made)


composite("epsilon", [{"rule": "epsilon"}])
composite("epsilon-plus", [{"op": "conv*", "rule": "z-plus"}, {"rule": "epsilon"}])
composite(
    "epsilon-plus-flat",
    [{"kind": "affine", "depth": 0, "rule": "flat"}, {"op": "conv*", "rule": "z-plus"}, {"rule": "epsilon"}],
)
composite(
    "epsilon-gamma-box",
    [{"kind": "affine", "depth": 0, "rule": "z-box"}, {"op": "conv*", "rule": "gamma:0.25"}, {"rule": "epsilon"}],
)
composite("alpha2-beta1", [{"op": "conv*", "rule": "alpha-beta:2"}, {"rule": "epsilon"}])
composite(
    "alpha2-beta1-flat",
    [{"kind": "affine", "depth": 0, "rule": "flat"}, {"op": "conv*", "rule": "alpha-beta:2"}, {"rule": "epsilon"}],
)
