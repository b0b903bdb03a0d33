"""Images made to excite a class or a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL.Image import Image

from seewhy.report import pictures, words
from seewhy.report.parts import Panel, Shown, code, shown
from seewhy.report.reading import Reading
from seewhy.run.store import Result
from seewhy.run.unfinished import asked_for

#: pixels of an optimised image's side, for displays of twice the density
_SIDE = 336


@dataclass(frozen=True)
class Optimised:
    """One image that was made: for what (and of which layer), and what is said of it."""

    title: str
    layer: str
    said: tuple[str, ...]
    picture: Shown


@dataclass(frozen=True)
class Made:
    """All images that were made: of classes, and of units."""

    classes: tuple[Optimised, ...]
    units: tuple[Optimised, ...]
    summary: Markup
    notes: tuple[str, ...]
    facts: tuple[str, ...]


def made(reading: Reading) -> list[Panel]:
    """What was made, a panel for each look that was asked for; one that says why not where any was left out."""
    found = []
    for each in reading.sets:
        looks = [look for look in each["look"] if look["name"] == "maximize"]
        rows = [row for row in reading.of(each["id"]) if row.step.partition(":")[0] == "maximize"]
        for look in looks:
            own = [row for row in rows if asked_for(looks, row.step) == look["spec"]]
            if own:
                found.append(_panel(reading, own, look["spec"] if len(looks) > 1 else ""))
    left = [str(each) for each in reading.run.plan.get("left_out", [])]
    left = [each for each in left if each.startswith("maximize") and " would take " in each]
    return [*found, Panel("", None, tuple(left))] if left else found


def _panel(reading: Reading, rows: Sequence[Result], asked: str) -> Panel:
    """What one look made, and what of it failed."""
    good = [row for row in rows if row.ok]
    missing = tuple(f"{row.step} failed: {row.error}" for row in rows if not row.ok)
    classes: list[Optimised] = []
    units: list[Optimised] = []
    of_classes: list[dict[str, Any]] = []
    for row in good:
        for each in row.record["images"]:
            picture = reading.opened(each["picture"])
            if picture is None:
                continue
            fitted = pictures.fitted(picture, _SIDE, enlarge=True)
            if "class" in each:
                of_classes.append(each)
                classes.append(_impression(each, fitted))
            else:
                drawn = shown(fitted, f"An image made to excite {each['for']}")
                unit = each["for"].rpartition(" ")[2]
                facts = (f"answer {words.figure(each['start'])} → {words.figure(each['score'])}",)
                units.append(Optimised(f"unit {unit}", row.record["layer"], facts, drawn))
    notes = tuple(dict.fromkeys(note for row in good for note in row.record["notes"] if "recognises" not in note))
    steps = words.listed(sorted({f"{row.record['steps']} steps" for row in good}))
    told = (f"{steps} each", *reading.cost(good)) if good else ()
    content = Made(tuple(classes), tuple(units), code(_recognition(reading, of_classes)), notes, told)
    return Panel("", content, missing, asked)


def _impression(each: dict[str, Any], picture: Image) -> Optimised:
    label, own = each["class"]["label"], words.percent(each["class"]["probability"])
    said = [f"recognised: {own}" if each["recognised"] else f"not recognised: {own}"]
    for other in each["others"]:
        if other["probability"] is None:
            said.append(f"not a class of {other['model']}")
            continue
        known = "recognised" if other["recognised"] else "not recognised"
        said.append(f"{known} by {other['model']}: {words.percent(other['probability'])}")
    alt = f"The model's idea of {label}: an image made from noise to raise that class's logit"
    return Optimised(label, "", tuple(said), shown(picture, alt))


def _recognition(reading: Reading, asked: Sequence[dict[str, Any]]) -> str:
    """How many images of classes the model itself recognises, and other models."""
    if not asked:
        return ""
    count = len(asked)
    own = sum(each["recognised"] for each in asked)
    said = [f"{reading.model} recognises {own} of {count} as the class that they were made for."]
    names = [other["model"] for other in asked[0]["others"]]
    for place, name in enumerate(names):
        known = [each["others"][place] for each in asked if each["others"][place]["probability"] is not None]
        right = sum(other["recognised"] for other in known)
        of = f"{len(known)}" if len(known) == count else f"{len(known)}, the others not being classes of it"
        said.append(f"{name}, which had no part in making them, recognises {right} of {of}.")
    if not names:
        said.append(
            "No other model of the same classes is at hand to be asked; `seewhy look --method maximize --also MODEL` asks one."
        )
    return " ".join(said)
