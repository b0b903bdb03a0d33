"""Every module's output by plain hooks: the quick way where no operation need be seen, and what says that it failed."""

from __future__ import annotations

import threading
from collections.abc import Set
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from seewhy.lens import ops

#: how many share a memory; without it nobody knows whether a view of a tensor is about
_SHARERS = getattr(torch._C, "_storage_Use_Count", None)
#: modules that run other code where a lens looks on, or code that is not Python's
_OPAQUE = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer, torch.jit.ScriptModule)


def possible() -> bool:
    """Whether a pass just now would be a plain one: nothing else looks on, and tensors tell when they are written to."""
    return not (
        _SHARERS is None
        or torch.is_inference_mode_enabled()
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
    )


class Taps:
    """A context that keeps every module's output in `kept`, as it was when it was made; of those `copied`, a copy.

    PyTorch's own modules that would work in place write elsewhere, and their input is given that memory, unless others
    look at what it had. Whatever else is written in place shows in the tensors' versions afterwards: `kept` holds if
    nothing was `overwritten` and all was `told`. The pass itself is as without the context, whether it holds or not.
    What is written through memory that a tensor handed out, `.data` or an array of NumPy's, shows nowhere: networks that
    do so are not for taps.
    """

    def __init__(self, module: nn.Module, copied: Set[str] = frozenset()) -> None:
        self.kept: dict[str, Tensor] = {}
        self.told = True
        self._modules = list(module.named_modules())
        self._paths = {id(child): path for path, child in self._modules}
        self._copied = copied
        self._beside: list[nn.Module] = []
        self._versions: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self._handles: dict[int, int] = {}  # identity of a tensor: how many of `kept` share its memory
        self._alive: list[Tensor] = []  # so that no other tensor gets an identity

    @property
    def structure(self) -> object:
        """The path and type of every module, and whether it is compiled: what was learned of the network lasts as long."""
        return [(path, type(child), child._compiled_call_impl is None) for path, child in self._modules]

    @property
    def opaque(self) -> bool:
        """Whether hooks would not hear of all that a lens does."""
        return any(
            isinstance(child, _OPAQUE) or child._compiled_call_impl is not None or "_orig_mod" in child._modules
            for _, child in self._modules
        )

    def overwritten(self) -> set[str]:
        """The addresses whose tensors were written to after they were kept."""
        return {address for address, version in self._versions.items() if self.kept[address]._version != version}

    def __enter__(self) -> Taps:
        self._thread = threading.get_ident()
        for _, module in self._modules:
            own = module.__dict__
            if own.get("inplace") and "forward" not in own and type(module).__module__.startswith("torch.nn.modules."):
                own["forward"] = partial(self._elsewhere, module)
                self._beside.append(module)
        self._hook = hooks.register_module_forward_hook(self._answered)
        return self

    def __exit__(self, *error: Any) -> None:
        self._hook.remove()
        for module in self._beside:
            del module.__dict__["forward"]

    def _answered(self, module: nn.Module, _: Any, result: Any) -> None:
        path = self._paths.get(id(module))
        # hooks are the process's: another thread's modules, and modules that are not this network's, pass by
        if path is None or threading.get_ident() != self._thread:
            return
        self._calls[path] = again = self._calls.get(path, 0) + 1
        address = path if again == 1 else f"{path}@{again}"
        tensor = result if isinstance(result, Tensor) else next(ops.tensors(result), None)
        if tensor is None:
            return
        held = tensor.detach()  # its own handle: the network may give its own other contents
        if address in self._copied:
            held = held.clone()
        else:
            self._handles[id(tensor)] = self._handles.get(id(tensor), 0) + 1
            self._alive.append(tensor)
        self.kept[address] = held
        if held.is_inference():  # made in a mode of the network's own, where versions are not counted
            self.told = False
        else:
            self._versions[address] = held._version

    def _elsewhere(self, module: nn.Module, input: Tensor) -> Any:
        """What a module in place answers, written elsewhere and then given to its input, which others may go on to read."""
        run, own = type(module).forward, module.__dict__
        if threading.get_ident() != self._thread or not self._spared(input):
            return run(module, input)
        in_place, own["inplace"] = own["inplace"], False
        try:
            made = run(module, input)
        finally:
            own["inplace"] = in_place
        if made is not input:  # dropout, evaluating, writes nothing
            input.data = made.to(input.dtype)
            self._handles.pop(id(input), None)
        return input

    def _spared(self, tensor: Tensor) -> bool:
        """Whether a tensor is kept, and its memory can be taken from it: nothing shares it but what is kept."""
        handles = self._handles.get(id(tensor))
        if handles is None or type(tensor) is not Tensor or tensor.layout is not torch.strided:
            return False
        memory = tensor.untyped_storage()  # which is one that shares it, beside the tensor
        return bool(_SHARERS(memory._cdata) == 2 + handles)  # type: ignore[misc]
