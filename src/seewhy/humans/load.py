"""From what a user types to votes: counts in arrays, CIFAR-10H and CIFAR-10N, tables of single answers."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seewhy.data.cifar10 import CLASSES
from seewhy.errors import DataError, nearest
from seewhy.humans.answers import (
    coded,
    columns_of,
    listed,
    looks_like_model_vs_human,
    model_vs_human,
    table,
)
from seewhy.humans.votes import Integers, Trials, Votes, counted

_RAW_INDEX = "cifar10_test_test_idx"
_LABELS_N = ("random_label1", "random_label2", "random_label3")


class _Reader(Protocol):
    def __call__(self, path: Path, images: Sequence[str] | None, classes: Sequence[str] | None) -> Votes: ...


def load(
    spec: str | os.PathLike[str], images: Sequence[str] | None = None, classes: Sequence[str] | None = None
) -> Votes:
    """Open votes by their path, whatever their format, or by `format:path`.

    Formats: `counts:` an array `.npy` of images by classes; `table:` a CSV, TSV or Parquet file with a row for each answer;
    `model-vs-human:` a file or folder of that toolbox; `cifar10h:` counts or the raw table; `cifar10n:` the `.npz` with the
    table of workers. `images` and `classes` are a data set's names: counts take them in their order, and so do answers
    that are class numbers. Nothing is ever unpickled. Raises `DataError`, saying what was looked for.
    """
    text = os.fspath(spec)
    prefix, colon, rest = text.partition(":")
    if colon and prefix.lower() in FORMATS:
        if not rest:
            raise DataError(f'expected a path after "{text}"')
        path = Path(rest).expanduser()
        _there(path)
        return FORMATS[prefix.lower()](path, images, classes)
    path = Path(text).expanduser()
    if not path.exists() and colon and len(prefix) > 1 and "/" not in prefix:
        way_out = nearest(prefix, FORMATS) or f"; there are: {', '.join(FORMATS)}"
        raise DataError(f'there is no format of votes "{prefix}"{way_out}')
    _there(path)
    return FORMATS[_format(path)](path, images, classes)


def counts(path: str | Path, images: Sequence[str] | None = None, classes: Sequence[str] | None = None) -> Votes:
    """Votes of an array `.npy` (images, classes) of counts, in the order of a data set's `images` and `classes`.

    Raises `DataError` where it is not such an array, or not as long and as wide as the names say.
    """
    file = Path(path)
    held = _array(file)
    if held.ndim != 2:
        raise DataError(
            f"{file}: expected counts of images by classes, an array of two dimensions, got one of {held.shape}"
        )
    if held.dtype.kind not in "uif":
        raise DataError(f"{file}: expected whole numbers, got {held.dtype}")
    if held.dtype.kind == "f":
        if not np.isfinite(held).all():
            raise DataError(
                f"{file}: expected whole numbers, got {int((~np.isfinite(held)).sum())} that are not finite"
            )
        if (held != np.rint(held)).any():
            shares = np.allclose(held.sum(1), 1)
            what = (
                "shares that add up to 1: the numbers of votes are needed, which intervals depend on"
                if shares
                else "others"
            )
            raise DataError(f"{file}: expected whole numbers of votes, got {what}")
    for word, names, length in (("images", images, held.shape[0]), ("classes", classes, held.shape[1])):
        if names is not None and len(names) != length:
            raise DataError(
                f"{file} counts votes for {length:,} {word}, and the data set has {len(names):,}; expected as many, in its order"
            )
    votes = Votes(
        file.stem,
        tuple(images) if images is not None else tuple(f"image {index}" for index in range(held.shape[0])),
        tuple(classes) if classes is not None else tuple(f"class {index}" for index in range(held.shape[1])),
        held.astype(np.int64),
    )
    return replace(votes, notes=(_summary(votes),))


def cifar10h(path: str | Path) -> Votes:
    """CIFAR-10H (Peterson et al. 2019, arXiv 1908.07086): people's votes for CIFAR-10's 10,000 test images, in their order.

    `path` is `cifar10h-counts.npy`, a folder that holds it, or the raw table `cifar10h-raw.csv`, which tells the annotators
    apart; of it the trials that checked attention are dropped. Images are named as `seewhy.data.cifar10` names them.
    """
    file = _inside(Path(path), ("cifar10h-raw.csv", "cifar10h-counts.npy"), "CIFAR-10H")
    names = tuple(f"test-{index:05d}" for index in range(10_000))
    if file.suffix == ".npy":
        return replace(counts(file, names, CLASSES), name="CIFAR-10H")
    return _raw_h(file, names)


def cifar10n(path: str | Path) -> Votes:
    """CIFAR-10N (Wei et al. 2022, arXiv 2110.12088): three people's labels for each of CIFAR-10's 50,000 training images.

    `path` is the `.npz` with `random_label1` to `random_label3` and `clean_label`, or a folder that holds it. The table of
    workers beside it (`side-info` in its name) tells who labelled which batch of ten images, and in how many seconds; an
    answer's seconds are a tenth of its batch's. Without the table only counts are kept.
    """
    file = _inside(Path(path), ("cifar10n.npz", "CIFAR-10_human.npz"), "CIFAR-10N")
    held = _arrays(file, (*_LABELS_N, "clean_label"))
    answers = np.stack([held[name] for name in _LABELS_N])  # (3, N)
    count = answers.shape[1]
    for name, labels in held.items():
        if labels.dtype.kind not in "ui" or labels.shape != (count,):
            raise DataError(f"{file}: expected {name} to be {count} whole numbers, got {labels.dtype} {labels.shape}")
        if len(labels) and not (labels.min() >= 0 and labels.max() <= 9):
            raise DataError(
                f"{file}: expected CIFAR-10's labels 0 to 9 in {name}, got {labels.min()} to {labels.max()}"
            )
    names = tuple(f"train-{index:05d}" for index in range(count))
    image = np.tile(np.arange(count), 3)
    side = _worker_table(file.parent)
    notes: list[str] = []
    if side is None:
        notes.append(
            f"there is no table of workers (…side-info….csv) beside {file.name}: votes are counted, and people cannot be "
            "told apart"
        )
        trials = Trials(image, np.zeros_like(image), answers.ravel().astype(np.int64), ("(unnamed)",))
    else:
        workers, seconds = _workers(side, count)
        annotators, annotator = coded(workers)
        trials = Trials(image, annotator, answers.ravel().astype(np.int64), annotators, seconds=seconds)
        notes.append(
            f"{len(annotators):,} workers by {side.name}; an answer's seconds are a tenth of its batch's of ten images"
        )
    votes = Votes(
        "CIFAR-10N",
        names,
        CLASSES,
        counted(trials, count, len(CLASSES)),
        tuple(held["clean_label"].tolist()),
        trials if side is not None else None,
    )
    return replace(votes, notes=(_summary(votes), *notes))


def _plain(read: Callable[[Path], Votes]) -> _Reader:
    """A format that names its own images and classes."""

    def answer(path: Path, images: Sequence[str] | None, classes: Sequence[str] | None) -> Votes:
        return read(path)

    return answer


def _table(path: Path, images: Sequence[str] | None, classes: Sequence[str] | None) -> Votes:
    votes = table(path)
    numbered = votes.classes == tuple(f"class {index}" for index in range(len(votes.classes)))
    votes = table(path, classes) if numbered and classes is not None else votes
    return replace(votes, notes=(_summary(votes), *votes.notes))


def _toolbox(path: Path) -> Votes:
    votes = model_vs_human(path)
    return replace(votes, notes=(_summary(votes), *votes.notes))


#: the formats by the prefix that names them
FORMATS: dict[str, _Reader] = {
    "counts": counts,
    "table": _table,
    "model-vs-human": _plain(_toolbox),
    "cifar10h": _plain(cifar10h),
    "cifar10n": _plain(cifar10n),
}


def _format(path: Path) -> str:
    if path.is_dir():
        if any(path.glob("*10n*.npz")) or (path / "CIFAR-10_human.npz").exists():
            return "cifar10n"
        if any(path.glob("cifar10h-*")):
            return "cifar10h"
        return "model-vs-human"
    ending = path.suffix.lower()
    if ending == ".npz":
        return "cifar10n"
    if ending == ".npy":
        return "cifar10h" if "cifar10h" in path.name.lower() else "counts"
    if ending in (".csv", ".tsv", ".txt", ".parquet", ".pq"):
        header = list(columns_of(path))
        if _RAW_INDEX in header:
            return "cifar10h"
        return "model-vs-human" if looks_like_model_vs_human(header) else "table"
    if ending in (".pt", ".pth", ".pkl", ".pickle"):
        raise DataError(f"{path} is a pickle, which could run code and is not read; write its arrays to .npy or .npz")
    raise DataError(
        f"{path} holds no votes that are known: expected counts (.npy), CIFAR-10N (.npz), a table (.csv, .tsv, .parquet) or "
        "a folder of model-vs-human's tables"
    )


def _there(path: Path) -> None:
    if not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file or folder {path}{nearest(path.name, beside)}")


def _inside(path: Path, names: Sequence[str], what: str) -> Path:
    _there(path)
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise DataError(f"{path} holds no {what}: expected {' or '.join(names)} in it")


def _array(file: Path) -> np.ndarray[Any, Any]:
    try:
        with file.open("rb") as stream:
            held = np.load(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as an array without pickles: {error}") from None
    if not isinstance(held, np.ndarray):
        raise DataError(f"{file}: expected one array (.npy), got an archive of several")
    return held


def _arrays(file: Path, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            missing = [name for name in names if name not in held]
            if missing:
                raise DataError(f"{file} lacks {', '.join(missing)} of CIFAR-10N; it has {listed(list(held))}")
            return {name: held[name] for name in names}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as an archive of arrays without pickles: {error}") from None


def _raw_h(file: Path, names: tuple[str, ...]) -> Votes:
    columns = columns_of(file)
    needed = ("annotator_id", _RAW_INDEX, "is_attn_check", "chosen_label", "true_label", "reaction_time")
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(f"{file} lacks the columns {', '.join(missing)} of CIFAR-10H's raw table")
    try:
        cells = {name: np.array(columns[name], dtype=float) for name in needed[1:]}
    except ValueError as error:
        raise DataError(f"{file}: expected numbers in CIFAR-10H's raw table: {error}") from None
    kept = (cells["is_attn_check"] == 0) & (cells[_RAW_INDEX] >= 0)
    image, answer, truth = (cells[name][kept].astype(np.int64) for name in (_RAW_INDEX, "chosen_label", "true_label"))
    if len(image) == 0 or image.max() >= len(names) or answer.min() < 0 or answer.max() > 9:
        raise DataError(f"{file}: expected labels 0 to 9 of CIFAR-10's test images 0 to 9999")
    annotators, annotator = coded([name for name, keep in zip(columns["annotator_id"], kept, strict=True) if keep])
    milliseconds = cells["reaction_time"][kept]
    trials = Trials(
        image, annotator, answer, annotators, seconds=np.where(milliseconds >= 0, milliseconds / 1000, np.nan)
    )
    labels: list[int | None] = [None] * len(names)
    for place, label in zip(image.tolist(), truth.tolist(), strict=True):
        labels[place] = label
    votes = Votes("CIFAR-10H", names, CLASSES, counted(trials, len(names), 10), tuple(labels), trials)
    dropped = f"trials that checked attention, dropped: {int((~kept).sum()):,}"
    return replace(votes, notes=(_summary(votes), dropped))


def _worker_table(folder: Path) -> Path | None:
    found = sorted(each for each in folder.glob("*.csv") if re.search(r"side.?info", each.name, re.IGNORECASE))
    return found[0] if found else None


def _workers(file: Path, count: int) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    """For each answer, image by image for the first, second and third worker: who gave it, and in how many seconds."""
    columns = columns_of(file)
    needed = ["Image-batch", *(f"{what}{i}{end}" for i in (1, 2, 3) for what, end in (("Worker", "-id"),))]
    needed += [f"Work-time-in-seconds-{i}" for i in (1, 2, 3)]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(f"{file} lacks the columns {', '.join(missing)} of CIFAR-10N's table of workers")
    batch = np.full(count, -1)
    for row, cell in enumerate(columns["Image-batch"]):
        ends = [end for end in cell.split("-") if end]
        if len(ends) != 2 or not all(end.isdecimal() for end in ends):
            raise DataError(f'{file}: expected images such as "0--9" in row {row + 2}, got "{cell}"')
        batch[int(ends[0]) : int(ends[1]) + 1] = row
    if (batch < 0).any():
        raise DataError(f"{file} names no workers for {int((batch < 0).sum()):,} of {count:,} images")
    size = np.bincount(batch)
    workers: list[str] = []
    seconds = []
    for i in (1, 2, 3):
        who, time = columns[f"Worker{i}-id"], np.array(columns[f"Work-time-in-seconds-{i}"], dtype=float)
        workers += [who[row] for row in batch]
        seconds.append((time / size)[batch])
    return workers, np.concatenate(seconds)


def _summary(votes: Votes) -> str:
    """What was read, in numbers."""
    each: Integers = votes.counts.sum(1)
    voted = each[each > 0]
    said = f"{int(each.sum()):,} votes for {len(voted):,} images in {len(votes.classes):,} classes"
    if len(voted):
        low, high = int(voted.min()), int(voted.max())
        said += f", {low} to {high} an image" if low < high else f", {low} an image"
    if votes.trials:
        said += f", by {len(votes.annotators):,} annotator" + ("s" if len(votes.annotators) != 1 else "")
    if votes.conditions:
        said += f", in {len(votes.conditions)} conditions ({listed(votes.conditions, 8)})"
    return said
