"""The audit: each record against what the methods answer directly, and the run's data without seewhy."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
import torch
import zarr
from PIL import Image

from nets import SIZE, Spelled, classifier, photos
from seewhy.attack import FGSM
from seewhy.classifier import Classifier
from seewhy.engine import Engine
from seewhy.errors import DataError, InputError, RunError, SpecError
from seewhy.explain import Explainer, Gradient
from seewhy.explain.base import flatten
from seewhy.lens.capture import capture
from seewhy.lens.rules import COMPOSITES, composite
from seewhy.method import parse, registry
from seewhy.report.html import render
from seewhy.run import MODEL, Plan, Progress, Run, audit, key_of, summary, unfinished
from seewhy.run.material import DEMONSTRATION, gather, masked
from seewhy.run.pace import OVERHEAD, Pace, affordable, offer, pace, shared
from seewhy.run.plan import MOST, REPRESENTATIVE, _looks

ATTACK = "fgsm:eps=4/255+32/255+1.0"

#: methods of each kind, two of which answer for several classes at once
METHODS = ("gradient", "grad-cam", "guided-backprop", "smoothgrad:samples=3", "lime:count=8,samples=64", "deep-shap")


@pytest.fixture(scope="module")
def net() -> Classifier:
    return classifier(Spelled("in-place"))


def save(pixels: torch.Tensor, path: Path) -> None:
    Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).resize((36, 30)).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one subfolder a class: an ant, a broken bee, a dog."""
    root = tmp_path_factory.mktemp("data")
    for (name, kind), pixels in zip((("a", "ant"), ("d", "dog")), photos(2), strict=True):
        (root / kind).mkdir()
        save(pixels, root / kind / f"{name}.png")
    (root / "bee").mkdir()
    (root / "bee" / "b.jpg").write_text("not a picture")
    return root


@pytest.fixture(scope="module")
def run(net: Classifier, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole audit with classes asked for, and progress watched."""
    told: list[tuple[float, float, str]] = []
    made = audit(
        net, [data], tmp_path_factory.mktemp("out") / "run", spec="spelled", classes=["elk", 4], budget=None,
        methods=[*METHODS, "fgsm", "filters", *(method.spec for method in _looks(net, []) if method.name == "activations")],
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert all(total == told[0][1] and 0 <= done <= total for done, total, _ in told)
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    assert told[-1][0] == told[-1][1]
    return made


def images_of(net: Classifier, data: Path, index: int = 0) -> Any:
    return net.read(data / ("ant/a.png", "bee/b.jpg", "dog/d.png")[index])


def test_everything_there_is_was_done(run: Run) -> None:
    assert [row.status for row in run.images()] == ["ok", "failed", "ok"]
    assert "b.jpg is not an image: expected JPEG" in (run.images()[1].error or "")
    assert [result.step for result in run.results(MODEL)] == ["identity", "filters"]
    steps = {result.step for result in run.results("0001-a")}
    assert all(result.ok for row in run.images() for result in run.results(row.id))
    assert {step.partition("@")[0] for step in steps if "@" in step and not step.startswith("after")} == set(METHODS)
    assert {"predict", "fgsm"} <= steps
    assert not run.results("0002-b")
    assert run.plan["left_out"] == []


def test_predictions_and_roles(run: Run, net: Classifier, data: Path) -> None:
    for image, place, truth in (("0001-a", 0, 0), ("0003-d", 2, 3)):
        logits = net.predict(images_of(net, data, place))[0]
        assert np.array_equal(run.array(image, "predict", "logits"), logits.numpy())
        record = run.record(image, "predict")
        order = np.argsort(-logits.numpy())
        assert [each["index"] for each in record["top"]] == order.tolist()
        chances = np.exp(logits.double().numpy()) / np.exp(logits.double().numpy()).sum()
        assert [each["probability"] for each in record["top"]] == pytest.approx(chances[order].tolist(), rel=1e-5)
        assert record["truth"]["index"] == truth
        assert record["truth"]["label"] == net.labels[truth]
        roles = {
            each.record["target"]["index"]: each.record["role"]
            for each in run.results(image)
            if each.step.startswith("gradient@")
        }
        expected = {4: "asked", truth: "true", int(order[1]): "runner-up", int(order[0]): "predicted"}
        assert roles == expected


def test_explanations_are_the_methods_own(run: Run, net: Classifier, data: Path) -> None:
    images = images_of(net, data)
    classes = [each.record["target"]["index"] for each in run.results("0001-a") if each.step.startswith("gradient@")]
    assert len(classes) >= 3
    for method in map(parse, METHODS):
        assert isinstance(method, Explainer)
        together = method.each(net, images, classes)
        found = together[classes.index(4)] if shared(method) else method(net, images, target=4)
        assert np.array_equal(run.array("0001-a", f"{method.spec}@4", "values"), found.values[0].numpy())
        record = run.record("0001-a", f"{method.spec}@4")
        assert (record["score"], record["layer"], record["sign"]) == (float(found.score[0]), found.layer, found.sign)
        assert record["cost"] == {"forward": found.cost.forward, "backward": found.cost.backward}
        assert record["together"] == (len(classes) if shared(method) else 1)
        assert all(run.record("0001-a", f"{method.spec}@{index}")["cost"] == record["cost"] for index in classes)
        if found.standard_error is not None:
            kept = run.array("0001-a", f"{method.spec}@4", "standard_error")
            assert np.array_equal(kept, found.standard_error[0].numpy())


def test_the_attack_and_what_comes_after(run: Run, net: Classifier, data: Path) -> None:
    images = images_of(net, data)
    predicted = int(net.predict(images).argmax())
    found = FGSM()(net, images, labels=predicted)
    record = run.record("0001-a", "fgsm")
    assert record["before"]["index"] == predicted
    assert record["eps"] == sorted(record["eps"])
    assert record["eps"][0] == 0
    assert (
        len(record["eps"])
        == len(record["p_before"])
        == len(record["p_after"])
        == len(record["success"])
        == len(found.eps) + 1
    )
    adversarial = torch.from_numpy(run.array("0001-a", "fgsm", "adversarial"))
    now = net.predict(adversarial[None])[0].softmax(-1)
    assert record["after"]["index"] == int(now.argmax())
    assert record["after"]["probability"] == pytest.approx(float(now.max()), rel=1e-5)
    assert record["fooled"] == (int(now.argmax()) != predicted) == bool(np.isfinite(float(found.smallest_eps[0])))
    saved = net.predict((adversarial[None] * 255).round() / 255)[0].softmax(-1)
    assert record["saved"]["index"] == int(saved.argmax())
    assert record["saved"]["label"] == net.labels[int(saved.argmax())]
    assert record["saved"]["probability"] == pytest.approx(float(saved.max()), rel=1e-5)
    change = (adversarial - images.pixels[0]).abs().max()
    assert float(change) <= record["shown_eps"] + 1e-6
    assert record["distances"]["linf"] == pytest.approx(float(change))
    shown = np.asarray(Image.open(run.picture(record["pictures"]["adversarial"])))
    assert np.array_equal(shown, (adversarial * 255).round().byte().permute(1, 2, 0).numpy())
    for size, chance in zip(record["eps"], record["p_before"], strict=True):  # the curve is that of these very images
        moved = (
            (
                images.pixels
                + size * FGSM(eps=(size,), refine=0)(net, images, labels=predicted).images[0].sub(images.pixels).sign()
            ).clamp(0, 1)
            if size
            else images.pixels
        )
        assert float(net.predict(moved)[0].softmax(-1)[predicted]) == pytest.approx(chance, abs=1e-4)
    again = run.record("0001-a", f"after gradient@{predicted}")
    maps = [
        flatten(torch.from_numpy(run.array("0001-a", step, "values"))[None], "absolute").flatten()
        for step in (f"gradient@{predicted}", f"after gradient@{predicted}")
    ]
    assert np.array_equal(
        run.array("0001-a", f"after gradient@{predicted}", "values"),
        Gradient()(net, adversarial[None], target=predicted).values[0].numpy(),
    )
    assert again["correlation"] == pytest.approx(scipy.stats.spearmanr(*maps).statistic, abs=1e-9)
    if record["fooled"]:
        other = run.record("0001-a", f"after gradient@{record['after']['index']}")
        assert other["role"] == ("adversarial" if record["after"]["index"] != predicted else "predicted")


def test_activations_before_and_after(run: Run, net: Classifier, data: Path) -> None:
    layers = [result for result in run.results("0001-a") if result.step.startswith("activations")]
    assert layers
    adversarial = torch.from_numpy(run.array("0001-a", "fgsm", "adversarial"))[None]
    for result in layers:
        layer, channels = result.record["layer"], result.record["channels"]
        for name, pixels in (("before", images_of(net, data).pixels), ("after", adversarial)):
            maps = capture(net, pixels, [layer])[layer][0]
            assert np.array_equal(run.array("0001-a", result.step, name), maps[channels].numpy())
        strength = capture(net, images_of(net, data).pixels, [layer])[layer][0].abs().mean((1, 2))
        assert strength[channels].tolist() == sorted(strength.tolist(), reverse=True)[: len(channels)]


def test_the_model(run: Run, net: Classifier) -> None:
    record = run.record(MODEL, "identity")
    assert record["fingerprint"] == net.fingerprint
    assert record["parameters"] == sum(parameter.numel() for parameter in net.module.parameters())
    # two convolutions of 3 × 3 on 24 × 24 positions, 3 → 8 and 8 → 8 maps, and a layer of 32 × 5
    assert record["multiply_adds"] == 24 * 24 * 9 * (3 * 8 + 8 * 8) + 32 * 5
    first = next(layer for layer in record["layers"] if layer["op"] == "conv2d")
    assert (first["address"], first["window"], first["multiply_adds"]) == ("conv1:conv2d", [3, 3], 24 * 24 * 9 * 3 * 8)
    weights = run.array(MODEL, "filters", "weights")
    assert np.array_equal(weights, net.module.conv1.weight.detach().numpy())  # type: ignore[union-attr, operator]


def test_reading_needs_nothing_of_seewhy(run: Run) -> None:
    path = run.directory
    about = json.loads((path / "run.json").read_text())
    assert about["schema"] == 1
    assert about["plan"]["asked"]["model"] == "spelled"
    held = zarr.open_group(path / "arrays.zarr", mode="r")
    with sqlite3.connect(f"file:{path / 'results.sqlite'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT image, key, record FROM results WHERE status = 'ok'").fetchall()
        images = dict(database.execute("SELECT id, record FROM images WHERE status = 'ok'"))
        timed = database.execute("SELECT image FROM timing WHERE seconds > 0").fetchall()
    database.close()
    assert len(timed) == len(rows) + 2  # one pass there, and there and back, are no steps
    arrays = 0
    for image, key, record in rows:
        assert {"cost", "notes"} <= set(json.loads(record))
        if f"{image}/{key}" in held:
            for _, array in held[f"{image}/{key}"].arrays():  # type: ignore[union-attr]
                arrays += 1
                assert array.metadata.zarr_format == 3
                assert array.dtype == np.float32
                assert np.isfinite(array[...]).all()
    assert arrays > 40
    for record in map(json.loads, images.values()):
        for name in record["pictures"].values():
            Image.open(path / "pictures" / name).load()
        assert record["original"] == [30, 36]
        assert record["size"] == [24, 24]


def test_the_summary_is_plain_json(run: Run) -> None:
    told = json.loads(json.dumps(summary(run), allow_nan=False))
    assert told["model"]["spec"] == "spelled"
    assert [image["status"] for image in told["images"]] == ["ok", "failed", "ok"]
    assert told["images"][0]["attacks"][0]["method"] == "fgsm"
    assert told["failed"] == []


def test_a_plan_survives_json(run: Run) -> None:
    assert Plan.from_json(run.plan).to_json() == run.plan


def test_the_engine_is_as_it_was(net: Classifier, data: Path, tmp_path: Path) -> None:
    before = net.engine
    audit(net, [data / "ant" / "a.png"], tmp_path / "run", methods=["gradient"], budget=None).close()
    assert net.engine is before


class Moody(Spelled):
    """Fails on backward passes whose image is dark, and answers NaN to black."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = x.detach()
        if x.requires_grad and float(plain.mean()) < -1:
            raise RuntimeError("too dark\nto see")
        black = float(plain.amax()) < -1.5
        return super().forward(x) + (torch.nan if black else 0)


def test_what_fails_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    sources = []
    for name, level in (("bright", 0.8), ("dark", 0.03), ("black", 0.0)):
        save((photos(1)[0] * 0.2 + level).clamp(0, 1) if level else torch.zeros(3, 24, 24), tmp_path / f"{name}.png")
        sources.append(tmp_path / f"{name}.png")
    net = classifier(Moody("in-place"))
    with audit(
        net,
        [*sources, tmp_path / "missing.png"],
        tmp_path / "run",
        methods=["gradient", "grad-cam", ATTACK],
        budget=None,
    ) as run:
        assert [row.status for row in run.images()] == ["ok", "ok", "ok", "failed"]
        assert run.images()[3].error == f"there is no file {tmp_path / 'missing.png'}"
        assert [result.error for result in run.results("0001-bright") if not result.ok] == []
        dark = {result.step.partition("@")[0]: result for result in run.results("0002-dark")}
        assert dark["predict"].ok
        assert dark["grad-cam"].ok  # its backward pass begins inside the network
        assert dark["gradient"].error == "RuntimeError: too dark"
        assert dark[ATTACK].error == "RuntimeError: too dark"
        assert dark["after grad-cam"].error == f"there is no adversarial image: {ATTACK} failed"
        black = run.results("0003-black")
        assert [(each.step, each.error) for each in black] == [
            ("predict", "Moody answers black.png with NaN or infinity")
        ]
        assert {each["image"] for each in summary(run)["failed"]} == {"0002-dark", "0003-black"}
        before = run.results("0002-dark")
    with audit(
        net,
        [*sources, tmp_path / "missing.png"],
        tmp_path / "run",
        methods=["gradient", "grad-cam", ATTACK],
        budget=None,
    ) as run:
        assert run.results("0002-dark") == before


class Fragile(Spelled):
    """Answers NaN wherever an image is not one of those that it knows."""

    known: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = super().forward(x)
        if self.known is None:
            return answer
        apart = (x.detach()[:, None] - self.known).abs().amax((2, 3, 4)).amin(1)
        return answer + torch.where(apart > 1e-5, torch.nan, 0.0)[:, None]


def test_nan_on_an_adversarial_image_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    sources = [tmp_path / "one.png", tmp_path / "two.png"]
    for pixels, path in zip(photos(2), sources, strict=True):
        save(pixels, path)
    module = Fragile("in-place")
    net = classifier(module)
    module.known = net.normalise(net.read(*sources).pixels)
    for _ in range(2):
        with audit(
            net, sources, tmp_path / "run", methods=["gradient", ATTACK, "activations:layer=conv1"], budget=None
        ) as run:
            for image in run.images():
                rows = {row.step: row for row in run.results(image.id)}
                assert all(
                    row.ok for step, row in rows.items() if step.startswith(("predict", "gradient", "activations"))
                )
                assert not rows[ATTACK].ok
                assert "NaN" in (rows[ATTACK].error or "")
            assert {each["step"] for each in summary(run)["failed"]} >= {ATTACK}
            assert "it holds NaN or infinity" in render(run)


def test_bf16_is_decided_once_for_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def audited(out: str, progress: Progress | None = None) -> Run:
        net = classifier(Spelled("in-place"), engine=Engine(precision="bf16"))
        methods = ["smoothgrad:samples=3"]
        return audit(net, [data / "ant" / "a.png"], tmp_path / out, methods=methods, budget=None, progress=progress)

    def stop(done: float, total: float, what: str) -> None:
        if "smoothgrad" in what:
            raise KeyboardInterrupt

    monkeypatch.setattr("seewhy.engine.half_pays", lambda device: True)
    whole = audited("whole")
    assert whole.plan["half"] is True
    with pytest.raises(KeyboardInterrupt):
        audited("stopped", stop)
    monkeypatch.setattr("seewhy.engine.half_pays", lambda device: False)
    with whole, audited("other") as other, audited("stopped") as stopped:
        assert other.plan["half"] is False
        steps = [row.step for row in whole.results("0001-a") if row.step.startswith("smoothgrad")]
        assert len(steps) == 2
        for step in steps:
            values = [each.array("0001-a", step, "values") for each in (whole, stopped, other)]
            assert np.array_equal(values[0], values[1])
            assert not np.array_equal(values[0], values[2])
            assert whole.record("0001-a", step)["notes"] == stopped.record("0001-a", step)["notes"]


def test_wrong_words_get_one_sentence(net: Classifier, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match='no class "antt"; did you mean "ant"'):
        audit(net, [data], out, classes=["antt"])
    with pytest.raises(SpecError, match='no method "gradent"; did you mean "gradient"'):
        audit(net, [data], out, methods=["gradent"])
    with pytest.raises(SpecError, match="expected a budget of more than 0 seconds"):
        audit(net, [data], out, budget=0)
    with pytest.raises(DataError, match=r"b\.jpg is not an image: expected JPEG"):
        audit(net, [data / "bee" / "b.jpg"], out)
    with pytest.raises(DataError, match=r"none of the 2 images can be read; the first: there is no file .*x\.png"):
        audit(net, ["x.png", "y.png"], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no images in"):
        audit(net, [tmp_path / "empty"], out)
    with pytest.raises(InputError, match=r"expected a label map in none\.npy"):
        audit(net, [data], out, methods=["lime:segments=none.npy"])
    with pytest.raises(DataError, match="nowhere"):
        audit(net, [data], out, methods=["expected-gradients:references=nowhere"])
    assert not out.exists()
    with pytest.raises(RunError, match="is not empty and holds no run of seewhy"):
        audit(net, [data / "ant" / "a.png"], data, budget=None)


def test_classes_that_the_model_lacks_are_said(net: Classifier, tmp_path: Path) -> None:
    for kind in ("ant", "unicorn"):
        (tmp_path / kind).mkdir()
        save(photos(1)[0], tmp_path / kind / "x.png")
    material = gather([tmp_path], net.labels)
    assert [entry.item.label for entry in material.entries] == [None, None]
    assert 'no class "unicorn"' in material.notes[0]


def test_a_tilde_is_the_home_folder(net: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(photos(1)[0], tmp_path / "a.png")
    material = gather(["~/a.png"], net.labels)
    assert material.entries[0].item.open()[0].size == (36, 30)
    assert masked(material, "~/masks", []).masks == tmp_path / "masks"


def test_the_demonstration_is_four_photographs_with_credits() -> None:
    material = gather([], ["ant"])
    assert [entry.item.name for entry in material.entries] == list(DEMONSTRATION)
    for entry in material.entries:
        assert entry.credit is not None
        assert "CC0" in entry.credit or "public domain" in entry.credit
        assert entry.item.open()[0].mode == "RGB"


def test_the_format_tells_what_a_run_keeps_of_its_command(run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "run-format.md").read_text()
    (told,) = re.findall(r"`asked` is what the command said, `\{(.*?)\}`", page, re.DOTALL)
    assert {*re.split(r",\s+", told), *re.findall("`asked` has `(.*?)` too", page)} == set(run.plan["asked"])


def test_a_budget_leaves_out_what_is_dear(net: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        save(photos(1, seed=number)[0], tmp_path / f"{number:02d}.png")
    planned: dict[str, Plan] = {}
    for name, seconds, budget in (
        ("fast", 1e-4, 300.0),
        ("slow", 0.02, 60.0),
        ("slower", 1.0, 60.0),
        ("full", 1.0, None),
    ):
        from seewhy.run import plan as planning

        material = gather([tmp_path], net.labels)
        words: dict[str, Any] = {"sources": [tmp_path], "spec": "", "classes": [], "methods": [], "limit": None}
        said = planning.asked(net, material, **words, budget=budget)
        planned[name] = planning.make(net, material, said, [], None if budget is None else Pace(seconds, 2 * seconds))
    every = set(registry("explain"))
    refused = {each.partition(":")[0] for each in planned["full"].left_out}
    assert len(planned["full"].images) == 30
    assert {method.name for method in planned["full"].explain} == every - refused
    assert len(planned["fast"].images) == MOST == 12
    chosen = {method.name for method in planned["fast"].explain}
    assert chosen == (set(REPRESENTATIVE) & every) - refused
    others = next(
        each for each in planned["fast"].left_out if each.startswith("methods of families that others stand for")
    )
    assert all(name in others for name in every - set(REPRESENTATIVE))
    assert planned["fast"].left_out[-1] == "12 of 30 images were taken by chance (seed 0); --limit or --full for more"
    assert 4 < len(planned["slow"].images) < 12
    assert len(planned["slower"].images) == 4
    assert all(sum(method.passes) <= 3 for method in planned["slower"].explain)
    assert any("integrated-gradients would take about" in each for each in planned["slower"].left_out)
    assert "even the cheap methods take about" in planned["slower"].notes[0]


class Odd(Spelled):
    """A network with an operation that no lens for relevance or backward rules knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.special.erfcx(x))


def test_what_refuses_the_network_is_left_out_with_its_sentence(data: Path) -> None:
    from seewhy.run import plan as planning

    net = classifier(Odd("in-place"))
    material = gather([data], net.labels)
    words: dict[str, Any] = {"sources": [data], "spec": "", "classes": [], "methods": [], "limit": None}
    plan = planning.make(net, material, planning.asked(net, material, **words, budget=None), [], None)
    assert "deep-shap" not in {method.name for method in plan.explain}
    assert any(each.startswith("deep-shap: ") and "erfcx" in each for each in plan.left_out)
    assert "gradient" in {method.name for method in plan.explain}


def test_dear_methods_come_with_fewer_steps_where_that_fits(net: Classifier) -> None:
    speed = Pace(1.0, 2.0)
    smooth, path = parse("smoothgrad"), parse("integrated-gradients")
    offers = [offer(smooth, speed.cost), offer(path, speed.cost)]
    third = parse(f"integrated-gradients:steps={path.steps // 3}")  # type: ignore[attr-defined]
    chosen, told = affordable(offers, speed.cost(smooth) + speed.cost(third) + 1e-6)
    assert chosen == [smooth, third]
    assert told == [f"{third.spec} runs instead of integrated-gradients, to stay within the budget"]
    few = parse("smoothgrad:samples=8")
    chosen, told = affordable(offers, speed.cost(few) + 1e-6)  # as many methods as possible first
    assert chosen == [few, None]
    assert told[0].startswith("integrated-gradients would take about")
    assert told[1] == "smoothgrad:samples=8 runs instead of smoothgrad, to stay within the budget"


def test_occlusion_is_priced_at_the_size_of_the_models_images(net: Classifier) -> None:
    assert pace(net).size == net.size
    for spec, positions in {"occlusion:window=75": 15 * 15, "occlusion": 27 * 27}.items():
        assert Pace(1.0, 2.0, size=(600, 600)).cost(parse(spec)) == pytest.approx(OVERHEAD + 3 + positions)
    assert Pace(1.0, 2.0, size=(64, 512)).cost(parse("occlusion")) == pytest.approx(OVERHEAD + 3 + 21 * 170)


def test_a_users_batch_size_is_kept(data: Path, tmp_path: Path) -> None:
    net = classifier(Spelled("in-place"), engine=Engine(batch=3))
    with audit(net, [data / "ant" / "a.png"], tmp_path / "run", methods=["gradient"], budget=None) as run:
        assert run.plan["batch"] == 3


def written(kind: str, folder: Path, version: int) -> str:
    """Write what a method reads, in one of two versions, and answer its spec, which is the same for both."""
    rule = f"epsilon:{version + 1}e-6"
    if kind == "registered":
        composite("mine", [{"rule": rule}])
        return "lrp:composite=mine"
    if kind == "composite":
        (folder / "mine.toml").write_text(f'[[composite]]\nrule = "{rule}"\n')
        return f"lrp:composite={folder / 'mine.toml'}"
    if kind == "segments":
        parts = np.add.outer(np.arange(SIZE) // (12 + version), np.zeros(SIZE, dtype=int))
        np.save(folder / "parts.npy", parts)
        return f"lime:segments={folder / 'parts.npy'}"
    (folder / "references").mkdir(exist_ok=True)
    save(photos(2)[version], folder / "references" / "a.png")
    return f"expected-gradients:samples=4,references={folder / 'references'}"


@pytest.mark.parametrize("kind", ["registered", "composite", "segments", "references"])
def test_a_run_does_not_go_on_with_another_composite_map_or_reference_of_one_name(
    net: Classifier, data: Path, tmp_path: Path, kind: str
) -> None:
    spec = written(kind, tmp_path, 0)

    def again(progress: Progress | None = None) -> Run:
        sources = [data / "ant" / "a.png", data / "dog" / "d.png"]
        return audit(net, sources, tmp_path / "run", methods=[spec], budget=None, progress=progress)

    def stop(done: float, total: float, what: str) -> None:
        if what.startswith("d.png"):
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            again(stop)
        assert written(kind, tmp_path, 1) == spec
        with pytest.raises(
            RunError, match="another run: the methods' composites, label maps or references differ; choose"
        ):
            again()
        written(kind, tmp_path, 0)
        with again() as run:
            assert not unfinished(run)
            assert all(row.ok for image in run.images() for row in run.results(image.id))
            (held,) = run.plan["asked"]["outside"][spec].values()
    finally:
        COMPOSITES.pop("mine", None)
    if kind in ("registered", "composite"):
        assert held == [{"rule": "epsilon:1e-6", "op": "*", "kind": "*", "path": "*", "depth": "*"}]


def test_keys_are_folders_that_no_two_steps_share() -> None:
    steps = ["a/b", "a:b", "a b", "A/b", "fgsm:eps=8/255", "x" * 300, "x" * 301, "..", "grad-cam@1"]
    keys = [key_of(step) for step in steps]
    assert len({key.lower() for key in keys}) == len(steps)
    assert all(len(key) < 60 and "/" not in key and not key.startswith(".") for key in keys)
