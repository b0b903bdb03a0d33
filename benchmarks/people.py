"""A network beside people: ten thousand images, half a million votes, a thousand rounds of the bootstrap."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from benchmarks.measure import Row, table, take_turns
from seewhy.humans import Trials, Votes, agreement
from seewhy.humans.estimate import Floats
from seewhy.humans.votes import counted

#: as CIFAR-10H: images, classes, votes, and votes of each annotator
IMAGES, CLASSES, VOTES, EACH, ROUNDS = 10_000, 10, 511_000, 200, 1000


def made() -> tuple[Votes, Floats]:
    """Votes whose annotators are known, and a network's probabilities, all made up."""
    random = np.random.default_rng(0)
    labels, easy = random.integers(CLASSES, size=IMAGES), random.beta(12, 0.6, IMAGES)
    people = VOTES // EACH
    who = np.repeat(np.arange(people), EACH)
    image = np.concatenate([random.choice(IMAGES, EACH, replace=False) for _ in range(people)])
    right = random.random(VOTES) < easy[image]
    answer = np.where(right, labels[image], random.integers(CLASSES, size=VOTES))
    trials = Trials(image, who, answer, tuple(f"annotator {place + 1}" for place in range(people)))
    names = tuple(f"image {place + 1}" for place in range(IMAGES))
    votes = Votes(
        "made up",
        names,
        tuple(f"class {place}" for place in range(CLASSES)),
        counted(trials, IMAGES, CLASSES),
        tuple(labels.tolist()),
        trials,
    )
    said = random.dirichlet(np.full(CLASSES, 0.1), IMAGES)
    said[np.arange(IMAGES), labels] += 1.5
    return votes, said / said.sum(1, keepdims=True)


def people() -> list[str]:
    """Seconds of the whole comparison, where only counts are known and where annotators are told apart."""
    votes, said = made()
    alone = Votes(votes.name, votes.images, votes.classes, votes.counts, votes.labels)
    kinds = {"counts alone": alone, f"{len(votes.annotators):,} annotators told apart": votes}
    timing = take_turns({name: partial(agreement, each, said, rounds=ROUNDS) for name, each in kinds.items()}, 5, 1)
    rows: list[Row] = []
    for name, each in kinds.items():
        started = time.process_time()
        agreement(each, said, rounds=ROUNDS)
        spent = time.process_time() - started
        rows.append((name, f"**{timing.median(name):.1f} s**", "≤ 20 s", f"{spent:.1f} s"))
    return [
        "## A network beside people",
        "",
        f"{IMAGES:,} images, {VOTES:,} votes, {CLASSES} classes, {ROUNDS:,} rounds of the bootstrap: everything that "
        "`seewhy versus` says of them, besides the passes. Votes are made up, as many as those of CIFAR-10H.",
        "",
        *table(("votes", "the whole comparison", "wanted", "of all threads"), rows),
    ]
