"""The pixel contract: values against the module alone, and a module that is left as it was found."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.classifier import Classifier
from seewhy.data.images import Images, Preprocess
from seewhy.engine import Engine, Meter
from seewhy.errors import InputError, ModelError, NothingToExplain

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
NAMES = ["tabby, tabby cat", "tiger cat", "Cardigan", "cardigan"]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 36, 4),
    )


@pytest.fixture
def net() -> Classifier:
    return Classifier(small(), mean=MEAN, std=STD, size=8, labels=NAMES)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def normalised(images: Tensor) -> Tensor:
    return torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)


def state(module: nn.Module) -> dict[str, Any]:
    """Everything of a module that a call could leave changed."""
    return {
        "modes": [each.training for each in module.modules()],
        "flags": [parameter.requires_grad for parameter in module.parameters()],
        "grads": [parameter.grad for parameter in module.parameters()],
        "values": [tensor.tolist() for tensor in module.state_dict().values()],
        "strides": [tensor.stride() for tensor in module.state_dict().values()],
        "hooks": [
            len(hooks)
            for each in module.modules()
            for hooks in (each._forward_hooks, each._forward_pre_hooks, each._backward_hooks, each._backward_pre_hooks)
        ],
    }


def channels_last(module: nn.Sequential) -> nn.Sequential:
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def mixed() -> nn.Sequential:
    """A module in a state that nobody would guess: part in training, part frozen, a hook of its owner's."""
    module = small()
    module[1].eval()
    module[0].requires_grad_(False)
    module[2].register_forward_hook(lambda *_: None)
    return module


# Values


def test_logits_are_the_modules_own_on_normalised_pixels(net: Classifier, images: Tensor) -> None:
    torch.testing.assert_close(net.logits(images), small().eval()(normalised(images)), rtol=1e-5, atol=1e-6)


def test_predict_equals_singles_and_carries_no_gradient(net: Classifier, images: Tensor) -> None:
    together = net.predict(Images(images))
    assert not together.requires_grad
    torch.testing.assert_close(together, torch.cat([net.predict(image[None]) for image in images]))


def test_gradient_is_autograds(net: Classifier, images: Tensor) -> None:
    target = torch.tensor([0, 1, 2, 3, 0])
    scores, gradients = net.gradient(images, lambda logits, where: logits.gather(1, target[where, None])[:, 0])
    leaf = images.clone().requires_grad_()
    expected = small().eval()(normalised(leaf)).gather(1, target[:, None])[:, 0]
    expected.sum().backward()
    torch.testing.assert_close(scores, expected.detach())
    torch.testing.assert_close(gradients, leaf.grad)


@pytest.mark.parametrize("batch", [1, 2, 3, None])
def test_gradient_in_batches_keeps_order(net: Classifier, batch: int | None) -> None:
    images = torch.rand(37, 3, 8, 8)
    net.engine = Engine(batch=batch)
    scores, gradients = net.gradient(images, lambda logits, where: logits[:, 0] * torch.arange(37)[where])
    net.engine = Engine(batch=37)
    expected, whole = net.gradient(images, lambda logits, where: logits[:, 0] * torch.arange(37)[where])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, whole, rtol=1e-4, atol=1e-5)


def test_passes_are_counted(net: Classifier, images: Tensor) -> None:
    with Meter() as meter:
        net.predict(images)
        net.gradient(images, lambda logits, _: logits[:, 0])
    assert (meter.cost.forward, meter.cost.backward) == (10, 5)


class Answer(NamedTuple):
    """As torchvision's Inception answers."""

    logits: Tensor
    aux: Tensor


class Turned(NamedTuple):
    aux: Tensor
    logits: Tensor


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    "dress",
    [
        lambda z: (z, z * 0),
        lambda z: [z],
        lambda z: {"aux": z * 0, "logits": z},
        lambda z: {"out": z, "aux": z * 0},
        lambda z: {"scores": z},
        lambda z: OrderedDict(logits=z, loss=None),
        lambda z: Answer(z, z * 0),
        lambda z: Turned(z * 0, z),
        Output,
        lambda z: z[:, :, None, None],
    ],
)
def test_wrapped_answers_are_unwrapped(dress: Any, images: Tensor) -> None:
    class Dressed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = small()

        def forward(self, x: Tensor) -> Any:
            return dress(self.inside(x))

    net = Classifier(Dressed(), size=8)
    torch.testing.assert_close(net.logits(images), small().eval()(images), rtol=1e-5, atol=1e-6)


def test_fingerprint_knows_values_and_not_layout() -> None:
    plain, same = Classifier(small(), size=8), Classifier(channels_last(small()), size=8)
    other = small()
    with torch.no_grad():
        other[5].bias[0] += 1e-6  # type: ignore[operator, index]
    assert plain.fingerprint == same.fingerprint
    assert plain.fingerprint != Classifier(other, size=8).fingerprint


# What is left behind


@pytest.mark.parametrize("call", ["logits", "predict", "gradient", "construct", "targets"])
def test_the_module_is_left_as_it_was(call: str, images: Tensor) -> None:
    module = mixed()
    before = state(module)
    net = Classifier(module, size=8, check=call == "construct")
    calls: dict[str, Any] = {
        "logits": lambda: torch.autograd.backward(net.logits(images.clone().requires_grad_()).sum()),
        "predict": lambda: net.predict(images),
        "gradient": lambda: net.gradient(images, lambda logits, _: logits[:, 0]),
        "construct": lambda: None,
        "targets": lambda: net.targets(None, images),
    }
    kept = images.clone()
    calls[call]()
    assert state(module) == before
    assert torch.equal(images, kept)
    assert images.grad is None


def test_the_module_is_left_as_it_was_after_exceptions(images: Tensor) -> None:
    module = mixed()
    net = Classifier(module, size=8)
    before = state(module)

    def fails(*_: Any) -> Tensor:
        raise KeyError("in the score")

    with pytest.raises(KeyError):
        net.gradient(images, fails)
    with pytest.raises(RuntimeError):
        net.logits(torch.rand(1, 3, 9, 9))  # the linear layer does not fit
    with pytest.raises(KeyboardInterrupt), net.session():
        raise KeyboardInterrupt
    assert state(module) == before
    assert net._depth == 0


def test_inside_a_session_it_is_frozen_and_sessions_nest() -> None:
    module = mixed()
    net = Classifier(module, size=8)
    before = state(module)
    with net.session():
        with net.session():
            pass
        assert not any(each.training for each in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
    assert state(module) == before


def test_eval_overrides_are_not_called() -> None:
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = small()

        def train(self, mode: bool = True) -> Fragile:
            raise RuntimeError("exported programs forbid this")

        def forward(self, x: Tensor) -> Any:
            return self.inside(x)

    Classifier(Fragile(), size=8)


def test_threads_share_a_net(net: Classifier, images: Tensor) -> None:
    module = net.module
    before, expected = state(module), net.predict(images)
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(net.predict(images))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(each, expected) for each in found)
    assert len(found) == 8
    assert state(module) == before


def test_channels_last_modules_keep_their_layout(images: Tensor) -> None:
    module = channels_last(small())
    before = state(module)
    net = Classifier(module, size=8)
    assert net.normalise(images).is_contiguous(memory_format=torch.channels_last)
    assert state(module) == before
    torch.testing.assert_close(net.logits(images), small().eval()(images), rtol=1e-5, atol=1e-6)


# What bad input gets


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (torch.full((1, 3, 8, 8), 200.0), "divide by 255"),
        (torch.full((1, 3, 8, 8), -1.0), "normalises inside itself"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "divide by 255"),
        (torch.zeros(1, 1, 8, 8), r"\(N, 3, H, W\)"),
        (torch.zeros(3, 8, 8), r"\(N, 3, H, W\)"),
        (torch.zeros(0, 3, 8, 8), "at least one image"),
        (np.zeros((1, 3, 8, 8)), "ndarray"),
    ],
)
def test_pixels_out_of_contract(net: Classifier, pixels: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        net.predict(pixels)


def test_targets(net: Classifier, images: Tensor) -> None:
    assert net.targets(2, images).tolist() == [2] * 5
    assert net.targets("Tiger Cat", images).tolist() == [1] * 5
    assert net.targets("tabby", images).tolist() == [0] * 5
    assert net.targets([0, "tiger cat", "3", 1, 0], images).tolist() == [0, 1, 3, 1, 0]
    assert net.targets(torch.tensor([3, 2, 1, 0, 3]), images).tolist() == [3, 2, 1, 0, 3]
    assert net.targets(torch.tensor(2), images).tolist() == [2] * 5
    assert net.targets(np.int64(2), images).tolist() == [2] * 5  # type: ignore[arg-type]
    assert net.targets(np.array([3, 2, 1, 0, 3]), images).tolist() == [3, 2, 1, 0, 3]  # type: ignore[arg-type]
    assert net.targets(None, Images(images)).tolist() == net.predict(images).argmax(1).tolist()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (4, "from 0 to 3, got 4"),
        (-1, "from 0 to 3"),
        ("tigr cat", 'did you mean "tiger cat"'),
        ("taby", 'did you mean "tabby"'),
        ("CARDIGAN", "several classes.*2 or 3"),
        ([0, 1], "each of the 5 images, got 2"),
        (1.5, "index or name, got 1.5"),
        (torch.tensor([0.5] * 5), "index or name, got 0.5"),
        ([], "each of the 5 images, got 0"),
    ],
)
def test_targets_that_are_none(net: Classifier, images: Tensor, target: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        net.targets(target, images)


def test_exact_names_count_before_case_and_digits() -> None:
    net = Classifier(small(), size=8, labels=["3", "2", "Cat", "cat"])
    assert [net.index(each) for each in ("3", "2", "Cat", "cat", "1", 2)] == [0, 1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "size=224"),
        ({"size": 8, "std": (0.0, 1.0, 1.0)}, "positive deviations"),
        ({"size": 8, "mean": (0.5,)}, "three means"),
    ],
)
def test_what_it_is_made_of(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Classifier(small(), **words)
    with pytest.raises(ModelError, match=r"torch\.nn\.Module, got function"):
        Classifier(lambda x: x, size=8)  # type: ignore[arg-type]


def test_a_cut_gradient_is_no_zero() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    net = Classifier(nn.Sequential(Cut(), *small()), size=8)
    with pytest.raises(NothingToExplain, match="does not depend on its input"):
        net.gradient(torch.rand(1, 3, 8, 8), lambda logits, _: logits[:, 0])


def test_repr_says_what_it_is(net: Classifier) -> None:
    assert repr(net) == "Classifier('Sequential', 8×8, 4 classes, 1,048 parameters)"
    assert Classifier(small(), preprocess=Preprocess((8, 8), 10)).labels[3] == "class 3"
