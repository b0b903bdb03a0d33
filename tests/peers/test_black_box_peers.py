"""Black-box attacks beside those of Foolbox, torchattacks and ART, on the same CIFAR-10 images and queries."""

from __future__ import annotations

import math
import os

import pytest
import torch
from torch import Tensor

from benchmarks.black_box import CURVE, PEERS, Watched, art_zoo, images, quiet, reached, seed
from nets import DEVICE
from seewhy.attack import DBGE, ZOO, Boundary, Square
from seewhy.attack.base import size_of
from seewhy.classifier import Classifier
from seewhy.data.fetch import cached

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def there() -> None:
    if os.environ.get("SEEWHY_CIFAR10") is None and cached("cifar10") is None:
        pytest.skip("needs CIFAR-10: seewhy data get cifar10, or its path in SEEWHY_CIFAR10")


@pytest.fixture(scope="module")
def few() -> tuple[Classifier, Tensor, Tensor]:
    return images(4 if DEVICE == "cpu" else 40, DEVICE)


@pytest.fixture(scope="module")
def ours(few: tuple[Classifier, Tensor, Tensor]) -> Tensor:
    found = DBGE(queries=CURVE[-1], curve=CURVE)(*few)
    assert found.success[-2:].all()
    assert found.success_8bit[-1].all()
    return reached(found)[: len(CURVE)]


@pytest.mark.parametrize("peer", ["foolbox", "art"])
def test_dbge_is_nearer_than_hop_skip_jump_at_equal_queries(
    peer: str, few: tuple[Classifier, Tensor, Tensor], ours: Tensor
) -> None:
    pytest.importorskip(peer)
    net, pixels, labels = few
    if peer == "art":  # one image at a time
        pixels, labels, ours = pixels[:8], labels[:8], ours[:, :8]
    seed()
    theirs = PEERS[peer](Watched(net), pixels, labels, CURVE[-1])
    assert torch.isfinite(theirs[-1]).all()  # it did run
    print(ours.median(1).values, theirs.median(1).values)
    assert (ours.median(1).values <= theirs.median(1).values).all()


def test_boundary_is_nearer_than_foolboxs_at_equal_queries(few: tuple[Classifier, Tensor, Tensor]) -> None:
    pytest.importorskip("foolbox")
    from foolbox.attacks.boundary_attack import BoundaryAttack
    from foolbox.models.pytorch import PyTorchModel

    net, pixels, labels = few
    curve = (500, 1_000, 2_500)
    found = Boundary(queries=curve[-1], curve=curve)(net, pixels, labels)
    assert found.success[-2:].all()
    ours = reached(found)[: len(curve)]
    seed()
    module = Watched(net)
    module.watch(pixels, labels, curve[-1], curve)
    with quiet():
        model = PyTorchModel(module, bounds=(0, 1), device=module.mean.device)
        BoundaryAttack(steps=curve[-1])(model, module.originals, module.labels, epsilons=None)
    theirs = module.nearest.cpu()
    assert torch.isfinite(theirs[-1]).all()  # it did run
    print(ours.median(1).values, theirs.median(1).values)
    assert (ours.median(1).values <= theirs.median(1).values).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_fools_no_fewer_than_torchattacks_at_equal_queries(norm: str) -> None:
    """Which squares are drawn decides over an image or two in twenty: successes of three draws, within two deviations."""
    peer = pytest.importorskip("torchattacks")
    net, pixels, labels = images(25, DEVICE)
    queries, eps = 300, 4 / 255 if norm == "linf" else 2 / 255 * math.sqrt(pixels[0].numel())
    ours, other = 0, 0
    for number in range(3):
        found = Square(queries=queries, eps=(eps,), norm=norm, refine=0, seed=number)(net, pixels, labels)
        attack = peer.Square(Watched(net), norm=norm.capitalize(), eps=eps, n_queries=queries, seed=number)
        theirs = attack(pixels, labels).cpu()
        for each in (found.images[0], theirs):
            assert size_of(each - pixels, norm).max() <= 1.0001 * eps
        ours += int(found.success[0].sum())
        other += int((net.predict(theirs.clamp(0, 1)).argmax(1).cpu() != labels).sum())
    told = f"Square, {norm}, {queries} queries, successes of 75: {ours}; torchattacks {other}"
    print(told)
    assert 0 < other < 75
    share = (ours + other) / 150
    assert ours >= other - 2 * math.sqrt(2 * 75 * share * (1 - share)), told


@pytest.mark.parametrize("index", [21, 35])
def test_zoo_is_no_farther_than_arts_at_equal_queries(index: int) -> None:
    """On the two of the first forty images that lie nearest to the boundary, which ten turns of ART's fool."""
    pytest.importorskip("art")
    net, pixels, labels = images(index + 1, DEVICE)
    pixels, labels = pixels[-1:], labels[-1:]
    module = Watched(net)
    theirs = art_zoo(module, pixels, labels, turns=10).clamp(0, 1)
    assert (net.predict(theirs).argmax(1).cpu() != labels).all()
    found = ZOO(queries=module.asked)(net, pixels, labels)
    told = (
        f"ZOO, {module.asked} queries: {found.distances['l2'][-2:, 0].tolist()}; ART {float((theirs - pixels).norm())}"
    )
    print(told)
    assert found.success_8bit[-1].all()
    assert float(found.distances["l2"][-1]) <= float((theirs - pixels).norm()), told
