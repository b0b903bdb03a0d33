"""Timing that holds on a noisy machine: what is compared takes turns, medians are quoted, ratios are made turn by turn."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from seewhy.classifier import Classifier

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


def bar(wanted: str, holds: bool) -> str:
    """What was wanted, and whether it holds."""
    return f"{wanted}: {'holds' if holds else '**missed**'}"


def at_least(value: float, wanted: float, unit: str = "") -> str:
    """A bar that a value should reach, and whether it does."""
    return bar(f"≥ {wanted:g}{unit}", value >= wanted)


def at_most(value: float, wanted: float, unit: str = "") -> str:
    """A bar that a value should stay under, and whether it does."""
    return bar(f"≤ {wanted:g}{unit}", value <= wanted)


def process(module: str, *words: str) -> Any:
    """What a module of the benchmarks answers as a program, in a process of its own: the JSON of its last line.

    The process is set up by itself alone: a peer's has the allocator and the threads as they come to its users.
    """
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@cache
def rate(dtype: torch.dtype = torch.float32) -> float:
    """Multiply-adds that the machine does a second at its best, in a large product of matrices."""
    size = 2048
    square = torch.randn(size, size).to(dtype)
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        square @ square
        seconds.append(time.perf_counter() - started)
    return float(size**3 / min(seconds))


def peak(net: Classifier, multiply_adds: int, image: Tensor) -> float:
    """Multiply-adds that the machine does a second: in a product of matrices or in this network's passes, whichever does more.

    16 images pass at a time, of `multiply_adds` each.
    """
    given = net.normalise(image.expand(16, -1, -1, -1))
    rates = [rate()]
    with torch.no_grad(), net.session():
        for _ in range(5):
            started = time.perf_counter()
            net.module(given)
            rates.append(16 * multiply_adds / (time.perf_counter() - started))
    return max(rates)


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def table(head: Row, rows: list[Row]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows)]
