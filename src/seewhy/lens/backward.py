"""The backward lens: another backward pass for every rectifier, however it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from seewhy.lens import ops
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call, Spelling

Rule = Literal["deconvolution", "guided"]

#: for each operation, whether a call of it rectifies; all others of the vocabulary have their ordinary gradient
RULES: dict[str, Callable[[Call], bool]] = {op: lambda _: False for op in ops.VOCABULARY}

#: rectifiers that are not flat below zero: the papers' rules are for ReLU, so for these the result carries a note
SMOOTH = frozenset(
    {"leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "silu", "gelu", "hardswish", "mish", "softplus"}
)


def rule(*names: str) -> Callable[[Callable[[Call], bool]], Callable[[Call], bool]]:
    """Register whether an operation rectifies, by its name in the vocabulary or else by its function's.

    One that does gets the lens's backward rule, one that does not its ordinary gradient.

    >>> @rule("cumsum")
    ... def _(call):
    ...     return False
    >>> "cumsum" in RULES
    True
    >>> del RULES["cumsum"]
    """

    def register(rectifies: Callable[[Call], bool]) -> Callable[[Call], bool]:
        RULES.update(dict.fromkeys(names, rectifies))
        return rectifies

    return register


@rule(*(op for op, (kind, _) in ops.VOCABULARY.items() if kind == "rectifier"))
def _always(call: Call) -> bool:
    return True


@rule("hardtanh", "clamp", "clamp_min")
def _cuts_below(call: Call) -> bool:
    low = call.arguments.get("min_val" if call.op == "hardtanh" else "min")
    return isinstance(low, int | float) and low >= 0


@rule("clamp_max", "minimum")
def _cuts_above(call: Call) -> bool:
    return False


@rule("maximum")
def _cuts_at_constant(call: Call) -> bool:
    return not all(isinstance(each, Tensor) and each.requires_grad for each in call.arguments.values())


class Backward(Lens):
    """Inside, gradients R pass a rectifier y = σ(x) by another rule than σ′(x)·R.

    `guided`: σ′(x)·max(R, 0) (Springenberg et al. 2015, section 3.4). `deconvolution`: max(R, 0), whatever x was
    (Zeiler & Fergus 2014, section 2.1; max-pooling passes back to its maxima, as their switches do). Every other
    operation has its ordinary gradient. For rectifiers that are smooth or leaky the same formulas are used, and
    `notes` says so. A mask computed from the image (`x * (x > 0)`) may be a rectifier in disguise: it is refused.
    """

    def __init__(self, module: nn.Module, rule: Rule) -> None:
        super().__init__(module)
        self.rule = rule
        self.notes: set[str] = set()
        self.rectifiers = 0
        self._masks: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def follows(self, *values: Any) -> bool:
        return any(tensor.requires_grad for tensor in ops.tensors(values))

    def operation(self, call: Call) -> Any:
        if len(self._masks) and any(tensor in self._masks for tensor in call.tensors()):
            if call.kind != "layout":
                raise self.unknown(call.op, " with a mask computed from the image, in which a rectifier may hide")
            result = call.run()
            self._mark(result)
            return result
        if not self.follows(call.args, call.kwargs) or not RULES[call.op](call):
            return call.run()
        self.rectifiers += 1
        if call.op in SMOOTH:
            self.notes.add(f"{call.op} is not flat below zero; the rule for ReLU was used on it")
        return self._rectify(call)

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
            return self.operation(Call(written, func, args, kwargs, "", f":{name}", -1))
        return super().other(func, args, kwargs)

    def _mark(self, result: Any) -> None:
        for tensor in ops.tensors(result):
            self._masks[tensor] = True

    def _rectify(self, call: Call) -> Tensor:
        tensor: Tensor = next(tensor for tensor in call.tensors() if tensor.requires_grad)
        # overwriting is done on a copy and copied back, so that the rule also holds where the answer is ignored
        args = tuple(arg.clone() if call.in_place and arg is tensor else arg for arg in call.args)
        kwargs = {key: arg.clone() if call.in_place and arg is tensor else arg for key, arg in call.kwargs.items()}
        if self.rule == "guided":
            result: Tensor = _Positive.apply(call.func(*args, **kwargs))  # type: ignore[no-untyped-call]
        else:
            with torch.no_grad():
                value = call.func(*args, **kwargs)
            result = _Through.apply(tensor, value)  # type: ignore[no-untyped-call]
        return tensor.copy_(result) if call.in_place else result


class _Positive(torch.autograd.Function):
    """The identity, whose backward pass keeps what is positive."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp_min(0)


class _Through(torch.autograd.Function):
    """A given value, whose backward pass goes to `source` and keeps what is positive."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp_min(0), None
