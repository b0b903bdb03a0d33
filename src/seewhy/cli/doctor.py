"""`seewhy doctor`: what this machine has, what is off, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from seewhy import __version__
from seewhy.cli.options import DEFAULT_MODEL
from seewhy.cli.shell import FAILED, Command, shell
from seewhy.errors import SeewhyError

#: what each extra is for, and the packages that it brings
EXTRAS = {
    "zoo": ("models of torchvision, timm and Hugging Face", ("torchvision", "timm", "transformers")),
    "onnx": ("ONNX files", ("onnx", "onnx2torch")),
    "datasets": ("Hugging Face data sets", ("datasets",)),
    "umap": ("maps of images by UMAP", ("umap",)),
    "parquet": ("votes in Parquet files", ("pyarrow",)),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `problem` where something cannot work, `note` where it could be better."""

    what: str
    status: Literal["ok", "note", "problem"]
    found: str
    advice: str = ""


@click.command(
    cls=Command,
    short_help="What this machine has, and what is off.",
    examples=["seewhy doctor", "seewhy doctor --json"],
)
def doctor() -> None:
    """Look at this machine: versions, threads, memory, GPU, extras, caches and speed; say what is off and what to do.

    Ends with exit code 1 where something cannot work.
    """
    spoken = shell()
    with spoken.progress("looking") as tell:
        findings = []
        for finding in _examine():
            findings.append(finding)
            tell(len(findings), 17, finding.what)
    problems = [finding for finding in findings if finding.status == "problem"]
    document = {"seewhy": __version__, "fit": not problems, "findings": [asdict(finding) for finding in findings]}

    def show() -> None:
        spoken.table(("", "what", "found"), [(each.status, each.what, each.found) for each in findings])
        advice = [each for each in findings if each.advice]
        click.echo()
        for each in advice:
            click.echo(f"{each.what}: {each.advice}")
        if not advice:
            click.echo("Nothing is off.")

    spoken.answer(document, show)
    if problems:
        click.get_current_context().exit(FAILED)


def _examine() -> Iterator[Finding]:
    yield _python()
    yield _torch()
    yield _threads()
    yield _load()
    yield _allocator()
    yield _spin()
    yield _gpu()
    yield _memory()
    for extra in EXTRAS:
        yield _extra(extra)
    yield from _caches()
    yield _here()
    yield _speed()


def _python() -> Finding:
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", f"{version}; seewhy {__version__}")


def _torch() -> Finding:
    import torch

    version = torch.__version__
    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return Finding("torch", "ok", f"{version}, {kind}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads() -> Finding:
    import torch

    threads, cores = torch.get_num_threads(), _cores()
    found = f"{threads} for {cores} cores"
    if threads > cores:
        return Finding(
            "threads", "note", found, f"more threads than cores wait for each other: set OMP_NUM_THREADS={cores}"
        )
    if threads == 1 < cores:
        return Finding(
            "threads", "note", found, f"only one core works: unset OMP_NUM_THREADS, or set it to {cores // 2 or 1}"
        )
    return Finding("threads", "ok", found)


def _load() -> Finding:
    if not hasattr(os, "getloadavg"):
        return Finding("other work", "ok", "cannot be told on this system")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    found = f"load {load:.1f} on {cores} cores in the last minute"
    if load > 1.5 * cores:
        return Finding("other work", "note", found, "other processes keep the machine busy: times here will be long")
    return Finding("other work", "ok", found)


def _allocator() -> Finding:
    from seewhy.machine import keep_memory

    if any(name in os.environ.get("LD_PRELOAD", "") for name in ("jemalloc", "tcmalloc", "mimalloc")):
        return Finding("allocator", "ok", f"preloaded: {os.environ['LD_PRELOAD']}")
    if keep_memory():
        return Finding("allocator", "ok", "keeps its memory between passes")
    if platform.system() == "Linux":
        advice = "this C library returns memory after each pass, which is slower: preload jemalloc if passes are slow"
        return Finding("allocator", "note", "the system's own", advice)
    return Finding("allocator", "ok", "the system's own")


def _spin() -> Finding:
    policy, count = os.environ.get("OMP_WAIT_POLICY", ""), os.environ.get("GOMP_SPINCOUNT", "")
    if policy.lower() == "active" or count.lower() in ("infinite", "infinity"):
        found = "waiting threads spin without end"
        return Finding(
            "OpenMP", "note", found, "a busy machine becomes many times slower: unset OMP_WAIT_POLICY, GOMP_SPINCOUNT"
        )
    how = f"GOMP_SPINCOUNT={count}" if count else f"OMP_WAIT_POLICY={policy}" if policy else "its own default"
    return Finding("OpenMP", "ok", f"waiting threads spin briefly ({how})" if count or policy else how)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory
        return Finding("GPU", "ok", f"{', '.join(names)}, {memory / 2**30:.0f} GiB")
    if shutil.which("nvidia-smi") and not torch.version.cuda:
        advice = "there is an NVIDIA driver, and this torch is for CPUs only: install a torch for CUDA to use it"
        return Finding("GPU", "note", "not used", advice)
    return Finding("GPU", "ok", "none; everything works on the CPU")


def _memory() -> Finding:
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return Finding("memory", "ok", "cannot be told on this system")
    found = f"{free / 2**30:.1f} GiB free"
    if free < 3 * 2**30:
        return Finding(
            "memory", "note", found, "an audit of the default model may need 3 GiB: use --batch 1, or free some"
        )
    return Finding("memory", "ok", found)


def _extra(extra: str) -> Finding:
    sentence, packages = EXTRAS[extra]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    what = f"extra {extra}"
    if missing:
        advice = f"for {sentence}: pip install 'seewhy[{extra}]'"
        return Finding(what, "note", f"not installed ({', '.join(missing)} missing)", advice)
    for package in packages:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what they lack themselves and nothing here needs
                importlib.import_module(package)
        except Exception as error:  # noqa: BLE001  whatever a package does at its import, this reports it
            lines = str(error).splitlines() or [""]
            advice = (
                f"{package} fails at its import: install it again, torchvision together with torch, as they must be of "
                "one release and one kind (CPU or CUDA)"
            )
            return Finding(what, "problem", f"broken ({package}: {type(error).__name__}: {lines[0][:80]})", advice)
    return Finding(what, "ok", f"{sentence}: installed")


def _caches() -> Iterator[Finding]:
    from seewhy import data
    from seewhy.data.fetch import KNOWN, cache_folder

    for name in KNOWN:
        try:
            path = data.cached(name)
        except (SeewhyError, OSError) as error:
            yield Finding(f"data {name}", "note", "cannot be looked for", str(error))
            continue
        if path is None:
            yield Finding(f"data {name}", "ok", f"not fetched (seewhy data get {name})")
        else:
            yield Finding(f"data {name}", "ok", str(path))
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield Finding("cache", "problem", f"{folder} cannot be written", "set SEEWHY_CACHE to a folder that can")
    else:
        yield Finding("cache", "ok", f"{folder}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free")


def _here() -> Finding:
    try:
        with tempfile.TemporaryFile(dir="."):
            pass
    except OSError as error:
        found = f"{Path.cwd()} cannot be written ({error.strerror})"
        return Finding("this folder", "problem", found, "say where results go with --out, or change to another folder")
    free = shutil.disk_usage(".").free
    found = f"can be written, {free / 2**30:.1f} GiB free"
    if free < 2**29:
        return Finding("this folder", "note", found, "little room: an audit keeps its arrays, some hundred megabytes")
    return Finding("this folder", "ok", found)


def _speed(limit: float = 2.0) -> Finding:
    """Forward passes of the default model, for `limit` seconds."""
    import torch

    from seewhy import zoo

    what = "speed"
    try:
        net = zoo.load(DEFAULT_MODEL)
    except SeewhyError as error:
        return Finding(what, "problem", f"{DEFAULT_MODEL} cannot be loaded", str(error))
    images, passes = torch.full((4, 3, *net.size), 0.5), 0
    net.predict(images)
    started, worked = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - started) < limit:
        net.predict(images)
        passes += 1
    busy = (time.process_time() - worked) / elapsed
    found = f"{passes * len(images) / elapsed:.0f} images a second through {DEFAULT_MODEL}, {busy:.1f} cores at work"
    if busy < 0.6 * min(torch.get_num_threads(), _cores()):
        return Finding(what, "note", found, "the passes get only a part of the cores: something else uses the machine")
    return Finding(what, "ok", found)
