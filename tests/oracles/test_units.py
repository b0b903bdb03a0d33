"""The names of units: selectivity against its formula and against chance, dissection against plain loops and a planted unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import FAMILIES, SIZE, classifier, photos
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import InputError, SpecError
from seewhy.lens.capture import capture
from seewhy.look.concepts import shown
from seewhy.look.units import Units


def test_selectivity_is_its_formula() -> None:
    net = classifier(FAMILIES["densenet"]())
    images = Images(photos(23), labels=torch.arange(23) % 3)
    assert images.labels is not None
    found = Units(layer="convs.1", shuffles=20)(net, images)
    maps = capture(net, images.pixels, ["convs.1"])["convs.1"]
    for unit in range(4):
        mean = [float(maps[images.labels == label, unit].clamp_min(0).mean()) for label in range(3)]
        highest = max(mean)
        rest = (sum(mean) - highest) / 2
        assert float(found.selectivity[unit]) == pytest.approx((highest - rest) / (highest + rest), abs=1e-5)
        assert int(found.best[unit]) == mean.index(highest)
    assert found.count == 23
    net.engine.batch = 1
    torch.testing.assert_close(Units(layer="convs.1", shuffles=20)(net, images).floor, found.floor)


def test_the_floor_is_where_labels_by_lot_lie() -> None:
    """Labels that have nothing to do with the images are above the floor as often as they should be."""
    net, pixels = classifier(FAMILIES["mobilenet"]()), photos(60)
    above, total = 0, 0
    for seed in range(25):
        labels = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(seed))
        found = Units(layer="expand", shuffles=99)(net, Images(pixels, labels=labels))
        above += int((found.selectivity > found.floor).sum())
        total += len(found.floor)
        agree = (found.selectivity > found.floor) == (found.chance <= 0.05)
        assert agree.float().mean() > 0.8
    assert above / total == pytest.approx(0.05, abs=0.05)


def planted(count: int = 24) -> tuple[Classifier, Images, Tensor]:
    """Unit 1 of two is on where an image is red; half of the images have a red square, and are of class "red"."""
    module = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    net = Classifier(module, size=SIZE, labels=["plain", "red"], check=False)
    with torch.no_grad():
        module[0].get_parameter("weight").copy_(
            torch.tensor([[0.1, 0.1, 0.1], [1, -1, -1], [0, 0, 1.0]])[..., None, None]
        )
        module[0].get_parameter("bias").zero_()
    draw = torch.Generator().manual_seed(0)
    pixels = 0.4 + 0.2 * torch.rand(count, 3, SIZE, SIZE, generator=draw)
    mask = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    for index in range(0, count, 2):
        top, left = (2 * torch.randint(0, SIZE // 2 - 4, (2,), generator=draw)).tolist()
        mask[index, top : top + 8, left : left + 8] = True
        pixels[index, :, top : top + 8, left : left + 8] = torch.tensor([1.0, 0, 0])[:, None, None]
    return net, Images(pixels, labels=(torch.arange(count) % 2 == 0).long()), mask


def test_a_planted_unit_gets_its_class_and_its_concept() -> None:
    net, images, mask = planted()
    elsewhere = mask.roll(7, 0).flip(1)
    concepts = {"red": mask, "other": elsewhere}
    found = Units(layer="1", quantile=0.06)(net, images, concepts)
    assert found.iou is not None
    assert found.iou[1].tolist()[0] == 1  # pixel for pixel
    assert found.name(1) == "red"
    assert float(found.selectivity[1]) == 1
    assert found.chance[1] == pytest.approx(1 / 101)
    assert found.concepts == ("red", "other")
    assert found.drawn[0] == 1
    first = int(found.sheet[0, 0].eq(255).all(0).sum())  # a white line around the square, four times as large
    assert 0.5 < first / (4 * 32) < 2
    outside = found.sheet[0, :, 0].float() - found.sheet[0, :, 1].float()
    assert (outside > 200).flatten(1).any(1).all()  # what is ringed is red in every picture
    pooled = Units(layer="2", quantile=0.06)(net, images, concepts)
    assert pooled.iou is not None
    assert 0.6 < float(pooled.iou[1, 0]) < 1  # borders are blurred by enlarging
    sparse = {name: {place: each for place, each in enumerate(dense) if each.any()} for name, dense in concepts.items()}
    same = Units(layer="1", quantile=0.06)(net, images, sparse)
    for name in ("iou", "overlap", "sheet", "drawn"):
        assert torch.equal(getattr(same, name), getattr(found, name)), name
    assert same.notes == found.notes
    assert [shown(sparse, image, net.size)[0].tolist() for image in (0, 1)] == [
        [0],
        [1],
    ]  # no memory for the other concept
    assert shown({"red": sparse["red"]}, 1, net.size)[1].shape == (0, SIZE**2)
    assert Units(layer="1")(net, images).name(1) == "red"  # by its class alone
    assert found.plot() is not None


def test_a_unit_at_its_ceiling_is_on_there() -> None:
    """ReLU6 makes all of a red square the same, and more places than the share that exceeds a threshold."""
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    net = Classifier(module, size=16, check=False)
    with torch.no_grad():
        module[0].get_parameter("weight").zero_()[0, 0] = 20
        module[0].get_parameter("bias").copy_(torch.tensor([-10.0, 9, -9]))  # red; always at the ceiling; dead
    mask = torch.zeros(10, 16, 16, dtype=torch.bool)
    mask[:, 4:8, 4:8] = True
    pixels = torch.zeros(10, 3, 16, 16)
    pixels[:, 0][mask] = 1
    images = Images(pixels, labels=torch.arange(10) % 2)
    found = Units(layer="1")(net, images, {"red": mask})
    assert found.iou is not None
    assert found.iou[:, 0].tolist() == [1, 0, 0]  # what is on everywhere, or nowhere, finds nothing
    assert found.drawn.tolist() == [0]
    assert found.name(0) == "red"
    (note,) = (note for note in found.notes if "largest value" in note)
    assert note.startswith("2 of 3 units of 1 answer their largest value in more than 0.5 % of all places")
    loose = Units(layer="1", quantile=0.07)(net, images, {"red": mask})
    assert loose.iou is not None
    assert loose.iou[:, 0].tolist() == [1, 0, 0]
    assert any(note.startswith("1 of 3 units of 1 answer their largest") for note in loose.notes)


def test_dissection_is_that_of_plain_loops() -> None:
    net, images, mask = planted(6)
    found = Units(layer="2", quantile=0.1)(net, images, {"red": mask})
    maps = capture(net, images.pixels, ["2"])["2"]
    for unit in range(3):
        values = np.sort(maps[:, unit].numpy().ravel())[::-1]
        threshold = values[int(0.1 * values.size)]
        # windows of an average pooling are centred as in evenly spread enlarging
        large = F.interpolate(maps[:, unit : unit + 1], size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]
        both = int(((large > threshold) & mask).sum())
        either = int(((large > threshold) | mask).sum())
        assert found.threshold is not None and found.overlap is not None and found.iou is not None  # noqa: PT018
        assert float(found.threshold[unit]) == pytest.approx(float(threshold), rel=1e-5)
        assert float(found.iou[unit, 0]) == pytest.approx(both / max(either, 1), abs=0.01)
        assert int(found.overlap[unit, 0]) == pytest.approx(both, abs=3)


def test_a_data_set_and_predicted_classes() -> None:
    net = classifier(FAMILIES["resnet"]())
    array = (photos(12).permute(0, 2, 3, 1) * 255).round().byte().numpy()
    pictures = DataSet("p", tuple(map(str, range(12))), Arrays(array), tuple(i % 5 for i in range(12)))
    found = Units(shuffles=5)(net, pictures)
    pixels = pictures.images(slice(None), net.preprocess)
    torch.testing.assert_close(found.selectivity, Units(shuffles=5)(net, pixels).selectivity)
    guessed = Units(shuffles=5)(net, pixels.pixels)
    same = Units(shuffles=5)(net, Images(pixels.pixels, labels=net.predict(pixels).argmax(1)))
    assert torch.equal(guessed.selectivity, same.selectivity)
    assert any("model predicts" in note for note in guessed.notes)
    unknown = replace(pictures, labels=(None,) * 12, classes=tuple(f"kind {i}" for i in range(7)))
    named = Units(shuffles=5)(net, unknown)
    assert torch.equal(named.selectivity, guessed.selectivity)
    assert named.classes == net.labels  # the indices are of the model's classes, not of the set's


def test_bad_input_is_a_clear_sentence_or_note() -> None:
    net, images, mask = planted(4)
    one = Units(layer="1")(net, Images(images.pixels, labels=torch.ones(4, dtype=torch.long)))
    assert "all images are of one class, so no unit can be selective" in one.notes
    assert float(one.selectivity.max()) == 0
    assert "no image shows none" in Units(layer="1")(net, images, {"red": mask, "none": mask & ~mask}).notes
    for words, masks in ((r"got \(3, 24, 24\)", {"red": mask[:3]}), ("at least one concept", {})):
        with pytest.raises(InputError, match=words):
            Units()(net, images, masks)
    for place, size in ((4, SIZE), (0, 5)):
        with pytest.raises(InputError, match=f"of images 0 to 3, got .* of image {place}"):
            Units()(net, images, {"red": {place: torch.ones(size, size)}})
    with pytest.raises(InputError, match="give some"):
        Units()(net)
    with pytest.raises(SpecError, match="quantile=2"):
        Units(quantile=2)
    with pytest.raises(InputError, match="no unit 3"):
        one.name(3)
