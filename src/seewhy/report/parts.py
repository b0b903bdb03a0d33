"""What sections of the report are made of: pictures in the page, and numbers in few words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from seewhy import units
from seewhy.report import pictures, words
from seewhy.report.pictures import Array
from seewhy.run.store import Timing


@dataclass(frozen=True)
class Section:
    """A section of the report: `content` is what its `template` shows; `within` lists (anchor, title) below it.

    A new one is a module in `seewhy.report.sections` with `section(reading)`, a template, and a line in `seewhy.report.html`.
    """

    anchor: str
    title: str
    template: str
    content: Mapping[str, Any]
    within: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class Shown:
    """A picture in the page: its data URI, what is seen on it, and its size in pixels."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Panel:
    """What one look found on one set, or why it found nothing.

    `whose` names another model and its set, where it is one; `asked` the look as it was asked for, where there are
    several of a kind.
    """

    whose: str
    content: Any
    missing: tuple[str, ...] = ()
    asked: str = ""


def shown(picture: Image.Image, alt: str, kind: Any = "photo") -> Shown:
    return Shown(pictures.data_uri(picture, kind), alt, picture.width, picture.height)


def exact(picture: Image.Image, alt: str) -> Shown:
    """Without loss, since a small change is what is to be seen; tiny images enlarged in whole steps."""
    times = max(1, 192 // max(picture.size))
    size = (picture.width * times, picture.height * times)
    return shown(picture.resize(size, Image.Resampling.NEAREST), alt, "exact")


def middle(values: Sequence[int]) -> str:
    """The median, with the range where there is one."""
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{median(values):,.0f} ({low:,} to {high:,})"


def gradient(sign: pictures.Sign) -> str:
    """The colours of an overlay on mid-grey, as a CSS gradient."""
    strength: Array = np.linspace(-1 if sign == "signed" else 0, 1, 17)
    rgb, opacity = pictures.colours(strength, sign)
    mixed = np.rint(sum(pictures.GREY) / 2 * (1 - opacity[:, None]) + rgb * opacity[:, None]).astype(int)
    return f"linear-gradient(90deg, {', '.join(f'#{bytes(colour.tolist()).hex()}' for colour in mixed)})"


def code(text: str) -> Markup:
    """Text with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def says(given: Mapping[str, Any]) -> str:
    """A class with its probability."""
    return f"{given['label']}, {words.percent(given['probability'])}"


def took(timing: Timing | None) -> tuple[str, ...]:
    """What a step took, as a fact; none where it is not known."""
    return () if timing is None else (units.seconds(timing.seconds),)
