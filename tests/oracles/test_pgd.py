"""The iterated attacks within a size: against steps written out by hand, rules on made-up sequences, and their own promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import FAMILIES, classifier, photos
from seewhy.attack import APGD, FGSM, IFGSM, MIFGSM, PGD, Attack, Goal, WhiteBox
from seewhy.attack.apgd import checkpoints, logit_ratio, self_tuned
from seewhy.attack.base import size_of
from seewhy.attack.compare import compare
from seewhy.attack.iterated import State, log_odds
from seewhy.classifier import Classifier
from seewhy.errors import InputError, SpecError

SIZE = 4 / 255
EACH = [IFGSM(), PGD(), MIFGSM(), APGD(steps=12), APGD(steps=12, loss="dlr")]


def stubborn(classes: int = 4, bent: float = 1) -> Classifier:
    """A smooth model that no small change fools, so that every step is made; the more `bent`, the more its gradient turns."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, classes))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
        module.get_parameter("1.weight").mul_(bent)
        module.get_parameter("3.bias")[1] += 30
    return Classifier(module, size=4, check=False)


def grey(count: int = 4) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(4))


def slope(net: Classifier, images: Tensor, label: int, target: int | None = None) -> Tensor:
    """The gradient of the cross-entropy that the attack raises (or, towards a target, of the one it lowers, negated)."""
    leaf = images.double().requires_grad_()
    module = net.module.double()
    wanted = torch.full((len(images),), label if target is None else target)
    loss = F.cross_entropy(module(leaf), wanted, reduction="sum")
    (gradient,) = torch.autograd.grad(loss if target is None else -loss, leaf)
    net.module.float()
    return gradient.float()


@pytest.mark.parametrize("target", [None, 3])
def test_one_step_from_the_image_is_fgsm(target: int | None) -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(5)
    labels = net.predict(images).argmax(1)
    keep = labels != target if target is not None else torch.ones(5, dtype=torch.bool)
    images = images[keep]
    for norm in ("linf", "l2"):
        size = SIZE if norm == "linf" else 0.5
        one = FGSM(eps=(size,), norm=norm, refine=0)(net, images, target=target)
        for attack in (
            IFGSM((size,), norm, steps=1, step=1, refine=0),
            MIFGSM((size,), norm, steps=1, step=1, refine=0),
        ):
            other = attack(net, images, target=target)
            same = (one.images[0] - other.images[0]).abs().flatten(1)
            # a gradient of nearly nothing may have either sign
            assert ((same < 1e-6).float().mean(1) > 0.999).all()


@pytest.mark.parametrize("target", [None, 2])
def test_momentum_adds_up_gradients_of_length_one(target: int | None) -> None:
    net, images = stubborn(bent=5), grey()
    found = MIFGSM(eps=(0.4,), steps=3, step=0.5, momentum=0.9, refine=0)(net, images, target=target)
    assert not found.success.any()
    changed, g = images, torch.zeros_like(images)
    for _ in range(3):
        gradient = slope(net, changed, 1, target)
        g = 0.9 * g + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        changed = (images + (changed + 0.5 * 0.4 * g.sign() - images).clamp(-0.4, 0.4)).clamp(0, 1)
    torch.testing.assert_close(found.images[0], changed)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_plain_steps_go_along_cross_entropys_gradient_where_that_has_gone(norm: str) -> None:
    net, images = stubborn(), grey()  # in float32 the cross-entropy is zero here, and so is its gradient
    leaf = images.clone().requires_grad_()
    (dead,) = torch.autograd.grad(F.cross_entropy(net.logits(leaf), torch.ones(4, dtype=torch.long)), leaf)
    assert dead.abs().max() < 1e-10
    size = 0.1 if norm == "linf" else 0.6
    found = IFGSM((size,), norm, steps=4, step=0.5, refine=0)(net, images)
    changed = images
    for _ in range(4):
        gradient = slope(net, changed, 1)
        way = gradient.sign() if norm == "linf" else gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        moved = changed + 0.5 * size * way - images
        if norm == "linf":
            moved = moved.clamp(-size, size)
        else:
            moved = moved * (size / moved.flatten(1).norm(dim=1)).clamp_max(1).view(-1, 1, 1, 1)
        changed = (images + moved).clamp(0, 1)
    torch.testing.assert_close(found.images[0], changed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attack", EACH, ids=lambda each: each.spec)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_all_stay_in_the_ball_and_keep_their_word(attack: Attack[WhiteBox], norm: str) -> None:
    net, images = classifier(FAMILIES["efficientnet"]()), photos(4)
    eps = (2 / 255, 8 / 255) if norm == "linf" else (0.2, 1.0)
    found = replace(attack, eps=eps, norm=norm)(net, images)  # type: ignore[call-arg]
    assert (size_of(found.images - images, norm) <= found.eps * (1 + 1e-5) + 1e-6).all()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert (found.success[-1] >= found.success[0]).all()


@pytest.mark.parametrize("attack", EACH, ids=lambda each: each.spec)
def test_a_curve_is_what_each_size_gives_alone(attack: Attack[WhiteBox]) -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(5)
    eps = (1 / 255, 3 / 255, 9 / 255, 27 / 255)
    curve = replace(attack, eps=eps, refine=0)(net, images)  # type: ignore[call-arg]
    assert 0 < curve.success.sum() < curve.success.numel()
    for level, size in enumerate(eps):
        alone = replace(attack, eps=(size,), refine=0)(net, images)  # type: ignore[call-arg]
        assert torch.equal(alone.success[0], curve.success[level])
        fresh = ~curve.success_8bit[:level].any(0)
        torch.testing.assert_close(alone.images[0, fresh], curve.images[level, fresh], rtol=1e-4, atol=1e-4)


def test_the_smallest_size_lies_below_the_first_success() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(5)
    eps = (1 / 255, 9 / 255, 27 / 255)
    found = IFGSM(eps, refine=5)(net, images)
    fooled = found.success_8bit[:3].any(0)
    assert fooled.any()
    first = found.success_8bit[:3].int().argmax(0)
    low, high = torch.tensor((0.0, *eps))[first], torch.tensor(eps)[first]
    assert (found.eps[3] <= high)[fooled].all()
    assert (found.eps[3] > low)[fooled].all()
    assert found.success[3, fooled].all()
    assert found.success_8bit[3, fooled].all()


def test_restarts_are_never_worse_and_only_for_those_not_fooled() -> None:
    net, images = classifier(FAMILIES["hardswish"]()), photos(12)
    one = PGD((6 / 255,), steps=3, restarts=1, refine=0)(net, images)
    many = PGD((6 / 255,), steps=3, restarts=6, refine=0)(net, images)
    assert (many.success >= one.success).all()
    done = one.success_8bit[0]
    assert done.any()
    assert torch.equal(many.gradients[done], one.gradients[done])
    assert torch.equal(many.images[0, done], one.images[0, done])
    assert (many.gradients[~many.success_8bit[0]] == 6 * 3).all()


def test_another_seed_starts_elsewhere_and_starts_fill_the_ball() -> None:
    net, images = stubborn(), grey()
    for norm, size in (("linf", 0.1), ("l2", 1.0)):
        first, other = (PGD((size,), norm, steps=1, step=1e-9, refine=0, seed=seed)(net, images) for seed in (0, 1))
        assert not torch.equal(first.images, other.images)
        moved = size_of(first.images[0] - images, norm)
        assert (moved > 0.85 * size).all()
        assert (moved <= size * (1 + 1e-5)).all()


def test_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]


def test_the_step_is_halved_by_the_two_rules_and_the_search_goes_on_from_the_best() -> None:
    """Three images with made-up losses: one gains at every step, one never, one at first only."""
    steps = 10  # looked at after 3, 5, 6, 7, 8 and 9 steps
    move = self_tuned("linf", steps)
    pixels = torch.full((3, 3, 1, 1), 0.5)
    state: State = {"pixels": pixels, "sizes": torch.full((3,), 0.4)}
    losses = torch.tensor([[0.0, 1, 2, 3, 4, 5, 6], [0, -1, -2, -3, -4, -5, -6], [0, 5, 6, 7, 1, 1, 1]]).T
    lengths, images, way = [], pixels, torch.ones_like(pixels)
    for step in range(7):
        state["seen"] = images
        images = move(images, way, losses[step], state, step)
        lengths.append(state["length"].tolist())
        if step == 3:  # the second has gained nothing: it goes on from its best, the first image
            z = (pixels[1] + state["length"][1]).clamp(0.1, 0.9)
            torch.testing.assert_close(
                images[1], (pixels[1] + 0.75 * (z - pixels[1]) + 0.25 * (pixels[1] - 0.9)).clamp(0.1, 0.9)
            )
    assert [each[0] for each in lengths] == pytest.approx([0.8] * 7)
    assert [each[1] for each in lengths] == pytest.approx([0.8] * 3 + [0.4] * 2 + [0.2, 0.1])
    assert [each[2] for each in lengths] == pytest.approx([0.8] * 5 + [0.4, 0.2])


def test_an_unmoved_best_halves_the_step_although_losses_rise() -> None:
    """The second rule alone: every step of the stage gains, but none beats the best, and the last stage halved nothing."""
    move = self_tuned("linf", 10)
    pixels = torch.full((1, 3, 1, 1), 0.5)
    state: State = {"pixels": pixels, "sizes": torch.full((1,), 0.4)}
    images, lengths = pixels, []
    for step, loss in enumerate([0.0, 1, 2, 9, 3, 4, 5]):
        if step == 4:
            state["last"] = torch.tensor([2.5])  # so that the fall from 9 to 3 counts as a gain too
        images = move(images, torch.ones_like(images), torch.tensor([loss]), state, step)
        lengths.append(float(state["length"]))
    assert lengths == pytest.approx([0.8] * 5 + [0.4, 0.4])  # not twice in a row by this rule


def test_losses_in_closed_form() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5, -2.0], [1.0, 4.0, 2.0, 0.0]])
    goal = Goal(torch.tensor([0, 2]))
    torch.testing.assert_close(logit_ratio(logits, goal), -torch.tensor([(3 - 1) / (3 - 0.5), (2 - 4) / (4 - 1.0)]))
    towards = Goal(torch.tensor([0, 2]), torch.tensor([2, 0]))
    expected = -torch.tensor([(3 - 0.5) / (3 - (0.5 - 2) / 2), (2 - 1) / (4 - (1 + 0.0) / 2)])
    torch.testing.assert_close(logit_ratio(logits, towards), expected)
    probabilities = logits.double().softmax(1)
    own = probabilities.gather(1, goal.labels[:, None])[:, 0]
    torch.testing.assert_close(log_odds(logits, goal).double(), ((1 - own) / own).log(), rtol=1e-5, atol=1e-6)
    own = probabilities.gather(1, towards.named[:, None])[:, 0]
    torch.testing.assert_close(log_odds(logits, towards).double(), (own / (1 - own)).log(), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="at least 3 classes"):
        logit_ratio(logits[:, :2], goal)


@pytest.mark.parametrize("attack", [IFGSM, PGD, MIFGSM, APGD])
def test_settings_that_cannot_be_meant(attack: type[PGD]) -> None:
    for settings, words in (
        ({"eps": (-0.1,)}, "eps > 0"),
        ({"eps": (8.0,)}, "did you mean 8/255"),
        ({"norm": "l0"}, "norm linf or l2"),
        ({"steps": 0}, "steps ≥ 1"),
        ({"refine": -1}, "refine ≥ 0"),
    ):
        with pytest.raises(SpecError, match=words):
            attack(**settings)
    with pytest.raises(SpecError, match="step > 0"):
        PGD(step=0)
    with pytest.raises(SpecError, match="restarts ≥ 1"):
        PGD(restarts=0)
    with pytest.raises(SpecError, match="momentum"):
        MIFGSM(momentum=-1)
    with pytest.raises(SpecError, match="loss ce or dlr"):
        APGD(loss="mse")


@pytest.mark.parametrize("attack", EACH, ids=lambda each: each.spec)
def test_a_budget_that_ends_leaves_out_what_was_not_tried(attack: Attack[WhiteBox]) -> None:
    net, images = stubborn(), grey(3)
    eps = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    walk = replace(attack, eps=eps, steps=4)  # type: ignore[call-arg]
    whole = walk(net, images)
    assert not whole.untried.any()
    assert (whole.queries == 20).all()  # five looks at each size
    ended = walk(WhiteBox(net, budget=13), images)  # the third size is not walked to its end
    levels = len(ended.eps)
    assert ended.untried[:, 0].tolist() == [False, False, *[True] * (levels - 2)]
    assert ended.eps[:, 0].tolist() == pytest.approx([1 / 255, *[2 / 255] * (levels - 1)])
    for level in range(1, levels):
        assert torch.equal(ended.images[level], whole.images[1])
    assert any("the queries did not suffice to try 6 of 12 sizes" in note for note in ended.notes)
    assert compare([whole]).tried.tolist() == pytest.approx([8 / 255])
    assert compare([ended]).tried.tolist() == pytest.approx([2 / 255])
    assert ended.curve(0)[0].max() == ended.eps.max()


def test_a_smallest_size_that_queries_did_not_narrow_down_is_said() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(5)
    found = IFGSM((1 / 255, 27 / 255), steps=4, refine=5)(net, images)
    fooled = found.success_8bit[1]
    assert fooled.any()
    less = IFGSM((1 / 255, 27 / 255), steps=4, refine=5)(WhiteBox(net, budget=12), images)
    assert "the queries left did not suffice to narrow down the smallest size" in less.notes
    assert (less.eps[2] >= found.eps[2])[fooled].all()
    assert (less.success_8bit[2] == less.success_8bit[1]).all()
