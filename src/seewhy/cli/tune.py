"""`seewhy tune`: a classifier for one's own pictures, made from one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seewhy.cli.options import Machine, with_model, writable
from seewhy.cli.shell import Command, shell
from seewhy.errors import SpecError
from seewhy.units import seconds


@click.command(
    cls=Command,
    short_help="Fine-tune a model on your own pictures; saves a classifier and its card.",
    examples=[
        "seewhy tune ham10000 --data HAM10000/ --out skin",
        "seewhy tune ham10000 --data HAM10000/ --out skin --test-split test",
        "seewhy tune photos/ --model torchvision:resnet18 --out mine --recipe epochs=3+5,lr=0.0003",
        "seewhy tune csv:train.csv --test csv:test.csv --out mine --recipe imbalance=loss,balance=0,patience=4",
    ],
)
@click.argument("name", metavar="DATA")
@click.option("--data", "folder", metavar="DIR", help="Where the data set lies, if DATA is the name of a format.")
@click.option("--split", metavar="NAME", help="The part of the data set to train on, such as train.")
@with_model
@click.option("--out", default="seewhy-tune", show_default=True, metavar="DIR", help="The classifier's folder.")
@click.option(
    "--recipe", default="", metavar="OPTIONS", help="What is to differ from the defaults, `lr=0.001,epochs=2+3`."
)
@click.option("--test", metavar="DATA", help="Measure on this labelled set too, once, at the end.")
@click.option("--test-split", metavar="NAME", help="The part of it, or of DATA, such as test.")
@click.option("--licence", default="", metavar="TEXT", help="The data's licence, for the model card.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1, …")
@click.option("--trust-pickle", is_flag=True, help="Read weights that could run code; only from makers you know.")
def tune(
    name: str,
    folder: str | None,
    split: str | None,
    model: str,
    out: str,
    recipe: str,
    test: str | None,
    test_split: str | None,
    licence: str,
    device: str,
    trust_pickle: bool,
) -> None:
    """Tune a model on DATA, a data set with classes: a folder of folders, a table, or the name of a format.

    A part is held out, by group and class, and measured at the end: balanced accuracy and each class's recall first, with
    intervals. The same command again goes on where it was stopped, to the same weights. The folder holds the classifier (`--model
    file:DIR` for every command), MODEL-CARD.md, card.json and predictions.csv.
    """
    spoken = shell()
    from seewhy import data
    from seewhy.data.load import FORMATS
    from seewhy.tune.recipe import Recipe

    wanted = Recipe.parse(recipe)
    directory = Path(out).expanduser()
    if folder is not None and name.lower() not in FORMATS:
        raise SpecError(f"--data goes with the name of a format ({', '.join(FORMATS)}), got {name}")
    spec = name if folder is None else f"{name}:{folder}"
    given = data.load(spec, split)
    tested = None
    if test is not None or test_split is not None:
        tested = data.load(test or spec, test_split)
        if test is None and test_split == split:
            raise SpecError("--test-split names the part that is trained on; give another")
    writable(directory)
    for note in given.notes:
        spoken.say(f"note: {given.name}: {note}")
    from seewhy.tune import tune as carry_out

    spoken.stopped = "the same command again goes on from here"
    with spoken.progress("tuning") as tell:
        tuned = carry_out(
            given,
            model,
            directory,
            wanted,
            test=tested,
            licence=licence,
            engine=Machine(device, "float32", None, trust_pickle).engine(),
            trust_pickle=trust_pickle,
            progress=tell,
        )
    card = tuned.card

    def show() -> None:
        for title, found in (("hold-out", card["hold_out"]), ("test", card["test"])):
            if found:
                spoken.table(
                    ("class", "pictures", "recall", "95 % interval"),
                    list(map(_line, found["classes"])),
                    _title(title, found),
                )
                click.echo("")
        click.echo(f"classifier: {tuned.spec}\ncard: {directory / 'MODEL-CARD.md'}")

    spoken.answer({"classifier": tuned.spec, "folder": directory, **card}, show)
    for note in (*card["notes"], *((card["test"] or {}).get("data", {}).get("notes", ()))):
        spoken.say(f"note: {note}")
    for image, why in card["data"]["left_out"]:
        spoken.failed(image, why)
    spoken.say(f"{seconds(card['seconds'])} of training steps in {card['precision']}")


def _title(title: str, found: dict[str, Any]) -> str:
    low, high = found["balanced_accuracy_interval"]
    below, above = found["accuracy_interval"]
    return (
        f"{title}, {found['pictures']:,} pictures: balanced accuracy {found['balanced_accuracy']:.1%} ({low:.1%} to {high:.1%}), "
        f"accuracy {found['accuracy']:.1%} ({below:.1%} to {above:.1%})"
    )


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    interval = "" if row["recall"] is None else "{:.1%} to {:.1%}".format(*row["recall_interval"])
    return row["name"], f"{row['pictures']:,}", "–" if row["recall"] is None else f"{row['recall']:.1%}", interval
