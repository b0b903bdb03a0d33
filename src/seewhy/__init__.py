"""seewhy: what a convolutional image classifier learned, why it decided what it did, and how easily it is fooled."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy import attack, data, explain, humans, lens, look, tune, zoo
    from seewhy.classifier import Classifier
    from seewhy.data.images import Images, Preprocess
    from seewhy.engine import Engine
    from seewhy.machine import keep_memory
    from seewhy.method import parse
    from seewhy.zoo import load

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Engine",
    "Images",
    "Preprocess",
    "attack",
    "data",
    "explain",
    "humans",
    "keep_memory",
    "lens",
    "load",
    "look",
    "parse",
    "tune",
    "zoo",
]

# Names are looked up when they are first used: importing the package imports nothing else, not even torch, so that the
# command line can set the machine up first and answer --help at once.
_HOMES = {
    "Classifier": "seewhy.classifier",
    "Engine": "seewhy.engine",
    "Images": "seewhy.data.images",
    "Preprocess": "seewhy.data.images",
    "keep_memory": "seewhy.machine",
    "load": "seewhy.zoo",
    "parse": "seewhy.method",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"seewhy.{name}")
    raise AttributeError(f"module 'seewhy' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
