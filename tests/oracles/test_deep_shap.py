"""Deep SHAP: additive on every family, the mean over references, the same whoever is asked together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, SIZE, SPELLINGS, Spelled, classifier, lively, photos
from seewhy.classifier import Classifier
from seewhy.errors import NothingToExplain, SpecError, UnknownOperation
from seewhy.explain import DeepShap, GradientTimesInput
from seewhy.explain.baseline import baseline
from seewhy.lens import rescale
from seewhy.lens.rescale import Rescale
from seewhy.method import parse


def precise(module: nn.Module) -> Classifier:
    words = {"mean": (0.45, 0.45, 0.4), "std": (0.25, 0.25, 0.25), "size": SIZE}
    return Classifier(lively(module).double(), check=False, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["black", "blur", "noise"])
def test_values_add_up_on_every_family_and_from_every_baseline(family: str, name: str) -> None:
    net, images = precise(FAMILIES[family]()), photos(2).double()
    found = DeepShap((name,))(net, images, 3)
    with torch.no_grad():
        rise = (net.logits(images) - net.logits(baseline(name, images)))[:, 3]
    torch.testing.assert_close(found.values.double().sum((1, 2, 3)), rise, rtol=1e-4, atol=1e-6)  # kept in float32
    assert found.measures["additivity error"].max() <= 1e-9  # measured in float64
    single = DeepShap((name,))(classifier(FAMILIES[family]()), photos(2), 3)
    assert single.measures["additivity error"].max() <= 1e-4
    assert not single.notes
    torch.testing.assert_close(single.values, found.values, rtol=0.02, atol=1e-3 * float(found.values.abs().max()))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_in_float64(spelling: str) -> None:
    images = photos(1).double()
    found = DeepShap()(precise(Spelled(spelling)), images, 1)
    assert found.measures["additivity error"].max() <= 1e-12
    torch.testing.assert_close(found.values, DeepShap()(precise(Spelled("functional")), images, 1).values)


def test_the_error_is_seen_when_a_rule_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rescale.RULES, "sigmoid", rescale.linear)  # the gradient in place of Δout/Δin
    monkeypatch.setitem(rescale.RULES, "relu6", rescale.linear)
    found = DeepShap()(precise(FAMILIES["mobilenet"]()), photos(2).double())
    assert found.measures["additivity error"].min() > 0.01
    assert "do not add up" in found.notes[0]


def test_several_references_are_averaged_and_several_targets_cost_no_forward_pass() -> None:
    net, images = classifier(FAMILIES["efficientnet"]()), photos(3)
    both = parse("deep-shap:baselines=black+white")(net, images, 2)
    each = [DeepShap((name,))(net, images, 2) for name in ("black", "white")]
    torch.testing.assert_close(both.values, (each[0].values + each[1].values) / 2)
    assert (both.cost.forward, both.cost.backward) == (12, 6)
    first, second = DeepShap().each(net, images, [2, 4])
    assert (first.cost.forward, first.cost.backward) == (6, 6)
    torch.testing.assert_close(first.values, each[0].values)
    torch.testing.assert_close(second.values, DeepShap()(net, images, 4).values)


def test_a_noise_reference_is_that_of_the_seed() -> None:
    net = precise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 22 * 22, 3)))
    images = photos(2).double()
    found = parse("deep-shap:baselines=noise,seed=5")(net, images, 1)
    with torch.no_grad():
        rise = (net.logits(images) - net.logits(baseline("noise", images, 5)))[:, 1]
    torch.testing.assert_close(found.values.double().sum((1, 2, 3)), rise, rtol=1e-4, atol=1e-6)


def test_a_linear_network_has_gradient_times_difference() -> None:
    net = precise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 22 * 22, 3)))
    images = photos(2).double()
    torch.testing.assert_close(DeepShap()(net, images, 0).values, GradientTimesInput()(net, images, 0).values)


def test_a_network_that_answers_probabilities_is_explained_to_its_logits() -> None:
    module = nn.Sequential(FAMILIES["vgg"](), nn.Softmax(1))
    net = Classifier(lively(module).double(), size=SIZE, probabilities=True, check=False)
    assert DeepShap()(net, photos(2).double()).measures["additivity error"].max() <= 1e-9


class Cut(nn.Module):
    """Linear, but a part of it is cut off from the gradient."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.fc = share, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.fc(x.mean((2, 3)))
        return seen.detach() if self.share == 1 else seen.detach() * self.share + seen * (1 - self.share)


def test_what_cannot_be_explained_is_said() -> None:
    images = photos(1)
    with pytest.raises(SpecError, match="expected baselines black, white"):
        parse("deep-shap:baselines=black+pink")
    with pytest.raises(SpecError, match="at least one baseline"):
        DeepShap(())
    with pytest.raises(NothingToExplain, match="does not depend on its input"):
        DeepShap()(Classifier(lively(Cut(1.0)), size=SIZE, check=False), images)
    found = DeepShap()(Classifier(lively(Cut(0.25)), size=SIZE, check=False), images)
    assert found.measures["additivity error"].item() == pytest.approx(0.25, rel=1e-4)
    assert "25 % off" in found.notes[0]
    attention = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(SIZE * SIZE, 2, 8), nn.Flatten())
    with pytest.raises(UnknownOperation, match="rescale lens has no rule"):
        DeepShap()(Classifier(attention, size=SIZE, check=False), images)
    flat = DeepShap()(classifier(FAMILIES["vgg"]()), torch.zeros(1, 3, SIZE, SIZE))
    assert "zero everywhere" in flat.notes[0]
    assert len(flat.notes) == 1


def test_one_baseline_is_as_good_as_a_tuple_of_one() -> None:
    given: tuple[Any, Any] = ("black", "black+white")
    assert [DeepShap(each) for each in given] == [DeepShap(("black",)), DeepShap(("black", "white"))]
    assert DeepShap(given[1]).spec == "deep-shap:baselines=black+white"
    wrong: Any = "blck"
    with pytest.raises(SpecError, match='got "blck"'):
        DeepShap(wrong)


def test_at_a_layer_it_is_deep_shap_of_what_follows() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())
    tail = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    whole = Classifier(nn.Sequential(head, tail), size=8, check=False)
    images = photos(3)[..., :8, :8]
    found = DeepShap(layer="0")(whole, images, 1)
    assert found.layer == "0"
    rest = Classifier(tail, size=8, check=False)
    with torch.no_grad():
        inside, start = head(images), head(torch.zeros_like(images))
    reference = Rescale(tail)
    before, after = start.clone().requires_grad_(), inside.clone().requires_grad_()
    with rest.session():
        with reference:
            rest.logits(before)
        with Rescale(tail, reference):
            logits = rest.logits(after)
    (multipliers,) = torch.autograd.grad(logits[:, 1].sum(), after)
    torch.testing.assert_close(found.values, multipliers * (inside - start), rtol=1e-5, atol=1e-7)
    rise = whole.predict(images)[:, 1] - whole.predict(torch.zeros_like(images))[:, 1]
    torch.testing.assert_close(found.values.sum((1, 2, 3)), rise, rtol=1e-4, atol=1e-6)


def test_what_passes_the_layer_by_is_said() -> None:
    found = DeepShap(layer="c")(classifier(FAMILIES["inception"]()), photos(2))
    assert "what passes c by" in found.notes[0]
