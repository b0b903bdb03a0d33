"""Each format from small real files, and from the real sets where they are."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.data import Preprocess, ham10000, load, medmnist, photos, table
from seewhy.errors import DataError, MissingExtra

PLAIN = Preprocess((8, 8))


def picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 10), (level, level, level)).save(path)
    return path


def levels(data: object) -> list[int]:
    return [int(item.open()[0].getpixel((0, 0))[0]) for item in data]  # type: ignore[attr-defined]


# Folders


def test_a_flat_folder(tmp_path: Path) -> None:
    for level, name in enumerate(("b.PNG", "a.jpeg", "c.gif", ".hidden.png")):
        picture(tmp_path / name, level * 50)
    (tmp_path / "notes.txt").write_text("not a picture")
    picture(tmp_path / "inner" / "d.png")
    data = load(tmp_path)
    assert data.names == ("a.jpeg", "b.PNG", "c.gif")
    assert levels(data) == [50, 0, 100]
    assert data.labels is None
    assert data.classes is None
    assert data.notes == ("subfolders not read, since there are images beside them: inner",)


def test_one_subfolder_a_class(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "cat/deep/1.png", ".git/x.png", "cat/.x/1.png"):
        picture(tmp_path / name)
    (tmp_path / "empty").mkdir()
    data = load(str(tmp_path))
    assert data.names == ("cat/2.png", "cat/deep/1.png", "dog/1.png")
    assert data.classes == ("cat", "dog", "empty")
    assert data.labels == (0, 0, 1)
    assert data.counts() == {"cat": 2, "dog": 1, "empty": 0}


def test_a_folder_with_splits_asks_which(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            picture(tmp_path / split / name / "1.png", 9 if split == "test" else 0)
    with pytest.raises(DataError, match="holds the splits test, train; choose one"):
        load(tmp_path)
    data = load(f"folder:{tmp_path}", "test")
    assert data.classes == ("cat", "dog")
    assert levels(data) == [9, 9]
    with pytest.raises(DataError, match='no split "val": expected one of its subfolders, test, train'):
        load(tmp_path, "val")


def test_photographs_by_path(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "x" / "1.png", 1), picture(tmp_path / "y" / "1.png", 2)
    assert photos([one]).names == ("1.png",)
    assert photos([one, two]).names == (str(one), str(two))
    assert levels(photos([two, one])) == [2, 1]
    assert load(one).names == ("1.png",)
    with pytest.raises(DataError, match="given twice"):
        photos([one, one])


# Tables


@pytest.mark.parametrize(
    ("name", "text", "labels", "classes"),
    [
        ("a.csv", "path,label\na.png,dog\nsub/b.png,cat\n", (1, 0), ("cat", "dog")),
        ("a.tsv", "File\tClass\na.png\t3\nsub/b.png\t0\n", (3, 0), None),
        ("a.csv", '\ufefffilename;target\n"a.png";\nsub/b.png;1\n', (None, 1), None),
        ("a.csv", "id,image\n7,a.png\n8,sub/b.png\n", None, None),
    ],
)
def test_tables(
    tmp_path: Path, name: str, text: str, labels: tuple[int | None, ...] | None, classes: tuple[str, ...] | None
) -> None:
    picture(tmp_path / "a.png", 5)
    picture(tmp_path / "sub" / "b.png", 6)
    (tmp_path / name).write_text(text, encoding="utf-8")
    data = load(tmp_path / name)
    assert data.names == ("a.png", "sub/b.png")
    assert data.labels == labels
    assert data.classes == classes
    assert levels(data) == [5, 6]


def test_a_table_with_groups_and_missing_files(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("path,label,patient\na.png,0,p1\nb.png,1,p1\na.png,0,\n")
    data = table(tmp_path / "a.csv")
    assert data.groups == ("p1", "p1", "row 3")
    assert data.names == ("a.png (row 1)", "b.png", "a.png (row 3)")
    assert [isinstance(result, DataError) for _, result in data.each(PLAIN)] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("name,label\na,1\n", "no column of paths: expected a header with one of path, file.* got name, label"),
        ("path,label\nx.png,1\n", "none of the 1 images that .* is there"),
        ("path,label\na.png,-1\n", "negative label"),
        ("path,label\na.png\n", "expected 2 cells in row 2"),
        ("path,label\n", "none of the 0 images"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        table(tmp_path / "a.csv")


def test_a_table_that_is_none(tmp_path: Path) -> None:
    picture(tmp_path / "a.png").rename(tmp_path / "a.csv")
    with pytest.raises(DataError, match="cannot be read as a table"):
        load(tmp_path / "a.csv")


# HAM10000 and ISIC


HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"


def test_ham10000_from_small_files(tmp_path: Path) -> None:
    rows = [("L1", "I1", "nv"), ("L1", "I2", "nv"), ("L2", "I3", "mel"), ("L2", "I3", "mel"), ("L3", "I4", "df")]
    text = HEADER + "".join(f"{lesion},{image},{dx},histo,45.0,male,back\n" for lesion, image, dx in rows)
    (tmp_path / "HAM10000_metadata.csv").write_text(text)
    picture(tmp_path / "HAM10000_images_part_1" / "I1.jpg", 10)
    picture(tmp_path / "HAM10000_images_part_2" / "I2.jpg", 20)
    picture(tmp_path / "HAM10000_images_part_2" / "I3.jpg", 30)
    data = load(tmp_path)
    assert data.names == ("I1", "I2", "I3")
    assert data.groups == ("L1", "L1", "L2")
    assert [data.classes[label or 0] for label in data.labels or ()] == ["nv", "nv", "mel"]  # type: ignore[index]
    assert levels(data) == [10, 20, 30]
    assert data.notes == (
        "1 rows of HAM10000_metadata.csv repeat another and count once",
        "1 of the 4 images that HAM10000_metadata.csv lists are not there",
    )
    first, second = data.split(0.5)
    assert {first.groups, second.groups} == {("L1", "L1"), ("L2",)}

    (tmp_path / "HAM10000_metadata.csv").write_text(text + "L2,I1,nv,histo,45.0,male,back\n")
    with pytest.raises(DataError, match="contradicts itself in row 7: I1"):
        ham10000(tmp_path)
    (tmp_path / "HAM10000_metadata.csv").write_text(HEADER + "L2,I1,naevus,histo,45.0,male,back\n")
    with pytest.raises(DataError, match=r"expected one of akiec.* in row 2, got naevus"):
        ham10000(tmp_path)
    with pytest.raises(DataError, match="no table for the test images"):
        ham10000(tmp_path, "test")
    with pytest.raises(DataError, match='no split "dev"'):
        ham10000(tmp_path, "dev")
    (tmp_path / "HAM10000_metadata.csv").unlink()
    with pytest.raises(DataError, match="no table of HAM10000"):
        load(f"ham10000:{tmp_path}")


def test_isic_training_images_need_their_lesions(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "I1.jpg")
    hot = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
    (tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv").write_text(hot + "I1,0.0,0.0,0.0,1.0,0.0,0.0,0.0\n")
    with pytest.raises(DataError, match=r"does not say which lesion 1 images show.*LesionGroupings.csv"):
        load(tmp_path)
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text("image,lesion_id\nI1,L9\n")
    data = load(tmp_path)
    assert data.groups == ("L9",)
    assert data.labels == (0,)
    (tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv").write_text(hot + "I1,1.0,0.0,0.0,1.0,0.0,0.0,0.0\n")
    with pytest.raises(DataError, match="row 2, got several"):
        load(tmp_path)


def test_the_real_ham10000(shared: Path) -> None:
    data = load(shared / "ham10000")
    known = {"nv": 4323, "bkl": 583, "mel": 491, "bcc": 264, "akiec": 183, "vasc": 80, "df": 60}
    assert data.counts() == dict(sorted(known.items()))
    assert len(set(data.groups or ())) == 5984
    assert any("4,031 of the 10,015 images" in note for note in data.notes)
    test = ham10000(shared / "ham10000", "test")
    assert len(test) == 1512
    assert not set(test.names) & set(data.names)
    # of the table's own lines, by hand
    lines = (shared / "ham10000" / "ISIC2018_Task3_Test_GroundTruth.csv").read_text().splitlines()
    columns = lines[0].lower().split(",")
    truth = {line.split(",")[0]: columns[line.split(",").index("1.0")] for line in lines[1:]}
    assert {item.name: (test.classes or ())[item.label or 0] for item in test} == truth
    first, second = data.split(0.8, seed=1)
    assert not set(first.groups or ()) & set(second.groups or ())
    assert Counter(first.labels or ())[5] == round(0.8 * 4323)
    assert data.sample(8).images(slice(0, 8), PLAIN).pixels.shape == (8, 3, 8, 8)


# MedMNIST


def test_medmnist(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    grey = draw.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    colour = draw.integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)
    labels = np.array([[0], [1], [1], [0], [1]], np.uint8)
    path = tmp_path / "pneumoniamnist_64.npz"
    np.savez_compressed(
        path, test_images=grey, test_labels=labels, train_images=colour, train_labels=labels[:4], val_images=grey
    )
    data = load(path)
    assert data.name == "pneumoniamnist_64 test"
    assert data.classes == ("normal", "pneumonia")
    assert data.labels == (0, 1, 1, 0, 1)
    assert (np.asarray(data.item(3).open()[0]) == grey[3][..., None]).all()
    assert (np.asarray(load(f"medmnist:{path}", "train").item(2).open()[0]) == colour[2]).all()
    with pytest.raises(DataError, match="expected the arrays val_images and val_labels"):
        medmnist(path, "val")
    with pytest.raises(DataError, match='no split "dev"'):
        medmnist(path, "dev")


def test_medmnist_with_several_labels_volumes_and_pickles(tmp_path: Path) -> None:
    grey = np.zeros((2, 28, 28), np.uint8)
    np.savez(tmp_path / "chestmnist.npz", test_images=grey, test_labels=np.zeros((2, 14), np.uint8))
    data = load(tmp_path / "chestmnist.npz")
    assert data.labels is None
    assert data.notes == ("14 labels an image, which are not read: expected one",)
    np.savez(
        tmp_path / "v.npz", test_images=np.zeros((2, 28, 28, 28), np.uint8), test_labels=np.zeros((2, 1), np.uint8)
    )
    with pytest.raises(DataError, match="volumes cannot be read"):
        load(tmp_path / "v.npz")
    np.savez(tmp_path / "o.npz", test_images=np.array([{"a": 1}], object), test_labels=np.zeros((1, 1), np.uint8))
    with pytest.raises(DataError, match="cannot be read as a MedMNIST"):
        load(tmp_path / "o.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "chestmnist.npz").read_bytes()[:600])
    with pytest.raises(DataError, match="cannot be read as a MedMNIST"):
        load(tmp_path / "cut.npz")


# Hugging Face


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return pytest.importorskip("datasets")


def test_hugging_face_from_disk(tmp_path: Path, hub: object) -> None:
    features = hub.Features(  # type: ignore[attr-defined]
        {"picture": hub.Image(), "label": hub.ClassLabel(names=["cat", "dog"]), "id": hub.Value("int64")}  # type: ignore[attr-defined]
    )
    pictures = [Image.fromarray(np.full((9, 9, 3), level, np.uint8)) for level in (10, 20, 30)]
    one = hub.Dataset.from_dict(  # type: ignore[attr-defined]
        {"picture": pictures, "label": [1, 0, -1], "id": [7, 8, 9]}, features=features
    )
    one.save_to_disk(tmp_path / "one")
    data = load(tmp_path / "one")
    assert data.classes == ("cat", "dog")
    assert data.labels == (1, 0, None)
    assert levels(data) == [10, 20, 30]
    with pytest.raises(DataError, match="no splits"):
        load(tmp_path / "one", "train")

    both = hub.DatasetDict({"train": one, "test": one.select([1])})  # type: ignore[attr-defined]
    both.save_to_disk(tmp_path / "both")
    data = load(f"hf:{tmp_path / 'both'}")
    assert data.name == "both test"
    assert levels(data) == [20]
    assert data.notes == ("the test images, of train, test",)
    assert len(load(tmp_path / "both", "train")) == 3
    with pytest.raises(DataError, match='no split "val"; expected one of train, test'):
        load(tmp_path / "both", "val")

    hub.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "words")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="no column of images; its columns are text"):
        load(tmp_path / "words")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match="cannot be read as a saved"):
        load(tmp_path / "broken")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'seewhy\[datasets\]'"):
        load(tmp_path)


# One entry


def test_what_load_says_when_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    picture(tmp_path / "a.png")
    for spec, message in {
        str(tmp_path / "none"): "there is no file, folder or data set",
        str(tmp_path / "empty"): "found no images in .*empty: looked for files ending in .jpg",
        str(tmp_path / "notes.txt"): "is not a data set: expected a folder, an image, a table",
        "cifar10": "seewhy data get cifar10",
        "cifr10": 'did you mean "cifar10"',
        "foldr:x": 'no data format "foldr"; did you mean "folder"',
        "csv:": "expected a path after",
        f"folder:{tmp_path / 'none'}": "there is no folder",
        f"folder:{tmp_path / 'a.png'}": "expected a folder, got a file",
        f"hf:{tmp_path / 'empty'}": "not a saved Hugging Face data set",
        f"cifar10:{tmp_path / 'empty'}": "is not CIFAR-10: expected test_batch.png",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            load(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no splits"):
        load(tmp_path / "a.png", "train")
