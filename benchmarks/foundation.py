"""The parts on the engine, the first methods, their peers, and the whole audit."""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, at_least, at_most, cosine, table, take_turns
from benchmarks.nets import NETS, pixels, ready


def engine() -> list[str]:
    """Forward passes, PyTorch as it comes against the engine, each in processes of their own, taking turns."""
    rows: list[Row] = []
    sides = ("plain", "float32", "bf16")
    for name in NETS:
        each: dict[str, list[float]] = {side: [] for side in sides}
        logits: dict[str, Tensor] = {}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(3):
                for side in sides:
                    output = Path(folder) / f"{side}.pt"
                    command = [sys.executable, "-m", "benchmarks.engine_worker", name, side, str(output)]
                    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
                    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                    each[side].append(json.loads(done.stdout))
                    logits[side] = torch.load(output, weights_only=True)
        for side in sides[1:]:
            ratio = statistics.median(a / b for a, b in zip(each["plain"], each[side], strict=True))
            error = float((logits[side] - logits["plain"]).norm() / logits["plain"].norm())
            wanted = {("resnet50", "float32"): 2.0, ("resnet50", "bf16"): 3.5}.get((name, side))
            rows.append(
                (
                    name,
                    side,
                    f"{statistics.median(each['plain']) * 1e3:.1f}",
                    f"{statistics.median(each[side]) * 1e3:.1f}",
                    f"**{ratio:.2f} ×**",
                    "–" if wanted is None else at_least(ratio, wanted),
                    f"{error:.0e}",
                )
            )
    head = (
        "net",
        "precision",
        "as it comes, ms an image",
        "engine, ms an image",
        "throughput",
        "wanted",
        "relative difference of logits",
    )
    return ["## The engine: forward passes, batch of 16, in processes of their own", "", *table(head, rows)]


def keeping(module: nn.Module, given: Tensor) -> None:
    """A forward pass with plain hooks on every module that keep what it answers: the least that a capture can do."""
    outputs: list[object] = []

    def keep(_: nn.Module, __: Any, output: object) -> None:
        outputs.append(output)

    handles = [each.register_forward_hook(keep) for each in module.modules()]
    with torch.no_grad():
        module(given)
    for handle in handles:
        handle.remove()


def clamping(module: nn.Module, given: Tensor, target: int) -> Tensor:
    """Guided backpropagation of modules by plain hooks: the gradient, clamped at zero where it enters a rectifier."""

    def clamp(_: nn.Module, __: Any, output: Tensor) -> None:
        output.register_hook(lambda gradient: gradient.clamp_min(0))

    rectifiers = [each for each in module.modules() if isinstance(each, nn.ReLU | nn.ReLU6)]
    handles = [each.register_forward_hook(clamp) for each in rectifiers]
    leaf = given.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(leaf)[0, target], leaf)
    for handle in handles:
        handle.remove()
    return gradient


def methods() -> list[str]:
    """Each method on one image, beside plain passes of the same module in the same process."""
    from pytorch_grad_cam import GradCAM as PeerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from seewhy.explain import Deconvolution, GradCAM, Gradient, GuidedBackprop
    from seewhy.lens import capture, last_map

    rows: list[Row] = []
    for name in NETS:
        net, image = ready(name), pixels(1)
        given = net.normalise(image)
        module = net.module.eval().requires_grad_(False)
        target = int(net.predict(image).argmax())
        # hooks need a module that is called once; Lite0's last map is the second answer of a shared one
        layer = module.get_submodule("_bn1" if name == "efficientnet-lite0" else last_map(net))

        def forward(module: nn.Module = module, given: Tensor = given) -> None:
            with torch.no_grad():
                module(given)

        def both(module: nn.Module = module, given: Tensor = given, target: int = target) -> None:
            leaf = given.detach().clone().requires_grad_()
            torch.autograd.grad(module(leaf)[0, target], leaf)

        def cut(
            module: nn.Module = module, given: Tensor = given, target: int = target, layer: nn.Module = layer
        ) -> None:
            leaves: list[Tensor] = []

            def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
                leaves.append(output.detach().requires_grad_())
                torch.set_grad_enabled(True)
                return leaves[0].clone()

            handle = layer.register_forward_hook(hook)
            with torch.no_grad():
                logits = module(given)
            handle.remove()
            torch.autograd.grad(logits[0, target], leaves[0])

        def peer_cam(
            module: nn.Module = module, given: Tensor = given, target: int = target, layer: nn.Module = layer
        ) -> None:
            with PeerCAM(model=module, target_layers=[layer]) as cam:
                cam(input_tensor=given, targets=[ClassifierOutputTarget(target)])

        contestants: dict[str, Callable[[], object]] = {
            "forward": forward,
            "forward + backward": both,
            "forward + backward of what follows the layer": cut,
            "gradient": partial(Gradient(), net, image),
            "guided-backprop": partial(GuidedBackprop(), net, image),
            "plain hooks that clamp each rectifier's gradient": partial(clamping, module, given, target),
            "deconvolution": partial(Deconvolution(), net, image),
            "grad-cam": partial(GradCAM(), net, image),
            "capture of all layers": partial(capture, net, image),
            "plain hooks that keep every output": partial(keeping, module, given),
        }
        timing = take_turns(contestants, turns=11)
        wanted: dict[str, tuple[str, float | None]] = {
            "gradient": ("forward + backward", 1.15),
            "guided-backprop": ("forward + backward", 1.15),
            "plain hooks that clamp each rectifier's gradient": ("forward + backward", None),
            "deconvolution": ("forward + backward", None),
            "grad-cam": ("forward + backward of what follows the layer", 1.2),
            "capture of all layers": ("forward", 1.1),
            "plain hooks that keep every output": ("forward", None),
        }
        for method, (base, limit) in wanted.items():
            ratio, low, high = timing.ratio(method, base)
            to_forward, *_ = timing.ratio(method, "forward")
            rows.append(
                (
                    name,
                    method,
                    f"{timing.median(method) * 1e3:.1f}",
                    f"{to_forward:.2f} ×",
                    base,
                    f"**{ratio:.2f} ×** ({low:.2f} to {high:.2f})",
                    "–" if limit is None else at_most(ratio, limit),
                )
            )
        module.requires_grad_(True)  # as a peer's user has it
        timing = take_turns({"grad-cam": contestants["grad-cam"], "peer": peer_cam}, turns=9)
        ratio, low, high = timing.ratio("grad-cam", "peer")
        rows.append(
            (
                name,
                "grad-cam",
                f"{timing.median('grad-cam') * 1e3:.1f}",
                "",
                "pytorch-grad-cam",
                f"**{ratio:.2f} ×** ({low:.2f} to {high:.2f})",
                at_most(ratio, 0.45),
            )
        )
    head = ("net", "method", "ms", "to a forward pass", "compared with", "ratio (quartiles)", "wanted")
    return [
        "## The first methods, one image",
        "",
        "Plain hooks on the modules stand beside what they do less of, to show what can be had.",
        "",
        *table(head, rows),
    ]


def peers() -> list[str]:
    """Guided backpropagation and deconvolution, where the peers are right and where they silently are not."""
    from captum.attr import Deconvolution as PeerDeconvolution
    from captum.attr import GuidedBackprop as PeerGuided
    from pytorch_grad_cam import GuidedBackpropReLUModel

    from seewhy.explain import Deconvolution, Gradient, GuidedBackprop

    rows: list[Row] = []
    for name in NETS:
        net, image = ready(name), pixels(1)
        module = net.module.eval()
        for child in module.modules():
            if isinstance(child, nn.ReLU):
                child.inplace = False  # Captum's hooks cannot bear it
        target = int(net.predict(image).argmax())
        gradient = Gradient()(net, image, target).values
        std = torch.tensor(net.std).view(1, 3, 1, 1)
        swapped = GuidedBackpropReLUModel(copy.deepcopy(module))  # it puts other modules in the place of rectifiers
        answer = swapped(net.normalise(image).detach().clone(), target)
        third = cosine(torch.from_numpy(answer).permute(2, 0, 1)[None] / std, gradient)
        for ours, peer in ((GuidedBackprop(), PeerGuided), (Deconvolution(), PeerDeconvolution)):
            found = ours(net, image, target).values
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scaled = peer(module).attribute(net.normalise(image).requires_grad_(), target=target)
            theirs = (scaled / std).detach()
            difference = float((found - theirs).norm() / theirs.norm())
            bar = f"difference {at_most(difference, 1e-5)}"
            if name == "efficientnet-lite0":
                bar = f"seewhy's cosine {at_most(cosine(found, gradient), 0.9)}"
            rows.append(
                (
                    name,
                    ours.name,
                    f"{cosine(found, gradient):.4f}",
                    f"{cosine(theirs, gradient):.4f}",
                    f"{third:.4f}" if peer is PeerGuided else "–",
                    f"{difference:.0e}",
                    bar,
                )
            )
    head = (
        *("net", "method", "cosine with the plain gradient, seewhy", "… Captum", "… pytorch-grad-cam"),
        *("relative difference of seewhy and Captum", "wanted"),
    )
    return [
        "## Guided backpropagation and deconvolution beside Captum",
        "",
        "A cosine of 1 means that the method is the plain gradient under another name. EfficientNet-Lite0's rectifiers are "
        "ReLU6; pytorch-grad-cam has guided backpropagation alone.",
        "",
        *table(head, rows),
    ]


def audit() -> list[str]:
    """`seewhy audit` on its four photographs, as a user runs it."""
    rows: list[Row] = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "audit"
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "seewhy", "audit", "--out", str(out), "--quiet"], stdout=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            if status:
                raise SystemExit(f"seewhy audit ended with status {status}")
            size = (out / "report.html").stat().st_size
            memory = usage.ru_maxrss / 1024**2
            rows.append(
                (
                    *(f"{seconds:.0f} s", at_most(seconds, 120, " s")),
                    *(f"{memory:.2f} GB", at_most(memory, 3, " GB")),
                    *(f"{size / 1e6:.1f} MB", at_most(size / 1e6, 15, " MB")),
                )
            )
    return [
        "## `make audit` after set-up: four photographs, EfficientNet-Lite0, three runs",
        "",
        *table(("time", "wanted", "peak memory", "wanted", "report", "wanted"), rows),
    ]
