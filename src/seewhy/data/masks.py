"""Masks of what images show: pictures of the same names, one part of which is the object."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from seewhy.data.folders import subfolders, there
from seewhy.data.images import Preprocess
from seewhy.data.photo import SUFFIXES, open_photo, prepared
from seewhy.data.sets import DataSet, Files, Item
from seewhy.errors import DataError

#: the concept of masks whose images have no classes
OBJECT = "object"


def masks(root: str | os.PathLike[str], images: DataSet, preprocess: Preprocess) -> dict[str, dict[int, Tensor]]:
    """Of each concept the masks (H, W) of the images that have one, by the image's place: true where the model sees it.

    `root` holds a mask for each image under the image's own name, of the object that the image's class names; or a
    subfolder for each concept that does so, in which images that don't show it may lack. The object is the part, light or
    dark, that covers less of the picture's border. Sizes and crops are the images'. Raises `DataError` where there are no
    masks, or an image's is missing, cannot be read, or has other proportions than the image. Memory: a byte a pixel of each mask.
    """
    sizes: dict[int, tuple[int, int] | None] = {}
    found: dict[str, dict[int, Tensor]] = {}
    for concept, files in mask_files(root, images).items():
        found[concept] = {}
        for index, file in files.items():
            if index not in sizes:
                sizes[index] = _size(images.item(index))
            found[concept][index] = _mask(file, preprocess, images.names[index], sizes[index])
    return found


def mask_files(root: str | os.PathLike[str], images: DataSet) -> dict[str, dict[int, Path]]:
    """The file of each concept's mask of each image that has one, by the image's place; see `masks`, nothing is read yet."""
    path = there(root)
    own = [_file(path, name) for name in images.names]
    if not any(own):
        parts = {
            concept: {
                place: file
                for place, name in enumerate(images.names)
                if (file := _file(path / concept, name)) is not None
            }
            for concept in subfolders(path)
        }
        if any(parts.values()):
            return {concept: files for concept, files in parts.items() if files}
    labels = images.labels or (None,) * len(images)
    found: dict[str, dict[int, Path]] = {}
    for place, (name, label, file) in enumerate(zip(images.names, labels, own, strict=True)):
        if file is None:
            raise DataError(
                f"expected a mask for every image under its name in {path}, or a subfolder for each concept; there is none "
                f"for {name}"
            )
        concept = OBJECT if label is None else images.classes[label] if images.classes else str(label)
        found.setdefault(concept, {})[place] = file
    return found


def fingerprint(files: Mapping[str, Mapping[int, Path]]) -> str:
    """SHA-256 of what the masks are, wherever they lie. Reads all of them once."""
    digest = hashlib.sha256()
    for concept, of_images in files.items():
        for place, file in of_images.items():
            content = hashlib.sha256(Files((file,)).content(0)).hexdigest()
            digest.update(repr((concept, place, content)).encode())
    return digest.hexdigest()


def _file(folder: Path, name: str) -> Path | None:
    """The mask of an image's name, whatever its ending; never a file outside of the folder, such as the image itself."""
    stem = folder / Path(name).with_suffix("")
    if not Path(os.path.normpath(stem)).is_relative_to(folder):
        return None
    return next((file for suffix in SUFFIXES if (file := stem.with_name(stem.name + suffix)).is_file()), None)


def _size(item: Item) -> tuple[int, int] | None:
    """Width and height of an image; None where it cannot be read, which whoever looks at it will say."""
    try:
        return item.open()[0].size
    except DataError:
        return None


def _mask(file: Path, preprocess: Preprocess, name: str, size: tuple[int, int] | None) -> Tensor:
    picture, _ = open_photo(file)
    wide, high = picture.size
    width, height = size or picture.size
    if abs(wide * height - width * high) > max(wide, high, width, height):  # more than a pixel that was rounded
        raise DataError(
            f"expected masks of their images' proportions, so that both are cropped alike; {name} has {width} × {height} "
            f"pixels, and its mask {file} {wide} × {high}"
        )
    light = prepared(picture, preprocess, name).pixels[0].mean(0) > 0.5
    border = torch.cat([light[0], light[-1], light[:, 0], light[:, -1]]).float().mean()
    return ~light if border > 0.5 else light
