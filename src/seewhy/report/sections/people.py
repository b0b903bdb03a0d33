"""Is it better than people? The verdict, the numbers behind it, where people and the model part, and published results."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from seewhy.report import words
from seewhy.report.measures import Line, Row, Table, drawn, number, percent, points, span
from seewhy.report.parts import Section
from seewhy.report.reading import Reading
from seewhy.report.sections.compared import calibration, confused, confusions, coverage, own_confusions, worsened
from seewhy.report.sections.parted import effects, walls
from seewhy.run.store import MODEL, Result

#: annotators that are named, and rows of a table
_NAMED, _MOST = 12, 60


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


def observers(agreed: Row, alone: Sequence[Row]) -> Table:
    """Accuracy and balanced accuracy of the model, the mean annotator, the majority, and annotators."""
    rows = agreed["tables"]["accuracy"]
    named = [row for row in rows if row["kind"] != "annotator"]
    people = [row for row in rows if row["kind"] == "annotator"]
    names = ("balanced accuracy", "accuracy") if alone[0]["unequal"] else ("accuracy", "balanced accuracy")
    kept = [*named, *people[:_NAMED]]
    spans = {name: span([row.get(f"{name} low") for row in kept]) for name in names}
    more = f" {len(people) - _NAMED} more annotators stand in the run’s data." if len(people) > _NAMED else ""
    return Table(
        f"Who is right how often, on the same images; intervals of 95 %.{more}",
        ("Who", "Images", *(name.capitalize() for name in names)),
        tuple(
            Line(
                row["who"],
                f"{row['images']:,}",
                tuple(
                    (percent(row, name), drawn(row, name, spans[name], 0 if row["kind"] == "network" else 1))
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
    reach = span([row[name].get("low") for row in found for name in order])
    return Table(
        "How often the model is right; intervals of 95 % over images.",
        ("Images of", "Number", *(name.capitalize() for name in order), "Always the commonest class"),
        tuple(
            Line(
                record["data"],
                f"{record['images']:,}",
                (
                    *((percent(row[name]), drawn(row[name], "value", reach)) for name in order),
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
                ((number(row), drawn(row, "value", (low, 1.0), 0 if "network" in row["measure"] else 1)),),
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
    reach = span([row.get(f"{who} low") for row in rows for who in ("network", "mean annotator")])
    return Table(
        f"{caption} In bold where the difference is told apart from none, corrected for their number (Holm).",
        (what.capitalize(), "Images", "The model", "Mean annotator", "Difference"),
        tuple(
            Line(
                row[what],
                f"{row['images']:,}",
                (
                    (percent(row, "network"), drawn(row, "network", reach, 0)),
                    (percent(row, "mean annotator"), drawn(row, "mean annotator", reach, 1)),
                    (points(row, "difference"), drawn(row, "difference", (-0.5, 0.5), 3, 0.0)),
                ),
                row["p (Holm)"] is not None and row["p (Holm)"] < 0.05,
            )
            for row in rows
            if row["images"]
        ),
    )


def recalls(alone: Sequence[Row]) -> Table:
    """Recall of each class on each data set."""
    names = [row["class"] for row in alone[0]["rows"] if "class" in row]
    by_set = [{row["class"]: row for row in record["rows"] if "class" in row} for record in alone]
    reach = span([held[name].get("low") for held in by_set for name in names])
    kept = [name for name in names if any(held[name]["images"] for held in by_set)][:_MOST]
    return Table(
        "Recall of each class: how often its images are recognised; and how many there are.",
        ("Class", "Images", *(record["data"] for record in alone)),
        tuple(
            Line(
                name,
                " / ".join(f"{held[name]['images']:,}" for held in by_set),
                tuple((percent(held[name]), drawn(held[name], "value", reach)) for held in by_set),
            )
            for name in kept
        ),
    )
