"""Photographs: any usual file to upright sRGB, then the model's own resize-and-crop with its geometry."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor

from seewhy.data.images import Geometry, Images, Preprocess
from seewhy.errors import DataError, InputError, SpecError

#: a picture in RGB, and what was done to it that a reader should know
Picture = tuple[Image.Image, tuple[str, ...]]

#: the endings under which a folder's images are looked for
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")

#: pixels that an image may have; the environment variable SEEWHY_MAX_PIXELS sets another limit
LIMIT = 120_000_000

# Plugins are called by what the file begins with, not through Image.open: that has a limit of its own, which is one
# for the whole process, and would try every format that Pillow knows.
_OPENERS: tuple[tuple[tuple[bytes, ...], Callable[[IO[bytes], str], Image.Image]], ...] = (
    ((b"\xff\xd8\xff",), JpegImagePlugin.jpeg_factory),
    ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ((b"BM",), BmpImagePlugin.BmpImageFile),
    ((b"RIFF",), WebPImagePlugin.WebPImageFile),
)
_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, struct.error, zlib.error),
)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def read(path: str | os.PathLike[str], preprocess: Preprocess) -> Images:
    """Read one photograph as a model sees it: pixels (1, 3, H, W) in [0, 1], with its geometry and notes.

    Raises `DataError` where the file cannot be read as an image.
    """
    picture, notes = open_photo(path)
    return prepared(picture, preprocess, Path(path).name, notes)


def open_photo(source: str | os.PathLike[str] | bytes, name: str = "") -> Picture:
    """Open a JPEG, PNG, WebP, TIFF, BMP or GIF (its first frame), from a file or its bytes: (upright sRGB, notes).

    EXIF rotation is applied, colour profiles are converted to sRGB, 16 bits scaled to 8, and transparent parts laid
    over white; the notes say so. Raises `DataError` for what is not an image, is broken, or has more pixels than
    `SEEWHY_MAX_PIXELS` (refused before any pixel is decoded).
    """
    if isinstance(source, bytes):
        return _opened(io.BytesIO(source), name or "image")
    path = Path(source)
    name = name or str(path)
    if path.is_dir():
        raise DataError(f"expected an image file, got a folder: {path}")
    try:
        with path.open("rb") as stream:
            return _opened(stream, name)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from None


def from_array(array: np.ndarray[Any, Any], preprocess: Preprocess, name: str = "image") -> Images:
    """Prepare an array (H, W, 3), (H, W, 1) or (H, W) of uint8, or of uint16, as `read` does a photograph."""
    return prepared(picture_of(array), preprocess, name)


def picture_of(array: np.ndarray[Any, Any]) -> Image.Image:
    """A picture in RGB of an array (H, W, 3), (H, W, 1) or (H, W); uint8 as it is, uint16 scaled to 8 bits."""
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.ndim not in (2, 3) or (flat.ndim == 3 and flat.shape[2] != 3) or 0 in flat.shape:
        raise InputError(f"expected an array (H, W, 3) or (H, W), got {tuple(array.shape)}")
    if flat.dtype == np.uint16:
        flat = _eight_bits(flat)
    if flat.dtype != np.uint8:
        raise InputError(f"expected an array of uint8 or uint16, got {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")


def prepared(
    picture: Image.Image,
    preprocess: Preprocess,
    name: str = "image",
    notes: tuple[str, ...] = (),
    label: int | None = None,
) -> Images:
    """A picture in RGB as a batch of one."""
    pixels, geometry, more = fit(picture, preprocess)
    labels = None if label is None else torch.tensor([label])
    return Images(pixels[None], (name,), (geometry,), labels, ((*notes, *more),))


def fit(picture: Image.Image, preprocess: Preprocess) -> tuple[Tensor, Geometry, tuple[str, ...]]:
    """Resize and crop a picture in RGB as a model wants it: (pixels (3, H, W) in [0, 1], geometry, notes).

    Bit for bit what torchvision's Resize (antialiased, on PIL images) and CenterCrop make of it; a picture that has
    the model's size already is only divided by 255.
    """
    (width, height), (high, wide) = picture.size, preprocess.size
    scaled_width, scaled_height = _scaled(width, height, preprocess)
    left, top = _centred(scaled_width, wide), _centred(scaled_height, high)
    seen = (max(left, 0), max(top, 0), min(left + wide, scaled_width), min(top + high, scaled_height))
    across, down = width / scaled_width, height / scaled_height
    try:
        filter_ = _RESAMPLING[preprocess.interpolation]
    except KeyError:
        raise SpecError(
            f'expected an interpolation of {", ".join(_RESAMPLING)}, got "{preprocess.interpolation}"'
        ) from None
    if scaled_width * scaled_height <= LIMIT:
        part = picture.resize((scaled_width, scaled_height), filter_).crop(seen)
    else:  # a very long strip: only what the model sees of it is made, equal to within rounding
        box = (seen[0] * across, seen[1] * down, min(seen[2] * across, width), min(seen[3] * down, height))
        part = picture.resize((seen[2] - seen[0], seen[3] - seen[1]), filter_, box)
    if part.size != (wide, high):
        canvas = Image.new("RGB", (wide, high))
        canvas.paste(part, (seen[0] - left, seen[1] - top))
        part = canvas
    pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1).contiguous().float() / 255
    box = (left * across, top * down, (left + wide) * across, (top + high) * down)
    return pixels, Geometry((height, width), box, (high, wide)), _fit_notes(picture.size, seen, (across, down))


def original(source: str | os.PathLike[str] | bytes, longest: int | None = None) -> Image.Image:
    """A photograph as a reader knows it, upright and in RGB, its longer side at most `longest` pixels."""
    picture, _ = open_photo(source)
    if longest is not None and max(picture.size) > longest:
        scale = longest / max(picture.size)
        picture = picture.resize(
            (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.LANCZOS
        )
    return picture


def _opened(stream: IO[bytes], name: str) -> Picture:
    head = stream.read(64)
    stream.seek(0)
    if not head:
        raise DataError(f"{name} is empty")
    openers = [opener for begins, opener in _OPENERS if head.startswith(begins)]
    if not openers:
        raise DataError(f"{name} is not an image: expected JPEG, PNG, WebP, TIFF, BMP or GIF, {_looks_like(head)}")
    limit = _limit()
    try:
        image = openers[0](stream, name)
        width, height = image.size
        if width * height > limit:
            raise DataError(
                f"{name} has {width:,} × {height:,} pixels, past the limit of {limit / 1e6:,.6g} million; "
                "to read it all the same, set SEEWHY_MAX_PIXELS to a larger number of pixels"
            )
        notes = []
        if image.format != "MPO" and getattr(image, "is_animated", False):  # a phone's MPO holds a preview or a map
            notes.append("the first of several frames")
        turned = _is_tiff(image) and image.tag_v2.get(_ORIENTATION) in _UPRIGHT  # a TIFF is turned on loading
        image.load()
        picture, more = _srgb(image)
        orientation = _orientation(image)  # not before, as that would load a PNG and hide its damage
        if orientation in _UPRIGHT:
            picture = picture.transpose(_UPRIGHT[orientation])
        if turned or orientation in _UPRIGHT:
            notes.append("turned upright as its EXIF data say")
    except _BROKEN as error:
        raise DataError(f"{name} cannot be decoded, it is damaged or cut off: {_reason(error)}") from None
    return picture, (*notes, *more)


def _srgb(image: Image.Image) -> Picture:
    notes: list[str] = []
    alpha: Image.Image | None = None
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image)
        key = image.info.get("transparency")
        if isinstance(key, int):
            alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        tags = image.tag_v2 if _is_tiff(image) else {}
        bits = int(np.max(tags.get(TiffImagePlugin.BITSPERSAMPLE, 16)))
        base, note = _deep(values, bits, white_is_zero=tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)
        notes.append(note)
    elif image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        turned = ImageCms.profileToProfile(image, lab, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return turned if turned is not None else image.convert("RGB"), ("converted from CIELAB to sRGB",)
    elif image.has_transparency_data:
        full = image.convert("RGBA")
        alpha, base = full.getchannel("A"), full.convert("RGB")
    else:
        base = image if image.mode in ("L", "CMYK") else image.convert("RGB")
    profile = image.info.get("icc_profile")
    picture, more = _profiled(base, profile) if profile else (base.convert("RGB"), ())
    notes.extend(more)
    if base.mode == "CMYK" and not more:
        notes.append("CMYK without a colour profile: its colours are approximate")
    if alpha is not None and alpha.getextrema()[0] != 255:
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=alpha)
        picture = white
        notes.append("transparent parts laid over white")
    return picture, tuple(notes)


def _eight_bits(values: np.ndarray[Any, Any], bits: int = 16) -> np.ndarray[Any, Any]:
    scaled: np.ndarray[Any, Any] = np.rint(values.astype(np.float64) * (255 / (2**bits - 1)))
    return scaled.astype(np.uint8)


def _deep(values: np.ndarray[Any, Any], bits: int, *, white_is_zero: bool) -> tuple[Image.Image, str]:
    if values.dtype.itemsize == 2:
        scaled = _eight_bits(values, bits)
        return Image.fromarray(255 - scaled if white_is_zero else scaled), f"{bits} bits scaled to 8"
    if not np.isfinite(values).all():
        raise ValueError("its pixels hold NaN or infinity")
    low, high = float(values.min()), float(values.max())
    note = f"values from {low:g} to {high:g} stretched to black and white"
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high, note = 0.0, 1.0, "values from 0 to 1 scaled to 8 bits"
    scaled = (values.astype(np.float64) - low) / ((high - low) or 1.0) * 255
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), note


_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def _profiled(base: Image.Image, profile: bytes) -> Picture:
    try:
        transform, mode = _transform(profile)
        if (mode == "CMYK") != (base.mode == "CMYK"):
            raise ValueError(f"a profile for {mode} on pixels in {base.mode}")
        picture = base.convert(mode)
        if transform is None:
            return picture.convert("RGB"), ()
        turned = ImageCms.applyTransform(picture, transform)
        return (turned if turned is not None else picture), ("its colour profile converted to sRGB",)
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError):
        return base.convert("RGB"), ("its colour profile could not be used, so colours are approximate",)


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """The transform to sRGB, None where the profile is sRGB already, and the mode that it starts from."""
    source = ImageCms.getOpenProfile(io.BytesIO(profile))
    mode = _SPACES.get(source.profile.xcolor_space.strip(), "")
    if not mode:
        raise ValueError(f"a profile of {source.profile.xcolor_space}")
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode != "CMYK":  # it is sRGB if it leaves all colours where they are, whatever it calls itself
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
        probe = Image.fromarray(cube if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
        after = ImageCms.applyTransform(probe, transform)
        before = np.asarray(probe.convert("RGB")).astype(int)
        if after is not None and np.abs(np.asarray(after) - before).max() <= 2:
            return None, mode
    return transform, mode


def _scaled(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    (high, wide), resize = preprocess.size, preprocess.resize
    if min(high, wide) < 1 or (resize is not None and resize < 1):
        raise SpecError(f"expected sizes of at least 1 pixel, got {preprocess.size} and resize={resize}")
    if preprocess.fit == "squash":
        scale = 1.0 if resize is None else resize / min(high, wide)
        return round(wide * scale), round(high * scale)
    if preprocess.fit not in ("crop", "pad"):
        raise SpecError(f'expected a fit of crop, squash or pad, got "{preprocess.fit}"')
    by_width = width * high <= height * wide if resize is None else width <= height
    if preprocess.fit == "pad":
        by_width = not by_width
    target = (wide if by_width else high) if resize is None else resize
    if by_width:
        return target, max(1, int(target * height / width))
    return max(1, int(target * width / height)), target


def _centred(length: int, window: int) -> int:
    """Where a centred window begins, rounded as torchvision's CenterCrop does; negative where it reaches out."""
    return round((length - window) / 2) if length >= window else -((window - length) // 2)


def _fit_notes(size: tuple[int, int], seen: tuple[int, int, int, int], scale: tuple[float, float]) -> tuple[str, ...]:
    notes = []
    if max(scale) < 1 / 4:
        notes.append(f"only {size[0]} × {size[1]} pixels, enlarged {1 / max(scale):.3g} times")
    share = (seen[2] - seen[0]) * scale[0] * (seen[3] - seen[1]) * scale[1] / (size[0] * size[1])
    if share < 0.5:
        notes.append(f"the model sees the middle {share:.0%} of it")
    return tuple(notes)


def _is_tiff(image: Image.Image) -> TypeGuard[TiffImagePlugin.TiffImageFile]:
    return isinstance(image, TiffImagePlugin.TiffImageFile)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # broken EXIF data say nothing about the orientation
        return 1


def _limit() -> int:
    text = os.environ.get("SEEWHY_MAX_PIXELS", "")
    try:
        limit = int(text.replace("_", "")) if text else LIMIT
    except ValueError:
        limit = 0
    if limit < 1:
        raise SpecError(f'expected SEEWHY_MAX_PIXELS to be a whole number of pixels, got "{text}"')
    return limit


def _looks_like(head: bytes) -> str:
    try:
        text = head[:60].decode("utf-8", "strict" if len(head) < 60 else "ignore")
    except UnicodeDecodeError:
        text = ""
    words = " ".join(text.split())
    return f'got text that begins "{words[:30]}"' if words and words.isprintable() else "got other data"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
