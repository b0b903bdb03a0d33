"""The map of codes: CIFAR-10's test images by cifar10-resnet20, new images on it, and scikit-learn's t-SNE on fewer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Row, table
from seewhy.look import CodeMap, codes, layout
from seewhy.look.neighbours import faithfulness

#: images of the map, new ones on it, and those that the peer gets
IMAGES, NEW, FEW = 10_000, 5_000, 2_000

#: what each pair of layouts is measured by
K, PERPLEXITY, AXES = 10, 30.0, 50


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it answers, seconds on the clock, and seconds of all its threads."""
    clock, work = time.perf_counter(), time.process_time()
    found = run()
    return found, time.perf_counter() - clock, time.process_time() - work


def shares(
    given: np.ndarray[Any, Any], coordinates: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> tuple[float, float, float]:
    """Accuracy of neighbours in the map and by code, and trustworthiness."""
    found = faithfulness(given, coordinates, labels, K, 0)
    return (
        float(found.right_map.double().mean()),
        float(found.right_codes.double().mean()),
        found.trustworthiness or 0.0,
    )


def map() -> list[str]:
    """Codes to coordinates, new points a second, and what the picture keeps."""
    from sklearn.manifold import TSNE

    from seewhy.data.cifar10 import read
    from seewhy.data.fetch import get
    from seewhy.zoo import load

    net, archive = load("cifar10-resnet20"), get("cifar10")

    def pixels(split: str, count: int) -> tuple[Tensor, np.ndarray[Any, Any]]:
        pictures, labels = read(archive, split)
        return torch.as_tensor(pictures[:count]).permute(0, 3, 1, 2).float().contiguous() / 255, labels[:count]

    images, labels = pixels("test", IMAGES)
    others, other_labels = pixels("train", NEW)
    held, passes, _ = timed(lambda: codes(net, images).numpy())
    new, new_passes, _ = timed(lambda: codes(net, others).numpy())
    jobs, method = layout.threads(), CodeMap()

    def ours(count: int) -> tuple[layout.Axes, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        axes = layout.principal(held[:count], AXES, False, 0)
        reduced = axes(held[:count])
        return axes, reduced, layout.tsne(reduced, PERPLEXITY, method.iterations, 0, jobs)[0]

    (axes, reduced, where), clock, work = timed(lambda: ours(IMAGES))
    in_map, by_code, trusted = shares(held, where, labels)
    placed, place_clock, _ = timed(lambda: layout.onto_tsne(reduced, where, axes(new), 0, jobs))
    near, _ = layout.nearest(where, placed, K, jobs)
    guessed = np.array([np.bincount(labels[row], minlength=10).argmax() for row in near])
    rows: list[Row] = []
    small, small_clock, small_work = timed(lambda: ours(FEW)[2])
    peer, peer_clock, peer_work = timed(
        lambda: TSNE(perplexity=PERPLEXITY, init="pca", random_state=0, n_jobs=jobs).fit_transform(
            ours_reduced(axes, held[:FEW])
        )
    )
    for name, found, seconds, all_threads in (
        ("seewhy", small, small_clock, small_work),
        ("scikit-learn's TSNE", peer, peer_clock, peer_work),
    ):
        kept, known, trust = shares(held[:FEW], found, labels[:FEW])
        rows.append((name, f"{seconds:.1f} s", f"{all_threads:.1f} s", f"{kept:.1%}", f"{known:.1%}", f"{trust:.3f}"))
    return [
        f"## The map of codes: CIFAR-10's test images by `cifar10-resnet20`, {held.shape[1]} numbers each",
        "",
        *table(
            ("what", "measured", "wanted"),
            [
                (
                    f"{IMAGES:,} codes to coordinates, on {jobs} threads",
                    f"**{clock:.1f} s** ({work:.1f} s of all threads)",
                    "≤ 60 s on two cores",
                ),
                ("the passes before", f"{passes:.1f} s, {IMAGES / passes:.0f} images/s", ""),
                (f"{NEW:,} new codes onto the map", f"**{NEW / place_clock:.0f} a second**", "≥ 500 a second"),
                ("with their passes", f"{NEW / (place_clock + new_passes):.0f} images a second", ""),
                (
                    f"class by {K} neighbours, in the map and by code",
                    f"**{in_map:.1%}** and {by_code:.1%}: {100 * (in_map - by_code):+.1f} points",
                    "within 3 points",
                ),
                ("trustworthiness", f"{trusted:.3f}", ""),
                (
                    f"class of the new ones, training images, by {K} neighbours in the map",
                    f"{float((guessed == other_labels).mean()):.1%}",
                    "",
                ),
            ],
        ),
        "",
        f"The same {FEW:,} codes along {AXES} axes; scikit-learn with a start from principal axes.",
        "",
        *table(("t-SNE", "clock", "all threads", "in the map", "by code", "trustworthiness"), rows),
    ]


def ours_reduced(axes: layout.Axes, given: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Codes as the peer gets them."""
    return axes(given).astype(np.float32)
