"""ZOO and DBGE on CIFAR-10 beside ART's ZOO and the HopSkipJump of Foolbox and ART.

python -m benchmarks.black_box WORK PEER [IMAGE]    # a peer in a process of its own, see `main`
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Row, at_least, at_most, bar, table
from seewhy.attack import DBGE, ZOO, Adversarial, Attack
from seewhy.classifier import Classifier

#: images: of ZOO with as many queries as it takes, and with all of them; of ART's ZOO; of DBGE and its peers
MANY, WHOLE, DEAR, FEW = 40, 4, 2, 24
CURVE = (1_000, 5_000, 10_000)

#: where ours is looked at, for the first number of queries after which it is as near as a peer after all of its own
FINE = (
    *range(200, 500, 25),
    *range(500, 1_500, 250),
    *range(1_500, 4_000, 500),
    *range(4_000, 11_000, 1_000),
)

#: the same for ZOO
FEWER = (500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000)

#: wanted: the share that ZOO fools in percent, so many times as fast as ART's, and of DBGE as HopSkipJump to its distance
ZOO_FOOLED, ZOO_FASTER, DBGE_FASTER = 97, 20, 3

#: turns of ART's ZOO, the constant c that it begins with, and its binary searches: what fools; its default fools nearly none
ART_TURNS, ART_C, ART_SEARCHES = 100, 1.0, 1
ART_QUERIES = 257 * ART_TURNS * ART_SEARCHES

#: what a peer's seconds a query are taken from: images, and queries of each
TIMED = {"foolbox": (FEW, 1_000), "art": (2, 3_000), "art-zoo": (1, 257 * 12)}


class Enough(Exception):
    """All the queries that a peer may have are spent."""


class Watched(nn.Module):
    """The network as a peer sees it; what it asks is counted, and its nearest fooling image kept after each number of a curve.

    A peer's rows are `originals`, again and again in their order. So a peer gets the best that it ever saw, also where its own
    answer is worse.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.module = net.module
        self.register_buffer("mean", torch.tensor(net.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(net.std).view(1, 3, 1, 1))
        self.eval().to(net.engine.device)
        self.watch(torch.zeros(1, 3, *net.size), torch.zeros(1, dtype=torch.long), 0)

    def watch(self, originals: Tensor, labels: Tensor, most: int, curve: tuple[int, ...] = ()) -> None:
        """Count from now on, each image's own, and end after `most`, if that is not 0."""
        self.originals, self.labels = originals.to(self.mean.device), labels.to(self.mean.device)
        self.most, self.curve, self.asked = most, curve, 0
        self.nearest = self.mean.new_full((len(curve), len(originals)), torch.inf)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()  # ART hands over doubles
        logits: Tensor = self.module((x - self.mean) / self.std)
        if len(x) % len(self.originals) == 0:
            self.asked += len(x) // len(self.originals)
            if self.curve:
                whose = torch.arange(len(x), device=x.device) % len(self.originals)
                size = (x - self.originals[whose]).flatten(1).norm(dim=1)
                size[logits.argmax(1) == self.labels[whose]] = torch.inf
                for level, most in enumerate(self.curve):
                    if self.asked <= most:
                        near = size.view(-1, len(self.originals)).amin(0)
                        self.nearest[level] = torch.minimum(self.nearest[level], near)
            if self.most and self.asked >= self.most:
                raise Enough
        return logits


def images(count: int, device: str = "cpu") -> tuple[Classifier, Tensor, Tensor]:
    """The network, and the first test images that it gets right with their labels."""
    from seewhy.data.cifar10 import read
    from seewhy.data.fetch import get
    from seewhy.zoo import load

    data = os.environ.get("SEEWHY_CIFAR10") or get("cifar10")

    net = load("cifar10-resnet20", device=device)
    pictures, classes = read(data, "test")
    pixels = torch.as_tensor(pictures[: 2 * count]).permute(0, 3, 1, 2).float().contiguous() / 255
    labels = torch.as_tensor(classes[: 2 * count])
    right = (net.predict(pixels).argmax(1).cpu() == labels).nonzero()[:count, 0]
    return net, pixels[right], labels[right]


def foolbox_hop(module: Watched, pixels: Tensor, labels: Tensor, most: int, curve: tuple[int, ...] = CURVE) -> Tensor:
    """Foolbox's HopSkipJump on all images at once: its nearest (levels, N) after each number of queries of the curve."""
    from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
    from foolbox.models.pytorch import PyTorchModel

    module.watch(pixels, labels, most, curve)
    with quiet():
        model = PyTorchModel(module, bounds=(0, 1), device=module.mean.device)
        HopSkipJumpAttack(steps=1000)(model, module.originals, module.labels, epsilons=None)
    return module.nearest.cpu()


def art_estimator(module: Watched) -> Any:
    from art.estimators.classification import PyTorchClassifier  # type: ignore[import-untyped]

    return PyTorchClassifier(
        module,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 32, 32),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu" if module.mean.device.type == "cpu" else "gpu",
    )


def art_hop(module: Watched, pixels: Tensor, labels: Tensor, most: int, curve: tuple[int, ...] = CURVE) -> Tensor:
    """ART's HopSkipJump on one image after the other, as it goes itself: the same."""
    from art.attacks.evasion import HopSkipJump  # type: ignore[import-untyped]

    nearest = []
    for index in range(len(pixels)):
        one = slice(index, index + 1)
        module.watch(pixels[one], labels[one], most, curve)
        with quiet():
            attack = HopSkipJump(art_estimator(module), max_iter=1000, verbose=False)
            attack.generate(pixels[one].numpy(), y=labels[one].numpy())
        nearest.append(module.nearest)
    return torch.cat(nearest, 1).cpu()


def art_zoo(module: Watched, pixels: Tensor, labels: Tensor, most: int = 0, turns: int = ART_TURNS) -> Tensor:
    """ART's ZOO on one image: its answer."""
    from art.attacks.evasion import ZooAttack

    module.watch(pixels, labels, most)
    answer = pixels
    with quiet():
        attack = ZooAttack(
            art_estimator(module),
            max_iter=turns,
            initial_const=ART_C,
            binary_search_steps=ART_SEARCHES,
            use_resize=False,
            use_importance=False,
            abort_early=False,
            verbose=False,
        )
        answer = torch.as_tensor(attack.generate(pixels.numpy(), y=labels.numpy()))
    return answer


PEERS: dict[str, Callable[..., Tensor]] = {"foolbox": foolbox_hop, "art": art_hop, "art-zoo": art_zoo}


def seed(number: int = 0) -> None:
    """Fix what the peers draw: Foolbox from PyTorch, ART from NumPy."""
    torch.manual_seed(number)
    np.random.seed(number)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A peer without its warnings, that ends where its queries are spent."""
    with warnings.catch_warnings(), torch.no_grad(), contextlib.suppress(Enough):
        warnings.simplefilter("ignore")
        yield


def main(work: str, peer: str, image: str = "") -> None:
    """What a peer reaches, of all images or of one by its number, or its seconds a query.

    `distances` asks after what does not hang on speed, in the layout and with the memory that are fastest, so that the bench
    ends; `seconds` runs a peer as its users do: a module as PyTorch makes it, the allocator as it comes, all threads.
    """
    if work == "distances":
        from seewhy.machine import keep_memory

        keep_memory()
    count, most = TIMED[peer] if work == "seconds" else (FEW, CURVE[-1])
    net, pixels, labels = images(count if not image else int(image) + 1)
    if work == "seconds":
        net.module.to(memory_format=torch.contiguous_format).requires_grad_(True)  # type: ignore[call-overload]
        module = Watched(net)
        PEERS[peer](module, pixels[:1], labels[:1], most=100, **({} if peer == "art-zoo" else {"curve": ()}))
        started = time.perf_counter()
        PEERS[peer](module, pixels, labels, most=most, **({} if peer == "art-zoo" else {"curve": ()}))
        print(json.dumps((time.perf_counter() - started) / count / most))
        return
    seed(int(image or 0))
    if image:
        pixels, labels = pixels[-1:], labels[-1:]
    if peer != "art-zoo":
        print(json.dumps(PEERS[peer](Watched(net), pixels, labels, most).tolist()))
        return
    found = art_zoo(Watched(net), pixels, labels).clamp(0, 1)
    fooled = bool(net.predict(found).argmax(1) != labels)
    print(json.dumps(float((found - pixels).norm()) if fooled else None))


def process(*words: str, threads: int | None = None) -> Any:
    """What a process of its own answers."""
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.black_box", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(attack: Attack[Any], net: Classifier, pixels: Tensor, labels: Tensor) -> tuple[Adversarial, float]:
    started = time.perf_counter()
    return attack(net, pixels, labels), time.perf_counter() - started


def reached(found: Adversarial) -> Tensor:
    """L2 distances (levels, N) of the images that fool; infinite where one does not: a search that failed is not near."""
    return torch.where(found.success, found.distances["l2"], torch.inf)


def black_box() -> list[str]:
    """Distances at equal queries, and time an image."""
    words: list[tuple[str, ...]] = [("distances", "foolbox")]
    words += [("distances", "art", str(index)) for index in range(FEW)]
    words += [("distances", "art-zoo", str(index)) for index in range(DEAR)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # one thread each: nothing is timed here
        foolbox, *others = pool.map(lambda each: process(*each, threads=1), words)
    alone, zoos = others[:FEW], others[FEW:]
    art = torch.cat([torch.tensor(each) for each in alone], 1).tolist()
    seconds = {peer: float(process("seconds", peer)) for peer in PEERS}
    net, pixels, labels = images(max(MANY, FEW))
    bare = passes(net, pixels)
    return [
        "## Black box on CIFAR-10, `cifar10-resnet20`, untargeted, L2",
        "",
        *zoo(net, pixels, labels, zoos, seconds["art-zoo"], bare),
        "",
        *labels_only(
            net,
            pixels[:FEW],
            labels[:FEW],
            {"Foolbox": (foolbox, seconds["foolbox"]), "ART": (art, seconds["art"])},
            bare,
        ),
    ]


def passes(net: Classifier, pixels: Tensor) -> float:
    """Seconds a query of nothing but passes, in the engine's batches."""
    many = pixels.repeat(-(-512 // len(pixels)), 1, 1, 1)
    net.predict(many)
    turns = []
    for _ in range(3):
        started = time.perf_counter()
        net.predict(many)
        turns.append(time.perf_counter() - started)
    return statistics.median(turns) / len(many)


def zoo(
    net: Classifier, pixels: Tensor, labels: Tensor, theirs: list[float | None], second: float, bare: float
) -> list[str]:
    """Ours until it is as near as ART's, and with all its queries."""
    level = -2  # the nearest, before rounding: what the peer answers
    fooled = [index for index, size in enumerate(theirs) if size is not None]
    sizes = torch.tensor([theirs[index] for index in fooled])
    whole, took = ours(ZOO(curve=FEWER), net, pixels[:WHOLE], labels[:WHOLE])
    distances = reached(whole)[:, fooled]
    near = [bool(whole.success[at].all()) and bool((distances[at] <= sizes).all()) for at, _ in enumerate(FEWER)]
    enough = next((most for most, good in zip(FEWER, near, strict=True) if good), ZOO().queries)
    short, short_took = ours(ZOO(queries=enough), net, pixels[:MANY], labels[:MANY])
    art = second * ART_QUERIES

    def row(name: str, result: Adversarial, took: float) -> Row:
        count, queries = len(result.original), float(result.queries.float().mean())
        own, share = reached(result)[level], 100 * float(result.success[level].float().mean())
        faster, nearness = art / (took / count), float(own[fooled].mean())
        return (
            f"seewhy, {count} images, {name}",
            f"**{share:.0f} %** ({at_least(share, ZOO_FOOLED, ' %')})",
            f"{float(own.mean()):.3f}",
            f"**{nearness:.3f}** ({at_most(nearness, round(float(sizes.mean()), 3))})" if fooled else "–",
            f"{queries:.0f}",
            f"{took / count:.2f} s",
            f"{bare * queries:.2f} s",
            f"**{faster:.0f} ×** ({at_least(faster, ZOO_FASTER, ' ×')})",
        )

    rows: list[Row] = [
        row("until it is as near as ART", short, short_took),
        row("all its queries", whole, took),
        (
            f"ART, {len(theirs)} of them",
            f"{100 * len(fooled) / len(theirs):.0f} %",
            "–",
            f"{float(sizes.mean()):.3f}" if fooled else "–",
            f"{ART_QUERIES}",
            f"{art:.1f} s",
            "",
            "",
        ),
    ]
    head = (
        *("ZOO", "success", "mean L2", f"mean L2 of the {len(fooled)} that both fool", "queries", "an image"),
        *("of it passes", "faster"),
    )
    return [
        f"ZOO, at most {ZOO().queries} queries. ART's takes {ART_TURNS} turns of 128 coordinates from c = {ART_C:g}, since its "
        "defaults fool next to none; it passes one image at a time. Its time is that of its queries, by the seconds of "
        f"{TIMED['art-zoo'][1]:,} of them.",
        "",
        *table(head, rows),
    ]


def labels_only(
    net: Classifier,
    pixels: Tensor,
    labels: Tensor,
    peers: dict[str, tuple[list[list[float]], float]],
    bare: float,
) -> list[str]:
    """Ours beside the peers at equal queries and at equal distance."""
    most = CURVE[-1]
    found, took = ours(DBGE(queries=most, curve=FINE), net, pixels, labels)
    fine = [statistics.median(line) for line in reached(found)[: len(FINE)].tolist()]
    own = took / len(pixels) / most
    rows: list[Row] = [
        (
            "seewhy",
            *(f"**{fine[FINE.index(each)]:.3f}**" for each in CURVE),
            f"{own * 1e3:.2f}",
            f"{own * most:.1f} s",
            "",
            f"{100 * bare / own:.0f} % are passes",
            "",
            "",
        )
    ]
    for name, (sizes, second) in peers.items():
        medians = [statistics.median(line) for line in sizes]
        no_farther = all(fine[FINE.index(each)] <= median for each, median in zip(CURVE, medians, strict=True))
        faster, least = [], math.inf
        for queries, median in zip(CURVE, medians, strict=True):
            enough = next((each for each, size in zip(FINE, fine, strict=True) if size <= median), None)
            ratio = 0.0 if enough is None else queries * second / (enough * own)
            faster.append("–" if enough is None else f"**{ratio:.1f} ×** ({enough:,})")
            least = min(least, ratio)
        rows.append(
            (
                f"{name}'s HopSkipJump",
                *(f"{median:.3f}" for median in medians),
                f"{second * 1e3:.2f}",
                f"{second * most:.1f} s",
                f"{second / own:.1f} ×",
                f"{second / bare:.1f} ×",
                ", ".join(faster),
                f"{at_least(least, DBGE_FASTER, ' ×')}; " + bar("no farther at equal queries", no_farther),
            )
        )
    head = (
        "labels only",
        *(f"{each:,} queries" for each in CURVE),
        *("ms a query", "an image, all queries", "faster, equal queries", "its limit, passes alone"),
        *("faster to the peer's distance at each (our queries)", "wanted at each"),
    )
    return [
        f"Labels alone: median L2 of {len(pixels)} images after so many queries; a peer is given the nearest fooling image that "
        "it ever asked about. ART's runs on a model that casts to float32. The peers' distances come from processes of one "
        "thread, beside each other; their seconds a query from processes of their own, as their users run them, Foolbox with "
        f"{TIMED['foolbox'][0]} images at once for {TIMED['foolbox'][1]:,} queries each, ART with one image at a time for "
        f"{TIMED['art'][1]:,}. Equal queries are equal passes: there only a faster pass, and what lies between passes, can be "
        "won.",
        "",
        *table(head, rows),
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
