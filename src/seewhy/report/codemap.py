"""The map of codes as a page to look around in: everything inside, drawn on a canvas, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from seewhy import __version__
from seewhy.errors import RunError
from seewhy.report import maps, words
from seewhy.report.parts import Shown

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from seewhy.look.embed import MappedCodes
    from seewhy.report.pictures import Array

#: bytes of thumbnails that a page carries, as they stand in it
BUDGET = 4_000_000

#: what neighbours must do better than the largest class alone before it counts, as a share of what there is to gain
LITTLE = 0.05

#: thumbnails in an atlas, and a row of it
_ATLAS, _COLUMNS = 256, 16

#: classes that the table lists
_ROWS = 30

#: images on the grid at most, each of some 400 bytes in the page, and the width in pixels below which they are drawn larger
_GRID, _SMALL = 256, 360

#: what a map says of itself
_CAVEATS = {
    "tsne": "t-SNE keeps who is near to whom, and little else: distances between groups, their sizes and how dense they are "
    "mean nothing, and another perplexity or another set moves them.",
    "umap": "UMAP keeps who is near to whom, and little else: distances between groups, their sizes and how dense they are "
    "mean little, and another number of neighbours or another set moves them.",
    "pca": "Drawn along the two principal axes: distances are those of the codes, but for what lies along the other axes, which "
    "is not seen.",
}


def reading(found: MappedCodes) -> tuple[str, ...]:
    """How far a map can be read, in sentences made of its numbers."""
    from seewhy.look.embed import FAR

    said = []
    told = "class" if bool((found.labels >= 0).any()) else "predicted class"
    if len(found) == 1:
        return ("One image is one point: there is nothing that it could lie near.",)
    if bool((found.coordinates == found.coordinates[:1]).all()):
        return ("All codes are the same to the layer, so that every image lies at one point.",)
    by_map, by_code = found.knn_map, found.knn_codes
    if _alone(found):
        said.append(f"Most images are alone in their {told}, so that their neighbours cannot be of the same one.")
    elif by_map is not None and by_code is not None:
        said.append(
            f"By the {found.k} nearest in the map the {told} of {words.percent(by_map)} of the images is guessed right, by the "
            f"{found.k} nearest codes that of {words.percent(by_code)}; the largest class alone would be right for "
            f"{words.percent(found.chance)}."
        )
        apart = by_map - by_code
        points = f"{100 * abs(apart):.1f} points"
        if max(by_map, by_code) - found.chance <= LITTLE * (1 - found.chance):
            said.append("Neither is better than guessing: the picture says nothing about these classes.")
        elif abs(apart) <= FAR:
            said.append(
                f"They differ by {points}, so that classes are as mixed in the map as they are among the codes."
            )
        else:
            side = "less" if apart < 0 else "more"
            said.append(
                f"The map is {points} {'worse' if apart < 0 else 'better'}: it shows the classes {side} apart than they are "
                "to the layer; believe the number by code, not the picture."
            )
    if found.trustworthiness is not None and found.kept is not None:
        weight = (
            "near in the map is nearly always near by code"
            if found.trustworthiness >= 0.95
            else "most that is near in the map is near by code"
            if found.trustworthiness >= 0.85
            else "much that is near in the map is not near by code: read no single neighbourhood"
        )
        said.append(
            f"Trustworthiness {found.trustworthiness:.3f} of 1: {weight}; of each image’s {found.k} nearest by code the map "
            f"keeps {words.percent(found.kept)}."
        )
    said.append(_CAVEATS[found.layout])
    if found.divergence is not None:
        said.append(
            f"Kullback–Leibler divergence {found.divergence:.2f} nats at perplexity {found.perplexity:.3g}; it compares maps of "
            "these images at that perplexity only."
        )
    return tuple(said)


def _alone(found: MappedCodes) -> bool:
    """Whether half of the images or more are the only ones of their class, or of the one that is predicted."""
    classes, _ = _told(found)
    known = classes[classes >= 0]
    return len(known) > 0 and int(known.bincount()[known].median()) == 1


@dataclass(frozen=True)
class Row:
    """A class in the table: its images, and the shares that the model, the map's and the codes' neighbours get right."""

    name: str
    images: str
    model: str
    by_map: str
    by_code: str
    taken_for: str


def table(found: MappedCodes) -> tuple[Row, ...]:
    """What the map shows, a row a class, the most frequent first."""
    index, names = _told(found)
    counts = index[index >= 0].bincount()
    rows = []
    for label in counts.argsort(descending=True, stable=True).tolist()[:_ROWS]:
        own = index == label
        if not own.any():
            break
        wrong = found.wrong[own]
        errors = found.predictions[own][wrong == 1]
        most = errors.mode().values if len(errors) else None
        rows.append(
            Row(
                names[label],
                f"{int(own.sum()):,}",
                _percent(1 - wrong[wrong >= 0].double()),
                _percent(found.right_map[own][found.right_map[own] >= 0].double()),
                _percent(found.right_codes[own][found.right_codes[own] >= 0].double()),
                "–" if most is None else f"{found.outputs[int(most)]} ({int((errors == most).sum()):,})",
            )
        )
    return tuple(rows)


def _told(found: MappedCodes) -> tuple[Tensor, tuple[str, ...]]:
    """The classes (N,) that the images are told by and their names: the predicted ones where no true one is known."""
    known = bool((found.labels >= 0).any())
    return (found.labels, found.classes) if known else (found.predictions, found.outputs)


def _percent(right: Any) -> str:
    return words.percent(float(right.mean())) if len(right) else "–"


@dataclass(frozen=True)
class Grid:
    """The images in small, none over another: which they are and what they are framed by, in words, and the colours of that."""

    picture: Shown
    drawn: str
    colour: str
    kinds: tuple[tuple[str, str], ...]
    scale: float


def grid(found: MappedCodes) -> Grid | None:
    """The map moved to a grid, None where there is nothing to lay side by side."""
    if len(found) < 2 or not len(found.thumbnails):
        return None
    colour = "class" if bool((found.labels >= 0).any()) else "prediction"
    picture, drawn = maps.tiled(found, _GRID, colour)
    _, names, colours = maps.categories(found, colour)
    alt = f"The thumbnails of {drawn}, on a grid where those that lie near each other on the map do so, framed by {colour}"
    scale = 1 if picture.width >= _SMALL else picture.width / _SMALL
    shown = Shown(_webp(picture), alt, picture.width, picture.height)
    return Grid(shown, drawn, colour, tuple(zip(names, colours, strict=True)), max(0.5, scale))


def fragment(found: MappedCodes, *, key: str = "map", budget: int = BUDGET, heading: int = 3) -> Markup:
    """The map as a part of a page: a canvas to look around in, its reading, a table, style and script; nothing is loaded.

    `key` makes its ids unique in the page; `budget` is how many bytes of thumbnails it may carry (0: none), of images spread
    over the map; `heading` the level of its headings. It uses the colours of the report's style where the page has them.
    """
    kinds: dict[str, dict[str, Any]] = {}
    for colour in maps.COLOURS:
        if colour == "class" and not bool((found.labels >= 0).any()):
            continue
        if colour == "error" and not bool((found.wrong >= 0).any()):
            continue
        kind, names, colours = maps.categories(found, colour)
        kinds[colour] = {
            "names": names,
            "of": _packed(kind.numpy().astype("<u1")),
            "counts": kind.bincount(minlength=len(names)).tolist(),
            "rest": colours[-1] == maps.REST_LIGHT,
        }
    order, atlases = _atlases(found, budget)
    slots = np.full(len(found), -1, "<i4")
    slots[order] = np.arange(len(order))
    where = found.coordinates.double().numpy()
    low, high = maps._square(where)
    data = {
        "count": len(found),
        "places": _packed(np.rint((where - low) / (high - low) * 65535).astype("<u2")),
        "labels": _packed(found.labels.numpy().astype("<i4")),
        "predictions": _packed(found.predictions.numpy().astype("<i4")),
        "confidence": _packed(np.rint(found.confidence.numpy() * 255).astype("<u1")),
        "wrong": _packed(found.wrong.numpy().astype("<i1")),
        "slots": _packed(slots),
        "names": found.names,
        "classes": _used(found.classes, found.labels.numpy()),
        "outputs": _used(found.outputs, found.predictions.numpy()),
        "kinds": kinds,
        "atlases": atlases,
        "tile": list(reversed(found.thumbnails.shape[2:])) if len(found.thumbnails) else [0, 0],
        "each": _ATLAS,
        "columns": _COLUMNS,
        "light": [*maps.LIGHT, maps.REST_LIGHT],
        "dark": [*maps.DARK, maps.REST_DARK],
        "error": {"light": [maps.LIGHT[0], maps.LIGHT[6], maps.REST_LIGHT], "dark": [maps.DARK[0], maps.DARK[6], maps.REST_DARK]},
    }  # fmt: skip
    shown = len(order)
    told = (
        f"All {len(found):,} images have a thumbnail here."
        if shown == len(found)
        else f"{shown:,} of {len(found):,} images, spread over the map, have a thumbnail here; the others have words."
    )
    return Markup(
        _environment()
        .get_template("map.html")
        .render(
            key=key,
            heading=heading,
            found=found,
            layout=maps.LAYOUTS[found.layout],
            kinds=kinds,
            told=told,
            grid=grid(found) if budget > 0 else None,
            reading=reading(found),
            rows=table(found),
            left=max(0, len(set(_told(found)[0].tolist()) - {-1}) - _ROWS),
            data=_script(data),
        )
    )


def page(found: MappedCodes, budget: int = BUDGET) -> str:
    """A whole page with the map in it."""
    return (
        _environment()
        .get_template("map_page.html")
        .render(found=found, version=__version__, body=fragment(found, heading=2, budget=budget))
    )


def write(found: MappedCodes, path: str | os.PathLike[str]) -> Path:
    """Write the page, whole or not at all, and answer its path; raises `RunError` where it cannot be written."""
    target = Path(path)
    staged = target.with_name(f".{target.name}.part")
    try:
        staged.write_text(page(found), encoding="utf-8", newline="\n")
        os.replace(staged, target)
    except OSError as error:
        raise RunError(f"the page {target} cannot be written: {error.strerror or error}") from error
    return target


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("seewhy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _atlases(found: MappedCodes, budget: int) -> tuple[list[int], list[str]]:
    """The images whose thumbnails fit into the budget, spread over the map, and atlases of them as data URIs."""
    if not len(found.thumbnails) or budget <= 0:
        return [], []
    order = maps.by_cover(found.coordinates)
    chosen: list[int] = []
    atlases: list[str] = []
    spent = 0
    for start in range(0, len(order), _ATLAS):
        some = order[start : start + _ATLAS]
        uri = _webp(maps.atlas(found.thumbnails[some], _COLUMNS))
        spent += len(uri)
        if spent > budget:
            break
        chosen += some
        atlases.append(uri)
    return chosen, atlases


def _webp(picture: Image.Image) -> str:
    """A sheet of thumbnails as a data URI; there are many, so that they are pressed harder than single pictures."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=70, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _used(names: tuple[str, ...], index: Array) -> dict[str, str]:
    """The names that occur, by index."""
    return {str(each): names[each] for each in np.unique(index[index >= 0]).tolist()}


def _packed(values: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _script(data: dict[str, Any]) -> Markup:
    """JSON that no parser of HTML takes for an end of the script."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
