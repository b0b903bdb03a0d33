"""People: how they voted, how well they agree, and whether a network does better."""

from __future__ import annotations

from seewhy.humans.agreement import Agreement, agreement
from seewhy.humans.baselines import Baseline, baseline, baselines
from seewhy.humans.flags import Flag, flagged, without
from seewhy.humans.gallery import Gallery, gallery
from seewhy.humans.load import load
from seewhy.humans.match import LabelMap, Matched, matched, truth
from seewhy.humans.parting import Parting, parting
from seewhy.humans.performance import Performance, performance
from seewhy.humans.predict import Predictions, predicted
from seewhy.humans.votes import Trials, Votes
from seewhy.humans.worse import Worse, worse

__all__ = [
    "Agreement",
    "Baseline",
    "Flag",
    "Gallery",
    "LabelMap",
    "Matched",
    "Parting",
    "Performance",
    "Predictions",
    "Trials",
    "Votes",
    "Worse",
    "agreement",
    "baseline",
    "baselines",
    "flagged",
    "gallery",
    "load",
    "matched",
    "parting",
    "performance",
    "predicted",
    "truth",
    "without",
    "worse",
]
