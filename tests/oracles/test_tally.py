"""The state of a pass over exemplars is refused where it is not of this pass; what is no number is in no sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nets import FAMILIES, SIZE, Dividing, classifier, photos
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import InputError
from seewhy.look import Statistics, Units
from seewhy.look.exemplars import Exemplars
from seewhy.look.tally import Tally, mark


def data(
    pixels: Tensor, name: str = "picture", classes: tuple[str, ...] = ("ant", "bee", "cat", "dog", "elk")
) -> DataSet:
    array = (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    names = tuple(f"{name} {index}" for index in range(len(array)))
    return DataSet("pictures", names, Arrays(array), tuple(index % 5 for index in range(len(array))), classes)


def test_a_state_of_other_images_is_refused(tmp_path: Path) -> None:
    net, method, path = classifier(FAMILIES["resnet"]()), Exemplars(k=3), tmp_path / "state"
    mine, others = photos(20), photos(20, 2)
    state = method.tally(net, mine, path=path)
    for given in (others, Images(others), mine.flip(3), (mine + 0.004).clamp(0, 1), iter([others[:7], others[7:]])):
        with pytest.raises(InputError, match=r"the state is of other images: number \d+, image \d+, is not the one"):
            method.tally(net, given, path=path)
    for pixels in (others, mine.flip(3)):
        with pytest.raises(InputError, match="the state is of other images"):
            method.result(net, state, pixels)
    again = method.tally(net, iter([mine[:7], mine[7:]]), path=path)  # the same images, as a stream
    assert len(again) == 20
    assert method.result(net, again, Images(mine, names=tuple("abcdefghijklmnopqrst"))).count == 20


def test_a_state_of_another_data_set_is_refused() -> None:
    net, method = classifier(FAMILIES["resnet"]()), Exemplars(k=3)
    pictures = data(photos(20))
    state = method.tally(net, pictures)
    for wrong, words in (
        (
            data(photos(20), "photo"),
            r"of other images: number \d+, picture \d+, is not the one that is given, photo \d+",
        ),
        (replace(pictures, classes=("ant", "bee", "cow", "dog", "elk")), "with other classes: 'cat' there, 'cow' here"),
        (replace(pictures, classes=(*net.labels, "fly")), "with other classes: "),
    ):
        with pytest.raises(InputError, match=words):
            method.tally(net, wrong, state)
        with pytest.raises(InputError, match=words):
            method.result(net, state, wrong)
    with pytest.raises(InputError, match="of other images"):
        method.result(net, state, data(photos(20, 2)))  # of the same names
    unnamed = method.tally(net, pictures.images(slice(None), net.preprocess).pixels, None)
    assert method.result(net, unnamed, replace(pictures, classes=net.labels)).count == 20  # came without names
    halves = method.tally(net, pictures.subset(range(8)))
    halves.merge(method.tally(net, pictures.subset(range(8, 20)), first=8))
    assert method.result(net, halves, pictures).names == method.result(net, state, pictures).names


def test_a_state_of_other_settings_is_refused_by_what_differs() -> None:
    net, method, images = classifier(FAMILIES["vgg"]()), Exemplars(layers=("1",), k=3), photos(6)
    state = method.tally(net, images)

    def given(**words: object) -> Classifier:
        kept = {"size": SIZE, "mean": net.mean, "std": net.std, "labels": net.labels, "check": False}
        return Classifier(net.module, **{**kept, **words})  # type: ignore[arg-type]

    other_weights = classifier(FAMILIES["vgg"]())
    with torch.no_grad():
        other_weights.module.get_submodule("0").get_parameter("bias").add_(1)
    for other, by, words in (
        (net, replace(method, k=9), "with other k: 3 there, 9 here"),
        (net, replace(method, layers=("4",)), "with other layers: '1' there, '4' here"),
        (net, replace(method, layers=("1", "4")), r"with other layers: \['1'\] there, \['1', '4'\] here"),
        (net, replace(method, per_image=2), "with other per_image: 1 there, 2 here"),
        (given(mean=(0.1, 0.2, 0.3)), method, "with other mean"),
        (given(std=(0.1, 0.2, 0.3)), method, "with other std"),
        (given(size=SIZE + 8), method, f"with other size: {SIZE} there, {SIZE + 8} here"),
        (other_weights, method, "with other model"),
    ):
        with pytest.raises(InputError, match=words):
            by.result(other, state)
        with pytest.raises(InputError, match=words):
            by.tally(other, images, state)
    with pytest.raises(InputError, match="with other k: 3 there, 9 here"):
        state.merge(replace(method, k=9).tally(net, images, first=6))
    assert method.result(given(), state, images).count == 6


def test_marks_tell_images_apart_and_outlast_the_file(tmp_path: Path) -> None:
    images = photos(2)
    assert mark(images[0]) == pytest.approx(mark(images[0] + 1e-7 * torch.randn(images[0].shape)), rel=1e-6)
    for other in (images[1], images[0].flip(2), images[0].flip(0), (images[0] + 1 / 255).clamp(0, 1)):
        assert mark(images[0]) != pytest.approx(mark(other), rel=1e-4)
    state = Exemplars(k=1).tally(classifier(FAMILIES["vgg"]()), images)
    assert state.marks == {index: mark(images[index]) for index in state.names}
    state.save(tmp_path / "state")
    assert Tally.load(tmp_path / "state").marks == state.marks


def test_answers_that_are_no_numbers_are_in_no_mean() -> None:
    net = Classifier(Dividing(), size=SIZE, labels=["ant", "bee"], check=False)
    pixels = photos(12)
    pixels[[0, 1, 2, 5]] = 0
    labels = torch.tensor([0] * 6 + [1] * 6)
    method = Exemplars(layers=("same",), k=2)
    found = method(net, Images(pixels, labels=labels))
    good = torch.tensor([3, 4, 6, 7, 8, 9, 10, 11])
    alone = method(net, Images(pixels[good], labels=labels[good]))
    for name in ("mean", "deviation", "class_means", "histogram"):
        torch.testing.assert_close(getattr(found, name)["same"], getattr(alone, name)["same"])
    assert torch.equal(found.images["same"], good[alone.images["same"]])
    dark = method(net, Images(pixels, labels=torch.tensor([1, 1, 1, 0, 0, 1, *[0] * 6])))
    assert dark.class_means["same"][:, 1].isnan().all()  # a class of black images has no mean, rather than zero
    assert dark.plot_classes() is not None
    halves = method.tally(net, Images(pixels[:6], labels=labels[:6]))
    halves.merge(method.tally(net, Images(pixels[6:], labels=labels[6:]), first=6))
    torch.testing.assert_close(method.result(net, halves).class_means["same"], found.class_means["same"])


def test_a_unit_that_answers_no_numbers_has_no_mean() -> None:
    net, images = classifier(FAMILIES["vgg"]()), Images(photos(4), labels=torch.arange(4) % 2)
    with torch.no_grad():
        net.module.get_submodule("3").get_parameter("bias")[5] = torch.inf
    found = Exemplars(k=2, units=(5,))(net, images)
    assert found.mean["4"].isnan().nonzero().flatten().tolist() == [5]
    assert found.class_means["4"][:, :2].isnan().any(1).nonzero().flatten().tolist() == [5]
    assert 5 not in dict(found.units_of("4", 0, 12))
    assert found.plot() is not None
    assert found.plot_classes() is not None


def test_statistics_and_units_leave_images_out_that_are_not_answered_in_numbers() -> None:
    net = Classifier(Dividing(), size=SIZE, labels=["ant", "bee"], check=False)
    pixels = photos(70)  # more than one part
    pixels[[0, 5, 66]] = 0
    labels = torch.arange(70) % 2
    good = torch.tensor([place for place in range(70) if place not in (0, 5, 66)])
    mine, alone = Images(pixels, labels=labels), Images(pixels[good], labels=labels[good])
    said = "3 of 70 images are left out: number 0, same answers infinite values or no numbers to image 1, and 2 more"
    found, other = Statistics(layers=("same", "fc"))(net, mine), Statistics(layers=("same", "fc"))(net, alone)
    assert found.count == 67
    assert said in found.notes
    assert [index for index, _ in found.failed] == [0, 5, 66]
    for layer in ("same", "fc"):
        for name in ("mean", "deviation", "lowest", "highest", "zero", "silent", "dead"):
            torch.testing.assert_close(getattr(found, name)[layer], getattr(other, name)[layer])
    red = pixels[:, 0] > 0.5
    red[0] = True  # of an image that is left out, which has no part in the overlap
    for given, kept in ((mine, alone), (mine.pixels, alone.pixels)):
        named = Units(layer="same", shuffles=9)(net, given, {"red": red})
        same = Units(layer="same", shuffles=9)(net, kept, {"red": red[good]})
        assert said in named.notes
        assert named.count == 67
        for name in ("selectivity", "best", "floor", "threshold", "iou", "overlap", "sheet"):
            torch.testing.assert_close(getattr(named, name), getattr(same, name))
    black = torch.zeros(3, 3, SIZE, SIZE)
    for method in (Statistics(layers=("same",)), Units(layer="same")):
        with pytest.raises(InputError, match=r"same answers infinite values or no numbers to .*; choose another layer"):
            method(net, black)
