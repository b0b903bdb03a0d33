"""Data sets of the Hugging Face `datasets` library, as `save_to_disk` leaves them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

from seewhy.data.folders import there
from seewhy.data.photo import Picture, open_photo
from seewhy.data.sets import DataSet
from seewhy.errors import DataError, MissingExtra


@final
@dataclass(frozen=True, eq=False)
class _Rows:
    """Pictures in a column of encoded images."""

    rows: Any
    column: str

    def picture(self, position: int) -> Picture:
        content, path = self._encoded(position)
        if content is None and not path:
            raise DataError(f"row {position} holds no image")
        return open_photo(path if content is None else content, f"row {position}")

    def content(self, position: int) -> bytes:
        content, path = self._encoded(position)
        try:
            return Path(path).read_bytes() if content is None else content
        except OSError:
            return b"unreadable"

    def _encoded(self, position: int) -> tuple[bytes | None, str]:
        cell = self.rows[position][self.column] or {}
        return cell.get("bytes"), cell.get("path") or ""


def hugging_face(root: str | os.PathLike[str], split: str | None = None) -> DataSet:
    """A data set that `save_to_disk` wrote: its column of images, and its column of labels if it has one.

    Of a set with splits, None takes `test`, or the only one. Images are decoded by this package, and nothing of the
    set is run. Needs the extra `datasets`; raises `DataError` where the set has no column of images.
    """
    path = there(root)
    if not looks_like(path):
        raise DataError(f"{path} is not a saved Hugging Face data set: expected state.json or dataset_dict.json in it")
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise MissingExtra("reading a Hugging Face data set", "datasets", error.name or "datasets") from None
    try:
        held: Any = datasets.load_from_disk(str(path))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a saved Hugging Face data set: {error}") from None
    notes: tuple[str, ...] = ()
    name = path.name
    if isinstance(held, datasets.DatasetDict):
        parts = list(held)
        chosen = split or ("test" if "test" in parts else parts[0] if len(parts) == 1 else None)
        if chosen is None or chosen not in parts:
            asked = f'has no split "{split}"' if split else "has several splits"
            raise DataError(f"{path} {asked}; expected one of {', '.join(parts)}")
        if split is None and len(parts) > 1:
            notes = (f"the {chosen} images, of {', '.join(parts)}",)
        held, name = held[chosen], f"{name} {chosen}"
    elif split is not None:
        raise DataError(f"{path} has no splits; got the split {split}")
    features: dict[str, Any] = dict(held.features)
    column = next((key for key, feature in features.items() if isinstance(feature, datasets.Image)), None)
    if column is None:
        raise DataError(f"{path} has no column of images; its columns are {', '.join(features)}")
    labels, classes = _labels(held, features, datasets)
    return DataSet(
        name,
        tuple(f"row {index}" for index in range(len(held))),
        _Rows(held.cast_column(column, datasets.Image(decode=False)), column),
        labels,
        classes,
        notes=notes,
    )


def looks_like(path: Path) -> bool:
    """Whether a folder is one that `save_to_disk` wrote."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _labels(
    held: Any, features: dict[str, Any], datasets: Any
) -> tuple[tuple[int | None, ...] | None, tuple[str, ...] | None]:
    named = [key for key, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    numbered = [key for key, feature in features.items() if str(getattr(feature, "dtype", "")).startswith("int")]
    usual = ("label", "labels", "class", "target")
    chosen = next((key for key in (*usual, *named) if key in named), None)
    chosen = chosen or next((key for key in usual if key in numbered), None)
    if chosen is None:
        return None, None
    values = [None if value is None or value < 0 else int(value) for value in held[chosen]]  # −1 is unknown there
    return tuple(values), tuple(features[chosen].names) if chosen in named else None
