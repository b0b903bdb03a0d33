"""A run survives: kills at any moment, full disks, broken files, two writers; and says what is wrong in one sentence."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nets import Spelled, classifier, photos
from seewhy.errors import RunError
from seewhy.run import Run, Timing, audit, unfinished

HERE = Path(__file__).parent
SOFTWARE = {"threads": 1000}
METHODS = [
    *("filters", "activations", "grad-cam", "gradient", "smoothgrad:samples=4"),
    *("lime:count=8,samples=64", "fgsm:eps=2/255+8/255+32/255"),  # lime answers for several classes at once
    *("statistics", "exemplars:k=2,limit=2", "units:shuffles=9", "maximize:steps=2"),  # of the images as a whole
]
WAY_OUT = "choose another directory with --out"


def worker(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    paths = [str(HERE.parents[1] / "src"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(HERE / "worker.py")],
        input=json.dumps([{"methods": METHODS, **task} for task in tasks]),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two good photographs and, between them, one that is cut off."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, pixels in zip(("one", "three"), photos(2), strict=True):
        array = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).resize((40, 30)).save(folder / f"{name}.png")
    whole = (folder / "one.png").read_bytes()
    (folder / "two.png").write_bytes(whole[: len(whole) // 2])
    return [str(folder / f"{name}.png") for name in ("one", "two", "three")]


def content(run: Path) -> dict[str, Any]:
    """All that a run holds but times: its rows, and the bytes of its files."""
    with sqlite3.connect(run / "results.sqlite") as database:
        held: dict[str, Any] = {
            table: database.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
            for table in ("images", "results")
        }
        timed = database.execute("SELECT image, step FROM timing ORDER BY image, step").fetchall()
    database.close()
    held["timed"] = timed
    for file in sorted(run.rglob("*")):
        if file.is_file() and file.name != "results.sqlite":
            held[str(file.relative_to(run))] = file.read_bytes()
    return held


@pytest.fixture(scope="module")
def undisturbed(pictures: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, int]]:
    """What two undisturbed runs hold (the same), and how often each event comes in one."""
    runs = [tmp_path_factory.mktemp("undisturbed") / "run" for _ in range(2)]
    answers = worker([{"out": str(run), "photos": pictures} for run in runs])
    assert [answer["code"] for answer in answers] == [0, 0]
    one, other = map(content, runs)
    assert one == other
    return one, answers[0]["events"]


def test_an_undisturbed_run_is_whole(undisturbed: tuple[dict[str, Any], dict[str, int]]) -> None:
    held, events = undisturbed
    assert [row[5] for row in held["images"]] == ["ok", "failed", "ok"]
    assert "two.png cannot be decoded, it is damaged or cut off" in held["images"][1][6]
    assert {row[3] for row in held["results"]} == {"ok"}
    assert len([row for row in held["results"] if row[0] == "0001-one"]) >= 10
    assert min(events[name] for name in ("rename", "half", "commit", "committed")) > 20


EVENTS = ("rename", "renamed", "half", "commit", "committed")


def test_goes_on_after_a_kill_at_any_moment(
    undisturbed: tuple[dict[str, Any], dict[str, int]], pictures: list[str], tmp_path: Path
) -> None:
    held, events = undisturbed
    moments = [("rename", 1), ("renamed", 1), ("rename", 2), ("commit", 1), ("commit", 2), ("half", 1)]
    moments += [(event, 1 + round(share * (events[event] - 1))) for event in EVENTS for share in (0.4, 1.0)]
    tasks: list[dict[str, Any]] = []
    for event, at in moments:
        task: dict[str, Any] = {"out": str(tmp_path / f"{event}-{at}"), "photos": pictures}
        tasks += [{**task, "event": event, "at": at}, task]
    answers = worker(tasks)
    for (event, at), killed, resumed in zip(moments, answers[::2], answers[1::2], strict=True):
        assert killed["code"] == -9, (event, at)
        assert resumed["code"] == 0, (event, at, resumed["error"])
        assert content(tmp_path / f"{event}-{at}") == held, (event, at)
    late = answers[2 * moments.index(("committed", events["committed"])) + 1]
    assert late["events"].get("committed", 0) == 0  # nothing that was done is done again


def test_goes_on_after_several_kills_and_a_ctrl_c(
    undisturbed: tuple[dict[str, Any], dict[str, int]], pictures: list[str], tmp_path: Path
) -> None:
    task: dict[str, Any] = {"out": str(tmp_path / "run"), "photos": pictures}
    stops = [("half", 4, "SIGKILL"), ("committed", 3, "SIGINT"), ("commit", 5, "SIGKILL"), ("renamed", 6, "SIGINT")]
    answers = worker([{**task, "event": event, "at": at, "signal": how} for event, at, how in stops] + [task])
    assert [answer["code"] for answer in answers] == [-9, 130, -9, 130, 0]
    assert content(tmp_path / "run") == undisturbed[0]


def test_what_is_still_to_be_done_is_known_at_any_moment(
    undisturbed: tuple[dict[str, Any], dict[str, int]], pictures: list[str], tmp_path: Path
) -> None:
    held, events = undisturbed
    whole = {(row[0], row[1]) for row in held["results"]}
    moments = [1, *(round(share * events["committed"]) for share in (0.2, 0.5, 0.8)), events["committed"] - 1]
    moments.append(events["committed"])
    tasks = [{"out": str(tmp_path / str(at)), "photos": pictures, "event": "committed", "at": at} for at in moments]
    assert [answer["code"] for answer in worker(tasks)] == [-9] * len(moments)
    for at in moments:
        with Run.open(tmp_path / str(at)) as run:
            left = unfinished(run)
            ids = {image["name"]: image["id"] for image in run.plan["images"]}
            there = {(row.image, row.step) for of in ("model", "set", *ids.values()) for row in run.results(of)}
        assert len(there) == at
        assert bool(left) == (at < len(whole))
        waiting = {ids[name] for name in left.images}
        missing = {each for each in whole - there if each[0] not in waiting}
        follows = {each for each in missing if each[1].startswith(("why ", "after ", "maximize"))}
        known = {each for each in left.steps if not each[1].startswith("maximize")}
        assert missing - follows <= known <= missing


@pytest.fixture(scope="module")
def killed(pictures: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed half-way."""
    path = tmp_path_factory.mktemp("killed") / "run"
    assert worker([{"out": str(path), "photos": pictures, "event": "committed", "at": 6}])[0]["code"] == -9
    return path


@pytest.fixture
def stopped(killed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    shutil.copytree(killed, tmp_path / "run")
    return tmp_path / "run"


def again(path: Path, pictures: list[str]) -> None:
    """The same command again, in this process."""
    audit(classifier(Spelled("in-place")), pictures, path, spec="spelled", methods=METHODS, budget=None).close()


def test_a_second_writer_gets_one_sentence(stopped: Path, pictures: list[str]) -> None:
    plan = Run.planned(stopped)
    assert plan is not None
    with Run.create(stopped, plan, SOFTWARE) as held:
        refused = worker([{"out": str(stopped), "photos": pictures}])[0]
        assert refused["code"] == 2
        assert refused["error"] == f"RunError: another process is writing to {stopped}; wait for it, or {WAY_OUT}"
        with pytest.raises(RunError, match="another process is writing"):  # within one process too
            Run.create(stopped, plan, SOFTWARE)
        with Run.open(stopped) as reader:  # reading goes on meanwhile
            assert reader.results() == held.results()
    again(stopped, pictures)
    with Run.open(stopped) as run:
        assert any("threads" in note for note in run.notes())  # they differed, and a reader is told


def test_a_run_of_other_images_or_methods_is_refused(stopped: Path, pictures: list[str], tmp_path: Path) -> None:
    before = content(stopped)
    with pytest.raises(RunError) as caught:
        again(stopped, pictures[:1])
    assert str(caught.value) == f"{stopped} belongs to another run: the images differ; {WAY_OUT}"
    folder = tmp_path / "photographs"
    shutil.copytree(Path(pictures[0]).parent, folder)
    moved = [str(folder / Path(picture).name) for picture in pictures]
    Image.new("RGB", (30, 30), "red").save(moved[2])
    with pytest.raises(RunError, match=r"the image three\.png has other contents there"):
        again(stopped, moved)
    net = classifier(Spelled("in-place"))
    with pytest.raises(RunError, match="the methods differ; choose"):
        audit(net, pictures, stopped, spec="spelled", methods=["gradient"], budget=None)
    with pytest.raises(RunError, match=r"the budget differs \(None there, 60 here\)"):
        audit(net, pictures, stopped, spec="spelled", methods=METHODS, budget=60)
    with pytest.raises(RunError, match="the model's operations differ; choose"):  # of the same weights
        audit(classifier(Spelled("torch")), pictures, stopped, spec="spelled", methods=METHODS, budget=None)
    with torch.no_grad():
        net.module.fc.bias += 1  # type: ignore[union-attr, operator]
    del net.fingerprint
    with pytest.raises(RunError, match="the model's weights differ"):
        audit(net, pictures, stopped, spec="spelled", methods=METHODS, budget=None)
    assert content(stopped) == before


def test_images_that_were_moved_are_the_same_images(stopped: Path, pictures: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(Path(pictures[0]).parent, folder)
    again(stopped, [str(folder / Path(picture).name) for picture in pictures])
    with Run.open(stopped) as run:
        assert [row.status for row in run.images()] == ["ok", "failed", "ok"]


def test_a_run_of_an_older_seewhy_goes_on_and_says_what_was_not_checked(stopped: Path, pictures: list[str]) -> None:
    about = json.loads((stopped / "run.json").read_text())
    del about["plan"]["half"]
    for part in ("code", "operations", "outside"):
        del about["plan"]["asked"][part]
    (stopped / "run.json").write_text(json.dumps(about))
    with Run.open(stopped) as run:
        assert unfinished(run)
    again(stopped, pictures)
    with Run.open(stopped) as run:
        assert not unfinished(run)
        assert any(
            "plan of an older seewhy, which knows the model by its weights alone" in note for note in run.notes()
        )


def test_a_record_that_holds_no_numbers_leaves_nothing(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {}, SOFTWARE) as run:
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match="it holds NaN or infinity"):
                run.put("model", "step", {"x": [value]}, {"values": np.ones(3)}, timing=Timing(1.0))
        assert run.results() == ()
        assert run.names("model", "step") == ()
        assert run.timing("model", "step") is None


def test_damaged_files_are_named(stopped: Path, pictures: list[str]) -> None:
    database, about = stopped / "results.sqlite", stopped / "run.json"
    good_database, good_about = database.read_bytes(), about.read_bytes()
    newer = json.dumps({**json.loads(good_about), "schema": 99}).encode()
    strange = json.dumps({"schema": 1, "plan": {"asked": {}}, "software": {}}).encode()
    damages = [
        (database, b"no database at all" * 400, "results.sqlite is damaged"),
        (database, good_database[: len(good_database) // 2], "results.sqlite is damaged"),
        (about, b"{", "run.json is damaged"),
        (about, b"[]", "run.json is damaged"),
        (about, newer, "made by a newer seewhy (schema 99; this one knows up to 1)"),
        (about, strange, "the plan in run.json was made by another seewhy, or changed"),
    ]
    for file, damage, sentence in damages:
        file.write_bytes(damage)
        with pytest.raises(RunError) as caught:
            again(stopped, pictures)
        assert sentence in str(caught.value)
        assert str(caught.value).endswith(WAY_OUT)
        assert "\n" not in str(caught.value)
        assert file.read_bytes() == damage  # never touched
        database.write_bytes(good_database)
        about.write_bytes(good_about)
    again(stopped, pictures)


def test_damage_is_named_when_reading(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {"a": 1}, SOFTWARE) as run:
        run.put("model", "step", {"x": 1}, {"values": np.ones((2, 3))}, timing=Timing(1.0))
    path = tmp_path / "run"
    for file in (path / "arrays.zarr").rglob("0"):
        if file.is_file():
            file.write_bytes(b"\0")
    with Run.open(path) as run:
        with pytest.raises(RunError, match="is damaged"):
            run.array("model", "step", "values")
        with pytest.raises(RunError, match='has no array "other"'):
            run.array("model", "step", "other")
        with pytest.raises(RunError, match='no step "stop" on model; did you mean "step"'):
            run.record("model", "stop")
        with pytest.raises(RunError, match="opened for reading only"):
            run.failed("model", "step", "no")
    (path / "results.sqlite").unlink()
    with pytest.raises(RunError, match=r"was not begun, or its results\.sqlite is gone"):
        Run.open(path)
    (path / "results.sqlite").touch()
    with Run.open(path) as run, pytest.raises(RunError, match="was not begun"):
        run.images()
    for nothing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(RunError, match="there is no run in"):
            Run.open(nothing)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and holds no run of seewhy; choose another directory with --out"):
        Run.create(tmp_path, {}, SOFTWARE)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["thesis.txt"]


@pytest.mark.parametrize("place", ["file", "below a file", "/proc", "/proc/nothing/run"])
def test_a_directory_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    if place.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("needs /proc, which this system does not have")
    file = tmp_path / "file"
    file.touch()
    path = {"file": file, "below a file": file / "run"}.get(place, Path(place))
    with pytest.raises(RunError) as caught:
        Run.create(path, {}, SOFTWARE)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("choose another directory with --out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not stop root")
def test_a_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written"):
        Run.create(tmp_path / "run", {}, SOFTWARE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs mount, which this system does not have")
    if mounted.returncode:
        pytest.skip(f"needs leave to mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    rows = np.random.default_rng(0).random((8, 20_000), dtype=np.float32)
    with Run.create(small_disk / "run", {}, SOFTWARE) as run:

        def put_all() -> None:
            for number, row in enumerate(rows):
                if not run.done("model", f"step {number}"):
                    run.put("model", f"step {number}", {}, {"values": row})

        with pytest.raises(RunError, match=r"No space left on device.*run the same command again"):
            put_all()
        kept = run.results()
    assert 1 <= len(kept) < len(rows)
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)  # the user frees some space
    with Run.create(small_disk / "run", {}, SOFTWARE) as run:
        put_all()
        assert all(
            np.array_equal(run.array("model", f"step {number}", "values"), row) for number, row in enumerate(rows)
        )
