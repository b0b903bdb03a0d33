"""`seewhy attack`: what fools the model, as a set that is judged again; why, whom else, and what defences keep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.beyond import Beyond, Limits
from seewhy.cli.options import (
    Folder,
    Machine,
    open_images,
    slug,
    slugs,
    stems,
    with_folder,
    with_images,
    with_machine,
    with_model,
)
from seewhy.cli.shell import Command, Shell, shell
from seewhy.cli.work import Work, about, cost_of, draw, methods_of, remark, warn_of_time
from seewhy.errors import LayerError, NothingToExplain, UnknownOperation

if TYPE_CHECKING:
    from torch import Tensor

    from seewhy.attack import Adversarial
    from seewhy.attack.compare import Attacker
    from seewhy.classifier import Classifier, Target
    from seewhy.data.images import Images
    from seewhy.method import Method


@click.command(
    cls=Command,
    short_help="The smallest change that fools the model.",
    examples=[
        "seewhy attack cat.jpg",
        "seewhy attack cat.jpg --method fgsm:eps=1/255+2/255+4/255,refine=0 --target tabby",
        'seewhy attack photos/ --label "tiger cat" --out fooled --json',
        "seewhy attack cat.jpg dog.png --method fgsm --method fgsm:norm=l2 --compare --why",
        "seewhy attack cat.jpg --method square:eps=8/255 --budget 1000 --rounded --decimals 3",
        "seewhy attack photos/ --victim torchvision:resnet18 --victim timm:resnet18.a1_in1k",
        "seewhy attack photos/ --method pgd:eps=2/255 --defences",
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
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N queries an image: passes, those for a gradient too.",
)
@click.option("--rounded", is_flag=True, help="The model sees images rounded to 8 bits, as in a picture file.")
@click.option(
    "--decimals",
    type=click.IntRange(0, 9),
    metavar="D",
    help="Scores are rounded to D decimals; for attacks on scores.",
)
@click.option(
    "--victim",
    "victims",
    multiple=True,
    metavar="SPEC",
    help="Another model: whose images fool whom. It must take images of the same size, and have the same classes.",
)
@click.option(
    "--defences",
    is_flag=True,
    help="What is right behind simple defences, clean and attacked, and how well a detector does.",
)
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
    budget: int | None,
    rounded: bool,
    decimals: int | None,
    victims: tuple[str, ...],
    defences: bool,
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

    --budget, --rounded and --decimals limit what the attacker sees of the model, also where --victim and --defences attack
    once more: each victim, and the model behind each defence by an attacker who knows it.
    """
    spoken = shell()
    if judge is not None:
        _judge(spoken, machine, model, judge)
        return
    if not images:
        raise click.UsageError("give at least one image, as in seewhy attack cat.jpg")
    methods = methods_of(specs, "attack")
    limits = Limits(budget, rounded, decimals)
    limits.check(methods)
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
    from seewhy.attack.compare import alike, together

    nets = {model: net, **{spec: machine.load(spec, spoken) for spec in victims if spec != model}} if victims else {}
    if nets:
        alike(nets)
    stem = slugs(methods)
    beyond = Beyond(nets, defences, folder, stem)
    warn_of_time(spoken, net, methods, len(found) * beyond.attacks, 1)
    work = Work(spoken, net, found, "attacking", [(spec, "") for spec in methods], stems(found.names))

    def file(image: str, spec: str, kind: str = "") -> str:
        return ".".join(filter(None, (work.stem[image], stem[spec], target and slug(target), kind, "png")))

    kinds = ["", "strip", "adversarial", "original", *(["why"] if why else [])]
    files = [file(image, spec, kind) for image in found.names for spec in methods for kind in kinds]
    folder.prepare([*files, *(f"{name}.png" for name in _COMPARED if compare), *beyond.files()])
    others = {spec: other for spec, other in nets.items() if other is not net}
    rows, table, parts = [], [], []
    answers: list[Adversarial] = []
    for image, spec, _ in work.each():
        photo = image.names[0]
        attacker = _attacker(methods[spec], limits, target)
        with _ticking(net, methods[spec], work, beyond.attacks):
            answer = work.run(lambda: attacker(net, image, label), photo)  # noqa: B023
            if answer is None:
                continue
            path, strip, adversarial, original = (folder.file(file(photo, spec, kind)) for kind in kinds[:4])
            draw(answer.plot(), path)
            draw(answer.plot_strip(), strip)
            row, pixels = _attacked(answer, photo)
            sets.save_pixels(pixels, adversarial)
            sets.save_pixels(answer.original.pixels[0], original)
            spoken.stopped = f"what was attacked so far is a set in {folder.path}, see --judge"
            table.append(sets.row(net, answer, 0, adversarial.name, original.name))
            sets.write(folder.path, table)
            rows.append({**row, "picture": path, "strip": strip, "adversarial": adversarial})
            if why:
                picture = folder.file(file(photo, spec, "why"))
                rows[-1]["why"] = work.also(lambda: _why(net, answer, others, picture), photo)  # noqa: B023
            work.also(lambda: beyond.add(net, _known(attacker, net, answer), image, label, answer), photo)  # noqa: B023
        answers = [*answers, answer] if answers and answers[0].original.names == answer.original.names else [answer]
        if len(answers) == len(methods):
            parts.append(beside(answers))
    work.finish(len(rows), folder)
    more = beyond.told()
    document = {
        "model": about(net),
        "limits": vars(limits),
        "attacks": rows,
        **more,
        "failed": work.failed,
        "notes": notes,
    }
    if compare and len(parts) < len(found):
        lacking = (
            f"the comparison lacks {len(found) - len(parts)} of {len(found)} images, which not every method could attack"
            if parts
            else "there is no comparison: there is no image that every method could attack"
        )
        spoken.say(f"note: {lacking}")
        document["notes"] = (*notes, lacking)
    if compare and parts:
        joined = together(parts)
        for name, figure in zip(_COMPARED, (joined.plot(), joined.plot_distances()), strict=True):
            draw(figure, folder.file(f"{name}.png"))
        document["compared"] = {
            "attacks": [{key: _number(value) for key, value in each.items()} for each in joined.table()],
            "pictures": {name: folder.file(f"{name}.png") for name in _COMPARED},
        }

    def show() -> None:
        spoken.table(("image", "method", "before", "after", "smallest change", "picture"), [_line(row) for row in rows])
        for row in rows if why else ():
            told = (
                "not measured, for the reason above."
                if row["fooled"]
                else "not fooled, so there is no failure to look into."
            )
            click.echo(f"\n{row['image']}, {row['method']}: {row['why']['words'] if row['why'] else told}")
        beyond.show(spoken, more)

    spoken.answer(document, show)
    remark(spoken, rows)


def _attacker(method: Any, limits: Limits, target: str | None) -> Attacker:
    """An attack that sees every model within the same limits."""

    def attack(net: Classifier, images: Tensor | Images, labels: Target) -> Adversarial:
        found: Adversarial = method(limits.on(net, method), images, labels=labels, target=target)
        return found

    return attack


def _known(attacker: Attacker, net: Classifier, answer: Adversarial) -> Attacker:
    """The same attacker, who has attacked this model already."""
    return lambda other, images, labels: answer if other is net else attacker(other, images, labels)


#: pictures of all methods together
_COMPARED = ("accuracy", "distances")


@contextmanager
def _ticking(net: Classifier, method: Method, work: Work, attacks: int = 1) -> Iterator[None]:
    """Move the progress on within one long attack, or so many, by the images that were passed of those that may be."""
    before, passed = net.engine.progress, 0
    most = max(1, attacks * sum(method.passes))
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


def _why(net: Classifier, answer: Adversarial, others: Mapping[str, Classifier], path: Path) -> dict[str, Any] | None:
    """Why one image's attack succeeds, and whether it fools others too, drawn; None where it does not."""
    from seewhy.attack.why_it_fails import diagnose
    from seewhy.method import parse

    if int(answer.best[0]) < 0:
        return None
    explainers: list[Any] = [parse(name, "explain") for name in ("grad-cam", "gradient")]
    try:
        found = diagnose(net, answer, explainers=explainers, others=others)
    except (LayerError, UnknownOperation, NothingToExplain):  # no maps, no rule for an operation, or a map of nothing
        try:
            found = diagnose(net, answer, others=others)
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
