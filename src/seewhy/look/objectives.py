"""What an image is optimised for: a small algebra of objectives, in Python and as text.

>>> 0.5 * Channel("layer3", 12) + Logit("tabby") - 2 * TotalVariation()
Objective('0.5*channel(layer3;12)+logit(tabby)-2*tv')
>>> objective("channel(layer3;12)-2*tv") == Channel("layer3", 12) - 2 * TotalVariation()
True
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.errors import LayerError, SpecError, nearest
from seewhy.lens.capture import Seen, find, trace
from seewhy.units import number

#: below this a norm counts as nothing
TINY = 1e-12


@dataclass(frozen=True)
class View:
    """What an objective sees of n images: `pixels` (n, 3, H, W) as they are before any transform, and `answers` (n, …) of
    the layers by address, the logits under "". `unit` (n,) says which of its units each image is for."""

    pixels: Tensor
    answers: Mapping[str, Tensor]
    unit: Tensor


class Term(ABC):
    """One objective: a number for each image, the higher the better."""

    name: ClassVar[str]
    #: the layers it looks at, and whether it looks at the logits
    layers: tuple[str, ...] = ()
    logits: bool = False
    #: whether an image's value depends on the others
    together: bool = False

    @property
    def units(self) -> int:
        """How many images it asks for, one for each of its units; 1: any number."""
        return 1

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.layers

    def check(self, net: Classifier) -> tuple[str, ...]:
        """Raise where the network has no such unit; answers a name for each unit, or one for all."""
        for layer in self.layers:
            _shape(net, layer)
        return (str(self),)

    @abstractmethod
    def value(self, view: View, net: Classifier) -> Tensor:
        """The objective (n,) of the images."""

    def __str__(self) -> str:
        return self.name + (f"({';'.join(self.arguments)})" if self.arguments else "")

    def __add__(self, other: Term | Objective) -> Objective:
        return Objective(((1.0, self),)) + other

    def __sub__(self, other: Term | Objective) -> Objective:
        return self + -1 * other

    def __mul__(self, factor: float) -> Objective:
        return Objective(((float(factor), self),))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return -1 * self


@dataclass(frozen=True, repr=False)
class Objective:
    """A sum of terms, each with its weight."""

    terms: tuple[tuple[float, Term], ...]

    def __post_init__(self) -> None:
        several = {term.units for _, term in self.terms} - {1}
        if len(several) > 1:
            raise SpecError(
                f"expected as many units in each term of {self}, got {' and '.join(map(str, sorted(several)))}"
            )
        for weight, _ in self.terms:
            if not math.isfinite(weight):
                raise SpecError(f"expected finite weights, got {weight}")

    @property
    def units(self) -> int:
        return max(term.units for _, term in self.terms)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for _, term in self.terms for layer in term.layers))

    @property
    def logits(self) -> bool:
        return any(term.logits for _, term in self.terms)

    @property
    def together(self) -> bool:
        return any(term.together for _, term in self.terms)

    def check(self, net: Classifier) -> tuple[str, ...]:
        """Raise where the network lacks a layer or a unit; answers a name for each unit: that of the first term with most."""
        named = [term.check(net) for _, term in self.terms]
        return max(named, key=len)

    def __call__(self, view: View, net: Classifier) -> Tensor:
        """The objective (n,) of the images."""
        values = [weight * term.value(view, net) for weight, term in self.terms]
        return torch.stack(values).sum(0)

    def penalties(self, view: View, net: Classifier) -> Tensor:
        """The part (n,) of the terms that look at the pixels alone."""
        alone = [weight * term.value(view, net) for weight, term in self.terms if not (term.layers or term.logits)]
        return torch.stack(alone).sum(0) if alone else torch.zeros(len(view.pixels))

    def __add__(self, other: Term | Objective) -> Objective:
        return Objective(self.terms + (other.terms if isinstance(other, Objective) else ((1.0, other),)))

    def __sub__(self, other: Term | Objective) -> Objective:
        return self + -1 * other

    def __mul__(self, factor: float) -> Objective:
        return Objective(tuple((weight * factor, term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return -1 * self

    def __str__(self) -> str:
        text = ""
        for weight, term in self.terms:
            size = "" if abs(weight) == 1 else f"{abs(weight)!r}*".replace(".0*", "*")
            text += ("-" if weight < 0 else "+" if text else "") + size + str(term)
        return text

    def __repr__(self) -> str:
        return f"Objective({str(self)!r})"


# Units


@dataclass(frozen=True)
class Channel(Term):
    """The mean of a channel over its positions; of several channels, an image for each: `channel(layer3;0-7;12)`."""

    layer: str
    channel: int | tuple[int, ...]

    name = "channel"

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.layer,)

    @property
    def channels(self) -> tuple[int, ...]:
        return _each(self.channel)

    @property
    def units(self) -> int:
        return len(self.channels)

    @property
    def arguments(self) -> tuple[str, ...]:
        return (self.layer, *_ranges(self.channels))

    def check(self, net: Classifier) -> tuple[str, ...]:
        shape = _shape(net, self.layer)
        for channel in self.channels:
            _inside(channel, shape[1], f"a channel of {self.layer}")
        return tuple(f"{self.layer}, channel {channel}" for channel in self.channels)

    def value(self, view: View, net: Classifier) -> Tensor:
        # the mean of the one channel, not of all: with the way back it is up to five times as fast
        return _mean(_pick(view.answers[self.layer], self.channels, view.unit))


@dataclass(frozen=True)
class Neuron(Term):
    """One value of a layer: a channel at a position (row, column), the central one unless it is given."""

    layer: str
    channel: int
    row: int | None = None
    column: int | None = None

    name = "neuron"

    def __post_init__(self) -> None:
        if (self.row is None) != (self.column is None):
            raise SpecError("expected a neuron's row and column, or neither for the centre: neuron(layer3;12;7;7)")

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.layer,)

    @property
    def arguments(self) -> tuple[str, ...]:
        return (self.layer, *(str(each) for each in (self.channel, self.row, self.column) if each is not None))

    def check(self, net: Classifier) -> tuple[str, ...]:
        shape = _shape(net, self.layer)
        _inside(self.channel, shape[1], f"a channel of {self.layer}")
        if self.row is None or self.column is None:
            return (f"{self.layer}, neuron {self.channel}" + (", centre" if len(shape) == 4 else ""),)
        if len(shape) != 4:
            raise LayerError(f"{self.layer} answers {shape[1:]} for an image: its neurons have no row and column")
        _inside(self.row, shape[2], f"a row of {self.layer}")
        _inside(self.column, shape[3], f"a column of {self.layer}")
        return (f"{self.layer}, neuron {self.channel} at ({self.row}, {self.column})",)

    def value(self, view: View, net: Classifier) -> Tensor:
        found = view.answers[self.layer]
        if found.ndim == 2:
            return found[:, self.channel]
        row = found.shape[2] // 2 if self.row is None else self.row
        column = found.shape[3] // 2 if self.column is None else self.column
        return found[:, self.channel, row, column]


@dataclass(frozen=True)
class Direction(Term):
    """v·a/‖v‖ of the layer's vectors a (C,), the mean over positions: a direction in its space, `direction(fc;1;0;-1)`."""

    layer: str
    vector: tuple[float, ...]

    name = "direction"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", tuple(map(float, self.vector)))
        if not all(map(math.isfinite, self.vector)) or not any(self.vector):
            raise SpecError("expected a direction of finite numbers that are not all zero")

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.layer,)

    @property
    def arguments(self) -> tuple[str, ...]:
        return (self.layer, *(f"{value:.9g}" for value in self.vector))

    def check(self, net: Classifier) -> tuple[str, ...]:
        shape = _shape(net, self.layer)
        if shape[1] != len(self.vector):
            raise LayerError(f"expected a direction of {shape[1]} numbers in {self.layer}, got {len(self.vector)}")
        return (f"{self.layer}, direction",)

    def value(self, view: View, net: Classifier) -> Tensor:
        found = _mean(view.answers[self.layer])
        vector = torch.tensor(self.vector, device=found.device, dtype=found.dtype)
        return found @ (vector / vector.norm())


@dataclass(frozen=True)
class Logit(Term):
    """A class's logit, by index or name; of several classes, an image for each: `logit(tabby;281;0-3)`."""

    target: int | str | tuple[int | str, ...]

    name = "logit"
    logits = True

    def __post_init__(self) -> None:
        for each in self.targets:
            if isinstance(each, str) and set(each) & set(",;()"):
                raise SpecError(
                    f'expected a class without comma, semicolon or bracket in its name, got "{each}"; '
                    "give its index, or a synonym"
                )

    @property
    def targets(self) -> tuple[int | str, ...]:
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @property
    def units(self) -> int:
        return len(self.targets)

    @property
    def arguments(self) -> tuple[str, ...]:
        return _ranges(self.targets)

    def classes(self, net: Classifier) -> tuple[int, ...]:
        """The indices of its classes; raises `InputError` where there is no such class."""
        return tuple(map(net.index, self.targets))

    def check(self, net: Classifier) -> tuple[str, ...]:
        return tuple(net.labels[index] for index in self.classes(net))

    def value(self, view: View, net: Classifier) -> Tensor:
        return _pick(view.answers[""], self.classes(net), view.unit)


@dataclass(frozen=True)
class Layer(Term):
    """The mean square of everything that a layer answers: DeepDream's objective."""

    layer: str

    name = "layer"

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.layer,)

    def value(self, view: View, net: Classifier) -> Tensor:
        return view.answers[self.layer].flatten(1).square().mean(1)


@dataclass(frozen=True)
class Diversity(Term):
    """Minus the mean cosine between an image's Gram matrix at a layer and the other images': they come out different.

    Source: Olah, Mordvintsev & Schubert 2017, "Feature visualization", doi:10.23915/distill.00007.
    """

    layer: str

    name = "diversity"
    together = True

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.layer,)

    def value(self, view: View, net: Classifier) -> Tensor:
        found = view.answers[self.layer]
        flat = found.flatten(2) if found.ndim == 4 else found[:, :, None]
        gram = F.normalize((flat @ flat.mT).flatten(1), eps=TINY)
        cosine = gram @ gram.T
        # one unit's images should differ from each other; different units' do so by themselves
        unit = view.unit.to(cosine.device)
        same = unit[:, None] == unit
        same.fill_diagonal_(False)
        return -(cosine * same).sum(1) / same.sum(1).clamp_min(1)


# Regularisers: penalties, to be taken away


@dataclass(frozen=True)
class TotalVariation(Term):
    """The mean over pixels and colours of (Δx² + Δy²)^(β/2), with a forward difference; β = 2 unless given: `tv(1)`.

    Source: Mahendran & Vedaldi 2015, arXiv 1412.0035, equation 4.
    """

    beta: float = 2.0

    name = "tv"

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 10:
            raise SpecError(f"expected total variation's exponent in (0, 10], got {self.beta:g}")

    @property
    def arguments(self) -> tuple[str, ...]:
        return () if self.beta == 2 else (f"{self.beta:g}",)

    def value(self, view: View, net: Classifier) -> Tensor:
        pixels = view.pixels
        square = (pixels[..., :-1, 1:] - pixels[..., :-1, :-1]).square()
        square = square + (pixels[..., 1:, :-1] - pixels[..., :-1, :-1]).square()
        # below 2 the root has no slope at zero
        each = square if self.beta == 2 else (square + TINY) ** (self.beta / 2)
        return each.flatten(1).mean(1)


@dataclass(frozen=True)
class L2(Term):
    """The mean square of pixels − 0.5: how far from mid-grey. Source: Simonyan et al. 2014, arXiv 1312.6034, section 2."""

    name = "l2"

    def value(self, view: View, net: Classifier) -> Tensor:
        return (view.pixels - 0.5).flatten(1).square().mean(1)


@dataclass(frozen=True)
class Blur(Term):
    """The mean square of what a small blur (1 2 1, both ways) takes away: high frequencies cost, large shapes are free."""

    name = "blur"

    def value(self, view: View, net: Classifier) -> Tensor:
        pixels = view.pixels
        line = torch.tensor([0.25, 0.5, 0.25], device=pixels.device, dtype=pixels.dtype)
        kernel = (line[:, None] * line).expand(3, 1, 3, 3)
        lost = pixels - F.conv2d(F.pad(pixels, (1, 1, 1, 1), "replicate"), kernel, groups=3)
        return lost.flatten(1).square().mean(1)


# As text

_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?"
_TERM = re.compile(rf"\s*([+-]?)\s*(?:({_NUMBER})\s*\*\s*)?([a-z]\w*)(?:\(([^()]*)\)|(?![\w(]))\s*", re.IGNORECASE)


def objective(text: str | Term | Objective) -> Objective:
    """Read an objective: terms joined by + and −, each with a weight if it has one, `0.5*channel(layer3;12)-tv`.

    Arguments are separated by semicolons, since commas separate the options of a spec. Raises `SpecError`.
    """
    if isinstance(text, Objective):
        return text
    if isinstance(text, Term):
        return 1.0 * text
    terms: list[tuple[float, Term]] = []
    position = 0
    while position < len(text) or not terms:
        found = _TERM.match(text, position)
        if found is None or (terms and not found[1]):
            raise SpecError(
                f'expected terms such as 0.5*channel(layer3;12)-tv for an objective, got "{text}"; '
                f"there are: {', '.join(_TERMS)}"
            )
        sign, weight, name, inside = found.groups()
        if name not in _TERMS:
            raise SpecError(
                f'there is no objective "{name}"{nearest(name, _TERMS) or "; there are: " + ", ".join(_TERMS)}'
            )
        given = [each.strip() for each in inside.split(";")] if inside and inside.strip() else []
        terms.append(((-1 if sign == "-" else 1) * float(weight or 1), _made(name, given)))
        position = found.end()
    return Objective(tuple(terms))


def _made(name: str, given: list[str]) -> Term:
    make, fewest, most, example = _TERMS[name]
    if not fewest <= len(given) <= most:
        raise SpecError(f'expected {example} for the objective "{name}", got {name}({";".join(given)})')
    return make(given)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise SpecError(f'expected a whole number in an objective, got "{text}"')
    return int(text)


def _spread(text: str) -> tuple[int, ...]:
    """A number, or a range of both ends: 0-3 is 0, 1, 2, 3."""
    first, dash, last = text.partition("-")
    if not dash:
        return (_whole(text),)
    low, high = _whole(first), _whole(last)
    if not low <= high < low + 10_000:
        raise SpecError(f'expected a range such as 0-7, got "{text}"')
    return tuple(range(low, high + 1))


def _class(text: str) -> tuple[int | str, ...]:
    return _spread(text) if re.fullmatch(r"\d+(-\d+)?", text) else (text,)


def _channel(given: list[str]) -> Term:
    channels = tuple(each for text in given[1:] for each in _spread(text))
    return Channel(given[0], channels[0] if len(channels) == 1 else channels)


def _neuron(given: list[str]) -> Term:
    return Neuron(given[0], *map(_whole, given[1:]))


def _direction(given: list[str]) -> Term:
    return Direction(given[0], tuple(map(number, given[1:])))


def _logit(given: list[str]) -> Term:
    targets = tuple(each for text in given for each in _class(text))
    return Logit(targets[0] if len(targets) == 1 else targets)


#: how each term is made of its arguments, how many it takes at least and at most, and an example
_TERMS: dict[str, tuple[Callable[[list[str]], Term], int, float, str]] = {
    "channel": (_channel, 2, math.inf, "channel(layer3;12)"),
    "neuron": (_neuron, 2, 4, "neuron(layer3;12) or neuron(layer3;12;7;7)"),
    "direction": (_direction, 2, math.inf, "direction(layer;1;0;-1)"),
    "logit": (_logit, 1, math.inf, "logit(tabby) or logit(281)"),
    "layer": (lambda given: Layer(given[0]), 1, 1, "layer(layer3)"),
    "diversity": (lambda given: Diversity(given[0]), 1, 1, "diversity(layer3)"),
    "tv": (lambda given: TotalVariation(*map(number, given)), 0, 1, "tv or tv(1)"),
    "l2": (lambda given: L2(), 0, 0, "l2"),
    "blur": (lambda given: Blur(), 0, 0, "blur"),
}


# What the terms share


def _each(given: int | tuple[int, ...]) -> tuple[int, ...]:
    return given if isinstance(given, tuple) else (given,)


def _ranges(given: tuple[int | str, ...]) -> tuple[str, ...]:
    """As text, with runs of numbers as ranges."""
    runs: list[list[int | str]] = []
    for each in given:
        before = runs[-1][-1] if runs else None
        if isinstance(each, int) and isinstance(before, int) and each == before + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return tuple(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _shape(net: Classifier, layer: str) -> tuple[int, ...]:
    address = find(net, layer)
    seen: Seen = next(each for each in trace(net) if each.address == address)
    if len(seen.shape) not in (2, 4) or not seen.channels_first:
        last = "" if seen.channels_first else ", its channels last"
        raise LayerError(
            f"an objective needs a layer that answers maps (N, C, H, W) or codes (N, C); {layer} answers {seen.shape}{last}"
        )
    return seen.shape


def _inside(index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        raise LayerError(f"expected {what} from 0 to {count - 1}, got {index}")


def _mean(found: Tensor) -> Tensor:
    """The mean over positions, if there are any: the last two axes of maps (n, C, h, w) or of one channel of them (n, h, w)."""
    return found.mean((-2, -1)) if found.ndim > 2 else found


def _pick(found: Tensor, units: tuple[int, ...], unit: Tensor) -> Tensor:
    """The values (n, …) of each image's own unit, of (n, C, …)."""
    if len(units) == 1:
        return found[:, units[0]]
    own = torch.tensor(units, device=found.device)[unit.to(found.device)]
    return found[torch.arange(len(found), device=found.device), own]
