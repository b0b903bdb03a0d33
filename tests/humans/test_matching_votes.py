"""Votes find their images, models' classes their categories, and images their true class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seewhy.data import load as load_data
from seewhy.errors import DataError, InputError, SpecError
from seewhy.humans import Trials, Votes
from seewhy.humans.load import load
from seewhy.humans.match import LabelMap, matched, truth

LABELS = ("tabby, tabby cat", "tiger cat", "beagle", "mop")


def of(images: tuple[str, ...], counts: list[list[int]] | None = None) -> Votes:
    return Votes("votes", images, ("cat", "dog"), np.array(counts if counts else [[1, 0]] * len(images)))


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (("a.png", "b.png"), ("b.png", "a.png")),
        (("a.png", "b.png"), ("dog/b.png", "cat/a.png")),
        (("one/a.png", "one/b.png"), ("two/b.png", "two/a.png")),
        (("a.png", "b.png"), ("0007_edg_dnn_0_dog_00_b.png", "0008_edg_dnn_0_cat_00_a.png")),
        (("a", "b"), ("dog/b.jpeg", "cat/a.png")),
    ],
)
def test_images_are_found_by_their_names(images: tuple[str, ...], names: tuple[str, ...]) -> None:
    found = matched(of(images, [[1, 0], [0, 2]]), names)
    assert found.votes.counts.tolist() == [[0, 2], [1, 0]]  # in the data set's order
    assert found.places.tolist() == [0, 1]
    assert found.strangers == found.silent == ()


def test_the_condition_is_part_of_the_name() -> None:
    votes = of(("c30/x.png", "c05/x.png"), [[1, 0], [0, 1]])
    names = ("0002_cop_dnn_c05_dog_10_x.png", "0001_cop_dnn_c30_cat_10_x.png")
    assert matched(votes, names).votes.images == ("c05/x.png", "c30/x.png")
    assert matched(votes, ("set/c05/x.png", "set/c30/x.png")).votes.images == ("c05/x.png", "c30/x.png")
    with pytest.raises(DataError, match="where several have the same"):
        matched(votes, ("x.png",))


def test_what_is_missing_on_either_side_is_counted_and_listed() -> None:
    found = matched(of(("a", "b", "c", "d"), [[1, 0], [0, 0], [1, 0], [2, 2]]), ("a", "b", "e", "d"))
    assert found.votes.images == ("a", "d")
    assert found.strangers == ("c",)
    assert found.silent == ("b", "e")  # voted for by nobody, or not at all
    assert found.notes() == (
        "images that were voted for and are not in the data set, left out: 1 (c)",
        "images of the data set without votes, left out: 2 (b, e)",
    )


def test_somebody_who_gave_no_answer_still_saw_the_image() -> None:
    trials = Trials(np.array([0]), np.array([0]), np.array([-1]), ("ann",))
    votes = Votes("v", ("a",), ("cat",), np.array([[0]]), trials=trials)
    assert matched(votes, ("a", "b")).votes.images == ("a",)


def test_no_image_in_common_says_how_names_look() -> None:
    with pytest.raises(
        DataError, match=r'none of the 1 images .* "a.png" for one; the data set names its images as "x.jpg"'
    ):
        matched(of(("a.png",)), ("x.jpg",))


# Label maps


def written(folder: Path, text: str) -> Path:
    (folder / "map.csv").write_text(text)
    return folder / "map.csv"


def test_probabilities_are_put_together_by_mean_or_sum(tmp_path: Path) -> None:
    path = written(tmp_path, "index,category\n0,cat\n1,cat\nbeagle,dog\n")
    given = np.array([[0.3, 0.1, 0.2, 0.4], [0, 0, 0, 1.0]])
    mean, total = (LabelMap.read(path, LABELS, ("cat", "dog"), how) for how in ("mean", "sum"))
    # by hand: means 0.2 and 0.2; sums 0.4 and 0.2; and nothing at all for an image of a mop
    np.testing.assert_allclose(mean(given), [[0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_allclose(total(given), [[2 / 3, 1 / 3], [0.5, 0.5]])
    said = " ".join(mean.notes())
    assert "3 of the model's 4 classes make up people's 2 categories by map.csv" in said
    assert "its mean" in said or "their mean" in said
    assert "mop" in said
    assert "their sum" in " ".join(total.notes())
    with pytest.raises(InputError, match=r"expected probabilities \(N, 4\)"):
        mean(np.ones((1, 3)))
    with pytest.raises(SpecError, match='"mean" or "sum", got "max"'):
        LabelMap(LABELS, ("cat",), np.zeros(4, int), "max")  # type: ignore[arg-type]


def test_the_sixteen_categories_against_a_loop(shared: Path) -> None:
    lines = (shared / "shapes" / "imagenet-to-16.csv").read_text().splitlines()[1:]
    pairs = [(int(line.split(",")[0]), line.split(",")[1]) for line in lines]
    categories = tuple(sorted({category for _, category in pairs}))
    labels = tuple(f"thing {index}" for index in range(1000))
    map = LabelMap.read(shared / "shapes" / "imagenet-to-16.csv", labels, categories)
    assert map.missing == ()
    given = np.random.default_rng(0).dirichlet(np.ones(1000) / 50, 20)
    for row, answer in zip(given, map(given), strict=True):
        means = [np.mean([row[index] for index, name in pairs if name == category]) for category in categories]
        np.testing.assert_allclose(answer, np.array(means) / sum(means))


def test_names_are_found_and_the_nearest_suggested(tmp_path: Path) -> None:
    found = LabelMap.by_name(LABELS, ("Tiger_cat", "tabby"))
    assert found.place.tolist() == [1, 0, -1, -1]
    assert found.notes() == (
        "2 of the model's classes belong to no category of people's; their probability is left out, so that the model, too, "
        "can answer nothing else: beagle, mop",
    )
    assert LabelMap.by_name(LABELS, LABELS).notes() == ()
    with pytest.raises(DataError, match=r'no class "beagel"; did you mean "beagle".*--label-map'):
        LabelMap.by_name(LABELS, ("tabby", "beagel"))
    for text, sentence in (
        ("index,category\nbeagel,dog\n", 'row 2: the model has no class "beagel".*did you mean "beagle"'),
        ("index,category\n4,dog\n", 'the model has no class "4"; expected one of its 4 names, or a number from 0 to 3'),
        ("index,category\n2,dgo\n", 'people were not asked for "dgo"; did you mean "dog"'),
        ("index,category\n2,dog\n2,cat\n", 'row 3: the class "beagle" was given another category before'),
        ("index,category\n2,\n", "maps none of the model's classes"),
        ("a,b,c\n1,2,3\n", "expected a header of two columns"),
    ):
        with pytest.raises(DataError, match=sentence):
            LabelMap.read(written(tmp_path, text), LABELS, ("cat", "dog"))
    partly = LabelMap.read(written(tmp_path, "a,b\n2,dog\n"), LABELS, ("cat", "dog"))
    assert partly.missing == ("cat",)
    assert "no class of the model belongs to cat" in " ".join(partly.notes())


# True classes


def test_the_true_class_comes_from_the_data_or_the_votes() -> None:
    votes = of(("a", "b", "c"))
    map = LabelMap(LABELS, ("cat", "dog"), np.array([0, 0, 1, -1]))
    assert truth(votes, (1, 0, None), map, ("Dog", "cat"))[0] == (0, 1, None)
    # a data set labelled by the model's classes goes through the map
    assert truth(votes, (2, 1, 3), map, LABELS)[0] == (1, 0, None)
    assert "no category of people's: 1" in truth(votes, (2, 1, 3), map, LABELS)[1][0]
    told = Votes("v", votes.images, votes.classes, votes.counts, (0, 1, 1))
    assert truth(told, None, map, None) == ((0, 1, 1), ("the true classes are those that the votes' file tells",))
    labels, notes = truth(told, (0, 0, None), map, ("cat", "dog"))
    assert labels == (0, 0, 1)
    assert notes == (
        "images on whose true class the data set and the votes' file disagree, the data set's counting: 1 of 2",
    )
    with pytest.raises(DataError, match="nobody is right or wrong; give data with labels"):
        truth(votes, None, map, None)
    with pytest.raises(DataError, match='images of "dgo", which people were not asked for; did you mean "dog"'):
        truth(votes, (0, 1, 1), map, ("cat", "dgo"))


def test_the_edge_drawings_find_their_files(shared: Path) -> None:
    votes, data = load(shared / "shapes" / "human-responses"), load_data(shared / "shapes" / "edges")
    found = matched(votes, data.names)
    assert len(found.votes) == 160
    assert found.strangers == found.silent == ()
    assert data.labels is not None
    assert data.classes is not None
    for name, place, label in zip(found.votes.images, found.places, found.votes.labels or (), strict=True):
        assert data.names[place] == f"{data.classes[data.labels[place] or 0]}/{name}"
        assert label is not None
        assert found.votes.classes[label] == data.names[place].partition("/")[0]
