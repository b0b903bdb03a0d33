"""`seewhy attack`: methods and images, the set it leaves and judges again, why it fails, limits, victims, defences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cli.conftest import TINY, Run
from seewhy import zoo
from seewhy.attack import FGSM, Scores, Square, WhiteBox, controls, feature_squeezing, sets, transferred
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Engine
from seewhy.errors import InputError

WORDS = ("attack", "cat.png", "dog.png", "--model", TINY, "--method", "fgsm", "--method", "fgsm:norm=l2")


def width(path: str) -> int:
    with Image.open(path) as picture:
        return int(picture.size[0])


def document(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_what_it_leaves_is_a_set_that_is_judged_again(here: Path, run: Run) -> None:
    told = document(run(*WORDS, "--json"))
    assert [(row["image"], row["norm"]) for row in told["attacks"]] == [
        (image, norm) for image in ("cat.png", "dog.png") for norm in ("linf", "l2")
    ]
    given = sets.load("seewhy-attack")
    assert [row["method"] for row in given.rows] == ["fgsm", "fgsm:norm=l2"] * 2
    assert [row["fools"] == "True" for row in given.rows] == [row["fooled"] for row in told["attacks"]]
    judged = document(run("attack", "--judge", "seewhy-attack", "--model", TINY, "--json"))
    assert [row["fools"] for row in judged["images"]] == [row["fooled"] for row in told["attacks"]]
    assert all(row["as told"] for row in judged["images"])
    shown = run("attack", "--judge", "seewhy-attack", "--model", TINY)
    assert "right on 4 of 4 originals" in shown.stdout
    for row in told["attacks"]:
        assert width(row["strip"]) > 300
        assert row["queries"] > 0
        assert row["gradients"] == 1
    (here / "seewhy-attack" / given.rows[1]["file"]).unlink()
    gone = run("attack", "--judge", "seewhy-attack", "--model", TINY)
    assert gone.exit_code == 2
    assert f"lacks the image {given.rows[1]['file']}" in gone.stderr


def test_a_second_attack_adds_to_the_set(here: Path, run: Run) -> None:
    document(run("attack", "cat.png", "--model", TINY, "--json"))
    document(run("attack", "cat.png", "--model", TINY, "--method", "fgsm:norm=l2", "--json"))
    document(run("attack", "cat.png", "--model", TINY, "--overwrite", "--json"))
    assert sorted(row["method"] for row in sets.load("seewhy-attack").rows) == ["fgsm", "fgsm:norm=l2"]


def test_sizes_are_told_in_their_norm(here: Path, run: Run) -> None:
    result = run(*WORDS)
    assert result.exit_code == 0
    assert "/255" in result.stdout
    assert "RMS" in result.stdout


def test_why_and_compare(here: Path, run: Run) -> None:
    told = document(run(*WORDS, "--why", "--compare", "--json"))
    for row in told["attacks"]:
        assert (row["why"] is not None) == row["fooled"]
        if row["fooled"]:
            assert "of the fall" in row["why"]["words"]
            assert width(row["why"]["picture"]) > 500
    compared = told["compared"]
    assert [row["attack"] for row in compared["attacks"]] == ["fgsm", "fgsm:norm=l2"]
    for number, row in enumerate(compared["attacks"]):
        assert row["fooled"] == sum(each["fooled"] for each in told["attacks"][number::2])
        assert row["of"] == 2
    for path in compared["pictures"].values():
        assert width(path) > 300
    shown = run(*WORDS, "--why", "--overwrite")
    assert "cat.png, fgsm: " in shown.stdout


def test_what_a_comparison_lacks_is_said(here: Path, run: Run) -> None:
    (here / "broken.png").write_text("no picture")
    words = ("attack", "cat.png", "--model", TINY, "--method", "fgsm", "--compare", "--json")
    some = run(*words, "broken.png")
    assert len(document(some)["compared"]["attacks"]) == 1
    said = "the comparison lacks 1 of 2 images, which not every method could attack"
    assert f"note: {said}" in some.stderr
    assert document(some)["notes"] == [said]
    net = zoo.load(TINY)
    target = next(name for index, name in enumerate(net.labels) if index not in net.predict(both(net)).argmax(1))
    dlr = ("--method", "apgd:eps=0.1,loss=dlr", "--target", target)  # which three classes are too few for
    none = run(*words, "dog.png", *dlr, "--out", "none")
    said = "there is no comparison: there is no image that every method could attack"
    assert f"note: {said}" in none.stderr
    assert document(none)["notes"] == [said]
    assert "compared" not in document(none)


def other(about: dict[str, Any] | None = None) -> str:
    """The spec of another tiny model, whose weights are the first one's with noise, beside it."""
    weights = load_file("weights.safetensors")
    draw = torch.Generator().manual_seed(1)
    save_file(
        {name: value + 0.03 * torch.randn(value.shape, generator=draw) for name, value in weights.items()},
        "other.safetensors",
    )
    told = json.loads(Path("weights.json").read_text()) | (about or {})
    Path("other.json").write_text(json.dumps(told))
    return TINY.replace("weights", "other")


def both(net: Classifier) -> Images:
    return net.read("cat.png", "dog.png")


def test_what_the_attacker_sees_is_limited(here: Path, run: Run) -> None:
    square = "square:eps=0.2,queries=50,refine=0"
    limits = ("--budget", 20, "--rounded", "--decimals", 2)
    told = document(run("attack", "cat.png", "dog.png", "--model", TINY, "--method", square, *limits, "--json"))
    assert told["limits"] == {"budget": 20, "rounded": True, "decimals": 2}
    net = zoo.load(TINY)
    attack = Square(eps=(0.2,), queries=50, refine=0)
    direct = attack(Scores(net, budget=20, rounded=True, decimals=2), both(net))
    assert [row["queries"] for row in told["attacks"]] == direct.queries.tolist()
    assert [row["fooled"] for row in told["attacks"]] == (direct.best >= 0).tolist()
    assert all(0 < row["queries"] <= 20 for row in told["attacks"])
    assert direct.queries.tolist() != attack(net, both(net)).queries.tolist()
    short = document(run("attack", "cat.png", "--model", TINY, "--budget", 3, "--out", "short", "--json"))
    assert short["attacks"][0]["queries"] <= 3
    assert "queries left did not suffice" in short["attacks"][0]["notes"][0]
    for words, said in (
        (("--decimals", 2), "--decimals rounds scores, and fgsm needs gradients; these look at scores: "),
        (("--method", "dbge", "--decimals", 2), "dbge needs labels"),
        (("--budget", 0), "0 is not in the range x>=1"),
        (("--budget", "many"), "'many' is not a valid integer"),
    ):
        refused = run("attack", "cat.png", "--model", TINY, "--out", "refused", *words)
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert not Path("refused").exists()


def test_victims_are_shown_each_others_images(here: Path, run: Run) -> None:
    spec = other()
    told = document(run(*WORDS, "--victim", spec, "--why", "--json"))
    nets = {each: zoo.load(each) for each in (TINY, spec)}
    assert [each["method"] for each in told["transfer"]] == ["fgsm", "fgsm:norm=l2"]
    for each, attack in zip(told["transfer"], (FGSM(), FGSM(norm="l2")), strict=True):
        direct = transferred(nets, attack, both(nets[TINY]))
        assert (each["sources"], each["victims"]) == ([TINY, spec], [TINY, spec])
        assert (each["fooled"], each["of"]) == (direct.fooled.tolist(), direct.of.tolist())
        assert width(each["picture"]) > 200
    assert sum(map(sum, told["transfer"][0]["of"])) > 0
    for row in told["attacks"]:
        assert row["why"] is None or set(row["why"]["numbers"]["transfer"]) <= {spec}
    shown = run(*WORDS, "--victim", spec, "--overwrite")
    assert shown.exit_code == 0, shown.stderr
    assert "fgsm: fooled of those that each model had right" in shown.stdout
    fooled, of = told["transfer"][0]["fooled"][0][0], told["transfer"][0]["of"][0][0]
    assert f"{TINY}  {fooled} of {of}" in shown.stdout
    for about, said in (
        ({"size": 20}, "of the same classes and input size"),
        ({"labels": ["tiger cat", "tabby", "dog"]}, "the same classes in the same order"),
    ):
        refused = run("attack", "cat.png", "--model", TINY, "--victim", other(about), "--out", "refused")
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert not Path("refused").exists()
    absent = run("attack", "cat.png", "--model", TINY, "--victim", "resnet", "--out", "refused")
    assert absent.exit_code == 2
    assert len(absent.stderr.splitlines()) == 1


def test_budgets_hold_for_victims_and_behind_defences_too(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[WhiteBox] = []
    perturb = FGSM.perturb

    def watched(self: FGSM, view: WhiteBox, *words: Any) -> Any:
        seen.append(view)
        return perturb(self, view, *words)

    monkeypatch.setattr(FGSM, "perturb", watched)
    words = ("--victim", other(), "--defences", "--budget", 4, "--rounded")
    document(run("attack", "cat.png", "--model", TINY, *words, "--json"))
    assert len(seen) == 6  # the model once, the victim, four defences
    assert all(view.budget == 4 and view.rounded and view.queries.max() <= 4 for view in seen)


def test_defences_are_controls(here: Path, run: Run) -> None:
    told = document(run(*WORDS, "--defences", "--json"))
    net = zoo.load(TINY)
    for each, attack in zip(told["defences"], (FGSM(), FGSM(norm="l2")), strict=True):
        rows = controls(net, attack, both(net))
        assert each["controls"] == [dict(vars(row)) for row in rows]
        assert each["controls"][0]["defence"] == "none"
        found = attack(net, both(net))
        detector = feature_squeezing(net, found)
        assert each["detector"]["auc"] == pytest.approx(detector.auc)
        assert len(each["detector"]["clean"]) == int((found.best >= 0).sum())
        assert width(each["detector"]["picture"]) > 200
    shown = run(*WORDS, "--defences", "--overwrite")
    row = told["defences"][0]["controls"][1]
    assert "attacked, knowing it" in shown.stdout
    assert f"{row['clean']} of 2" in next(line for line in shown.stdout.splitlines() if line.startswith("BitDepth"))
    assert f"area under its ROC curve of {told['defences'][0]['detector']['auc']:.2f}" in shown.stdout
    none = run(
        "attack", "cat.png", "--model", TINY, "--method", "fgsm:eps=1e-6,refine=0", "--defences", "--out", "none"
    )
    assert none.exit_code == 0
    assert "fooled nothing, so there is nothing to detect" in none.stdout


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("the weather is bad")])
def test_what_was_attacked_is_a_set_whatever_happens_after_it(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def failing(*given: Any, **words: Any) -> None:
        raise error

    monkeypatch.setattr("seewhy.attack.why_it_fails.diagnose", failing)
    done = run("attack", "cat.png", "dog.png", "--model", TINY, "--why")
    rows = sets.load("seewhy-attack").rows
    if isinstance(error, KeyboardInterrupt):
        assert done.exit_code == 130
        assert "what was attacked so far is a set in seewhy-attack" in done.stderr
        assert [row["image"] for row in rows] == ["cat.png"]
    else:
        assert done.exit_code == 0
        assert [row["image"] for row in rows] == ["cat.png", "dog.png"]
        assert "cat.png: the weather is bad" in done.stderr
        assert "cat.png, fgsm: not measured, for the reason above." in done.stdout
        alone = run("attack", "cat.png", "--model", TINY, "--why", "--out", "alone")
        assert alone.exit_code == 0  # the attack's own answer stands


def test_a_damaged_picture_of_a_set_is_named(here: Path, run: Run) -> None:
    document(run("attack", "cat.png", "--model", TINY, "--json"))
    (name,) = [each["file"] for each in sets.load("seewhy-attack").rows]
    path = here / "seewhy-attack" / name
    whole = path.read_bytes()
    chunk = whole.index(b"IDAT")
    path.write_bytes(whole[: chunk - 4] + bytes(4) + whole[chunk:])
    damaged = run("attack", "--judge", "seewhy-attack", "--model", TINY)
    assert damaged.exit_code == 2
    assert name in damaged.stderr
    assert "damaged" in damaged.stderr
    assert len(damaged.stderr.splitlines()) == 1


def test_nothing_to_attack_is_said(here: Path, run: Run) -> None:
    none = run("attack", "--model", TINY)
    assert none.exit_code == 2
    assert "give at least one image" in none.stderr
    absent = run("attack", "--judge", "nix", "--model", TINY)
    assert absent.exit_code == 2
    assert "there is no folder nix" in absent.stderr
    size = run("attack", "cat.png", "--model", TINY, "--method", "fgsm:eps=8")
    assert size.exit_code == 2
    assert "did you mean 8/255?" in size.stderr


def test_progress_moves_within_one_attack(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.attack import FGSM
    from seewhy.cli.attack import _ticking
    from seewhy.cli.work import Work

    told: list[float] = []
    net = zoo.load(TINY)
    net.engine = Engine(batch=4)
    work: Any = Work(*[None] * 6)  # type: ignore[arg-type]
    work.within = told.append
    with _ticking(net, FGSM(), work):
        FGSM()(net, net.read("cat.png"))
    assert net.engine.progress is None
    assert len(told) > 3
    assert told == sorted(told)
    assert 0 < told[-1] <= 0.99
