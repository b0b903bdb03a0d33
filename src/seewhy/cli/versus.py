"""`versus`: is the model better than people?"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import DEFAULT_MODEL, Folder, Machine, open_images, with_folder, with_images, with_machine
from seewhy.cli.shell import Command, Shell, plain, shell
from seewhy.errors import DataError

if TYPE_CHECKING:
    from seewhy.classifier import Classifier
    from seewhy.data.sets import DataSet
    from seewhy.humans.agreement import Agreement
    from seewhy.humans.baselines import Baseline
    from seewhy.humans.match import LabelMap, Matched
    from seewhy.humans.performance import Performance
    from seewhy.humans.predict import Predictions
    from seewhy.humans.votes import Floats, Votes
    from seewhy.humans.worse import Point, Worse


@click.command(
    cls=Command,
    short_help="Is it better than people? Votes against predictions.",
    examples=[
        "seewhy versus --votes cifar10h-counts.npy --data cifar10 --model cifar10-resnet20",
        "seewhy versus --votes human-responses/ --data edges/ --label-map imagenet-to-16.csv --worse",
        "seewhy versus --baseline ham10000-experts --data ham10000:DIR --split test --model file:mine.py:build@mine.safetensors",
        "seewhy versus --baselines",
    ],
)
@click.option(
    "--votes", metavar="SPEC", help="A path, or counts:, table:, model-vs-human:, cifar10h:, cifar10n: and a path."
)
@click.option("--data", metavar="SPEC", help="The images that were voted for.")
@click.option("--model", "-m", default=DEFAULT_MODEL, show_default=True, metavar="SPEC", help="See `seewhy models`.")
@click.option("--label-map", metavar="CSV", help="The model's classes and people's categories, where they differ.")
@click.option(
    "--combine",
    type=click.Choice(["mean", "sum"]),
    default="mean",
    show_default=True,
    help="How the probabilities of a category's classes are put together.",
)
@click.option("--condition", metavar="NAME", help="Only what was answered in this condition.")
@click.option("--baseline", "names", multiple=True, metavar="NAME", help="Beside a published result, indirectly.")
@click.option("--baselines", "listing", is_flag=True, help="List the published results, and do nothing else.")
@click.option("--people", default="", metavar="WORDS", help="Who voted; it stands among the limits.")
@click.option("--truth", default="", metavar="WORDS", help="Where the true classes come from; so does this.")
@click.option(
    "--worse", "worsening", is_flag=True, help="Accuracy over blur, noise, contrast, JPEG and resolution, too."
)
@click.option("--drop-flagged", is_flag=True, help="Leave out flagged annotators and second answers.")
@click.option(
    "--rounds", type=click.IntRange(min=100), default=1000, show_default=True, help="Rounds of the bootstrap."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
@with_folder("seewhy-versus")
@with_images
@with_machine
def versus(
    votes: str | None,
    data: str | None,
    model: str,
    label_map: str | None,
    combine: str,
    condition: str | None,
    names: tuple[str, ...],
    listing: bool,
    people: str,
    truth: str,
    worsening: bool,
    drop_flagged: bool,
    rounds: int,
    seed: int,
    folder: Folder,
    split: str | None,
    limit: int | None,
    machine: Machine,
) -> None:
    """Compare a model with people: on the images that people voted for, or beside a published result.

    Writes what was measured to the folder: a table of the images, figures, everything in one JSON document, and the model's
    predictions, which are used again while model and images stay the same.
    """
    spoken = shell()
    from seewhy.humans.baselines import baseline, baselines

    if listing:
        _list(spoken, list(baselines().values()))
        return
    beside = [baseline(name) for name in names]
    if votes is None and not beside:
        raise click.UsageError("give --votes, or a --baseline; seewhy versus --baselines lists the published results")
    if data is None:
        raise click.UsageError("give the images with --data, as in seewhy versus --votes votes.csv --data photos/")
    found = open_images([data], split, limit if votes is None else None)
    folder.prepare(_FILES)
    for note in found.notes:
        spoken.say(f"note: {found.name}: {note}")
    wanted = _Wanted(label_map, combine, condition, drop_flagged, limit, rounds, seed, people, truth)
    if votes is None:
        work = _alone(spoken, machine, model, found, wanted, folder)
    else:
        work = _together(spoken, machine, model, found, votes, wanted, folder)
    if worsening:
        _worse(spoken, work, seed, folder)
    work.document["baselines"] = [_beside(work, each) for each in beside]
    work.document["files"] = work.files
    folder.file("versus.json").write_text(json.dumps(plain(work.document), ensure_ascii=False, indent=1) + "\n")
    work.files["document"] = folder.file("versus.json")
    spoken.say(f"{len(work.files)} files in {folder.path}")
    spoken.answer(work.document, lambda: _show(spoken, work))


#: what the command may write besides predictions, which it may always write anew
_FILES = ("versus.json", "images.csv", "accuracy.csv", "versus.png", "worse.png", "worse.csv")


@dataclass(frozen=True)
class _Wanted:
    """What the command was asked for."""

    label_map: str | None
    combine: str
    condition: str | None
    drop_flagged: bool
    limit: int | None
    rounds: int
    seed: int
    people: str
    truth: str


@dataclass
class _Work:
    """A comparison as it comes together: the model, the images with their true categories, and what is said of them."""

    net: Classifier
    data: DataSet
    labels: Sequence[int | None]
    map: LabelMap
    alone: Performance
    document: dict[str, Any]
    files: dict[str, Path]
    agreement: Agreement | None = None
    worse: Worse | None = None


def _together(
    spoken: Shell, machine: Machine, model: str, data: DataSet, spec: str, wanted: _Wanted, folder: Folder
) -> _Work:
    """People's votes and the model's predictions for the same images, compared."""
    from seewhy.humans.agreement import agreement
    from seewhy.humans.flags import flagged, without
    from seewhy.humans.load import load
    from seewhy.humans.match import matched, truth
    from seewhy.humans.tables import TABLES
    from seewhy.run.material import unseen

    votes = load(spec, data.names, data.classes)
    notes = list(votes.notes)
    if wanted.condition is not None:
        votes = votes.of_condition(wanted.condition)
        notes.append(f'only what was answered in the condition "{wanted.condition}"')
    fitting = matched(votes, data.names)
    left, said = unseen(data, model)
    if len(left) < len(data):
        allowed = set(left)
        kept_places = [row for row, place in enumerate(fitting.places.tolist()) if place in allowed]
        fitting = replace(fitting, votes=fitting.votes.subset(kept_places), places=fitting.places[kept_places])
    notes += said
    if wanted.limit is not None and len(fitting.votes) > wanted.limit:
        notes.append(f"the first {wanted.limit:,} of {len(fitting.votes):,} images")
        chosen = range(wanted.limit)
        fitting = replace(fitting, votes=fitting.votes.subset(chosen), places=fitting.places[: wanted.limit])
    data = data.subset(fitting.places.tolist())
    net = machine.load(model, spoken)
    map = _map(net, fitting.votes.classes, wanted)
    known, said = truth(fitting.votes, data.labels, map, data.classes)
    notes += [*fitting.notes(), *map.notes(), *said]
    _answerable(map, known)
    flags = flagged(fitting.votes, known)
    kept = fitting.votes
    if wanted.drop_flagged:
        kept, said = without(kept, flags)
        notes += said
    predictions = _predict(spoken, net, data, folder, notes)
    seen = [place for place, name in enumerate(data.names) if name not in predictions.failed]
    kept, labels, data = kept.subset(seen), [known[place] for place in seen], data.subset(seen)
    probabilities = map(predictions.probabilities[seen])
    told = data.name if data.labels is not None and any(label is not None for label in data.labels) else votes.name
    compared = agreement(
        replace(kept, notes=tuple(dict.fromkeys(notes))),
        probabilities,
        labels,
        rounds=wanted.rounds,
        seed=wanted.seed,
        model=net.name,
        people=wanted.people or _KNOWN.get(votes.name, ""),
        truth=wanted.truth or f"the labels of {told}; who made them, and from what, is not known here",
    )
    for flag in flags:
        spoken.warn(flag.sentence)
    document = {
        "model": {"name": net.name, "fingerprint": net.fingerprint, "spec": model},
        "data": {"name": data.name, "images": len(data)},
        "votes": _about_votes(spec, votes, fitting, kept),
        "label_map": {"source": map.source, "combine": map.combine, "categories": map.categories},
        "flags": [asdict(flag) for flag in flags],
        "agreement": compared.to_json(),
        "words": compared.words(),
    }
    alone = _measured(net, data, probabilities, labels, kept.classes)
    work = _Work(net, data, labels, map, alone, document, {}, compared)
    work.files["predictions"] = folder.file("predictions.npz")
    _rows(folder.file("images.csv"), kept, probabilities, labels)
    work.files["images"] = folder.file("images.csv")
    for name in TABLES:
        rows = compared.rows(name)
        if rows:
            _write(folder.file(f"{name}.csv"), rows)
            work.files[name] = folder.file(f"{name}.csv")
    for name, figure in _figures(compared):
        _draw(figure, folder.file(f"{name}.png"))
        work.files[f"figure: {name}"] = folder.file(f"{name}.png")
    return work


#: who voted in the sets that are known
_KNOWN = {
    "CIFAR-10H": "2,571 workers of Amazon Mechanical Turk, 200 images each, with checks of attention",
    "CIFAR-10N": "747 workers of Amazon Mechanical Turk, ten images a task",
}


def _figures(compared: Agreement) -> Iterator[tuple[str, Any]]:
    """What is drawn of a comparison, one at a time; `seewhy.report.people` has more."""
    from seewhy.report import people

    yield "versus", compared.plot()
    yield "confusions", people.confusions(compared)
    if compared.rates.conditions:
        yield "conditions", people.conditions(compared)


def _alone(spoken: Shell, machine: Machine, model: str, data: DataSet, wanted: _Wanted, folder: Folder) -> _Work:
    """The model alone, to be laid beside a published result."""
    from seewhy.run.material import unseen

    net = machine.load(model, spoken)
    if data.labels is None:
        raise DataError(
            f"{data.name} tells no true classes, without which nothing is right or wrong; give data with labels"
        )
    left, said = unseen(data, model)
    notes = list(said)
    data = data.subset(left)
    data = data.aligned(net.labels) if net.labels_given else data
    map = _map(net, net.labels, wanted)
    predictions = _predict(spoken, net, data, folder, notes)
    seen = [place for place, name in enumerate(data.names) if name not in predictions.failed]
    data = data.subset(seen)
    labels = list(data.labels or ())
    document = {
        "model": {"name": net.name, "fingerprint": net.fingerprint},
        "data": {"name": data.name, "images": len(data)},
        "notes": notes,
    }
    alone = _measured(net, data, predictions.probabilities[seen], labels, data.classes or net.labels)
    document |= {"accuracy": asdict(alone.accuracy), "performance": alone.record()}
    return _Work(net, data, labels, map, alone, document, {"predictions": folder.file("predictions.npz")})


def _map(net: Classifier, categories: Sequence[str], wanted: _Wanted) -> LabelMap:
    """The model's classes as people's categories: by the user's table, by name, or by number where the model has no names."""
    import numpy as np

    from seewhy.humans.match import LabelMap

    if wanted.label_map is not None:
        return LabelMap.read(Path(wanted.label_map).expanduser(), net.labels, categories, wanted.combine)  # type: ignore[arg-type]
    if not net.labels_given and net.classes == len(categories):
        return LabelMap(
            net.labels, tuple(categories), np.arange(net.classes), source="their order: the model has no names"
        )
    return replace(LabelMap.by_name(net.labels, categories), combine=wanted.combine)  # type: ignore[arg-type]


def _answerable(map: LabelMap, labels: Sequence[int | None]) -> None:
    """Raise `DataError` where the model could never be right about an image."""
    shown = {map.categories[label] for label in labels if label is not None}
    lost = [name for name in map.missing if name in shown]
    if lost:
        raise DataError(
            f"no class of the model belongs to {', '.join(lost)}, which images show: it could never be right about them; "
            "complete the label map, or leave these images out"
        )


def _predict(spoken: Shell, net: Classifier, data: DataSet, folder: Folder, notes: list[str]) -> Predictions:
    from seewhy.humans.predict import predicted

    with spoken.progress("predicting") as tell:
        found = predicted(net, data, folder.path, tell)
    if found.kept:
        notes.append(f"the predictions of {net.name} were taken from {folder.path}: model and images are the same")
    if found.failed:
        notes.append(f"images that cannot be read, left out: {len(found.failed):,}")
        for name, sentence in list(found.failed.items())[:5]:
            spoken.failed(name, sentence)
    return found


def _worse(spoken: Shell, work: _Work, seed: int, folder: Folder) -> None:
    """Accuracy over worse images, written and drawn, beside people's conditions."""
    from seewhy.humans.worse import worse

    people, beside = _conditions(work)
    with spoken.progress("worse images") as tell:
        work.worse = worse(
            work.net, work.data, work.labels, work.map, seed=seed, people=people, beside=beside, progress=tell
        )
    rows = work.worse.table()
    work.document["worse"] = {"rows": rows, "words": work.worse.words()}
    _draw(work.worse.plot(), folder.file("worse.png"))
    _write(folder.file("worse.csv"), rows)
    work.files |= {"worse": folder.file("worse.png"), "worse_table": folder.file("worse.csv")}


def _conditions(work: _Work) -> tuple[list[Point], list[Point]]:
    """People's points and the model's, condition by condition, as the comparison measured them."""
    from seewhy.humans.worse import Point

    parts = work.agreement.rates.conditions if work.agreement else ()
    people = [Point(part.name, None, part.people, part.images) for part in parts]
    return people, [Point(part.name, None, part.network, part.images) for part in parts]


def _beside(work: _Work, each: Baseline) -> dict[str, Any]:
    return {
        "name": each.name,
        "title": each.title,
        "people": each.of_people,
        "indirect": True,
        "value": each.value,
        "interval": each.interval,
        "interval_by": each.interval_by,
        "source": each.source,
        "links": each.links,
        "caveats": each.caveats,
        "words": work.alone.beside(each),
    }


def _about_votes(spec: str, votes: Votes, fitting: Matched, kept: Votes) -> dict[str, Any]:
    return {
        "spec": spec,
        "name": votes.name,
        "images": len(kept),
        "votes": int(kept.counts.sum()),
        "annotators": len(kept.annotators) or None,
        "classes": votes.classes,
        "conditions": votes.conditions,
        "not_in_data": fitting.strangers,
        "without_votes": fitting.silent,
    }


def _measured(
    net: Classifier, data: DataSet, probabilities: Floats, labels: Sequence[int | None], classes: Sequence[str]
) -> Performance:
    """The model's own numbers on the images whose true class is known."""
    from seewhy.humans.performance import performance

    known = [(row, label) for row, label in enumerate(labels) if label is not None]
    if not known:
        raise DataError("no image that can be read has a true class, so that nothing is right or wrong")
    rows, true = zip(*known, strict=True)
    return performance(probabilities[list(rows)], true, classes, data=data.name, model=net.name)


def _rows(path: Path, votes: Votes, probabilities: Floats, labels: Sequence[int | None]) -> None:
    """A row an image: the truth, the model's answer, people's, and by how much."""
    shares, total = votes.shares(), votes.counts.sum(1)
    answers, most = probabilities.argmax(1), votes.counts.argmax(1)
    rows = []
    for row, (name, label) in enumerate(zip(votes.images, labels, strict=True)):
        tied = int((votes.counts[row] == votes.counts[row].max()).sum()) > 1
        rows.append(
            {
                "image": name,
                "true": "" if label is None else votes.classes[label],
                "model": votes.classes[answers[row]],
                "model_probability": f"{probabilities[row, answers[row]]:.6g}",
                "model_probability_true": "" if label is None else f"{probabilities[row, label]:.6g}",
                "people": "" if tied or not total[row] else votes.classes[most[row]],
                "people_share": f"{shares[row, most[row]]:.6g}" if total[row] else "",
                "people_share_true": "" if label is None or not total[row] else f"{shares[row, label]:.6g}",
                "votes": int(total[row]),
            }
        )
    _write(path, rows)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def _draw(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=150)


def _list(spoken: Shell, known: Sequence[Baseline]) -> None:
    """The published results."""
    document = {"baselines": [asdict(each) | {"of_people": each.of_people, "links": each.links} for each in known]}

    def show() -> None:
        spoken.table(
            ("name", "what", "result", "year"), [(each.name, each.title, each.told(), each.year) for each in known]
        )
        for each in known:
            click.echo(f"\n{each.name}: {each.population}; {each.data}\n  {each.task}: {each.told()}")
            click.echo("".join(f"  {line}\n" for line in (each.source, *each.links)), nl=False)
            for other in each.beside:
                click.echo(f"  beside it: {other.who}: {100 * other.value:.4g} %")
            for caveat in each.caveats:
                click.echo(f"  - {caveat}")

    spoken.answer(document, show)


def _show(spoken: Shell, work: _Work) -> None:
    """The tables and the verdict, for people to read."""
    if work.agreement is None:
        click.echo(work.alone.words())
        for note in work.document["notes"]:
            click.echo(f"Note: {note}.")
    else:
        for name, title in _SHOWN.items():
            rows = work.agreement.rows(name)
            if rows:
                columns, cells = _cells(rows[:_MOST])
                more = f", the first {_MOST} of {len(rows):,}" if len(rows) > _MOST else ""
                spoken.table(columns, cells, title=f"{title}{more}")
                click.echo()
        click.echo("\n".join(work.agreement.words()))
    if work.worse is not None:
        click.echo("\nUnder worse images:")
        click.echo("\n".join(work.worse.words()))
    for each in work.document["baselines"]:
        click.echo(f"\n{each['words']}")
        for caveat in each["caveats"]:
            click.echo(f"  - {caveat}")


#: the tables that are printed, and how many rows at most; all are written
_SHOWN = {
    "accuracy": "How often who is right",
    "classes": "By class",
    "conditions": "By condition",
    "consistency": "Do they err alike, and do people agree?",
    "calibration": "Is confidence worth what it says?",
}
_MOST = 24


def _cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Rows of plain values as columns to read: a value with its two ends is one cell."""
    ends = {f"{name} {end}" for name in rows[0] for end in ("low", "high")}
    columns = [name for name in rows[0] if name not in ends]

    def cell(row: dict[str, Any], name: str) -> str:
        value = row[name]
        if not isinstance(value, float):
            return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        if not math.isfinite(value):
            return "–"
        if name in ("p", "p (Holm)"):
            return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
        low, high = row.get(f"{name} low", math.nan), row.get(f"{name} high", math.nan)
        return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) else "")

    return columns, [[cell(row, name) for name in columns] for row in rows]
