"""The training itself: steps that can be taken up again after any of them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.errors import ModelError, RunError
from seewhy.rng import generator
from seewhy.tune.augment import augmented, mixed
from seewhy.tune.average import Average
from seewhy.tune.balance import offsets, weights
from seewhy.tune.depthwise import FastDepthwise
from seewhy.tune.marks import marks
from seewhy.tune.network import first_parts, like
from seewhy.tune.pictures import Pictures, Split
from seewhy.tune.recipe import Recipe

Progress = Callable[[float, float, str], None]

#: seconds between two checkpoints; there is one after each epoch, too
OFTEN = 120.0


@final
@dataclass
class Loop:
    """One training of a network whose last layer is at `head`; `train` takes it to its end from wherever it is.

    Whatever is drawn depends on the seed, the epoch and the step alone, so that a training that was stopped goes on to the
    same numbers. `about` names what is trained on what: a checkpoint of anything else is refused.
    """

    net: Classifier
    head: str
    pictures: Pictures
    split: Split
    recipe: Recipe
    checkpoint: Path
    about: str
    tell: Progress = lambda done, total, what: None
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    precision: str = ""
    best: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = self.net.module
        self.device = self.net.engine.device
        self.classes = len(self.pictures.data.classes or ())
        self.places = np.asarray(self.split.train)
        self.labels = [self.pictures.labels[place] for place in self.split.train]
        self.stages = self._stages()
        self.steps = math.ceil(len(self.labels) / self.recipe.batch)
        self.frozen = first_parts(self.module, self._blank(self.net.size), self.recipe.frozen)
        self.average = Average(self.module, self.recipe.ema)
        power = self.recipe.balance if self.recipe.imbalance == "loss" else 1.0
        self.offsets = offsets(self.labels, self.classes, power).to(self.device)
        power = self.recipe.balance if self.recipe.imbalance == "sampler" else 1.0
        self.weights = weights(self.labels, self.classes, power)
        self.optimizer = self._optimizer(self.recipe.head_lr)
        self.notes: list[str] = []

    # What is done

    def train(self) -> Classifier:
        """Train to the end; answers the classifier of the averaged weights, which `average.module` holds, too."""
        self._restore()
        sizes = [math.prod(shape) for shape in self.stages]
        whole = sum(sizes) * self.steps
        written = time.monotonic()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            while self.epoch < len(self.stages) and not self._enough():
                self._phase()
                order = self._order()
                shape = self.stages[self.epoch]
                what = f"epoch {self.epoch + 1} of {len(self.stages)}, {shape[0]} pixels"
                while self.step < self.steps:
                    began = time.perf_counter()
                    self._step(order)
                    self.seconds += time.perf_counter() - began
                    self.tell(sum(sizes[: self.epoch]) * self.steps + sizes[self.epoch] * self.step, whole, what)
                    if time.monotonic() - written > OFTEN and self.step < self.steps:
                        self._keep()
                        written = time.monotonic()
                self._finish_epoch()
                self._keep()
                written = time.monotonic()
        self.module.eval()
        if self.best:
            self.average.module.load_state_dict(self.best["weights"])
        return self._twin(self.average.module)

    def _step(self, order: Tensor) -> None:
        """One step: draw, cut, pass forward and backward, move, average."""
        draw = generator(self.recipe.seed, "tune", "step", self.epoch, self.step)
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=draw)))  # what the module itself draws: dropout
        where = order[self.step * self.recipe.batch : (self.step + 1) * self.recipe.batch]
        self.step += 1
        if len(where) < 2 <= len(order):  # batch normalisation has no deviation of one picture
            return
        labels = torch.tensor([self.labels[place] for place in where.tolist()])
        pictures = self.pictures.batch(self.places[where.numpy()]).to(self.device, non_blocking=True)
        pixels = augmented(pictures, self.stages[self.epoch], self.recipe, draw)
        targets = F.one_hot(labels, self.classes).float().to(self.device)
        if not self._head_only:
            pixels, targets = mixed(pixels, targets, self.recipe, draw)
            rate = self.recipe.rate(self._passed, self.steps, self.steps * (len(self.stages) - self.recipe.head_epochs))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        logits = self._forward(pixels) + self.offsets
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.smoothing)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"the loss of epoch {self.epoch + 1}, step {self.step} is {value}: take a smaller lr than "
                f"{self.recipe.lr:g}, or precision=float32"
            )
        loss.backward()
        self.optimizer.step()
        self.average.update(self.epoch * self.steps + self.step)
        self.loss += value

    def _forward(self, pixels: Tensor) -> Tensor:
        with passing(self.precision, self.device):
            return self.net._unwrap(self.module(self.net.normalise(pixels))).float()

    def _phase(self) -> None:
        """Which parts move in this epoch, and an optimizer of their own at the beginning of each phase."""
        if self._head_only:
            self.module.eval().requires_grad_(False)
            self.module.get_submodule(self.head).requires_grad_(True)
        else:
            self.module.train().requires_grad_(True)
            for part in self.frozen:
                part.eval()
                for parameter in part.parameters(recurse=False):
                    parameter.requires_grad_(False)
            if self.epoch == self.recipe.head_epochs and self.step == 0:
                self.optimizer = self._optimizer(self.recipe.lr)

    def _finish_epoch(self) -> None:
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "side": min(self.stages[self.epoch]),
            "loss": self.loss / self.steps,
            "seconds": round(self.seconds, 1),
        }
        if self.split.watch and not self._head_only:
            logits = predicted(self._twin(self.average.module), self.pictures, self.split.watch)
            labels = [self.pictures.labels[place] for place in self.split.watch]
            row["watched"] = marks(logits, labels, self.pictures.data.classes or ()).balanced_accuracy
            if not self.best or row["watched"] > self.best["watched"]:
                held = {key: value.clone() for key, value in self.average.module.state_dict().items()}
                self.best = {"watched": row["watched"], "epoch": self.epoch, "weights": held}
        self.history.append(row)
        self.epoch, self.step, self.loss, self.seconds = self.epoch + 1, 0, 0.0, 0.0

    def _enough(self) -> bool:
        """Whether the balanced accuracy on the watched pictures has not risen for long."""
        patience = self.recipe.patience
        return bool(patience and self.best and self.epoch - 1 - self.best["epoch"] >= patience)

    # What it is made of

    @property
    def _head_only(self) -> bool:
        return self.epoch < self.recipe.head_epochs

    @property
    def _passed(self) -> int:
        """Steps of the training of everything before this one; `step` is one ahead already."""
        return (self.epoch - self.recipe.head_epochs) * self.steps + self.step - 1

    def _order(self) -> Tensor:
        """The epoch's pictures, by their places among those that train."""
        draw = generator(self.recipe.seed, "tune", "order", self.epoch)
        if self.recipe.imbalance == "loss" or self.recipe.balance == 1:
            return torch.randperm(len(self.labels), generator=draw)
        return torch.multinomial(self.weights, len(self.labels), replacement=True, generator=draw)

    def _optimizer(self, rate: float) -> torch.optim.Optimizer:
        matrices = [each for each in self.module.parameters() if each.ndim > 1]
        others = [each for each in self.module.parameters() if each.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.recipe.decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, fused=True)

    def _blank(self, size: tuple[int, int], count: int = 2) -> Tensor:
        return self.net.normalise(torch.zeros(count, 3, *size, device=self.device))

    def _stages(self) -> tuple[tuple[int, int], ...]:
        """The pictures' size in each epoch; the model's own throughout where it takes no other."""
        wanted = self.recipe.stages(self.net.size)
        self.module.eval()
        try:
            with torch.no_grad():
                for size in dict.fromkeys(wanted):
                    self.module(self._blank(size))
        except (RuntimeError, ValueError, AssertionError):
            if self.recipe.sides:
                raise ModelError(
                    f"{self.net.name} does not take pictures of the recipe's sides, {self.recipe.sides}; leave sides out"
                ) from None
            return (self.net.size,) * len(wanted)
        return wanted

    def _twin(self, module: nn.Module) -> Classifier:
        return like(self.net, module, self.net.labels)

    # What survives a kill

    def _keep(self) -> None:
        """Write everything that the rest of the training depends on, whole or not at all."""
        held = {
            "about": self.about,
            "module": self.module.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "at": {"epoch": self.epoch, "step": self.step, "loss": self.loss, "seconds": self.seconds},
            "precision": self.precision,
            "history": json.dumps(self.history),
        }
        staged = self.checkpoint.with_suffix(".part")
        with staged.open("wb") as stream:
            torch.save(held, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staged, self.checkpoint)

    def _restore(self) -> None:
        if not self.checkpoint.is_file():
            self.precision = self._chosen_precision()
            self._keep()  # so that a training that goes on runs in the precision that was measured here
            return
        try:
            held = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            at = held["at"]
            known = held["about"]
        except Exception as error:  # a damaged file fails in any way
            raise RunError(f"{self.checkpoint} is damaged: remove it to train from the beginning") from error
        if known != self.about:
            raise RunError(f"{self.checkpoint} is of another training; choose another folder with --out")
        self.epoch, self.step, self.loss, self.seconds = at["epoch"], at["step"], at["loss"], at["seconds"]
        self.history = json.loads(held["history"])
        self.precision, self.best = held["precision"], held["best"]
        self.module.load_state_dict(held["module"])
        self.average.module.load_state_dict(held["average"])
        self._phase()
        self.optimizer.load_state_dict(held["optimizer"])

    def _chosen_precision(self) -> str:
        if self.recipe.precision != "auto":
            return self.recipe.precision
        if self.device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported() else "float32"
        if self.device.type != "cpu":
            return "float32"
        size, count = self.stages[-1], min(self.recipe.batch, 8)
        return min(("float32", "bf16"), key=lambda each: seconds_of_a_step(self.module, self._blank(size, count), each))


@contextmanager
def passing(precision: str, device: torch.device) -> Iterator[None]:
    """How a training step passes its pictures forward in a precision."""
    with ExitStack() as stack:
        if precision == "bf16":
            stack.enter_context(torch.autocast(device.type, torch.bfloat16))
            if device.type == "cpu":
                stack.enter_context(FastDepthwise())
        yield


def seconds_of_a_step(module: nn.Module, images: Tensor, precision: str, rounds: int = 2) -> float:
    """The shortest of some passes forward and backward through a copy in train mode, after one to warm up."""
    import copy

    twin = copy.deepcopy(module).train().requires_grad_(True)
    found = []
    with torch.random.fork_rng([]):
        for _ in range(rounds + 1):
            began = time.perf_counter()
            with passing(precision, images.device):
                answer = twin(images)
            answer = answer[0] if isinstance(answer, tuple | list) else getattr(answer, "logits", answer)
            answer.float().sum().backward()
            found.append(time.perf_counter() - began)
    return min(found[1:])


def predicted(net: Classifier, pictures: Pictures, places: Sequence[int], size: int = 64) -> Tensor:
    """The logits (n, C) of these pictures, at the model's own size."""
    parts = [places[first : first + size] for first in range(0, len(places), size)]
    return torch.cat([net.predict(pictures.batch(part).float() / 255) for part in parts])
