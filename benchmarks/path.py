"""Integrated gradients to a completeness error of 1 %, beside Captum's.

python -m benchmarks.path NET HOW STEPS TURNS    # Captum (best, default) or seewhy by itself: seconds and memory, as JSON
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Row, at_least, at_most, process, table, take_turns
from benchmarks.nets import NETS, plain, ready
from seewhy.classifier import Classifier

#: the numbers of steps that Captum's user would try one after the other; the first that is enough is timed
LADDER = (10, 20, 30, 50, 75, 100, 150, 200)
TOLERANCE, FASTER = 0.01, 2.0
#: the most gradients that seewhy may take
STEPS, TURNS = 256, 2
#: Captum's batch, the better of two sizes; and its default, which is one batch of so many steps
BATCHES, DEFAULT = (4, 16), 50


class _OnPixels(nn.Module):
    """The network with its normalisation, so that both sides go the same way from black."""

    def __init__(self, net: Classifier, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", torch.tensor(net.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(net.std).view(1, 3, 1, 1))

    def forward(self, x: Any) -> Any:
        return self.module((x - self.mean) / self.std)


def captum(module: nn.Module, photo: Any, target: int, steps: int, batch: int | None) -> Any:
    """Captum's integrated gradients from black."""
    from captum.attr import IntegratedGradients as Peer

    return Peer(module).attribute(photo.pixels, target=target, n_steps=steps, internal_batch_size=batch)


def _setting(name: str) -> tuple[Classifier, Any, int]:
    """The network, the photograph and its class."""
    from skimage.data import chelsea

    from seewhy.data.photo import from_array

    net = ready(name)
    photo = from_array(chelsea(), net.preprocess)  # type: ignore[no-untyped-call]
    return net, photo, int(net.predict(photo).argmax())


def path() -> Iterator[list[str]]:
    """Gradient evaluations, time and memory to 1 %, on a photograph."""
    rows: list[Row] = []
    for name in sorted(NETS):  # the dearest last
        rows.append(_row(name))
        yield _page(rows)


def _row(name: str) -> Row:
    from seewhy.explain import IntegratedGradients

    net, photo, target = _setting(name)
    ours = partial(IntegratedGradients(tolerance=TOLERANCE, steps=STEPS), net, photo, target)
    found = ours()
    module = _OnPixels(net, net.module).eval().requires_grad_(False)
    with torch.no_grad():
        rise = float((module(photo.pixels) - module(photo.pixels * 0))[0, target])
    for steps in LADDER:
        error = abs(float(captum(module, photo, target, steps, 16).sum()) - rise) / abs(rise)
        if error <= TOLERANCE:
            break
    timing = take_turns({"ours": ours, "peer": partial(captum, module, photo, target, steps, 16)}, turns=TURNS, warm=0)
    same, low, high = timing.ratio("peer", "ours")
    usual = process("path", name, "best", str(steps), str(TURNS))
    default = process("path", name, "default", str(DEFAULT), "1")
    own = process("path", name, "seewhy", str(STEPS), "1")
    missed = float(found.measures["completeness error"])
    taken, ratio = int(found.measures["steps"]), usual["seconds"] / timing.median("ours")
    return (
        name,
        *(
            f"{count}, {100 * left:.2g} %" + ("" if left <= TOLERANCE else " (not reached)")
            for count, left in ((taken, missed), (steps, error))
        ),
        at_most(taken, steps - 1),
        f"{timing.median('ours'):.2f} s",
        f"{usual['seconds']:.2f} s, {usual['batch']} at a time",
        f"**{ratio:.1f} ×**",
        at_least(ratio, FASTER),
        f"{same:.1f} × ({low:.1f} to {high:.1f})",
        f"{own['memory'] / 1e9:.2f} GB",
        f"{default['memory'] / 1e9:.2f} GB, {default['seconds']:.1f} s",
    )


def _page(rows: list[Row]) -> list[str]:
    head = (
        *(
            "net",
            "seewhy: gradients, error",
            "Captum: gradients, error",
            "wanted",
            "seewhy",
            "Captum",
            "faster",
            "wanted",
        ),
        *("faster than Captum on seewhy's module", "seewhy's memory", "Captum at its default: memory, time"),
    )
    return [
        "## Integrated gradients to a completeness error of 1 %, one photograph, from black",
        "",
        f"Captum's Gauss–Legendre rule with the first number of steps of {', '.join(map(str, LADDER))} that is enough; the "
        "search for it is not counted. It runs in a process of its own, as its users run it, parameters frozen, at the better of "
        f"{' and '.join(map(str, BATCHES))} at a time; and, for comparison, in turns with seewhy on its channels-last module "
        f"with its allocator, 16 at a time. Its default is {DEFAULT} steps in one batch.",
        "",
        *table(head, rows),
    ]


def main(name: str, how: str, steps: str, turns: str) -> None:
    """Captum on the plain module, at its best batch or at its default, which is all steps in one; or seewhy's first call."""
    from seewhy.engine import Meter
    from seewhy.explain import IntegratedGradients
    from seewhy.machine import keep_memory

    net, photo, target = _setting(name)
    if how == "seewhy":
        keep_memory()
        cost = IntegratedGradients(tolerance=TOLERANCE, steps=int(steps))(net, photo, target).cost
        print(json.dumps({"seconds": cost.seconds, "memory": cost.peak_bytes or 0}))
        return
    module = _OnPixels(net, plain(name)).eval().requires_grad_(False)

    def seconds(many: int, batch: int | None) -> float:
        started = time.perf_counter()
        captum(module, photo, target, many, batch)
        return time.perf_counter() - started

    batch = None
    if how == "best":
        most = max(BATCHES)
        seconds(most, most)  # not counted
        batch = min(BATCHES, key=partial(seconds, most))
    with Meter() as meter:
        each = [seconds(int(steps), batch) for _ in range(int(turns))]
    print(json.dumps({"seconds": statistics.median(each), "memory": meter.cost.peak_bytes or 0, "batch": batch}))


if __name__ == "__main__":
    main(*sys.argv[1:])
