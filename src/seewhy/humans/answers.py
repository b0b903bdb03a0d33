"""Tables of single answers: CSV, TSV or Parquet with usual names of columns, and the layout of the model-vs-human toolbox."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.data.tables import grid_of
from seewhy.errors import DataError, MissingExtra, nearest
from seewhy.humans import say
from seewhy.humans.votes import Floats, Integers, Trials, Votes, counted

Columns = dict[str, list[str]]

#: the usual names of each column, those first that say it best
IMAGES = (
    *("image", "imagename", "image_name", "image_id", "filename", "file_name", "image_filename", "file", "image_path"),
    *("path", "filepath", "stimulus", "stimulus_id", "item"),
)
ANSWERS = (
    *("answer", "response", "object_response", "vote", "choice", "chosen_category", "annotation", "diagnosis"),
    *("label", "class", "class_name", "category"),
)
PEOPLE = (
    *("annotator", "annotator_id", "worker", "worker_id", "workerid", "subject", "subj", "subject_id", "participant"),
    *(
        "participant_id",
        "observer",
        "reader",
        "reader_id",
        "rater",
        "rater_id",
        "labeller",
        "labeler",
        "user",
        "user_id",
    ),
)
TRUTHS = (
    *("truth", "true", "true_label", "true_class", "true_category", "ground_truth", "gold", "correct_label", "target"),
    *("label", "class", "category"),
)
CONFIDENCES = ("confidence", "certainty", "sure")
SECONDS = ("seconds", "rt", "reaction_time", "response_time", "rt_s", "time_s", "duration", "time")
MILLISECONDS = ("milliseconds", "rt_ms", "reaction_time_ms", "response_time_ms", "time_ms", "ms")
SESSIONS = ("session", "session_id", "block")
CONDITIONS = ("condition", "cond", "level")

#: how files write that somebody looked and gave no answer
NO_ANSWER = ("", "na", "n/a", "nan", "none", "null", "no answer")

#: what the model-vs-human toolbox needs of a table
MODEL_VS_HUMAN = ("subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename")
# 0001_cop_s01_c30_knife_10_n03041632_7380.png: number, experiment, observer, condition, category, rotation, picture
_STIMULUS = re.compile(r"^\d{4}_[^_]+_(?:s\d+|dnn)_([^_]+)_[^_]+_\d+_(.+)$")


def table(path: str | Path, classes: Sequence[str] | None = None) -> Votes:
    """Votes of a table with a row for each answer: image, answer, and whatever else there is.

    The header names the columns, in any case and order: `image`; `answer`, `response` or `label`; and, if there are,
    `annotator`, `truth`, `confidence`, `seconds` (or `rt_ms`), `session`, `condition`. Answers are classes' names, or their
    numbers, which `classes` names. An empty answer or "na" is none. Without annotators only counts are kept.
    Raises `DataError` where a column is missing or a cell is not what it should be.
    """
    file = Path(path)
    columns = columns_of(file)
    image, answer = _needed(columns, "images", IMAGES, file), _needed(columns, "answers", ANSWERS, file)
    people = _found(columns, PEOPLE)
    used = {image, answer, people}
    truth = _found(columns, TRUTHS, but=used)
    seconds, milliseconds = _found(columns, SECONDS), _found(columns, MILLISECONDS)
    confidence, session, condition = (_found(columns, names) for names in (CONFIDENCES, SESSIONS, CONDITIONS))
    told = {
        "image": image,
        "answer": answer,
        "annotator": people,
        "true class": truth,
        "seconds": seconds or milliseconds,
        "confidence": confidence,
        "session": session,
        "condition": condition,
    }
    notes = ["columns: " + ", ".join(f'"{column}" as {what}' for what, column in told.items() if column)]
    times = None
    if seconds or milliseconds:
        times = _numbers(columns[seconds or milliseconds or ""], "seconds", file) / (1 if seconds else 1000)
    named = [cell for cell in columns[image] if cell]
    if len(named) < len(columns[image]):
        notes.append(f"rows without an image, dropped: {len(columns[image]) - len(named):,}")
        kept = [row for row, cell in enumerate(columns[image]) if cell]
        columns = {name: [cells[row] for row in kept] for name, cells in columns.items()}
        times = None if times is None else times[kept]
    return _votes(
        file.stem,
        columns[image],
        columns[answer],
        columns[people] if people else None,
        truth=columns[truth] if truth else None,
        seconds=times,
        confidence=_numbers(columns[confidence], "confidence", file) if confidence else None,
        session=columns[session] if session else None,
        condition=columns[condition] if condition else None,
        classes=classes,
        notes=notes,
    )


def model_vs_human(path: str | Path) -> Votes:
    """Votes in the layout of the model-vs-human toolbox (Geirhos et al. 2021, arXiv 2106.07411), a file or a folder of files.

    Columns `subj,session,trial,rt,object_response,category,condition,imagename`, `rt` in seconds, "na" where the observer
    did not answer. Of a name such as `0001_cop_s01_c30_knife_10_n03041632_7380.png` the picture's own part is kept, with
    its condition where the files know several: `c30/n03041632_7380.png`. Rows of models, which have no reaction times,
    are dropped.
    """
    root = Path(path)
    files = sorted(root.glob("*.csv")) if root.is_dir() else [root]
    read: Columns = {name: [] for name in MODEL_VS_HUMAN}
    notes, passed = [], []
    for file in files:
        columns = {name.lower(): cells for name, cells in columns_of(file).items()}
        missing = [name for name in MODEL_VS_HUMAN if name not in columns]
        if missing and root.is_dir():
            passed.append(file.name)
        elif missing:
            raise DataError(
                f"{file} lacks the columns {', '.join(missing)} of model-vs-human's layout; got {', '.join(columns)}"
            )
        else:
            for name in MODEL_VS_HUMAN:
                read[name] += columns[name]
    if not read["subj"]:
        raise DataError(f"found no table of model-vs-human's layout in {root}: expected {','.join(MODEL_VS_HUMAN)}")
    notes.append(f"{len(read['subj']):,} trials in {say.counted(len(files) - len(passed), 'file')}")
    if passed:
        notes.append(f"files of another layout, not read: {listed(passed)}")
    seconds = _numbers(read["rt"], "rt", root)
    timed = {name for name, rt in zip(read["subj"], seconds, strict=True) if np.isfinite(rt)}
    models = {name for name in read["subj"] if name not in timed and not name.lower().startswith("subj")}
    if models:
        kept = [row for row, name in enumerate(read["subj"]) if name not in models]
        notes.append(
            f"trials of models, which have no reaction times, dropped: {len(seconds) - len(kept):,} of "
            f"{listed(sorted(models))}"
        )
        if not kept:
            raise DataError(f"{root} holds trials of models only ({listed(sorted(models))}); expected those of people")
        read = {name: [cells[row] for row in kept] for name, cells in read.items()}
        seconds = seconds[kept]
    condition = ["" if cell.lower() in NO_ANSWER else cell for cell in read["condition"]]
    several = len(set(condition)) > 1
    images = [
        f"{shown}/{picture(name)}" if several else picture(name)
        for name, shown in zip(read["imagename"], condition, strict=True)
    ]
    return _votes(
        root.stem,
        images,
        read["object_response"],
        read["subj"],
        truth=read["category"],
        seconds=seconds,
        session=read["session"],
        condition=condition,
        notes=notes,
    )


def picture(name: str) -> str:
    """A picture's own name in one that the model-vs-human toolbox made.

    >>> picture("0001_edg_s01_0_oven_00_oven10.png"), picture("oven10.png")
    ('oven10.png', 'oven10.png')
    """
    found = _STIMULUS.match(name)
    return found[2] if found else name


def shown_in(name: str) -> str | None:
    """The condition in a name that the model-vs-human toolbox made; None in another name."""
    found = _STIMULUS.match(name)
    return found[1] if found else None


def looks_like_model_vs_human(header: Iterable[str]) -> bool:
    """Whether a table's header is that of the model-vs-human toolbox."""
    return {"subj", "object_response", "imagename"} <= {name.lower() for name in header}


def columns_of(file: Path) -> Columns:
    """A table's cells by column, as text without spaces around it; raises `DataError`, `MissingExtra` for Parquet."""
    if file.suffix.lower() in (".parquet", ".pq"):
        return _parquet(file)
    header, rows = grid_of(file)
    if len(set(header)) < len(header):
        raise DataError(f"{file} has several columns of one name: {listed([*Counter(header) - Counter(set(header))])}")
    if not rows:
        raise DataError(f"{file} has a header and no rows")
    return {name: [cell.strip() for cell in cells] for name, cells in zip(header, zip(*rows, strict=True), strict=True)}


def coded(cells: Sequence[str]) -> tuple[tuple[str, ...], Integers]:
    """The different names among cells, in their order, and each cell's place among them.

    >>> coded(["b", "a", "b"])
    (('b', 'a'), array([0, 1, 0]))
    """
    places: dict[str, int] = {}
    return_codes = np.array([places.setdefault(cell, len(places)) for cell in cells], dtype=np.int64)
    return tuple(places), return_codes


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _votes(
    name: str,
    images: Sequence[str],
    answers: Sequence[str],
    people: Sequence[str] | None,
    *,
    truth: Sequence[str] | None = None,
    seconds: Floats | None = None,
    confidence: Floats | None = None,
    session: Sequence[str] | None = None,
    condition: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Votes:
    notes = list(notes)
    none = np.array([cell.lower() in NO_ANSWER for cell in answers])
    if none.all():
        raise DataError(f"{name} holds no answers: all {len(none):,} are empty or na")
    names, place = _classes(name, answers, truth, none, classes)
    answer = np.array([-1 if blank else place[cell] for cell, blank in zip(answers, none, strict=True)], dtype=np.int64)
    shown, image = coded(images)
    if none.any():
        notes.append(
            f"trials without an answer: {int(none.sum()):,} of {len(none):,}; they count as not right, and have no vote"
        )
    nameless = np.array([not cell for cell in people]) if people is not None else None
    if nameless is not None and nameless.any():
        notes.append(
            f"answers without an annotator, taken for those of one person, called (unnamed): {int(nameless.sum()):,}"
        )
    if people is None:
        notes.append("no column names the annotators: votes are counted, and people cannot be told apart")
    annotators, annotator = coded([cell or "(unnamed)" for cell in people or [""] * len(answers)])
    conditions, place_of = coded([cell or "(none)" for cell in condition]) if condition is not None else ((), None)
    trials = Trials(
        image,
        annotator,
        answer,
        annotators,
        place_of if len(conditions) > 1 else None,
        conditions if len(conditions) > 1 else (),
        seconds if seconds is not None and np.isfinite(seconds).any() else None,
        confidence if confidence is not None and np.isfinite(confidence).any() else None,
        coded(session)[1] if session is not None else None,
    )
    labels = _labels(image, len(shown), [place.get(cell, -1) for cell in truth], notes) if truth is not None else None
    counts = counted(trials, len(shown), len(names))
    return Votes(name, shown, names, counts, labels, trials if people is not None else None, tuple(notes))


def _classes(
    name: str,
    answers: Sequence[str],
    truth: Sequence[str] | None,
    none: np.ndarray[Any, Any],
    known: Sequence[str] | None,
) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """The classes' names, and the class that each cell stands for."""
    cells = {cell for cell, blank in zip(answers, none, strict=True) if not blank}
    cells |= {cell for cell in truth or () if cell.lower() not in NO_ANSWER}
    if all(cell.isdecimal() for cell in cells):
        highest = max(map(int, cells))
        names = tuple(known) if known is not None else tuple(f"class {index}" for index in range(highest + 1))
        if highest >= len(names):
            raise DataError(f"{name} has the class {highest}, and there are {len(names)} classes, counted from 0")
        return names, {cell: int(cell) for cell in cells}
    if known is None:
        names = tuple(sorted(cells))
        return names, {each: index for index, each in enumerate(names)}
    plain = {plainly(each): index for index, each in enumerate(known)}
    strange = sorted(cell for cell in cells if plainly(cell) not in plain)
    if strange:
        more = f", nor {len(strange) - 1} more that {name} names" if len(strange) > 1 else ""
        raise DataError(
            f'{name} names the class "{strange[0]}", which is not among the {len(known)} classes'
            f"{more}{nearest(strange[0], known) or f'; there are: {listed(list(known))}'}"
        )
    return tuple(known), {cell: plain[plainly(cell)] for cell in cells}


def plainly(name: str) -> str:
    """A class's name as it is compared: case, underscores and doubled spaces don't count."""
    return " ".join(name.replace("_", " ").lower().split())


def _labels(image: Integers, count: int, truth: Sequence[int], notes: list[str]) -> tuple[int | None, ...]:
    """The true class of each image; None where rows tell none, or contradict each other."""
    told = np.asarray(truth)
    known = told >= 0
    first = np.full(count, -1)
    first[image[known][::-1]] = told[known][::-1]  # the first row's word stands last
    disputed = np.unique(image[known & (told != first[image])])
    if len(disputed):
        notes.append(f"images on whose true class the rows contradict each other, taken as unknown: {len(disputed):,}")
        first[disputed] = -1
    return tuple(None if label < 0 else int(label) for label in first)


def _numbers(cells: Sequence[str], what: str, file: Path) -> Floats:
    numbers = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell.lower() in NO_ANSWER:
            continue
        try:
            numbers[row] = float(cell)
        except ValueError:
            raise DataError(f'{file}: expected a number as {what} in row {row + 2}, got "{cell}"') from None
    if what != "confidence" and (numbers < 0).any():
        raise DataError(f"{file}: expected {what} of 0 or more, got {np.nanmin(numbers):g}")
    return numbers


def _found(columns: Columns, names: Sequence[str], but: Iterable[str | None] = ()) -> str | None:
    taken = set(but)
    lower = {column.lower().replace(" ", "_").replace("-", "_"): column for column in columns}
    return next((lower[name] for name in names if name in lower and lower[name] not in taken), None)


def _needed(columns: Columns, what: str, names: Sequence[str], file: Path) -> str:
    found = _found(columns, names)
    if found is None:
        raise DataError(
            f"{file} has no column of {what}: expected a header with one of {', '.join(names[:8])}, got {listed([*columns])}"
        )
    return found


def _parquet(file: Path) -> Columns:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra("Reading votes from Parquet", "parquet", "pyarrow") from None
    if not file.exists():
        raise DataError(f"there is no file {file}")
    read: Callable[..., Any] = parquet.read_table
    try:
        held = read(file)
    except (ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}") from None
    if not held.num_rows:
        raise DataError(f"{file} has a header and no rows")
    return {name: [_cell(value) for value in held.column(name).to_pylist()] for name in held.column_names}


def _cell(value: object) -> str:
    """A value as a CSV has it; a whole number stays one where an empty cell made its column a float."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()
