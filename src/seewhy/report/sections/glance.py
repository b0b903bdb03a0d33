"""At a glance: the paragraph at the top, and a row an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from seewhy import units
from seewhy.report import pictures, words
from seewhy.report.parts import Section, Shown, says, shown
from seewhy.report.reading import Reading
from seewhy.run.reading import right
from seewhy.run.store import MODEL, ImageRow

#: pixels of the longer side of a thumbnail
_THUMB = 96


@dataclass(frozen=True)
class Line:
    """One image in short; a failed one has its error and nothing else. `anchor` is empty where it has no section."""

    name: str
    error: str = ""
    anchor: str = ""
    thumb: Shown | None = None
    decision: str = ""
    truth: str = ""
    right: bool | None = None
    stood: str = ""
    becomes: str = ""
    stability: str = ""


def section(lines: Sequence[Line]) -> Section:
    """The section; `lines` are those of `all_lines`."""
    read = [line for line in lines if not line.error]
    return Section(
        "glance",
        "At a glance",
        "glance.html",
        {
            "lines": lines,
            "read": len(read),
            "shown": sum(bool(line.anchor) for line in read),
            "has_truth": any(line.truth for line in read),
            "has_attack": any(line.stood for line in read),
            "has_stability": any(line.stability for line in read),
        },
    )


def all_lines(reading: Reading) -> list[Line]:
    """A line an image."""
    return [_line(reading, image) for image in reading.images]


def _line(reading: Reading, image: ImageRow) -> Line:
    trouble = reading.trouble(image)
    seen = None if trouble else reading.seen(image)
    if seen is None:
        return Line(image.name, trouble)
    rows = [row for row in reading.of(image.id) if row.ok]
    predict = next((row.record for row in rows if row.step == "predict"), None)
    first = next((row.record for row in rows if "p_before" in row.record), None)
    top = predict["top"] if predict else []
    truth = predict["truth"] if predict else None
    apart = reading.wrong(image.id)
    correlations = [float(row.record["correlation"]) for row in rows if row.record.get("correlation") is not None]
    return Line(
        image.name,
        anchor=reading.anchors.get(image.id, ""),
        thumb=shown(pictures.fitted(seen, _THUMB), f"{image.name}, as the model saw it"),
        decision=says(top[0]) if top else "",
        truth=truth["label"] if truth else "",
        right=right(predict),
        stood="wrong from the start" if first and apart else _stood(first),
        becomes=says(first["after"]) if first and first["fooled"] and not apart else "",
        stability=f"{median(correlations):.2f}".replace("-", "−") if correlations else "",
    )


def summary(reading: Reading, lines: Sequence[Line]) -> list[str]:
    """The paragraph at the top: what is still to be done, was looked at, fools it, went wrong, was left out."""
    good = [line for line in lines if not line.error]
    parameters = reading.identity.get("parameters")
    classes = reading.identity.get("classes")
    about = [f"{units.count(parameters)} parameters"] if parameters else []
    about += [f"{classes:,} classes"] if classes else []
    described = f"{reading.model} ({', '.join(about)})" if about else reading.model
    said = [reading.unfinished.words] if reading.unfinished else []
    said.append(f"{described} looked at {words.many(len(good), 'photograph')}.")
    known = [line for line in good if line.right is not None]
    if known:
        count = sum(bool(line.right) for line in known)
        said.append(f"It was right on {count} of the {words.many(len(known), 'photograph')} whose class is known.")
    attacks: dict[str, list[tuple[str, float | None, float, bool, str]]] = {}
    moved: dict[str, list[float]] = {}
    apart = 0
    for image in reading.images:
        if reading.wrong(image.id):
            apart += any(row.ok and "p_before" in row.record for row in reading.of(image.id))
            continue
        for row in reading.of(image.id):
            if row.ok and "p_before" in row.record:
                record = row.record
                tried, unrounded = max(record["eps"]), any(record["success"])
                entry = (image.name, record["smallest_eps"], tried, unrounded, record.get("norm", "linf"))
                attacks.setdefault(row.record["method"], []).append(entry)
            elif row.ok and row.record.get("correlation") is not None:
                moved.setdefault(row.record["method"], []).append(float(row.record["correlation"]))
    if apart:
        said.append(
            f"{words.many(apart, 'photograph is', 'photographs are')} misclassified from the start: what attacks do to "
            f"{'it' if apart == 1 else 'them'} is kept apart."
        )
    for spec, found in attacks.items():
        names, sizes, tried_on, before_rounding, norms = zip(*found, strict=True)
        values = 3 * math.prod(reading.identity.get("size", [224, 224]))
        said += words.fooled(sizes, tried_on, names, words.title(spec), norms[0], values, before_rounding)
    if len(moved) > 1:
        ranked = sorted((median(values), words.title(spec)) for spec, values in moved.items())
        (low, least), (high, most) = ranked[0], ranked[-1]
        said.append(
            f"From before to after the attack, the maps of {most} changed their order least (median rank correlation "
            f"{high:.2f}), those of {least} most ({low:.2f}).".replace("-0.", "−0.")
        )
    said += _people(reading)
    broken = [line.name for line in lines if line.error]
    if broken:
        named = words.some(broken, 5)
        said.append(f"{words.many(len(broken), 'photograph')} could not be read: {named}.")
    failed = sum(not row.ok for rows in reading.rows.values() for row in rows)
    if failed:
        said.append(f"{words.many(failed, 'step')} failed.")
    left_out = reading.run.plan.get("left_out", [])
    if left_out:
        said.append(f"{words.many(len(left_out), 'thing was', 'things were')} left out, listed below.")
    elif not reading.unfinished:
        said.append("Nothing that was asked for was left out.")
    return said


def _people(reading: Reading) -> list[str]:
    """The verdict beside people; the model's own numbers on all labelled images where there are no votes."""
    rows = {row.step: row.record for row in reading.of(MODEL) if row.ok}
    if "agreement" in rows:
        return [rows["agreement"]["headline"]]
    return [
        record["words"].partition(". ")[0] + "." for step, record in rows.items() if step.startswith("performance:")
    ]


def _stood(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    norm = record.get("norm", "linf")
    if record["fooled"]:
        return words.size(record["smallest_eps"], norm)
    if any(record["success"]):
        return "only before rounding to 8 bits"
    return f"no ε up to {words.size(max(record['eps']), norm)}"
