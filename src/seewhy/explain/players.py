"""The players that LIME and SHAP ask about: segments of an image, shown or hidden, and what a net answers to each coalition."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import InputError, SpecError, nearest

SEGMENTS = ("slic", "grid")
#: what a path to a label map ends in
LABEL_MAPS = (".npy", ".png")


def known_segments(how: str, count: int, owner: str) -> None:
    """Raise `SpecError` where `segments` would not know what to do."""
    if how not in SEGMENTS and Path(how).suffix.lower() not in LABEL_MAPS:
        raise SpecError(f'expected {owner} slic, grid or a label map (.npy, .png), got "{how}"{nearest(how, SEGMENTS)}')
    if count < 2:
        raise SpecError(f"expected at least two segments, got count={count}")


def segments(pixels: Tensor, how: str, count: int) -> Tensor:
    """Labels (H, W) from 0 without gaps for one image (3, H, W).

    `slic` are scikit-image's superpixels, `grid` rectangles, about `count` of them; anything else is a path to a label map of
    the image's size (.npy, or .png of one channel). Raises `InputError` for a map of another size and for fewer than two
    segments.
    """
    height, width = pixels.shape[1:]
    if how == "slic":
        from skimage.segmentation import slic

        colours = pixels.detach().cpu().double().permute(1, 2, 0).numpy()
        found = slic(colours, n_segments=count, compactness=20, sigma=1, start_label=0, channel_axis=-1)
    elif how == "grid":
        rows = min(height, max(1, round((count * height / width) ** 0.5)))
        columns = min(width, max(1, round(count / rows)))
        found = (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width
    else:
        found = _read(Path(how).expanduser())
        if found.shape != (height, width):
            raise InputError(f"expected a label map of {height} × {width} pixels, got {_times(found.shape)} in {how}")
    names, labels = np.unique(found, return_inverse=True)
    if len(names) < 2:
        way_out = "take segments=grid or a larger count" if how in SEGMENTS else "give a label map of two or more"
        raise InputError(f"expected at least two segments to compare, {how} gave one; {way_out}")
    return torch.from_numpy(labels.reshape(height, width).astype(np.int64))


def label_map(how: str) -> dict[str, str]:
    """SHA-256 of the label map that `segments` names, if it names one; raises `InputError` where that cannot be read."""
    if how in SEGMENTS:
        return {}
    found = _read(Path(how).expanduser())
    return {"segments": hashlib.sha256(repr(found.shape).encode() + found.astype("<i8").tobytes()).hexdigest()}


def hidden(image: Tensor, stand_in: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """Copies (M, 3, H, W) of an image in which the segments that a row of `kept` (M, S) lacks show the stand-in."""
    shown = spread(kept.to(image.dtype), labels)[:, None]
    return torch.addcmul((1 - shown) * stand_in, shown, image)  # exact, and twice as fast as torch.where on a mask


def play(net: Classifier, image: Tensor, stand_in: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """Logits (M, C), on the CPU, of the coalitions `kept` (M, S): one forward pass each, one batch of pixels at a time."""
    device = net.engine.device
    image, stand_in, labels, kept = (each.to(device) for each in (image, stand_in, labels, kept))
    if kept.shape[1] <= int(labels.max()):
        raise InputError(
            f"expected a column of coalitions for each of {int(labels.max()) + 1} segments, got {kept.shape[1]}"
        )
    with torch.no_grad():
        return net.engine.map(
            lambda part, _: net.logits(hidden(image, stand_in, labels, part)).float(), kept, "forward"
        ).cpu()


def spread(values: Tensor, labels: Tensor) -> Tensor:
    """Values (…, S) of segments as maps (…, H, W)."""
    return values.index_select(-1, labels.flatten()).unflatten(-1, labels.shape)


def uncertainty(values: Tensor, errors: Tensor) -> Tensor:
    """Standard errors (S, …) of segments' values against how far the values are apart (root mean squares over the segments)."""
    return errors.square().mean(0).sqrt() / values.std(0, correction=0).clamp_min(1e-30)


def _read(path: Path) -> np.ndarray[Any, Any]:
    try:
        if path.suffix.lower() == ".npy":
            found = np.load(path, allow_pickle=False)
        else:
            from PIL import Image

            with Image.open(path) as opened:
                found = np.asarray(opened)
    except (OSError, ValueError) as error:
        raise InputError(f"expected a label map in {path}: {error}") from None
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"expected one whole number a pixel in {path}, got {found.dtype} of {_times(found.shape)}")
    return found


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
