"""One tuning in a process of its own, which may kill itself at a chosen step: `worker.py TASK`, the task as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from seewhy.data import load
from seewhy.tune import Recipe, loop, tune


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    steps = 0
    step = loop.Loop._step

    def watched(self: loop.Loop, order: torch.Tensor) -> None:
        nonlocal steps
        steps += 1
        step(self, order)
        if steps == task.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    loop.Loop._step = watched  # type: ignore[method-assign]
    loop.OFTEN = task.get("often", loop.OFTEN)
    tune(load(task["data"]), task["model"], Path(task["out"]), Recipe.parse(task["recipe"]))


if __name__ == "__main__":
    main()
