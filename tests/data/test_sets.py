"""Data sets: samples and splits that keep classes' shares and groups whole, and pictures that cannot be read."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data import DataSet, Images, Preprocess, folder, masks, photos
from seewhy.data.masks import fingerprint, mask_files
from seewhy.data.sets import Arrays
from seewhy.errors import DataError, InputError

PLAIN = Preprocess((8, 8))


def made(labels: Sequence[int | None] | None, groups: list[str] | None = None, n: int = 0) -> DataSet:
    n = n or len(labels or groups or [])
    array = np.arange(n, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    return DataSet(
        "made",
        tuple(f"{index:03d}" for index in range(n)),
        Arrays(array),
        None if labels is None else tuple(labels),
        None,
        None if groups is None else tuple(groups),
    )


def test_items_and_images_keep_their_places() -> None:
    data = made([0, 1, 2, 1, 0])
    assert [item.name for item in data] == ["000", "001", "002", "003", "004"]
    images = data.images([4, 1], PLAIN)
    assert images.names == ("004", "001")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1]
    assert (images.pixels.amax((1, 2, 3)) * 255).round().tolist() == [4, 1]
    assert torch.equal(data.subset([3, 4, 1]).images(slice(1, 3), PLAIN).pixels, images.pixels)
    assert data.item(-1).name == "004"
    for wrong in (5, -6):
        with pytest.raises(InputError, match="there is no image"):
            data.item(wrong)


def test_labels_are_given_only_where_all_are_known() -> None:
    data = made([0, None, 1])
    assert data.images([0, 1], PLAIN).labels is None
    assert data.images([0, 2], PLAIN).labels is not None
    assert data.counts() == {"0": 1, "1": 1, "(unknown)": 1}


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_keeps_the_classes_shares(seed: int) -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    sample = made(labels).sample(20, seed)
    assert Counter(sample.labels or ()) == {0: 12, 1: 6, 2: 2}
    assert list(sample.names) == sorted(set(sample.names))
    assert made(labels).sample(20, seed).names == sample.names
    assert made(labels).sample(20, seed + 100).names != sample.names
    assert Counter(made(labels).sample(7, seed).labels or ()) == {0: 4, 1: 2, 2: 1}


def test_ties_between_classes_are_drawn() -> None:
    first = [made([0, 1, 2, 3] * 5).sample(1, seed).labels for seed in range(40)]
    assert len(set(first)) == 4


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_parted(seed: int) -> None:
    draw = np.random.default_rng(seed)
    groups = [f"lesion {index}" for index in range(80) for _ in range(int(draw.integers(1, 5)))]
    labels = [int(group.split()[1]) % 3 for group in groups]
    data = made(labels, groups)
    first, second = data.split(0.8, seed)
    assert not set(first.groups or ()) & set(second.groups or ())
    assert sorted(first.names + second.names) == list(data.names)
    assert 0 <= round(0.8 * len(data)) - len(first) <= 3  # a group has at most four
    for label, whole in Counter(labels).items():
        assert abs(Counter(first.labels or ())[label] - 0.8 * whole) <= 4
    sample = data.sample(30, seed)
    assert 27 <= len(sample) <= 30
    whole_groups = Counter(groups)
    assert all(whole_groups[group] == count for group, count in Counter(sample.groups or ()).items())


def test_each_place_is_drawn_alike() -> None:
    hits = Counter(name for seed in range(400) for name in made(None, n=10).sample(3, seed).names)
    assert all(85 <= hits[f"{index:03d}"] <= 155 for index in range(10))  # 120 ± 4 deviations


def test_samples_and_splits_that_cannot_be() -> None:
    data = made([0, 1], ["a", "a"])
    for count in (0, 3):
        with pytest.raises(InputError, match="expected 1 to 2 images"):
            data.sample(count)
    with pytest.raises(InputError, match="the smallest has 2"):
        data.sample(1)
    for share in (0.0, 1.0, 0.01):
        with pytest.raises(InputError, match="both parts"):
            made([0, 1, 0]).split(share)


def test_wrong_labels_and_empty_sets_are_refused() -> None:
    with pytest.raises(DataError, match="holds no images"):
        made([])
    with pytest.raises(DataError, match="label -1"):
        made([0, -1])
    with pytest.raises(DataError, match="expected as many"):
        DataSet("a", ("x", "y"), Arrays(np.zeros((2, 4, 4), np.uint8)), (0,))


def test_a_broken_picture_does_not_stop_the_set(tmp_path: Path) -> None:
    for name in ("a", "c"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.jpg").write_text("no picture")
    found = {item.name: result for item, result in folder(tmp_path).each(PLAIN)}
    assert list(found) == ["a.png", "b.jpg", "c.png"]
    assert isinstance(found["a.png"], Images)
    assert isinstance(found["c.png"], Images)
    assert isinstance(found["b.jpg"], DataError)
    assert "b.jpg is not an image" in str(found["b.jpg"])
    with pytest.raises(DataError, match="not an image"):
        folder(tmp_path).images([0, 1], PLAIN)
    gone = photos([tmp_path / "a.png", tmp_path / "none.png"])
    assert [type(result) for _, result in gone.each(PLAIN)] == [Images, DataError]
    assert gone.fingerprint()


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a" / "x").mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / "a" / "x" / f"{index}.png")
    before = folder(tmp_path / "a").fingerprint()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert folder(tmp_path / "b").fingerprint() == before
    content = bytearray((tmp_path / "b" / "x" / "1.png").read_bytes())
    content[-20] ^= 1
    (tmp_path / "b" / "x" / "1.png").write_bytes(content)
    assert folder(tmp_path / "b").fingerprint() != before
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert folder(tmp_path / "a").fingerprint() != before
    assert made([0, 1]).fingerprint() != made([1, 0]).fingerprint()
    assert made([0, 1, 1]).subset([1, 2]).fingerprint() != made([0, 1, 1]).subset([1, 0]).fingerprint()


def test_a_stamp_is_of_what_can_be_seen_of_files_without_reading_them(tmp_path: Path) -> None:
    for index in range(2):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / f"{index}.png")
    before = folder(tmp_path).stamp()
    assert folder(tmp_path).stamp() == before
    assert folder(tmp_path).subset([0]).stamp() != before
    os.utime(tmp_path / "0.png", ns=(1, 1))
    later = folder(tmp_path).stamp()
    assert later != before
    data = folder(tmp_path)
    (tmp_path / "1.png").unlink()
    assert data.stamp() not in (before, later)
    assert made([0, 1]).stamp() != made([1, 0]).stamp()


def test_a_set_travels_to_another_process(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), (51, 0, 0)).save(tmp_path / "a.png")
    for data in (folder(tmp_path), made([0, 1])):
        again = pickle.loads(pickle.dumps(data))
        assert again.fingerprint() == data.fingerprint()
        assert torch.equal(pickle.loads(pickle.dumps(data.item(0))).read(PLAIN).pixels, data.images([0], PLAIN).pixels)


def test_alignment_with_a_models_labels() -> None:
    array = np.zeros((3, 4, 4), np.uint8)
    data = DataSet("a", ("x", "y", "z"), Arrays(array), (0, 1, None), ("tiger_cat", "Tench"))
    aligned = data.aligned(["tench, Tinca tinca", "dog", "tiger cat"])
    assert aligned.labels == (2, 0, None)
    assert aligned.classes == ("tench, Tinca tinca", "dog", "tiger cat")
    with pytest.raises(DataError, match='no class "Tench", which a has; did you mean "trench"'):
        data.aligned(["trench", "tiger cat"])
    with pytest.raises(DataError, match="several classes"):
        data.aligned(["tench", "tench", "tiger cat"])
    assert data.aligned_or_bare(["tench", "tiger cat"])[0].labels == (1, 0, None)
    bare, notes = data.aligned_or_bare(["trench", "tiger cat"])
    assert (bare.names, bare.labels, bare.classes) == (data.names, None, None)
    assert notes[0].startswith('the true classes of a are not used: the model has no class "Tench"')
    numbered = made([0, 5])
    assert numbered.aligned(list("abcdef")).labels == (0, 5)
    with pytest.raises(DataError, match="only 5 classes"):
        numbered.aligned(list("abcde"))


def test_masks_follow_their_images_by_name_class_and_crop(tmp_path: Path) -> None:
    for name, dark in (("ant/a", True), ("bee/b", False)):
        for root in ("images", "masks"):
            (tmp_path / root / name).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((16, 24, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
        mask = np.full((16, 24), 255 if dark else 0, dtype=np.uint8)
        mask[4:8, 6:12] = 0 if dark else 255  # the object is what covers less of the border
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    images = folder(tmp_path / "images")
    found = masks(tmp_path / "masks", images, Preprocess((16, 16), interpolation="nearest"))
    expected = np.zeros((16, 16), dtype=bool)
    expected[4:8, 2:8] = True  # the middle of 24 columns
    assert set(found) == {"ant", "bee"}
    assert found["ant"][0].numpy().tolist() == found["bee"][1].numpy().tolist() == expected.tolist()
    assert list(found["ant"]) == [0]  # of the images that have one, and of no others
    assert list(found["bee"]) == [1]
    (tmp_path / "parts" / "leg" / "ant").mkdir(parents=True)
    shutil.copy(tmp_path / "masks" / "ant" / "a.png", tmp_path / "parts" / "leg" / "ant" / "a.png")
    parts = masks(tmp_path / "parts", images, Preprocess((16, 16), interpolation="nearest"))
    assert list(parts) == ["leg"]
    assert list(parts["leg"]) == [0]
    assert parts["leg"][0].any()
    before = fingerprint(mask_files(tmp_path / "masks", images))
    Image.new("L", (16, 16)).save(tmp_path / "masks" / "bee" / "b.png")
    assert fingerprint(mask_files(tmp_path / "masks", images)) != before
    with pytest.raises(DataError, match=r"bee/b\.png has 24 × 16 pixels, and its mask .* 16 × 16"):
        masks(tmp_path / "masks", images, PLAIN)
    (tmp_path / "masks" / "bee" / "b.png").unlink()
    with pytest.raises(DataError, match=r"there is none for bee/b\.png"):
        masks(tmp_path / "masks", images, PLAIN)
    files = [tmp_path / "images" / f"{name}.png" for name in ("ant/a", "bee/b")]
    full = replace(images, names=tuple(map(str, files)))
    with pytest.raises(DataError, match="there is none for"):
        masks(tmp_path / "masks", full, PLAIN)  # an image is not its own mask
