"""What an audit finds out about a set as a whole: against the looks themselves, stopped and gone on with, and with bad input."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nets import Spelled, classifier
from seewhy.classifier import Classifier
from seewhy.data.folders import folder
from seewhy.data.masks import masks
from seewhy.errors import DataError, RunError, SpecError
from seewhy.look import CodeMap, Exemplars, Filters, Maximize, Statistics, Units
from seewhy.report.html import render
from seewhy.report.reading import Reading
from seewhy.report.sections import made
from seewhy.report.words import listed
from seewhy.run import Plan, Run, audit, learning, pace, plan, sets, unfinished
from seewhy.run.material import gather
from seewhy.run.pace import Offer, Pace, affordable
from seewhy.run.store import SET, STAND_IN
from seewhy.run.unfinished import _of_set, asked_for

#: quick looks of each kind
LOOKS = ("filters", "statistics", "exemplars:k=3,limit=2", "units:shuffles=19", "map:iterations=20", "maximize:steps=3")
KINDS = ("ant", "bee", "cat")


def write(root: Path, count: int, kinds: Sequence[str] = KINDS) -> Path:
    """A folder of a subfolder a class: pictures of one bright channel each, with noise."""
    draw = np.random.default_rng(0)
    for number in range(count):
        place = number % len(kinds)
        pixels = draw.integers(0, 90, (24, 24, 3), dtype=np.uint8)
        pixels[..., place % 3] += 150
        (root / kinds[place]).mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(root / kinds[place] / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def net() -> Classifier:
    torch.manual_seed(0)
    return classifier(Spelled("in-place"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of three classes, and one that is broken."""
    root = write(tmp_path_factory.mktemp("data") / "bugs", 60)
    (root / "bee" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def run(net: Classifier, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("out") / "run"
    return audit(net, [data], out, methods=[*LOOKS, "gradient"], budget=None, limit=3)


def row(run: Run, name: str, image: str = SET) -> Any:
    return next(each for each in run.results(image) if each.step.partition(":")[0] == name)


def test_the_set_is_larger_than_what_is_explained(run: Run) -> None:
    assert len(run.images()) == 3
    (planned,) = run.plan["sets"]
    assert (planned["id"], planned["images"], planned["of"], planned["model"]) == (SET, 61, 61, None)
    assert [each.ok for each in run.results(SET)] == [True] * len(run.results(SET))
    assert {each.step.partition(":")[0] for each in run.results(SET)} == {each.partition(":")[0] for each in LOOKS[1:]}
    assert Plan.from_json(run.plan).to_json() == run.plan


def test_exemplars_are_the_methods_own(run: Run, net: Classifier, data: Path) -> None:
    held = folder(data)
    record = row(run, "exemplars").record
    found = Exemplars(k=3, limit=2)(net, held)
    assert record["images"] == found.count == 60
    assert record["failed"][0]["error"].startswith("broken.png") or "broken.png" in record["failed"][0]["error"]
    (layer,) = record["layers"]
    assert layer["layer"] == found.layers[0]
    assert [each["unit"] for each in layer["drawn"]] == found.drawn[layer["layer"]].tolist()
    for each in layer["drawn"]:
        unit = each["unit"]
        images = [found.name(index) for index in found.images[layer["layer"]][unit].tolist()]
        assert [one["image"] for one in each["exemplars"]] == images
        assert each["purity"] == pytest.approx(float(found.purity[layer["layer"]][unit]))
        crops = found.cut(layer["layer"], unit, held, net)
        with Image.open(run.picture(each["picture"])) as strip:
            assert strip.size == (3 * 112 + 2 * 6, 112)
            first, clear = np.split(np.asarray(strip.crop((0, 0, 112, 112))), [3], 2)
        _, height, width = crops[0].shape
        side = [round(112 * length / max(height, width)) for length in (height, width)]
        down, across = ((112 - length) // 2 for length in side)
        inside = first[down : down + side[0], across : across + side[1]]
        small = np.asarray(Image.fromarray(inside).resize((width, height), Image.Resampling.NEAREST))
        assert np.array_equal(small, (crops[0] * 255).round().byte().permute(1, 2, 0).numpy())
        beside = np.ones((112, 112), dtype=bool)
        beside[down : down + side[0], across : across + side[1]] = False
        assert (clear[..., 0] == 255 * ~beside).all()  # white pages show through, and dark ones
    step = row(run, "exemplars").step
    shown = Reading(run).opened(layer["drawn"][0]["picture"])
    assert shown is not None
    assert shown.mode == "RGBA"  # what is clear stays so in the report
    assert np.array_equal(run.array(SET, step, "images.0"), found.images[layer["layer"]].numpy())
    assert np.array_equal(run.array(SET, step, "values.0"), found.values[layer["layer"]].numpy())


def test_the_other_looks_are_the_methods_own(run: Run, net: Classifier, data: Path) -> None:
    held = folder(data)
    units = Units(shuffles=19)(net, held)
    assert np.array_equal(run.array(SET, row(run, "units").step, "selectivity"), units.selectivity.numpy())
    assert row(run, "units").record["above"] == int((units.selectivity > units.floor).sum())
    statistics = Statistics()(net, held)
    assert row(run, "statistics").record["layers"] == statistics.facts()["layers"]
    mapped = CodeMap(iterations=20)(net, held)
    record = row(run, "map").record
    assert np.array_equal(run.array(SET, row(run, "map").step, "coordinates"), mapped.coordinates.numpy())
    assert record["knn_codes"] == mapped.knn_codes
    assert record["names"] == list(mapped.names)
    with Image.open(run.picture(record["pictures"]["thumbnails"])) as sheet:
        columns = sheet.width // record["thumbnail"][1]
        assert columns * (sheet.height // record["thumbnail"][0]) >= 60
        tile = np.asarray(sheet.crop((24, 0, 48, 24)))
    assert np.array_equal(tile, mapped.thumbnails[1].permute(1, 2, 0).numpy())


def test_images_are_made_of_the_classes_that_were_predicted_and_of_the_units_that_are_shown(
    run: Run, net: Classifier
) -> None:
    predicted = [run.record(image.id, "predict")["top"][0]["index"] for image in run.images()]
    made = [each for each in run.results(SET) if each.step.startswith("maximize")]
    classes = [each["class"]["index"] for each in made[0].record["images"]]
    assert classes == list(dict.fromkeys(predicted))
    drawn = row(run, "exemplars").record["layers"][0]
    assert [each["for"] for each in made[1].record["images"]] == [
        f"{drawn['layer']}, channel {each['unit']}" for each in drawn["drawn"][:2]
    ]
    direct = Maximize(objective=made[0].record["objective"], steps=3)(net)
    assert np.array_equal(run.array(SET, made[0].step, "images"), direct.images.pixels.numpy())
    said = net.predict(torch.from_numpy(run.array(SET, made[0].step, "images"))).softmax(1)
    for place, each in enumerate(made[0].record["images"]):
        assert each["class"]["probability"] == pytest.approx(float(said[place, classes[place]]), rel=1e-4)
        assert each["recognised"] == (int(said[place].argmax()) == classes[place])


def rows(run: Path) -> Any:
    with sqlite3.connect(run / "results.sqlite") as database:
        found = database.execute("SELECT * FROM results ORDER BY image, step").fetchall()
    database.close()
    files = {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}
    return found, {name: held for name, held in files.items() if name != "results.sqlite"}


def test_gone_on_with_after_a_stop_within_the_set_it_ends_the_same(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after each of the set's steps in turn, each time with a fresh model."""
    words: dict[str, Any] = {"methods": [*LOOKS, "gradient"], "budget": None, "limit": 3}
    count = len(run.results(SET))
    put, left = Run.put, 0

    def stopping(self: Run, image: str, step: str, *rest: Any, **named: Any) -> None:
        nonlocal left
        if image == SET:
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
        put(self, image, step, *rest, **named)

    monkeypatch.setattr(Run, "put", stopping)
    for _ in range(count - 1):
        torch.manual_seed(0)
        left = 1
        with pytest.raises(KeyboardInterrupt):
            audit(classifier(Spelled("in-place")), [data], tmp_path / "run", **words)
    monkeypatch.setattr(Run, "put", put)
    torch.manual_seed(0)
    audit(classifier(Spelled("in-place")), [data], tmp_path / "run", **words).close()
    assert rows(tmp_path / "run") == rows(run.directory)


def heard(run: Run) -> dict[str, list[str]]:
    """Each step's notes, or why it failed."""
    return {
        each.step.partition(":")[0]: each.record["notes"] if each.ok else [f"failed: {each.error}"]
        for each in run.results(SET)
    }


def test_one_class_one_image_and_constant_codes_are_said_and_nothing_is_lost(net: Classifier, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"methods": LOOKS, "budget": None}
    with audit(net, [write(tmp_path / "ants", 8, ("ant",))], tmp_path / "one-class", **asked) as run:
        told = heard(run)
        assert any("all labelled images are of one class" in each for each in told["exemplars"])
        assert any("all images are of one class" in each for each in told["units"])
        assert row(run, "units").record["named"] == []
        assert "one class" in render(run)
    (picture,) = (tmp_path / "ants" / "ant").glob("000.png")
    with audit(net, [picture], tmp_path / "one", **asked) as run:
        told = heard(run)
        assert "one image is one point, and no map" in told["map"]
        assert row(run, "exemplars").record["k"] == 1
        assert "One image shows very little" in render(run)
    silent = classifier(Spelled("module"))
    with torch.no_grad():  # the same to every image
        for name in ("conv1", "conv2"):
            silent.module.get_submodule(name).weight.zero_()  # type: ignore[operator]
    with audit(silent, [tmp_path / "ants"], tmp_path / "silent", **asked) as run:
        told = heard(run)
        assert any("codes are the same" in each for each in told["map"])
        assert any("answer the same to every image" in each for each in told["statistics"])
        assert all(len(notes) < 9 for notes in told.values())
        assert "failed" not in "".join(notes for notes in told["exemplars"])
        assert "every image lies at one point" in render(run)


def test_few_images_get_neither_a_map_nor_names_unless_they_are_asked_for(net: Classifier, tmp_path: Path) -> None:
    material = gather([write(tmp_path / "few", 6)], net.labels)
    (candidate,) = sets.candidates(net, material, None, Pace(0.001, 0.003))
    planned = candidate.planned(6, candidate.made)
    assert {look.name for look in planned.look} == {"statistics", "exemplars", "maximize"}
    assert dict(planned.without)["map"] == "a map would show nothing with fewer than 50 images, and here are 6"
    assert next(each.k for each in planned.look if isinstance(each, Exemplars)) == 6
    (candidate,) = sets.candidates(net, material, [CodeMap(), Units()], None)
    assert {look.name for look in candidate.planned(6, ()).look} == {"map", "units"}


def test_a_draw_that_keeps_groups_whole_is_drawn_the_same_again(net: Classifier, tmp_path: Path) -> None:
    """Of groups of three, asked for 10 images, fewer come: what is looked at later is what was planned."""
    data = folder(write(tmp_path / "lesions", 60))
    data = replace(data, groups=tuple(str(number // 3) for number in range(60)))
    planned = sets.Candidate(SET, data, net, None, (Statistics(),), None).planned(10, ())
    assert planned.images < planned.wanted == 10
    again = sets.PlannedSet.from_json(planned.to_json())
    assert again == planned
    assert again.drawn(data).fingerprint() == planned.sha256
    assert len(again.drawn(data)) == planned.images


def test_the_budget_chooses_how_many_images_and_how_many_steps(net: Classifier, tmp_path: Path) -> None:
    material = gather([write(tmp_path / "many", 130)], net.labels)
    words: dict[str, Any] = {"sources": [], "spec": "", "classes": [], "methods": [], "limit": None}

    def planned(seconds: float, budget: float | None) -> Plan:
        said = plan.asked(net, material, **words, budget=budget)
        return plan.make(net, material, said, [], None if budget is None else Pace(seconds, 2 * seconds))

    full, fast, slow, slower = planned(0, None), planned(1e-5, 120), planned(0.02, 120), planned(1.0, 60)
    assert [each.sets[0].images for each in (full, fast)] == [130, 130]
    assert len(fast.images) == plan.MOST
    assert 4 < slow.sets[0].images < 130
    assert slow.sets[0].images > len(slow.images) or len(slow.images) == plan.MOST
    assert (
        slower.sets[0].images == len(slower.images) == 4
    )  # those that are explained are looked at whatever the budget
    made = {
        id(each): [look for look in each.sets[0].look if isinstance(look, Maximize)] for each in (full, slow, slower)
    }
    assert made[id(full)][0].steps == 256
    assert made[id(slow)][0].steps < 256
    assert made[id(slower)] == []
    assert any(each.startswith("maximize would take about") for each in slower.left_out)
    assert any("images of" in each and "are looked at instead of" in each for each in slow.left_out)
    told = [each for each in slower.left_out if each.startswith("looking at images of many as a whole would take")]
    assert len(told) == 1
    assert "even as 50 images of many, more than the budget leaves" in told[0]


def test_many_images_are_reckoned_in_batches(net: Classifier) -> None:
    single = pace.Pace(0.04, 0.12, 0.001)
    found = pace.together(net, single, 16)
    assert found.forward < single.forward  # a tiny net, of which one image takes no such time
    assert found.both / found.forward == pytest.approx(3)
    assert found.read == single.read
    slow = pace.Pace(1.0, 3.0)
    assert pace.together(net, slow, 16) is slow


def test_a_set_that_changed_is_refused(net: Classifier, tmp_path: Path) -> None:
    data = write(tmp_path / "data", 9)
    words: dict[str, Any] = {"methods": ["statistics"], "budget": None, "limit": 2}
    with audit(net, [data], tmp_path / "run", **words) as run:
        explained = {image.name for image in run.images()}
    other = next(
        file for file in sorted(data.rglob("*.png")) if file.name not in {Path(name).name for name in explained}
    )
    Image.new("RGB", (24, 24)).save(other)
    with pytest.raises(RunError, match=r"images of .* have other contents there; choose another directory with --out"):
        audit(net, [data], tmp_path / "run", **words)


def test_offers_are_taken_in_order_and_then_made_better() -> None:
    offers = [
        Offer("a", (("a best", 9.0, "A"), ("a some", 3.0, "a"))),
        Offer("b", (("b best", 5.0, "B"), ("b some", 2.0, "b")), "are made"),
        Offer("c", (("c", 50.0, "C"),)),
    ]
    assert affordable(offers, 8.5) == (
        ["a", "B", None],
        [
            "c would take about 50.0 s, more than the budget leaves",
            "a some runs instead of a best, to stay within the budget",
        ],
    )
    assert affordable(offers, 5.0)[0] == ["a", "b", None]
    assert "b some are made instead of b best, to stay within the budget" in affordable(offers, 5.0)[1]
    assert affordable(offers, 1.0)[0] == [None, None, None]


def silhouettes(data: Path, root: Path) -> Path:
    """For each picture of `data` a mask of its middle, with an object of the name of its class."""
    for file in sorted(data.rglob("*.png")):
        mask = np.zeros((24, 24), dtype=np.uint8)
        mask[8:16, 8:16] = 255
        target = root / file.relative_to(data)
        target.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(mask).save(target)
    return root


def test_units_of_one_class_do_not_take_all_places() -> None:
    classes = [0, 0, 0, 0, 1, 0, 2]
    assert learning._mixed([3, 0, 6, 1, 2, 5, 4], classes) == [3, 0, 6, 1, 4, 2, 5]
    assert learning._mixed([], classes) == []


def test_masks_name_units_by_what_they_show(net: Classifier, data: Path, tmp_path: Path) -> None:
    root = silhouettes(data, tmp_path / "masks")
    words: dict[str, Any] = {"methods": ["units:shuffles=19,iou=0.01,quantile=0.05"], "budget": None, "limit": 1}
    out = tmp_path / "run"
    with audit(net, [data], out, masks=root, **words) as run:
        found = row(run, "units")
        assert found.ok, found.error
        held = folder(data)
        direct = Units(shuffles=19, iou=0.01, quantile=0.05)(net, held, masks(root, held, net.preprocess))
        assert direct.iou is not None
        assert np.array_equal(run.array(SET, found.step, "iou"), direct.iou.numpy())
        assert found.record["concepts"] == list(direct.concepts) == ["ant", "bee", "cat"]
        assert [each["unit"] for each in found.record["drawn"]] == direct.drawn.tolist() != []
        with Image.open(run.picture(found.record["drawn"][0]["picture"])) as strip:
            first = np.asarray(strip.convert("RGB").crop((0, 0, 96, 96)))
        assert np.array_equal(first, direct.sheet[0, 0].permute(1, 2, 0).numpy())
        html = Section(run).html
        said = f"{found.record['detectors']} of the {found.record['units']} units of {found.record['layer']} overlap one of 3"
        assert said in html
        unit, concept = found.record["drawn"][0]["unit"], found.record["drawn"][0]["concept"]
        assert f"Unit {unit}: {concept}" in html
        assert "--masks MASKS" not in html
        assert f"--masks {root}" in made.command(Reading(run))
    moved = shutil.move(root, tmp_path / "elsewhere")
    audit(net, [data], out, masks=moved, **words).close()  # where they lie may change
    file = next(Path(moved).rglob("*.png"))
    Image.new("L", (24, 24)).save(file)
    with pytest.raises(RunError, match="the masks differ; choose another directory"):
        audit(net, [data], out, masks=moved, **words)
    file.unlink()
    with pytest.raises(DataError, match="expected a mask for every image under its name in"):
        audit(net, [data], tmp_path / "other", masks=moved, **words)
    assert not (tmp_path / "other").exists()


def test_masks_that_nothing_would_look_at_are_refused(net: Classifier, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="masks are for units, which was not asked for; add --method units"):
        audit(net, [data], tmp_path / "run", methods=["statistics"], masks=data)
    with pytest.raises(SpecError, match="masks are of images that are given"):
        audit(net, [], tmp_path / "run", masks=data)


def test_few_images_get_names_where_they_have_masks(net: Classifier, tmp_path: Path) -> None:
    few = write(tmp_path / "few", 6)
    material = gather([few], net.labels)._replace(masks=silhouettes(few, tmp_path / "masks"))
    (candidate,) = sets.candidates(net, material, None, Pace(0.001, 0.003))
    assert candidate.masks == 3
    assert "units" in {look.name for look in candidate.planned(6, ()).look}
    (bare,) = sets.candidates(net, material._replace(masks=None), [Units()], Pace(0.001, 0.003))
    (masked,) = sets.candidates(net, material, [Units()], Pace(0.001, 0.003))
    assert masked.seconds(6) > bare.seconds(6)


class Section:
    """The report's section, as words."""

    def __init__(self, run: Run) -> None:
        text = render(run)
        self.whole = text
        self.html = text[text.index('<section id="learned"') : text.index('<section class="photo"')]


def test_the_report_shows_all_six(run: Run) -> None:
    section = Section(run).html
    for number, title in enumerate(
        ("Filters", "What the layers answer", "What excites", "Images made", "The map", "Units with"), 1
    ):
        assert f">{number}. {title}" in section
    assert section.count("<b>What it is.</b>") == section.count("<b>How to read it.</b>") == 6
    assert section.count("<b>What it cannot show.</b>") == 6
    assert section.count("cost: ") == 6
    assert "Looked at on all 61 images of " in section
    assert "three are explained one by one below" in section
    assert "broken.png" in section
    record = row(run, "exemplars").record["layers"][0]
    for each in record["drawn"]:
        assert f"<b>Unit {each['unit']}</b>" in section
        assert each["exemplars"][0]["image"] in section
    assert section.count('class="histogram"') == len(record["drawn"])
    assert section.count("<canvas") >= 1
    assert "The thumbnails of all 60 images, on a grid where" in section
    assert f"{row(run, 'units').record['above']:,} of the 8 units" in section
    assert "recognises" in section
    assert "No other model of the same classes is at hand" in section


#: sentences of the section that hold where nothing else was asked for
USUAL = (
    "the patterns that the first layer looks for",
    "The first layer slides small patterns over the photograph",
    "Those shown were chosen because their best images stand out most",
    "just before it decides; images with similar codes lie close together here (t-SNE)",
    "Distances between groups, and how large or dense they are, mean nothing.",
    "of the last layer that has maps",
)


def test_the_sections_sentences_are_about_what_was_asked_for(
    run: Run, net: Classifier, data: Path, tmp_path: Path
) -> None:
    usual = Section(run).html
    assert [sentence for sentence in USUAL if sentence not in usual] == []
    asked = [
        "filters:layer=conv2",
        "exemplars:k=3,units=1+2",
        "map:layer=conv1,layout=pca",
        "units:layer=conv1,shuffles=19",
    ]
    with audit(net, [data], tmp_path / "run", methods=asked, budget=None, limit=1) as other:
        section = Section(other).html
    assert [sentence for sentence in USUAL if sentence in section] == []
    for sentence in (
        "the patterns that convolutions look for",
        "Those shown were asked for.",
        "A layer answers to an image with a long list of numbers, its code; images with similar codes lie close together "
        "here (principal axes)",
        "What lies along the other axes is not seen",
        "For each unit of a layer, how much more",
    ):
        assert sentence in section
    assert "By the true classes" in section


def test_classes_that_stand_in_are_said_to_be_the_models(net: Classifier, data: Path) -> None:
    unlabelled = replace(folder(data), labels=(None,) * 61)
    held: Any = SimpleNamespace(net=net, data=unlabelled, masks=None)
    record = learning._named(held, Units(shuffles=19)).record
    assert not record["true_classes"]
    assert {each["label"] for each in record["named"]} <= set(net.labels)


def test_filters_are_counted_and_numbered_as_they_lie(net: Classifier, data: Path, tmp_path: Path) -> None:
    asked = ["filters:order=norm", "filters:view=slices", "filters:order=similarity", "filters"]
    with audit(net, [data], tmp_path / "run", methods=asked, budget=None, limit=1) as run:
        section = Section(run).html
    for order, words in (("norm", "the strongest first"), ("similarity", "those that are alike side by side")):
        numbers = [str(number) for number in Filters(order=order)(net).order.tolist()]
        assert f"8 filters of 3 × 3, in colour, as they weigh normalised pixels, {words}: {listed(numbers)}." in section
    assert (
        "24 slices of 8 filters, 3 × 3 each, one tile for each input, filter by filter from 0, row by row." in section
    )
    assert section.count("numbered from 0 row by row") == 1


#: looks that are asked for twice, and optimised images thrice
TWICE = (
    *("exemplars:layers=conv1,k=2,units=1+2", "exemplars:layers=conv2,k=2,units=1+2"),
    *("statistics:layers=conv1", "statistics:layers=conv2", "map:iterations=20", "map:layout=pca"),
    *("units:layer=conv1,shuffles=9", "units:layer=conv2,shuffles=9"),
    *("maximize:steps=2", "maximize:steps=3", "maximize:objective=channel(conv1;0),steps=2"),
)


def test_looks_that_are_asked_for_several_times_are_shown_as_often(net: Classifier, data: Path, tmp_path: Path) -> None:
    with audit(net, [data], tmp_path / "run", methods=TWICE, budget=None, limit=1) as run:
        assert all(each.ok for each in run.results(SET))
        assert not unfinished(run)
        section, whole = Section(run).html, Section(run).whole
        (planned,) = run.plan["sets"]
        there = {each.step: each for each in run.results(SET)}
        for spec in TWICE[:2]:
            (layer,) = there[spec].record["layers"]
            found = Exemplars(layers=(layer["layer"],), k=2, units=(1, 2))(net, folder(data))
            for each in layer["drawn"]:
                crops = found.cut(layer["layer"], each["unit"], folder(data), net)
                expected = learning.side_by_side([learning.squared(crop, learning.SIDE) for crop in crops])
                with Image.open(run.picture(each["picture"])) as picture:
                    assert np.array_equal(np.asarray(picture), np.asarray(expected))
    looks = [each for each in planned["look"] if each["name"] == "maximize"]
    assert [each["spec"] for each in looks] == list(TWICE[-3:])
    steps = [step for step in there if step.startswith("maximize")]
    of = [asked_for(looks, step) for step in steps]
    assert [of.count(spec) for spec in TWICE[-3:]] == [3, 3, 1]  # a class, and units of two layers
    assert all(section.count(f"<code>{spec}</code>") == 1 for spec in TWICE)
    assert section.count("<b>Unit 1</b>") == section.count("<b>Unit 2</b>") == 2
    assert section.count("are more selective than") == 2
    ids = re.findall(r'\bid="([^"]+)"', whole)
    assert len(set(ids)) == len(ids)
    without = {step: each for step, each in there.items() if not step.endswith("),steps=3")}
    left = set(_of_set(planned, without, answered=True)) - set(without)
    assert left == {f"maximize:objective={each}…),steps=3" for each in ("logit(", "channel(conv1;", "channel(conv2;")}


def test_several_ways_to_optimise_images_are_each_an_offer(net: Classifier, tmp_path: Path) -> None:
    material = gather([write(tmp_path / "few", 6)], net.labels)
    several = [Maximize(steps=64), Maximize(steps=8), Maximize(steps=64)]
    (candidate,) = sets.candidates(net, material, several, Pace(0.001, 0.003))
    assert candidate.made == (Maximize(steps=64), Maximize(steps=8))
    assert [each.name for each in candidate.offers(6)] == ["maximize:steps=64", "maximize:steps=8"]
    (planned,) = sets.chosen(
        [candidate], 6, [(candidate, each) for each in candidate.offers(6)], [None, Maximize(steps=8)]
    )
    assert planned.look == (Maximize(steps=8),)


def test_the_units_that_each_class_excites_most(run: Run, net: Classifier, data: Path, tmp_path: Path) -> None:
    found, record, section = Exemplars(k=3, limit=2)(net, folder(data)), row(run, "exemplars").record, Section(run).html
    assert record["by_class"]["of"] == 3
    rows = record["by_class"]["classes"]
    assert {each["label"] for each in rows} == set(KINDS)
    best = []
    for each in rows:
        expected = found.units_of(found.layers[0], found.classes.index(each["label"]), 3)
        assert [(unit["unit"], unit["score"]) for unit in each["units"][0]] == [
            pair for pair in expected if pair[1] > 0
        ]
        best.append(max(expected[0][1], 0))
        told = ", ".join(f"{unit} (+{score:.1f})" for unit, score in expected if score > 0) or "–"
        assert f'<th scope="row">{each["label"]}</th><td>{told}</td>' in section
    assert best == sorted(best, reverse=True)
    assert section.count(">Units by class<") == 1
    one = write(tmp_path / "ants", 8, ("ant",))
    with audit(net, [one], tmp_path / "run", methods=["exemplars:k=3"], budget=None, limit=1) as other:
        assert row(other, "exemplars").record["by_class"] == {"of": 1, "classes": []}
        assert "Units by class" not in Section(other).html


def test_a_model_at_hand_is_asked(net: Classifier) -> None:
    from seewhy.data.cifar10 import CLASSES

    named = classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)),
                       labels=CLASSES)  # fmt: skip
    assert [spec for spec, _ in sets.others(named)] == ["cifar10-resnet20"]
    assert sets.others(net) == ()


def test_the_demonstration_shows_another_model_on_a_set_with_classes(
    net: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = folder(write(tmp_path / "stand", 60, ("airplane", "automobile", "bird")))
    monkeypatch.setattr(sets, "cached", lambda name: tmp_path)
    monkeypatch.setattr(sets, "cifar10", lambda: stand)
    material = gather([], net.labels)
    found = sets.candidates(net, material, None, None)
    assert [each.id for each in found] == [SET, STAND_IN]
    assert found[1].net.name == "cifar10-resnet20"
    planned = found[1].planned(50, found[1].made)
    assert {look.name for look in planned.look} == {"exemplars", "map", "units"}
    assert planned.images == 50
    asked = {"model": "x", **{word: [] for word in ("data", "classes", "methods")}}
    made = Plan(asked, (), (), (), (), (), 16, (planned,))
    from seewhy.run.audit import _Audit
    from seewhy.run.job import Job

    with Run.create(tmp_path / "run", made.to_json(), {}) as run:
        _Audit(Job(net, made, material, run), None, lambda *_: None).go()
        assert [each.ok for each in run.results(STAND_IN)] == [True] * 4
        assert run.record(STAND_IN, "identity")["name"] == "cifar10-resnet20"
        assert not run.results(SET)
        text = render(run)
    assert "Another model and other images:" in text
    assert "cifar10-resnet20 on 50 of the 60 images of" in text
