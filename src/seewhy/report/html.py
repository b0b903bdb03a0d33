"""The report: one HTML file that holds everything, made from a run's rows, arrays and pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from seewhy.errors import RunError
from seewhy.report.charts import SERIES
from seewhy.report.parts import Section, gradient
from seewhy.report.reading import Reading
from seewhy.report.sections import fooled, glance, learned, made, methods, missing, model, people, photographs
from seewhy.run.store import Run

#: the sections below the first, in order; one that has nothing to show answers None
SECTIONS: tuple[Callable[[Reading], Section | None], ...] = (
    learned.section,
    photographs.section,
    fooled.section,
    people.section,
    model.section,
    methods.section,
    missing.section,
    made.section,
)


def write(run: Run, path: str | os.PathLike[str] | None = None) -> Path:
    """Write a run's report, `report.html` in the run's directory by default, and answer its path.

    One file that needs nothing else: pictures, style and script are inside. The same run gives the same bytes. Raises
    `RunError` where the file cannot be written.
    """
    target = run.directory / "report.html" if path is None else Path(path)
    text = render(run)
    staged = target.with_name(f".{target.name}.part")
    try:
        staged.write_text(text, encoding="utf-8", newline="\n")
        os.replace(staged, target)
    except OSError as error:
        raise RunError(f"the report {target} cannot be written: {error.strerror or error}") from error
    return target


def render(run: Run) -> str:
    """A run's report as HTML."""
    environment = Environment(
        loader=PackageLoader("seewhy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["series"] = SERIES
    reading = Reading(run)
    lines = glance.all_lines(reading)
    below = [found for section in SECTIONS if (found := section(reading)) is not None]
    return environment.get_template("report.html").render(
        model=reading.model,
        count=sum(not line.error for line in lines),
        summary=glance.summary(reading, lines),
        sections=[glance.section(lines), *below],
        software=run.software,
        ramp=gradient("positive"),
        signed=gradient("signed"),
    )
