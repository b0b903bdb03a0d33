"""Points of a map moved to a grid, so that no picture hides another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor

from seewhy.errors import InputError
from seewhy.rng import generator

Array = np.ndarray[Any, Any]


@final
@dataclass(frozen=True)
class Grid:
    """Which points lie where on a grid of `shape` (rows, columns): `chosen` (n,) of them in the cells `cells` (n,), row by row.

    No two share a cell. `total` is how many points there are: where n is less, those were drawn by lot.
    """

    shape: tuple[int, int]
    chosen: Tensor
    cells: Tensor
    total: int


def arrange(coordinates: Tensor, limit: int = 1600, seed: int = 0) -> Grid:
    """Move points (N, 2) to a grid, the sum of squared ways being the least that there is (Jonker & Volgenant 1987, SciPy).

    Both are stretched over the unit square. At most `limit` points are taken: the assignment takes O(n³) time and 8 n² bytes.
    The first coordinate grows to the right, the second upwards.

    >>> arrange(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])).cells.tolist()
    [0, 3, 2, 1]
    """
    if limit < 1:
        raise InputError(f"expected a limit of at least 1 image, got {limit}")
    total = len(coordinates)
    chosen = torch.arange(total)
    if total > limit:
        chosen = torch.randperm(total, generator=generator(seed, "grid"))[:limit].sort().values
    points = _unit(coordinates[chosen].double().numpy())
    columns = math.ceil(math.sqrt(len(chosen)))
    rows = -(-len(chosen) // columns)
    down, across = np.divmod(np.arange(rows * columns), columns)
    places = np.stack([across / max(columns - 1, 1), 1 - down / max(rows - 1, 1)], 1)
    ways = ((points[:, None, :] - places[None]) ** 2).sum(2)
    _, cells = linear_sum_assignment(ways)
    return Grid((rows, columns), chosen, torch.from_numpy(cells), total)


def _unit(points: Array) -> Array:
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / np.where(high > low, high - low, 1))
