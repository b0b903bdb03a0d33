"""What excites single units most: crops of the images, a row a unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from seewhy.report import charts, words
from seewhy.report.parts import Shown, shown
from seewhy.report.pictures import Array
from seewhy.report.reading import Reading
from seewhy.run.store import Result

#: images below which a distribution is not drawn, and is said to be of few
FEW = 20


@dataclass(frozen=True)
class UnitLine:
    """One unit with the crops that excite it most."""

    unit: int
    picture: Shown | None
    facts: tuple[str, ...]
    histogram: Markup


@dataclass(frozen=True)
class ByClass:
    """The units that each class excites most: a row a class, a cell a layer."""

    about: str
    layers: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Exemplified:
    """Units of a few layers and their exemplars, of one set by one model."""

    layers: tuple[tuple[str, str, tuple[UnitLine, ...]], ...]
    classes: ByClass | None
    warning: str
    notes: tuple[str, ...]
    facts: tuple[str, ...]


def exemplified(reading: Reading, row: Result, planned: dict[str, Any]) -> Exemplified:
    """Units of a few layers, from the row of a set."""
    record = row.record
    edges = reading.run.array(row.image, row.step, "edges")
    layers = []
    for place, layer in enumerate(record["layers"]):
        counts = reading.run.array(row.image, row.step, f"histogram.{place}")
        lines = [
            _unit(reading, layer["layer"], unit, counts[number], edges, record["images"])
            for number, unit in enumerate(layer["drawn"])
        ]
        about = f"{len(lines)} of {words.many(layer['units'], 'unit')}"
        layers.append((layer["layer"], about, tuple(lines)))
    few = record["images"]
    warning = ""
    if few < FEW:
        which = "One image shows" if few == 1 else f"{words.counted(few).capitalize()} images show"
        warning = (
            f"{which} very little: each unit has a best among them, whatever it looks for, and the others may be nothing to it. "
            "Give a folder of images to see more."
        )
    return Exemplified(tuple(layers), _by_class(record), warning, tuple(record["notes"]), reading.cost([row]))


def _by_class(record: dict[str, Any]) -> ByClass | None:
    """The units by class of a record; None in older ones, and where images have no two classes."""
    held = record.get("by_class", {"of": 0, "classes": []})
    rows = tuple(
        (
            row["label"],
            tuple(
                ", ".join(f"{each['unit']} (+{each['score']:.1f})" for each in units) or "–" for units in row["units"]
            ),
        )
        for row in held["classes"]
    )
    if not rows:
        return None
    about = (
        "For each class the units whose peaks over its images lie, on average, farthest above those over all images; in "
        "brackets by how many standard deviations."
    )
    if len(rows) < held["of"]:
        about += f" The {len(rows)} clearest of {held['of']:,} classes."
    return ByClass(about, tuple(layer["layer"] for layer in record["layers"]), rows)


def _unit(reading: Reading, layer: str, unit: dict[str, Any], counts: Array, edges: Array, images: int) -> UnitLine:
    found = unit["exemplars"]
    picture = reading.opened(unit["picture"] or "")
    names = [each["image"] + (f" ({each['label']})" if each["label"] else "") for each in found]
    alt = f"What excites unit {unit['unit']} of {layer} most, the strongest first: {words.some(names, 5)}"
    facts = []
    if unit["classes"]:
        told = [f"{each['label']} ({each['exemplars']})" for each in unit["classes"]]
        facts.append(words.some(told, 3))
    if unit["purity"] is not None and len(found) > 1:
        facts.append(f"purity {words.percent(unit['purity'])}")
    if found:
        facts.append(f"answers {words.figure(found[0]['value'])} to {words.figure(found[-1]['value'])}")
        facts.append(f"mean {words.figure(unit['mean'])}")
    bars = Markup()
    if images >= FEW and found:
        least = words.figure(found[-1]["value"])
        said = f"How strongly unit {unit['unit']} answers to {images:,} images; the crops shown answer {least} or more"
        bars = charts.histogram(counts, edges, found[-1]["value"], found[0]["value"], said)
    return UnitLine(unit["unit"], None if picture is None else shown(picture, alt), tuple(facts), bars)
