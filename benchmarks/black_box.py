"""ZOO and DBGE on CIFAR-10 beside ART's ZOO and the HopSkipJump of Foolbox and ART."""

from __future__ import annotations

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, table
from seewhy.attack import DBGE, ZOO, Adversarial, Attack
from seewhy.classifier import Classifier

#: images: of ZOO, of them those that ART's ZOO gets too, and of DBGE and its peers
IMAGES, DEAR, FEW = 10, 1, 4
CURVE = (1_000, 5_000, 10_000)

#: where ours is looked at, for the first number of queries after which it is as near as a peer after all of its own
FINE = (250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000)

#: the same for ZOO
FEWER = (1_000, 2_000, 3_000, 5_000, 10_000)

#: turns of ART's ZOO, the constant c that it begins with, and its binary searches: what fools; its default fools nearly none
ART_TURNS, ART_C, ART_SEARCHES = 100, 1.0, 1


class Enough(Exception):
    """All the queries that a peer may have are spent."""


class Watched(nn.Module):
    """The network as a peer sees it; what it asks is counted, and its nearest fooling image kept after each number of `CURVE`.

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
        self.eval()
        self.watch(torch.zeros(1, 3, *net.size), torch.zeros(1, dtype=torch.long), 0)

    def watch(self, originals: Tensor, labels: Tensor, most: int) -> None:
        self.originals, self.labels, self.most, self.asked = originals, labels, most, 0
        self.nearest = torch.full((len(CURVE), len(originals)), torch.inf)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()  # ART hands over doubles
        logits: Tensor = self.module((x - self.mean) / self.std)
        if self.most and len(x) % len(self.originals) == 0:
            whose = torch.arange(len(x)) % len(self.originals)
            size = (x - self.originals[whose]).flatten(1).norm(dim=1)
            size[logits.argmax(1) == self.labels[whose]] = torch.inf
            self.asked += len(x) // len(self.originals)
            for level, most in enumerate(CURVE):
                if self.asked <= most:
                    self.nearest[level] = torch.minimum(self.nearest[level], size.view(-1, len(self.originals)).amin(0))
            if self.asked >= self.most:
                raise Enough
        return logits


def images(count: int) -> tuple[Classifier, Tensor, Tensor]:
    """The network, and the first test images that it gets right with their labels."""
    from seewhy.data.cifar10 import read
    from seewhy.data.fetch import get
    from seewhy.zoo import load

    net = load("cifar10-resnet20")
    pictures, classes = read(get("cifar10"), "test")
    pixels = torch.as_tensor(pictures[: 2 * count]).permute(0, 3, 1, 2).float().contiguous() / 255
    labels = torch.as_tensor(classes[: 2 * count])
    right = (net.predict(pixels).argmax(1) == labels).nonzero()[:count, 0]
    return net, pixels[right], labels[right]


def foolbox_hop(module: Watched, pixels: Tensor, labels: Tensor) -> None:
    """Foolbox's HopSkipJump on all images at once."""
    from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
    from foolbox.models.pytorch import PyTorchModel

    module.watch(pixels, labels, CURVE[-1])
    HopSkipJumpAttack(steps=1000)(PyTorchModel(module, bounds=(0, 1), device="cpu"), pixels, labels, epsilons=None)


def art_estimator(module: nn.Module) -> Any:
    from art.estimators.classification import PyTorchClassifier  # type: ignore[import-untyped]

    return PyTorchClassifier(
        module,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 32, 32),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )


def art_hop(module: Watched, pixels: Tensor, labels: Tensor) -> None:
    """ART's HopSkipJump on one image."""
    from art.attacks.evasion import HopSkipJump  # type: ignore[import-untyped]

    module.watch(pixels, labels, CURVE[-1])
    attack = HopSkipJump(art_estimator(module), max_iter=1000, verbose=False)
    attack.generate(pixels.numpy(), y=labels.numpy())


def timed(run: Callable[[], object]) -> float:
    """Seconds until it ends, or has spent its queries."""
    started = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Enough):
            run()
    return time.perf_counter() - started


def ours(attack: Attack[Any], net: Classifier, pixels: Tensor, labels: Tensor) -> tuple[Adversarial, float]:
    started = time.perf_counter()
    return attack(net, pixels, labels), time.perf_counter() - started


def art_zoo(module: Watched, pixels: Tensor, labels: Tensor) -> Tensor:
    """ART's ZOO on one image."""
    from art.attacks.evasion import ZooAttack

    module.watch(pixels, labels, 0)
    attack = ZooAttack(
        art_estimator(module),
        max_iter=ART_TURNS,
        initial_const=ART_C,
        binary_search_steps=ART_SEARCHES,
        use_resize=False,
        use_importance=False,
        abort_early=False,
        verbose=False,
    )
    return torch.as_tensor(attack.generate(pixels.numpy(), y=labels.numpy()))


def black_box() -> list[str]:
    """Distances at equal queries, and time an image."""
    net, pixels, labels = images(IMAGES)
    watched = Watched(net)
    found, seconds = ours(ZOO(curve=FEWER), net, pixels, labels)
    theirs: list[Tensor] = []
    art = timed(lambda: theirs.extend(art_zoo(watched, pixels[i : i + 1], labels[i : i + 1]) for i in range(DEAR)))
    peer = torch.cat(theirs)
    fooled = net.predict(peer.clamp(0, 1)).argmax(1) != labels[:DEAR]
    size = (peer - pixels[:DEAR]).flatten(1).norm(dim=1)[fooled]
    level = -2  # the nearest, before rounding: what the peers answer
    near = [
        bool(found.success[at].float().mean() >= 0.97)
        and bool((found.distances["l2"][at, :DEAR][fooled] <= size).all())
        for at in range(len(FEWER))
    ]
    enough = next((most for most, good in zip(FEWER, near, strict=True) if good), ZOO().queries)
    short, short_seconds = ours(ZOO(queries=enough), net, pixels, labels)

    def row(name: str, result: Adversarial, took: float) -> Row:
        both = result.distances["l2"][level, :DEAR][fooled]
        return (
            f"seewhy, {IMAGES} images, {name}",
            f"**{100 * float(result.success[level].float().mean()):.0f} %** (wanted ≥ 97)",
            f"{float(result.distances['l2'][level].mean()):.3f}",
            f"**{float(both.mean()):.3f}**" if len(both) else "–",
            f"{float(result.queries.float().mean()):.0f}",
            f"{took / IMAGES:.1f} s, **{art / DEAR / (took / IMAGES):.0f} ×** faster (wanted ≥ 20)",
        )

    zoo: list[Row] = [
        row("all its queries", found, seconds),
        row("until it is as near as ART", short, short_seconds),
        (
            f"ART, {DEAR} of them",
            f"{100 * float(fooled.float().mean()):.0f} %",
            "–",
            f"{float(size.mean()):.3f}" if len(size) else "–",
            f"{ART_SEARCHES * ART_TURNS * 257}",
            f"{art / DEAR:.1f} s",
        ),
    ]
    pixels, labels = pixels[:FEW], labels[:FEW]
    rows: list[Row] = []
    hop, seconds = ours(DBGE(queries=CURVE[-1], curve=FINE), net, pixels, labels)
    fine = [statistics.median(line) for line in hop.distances["l2"][: len(FINE)].tolist()]
    peers: dict[str, tuple[Tensor, float]] = {}
    took = timed(lambda: foolbox_hop(watched, pixels, labels))
    peers["Foolbox"] = watched.nearest.clone(), took
    nearest, times = [], []
    for index in range(FEW):
        one = slice(index, index + 1)
        times.append(timed(partial(art_hop, watched, pixels[one], labels[one])))
        nearest.append(watched.nearest.clone())
    peers["ART"] = torch.cat(nearest, 1), sum(times)
    rows.append(
        ("seewhy", *(f"**{fine[FINE.index(most)]:.3f}**" for most in CURVE), f"{seconds / FEW:.1f} s", "", "", "")
    )
    for name, (sizes, took) in peers.items():
        last = statistics.median(sizes[-1].tolist())
        enough = next((most for most, size in zip(FINE, fine, strict=True) if size <= last), FINE[-1])
        soon = ours(DBGE(queries=enough), net, pixels, labels)[1]
        rows.append(
            (
                f"{name}'s HopSkipJump",
                *(f"{statistics.median(line):.3f}" for line in sizes.tolist()),
                f"{took / FEW:.1f} s",
                f"{took / seconds:.1f} ×",
                f"{enough:,} queries",
                f"**{took / soon:.1f} ×** (wanted ≥ 3)",
            )
        )
    return [
        "## Black box on CIFAR-10, `cifar10-resnet20`, untargeted, L2",
        "",
        f"ZOO, at most {ZOO().queries} queries. ART's takes {ART_TURNS} turns of 128 coordinates from c = {ART_C:g}, since its "
        "defaults fool next to none; it passes one image at a time.",
        "",
        *table(("ZOO", "success", "mean L2", f"mean L2 of the {len(size)} that both fool", "queries", "an image"), zoo),
        "",
        f"Labels alone: median L2 of {FEW} images after so many queries; a peer is given the nearest fooling image that it ever "
        "asked about. ART's runs on a model that casts to float32. Equal queries are equal passes: there only what lies between "
        "them can be saved, and Foolbox, too, passes all images at once. The last two columns are for the same distance: the "
        "queries after which ours is as near as the peer at its last, and the peer's time to the time of a run with so many.",
        "",
        *table(
            (
                "labels only",
                *(f"{each:,} queries" for each in CURVE),
                *("an image, all queries", "faster, equal queries", "ours is as near after", "faster, equal distance"),
            ),
            rows,
        ),
    ]
