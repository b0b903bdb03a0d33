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

#: for each operation, whether a call of it rectifies (None: in some places only); all others of the vocabulary have
#: their ordinary gradient
RULES: dict[str, Callable[[Call], bool | None]] = {}

#: rectifiers that are not flat below zero: the papers' rules are for ReLU, so for these the result carries a note
SMOOTH = frozenset(
    {"leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "silu", "gelu", "hardswish", "mish", "softplus"}
)

#: those whose node makes a gradient of its own, which is R or zero
_SWITCHES = frozenset({"relu", "relu6", "hardtanh"})


def rule(*names: str) -> Callable[[Callable[[Call], bool | None]], Callable[[Call], bool | None]]:
    """Register whether an operation rectifies, by its name in the vocabulary or else by its function's.

    One that does gets the lens's backward rule, one that does not its ordinary gradient, and one that does so in some
    places only (None) is refused.

    >>> @rule("cumsum")
    ... def _(call):
    ...     return False
    >>> "cumsum" in RULES
    True
    >>> del RULES["cumsum"]
    """

    def register(rectifies: Callable[[Call], bool | None]) -> Callable[[Call], bool | None]:
        RULES.update(dict.fromkeys(names, rectifies))
        return rectifies

    return register


@rule(*ops.VOCABULARY)
def _never(call: Call) -> bool:
    return False


@rule(*(op for op, (kind, _) in ops.VOCABULARY.items() if kind == "rectifier"))
def _always(call: Call) -> bool:
    return True


@rule("hardtanh", "clamp", "clamp_min")
def _cuts_below(call: Call) -> bool | None:
    return _cuts(call.arguments["input"], call.arguments.get("min_val" if call.op == "hardtanh" else "min"))


rule("clamp_max", "minimum")(_never)


@rule("max", "maximum")
def _larger(call: Call) -> bool | None:
    given = list(call.tensors())
    return len(given) == 2 and _cuts(*given)  # of one map it is a reduction


def _cuts(one: Any, other: Any) -> bool | None:
    """Whether max(one, other) rectifies: where one of the two is a constant that is not below zero."""
    bounds = [each for each in (one, other) if not (isinstance(each, Tensor) and each.requires_grad)]
    if len(bounds) != 1 or bounds[0] is None:  # two maps, or no bound
        return False
    if not isinstance(bounds[0], Tensor):
        return bool(bounds[0] >= 0)
    with torch._C.DisableTorchFunction():
        rectifies = bounds[0] >= 0
        return True if rectifies.all() else None if rectifies.any() else False


class Backward(Lens):
    """Inside, gradients R pass a rectifier y = σ(x) by another rule than σ′(x)·R.

    `guided`: σ′(x)·max(R, 0) (Springenberg et al. 2015, section 3.4). `deconvolution`: max(R, 0), whatever x was
    (Zeiler & Fergus 2014, section 2.1; max-pooling passes back to its maxima, as their switches do). Every other
    operation has its ordinary gradient. For rectifiers that are smooth or leaky the same formulas are used, and
    `notes` says so. A mask computed from the image (`x * (x > 0)`) may be a rectifier in disguise: it is refused.
    """

    needs = "neither"

    def __init__(self, module: nn.Module, rule: Rule) -> None:
        super().__init__(module)
        self.rule = rule
        self.notes: set[str] = set()
        self.rectifiers = 0
        self._masks: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._masked = False

    def follows(self, *values: Any) -> bool:
        return any(tensor.requires_grad for tensor in ops.tensors(values))

    def ignores(self, spelling: Spelling) -> bool:
        return not self._masked and RULES[spelling.op] is _never

    def operation(self, call: Call) -> Any:
        if self._masked and any(tensor in self._masks for tensor in call.tensors()):
            if call.kind != "layout" or call.op == "setitem":
                raise self.unknown(call.op, " with a mask computed from the image, in which a rectifier may hide")
            result = call.run()
            self._mark(result)
            return result
        rectifies = self.follows(call.args, call.kwargs) and RULES[call.op](call)
        if rectifies is None:
            raise self.unknown(call.op, " with a bound that is below zero in some places and not in others")
        if not rectifies:
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
            return self.operation(Call(written, func, args, kwargs))
        return super().other(func, args, kwargs)

    def _mark(self, result: Any) -> None:
        self._masked = True
        self._ignored.clear()
        for tensor in ops.tensors(result):
            self._masks[tensor] = True

    def _rectify(self, call: Call) -> Tensor:
        tensor: Tensor = next(tensor for tensor in call.tensors() if tensor.requires_grad)
        # overwriting a view is done on a copy and copied back, so that the rule also holds where the answer is ignored
        source = tensor.clone() if call.in_place and tensor._is_view() else tensor

        def run(given: Tensor) -> Tensor:
            args = tuple(given if arg is tensor else arg for arg in call.args)
            kwargs = {key: given if arg is tensor else arg for key, arg in call.kwargs.items()}
            value: Tensor = call.func(*args, **kwargs)
            return value

        if self.rule == "guided":
            result: Tensor = run(source)
            node = result.grad_fn
            if node is not None and call.op in _SWITCHES:  # max(σ′·R, 0) is the same, in the node's own memory
                node.register_hook(_cut)
            elif node is not None:  # on its own node: no other one, and nothing more is kept
                node.register_prehook(_keep_positive)
        else:
            result = _Deconvolved.apply(source, run, call.in_place)  # type: ignore[no-untyped-call]
        return result if source is tensor else tensor.copy_(result)


def _cut(fresh: tuple[Tensor | None, ...], _: tuple[Tensor | None, ...]) -> None:
    for each in fresh:
        if each is not None:
            each.clamp_min_(0)


def _keep_positive(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    # not in place: a sum hands one gradient to both its branches
    return tuple(None if each is None else each.clamp_min(0) for each in gradients)


class _Deconvolved(torch.autograd.Function):
    """A rectifier, in place where the network is, whose backward pass keeps what is positive."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, run: Callable[[Tensor], Tensor], in_place: bool) -> Tensor:
        value = run(source)
        if in_place:
            ctx.mark_dirty(source)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.clamp_min(0), None, None
