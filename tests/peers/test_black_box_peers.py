"""DBGE beside the HopSkipJump of Foolbox and ART, and ZOO beside ART's, on the same CIFAR-10 images and queries."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from benchmarks.black_box import CURVE, PEERS, Watched, art_zoo, images, reached
from nets import DEVICE
from seewhy.attack import DBGE, ZOO
from seewhy.classifier import Classifier
from seewhy.data.fetch import cached

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def few() -> tuple[Classifier, Tensor, Tensor]:
    if os.environ.get("SEEWHY_CIFAR10") is None and cached("cifar10") is None:
        pytest.skip("needs CIFAR-10: seewhy data get cifar10, or its path in SEEWHY_CIFAR10")
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
    torch.manual_seed(0)
    theirs = PEERS[peer](Watched(net), pixels, labels, CURVE[-1])
    assert torch.isfinite(theirs[-1]).all()  # it did run
    print(ours.median(1).values, theirs.median(1).values)
    assert (ours.median(1).values <= theirs.median(1).values).all()


def test_zoo_fools_no_less_and_is_no_farther_than_arts(few: tuple[Classifier, Tensor, Tensor]) -> None:
    pytest.importorskip("art")
    net, pixels, labels = few
    pixels, labels = pixels[:1], labels[:1]
    theirs = art_zoo(Watched(net), pixels, labels).clamp(0, 1)
    found = ZOO()(net, pixels, labels)
    assert found.success[-2].all()
    if bool((net.predict(theirs).argmax(1).cpu() != labels).all()):
        assert float(found.distances["l2"][-2]) <= float((theirs - pixels).norm())
