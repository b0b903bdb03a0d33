"""Deep SHAP: DeepLIFT's multipliers from one or several references to the image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.engine import count
from seewhy.errors import NothingToExplain, SpecError
from seewhy.explain.at_layer import maps_at
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.baseline import baseline, known
from seewhy.lens.capture import Cut
from seewhy.lens.rescale import Rescale

#: above this share of the logit's rise, a note says that the values do not add up
TOLERATED = 0.01


@dataclass(frozen=True)
class DeepShap(Explainer):
    """(x − x′)·m, with DeepLIFT's multipliers m from a reference x′ to the image x; averaged over the references.

    A multiplier is sent back as a gradient is, but each operation passes on Δout/Δin, its rise from the reference to the
    image, in place of its slope: rectifiers and other functions of one value by the rescale rule, products of two maps
    (squeeze-and-excitation gates) by the gradient midway, (b + b′)/2 for a in a·b, max-pooling by giving Δout to where the
    larger of the two maxima is, normalisations over the map (LayerNorm, GroupNorm) spelled in these, whatever is linear by
    its gradient. So the values add up: Σ values = f_c(x) − mean f_c(x′). By how much they do not, relative to that rise, is
    `measures["additivity error"]`: rounding, or a part of the network that is cut off from the gradient; above 1 % a note
    says so. Operations are seen, not modules, so that reused, functional and in-place rectifiers are all right.

    `baselines` are one or more of `seewhy.explain.baseline.BASELINES`, joined by `+`; `seed` is that of the noise.
    Values (N, 3, H, W), in logits; with `layer`, an address as `seewhy model` prints it, (N, C, h, w): x is that layer's maps,
    and what passes it by is missing.
    Raises `UnknownOperation` at an operation without a rule, such as attention (`seewhy.lens.rescale.rule` adds one).
    Cost: two forward passes and one backward pass an image and reference.
    Limits: an approximation of Shapley values, exact for a network that is linear, or one rectifier of a linear map; that the
    values add up says nothing about how the parts are shared, and pixels like the reference's never count.
    Deviation: the paper treats max-pooling by the Shapley values of each window, and knows no gates or normalisations.
    Source: Lundberg & Lee 2017, arXiv 1705.07874, section 4.2; Shrikumar et al. 2017, arXiv 1704.02685, section 3.5.1.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    >>> net = Classifier(module, size=8)
    >>> found = DeepShap(("black", "white"))(net, torch.rand(1, 3, 8, 8))
    >>> float(found.measures["additivity error"]) < 1e-3
    True
    """

    baselines: tuple[str, ...] = ("black",)
    layer: str | None = None
    seed: int = 0

    name = "deep-shap"
    shows = "What each pixel adds to the logit, between a black image and this one, by DeepLIFT's multipliers."
    reading = "Values add up to the logit's rise from the baseline; positive ones speak for the class, negative ones against it."
    source = "Lundberg & Lee 2017, arXiv 1705.07874; Shrikumar et al. 2017, arXiv 1704.02685"

    def __post_init__(self) -> None:
        given: object = self.baselines
        if isinstance(given, str):  # as a spec has them
            object.__setattr__(self, "baselines", tuple(given.split("+")) if given else ())
        if not self.baselines:
            raise SpecError("expected at least one baseline, got none")
        for each in self.baselines:
            known(each, "baselines")

    @property
    def passes(self) -> tuple[int, int]:
        return 2 * len(self.baselines), len(self.baselines)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        layer = maps_at(net, self.layer) if self.layer else None
        parts: list[Tensor] = []
        rises = torch.zeros(len(self.baselines), len(questions), len(pixels), dtype=torch.float64)
        for row, name in enumerate(self.baselines):
            start = baseline(name, pixels, self.seed)

            def run(part: Tensor, where: slice, row: int = row, start: Tensor = start) -> Tensor:
                found, rises[row, :, where] = _multiplied(net, part, start[where], questions, where, layer)
                return found

            parts.append(net.engine.map(run, pixels, self.name))
        values, rise = torch.stack(parts).mean(0), rises.mean(0)
        return [self._map(values[:, index], rise[index]) for index in range(len(questions))]

    def _map(self, values: Tensor, rise: Tensor) -> Map:
        total = values.flatten(1).double().sum(1).cpu()
        error = (total - rise).abs() / rise.abs().clamp_min(1e-12)
        notes: tuple[str, ...] = ()
        missed = int((error > TOLERATED).sum())
        if missed:
            notes = (
                f"for {missed} of {len(error)} images the values do not add up to the logit's rise from the baseline "
                f"(worst {100 * error.max():.3g} % off): rounding beside a small rise, or a part without a gradient"
                + (f", or what passes {self.layer} by" if self.layer else ""),
            )
        return Map(values, layer=self.layer or "", notes=notes, measures={"additivity error": error})


def _multiplied(
    net: Classifier, part: Tensor, start: Tensor, questions: Sequence[Question], where: slice, layer: str | None
) -> tuple[Tensor, Tensor]:
    """Values (n, questions, …) from one reference each, and the logits' rises (questions, n)."""

    def passed(images: Tensor, lens: Rescale) -> tuple[Tensor, Tensor]:
        leaf = images.detach().clone().requires_grad_()
        cut = Cut(net.module, layer) if layer else None
        # around all of it: where the module answers probabilities, their logarithm is an operation too
        with lens, cut or nullcontext():
            logits = net.logits(leaf)
        return logits, leaf if cut is None or cut.leaf is None else cut.leaf

    with torch.enable_grad():  # also for the reference: what asks for a gradient is what depends on the image
        reference = Rescale(net.module)
        before, other = passed(start, reference)
        logits, leaf = passed(part, Rescale(net.module, reference))
        scores = [question(logits, where) for question in questions]
    values, rises = [], []
    for question, score in zip(questions, scores, strict=True):
        if not score.requires_grad:
            raise NothingToExplain(
                f"the output of {net.name} does not depend on its input by any differentiable way; "
                "a detach(), an argmax or a no_grad() inside the model cuts it off"
            )
        (multipliers,) = torch.autograd.grad(score.sum(), leaf, retain_graph=question is not questions[-1])
        count(backward=len(part))
        values.append(multipliers * (leaf - other).detach())
        rises.append(score.detach() - before.detach().gather(1, question.target[where, None].to(before.device))[:, 0])
    return torch.stack(values, 1), torch.stack(rises).double().cpu()
