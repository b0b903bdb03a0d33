"""What batches bring on a GPU: attacks on many images at once beside peers, on CIFAR-10's test images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks import black_box
from benchmarks.black_box import CURVE, DBGE_FASTER, PEERS, Watched, reached, seed
from benchmarks.measure import Row, at_least, bar, table
from benchmarks.optimised import JSMA_FASTER, Outcome, Peers, judged, ours
from seewhy.attack import DBGE, JSMA, Attack, CarliniWagner, WhiteBox
from seewhy.classifier import Classifier

#: images: for DBGE, of which ART gets some; for Carlini & Wagner; for JSMA and ART's, of which torchattacks' gets some
LABELS_ONLY, ARTS, CARLINI, SALIENT, TABLES = 40, 8, 400, 100, 2
CARLINI_FASTER = 2


def gpu() -> Iterable[list[str]]:
    """DBGE, Carlini & Wagner and JSMA beside the peers on a GPU, table by table; nothing where there is none."""
    return _tables() if torch.cuda.is_available() else []


def _tables() -> Iterator[list[str]]:
    net, images, labels = black_box.images(CARLINI, "cuda")
    for attack in (DBGE(queries=300), CarliniWagner(searches=1, steps=3), JSMA(steps=2)):
        attack(net, images[:2], labels[:2])  # what a process does once
    head = [
        f"## Attacks on {torch.cuda.get_device_name()}, CIFAR-10, `cifar10-resnet20`",
        "",
        "The first test images that it gets right; one run each, in one process; float32 without TF32 for all.",
        "",
        *labels_only(net, images[:LABELS_ONLY], labels[:LABELS_ONLY]),
    ]
    yield head
    yield [*head, "", *white_box(net, images, labels)]


def labels_only(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    """Ours and Foolbox's on all images at once, ART's, which knows no more than one image at a time, on some."""
    started = time.perf_counter()
    found = DBGE(queries=CURVE[-1], curve=CURVE)(net, images, labels)
    own = (time.perf_counter() - started) / len(images)
    nearest = reached(found)[: len(CURVE)]

    def medians(sizes: Tensor) -> list[float]:
        return [statistics.median(line) for line in sizes.tolist()]

    rows: list[Row] = [
        ("seewhy", f"{len(images)}", *(f"**{size:.3f}**" for size in medians(nearest)), f"{own:.2f} s", "", "")
    ]
    for peer, name, count in (("foolbox", "Foolbox", len(images)), ("art", "ART", ARTS)):
        seed()
        started = time.perf_counter()
        with net.engine.exact():
            sizes = PEERS[peer](Watched(net), images[:count], labels[:count], CURVE[-1])
        took = (time.perf_counter() - started) / count
        theirs, same = medians(sizes), medians(nearest[:, :count])
        rows.append(
            (
                f"{name}'s HopSkipJump",
                f"{count}",
                *(f"{size:.3f} ({mine:.3f})" for size, mine in zip(theirs, same, strict=True)),
                f"{took:.2f} s",
                f"**{took / own:.1f} ×**",
                f"{at_least(took / own, DBGE_FASTER, ' ×')}; "
                + bar("no farther", all(mine <= size for mine, size in zip(same, theirs, strict=True))),
            )
        )
    head = (
        *("labels only", "images", *(f"{each:,} queries" for each in CURVE), "an image, all queries"),
        *("faster, equal queries", "wanted"),
    )
    return ["Median L2 after so many queries, in brackets seewhy's on a peer's images.", "", *table(head, rows)]


def white_box(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    """Carlini & Wagner beside Foolbox's, JSMA beside ART's and torchattacks'."""
    peers, target = Peers(net), (labels + 1) % net.classes
    few, most = slice(TABLES), slice(SALIENT)

    def mine(attack: Attack[WhiteBox], part: slice, to: Tensor | None) -> Outcome:
        aim = None if to is None else to[part]
        return judged(net, images[part], labels[part], aim, partial(ours, attack, net, images[part], labels[part], aim))

    carlini = partial(peers.foolbox, searches=5, steps=50)
    contests = (
        ("Foolbox's Carlini & Wagner", carlini, slice(None), None, CarliniWagner(searches=1, steps=50), CARLINI_FASTER),
        ("ART's JSMA", lambda x, _: peers.art_jsma(x, target[most], len(x)), most, target, JSMA(), JSMA_FASTER),
        ("the same", None, most, target, JSMA(at_once=8), JSMA_FASTER),
        ("torchattacks' JSMA", peers.torchattacks_jsma, few, target, JSMA(), JSMA_FASTER),
    )
    rows: list[Row] = []
    theirs = Outcome(0, 0, 0, 0)
    for name, peer, part, to, attack, wanted in contests:
        x, y = images[part], labels[part]
        if peer is not None:
            with net.engine.exact():
                theirs = judged(net, x, y, None if to is None else to[part], partial(peer, x, y))
        found = mine(attack, part, to)
        # two images say nothing of a batch: there our time is that of as many as the other peer has
        own = mine(attack, most, to).seconds / SALIENT if part is few else found.seconds / len(x)
        faster = theirs.seconds / len(x) / own
        rows.append(
            (
                name,
                f"{len(x)}",
                f"{theirs.success:.0%}, {theirs.l2:.4f}, {theirs.pixels:.1%}",
                f"{theirs.seconds / len(x):.3f} s",
                attack.spec,
                f"**{found.success:.0%}**, {found.l2:.4f}, {found.pixels:.1%}",
                f"{own:.3f} s",
                f"**{faster:.1f} ×**",
                f"{at_least(faster, wanted, ' ×')}; {bar('success ≥ its', found.success >= theirs.success)}",
            )
        )
    head = (
        *("peer", "images", "success, mean L2, pixels changed", "an image", "ours"),
        *("success, mean L2, pixels changed", "an image", "faster", "wanted"),
    )
    return [f"An image's time in batches; torchattacks' JSMA beside ours on {SALIENT} at once.", "", *table(head, rows)]
