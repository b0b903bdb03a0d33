"""The map of codes against scikit-learn, brute force and planted clusters; what it is given badly; new images on it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from nets import FAMILIES, classifier, photos
from seewhy.classifier import Classifier
from seewhy.data.images import Images, Preprocess
from seewhy.data.photo import Picture
from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import DataError, InputError, LayerError, MissingExtra, SpecError
from seewhy.look import CodeMap, MappedCodes, codes
from seewhy.look.encode import code_layer
from seewhy.look.grid import arrange
from seewhy.look.layout import principal
from seewhy.look.neighbours import faithfulness

QUICK = CodeMap(perplexity=10, iterations=150)


class Colours(nn.Module):
    """Its code of an image is the mean of each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.fc = nn.Linear(3, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None])
            self.fc.weight.copy_(torch.eye(3))
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.conv(x)).flatten(1))


def coloured(each: int, seed: int = 0, noise: float = 0.08) -> Images:
    """Three classes of images: red ones, green ones, blue ones."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat(each)
    pixels = torch.full((3 * each, 3, 8, 8), 0.2)
    pixels[torch.arange(3 * each), labels] = 0.7
    pixels += noise * torch.randn((3 * each, 3, 1, 1), generator=draw)
    return Images(pixels.clamp(0, 1), labels=labels)


def net() -> Classifier:
    return Classifier(Colours(), size=8, labels=["red", "green", "blue"])


@pytest.fixture(scope="module")
def found() -> MappedCodes:
    return QUICK(net(), coloured(40))


def test_planted_clusters_are_apart(found: MappedCodes) -> None:
    assert found.layer == "pool"
    assert torch.allclose(codes(net(), coloured(40).pixels), coloured(40).pixels.mean((2, 3)), atol=1e-6)
    centres = torch.stack([found.coordinates[found.labels == label].mean(0) for label in range(3)])
    spread = max(float((found.coordinates[found.labels == i] - centres[i]).norm(dim=1).median()) for i in range(3))
    assert float(torch.pdist(centres).min()) > 3 * spread
    assert found.knn_map == found.knn_codes == 1
    assert found.chance == pytest.approx(1 / 3)
    assert found.trustworthiness is not None
    assert found.trustworthiness > 0.95
    assert (found.wrong == 0).all()
    assert found.coordinates.amax(0) + found.coordinates.amin(0) == pytest.approx([0, 0], abs=1e-4)
    assert any("mean nothing" in sentence for sentence in found.words())


def test_the_seed_decides_and_the_batch_does_not(found: MappedCodes) -> None:
    for batch in (1, 7, None):
        again = net()
        again.engine.batch = batch
        other = QUICK(again, coloured(40))
        assert torch.equal(other.coordinates, found.coordinates)
        assert again.engine.batch == batch
    third = dataclasses.replace(QUICK, seed=1)(net(), coloured(40))
    assert not torch.equal(third.coordinates, found.coordinates)


def test_measures_are_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    high, low = draw.normal(size=(90, 7)), draw.normal(size=(90, 2))
    low[:, 0] += high[:, 0]
    labels = draw.integers(0, 4, 90)
    for k in (1, 5, 12):
        measured = faithfulness(high, low, labels, k, 0)
        assert measured.trustworthiness == pytest.approx(trustworthiness(high, low, n_neighbors=k), abs=1e-12)
        for points, right in ((high, measured.right_codes), (low, measured.right_map)):
            others = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
            guesses = [np.bincount(labels[near]).argmax() for near in others]
            assert right.tolist() == [int(guess == label) for guess, label in zip(guesses, labels, strict=True)]
        overlap = []
        for i in range(90):
            near = [set(np.argsort(((p - p[i]) ** 2).sum(1), kind="stable")[1 : k + 1].tolist()) for p in (high, low)]
            overlap.append(len(near[0] & near[1]) / k)
        assert measured.kept == pytest.approx(np.mean(overlap))
    partly = labels.copy()
    partly[::3] = -1
    assert (faithfulness(high, low, partly, 5, 0).right_map[::3] == -1).all()


def test_principal_axes_are_those_of_the_covariance() -> None:
    draw = np.random.default_rng(1)
    given = (draw.normal(size=(60, 9)) * np.arange(1, 10)).astype(np.float32)
    for n in (60, 6):  # more images than numbers, and fewer
        axes = principal(given[:n], 4, False, 0)
        values, vectors = np.linalg.eigh(np.cov(given[:n].T.astype(np.float64)))
        assert np.abs(np.sum(axes.directions * vectors[:, ::-1][:, :4].T, 1)) == pytest.approx(np.ones(4), abs=1e-4)
        assert axes(given[:n]).var(0, ddof=1) == pytest.approx(values[::-1][:4], rel=1e-4)
    assert np.allclose(np.linalg.norm(principal(given, 4, True, 0).directions, axis=1), 1)


def test_a_grid_is_a_permutation_and_the_shortest_way() -> None:
    draw = torch.Generator().manual_seed(3)
    for count in (1, 2, 7, 49, 60):
        points = torch.randn((count, 2), generator=draw)
        laid = arrange(points)
        assert len(set(laid.cells.tolist())) == count == len(laid.chosen)
        assert laid.shape[0] * laid.shape[1] >= count
        assert int(laid.cells.max()) < laid.shape[0] * laid.shape[1]
    rows, columns = laid.shape
    unit = (points - points.amin(0)) / (points.amax(0) - points.amin(0))
    cell = torch.arange(rows * columns)
    places = torch.stack([cell % columns / (columns - 1), 1 - cell // columns / (rows - 1)], 1)
    ways = torch.cdist(unit.double(), places.double()).square()
    own = float(ways[torch.arange(60), laid.cells].sum())
    down, across = linear_sum_assignment(ways.numpy())
    assert own == pytest.approx(float(ways[down, across].sum()))
    shuffled = [float(ways[torch.arange(60), cell[torch.randperm(60, generator=draw)]].sum()) for _ in range(50)]
    assert own < min(shuffled)
    few = arrange(points, limit=20)
    assert (len(few.chosen), few.total) == (20, 60)
    assert torch.equal(few.chosen, arrange(points, limit=20).chosen)
    with pytest.raises(InputError, match="at least 1"):
        arrange(points, limit=0)


@pytest.mark.parametrize("layout", ["tsne", "pca", pytest.param("umap", marks=pytest.mark.slow)])
def test_new_images_find_their_place_and_a_saved_map_finds_the_same(layout: str, tmp_path: Path) -> None:
    if layout == "umap":
        pytest.importorskip("umap")
    images, model = coloured(40), net()
    found = dataclasses.replace(QUICK, layout=layout)(model, images)
    assert found.layout == layout
    again = found.place(model, images)  # its own images come back to where they are
    size = float(found.coordinates.std())
    apart = (again.coordinates - found.coordinates).norm(dim=1)
    assert float(apart.median()) < 0.2 * size
    assert torch.equal(again.neighbours[:, 0], torch.arange(120))
    assert not again.strange.any()
    new = coloured(10, seed=9)
    placed = found.place(model, new)
    nearest = torch.cdist(placed.coordinates, found.coordinates).argmin(1)
    assert new.labels is not None
    assert torch.equal(found.labels[nearest], new.labels)
    assert torch.equal(placed.predictions, model.predict(new).argmax(1))
    found.save(tmp_path / "map.npz")
    read = MappedCodes.load(tmp_path / "map.npz")
    for field in dataclasses.fields(MappedCodes):
        one, two = getattr(found, field.name), getattr(read, field.name)
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
        else:
            assert one == two, field.name
    assert torch.equal(read.place(model, new).coordinates, placed.coordinates)
    if layout != "umap":
        alone = found.place(model, new[2])
        assert torch.allclose(alone.coordinates[0], placed.coordinates[2], atol=1e-3 * size)
    placed.plot()
    placed.save(tmp_path / "placed.npz")


def test_what_is_far_from_every_code_is_called_strange(found: MappedCodes) -> None:
    odd = Images(torch.stack([torch.full((3, 8, 8), 1.0), *coloured(1).pixels[:1]]))
    placed = found.place(net(), odd)
    assert placed.strange.tolist() == [True, False]
    assert any("has a place for anything" in note for note in placed.notes)
    other = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), size=8, labels=["red", "green", "blue"])
    with pytest.raises(InputError, match="other weights"):
        found.place(other, odd)


def test_new_images_must_be_given_to_the_model_as_the_maps_were(found: MappedCodes, tmp_path: Path) -> None:
    words: dict[str, Any] = {"labels": ["red", "green", "blue"]}
    larger, darker = Classifier(Colours(), size=16, **words), Classifier(Colours(), size=8, mean=(0.5,) * 3, **words)
    squashed = Classifier(Colours(), preprocess=Preprocess((8, 8), fit="squash"), **words)
    assert larger.fingerprint == darker.fingerprint == squashed.fingerprint == found.fingerprint
    for other, said in ((larger, "16×16 pixels"), (darker, "mean 0.5, 0.5, 0.5"), (squashed, "squash")):
        images = torch.rand(2, 3, *other.size)
        with pytest.raises(InputError, match=rf"the map is of images of 8×8 pixels .* given them of .*{said}"):
            found.place(other, images)
    dataclasses.replace(found, given="").save(tmp_path / "older.npz")
    with np.load(tmp_path / "older.npz") as held:
        arrays = {name: held[name] for name in held.files}
    about = json.loads(str(arrays.pop("about")))
    del about["given"]
    np.savez(tmp_path / "older.npz", about=np.array(json.dumps(about)), **arrays)
    older = MappedCodes.load(tmp_path / "older.npz")  # from before that was kept
    assert len(older.place(darker, coloured(1))) == 3


def test_a_file_that_is_no_map(tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "whole.npz", about=np.array("{}"), coordinates=np.random.default_rng(0).random((500, 2)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:4000])
    for name in ("no.npz", "other.npz", "missing.npz", "cut.npz"):
        with pytest.raises(InputError, match="not a saved map"):
            MappedCodes.load(tmp_path / name)


class Broken:
    """Pictures of which one cannot be read."""

    def __init__(self, array: np.ndarray[Any, Any], bad: int) -> None:
        self.inner, self.bad = Arrays(array), bad

    def picture(self, position: int) -> Picture:
        if position == self.bad:
            raise DataError("image-5 is broken")
        return self.inner.picture(position)

    def content(self, position: int) -> bytes:
        return self.inner.content(position)


def as_set(images: Images, bad: int, classes: tuple[str, ...]) -> DataSet:
    array = (images.pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert images.labels is not None
    names = tuple(f"image-{i}" for i in range(len(images)))
    return DataSet("set", names, Broken(array, bad), tuple(images.labels.tolist()), classes)


def test_a_broken_picture_in_the_middle_and_classes_that_are_not_the_models() -> None:
    found = QUICK(net(), as_set(coloured(8), 5, ("red", "green", "blue")))
    assert len(found) == 23
    assert 5 not in found.indices.tolist()
    assert found.failed == ((5, "image-5 is broken"),)
    assert any("1 of 24 images are left out: number 5" in note for note in found.notes)
    assert (found.wrong >= 0).all()
    other = QUICK(net(), as_set(coloured(8), 5, ("cherry", "grass", "sea")))
    assert other.classes == ("cherry", "grass", "sea")
    assert (other.wrong == -1).all()
    assert other.knn_codes == 1  # labels are of use all the same
    assert any("errors cannot be told" in note for note in other.notes)
    moved = QUICK(net(), as_set(coloured(8), 5, ("green", "blue", "red")))
    assert (moved.wrong == 1).all()  # the classes are told by name, not by number
    with pytest.raises(InputError, match="can be read, got none"):
        QUICK(net(), as_set(coloured(8), 0, ("red", "green", "blue")).subset([0]))


def test_new_images_have_the_maps_classes_or_none() -> None:
    model, many = net(), tuple(f"kind {i}" for i in range(12))
    labels = tuple(range(12)) * 2
    own = dataclasses.replace(as_set(coloured(8), -1, many), labels=labels)
    found = QUICK(model, own)
    placed = found.place(model, own)  # more classes than the model has
    assert placed.labels.tolist() == list(labels) == found.labels.tolist()
    assert placed.classes == many
    assert placed.facts()["placed"][11]["class"] == "kind 11"
    plain = QUICK(model, dataclasses.replace(own, classes=None))
    assert plain.classes == tuple(str(i) for i in range(12))
    assert plain.place(model, own).labels.tolist() == [-1] * 24
    assert plain.place(model, dataclasses.replace(own, classes=None)).labels.tolist() == list(labels)
    others = as_set(coloured(2), -1, ("Kind_11", "cherry", "kind 0"))
    placed = found.place(model, others)
    assert placed.labels.tolist() == [11, -1, 0] * 2  # by name, not by number
    assert "2 of 6 images have no class on the map, which lacks theirs: cherry" in placed.notes
    partly = dataclasses.replace(others, labels=(0, 1, None, 0, 1, 2))
    placed = found.place(model, partly)
    assert placed.labels.tolist() == [11, -1, -1, 11, -1, 0]
    assert "2 of 6 images have no class on the map, which lacks theirs: cherry" in placed.notes
    numbers = found.place(model, coloured(2))  # labels of the model's classes, which have no names on this map
    assert numbers.labels.tolist() == [-1] * 6
    assert any("a data set has them by name" in note for note in numbers.notes)
    of_model = QUICK(model, coloured(8))
    assert of_model.place(model, coloured(2)).labels.tolist() == [0, 1, 2] * 2
    moved = of_model.place(model, as_set(coloured(2), -1, ("green", "blue", "red")))
    assert moved.labels.tolist() == [1, 2, 0] * 2
    strange = of_model.place(model, as_set(coloured(2), -1, ("cherry", "grass", "sea")))
    assert strange.labels.tolist() == [-1] * 6
    facts = strange.facts()
    assert (facts["images"], facts["map"], facts["placed"][0]["class"]) == (6, 24, None)
    assert [each["predicted"] for each in facts["placed"][:3]] == ["red", "green", "blue"]
    assert facts["placed"][0]["nearest"][0] == of_model.names[int(strange.neighbours[0, 0])]


def test_neighbours_are_no_more_than_most_images_have_of_their_class() -> None:
    few = QUICK(net(), coloured(5))
    assert few.k == 4
    assert few.knn_codes is not None
    assert few.knn_codes > 0.9  # of ten, six would be of another class
    assert "k = 4 instead of 10: half of the images have no more others of their class" in few.notes
    alone = QUICK(net(), dataclasses.replace(as_set(coloured(4), -1, tuple("abcdefghijkl")), labels=tuple(range(12))))
    assert alone.k == 10
    assert alone.words()[0].startswith("Most images are alone in their class")
    assert not any("nearest in the map" in sentence for sentence in alone.words())


def test_few_images_constant_codes_and_twins() -> None:
    model, images = net(), coloured(10)
    one = QUICK(model, images[0])
    assert one.coordinates.tolist() == [[0, 0]]
    assert any("one point" in note for note in one.notes)
    assert one.words() == ("One image is one point: there is nothing that it could lie near.",)
    assert one.knn_map is None
    assert one.trustworthiness is None
    one.plot()
    few = QUICK(model, images[:4])
    assert few.layout == "pca"
    assert any("too few for t-SNE" in note for note in few.notes)
    assert any("k = 10 of 4 images" in note for note in few.notes)
    assert few.k == 3
    same = QUICK(model, Images(images.pixels[:1].repeat(12, 1, 1, 1)))
    assert torch.equal(same.coordinates, torch.zeros(12, 2))
    assert any("codes are the same" in note for note in same.notes)
    assert same.words() == ("All codes are the same to the layer, so that every image lies at one point.",)
    assert same.knn_map is None
    same.plot()
    same.plot_grid()
    assert torch.isfinite(same.place(model, images).coordinates).all()
    twins = QUICK(model, Images(images.pixels.repeat(3, 1, 1, 1)))
    assert torch.isfinite(twins.coordinates).all()
    assert any("90 images share their code" in note for note in twins.notes)
    low = CodeMap(iterations=20)(model, images)
    assert low.perplexity == pytest.approx(29 / 3)
    assert any("too high for 30 images; it was lowered to 9.67" in note for note in low.notes)
    single = QUICK(model, images[:1] if images.labels is None else Images(images.pixels, labels=torch.zeros(30).long()))
    assert any("of one class" in note for note in single.notes)
    blind = QUICK(model, images.pixels)
    assert any("no true classes are known" in note for note in blind.notes)
    assert (blind.wrong == -1).all()


class Sick(Colours):
    """Answers no number to bright images."""

    def forward(self, x: Tensor) -> Tensor:
        code = self.pool(self.conv(x))
        code = torch.where(code.mean((1, 2, 3), keepdim=True) > 0.9, torch.nan, code)
        return self.fc(self.pool(code).flatten(1))


def test_codes_that_are_no_numbers_are_left_out_and_told() -> None:
    images = coloured(5)
    bright = Images(torch.cat([images.pixels, torch.ones(2, 3, 8, 8)]))
    sick = Classifier(Sick(), size=8, labels=["red", "green", "blue"], check=False)
    found = QUICK(sick, bright)
    assert len(found) == 15
    assert [index for index, _ in found.failed] == [15, 16]
    assert any("2 of 17 images are left out" in note for note in found.notes)
    with pytest.raises(InputError, match="every image"):
        QUICK(sick, bright.pixels[15:])


def test_layers_pools_and_options() -> None:
    model, images = classifier(FAMILIES["vgg"]()), photos(9)
    spatial = dataclasses.replace(QUICK, layer="1")
    assert any("8 maps of 24 × 24, averaged" in note for note in spatial(model, images).notes)
    shapes = {"mean": 8, "max": 8, "flat": 8 * 24 * 24}
    for pool, wide in shapes.items():
        assert codes(model, images, "1", pool).shape == (9, wide)
        assert dataclasses.replace(spatial, pool=pool)(model, images).directions.shape[1] == wide
    cosine = dataclasses.replace(QUICK, metric="cosine")(model, images)
    own = codes(model, images)
    unit = own / own.norm(dim=1, keepdim=True)
    assert torch.allclose(torch.pdist(cosine.reduced), torch.pdist(unit), atol=1e-4)
    with pytest.raises(LayerError, match='did you mean "11"'):
        dataclasses.replace(QUICK, layer="11x")(model, images)
    with pytest.raises(InputError, match="give some"):
        QUICK(model)
    for words in ({"pool": "sum"}, {"metric": "cosinus"}, {"layout": "isomap"}, {"k": 0}, {"perplexity": float("nan")}):
        with pytest.raises(SpecError, match="expected"):
            CodeMap(**words)
    with pytest.raises(SpecError, match="a perplexity of at least 2 for UMAP"):
        CodeMap(layout="umap", perplexity=1)
    with pytest.raises(InputError, match="colour"):
        cosine.plot(colour="pink")


def test_umap_that_is_not_there_is_told_before_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr("seewhy.look.embed.seen_by", lambda *_: pytest.fail("it passed over the images"))
    with pytest.raises(MissingExtra, match=r"seewhy\[umap\]"):
        CodeMap(layout="umap")(classifier(FAMILIES["vgg"]()), photos(9))
    with pytest.raises(MissingExtra):
        CodeMap(layout="umap").check(classifier(FAMILIES["vgg"]()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_code_is_what_the_last_weights_are_given(family: str) -> None:
    model = classifier(FAMILIES[family]())
    kept: list[Tensor] = []
    last = [module for module in model.module.modules() if isinstance(module, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach()))
    model.predict(photos(3))
    hook.remove()
    assert torch.allclose(codes(model, photos(3)), kept[-1], atol=1e-5)
    assert code_layer(model)
