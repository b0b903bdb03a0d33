"""Looks at real nets and real photographs: what is exact on made-up ones must be so here too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seewhy import zoo
from seewhy.classifier import Classifier
from seewhy.data.cifar10 import cifar10
from seewhy.data.fetch import cached
from seewhy.lens.capture import capture, stages
from seewhy.look import CodeMap, Exemplars, Maximize, Statistics

pytestmark = pytest.mark.slow

PHOTOGRAPHS: dict[str, Callable[[Path], list[Path]]] = {
    "imagenet-photos": lambda root: sorted((root / "imagenet-photos").iterdir())[::11],
    "skin lesions": lambda root: sorted((root / "ham10000" / "images").rglob("*.jpg"))[::350],
}


@pytest.fixture(scope="module")
def net() -> Classifier:
    return zoo.load("efficientnet-lite0")


def read(net: Classifier, paths: list[Path]) -> Tensor:
    return torch.cat([net.read(path).pixels for path in paths if path.suffix in (".jpg", ".JPEG", ".png")])


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_exemplars_of_photographs_are_those_of_a_pass_that_stores_everything(
    kind: str, net: Classifier, shared: Path
) -> None:
    pixels = read(net, PHOTOGRAPHS[kind](shared))
    assert len(pixels) >= 16
    layers = stages(net)[-2:]
    found = Exemplars(layers=layers, k=4)(net, pixels)
    maps = [capture(net, image[None], layers) for image in pixels]
    for layer in layers:
        every = torch.cat([each[layer] for each in maps])
        peaks = every.flatten(2).amax(2)
        for unit in range(0, every.shape[1], 7):
            best = peaks[:, unit].sort(descending=True, stable=True)
            strongest = best.values[:4]
            if every.amin() == 0:  # rectified: what leaves a unit at zero is no exemplar of it
                strongest = strongest.where(strongest > 0, -torch.inf)
            torch.testing.assert_close(found.values[layer][unit], strongest, rtol=1e-4, atol=1e-4)
            clear = best.values[0] - best.values[1] > 1e-3  # equal to rounding, two images may change places
            assert not clear or int(found.images[layer][unit, 0]) == int(best.indices[0])


def test_nothing_outside_a_units_window_changes_its_answer(net: Classifier, shared: Path) -> None:
    pixels = read(net, PHOTOGRAPHS["imagenet-photos"](shared))[:8]
    layer = stages(net)[1]
    found = Exemplars(layers=(layer,), k=1)(net, pixels)
    noise = torch.rand(pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    inside = 0
    for unit in range(found.values[layer].shape[0]):
        top, left, bottom, right = found.windows[layer][unit, 0].tolist()
        down, across = found.positions[layer][unit, 0].tolist()
        other = noise.clone()
        image = pixels[found.images[layer][unit, 0]]
        other[:, top:bottom, left:right] = image[:, top:bottom, left:right]
        inside += (bottom - top) * (right - left) < other[0].numel()
        answer = capture(net, other[None], [layer])[layer][0, unit, down, across]
        torch.testing.assert_close(answer, found.values[layer][unit, 0], rtol=1e-4, atol=1e-4)
    assert inside == found.values[layer].shape[0]


def test_statistics_are_those_of_all_maps(net: Classifier, shared: Path) -> None:
    pixels = read(net, PHOTOGRAPHS["imagenet-photos"](shared))
    layer = stages(net)[2]
    found = Statistics(layers=(layer,))(net, pixels)
    maps = torch.cat([capture(net, image[None], [layer])[layer] for image in pixels])
    torch.testing.assert_close(found.mean[layer], maps.double().mean((0, 2, 3)).float(), rtol=1e-3, atol=1e-4)


def test_optimised_classes_are_recognised(net: Classifier) -> None:
    found = Maximize("logit(goldfish)", steps=48, snapshots=0)(net)
    assert found.recognised.all()


def test_cifar10_is_in_order_on_the_map_and_by_units() -> None:
    if os.environ.get("SEEWHY_CIFAR10") is None and cached("cifar10") is None:
        pytest.skip("needs CIFAR-10: seewhy data get cifar10, or its path in SEEWHY_CIFAR10")
    net = zoo.load("cifar10-resnet20")
    images = cifar10(os.environ.get("SEEWHY_CIFAR10")).subset(slice(0, 600))
    mapped = CodeMap()(net, images)
    assert mapped.knn_map is not None
    assert mapped.knn_codes is not None
    assert mapped.knn_map >= mapped.knn_codes - 0.03
    assert mapped.knn_codes >= 0.85
    found = Exemplars(layers=(stages(net)[-1],), k=9)(net, images)
    assert found.purity[found.layer].median() >= 7 / 9  # nine images of one unit are mostly of one class
