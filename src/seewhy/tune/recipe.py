"""How a classifier is tuned: one frozen value, written as `option=value,option=value`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from seewhy.errors import SpecError
from seewhy.method import read_options, written

Imbalance = Literal["sampler", "loss"]

#: the sides of the last stages where a recipe names none, as shares of the model's own side
SHARES = (4 / 7, 5 / 7, 6 / 7)
#: from this side on, smaller pictures still show what is on them
PROGRESSIVE = 128


@dataclass(frozen=True)
class Recipe:
    """How a classifier is tuned.

    Args:
        seed: of the split, the order, the augmentation, the new layer and the model's own dropout.
        hold_out: the share of the pictures that is set aside, by group and class, and never trained on.
        batch: pictures a step.
        head_epochs, head_lr: first the new last layer alone, on frozen features, at this rate.
        epochs: then everything, in stages of so many epochs.
        sides: the pictures' side in each stage, in pixels; where none is given, 4/7, 5/7 and 6/7 of the model's own in the
            last three stages (a model judges best a little above the side that it was trained at), and the model's own
            where that is under 128.
        lr, warmup, decay: AdamW's rate, which rises over so many epochs and falls as a cosine; weight decay, on matrices only.
        balance: classes weigh as their number of pictures to this power: 1 as they come, 0 all alike. This is the operating
            point that is trained for, so it is fixed beforehand.
        imbalance: how: `sampler` draws pictures so, `loss` draws them as they come and moves the logits.
        crop: the smallest share of the picture that is cut out; `turn`: degrees; `colour`: how far brightness, contrast,
            saturation and white balance move, 1 being a fifth, a fifth, a quarter and six in a hundred.
        mixup, mixup_share: a share of the steps mixes each picture with another, by a Beta(mixup, mixup) weight.
        smoothing: the share of the target that all classes get.
        ema: the decay of the average over the steps' weights, which is the classifier that is kept.
        frozen: so many first convolutions are left as they were.
        patience: 0 trains to the end, on all that is not held out; more sets a tenth of that aside (never the hold-out) and
            stops when the balanced accuracy on it has not risen for so many epochs, and keeps the best.
        views: the card also says what the mean of the logits over so many mirror images comes to (1: none), which
            `file:FOLDER,views=4` answers.
        precision: auto measures a step in each of float32 and bf16, and takes the faster.

    >>> Recipe.parse("epochs=2+3,lr=0.001").spec
    'epochs=2+3,lr=0.001'
    """

    seed: int = 0
    hold_out: float = 0.2
    batch: int = 32
    head_epochs: int = 1
    head_lr: float = 2e-3
    epochs: tuple[int, ...] = (6, 10, 10)
    sides: tuple[int, ...] = ()
    lr: float = 5e-4
    warmup: float = 0.5
    decay: float = 0.02
    balance: float = 0.5
    imbalance: str = "sampler"
    crop: float = 0.45
    turn: float = 180.0
    colour: float = 1.0
    mixup: float = 0.2
    mixup_share: float = 0.5
    smoothing: float = 0.05
    ema: float = 0.998
    frozen: int = 1
    patience: int = 0
    views: int = 4
    precision: str = "auto"

    def __post_init__(self) -> None:
        within = {
            "hold_out": (self.hold_out, 0.0, 1.0),
            "balance": (self.balance, 0.0, 1.0),
            "crop": (self.crop, 0.01, 1.0),
            "mixup_share": (self.mixup_share, 0.0, 1.0),
            "smoothing": (self.smoothing, 0.0, 0.99),
            "ema": (self.ema, 0.0, 0.999999),
            "turn": (self.turn, 0.0, 180.0),
            "colour": (self.colour, 0.0, 4.0),
        }
        for name, (value, low, high) in within.items():
            if not low <= value <= high:
                raise SpecError(f"expected {name} between {low:g} and {high:g}, got {value:g}")
        if not 0 < self.hold_out < 1:
            raise SpecError(f"expected hold_out between 0 and 1, both excluded, got {self.hold_out:g}")
        for name in ("lr", "head_lr"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise SpecError(f"expected {name} above 0, got {value:g}")
        counts = {"batch": 2, "head_epochs": 0, "frozen": 0, "patience": 0, "warmup": 0, "decay": 0, "mixup": 0}
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise SpecError(f"expected {name} of at least {least}, got {getattr(self, name):g}")
        if any(count < 1 for count in self.epochs) or (not self.epochs and not self.head_epochs):
            raise SpecError(f"expected epochs as whole numbers joined by +, such as 6+10+10, got {self.epochs}")
        if self.sides and (len(self.sides) != len(self.epochs) or min(self.sides) < 8):
            raise SpecError(
                f"expected a side of at least 8 pixels for each of the {len(self.epochs)} stages, got {self.sides}"
            )
        if self.views not in (1, 2, 4):
            raise SpecError(f"expected views of 1, 2 or 4 mirror images, got {self.views}")
        for name, choices in (("imbalance", ("sampler", "loss")), ("precision", ("auto", "float32", "bf16"))):
            if getattr(self, name) not in choices:
                raise SpecError(f'expected {name} to be one of {", ".join(choices)}, got "{getattr(self, name)}"')

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe of `option=value,option=value`; raises `SpecError` with the nearest option."""
        return cls(**read_options(cls, text, "the recipe"))

    @property
    def spec(self) -> str:
        """What differs from the defaults, as `parse` reads it."""
        return written(self)

    def to_json(self) -> dict[str, Any]:
        """Every option as a plain value."""
        plain: dict[str, Any] = json.loads(json.dumps({each.name: getattr(self, each.name) for each in fields(self)}))
        return plain

    def stages(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """(height, width) of each epoch, those of the head first, for a model of this size."""
        own = min(size)
        if self.sides:
            sides = self.sides
        elif own < PROGRESSIVE:
            sides = (own,) * len(self.epochs)
        else:
            first = len(SHARES) - len(self.epochs)
            sides = tuple(_round(own * SHARES[max(0, first + stage)]) for stage in range(len(self.epochs)))
        scaled = [tuple(round(length * side / own) for length in size) for side in sides]
        plan = [shape for shape, count in zip(scaled, self.epochs, strict=True) for _ in range(count)]
        head = [plan[0] if plan else size] * self.head_epochs
        return tuple((int(height), int(width)) for height, width in (*head, *plan))

    def rate(self, step: int, steps: int, total: int) -> float:
        """The rate at a step of the training of everything, `steps` being an epoch's and `total` all of them."""
        rising = self.warmup * steps
        if step < rising:
            return self.lr * min(1.0, (step + 1) / rising)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, total - rising)))


def _round(side: float) -> int:
    return max(32, round(side / 32) * 32)
