"""What every lens is: it sees each operation that a network runs, whatever its spelling, and where it was called."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from seewhy.errors import UnknownOperation
from seewhy.lens import ops
from seewhy.lens.ops import Call, Spelling

#: what modules ask of tensors most
_QUERIES = (Tensor.dim, Tensor.size, Tensor.shape.__get__, Tensor.ndim.__get__, Tensor.dtype.__get__)  # type: ignore[attr-defined]


class Lens(TorchFunctionMode, ABC):
    """A context in which each operation of `module` is shown to `operation`, which answers its result.

    Addresses: a module's output is its path, `layer4.2` (`layer4.2@2` for its second call); an operation is
    `path:op`, `layer4.2:add` (`layer4.2:relu.2` for the second relu there), the path being that of the innermost
    module that called it. A lens lasts one pass. It leaves nothing behind on the module.
    """

    #: What it must know: where operations are called; or modules' outputs alone, operations having no address; or neither.
    #: Each hooks less than the one before, which on a network of many small modules is a tenth of the time.
    needs: Literal["operations", "outputs", "neither"] = "operations"

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module  # kept alive, so that no other module gets its identity
        self._stack: list[str] = []
        self._handles: tuple[RemovableHandle, ...] = ()
        self._calls: dict[str, int] = {}
        self._index = 0
        self._paths: dict[int, str] = {}
        self._ignored: set[Any] = set(_QUERIES)  # and functions that `ignores` lets pass

    @abstractmethod
    def operation(self, call: Call) -> Any:
        """Answer the result of one operation of the vocabulary: `call.run()`, or something else instead."""

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer the result of a function that is not in the vocabulary: queries of shapes and types, constants, masks.

        Where it makes a map of a map, the lens has no rule for it and raises `UnknownOperation`.
        """
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor | tuple | list | dict):
            return result
        if any(map(Tensor.is_floating_point, ops.tensors(result))):
            name = ops.named(func)
            if name not in ops.CONSTANTS and self.follows(args, kwargs):
                raise self.unknown(name)
        return result

    def follows(self, *values: Any) -> bool:
        """Whether any tensor among the values depends on the images, as far as this lens must know."""
        return False

    def ignores(self, spelling: Spelling) -> bool:
        """Whether an operation may pass unseen, where its address is not needed: the quick way past.

        Asked once a function; a lens that changes its mind clears `_ignored`.
        """
        return False

    def entered(self, inputs: tuple[Any, ...]) -> None:
        """Told what the network gets, as it starts."""

    def output(self, address: str, result: Any) -> Any:
        """Answer a module's output, the same or another; called when the module returns."""
        return result

    def unknown(self, name: str, because: str = "") -> UnknownOperation:
        """The error for an operation that this lens has no rule for."""
        module = type(self).__module__.rpartition(".")[2]
        where = self._stack[-1] if self._stack else self._calling()
        return UnknownOperation(
            f"the {module.replace('_', ' ')} lens has no rule for the operation {name}, called in "
            f"{where or 'the model itself'}{because}; "
            f"register one with seewhy.lens.{module}.rule, or spell the operation otherwise"
        )

    # The machinery

    def _walk(self) -> dict[int, str]:
        found: dict[int, str] = {}
        pending = [("", self._module)]
        while pending:  # in the order of named_modules(), at a fifth of its time
            path, module = pending.pop()
            if id(module) not in found:
                found[id(module)] = path
                prefix = path and path + "."
                pending += [
                    (prefix + name, child) for name, child in reversed(module._modules.items()) if child is not None
                ]
        return found

    def _calling(self) -> str:
        """The path of the innermost module that is running, from the stack of calls."""
        paths = self._paths or self._walk()
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            path = paths.get(id(frame.f_locals.get("self")))
            if path is not None:
                return path
            frame = frame.f_back
        return ""

    def __enter__(self) -> Lens:
        self._thread = threading.get_ident()
        if self.needs != "neither":
            self._paths = self._walk()
        if self.needs == "operations":
            self._handles = (
                hooks.register_module_forward_pre_hook(self._entered),
                hooks.register_module_forward_hook(self._left, always_call=True),
            )
        elif self.needs == "outputs":
            self._handles = (hooks.register_module_forward_hook(self._answered),)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)  # type: ignore[no-untyped-call]
        finally:
            for handle in self._handles:
                handle.remove()
            self._stack.clear()

    def _entered(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        # hooks are the process's: another thread's modules, and modules that are not this network's, pass by
        if threading.get_ident() == self._thread and id(module) in self._paths:
            if not self._stack:
                with torch._C.DisableTorchFunction():  # what the lens computes is not the network's
                    self.entered(inputs)
            self._stack.append(self._paths[id(module)])

    def _left(self, module: nn.Module, _: Any, result: Any) -> Any:
        if threading.get_ident() != self._thread or id(module) not in self._paths or not self._stack:
            return None
        path = self._stack.pop()
        return None if result is None else self._told(path, result)  # None: an exception is on its way

    def _answered(self, module: nn.Module, _: Any, result: Any) -> Any:
        path = self._paths.get(id(module))
        if path is None or threading.get_ident() != self._thread:
            return None
        return self._told(path, result)

    def _told(self, path: str, result: Any) -> Any:
        self._calls[path] = again = self._calls.get(path, 0) + 1
        with torch._C.DisableTorchFunction():
            return self.output(path if again == 1 else f"{path}@{again}", result)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._ignored:
            return func(*args, **kwargs)
        spelling = ops.spelling(func)
        if spelling is None:
            return self.other(func, args, kwargs)
        if self.needs != "operations":
            if self.ignores(spelling):
                self._ignored.add(func)
                return func(*args, **kwargs)
            return self.operation(Call(spelling, func, args, kwargs))
        path = self._stack[-1] if self._stack else ""
        address = f"{path}:{spelling.op}"
        self._calls[address] = again = self._calls.get(address, 0) + 1
        if again > 1:
            address += f".{again}"
        self._index += 1
        return self.operation(Call(spelling, func, args, kwargs, path, address, self._index - 1))
