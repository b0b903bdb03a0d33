"""Carlini & Wagner, L-BFGS and JSMA on CIFAR-10 beside Foolbox, torchattacks and ART; JSMA on a photograph.

python -m benchmarks.optimised CONTEST    # one of CONTESTS or LARGE in a process of its own: what it reaches, as JSON
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, at_least, at_most, bar, process, table
from seewhy.attack import JSMA, LBFGS, Attack, CarliniWagner, WhiteBox
from seewhy.classifier import Classifier
from seewhy.data.cifar10 import cifar10
from seewhy.zoo import load


class OnPixels(nn.Module):
    """The network with its normalisation inside, as the peers want it."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.module = net.module
        self.register_buffer("mean", torch.tensor(net.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(net.std).view(1, 3, 1, 1))

    def forward(self, x: Any) -> Any:
        return self.module((x - self.mean) / self.std)


def rightly(net: Classifier, count: int) -> tuple[Tensor, Tensor]:
    """The first CIFAR-10 test images that the network gets right, and their labels."""
    data = cifar10(os.environ.get("SEEWHY_CIFAR10"), "test").images(range(2 * count), net.preprocess)
    labels = torch.as_tensor(data.labels)
    right = (net.predict(data).argmax(1).cpu() == labels).nonzero()[:count, 0]
    return data.pixels[right], labels[right]


@dataclass(frozen=True)
class Outcome:
    """What one attack reached on some images, judged in plain passes, and its seconds."""

    success: float
    l2: float
    pixels: float
    seconds: float


def judged(
    net: Classifier, images: Tensor, labels: Tensor, target: Tensor | None, run: Callable[[], Tensor]
) -> Outcome:
    """Run an attack and judge its images; distances are means over those that fool, and failures are told by the success."""
    started = time.perf_counter()
    found = run().clamp(0, 1)
    seconds = time.perf_counter() - started
    answer = net.predict(found).argmax(1).cpu()
    fooled = answer != labels if target is None else answer == target
    change = (found - images)[fooled]
    share = (change.abs().amax(1) > 0).float().mean()
    return Outcome(float(fooled.float().mean()), float(change.flatten(1).norm(dim=1).mean()), float(share), seconds)


def ours(
    method: Attack[WhiteBox], net: Classifier, images: Tensor, labels: Tensor, target: Tensor | None = None
) -> Tensor:
    """The images of an attack's level that is not rounded: the first, where no sizes are asked for."""
    return method(net, images, labels, target).images[0]


@dataclass(frozen=True)
class Peers:
    """The peers on one network, as their users run them."""

    net: Classifier

    def module(self) -> nn.Module:
        return OnPixels(self.net).eval().to(self.device)

    @property
    def device(self) -> torch.device:
        return self.net.engine.device

    def foolbox(
        self, images: Tensor, labels: Tensor, searches: int, steps: int, target: Tensor | None = None
    ) -> Tensor:
        foolbox: Any = importlib.import_module("foolbox")
        model = foolbox.PyTorchModel(self.module(), bounds=(0, 1), device=self.device)
        aim = foolbox.criteria.Misclassification if target is None else foolbox.criteria.TargetedMisclassification
        wanted = aim((labels if target is None else target).to(self.device))
        attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=searches, steps=steps)
        return attack(model, images.to(self.device), wanted, epsilons=None)[1].cpu()

    def torchattacks(self, images: Tensor, labels: Tensor, c: float, steps: int) -> Tensor:
        torchattacks: Any = importlib.import_module("torchattacks")
        return torchattacks.CW(self.module(), c=c, steps=steps)(images, labels).cpu()

    def torchattacks_jsma(self, images: Tensor, labels: Tensor) -> Tensor:
        torchattacks: Any = importlib.import_module("torchattacks")
        with contextlib.redirect_stdout(io.StringIO()):
            return torchattacks.JSMA(self.module(), theta=1.0, gamma=0.1)(images, labels).detach().cpu()

    def _art(self) -> tuple[Any, Any]:
        estimators: Any = importlib.import_module("art.estimators.classification")
        evasion: Any = importlib.import_module("art.attacks.evasion")
        shape = {"input_shape": (3, *self.net.size), "nb_classes": self.net.classes, "clip_values": (0.0, 1.0)}
        shape["device_type"] = "cpu" if self.device.type == "cpu" else "gpu"
        return estimators.PyTorchClassifier(self.module(), loss=nn.CrossEntropyLoss(), **shape), evasion

    def art(self, images: Tensor, labels: Tensor, searches: int, steps: int) -> Tensor:
        model, evasion = self._art()
        words = {"binary_search_steps": searches, "max_iter": steps, "batch_size": len(images), "verbose": False}
        return torch.from_numpy(evasion.CarliniL2Method(model, **words).generate(images.numpy(), labels.numpy()))

    def art_jsma(self, images: Tensor, target: Tensor, batch: int) -> Tensor:
        model, evasion = self._art()
        attack = evasion.SaliencyMapMethod(model, theta=1.0, gamma=0.1, batch_size=batch, verbose=False)
        return torch.from_numpy(attack.generate(images.numpy().copy(), target.numpy()))


def seconds(found: Outcome, per: int = 1) -> str:
    return f"{found.seconds / per:.2g} s" if found.seconds / per < 10 else f"{found.seconds / per:.0f} s"


#: how many pairs of pixels ours changes by one map
AT_ONCE = (1, 4, 8)

#: wanted: so many times as fast as a peer; at most so many seconds of L-BFGS and so many times the distance of Carlini & Wagner;
#: at most so many seconds and bytes of JSMA on a photograph
CW_FASTER, JSMA_FASTER = 2, 10
LBFGS_SECONDS, LBFGS_L2 = 180, 1.1
LARGE_SECONDS, LARGE_BYTES = 120, 2e9

#: JSMA on a photograph: its words on the page, and whether towards the class after the predicted one
LARGE = {"jsma-away": ("away from its class", False), "jsma-towards": ("towards the next class", True)}

#: each peer's attack: its words on the page, images, whether towards the class after the true one, and the call
CONTESTS: dict[str, tuple[str, int, bool, Callable[[Peers, Tensor, Tensor, Tensor], Tensor]]] = {
    "cw-foolbox": (
        "Foolbox, 5 searches of 50 steps",
        100,
        False,
        lambda peers, x, y, _: peers.foolbox(x, y, searches=5, steps=50),
    ),
    "cw-foolbox-long": (
        "Foolbox, 9 searches of 100 steps",
        16,
        False,
        lambda peers, x, y, _: peers.foolbox(x, y, searches=9, steps=100),
    ),
    "cw-torchattacks": (
        "torchattacks, c = 0.1, 100 steps",
        100,
        False,
        lambda peers, x, y, _: peers.torchattacks(x, y, c=0.1, steps=100),
    ),
    "cw-art": (
        "ART, 10 searches of 10 steps",
        3,
        False,
        lambda peers, x, y, _: peers.art(x, y, searches=10, steps=10),
    ),
    "jsma-torchattacks": ("torchattacks", 2, True, lambda peers, x, y, _: peers.torchattacks_jsma(x, y)),
    "jsma-art": ("ART, all in one batch", 32, True, lambda peers, x, _, t: peers.art_jsma(x, t, len(x))),
    "jsma-art-one": ("ART, one at a time, its default", 8, True, lambda peers, x, _, t: peers.art_jsma(x, t, 1)),
}


def main(contest: str) -> None:
    """What a peer reaches, or ours on a photograph."""
    print(json.dumps(on_photograph(LARGE[contest][1]) if contest in LARGE else asdict(peer(contest))))


def peer(contest: str) -> Outcome:
    """Run a peer as its users do: a module as PyTorch makes it, the allocator as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = load("cifar10-resnet20")
        net.module.to(memory_format=torch.contiguous_format).requires_grad_(True)  # type: ignore[call-overload]
        _, count, towards, run = CONTESTS[contest]
        x, y = rightly(net, count)
        t = (y + 1) % net.classes
        return judged(net, x, y, t if towards else None, partial(run, Peers(net), x, y, t))


def carlini_wagner(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    """Each peer beside the fewest steps with which ours is no worse in success and distance."""
    contests = {
        "cw-foolbox": CarliniWagner(1, 50),
        "cw-foolbox-long": CarliniWagner(1, 50),
        "cw-torchattacks": CarliniWagner(1, 30),
        "cw-art": CarliniWagner(1, 100),
    }
    rows: list[Row] = []
    for contest, method in contests.items():
        name, count, *_ = CONTESTS[contest]
        x, y = images[:count], labels[:count]
        ours_found = judged(net, x, y, None, partial(ours, method, net, x, y))
        found = Outcome(**process("optimised", contest))
        faster = found.seconds / ours_found.seconds
        rows.append(
            (
                name,
                str(len(x)),
                f"{found.success:.0%}, {found.l2:.4f}",
                seconds(found),
                method.spec,
                f"**{ours_found.success:.0%}, {ours_found.l2:.4f}**",
                seconds(ours_found),
                f"**{faster:.1f} ×**",
                f"{at_least(faster, CW_FASTER, ' ×')}; "
                + bar("no worse", ours_found.success >= found.success and ours_found.l2 <= found.l2),
            )
        )
    head = ("peer", "images", "success, mean L2", "time", "ours", "success, mean L2", "time", "faster", "wanted")
    return [
        "Carlini & Wagner in L2, untargeted. Ours with few steps, as it starts from a c of each image's own; the peers with "
        "those settings from which they get farther, in processes of their own.",
        "",
        *table(head, rows),
    ]


def lbfgs(net: Classifier, images: Tensor, labels: Tensor, few: int) -> list[str]:
    """L-BFGS beside our own Carlini & Wagner with 1,000 steps, on the first few."""
    found = judged(net, images, labels, None, partial(ours, LBFGS(), net, images, labels))
    x, y = images[:few], labels[:few]
    small = judged(net, x, y, None, partial(ours, LBFGS(), net, x, y))
    long = judged(net, x, y, None, partial(ours, CarliniWagner(searches=3, steps=1000), net, x, y))
    rows: list[Row] = [
        (
            f"L-BFGS, {len(images)} images",
            f"{found.success:.0%}, {found.l2:.4f}",
            f"**{seconds(found)}**",
            at_most(found.seconds, LBFGS_SECONDS, " s"),
        ),
        (
            f"L-BFGS, the first {few}",
            f"{small.success:.0%}, **{small.l2:.4f}**",
            seconds(small),
            f"L2 {at_most(small.l2, round(LBFGS_L2 * long.l2, 4))}",
        ),
        (
            f"Carlini & Wagner, 3 searches of 1,000 steps, the same {few}",
            f"{long.success:.0%}, {long.l2:.4f}",
            seconds(long),
            "",
        ),
    ]
    return ["L-BFGS, untargeted.", "", *table(("attack", "success, mean L2", "time", "wanted"), rows)]


def jsma(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    """JSMA towards the class after the true one, which is torchattacks' only target, an image's time."""
    target = (labels + 1) % net.classes
    methods = [JSMA(at_once=count) for count in AT_ONCE]
    whole = [judged(net, images, labels, target, partial(ours, each, net, images, labels, target)) for each in methods]
    rows: list[Row] = []
    for contest in ("jsma-torchattacks", "jsma-art", "jsma-art-one"):
        name, count, *_ = CONTESTS[contest]
        x, y, t = images[:count], labels[:count], target[:count]
        found = Outcome(**process("optimised", contest))
        for method, all_of_them in zip(methods, whole, strict=True):
            same = judged(net, x, y, t, partial(ours, method, net, x, y, t))
            faster = found.seconds / same.seconds
            at_once = found.seconds / len(x) / (all_of_them.seconds / len(images))
            rows.append(
                (
                    name,
                    str(len(x)),
                    f"{found.success:.0%}, {found.pixels:.1%}",
                    seconds(found, len(x)),
                    method.spec,
                    f"**{same.success:.0%}**, {same.pixels:.1%}",
                    seconds(same, len(x)),
                    f"**{faster:.0f} ×**",
                    f"{all_of_them.success:.0%}, {all_of_them.pixels:.1%}",
                    seconds(all_of_them, len(images)),
                    f"**{at_once:.0f} ×**",
                    f"on the same {at_least(faster, JSMA_FASTER, ' ×')}; on {len(images)} at once "
                    f"{at_least(at_once, JSMA_FASTER, ' ×')}; {bar('success ≥ its', same.success >= found.success)}",
                )
            )
    head = (
        *("peer", "images", "success, pixels changed", "an image", "ours", "on the same", "an image", "faster"),
        *(f"on {len(images)} at once", "an image", "faster", "wanted"),
    )
    asked = float(JSMA()(net, images, labels, target).queries.float().mean())
    bare = passes(net, images) * asked
    return [
        "JSMA, θ = 1, γ = 0.1, towards the class after the true one; the peers in processes of their own.",
        "",
        *table(head, rows),
        "",
        "A map needs the slopes of the target and of all other classes: a forward and two backward passes, and no other pass is "
        f"made. For one pair a map, as in the paper, these alone are {bare:.2g} s of our {whole[0].seconds / len(images):.2g} s "
        "an image, in full batches: that is its limit; more pairs a map take as many times fewer. ART takes the target's slope "
        "alone (not the paper's map), in two forward passes and a backward pass for each target in its batch.",
    ]


def passes(net: Classifier, images: Tensor) -> float:
    """Seconds of a forward and two backward passes of an image, in the engine's batches."""
    turns = []
    for _ in range(5):
        started = time.perf_counter()
        net.gradient(images, lambda logits, _: torch.stack([logits[:, 0], logits.sum(1)], 1))
        turns.append(time.perf_counter() - started)
    return statistics.median(turns) / len(images)


def on_photograph(towards: bool) -> dict[str, Any]:
    """JSMA on one photograph of 224 × 224 pixels, 1,000 classes, in a process that has attacked nothing: it holds no memory."""
    from skimage.data import chelsea

    from benchmarks.nets import ready  # late: the tests use this module too, and have torchvision set up already
    from seewhy.data.photo import from_array
    from seewhy.machine import keep_memory

    keep_memory()
    net = ready("efficientnet-lite0")
    photo = from_array(chelsea(), net.preprocess)  # type: ignore[no-untyped-call]
    label = int(net.predict(photo).argmax())
    found = JSMA()(net, photo, label, (label + 1) % net.classes if towards else None)
    return {
        "fooled": bool(found.success[0, 0]),
        "pixels": float(found.distances["l0"][0, 0]),
        "queries": int(found.queries[0]),
        "seconds": found.cost.seconds,
        "memory": found.cost.peak_bytes,
    }


def jsma_large() -> list[str]:
    """One photograph, 150,528 features: each attack in a process of its own."""
    rows: list[Row] = []
    for contest, (name, _) in LARGE.items():
        found = process("optimised", contest)
        memory = found["memory"]
        wanted = [at_most(found["seconds"], LARGE_SECONDS, " s")]
        wanted += [] if memory is None else [at_most(memory / 1e9, LARGE_BYTES / 1e9, " GB")]
        rows.append(
            (
                name,
                "yes" if found["fooled"] else "no",
                f"{found['pixels']:.2%}",
                str(found["queries"]),
                f"**{found['seconds']:.0f} s**",
                "–" if memory is None else f"**{memory / 1e9:.2f} GB**",
                "; ".join(wanted),
            )
        )
    head = ("JSMA on EfficientNet-Lite0", "fooled", "pixels changed", "forward passes", "time", "memory", "wanted")
    return [
        "One photograph, 224 × 224 × 3 features, 1,000 classes, at most 1,000 steps, each attack in a process of its own: memory "
        "is what it adds to that of a model that has predicted. A table of all pairs of features would take 181 GB.",
        "",
        *table(head, rows),
    ]


def optimised() -> list[str]:
    """Attacks that solve a problem of their own, on CIFAR-10's test images and ResNet-20."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = load("cifar10-resnet20")
        images, labels = rightly(net, 100)
        ours(LBFGS(1, 2), net, images, labels)  # batch sizes are measured once
        return [
            "## Attacks by optimisation: Carlini & Wagner, L-BFGS, JSMA",
            "",
            "The first CIFAR-10 test images that ResNet-20 gets right; mean L2 of those fooled, judged in plain passes; one "
            "run each.",
            "",
            *carlini_wagner(net, images, labels),
            "",
            *lbfgs(net, images, labels, 12),
            "",
            *jsma(net, images[:32], labels[:32]),
            "",
            *jsma_large(),
        ]


if __name__ == "__main__":
    main(*sys.argv[1:])
