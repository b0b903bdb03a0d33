"""The vocabulary: every spelling of an operation under one name, with its arguments under one set of names.

A network is not its modules, it is the operations that run. `nn.ReLU`, `F.relu`, `torch.relu`, `x.relu_()` and
`aten::relu_` are one operation here, `relu`; what a lens does with it is one entry of that lens's table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F

Kind = Literal[
    "affine", "normalisation", "rectifier", "gate", "pooling", "arithmetic", "layout", "reduction", "attention", "mask"
]

#: name: (kind, parameters). `x=None` has a default, `*shape` takes the rest. The first is the map that it works on.
VOCABULARY: dict[str, tuple[Kind, str]] = {
    "conv1d": ("affine", "input weight bias=None stride=1 padding=0 dilation=1 groups=1"),
    "conv2d": ("affine", "input weight bias=None stride=1 padding=0 dilation=1 groups=1"),
    "conv_transpose2d": (
        "affine",
        "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    ),
    "linear": ("affine", "input weight bias=None"),
    "matmul": ("affine", "input other"),
    "bmm": ("affine", "input mat2"),
    "addmm": ("affine", "bias input mat2 beta=1 alpha=1"),
    "einsum": ("affine", "equation *operands"),
    "batch_norm": (
        "normalisation",
        "input weight bias running_mean running_var training momentum eps cudnn_enabled=None",
    ),
    "layer_norm": ("normalisation", "input normalized_shape weight=None bias=None eps=1e-05 cudnn_enable=None"),
    "group_norm": ("normalisation", "input num_groups weight=None bias=None eps=1e-05 cudnn_enabled=None"),
    "instance_norm": (
        "normalisation",
        "input weight bias running_mean running_var use_input_stats momentum eps cudnn_enabled=None",
    ),
    "rms_norm": ("normalisation", "input normalized_shape weight=None eps=None"),
    "local_response_norm": ("normalisation", "input size alpha=0.0001 beta=0.75 k=1.0"),
    "normalize": ("normalisation", "input p=2.0 dim=1 eps=1e-12"),
    "relu": ("rectifier", "input inplace=False"),
    "relu6": ("rectifier", "input inplace=False"),
    "hardtanh": ("rectifier", "input min_val=-1.0 max_val=1.0 inplace=False"),
    "leaky_relu": ("rectifier", "input negative_slope=0.01 inplace=False"),
    "prelu": ("rectifier", "input weight"),
    "rrelu": ("rectifier", "input lower=0.125 upper=0.333 training=False inplace=False"),
    "elu": ("rectifier", "input alpha=1.0 inplace=False"),
    "selu": ("rectifier", "input inplace=False"),
    "celu": ("rectifier", "input alpha=1.0 inplace=False"),
    "silu": ("rectifier", "input inplace=False"),
    "gelu": ("rectifier", "input approximate='none'"),
    "hardswish": ("rectifier", "input inplace=False"),
    "mish": ("rectifier", "input inplace=False"),
    "softplus": ("rectifier", "input beta=1 threshold=20"),
    "threshold": ("rectifier", "input threshold value inplace=False"),
    "clamp": ("rectifier", "input min=None max=None"),
    "clamp_min": ("rectifier", "input min"),
    "clamp_max": ("rectifier", "input max"),
    "maximum": ("rectifier", "input other"),
    "minimum": ("rectifier", "input other"),
    "sigmoid": ("gate", "input"),
    "hardsigmoid": ("gate", "input inplace=False"),
    "logsigmoid": ("gate", "input"),
    "tanh": ("gate", "input"),
    "softmax": ("gate", "input dim=None _stacklevel=3 dtype=None"),
    "log_softmax": ("gate", "input dim=None _stacklevel=3 dtype=None"),
    "glu": ("gate", "input dim=-1"),
    "max_pool2d": (
        "pooling",
        "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    ),
    "avg_pool2d": (
        "pooling",
        "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True divisor_override=None",
    ),
    "lp_pool2d": ("pooling", "input norm_type kernel_size stride=None ceil_mode=False"),
    "adaptive_avg_pool2d": ("pooling", "input output_size"),
    "adaptive_max_pool2d": ("pooling", "input output_size return_indices=False"),
    "interpolate": (
        "pooling",
        "input size=None scale_factor=None mode='nearest' align_corners=None recompute_scale_factor=None antialias=False",
    ),
    "mean": ("reduction", "input dim=None keepdim=False dtype=None"),
    "sum": ("reduction", "input dim=None keepdim=False dtype=None"),
    "amax": ("reduction", "input dim=() keepdim=False"),
    "amin": ("reduction", "input dim=() keepdim=False"),
    "max": ("reduction", "input dim=None keepdim=False"),
    "min": ("reduction", "input dim=None keepdim=False"),
    "var": ("reduction", "input dim=None correction=1 keepdim=False"),
    "std": ("reduction", "input dim=None correction=1 keepdim=False"),
    "norm": ("reduction", "input p='fro' dim=None keepdim=False out=None dtype=None"),
    "add": ("arithmetic", "input other alpha=1"),
    "sub": ("arithmetic", "input other alpha=1"),
    "rsub": ("arithmetic", "input other alpha=1"),
    "mul": ("arithmetic", "input other"),
    "div": ("arithmetic", "input other rounding_mode=None"),
    "rdiv": ("arithmetic", "input other"),
    "addcmul": ("arithmetic", "input tensor1 tensor2 value=1"),
    "neg": ("arithmetic", "input"),
    "abs": ("arithmetic", "input"),
    "pow": ("arithmetic", "input exponent"),
    "square": ("arithmetic", "input"),
    "sqrt": ("arithmetic", "input"),
    "rsqrt": ("arithmetic", "input"),
    "reciprocal": ("arithmetic", "input"),
    "exp": ("arithmetic", "input"),
    "log": ("arithmetic", "input"),
    "erf": ("arithmetic", "input"),
    "cat": ("layout", "tensors dim=0"),
    "stack": ("layout", "tensors dim=0"),
    "flatten": ("layout", "input start_dim=0 end_dim=-1"),
    "unflatten": ("layout", "input dim sizes"),
    "view": ("layout", "input *shape"),
    "view_as": ("layout", "input other"),
    "reshape": ("layout", "input *shape"),
    "reshape_as": ("layout", "input other"),
    "permute": ("layout", "input *dims"),
    "transpose": ("layout", "input dim0 dim1"),
    "t": ("layout", "input"),
    "movedim": ("layout", "input source destination"),
    "chunk": ("layout", "input chunks dim=0"),
    "split": ("layout", "input split_size dim=0"),
    "unbind": ("layout", "input dim=0"),
    "narrow": ("layout", "input dim start length"),
    "select": ("layout", "input dim index"),
    "slice": ("layout", "input dim=0 start=None end=None step=1"),
    "getitem": ("layout", "input index"),
    "setitem": ("layout", "input index value"),
    "index_select": ("layout", "input dim index"),
    "squeeze": ("layout", "input *dim"),
    "unsqueeze": ("layout", "input dim"),
    "expand": ("layout", "input *shape"),
    "expand_as": ("layout", "input other"),
    "repeat": ("layout", "input *repeats"),
    "pad": ("layout", "input pad mode='constant' value=None"),
    "roll": ("layout", "input shifts dims=None"),
    "flip": ("layout", "input *dims"),
    "pixel_shuffle": ("layout", "input upscale_factor"),
    "pixel_unshuffle": ("layout", "input downscale_factor"),
    "channel_shuffle": ("layout", "input groups"),
    "contiguous": ("layout", "input memory_format=None"),
    "clone": ("layout", "input memory_format=None"),
    "detach": ("layout", "input"),
    "to": ("layout", "input *target"),
    "type_as": ("layout", "input other"),
    "float": ("layout", "input memory_format=None"),
    "dropout": ("layout", "input p=0.5 training=True inplace=False"),
    "dropout2d": ("layout", "input p=0.5 training=True inplace=False"),
    "alpha_dropout": ("layout", "input p=0.5 training=False inplace=False"),
    "feature_dropout": ("layout", "input p=0.5 train=True"),
    "copy": ("layout", "input other non_blocking=False"),
    "scaled_dot_product_attention": (
        "attention",
        "query key value attn_mask=None dropout_p=0.0 is_causal=False scale=None enable_gqa=False",
    ),
    "multi_head_attention_forward": ("attention", "query key value *rest"),
    "where": ("mask", "condition input other"),
    "masked_fill": ("mask", "input mask value"),
}

#: comparisons make masks of maps; a lens follows them, because `x * (x > 0)` is a rectifier too
COMPARISONS = ("gt", "lt", "ge", "le", "eq", "ne", "sign", "logical_not", "isnan", "isfinite", "heaviside")

#: other names of the same thing, as methods, functions or aten operators
ALIASES: dict[str, str] = {
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add_",
    "__sub__": "sub",
    "__isub__": "sub_",
    "__rsub__": "rsub",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__imul__": "mul_",
    "__truediv__": "div",
    "__itruediv__": "div_",
    "__rtruediv__": "rdiv",
    "__rdiv__": "rdiv",
    "__neg__": "neg",
    "__pow__": "pow",
    "__matmul__": "matmul",
    "__getitem__": "getitem",
    "__setitem__": "setitem_",
    "__gt__": "gt",
    "__lt__": "lt",
    "__ge__": "ge",
    "__le__": "le",
    "__eq__": "eq",
    "__ne__": "ne",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "negative": "neg",
    "absolute": "abs",
    "concat": "cat",
    "concatenate": "cat",
    "mm": "matmul",
    "clip": "clamp",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "special_expit": "sigmoid",
    "split_with_sizes": "split",
    "greater": "gt",
    "less": "lt",
    "max_pool2d_with_indices": "max_pool2d",
    "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d",
    "upsample": "interpolate",
    "index": "getitem",
    "_unsafe_view": "view",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
}

#: aten operators that have a part of the name among their arguments: (op, the argument, its value)
_FIXED: dict[str, tuple[str, str, str]] = {
    "constant_pad_nd": ("pad", "mode", "constant"),
    "upsample_nearest2d": ("interpolate", "mode", "nearest"),
    "_upsample_nearest_exact2d": ("interpolate", "mode", "nearest-exact"),
    "upsample_bilinear2d": ("interpolate", "mode", "bilinear"),
    "upsample_bicubic2d": ("interpolate", "mode", "bicubic"),
}

#: what signatures call a parameter of the vocabulary
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "input": ("self", "tensor", "mat1"),
    "other": ("mat2", "src"),
    "dim": ("axis", "other"),  # max and min take a second map there
    "dim0": ("axis0",),
    "dim1": ("axis1",),
    "keepdim": ("keepdims",),
    "training": ("train",),
    "train": ("training",),
    "correction": ("unbiased",),
    "split_size": ("split_size_or_sections", "split_sizes"),
    "shape": ("size",),
    "repeats": ("size",),
    "dims": ("dim",),
    "index": ("indices",),
    "size": ("output_size",),
    "scale_factor": ("scale_factors",),
    "operands": ("tensors",),
}

#: functions that take a map for its shape and type only
CONSTANTS = frozenset(
    {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"}
    | {"new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"}
)

_NAMESPACES: tuple[Any, ...] = (torch, torch.Tensor, F, torch._C._nn, torch.functional)


class _Required:
    """Marks a parameter without a default."""


@dataclass(frozen=True)
class Spelling:
    """One way to write an operation: its name in the vocabulary, its parameters, and whether it works in place."""

    op: str
    kind: Kind
    parameters: tuple[tuple[str, Any], ...]
    rest: str = ""
    in_place: bool = False
    fixed: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def takes_inplace(self) -> bool:
        """Whether an argument says if it works in place."""
        return any(name == "inplace" for name, _ in self.parameters)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.parameters)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by their names in the vocabulary, defaults filled in."""
        bound: dict[str, Any] = {**dict(self.fixed), **dict(zip(self._names, args, strict=False))}
        for name, default in self.parameters[len(args) :]:
            given = [kwargs[each] for each in (name, *_SYNONYMS.get(name, ())) if each in kwargs]
            if given or default is not _Required:
                bound[name] = given[0] if given else default
        if self.rest:
            rest = args[len(self.parameters) :]
            if len(rest) == 1 and isinstance(rest[0], tuple | list):
                rest = tuple(rest[0])
            elif not rest:
                given = [kwargs[key] for key in (self.rest, *_SYNONYMS.get(self.rest, ())) if key in kwargs]
                rest = tuple(given[0]) if given and isinstance(given[0], tuple | list) else tuple(given[:1])
            bound[self.rest] = rest
        return bound


@dataclass
class Call:
    """One operation as it ran: where (`address`), which (`op`), how it was written (`func`), and with what."""

    spelling: Spelling
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    path: str = ""
    address: str = ""
    index: int = -1

    @property
    def op(self) -> str:
        return self.spelling.op

    @property
    def kind(self) -> Kind:
        return self.spelling.kind

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name."""
        return self.spelling.bind(self.args, self.kwargs)

    @property
    def in_place(self) -> bool:
        """Whether it overwrites its input."""
        spelling = self.spelling
        return spelling.in_place or (spelling.takes_inplace and bool(self.arguments["inplace"]))

    def elsewhere(self) -> Callable[[], Any] | None:
        """The same operation, not in place; None where there is no such spelling."""
        if self.spelling.in_place:
            name = getattr(self.func, "__name__", "")
            twin = getattr(torch.Tensor, name[:-1], None) if name.endswith("_") and not name.endswith("__") else None
            return None if twin is None else partial(twin, *self.args, **self.kwargs)
        if "inplace" in self.kwargs:
            return partial(self.func, *self.args, **{**self.kwargs, "inplace": False})
        place = [name for name, _ in self.spelling.parameters].index("inplace")
        return partial(self.func, *self.args[:place], False, *self.args[place + 1 :], **self.kwargs)

    def run(self) -> Any:
        """Run it as it was written."""
        return self.func(*self.args, **self.kwargs)

    def tensors(self) -> Iterator[Tensor]:
        """The tensors among its arguments."""
        return tensors((self.args, self.kwargs))


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor inside nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)


def subscripts(call: Call) -> tuple[list[str], str]:
    """An einsum's subscripts, with letters in place of dots and the output written out."""
    equation = call.arguments["equation"].replace(" ", "")
    left, arrow, output = equation.partition("->")
    spare = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in equation]
    inputs, most = [], 0
    for letters, tensor in zip(left.split(","), call.arguments["operands"], strict=True):
        hidden = tensor.ndim - len(letters.replace("...", ""))
        most = max(most, hidden if "..." in letters else 0)
        inputs.append(letters.replace("...", "".join(spare[:26][-hidden:]) if hidden else ""))
    dots = "".join(spare[:26][-most:]) if most else ""
    if not arrow:
        every = "".join(inputs)
        output = dots + "".join(sorted(c for c in set(every) - set(dots) if every.count(c) == 1))
    return inputs, output.replace("...", dots)


def spelling(func: Callable[..., Any]) -> Spelling | None:
    """The vocabulary's entry for a function, a method or an aten operator; None if it has none."""
    try:
        return _SPELLINGS[func]
    except KeyError:
        if not isinstance(func, OpOverload):
            return None
    schema = func._schema
    written = schema.name.split("::")[1]
    op, in_place = _canonical(written)
    op, *fixed = _FIXED.get(op, (op,))
    if op not in VOCABULARY:
        return None
    kind, text = VOCABULARY[op]
    named, rest = _parameters(text)
    parameters = tuple(
        (
            _renamed(argument.name, op, named, rest),
            argument.default_value if argument.has_default_value() else _Required,
        )
        for argument in schema.arguments
    )
    # what an overload leaves out has the vocabulary's default
    there = {name for name, _ in parameters}
    left_out = [(name, default) for name, default in named if name not in there and default is not _Required]
    pairs = (*left_out, *([(fixed[0], fixed[1])] if fixed else []))
    made = _SPELLINGS[func] = Spelling(op, kind, parameters, in_place=in_place, fixed=pairs)
    return made


def _renamed(written: str, op: str, named: tuple[tuple[str, Any], ...], rest: str) -> str:
    """An aten parameter's name in the vocabulary."""
    if op == "addmm":  # the one operation whose first argument is not the map
        return {"self": "bias", "mat1": "input"}.get(written, written)
    names = [name for name, _ in named] + [rest]
    if written in names:
        return written
    return next((name for name in names if written in _SYNONYMS.get(name, ())), written)


def _canonical(written: str) -> tuple[str, bool]:
    written = ALIASES.get(written, written)
    if written.endswith("_") and not written.endswith("__"):
        return ALIASES.get(written[:-1], written[:-1]), True
    return written, False


def _parameters(text: str) -> tuple[tuple[tuple[str, Any], ...], str]:
    found: list[tuple[str, Any]] = []
    rest = ""
    for word in text.split():
        name, equals, default = word.partition("=")
        if name.startswith("*"):
            rest = name[1:]
        else:
            found.append((name, _default(default) if equals else _Required))
    return tuple(found), rest


def _default(text: str) -> Any:
    named = {"None": None, "True": True, "False": False, "()": ()}
    if text in named:
        return named[text]
    if text.startswith("'"):
        return text.strip("'")
    return float(text) if "." in text or "e" in text else int(text)


def _spellings() -> dict[Any, Spelling]:
    table: dict[Any, Spelling] = {}
    names = {op: [op, op + "_", "_" + op] for op in VOCABULARY}
    for alias, op in ALIASES.items():
        if op.rstrip("_") in names:
            names[op.rstrip("_")].append(alias)
    for op, written in names.items():
        kind, text = VOCABULARY[op]
        parameters, rest = _parameters(text)
        for name in written:
            in_place = _canonical(name.removeprefix("_") if name == "_" + op else name)[1]
            for namespace in _NAMESPACES:
                func = getattr(namespace, name, None)
                if callable(func):
                    table.setdefault(func, Spelling(op, kind, parameters, rest, in_place))
    # the functional norms order their arguments differently
    own: dict[Any, tuple[str, str]] = {
        F.batch_norm: (
            "batch_norm",
            "input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-05",
        ),
        F.instance_norm: (
            "instance_norm",
            "input running_mean=None running_var=None weight=None bias=None use_input_stats=True momentum=0.1 eps=1e-05",
        ),
        torch.where: ("where", "condition input=None other=None"),
        torch.Tensor.where: ("where", "input condition other"),
    }
    for attribute, op in {"data": "detach", "T": "t", "mT": "t", "H": "t"}.items():
        own[getattr(torch.Tensor, attribute).__get__] = (op, "input")
    for func, (op, text) in own.items():
        parameters, rest = _parameters(text)
        table[func] = Spelling(op, VOCABULARY[op][0], parameters, rest)
    return table


_SPELLINGS: dict[Any, Spelling] = _spellings()
_COMPARISONS = frozenset(
    getattr(namespace, name)
    for name in (*COMPARISONS, "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__")
    for namespace in (torch, torch.Tensor)
    if hasattr(namespace, name)
)


@cache
def named(func: Callable[..., Any]) -> str:
    """What to call a function, in or outside the vocabulary."""
    written = func._schema.name.split("::")[1] if isinstance(func, OpOverload) else getattr(func, "__name__", str(func))
    return _canonical(written)[0]


def is_comparison(func: Callable[..., Any]) -> bool:
    """Whether a function compares: its result is a mask of the map."""
    if isinstance(func, OpOverload):
        return str(func._schema.name).split("::")[1].rstrip("_") in COMPARISONS
    return func in _COMPARISONS
