"""What a layer answers to a photograph, before and after the attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seewhy.report import pictures, words
from seewhy.report.parts import Shown, shown
from seewhy.report.reading import Reading
from seewhy.run.store import Result

#: channels that are shown, and pixels of the longer side of a map
_CHANNELS, _TILE = 8, 112


@dataclass(frozen=True)
class Layer:
    """A layer's maps before and after an attack."""

    address: str
    channels: str
    strips: tuple[tuple[str, Shown], ...]
    facts: tuple[str, ...]


def layer(reading: Reading, row: Result) -> Layer:
    record = row.record
    names = [name for name in ("before", "after") if name in reading.run.names(row.image, row.step)]
    maps = {name: reading.run.array(row.image, row.step, name) for name in names}
    few = {name: values[:_CHANNELS] for name, values in maps.items()}
    scale = pictures.robust_scale(np.stack(list(few.values()))) if few else 0.0
    channels = record["channels"]
    drawn = channels[: len(next(iter(few.values()), []))]
    strips = []
    for name, values in few.items():
        tiles = pictures.map_tiles(values, scale, _TILE)
        gap = max(2, tiles[0].width // 20)
        strip = pictures.montage(tiles, len(tiles), gap)
        place = pictures.where(values[0])
        alt = f"{record['layer']} {name} the attack: {len(tiles)} channels; the first is {place}"
        strips.append((name, shown(strip, alt)))
    facts = []
    if "before" in maps and maps["before"].ndim == 3:
        _, height, width = maps["before"].shape
        facts.append(f"{height} × {width} positions")
    facts.append(f"colours up to {words.figure(scale)}")
    zero = f"{words.percent(record['zero'])} of all values at or below zero"
    after = record.get("zero_after")
    facts.append(zero if after is None else f"{zero} before, {words.percent(after)} after")
    if "after" in maps:
        norm = float(np.linalg.norm(maps["before"]))
        if norm:
            moved = float(np.linalg.norm(maps["after"] - maps["before"])) / norm
            facts.append(f"the kept channels changed by {100 * moved:.2g}{words.NBSP}% (ℓ₂)")
    # fewer channels are drawn than the run keeps
    kept, few_of = f"{len(channels)} of ", f"{len(drawn)} of "
    facts += [
        note.replace(kept, few_of, 1) if note.endswith("channels are shown") else note
        for note in record.get("notes", ())
    ]
    return Layer(
        record["layer"],
        ", ".join(str(channel) for channel in drawn),
        tuple(strips),
        tuple(facts),
    )
