"""Votes from files: every format, what is dropped and said, and every bad file's one sentence."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from seewhy.data.cifar10 import CLASSES
from seewhy.errors import DataError, InputError, MissingExtra
from seewhy.humans import Trials, Votes
from seewhy.humans.answers import model_vs_human, picture, table
from seewhy.humans.load import cifar10h, cifar10n, counts, load

TABLE = """annotator,image,answer,seconds,confidence,session
ann,a.png,cat,1.5,0.9,1
ann,b.png,dog,2.0,0.8,1
bob,a.png,cat,,0.5,1
bob,b.png,na,3.0,,1
bob,c.png,dog,1.0,0.7,2
"""
TOOLBOX = "subj,session,trial,rt,object_response,category,condition,imagename"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows(path: Path, header: str, cells: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(cells)
    return path


# Tables


def test_a_table_becomes_trials_and_counts(tmp_path: Path) -> None:
    votes = load(written(tmp_path / "pets.csv", TABLE))
    assert (votes.name, votes.images, votes.classes) == ("pets", ("a.png", "b.png", "c.png"), ("cat", "dog"))
    assert votes.counts.tolist() == [[2, 0], [0, 1], [0, 1]]
    trials = votes.trials
    assert trials is not None
    assert trials.annotators == ("ann", "bob")
    assert trials.answer.tolist() == [0, 1, 0, -1, 1]
    assert trials.seconds is not None
    np.testing.assert_array_equal(trials.seconds, [1.5, 2.0, np.nan, 3.0, 1.0])
    assert trials.confidence is not None
    assert np.isnan(trials.confidence).sum() == 1
    assert trials.session is not None
    assert trials.session.tolist() == [0, 0, 0, 0, 1]
    assert votes.labels is None
    assert votes.conditions == ()
    said = " | ".join(votes.notes)
    assert "4 votes for 3 images in 2 classes, 1 to 2 an image, by 2 annotators" in said
    assert '"answer" as answer' in said
    assert "trials without an answer: 1 of 5" in said


def test_usual_names_of_columns_are_known_in_any_case(tmp_path: Path) -> None:
    text = "Worker ID;File Name;Label;True Class;RT_ms\nw1;x.png;cat;dog;500\nw2;x.png;dog;dog;1500\n"
    votes = table(written(tmp_path / "t.csv", text))
    assert votes.annotators == ("w1", "w2")
    assert votes.counts.tolist() == [[1, 1]]
    assert votes.labels == (1,)
    assert votes.trials is not None
    assert votes.trials.seconds is not None
    assert votes.trials.seconds.tolist() == [0.5, 1.5]


def test_beside_an_answer_a_label_is_the_truth(tmp_path: Path) -> None:
    votes = table(written(tmp_path / "t.csv", "subject,image,response,label\ns,x,cat,dog\ns,y,dog,dog\n"))
    assert votes.counts.tolist() == [[1, 0], [0, 1]]
    assert votes.labels == (1, 1)


def test_numbers_are_classes_by_the_data_sets_names(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "image,label\nx,1\nx,1\ny,0\n")
    votes = load(path, classes=("cat", "dog", "fox"))
    assert votes.classes == ("cat", "dog", "fox")
    assert votes.counts.tolist() == [[0, 2, 0], [1, 0, 0]]
    assert votes.trials is None
    assert any("people cannot be told apart" in note for note in votes.notes)
    assert load(path).classes == ("class 0", "class 1")
    with pytest.raises(DataError, match="has the class 1, and there are 1 classes"):
        load(path, classes=("cat",))


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # type: ignore[import-untyped]

    held = pyarrow.table(
        {
            "annotator": ["ann", "ann", "bob", "bob", "bob"],
            "image": ["a.png", "b.png", "a.png", "b.png", "c.png"],
            "answer": ["cat", "dog", "cat", None, "dog"],
            "seconds": [1.5, 2.0, None, 3.0, 1.0],
            "confidence": [0.9, 0.8, 0.5, None, 0.7],
            "session": [1, 1, 1, 1, 2],
        }
    )
    parquet.write_table(held, tmp_path / "pets.parquet")
    mine, theirs = load(tmp_path / "pets.parquet"), load(written(tmp_path / "pets.csv", TABLE))
    assert mine.notes == theirs.notes
    assert mine.counts.tolist() == theirs.counts.tolist()
    assert mine.trials is not None
    assert theirs.trials is not None
    np.testing.assert_array_equal(mine.trials.seconds, theirs.trials.seconds)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load(tmp_path / "broken.parquet")


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(MissingExtra, match=r"pip install 'seewhy\[parquet\]'"):
        load(tmp_path / "t.parquet")


def test_conditions_and_contradictions(tmp_path: Path) -> None:
    text = "who,subject,image,answer,truth,condition\n-,s,x,cat,cat,clear\n-,s,x,dog,dog,blurred\n-,t,y,dog,dog,clear\n"
    votes = table(written(tmp_path / "t.csv", text))
    assert votes.conditions == ("clear", "blurred")
    assert votes.labels == (None, 1)
    assert any("contradict each other, taken as unknown: 1" in note for note in votes.notes)
    assert votes.of_condition("blurred").counts.tolist() == [[0, 1], [0, 0]]
    with pytest.raises(InputError, match='there is no condition "blured"; did you mean "blurred"'):
        votes.of_condition("blured")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("image,answer\n", "a header and no rows"),
        ("picture,answer\nx,cat\n", "has no column of images: expected a header with one of image, imagename"),
        ("image,colour\nx,cat\n", "has no column of answers"),
        ("image,answer\nx,\ny,na\n", "holds no answers: all 2 are empty or na"),
        ("image,answer,seconds\nx,cat,soon\n", 'expected a number as seconds in row 2, got "soon"'),
        ("image,answer,rt\nx,cat,-1\n", "expected seconds of 0 or more, got -1"),
        ("image,image,answer\nx,x,cat\n", "several columns of one name: image"),
        ("image,answer\nx,cat,dog\n", "expected 2 cells in row 2"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(written(tmp_path / "t.csv", text))


def test_answers_that_are_no_class_are_refused_with_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "image,answer\nx,tigr cat\n")
    with pytest.raises(
        DataError, match='names the class "tigr cat", which is not among the 2 classes; did you mean "tiger'
    ):
        table(path, classes=("tiger cat", "dog"))


def test_rows_without_image_or_name_are_said(tmp_path: Path) -> None:
    votes = table(written(tmp_path / "t.csv", "annotator,image,answer\nann,x,cat\n,x,dog\nann,,cat\n"))
    assert votes.counts.tolist() == [[1, 1]]
    assert votes.annotators == ("ann", "(unnamed)")
    said = " | ".join(votes.notes)
    assert "rows without an image, dropped: 1" in said
    assert "answers without an annotator, taken for those of one person, called (unnamed): 1" in said


# The model-vs-human toolbox


def toolbox(subject: str, cells: Sequence[tuple[str, str, str, str]], rt: str = "0.5") -> list[list[str]]:
    return [
        [subject, "1", str(trial), rt, answer, category, condition, name]
        for trial, (answer, category, condition, name) in enumerate(cells, 1)
    ]


def test_the_toolbox_layout_keeps_the_pictures_own_names(tmp_path: Path) -> None:
    oven, cat = "0001_edg_s01_0_oven_00_oven10.png", "0002_edg_s01_0_cat_00_cat3.png"
    for name, cells, rt in (
        ("subject-01", [("knife", "oven", "0", oven), ("na", "cat", "0", cat)], "0.5"),
        ("subject-02", [("oven", "oven", "0", oven.replace("s01", "s02"))], "0.5"),
        ("resnet50", [("cat", "oven", "0", oven.replace("s01", "dnn"))], "NaN"),
    ):
        rows(tmp_path / f"edge_{name}.csv", TOOLBOX, toolbox(name, cells, rt))
    written(tmp_path / "notes.csv", "a,b\n1,2\n")
    votes = load(tmp_path)
    assert votes.images == ("oven10.png", "cat3.png")
    assert votes.annotators == ("subject-01", "subject-02")
    assert votes.classes == ("cat", "knife", "oven")
    assert votes.counts.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert votes.labels == (2, 0)
    said = " | ".join(votes.notes)
    assert "trials of models, which have no reaction times, dropped: 1 of resnet50" in said
    assert "files of another layout, not read: notes.csv" in said
    assert "trials without an answer: 1 of 3" in said


def test_the_toolboxs_conditions_part_the_pictures(tmp_path: Path) -> None:
    header = TOOLBOX.replace("session", "Session")  # as some of its files spell it
    path = rows(tmp_path / "contrast.csv", header, toolbox("subject-01", [
        ("knife", "knife", "c30", "0001_cop_s01_c30_knife_10_n03041632_7380.png"),
        ("knife", "knife", "c05", "0002_cop_s01_c05_knife_10_n03041632_7380.png")]))  # fmt: skip
    votes = load(path)
    assert votes.images == ("c30/n03041632_7380.png", "c05/n03041632_7380.png")
    assert votes.conditions == ("c30", "c05")
    assert picture("0003_eid_dnn_1-0-10_knife_10_n03041632_32377.JPEG") == "n03041632_32377.JPEG"


def test_the_toolboxs_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no table of model-vs-human's layout"):
        load(tmp_path)
    path = rows(tmp_path / "only.csv", TOOLBOX, toolbox("resnet50", [("cat", "cat", "0", "x.png")], rt="NaN"))
    with pytest.raises(DataError, match=r"holds trials of models only \(resnet50\)"):
        load(path)
    short = written(tmp_path / "short.csv", "subj,object_response,imagename\ns,cat,x\n")
    with pytest.raises(DataError, match="lacks the columns session, trial, rt, category, condition"):
        model_vs_human(short)


def test_the_edge_drawings(shared: Path) -> None:
    votes = load(shared / "shapes" / "human-responses")
    assert (len(votes), len(votes.classes), len(votes.annotators)) == (160, 16, 10)
    assert votes.trials is not None
    assert len(votes.trials) == 1600
    # counted another way, straight from the files
    right = total = unanswered = 0
    for path in sorted((shared / "shapes" / "human-responses").glob("*.csv")):
        with path.open() as file:
            for row in csv.DictReader(file):
                total += 1
                right += row["object_response"] == row["category"]
                unanswered += row["object_response"] == "na"
    labels = np.array(votes.labels, dtype=int)
    assert int((votes.trials.answer == labels[votes.trials.image]).sum()) == right
    assert int((votes.trials.answer < 0).sum()) == unanswered == total - int(votes.counts.sum())


# Counts


def test_counts_take_the_data_sets_names(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.array([[3, 1], [0, 4]]))
    votes = load(tmp_path / "c.npy", ("a.png", "b.png"), ("cat", "dog"))
    assert (votes.images, votes.classes, votes.trials) == (("a.png", "b.png"), ("cat", "dog"), None)
    assert load(f"counts:{tmp_path / 'c.npy'}").images == ("image 0", "image 1")
    np.save(tmp_path / "f.npy", np.array([[3.0, 1.0]]))
    assert counts(tmp_path / "f.npy").counts.dtype == np.int64
    with pytest.raises(DataError, match="counts votes for 2 images, and the data set has 3; expected as many"):
        load(tmp_path / "c.npy", ("a", "b", "c"))
    with pytest.raises(DataError, match="counts votes for 2 classes, and the data set has 1"):
        load(tmp_path / "c.npy", ("a", "b"), ("cat",))


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.ones(3), "an array of two dimensions"),
        (np.array([["a"]]), "expected whole numbers, got <U1"),
        (np.array([[0.2, 0.8], [0.5, 0.5]]), "shares that add up to 1"),
        (np.array([[0.5, 2.0]]), "expected whole numbers of votes"),
        (np.array([[np.nan, 1.0]]), "1 that are not finite"),
        (np.array([[-1, 2]]), "got a negative one"),
        (np.zeros((0, 2), int), "at least one image"),
    ],
)
def test_bad_counts(tmp_path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.float64]], sentence: str) -> None:
    np.save(tmp_path / "c.npy", array)
    with pytest.raises(DataError, match=sentence):
        load(tmp_path / "c.npy")


class Trap:
    """What a pickle could do: run something."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('a pickle was run')",))


def test_no_pickle_is_ever_run(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as an array without pickles"):
        load(tmp_path / "c.npy")
    np.savez(tmp_path / "n.npz", random_label1=np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"lacks random_label2|without pickles"):
        load(tmp_path / "n.npz")
    (tmp_path / "n.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="is a pickle, which could run code and is not read"):
        load(tmp_path / "n.pt")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match="without pickles"):
        load(tmp_path / "bad.npz")
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="holds no votes that are known"):
        load(tmp_path / "x.png")


def test_a_format_or_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no format of votes "tabel"; did you mean "table"'):
        load("tabel:votes.csv")
    with pytest.raises(DataError, match='expected a path after "table:"'):
        load("table:")
    written(tmp_path / "votes.csv", TABLE)
    with pytest.raises(DataError, match=r'there is no file or folder .*; did you mean "votes.csv"'):
        load(tmp_path / "vote.csv")
    with pytest.raises(DataError, match="holds no CIFAR-10H"):
        load(f"cifar10h:{tmp_path}")


# CIFAR-10H and CIFAR-10N


def test_cifar10h_is_what_it_is_said_to_be(shared: Path) -> None:
    from seewhy.data import cached, cifar10

    votes = load(shared / "humans" / "cifar10h-counts.npy")
    assert (votes.name, votes.classes, int(votes.counts.sum())) == ("CIFAR-10H", CLASSES, 511_000)
    total = votes.counts.sum(1)
    assert (int(total.min()), int(total.max())) == (47, 63)
    most = votes.shares().max(1)
    assert (most == 1).mean() == pytest.approx(0.4393)
    assert int((most < 0.5).sum()) == 65
    assert votes.images[0] == "test-00000"
    if cached("cifar10") is None:
        pytest.skip("needs CIFAR-10 in the cache: seewhy data get cifar10")
    data = cifar10()
    labels = np.array(data.labels, dtype=int)
    assert data.names == votes.images
    assert (votes.counts.argmax(1) == labels).mean() == pytest.approx(0.9921, abs=5e-5)
    assert votes.shares()[np.arange(10_000), labels].mean() == pytest.approx(0.954, abs=0.002)


def test_cifar10hs_raw_table_tells_people_apart(tmp_path: Path) -> None:
    header = "annotator_id,trial_index,is_attn_check,true_label,chosen_label,cifar10_test_test_idx,reaction_time"
    path = rows(tmp_path / "cifar10h-raw.csv", header, [
        (0, 1, 0, 3, 3, 17, 1200), (0, 2, 1, 5, 5, -99999, 900), (1, 1, 0, 3, 5, 17, -99999)])  # fmt: skip
    votes = load(tmp_path)
    assert votes.annotators == ("0", "1")
    assert votes.counts[17].tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert int(votes.counts.sum()) == 2
    assert votes.labels is not None
    assert votes.labels[17] == 3
    assert votes.trials is not None
    np.testing.assert_array_equal(votes.trials.seconds, [1.2, np.nan])
    assert any("trials that checked attention, dropped: 1" in note for note in votes.notes)
    assert load(path).notes == votes.notes
    written(path, "annotator_id,cifar10_test_test_idx\n1,2\n")
    with pytest.raises(DataError, match="lacks the columns is_attn_check, chosen_label"):
        cifar10h(path)


def test_cifar10n_is_what_it_is_said_to_be(shared: Path) -> None:
    votes = load(shared / "humans" / "cifar10n.npz")
    assert (len(votes), int(votes.counts.sum()), len(votes.annotators)) == (50_000, 150_000, 747)
    assert votes.trials is not None
    answers = votes.trials.answer.reshape(3, 50_000)
    noise = (answers != np.array(votes.labels, dtype=int)).mean(1)
    assert [round(100 * share, 1) for share in noise] == [17.2, 18.1, 17.6]
    with np.load(shared / "humans" / "cifar10n.npz") as held:
        assert np.array_equal(answers[1], held["random_label2"])
        # the aggregate label is one that most people gave, wherever most agree
        most = votes.counts.max(1) >= 2
        assert np.array_equal(votes.counts.argmax(1)[most], held["aggre_label"][most])
    # the first row of the table of workers: images 0 to 9 by 198 in 25 s, by 385 in 40 s, by 197 in 21 s
    for round_, (who, seconds) in enumerate((("198", 2.5), ("385", 4.0), ("197", 2.1))):
        at = round_ * 50_000
        assert {votes.annotators[place] for place in votes.trials.annotator[at : at + 10]} == {who}
        assert votes.trials.seconds is not None
        assert votes.trials.seconds[at : at + 10] == pytest.approx(seconds)


def small_n(folder: Path, count: int = 20, side: bool = True) -> Path:
    labels = {
        name: np.arange(count) % 10 for name in ("random_label1", "random_label2", "random_label3", "clean_label")
    }
    np.savez(folder / "cifar10n.npz", **labels)  # type: ignore[arg-type]
    if side:
        rows(folder / "cifar10n-side-info.csv",
             "Image-batch,Worker1-id,Work-time-in-seconds-1,Worker2-id,Work-time-in-seconds-2,Worker3-id,Work-time-in-seconds-3",
             [("0--9", 1, 10, 2, 20, 3, 30), ("10--19", 1, 10, 2, 20, 4, 40)])  # fmt: skip
    return folder / "cifar10n.npz"


def test_cifar10n_without_workers_or_with_broken_parts(tmp_path: Path) -> None:
    votes = cifar10n(small_n(tmp_path, side=False))
    assert votes.trials is None
    assert int(votes.counts.sum()) == 60
    assert any("no table of workers" in note for note in votes.notes)
    votes = load(small_n(tmp_path).parent)
    assert votes.annotators == ("1", "2", "3", "4")
    with pytest.raises(DataError, match=r"names no workers for 10 of 30 images"):
        cifar10n(small_n(tmp_path, 30))
    (tmp_path / "cifar10n-side-info.csv").write_text("Image-batch,Worker1-id\n0--9,1\n")
    with pytest.raises(DataError, match="of CIFAR-10N's table of workers"):
        cifar10n(tmp_path / "cifar10n.npz")
    np.savez(tmp_path / "cifar10n.npz", random_label1=np.zeros(3, int))
    with pytest.raises(DataError, match="lacks random_label2, random_label3, clean_label"):
        cifar10n(tmp_path / "cifar10n.npz")
    wrong = {name: np.full(3, 11) for name in ("random_label1", "random_label2", "random_label3", "clean_label")}
    np.savez(tmp_path / "cifar10n.npz", **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected CIFAR-10's labels 0 to 9"):
        cifar10n(tmp_path / "cifar10n.npz")


# The data classes


def made() -> Votes:
    trials = Trials(
        np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), np.array([0, 1, 1, -1, 0]), ("ann", "bob"),
        np.array([0, 0, 0, 1, 1]), ("clear", "blurred"), np.array([1.0, 2, 3, 4, 5]))  # fmt: skip
    return Votes("made", ("a", "b", "c"), ("cat", "dog"), np.array([[1, 1], [0, 1], [1, 0]]), (0, 1, 0), trials)


def test_parts_of_votes_are_votes() -> None:
    votes = made()
    part = votes.subset([2, 0])
    assert part.images == ("c", "a")
    assert part.labels == (0, 0)
    assert part.counts.tolist() == [[1, 0], [1, 1]]
    assert part.trials is not None
    assert part.trials.image.tolist() == [1, 1, 0]
    assert part.trials.seconds is not None
    assert part.trials.seconds.tolist() == [1, 2, 5]
    alone = votes.of_annotators(["bob"])
    assert alone.counts.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert alone.annotators == ("bob",)
    assert votes.of_condition("clear").counts.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert np.isnan(votes.of_condition("clear").shares()[2]).all()
    with pytest.raises(InputError, match='there is no annotator "ben"'):
        votes.of_annotators(["ben"])
    with pytest.raises(InputError, match="counts only"):
        Votes("counts", ("a",), ("cat",), np.array([[1]])).of_annotators(["x"])
    with pytest.raises(InputError, match="counted from 0"):
        votes.subset([3])


def test_votes_that_contradict_themselves_are_refused() -> None:
    good = made()
    with pytest.raises(InputError, match="the counts are not those of the single answers"):
        Votes("x", good.images, good.classes, good.counts + 1, trials=good.trials)
    with pytest.raises(DataError, match='different names, got "a" twice'):
        Votes("x", ("a", "a"), ("cat",), np.zeros((2, 1), int))
    with pytest.raises(DataError, match=r"expected counts of shape \(1, 2\)"):
        Votes("x", ("a",), ("cat", "dog"), np.zeros((2, 1), int))
    with pytest.raises(DataError, match="1 images and 2 labels"):
        Votes("x", ("a",), ("cat",), np.zeros((1, 1), int), (0, 0))
    with pytest.raises(InputError, match="expected annotator from 0 to 0, got 1 to 1"):
        Trials(np.array([0]), np.array([1]), np.array([0]), ("a",))
    with pytest.raises(InputError, match="expected answer of shape"):
        Trials(np.array([0]), np.array([0]), np.array([0, 1]), ("a",))
