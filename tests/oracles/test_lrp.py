"""LRP and deep Taylor: what they conserve, in every spelling and family, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nets
from families import SPELLINGS, TWELVE, family, pictures
from seewhy.classifier import Classifier
from seewhy.errors import LayerError, NothingToExplain, SpecError, UnknownOperation
from seewhy.explain import LRP, Attribution, DeepTaylor
from seewhy.explain.lrp import Ledger
from seewhy.lens.rules import COMPOSITES, composite
from seewhy.method import parse

METHODS: list[LRP | DeepTaylor] = [*map(LRP, sorted(COMPOSITES)), DeepTaylor(), DeepTaylor("w-squared")]


class Bare(nn.Module):
    """A residual net with joined branches and no bias anywhere, normalisations included."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.Conv2d(6, 4, 1, bias=False)
        self.fc = nn.Linear(10, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x)), inplace=True), 2)
        x = torch.cat([F.relu(x + F.relu(self.a(x))), F.relu(self.b(F.avg_pool2d(x, 3, 1, 1)))], 1)
        return self.fc(x.mean((2, 3)))


def bare() -> Classifier:
    net = nets.classifier(Bare())
    norm: Any = net.module.norm
    with torch.no_grad():
        norm.bias.zero_()
        norm.running_mean.zero_()
    net.module.double()
    return net


# α2β1 gives 2R where a unit has no negative contributions: it conserves only where both signs are there
@pytest.mark.parametrize("method", [each for each in METHODS if "alpha" not in each.spec], ids=lambda each: each.spec)
def test_without_biases_the_logit_is_conserved(method: LRP | DeepTaylor) -> None:
    found = method(bare(), nets.photos(3), [0, 1, 2])
    limit = 1e-6 if isinstance(method, DeepTaylor) else 2e-5  # what ε = 1e-6 itself keeps
    assert float(found.measures["conservation error"].max()) <= limit


@pytest.mark.parametrize(
    "rules", [["epsilon:1e-12"], ["flat", "z-plus", "epsilon:1e-12"], ["z-box", "gamma", "epsilon:1e-12"]]
)
def test_without_biases_and_without_epsilon_nothing_is_lost(rules: list[str]) -> None:
    places: list[dict[str, object]] = [{"depth": 0}, {"op": "conv*"}]
    where = places[: len(rules) - 1]
    composite("exact", [{**each, "rule": rule} for each, rule in zip([*where, {}], rules, strict=True)])
    try:
        found = LRP("exact")(bare(), nets.photos(3), [0, 1, 2])
    finally:
        del COMPOSITES["exact"]
    assert float(found.measures["conservation error"].max()) <= 1e-6


def test_epsilon_without_biases_is_gradient_times_input_of_what_the_network_gets() -> None:
    net, image = bare(), nets.photos(1)
    # for a ReLU network without biases, and sums and maxima that pass gradients (Ancona et al. 2018)
    leaf = net.normalise(image).requires_grad_()
    net.module.eval()
    (gradient,) = torch.autograd.grad(net.module(leaf)[0, 2], leaf)
    composite("exact", [{"rule": "epsilon:1e-12"}])
    try:
        found = LRP("exact")(net, image, 2).values
    finally:
        del COMPOSITES["exact"]
    torch.testing.assert_close(found, (gradient * leaf).detach().float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.spec)
def test_the_same_map_for_six_spellings(method: LRP | DeepTaylor) -> None:
    found = [method(nets.classifier(nets.Spelled(spelling)), nets.photos()).values for spelling in nets.SPELLINGS]
    for spelling, other in zip(nets.SPELLINGS[1:], found[1:], strict=True):
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6, msg=spelling)


def even(method: LRP | DeepTaylor, net: Classifier, images: Tensor, found: Attribution) -> Ledger:
    """The account, checked: what of the logit no operation lost came to the pixels."""
    ledger = method.account(net, images)
    left = ledger.started.double() - torch.stack([row.lost for row in ledger.rows]).double().sum(0)
    totals = found.values.double().sum((1, 2, 3))
    scale = max(1.0, float(found.values.abs().sum((1, 2, 3)).max()))  # ε's maps cancel nearly
    torch.testing.assert_close(ledger.started, found.score, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left / scale, totals / scale, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ledger.reached.double(), left)
    return ledger


@pytest.mark.parametrize("name", nets.FAMILIES)
@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.spec)
def test_every_family_runs_and_its_account_is_even(name: str, method: LRP | DeepTaylor) -> None:
    net, images = nets.classifier(nets.FAMILIES[name]()), nets.photos()
    found = method(net, images)
    assert found.values.any()
    assert torch.isfinite(found.values).all()
    ledger = even(method, net, images, found)
    planned = {row.address: row for row in method.plan(net).rows}
    assert {row.address for row in ledger.rows} <= set(planned)


def test_the_plan_says_what_is_merged_and_what_has_no_rule() -> None:
    plan = LRP().plan(nets.classifier(nets.Spelled("in-place")))
    rows = {row.address: row for row in plan.rows}
    assert rows["conv1:conv2d"].rule == "flat"
    assert rows["conv2:conv2d"].rule == "z-plus"
    assert rows["fc:linear"].rule == "epsilon"
    assert (rows["bn1:batch_norm"].merged, rows["bn2:batch_norm"].merged) == ("conv1:conv2d", "conv2:conv2d")
    assert [rows[address].depth for address in ("conv1:conv2d", "conv2:conv2d", "fc:linear")] == [0, 1, 2]
    assert "bn2:batch_norm        with conv2:conv2d" in str(plan)
    dense = {row.address: row.rule for row in LRP().plan(nets.classifier(nets.Dense())).rows}
    assert dense["norms.1:batch_norm"] == "epsilon"  # a rectifier stands between
    squared = nn.Sequential(nn.Conv2d(3, 4, 3), Squared(), nn.Flatten(), nn.Linear(4 * 22 * 22, 5))
    assert {row.address: row.rule for row in LRP().plan(nets.classifier(squared)).rows}["1:pow"] == "no rule"


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


def test_an_operation_without_a_rule_is_named_with_its_place_and_a_way_out() -> None:
    net = nets.classifier(nn.Sequential(nn.Conv2d(3, 4, 3), Squared(), nn.Flatten(), nn.Linear(4 * 22 * 22, 5)))
    with pytest.raises(UnknownOperation, match=r"operation pow, called in 1; .*seewhy\.lens\.relevance\.rule"):
        LRP()(net, nets.photos())


def test_the_account_says_where_relevance_is_lost() -> None:
    net, images = nets.classifier(nets.vgg()), nets.photos(1)
    ledger = LRP("epsilon-plus").account(net, images, 1)
    rows = {row.address: row for row in ledger.rows}
    module: Any = net.module.eval().double()
    with torch.no_grad():
        codes = module[:11](net.normalise(images))[0]
        kept = float(module[11].bias[1])  # the last layer's bias keeps itself
        logit = float(module[11].weight[1] @ codes) + kept
    assert float(rows["11:linear"].lost) == pytest.approx(kept, abs=1e-4)
    assert float(ledger.started) == pytest.approx(logit, rel=1e-4)
    assert not rows["1:relu"].lost.any()
    assert "11:linear" in str(ledger)


@pytest.mark.parametrize("layer", ["conv2", "bn2", "relu", ":max_pool2d", "fc"])
def test_relevance_at_a_layer(layer: str) -> None:
    net, images = nets.classifier(nets.Spelled("reused")), nets.photos()
    found = LRP(layer=layer)(net, images)
    shape = {"fc": (5, 1, 1), ":max_pool2d": (8, 12, 12)}.get(layer, (8, 24, 24))
    assert found.values.shape == (2, *shape)
    assert found.layer == layer
    if layer == "fc":  # the answer itself
        picked = found.values[:, :, 0, 0].gather(1, found.target[:, None])[:, 0]
        torch.testing.assert_close(picked, found.score)
        assert float(found.measures["conservation error"].max()) < 1e-6


@pytest.mark.parametrize("layer", ["conv2", "bn2", ":add", ":max_pool2d", "fc"])
def test_an_account_ends_at_the_layer_and_says_what_passes_it_by(layer: str) -> None:
    net, images = nets.classifier(nets.Spelled("module")), nets.photos()
    method = LRP("epsilon", layer=layer)
    found, ledger = method(net, images), method.account(net, images)
    assert ledger.layer == layer
    torch.testing.assert_close(ledger.started, found.score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ledger.reached, found.values.sum((1, 2, 3)), rtol=1e-3, atol=1e-4)
    past = bool((ledger.aside.abs() > 1e-3).all())
    assert past == (layer in ("conv2", "bn2"))  # which the residual way passes by
    rows = [row.address for row in ledger.rows]
    assert "conv1:conv2d" not in rows
    assert ("fc:linear" in rows) == (layer != "fc")
    whole = LRP("epsilon").account(net, images)
    assert (whole.layer, whole.aside.tolist()) == ("", [0.0, 0.0])


def test_an_account_ends_before_an_operation_without_a_rule() -> None:
    net = nets.classifier(nn.Sequential(nn.Conv2d(3, 4, 3), Squared(), nn.Flatten(), nn.Linear(4 * 22 * 22, 5)))
    method = LRP(layer="2")
    ledger = method.account(net, nets.photos())
    torch.testing.assert_close(ledger.reached, method(net, nets.photos()).values.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)
    with pytest.raises(LayerError, match="no layer"):
        LRP(layer="nothing").account(net, nets.photos())


def test_a_layer_that_is_not_there_or_has_no_map() -> None:
    net = nets.classifier(nets.ConvNext())
    with pytest.raises(LayerError, match="no layer"):
        LRP(layer="nothing")(net, nets.photos())

    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aside, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.fc(self.conv(x).relu().mean((2, 3)))

    with pytest.raises(NothingToExplain, match="do not depend"):
        LRP(layer="aside")(nets.classifier(Aside()), nets.photos())


def test_several_targets_share_one_forward_pass() -> None:
    net, images = nets.classifier(nets.Dense()), nets.photos()
    both = LRP().each(net, images, [1, None])
    assert both[0].cost.forward == len(images)
    for found, target in zip(both, (1, None), strict=True):
        alone = LRP()(net, images, target)
        torch.testing.assert_close(found.values, alone.values)
        torch.testing.assert_close(found.measures["conservation error"], alone.measures["conservation error"])


def test_a_softmax_at_the_end_is_stepped_over() -> None:
    net = nets.classifier(nets.vgg())
    outside = LRP()(net, nets.photos(), 1).values
    ending = Classifier(
        nn.Sequential(net.module, nn.Softmax(1)),
        mean=net.mean,
        std=net.std,
        size=nets.SIZE,
        probabilities=True,
        check=False,
    )
    found = LRP()(ending, nets.photos(), 1)
    torch.testing.assert_close(found.values, outside)
    assert any("before the final softmax" in note for note in found.notes)


def test_what_biases_keep_is_said() -> None:
    net = nets.classifier(nets.vgg())
    with torch.no_grad():
        net.module.get_parameter("3.bias").add_(50)
    found = LRP()(net, nets.photos())
    assert float(found.measures["conservation error"].max()) > 0.5
    assert any("read the pattern" in note for note in found.notes)


def test_bad_options() -> None:
    for spec, words in {
        "lrp:composite=epsilon-plus-flt": 'did you mean "epsilon-plus-flat"',
        "deep-taylor:pixels=flat": "z-box",
    }.items():
        with pytest.raises(SpecError, match=words):
            parse(spec)


def test_deep_taylor_says_what_the_root_points_lack() -> None:
    images = nets.photos()
    assert not DeepTaylor()(bare(), images, 1).notes
    notes = " ".join(DeepTaylor()(nets.classifier(nets.FAMILIES["efficientnet"]()), images).notes)
    assert "here is silu: " in notes
    assert "here is sigmoid" not in notes  # the gate is no way for relevance
    assert "biases are positive" in notes
    below = bare()
    with torch.no_grad():
        below.module.get_parameter("fc.weight").neg_()
    assert any("not positive" in note for note in DeepTaylor()(below, images, 1).notes)


class Bent(nn.Module):
    """A function between two layers, and a gate beside it that relevance does not pass."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.conv, self.fc = function, nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.function(self.conv(x))
        return self.fc((x * torch.tanh(x.mean((2, 3), keepdim=True))).mean((2, 3)))


LIKE_RELU: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "clamp": lambda x: x.clamp(0, 1),
    "clamp_min": lambda x: x.clamp_min(0),
    "tensor bound": lambda x: x.clamp(min=torch.zeros(())),
    "threshold": lambda x: F.threshold(x, 0.1, 0),
    "maximum": lambda x: torch.maximum(x.new_zeros(1), x),
    "max": lambda x: torch.max(x, x.new_zeros(1)),
    "neg": lambda x: F.relu(-x),
    "max-out": lambda x: torch.maximum(x, x.flip(1)),
}
UNLIKE_RELU: dict[str, Callable[[Tensor], Tensor]] = {
    "hardtanh": F.hardtanh,
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "clamp_max": lambda x: x.clamp_max(1),
    "threshold": lambda x: F.threshold(x, -1, 0),
    "maximum": lambda x: torch.maximum(x, torch.full((1,), -0.5)),
    "minimum": lambda x: torch.minimum(x, x.new_ones(1)),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "leaky_relu": F.leaky_relu,
    "softplus": F.softplus,
}


@pytest.mark.parametrize("name", LIKE_RELU)
def test_deep_taylor_takes_every_spelling_of_relu_for_it(name: str) -> None:
    notes = DeepTaylor()(nets.classifier(Bent(LIKE_RELU[name])), nets.photos()).notes
    assert not any("root points are" in note for note in notes)


@pytest.mark.parametrize("name", UNLIKE_RELU)
def test_deep_taylor_says_what_is_not_zero_below_zero(name: str) -> None:
    notes = DeepTaylor()(nets.classifier(Bent(UNLIKE_RELU[name])), nets.photos()).notes
    (note,) = [note for note in notes if "root points are" in note]
    assert f"here is {name}: " in note


def test_deep_taylor_asks_for_the_sign_of_the_logit_before_the_softmax() -> None:
    images = nets.photos()
    for positive in (True, False):
        net = bare()
        if not positive:
            with torch.no_grad():
                net.module.get_parameter("fc.weight").neg_()
        for probabilities in (True, False):  # with the answer declared, its score is log p, else p
            words: Any = {"mean": net.mean, "std": net.std, "size": nets.SIZE, "check": False}
            ending = Classifier(nn.Sequential(net.module, nn.Softmax(1)), probabilities=probabilities, **words)
            found = DeepTaylor()(ending, images, 1)
            assert any("not positive" in note for note in found.notes) != positive
            assert bool((found.values.sum((1, 2, 3)) > 0).all()) == positive


def test_deep_taylor_is_positive_for_a_positive_logit() -> None:
    net, images = bare(), nets.photos()
    found = DeepTaylor()(net, images)
    assert (found.score > 0).all()
    assert float(found.values.min()) >= -1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", TWELVE)
def test_the_twelve_families(name: str) -> None:
    net, images = family(name), pictures(name)
    methods: list[LRP | DeepTaylor] = [LRP(), LRP("epsilon-gamma-box"), LRP("alpha2-beta1-flat"), DeepTaylor()]
    for method in methods:
        found = method(net, images)
        assert torch.isfinite(found.values).all()
        assert found.values.flatten(1).any(1).all()
        even(method, net, images, found)
        # relevance is kept by biases or passed on; rules that know signs may keep a little more than came
        limit = 1.2 if "composite" in method.spec else 1.01
        assert float(found.measures["conservation error"].max()) <= limit
    plain = LRP()(net, images).values
    for spelling in SPELLINGS:
        other = LRP()(family(name, spelling), images).values
        assert float((other - plain).norm() / plain.norm()) <= 1e-3, spelling
