"""FGSM, PGD and DeepFool on photographs: what an attack costs beside its passes and beside its peers, and how far it goes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, Timing, at_least, at_most, table, take_turns
from seewhy.attack import FGSM, PGD, Adversarial, Attack, DeepFool, Goal, WhiteBox
from seewhy.classifier import Classifier
from seewhy.intervals import wilson

#: images, and how many of them for the passes of FGSM
IMAGES, SOME = 100, 48
SIZE = 4 / 255

#: wanted: at most so many times the passes that must be made, and so many times as fast as a peer by PGD and by DeepFool
OVERHEAD, PGD_FASTER, DEEPFOOL_FASTER = 1.1, 2, 3
FIGURE = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


class OnPixels(nn.Module):
    """What peers get: the module with its normalisation, frozen and channels-last, on images in [0, 1]."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.module = net.module
        self.mean, self.std = (torch.tensor(each).view(1, 3, 1, 1) for each in (net.mean, net.std))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        given = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.module(given)


def known_photos(net: Classifier, count: int) -> tuple[Tensor, Tensor, str]:
    """Up to `count` photographs that the network gets right, their labels, and what they are in words."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-photos"
    files = sorted(folder.glob("*.JPEG"))
    if not files:
        from benchmarks.nets import pixels  # late, as in `white_box`

        images = pixels(count)
        return images, net.predict(images).argmax(1), f"{count} random pictures (the photographs are not here)"
    read = torch.cat([net.read(*files[i : i + 25]).pixels for i in range(0, min(len(files), count * 3 // 2), 25)])
    labels = torch.tensor([int(file.name[:4]) for file in files[: len(read)]])
    right = (net.predict(read).argmax(1) == labels).nonzero()[:count, 0]
    return read[right], labels[right], f"{len(right)} photographs that it gets right"


def _peer(name: str) -> Any:
    return importlib.import_module(name)


def in_batches(run: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, size: int) -> Tensor:
    return torch.cat([run(images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)])


def white_box() -> list[str]:
    """The three parts below on EfficientNet-Lite0."""
    from benchmarks.nets import ready  # late: the tests use this module too, and have torchvision set up already

    net = ready("efficientnet-lite0")
    images, labels, words = known_photos(net, IMAGES)
    return [
        f"## White-box attacks on EfficientNet-Lite0, {words}",
        "",
        *_figure(net, images, labels),
        "",
        *_overhead(net, images[:SOME], labels[:SOME]),
        "",
        *_pgd(net, images, labels),
        "",
        *_deepfool(net, images, labels),
    ]


def _figure(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    found = FGSM(eps=FIGURE, refine=0)(net, images, labels)
    rows: list[Row] = []
    for level, size in enumerate(FIGURE):
        wrong = found.success[level]
        low, high = wilson(int(wrong.sum()), len(wrong))
        sure = found.probabilities[level].amax(1)[wrong]
        own = found.probabilities[level].gather(1, labels[:, None])[:, 0]
        rows.append(
            (
                f"{size:g}",
                f"**{100 * float(wrong.float().mean()):.0f} %** ({100 * low:.0f} to {100 * high:.0f})",
                _mean(sure),
                _mean(own),
                f"{100 * float(found.success_8bit[level].float().mean()):.0f} %",
            )
        )
    head = ("ε", "error rate", "confidence where it errs", "probability of the true class, all", "error rate in 8 bits")
    return ["FGSM over ε, with 95 % intervals:", "", *table(head, rows)]


def _mean(values: Tensor) -> str:
    if len(values) < 2:
        return "–"
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    mean = float(values.mean())
    return f"{100 * mean:.0f} % (± {100 * half:.0f})"


def _overhead(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    """FGSM at one size beside the passes that it is made of."""
    attack, goal = FGSM(eps=(0.15,), refine=0), Goal(labels)
    attack(net, images, labels)  # the batch sizes are measured here
    sizes = {kind: net.engine.measured.get(kind, net.engine.USUAL) for kind in ("forward", "gradient")}

    def perturb() -> None:
        with net.session():
            attack.perturb(WhiteBox(net).opened(len(images)), images, goal)

    def gradients() -> None:
        with net.session():
            for i in range(0, len(images), sizes["gradient"]):
                leaf = images[i : i + sizes["gradient"]].clone().requires_grad_()
                torch.autograd.grad(net.module(net.normalise(leaf)).sum(), leaf)

    def forwards() -> None:
        with net.session(), torch.no_grad():
            for i in range(0, len(images), sizes["forward"]):
                net.module(net.normalise(images[i : i + sizes["forward"]]))

    timing = take_turns(
        {
            "attack": perturb,
            "whole": lambda: attack(net, images, labels),
            "gradients": gradients,
            "forwards": forwards,
        },
        turns=5,
        warm=1,
    )
    each = {name: timing.median(name) / len(images) * 1e3 for name in timing.turns}
    passes = [
        a + 3 * b for a, b in zip(timing.turns["gradients"], timing.turns["forwards"], strict=True)
    ]  # clean, final, and final in 8 bits
    alone = timing.ratio("attack", "gradients")[0]
    whole = Timing({"whole": timing.turns["whole"], "passes": passes}).ratio("whole", "passes")[0]
    rows: list[Row] = [
        (
            "the attack: from images to images",
            f"{each['attack']:.1f}",
            f"forward + backward, {each['gradients']:.1f}",
            f"**{alone:.2f} ×**",
            at_most(alone, OVERHEAD, " ×"),
        ),
        (
            "all that the call does: also predicted before, after, and after in 8 bits",
            f"{each['whole']:.1f}",
            f"forward + backward and three forward, {1e3 * sum(passes) / len(passes) / len(images):.1f}",
            f"**{whole:.2f} ×**",
            at_most(whole, OVERHEAD, " ×"),
        ),
    ]
    return [
        f"FGSM, ε = 0.15, {len(images)} images, milliseconds an image:",
        "",
        *table(("what", "seewhy", "of the passes that must be made", "", "wanted"), rows),
    ]


def _pgd(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    foolbox, torchattacks = _peer("foolbox"), _peer("torchattacks")
    module = OnPixels(net)
    peer = torchattacks.PGD(module, eps=SIZE, alpha=SIZE / 4, steps=10)
    box = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    other = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=10)
    size = net.engine.measured.get("gradient", net.engine.USUAL)
    found: dict[str, Any] = {}

    def keep(name: str, run: Callable[[], Any]) -> Callable[[], None]:
        def kept() -> None:
            found[name] = run()

        return kept

    timing = take_turns(
        {
            "seewhy": keep("seewhy", lambda: PGD(eps=(SIZE,), refine=0)(net, images, labels)),
            "torchattacks": keep("torchattacks", lambda: in_batches(peer, images, labels, size)),
            "Foolbox": keep(
                "Foolbox", lambda: in_batches(lambda x, y: other.run(box, x, y, epsilon=SIZE), images, labels, size)
            ),
        },
        turns=1,
        warm=0,
    )
    rows = [_row(net, images, labels, name, found[name], timing, PGD_FASTER, "linf") for name in timing.turns]
    return [
        "PGD, 10 steps of ε/4, ε = 4/255; peers on the same frozen channels-last module, in batches of the size that seewhy "
        f"found fastest ({size}); seewhy's time includes predicting before, after, and after in 8 bits, the peers' does not:",
        "",
        *table(("", "seconds", "seewhy is faster", "wanted", "fooled", "mean L∞ · 255", "passes an image"), rows),
    ]


def _deepfool(net: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    foolbox = _peer("foolbox")
    module = OnPixels(net)
    box = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    size = net.engine.measured.get("gradient", net.engine.USUAL)
    lines: list[str] = []
    for norm, other in (
        ("l2", foolbox.attacks.L2DeepFoolAttack(candidates=10)),
        ("linf", foolbox.attacks.LinfDeepFoolAttack(candidates=10)),
    ):
        found: dict[str, Any] = {}
        attacks: dict[str, Attack[Any]] = {
            "seewhy": DeepFool(norm=norm),
            "seewhy, as the paper ends": DeepFool(norm=norm, refine=0),
        }

        def run(
            name: str,
            x: Tensor = images,
            y: Tensor = labels,
            peer: Any = other,
            found: Any = found,
            ours: Any = attacks,
        ) -> None:
            if name in ours:
                found[name] = ours[name](net, x, y)
            else:
                found[name] = in_batches(lambda some, of: peer.run(box, some, of), x, y, size)

        names = [*attacks, "Foolbox"]
        timing = take_turns({name: lambda name=name, run=run: run(name) for name in names}, turns=1, warm=0)  # type: ignore[misc]
        rows = [_row(net, images, labels, name, found[name], timing, DEEPFOOL_FASTER, norm) for name in names]
        size_words = "mean L2" if norm == "l2" else "mean L∞ · 255"
        lines += [
            f"DeepFool {'L2' if norm == 'l2' else 'L∞'}, 10 candidates, {len(images)} images, one turn:",
            "",
            *table(("", "seconds", "seewhy is faster", "wanted", "fooled", size_words, "passes an image"), rows),
            "",
        ]
    return [
        *lines,
        "Foolbox makes nine forward and backward passes a step for all images of a batch, until the last one is fooled; seewhy "
        "one forward pass, nine backward passes in the first step and few later, for those that are not fooled."
        " The parameters are frozen for both.",
    ]


def _row(
    net: Classifier, images: Tensor, labels: Tensor, name: str, found: Any, timing: Timing, wanted: float, norm: str
) -> Row:
    """Seconds, how much faster seewhy is, and what was found, judged in the same plain passes for all."""
    passes = "–"
    if isinstance(found, Adversarial):
        passes = f"{found.cost.forward / len(images):.1f} + {found.cost.backward / len(images):.1f}"
        found = found.images[0]
    fooled = net.predict(found).argmax(1) != labels
    flat = (found - images).flatten(1)
    sizes = flat.norm(dim=1) if norm == "l2" else flat.abs().amax(1) * 255
    ours = name.startswith("seewhy")
    faster = timing.ratio(name, "seewhy")[0]
    return (
        name,
        f"{timing.median(name):.1f}",
        "" if ours else f"**{faster:.1f} ×**",
        "" if ours else at_least(faster, wanted, " ×"),
        f"{100 * float(fooled.float().mean()):.0f} %",
        f"{float(sizes.mean()):.3f}",
        passes,
    )
