"""`seewhy explain`: one method, or a few, on a few images; pictures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import (
    Folder,
    Machine,
    open_images,
    slug,
    stems,
    with_folder,
    with_images,
    with_machine,
    with_model,
)
from seewhy.cli.shell import Command, Shell, shell
from seewhy.cli.work import Work, about, cost_of, draw, methods_of, remark, warn_of_time
from seewhy.errors import SpecError

if TYPE_CHECKING:
    from seewhy.classifier import Classifier
    from seewhy.data.images import Images
    from seewhy.explain import Attribution


@click.command(
    cls=Command,
    short_help="Why this decision: maps over photographs.",
    examples=[
        "seewhy explain cat.jpg",
        "seewhy explain cat.jpg dog.png --method lrp --method occlusion:window=32 --contrast",
        'seewhy explain cat.jpg --method all --class "tiger cat" --class tabby --compare --json',
        "seewhy explain photos/ --model cifar10-resnet20 --limit 10 --arrays",
        "seewhy explain --plan --method lrp --model torchvision:resnet50",
    ],
)
@click.argument("images", nargs=-1)
@with_model
@click.option(
    "--method", "specs", multiple=True, default=["grad-cam"], show_default=True, metavar="SPEC", help="Or `all`."
)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Name or index [default: the predicted class].")
@click.option("--contrast", is_flag=True, help="Two classes and their difference [default: predicted and runner-up].")
@click.option("--compare", is_flag=True, help="All methods in one picture too, and how far they agree.")
@click.option("--whole", is_flag=True, help="Draw over the whole photograph, at its own size.")
@click.option("--arrays", is_flag=True, help="Keep the values too, as .npz beside each picture.")
@click.option("--plan", "planned", is_flag=True, help="Only list the rule of each operation, of methods with rules.")
@with_folder("seewhy-explain")
@with_images
@with_machine
def explain(
    images: tuple[str, ...],
    model: str,
    specs: tuple[str, ...],
    classes: tuple[str, ...],
    contrast: bool,
    compare: bool,
    whole: bool,
    arrays: bool,
    planned: bool,
    folder: Folder,
    split: str | None,
    limit: int | None,
    machine: Machine,
) -> None:
    """Show which pixels of IMAGES a class's score rests on.

    IMAGES are photographs, folders of them, or one data set. Each explanation becomes a picture, laid over the
    photograph. Bad images are named, and the others go on. Passes that serve several classes run once.
    """
    spoken = shell()
    methods = methods_of(specs, "explain")
    if planned:
        _plans(spoken, machine.load(model, spoken), methods)
        return
    if not images:
        raise click.UsageError("give at least one image, as in seewhy explain cat.jpg")
    wanted = list(dict.fromkeys(classes))
    if contrast and len(wanted) not in (0, 2):
        raise SpecError(f"--contrast is of two classes, got {len(wanted)}; give two with --class, or none")
    found = open_images(images, split, limit)
    net = machine.load(model, spoken)
    for name in wanted:
        net.index(name)
    from seewhy.explain import agreement, side_by_side
    from seewhy.explain import contrast as difference
    from seewhy.report import words

    warn_of_time(spoken, net, methods, len(found), max(len(wanted), 1 + contrast))
    work = Work(spoken, net, found, "explaining", [(spec, "") for spec in methods], stems(found.names))
    named = (
        [*wanted, "contrast"] if contrast and wanted else ["", "runner-up", "contrast"] if contrast else wanted or [""]
    )

    def file(image: str, *parts: str) -> str:
        return ".".join(filter(None, (work.stem[image], *map(slug, filter(None, parts)), "png")))

    files = [
        each
        for image in found.names
        for spec in methods
        for name in named
        for each in _also(file(image, spec, name), arrays)
    ]
    files += [file(image, part) for image in found.names for part in ("compared", "agreement") if compare]
    folder.prepare(files)
    rows: list[dict[str, Any]] = []
    together: dict[str, list[Attribution]] = {}
    for image, spec, _ in work.each():
        photo = image.names[0]

        def answer(image: Images = image, spec: str = spec) -> list[Attribution]:
            targets: list[Any] = list(wanted)
            if contrast and not wanted:
                targets = net.predict(image)[0].topk(2).indices.tolist() if net.classes > 1 else [0, 0]
            answers = list(methods[spec].each(net, image, targets or [None]))
            return [*answers, difference(*answers)] if contrast else answers

        answers = work.run(answer, photo)
        for name, each in zip(named, answers or [], strict=False):
            path = folder.file(file(photo, spec, name))
            if whole:
                each.over(work.picture()).save(path)
            else:
                draw(each.plot(), path)
            if arrays:
                each.save(path.with_suffix(".npz"))
            rows.append(_explained(each, path))
        together.setdefault(photo, []).extend(answers or [])
    compared = []
    for photo, answers in together.items() if compare else ():
        if not answers:
            continue
        pictures = {"compared": folder.file(file(photo, "compared"))}
        draw(side_by_side(answers), pictures["compared"])
        first = [each for each in answers if each.target[0] == answers[0].target[0] and "−" not in each.labels[0]]
        sentences: tuple[str, ...] = ()
        table: Any = None
        if len(first) > 1:
            alike = agreement(first)
            pictures["agreement"] = folder.file(file(photo, "agreement"))
            draw(alike.plot(), pictures["agreement"])
            sentences = (*alike.warnings(), *alike.notes)
            table = {"methods": alike.methods, "grid": alike.grid, "rank_correlations": alike.correlations[0].tolist()}
        compared.append({"image": photo, "agreement": table, "warnings": sentences, "pictures": pictures})
        for sentence in sentences:
            spoken.say(f"note: {photo}: {sentence}")
    work.finish(len(rows) + sum(len(each["pictures"]) for each in compared), folder)
    document = {"model": about(net), "explanations": rows, "compared": compared, "failed": work.failed}

    def show() -> None:
        measured = {id(row): ", ".join(words.measure(*each) for each in row["measures"].items()) for row in rows}
        spoken.table(
            ("image", "method", "class", "score", "measures", "picture"),
            [
                (
                    r["image"],
                    r["method"],
                    r["class"]["label"],
                    f"{r['score']:.3g}",
                    measured[id(r)] or "–",
                    r["picture"],
                )
                for r in rows
            ],
        )

    spoken.answer(document, show)
    remark(spoken, rows)


def _explained(answer: Attribution, path: Path) -> dict[str, Any]:
    """One explanation of one image as plain values; a contrast's class is that which it speaks for."""
    return {
        "image": answer.images.names[0],
        "method": answer.method,
        "class": {"index": int(answer.target[0]), "label": answer.labels[0]},
        "score": float(answer.score[0]),
        "layer": answer.layer,
        "measures": {key: float(value[0]) for key, value in answer.measures.items()},
        "notes": answer.notes,
        "cost": cost_of(answer.cost),
        "picture": path,
    }


def _plans(spoken: Shell, net: Classifier, methods: dict[str, Any]) -> None:
    """The rule of each operation, for the methods that have rules."""
    ruled = {spec: method for spec, method in methods.items() if callable(getattr(method, "plan", None))}
    if not ruled:
        from seewhy.method import registry

        those = [name for name, cls in registry("explain").items() if hasattr(cls, "plan")]
        raise SpecError(f"{', '.join(methods)} has no rules to list; these have: {', '.join(those)}")
    plans = {spec: method.plan(net) for spec, method in ruled.items()}
    document = {spec: [dict(vars(row)) for row in plan.rows] for spec, plan in plans.items()}

    def show() -> None:
        for spec, plan in plans.items():
            rows = [(row.address, row.op, f"with {row.merged}" if row.merged else row.rule) for row in plan.rows]
            spoken.table(("address", "operation", "rule"), rows, title=f"{spec} on {net.name}")

    spoken.answer({"model": about(net), "plans": document}, show)


def _also(picture: str, arrays: bool) -> tuple[str, ...]:
    return (picture, str(Path(picture).with_suffix(".npz"))) if arrays else (picture,)
