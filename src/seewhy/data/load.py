"""From what a user types to a data set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from seewhy.data import hub, isic
from seewhy.data.cifar10 import cifar10
from seewhy.data.cifar10 import looks_like as is_cifar10
from seewhy.data.fetch import KNOWN
from seewhy.data.folders import folder, photos
from seewhy.data.med import medmnist
from seewhy.data.photo import SUFFIXES
from seewhy.data.sets import DataSet
from seewhy.data.tables import table
from seewhy.errors import DataError, nearest


def _whole(read: Callable[[Path], DataSet]) -> Callable[[Path, str | None], DataSet]:
    def answer(path: Path, split: str | None) -> DataSet:
        if split is not None:
            raise DataError(f'{path} has no splits; got the split "{split}"')
        return read(path)

    return answer


#: the formats by the prefix that names them
FORMATS: dict[str, Callable[[Path, str | None], DataSet]] = {
    "folder": folder,
    "csv": _whole(table),
    "cifar10": cifar10,
    "ham10000": isic.ham10000,
    "medmnist": medmnist,
    "hf": hub.hugging_face,
}


def load(spec: str | os.PathLike[str], split: str | None = None) -> DataSet:
    """Open a data set by its path, whatever its format, by `format:path`, or by the name of a fetched one (`cifar10`).

    Formats: a folder of images or of one subfolder a class (`folder:`), a table of paths and labels (`csv:`),
    `cifar10:`, `ham10000:`, `medmnist:`, and `hf:` for a saved Hugging Face data set. `split` chooses a part such as
    train or test where the set has parts. Raises `DataError`, saying what was looked for.
    """
    text = os.fspath(spec)
    prefix, colon, rest = text.partition(":")
    if colon and prefix.lower() in FORMATS:
        if not rest:
            raise DataError(f'expected a path after "{text}"')
        return FORMATS[prefix.lower()](Path(rest).expanduser(), split)
    path = Path(text).expanduser()
    if not path.exists():
        if text.lower() == "cifar10":
            return cifar10(None, split)
        if colon and len(prefix) > 1 and "/" not in prefix:
            way_out = nearest(prefix, FORMATS) or f"; there are: {', '.join(FORMATS)}"
            raise DataError(f'there is no data format "{prefix}"{way_out}')
        raise DataError(f"there is no file, folder or data set {text}{nearest(text, KNOWN)}")
    return FORMATS[_format(path)](path, split) if path.is_dir() or not _is_image(path) else _whole(_one)(path, split)


def _one(path: Path) -> DataSet:
    return photos([path])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _format(path: Path) -> str:
    if path.is_dir():
        for name, looks in (("cifar10", is_cifar10), ("ham10000", isic.has_table), ("hf", hub.looks_like)):
            if looks(path):
                return name
        return "folder"
    ending = path.name.lower()
    for name, endings in (
        ("csv", (".csv", ".tsv")),
        ("medmnist", (".npz",)),
        ("cifar10", (".tgz", ".tar.gz", ".tar")),
    ):
        if ending.endswith(endings):
            return name
    raise DataError(
        f"{path} is not a data set: expected a folder, an image, a table (.csv, .tsv), a MedMNIST .npz, or an archive "
        "of CIFAR-10 (.tgz, .tar.gz)"
    )
