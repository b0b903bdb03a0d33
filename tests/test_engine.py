"""The engine: parts of a batch, memory that runs out, precision by agreement, and what a pass costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nets import FAMILIES, classifier, photos
from seewhy import engine
from seewhy.engine import Cost, Engine, Meter, count, out_of_memory
from seewhy.errors import SpecError
from seewhy.explain import Gradient, SmoothGrad
from seewhy.rng import generator
from seewhy.run.pace import pace, together


def test_parts_are_joined_in_order_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    engine = Engine(batch=4, progress=lambda done, total: told.append((done, total)))
    images = torch.arange(10.0)
    parts: list[slice] = []

    def run(part: Tensor, where: slice) -> Tensor:
        parts.append(where)
        return part * 2

    assert torch.equal(engine.map(run, images, "forward"), images * 2)
    assert parts == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert told == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate",
        "DefaultCPUAllocator: can't allocate memory: you tried",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_when_memory_runs_out_the_batch_is_halved_and_nothing_is_lost(message: str) -> None:
    engine = Engine(batch=16)
    sizes: list[int] = []

    def run(part: Tensor, _: slice) -> Tensor:
        sizes.append(len(part))
        if len(part) > 3:
            raise RuntimeError(message)
        return part + 1

    images = torch.arange(9.0)
    assert torch.equal(engine.map(run, images, "forward"), images + 1)
    assert sizes == [9, 8, 4, 2, 2, 2, 2, 1]
    sizes.clear()
    engine.map(run, images, "forward")
    assert sizes[0] == 2  # it stays so
    assert engine.notes == ("memory ran out: forward passes ran in batches of 2",)
    assert Engine(batch=16).notes == ()
    with pytest.raises(RuntimeError, match=re.escape(message)):
        engine.map(lambda part, _: run(torch.ones(9), slice(0, 9)), images[:1], "forward")
    with pytest.raises(RuntimeError, match="another"):
        engine.map(lambda part, _: (_ for _ in ()).throw(RuntimeError("another")), images, "forward")
    assert out_of_memory(MemoryError())
    assert not out_of_memory(ValueError("out of memory"))


def test_images_whose_batch_ran_out_of_memory_are_counted_once() -> None:
    def run(part: Tensor, _: slice) -> Tensor:
        count(forward=len(part))
        if len(part) > 3:
            raise RuntimeError("out of memory")
        count(backward=len(part))
        return part

    with Meter() as outer:
        count(forward=1)
        with Meter() as meter:
            Engine(batch=16).map(run, torch.arange(9.0), "gradient")
    assert (meter.cost.forward, meter.cost.backward) == (9, 9)
    assert (outer.cost.forward, outer.cost.backward) == (10, 9)


def test_the_batch_size_is_measured_once_and_is_nobodys_cost() -> None:
    net = classifier(FAMILIES["vgg"]())
    images = photos(2).repeat(40, 1, 1, 1)
    with Meter() as meter:
        first = net.predict(images)
    assert meter.cost.forward == 80
    assert net.engine.measured["forward"] in Engine.SIZES
    kept = dict(net.engine.measured)
    torch.testing.assert_close(net.predict(images), first, rtol=1e-4, atol=1e-6)
    assert net.engine.measured == kept
    few = classifier(FAMILIES["vgg"]())
    few.predict(images[:30])
    assert not few.engine.measured  # thirty images do not pay for a measurement
    assert net.engine.notes == ()  # what was measured was not for want of memory


def test_meters_nest_and_costs_add_up() -> None:
    with Meter() as outer:
        count(forward=1)
        with Meter() as inner:
            count(forward=2, backward=3)
    assert (inner.cost.forward, inner.cost.backward) == (2, 3)
    assert (outer.cost.forward, outer.cost.backward) == (3, 3)
    assert outer.cost.seconds >= inner.cost.seconds > 0
    assert Cost(1, 2, 3.0, 10) + Cost(1, 1, 1.0, None) == Cost(2, 3, 4.0, 10)


def test_a_meter_sees_the_memory_that_a_pass_takes() -> None:
    # in a process of its own: one that has grown before takes what it has kept
    script = (
        "import torch; from seewhy.engine import Meter\n"
        "with Meter() as meter:\n    held = torch.ones(64 * 2**20 // 4)\n"
        "print(meter.cost.peak_bytes)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    if told == "None":
        pytest.skip("this system does not tell a process its peak memory")
    assert 50 * 2**20 < int(told) < 200 * 2**20


def test_what_was_taken_before_an_inner_meter_counts_for_the_outer() -> None:
    script = (
        "import torch; from seewhy.engine import Meter\n"
        "with Meter() as outer:\n"
        "    held = torch.ones(64 * 2**20 // 4)\n"
        "    del held\n"
        "    with Meter() as inner:\n"
        "        held = torch.ones(16 * 2**20 // 4)\n"
        "        del held\n"
        "    with Meter():\n"
        "        pass\n"
        "print(outer.cost.peak_bytes, inner.cost.peak_bytes)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    if "None" in told:
        pytest.skip("this system does not tell a process its peak memory")
    outer, inner = map(int, told)
    assert 10 * 2**20 < inner < 40 * 2**20
    assert 50 * 2**20 < outer < 200 * 2**20


class Gpu:
    """Stands in for torch.cuda's view of memory and time; what it is asked is kept, with the device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, torch.device]] = []
        self.now = self.peak = 100
        for name in ("synchronize", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, partial(self._answer, name))

    def _answer(self, name: str, device: torch.device) -> int:
        self.asked.append((name, device))
        if name == "synchronize":
            time.sleep(0.02)
        if name == "reset_peak_memory_stats":
            self.peak = self.now
        return self.peak if name == "max_memory_allocated" else self.now

    def take(self, size: int) -> None:
        """Take memory, and give it back."""
        self.peak = max(self.peak, self.now + size)


def test_a_meter_asks_the_device_that_it_is_given_and_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, second = Gpu(monkeypatch), torch.device("cuda:1")
    with Meter(second) as outer:
        gpu.take(250)
        with Meter(second) as inner:
            gpu.take(30)
        with Meter():
            pass
    assert (outer.cost.peak_bytes, inner.cost.peak_bytes) == (250, 30)
    assert 0.02 < inner.cost.seconds < outer.cost.seconds
    assert {device for _, device in gpu.asked} == {second}
    waits = [name for name, _ in gpu.asked].count("synchronize")
    assert waits == 4  # before each clock starts, and before it stops


def test_a_net_on_the_cpu_is_measured_there_though_a_gpu_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    for name in ("is_available", "is_initialized"):
        monkeypatch.setattr(torch.cuda, name, lambda: True)
    found = Gradient()(classifier(FAMILIES["vgg"]()), photos(), 1)
    assert found.cost.forward > 0
    assert not gpu.asked


def test_every_cost_is_that_of_the_nets_device() -> None:
    source = Path(engine.__file__).parent
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Meter":
                assert [ast.unparse(given).endswith("net.engine.device") for given in node.args] == [True], path


def test_a_gpus_pace_is_taken_when_it_has_done_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, second = Gpu(monkeypatch), torch.device("cuda:1")
    net: Any = SimpleNamespace(
        size=(8, 8), engine=Engine(second), predict=lambda images: None, gradient=lambda images, score: None
    )
    found = pace(net)
    assert min(found.forward, found.both) > 0.02
    assert together(net, found._replace(forward=0.01), 4).forward > 0
    assert {device for _, device in gpu.asked} == {second}
    monkeypatch.setattr(engine, "half_pays", lambda device: device == "cuda:1")
    assert Engine(second, precision="bf16").halves


def test_a_gpus_batches_are_timed_when_their_kernels_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(monkeypatch)
    seen: set[int] = set()

    def run(part: torch.Tensor, where: slice) -> torch.Tensor:
        time.sleep(0 if len(part) in seen else len(part) * 0.001)
        seen.add(len(part))
        return part

    engine = Engine(torch.device("cuda:1"))
    engine.map(run, torch.zeros(300, 1), "forward")
    assert engine.measured == {"forward": 256}
    assert len(Engine(torch.device("cuda:1")).map(run, torch.zeros(60, 1), "forward")) == 60
    assert seen == {16, 64, 256, 60, 44}


def test_bf16_is_used_where_the_method_bears_it_and_the_user_agrees_and_it_pays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = photos()

    def explained(precision: str, method: Gradient | SmoothGrad) -> Tensor:
        net = classifier(FAMILIES["vgg"]())
        net.engine.precision = precision  # type: ignore[assignment]
        return method(net, images, 1).values

    smooth = SmoothGrad(samples=4)
    monkeypatch.setattr(engine, "half_pays", lambda device: False)
    assert torch.equal(explained("bf16", smooth), explained("float32", smooth))
    slow = classifier(FAMILIES["vgg"]())
    slow.engine.precision = "bf16"
    assert "run in float32" in smooth(slow, images, 1).notes[0]
    assert not Gradient()(slow, images, 1).notes
    monkeypatch.setattr(engine, "half_pays", lambda device: True)
    assert torch.equal(explained("bf16", Gradient()), explained("float32", Gradient()))
    full, half = explained("float32", smooth), explained("bf16", smooth)
    difference = (full - half).norm() / full.norm()
    assert 0 < difference < 0.1
    with pytest.raises(SpecError, match="float32"):
        Engine(precision="bf8")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="at least 1"):
        Engine(batch=0)


def test_an_allocator_that_keeps_its_memory_changes_no_result() -> None:
    script = (
        "import sys, torch; from seewhy.machine import keep_memory\n"
        "kept = keep_memory() if sys.argv[1] == 'keep' else False\n"
        "torch.manual_seed(0); net = torch.nn.Conv2d(3, 8, 3); x = torch.rand(4, 3, 64, 64)\n"
        "print(net(x).double().sum().item())"
    )
    answers = {
        subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True).stdout
        for how in ("keep", "plain")
    }
    assert len(answers) == 1


def test_importing_changes_nothing_and_imports_nothing_heavy() -> None:
    script = (
        "import os, sys; before = dict(os.environ); import seewhy, seewhy.cli\n"
        "assert dict(os.environ) == before\n"
        "print([name for name in ('torch', 'numpy', 'matplotlib', 'zarr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generators_depend_on_seed_and_words_alone() -> None:
    first = torch.rand(4, generator=generator(1, "noise", 2))
    torch.manual_seed(5)
    assert torch.equal(first, torch.rand(4, generator=generator(1, "noise", 2)))
    for other in (generator(2, "noise", 2), generator(1, "noise", 3), generator(1, "step", 2)):
        assert not torch.equal(first, torch.rand(4, generator=other))
