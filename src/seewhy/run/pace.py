"""What methods cost here, and which of them a budget has room for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from seewhy.attack.why_it_fails import passes
from seewhy.classifier import Classifier
from seewhy.explain.base import Explainer
from seewhy.explain.occlusion import Occlusion
from seewhy.method import Method
from seewhy.units import seconds as in_words

#: what a step costs besides its passes, in seconds: arrays, pictures, the row
OVERHEAD = 0.05

#: random directions, and explainers whose maps are compared, in the diagnosis of why an attack succeeds
NOISES, MAPS = 3, 2

#: evaluations, samples or steps below which a method is left out instead: with gradients, and without
FEWEST_GRADIENTS, FEWEST_PASSES = 8, 100


class Pace(NamedTuple):
    """Seconds of one image's forward pass, and of a forward and a backward pass."""

    forward: float
    both: float

    def cost(self, method: Method, targets: int = 1) -> float:
        """Seconds of a method on one image, for so many classes, at most."""
        backward = max(0.0, self.both - self.forward)
        together = method.passes[0] * self.forward + method.passes[1] * backward
        return targets * OVERHEAD + (1 if shared(method) else targets) * together


def shared(method: Method) -> bool:
    """Whether a method's passes answer for several classes at once."""
    return isinstance(method, Explainer) and type(method).attribute_each is not Explainer.attribute_each


def diagnosis(after: Sequence[Method]) -> float:
    """Passes, forward and backward, of the diagnosis of one image, at most; `after` are the cheap explainers."""
    return sum(passes(NOISES)) + (2 + NOISES) * sum(sum(method.passes) for method in after[:MAPS])


def roles(logits: Tensor, label: int | None, classes: Sequence[int]) -> dict[int, str]:
    """The classes that are explained for an image, and what each is to it."""
    order = logits.argsort(descending=True, stable=True).tolist()
    found = {order[0]: "predicted"}
    if len(order) > 1:
        found[order[1]] = "runner-up"
    if label is not None:
        found.setdefault(label, "true")
    for index in classes:
        found.setdefault(index, "asked")
    return found


def targets(classes: Sequence[int], labelled: bool) -> int:
    """How many classes are explained for an image, at most."""
    return 2 + len(classes) + labelled


def pace(net: Classifier) -> Pace:
    """How long one image takes here, forward and backward: the best of three tries each, after one to warm up."""
    image = torch.full((1, 3, *net.size), 0.5)

    def forward() -> None:
        net.predict(image)

    def both() -> None:
        net.gradient(image, lambda logits, _: logits[:, 0])

    both()
    return Pace(*(min(_timed(run) for _ in range(3)) for run in (forward, both)))


def _timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def cheap(method: Method) -> bool:
    """Whether a method takes a few passes at most."""
    return sum(method.passes) <= 3


def affordable(
    methods: Sequence[Method], cost: Callable[[Method], float], spare: float, size: tuple[int, int] = (224, 224)
) -> tuple[list[Method], list[str]]:
    """Those of these methods, or of their thriftier variants, that fit into the seconds to spare.

    First as many methods as possible, each at its thriftiest, then each in turn one step dearer while there is time.
    """
    variants = {method: _thriftier(method, size)[::-1] for method in methods}
    chosen: dict[Method, int] = {}
    left_out: list[str] = []
    for method, (first, *_) in variants.items():
        if cost(first) <= spare:
            chosen[method] = 0
            spare -= cost(first)
        else:
            needed = in_words(cost(first))
            at = "" if first == method else f" even as {first.spec}"
            left_out.append(f"{method.name} would take about {needed}{at}, more than the budget leaves")
    rising = list(chosen)
    while rising:
        for method in list(rising):
            steps, place = variants[method], chosen[method]
            more = cost(steps[place + 1]) - cost(steps[place]) if place + 1 < len(steps) else math.inf
            if more <= spare:
                chosen[method], spare = place + 1, spare - more
            else:
                rising.remove(method)
    found = {method: variants[method][place] for method, place in chosen.items()}
    left_out += [
        f"{variant.spec} runs instead of {method.spec}, to stay within the budget"
        for method, variant in found.items()
        if variant != method
    ]
    return list(found.values()), left_out


def _thriftier(method: Method, size: tuple[int, int] = (224, 224)) -> list[Method]:
    """A method, then with a third of its samples, steps or evaluations again and again, while enough remain.

    Occlusion comes with larger windows: an eighth, a sixth and a fourth of the image's shorter side.
    """
    variants = [method]
    if isinstance(method, Occlusion) and method.window is None and method.stride is None and min(size) >= 64:
        variants += [replace(method, window=(min(size) // part,)) for part in (8, 6, 4)]
    enough = FEWEST_GRADIENTS if method.passes[1] else FEWEST_PASSES
    for name in ("samples", "steps", "evaluations"):
        if any(field.name == name and field.type in ("int", int) for field in fields(method)):
            while getattr(variants[-1], name) // 3 >= enough:
                variants.append(replace(variants[-1], **{name: getattr(variants[-1], name) // 3}))
    return variants
