"""Filters, activation maps and their statistics against the module's own weights and hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, SPELLINGS, Spelled, classifier, photos
from seewhy.errors import DataError, InputError, LayerError, SpecError
from seewhy.lens import capture, last_map, stages, trace
from seewhy.look import Activations, BeforeAfter, Filters, Statistics, convolutions
from seewhy.look.statistics import rectified


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
    assert "3 of 8 tiles are shown" in by_norm.notes
    assert by_norm.numbers.tolist() == by_norm.order[:3].tolist()

    deeper = Filters("project")(net)
    assert deeper.view == "norm"
    torch.testing.assert_close(
        deeper.tiles, net.module.get_submodule("project.0").get_parameter("weight").detach().norm(dim=1)
    )
    slices = Filters("depth.0:conv2d", view="slices")(net)
    torch.testing.assert_close(
        slices.tiles, net.module.get_submodule("depth.0").get_parameter("weight").detach().flatten(0, 1)
    )
    assert slices.titles[1] == "filter 1, input 1"  # depthwise: each has an input of its own
    assert (slices.groups, Filters("depth.0:conv2d")(net).view) == (16, "slices")


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
    assert found.dead.tolist() == [2]
    assert found.notes == ("1 of 5 filters are dead, their norm at most 1.0\u00a0% of the median: 2",)
    with pytest.raises(LayerError, match="has no convolution"):
        Filters("conv9")(net)
    with pytest.raises(LayerError, match="works on 8 maps"):
        Filters("expand", view="colour")(classifier(FAMILIES["mobilenet"]()))
    assert list(convolutions(classifier(Spelled("module")))) == ["conv1:conv2d", "conv2:conv2d"]


def test_filters_that_are_nearly_the_same_are_named_and_lie_side_by_side() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.Conv2d(12, 6, 1, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    )
    net = classifier(module)
    weight = module[0].get_parameter("weight").data
    weight[7] = 3 * weight[2] + 0.01 * torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[4], weight[9] = 0.001 * weight[0], -weight[2]  # as good as zero; the opposite is not the same
    found = Filters(order="similarity")(net)
    assert found.dead.tolist() == [4]
    assert found.alike.tolist() == [[2, 7]]
    expected = torch.cosine_similarity(weight[2].flatten(), weight[7].flatten(), dim=0)
    assert float(found.cosines[0]) == pytest.approx(float(expected), abs=1e-6)
    assert f"1 pair is nearly the same, their cosine at least 0.95: 2 and 7 ({float(expected):.3f})" in found.notes
    order = found.order.tolist()
    assert sorted(order) == list(range(12))
    assert abs(order.index(2) - order.index(7)) == 1
    flat = torch.nn.functional.normalize(weight.flatten(1), dim=1)

    def together(places: list[int]) -> float:
        return float((flat[places[:-1]] * flat[places[1:]]).sum())

    assert together(order) > together(list(range(12)))
    loose = Filters(alike=0.5, dead=0)(net)
    pairs = [[i, j] for i in range(12) for j in range(i + 1, 12) if float(flat[i] @ flat[j]) >= 0.5]
    assert sorted(loose.alike.tolist()) == pairs
    assert (loose.cosines.diff() <= 0).all()
    grouped = Filters("1", view="slices")(net)
    assert grouped.titles == tuple(f"filter {i}, input {i // 2 * 4 + j}" for i in range(6) for j in range(4))
    assert found.facts()["alike"][0]["filters"] == [2, 7]
    with pytest.raises(SpecError, match="dead=1"):
        Filters(dead=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_are_those_of_all_answers_at_once(family: str) -> None:
    net, images = classifier(FAMILIES[family]()), photos(9)
    net.engine.batch = 2
    found = Statistics()(net, images)
    assert found.layers == rectified(net)
    kept = capture(net, images, found.layers)
    for layer in found.layers:
        maps = kept[layer].flatten(2)
        flat = maps.transpose(0, 1).flatten(1)
        torch.testing.assert_close(found.mean[layer], flat.mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.deviation[layer], flat.std(1, correction=0), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.highest[layer], flat.amax(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.lowest[layer], flat.amin(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.zero[layer], (flat <= 0).float().mean(1), rtol=0, atol=2e-3)
        torch.testing.assert_close(found.silent[layer], (maps.amax(2) <= 0).float().mean(0))
        assert torch.equal(found.dead[layer], flat.amin(1) == flat.amax(1))
    streamed = Statistics()(net, iter([images[:4], images[4:]]))
    torch.testing.assert_close(streamed.mean[layer], found.mean[layer])


def test_statistics_name_dead_units_and_damaged_pictures() -> None:
    net = classifier(FAMILIES["resnet"]())
    (layer, *_) = (each.address for each in trace(net) if each.kind == "rectifier")
    before = next(module for module in net.module.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        before.weight[1], before.bias[1] = 0, -1
    found = Statistics(layers=(layer,))(net, photos(3))
    assert found.dead[layer].nonzero()[:, 0].tolist() == [1]
    assert any(
        note.startswith(f"1 of {len(found.mean[layer])} units of {layer} answer the same") for note in found.notes
    )
    assert any("3 images are few" in note for note in found.notes)
    assert found.facts()["layers"][0]["dead"] == [1]
    codes = Statistics(layers=("fc",))(net, photos(3))  # units without places
    torch.testing.assert_close(codes.mean["fc"], net.predict(photos(3)).mean(0), rtol=1e-4, atol=1e-5)
    broken: list[Any] = [photos(2), DataError("row 17 is damaged"), photos(1)]
    told = Statistics()(net, broken)
    assert (told.count, told.failed) == (3, ((2, "row 17 is damaged"),))
    assert "1 of 4 images could not be read: number 2, row 17 is damaged" in told.notes
    with pytest.raises(InputError, match="row 17 is damaged"):
        Statistics()(net, [DataError("row 17 is damaged")])
    with pytest.raises(InputError, match="can be read, got none"):
        Statistics()(net, iter([]))
    with pytest.raises(InputError, match="give some"):
        Statistics()(net)
    net.module.get_submodule("fc").get_parameter("bias").data[0] = torch.inf
    with pytest.raises(InputError, match="fc answers infinite"):
        Statistics(layers=("fc",))(net, photos(2))


def test_before_and_after_are_the_layers_own_answers() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(2)
    found = BeforeAfter("expand", channels=3)(net, images)
    maps = capture(net, images, ["expand"])["expand"]
    apart = (maps[1] - maps[0]).flatten(1).norm(dim=1)
    assert found.channels.tolist() == apart.sort(descending=True).indices[:3].tolist()
    torch.testing.assert_close(found.before, maps[0, found.channels], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.after, maps[1, found.channels], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        found.change, (apart / maps[0].flatten(1).norm(dim=1)).nan_to_num(0), rtol=1e-4, atol=1e-5
    )
    assert found.growth[""] == pytest.approx(float((images[1] - images[0]).norm() / images[0].norm()), rel=1e-5)
    assert set(found.growth) == {"", *rectified(net)}
    assert found.said == tuple(net.labels[i] for i in net.predict(images).argmax(1).tolist())
    same = BeforeAfter()(net, images[[0, 0]])
    assert not same.change.any()
    assert any("the same to both" in note for note in same.notes)
    for wrong in (None, images[:1], photos(3)):
        with pytest.raises(InputError, match="expected two images"):
            BeforeAfter()(net, wrong)
    with pytest.raises(LayerError, match="not maps"):
        BeforeAfter("fc")(net, images)


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


def test_maps_whose_channels_come_last_are_shown_a_channel_each() -> None:
    net, images = classifier(FAMILIES["convnext"]()), photos(2)
    expected = capture(net, images, ["norm"])["norm"].permute(0, 3, 1, 2)
    assert expected.shape[1] != expected.shape[2]
    found = Activations("norm", channels=0)(net, images)
    torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mean, expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    both = BeforeAfter("norm", channels=3)(net, images)
    torch.testing.assert_close(both.before, expected[0, both.channels], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.after, expected[1, both.channels], rtol=1e-4, atol=1e-5)
    assert both.change.shape == expected.shape[1:2]


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
