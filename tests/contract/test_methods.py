"""What every registered method must keep, whoever wrote it: a new one is tested here by being registered."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from answers import call, values
from nets import DEVICE, FAMILIES, SPELLINGS, Spelled, classifier, made, photos
from seewhy.classifier import Classifier
from seewhy.errors import InputError, SeewhyError, SpecError
from seewhy.method import Method, from_json, parse, registry

METHODS = sorted(registry())
ON_IMAGES = [
    name
    for name in METHODS
    if registry()[name].room in ("explain", "attack") or name in ("activations", "deepdream", "invert")
]
# every method on every family would be the whole product; each method meets four families, each family every second method
PAIRS = [(name, family) for i, name in enumerate(METHODS) for j, family in enumerate(FAMILIES) if (i + j) % 2 == 0]


def state(net: Classifier) -> dict[str, Any]:
    """All that a method must leave as it was."""
    modules = list(net.module.modules())
    return {
        "modes": [module.training for module in modules],
        "flags": [parameter.requires_grad for parameter in net.module.parameters()],
        "gradients": [parameter.grad is None for parameter in net.module.parameters()],
        "hooks": [
            (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for module in modules
        ],
        "global hooks": len(torch.nn.modules.module._global_forward_hooks)
        + len(torch.nn.modules.module._global_forward_pre_hooks),
        "tensors": {key: value.clone() for key, value in net.module.state_dict().items()},
        "random": (torch.get_rng_state().tolist(), np.random.get_state(legacy=False)["state"]["key"].tolist()),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in before.items():
        if key == "tensors":
            for name, tensor in value.items():
                assert torch.equal(tensor, after[key][name]), name
        else:
            assert value == after[key], key


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_leaves_everything_as_it_was_and_is_finite(name: str, family: str) -> None:
    net, images = classifier(FAMILIES[family]()), photos()
    before, pixels = state(net), images.clone()
    assert all(before["modes"])  # as a user may leave it; the self-test has left it so too
    assert all(before["flags"])
    found = call(made(name), net, images)
    assert_same(before, state(net))
    assert torch.equal(images, pixels)
    for each in values(found):
        assert torch.isfinite(each).all()
    assert isinstance(found.notes, tuple)
    forward, backward = made(name).passes
    assert 1 <= found.cost.forward <= forward * len(images) + 1  # the one in which a network is first seen
    assert found.cost.backward <= backward * len(images)
    assert found.cost.seconds > 0


@pytest.mark.parametrize("name", METHODS)
def test_results_are_kept_in_an_open_file_and_shown_in_a_notebook(name: str, tmp_path: Path) -> None:
    found = call(made(name), classifier(FAMILIES["mobilenet"]()), photos())
    found.save(tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as held:
        about = json.loads(str(held["about"]))
        tensors = {field.name for field in dataclasses.fields(found) if isinstance(getattr(found, field.name), Tensor)}
        for field in tensors:
            assert np.array_equal(held[field], getattr(found, field).numpy()), field
        assert {field.name for field in dataclasses.fields(found)} <= {
            key.partition(".")[0] for key in (*about, *held.files)
        } | {"measures"}
    assert about["method"] == made(name).spec
    assert about["cost"]["forward"] == found.cost.forward
    if made(name).room == "look":
        json.dumps(found.facts(), allow_nan=False)
    assert found._repr_html_().startswith(f'<img alt="{made(name).spec}" src="data:image/png;base64,')


class Breaking(nn.Module):
    """Fails in the middle of a pass after a number of good ones."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.inner = Spelled("in-place")
        self.good = good

    def forward(self, x: Tensor) -> Tensor:
        self.good -= 1
        x = self.inner.conv1(x)
        if self.good < 0:
            raise RuntimeError("broken in the middle")
        return self.inner.fc(torch.relu(x).mean((2, 3)).repeat(1, 4))


def _several(method: Method, net: Classifier) -> None:
    for _ in range(3):
        call(method, net, photos())


@pytest.mark.parametrize("name", METHODS)
def test_leaves_everything_as_it_was_after_an_exception(name: str) -> None:
    net = classifier(Breaking(good=1_000_000))
    for good in (0, 1):
        net.module.good = good  # type: ignore[assignment]
        before = state(net)
        with pytest.raises(RuntimeError, match="broken in the middle"):
            _several(made(name), net)
        assert_same(before, state(net))


@pytest.mark.parametrize("name", ON_IMAGES)
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(3)
    together = values(call(made(name), net, images))
    for index in range(3):
        alone = values(call(made(name), net, images[index : index + 1]))
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_[index], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_batch_size_changes_nothing(name: str) -> None:
    images = photos(3)
    found = []
    for batch in (1, 2, None):
        net = classifier(FAMILIES["densenet"]())
        net.engine.batch = batch
        found.append(values(call(made(name), net, images)))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_answer(name: str) -> None:
    net, images = classifier(FAMILIES["resnet"]()), photos()
    first = values(call(made(name), net, images))
    torch.rand(7)
    again = values(call(made(name), net, images))
    for one, two in zip(first, again, strict=True):
        if DEVICE == "cpu":
            assert torch.equal(one, two)
        else:  # a GPU adds up the gradients of what was enlarged or turned in any order
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_net_in_six_spellings_gives_the_same_answer(name: str) -> None:
    images = photos()
    found = [values(call(made(name), classifier(Spelled(spelling)), images)) for spelling in SPELLINGS]
    for spelling, other in zip(SPELLINGS[1:], found[1:], strict=True):
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6, msg=spelling)


@pytest.mark.parametrize("name", METHODS)
def test_spec_json_pickle_and_hash_go_round(name: str) -> None:
    plain = parse(name)
    assert plain.spec == name
    assert dataclasses.is_dataclass(plain)
    assert hash(plain) == hash(parse(name))
    changed: dict[str, Callable[[Any], Any]] = {
        "int": lambda value: value + 1,
        "float": lambda value: value / 2 or 0.5,
        "bool": lambda value: not value,
    }
    for field in dataclasses.fields(plain):
        value = getattr(plain, field.name)
        if type(value).__name__ not in changed:
            continue
        other = dataclasses.replace(plain, **{field.name: changed[type(value).__name__](value)})
        for copy in (parse(other.spec), from_json(other.to_json()), pickle.loads(pickle.dumps(other))):
            assert copy == other
            assert copy.spec == other.spec
        assert other != plain
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.nothing = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", METHODS)
def test_says_what_it_shows_and_where_it_is_from(name: str) -> None:
    cls = registry()[name]
    assert cls.shows
    assert cls.reading
    assert cls.source
    assert cls.__doc__
    assert "Cost" in cls.__doc__


BAD: dict[str, tuple[Any, str]] = {
    "0 to 255": (photos() * 255, "divide by 255"),
    "normalised": (photos() * 4 - 2, "normalises inside"),
    "not a number": (photos() * float("nan"), r"\[0, 1\]"),
    "three dimensions": (photos()[0], r"\(N, 3, H, W\)"),
    "one channel": (photos()[:, :1], r"\(N, 3, H, W\)"),
    "integers": ((photos() * 255).byte(), "divide by 255"),
    "none": (photos()[:0], "at least one"),
    "an array": (photos().numpy(), "tensor"),
}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        (n, b)
        for n, b in itertools.product(ON_IMAGES, BAD)
        if n in ("gradient", "fgsm", "activations") or b == "0 to 255"
    ],
)
def test_refuses_images_outside_the_contract(name: str, bad: str) -> None:
    images, words = BAD[bad]
    with pytest.raises(InputError, match=words):
        call(made(name), classifier(FAMILIES["resnet"]()), images)


def test_every_error_is_one_of_ours_and_one_sentence() -> None:
    for spec, words in {
        "gradeint": 'did you mean "gradient"',
        "smoothgrad:sample=3": 'did you mean "samples"',
        "smoothgrad:samples=many": "whole number",
        "fgsm:eps=8/0": "number",
        "smoothgrad:samples": 'no option "samples"|did you mean',
        "smoothgrad:samples=0": "samples ≥ 1",
        "integrated-gradients:baseline=pink": "black, white",
        "filters:view=upside-down": "colour",
    }.items():
        with pytest.raises(SpecError, match=words) as caught:
            parse(spec)
        assert isinstance(caught.value, SeewhyError)
        assert "\n" not in str(caught.value)


def test_target_by_name_index_and_nearest_name() -> None:
    net, images = classifier(FAMILIES["resnet"]()), photos()
    gradient = parse("gradient")
    by_name, by_index = gradient(net, images, "Cat"), gradient(net, images, 2)
    assert torch.equal(by_name.values, by_index.values)
    assert by_name.labels == ("cat", "cat")
    each = gradient(net, images, ["cat", 0])
    assert each.target.tolist() == [2, 0]
    assert torch.equal(each.values[0], by_index.values[0])
    with pytest.raises(InputError, match='did you mean "cat"'):
        gradient(net, images, "catt")
    with pytest.raises(InputError, match="0 to 4"):
        gradient(net, images, 9)
    with pytest.raises(InputError, match="one for each of the 2"):
        gradient(net, images, [1, 2, 3])
