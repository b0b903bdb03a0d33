"""`seewhy explain`: one method, or a few, on a few images; pictures as files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import (
    Folder,
    Machine,
    open_images,
    share,
    slugs,
    stems,
    with_folder,
    with_images,
    with_machine,
    with_model,
)
from seewhy.cli.relevance import able, account_of, show_accounts, show_plans
from seewhy.cli.shell import Command, shell
from seewhy.cli.work import Work, about, cost_of, draw, methods_of, remark, warn_of_time
from seewhy.errors import SpecError
from seewhy.units import number

if TYPE_CHECKING:
    from seewhy.data.images import Images
    from seewhy.explain import Attribution
    from seewhy.explain.lrp import Ledger


@click.command(
    cls=Command,
    short_help="Why this decision: maps over photographs.",
    examples=[
        "seewhy explain cat.jpg",
        "seewhy explain cat.jpg dog.png --method lrp --method occlusion:window=32 --contrast",
        'seewhy explain cat.jpg --method all --class "tiger cat" --class tabby --compare --json',
        "seewhy explain photos/ --model cifar10-resnet20 --limit 10 --arrays",
        "seewhy explain cat.jpg --method gradient --method lime --compare --sign positive --smooth 3 --contour 50%",
        "seewhy explain cat.jpg --method lrp:composite=mine.toml --account",
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
@click.option(
    "--sign",
    type=click.Choice(["signed", "positive", "absolute"]),
    help="How maps are drawn and compared [default: each method's own].",
)
@click.option(
    "--smooth", default="0", metavar="PIXELS", help="Lay a Gaussian of this deviation over the maps, such as 3."
)
@click.option("--contour", metavar="SHARE", help="Outline what holds this share of the positive values, such as 50%.")
@click.option("--arrays", is_flag=True, help="Keep the values too, as .npz beside each picture.")
@click.option("--account", is_flag=True, help="Say where relevance is lost on its way, of methods with rules.")
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
    sign: str | None,
    smooth: str,
    contour: str | None,
    arrays: bool,
    account: bool,
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
        show_plans(spoken, machine.load(model, spoken), methods)
        return
    if not images:
        raise click.UsageError("give at least one image, as in seewhy explain cat.jpg")
    look = _drawing(sign, smooth, contour)
    accounted = able(methods, "account", "no account to give") if account else {}
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

    short = slugs(filter(None, named)) | slugs(methods)

    def file(image: str, *parts: str) -> str:
        return ".".join(filter(None, (work.stem[image], *(short.get(part, part) for part in parts), "png")))

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

        def answer(image: Images = image, spec: str = spec) -> list[tuple[Attribution, Ledger | None]]:
            targets: list[Any] = list(wanted)
            if contrast and not wanted:
                targets = net.predict(image)[0].topk(2).indices.tolist()
            answers = methods[spec].each(net, image, targets or [None])
            ledgers = [
                work.also(partial(accounted[spec].account, net, image, each.target), image.names[0])
                if spec in accounted
                else None
                for each in answers
            ]
            pairs = list(zip(answers, ledgers, strict=True))
            return [*pairs, (difference(*answers), None)] if contrast else pairs

        explained = work.run(answer, photo) or []
        for name, (each, ledger) in zip(named, explained, strict=False):
            path = folder.file(file(photo, spec, name))
            row = _explained(each, path, ledger)
            if whole:
                picture = each.over(work.picture(), **look)
                picture.save(path)
                row |= {"sign": look["sign"] or each.sign, "scale": picture.info["scale"]}
            else:
                draw(each.plot(**look), path)
            if arrays:
                each.save(path.with_suffix(".npz"))
            rows.append(row)
        if explained:
            together.setdefault(photo, []).extend(each for each, _ in explained)
    compared = []
    for photo, answers in together.items() if compare else ():
        if not answers:
            continue
        pictures = {"compared": folder.file(file(photo, "compared"))}
        draw(side_by_side(answers, **look), pictures["compared"])
        first = [each for each in answers if each.target[0] == answers[0].target[0] and "−" not in each.labels[0]]
        sentences: tuple[str, ...] = ()
        table: Any = None
        if len(first) > 1:
            alike = agreement(first, sign=look["sign"], smooth=look["smooth"])
            pictures["agreement"] = folder.file(file(photo, "agreement"))
            draw(alike.plot(), pictures["agreement"])
            sentences = (*alike.warnings(), *alike.notes)
            table = {"methods": alike.methods, "grid": alike.grid, "rank_correlations": alike.correlations[0].tolist()}
        compared.append({"image": photo, "agreement": table, "warnings": sentences, "pictures": pictures})
        for sentence in sentences:
            spoken.say(f"note: {photo}: {sentence}")
    work.finish(len(rows) + sum(len(each["pictures"]) for each in compared), folder)
    document = {"model": about(net), "drawn": look, "explanations": rows, "compared": compared, "failed": work.failed}

    def show() -> None:
        measured = {id(row): ", ".join(words.measure(*each) for each in row["measures"].items()) for row in rows}
        spoken.table(
            ("image", "method", "class", "score", "measures", *(["colours"] if whole else []), "picture"),
            [
                (
                    r["image"],
                    r["method"],
                    r["class"]["label"],
                    f"{r['score']:.3g}",
                    measured[id(r)] or "–",
                    *([words.bounds(r["sign"], r["scale"])] if whole else []),
                    r["picture"],
                )
                for r in rows
            ],
        )
        show_accounts(spoken, rows)

    spoken.answer(document, show)
    remark(spoken, rows)


def _drawing(sign: str | None, smooth: str, contour: str | None) -> dict[str, Any]:
    """How maps are drawn, read before any work is done."""
    deviation, held = number(smooth), None if contour is None else share(contour)
    if deviation < 0:
        raise SpecError(f"expected --smooth of 0 pixels or more, got {smooth}")
    if held == 0:
        raise SpecError(f"expected a --contour of more than nothing, such as 50%, got {contour}")
    return {"sign": sign, "smooth": deviation, "contour": held}


def _explained(answer: Attribution, path: Path, ledger: Ledger | None) -> dict[str, Any]:
    """One explanation of one image as plain values; a contrast's class is that which it speaks for."""
    row = {
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
    return row if ledger is None else {**row, "account": account_of(ledger)}


def _also(picture: str, arrays: bool) -> tuple[str, ...]:
    return (picture, str(Path(picture).with_suffix(".npz"))) if arrays else (picture,)
