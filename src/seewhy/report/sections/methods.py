"""The methods: what each shows, how to read it, and what it took here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from seewhy import units
from seewhy.report import words
from seewhy.report.parts import Section, code, middle
from seewhy.report.reading import Reading
from seewhy.run.store import MODEL, Result


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


def section(reading: Reading) -> Section:
    """The section."""
    return Section("methods", "The methods", "methods.html", {"methods": methods(reading)})


def methods(reading: Reading) -> list[Told]:
    """Every method that has a row, in the order of the rooms, with what it took here."""
    used: dict[str, list[Result]] = {}
    for rows in reading.rows.values():
        for row in rows:
            spec = str(row.record.get("method", "")) if row.ok else ""
            if spec:
                used.setdefault(spec.partition(":")[0], []).append(row)
    rooms = ("look", "explain", "attack")
    found = [told(reading, name, rows) for name, rows in used.items()]
    return sorted(found, key=lambda each: rooms.index(each.room) if each.room in rooms else len(rooms))


def told(reading: Reading, name: str, rows: Sequence[Result]) -> Told:
    """One method, from its rows."""
    method = reading.known.get(name)
    costs = [row.record["cost"] for row in rows]
    times = [  # of the passes that are counted, which may have served several classes, each having its share of their time
        timing.seconds * row.record.get("together", 1)
        for row in rows
        if (timing := reading.run.timing(row.image, row.step)) is not None
    ]
    plain = reading.run.timing(MODEL, "forward pass")
    single = plain.seconds if plain is not None else 0.0
    shown = rows if method is None or method.room != "look" else ()  # a look's notes stand beside what it shows
    notes = [(note, reading.named(row.image)) for row in shown for note in row.record.get("notes", ())]
    alike = words.together([note for note, _ in notes])
    first = re.split(r"\n\s*\n", (method.__doc__ or "").strip())[0] if method else ""
    return Told(
        name=name,
        title=words.title(name),
        room=method.room if method else "",
        specs=tuple(dict.fromkeys(str(row.record["method"]) for row in rows)),
        definition=code(" ".join(first.split())),
        shows=method.shows if method else "",
        reading=method.reading if method else "",
        source=method.source if method else "",
        runs=len(rows),
        forward=middle([cost["forward"] for cost in costs]),
        backward=middle([cost["backward"] for cost in costs]),
        seconds=units.seconds(median(times)) if times else "–",
        relative=f"{median(times) / single:.3g} ×" if times and single else "–",
        notes=tuple((note, words.some(sorted({notes[at][1] for at in which}), 6)) for note, which in alike.items()),
    )
