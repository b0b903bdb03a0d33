"""Folders of photographs: flat, or one subfolder a class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from seewhy.data.photo import SUFFIXES
from seewhy.data.sets import DataSet, Files
from seewhy.errors import DataError

#: subfolders that hold parts of a set rather than classes
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


def photos(paths: Sequence[str | os.PathLike[str]]) -> DataSet:
    """A data set of these photographs, in this order; those that cannot be read show when they are opened."""
    files = tuple(Path(path).expanduser() for path in paths)
    short = [file.name for file in files]
    names = tuple(short) if len(set(short)) == len(files) else tuple(map(str, files))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the photograph {twice} was given twice")
    return DataSet("photographs" if len(files) != 1 else files[0].name, names, Files(files))


def folder(root: str | os.PathLike[str], split: str | None = None) -> DataSet:
    """A folder of images, unlabelled; or a folder with one subfolder for each class, in the names' order.

    `split` names a subfolder such as `train` that holds a part of the set. Files that do not end like an image's are
    passed over. Raises `DataError` where the folder holds no image, or parts of which none was chosen.
    """
    path = there(root)
    inner = subfolders(path)
    if split is not None:
        if split not in inner:
            raise DataError(f'{path} has no split "{split}": expected one of its subfolders, {_listed(inner)}')
        path, inner = path / split, subfolders(path / split)
    own = images_in(path)
    if own:
        names = tuple(file.name for file in own)
        notes = (f"subfolders not read, since there are images beside them: {_listed(inner)}",) if inner else ()
        return DataSet(path.name, names, Files(own), notes=notes)
    found = [(name, file) for name in inner for file in images_in(path / name, deep=True)]
    if not found:
        raise DataError(
            f"found no images in {path}: looked for files ending in {', '.join(SUFFIXES)} in it and in its subfolders"
        )
    parts = [name for name in inner if name.lower() in SPLITS]
    if parts and len(parts) == len(inner):
        raise DataError(f"{path} holds the splits {_listed(parts)}; choose one of them")
    places = {name: index for index, name in enumerate(inner)}
    return DataSet(
        path.name,
        tuple(file.relative_to(path).as_posix() for _, file in found),
        Files(tuple(file for _, file in found)),
        labels=tuple(places[name] for name, _ in found),
        classes=tuple(inner),
    )


def there(root: str | os.PathLike[str]) -> Path:
    """The folder as a path with its full name; raises `DataError` where there is none."""
    path = Path(root).expanduser().resolve()
    if not path.exists():
        raise DataError(f"there is no folder {root}")
    if not path.is_dir():
        raise DataError(f"expected a folder, got a file: {root}")
    return path


def subfolders(path: Path) -> list[str]:
    """The names of the subfolders, sorted, without hidden ones."""
    try:
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder {path} cannot be read: {error.strerror}") from None


def images_in(path: Path, *, deep: bool = False) -> tuple[Path, ...]:
    """The files of a folder that end like an image's, sorted, without hidden ones."""
    found = path.rglob("*") if deep else path.iterdir()
    return tuple(
        sorted(
            file
            for file in found
            if file.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and file.is_file()
        )
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return (shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "of which there are none"
