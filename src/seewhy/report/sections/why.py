"""Why this decision? A photograph's explanations side by side, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from seewhy import units
from seewhy.explain.compare import DISAGREE, GRID, correlated, disagreement, incomparable
from seewhy.report import pictures, words
from seewhy.report.parts import Shown, shown
from seewhy.report.reading import Reading
from seewhy.run.store import Result

#: pairs of methods that disagree of which each gets a sentence
_WARNINGS = 3


@dataclass(frozen=True)
class Explained:
    """One explanation over its photograph, with its scale and what is known of it."""

    title: str
    caption: str
    picture: Shown
    sign: str
    scale: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One method's maps of all classes side by side, on one scale, with what it shows and what it took."""

    title: str
    spec: str
    shows: str
    facts: tuple[str, ...]
    maps: tuple[Explained, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """A class that was explained."""

    label: str
    probability: str
    role: str


@dataclass(frozen=True)
class Matrix:
    """How far methods agree: a row a method, each cell a number and the colours of its ground and its ink."""

    names: tuple[str, ...]
    rows: tuple[tuple[tuple[str, str, str], ...], ...]
    grid: int
    label: str
    summary: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Why:
    """Why this decision: the classes, the methods in their families, and how far they agree."""

    classes: tuple[Asked, ...]
    families: tuple[tuple[str, tuple[Line, ...]], ...]
    agreement: Matrix | None


def why(reading: Reading, rows: Sequence[Result], base: Image.Image) -> Why | None:
    """Every explanation of a photograph: a line a method, with the difference of the first class and the runner-up."""
    by_method: dict[str, dict[int, Result]] = {}
    classes: dict[int, dict[str, Any]] = {}
    for row in rows:
        if explains(row) and not row.step.startswith("after "):
            target = row.record["target"]
            by_method.setdefault(row.record["method"], {})[target["index"]] = row
            classes.setdefault(target["index"], {**target, "role": row.record["role"]})
    if not classes:
        return None
    order = sorted(classes, key=lambda index: words.place(classes[index]["role"]))
    families: dict[str, list[Line]] = {}
    for spec in sorted(by_method, key=words.rank):
        found = by_method[spec]
        families.setdefault(words.family(spec), []).append(line(reading, [found[i] for i in order if i in found], base))
    return Why(
        tuple(
            Asked(each["label"], words.percent(each["probability"]), words.role(each["role"]))
            for each in (classes[index] for index in order)
        ),
        tuple((name, tuple(lines)) for name, lines in families.items()),
        agreement(
            reading,
            [
                found[order[0]]
                for _, found in sorted(by_method.items(), key=lambda kv: words.rank(kv[0]))
                if order[0] in found
            ],
        ),
    )


def line(reading: Reading, rows: Sequence[Result], base: Image.Image) -> Line:
    """The maps of one method for several classes on one scale; behind the first two their difference."""
    record = rows[0].record
    values = [reading.run.array(row.image, row.step, "values") for row in rows]
    scale = pictures.robust_scale(np.stack([pictures.heat(each, record["sign"]) for each in values]))
    maps = [explained(reading, row, base, scale) for row in rows]
    if len(rows) > 1 and rows[1].record["role"] == "runner-up" and values[0].shape == values[1].shape:
        both = [row.record["target"]["label"] for row in rows[:2]]
        difference = pictures.heat(values[0] - values[1], "signed")
        laid = pictures.overlay(base, difference, "signed", scale)
        alt = f"{words.title(record['method'])} for {both[0]} rather than {both[1]}: {pictures.where(difference)}"
        drawn = shown(laid.picture, alt)
        maps.insert(2, Explained("", "difference", drawn, "signed", words.figure(scale), (), ()))
    method = reading.known.get(record["method"].partition(":")[0])
    facts = [f"layer {record['layer']}"] if record.get("layer") else []
    together = record.get("together", 1)
    timing = reading.run.timing(rows[0].image, rows[0].step)
    took = [units.seconds(timing.seconds * together)] if timing is not None else []
    cost = ", ".join([words.passes(record["cost"]["forward"], record["cost"]["backward"]), *took])
    facts.append(cost if len(rows) == 1 else f"{cost} for {'all classes together' if together > 1 else 'each class'}")
    return Line(
        words.title(record["method"]),
        record["method"] if ":" in record["method"] else "",
        method.shows if method else "",
        tuple(facts),
        tuple(maps),
        _noted([each for each in maps if each.title]),
    )


def agreement(reading: Reading, rows: Sequence[Result]) -> Matrix | None:
    """How far the methods' maps of one class agree."""
    if len(rows) < 2:
        return None
    maps = [torch.from_numpy(reading.run.array(row.image, row.step, "values")) for row in rows]
    signs = [row.record["sign"] for row in rows]
    numbers = correlated(maps, signs)
    specs = [row.record["method"] for row in rows]
    titles = [words.title(spec) for spec in specs]
    names = tuple(
        title if titles.count(title) == 1 else f"{title} ({spec.partition(':')[2] or 'as usual'})"
        for title, spec in zip(titles, specs, strict=True)
    )
    pairs = sorted(
        (float(numbers[i, j]), names[i], names[j])
        for i, j in combinations(range(len(names)), 2)
        if numbers[i, j].isfinite()
    )
    low = [pair for pair in pairs if pair[0] < DISAGREE]
    warnings = [disagreement(one, other, value) for value, one, other in low[:_WARNINGS]]
    if len(low) > _WARNINGS:
        warnings.append(f"{words.many(len(low) - _WARNINGS, 'more pair')} below {DISAGREE:g}")
    warnings += incomparable(names, signs, numbers)
    constant = [name for name, value in zip(names, numbers.diagonal(), strict=True) if not value.isfinite()]
    if constant:
        warnings.append(f"constant, so that its order is not defined: {words.listed(constant)}")
    middle = f", median {words.signed(median(value for value, _, _ in pairs))}" if pairs else ""
    others = math.comb(len(names), 2) - len(pairs)
    undefined = f"; {words.many(others, 'more pair')} cannot be compared" if others else ""
    return Matrix(
        names,
        tuple(tuple(_cell(float(value)) for value in row) for row in numbers),
        GRID,
        rows[0].record["target"]["label"],
        f"{len(low)} of {words.many(len(pairs), 'pair')} below {DISAGREE:g}{middle}{undefined}",
        tuple(warnings),
    )


def explained(reading: Reading, row: Result, base: Image.Image, scale: float | None = None) -> Explained:
    record = row.record
    values = pictures.heat(reading.run.array(row.image, row.step, "values"), record["sign"])
    laid = pictures.overlay(base, values, record["sign"], scale)
    named = words.title(record["method"])
    measured = [words.measure(key, value) for key, value in record.get("measures", {}).items() if value is not None]
    kind = {"signed": "for and against", "positive": "for", "absolute": "for"}[record["sign"]]
    after = "after the attack, " if row.step.startswith("after ") else ""
    alt = f"{named} {kind} {record['target']['label']}: {after}{pictures.where(values)}"
    return Explained(
        named,
        record["target"]["label"],
        shown(laid.picture, alt),
        "signed" if record["sign"] == "signed" else "positive",
        words.figure(laid.scale),
        tuple(measured),
        tuple(record.get("notes", ())),
    )


def explains(row: Result) -> bool:
    """Whether a row is an explanation."""
    return "target" in row.record and "sign" in row.record


def _noted(maps: Sequence[Explained]) -> tuple[str, ...]:
    """What is to be known of a method's maps: first what holds for all of them, then what holds for one class."""
    return words.noted([each.caption for each in maps], [each.notes for each in maps])


def _cell(value: float) -> tuple[str, str, str]:
    """A correlation as it is written, on the colour of its size, in an ink that can be read there."""
    if not math.isfinite(value):
        return "–", "", ""
    ground = np.rint(pictures.white_to(np.array(value), "signed")).astype(int)
    return words.signed(value), f"#{bytes(ground.tolist()).hex()}", pictures.ink(ground)
