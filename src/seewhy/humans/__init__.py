"""People: how they voted, how well they agree, and whether a network does better."""

from __future__ import annotations

from seewhy.humans.agreement import Agreement, agreement
from seewhy.humans.votes import Trials, Votes

__all__ = ["Agreement", "Trials", "Votes", "agreement"]
