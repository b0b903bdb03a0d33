"""Numbers on coloured grounds can be read: WCAG 2's contrast ratio in every matrix, in the page and in the figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from seewhy.humans import performance
from seewhy.report import attacks, explanations, parting, people, pictures
from seewhy.report.sections import compared, why

#: what WCAG 2 asks of text, level AA
ENOUGH = 4.5


def luminance(colour: Any) -> float:
    """Relative luminance of a colour (3,) in [0, 1], as WCAG 2 defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(ground: str, ink: str) -> float:
    """The contrast ratio of two colours, 1 to 21."""
    low, high = sorted(luminance(to_rgb(each)) for each in (ground, ink))
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_is_wcags() -> None:
    assert ratio("#ffffff", "#000000") == pytest.approx(21)
    assert ratio("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the well-known grey that just fails


def test_the_ink_is_the_better_of_the_two_on_any_colour() -> None:
    steps = (*range(0, 256, 17), 118, 119, 120)  # the greys where it changes among them
    for ground in itertools.product(steps, repeat=3):
        named = f"#{bytes(ground).hex()}"
        both = {ink: ratio(named, ink) for ink in ("#000000", "#ffffff")}
        chosen = both[pictures.ink(np.array(ground))]
        assert chosen == max(both.values())
        assert chosen >= ENOUGH


@pytest.mark.parametrize(
    "cell",
    [why._cell, lambda value: compared._cell(value, "absolute"), lambda value: compared._cell(value, "signed")],
    ids=["correlations", "confusions", "differences"],
)
def test_the_pages_cells(cell: Callable[[float], tuple[str, str, str]]) -> None:
    for value in np.linspace(-1, 1, 401):
        text, ground, ink = cell(float(value))
        assert not text or ratio(ground, ink) >= ENOUGH, value


def _agreement() -> list[Axes]:
    values = torch.linspace(-1, 1, 144).view(1, 12, 12)
    names = tuple(map(str, range(12)))
    found: Any = SimpleNamespace(methods=names, images=("a",), correlations=values, grid=14)
    return explanations.agreement(found, 0).axes


def _transfer() -> list[Axes]:
    names, of = tuple(map(str, range(11))), torch.full((11, 11), 120)
    fooled = torch.arange(121).view(11, 11)
    found: Any = SimpleNamespace(victims=names, sources=names, share=fooled / of, fooled=fooled, of=of, method="m")
    return attacks.transfer(found).axes


def _performance() -> list[Axes]:
    truth = np.repeat(np.arange(10), 20)
    answers = np.where(np.tile(np.arange(20), 10) < 2 * truth, truth, (truth + 1) % 10)  # shares of every size
    return parting.performance(performance(np.eye(10)[answers], truth, tuple("abcdefghij"))).axes[1:]


def _confusions() -> list[Axes]:
    shares = np.linspace(0, 1, 100).reshape(10, 10)
    held = SimpleNamespace(classes=tuple("abcdefghij"), network=shares, people=shares.T, difference=shares - shares.T)
    found: Any = SimpleNamespace(model="net", confusion=held)
    return people.confusions(found).axes


@pytest.mark.parametrize("drawn", [_agreement, _transfer, _performance, _confusions])
def test_the_figures_cells(drawn: Callable[[], list[Axes]]) -> None:
    for axes in drawn():
        grounds: Any = axes.images[0].get_array()
        assert len(axes.texts) > 10
        for text in axes.texts:
            column, row = text.get_position()
            ground = f"#{bytes(grounds[int(row), int(column)]).hex()}"
            ink: Any = text.get_color()
            assert ratio(ground, ink) >= ENOUGH, text.get_text()
