"""The class activation maps beside pytorch-grad-cam.

python -m benchmarks.cams NET SIDE    # one process of it: what a side takes, as JSON
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

#: of how many channels the peer's dear methods are timed, after a first batch; the rest is reckoned
CHANNELS, FIRST = 64, 32
LAYERS = {"resnet50": "layer4", "vgg16": "features.29", "efficientnet-lite0": "_bn1"}
LIGHT = ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "eigen-cam")
#: the speed-ups over the peer that are wanted; ablation-cam's on the nets for which there is one
SCORE, ABLATION = 4, {"resnet50": 100, "vgg16": 100}


def cams() -> Iterator[list[str]]:
    """One pass each: beside Grad-CAM; Score-CAM and Ablation-CAM: beside the peer's."""
    from benchmarks.measure import Row, at_least, process

    light: list[Row] = []
    dear: list[Row] = []
    for name in LAYERS:
        peer, ours = process("cams", name, "peer"), process("cams", name, "seewhy")
        light += [(name, each, f"{ours[each] * 1e3:.1f}", f"{ours[each] / ours[LIGHT[0]]:.2f} ×") for each in LIGHT]
        for label, wanted, words in (
            (
                "score-cam",
                SCORE,
                f"its passes at the peak {ours['floor']:.1f} s, seewhy {ours['score-cam'] / ours['floor']:.2f} × of it"
                + (f"; correlation with float32 {ours['correlation']:.4f}" if ours["correlation"] else ""),
            ),
            ("ablation-cam", ABLATION.get(name), f"by multiply-adds at most {ours['limit']:.0f} ×"),
        ):
            theirs = peer[label] * ours["channels"]
            dear.append(
                (
                    name,
                    label,
                    f"{ours['channels']:.0f}",
                    f"{ours[label]:.2f} s",
                    f"{ours[label] / ours['forward']:.0f}",
                    f"{theirs:.0f} s",
                    f"**{theirs / ours[label]:.1f} ×**",
                    at_least(theirs / ours[label], wanted) if wanted else "–",
                    words,
                )
            )
        yield _page(light, dear)


def _page(light: list[tuple[str, ...]], dear: list[tuple[str, ...]]) -> list[str]:
    from benchmarks.measure import table

    head = (
        "net", "method", "channels", "seewhy", "in forward passes", "pytorch-grad-cam", "seewhy is faster by", "wanted", "",
    )  # fmt: skip
    return [
        "## Class activation maps, one photograph",
        "",
        *table(("net", "method", "ms", "to grad-cam"), light),
        "",
        "Beside pytorch-grad-cam at its own batch sizes, each side in a process of its own, as its users run it; seewhy's "
        f"score-cam in bf16. The peer is timed on {CHANNELS} channels, a first batch of {FIRST} not counted, "
        "and reckoned for all in proportion; its weights alone, without its maps. Forward passes are the engine's, in float32, "
        "one image at a time. The peak is what a large product of matrices reaches in bf16.",
        "",
        *table(head, dear),
    ]


def main(name: str, side: str) -> None:
    if side != "peer":
        from seewhy.machine import keep_memory, short_spin

        short_spin()
        keep_memory()
    import torch
    from skimage.data import chelsea
    from torch import nn

    from benchmarks.measure import rate, take_turns
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
            _peer(kind, module, LAYERS[name], given, target, FIRST)  # not counted
            # the unchanged image is passed too, by one of the two
            found[label] = _peer(kind, module, LAYERS[name], given, target, CHANNELS) / (CHANNELS + 1)
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
        "floor": channels * work.multiply_adds / rate(torch.bfloat16),
        "score-cam": score.cost.seconds,
        "ablation-cam": ablation.cost.seconds,
        "correlation": correlation,
    }
    print(json.dumps(said))


def _peer(name: str, module: Any, layer: str, given: Any, target: int, channels: int) -> float:
    """Seconds of the peer's weights for the first channels of a layer."""
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    chosen = module.get_submodule(layer)
    held: list[Any] = []
    handle = chosen.register_forward_hook(
        lambda _, __, output: held.append(output.detach()[:, :channels].numpy().copy())
    )
    with torch.no_grad():
        module(given)
    handle.remove()
    with (
        getattr(pytorch_grad_cam, name)(model=module, target_layers=[chosen]) as cam,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        started = time.perf_counter()
        cam.get_cam_weights(given, chosen, [ClassifierOutputTarget(target)], held[0], None)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(*sys.argv[1:])
