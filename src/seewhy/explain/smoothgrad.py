"""SmoothGrad: the gradient over noisy copies of the image; its mean, its mean square, or its variance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import SpecError
from seewhy.explain.base import Explainer, Map, Question
from seewhy.rng import generator

STATISTICS = ("mean", "square", "variance")


@dataclass(frozen=True)
class SmoothGrad(Explainer):
    """The mean gradient over noisy copies: (1/n) Σ ∂f_c/∂x (x + ε_i), ε_i normal with deviation `noise`.

    `statistic` is `mean` (SmoothGrad), `square` (SmoothGrad-Squared: the mean of the gradients' squares) or `variance`
    (VarGrad: their variance, Σ (g_i − ḡ)² / n). `noise` is in units of the image's own range of values, as in the paper.
    Every image gets the same draws, so its map does not depend on its neighbours. With `noise=0` the mean is the gradient.
    Values (N, 3, H, W), in logits per unit of pixel, squared for the last two, which have no sign. Each value has its
    standard error; `measures["standard error"]` is their root mean square over that of the values.
    Noisy copies may leave [0, 1], as in the paper. Bears bfloat16, if the engine is allowed it.
    Cost: 1 + `samples` forward and `samples` backward passes an image.
    Limits: with much noise it explains noisy images, which the network may never have seen; a flat image gets no noise.
    Source: Smilkov et al. 2017, arXiv 1706.03825, section 3; Hooker et al. 2019, arXiv 1806.10758, section 4.1 (square);
    Adebayo et al. 2018, arXiv 1810.03307, section 2 (variance).

    >>> SmoothGrad(samples=50, statistic="variance").spec
    'smoothgrad:samples=50,statistic=variance'
    """

    samples: int = 25
    noise: float = 0.15
    statistic: str = "mean"
    seed: int = 0

    name = "smoothgrad"
    shows = "The gradient averaged over noisy copies of the image, in which what is accidental cancels out."
    reading = "As the gradient, with less noise. The standard error says how much of the map is still chance."
    source = "Smilkov et al. 2017, arXiv 1706.03825"
    default_sign = "absolute"
    bears_bf16 = True

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 <= self.noise < float("inf"):
            raise SpecError(f"expected samples ≥ 1 and noise ≥ 0, got samples={self.samples}, noise={self.noise}")
        if self.statistic not in STATISTICS:
            raise SpecError(f'expected the statistic mean, square or variance, got "{self.statistic}"')

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.samples, self.samples

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        question.settle(net, pixels)
        found = []
        for index, image in enumerate(pixels):
            draw = generator(self.seed, self.name)
            deviation = self.noise * float(image.max() - image.min())
            noise = torch.randn((self.samples, *image.shape), generator=draw).to(image)
            with net.engine.half():
                gradients = net.gradient(image + deviation * noise, question.of(index))[1]
            found.append(mean_and_error(self._terms(gradients)))
        values, errors = (torch.stack(each) for each in zip(*found, strict=True))
        if self.samples == 1:  # nothing to estimate an error from
            return Map(values)
        return Map(values, measures={"standard error": relative(errors, values)}, standard_error=errors)

    def _terms(self, gradients: Tensor) -> Tensor:
        """What is averaged."""
        if self.statistic == "mean":
            return gradients
        return (gradients - gradients.mean(0) if self.statistic == "variance" else gradients).square()


def mean_and_error(terms: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of independent terms (n, …), and its standard error; zero for a single one."""
    if len(terms) == 1:
        return terms[0], torch.zeros_like(terms[0])
    return terms.mean(0), (terms.var(0) / len(terms)).sqrt()


def relative(errors: Tensor, values: Tensor) -> Tensor:
    """The root mean square (N,) of errors over that of the values."""
    return errors.flatten(1).norm(dim=1) / values.flatten(1).norm(dim=1).clamp_min(1e-30)
