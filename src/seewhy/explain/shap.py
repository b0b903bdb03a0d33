"""SHAP: what segments of an image add to the logit, averaged over the orders in which they may appear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.errors import InputError, NothingToExplain, SpecError
from seewhy.explain.base import Explainer, Map, Question, settle
from seewhy.explain.baseline import baseline, known
from seewhy.explain.players import known_segments, label_map, play, segments, spread, uncertainty
from seewhy.explain.shapley import Game, Group, everyone, exact, owen, pairs, regress
from seewhy.rng import generator

#: coalitions of which all logits are held at once
PART = 4096
#: the relative standard error above which a note says so; at this one the correlation with the exact values is about 0.98
DOUBTED = 0.2


@dataclass(frozen=True)
class Shap(Explainer):
    """φ_i = Σ_A |A|! (S − |A| − 1)! / S! (v(A ∪ i) − v(A)), with v(A) = f_c where only the segments A of S are shown.

    `segments` is slic (superpixels), grid, or the path of a label map (.npy, .png) of the input's size; about `count` segments.
    `fill`, one of `seewhy.explain.baseline.BASELINES`, stands in for the others. Where all 2^S coalitions are at most
    `evaluations`, each is run and the values are exact (`shap:count=8`; 14 segments take 16,384), which a note says. Otherwise
    coalitions are drawn in pairs, each with its complement, by their leverage and none twice; the values are the posterior
    mean, given these, of a Gaussian process over the odd interactions of segments.

    Values (N, 1, H, W), the value of the pixel's segment, in logits for the whole segment, whatever its size: over the segments,
    not over the pixels, they add up to f_c(image) − f_c(all hidden). `standard_error` is the posterior's deviation: ± 2 of them
    held 91 to 94 % of the values in trials with two nets on a photograph. `measures` has "relative standard error", the root
    mean square of the standard errors against how far the values are apart (their standard deviation over the segments), which a
    note says above 20 %; "additivity error", relative, which is rounding alone, as the values are made to add up;
    "evaluations" and "segments".
    Raises `InputError` where `evaluations` are too few for the segments, and for a label map of another size or with one segment.
    Cost: 1 + `evaluations` forward passes an image; several targets share them.
    Limits: the answer depends on the segments and the fill; images with segments hidden are unlike any the net was trained on.
    The errors trust that coalitions that are alike have like values, as is so for CNNs; a game of pure chance has it otherwise.
    Deviation: the papers solve a weighted least squares problem with the same coalitions, whose error was two to four times as
    large in those trials, and from as large to three times in small synthetic games; both answer the same where the game is
    linear, and the exact values where all coalitions are in.
    Source: Lundberg & Lee 2017, arXiv 1705.07874, section 4.1; pairs: Covert & Lee 2021, arXiv 2012.01536; leverage: Musco &
    Witter 2025, arXiv 2410.01917, algorithm 1.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2)), size=8)
    >>> found = Shap(segments="grid", count=4)(net, torch.rand(1, 3, 8, 8), target=0)
    >>> found.notes[0]
    'exact values, of all 16 coalitions of 4 segments'
    """

    evaluations: int = 512
    segments: str = "slic"
    count: int = 50
    fill: str = "grey"
    seed: int = 0

    name = "shap"
    shows = "What each segment of the image adds to the logit, on average over the orders in which segments may appear."
    reading = (
        "One number for each segment; they add up to the logit's rise from the hidden image. The standard error says "
        "what is chance."
    )
    source = "Lundberg & Lee 2017, arXiv 1705.07874; Musco & Witter 2025, arXiv 2410.01917"
    bears_bf16 = True

    def __post_init__(self) -> None:
        known(self.fill, "fill")
        known_segments(self.segments, self.count, "segments")
        if not 6 <= self.evaluations <= 2**14:
            raise SpecError(
                f"expected evaluations from 6 to 16384, got {self.evaluations}; for more, average several seeds"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.evaluations, 0

    def outside(self) -> dict[str, Any]:
        return label_map(self.segments)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        return _maps(self, net, pixels, questions)

    def solve(self, game: Game, labels: Tensor) -> _Found:
        """Values of the segments, from at most `evaluations` of the game."""
        players = int(labels.max()) + 1
        if players < 15 and 2**players <= self.evaluations:
            played = game(everyone(players))
            values = exact(played)
            note = f"exact values, of all {2**players:,} coalitions of {players} segments"
            return _Found(values, torch.zeros_like(values), played[[0, -1]], note)
        if self.evaluations < 2 * players + 2:
            raise InputError(
                f"expected at least {2 * players + 2} evaluations for {players} segments, got {self.evaluations}; "
                "allow more, or take a smaller count"
            )
        kept = pairs(players, self.evaluations // 2 - 1, generator(self.seed, self.name))
        played = game(torch.cat([_ends(players), kept, ~kept]))
        total = played[1] - played[0]
        rises = played[2 : 2 + len(kept)] - played[2 + len(kept) :]
        found = [regress(kept, rise, float(all_)) for rise, all_ in zip(rises.T, total, strict=True)]
        values, errors = (torch.stack(each, 1) for each in zip(*found, strict=True))
        return _Found(values, errors, played[:2])


@dataclass(frozen=True)
class ShapPartition(Explainer):
    """Owen values: as SHAP's, over only those orders of appearance in which the parts of a hierarchy of the image stay together.

    The image is halved, across its longer side, and each half again, down to the segments, by default the cells of a fine grid.
    Of two halves each joins before the other and after it, what a half adds is the mean of both, and is shared out in the same
    way inside. Halves of large effect come first, until `evaluations` are used; what is not divided by then is shared out
    evenly. So the map is fine where much happens, and coarse elsewhere; there is no chance in it.

    `segments`, `count` and `fill` as for `shap`, `seed` for the fill noise alone.
    Values (N, 1, H, W), in logits a pixel, a segment's value being spread evenly over its pixels; all pixels add up to
    f_c(image) − f_c(all hidden), exactly. `measures` has "additivity error", relative, "evaluations" and "segments".
    Raises `InputError` for a label map of another size or with one segment.
    Cost: 1 + `evaluations` forward passes an image; several targets share them, and where the image is divided follows the
    largest effect on any of them.
    Limits: a half whose parts cancel looks as if nothing happened in it, and is divided late; the borders of the halves show.
    Deviation: halves are divided half of the list at a time instead of one by one, so that passes run in batches.
    Source: Owen 1977, "Values of games with a priori unions"; Lundberg's shap, PartitionExplainer.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2)), size=8)
    >>> found = ShapPartition(evaluations=64)(net, torch.rand(1, 3, 8, 8), target=0)
    >>> found.values.shape, bool(found.measures["additivity error"] < 1e-4)
    (torch.Size([1, 1, 8, 8]), True)
    """

    evaluations: int = 512
    segments: str = "grid"
    count: int = 4096
    fill: str = "grey"
    seed: int = 0

    name = "shap-partition"
    shows = "What each part of the image adds to the logit, the image being halved again and again where much happens."
    reading = "The pixels add up to the logit's rise from the hidden image. Coarse parts are those of little effect."
    source = "Owen 1977; Lundberg & Lee 2017, arXiv 1705.07874"
    bears_bf16 = True

    def __post_init__(self) -> None:
        known(self.fill, "fill")
        known_segments(self.segments, self.count, "segments")
        if self.evaluations < 4:
            raise SpecError(f"expected evaluations ≥ 4, got {self.evaluations}")

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + self.evaluations, 0

    def outside(self) -> dict[str, Any]:
        return label_map(self.segments)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        return _maps(self, net, pixels, questions)

    def solve(self, game: Game, labels: Tensor) -> _Found:
        """Values of the segments, each for one of its pixels, from at most `evaluations` of the game."""
        flat = labels.flatten()
        areas = torch.bincount(flat).double()
        rows, columns = (torch.arange(side).double() for side in labels.shape)
        grids = torch.meshgrid(rows, columns, indexing="ij")
        places = torch.stack([torch.bincount(flat, grid.flatten()) / areas for grid in grids], 1)
        ends = game(_ends(len(areas)))
        values = owen(game, Group(torch.arange(len(areas)), places), ends, self.evaluations - 2)
        return _Found(values / areas[:, None], None, ends)


class _Found(NamedTuple):
    """Values and their errors (S, T), the game of no player and of all (2, T), and what a reader must know."""

    values: Tensor
    errors: Tensor | None
    ends: Tensor
    note: str = ""


def _ends(players: int) -> Tensor:
    return torch.tensor([False, True])[:, None].expand(2, players)


def _maps(method: Shap | ShapPartition, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
    """A map for each question, from the same coalitions."""
    settle(questions, net, pixels)
    stand_in = baseline(method.fill, pixels, method.seed)
    values: list[Tensor] = []
    errors: list[Tensor] = []
    measures: list[dict[str, Tensor]] = []
    notes: tuple[str, ...] = ()
    for index, image in enumerate(pixels):
        labels = segments(image, method.segments, method.count)
        targets = torch.stack([question.target[index] for question in questions])
        game = _Game(net, image, stand_in[index], labels, targets)
        if torch.allclose(image, stand_in[index], rtol=0, atol=1e-6):
            nothing = torch.zeros(int(labels.max()) + 1, len(targets))
            error = nothing if isinstance(method, Shap) else None
            found = _Found(
                nothing, error, nothing[:2], f"the {method.fill} fill is the image itself: take another fill"
            )
        else:
            found = method.solve(game, labels)
        maps = spread(found.values.T, labels)
        # over the pixels where each has its own value, over the segments where they share one
        added = maps.sum((1, 2)) if found.errors is None else found.values.sum(0)
        rise = found.ends[1] - found.ends[0]
        told = {
            "additivity error": (added - rise).abs() / rise.abs().clamp_min(1e-12),
            "evaluations": torch.full((len(targets),), float(game.played)),
            "segments": torch.full((len(targets),), float(labels.max()) + 1),
        }
        values.append(maps)
        if found.errors is not None:
            errors.append(spread(found.errors.T, labels))
            told = {"relative standard error": uncertainty(found.values, found.errors), **told}
        measures.append(told)
        named = f"image {index + 1}: " if len(pixels) > 1 else ""  # of one image the caller knows which it is
        notes += (f"{named}{found.note}",) if found.note else ()
    answers = []
    for i in range(len(questions)):
        measured = {name: torch.stack([each[name][i] for each in measures]) for name in measures[0]}
        answers.append(
            Map(
                torch.stack([each[i] for each in values])[:, None],
                notes=notes + _doubts(measured),
                measures=measured,
                standard_error=torch.stack([each[i] for each in errors])[:, None] if errors else None,
            )
        )
    return answers


def _doubts(measured: dict[str, Tensor]) -> tuple[str, ...]:
    """What a reader must know of how much is chance."""
    uncertain = measured.get("relative standard error", torch.zeros(0))
    missed = (uncertain > DOUBTED).nonzero()[:, 0]
    if not len(missed):
        return ()
    worst = int(uncertain.argmax())
    return (
        f"for {len(missed)} of {len(uncertain)} images {int(measured['evaluations'][worst])} evaluations left a standard error "
        f"of up to {100 * float(uncertain[worst]):.3g} % of the values' spread; allow more evaluations, or take a smaller count",
    )


class _Game:
    """What the net answers for `targets` (T,) where only some segments of an image are shown."""

    def __init__(self, net: Classifier, image: Tensor, stand_in: Tensor, labels: Tensor, targets: Tensor) -> None:
        self.net, self.image, self.stand_in, self.labels, self.targets = net, image, stand_in, labels, targets
        self.played = 0

    def __call__(self, kept: Tensor) -> Tensor:
        with self.net.engine.half():
            parts = [
                play(self.net, self.image, self.stand_in, self.labels, part)[:, self.targets].double()
                for part in kept.split(PART)
            ]
        self.played += len(kept)
        answers = torch.cat(parts)
        if not answers.isfinite().all():
            raise NothingToExplain(
                f"{self.net.name} answers NaN or infinity where segments are hidden; look for a division, a logarithm or "
                "a root of zero inside the model, or take another fill"
            )
        return answers
