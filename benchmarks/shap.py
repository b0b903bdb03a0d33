"""SHAP on superpixels, beside shap's KernelExplainer and Captum's KernelShap, at equal evaluations."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Row, at_most, table
from benchmarks.nets import ready
from seewhy.classifier import Classifier

BUDGETS = (256, 512)
SEEDS = 3
#: runs of seewhy, and the evaluations of each, whose mean is what all are compared with
REFERENCE = (4, 4096)
#: the share of a peer's error that is wanted
WANTED = 0.5


def photograph(net: Classifier) -> Tensor:
    """scikit-image's cat, as the net sees it."""
    from PIL import Image
    from skimage import data

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cat.png"
        Image.fromarray(data.chelsea()).save(path)  # type: ignore[no-untyped-call]
        return net.read(path).pixels


def shap() -> Iterator[list[str]]:
    """Error to converged values, and time, of three ways to the same Shapley values of the same game."""
    from captum.attr import KernelShap

    from seewhy.explain import Shap
    from seewhy.explain.baseline import baseline
    from seewhy.explain.players import play, segments

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap as peer
    net = ready("efficientnet-lite0")
    image = photograph(net)
    labels = segments(image[0], "slic", 50)
    first = torch.stack([(labels == i).nonzero()[0] for i in range(int(labels.max()) + 1)]).T.unbind()
    target = int(net.predict(image).argmax())
    stand_in = baseline("grey", image)[0]

    def game(kept: Any) -> Tensor:
        shown = torch.as_tensor(np.asarray(kept)) > 0.5
        return play(net, image[0], stand_in, labels, shown)[:, target]

    def ours(budget: int, seed: int) -> Tensor:
        values: Tensor = Shap(evaluations=budget, seed=seed)(net, image, target).values[0, 0][first]
        return values

    def kernel_explainer(budget: int, seed: int) -> Tensor:
        np.random.seed(seed)
        explainer = peer.KernelExplainer(lambda kept: game(kept).numpy(), np.zeros((1, len(first[0]))))
        found = explainer.shap_values(np.ones((1, len(first[0]))), nsamples=budget - 2, l1_reg=False, silent=True)
        return torch.tensor(np.asarray(found)).flatten().float()

    def kernel_shap(budget: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        whole = torch.ones(1, len(first[0]))
        found: Tensor = KernelShap(game).attribute(
            whole, baselines=torch.zeros_like(whole), n_samples=budget - 2, perturbations_per_eval=64
        )
        return found.flatten().detach()

    runs, evaluations = REFERENCE
    each = torch.stack([ours(evaluations, 1000 + run) for run in range(runs)])
    reference = each.mean(0)
    left = float((each.var(0) / runs).sum().sqrt() / reference.norm())
    ways: dict[str, Callable[[int, int], Tensor]] = {
        "shap, KernelExplainer": kernel_explainer,
        "Captum, KernelShap": kernel_shap,
        "seewhy": ours,
    }
    rows: list[Row] = []
    for budget in BUDGETS:
        errors: dict[str, list[float]] = {name: [] for name in ways}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for seed in range(SEEDS):
            for name, way in ways.items():
                started = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = way(budget, seed)
                seconds[name].append(time.perf_counter() - started)
                errors[name].append(float((found - reference).norm() / reference.norm()))
        for name in ways:
            ratio = statistics.mean(errors["seewhy"]) / statistics.mean(errors[name])
            rows.append(
                (
                    str(budget),
                    name,
                    f"{statistics.mean(errors[name]):.3f}",
                    "–" if name == "seewhy" else f"**{ratio:.2f} ×**",
                    "–" if name == "seewhy" else at_most(ratio, WANTED),
                    f"{statistics.median(seconds[name]):.1f}",
                )
            )
        yield _page(rows, len(first[0]), left)


def _page(rows: list[Row], players: int, left: float) -> list[str]:
    runs, evaluations = REFERENCE
    head = ("evaluations", "by", "relative error", "seewhy's error to it", "wanted", "seconds")
    return [
        f"## SHAP values of {players} superpixels of a photograph, EfficientNet-Lite0",
        "",
        f"Mean over {SEEDS} seeds of the distance to converged values (L2, relative), which are the mean of {runs} runs of "
        f"seewhy of {evaluations:,} evaluations each, with other seeds; by their spread {100 * left:.1f} % of error is left in "
        "them. All play the same game, in the engine's batches; KernelExplainer without its selection of features.",
        "",
        *table(head, rows),
    ]
