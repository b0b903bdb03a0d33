"""Comparisons against direct counts and statistics, and adversarial sets that load and are judged again."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
import torch
from PIL import Image

from nets import FAMILIES, classifier, photos
from seewhy.attack import FGSM, IFGSM, DeepFool, WhiteBox, sets
from seewhy.attack.base import Adversarial
from seewhy.attack.compare import compare, together, transferred
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.errors import DataError, InputError, RunError
from seewhy.intervals import wilson


@pytest.fixture(scope="module")
def net() -> Classifier:
    return classifier(FAMILIES["resnet"]())


@pytest.fixture(scope="module")
def images(net: Classifier) -> Images:
    pixels = photos(8)
    labels = net.predict(pixels).argmax(1)
    labels[3] = (labels[3] + 1) % 5
    return Images(pixels, labels=labels)


def test_wilsons_interval_is_scipys() -> None:
    for count, total in ((0, 7), (3, 7), (7, 7), (50, 1000)):
        theirs = scipy.stats.binomtest(count, total).proportion_ci(method="wilson")
        assert wilson(count, total) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert wilson(0, 0) == (0, 1)


def test_accuracy_counts_the_images_that_stand(net: Classifier, images: Images) -> None:
    first, second = FGSM(eps=(0.02, 0.05))(net, images), FGSM(eps=(1.0,), norm="l2")(net, images)
    found = compare([first, second])
    assert found.norms == ("linf", "l2")
    assert found.fair == 7
    fair = ~first.wrong_at_start
    sizes = torch.tensor([0.0, 0.01, 0.02, 0.05])
    for number, each in enumerate((first, second)):
        for size, (share, low, high) in zip(sizes, found.accuracy(number, sizes).tolist(), strict=True):
            count = sum(float(smallest) > float(size) for smallest in each.smallest_eps[fair])
            assert (share, low, high) == pytest.approx((count / 7, *wilson(count, 7)))
    for row, each in zip(found.table(), (first, second), strict=True):
        assert row["fooled"] == int((each.best[fair] >= 0).sum())
        assert row["of"] == 7
        assert row["median size"] == float(np.median(each.smallest_eps[fair].numpy()))  # failures are infinite
    kept = first.best >= 0
    l2 = (first.fooling - images.pixels).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.distances["l2"][0, kept], l2[kept])
    assert found.distances["l2"][0, ~kept].isinf().all()
    assert float(found.tried[0]) == pytest.approx(0.05)
    assert found.plot().axes
    assert found.plot_distances().axes


def test_parts_are_the_whole(net: Classifier, images: Images) -> None:
    whole = compare([FGSM(eps=(0.05,))(net, images)])
    parts = together([compare([FGSM(eps=(0.05,))(net, images[place : place + 4])]) for place in (0, 4)])
    torch.testing.assert_close(parts.smallest, whole.smallest, rtol=1e-3, atol=1e-5)
    assert torch.equal(parts.wrong_at_start, whole.wrong_at_start)
    assert len(parts.images) == 8


def test_attacks_on_other_images_are_not_compared(net: Classifier) -> None:
    one, other = (FGSM(eps=(0.05,))(net, photos(2, seed)) for seed in (1, 2))
    with pytest.raises(InputError, match="on the same images"):
        compare([one, other])
    with pytest.raises(InputError, match="at least one attack"):
        compare([])


def test_attacks_on_other_models_are_not_compared(net: Classifier, images: Images) -> None:
    other = classifier(FAMILIES["vgg"]())
    one, two = (FGSM(eps=(0.05,), refine=0)(each, images) for each in (net, other))
    assert not torch.equal(one.wrong_at_start, two.wrong_at_start)
    with pytest.raises(InputError, match=r"expected attacks on one model; fgsm:.* get different images wrong"):
        compare([one, two])


def test_a_line_ends_at_the_smallest_size_to_which_a_standing_image_was_tried(net: Classifier, images: Images) -> None:
    attack = IFGSM(eps=(1 / 255, 0.02, 0.3), steps=4, refine=0)
    whole, ended = attack(net, images), attack(WhiteBox(net, budget=6), images)
    assert float(compare([whole]).tried[0]) == pytest.approx(0.3)
    left = ended.untried.any(0)
    assert left.any()
    standing = left & ended.smallest_eps.isinf()
    found = compare([ended])
    assert float(found.tried[0]) == float(ended.eps.amax(0)[standing].min()) < 0.3
    assert torch.equal(found.stopped[0], ended.eps.amax(0))
    both = together([compare([whole]), found])
    assert float(both.tried[0]) == float(found.tried[0])
    assert found.plot().axes
    assert f"the queries did not suffice to try {int(ended.untried.sum())} of 21 sizes" in found.notes[0]
    nothing = FGSM(eps=(0.3,))(net, images)  # sizes of one step are all tried
    assert not nothing.untried.any()


def test_what_stands_was_tried_as_far_as_the_nearest_image_looked_for(net: Classifier, images: Images) -> None:
    found = DeepFool()(net, images)
    standing = torch.arange(8) == 1
    found = replace(found, success=found.success & ~standing)  # as if that one stood
    assert torch.equal(found.smallest_eps.isinf(), standing | found.wrong_at_start)
    reached = found.eps.amax(0)
    assert reached.max() > reached[standing].min()
    assert float(compare([found]).tried[0]) == float(reached[standing].min())


def test_transfer_is_counted_on_what_the_victim_had_right(images: Images) -> None:
    nets = {name: classifier(FAMILIES[name]()) for name in ("resnet", "vgg")}
    attack = FGSM(eps=(0.3,))
    found = transferred(nets, attack, images)
    for row, source in enumerate(nets.values()):
        made = attack(source, images)
        kept = made.best >= 0
        saved = (made.fooling[kept] * 255).round() / 255
        for column, victim in enumerate(nets.values()):
            right = victim.predict(images.pixels[kept]).argmax(1) == made.labels[kept]
            gone = victim.predict(saved).argmax(1) != made.labels[kept]
            assert (int(found.fooled[row, column]), int(found.of[row, column])) == (
                int((gone & right).sum()),
                int(right.sum()),
            )
    assert found.share[0, 0] == 1
    assert found.interval(0, 0)[1] == 1
    assert found.plot().axes
    halves = [transferred(nets, attack, images[place : place + 4]) for place in (0, 4)]
    added = halves[0] + halves[1]
    assert torch.equal(added.fooled, found.fooled)
    assert torch.equal(added.of, found.of)
    named = {order: classifier(FAMILIES["vgg"](), labels=list(order)) for order in ("abcde", "edcba")}
    with pytest.raises(InputError, match="the same classes in the same order"):
        transferred(named, attack, images)
    with pytest.raises(InputError, match="same classes and input size"):
        transferred(
            {**nets, "three": classifier(FAMILIES["vgg"](), size=30, labels=list("abcde"), check=False)}, attack, images
        )


def test_towards_a_target_a_victim_is_fooled_that_says_so(images: Images) -> None:
    nets = {name: classifier(FAMILIES[name]()) for name in ("resnet", "vgg")}
    answers = []

    def towards(net: Classifier, given: Any, labels: Any) -> Adversarial:
        answers.append(FGSM(eps=(0.3,))(net, given, None, net.predict(given).topk(2).indices[:, 1]))
        return answers[-1]

    found = transferred(nets, towards, images.pixels)
    assert found.method == "fgsm:eps=0.3"
    for row, made in enumerate(answers):
        kept = made.best >= 0
        assert kept.any()
        assert made.target is not None
        saved = (made.fooling[kept] * 255).round() / 255
        for column, victim in enumerate(nets.values()):
            right = victim.predict(images.pixels[kept]).argmax(1) == made.labels[kept]
            there = victim.predict(saved).argmax(1) == made.target[kept]
            assert int(found.fooled[row, column]) == int((there & right).sum())


def test_a_set_loads_again_and_is_judged_again(net: Classifier, images: Images, tmp_path: Path) -> None:
    found = [FGSM(eps=(0.05,))(net, images), FGSM(eps=(2.0,), norm="l2")(net, images)]
    table = sets.export(net, found, tmp_path / "set")
    assert table.name == "adversarial.csv"
    with pytest.raises(RunError, match="holds an adversarial set already"):
        sets.export(net, found, tmp_path / "set")
    loaded = sets.load(tmp_path / "set")
    fooling = torch.cat([each.fooling for each in found])
    torch.testing.assert_close(loaded.images.pixels, (fooling * 255).round() / 255)
    judged = loaded.judged(net)
    assert judged.as_told.all()  # what is saved is what was judged
    told = torch.tensor([row["fools"] == "True" for row in loaded.rows])
    assert torch.equal(told, torch.cat([each.best >= 0 for each in found]))
    assert torch.equal(judged.fools, told & judged.right)
    assert f"fooled by {int(judged.fools.sum())} of those" in judged.words()
    for row, pixels, clean in zip(loaded.rows, loaded.images.pixels, images.pixels.repeat(2, 1, 1, 1), strict=True):
        assert float(row["l2"]) == pytest.approx(float((pixels - clean).norm()), rel=1e-4)
        assert float(row["linf"]) == pytest.approx(float((pixels - clean).abs().max()), abs=1e-5)
    other = classifier(FAMILIES["vgg"]())
    assert torch.equal(loaded.judged(other).predictions, other.predict(loaded.images).argmax(1))


def test_originals_of_one_name_are_not_laid_over_each_other(net: Classifier, tmp_path: Path) -> None:
    first, second = (FGSM(eps=(0.05,), refine=0)(net, photos(2, seed)) for seed in (1, 2))
    with pytest.raises(
        InputError, match=r"another image 1 in its place than an attack before it; export them to folders"
    ):
        sets.export(net, [first, second], tmp_path / "set")
    assert not (tmp_path / "set").exists()
    named = FGSM(eps=(0.05,), refine=0)(net, Images(photos(2, 2), ("one", "two")))
    sets.export(net, [first, named], tmp_path / "set")
    loaded = sets.load(tmp_path / "set")
    originals = torch.cat([photos(2, 1), photos(2, 2)])
    torch.testing.assert_close(loaded.originals.pixels, (originals * 255).round() / 255)


def test_rows_whose_original_was_written_anew_leave_the_table(net: Classifier, tmp_path: Path) -> None:
    attacks = FGSM(eps=(0.05,), refine=0), FGSM(eps=(0.1,), refine=0)
    before, after = photos(2, 1), photos(2, 2)
    sets.export(net, [each(net, before) for each in attacks], tmp_path / "set")
    sets.export(net, [attacks[0](net, after)], tmp_path / "set", overwrite=True)
    loaded = sets.load(tmp_path / "set")
    assert [row["file"] for row in loaded.rows] == ["0001-image-1.1.png", "0002-image-2.1.png"]
    torch.testing.assert_close(loaded.originals.pixels, (after * 255).round() / 255)


def test_a_target_counts_where_it_is_reached(net: Classifier, tmp_path: Path) -> None:
    pixels = photos(4)
    labels = net.predict(pixels).argmax(1)
    target = net.predict(pixels).topk(2).indices[:, 1]
    found = FGSM(eps=(0.3,))(net, pixels, labels, target)
    sets.export(net, [found], tmp_path / "set")
    judged = sets.load(tmp_path / "set").judged(net)
    assert torch.equal(judged.fools, judged.predictions == target)


def test_a_set_is_not_judged_by_a_model_that_has_its_classes_in_another_order(tmp_path: Path) -> None:
    named = {order: classifier(FAMILIES["resnet"](), labels=list(order)) for order in ("abcde", "eabcd", "vwxyz")}
    sets.export(named["abcde"], [FGSM(eps=(0.3,))(named["abcde"], photos(4))], tmp_path / "set")
    loaded = sets.load(tmp_path / "set")
    with pytest.raises(InputError, match=r'the same order, got "(\w)" as class (\d) in the set and as class \d in'):
        loaded.judged(named["eabcd"])
    for other in (named["abcde"], named["vwxyz"], classifier(FAMILIES["resnet"](), labels=None)):  # words of their own
        assert loaded.judged(other).as_told.all()


def test_what_is_wrong_with_a_set_is_said(net: Classifier, images: Images, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with pytest.raises(DataError, match="there is no folder"):
        sets.load(folder)
    folder.mkdir()
    with pytest.raises(DataError, match=r"expected the table adversarial\.csv"):
        sets.load(folder)
    sets.export(net, [FGSM(eps=(0.1,))(net, images)], folder)
    with pytest.raises(InputError, match="expected images of 32 × 32"):
        sets.load(folder).judged(classifier(FAMILIES["vgg"](), size=32, check=False))
    names = sorted(path.name for path in folder.glob("*.1.png"))
    (folder / names[2]).write_text("no picture")
    with pytest.raises(DataError, match=f"the image {names[2]} of the adversarial set .* is not an image"):
        sets.load(folder)
    Image.effect_noise((40, 40), 50).save(folder / names[2])
    whole = (folder / names[2]).read_bytes()
    chunk = whole.index(b"IDAT")
    (folder / names[2]).write_bytes(whole[: chunk + 20] + bytes(8) + whole[chunk + 28 :])
    with pytest.raises(DataError, match=f"the image {names[2]} of the adversarial set .* damaged"):
        sets.load(folder)
    (folder / names[2]).write_bytes(whole[: chunk - 4] + b"\x00\x00\x00\x00" + whole[chunk:])  # a chunk of no length
    with pytest.raises(DataError, match=f"the image {names[2]} of the adversarial set .* damaged"):
        sets.load(folder)
    (folder / names[2]).unlink()
    with pytest.raises(DataError, match=f"lacks the image {names[2]}, which its table names; restore it"):
        sets.load(folder)
    (folder / names[1]).unlink()
    with pytest.raises(DataError, match=f"lacks the image {names[1]} and 1 more"):
        sets.load(folder)
    table = (folder / sets.TABLE).read_text().splitlines(keepends=True)
    (folder / sets.TABLE).write_text("".join(table[:2]) + table[2][:40])
    with pytest.raises(DataError, match=r"row 2 of the table .*adversarial\.csv is cut off"):
        sets.load(folder)
    with (folder / sets.TABLE).open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label"], [names[0], "1"]])
    with pytest.raises(DataError, match="one without original"):
        sets.load(folder)
    (folder / sets.TABLE).write_text("")
    with pytest.raises(DataError, match="one without rows"):
        sets.load(folder)
