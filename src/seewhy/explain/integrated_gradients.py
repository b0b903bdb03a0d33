"""Integrated gradients: the gradient along the way from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import SpecError
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.baseline import baseline, known


@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """(x − x′) ∫₀¹ ∂f_c/∂x (x′ + α(x − x′)) dα, from a baseline x′; what each pixel adds to f_c(x) − f_c(x′).

    The integral is a midpoint sum. Its completeness error is |Σ values − (f_c(x) − f_c(x′))| / |f_c(x) − f_c(x′)|; steps
    are tripled (a midpoint sum keeps its points then) from 9 until the error is at most `tolerance`, or would pass
    `steps`. The error that is reached is reported in `measures["completeness error"]`, with the steps in
    `measures["steps"]`, and a note says where the tolerance was not met.

    `baseline` is one of `seewhy.explain.baseline.BASELINES`. Values
    (N, 3, H, W), in logits. Cost: 2 forward passes, then a forward and a backward pass a step, an image.
    Deviation: the paper uses a Riemann sum of 20 to 300 steps chosen by hand.
    Source: Sundararajan, Taly & Yan 2017, arXiv 1703.01365, equations 1 and 3.
    """

    baseline: str = "black"
    tolerance: float = 0.05
    steps: int = 243

    name = "integrated-gradients"
    shows = "What each pixel adds to the logit on the way from a black image to this one."
    reading = "Values add up to the logit's rise from the baseline, but for the completeness error, which is given."
    source = "Sundararajan, Taly & Yan 2017, arXiv 1703.01365"

    def __post_init__(self) -> None:
        known(self.baseline, "baseline")
        if self.tolerance <= 0 or self.steps < 1:
            raise SpecError(f"expected tolerance > 0 and steps ≥ 1, got {self.tolerance} and {self.steps}")

    @property
    def passes(self) -> tuple[int, int]:
        return 2 + self.steps, self.steps

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        question.settle(net, pixels)
        start = baseline(self.baseline, pixels)
        logits = net.predict(start).cpu()
        from_baseline = logits.gather(1, question.target[:, None])[:, 0]
        values, errors, taken = [], [], []
        for index, image in enumerate(pixels):
            rise = float(question.score[index] - from_baseline[index])
            value, error, steps = self._integrate(net, image, start[index], rise, question, index)
            values.append(value)
            errors.append(error)
            taken.append(float(steps))
        missed = [index for index, error in enumerate(errors) if not error <= self.tolerance]
        notes: tuple[str, ...] = ()
        if missed:
            worst = max(errors[index] for index in missed)
            notes = (
                f"for {len(missed)} of {len(pixels)} images {int(taken[missed[0]])} steps left a completeness error above "
                f"{100 * self.tolerance:.3g} % (worst {100 * worst:.3g} %); allow more steps",
            )
        measures = {"completeness error": torch.tensor(errors), "steps": torch.tensor(taken)}
        return Map(torch.stack(values), notes=notes, measures=measures)

    def _integrate(
        self, net: Classifier, image: Tensor, start: Tensor, rise: float, question: Question, index: int
    ) -> tuple[Tensor, float, int]:
        way = image - start
        total = torch.zeros_like(image)
        steps = min(9, self.steps)
        points = (torch.arange(steps) + 0.5) / steps
        while True:
            part = start + points.to(image).view(-1, 1, 1, 1) * way
            total += net.gradient(part, question.of(index))[1].sum(0).to(image)
            value = way * total / steps
            error = abs(float(value.sum()) - rise) / max(abs(rise), 1e-12)
            if error <= self.tolerance or steps * 3 > self.steps:
                return value, error, steps
            # the midpoints of n steps are the middle ones of 3n: only the others are new
            steps *= 3
            fine = torch.arange(steps)
            points = (fine[fine % 3 != 1] + 0.5) / steps
