"""The rescale lens: DeepLIFT's multipliers Δout/Δin in place of gradients, for every operation, however it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy.lens import ops
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call, Spelling

#: answers the result of a call whose arguments follow the image; its backward pass must pass on multipliers
Rule = Callable[["Rescale", Call], Any]

#: from a result's multipliers to those of the maps that it was made of
Back = Callable[[Tensor], Sequence[Tensor]]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how operations pass on multipliers, by their names in the vocabulary or else by their functions'.

    `linear` (the ordinary gradient), `elementwise` (Δout/Δin), `quadratic` (the gradient midway) and `spelled` (in other
    operations) are rules to register.

    >>> rule("cumsum")(linear) is RULES["cumsum"]
    True
    >>> del RULES["cumsum"]
    """

    def register(given: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, given))
        return given

    return register


@dataclass(frozen=True)
class Pair:
    """A call's tensors for the image and for the reference, detached; `maps` are the places of those that follow the image.

    `run` runs the call on other tensors, not in place; `value` is its result for the image.
    """

    run: Callable[[Sequence[Tensor]], Tensor]
    now: list[Tensor]
    then: list[Tensor]
    maps: list[int]
    value: Tensor


class Rescale(Lens):
    """Inside, the backward pass carries multipliers: what a unit of difference from the reference adds to the output.

    Two passes make it: one of the reference in a lens without `reference`, which keeps what it must, and one of the image
    in a lens with the first as its `reference`, which can then be run backwards. Linear operations have their ordinary
    gradient; rectifiers and all other functions of one value Δout/Δin (the rescale rule); products of maps the gradient
    midway, (b + b′)/2 for a in a·b, which is what two players' Shapley values give; max-pooling gives Δout to the larger
    one's position; normalisations over the map and softmax are spelled in these. Every rule is additive, so the multipliers
    times the difference of the inputs add up to the difference of the outputs.

    A mask computed from the image (`x * (x > 0)`) may be a rectifier in disguise: it is refused.
    """

    needs = "neither"

    def __init__(self, module: nn.Module, reference: Rescale | None = None) -> None:
        super().__init__(module)
        self._reference = reference
        self._kept: list[tuple[str, list[tuple[Tensor, int]]]] = []
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._next = 0
        self._masks: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._unsaved = ExitStack()

    def __enter__(self) -> Rescale:
        super().__enter__()
        if self._reference is None:  # never run backwards: what autograd would save for that is not kept
            self._unsaved.enter_context(saved_tensors_hooks(lambda _: torch.empty(0), lambda kept: kept))
        return self

    def __exit__(self, *error: Any) -> None:
        self._unsaved.close()
        super().__exit__(*error)

    def follows(self, *values: Any) -> bool:
        return any(tensor.requires_grad for tensor in ops.tensors(values))

    def operation(self, call: Call) -> Any:
        if self._masks and any(tensor in self._masks for tensor in call.tensors()):
            if call.kind != "layout" or self.follows(call.args, call.kwargs):
                raise self.unknown(call.op, " with a mask computed from the image, in which a rectifier may hide")
            result = call.run()
            self._mark(result)
            return result
        if call.in_place:
            self._save(call.arguments["input"])
        if not self.follows(call.args, call.kwargs):
            return call.run()
        if call.op not in RULES:
            raise self.unknown(call.op)
        return RULES[call.op](self, call)

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if ops.is_comparison(func):
            result = func(*args, **kwargs)
            if self.follows(args, kwargs):
                self._mark(result)
            return result
        name = ops.named(func)
        if name in RULES:
            raw = getattr(func, "__name__", "")
            written = Spelling(name, "arithmetic", (("input", None),), "rest", raw.endswith("_") and raw[-2:] != "__")
            return self.operation(Call(written, func, args, kwargs))
        return super().other(func, args, kwargs)

    def multiplied(self, call: Call, back: Callable[[Pair], Back]) -> Any:
        """The call's result, its backward pass being what `back` makes of the image's and the reference's arguments."""
        tensors = list(call.tensors())
        if self._reference is None:
            self._keep(call, tensors)
            return call.run()

        def run(given: Sequence[Tensor]) -> Tensor:
            copies = iter([given[0].clone(), *given[1:]] if call.in_place else given)
            value: Tensor = call.func(*_filled(call.args, copies), **_filled(call.kwargs, copies))
            return value

        maps = [place for place, tensor in enumerate(tensors) if tensor.requires_grad]
        with torch.no_grad():
            now = [tensor.detach() for tensor in tensors]
            value = run(now)
            if not isinstance(value, Tensor):
                raise self.unknown(call.op, ", which answers several tensors")
            pair = Pair(run, now, self._handed(call, now), maps, value)
            chosen = back(pair)
        directly = call.in_place and maps[0] == 0 and not tensors[0]._is_view()
        result: Tensor = _Multiplied.apply(  # type: ignore[no-untyped-call]
            [value], chosen, directly, *(tensors[place] for place in maps)
        )
        return tensors[0].copy_(result) if call.in_place and result is not tensors[0] else result

    def spelled(self, call: Call, spell: Callable[[Call], Any]) -> Any:
        """The call's result by other operations, which this lens sees."""
        TorchFunctionMode.__enter__(self)
        try:
            result = spell(call)
        finally:
            TorchFunctionMode.__exit__(self, None, None, None)
        if not call.in_place:
            return result
        target: Tensor = call.arguments["input"]
        self._save(target)
        return target.copy_(result)

    def _mark(self, result: Any) -> None:
        for tensor in ops.tensors(result):
            self._masks[tensor] = True

    # What the reference's pass keeps, and the image's is handed, in the order of the calls

    def _keep(self, call: Call, tensors: list[Tensor]) -> None:
        held = [tensor.detach() for tensor in tensors]
        if call.in_place:  # what it overwrites may be among its arguments twice
            place = held[0].untyped_storage()._cdata
            held = [tensor.clone() if tensor.untyped_storage()._cdata == place else tensor for tensor in held]
        for index, tensor in enumerate(held):
            self._places.setdefault(tensor.untyped_storage()._cdata, []).append((len(self._kept), index))
        self._kept.append((call.op, [(tensor, tensor._version) for tensor in held]))

    def _save(self, target: Tensor) -> None:
        """Copy what is kept of a tensor that is about to be overwritten."""
        for index, place in self._places.pop(target.untyped_storage()._cdata, ()):
            copy = self._kept[index][1][place][0].clone()
            self._kept[index][1][place] = (copy, copy._version)

    def _handed(self, call: Call, now: list[Tensor]) -> list[Tensor]:
        kept = self._reference._kept if self._reference is not None else []
        op, held = kept[self._next] if self._next < len(kept) else ("nothing", [])
        if op != call.op or [each.shape for each, _ in held] != [each.shape for each in now]:
            raise self.unknown(call.op, f", where the reference takes another way through the network, to {op}")
        if any(tensor._version != version for tensor, version in held):
            raise self.unknown(call.op, " on a map that is overwritten by an operation outside the vocabulary")
        kept[self._next] = (op, [])
        self._next += 1
        return [tensor for tensor, _ in held]


class _Multiplied(torch.autograd.Function):
    """A value whose backward pass is given; written into the first map where `in_place` says so."""

    @staticmethod
    def forward(ctx: Any, value: list[Tensor], back: Back, in_place: bool, *maps: Tensor) -> Tensor:
        ctx.back = back
        if in_place:
            ctx.mark_dirty(maps[0])
            return maps[0].copy_(value.pop())
        return value.pop()  # out of a list, so that it is the result itself and no view of an argument

    @staticmethod
    def backward(ctx: Any, multipliers: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *ctx.back(multipliers))


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Nested arguments with other tensors in the places of theirs."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple | list):
        return type(value)([_filled(part, tensors) for part in value])
    if isinstance(value, dict):
        return {key: _filled(part, tensors) for key, part in value.items()}
    return value


# The rules


def linear(lens: Rescale, call: Call) -> Any:
    """Linear in all its maps together: the ordinary gradient."""
    return call.run()


def quadratic(lens: Rescale, call: Call) -> Any:
    """Of degree two in its maps together: the gradient midway between reference and image, which is exact."""
    maps = sum(tensor.requires_grad for tensor in call.tensors())
    if maps == 1 and call.op not in ("square", "pow"):
        return call.run()
    if maps > 2 and call.op == "einsum":
        raise lens.unknown(call.op, " of more than two maps")
    return lens.multiplied(call, _midway)


def _midway(pair: Pair) -> Back:
    with torch.enable_grad():
        middle = list(pair.now)
        for place in pair.maps:
            middle[place] = torch.lerp(pair.now[place], pair.then[place], 0.5).requires_grad_()
        value = pair.run(middle)
    leaves = [middle[place] for place in pair.maps]
    return lambda multipliers: torch.autograd.grad(value, leaves, multipliers, retain_graph=True)


def elementwise(lens: Rescale, call: Call) -> Any:
    """A function of one value: Δout/Δin, and where Δin is 0 the derivative."""
    return _rescaled(lens, call, lambda rise, _: rise == 0, _slope)


def clipped(lens: Rescale, call: Call) -> Any:
    """The same for the identity between bounds, whose derivative is told by its being the identity."""
    return _rescaled(lens, call, lambda rise, _: rise == 0, _is_identity)


def smooth(lens: Rescale, call: Call) -> Any:
    """The same, and where Δin is small beside 1 the derivative midway: a quotient would be rounding there."""
    return _rescaled(lens, call, lambda rise, _: rise.abs() <= _small(rise), _slope)


def scale_free(lens: Rescale, call: Call) -> Any:
    """The same, for powers and logarithms: where Δin is small beside its input."""
    return _rescaled(lens, call, lambda rise, x: rise.abs() <= _small(rise) * x.abs(), _bounded_slope)


def _small(tensor: Tensor) -> float:
    """Where the error of a derivative midway, Δ²/24 or so, falls below that of a quotient, rounding/Δ."""
    return float(torch.finfo(tensor.dtype).eps ** (1 / 3))


def _rescaled(
    lens: Rescale, call: Call, close: Callable[[Tensor, Tensor], Tensor], slope: Callable[[Pair], Tensor]
) -> Any:
    if sum(tensor.requires_grad for tensor in call.tensors()) != 1:
        raise lens.unknown(call.op, " of two maps")

    def back(pair: Pair) -> Back:
        (place,) = pair.maps
        x, rise = pair.now[place], pair.now[place] - pair.then[place]
        quotient = (pair.value - pair.run(pair.then)).div_(rise)
        multiplier, shape = torch.where(close(rise, x), slope(pair), quotient), x.shape
        return lambda multipliers: ((multipliers * multiplier).sum_to_size(shape),)

    return lens.multiplied(call, back)


def _slope(pair: Pair) -> Tensor:
    """The derivative midway between reference and image."""
    (place,) = pair.maps
    middle = torch.lerp(pair.now[place], pair.then[place], 0.5).expand(pair.value.shape)
    with torch.enable_grad():
        leaf = middle.detach().requires_grad_()
        value = pair.run([*pair.now[:place], leaf, *pair.now[place + 1 :]])
        return torch.autograd.grad(value.sum(), leaf)[0]


def _bounded_slope(pair: Pair) -> Tensor:
    """The same, and 0 for a root of zero, whose slope has no bound: nothing changes there, so that any number would do."""
    return _slope(pair).nan_to_num_(nan=math.nan, posinf=0.0, neginf=0.0)


def _is_identity(pair: Pair) -> Tensor:
    return (pair.value == pair.now[pair.maps[0]]).to(pair.value.dtype)


def spelled(spell: Callable[[Call], Any]) -> Rule:
    """A rule for an operation that can be written in others: they are what is seen."""
    return lambda lens, call: lens.spelled(call, spell)


def _larger(pair: Pair, largest: Callable[[Tensor], tuple[Tensor, Tensor]], dims: int) -> Back:
    """The rise of a maximum goes to one place, where the larger of the two maxima was, by a multiplier in [0, 1].

    If the reference has its maximum (also) where the image has it, as a flat one does, then there: by 1, as a gradient.
    `largest` answers the maxima and their places, counted over the last `dims` dimensions.
    """
    (x,), (other,) = pair.now, pair.then
    value, at, before, at_before = (part.flatten(-dims) for part in (*largest(x), *largest(other)))
    x, other, shape = x.flatten(-dims), other.flatten(-dims), x.shape
    places = x.shape
    winner = torch.where((value >= before) | (other.gather(-1, at) == before), at, at_before)
    rise = x.gather(-1, winner) - other.gather(-1, winner)
    multiplier = torch.where(rise == 0, 1.0, (value - before) / rise)

    def back(multipliers: Tensor) -> tuple[Tensor]:
        passed = multipliers.reshape(winner.shape) * multiplier
        return (passed.new_zeros(places).scatter_add_(-1, winner, passed).view(shape),)

    return back


rule(
    *(op for op, (kind, _) in ops.VOCABULARY.items() if kind == "layout"),
    *("avg_pool2d", "adaptive_avg_pool2d", "interpolate", "mean", "sum", "add", "sub", "rsub", "neg"),
    *("where", "masked_fill"),
)(linear)
rule(
    *("conv1d", "conv2d", "conv_transpose2d", "linear", "matmul", "bmm", "addmm", "einsum"),
    *("mul", "addcmul", "square"),
)(quadratic)
rule("relu", "relu6", "hardtanh", "threshold", "clamp", "clamp_min", "clamp_max")(clipped)
rule("leaky_relu", "prelu", "rrelu", "hardswish", "hardsigmoid", "elu", "selu", "celu", "abs")(elementwise)
rule("sigmoid", "silu", "gelu", "tanh", "mish", "softplus", "logsigmoid", "exp", "erf", "__rpow__")(smooth)
rule("sqrt", "rsqrt", "reciprocal", "rdiv", "log")(scale_free)


@rule("pow")
def _power(lens: Rescale, call: Call) -> Any:
    base, exponent = call.arguments["input"], call.arguments["exponent"]
    if not lens.follows(base):
        return smooth(lens, call)
    whole = isinstance(exponent, int | float) and exponent in (1, 2)
    return quadratic(lens, call) if whole else scale_free(lens, call)


@rule("div")
def _divided(lens: Rescale, call: Call) -> Any:
    above, below = call.arguments["input"], call.arguments["other"]
    if call.arguments["rounding_mode"] is not None:
        raise lens.unknown(call.op, " with rounding")
    return lens.spelled(call, lambda _: torch.reciprocal(below) * above) if lens.follows(below) else call.run()


@rule("batch_norm")
def _batch_norm(lens: Rescale, call: Call) -> Any:
    if call.arguments["training"]:
        raise lens.unknown(call.op, " over the images of a batch")
    return call.run()


@rule("max_pool2d")
def _max_pool(lens: Rescale, call: Call) -> Any:
    given = call.arguments
    words = {"padding": given["padding"], "dilation": given["dilation"], "ceil_mode": given["ceil_mode"]}

    def largest(maps: Tensor) -> Any:
        return F.max_pool2d(maps, given["kernel_size"], given["stride"] or None, return_indices=True, **words)

    return lens.multiplied(call, lambda pair: _larger(pair, largest, 2))


@rule("lp_pool2d")
@spelled
def _power_pool(call: Call) -> Tensor:
    x, power, size, stride = (call.arguments[name] for name in ("input", "norm_type", "kernel_size", "stride"))
    means = F.avg_pool2d(x.pow(power), size, stride or None, 0, call.arguments["ceil_mode"])
    count = math.prod(size) if isinstance(size, tuple | list) else size**2
    return (means * count).pow(1 / power)


@rule("adaptive_max_pool2d")
def _adaptive_max_pool(lens: Rescale, call: Call) -> Any:
    size = call.arguments["output_size"]
    return lens.multiplied(
        call, lambda pair: _larger(pair, lambda maps: F.adaptive_max_pool2d(maps, size, return_indices=True), 2)
    )


@rule("amax", "amin")
def _amax(lens: Rescale, call: Call) -> Any:
    x, keep, dims = call.arguments["input"], call.arguments["keepdim"], call.arguments["dim"]
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if not dims:
        raise lens.unknown(call.op, " over everything, the batch too")
    if call.op == "amin":
        return lens.spelled(call, lambda _: -torch.amax(-x, dims, keep))
    if dims == (-1,):
        return lens.multiplied(call, lambda pair: _larger(pair, lambda maps: maps.max(-1, keepdim=True), 1))

    def spell(_: Call) -> Tensor:
        answer: Tensor = x.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims)).amax(-1)
        for dim in sorted(dim % x.ndim for dim in dims) if keep else ():
            answer = answer.unsqueeze(dim)
        return answer

    return lens.spelled(call, spell)


@rule("max", "min")
def _max(lens: Rescale, call: Call) -> Any:
    dim = call.arguments["dim"]
    if isinstance(dim, Tensor):
        return _maximum(lens, call)
    if dim is None:
        raise lens.unknown(call.op, " over everything, the batch too")
    found, reduce = call.run(), getattr(torch, "a" + call.op)
    values = lens.spelled(call, lambda _: reduce(call.arguments["input"], dim, call.arguments["keepdim"]))
    return type(found)((values, found.indices))


@rule("maximum", "minimum")
def _maximum(lens: Rescale, call: Call) -> Any:
    one, two = call.tensors()
    if not (one.requires_grad and two.requires_grad):
        return elementwise(lens, call)
    shape = torch.broadcast_shapes(one.shape, two.shape)
    reduce = getattr(torch, "a" + call.op[:3])
    return lens.spelled(call, lambda _: reduce(torch.stack([one.expand(shape), two.expand(shape)]), 0))


@rule("softmax", "log_softmax")
def _softmax(lens: Rescale, call: Call) -> Any:
    dim = call.arguments["dim"]
    if dim is None:
        raise lens.unknown(call.op, " without a dimension")
    return lens.multiplied(call, lambda pair: _shares(pair, dim, log=call.op == "log_softmax"))


def _shares(pair: Pair, dim: int, log: bool) -> Back:
    """Softmax as the product eˣ · 1/Σeˣ, its logarithm as x − log Σeˣ; both scaled alike, which changes no multiplier."""
    (x,), (other,) = pair.now, pair.then
    top = torch.maximum(x, other).amax(dim, keepdim=True)
    now, then, rise = (x - top).exp(), (other - top).exp(), x - other
    total, before = now.sum(dim, keepdim=True), then.sum(dim, keepdim=True)
    near = rise.abs() <= _small(rise)
    each = torch.where(near, (torch.lerp(x, other, 0.5) - top).exp(), (now - then) / rise)
    if log:
        near = (total - before).abs() <= _small(total) * total
        grows = torch.where(near, 2 / (total + before), (total / before).log() / (total - before))
        return lambda given: (given - each * grows * given.sum(dim, keepdim=True),)
    middle, share = (now + then) / (2 * total * before), (1 / total + 1 / before) / 2
    return lambda given: (each * (given * share - (given * middle).sum(dim, keepdim=True)),)


@rule("glu")
@spelled
def _glu(call: Call) -> Tensor:
    value, gate = call.arguments["input"].chunk(2, call.arguments["dim"])
    return value * torch.sigmoid(gate)


def _standard(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@rule("layer_norm")
@spelled
def _layer_norm(call: Call) -> Tensor:
    given = call.arguments
    dims = tuple(range(-len(given["normalized_shape"]), 0))
    return _affine(_standard(given["input"], dims, given["eps"]), given["weight"], given["bias"])


@rule("rms_norm")
@spelled
def _rms_norm(call: Call) -> Tensor:
    x, shape, eps = (call.arguments[name] for name in ("input", "normalized_shape", "eps"))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    power = x.square().mean(tuple(range(-len(shape), 0)), keepdim=True)
    return _affine(x * torch.rsqrt(power + eps), call.arguments["weight"])


@rule("group_norm", "instance_norm")
def _group_norm(lens: Rescale, call: Call) -> Any:
    if call.op == "instance_norm" and not call.arguments["use_input_stats"]:
        return call.run()

    def spell(call: Call) -> Tensor:
        x = call.arguments["input"]
        groups = call.arguments.get("num_groups", x.shape[1])
        standard = _standard(x.reshape(len(x), groups, -1), (-1,), call.arguments["eps"]).reshape(x.shape)
        each = (-1, *[1] * (x.ndim - 2))
        weight, bias = (call.arguments[name] for name in ("weight", "bias"))
        return _affine(standard, *(None if part is None else part.view(each) for part in (weight, bias)))

    return lens.spelled(call, spell)


@rule("local_response_norm")
@spelled
def _local_response_norm(call: Call) -> Tensor:
    x, size, alpha, beta, k = (call.arguments[name] for name in ("input", "size", "alpha", "beta", "k"))
    power = F.pad(x.square().flatten(2).unsqueeze(1), (0, 0, size // 2, (size - 1) // 2))
    mean = F.avg_pool2d(power, (size, 1), stride=1).squeeze(1).reshape(x.shape)
    return x * (mean * alpha + k).pow(-beta)


def _length(lens: Rescale, call: Call, spell: Callable[[Call], Tensor]) -> Any:
    if call.arguments["p"] not in (2, "fro") or call.arguments["dim"] is None:
        raise lens.unknown(call.op, ", other than of order 2 along given dimensions")
    return lens.spelled(call, spell)


@rule("norm")
def _norm(lens: Rescale, call: Call) -> Any:
    x, dim, keep = (call.arguments[name] for name in ("input", "dim", "keepdim"))
    return _length(lens, call, lambda _: x.square().sum(dim, keepdim=keep).sqrt())


@rule("normalize")
def _normalize(lens: Rescale, call: Call) -> Any:
    x, dim, eps = (call.arguments[name] for name in ("input", "dim", "eps"))
    return _length(lens, call, lambda _: x / x.square().sum(dim, keepdim=True).sqrt().clamp_min(eps))
