"""A run that was stopped says so: what its plan asks for and has no row stands in the summary and in the report."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from nets import Spelled, classifier, photos
from seewhy.report.html import render
from seewhy.run import MODEL, Progress, Run, audit, summary, unfinished

METHODS = ["filters", "gradient", "grad-cam", "fgsm:eps=8/255+1.0", "statistics", "maximize:steps=2"]
NAMES = ("one.png", "two.png", "three.png")


def stopping(at: str) -> Progress:
    """Stops the audit as Ctrl-C does, where it is about to do this."""

    def tell(done: float, total: float, what: str) -> None:
        if what.startswith(at):
            raise KeyboardInterrupt

    return tell


def rows(run: Run) -> set[tuple[str, str]]:
    return {(row.image, row.step) for of in (MODEL, "set", *_ids(run)) for row in run.results(of)}


def _ids(run: Run) -> list[str]:
    return [row.id for row in run.images()]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    for name, pixels in zip(NAMES, photos(3), strict=True):
        Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / name)
    return [tmp_path / name for name in NAMES]


def test_a_run_that_was_stopped_says_what_is_still_to_be_done(sources: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "run"

    def again(progress: Progress | None = None) -> Run:
        net = classifier(Spelled("in-place"))
        return audit(net, sources, out, spec="spelled", methods=METHODS, budget=None, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        again(stopping("two.png: grad-cam"))
    with Run.open(out) as run:
        left, there, told, page = unfinished(run), rows(run), summary(run), unescape(render(run))
    assert left.images == ("three.png",)
    assert {image for image, _ in left.steps} == {"0002-two", "set"}
    assert not set(left.steps) & there
    sentence = (
        f"This run is not finished: 1 of 3 photographs was not looked at yet and {len(left.steps)} steps are still to be "
        "done. The same command goes on with it."
    )
    assert left.words == sentence
    assert page.count(sentence) == 2  # at the top, and below under what failed
    assert "not looked at yet: three.png" in page
    assert "two.png: grad-cam@" in page
    assert "No step failed so far." in page
    assert "No step failed." not in page
    assert "Nothing that was asked for was left out." not in page
    assert told["unfinished"]["images"] == ["three.png"]
    assert told["unfinished"]["steps"][0] == {"image": left.steps[0][0], "step": left.steps[0][1]}

    with again() as run:
        assert not unfinished(run)
        assert unfinished(run).words == ""
        whole, page = rows(run), unescape(render(run))
        assert summary(run)["unfinished"] == {"images": [], "steps": []}
    begun = {each for each in whole - there if each[0] != "0003-three"}
    follows = {each for each in begun if each[1].startswith(("why", "after", "maximize"))}
    assert begun - follows <= set(left.steps)
    assert {each for each in left.steps if not each[1].startswith("maximize")} <= begun
    assert ("set", "maximize:objective=logit(…),steps=2") in left.steps
    assert "not finished" not in page
    assert "No step failed." in page
    assert "Nothing that was asked for was left out." in page


def test_steps_that_failed_and_images_that_cannot_be_read_are_done(sources: list[Path], tmp_path: Path) -> None:
    with audit(
        classifier(Spelled("in-place")),
        [*sources, tmp_path / "missing.png"],
        tmp_path / "run",
        methods=["gradient", "activations:layer=conv1"],
        budget=None,
    ) as run:
        assert not unfinished(run)
    plan = {**run.plan, "images": [{**run.plan["images"][0], "id": "9", "name": "other.png"}, *run.plan["images"]]}
    with Run.create(tmp_path / "other", plan, {}) as other:
        assert unfinished(other).images == ("other.png", *NAMES, "missing.png")
        other.failed(MODEL, "identity", "for a test")
        assert not unfinished(other).steps
