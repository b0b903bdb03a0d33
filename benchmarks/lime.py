"""LIME on a photograph's superpixels, beside the lime package and Captum, for the same quality.

python -m benchmarks.lime NET SIDE    # a peer in a process of its own: its seconds a sample
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Row, table
from benchmarks.nets import plain, ready
from benchmarks.shap import photograph

WIDTH = 0.25
WANTED = 0.95
SEEDS = 3
#: samples of the fit that all are compared with; the dearer net gets fewer
REFERENCE = {"efficientnet-lite0": 10_000, "resnet50": 2_400}
#: samples of a peer's run, of which the seconds a sample are taken; batch that is best for both
RUN, BATCH = 96, 16


def fit(kept: Tensor, answers: Tensor) -> Tensor:
    """The paper's weighted least squares on coalitions that were drawn alike."""
    distance = 1 - kept.double().mean(1).sqrt()
    root = torch.exp(-((distance / WIDTH) ** 2)).sqrt()[:, None]
    terms = torch.cat([torch.ones(len(kept), 1), kept], 1).double()
    return torch.linalg.lstsq(root * terms, root * answers[:, None].double(), driver="gelsd").solution[1:, 0]


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def needed(kept: Tensor, answers: Tensor, reference: Tensor) -> int | None:
    """The number of samples from which on a fit keeps the wanted correlation with the reference."""
    sizes = list(range(kept.shape[1] + 15, len(kept) + 1, 16))
    short = [size for size in sizes if correlation(fit(kept[:size], answers[:size]), reference) < WANTED]
    if not short:
        return sizes[0]
    return None if short[-1] == sizes[-1] else short[-1] + 16


def lime() -> list[str]:
    """Samples and seconds until the coefficients correlate by 0.95 with those of a long run."""
    from seewhy.explain import Lime
    from seewhy.explain.baseline import baseline
    from seewhy.explain.players import play

    rows: list[Row] = []
    counts: dict[str, int] = {}
    for name, samples in REFERENCE.items():
        net, image, labels, target = _setting(name)
        count = counts[name] = int(labels.max()) + 1
        first = torch.stack([(labels == index).nonzero()[0] for index in range(count)]).T
        kept = torch.rand(samples, count, generator=torch.Generator().manual_seed(0)) < 0.5
        answers = play(net, image[0], baseline("grey", image)[0], labels, kept)[:, target]
        reference = fit(kept, answers)
        parts = torch.arange(samples) * 4 // samples
        blocks = [
            needed(kept[parts == part], answers[parts == part], fit(kept[parts != part], answers[parts != part]))
            for part in range(4)
        ]
        most = samples // 4
        usual = statistics.median(most if each is None else each for each in blocks)
        more = "≥ " if sum(each is None for each in blocks) > 1 else ""  # the median is a lower bound

        net.engine.precision = "bf16"
        seconds: list[float] = []
        found: list[Any] = []
        peers: dict[str, list[float]] = {"lime": [], "Captum": []}
        for seed in range(SEEDS):
            method = Lime(fill="grey", width=WIDTH, tolerance=(1 - WANTED**2) ** 0.5, samples=5000, seed=seed)
            started = time.perf_counter()
            found.append(method(net, image, target))
            seconds.append(time.perf_counter() - started)
            for peer, each in peers.items():
                each.append(_process(name, peer))
        correlations = [correlation(each.values[0, 0][first[0], first[1]], reference) for each in found]
        taken = [int(each.measures["samples"]) for each in found]
        for peer, each in peers.items():
            ratios = sorted(usual * theirs / own for theirs, own in zip(each, seconds, strict=True))
            rows.append(
                (
                    name,
                    peer,
                    f"{more}{usual:.0f}",
                    f"{statistics.median(each) * 1e3:.1f}",
                    f"{more}{usual * statistics.median(each):.1f}",
                    "–",
                    f"**{more}{statistics.median(ratios):.1f} ×** ({ratios[0]:.1f} to {ratios[-1]:.1f})",
                    "≥ 6",
                )
            )
        own = statistics.median(second / number for second, number in zip(seconds, taken, strict=True))
        rows.append(
            (
                name,
                "seewhy, bf16",
                f"{statistics.median(taken):.0f}",
                f"{own * 1e3:.1f}",
                f"{statistics.median(seconds):.1f}",
                f"{min(correlations):.3f} to {max(correlations):.3f}",
                "",
                "",
            )
        )
    head = (
        "net", "by", "samples", "ms a sample", "seconds", "correlation reached", "seewhy is faster by", "wanted",
    )  # fmt: skip
    which = ", ".join(f"{samples:,} on {name} ({counts[name]} segments)" for name, samples in REFERENCE.items())
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
    ]


def _setting(name: str) -> tuple[Any, Tensor, Tensor, int]:
    """The network, the photograph, its segments and its class."""
    from seewhy.explain.players import segments

    net = ready(name)
    image = photograph(net)
    return net, image, segments(image[0], "slic", 50), int(net.predict(image).argmax())


def _process(name: str, peer: str) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-m", "benchmarks.lime", name, peer]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{peer} on {name} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main(name: str, peer: str) -> None:
    net, image, labels, target = _setting(name)
    run = {"lime": package, "Captum": captum}[peer](plain(name), net, image, labels, target)
    run()
    started = time.perf_counter()
    run()
    print(json.dumps((time.perf_counter() - started) / RUN))


def package(module: nn.Module, net: Any, image: Tensor, labels: Tensor, target: int) -> Callable[[], object]:
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

    def run() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return explainer.explain_instance(
                picture, logits, labels=(target,), top_labels=None, hide_color=0.5, num_samples=RUN,
                batch_size=BATCH, segmentation_fn=lambda _: labels.numpy(),
            )  # fmt: skip

    return run


def captum(module: nn.Module, net: Any, image: Tensor, labels: Tensor, target: int) -> Callable[[], object]:
    """Captum's Lime on the plain module, with the paper's kernel on the segments and least squares."""
    from captum._utils.models.linear_model import SkLearnLinearRegression
    from captum.attr import Lime as Peer

    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (net.mean, net.std))

    def similarity(_: Tensor, __: Tensor, kept: Tensor, **___: Any) -> Tensor:
        return torch.exp(-(((1 - kept.float().mean(1).sqrt()) / WIDTH) ** 2))

    explainer = Peer(module, interpretable_model=SkLearnLinearRegression(), similarity_func=similarity)
    given, hidden = (image - mean) / std, (torch.full_like(image, 0.5) - mean) / std

    def run() -> object:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return explainer.attribute(
                given, baselines=hidden, target=target, feature_mask=labels[None, None].expand(1, 3, -1, -1),
                n_samples=RUN, perturbations_per_eval=BATCH, return_input_shape=False,
            )  # fmt: skip

    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
