"""The reach lens: what layers answer with its way back to the images, in a pass that ends after the last of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from seewhy.classifier import Classifier
from seewhy.lens import ops
from seewhy.lens.capture import _Stop
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call, Spelling


class Reach(Lens):
    """Keeps the outputs at `layers`, differentiable, and with `stop` ends the pass after the last of them.

    A module's output is taken by one hook, an operation's needs every operation to be counted.
    """

    def __init__(self, module: nn.Module, layers: Iterable[str], *, stop: bool) -> None:
        super().__init__(module)
        self.kept: dict[str, Tensor] = {}
        self._wanted, self._stop = frozenset(layers), stop
        self.needs = "operations" if any(":" in layer for layer in self._wanted) else "outputs"

    def ignores(self, spelling: Spelling) -> bool:
        return True

    def operation(self, call: Call) -> Any:
        result = call.run()
        if call.address in self._wanted:
            self._keep(call.address, result)
        return result

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def output(self, address: str, result: Any) -> Any:
        if address in self._wanted:
            self._keep(address, result)
        return result

    def _keep(self, address: str, result: Any) -> None:
        tensor = next(ops.tensors(result), None)
        if tensor is None:
            return
        last = self._stop and len(self.kept) + 1 == len(self._wanted)
        # what runs on may write over it: only the last one is as it stays
        self.kept[address] = tensor if last else tensor.clone()
        if last:
            raise _Stop


def reach(net: Classifier, images: Tensor, layers: Iterable[str], *, logits: bool = False) -> dict[str, Tensor]:
    """The outputs at `layers` (addresses that `find` knows), differentiable; with `logits` the logits too, under "".

    One forward pass, ended after the last layer unless the logits are wanted; none at all where nothing is.
    """
    wanted = tuple(layers)
    if not wanted:
        return {"": net.logits(images)} if logits else {}
    lens = Reach(net.module, wanted, stop=not logits)
    with contextlib.suppress(_Stop):
        answer = net.logits(images, lambda: lens)
        if logits:
            return {**lens.kept, "": answer}
    return lens.kept
