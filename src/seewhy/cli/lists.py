"""What there is, and what it is like: `seewhy methods`, `models`, `model`, `data` and `check`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import Machine, share, with_machine
from seewhy.cli.shell import FAILED, Command, Group, Shell, shell
from seewhy.errors import DataError, SpecError, nearest

if TYPE_CHECKING:
    from seewhy.classifier import Classifier
    from seewhy.data.images import Images
    from seewhy.data.sets import DataSet
    from seewhy.lens.network import Network
    from seewhy.method import Method


@click.command(
    cls=Command,
    short_help="The methods, and everything about one.",
    examples=["seewhy methods", "seewhy methods smoothgrad", "seewhy methods fgsm --json"],
)
@click.argument("name", required=False)
def methods(name: str | None) -> None:
    """List the methods, or tell everything about one: formula, options, units, cost, limits, source."""
    spoken = shell()
    from seewhy.method import registry

    known = registry()
    if name is None:
        rows = [(cls.room, each, cls.shows) for each, cls in sorted(known.items(), key=lambda kv: (kv[1].room, kv[0]))]
        document = {"methods": [_method(cls) for cls in known.values()]}
        spoken.answer(document, lambda: spoken.table(("room", "method", "what it shows"), rows))
        return
    wanted = name.partition(":")[0]
    if wanted not in known:
        raise SpecError(f'there is no method "{wanted}"{nearest(wanted, known) or "; there are: " + ", ".join(known)}')
    told = _method(known[wanted])

    def show() -> None:
        click.echo(f"{told['name']}  ({told['room']}): {told['shows']}\n{told['reading']}\n")
        for paragraph in (told["formula"], *told["about"]):
            click.echo(click.wrap_text(paragraph, width=100) + "\n")
        for part, said in told["parts"].items():
            click.echo(click.wrap_text(f"{part}: {said}", width=100, subsequent_indent="    "))
        click.echo()
        if told["options"]:
            spoken.table(("option", "takes", "default"), [tuple(option.values()) for option in told["options"]])
        else:
            click.echo("It has no options.")
        if told["example"]:
            click.echo(f"\n{told['example']}")

    spoken.answer(told, show)


@click.command(
    cls=Command,
    short_help="The models, and where others come from.",
    examples=["seewhy models", "seewhy models --json"],
)
def models() -> None:
    """List the models that are built in, and the sources that others come from."""
    spoken = shell()
    from seewhy import zoo

    listed = zoo.models()
    spoken.answer(
        {"models": [each._asdict() for each in listed]},
        lambda: spoken.table(
            ("model", "ready", "what it is"),
            [(each.spec, "yes" if each.installed else "no", each.sentence) for each in listed],
        ),
    )


@click.command(
    cls=Command,
    short_help="A network as the lens sees it.",
    examples=["seewhy model efficientnet-lite0", "seewhy model file:net.py:build@weights.safetensors --json"],
)
@click.argument("spec")
@with_machine
def model(spec: str, machine: Machine) -> None:
    """Show a model as the lens sees it: operations, shapes, receptive fields, cost, and what a lens has no rule for."""
    spoken = shell()
    from seewhy.lens.network import describe

    net = machine.load(spec, spoken)
    found = describe(net)
    document = {
        "name": net.name,
        "fingerprint": net.fingerprint,
        "classes": net.classes,
        "size": net.size,
        "mean": net.mean,
        "std": net.std,
        **asdict(found),
        "notes": [*net.notes, *found.notes],
    }
    spoken.answer(document, lambda: _show_network(spoken, net, found))


@click.group(cls=Group)
def data() -> None:
    """Fetch data sets, and see what is in them."""


@data.command(examples=["seewhy data get cifar10", "seewhy data get cifar10 --to data"])
@click.argument("name")
@click.option("--to", metavar="DIR", help="The folder to keep it in [default: the cache].")
def get(name: str, to: str | None) -> None:
    """Fetch the data set NAME, verify it, and tell where it is."""
    spoken = shell()
    from seewhy.data import get as fetch

    spoken.stopped = "nothing was kept; the same command begins again"
    with spoken.progress(f"fetching {name}") as tell:
        path = fetch(name, to, lambda done, total: tell(done, total, ""))
    spoken.answer({"name": name, "path": path, "bytes": path.stat().st_size}, lambda: click.echo(path))


@data.command("show", examples=["seewhy data show cifar10 --split test", "seewhy data show photos/ --json"])
@click.argument("spec")
@click.option("--split", metavar="NAME", help="The part of a data set, such as test.")
def show_data(spec: str, split: str | None) -> None:
    """Show what a data set holds: how many images, which classes, and what to know about it."""
    spoken = shell()
    from seewhy import data as room

    found = room.load(spec, split)
    counts = found.counts()
    document = {
        "name": found.name,
        "images": len(found),
        "classes": counts,
        "groups": len(set(found.groups)) if found.groups else None,
        "notes": found.notes,
        "first": list(found.names[:5]),
    }

    def show() -> None:
        grouped = f", {document['groups']:,} groups" if found.groups else ""
        click.echo(f"{found.name}: {len(found):,} images{grouped}")
        for note in found.notes:
            click.echo(f"note: {note}")
        if counts:
            spoken.table(("class", "images"), list(counts.items()))

    spoken.answer(document, show)


@click.command(
    cls=Command,
    short_help="The accuracy on labelled images.",
    examples=[
        "seewhy check cifar10-resnet20 cifar10 --split test --at-least 91.5%",
        "seewhy check efficientnet-lite0 labelled.csv --limit 500 --json",
    ],
)
@click.argument("model")
@click.argument("data_set", metavar="DATA")
@click.option("--at-least", metavar="SHARE", help="End with exit code 1 where the accuracy is below, such as 91.5%.")
@click.option("--split", metavar="NAME", help="The part of a data set, such as test.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N images, drawn by chance.")
@with_machine
def check(
    model: str, data_set: str, at_least: str | None, split: str | None, limit: int | None, machine: Machine
) -> None:
    """Measure how often MODEL is right on the labelled images of DATA, with a 95 % interval."""
    spoken = shell()
    wanted = None if at_least is None else share(at_least)
    from seewhy import data as room
    from seewhy.zoo.accuracy import accuracy, numbered

    found = room.load(data_set, split)
    net = machine.load(model, spoken)
    if found.labels is None:
        raise DataError(
            f"{found.name} has no true classes to check against; give a folder a class, or a table of labels"
        )
    found, notes = numbered(net, found)
    total = len(found)
    if limit is not None and limit < total:
        found = found.sample(limit)
        notes += (f"{len(found):,} of {total:,} images, drawn by chance (seed 0), each class with its share",)
    for note in notes:
        spoken.say(f"note: {note}")
    failed: list[dict[str, str]] = []
    with spoken.progress(f"checking {net.name}") as tell:
        right = accuracy(net, _batches(found, net, spoken, failed, lambda done: tell(done, len(found), "")))
    low, high = right.interval
    document = {
        "model": {"name": net.name, "fingerprint": net.fingerprint},
        "data": found.name,
        "images": right.total,
        "top1": right.top1,
        "interval": [low, high],
        "top5": right.top5,
        "failed": failed,
        "notes": notes,
    }
    spoken.answer(document, lambda: click.echo(f"{net.name} on {found.name}: {right}"))
    if wanted is not None and right.top1 < wanted:
        spoken.warn(f"top-1 {right.top1:.2%} is below {wanted:.2%}, which was asked for")
        click.get_current_context().exit(FAILED)


def _batches(
    found: DataSet, net: Classifier, spoken: Shell, failed: list[dict[str, str]], tell: Any, size: int = 64
) -> Iterator[Images]:
    """The labelled images in parts; those that cannot be read are said and left out."""
    from seewhy.data.images import Images

    held: list[Images] = []
    for position, (item, read) in enumerate(found.each(net.preprocess), 1):
        if isinstance(read, Exception) or item.label is None:
            sentence = str(read) if isinstance(read, Exception) else "has no true class"
            failed.append({"image": item.name, "error": sentence})
            spoken.failed(item.name, sentence)
        else:
            held.append(read)
        if held and (len(held) == size or position == len(found)):
            yield Images.join(held)
            held = []
            tell(position)


def _method(cls: type[Method]) -> dict[str, Any]:
    from seewhy.report.pages import page

    told = page(cls)
    return {
        "name": told.name,
        "room": told.room,
        "shows": told.shows,
        "reading": told.reading,
        "formula": told.formula,
        "about": told.about,
        "parts": dict(told.parts),
        "source": cls.source,
        "example": told.example,
        "bears_bf16": cls.bears_bf16,
        "options": [option._asdict() for option in told.options],
    }


def _show_network(spoken: Shell, net: Classifier, found: Network) -> None:
    from seewhy.units import count

    def across(pair: Sequence[float] | None) -> str:
        return "" if pair is None else "×".join(f"{each:.4g}" for each in pair)

    height, width = net.size
    click.echo(f"{net.name}: {height}×{width} pixels, {net.classes:,} classes, sha256 {net.fingerprint[:16]}…")
    click.echo(
        f"{count(found.parameters)} parameters, {count(found.multiply_adds)} multiply-adds an image, in "
        f"{len(found.rows)} operations"
    )
    spoken.table(
        ("operation", "shape", "window", "stride", "multiply-adds", "parameters"),
        [
            (
                row.address,
                across(row.shape[1:]),
                across(row.window),
                across(row.stride if row.stride and any(row.stride) else None),
                count(row.multiply_adds) if row.multiply_adds else "",
                count(row.parameters) if row.parameters else "",
            )
            for row in found.rows
        ],
    )
    for note in found.notes:
        click.echo(f"note: {note}")
    for lens, operations in found.lacking.items():
        click.echo(
            f"the {lens} lens " + (f"has no rule for {', '.join(operations)}" if operations else "has every rule")
        )
