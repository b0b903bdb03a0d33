"""The tables of a comparison with people, from the rows of an audit's run, as Markdown between markers in a page."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from seewhy.intervals import wilson_mean
from seewhy.run import MODEL, Run

Row = Mapping[str, Any]


def written(page: Path, parts: Mapping[str, Sequence[str]], command: str) -> None:
    """Replace the page's parts, `<!-- part: NAME -->` to `<!-- end -->`; raises `SystemExit` for a part that it has not."""
    made = (
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}, "
        f"{platform.machine()}; `{command}`."
    )
    text = page.read_text(encoding="utf-8")
    for name, lines in parts.items():
        pattern = rf"(<!-- part: {name} -->\n).*?(<!-- end -->)"
        body = "\n".join([*lines, "", made]).replace("\\", r"\\")
        text, count = re.subn(pattern, rf"\g<1>{body}\n\g<2>", text, flags=re.DOTALL)
        if not count:
            raise SystemExit(f"{page} has no part {name}: it needs the lines <!-- part: {name} --> and <!-- end -->")
    page.write_text(text, encoding="utf-8")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [
        f"| {' | '.join(heads)} |",
        f"| {' | '.join('---' for _ in heads)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def ends(row: Row, name: str) -> tuple[Any, Any]:
    """The ends of an interval."""
    low, high = ("low", "high") if "low" in row and name == "value" else (f"{name} low", f"{name} high")
    return row.get(low), row.get(high)


def percent(row: Row, name: str = "value") -> str:
    """A share with its interval, in per cent."""
    value, (low, high) = row.get(name), ends(row, name)
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" + (f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None else "")


def points(row: Row, name: str) -> str:
    """A difference of shares with its interval, in points."""
    value, (low, high) = row.get(name), ends(row, name)
    if value is None:
        return "–"
    return (f"{100 * value:+.1f}" + (f" ({100 * low:+.1f} to {100 * high:+.1f})" if low is not None else "")).replace(
        "-", "−"
    )


def number(row: Row, name: str = "value") -> str:
    """A number with its interval."""
    value, (low, high) = row.get(name), ends(row, name)
    if value is None:
        return "–"
    return (f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")).replace("-", "−")


def rows_of(run: Run, prefix: str) -> list[dict[str, Any]]:
    """The records of the steps whose address begins so; raises `SystemExit` where one failed."""
    found = [row for row in run.results(MODEL) if row.step.partition(":")[0] == prefix]
    for row in found:
        if not row.ok:
            raise SystemExit(f"{row.step} failed: {row.error}")
    return [row.record for row in found]


def agreed(run: Run) -> dict[str, list[str]]:
    """The parts of a direct comparison."""
    (record,) = rows_of(run, "agreement")
    tables = record["tables"]

    def several(name: str, heads: Mapping[str, tuple[str, Callable[[Row, str], str]]]) -> list[str]:
        return table(
            [head for head, _ in heads.values()],
            [[cell(row, column) for column, (_, cell) in heads.items()] for row in tables[name]],
        )

    return {
        "verdict": [f"**{record['headline']}** {record['sample']}", "", *(f"- {limit}" for limit in record["limits"])],
        "accuracy": several(
            "accuracy",
            {
                "who": ("who", word),
                "accuracy": ("accuracy", percent),
                "balanced accuracy": ("balanced accuracy", percent),
            },
        ),
        "classes": several(
            "classes",
            {
                "class": ("class", word),
                "images": ("images", whole),
                "network": ("the model", percent),
                "mean annotator": ("mean annotator", percent),
                "difference": ("difference, points", points),
                "p (Holm)": ("p, corrected", chance),
            },
        ),
        "consistency": several("consistency", {"measure": ("measure", word), "value": ("value", number)}),
        "soft": several("soft", {"measure": ("measure", word), "value": ("value", number)}),
        "calibration": several(
            "calibration",
            {
                "who": ("whose confidence", word),
                "ECE, equal width": ("expected calibration error", number),
                "ECE if perfectly calibrated": ("if perfectly calibrated", plain),
                "overconfidence": ("confidence less accuracy", number),
            },
        ),
        "together": several("together", {"who": ("who answers", word), "accuracy": ("right", percent)}),
        "parting": parted(run),
    }


def parted(run: Run) -> list[str]:
    """Where people and the model part, and what goes with it."""
    (record,) = rows_of(run, "parting")
    sets = table(
        ["who is right", "images", "share"],
        [[row["what"], f"{row['images']:,}", percent(held(row["share"], row["interval"]))] for row in record["rows"]],
    )
    effects = [
        [
            row["what"],
            each["property"],
            number(held(each["auc"], each["interval"])),
            chance(each, "adjusted"),
        ]
        for row in record["rows"]
        for each in row["effects"]
        if each["clear"]
    ]
    said = ["", record["words"]]
    if effects:
        said += ["", *table(["images where", "property", "AUC", "p, corrected"], effects)]
    return [*sets, *said]


def performances(run: Run) -> list[str]:
    """The model's own numbers, a row a data set; balanced accuracy first."""
    rows = []
    for record in rows_of(run, "performance"):
        by_name = {row["what"]: row for row in record["rows"]}
        rows.append(
            [
                record["data"],
                f"{record['images']:,}",
                f"**{percent(by_name['balanced accuracy'])}**",
                percent(by_name["accuracy"]),
                f"{100 * record['always']:.1f} %",
                f"{record['calibration']:.3f}",
            ]
        )
    heads = ["images", "number", "balanced accuracy", "accuracy", "always the commonest class", "calibration error"]
    return table(heads, rows)


def training(card: Mapping[str, Any]) -> list[str]:
    """What a tuned classifier was made of, and its numbers by one view of each image and by the mean over mirror images."""
    split, model = card["split"], card["model"]
    made = [
        ["model", f"{model['spec']}, {model['parameters']:,} parameters"],
        ["images", f"{split['train']:,} train, {split['held']:,} held out{split['unit']}"],
        ["recipe", f"`{card['recipe_spec']}`" if card["recipe_spec"] else "the default"],
        ["training", f"{card['seconds'] / 60:.0f} min of steps, {card['precision']}, {card['machine']}"],
    ]
    ways: list[list[str]] = []
    for name, found in (("held out", card["hold_out"]), ("test", card["test"])):
        if found is None:
            continue
        for each in (found, found["views"]):
            if each is not None:
                views = "one view" if each is found else f"{each['count']} mirror images"
                counts, totals = zip(
                    *((one["recall"] * one["pictures"], one["pictures"]) for one in each["classes"] if one["pictures"]),
                    strict=True,
                )
                balanced = held(each["balanced_accuracy"], wilson_mean(counts, totals))
                accuracy = held(each["accuracy"], each["accuracy_interval"])
                ways.append([f"{name}, {views}", percent(balanced), percent(accuracy)])
    return [
        *table(["what", "how"], made),
        "",
        *table(["images", "balanced accuracy", "accuracy"], ways),
    ]


def recalls(run: Run) -> list[str]:
    """Recall and precision of each class on each data set."""
    records = rows_of(run, "performance")
    held = [[row for row in record["rows"] if "class" in row] for record in records]
    heads = ["class", *(f"{what}, {record['data']}" for record in records for what in ("recall", "precision"))]
    rows = [
        [
            each[0]["class"],
            *(text for row in each for text in (f"{percent(row)} of {row['images']:,}", percent(row["precision"]))),
        ]
        for each in zip(*held, strict=True)
    ]
    return table(heads, rows)


def published(run: Run) -> list[str]:
    """Published results, and the one sentence that each data set's numbers allow beside each."""
    records = rows_of(run, "performance")
    first = records[0]["beside"]
    lines = table(
        ["published result", "who", "on what", "number", "source"],
        [
            [
                each["title"],
                each["population"],
                each["data"],
                f"{each['told']}" + ("" if each["of_people"] else "; **not a result of people**"),
                f"{each['source']} " + ", ".join(f"[link]({link})" for link in each["links"]),
            ]
            for each in first
        ],
    )
    for place, each in enumerate(first):
        lines += ["", f"**{each['title']}**", ""]
        lines += [f"- {record['data']}: {record['beside'][place]['words']}" for record in records]
        lines += [f"- {caveat}" for caveat in each["caveats"]]
    return lines


def worse(run: Run) -> list[str]:
    """Accuracy and balanced accuracy on images made worse."""
    rows: list[list[str]] = []
    records = rows_of(run, "worse")
    for each in zip(*(record["rows"] for record in records), strict=True):
        if each[0]["who"] != "model" or each[0]["kind"] == "condition":
            continue
        if each[0]["level"] is None and rows:
            continue
        rows.append(
            [
                each[0]["shown"],
                *(text for row in each for text in (f"{100 * row['balanced']:.1f} %", percent(row, "accuracy"))),
            ]
        )
    sets = [f"{record['data']} ({record['images']:,})" for record in records]
    heads = ["images", *(f"{what}, {name}" for name in sets for what in ("balanced", "accuracy"))]
    return table(heads, rows)


def held(value: float, interval: Sequence[float]) -> Row:
    """A value and its interval as rows have them."""
    return {"value": value, "low": interval[0], "high": interval[1]}


def word(row: Row, name: str) -> str:
    return str(row[name])


def whole(row: Row, name: str) -> str:
    return f"{row[name]:,}"


def plain(row: Row, name: str) -> str:
    return "–" if row[name] is None else f"{row[name]:.3f}"


def chance(row: Row, name: str) -> str:
    value = row[name]
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
