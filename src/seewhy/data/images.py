"""The pixel contract: images as the model sees them, and where those pixels lie on the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import InputError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
Fit = Literal["crop", "squash", "pad"]


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes the model's input; lengths in pixels.

    `crop` resizes the shorter side to `resize` and cuts `size` from the centre; `squash` resizes both
    sides to `resize`, whatever the shape; `pad` resizes the longer side to `resize`. What is larger than
    `size` then is cut, what is smaller lies on black. Without `resize`, `crop` just fills `size`, `squash`
    takes its shape, and `pad` fits the whole photograph into it.
    """

    size: tuple[int, int]
    resize: int | None = None
    fit: Fit = "crop"
    interpolation: Interpolation = "bicubic"


@dataclass(frozen=True)
class Geometry:
    """Where the model's input lies on the original photograph.

    `original` is (height, width) after rotation; `box` is (left, top, right, bottom) in the original's
    pixels, and reaches past it where the input was padded; `size` is the model input's (height, width).
    """

    original: tuple[int, int]
    box: tuple[float, float, float, float]
    size: tuple[int, int]

    def project(self, values: Tensor, fill: float = float("nan")) -> Tensor:
        """Lay values (..., h, w) over the original: (..., H, W), `fill` where the model did not look."""
        height, width = self.original
        left, top, right, bottom = self.box
        x = (torch.arange(width, dtype=torch.float64) + 0.5 - left) / (right - left) * 2 - 1
        y = (torch.arange(height, dtype=torch.float64) + 0.5 - top) / (bottom - top) * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).float()[None]
        flat = values.reshape(1, -1, *values.shape[-2:]).float()
        laid = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
        inside = (grid[0].abs() <= 1).all(-1)
        return torch.where(inside, laid, torch.full_like(laid, fill)).reshape(*values.shape[:-2], height, width)


@dataclass(frozen=True)
class Images:
    """A batch as the model sees it: `pixels` (N, 3, H, W), float32 RGB in [0, 1], with names and geometry.

    `notes` holds, for each image, what was done to it that a reader should know (transparency laid over
    white, say); `labels` the true classes (N,) where they are known.
    """

    pixels: Tensor
    names: tuple[str, ...] = ()
    geometry: tuple[Geometry | None, ...] = ()
    labels: Tensor | None = None
    notes: tuple[tuple[str, ...], ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.pixels)
        object.__setattr__(self, "names", self.names or tuple(f"image {i + 1}" for i in range(n)))
        object.__setattr__(self, "geometry", self.geometry or (None,) * n)
        object.__setattr__(self, "notes", self.notes or ((),) * n)
        for word, held in (("names", self.names), ("geometry", self.geometry), ("notes", self.notes)):
            if len(held) != n:
                raise InputError(f"expected {n} {word} for {n} images, got {len(held)}")
        if self.labels is not None and tuple(self.labels.shape) != (n,):
            raise InputError(f"expected labels of shape ({n},), got {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int | slice) -> Images:
        chosen = slice(index, index + 1 or None) if isinstance(index, int) else index
        return Images(
            self.pixels[chosen],
            self.names[chosen],
            self.geometry[chosen],
            None if self.labels is None else self.labels[chosen],
            self.notes[chosen],
        )

    @property
    def shape(self) -> torch.Size:
        return self.pixels.shape

    def with_pixels(self, pixels: Tensor) -> Images:
        """The same photographs with other pixels (an attack's result, say)."""
        return replace(self, pixels=pixels)

    @staticmethod
    def join(parts: Sequence[Images]) -> Images:
        """One batch of several, in order."""
        if not parts:
            raise InputError("expected at least one image, got none")
        known = [part.labels for part in parts]
        labels = [label for label in known if label is not None]
        return Images(
            torch.cat([part.pixels for part in parts]),
            tuple(name for part in parts for name in part.names),
            tuple(geometry for part in parts for geometry in part.geometry),
            torch.cat(labels) if len(labels) == len(parts) else None,
            tuple(note for part in parts for note in part.notes),
        )
