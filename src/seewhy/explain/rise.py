"""RISE: the logit under many random soft masks, and where it is higher when a pixel is visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.errors import SpecError
from seewhy.explain.base import Explainer, Map, Question, settle
from seewhy.explain.baseline import baseline, known
from seewhy.rng import generator

#: masks between two looks at the standard errors
ROUND = 128


@dataclass(frozen=True)
class Rise(Explainer):
    """E[f_c(x ⊙ M) · M(λ)] / p − E[f_c(x ⊙ M)], over random masks M: how much the logit rises where pixel λ is visible.

    A mask is a coarse grid of `cells` × `cells`, each visible with probability `visible` = p, enlarged bilinearly and shifted at
    random; `fill` (one of `seewhy.explain.baseline.BASELINES`) shows through where it hides. Masks are drawn until the root
    mean square of the values' standard errors is at most `tolerance` of the map's standard deviation, or `samples` are spent,
    which is noted.

    Values (N, 1, H, W), in logits; what makes no difference is zero. `standard_error` is the Monte-Carlo one: ± 2 of them are an
    interval of 95 %, pixel by pixel. `measures` has "mean score" (E[f_c], which added to the values gives the paper's map),
    "relative standard error" and "samples".
    Cost: 1 + at most `samples` forward passes an image; several targets share them.
    Limits: nothing finer than a cell can be seen; large regions with no effect still carry noise, see `standard_error`.
    Deviation: logits instead of probabilities; E[f_c] is taken off, which the paper leaves in as a constant of the map, and with
    it goes most of the noise.
    Source: Petsiuk, Das & Saenko 2018, arXiv 1806.07421, equation 6 and section 3.2.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2)), size=8)
    >>> found = Rise(cells=2, samples=256)(net, torch.rand(1, 3, 8, 8), target=0)
    >>> found.values.shape, found.standard_error.shape
    (torch.Size([1, 1, 8, 8]), torch.Size([1, 1, 8, 8]))
    """

    cells: int = 7
    visible: float = 0.5
    fill: str = "black"
    tolerance: float = 0.1
    samples: int = 4000
    seed: int = 0

    name = "rise"
    shows = "How much the logit rises where a pixel stays visible under random soft masks."
    reading = (
        "Strong regions raise the logit when they are seen, blue ones lower it; the standard error says what is chance."
    )
    source = "Petsiuk, Das & Saenko 2018, arXiv 1806.07421"
    bears_bf16 = True

    def __post_init__(self) -> None:
        known(self.fill, "fill")
        if self.cells < 2 or not 0 < self.visible < 1 or self.tolerance < 0 or self.samples < 2:
            raise SpecError(
                "expected cells ≥ 2, visible between 0 and 1, tolerance ≥ 0 and samples ≥ 2, got "
                f"{self.cells}, {self.visible:g}, {self.tolerance:g} and {self.samples}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.samples, 0

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        settle(questions, net, pixels)
        stand_in = baseline(self.fill, pixels, self.seed)
        found = [
            self._sample(net, image, stand_in[index], torch.stack([question.target[index] for question in questions]))
            for index, image in enumerate(pixels)
        ]
        return [self._joined([each[position] for each in found]) for position in range(len(questions))]

    def _joined(self, sums: list[_Moments]) -> Map:
        uncertainty = torch.tensor([each.uncertainty for each in sums])
        missed = [each for each in sums if each.uncertainty > self.tolerance]
        notes: tuple[str, ...] = ()
        if missed:
            notes = (
                f"for {len(missed)} of {len(sums)} images {missed[0].samples} masks left a standard error of up to "
                f"{100 * float(uncertainty.max()):.3g} % of the map's standard deviation; allow more samples",
            )
        return Map(
            torch.stack([each.values for each in sums])[:, None],
            notes=notes,
            measures={
                "mean score": torch.tensor([each.mean for each in sums]),
                "relative standard error": uncertainty,
                "samples": torch.tensor([float(each.samples) for each in sums]),
            },
            standard_error=torch.stack([each.standard_error for each in sums])[:, None],
        )

    def _sample(self, net: Classifier, image: Tensor, stand_in: Tensor, targets: Tensor) -> list[_Moments]:
        """What each target's samples come to; each as soon as its own standard errors are small enough."""
        device = net.engine.device
        image, stand_in = image.to(device), stand_in.to(device)
        draw = generator(self.seed, self.name)
        sums = [_Moments(image.shape[1:], self.visible) for _ in targets]
        going = list(range(len(targets)))
        for start in range(0, self.samples, ROUND):
            masks = Masks(
                (image.shape[1], image.shape[2]), self.cells, self.visible, min(ROUND, self.samples - start), draw
            )

            def run(_: Tensor, where: slice, masks: Masks = masks) -> Tensor:
                mask = masks[where].to(image)[:, None]
                return net.logits(torch.addcmul((1 - mask) * stand_in, mask, image)).float()

            with torch.no_grad(), net.engine.half():
                scores = net.engine.map(run, masks.grids, "forward").cpu()
            shown = masks[:].flatten(1)
            for index in going:
                sums[index].add(scores[:, targets[index]], shown)
            going = [index for index in going if sums[index].uncertainty > self.tolerance]
            if not going:
                break
        return sums


class Masks:
    """Random soft masks (n, H, W) in [0, 1], made when asked for: kept are the coarse grids and the shifts alone."""

    def __init__(self, size: tuple[int, int], cells: int, visible: float, count: int, draw: torch.Generator) -> None:
        self.grids = (torch.rand(count, cells, cells, generator=draw) < visible).float()
        pixels = [-(-side // cells) for side in size]  # of a cell, rounded up
        # what each grid row and column gives to each pixel row and column of the enlarged mask
        enlarged = [
            F.interpolate(torch.eye(cells)[None], size=(cells + 1) * each, mode="linear")[0].T for each in pixels
        ]
        self._rows, self._columns = (
            whole[torch.randint(each, (count, 1), generator=draw) + torch.arange(side)]
            for whole, each, side in zip(enlarged, pixels, size, strict=True)
        )

    def __getitem__(self, where: slice) -> Tensor:
        return self._rows[where] @ self.grids[where] @ self._columns[where].transpose(1, 2)


class _Moments:
    """Running sums of a score f and a mask M, for Cov(f, M) / p and its standard error; the mean of M, p, is known."""

    def __init__(self, size: torch.Size, visible: float) -> None:
        self._size, self._visible = size, visible
        self.samples = 0
        self._offset = 0.0  # near the mean score, so that nothing cancels
        self._sums = torch.zeros(2, dtype=torch.float64)  # of f and f²
        self._maps = torch.zeros(5, size.numel(), dtype=torch.float64)  # of M, M², fM, fM², f²M²

    def add(self, scores: Tensor, masks: Tensor) -> None:
        if not self.samples:
            self._offset = float(scores.mean())
        f, m = scores - self._offset, masks - self._visible
        one = torch.ones_like(f)
        self._sums += torch.stack([f.sum(), f.square().sum()])
        self._maps[[0, 2]] += (torch.stack([one, f]) @ m).double()
        self._maps[[1, 3, 4]] += (torch.stack([one, f, f.square()]) @ m.square()).double()
        self.samples += len(f)
        self._finish()

    def _finish(self) -> None:
        n = self.samples
        f, ff = (self._sums / n).tolist()
        m, mm, fm, fmm, ffmm = self._maps / n
        covariance = (fm - f * m) * (n / (n - 1))
        variance = (ffmm - 2 * f * fmm + f * f * mm - covariance.square()).clamp_min(0) / n
        if ff <= (1e-6 * self._offset) ** 2:  # a score that never changes, but for rounding
            covariance, variance = torch.zeros_like(covariance), torch.zeros_like(variance)
        self.mean = self._offset + f
        self.values = (covariance / self._visible).float().view(self._size)
        self.standard_error = (variance.sqrt() / self._visible).float().view(self._size)
        error, apart = self.standard_error.square().mean().sqrt(), self.values.std(correction=0)
        self.uncertainty = float(error / apart.clamp_min(1e-30))
