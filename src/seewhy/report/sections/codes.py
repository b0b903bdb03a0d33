"""The map of codes, made again from a run's arrays for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from seewhy.engine import Cost
from seewhy.look.embed import MappedCodes
from seewhy.report import codemap
from seewhy.report.reading import Reading
from seewhy.run.store import Result, key_of

#: what a map's row holds as arrays, and in its record under the names that the map itself has
_PLACED = ("coordinates", "labels", "predictions", "confidence", "indices", "right_map", "right_codes")
_SAID = (
    *("method", "model", "layer", "layout", "comparable", "k", "perplexity", "chance"),
    *("trustworthiness", "kept", "divergence"),
)


@dataclass(frozen=True)
class Mapped:
    """The map of codes, to look around in."""

    fragment: Markup
    facts: tuple[str, ...]


def mapped(reading: Reading, row: Result, planned: dict[str, Any]) -> Mapped:
    """The map as it was when it was made, but for the codes, which the page has no use for."""
    record, run = row.record, reading.run
    held = {name: torch.from_numpy(run.array(row.image, row.step, name)) for name in _PLACED}
    whole = {name: held[name].long() for name in _PLACED if name not in ("coordinates", "confidence")}
    none = torch.zeros(0, 0)
    known: dict[str, Any] = {name: record[name] for name in _SAID} | held | whole
    found = MappedCodes(
        **known,
        fingerprint=planned["fingerprint"],
        classes=tuple(record["classes"]),
        outputs=tuple(record["outputs"]),
        names=tuple(record["names"]),
        thumbnails=_thumbnails(reading, record),
        reduced=none,
        mean=none,
        directions=none,
        nearest=none,
        failed=tuple((each["image"], each["error"]) for each in record["failed"]),
        cost=Cost(**record["cost"]),
        notes=tuple(record["notes"]),
    )
    return Mapped(codemap.fragment(found, key=f"{row.image}-{key_of(row.step)}", heading=4), reading.cost([row]))


def _thumbnails(reading: Reading, record: dict[str, Any]) -> Tensor:
    """The images in small (N, 3, h, w), 8 bits; none where the run has lost them."""
    sheet = reading.opened(record["pictures"]["thumbnails"])
    height, width = record["thumbnail"]
    if sheet is None:
        return torch.zeros(0, 3, height, width, dtype=torch.uint8)
    pixels = torch.from_numpy(np.array(sheet))
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    laid = pixels.view(rows, height, columns, width, 3).permute(0, 2, 4, 1, 3)
    return laid.reshape(-1, 3, height, width)[: record["images"]].contiguous()
