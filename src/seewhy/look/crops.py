"""Crops of images for a figure, each fitted into a square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.look.stream import one_of
from seewhy.look.tally import Rows, Tally


def crops(
    net: Classifier,
    images: Images | Tensor | DataSet,
    state: Tally,
    held: Mapping[str, Rows],
    windows: Mapping[str, Tensor],
    drawn: Mapping[str, Tensor],
    side: int = 64,
) -> dict[str, Tensor]:
    """The drawn units' crops, each fitted into a square: (U, k, 3, side, side) of 8 bits, white beside them.

    Raises `InputError` where an image is not the one that the state has seen.
    """
    found = {a: torch.full((len(u), rows.values.shape[1], 3, side, side), 255, dtype=torch.uint8)
             for (a, rows), u in zip(held.items(), drawn.values(), strict=True)}  # fmt: skip
    wanted: dict[int, list[tuple[str, int, int]]] = {}
    for address, units in drawn.items():
        for row, line in enumerate(held[address].images[units].tolist()):
            for slot, index in enumerate(line):
                if index >= 0:
                    wanted.setdefault(index, []).append((address, row, slot))
    for index, places in sorted(wanted.items()):  # each image is read once
        pixels = one_of(images, index, net)
        state.recognise(index, pixels=pixels)
        for address, row, slot in places:
            top, left, bottom, right = windows[address][drawn[address][row], slot].tolist()
            if bottom > top and right > left:
                found[address][row, slot] = _fitted(pixels[:, top:bottom, left:right], side)
    return found


def _fitted(crop: Tensor, side: int) -> Tensor:
    ratio = side / max(crop.shape[1:])
    size = [max(1, round(length * ratio)) for length in crop.shape[1:]]
    way: dict[str, Any] = {"mode": "nearest"} if ratio > 1 else {"mode": "bilinear", "antialias": True}
    scaled = F.interpolate(crop[None].float(), size=size, **way)[0].clamp(0, 1)
    square = torch.full((3, side, side), 255, dtype=torch.uint8)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    square[:, top : top + size[0], left : left + size[1]] = (scaled * 255).round().byte()
    return square
