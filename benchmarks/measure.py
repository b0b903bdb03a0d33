"""Timing that holds on a noisy machine: what is compared takes turns, medians are quoted, ratios are made turn by turn."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Row = tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """Seconds of each turn, for each contestant."""

    turns: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.turns[name])

    def ratio(self, name: str, to: str) -> tuple[float, float, float]:
        """The median of the turn-by-turn ratio, with its lower and upper quartile."""
        ratios = sorted(a / b for a, b in zip(self.turns[name], self.turns[to], strict=True))
        quarter = len(ratios) // 4
        return statistics.median(ratios), ratios[quarter], ratios[-1 - quarter]


def take_turns(contestants: dict[str, Callable[[], object]], turns: int = 9, warm: int = 2) -> Timing:
    """Run each contestant once a turn; the first turns are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warm + turns):
        gc.collect()
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - started)
    return Timing(seconds)


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def table(head: Row, rows: list[Row]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows)]
