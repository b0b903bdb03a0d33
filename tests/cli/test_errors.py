"""Bad input gets one readable sentence, exit code 2 and no traceback."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file

from seewhy import errors
from seewhy.cli import lists

from .conftest import TINY, Run


def sentence(result: Result, code: int = 2) -> str:
    """The one sentence of a failed command, checked to be one."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert lines
    assert lines[-1] == result.stderr.splitlines()[-1]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def bomb(path: Path, side: int = 60_000) -> None:
    """A PNG that says it is huge, in a hundred bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def text_as_jpeg(here: Path) -> None:
    (here / "bad.jpg").write_text("dear diary")


def truncated(here: Path) -> None:
    from PIL import Image

    Image.open(here / "cat.png").save(here / "whole.jpg")
    whole = (here / "whole.jpg").read_bytes()
    (here / "bad.jpg").write_bytes(whole[: len(whole) // 2])


BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "no such file": (lambda here: None, "nix.jpg", ("no file", "nix.jpg")),
    "empty folder": (lambda here: (here / "void").mkdir(), "void", ("found no images", "void", ".png")),
    "text": (text_as_jpeg, "bad.jpg", ("bad.jpg is not an image", "dear diary")),
    "truncated": (truncated, "bad.jpg", ("bad.jpg", "damaged or cut off")),
    "bomb": (lambda here: bomb(here / "bad.png"), "bad.png", ("60,000 × 60,000", "limit")),
    "empty file": (lambda here: (here / "bad.jpg").touch(), "bad.jpg", ("bad.jpg is empty",)),
}


@pytest.mark.parametrize("command", ["audit", "explain", "attack", "look"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_alone(command: str, kind: str, here: Path, run: Run) -> None:
    make, name, expected = BAD_IMAGES[kind]
    make(here)
    told = sentence(run(command, name, "--model", TINY, "--out", "out"))
    for part in expected:
        assert part in told


@pytest.mark.parametrize("command", ["explain", "attack"])
def test_a_bad_image_among_others(command: str, here: Path, run: Run) -> None:
    text_as_jpeg(here)
    result = run(command, "cat.png", "bad.jpg", "nix.jpg", "dog.png", "--model", TINY)
    assert result.exit_code == 0
    assert result.stdout.count(".png") >= 4
    warned = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2
    assert "bad.jpg" in warned[0]
    assert "nix.jpg" in warned[1]


def test_only_bad_images(here: Path, run: Run) -> None:
    text_as_jpeg(here)
    result = run("explain", "bad.jpg", "nix.jpg", "--model", TINY)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "nothing could be done with any image" in result.stderr.splitlines()[-1]


UNKNOWN = {
    "class": (("explain", "cat.png", "--class", "tiger kat"), 'did you mean "tiger cat"?'),
    "class in an audit": (("audit", "cat.png", "--class", "tigr cat"), 'did you mean "tiger cat"?'),
    "class of an attack": (("attack", "cat.png", "--target", "dgo"), 'did you mean "dog"?'),
    "class index": (("explain", "cat.png", "--class", "3"), "from 0 to 2"),
    "layer": (("explain", "cat.png", "--method", "grad-cam:layer=2:conv"), 'did you mean "2:conv2d"'),
    "layer in an audit": (("audit", "cat.png", "--method", "grad-cam:layer=2+22"), 'no layer or operation "22"'),
    "layer of a look": (("look", "cat.png", "--method", "activations:layer=22"), 'did you mean "2"'),
    "method": (("explain", "cat.png", "--method", "grad-kam"), 'did you mean "grad-cam"'),
    "method of another room": (("explain", "cat.png", "--method", "fgsm"), "no explain method"),
    "option of a method": (("attack", "cat.png", "--method", "fgsm:refin=2"), 'did you mean "refine"'),
    "value of an option": (("attack", "cat.png", "--method", "fgsm:refine=two"), "expected a whole number"),
    "sign": (("explain", "cat.png", "--sign", "negative"), "'signed', 'positive', 'absolute'"),
    "smoothing": (("explain", "cat.png", "--smooth", "-1"), "0 pixels or more"),
    "smoothing without a number": (("explain", "cat.png", "--smooth", "much"), "expected a number"),
    "contour": (("explain", "cat.png", "--contour", "150%"), "expected a share"),
    "contour of nothing": (("explain", "cat.png", "--contour", "0"), "more than nothing"),
    "composite": (("explain", "cat.png", "--method", "lrp:composite=epsilom"), 'did you mean "epsilon"'),
    "file of a composite": (("explain", "cat.png", "--method", "lrp:composite=nix.toml"), "no file of a composite"),
    "device": (("explain", "cat.png", "--device", "tpu9"), "there are: cpu"),
    "split": (("explain", "cat.png", "--split", "test"), "no splits"),
    "split in an audit": (("audit", "cat.png", "--split", "test"), "photographs have no splits"),
    "split of the demonstration": (("audit", "--split", "test"), "photographs have no splits"),
    "time": (("audit", "cat.png", "--budget", "soon"), "90s, 5m or 1h30m"),
    "maps without images": (("look", "--method", "activations"), "give at least one"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known(kind: str, here: Path, run: Run) -> None:
    words, expected = UNKNOWN[kind]
    assert expected in sentence(run(*words, "--model", TINY))


def test_unknown_names_without_a_model(here: Path, run: Run) -> None:
    assert 'did you mean "audit"?' in sentence(run("audti"))
    assert 'did you mean "get"' in sentence(run("data", "gett"))
    assert "there are: " in sentence(run("xyzzy"))
    assert 'did you mean "--method"' in sentence(run("explain", "cat.png", "--methd", "x"))
    assert "see seewhy explain --help" in sentence(run("explain"))
    assert "see seewhy audit --help" in sentence(run("audit", "--batch", "0"))
    assert 'did you mean "smoothgrad"' in sentence(run("methods", "smothgrad"))
    assert 'did you mean "cifar10"' in sentence(run("data", "get", "cifar"))
    assert "no file, folder or data set" in sentence(run("data", "show", "nix"))
    assert "such as 0.915" in sentence(run("check", TINY, ".", "--at-least", "915"))
    assert "no true classes" in sentence(run("check", TINY, "."))


def wrong_shape(here: Path) -> str:
    weights = load_file(here / "weights.safetensors")
    weights["6.bias"] = torch.zeros(5)
    save_file(weights, here / "wrong.safetensors")
    return "file:net.py:build@wrong.safetensors"


def wants_more(here: Path) -> str:
    with (here / "wrong.pt").open("wb") as file:
        pickle.dump({"weights": Path("x")}, file)
    return "file:net.py:build@wrong.pt"


def not_weights(here: Path) -> str:
    (here / "wrong.safetensors").write_text("hello")
    return "file:net.py:build@wrong.safetensors"


BAD_MODELS: dict[str, tuple[Callable[[Path], str], str]] = {
    "no such name": (lambda here: "efficientnet-lite", '"efficientnet-lite0"'),
    "no such file": (lambda here: "file:nat.py:build", 'did you mean "net.py"'),
    "no such function": (lambda here: "file:net.py:bild", 'did you mean "build"'),
    "not a module": (lambda here: "file:net.py:nothing", "torch.nn.Module, got str"),
    "wrong shape": (wrong_shape, "6.bias (5,) instead of (3,)"),
    "not weights": (not_weights, "wrong.safetensors"),
    "a pickle that needs more": (wants_more, "--trust-pickle"),
    "unknown option": (lambda here: f"{TINY},sice=3", 'did you mean "size"'),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_what_is_no_model(kind: str, here: Path, run: Run) -> None:
    make, expected = BAD_MODELS[kind]
    assert expected in sentence(run("explain", "cat.png", "--model", make(here)))


SUMMED = """
from torch import nn

class Summed(nn.Module):
    def forward(self, x):
        return x.cumsum(2)

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), Summed(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )
"""


def test_a_method_that_refuses_the_network_ends_no_other(here: Path, run: Run) -> None:
    (here / "summed.py").write_text(SUMMED)
    given = ("explain", "cat.png", "dog.png", "--model", "file:summed.py:build@weights.safetensors")
    refusing = ("lrp", "grad-cam:layer=9")
    words = [word for spec in (*refusing, "gradient", "guided-backprop") for word in ("--method", spec)]
    result = run(*given, *words, "--compare", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert [(row["image"], row["method"]) for row in told["explanations"]] == [
        (image, "gradient") for image in ("cat.png", "dog.png")
    ]
    assert [(row["image"], row["method"]) for row in told["failed"]] == [
        (image, spec) for image in ("cat.png", "dog.png") for spec in (*refusing, "guided-backprop")
    ]
    assert all("cumsum" in row["error"] for row in told["failed"] if row["method"] != "grad-cam:layer=9")
    warned = [line.split()[1] for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warned == ["lrp:", "grad-cam:layer=9:", "guided-backprop:"]  # once each, not once an image
    assert "no rule for the operation cumsum" in sentence(run(*given, "--method", "lrp", "--out", "alone"))
    none = [word for spec in refusing for word in ("--method", spec)]
    assert "nothing could be done with any image" in sentence(run(*given, *none, "--compare", "--out", "none"))


@pytest.mark.parametrize("command", ["audit", "explain", "attack", "look"])
@pytest.mark.parametrize("out", ["cat.png", "cat.png/out", "/proc/out"])
def test_where_nothing_can_be_written(command: str, out: str, here: Path, run: Run) -> None:
    told = sentence(run(command, "cat.png", "--model", TINY, "--out", out))
    assert out in told
    assert "--out" in told


def test_a_folder_that_is_not_a_run(here: Path, run: Run) -> None:
    assert "--out" in sentence(run("audit", "cat.png", "--model", TINY, "--out", "."))
    assert "run" in sentence(run("report", "."))
    assert "nix" in sentence(run("report", "nix"))


def test_debug_shows_the_traceback(here: Path, run: Run) -> None:
    result = run("explain", "nix.jpg", "--model", TINY, "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "DataError" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("raised", "code", "expected"),
    [
        (ZeroDivisionError("by zero"), 1, ("unexpectedly (ZeroDivisionError: by zero)", "--debug", "doctor")),
        (MemoryError(), 1, ("memory ran out", "--batch 1")),
        (OSError(28, "No space left on device", "x.png"), 2, ("x.png: No space left",)),
        (errors.RunError("two\nlines"), 2, ("two lines",)),
        (KeyboardInterrupt(), 130, ("stopped",)),
    ],
)
def test_what_happens_inside(
    raised: BaseException, code: int, expected: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(lists.models, "callback", fail)
    result = run("models")
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    for part in expected:
        assert part in result.stderr
