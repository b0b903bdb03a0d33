"""What every test has: the real data where it is there, and peers that import on any torch."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

# torchvision's wheel registers CUDA builds of its operators only; with these two defined it imports on a CPU torch.
# The library object must live as long as the process.
_TORCHVISION = torch.library.Library("torchvision", "DEF")
for _operator in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor a, Tensor b, float c) -> Tensor",
):
    with contextlib.suppress(RuntimeError):  # a torchvision with CPU operators has defined it already
        _TORCHVISION.define(_operator)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout."""
    folder = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data, which a clone does not have")
    return folder.resolve()
