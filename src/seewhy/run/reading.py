"""An image of an audit: read, kept, and put to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from PIL import Image as Picture

from seewhy.data.images import Images
from seewhy.data.photo import prepared
from seewhy.engine import Meter
from seewhy.errors import NothingToExplain, SeewhyError
from seewhy.run.job import Found, Job, class_of, picture_of
from seewhy.run.plan import Planned
from seewhy.run.store import ImageRow

#: the longer side of the photographs that a run keeps, in pixels
LONGEST = 800

#: how many classes `predict` lists
TOP = 5


def read(job: Job, planned: Planned) -> Images | None:
    """Read an image and keep its row; None where it cannot be read, which the row says."""
    item = job.material.entries[planned.position].item
    row = ImageRow(planned.id, planned.position, planned.name, planned.path, planned.sha256, "ok", None, {})
    try:
        picture, notes = item.open()
        images = prepared(picture, job.net.preprocess, planned.name, notes)
    except SeewhyError as error:
        job.run.put_image(replace(row, status="failed", error=str(error)))
        return None
    if not job.run.read_before(planned.id):
        geometry = images.geometry[0]
        files = {"original": f"{planned.id}.png", "seen": f"{planned.id}-seen.png"}
        record = {
            **({} if geometry is None else {key: list(value) for key, value in asdict(geometry).items()}),
            "notes": list(images.notes[0]),
            "label": planned.label,
            "credit": planned.credit,
            "pictures": files,
        }
        kept = {files["original"]: _smaller(picture), files["seen"]: picture_of(images.pixels[0])}
        job.run.put_image(replace(row, record=record), kept)
    return images


def predict(job: Job, planned: Planned, images: Images) -> Found:
    """What the model says of an image; raises `NothingToExplain` where that is no number."""
    with Meter(job.net.engine.device) as meter:
        logits = job.net.predict(images)[0].cpu()
    if not bool(torch.isfinite(logits).all()):
        raise NothingToExplain(f"{job.net.name} answers {planned.name} with NaN or infinity")
    order = logits.argsort(descending=True, stable=True)[:TOP].tolist()
    record = {
        "top": [class_of(job.net, logits, index) for index in order],
        "truth": None if planned.label is None else class_of(job.net, logits, planned.label),
    }
    return Found(record, meter.cost, (), {"logits": logits.numpy()})


def right(record: Mapping[str, Any] | None) -> bool | None:
    """Whether a `predict` record's first class is the true one; None where that is not known."""
    if not record or not record["truth"] or not record["top"]:
        return None
    return bool(record["truth"]["index"] == record["top"][0]["index"])


def _smaller(picture: Picture.Image) -> Picture.Image:
    kept = picture.convert("RGB")
    kept.info = {}  # a photograph's own data, such as where it was taken, are nobody's business
    kept.thumbnail((LONGEST, LONGEST), Picture.Resampling.LANCZOS)
    return kept
