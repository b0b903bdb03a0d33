"""Make docs/methods and docs/attacks: a page for every explainer and attack, from its docstring, with a picture and what it
cost; and their indices.

python docs/make_pages.py            every page, every picture drawn and measured anew
python docs/make_pages.py lrp lime   these alone
python docs/make_pages.py --texts    the texts alone; pictures and costs stay as they are
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from seewhy import load, units
from seewhy.attack.base import Attack
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.explain.base import Explainer
from seewhy.method import Method, registry
from seewhy.report import pictures, words
from seewhy.report.pages import Page, page, rank

DOCS = Path(__file__).resolve().parent


class Room(NamedTuple):
    """A room whose methods have pages: where they stand, what is above them, and the command that runs a method."""

    name: str
    folder: Path
    heading: str
    lead: str
    alt: str
    column: str


ROOMS = {
    "explain": Room(
        "explain",
        DOCS / "methods",
        "Why this decision? The methods",
        "Each map is of {photo} (scikit-image) and EfficientNet-Lite0. What it took stands on each page.",
        "The photograph, and {title} over it",
        "method",
    ),
    "attack": Room(
        "attack",
        DOCS / "attacks",
        "How is it fooled? The attacks",
        "Each picture is of {photo} (scikit-image): the photograph, what fools, and their difference. What it took stands on "
        "each page.",
        "The photograph, what {title} made of it, and the difference",
        "attack",
    ),
}

#: the network and the photograph of the pictures, the picture's height, and the most that one may weigh
NET, PHOTO, SIDE, MOST = "efficientnet-lite0", "chelsea.png", 300, 60_000

#: the network for attacks that may take more than so many passes
SMALL, MANY = "cifar10-resnet20", 1500

_MEASURED = re.compile(r"<!-- measured -->\n(.*?)\n<!-- /measured -->", re.DOTALL)


def methods(room: str) -> dict[str, type[Method]]:
    """Every explainer or attack by its name, in the order in which they are shown."""
    kind = Explainer if room == "explain" else Attack
    known = {name: cls for name, cls in registry(room).items() if issubclass(cls, kind)}
    return dict(sorted(known.items(), key=lambda item: rank(item[1])))


def plain(text: str) -> str:
    """Text in which Markdown finds no marks but the code in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*<|])", r"\\\1", part.replace("<", "&lt;")) for part in parts
    )


def text(told: Page, measured: str) -> str:
    """A page in Markdown; `measured` is what cannot be made of the docstring."""
    room = ROOMS[told.room]
    picture = f"![{room.alt.format(title=told.title)}](images/{told.name}.jpg)"
    lines = [f"# {told.title}", "", f"{plain(told.shows)} {plain(told.reading)}", "", picture, ""]
    lines += ["<!-- measured -->", measured, "<!-- /measured -->", "", plain(told.formula), ""]
    for paragraph in told.about:
        lines += [plain(paragraph), ""]
    lines += ["## Options", ""]
    if told.options:
        lines += ["| option | takes | default |", "| --- | --- | --- |"]
        lines += [
            f"| `{each.name}` | {each.kind} | {f'`{each.default}`' if each.default else '–'} |" for each in told.options
        ]
    else:
        lines.append("It has none.")
    for name, said in told.parts.items():
        lines += ["", f"## {name}", "", plain(said[:1].upper() + said[1:])]
    lines += ["", "## Example", "", "```python", told.example, "```", ""]
    given = "".join(f":{each.name}={each.default}" for each in told.options[:1] if each.default not in ("none", ""))
    lines += ["```sh", f"seewhy {room.name} cat.jpg --method {told.name}{given}", "```", ""]
    lines.append(
        f"All {room.folder.name}: [{room.folder.name}](README.md). Made from the docstring of `{told.name}` by `make docs`."
    )
    return "\n".join(lines) + "\n"


def three(value: float) -> str:
    """A number of three digits, as people write it: 3,110 and not 3.11e+03."""
    return f"{float(f'{value:.3g}'):,.6g}"


def index(pages: dict[str, Page]) -> str:
    """The list of all methods of a room, family by family."""
    room = ROOMS[next(iter(pages.values())).room]
    lines = [f"# {room.heading}", "", room.lead.format(photo=PHOTO), ""]
    family = ""
    for told in pages.values():
        if told.family != family:
            family = told.family
            lines += ["", f"## {family}", "", f"| {room.column} | what it shows | limits |", "| --- | --- | --- |"]
        lines.append(f"| [{told.title}]({told.name}.md) | {plain(told.shows)} | {plain(told.parts['Limits'])} |")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def measured_in(path: Path) -> str:
    """What a page says that was measured, empty where there is none."""
    found = _MEASURED.search(path.read_text(encoding="utf-8")) if path.exists() else None
    return found.group(1) if found else ""


def explained(net: Classifier, images: Images, cls: type[Explainer], forward: float) -> tuple[Image.Image, str]:
    """Explain the photograph with default settings: the picture, and what it took."""
    method = cls()
    found = method(net, images)
    probability = float(net.predict(images)[0].softmax(-1)[found.target[0]])
    values = pictures.heat(found.values[0].numpy(), found.sign)
    photo = _big(pictures.to_picture(images.pixels[0].numpy()))
    laid = pictures.overlay(photo, values, found.sign)
    low = "±" if found.sign == "signed" else "0 to "
    colours = f"orange for it, blue against it, {low}" if found.sign == "signed" else f"brighter is stronger, {low}"
    facts = [words.passes(found.cost.forward, found.cost.backward)]
    facts.append(f"{units.seconds(found.cost.seconds)}, {three(found.cost.seconds / forward)} × one forward pass")
    facts += [words.measure(key, float(value[0])) for key, value in found.measures.items()]
    said = [f"{PHOTO} and `{method.spec}` for {found.labels[0]} ({words.percent(probability)}): {colours}"]
    said[0] += f"{words.figure(laid.scale)}. Here it took {'; '.join(facts)}."
    said += [f"*{note[:1].upper()}{note[1:]}.*" for note in found.notes]
    return _sheet(photo, laid.picture), "\n\n".join(said)


def attacked(net: Classifier, images: Images, cls: type[Attack[Any]], forward: float) -> tuple[Image.Image, str]:
    """Attack the photograph with default settings: the picture, and what it took."""
    method = cls()
    found = method(net, images)
    fooled, unrounded = int(found.best[0]) >= 0, found.success[:, 0]
    sizes = found.eps[:, 0].masked_fill(~unrounded, math.inf) if bool(unrounded.any()) else -found.eps[:, 0]
    level = int(found.best[0]) if fooled else int(sizes.argmin())
    before, after = int(found.labels[0]), int(found.predictions[level, 0])
    start, end = float(found.clean_probabilities[0, before]), float(found.probabilities[level, 0, after])
    size = words.size(float(found.eps[level, 0]), found.norm, images.pixels[0].numel())
    original, changed = images.pixels[0].numpy(), found.images[level, 0].numpy()
    difference, factor = pictures.amplified(original, changed)
    facts = [words.passes(found.cost.forward, found.cost.backward)]
    facts.append(f"{units.seconds(found.cost.seconds)}, {three(found.cost.seconds / forward)} × one forward pass")
    verdict = f"becomes {found.names[after]} ({words.percent(end)})"
    if not fooled:
        verdict = f"{verdict}, but only before rounding to 8 bits," if bool(unrounded[level]) else "is not fooled"
    if found.norm != "l2":
        size += f", root mean square {words.size(float(found.distances['rms'][level, 0]))}"
    said = [
        f"{PHOTO}, {net.name} and `{method.spec}`: {found.names[before]} ({words.percent(start)}) {verdict} at {size}; the "
        f"difference is enlarged {factor} times around grey. Here it took {'; '.join(facts)}."
    ]
    said += [f"*{note[:1].upper()}{note[1:]}.*" for note in found.notes]
    shown = (pictures.to_picture(original), pictures.to_picture(changed), difference)
    return _sheet(*map(_big, shown)), "\n\n".join(said)


def _big(picture: Image.Image) -> Image.Image:
    way = Image.Resampling.NEAREST if 3 * max(picture.size) <= SIDE else Image.Resampling.BICUBIC
    return picture.resize((SIDE, SIDE), way)


def _sheet(*shown: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (len(shown) * (SIDE + 10) - 10, SIDE), "white")
    for place, picture in enumerate(shown):
        sheet.paste(picture, (place * (SIDE + 10), 0))
    return sheet


def keep(sheet: Image.Image, target: Path) -> None:
    """Save a picture, no heavier than it may be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for quality in (85, 75, 60, 45, 30):
        sheet.save(target, quality=quality, optimize=True)
        if target.stat().st_size <= MOST:
            break


def single(net: Classifier, images: Images) -> float:
    """Seconds of one forward pass: the best of five."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        net.predict(images)
        times.append(time.perf_counter() - started)
    return min(times)


def main(given: list[str]) -> None:
    """Make the pages."""
    known = {room: methods(room) for room in ROOMS}
    every = {name: cls for found in known.values() for name, cls in found.items()}
    names = [name for name in given if name != "--texts"] or list(every)
    unknown = [name for name in names if name not in every]
    if unknown:
        raise SystemExit(f"there is no explainer or attack {unknown[0]}; there are: {', '.join(every)}")
    pages = {name: page(cls, whole=True) for name, cls in every.items()}  # all are looked at before any is written
    paths = {name: ROOMS[cls.room].folder / f"{name}.md" for name, cls in every.items()}
    for room in ROOMS.values():
        room.folder.mkdir(parents=True, exist_ok=True)
    measured = {name: measured_in(path) for name, path in paths.items()}
    if "--texts" not in given:
        found = importlib.util.find_spec("skimage")
        if found is None or found.origin is None:
            raise SystemExit("the photograph comes with scikit-image: install it")
        photo = Path(found.origin).parent / "data" / PHOTO
        nets: dict[str, tuple[Classifier, Images, float]] = {}
        for name in names:
            cls = every[name]
            spec = SMALL if cls.room == "attack" and sum(cls().passes) > MANY else NET
            if spec not in nets:
                net = load(spec)
                nets[spec] = (net, net.read(photo), single(net, net.read(photo)))
            net, images, forward = nets[spec]
            if issubclass(cls, Explainer):
                sheet, measured[name] = explained(net, images, cls, forward)
            elif issubclass(cls, Attack):
                sheet, measured[name] = attacked(net, images, cls, forward)
            keep(sheet, paths[name].parent / "images" / f"{name}.jpg")
            sys.stdout.write(f"{name}: {measured[name].splitlines()[0]}\n")
            paths[name].write_text(text(pages[name], measured[name]), encoding="utf-8")
    for name, told in pages.items():
        paths[name].write_text(text(told, measured[name]), encoding="utf-8")
    for room in ROOMS.values():
        listed = index({name: pages[name] for name in known[room.name]})
        (room.folder / "README.md").write_text(listed, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
