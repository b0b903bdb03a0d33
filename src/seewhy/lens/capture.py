"""The capture lens: what each module and operation answers, and passes that begin or end in the middle."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy.classifier import Classifier
from seewhy.errors import LayerError, nearest
from seewhy.lens import ops
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call, Spelling
from seewhy.lens.taps import Taps, possible


@dataclass(frozen=True)
class Seen:
    """One operation of a pass, or one module's output: its address, and the shape that it answered for one image.

    For an operation `op` and `kind` are the vocabulary's; for a module they are empty, and `made_by` is the address of
    the operation whose result it hands on.
    """

    address: str
    op: str
    kind: str
    shape: tuple[int, ...]
    in_place: bool = False
    made_by: str = ""
    channels_first: bool = True

    @property
    def spatial(self) -> bool:
        """Whether it is a map (N, C, H, W) of more than one position."""
        return len(self.shape) == 4 and self.channels_first and self.shape[2] * self.shape[3] > 1


class _Stop(BaseException):
    """Ends a pass after the last operation that is needed; not an Exception, so that no model's handler swallows it."""


class _Trace(Lens):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.seen: list[Seen] = []
        self._makers: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._channels_last: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def operation(self, call: Call) -> Any:
        channels_last = self._moves_channels(call)
        result = call.run()
        for tensor in ops.tensors(result):
            self._makers[tensor] = call.address
            self._channels_last[tensor] = channels_last and tensor.ndim == 4
        first = next(ops.tensors(result), None)
        shape = () if first is None else tuple(first.shape)
        self.seen.append(Seen(call.address, call.op, call.kind, shape, call.in_place, channels_first=not channels_last))
        return result

    def output(self, address: str, result: Any) -> Any:
        if isinstance(result, Tensor):
            first = not self._channels_last.get(result, False)
            made_by = self._makers.get(result, "")
            self.seen.append(Seen(address, "", "", tuple(result.shape), made_by=made_by, channels_first=first))
        return result

    def _moves_channels(self, call: Call) -> bool:
        """Whether the answer has its channels last: (N, H, W, C), as ConvNeXt's normalisations want them."""
        before = any(self._channels_last.get(tensor, False) for tensor in call.tensors())
        if call.op == "permute":
            dims = tuple(dim % 4 for dim in call.arguments["dims"])
            return dims == (0, 2, 3, 1) if not before else dims != (0, 3, 1, 2)
        return before


_TRACES: weakref.WeakKeyDictionary[Classifier, tuple[object, tuple[Seen, ...]]] = weakref.WeakKeyDictionary()


def trace(net: Classifier) -> tuple[Seen, ...]:
    """Every operation and every module's output of one pass, in the order in which they ran.

    One forward pass the first time; remembered until the module's structure changes.
    """
    structure = (net.size, tuple((path, id(type(child))) for path, child in net.module.named_modules()))
    kept = _TRACES.get(net)
    if kept is None or kept[0] != structure:
        lens = _Trace(net.module)
        with torch.no_grad():
            net.logits(torch.full((1, 3, *net.size), 0.5), lambda: lens)
        _TRACES[net] = kept = (structure, tuple(lens.seen))
    return kept[1]


def find(net: Classifier, layer: str) -> str:
    """The address of a layer, checked against the network; raises `LayerError` with the nearest ones."""
    addresses = [seen.address for seen in trace(net)]
    if layer not in addresses:
        near = nearest(layer, addresses) or "; `seewhy model` lists them"
        raise LayerError(f'{net.name} has no layer or operation "{layer}"{near}')
    return layer


def last_map(net: Classifier) -> str:
    """The address of the last spatial map before the network pools it away or flattens it: Grad-CAM's layer.

    Found from the operations: the last answer (N, C, H, W) of more than one position, stepping back over poolings
    and dropout. Named by the outermost module that hands it on, if there is one.
    """
    seen = trace(net)
    maps = [each for each in seen if each.op and each.spatial and each.kind != "pooling" and "dropout" not in each.op]
    if not maps:
        raise LayerError(f"{net.name} has no map of more than one position, so there is no layer to look at")
    return named(net, maps[-1].address)


def middle_map(net: Classifier) -> str:
    """The last map of the last stage but one: of many places still, and of parts of objects; else the last map."""
    return (*stages(net)[-2:-1], last_map(net))[0]


def named(net: Classifier, operation: str) -> str:
    """The address of the outermost module that hands an operation's result on, or the operation's own."""
    modules = [each.address for each in trace(net) if not each.op and each.address and each.made_by == operation]
    return min(modules, key=_depth, default=operation)


def stages(net: Classifier, count: int = 4) -> tuple[str, ...]:
    """Addresses of maps from shallow to deep: the last one at each resolution, of the outermost module that has one.

    At most `count` of them, the deepest kept; where no module has maps, operations stand in.
    """
    seen = trace(net)
    padded = {each.address for each in seen if each.op == "pad"}  # of a resolution that nothing else has
    modules = [each for each in seen if each.spatial and not each.op and each.address and each.made_by not in padded]
    maps = modules or [each for each in seen if each.spatial and each.kind not in ("pooling", "layout")]
    best: dict[tuple[int, ...], Seen] = {}
    for each in maps:
        known = best.get(each.shape[2:])
        if known is None or _depth(each.address) <= _depth(known.address):
            best[each.shape[2:]] = each
    order = {each.address: position for position, each in enumerate(seen)}
    return tuple(sorted((each.address for each in best.values()), key=order.__getitem__)[-count:])


def _depth(path: str) -> int:
    return path.count(".")


#: what cannot be written through; an array of numpy's or a tensor's storage can
_HARMLESS = (Tensor, tuple, list, dict, int, float, complex, str, type(None), torch.dtype, torch.device, torch.layout)
#: what hands a tensor's memory out to another that tells nothing of what it writes, or exchanges it
_EXPOSING = {Tensor.data_ptr, Tensor.set_, Tensor.data.__get__, Tensor.data.__set__}  # type: ignore[attr-defined]


class Capture(Lens):
    """Keeps the outputs at `layers` (None: at every module), and ends the pass after the last of them.

    What is kept stays as it was when it was made: where the network would overwrite it, the operation writes elsewhere,
    and the network's tensor is given what was written there; where views of it are about, the kept one is copied.
    """

    def __init__(self, module: nn.Module, layers: Iterable[str] | None = None, *, stop: bool = True) -> None:
        super().__init__(module)
        self.kept: dict[str, Tensor] = {}
        self._wanted = None if layers is None else set(layers)
        self._stop = stop and self._wanted is not None
        if not any(":" in address for address in self._wanted or ()):
            self.needs = "outputs"
        self._storages: dict[int, list[str]] = {}
        self._viewed: set[int] = set()
        self.overwritten: set[str] = set()  # by operations that are written in place, as those of modules are not
        self.exposed = False  # memory was handed out that can be written to without a tensor telling of it

    def ignores(self, spelling: Spelling) -> bool:
        return not (spelling.in_place or spelling.takes_inplace or spelling.kind == "layout")

    def operation(self, call: Call) -> Any:
        result = self._beside(call) if call.in_place else call.run()
        if call.kind == "layout" and not call.in_place:
            self.exposed |= call.func in _EXPOSING
            self._viewed.update(tensor.untyped_storage().data_ptr() for tensor in call.tensors())
        if self._wanted is not None and call.address in self._wanted:
            self._keep(call.address, result)
        return result

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().other(func, args, kwargs)
        self.exposed |= func in _EXPOSING or not isinstance(result, _HARMLESS)
        # what it answers may be a view of what it was given, and then lies in the same memory
        self._viewed.update(tensor.untyped_storage().data_ptr() for tensor in ops.tensors(result))
        return result

    def output(self, address: str, result: Any) -> Any:
        if self._wanted is None or address in self._wanted:
            self._keep(address, result)
        return result

    def _keep(self, address: str, result: Any) -> None:
        tensor = result if isinstance(result, Tensor) else next(ops.tensors(result), None)
        if tensor is not None:
            self.kept[address] = tensor.detach()  # its own handle: the network may give its own other contents
            self._storages.setdefault(tensor.untyped_storage().data_ptr(), []).append(address)
        if self._stop and self._wanted is not None and len(self.kept) == len(self._wanted):
            raise _Stop

    def _beside(self, call: Call) -> Any:
        """Run an operation in place, and keep what it would have overwritten."""
        target = next(call.tensors(), None)
        if target is None:
            return call.run()
        place = target.untyped_storage().data_ptr()
        kept = self._storages.pop(place, ())
        if not kept:
            return call.run()
        if call.spelling.in_place:
            self.overwritten.update(kept)
        elsewhere = None if place in self._viewed or target._is_view() else call.elsewhere()
        if elsewhere is not None:
            made = elsewhere().to(target.dtype)  # in place, the type stays
            if made.untyped_storage().data_ptr() == place:  # nothing was written: dropout, evaluating
                self._storages[place] = list(kept)
            target.data = made
            return target
        copies: dict[object, Tensor] = {}  # one layer often goes by several addresses
        for address in kept:
            held = self.kept[address]
            same = (held.data_ptr(), held.shape, held.stride())
            if same not in copies:
                copies[same] = held.clone()
            self.kept[address] = copies[same]
        return call.run()


def capture(net: Classifier, images: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The outputs of `layers` (addresses; None: of every module) for a batch of images, detached.

    At most one forward pass, ended after the last layer that is wanted. For every module the first pass of a network is
    looked at, operation by operation, and later ones have plain hooks only; the once or twice that these miss something
    written in place, a second pass follows. Raises `LayerError` for an unknown layer.
    """
    if layers is None:
        with torch.no_grad():
            return _everything(net, images)
    wanted = [find(net, layer) for layer in layers]
    lens = Capture(net.module, wanted)
    with torch.no_grad(), contextlib.suppress(_Stop):
        net.logits(images, lambda: lens)
    return {address: lens.kept[address] for address in wanted}


@dataclass
class _Habits:
    """What a pass of the capture lens showed of a network, so that the next ones can do with plain hooks."""

    structure: object
    addresses: list[str]
    overwritten: set[str]
    hooks: bool
    learned: bool = False


_HABITS: weakref.WeakKeyDictionary[Classifier, _Habits] = weakref.WeakKeyDictionary()


def _everything(net: Classifier, images: Tensor) -> dict[str, Tensor]:
    """The first pass is the lens's, and later ones by hooks; where one of these was wrong, the lens's pass follows it.

    Hooks that were wrong twice, or other than by what was overwritten, are not tried again on this network.
    """
    habits = _HABITS.get(net)
    taps = Taps(net.module, habits.overwritten if habits else frozenset())
    structure = taps.structure
    if habits is not None and habits.structure != structure:
        habits = None
    if habits is not None and habits.hooks and possible():
        net.logits(images, lambda: taps)
        overwritten = taps.overwritten()
        told = taps.told and list(taps.kept) == habits.addresses
        if told and not overwritten:
            return taps.kept
        habits.hooks, habits.learned = told and not habits.learned, True
        habits.overwritten |= overwritten
    lens = Capture(net.module)
    net.logits(images, lambda: lens)
    if habits is None:
        hooks = not (lens.exposed or taps.opaque)
        _HABITS[net] = _Habits(structure, list(lens.kept), lens.overwritten, hooks)
    return lens.kept


class _Operation(Lens):
    """Shows one operation's result to `change`, and answers what that answers."""

    def __init__(self, module: nn.Module, address: str, change: Callable[[Any], Any]) -> None:
        super().__init__(module)
        self._address, self._change = address, change

    def operation(self, call: Call) -> Any:
        result = call.run()
        return self._change(result) if call.address == self._address else result


class Cut:
    """A context that cuts the pass at `layer`: what comes before has no gradient, `leaf` is its output, what follows has one.

    So the gradient with respect to a layer costs the backward pass of what follows it, and no more. A module's output is
    cut by one hook on it, which the context takes away again; only an operation's needs the lens.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        self.layer = layer
        self.leaf: Tensor | None = None
        self._module = module

    def __enter__(self) -> Cut:
        self._undo = contextlib.ExitStack()
        self._undo.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        torch.set_grad_enabled(False)
        if ":" in self.layer:
            self._undo.enter_context(_Operation(self._module, self.layer, self._cut))
        else:
            path, _, again = self.layer.partition("@")
            self._calls_left = int(again or 1)
            hook = self._module.get_submodule(path).register_forward_hook(self._left)
            self._undo.callback(hook.remove)
        return self

    def __exit__(self, *error: Any) -> None:
        self._undo.close()

    def _left(self, module: nn.Module, inputs: Any, result: Any) -> Any:
        self._calls_left -= 1
        return self._cut(result) if self._calls_left == 0 else None

    def _cut(self, result: Any) -> Tensor:
        if not isinstance(result, Tensor):
            raise LayerError(f"{self.layer} answers {type(result).__name__}, not one tensor; choose a layer inside it")
        torch.set_grad_enabled(True)
        with torch._C.DisableTorchFunction():  # cutting is not the network's, should another lens look on
            if (
                result._is_view()
            ):  # a view made without gradients cannot be written to; whoever uses it uses this answer
                self.leaf = result.detach().requires_grad_()
                return self.leaf.clone()
            # written back, because the network may go on with the tensor that it gave, and ignore this answer
            self.leaf = result.detach().clone().requires_grad_()
            return result.copy_(self.leaf)
