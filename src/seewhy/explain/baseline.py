"""What stands in for pixels that are taken away: one set of names for baselines and fills."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import SpecError
from seewhy.rng import generator

Baseline = Literal["black", "white", "grey", "mean", "blur", "noise"]
BASELINES: tuple[Baseline, ...] = ("black", "white", "grey", "mean", "blur", "noise")


def known(name: str, owner: str) -> None:
    """Raise `SpecError` where no baseline has that name."""
    if name not in BASELINES:
        raise SpecError(f'expected {owner} {", ".join(BASELINES[:-1])} or {BASELINES[-1]}, got "{name}"')


def baseline(name: str, pixels: Tensor, seed: int = 0) -> Tensor:
    """The stand-in for each of `pixels` (N, 3, H, W), of the same shape, in [0, 1].

    `black`, `white`, `grey` (0, 1, 0.5); `mean` (the image's own mean colour); `blur` (the image without detail: a Gaussian of
    a tenth of its longer side); `noise` (uniform, the same draw for every image).
    """
    if name == "mean":
        return pixels.mean((2, 3), keepdim=True).expand_as(pixels).contiguous()
    if name == "blur":
        return blurred(pixels, max(pixels.shape[2:]) / 10)
    if name == "noise":
        return (
            torch.rand(pixels.shape[1:], generator=generator(seed, "baseline"))
            .to(pixels)
            .expand_as(pixels)
            .contiguous()
        )
    return torch.full_like(pixels, {"black": 0.0, "white": 1.0, "grey": 0.5}[name])


def blurred(pixels: Tensor, deviation: float) -> Tensor:
    """Images (N, C, H, W) under a Gaussian of `deviation` pixels, the border repeated."""
    reach = max(1, round(3 * deviation))
    offsets = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-offsets.square() / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).expand(pixels.shape[1], 1, -1)
    channels = pixels.shape[1]
    rows = F.conv2d(F.pad(pixels, (0, 0, reach, reach), mode="replicate"), kernel[..., None], groups=channels)
    return F.conv2d(F.pad(rows, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None], groups=channels)
