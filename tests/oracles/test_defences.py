"""Defences against SciPy and Pillow, the counts of the controls against plain passes, the detector against its definition."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.ndimage  # type: ignore[import-untyped]
import scipy.stats  # type: ignore[import-untyped]
import torch
from PIL import Image
from torch import Tensor, nn

from nets import FAMILIES, classifier, photos
from seewhy.attack import FGSM
from seewhy.attack.defences import (
    BitDepth,
    Defence,
    Jpeg,
    Median,
    Resize,
    controls,
    defended,
    feature_squeezing,
)
from seewhy.attack.oracles import as_saved
from seewhy.classifier import Classifier
from seewhy.engine import Meter
from seewhy.errors import InputError, SpecError
from seewhy.explain import GradCAM

ALL = (BitDepth(3), Median(), Jpeg(), Resize())


@pytest.fixture(scope="module")
def net() -> Classifier:
    return classifier(FAMILIES["resnet"]())


def test_bit_depth_leaves_so_many_levels() -> None:
    ramp = torch.linspace(0, 1, 1000).expand(1, 3, 1, -1)
    levels = BitDepth(3)(ramp).unique()
    torch.testing.assert_close(levels, torch.arange(8) / 7)
    assert torch.equal(BitDepth(8)(photos(1)), (photos(1) * 255).round() / 255)


def test_median_is_scipys() -> None:
    images = photos(2)
    for size in (3, 5):
        ours = Median(size)(images).numpy()
        for image in range(2):
            for channel in range(3):
                theirs = scipy.ndimage.median_filter(images[image, channel].numpy(), size, mode="mirror")
                np.testing.assert_array_equal(ours[image, channel], theirs)


def test_jpeg_is_pillows() -> None:
    images = photos(2)
    ours = Jpeg(50)(images)
    for image in range(2):
        buffer = io.BytesIO()
        Image.fromarray((images[image] * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=50)
        theirs = torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1).float() / 255
        torch.testing.assert_close(ours[image], theirs)


def test_resize_lays_a_smaller_image_on_black() -> None:
    white = torch.ones(2, 3, 40, 40)
    sides = set()
    for seed in range(8):
        seen = Resize(0.7, seed)(white)
        rows, columns = (seen[0, 0] > 0).any(1).nonzero()[:, 0], (seen[0, 0] > 0).any(0).nonzero()[:, 0]
        side = len(rows)
        assert len(columns) == side
        assert 28 <= side <= 40
        torch.testing.assert_close(seen.sum((2, 3)), torch.full((2, 3), float(side * side)))
        assert torch.equal(seen, Resize(0.7, seed)(white))
        sides.add((side, int(rows[0]), int(columns[0])))
    assert len(sides) > 4
    assert torch.equal(Resize(1.0)(photos(1)), photos(1))


@pytest.mark.parametrize("defence", ALL, ids=repr)
def test_a_defended_classifier_is_one(net: Classifier, defence: Defence) -> None:
    behind, images = defended(net, defence), photos(3)
    plain = net.predict(defence(images))
    torch.testing.assert_close(behind.predict(images), plain)
    torch.testing.assert_close(
        torch.cat([behind.predict(image[None]) for image in images]), plain, rtol=1e-4, atol=1e-5
    )
    assert behind.labels == net.labels
    assert behind.size == net.size
    assert GradCAM()(behind, images).values.isfinite().all()
    found = FGSM(eps=(8 / 255,), refine=0)(behind, images)
    again = behind.predict(found.images[0]).argmax(1)
    assert torch.equal(found.success[0], again != found.labels)
    assert not any(module._forward_hooks for module in net.module.modules())
    assert all(parameter.grad is None for parameter in net.module.parameters())


def test_gradients_go_straight_through_what_has_none(net: Classifier) -> None:
    images = photos(2)
    for defence in (BitDepth(3), Jpeg()):
        _, ours = defended(net, defence).gradient(images, lambda logits, _: logits[:, 0])
        _, there = net.gradient(defence(images), lambda logits, _: logits[:, 0])
        torch.testing.assert_close(ours, there)  # that of the model at the image it sees


def test_gradients_go_through_what_has_one(net: Classifier) -> None:
    images = photos(1).double()
    for defence in (Median(), Resize()):
        assert torch.autograd.gradcheck(
            lambda x, defence=defence: defence(x)[..., :3, :3],
            images[..., :6, :6].requires_grad_(),
            eps=1e-7,
            atol=1e-4,
        )


def test_controls_are_counts_of_plain_passes(net: Classifier) -> None:
    images = photos(8)
    labels = net.predict(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5  # wrong from the start: never counted as right
    attack = FGSM(eps=(0.05, 0.1), refine=0)
    none, bits = controls(net, attack, images, labels, defences=[BitDepth(3)])
    found = attack(net, images, labels)

    def right(model: Classifier, pixels: Tensor) -> Tensor:
        return model.predict(pixels).argmax(1) == labels

    stands = right(net, images) & right(net, found.images[0]) & right(net, found.images[1])
    assert (none.of, none.clean, none.attacked, none.aware) == (7, 7, int(stands.sum()), int(stands.sum()))
    behind = defended(net, BitDepth(3))
    stands = right(behind, images) & right(behind, found.images[0]) & right(behind, found.images[1])
    aware = attack(behind, images, labels)
    knowing = right(behind, images) & right(behind, aware.images[0]) & right(behind, aware.images[1])
    assert (bits.clean, bits.attacked, bits.aware) == (
        int(right(behind, images)[1:].sum()),
        int(stands[1:].sum()),
        int(knowing[1:].sum()),
    )
    assert f"right on {bits.clean} of 7" in bits.words()
    halves = [
        controls(net, attack, images[half], labels[half], defences=[BitDepth(3)]) for half in (slice(4), slice(4, 8))
    ]
    assert tuple(first + second for first, second in zip(*halves, strict=True)) == (none, bits)


@dataclass(frozen=True)
class Negative(Defence):
    """The negative of an image, or with another draw the image itself."""

    draws: bool = False
    negative: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        return 1 - images if self.negative else images

    def redrawn(self) -> Negative:
        return Negative(self.draws, negative=not self.draws)


class Lightness(nn.Module):
    """Answers whether an image is dark or light."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


@pytest.mark.parametrize(
    ("defence", "row"),
    [
        (Negative(), (1, 0, 0, 0)),
        # attacked is the negative, which has the light image wrong from the start: that another draw has it right is no feat
        (Negative(draws=True), (1, 1, 1, 0)),
    ],
)
def test_what_was_never_attacked_has_not_withstood(defence: Defence, row: tuple[int, ...]) -> None:
    net = Classifier(Lightness(), size=4, check=False)
    images = torch.stack([torch.full((3, 4, 4), 0.8), torch.full((3, 4, 4), 0.2)])
    # the second image is wrong on the bare model, and right behind its negative: no attack was ever made on it
    none, found = controls(net, FGSM(eps=(0.01,), refine=0), images, [1, 1], defences=[defence])
    assert (none.of, none.clean, none.attacked, none.aware) == (1, 1, 1, 1)
    assert (found.of, found.clean, found.attacked, found.aware) == row


def test_what_rounding_undoes_counts_as_fooled_nowhere() -> None:
    """As in the attack's own table; and an image that fools only once it is rounded is none of those either."""
    torch.manual_seed(0)
    linear = nn.Linear(48, 2)
    image, across = as_saved(torch.full((1, 3, 4, 4), 0.5)), linear.weight[0].detach() - linear.weight[1].detach()
    net = Classifier(nn.Sequential(nn.Flatten(), linear), size=4, check=False)
    for distance, size, plain, stand in ((0.05, 0.4, True, (1, 1)), (0.8, 0.6, False, (1, 0))):
        with torch.no_grad():
            linear.bias.copy_(
                torch.stack([distance / 255 * across.abs().sum() - image.flatten() @ across, torch.zeros(())])
            )
        attack = FGSM(eps=(size / 255,), refine=0)
        found = attack(net, image)
        assert (bool(found.success.any()), bool(found.success_8bit.any())) == (plain, not plain)
        assert found.best.tolist() == [-1]
        rows = controls(net, attack, image, defences=[BitDepth(8)])
        assert [row.attacked for row in rows] == list(stand)  # one behind the defence is rounded by it


def test_a_pass_through_a_defence_is_counted_once(net: Classifier) -> None:
    images = photos(3)
    for defence in ALL:
        behind = defended(net, defence)
        with Meter() as meter:
            behind.predict(images)
        assert (meter.cost.forward, meter.cost.backward) == (3, 0)
        with Meter() as meter:
            behind.gradient(images, lambda logits, _: logits[:, 0])
        assert (meter.cost.forward, meter.cost.backward) == (3, 3)


def test_a_defended_model_of_probabilities_answers_their_logarithms() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.Softmax(1))
    net, images = Classifier(module, size=4, probabilities=True, check=False), torch.rand(2, 3, 4, 4)
    assert torch.equal(defended(net, BitDepth(2)).predict(images), net.predict(BitDepth(2)(images)))


def test_a_random_defence_is_judged_by_another_draw_than_the_one_attacked(net: Classifier) -> None:
    images = photos(24)
    labels = net.predict(images).argmax(1)
    attack = FGSM(eps=(0.02,), refine=0)
    aware = attack(defended(net, Resize(0.5)), images, labels)
    counts = []
    for seed in (1, 0):
        judge = defended(net, Resize(0.5, seed))
        right = judge.predict(images).argmax(1) == labels
        stands = right & (judge.predict(aware.images[0]).argmax(1) == labels) & ~aware.wrong_at_start
        counts.append((int(right.sum()), int(stands.sum())))
    assert counts[0] != counts[1]
    _, row = controls(net, attack, images, labels, defences=[Resize(0.5)])
    assert (row.clean, row.aware) == counts[0]


class Checkered(nn.Module):
    """Answers the strength of the finest checkerboard: gone after a median."""

    def forward(self, x: Tensor) -> Tensor:
        y, z = torch.meshgrid(torch.arange(x.shape[2]), torch.arange(x.shape[3]), indexing="ij")
        board = (x.mean(1) * ((-1.0) ** (y + z))).mean((1, 2))
        return torch.stack([0.02 - board, board], 1) * 100


def test_a_detector_sees_what_a_median_takes_away() -> None:
    net = Classifier(Checkered(), size=8, check=False)
    smooth = 0.5 + 0.2 * torch.linspace(-1, 1, 8).expand(12, 3, 8, 8) * torch.linspace(0.3, 1, 12).view(-1, 1, 1, 1)
    found = feature_squeezing(net, FGSM(eps=(0.1,))(net, smooth), [Median()])
    assert found.auc == 1
    assert found.detections(0.0) == 1
    alarms, detections = found.curve()
    assert (float(alarms[0]), float(detections[0]), float(alarms[-1]), float(detections[-1])) == (0, 0, 1, 1)


def test_the_area_is_mann_whitneys(net: Classifier) -> None:
    attacked = FGSM(eps=(0.3,))(net, photos(8))
    found = feature_squeezing(net, attacked)
    statistic = scipy.stats.mannwhitneyu(found.adversarial.numpy(), found.clean.numpy()).statistic
    assert found.auc == pytest.approx(statistic / (len(found.clean) * len(found.adversarial)))
    alarms, detections = found.curve()
    assert float(torch.trapezoid(detections, alarms)) == pytest.approx(found.auc)
    halves = [feature_squeezing(net, FGSM(eps=(0.3,))(net, photos(8)[half])) for half in (slice(4), slice(4, 8))]
    added = halves[0] + halves[1]
    torch.testing.assert_close(added.clean, found.clean, rtol=1e-3, atol=1e-4)
    assert added.squeezers == found.squeezers
    assert len(added.adversarial) == len(found.adversarial)
    kept = attacked.best >= 0
    for scores, pixels in ((found.clean, photos(8)[kept]), (found.adversarial, attacked.fooling[kept])):
        saved = as_saved(pixels)
        plain = net.predict(saved).softmax(1)
        moved = [(net.predict(each(saved)).softmax(1) - plain).abs().sum(1) for each in (BitDepth(), Median())]
        torch.testing.assert_close(scores, torch.maximum(*moved), rtol=1e-4, atol=1e-5)


def test_what_is_no_defence_is_said(net: Classifier) -> None:
    for make, words in (
        (lambda: BitDepth(0), "bits from 1 to 8"),
        (lambda: Median(4), "odd size"),
        (lambda: Jpeg(100), "quality from 1 to 95"),
        (lambda: Resize(0.0), "share of the side"),
    ):
        with pytest.raises(SpecError, match=words):
            make()
    with pytest.raises(InputError, match="nothing to detect"):
        feature_squeezing(net, FGSM(eps=(1e-6,), refine=0)(net, photos(1)))
