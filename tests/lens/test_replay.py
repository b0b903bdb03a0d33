"""Passes that start in the middle, against whole passes with hooks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nets
from seewhy.classifier import Classifier
from seewhy.errors import InputError, LayerError, ModelError
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call
from seewhy.lens.replay import Kept, replay


class Shuffle(nn.Module):
    """ShuffleNet's unit twice: a split, a branch, a concatenation, and a shuffle of the channels by views."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(True)) for _ in range(2))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            one, two = x.chunk(2, dim=1)
            x = torch.cat((one, branch(two)), 1)
            n, c, h, w = x.size()
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.fc(x.mean([2, 3]))


class Overwriting(nn.Module):
    """What is kept gets other contents: through a view, into a constant, in the input, and by a module's side effect."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.next = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.1)
        y = self.conv(x)
        early = y.clone()
        y[:, :2].mul_(2)
        self.relu(y)  # its answer is ignored
        canvas = torch.zeros(x.shape[0], 6, *x.shape[2:])
        canvas[:, 1:5] = y[:, 1:5]
        z = self.next(canvas)
        z += y
        if bool((z.amax() > -1e9).item()):
            z = z.sigmoid_() * early
        y.add_(z)
        return self.fc(F.adaptive_avg_pool2d(F.relu(y), 2).flatten(1))


class Reused(nn.Module):
    """One module called three times, and a tuple between two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.pair = Pair()
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for _ in range(3):
            x = x + self.block(x)
        one, two = self.pair(x)
        return self.fc((one * two).mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, _ = F.max_pool2d(x, 2, return_indices=True)
        return values, F.avg_pool2d(x, 2)


NETS: dict[str, Callable[[], nn.Module]] = {
    **{f"relu {spelling}": partial(nets.Spelled, spelling) for spelling in nets.SPELLINGS},
    **nets.FAMILIES,
    "shuffle": Shuffle,
    "overwriting": Overwriting,
    "reused": Reused,
}


class Changed(Lens):
    """The oracle: a whole pass in which one operation's answer is changed, or one module's by its hook."""

    def __init__(self, module: nn.Module, at: str, value: Tensor) -> None:
        super().__init__(module)
        self.at, self.value = at, value

    def operation(self, call: Call) -> Any:
        result = call.run()
        if call.address != self.at:
            return result
        through = call.in_place or call.func is torch.Tensor.__getitem__  # a view, through which Overwriting writes
        return result.copy_(self.value) if through else self.value.clone()


def whole(net: Classifier, images: Tensor, at: str, value: Tensor) -> Tensor:
    if ":" in at:
        return net.logits(images, lambda: Changed(net.module, at, value))
    path, _, again = at.partition("@")
    calls = [int(again or 1)]

    def hook(module: nn.Module, given: Any, result: Tensor) -> Tensor | None:
        calls[0] -= 1
        if calls[0]:
            return None
        in_place = getattr(module, "inplace", False)
        return result.copy_(value) if in_place else value.clone()

    handle = net.module.get_submodule(path).register_forward_hook(hook)
    try:
        return net.logits(images)
    finally:
        handle.remove()


class Outputs(Lens):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.kept: dict[str, Tensor] = {}

    def operation(self, call: Call) -> Any:
        result = call.run()
        if isinstance(result, Tensor):
            self.kept[call.address] = result.clone()
        return result

    def output(self, address: str, result: Any) -> Any:
        if isinstance(result, Tensor):
            self.kept[address] = result.clone()
        return result


def outputs(net: Classifier, images: Tensor) -> dict[str, Tensor]:
    lens = Outputs(net.module)
    net.logits(images, lambda: lens)
    return lens.kept


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_every_address_of_every_net(name: str) -> None:
    net = nets.classifier(NETS[name]())
    image = nets.photos(1)
    full = net.logits(image)
    kept = Kept(net, image)
    torch.testing.assert_close(kept.logits, full, rtol=0, atol=0)
    values = {at: value for at, value in outputs(net, image).items() if value.ndim}  # a number for all has no batch
    assert set(kept.addresses) == set(values)
    draw = torch.Generator().manual_seed(3)
    moved = 0
    for at, value in values.items():
        torch.testing.assert_close(replay(kept, at=at, value=value), full, rtol=1e-5, atol=1e-6, msg=at)
        others = value * torch.rand((3, *value.shape[1:]), generator=draw)
        expected = whole(net, image.expand(3, -1, -1, -1), at, others)
        given = others.clone()
        torch.testing.assert_close(replay(kept, at=at, value=given), expected, rtol=1e-4, atol=1e-5, msg=at)
        assert torch.equal(given, others), at  # the value is the caller's
        moved += not torch.allclose(expected[0], full[0])
        few = Kept(net, image, at)
        torch.testing.assert_close(replay(few, at=at, value=given), expected, rtol=1e-4, atol=1e-5, msg=at)
        assert few.bytes <= kept.bytes
    assert moved > len(values) * 0.8
    # replaying has not changed what was kept
    torch.testing.assert_close(replay(kept, at=kept.addresses[0], value=values[kept.addresses[0]]), full)


@pytest.mark.parametrize("name", ["relu in-place", "relu ignored", "mobilenet", "shuffle", "densenet"])
def test_gradients(name: str) -> None:
    net = nets.classifier(NETS[name]())
    image = nets.photos(1)
    kept = Kept(net, image)
    for at in kept.addresses:
        value = torch.rand((2, *kept.shape(at)[1:]), generator=torch.Generator().manual_seed(4)).requires_grad_()
        found = replay(kept, at=at, value=value)
        if not found.requires_grad:  # what an ignored answer does not reach
            continue
        (gradient,) = torch.autograd.grad(found[:, 1].sum(), value)
        with net.session():
            expected = whole(net, image.expand(2, -1, -1, -1), at, value)
        (wanted,) = torch.autograd.grad(expected[:, 1].sum(), value)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6, msg=at)


@torch.no_grad()
def test_several_images_keep_their_own_activations() -> None:
    net = nets.classifier(nets.Dense())
    images = nets.photos(3)
    kept = Kept(net, images, "convs.1")
    value = torch.rand(kept.shape("convs.1"))
    torch.testing.assert_close(replay(kept, at="convs.1", value=value), whole(net, images, "convs.1", value))


@torch.no_grad()
def test_what_comes_before_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nets.classifier(nets.vgg())
    kept = Kept(net, nets.photos(1))
    ran: list[int] = []

    def run(call: Call) -> Any:
        ran.append(call.index)
        return call.func(*call.args, **call.kwargs)

    monkeypatch.setattr(Call, "run", run)
    replay(kept, at="5", value=torch.rand(kept.shape("5")))
    assert len(ran) == 6  # pooling, flattening, linear, rectifier, dropout, linear


@torch.no_grad()
def test_what_nobody_reads_is_not_kept() -> None:
    net = nets.classifier(nets.vgg())
    image = nets.photos(1)
    last = Kept(net, image, "8")
    assert last.bytes == 16 * 4  # nothing but the layer's own output
    dense = nets.classifier(nets.Dense())
    kept = Kept(dense, image, "convs.1")
    # the stem's and the first convolution's maps go on beside the layer's own; nothing else does
    assert kept.bytes == (6 + 4 + 4) * nets.SIZE**2 * 4


def test_what_does_not_fit_is_said() -> None:
    net = nets.classifier(Reused())
    kept = Kept(net, nets.photos(1))
    with pytest.raises(LayerError, match=r'did you mean "block\.1"'):
        replay(kept, at="blok.1", value=torch.zeros(1))
    with pytest.raises(LayerError, match="does not answer one tensor"):
        replay(kept, at="pair", value=torch.zeros(1))
    with pytest.raises(InputError, match=r"shape \(n, 6, 24, 24\)"):
        replay(kept, at="conv", value=torch.zeros(2, 6, 5, 5))
    with pytest.raises(InputError, match="replays at conv only"):
        replay(Kept(net, nets.photos(1), "conv"), at="fc", value=torch.zeros(1, 5))
    with pytest.raises(InputError, match="for 2 images"):
        replay(Kept(net, nets.photos(2)), at="fc", value=torch.zeros(3, 5))
    with pytest.raises(LayerError):
        Kept(net, nets.photos(1), "nowhere")


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)
        self.first = True

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x).relu() if self.first else self.two(x).sigmoid()
        return self.fc(y.mean((2, 3)))


def test_another_path_is_noticed() -> None:
    module = Branching()
    net = nets.classifier(module)
    kept = Kept(net, nets.photos(1))
    module.first = False
    with pytest.raises(ModelError, match="cannot be started in the middle"):
        replay(kept, at="fc", value=torch.zeros(1, 5))
