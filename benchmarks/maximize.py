"""Activation maximization beside its own passes, and beside lucent where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Row, table, take_turns
from benchmarks.nets import ready
from seewhy.classifier import Classifier
from seewhy.lens.reach import reach
from seewhy.look import Maximize

#: an early and a late layer of each net, with lucent's share of the time that we may take there
LAYERS = {
    "resnet50": (("layer1.0", 0.4), ("layer4.2", 0.7)),
    "efficientnet-lite0": (("_blocks.0", 0.4), ("_blocks.15", 0.7)),
}
STEPS, CHANNEL = 16, 3


def maximize() -> list[str]:
    """Time a step beside a forward and backward pass to the same layer, and lucent's."""
    rows: list[Row] = []
    for name, layers in LAYERS.items():
        net = ready(name)
        for layer, share in layers:
            look = Maximize(f"channel({layer};{CHANNEL})", steps=STEPS, snapshots=0)
            contestants: dict[str, Callable[[], Any]] = {
                "seewhy": partial(look, net),
                "passes": partial(_passes, net, layer),
                "end": partial(_end, net, layer),
                "whole": partial(_forward, net),
            }
            peer = _lucent(net, layer)
            if peer is not None:
                contestants["lucent"] = peer
            timing = take_turns(contestants, turns=5, warm=1)
            # three evaluations of the finished image are no steps
            steps = [a - b for a, b in zip(timing.turns["seewhy"], timing.turns["end"], strict=True)]
            ratio = sorted(a / b for a, b in zip(steps, timing.turns["passes"], strict=True))[len(steps) // 2]
            beside = "not installed"
            if peer is not None:
                middle, low, high = timing.ratio("seewhy", "lucent")
                beside = f"**{middle:.2f} ×** ({low:.2f} to {high:.2f})"
            rows.append(
                (
                    name,
                    layer,
                    f"{1000 * sorted(steps)[len(steps) // 2] / STEPS:.1f} ms",
                    f"{1000 * timing.median('passes') / STEPS:.1f} ms",
                    f"**{ratio:.2f} ×**",
                    "≤ 1.1",
                    f"{64 / STEPS * sorted(steps)[len(steps) // 2] / timing.median('whole'):.0f}",
                    beside,
                    f"≤ {share}",
                )
            )
    head = (
        "net",
        "layer",
        "a step",
        "its own forward and backward pass",
        "a step, to its passes",
        "wanted",
        "64 steps, in whole forward passes",
        "time, to lucent's",
        "wanted",
    )
    return [
        "## Activation maximization of one channel, one image, frequency parametrization, all moves",
        "",
        f"Medians of turns of {STEPS} steps. Its own passes: forward to the layer and the gradient of the channel's mean with "
        "respect to the pixels, parameters frozen. lucent took the time of 236 and 84 whole forward passes for 64 steps on "
        "ResNet-50's last and first block.",
        "",
        *table(head, rows),
    ]


def _pixels(net: Classifier) -> Tensor:
    return torch.rand(1, 3, *net.size, generator=torch.Generator().manual_seed(1))


def _passes(net: Classifier, layer: str) -> None:
    for _ in range(STEPS):
        leaf = _pixels(net).requires_grad_()
        torch.autograd.grad(reach(net, leaf, [layer])[layer][:, CHANNEL].mean(), leaf)


def _end(net: Classifier, layer: str) -> None:
    with torch.no_grad():
        for _ in range(2):
            reach(net, _pixels(net), [layer])
    net.predict(_pixels(net))


def _forward(net: Classifier) -> None:
    net.predict(_pixels(net))


def _lucent(net: Classifier, layer: str) -> Callable[[], Any] | None:
    """lucent's rendering of the same channel at the same size and number of steps, if it can be imported."""
    if importlib.util.find_spec("lucent") is None:
        return None
    objectives = importlib.import_module("lucent.optvis.objectives")
    param = importlib.import_module("lucent.optvis.param")
    render = importlib.import_module("lucent.optvis.render")

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            render.render_vis(
                net.module.eval(),
                objectives.channel(layer.replace(".", "_"), CHANNEL),
                param_f=lambda: param.image(net.size[0]),
                thresholds=(STEPS,),
                show_image=False,
                progress=False,
                verbose=False,
            )

    return run
