"""What the plan of a run asks for and its rows lack: it was stopped, or it still goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.run.comparing import answers_of, in_parts
from seewhy.run.pace import roles
from seewhy.run.store import MODEL, Result, Run

Plain = Mapping[str, Any]
Rows = Mapping[str, Result]


@dataclass(frozen=True)
class Unfinished:
    """What is still to be done: the names of the images that were not looked at, of `planned`, and steps (of what, which)."""

    planned: int = 0
    images: tuple[str, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.images or self.steps)

    @property
    def words(self) -> str:
        """Two sentences for a reader, empty where nothing is missing."""
        images, steps = len(self.images), len(self.steps)
        said = []
        if images:
            of = f"{self.planned:,} photograph{'' if self.planned == 1 else 's'}"
            said.append(f"{images:,} of {of} {'was' if images == 1 else 'were'} not looked at yet")
        if steps:
            said.append(f"{steps:,} {'step is' if steps == 1 else 'steps are'} still to be done")
        return f"This run is not finished: {' and '.join(said)}. The same command goes on with it." if said else ""


def unfinished(run: Run) -> Unfinished:
    """What is missing in a run. Steps that failed are no part of it, nor those that depend on one that is still to come.

    Nothing where the plan names no methods.
    """
    plan = run.plan
    if "methods" not in plan:
        return Unfinished()
    there = {row.id: row for row in run.images()}
    images: list[str] = []
    steps: list[tuple[str, str]] = []
    answered = False

    def rows_of(what: str) -> dict[str, Result]:
        return {row.step: row for row in run.results(what)}

    def compare(what: str, rows: Rows, expected: Iterable[str]) -> None:
        steps.extend((what, step) for step in expected if step not in rows)

    rows = rows_of(MODEL)
    compare(MODEL, rows, _of_model(plan, rows))
    for image in plan["images"]:
        row, rows = there.get(image["id"]), rows_of(image["id"])
        if row is None or (row.ok and "predict" not in rows):
            images.append(image["name"])
        elif row.ok and rows["predict"].ok:
            answered = True
            compare(row.id, rows, _of_image(plan, image, rows))
    for each in plan.get("sets", ()):
        rows = rows_of(each["id"])
        compare(each["id"], rows, _of_set(each, rows, answered))
    return Unfinished(len(plan["images"]), tuple(images), tuple(steps))


def _of_model(plan: Plain, rows: Rows) -> Iterator[str]:
    """The steps about the model alone, and those beside people."""
    yield "identity"
    yield from _specs(plan, "look", "filters")
    people = plan.get("people")
    if people is None:
        return
    yield from map(answers_of, in_parts(people["images"]))
    yield _like(rows, "performance:")
    if plan["asked"].get("votes") is not None:
        yield from ("agreement", "parting")
        if _done(rows, "parting"):
            yield from (f"case:{number}" for number, _ in enumerate(rows["parting"].record["cases"], 1))
    if people.get("worse"):
        yield _like(rows, "worse:")


def _of_image(plan: Plain, image: Plain, rows: Rows) -> Iterator[str]:
    """The steps on an image whose answer is known."""
    top = [each["index"] for each in rows["predict"].record["top"]]
    wanted = roles(top, image["label"], plan["asked"]["classes"])
    yield from (f"{spec}@{index}" for spec in _specs(plan, "explain") for index in wanted)
    attacks = list(_specs(plan, "attack"))
    yield from attacks
    yield from _specs(plan, "look", "activations")
    if not attacks:
        return
    again = {top[0]}
    if _done(rows, attacks[0]) and rows[attacks[0]].record["fooled"]:
        yield f"why {attacks[0]}"
        again.add(rows[attacks[0]].record["after"]["index"])
    yield from (f"after {spec}@{index}" for index in sorted(again) for spec in _specs(plan, "after"))


def _of_set(planned: Plain, rows: Rows, answered: bool) -> Iterator[str]:
    """The steps on a set as a whole; which images are optimised follows from what was found before."""
    if planned["model"] is not None:
        yield "identity"
    made = [look for look in planned["look"] if look["name"] == "maximize"]
    yield from (look["spec"] for look in planned["look"] if look not in made)
    for look in made:
        if look.get("objective") is not None:
            yield look["spec"]
            continue
        if answered:
            yield _like(rows, "maximize:objective=logit(", _ending(look))
        for row in rows.values():
            if row.ok and row.step.startswith("exemplars"):
                for layer in row.record["layers"]:
                    end = ";" if layer["drawn"] else ")"
                    yield _like(rows, f"maximize:objective=channel({layer['layer']}{end}", _ending(look))


def asked_for(looks: Sequence[Plain], step: str) -> str:
    """The spec of the look that a step optimises images for: its own, or one without an objective, which leaves that open."""
    bare = (look for look in looks if look.get("objective") is None and step.endswith(_ending(look)))
    return next((look["spec"] for look in looks if look["spec"] == step), next((look["spec"] for look in bare), ""))


def _ending(look: Plain) -> str:
    """How the steps of a look end that has no objective of its own: with that of the step, and its other settings."""
    settings = look["spec"].partition(":")[2]
    return f"),{settings}" if settings else ")"


def _specs(plan: Plain, room: str, name: str = "") -> Iterator[str]:
    """The specs of a plan's methods in one room, or those of one name."""
    return (each["spec"] for each in plan["methods"][room] if not name or each["name"] == name)


def _done(rows: Rows, step: str) -> bool:
    return step in rows and rows[step].ok


def _like(rows: Rows, beginning: str, ending: str = "") -> str:
    """The step that begins and ends so; where there is none, its beginning and its end stand for it."""
    found = (step for step in rows if step.startswith(beginning) and step.endswith(ending))
    return next(found, f"{beginning}…{ending}")
