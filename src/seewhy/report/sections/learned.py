"""What did it learn? Six looks at the model itself, on all images that it was given as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.report import pictures, words
from seewhy.report.maps import LAYOUTS
from seewhy.report.parts import Panel, Section, Shown, shown
from seewhy.report.reading import Reading
from seewhy.report.sections.codes import mapped
from seewhy.report.sections.exemplars import exemplified
from seewhy.report.sections.optimised import made
from seewhy.run.store import MODEL, SET, Result

#: pixels of a filter's tile, for displays of twice the density, and units with names in a table
_FILTER, _NAMED = 60, 12

#: what orders of filters other than by their numbers are, row by row
_ORDERS = {"norm": "the strongest first", "similarity": "those that are alike side by side"}


@dataclass(frozen=True)
class Grid:
    """The filters of a convolution."""

    layer: str
    about: str
    picture: Shown
    notes: tuple[str, ...]
    facts: tuple[str, ...]


@dataclass(frozen=True)
class LayerLine:
    """A layer over all images: a row of a table."""

    layer: str
    shape: str
    mean: str
    zero: str
    share: float
    silent: str
    dead: str


@dataclass(frozen=True)
class Answers:
    """What the layers answer to all images."""

    rows: tuple[LayerLine, ...]
    notes: tuple[str, ...]
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Detector:
    """A unit that is on where a concept is: a row of pictures with what it is on for ringed."""

    unit: int
    concept: str
    overlap: str
    picture: Shown | None


@dataclass(frozen=True)
class Named:
    """The units that stand out for a class, of one set by one model, and with masks those that find a concept."""

    layer: str
    summary: str
    rows: tuple[tuple[int, str, str, str, float, float], ...]
    concepts: str
    detectors: tuple[Detector, ...]
    notes: tuple[str, ...]
    facts: tuple[str, ...]


def section(reading: Reading) -> Section | None:
    """The section, None where nothing was looked at."""
    grids = [
        _grid(reading, row) for row in reading.of(MODEL) if row.ok and "tiles" in reading.run.names(MODEL, row.step)
    ]
    answers = _panels(reading, "statistics", _answers)
    crops = _panels(reading, "exemplars", exemplified)
    optimised = made(reading)
    maps = _panels(reading, "map", mapped)
    named = _panels(reading, "units", _named)
    if not (grids or answers or crops or optimised or maps or named):
        return None
    content = {
        "intro": _intro(reading),
        "said": _said(reading),
        "filters": grids,
        "answers": answers,
        "exemplars": crops,
        "made": optimised,
        "maps": maps,
        "named": named,
        "masked": any(panel.content and panel.content.concepts for panel in named),
        "photos": [
            (anchor, reading.named(image)) for image, anchor in reading.anchors.items() if _has_maps(reading, image)
        ],
    }
    return Section("learned", "What did it learn?", "learned.html", content, _ENTRIES)


def _said(reading: Reading) -> dict[str, Any]:
    """What the section's own sentences depend on: which layers, units and layouts were asked for."""
    rows = [row for image in (MODEL, *(each["id"] for each in reading.sets)) for row in reading.of(image) if row.ok]
    of = {name: [row.record for row in rows if row.step.partition(":")[0] == name] for name in _WORDED}
    units = {_asked(record, "units") for record in of["exemplars"]}
    layouts = list(dict.fromkeys(record["layout"] for record in of["map"])) or ["tsne"]
    return {
        "first": not any(_asked(record, "layer") for record in of["filters"]),
        "picked": _PICKED["some" if len(units) > 1 else "asked" if True in units else "chosen"],
        "deciding": not any(_asked(record, "layer") for record in of["map"]),
        "layout": ", ".join(LAYOUTS[layout] for layout in layouts),
        "distances": _DISTANCES["pca" if layouts == ["pca"] else "some" if "pca" in layouts else ""],
        "last": not any(_asked(record, "layer") for record in of["units"]),
    }


def _asked(record: dict[str, Any], option: str) -> bool:
    """Whether an option of a method was asked for."""
    return any(each.startswith(f"{option}=") for each in record["method"].partition(":")[2].split(","))


_WORDED = ("filters", "exemplars", "map", "units")

_PICKED = {
    "chosen": "Those shown were chosen because their best images stand out most, so that they are clearer than most.",
    "asked": "Those shown were asked for.",
    "some": "Those shown were asked for, or chosen because their best images stand out most, so that they are clearer than most.",
}

_DISTANCES = {
    "": "Distances between groups, and how large or dense they are, mean nothing.",
    "pca": "What lies along the other axes is not seen: points that lie together may be far apart.",
    "some": "But along principal axes, distances between groups, and how large or dense they are, mean nothing.",
}

_ENTRIES = (
    ("learned-filters", "Filters"),
    ("learned-answers", "What layers answer"),
    ("learned-exemplars", "What excites units"),
    ("learned-made", "Optimised images"),
    ("learned-map", "The map of codes"),
    ("learned-named", "Units with names"),
)


def _intro(reading: Reading) -> str:
    """How many images were looked at as a whole, beside those that are explained one by one."""
    given = next((each for each in reading.sets if each["id"] == SET and each["images"]), None)
    if given is None:
        return ""
    explained = len(reading.images)
    count, total = given["images"], given["of"]
    noun = "photograph" if given["name"] == "photographs" else "image"
    of = "" if noun == "photograph" else f" of {given['name']}"
    if count == total:
        which = f"the {noun}{of}" if count == 1 else f"all {count:,} {noun}s{of}"
    else:
        which = f"{count:,} of the {total:,} {noun}s{of}, drawn by chance"
    few = f"{words.counted(explained)} {'is' if explained == 1 else 'are'} explained one by one below"
    more = "" if count == explained else f"; {few}"
    return f"Looked at on {which}{more}."


def _panels(reading: Reading, name: str, gather: Callable[[Reading, Result, dict[str, Any]], Any]) -> list[Panel]:
    """What a look found on each set, as often as it was asked for, and why nothing where it was left out or failed."""
    found = []
    for planned in reading.sets:
        rows = [row for row in reading.of(planned["id"]) if row.step.partition(":")[0] == name]
        whose = _whose(reading, planned)
        without = tuple(sentence for look, sentence in planned.get("without", []) if look == name)
        if without:
            found.append(Panel(whose, None, without))
        for row in rows:
            content, because = (gather(reading, row, planned), ()) if row.ok else (None, (f"it failed: {row.error}",))
            found.append(Panel(whose, content, because, row.step if len(rows) > 1 else ""))
    return found


def _whose(reading: Reading, planned: dict[str, Any]) -> str:
    """Which other model and which other set, empty for the model of the report."""
    if planned["model"] is None:
        return ""
    return f"{planned['model']} on {planned['images']:,} of the {planned['of']:,} images of {planned['name']}"


def _grid(reading: Reading, row: Result) -> Grid:
    record = row.record
    tiles = reading.run.array(MODEL, row.step, "tiles")
    drawn = pictures.filter_tiles(tiles, float(record["scale"]), _FILTER)
    side = f"{tiles.shape[1]} × {tiles.shape[2]}"
    numbers = _numbers(record["titles"]) or list(range(len(drawn)))
    filters = list(dict.fromkeys(numbers))
    what = f"{words.many(len(filters), 'filter')} of {side}"
    if len(filters) < len(numbers):
        what = f"{words.many(len(numbers), 'slice')} of {words.many(len(filters), 'filter')}, {side} each"
    view = {
        "colour": ", in colour, as they weigh normalised pixels",
        "norm": ": the root of the sum of squares over their inputs",
    }.get(record["view"], ", one tile for each input")
    order = _ordered(filters, record["method"], len(numbers) > len(filters))
    scale = words.figure(float(record["scale"]))
    return Grid(
        record["layer"],
        f"{what}{view}, {order}. Grey is zero; white is {scale} and black −{scale}, one scale for all.",
        shown(
            pictures.montage(drawn, min(16, len(drawn)), 6),
            f"The {what}, of {record['layer']}, {record['view']}",
            "png",
        ),
        tuple(record.get("notes", ())),
        reading.cost([row]),
    )


def _numbers(titles: Sequence[str]) -> list[int]:
    """Which filter each tile is of: titles are such as "filter 12" and "filter 12, input 3"."""
    return [int(title.split()[1].rstrip(",")) for title in titles]


def _ordered(filters: Sequence[int], method: str, several: bool) -> str:
    """In which order the tiles lie, row by row; `several` of each filter."""
    if list(filters) == list(range(len(filters))):
        return "filter by filter from 0, row by row" if several else "numbered from 0 row by row"
    by = next((said for order, said in _ORDERS.items() if f"order={order}" in method), "row by row")
    return f"{by}: {words.some([str(each) for each in filters], 16)}"


def _has_maps(reading: Reading, image: str) -> bool:
    return any(row.ok and "channels" in row.record and "zero" in row.record for row in reading.of(image))


def _answers(reading: Reading, row: Result, planned: dict[str, Any]) -> Answers:
    rows = tuple(
        LayerLine(
            each["layer"],
            " × ".join(str(side) for side in each["shape"]),
            words.figure(each["mean"]),
            words.percent(each["at or below zero"]),
            100 * each["at or below zero"],
            words.percent(each["silent"]),
            f"{len(each['dead'])} of {each['units']}",
        )
        for each in row.record["layers"]
    )
    return Answers(rows, tuple(row.record["notes"]), reading.cost([row]))


def _named(reading: Reading, row: Result, planned: dict[str, Any]) -> Named:
    record = row.record
    chance = max(1, round(0.05 * record["units"]))
    classes = (
        "the true classes"
        if record["true_classes"]
        else "the classes that the model predicts, since true ones are not known"
    )
    summary = (
        f"{record['above']:,} of the {record['units']:,} units of {record['layer']} are more selective than 95 % of random "
        f"labellings would make them; about {chance:,} would be by chance. By {classes}, on {record['images']:,} images."
    ) + (" The clearest are listed, of each class three before any more." if record["named"] else "")
    rows = tuple(
        (
            each["unit"],
            each["label"],
            f"{each['selectivity']:.2f}",
            f"{each['floor']:.2f}",
            100 * each["selectivity"],
            100 * each["floor"],
        )
        for each in record["named"][:_NAMED]
    )
    said = ("above their floor", "overlap a concept")
    notes = tuple(note for note in record["notes"] if not any(words in note for words in said))
    detectors = tuple(_detector(reading, each) for each in record.get("drawn", ()))
    return Named(record["layer"], summary, rows, _concepts(record), detectors, notes, reading.cost([row]))


def _concepts(record: dict[str, Any]) -> str:
    """How many units find a concept of the masks, "" where there were none."""
    names = record.get("concepts")
    if not names:
        return ""
    which = f"{names[0]}" if len(names) == 1 else f"one of {len(names):,} concepts ({words.some(names, 5)})"
    least = f"an IoU above {record['least']:g}"
    count = record["detectors"]
    found = f"{count:,} of the {record['units']:,} units of {record['layer']} overlap {which} by {least}"
    return f"{found}; the clearest are shown, no concept more than twice." if count else f"{found}."


def _detector(reading: Reading, each: dict[str, Any]) -> Detector:
    picture = reading.opened(each["picture"])
    alt = (
        f"The images that show {each['concept']} and excite unit {each['unit']} most; what the unit is on for is ringed"
    )
    drawn = None if picture is None else shown(picture, alt)
    return Detector(each["unit"], each["concept"], f"IoU {each['iou']:.2f}", drawn)
