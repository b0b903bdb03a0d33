"""FGSM against closed forms on a linear classifier, and its bookkeeping against plain forward passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets import FAMILIES, classifier, photos
from seewhy.attack import FGSM, JSMA, PGD, DeepFool
from seewhy.attack.base import COPIES, _place
from seewhy.classifier import Classifier
from seewhy.errors import InputError, SpecError


def linear(classes: int = 2) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, classes)), size=4, check=False)


def mid_grey(count: int) -> torch.Tensor:
    """Images away from black and white, so that nothing is clipped."""
    return 0.4 + 0.2 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_smallest_size_is_the_margin_over_the_l1_norm_on_a_linear_model() -> None:
    net, images = linear(), mid_grey(6)
    weight, bias = net.module.get_parameter("1.weight").detach(), net.module.get_parameter("1.bias").detach()
    logits = images.flatten(1) @ weight.T + bias
    margin = (logits[:, 0] - logits[:, 1]).abs()
    exact = margin / (weight[0] - weight[1]).abs().sum()
    found = FGSM(refine=14)(net, images)
    reachable = exact < 32 / 255
    assert reachable.any()
    assert found.success[-2, reachable].all()
    torch.testing.assert_close(found.eps[-2, reachable], exact[reachable], rtol=1e-3, atol=1e-5)
    # what must also hold after rounding to 8 bits may need a little more
    assert (found.smallest_eps[reachable] >= exact[reachable] - 1e-6).all()
    assert (found.smallest_eps[reachable] <= exact[reachable] + 1.5 / 255).all()
    assert found.smallest_eps[~reachable].isinf().all()
    assert not found.success[:, ~reachable].any()


def test_steps_are_the_sign_of_the_gradient_clipped_to_pixels() -> None:
    net, images = linear(3), torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    weight = net.module.get_parameter("1.weight").detach()
    net.module.get_parameter("1.bias").data[0] += 3  # all are of class 0: what is wrong at the start is not attacked
    found = FGSM(eps=(0.05,), refine=0)(net, images, labels=0)
    probabilities = net.predict(images).softmax(1)
    onehot = torch.tensor([1.0, 0, 0])
    sign = ((probabilities - onehot) @ weight).sign().view(4, 3, 4, 4)  # of the cross-entropy of a linear softmax
    torch.testing.assert_close(found.images[0], (images + 0.05 * sign).clamp(0, 1))

    towards = FGSM(eps=(0.05,), refine=0)(net, images, labels=0, target=2)
    sign = -((probabilities - torch.tensor([0, 0, 1.0])) @ weight).sign().view(4, 3, 4, 4)
    torch.testing.assert_close(towards.images[0], (images + 0.05 * sign).clamp(0, 1))
    assert torch.equal(towards.success[0], (towards.predictions[0] == 2) & ~towards.wrong_at_start)


def test_every_number_is_true_of_the_images_that_come_back() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(5)
    labels = net.predict(images).argmax(1)
    labels[4] = (labels[4] + 1) % 5  # one image that is wrong from the start
    found = FGSM()(net, images, labels)
    assert found.wrong_at_start.tolist() == [False, False, False, False, True]
    assert not found.success[:, 4].any()
    for level in range(len(found.eps)):
        changed = found.images[level]
        assert changed.min() >= 0
        assert changed.max() <= 1
        judged = net.predict(changed)
        torch.testing.assert_close(found.probabilities[level], judged.softmax(1))
        assert torch.equal(found.success[level], (judged.argmax(1) != labels) & ~found.wrong_at_start)
        saved = (changed * 255).round().byte()
        again = net.predict(saved.float() / 255).argmax(1)
        assert torch.equal(found.success_8bit[level], (again != labels) & ~found.wrong_at_start)
        difference = changed - images
        assert (difference.abs().amax((1, 2, 3)) <= found.eps[level] + 1e-6).all()
        torch.testing.assert_close(found.distances["linf"][level], difference.abs().amax((1, 2, 3)))
        torch.testing.assert_close(found.distances["l2"][level], difference.flatten(1).norm(dim=1))
        torch.testing.assert_close(found.distances["rms"][level], difference.flatten(1).square().mean(1).sqrt())
        l0 = (difference != 0).any(1).flatten(1).float().mean(1)
        torch.testing.assert_close(found.distances["l0"][level], l0)
    for index, size in enumerate(found.smallest_eps.tolist()):
        good = found.success[:, index] & found.success_8bit[:, index]
        assert size == (float(found.eps[good, index].min()) if good.any() else float("inf"))
    eps, curve = found.curve(0)
    assert eps[0] == 0
    assert (eps.diff() >= 0).all()
    torch.testing.assert_close(curve[0], net.predict(images[:1]).softmax(1)[0])
    fair = ~found.wrong_at_start
    torch.testing.assert_close(found.success_rate(), found.success[:, fair].float().mean(1))


def test_a_saturated_model_is_said_to_be_so() -> None:
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.mean((2, 3)) * 0) + torch.tensor([1.0, 0, 0])

    found = FGSM()(Classifier(Flat(), size=4, check=False), torch.rand(2, 3, 4, 4))
    assert "gradient is zero" in found.notes[0]
    assert found.smallest_eps.isinf().all()


def test_bad_sizes_and_targets_are_refused() -> None:
    with pytest.raises(SpecError, match="sizes eps"):
        FGSM(eps=(0.0,))
    with pytest.raises(InputError, match="other than the true class"):
        FGSM()(linear(), mid_grey(2), labels=1, target=1)


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_confident_model_is_attacked_along_the_same_direction(norm: str, target: int | None) -> None:
    """Of a linear model, in double precision; in single precision the true class has a probability of exactly one."""
    net, images = linear(3), mid_grey(4)
    images = images.mean(0) + 0.2 * (images - images.mean(0))
    with torch.no_grad():
        weight, bias = net.module.get_parameter("1.weight"), net.module.get_parameter("1.bias")
        weight.mul_(60)
        bias.copy_(torch.tensor([26.0, 4, 0]) - weight @ images.mean(0).flatten())
    logits = (images.flatten(1).double() @ weight.double().T + bias.double()).detach()
    assert (logits.float().softmax(1)[:, 0] == 1).all()
    assert (logits.argmax(1) == 0).all()
    wanted = torch.zeros(4, dtype=torch.long) if target is None else torch.full((4,), target)
    slope = (logits.softmax(1) - F.one_hot(wanted, 3)) @ weight.double()  # of the cross-entropy
    way = (slope if target is None else -slope).view_as(images)
    step = way.sign() if norm == "linf" else way / way.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = FGSM(eps=(0.05,), norm=norm, refine=0)(net, images, labels=0, target=target)
    torch.testing.assert_close(found.images[0], images + 0.05 * step.float(), rtol=0, atol=1e-6)


def test_a_number_in_the_place_of_sizes_is_refused_in_a_sentence() -> None:
    for make in (FGSM, PGD, DeepFool, JSMA):
        with pytest.raises(SpecError, match=r"a tuple of sizes, as in eps=\(8/255,\), got the number 0.0313"):
            make(eps=8 / 255)  # type: ignore[arg-type]


def test_an_attack_goes_to_a_gpu_that_has_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, gpu = torch.zeros(1, 3, 4, 4), torch.device("cuda:1")
    for free, place in ((2 * COPIES * pixels.nbytes, gpu), (2 * COPIES * pixels.nbytes - 2, torch.device("cpu"))):
        monkeypatch.setattr(torch.cuda, "mem_get_info", {gpu: (free, 2**40)}.__getitem__)
        assert _place(gpu, pixels) == place
    assert _place(torch.device("mps"), pixels) == _place(torch.device("cpu"), pixels) == torch.device("cpu")
