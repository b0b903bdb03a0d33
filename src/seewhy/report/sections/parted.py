"""Where people and the model part: the most clear-cut images, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from seewhy.humans.parting import PARTED, SETS
from seewhy.report import pictures, words
from seewhy.report.curves import interval
from seewhy.report.measures import Line, Row, Table, chance, number
from seewhy.report.parts import Shown, shown
from seewhy.report.reading import Reading
from seewhy.run.store import MODEL, Result

#: pixels of the longer side of a case's pictures
_CASE = 300


@dataclass(frozen=True)
class Shot:
    """One image on which they part: pictures, and the votes beside the model's probabilities in per cent."""

    name: str
    says: str
    pictures: tuple[tuple[str, Shown], ...]
    bars: tuple[tuple[str, bool, str, float, str, float], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Wall:
    """The images of a set."""

    title: str
    count: int
    shots: tuple[Shot, ...]


def effects(parted: Row) -> list[tuple[str, int, Table]]:
    """What goes with each set, a table a set."""
    found = []
    for row in parted["rows"]:
        if not row["effects"]:
            continue
        lines = tuple(
            Line(
                each["property"],
                "",
                (
                    (
                        number({"value": each["auc"], "low": each["interval"][0], "high": each["interval"][1]}),
                        interval(each["auc"], each["interval"][0], each["interval"][1], (0.0, 1.0), mark=0.5),
                    ),
                    (chance(each["adjusted"]), Markup()),
                ),
                each["clear"],
            )
            for each in row["effects"]
        )
        found.append((f"Where {row['what']}", row["images"], Table("", ("Property", "", "AUC", "p, corrected"), lines)))
    return found


def walls(reading: Reading, parted: Row) -> list[Wall]:
    """The cases of each set, with their pictures."""
    counts = {row["set"]: row["images"] for row in parted["rows"]}
    what = {row["set"]: row["what"] for row in parted["rows"]}
    held: dict[str, list[Shot]] = {name: [] for name in PARTED}
    for row in reading.of(MODEL):
        if row.ok and row.step.startswith("case:"):
            found = _shot(reading, row)
            if found is not None:
                held[row.record["case"]["set"]].append(found)
    return [
        Wall(f"Where {what.get(name, SETS[name])}", counts.get(name, 0), tuple(shots))
        for name, shots in held.items()
        if shots
    ]


def _shot(reading: Reading, row: Result) -> Shot | None:
    seen, case = reading.opened(row.record["picture"]), row.record["case"]
    if seen is None:
        return None
    base = pictures.fitted(seen, _CASE, enlarge=True)
    found = [("as the model sees it", shown(base, f"{case['image']}, truly {case['truth']}"))]
    for place, each in enumerate(row.record["maps"]):
        values = pictures.heat(reading.run.array(MODEL, row.step, f"values-{place}"), each["sign"])
        laid = pictures.overlay(base, values, each["sign"])
        caption = f"{words.title(each['method'])} for {each['label']}"
        found.append((caption, shown(laid.picture, f"{caption}: {pictures.where(values)}")))
    people = f"people say {case['people']}" if case["people"] else "people have no answer"
    chances = dict(map(tuple, case["chances"]))
    return Shot(
        case["image"],
        f"truly {case['truth']}; {people}, the model {case['answer']}",
        tuple(found),
        tuple(
            (
                name,
                name == case["truth"],
                words.percent(share),
                100 * share,
                words.percent(chances[name]),
                100 * chances[name],
            )
            for name, share in case["votes"]
        ),
        tuple(row.record.get("notes", ())),
    )
