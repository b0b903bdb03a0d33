"""What the steps of an audit share: the job that they belong to, and what each of them finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor

from seewhy.attack.base import Attack
from seewhy.classifier import Classifier
from seewhy.engine import Cost
from seewhy.explain.base import Explainer
from seewhy.lens.capture import trace
from seewhy.look.activations import Activations
from seewhy.look.filters import Filters
from seewhy.run.material import Material
from seewhy.run.plan import Plan
from seewhy.run.store import Run

Plain = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One pass over a plan: the net, what was given, and where what is found is kept."""

    net: Classifier
    plan: Plan
    material: Material
    run: Run

    @cached_property
    def explainers(self) -> list[Explainer]:
        return [method for method in self.plan.explain if isinstance(method, Explainer)]

    @cached_property
    def after(self) -> list[Explainer]:
        """Those that explain the adversarial image too."""
        return [method for method in self.plan.after if isinstance(method, Explainer)]

    @cached_property
    def attacks(self) -> list[Attack[Any]]:
        return [method for method in self.plan.attack if isinstance(method, Attack)]

    @cached_property
    def activations(self) -> list[Activations]:
        return [method for method in self.plan.look if isinstance(method, Activations)]

    @cached_property
    def filters(self) -> list[Filters]:
        return [method for method in self.plan.look if isinstance(method, Filters)]


@dataclass(frozen=True)
class Found:
    """What a step found: its record, its cost, and what is kept beside the row."""

    record: Plain
    cost: Cost
    notes: tuple[str, ...] = ()
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    pictures: Mapping[str, Picture.Image] = field(default_factory=dict)


def remembered(net: Classifier) -> Classifier:
    """The net, with what it takes a pass to find out known from here on: no step's cost depends on which one comes first."""
    trace(net)
    _ = net.classes
    return net


def class_of(net: Classifier, logits: Tensor, index: int) -> Plain:
    """A class as records have it."""
    return {
        "index": index,
        "label": net.labels[index],
        "probability": float(logits.softmax(-1)[index]),
    }


def number(value: float) -> float | None:
    """A number as JSON can have it."""
    return value if math.isfinite(value) else None


def picture_of(pixels: Tensor) -> Picture.Image:
    """Pixels (3, H, W) in [0, 1] as a picture of 8 bits."""
    return Picture.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
