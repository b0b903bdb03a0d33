"""Who is taken for what, who knows when to doubt, and what is left on worse images: matrices and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from seewhy.humans.worse import KINDS
from seewhy.report import pictures, words
from seewhy.report.curves import Curve, curves
from seewhy.report.measures import Line, Row, Table, span

#: classes up to which confusion matrices are drawn
_SIDE = 20

#: whose confidence, in words
_WHO = {"network": "the model", "people": "people", "network as people": "the model, as a share of people"}


@dataclass(frozen=True)
class Chart:
    """A chart with its legend and what it shows."""

    title: str
    names: tuple[str, ...]
    drawn: Markup
    caption: str


@dataclass(frozen=True)
class Confusions:
    """A confusion matrix: a row a true class, each cell its number and its colours."""

    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[tuple[str, str, str], ...], ...]


def confusions(agreed: Row) -> list[Confusions]:
    """The model's confusions beside people's, and the difference."""
    held = agreed["confusion"]
    if len(held["classes"]) > _SIDE:
        return []
    network, people = (np.array(held[who], dtype=float) for who in ("network", "people"))
    return [
        _matrix("The model", held["classes"], network, "absolute"),
        _matrix("People", held["classes"], people, "absolute"),
        _matrix("The model less people", held["classes"], network - people, "signed"),
    ]


def own_confusions(alone: Sequence[Row]) -> list[Confusions]:
    """The model's confusions on each data set."""
    found = []
    for record in alone:
        names = [row["class"] for row in record["rows"] if "class" in row]
        counts = np.array(record["confusion"], dtype=float)
        if len(names) <= _SIDE:
            with np.errstate(invalid="ignore"):
                shares = counts / counts.sum(1, keepdims=True)
            found.append(_matrix(record["data"], names, shares, "absolute"))
    return found


def _matrix(title: str, names: Sequence[str], shares: pictures.Array, sign: pictures.Sign) -> Confusions:
    return Confusions(title, tuple(names), tuple(tuple(_cell(float(value), sign) for value in row) for row in shares))


def _cell(value: float, sign: pictures.Sign) -> tuple[str, str, str]:
    if not np.isfinite(value):
        return "–", "", ""
    strength = min(1.0, abs(value) / (0.2 if sign == "signed" else 1.0)) * (1 if value >= 0 else -1)
    ground = np.rint(pictures.white_to(np.array(strength), sign)).astype(int)
    whole = round(100 * value)
    text = f"{whole:+d}" if sign == "signed" else f"{whole:d}"
    text = text.replace("-", "−") if whole else ""
    return text, f"#{bytes(ground.tolist()).hex()}", pictures.ink(ground)


def confused(agreed: Row) -> Table | None:
    """The confusions that differ most, where there are too many classes for a matrix."""
    rows = agreed["tables"]["confusion"]
    if len(agreed["confusion"]["classes"]) <= _SIDE or not rows:
        return None
    return Table(
        "The confusions that differ most; picked as the largest of many, they look more different than they are.",
        ("True class", "Taken for", "The model", "People"),
        tuple(
            Line(
                row["class"],
                row["taken for"],
                tuple((f"{100 * row[who]:.1f}{words.NBSP}%", Markup()) for who in ("network", "people")),
            )
            for row in rows
        ),
    )


def calibration(agreed: Row) -> list[Chart]:
    """Confidence against what came of it."""
    lines = [
        Curve(
            _WHO.get(each["who"], each["who"]),
            tuple(
                (bin["confidence"], bin["accuracy"]["value"], bin["accuracy"]["low"], bin["accuracy"]["high"])
                for bin in each["bins"]
                if bin["accuracy"]["value"] is not None
            ),
        )
        for each in agreed["reliability"]
        if each["bins"]
    ]
    if not lines:
        return []
    errors = [
        f"{_WHO.get(row['who'], row['who'])} {row['ECE, equal width']:.3f} ({row['ECE, equal width low']:.3f} to "
        f"{row['ECE, equal width high']:.3f}; if perfectly calibrated {row['ECE if perfectly calibrated']:.3f})"
        for row in agreed["tables"]["calibration"]
        if all(row[f"ECE, equal width{end}"] is not None for end in ("", " low", " high"))
    ]
    title = "Does confidence mean what it says?"
    caption = (
        "Of the images answered with a confidence, the share that is right; on the dotted line both are the same. People’s "
        f"confidence is the share of votes for their answer. Expected calibration error: {'; '.join(errors)}."
    )
    drawn = curves("calibration", lines, title, caption, across="confidence", diagonal=True)
    return [Chart(title, tuple(line.name for line in lines), drawn, caption)]


def coverage(agreed: Row) -> list[Chart]:
    """Accuracy where the unsure images are left out, or left to a person."""
    held: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
    for row in agreed["tables"]["coverage"]:
        if row["accuracy"] is not None:
            point = (row["coverage"], row["accuracy"], row["accuracy low"], row["accuracy high"])
            held.setdefault(row["curve"], []).append(point)
    lines = [Curve(name.replace("network", "the model"), tuple(points)) for name, points in held.items()][:4]
    if not lines:
        return []
    low = span([min(point[2] if point[2] is not None else point[1] for point in line.points) for line in lines])[0]
    title = "What is gained by leaving unsure images out, or to a person?"
    caption = "Accuracy over the share of images that is answered, the surest first. Bands: 95 % over images."
    drawn = curves("coverage", lines, title, caption, across="share answered by the first named", low=low)
    return [Chart(title, tuple(line.name for line in lines), drawn, caption)]


def worsened(record: Row) -> list[Chart]:
    """The model's accuracy and balanced accuracy as images get worse, a chart a kind."""
    kinds: dict[str, list[Row]] = {}
    for row in record["rows"]:
        if row["who"] == "model" and row["kind"] != "condition":
            kinds.setdefault(row["kind"], []).append(row)
    charts = []
    for kind, rows in kinds.items():
        lines = [
            Curve(
                "accuracy",
                tuple(
                    (float(place), row["accuracy"], row["accuracy low"], row["accuracy high"])
                    for place, row in enumerate(rows)
                ),
            ),
            Curve(
                "balanced accuracy",
                tuple(
                    (float(place), row.get("balanced", row["accuracy"]), None, None) for place, row in enumerate(rows)
                ),
            ),
        ]
        how = KINDS[kind]
        unit = " ".join(how.unit.replace("#", "").split())
        marks = [(0.0, "as it is"), *((float(i), f"{how.scale * row['level']:g}") for i, row in enumerate(rows[1:], 1))]
        title = f"{kind.capitalize() if kind != 'jpeg' else 'JPEG'}, {record['data']}"
        last = rows[-1]
        caption = f"Up to {last['shown']}: accuracy {100 * last['accuracy']:.0f} %."
        drawn = curves(
            f"worse-{kind}-{record['data']}".replace(" ", "-"), lines, title, caption, across=unit, ticks=marks
        )
        charts.append(Chart(title, tuple(line.name for line in lines), drawn, caption))
    return charts
