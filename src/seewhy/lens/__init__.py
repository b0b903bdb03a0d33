"""The lens: a network seen as the operations that it runs."""

from seewhy.lens.backward import Backward
from seewhy.lens.capture import Capture, Cut, Seen, capture, find, last_map, stages, trace
from seewhy.lens.cost import NetworkCost
from seewhy.lens.incremental import Incremental
from seewhy.lens.lens import Lens
from seewhy.lens.network import Network, describe
from seewhy.lens.ops import VOCABULARY, Call
from seewhy.lens.receptive import Field, receptive_fields
from seewhy.lens.relevance import Relevance
from seewhy.lens.replay import Kept
from seewhy.lens.rescale import Rescale
from seewhy.lens.rules import composite

__all__ = [
    "VOCABULARY",
    "Backward",
    "Call",
    "Capture",
    "Cut",
    "Field",
    "Incremental",
    "Kept",
    "Lens",
    "Network",
    "NetworkCost",
    "Relevance",
    "Rescale",
    "Seen",
    "capture",
    "composite",
    "describe",
    "find",
    "last_map",
    "receptive_fields",
    "stages",
    "trace",
]
