"""HAM10000 and ISIC 2018 Task 3: dermatoscopic photographs of skin lesions, in seven classes, grouped by lesion."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from seewhy.data.folders import there
from seewhy.data.photo import SUFFIXES
from seewhy.data.sets import DataSet, Files
from seewhy.data.tables import rows_of
from seewhy.errors import DataError

#: the classes as the tables write them, and what they are
CLASSES: dict[str, str] = {
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}

_TABLES = {
    "train": ("HAM10000_metadata*", "ISIC2018_Task3_Training_GroundTruth*"),
    "val": ("ISIC2018_Task3_Validation_GroundTruth*",),
    "test": ("ISIC2018_Task3_Test_GroundTruth*",),
}
_GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings*"


def ham10000(root: str | os.PathLike[str], split: str | None = None) -> DataSet:
    """HAM10000 from its images (in any subfolders) and its tables: `train` is HAM10000, `test` and `val` ISIC 2018's.

    The classes are akiec, bcc, bkl, df, mel, nv and vasc; the group is the lesion, so that `split` and `sample` go by
    lesion. Rows without an image are left out, repeated rows count once, and `notes` says how many. Raises `DataError`
    where the table is missing, contradicts itself, or does not say which images show one lesion.
    """
    path = there(root)
    images, tables = _walk(path)
    found = {
        part: next((file for pattern in patterns for file in tables if _is(file, pattern)), None)
        for part, patterns in _TABLES.items()
    }
    present = [part for part, file in found.items() if file]
    if split is not None and split not in _TABLES:
        raise DataError(f'HAM10000 has no split "{split}"; expected one of {", ".join(_TABLES)}')
    if not present:
        raise DataError(
            f"{path} has no table of HAM10000: expected HAM10000_metadata.csv or ISIC2018_Task3_Test_GroundTruth.csv"
        )
    part = split or present[0]
    table = found[part]
    if table is None:
        raise DataError(f"{path} has no table for the {part} images: expected {_TABLES[part][0].rstrip('*')}.csv")

    rows, repeated = _diagnoses(table)
    if part == "train" and any(lesion is None for _, lesion in rows.values()):
        rows = _with_lesions(rows, tables, table)
    there_are = {name: row for name, row in rows.items() if name in images}
    if not there_are:
        raise DataError(f"none of the {len(rows):,} images that {table} lists is in {path}, {next(iter(rows))} for one")
    names = tuple(sorted(there_are))
    others = [other for other in present if other != part]
    notes = [f"the {part} images, of {', '.join(present)}"] if split is None and others else []
    if repeated:
        notes.append(f"{repeated:,} rows of {table.name} repeat another and count once")
    if len(there_are) < len(rows):
        lost = len(rows) - len(there_are)
        notes.append(f"{lost:,} of the {len(rows):,} images that {table.name} lists are not there")
    lesions = tuple(there_are[name][1] for name in names)
    known = tuple(lesion for lesion in lesions if lesion is not None)
    if len(known) < len(lesions):
        notes.append(f"{table.name} does not say which images show one lesion")
    codes = tuple(CLASSES)
    return DataSet(
        f"ham10000 {part}",
        names,
        Files(tuple(images[name] for name in names)),
        tuple(codes.index(there_are[name][0]) for name in names),
        codes,
        known if len(known) == len(lesions) else None,
        tuple(notes),
    )


def has_table(path: Path) -> bool:
    """Whether a folder holds a table of HAM10000, itself or one folder down."""
    patterns = [pattern for several in _TABLES.values() for pattern in several]
    near = [*path.glob("*"), *path.glob("*/*")]
    return any(_is(file, pattern) and file.is_file() for pattern in patterns for file in near)


def _walk(path: Path) -> tuple[dict[str, Path], list[Path]]:
    images: dict[str, Path] = {}
    tables: list[Path] = []
    for folder, inner, files in os.walk(path):
        inner.sort()
        for name in sorted(files):
            file = Path(folder, name)
            if file.suffix.lower() in SUFFIXES and not name.startswith("."):
                images.setdefault(file.stem, file)
            elif any(_is(file, pattern) for several in (*_TABLES.values(), (_GROUPINGS,)) for pattern in several):
                tables.append(file)
    return images, tables


def _is(file: Path, pattern: str) -> bool:
    return fnmatch(file.name.lower(), pattern.lower()) and file.suffix.lower() in ("", ".csv", ".tab", ".tsv", ".txt")


Rows = dict[str, tuple[str, str | None]]


def _diagnoses(table: Path) -> tuple[Rows, int]:
    """Each image's diagnosis and lesion, and how many rows repeat another; two layouts: a column dx, or one-hot."""
    header, rows = rows_of(table)
    columns = {column.lower(): column for column in header}
    image = columns.get("image_id", columns.get("image"))
    hot = [columns[code] for code in CLASSES if code in columns]
    if image is None or ("dx" not in columns and len(hot) != len(CLASSES)):
        raise DataError(
            f"{table} is not a table of HAM10000: expected the columns image_id and dx, or image and "
            f"{', '.join(CLASSES).upper()}, got {', '.join(header)}"
        )
    found: Rows = {}
    repeated = 0
    for number, row in enumerate(rows, 2):
        if "dx" in columns:
            code = row[columns["dx"]].strip().lower()
        else:
            ones = [column for column in hot if row[column].strip() in ("1", "1.0")]
            code = ones[0].lower() if len(ones) == 1 else "several" if ones else "none"
        if code not in CLASSES:
            raise DataError(f"{table}: expected one of {', '.join(CLASSES)} in row {number}, got {code or 'nothing'}")
        lesion = (row[columns["lesion_id"]].strip() or None) if "lesion_id" in columns else None
        name = row[image].strip()
        if found.setdefault(name, (code, lesion)) != (code, lesion):
            raise DataError(f"{table} contradicts itself in row {number}: {name} has another diagnosis or lesion above")
        repeated += 1
    return found, repeated - len(found)


def _with_lesions(rows: Rows, tables: list[Path], table: Path) -> Rows:
    grouping = next((file for file in tables if _is(file, _GROUPINGS)), None)
    lesions: dict[str, str] = {}
    if grouping is not None:
        header, lines = rows_of(grouping)
        if "image" in header and "lesion_id" in header:
            lesions = {line["image"].strip(): line["lesion_id"].strip() for line in lines}
    lost = [name for name, (_, lesion) in rows.items() if lesion is None and not lesions.get(name)]
    if lost:
        raise DataError(
            f"{table} does not say which lesion {len(lost):,} images show, {lost[0]} for one, and they must not be "
            "parted: put HAM10000_metadata.csv or ISIC2018_Task3_Training_LesionGroupings.csv beside it"
        )
    return {name: (code, lesion or lesions[name]) for name, (code, lesion) in rows.items()}
