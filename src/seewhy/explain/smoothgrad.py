"""SmoothGrad: the gradient, averaged over noisy copies of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import SpecError
from seewhy.explain.base import Explainer, Map, Question
from seewhy.rng import generator


@dataclass(frozen=True)
class SmoothGrad(Explainer):
    """The mean gradient over noisy copies: (1/n) Σ ∂f_c/∂x (x + ε_i), ε_i normal with deviation `noise`.

    `noise` is in units of the image's own range of values, as in the paper. Every image gets the same draws, so its map
    does not depend on its neighbours. Values (N, 3, H, W), in logits per unit of pixel. `measures["standard error"]` is the
    root mean square of the mean's standard error over that of the mean. Noisy copies may leave [0, 1], as in the paper.
    Cost: 1 + `samples` forward and `samples` backward passes an image. With `noise=0` it is the gradient.
    Source: Smilkov et al. 2017, arXiv 1706.03825, section 3.
    """

    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    name = "smoothgrad"
    shows = "The gradient averaged over noisy copies of the image, in which what is accidental cancels out."
    reading = "As the gradient, with less noise. The standard error says how much of the map is still chance."
    source = "Smilkov et al. 2017, arXiv 1706.03825"
    default_sign = "absolute"
    bears_bf16 = True

    def __post_init__(self) -> None:
        if self.samples < 1 or self.noise < 0:
            raise SpecError(f"expected samples ≥ 1 and noise ≥ 0, got samples={self.samples}, noise={self.noise}")

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.samples, self.samples

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        question.settle(net, pixels)
        means, errors = [], []
        for index, image in enumerate(pixels):
            draw = generator(self.seed, self.name)
            deviation = self.noise * float(image.max() - image.min())
            noise = torch.randn((self.samples, *image.shape), generator=draw).to(image)
            with net.engine.half():
                gradients = net.gradient(image + deviation * noise, question.of(index))[1]
            mean = gradients.mean(0)
            spread = gradients.var(0, correction=1) if self.samples > 1 else torch.full_like(mean, torch.nan)
            means.append(mean)
            errors.append((spread.mean() / self.samples).sqrt() / mean.square().mean().sqrt().clamp_min(1e-30))
        measures = {"standard error": torch.stack(errors)} if self.samples > 1 else {}
        return Map(torch.stack(means), measures=measures)
