"""How the report was made, and where its data is."""

from __future__ import annotations

import json
import shlex

from seewhy import units
from seewhy.report.parts import Section
from seewhy.report.reading import Reading


def section(reading: Reading) -> Section:
    """The section."""
    run = reading.run
    return Section(
        "made",
        "How this was made",
        "made.html",
        {
            "seconds": units.seconds(run.seconds()),
            "notes": [str(each) for each in (*run.plan.get("notes", []), *run.notes())],
            "plan": json.dumps(run.plan, indent=2, ensure_ascii=False, sort_keys=True),
            "command": command(reading),
            "credits": [(image.name, image.record["credit"]) for image in reading.images if image.record.get("credit")],
            "directory": run.directory.name,
        },
    )


def command(reading: Reading) -> str:
    """The command that makes this run again."""
    asked = reading.run.plan.get("asked", {})
    data = asked.get("data", [])
    parts = ["seewhy", "audit", *map(str, data if isinstance(data, list) else [data])]
    parts += ["--model", str(asked.get("model") or reading.identity.get("name") or reading.model)]
    for name, option in (("classes", "--class"), ("methods", "--method")):
        for value in asked.get(name) or []:
            parts += [option, str(value)]
    parts += ["--full"] if asked.get("budget") is None else ["--budget", f"{asked['budget']:g}s"]
    if asked.get("limit"):
        parts += ["--limit", str(asked["limit"])]
    people = asked.get("people") or {}
    for value, option in (
        *((asked.get(name), f"--{name.replace('_', '-')}") for name in ("split", "masks", "votes", "label_map")),
        *((name, "--baseline") for name in people.get("baselines", [])),
        (people.get("who"), "--people"),
        (people.get("truth"), "--truth"),
        (people.get("combine") if people.get("combine") != "mean" else None, "--combine"),
    ):
        parts += [option, str(value)] if value else []
    if asked.get("precision", "float32") != "float32":
        parts += ["--precision", str(asked["precision"])]
    for name, value in (asked.get("machine") or {}).items():
        parts += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join([*parts, "--out", reading.run.directory.name])
