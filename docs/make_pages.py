"""Make docs/methods: a page for every explainer, from its docstring, with a picture and what it cost; and their index.

python docs/make_pages.py            every page, every picture drawn and measured anew
python docs/make_pages.py lrp lime   these alone
python docs/make_pages.py --texts    the texts alone; pictures and costs stay as they are
"""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from pathlib import Path

from PIL import Image

from seewhy import load, units
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.explain.base import Explainer
from seewhy.method import registry
from seewhy.report import pictures, words
from seewhy.report.pages import Page, page

FOLDER = Path(__file__).resolve().parent / "methods"

#: the network and the photograph of the pictures, the picture's height, and the most that one may weigh
NET, PHOTO, SIDE, MOST = "efficientnet-lite0", "chelsea.png", 300, 60_000

_MEASURED = re.compile(r"<!-- measured -->\n(.*?)\n<!-- /measured -->", re.DOTALL)


def explainers() -> dict[str, type[Explainer]]:
    """Every explainer by its name, in the order in which they are shown."""
    known = {name: cls for name, cls in registry("explain").items() if issubclass(cls, Explainer)}
    return dict(sorted(known.items(), key=lambda item: words.rank(item[0])))


def plain(text: str) -> str:
    """Text in which Markdown finds no marks but the code in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*<|])", r"\\\1", part.replace("<", "&lt;")) for part in parts
    )


def text(told: Page, measured: str) -> str:
    """A page in Markdown; `measured` is what cannot be made of the docstring."""
    picture = f"![The photograph, and {told.title} over it](images/{told.name}.jpg)"
    lines = [f"# {told.title}", "", f"{plain(told.shows)} {plain(told.reading)}", "", picture, ""]
    lines += ["<!-- measured -->", measured, "<!-- /measured -->", "", plain(told.formula), ""]
    for paragraph in told.about:
        lines += [plain(paragraph), ""]
    lines += ["## Options", ""]
    if told.options:
        lines += ["| option | takes | default |", "| --- | --- | --- |"]
        lines += [f"| `{each.name}` | {each.kind} | `{each.default}` |" for each in told.options]
    else:
        lines.append("It has none.")
    for name, said in told.parts.items():
        lines += ["", f"## {name}", "", plain(said[:1].upper() + said[1:])]
    lines += ["", "## Example", "", "```python", told.example, "```", ""]
    given = "".join(f":{each.name}={each.default}" for each in told.options[:1] if each.default != "none")
    lines += ["```sh", f"seewhy explain cat.jpg --method {told.name}{given}", "```", ""]
    lines.append(f"All methods: [methods](README.md). Made from the docstring of `{told.name}` by `make docs`.")
    return "\n".join(lines) + "\n"


def index(pages: dict[str, Page]) -> str:
    """The list of all methods, family by family."""
    lines = ["# Why this decision? The methods", ""]
    lines += [f"Each map is of {PHOTO} (scikit-image) and EfficientNet-Lite0. What it took stands on each page.", ""]
    family = ""
    for told in pages.values():
        if told.family != family:
            family = told.family
            lines += ["", f"## {family}", "", "| method | what it shows | limits |", "| --- | --- | --- |"]
        lines.append(f"| [{told.title}]({told.name}.md) | {plain(told.shows)} | {plain(told.parts['Limits'])} |")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def measured_in(path: Path) -> str:
    """What a page says that was measured, empty where there is none."""
    found = _MEASURED.search(path.read_text(encoding="utf-8")) if path.exists() else None
    return found.group(1) if found else ""


def measure(net: Classifier, images: Images, cls: type[Explainer], forward: float) -> str:
    """Explain the photograph with default settings, keep the picture, and say what it took."""
    method = cls()
    found = method(net, images)
    probability = float(net.predict(images)[0].softmax(-1)[found.target[0]])
    values = pictures.heat(found.values[0].numpy(), found.sign)
    photo = pictures.to_picture(images.pixels[0].numpy()).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    laid = pictures.overlay(photo, values, found.sign)
    sheet = Image.new("RGB", (2 * SIDE + 10, SIDE), "white")
    sheet.paste(photo, (0, 0))
    sheet.paste(laid.picture, (SIDE + 10, 0))
    target = FOLDER / "images" / f"{cls.name}.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    for quality in (85, 75, 60, 45):
        sheet.save(target, quality=quality, optimize=True)
        if target.stat().st_size <= MOST:
            break
    low = "±" if found.sign == "signed" else "0 to "
    colours = f"orange for it, blue against it, {low}" if found.sign == "signed" else f"brighter is stronger, {low}"
    facts = [words.passes(found.cost.forward, found.cost.backward)]
    facts.append(f"{units.seconds(found.cost.seconds)}, {found.cost.seconds / forward:.3g} × one forward pass")
    facts += [words.measure(key, float(value[0])) for key, value in found.measures.items()]
    said = [f"{PHOTO} and `{method.spec}` for {found.labels[0]} ({words.percent(probability)}): {colours}"]
    said[0] += f"{words.figure(laid.scale)}. Here it took {'; '.join(facts)}."
    said += [f"*{note[:1].upper()}{note[1:]}.*" for note in found.notes]
    return "\n\n".join(said)


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
    known = explainers()
    names = [name for name in given if name != "--texts"] or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"there is no explainer {unknown[0]}; there are: {', '.join(known)}")
    pages = {name: page(cls, whole=True) for name, cls in known.items()}  # all are looked at before any is written
    FOLDER.mkdir(parents=True, exist_ok=True)
    measured = {name: measured_in(FOLDER / f"{name}.md") for name in known}
    if "--texts" not in given:
        found = importlib.util.find_spec("skimage")
        if found is None or found.origin is None:
            raise SystemExit("the photograph comes with scikit-image: install it")
        net = load(NET)
        images = net.read(Path(found.origin).parent / "data" / PHOTO)
        forward = single(net, images)
        for name in names:
            measured[name] = measure(net, images, known[name], forward)
            sys.stdout.write(f"{name}: {measured[name].splitlines()[0]}\n")
            (FOLDER / f"{name}.md").write_text(text(pages[name], measured[name]), encoding="utf-8")
    for name, told in pages.items():
        (FOLDER / f"{name}.md").write_text(text(told, measured[name]), encoding="utf-8")
    (FOLDER / "README.md").write_text(index(pages), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
