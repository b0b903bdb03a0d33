"""What the report says of attacks: curves, strips, the diagnosis, and sizes in other norms than ℓ∞."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from nets import FAMILIES, classifier, photos
from seewhy.attack import FGSM, NES, Scores
from seewhy.attack.compare import compare, transferred
from seewhy.attack.defences import feature_squeezing
from seewhy.attack.why_it_fails import diagnose
from seewhy.classifier import Classifier
from seewhy.errors import NothingToExplain
from seewhy.intervals import wilson
from seewhy.report import charts, words
from seewhy.report.html import render
from seewhy.report.reading import Reading
from seewhy.report.sections import glance
from seewhy.report.sections.fooled import fooling
from seewhy.run import Run, audit, summary


@pytest.fixture(scope="module")
def net() -> Classifier:
    return classifier(FAMILIES["resnet"](), labels=["$\\ant$", "<bee>", "cat", "dog", "elk"])


@pytest.fixture(scope="module")
def run(net: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(photos(3)):
        picture = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())
        picture.save(folder / f"{number}.png")
    methods = ["fgsm:eps=4/255+32/255+0.3", "fgsm:norm=l2", "grad-cam", "gradient"]
    return audit(net, [folder], folder / "run", budget=None, methods=methods)


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return render(run)


def test_why_it_fails_is_measured_for_each_photograph_that_is_fooled(run: Run, net: Classifier) -> None:
    for image in run.images():
        outcome = run.record(image.id, "fgsm:eps=4/255+32/255+0.3")
        assert run.done(image.id, "why fgsm:eps=4/255+32/255+0.3") == outcome["fooled"]
        assert not run.done(image.id, "why fgsm:norm=l2")
        if not outcome["fooled"]:
            continue
        told = run.record(image.id, "why fgsm:eps=4/255+32/255+0.3")["diagnosis"]
        assert told["after"] == outcome["after"]["label"]
        assert len(told["distances"]) == 4
        assert set(told["moved"]) == {"gradient", "grad-cam"}
        found = FGSM(eps=(4 / 255, 32 / 255, 0.3))(net, net.read(run.directory.parent / image.name))
        direct = diagnose(net, found, noises=3).rows()[0]
        assert told["explained"] == pytest.approx(direct["explained"], rel=1e-3)
        assert told["distances"][0] == pytest.approx(direct["distances"][0], rel=1e-3)


def test_the_strip_holds_what_was_judged(run: Run, net: Classifier) -> None:
    image = run.images()[0].id
    record = run.record(image, "fgsm:eps=4/255+32/255+0.3")
    sizes = [each["eps"] for each in record["strip"]]
    assert sizes == sorted(sizes)
    assert record["shown_eps"] in sizes
    with Image.open(run.picture(record["pictures"]["strip"])) as opened:
        sheet = opened.convert("RGB")
    side = net.size[1]
    assert sheet.size == (side * len(sizes), side)
    for place, each in enumerate(record["strip"]):
        tile = torch.frombuffer(
            bytearray(sheet.crop((place * side, 0, (place + 1) * side, side)).tobytes()), dtype=torch.uint8
        )
        pixels = tile.view(1, side, side, 3).permute(0, 3, 1, 2).float() / 255
        says = net.predict(pixels).softmax(1)[0]
        if each["fools"]:  # holds after rounding too
            assert int(says.argmax()) != record["before"]["index"]
        assert float(says[each["index"]]) == pytest.approx(each["probability"], abs=0.05)


def test_the_section_counts_every_attack(text: str, run: Run) -> None:
    section = text[text.index('<section id="fooled"') : text.index('<section id="model"')]
    for spec in ("fgsm:eps=4/255+32/255+0.3", "fgsm:norm=l2"):
        outcomes = [run.record(image.id, spec)["fooled"] for image in run.images()]
        low, high = wilson(sum(outcomes), 3)
        row = re.search(rf"<tr><th scope=\"row\">{re.escape(spec)}</th>.*?</tr>", section)
        assert row is not None
        assert f"{sum(outcomes)} of 3" in row[0]
        assert f"{100 * low:.0f} to {100 * high:.0f}" in row[0]
    assert section.count('<svg class="chart"') == 3  # a curve for each norm, and the growth
    assert "Share of photographs whose decision stays, against ε in ℓ₂" in section
    assert "The attack fooled" in section
    assert "RMS" in section
    assert 'href="#fooled"' in text
    assert "<bee>" not in text


LABELS = ["ant", "bee", "cat", "dog", "elk"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three photographs in folders of their classes: the first in a wrong one."""
    net = classifier(FAMILIES["resnet"](), labels=LABELS)
    folder = tmp_path_factory.mktemp("labelled")
    for number, pixels in enumerate(photos(3)):
        said = int(net.predict((pixels[None] * 255).round() / 255).argmax())
        place = folder / LABELS[(said + (number == 0)) % 5]
        place.mkdir(exist_ok=True)
        picture = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())
        picture.save(place / f"{number}.png")
    return audit(net, [folder], folder / "run", budget=None, methods=["fgsm:eps=0.5", "gradient", "grad-cam"])


def told_of(text: str, name: str) -> str:
    return re.search(rf'<section id="{name}".*?</section>', text, re.DOTALL)[0]  # type: ignore[index]


def test_what_is_misclassified_from_the_start_is_kept_apart_and_counted(labelled: Run) -> None:
    wrong = next(image for image in labelled.images() if image.name.endswith("0.png"))
    others = [image for image in labelled.images() if image != wrong]
    records = {image.id: labelled.record(image.id, "fgsm:eps=0.5") for image in labelled.images()}
    assert {image: record["wrong_at_start"] for image, record in records.items()} == {
        image.id: image == wrong for image in labelled.images()
    }
    assert records[wrong.id]["fooled"]  # the attack leads it somewhere else, which is not to count
    assert "misclassified from the start" in records[wrong.id]["notes"][-1]
    count = sum(records[image.id]["fooled"] for image in others)
    text = render(labelled)
    section = told_of(text, "fooled")
    assert f"<td>{count} of 2</td>" in section
    assert "1 photograph is misclassified from the start" in section
    assert f"FGSM fools {count} of 2." in html.unescape(section)
    assert "The attack fooled 2 of 2 images" in section if count == 2 else "of 3 images" not in section
    glance = told_of(text, "glance")
    assert glance.count("wrong from the start") == 1
    assert "1 photograph is misclassified from the start: what attacks do to it is kept apart." in text
    assert f"FGSM fooled it on {count} of 2 photographs" in text or not count
    assert "The model is wrong on it from the start, so that it counts nowhere as fooled." in text
    attacks = [each["attacks"][0] for each in summary(labelled)["images"]]
    assert [each["wrong_at_start"] for each in attacks] == [image == wrong for image in labelled.images()]


def test_a_run_of_before_keeps_them_apart_too(labelled: Run, tmp_path: Path) -> None:
    """Its attacks did not say who was wrong from the start; its predictions did."""
    before = told_of(render(labelled), "fooled")
    old = tmp_path / "run"
    shutil.copytree(labelled.directory, old)
    with sqlite3.connect(old / "results.sqlite") as database:
        for image, step, record in database.execute("SELECT image, step, record FROM results").fetchall():
            kept = {key: value for key, value in json.loads(record).items() if key != "wrong_at_start"}
            query = "UPDATE results SET record = ? WHERE image = ? AND step = ?"
            database.execute(query, (json.dumps(kept), image, step))
    database.close()
    with Run.open(old) as run:
        assert told_of(render(run), "fooled") == before
        assert sum(each["attacks"][0]["wrong_at_start"] for each in summary(run)["images"]) == 1


def test_where_all_are_misclassified_nothing_is_counted(labelled: Run, tmp_path: Path) -> None:
    old = tmp_path / "run"
    shutil.copytree(labelled.directory, old)
    with sqlite3.connect(old / "results.sqlite") as database:
        for image, record in database.execute("SELECT image, record FROM results WHERE step = 'predict'").fetchall():
            told = json.loads(record)
            told["truth"] = told["top"][1]
            query = "UPDATE results SET record = ? WHERE image = ? AND step = 'predict'"
            database.execute(query, (json.dumps(told), image))
    database.close()
    with Run.open(old) as run:
        section = told_of(render(run), "fooled")
    assert "3 photographs are misclassified from the start: kept apart, and counted nowhere here." in section
    assert "<table" not in section
    assert "Why does" not in section


def test_a_curve_ends_where_a_photograph_that_stood_was_tried_no_further(
    labelled: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "run"
    shutil.copytree(labelled.directory, old)
    sizes = iter((0.1, 0.5, 0.3))
    with sqlite3.connect(old / "results.sqlite") as database:
        attacks = "SELECT image, record FROM results WHERE step = 'fgsm:eps=0.5'"
        for image, record in database.execute(attacks).fetchall():
            told = {**json.loads(record), "eps": [0, next(sizes)], "smallest_eps": None, "fooled": False}
            query = "UPDATE results SET record = ? WHERE image = ? AND step = 'fgsm:eps=0.5'"
            database.execute(query, (json.dumps(told), image))
    database.close()
    tried: list[float] = []

    def drawn(_: str, courses: list[charts.Course], *rest: object) -> str:
        tried.extend(each.tried for each in courses)
        return ""

    monkeypatch.setattr(charts, "accuracy", drawn)
    with Run.open(old) as run:
        right = [image.id for image in run.images() if not image.name.endswith("0.png")]
        least = min(max(run.record(image, "fgsm:eps=0.5")["eps"]) for image in right)
        fooling(Reading(run))
    assert tried == [least] != [0.5]


def altered(run: Run, folder: Path, change: Callable[[str, str, dict[str, Any]], dict[str, Any] | None]) -> Path:
    """A copy of a run; `change(image, step, record)` answers each row's record, None for a step that failed."""
    copy = folder / "run"
    shutil.copytree(run.directory, copy)
    with sqlite3.connect(copy / "results.sqlite") as database:
        for image, step, record in database.execute("SELECT image, step, record FROM results").fetchall():
            before = json.loads(record)
            told = change(image, step, before)
            if told is before:
                continue
            status = "failed" if told is None else "ok"
            values = (status, None if told else "it failed", json.dumps(told or {}), image, step)
            database.execute(
                "UPDATE results SET status = ?, error = ?, record = ? WHERE image = ? AND step = ?", values
            )
    database.close()
    return copy


def test_photographs_that_stand_are_told_with_sizes_tried_on_them(run: Run, tmp_path: Path) -> None:
    first, second, third = (image.id for image in run.images())
    told = {
        first: {"eps": [0.0, 0.5], "success": [False, True], "smallest_eps": 0.5, "fooled": True},
        second: {"eps": [0.0, 0.007], "success": [False, True], "smallest_eps": None, "fooled": False},
        third: {"eps": [0.0, 0.3], "success": [False, False], "smallest_eps": None, "fooled": False},
    }

    def change(image: str, step: str, record: dict[str, Any]) -> dict[str, Any]:
        return record | told[image] if step == "fgsm:norm=l2" else record

    with Run.open(altered(run, tmp_path, change)) as copy:
        said = " ".join(glance.summary(Reading(copy), [])).replace(words.NBSP, " ")
    values = 3 * 24 * 24
    sizes = [words.size(size, "l2", values).replace(words.NBSP, " ") for size in (0.007, 0.3)]
    assert (
        "FGSM fooled it on 1.png only before rounding to 8 bits, not in an image as it would be saved, by any ε tried up to "
        f"{sizes[0]}; a stronger attack may do it."
    ) in said
    assert f"On 2.png it was not fooled by any ε of FGSM tried, up to {sizes[1]}; a stronger attack may do it." in said


def test_what_was_not_looked_into_is_counted_as_fooled_all_the_same(run: Run, tmp_path: Path) -> None:
    """The first attack failed on the first photograph, and why it succeeds was not measured on the second."""
    lead = "fgsm:eps=4/255+32/255+0.3"
    first, second, third = (image.id for image in run.images())

    def change(image: str, step: str, record: dict[str, Any]) -> dict[str, Any] | None:
        if (image == first and lead in step) or (image == second and step == f"why {lead}"):
            return None
        return record | {"norm": "linf"} if step == "fgsm:norm=l2" else record

    fooled = [run.record(image, lead)["fooled"] for image in (second, third)]
    assert fooled == [True, True]
    with Run.open(altered(run, tmp_path, change)) as copy:
        found = fooling(Reading(copy))
    assert found is not None
    assert found.lead == lead
    assert found.why is not None
    assert found.why.paragraph.startswith("The attack fooled 2 of 2 images; what follows is of the one looked into. ")
    others = sum(run.record(image.id, "fgsm:norm=l2")["fooled"] for image in run.images())
    ((_, _, chart),) = found.charts
    assert f"fgsm:norm=l2 fools {others} of 3 and {lead} fools 2 of 2." in html.unescape(str(chart))


def test_why_it_fails_is_measured_where_explanations_have_no_map(
    net: Classifier, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> None:
        raise NothingToExplain("the map is zero everywhere")

    monkeypatch.setattr("seewhy.attack.why_it_fails._moved", nothing)
    photo = run.directory.parent / "0.png"
    methods = ["fgsm:eps=0.3", "grad-cam", "gradient"]
    with audit(net, [photo], tmp_path / "run", budget=None, methods=methods) as made:
        (image,) = made.images()
        assert made.record(image.id, "fgsm:eps=0.3")["fooled"]
        told = made.record(image.id, "why fgsm:eps=0.3")
    assert told["diagnosis"]["moved"] == {}
    assert told["notes"] == ["the maps before and after the change were not compared: the map is zero everywhere"]


def test_sizes_are_said_in_their_norm() -> None:
    assert words.size(8 / 255) == "8/255"
    assert words.size(1.5, "l2", 150528) == "ℓ₂ 1.5, RMS 0.99/255"
    assert words.size(0.017, "l0").replace(words.NBSP, " ") == "1.7 % of pixels"
    said = words.fooled([0.4, 0.8, None], [0.5, 2.0, 0.1], ["a", "b", "c"], "DeepFool", "l2", 3072)
    assert "with changes of ℓ₂" in said[0]
    assert "each value" not in said[0]
    assert f"up to {words.size(0.1, 'l2', 3072)};" in said[1]


def test_a_line_says_nothing_of_sizes_that_a_photograph_that_stands_was_not_tried_with() -> None:
    course = charts.Course("DeepFool", (0.1, 0.5, None), 0.3)
    drawn = charts.accuracy("k", [course], "l2", 12, "t", "d")
    points = {
        kind: [tuple(map(float, point.split(","))) for point in found.split()]
        for kind, found in re.findall(r'<(polyline|polygon) class="[^"]*s0" points="([^"]*)"', drawn)
    }
    band = points["polygon"]
    for line in (points["polyline"], band[: len(band) // 2], band[len(band) // 2 :][::-1]):
        assert line == sorted(line, key=lambda point: point[0])
    assert points["polyline"][-1][1] == pytest.approx(26 + (262 - 26 - 44) * (1 - 2 / 3))  # one of three fooled by then


def test_a_line_ends_where_nothing_larger_was_tried() -> None:
    stood = charts.Course("one", (2 / 255, None), 8 / 255)
    all_fooled = charts.Course("two", (2 / 255, 30 / 255), 30 / 255)
    drawn = charts.accuracy("k", [stood, all_fooled], "linf", 12, "t", "d")
    lines = re.findall(r'<polyline class="s(\d)" points="([^"]*)"', drawn)
    ends = {int(number): points.split()[-1] for number, points in lines}
    x = [float(ends[place].split(",")[0]) for place in (0, 1)]
    y = [float(ends[place].split(",")[1]) for place in (0, 1)]
    assert x[0] < x[1]
    half, none = (26 + (262 - 26 - 44) * (1 - share) for share in (0.5, 0))
    assert y == pytest.approx([half, none])


def test_every_figure_of_attacks_draws_itself(net: Classifier) -> None:
    images = photos(4)
    found = [FGSM(eps=(0.02, 0.3))(net, images), FGSM(norm="l2")(net, images)]
    together = compare(found)
    figures: list[Any] = [together.plot(), together.plot_distances(), diagnose(net, found[0]).plot(0)]
    figures += [each.plot(0) for each in found] + [each.plot_strip(1) for each in found]
    figures += [
        transferred({"a": net, "b": net}, FGSM(eps=(0.3,)), images).plot(),
        feature_squeezing(net, found[0]).plot(),
    ]
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert Image.open(buffer).size[0] > 300
    titles = [axes.get_title() for axes in found[1].plot(0).axes]
    assert any("ℓ₂" in title and "RMS" in title for title in titles)
    assert found[0].plot_strip(0).axes[0].get_title() == "no change"


def test_a_run_of_before_still_makes_a_report(small_run: Path) -> None:
    """Attacks without a norm, a strip and a diagnosis: as the fixture has them."""
    with Run.open(small_run) as made:
        text = render(made)
    assert "How is it fooled?" in text
    assert "Why does" not in text


def test_what_had_no_queries_is_drawn_too(net: Classifier) -> None:
    found = NES(pairs=2)(Scores(net, budget=1), photos(1))
    assert found.untried.all()
    assert found.plot(0).axes[3].get_title() == "not fooled up to ε\u00a0=\u00a00/255"
    assert found.plot_strip(0).axes
    drawn = charts.confidence("k", [0.0, 0.0], [0.9, 0.9], [], [False, False], None, "t", "d")
    assert drawn.count("<circle") == 2


def test_lines_side_by_side_have_styles_of_their_own() -> None:
    more = range(8)  # than there are attacks in one norm
    courses = [charts.Course(str(number), (0.1,), 0.1) for number in more]
    drawn = charts.accuracy("k", courses, "linf", 12, "t", "d")
    places = re.findall(r'<polyline class="(s\d+)"', drawn)
    assert len(set(places)) == len(courses) <= charts.SERIES
    folder = Path(charts.__file__).with_name("templates")
    sheet, circles = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "people.css"))
    lines = [re.search(rf"polyline\.{place}, \.line\.{place} {{(.*?)}}", sheet) for place in places]
    assert len({found and found[1] for found in lines} - {None}) == len(courses)
    for number in range(charts.SERIES):
        assert f".chart polygon.s{number} " in sheet
        assert f".chart circle.s{number} " in circles
