"""LRP beside Zennit and beside plain passes; as a program, the memory of one side in a process of its own.

python -m benchmarks.relevance NET COUNT SIDE
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, table, take_turns
from benchmarks.nets import pixels, ready
from seewhy.classifier import Classifier

SIDES = ("seewhy", "zennit")
TARGET = 7


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


def sides(name: str, count: int) -> tuple[Classifier, dict[str, Callable[[], object]]]:
    """What is compared: the same module, frozen, in the layout that is fastest."""
    from seewhy.explain import LRP

    net, images = ready(name), pixels(count)
    module, given = net.module.eval().requires_grad_(False), net.normalise(images)
    return net, {
        "seewhy": partial(LRP(), net, images, TARGET),
        "zennit": partial(zennit, module, given),
        "forward + backward": partial(both, module, given),
    }


def lrp() -> list[str]:
    """Time and memory of ε-plus-flat, and what it conserves on a trained network."""
    rows: list[Row] = []
    for name in ("resnet50", "vgg16"):
        for count in (1, 16):
            contestants = sides(name, count)[1]
            timing = take_turns(contestants, turns=9 if count == 1 else 2, warm=int(count == 1))
            ours, theirs = contestants["seewhy"]().values, contestants["zennit"]()  # type: ignore[attr-defined]
            difference = float((ours - theirs).norm() / theirs.norm())  # type: ignore[attr-defined]
            peaks = {side: _peak(name, count, side) for side in SIDES}
            to_peer, *quarters = timing.ratio("seewhy", "zennit")
            to_floor, *_ = timing.ratio("seewhy", "forward + backward")
            rows.append(
                (
                    name,
                    str(count),
                    *(f"{timing.median(side) * 1e3:.0f}" for side in contestants),
                    f"**{to_peer:.2f} ×** ({quarters[0]:.2f} to {quarters[1]:.2f})",
                    f"**{to_floor:.2f} ×**",
                    f"{peaks['seewhy']:.2f} / {peaks['zennit']:.2f} GB, **{peaks['seewhy'] / peaks['zennit']:.2f} ×**",
                    f"{difference:.0e}",
                )
            )
    head = (
        "net",
        "images",
        "seewhy, ms",
        "Zennit, ms",
        "forward + backward, ms",
        "to Zennit (quartiles); wanted ≤ 0.6",
        "to forward + backward; wanted ≤ 3",
        "memory added, seewhy / Zennit; wanted ≤ 0.5 at 16",
        "relative difference",
    )
    return [
        "## LRP, ε-plus-flat, beside Zennit with its canonizers",
        "",
        "Both on the same frozen channels-last module; nine turns for one image, two for sixteen; memory in processes of "
        "their own. By multiply-adds, z⁺ needs a forward pass and two more like it, forward + backward two: 1.5 × is the limit.",
        "",
        *table(head, rows),
        "",
        *conserved(),
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


def _peak(name: str, count: int, side: str) -> float:
    command = [sys.executable, "-m", "benchmarks.relevance", name, str(count), side]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)) / 1e9


def _measure(name: str, count: int, side: str) -> None:
    from seewhy.engine import Meter

    run = sides(name, count)[1][side]
    with Meter() as meter:
        run()
    sys.stdout.write(json.dumps(meter.cost.peak_bytes))


if __name__ == "__main__":
    _measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])
