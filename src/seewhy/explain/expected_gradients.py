"""Expected gradients: integrated gradients averaged over many baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.load import load
from seewhy.data.sets import DataSet
from seewhy.errors import InputError, SpecError
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.smoothgrad import mean_and_error, relative
from seewhy.rng import generator


@dataclass(frozen=True)
class ExpectedGradients(Explainer):
    """E[(x − x′)·∂f_c/∂x (x′ + α(x − x′))] over baselines x′ and α uniform in [0, 1] (GradientSHAP), by `samples` draws.

    `references` says where x′ is drawn from: `colours` (flat images of a uniformly random colour), `noise` (a uniformly
    random colour for each pixel), or the path of a folder of photographs or another data set, drawn with replacement. α is
    drawn evenly: one in each of `samples` equal parts of [0, 1]. Every image gets the same draws.
    Values (N, 3, H, W), in logits; they add up to f_c(x) − E f_c(x′) but for `measures["additivity error"]`, taken against
    the mean over the same baselines, relative. Each value has its standard error, at most; `measures["standard error"]` is
    their root mean square over that of the values. Bears bfloat16, if the engine is allowed it.
    Raises `DataError` where there is no data set at `references`.
    Cost: 1 + 2·`samples` forward and `samples` backward passes an image.
    Limits: what it says is relative to the references: a colour or an object that they have too counts less. Single pixels
    stay noisy at some dozen draws.
    Deviation: α is stratified, which keeps the expectation and lowers the error; the paper also trains with it.
    Source: Erion et al. 2021, arXiv 1906.10670, equation 3; Lundberg & Lee 2017, arXiv 1705.07874 (GradientSHAP).

    >>> from torch import nn
    >>> from seewhy import Classifier
    >>> net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), size=2)
    >>> found = ExpectedGradients(samples=8)(net, torch.rand(1, 3, 2, 2))
    >>> bool(found.measures["additivity error"] < 1e-4)
    True
    """

    samples: int = 50
    references: str = "colours"
    seed: int = 0

    name = "expected-gradients"
    shows = "What each pixel adds to the logit, on average over many images that it could have been instead."
    reading = (
        "Values add up to the logit's rise over the references' mean; the standard error says how much is still chance."
    )
    source = "Erion et al. 2021, arXiv 1906.10670"
    bears_bf16 = True

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise SpecError(f"expected samples ≥ 2, so that their error can be told, got {self.samples}")
        if not self.references:
            raise SpecError("expected references colours, noise or the path of a folder of photographs, got nothing")

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + 2 * self.samples, self.samples

    def outside(self) -> dict[str, Any]:
        if self.references in ("colours", "noise"):
            return {}
        draw = generator(self.seed, self.name)
        self._along(draw)  # which is drawn first
        held, chosen = self._photographs(draw)
        return {"references": held.subset(chosen.tolist()).fingerprint()}

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        question.settle(net, pixels)
        references, along = self._draws(net, pixels)
        references, along = references.to(pixels), along.to(pixels)
        found, errors = [], []
        with net.engine.half():
            logits = net.predict(references).cpu()
            for index, image in enumerate(pixels):
                way = image - references
                gradients = net.gradient(references + along * way, question.of(index))[1]
                value, error = mean_and_error(way * gradients.to(way))
                found.append((value, error))
                rise = float(question.score[index]) - float(logits[:, question.target[index]].mean())
                errors.append(abs(float(value.sum()) - rise) / max(abs(rise), 1e-12))
        values, standard = (torch.stack(each) for each in zip(*found, strict=True))
        measures = {"additivity error": torch.tensor(errors), "standard error": relative(standard, values)}
        return Map(values, measures=measures, standard_error=standard)

    def _draws(self, net: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Baselines (n, 3, H, W), and how far from each to the image (n, 1, 1, 1)."""
        draw, n, size = generator(self.seed, self.name), self.samples, pixels.shape[2:]
        along = self._along(draw)
        if self.references == "colours":
            images = torch.rand((n, 3, 1, 1), generator=draw).expand(-1, -1, *size)
        elif self.references == "noise":
            images = torch.rand((n, 3, *size), generator=draw)
        else:
            held, chosen = self._photographs(draw)
            each, which = chosen.unique(return_inverse=True)
            images = held.images(each.tolist(), net.preprocess).pixels[which]
        if images.shape[2:] != size:
            raise InputError(
                f"expected images of the size that {net.name} reads photographs at, {tuple(images.shape[2:])}, "
                f"as the references have it, got {tuple(size)}"
            )
        return images, along.view(-1, 1, 1, 1)

    def _along(self, draw: torch.Generator) -> Tensor:
        """α (n,), one in each of n equal parts of [0, 1]."""
        n = self.samples
        return (torch.randperm(n, generator=draw) + torch.rand(n, generator=draw)) / n

    def _photographs(self, draw: torch.Generator) -> tuple[DataSet, Tensor]:
        """The data set of the references, and which of it are x′ (n,)."""
        held = load(self.references)
        return held, torch.randint(len(held), (self.samples,), generator=draw)
