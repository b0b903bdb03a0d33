"""A small run, written by hand, with everything in it that a report must bear: hostile names and failures among it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.report.html import render
from seewhy.run import ImageRow, Run, Timing

SIDE = 24
HOSTILE = "<img src=x onerror=alert(1)>\"'&.png"
LABEL = '</script><script>alert("cat")</script>'

SMALL = {"forward": 1, "backward": 1}


def kind(index: int, probability: float) -> dict[str, Any]:
    """A class as records have it."""
    return {"index": index, "label": (LABEL, "dog")[index], "probability": probability}


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """A picture (width, height) of chance."""
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(40, 215, (size[1], size[0], 3), dtype=np.uint8))


def bright(row: int, column: int) -> np.ndarray[Any, Any]:
    """A map (1, 6, 6) with a single strong place."""
    values = np.zeros((1, 6, 6), dtype=np.float32)
    values[0, row, column] = 2.0
    return values


def put_photo(run: Run, number: int, name: str, *, fooled: bool) -> None:
    """One photograph, 48 × 32, of which the model saw the middle, with two explanations, an attack and one layer."""
    image = f"{number:04d}"
    seen = picture(number, (SIDE, SIDE))
    run.put_image(
        ImageRow(
            *(image, number, name, None, "0" * 64, "ok", None),
            {
                "original": [32, 48],
                "box": [8, 0, 40, 32],
                "size": [SIDE, SIDE],
                "notes": ["transparent parts laid over white"],
                "label": 0,
                "credit": "A person & <co>; CC0",
                "pictures": {"original": f"{image}-original.png", "seen": f"{image}-seen.png"},
            },
        ),
        {f"{image}-original.png": picture(number + 50, (48, 32)), f"{image}-seen.png": seen},
    )
    run.put(image, "predict", {"top": [kind(0, 0.9), kind(1, 0.1)], "truth": kind(0, 0.9), "cost": SMALL, "notes": []})
    maps: tuple[tuple[str, str, np.ndarray[Any, Any], dict[str, float]], ...] = (
        ("grad-cam", "positive", bright(0, 0), {}),
        ("integrated-gradients:steps=9", "signed", np.ones((3, SIDE, SIDE), np.float32), {"completeness error": 0.012}),
    )
    for spec, sign, values, measures in maps:
        record = {
            **{"method": spec, "target": kind(0, 0.9), "role": "predicted", "layer": "features.3", "sign": sign},
            **{"score": 1.0, "measures": measures, "cost": SMALL, "notes": ["a <b>note</b>"]},
        }
        run.put(image, f"{spec}@0", record, {"values": values}, timing=Timing(0.25))
        run.put(
            image,
            f"after {spec}@0",
            {**record, "correlation": -0.25 if spec == "grad-cam" else None, "notes": []},
            {"values": values[:, ::-1]},
            timing=Timing(0.75),
        )
    pixels = np.asarray(seen, dtype=np.float32).transpose(2, 0, 1) / 255
    end = kind(1, 0.7) if fooled else kind(0, 0.6)
    run.put(
        image,
        "fgsm",
        {
            **{"method": "fgsm", "before": kind(0, 0.9), "after": end, "eps": [0.0, 4 / 255, 8 / 255]},
            **{"p_before": [0.9, 0.7, 0.3 if fooled else 0.6], "p_after": [0.1, 0.3, 0.7 if fooled else 0.6]},
            **{"success": [False, False, fooled], "success_8bit": [False, False, fooled], "fooled": fooled},
            **{"smallest_eps": 8 / 255 if fooled else None, "shown_eps": 8 / 255},
            **{"distances": {"l0": 1.0, "l2": 1.3, "linf": 8 / 255, "rms": 8 / 255}},
            **{"pictures": {"adversarial": f"{image}-fgsm.png"}, "cost": {"forward": 5, "backward": 1}, "notes": []},
        },
        {"adversarial": pixels + 8 / 255},
        {f"{image}-fgsm.png": Image.fromarray(np.asarray(seen) + 8)},
        Timing(0.5),
    )
    layer = np.random.default_rng(number).normal(size=(4, 6, 6)).astype(np.float32)
    run.put(
        image,
        "activations:layer=features.3",
        {
            **{"method": "activations:layer=features.3", "layer": "features.3", "channels": [7, 2, 5, 1], "zero": 0.4},
            **{"zero_after": 0.5, "cost": {"forward": 1, "backward": 0}, "notes": []},
        },
        {"before": layer, "after": layer * 1.5},
    )


def put_model(run: Run) -> None:
    """The model's own rows."""
    layers = [{"address": "features.0:conv2d", "op": "conv2d", "shape": [1, 8, 24, 24], "window": [3, 3]}]
    run.put(
        "model",
        "identity",
        {
            **{"name": "tiny<net>", "spec": "file:tiny.py", "fingerprint": "ab" * 32, "parameters": 1234, "classes": 2},
            **{"size": [SIDE, SIDE], "mean": [0.5, 0.5, 0.5], "std": [0.1, 0.2, 0.3], "multiply_adds": 12_000},
            **{"layers": [{**layer, "stride": [1, 1], "multiply_adds": 9_000} for layer in layers]},
            **{"missing_rules": {"backward": ["erf"]}, "cost": SMALL, "notes": ["its weights are random"]},
        },
    )
    run.put(
        "model",
        "filters",
        {
            **{"method": "filters", "layer": "features.0:conv2d", "view": "colour", "scale": 0.5, "titles": []},
            **{"cost": SMALL, "notes": []},
        },
        {"tiles": np.zeros((8, 3, 3, 3), np.float32)},
    )
    run.time("model", "forward pass", Timing(0.05))


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the run: a photograph that is fooled, one that is not, and a broken one; a failed step."""
    plan = {
        "asked": {"model": "file:tiny.py", "data": ["my photos"], "classes": [1], "methods": [], "budget": 300.0},
        "left_out": ["rise would take about <9 min>"],
        "notes": [],
    }
    directory = tmp_path_factory.mktemp("report") / "run"
    with Run.create(directory, plan, {"seewhy": "0.1.0", "torch": "2.13.0", "python": "3.11"}) as run:
        put_model(run)
        put_photo(run, 1, HOSTILE, fooled=True)
        put_photo(run, 2, "dog.png", fooled=False)
        because = "broken.jpg cannot be decoded, it is damaged"
        run.put_image(ImageRow("0003", 3, "broken.jpg", None, None, "failed", because, {}))
        run.failed("0002", "smoothgrad@0", "smoothgrad gave values that are not finite")
    return directory


@pytest.fixture(scope="session")
def text(made_run: Path) -> str:
    """Its report."""
    with Run.open(made_run) as run:
        return render(run)


@pytest.fixture
def small_run(made_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed at will."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))
