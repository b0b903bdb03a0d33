"""A tiny network and a tiny set of pictures that it can learn: three colours, two pictures of each thing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

NET = """
from torch import nn

def block(inside, outside, stride):
    return nn.Sequential(
        nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False), nn.BatchNorm2d(inside), nn.ReLU6(),
        nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU6(),
    )

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), block(8, 16, 2), block(16, 16, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 5),
    )
"""

COLOURS = {"amber": (220, 140, 30), "jade": (30, 160, 90), "slate": (80, 90, 140)}
RECIPE = (
    "batch=8,epochs=16,lr=0.01,head_lr=0.01,warmup=0.2,ema=0.9,crop=0.6,colour=0.3,mixup_share=0.3,hold_out=0.25,"
    "precision=float32"
)


def draw_set(root: Path, counts: dict[str, int], seed: int = 0) -> list[tuple[str, str, str]]:
    """Pictures in a folder for each class; two of each thing, whose names come back with their class and thing."""
    drawn = np.random.default_rng(seed)
    rows = []
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = drawn.normal(0, 25, (24, 24, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03}.png")
            rows.append((f"{name}/{number:03}.png", name, f"{name}-{number // 2}"))
    return rows


def write_table(file: Path, rows: list[tuple[str, str, str]]) -> Path:
    file.write_text("path,label,group\n" + "".join(f"{','.join(row)}\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, its weights, and the pictures with their table; made once."""
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "net.py").write_text(NET)
    space: dict[str, object] = {}
    exec(NET, space)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module: nn.Module = space["build"]()  # type: ignore[operator]
    save_file(module.state_dict(), folder / "weights.safetensors")
    about = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 24, "labels": list("abcde")}
    (folder / "weights.json").write_text(json.dumps(about))
    write_table(folder / "train.csv", draw_set(folder, {"amber": 40, "jade": 16, "slate": 8}))
    return folder


@pytest.fixture
def model(material: Path) -> str:
    return f"file:{material / 'net.py'}:build@{material / 'weights.safetensors'}"
