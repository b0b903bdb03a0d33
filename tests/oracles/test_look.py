"""Filters and activation maps against the module's own weights and hooks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, SPELLINGS, Spelled, classifier, photos
from seewhy.errors import InputError, LayerError
from seewhy.lens import capture, last_map, stages, trace
from seewhy.look import Activations, Filters, convolutions


def test_filters_are_the_weights_in_order_and_on_one_scale() -> None:
    net = classifier(FAMILIES["mobilenet"]())
    found = Filters()(net)
    weight = net.module.get_submodule("stem.0").get_parameter("weight").detach()
    assert found.layer == "stem.0:conv2d"
    assert found.view == "colour"
    torch.testing.assert_close(found.tiles, weight.permute(0, 2, 3, 1))
    assert found.scale == pytest.approx(float(weight.abs().max()))
    by_norm = Filters(order="norm", limit=3)(net)
    norms = weight.flatten(1).norm(dim=1)
    assert by_norm.norms[by_norm.order[:3]].tolist() == norms.sort(descending=True).values[:3].tolist()
    assert "3 of 8 tiles" in by_norm.notes[0]

    deeper = Filters("project")(net)
    assert deeper.view == "norm"
    torch.testing.assert_close(
        deeper.tiles, net.module.get_submodule("project.0").get_parameter("weight").detach().norm(dim=1)
    )
    slices = Filters("depth.0:conv2d", view="slices")(net)
    torch.testing.assert_close(
        slices.tiles, net.module.get_submodule("depth.0").get_parameter("weight").detach().flatten(0, 1)
    )
    assert slices.titles[1] == "filter 1, input 0"


def test_filters_of_functional_convolutions_dead_ones_and_wrong_layers() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.conv2d(x, self.weight).mean((2, 3))

    net = classifier(Own())
    net.module.get_parameter("weight").data[2] = 0
    found = Filters()(net)
    assert found.layer == ":conv2d"
    assert found.notes == ("1 of 5 filters are zero",)
    with pytest.raises(LayerError, match="has no convolution"):
        Filters("conv9")(net)
    with pytest.raises(LayerError, match="works on 8 maps"):
        Filters("expand", view="colour")(classifier(FAMILIES["mobilenet"]()))
    assert list(convolutions(classifier(Spelled("module")))) == ["conv1:conv2d", "conv2:conv2d"]


def test_activations_are_what_the_layer_answers_strongest_first() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(3)
    found = Activations("expand", channels=4)(net, images)
    net.module.eval()
    kept: list[Tensor] = []
    handle = net.module.get_submodule("expand").register_forward_hook(lambda _, __, out: kept.append(out.detach()))
    with torch.no_grad():
        net.logits(images)
    handle.remove()
    strength = kept[0].abs().mean((2, 3))
    for row in range(3):
        expected = strength[row].sort(descending=True).indices[:4]
        assert set(found.channels[row].tolist()) == set(expected.tolist())
        torch.testing.assert_close(found.maps[row], kept[0][row, found.channels[row]], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.zero, (kept[0] <= 0).float().flatten(1).mean(1))
    assert Activations("expand", channels=0)(net, images).channels[0].tolist() == list(range(16))
    with pytest.raises(InputError, match="at least one"):
        Activations()(net)
    with pytest.raises(LayerError, match="not maps"):
        Activations("fc")(net, images)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_kept_stays_as_it_was_where_the_network_overwrites_it(spelling: str) -> None:
    expected = capture(classifier(Spelled("functional")), photos())
    found = capture(classifier(Spelled(spelling)), photos())
    for layer in ("conv1", "bn1", "conv2", "bn2"):
        torch.testing.assert_close(found[layer], expected[layer], rtol=1e-5, atol=1e-6)
    assert (found["bn1"] < 0).any()
    assert (found["bn2"] < 0).any()
    alone = capture(classifier(Spelled(spelling)), photos(), ["bn2", ":add"])
    torch.testing.assert_close(alone["bn2"], found["bn2"])
    assert not torch.equal(alone[":add"], alone["bn2"])


class Viewing(nn.Module):
    """Goes on with a view of a map that it then overwrites, made by a function outside the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        windows = x.unfold(2, 2, 2)
        x.relu_()
        return windows.mean((2, 3, 4))


class Promoting(nn.Module):
    """Overwrites a map of half precision with a sum in full precision, which stays in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same = nn.Conv2d(3, 5, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(self.conv(x).bfloat16())
        x += torch.full((1, 5, 1, 1), 0.3)
        return x.mean((2, 3))


@pytest.mark.parametrize("made", [Viewing, Promoting])
def test_keeping_layers_changes_no_answer(made: type[nn.Module]) -> None:
    net, images = classifier(made()), photos()
    expected = net.logits(images).detach()
    found = capture(net, images)
    assert found[""].dtype == expected.dtype
    assert torch.equal(found[""], expected)
    assert (found["conv"] < 0).any()  # as it was before it was overwritten


def test_a_pass_ends_after_the_last_layer_that_is_needed() -> None:
    ran: list[str] = []
    net = classifier(Spelled("module"))
    handles = [
        layer.register_forward_pre_hook(lambda _, __, name=name: ran.append(name))
        for name, layer in net.module.named_children()
    ]
    trace(net)
    ran.clear()
    capture(net, photos(), ["conv2"])
    for handle in handles:
        handle.remove()
    assert ran == ["conv1", "bn1", "relu", "conv2"]


def test_layers_are_found_and_named() -> None:
    assert {family: last_map(classifier(make())) for family, make in FAMILIES.items()} == {
        "resnet": "relu2",
        "densenet": ":cat.4",
        "mobilenet": "head",
        "efficientnet": "head",
        "hardswish": "head",
        "vgg": "4",
        "inception": ":cat",
        "convnext": ":add",
    }
    assert stages(classifier(FAMILIES["vgg"]())) == ("1", "4", "5", "6")
    with pytest.raises(LayerError, match='did you mean "conv2"'):
        capture(classifier(Spelled("module")), photos(), ["conv3"])
    with pytest.raises(LayerError, match="no map of more than one position"):
        last_map(classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5))))
