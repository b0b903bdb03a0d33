"""What an attack is, and what it answers: every image comes back, judged again in plain forward passes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Generic, final

import torch
from torch import Tensor

from seewhy.attack.oracles import V, View, WhiteBox, answered, as_saved, granted, predicted
from seewhy.classifier import Classifier, Target
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError
from seewhy.method import Method
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

#: how the size of a change is measured, by norm: the length of the flat difference x (N, 3·H·W), pixels in [0, 1]
NORMS = ("linf", "l2", "l0")


def size_of(difference: Tensor, norm: str) -> Tensor:
    """Sizes (…,) of differences (…, 3, H, W): the largest value, the Euclidean norm, or the share of pixels changed."""
    if norm == "l0":
        return (difference.abs().amax(-3) > 0).float().mean((-1, -2))
    flat = difference.flatten(-3)
    return flat.abs().amax(-1) if norm == "linf" else flat.norm(dim=-1)


@dataclass(frozen=True)
class Goal:
    """What the attacker wants: away from the true class `labels` (N,), or towards the class `target` (N,)."""

    labels: Tensor
    target: Tensor | None = None

    def reached(self, predictions: Tensor) -> Tensor:
        """Whether predictions (..., N) are what the attacker wants; −1, an answer that names no class, is not."""
        reached = predictions != self.labels if self.target is None else predictions == self.target
        return reached & (predictions >= 0)

    def of(self, rows: Tensor) -> Goal:
        """The goal of the images `rows` (M,), in their order."""
        return Goal(self.labels[rows], None if self.target is None else self.target[rows])

    def to(self, device: torch.device) -> Goal:
        """The same on a device."""
        return Goal(self.labels.to(device), None if self.target is None else self.target.to(device))

    @property
    def named(self) -> Tensor:
        """The class (N,) that the goal speaks of: the true one, or the target."""
        return self.labels if self.target is None else self.target

    def margin(self, scores: Tensor, soft: bool = False) -> Tensor:
        """How much is missing (M,), from logits or log-probabilities (M, C): negative once the goal is reached.

        Untargeted f_y − max_{j≠y} f_j, targeted max_{j≠t} f_j − f_t; `soft` takes log Σ exp for max, which makes it the
        logarithm of P(not reached) / P(reached). Differentiable.
        """
        named = self.named.to(scores.device)[:, None]
        own, others = scores.gather(1, named)[:, 0], scores.scatter(1, named, -torch.inf)
        best = others.logsumexp(1) if soft else others.amax(1)
        return own - best if self.target is None else best - own


@dataclass(frozen=True)
class Perturbed:
    """What an attack found: images (E, N, 3, H, W) at sizes `eps` (E, N), and what a reader must know.

    `untried` (E, N): for which levels the queries did not suffice; they hold image and size of the level before, at first the
    original and no size. None where they sufficed for all.
    """

    images: Tensor
    eps: Tensor
    notes: tuple[str, ...] = ()
    untried: Tensor | None = None


@dataclass(frozen=True)
class Adversarial:
    """The outcome of an attack at E sizes on N images; pixels and sizes in units of [0, 1].

    `images` (E, N, 3, H, W) at sizes `eps` (E, N), in the attack's `norm`; `predictions` and `probabilities` (E, N, C) are
    those of plain forward passes on these images; `success` (E, N) where they are what the attacker wanted, `success_8bit`
    the same after rounding to 8 bits, as the image would be saved. An image that was misclassified from the start
    (`wrong_at_start`) is nobody's success: not attacked, kept apart, in no average. `distances` are (E, N): l0 is the share
    of pixels changed, l2 and linf the norms, rms the root mean square. `queries` and `gradients` (N,) are the forward and
    backward passes that the attack itself asked for, each image's own. Where these did not suffice to try a size, `untried`
    (E, N) is true and the level repeats the one before, with its size: `eps` says what was tried.
    """

    method: str
    norm: str
    original: Images
    images: Tensor
    eps: Tensor
    untried: Tensor
    labels: Tensor
    target: Tensor | None
    clean_probabilities: Tensor
    probabilities: Tensor
    success: Tensor
    success_8bit: Tensor
    wrong_at_start: Tensor
    distances: Mapping[str, Tensor]
    queries: Tensor
    gradients: Tensor
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

    @property
    def fooling(self) -> Tensor:
        """For each image (N, 3, H, W) the one at the level `best`; where none fools, the one at the largest size tried."""
        level = torch.where(self.best < 0, self.eps.argmax(0), self.best)
        return self.images[level, torch.arange(len(level))]

    def success_rate(self) -> Tensor:
        """For each level (E,) the share fooled of the images that were right at the start; an untried size fools none anew."""
        fair = ~self.wrong_at_start
        return self.success[:, fair].float().mean(1)

    def curve(self, index: int) -> tuple[Tensor, Tensor]:
        """For one image: sizes in order, from 0, and the class probabilities there, (E + 1,) and (E + 1, C)."""
        eps = torch.cat([torch.zeros(1), self.eps[:, index]])
        probabilities = torch.cat([self.clean_probabilities[None, index], self.probabilities[:, index]])
        order = eps.argsort(stable=True)
        return eps[order], probabilities[order]

    def strip(self, index: int = 0, count: int = 6) -> list[int]:
        """For one image at most `count` levels from the smallest size to the largest, and `best` among them, if there is one."""
        sizes, best = self.eps[:, index].tolist(), int(self.best[index])
        order = sorted(range(len(sizes)), key=lambda level: (sizes[level], level != best))
        order = [  # an answer that serves larger sizes too is shown once
            level
            for place, level in enumerate(order)
            if place == 0 or not torch.equal(self.images[level, index], self.images[order[place - 1], index])
        ]
        if len(order) <= count:
            return order
        chosen = {order[round(k * (len(order) - 1) / (count - 1))] for k in range(count)}
        if best >= 0 and best not in chosen:
            chosen.remove(min(chosen, key=lambda level: abs(order.index(level) - order.index(best))))
            chosen.add(best)
        return [level for level in order if level in chosen]

    def plot_strip(self, index: int = 0, count: int = 6) -> Figure:
        """The image as it was and at several sizes of the change, with what the model says of each."""
        from seewhy.report.attacks import strip

        return strip(self, index, count)

    def plot(self, index: int = 0) -> Figure:
        """Original, adversarial image, difference amplified (the factor is said), and confidence against size."""
        from seewhy.report.attacks import attack

        return attack(self, index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Attack(Method, Generic[V]):
    """A method that looks for a small change that fools.

    A new one names the view that it needs (`class Mine(Attack[Scores])`, `view = Scores`), defines `perturb`, and gives
    itself a `name`. `norm`, a field where there is a choice, is that of its sizes.
    """

    room = "attack"
    #: what it must see of the classifier
    view: ClassVar[type[View]] = WhiteBox
    norm = "linf"

    @abstractmethod
    def perturb(self, view: V, pixels: Tensor, goal: Goal) -> Perturbed:
        """Change `pixels` (N, 3, H, W) so that the goal is reached, staying inside [0, 1].

        All are classified rightly. The image in row i is `of` i for the view. On a GPU that has the room they lie there, and
        so do the goal, the view's counters, and what torch makes without being told where.
        """

    @final
    def __call__(
        self, net: Classifier | View, images: Tensor | Images, labels: Target = None, target: Target = None
    ) -> Adversarial:
        """Attack images whose true classes are `labels` (None: those of `images`, else the predicted ones).

        With `target` the attack wants that class; without, any other than the true one. A classifier is seen as the attack's
        threat model says; a view of it, `LabelsOnly(net, budget=1000)` for example, says so itself, and counts. Raises
        `InputError` for a view that shows less than the attack needs.
        """
        by = net
        net = by.net if isinstance(by, View) else by
        pixels = net.check(images).detach().cpu().float().clamp(0, 1)
        if labels is None and isinstance(images, Images) and images.labels is not None:
            labels = images.labels
        with Meter(net.engine.device) as meter, net.session():
            clean = net.predict(pixels).cpu()
            truth = clean.argmax(1) if labels is None else net.targets(labels, images)
            wanted = None if target is None else net.targets(target, images)
            if wanted is not None and bool((wanted == truth).any()):
                raise InputError(
                    "expected a target other than the true class of each image, got the true class for some"
                )
            wrong = predicted(clean) != truth
            right = (~wrong).nonzero()[:, 0]
            place = _place(net.engine.device, pixels[right])
            with torch.device(place) if place.type != "cpu" else nullcontext():
                view = granted(self.view, by, len(right), self.name)
                if len(right):
                    found = self.perturb(view, pixels[right].to(place), Goal(truth, wanted).of(right).to(place))  # type: ignore[arg-type]
                else:
                    found = Perturbed(pixels[None, :0], torch.zeros(1, 0))
            untried = torch.zeros_like(found.eps, dtype=torch.bool) if found.untried is None else found.untried
            found, untried = replace(found, images=found.images.cpu(), eps=found.eps.cpu()), untried.cpu()
            levels = len(found.images)
            low, high = found.images.aminmax() if len(right) else (0, 1)
            if not (low >= 0 and high <= 1):
                raise InputError(f"{self.spec} left the range of pixels [0, 1]; an attack must answer images inside it")
            logits, rounded = clean.expand(levels, -1, -1).clone(), clean.expand(levels, -1, -1).clone()
            if len(right):
                logits[:, right], rounded[:, right] = judged(net, found.images)
        unclear = view.unclear.cpu() | ~(answered(logits) & answered(rounded))[:, right].all(0)
        changed = pixels.expand(levels, *pixels.shape).clone()
        changed[:, right] = found.images
        difference = changed - pixels
        distances = {norm: size_of(difference, norm) for norm in NORMS}
        goal = Goal(truth, wanted)
        return Adversarial(
            method=self.spec,
            norm=self.norm,
            original=images.with_pixels(pixels) if isinstance(images, Images) else Images(pixels),
            images=changed,
            eps=_spread(found.eps, right, len(pixels)),
            untried=_spread(untried, right, len(pixels)),
            labels=truth,
            target=wanted,
            clean_probabilities=clean.softmax(-1),
            probabilities=logits.softmax(-1),
            success=goal.reached(predicted(logits)) & ~wrong,
            success_8bit=goal.reached(predicted(rounded)) & ~wrong,
            wrong_at_start=wrong,
            distances={**distances, "rms": distances["l2"] / math.sqrt(pixels[0].numel())},
            queries=_spread(view.queries.cpu(), right, len(pixels)),
            gradients=_spread(view.gradients.cpu(), right, len(pixels)),
            names=net.labels,
            cost=meter.cost,
            notes=found.notes + view.notes + _nameless(unclear) + _apart(wrong),
        )


#: what an attack may hold, in copies of its images
COPIES = 32


def _place(device: torch.device, pixels: Tensor) -> torch.device:
    """Where the arithmetic between passes is done: where the model is, if half of the memory that is free there has the room."""
    if device.type == "cuda" and COPIES * pixels.nbytes <= torch.cuda.mem_get_info(device)[0] / 2:
        return device
    return torch.device("cpu")


def judged(net: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (E, N, C) of plain passes on images (E, N, 3, H, W), and on them in 8 bits; what is the same is judged once."""
    levels, saved = len(images), as_saved(images)
    fresh = torch.ones(images.shape[:2], dtype=torch.bool)
    for level in range(1, levels):
        fresh[level] = (images[level] != images[level - 1]).flatten(1).any(1)
    apart = fresh & torch.stack([(one != other).flatten(1).any(1) for one, other in zip(images, saved, strict=True)])
    first = net.predict(images[fresh]).cpu()
    logits = first.new_zeros(*fresh.shape, first.shape[1])
    logits[fresh] = first
    rounded = logits.clone()
    if bool(apart.any()):
        rounded[apart] = net.predict(saved[apart]).cpu()
    for level in range(1, levels):
        for each in (logits, rounded):
            each[level] = torch.where(fresh[level, :, None], each[level], each[level - 1])
    return logits, rounded


def _spread(values: Tensor, right: Tensor, count: int) -> Tensor:
    """Values (…, M) of the images that were attacked among all (…, N); the others have none."""
    spread = torch.zeros(*values.shape[:-1], count, dtype=values.dtype)
    spread[..., right] = values
    return spread


def _nameless(unclear: Tensor) -> tuple[str, ...]:
    count = int(unclear.sum())
    said = (
        f"for {count} of {len(unclear)} images the model answered a changed one with logits that are not finite: "
        "that counts as not fooled"
    )
    return (said,) if count else ()


def _apart(wrong: Tensor) -> tuple[str, ...]:
    if bool(wrong.all()):
        return ("every image is misclassified from the start: there was nothing to attack",)
    count = int(wrong.sum())
    return (f"{count} of {len(wrong)} images are misclassified from the start: kept apart",) if count else ()
