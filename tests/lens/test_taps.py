"""Capturing by plain hooks: to the bit what the lens keeps and what copies made at the time hold, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks

from families import SPELLINGS as SPELLINGS_OF_TWELVE
from families import TWELVE, family, pictures
from nets import FAMILIES, SPELLINGS, Spelled, classifier, photos
from seewhy.classifier import Classifier
from seewhy.lens import capture
from seewhy.lens.capture import _HABITS, Capture
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call, tensors


def by_lens(net: Classifier, images: Tensor) -> dict[str, Tensor]:
    lens = Capture(net.module)
    with torch.no_grad():
        net.logits(images, lambda: lens)
    return lens.kept


@contextmanager
def copies(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A copy of each module's output, made when it returns."""
    kept: dict[str, Tensor] = {}
    paths = {child: path for path, child in module.named_modules()}

    def keep(child: nn.Module, _: object, result: object) -> None:
        first = next(tensors(result), None)
        if child in paths and first is not None:
            path, again = paths[child], 1
            while (path if again == 1 else f"{path}@{again}") in kept:
                again += 1
            kept[path if again == 1 else f"{path}@{again}"] = first.clone()

    handle = hooks.register_module_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def by_copies(net: Classifier, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad(), copies(net.module) as kept:
        net.logits(images)
    return kept


def state(module: nn.Module) -> list[object]:
    return [
        (path, child.training, dict(child._forward_hooks), getattr(child, "inplace", None), sorted(child.__dict__))
        for path, child in module.named_modules()
    ] + [dict(hooks._global_forward_hooks), dict(hooks._global_forward_pre_hooks)]


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for address, tensor in expected.items():
        assert not found[address].requires_grad
        assert torch.equal(found[address], tensor), address


def agrees(net: Classifier, images: Tensor, *, hooked: bool = True) -> None:
    """Captures one after the other are what the lens and what copies say; in the end by hooks, or else by the lens."""
    before = state(net.module)
    expected = by_copies(net, images)
    same(by_lens(net, images), expected)
    for _ in range(4):
        same(capture(net, images), expected)
    assert state(net.module) == before
    assert _HABITS[net].hooks == hooked
    same(by_copies(net, images), expected)  # and the network is as it was


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    agrees(classifier(Spelled(spelling)), photos())


@pytest.mark.parametrize("name", FAMILIES)
def test_small_families(name: str) -> None:
    agrees(classifier(FAMILIES[name]()), photos())


TWO = [(name, None) for name in ("resnet", "mobilenet")]
PRODUCT = [(name, spelling) for name in TWELVE for spelling in (None, *SPELLINGS_OF_TWELVE)]


@pytest.mark.parametrize(
    ("name", "spelling"),
    [*TWO, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PRODUCT if pair not in TWO)],
)
def test_families(name: str, spelling: str | None) -> None:
    pytest.importorskip("torchvision")
    agrees(family(name, spelling), pictures(name))


class Net(nn.Module):
    """A convolution, something in the middle that a function of the network and the map does, and a last layer."""

    conv: nn.Module
    norm: nn.Module
    relu: Any
    several: nn.Module
    nothing: nn.Module
    tripping: bool

    def __init__(self, middle: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.middle = middle
        self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 5)
        self.relu, self.drop, self.same, self.flat = (
            nn.ReLU(True),
            nn.Dropout(inplace=True),
            nn.Identity(),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self, self.norm(self.conv(x)))
        return self.fc(x.flatten(2).mean(2))


def ignored(net: Net, x: Tensor) -> Tensor:
    net.relu(x)
    return x


def ignored_forward(net: Net, x: Tensor) -> Tensor:
    net.relu.forward(x)
    return x


def ignored_function(net: Net, x: Tensor) -> Tensor:
    F.relu(x, inplace=net.relu.inplace)
    return x


def named(net: Net, x: Tensor) -> Tensor:
    net.relu(input=x)
    return x


def twice(net: Net, x: Tensor) -> Tensor:
    return net.relu(net.norm(net.relu(x) - 1))


def thrice_in_place(net: Net, x: Tensor) -> Tensor:
    net.relu(x)
    x -= 0.1
    net.relu(x)
    net.drop(x)
    return net.same(x)


def viewed(net: Net, x: Tensor) -> Tensor:
    net.relu(x.view(len(x), 6, -1))
    return net.same(x)


def flattened(net: Net, x: Tensor) -> Tensor:
    net.relu(net.flat(x))
    return net.same(x)


def looked_at(net: Net, x: Tensor) -> Tensor:
    view = x.view(len(x), 6, -1)
    net.relu(x)
    return view


def detached(net: Net, x: Tensor) -> Tensor:
    other = x.detach()
    net.relu(x)
    return other


def written_view(net: Net, x: Tensor) -> Tensor:
    x.view(len(x), 6, -1).relu_()
    return x


def half_written(net: Net, x: Tensor) -> Tensor:
    first, second = x[:, :3], x[:, 3:]
    net.relu(first)
    second *= 2
    return x


def added(net: Net, x: Tensor) -> Tensor:
    y = net.same(x + 1)
    y += x
    return net.relu(y)


def dropped(net: Net, x: Tensor) -> Tensor:
    return F.relu(net.drop(net.relu(net.drop(x))) - 0.5, inplace=True)


MIDDLES = (
    *(ignored, ignored_forward, ignored_function, named, twice, thrice_in_place, viewed, flattened, looked_at),
    *(detached, written_view, half_written, added, dropped),
)


@pytest.mark.parametrize("middle", MIDDLES)
def test_whatever_is_written_where(middle: Callable[[Net, Tensor], Tensor]) -> None:
    agrees(classifier(Net(middle)), photos())


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.Mish, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU),
        *(nn.Hardsigmoid, nn.RReLU, lambda inplace: nn.Threshold(0.1, 2, inplace)),
        *(nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    ],
)
def test_every_module_in_place(activation: Callable[..., nn.Module]) -> None:
    module = Net(ignored)
    module.relu = activation(inplace=True)
    net = classifier(module)
    agrees(net, photos())
    assert not _HABITS[net].learned, "one pass of the lens was enough"


def in_a_row(net: Net, x: Tensor) -> Tensor:
    net.relu(net.drop(x))
    net.drop(net.relu(x))
    return net.relu(x)


def test_modules_in_place_in_a_row_need_no_copies() -> None:
    net = classifier(Net(in_a_row))
    agrees(net, photos())
    assert not _HABITS[net].learned


def test_a_write_in_place_by_a_residual_net_costs_no_second_pass() -> None:
    net = classifier(Spelled("in-place"))
    capture(net, photos())
    assert _HABITS[net].overwritten == {"bn2"}
    capture(net, photos())
    assert not _HABITS[net].learned


def through_data(net: Net, x: Tensor) -> Tensor:
    x.data.mul_(2)
    return x


def replaced_data(net: Net, x: Tensor) -> Tensor:
    x.data = x * 2
    net.relu(x)
    return x


@pytest.mark.parametrize("middle", [through_data, replaced_data])
def test_writes_that_no_version_tells_of_are_left_to_the_lens(middle: Callable[[Net, Tensor], Tensor]) -> None:
    agrees(classifier(Net(middle), check=False), photos(), hooked=False)


def test_writes_by_numpy_are_left_to_the_lens() -> None:
    def middle(net: Net, x: Tensor) -> Tensor:
        array = x.numpy()
        array *= 2
        return x

    net = classifier(Net(middle), check=False)
    capture(net, photos())
    same(capture(net, photos()), by_lens(net, photos()))
    assert not _HABITS[net].hooks


class Flag(nn.Module):
    """Works in place only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same, self.fc, self.way = nn.Conv2d(3, 6, 3), nn.Identity(), nn.Linear(6, 5), "plain"

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.way == "in place":
            x += 1
        elif self.way == "twice":
            x = self.same(self.same(x))
        else:
            x = self.same(x)
        if self.way == "later":
            x *= 2
        return self.fc(x.mean((2, 3)))


def test_a_net_that_changes_its_mind_is_never_kept_wrong() -> None:
    module = Flag()
    net, images = classifier(module), photos()
    for way in ("plain", "plain", "in place", "in place", "plain", "later", "later", "plain", "twice", "plain"):
        module.way = way
        expected = by_copies(net, images)
        same(capture(net, images), expected)
        same(capture(net, images), expected)
    assert not _HABITS[net].hooks


def test_a_net_that_is_changed_between_two_captures() -> None:
    module = Net(twice)
    net, images = classifier(module), photos()
    agrees(net, images)
    module.relu = nn.Sequential(nn.Tanh(), nn.ReLU(True))
    agrees(net, images)
    assert "relu.1@2" in capture(net, images)
    module.norm = nn.Identity()
    agrees(net, images)
    module.relu[1].inplace = False
    agrees(net, images)


def test_tuples_dictionaries_and_nothing() -> None:
    class Several(nn.Module):
        def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            return {"a": x * 2}, x

    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    def middle(net: Net, x: Tensor) -> Tensor:
        net.nothing(x)
        found, x = net.several(x)
        net.relu(found["a"])
        net.nothing(x)
        return found["a"] + x

    module = Net(middle)
    module.several, module.nothing = Several(), Nothing()
    agrees(classifier(module), photos())


def test_hooks_of_the_users_own_run_after_and_before_as_ever() -> None:
    module = Net(ignored)
    module.norm.register_forward_hook(lambda _, __, out: out * -1)
    module.conv.register_forward_hook(lambda _, __, out: out.mul_(2))
    module.relu.register_forward_pre_hook(lambda _, given: (given[0].clone(),))
    module.relu.register_forward_hook(lambda _, __, out: out + 1)
    agrees(classifier(module), photos())


def test_what_is_kept_outlasts_the_next_pass() -> None:
    net = classifier(Spelled("in-place"))
    images, others = photos(), photos(seed=5)
    kept = [capture(net, images) for _ in range(3)]
    expected = by_copies(net, images)
    capture(net, others)
    for each in kept:
        same(each, expected)


def test_after_an_exception_all_is_as_before() -> None:
    class Trip(Exception):
        pass

    def middle(net: Net, x: Tensor) -> Tensor:
        net.relu(x)
        if net.tripping:
            raise Trip
        return x

    module = Net(middle)
    module.tripping = False
    net = classifier(module)
    agrees(net, photos())
    before, module.tripping = state(module), True
    with pytest.raises(Trip):
        capture(net, photos())
    assert state(module) == before
    module.relu.register_forward_pre_hook(lambda *_: module.missing)  # inside the rectifier itself
    before = state(module)
    with pytest.raises(AttributeError):
        capture(net, photos())
    assert state(module) == before
    module.relu._forward_pre_hooks.clear()
    module.tripping = False
    agrees(net, photos())


class Counting(Lens):
    """Counts operations."""

    seen = 0

    def operation(self, call: Call) -> object:
        self.seen += 1
        return call.run()


def test_inside_another_lens_that_one_sees_the_operations_as_ever() -> None:
    net, images = classifier(Spelled("in-place")), photos()
    expected = capture(net, images)
    counts = []
    for look in (by_lens, capture):
        lens = Counting(net.module)
        with lens:
            same(look(net, images), expected)
        counts.append(lens.seen)
    assert counts[0] == counts[1] > 0


def test_inference_mode_has_no_versions_and_gets_the_lens() -> None:
    net, images = classifier(Spelled("in-place")), photos()
    expected = by_copies(net, images)
    for _ in range(2):
        with torch.inference_mode():
            same(capture(net, images), expected)
    same(capture(net, images), expected)
    assert _HABITS[net].hooks


def test_a_net_with_an_inference_mode_of_its_own() -> None:
    def middle(net: Net, x: Tensor) -> Tensor:
        with torch.inference_mode():
            y = net.same(x * 2)
            y += 1
            net.relu(y)
        return x + y

    agrees(classifier(Net(middle), check=False), photos(), hooked=False)


def test_attention_runs_other_code_under_a_lens_and_is_left_to_it() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 6, 6), nn.Flatten(2), nn.Linear(16, 8), layer, nn.Flatten(), nn.Linear(64, 5)
    )
    net, images = classifier(module), photos()
    expected = by_lens(net, images)
    assert any("linear1" in address for address in expected)
    for _ in range(3):
        same(capture(net, images), expected)
    assert not _HABITS[net].hooks


def test_code_that_asks_whether_a_lens_looks_on_is_left_to_it() -> None:
    def middle(net: Net, x: Tensor) -> Tensor:
        return net.relu(x) if torch.overrides.has_torch_function((x,)) else torch.relu_(x)

    net, images = classifier(Net(middle)), photos()
    for _ in range(4):
        same(capture(net, images), by_lens(net, images))
    assert not _HABITS[net].hooks


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_compiled_code_is_left_to_the_lens() -> None:
    module = classifier(Spelled("in-place")).module.eval()
    traced = Classifier(torch.jit.trace(module, photos()), size=24, check=False)
    same(capture(traced, photos()), by_lens(traced, photos()))
    assert not _HABITS[traced].hooks
    net = Classifier(module, size=24)
    agrees(net, photos())
    module.relu.__dict__["_compiled_call_impl"] = lambda x: x.relu_()  # as Module.compile leaves it
    capture(net, photos())
    assert not _HABITS[net].hooks


def test_two_threads_capture_two_nets_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    nets = [classifier(Spelled(spelling)) for spelling in ("in-place", "ignored")]
    expected = [by_copies(net, photos()) for net in nets]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(lambda net: capture(net, photos()), nets), expected, strict=True):
                same(found, wanted)
    assert all(_HABITS[net].hooks for net in nets)
