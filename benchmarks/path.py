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
from torch import Tensor, nn

from benchmarks.measure import Row, at_least, at_most, peak, process, table, take_turns
from benchmarks.nets import NETS, plain, ready
from seewhy.classifier import Classifier
from seewhy.explain.integrated_gradients import FIRST
from seewhy.lens.cost import cost

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
    limits: list[Row] = []
    for name in sorted(NETS):  # the dearest last
        row, limit = _rows(name)
        rows.append(row)
        limits.append(limit)
        yield _page(rows, limits)


def _rows(name: str) -> tuple[Row, Row]:
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
    row = (
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
    return row, _limit(name, net, photo.pixels, taken, timing.median("ours"), steps, error <= TOLERANCE)


def _limit(name: str, net: Classifier, pixels: Tensor, taken: int, seconds: float, steps: int, reached: bool) -> Row:
    """What the gradients that were taken cost at the machine's peak, and what fewer of them than Captum's `steps` can win."""
    forward = cost(net).multiply_adds
    a_second = peak(net, forward, pixels)
    least = taken * 2 * forward / a_second  # the backward pass to the pixels has as many as the forward pass
    most = int(steps / FASTER)
    return (
        name,
        f"{taken}",
        f"{2 * forward / 1e9:.2f} · 10⁹",
        f"{a_second / 1e9:.0f} · 10⁹",
        f"{least:.2f} s",
        f"{seconds / least:.2f} ×",
        ("" if reached else "≥ ") + f"{steps / taken:.1f} ×",
        f"≤ {most}" + (f", fewer than the {FIRST} that it starts with" if most < FIRST else ""),
    )


def _page(rows: list[Row], limits: list[Row]) -> list[str]:
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
    bounds = (
        *("net", "gradients taken", "multiply-adds a gradient", "the machine's peak a second"),
        *("limit: those taken, at that peak", "seewhy, to it", "the most that fewer gradients win"),
        f"gradients that would win {FASTER:g} × by their number alone",
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
        "",
        "What the limit is. A gradient is a forward and a backward pass, for Captum as for seewhy; on one module both pay the "
        "same for it, so that there no more can be won than the ratio of their numbers. That of Captum is the first rung "
        "that happened to be enough, which only one who tried them all knows; seewhy's are all that it took to know that it was "
        f"done. It starts with {FIRST}: where fewer than twice as many are enough for Captum, their number alone cannot hold the "
        "bar. The peak is that of a product of matrices or of the network's own forward passes, whichever does more.",
        "",
        *table(bounds, limits),
    ]


def main(name: str, how: str, steps: str, turns: str) -> None:
    """Captum on the plain module, at its best batch or at its default, which is all steps in one; or seewhy's first call."""
    from seewhy.engine import Meter
    from seewhy.explain import IntegratedGradients
    from seewhy.machine import keep_memory

    net, photo, target = _setting(name)
    if how == "seewhy":
        keep_memory()
        spent = IntegratedGradients(tolerance=TOLERANCE, steps=int(steps))(net, photo, target).cost
        print(json.dumps({"seconds": spent.seconds, "memory": spent.peak_bytes or 0}))
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
