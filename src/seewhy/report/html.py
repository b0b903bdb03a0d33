"""The report: one HTML file that holds everything, made from a run's rows, arrays and pictures."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from seewhy import units
from seewhy.attack.why_it_fails import paragraph
from seewhy.errors import RunError
from seewhy.explain.compare import DISAGREE, GRID, correlated, disagreement
from seewhy.intervals import wilson
from seewhy.method import registry
from seewhy.report import charts, pictures, words
from seewhy.report.pictures import Array
from seewhy.run.store import MODEL, ImageRow, Result, Run, Timing

#: photographs that get a section of their own; all of them stand in the table
FULL = 12

#: pixels of the longer side: explanations, explanations before and after, photographs, thumbnails, layers' maps,
#: sizes of a change
_MAP, _PAIR, _PHOTO, _THUMB, _TILE, _STEP = 448, 300, 800, 96, 112, 168

_CHANNELS = 8

#: pairs of methods that disagree of which each gets a sentence
_WARNINGS = 3


@dataclass(frozen=True)
class Shown:
    """A picture in the page: its data URI, what is seen on it, and its size in pixels."""

    uri: str
    alt: str
    width: int
    height: int


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


@dataclass(frozen=True)
class Moved:
    """One explanation before and after an attack: of the class before, after, and of the class that it became."""

    title: str
    spec: str
    correlation: str
    maps: tuple[tuple[str, Explained], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """A layer's maps before and after an attack."""

    address: str
    channels: str
    strips: tuple[tuple[str, Shown], ...]
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A photograph at one size of the change, with what the model says of it."""

    size: str
    says: str
    fools: bool
    picture: Shown


@dataclass(frozen=True)
class Failing:
    """Why an attack succeeds: a paragraph made of the numbers, and how the change grows from layer to layer."""

    paragraph: str
    chart: Markup
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attacked:
    """An attack on one photograph."""

    title: str
    spec: str
    verdict: str
    fooled: bool
    before: str
    after: str
    chart: Markup
    trio: tuple[tuple[str, Shown], ...]
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    strip: tuple[Step, ...] = ()
    why: Failing | None = None


@dataclass(frozen=True)
class Fooling:
    """What all attacks came to on all photographs: their curves by norm, a row an attack, and why the first succeeds."""

    charts: tuple[tuple[str, tuple[str, ...], Markup], ...]
    rows: tuple[tuple[str, ...], ...]
    why: Failing | None
    lead: str


@dataclass(frozen=True)
class Photo:
    """One photograph with all that was found on it; a failed one has its error and nothing else."""

    anchor: str
    name: str
    error: str
    thumb: Shown | None = None
    photo: Shown | None = None
    crop: str = ""
    credit: str = ""
    notes: tuple[str, ...] = ()
    top: tuple[tuple[str, str, float], ...] = ()
    truth: str = ""
    right: bool | None = None
    why: Why | None = None
    attacks: tuple[Attacked, ...] = ()
    moved: tuple[Moved, ...] = ()
    layers: tuple[Layer, ...] = ()
    stood: str = ""
    becomes: str = ""
    stability: str = ""
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Told:
    """A method of the run: what it shows, how to read it, and what it took here."""

    name: str
    title: str
    room: str
    specs: tuple[str, ...]
    definition: Markup
    shows: str
    reading: str
    source: str
    runs: int
    forward: str
    backward: str
    seconds: str
    relative: str
    notes: tuple[tuple[str, str], ...]


def write(run: Run, path: str | os.PathLike[str] | None = None) -> Path:
    """Write a run's report, `report.html` in the run's directory by default, and answer its path.

    One file that needs nothing else: pictures, style and script are inside. The same run gives the same bytes. Raises
    `RunError` where the file cannot be written.
    """
    target = run.directory / "report.html" if path is None else Path(path)
    text = render(run)
    staged = target.with_name(f".{target.name}.part")
    try:
        staged.write_text(text, encoding="utf-8", newline="\n")
        os.replace(staged, target)
    except OSError as error:
        raise RunError(f"the report {target} cannot be written: {error.strerror or error}") from error
    return target


def render(run: Run) -> str:
    """A run's report as HTML."""
    environment = Environment(
        loader=PackageLoader("seewhy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(_Page(run).context())


class _Page:
    """Gathers what the template shows; each row of the run is read once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.known = registry()
        self.images = run.images()
        self.rows = {image.id: run.results(image.id) for image in self.images}
        self.rows[MODEL] = run.results(MODEL)
        self.identity = next((row.record for row in self.rows[MODEL] if row.step == "identity" and row.ok), {})
        named = self.identity.get("name") or run.plan.get("asked", {}).get("model") or "the model"
        self.model = str(named)

    def context(self) -> dict[str, Any]:
        full = [image.id for image in self.images if image.ok][:FULL]
        photos = [self.photo(image, number, image.id in full) for number, image in enumerate(self.images, 1)]
        read = [photo for photo in photos if not photo.error]
        return {
            "model": self.model,
            "photos": photos,
            "shown": [photo for photo in read if photo.photo is not None],
            "read": read,
            "summary": self.summary(photos),
            "has_truth": any(photo.truth for photo in read),
            "has_attack": any(photo.stood for photo in read),
            "has_stability": any(photo.stability for photo in read),
            "identity": self.identity,
            "facts": self.facts(),
            "fooling": self.fooling(),
            "filters": self.filters(),
            "layers": self.identity.get("layers", []),
            "missing": self.identity.get("missing_rules", {}),
            "methods": self.methods(),
            "passes": self.passes(),
            "failed": self.failures(),
            "left_out": [str(each) for each in self.run.plan.get("left_out", [])],
            "run_notes": [str(each) for each in (*self.run.plan.get("notes", []), *self.run.notes())],
            "software": self.run.software,
            "plan": json.dumps(self.run.plan, indent=2, ensure_ascii=False, sort_keys=True),
            "command": self.command(),
            "credits": [(image.name, image.record["credit"]) for image in self.images if image.record.get("credit")],
            "directory": self.run.directory.name,
            "seconds": units.seconds(self.run.seconds()),
            "count": units.count,
            "window": _window,
            "share": f"{100 * (1 - pictures.SHARE):.1g} %",
            "ramp": _gradient("positive"),
            "signed": _gradient("signed"),
        }

    # Each photograph

    def photo(self, image: ImageRow, number: int, full: bool) -> Photo:
        anchor = f"photo-{number}"
        if not image.ok:
            return Photo(anchor, image.name, image.error or "it could not be read")
        seen = _opened(self.run, image.record["pictures"]["seen"])
        whole = _opened(self.run, image.record["pictures"].get("original", "")) or seen
        if seen is None or whole is None:
            return Photo(anchor, image.name, f"the run has lost its picture {image.record['pictures']['seen']}")
        rows = [row for row in self.rows[image.id] if row.ok]
        predict = next((row.record for row in rows if row.step == "predict"), None)
        attacks = [row for row in rows if "p_before" in row.record]
        top = predict["top"] if predict else []
        truth = predict["truth"] if predict else None
        first = attacks[0].record if attacks else None
        correlations = [float(row.record["correlation"]) for row in rows if row.record.get("correlation") is not None]
        brief = Photo(
            anchor=anchor if full else "",
            name=image.name,
            error="",
            thumb=_shown(pictures.fitted(seen, _THUMB), f"{image.name}, as the model saw it"),
            top=tuple((c["label"], words.percent(c["probability"]), 100 * c["probability"]) for c in top),
            truth=truth["label"] if truth else "",
            right=None if not truth or not top else truth["index"] == top[0]["index"],
            stood=_stood(first),
            becomes=_says(first["after"]) if first and first["fooled"] else "",
            stability=f"{median(correlations):.2f}".replace("-", "−") if correlations else "",
        )
        if not full:
            return brief
        box = _scaled(image.record["box"], whole, image.record["original"]) if whole is not seen else None
        base = pictures.fitted(pictures.region(whole, box) if box else seen, _MAP, enlarge=True)
        return replace(
            brief,
            photo=_shown(
                pictures.fitted(pictures.outlined(whole, box) if box else seen, _PHOTO),
                _photo_alt(image, top, box is not None),
            ),
            crop=_crop(image.record, box is not None),
            credit=str(image.record.get("credit") or ""),
            notes=tuple(image.record.get("notes", ())),
            why=self.why(rows, base),
            attacks=tuple(self.attacked(image, row, seen, anchor, row is attacks[0]) for row in attacks),
            moved=self.moved(rows, base, _judged(self.run, rows)),
            layers=tuple(self.layer(row) for row in rows if "channels" in row.record and "zero" in row.record),
            failed=tuple((row.step, row.error or "") for row in self.rows[image.id] if not row.ok),
        )

    def why(self, rows: Sequence[Result], base: Image.Image) -> Why | None:
        """Every explanation of a photograph: a line a method, with the difference of the first class and the runner-up."""
        by_method: dict[str, dict[int, Result]] = {}
        classes: dict[int, dict[str, Any]] = {}
        for row in rows:
            if _explains(row) and not row.step.startswith("after "):
                target = row.record["target"]
                by_method.setdefault(row.record["method"], {})[target["index"]] = row
                classes.setdefault(target["index"], {**target, "role": row.record["role"]})
        if not classes:
            return None
        order = sorted(classes, key=lambda index: words.place(classes[index]["role"]))
        families: dict[str, list[Line]] = {}
        for spec in sorted(by_method, key=words.rank):
            found = by_method[spec]
            families.setdefault(words.family(spec), []).append(self.line([found[i] for i in order if i in found], base))
        return Why(
            tuple(
                Asked(each["label"], words.percent(each["probability"]), words.role(each["role"]))
                for each in (classes[index] for index in order)
            ),
            tuple((name, tuple(lines)) for name, lines in families.items()),
            self.agreement(
                [
                    found[order[0]]
                    for _, found in sorted(by_method.items(), key=lambda kv: words.rank(kv[0]))
                    if order[0] in found
                ]
            ),
        )

    def line(self, rows: Sequence[Result], base: Image.Image) -> Line:
        """The maps of one method for several classes on one scale; behind the first two their difference."""
        record = rows[0].record
        values = [self.run.array(row.image, row.step, "values") for row in rows]
        scale = pictures.robust_scale(np.stack([pictures.heat(each, record["sign"]) for each in values]))
        maps = [self.explained(row, base, scale) for row in rows]
        if len(rows) > 1 and rows[1].record["role"] == "runner-up" and values[0].shape == values[1].shape:
            both = [row.record["target"]["label"] for row in rows[:2]]
            difference = pictures.heat(values[0] - values[1], "signed")
            laid = pictures.overlay(base, difference, "signed", scale)
            alt = f"{words.title(record['method'])} for {both[0]} rather than {both[1]}: {pictures.where(difference)}"
            shown = _shown(laid.picture, alt)
            maps.insert(2, Explained("", "difference", shown, "signed", words.figure(scale), (), ()))
        method = self.known.get(record["method"].partition(":")[0])
        facts = [f"layer {record['layer']}"] if record.get("layer") else []
        together = record.get("together", 1)
        timing = self.run.timing(rows[0].image, rows[0].step)
        took = [units.seconds(timing.seconds * together)] if timing is not None else []
        cost = ", ".join([words.passes(record["cost"]["forward"], record["cost"]["backward"]), *took])
        facts.append(
            cost if len(rows) == 1 else f"{cost} for {'all classes together' if together > 1 else 'each class'}"
        )
        return Line(
            words.title(record["method"]),
            record["method"] if ":" in record["method"] else "",
            method.shows if method else "",
            tuple(facts),
            tuple(maps),
            _noted([each for each in maps if each.title]),
        )

    def agreement(self, rows: Sequence[Result]) -> Matrix | None:
        """How far the methods' maps of one class agree."""
        if len(rows) < 2:
            return None
        maps = [torch.from_numpy(self.run.array(row.image, row.step, "values")) for row in rows]
        numbers = correlated(maps, [row.record["sign"] for row in rows])
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
        constant = [name for name, value in zip(names, numbers.diagonal(), strict=True) if not value.isfinite()]
        if constant:
            warnings.append(f"constant, so that its order is not defined: {words.listed(constant)}")
        middle = f", median {words.signed(median(value for value, _, _ in pairs))}" if pairs else ""
        return Matrix(
            names,
            tuple(tuple(_cell(float(value)) for value in row) for row in numbers),
            GRID,
            rows[0].record["target"]["label"],
            f"{len(low)} of {words.many(len(pairs), 'pair')} below {DISAGREE:g}{middle}",
            tuple(warnings),
        )

    def explained(self, row: Result, base: Image.Image, scale: float | None = None) -> Explained:
        record = row.record
        values = pictures.heat(self.run.array(row.image, row.step, "values"), record["sign"])
        laid = pictures.overlay(base, values, record["sign"], scale)
        named = words.title(record["method"])
        measured = [words.measure(key, value) for key, value in record.get("measures", {}).items() if value is not None]
        kind = {"signed": "for and against", "positive": "for", "absolute": "for"}[record["sign"]]
        after = "after the attack, " if row.step.startswith("after ") else ""
        alt = f"{named} {kind} {record['target']['label']}: {after}{pictures.where(values)}"
        return Explained(
            named,
            record["target"]["label"],
            _shown(laid.picture, alt),
            "signed" if record["sign"] == "signed" else "positive",
            words.figure(laid.scale),
            tuple(measured),
            tuple(record.get("notes", ())),
        )

    def attacked(self, image: ImageRow, row: Result, seen: Image.Image, anchor: str, first: bool) -> Attacked:
        record = row.record
        named = words.title(record["method"])
        eps, before, after = record["eps"], record["before"], record["after"]
        fooled = bool(record["fooled"])
        original = np.asarray(seen, dtype=np.float32).transpose(2, 0, 1) / 255
        changed = self.run.array(image.id, row.step, "adversarial")
        difference, factor = pictures.amplified(original, changed)
        judged = _opened(self.run, record.get("pictures", {}).get("adversarial", "")) or pictures.to_picture(changed)
        norm, values = record.get("norm", "linf"), changed.size
        size = words.size(record["shown_eps"], norm, values)
        verdict = _verdict(record, named, values)
        rival = after["label"] if after["index"] != before["index"] else ""
        said = [_course(before["label"], record["p_before"])]
        said += [_course(rival, record["p_after"])] if rival else []
        description = f"From no change to {words.epsilon(eps[-1], norm, values)}, {words.listed(said)}."
        chart = charts.confidence(
            f"{anchor}-{row.key}",
            eps,
            record["p_before"],
            record["p_after"] if rival else [],
            [bool(plain and rounded) for plain, rounded in zip(record["success"], record["success_8bit"], strict=True)],
            record["smallest_eps"],
            f"Confidence against ε under {named} on {image.name}",
            description,
            norm,
            values,
        )
        distances = record["distances"]
        facts = (
            f"largest change of a value {words.size(distances['linf'])}",
            f"root mean square {words.size(distances['rms'])}",
            f"ℓ₂ {words.figure(distances['l2'])}",
            f"{words.percent(distances['l0'])} of the pixels changed",
            words.passes(record["cost"]["forward"], record["cost"]["backward"]),
            *_time(self.run.timing(image.id, row.step)),
        )
        same = (f"original: {_says(before)}", _exact(seen, f"{image.name} as the model saw it")) if first else None
        return Attacked(
            named,
            record["method"],
            verdict,
            fooled,
            before["label"],
            rival,
            chart,
            (
                *([same] if same else []),
                (
                    f"changed by {size}: {_says(after)}",
                    _exact(judged, f"{image.name} changed by {named} with {size}, as it was judged"),
                ),
                (
                    f"difference × {factor}, grey is none",
                    _exact(difference, f"what {named} added, enlarged {factor} times around grey"),
                ),
            ),
            facts,
            tuple(record.get("notes", ())),
            self.strip(record, named, image.name, values),
            self.failing(image, f"why {row.step}", f"{anchor}-{row.key}-why"),
        )

    def strip(self, record: Mapping[str, Any], named: str, photo: str, values: int) -> tuple[Step, ...]:
        """The photograph at several sizes of the change."""
        whole = _opened(self.run, record.get("pictures", {}).get("strip", ""))
        told = record.get("strip", [])
        if whole is None or len(told) < 3:  # an attack that looks for the nearest has one size, and that in 8 bits
            return ()
        width = whole.width // len(told)
        steps = []
        for place, each in enumerate(told):
            tile = whole.crop((place * width, 0, (place + 1) * width, whole.height))
            size = words.epsilon(each["eps"], record.get("norm", "linf"), values)
            shown = _shown(pictures.fitted(tile, _STEP, enlarge=True), f"{photo} changed by {named} with {size}")
            steps.append(Step(size, _says(each), each["fools"], shown))
        return tuple(steps)

    def failing(self, image: ImageRow, step: str, key: str) -> Failing | None:
        """Why the attack succeeds on one photograph, where that was measured."""
        row = next((each for each in self.rows[image.id] if each.ok and each.step == step), None)
        if row is None:
            return None
        found = row.record["diagnosis"]
        return Failing(paragraph([found], 1), _growth(key, [found], image.name), tuple(row.record.get("notes", ())))

    def moved(self, rows: Sequence[Result], before: Image.Image, after: Image.Image | None) -> tuple[Moved, ...]:
        """Explanations before and after the attack, the pairs that lie side by side."""
        if after is None:
            return ()
        small = pictures.fitted(before, _PAIR)
        changed = after.resize(small.size, Image.Resampling.BICUBIC)
        by_step = {row.step: row for row in rows}
        by_method: dict[str, list[Result]] = {}
        for row in rows:
            if row.step.startswith("after ") and _explains(row):
                by_method.setdefault(row.record["method"], []).append(row)
        found = []
        for spec, steps in by_method.items():
            maps = []
            correlation = ""
            for row in steps:
                label = row.record["target"]["label"]
                twin = by_step.get(row.step.removeprefix("after "))
                if row.record["role"] != "adversarial":
                    if twin is not None:
                        maps.append((f"before: why {label}", self.explained(twin, small)))
                    if row.record.get("correlation") is not None:
                        correlation = words.correlation(float(row.record["correlation"]))
                maps.append((f"after: why {label}", self.explained(row, changed)))
            notes = tuple(dict.fromkeys(f"{caption}: {note}" for caption, each in maps for note in each.notes))
            found.append(Moved(words.title(spec), spec, correlation, tuple(maps), notes))
        return tuple(found)

    def layer(self, row: Result) -> Layer:
        record = row.record
        names = [name for name in ("before", "after") if name in self.run.names(row.image, row.step)]
        maps = {name: self.run.array(row.image, row.step, name) for name in names}
        shown = {name: values[:_CHANNELS] for name, values in maps.items()}
        scale = pictures.robust_scale(np.stack(list(shown.values()))) if shown else 0.0
        channels = record["channels"]
        few = channels[: len(next(iter(shown.values()), []))]
        strips = []
        for name, values in shown.items():
            tiles = pictures.map_tiles(values, scale, _TILE)
            gap = max(2, tiles[0].width // 20)
            strip = pictures.montage(tiles, len(tiles), gap)
            place = pictures.where(values[0])
            alt = f"{record['layer']} {name} the attack: {len(tiles)} channels; the first is {place}"
            strips.append((name, _shown(strip, alt)))
        facts = []
        if "before" in maps and maps["before"].ndim == 3:
            _, height, width = maps["before"].shape
            facts.append(f"{height} × {width} positions")
        facts.append(f"colours up to {words.figure(scale)}")
        zero = f"{words.percent(record['zero'])} of all values at or below zero"
        after = record.get("zero_after")
        facts.append(zero if after is None else f"{zero} before, {words.percent(after)} after")
        if "after" in maps:
            norm = float(np.linalg.norm(maps["before"]))
            if norm:
                moved = float(np.linalg.norm(maps["after"] - maps["before"])) / norm
                facts.append(f"the kept channels changed by {100 * moved:.2g}{words.NBSP}% (ℓ₂)")
        facts += record.get("notes", ())
        return Layer(
            record["layer"],
            ", ".join(str(channel) for channel in few),
            tuple(strips),
            tuple(facts),
        )

    # The whole

    def summary(self, photos: Sequence[Photo]) -> list[str]:
        """The paragraph at the top: what was looked at, what fools it, what went wrong, what was left out."""
        good = [photo for photo in photos if not photo.error]
        parameters = self.identity.get("parameters")
        classes = self.identity.get("classes")
        about = [f"{units.count(parameters)} parameters"] if parameters else []
        about += [f"{classes:,} classes"] if classes else []
        described = f"{self.model} ({', '.join(about)})" if about else self.model
        said = [f"{described} looked at {words.many(len(good), 'photograph')}."]
        known = [photo for photo in good if photo.right is not None]
        if known:
            right = sum(bool(photo.right) for photo in known)
            said.append(f"It was right on {right} of the {words.many(len(known), 'photograph')} whose class is known.")
        attacks: dict[str, list[tuple[str, float | None, float, str]]] = {}
        moved: dict[str, list[float]] = {}
        for image in self.images:
            for row in self.rows[image.id]:
                if row.ok and "p_before" in row.record:
                    record = row.record
                    entry = (image.name, record["smallest_eps"], max(record["eps"]), record.get("norm", "linf"))
                    attacks.setdefault(row.record["method"], []).append(entry)
                elif row.ok and row.record.get("correlation") is not None:
                    moved.setdefault(row.record["method"], []).append(float(row.record["correlation"]))
        for spec, found in attacks.items():
            names, sizes, largest, norms = zip(*found, strict=True)
            values = 3 * math.prod(self.identity.get("size", [224, 224]))
            said += words.fooled(sizes, max(largest), names, words.title(spec), norms[0], values)
        if len(moved) > 1:
            ranked = sorted((median(values), words.title(spec)) for spec, values in moved.items())
            (low, least), (high, most) = ranked[0], ranked[-1]
            said.append(
                f"From before to after the attack, the maps of {most} changed their order least (median rank correlation "
                f"{high:.2f}), those of {least} most ({low:.2f}).".replace("-0.", "−0.")
            )
        broken = [photo.name for photo in photos if photo.error]
        if broken:
            named = words.some(broken, 5)
            said.append(f"{words.many(len(broken), 'photograph')} could not be read: {named}.")
        failed = sum(not row.ok for rows in self.rows.values() for row in rows)
        if failed:
            said.append(f"{words.many(failed, 'step')} failed.")
        left_out = self.run.plan.get("left_out", [])
        said.append(
            f"{words.many(len(left_out), 'thing was', 'things were')} left out, listed below."
            if left_out
            else "Nothing that was asked for was left out."
        )
        return said

    def fooling(self) -> Fooling | None:
        """What all attacks came to, counted over the photographs."""
        by_spec: dict[str, list[Result]] = {}
        why = []
        for image in self.images:
            for row in self.rows[image.id]:
                if row.ok and "p_before" in row.record:
                    by_spec.setdefault(row.record["method"], []).append(row)
                elif row.ok and "diagnosis" in row.record:
                    why.append(row.record)
        if not by_spec:
            return None
        values = 3 * math.prod(self.identity.get("size", [224, 224]))
        titles = [words.title(spec) for spec in by_spec]
        named = {spec: title if titles.count(title) == 1 else spec for spec, title in zip(by_spec, titles, strict=True)}
        by_norm: dict[str, list[charts.Course]] = {}
        rows = []
        for spec, found in by_spec.items():
            norm = found[0].record.get("norm", "linf")
            sizes = [row.record["smallest_eps"] for row in found]
            course = charts.Course(named[spec], tuple(sizes), max(max(row.record["eps"]) for row in found))
            by_norm.setdefault(norm, []).append(course)
            there = sum(size is not None for size in sizes)
            low, high = wilson(there, len(sizes))
            middle = median(math.inf if size is None else size for size in sizes)
            times = [timing.seconds for row in found if (timing := self.run.timing(row.image, row.step)) is not None]
            rows.append(
                (
                    named[spec],
                    words.NORMS[norm],
                    f"{there} of {len(sizes)}",
                    f"{100 * low:.0f} to {100 * high:.0f}{words.NBSP}%",
                    "not reached" if math.isinf(middle) else words.size(middle, norm, values),
                    _middle([row.record["cost"]["forward"] for row in found]),
                    _middle([row.record["cost"]["backward"] for row in found]),
                    units.seconds(median(times)) if times else "–",
                )
            )
        drawn = []
        for norm, courses in by_norm.items():
            told = words.listed(
                [f"{each.name} fools {sum(size is not None for size in each.smallest)}" for each in courses]
            )
            title = f"Share of photographs whose decision stays, against ε in {words.NORMS[norm]}"
            chart = charts.accuracy(
                f"accuracy-{norm}", courses, norm, values, title, f"Of {len(courses[0].smallest)}: {told}."
            )
            drawn.append((title, tuple(each.name for each in courses), chart))
        first = next(iter(by_spec))
        failing = None
        if why:
            told_why = [record["diagnosis"] for record in why]
            failing = Failing(paragraph(told_why, len(by_spec[first])), _growth("growth", told_why, "all photographs"))
        return Fooling(tuple(drawn), tuple(rows), failing, named[first])

    def facts(self) -> list[tuple[str, str]]:
        """What the model is."""
        identity = self.identity
        if not identity:
            return []
        height, width = identity["size"]
        facts = [
            ("Specification", str(identity["spec"])),
            ("Fingerprint (SHA-256 of names, types, shapes and values)", str(identity["fingerprint"])),
            ("Parameters", f"{identity['parameters']:,}"),
            ("Classes", f"{identity['classes']:,}"),
            ("Input", f"{height} × {width} pixels, RGB"),
            ("Normalisation", f"(pixel − {_three(identity['mean'])}) / {_three(identity['std'])}, pixels in [0, 1]"),
        ]
        if identity.get("multiply_adds") is not None:
            facts.append(("One forward pass", f"{units.count(identity['multiply_adds'])} multiply-adds"))
        return facts

    def filters(self) -> list[dict[str, Any]]:
        """The pictures of filters."""
        found = []
        for row in self.rows[MODEL]:
            if not row.ok or "tiles" not in self.run.names(MODEL, row.step):
                continue
            record = row.record
            tiles = self.run.array(MODEL, row.step, "tiles")
            drawn = pictures.filter_tiles(tiles, float(record["scale"]), 60)
            sheet = pictures.montage(drawn, min(16, len(drawn)), 6)
            side = f"{tiles.shape[1]} × {tiles.shape[2]}"
            alt = f"The {len(drawn)} filters of {record['layer']}, {record['view']}, {side} each"
            found.append(
                {
                    "layer": record["layer"],
                    "count": len(drawn),
                    "side": side,
                    "scale": words.figure(float(record["scale"])),
                    "view": record["view"],
                    "picture": _shown(sheet, alt, "png"),
                    "notes": tuple(record.get("notes", ())),
                }
            )
        return found

    def methods(self) -> list[Told]:
        """Every method that has a row, in the order of the rooms, with what it took here."""
        used: dict[str, list[Result]] = {}
        for rows in self.rows.values():
            for row in rows:
                spec = str(row.record.get("method", "")) if row.ok else ""
                if spec:
                    used.setdefault(spec.partition(":")[0], []).append(row)
        rooms = ("look", "explain", "attack")
        told = [self.told(name, rows) for name, rows in used.items()]
        return sorted(told, key=lambda each: rooms.index(each.room) if each.room in rooms else len(rooms))

    def told(self, name: str, rows: Sequence[Result]) -> Told:
        method = self.known.get(name)
        costs = [row.record["cost"] for row in rows]
        times = [timing.seconds for row in rows if (timing := self.run.timing(row.image, row.step)) is not None]
        plain = self.run.timing(MODEL, "forward pass")
        single = plain.seconds if plain is not None else 0.0
        notes: dict[str, set[str]] = {}
        names = {image.id: image.name for image in self.images}
        for row in rows if method is None or method.room != "look" else ():  # a look's notes stand beside what it shows
            for note in row.record.get("notes", ()):
                notes.setdefault(note, set()).add(names.get(row.image, "the model"))
        first = re.split(r"\n\s*\n", (method.__doc__ or "").strip())[0] if method else ""
        return Told(
            name=name,
            title=words.title(name),
            room=method.room if method else "",
            specs=tuple(dict.fromkeys(str(row.record["method"]) for row in rows)),
            definition=_code(" ".join(first.split())),
            shows=method.shows if method else "",
            reading=method.reading if method else "",
            source=method.source if method else "",
            runs=len(rows),
            forward=_middle([cost["forward"] for cost in costs]),
            backward=_middle([cost["backward"] for cost in costs]),
            seconds=units.seconds(median(times)) if times else "–",
            relative=f"{median(times) / single:.3g} ×" if times and single else "–",
            notes=tuple((note, words.some(sorted(where), 6)) for note, where in notes.items()),
        )

    def passes(self) -> list[str]:
        """What plain passes took here, where they were measured."""
        kinds = ("forward pass", "forward and backward pass")
        found = [(kind, timing) for kind in kinds if (timing := self.run.timing(MODEL, kind)) is not None]
        return [f"one {kind} {units.seconds(timing.seconds)}" for kind, timing in found]

    def failures(self) -> list[tuple[str, str, str]]:
        """(what, step, why) of every row that failed."""
        found = [(image.name, "reading it", image.error or "") for image in self.images if not image.ok]
        names = {image.id: image.name for image in self.images} | {MODEL: "the model"}
        for image, rows in self.rows.items():
            found += [(names[image], row.step, row.error or "") for row in rows if not row.ok]
        return found

    def command(self) -> str:
        """The command that makes this run again."""
        asked = self.run.plan.get("asked", {})
        data = asked.get("data", [])
        parts = ["seewhy", "audit", *map(str, data if isinstance(data, list) else [data])]
        parts += ["--model", str(asked.get("model") or self.model)]
        for name, option in (("classes", "--class"), ("methods", "--method")):
            for value in asked.get(name) or []:
                parts += [option, str(value)]
        parts += ["--full"] if asked.get("budget") is None else ["--budget", f"{asked['budget']:g}s"]
        if asked.get("limit"):
            parts += ["--limit", str(asked["limit"])]
        if asked.get("precision", "float32") != "float32":
            parts += ["--precision", str(asked["precision"])]
        return shlex.join([*parts, "--out", self.run.directory.name])


def _explains(row: Result) -> bool:
    return "target" in row.record and "sign" in row.record


def _noted(maps: Sequence[Explained]) -> tuple[str, ...]:
    """What is to be known of a method's maps: first what holds for all of them, then what holds for one class."""
    every = [note for note in maps[0].notes if all(note in each.notes for each in maps)]
    others = [f"{each.caption}: {note}" for each in maps for note in each.notes if note not in every]
    return tuple(dict.fromkeys(note.replace("for 1 of 1 images ", "") for note in [*every, *others]))


def _cell(value: float) -> tuple[str, str, str]:
    """A correlation as it is written, on the colour of its size, in an ink that can be read there."""
    if not math.isfinite(value):
        return "–", "", ""
    ground = np.rint(pictures.white_to(np.array(value), "signed")).astype(int)
    ink = "#fff" if abs(value) > 0.6 else "#1b1d21"
    return words.signed(value), f"#{bytes(ground.tolist()).hex()}", ink


def _judged(run: Run, rows: Sequence[Result]) -> Image.Image | None:
    """The image that the first attack made, which lies under the maps after it."""
    for row in rows:
        if "p_before" in row.record:
            name = row.record.get("pictures", {}).get("adversarial", "")
            return _opened(run, name) or pictures.to_picture(run.array(row.image, row.step, "adversarial"))
    return None


def _opened(run: Run, name: str) -> Image.Image | None:
    """A picture of the run in RGB, None where it is gone."""
    if not name:
        return None
    try:
        with Image.open(run.picture(name)) as picture:
            return picture.convert("RGB")
    except OSError:
        return None


def _shown(picture: Image.Image, alt: str, kind: Any = "photo") -> Shown:
    return Shown(pictures.data_uri(picture, kind), alt, picture.width, picture.height)


def _exact(picture: Image.Image, alt: str) -> Shown:
    """Without loss, since a small change is what is to be seen; tiny images enlarged in whole steps."""
    times = max(1, 192 // max(picture.size))
    size = (picture.width * times, picture.height * times)
    return _shown(picture.resize(size, Image.Resampling.NEAREST), alt, "exact")


def _scaled(box: Sequence[float], picture: Image.Image, original: Sequence[int]) -> tuple[float, ...]:
    """A box on the original photograph, on its picture in the run."""
    down, across = picture.height / original[0], picture.width / original[1]
    return (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def _photo_alt(image: ImageRow, top: Sequence[Mapping[str, Any]], outlined: bool) -> str:
    seen = f", which the model takes for {top[0]['label']}" if top else ""
    return f"The photograph {image.name}{seen}" + ("; what the model does not see is darkened" if outlined else "")


def _crop(record: Mapping[str, Any], outlined: bool) -> str:
    (height, width), (high, wide) = record["original"], record["size"]
    if not outlined:
        return f"As the model saw it, {wide} × {high} pixels."
    left, top, right, bottom = record["box"]
    if left <= 0.5 and top <= 0.5 and right >= width - 0.5 and bottom >= height - 0.5:
        return f"{width} × {height} pixels; the model sees all of it, at {wide} × {high}."
    return f"{width} × {height} pixels; the model sees what is inside the frame, at {wide} × {high}."


def _stood(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    norm = record.get("norm", "linf")
    if record["fooled"]:
        return words.size(record["smallest_eps"], norm)
    return f"no ε up to {words.size(max(record['eps']), norm)}"


def _growth(key: str, rows: Sequence[Mapping[str, Any]], where: str) -> Markup:
    """How the change grows from layer to layer: medians over photographs, noise's over directions too."""
    layers = rows[0]["layers"]
    found = [row["growth"] for row in rows if row["layers"] == layers]
    attack = [median(each[place][0] for each in found) for place in range(len(layers))]
    noise = [median(value for each in found for value in each[place][1:]) for place in range(len(layers))]
    ends = [f"{100 * each:.2g} %" for each in (attack[0], attack[-1], noise[0], noise[-1])]
    told = f"The attack's change goes from {ends[0]} to {ends[1]}, noise from {ends[2]} to {ends[3]}."
    return charts.growth(key, layers, attack, noise, f"Change of each layer's answer, on {where}", told)


def _says(given: Mapping[str, Any]) -> str:
    return f"{given['label']}, {words.percent(given['probability'])}"


def _course(label: str, probabilities: Sequence[float]) -> str:
    first, last = (words.percent(probabilities[place]) for place in (0, -1))
    return f"the probability of {label} goes from {first} to {last}"


def _verdict(record: Mapping[str, Any], named: str, values: int) -> str:
    """What an attack did to one photograph; in 8 bits is what counts, and what was so only before rounding is said."""
    before, after = record["before"], record["after"]
    norm = record.get("norm", "linf")

    def told(eps: float) -> str:
        return words.epsilon(eps, norm, values)

    largest = words.size(max(record["eps"]), norm, values)
    unrounded = [eps for eps, success in zip(record["eps"], record["success"], strict=True) if success]
    if record["fooled"]:
        each = " to each value of a pixel" if norm == "linf" else ""
        said = (
            f"The smallest change found that fools it is {told(record['smallest_eps'])}{each}: "
            f"{before['label']} ({words.percent(before['probability'])}) becomes {after['label']} "
            f"({words.percent(after['probability'])}), also when the image is saved in 8 bits."
        )
        if min(unrounded) < record["smallest_eps"]:
            said += f" Before rounding to 8 bits, {told(min(unrounded))} is enough."
        return said
    said = f"It was not fooled by any ε of {named} tried, up to {largest}."
    if unrounded:
        said = (
            f"{named} fooled it only before rounding to 8 bits (from {told(min(unrounded))}), not in an image "
            f"as it would be saved, by any ε tried up to {largest}."
        )
    still = "it still says" if after["index"] == before["index"] else "it says"
    return f"{said} At {told(record['shown_eps'])} {still} {_says(after)}."


def _time(timing: Timing | None) -> tuple[str, ...]:
    return () if timing is None else (units.seconds(timing.seconds),)


def _three(values: Sequence[float]) -> str:
    """Three numbers, or one where they are the same."""
    written = [f"{value:.4g}" for value in values]
    return written[0] if len(set(written)) == 1 else f"[{', '.join(written)}]"


def _middle(values: Sequence[int]) -> str:
    """The median, with the range where there is one."""
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{median(values):,.0f} ({low:,} to {high:,})"


def _code(text: str) -> Markup:
    """Text with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _gradient(sign: pictures.Sign) -> str:
    """The colours of an overlay on mid-grey, as a CSS gradient."""
    strength: Array = np.linspace(-1 if sign == "signed" else 0, 1, 17)
    rgb, opacity = pictures.colours(strength, sign)
    mixed = np.rint(sum(pictures.GREY) / 2 * (1 - opacity[:, None]) + rgb * opacity[:, None]).astype(int)
    return f"linear-gradient(90deg, {', '.join(f'#{bytes(colour.tolist()).hex()}' for colour in mixed)})"


def _window(layer: Mapping[str, Any]) -> str:
    """A unit's window of the input and its step, in pixels."""
    window, stride = layer.get("window"), layer.get("stride")
    if not window:
        return "–"
    both = " × ".join(f"{side:g}" for side in window) if isinstance(window, list) else f"{window:g}"
    if not stride:
        return both
    return f"{both}, every {' × '.join(f'{side:g}' for side in stride) if isinstance(stride, list) else f'{stride:g}'}"
