"""Masks of what images show: pictures of the same names, one part of which is the object."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from seewhy.data.folders import subfolders, there
from seewhy.data.images import Preprocess
from seewhy.data.photo import SUFFIXES, read
from seewhy.data.sets import DataSet
from seewhy.errors import DataError

#: the concept of masks whose images have no classes
OBJECT = "object"


def masks(root: str | os.PathLike[str], images: DataSet, preprocess: Preprocess) -> dict[str, Tensor]:
    """Masks (N, H, W) of each concept, as a model sees the images: true where an image shows it.

    `root` holds a mask for each image under the image's own name, of the object that the image's class names; or a
    subfolder for each concept that does so, in which images that don't show it may lack. The object is the part, light or
    dark, that covers less of the picture's border. Sizes and crops are the images'. Raises `DataError` where there are no
    masks, or an image's is missing or cannot be read.
    """
    path = there(root)
    concepts = [name for name in subfolders(path) if not _file(path, images.names[0])]
    found: dict[str, Tensor] = {}
    if concepts and not any(_file(path, name) for name in images.names):
        for concept in concepts:
            files = [_file(path / concept, name) for name in images.names]
            if any(files):
                found[concept] = torch.stack([_mask(file, preprocess) for file in files])
        if found:
            return found
    labels = images.labels or (None,) * len(images)
    for index, (name, label) in enumerate(zip(images.names, labels, strict=True)):
        file = _file(path, name)
        if file is None:
            raise DataError(
                f"expected a mask for every image under its name in {path}, or a subfolder for each concept; there is none "
                f"for {name}"
            )
        concept = OBJECT if label is None else images.classes[label] if images.classes else str(label)
        if concept not in found:
            found[concept] = torch.zeros(len(images), *preprocess.size, dtype=torch.bool)
        found[concept][index] = _mask(file, preprocess)
    return found


def _file(folder: Path, name: str) -> Path | None:
    """The mask of an image's name, whatever its ending."""
    stem = folder / Path(name).with_suffix("")
    return next((file for suffix in SUFFIXES if (file := stem.with_name(stem.name + suffix)).is_file()), None)


def _mask(file: Path | None, preprocess: Preprocess) -> Tensor:
    if file is None:
        return torch.zeros(preprocess.size, dtype=torch.bool)
    light = read(file, preprocess).pixels[0].mean(0) > 0.5
    border = torch.cat([light[0], light[-1], light[:, 0], light[:, -1]]).float().mean()
    return ~light if border > 0.5 else light
