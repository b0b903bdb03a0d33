"""Exemplars of every stage of a network: the pass beside a forward pass alone, and the memory of many images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Row, table, take_turns
from benchmarks.nets import pixels, ready
from seewhy.classifier import Classifier
from seewhy.engine import Meter
from seewhy.lens.capture import stages
from seewhy.look import Exemplars

#: of a part, of a turn, and of the two lengths whose memory is compared
PART, TURN, LENGTHS = 64, 256, (1000, 10_000)


def stream(count: int, part: Tensor) -> Iterator[Tensor]:
    """Different images in parts, all from one: shifted and mirrored."""
    for number in range(0, count, len(part)):
        shifted = part.roll(number // len(part), 3)
        yield shifted[: count - number]


def forward(net: Classifier, count: int, part: Tensor) -> None:
    """The passes alone, in the batches that the engine finds fastest."""
    with torch.no_grad():
        for each in stream(count, part):
            net.engine.map(lambda batch, _: net.logits(batch), each, "forward")


def memory(name: str, count: int) -> float:
    """The bytes that a pass over so many images adds at its peak, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.exemplars", name, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    return float(json.loads(done.stdout))


def exemplars(nets: tuple[str, ...] = ("efficientnet-lite0", "resnet50")) -> list[str]:
    """Throughput beside forward only, and peak memory for 1,000 and 10,000 images."""
    rows: list[Row] = []
    for name in nets:
        net, part = ready(name), pixels(PART)
        method = Exemplars(layers=stages(net))
        pass_ = partial(_tally, method, net, part)
        timing = take_turns({"exemplars": pass_, "forward": partial(forward, net, TURN, part)}, turns=5, warm=1)
        ratio, low, high = timing.ratio("forward", "exemplars")
        few, many = (memory(name, count) for count in LENGTHS)
        units = sum(len(rows.values) for rows in method.tally(net, part[:2]).layers.values())
        rows.append(
            (
                name,
                f"{len(method.layers)}, {units:,}",
                f"{TURN / timing.median('exemplars'):.1f}/s",
                f"{TURN / timing.median('forward'):.1f}/s",
                f"**{ratio:.2f}** ({low:.2f} to {high:.2f})",
                "≥ 0.85",
                f"{few / 1e6:.0f} MB",
                f"{many / 1e6:.0f} MB",
                f"**{100 * (many / few - 1):+.0f} %**",
                "± 10 %",
            )
        )
    head = (
        "net",
        "layers, units",
        "exemplars",
        "forward only",
        "throughput",
        "wanted",
        *(f"{count:,} images" for count in LENGTHS),
        "more memory",
        "wanted",
    )
    return [
        "## Exemplars: nine of each unit of every stage, in one pass",
        "",
        "A synthetic stream. The first parts, in which every image is among the best, count too. Memory is what the pass adds at "
        "its peak, in batches of 16 and a process of its own.",
        "",
        *table(head, rows),
    ]


def _tally(method: Exemplars, net: Classifier, part: Tensor) -> None:
    method.tally(net, stream(TURN, part))


def main(name: str, count: str) -> None:
    """One measurement of memory, written as a number of bytes."""
    net, part = ready(name), pixels(PART)
    net.engine.batch = 16  # the one that a measurement finds fastest may differ from process to process
    method = Exemplars(layers=stages(net))
    with Meter() as meter:
        method.tally(net, stream(int(count), part))
    sys.stdout.write(json.dumps(meter.cost.peak_bytes or 0))


if __name__ == "__main__":
    from seewhy.machine import keep_memory

    keep_memory()
    main(*sys.argv[1:])
