"""What the benchmarks' tables say beside a number that was measured: what was wanted, and whether it holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import black_box, optimised, white_box
from benchmarks.measure import Timing
from nets import FAMILIES, classifier, photos

MISSED = "**missed**"


@pytest.mark.parametrize(("seconds", "said"), [(3.1, "≥ 3 ×: holds"), (2.7, f"≥ 3 ×: {MISSED}")])
def test_a_peer_beside_ours(seconds: float, said: str) -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(2)
    labels = net.predict(images).argmax(1)
    timing = Timing({"seewhy": [1.0], "Foolbox": [seconds]})
    row = white_box._row(net, images, labels, "Foolbox", images, timing, 3, "linf")
    assert said in row
    assert said not in white_box._row(net, images, labels, "seewhy", images, timing, 3, "linf")


def level(distances: list[float], levels: int) -> Any:
    """An outcome whose images all fool at these distances, at so many levels."""
    sizes = torch.tensor(distances).expand(levels, -1)
    every = torch.ones_like(sizes, dtype=torch.bool)
    queries = torch.full((len(distances),), 100)
    return SimpleNamespace(original=distances, success=every, distances={"l2": sizes}, queries=queries)


def test_attacks_on_scores_and_on_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(1)
    labels = net.predict(images).argmax(1)
    monkeypatch.setattr(
        black_box, "ours", lambda *_: (level([0.5], len(black_box.FINE) + 2), 10_000.0)
    )  # a second a query
    said = black_box.labels_only(net, images, labels, {"near": ([[0.5]] * 3, 0.01), "slow": ([[0.5]] * 3, 1.0)}, 0.1)
    near, slow = said[-2:]
    assert f"≥ 3 ×: {MISSED}" in near
    assert "≥ 3 ×: holds; no farther at equal queries: holds" in slow
    said = black_box.labels_only(net, images, labels, {"nearer": ([[0.4]] * 3, 1.0)}, 0.1)
    assert f"| – | ≥ 3 ×: {MISSED}; no farther at equal queries: {MISSED} |" in said[-1].replace("–, –, –", "–")

    monkeypatch.setattr(black_box, "ours", lambda *_: (level([0.5, 0.6], len(black_box.FEWER) + 2), 1.0))
    second = 30 / black_box.ART_QUERIES
    said = black_box.zoo(net, images, labels, [0.4, None], second, 0.1)
    assert f"(≤ 0.4: {MISSED})" in said[-2]
    assert "(≥ 97 %: holds)" in said[-2]
    assert "(≥ 20 ×: holds)" in said[-2]
    assert f"(≥ 20 ×: {MISSED})" in black_box.zoo(net, images, labels, [0.7, 0.7], second / 10, 0.1)[-2]


def test_jsma_on_a_photograph_has_a_process_and_a_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def process(*words: str) -> dict[str, Any]:
        asked.append(words)
        memory = None if "away" in words[1] else 2.5e9
        return {"fooled": True, "pixels": 0.01, "queries": 13, "seconds": 119.0, "memory": memory}

    monkeypatch.setattr(optimised, "process", process)
    away, towards = optimised.jsma_large()[-2:]
    assert asked == [("optimised", "jsma-away"), ("optimised", "jsma-towards")]
    assert away.endswith("| – | ≤ 120 s: holds |")
    assert towards.endswith(f"| **2.50 GB** | ≤ 120 s: holds; ≤ 2 GB: {MISSED} |")


def test_carlini_and_wagner_must_be_faster_and_no_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"success": 1.0, "l2": 0.12, "pixels": 1.0, "seconds": 3.0}
    monkeypatch.setattr(optimised, "process", lambda *_: theirs)
    net, images = classifier(FAMILIES["vgg"]()), photos(1)
    for ours, said in (
        (optimised.Outcome(1.0, 0.11, 1.0, 1.0), "≥ 2 ×: holds; no worse: holds"),
        (optimised.Outcome(1.0, 0.13, 1.0, 2.0), f"≥ 2 ×: {MISSED}; no worse: {MISSED}"),
    ):
        monkeypatch.setattr(optimised, "judged", lambda *_, ours=ours: ours)
        assert all(said in row for row in optimised.carlini_wagner(net, images, torch.zeros(1, dtype=torch.long))[-4:])
    few = optimised.lbfgs(net, images, torch.zeros(1, dtype=torch.long), 1)
    assert "≤ 180 s: holds" in few[-3]
    assert "L2 ≤ 0.143: holds" in few[-2]
    table = optimised.jsma(net, images, torch.zeros(1, dtype=torch.long))
    assert f"on the same ≥ 10 ×: {MISSED}" in table[4]
    assert "success ≥ its: holds" in table[4]
