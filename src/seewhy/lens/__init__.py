"""The lens: a network seen as the operations that it runs."""

from seewhy.lens.backward import Backward
from seewhy.lens.capture import Capture, Cut, Seen, capture, find, last_map, stages, trace
from seewhy.lens.lens import Lens
from seewhy.lens.ops import VOCABULARY, Call

__all__ = ["VOCABULARY", "Backward", "Call", "Capture", "Cut", "Lens", "Seen", "capture", "find", "last_map", "stages", "trace"]
