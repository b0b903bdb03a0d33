"""The incremental lens: what an occlusion changes, and nothing else, computed against the clean pass.

One clean pass is recorded as a tape of operations. For each position that a window takes along the rows and along the
columns, the tape knows which interval of each map changes. Run for a batch of positions, it computes only those
intervals; what lies around them comes from the clean maps. The result is the dense pass's, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy.classifier import Classifier
from seewhy.engine import count, out_of_memory
from seewhy.errors import UnknownOperation
from seewhy.lens import cost, ops
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call

Ints = np.ndarray[Any, np.dtype[np.int64]]

#: the share of a map from which on the whole of it is computed: what is left does not pay for gathering
FULL = 0.95


class Spans(NamedTuple):
    """For each position of the window along one axis, the interval [low, high) of a map of `size` that it changes."""

    low: Ints
    high: Ints
    size: int

    def clamped(self) -> Spans:
        """Inside the map, and never empty: what is computed for nothing is right all the same."""
        low = np.clip(self.low, 0, self.size - 1)
        return Spans(low, np.clip(self.high, low + 1, self.size), self.size)

    def shifted(self, by: int, size: int) -> Spans:
        return Spans(self.low + by, self.high + by, size)

    def __or__(self, other: Spans) -> Spans:
        if self is other:
            return self
        return Spans(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.size)

    def all(self) -> Spans:
        return Spans(np.zeros_like(self.low), np.full_like(self.high, self.size), self.size)


@dataclass(frozen=True)
class _Sliding:
    """How a convolution or pooling slides along one axis."""

    kernel: int
    stride: int
    before: int
    dilation: int

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1)

    def touched(self, spans: Spans, size: int) -> Spans:
        """The outputs that read any of the inputs."""
        low = -((self.reach - self.before - spans.low) // self.stride)
        return Spans(low, (spans.high - 1 + self.before) // self.stride + 1, size).clamped()

    def needed(self, outputs: int) -> int:
        """How many inputs so many outputs read."""
        return (outputs - 1) * self.stride + self.reach + 1

    def after(self, size: int, outputs: int) -> int:
        """How many inputs the last output reads past the end."""
        return max(0, self.needed(outputs) - self.before - size)


@dataclass(eq=False)
class Value:
    """A tensor of the clean pass: which of its dimensions are rows and columns, and what changes along them.

    Without `axes` it is no map of the image, and all of it may change.
    """

    clean: Tensor | None
    shape: tuple[int, ...]
    axes: tuple[int, int] | None = None
    rows: Spans | None = None
    columns: Spans | None = None
    uses: int = 0
    _lines: dict[tuple[int, int, int, int, float], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.clean is not None:  # a handle of its own: the network's may be given other contents
            self.clean = self.clean.detach()

    def lines(self, pads: tuple[int, int, int, int], fill: float) -> Tensor:
        """The clean map as (rows, columns, rest), padded by (top, bottom, left, right); made once."""
        found = self._lines.get((*pads, fill))
        if found is None:
            if self.clean is None or self.axes is None:
                raise RuntimeError("a clean map was given away that is needed")
            found = self.clean[0].movedim([axis - 1 for axis in self.axes], (0, 1))
            if any(pads):
                found = F.pad(found, (0, 0) * (found.ndim - 2) + (pads[2], pads[3], pads[0], pads[1]), value=fill)
            found = self._lines[(*pads, fill)] = found.contiguous()
        return found


class Place(NamedTuple):
    """Where the windows of a batch lie on a map: corners (n,) and one size for all."""

    top: Ints
    left: Ints
    height: int
    width: int
    full: bool

    def same(self, other: Place) -> bool:
        return (
            self.height == other.height
            and self.width == other.width
            and (self.full or (np.array_equal(self.top, other.top) and np.array_equal(self.left, other.left)))
        )


class Piece(NamedTuple):
    """A value for a batch of positions: what is in its windows. `own`: nothing else reads this memory."""

    data: Tensor
    place: Place | None
    own: bool = False


class Batch:
    """Positions that are computed together: indices into the positions along the rows and the columns."""

    def __init__(self, rows: Ints, columns: Ints) -> None:
        self.rows, self.columns = rows, columns
        self.zeros = np.zeros_like(rows)
        self._places: dict[tuple[int, int], Place] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, value: Value, full: bool = False) -> Place:
        """The windows that hold what changes in a value: all of the size of the largest."""
        if value.rows is None or value.columns is None:
            raise RuntimeError("a value that is no map has no windows")
        if full:
            return Place(self.zeros, self.zeros, value.rows.size, value.columns.size, True)
        key = (id(value.rows), id(value.columns))
        found = self._places.get(key)
        if found is None:
            top, height = _corner(value.rows, self.rows)
            left, width = _corner(value.columns, self.columns)
            found = Place(top, left, height, width, False)
            if height * width >= FULL * value.rows.size * value.columns.size:
                found = self.place(value, full=True)
            self._places[key] = found
        return found


def _corner(spans: Spans, chosen: Ints) -> tuple[Ints, int]:
    low, high = spans.low[chosen], spans.high[chosen]
    length = int((high - low).max())
    return np.minimum(low, spans.size - length), length


Run = Callable[[Batch, list[Piece]], list[Piece]]


@dataclass(eq=False)
class Step:
    """One operation of the tape. `gathers`: it reads the clean maps of its inputs."""

    op: str
    inputs: list[Value]
    outputs: list[Value]
    run: Run
    multiply_adds: int
    gathers: bool
    convolution: _Convolution | None = None
    norm: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class _Hole:
    """Stands in a call's arguments for the input of that number."""

    index: int


class _Plain:
    """A call whose arguments that depend on the image are left open."""

    def __init__(
        self, func: Callable[..., Any], args: Any, kwargs: Any, find: Callable[[Tensor], Value | None]
    ) -> None:
        self.inputs: list[Value] = []
        self._find = find
        self.func, self.args, self.kwargs = func, self._open(args), self._open(kwargs)
        del self._find

    def _open(self, given: Any) -> Any:
        if isinstance(given, Tensor):
            value = self._find(given)
            if value is None:
                return given
            self.inputs.append(value)
            return _Hole(len(self.inputs) - 1)
        return _each(given, self._open)

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        def fill(given: Any) -> Any:
            return tensors[given.index] if isinstance(given, _Hole) else _each(given, fill)

        return self.func(*fill(self.args), **fill(self.kwargs))

    def constants(self) -> Iterator[Tensor]:
        return ops.tensors((self.args, self.kwargs))


def _each(given: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(given, tuple | list) and not hasattr(given, "_fields"):
        return type(given)(change(part) for part in given)
    return {key: change(part) for key, part in given.items()} if isinstance(given, dict) else given


def fetch(
    value: Value, piece: Piece, want: Place, pads: tuple[int, int, int, int] = (0, 0, 0, 0), fill: float = 0.0
) -> Piece:
    """The windows `want` of a value: clean, with what changed pasted in. They may reach `pads` beyond the map.

    One gather for the whole batch, and one copy for each run of positions whose windows lie alike in the wanted ones.
    """
    place = piece.place
    if place is None or value.axes is None:
        raise RuntimeError("a value that is no map has no windows")
    if place.same(want):
        return Piece(piece.data, want, piece.own and value.uses == 1)
    lines = value.lines(pads, fill)
    height, width, *rest = lines.shape
    if want.height == height and want.width == width:
        made = lines.expand(len(want.top), *lines.shape).clone(memory_format=torch.contiguous_format)
    else:
        down = (want.top + pads[0])[:, None] + np.arange(want.height)
        right = (want.left + pads[2])[:, None] + np.arange(want.width)
        index = torch.from_numpy((down[:, :, None] * width + right[:, None, :]).reshape(-1)).to(lines.device)
        made = lines.view(height * width, -1).index_select(0, index)
        made = made.view(len(want.top), want.height, want.width, *rest)
    new = piece.data.movedim(value.axes, (1, 2))
    offsets = np.stack([place.top - want.top, place.left - want.left], 1)
    starts = [0, *(np.flatnonzero((offsets[1:] != offsets[:-1]).any(1)) + 1).tolist(), len(offsets)]
    for start, stop in pairwise(starts):
        down_by, right_by = offsets[start].tolist()
        a, b = max(down_by, 0), min(down_by + place.height, want.height)
        c, d = max(right_by, 0), min(right_by + place.width, want.width)
        if b > a and d > c:
            made[start:stop, a:b, c:d] = new[start:stop, a - down_by : b - down_by, c - right_by : d - right_by]
    return Piece(made.movedim((1, 2), value.axes), want, own=True)


def whole(value: Value, piece: Piece, batch: Batch) -> Tensor:
    """A value in full for each position."""
    return piece.data if piece.place is None else fetch(value, piece, batch.place(value, full=True)).data


Rule = Callable[["Incremental", Call, _Plain, Any], "Step | None"]

#: for each operation how it is computed in windows; None, or no rule: from there on in full, which is always right
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how an operation is computed in windows, by its name in the vocabulary or else by its function's."""

    def register(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, made))
        return made

    return register


class Incremental(Lens):
    """Records one pass as a tape; `rows` and `columns` are the intervals of the image that each position changes."""

    needs = "neither"

    def __init__(self, net: Classifier, image: Tensor, rows: Spans, columns: Spans) -> None:
        super().__init__(net.module)
        self.steps: list[Step] = []
        self._values: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        with torch.no_grad(), net.session(), net.engine.autocast():
            given = net.normalise(image)
            self.image = self._values[given] = Value(given, tuple(given.shape), (2, 3), rows, columns)
            count(forward=1)
            with self:
                logits = net._unwrap(net.module(given))
        if logits not in self._values:
            raise self.unknown("that makes its answer", ": it is not seen to depend on the image")
        self.logits: Value = self._values[logits]
        self.logits.uses += 1
        self.clean = logits.float()
        self._fold()
        self._forget()

    # Recording

    def follows(self, *values: Any) -> bool:
        return any(tensor in self._values for tensor in ops.tensors(values))

    def operation(self, call: Call) -> Any:
        if not self.follows(call.args, call.kwargs):
            return call.run()
        if "dropout" in call.op and not (call.arguments.get("training") or call.arguments.get("train")):
            return call.run()  # nothing, in place or not
        if not call.in_place:
            return self._record(call, partial(call.func, *call.args, **call.kwargs))
        target = call.arguments.get("input")
        elsewhere = call.elsewhere()
        if not isinstance(elsewhere, partial) or not isinstance(target, Tensor) or target not in self._values:
            raise self.unknown(call.op, ": it writes into a part of a map")
        memory = target.untyped_storage()._cdata
        if sum(each.untyped_storage()._cdata == memory for each in self._values) > 1:
            raise self.unknown(call.op, " in place: other views of the same memory are about")
        made = self._record(call, elsewhere)
        if made is not target:
            value = self._values.pop(made)
            target.data = made.to(target.dtype)  # the network may go on with what it gave, and ignore this answer
            self._values[target] = value
        return target

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = ops.named(func)
        if name in ops.CONSTANTS or not self.follows(args, kwargs):
            return func(*args, **kwargs)
        written = getattr(func, "__name__", "")
        if name in _READINGS or (written.endswith("_") and not written.endswith("__")):
            raise self.unknown(name, ": what it does depends on the image, or it writes in place")
        spelling = ops.Spelling(name, "arithmetic", (), "rest")
        return self._record(Call(spelling, func, args, kwargs), partial(func, *args, **kwargs))

    def _record(self, call: Call, made: partial[Any]) -> Any:
        with torch._C.DisableTorchFunction():
            result = made()
            tensors = list(ops.tensors(result))
            if not tensors or all(any(each is one for one in call.tensors()) for each in tensors):
                return result  # a shape, a type; or its input, untouched
            plain = _Plain(made.func, made.args, made.keywords, self._values.get)
            for value in plain.inputs:
                value.uses += 1
            found = RULES.get(call.op) or (_elementwise if ops.is_comparison(call.func) else None)
            step = found(self, call, plain, result) if found else None
            step = step or self.full(call, plain, result)
            if len(step.outputs) != len(tensors) or any(value.shape[:1] != (1,) for value in step.outputs):
                raise self.unknown(call.op, ": the images are not its first dimension")
            amount = cost.RULES.get(call.op)
            step.multiply_adds = amount(call, result) if amount else 0
            self.steps.append(step)
            self._values.update(zip(tensors, step.outputs, strict=True))
        return result

    def full(self, call: Call, plain: _Plain, result: Any, axes: tuple[int, int] | None = None) -> Step:
        """The operation as it is, on whole maps. With `axes` the answer is known to be a map still."""
        source = next((value for value in plain.inputs if value.axes), None)
        rows = source.rows.all() if axes and source and source.rows else None
        columns = source.columns.all() if axes and source and source.columns else None
        outputs = [Value(each, tuple(each.shape), axes, rows, columns) for each in ops.tensors(result)]
        shapes = [each.shape[1:] for each in outputs]
        reshapes = call.op in _SHAPES

        def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
            tensors = [whole(value, piece, batch) for value, piece in zip(plain.inputs, pieces, strict=True)]
            answer = tensors[0].reshape(len(batch), *shapes[0]) if reshapes else plain(tensors)
            made = list(ops.tensors(answer))
            if [tuple(each.shape) for each in made] != [(len(batch), *shape) for shape in shapes]:
                raise UnknownOperation(
                    f"the incremental lens cannot run {call.op} for several occlusions at once: its answer has the shape "
                    f"{tuple(made[0].shape) if made else ()}, where {len(batch)} × {shapes[0]} was expected"
                )
            return [
                Piece(each, batch.place(out, full=True) if axes else None)
                for each, out in zip(made, outputs, strict=True)
            ]

        return Step(call.op, plain.inputs, outputs, run, 0, gathers=True)

    # Afterwards

    def _fold(self) -> None:
        """A convolution whose only reader is a normalisation has it in its weights."""
        makers = {id(step.outputs[0]): step for step in self.steps if step.convolution}
        kept = []
        for step in self.steps:
            maker = makers.get(id(step.inputs[0])) if step.norm and step.inputs else None
            if maker is None or step.inputs[0].uses > 1 or maker.convolution is None or step.norm is None:
                kept.append(step)
                continue
            maker.convolution.fold(*step.norm)
            maker.convolution.output = step.outputs[0]
            maker.outputs = step.outputs
        self.steps = kept

    def _forget(self) -> None:
        """Clean maps that no step gathers from are let go."""
        gathered = {id(value) for step in self.steps if step.gathers for value in step.inputs}
        for step in self.steps:
            for value in step.outputs:
                if id(value) not in gathered:
                    value.clean = None
        self._last = {id(value): index for index, step in enumerate(self.steps) for value in step.inputs}
        # from the cut on, there is one tensor that is no map: it runs in batches of its own
        self._cut = len(self.steps)
        while self._cut and all(
            each.axes is None for each in self.steps[self._cut - 1].outputs + self.steps[self._cut - 1].inputs
        ):
            self._cut -= 1
        made = {id(value) for step in self.steps[: self._cut] for value in step.outputs}
        read = {id(value): value for step in self.steps[self._cut :] for value in step.inputs if id(value) in made}
        self._joint = next(iter(read.values())) if len(read) == 1 else self.logits
        if len(read) != 1:
            self._cut = len(self.steps)

    # Running

    def windows(self, fill: Value, batch: Batch) -> Tensor:
        """What follows the maps, for each position of a batch with `fill` in its window, see `filled`; `answer` goes on."""
        if self.image.rows is None or self.image.columns is None:
            raise RuntimeError("the image is a map")
        rows, columns = self.image.rows, self.image.columns
        place = batch.place(self.image)
        window = Place(rows.low[batch.rows], columns.low[batch.columns], *self._window(batch), False)
        empty = Piece(fill.clean[:, :, :0, :0], Place(batch.zeros, batch.zeros, 0, 0, False))  # type: ignore[index]
        first = fetch(fill, empty, window)
        if not place.same(window):
            first = fetch(self.image, first, place)
        return self._run(self.steps[: self._cut], {id(self.image): first}, batch, self._joint)

    def filled(self, image: Tensor) -> Value:
        """An image (1, 3, H, W), normalised, of which windows are put in place of the clean one's."""
        return Value(image, tuple(image.shape), (2, 3), self.image.rows, self.image.columns)

    def _window(self, batch: Batch) -> tuple[int, int]:
        rows, columns = self.image.rows, self.image.columns
        if rows is None or columns is None:
            raise RuntimeError("the image is a map")
        return int((rows.high - rows.low)[batch.rows].max()), int((columns.high - columns.low)[batch.columns].max())

    def answer(self, joints: Tensor) -> Tensor:
        """Logits (n, C) of what `windows` answered."""
        batch = Batch(np.zeros(len(joints), np.int64), np.zeros(len(joints), np.int64))
        return self._run(self.steps[self._cut :], {id(self._joint): Piece(joints, None)}, batch, self.logits)

    def _run(self, steps: Sequence[Step], pieces: dict[int, Piece], batch: Batch, wanted: Value) -> Tensor:
        for index, step in enumerate(steps, self.steps.index(steps[0]) if steps else 0):
            made = step.run(batch, [pieces[id(value)] for value in step.inputs])
            for value in step.inputs:
                if self._last[id(value)] == index and value is not wanted:
                    pieces.pop(id(value), None)
            pieces.update(zip(map(id, step.outputs), made, strict=True))
        return whole(wanted, pieces[id(wanted)], batch)

    # Planning

    def multiply_adds(self, batch: Batch) -> int:
        """What a batch takes, as it will be run."""
        total = 0.0
        for step in self.steps:
            if step.multiply_adds:
                out = step.outputs[0]
                share = 1.0
                if out.axes and out.rows and out.columns:
                    place = batch.place(out)
                    share = place.height * place.width / (out.rows.size * out.columns.size)
                total += step.multiply_adds * share * len(batch)
        return int(total)

    @property
    def dense(self) -> int:
        """Multiply-adds of a whole pass."""
        return sum(step.multiply_adds for step in self.steps)

    def least(self, rows: Ints, columns: Ints) -> int:
        """Multiply-adds of what changes at positions, each on its own: no way of running them takes less."""
        total = 0.0
        for step in self.steps:
            out = step.outputs[0]
            share = float(len(rows))
            if out.axes and out.rows and out.columns:
                high, wide = out.rows.high - out.rows.low, out.columns.high - out.columns.low
                share = float((high[rows] * wide[columns]).sum()) / (out.rows.size * out.columns.size)
            total += step.multiply_adds * share
        return int(total)

    def batches(self, rows: Ints, columns: Ints, size: int) -> list[Batch]:
        """All pairs of positions in batches of at most `size`, alike in how much changes, so that little is computed in vain."""
        parts = [self._alike(which, chosen, size) for which, chosen in ((0, rows), (1, columns))]
        found = []
        for down in parts[0]:
            for right in parts[1]:
                pairs = np.stack(np.meshgrid(down, right, indexing="ij"), -1).reshape(-1, 2)
                chunks = np.array_split(pairs, math.ceil(len(pairs) / size))
                found += [Batch(chunk[:, 0].copy(), chunk[:, 1].copy()) for chunk in chunks]
        return found

    def _alike(self, which: int, chosen: Ints, size: int) -> list[Ints]:
        """Positions along an axis in groups, of which two make batches of about `size`: merged where it adds least work."""
        rates, lengths = [], []
        for step in self.steps:
            out = step.outputs[0]
            if out.axes and out.rows and out.columns:
                one, two = (out.rows, out.columns) if which == 0 else (out.columns, out.rows)
                other = float((two.high - two.low).mean())
                each = max(step.multiply_adds / (one.size * two.size), math.prod(out.shape) / (one.size * two.size))
                rates.append(each * other)
                lengths.append((one.high - one.low)[chosen])
        if not lengths:
            return [chosen]
        columns, group = np.unique(np.stack(lengths), axis=1, return_inverse=True)
        group = group.reshape(-1)
        weights = np.array(rates)
        members = [chosen[group == index] for index in range(columns.shape[1])]
        tops = [columns[:, index] for index in range(columns.shape[1])]
        while len(members) > max(1, round(len(chosen) / math.sqrt(size))):
            sizes = np.array([len(each) for each in members])
            stacked = np.stack(tops, 1)
            alone = weights @ stacked * sizes
            joint = np.einsum("l,lij->ij", weights, np.maximum(stacked[:, :, None], stacked[:, None, :]))
            added = joint * (sizes[:, None] + sizes) - alone[:, None] - alone
            np.fill_diagonal(added, np.inf)
            a, b = sorted(np.unravel_index(int(added.argmin()), added.shape))
            members[a], tops[a] = np.sort(np.concatenate([members[a], members[b]])), np.maximum(tops[a], tops[b])
            del members[b], tops[b]
        return members


#: functions whose answer is a number taken out of a map
_READINGS = frozenset(
    {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "equal", "allclose", "is_nonzero", "nonzero"}
)
#: operations that only give what is there another shape
_SHAPES = frozenset({"view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze"})
#: operations whose answer is a part of the input or the input turned
_VIEWS = ("permute", "transpose", "movedim", "t", "chunk", "split", "unbind", "narrow", "select", "slice", "getitem")


# The rules


@rule(*_VIEWS)
def _view(lens: Incremental, call: Call, plain: _Plain, result: Any) -> Step | None:
    """Channels are picked or moved: found out by running it on a tensor whose strides tell the axes."""
    (value,) = plain.inputs[:1]
    if len(plain.inputs) > 1 or not value.axes or not value.rows or not value.columns:
        return None
    height, width = value.rows.size, value.columns.size
    shape, strides = [2, *value.shape[1:]], [0] * len(value.shape)
    strides[0], strides[value.axes[0]], strides[value.axes[1]] = height * width, width, 1
    for axis, length in zip(value.axes, (height, width), strict=True):
        shape[axis] = length
    if min(height, width) < 2:
        return None
    device = next(ops.tensors(result)).device  # where what it is indexed by lies, too
    probe = torch.empty(2 * height * width, device=device).as_strided(shape, strides)
    axes = None
    try:
        seen = list(ops.tensors(plain([probe])))
    except (RuntimeError, IndexError):  # it fits one image alone
        return None
    for each in seen:
        now = list(each.stride())
        found = [now.index(stride) if now.count(stride) == 1 else -1 for stride in (height * width, width, 1)]
        alike = (
            each.data_ptr() == probe.data_ptr()
            and found[0] == 0
            and min(found[1:]) > 0
            and not any(stride for dim, stride in enumerate(now) if dim not in found)
        )
        if not alike or [each.shape[dim] for dim in found] != [2, height, width]:
            return None
        axes = (found[1], found[2])
    if axes is None:
        return None
    outputs = [Value(each, tuple(each.shape), axes, value.rows, value.columns) for each in ops.tensors(result)]

    def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
        (piece,) = pieces
        own = piece.own and value.uses == 1
        return [Piece(each, piece.place, own) for each in ops.tensors(plain([piece.data]))]

    return Step(call.op, plain.inputs, outputs, run, 0, gathers=False)


@rule(*_SHAPES)
def _reshaped(lens: Incremental, call: Call, plain: _Plain, result: Tensor) -> Step | None:
    """Another shape that leaves rows and columns alone, as in a shuffle of channels."""
    value = plain.inputs[0]
    axes = _kept_axes(value, tuple(result.shape))
    if axes is None:
        return None
    output = Value(result, tuple(result.shape), axes, value.rows, value.columns)

    def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
        data, place, own = pieces[0]
        if place is None:
            raise RuntimeError("a map has windows")
        shape = [len(batch), *output.shape[1:]]
        shape[axes[0]], shape[axes[1]] = place.height, place.width
        return [Piece(data.reshape(shape), place, own and value.uses == 1)]

    return Step(call.op, plain.inputs[:1], [output], run, 0, gathers=False)


def _kept_axes(value: Value, shape: tuple[int, ...]) -> tuple[int, int] | None:
    if not value.axes or value.axes[0] > value.axes[1] or shape[0] != 1:
        return None
    found = []
    start, begun = 0, 0
    for axis in value.axes:
        before = math.prod(value.shape[start:axis])
        fitting = (
            dim
            for dim in range(max(begun, 1), len(shape))
            if math.prod(shape[begun:dim]) == before and shape[dim] == value.shape[axis]
        )
        dim = next(fitting, None)
        if dim is None:
            return None
        found.append(dim)
        start, begun = axis + 1, dim + 1
    return (found[0], found[1])


@rule("pad")
def _pad(lens: Incremental, call: Call, plain: _Plain, result: Tensor) -> Step | None:
    """A constant border moves the windows."""
    value, pad = plain.inputs[0], list(call.arguments["pad"])
    if not value.axes or not value.rows or not value.columns or call.arguments["mode"] != "constant" or min(pad) < 0:
        return None
    before = {len(value.shape) - 1 - index // 2: pad[index] for index in range(0, len(pad), 2)}
    if any(amount for dim, amount in before.items() if dim not in value.axes) or any(
        result.shape[dim] != length for dim, length in enumerate(value.shape) if dim not in value.axes
    ):
        return None
    down, right = (before.get(axis, 0) for axis in value.axes)
    rows = value.rows.shifted(down, result.shape[value.axes[0]])
    columns = value.columns.shifted(right, result.shape[value.axes[1]])
    output = Value(result, tuple(result.shape), value.axes, rows, columns)

    def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
        data, place, own = pieces[0]
        if place is None:
            raise RuntimeError("a map has windows")
        moved = Place(place.top + down, place.left + right, place.height, place.width, False)
        return [Piece(data, moved, own and value.uses == 1)]

    return Step(call.op, plain.inputs[:1], [output], run, 0, gathers=False)


_ALONG = {
    "layer_norm",
    "rms_norm",
    "linear",
    "softmax",
    "log_softmax",
    "normalize",
    "glu",
}  # the last or a named dimension
_OWN_MEMORY = {"clone", "contiguous", "detach", "to", "float", "type_as"}


@rule(
    *(
        op
        for op, (kind, _) in ops.VOCABULARY.items()
        if kind in ("rectifier", "gate") and op not in ("maximum", "minimum")
    ),
    *(
        "batch_norm",
        "dropout",
        "dropout2d",
        "alpha_dropout",
        "feature_dropout",
        "neg",
        "abs",
        "square",
        "sqrt",
        "rsqrt",
    ),
    *("reciprocal", "exp", "log", "erf", *_OWN_MEMORY, *_ALONG),
)
def _pointwise(lens: Incremental, call: Call, plain: _Plain, result: Tensor) -> Step | None:
    """The same function at each position."""
    value = plain.inputs[0]
    given = call.arguments
    if value.axes is None or not isinstance(result, Tensor) or given.get("training") or given.get("train"):
        return None
    inplace = getattr(F, call.op, None) if call.spelling.takes_inplace else None
    rest = {key: each for key, each in given.items() if key not in ("input", "inplace")}
    if call.op in _ALONG and not _spares(call, value):
        return None
    constants = [each for each in plain.constants() if call.op in ("clamp", "clamp_min", "clamp_max", "threshold")]
    if len(plain.inputs) > 1 or any(each.ndim for each in constants):
        return None
    output = Value(result, tuple(result.shape), value.axes, value.rows, value.columns)
    norm = _scale_and_shift(given) if call.op == "batch_norm" else None

    def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
        data, place, own = pieces[0]
        own = own and value.uses == 1
        if own and inplace is not None:
            return [Piece(inplace(data, **rest, inplace=True), place, True)]
        return [Piece(plain([data]), place, own or call.op not in _OWN_MEMORY)]

    return Step(call.op, plain.inputs, [output], run, 0, gathers=False, norm=norm)


def _spares(call: Call, value: Value) -> bool:
    """Whether an operation along some dimensions leaves rows and columns alone."""
    if value.axes is None:
        return False
    last = len(value.shape)
    if call.op in ("layer_norm", "rms_norm"):
        dims = range(last - len(call.arguments["normalized_shape"]), last)
        return not set(dims) & set(value.axes)
    dim = -1 if call.op == "linear" else call.arguments["dim"]
    return isinstance(dim, int) and dim % last not in value.axes and dim % last != 0


def _scale_and_shift(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    mean, variance = given["running_mean"].double(), given["running_var"].double()
    scale = (variance + given["eps"]).rsqrt()
    scale = scale if given["weight"] is None else scale * given["weight"]
    shift = -mean * scale
    return scale, shift if given["bias"] is None else shift + given["bias"]


@rule("add", "sub", "rsub", "mul", "div", "rdiv", "pow", "addcmul", "maximum", "minimum", "where", "masked_fill")
def _elementwise(lens: Incremental, call: Call, plain: _Plain, result: Tensor) -> Step | None:
    """Position by position of several maps: what changes in any of them. A gate changes it everywhere."""
    maps = [value for value in plain.inputs if value.axes]
    if not maps or not isinstance(result, Tensor):
        return None
    first = max(maps, key=lambda value: len(value.shape))
    axes = first.axes
    alike = all(value.axes == axes and len(value.shape) == result.ndim for value in maps)
    alike = alike and all(each.shape[axis] == result.shape[axis] for each in maps for axis in each.axes or ())
    if not alike or axes is None or first.rows is None or first.columns is None:
        return None
    behind = [axis - result.ndim for axis in axes]
    for constant in plain.constants():
        if any(constant.ndim >= -axis and constant.shape[axis] > 1 for axis in behind):
            return None
    if len(maps) < len(plain.inputs):
        return lens.full(call, plain, result, axes)
    rows, columns = first.rows, first.columns
    for value in maps:
        if value.rows is not None and value.columns is not None:
            rows, columns = rows | value.rows, columns | value.columns
    output = Value(result, tuple(result.shape), axes, rows, columns)
    adds = call.op == "add" and len(maps) == 2 and call.arguments["alpha"] == 1 and maps[0].shape == maps[1].shape

    def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
        full = any(piece.place is not None and piece.place.full for piece in pieces)
        place = batch.place(output, full)
        parts = [fetch(value, piece, place) for value, piece in zip(maps, pieces, strict=True)]
        if adds and parts[0].own:
            return [Piece(parts[0].data.add_(parts[1].data), place, True)]
        if adds and parts[1].own:
            return [Piece(parts[1].data.add_(parts[0].data), place, True)]
        return [Piece(plain([part.data for part in parts]), place, True)]

    return Step(call.op, plain.inputs, [output], run, 0, gathers=len(maps) > 1)


@rule("cat")
def _cat(lens: Incremental, call: Call, plain: _Plain, result: Tensor) -> Step | None:
    """Maps joined along their channels."""
    first, dim = plain.inputs[0], call.arguments["dim"] % result.ndim
    axes = first.axes
    if axes is None or dim in (0, *axes) or any(value.axes != axes for value in plain.inputs):
        return None
    if first.rows is None or first.columns is None or any(True for _ in plain.constants()):
        return None
    rows, columns = first.rows, first.columns
    for value in plain.inputs:
        if value.rows is not None and value.columns is not None:
            rows, columns = rows | value.rows, columns | value.columns
    output = Value(result, tuple(result.shape), axes, rows, columns)

    def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
        place = batch.place(output, any(piece.place is not None and piece.place.full for piece in pieces))
        parts = [fetch(value, piece, place).data for value, piece in zip(plain.inputs, pieces, strict=True)]
        return [Piece(torch.cat(parts, dim), place, True)]

    return Step(call.op, plain.inputs, [output], run, 0, gathers=True)


@dataclass(eq=False)
class _Convolution:
    """A convolution or pooling in windows."""

    value: Value
    output: Value
    slides: tuple[_Sliding, _Sliding]
    fill: float
    within: Callable[..., Tensor]  # of a window that holds its own border
    over: Callable[..., Tensor]  # of a whole map
    weights: tuple[Tensor, Tensor | None] | None = None

    def fold(self, scale: Tensor, shift: Tensor) -> None:
        if self.weights is None:
            return
        weight, bias = self.weights
        shift = shift if bias is None else shift + bias.double() * scale
        folded = weight.double() * scale.view(-1, *(1,) * (weight.ndim - 1))
        self.weights = (
            folded.to(weight.dtype).contiguous(memory_format=torch.channels_last),
            shift.to(weight.dtype),
        )

    def run(self, batch: Batch, pieces: list[Piece]) -> list[Piece]:
        (piece,) = pieces
        weights = self.weights or ()
        if piece.place is not None and piece.place.full:
            return [Piece(self.over(piece.data, *weights), batch.place(self.output, full=True), True)]
        down, right = self.slides
        place = batch.place(self.output)
        want = Place(
            place.top * down.stride - down.before,
            place.left * right.stride - right.before,
            down.needed(place.height),
            right.needed(place.width),
            False,
        )
        high, wide = (self.value.shape[axis] for axis in self.value.axes or ())
        out_high, out_wide = (self.output.shape[axis] for axis in self.value.axes or ())
        pads = (down.before, down.after(high, out_high), right.before, right.after(wide, out_wide))
        patch = fetch(self.value, piece, want, pads, self.fill)
        return [Piece(self.within(patch.data, *weights), place, True)]


def _sliding(
    call: Call,
    plain: _Plain,
    result: Tensor,
    slides: tuple[_Sliding, _Sliding],
    fill: float,
    within: Callable[..., Tensor],
    over: Callable[..., Tensor],
    weights: tuple[Tensor, Tensor | None] | None = None,
) -> Step | None:
    value = plain.inputs[0]
    if len(plain.inputs) > 1 or value.axes != (2, 3) or not value.rows or not value.columns or result.ndim != 4:
        return None
    rows = slides[0].touched(value.rows, result.shape[2])
    columns = slides[1].touched(value.columns, result.shape[3])
    output = Value(result, tuple(result.shape), (2, 3), rows, columns)
    made = _Convolution(value, output, slides, fill, within, over, weights)
    if all(each == _Sliding(1, 1, 0, each.dilation) for each in slides):
        output.rows, output.columns = value.rows, value.columns
    return Step(call.op, plain.inputs, [output], made.run, 0, gathers=True, convolution=made if weights else None)


def _two(given: Any) -> tuple[int, int]:
    if isinstance(given, tuple | list):
        return (int(given[0]), int(given[-1]))
    return (int(given), int(given))


@rule("conv2d")
def _conv(lens: Incremental, call: Call, plain: _Plain, result: Tensor) -> Step | None:
    given = call.arguments
    weight, stride, dilation = given["weight"], _two(given["stride"]), _two(given["dilation"])
    padding, kernel = given["padding"], weight.shape[2:]
    if isinstance(padding, str):
        reach = [dilation[i] * (kernel[i] - 1) for i in (0, 1)]
        before = (reach[0] // 2, reach[1] // 2) if padding == "same" else (0, 0)
    else:
        before = _two(padding)
    down, right = (_Sliding(int(kernel[i]), stride[i], before[i], dilation[i]) for i in (0, 1))
    same = {"stride": stride, "dilation": dilation, "groups": given["groups"]}
    return _sliding(
        call, plain, result, (down, right), 0.0,
        partial(torch.conv2d, **same), partial(torch.conv2d, **same, padding=padding), (weight, given["bias"]),
    )  # fmt: skip


@rule("max_pool2d", "avg_pool2d")
def _pool(lens: Incremental, call: Call, plain: _Plain, result: Any) -> Step | None:
    given = call.arguments
    kernel, padding, ceil = _two(given["kernel_size"]), _two(given["padding"]), bool(given["ceil_mode"])
    stride = _two(given["stride"]) if given["stride"] not in (None, (), []) else kernel
    dilation = _two(given.get("dilation", 1))
    if given.get("return_indices"):
        return None
    slides = (
        _Sliding(kernel[0], stride[0], padding[0], dilation[0]),
        _Sliding(kernel[1], stride[1], padding[1], dilation[1]),
    )
    if call.op == "max_pool2d":
        within = partial(F.max_pool2d, kernel_size=kernel, stride=stride, dilation=dilation)
        over = partial(within, padding=padding, ceil_mode=ceil)
        return _sliding(call, plain, result, slides, -math.inf, within, over)
    if any(padding) and not given["count_include_pad"]:
        return None  # its divisor differs at the border
    past = [slides[i].after(plain.inputs[0].shape[2 + i], result.shape[2 + i]) > padding[i] for i in (0, 1)]
    if ceil and any(past):
        return None
    within = partial(F.avg_pool2d, kernel_size=kernel, stride=stride, divisor_override=given["divisor_override"])
    return _sliding(call, plain, result, slides, 0.0, within, partial(within, padding=padding, ceil_mode=ceil))


@rule("adaptive_avg_pool2d", "mean")
def _mean(lens: Incremental, call: Call, plain: _Plain, result: Tensor) -> Step | None:
    """A mean over the map is the clean one and the change in the window over its area: a running sum."""
    value = plain.inputs[0]
    if not value.axes or not value.rows or not value.columns or len(plain.inputs) > 1:
        return None
    area = value.rows.size * value.columns.size
    if call.op == "mean":
        dims = call.arguments["dim"]
        dims = {dim % len(value.shape) for dim in dims} if isinstance(dims, tuple | list) else set()
        if dims != set(value.axes) or call.arguments["dtype"] is not None:
            return None
    elif result.shape[2:] != (1, 1):
        if any(value.shape[i] % result.shape[i] for i in (2, 3)):
            return None
        kernel = (value.shape[2] // result.shape[2], value.shape[3] // result.shape[3])
        slides = (_Sliding(kernel[0], kernel[0], 0, 1), _Sliding(kernel[1], kernel[1], 0, 1))
        pool = partial(F.avg_pool2d, kernel_size=kernel)
        return _sliding(call, plain, result, slides, 0.0, pool, pool)
    output = Value(result, tuple(result.shape))
    axes, clean = value.axes, result.detach()

    def run(batch: Batch, pieces: list[Piece]) -> list[Piece]:
        (piece,) = pieces
        if piece.place is None or piece.place.full:
            return [Piece(plain([piece.data]), None, True)]
        nothing = Piece(piece.data.narrow(axes[0], 0, 0), Place(batch.zeros, batch.zeros, 0, piece.place.width, False))
        before = fetch(value, nothing, piece.place).data
        change = (piece.data - before).sum(axes, keepdim=True) / area
        return [Piece(clean + change.reshape(len(batch), *output.shape[1:]), None, True)]

    return Step(call.op, plain.inputs, [output], run, 0, gathers=True)


def checked(lens: Incremental, fill: Value, batch: Batch) -> Tensor:
    """Logits of a batch; raises `UnknownOperation` where the tape does not bear a batch."""
    try:
        return lens.answer(lens.windows(fill, batch))
    except (RuntimeError, IndexError) as error:
        if out_of_memory(error):
            raise
        raise UnknownOperation(
            f"the incremental lens cannot run this network for several occlusions at once: {error}"
        ) from error
