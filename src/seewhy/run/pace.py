"""What methods cost here, and which of them a budget has room for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from seewhy.attack.why_it_fails import passes
from seewhy.classifier import Classifier
from seewhy.engine import settle
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

#: seconds of an image's forward pass from which on batches gain little
SLOW = 0.05

T = TypeVar("T")


class Pace(NamedTuple):
    """Seconds of one image's forward pass, of a forward and a backward pass, and of reading it; the images' (height, width)."""

    forward: float
    both: float
    read: float = 0.0
    size: tuple[int, int] = (224, 224)

    def cost(self, method: Method, targets: int = 1) -> float:
        """Seconds of a method on one image, for so many classes, at most."""
        backward = max(0.0, self.both - self.forward)
        passed, returned = method.passes_on(self.size)
        together = passed * self.forward + returned * backward
        return targets * OVERHEAD + (1 if shared(method) else targets) * together


def shared(method: Method) -> bool:
    """Whether a method's passes answer for several classes at once."""
    return isinstance(method, Explainer) and type(method).attribute_each is not Explainer.attribute_each


def diagnosis(after: Sequence[Method]) -> float:
    """Passes, forward and backward, of the diagnosis of one image, at most; `after` are the cheap explainers."""
    return sum(passes(NOISES)) + (2 + NOISES) * sum(sum(method.passes) for method in after[:MAPS])


def roles(top: Sequence[int], label: int | None, classes: Sequence[int]) -> dict[int, str]:
    """The classes that are explained for an image, and what each is to it; `top` are the most probable in order."""
    found = {top[0]: "predicted"}
    if len(top) > 1:
        found[top[1]] = "runner-up"
    if label is not None:
        found.setdefault(label, "true")
    for index in classes:
        found.setdefault(index, "asked")
    return found


def targets(classes: Sequence[int], labelled: bool) -> int:
    """How many classes are explained for an image, at most."""
    return 2 + len(classes) + labelled


def pace(net: Classifier, batch: int = 1, read: Callable[[], object] | None = None) -> Pace:
    """How long one image takes here, forward and backward: the best of three tries each, after one to warm up.

    In batches of `batch`. `read` reads one image, as the first of those that will be looked at, to see how long that takes.
    """
    image = torch.full((batch, 3, *net.size), 0.5)

    def forward() -> None:
        net.predict(image)

    def both() -> None:
        net.gradient(image, lambda logits, _: logits[:, 0])

    both()
    device = net.engine.device
    found = [min(_timed(run, device) for _ in range(3)) / batch for run in (forward, both)]
    return Pace(found[0], found[1], 0.0 if read is None else min(_timed(read, device) for _ in range(2)), net.size)


def together(net: Classifier, single: Pace, batch: int) -> Pace:
    """How long one of `batch` images takes that pass together, where one alone takes `single`.

    Small networks gain most; those that take longer than `SLOW` seconds an image gain little, and are not measured again.
    """
    if single.forward > SLOW:
        return single
    image = torch.full((batch, 3, *net.size), 0.5)
    forward = min(_timed(lambda: net.predict(image), net.engine.device) for _ in range(2)) / batch
    share = min(1.0, forward / single.forward) if single.forward else 1.0
    return single._replace(forward=share * single.forward, both=share * single.both)


def _timed(run: Callable[[], object], device: torch.device) -> float:
    settle(device)
    started = time.perf_counter()
    run()
    settle(device)
    return time.perf_counter() - started


def cheap(method: Method) -> bool:
    """Whether a method takes a few passes at most."""
    return sum(method.passes) <= 3


@dataclass(frozen=True)
class Offer(Generic[T]):
    """Something that may be done, in one of several ways: (what that is called, its seconds, itself), the best first."""

    name: str
    ways: tuple[tuple[str, float, T], ...]
    verb: str = "runs"


def offer(method: Method, cost: Callable[[Method], float], size: tuple[int, int] = (224, 224)) -> Offer[Method]:
    """A method, as it is or in one of its thriftier variants."""
    return Offer(method.name, tuple((each.spec, cost(each), each) for each in _thriftier(method, size)))


def affordable(offers: Sequence[Offer[Any]], spare: float) -> tuple[list[Any], list[str]]:
    """What fits into the seconds to spare, one for each offer, None where it does not; and what that leaves out.

    First as many offers as possible, in order, each in its thriftiest way, then each in turn one way dearer while there is time.
    """
    chosen: dict[int, int] = {}
    left_out: list[str] = []
    for number, each in enumerate(offers):
        told, seconds, _ = each.ways[-1]
        if seconds <= spare:
            chosen[number] = len(each.ways) - 1
            spare -= seconds
        else:
            at = "" if len(each.ways) == 1 else f" even as {told}"
            left_out.append(f"{each.name} would take about {in_words(seconds)}{at}, more than the budget leaves")
    rising = list(chosen)
    while rising:
        for number in list(rising):
            ways, place = offers[number].ways, chosen[number]
            more = ways[place - 1][1] - ways[place][1] if place else math.inf
            if more <= spare:
                chosen[number], spare = place - 1, spare - more
            else:
                rising.remove(number)
    left_out += [
        f"{offers[number].ways[place][0]} {offers[number].verb} instead of {offers[number].ways[0][0]}, to stay within the budget"
        for number, place in chosen.items()
        if place
    ]
    found = [each.ways[chosen[number]][2] if number in chosen else None for number, each in enumerate(offers)]
    return found, left_out


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
