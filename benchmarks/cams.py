"""The class activation maps beside pytorch-grad-cam."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, table, take_turns
from benchmarks.nets import NETS, plain, ready
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.method import parse

#: of how many channels the peer's dear methods are timed; the rest is reckoned
CHANNELS = 64
LAYERS = {"resnet50": "layer4", "vgg16": "features.29", "efficientnet-lite0": "_bn1"}


def cams() -> list[str]:
    """One pass each: beside Grad-CAM; Score-CAM and Ablation-CAM: beside the peer's."""
    from skimage.data import chelsea

    from seewhy.data.photo import from_array
    from seewhy.explain import AblationCAM, ScoreCAM
    from seewhy.lens import capture, last_map
    from seewhy.lens.cost import cost

    light: list[Row] = []
    dear: list[Row] = []
    for name in NETS:
        net = ready(name)
        photo = from_array(chelsea(), net.preprocess)  # type: ignore[no-untyped-call]
        target = int(net.predict(photo).argmax())
        names = ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "eigen-cam")
        timing = take_turns({each: partial(parse(each), net, photo, target) for each in names}, turns=7)
        light += [
            (name, each, f"{timing.median(each) * 1e3:.1f}", f"{timing.ratio(each, names[0])[0]:.2f} ×")
            for each in names
        ]

        module, given = plain(name), net.normalise(photo.pixels).contiguous()  # as the peer's users have them
        for child in module.modules():
            if isinstance(child, nn.ReLU):
                child.inplace = False  # the peer's hooks cannot bear it
        layer = last_map(net)
        channels = capture(net, photo.pixels, [layer])[layer].shape[1]
        work = cost(net)
        limit = channels * work.multiply_adds / (channels * work.after(layer) + 2 * work.multiply_adds)

        def whole(given: Any = given, module: nn.Module = module) -> None:
            with torch.no_grad():
                module(given)

        contestants: dict[str, Callable[[], object]] = {
            "forward": whole,
            "ablation-cam": partial(AblationCAM(), net, photo, target),
            "peer score-cam": partial(_peer, "ScoreCAM", module, LAYERS[name], given, target),
            "peer ablation-cam": partial(_peer, "AblationCAM", module, LAYERS[name], given, target),
        }
        found: list[Tensor] = []

        def ours(net: Classifier = net, photo: Images = photo, target: int = target, found: Any = found) -> None:
            found.append(ScoreCAM()(net, photo, target).values.flatten())

        contestants["score-cam"] = ours
        timing = take_turns(contestants, turns=1, warm=0)
        net.engine.precision = "bf16"
        halves = take_turns({"ours": contestants["score-cam"], "peer": contestants["peer score-cam"]}, turns=1, warm=0)
        net.engine.precision = "float32"
        agreement = float(torch.corrcoef(torch.stack(found))[0, 1])
        for label, seconds, ratio, wanted, words in (
            ("score-cam", timing.median("score-cam"), timing.ratio("peer score-cam", "score-cam")[0], "–", ""),
            (
                "score-cam, bf16",
                halves.median("ours"),
                halves.ratio("peer", "ours")[0],
                "≥ 4",
                f"correlation {agreement:.4f}",
            ),
            (
                "ablation-cam",
                timing.median("ablation-cam"),
                timing.ratio("peer ablation-cam", "ablation-cam")[0],
                "–" if name == "efficientnet-lite0" else "≥ 100",
                f"exact; by multiply-adds at most {limit:.0f} ×",
            ),
        ):
            passes = seconds / timing.median("forward")
            faster = f"**{ratio * channels / CHANNELS:.1f} ×**"
            dear.append((name, label, f"{channels}", f"{seconds:.2f} s", f"{passes:.0f}", faster, wanted, words))
    return [
        "## Class activation maps, one photograph",
        "",
        *table(("net", "method", "ms", "to grad-cam"), light),
        "",
        f"Beside pytorch-grad-cam at its own batch sizes. The peer is timed on {CHANNELS} channels and reckoned for all, since "
        "it takes the same time for each; its weights alone, without its maps. One turn: a run takes up to a minute.",
        "",
        *table(
            (
                "net",
                "method",
                "channels",
                "seewhy",
                "in forward passes",
                "faster than the peer",
                "wanted",
                "beside float32",
            ),
            dear,
        ),
    ]


def _peer(name: str, module: nn.Module, layer: str, given: Any, target: int) -> None:
    """The peer's weights for the first channels of a layer."""
    import pytorch_grad_cam
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
