"""Integrated gradients: the gradient along the way from a baseline to the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import SpecError
from seewhy.explain.at_layer import Score, maps_at
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.baseline import baseline, known
from seewhy.lens.capture import capture
from seewhy.lens.replay import Kept, replay

#: the points that the way starts with, closer to each other at both ends; how many intervals are halved in one go, and how
#: often an interval may be
FIRST, SPLIT, DEPTH = 9, 4, 20


@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """(x − x′) ∫₀¹ ∂f_c/∂x (x′ + α(x − x′)) dα, from a baseline x′; what each pixel adds to f_c(x) − f_c(x′).

    The integral is a trapezium sum over points that are not evenly spread. The logit at each point comes with the gradient,
    so that for each interval it is known by how much the sum misses the logit's true rise there: the intervals that miss
    most are halved, four at a time, until the completeness error |Σ values − (f_c(x) − f_c(x′))| / |f_c(x) − f_c(x′)|
    is at most `tolerance`, and not by luck (see below), or `steps` points are reached. Networks change abruptly on a short
    part of the way, near the baseline mostly; this finds it.

    `measures["completeness error"]` is what was reached, with `measures["steps"]` points; `measures["error along the way"]`
    is the root of the intervals' summed squared errors, what they would leave if their signs were random, on the same
    scale; it has to be at most twice the tolerance. A note says where either was missed, where the logit is as high at
    the baseline (a saturated class), and where an image is its own baseline. `baseline` is one of
    `seewhy.explain.baseline.BASELINES`; `seed` is that of the noise. With `layer`, an address as `seewhy model` prints it,
    the way goes between the layer's maps for the baseline and for the image; what passes the layer by stays the image's.
    Values (N, 3, H, W), or (N, C, h, w) with `layer`, in logits.
    Cost: 1 forward pass, then a forward and a backward pass a step (with `layer`: of what follows it, and 3 forward
    passes), an image. The gradients at the points are kept until the end.
    Limits: what equals the baseline gets nothing: black pixels, by default. Images on the way are like none that the network
    knows. A small completeness error does not say that each value is right.
    Deviation: the paper uses a Riemann sum of 20 to 300 even steps chosen by hand.
    Source: Sundararajan, Taly & Yan 2017, arXiv 1703.01365, equations 1 and 3.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> found = IntegratedGradients(tolerance=0.01)(Classifier(module, size=8), torch.rand(1, 3, 8, 8))
    >>> bool(found.measures["completeness error"] <= 0.01)
    True
    """

    baseline: str = "black"
    tolerance: float = 0.05
    steps: int = 256
    layer: str | None = None
    seed: int = 0

    name = "integrated-gradients"
    shows = "What each pixel adds to the logit on the way from a black image to this one."
    reading = "Values add up to the logit's rise from the baseline, but for the completeness error, which is given."
    source = "Sundararajan, Taly & Yan 2017, arXiv 1703.01365"

    def __post_init__(self) -> None:
        known(self.baseline, "baseline")
        if not self.tolerance > 0 or self.steps < 2:
            raise SpecError(f"expected tolerance > 0 and steps ≥ 2, got {self.tolerance} and {self.steps}")

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.steps + (3 if self.layer else 0), self.steps

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        question.settle(net, pixels)
        starts = baseline(self.baseline, pixels, self.seed)
        found = [
            self._along(net, image, start, question.of(index))
            for index, (image, start) in enumerate(zip(pixels.split(1), starts.split(1), strict=True))
        ]
        measures = {
            "completeness error": torch.tensor([each.error for each in found]),
            "error along the way": torch.tensor([each.along for each in found]),
            "steps": torch.tensor([float(each.steps) for each in found]),
        }
        values = torch.cat([each.values for each in found])
        return Map(values, layer=self.layer or "", notes=tuple(self._notes(found)), measures=measures)

    def _along(self, net: Classifier, image: Tensor, start: Tensor, score: Score) -> _Integral:
        """The integral for one image (1, 3, H, W)."""
        logits = None
        if self.layer:
            layer = maps_at(net, self.layer)
            kept = Kept(net, image, at=layer)
            image, start = (capture(net, each, [layer])[layer] for each in (image, start))

            def logits(part: Tensor) -> Tensor:
                return replay(kept, at=layer, value=part)

        way = image - start
        held: dict[
            float, tuple[float, float, Tensor]
        ] = {}  # at each point the logit, its slope along the way, the gradient
        points = (1 - torch.linspace(0, torch.pi, min(FIRST, self.steps), dtype=torch.float64).cos()) / 2
        while True:
            scores, gradients = net.gradient(start + points.to(way).view(-1, 1, 1, 1) * way, score, logits=logits)
            slopes = (gradients.double() * way).sum((1, 2, 3))
            held |= zip(points.tolist(), zip(scores.tolist(), slopes.tolist(), gradients, strict=True), strict=True)
            at = torch.tensor(sorted(held), dtype=torch.float64)
            heights, slopes = torch.tensor([held[point][:2] for point in at.tolist()], dtype=torch.float64).unbind(1)
            widths, rises = at.diff(), heights.diff()
            missed = widths * (slopes[1:] + slopes[:-1]) / 2 - rises
            rise = float(heights[-1] - heights[0])
            error, along = (float(each) / max(abs(rise), 1e-12) for each in (missed.sum().abs(), missed.norm()))
            room = max(0, min(SPLIT, self.steps - len(at)))
            worst = torch.where(widths > 2.0**-DEPTH, missed.abs(), -1).argsort(descending=True, stable=True)[:room]
            worst = worst[widths[worst] > 2.0**-DEPTH]
            if (error <= self.tolerance and along <= 2 * self.tolerance) or not len(worst):
                break
            points = (at[worst] + at[worst + 1]) / 2
        weights = torch.cat([widths, widths.new_zeros(1)]) / 2 + torch.cat([widths.new_zeros(1), widths]) / 2
        total = sum(weight * held[point][2] for weight, point in zip(weights.tolist(), at.tolist(), strict=True))
        return _Integral(
            values=way * total,
            error=error,
            along=along,
            steps=len(at),
            still=not way.any(),
            saturated=bool(way.any()) and 50 * abs(rise) < float(rises.abs().sum()),
        )

    def _notes(self, found: list[_Integral]) -> Iterator[str]:
        missed = [each for each in found if not each.error <= self.tolerance]
        if missed:
            worst = max(missed, key=lambda each: each.error)
            yield (
                f"for {len(missed)} of {len(found)} images {worst.steps} steps left a completeness error above "
                f"{100 * self.tolerance:.3g} % (worst {100 * worst.error:.3g} %); allow more steps"
            )
        lucky = [each for each in found if each.error <= self.tolerance and not each.along <= 2 * self.tolerance]
        if lucky:
            worst = max(lucky, key=lambda each: each.along)
            yield (
                f"for {len(lucky)} of {len(found)} images {worst.steps} steps left an error along the way above "
                f"{200 * self.tolerance:.3g} % (worst {100 * worst.along:.3g} %): the values add up by luck alone; allow more "
                "steps"
            )
        still, saturated = sum(each.still for each in found), sum(each.saturated for each in found)
        if still:
            yield f"{still} of {len(found)} images equal their baseline ({self.baseline}): nothing differs, so the map is zero"
        if saturated:
            yield (
                f"for {saturated} of {len(found)} images the logit is nearly as high at the baseline, for all its changes on "
                "the way (a saturated class): the completeness error, relative to its rise, does not converge; choose another "
                "baseline"
            )


@dataclass(frozen=True)
class _Integral:
    """What was found for one image; the errors are relative to the logit's rise."""

    values: Tensor
    error: float
    along: float
    steps: int
    still: bool
    saturated: bool
