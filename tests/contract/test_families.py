"""Every explainer on the twelve families of torchvision, each family in five spellings; the whole product is slow."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from families import SPELLINGS, TWELVE, family, pictures
from nets import made
from seewhy.classifier import Classifier
from seewhy.explain import Attribution, ExpectedGradients, IntegratedGradients
from seewhy.method import registry

pytest.importorskip("torchvision")

METHODS = sorted(registry("explain"))
#: a method, a family, and one of the four other spellings of it
PRODUCT = [(name, kind, SPELLINGS[1 + (i + j) % 4]) for i, name in enumerate(METHODS) for j, kind in enumerate(TWELVE)]
#: each method meets two families here, each family every sixth method; the whole product is for `make test-slow`
FEW = [each for n, each in enumerate(PRODUCT) if (n + n // 12) % 6 == 0 and each[0] != "score-cam"]

#: what a measure may come to on any family, where a method promises something
BOUNDS = {"deep-shap": {"additivity error": 1e-3}}
#: what stands for the image where nothing of it is shown: the values add up to the logit's rise from there
NOTHING = {"shap": 0.5, "shap-partition": 0.5, "integrated-gradients": 0.0}


@cache
def plain(kind: str) -> Classifier:
    return family(kind, "module")


def explained(name: str, net: Classifier, kind: str) -> Attribution:
    found: Attribution = made(name)(net, pictures(kind, 1))
    return found


def added(name: str, found: Attribution) -> float:
    """What the values of a map add up to: over the pixels, or over the segments where a pixel has its segment's."""
    if name != "shap":
        return float(found.values.double().sum())
    cells = round(float(found.measures["segments"]) ** 0.5)  # of a grid, as in the quick form
    middle = (2 * torch.arange(cells) + 1) * found.values.shape[2] // (2 * cells)
    return float(found.values[0, 0].double()[middle][:, middle].sum())


def keeps_its_promise(name: str, found: Attribution, net: Classifier, kind: str) -> None:
    """Completeness, additivity and conservation, by passes of their own."""
    image, amount = pictures(kind, 1), float(found.values.double().abs().sum())  # maps may cancel nearly
    for key, bound in BOUNDS.get(name, {}).items():
        assert float(found.measures[key]) <= bound, key
    if name in NOTHING:
        both = net.predict(torch.cat([torch.full_like(image, NOTHING[name]), image]))[:, int(found.target)].double()
        rise = float(both[1] - both[0])
        missed = abs(added(name, found) - rise)
        if name == "integrated-gradients":
            told = float(found.measures["completeness error"])
            assert missed == pytest.approx(told * abs(rise), abs=1e-5 * amount + 1e-4)
            assert told <= IntegratedGradients.tolerance or any("allow more steps" in note for note in found.notes)
        else:
            assert missed <= 1e-3 * abs(rise) + 1e-5
    method: Any = made(name)
    if hasattr(method, "account"):  # what no operation lost of the logit came to the pixels
        ledger = method.account(net, image)
        torch.testing.assert_close(ledger.started, found.score, rtol=1e-3, atol=1e-4)
        assert float(ledger.reached) == pytest.approx(added(name, found), abs=1e-4 * max(amount, 1.0))


def check(name: str, kind: str, *spellings: str) -> None:
    found = explained(name, plain(kind), kind)
    assert torch.isfinite(found.values).all()
    assert found.values.any() or any("zero everywhere" in note for note in found.notes)
    keeps_its_promise(name, found, plain(kind), kind)
    scale = float(found.values.abs().max())
    for spelling in spellings:
        other = explained(name, family(kind, spelling), kind)
        torch.testing.assert_close(other.values, found.values, rtol=1e-3, atol=1e-4 * scale, msg=spelling)


@pytest.mark.parametrize(("name", "kind", "spelling"), FEW)
def test_runs_and_no_spelling_changes_it(name: str, kind: str, spelling: str) -> None:
    check(name, kind, spelling)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TWELVE)
@pytest.mark.parametrize("name", METHODS)
def test_runs_and_none_of_five_spellings_changes_it(name: str, kind: str) -> None:
    check(name, kind, *SPELLINGS[1:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", TWELVE)
def test_integrated_gradients_are_complete_with_enough_steps(kind: str) -> None:
    # these nets have random weights and little to say about black, from which their logits hardly rise for all their changes
    found = IntegratedGradients("blur", steps=4096)(plain(kind), pictures(kind, 1))
    assert float(found.measures["completeness error"]) <= IntegratedGradients.tolerance


@pytest.mark.slow
@pytest.mark.parametrize("kind", TWELVE)
def test_expected_gradients_add_up_but_for_chance(kind: str) -> None:
    net, image = plain(kind), pictures(kind, 1)
    off = []
    for seed in range(8):
        method = ExpectedGradients(samples=25, seed=seed)
        found = method(net, image)
        colours, _ = method._draws(net, image)
        rise = found.score - net.predict(colours)[:, int(found.target)].mean()
        off.append(added("expected-gradients", found) - float(rise))
    deviation = torch.tensor(off).std() / len(off) ** 0.5
    assert abs(sum(off) / len(off)) <= 4 * float(deviation)
