"""Activation maximization beside its own passes, and beside lucent where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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
        "ResNet-50's last and first block. Here it runs without what it depends on; kornia's turn and shift are torch's.",
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


def _stand_in() -> None:
    """What lucent imports and is not installed, kornia's two moves among it, each by the shortest call of torch that does it."""

    def rotation(center: Tensor, angle: Tensor, scale: Tensor) -> Tensor:
        turn = torch.deg2rad(angle)
        cos, sin = torch.cos(turn) * scale[:, 0], torch.sin(turn) * scale[:, 0]
        x, y = center[:, 0], center[:, 1]
        top = torch.stack([cos, sin, (1 - cos) * x - sin * y], 1)
        return torch.stack([top, torch.stack([-sin, cos, sin * x + (1 - cos) * y], 1)], 1)

    def warp(images: Tensor, matrix: Tensor, dsize: tuple[int, int]) -> Tensor:
        height, width = dsize
        whole = torch.eye(3).repeat(len(matrix), 1, 1)
        whole[:, :2] = matrix
        norm = torch.tensor([[2 / (width - 1), 0, -1], [0, 2 / (height - 1), -1], [0, 0, 1]])
        theta = (norm @ whole.inverse() @ norm.inverse())[:, :2]
        grid = functional.affine_grid(theta, [*images.shape[:2], *dsize], align_corners=True)
        return functional.grid_sample(images, grid, align_corners=True)

    def translate(images: Tensor, by: Tensor) -> Tensor:
        shift = torch.eye(2, 3).repeat(len(images), 1, 1)
        shift[:, :, 2] = by
        return warp(images, shift, (images.shape[2], images.shape[3]))

    def decorator(caller: Callable[..., Any]) -> Callable[..., Any]:
        return lambda made: lambda *given, **words: caller(made, *given, **words)

    display = SimpleNamespace(display=print, HTML=str)
    parts: dict[str, dict[str, Any]] = {
        "decorator": {"decorator": decorator},
        "IPython": {"display": display},
        "IPython.display": dict(vars(display)),
        "kornia": {"__version__": "0.7", "get_rotation_matrix2d": rotation, "warp_affine": warp},
        "kornia.geometry": {},
        "kornia.geometry.transform": {"translate": translate},
    }
    for name, held in parts.items():
        package = sys.modules.get(name.partition(".")[0])
        ours = package is not None and package.__spec__ is None
        if ours or (package is None and importlib.util.find_spec(name.partition(".")[0]) is None):
            sys.modules[name] = stand_in = ModuleType(name)
            stand_in.__dict__.update(held)


def _lucent(net: Classifier, layer: str) -> Callable[[], Any] | None:
    """lucent's rendering of the same channel at the same size and number of steps, if it can be imported."""
    if importlib.util.find_spec("lucent") is None:
        return None
    _stand_in()
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
