"""`seewhy look` where some of what it was asked for cannot be done: the rest is done, and said what was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file, save_file

from seewhy.data.sets import Item
from seewhy.lens.capture import capture
from seewhy.look import Statistics

from .conftest import TINY, Run


def document(result: Result) -> Any:
    """The JSON that is all of stdout."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def plain(path: Path, level: int) -> None:
    """A picture of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), level, dtype=np.uint8)).save(path)


def several(folder: Path, count: int) -> None:
    """Greys of two classes in turn."""
    for number in range(count):
        plain(folder / ("odd" if number % 2 else "even") / f"{number:02d}.png", 3 * number)


def test_a_look_that_fails_takes_no_other_with_it(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks at a set and one at each image, of which the first fails; and one whose memory runs out."""
    words = ("look", "cat.png", "--model", TINY, "--method", "before-after", "--method", "filters")
    told = document(run(*words, "--method", "activations", "--json"))
    assert [row["method"] for row in told["looks"]] == ["filters", "activations"]
    assert told["failed"] == [
        {"method": "before-after", "error": "expected two images, the one before and the one after, got 1"}
    ]

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Statistics, "__call__", full)
    words = ("look", "cat.png", "--model", TINY, "--method", "statistics", "--out", "full")
    told = document(run(*words, "--method", "filters", "--json"))
    assert told["failed"] == [{"method": "statistics", "error": "memory ran out"}]
    assert run(*words).exit_code == 1  # alone, it is the command that fails
    nothing = run("look", "cat.png", "--model", TINY, "--method", "before-after", "--method", "statistics")
    assert nothing.exit_code == 2
    assert nothing.stdout == ""
    assert "nothing to show, for the reasons above" in nothing.stderr.splitlines()[-1]


def test_an_image_that_cannot_be_read_takes_no_look_with_it(here: Path, run: Run) -> None:
    (here / "bad.png").write_text("dear diary")
    told = document(run("look", "bad.png", "--model", TINY, "--method", "filters", "--method", "activations", "--json"))
    assert [row["method"] for row in told["looks"]] == ["filters"]
    assert "bad.png is not an image" in told["failed"][0]["error"]


def test_layers_units_and_classes_are_checked_before_any_pass(here: Path, run: Run) -> None:
    several(here / "photos", 6)
    for late, words in (
        ("activations:layer=22", 'did you mean "2"'),
        ("activations:layer=6", "not maps"),
        ("filters:layer=1", 'no convolution "1"'),
        ("statistics:layers=7", "no layer or operation"),
        ("exemplars:units=8", "there is no unit 8"),
        ("units:layer=x", "no layer or operation"),
        ("map:layer=x", "no layer or operation"),
        ("before-after:layer=x", "no layer or operation"),
        ("invert:layer=x", "no layer or operation"),
        ("maximize:objective=logit(cow)", 'no class "cow"'),
        ("deepdream:objective=channel(0;8)", "from 0 to 7"),
    ):
        refused = run("look", "photos", "--model", TINY, "--method", "exemplars", "--method", late)
        assert refused.exit_code == 2, late
        assert words in refused.stderr, late
        assert not list(here.glob("seewhy-look/*")), late
    told = document(run("look", "--model", TINY, "--method", "all", "--method", "filters:layer=1", "--json"))
    assert {row["method"] for row in told["looks"]} == {"filters", "maximize"}  # of all, those that can be
    assert [each["method"] for each in told["failed"]] == ["filters:layer=1"]


def test_an_image_that_a_layer_answers_nothing_to_does_not_end_the_others(here: Path, run: Run) -> None:
    weights = load_file(here / "weights.safetensors")
    weights["0.weight"], weights["0.bias"] = torch.full((8, 3, 3, 3), 0.1), torch.zeros(8)
    save_file(weights, here / "weights.safetensors")
    plain(here / "black.png", 0)
    plain(here / "white.png", 255)
    words = ("--method", "invert:layer=1,steps=2", "--method", "activations", "--json")
    told = document(run("look", "black.png", "white.png", "--model", TINY, *words))
    assert [(row["image"], row["method"]) for row in told["looks"]] == [
        ("black.png", "activations"),
        ("white.png", "invert:layer=1,steps=2"),
        ("white.png", "activations"),
    ]
    assert told["failed"] == [
        {"image": "black.png", "error": "1 answers zero everywhere to black.png: there is nothing to invert"}
    ]


@pytest.mark.parametrize("levels", [(9,), (9, 9, 9)])
def test_images_that_units_answer_alike_to_have_exemplars(levels: tuple[int, ...], here: Path, run: Run) -> None:
    for number, level in enumerate(levels):
        plain(here / "photos" / f"kind {number % 2}" / f"{number}.png", level)
    plain(here / "photos" / "kind 1" / "9.png", 200)  # beyond the limit: it comes last
    words = ("--method", "exemplars:k=2", "--limit", len(levels), "--json")
    (row,) = document(run("look", "photos", "--model", TINY, *words))["looks"]
    assert any("answer alike to all images, so no class has units of its own" in note for note in row["notes"])
    assert Path(row["picture"]).exists()
    assert "classes" not in row
    assert not list(here.glob("seewhy-look/*.state"))


def test_each_layer_has_a_picture(here: Path, run: Run) -> None:
    several(here / "photos", 6)
    words = ("look", "photos", "--model", TINY, "--method", "exemplars:layers=1+3,k=2", "--arrays")
    (row,) = document(run(*words, "--json"))["looks"]
    assert list(row["layers"]) == ["1", "3"]
    pictures = [path for each in row["layers"].values() for path in (each["picture"], each["classes"])]
    assert len({Path(path).read_bytes() for path in pictures}) == 4
    assert (row["picture"], row["classes"]) == (pictures[0], pictures[1])
    assert len(list((here / "seewhy-look").iterdir())) == 5  # and the arrays
    again = run(*words)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    listed = run(*words, "--overwrite")
    assert "2 pictures in" in listed.stderr
    assert all(each["picture"] in listed.stdout for each in row["layers"].values())


def test_looks_of_one_slug_have_files_of_their_own(here: Path, run: Run) -> None:
    specs = [f"maximize:objective=channel(0;1{sign}3),steps=1" for sign in ";-"]
    told = document(run("look", "--model", TINY, *(word for spec in specs for word in ("--method", spec)), "--json"))
    assert [row["method"] for row in told["looks"]] == specs
    first, second = (Path(row["picture"]) for row in told["looks"])
    assert first.read_bytes() != second.read_bytes()


def test_magnitudes_are_those_of_the_images_that_can_be_read(here: Path, run: Run) -> None:
    (here / "bad.png").write_text("dear diary")
    words = ("--model", TINY, "--method", "maximize:parametrization=maco,steps=1,objective=logit(0),snapshots=0")
    good = document(run("look", "cat.png", "dog.png", *words, "--out", "good", "--json"))
    result = run("look", "cat.png", "bad.png", "dog.png", *words, "--out", "some", "--json")
    assert document(result)["looks"][0]["found"] == good["looks"][0]["found"]
    assert "1 of 3 images have no part in the magnitudes: " in result.stderr
    refused = run("look", "bad.png", *words, "--out", "none")
    assert refused.exit_code == 2
    assert "bad.png is not an image" in refused.stderr


def test_batches_that_memory_made_smaller_are_a_note(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def tight(net: Any, batch: torch.Tensor, layers: Any) -> Any:
        if len(batch) > 1:
            raise MemoryError
        return capture(net, batch, layers)

    monkeypatch.setattr("seewhy.look.statistics.capture", tight)
    result = run("look", "cat.png", "dog.png", "--model", TINY, "--method", "statistics", "--json")
    (row,) = document(result)["looks"]
    assert "memory ran out: forward passes ran in batches of 1" in row["notes"]
    assert "memory ran out" in result.stderr


def test_a_stopped_pass_goes_on_with_its_own_model_and_images_alone(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(here / "photos", 70)
    monkeypatch.setattr("seewhy.look.exemplars.EVERY", 0.0)
    words = ("look", "photos", "--model", TINY, "--method", "exemplars:k=3", "--json")
    read = Item.read

    def stopping(self: Item, preprocess: Any) -> Any:
        if self.name == "odd/69.png":
            raise KeyboardInterrupt
        return read(self, preprocess)

    def stopped(out: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Item, "read", stopping)
            assert run(*words, "--out", out).exit_code == 130
        assert list((here / out).glob("*.state"))

    stopped("weights")
    weights = load_file(here / "weights.safetensors")
    save_file({name: -value for name, value in weights.items()}, here / "weights.safetensors")
    other = document(run(*words, "--out", "weights"))
    assert other["looks"][0]["found"] == document(run(*words, "--out", "fresh"))["looks"][0]["found"]
    stopped("images")
    plain(here / "photos" / "even" / "00.png", 255)
    found = document(run(*words, "--out", "images"))["looks"][0]["found"]
    assert found == document(run(*words, "--out", "whole"))["looks"][0]["found"]


def test_a_state_that_is_cut_off_is_one_sentence(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    several(here / "photos", 4)
    words = ("look", "photos", "--model", TINY, "--method", "exemplars:k=3", "--overwrite")
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    assert run(*words).exit_code == 0
    (state,) = here.glob("seewhy-look/*.state")
    state.write_bytes(state.read_bytes()[:-200])
    refused = run(*words)
    assert refused.exit_code == 2
    assert "without it the pass begins anew" in refused.stderr
