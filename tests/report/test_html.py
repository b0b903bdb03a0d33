"""The report as a reader, a screen reader and a browser get it."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.errors import RunError
from seewhy.report import words
from seewhy.report.html import render, write
from seewhy.report.reading import Reading
from seewhy.run import ImageRow, Run, Timing
from seewhy.run.plan import MOST

HOSTILE = "<img src=x onerror=alert(1)>\"'&.png"
LABEL = '</script><script>alert("cat")</script>'
LOADING = {"src", "href", "data", "action", "poster", "srcset", "background", "formaction", "xlink:href"}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page in order, its words, and what was not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(text: str) -> Page:
    return Page(text)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_loads_nothing(text: str, page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} runs {name}"
            if name in LOADING:
                assert value.startswith(("data:image/", "#")), f'{tag} {name}="{value[:60]}"'
            if name == "style":
                assert "url(" not in value
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert not {"connect-src", "font-src", "media-src", "frame-src"} & set(rules)


def test_names_and_labels_are_only_words(text: str, page: Page) -> None:
    assert HOSTILE in page.text
    assert LABEL in page.text
    assert "tiny<net>" in page.text
    assert "a <b>note</b>" in page.text
    assert len(page.all("script")) == 1
    assert "onerror=alert(1)>" not in text
    assert not page.open, "every element is closed"


def test_every_picture_has_words(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) > 15
    assert all(len(each["alt"]) > 5 for each in pictures)
    alts = [each["alt"] for each in pictures]
    assert f"Grad-CAM for {LABEL}: strongest in the upper left" in alts
    assert f"Grad-CAM for {LABEL}: after the attack, strongest in the lower left" in alts
    assert f"Integrated gradients for and against {LABEL}: spread over the whole picture" in alts
    for each in pictures:
        shown = decoded(each["src"])
        shown.load()
        assert int(each["width"]) <= shown.width <= 2 * int(each["width"]) + 1, (
            "pixels for a display of twice the density"
        )


def test_structure(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert ids.most_common(1)[0][1] == 1
    named = [
        attributes["aria-labelledby"].split() for _, attributes in page.elements if "aria-labelledby" in attributes
    ]
    links = [[each["href"][1:]] for each in page.all("a")]
    assert {name for names in named + links for name in names} <= set(ids)
    assert len(page.all("main")) == len(page.all("nav")) == len(page.all("header")) == 1
    assert page.all("html") == [{"lang": "en"}]
    assert all(each.get("scope") in ("col", "row") for each in page.all("th"))
    assert page.elements[[tag for tag, _ in page.elements].index("body") + 1][1]["href"] == "#content", (
        "skip link first"
    )


def test_says_what_was_found_and_what_was_not(page: Page) -> None:
    words = page.text.replace("\u00a0", " ")
    assert "tiny<net> (1.23 k parameters, 2 classes) looked at 2 photographs." in words
    assert "It was right on 2 of the 2 photographs whose class is known." in words
    assert "FGSM fooled it on 1 of 2 photographs, with changes of ε = 8/255 to each value of a pixel." in words
    assert "On dog.png it was not fooled by any ε of FGSM tried, up to 8/255; a stronger attack may do it." in words
    assert "It was not fooled by any ε of FGSM tried, up to 8/255. At ε = 8/255 it still says" in words
    assert "1 photograph could not be read: broken.jpg." in words
    assert "failed: broken.jpg cannot be decoded, it is damaged" in words
    assert "smoothgrad gave values that are not finite" in words
    assert "rise would take about <9 min>" in words
    assert "completeness error 1.2 %" in words
    assert "ρ = −0.25, partly reversed" in words
    assert "the kept channels changed by 50 % (ℓ₂)" in words
    assert "A person & <co>; CC0" in words
    assert "seewhy audit 'my photos' --model file:tiny.py --class 1 --budget 300s --out run" in words


def test_the_verdict_tells_what_the_saved_image_is_taken_for(small_run: Path, page: Page) -> None:
    words = page.text.replace("\u00a0", " ")
    assert (
        f"{LABEL} (90.0 %) becomes dog (70.0 %), and in 8 bits it is no longer {LABEL} either." in words
    )  # an older run
    with Run.open(small_run) as run:
        plan, record = run.plan, run.record("0001", "fgsm")
        arrays = {"adversarial": run.array("0001", "fgsm", "adversarial")}
    with Run.create(small_run, plan, {}) as run:
        saved = {"index": 2, "label": "wolf", "probability": 0.65}
        run.put("0001", "fgsm", {**record, "saved": saved}, arrays)
    with Run.open(small_run) as run:
        words = Page(render(run)).text.replace("\u00a0", " ")
    assert f"{LABEL} (90.0 %) becomes dog (70.0 %), and wolf (65.0 %) when the image is saved in 8 bits." in words


def test_all_classes_of_a_model_of_few_are_not_called_the_five_most_probable(small_run: Path, page: Page) -> None:
    assert "What the model says: all its classes, the most probable first. The true class is" in page.text
    with Run.open(small_run) as run:
        plan, record = run.plan, run.record("0001", "predict")
    with Run.create(small_run, plan, {}) as run:
        run.put("0001", "predict", {**record, "top": [*record["top"], *record["top"], record["top"][0]]})
    with Run.open(small_run) as run:
        assert "What the model says: the five most probable of its classes. The true class is" in Page(render(run)).text


def test_every_photograph_of_a_default_audit_has_a_section(tmp_path: Path) -> None:
    seen = Image.new("RGB", (8, 8))
    with Run.create(tmp_path / "run", {}, {}) as run:
        for number in range(MOST + 2):
            name = f"{number}.png"
            record = {"pictures": {"seen": name}}
            run.put_image(ImageRow(str(number), number, name, None, None, "ok", None, record), {name: seen})
        assert list(Reading(run).anchors) == [str(number) for number in range(MOST)]


def test_costs_are_the_rows_medians(page: Page) -> None:
    # grad-cam has two rows of 0.25 s and two of 0.75 s; a forward pass takes 0.05 s
    assert "Grad-CAM 4 1 1 500 ms 10 ×" in page.text
    assert "FGSM 2 5 1 500 ms 10 ×" in page.text


def test_what_serves_several_classes_is_told_with_the_time_of_all_of_them(small_run: Path) -> None:
    import json

    with Run.open(small_run) as run:
        one = run.record("0001", "grad-cam@0")
        values = run.array("0001", "grad-cam@0", "values")
    cost = {"forward": 513, "backward": 0}
    row = {**one, "method": "shap", "sign": "signed", "cost": cost, "together": 3}
    with Run.create(small_run, json.loads((small_run / "run.json").read_text())["plan"], {}) as run:
        run.put("0001", "shap@0", row, {"values": values}, timing=Timing(0.25))
    with Run.open(small_run) as run:
        words = Page(render(run)).text
    assert "SHAP 1 513 0 750 ms 15 ×" in words
    assert "513 forward, 750 ms" in words.replace("\u00a0", " ")  # as beside the map


def test_difference_is_amplified_by_the_factor_that_is_said(page: Page) -> None:
    (first, *_) = [each for each in page.all("img") if each["alt"].startswith("what FGSM added, enlarged 10 times")]
    values = np.asarray(decoded(first["src"]).convert("RGB"))
    # + 8/255 everywhere, ten times, around grey: 127.5 + 80
    assert set(np.unique(values)) <= {207, 208}


def test_the_changed_image_is_shown_without_loss(made_run: Path, page: Page) -> None:
    (shown, *_) = [each for each in page.all("img") if "as it was judged" in each["alt"]]
    judged = np.asarray(Image.open(made_run / "pictures" / "0001-fgsm.png"))
    times = decoded(shown["src"]).width // judged.shape[1]
    assert np.array_equal(np.asarray(decoded(shown["src"]).convert("RGB"))[::times, ::times], judged)


def test_chart_tells_its_data(page: Page) -> None:
    words = page.text.replace("\u00a0", " ")
    course = (
        f"the probability of {LABEL} goes from 90.0 % to 30.0 % and the probability of dog goes from 10.0 % to 70.0 %"
    )
    assert f"From no change to ε = 8/255, {course}." in words
    assert f"the probability of {LABEL} goes from 90.0 % to 60.0 %." in words
    assert len([each for each in page.all("line") if each.get("class") == "mark"]) == 1, "only where it was fooled"


def test_the_same_run_gives_the_same_bytes(small_run: Path, tmp_path: Path) -> None:
    with Run.open(small_run) as run:
        one, two = write(run), write(run, tmp_path / "other.html")
    assert one == small_run / "report.html"
    assert one.read_bytes() == two.read_bytes()
    assert not list(small_run.glob("*.part"))
    assert len(one.read_bytes()) < 1_000_000


def test_a_run_that_lost_its_pictures(small_run: Path) -> None:
    (small_run / "pictures" / "0001-original.png").unlink()
    (small_run / "pictures" / "0002-seen.png").write_text("no picture")
    with Run.open(small_run) as run:
        words = Page(render(run)).text
    assert "the run has lost its picture 0002-seen.png" in words
    assert "As the model saw it, 24 × 24 pixels." in words


def test_a_run_of_broken_photographs_only(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {}, {}) as run:
        run.put_image(ImageRow("1", 1, "a.jpg", None, None, "failed", "a.jpg is empty", {}))
        words = Page(render(run)).text
    assert "the model looked at 0 photographs." in words
    assert "a.jpg is empty" in words


def test_a_place_that_cannot_be_written(small_run: Path) -> None:
    with Run.open(small_run) as run, pytest.raises(RunError, match="cannot be written"):
        write(run, small_run / "no" / "folder" / "report.html")


def test_why_shows_methods_side_by_side_on_one_scale_with_the_difference(tmp_path: Path, small_run: Path) -> None:
    """A runner-up beside the predicted class: three maps a method on one scale, and a matrix worked out by hand."""
    import json

    with Run.open(small_run) as run:
        one = run.record("0001", "grad-cam@0")
        values = run.array("0001", "grad-cam@0", "values")
    copy = {**one, "role": "runner-up", "target": {"index": 1, "label": "dog", "probability": 0.1}, "together": 2}
    with Run.create(small_run, json.loads((small_run / "run.json").read_text())["plan"], {}) as run:
        run.put("0001", "grad-cam@1", copy, {"values": 4 * values})
        run.put("0001", "lime@0", {**one, "method": "lime", "sign": "signed", "notes": []}, {"values": -values})
    with Run.open(small_run) as run:
        page = Page(render(run))
    alts = [each["alt"] for each in page.all("img")]
    assert f"Grad-CAM for {LABEL} rather than dog: strongest in the upper left" in alts
    words = page.text.replace("\u00a0", " ")
    assert "(the predicted class, 90.0 %) and dog (the runner-up, 10.0 %)" in words
    stack = np.concatenate([values, 4 * values]).clip(min=0)
    scale = f"{np.quantile(stack, 0.999):.3g}"  # of both classes, and the difference is shown on it too
    assert f"0 {scale} {LABEL}" in words
    assert f"0 {scale} dog" in words
    assert f"±{scale} difference" in words
    assert "Do the methods agree on" in words
    assert "Where the last feature maps respond" in words
    assert "What happens when parts are hidden" in words
    # what is bright for grad-cam speaks against the class for lime, and integrated gradients' map is constant
    both = "LIME cannot be compared here with Grad-CAM by their positive parts: those of LIME are the same everywhere"
    assert both in words
    assert "constant, so that its order is not defined: Integrated gradients" in words
    assert "0 of 0 pairs below 0.2; 3 more pairs cannot be compared." in words
    (matrix, *_) = [each for each in page.all("table") if each.get("class") == "matrix"]
    assert matrix
    numbers = [each for each in page.words if re.fullmatch(r"−?[01]\.\d\d", each.strip())]
    assert numbers.count("1.00") >= 2


def test_notes_that_differ_in_numbers_alone_are_one() -> None:
    lost, sure = "up to {} % of a logit did not reach the pixels", "for 1 of 1 images layer4.{} is dark"
    found = words.noted(
        ["before: why cat", "after: why cat", "after: why dog"],
        [
            [lost.format(93.84), sure.format(1)],
            [lost.format(94.31), sure.format(2)],
            [lost.format("9.2"), sure.format(2)],
        ],
    )
    assert found == (
        "up to 9.2–94.31 % of a logit did not reach the pixels",
        "before: why cat: layer4.1 is dark",
        "after: why cat and after: why dog: layer4.2 is dark",
    )
    assert words.together(["5e-07 to 10,000", "1e-05 to 10,000"]) == {"5e-07–1e-05 to 10,000": [0, 1]}
    assert words.noted([], []) == ()
