"""What was left out, and what failed."""

from __future__ import annotations

from seewhy.report.parts import Section
from seewhy.report.reading import Reading


def section(reading: Reading) -> Section:
    """The section."""
    left_out = [str(each) for each in reading.run.plan.get("left_out", [])]
    return Section(
        "missing", "Left out and failed", "missing.html", {"left_out": left_out, "failed": failures(reading)}
    )


def failures(reading: Reading) -> list[tuple[str, str, str]]:
    """(what, step, why) of every row that failed."""
    found = [(image.name, "reading it", image.error or "") for image in reading.images if not image.ok]
    for image, rows in reading.rows.items():
        found += [(reading.named(image), row.step, row.error or "") for row in rows if not row.ok]
    return found
