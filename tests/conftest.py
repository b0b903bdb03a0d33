"""What every test has: the real data where it is there, and peers that import on any torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import vision as vision  # torchvision imports on any torch


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout."""
    folder = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data, which a clone does not have")
    return folder.resolve()
