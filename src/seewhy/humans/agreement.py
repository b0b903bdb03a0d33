"""A network's answers beside people's on the same images: who is right more often, who is wrong alike, who knows when not to."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from torch import Tensor

from seewhy.errors import InputError, nearest
from seewhy.humans import verdict as judging
from seewhy.humans.accuracy import Rates, majority, rates
from seewhy.humans.calibration import Reliability, calibration
from seewhy.humans.ceiling import Ceiling, ceiling
from seewhy.humans.confusion import Confusion, confusion
from seewhy.humans.coverage import Coverage, coverage
from seewhy.humans.estimate import Array
from seewhy.humans.flags import flagged
from seewhy.humans.kappa import Consistency, Raters, consistency, raters
from seewhy.humans.paired import McNemar, against
from seewhy.humans.resample import draw
from seewhy.humans.sample import Sample, sample
from seewhy.humans.shape_bias import ShapeBias, shape_bias
from seewhy.humans.soft import Soft, soft
from seewhy.humans.verdict import Verdict
from seewhy.humans.votes import Votes
from seewhy.result import shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@final
@dataclass(frozen=True, eq=False, repr=False)
class Agreement:
    """How a network and people answer the same images. Plain values throughout; each part says what it holds.

    `votes` counts answers and `people` says who gave them, where that was told; `annotators` is 0 where they are not told apart.
    """

    model: str
    data: str
    people: str
    truth: str
    classes: tuple[str, ...]
    images: int
    annotators: int
    votes: int
    rounds: int
    seed: int
    verdict: Verdict
    rates: Rates
    majority: McNemar | None
    each: tuple[McNemar, ...]
    confusion: Confusion
    consistency: Consistency
    raters: Raters
    soft: Soft | None
    calibration: tuple[Reliability, ...]
    coverage: Coverage
    ceiling: Ceiling
    shape: ShapeBias | None
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Agreement({self.model!r}, {self.data!r}: {self.verdict.outcome}, {self.rates.main.difference.value:+.3f})"
        )

    def words(self) -> tuple[str, ...]:
        """The verdict and each finding, a sentence or two each; limits and notes at the end."""
        from seewhy.humans.findings import findings

        return findings(self)

    def rows(self, table: str = "accuracy") -> list[dict[str, Any]]:
        """A table's rows: plain values, ends of intervals in columns of their own; `seewhy.humans.tables.TABLES` names them."""
        from seewhy.humans.tables import TABLES

        if table not in TABLES:
            raise InputError(f'there is no table "{table}"{nearest(table, TABLES)}; there are: {", ".join(TABLES)}')
        return TABLES[table](self)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; null where something is not defined."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file of JSON."""
        Path(path).write_text(
            json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8"
        )

    def plot(self) -> Figure:
        """The main findings in one figure; single ones are in `seewhy.report.people`."""
        from seewhy.report.people import overview

        return overview(self)

    def _repr_html_(self) -> str:
        return shown(self.plot(), " ".join(self.words()))


def agreement(
    votes: Votes,
    probabilities: Array | Tensor,
    labels: Sequence[int | None] | Array | Tensor | None = None,
    *,
    rounds: int = 1000,
    seed: int = 0,
    model: str = "the network",
    people: str = "",
    truth: str = "",
) -> Agreement:
    """Compare a network with people on the same images, everything with intervals of 95 %.

    `probabilities` (N, K) are the network's over the people's categories, rows in the order of `votes.images`, each adding up to
    1; `labels` (N,) the true categories, those of `votes` where None. `people` and `truth` are words for who voted and where the
    labels come from, and stand among the limits. Images without votes or label are left out, and said.

    One test decides: the network's accuracy less the mean annotator's, somebody drawn at random for each image. Intervals of
    accuracies are Wilson's, for the effective sample size where answers are given by the same people; those of differences are
    made of both (MOVER), the others come from `rounds` rounds of the bootstrap. Images are drawn again, and annotators too where
    they are told apart; where only counts are known, an image is drawn together with its votes (drawing the votes again as
    well would count their noise twice), and people's own differences are in no interval. Soft labels, calibration,
    coverage, ceiling and shape bias have intervals over images, each with its votes, in either case.

    Raises `InputError` for what is no probability, for shapes or labels that do not fit, and where no image is left.
    The same seed gives the same answer. Takes seconds for 10,000 images.

    >>> votes = Votes("pets", ("a", "b", "c", "d"), ("cat", "dog"), np.array([[9, 1], [8, 2], [3, 7], [6, 4]]), (0, 0, 1, 1))
    >>> found = agreement(votes, np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6]]), model="net")
    >>> found.verdict.outcome, round(found.rates.main.difference.value, 2)
    ('not told apart', 0.3)
    """
    given = sample(votes, probabilities, labels)
    draws = draw(len(given), len(given.annotators), rounds, seed)
    found = rates(given, draws, model, seed)
    consistent, softly, calibrated = (
        consistency(given, draws, seed),
        soft(given, draws, seed),
        calibration(given, draws, seed),
    )
    crowd, each = _tests(given)
    limits = judging.limits(given, people, truth, judging.contradicted(given))
    notes = [
        *given.notes,
        *judging.from_people(given),
        *(f"flagged, and kept: {flag.sentence}" for flag in flagged(given.votes, given.labels.tolist())),
        *_unanimous(given),
        *consistent.notes,
        *(softly.notes if softly else ("no image has two votes or more: nothing can be said of soft labels",)),
    ]
    return Agreement(
        model=model,
        data=votes.name,
        people=people,
        truth=truth,
        classes=given.classes,
        images=len(given),
        annotators=len(given.annotators),
        votes=int(given.votes.counts.sum()),
        rounds=rounds,
        seed=seed,
        verdict=judging.decide(found, model, given, limits),
        rates=found,
        majority=crowd,
        each=each,
        confusion=confusion(given),
        consistency=consistent,
        raters=raters(given.votes.counts, draws),
        soft=softly,
        calibration=calibrated,
        coverage=coverage(given, draws, seed),
        ceiling=ceiling(given, draws, seed),
        shape=shape_bias(given, draws),
        notes=tuple(dict.fromkeys((*votes.notes, *notes))),
    )


def _tests(given: Sample) -> tuple[McNemar | None, tuple[McNemar, ...]]:
    """McNemar's tests against the majority, where it is untied, and against each annotator."""
    chosen, tied = majority(given.votes.counts)
    clear, hits = np.flatnonzero(tied == 1), given.hits.astype(int)
    right = (chosen[clear, given.labels[clear]] > 0.5).astype(int)
    crowd = against(["majority"], np.zeros(len(clear), dtype=int), hits[clear], right)
    if given.right is None:
        return next(iter(crowd), None), ()
    who, image, asked = given.cells
    return next(iter(crowd), None), against(
        given.annotators, who, hits[image], (given.right.data >= asked / 2).astype(int)
    )


def _unanimous(given: Sample) -> list[str]:
    """Where people never differ there is nothing to compare a distribution with."""
    votes = given.votes.counts.sum(1)
    if bool((given.votes.counts.max(1) == votes).all()) and (votes > 1).any():
        return ["people are unanimous about every image: there is no disagreement to compare with"]
    return []


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
