"""Maps, photographs and differences as pictures: plain arrays in, Pillow images out, and what their colours mean.

Each picture is made with a scale of its own, and hands it on: nothing is shown whose colours cannot be read back to
numbers.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]
Sign = Literal["absolute", "positive", "signed"]

#: the share of a map's values that lie within its colour scale; what is beyond it has the strongest colour
SHARE = 0.999

#: colours for values above and below zero, apart in every common kind of colour blindness
ABOVE, BELOW = (255, 128, 14), (44, 160, 255)

#: black and white of the photograph under a map: darkened, so that colours stand out against it
GREY = (14, 150)

# Anchors of "inferno" (van der Walt & Smith 2015, CC0), perceptually uniform from dark to light.
_INFERNO = "000004160b39420a686a176e932667bc3754dd513af37819fca50af6d746fcffa4"
_ANCHORS = np.frombuffer(bytes.fromhex(_INFERNO), dtype=np.uint8).reshape(-1, 3).astype(np.float32)

# Anchors on white: single hues whose lightness falls evenly, orange and blue being apart in every kind of colour blindness.
_ABOVE_WHITE = np.array([(255, 255, 255), (254, 217, 166), (247, 156, 74), (212, 92, 12), (127, 48, 4)], np.float32)
_BELOW_WHITE = np.array([(255, 255, 255), (190, 219, 244), (107, 170, 222), (37, 109, 178), (8, 54, 107)], np.float32)
_SEQUENTIAL = _ABOVE_WHITE

_PLACES = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the centre", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)


@dataclass(frozen=True)
class Overlay:
    """A map over a photograph: `picture`, and the `scale` at which its colours are strongest (0: the map is zero)."""

    picture: Image.Image
    scale: float


def heat(values: Array, sign: Sign) -> Array:
    """One map (h, w) of signed values (C, h, w): channels added up, then signed, positive part or absolute value.

    >>> heat(np.array([[[1.0, -3.0]], [[1.0, 1.0]]]), "absolute")
    array([[2., 4.]])
    """
    if sign == "absolute":
        return np.asarray(np.abs(values).sum(0))
    summed = np.asarray(values.sum(0))
    return np.maximum(summed, 0) if sign == "positive" else summed


def robust_scale(values: Array, share: float = SHARE) -> float:
    """The size below which `share` of the absolute values lie; the largest where that is zero."""
    sizes = np.abs(values)
    return float(np.quantile(sizes, share)) or float(sizes.max(initial=0.0))


def colours(strength: Array, sign: Sign) -> tuple[Array, Array]:
    """Colours (…, 3) in 0 to 255 and opacities (…) in [0, 1] of strengths in [−1, 1].

    Zero lets the photograph show through. Signed maps go to orange above and to blue below; others up "inferno".
    """
    size = np.clip(np.abs(strength), 0, 1).astype(np.float32)
    if sign == "signed":
        rgb = np.where(strength[..., None] >= 0, ABOVE, BELOW).astype(np.float32)
    else:
        rgb = ramp(0.15 + 0.85 * size)
    return rgb, 0.97 * np.sqrt(size)


def ramp(strength: Array) -> Array:
    """The colours (…, 3) of "inferno", in 0 to 255, of strengths in [0, 1]."""
    places = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(strength, places, _ANCHORS[:, c]) for c in range(3)], -1).astype(np.float32)


def white_to(strength: Array, sign: Sign) -> Array:
    """Colours (…, 3) in 0 to 255 of strengths in [−1, 1] on white, which is zero; even steps of lightness on both sides.

    Signed maps go to orange above and to blue below; others through orange to a dark brown.
    """
    stops = _SEQUENTIAL if sign != "signed" else _ABOVE_WHITE
    size = np.clip(strength if sign == "signed" else np.abs(strength), -1, 1)
    up, down = _along(stops, np.maximum(size, 0)), _along(_BELOW_WHITE, np.maximum(-size, 0))
    return np.where(size[..., None] >= 0, up, down)


def ink(ground: Array) -> str:
    """Black or white, whichever has the higher contrast ratio (WCAG 2) with a colour (3,) in 0 to 255: at least 4.5 : 1.

    >>> ink(np.array([212, 92, 12])), ink(np.array([8, 54, 107]))
    ('#000000', '#ffffff')
    """
    share = np.asarray(ground, dtype=float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    # (L + 0.05) / 0.05 against black, 1.05 / (L + 0.05) against white
    return "#000000" if (luminance + 0.05) ** 2 >= 0.05 * 1.05 else "#ffffff"


def _along(stops: Array, places: Array) -> Array:
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(places, at, stops[:, c]) for c in range(3)], -1).astype(np.float32)


def on_white(values: Array, scale: float, sign: Sign, size: tuple[int, int]) -> Image.Image:
    """One map (h, w) alone, enlarged bilinearly to a size (width, height): zero is white, `scale` the strongest colour."""
    strength = resized(values / scale if scale else np.zeros_like(values), size)
    return Image.fromarray(np.rint(white_to(strength, sign)).astype(np.uint8))


def ringed(picture: Array, mask: Array) -> Array:
    """A picture (h, w, 3) of 8 bits with the border of a region outlined: a white line inside, a black one around it."""
    within = mask.copy()
    for axis in (0, 1):
        for step in (1, -1):
            beside = np.roll(mask, step, axis)
            edge = [slice(None), slice(None)]
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            beside[tuple(edge)] = False  # a region ends at the picture's border
            within &= beside
    around = np.zeros_like(mask)
    around[1:] |= mask[:-1]
    around[:-1] |= mask[1:]
    around[:, 1:] |= mask[:, :-1]
    around[:, :-1] |= mask[:, 1:]
    result = picture.copy()
    result[around & ~mask] = 0
    result[mask & ~within] = 255
    return result


def overlay(photo: Image.Image, values: Array, sign: Sign, scale: float | None = None) -> Overlay:
    """Lay one map (h, w), enlarged bilinearly, over a photograph in grey; `scale` is the map's own unless it is given."""
    scale = robust_scale(values) if scale is None else scale
    strength = resized(values / scale if scale else np.zeros_like(values), photo.size)
    rgb, opacity = colours(strength, sign)
    grey = GREY[0] + (GREY[1] - GREY[0]) / 255 * np.asarray(photo.convert("L"), dtype=np.float32)
    mixed = grey[..., None] * (1 - opacity[..., None]) + rgb * opacity[..., None]
    return Overlay(Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8)), scale)


def resized(values: Array, size: tuple[int, int]) -> Array:
    """A map (h, w) at another size (width, height), bilinearly, as the models' own resizing does it."""
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR))


def to_picture(pixels: Array) -> Image.Image:
    """A picture of pixels (3, H, W) in [0, 1], rounded to 8 bits."""
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def amplification(difference: Array) -> int:
    """The largest round factor (1, 2, 5, 10, …) that keeps an amplified difference inside the range of grey ± half.

    >>> amplification(np.array([1 / 255])), amplification(np.array([-8 / 255]))
    (100, 10)
    """
    largest = float(np.abs(difference).max(initial=0.0))
    if largest == 0:
        return 1
    room = 0.5 / largest * (1 + 1e-6)
    power = 10 ** math.floor(math.log10(max(room, 1)))
    return int(max(step * power for step in (1, 2, 5) if step * power <= max(room, 1)))


def amplified(original: Array, changed: Array) -> tuple[Image.Image, int]:
    """The difference of two images (3, H, W) in [0, 1] around mid-grey, and the factor by which it was enlarged."""
    difference = changed - original
    factor = amplification(difference)
    return to_picture(0.5 + factor * difference), factor


def fitted(picture: Image.Image, longest: int, *, enlarge: bool = False) -> Image.Image:
    """The picture with its longer side at most `longest` pixels (exactly, with `enlarge`)."""
    ratio = longest / max(picture.size)
    if ratio >= 1 and not enlarge:
        return picture
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    # a tiny picture is shown as the pixels that it has
    return picture.resize(size, Image.Resampling.NEAREST if ratio >= 4 else Image.Resampling.LANCZOS)


def region(photo: Image.Image, box: Sequence[float]) -> Image.Image:
    """What lies under `box` (left, top, right, bottom) of a photograph; black where the box reaches past it."""
    left, top, right, bottom = (round(edge) for edge in box)
    return photo.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def outlined(photo: Image.Image, box: Sequence[float]) -> Image.Image:
    """The photograph with the model's crop outlined and the rest of it darkened."""
    left, top, right, bottom = (round(edge) for edge in box)
    inside = (max(left, 0), max(top, 0), min(right, photo.width), min(bottom, photo.height))
    if inside[2] - inside[0] >= photo.width and inside[3] - inside[1] >= photo.height:
        return photo
    result = photo.point(lambda value: round(value * 0.45))
    result.paste(photo.crop(inside), inside[:2])
    width = max(2, round(max(photo.size) / 320))
    draw = ImageDraw.Draw(result)
    edge = (inside[0], inside[1], inside[2] - 1, inside[3] - 1)
    draw.rectangle(edge, outline=(0, 0, 0), width=width)
    draw.rectangle(
        (edge[0] + width // 2, edge[1] + width // 2, edge[2] - width // 2, edge[3] - width // 2),
        outline=(255, 255, 255),
        width=max(1, width // 2),
    )
    return result


def montage(tiles: Sequence[Image.Image], columns: int, gap: int) -> Image.Image:
    """Tiles of one size in rows, with transparent gaps."""
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    canvas = Image.new("RGBA", (columns * (width + gap) - gap, rows * (height + gap) - gap), (0, 0, 0, 0))
    for index, tile in enumerate(tiles):
        canvas.paste(tile, (index % columns * (width + gap), index // columns * (height + gap)))
    return canvas


def filter_tiles(tiles: Array, scale: float, side: int) -> list[Image.Image]:
    """Filters (T, h, w, 3) or (T, h, w) as squares of about `side` pixels: ±`scale` is white and black, 0 mid-grey."""
    shown = []
    for tile in tiles:
        level = np.rint(np.clip(tile / (scale or 1) * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
        picture = Image.fromarray(level).convert("RGB")
        times = max(1, side // max(picture.size))
        shown.append(picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST))
    return shown


def map_tiles(maps: Array, scale: float, side: int) -> list[Image.Image]:
    """Maps (K, h, w) as squares of about `side` pixels, on one scale: 0 dark, `scale` light; below zero blue."""
    shown = []
    for values in maps:
        rgb = map_colours(values / (scale or 1))
        picture = Image.fromarray(np.rint(rgb).astype(np.uint8))
        if max(picture.size) > side:
            picture = fitted(picture, side)
        else:
            times = max(1, side // max(picture.size))
            picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
        shown.append(picture)
    return shown


def map_colours(strength: Array) -> Array:
    """The colours (…, 3) of a layer's maps, of strengths in [−1, 1]: dark at zero, light above, blue below."""
    below = np.clip(-strength, 0, 1)[..., None]
    return np.asarray(ramp(np.clip(strength, 0, 1)) * (1 - below) + np.array(BELOW) * below)


def where(values: Array) -> str:
    """In words, where a map (h, w) is strongest: "in the upper left"; or that it is spread out, or zero.

    The strength in each ninth of the picture is compared: spread out means that the strongest ninth holds less than a
    sixth of all.
    """
    sizes = np.abs(values)
    total = float(sizes.sum())
    if total == 0:
        return "zero everywhere"
    height, width = sizes.shape
    # each pixel is shared between the ninths by area, so that small maps are judged fairly too
    rows, columns = _thirds(height), _thirds(width)
    ninths = rows @ sizes @ columns.T / total
    row, column = np.unravel_index(int(ninths.argmax()), (3, 3))
    if ninths[row, column] < 1 / 6:
        return "spread over the whole picture"
    return f"strongest {_PLACES[row][column]}"


def _thirds(length: int) -> Array:
    """How much of each of `length` pixels lies in each third, (3, length)."""
    edges = np.arange(length + 1) / length * 3
    return np.stack([np.clip(edges[1:], k, k + 1) - np.clip(edges[:-1], k, k + 1) for k in range(3)]) * (length / 3)


def data_uri(picture: Image.Image, kind: Literal["photo", "exact", "png"] = "photo") -> str:
    """A picture inside a page: "photo" WebP with little loss, "exact" WebP without any, "png"."""
    buffer = io.BytesIO()
    if kind == "png":
        picture.save(buffer, "PNG", optimize=True)
    elif kind == "exact":
        picture.save(buffer, "WEBP", lossless=True, quality=50, method=2)
    else:
        picture.save(buffer, "WEBP", quality=82, method=2)
    name = "png" if kind == "png" else "webp"
    return f"data:image/{name};base64,{base64.b64encode(buffer.getvalue()).decode()}"
