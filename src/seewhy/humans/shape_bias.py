"""Shape or texture: who goes by what, on images whose two cues contradict each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from seewhy.humans.estimate import UNKNOWN, Array, Estimate, share
from seewhy.humans.resample import Draws, alone
from seewhy.humans.sample import Sample

_NAME = re.compile(r"([a-z]+)\d*-([a-z]+)\d*(?:\.\w+)?$", re.IGNORECASE)


@final
@dataclass(frozen=True)
class ShapeBias:
    """Answers by shape among those by shape or texture, on images whose two cues contradict each other.

    `decided` is the share of the network's and of the people's answers that go by one of the two cues; `annotators` names each
    annotator's bias, in their order.
    """

    images: int
    network: Estimate
    people: Estimate
    decided: tuple[float, float]
    annotators: tuple[Estimate, ...]


def cues(names: Sequence[str], classes: Sequence[str]) -> Array | None:
    """The places (N, 2) of the shape's and the texture's class in names such as `cat1-dog2.png`, −1 where both are one.

    None where not every name is so.

    >>> cues(["cat1-dog2.png", "s_07_dog3-dog1.png"], ("cat", "dog")).tolist()
    [[0, 1], [-1, -1]]
    """
    places = {name.lower(): place for place, name in enumerate(classes)}
    found = np.full((len(names), 2), -1)
    named = 0
    for row, name in enumerate(names):
        match = _NAME.search(name)
        if match and all(part.lower() in places for part in match.groups()):
            named += 1
            shape, texture = (places[part.lower()] for part in match.groups())
            if shape != texture:
                found[row] = shape, texture
    return found if named == len(names) else None


def shape_bias(given: Sample, draws: Draws) -> ShapeBias | None:
    """Shape bias of the network, of people and of each annotator (Geirhos et al. 2019, arXiv 1811.12231), by such names."""
    found = cues(given.votes.images, given.classes)
    if found is None or not (found[:, 0] >= 0).any():
        return None
    kept = np.flatnonzero(found[:, 0] >= 0)
    shape, texture = found[kept].T
    answers, counts = given.answers[kept], given.votes.counts[kept]
    votes = np.maximum(counts.sum(1), 1)
    places = np.arange(len(kept))
    by_shape, by_texture = (answers == shape).astype(float), (answers == texture).astype(float)
    theirs = [counts[places, cue] / votes for cue in (shape, texture)]
    decided = by_shape.sum() + by_texture.sum()
    network = share(float(by_shape.sum() / decided), float(decided)) if decided else UNKNOWN
    both = theirs[0].sum() + theirs[1].sum()
    people = UNKNOWN
    if both:
        value = float(theirs[0].sum() / both)
        sums = Draws(draws.images[:, kept], draws.annotators).sums(np.column_stack(theirs))
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = alone((sums[:, :1] / sums.sum(1, keepdims=True)) - value, len(kept)).spread()
        people = share(value, float(both), float(spread.error[0]), float(spread.freedom[0]))
    return ShapeBias(
        len(kept), network, people, (float(decided / len(kept)), float(both / len(kept))), _each(given, kept, found)
    )


def _each(given: Sample, kept: Array, found: Array) -> tuple[Estimate, ...]:
    trials = given.votes.trials
    if trials is None:
        return ()
    inside = np.isin(trials.image, kept)
    who, answer, cue = trials.annotator[inside], trials.answer[inside], found[trials.image[inside]]
    count = len(trials.annotators)
    shapes, textures = (np.bincount(who[answer == cue[:, side]], minlength=count) for side in (0, 1))
    return tuple(
        share(float(a / (a + b)), float(a + b)) if a + b else UNKNOWN for a, b in zip(shapes, textures, strict=True)
    )
