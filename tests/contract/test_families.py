"""Every explainer on the twelve families of torchvision, each family in five spellings; the whole product is slow."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from families import SPELLINGS, TWELVE, family, pictures
from nets import made
from seewhy.classifier import Classifier
from seewhy.explain import Attribution
from seewhy.method import registry

pytest.importorskip("torchvision")

METHODS = sorted(registry("explain"))
PRODUCT = [(name, kind, (i + j) % 4) for i, name in enumerate(METHODS) for j, kind in enumerate(TWELVE)]
#: each method meets two families here, each family every sixth method; the rest of the product is for `make test-slow`
FEW = [each for n, each in enumerate(PRODUCT) if (n + n // 12) % 6 == 0 and each[0] != "score-cam"]
REST = [each for each in PRODUCT if each not in FEW]

#: what a measure may come to on any family, where a method promises something
BOUNDS = {name: {"additivity error": 1e-3} for name in ("deep-shap", "shap", "shap-partition")}


@cache
def plain(kind: str) -> Classifier:
    return family(kind, "module")


def explained(name: str, net: Classifier, kind: str) -> Attribution:
    found: Attribution = made(name)(net, pictures(kind, 1))
    return found


def check(name: str, kind: str, spelling: int) -> None:
    found = explained(name, plain(kind), kind)
    assert torch.isfinite(found.values).all()
    assert found.values.any() or any("zero everywhere" in note for note in found.notes)
    for key, bound in BOUNDS.get(name, {}).items():
        assert float(found.measures[key]) <= bound, key
    other = explained(name, family(kind, SPELLINGS[1 + spelling]), kind)
    scale = float(found.values.abs().max())
    torch.testing.assert_close(other.values, found.values, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize(("name", "kind", "spelling"), FEW)
def test_runs_and_no_spelling_changes_it(name: str, kind: str, spelling: int) -> None:
    check(name, kind, spelling)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "spelling"), REST)
def test_runs_and_no_spelling_changes_it_everywhere(name: str, kind: str, spelling: int) -> None:
    check(name, kind, spelling)
