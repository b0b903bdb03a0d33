"""Predictions are kept in a folder, and used again only for the same model and the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.classifier import Classifier
from seewhy.data import load
from seewhy.data.sets import DataSet
from seewhy.errors import DataError
from seewhy.humans.predict import FILE, predicted


def model(seed: int = 0, std: float = 1.0) -> Classifier:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 4))
    return Classifier(module, size=8, std=(std, std, std), name="tiny")


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    folder = tmp_path / "images"
    folder.mkdir()
    drawn = np.random.default_rng(0)
    for index in range(7):
        Image.fromarray(drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    (folder / "3.png").write_bytes(b"no picture")
    return load(folder)


def test_they_are_the_softmax_of_the_logits(data: DataSet) -> None:
    net = model()
    found = predicted(net, data)
    assert not found.kept
    assert list(found.failed) == ["3.png"]
    assert np.isnan(found.probabilities[3]).all()
    readable = [0, 1, 2, 4, 5, 6]
    theirs = torch.softmax(net.predict(data.images(readable, net.preprocess)).double(), 1).numpy()
    np.testing.assert_allclose(found.probabilities[readable], theirs, rtol=1e-6)
    assert found.cost.forward == 6


def test_the_same_comes_from_the_folder_and_nothing_else_does(data: DataSet, tmp_path: Path) -> None:
    first = predicted(model(), data, tmp_path / "out")
    again = predicted(model(), data, tmp_path / "out")
    assert again.kept
    assert again.cost.forward == 0
    assert again.failed == first.failed
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    assert not predicted(model(1), data, tmp_path / "out").kept
    assert not predicted(model(), data, tmp_path / "out").kept  # the other model's took its place
    assert not predicted(model(std=2.0), data, tmp_path / "out").kept
    predicted(model(), data, tmp_path / "out")
    assert not predicted(model(), data.subset([0, 1]), tmp_path / "out").kept
    predicted(model(), data, tmp_path / "out")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "0.png")
    assert not predicted(model(), data, tmp_path / "out").kept
    (tmp_path / "out" / FILE).write_bytes(b"PK\x03\x04 broken")
    assert not predicted(model(), data, tmp_path / "out").kept
    assert [file.name for file in (tmp_path / "out").iterdir()] == [FILE]


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of 1 images of .* can be read"):
        predicted(model(), load(f"folder:{tmp_path}"))
