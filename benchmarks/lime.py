"""LIME on a photograph's superpixels, beside the lime package and Captum, for the same quality.

python -m benchmarks.lime NET    # the peers in a process of their own: their seconds a sample, as JSON
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Row, at_least, process, rate, table
from benchmarks.nets import plain, ready
from benchmarks.shap import photograph

WIDTH = 0.25
WANTED = 0.95
FASTER = 6
SEEDS = 3
#: samples of the fit that all are compared with; the dearer net gets fewer
REFERENCE = {"efficientnet-lite0": 10_000, "resnet50": 1_600}
#: samples of a peer's run, of which the seconds a sample are taken; batch that is best for both
RUN, BATCH = 64, 16
#: samples of the runs of seewhy that tell how many it needs
LONG = 1_152


def fit(kept: Tensor, answers: Tensor) -> Tensor:
    """The paper's weighted least squares on coalitions that were drawn alike."""
    distance = 1 - kept.double().mean(1).sqrt()
    root = torch.exp(-((distance / WIDTH) ** 2)).sqrt()[:, None]
    terms = torch.cat([torch.ones(len(kept), 1), kept], 1).double()
    return torch.linalg.lstsq(root * terms, root * answers[:, None].double(), driver="gelsd").solution[1:, 0]


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def needed(sizes: list[int], reaches: Callable[[int], Tensor], reference: Tensor) -> int | None:
    """The first of the numbers of samples from which on the coefficients keep the wanted correlation with the reference."""
    short = [place for place, size in enumerate(sizes) if not correlation(reaches(size), reference) >= WANTED]
    if not short:
        return sizes[0]
    return None if short[-1] + 1 == len(sizes) else sizes[short[-1] + 1]


def usual(kept: Tensor, answers: Tensor) -> tuple[float, str]:
    """How many independent samples the paper's fit needs, and ≥ where that is a lower bound only: counted on four quarters."""
    parts = torch.arange(len(kept)) * 4 // len(kept)
    sizes = list(range(kept.shape[1] + 15, len(kept) // 4 + 1, 16))

    def each(part: int) -> int | None:
        own, others = parts == part, parts != part
        return needed(
            sizes,
            lambda size: fit(kept[own][:size], answers[own][:size]),
            fit(kept[others], answers[others]),
        )

    counts = [each(part) for part in range(4)]
    more = "≥ " if sum(count is None for count in counts) > 1 else ""
    return statistics.median(sizes[-1] if count is None else count for count in counts), more


@dataclass(frozen=True)
class Ours:
    """Runs of seewhy on one net: seconds, samples, and correlations with the reference, as they end; and what they needed."""

    seconds: list[float]
    taken: list[int]
    correlations: list[float]
    needed: list[int | None]


def ours(net: Any, image: Tensor, target: int, labels: Tensor, reference: Tensor) -> Ours:
    """Runs that stop by themselves, and longer ones from whose samples it is told when they could have stopped."""
    from seewhy.explain import Lime
    from seewhy.explain import lime as module
    from seewhy.explain.players import play

    first = torch.stack([(labels == index).nonzero()[0] for index in range(len(reference))]).T
    method = Lime(fill="grey", width=WIDTH, tolerance=(1 - WANTED**2) ** 0.5, samples=5000)
    found = Ours([], [], [], [])
    for seed in range(SEEDS):
        started = time.perf_counter()
        made = replace(method, seed=seed)(net, image, target)
        found.seconds.append(time.perf_counter() - started)
        found.taken.append(int(made.measures["samples"]))
        found.correlations.append(correlation(made.values[0, 0][first[0], first[1]], reference))
        asked: list[Tensor] = []
        said: list[Tensor] = []

        def listen(*given: Any, asked: list[Tensor] = asked, said: list[Tensor] = said) -> Tensor:
            answers = play(*given)
            asked.append(given[-1])
            said.append(answers[:, target].double())
            return answers

        def reaches(size: int, asked: list[Tensor] = asked, said: list[Tensor] = said) -> Tensor:
            kept, answers = torch.cat(asked)[:size], torch.cat(said)[:size]
            return method._solve(kept, answers, torch.ones(size, dtype=torch.float64), False).coefficients

        with patch.object(module, "play", listen):
            replace(method, seed=seed, tolerance=0.0, samples=LONG)(net, image, target)
        found.needed.append(needed(list(range(2 * len(reference) + 2, LONG + 1, 8)), reaches, reference))
    return found


def lime() -> Iterator[list[str]]:
    """Samples and seconds until the coefficients correlate by 0.95 with those of a long run."""
    from seewhy.explain.baseline import baseline
    from seewhy.explain.players import play
    from seewhy.lens.cost import cost

    rows: list[Row] = []
    limits: list[Row] = []
    counts: dict[str, int] = {}
    for name, samples in REFERENCE.items():
        net, image, labels, target = _setting(name)
        count = counts[name] = int(labels.max()) + 1
        kept = torch.rand(samples, count, generator=torch.Generator().manual_seed(0)) < 0.5
        answers = play(net, image[0], baseline("grey", image)[0], labels, kept)[:, target]
        theirs, more = usual(kept, answers)
        net.engine.precision = "bf16"
        own = ours(net, image, target, labels, fit(kept, answers))
        wanted = []
        peers = [process("lime", name) for _ in range(SEEDS)]
        for peer in PEERS:
            each = [found[peer] for found in peers]
            ratios = sorted(theirs * sample / second for sample, second in zip(each, own.seconds, strict=True))
            middle, a_sample = statistics.median(ratios), statistics.median(each)
            rows.append(
                (
                    name,
                    peer,
                    f"{more}{theirs:.0f}",
                    f"{a_sample * 1e3:.1f}",
                    f"{more}{theirs * a_sample:.1f}",
                    "–",
                    f"**{more}{middle:.1f} ×** ({ratios[0]:.1f} to {ratios[-1]:.1f})",
                    f"≥ {FASTER}: not told" if more and middle < FASTER else at_least(middle, FASTER),
                )
            )
            wanted.append(f"{more}{theirs * a_sample / FASTER:.2f} s by {peer}")
        limits.append(_limit(name, net, image, own, cost(net).multiply_adds, ", ".join(wanted)))
        a_sample = statistics.median(s / n for s, n in zip(own.seconds, own.taken, strict=True))
        rows.append(
            (
                name,
                "seewhy, bf16",
                f"{statistics.median(own.taken):.0f}",
                f"{a_sample * 1e3:.1f}",
                f"{statistics.median(own.seconds):.1f}",
                f"{min(own.correlations):.3f} to {max(own.correlations):.3f}",
                "",
                at_least(statistics.median(own.correlations), WANTED),
            )
        )
        yield _page(rows, limits, counts)


def _limit(name: str, net: Any, image: Tensor, own: Ours, multiply_adds: int, wanted: str) -> Row:
    """What the samples that were needed take at the machine's peak, and what the passes alone take."""
    fewest = statistics.median(LONG if each is None else each for each in own.needed)
    more = "≥ " if sum(each is None for each in own.needed) > SEEDS // 2 else ""
    many = image.expand(64, -1, -1, -1)
    passes = []
    with net.engine.half():
        for _ in range(3):
            started = time.perf_counter()
            net.predict(many)
            passes.append((time.perf_counter() - started) / len(many))
    seconds, taken, peak = statistics.median(own.seconds), statistics.median(own.taken), rate(torch.bfloat16)
    limit = fewest * multiply_adds / peak
    return (
        name,
        f"{taken:.0f}",
        f"{more}{fewest:.0f}",
        f"{taken * statistics.median(passes):.2f} s, {100 * taken * statistics.median(passes) / seconds:.0f} % of the time",
        f"{multiply_adds / 1e9:.2f} · 10⁹",
        f"{peak / 1e9:.0f} · 10⁹",
        f"{limit:.2f} s",
        f"{seconds / limit:.1f} ×",
        wanted,
    )


def _page(rows: list[Row], limits: list[Row], counts: dict[str, int]) -> list[str]:
    head = (
        "net", "by", "samples", "ms a sample", "seconds", "correlation reached", "seewhy is faster by", "wanted",
    )  # fmt: skip
    bounds = (
        *("net", "samples taken", "samples needed", "passes of those taken, alone", "multiply-adds a pass"),
        *("the machine's peak a second, bf16", "limit: those needed, at that peak", "seewhy, to it", "wanted seconds"),
    )
    which = ", ".join(f"{REFERENCE[name]:,} on {name} ({count} segments)" for name, count in counts.items())
    return [
        "## LIME of a photograph's superpixels, for the same quality",
        "",
        "The same segments, grey fill, kernel and logit for all. Quality is a correlation of "
        f"{WANTED} with the paper's weighted fit of many independent samples: {which}. seewhy stops by itself, at standard "
        f"errors that promise this ({SEEDS} seeds). Both peers draw their samples independently, so how many they need is "
        "counted on four quarters of those samples, against the fit of the other three (the median), and their seconds are "
        f"those times the seconds a sample of {SEEDS} runs of {RUN}, {BATCH} at a time (best for both), in processes of their "
        "own, as their users run them. ResNet-50 has random weights. The chance left in the long fits lowers every correlation.",
        "",
        *table(head, rows),
        "",
        f"What the limit is. Samples needed: those of seewhy's own from which on the correlation stays at {WANTED}, had one "
        f"known it (the median of {SEEDS} runs of {LONG}). The peak is that of a product of matrices in bf16; no convolution "
        "of these networks comes near it, depthwise ones least.",
        "",
        *table(bounds, limits),
    ]


def _setting(name: str) -> tuple[Any, Tensor, Tensor, int]:
    """The network, the photograph, its segments and its class."""
    from seewhy.explain.players import segments

    net = ready(name)
    image = photograph(net)
    return net, image, segments(image[0], "slic", 50), int(net.predict(image).argmax())


def main(name: str) -> None:
    net, image, labels, target = _setting(name)
    module, found = plain(name), {}
    for peer, made in PEERS.items():
        run = made(module, net, image, labels, target)
        run(BATCH)
        started = time.perf_counter()
        run(RUN)
        found[peer] = (time.perf_counter() - started) / RUN
    print(json.dumps(found))


def package(module: nn.Module, net: Any, image: Tensor, labels: Tensor, target: int) -> Callable[[int], object]:
    """The lime package on the plain module."""
    from lime.lime_image import LimeImageExplainer

    explainer = LimeImageExplainer(
        kernel_width=WIDTH, kernel=lambda d, kernel_width: np.exp(-(d**2) / kernel_width**2), random_state=0
    )
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (net.mean, net.std))

    def logits(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            return module((torch.from_numpy(batch).permute(0, 3, 1, 2).float() - mean) / std).numpy()

    picture = image[0].permute(1, 2, 0).numpy()

    def run(samples: int) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return explainer.explain_instance(
                picture, logits, labels=(target,), top_labels=None, hide_color=0.5, num_samples=samples,
                batch_size=BATCH, segmentation_fn=lambda _: labels.numpy(),
            )  # fmt: skip

    return run


def captum(module: nn.Module, net: Any, image: Tensor, labels: Tensor, target: int) -> Callable[[int], object]:
    """Captum's Lime on the plain module, with the paper's kernel on the segments and least squares."""
    from captum._utils.models.linear_model import SkLearnLinearRegression
    from captum.attr import Lime as Peer

    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (net.mean, net.std))

    def similarity(_: Tensor, __: Tensor, kept: Tensor, **___: Any) -> Tensor:
        return torch.exp(-(((1 - kept.float().mean(1).sqrt()) / WIDTH) ** 2))

    explainer = Peer(module, interpretable_model=SkLearnLinearRegression(), similarity_func=similarity)
    given, hidden = (image - mean) / std, (torch.full_like(image, 0.5) - mean) / std

    def run(samples: int) -> object:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return explainer.attribute(
                given, baselines=hidden, target=target, feature_mask=labels[None, None].expand(1, 3, -1, -1),
                n_samples=samples, perturbations_per_eval=BATCH, return_input_shape=False,
            )  # fmt: skip

    return run


PEERS = {"lime": package, "Captum": captum}


if __name__ == "__main__":
    main(*sys.argv[1:])
