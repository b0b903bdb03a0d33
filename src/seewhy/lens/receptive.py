"""The receptive-field lens: which window of the image each unit sees, exactly.

A window is carried as the largest of four numbers, (−top, −left, bottom, right), so that the union of windows is a
maximum and a unit that sees padding only has −∞. Each number is a tensor shaped like the map, of size 1 along every
dimension in which it is constant; so an operation that moves values about moves windows by being run on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
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


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of the image: [start, stop) in pixels for each position of the map; (0, 0) if empty.

    Of length 1 where the units have no position along this axis.
    """

    start: Tensor
    stop: Tensor

    def at(self, position: int) -> tuple[int, int]:
        """[start, stop) of the units at a position."""
        position = position if len(self.start) > 1 else 0
        return int(self.start[position]), int(self.stop[position])

    @property
    def size(self) -> int:
        """The largest window."""
        return int((self.stop - self.start).max())


@dataclass(frozen=True)
class Windows:
    """The windows of every unit of a map, and where on the image its positions lie.

    `strict` and `local` hold (−top, −left, bottom, right); `centres` the middle of each position's window as if the
    image had no borders, (down, right). Each has the map's number of dimensions.
    """

    strict: tuple[Tensor, ...]
    local: tuple[Tensor, ...]
    centres: tuple[Tensor, ...]

    def each(self, change: Callable[[Tensor], Tensor]) -> Windows:
        """The same change to every number."""
        strict = tuple(map(change, self.strict))
        local = strict if self.local is self.strict else tuple(map(change, self.local))
        return Windows(strict, local, tuple(map(change, self.centres)))

    def over(self, dims: Iterable[int]) -> Windows:
        """The union along dimensions, which stay with size 1."""
        chosen = tuple(dims)
        return self.each(lambda edge: edge.amax(chosen, keepdim=True)) if chosen else self

    def whole(self) -> Windows:
        """The union of all."""
        return self.over(range(self.strict[0].ndim))

    def __or__(self, other: Windows) -> Windows:
        if other is self:
            return self
        strict = tuple(map(torch.maximum, self.strict, other.strict))
        same = self.local is self.strict and other.local is other.strict
        local = strict if same else tuple(map(torch.maximum, self.local, other.local))
        return Windows(strict, local, tuple(map(_centred, self.centres, other.centres)))

    def reaching(self, more: Windows) -> Windows:
        """These windows, to whose strict ones others are added: what gates bring in."""
        return Windows((self | more).strict, self.local, self.centres)

    def shaped(self, ndim: int) -> Windows:
        """With leading dimensions of size 1."""
        missing = ndim - self.strict[0].ndim
        return self.each(lambda edge: edge[(None,) * missing]) if missing > 0 else self


def _centred(one: Tensor, two: Tensor) -> Tensor:
    """Of two maps' centres those that tell positions apart; what is the same everywhere has none to speak of."""
    if one.numel() != two.numel():
        return one if one.numel() > two.numel() else two
    return torch.maximum(one, two)


@dataclass(frozen=True)
class Field:
    """The window of the image that the units of a map can depend on: bounding, inside the image, borders exact.

    `rows` and `columns` are the strict windows: nothing outside has any influence. `local_rows` and `local_columns`
    leave out what reaches a unit through factors that are the same at every position (the gates of squeeze and
    excitation, the statistics of a normalisation over the map); they differ from the strict ones where `gated`.
    The units of all channels at a position are taken together.

    Args:
        shape: the tensor's shape, for one image.
        windows: the windows unit by unit, as the lens carried them.
    """

    shape: tuple[int, ...]
    windows: Windows

    @cached_property
    def rows(self) -> Axis:
        """Strict windows from top to bottom."""
        return self._axis(self.windows.strict, 0)

    @cached_property
    def columns(self) -> Axis:
        """Strict windows from left to right."""
        return self._axis(self.windows.strict, 1)

    @cached_property
    def local_rows(self) -> Axis:
        """Local windows from top to bottom."""
        return self._axis(self.windows.local, 0)

    @cached_property
    def local_columns(self) -> Axis:
        """Local windows from left to right."""
        return self._axis(self.windows.local, 1)

    @property
    def gated(self) -> bool:
        """Whether a factor that is the same everywhere brings in more of the image than the local window."""
        if self.windows.local is self.windows.strict:
            return False
        pairs = ((self.rows, self.local_rows), (self.columns, self.local_columns))
        return any(
            not (torch.equal(strict.start, local.start) and torch.equal(strict.stop, local.stop))
            for strict, local in pairs
        )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the largest strict window, in pixels."""
        return self.rows.size, self.columns.size

    @property
    def local_size(self) -> tuple[int, int]:
        """(height, width) of the largest local window, in pixels."""
        return self.local_rows.size, self.local_columns.size

    @cached_property
    def stride(self) -> tuple[float, float]:
        """Pixels from one position to the next, (down, right), in the middle of the map; 0 if there is but one."""
        steps = []
        for centre, dim in zip(self.windows.centres, self._dims, strict=True):
            line = centre.amax([other for other in range(centre.ndim) if other != dim]) if dim is not None else [0.0]
            middle = (len(line) - 1) // 2
            steps.append(float(line[middle + 1] - line[middle]) if len(line) > 1 else 0.0)
        return steps[0], steps[1]

    def window(self, y: int, x: int, *, local: bool = False) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the units at row y and column x; all 0 where they see padding only."""
        rows, columns = (self.local_rows, self.local_columns) if local else (self.rows, self.columns)
        (top, bottom), (left, right) = rows.at(y), columns.at(x)
        return (top, left, bottom, right) if bottom > top and right > left else (0, 0, 0, 0)

    @cached_property
    def _dims(self) -> tuple[int | None, int | None]:
        """Which dimension is which axis: the one along which the positions' centres move."""
        down, right = ({dim for dim in range(centre.ndim) if centre.shape[dim] > 1} for centre in self.windows.centres)
        # along a dimension that moves both ways lie no rows or columns
        return self._most(0, down - right), self._most(1, right - down)

    def _most(self, which: int, dims: set[int]) -> int | None:
        """The dimension that moves furthest; of a map that was cut up into more than four dimensions none."""
        if len(dims) > 1 and len(self.shape) > 4:
            return None
        centre = self.windows.centres[which]
        return max(dims, key=lambda dim: float((centre.amax(dim) - centre.amin(dim)).mean()), default=None)

    def _axis(self, edges: tuple[Tensor, ...], which: int) -> Axis:
        dim = self._dims[which]

        def along(edge: Tensor) -> Tensor:
            if dim is None:
                return edge.amax().view(1)
            rest = [other for other in range(edge.ndim) if other != dim]
            return (edge.amax(rest) if rest else edge).expand(self.shape[dim])

        low, high = -along(edges[which]), along(edges[which + 2])
        empty = ~(high > low)
        return Axis(low.masked_fill(empty, 0).long(), high.masked_fill(empty, 0).long())


#: from a call, its result and the windows of its tensors (None for constants) to the windows of the result
Rule = Callable[[Call, Any, Callable[[Any], Windows | None]], Windows | list[Windows] | None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how an operation, by its name in the vocabulary or else by its function's, passes windows on.

    The rule gets the call (`call.arguments` by name), its result and a function from tensors to their `Windows`, and
    answers the result's: one, or a list of them where the result is a tuple.

    >>> @rule("cumsum")
    ... def _running(call, result, windows):
    ...     return windows(call.arguments["input"]).whole()
    >>> "cumsum" in RULES
    True
    >>> del RULES["cumsum"]
    """

    def register(made: Rule) -> Rule:
        for name in names:
            RULES[name] = made
        return made

    return register


class ReceptiveField(Lens):
    """Carries each unit's window of the image through a pass of one image; `fields` has them by address."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.fields: dict[str, Field] = {}
        self._windows = WeakTensorKeyDictionary()

    def entered(self, inputs: tuple[Any, ...]) -> None:
        for images in ops.tensors(inputs):
            if images.ndim == 4:
                height, width = images.shape[2:]
                y = torch.arange(height, dtype=torch.float32).view(1, 1, height, 1)
                x = torch.arange(width, dtype=torch.float32).view(1, 1, 1, width)
                strict = (-y, -x, y + 1, x + 1)
                self._windows[images] = Windows(strict, strict, (y + 0.5, x + 0.5))

    def follows(self, *values: Any) -> bool:
        return any(tensor in self._windows for tensor in ops.tensors(values))

    def operation(self, call: Call) -> Any:
        if not self.follows(call.args, call.kwargs):
            return call.run()
        known = RULES.get(call.op)
        if known is None:
            raise self.unknown(call.op)
        result = self._carry(call, known)
        self._record(call.address, result)
        return result

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = ops.named(func)
        known = _together if ops.is_comparison(func) else RULES.get(name)
        if known is None or not self.follows(args, kwargs):
            return super().other(func, args, kwargs)
        raw = getattr(func, "__name__", "")
        in_place = raw.endswith("_") and not raw.endswith("__")
        written = Spelling(name, "arithmetic", (("input", None),), "rest", in_place)
        return self._carry(Call(written, func, args, kwargs, "", f":{name}", -1), known)

    def output(self, address: str, result: Any) -> Any:
        self._record(address, result)
        return result

    def _carry(self, call: Call, known: Rule) -> Any:
        given = {id(tensor): (tensor, tuple(tensor.shape), self._windows.get(tensor)) for tensor in call.tensors()}
        result = call.run()
        found = known(call, result, lambda tensor: given[id(tensor)][2] if id(tensor) in given else None)
        made = [found] if isinstance(found, Windows) else found or []
        before = {id(windows) for _, _, windows in given.values()}
        answers = [call.arguments["input"]] if result is None and call.in_place else ops.tensors(result)
        for tensor, windows in zip(answers, made, strict=False):
            compact = windows if id(windows) in before else _compact(windows)
            if call.in_place and id(tensor) in given and compact is not self._windows.get(tensor):
                self._rewrite(tensor, compact)
            self._windows[tensor] = compact
        return result

    def _rewrite(self, written: Tensor, windows: Windows) -> None:
        """Give what shares memory with an overwritten tensor its new windows."""
        memory = written.untyped_storage().data_ptr()
        for other, old in list(self._windows.items()):
            if other is not written and other.numel() and other.untyped_storage().data_ptr() == memory:
                self._windows[other] = _compact(_seen_through(other, old, written, windows))

    def _record(self, address: str, result: Any) -> None:
        windows = self._windows.get(result) if isinstance(result, Tensor) else None
        if windows is not None:
            self.fields[address] = Field(tuple(result.shape), windows)


def receptive_fields(net: Classifier) -> dict[str, Field]:
    """The window of every unit of every operation and module output that is one tensor, by address.

    One forward pass of one image. Raises `UnknownOperation` for an operation without a rule.

    >>> import torch
    >>> layers = [torch.nn.Conv2d(3, 2, 3), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.LazyLinear(2)]
    >>> net = Classifier(torch.nn.Sequential(*layers), size=8)
    >>> field = receptive_fields(net)["1"]
    >>> field.size, field.stride, field.window(0, 1)
    ((4, 4), (2.0, 2.0), (0, 2, 4, 6))
    """
    lens = ReceptiveField(net.module)
    with torch.no_grad():
        net.logits(torch.full((1, 3, *net.size), 0.5), lambda: lens)
    if not lens.fields:
        raise UnknownOperation(
            f"the receptive-field lens sees no operation of {net.name}; a scripted module hides them: "
            "load the module that it was made from"
        )
    return lens.fields


# Windows in memory


def _compact(windows: Windows) -> Windows:
    return windows.each(_narrow)


def _narrow(edge: Tensor) -> Tensor:
    """Size 1 along every dimension in which the values are constant."""
    for dim in range(edge.ndim):
        if edge.shape[dim] > 1:
            first = edge.narrow(dim, 0, 1)
            if edge.stride(dim) == 0 or bool((edge == first).all()):
                edge = first
    return edge


def _seen_through(view: Tensor, old: Windows, written: Tensor, new: Windows) -> Windows:
    """Windows of a view, after another view of the same memory was overwritten."""
    if (view.shape, view.stride(), view.storage_offset()) == (
        written.shape,
        written.stride(),
        written.storage_offset(),
    ):
        return new
    length = written.untyped_storage().nbytes() // written.element_size()

    def through(before: Tensor, after: Tensor) -> Tensor:
        memory = torch.full((length,), -math.inf)
        for tensor, edge in ((view, before), (written, after)):
            memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(edge)
        return memory.as_strided(view.shape, view.stride(), view.storage_offset()).clone()

    strict = tuple(map(through, old.strict, new.strict))
    local = strict if old.local is old.strict and new.local is new.strict else tuple(map(through, old.local, new.local))
    return Windows(strict, local, tuple(map(through, old.centres, new.centres)))


# Rules: those that leave windows as they are, and unions


@rule(
    *(op for op, (kind, _) in ops.VOCABULARY.items() if kind == "rectifier"),
    *("sigmoid", "hardsigmoid", "logsigmoid", "tanh"),
    *("add", "sub", "rsub", "rdiv", "addcmul", "where", "masked_fill"),
    *("neg", "abs", "pow", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "erf"),
    *("contiguous", "clone", "detach", "to", "type_as", "float"),
    *("dropout", "dropout2d", "alpha_dropout", "feature_dropout"),
)
def _together(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> Windows | None:
    """Each unit from the units at its place, broadcast."""
    found: Windows | None = None
    ndim = next(ops.tensors(result)).ndim
    for given in map(windows, call.tensors()):
        if given is not None:
            found = given.shaped(ndim) if found is None else found | given.shaped(ndim)
    return found


@rule("mul", "div")
def _product(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    """The union; the local window leaves out a factor that is the same at every position."""
    left, right = call.arguments["input"], call.arguments["other"]
    one, two = windows(left), windows(right)
    if one is None or two is None:
        found = one if two is None else two
        return None if found is None else found.shaped(result.ndim)
    one, two = one.shaped(result.ndim), two.shaped(result.ndim)
    if _gates(right, two, one):
        return one.reaching(two)
    if call.op == "mul" and _gates(left, one, two):
        return two.reaching(one)
    return one | two


def _gates(factor: Tensor, its: Windows, other: Windows) -> bool:
    """Whether a factor's values are constant along two dimensions in which the other's positions lie."""
    if any(edge.numel() > 1 for edge in its.local):
        return False
    ndim = other.local[0].ndim
    lead = ndim - factor.ndim
    constant = {
        dim for dim in range(ndim) if dim < lead or factor.shape[dim - lead] == 1 or not factor.stride(dim - lead)
    }
    rows, columns = ({dim for dim in constant if centre.shape[dim] > 1} for centre in other.centres)
    return bool(rows) and bool(columns)


# Rules: sliding windows


@dataclass(frozen=True)
class Taps:
    """Which input places each output place sees along a dimension: (out, k) indices and which of them count.

    `middles` are their middles, (out,), as if there were places past the borders.
    """

    places: Tensor
    valid: Tensor
    middles: Tensor

    @staticmethod
    def of(pattern: Tensor, middles: Tensor) -> Taps:
        """Of a pattern (out, in) that is true where an output place sees an input place."""
        valid, places = pattern.to(torch.uint8).topk(max(1, int(pattern.sum(1).max())), dim=1)
        return Taps(places, valid.bool(), middles)


def _slide(edge: Tensor, dim: int, length: int, taps: Taps, always: bool) -> Tensor:
    """The maximum over the places that each output place sees along a dimension."""
    if edge.shape[dim] == 1:
        if not always:
            return edge
        edge = edge.expand(*(length if d == dim % edge.ndim else n for d, n in enumerate(edge.shape)))
    line = edge.movedim(dim, -1)[..., taps.places]
    return line.masked_fill_(~taps.valid, -math.inf).amax(-1).movedim(-1, dim)


def _centre(centre: Tensor, dim: int, length: int, middles: Tensor) -> Tensor:
    """Centres at fractional places along a dimension, extended in a straight line past the borders."""
    if centre.shape[dim] == 1:
        return centre
    line = centre.movedim(dim, -1)
    low = middles.floor().clamp(0, length - 2).long()
    before, after = line[..., low], line[..., low + 1]
    return (before + (after - before) * (middles - low)).movedim(-1, dim)


def _sliding(
    windows: Windows, tensor: Tensor, last: list[Taps], channels: Callable[[Tensor], Tensor] | None = None
) -> Windows:
    """Windows after an operation that slides along the last dimensions, and takes channels together or not."""
    n = len(last)
    if channels is not None:
        windows = windows.each(channels)

    def moved(edges: tuple[Tensor, ...], own: bool) -> tuple[Tensor, ...]:
        found = []
        for which, edge in enumerate(edges):
            for axis, taps in enumerate(last):
                dim = edge.ndim - n + axis
                length = tensor.shape[dim]
                if own:
                    edge = _slide(edge, dim, length, taps, n == 1 or axis == which % 2)
                else:
                    edge = _centre(edge, dim, length, taps.middles)
            found.append(edge)
        return tuple(found)

    strict = moved(windows.strict, True)
    local = strict if windows.local is windows.strict else moved(windows.local, True)
    return Windows(strict, local, moved(windows.centres, False))


@lru_cache(maxsize=512)
def _kernel(length: int, out: int, size: int, stride: int, pad: int, dilation: int) -> Taps:
    starts = torch.arange(out) * stride - pad
    apart = torch.arange(length)[None, :] - starts[:, None]
    pattern = (apart >= 0) & (apart <= (size - 1) * dilation) & (apart % dilation == 0)
    return Taps.of(pattern, starts + (size - 1) * dilation / 2)


@lru_cache(maxsize=512)
def _transposed(length: int, out: int, size: int, stride: int, pad: int, dilation: int) -> Taps:
    apart = torch.arange(out)[:, None] + pad - torch.arange(length)[None, :] * stride
    pattern = (apart >= 0) & (apart <= (size - 1) * dilation) & (apart % dilation == 0)
    return Taps.of(pattern, (torch.arange(out) + pad - (size - 1) * dilation / 2) / stride)


def _pair(value: Any, n: int, default: Any = None) -> list[Any]:
    if value is None or (isinstance(value, tuple | list) and not value):
        value = default
    values = list(value) if isinstance(value, tuple | list) else [value]
    return values * n if len(values) == 1 else values


@rule("conv1d", "conv2d")
def _conv(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    given = call.arguments
    image, weight = given["input"], given["weight"]
    seen = windows(image)
    if seen is None:  # an image-dependent kernel
        raise UnknownOperation(f"the receptive-field lens has no rule for {call.op} of a constant by a computed kernel")
    n = weight.ndim - 2
    stride, dilation = _pair(given["stride"], n), _pair(given["dilation"], n)
    sizes = list(weight.shape[2:])
    if given["padding"] == "same":
        pads = [(size - 1) * apart // 2 for size, apart in zip(sizes, dilation, strict=True)]
    else:
        pads = [0] * n if given["padding"] == "valid" else _pair(given["padding"], n)
    taps = [
        _kernel(image.shape[axis - n], result.shape[axis - n], sizes[axis], stride[axis], pads[axis], dilation[axis])
        for axis in range(n)
    ]
    slid = _sliding(seen, image, taps, _grouped(n, given["groups"], image, result.shape[-n - 1]))
    kernel = windows(weight)
    return slid if kernel is None else slid | kernel.whole().shaped(result.ndim)


def _grouped(n: int, groups: int, image: Tensor, outputs: int) -> Callable[[Tensor], Tensor]:
    """Union over the channels of each group."""
    dim = image.ndim - n - 1

    def union(edge: Tensor) -> Tensor:
        if edge.shape[dim] == 1:
            return edge
        if groups == 1:
            return edge.amax(dim, keepdim=True)
        return edge.unflatten(dim, (groups, -1)).amax(dim + 1).repeat_interleave(outputs // groups, dim)

    return union


@rule("conv_transpose2d")
def _conv_transpose(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    given = call.arguments
    image, weight = given["input"], given["weight"]
    seen = windows(image)
    if seen is None:
        raise UnknownOperation(f"the receptive-field lens has no rule for {call.op} of a constant by a computed kernel")
    stride, pads, apart = (_pair(given[name], 2) for name in ("stride", "padding", "dilation"))
    taps = [
        _transposed(
            image.shape[axis - 2], result.shape[axis - 2], weight.shape[2 + axis], stride[axis], pads[axis], apart[axis]
        )
        for axis in range(2)
    ]
    return _sliding(seen, image, taps, _grouped(2, given["groups"], image, result.shape[-3]))


@rule("max_pool2d", "avg_pool2d", "lp_pool2d")
def _pool(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> list[Windows] | None:
    given = call.arguments
    image = given["input"]
    seen = windows(image)
    pooled = next(ops.tensors(result))
    size = _pair(given["kernel_size"], 2)
    stride = _pair(given["stride"], 2, size)
    pads, apart = _pair(given.get("padding", 0), 2), _pair(given.get("dilation", 1), 2)
    taps = [
        _kernel(image.shape[axis - 2], pooled.shape[axis - 2], size[axis], stride[axis], pads[axis], apart[axis])
        for axis in range(2)
    ]
    return None if seen is None else [_sliding(seen, image, taps)]


@rule("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> list[Windows] | None:
    image = call.arguments["input"]
    seen = windows(image)
    pooled = next(ops.tensors(result))
    taps = []
    for axis in (-2, -1):
        length, out = image.shape[axis], pooled.shape[axis]
        place = torch.arange(out)
        first, end = place * length // out, -((-(place + 1) * length) // out)
        inside = torch.arange(length)[None, :]
        taps.append(Taps.of((inside >= first[:, None]) & (inside < end[:, None]), (first + end - 1) / 2))
    return None if seen is None else [_sliding(seen, image, taps)]


@rule("interpolate")
def _interpolate(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    given = dict(call.arguments)
    image = given["input"]
    seen = windows(image)
    if seen is None:
        return None
    scales = given.get("scale_factor")
    keeps = given.get("recompute_scale_factor")
    taps = []
    for axis in range(2):
        length, out = image.shape[axis - 2], result.shape[axis - 2]
        # resizing is linear and separable: what it makes of unit impulses says who sees whom
        scale = None if scales is None or keeps else (float(_pair(scales, 2)[axis]), 1.0)
        options = {"align_corners": given["align_corners"]} if given["mode"] in ("bilinear", "bicubic") else {}
        weights = F.interpolate(
            torch.eye(length, dtype=torch.float64).view(1, length, length, 1),
            size=(out, 1) if scale is None else None,
            scale_factor=scale,
            mode=given["mode"],
            antialias=bool(given.get("antialias")),
            **options,
        )[0, :, :, 0].T
        places = torch.arange(length, dtype=torch.float64)
        taps.append(Taps.of(weights != 0, (weights @ places / weights.sum(1)).float()))
    return _sliding(seen, image, taps)


# Rules: dimensions that are taken together


def _dims(given: Any, ndim: int) -> list[int]:
    if given is None or isinstance(given, bool) or (isinstance(given, tuple | list) and not given):
        return list(range(ndim))
    return [dim % ndim for dim in (given if isinstance(given, tuple | list) else (given,))]


@rule("mean", "sum", "amax", "amin", "max", "min", "var", "std", "norm")
def _reduce(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> Windows | list[Windows] | None:
    given = call.arguments
    if isinstance(given["dim"], Tensor):  # torch.max(one, other)
        return _together(call, result, windows)
    seen = windows(given["input"])
    if seen is None:
        return None
    ndim = given["input"].ndim
    dims = _dims(given["dim"], ndim)
    seen = seen.over(dims)
    if next(ops.tensors(result)).ndim < ndim:
        kept = [dim for dim in range(ndim) if dim not in dims]
        seen = seen.each(lambda edge: edge.reshape([edge.shape[dim] for dim in kept]))
    return [seen] * len(list(ops.tensors(result)))


@rule("softmax", "log_softmax", "normalize")
def _normalised(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    """Each unit from all along the dimension."""
    given = call.arguments
    seen = windows(given["input"])
    dim = given["dim"]
    if dim is None:  # as torch guesses it for softmax
        dim = 0 if result.ndim in (0, 1, 3) else 1
    return None if seen is None else seen.over(_dims(dim, result.ndim))


@rule("layer_norm", "rms_norm")
def _layer_norm(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    seen = windows(call.arguments["input"])
    normalized = call.arguments["normalized_shape"]
    count = len(normalized) if isinstance(normalized, tuple | list | torch.Size) else 1
    return None if seen is None else _by_statistics(seen, range(result.ndim - count, result.ndim))


@rule("group_norm", "instance_norm")
def _group_norm(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    seen = windows(call.arguments["input"])
    if seen is None or not call.arguments.get("use_input_stats", True):
        return seen
    return _by_statistics(seen, range(2 if call.op == "instance_norm" else 1, result.ndim))


@rule("batch_norm")
def _batch_norm(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    """Statistics learned in training are constants; those of the batch are the map's own."""
    seen = windows(call.arguments["input"])
    if seen is None or not call.arguments["training"]:
        return seen
    return _by_statistics(seen, range(2, result.ndim))


def _by_statistics(seen: Windows, dims: Iterable[int]) -> Windows:
    """Normalised by statistics along dimensions: a union over channels, and a gate over positions."""
    chosen = list(dims)
    united = seen.over(chosen)
    if any(centre.shape[dim] > 1 for centre in seen.centres for dim in chosen):
        return seen.reaching(united)
    return united


@rule("local_response_norm")
def _local_response(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    seen = windows(call.arguments["input"])
    if seen is None:
        return None
    channels, size = result.shape[1], int(call.arguments["size"])
    taps = _kernel(channels, channels, size, 1, size // 2, 1)
    return seen.each(lambda edge: _slide(edge, 1, channels, taps, always=False))


@rule("glu")
def _glu(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    given = call.arguments
    seen = windows(given["input"])
    dim, length = given["dim"], given["input"].shape[given["dim"]]

    def halves(edge: Tensor) -> Tensor:
        return torch.maximum(*edge.chunk(2, dim)) if edge.shape[dim] == length and length > 1 else edge

    return None if seen is None else seen.each(halves)


@rule("linear")
def _linear(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    seen = windows(call.arguments["input"])
    if seen is not None:
        seen = seen.over([call.arguments["input"].ndim - 1])
    weight = windows(call.arguments["weight"])
    if weight is None:
        return seen
    weight = weight.whole().shaped(result.ndim)
    return weight if seen is None else seen | weight


@rule("matmul", "bmm", "addmm")
def _matmul(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    given = call.arguments
    pairs = ((given["input"], -1), (given["mat2"] if "mat2" in given else given["other"], -2))
    found: Windows | None = None
    for tensor, dim in pairs:
        seen = windows(tensor)
        if seen is not None:
            if tensor.ndim == 1 or result.ndim < 2:
                seen = seen.whole().each(lambda edge: edge.reshape((1,) * result.ndim))
            else:
                seen = seen.over([tensor.ndim + dim]).shaped(result.ndim)
            found = seen if found is None else found | seen
    bias = windows(given.get("bias"))
    if bias is not None:
        found = bias.shaped(result.ndim) if found is None else found | bias.shaped(result.ndim)
    return found


@rule("einsum")
def _einsum(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    inputs, output = ops.subscripts(call)
    found: Windows | None = None
    for letters, tensor in zip(inputs, call.arguments["operands"], strict=True):
        seen = windows(tensor)
        if seen is None:
            continue
        if len(set(letters)) < len(letters):
            raise UnknownOperation(f"the receptive-field lens has no rule for einsum's diagonals ({letters})")
        seen = seen.over([dim for dim, letter in enumerate(letters) if letter not in output])
        kept = [letter for letter in output if letter in letters]

        def placed(edge: Tensor, letters: str = letters, kept: list[str] = kept) -> Tensor:
            order = [letters.index(letter) for letter in kept]
            order += [dim for dim in range(len(letters)) if letters[dim] not in output]
            edge = edge.permute(order).reshape([edge.shape[dim] for dim in order[: len(kept)]])
            for position, letter in enumerate(output):
                if letter not in letters:
                    edge = edge.unsqueeze(position)
            return edge

        seen = seen.each(placed)
        found = seen if found is None else found | seen
    return found


@rule("scaled_dot_product_attention")
def _attention(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    """Each query from itself, every key and every value."""
    found: Windows | None = None
    for name, dims in (("query", (-1,)), ("key", (-2, -1)), ("value", (-2,)), ("attn_mask", (-1,))):
        seen = windows(call.arguments[name])
        if seen is not None:
            ndim = call.arguments[name].ndim
            seen = seen.over([ndim + dim for dim in dims]).shaped(result.ndim)
            if call.arguments.get("enable_gqa"):
                seen = seen.over([result.ndim - 3])
            found = seen if found is None else found | seen
    return found


@rule("multi_head_attention_forward")
def _multi_head(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> list[Windows]:
    """Query (L, N, E), key and value (S, N, E); answers (L, N, E) and the weights (N, L, S)."""
    given = [windows(call.arguments[name]) for name in ("query", "key", "value")]
    one, *others = [seen for seen in given if seen is not None]
    last = one.strict[0].ndim - 1
    seen = one.over([last]) if given[0] is not None else one.over([0, last])
    whole = one.whole()
    for other in others:
        seen, whole = seen | other.over([0, last]), whole | other.whole()
    weights = next(ops.tensors(result[1]), None)
    return [seen] if weights is None else [seen, whole.shaped(weights.ndim)]


# Rules: layout


#: operations that keep the order of values in memory, and change the shape only
_SHAPES = frozenset({"flatten", "unflatten", "view", "view_as", "reshape", "reshape_as"})


def _on(call: Call, tensor: Tensor, result: Any, edge: Tensor) -> list[Tensor]:
    """What a layout operation makes of a number of the windows."""
    if call.op in _SHAPES:
        return [_reshaped(edge, tuple(tensor.shape), tuple(result.shape))]
    full = edge.expand(tensor.shape)

    def swap(value: Any) -> Any:
        return full if value is tensor else value

    made = call.func(*map(swap, call.args), **{key: swap(value) for key, value in call.kwargs.items()})
    return list(ops.tensors(made))


def _reshaped(edge: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Reshape a compact tensor as if it were full, leaving alone the dimensions that stay at either end."""
    shorter = min(len(old), len(new))
    head = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    tail = next((i for i in range(shorter - head) if old[-1 - i] != new[-1 - i]), shorter - head)
    shape = tuple(edge.shape)
    first, last = shape[:head], shape[len(shape) - tail :]
    return edge.expand(first + old[head : len(old) - tail] + last).reshape(first + new[head : len(new) - tail] + last)


@rule(
    *("flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "permute", "transpose", "t", "movedim"),
    *("chunk", "split", "unbind", "narrow", "select", "slice", "getitem", "index_select", "squeeze", "unsqueeze"),
    *("expand", "expand_as", "repeat", "roll", "flip", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
)
def _layout(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> list[Windows] | None:
    """Values are moved about, and their windows with them."""
    tensor = call.arguments["input"]
    seen = windows(tensor)
    if seen is None:
        return None
    if call.in_place:
        raise UnknownOperation(
            f"the receptive-field lens has no rule for {call.op}_ in place; write x = x.{call.op}(…)"
        )
    parts = [_on(call, tensor, result, edge) for edge in (*seen.strict, *seen.local, *seen.centres)]
    found = []
    for numbers in zip(*parts, strict=True):
        strict = numbers[:4]
        found.append(Windows(strict, strict if seen.local is seen.strict else numbers[4:8], numbers[8:]))
    return found


@rule("cat", "stack")
def _joined(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows:
    tensors = [tensor for tensor in call.arguments["tensors"] if tensor.numel() or tensor.ndim > 1]
    parts = [windows(tensor) or _nothing(tensor) for tensor in tensors]
    dim = call.arguments["dim"] % result.ndim
    local = any(part.local is not part.strict for part in parts)

    def joined(numbers: list[Tensor]) -> Tensor:
        if call.op == "stack":
            return torch.stack(torch.broadcast_tensors(*numbers), dim)
        along = [
            edge.expand(*(tensor.shape[dim] if d == dim else n for d, n in enumerate(edge.shape)))
            for edge, tensor in zip(numbers, tensors, strict=True)
        ]
        shape = [max(edge.shape[d] for edge in along) for d in range(result.ndim)]
        return torch.cat(
            [edge.expand(*(edge.shape[d] if d == dim else n for d, n in enumerate(shape))) for edge in along], dim
        )

    strict = tuple(joined(list(numbers)) for numbers in zip(*(part.strict for part in parts), strict=True))
    centres = tuple(joined(list(numbers)) for numbers in zip(*(part.centres for part in parts), strict=True))
    if not local:
        return Windows(strict, strict, centres)
    return Windows(strict, tuple(joined(list(n)) for n in zip(*(part.local for part in parts), strict=True)), centres)


def _nothing(tensor: Tensor) -> Windows:
    """The windows of a constant."""
    none = torch.full((1,) * tensor.ndim, -math.inf)
    return Windows((none,) * 4, (none,) * 4, (none,) * 2)


@rule("pad")
def _pad(call: Call, result: Tensor, windows: Callable[[Any], Windows | None]) -> Windows | None:
    given = call.arguments
    tensor, pads, mode = given["input"], list(given["pad"]), given["mode"]
    seen = windows(tensor)
    if seen is None:
        return None

    def padded(edge: Tensor) -> Tensor:
        full = edge.expand(tensor.shape)
        return F.pad(full, pads, mode) if mode != "constant" else F.pad(full, pads, value=-math.inf)

    def extended(centre: Tensor) -> Tensor:
        for position, (low, high) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
            dim = tensor.ndim - 1 - position
            length = tensor.shape[dim]
            centre = _centre(centre, dim, length, torch.arange(-low, length + high, dtype=torch.float32))
        return centre

    edges = [tuple(map(padded, each)) for each in (seen.strict, seen.local)]
    if seen.local is seen.strict:
        edges[1] = edges[0]
    return Windows(edges[0], edges[1], tuple(map(extended, seen.centres)))


@rule("setitem", "copy")
def _written(call: Call, result: Any, windows: Callable[[Any], Windows | None]) -> Windows | None:
    target = call.arguments["input"]
    value = call.arguments["value" if call.op == "setitem" else "other"]
    index = call.arguments["index"] if call.op == "setitem" else ...
    seen = windows(target) or _nothing(target)
    given = windows(value) or _nothing(value if isinstance(value, Tensor) else target.new_empty(()))
    shape = value.shape if isinstance(value, Tensor) else ()

    def put(into: Tensor, edge: Tensor) -> Tensor:
        full = into.expand(target.shape).clone()
        full[index] = edge.expand(shape)
        return full

    strict = tuple(map(put, seen.strict, given.strict))
    same = seen.local is seen.strict and given.local is given.strict
    local = strict if same else tuple(map(put, seen.local, given.local))
    return Windows(strict, local, tuple(map(put, seen.centres, given.centres)))
