"""How far a picture of codes can be believed: what becomes of each code's neighbours in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from seewhy.rng import generator

Array = np.ndarray[Any, Any]

#: up to so many codes all are compared with all; of more, `SOME` drawn by lot are compared with all
ALL, SOME = 10_000, 5_000

#: values of a block of distances in memory
_BLOCK = 2**21


@final
@dataclass(frozen=True)
class Faithfulness:
    """What a map keeps of its codes, asked of `asked` (A,) of them, each left out of its own neighbours.

    `right_map` and `right_codes` (N,) say whether the most frequent class among the k nearest is the code's own: 1, 0, or
    −1 where its class is not known or it was not asked. `trustworthiness` is Venna & Kaski's (2001) and `kept` the mean share
    of the k nearest codes that are among the k nearest in the map; None where there are too few.
    """

    asked: Tensor
    right_map: Tensor
    right_codes: Tensor
    trustworthiness: float | None
    kept: float | None


def faithfulness(codes: Array, coordinates: Array, labels: Array, k: int, seed: int) -> Faithfulness:
    """Compare the k nearest in `coordinates` (N, 2) with those among `codes` (N, D); labels (N,), −1: not known.

    trustworthiness = 1 − 2 / (A k (2N − 3k − 1)) · Σ_i Σ_j max(0, r(i, j) − k) over the k nearest j of i in the map, where
    r(i, j) is the rank of j among i's neighbours by code. Exact up to `ALL` codes. Cost: A·N distances, in float64.
    """
    n = len(codes)
    order = torch.arange(n) if n <= ALL else torch.randperm(n, generator=generator(seed, "faithfulness"))[:SOME]
    asked = order.sort().values
    high = torch.from_numpy(np.array(codes, dtype=np.float64))
    high -= high.mean(0)  # distances stay, and lose no digits to a common offset
    low = torch.from_numpy(np.asarray(coordinates, dtype=np.float64))
    classes = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    right_map, right_codes = torch.full((n,), -1), torch.full((n,), -1)
    beyond, kept = 0.0, 0.0
    rows = max(1, _BLOCK // max(n, high.shape[1], 1))
    length = torch.cat([part.square().sum(1) for part in high.split(rows)])
    for block in asked.split(rows) if k else ():
        apart, near = _squares(high, block, length), _squares(low, block)
        by_code, by_map = (each.topk(k, largest=False).indices for each in (apart, near))
        right_codes[block] = _right(classes, block, by_code)
        right_map[block] = _right(classes, block, by_map)
        for column in by_map.T:
            reach = apart.gather(1, column[:, None])
            rank = 1 + (apart < reach).sum(1)
            beyond += float((rank - k).clamp_min(0).sum())
        kept += float((by_map[:, :, None] == by_code[:, None, :]).any(2).float().sum())
    most = 2 * n - 3 * k - 1
    trusted = 1 - 2 * beyond / (len(asked) * k * most) if k and 2 * k < n else None
    return Faithfulness(asked, right_map, right_codes, trusted, kept / (len(asked) * k) if k else None)


def _squares(points: Tensor, block: Tensor, length: Tensor | None = None) -> Tensor:
    """Squared distances (B, N) of some points to all, to themselves infinite; `length` (N,) their squared lengths."""
    some = points[block]
    if length is None or points.shape[1] <= 3:
        found = (some[:, None, :] - points[None]).square().sum(2)
    else:
        found = (length[block][:, None] + length - 2 * some @ points.T).clamp_min(0)
    found[torch.arange(len(block)), block] = torch.inf
    return found


def _right(classes: Tensor, block: Tensor, neighbours: Tensor) -> Tensor:
    """Whether neighbours (B, k) vote for a code's own class; of equals the first class wins, who has none has no vote."""
    own, votes = classes[block], classes[neighbours]
    count = int(classes.max()) + 1
    if count < 1:
        return torch.full_like(block, -1)
    tally = torch.zeros(len(block), count + 1)
    tally.scatter_add_(1, votes.where(votes >= 0, count), torch.ones_like(votes, dtype=tally.dtype))
    won = tally[:, :count].argmax(1)
    some = (votes >= 0).any(1) & (own >= 0)
    return (won == own).long().where(some, -1)
