"""What an audit is given: sources of which some are bad, names that are no text, layers that are not there; what a pass takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from nets import Spelled, classifier, photos
from seewhy.classifier import Classifier
from seewhy.data import load
from seewhy.errors import DataError, LayerError, SpecError
from seewhy.report.html import write
from seewhy.run import MODEL, Run, Timing, audit
from seewhy.run.material import gather
from seewhy.run.store import _dumps, printable

PASSES = ("forward pass", "forward and backward pass")


@pytest.fixture(scope="module")
def net() -> Classifier:
    return classifier(Spelled("in-place"))


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (photos(1, seed=seed)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, "PNG")
    return path


@pytest.mark.parametrize(
    ("method", "missing"),
    [
        ("grad-cam:layer=conv9", "conv9"),
        ("grad-cam:layer=conv1+conv9", "conv9"),
        ("lrp:layer=conv9", "conv9"),
        ("activations:layer=conv9", "conv9"),
        ("exemplars:layers=conv1+conv9", "conv9"),
    ],
)
def test_a_layer_that_is_not_there_binds_no_directory(
    method: str, missing: str, net: Classifier, tmp_path: Path
) -> None:
    one = picture(tmp_path / "one.png")
    with pytest.raises(LayerError, match=f'no layer or operation "{missing}"; did you mean "conv'):
        audit(net, [one], tmp_path / "run", methods=["gradient", method], budget=None)
    assert not (tmp_path / "run").exists()
    right = ["gradient", method.replace(missing, "conv2")]
    with audit(net, [one], tmp_path / "run", methods=right, budget=None) as run:
        assert all(row.ok for of in (MODEL, "set", "0001-one") for row in run.results(of))


def test_one_bad_source_of_several_is_a_row(net: Classifier, tmp_path: Path) -> None:
    for kind in ("ant", "dog"):
        picture(tmp_path / "pets" / kind / f"{kind}.png")
    (tmp_path / "void").mkdir()
    sources = [tmp_path / "pets", tmp_path / "void", tmp_path / "nowhere", picture(tmp_path / "one.png")]
    with audit(net, sources, tmp_path / "run", methods=["gradient", "statistics"], budget=None) as run:
        rows = run.images()
        assert [row.name for row in rows] == ["ant/ant.png", "dog/dog.png", *map(str, sources[1:3]), "one.png"]
        assert [row.status for row in rows] == ["ok", "ok", "failed", "failed", "ok"]
        assert (rows[2].error or "").startswith(f"found no images in {tmp_path / 'void'}: looked for files ending in")
        assert rows[3].error == f"there is no file, folder or data set {tmp_path / 'nowhere'}"
        assert [row.record["label"] for row in rows if row.ok] == [0, 3, None]
        assert all(result.ok for row in rows for result in run.results(row.id))
        assert [result.ok for result in run.results("set")] == [True]
    with pytest.raises(DataError, match="found no images in"):
        gather([tmp_path / "void"], net.labels)
    with pytest.raises(DataError, match="none of the 2 images can be read; the first: found no images"):
        audit(net, [tmp_path / "void", tmp_path / "nowhere"], tmp_path / "none", budget=None)


def test_what_is_given_twice_is_taken_once(net: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "one.png")
    picture(tmp_path / "pets" / "two.png")
    data = load("pets")
    material = gather(["one.png", "./one.png", "pets", Path("one.png"), "pets/", data, data], net.labels)
    assert [entry.item.name for entry in material.entries] == ["one.png", "two.png", "two.png"]


def test_a_split_that_nothing_has_is_refused(net: Classifier, tmp_path: Path) -> None:
    one = picture(tmp_path / "one.png")
    picture(tmp_path / "parts" / "test" / "two.png")
    for sources in ([], [one], [one, picture(tmp_path / "three.png")], [load(tmp_path / "parts", "test")]):
        with pytest.raises(SpecError, match='photographs have no splits; got the split "test"'):
            gather(sources, net.labels, "test")
    material = gather([one, tmp_path / "parts"], net.labels, "test")
    assert [entry.item.name for entry in material.entries] == ["one.png", "two.png"]


@pytest.fixture
def odd(tmp_path: Path) -> list[Path]:
    """A folder and photographs whose names are no UTF-8, one of them broken."""
    folder = tmp_path / os.fsdecode(b"\xe9t\xe9")
    try:
        picture(folder / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    for name in ("two.png", "three.png"):
        picture(folder / name, seed=len(name))
    broken = tmp_path / os.fsdecode(b"\xff.jpg")
    broken.write_text("no picture")
    return [folder, broken, tmp_path / os.fsdecode(b"no\xffwhere")]


def test_names_that_are_no_text_are_written_out(net: Classifier, odd: list[Path], tmp_path: Path) -> None:
    methods = ["gradient", "exemplars:k=2", "fgsm:eps=8/255"]
    for _ in range(2):  # the second goes on with the first
        with audit(net, odd, tmp_path / "run", spec=os.fsdecode(b"\xe9.onnx"), methods=methods, budget=None) as run:
            rows = run.images()
            assert [row.name for row in rows][:2] == [r"caf\xe9.png", "three.png"]
            assert [row.name for row in rows][3:] == [r"\xff.jpg", str(tmp_path / r"no\xffwhere")]
            assert rows[0].path == str(tmp_path / r"\xe9t\xe9" / r"caf\xe9.png")
            assert (rows[3].error or "").startswith(str(tmp_path / r"\xff.jpg") + " is not an image")
            assert (rows[4].error or "").endswith(r"no\xffwhere")
            assert run.results("set")[0].ok
            assert all(result.ok for result in run.results(rows[0].id))
            assert r"caf\xe9.png" in write(run).read_text(encoding="utf-8")
    assert json.loads(_dumps({"a": os.fsdecode(b'\xe9"\\')})) == {"a": printable(os.fsdecode(b'\xe9"\\'))}


def test_what_a_pass_takes_is_there_without_a_budget_and_after_a_stop(net: Classifier, tmp_path: Path) -> None:
    def stop(done: float, total: float, what: str) -> None:
        raise KeyboardInterrupt

    one = picture(tmp_path / "one.png")
    for name, budget in (("full", None), ("short", 60.0)):
        with pytest.raises(KeyboardInterrupt):
            audit(net, [one], tmp_path / name, methods=["gradient"], budget=budget, progress=stop)
        with Run.open(tmp_path / name) as run:
            assert all((run.timing(MODEL, each) or Timing(0)).seconds > 0 for each in PASSES)
            # as a kill between the two leaves it
            run._database.execute("DELETE FROM timing WHERE step = ?", PASSES[1:])
            run._database.commit()
        found = []
        for _ in range(2):
            with audit(net, [one], tmp_path / name, methods=["gradient"], budget=budget) as run:
                found.append([run.timing(MODEL, each) for each in PASSES])
        assert None not in found[0]
        assert found[0] == found[1]  # what is known is not measured again


class Cut(nn.Module):
    """A network that no gradient goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Spelled("in-place")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.detach()).detach()


def test_a_model_without_a_way_back_has_no_such_times_and_goes_on(tmp_path: Path) -> None:
    one = picture(tmp_path / "one.png")
    with audit(classifier(Cut()), [one], tmp_path / "run", methods=["occlusion"], budget=None) as run:
        assert [run.timing(MODEL, each) for each in PASSES] == [None, None]
        assert all(result.ok for result in run.results("0001-one"))
