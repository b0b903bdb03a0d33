"""Depthwise convolutions in bfloat16 whose gradients a CPU finds in a tenth of the time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_backward = torch.ops.aten.convolution_backward
_LAST = torch.channels_last
_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Depthwise(torch.autograd.Function):
    """A depthwise convolution (N, C, H, W) → (N, C, H′, W′) with weights (C, 1, k, k), in the inputs' precision.

    The kernels of CPUs are written for windows of three, for strides of one, and for float32; elsewhere they fall back to
    loops. So the gradient for strided inputs is found in float32, and that of a larger window in windows of three, which
    tile it: dL/dw[i, j] needs only the input shifted by (i, j). The same sums, up to bfloat16's rounding.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=_LAST)
        for_images: Tensor | None = None
        for_weight: Tensor | None = None
        if ctx.needs_input_grad[0]:
            held = (grad, images, weight)
            if ctx.stride != [1, 1]:
                held = (grad.float(), images.float(), weight.float())
            for_images = _gradients(held, ctx.stride, ctx.padding, (True, False))[0].to(images.dtype)
        if ctx.needs_input_grad[1]:
            for_weight = _tiled(grad, images, weight, ctx.stride, ctx.padding)
        return for_images, for_weight, None, None


def _gradients(
    held: tuple[Tensor, Tensor, Tensor], stride: list[int], padding: list[int], wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    grad, images, weight = held
    found = _backward(grad, images, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), [*wanted, False])
    return found[0], found[1]


def _tiled(grad: Tensor, images: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    """The gradient for the weights, window of three by window of three."""
    tall, wide = weight.shape[2:]
    if tall <= 3 and wide <= 3:
        return _gradients((grad, images, weight), stride, padding, (False, True))[1]
    padded = F.pad(images, [padding[1], padding[1], padding[0], padding[0]]) if any(padding) else images
    answer = torch.empty_like(weight, dtype=torch.float32)
    height, width = (step * (length - 1) for step, length in zip(stride, grad.shape[2:], strict=True))
    for top, rows in _windows(tall):
        for left, columns in _windows(wide):
            part = padded[:, :, top : top + height + rows, left : left + width + columns].contiguous(
                memory_format=_LAST
            )
            window = weight[:, :, top : top + rows, left : left + columns].contiguous(memory_format=_LAST)
            found = _gradients((grad, part, window), stride, [0, 0], (False, True))[1]
            answer[:, :, top : top + rows, left : left + columns] = found
    return answer.to(weight.dtype)


def _windows(length: int) -> list[tuple[int, int]]:
    """Starts and lengths of the windows of three that cover a length; the last may lie over the one before."""
    if length <= 3:
        return [(0, length)]
    return [(min(start, length - 3), 3) for start in range(0, length, 3)]


class FastDepthwise(TorchFunctionMode):
    """Inside, depthwise convolutions under bfloat16 autocast on a CPU run as `Depthwise`; all else is as it was."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.conv2d, F.conv2d) and torch.is_autocast_enabled("cpu"):
            given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
            if _suits(given):
                dtype = torch.get_autocast_dtype("cpu")
                return Depthwise.apply(  # type: ignore[no-untyped-call]
                    given["input"].to(dtype),
                    given["weight"].to(dtype),
                    _pair(given.get("stride", 1)),
                    _pair(given.get("padding", 0)),
                )
        return func(*args, **kwargs)


def _suits(given: dict[str, Any]) -> bool:
    images, weight, groups = given["input"], given["weight"], given.get("groups", 1)
    return (
        groups > 1
        and images.ndim == 4
        and groups == images.shape[1] == len(weight)
        and images.device.type == "cpu"
        and given.get("bias") is None
        and _pair(given.get("dilation", 1)) == [1, 1]
        and not isinstance(given.get("padding", 0), str)
    )


def _pair(value: Any) -> list[int]:
    whole = [value] if isinstance(value, int) else list(value)
    return (whole * 2)[:2]
