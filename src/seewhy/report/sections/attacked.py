"""How one photograph is fooled: each attack, why it succeeds, and how the reasons move under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from seewhy.attack.why_it_fails import paragraph
from seewhy.report import charts, pictures, words
from seewhy.report.parts import Shown, exact, says, shown, took
from seewhy.report.reading import Reading
from seewhy.report.sections.why import Explained, explained, explains
from seewhy.run.store import ImageRow, Result

#: pixels of the longer side: explanations before and after, sizes of a change
_PAIR, _STEP = 300, 168


@dataclass(frozen=True)
class Moved:
    """One explanation before and after an attack: of the class before, after, and of the class that it became."""

    title: str
    spec: str
    correlation: str
    maps: tuple[tuple[str, Explained], ...]
    notes: tuple[str, ...]


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


def attacked(reading: Reading, image: ImageRow, row: Result, seen: Image.Image, anchor: str, first: bool) -> Attacked:
    record = row.record
    named = words.title(record["method"])
    eps, before, after = record["eps"], record["before"], record["after"]
    fooled = bool(record["fooled"])
    original = np.asarray(seen, dtype=np.float32).transpose(2, 0, 1) / 255
    changed = reading.run.array(image.id, row.step, "adversarial")
    difference, factor = pictures.amplified(original, changed)
    judged = reading.opened(record.get("pictures", {}).get("adversarial", "")) or pictures.to_picture(changed)
    norm, values = record.get("norm", "linf"), changed.size
    size = words.size(record["shown_eps"], norm, values)
    verdict = _verdict(record, named, values, reading.wrong(image.id))
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
        *took(reading.run.timing(image.id, row.step)),
    )
    same = (f"original: {says(before)}", exact(seen, f"{image.name} as the model saw it")) if first else None
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
                f"changed by {size}: {says(after)}",
                exact(judged, f"{image.name} changed by {named} with {size}, as it was judged"),
            ),
            (
                f"difference × {factor}, grey is none",
                exact(difference, f"what {named} added, enlarged {factor} times around grey"),
            ),
        ),
        facts,
        tuple(record.get("notes", ())),
        strip(reading, record, named, image.name, values),
        failing(reading, image, f"why {row.step}", f"{anchor}-{row.key}-why"),
    )


def strip(reading: Reading, record: Mapping[str, Any], named: str, photo: str, values: int) -> tuple[Step, ...]:
    """The photograph at several sizes of the change."""
    whole = reading.opened(record.get("pictures", {}).get("strip", ""))
    told = record.get("strip", [])
    if whole is None or len(told) < 3:  # an attack that looks for the nearest has one size, and that in 8 bits
        return ()
    width = whole.width // len(told)
    steps = []
    for place, each in enumerate(told):
        tile = whole.crop((place * width, 0, (place + 1) * width, whole.height))
        size = words.epsilon(each["eps"], record.get("norm", "linf"), values)
        drawn = shown(pictures.fitted(tile, _STEP, enlarge=True), f"{photo} changed by {named} with {size}")
        steps.append(Step(size, says(each), each["fools"], drawn))
    return tuple(steps)


def failing(reading: Reading, image: ImageRow, step: str, key: str) -> Failing | None:
    """Why the attack succeeds on one photograph, where that was measured."""
    row = next((each for each in reading.of(image.id) if each.ok and each.step == step), None)
    if row is None:
        return None
    found = row.record["diagnosis"]
    return Failing(paragraph([found], 1), growth(key, [found], image.name), tuple(row.record.get("notes", ())))


def moved(
    reading: Reading, rows: Sequence[Result], before: Image.Image, after: Image.Image | None
) -> tuple[Moved, ...]:
    """Explanations before and after the attack, the pairs that lie side by side."""
    if after is None:
        return ()
    small = pictures.fitted(before, _PAIR)
    changed = after.resize(small.size, Image.Resampling.BICUBIC)
    by_step = {row.step: row for row in rows}
    by_method: dict[str, list[Result]] = {}
    for row in rows:
        if row.step.startswith("after ") and explains(row):
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
                    maps.append((f"before: why {label}", explained(reading, twin, small)))
                if row.record.get("correlation") is not None:
                    correlation = words.correlation(float(row.record["correlation"]))
            maps.append((f"after: why {label}", explained(reading, row, changed)))
        notes = words.noted([caption for caption, _ in maps], [each.notes for _, each in maps])
        found.append(Moved(words.title(spec), spec, correlation, tuple(maps), notes))
    return tuple(found)


def judged_image(reading: Reading, rows: Sequence[Result]) -> Image.Image | None:
    """The image that the first attack made, which lies under the maps after it."""
    for row in rows:
        if "p_before" in row.record:
            name = row.record.get("pictures", {}).get("adversarial", "")
            return reading.opened(name) or pictures.to_picture(reading.run.array(row.image, row.step, "adversarial"))
    return None


def growth(key: str, rows: Sequence[Mapping[str, Any]], where: str) -> Markup:
    """How the change grows from layer to layer: medians over photographs, noise's over directions too."""
    layers = rows[0]["layers"]
    found = [row["growth"] for row in rows if row["layers"] == layers]
    attack = [median(each[place][0] for each in found) for place in range(len(layers))]
    noise = [median(value for each in found for value in each[place][1:]) for place in range(len(layers))]
    ends = [f"{100 * each:.2g} %" for each in (attack[0], attack[-1], noise[0], noise[-1])]
    told = f"The attack's change goes from {ends[0]} to {ends[1]}, noise from {ends[2]} to {ends[3]}."
    return charts.growth(key, layers, attack, noise, f"Change of each layer's answer, on {where}", told)


def _course(label: str, probabilities: Sequence[float]) -> str:
    first, last = (words.percent(probabilities[place]) for place in (0, -1))
    return f"the probability of {label} goes from {first} to {last}"


def _verdict(record: Mapping[str, Any], named: str, values: int, wrong: bool) -> str:
    """What an attack did to one photograph; in 8 bits is what counts, and what was so only before rounding is said.

    One that is `wrong` from the start is not fooled, whatever becomes of it: its decision is changed.
    """
    before, after = record["before"], record["after"]
    norm = record.get("norm", "linf")

    def told(eps: float) -> str:
        return words.epsilon(eps, norm, values)

    largest = words.size(max(record["eps"]), norm, values)
    start = "The model is wrong on it from the start, so that it counts nowhere as fooled. " if wrong else ""
    fools, fooled = ("changes its decision", "changed its decision") if wrong else ("fools it", "fooled it")
    unrounded = [eps for eps, success in zip(record["eps"], record["success"], strict=True) if success]
    if record["fooled"]:
        each = " to each value of a pixel" if norm == "linf" else ""
        saved = record.get("saved")  # older runs know only that it is another class
        rounded = (
            f"and {saved['label']} ({words.percent(saved['probability'])}) when the image is saved in 8 bits"
            if saved
            else f"and in 8 bits it is no longer {before['label']} either"
        )
        said = (
            f"{start}The smallest change found that {fools} is {told(record['smallest_eps'])}{each}: "
            f"{before['label']} ({words.percent(before['probability'])}) becomes {after['label']} "
            f"({words.percent(after['probability'])}), {rounded}."
        )
        if min(unrounded) < record["smallest_eps"]:
            said += f" Before rounding to 8 bits, {told(min(unrounded))} is enough."
        return said
    stood = "Its decision was not changed" if wrong else "It was not fooled"
    said = f"{start}{stood} by any ε of {named} tried, up to {largest}."
    if unrounded:
        said = (
            f"{start}{named} {fooled} only before rounding to 8 bits (from {told(min(unrounded))}), not in an image "
            f"as it would be saved, by any ε tried up to {largest}."
        )
    still = "it still says" if after["index"] == before["index"] else "it says"
    return f"{said} At {told(record['shown_eps'])} {still} {says(after)}."
