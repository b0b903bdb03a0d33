"""Passes that start in the middle: what comes before an address is handed out from memory, what follows is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import InputError, LayerError, ModelError, UnknownOperation, nearest
from seewhy.lens import ops
from seewhy.lens.lens import Lens
from seewhy.lens.memory import ByMemory, Place
from seewhy.lens.ops import Call

#: functions whose answer is a number taken out of a map
_READINGS = frozenset(
    {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "equal", "allclose", "is_nonzero"}
)


@dataclass
class _Memory:
    """One piece of memory during a pass: who wrote and read it when, and what it held.

    Each version is (the event that wrote it, the content); the last one is still the network's own memory while `live`.
    """

    created: int
    inside: str
    place: Place
    versions: list[tuple[int, Tensor]] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    writes: list[tuple[int, str]] = field(default_factory=list)
    live: bool = False

    def at(self, start: int) -> Tensor | None:
        """What it held before event `start`, if that was kept."""
        found = [content for index, content in self.versions if index < start]
        return found[-1] if found else None

    def written_from(self, start: int) -> bool:
        """Whether the network overwrites it in event `start` or later."""
        return any(index >= start for index, _ in self.writes)


@dataclass(frozen=True)
class _Event:
    """One call that reads a map.

    `fresh` has the new memory of each tensor of the result, None for one in old memory; `written` is what it overwrote.
    """

    func: Callable[..., Any]
    skeleton: Any
    fresh: tuple[_Memory | None, ...]
    written: _Memory | None


@dataclass(frozen=True)
class _Start:
    """Where a replay starts: the event before which nothing is computed, and whether its own result is replaced.

    `memory` is that of the output; `older` says that it was not made for it, but is its input's, and `overwrites` that
    the output was written into it.
    """

    event: int
    operation: bool
    shape: tuple[int, ...]
    memory: _Memory
    older: bool
    overwrites: bool

    @property
    def written_later(self) -> bool:
        """Whether the network overwrites the output."""
        return self.memory.written_from(self.event + self.operation)

    @property
    def in_place(self) -> bool:
        """Whether the value must be written into the memory that the network goes on with."""
        return self.overwrites or (self.older and self.written_later)


class _Hole:
    """Stands for a tensor in a result's structure."""


class _Pass(Lens):
    """A pass whose calls that read a map are events, numbered alike in every pass of the same network."""

    def __init__(self, net: Classifier) -> None:
        super().__init__(net.module)
        self.count = 0
        self.memories: ByMemory[_Memory | None] = ByMemory()

    def follows(self, *values: Any) -> bool:
        return any(tensor in self.memories for tensor in ops.tensors(values))

    def operation(self, call: Call) -> Any:
        # writing a map into a constant makes that a map too
        return self.event(call) if self.follows(call.args, call.kwargs) else call.run()

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.__name__ if hasattr(func, "__name__") else str(func)
        if name in ops.CONSTANTS or not self.follows(args, kwargs):
            return func(*args, **kwargs)
        in_place = name.endswith("_") and not name.endswith("__")
        kind = ops.Spelling(name, "arithmetic", (("input", None),), "rest", in_place)
        path = self._stack[-1] if self._stack else ""
        call = Call(kind, func, args, kwargs, path, "", self.count)
        if name in _READINGS:
            return self.event(call)
        # what answers no tensor, such as a shape, is asked anew in each pass, because batches differ
        return self.event(call) if in_place or self.makes_tensors(call) else call.run()

    def makes_tensors(self, call: Call) -> bool:
        """Whether a function outside the vocabulary answers tensors."""
        raise NotImplementedError

    def event(self, call: Call) -> Any:
        """Answer the result of a call that reads a map."""
        raise NotImplementedError


class _Keeper(_Pass):
    """Runs a pass and remembers it; everything, or what a replay at one address can ask for."""

    def __init__(self, net: Classifier, at: str | None) -> None:
        super().__init__(net)
        self.events: list[_Event] = []
        self.starts: dict[str, _Start] = {}
        self.at = at
        self.addresses: list[str] = []
        self.all: list[_Memory] = []
        self._ready: tuple[Any] | None = None

    def entered(self, inputs: tuple[Any, ...]) -> None:
        for images in ops.tensors(inputs):
            self._new(images, -1, "")

    def makes_tensors(self, call: Call) -> bool:
        self._ready = (call.run(),)
        if any(True for _ in ops.tensors(self._ready[0])):
            return True
        self._ready = None
        return False

    def event(self, call: Call) -> Any:
        index, self.count = self.count, self.count + 1
        if call.address:
            self.addresses.append(call.address)
        if call.address and call.address == self.at:
            self._freeze(index)
        for tensor in call.tensors():
            memory = self.memories.get(tensor)
            if memory is not None:
                memory.reads.append(index)
        target = call.arguments["input"] if call.in_place else None
        if target is not None:
            self._before_writing(target, index, call.path)
        versions = [(tensor, tensor._version) for tensor in call.tensors()]
        result, self._ready = self._ready[0] if self._ready else call.run(), None
        for tensor, version in versions:
            if tensor._version != version and (
                target is None or tensor.untyped_storage()._cdata != target.untyped_storage()._cdata
            ):
                raise UnknownOperation(
                    f"replay has no rule for {call.op}, called in {call.path or 'the model itself'}: it overwrites an argument"
                )
        written = None if target is None else self.memories.get(target)
        if written is not None:
            written.writes.append((index, call.path))
            now = written.place.tensor()
            if self.at is None and now is not None:
                written.versions.append((index, now))
                written.live = True
        made = list(ops.tensors(result))
        fresh = tuple(None if tensor in self.memories else self._new(tensor, index, call.path) for tensor in made)
        self.events.append(_Event(call.func, _skeleton(result), fresh, written))
        memory = self.memories.get(result) if call.address and isinstance(result, Tensor) else None
        if memory is not None:
            older = memory.created < index
            self.starts[call.address] = _Start(index, True, tuple(result.shape), memory, older, call.in_place)
        return result

    def output(self, address: str, result: Any) -> Any:
        self.addresses.append(address)
        if address == "":
            for tensor in ops.tensors(result):
                memory = self.memories.get(tensor)
                if memory is not None:
                    memory.reads.append(math.inf)
        memory = self.memories.get(result) if isinstance(result, Tensor) else None
        if memory is not None:
            path = address.partition("@")[0]
            older = memory.created < 0 or not _inside(memory.inside, path)
            overwrites = older and bool(memory.writes) and _inside(memory.writes[-1][1], path)
            self.starts[address] = _Start(self.count, False, tuple(result.shape), memory, older, overwrites)
        if address == self.at:
            self._freeze(self.count)
        return result

    def _new(self, tensor: Tensor, index: int, path: str) -> _Memory:
        memory = _Memory(index, path, Place(tensor))
        if self.at is None:
            memory.versions.append((index, tensor.detach()))
            memory.live = True
        self.memories[tensor] = memory
        self.all.append(memory)
        return memory

    def _before_writing(self, target: Tensor, index: int, path: str) -> None:
        memory = self.memories.get(target)
        if memory is None:  # a constant, from now on a map
            whole = target if target._base is None else target._base
            memory = self._new(whole, index, path)
            memory.versions.clear()
        elif memory.live:
            made, content = memory.versions[-1]
            memory.versions[-1] = (made, content.clone())
        memory.live = False

    def _freeze(self, start: int) -> None:
        """Keep what is still alive: nothing else can be read from here on."""
        for memory in self.all:
            now = memory.place.tensor()
            if now is not None:
                memory.versions, memory.live = [(start - 1, now)], True


def _inside(path: str, module: str) -> bool:
    return not module or path == module or path.startswith(module + ".")


def _skeleton(result: Any) -> Any:
    """A result's structure, with holes for its tensors."""
    if isinstance(result, Tensor):
        return _Hole
    if isinstance(result, tuple | list):
        parts = [_skeleton(part) for part in result]
        return (type(result), parts)
    return result


def _filled(skeleton: Any, parts: Iterator[Tensor]) -> Any:
    if skeleton is _Hole:
        return next(parts)
    if isinstance(skeleton, tuple):
        kind, inner = skeleton
        made = [_filled(each, parts) for each in inner]
        return kind._make(made) if hasattr(kind, "_make") else kind(made)
    return skeleton


class Kept:
    """The activations of one pass, from which passes can be started in the middle.

    With `at`, only what a replay from that address needs is kept; without it everything, so that any address can be
    asked for. Memory that the network overwrites in place is copied just before that. One forward pass.
    """

    def __init__(self, net: Classifier, images: Tensor, at: str | None = None) -> None:
        lens = _Keeper(net, at)
        with torch.no_grad():
            self.logits = net.logits(images, lambda: lens)
        self.net, self.images, self.at = net, images, at
        self._events, self._starts, self._addresses = lens.events, lens.starts, lens.addresses
        self._overwritten = any(memory.created < 0 and memory.writes for memory in lens.all)  # the images themselves
        if at is not None:
            start = self._start(at)
            for memory in lens.all:
                if not _needed(memory, start):
                    memory.versions.clear()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where a replay can start: the operations and modules that answer one tensor with the images as its batch."""
        return tuple(at for at, start in self._starts.items() if start.shape[:1] == (len(self.images),))

    @property
    def bytes(self) -> int:
        """The memory that is kept."""
        memories = {id(m): m for event in self._events for m in event.fresh if m is not None}
        sizes = {
            content.untyped_storage()._cdata: content.untyped_storage().nbytes()
            for memory in memories.values()
            for _, content in memory.versions
        }
        return sum(sizes.values())

    def shape(self, at: str) -> tuple[int, ...]:
        """The shape of the output at an address, for the kept images."""
        return self._start(at).shape

    def _start(self, at: str) -> _Start:
        if at in self._starts:
            return self._starts[at]
        if at in self._addresses:
            raise LayerError(f"{at} does not answer one tensor that depends on the images; choose a layer inside it")
        near = nearest(at, self._starts) or "; `seewhy model` lists them"
        raise LayerError(f'{self.net.name} has no layer or operation "{at}"{near}')


def _needed(memory: _Memory, start: _Start) -> bool:
    """Whether a replay reads what a memory held when it starts."""
    if memory.created >= start.event:
        return False
    if start.operation and not start.in_place:
        return any(index > start.event for index in memory.reads)  # the operation itself does not run
    return any(index >= start.event for index in memory.reads)


class _Replay(_Pass):
    def __init__(self, kept: Kept, at: str, value: Tensor) -> None:
        super().__init__(kept.net)
        self._kept, self._at, self._value = kept, at, value
        self._start = kept._start(at)
        self._made: ByMemory[bool] = ByMemory()

    def entered(self, inputs: tuple[Any, ...]) -> None:
        for images in ops.tensors(inputs):
            self.memories[images] = None

    def makes_tensors(self, call: Call) -> bool:
        # the same calls are events in every pass
        events = self._kept._events
        return self.count < len(events) and events[self.count].func == call.func

    def event(self, call: Call) -> Any:
        index, self.count = self.count, self.count + 1
        if index >= len(self._kept._events) or self._kept._events[index].func != call.func:
            raise ModelError(
                f"{self._kept.net.name} ran {call.op} where it ran another operation before: what it does depends on the "
                "images, so that a pass cannot be started in the middle"
            )
        known = self._kept._events[index]
        if index == self._start.event and self._start.operation:
            result = self._replaced(call)
        elif index < self._start.event:
            result = self._handed_out(call, known)
        else:
            result = self._run(call)
        if call.in_place:
            self._follow(call.arguments["input"])
        for tensor in ops.tensors(result):
            self._follow(tensor)
        return result

    def output(self, address: str, result: Any) -> Any:
        if address != self._at:
            return result
        if self._start.in_place:
            return result.copy_(self._value)
        given = self._given()
        self._follow(given)
        return given

    def _follow(self, tensor: Tensor) -> None:
        if tensor not in self.memories:
            self.memories[tensor] = None

    def _given(self) -> Tensor:
        """The value, or a copy of it where the network will overwrite it."""
        return self._value.clone() if self._start.written_later else self._value

    def _replaced(self, call: Call) -> Any:
        if not self._start.in_place:
            return self._given()
        # whoever goes on with the overwritten memory gets the value too
        target: Tensor = call.arguments["input"] if call.in_place else self._run(call)
        return target.copy_(self._value)

    def _handed_out(self, call: Call, known: _Event) -> Any:
        if known.written is not None:
            return self._overwritten(call, known, known.written)
        if not known.fresh:
            return known.skeleton
        fresh = [memory for memory in known.fresh if memory is not None]
        if len(fresh) < len(known.fresh):
            return self._run(call)  # a view is made anew, so that it shares its memory as before
        parts = [self._content(memory) for memory in fresh]
        for part in parts:
            self._made[part] = True
        return _filled(known.skeleton, iter(parts))

    def _run(self, call: Call) -> Any:
        try:
            return call.run()
        except RuntimeError:
            if call.op not in ("view", "view_as", "unflatten"):
                raise
        source = call.arguments["input"]  # one image expanded to many cannot be viewed in every shape

        def swap(given: Any) -> Any:
            return source.contiguous() if given is source else given

        return call.func(*map(swap, call.args), **{key: swap(given) for key, given in call.kwargs.items()})

    def _overwritten(self, call: Call, known: _Event, memory: _Memory) -> Any:
        """What was handed out holds already what it held when the replay starts; other memory is brought there now."""
        target: Tensor = call.arguments["input"]
        content = memory.at(self._start.event)
        if target not in self._made and content is not None:
            whole = target if target._base is None else target._base
            whole.copy_(self._expanded(content))
        return None if known.skeleton is None else target

    def _content(self, memory: _Memory) -> Tensor:
        start = self._start
        content = memory.at(start.event) if _needed(memory, start) else None
        if content is not None:
            handed = self._expanded(content)
        else:  # nobody reads it any more; only its shape is asked for
            place = memory.place
            many = place.shape and place.shape[0] == len(self._kept.images)
            shape = (len(self._value), *place.shape[1:]) if many else place.shape
            handed = torch.zeros((), dtype=place.dtype, device=place.device).expand(shape)
        own = memory.written_from(start.event) or (start.in_place and memory is start.memory)
        return handed.clone() if own else handed

    def _expanded(self, content: Tensor) -> Tensor:
        before, now = len(self._kept.images), len(self._value)
        if before == now:
            return content
        if content.ndim and content.shape[0] == 1:
            return content.expand(now, *content.shape[1:])
        raise InputError(
            f"activations of shape {tuple(content.shape)} were kept for 1 image and cannot be shared by {now}: "
            f"their first dimension is not the batch; keep them for {now} images"
        )


def replay(kept: Kept, *, at: str, value: Tensor) -> Tensor:
    """Logits (n, C) of a pass in which the output at an address is `value` (n, …).

    What comes before the address is not computed: its kept results are handed out, shared by all n where they were kept
    for one image. What follows runs as ever, with gradients if they are enabled. Where the output lies in
    the memory of an input, because it was written there or will be overwritten, the value is written into that memory,
    so that it reaches whatever goes on with it. Raises `LayerError` for an address that the
    network does not have, `InputError` for a value that does not fit.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> kept = Kept(net, torch.rand(1, 3, 8, 8))
    >>> replay(kept, at="1", value=torch.rand(5, 4, 6, 6)).shape
    torch.Size([5, 2])
    """
    start = kept._start(at)
    if kept.at is not None and kept.at != at:
        raise InputError(
            f"what was kept serves replays at {kept.at} only, not at {at}; keep without `at` for any address"
        )
    count = len(kept.images)
    if start.shape[:1] != (count,):
        raise LayerError(f"the output at {at} has shape {start.shape}: its first dimension is not the batch of {count}")
    if value.ndim != len(start.shape) or tuple(value.shape[1:]) != start.shape[1:]:
        wanted = ", ".join(["n", *map(str, start.shape[1:])])
        raise InputError(f"expected a value of shape ({wanted}) for the output at {at}, got {tuple(value.shape)}")
    if count != 1 and len(value) != count:
        raise InputError(f"expected a value for {count} images, as they were kept, got {len(value)}")
    given = kept.net.normalise(kept.images).expand(len(value), -1, -1, -1)  # once, not once for each
    given = given.contiguous() if kept._overwritten else given
    logits = kept.net.logits(given, lambda: _Replay(kept, at, value), normalised=True)
    if len(logits) != len(value):
        raise ModelError(
            f"expected {len(value)} rows of logits, got {len(logits)}: {kept.net.name} does not have the batch as its first "
            f"dimension after {at}; keep the activations for {len(value)} images"
        )
    return logits
