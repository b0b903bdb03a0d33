"""Makes torchvision import where its wheel's operators, built for CUDA, do not load: importing this module is all."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import torch

_found = importlib.util.find_spec("torchvision")
if _found is not None and _found.origin is not None:
    for _built in Path(_found.origin).parent.glob("_C*"):
        with contextlib.suppress(OSError):  # what torchvision itself does first
            torch.ops.load_library(_built)

# with these two defined it imports; the library object must live as long as the process
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _name, _words in (
    ("nms", "Tensor dets, Tensor scores, float iou_threshold"),
    ("qnms", "Tensor a, Tensor b, float c"),
):
    if not hasattr(torch.ops.torchvision, _name):
        _LIBRARY.define(f"{_name}({_words}) -> Tensor")
