"""Make docs/methods, docs/attacks and docs/looks: a page for every explainer, attack and look, from its docstring, with a
picture and what it cost; and their indices.

python docs/make_pages.py            every page, every picture drawn and measured anew
python docs/make_pages.py lrp lime   these alone
python docs/make_pages.py --texts    the texts alone; pictures and costs stay as they are
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from seewhy import load, units
from seewhy.attack.base import Attack
from seewhy.attack.fgsm import FGSM
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import Arrays, DataSet
from seewhy.explain.base import Explainer
from seewhy.look.base import Look
from seewhy.method import Method, parse, registry
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
    "look": Room(
        "look",
        DOCS / "looks",
        "What did it learn? The looks",
        "Each picture is of EfficientNet-Lite0, and of {photo} or the colour photographs that come with scikit-image where a "
        "look is at images. What it took stands on each page; how they are used together from Python, on "
        "[one page](../look.md).",
        "{title}, as seewhy draws it",
        "look",
    ),
}

#: the network and the photograph of the pictures, the picture's height, and the most that one may weigh
NET, PHOTO, SIDE, MOST = "efficientnet-lite0", "chelsea.png", 300, 60_000

#: the network for attacks that may take more than so many passes
SMALL, MANY = "cifar10-resnet20", 1500

#: what stands for a look whose defaults show little on a page
SHOWN = {
    "activations": "activations:layer=_blocks.4,channels=16",
    "before-after": "before-after:layer=_blocks.10",
    "exemplars": "exemplars:layers=_blocks.10,k=8,limit=6",
    "filters": "filters:order=similarity",
    "maximize": "maximize:objective=logit(1;963),steps=128,snapshots=3",
    "invert": "invert:layer=_blocks.4,steps=100",
}

#: the colour photographs of scikit-image that look like what the network knows
SET = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "motorcycle_left.png", "hubble_deep_field.jpg")
CROPS = 40

_WRITTEN = re.compile(r"<!-- by hand -->\n(.*?)\n<!-- /by hand -->", re.DOTALL)
_MEASURED = re.compile(r"<!-- measured -->\n(.*?)\n<!-- /measured -->", re.DOTALL)


def methods(room: str) -> dict[str, type[Method]]:
    """Every explainer, attack or look by its name, in the order in which they are shown."""
    kind = {"explain": Explainer, "attack": Attack, "look": Look}[room]
    known = {name: cls for name, cls in registry(room).items() if issubclass(cls, kind)}
    return dict(sorted(known.items(), key=lambda item: rank(item[1])))


def plain(text: str) -> str:
    """Text in which Markdown finds no marks but the code in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*<|])", r"\\\1", part.replace("<", "&lt;")) for part in parts
    )


def capital(text: str) -> str:
    """Text as a sentence begins, unless it begins with a symbol: α, which is not Α, stays as it is."""
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


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
        lines += ["", f"## {name}", "", plain(capital(said))]
    lines += ["", "## Example", "", "```python", told.example, "```", ""]
    if told.room == "look":
        cls = methods("look")[told.name]
        given = "" if not cls.needs_images else " photos/" if cls.of_sets else " cat.jpg"
        given = " cat.png attacked.png" if told.name == "before-after" else given
        spec = f"{told.name}:objective=logit(tabby)" if told.name == "maximize" else told.name
        lines += [
            "```sh",
            f'seewhy look{given} --method "{spec}"' if "(" in spec else f"seewhy look{given} --method {spec}",
        ]
        lines += ["```", "", f"All looks: [looks](README.md). Made from the docstring of `{told.name}` by `make docs`."]
        return "\n".join(lines) + "\n"
    given = "".join(f":{each.name}={each.default}" for each in told.options[:1] if each.default not in ("none", ""))
    lines += ["```sh", f"seewhy {room.name} cat.jpg --method {told.name}{given}", "```", ""]
    lines.append(
        f"All {room.folder.name}: [{room.folder.name}](README.md). Made from the docstring of `{told.name}` by `make docs`."
    )
    return "\n".join(lines) + "\n"


def three(value: float) -> str:
    """A number of three digits, as people write it: 3,110 and not 3.11e+03."""
    return f"{float(f'{value:.3g}'):,.6g}"


def index(pages: dict[str, Page], written: str = "") -> str:
    """The list of all methods of a room, family by family; after it `written`, what stands there that no docstring says."""
    room = ROOMS[next(iter(pages.values())).room]
    lines = [f"# {room.heading}", "", room.lead.format(photo=PHOTO), ""]
    family = ""
    for told in pages.values():
        if told.family != family:
            family = told.family
            lines += ["", f"## {family}", "", f"| {room.column} | what it shows | limits |", "| --- | --- | --- |"]
        lines.append(f"| [{told.title}]({told.name}.md) | {plain(told.shows)} | {plain(told.parts['Limits'])} |")
    listed = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"
    return f"{listed}\n<!-- by hand -->\n{written}\n<!-- /by hand -->\n" if written else listed


def measured_in(path: Path) -> str:
    """What a page says that was measured, empty where there is none."""
    return _kept(_MEASURED, path)


def written_in(path: Path) -> str:
    """What an index says that was written by hand, empty where there is nothing."""
    return _kept(_WRITTEN, path)


def _kept(part: re.Pattern[str], path: Path) -> str:
    found = part.search(path.read_text(encoding="utf-8")) if path.exists() else None
    return found.group(1) if found else ""


def explained(net: Classifier, images: Images, cls: type[Explainer], forward: float) -> tuple[Image.Image, str]:
    """Explain the photograph with default settings: the picture, and what it took."""
    method = cls()
    method(net, images)  # not counted: the first call finds layers, and warms caches up
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
    said += [f"*{capital(note)}.*" for note in found.notes]
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
    said += [f"*{capital(note)}.*" for note in found.notes]
    shown = (pictures.to_picture(original), pictures.to_picture(changed), difference)
    return _sheet(*map(_big, shown)), "\n\n".join(said)


def looked(net: Classifier, images: Images, cls: type[Look], forward: float) -> tuple[Image.Image, str]:
    """Look with the settings of a page: the figure, and what it took."""
    method = parse(SHOWN.get(cls.name, cls.name), "look")
    given: Any = None
    seen = "the model alone"
    if cls.name == "before-after":
        attack = FGSM(eps=(2 / 255,), refine=0)(net, images)
        given = Images(torch.cat([images.pixels, attack.images[0]]), (PHOTO, "the same, attacked"))
        seen = f"{PHOTO} and the same after `{attack.method}`"
    elif cls.of_sets:
        given = photographs(net)
        seen = f"{len(given)} crops of the photographs that come with scikit-image, each photograph a class"
    elif cls.needs_images:
        given, seen = images, PHOTO
    started = time.perf_counter()
    found = method(net, given)
    seconds = time.perf_counter() - started
    facts = [words.passes(found.cost.forward, found.cost.backward)]
    facts.append(f"{units.seconds(seconds)}, {three(seconds / forward)} × one forward pass")
    said = [f"{net.name} and `{method.spec}`, {seen}. Here it took {'; '.join(facts)}."]
    for note in found.notes:
        told = note if note[1:2] == "-" else capital(note)  # t-SNE stays as it is
        said.append(f"*{plain(told)}{'' if told.endswith('?') else '.'}*")
    with io.BytesIO() as buffer:
        found.plot().savefig(buffer, format="png", bbox_inches="tight", dpi=110)
        return Image.open(buffer).convert("RGB"), "\n\n".join(said)


def photographs(net: Classifier) -> DataSet:
    """Forty crops of each of some colour photographs that come with scikit-image, of all sizes, each photograph a class."""
    folder = photo_folder()
    draw = torch.Generator().manual_seed(0)
    crops, names, labels = [], [], []
    for label, name in enumerate(SET):
        with Image.open(folder / name) as opened:
            picture = opened.convert("RGB")
        for number in range(CROPS):
            share, x, y = torch.rand(3, generator=draw).tolist()
            side = round(min(picture.size) * (0.35 + 0.6 * share))
            left, top = round(x * (picture.width - side)), round(y * (picture.height - side))
            crop = picture.crop((left, top, left + side, top + side))
            crops.append(np.asarray(crop.resize(net.size, Image.Resampling.BICUBIC)))
            names.append(f"{Path(name).stem} {number + 1}")
            labels.append(label)
    classes = tuple(Path(name).stem.replace("_", " ") for name in SET)
    return DataSet("crops", tuple(names), Arrays(np.stack(crops)), tuple(labels), classes)


def photo_folder() -> Path:
    """Where scikit-image keeps its photographs."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SystemExit("the photographs come with scikit-image: install it")
    return Path(found.origin).parent / "data"


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
            return
    smaller = (sheet.width * 4 // 5, sheet.height * 4 // 5)
    keep(sheet.resize(smaller, Image.Resampling.LANCZOS), target)


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
        raise SystemExit(f"there is no explainer, attack or look {unknown[0]}; there are: {', '.join(every)}")
    pages = {name: page(cls, whole=True) for name, cls in every.items()}  # all are looked at before any is written
    paths = {name: ROOMS[cls.room].folder / f"{name}.md" for name, cls in every.items()}
    for room in ROOMS.values():
        room.folder.mkdir(parents=True, exist_ok=True)
    measured = {name: measured_in(path) for name, path in paths.items()}
    if "--texts" not in given:
        photo = photo_folder() / PHOTO
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
            elif issubclass(cls, Look):
                sheet, measured[name] = looked(net, images, cls, forward)
            keep(sheet, paths[name].parent / "images" / f"{name}.jpg")
            sys.stdout.write(f"{name}: {measured[name].splitlines()[0]}\n")
            paths[name].write_text(text(pages[name], measured[name]), encoding="utf-8")
    for name, told in pages.items():
        paths[name].write_text(text(told, measured[name]), encoding="utf-8")
    for room in ROOMS.values():
        listed = index({name: pages[name] for name in known[room.name]}, written_in(room.folder / "README.md"))
        (room.folder / "README.md").write_text(listed, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
