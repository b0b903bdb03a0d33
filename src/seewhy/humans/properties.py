"""What can be measured of a picture without asking anybody what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import InputError

#: a Sobel gradient of the grey values, in their unit a pixel, from which a pixel lies on an edge
EDGE = 0.1

#: grey levels whose shares the entropy is taken of
LEVELS = 256

#: weights of red, green and blue in a grey value (Rec. 709)
_GREY = (0.2126, 0.7152, 0.0722)


def measured(pixels: Tensor) -> Tensor:
    """Every property of `PROPERTIES`, in that order, of pixels (N, 3, H, W) in [0, 1]: (N, P), float32.

    They are taken of the pixels that the model sees, after resizing, so that images of different sizes can be compared.
    Raises `InputError` for pictures of fewer than 3 × 3 pixels.

    >>> dict(zip(PROPERTIES, measured(torch.full((1, 3, 8, 8), 0.5))[0].tolist()))["brightness"]
    0.5
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3 or min(pixels.shape[2:]) < 3:
        raise InputError(f"expected pixels (N, 3, H, W) of at least 3 × 3, got {tuple(pixels.shape)}")
    rgb = pixels.detach().float().cpu()
    grey = (rgb * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(1)
    return torch.stack([measure(rgb, grey) for measure in _MEASURES.values()], 1)


def _brightness(_: Tensor, grey: Tensor) -> Tensor:
    return grey.mean((1, 2))


def _contrast(_: Tensor, grey: Tensor) -> Tensor:
    return grey.flatten(1).std(1, unbiased=False)


def _sharpness(_: Tensor, grey: Tensor) -> Tensor:
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    return F.conv2d(grey[:, None], kernel[None, None]).flatten(1).var(1, unbiased=False)


def _colourfulness(rgb: Tensor, _: Tensor) -> Tensor:
    red, green, blue = rgb.flatten(2).unbind(1)
    across, along = red - green, (red + green) / 2 - blue
    spread = (across.var(1, unbiased=False) + along.var(1, unbiased=False)).sqrt()
    return spread + 0.3 * (across.mean(1).square() + along.mean(1).square()).sqrt()


def _edges(_: Tensor, grey: Tensor) -> Tensor:
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    gradients = F.conv2d(grey[:, None], torch.stack([across, across.T])[:, None])
    return (gradients.square().sum(1).sqrt() > EDGE).float().mean((1, 2))


def _entropy(_: Tensor, grey: Tensor) -> Tensor:
    levels = (grey * (LEVELS - 1)).round().long().clamp(0, LEVELS - 1).flatten(1)
    shares = torch.stack([row.bincount(minlength=LEVELS) for row in levels]).float() / levels.shape[1]
    return torch.special.entr(shares).sum(1) / torch.log(torch.tensor(2.0))


_MEASURES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "colourfulness": _colourfulness,
    "edges": _edges,
    "entropy": _entropy,
}

#: each property and what it is, in a clause
PROPERTIES: Mapping[str, str] = {
    "brightness": "the mean grey value (Rec. 709, of the sRGB values), from 0 to 1",
    "contrast": "the standard deviation of the grey values (RMS contrast)",
    "sharpness": "the variance of the grey values' Laplacian: low where a picture is blurred",
    "colourfulness": "Hasler and Süsstrunk's measure (2003) on values from 0 to 1",
    "edges": f"the share of pixels whose Sobel gradient exceeds {EDGE} a pixel",
    "entropy": f"the entropy of the grey values in {LEVELS} levels, in bits",
}
