"""Occlusion of a photograph, beside Captum and beside dense passes of the engine.

python -m benchmarks.occlusion NET SIDE OUTPUT    # one process of it: what a side takes, as JSON
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
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
#: Captum is timed on 64 windows side by side, each of which costs what one of the 729 does, so many at a time
PEER_WINDOW, PEER_POSITIONS, PEER_BATCHES = 28, 8**2, (8, 32)
#: how often Captum and seewhy take turns
TURNS = 3


def occlusion() -> Iterator[list[str]]:
    """Seconds, memory and differences of 729 positions, each side in a process of its own, as its users run it."""
    from benchmarks.measure import Row, at_least, at_most, process

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (over_peer, over_dense) in WANTED.items():
            slow = process("occlusion", name, "dense", folder)
            turns = [[process("occlusion", name, side, folder) for side in ("captum", "windows")] for _ in range(TURNS)]
            to_peer = statistics.median(peer["seconds"] / own["seconds"] for peer, own in turns)
            peer, about = (
                sorted(each, key=lambda one: one["seconds"])[TURNS // 2] for each in zip(*turns, strict=True)
            )
            ours, to_dense = about["seconds"], slow["seconds"] / about["seconds"]
            limit = about["least"] / about["rate"]
            gigabytes = [each["memory"] / 1e9 for each in (peer, slow, about)]
            rows.append(
                (
                    name,
                    f"{peer['seconds']:.1f}, {peer['batch']} at a time",
                    f"{slow['seconds']:.1f}",
                    f"{ours:.1f}",
                    f"**{to_peer:.1f} ×**",
                    at_least(to_peer, over_peer),
                    f"**{to_dense:.1f} ×**",
                    at_least(to_dense, over_dense),
                    f"{about['dense'] / about['least']:.1f} ×",
                    f"{about['dense'] / about['done']:.1f} ×",
                    f"{limit:.1f} s, {ours / limit:.2f} × of it",
                    f"{about['difference']:.0e}",
                    " / ".join(f"{each:.2f}" for each in gigabytes),
                    at_most(gigabytes[2], round(gigabytes[0], 2), " GB"),
                    " / ".join(f"{about[part] / 1e9:.2f}" for part in ("stays", "together")),
                )
            )
            yield _page(rows)


def _page(rows: list[tuple[str, ...]]) -> list[str]:
    from benchmarks.measure import table
    from seewhy.explain.occlusion import TOGETHER

    head = (
        *("net", "Captum, s", "dense passes, s", "seewhy, s", "over Captum", "wanted", "over dense passes", "wanted"),
        *("fewer multiply-adds: limit", "done", "that limit at the machine's peak, and seewhy"),
        "largest difference from dense passes, relative",
        *("memory added, GB: Captum / dense / seewhy", "wanted", "of seewhy's: what stays / windows together, GB"),
    )
    return [
        f"## Occlusion, window {WINDOW}, stride {STRIDE}, all {POSITIONS} positions, one image",
        "",
        f"Each side in processes of its own; medians of {TURNS} turns of Captum and seewhy. Captum, plain PyTorch, at the better "
        f"of {' and '.join(map(str, PEER_BATCHES))} windows at a time, each timed on {PEER_POSITIONS} windows of {PEER_WINDOW} "
        f"pixels side by side (any window costs a pass) and scaled to {POSITIONS}; dense passes on the engine at its best. The "
        "limit counts the multiply-adds of what each window changes, exactly, with borders; the peak is that of the same "
        "network's dense convolutions or of a matrix product, whichever is higher, measured in the same process. What holds "
        "seewhy's memory: what stays, the clean maps that windows are cut from and the weights with normalisations folded in; "
        f"and the windows of at most {TOGETHER} positions together, with their copies. The rest was freed, and the allocator "
        "keeps it, since the maps of each batch have sizes of their own.",
        "",
        *table(head, rows),
    ]


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
        shape = strides = (3, PEER_WINDOW, PEER_WINDOW)
        runs = []
        with torch.no_grad():
            module(given.expand(max(PEER_BATCHES), -1, -1, -1))
            for batch in PEER_BATCHES:
                with Meter() as meter:
                    peer.attribute(given, shape, strides, target=1, perturbations_per_eval=batch)
                # the whole image is passed too
                seconds = meter.cost.seconds * (POSITIONS + 1) / (PEER_POSITIONS + 1)
                runs.append({"seconds": seconds, "memory": meter.cost.peak_bytes or 0, "batch": batch})
        print(json.dumps(min(runs, key=lambda each: each["seconds"])))
        return
    from seewhy.explain import Occlusion
    from seewhy.explain import occlusion as method

    net = ready(name)
    if side == "dense":
        method.PAYS = 0.0
    with Meter() as meter:  # from before the first pass, since the allocator keeps what that took
        net.predict(image)
        found = Occlusion(window=(WINDOW,), stride=STRIDE, fill="black")(net, image, 1)
    said = {"seconds": found.cost.seconds, "memory": meter.cost.peak_bytes or 0}
    kept = Path(folder) / "dense.values.pt"
    if side == "dense":
        torch.save(found.values, kept)
    else:
        expected = torch.load(kept, weights_only=True)
        scale = float(net.predict(image).abs().max())
        said |= {"difference": float((found.values - expected).abs().max()) / scale, **_limits(net, image)}
    print(json.dumps(said))


def _limits(net: Any, image: Any) -> dict[str, float]:
    """Multiply-adds of dense passes, of what changes, and of what is run; how many the machine does a second; what is held."""
    import numpy as np
    import torch

    from benchmarks.measure import peak
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
    stays, together = _held(net, lens, max(batches, key=lens.multiply_adds))
    return {
        "least": lens.least(rows, columns),
        "done": sum(map(lens.multiply_adds, batches)),
        "dense": lens.dense * len(rows),
        "rate": peak(net, lens.dense, image),
        "stays": stays,
        "together": together,
    }


def _held(net: Any, lens: Any, batch: Any) -> tuple[int, int]:
    """Bytes that stay: clean maps, and weights with normalisations folded in; and what a batch's windows take beside them."""
    import ctypes
    import gc

    import torch

    from seewhy.engine import Meter

    black = lens.filled(net.normalise(torch.zeros(1, 3, *net.size)))
    with torch.no_grad(), net.session():
        lens.windows(black, batch)  # makes the clean maps' padded copies
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, so that all that a batch takes is seen
        with Meter() as meter:
            lens.windows(black, batch)
    values = {id(value): value for step in lens.steps for value in (*step.inputs, *step.outputs)}.values()
    kept = [each for value in values for each in (value.clean, *value._lines.values()) if each is not None]
    own = {parameter.untyped_storage()._cdata for parameter in net.module.parameters()}
    weights = [each for step in lens.steps if step.convolution for each in step.convolution.weights or ()]
    kept += [each for each in weights if each is not None and each.untyped_storage()._cdata not in own]
    storages = {each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in kept}
    return sum(storages.values()), meter.cost.peak_bytes or 0


if __name__ == "__main__":
    main(*sys.argv[1:])
