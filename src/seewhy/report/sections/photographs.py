"""The photographs: each with what the model says, why, how it is fooled, and what its layers answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from seewhy.report import pictures, words
from seewhy.report.parts import Section, Shown, shown
from seewhy.report.reading import Reading
from seewhy.report.sections.attacked import Attacked, Moved, attacked, judged_image, moved
from seewhy.report.sections.layers import Layer, layer
from seewhy.report.sections.why import Why, why
from seewhy.run.reading import right
from seewhy.run.store import ImageRow

#: pixels of the longer side: explanations, photographs
_MAP, _PHOTO = 448, 800


@dataclass(frozen=True)
class Photo:
    """One photograph with all that was found on it."""

    anchor: str
    name: str
    photo: Shown
    crop: str
    credit: str
    notes: tuple[str, ...]
    top: tuple[tuple[str, str, float], ...]
    truth: str
    right: bool | None
    why: Why | None
    attacks: tuple[Attacked, ...]
    moved: tuple[Moved, ...]
    layers: tuple[Layer, ...]
    failed: tuple[tuple[str, str], ...]


def section(reading: Reading) -> Section | None:
    """The section, None where no photograph could be read."""
    found = [
        photo(reading, image, seen)
        for image in reading.images
        if image.id in reading.anchors and (seen := reading.seen(image)) is not None
    ]
    if not found:
        return None
    return Section(
        found[0].anchor,
        "The photographs",
        "photographs.html",
        {"photos": found, "share": f"{100 * (1 - pictures.SHARE):.1g} %"},
        tuple((each.anchor, each.name) for each in found),
    )


def photo(reading: Reading, image: ImageRow, seen: Image.Image) -> Photo:
    """One photograph, `seen` as the model saw it."""
    whole = reading.opened(image.record["pictures"].get("original", "")) or seen
    anchor = reading.anchors[image.id]
    rows = [row for row in reading.of(image.id) if row.ok]
    predict = next((row.record for row in rows if row.step == "predict"), None)
    attacks = [row for row in rows if "p_before" in row.record]
    top = predict["top"] if predict else []
    truth = predict["truth"] if predict else None
    box = _scaled(image.record["box"], whole, image.record["original"]) if whole is not seen else None
    base = pictures.fitted(pictures.region(whole, box) if box else seen, _MAP, enlarge=True)
    return Photo(
        anchor=anchor,
        name=image.name,
        photo=shown(
            pictures.fitted(pictures.outlined(whole, box) if box else seen, _PHOTO),
            _photo_alt(image, top, box is not None),
        ),
        crop=_crop(image.record, box is not None),
        credit=str(image.record.get("credit") or ""),
        notes=tuple(image.record.get("notes", ())),
        top=tuple((c["label"], words.percent(c["probability"]), 100 * c["probability"]) for c in top),
        truth=truth["label"] if truth else "",
        right=right(predict),
        why=why(reading, rows, base),
        attacks=tuple(attacked(reading, image, row, seen, anchor, row is attacks[0]) for row in attacks),
        moved=moved(reading, rows, base, judged_image(reading, rows)),
        layers=tuple(layer(reading, row) for row in rows if "channels" in row.record and "zero" in row.record),
        failed=tuple((row.step, row.error or "") for row in reading.of(image.id) if not row.ok),
    )


def _scaled(box: Sequence[float], picture: Image.Image, original: Sequence[int]) -> tuple[float, ...]:
    """A box on the original photograph, on its picture in the run."""
    down, across = picture.height / original[0], picture.width / original[1]
    return (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def _photo_alt(image: ImageRow, top: Sequence[Mapping[str, Any]], outlined: bool) -> str:
    seen = f", which the model takes for {top[0]['label']}" if top else ""
    return f"The photograph {image.name}{seen}" + ("; what the model does not see is darkened" if outlined else "")


def _crop(record: Mapping[str, Any], outlined: bool) -> str:
    (height, width), (high, wide) = record["original"], record["size"]
    if not outlined:
        return f"As the model saw it, {wide} × {high} pixels."
    left, top, right, bottom = record["box"]
    if left <= 0.5 and top <= 0.5 and right >= width - 0.5 and bottom >= height - 0.5:
        return f"{width} × {height} pixels; the model sees all of it, at {wide} × {high}."
    return f"{width} × {height} pixels; the model sees what is inside the frame, at {wide} × {high}."
