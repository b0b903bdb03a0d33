"""The class activation maps beside pytorch-grad-cam.

python -m benchmarks.cams NET SIDE    # one process of it: what a side takes, as JSON
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

#: of how many channels the peer's dear methods are timed; the rest is reckoned
CHANNELS = 32
LAYERS = {"resnet50": "layer4", "vgg16": "features.29", "efficientnet-lite0": "_bn1"}
LIGHT = ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "eigen-cam")


def cams() -> list[str]:
    """One pass each: beside Grad-CAM; Score-CAM and Ablation-CAM: beside the peer's."""
    from benchmarks.measure import Row, table

    light: list[Row] = []
    dear: list[Row] = []
    for name in LAYERS:
        ours, peer = _process(name, "seewhy"), _process(name, "peer")
        light += [(name, each, f"{ours[each] * 1e3:.1f}", f"{ours[each] / ours[LIGHT[0]]:.2f} ×") for each in LIGHT]
        for label, wanted, words in (
            ("score-cam", 4, f"correlation with float32 {ours['correlation']:.4f}" if ours["correlation"] else ""),
            (
                "ablation-cam",
                0 if name == "efficientnet-lite0" else 100,
                f"by multiply-adds at most {ours['limit']:.0f} ×",
            ),
        ):
            dear.append(
                (
                    name,
                    label,
                    f"{ours['channels']:.0f}",
                    f"{ours[label]:.2f} s",
                    f"{ours[label] / ours['forward']:.0f}",
                    f"{peer[label] * ours['channels'] / CHANNELS:.0f} s",
                    f"**{peer[label] * ours['channels'] / CHANNELS / ours[label]:.1f} ×**",
                    f"≥ {wanted}" if wanted else "–",
                    words,
                )
            )
    head = (
        "net", "method", "channels", "seewhy", "in forward passes", "pytorch-grad-cam", "seewhy is faster by", "wanted", "",
    )  # fmt: skip
    return [
        "## Class activation maps, one photograph",
        "",
        *table(("net", "method", "ms", "to grad-cam"), light),
        "",
        "Beside pytorch-grad-cam at its own batch sizes, each side in a process of its own, as its users run it; seewhy's "
        f"score-cam in bf16. The peer is timed on {CHANNELS} channels and reckoned for all, since it takes the same time for "
        "each; its weights alone, without its maps. Forward passes are the engine's, one image at a time.",
        "",
        *table(head, dear),
    ]


def _process(name: str, side: str) -> dict[str, float]:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-m", "benchmarks.cams", name, side]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} on {name} failed:\n{done.stderr}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main(name: str, side: str) -> None:
    if side != "peer":
        from seewhy.machine import keep_memory, short_spin

        short_spin()
        keep_memory()
    import torch
    from skimage.data import chelsea
    from torch import nn

    from benchmarks.measure import take_turns
    from benchmarks.nets import plain, ready
    from seewhy.data.photo import from_array
    from seewhy.explain import AblationCAM, ScoreCAM
    from seewhy.lens import capture, last_map
    from seewhy.lens.cost import cost
    from seewhy.method import parse

    net = ready(name)
    photo = from_array(chelsea(), net.preprocess)  # type: ignore[no-untyped-call]
    target = int(net.predict(photo).argmax())
    if side == "peer":
        module, given = plain(name), net.normalise(photo.pixels).contiguous()  # as the peer's users have them
        for child in module.modules():
            if isinstance(child, nn.ReLU):
                child.inplace = False  # the peer's hooks cannot bear it
        found = {}
        for label, kind in (("score-cam", "ScoreCAM"), ("ablation-cam", "AblationCAM")):
            started = time.perf_counter()
            _peer(kind, module, LAYERS[name], given, target)
            found[label] = time.perf_counter() - started
        print(json.dumps(found))
        return
    contestants = {each: partial(parse(each), net, photo, target) for each in LIGHT}
    timing = take_turns({**contestants, "forward": partial(net.predict, photo)}, turns=7)
    layer, work = last_map(net), cost(net)
    channels = capture(net, photo.pixels, [layer])[layer].shape[1]
    net.engine.precision = "bf16"
    score, ablation = ScoreCAM()(net, photo, target), AblationCAM()(net, photo, target)
    correlation = 0.0
    if name == "efficientnet-lite0":  # the one with trained weights
        net.engine.precision = "float32"
        exact = ScoreCAM()(net, photo, target).values.flatten()
        correlation = float(torch.corrcoef(torch.stack([exact, score.values.flatten()]))[0, 1])
    said = {each: timing.median(each) for each in timing.turns} | {
        "channels": channels,
        "limit": channels * work.multiply_adds / (channels * work.after(layer) + 2 * work.multiply_adds),
        "score-cam": score.cost.seconds,
        "ablation-cam": ablation.cost.seconds,
        "correlation": correlation,
    }
    print(json.dumps(said))


def _peer(name: str, module: Any, layer: str, given: Any, target: int) -> None:
    """The peer's weights for the first channels of a layer."""
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    chosen = module.get_submodule(layer)
    held: list[Any] = []
    handle = chosen.register_forward_hook(
        lambda _, __, output: held.append(output.detach()[:, :CHANNELS].numpy().copy())
    )
    with torch.no_grad():
        module(given)
    handle.remove()
    with (
        getattr(pytorch_grad_cam, name)(model=module, target_layers=[chosen]) as cam,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        cam.get_cam_weights(given, chosen, [ClassifierOutputTarget(target)], held[0], None)


if __name__ == "__main__":
    main(*sys.argv[1:])
