"""`seewhy explain` and `attack`: one method, or a few, on a few images; pictures as files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import (
    Folder,
    Machine,
    open_images,
    share,
    slug,
    stems,
    with_folder,
    with_images,
    with_machine,
    with_model,
)
from seewhy.cli.relevance import able, account_of, show_accounts, show_plans
from seewhy.cli.shell import Command, Shell, shell
from seewhy.cli.work import Work, about, cost_of, draw, methods_of, remark
from seewhy.errors import LayerError, NothingToExplain, SpecError, UnknownOperation
from seewhy.units import number

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.attack import Adversarial
    from seewhy.classifier import Classifier
    from seewhy.data.images import Images
    from seewhy.explain import Attribution
    from seewhy.explain.lrp import Ledger
    from seewhy.method import Method


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

    _warn_of_time(spoken, net, methods, len(found), max(len(wanted), 1 + contrast))
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

        def answer(image: Images = image, spec: str = spec) -> list[tuple[Attribution, Ledger | None]]:
            targets: list[Any] = list(wanted)
            if contrast and not wanted:
                targets = net.predict(image)[0].topk(2).indices.tolist() if net.classes > 1 else [0, 0]
            answers = methods[spec].each(net, image, targets or [None])
            ledgers = [
                accounted[spec].account(net, image, each.target) if spec in accounted else None for each in answers
            ]
            pairs = list(zip(answers, ledgers, strict=True))
            return [*pairs, (difference(*answers), None)] if contrast else pairs

        explained = work.run(answer, photo) or []
        for name, (each, ledger) in zip(named, explained, strict=False):
            path = folder.file(file(photo, spec, name))
            if whole:
                each.over(work.picture(), **look).save(path)
            else:
                draw(each.plot(**look), path)
            if arrays:
                each.save(path.with_suffix(".npz"))
            rows.append(_explained(each, path, ledger))
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


def _warn_of_time(spoken: Shell, net: Classifier, methods: dict[str, Any], images: int, classes: int) -> None:
    """Say beforehand about how long it takes, where that is long enough to be worth two passes to find out."""
    if images * sum(sum(method.passes) for method in methods.values()) < 500:
        return
    from seewhy.run.pace import pace
    from seewhy.units import seconds

    speed = pace(net)
    most = images * sum(speed.cost(method, classes) for method in methods.values())
    spoken.say(f"this takes up to about {seconds(most)}; methods that stop when they know enough take less")


@click.command(
    cls=Command,
    short_help="The smallest change that fools the model.",
    examples=[
        "seewhy attack cat.jpg",
        "seewhy attack cat.jpg --method fgsm:eps=1/255+2/255+4/255,refine=0 --target tabby",
        'seewhy attack photos/ --label "tiger cat" --out fooled --json',
        "seewhy attack cat.jpg dog.png --method fgsm --method fgsm:norm=l2 --compare --why",
        "seewhy attack --judge fooled --model timm:resnet18.a1_in1k",
    ],
)
@click.argument("images", nargs=-1)
@with_model
@click.option("--method", "specs", multiple=True, default=["fgsm"], show_default=True, metavar="SPEC", help="Or `all`.")
@click.option("--label", metavar="NAME", help="The true class [default: the data set's, or the predicted one].")
@click.option("--target", metavar="NAME", help="The class to be seen [default: any but the true one].")
@click.option(
    "--why", is_flag=True, help="Measure why it fails, against noise of the same size; a picture and a paragraph."
)
@click.option("--compare", is_flag=True, help="Accuracy against ε of all methods in one picture, and the distances.")
@click.option("--judge", metavar="DIR", help="Attack nothing: show an exported set to the model.")
@with_folder("seewhy-attack")
@with_images
@with_machine
def attack(
    images: tuple[str, ...],
    model: str,
    specs: tuple[str, ...],
    label: str | None,
    target: str | None,
    why: bool,
    compare: bool,
    judge: str | None,
    folder: Folder,
    split: str | None,
    limit: int | None,
    machine: Machine,
) -> None:
    """Look for the smallest change of IMAGES that changes the model's decision.

    Sizes stand in the method's spec, fgsm:eps=4/255+8/255, in pixels of [0, 1]. For each image a picture of the attack, the
    image at several sizes, and the adversarial image itself, as it was judged: the smallest that fools, or the largest tried
    where none does. With adversarial.csv they are a set, which --judge reads again.
    """
    spoken = shell()
    if judge is not None:
        _judge(spoken, machine, model, judge)
        return
    if not images:
        raise click.UsageError("give at least one image, as in seewhy attack cat.jpg")
    methods = methods_of(specs, "attack")
    found = open_images(images, split, limit)
    net = machine.load(model, spoken)
    for name in filter(None, (label, target)):
        net.index(name)
    notes: tuple[str, ...] = ()
    if label is None and found.labels is not None:
        found, notes = found.aligned_or_bare(net.labels)
        for note in notes:
            spoken.say(f"note: {note}")
    from seewhy.attack import compare as beside
    from seewhy.attack import sets

    _warn_of_time(spoken, net, methods, len(found), 1)
    work = Work(spoken, net, found, "attacking", [(spec, "") for spec in methods], stems(found.names))

    def file(image: str, spec: str, kind: str = "") -> str:
        return ".".join(filter(None, (work.stem[image], slug(spec), target and slug(target), kind, "png")))

    kinds = ["", "strip", "adversarial", "original", *(["why"] if why else [])]
    files = [file(image, spec, kind) for image in found.names for spec in methods for kind in kinds]
    folder.prepare([*files, *(f"{name}.png" for name in _COMPARED if compare)])
    rows, table, parts = [], [], []
    answers: list[Adversarial] = []
    for image, spec, _ in work.each():
        photo = image.names[0]
        with _ticking(net, methods[spec], work):
            answer = work.run(lambda: methods[spec](net, image, labels=label, target=target), photo)  # noqa: B023
        if answer is None:
            continue
        path, strip, adversarial, original = (folder.file(file(photo, spec, kind)) for kind in kinds[:4])
        draw(answer.plot(), path)
        draw(answer.plot_strip(), strip)
        row, pixels = _attacked(answer, photo)
        sets.save_pixels(pixels, adversarial)
        sets.save_pixels(answer.original.pixels[0], original)
        table.append(sets.row(net, answer, 0, adversarial.name, original.name))
        rows.append({**row, "picture": path, "strip": strip, "adversarial": adversarial})
        if why:
            rows[-1]["why"] = _why(net, answer, folder.file(file(photo, spec, "why")))
        answers = [*answers, answer] if answers and answers[0].original.names == answer.original.names else [answer]
        if len(answers) == len(methods):
            parts.append(beside.compare(answers))
    if table:
        sets.write(folder.path, table)
    work.finish(len(rows), folder)
    document = {"model": about(net), "attacks": rows, "failed": work.failed, "notes": notes}
    if compare and parts:
        joined = beside.together(parts)
        for name, figure in zip(_COMPARED, (joined.plot(), joined.plot_distances()), strict=True):
            draw(figure, folder.file(f"{name}.png"))
        document["compared"] = {
            "attacks": [{key: _number(value) for key, value in each.items()} for each in joined.table()],
            "pictures": {name: folder.file(f"{name}.png") for name in _COMPARED},
        }

    def show() -> None:
        spoken.table(("image", "method", "before", "after", "smallest change", "picture"), [_line(row) for row in rows])
        for row in rows if why else ():
            told = row["why"]["words"] if row["why"] else "not fooled, so there is no failure to look into."
            click.echo(f"\n{row['image']}, {row['method']}: {told}")

    spoken.answer(document, show)
    remark(spoken, rows)


#: pictures of all methods together
_COMPARED = ("accuracy", "distances")


@contextmanager
def _ticking(net: Classifier, method: Method, work: Work) -> Iterator[None]:
    """Move the progress on within one long attack, by the images that were passed of those that may be."""
    before, passed = net.engine.progress, 0
    most = max(1, sum(method.passes))
    last = 0

    def tick(done: int, total: int) -> None:
        nonlocal passed, last
        passed += done - last if done > last else done
        last = 0 if done == total else done
        work.within(min(passed / most, 0.99))

    net.engine.progress = tick
    try:
        yield
    finally:
        net.engine.progress = before


def _why(net: Classifier, answer: Adversarial, path: Path) -> dict[str, Any] | None:
    """Why one image's attack succeeds, drawn; None where it does not."""
    from seewhy.attack.why_it_fails import diagnose
    from seewhy.method import parse

    if int(answer.best[0]) < 0:
        return None
    explainers: list[Any] = [parse(name, "explain") for name in ("grad-cam", "gradient")]
    try:
        found = diagnose(net, answer, explainers=explainers)
    except (LayerError, UnknownOperation, NothingToExplain):  # no maps, no rule for an operation, or a map of nothing
        try:
            found = diagnose(net, answer)
        except NothingToExplain as error:
            return {"words": f"not measured: {error}", "numbers": None, "cost": None, "picture": None}
    draw(found.plot(), path)
    return {"words": found.words(), "numbers": found.rows()[0], "cost": cost_of(found.cost), "picture": path}


def _judge(spoken: Shell, machine: Machine, model: str, directory: str) -> None:
    """Show an exported set to a model."""
    from seewhy.attack import sets

    given = sets.load(Path(directory).expanduser())
    net = machine.load(model, spoken)
    found = given.judged(net)
    rows = [
        {
            "file": row["file"],
            "class": net.labels[int(row["label"])],
            "right on the original": bool(found.right[i]),
            "predicted": net.labels[int(found.predictions[i])],
            "fools": bool(found.fools[i]),
            "as told": bool(found.as_told[i]),
        }
        for i, row in enumerate(given.rows)
    ]

    def show() -> None:
        written = [
            tuple("yes" if each is True else "no" if each is False else str(each) for each in row.values())
            for row in rows
        ]
        spoken.table(tuple(rows[0]), written)
        click.echo(f"\n{net.name}: {found.words()}")

    spoken.answer({"model": about(net), "images": rows, "words": found.words()}, show)


def _number(value: Any) -> Any:
    """A number as JSON has it: None where it is infinite or not one."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _also(picture: str, arrays: bool) -> tuple[str, ...]:
    return (picture, str(Path(picture).with_suffix(".npz"))) if arrays else (picture,)


def _attacked(answer: Adversarial, image: str) -> tuple[dict[str, Any], Tensor]:
    """What one image's attack came to, and the image that is shown for it."""
    fooled = int(answer.best[0]) >= 0
    shown = int(answer.best[0]) if fooled else int(answer.eps[:, 0].argmax())
    before, after = answer.clean_probabilities[0], answer.probabilities[shown, 0]

    def named(probabilities: Tensor) -> dict[str, Any]:
        index = int(probabilities.argmax())
        return {"index": index, "label": answer.names[index], "probability": float(probabilities[index])}

    row = {
        "image": image,
        "method": answer.method,
        "norm": answer.norm,
        "before": named(before),
        "after": named(after),
        "target": None if answer.target is None else answer.names[int(answer.target[0])],
        "fooled": fooled,
        "wrong_at_start": bool(answer.wrong_at_start[0]),
        "smallest_eps": float(answer.smallest_eps[0]) if fooled else None,
        "shown_eps": float(answer.eps[shown, 0]),
        "levels": [
            {"eps": float(eps), "success": bool(success), "success_8bit": bool(rounded)}
            for eps, success, rounded in zip(
                answer.eps[:, 0], answer.success[:, 0], answer.success_8bit[:, 0], strict=True
            )
        ],
        "distances": {key: float(value[shown, 0]) for key, value in answer.distances.items()},
        "queries": int(answer.queries[0]),
        "gradients": int(answer.gradients[0]),
        "notes": answer.notes,
        "cost": cost_of(answer.cost),
    }
    return row, answer.images[shown, 0]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    from seewhy.report.words import size

    before, after = (f"{row[key]['label']} {row[key]['probability']:.1%}" for key in ("before", "after"))
    told = size(row["shown_eps"], row["norm"])
    if row["norm"] == "l2":
        told += f", RMS {size(row['distances']['rms'])}"
    if row["wrong_at_start"]:
        verdict = "wrong from the start"
    else:
        verdict = told if row["fooled"] else f"none up to {told}"
    return row["image"], row["method"], before, after, verdict, str(row["picture"])
