"""One directory a run: SQLite for the rows, Zarr for the arrays, PNG for the pictures, JSON for the plan."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image as Picture

from seewhy.errors import RunError, nearest

#: the version of what a run's directory holds; a newer one is refused
SCHEMA = 1

#: the rows about the model itself stand under this image
MODEL = "model"

#: those about all images together under this one, and those about another model on another set under this
SET, STAND_IN = "set", "stand-in"

_TABLES = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, name TEXT NOT NULL, path TEXT, sha256 TEXT,
    status TEXT NOT NULL, error TEXT, record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS results (
    image TEXT NOT NULL, step TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, error TEXT, record TEXT NOT NULL,
    PRIMARY KEY (image, step)
);
CREATE TABLE IF NOT EXISTS timing (
    image TEXT NOT NULL, step TEXT NOT NULL, seconds REAL, peak_bytes INTEGER, PRIMARY KEY (image, step)
);
CREATE TABLE IF NOT EXISTS sessions (number INTEGER PRIMARY KEY, started TEXT NOT NULL, software TEXT NOT NULL);
"""
_OWN = {".lock", ".staging"}  # what may lie in a directory before it is a run
_WAY_OUT = "choose another directory with --out"

#: what Python makes of a byte of a file's name that is no UTF-8
_STRAY = re.compile("[\udc80-\udcff]")

Plain = dict[str, Any]


@dataclass(frozen=True)
class ImageRow:
    """One image of a run: `status` "ok", or "failed" with the sentence `error`; `record` as docs/run-format.md says."""

    id: str
    position: int
    name: str
    path: str | None
    sha256: str | None
    status: str
    error: str | None
    record: Plain

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class Result:
    """One step on one image (or on the model): `record` as docs/run-format.md says, empty where it failed."""

    image: str
    step: str
    key: str
    status: str
    error: str | None
    record: Plain

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class Timing:
    """What a step took here: seconds, and the bytes of memory that it added at its peak."""

    seconds: float
    peak_bytes: int | None = None


def printable(text: str) -> str:
    """A text in which bytes that are no UTF-8, as names of files may have, are written out.

    >>> printable(os.fsdecode(b"caf\\xe9.jpg"))
    'caf\\\\xe9.jpg'
    """
    return _STRAY.sub(_written, text)


def _written(byte: re.Match[str]) -> str:
    return f"\\x{ord(byte[0]) - 0xDC00:02x}"


def key_of(step: str) -> str:
    """The folder of a step in Zarr: its address with other characters than letters and digits as `-`, and a short hash.

    >>> key_of("grad-cam@281")
    'grad-cam-281-d250c4'
    """
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", step).strip("-.")[:48]
    return f"{slug}-{hashlib.sha256(step.encode()).hexdigest()[:6]}"


class Run:
    """What an audit found, in one directory; see docs/run-format.md. One process writes, any number read.

    `Run.create` makes a run or goes on with the one that is there, and holds it until it is closed; `Run.open` reads.
    Everything of a step is on the disk before its row is committed, so that a run can be stopped at any moment.
    """

    def __init__(
        self, directory: Path, about: Plain, database: sqlite3.Connection, lock: sqlite3.Connection | None
    ) -> None:
        self.directory = directory
        self.plan: Plain = about["plan"]
        self.software: Plain = about["software"]
        self._database = database
        self._lock = lock

    # Opening

    @classmethod
    def create(cls, directory: str | os.PathLike[str], plan: Mapping[str, Any], software: Mapping[str, Any]) -> Run:
        """Make a run for this plan, or go on with it where it was stopped.

        Raises `RunError` where the directory cannot be written, is not a run's, holds the run of another plan, or is
        in use by another process. Never deletes what it has not written itself.
        """
        path = Path(directory)
        with _readable(path, "written"):
            path.mkdir(parents=True, exist_ok=True)
            held = {entry.name for entry in path.iterdir()}
        if not (path / "run.json").is_file() and held - _OWN:
            raise RunError(f"{path} is not empty and holds no run of seewhy; {_WAY_OUT}")
        lock = _locked(path)
        try:
            with _readable(path, "written"):
                _remove(path / ".staging")
                if not (path / "run.json").is_file():
                    about = {"schema": SCHEMA, "plan": dict(plan), "software": dict(software)}
                    _write(path / "run.json", _dumps(about, indent=2).encode() + b"\n")
                about = _about(path)
                differing = _difference(about["plan"], json.loads(_dumps(plan)))
                if differing:
                    raise RunError(f"{path} holds the run of another plan: {differing}; {_WAY_OUT}")
                database = _connected(path)
                try:
                    _prepared(path, database, software)
                except BaseException:
                    database.close()
                    raise
        except BaseException:
            lock.close()
            raise
        return cls(path, about, database, lock)

    @staticmethod
    def planned(directory: str | os.PathLike[str]) -> Plain | None:
        """The plan of the run in a directory, None where there is none; raises `RunError` where it is damaged."""
        path = Path(directory)
        if not (path / "run.json").is_file():
            return None
        with _readable(path, "read"):
            plan: Plain = _about(path)["plan"]
        return plan

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Run:
        """Open a run for reading; raises `RunError` where there is none, or where it is damaged."""
        path = Path(directory)
        if not path.is_dir():
            raise RunError(f"there is no run in {path}: the directory does not exist")
        if not (path / "run.json").is_file():
            raise RunError(f"there is no run in {path}: it has no run.json")
        with _readable(path, "read"):
            about = _about(path)
            if not (path / "results.sqlite").is_file():
                raise RunError(f"the run in {path} was not begun, or its results.sqlite is gone")
            database = _connected(path)
        return cls(path, about, database, None)

    def close(self) -> None:
        """Let go of the run; what was put stays."""
        self._database.close()
        if self._lock is not None:
            with contextlib.suppress(OSError):  # a staged rest is removed when the run goes on
                shutil.rmtree(self.directory / ".staging")
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def done(self, image: str, step: str) -> bool:
        """Whether this step has been done; one that failed has not, and is tried again."""
        return bool(self._rows("SELECT 1 FROM results WHERE image = ? AND step = ? AND status = 'ok'", image, step))

    def read_before(self, image: str) -> bool:
        """Whether this image has been read well."""
        return bool(self._rows("SELECT 1 FROM images WHERE id = ? AND status = 'ok'", image))

    def put_image(self, row: ImageRow, pictures: Mapping[str, Picture.Image] | None = None) -> None:
        """Keep an image, or why it could not be read; `pictures` by the names of their files."""
        with self._writing():
            self._stage_pictures(pictures or {})
            with self._database:
                self._database.execute(
                    "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                    "status = excluded.status, error = excluded.error, record = excluded.record",
                    (*map(_column, (vars(row)[name] for name in _COLUMNS)), _dumps(row.record)),
                )

    def put(
        self,
        image: str,
        step: str,
        record: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
        pictures: Mapping[str, Picture.Image] | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Keep what a step found: arrays and pictures first, its row last.

        Raises `ValueError`, and keeps nothing, where the record holds NaN or infinity.
        """
        try:
            row = _dumps(record)
        except ValueError:
            raise ValueError("it holds NaN or infinity") from None
        with self._writing():
            self._stage_arrays(image, key_of(step), arrays or {})
            self._stage_pictures(pictures or {})
            self._commit(image, step, "ok", None, row, timing)

    def failed(self, image: str, step: str, error: str, timing: Timing | None = None) -> None:
        """Keep why a step failed, in one sentence."""
        with self._writing():
            self._commit(image, step, "failed", printable(error), "{}", timing)

    def time(self, image: str, step: str, timing: Timing) -> None:
        """Keep what something took that is no step, such as one pass."""
        with self._writing(), self._database:
            self._put_timing(image, step, timing)

    # Reading

    def images(self) -> tuple[ImageRow, ...]:
        """The images in order, broken ones too."""
        rows = self._rows(f"SELECT {', '.join(_COLUMNS)}, record FROM images ORDER BY position")
        return tuple(ImageRow(*_parsed(row)) for row in rows)

    def results(self, image: str = MODEL) -> tuple[Result, ...]:
        """The steps on an image (or on the model) in the order in which they were done, failed ones too."""
        rows = self._rows(
            "SELECT image, step, key, status, error, record FROM results WHERE image = ? ORDER BY rowid", image
        )
        return tuple(Result(*_parsed(row)) for row in rows)

    def record(self, image: str, step: str) -> Plain:
        """The record of a step; raises `RunError` with the nearest steps where there is none."""
        found = {result.step: result for result in self.results(image)}
        if step not in found:
            raise RunError(f'the run in {self.directory} has no step "{step}" on {image}{nearest(step, found)}')
        if not found[step].ok:
            raise RunError(f'the step "{step}" on {image} failed: {found[step].error}')
        return found[step].record

    def names(self, image: str, step: str) -> tuple[str, ...]:
        """The names of a step's arrays."""
        folder = self.directory / "arrays.zarr" / image / key_of(step)
        return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir())) if folder.is_dir() else ()

    def array(self, image: str, step: str, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One array of a step, float32; raises `RunError` where it is not there or damaged."""
        import zarr

        folder = self.directory / "arrays.zarr" / image / key_of(step) / name
        if not folder.is_dir():
            raise RunError(f'the run in {self.directory} has no array "{name}" of the step "{step}" on {image}')
        try:
            values: np.ndarray[Any, np.dtype[np.float32]] = np.asarray(zarr.open_array(folder, mode="r")[...])
        except Exception as error:  # a damaged array fails in its codec's own ways
            raise RunError(f"{folder} is damaged: {_sentence(error)}; {_WAY_OUT}") from error
        return values

    def picture(self, name: str) -> Path:
        """The path of a picture by the name that a record gives it."""
        return self.directory / "pictures" / name

    def timing(self, image: str, step: str) -> Timing | None:
        """What a step took, None where it was not done."""
        rows = self._rows("SELECT seconds, peak_bytes FROM timing WHERE image = ? AND step = ?", image, step)
        return Timing(*rows[0]) if rows else None

    def seconds(self) -> float:
        """What all steps took together."""
        return float(self._rows("SELECT COALESCE(SUM(seconds), 0) FROM timing")[0][0])

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how the run came about: other software or machines when it was gone on with."""
        notes = []
        sessions = self._rows("SELECT software FROM sessions ORDER BY number")
        if len(sessions) > 1 and "operations" not in self.plan.get("asked", {"operations": ""}):
            notes.append(
                "gone on with under a plan of an older seewhy, which knows the model by its weights alone: that it computes the "
                "same with them as before was not checked"
            )
        for (text,) in sessions:
            now = json.loads(text)
            changed = [
                f"{part} {self.software.get(part)} → {now.get(part)}"
                for part in sorted({*self.software, *now})
                if self.software.get(part) != now.get(part)
            ]
            if changed:
                notes.append(f"gone on with under other circumstances ({', '.join(changed)}): last digits may differ")
        return tuple(dict.fromkeys(notes))

    # The machinery

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with _readable(self.directory, "read"):
            return self._database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._lock is None:
            raise RunError(f"the run in {self.directory} was opened for reading only")
        with _readable(self.directory, "written"):
            yield

    def _commit(
        self, image: str, step: str, status: str, error: str | None, record: str, timing: Timing | None
    ) -> None:
        with self._database:
            self._database.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (image, step) DO UPDATE SET "
                "status = excluded.status, error = excluded.error, record = excluded.record",
                (image, step, key_of(step), status, error, record),
            )
            if timing is not None:
                self._put_timing(image, step, timing)

    def _put_timing(self, image: str, step: str, timing: Timing) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO timing VALUES (?, ?, ?, ?)", (image, step, timing.seconds, timing.peak_bytes)
        )

    def _stage_arrays(self, image: str, key: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write a step's arrays aside and move them to their place at once."""
        if not arrays:
            return
        import zarr
        from zarr.codecs import ZstdCodec

        root = self.directory / "arrays.zarr"
        for group in (root, root / image):
            if not (group / "zarr.json").is_file():
                staged = self._staging("group")
                zarr.create_group(staged)
                group.mkdir(exist_ok=True)
                os.replace(staged / "zarr.json", group / "zarr.json")
        staged = self._staging("step")
        held = zarr.create_group(staged)
        for name, values in arrays.items():
            plain = np.ascontiguousarray(values, dtype=np.float32)
            target = held.create_array(
                name, shape=plain.shape, chunks=plain.shape, dtype="float32", compressors=ZstdCodec(level=3)
            )
            target[...] = plain
        _settle(staged)
        _remove(root / image / key)  # of a step that was stopped before its row was committed
        os.replace(staged, root / image / key)

    def _stage_pictures(self, pictures: Mapping[str, Picture.Image]) -> None:
        for name, picture in pictures.items():
            staged = self._staging("picture.png")
            picture.save(staged, format="PNG")
            _settle(staged)
            (self.directory / "pictures").mkdir(exist_ok=True)
            os.replace(staged, self.directory / "pictures" / name)

    def _staging(self, name: str) -> Path:
        """A fresh path on the same disk for what is not whole yet."""
        folder = self.directory / ".staging"
        folder.mkdir(exist_ok=True)
        _remove(folder / name)
        return folder / name


_COLUMNS = ("id", "position", "name", "path", "sha256", "status", "error")


def _column(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _parsed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row whose last column is JSON."""
    return (*row[:-1], json.loads(row[-1]))


def _about(path: Path) -> Plain:
    """What run.json says, checked."""
    file = path / "run.json"
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        schema, known = about["schema"], {"plan": about["plan"], "software": about["software"]}
        whole = isinstance(schema, int) and all(isinstance(part, dict) for part in known.values())
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise RunError(f"{file} is damaged, or is not what seewhy wrote: restore it from a copy, or {_WAY_OUT}")
    if schema > SCHEMA:
        raise RunError(
            f"the run in {path} was made by a newer seewhy (schema {schema}; this one knows up to {SCHEMA}): "
            f"update seewhy, or {_WAY_OUT}"
        )
    return dict(about)


def _locked(path: Path) -> sqlite3.Connection:
    """A lock that its process's end lets go, however it ends: an exclusive transaction on an empty file."""
    lock: sqlite3.Connection | None = None
    try:
        lock = sqlite3.connect(path / ".lock", timeout=0, isolation_level=None, check_same_thread=False)
        lock.execute("PRAGMA journal_mode = MEMORY")  # no second file, which a kill would leave behind
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if lock is not None:
            lock.close()
        if "locked" in str(error):
            raise RunError(f"another process is writing to {path}; wait for it, or {_WAY_OUT}") from None
        raise RunError(f"{path} cannot be written ({_sentence(error)}); {_WAY_OUT}") from error
    return lock


def _connected(path: Path) -> sqlite3.Connection:
    # one file, in the classic journal: nothing but results.sqlite is needed to read it, and a kill is rolled back
    place = (path / "results.sqlite").resolve()
    return sqlite3.connect(place, timeout=30, check_same_thread=False)


def _prepared(path: Path, database: sqlite3.Connection, software: Mapping[str, Any]) -> None:
    found = [row[0] for row in database.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise sqlite3.DatabaseError(found[0])
    database.executescript(f"BEGIN; {_TABLES} COMMIT;")
    with database:
        database.execute(
            "INSERT INTO sessions (started, software) VALUES (?, ?)",
            (datetime.now(UTC).isoformat(timespec="seconds"), _dumps(software)),
        )


@contextlib.contextmanager
def _readable(path: Path, verb: str) -> Iterator[None]:
    """Turn what disks and databases raise into one sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise RunError(f"the run in {path} was not begun: run its command again") from error
        raise RunError(f"{path} cannot be {verb} ({_sentence(error)}); {_remedy(str(error))}") from error
    except sqlite3.DatabaseError as error:
        raise RunError(
            f"{path / 'results.sqlite'} is damaged ({_sentence(error)}): restore it from a copy, or {_WAY_OUT}"
        ) from error
    except OSError as error:
        raise RunError(
            f"{path} cannot be {verb} ({error.strerror or _sentence(error)}); {_remedy(str(error))}"
        ) from error


def _remedy(error: str) -> str:
    if "space" in error or "full" in error or "quota" in error.lower():
        return "free some space and run the same command again: it goes on where it was"
    return _WAY_OUT


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _difference(there: Any, wanted: Any, where: str = "") -> str:
    """Which part of two plans differs first, in words; empty where they are the same."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for part in [*there, *(part for part in wanted if part not in there)]:
            found = _difference(there.get(part), wanted.get(part), f"{where} {part}".strip())
            if found:
                return found
        return ""
    if there == wanted:
        return ""
    if isinstance(there, list) and isinstance(wanted, list) and len(there) == len(wanted):
        return next(
            found
            for number, (one, other) in enumerate(zip(there, wanted, strict=True), 1)
            if (found := _difference(one, other, f"{where} {number}"))
        )
    return f"its {where} is {_short(there)}, not {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def _dumps(value: Any, indent: int | None = None) -> str:
    """JSON as it is kept: readable, its texts `printable`, and refusing NaN, which is no JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return _STRAY.sub(lambda byte: "\\" + _written(byte), text)


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    folder = file.parent / ".staging"
    folder.mkdir(exist_ok=True)
    staged = folder / file.name
    staged.write_bytes(content)
    _settle(staged)
    os.replace(staged, file)


def _settle(path: Path) -> None:
    """Have a file, or all files of a folder, on the disk itself, before a row says so."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    """Remove a rest that a run has written itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
