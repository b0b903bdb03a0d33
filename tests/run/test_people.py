"""The audit beside people: every record against what the parts answer directly; resuming, budgets, and bad input."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nets import Spelled, classifier, photos
from seewhy.classifier import Classifier
from seewhy.data.folders import folder
from seewhy.errors import DataError, RunError, SpecError
from seewhy.explain import Gradient
from seewhy.humans.agreement import agreement
from seewhy.humans.load import load
from seewhy.humans.match import matched
from seewhy.humans.parting import SETS, parting
from seewhy.humans.performance import performance
from seewhy.humans.properties import PROPERTIES, measured
from seewhy.report.html import render
from seewhy.run import MODEL, Asked, Run, audit, comparing, summary
from seewhy.run import people as planning
from seewhy.run.material import Material, gather, untrained

KINDS = ("ant", "bee", "cat", "dog")
EACH = 15


@pytest.fixture(scope="module")
def net() -> Classifier:
    return classifier(Spelled("in-place"))


@pytest.fixture(scope="module")
def data(net: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one subfolder a class, whose classes are mostly what the net says; one image is broken."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for number, pixels in enumerate(photos(len(KINDS) * EACH, seed=3)):
        kind = KINDS[number % len(KINDS)]
        answer = net.labels[int(net.predict(pixels[None]).argmax())]
        if draw.random() < 0.6 and answer in KINDS:
            kind = answer
        (root / kind).mkdir(exist_ok=True)
        Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).save(root / kind / f"{number:02d}.png")
    (root / "ant" / "broken.png").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def votes(data: Path) -> Path:
    """A table of four annotators; some images nobody saw, and one vote is for an image that is not there."""
    draw = np.random.default_rng(1)
    lines = ["annotator,image,label", "ada,ant/nowhere.png,ant"]
    for number, path in enumerate(sorted(data.rglob("*.png"))):
        if number % 10 == 9:
            continue
        truth = path.parent.name
        for who, sure in (("ada", 0.9), ("bob", 0.8), ("cyd", 0.7), ("dee", 0.6)):
            label = truth if draw.random() < sure else KINDS[draw.integers(4)]
            lines.append(f"{who},{path.relative_to(data)},{label}")
    file = data.parent / "votes.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def carried_out(net: Classifier, data: Path, out: Path, asked: Asked, **words: Any) -> Run:
    return audit(
        net, [data], out, spec="spelled", methods=["gradient"], budget=None, limit=1, people=asked, **words
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(net: Classifier, data: Path, votes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    told: list[tuple[float, float, str]] = []
    found = carried_out(
        net, data, tmp_path_factory.mktemp("out") / "run", Asked(votes, baselines=("cifar10h", "ham10000-77")),
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert all(total == told[0][1] and 0 <= done <= total for done, total, _ in told)
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    return found


@pytest.fixture(scope="module")
def both(net: Classifier, data: Path, votes: Path) -> Any:
    """What people and the net answered, put together by hand: votes, probabilities, labels, properties."""
    images = folder(data).aligned(net.labels)
    found = matched(load(votes, images.names, images.classes), images.names)
    kept = [(row, place) for row, place in enumerate(found.places.tolist()) if "broken" not in images.names[place]]
    pixels = images.images([place for _, place in kept], net.preprocess).pixels
    chances = net.predict(pixels).double().softmax(1).numpy()[:, :4]
    chances /= chances.sum(1, keepdims=True)
    labels = [int(images.labels[place] or 0) for _, place in kept]  # type: ignore[index]
    return found.votes.subset([row for row, _ in kept]), chances, labels, measured(pixels).numpy().astype(float)


def test_every_step_was_done(run: Run, data: Path) -> None:
    rows = run.results(MODEL)
    assert all(row.ok for row in rows), [row.error for row in rows if not row.ok]
    steps = [row.step for row in rows]
    name = data.name
    assert [step for step in steps if not step.startswith("case:")] == [
        *("identity", "answers:0-54", f"performance:{name}", "agreement", "parting", f"worse:{name}")
    ]
    cases = run.record(MODEL, "parting")["cases"]
    assert len(cases) == len([step for step in steps if step.startswith("case:")]) >= 3
    assert run.record(MODEL, "answers:0-54")["unreadable"][0].startswith("ant/broken.png")


def test_the_numbers_are_the_parts_own(run: Run, net: Classifier, data: Path, both: Any) -> None:
    given, chances, labels, properties = both
    alone = performance(chances, labels, given.classes, data=data.name, model=net.name)
    record = run.record(MODEL, f"performance:{data.name}")
    assert record["rows"] == alone.rows()
    assert record["confusion"] == alone.confusion.tolist()
    assert [each["name"] for each in record["beside"]] == ["cifar10h", "ham10000-77"]
    assert "indirect" in record["beside"][0]["words"]
    assert record["beside"][1]["of_people"] is False
    compared = agreement(given, chances, labels, model=net.name)
    held = run.record(MODEL, "agreement")
    assert held["headline"] == compared.verdict.headline
    assert held["tables"]["classes"] == comparing.plain(compared.rows("classes"))
    assert held["annotators"] == 4
    named = dict(zip(PROPERTIES, properties.T, strict=True))
    parted = parting(given, chances, labels, properties=named, model=net.name)
    there = run.record(MODEL, "parting")
    assert [(row["set"], row["images"]) for row in there["rows"]] == list(parted.counts().items())
    assert there["words"] == parted.words()
    assert there["rows"][1]["effects"] == parted.rows()[1]["effects"]


def test_a_case_is_explained_as_the_method_does(run: Run, net: Classifier, data: Path) -> None:
    row = next(row for row in run.results(MODEL) if row.step.startswith("case:"))
    case, maps = row.record["case"], row.record["maps"]
    assert case["set"] in SETS
    images = net.read(data / case["image"])
    answer = int(net.predict(images).argmax())
    assert maps[0]["label"] == net.labels[answer]
    values = Gradient()(net, images, answer).values[0].numpy()
    assert np.array_equal(run.array(MODEL, row.step, "values-0"), values)
    if case["people"] != maps[0]["label"]:
        assert maps[1]["label"] == case["people"]
    shown = np.asarray(Image.open(run.picture(row.record["picture"])))
    assert np.array_equal(shown, (images.pixels[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert sum(share for _, share in case["votes"]) <= 1 + 1e-9


def test_worse_images_tell_balanced_accuracy_too(run: Run, data: Path) -> None:
    record = run.record(MODEL, f"worse:{data.name}")
    assert {row["kind"] for row in record["rows"]} >= {"blur", "noise", "contrast", "jpeg", "resolution"}
    clean = next(row for row in record["rows"] if row["level"] is None)
    rows = {row["what"]: row for row in run.record(MODEL, f"performance:{data.name}")["rows"]}
    assert record["images"] == rows["accuracy"]["images"]
    assert clean["balanced"] == pytest.approx(rows["balanced accuracy"]["value"])


def test_a_stopped_run_ends_in_the_same_rows(
    run: Run, net: Classifier, data: Path, votes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stopping(word: str) -> Any:
        def tell(done: float, total: float, what: str) -> None:
            if word in what:
                raise Stop

        return tell

    asked = Asked(votes, baselines=("cifar10h", "ham10000-77"))
    for word in ("performance", "agreement", "case:2", "worse"):
        with pytest.raises(Stop):
            carried_out(net, data, tmp_path / "run", asked, progress=stopping(word))
    counted: list[int] = []
    plain = net.predict

    def counting(images: Any) -> torch.Tensor:
        counted.append(len(images))
        return plain(images)

    monkeypatch.setattr(net, "predict", counting)
    with carried_out(net, data, tmp_path / "run", asked) as again:
        assert 55 not in counted  # the answers on the whole set were kept
        for one, other in zip(run.results(MODEL)[1:], again.results(MODEL)[1:], strict=True):
            assert (one.step, one.record) == (other.step, other.record)
            for name in run.names(MODEL, one.step):
                assert np.array_equal(
                    run.array(MODEL, one.step, name), again.array(MODEL, one.step, name), equal_nan=True
                )
        assert section(render(again)) == section(render(run))


def section(page: str) -> str:
    """The page's section on people."""
    start = page.index('<section id="people"')
    return page[start : page.index("</section>", start)]


def test_another_vote_is_another_run(net: Classifier, data: Path, votes: Path, run: Run) -> None:
    other = data.parent / "other.csv"
    lines = votes.read_text().splitlines()
    other.write_text("\n".join([*lines[:-1], lines[-1].rsplit(",", 1)[0] + ",bee"]) + "\n")
    for asked in (Asked(other, baselines=("cifar10h", "ham10000-77")), Asked(votes), Asked()):
        with pytest.raises(RunError, match="the votes, the label map or the baselines differ"):
            carried_out(net, data, run.directory, asked)
    moved = data.parent / "moved.csv"
    moved.write_text(votes.read_text())  # where they lie may differ, what they are may not
    carried_out(net, data, run.directory, Asked(moved, baselines=("cifar10h", "ham10000-77"))).close()


def test_a_baseline_alone_and_nothing_at_all(net: Classifier, data: Path, tmp_path: Path) -> None:
    with carried_out(net, data, tmp_path / "alone", Asked(baselines=("ham10000-readers",))) as run:
        steps = [row.step for row in run.results(MODEL)]
        assert "agreement" not in steps
        assert "parting" not in steps
        page = render(run)
        assert "Is it better than people?" in page
        assert "Nobody’s votes on these images were given" in page
        assert "What can and cannot be said" in page
        assert "--votes" in page
        assert "Published results: indirect" in page
        told = summary(run)["people"]
        assert any("balanced accuracy" in sentence for sentence in told)
        assert any("indirect" in sentence for sentence in told)
    with carried_out(net, data, tmp_path / "nothing", Asked()) as run:
        assert "Is it better than people?" not in render(run)
        assert run.plan["people"] is None


def test_the_report_shows_it(run: Run) -> None:
    page = render(run)
    record = run.record(MODEL, "agreement")
    assert page.count(record["headline"].replace("'", "&#39;")) >= 2  # at the top, and where it is shown
    for text in ("The same errors?", "What is taken for what", "Who knows when to doubt?", "Where they part",
                 "With worse images", "Published results: indirect", "not a result of people", "4 annotators"):  # fmt: skip
        assert text in page, text
    assert "people are left out" not in page
    assert "1 of 55 images cannot be read" in page
    assert "ant/nowhere.png" in page  # votes for an image that is not there


def test_the_budget_draws_images_and_says_so(
    net: Classifier, data: Path, votes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = gather([data], net.labels)
    people = planning.People(net, material, Asked(votes))
    assert len(people.positions) == 55
    everything = planning.planned(net, material, people, None, Gradient())
    assert (everything["images"], everything["worse"], everything["left_out"]) == (55, 55, [])
    monkeypatch.setattr(planning, "LEAST", 10)
    short = planning.planned(net, material, people, 1e-4, Gradient())
    assert (short["images"], short["worse"]) == (10, 0)
    assert short["left_out"][0].startswith(
        "the comparison with people takes 10 of 55 labelled images by chance (seed 0)"
    )
    assert "images made worse" in short["left_out"][1]
    chosen = planning.drawn(people, 10)
    assert chosen == sorted(chosen) == planning.drawn(people, 10)
    assert len(set(chosen)) == 10
    assert set(chosen) < set(people.positions)


def data_of(material: Material) -> Any:
    return material.given[0]


def test_wrong_words_get_one_sentence(net: Classifier, data: Path, votes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SpecError, match='no baseline "ham10000-reader"; did you mean "ham10000-readers"'):
        carried_out(net, data, out, Asked(baselines=("ham10000-reader",)))
    strangers = tmp_path / "strangers.csv"
    strangers.write_text("annotator,image,label\nada,x.png,ant\nada,y.png,bee\n")
    with pytest.raises(DataError, match=r"none of the 2 images that .* has votes for is in the data set"):
        carried_out(net, data, out, Asked(strangers))
    with pytest.raises(
        SpecError, match="a label map takes the model's classes to people's categories, and needs their votes"
    ):
        carried_out(net, data, out, Asked(label_map=votes))
    others = tmp_path / "others.csv"
    others.write_text(votes.read_text().replace(",bee", ",wasp"))
    with pytest.raises(DataError, match='the model has no class "wasp"'):
        carried_out(net, data, out, Asked(others))
    with pytest.raises(DataError, match="needs images whose true class is known"):
        audit(net, [data / "ant" / "broken.png", *sorted((data / "bee").glob("*.png"))], out,
              people=Asked(baselines=("cifar10h",)), budget=None)  # fmt: skip
    assert not out.exists()


def test_images_that_a_classifier_was_trained_on_are_left_out(data: Path, net: Classifier, tmp_path: Path) -> None:
    material = gather([data], net.labels)
    names = data_of(material).names
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    (tuned / "card.json").write_text(json.dumps({"data": {"name": data.name}}))
    parts = ["train" if place % 3 else "held out" for place in range(len(names))]
    rows = "\n".join(f"{part},{name}" for part, name in zip(parts, names, strict=True))
    (tuned / "predictions.csv").write_text(f"part,image\n{rows}\n")
    left = untrained(material, f"file:{tuned}")
    kept = tuple(name for name, part in zip(names, parts, strict=True) if part == "held out")
    assert tuple(entry.item.name for entry in left.entries) == left.given[0].names == left.sets[0].names == kept
    assert "are left out: the model was trained on them" in left.notes[-1]
    assert untrained(material, "efficientnet-lite0") == material
    (tuned / "card.json").write_text(json.dumps({"data": {"name": "another set"}}))
    assert untrained(material, f"file:{tuned}").entries == material.entries
    (tuned / "card.json").write_text("{}")
    with pytest.raises(DataError, match="does not say what its classifier was trained on"):
        untrained(material, f"file:{tuned}")


def test_the_recipes_tables_are_the_rows(run: Run, data: Path, tmp_path: Path) -> None:
    """Markdown for the documentation's pages: every number from a row, put between markers, and nowhere else."""
    path = Path(__file__).parents[2] / "recipes" / "people_tables.py"
    spec = importlib.util.spec_from_file_location("people_tables", path)
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    parts = {**tables.agreed(run), "performance": tables.performances(run), "recalls": tables.recalls(run),
             "published": tables.published(run), "worse": tables.worse(run)}  # fmt: skip
    held = run.record(MODEL, "agreement")
    assert parts["verdict"][0].startswith(f"**{held['headline']}**")
    first = held["tables"]["accuracy"][0]
    assert (
        f"| {first['who']} | {100 * first['accuracy']:.1f} % ({100 * first['accuracy low']:.1f} to "
        in parts["accuracy"][2]
    )
    assert len(parts["classes"]) == 2 + len(held["tables"]["classes"])
    assert len(parts["worse"]) == 2 + 1 + 25  # as they are, and five levels of five kinds
    assert len(parts["recalls"]) == 2 + 4
    assert "**not a result of people**" in "\n".join(parts["published"])
    for lines in parts.values():
        columns = {line.count(" | ") for line in lines if line.startswith("| ")}
        assert len(columns) <= 2  # one table, or two
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- part: accuracy -->\nold\n<!-- end -->\nafter\n")
    tables.written(page, {"accuracy": parts["accuracy"]}, "the command")
    text = page.read_text()
    assert text.startswith("before\n<!-- part: accuracy -->\n| who | accuracy")
    assert text.endswith("`the command`.\n<!-- end -->\nafter\n")
    assert "old" not in text
    with pytest.raises(SystemExit, match="has no part classes"):
        tables.written(page, {"classes": []}, "the command")


def test_the_run_can_be_read_without_seewhy(run: Run) -> None:
    with sqlite3.connect(run.directory / "results.sqlite") as database:
        held = dict(database.execute("SELECT step, record FROM results WHERE image = 'model'"))
    database.close()
    record = json.loads(held["agreement"])
    assert {"headline", "tables", "confusion", "reliability", "limits"} <= set(record)
    assert torch.tensor(record["confusion"]["network"]).shape == (4, 4)
