"""People: how they voted, how well they agree, and whether a network does better."""

from __future__ import annotations

from seewhy.humans.agreement import Agreement, agreement
from seewhy.humans.baselines import Baseline, baseline, baselines
from seewhy.humans.flags import Flag, flagged, without
from seewhy.humans.load import load
from seewhy.humans.match import LabelMap, Matched, matched, truth
from seewhy.humans.predict import Predictions, predicted
from seewhy.humans.votes import Trials, Votes
from seewhy.humans.worse import Worse, worse

__all__ = [
    "Agreement",
    "Baseline",
    "Flag",
    "LabelMap",
    "Matched",
    "Predictions",
    "Trials",
    "Votes",
    "Worse",
    "agreement",
    "baseline",
    "baselines",
    "flagged",
    "load",
    "matched",
    "predicted",
    "truth",
    "without",
    "worse",
]
