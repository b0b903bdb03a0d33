"""A model of a few hundred weights, two pictures, and the command line run in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from seewhy.cli import seewhy

NET = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )

def nothing():
    return "not a module"
"""

#: the tiny model's spec, in the folder where `here` puts a test
TINY = "file:net.py:build@weights.safetensors"

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and its pictures; made once."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "net.py").write_text(NET)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
        )
    save_file(module.state_dict(), folder / "weights.safetensors")
    about = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 16, "labels": ["tabby", "tiger cat", "dog"]}
    (folder / "weights.json").write_text(json.dumps(about))
    drawn = np.random.default_rng(0)
    for name in ("cat.png", "dog.png"):
        Image.fromarray(drawn.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def here(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test: a copy of the material."""
    folder = tmp_path / "work"
    shutil.copytree(material, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run() -> Run:
    """Run a command line as a person would type it, word by word."""

    def call(*words: object) -> Result:
        return CliRunner().invoke(seewhy, [str(word) for word in words])

    return call
