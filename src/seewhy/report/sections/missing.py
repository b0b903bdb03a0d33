"""What was left out, what failed, and what is still to be done."""

from __future__ import annotations

from seewhy.report import words
from seewhy.report.parts import Section
from seewhy.report.reading import Reading

#: names of photographs that were not looked at yet, and steps of one thing that are still to be done, which are listed
_NAMES, _STEPS = 40, 20


def section(reading: Reading) -> Section:
    """The section."""
    return Section(
        "missing",
        "Left out and failed",
        "missing.html",
        {
            "left_out": [str(each) for each in reading.run.plan.get("left_out", [])],
            "failed": failures(reading),
            "unfinished": reading.unfinished.words,
            "to_do": to_do(reading),
        },
    )


def failures(reading: Reading) -> list[tuple[str, str, str]]:
    """(what, step, why) of every row that failed."""
    found = [(image.name, "reading it", image.error or "") for image in reading.images if not image.ok]
    for image, rows in reading.rows.items():
        found += [(reading.named(image), row.step, row.error or "") for row in rows if not row.ok]
    return found


def to_do(reading: Reading) -> list[str]:
    """What is still to be done: the photographs that were not looked at yet, and the steps of the others."""
    left = reading.unfinished
    steps: dict[str, list[str]] = {}
    for what, step in left.steps:
        steps.setdefault(reading.named(what), []).append(step)
    found = [f"not looked at yet: {words.some(left.images, _NAMES)}"] if left.images else []
    return found + [f"{name}: {words.some(each, _STEPS)}" for name, each in steps.items()]
