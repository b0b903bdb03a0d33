"""Is it better than people? The verdict, the numbers behind it, where people and the model part, and published results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from seewhy.humans.parting import PARTED, SETS
from seewhy.humans.worse import KINDS
from seewhy.report import pictures, words
from seewhy.report.curves import Curve, curves, interval
from seewhy.report.parts import Section, Shown, shown
from seewhy.report.reading import Reading
from seewhy.run.store import MODEL, Result

#: classes up to which confusion matrices are drawn, annotators that are named, and rows of a table
_SIDE, _NAMED, _MOST = 20, 12, 60

#: pixels of the longer side of a case's pictures
_CASE = 300

Row = Mapping[str, Any]

#: whose confidence, in words
_WHO = {"network": "the model", "people": "people", "network as people": "the model, as a share of people"}


@dataclass(frozen=True)
class Line:
    """A row of a table: a name, what it counts, and its values, each in words with its interval drawn."""

    name: str
    count: str
    cells: tuple[tuple[str, Markup], ...]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of one kind under their headings, with a caption."""

    caption: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]


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


def section(reading: Reading) -> Section | None:
    """The section, None where neither votes nor a published result were given."""
    rows = {row.step: row for row in reading.of(MODEL) if row.ok}
    alone = [row.record for step, row in rows.items() if step.startswith("performance:")]
    if not alone:
        return None
    agreed = rows["agreement"].record if "agreement" in rows else None
    parted = rows["parting"].record if "parting" in rows else None
    worse = [row.record for step, row in rows.items() if step.startswith("worse:")]
    answers = [row.record for step, row in rows.items() if step.startswith("answers:")]
    return Section(
        "people",
        "Is it better than people?",
        "people.html",
        {
            "verdict": (agreed["headline"], agreed["sample"]) if agreed else None,
            "words": agreed["words"] if agreed else (),
            "limits": agreed["limits"] if agreed else (),
            "alone": alone,
            "answered": sum(record["images"] for record in answers),
            "of": (reading.run.plan.get("people") or {}).get("of", 0),
            "observers": observers(agreed, alone) if agreed else performances(alone),
            "kappa": kappa(agreed) if agreed else None,
            "classes": parts(agreed, "classes") if agreed else recalls(alone),
            "conditions": parts(agreed, "conditions") if agreed and agreed["tables"]["conditions"] else None,
            "confusions": confusions(agreed) if agreed else own_confusions(alone),
            "confused": confused(agreed) if agreed else None,
            "charts": [*calibration(agreed), *coverage(agreed)] if agreed else [],
            "parted": parted,
            "effects": effects(parted) if parted else [],
            "walls": walls(reading, parted) if parted else [],
            "worse": [chart for record in worse for chart in worsened(record)],
            "worse_words": [record["words"] for record in worse],
            "published": alone[0]["beside"],
            "beside": [(record["data"], [each["words"] for each in record["beside"]]) for record in alone],
            "notes": [note for row in rows.values() if _ours(row) for note in row.record.get("notes", ())],
            "votes": agreed,
        },
    )


def _ours(row: Result) -> bool:
    return row.step.partition(":")[0] in ("performance", "parting", "worse", "answers")


# Tables


def _share(row: Row, name: str = "value") -> str:
    value, low, high = (row.get(key) for key in (name, *_ends(name, row)))
    if value is None:
        return "–"
    ends = f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None and high is not None else ""
    return f"{100 * value:.1f}{words.NBSP}%{ends}"


def _number(row: Row, name: str = "value") -> str:
    value, low, high = (row.get(key) for key in (name, *_ends(name, row)))
    if value is None:
        return "–"
    ends = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return f"{value:.2f}{ends}".replace("-", "−")


def _ends(name: str, row: Row) -> tuple[str, str]:
    return ("low", "high") if name == "value" and "low" in row else (f"{name} low", f"{name} high")


def _drawn(
    row: Row, name: str, span: tuple[float, float] = (0.0, 1.0), series: int = 0, mark: float | None = None
) -> Markup:
    low, high = _ends(name, row)
    return interval(row.get(name), row.get(low), row.get(high), span, series=series, mark=mark)


def _span(values: Sequence[float | None]) -> tuple[float, float]:
    """From the round share below the lowest end to 1, so that intervals can be told apart."""
    known = [value for value in values if value is not None]
    return (max(0.0, np.floor(10 * min(known, default=0.0) - 0.5) / 10), 1.0)


def observers(agreed: Row, alone: Sequence[Row]) -> Table:
    """Accuracy and balanced accuracy of the model, the mean annotator, the majority, and annotators."""
    rows = agreed["tables"]["accuracy"]
    named = [row for row in rows if row["kind"] != "annotator"]
    people = [row for row in rows if row["kind"] == "annotator"]
    names = ("balanced accuracy", "accuracy") if alone[0]["unequal"] else ("accuracy", "balanced accuracy")
    kept = [*named, *people[:_NAMED]]
    spans = {name: _span([row.get(f"{name} low") for row in kept]) for name in names}
    more = f" {len(people) - _NAMED} more annotators stand in the run’s data." if len(people) > _NAMED else ""
    return Table(
        f"Who is right how often, on the same images; intervals of 95 %.{more}",
        ("Who", "Images", *(name.capitalize() for name in names)),
        tuple(
            Line(
                row["who"],
                f"{row['images']:,}",
                tuple(
                    (_share(row, name), _drawn(row, name, spans[name], 0 if row["kind"] == "network" else 1))
                    for name in names
                ),
                row["kind"] == "network",
            )
            for row in kept
        ),
    )


def performances(alone: Sequence[Row]) -> Table:
    """The model's own numbers, a row a data set."""
    order = ("balanced accuracy", "accuracy") if alone[0]["unequal"] else ("accuracy", "balanced accuracy")
    found = [{row["what"]: row for row in record["rows"]} for record in alone]
    span = _span([row[name].get("low") for row in found for name in order])
    return Table(
        "How often the model is right; intervals of 95 % over images.",
        ("Images of", "Number", *(name.capitalize() for name in order), "Always the commonest class"),
        tuple(
            Line(
                record["data"],
                f"{record['images']:,}",
                (
                    *((_share(row[name]), _drawn(row[name], "value", span)) for name in order),
                    (f"{100 * record['always']:.1f}{words.NBSP}%", Markup()),
                ),
            )
            for record, row in zip(alone, found, strict=True)
        ),
    )


def kappa(agreed: Row) -> Table | None:
    """Error consistency, the ceiling beside the model."""
    rows = [
        row
        for row in agreed["tables"]["consistency"]
        if row["value"] is not None and "difference" not in row["measure"]
    ]
    rows = [row for row in rows if "agree" not in row["measure"]]
    if not rows:
        return None
    low = min(0.0, *(row["value low"] if row["value low"] is not None else 0.0 for row in rows))
    return Table(
        "Do they err on the same images? Error consistency κ: 0 where errors coincide as by chance, 1 where they always do. "
        "What two people reach is the ceiling. Fleiss’ κ and Krippendorff’s α: how far people agree, whatever is true.",
        ("Measure", "", "κ"),
        tuple(
            Line(
                row["measure"],
                "",
                ((_number(row), _drawn(row, "value", (low, 1.0), 0 if "network" in row["measure"] else 1)),),
                "network" in row["measure"],
            )
            for row in rows
        ),
    )


#: tables of parts: their first column, and their caption
_PARTS = {
    "classes": ("class", "Recall of each class: how often its images are recognised."),
    "conditions": ("condition", "Accuracy in each condition that the images were shown in."),
}


def parts(agreed: Row, table: str) -> Table:
    """Class by class, or condition by condition: the model, people, and the difference."""
    what, caption = _PARTS[table]
    rows = agreed["tables"][table]
    if len(rows) > _MOST:
        rows = sorted(rows, key=lambda row: -abs(row["difference"] or 0))[:_MOST]
        caption += f" The {_MOST} that differ most."
    span = _span([row.get(f"{who} low") for row in rows for who in ("network", "mean annotator")])
    return Table(
        f"{caption} In bold where the difference is told apart from none, corrected for their number (Holm).",
        (what.capitalize(), "Images", "The model", "Mean annotator", "Difference"),
        tuple(
            Line(
                row[what],
                f"{row['images']:,}",
                (
                    (_share(row, "network"), _drawn(row, "network", span, 0)),
                    (_share(row, "mean annotator"), _drawn(row, "mean annotator", span, 1)),
                    (_points(row, "difference"), _drawn(row, "difference", (-0.5, 0.5), 3, 0.0)),
                ),
                row["p (Holm)"] is not None and row["p (Holm)"] < 0.05,
            )
            for row in rows
            if row["images"]
        ),
    )


def _points(row: Row, name: str) -> str:
    value, low, high = (row.get(key) for key in (name, *_ends(name, row)))
    if value is None:
        return "–"
    ends = f" ({100 * low:+.1f} to {100 * high:+.1f})" if low is not None and high is not None else ""
    return f"{100 * value:+.1f}{ends} points".replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "−")


def recalls(alone: Sequence[Row]) -> Table:
    """Recall of each class on each data set."""
    names = [row["class"] for row in alone[0]["rows"] if "class" in row]
    by_set = [{row["class"]: row for row in record["rows"] if "class" in row} for record in alone]
    span = _span([held[name].get("low") for held in by_set for name in names])
    kept = [name for name in names if any(held[name]["images"] for held in by_set)][:_MOST]
    return Table(
        "Recall of each class: how often its images are recognised; and how many there are.",
        ("Class", "Images", *(record["data"] for record in alone)),
        tuple(
            Line(
                name,
                " / ".join(f"{held[name]['images']:,}" for held in by_set),
                tuple((_share(held[name]), _drawn(held[name], "value", span)) for held in by_set),
            )
            for name in kept
        ),
    )


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
                        _number({"value": each["auc"], "low": each["interval"][0], "high": each["interval"][1]}),
                        interval(each["auc"], each["interval"][0], each["interval"][1], (0.0, 1.0), mark=0.5),
                    ),
                    (_p(each["adjusted"]), Markup()),
                ),
                each["clear"],
            )
            for each in row["effects"]
        )
        found.append((f"Where {row['what']}", row["images"], Table("", ("Property", "", "AUC", "p, corrected"), lines)))
    return found


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# Matrices


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
    return text, f"#{bytes(ground.tolist()).hex()}", "#fff" if abs(strength) > 0.6 else "#1b1d21"


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


# Charts


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
        f"{_WHO.get(row['who'], row['who'])} {_number(row, 'ECE, equal width')} (if perfectly calibrated "
        f"{row['ECE if perfectly calibrated']:.2f})"
        for row in agreed["tables"]["calibration"]
        if row["ECE, equal width"] is not None
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
    low = _span([min(point[2] if point[2] is not None else point[1] for point in line.points) for line in lines])[0]
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
                tuple((float(place), row["accuracy"], row["low"], row["high"]) for place, row in enumerate(rows)),
            ),
            Curve(
                "balanced accuracy",
                tuple(
                    (float(place), row.get("balanced", row["accuracy"]), None, None) for place, row in enumerate(rows)
                ),
            ),
        ]
        how = KINDS[kind]
        marks = [(0.0, "as it is"), *((float(i), f"{how.scale * row['level']:g}") for i, row in enumerate(rows[1:], 1))]
        title = f"{kind.capitalize() if kind != 'jpeg' else 'JPEG'}, {record['data']}"
        last = rows[-1]
        caption = f"Up to {last['shown']}: accuracy {100 * last['accuracy']:.0f} %."
        drawn = curves(
            f"worse-{kind}-{record['data']}".replace(" ", "-"), lines, title, caption, across=kind, ticks=marks
        )
        charts.append(Chart(title, tuple(line.name for line in lines), drawn, caption))
    return charts


# The gallery


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
    for number, each in enumerate(row.record["maps"]):
        values = pictures.heat(reading.run.array(MODEL, row.step, f"values-{number}"), each["sign"])
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
