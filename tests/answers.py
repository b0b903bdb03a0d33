"""What a result is about, as tensors that tests compare."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seewhy.attack import Adversarial
from seewhy.classifier import Classifier
from seewhy.explain import Attribution
from seewhy.look import (
    ActivationMaps,
    ActivationStatistics,
    BeforeAfterMaps,
    Dream,
    ExemplarSet,
    FilterGrid,
    Inverted,
    MappedCodes,
    Maximized,
    NamedUnits,
)
from seewhy.method import Method


def call(method: Method, net: Classifier, images: Tensor) -> Any:
    return method(net, images)


def values(found: Any) -> list[Tensor]:
    """The tensors that a result is about."""
    if isinstance(found, Attribution):
        errors = [] if found.standard_error is None else [found.standard_error]
        return [found.values, found.score, *found.measures.values(), *errors]
    if isinstance(found, Adversarial):
        return [found.images.transpose(0, 1), found.eps.T, found.probabilities.transpose(0, 1)]
    if isinstance(found, ActivationMaps):
        return [found.maps, found.mean, found.zero]
    if isinstance(found, ExemplarSet):
        return [*found.values.values(), *found.windows.values()]
    if isinstance(found, ActivationStatistics):
        return [*found.mean.values(), *found.zero.values(), *found.highest.values()]
    if isinstance(found, BeforeAfterMaps):
        return [found.before, found.after, torch.tensor(list(found.growth.values()))]
    if isinstance(found, NamedUnits):
        return [found.selectivity, found.floor]
    if isinstance(found, MappedCodes):
        return [found.coordinates, found.reduced, found.confidence]
    if isinstance(found, Maximized):
        return [found.images.pixels, found.scores, found.probabilities]
    if isinstance(found, Dream):
        return [found.dreams, found.scores]
    if isinstance(found, Inverted):
        return [found.inversions, found.errors]
    assert isinstance(found, FilterGrid)
    return [found.tiles]
