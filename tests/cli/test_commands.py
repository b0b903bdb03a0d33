"""What the commands answer: tables for people, one document with --json, pictures where they were asked for."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from seewhy import zoo
from seewhy.cli.doctor import EXTRAS, _extra
from seewhy.data.sets import Item
from seewhy.errors import SpecError
from seewhy.explain import GradCAM
from seewhy.method import registry
from seewhy.report.reading import Reading
from seewhy.report.sections.made import command
from seewhy.run import Run as Opened
from seewhy.run import audit
from seewhy.units import duration

from .conftest import TINY, Run


def document(result: Result) -> Any:
    """The JSON that is all of stdout."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def opened(path: str | Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        picture.load()
        return np.asarray(picture)


def test_explain(here: Path, run: Run) -> None:
    """One picture a method, an image and a class, and the library's own numbers in the document and the arrays."""
    words = ("--method", "grad-cam:layer=2", "--method", "gradient", "--class", "dog", "--class", "0")
    told = document(run("explain", "cat.png", "dog.png", "--model", TINY, *words, "--arrays", "--json"))
    rows = told["explanations"]
    assert [(row["image"], row["method"], row["class"]["label"]) for row in rows] == [
        (image, method, label)
        for image in ("cat.png", "dog.png")
        for method in ("grad-cam:layer=2", "gradient")
        for label in ("dog", "tabby")
    ]
    assert sorted(path.name for path in Path("seewhy-explain").iterdir()) == sorted(
        f"{image}.{method}.{name}.{ending}"
        for image in ("cat", "dog")
        for method in ("grad-cam-layer=2", "gradient")
        for name in ("dog", "0")
        for ending in ("png", "npz")
    )
    net = zoo.load(TINY)
    expected = GradCAM(layer="2")(net, net.read("dog.png"), target="dog")
    row = rows[4]
    assert min(opened(row["picture"]).shape[:2]) > 100
    assert row["score"] == pytest.approx(expected.score.item(), rel=1e-5)
    assert row["layer"] == "2"
    assert row["cost"]["backward"] == 2  # of both classes together
    with np.load(Path(row["picture"]).with_suffix(".npz")) as held:
        np.testing.assert_allclose(held["values"], expected.values.numpy(), rtol=1e-5)
    assert told["model"]["fingerprint"] == net.fingerprint
    assert told["failed"] == []


def test_explain_contrast_compare_and_whole(here: Path, run: Run) -> None:
    """Predicted, runner-up and difference of two methods, their agreement, and pictures of the photograph's own size."""
    words = ("--method", "grad-cam:layer=2", "--method", "gradient", "--contrast", "--compare", "--whole", "--arrays")
    told = document(run("explain", "cat.png", "--model", TINY, *words, "--json"))
    net = zoo.load(TINY)
    first, second = net.predict(net.read("cat.png"))[0].topk(2).indices.tolist()
    labels = [net.labels[first], net.labels[second], f"{net.labels[first]} − {net.labels[second]}"]
    assert [row["class"]["label"] for row in told["explanations"]] == 2 * labels
    held = [np.load(Path(row["picture"]).with_suffix(".npz"))["values"] for row in told["explanations"][:3]]
    np.testing.assert_allclose(held[2], held[0] - held[1], atol=1e-6)
    with Image.open("cat.png") as photo:
        assert all(opened(row["picture"]).shape[1::-1] == photo.size for row in told["explanations"])
    (compared,) = told["compared"]
    assert compared["agreement"]["methods"] == ["grad-cam:layer=2", "gradient"]
    matrix = compared["agreement"]["rank_correlations"]
    assert matrix[0][1] == matrix[1][0]
    assert set(compared["pictures"]) == {"compared", "agreement"}
    assert all(opened(path).size for path in compared["pictures"].values())
    refused = run("explain", "cat.png", "--model", TINY, "--contrast", "--class", "0", "--out", "other")
    assert refused.exit_code == 2
    assert "--contrast is of two classes, got 1" in refused.stderr


def test_explain_plan_lists_the_rules(here: Path, run: Run) -> None:
    told = document(run("explain", "--plan", "--method", "lrp", "--model", TINY, "--json"))["plans"]["lrp"]
    assert [row["rule"] for row in told if row["op"] == "conv2d"] == ["flat", "z-plus"]
    shown = run("explain", "--plan", "--method", "lrp", "--model", TINY).stdout
    assert "conv2d" in shown
    refused = run("explain", "--plan", "--method", "gradient", "--model", TINY)
    assert refused.exit_code == 2
    assert "gradient has no rules to list; these have: " in refused.stderr
    nothing = run("explain", "--model", TINY)
    assert nothing.exit_code == 2
    assert "give at least one image" in nothing.stderr


def test_a_label_map_can_be_given_as_a_path(here: Path, run: Run) -> None:
    side = zoo.load(TINY).size[0]
    np.save(here / "parts.npy", np.arange(side)[:, None] * 2 // side + 2 * (np.arange(side) * 2 // side))
    told = document(run("explain", "cat.png", "--model", TINY, "--method", "lime:segments=parts.npy", "--json"))
    assert told["explanations"][0]["measures"]["segments"] == 4


def test_explain_for_people(here: Path, run: Run) -> None:
    result = run("explain", "cat.png", "--model", TINY)
    assert result.exit_code == 0
    head, row = result.stdout.splitlines()
    assert head.split() == ["image", "method", "class", "score", "measures", "picture"]
    assert row.startswith("cat.png  grad-cam  ")
    assert row.endswith("seewhy-explain/cat.grad-cam.png")
    assert "1 picture in seewhy-explain" in result.stderr
    quiet = run("explain", "cat.png", "--model", TINY, "--overwrite", "--quiet")
    assert quiet.stderr == ""
    assert quiet.stdout == result.stdout


def test_pictures_are_never_overwritten_unless_asked(here: Path, run: Run) -> None:
    kept = here / "out" / "cat.gradient.png"
    kept.parent.mkdir()
    kept.write_text("mine")
    words = ("explain", "cat.png", "--model", TINY, "--method", "gradient", "--out", "out")
    result = run(*words)
    assert result.exit_code == 2
    assert "cat.gradient.png would be overwritten" in result.stderr
    assert "--overwrite" in result.stderr
    assert kept.read_text() == "mine"
    assert run(*words, "--overwrite").exit_code == 0
    assert opened(kept).size


def test_attack(here: Path, run: Run) -> None:
    """The adversarial image on disk fools the model as it was said to."""
    told = document(run("attack", "cat.png", "dog.png", "--model", TINY, "--json"))
    net = zoo.load(TINY)
    assert len(told["attacks"]) == 2
    for row in told["attacks"]:
        pixels = torch.from_numpy(opened(row["adversarial"]).copy()).permute(2, 0, 1)[None].float() / 255
        label = net.labels[int(net.predict(pixels).argmax())]
        assert label == row["after"]["label"]
        assert row["fooled"] == (label != row["before"]["label"])
        clean = net.read(row["image"]).pixels
        assert float((pixels - clean).abs().max()) <= row["shown_eps"] + 0.5 / 255 + 1e-6
        if row["fooled"]:
            assert row["smallest_eps"] == row["shown_eps"] > 0
        assert opened(row["picture"]).size
    assert any(row["fooled"] for row in told["attacks"])


def test_attack_towards_a_class(here: Path, run: Run) -> None:
    net = zoo.load(TINY)
    predicted = net.labels[int(net.predict(net.read("cat.png")).argmax())]
    target = next(label for label in net.labels if label != predicted)
    told = document(run("attack", "cat.png", "--model", TINY, "--target", target, "--json"))
    assert told["attacks"][0]["target"] == target
    refused = run("attack", "cat.png", "--model", TINY, "--target", predicted)
    assert refused.exit_code == 2
    assert "other than the true class" in refused.stderr


def test_look(here: Path, run: Run) -> None:
    told = document(run("look", "--model", TINY, "--json"))
    assert [row["method"] for row in told["looks"]] == ["filters"]
    told = document(run("look", "cat.png", "dog.png", "--model", TINY, "--method", "all", "--out", "both", "--json"))
    assert {row["method"] for row in told["looks"]} == set(registry("look"))
    assert {row["method"] for row in told["looks"] if row["image"]} >= {"activations", "deepdream", "invert"}
    assert {row["method"] for row in told["looks"] if not row["image"]} >= {
        "filters",
        "exemplars",
        "units",
        "before-after",
    }
    for row in told["looks"]:
        assert opened(row["picture"]).size
        assert row["found"]
    one = document(run("look", "cat.png", "--model", TINY, "--method", "all", "--out", "one", "--json"))
    assert {"method": "before-after", "error": "expected two images, the one before and the one after, got 1"} in one[
        "failed"
    ]
    words = ("--method", "activations:layer=0", "--over", "--arrays", "--json")
    deep = document(run("look", "cat.png", "--model", TINY, *words))
    assert deep["looks"][0]["layer"] == "0"
    with np.load(Path(deep["looks"][0]["picture"]).with_suffix(".npz")) as held:
        assert held["maps"].shape == (1, 8, 8, 8)


def test_look_shows_impressions_to_another_model_and_names_units_by_masks(here: Path, run: Run) -> None:
    words = ("--method", "maximize:objective=logit(0-1),steps=4", "--also", TINY)
    told = document(run("look", "--model", TINY, *words, "--json"))
    (row,) = told["looks"]
    for image in row["found"]["images"]:
        (other,) = image["others"].values()
        assert other == {
            "probability": pytest.approx(image["probability"], rel=1e-4),
            "recognised": image["recognised"],
        }
    assert any("images as their class" in note for note in row["notes"])
    for name in ("dark", "light"):
        (here / "photos" / name).mkdir(parents=True)
        (here / "masks" / name).mkdir(parents=True)
        pixels = np.full((16, 16, 3), 0 if name == "dark" else 255, dtype=np.uint8)
        Image.fromarray(pixels).save(here / "photos" / name / "one.png")
        mask = np.full((16, 16), 255, dtype=np.uint8)
        mask[4:8, 4:8] = 0
        Image.fromarray(mask).save(here / "masks" / name / "one.png")
    named = ("look", "photos", "--model", TINY, "--method", "units:quantile=0.1", "--json")
    told = document(run(*named, "--masks", "masks", "--out", "named"))
    assert {"concept", "iou"} <= set(told["looks"][0]["found"]["named"][0]) or not told["looks"][0]["found"]["named"]
    (here / "masks" / "light" / "one.png").unlink()
    refused = run(*named, "--masks", "masks", "--out", "other")
    assert refused.exit_code == 2
    assert "there is none for light/one.png" in refused.stderr
    astray = run("look", "cat.png", "--model", TINY, "--masks", "masks")
    assert astray.exit_code == 2
    assert "--masks is for units" in astray.stderr


def test_look_places_new_images_on_a_saved_map(here: Path, run: Run) -> None:
    drawn = np.random.default_rng(1)
    for folder, count in (("old", 12), ("new", 2)):
        for name, shade in (("tabby", 40), ("dog", 200)):
            (here / folder / name).mkdir(parents=True)
            for number in range(count):
                pixels = shade + drawn.integers(-20, 20, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(here / folder / name / f"{number}.png")
    words = ("--method", "map:perplexity=4,iterations=50")
    (made,) = document(run("look", "old", "--model", TINY, *words, "--out", "map", "--json"))["looks"]
    onto = ("--onto", made["saved"])
    told = document(run("look", "new", "--model", TINY, *onto, "--arrays", "--json"))
    (row,) = told["looks"]
    assert (row["map"], row["layer"]) == (made["saved"], made["layer"])
    assert opened(row["picture"]).size
    assert (row["found"]["images"], row["found"]["map"]) == (4, 24)
    for each in row["found"]["placed"]:
        kind = each["image"].partition("/")[0]
        assert each["class"] == kind
        assert {name.partition("/")[0] for name in each["nearest"]} == {kind}
    with np.load(Path(row["picture"]).with_suffix(".npz")) as held:
        at = [each["at"] for each in row["found"]["placed"]]
        assert np.allclose(held["coordinates"], at)
    shown = run("look", "new/dog/0.png", "cat.png", "--model", TINY, *onto, "--out", "shown")
    assert shown.exit_code == 0
    assert "dog" in shown.stdout
    assert "nearest on the map" in shown.stdout
    assert "drawn on the map: " in shown.stdout
    assert run("look", "new", "--model", TINY, *onto).exit_code == 2  # what is there is not overwritten


def test_look_refuses_what_is_no_map_of_the_model(here: Path, run: Run) -> None:
    (made,) = document(run("look", "cat.png", "dog.png", "--model", TINY, "--method", "map", "--out", "map", "--json"))[
        "looks"
    ]
    whole = Path(made["saved"]).read_bytes()
    (here / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(here / "other.npz", a=np.zeros(3))
    refused = {
        (
            "cat.png",
            "--onto",
            made["saved"],
            "--model",
            "cifar10-resnet20,weights=none",
        ): "has other weights; give the model",
        ("cat.png", "--onto", made["picture"], "--model", TINY): "is not a saved map of codes",
        ("cat.png", "--onto", "cut.npz", "--model", TINY): "cut.npz is not a saved map of codes",
        ("cat.png", "--onto", "other.npz", "--model", TINY): "give the .npz that",
        ("cat.png", "--onto", "nix.npz", "--model", TINY): "there is no file nix.npz; give the .npz that",
        ("cat.png", "--onto", made["saved"], "--model", TINY, "--method", "filters"): "leave out --method",
        ("--onto", made["saved"], "--model", TINY): "give at least one",
    }
    for words, sentence in refused.items():
        result = run("look", *words, "--out", "no")
        assert result.exit_code == 2, words
        assert sentence in result.stderr, words
        assert "Traceback" not in result.stderr


def test_exemplars_go_on_where_a_killed_command_was(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos").mkdir()
    for number in range(70):
        Image.fromarray(np.full((16, 16, 3), 3 * number, dtype=np.uint8)).save(here / "photos" / f"{number:02d}.png")
    words = ("look", "photos", "--model", TINY, "--method", "filters", "--method", "exemplars:k=3", "--json")
    whole = document(run(*words, "--out", "whole"))
    monkeypatch.setattr("seewhy.look.exemplars.EVERY", 0.0)
    read = Item.read
    opened_now: list[str] = []

    def reading(self: Item, preprocess: Any) -> Any:
        opened_now.append(self.name)
        return read(self, preprocess)

    def stopping(self: Item, preprocess: Any) -> Any:
        if self.name == "66.png":
            raise KeyboardInterrupt
        return read(self, preprocess)

    monkeypatch.setattr(Item, "read", stopping)
    stopped = run(*words, "--out", "some")
    assert stopped.exit_code == 130
    assert "the same command goes on from here" in stopped.stderr
    assert list((here / "some").glob("*.state"))
    monkeypatch.setattr(Item, "read", reading)
    again = document(run(*words, "--out", "some"))
    assert opened_now[:6] == [
        f"{number}.png" for number in range(64, 70)
    ]  # what was looked at is not read for it again
    assert not list((here / "some").glob("*.state"))
    exemplars = [[row["found"] for row in told["looks"] if row["method"] == "exemplars:k=3"] for told in (whole, again)]
    assert exemplars[0] == exemplars[1]


def test_audit_report_and_again(here: Path, run: Run) -> None:
    """A run, its row for a bad image, the same again without doing anything twice, and its report anew."""
    words = ("audit", "cat.png", "nix.jpg", "--model", TINY, "--out", "run", "--method", "gradient", "--method", "fgsm")
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert "report: run/report.html" in result.stdout
    assert "cat.png" in result.stdout
    assert "failed: " in result.stdout
    assert "warning: " in result.stderr
    assert "nix.jpg" in result.stderr
    before = (here / "run" / "report.html").read_bytes()
    told = document(run(*words, "--json"))
    assert told["report"] == "run/report.html"
    assert [image["status"] for image in told["images"]] == ["ok", "failed"]
    other = run("audit", "dog.png", "--model", TINY, "--out", "run")
    assert other.exit_code == 2
    assert "--out" in other.stderr
    assert run("report", "run", "--out", "anew.html").exit_code == 0
    assert (here / "anew.html").read_bytes() == before
    assert run("report", "run", "--out", "anew.html").exit_code == 2
    assert run("report", "run", "--out", "anew.html", "--overwrite").exit_code == 0


def test_the_report_tells_the_whole_command(here: Path, run: Run) -> None:
    plain = ("audit", "cat.png", "--model", TINY, "--method", "gradient", "--full")
    whole = (*plain, "--precision", "bf16", "--device", "cpu", "--batch", "3", "--trust-pickle", "--out", "run")
    for words in (whole, (*plain, "--out", "other")):
        assert run(*words).exit_code == 0
        with Opened.open(here / words[-1]) as held:
            told = shlex.split(command(Reading(held)))
        assert told == ["seewhy", *words]
    assert run(*whole).exit_code == 0
    assert run(*plain, "--precision", "bf16", "--out", "run").exit_code == 0  # where it runs may differ


def test_a_run_of_other_code_with_the_same_weights_is_refused(here: Path, run: Run) -> None:
    words = ("audit", "cat.png", "--model", TINY, "--out", "run", "--method", "gradient")
    assert run(*words).exit_code == 0
    code = (here / "net.py").read_text()
    (here / "net.py").write_text(code.replace("nn.ReLU()", "nn.Hardtanh()"))
    refused = run(*words)
    assert refused.exit_code == 2
    assert "run belongs to another run: the file that the model is made from differs; choose another" in refused.stderr
    (here / "net.py").write_text(code)
    assert run(*words).exit_code == 0


def test_the_report_of_a_run_that_was_stopped_warns(here: Path, run: Run) -> None:
    def stop(done: float, total: float, what: str) -> None:
        if what.startswith("dog.png"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(zoo.load(TINY), ["cat.png", "dog.png"], "run", methods=["gradient"], budget=None, progress=stop)
    told = run("report", "run", "--json")
    assert told.exit_code == 0
    sentence = "This run is not finished: 1 of 2 photographs was not looked at yet. The same command goes on with it."
    assert f"warning: {sentence}" in told.stderr
    assert json.loads(told.stdout)["unfinished"] == sentence
    assert sentence in (here / "run" / "report.html").read_text()
    audit(zoo.load(TINY), ["cat.png", "dog.png"], "run", methods=["gradient"], budget=None).close()
    told = run("report", "run", "--json")
    assert told.stderr == ""
    assert json.loads(told.stdout)["unfinished"] == ""


def test_methods(run: Run) -> None:
    told = document(run("methods", "--json"))["methods"]
    assert {"grad-cam", "fgsm", "filters"} <= {row["name"] for row in told}
    listed = run("methods").stdout
    for row in told:
        assert row["name"] in listed
        assert row["shows"] in listed
    one = run("methods", "smoothgrad").stdout
    assert "samples" in one
    assert "whole number" in one
    assert all(f"\n{part}: " in one for part in ("Values", "Cost", "Limits", "Source"))
    assert document(run("methods", "grad-cam", "--json"))["options"] == [
        {"name": "layer", "kind": "text or none", "default": "none"}
    ]


def test_every_default_can_be_typed(run: Run) -> None:
    from seewhy.method import parse

    for row in document(run("methods", "--json"))["methods"]:
        typed = ",".join(f"{option['name']}={option['default']}" for option in row["options"])
        assert parse(f"{row['name']}:{typed}") == parse(row["name"])


def test_models_and_model(here: Path, run: Run) -> None:
    assert document(run("models", "--json"))["models"][0]["spec"] == "efficientnet-lite0"
    assert "cifar10-resnet20" in run("models").stdout
    told = document(run("model", TINY, "--json"))
    assert told["parameters"] == 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 3 + 3
    assert told["multiply_adds"] == 8 * 8 * 8 * 27 + 4 * 4 * 8 * 72 + 8 * 3
    shown = run("model", TINY).stdout
    assert "conv2d" in shown
    assert "linear" in shown


def test_data_show_and_check(here: Path, run: Run) -> None:
    for place, image in (("tabby", "cat.png"), ("dog", "dog.png")):
        (here / "set" / place).mkdir(parents=True)
        (here / image).rename(here / "set" / place / image)
    told = document(run("data", "show", "set", "--json"))
    assert (told["images"], told["classes"]) == (2, {"dog": 1, "tabby": 1})
    assert "tabby" in run("data", "show", "set").stdout
    (here / "set" / "dog" / "bad.jpg").write_text("no image")
    checked = run("check", TINY, "set", "--json")
    told = document(checked)
    net = zoo.load(TINY)
    hits = [int(net.predict(net.read(path)).argmax()) for path in ("set/tabby/cat.png", "set/dog/dog.png")]
    assert told["top1"] == ((hits[0] == 0) + (hits[1] == 2)) / 2
    assert told["images"] == 2
    assert [row["image"] for row in told["failed"]] == ["dog/bad.jpg"]
    below = run("check", TINY, "set", "--at-least", "100%")
    assert below.exit_code == (0 if told["top1"] == 1 else 1)


def test_check_draws_by_chance(here: Path, run: Run) -> None:
    """A folder is sorted by class: its first images would be of one class alone."""
    for kind, image in (("dog", "cat.png"), ("tabby", "dog.png")):
        (here / "set" / kind).mkdir(parents=True)
        for number in range(5):
            shutil.copy(here / image, here / "set" / kind / f"{number}.png")
    net = zoo.load(TINY)
    hits = [int(net.predict(net.read(path)).argmax()) for path in ("cat.png", "dog.png")]
    checked = run("check", TINY, "set", "--limit", "4", "--json")
    told = document(checked)
    assert told["images"] == 4
    assert told["top1"] == ((hits[0] == 2) + (hits[1] == 0)) / 2  # two of each class
    assert told["notes"] == ["4 of 10 images, drawn by chance (seed 0), each class with its share"]
    assert f"note: {told['notes'][0]}" in checked.stderr
    assert document(run("check", TINY, "set", "--limit", "10", "--json"))["notes"] == []
    assert document(run("check", TINY, "set", "--limit", "99", "--json"))["images"] == 10


def test_models_without_names_and_classes_that_are_none_of_theirs(here: Path, run: Run) -> None:
    """`check` takes the classes by number, `attack` leaves from the prediction, and both say so."""
    nameless = "file:net.py:build@none,size=16"
    for folder, names in (("set", ("dog", "tabby")), ("trips", ("alps", "sea"))):
        for place, image in zip(names, ("dog.png", "cat.png"), strict=True):
            (here / folder / place).mkdir(parents=True)
            shutil.copy(here / image, here / folder / place / image)
    net = zoo.load(nameless)
    hits = [int(net.predict(net.read(path)).argmax()) for path in ("dog.png", "cat.png")]
    checked = run("check", nameless, "set", "--json")
    told = document(checked)
    assert told["top1"] == sum(hit == place for place, hit in enumerate(hits)) / 2
    assert told["notes"] == [f"{nameless} came without names: its outputs are taken for set's classes in their order"]
    assert f"note: {told['notes'][0]}" in checked.stderr
    refused = run("check", TINY, "trips")
    assert refused.exit_code == 2
    assert 'the model has no class "alps", which trips has' in refused.stderr
    for model, data, lacking in ((nameless, "set", "dog"), (TINY, "trips", "alps")):
        attacked = run("attack", data, "--model", model, "--method", "fgsm:eps=8/255", "--out", f"of-{data}", "--json")
        told = document(attacked)
        assert len(told["attacks"]) == 2
        assert not any(row["wrong_at_start"] for row in told["attacks"])
        assert told["notes"][0].startswith(
            f'the true classes of {data} are not used: the model has no class "{lacking}"'
        )
        assert f"note: {told['notes'][0]}" in attacked.stderr
    assert document(run("attack", "set", "--model", TINY, "--json"))["notes"] == []


def test_doctor(here: Path) -> None:
    """In a process of its own, since it sets the allocator of the process up."""
    result = subprocess.run([sys.executable, "-m", "seewhy", "doctor", "--json"], capture_output=True, text=True)
    told = json.loads(result.stdout)
    statuses = {row["what"]: row["status"] for row in told["findings"]}
    assert result.returncode == (1 if "problem" in statuses.values() else 0)
    assert told["fit"] == (result.returncode == 0)
    assert {"python", "torch", "threads", "allocator", "OpenMP", "GPU", "extra zoo", "extra umap", "speed"} <= set(
        statuses
    )
    assert all(row["advice"] for row in told["findings"] if row["status"] != "ok")


def test_doctor_imports_every_package_of_every_extra(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are there as an installation brings, under the names that they are imported by."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    brought = {
        name: [re.split("[>=<]", package)[0] for package in packages]
        for name, packages in project["optional-dependencies"].items()
        if packages and name not in ("all", "dev")
    }
    called = {"umap": "umap-learn"}
    assert {name: [called.get(each, each) for each in packages] for name, (_, packages) in EXTRAS.items()} == brought
    (here / "first_package.py").touch()
    (here / "second_package.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(here)
    monkeypatch.setitem(EXTRAS, "zoo", ("models", ("first_package", "second_package")))
    found = _extra("zoo")
    assert found.status == "problem"
    assert found.found == "broken (second_package: RuntimeError: operator nms does not exist)"
    assert found.advice.startswith("second_package fails at its import")


def test_times_as_people_write_them() -> None:
    assert [duration(text) for text in ("5m", "90s", "1h30m", "2 min", "0.5h", "45")] == [300, 90, 5400, 120, 1800, 45]
    for text in ("", "0s", "five", "5d", "-3m", "1.2.3s"):
        with pytest.raises(SpecError):
            duration(text)
