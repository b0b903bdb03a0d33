"""Integrated gradients to a completeness error of 1 %, beside Captum's."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Row, table, take_turns
from benchmarks.nets import NETS, ready
from seewhy.classifier import Classifier
from seewhy.engine import Meter

#: the numbers of steps that Captum's user would try one after the other; the first that is enough is timed
LADDER = (10, 20, 30, 50, 75, 100, 150, 200, 300)
TOLERANCE = 0.01


class _OnPixels(nn.Module):
    """The network with its normalisation, so that both sides go the same way from black."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.module = net.module
        self.register_buffer("mean", torch.tensor(net.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(net.std).view(1, 3, 1, 1))

    def forward(self, x: Any) -> Any:
        return self.module((x - self.mean) / self.std)


def path() -> list[str]:
    """Gradient evaluations, time and memory to 1 %, on a photograph."""
    from captum.attr import IntegratedGradients as Peer
    from skimage.data import chelsea

    from seewhy.data.photo import from_array
    from seewhy.explain import IntegratedGradients

    rows: list[Row] = []
    for name in NETS:
        net = ready(name)
        photo = from_array(chelsea(), net.preprocess)  # type: ignore[no-untyped-call]
        target = int(net.predict(photo).argmax())
        ours = partial(IntegratedGradients(tolerance=TOLERANCE, steps=1024), net, photo, target)
        found = ours()
        module = _OnPixels(net).eval()
        with torch.no_grad():
            rise = float((module(photo.pixels) - module(photo.pixels * 0))[0, target])

        def peer(
            steps: int, batch: int | None = 16, module: nn.Module = module, x: Any = photo, c: int = target
        ) -> Any:
            return Peer(module).attribute(x.pixels, target=c, n_steps=steps, internal_batch_size=batch)

        for steps in LADDER:
            error = abs(float(peer(steps).sum()) - rise) / abs(rise)
            if error <= TOLERANCE:
                break
        timing = take_turns({"ours": ours, "peer": partial(peer, steps)}, turns=2, warm=0)
        ratio, low, high = timing.ratio("peer", "ours")
        with Meter() as at_once:
            started = time.perf_counter()
            peer(50, None)
            default = time.perf_counter() - started
        memory = [(cost.peak_bytes or 0) / 1e9 for cost in (found.cost, at_once.cost)]
        rows.append(
            (
                name,
                f"{int(found.measures['steps'])}, {100 * float(found.measures['completeness error']):.2g} %",
                f"{steps}, {100 * error:.2g} %" + ("" if error <= TOLERANCE else " (not reached)"),
                f"{timing.median('ours'):.2f} s",
                f"{timing.median('peer'):.2f} s",
                f"**{ratio:.1f} ×** ({low:.1f} to {high:.1f})",
                "≥ 2, fewer evaluations",
                f"{memory[0]:.2f} GB",
                f"{memory[1]:.2f} GB, {default:.1f} s",
            )
        )
    head = (
        "net",
        "seewhy: gradients, error",
        "Captum: gradients, error",
        "seewhy",
        "Captum",
        "faster",
        "wanted",
        "seewhy's memory",
        "Captum at its default: memory, time",
    )
    return [
        "## Integrated gradients to a completeness error of 1 %, one photograph, from black",
        "",
        f"Captum's Gauss–Legendre rule with the first number of steps of {', '.join(map(str, LADDER))} that is enough, 16 at a "
        "time; the search for it is not counted. Its default is 50 steps in one batch.",
        "",
        *table(head, rows),
    ]
