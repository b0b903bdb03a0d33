"""What the methods found, kept in one directory that survives a stop at any moment."""

from seewhy.run.audit import Progress, audit
from seewhy.run.people import Asked
from seewhy.run.plan import Plan, Planned
from seewhy.run.store import MODEL, SCHEMA, ImageRow, Result, Run, Timing, key_of
from seewhy.run.summary import summary
from seewhy.run.unfinished import Unfinished, unfinished

__all__ = [
    "MODEL",
    "SCHEMA",
    "Asked",
    "ImageRow",
    "Plan",
    "Planned",
    "Progress",
    "Result",
    "Run",
    "Timing",
    "Unfinished",
    "audit",
    "key_of",
    "summary",
    "unfinished",
]
