"""What a look is: a method that shows what the network learned, with or without images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.lens.capture import find
from seewhy.method import Method


@dataclass(frozen=True)
class Look(Method):
    """A method that shows what a network learned. A new one defines `__call__` and gives itself a `name`.

    `needs_images` says that it looks at answers to images; the others look at the model alone. `of_sets` says that it
    looks at all of a set of images together, `of_pairs` that the set is of two.
    """

    room = "look"
    needs_images: ClassVar[bool] = False
    of_sets: ClassVar[bool] = False
    of_pairs: ClassVar[bool] = False

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 0

    def check(self, net: Classifier) -> None:
        """Raise, before any work, where the network lacks what the method names: a layer, a unit, a class. One forward pass."""
        layer = getattr(self, "layer", None)
        if layer:
            find(net, layer)

    @abstractmethod
    def __call__(self, net: Classifier, images: Tensor | Images | None = None) -> Any:
        """Answer a frozen result with `layer`, `cost`, `notes`, `facts()` (plain values, for JSON) and `plot()`."""
