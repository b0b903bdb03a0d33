"""`seewhy attack`: several methods and images, the set it leaves, why it fails, and judging a set again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cli.conftest import TINY, Run
from seewhy import zoo
from seewhy.attack import sets
from seewhy.engine import Engine

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
    from seewhy.cli.see import _ticking
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
