"""Whole tunings: learned, resumed after a kill to the same bits, measured, kept, and refused where they must be."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seewhy import zoo
from seewhy.data import load
from seewhy.errors import DataError, ModelError, RunError, SpecError
from seewhy.tune import Recipe, Tuned, marks, tune

from .conftest import COLOURS, RECIPE, draw_set, write_table

WORKER = Path(__file__).with_name("worker.py")


def worked(**task: object) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        str(WORKER),
        json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in task.items()}),
    ]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tuned(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """One tuning with a test set; made once."""
    folder = tmp_path_factory.mktemp("tuned")
    test = folder / "test"
    draw_set(test, {"amber": 6, "slate": 4}, seed=9)
    shutil.copy(material / "jade" / "000.png", test / "amber" / "seen.png")
    return tune(
        load(f"csv:{material / 'train.csv'}"),
        f"file:{material / 'net.py'}:build@{material / 'weights.safetensors'}",
        folder / "out",
        Recipe.parse(RECIPE),
        test=load(test),
    )


def test_a_set_is_learned_and_its_classifier_is_kept_for_every_command(tuned: Tuned) -> None:
    card = tuned.card
    assert card["hold_out"]["balanced_accuracy"] > 0.9
    assert card["test"]["accuracy"] == 1.0
    net = zoo.load(tuned.spec)
    assert net.labels == tuple(sorted(COLOURS))
    assert net.fingerprint == card["classifier"]["fingerprint"]
    assert not (tuned.folder / "training").exists()


def test_the_cards_numbers_are_those_that_the_classifier_gives(tuned: Tuned, material: Path) -> None:
    net = tuned.load()
    with (tuned.folder / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    held = [row for row in rows if row["part"] == "held out"]
    images = [net.read(material / row["image"]) for row in held]
    logits = torch.cat([net.predict(each) for each in images])
    labels = [net.index(row["label"]) for row in held]
    again = marks(logits, labels, net.labels).to_json()
    told = tuned.card["hold_out"]
    assert again["confusion"] == told["confusion"]
    assert again["balanced_accuracy"] == pytest.approx(told["balanced_accuracy"])
    assert again["log_loss"] == pytest.approx(told["log_loss"], abs=1e-4)
    for row, shares in zip(held, logits.softmax(1).tolist(), strict=True):
        assert [float(row[f"p({name})"]) for name in net.labels] == pytest.approx(shares, abs=1e-4)
    right = sum(row["label"] == row["predicted"] for row in held)
    assert told["accuracy"] == right / len(held)
    mirrored = zoo.load(f"{tuned.spec},views=4")
    averaged = marks(torch.cat([mirrored.predict(each) for each in images]), labels, net.labels).to_json()
    assert told["views"]["count"] == 4
    assert averaged["confusion"] == told["views"]["confusion"]
    assert averaged["log_loss"] == pytest.approx(told["views"]["log_loss"], abs=1e-4)
    page = (tuned.folder / "MODEL-CARD.md").read_text()
    assert f"**Balanced accuracy {told['balanced_accuracy']:.1%}**" in page
    assert page.index("Balanced accuracy") < page.index("- Accuracy")
    assert "not a medical device" in page
    assert tuned.card["data"]["fingerprint"] in page


def test_no_group_is_on_both_sides_and_every_class_has_its_share(tuned: Tuned, material: Path) -> None:
    with (tuned.folder / "predictions.csv").open() as stream:
        parts = {row["image"]: row["part"] for row in csv.DictReader(stream) if row["part"] != "test"}
    with (material / "train.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(parts) == len(rows)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"], set()).add(parts[row["path"]])
    assert all(len(side) == 1 for side in sides.values())
    for name, count in (("amber", 10), ("jade", 4), ("slate", 2)):
        assert sum(parts[row["path"]] == "held out" for row in rows if row["label"] == name) == count


def test_test_pictures_that_trained_are_left_out_and_said(tuned: Tuned) -> None:
    assert tuned.card["test"]["pictures"] == 10
    assert any("pixel for pixel" in note for note in tuned.card["test"]["data"]["notes"])
    assert tuned.card["test"]["classes"][1] | {"precision": None} == {
        **{"name": "jade", "pictures": 0, "recall": None, "recall_interval": None, "precision": None}
    }


def test_a_finished_tuning_answers_what_is_there_and_tests_once(
    tuned: Tuned, material: Path, model: str, tmp_path: Path
) -> None:
    before = (tuned.folder / "model.safetensors").stat().st_mtime_ns
    data = load(f"csv:{material / 'train.csv'}")
    again = tune(data, model, tuned.folder, Recipe.parse(RECIPE))
    assert again.card == tuned.card
    assert (tuned.folder / "model.safetensors").stat().st_mtime_ns == before
    draw_set(tmp_path, {"jade": 3}, seed=4)
    with pytest.raises(RunError, match="was tested on test already"):
        tune(data, model, tuned.folder, Recipe.parse(RECIPE), test=load(tmp_path))
    with pytest.raises(RunError, match=r"another recipe's lr\)"):
        tune(data, model, tuned.folder, Recipe.parse(RECIPE.replace("lr=0.01,h", "lr=0.02,h")))


def test_a_tuned_model_can_be_tuned_on_and_what_trained_it_is_not_held_out(
    tuned: Tuned, material: Path, tmp_path: Path
) -> None:
    data = load(f"csv:{material / 'train.csv'}")
    short = RECIPE.replace("epochs=16", "epochs=1")
    again = tune(data, tuned.spec, tmp_path / "again", Recipe.parse(f"{short},head_epochs=0,lr=1e-9,ema=0"))
    assert again.card["split"]["held"] == tuned.card["split"]["held"]  # the same seed, the same split
    assert again.card["hold_out"]["balanced_accuracy"] == pytest.approx(
        tuned.card["hold_out"]["balanced_accuracy"], abs=0.1
    )
    before, after = (load_file(each.folder / "model.safetensors")["8.weight"] for each in (tuned, again))
    assert torch.allclose(before, after, atol=1e-6)  # the classes are the same, so the last layer goes on
    assert again.card["model"]["tuned_before"]["name"] == tuned.card["name"]
    assert "Tuned before" in (again.folder / "MODEL-CARD.md").read_text()
    other = tune(data, tuned.spec, tmp_path / "other", Recipe.parse(f"{short},seed=5"))
    with (tuned.folder / "predictions.csv").open() as stream:
        trained = {row["image"] for row in csv.DictReader(stream) if row["part"] == "train"}
    with (other.folder / "predictions.csv").open() as stream:
        held = {row["image"] for row in csv.DictReader(stream) if row["part"] == "held out"}
    assert held
    assert not held & trained
    assert any("trained the model that is tuned here" in note for note in other.card["notes"])
    assert zoo.load(again.spec).labels == zoo.load(tuned.spec).labels


@pytest.fixture(scope="module")
def undisturbed(material: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """What a training that nobody disturbs leaves behind."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = RECIPE.replace("epochs=16", "epochs=2,patience=5").replace("float32", "bf16")
    net = f"file:{material / 'net.py'}:build@{material / 'weights.safetensors'}"
    task: dict[str, object] = {"data": f"csv:{material / 'train.csv'}", "model": net, "recipe": recipe}
    done = worked(**task, out=folder)
    assert done.returncode == 0, done.stderr
    return task, folder


@pytest.mark.parametrize(
    ("kill", "often"),
    [(9, 0.0), pytest.param(3, 0.0, marks=pytest.mark.slow), pytest.param(14, 1e9, marks=pytest.mark.slow)],
)
def test_a_killed_training_goes_on_to_the_same_bits(
    kill: int, often: float, undisturbed: tuple[dict[str, object], Path], tmp_path: Path
) -> None:
    task, finished = undisturbed
    stopped = worked(**task, out=tmp_path / "killed", kill=kill, often=often)
    assert stopped.returncode == -9
    assert (tmp_path / "killed" / "training" / "checkpoint.pt").is_file()
    gone_on = worked(**task, out=tmp_path / "killed")
    assert gone_on.returncode == 0, gone_on.stderr
    whole, killed = (load_file(folder / "model.safetensors") for folder in (finished, tmp_path / "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    cards = [json.loads((folder / "card.json").read_text()) for folder in (finished, tmp_path / "killed")]
    assert cards[0]["hold_out"] == cards[1]["hold_out"]
    assert [row["loss"] for row in cards[0]["history"]] == [row["loss"] for row in cards[1]["history"]]


def test_the_global_generator_is_untouched(material: Path, model: str, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    tune(load(f"csv:{material / 'train.csv'}"), model, tmp_path / "out", Recipe.parse("epochs=1,precision=float32"))
    assert torch.equal(before, torch.random.get_rng_state())


def test_broken_pictures_are_left_out_and_named(material: Path, model: str, tmp_path: Path) -> None:
    rows = draw_set(tmp_path, {"amber": 12, "jade": 12})
    (tmp_path / "jade" / "003.png").write_text("no picture")
    write_table(tmp_path / "t.csv", [*rows, ("jade/gone.png", "jade", "x"), ("amber/000.png", "", "y")])
    card = tune(load(tmp_path / "t.csv"), model, tmp_path / "out", Recipe.parse("epochs=1,precision=float32")).card
    reasons = dict(map(tuple, card["data"]["left_out"]))
    assert len(reasons) == 3
    assert "is not an image" in reasons["jade/003.png"]
    assert "no file" in reasons["jade/gone.png"]
    assert "jade/003.png" in (tmp_path / "out" / "MODEL-CARD.md").read_text()


def test_an_empty_class_is_left_out_and_one_of_a_single_group_trains(model: str, tmp_path: Path) -> None:
    draw_set(tmp_path, {"amber": 12, "jade": 12, "slate": 1})
    (tmp_path / "void").mkdir()
    data = load(tmp_path)
    data = replace(data, classes=(*(data.classes or ()), "unicorn"))
    card = tune(data, model, tmp_path / "out", Recipe.parse("epochs=1,precision=float32")).card
    assert card["labels"] == ["amber", "jade", "slate"]
    assert any("no picture shows" in note and "unicorn" in note for note in card["notes"])
    assert any("slate are of one group" in note for note in card["notes"])
    assert card["hold_out"]["classes"][2]["recall"] is None
    assert any("which pictures show the same thing" in note for note in card["notes"])


def test_what_cannot_be_tuned_is_refused(material: Path, model: str, tmp_path: Path) -> None:
    draw_set(tmp_path / "one", {"amber": 4})
    with pytest.raises(DataError, match='at least two classes in one, got only "amber"'):
        tune(load(tmp_path / "one"), model, tmp_path / "out")
    with pytest.raises(DataError, match="does not say its pictures' classes"):
        tune(load(tmp_path / "one" / "amber"), model, tmp_path / "out")
    with pytest.raises(ModelError, match=r"no last layer to replace|does not run with"):
        tune(load(material / "train.csv"), _fixed(tmp_path), tmp_path / "out3")
    with pytest.raises(ModelError, match=r"no last layer|leave out weights"):
        tune(load(material / "train.csv"), _exported(tmp_path), tmp_path / "out4")


def _fixed(folder: Path) -> str:
    """A network whose answers don't come from a layer of so many outputs."""
    (folder / "odd.py").write_text(
        "from torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.last = nn.Linear(1728, 8)\n"
        "    def forward(self, x):\n"
        "        return self.last(x.flatten(1))[:, :4]\n"
    )
    return f"file:{folder / 'odd.py'}:Odd,size=24,weights=none"


def _exported(folder: Path) -> str:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1728, 4)).eval()
    free = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (torch.rand(2, 3, 24, 24),), dynamic_shapes=(free,))
    torch.export.save(program, folder / "net.pt2")
    return f"export:{folder / 'net.pt2'}"


def test_recipes_are_read_and_checked() -> None:
    assert Recipe.parse("").spec == ""
    assert Recipe.parse("epochs=2+3,sides=96+128,balance=0").spec == "epochs=2+3,sides=96+128,balance=0.0"
    for text, told in {
        "lr=0": "lr above 0",
        "balance=2": "balance between 0 and 1",
        "imbalance=magic": "one of sampler, loss",
        "epochs=0": "whole numbers",
        "sides=64": "each of the 3 stages",
        "hold_out=1": "both excluded",
        "learning=1": "has no option",
        "batch=1": "batch of at least 2",
    }.items():
        with pytest.raises(SpecError, match=told):
            Recipe.parse(text)


def test_sides_follow_the_model() -> None:
    assert Recipe().stages((224, 224))[:2] == ((128, 128), (128, 128))
    assert sorted({side for side, _ in Recipe().stages((224, 224))}) == [128, 160, 192]
    assert {side for side, _ in Recipe().stages((32, 32))} == {32}
    assert {side for side, _ in Recipe.parse("epochs=4").stages((224, 224))} == {192}
    assert Recipe.parse("epochs=1,sides=112").stages((224, 448))[-1] == (112, 224)


def test_pictures_of_which_none_can_be_read(tmp_path: Path, model: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text("nothing")
    with pytest.raises(DataError, match="none of the 2 pictures"):
        tune(load(tmp_path), model, tmp_path / "out")
