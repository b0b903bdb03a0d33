"""Deep SHAP beside Captum's DeepLift: time, and whether the values add up."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, table, take_turns
from benchmarks.nets import NETS, pixels, plain, ready
from seewhy.explain import DeepShap
from seewhy.explain.baseline import baseline

TARGET = 7


class _Apart(nn.Module):
    """Hands its input on as another tensor, without which Captum's rule for max-pooling does not reach the rectifier."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def _peer_module(name: str) -> nn.Module:
    module = plain(name).requires_grad_(False)
    for child in module.modules():
        if hasattr(child, "inplace"):
            setattr(child, "inplace", False)  # its hooks cannot bear it  # noqa: B010
    return module


def deep_shap() -> list[str]:
    """One image, a black reference, the logit of one class."""
    from captum.attr import DeepLift

    rows: list[Row] = []
    for name in NETS:
        net, image = ready(name), pixels(1)
        net.module.eval().requires_grad_(False)
        given, black = net.normalise(image), net.normalise(torch.zeros_like(image))
        found = DeepShap()(net, image, TARGET)
        with torch.no_grad():
            rise = float(net.module(given)[0, TARGET] - net.module(black)[0, TARGET])

        def both(net: nn.Module = net.module, given: Tensor = given) -> None:
            leaf = given.detach().clone().requires_grad_()
            torch.autograd.grad(net(leaf)[0, TARGET], leaf)

        peer = DeepLift(_peer_module(name))

        def captum(peer: DeepLift = peer, given: Tensor = given, black: Tensor = black) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return peer.attribute(given.clone().requires_grad_(), black, target=TARGET).detach()

        contestants: dict[str, Callable[[], object]] = {
            "ours": partial(DeepShap(), net, image, TARGET),
            "gradient": both,
        }
        theirs, times = "fails", "–"
        try:
            total = float(captum().sum())
            theirs = f"{abs(total - rise) / abs(rise):.0e} ({total:.3g} for {rise:.3g})"
            contestants["captum"] = captum
        except RuntimeError:
            pass  # it refuses modules that are used more than once
        timing = take_turns(contestants, turns=7)
        if "captum" in contestants:
            times = f"{timing.ratio('ours', 'captum')[0]:.2f} ×"
        rows.append(
            (
                name,
                f"{timing.median('ours') * 1e3:.0f}",
                f"**{timing.ratio('ours', 'gradient')[0]:.2f} ×**",
                "≤ 3 ×",
                times,
                f"**{found.measures['additivity error'].item():.0e}**",
                "≤ 1e-2",
                theirs,
            )
        )
    head = (
        *("net", "ours, ms", "of forward + backward", "wanted", "of Captum's time"),
        *("additivity error", "wanted", "Captum's"),
    )
    lines = ["## Deep SHAP, one image, one reference (black), beside Captum's DeepLift", "", *table(head, rows), ""]
    net, image = ready("vgg16"), pixels(1)
    module = _peer_module("vgg16")
    features = module.get_submodule("features")
    for index, child in list(features.named_children()):
        if isinstance(child, nn.MaxPool2d):
            features.add_module(index, nn.Sequential(_Apart(), child))
    reference = baseline("noise", image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = DeepLift(module).attribute(net.normalise(image), net.normalise(reference), target=TARGET).detach()
    found = DeepShap(("noise",))(net, image, TARGET)
    difference = float((found.values - right).norm() / right.norm())
    return [
        *lines,
        "Captum's rule for max-pooling is lost where a rectifier comes directly before it, as in VGG16: hooks on one tensor "
        f"run in the wrong order. With a copy put between them its values differ from ours by {difference:.0e} "
        "(wanted ≤ 1e-4; reference: noise).",
    ]
