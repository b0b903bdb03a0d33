"""Simple defences as controls: what they keep of the accuracy, and what is left of it once the attack knows of them."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.attack.base import Adversarial, judged
from seewhy.attack.compare import Attacker
from seewhy.attack.oracles import as_saved, predicted
from seewhy.classifier import Classifier, Target
from seewhy.data.images import Images
from seewhy.errors import InputError, SpecError
from seewhy.intervals import wilson
from seewhy.result import save, shown
from seewhy.rng import generator

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Defence(ABC):
    """Something done to images (N, 3, H, W) in [0, 1] before a model sees them. None of them is claimed to protect it."""

    #: whether gradients go through it; where not, a defended classifier hands them on as they come
    differentiable: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """The images as the model will see them, on the same device."""

    def redrawn(self) -> Defence:
        """The same defence with another draw of its randomness, where it has one."""
        return self


@final
@dataclass(frozen=True)
class BitDepth(Defence):
    """round((2ᵇ − 1)·x) / (2ᵇ − 1): as many grey levels as `bits` hold (Xu, Evans & Qi 2018, arXiv 1704.01155).

    >>> BitDepth(1)(torch.tensor([[[[0.2, 0.7]]]])).tolist()
    [[[[0.0, 1.0]]]]
    """

    bits: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise SpecError(f"expected bits from 1 to 8, got {self.bits}")

    def __call__(self, images: Tensor) -> Tensor:
        levels = 2**self.bits - 1
        return (images * levels).round() / levels


@final
@dataclass(frozen=True)
class Median(Defence):
    """The median over a window of `size` × `size` pixels, each channel alone, the border mirrored (Xu, Evans & Qi 2018)."""

    size: int = 3

    differentiable = True

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise SpecError(f"expected an odd size ≥ 3, got {self.size}")

    def __call__(self, images: Tensor) -> Tensor:
        reach = self.size // 2
        padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1)
        return windows.flatten(4).median(-1).values


@final
@dataclass(frozen=True)
class Jpeg(Defence):
    """Saved as JPEG of a `quality` and opened again (Dziugaite, Ghahramani & Roy 2016, arXiv 1608.00853)."""

    quality: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise SpecError(f"expected a quality from 1 to 95, got {self.quality}")

    def __call__(self, images: Tensor) -> Tensor:
        seen = []
        for pixels in (images.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=self.quality)
            with Image.open(buffer) as picture:
                seen.append(torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255))
        return torch.stack(seen).permute(0, 3, 1, 2).to(images.device, images.dtype)


@final
@dataclass(frozen=True)
class Resize(Defence):
    """Resized to a random share of its side, `least` to 1, and laid in a random place on black (Xie et al. 2018).

    One draw of `seed`, the same for every image; another seed is another draw. arXiv 1711.01991.
    """

    least: float = 0.85
    seed: int = 0

    differentiable = True

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise SpecError(f"expected the least share of the side in (0, 1], got {self.least:g}")

    def __call__(self, images: Tensor) -> Tensor:
        share, top, left = torch.rand(3, generator=generator(self.seed, "resize")).tolist()
        share = self.least + (1 - self.least) * share
        height, width = images.shape[2:]
        inner = (max(1, round(share * height)), max(1, round(share * width)))
        small = F.interpolate(images, size=inner, mode="bilinear", align_corners=False, antialias=True)
        y, x = round(top * (height - inner[0])), round(left * (width - inner[1]))
        return F.pad(small, (x, width - inner[1] - x, y, height - inner[0] - y)).clamp(0, 1)

    def redrawn(self) -> Resize:
        return replace(self, seed=self.seed + 1)


class _Through(torch.autograd.Function):
    """A defence whose gradient is handed on as it comes (Athalye, Carlini & Wagner 2018, arXiv 1802.00420, section 4.1)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, defence: Defence) -> Tensor:
        return defence(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Defended(nn.Module):
    """A defence before a classifier's normalisation and module."""

    def __init__(self, net: Classifier, defence: Defence) -> None:
        super().__init__()
        self.module = net.module
        self._net = net
        self._defence = defence

    def forward(self, images: Tensor) -> Any:
        # not through `logits`: the classifier around this counts the pass, and takes the logits out of the answer
        through = self._defence.differentiable
        seen = self._defence(images) if through else _Through.apply(images, self._defence)  # type: ignore[no-untyped-call]
        return self.module(self._net.normalise(seen))


def defended(net: Classifier, defence: Defence) -> Classifier:
    """A classifier that sees images through a defence; everything that takes a classifier takes it.

    Its gradients go through the defence where it is differentiable, and are handed on as they come where it is not
    (straight-through): an attack on it knows the defence.

    >>> net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), size=4)
    >>> images = torch.rand(2, 3, 4, 4)
    >>> torch.equal(defended(net, BitDepth(2)).logits(images), net.logits(BitDepth(2)(images)))
    True
    """
    return Classifier(
        _Defended(net, defence),
        preprocess=net.preprocess,
        labels=net.labels if net.labels_given else None,
        name=f"{net.name} behind {_named(defence)}",
        probabilities=net.answers_probabilities,
        engine=net.engine,
        check=False,
    )


@dataclass(frozen=True)
class Control:
    """What one defence keeps: of the `of` images that the undefended model has right, how many are still classified rightly.

    `clean` without an attack; `attacked` on images made for the undefended model; `aware` on images made for the defended one,
    by the same attack through the defence's gradients (for a random defence with another draw of it). An image counts where it
    is right before the attack, by the model attacked too, and at every size that the attack tried, as it is or rounded to 8
    bits: what is wrong in both is fooled, as everywhere. The others were not attacked, and have withstood nothing. Controls by
    one defence on several images add up.
    """

    defence: str
    of: int
    clean: int
    attacked: int
    aware: int

    def __add__(self, other: Control) -> Control:
        counts = ("of", "clean", "attacked", "aware")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in counts})

    def words(self) -> str:
        """The counts in a sentence, with Wilson's intervals of 95 %."""

        def told(count: int) -> str:
            low, high = wilson(count, self.of)
            return f"{count} of {self.of} ({100 * low:.0f} to {100 * high:.0f} %)"

        return (
            f"{self.defence}: right on {told(self.clean)}; attacked without knowing of it on {told(self.attacked)}, "
            f"knowing of it on {told(self.aware)}"
        )


#: the defences that are tried where nothing else is said
DEFENCES: tuple[Defence, ...] = (BitDepth(), Median(), Jpeg(), Resize())


def controls(
    net: Classifier,
    attack: Attacker,
    images: Tensor | Images,
    labels: Target = None,
    *,
    defences: Sequence[Defence] = DEFENCES,
) -> tuple[Control, ...]:
    """The accuracy of a model behind each defence: clean, attacked, and attacked by one who knows the defence.

    The first row is the model without any. `labels` are the true classes (None: those of `images`, else the predicted ones).
    Images that it has wrong from the start are kept apart: no row counts them.
    """
    found = attack(net, images, labels)
    truth = found.labels
    fair = ~found.wrong_at_start
    of, undefended = int(fair.sum()), int(_standing(net, found)[fair].sum())
    rows = [Control("none", of, of, undefended, undefended)]
    for defence in defences:
        behind = defended(net, defence)
        judge = defended(net, defence.redrawn())
        right = predicted(judge.predict(found.original.pixels).cpu()) == truth
        aware = attack(behind, images, truth)
        counts = (right, _standing(judge, found), _standing(judge, aware))
        rows.append(Control(_named(defence), of, *(int(count[fair].sum()) for count in counts)))
    return tuple(rows)


def _standing(net: Classifier, found: Adversarial) -> Tensor:
    """Which images (N,) were attacked, and a model has right before it and at every level of it, rounded to 8 bits or not."""
    right = predicted(net.predict(found.original.pixels).cpu()) == found.labels
    plain, rounded = (predicted(logits) == found.labels for logits in judged(net, found.images))
    return right & (plain | rounded).all(0) & ~found.wrong_at_start


@dataclass(frozen=True)
class Detector:
    """A detector's scores on clean and on adversarial images, and how well they tell them apart.

    `auc` is the chance that a random adversarial image scores higher than a random clean one, ties counting half. It was
    measured on an attack that does not know the detector; one that does may pass it. Scores by the same squeezers add up.
    """

    squeezers: tuple[str, ...]
    clean: Tensor
    adversarial: Tensor

    def __add__(self, other: Detector) -> Detector:
        clean, adversarial = torch.cat([self.clean, other.clean]), torch.cat([self.adversarial, other.adversarial])
        return replace(self, clean=clean, adversarial=adversarial)

    @property
    def auc(self) -> float:
        higher = (self.adversarial[:, None] > self.clean).double() + (
            self.adversarial[:, None] == self.clean
        ).double() / 2
        return float(higher.mean())

    def curve(self) -> tuple[Tensor, Tensor]:
        """(false alarms, detections) (K,) from the strictest threshold to the laxest."""
        thresholds = torch.cat([self.clean, self.adversarial, torch.tensor([torch.inf])]).unique().flip(0)
        alarms = (self.clean >= thresholds[:, None]).double().mean(1)
        return alarms, (self.adversarial >= thresholds[:, None]).double().mean(1)

    def detections(self, alarms: float = 0.05) -> float:
        """The share of adversarial images detected where at most this share of clean ones is."""
        false, true = self.curve()
        return float(true[false <= alarms].max())

    def plot(self) -> Figure:
        """The curve of detections against false alarms."""
        from seewhy.report.attacks import detector

        return detector(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), "detections against false alarms")


def feature_squeezing(
    net: Classifier, found: Adversarial, squeezers: Sequence[Defence] = (BitDepth(), Median())
) -> Detector:
    """How well adversarial images are told by what squeezing changes (Xu, Evans & Qi 2018, arXiv 1704.01155, section 5).

    An image's score is the largest ℓ₁ distance between the probabilities of it and of its squeezed forms. Scored are the
    originals of the images that the attack fooled, as the clean ones, and the smallest changes that fool, all rounded to 8
    bits as they would be saved. Raises `InputError` where it fooled none.
    """
    fooled = found.best >= 0
    if not bool(fooled.any()):
        raise InputError(f"expected images that {found.method} fooled, got none: there is nothing to detect")
    if not squeezers:
        raise InputError("expected at least one squeezer, got none")

    def scores(pixels: Tensor) -> Tensor:
        pixels = as_saved(pixels)
        plain = net.predict(pixels).cpu().softmax(1)
        moved = [(defended(net, each).predict(pixels).cpu().softmax(1) - plain).abs().sum(1) for each in squeezers]
        return torch.stack(moved).amax(0)

    return Detector(tuple(map(_named, squeezers)), scores(found.original.pixels[fooled]), scores(found.fooling[fooled]))


def _named(defence: Defence) -> str:
    """A defence as it is written."""
    return repr(defence)
