"""CIFAR-10 in its three forms, and pickles that would do harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data import Preprocess, cifar10, load
from seewhy.data.cifar10 import read
from seewhy.errors import DataError

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (15, 32, 32, 3), dtype=np.uint8)  # three an each training batch
LABELS = DRAW.integers(0, 10, 15)
TEST_IMAGES, TEST_LABELS = IMAGES[::-2].copy(), LABELS[::-2].copy()


def planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)


def python2(images: np.ndarray, labels: np.ndarray) -> bytes:
    """A batch as Python 2's cPickle wrote the original ones, protocol 2, opcode by opcode."""
    content = planes(images).tobytes()
    return (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01" + b"K" + bytes([len(images)]) + b"M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R"
        b"q\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(content)) + content
        + b"tbU\x06labelsq\x08]q\x09(" + b"".join(b"K" + bytes([label]) for label in labels)
        + b"eU\x0bbatch_labelq\x0aU\x01xu."
    )  # fmt: skip


def npm(images: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(stream, "PNG")
    return stream.getvalue()


def binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), planes(images)], 1).tobytes()


def python3(images: np.ndarray, labels: np.ndarray, protocol: int) -> bytes:
    return pickle.dumps({b"data": planes(images), b"labels": labels.tolist()}, protocol=protocol)


def files(form: str) -> dict[str, bytes]:
    batches = {f"data_batch_{n + 1}": slice(3 * n, 3 * n + 3) for n in range(5)}
    train = {stem: (IMAGES[part], LABELS[part]) for stem, part in batches.items()}
    parts = {**train, "test_batch": (TEST_IMAGES, TEST_LABELS)}
    if form == "npm":
        made = {f"package/{stem}.png": npm(images) for stem, (images, _) in parts.items()}
        made["package/train_lables.json"] = json.dumps(LABELS.tolist()).encode()
        made["package/test_lables.json"] = json.dumps(TEST_LABELS.tolist()).encode()
        return made
    if form == "binary":
        return {f"cifar-10-batches-bin/{stem}.bin": binary(*part) for stem, part in parts.items()}
    if form == "python2":
        return {f"cifar-10-batches-py/{stem}": python2(*part) for stem, part in parts.items()}
    protocol = {"python3": 2, "newer": 4}[form]
    return {f"cifar-10-batches-py/{stem}": python3(*part, protocol) for stem, part in parts.items()}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("form", ["npm", "binary", "python2", "python3", "newer"])
def test_every_form_gives_the_same(tmp_path: Path, form: str, packed: bool) -> None:
    root = tmp_path / ("cifar.tgz" if packed else "cifar")
    if packed:
        with tarfile.open(root, "w:gz") as archive:
            for name, content in reversed(files(form).items()):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in files(form).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    images, labels = read(root, "train")
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert (images == IMAGES).all()
    assert labels.tolist() == LABELS.tolist()
    data = load(root)
    assert data.name == "cifar10 test"
    assert data.labels == tuple(TEST_LABELS.tolist())
    batch = data.images(slice(0, 3), Preprocess((32, 32)))
    assert torch.equal(batch.pixels, torch.from_numpy(TEST_IMAGES[:3]).permute(0, 3, 1, 2).float() / 255)
    if not packed:
        inner = next(path for path in root.iterdir() if path.is_dir())
        assert (read(inner, "test")[0] == TEST_IMAGES).all()


def test_the_pickles_of_these_tests_are_real_ones() -> None:
    for content in (python2(IMAGES, LABELS), python3(IMAGES, LABELS, 2), python3(IMAGES, LABELS, 4)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the name that numpy.core has today
            batch = pickle.loads(content, encoding="bytes")
        assert (batch[b"data"] == planes(IMAGES)).all()
        assert batch[b"labels"] == LABELS.tolist()


class Harm:
    def __init__(self, call: object, *words: object) -> None:
        self.call = call, words

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def test_a_pickle_that_would_run_something_does_not(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    root = tmp_path / "cifar"
    root.mkdir()
    for harm in (
        Harm(os.system, f"touch {trace}"),
        Harm(eval, f"open({str(trace)!r}, 'w')"),
        Harm(open, str(trace), "w"),
        Harm(np.load, str(trace)),
        Harm(getattr, "text", "upper"),
    ):
        for content in ({b"data": harm, b"labels": [1]}, harm):
            (root / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
            with pytest.raises(DataError, match=r"it holds .*; it was not run"):
                cifar10(root)
            assert not trace.exists()


def test_damaged_and_incomplete_sets(tmp_path: Path) -> None:
    def tried(name: str, content: bytes, message: str, split: str = "test") -> None:
        root = tmp_path / "cifar"
        root.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read(root, split)
        (root / name).unlink()

    pickled = python2(IMAGES, LABELS)
    tried("test_batch", pickled[:-40], "damaged")
    tried("test_batch", pickled[:2000], "damaged")
    tried("test_batch", pickled.replace(b"U\x02u1", b"U\x02f4"), "array of uint8")
    tried("test_batch", b"", "damaged")
    tried("test_batch", pickle.dumps([1, 2]), "not a batch")
    tried("test_batch", pickle.dumps({b"data": 1, b"labels": [1]}), "expected data")
    tried("test_batch.bin", binary(IMAGES, LABELS)[:-1], "cut off")
    tried("test_batch.bin", binary(IMAGES, LABELS + 7), "labels 0 to 9")
    tried("test_batch.png", npm(IMAGES), "lacks test_lables.json")
    tried("data_batch_2.bin", binary(IMAGES, LABELS), "lacks data_batch_1.bin, data_batch_3.bin", "train")
    (tmp_path / "cifar" / "test_lables.json").write_text("[1, 2]")
    tried("test_batch.png", npm(IMAGES), "15 images and 2 labels")
    tried("test_batch.png", npm(IMAGES)[:3000], "damaged")
    (tmp_path / "cifar" / "test_lables.json").write_text("one")
    tried("test_batch.png", npm(IMAGES), "expected a list of labels")
    (tmp_path / "a.tgz").write_text("no archive")
    with pytest.raises(DataError, match="cannot be read as an archive"):
        load(tmp_path / "a.tgz")
    with pytest.raises(DataError, match='no split "val"'):
        read(tmp_path, "val")
    with pytest.raises(DataError, match="there is no file or folder"):
        read(tmp_path / "none", "test")


def test_the_real_one(shared: Path) -> None:
    from seewhy.data import cached

    if cached("cifar10") is None:
        pytest.skip("needs CIFAR-10 in the cache: seewhy data get cifar10")
    images, labels = read(cached("cifar10"), "test")  # type: ignore[arg-type]
    assert images.shape == (10_000, 32, 32, 3)
    # people's votes lie beside it, in the original order: most name the true class for 99.21 % of the images
    votes = np.load(shared / "humans" / "cifar10h-counts.npy")
    assert (votes.argmax(1) == labels).mean() == pytest.approx(0.9921, abs=5e-5)
    assert load("cifar10").counts() == dict.fromkeys(load("cifar10").classes or (), 1000)
