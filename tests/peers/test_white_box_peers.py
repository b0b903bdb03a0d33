"""Attacks with gradients beside Foolbox, torchattacks and ART: same net, images and budgets, judged in the same passes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nets import DEVICE
from seewhy.attack import APGD, FGSM, IFGSM, MIFGSM, PGD, Attack, DeepFool, WhiteBox
from seewhy.attack.base import size_of
from seewhy.classifier import Classifier
from seewhy.data.cifar10 import cifar10
from seewhy.data.fetch import cached
from seewhy.engine import Engine
from seewhy.zoo import load

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


#: how many of CIFAR-10's test images
TESTS = 1000


class OnPixels(nn.Module):
    """The network with its normalisation inside, as the peers want it."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.module = net.module
        self.mean, self.std = (torch.tensor(each, device=DEVICE).view(1, 3, 1, 1) for each in (net.mean, net.std))
        self.eval().requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.module((x.float() - self.mean) / self.std)


class Case(NamedTuple):
    """A network and images that it gets right; how many of them slow peers get; and a size at which some are fooled."""

    net: Classifier
    images: Tensor
    labels: Tensor
    few: int
    eps: float

    def smaller(self) -> Case:
        """The same with fewer images, for attacks of many steps; on a GPU all of them."""
        if DEVICE != "cpu":
            return self
        count = 200 if self.net.classes == 10 else 10
        return self._replace(images=self.images[:count], labels=self.labels[:count])


def right(net: Classifier, images: Tensor, labels: Tensor, few: int, eps: float) -> Case:
    good = net.predict(images).argmax(1).cpu() == labels
    return Case(net, images[good], labels[good], few, eps)


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    """On a GPU the peers, too, have float32 that is float32."""
    with Engine(torch.device(DEVICE)).exact():
        yield


@pytest.fixture(scope="module", params=["cifar10-resnet20", "efficientnet-lite0"])
def case(request: pytest.FixtureRequest) -> Case:
    net = load(request.param, device=DEVICE)
    if request.param == "cifar10-resnet20":
        root = os.environ.get("SEEWHY_CIFAR10")
        if root is None and cached("cifar10") is None:
            pytest.skip("needs CIFAR-10: seewhy data get cifar10, or its path in SEEWHY_CIFAR10")
        tests = cifar10(root, "test").aligned(net.labels)
        read = tests.images(range(TESTS), net.preprocess)
        assert read.labels is not None
        return right(net, read.pixels, read.labels, 40, 0.5 / 255)
    shared: Path = request.getfixturevalue("shared")
    files = sorted((shared / "imagenet-photos").glob("*.JPEG"))[::8]
    labels = torch.tensor([int(file.name[:4]) for file in files])
    return right(net, net.read(*files).pixels, labels, 3, 0.25 / 255)


def foolbox(case: Case, name: str, eps: float | None = None, **settings: Any) -> Callable[[Tensor, Tensor], Tensor]:
    peer: Any = pytest.importorskip("foolbox")
    box = peer.PyTorchModel(OnPixels(case.net), bounds=(0, 1), device=DEVICE)
    attack = getattr(peer.attacks, name)(**settings)
    words = {} if eps is None else {"epsilon": eps}
    return lambda images, labels: attack.run(box, images.to(DEVICE), labels.to(DEVICE), **words).cpu()


def torchattacks(case: Case, name: str, **settings: Any) -> Callable[[Tensor, Tensor], Tensor]:
    peer: Any = pytest.importorskip("torchattacks")
    attack = getattr(peer, name)(OnPixels(case.net), **settings)
    return lambda images, labels: attack(images, labels).detach().cpu()


def art(case: Case, name: str, **settings: Any) -> Callable[[Tensor, Tensor], Tensor]:
    estimators: Any = pytest.importorskip("art.estimators.classification")
    attacks: Any = pytest.importorskip("art.attacks.evasion")
    estimator = estimators.PyTorchClassifier(
        OnPixels(case.net),
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, *case.net.size),
        nb_classes=case.net.classes,
        clip_values=(0, 1),
        device_type="cpu" if DEVICE == "cpu" else "gpu",
    )
    kind = getattr(attacks, name)
    quiet = {"verbose": False} if "verbose" in kind.attack_params else {}
    attack = kind(estimator, **quiet, **settings)
    return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


def not_worse(
    case: Case, attack: Attack[WhiteBox], peers: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]]
) -> None:
    """Success not lower, mean size not larger by more than 2 %, than each peer's on the images that it gets; failures are in."""
    found = attack(case.net, case.images, case.labels)
    for name, (peer, count) in peers.items():
        images, labels = case.images[:count], case.labels[:count]
        theirs = torch.cat([peer(images[i : i + 50], labels[i : i + 50]) for i in range(0, len(images), 50)])
        fooled = case.net.predict(theirs.clamp(0, 1)).argmax(1).cpu() != labels
        ours = (
            found.success[0, :count].float().mean(),
            size_of(found.images[0] - case.images, attack.norm)[:count].mean(),
        )
        other = fooled.float().mean(), size_of(theirs - images, attack.norm).mean()
        told = f"{attack.spec}, {len(images)} images, success and mean size: {ours}; {name} {other}"
        print(told)
        assert ours[0] >= other[0], told
        assert ours[1] <= 1.02 * other[1], told


def test_fgsm(case: Case) -> None:
    everyone, eps = len(case.images), case.eps
    not_worse(
        case,
        FGSM(eps=(eps,), refine=0),
        {
            "Foolbox": (foolbox(case, "LinfFastGradientAttack", eps), everyone),
            "torchattacks": (torchattacks(case, "FGSM", eps=eps), everyone),
            "ART": (art(case, "FastGradientMethod", eps=eps), everyone),
        },
    )


def test_fgm_in_l2(case: Case) -> None:
    everyone, eps = len(case.images), case.eps * math.sqrt(case.images[0].numel())
    not_worse(
        case,
        FGSM(eps=(eps,), norm="l2", refine=0),
        {
            "Foolbox": (foolbox(case, "L2FastGradientAttack", eps), everyone),
            "ART": (art(case, "FastGradientMethod", norm=2, eps=eps), everyone),
        },
    )


def test_mi_fgsm(case: Case) -> None:
    case = case.smaller()
    everyone, eps = len(case.images), case.eps
    not_worse(
        case,
        MIFGSM(eps=(eps,), steps=10, step=0.1, refine=0),
        {
            "Foolbox": (
                foolbox(case, "LinfMomentumIterativeFastGradientMethod", eps, rel_stepsize=0.1, steps=10),
                everyone,
            ),
            "torchattacks": (torchattacks(case, "MIFGSM", eps=eps, alpha=eps / 10, steps=10), everyone),
            "ART": (art(case, "MomentumIterativeMethod", eps=eps, eps_step=eps / 10, max_iter=10), everyone),
        },
    )


@pytest.mark.parametrize("case", ["cifar10-resnet20"], indirect=True)
@pytest.mark.parametrize(("norm", "loss"), [("linf", "ce"), ("linf", "dlr"), ("l2", "dlr")])
def test_auto_pgd(case: Case, norm: str, loss: str) -> None:
    """Starts drawn by chance decide over an image or two in forty: successes of three draws together, within 5 %.

    Where the peer fools nothing it answers the image as it was, so that mean sizes say nothing: none is beyond ε.
    """
    images, labels = case.images[:100], case.labels[:100]
    eps = case.eps if norm == "linf" else case.eps * math.sqrt(images[0].numel())
    ours, other = 0, 0
    for seed in range(3):
        found = APGD(eps=(eps,), norm=norm, loss=loss, steps=20, seed=seed)(case.net, images, labels)
        peer = torchattacks(case, "APGD", norm=norm.capitalize(), eps=eps, steps=20, loss=loss, seed=seed)
        theirs = peer(images, labels)
        for each in (found.images[0], theirs):
            assert size_of(each - images, norm).max() <= 1.0001 * eps
        ours += int(found.success.sum())
        other += int((case.net.predict(theirs.clamp(0, 1)).argmax(1).cpu() != labels).sum())
    told = f"Auto-PGD, {norm}, {loss}, successes of 300: {ours}; torchattacks {other}"
    print(told)
    assert ours >= 0.95 * other, told


def test_pgd(case: Case) -> None:
    everyone, eps = len(case.images), case.eps
    not_worse(
        case,
        PGD(eps=(eps,), steps=10, step=0.25, refine=0),
        {
            "Foolbox": (foolbox(case, "LinfPGD", eps, rel_stepsize=0.25, steps=10), everyone),
            "torchattacks": (torchattacks(case, "PGD", eps=eps, alpha=eps / 4, steps=10), everyone),
            "ART": (
                art(case, "ProjectedGradientDescent", eps=eps, eps_step=eps / 4, max_iter=10, num_random_init=1),
                everyone,
            ),
        },
    )


def test_bim(case: Case) -> None:
    everyone, eps = len(case.images), case.eps
    not_worse(
        case,
        IFGSM(eps=(eps,), steps=10, step=0.2, refine=0),
        {
            "Foolbox": (foolbox(case, "LinfBasicIterativeAttack", eps, rel_stepsize=0.2, steps=10), everyone),
            "torchattacks": (torchattacks(case, "BIM", eps=eps, alpha=eps / 5, steps=10), everyone),
            "ART": (art(case, "BasicIterativeMethod", eps=eps, eps_step=eps / 5, max_iter=10), everyone),
        },
    )


def test_deepfool_l2(case: Case) -> None:
    peers = {"Foolbox": (foolbox(case, "L2DeepFoolAttack", candidates=10), len(case.images))}
    if case.net.classes == 10:  # with a thousand classes these two take minutes an image
        peers["torchattacks"] = (torchattacks(case, "DeepFool", steps=50, overshoot=0.02), case.few)
        peers["ART"] = (art(case, "DeepFool", max_iter=50, epsilon=0.02, nb_grads=10), case.few)
    not_worse(case, DeepFool(norm="l2", candidates=10), peers)


def test_deepfool_linf(case: Case) -> None:
    not_worse(
        case,
        DeepFool(norm="linf", candidates=10),
        {"Foolbox": (foolbox(case, "LinfDeepFoolAttack", candidates=10), len(case.images))},
    )
