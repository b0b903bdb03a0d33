"""Tables of paths and labels: CSV or TSV with a header."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seewhy.data.sets import DataSet, Files
from seewhy.errors import DataError

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
LABELS = ("label", "class", "target", "class_name")
GROUPS = ("group", "lesion_id", "patient", "patient_id")


def table(path: str | os.PathLike[str]) -> DataSet:
    """A data set of a CSV or TSV: a column of paths, relative to the table, and one of labels if there is.

    The header names the columns: path, file, filename or image; label, class or target; group, patient or lesion_id
    for pictures that must stay together. Labels are class indices if all are whole numbers, names otherwise; an empty
    one is unknown. A file that is missing shows when it is opened; raises `DataError` if all are.
    """
    file = Path(path)
    header, rows = rows_of(file)
    where, what, whose = (_column(header, names) for names in (PATHS, LABELS, GROUPS))
    if where is None:
        raise DataError(
            f"{file} has no column of paths: expected a header with one of {', '.join(PATHS)}, got {', '.join(header)}"
        )
    rows = [row for row in rows if row[where].strip()]
    names = tuple(row[where].strip() for row in rows)
    files = tuple(file.parent / name for name in names)
    if not any(each.exists() for each in files):
        example = f", {files[0]} for one" if files else ""
        raise DataError(f"none of the {len(files)} images that {file} lists is there{example}")
    labels, classes = _labels([row[what] for row in rows], file) if what else (None, None)
    often = Counter(names)
    return DataSet(
        file.stem,
        tuple(name if often[name] == 1 else f"{name} (row {row + 1})" for row, name in enumerate(names)),
        Files(files),
        labels,
        classes,
        # a picture without a group is one of its own
        tuple(row[whose].strip() or f"row {index + 1}" for index, row in enumerate(rows)) if whose else None,
    )


def rows_of(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header of a CSV or TSV, and its rows by column; raises `DataError` where it is not one."""
    header, rows = grid_of(file)
    return header, [dict(zip(header, row, strict=True)) for row in rows]


def grid_of(file: Path) -> tuple[list[str], list[list[str]]]:
    """The header of a CSV or TSV, and its rows' cells; raises `DataError` where it is not one."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a table: {error}") from None
    if not text.strip():
        raise DataError(f"{file} is empty; expected a table with a header")
    delimiter = max("\t;,", key=text.lstrip().partition("\n")[0].count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{file} cannot be read as a table: {error}") from None
    header = [cell.strip() for cell in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"{file}: expected {len(header)} cells in row {number}, as in its header, got {len(row)}")
    return header, rows[1:]


def _column(header: Sequence[str], names: Sequence[str]) -> str | None:
    return next((column for name in names for column in header if column.lower() == name), None)


def _labels(cells: list[str], file: Path) -> tuple[tuple[int | None, ...], tuple[str, ...] | None]:
    stripped = [cell.strip() for cell in cells]
    if all(cell.lstrip("-").isdecimal() for cell in stripped if cell):
        labels = tuple(int(cell) if cell else None for cell in stripped)
        if any(label is not None and label < 0 for label in labels):
            raise DataError(f"{file} has a negative label; expected class indices from 0, or names")
        return labels, None
    classes = sorted({cell for cell in stripped if cell})
    places = {name: index for index, name in enumerate(classes)}
    return tuple(places[cell] if cell else None for cell in stripped), tuple(classes)
