"""The cost lens: how much each operation computes, reads and writes for one image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy.classifier import Classifier
from seewhy.errors import LayerError, nearest
from seewhy.lens import ops
from seewhy.lens.lens import Lens
from seewhy.lens.memory import ByMemory
from seewhy.lens.ops import Call


@dataclass(frozen=True)
class OperationCost:
    """What one operation costs for one image.

    `multiply_adds` counts products that are added up: convolutions, linear layers, matrix products and attention;
    everything else has 0. Its backward pass to its input costs as many again. `parameters` are those of the network
    that it is the first to read, `bytes` what it writes to new memory (0 for views and in place). `kind` is empty for a
    function that is not in the vocabulary. `needs` are the positions of the operations whose results it reads.
    """

    address: str
    op: str
    kind: str
    shape: tuple[int, ...]
    multiply_adds: int
    parameters: int
    bytes: int
    in_place: bool
    dtype: torch.dtype
    needs: frozenset[int]


@dataclass(frozen=True)
class NetworkCost:
    """The costs of a network's operations for one image, in the order in which they run.

    `modules` has, for each module's output that is one tensor, the position of the operation that made it.
    """

    operations: tuple[OperationCost, ...]
    modules: dict[str, int]

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward pass."""
        return sum(each.multiply_adds for each in self.operations)

    @cached_property
    def parameters(self) -> int:
        """Parameters that the pass reads."""
        return sum(each.parameters for each in self.operations)

    @cached_property
    def bytes(self) -> int:
        """Bytes that a forward pass writes to new memory."""
        return sum(each.bytes for each in self.operations)

    def position(self, address: str) -> int:
        """The position of an operation, or of that which made a module's output; raises `LayerError` if there is none."""
        found = self._positions.get(address, self.modules.get(address))
        if found is None:
            near = nearest(address, [*self._positions, *self.modules]) or "; `seewhy model` lists them"
            raise LayerError(f'the network has no layer or operation "{address}"{near}')
        return found

    def after(self, address: str) -> int:
        """Multiply-adds of all that depends on the output at an address: the backward pass from the logits to it."""
        start = self.position(address)
        reached = {start}
        total = 0
        for position, each in enumerate(self.operations[start + 1 :], start + 1):
            if not reached.isdisjoint(each.needs):
                reached.add(position)
                total += each.multiply_adds
        return total

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {each.address: position for position, each in enumerate(self.operations)}


#: from a call and its result to multiply-adds; operations without an entry have none
RULES: dict[str, Callable[[Call, Any], int]] = {}


def rule(*names: str) -> Callable[[Callable[[Call, Any], int]], Callable[[Call, Any], int]]:
    """Register how many multiply-adds an operation of the vocabulary has."""

    def register(made: Callable[[Call, Any], int]) -> Callable[[Call, Any], int]:
        for name in names:
            RULES[name] = made
        return made

    return register


@rule("conv1d", "conv2d")
def _conv(call: Call, result: Tensor) -> int:
    """Each output is a sum over (channels / groups) × kernel."""
    return result.numel() * math.prod(call.arguments["weight"].shape[1:])


@rule("conv_transpose2d")
def _conv_transpose(call: Call, result: Tensor) -> int:
    """Each input is spread over (output channels / groups) × kernel."""
    return int(call.arguments["input"].numel()) * math.prod(call.arguments["weight"].shape[1:])


@rule("linear", "matmul", "bmm", "addmm")
def _product(call: Call, result: Tensor) -> int:
    return result.numel() * int(call.arguments["input"].shape[-1])


@rule("einsum")
def _einsum(call: Call, result: Tensor) -> int:
    """The product of all indices' lengths: all operands at once."""
    inputs, _ = ops.subscripts(call)
    lengths: dict[str, int] = {}
    for letters, tensor in zip(inputs, call.arguments["operands"], strict=True):
        for letter, length in zip(letters, tensor.shape, strict=True):
            lengths[letter] = max(length, lengths.get(letter, 1))
    return math.prod(lengths.values()) if len(inputs) > 1 else 0


@rule("scaled_dot_product_attention")
def _attention(call: Call, result: Tensor) -> int:
    """Queries by keys, then weights by values."""
    query, key = call.arguments["query"], call.arguments["key"]
    return math.prod(result.shape[:-1]) * int(key.shape[-2]) * int(query.shape[-1] + result.shape[-1])


@rule("multi_head_attention_forward")
def _multi_head(call: Call, result: Any) -> int:
    """The projections of (L, N, E) and (S, N, E), attention between them, and the projection of the result."""
    query, key, value = (call.arguments[name] for name in ("query", "key", "value"))
    width = query.shape[-1]
    projections = (2 * query.numel() + key.numel() + value.numel()) * width
    return int(projections + 2 * query.numel() * key.shape[0])


class _Cost(Lens):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.operations: list[OperationCost] = []
        self.modules: dict[str, int] = {}
        self._parameters = {id(parameter): parameter.numel() for parameter in module.parameters()}
        self._makers = WeakTensorKeyDictionary()
        self._writers: ByMemory[frozenset[int]] = ByMemory()

    def operation(self, call: Call) -> Any:
        given = list(call.tensors())
        needs = self._needs(given)
        memories = {tensor.untyped_storage()._cdata for tensor in given}
        result = call.run()
        count = RULES.get(call.op)
        self._add(call.address, call.op, call.kind, given, needs, memories, result, count(call, result) if count else 0)
        if call.in_place:
            target = call.arguments["input"]
            before = self._writers.get(target) or frozenset()
            self._writers[target] = before | {len(self.operations) - 1}
        return result

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        given = list(ops.tensors((args, kwargs)))
        needs = self._needs(given)
        name = ops.named(func)
        if needs and name not in ops.CONSTANTS and any(True for _ in ops.tensors(result)):
            memories = {tensor.untyped_storage()._cdata for tensor in given}
            path = self._stack[-1] if self._stack else ""
            self._add(f"{path}:{name}", name, "", given, needs, memories, result, 0)
        return result

    def output(self, address: str, result: Any) -> Any:
        if isinstance(result, Tensor):
            made = self._needs([result])
            if made:
                self.modules[address] = max(made)
        return result

    def _needs(self, given: Iterable[Tensor]) -> frozenset[int]:
        makers = {self._makers[tensor] for tensor in given if tensor in self._makers}
        return frozenset(makers).union(*(self._writers.get(tensor) or () for tensor in given))

    def _add(
        self,
        address: str,
        op: str,
        kind: str,
        given: list[Tensor],
        needs: frozenset[int],
        memories: set[int],
        result: Any,
        multiply_adds: int,
    ) -> None:
        made = list(ops.tensors(result))
        new = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in made}
        self.operations.append(
            OperationCost(
                address=address,
                op=op,
                kind=kind,
                shape=tuple(made[0].shape) if made else (),
                multiply_adds=multiply_adds,
                parameters=sum(self._parameters.pop(id(tensor), 0) for tensor in given),
                bytes=sum(size for memory, size in new.items() if memory not in memories),
                in_place=not memories.isdisjoint(new) and all(any(t is g for g in given) for t in made),
                dtype=made[0].dtype if made else torch.float32,
                needs=needs,
            )
        )
        for tensor in made:
            self._makers[tensor] = len(self.operations) - 1


def cost(net: Classifier) -> NetworkCost:
    """What each operation of a network costs for one image of the network's own size. One forward pass.

    >>> import torch
    >>> layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 2)]
    >>> costs = cost(Classifier(torch.nn.Sequential(*layers), size=8))
    >>> costs.multiply_adds == 8 * 6 * 6 * 27 + 288 * 2, costs.after("1"), costs.parameters
    (True, 576, 802)
    """
    lens = _Cost(net.module)
    with torch.no_grad():
        net.logits(torch.full((1, 3, *net.size), 0.5), lambda: lens)
    return NetworkCost(tuple(lens.operations), lens.modules)
