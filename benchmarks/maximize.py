"""Activation maximization beside its own passes, and beside lucent where it is installed.

python -m benchmarks.maximize NET LAYER SIDE    # one process of it: the seconds of a step, as JSON
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Row, at_most, process, table, take_turns
from benchmarks.nets import pixels, plain, ready
from seewhy.classifier import Classifier
from seewhy.lens.reach import reach
from seewhy.look import Maximize
from seewhy.look.parametrize import Frequencies, Moves, colours
from seewhy.rng import generator

#: an early and a late layer of each net, with lucent's share of the time that we may take there
LAYERS = {
    "resnet50": (("layer1.0", 0.4), ("layer4.2", 0.7)),
    "efficientnet-lite0": (("_blocks.0", 0.4), ("_blocks.15", 0.7)),
}
STEPS, CHANNEL, SIDE = 64, 3, 224

#: processes of each side, and the turns of each that count
ROUNDS, TURNS = 2, 2


def maximize() -> list[str]:
    """Time a step beside a forward and backward pass to the same layer, and lucent's."""
    rows: list[Row] = []
    for name, layers in LAYERS.items():
        for layer, share in layers:
            ours: list[dict[str, float]] = []
            beside: list[float] = []
            for _ in range(ROUNDS):  # the sides take turns: the machine is not the same from minute to minute
                ours.append(process("maximize", name, layer, "seewhy"))
                if importlib.util.find_spec("lucent") is not None:
                    beside.append(ours[-1]["seewhy"] / process("maximize", name, layer, "lucent"))
            step, own, ratio, network, more, whole = (
                statistics.median(each[key] for each in ours)
                for key in ("step", "own", "to own", "network", "to network", "whole")
            )
            rows.append(
                (
                    name,
                    layer,
                    f"{1000 * step:.1f} ms",
                    f"{1000 * own:.1f} ms",
                    f"**{ratio:.2f} ×**",
                    at_most(ratio, 1.1),
                    f"{1000 * network:.1f} ms",
                    f"{more:.2f} ×",
                    f"{64 * step / whole:.0f}",
                    f"**{statistics.median(beside):.2f} ×** ({min(beside):.2f} to {max(beside):.2f})"
                    if beside
                    else "not installed",
                    at_most(statistics.median(beside), share) if beside else f"≤ {share}",
                )
            )
    head = (
        "net",
        "layer",
        "a step",
        "its own forward and backward pass",
        "a step, to it",
        "wanted",
        "of it the network",
        "a step, to that alone",
        "64 steps, in whole forward passes",
        "time, to lucent's",
        "wanted",
    )
    return [
        "## Activation maximization of one channel, one image, frequency parametrization, all moves",
        "",
        f"Medians of turns of {STEPS} steps in {ROUNDS} processes. A step's own forward and backward pass: the pixels out of the "
        "spectrum, moved, through the network to the layer, and the gradient of the channel's mean back to the spectrum, "
        "parameters frozen; of it the network: from the pixels to the layer and back to the pixels. lucent's time is that of as "
        "many steps at one size, start and end included on both sides, each in processes of its own, as its users run it: a "
        "module as PyTorch makes it, the allocator as it comes, all threads. It runs without what it depends on; kornia's turn "
        "and shift are torch's.",
        "",
        *table(head, rows),
    ]


def main(name: str, layer: str, side: str) -> None:
    """One side: lucent's seconds a step; or ours, with those of the passes and of a whole forward pass."""
    if side == "lucent":
        run = _lucent(name, layer)
        print(json.dumps(take_turns({side: run}, turns=TURNS, warm=1).median(side) / STEPS))
        return
    from seewhy.machine import keep_memory

    keep_memory()
    net = ready(name)
    image = pixels(1)
    look = Maximize(f"channel({layer};{CHANNEL})", steps=STEPS, snapshots=0)
    contestants: dict[str, Callable[[], Any]] = {
        "seewhy": partial(look, net),
        "own": partial(_own, look, net, layer),
        "network": partial(_network, net, layer, image),
        "end": partial(_end, net, layer, image),
        "whole": partial(net.predict, image),
    }
    timing = take_turns(contestants, turns=TURNS, warm=1)
    # three evaluations of the finished image are no steps
    steps = [a - b for a, b in zip(timing.turns["seewhy"], timing.turns["end"], strict=True)]
    said = {
        "seewhy": timing.median("seewhy") / STEPS,
        "step": statistics.median(steps) / STEPS,
        "whole": timing.median("whole"),
    }
    for part in ("own", "network"):
        said[part] = timing.median(part) / STEPS
        said[f"to {part}"] = statistics.median(a / b for a, b in zip(steps, timing.turns[part], strict=True))
    print(json.dumps(said))


def _own(look: Maximize, net: Classifier, layer: str) -> None:
    """The forward and backward passes of all steps, and nothing beside them."""
    made = Frequencies(net.size, colours())
    moves = Moves(round(look.jitter * min(net.size)), look.scale, look.rotate)
    leaf = made.start([generator(0)]).requires_grad_()
    with net.session():
        for move in moves.draw(0, look.name, STEPS):
            moved = moves(made.image(leaf), move)
            torch.autograd.grad(reach(net, moved, [layer])[layer][:, CHANNEL].mean(), leaf)


def _network(net: Classifier, layer: str, image: Tensor) -> None:
    """Their part in the network."""
    with net.session():
        for _ in range(STEPS):
            leaf = image.detach().requires_grad_()
            torch.autograd.grad(reach(net, leaf, [layer])[layer][:, CHANNEL].mean(), leaf)


def _end(net: Classifier, layer: str, image: Tensor) -> None:
    with torch.no_grad():
        for _ in range(2):
            reach(net, image, [layer])
    net.predict(image)


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


def _lucent(name: str, layer: str) -> Callable[[], None]:
    """lucent's rendering of the same channel, at the same size and in as many steps."""
    _stand_in()
    objectives = importlib.import_module("lucent.optvis.objectives")
    param = importlib.import_module("lucent.optvis.param")
    render = importlib.import_module("lucent.optvis.render")
    module = plain(name).requires_grad_(True)

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            render.render_vis(
                module,
                objectives.channel(layer.replace(".", "_"), CHANNEL),
                param_f=lambda: param.image(SIDE),
                thresholds=(STEPS,),
                show_image=False,
                progress=False,
                verbose=False,
            )

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
