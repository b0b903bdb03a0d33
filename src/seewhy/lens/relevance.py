"""The relevance lens: a pass that remembers its operations, and sends a logit back through them by LRP's rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy.classifier import Classifier
from seewhy.errors import UnknownOperation
from seewhy.lens import ops
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call, Spelling
from seewhy.lens.rules import Affine, Composite, Entry, stabilised

#: from the relevance of an operation's result (of each of its results, None where none came) to that of its maps
Spread = Callable[[Any], "Tensor | Sequence[Tensor | None]"]

#: for each operation, what is called before it runs and answers how it spreads relevance
RULES: dict[str, Callable[[Step], Spread]] = {}

GATE = "a gate is treated as a constant: the signal that it multiplies takes all relevance"
DEVIATION = "in layer and group normalisation the deviation is treated as a constant"
DIVISOR = "a divisor computed from the image is treated as a constant"
SOFTMAX = "relevance starts at the logit before the final softmax"


def rule(*names: str) -> Callable[[Callable[[Step], Spread]], Callable[[Step], Spread]]:
    """Register how an operation spreads relevance, by its name in the vocabulary or else by its function's.

    The function is given the `Step` before the operation runs, may keep tensors of it, and answers the function that
    goes from the relevance of the result to that of its maps (`Step.given`), in their order.

    >>> @rule("cumsum")
    ... def _(step):
    ...     return lambda relevance: relevance
    >>> "cumsum" in RULES
    True
    >>> del RULES["cumsum"]
    """

    def register(made: Callable[[Step], Spread]) -> Callable[[Step], Spread]:
        RULES.update(dict.fromkeys(names, made))
        return made

    return register


@dataclass(eq=False)
class Value:
    """A map as it was at one moment of the pass.

    `depth` counts the affine layers before it; `origin` is the one map that it was made of, place by place, if it was;
    `box` bounds its values, while they are pixels.
    """

    made_by: Step | None = None
    depth: int = 0
    read_by: list[Step] = field(default_factory=list)
    origin: Value | None = None
    box: tuple[Tensor, Tensor] | None = None
    shape: tuple[int, ...] = ()

    def chain(self) -> Iterator[Value]:
        """Itself, what it was made of, and so on."""
        value: Value | None = self
        while value is not None:
            yield value
            value = value.origin


@dataclass
class Layer:
    """An affine operation with its input x. `out` and `into` scale a weight's outputs and inputs, where that is possible."""

    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    weight: Tensor
    bias: Tensor | None = None
    back: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    out: Callable[[Tensor, Tensor], Tensor] | None = None
    into: Callable[[Tensor, Tensor], Tensor] | None = None
    dims: int = 0
    convolves: bool = False
    x: Tensor = field(default_factory=lambda: torch.empty(0))
    z: Tensor | None = None
    entry: Entry = field(default_factory=lambda: Entry("epsilon"))
    before: Step | None = None  # the batch normalisations that are merged into it
    after: Scale | None = None

    def offset(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x∗w + b for a bias that may differ from place to place."""
        if bias is None or bias.ndim == 1:
            return self.apply(x, weight, bias)
        return self.apply(x, weight, None) + bias

    def transposed(self, shares: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """s∗wᵀ by automatic differentiation."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            z = self.apply(leaf, weight, None)
        return torch.autograd.grad(z, leaf, shares.expand_as(z))[0].clone()

    def offsets(self) -> Tensor | None:
        """The biases with the normalisation behind it."""
        after = self.after
        if after is None:
            return self.bias
        return after.shift if self.bias is None else self.bias * after.factor + after.shift

    def merged(self, x: Tensor, box: tuple[Tensor, Tensor] | None) -> Affine:
        """As one layer with the normalisations that stand directly before and behind it; x is its input."""
        weight, bias, z = self.weight, self.bias, self.z
        before, after = self.before and self.before.scale, self.after
        if before and self.into:
            shift = before.wide(x.ndim).shift.expand(1, *x.shape[1:])
            bias = self.offset(shift, weight, bias)
            weight = self.into(weight, before.factor)
        if after and self.out:
            weight, z = self.out(weight, after.factor), after.z
            if bias is None or bias.ndim == 1:
                bias = self.offsets()
            else:
                bias = bias * after.wide(bias.ndim).factor + after.wide(bias.ndim).shift
        return Affine(self.offset, self.back or self.transposed, weight, bias, z, box, self.convolves)


@dataclass
class Scale:
    """A batch normalisation in eval mode: y = factor·x + shift for each channel. `x` and `z`, where they are kept."""

    factor: Tensor
    shift: Tensor
    x: Tensor | None = None
    z: Tensor | None = None
    dims: int = 0

    def wide(self, dims: int) -> Scale:
        """With dimensions for a map of as many."""
        shape = (1, -1, *[1] * (dims - 2))
        return Scale(self.factor.view(shape), self.shift.view(shape))


class Step:
    """One operation of the pass. `given` are the maps among its arguments, `values` what stands for them, `made` its results'.

    `call` and `given` are there until it has run; `rule` says in words what its rule is.
    """

    layer: Layer | None = None  # of an affine operation
    scale: Scale | None = None  # of a batch normalisation
    home: Step | None = None  # the affine operation that this is merged into
    source: Tensor | None = None  # of a softmax: the logits
    rectifies: bool | None = None  # of a rectifier or a gate that passes relevance: whether it is zero below zero

    def __init__(self, lens: Relevance, call: Call, given: Sequence[Tensor], values: Sequence[Value]) -> None:
        self.lens, self.call, self.given = lens, call, tuple(given)
        self.op, self.kind, self.path, self.address = call.op, call.kind, call.path, call.address
        self.values = tuple(values)
        self.made: tuple[Value, ...] = ()
        self.depth = max(value.depth for value in values)
        self.rule = "pass"
        self.spread: Spread = self.passes
        self.result: Any = None

    def keep(self, tensor: Tensor) -> Tensor:
        """The tensor as it is now, whatever the network writes to it later."""
        self.lens.held.add(tensor.untyped_storage()._cdata)
        return tensor.detach()

    def run(self) -> Any:
        """Run the operation, once; nothing that is kept is overwritten."""
        if self.result is not None:
            return self.result
        call = self.call
        if not call.in_place:
            self.result = call.run()
            return self.result
        target: Tensor = call.arguments["input"]
        memory = target.untyped_storage()._cdata
        self.lens.writes[memory] += 1
        if memory not in self.lens.held:
            self.result = call.run()
        elif any(target is each for each in self.given) and self._plain()[0] is not call.func:
            target.data = self.again()(*self.given).to(target.dtype)  # in place, the type stays
            self.result = target
        else:
            target.data = target.clone()
            self.result = call.run()
        return self.result

    def finished(self) -> None:
        """Let go of the tensors."""
        del self.call, self.given, self.result

    def close(self) -> None:
        """Let go of what is kept for the way back."""
        self.spread, self.layer, self.scale, self.source = self.passes, None, None, None

    def again(self) -> Callable[..., Any]:
        """The operation as a function of its maps, not in place; it holds none of them."""
        func, args, kwargs = self._plain()
        holes = {id(tensor): _Hole(index) for index, tensor in enumerate(self.given)}
        frame = _replaced((args, kwargs), lambda each: holes.get(id(each), each))

        def run(*maps: Tensor) -> Any:
            args, kwargs = _replaced(frame, lambda each: maps[each.index] if isinstance(each, _Hole) else each)
            return func(*args, **kwargs)

        return run

    def _plain(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """The operation's spelling that is not in place."""
        func, args, kwargs = self.call.func, self.call.args, self.call.kwargs
        if self.call.spelling.in_place:
            name = getattr(func, "__name__", "")
            plain = f"__{name[3:]}" if name.startswith("__i") else name.removesuffix("_")
            return getattr(torch.Tensor, plain, func), args, kwargs
        if self.call.in_place and "inplace" in kwargs:
            return func, args, {**kwargs, "inplace": False}
        if self.call.in_place:
            place = [name for name, _ in self.call.spelling.parameters].index("inplace")
            return func, (*args[:place], False, *args[place + 1 :]), kwargs
        return func, args, kwargs

    def inside(self) -> Tensor:
        """What a batch normalisation reads, computed anew if it is the result of an affine layer."""
        maker = self.values[0].made_by
        if maker is not None and maker.layer is not None:
            return maker.layer.offset(maker.layer.x, maker.layer.weight, maker.layer.bias)
        kept: Any = self.scale and self.scale.x
        return kept

    def passes(self, relevance: Tensor) -> Tensor:
        """The rule for what works place by place."""
        return relevance

    def refuse(self, because: str = "") -> Spread:
        """The rule for what has none: an error, if relevance ever comes there."""
        error = self.lens.unknown(self.op, because)
        self.rule = "no rule"

        def spread(relevance: Any) -> Tensor:
            raise error

        return spread

    def noting(self, text: str, spread: Spread) -> Spread:
        """A rule that leaves a note, if relevance passes there."""

        def noted(relevance: Any) -> Any:
            self.lens.notes.add(text)
            return spread(relevance)

        return noted


class _Hole:
    """Stands for a map among an operation's arguments."""

    def __init__(self, index: int) -> None:
        self.index = index


def _replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_replaced(part, change) for part in value)
    if isinstance(value, dict):
        return {key: _replaced(part, change) for key, part in value.items()}
    return change(value)


class Relevance(Lens):
    """Remembers a pass, so that `back` can send relevance through it by a composite's rules.

    Affine layers have the rule that the composite says, with the batch normalisation that stands directly behind or before
    them merged into them; a batch normalisation that stands alone is a diagonal layer. Sums and averages share
    relevance by value (ε → 0), max-pooling gives it to the maximum, what works place by place passes it. `notes` says what
    was taken for constant. An operation without a rule is an error if relevance comes there.
    """

    def __init__(self, module: nn.Module, composite: Composite, pixels: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__(module)
        self.composite, self.pixels = composite, pixels
        self.notes: set[str] = set()
        self.steps: list[Step] = []
        self.images: Value | None = None
        self.addresses: dict[str, Value] = {}
        self.answers: list[tuple[Tensor, Value]] = []
        self.writes: Counter[int] = Counter()  # by memory: how often it was overwritten
        self.held: set[int] = set()  # memories that hold what is kept
        self._values: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    # The pass

    def entered(self, inputs: tuple[Any, ...]) -> None:
        for images in ops.tensors(inputs):
            box = self.pixels and tuple(bound.expand(1, *images.shape[1:]) for bound in self.pixels)
            self.images = self._record(images, Value(box=box))  # type: ignore[arg-type]

    def follows(self, *values: Any) -> bool:
        return any(tensor in self._values for tensor in ops.tensors(values))

    def operation(self, call: Call) -> Any:
        given, values = [], []
        for tensor in call.tensors():
            value = self._value(tensor, call.op)
            if value is not None:
                given.append(tensor)
                values.append(value)
        if not values:
            return call.run()
        step = Step(self, call, given, values)
        for value in values:
            value.read_by.append(step)
        made = RULES.get(call.op)
        again = step.again() if values[0].box and call.kind != "affine" else None
        step.spread = step.refuse() if made is None else made(step)
        result = step.run()
        self._made(step, result, again)
        return result

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, raw = ops.named(func), getattr(func, "__name__", "")
        known = name in RULES
        if not self.follows(args, kwargs) or (name in ops.CONSTANTS and not known):
            return func(*args, **kwargs)
        in_place = raw.endswith("_") and not raw.endswith("__")
        path = self._stack[-1] if self._stack else ""
        spelling = Spelling(name, "arithmetic", (("input", None),), "rest", in_place)
        call = Call(spelling, func, args, kwargs, path, f"{path}:{name}")
        if known:
            return self.operation(call)
        result = func(*args, **kwargs)
        if in_place:
            raise self.unknown(name)
        if any(map(Tensor.is_floating_point, ops.tensors(result))):  # an error, if relevance ever comes there
            values = [value for tensor in call.tensors() if (value := self._value(tensor, name)) is not None]
            step = Step(self, call, (), values)
            step.spread = step.refuse()
            self._made(step, result, None)
        return result

    def output(self, address: str, result: Any) -> Any:
        for tensor in ops.tensors(result):
            value = self._value(tensor, "", missing=True)
            if value is not None:
                self.addresses.setdefault(address, value)
                if not address:
                    self.answers.append((tensor, value))
        return result

    def entry(self, step: Step) -> Entry:
        """The composite's rule for an operation."""
        return next(each for each in self.composite if each.fits(step.op, step.kind, step.path, step.depth))

    def _made(self, step: Step, result: Any, again: Callable[..., Any] | None) -> None:
        depth = step.depth + (step.layer is not None)
        same = step.values[0] if len(set(step.values)) == 1 and step.kind in _PLACEWISE else None
        boxes: list[Any] = []
        if again is not None and not depth and all(value.box for value in step.values):
            low, high = (list(ops.tensors(again(*ends))) for ends in zip(*(v.box for v in step.values), strict=True))
            boxes = [(torch.minimum(a, b), torch.maximum(a, b)) for a, b in zip(low, high, strict=True)]
        tensors = [tensor for tensor in ops.tensors(result) if tensor.is_floating_point()]
        step.made = tuple(
            self._record(tensor, Value(step, depth, origin=same, box=boxes[index] if boxes else None))
            for index, tensor in enumerate(tensors)
        )
        if step.made:
            self.addresses[step.address] = step.made[0]
        self.steps.append(step)
        step.finished()

    def _record(self, tensor: Tensor, value: Value) -> Value:
        memory = tensor.untyped_storage()._cdata
        self._values[tensor] = (value, memory, self.writes[memory])
        value.shape = tuple(tensor.shape)
        return value

    def _value(self, tensor: Tensor, op: str, missing: bool = False) -> Value | None:
        found = self._values.get(tensor)
        if found is None:
            return None
        value, memory, writes = found
        if self.writes[memory] != writes:
            if missing:
                return None
            raise self.unknown(op, " on a map that was overwritten through a view of it")
        return value

    # The way back

    def settle(self) -> None:
        """Merge each batch normalisation into the affine operation before it, or else into the one behind it."""
        for step in self.steps:
            scale = step.scale
            if scale is None or not step.depth:
                continue
            before, readers = step.values[0].made_by, step.made[0].read_by
            behind = readers[0].layer if len(readers) == 1 else None
            alone = len(step.values[0].read_by) == 1
            if alone and before and before.layer and before.layer.out and before.layer.dims == scale.dims:
                step.home, before.layer.after = before, scale
            elif behind and behind.into and behind.dims == scale.dims:
                step.home, behind.before = readers[0], step

    def close(self) -> None:
        """Let go of all that is kept."""
        for step in self.steps:
            step.close()
        self.steps.clear()

    def start(self, net: Classifier, logits: Tensor) -> tuple[Value, Tensor]:
        """Where relevance starts: a map, and the logits (N, C) that it holds."""
        self.settle()
        for tensor, value in self.answers:
            maker = value.made_by
            same = tensor.numel() == logits.numel() and (
                net.answers_probabilities or tensor.data_ptr() == logits.data_ptr()
            )
            if same and maker is not None and maker.source is not None:
                self.notes.add(SOFTMAX)
                return maker.values[0], maker.source.flatten(1)
            if same and not net.answers_probabilities:
                return value, logits
        raise UnknownOperation(
            f"the relevance lens cannot follow {net.name} from its images to its logits: "
            "it is scripted, or answers something else than logits or their softmax; load the module that it was made from"
        )

    def back(
        self,
        value: Value,
        relevance: Tensor,
        to: Value,
        *,
        last: bool = True,
        told: Callable[[Step, float, float], None] | None = None,
    ) -> Tensor | None:
        """Send the relevance of one map to an earlier one; None if it does not depend on that.

        `last` lets go of what was kept, on the way. `told(step, arrived, passed on)` hears of every operation.
        """
        found: dict[Value, Tensor] = {value: relevance}
        for step in reversed(self.steps):
            if to in step.made:
                break
            arrived = [found.pop(each, None) for each in step.made]
            if all(each is None for each in arrived):
                continue
            spread = step.spread(arrived[0] if len(arrived) == 1 else arrived)
            parts = (spread,) if isinstance(spread, Tensor) else tuple(spread)
            if told is not None:
                told(step, _total(arrived), _total(parts))
            for each, part in zip(step.values, parts, strict=True):
                if part is not None:
                    found[each] = found[each] + part if each in found else part
            del spread, parts, arrived
            if last:
                step.close()
        return found.get(to)


_PLACEWISE = ("rectifier", "gate", "arithmetic", "layout")


def _total(parts: Sequence[Tensor | None]) -> float:
    return sum(float(part.sum(dtype=torch.float64)) for part in parts if part is not None)


def _reduced(relevance: Tensor, shape: torch.Size) -> Tensor:
    """Added up over what was broadcast from a shape."""
    return relevance if relevance.shape == shape else relevance.sum_to_size(shape)


# Affine layers

_NEEDS_Z = ("epsilon", "gamma")


def _each(value: Any, count: int) -> list[int]:
    return list(value) * (count if len(value) == 1 else 1) if isinstance(value, tuple | list) else [value] * count


def _convolution(given: dict[str, Any], transposed: bool) -> Layer:
    weight, groups = given["weight"], given["groups"]
    count = weight.ndim - 2
    stride, dilation = _each(given["stride"], count), _each(given["dilation"], count)
    padding = given["padding"]
    if padding == "same":
        total = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        if any(each % 2 for each in total):  # more on one side than on the other
            run = F.conv2d if count == 2 else F.conv1d
            return Layer(
                lambda x, w, b: run(x, w, b, stride, "same", dilation, groups), weight, given["bias"], dims=count + 2
            )
        padding = [each // 2 for each in total]
    padding = _each(0 if padding == "valid" else padding, count)
    extra = _each(given.get("output_padding", 0), count)

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.convolution(x, weight, bias, stride, padding, dilation, transposed, extra, weight_groups(weight))

    def back(shares: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        found = torch.ops.aten.convolution_backward(
            shares, x, weight, None, stride, padding, dilation, transposed, extra, groups, [True, False, False]
        )
        return found[0]

    def weight_groups(weight: Tensor) -> int:
        return groups

    def channels(weight: Tensor, factor: Tensor, dim: int) -> Tensor:
        """A factor for each channel of dimension 0, or of dimension 1 in each group."""
        ones = [1] * (weight.ndim - 2)
        if dim == 0:
            return weight * factor.view(-1, 1, *ones)
        split = weight.view(groups, -1, *weight.shape[1:]) if groups > 1 else weight[None]
        return (split * factor.view(groups, 1, -1, *ones)).reshape(weight.shape)

    return Layer(
        apply,
        weight,
        given["bias"],
        back,
        out=lambda w, factor: channels(w, factor, int(transposed)),
        into=lambda w, factor: channels(w, factor, int(not transposed)),
        dims=count + 2,
        convolves=not transposed and groups == 1,
    )


def _product(weight: Tensor, bias: Tensor | None, dims: int) -> Layer:
    """x·Wᵀ + b along the last dimension."""
    return Layer(
        F.linear,
        weight,
        bias,
        lambda shares, w, x: shares @ w,
        out=lambda w, factor: w * factor[:, None],
        into=lambda w, factor: w * factor,
        dims=dims if dims == 2 else -1,
    )


def _layer(step: Step, x: Tensor) -> Layer | None:
    """The layer that an operation is; None if it is none, but a product of two maps, say."""
    given, op = step.call.arguments, step.op
    if len(step.given) != 1:
        return None
    if op in ("conv1d", "conv2d", "conv_transpose2d"):
        return (
            _convolution(given, op == "conv_transpose2d")
            if x is given["input"] and x.ndim == given["weight"].ndim
            else None
        )
    if op == "linear":
        return _product(given["weight"], given["bias"], x.ndim) if x is given["input"] else None
    if op == "addmm":
        plain = x is given["input"] and given["beta"] == given["alpha"] == 1 and given["bias"].ndim == 1
        return _product(given["mat2"].t(), given["bias"], x.ndim) if plain else None
    if op == "einsum":
        weights = [each for each in given["operands"] if each is not x]
        if len(given["operands"]) != 2 or len(weights) != 1:
            return None
        equation, first = given["equation"], given["operands"][0] is x
        return Layer(lambda x, w, b: torch.einsum(equation, *((x, w) if first else (w, x))), weights[0])
    other = given["mat2"] if op == "bmm" else given["other"]
    if x is given["input"] and other.ndim == 2 and x.ndim > 1:
        return _product(other.t(), None, x.ndim)
    if x is given["input"]:
        return Layer(lambda x, w, b: torch.matmul(x, w), other)
    return Layer(lambda x, w, b: torch.matmul(w, x), given["input"])


@rule("conv1d", "conv2d", "conv_transpose2d", "linear", "addmm", "matmul", "bmm", "einsum")
def _affine(step: Step) -> Spread:
    layer = step.layer = _layer(step, step.given[0])
    if layer is None:
        return step.refuse(" of two maps, or with weights computed from the image")
    layer.entry, layer.x = step.lens.entry(step), step.keep(step.given[0])
    step.rule = layer.entry.rule
    if layer.entry.named in _NEEDS_Z:
        layer.z = step.keep(step.run())

    def spread(relevance: Tensor) -> Tensor:
        box, x = step.values[0].box, layer.x
        if layer.before is not None:
            x = layer.before.inside()
        return layer.entry(layer.merged(x, box), x, relevance)

    return spread


@rule("batch_norm")
def _batch_norm(step: Step) -> Spread:
    given, x = step.call.arguments, step.given[0]
    mean, variance, weight, bias = (given[name] for name in ("running_mean", "running_var", "weight", "bias"))
    if given["training"] or mean is None or len(step.given) != 1:
        return step.refuse(" by the statistics of the batch")
    factor = torch.rsqrt(variance + given["eps"])
    factor = factor if weight is None else factor * weight
    scale = step.scale = Scale(factor, -mean * factor if bias is None else bias - mean * factor, dims=x.ndim)
    entry = step.lens.entry(step)
    step.rule = entry.rule
    before = step.values[0].made_by
    layer = before.layer if before else None
    if layer is None:
        scale.x = step.keep(x)
    elif layer.z is not None:  # merged, as it will be, the layer's result is this one
        layer.z, scale.z = None, step.keep(step.run())

    def spread(relevance: Tensor) -> Tensor:
        if step.home is not None or not step.depth:
            return relevance
        wide = scale.wide(relevance.ndim)
        x = step.inside()
        alone = Affine(
            lambda x, w, b: x * w if b is None else x * w + b, lambda shares, w, x: shares * w, wide.factor, wide.shift
        )
        return entry(alone, x, relevance)

    return spread


# What moves values


@rule("contiguous", "clone", "detach", "float", "dropout", "dropout2d", "alpha_dropout", "feature_dropout")
def _same(step: Step) -> Spread:
    return step.passes


@rule("to", "type_as")
def _typed(step: Step) -> Spread:
    dtype = step.given[0].dtype
    return lambda relevance: relevance.to(dtype)


@rule("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze")
def _shaped(step: Step) -> Spread:
    shape = step.given[0].shape
    return lambda relevance: relevance.reshape(shape)


@rule("cat")
def _joined(step: Step) -> Spread:
    dim = step.call.arguments["dim"]
    parts = [part for part in step.call.arguments["tensors"] if part.numel() or part.ndim > 1]
    starts = [0, *accumulate(part.shape[dim] for part in parts)]
    places = {id(part): (start, part.shape[dim]) for part, start in zip(parts, starts, strict=False)}
    chosen = [places[id(each)] for each in step.given]
    if len(set(chosen)) < len(chosen):  # the same map twice: its relevance adds up
        return _moved(step)
    return lambda relevance: [relevance.narrow(dim, start, length) for start, length in chosen]


@rule("permute", "transpose", "t", "movedim", "chunk", "split", "unbind", "narrow", "select", "slice", "getitem")
@rule("index_select", "expand", "expand_as", "repeat", "pad", "roll", "flip", "stack")
@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def _moved(step: Step) -> Spread:
    """Each copy of a value gives its relevance to it; what is filled in keeps its own."""
    again, given = step.again(), [(each.shape, each.stride(), each.dtype, each.device) for each in step.given]

    def spread(relevance: Any) -> Sequence[Tensor | None]:
        with torch.enable_grad():
            maps = [
                torch.empty_strided(shape, stride, dtype=dtype, device=device, requires_grad=True)
                for shape, stride, dtype, device in given
            ]
            made = [each for each in ops.tensors(again(*maps)) if each.is_floating_point()]
        pairs = [(a, b) for a, b in zip(made, [relevance] if isinstance(relevance, Tensor) else relevance, strict=True)]
        some = [(a, b) for a, b in pairs if b is not None]
        return torch.autograd.grad([a for a, _ in some], maps, [b for _, b in some], allow_unused=True)

    return spread


@rule("copy")
def _copied(step: Step) -> Spread:
    source, dtype = step.call.arguments["other"], step.call.arguments["other"].dtype
    shapes = [each.shape if each is source else None for each in step.given]
    return lambda relevance: [None if shape is None else _reduced(relevance, shape).to(dtype) for shape in shapes]


@rule("glu")
def _gated_linear(step: Step) -> Spread:
    dim = step.call.arguments["dim"]
    return step.noting(GATE, lambda relevance: torch.cat([relevance, torch.zeros_like(relevance)], dim))


# What works place by place


@rule(*(op for op, (kind, _) in ops.VOCABULARY.items() if kind == "rectifier"))
@rule("sigmoid", "hardsigmoid", "tanh")
def _bent(step: Step) -> Spread:
    if len(step.given) != 1:
        return step.refuse(" with bounds computed from the image")
    step.rectifies = _zero_below(step)
    return step.passes


def _zero_below(step: Step) -> bool:
    """Whether a function of one value is zero wherever that is below zero, as ReLU is."""
    given = step.call.arguments
    low: Any = None
    if step.op in ("relu", "relu6"):
        return True
    if step.op == "threshold":
        return bool(given["value"] == 0 <= given["threshold"])
    if step.op in ("maximum", "max"):
        low = next(each for each in step.call.tensors() if each is not step.given[0])
    elif step.op in ("hardtanh", "clamp", "clamp_min"):
        low = given["min_val" if step.op == "hardtanh" else "min"]
    return low is not None and not torch.as_tensor(low).any()


@rule("neg")
def _negated(step: Step) -> Spread:
    return step.passes


@rule("local_response_norm", "normalize")
def _divided(step: Step) -> Spread:
    return step.noting(DIVISOR, step.passes)


@rule("softmax", "log_softmax")
def _softmax(step: Step) -> Spread:
    step.source = step.keep(step.given[0])
    return step.refuse(" inside the model")


@rule("add", "sub", "rsub")
def _sum(step: Step) -> Spread:
    """Each summand gets its share of the sum, a constant its own; a shift of pixels passes."""
    given, alpha = step.call.arguments, step.call.arguments["alpha"]
    factors = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[step.op]
    terms = list(zip((given["input"], given["other"]), factors, strict=True))
    maps = [(each, factor) for each, factor in terms if isinstance(each, Tensor) and any(each is t for t in step.given)]
    if len(maps) == 1 and not step.depth:
        shape = maps[0][0].shape
        return lambda relevance: _reduced(relevance, shape)
    step.rule = "by value"
    rest = [each * factor for each, factor in terms if not any(each is m for m, _ in maps)]
    kept = [(step.keep(each), factor) for each, factor in maps]

    def spread(relevance: Tensor) -> Sequence[Tensor]:
        (first, by), *others = kept
        whole = first * by if by != 1 else first
        for other, factor in others:
            whole = torch.add(whole, other, alpha=factor)
        for constant in rest:
            whole = whole + constant
        shares = relevance / stabilised(whole)
        return [_reduced(each * shares if factor == 1 else each * shares * factor, each.shape) for each, factor in kept]

    return spread


@rule("mul")
def _times(step: Step) -> Spread:
    """A constant factor passes; of two maps the signal takes all, the gate nothing."""
    if len(step.given) == 1:
        shape = step.given[0].shape
        return lambda relevance: _reduced(relevance, shape)
    signal = _signal(step.given, step.values)
    if signal is None:
        return step.refuse(" of two maps, neither of which is a gate")
    step.rule, shape = "the signal takes all", step.given[signal].shape
    return step.noting(
        GATE, lambda relevance: [_reduced(relevance, shape) if index == signal else None for index in range(2)]
    )


def _signal(given: Sequence[Tensor], values: Sequence[Value]) -> int | None:
    """Which of two factors is the signal, the other one being its gate; None if that cannot be known."""
    (one, two), (first, second) = given, values
    if one.numel() != two.numel():
        return int(one.numel() < two.numel())
    if first in second.chain():  # x·σ(x), an activation
        return 0
    if second in first.chain():
        return 1
    gates = [any(each.made_by and each.made_by.kind == "gate" for each in value.chain()) for value in (first, second)]
    return gates.index(False) if sum(gates) == 1 else None


@rule("div")
def _quotient(step: Step) -> Spread:
    number = step.call.arguments["input"]
    if not any(each is number for each in step.given):
        return step.refuse(" by a map")
    shapes = [each.shape if each is number else None for each in step.given]
    spread: Spread = lambda relevance: [None if shape is None else _reduced(relevance, shape) for shape in shapes]  # noqa: E731
    return spread if len(shapes) == 1 else step.noting(DIVISOR, spread)


@rule("where")
def _where(step: Step) -> Spread:
    given = step.call.arguments
    condition = step.keep(given["condition"])
    sides = [(each is given["input"], each.shape) for each in step.given]
    return lambda relevance: [
        _reduced(relevance * (condition if first else ~condition), shape) for first, shape in sides
    ]


@rule("masked_fill")
def _filled(step: Step) -> Spread:
    mask, shape = step.keep(step.call.arguments["mask"]), step.given[0].shape
    return lambda relevance: _reduced(relevance.masked_fill(mask, 0), shape)


# Normalisations by the image's own statistics


@rule("layer_norm", "group_norm", "instance_norm", "rms_norm")
def _own_norm(step: Step) -> Spread:
    """y = (x − mean x)·w/σ + b with σ constant, shared out by value."""
    given, op, x = step.call.arguments, step.op, step.keep(step.given[0])
    if len(step.given) != 1 or (op == "instance_norm" and not given["use_input_stats"]):
        return step.refuse(" by running statistics")
    weight, bias, eps = given["weight"], given.get("bias"), given["eps"]
    if op in ("group_norm", "instance_norm"):
        groups = given["num_groups"] if op == "group_norm" else x.shape[1]
        inner: tuple[int, ...] = (len(x), groups, -1)
        weight, bias = (None if each is None else each.view(1, -1, *[1] * (x.ndim - 2)) for each in (weight, bias))
        dims: tuple[int, ...] = (2,)
    else:
        inner, dims = tuple(x.shape), tuple(range(-len(given["normalized_shape"]), 0))
    step.rule = "by value"

    def spread(relevance: Tensor) -> Tensor:
        if op == "rms_norm":
            return relevance
        split = x.reshape(inner)
        deviation = torch.rsqrt(split.var(dims, correction=0, keepdim=True) + eps)
        centred = ((split - split.mean(dims, keepdim=True)) * deviation).view(x.shape)
        z = centred if weight is None else centred * weight
        shares = relevance / stabilised(z if bias is None else z + bias)
        shares = (shares if weight is None else shares * weight).reshape(inner) * deviation
        return ((shares - shares.mean(dims, keepdim=True)) * split).view(x.shape)

    return step.noting(DEVIATION, spread)


# Poolings


@rule("avg_pool2d", "adaptive_avg_pool2d", "interpolate", "mean", "sum")
def _averaged(step: Step) -> Spread:
    again, x = step.again(), step.keep(step.given[0])
    step.rule = "by value"

    def spread(relevance: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            z = again(leaf)
        return torch.autograd.grad(z, leaf, relevance / stabilised(z.detach()))[0] * x

    return spread


@rule("lp_pool2d")
def _powers(step: Step) -> Spread:
    """Each value x gets its share xᵖ / Σ xᵖ of what comes to its window, which is x·∂y/∂x / y; none where all are zero."""
    given, x = step.call.arguments, step.keep(step.given[0])
    step.rule = "by power"

    def spread(relevance: Tensor) -> Tensor:
        with torch.enable_grad():
            powers = x.pow(given["norm_type"]).requires_grad_()
            z = F.avg_pool2d(powers, given["kernel_size"], given["stride"] or None, 0, given["ceil_mode"])
        shares = torch.where(z != 0, relevance / z, 0)  # whatever the power makes of their size, z may be small
        return torch.autograd.grad(z, powers, shares.detach())[0] * powers.detach()

    return spread


@rule("max_pool2d", "adaptive_max_pool2d")
def _max_pool(step: Step) -> Spread:
    given = dict(step.call.arguments)
    x, wanted = given.pop("input"), given.pop("return_indices")
    run = F.max_pool2d if step.op == "max_pool2d" else F.adaptive_max_pool2d
    pooled, indices = run(x, **given, return_indices=True)
    step.result = (pooled, indices) if wanted else pooled
    step.rule = "the maximum takes all"
    shape, stride = x.shape, x.stride()
    if step.op == "max_pool2d":
        size = _each(given["kernel_size"], 2)
        words = [size, _each(given["stride"], 2) if given["stride"] else size]
        words += [_each(given["padding"], 2), _each(given["dilation"], 2), given["ceil_mode"]]

    def spread(relevance: Tensor) -> Tensor:
        like = torch.empty_strided(shape, stride, dtype=relevance.dtype, device=relevance.device)  # for its form only
        if step.op == "max_pool2d":
            return torch.ops.aten.max_pool2d_with_indices_backward(relevance, like, *words, indices)
        return torch.ops.aten.adaptive_max_pool2d_backward(relevance, like, indices)

    return spread


@rule("amax", "amin", "max", "min", "maximum", "minimum")
def _winner(step: Step) -> Spread:
    """What the operation hands on takes all."""
    argument = step.call.arguments.get("dim", step.call.arguments.get("other"))
    if isinstance(argument, Tensor) and len(step.given) == 1:  # a bound
        step.rectifies = _zero_below(step)
        return step.passes
    again, kept = step.again(), [step.keep(each) for each in step.given]
    step.rule = "the winner takes all"

    def spread(relevance: Any) -> Sequence[Tensor]:
        with torch.enable_grad():
            leaves = [each.detach().requires_grad_() for each in kept]
            z = next(ops.tensors(again(*leaves)))
        return torch.autograd.grad(z, leaves, relevance)

    return spread
