"""What an attacker may see of a classifier: everything, scores, or labels only; and what it has asked for, image by image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import BudgetSpent, InputError, SpecError

V = TypeVar("V", bound="View")

#: no budget, as a number of queries
UNLIMITED = 2**62

#: logits (m, C), rows (m,), gradient(scores (m,), wanted (m,)) -> (m, 3, H, W); answers a tensor (m, …), see `WhiteBox.backwards`
Work = Callable[[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]], Tensor]


def as_saved(images: Tensor) -> Tensor:
    """Pixels rounded to 8 bits, as a picture file holds them."""
    return (images * 255).round() / 255


def answered(logits: Tensor) -> Tensor:
    """Whether logits (..., C) name a class: none is NaN, and the largest is finite."""
    return logits.amax(-1).isfinite()


def predicted(logits: Tensor) -> Tensor:
    """Predicted classes (...) of logits (..., C); −1, which is no class, where they name none."""
    return torch.where(answered(logits), logits.argmax(-1), -1)


@dataclass
class View(ABC):
    """A classifier behind a counter; what more of it can be seen, the three final views say.

    `budget` is the most queries that an image may cost; the view refuses to answer past it. With `rounded` the classifier
    gets every image rounded to 8 bits, as one that reads picture files would.
    """

    net: Classifier
    budget: int | None = None
    rounded: bool = False
    #: images passed forward and backward (N,), for each image under attack
    queries: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long), init=False)
    gradients: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long), init=False)
    #: for each image (N,) whether an answer about it named no class
    unclear: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool), init=False)
    #: for each image (N,) whether its search ended for want of queries
    ended: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool), init=False)

    #: what the attacker sees, in words, and how much that is: a view serves every attack that needs no more
    sees: ClassVar[str] = ""
    grants: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise SpecError(f"expected a budget of at least one query an image, got {self.budget}")

    @abstractmethod
    def opened(self: V, count: int) -> V:
        """The same view with its counters at zero, for `count` images."""

    def can(self, of: Tensor, queries: int | Tensor = 1) -> Tensor:
        """Which of the originals `of` (M,) have so many queries left: one number for all, or each its own (M,)."""
        return self.left[of] >= queries

    def goes_on(self, of: Tensor, queries: int | Tensor = 1) -> Tensor:
        """The same where a search would go on: what has not so many left is kept in `ended`, and the notes say so."""
        able = self.can(of, queries)
        self.ended[of[~able]] = True
        return able

    def limit(self, queries: int) -> None:
        """Grant no image more than so many queries: what an attack allows itself, within what the user does."""
        self.budget = queries if self.budget is None else min(self.budget, queries)

    @property
    def left(self) -> Tensor:
        """How many queries each image (N,) has left."""
        return (UNLIMITED if self.budget is None else self.budget) - self.queries

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of what was seen."""
        count = int(self.ended.sum())
        said = f"for {count} of {len(self.ended)} images the queries ended before the search: with more a smaller change may fool"
        return (said,) if count else ()

    @final
    def labels(self, images: Tensor, of: Tensor) -> Tensor:
        """Predicted classes (M,), −1 for none, of images (M, 3, H, W) made of the originals `of` (M,). One query each."""
        return predicted(self._ask(images, of))

    def _ask(self, images: Tensor, of: Tensor) -> Tensor:
        self._charge(of)
        return self._noted(self.net.predict(self._given(images)).to(images.device), of)

    def _noted(self, logits: Tensor, of: Tensor) -> Tensor:
        """The logits as they came; those that name no class are noted."""
        self.unclear[of[~answered(logits)]] = True
        return logits

    def _given(self, images: Tensor) -> Tensor:
        return as_saved(images) if self.rounded else images

    def _charge(self, of: Tensor) -> None:
        asked = torch.bincount(of, minlength=len(self.queries))
        over = asked > self.left
        if bool(over.any()):
            raise BudgetSpent(
                f"expected at most {self.budget} queries an image, got {int((self.queries + asked)[over].max())} "
                f"for image {int(over.nonzero()[0, 0]) + 1}"
            )
        self.queries = self.queries + asked


@final
@dataclass
class LabelsOnly(View):
    """The predicted class and nothing else: a device, or a service that names one class.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), size=2)
    >>> view = LabelsOnly(net, budget=10).opened(1)
    >>> view.labels(torch.rand(3, 3, 2, 2), torch.zeros(3, dtype=torch.long)).shape, view.left.tolist()
    (torch.Size([3]), [7])
    """

    sees = "labels"
    grants = 0

    def opened(self, count: int) -> LabelsOnly:
        return _zeroed(LabelsOnly(self.net, self.budget, self.rounded), count)


@final
@dataclass
class Scores(View):
    """The probabilities of all classes, rounded to `decimals` if a number of them is given."""

    decimals: int | None = None

    sees = "scores"
    grants = 1

    def opened(self, count: int) -> Scores:
        return _zeroed(Scores(self.net, self.budget, self.rounded, self.decimals), count)

    def scores(self, images: Tensor, of: Tensor) -> Tensor:
        """Logarithms of the probabilities (M, C) of images (M, 3, H, W) made of the originals `of` (M,). One query each."""
        logs = self._ask(images, of).log_softmax(1)
        if self.decimals is None:
            return logs
        smallest = 10.0**-self.decimals / 2  # what is rounded to zero lies below
        return logs.exp().round(decimals=self.decimals).clamp_min(smallest).log()


@final
@dataclass
class WhiteBox(View):
    """Everything: logits, and gradients of any score of them."""

    #: for each image how often its gradient was zero or not a number
    silent: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long), init=False)

    sees = "gradients"
    grants = 2

    def opened(self, count: int) -> WhiteBox:
        view = _zeroed(WhiteBox(self.net, self.budget, self.rounded), count)
        view.silent = torch.zeros(count, dtype=torch.long)
        return view

    def logits(self, images: Tensor, of: Tensor) -> Tensor:
        """Logits (M, C) of images (M, 3, H, W) made of the originals `of` (M,). One query each."""
        return self._ask(images, of)

    def gradient(self, images: Tensor, of: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (M, C) and gradients of scores with respect to images (M, 3, H, W) made of the originals `of` (M,).

        `score(logits, rows)` answers (m,), or (m, K) for K scores of each image, where `rows` (m,) are the rows of `images`
        that the part holds; the gradients are then (M, 3, H, W) or (M, K, 3, H, W). One query and K gradients each, from one
        forward and K backward passes. A gradient that is not finite is answered as zero; both are counted in `silent`.
        """
        self._charge(of)
        logits: dict[int, Tensor] = {}

        def scored(answer: Tensor, where: slice) -> Tensor:
            logits[where.start] = answer.detach().to(images.device)
            return score(answer, torch.arange(where.start, where.stop, device=of.device))

        scores, gradients = self.net.gradient(self._given(images), scored)
        gradients, silent = _heard(gradients.to(images.device))
        self._count(of, torch.full_like(of, scores[0].numel()), silent)
        return self._noted(in_order(logits, len(images)), of), gradients

    def backwards(self, images: Tensor, of: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        """Logits (M, C), and what `work` makes of each part of the images (M, 3, H, W), made of the originals `of` (M,).

        For attacks whose logits say how many gradients it takes. `work(logits, rows, gradient)` answers a tensor (m, …) for
        the rows (m,) of `images` that the part holds; `gradient(scores, wanted)` answers the gradient (m, 3, H, W) of
        scores (m,): a backward pass of the part, and a gradient more for the images that are `wanted` (m,).
        """
        self._charge(of)
        logits: dict[int, Tensor] = {}
        counts: dict[int, Tensor] = {}

        def part(answer: Tensor, where: slice, gradient: Callable[[Tensor], Tensor]) -> Tensor:
            logits[where.start] = answer.detach().to(images.device)
            counts[where.start] = asked = torch.zeros(len(answer), 2, dtype=torch.long, device=of.device)

            def counted(scores: Tensor, wanted: Tensor) -> Tensor:
                heard, silent = _heard(gradient(scores).to(images.device))
                asked[:, 0] += wanted
                asked[:, 1] += silent & wanted
                return heard

            return work(answer, torch.arange(where.start, where.stop, device=of.device), counted)

        made = self.net.backwards(self._given(images), part)
        self._count(of, *in_order(counts, len(images)).T)
        return self._noted(in_order(logits, len(images)), of), made

    def _count(self, of: Tensor, gradients: Tensor, silent: Tensor) -> None:
        self.gradients = self.gradients.index_add(0, of, gradients)
        self.silent = self.silent.index_add(0, of, silent.long())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of what was seen, gradients that said nothing first."""
        masked = self.silent > 0
        if not bool(masked.any()):
            return super().notes
        return (
            f"for {int(masked.sum())} of {len(masked)} images a gradient is zero or not a number (the model is saturated or "
            "hides its gradients there): a failure shows no robustness; try one that needs no gradients, such as square",
            *super().notes,
        )


def _heard(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient (M, …), zero where it is not finite, and for which of them it says nothing (M,)."""
    gradient = gradient.contiguous()
    low, high = gradient.flatten(1).aminmax(dim=1)
    broken = ~(low.isfinite() & high.isfinite())
    if bool(broken.any()):
        gradient = gradient.nan_to_num(0, 0, 0)
    return gradient, broken | ((low == 0) & (high == 0))


def _zeroed(view: V, count: int) -> V:
    view.queries = torch.zeros(count, dtype=torch.long)
    view.gradients = torch.zeros(count, dtype=torch.long)
    view.unclear = torch.zeros(count, dtype=torch.bool)
    view.ended = torch.zeros(count, dtype=torch.bool)
    return view


def granted(asked: type[V], by: Classifier | View, count: int, who: str) -> V:
    """The view of type `asked` on what the user gave, for `count` images; raises `InputError` where it shows less."""
    if isinstance(by, asked):
        return by.opened(count)
    if isinstance(by, Classifier):
        return asked(by).opened(count)
    if by.grants < asked.grants:
        raise InputError(
            f"{who} needs {asked.sees}, and got a view that shows {by.sees}; give the classifier itself, or take an attack "
            f"that needs no more than {by.sees}"
        )
    return asked(by.net, by.budget, by.rounded).opened(count)


def in_order(parts: dict[int, Tensor], total: int) -> Tensor:
    """Parts by where they start, joined; those of a measurement of batch sizes, and of a batch that was halved, fall out."""
    joined: list[Tensor] = []
    position = 0
    while position < total:
        joined.append(parts[position])
        position += len(parts[position])
    return torch.cat(joined)
