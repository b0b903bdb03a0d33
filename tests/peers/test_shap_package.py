"""The same games played by the shap package and by Captum."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.explain.shapley import Group, everyone, exact, owen, pairs, regress
from seewhy.rng import generator

pytestmark = pytest.mark.slow


@pytest.fixture
def peer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("shap")


def game(players: int) -> Tensor:
    """Values (2^S, 1) of a small random perceptron on who is there."""
    draw = torch.Generator().manual_seed(players)
    first = torch.randn(players, 30, generator=draw, dtype=torch.float64)
    last = torch.randn(30, 1, generator=draw, dtype=torch.float64)
    return torch.relu(everyone(players).double() @ first + 0.2) @ last


def ask(values: Tensor, kept: Any) -> Tensor:
    shown = torch.as_tensor(np.asarray(kept)) > 0.5
    return values[(shown.long() << torch.arange(shown.shape[1])).sum(1)]


@pytest.mark.filterwarnings("ignore")
def test_exact_values_are_those_of_kernel_explainer_with_all_coalitions(peer: Any) -> None:
    values = game(8)
    explainer = peer.KernelExplainer(lambda kept: ask(values, kept)[:, 0].numpy(), np.zeros((1, 8)))
    theirs = explainer.shap_values(np.ones((1, 8)), nsamples=10_000, l1_reg=False, silent=True)
    torch.testing.assert_close(exact(values)[:, 0], torch.tensor(theirs).flatten(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_owen_values_are_those_of_partition_explainer_on_the_same_tree(peer: Any) -> None:
    players = 7
    values = game(players)
    group = Group(torch.arange(players), torch.rand(players, 2, generator=torch.Generator().manual_seed(2)))
    links: list[list[float]] = []

    def link(part: Group) -> int:
        if len(part.members) == 1:
            return int(part.members)
        left, right = map(link, part.halves)
        links.append([left, right, float(len(part.members)), len(part.members)])
        return players + len(links) - 1

    link(group)
    masker = peer.maskers.Partition(np.zeros((1, players)), clustering=np.array(links))
    explainer = peer.explainers.PartitionExplainer(lambda kept: ask(values, kept)[:, 0].numpy(), masker)
    theirs = explainer(np.ones((1, players)), max_evals=10_000, silent=True).values
    ours = owen(lambda kept: ask(values, kept), group, values[[0, -1]], 10_000)
    torch.testing.assert_close(ours[:, 0], torch.tensor(theirs).flatten().double(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_at_equal_evaluations_nearer_to_the_exact_values_than_both(peer: Any) -> None:
    from captum.attr import KernelShap

    players, budget = 14, 200
    values = game(players)
    wanted, total = exact(values)[:, 0], float(values[-1] - values[0])
    errors: dict[str, float] = {"ours": 0, "shap": 0, "captum": 0}
    for seed in range(5):
        np.random.seed(seed)
        torch.manual_seed(seed)
        kept = pairs(players, budget // 2 - 1, generator(seed))
        found = {"ours": regress(kept, (ask(values, kept) - ask(values, ~kept))[:, 0], total)[0]}
        explainer = peer.KernelExplainer(lambda kept: ask(values, kept)[:, 0].numpy(), np.zeros((1, players)))
        theirs = explainer.shap_values(np.ones((1, players)), nsamples=budget - 2, l1_reg=False, silent=True)
        found["shap"] = torch.tensor(theirs).flatten()
        whole = torch.ones(1, players)
        captum = KernelShap(lambda kept: ask(values, kept)[:, 0])
        found["captum"] = captum.attribute(
            whole, baselines=0 * whole, n_samples=budget - 2, perturbations_per_eval=64
        ).flatten()
        for name, each in found.items():
            errors[name] += float((each - wanted).norm() / wanted.norm()) / 5
    assert errors["captum"] < 1  # all are after the same thing
    assert errors["ours"] <= 0.9 * errors["shap"]  # with fifty players it is less than half
    assert errors["ours"] <= 0.5 * errors["captum"]
