"""LRP beside Zennit and beside plain passes.

python -m benchmarks.relevance NET COUNT SIDE    # one side in a process of its own: its memory and seconds, as JSON
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, at_most, process, table, take_turns
from benchmarks.nets import pixels, plain, ready
from seewhy.classifier import Classifier

TARGET = 7
#: turns, for one image and for a batch
TURNS = {1: 7, 16: 2}
#: to Zennit's time, to its memory in a batch, and to forward + backward
TIME, MEMORY, PASSES = 0.6, 0.5, 3.0


def zennit(module: nn.Module, given: Tensor) -> Tensor:
    """Zennit's ε-plus-flat, with the canonizer that the network needs."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    composite = EpsilonPlusFlat(canonizers=[ResNetCanonizer()] if hasattr(module, "layer1") else [])
    with Gradient(model=module, composite=composite) as attributor:
        relevance: Tensor = attributor(given, lambda logits: torch.eye(logits.shape[1])[[TARGET]] * logits)[1]
    return relevance


def both(module: nn.Module, given: Tensor) -> Tensor:
    """The floor: a forward pass and the gradient of the input."""
    leaf = given.detach().clone().requires_grad_()
    return torch.autograd.grad(module(leaf)[:, TARGET].sum(), leaf)[0]


def sides(name: str, count: int) -> dict[str, Callable[[], Any]]:
    """What is compared: the same module, frozen, in the layout that is fastest."""
    from seewhy.explain import LRP

    net, images = ready(name), pixels(count)
    module, given = net.module.eval().requires_grad_(False), net.normalise(images)
    return {
        "seewhy": partial(LRP(), net, images, TARGET),
        "zennit": partial(zennit, module, given),
        "forward + backward": partial(both, module, given),
    }


def lrp() -> Iterator[list[str]]:
    """Time and memory of ε-plus-flat, and what it conserves on a trained network."""
    rows: list[Row] = []
    for name in ("resnet50", "vgg16"):
        for count, turns in TURNS.items():
            rows.append(_row(name, count, turns))
            yield _page(rows)
    yield [*_page(rows), "", *conserved()]


def _row(name: str, count: int, turns: int) -> Row:
    contestants = sides(name, count)
    ours, theirs = contestants["seewhy"]().values, contestants["zennit"]()
    contestants["forward + backward"]()
    timing = take_turns(contestants, turns, warm=0)
    own, usual = (process("relevance", name, str(count), side) for side in ("seewhy", "zennit"))
    to_peer, *quarters = timing.ratio("seewhy", "zennit")
    to_usual = timing.median("seewhy") / usual["seconds"]
    to_floor, *_ = timing.ratio("seewhy", "forward + backward")
    memory = own["memory"] / usual["memory"]
    return (
        name,
        str(count),
        *(f"{timing.median(side) * 1e3:.0f}" for side in contestants),
        f"**{to_peer:.2f} ×** ({quarters[0]:.2f} to {quarters[1]:.2f})",
        at_most(to_peer, TIME),
        f"{usual['seconds'] * 1e3:.0f}, **{to_usual:.2f} ×**",
        at_most(to_usual, TIME),
        f"**{to_floor:.2f} ×**",
        at_most(to_floor, PASSES),
        f"{own['memory'] / 1e9:.2f} / {usual['memory'] / 1e9:.2f} GB, **{memory:.2f} ×**",
        "–" if count == 1 else at_most(memory, MEMORY),
        f"{float((ours - theirs).norm() / theirs.norm()):.0e}",
    )


def _page(rows: list[Row]) -> list[str]:
    head = (
        *("net", "images", "seewhy, ms", "Zennit on the same module, ms", "forward + backward, ms"),
        *("to Zennit (quartiles)", "wanted", "Zennit as its users run it, ms, and to it", "wanted"),
        *("to forward + backward", "wanted", "memory added, seewhy / Zennit", "wanted", "relative difference"),
    )
    return [
        "## LRP, ε-plus-flat, beside Zennit with its canonizers",
        "",
        "All three take turns on the same frozen channels-last module, with the allocator that keeps its memory, none of which "
        "Zennit's users have; as they run it, frozen too, it is timed in a process of its own. Turns: "
        + ", ".join(f"{turns} for {count} image{'s' * (count > 1)}" for count, turns in TURNS.items())
        + ", after one not counted. Memory is that of a first call, in processes of their own. "
        "By multiply-adds, z⁺ needs a forward pass and two more like it, forward + backward two: 1.5 × is the limit.",
        "",
        *table(head, rows),
    ]


def conserved() -> list[str]:
    """Sums beside logits on EfficientNet-Lite0, whose depthwise convolutions have large biases."""
    from seewhy.explain import LRP, DeepTaylor

    net = ready("efficientnet-lite0")
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-photos"
    photos = sorted(folder.glob("*.JPEG"))[:4]
    images = net.read(*photos) if photos else pixels(4)
    rows: list[Row] = []
    for method in (LRP(), LRP("epsilon-plus"), LRP("epsilon-gamma-box"), DeepTaylor()):
        found = method(net, images)
        pairs = zip(found.values.sum((1, 2, 3)).tolist(), found.score.tolist(), strict=True)
        error = found.measures["conservation error"].median()
        rows.append((method.spec, ", ".join(f"{total:.3f} for {score:.2f}" for total, score in pairs), f"{error:.3f}"))
    module, given = net.module, net.normalise(images[:1] if isinstance(images, Tensor) else images.pixels[:1])
    total = float(zennit(module, given).sum())
    rows.append(
        ("Zennit, EpsilonPlusFlat, first image, class 7", f"{total:.3f} for {float(module(given)[0, TARGET]):.2f}", "")
    )
    return [
        "What is left of the logit at the pixels of EfficientNet-Lite0, "
        + ("four photographs" if photos else "four random pictures")
        + "; the rest is the biases', and the results say so:",
        "",
        *table(("method", "Σ R for logit", "median conservation error"), rows),
    ]


def main(name: str, count: str, side: str) -> None:
    if side == "seewhy":
        from seewhy.machine import keep_memory

        keep_memory()
        run = sides(name, int(count))[side]
    else:
        net = Classifier(plain(name), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, check=False)
        run = partial(zennit, net.module.requires_grad_(False), net.normalise(pixels(int(count))))
    from seewhy.engine import Meter

    with Meter() as meter:
        run()
    seconds = []
    for _ in range(0 if side == "seewhy" else TURNS[int(count)]):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"memory": meter.cost.peak_bytes or 0, "seconds": statistics.median(seconds or [0.0])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
