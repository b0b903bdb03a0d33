"""The machine at its best, without a word in the methods: device, precision, batches, memory, and what a pass costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from seewhy.errors import SpecError

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Cost:
    """What a call used: images passed forward and backward, seconds, and the memory it added at its peak (bytes)."""

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0
    peak_bytes: int | None = None

    def __add__(self, other: Cost) -> Cost:
        peaks = [peak for peak in (self.peak_bytes, other.peak_bytes) if peak is not None]
        return Cost(
            self.forward + other.forward,
            self.backward + other.backward,
            self.seconds + other.seconds,
            max(peaks, default=None),
        )


_METERS: ContextVar[tuple[Meter, ...]] = ContextVar("seewhy_meters", default=())


class Meter:
    """Counts every pass that runs inside it, and what it takes of its device, the CPU unless another is given.

    Meters nest: what happens inside an inner one counts for those around it too.

    >>> with Meter() as meter:
    ...     count(forward=3)
    >>> meter.cost.forward
    3
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.cost = Cost()
        self._highest = 0

    def __enter__(self) -> Meter:
        settle(self.device)
        for around in _METERS.get():
            around._look()  # what they have reached is forgotten when the peak begins anew
        self._token = _METERS.set((*_METERS.get(), self))
        self._base = _reset_peak(self.device)
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            settle(self.device)
            elapsed = time.perf_counter() - self._started
            self._look()
            added = None if self._base is None else max(0, self._highest - self._base)
            self.cost = replace(self.cost, seconds=elapsed, peak_bytes=added)
        finally:
            _METERS.reset(self._token)

    def _look(self) -> None:
        self._highest = max(self._highest, _peak(self.device) or 0)


def count(*, forward: int = 0, backward: int = 0) -> None:
    """Tell the meters around this call that images were passed forward or backward."""
    for meter in _METERS.get():
        meter.cost = replace(meter.cost, forward=meter.cost.forward + forward, backward=meter.cost.backward + backward)


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was given, so that a clock tells the time of it; a CPU is done when a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> int | None:
    """Let the peak of a device's memory begin anew; answers what is taken now, None where a system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _resident("VmHWM")


def _resident(row: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(row):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


#: what the errors of PyTorch's allocators, cuBLAS and cuDNN say when memory runs out
_NO_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed"),
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


@cache
def half_pays(device: str) -> bool:
    """Whether a convolution takes less time in bfloat16, measured once; a CPU without it takes ten times as long."""
    images, weight = torch.ones(1, 64, 56, 56, device=device), torch.ones(64, 64, 3, 3, device=device)
    fastest = {}
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            seconds = []
            for _ in range(4):
                started = time.perf_counter()
                torch.conv2d(images.to(dtype), weight.to(dtype), padding=1)
                settle(images.device)
                seconds.append(time.perf_counter() - started)
            fastest[dtype] = min(seconds[1:])
    return fastest[torch.bfloat16] < fastest[torch.float32]


@dataclass
class Engine:
    """How passes run. `batch=None` takes the batch size that a short measurement finds fastest.

    `precision="bf16"` is the user's leave to run in bfloat16 the samples of those methods that bear it, on a device that
    is the faster for it; every other pass stays in float32. `half_paid` says whether it is where that is known, as from a run
    that is gone on with; None measures it. `progress` is told (images done, images in all) after each batch.
    `measured` are the batch sizes by kind of pass, `halved` those that memory made so.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "float32"
    batch: int | None = None
    progress: Callable[[int, int], None] | None = None
    measured: dict[str, int] = field(default_factory=dict)
    halved: dict[str, int] = field(default_factory=dict)
    half_paid: bool | None = None
    _half: bool = False

    #: the sizes that a measurement tries, the number of images from which it pays, and the size without one, the same on a GPU
    SIZES = (4, 8, 16, 32)
    MANY = 64
    USUAL = 16
    SIZES_GPU = (16, 64, 256, 1024)
    USUAL_GPU = 64

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bf16"):
            raise SpecError(f'expected precision "float32" or "bf16", got "{self.precision}"')
        if self.batch is not None and self.batch < 1:
            raise SpecError(f"expected a batch of at least 1 image, got {self.batch}")

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the passes inside: float32 unless `half()` is in force."""
        return torch.autocast(self.device.type, torch.bfloat16) if self._half else nullcontext()

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Inside, a GPU's float32 is float32, not TF32's ten bits, and a convolution the same twice; a CPU has no other."""
        if self.device.type != "cuda":
            yield
            return
        cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark
        cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, False, True, False
        try:
            yield
        finally:
            cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark = before

    @property
    def halves(self) -> bool:
        """Whether the samples of methods that bear it run in bfloat16."""
        return self.precision == "bf16" and (half_pays(str(self.device)) if self.half_paid is None else self.half_paid)

    @contextmanager
    def half(self) -> Iterator[None]:
        """Inside, passes run in bfloat16 if the user agreed to it and the device is the faster for it."""
        before, self._half = self._half, self.halves
        try:
            yield
        finally:
            self._half = before

    @contextmanager
    def telling(self, progress: Callable[[int, int], None] | None) -> Iterator[None]:
        """Inside, another is told of progress, or no one: for work of many batches that tells how far all of it is."""
        before, self.progress = self.progress, progress
        try:
            yield
        finally:
            self.progress = before

    def map(self, run: Callable[[Tensor, slice], Tensor], images: Tensor, kind: str) -> Tensor:
        """Run over a long batch in parts that fit, and join the results.

        `run(part, where)` gets a part of `images` and the slice that it came from. `kind` names the work ("forward"
        or "gradient"): the fastest batch size is measured once for each. When memory runs out the batch is halved,
        and stays so.
        """
        results: list[Tensor] = []
        done, total = 0, len(images)
        size = self._size(run, images, kind)
        while done < total:
            where = slice(done, min(done + size, total))
            counted = [(meter, meter.cost) for meter in _METERS.get()]
            try:
                results.append(run(images[where], where))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or size == 1:
                    raise
                size = self.measured[kind] = self.halved[kind] = max(1, size // 2)
                for meter, cost in counted:  # the images are passed again
                    meter.cost = cost
            else:
                done = where.stop
                if self.progress is not None:
                    self.progress(done, total)
                continue
            gc.collect()  # outside the handler: the error's frames held the tensors
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return results[0] if len(results) == 1 else torch.cat(results)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of how passes ran so far: batches that memory made smaller."""
        return tuple(f"memory ran out: {kind} passes ran in batches of {size}" for kind, size in self.halved.items())

    def _size(self, run: Callable[[Tensor, slice], Tensor], images: Tensor, kind: str) -> int:
        backed_off = self.measured.get(kind)
        if self.batch is not None:
            return min(self.batch, backed_off or self.batch)
        if backed_off is None and len(images) >= self.MANY:
            backed_off = self.measured[kind] = self._fastest(run, images)
        return backed_off or (self.USUAL if self.device.type == "cpu" else self.USUAL_GPU)

    def _fastest(self, run: Callable[[Tensor, slice], Tensor], images: Tensor) -> int:
        """Time each size on the first images, until one is clearly slower an image than the best."""
        sizes = self.SIZES if self.device.type == "cpu" else self.SIZES_GPU
        best, best_time = sizes[0], float("inf")
        hidden = _METERS.set(())  # measuring is not the method's cost
        try:
            run(images[: sizes[0]], slice(0, sizes[0]))
            for size in sizes:
                if size > len(images):
                    break
                if self.device.type == "cuda":  # the first pass of a size also chooses its kernels
                    run(images[:size], slice(0, size))
                    settle(self.device)
                started = time.perf_counter()
                run(images[:size], slice(0, size))
                settle(self.device)
                each = (time.perf_counter() - started) / size
                if each < best_time:
                    best, best_time = size, each
                elif each > 1.15 * best_time:
                    break
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        finally:
            _METERS.reset(hidden)
        return best
