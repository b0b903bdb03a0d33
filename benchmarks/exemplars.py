"""Exemplars of every stage of a network: the pass beside a forward pass alone, and the memory of many images.

python -m benchmarks.exemplars COUNT    # the bytes that so many images add at the peak, in a process of its own
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.measure import Row, Timing, process, table, take_turns
from benchmarks.nets import ready
from seewhy.classifier import Classifier
from seewhy.engine import Meter
from seewhy.lens.capture import stages
from seewhy.look import Exemplars
from seewhy.look.tally import Tally
from seewhy.zoo import load

#: of images: of the engine, of a turn; turns, the first of which is not counted
BATCH, TURN, TURNS = 16, 64, 5

#: what memory is measured on: many images soon
SMALL, SIDE, LENGTHS = "efficientnet-lite0,size=96", 96, (1000, 10_000)


def drawn(number: int, count: int, side: int = 224) -> Tensor:
    """Pictures of noise, other ones for each number."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(number))


def stream(count: int) -> Iterator[Tensor]:
    """Small pictures in parts, drawn as they are asked for."""
    for number in range(0, count, TURN):
        yield drawn(number, min(TURN, count - number), SIDE)


def beside_forward(net: Classifier) -> Timing:
    """Turns of the pass over images that are new each time, beside the same images' forward passes alone."""
    net.engine.batch = BATCH  # the same for both
    method = Exemplars(layers=stages(net))
    given = [drawn(number, TURN) for number in range(1 + TURNS)]
    state: Tally | None = None
    place = {"exemplars": 0, "forward": 0}

    def turn(name: str, run: Callable[[int], object]) -> Callable[[], None]:
        def once() -> None:
            run(place[name])
            place[name] += 1

        return once

    def tally(number: int) -> None:
        nonlocal state
        state = method.tally(net, given[number], state, first=number * TURN)

    def forward(number: int) -> None:
        with torch.no_grad():
            net.engine.map(lambda batch, _: net.logits(batch), given[number], "forward")

    return take_turns({"exemplars": turn("exemplars", tally), "forward": turn("forward", forward)}, TURNS, warm=1)


def exemplars(nets: tuple[str, ...] = ("efficientnet-lite0", "resnet50")) -> list[str]:
    """Throughput beside forward only, and peak memory for 1,000 and 10,000 images."""
    rows: list[Row] = []
    for name in nets:
        net = ready(name)
        timing = beside_forward(net)
        ratio, low, high = timing.ratio("forward", "exemplars")
        layers = stages(net)
        units = sum(len(rows.values) for rows in Exemplars(layers=layers).tally(net, drawn(0, 2)).layers.values())
        rows.append(
            (
                name,
                f"{len(layers)}, {units:,}",
                f"{TURN / timing.median('exemplars'):.1f}/s",
                f"{TURN / timing.median('forward'):.1f}/s",
                f"**{ratio:.2f}** ({low:.2f} to {high:.2f})",
                "≥ 0.85",
            )
        )
    few, many = (float(process("exemplars", str(count))) for count in LENGTHS)
    memory = (f"{few / 1e6:.1f} MB", f"{many / 1e6:.1f} MB", f"**{100 * (many / few - 1):+.0f} %**", "± 10 %")
    return [
        "## Exemplars: nine of each unit of every stage, in one pass",
        "",
        f"Pictures of noise, {TURN} new ones a turn after the first {TURN}, in batches of {BATCH} for both.",
        "",
        *table(("net", "layers, units", "exemplars", "forward only", "throughput", "wanted"), rows),
        "",
        f"Memory that the pass adds at its peak, in processes of their own: EfficientNet-Lite0 on pictures of {SIDE} pixels.",
        "",
        *table((*(f"{count:,} images" for count in LENGTHS), "more memory", "wanted"), [memory]),
    ]


def main(count: str) -> None:
    """One measurement of memory, written as a number of bytes."""
    net = load(SMALL)
    net.engine.batch = BATCH
    method = Exemplars(layers=stages(net))
    with Meter() as meter:
        method.tally(net, stream(int(count)))
    print(json.dumps(meter.cost.peak_bytes or 0))


if __name__ == "__main__":
    from seewhy.machine import keep_memory

    keep_memory()
    main(*sys.argv[1:])
