"""LIME: a linear model of the logit in the segments that are shown, fitted where most of the image is still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import InputError, SpecError
from seewhy.explain.base import Explainer, Map, Question, settle
from seewhy.explain.baseline import baseline, known
from seewhy.explain.players import known_segments, label_map, play, segments, spread, uncertainty
from seewhy.rng import generator

#: samples between two looks at the intervals
ROUND = 64


class Fit(NamedTuple):
    """Coefficients and their standard errors (S,), the share of the variance that they explain, and the samples."""

    coefficients: Tensor
    standard_error: Tensor
    explained: float
    samples: int

    @property
    def uncertainty(self) -> float:
        return float(uncertainty(self.coefficients, self.standard_error))


@dataclass(frozen=True)
class Lime(Explainer):
    """The b that minimises Σ_z π(z) (f_c(h(z)) − b₀ − bᵀz)²: how much the logit rises when a segment is shown.

    z ∈ {0, 1}^S says which of S segments are shown, h(z) puts the fill in place of the others, π(z) = exp(−d²/width²) with the
    cosine distance d = 1 − √(|z|/S) weighs a sample by its nearness to the image. Samples are drawn until the root mean square of
    the coefficients' standard errors is at most `tolerance` of how far the coefficients are apart (their standard deviation over
    the segments), or `samples` are spent, which is noted. A tolerance of 0.2 makes the expected correlation with an endless run
    0.98. Where all 2^S coalitions are fewer than `samples`, each is run once and the fit is exact.

    `segments` is slic (superpixels), grid, or the path of a label map (.npy, .png) of the input's size; about `count` segments.
    `fill` is one of `seewhy.explain.baseline.BASELINES`. `output` is what is explained, the logit or the probability.
    `features` = K > 0 chooses K segments by the lasso's path and fits these by least squares, as the paper does; the others are
    zero, and the intervals leave out the chance of the choice. `ridge` adds that penalty on the squared coefficients.

    Values (N, 1, H, W), the coefficient of the pixel's segment, in logits (or probability) for the whole segment, whatever its
    size. `standard_error` holds for any f, linear or not (a sandwich estimator over the pairs below): ± 2 of them are an interval
    of 95 %. `measures` has "R²", adjusted for the number of segments, "relative standard error", "samples" and "segments".
    Raises `InputError` where `samples` are too few to fit or the width is too small, and for a label map of another size or with
    one segment.
    Cost: 1 + at most `samples` forward passes an image; several targets share them.
    Limits: the answer depends on the segments, the fill and the width; where R² is small the net is not linear in the segments
    there, and the coefficients are a rough account.
    Deviation: logits instead of probabilities unless asked. Where the paper draws every coalition alike and weighs it by π, the
    number of shown segments is drawn in proportion to its weight and the fit is unweighted: the same b, from fewer samples. They
    come in pairs, the first k and the last k′ segments of one random order, so that much of what is not linear cancels.
    Source: Ribeiro, Singh & Guestrin 2016, arXiv 1602.04938, equation 2 and algorithm 1.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2)), size=8)
    >>> found = Lime(segments="grid", count=4, fill="black")(net, torch.rand(1, 3, 8, 8), target=0)
    >>> found.values.shape, f"{found.measures['R²'].item():.2f}", found.cost.forward
    (torch.Size([1, 1, 8, 8]), '1.00', 17)
    """

    segments: str = "slic"
    count: int = 50
    fill: str = "grey"
    output: str = "logit"
    width: float = 0.25
    features: int = 0
    ridge: float = 0.0
    tolerance: float = 0.2
    samples: int = 2000
    seed: int = 0

    name = "lime"
    shows = "How much the logit rises when a segment of the image is shown, by a linear model fitted near the image."
    reading = (
        "One number for each segment. R² says how well a linear model fits at all; the standard error, what is chance."
    )
    source = "Ribeiro, Singh & Guestrin 2016, arXiv 1602.04938"
    bears_bf16 = True

    def __post_init__(self) -> None:
        known(self.fill, "fill")
        known_segments(self.segments, self.count, "segments")
        if self.output not in ("logit", "probability"):
            raise SpecError(f'expected output logit or probability, got "{self.output}"')
        if self.width <= 0 or self.tolerance < 0 or self.samples < 4 or self.ridge < 0 or self.features < 0:
            raise SpecError(
                "expected width > 0, tolerance ≥ 0, samples ≥ 4, ridge ≥ 0 and features ≥ 0, got "
                f"{self.width:g}, {self.tolerance:g}, {self.samples}, {self.ridge:g} and {self.features}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.samples, 0

    def outside(self) -> dict[str, Any]:
        return label_map(self.segments)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        settle(questions, net, pixels)
        stand_in = baseline(self.fill, pixels, self.seed)
        maps: list[list[Tensor]] = [[] for _ in questions]
        errors: list[list[Tensor]] = [[] for _ in questions]
        fits: list[list[Fit]] = [[] for _ in questions]
        counts, unchanged = [], []
        for index, image in enumerate(pixels):
            labels = segments(image, self.segments, self.count)
            counts.append(int(labels.max()) + 1)
            if float((image - stand_in[index]).abs().max()) < 1e-6:
                unchanged.append(index)
                nothing = torch.zeros(counts[-1])
                found = [Fit(nothing, nothing, 0.0, 0) for _ in questions]
            else:
                targets = torch.stack([question.target[index] for question in questions])
                found = self._fit(net, image, stand_in[index], labels, targets)
            for position, fit in enumerate(found):
                maps[position].append(spread(fit.coefficients, labels)[None])
                errors[position].append(spread(fit.standard_error, labels)[None])
                fits[position].append(fit)
        notes: tuple[str, ...] = ()
        if unchanged:
            names = ", ".join(f"image {index + 1}" for index in unchanged[:5])
            which = f" for {names}" if len(pixels) > 1 else ""  # of one image the caller knows which it is
            notes = (f"the {self.fill} fill is the image itself{which}: hiding changes nothing; take another fill",)
        return [
            Map(
                torch.stack(each),
                notes=notes + self._doubts([fit for i, fit in enumerate(fitted) if i not in unchanged]),
                measures={
                    "R²": torch.tensor([fit.explained for fit in fitted]),
                    "relative standard error": torch.tensor([fit.uncertainty for fit in fitted]),
                    "samples": torch.tensor([float(fit.samples) for fit in fitted]),
                    "segments": torch.tensor(counts).float(),
                },
                standard_error=torch.stack(error),
            )
            for each, error, fitted in zip(maps, errors, fits, strict=True)
        ]

    def _doubts(self, fits: list[Fit]) -> tuple[str, ...]:
        notes: tuple[str, ...] = ()
        missed = [fit for fit in fits if fit.uncertainty > self.tolerance]
        if missed:
            worst = max(missed, key=lambda fit: fit.uncertainty)
            notes += (
                f"for {len(missed)} of {len(fits)} images {worst.samples} samples left a standard error of up to "
                f"{100 * worst.uncertainty:.3g} % of the coefficients' spread; allow more samples",
            )
        rough = [fit.explained for fit in fits if fit.explained < 0.5 and bool(fit.coefficients.any())]
        if rough:
            notes += (
                f"for {len(rough)} of {len(fits)} images the linear model explains less than half of how the {self.output} "
                f"varies (R² down to {min(rough):.2f}): its coefficients are a rough account",
            )
        return notes

    def _fit(self, net: Classifier, image: Tensor, stand_in: Tensor, labels: Tensor, targets: Tensor) -> list[Fit]:
        """A fit for each target, from the same samples; each as soon as its own intervals are narrow enough."""
        count = int(labels.max()) + 1
        if count < 31 and 2**count <= self.samples:
            every = (torch.arange(2**count)[:, None] >> torch.arange(count)) % 2 == 1
            answers = self._answers(net, image, stand_in, labels, every)[:, targets]
            weights = self._kernel(count)[every.sum(1)]
            weights /= weights.sum()
            fits = [self._solve(every, answer, weights * len(weights), True) for answer in answers.T]
            if any(fit.uncertainty == float("inf") for fit in fits):
                raise self._narrow(float(weights[-1]))
            return fits
        needed = 2 * (count + 1)
        if self.samples < needed:
            raise InputError(f"expected at least {needed} samples for {count} segments, got samples={self.samples}")
        draw = generator(self.seed, self.name)
        sizes = self._sizes(count)
        start = float(torch.rand((), generator=draw))
        kept, answers = torch.zeros(0, count, dtype=torch.bool), torch.zeros(0, len(targets), dtype=torch.float64)
        done: dict[int, Fit] = {}
        most = self.samples - self.samples % 2
        while len(done) < len(targets):
            pairs = min(ROUND, most - len(kept)) // 2
            # numbers of shown segments from an evenly spread sequence, and their mirror
            even = (start + 0.6180339887498949 * (len(kept) // 2 + torch.arange(pairs, dtype=torch.float64))) % 1
            first, last = (torch.searchsorted(sizes, u).clamp_max(count)[:, None] for u in (even, 1 - even))
            rank = torch.rand(pairs, count, generator=draw).argsort(1).argsort(1)
            fresh = torch.stack([rank < first, rank >= count - last], 1).flatten(0, 1)
            kept = torch.cat([kept, fresh])
            answers = torch.cat([answers, self._answers(net, image, stand_in, labels, fresh)[:, targets]])
            if len(kept) < needed:
                continue
            for index in range(len(targets)):
                if index not in done:
                    fit = self._solve(kept, answers[:, index], torch.ones(len(kept), dtype=torch.float64), False)
                    if len(kept) == most and fit.uncertainty == float("inf"):
                        raise InputError(
                            f"{most} samples of width={self.width:g} never hid some of the {count} segments: "
                            "allow more samples, or take a larger width"
                        )
                    if fit.uncertainty <= self.tolerance or len(kept) == most:
                        done[index] = fit
        return [done[index] for index in range(len(targets))]

    def _answers(self, net: Classifier, image: Tensor, stand_in: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        with net.engine.half():
            logits = play(net, image, stand_in, labels, kept).double()
        return logits if self.output == "logit" else logits.softmax(1)

    def _kernel(self, count: int) -> Tensor:
        """π for each number of shown segments, 0 to `count`."""
        shown = torch.arange(count + 1, dtype=torch.float64)
        return torch.exp(-(((1 - (shown / count).sqrt()) / self.width) ** 2))

    def _sizes(self, count: int) -> Tensor:
        """The distribution function of the number of shown segments when coalitions are drawn in proportion to π."""
        shown = torch.arange(count + 1, dtype=torch.float64)
        ways = torch.lgamma(torch.tensor(count + 1.0)) - torch.lgamma(shown + 1) - torch.lgamma(count - shown + 1)
        share = (ways + self._kernel(count).log()).softmax(0)
        if share[-1] > 0.5:
            raise self._narrow(float(share[-1]))
        return share.cumsum(0)

    def _narrow(self, unchanged: float) -> InputError:
        return InputError(
            f"expected a kernel that reaches images with hidden segments, got width={self.width:g}, which leaves "
            f"{100 * unchanged:.0f} % of the weight to the unchanged image; take a larger width"
        )

    def _solve(self, kept: Tensor, answers: Tensor, weights: Tensor, exact: bool) -> Fit:
        """The fit of answers (n,) by coalitions (n, S); neighbours in pairs, unless every coalition is there (`exact`)."""
        count = kept.shape[1]
        mean = (weights @ answers) / weights.sum()
        around = float(weights @ (answers - mean) ** 2)
        if float((answers - mean).abs().max()) <= 1e-6 * float(answers.abs().max()):
            return Fit(torch.zeros(count), torch.zeros(count), 0.0, len(kept))
        chosen = torch.arange(count)
        if 0 < self.features < count:
            chosen = lasso(kept.double(), answers, weights, self.features)
        terms = torch.cat([torch.ones(len(kept), 1), kept[:, chosen]], 1).double()
        weighted = weights[:, None] * terms
        gram = weighted.T @ terms
        gram.diagonal()[1:] += self.ridge
        if torch.linalg.eigvalsh(gram)[0] < 1e-9 * len(kept):  # some segment has always been shown, or always hidden
            return Fit(torch.zeros(count), torch.full((count,), torch.inf), 0.0, len(kept))
        hat = torch.linalg.solve(gram, weighted.T)  # (1 + K, n): what each answer adds to each coefficient
        solution = hat @ answers
        residual = answers - terms @ solution
        left = float(weights @ residual**2) / around
        coefficients, error = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        coefficients[chosen] = solution[1:]
        if not exact:
            left *= (len(kept) - 1) / max(1, len(kept) - len(solution))
            error[chosen] = sandwich(terms, hat, residual)[1:]
        return Fit(coefficients.float(), error.float(), 1 - left, len(kept))


def sandwich(terms: Tensor, hat: Tensor, residual: Tensor) -> Tensor:
    """Standard errors of least squares whose samples come in pairs, as from leaving out each pair in turn (CR3).

    They hold when the model is wrong and when its residuals vary. Bell & McCaffrey 2002, section 3.
    """
    terms, hat, residual = terms.unflatten(0, (-1, 2)), hat.unflatten(1, (-1, 2)), residual.unflatten(0, (-1, 2))
    leverage = torch.einsum("pak,kpb->pab", terms, hat)
    own = torch.eye(2, dtype=terms.dtype) - leverage
    far = torch.linalg.det(own).clamp_min(1e-9)
    turned = torch.stack([own[:, 1, 1], -own[:, 0, 1], -own[:, 1, 0], own[:, 0, 0]], 1).view(-1, 2, 2)
    left_out = torch.einsum("pab,pb->pa", turned, residual) / far[:, None]
    each = torch.einsum("kpa,pa->kp", hat, left_out)
    pairs = len(terms)
    return ((pairs - 1) / pairs * each.square().sum(1)).sqrt()


def lasso(terms: Tensor, answers: Tensor, weights: Tensor, features: int) -> Tensor:
    """The first segments, at most `features`, on the lasso's path (Efron et al. 2004, arXiv math/0406456, section 3)."""
    terms = (terms - weights @ terms / weights.sum()) * weights.sqrt()[:, None]
    answers = (answers - weights @ answers / weights.sum()) * weights.sqrt()
    gram, pull = terms.T @ terms, terms.T @ answers
    beta, active = torch.zeros_like(pull), torch.zeros(len(pull), dtype=torch.bool)
    top, joining = pull.abs().max(), int(pull.abs().argmax())
    while True:
        if joining >= 0:
            if int(active.sum()) == features:
                return active.nonzero()[:, 0]
            active[joining] = True
        way = torch.zeros_like(pull)
        way[active] = torch.linalg.solve(gram[active][:, active], pull[active].sign())
        slope = gram @ way
        # the step at which another segment pulls as hard, or one of the active ones passes zero
        steps = torch.stack([(top - pull) / (1 - slope), (top + pull) / (1 + slope)])
        steps[:, active] = torch.inf
        steps = torch.where(steps > 1e-12 * top, steps, torch.inf).amin(0)
        leaves = -beta / way
        leaves = torch.where(active & (leaves > 1e-12 * top), leaves, torch.inf)
        step = torch.stack([steps.min(), leaves.min(), top]).min()
        beta, pull, top = beta + step * way, pull - step * slope, top - step
        if not top > 1e-12 * answers.norm():
            return active.nonzero()[:, 0]
        joining = int(steps.argmin()) if steps.min() <= leaves.min() else -1
        if joining < 0:
            gone = int(leaves.argmin())
            active[gone], beta[gone] = False, 0.0
