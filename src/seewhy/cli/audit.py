"""`seewhy audit` and `seewhy report`: everything there is, in one directory, and the report made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seewhy.cli.options import Machine, with_machine, with_model, writable
from seewhy.cli.shell import Command, shell
from seewhy.errors import RunError
from seewhy.units import duration, seconds


@click.command(
    cls=Command,
    short_help="Everything there is, in one report. Start here.",
    examples=[
        "seewhy audit",
        "seewhy audit cat.jpg dog.png --out cats-and-dogs --budget 2m",
        "seewhy audit photos/ --model timm:resnet18.a1_in1k --class tabby --full",
        "seewhy audit cifar10 --model cifar10-resnet20 --limit 20 --method grad-cam --method fgsm",
        "seewhy audit drawings/ --masks silhouettes/ --limit 4",
        "seewhy audit cifar10 --model cifar10-resnet20 --votes cifar10h-counts.npy --baseline cifar10h",
    ],
)
@click.argument("images", nargs=-1)
@with_model
@click.option("--out", default="seewhy-audit", show_default=True, metavar="DIR", help="The run's directory.")
@click.option("--budget", default="2m", show_default=True, metavar="TIME", help="Choose what fits into this time.")
@click.option("--full", is_flag=True, help="Leave nothing out, however long it takes.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Explain this class too, by name or index.")
@click.option("--method", "specs", multiple=True, metavar="SPEC", help="These methods only [default: all that fit].")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Explain at most N images, drawn by chance.")
@click.option("--split", metavar="NAME", help="The part of a data set, such as test.")
@click.option("--masks", metavar="DIR", help="Masks under the images' names: name units by what they show.")
@click.option("--votes", metavar="SPEC", help="People's answers to these images; see `seewhy versus --help`.")
@click.option("--label-map", metavar="CSV", help="The model's classes and people's categories, where they differ.")
@click.option(
    "--combine",
    type=click.Choice(["mean", "sum"]),
    default="mean",
    show_default=True,
    help="How the probabilities of a category's classes are put together.",
)
@click.option("--baseline", "names", multiple=True, metavar="NAME", help="Beside a published result of people.")
@click.option("--people", default="", metavar="WORDS", help="Who voted; it stands among the limits.")
@click.option("--truth", default="", metavar="WORDS", help="Where the true classes come from; so does this.")
@with_machine
def audit(
    images: tuple[str, ...],
    model: str,
    out: str,
    budget: str,
    full: bool,
    classes: tuple[str, ...],
    specs: tuple[str, ...],
    limit: int | None,
    split: str | None,
    masks: str | None,
    votes: str | None,
    label_map: str | None,
    combine: str,
    names: tuple[str, ...],
    people: str,
    truth: str,
    machine: Machine,
) -> None:
    """Look at IMAGES through a model in every way there is, and write report.html beside the open data.

    IMAGES are photographs, folders or data sets; without any, four photographs that come with scikit-image. What the model
    learned is looked at on as many of them as the budget allows, also where fewer are explained one by one. The same
    command again finishes a run that was stopped, without doing anything twice.

    With --votes or --baseline the model answers all labelled images, within the budget, and the report says whether it is
    better than people; --limit is for the photographs that are looked at one by one.
    """
    spoken = shell()
    limit_of_time = None if full else duration(budget)
    directory = Path(out).expanduser()
    from seewhy.report.html import write
    from seewhy.run import Asked, summary
    from seewhy.run import audit as carry_out

    writable(directory)
    net = machine.load(model, spoken)
    spoken.stopped = "the same command again goes on from here"
    with spoken.progress("auditing") as tell:
        carried_out = carry_out(
            net,
            images,
            directory,
            spec=model,
            classes=classes,
            methods=specs,
            budget=limit_of_time,
            limit=limit,
            split=split,
            people=Asked(votes, label_map, combine, names, people, truth),  # type: ignore[arg-type]
            masks=masks,
            machine=machine.said(),
            progress=tell,
        )
    with carried_out as run:
        report = write(run)
        found = summary(run)
    known = {"set": "all images", "stand-in": "the other model"}
    known |= {image["id"]: image["name"] for image in found["images"]}
    for image in found["images"]:
        if image["status"] != "ok":
            spoken.failed(image["name"], image["error"])
    for each in found["failed"]:
        spoken.failed(f"{known.get(each['image'], 'the model')}, {each['step']}", each["error"])

    def show() -> None:
        spoken.table(("image", "decision", "probability", "fooled by a change of"), list(map(_line, found["images"])))
        for sentence in found["people"]:
            click.echo(f"\n{sentence}")
        click.echo(f"\nreport: {report}")

    spoken.answer({**found, "report": report}, show)
    for sentence in found["notes"]:
        spoken.say(f"note: {sentence}")
    for sentence in found["left_out"]:
        spoken.say(f"left out: {sentence}")
    spoken.say(f"{seconds(found['seconds'])} of work; everything is in {directory}")


@click.command(
    cls=Command,
    short_help="Write an audit's report anew.",
    examples=["seewhy report seewhy-audit", "seewhy report seewhy-audit --out shared.html"],
)
@click.argument("run")
@click.option("--out", metavar="FILE", help="Where to write it [default: report.html in the run].")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def report(run: str, out: str | None, overwrite: bool) -> None:
    """Write the report of RUN, a directory that an audit left, anew."""
    spoken = shell()
    from seewhy.report.html import write
    from seewhy.run import Run, unfinished

    with Run.open(Path(run).expanduser()) as opened:
        path = Path(out).expanduser() if out else opened.directory / "report.html"
        if path.is_dir():
            raise RunError(f"{path} is a folder; give a file, such as {path / 'report.html'}")
        if out and path.exists() and not overwrite:
            raise RunError(f"{path} would be overwritten; choose another file with --out, or say --overwrite")
        writable(path.parent)
        write(opened, path)
        left = unfinished(opened)
    if left:
        spoken.warn(left.words)
    spoken.answer({"report": path, "unfinished": left.words}, lambda: click.echo(f"report: {path}"))


def _line(image: dict[str, Any]) -> tuple[str, ...]:
    """What the model says of an image, and the smallest change that an attack found."""
    from seewhy.report.words import size

    if image["status"] != "ok":
        return image["name"], f"failed: {image['error']}", "", ""
    top = image["top"][0] if image["top"] else None
    norm = next(
        (each["norm"] or "linf" for each in image["attacks"] if each["fooled"]), None
    )  # others cannot be compared
    sizes = [each["smallest_eps"] for each in image["attacks"] if each["fooled"] and (each["norm"] or "linf") == norm]
    fooled = size(min(sizes), norm) if norm else "nothing that was tried" if image["attacks"] else "not tried"
    if any(each["wrong_at_start"] for each in image["attacks"]):
        fooled = "wrong from the start"
    return image["name"], top["label"] if top else "", f"{top['probability']:.1%}" if top else "", fooled
