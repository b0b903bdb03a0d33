"""Occlusion of a photograph, beside Captum and beside dense passes of the engine.

python -m benchmarks.occlusion NET SIDE OUTPUT    # one process of it: what a side takes, as JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WINDOW, STRIDE, POSITIONS = 16, 8, 27**2
#: in each net's row: the speed-ups that are wanted over Captum and over dense passes
WANTED = {
    "vgg16": (8.0, 4.0),
    "resnet50": (3.5, 1.7),
    "resnet18": (3.5, 1.7),
    "efficientnet-lite0": (2.5, 1.3),
}
#: Captum is timed on 196 windows side by side, each of which costs what one of the 729 does; its batch is its best
PEER_STRIDE, PEER_POSITIONS, PEER_BATCH = 16, 14**2, 16


def occlusion() -> list[str]:
    """Seconds, memory and differences of 729 positions, each side in a process of its own, as its users run it."""
    from benchmarks.measure import Row, table

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (over_peer, over_dense) in WANTED.items():
            found = {side: _process(name, side, Path(folder) / f"{side}.pt") for side in ("captum", "dense", "windows")}
            peer, dense, ours = (found[side]["seconds"] for side in ("captum", "dense", "windows"))
            about = found["windows"]
            limit = about["least"] / about["rate"]
            rows.append(
                (
                    name,
                    f"{peer:.1f}",
                    f"{dense:.1f}",
                    f"{ours:.1f}",
                    f"**{peer / ours:.1f} ×** (≥ {over_peer:g})",
                    f"**{dense / ours:.1f} ×** (≥ {over_dense:g})",
                    f"{about['dense'] / about['least']:.1f} ×",
                    f"{about['dense'] / about['done']:.1f} ×",
                    f"{limit:.1f} s, {ours / limit:.2f} × of it",
                    f"{about['difference']:.0e}",
                    " / ".join(f"{found[side]['memory'] / 2**30:.2f}" for side in ("captum", "dense", "windows")),
                )
            )
    head = (
        *("net", "Captum, s", "dense passes, s", "seewhy, s", "over Captum (wanted)", "over dense passes (wanted)"),
        *("fewer multiply-adds: limit", "done", "that limit at the machine's peak, and seewhy"),
        *("largest difference from dense passes, relative", "memory added, GB: Captum / dense / seewhy"),
    )
    return [
        f"## Occlusion, window {WINDOW}, stride {STRIDE}, all {POSITIONS} positions, one image",
        "",
        f"Each side in a process of its own. Captum, plain PyTorch, {PEER_BATCH} windows at a time (its best), timed on "
        f"{PEER_POSITIONS} of its windows and scaled to {POSITIONS}; dense passes on the engine at its best. "
        "The limit counts the multiply-adds of what each window changes, exactly, with borders; "
        "the peak is that of the same network's "
        "dense convolutions or of a matrix product, whichever is higher, measured in the same process.",
        "",
        *table(head, rows),
    ]


def _process(name: str, side: str, output: Path) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-m", "benchmarks.occlusion", name, side, str(output.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} on {name} failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main(name: str, side: str, folder: str) -> None:
    if side != "captum":
        from seewhy.machine import keep_memory, short_spin

        short_spin()
        keep_memory()
    import torch

    from benchmarks.nets import pixels, plain, ready
    from seewhy.engine import Meter

    image = pixels(1)
    if side == "captum":
        from captum.attr import Occlusion as Peer

        module = plain(name)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        given = (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
        peer = Peer(module)
        shape, strides = (3, WINDOW, WINDOW), (3, PEER_STRIDE, PEER_STRIDE)
        with torch.no_grad():
            module(given.expand(PEER_BATCH, -1, -1, -1))
            with Meter() as meter:
                peer.attribute(given, shape, strides, target=1, perturbations_per_eval=PEER_BATCH)
        said = {"seconds": meter.cost.seconds * POSITIONS / PEER_POSITIONS, "memory": meter.cost.peak_bytes or 0}
        print(json.dumps(said))
        return
    from seewhy.explain import Occlusion
    from seewhy.explain import occlusion as method

    net = ready(name)
    net.predict(image.expand(16, -1, -1, -1))
    if side == "dense":
        method.PAYS = 0.0
    found = Occlusion(window=(WINDOW,), stride=STRIDE, fill="black")(net, image, 1)
    said = {"seconds": found.cost.seconds, "memory": found.cost.peak_bytes or 0}
    kept = Path(folder) / "dense.values.pt"
    if side == "dense":
        torch.save(found.values, kept)
    else:
        expected = torch.load(kept, weights_only=True)
        scale = float(net.predict(image).abs().max())
        said |= {"difference": float((found.values - expected).abs().max()) / scale, **_limits(net, image)}
    print(json.dumps(said))


def _limits(net: Any, image: Any) -> dict[str, float]:
    """Multiply-adds of dense passes, of what changes, and of what is run; and how many the machine does a second."""
    import numpy as np
    import torch

    from seewhy.explain import Occlusion
    from seewhy.explain.occlusion import TOGETHER
    from seewhy.lens.incremental import Incremental, Spans

    (grid,) = Occlusion(window=(WINDOW,), stride=STRIDE).grids(net.size)
    starts = np.array(grid.rows)
    span = Spans(starts, starts + WINDOW, net.size[0])
    with torch.no_grad(), net.session():
        lens = Incremental(net, image, span, span)
    every = np.arange(len(starts))
    rows, columns = np.repeat(every, len(every)), np.tile(every, len(every))
    batches = lens.batches(every, every, TOGETHER)
    given = net.normalise(image.expand(16, -1, -1, -1))
    square = torch.randn(2048, 2048)
    rates = []
    with torch.no_grad(), net.session():
        for _ in range(5):
            started = time.perf_counter()
            net.module(given)
            rates.append(16 * lens.dense / (time.perf_counter() - started))
            started = time.perf_counter()
            square @ square
            rates.append(2048**3 / (time.perf_counter() - started))
    return {
        "least": lens.least(rows, columns),
        "done": sum(map(lens.multiply_adds, batches)),
        "dense": lens.dense * len(rows),
        "rate": max(rates),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
