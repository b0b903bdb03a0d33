"""Numbers with their intervals, as cells of the report's tables: in words, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from seewhy.report import words
from seewhy.report.curves import interval

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """A row of a table: a name, what it counts, and its values, each in words with its interval drawn."""

    name: str
    count: str
    cells: tuple[tuple[str, Markup], ...]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of one kind under their headings, with a caption."""

    caption: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]


def percent(row: Row, name: str = "value") -> str:
    """A share and its interval in per cent."""
    value, low, high = (row.get(key) for key in (name, *ends(name, row)))
    if value is None:
        return "–"
    told = f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None and high is not None else ""
    return f"{100 * value:.1f}{words.NBSP}%{told}"


def number(row: Row, name: str = "value") -> str:
    """A number and its interval."""
    value, low, high = (row.get(key) for key in (name, *ends(name, row)))
    if value is None:
        return "–"
    told = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return f"{value:.2f}{told}".replace("-", "−")


def ends(name: str, row: Row) -> tuple[str, str]:
    """The columns of a value's interval."""
    return ("low", "high") if name == "value" and "low" in row else (f"{name} low", f"{name} high")


def drawn(
    row: Row, name: str, span: tuple[float, float] = (0.0, 1.0), series: int = 0, mark: float | None = None
) -> Markup:
    low, high = ends(name, row)
    return interval(row.get(name), row.get(low), row.get(high), span, series=series, mark=mark)


def span(values: Sequence[float | None]) -> tuple[float, float]:
    """From the round share below the lowest end to 1, so that intervals can be told apart."""
    known = [value for value in values if value is not None]
    return (max(0.0, np.floor(10 * min(known, default=0.0) - 0.5) / 10), 1.0)


def points(row: Row, name: str) -> str:
    """A difference of shares and its interval in points."""
    value, low, high = (row.get(key) for key in (name, *ends(name, row)))
    if value is None:
        return "–"
    told = f" ({100 * low:+.1f} to {100 * high:+.1f})" if low is not None and high is not None else ""
    return f"{100 * value:+.1f}{told} points".replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "−")


def chance(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
