"""`seewhy versus`: votes against predictions, beside published results, and every bad input's one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.conftest import TINY, Run
from seewhy import zoo
from seewhy.data import load as load_data

PEOPLE = ("ann", "bob", "cid")
CLASSES = ("dog", "tabby", "tiger cat")


@pytest.fixture
def pets(here: Path) -> Path:
    """Thirty pictures in a folder a class, and a table of three people's answers, who are right three times in four."""
    drawn = np.random.default_rng(1)
    lines = ["annotator,image,answer,seconds,condition"]
    for index in range(30):
        name = CLASSES[index % 3]
        folder = here / "pets" / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = drawn.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
        for person in PEOPLE:
            answer = name if drawn.random() < 0.75 else CLASSES[int(drawn.integers(3))]
            lines.append(f"{person},{index:02d}.png,{answer},1.5,{'clear' if index < 15 else 'foggy'}")
    (here / "votes.csv").write_text("\n".join(lines) + "\n")
    return here


WORDS = ("versus", "--votes", "votes.csv", "--data", "pets", "--model", TINY, "--rounds", "100")


def document(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def read_document() -> Any:
    return json.loads(Path("seewhy-versus/versus.json").read_text())


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_votes_against_predictions(pets: Path, run: Run) -> None:
    told = document(run(*WORDS, "--json"))
    assert told["votes"] | {"classes": None} == {
        "spec": "votes.csv",
        "name": "votes",
        "images": 30,
        "votes": 90,
        "annotators": 3,
        "classes": None,
        "conditions": ["clear", "foggy"],
        "not_in_data": [],
        "without_votes": [],
    }
    assert tuple(told["votes"]["classes"]) == CLASSES
    # the accuracy, counted by hand: the model's classes stand in another order than people's
    net, data = zoo.load(TINY), load_data("pets")
    logits = net.predict(data.images(range(30), net.preprocess))
    answers = [net.labels[index] for index in logits.argmax(1).tolist()]
    truth = [name.partition("/")[0] for name in data.names]
    right = sum(mine == true for mine, true in zip(answers, truth, strict=True))
    assert told["agreement"]["rates"]["main"]["network"]["value"] == pytest.approx(right / 30)
    rows = read(Path("seewhy-versus/images.csv"))
    assert [row["model"] for row in rows] == answers
    assert [row["true"] for row in rows] == truth
    by_hand = {row["image"]: 0 for row in read(Path("votes.csv"))}
    for row in read(Path("votes.csv")):
        by_hand[row["image"]] += row["answer"] == CLASSES[int(row["image"][:2]) % 3]
    assert [round(3 * float(row["people_share_true"])) for row in rows] == [by_hand[row["image"]] for row in rows]
    mean = np.mean([float(row["people_share_true"]) for row in rows])
    assert told["agreement"]["rates"]["main"]["people"]["value"] == pytest.approx(mean, abs=1e-5)
    for file in told["files"].values():
        assert Path(file).stat().st_size > 0
    assert {"accuracy", "classes", "conditions", "consistency", "images", "predictions", "figure: versus"} <= set(
        told["files"]
    )
    assert read_document()["agreement"] == told["agreement"]


def test_a_second_time_it_prints_for_people_and_takes_its_predictions_again(pets: Path, run: Run) -> None:
    document(run(*WORDS, "--json"))
    stamp = Path("seewhy-versus/predictions.npz").stat().st_mtime_ns
    again = run(*WORDS)
    assert again.exit_code == 2
    assert "would be overwritten" in again.stderr
    result = run(*WORDS, "--overwrite", "--people", "three friends", "--truth", "folders")
    assert result.exit_code == 0, result.stderr
    assert Path("seewhy-versus/predictions.npz").stat().st_mtime_ns == stamp
    for said in ("How often who is right", "mean annotator", "By class", "By condition", "The people: three friends."):
        assert said in result.stdout
    assert "The truth: folders." in result.stdout
    assert "Note: 90 votes for 30 images in 3 classes, 3 an image, by 3 annotators, in 2 conditions" in result.stdout
    assert "were taken from seewhy-versus: model and images are the same" in result.stdout
    assert "files in seewhy-versus" in result.stderr


def test_one_condition_and_the_first_images(pets: Path, run: Run) -> None:
    told = document(run(*WORDS, "--condition", "foggy", "--limit", "6", "--json"))
    assert told["votes"]["images"] == 6
    said = " ".join(told["agreement"]["notes"])
    assert 'only what was answered in the condition "foggy"' in said
    assert "the first 6 of 15 images" in said
    assert "images of the data set without votes, left out: 15" in said
    wrong = run(*WORDS, "--condition", "fogy", "--overwrite")
    assert wrong.exit_code == 2
    assert 'there is no condition "fogy"; did you mean "foggy"' in wrong.stderr


def test_worse_images_and_a_baseline(pets: Path, run: Run) -> None:
    told = document(run(*WORDS, "--worse", "--baseline", "ham10000-experts", "--baseline", "ham10000-77", "--json"))
    rows = told["worse"]["rows"]
    assert {row["kind"] for row in rows} == {"blur", "noise", "contrast", "jpeg", "resolution", "condition"}
    assert [row["shown"] for row in rows if row["who"] == "people"] == ["clear", "foggy"]
    assert Path("seewhy-versus/worse.png").exists()
    experts, origin = told["baselines"]
    assert experts["indirect"]
    assert experts["people"]
    assert "indirect" in experts["words"]
    assert not origin["people"]
    assert "nothing follows" in origin["words"]
    assert "In the condition foggy people are right on" in " ".join(told["worse"]["words"])


def test_a_baseline_without_votes(pets: Path, run: Run) -> None:
    words = ("versus", "--baseline", "ham10000-readers", "--data", "pets", "--model", TINY)
    told = document(run(*words, "--json"))
    assert told["data"]["images"] == 30
    assert 0 <= told["accuracy"]["low"] <= told["accuracy"]["value"] <= told["accuracy"]["high"] <= 1
    shown = run(*words, "--overwrite")
    assert " on 30 images of pets: " in shown.stdout
    assert "balanced accuracy" in shown.stdout
    assert told["performance"]["images"] == 30
    assert "17.91 right of 30" in shown.stdout


def test_the_published_results_are_listed(run: Run) -> None:
    told = document(run("versus", "--baselines", "--json"))["baselines"]
    assert len(told) == 8
    shown = run("versus", "--baselines").stdout
    for each in told:
        assert each["name"] in shown
        assert each["source"] in shown
    assert "nobody: a small CNN of a public notebook" in shown


def test_a_label_map_and_flagged_annotators(pets: Path, run: Run) -> None:
    lines = Path("votes.csv").read_text().splitlines()
    told_apart = [line.replace("tabby", "cat").replace("tiger cat", "cat") for line in lines]
    drawn = np.random.default_rng(5)
    guessed = [f"guesser,{i:02d}.png,{('cat', 'dog')[int(drawn.integers(2))]},0.05,clear" for i in range(30)]
    Path("votes.csv").write_text("\n".join([*told_apart, *guessed]) + "\n")
    for name in ("tabby", "tiger cat"):
        for file in (pets / "pets" / name).iterdir():
            (pets / "pets" / "cat").mkdir(exist_ok=True)
            file.rename(pets / "pets" / "cat" / file.name)
        (pets / "pets" / name).rmdir()
    failed = run(*WORDS)
    assert failed.exit_code == 2
    assert 'the model has no class "cat"; did you mean "tiger cat"' in failed.stderr
    assert "--label-map" in failed.stderr
    Path("map.csv").write_text("class,category\ntabby,cat\ntiger cat,cat\ndog,dog\n")
    shown = run(*WORDS, "--label-map", "map.csv", "--combine", "sum")
    assert shown.exit_code == 0, shown.stderr
    assert "a category's probability is their sum over its classes" in shown.stdout
    assert "warning: 1 annotator answers in no time" in shown.stderr
    assert "flagged, and kept: 1 annotator answers in no time" in json.dumps(read_document()["agreement"]["notes"])
    assert read_document()["votes"]["annotators"] == 4
    told = document(run(*WORDS, "--label-map", "map.csv", "--drop-flagged", "--json", "--overwrite"))
    assert {flag["what"]: flag["annotators"] for flag in told["flags"]}["in no time"] == ["guesser"]
    assert told["label_map"]["combine"] == "mean"
    assert told["votes"]["annotators"] == 3
    assert any("1 annotator with 30 answers left out: guesser" in note for note in told["agreement"]["notes"])
    Path("map.csv").write_text("class,category\ntabby,cat\n")
    short = run(*WORDS, "--label-map", "map.csv", "--overwrite")
    assert short.exit_code == 2
    assert "no class of the model belongs to dog, which images show" in short.stderr


def test_votes_and_images_that_miss_each_other(pets: Path, run: Run) -> None:
    with Path("votes.csv").open("a") as file:
        file.write("ann,elsewhere.png,dog,1,clear\n")
    Path("pets/dog/extra.png").write_bytes(Path("pets/dog/00.png").read_bytes())
    Path("pets/dog/03.png").write_bytes(b"no picture")
    told = document(run(*WORDS, "--json"))
    assert told["votes"]["not_in_data"] == ["elsewhere.png"]
    assert told["votes"]["without_votes"] == ["dog/extra.png"]
    assert told["votes"]["images"] == 29
    said = " ".join(told["agreement"]["notes"])
    assert "images that were voted for and are not in the data set, left out: 1 (elsewhere.png)" in said
    assert "images that cannot be read, left out: 1" in said


def test_one_annotator_has_no_kappa(pets: Path, run: Run) -> None:
    lines = [line for line in Path("votes.csv").read_text().splitlines() if line.startswith(("annotator", "ann"))]
    Path("votes.csv").write_text("\n".join(lines) + "\n")
    told = document(run(*WORDS, "--json"))
    assert told["agreement"]["consistency"]["people"]["value"] is None
    assert [flag["what"] for flag in told["flags"]] == ["one annotator"]
    assert "how well people agree with each other cannot be told" in " ".join(told["agreement"]["notes"])


def test_counts_in_the_data_sets_order(pets: Path, run: Run) -> None:
    np.save("counts.npy", np.tile([3, 1, 0], (30, 1)))
    told = document(
        run("versus", "--votes", "counts.npy", "--data", "pets", "--model", TINY, "--rounds", "100", "--json")
    )
    assert told["votes"]["annotators"] is None
    assert told["agreement"]["rates"]["main"]["people"]["value"] == pytest.approx((10 * 3 + 10 * 1) / 4 / 30)
    np.save("counts.npy", np.tile([3, 1, 0], (29, 1)))
    failed = run("versus", "--votes", "counts.npy", "--data", "pets", "--model", TINY, "--overwrite")
    assert failed.exit_code == 2
    assert "counts votes for 29 images, and the data set has 30" in failed.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("versus",), "give --votes, or a --baseline"),
        (("versus", "--votes", "votes.csv"), "give the images with --data"),
        (
            ("versus", "--baseline", "ham1000-77", "--data", "pets"),
            'no baseline "ham1000-77"; did you mean "ham10000-77"',
        ),
        (("versus", "--votes", "vote.csv", "--data", "pets"), 'no file or folder vote.csv; did you mean "votes.csv"'),
        (
            ("versus", "--votes", "tabel:votes.csv", "--data", "pets"),
            'no format of votes "tabel"; did you mean "table"',
        ),
    ],
)
def test_what_is_not_given_or_not_there(words: tuple[str, ...], sentence: str, pets: Path, run: Run) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr
