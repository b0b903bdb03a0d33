"""`seewhy explain`: maps drawn as they were asked for, composites of one's own, and where relevance is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from seewhy import zoo
from seewhy.cli.work import draw
from seewhy.errors import NothingToExplain
from seewhy.explain import LRP, Gradient, GradientTimesInput, agreement, side_by_side

from .conftest import TINY, Run

LOOK: dict[str, Any] = {"sign": "positive", "smooth": 2.0, "contour": 0.5}
WORDS = ("--sign", "positive", "--smooth", "2", "--contour", "50%")
COMPOSITE = '[[composite]]\ndepth = 0\nrule = "w-squared"\n\n[[composite]]\nrule = "epsilon:0.01"\n'


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def opened(path: str | Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_maps_are_drawn_and_compared_as_asked(here: Path, run: Run) -> None:
    methods = ("--method", "gradient", "--method", "gradient-times-input", "--compare")
    told = document(run("explain", "cat.png", "--model", TINY, *methods, *WORDS, "--json"))
    assert told["drawn"] == LOOK
    net = zoo.load(TINY)
    photo = net.read("cat.png")
    found = [Gradient()(net, photo), GradientTimesInput()(net, photo)]
    for row, each in zip(told["explanations"], found, strict=True):
        draw(each.plot(**LOOK), here / "expected.png")
        assert np.array_equal(opened(row["picture"]), opened(here / "expected.png"))
        draw(each.plot(), here / "usual.png")
        assert not np.array_equal(opened(row["picture"]), opened(here / "usual.png"))
    (compared,) = told["compared"]
    draw(side_by_side(found, **LOOK), here / "expected.png")
    assert np.array_equal(opened(compared["pictures"]["compared"]), opened(here / "expected.png"))
    alike = agreement(found, sign="positive", smooth=2.0).correlations[0]
    np.testing.assert_allclose(compared["agreement"]["rank_correlations"], alike.numpy())
    usual = document(run("explain", "cat.png", "--model", TINY, *methods, "--json", "--out", "usual"))
    assert usual["drawn"] == {"sign": None, "smooth": 0.0, "contour": None}
    assert usual["compared"][0]["agreement"] != compared["agreement"]


def test_over_the_whole_photograph_too(here: Path, run: Run) -> None:
    told = document(run("explain", "cat.png", "--model", TINY, "--method", "gradient", "--whole", *WORDS, "--json"))
    net = zoo.load(TINY)
    expected = Gradient()(net, net.read("cat.png")).over("cat.png", **LOOK)
    (row,) = told["explanations"]
    assert np.array_equal(opened(row["picture"]), np.asarray(expected))
    assert (row["sign"], row["scale"]) == ("positive", pytest.approx(expected.info["scale"]))
    shown = run("explain", "cat.png", "--model", TINY, "--method", "gradient-times-input", "--whole", "--overwrite")
    assert re.search(r"±\d", shown.stdout), shown.stderr
    plain = document(run("explain", "cat.png", "--model", TINY, "--method", "gradient", "--json", "--overwrite"))
    assert "scale" not in plain["explanations"][0]


def test_the_account_says_where_relevance_is_lost(here: Path, run: Run) -> None:
    words = ("explain", "cat.png", "--model", TINY, "--method", "lrp", "--method", "gradient", "--class", "dog")
    told = document(run(*words, "--account", "--json"))
    row, other = told["explanations"]
    assert "account" not in other
    account = row["account"]
    lost = sum(each["lost"] for each in account["operations"])
    assert account["started"] == pytest.approx(row["score"], rel=1e-5)
    assert account["reached"] == pytest.approx(account["started"] - lost, abs=1e-5)
    net = zoo.load(TINY)
    ledger = LRP().account(net, net.read("cat.png"), "dog")
    assert [each["address"] for each in account["operations"]] == [each.address for each in ledger.rows]
    assert [each["lost"] for each in account["operations"]] == pytest.approx([float(each.lost) for each in ledger.rows])
    kept = next(each for each in account["operations"] if each["op"] == "linear")
    assert kept["lost"] == pytest.approx(
        float(net.module.get_parameter("6.bias")[2]), abs=1e-4
    )  # its bias keeps itself
    shown = run(*words, "--account", "--overwrite").stdout
    assert "cat.png, lrp: where the logit of dog" in shown
    assert "6:linear" in shown
    assert "what came to the pixels" in shown
    without = document(run(*words, "--json", "--overwrite"))
    assert all("account" not in each for each in without["explanations"])
    several = document(run(*words[:-2], "--contrast", "--account", "--json", "--out", "several"))["explanations"]
    assert ["account" in each for each in several] == [True, True, False, False, False, False]
    refused = run("explain", "cat.png", "--model", TINY, "--method", "gradient", "--account")
    assert refused.exit_code == 2
    assert "gradient has no account to give; these have: " in refused.stderr


def test_an_account_ends_at_the_methods_layer(here: Path, run: Run) -> None:
    words = ("explain", "cat.png", "--model", TINY, "--method", "lrp:layer=2", "--account")
    (row,) = document(run(*words, "--json"))["explanations"]
    net = zoo.load(TINY)
    found = LRP(layer="2")(net, net.read("cat.png"))
    assert row["account"]["reached"] == pytest.approx(float(found.values.sum()), abs=1e-5)
    assert row["account"]["aside"] == pytest.approx(0, abs=1e-5)
    assert "0:conv2d" not in [each["address"] for each in row["account"]["operations"]]
    shown = run(*words, "--overwrite").stdout
    assert "what came to 2 " in shown
    assert "what passed 2 by" in shown
    assert "the pixels" not in shown


def test_an_account_that_fails_takes_no_map_with_it(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def account(*_: Any) -> None:
        raise NothingToExplain("no account of this")

    monkeypatch.setattr(LRP, "account", account)
    told = document(run("explain", "cat.png", "--model", TINY, "--method", "lrp", "--account", "--json"))
    (row,) = told["explanations"]
    assert opened(row["picture"]).size
    assert "account" not in row
    assert told["failed"] == [{"image": "cat.png", "error": "no account of this"}]


def test_a_composite_of_ones_own_is_a_file(here: Path, run: Run) -> None:
    (here / "mine.toml").write_text(COMPOSITE)
    words = ("--method", "lrp:composite=mine.toml", "--model", TINY)
    plan = document(run("explain", "--plan", *words, "--json"))["plans"]["lrp:composite=mine.toml"]
    assert [row["rule"] for row in plan if row["op"] in ("conv2d", "linear")] == [
        *("w-squared", "epsilon:0.01", "epsilon:0.01")
    ]
    (row,) = document(run("explain", "cat.png", *words, "--arrays", "--json"))["explanations"]
    net = zoo.load(TINY)
    expected = LRP("mine.toml")(net, net.read("cat.png")).values
    with np.load(Path(row["picture"]).with_suffix(".npz")) as held:
        np.testing.assert_allclose(held["values"], expected.numpy(), rtol=1e-5)
    audited = run("audit", "cat.png", *words, "--out", "run")
    assert audited.exit_code == 0, audited.stderr
    assert "composite=mine.toml" in (here / "run" / "run.json").read_text()
    assert run("audit", "cat.png", *words, "--out", "run").exit_code == 0


def test_classes_of_one_slug_have_files_of_their_own(here: Path, run: Run) -> None:
    about = json.loads((here / "weights.json").read_text())
    (here / "weights.json").write_text(json.dumps(about | {"labels": ["crane (bird)", "crane, bird", "dog"]}))
    words = ("--method", "gradient", "--class", "crane (bird)", "--class", "crane, bird")
    told = document(run("explain", "cat.png", "--model", TINY, *words, "--json"))
    first, second = (row["picture"] for row in told["explanations"])
    assert not np.array_equal(opened(first), opened(second))
