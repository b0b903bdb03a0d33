"""MedMNIST: the .npz files of small medical images."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import DataError

_ORGANS = (
    *("bladder", "left femur", "right femur", "heart", "left kidney", "right kidney"),
    *("liver", "left lung", "right lung", "pancreas", "spleen"),
)

#: the classes of the sets with one label an image, which the files themselves do not name
CLASSES: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa"),
        *("cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    ),
    "dermamnist": (
        *("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions"),
        *("dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions"),
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
    "breastmnist": ("malignant", "normal or benign"),
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast", "immature granulocyte"),
        *("lymphocyte", "monocyte", "neutrophil", "platelet"),
    ),
    "tissuemnist": (
        *("collecting duct or connecting tubule", "distal convoluted tubule", "glomerular endothelial cells"),
        *("interstitial endothelial cells", "leukocytes", "podocytes", "proximal tubule segments"),
        "thick ascending limb",
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}

_SPLITS = ("train", "val", "test")


def medmnist(path: str | os.PathLike[str], split: str | None = "test") -> DataSet:
    """The `train`, `val` or `test` part of a MedMNIST .npz, held in memory; grey images become RGB.

    Classes are named by the file's name (`pathmnist.npz`, `dermamnist_64.npz`). Nothing in the file is run. Raises
    `DataError` for another layout, and for volumes.
    """
    file, split = Path(path), split or "test"
    if split not in _SPLITS:
        raise DataError(f'MedMNIST has no split "{split}"; expected one of {", ".join(_SPLITS)}')
    if not file.is_file():
        raise DataError(f"there is no file {path}")
    images, labels = _arrays(file, split)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        what = "volumes cannot be read" if images.ndim in (4, 5) else "this is another layout"
        raise DataError(
            f"{file}: expected images (N, H, W) or (N, H, W, 3) of uint8, got {images.shape} of {images.dtype}; {what}"
        )
    if labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise DataError(f"{file}: expected {len(images)} whole-number labels, got {labels.shape} of {labels.dtype}")
    name = re.sub(r"_\d+$", "", file.stem.lower())
    one = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    return DataSet(
        f"{file.stem} {split}",
        tuple(f"{split}-{index:05d}" for index in range(len(images))),
        Arrays(images),
        tuple(labels.reshape(-1).tolist()) if one else None,
        CLASSES.get(name) if one else None,
        notes=() if one else (f"{labels.shape[1]} labels an image, which are not read: expected one",),
    )


def _arrays(file: Path, split: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            if not isinstance(kept, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            wanted = f"{split}_images", f"{split}_labels"
            if any(name not in kept.files for name in wanted):
                has = ", ".join(kept.files) or "nothing"
                raise DataError(f"{file} is not a MedMNIST file: expected the arrays {' and '.join(wanted)}, got {has}")
            return kept[wanted[0]], kept[wanted[1]]
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{file} cannot be read as a MedMNIST .npz: {error}") from None
