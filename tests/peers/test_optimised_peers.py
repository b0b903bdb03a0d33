"""Carlini & Wagner, L-BFGS and JSMA beside Foolbox, torchattacks and ART, on CIFAR-10's test images."""

from __future__ import annotations

import os
from functools import partial

import pytest
from torch import Tensor

from benchmarks.optimised import Outcome, Peers, judged, ours, rightly
from nets import DEVICE
from seewhy.attack import JSMA, LBFGS, CarliniWagner
from seewhy.classifier import Classifier
from seewhy.data.fetch import cached
from seewhy.zoo import load

#: how many of the test images; on a GPU a thousand take a minute: SEEWHY_TEST_DEVICE=cuda python -m pytest tests/peers
MANY = 24 if DEVICE == "cpu" else 1000
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def net() -> Classifier:
    return load("cifar10-resnet20", device=DEVICE)


@pytest.fixture(scope="module")
def images(net: Classifier) -> tuple[Tensor, Tensor]:
    if os.environ.get("SEEWHY_CIFAR10") is None and cached("cifar10") is None:
        pytest.skip("needs CIFAR-10: seewhy data get cifar10, or its path in SEEWHY_CIFAR10")
    return rightly(net, MANY)


def not_worse(found: Outcome, theirs: Outcome) -> None:
    print(found, theirs)
    assert found.success >= theirs.success
    assert found.l2 <= 1.02 * theirs.l2


def test_carlini_wagner_comes_as_near_as_foolbox_and_torchattacks(
    net: Classifier, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    peers = Peers(net)
    pytest.importorskip("foolbox")
    pytest.importorskip("torchattacks")
    found = judged(net, x, y, None, partial(ours, CarliniWagner(searches=5, steps=100), net, x, y))
    for peer in (partial(peers.foolbox, searches=5, steps=100), partial(peers.torchattacks, c=0.1, steps=100)):
        not_worse(found, judged(net, x, y, None, partial(peer, x, y)))


def test_carlini_wagner_comes_as_near_as_art(net: Classifier, images: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("art")
    x, y = (each[:4] for each in images)
    found = judged(net, x, y, None, partial(ours, CarliniWagner(), net, x, y))
    theirs = judged(net, x, y, None, partial(Peers(net).art, x, y, searches=10, steps=10))
    not_worse(found, theirs)


def test_carlini_wagner_towards_a_class_comes_as_near_as_foolbox(
    net: Classifier, images: tuple[Tensor, Tensor]
) -> None:
    pytest.importorskip("foolbox")
    x, y = (each[:8] for each in images)
    target = (y + 1) % 10
    found = judged(net, x, y, target, partial(ours, CarliniWagner(searches=5, steps=100), net, x, y, target))
    theirs = judged(net, x, y, target, partial(Peers(net).foolbox, x, y, searches=5, steps=100, target=target))
    not_worse(found, theirs)


def test_lbfgs_comes_as_near_as_foolboxs_carlini_wagner(net: Classifier, images: tuple[Tensor, Tensor]) -> None:
    """No peer has L-BFGS."""
    pytest.importorskip("foolbox")
    x, y = images
    found = judged(net, x, y, None, partial(ours, LBFGS(), net, x, y))
    theirs = judged(net, x, y, None, partial(Peers(net).foolbox, x, y, searches=5, steps=200))
    not_worse(found, theirs)


def test_jsma_fools_as_many_as_art_and_torchattacks(net: Classifier, images: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("art")
    pytest.importorskip("torchattacks")
    peers = Peers(net)
    x, y = images
    target = (y + 1) % 10  # the only one that torchattacks has without being asked
    found = judged(net, x, y, target, partial(ours, JSMA(), net, x, y, target))
    theirs = judged(net, x, y, target, partial(peers.art_jsma, x, target, len(x)))
    assert found.success >= theirs.success
    one, label, towards = x[:1], y[:1], target[:1]
    found = judged(net, one, label, towards, partial(ours, JSMA(), net, one, label, towards))
    theirs = judged(net, one, label, towards, partial(peers.torchattacks_jsma, one, label))
    assert found.success >= theirs.success
    assert abs(found.pixels - theirs.pixels) <= 0.002  # the same map from the full Jacobian and a table of all pairs
