"""How is it fooled? Every attack, counted over the photographs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from seewhy import units
from seewhy.attack.why_it_fails import paragraph
from seewhy.intervals import wilson
from seewhy.report import charts, words
from seewhy.report.parts import Section, middle
from seewhy.report.reading import Reading
from seewhy.report.sections.attacked import Failing, growth
from seewhy.run.store import Result


@dataclass(frozen=True)
class Fooling:
    """What all attacks came to on all photographs: their curves by norm, a row an attack, and why one, the `lead`, succeeds.

    `apart` photographs, misclassified from the start, are in none of these.
    """

    charts: tuple[tuple[str, tuple[str, ...], Markup], ...]
    rows: tuple[tuple[str, ...], ...]
    why: Failing | None
    lead: str
    apart: str


def section(reading: Reading) -> Section | None:
    """The section, None where nothing was attacked."""
    found = fooling(reading)
    return None if found is None else Section("fooled", "How is it fooled?", "fooled.html", {"fooling": found})


def fooling(reading: Reading) -> Fooling | None:
    """What all attacks came to, counted over the photographs that were not misclassified from the start."""
    by_spec: dict[str, list[Result]] = {}
    why, wrong = [], 0
    for image in reading.images:
        if reading.wrong(image.id):
            wrong += any(row.ok and "p_before" in row.record for row in reading.of(image.id))
            continue
        for row in reading.of(image.id):
            if row.ok and "p_before" in row.record:
                by_spec.setdefault(row.record["method"], []).append(row)
            elif row.ok and "diagnosis" in row.record:
                why.append(row.record)
    if not by_spec and not wrong:
        return None
    apart = f"{words.many(wrong, 'photograph is', 'photographs are')} misclassified from the start" if wrong else ""
    if not by_spec:
        return Fooling((), (), None, "", apart)
    values = 3 * math.prod(reading.identity.get("size", [224, 224]))
    titles = [words.title(spec) for spec in by_spec]
    named = {spec: title if titles.count(title) == 1 else spec for spec, title in zip(by_spec, titles, strict=True)}
    by_norm: dict[str, list[charts.Course]] = {}
    rows = []
    for spec, found in by_spec.items():
        norm = found[0].record.get("norm", "linf")
        sizes = [row.record["smallest_eps"] for row in found]
        largest = [max(row.record["eps"]) for row in found]
        standing = [most for most, size in zip(largest, sizes, strict=True) if size is None]
        tried = min(standing or [max(largest)])  # beyond it one was not
        course = charts.Course(named[spec], tuple(sizes), tried)
        by_norm.setdefault(norm, []).append(course)
        there = sum(size is not None for size in sizes)
        low, high = wilson(there, len(sizes))
        halfway = median(math.inf if size is None else size for size in sizes)
        times = [timing.seconds for row in found if (timing := reading.run.timing(row.image, row.step)) is not None]
        rows.append(
            (
                named[spec],
                words.NORMS[norm],
                f"{there} of {len(sizes)}",
                f"{100 * low:.0f} to {100 * high:.0f}{words.NBSP}%",
                "not reached" if math.isinf(halfway) else words.size(halfway, norm, values),
                middle([row.record["cost"]["forward"] for row in found]),
                middle([row.record["cost"]["backward"] for row in found]),
                units.seconds(median(times)) if times else "–",
            )
        )
    drawn = []
    for norm, courses in by_norm.items():
        told = words.listed(
            [
                f"{each.name} fools {sum(size is not None for size in each.smallest)} of {len(each.smallest)}"
                for each in courses
            ]
        )
        title = f"Share of photographs whose decision stays, against ε in {words.NORMS[norm]}"
        chart = charts.accuracy(f"accuracy-{norm}", courses, norm, values, title, f"{told}.")
        drawn.append((title, tuple(each.name for each in courses), chart))
    failing, lead = None, ""
    if why:
        lead = why[0]["attack"]
        looked_into = [record["diagnosis"] for record in why if record["attack"] == lead]
        of = by_spec[lead]
        there = sum(row.record["smallest_eps"] is not None for row in of)
        where = words.many(len(looked_into), "photograph")
        failing = Failing(paragraph(looked_into, len(of), there), growth("growth", looked_into, where))
    return Fooling(tuple(drawn), tuple(rows), failing, named.get(lead, ""), apart)
