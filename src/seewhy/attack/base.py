"""What an attack is, and what it answers: every image comes back, judged again in plain forward passes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from seewhy.classifier import Classifier, Target
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError
from seewhy.method import Method
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Goal:
    """What the attacker wants: away from the true class `labels` (N,), or towards the class `target` (N,)."""

    labels: Tensor
    target: Tensor | None

    def reached(self, predictions: Tensor) -> Tensor:
        """Whether predictions (..., N) are what the attacker wants."""
        return predictions != self.labels if self.target is None else predictions == self.target


@dataclass(frozen=True)
class Perturbed:
    """What an attack found: images (E, N, 3, H, W) at sizes `eps` (E, N), and what a reader must know."""

    images: Tensor
    eps: Tensor
    notes: tuple[str, ...] = ()


def as_saved(images: Tensor) -> Tensor:
    """Pixels rounded to 8 bits, as a picture file holds them."""
    return (images * 255).round() / 255


@dataclass(frozen=True)
class Adversarial:
    """The outcome of an attack at E sizes on N images; pixels and sizes in units of [0, 1].

    `images` (E, N, 3, H, W) at sizes `eps` (E, N); `predictions` and `probabilities` (E, N, C) are those of plain
    forward passes on these images; `success` (E, N) where they are what the attacker wanted, `success_8bit` the same
    after rounding to 8 bits, as the image would be saved. An image that was misclassified from the start
    (`wrong_at_start`) is nobody's success: kept apart, in no average. `distances` are (E, N): l0 is the share of pixels
    changed, l2 and linf the norms, rms the root mean square.
    """

    method: str
    original: Images
    images: Tensor
    eps: Tensor
    labels: Tensor
    target: Tensor | None
    clean_probabilities: Tensor
    probabilities: Tensor
    success: Tensor
    success_8bit: Tensor
    wrong_at_start: Tensor
    distances: Mapping[str, Tensor]
    names: tuple[str, ...]
    cost: Cost
    notes: tuple[str, ...]

    @property
    def predictions(self) -> Tensor:
        return self.probabilities.argmax(-1)

    @property
    def best(self) -> Tensor:
        """For each image (N,) the level with the smallest size that fools, also after rounding; −1 where none does."""
        sizes = self.eps.masked_fill(~(self.success & self.success_8bit), torch.inf)
        return torch.where(sizes.isinf().all(0), -1, sizes.argmin(0))

    @property
    def smallest_eps(self) -> Tensor:
        """For each image (N,) the smallest size that fools it; infinite where none of those tried does."""
        best = self.best
        found = self.eps.gather(0, best.clamp_min(0)[None])[0]
        return found.masked_fill(best < 0, torch.inf)

    def success_rate(self) -> Tensor:
        """For each level (E,) the share of the images that were right at the start and are fooled."""
        fair = ~self.wrong_at_start
        return self.success[:, fair].float().mean(1)

    def curve(self, index: int) -> tuple[Tensor, Tensor]:
        """For one image: sizes in order, from 0, and the class probabilities there, (E + 1,) and (E + 1, C)."""
        eps = torch.cat([torch.zeros(1), self.eps[:, index]])
        probabilities = torch.cat([self.clean_probabilities[None, index], self.probabilities[:, index]])
        order = eps.argsort(stable=True)
        return eps[order], probabilities[order]

    def plot(self, index: int = 0) -> Figure:
        """Original, adversarial image, difference amplified (the factor is said), and confidence against size."""
        from seewhy.report.figures import attack

        return attack(self, index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Attack(Method):
    """A method that looks for a small change that fools. A new one defines `perturb` and gives itself a `name`."""

    room = "attack"

    @abstractmethod
    def perturb(self, net: Classifier, pixels: Tensor, goal: Goal) -> Perturbed:
        """Change `pixels` (N, 3, H, W) so that the goal is reached, staying inside [0, 1]."""

    @final
    def __call__(
        self, net: Classifier, images: Tensor | Images, labels: Target = None, target: Target = None
    ) -> Adversarial:
        """Attack images whose true classes are `labels` (None: those of `images`, else the predicted ones).

        With `target` the attack wants that class; without, any other than the true one.
        """
        pixels = net.check(images)
        if labels is None and isinstance(images, Images) and images.labels is not None:
            labels = images.labels
        with Meter() as meter, net.session():
            clean = net.predict(pixels).cpu()
            truth = clean.argmax(1) if labels is None else net.targets(labels, images)
            goal = Goal(truth, None if target is None else net.targets(target, images))
            if goal.target is not None and bool((goal.target == truth).any()):
                raise InputError(
                    "expected a target other than the true class of each image, got the true class for some"
                )
            found = self.perturb(net, pixels, goal)
            levels, count = found.images.shape[:2]
            flat = found.images.detach().cpu().flatten(0, 1)
            if not bool(((flat >= 0) & (flat <= 1)).all()):
                raise InputError(f"{self.spec} left the range of pixels [0, 1]; an attack must answer images inside it")
            logits = net.predict(flat).cpu().unflatten(0, (levels, count))
            rounded = net.predict(as_saved(flat)).cpu().unflatten(0, (levels, count))
        original = images if isinstance(images, Images) else Images(pixels.detach().cpu())
        wrong = clean.argmax(1) != truth
        difference = (found.images.detach().cpu() - original.pixels).flatten(2)
        return Adversarial(
            method=self.spec,
            original=original,
            images=found.images.detach().cpu(),
            eps=found.eps.detach().cpu(),
            labels=truth,
            target=goal.target,
            clean_probabilities=clean.softmax(-1),
            probabilities=logits.softmax(-1),
            success=goal.reached(logits.argmax(-1)) & ~wrong,
            success_8bit=goal.reached(rounded.argmax(-1)) & ~wrong,
            wrong_at_start=wrong,
            distances={
                "l0": (difference.unflatten(2, (3, -1)).abs().amax(2) > 0).float().mean(-1),
                "l2": difference.norm(dim=-1),
                "linf": difference.abs().amax(-1),
                "rms": difference.square().mean(-1).sqrt(),
            },
            names=net.labels,
            cost=meter.cost,
            notes=found.notes,
        )
