"""Tuning beside the bare passes that it cannot do without, and those passes in each precision."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Row, table, take_turns
from seewhy import zoo
from seewhy.data.sets import Arrays, DataSet
from seewhy.tune import Recipe
from seewhy.tune.loop import Loop, passing
from seewhy.tune.network import with_classes
from seewhy.tune.pictures import Pictures, split

BATCH, CLASSES = 32, 7


def loop(side: int, folder: Path) -> Loop:
    """A training of EfficientNet-Lite0 on random pictures, in the midst of its second epoch, where everything moves."""
    chance = np.random.default_rng(0)
    array = chance.integers(0, 256, (4 * BATCH, 224, 224, 3), dtype=np.uint8)
    labels = tuple(int(label) for label in chance.integers(0, CLASSES, len(array)))
    names = tuple(map(str, range(len(array))))
    data = DataSet("made", names, Arrays(array), labels, tuple("abcdefg"))
    pictures = Pictures(data, array, names, ())
    net, head = with_classes(zoo.load("efficientnet-lite0"), tuple("abcdefg"))
    recipe = Recipe.parse(f"epochs=1,sides={side},precision=bf16,batch={BATCH}")
    made = Loop(net, head, pictures, split(pictures, 0.25, 0), recipe, folder / "checkpoint.pt", "bench")
    made.precision, made.epoch = "bf16", 1
    made._phase()
    return made


def tuning(made: Loop) -> None:
    """A whole step: pictures cut and coloured, passed forward and backward, the weights moved and averaged."""
    made.step = 0
    made._step(made._order())


def bare(made: Loop, images: Tensor, labels: Tensor, precision: str | None = None) -> None:
    """The passes alone, on images that lie ready; without a precision in plain bf16 autocast."""
    made.module.zero_grad(set_to_none=True)
    if precision is None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = made.module(images)
    else:
        with passing(precision, torch.device("cpu")):
            logits = made.module(images)
    F.cross_entropy(logits.float(), labels).backward()


def tune() -> list[str]:
    """Throughput beside the bare passes at each side, and what the precisions take."""
    rows: list[Row] = []
    labels = torch.arange(BATCH) % CLASSES
    with tempfile.TemporaryDirectory() as folder:
        for side in (128, 160, 192, 224):
            made = loop(side, Path(folder))
            images = torch.rand(BATCH, 3, side, side).contiguous(memory_format=torch.channels_last)
            timing = take_turns(
                {"tune": partial(tuning, made), "bare": partial(bare, made, images, labels, "bf16")}, turns=15
            )
            others = take_turns(  # apart, since what they leave in the caches is not what a training leaves there
                {
                    "autocast": partial(bare, made, images, labels),
                    "float32": partial(bare, made, images, labels, "float32"),
                },
                turns=3,
                warm=1,
            )
            ratio, low, high = timing.ratio("bare", "tune")
            rows.append(
                (
                    f"{side} × {side}",
                    f"{timing.median('tune'):.2f} s",
                    f"{timing.median('bare'):.2f} s",
                    f"**{ratio:.2f}** ({low:.2f} to {high:.2f})",
                    f"{others.median('autocast'):.2f} s",
                    f"{others.median('float32'):.2f} s",
                )
            )
    head: Row = (
        f"{BATCH} pictures of",
        "a step of `seewhy tune`",
        "forward and backward alone",
        "throughput (≥ 0.9)",
        "the passes in plain bf16 autocast",
        "in float32",
    )
    return [
        "## Tuning beside the passes alone",
        "",
        "EfficientNet-Lite0, its first convolution frozen, channels last. A step reads, cuts, turns and colours its "
        "pictures, passes them forward and backward, moves and averages the weights. Depthwise convolutions have gradients "
        "of their own in bf16 (`seewhy/tune/depthwise.py`); the last two columns are the same passes without them.",
        "",
        *table(head, rows),
    ]
