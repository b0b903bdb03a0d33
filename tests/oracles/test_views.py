"""What attackers may see: counted against a model that counts, capped, rounded, and nothing that was not granted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, classifier, made, photos
from seewhy.attack import (
    FGSM,
    IFGSM,
    JSMA,
    LBFGS,
    PGD,
    Attack,
    CarliniWagner,
    DeepFool,
    Goal,
    LabelsOnly,
    Scores,
    View,
    WhiteBox,
)
from seewhy.attack.base import Perturbed, size_of
from seewhy.attack.oracles import as_saved, predicted
from seewhy.attack.sizes import KEPT, nearest_found, swept
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.errors import BudgetSpent, InputError, SpecError
from seewhy.method import registry


class Counting(nn.Module):
    """Counts the images that it sees and those whose gradient is asked for, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = FAMILIES["mobilenet"]()
        self.forwards = self.backwards = 0
        self.given: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        self.given.append(x.detach())
        answer: Tensor = self.inner(x)
        if answer.requires_grad:
            answer.register_hook(self._passed)
        return answer

    def _passed(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Hidden(torch.autograd.Function):
    """Images as they are; whoever wants a gradient of them is refused."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: object, *gradient: Tensor) -> Tensor:
        raise RuntimeError("no gradient was granted")


class NoGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = FAMILIES["mobilenet"]()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(Hidden.apply(x))  # type: ignore[no-untyped-call]
        return answer


def counted() -> tuple[Classifier, Counting]:
    net = classifier(Counting(), mean=(0, 0, 0), std=(1, 1, 1))
    net.engine.batch = 16  # without one, the measurement of batch sizes makes passes of its own
    module = net.module
    assert isinstance(module, Counting)
    module.forwards = module.backwards = 0
    module.given.clear()
    return net, module


ATTACKS = sorted(registry("attack"))


@pytest.mark.parametrize("name", ATTACKS)
def test_counters_are_what_the_model_counts(name: str) -> None:
    """One image, so that no other shares its passes: queries and gradients of the attack, and the cost of all."""
    net, module = counted()
    attack, images = made(name), photos(1)
    assert isinstance(attack, Attack)
    labels = net.predict(images).argmax(1)
    view = attack.view(net).opened(1)
    with net.session():
        net.classes  # noqa: B018  known from now on
        module.forwards = module.backwards = 0
        attack.perturb(view, images, Goal(labels))
        assert view.queries.tolist() == [module.forwards]
        assert view.gradients.tolist() == [module.backwards]
    module.forwards = module.backwards = 0
    found = attack(net, images)
    assert (found.cost.forward, found.cost.backward) == (module.forwards, module.backwards)
    assert found.queries.tolist() == view.queries.tolist()
    assert found.gradients.tolist() == view.gradients.tolist()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("budget", [1, 2, 7, 30])
def test_no_attack_asks_for_more_than_its_budget(name: str, budget: int) -> None:
    net, attack = classifier(FAMILIES["mobilenet"]()), made(name)
    assert isinstance(attack, Attack)
    found = attack(attack.view(net, budget=budget), photos(3))
    assert (found.queries <= budget).all()
    assert torch.isfinite(found.images).all()


@pytest.mark.parametrize(
    "attack", [LBFGS(searches=2), CarliniWagner(searches=2, steps=30), DeepFool(), JSMA()], ids=lambda each: each.name
)
def test_a_search_that_the_budget_ended_says_so(attack: Attack[WhiteBox]) -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), as_saved(photos(3))
    said = "for 3 of 3 images the queries ended before the search"
    whole = attack(net, images)
    for budget in (1, int(whole.queries.min()) - 1):
        ended = attack(WhiteBox(net, budget=budget), images)
        assert (ended.queries <= budget).all()
        assert any(note.startswith(said) for note in ended.notes)
    enough = attack(WhiteBox(net, budget=int(whole.queries.max()) + KEPT), images)
    assert torch.equal(enough.images, whole.images)
    assert whole.notes == enough.notes == ()


@pytest.mark.parametrize("attack", [LBFGS(), CarliniWagner()], ids=lambda each: each.name)
def test_what_a_search_found_is_drawn_nearer_and_rounded_within_the_budget(attack: Attack[WhiteBox]) -> None:
    """The searches alone would take all of it."""
    net, images = classifier(FAMILIES["mobilenet"]()), as_saved(photos(4))
    found = attack(WhiteBox(net, budget=40), images)
    assert found.success[0].all()
    assert found.queries.min() > 40 - KEPT
    assert torch.equal(found.images[1], as_saved(found.images[1]))
    assert (found.best >= 0).all()


def test_a_view_refuses_to_answer_past_its_budget() -> None:
    net = classifier(FAMILIES["vgg"]())
    for view in (LabelsOnly(net, 3).opened(2), Scores(net, 3).opened(2), WhiteBox(net, 3).opened(2)):
        images, of = photos(4), torch.tensor([0, 0, 0, 1])
        view.labels(images, of)
        assert view.queries.tolist() == [3, 1]
        assert view.left.tolist() == [0, 2]
        assert view.can(torch.tensor([0, 1, 1]), 2).tolist() == [False, True, True]
        with pytest.raises(BudgetSpent, match="at most 3 queries an image, got 4 for image 1"):
            view.labels(images[:1], torch.tensor([0]))
        view.labels(images[:2], torch.tensor([1, 1]))
        assert view.queries.tolist() == [3, 3]
    with pytest.raises(SpecError, match="at least one query an image, got 0"):
        LabelsOnly(net, 0)


def test_each_view_shows_what_it_grants_and_no_more() -> None:
    net, images, of = classifier(FAMILIES["vgg"]()), photos(3), torch.arange(3)
    logits = net.predict(images)
    assert torch.equal(LabelsOnly(net).opened(3).labels(images, of), logits.argmax(1))
    torch.testing.assert_close(Scores(net).opened(3).scores(images, of), logits.log_softmax(1))
    torch.testing.assert_close(WhiteBox(net).opened(3).logits(images, of), logits)
    for view, hidden in ((LabelsOnly(net), ("scores", "logits", "gradient")), (Scores(net), ("logits", "gradient"))):
        for name in hidden:
            assert not hasattr(view, name)
    coarse = Scores(net, decimals=2).opened(3).scores(images, of).exp()
    expected = (logits.softmax(1) * 100).round() / 100
    torch.testing.assert_close(coarse, expected.clamp_min(0.005))


@pytest.mark.parametrize("name", [name for name in ATTACKS if registry("attack")[name].view is not WhiteBox])  # type: ignore[attr-defined]
def test_black_box_attacks_run_where_there_is_no_gradient(name: str) -> None:
    net = classifier(NoGradient())
    with pytest.raises(RuntimeError, match="no gradient was granted"):
        FGSM()(net, photos(1))
    found = made(name)(net, photos(1))
    assert (found.gradients == 0).all()


def test_gradients_are_autograds_and_several_share_a_pass() -> None:
    net, module = counted()
    images, of = photos(5), torch.arange(5)
    view = WhiteBox(net).opened(5)
    classes = torch.tensor([[1, 4], [0, 2], [3, 3], [2, 0], [4, 1]])
    with net.session():
        logits, gradients = view.gradient(images, of, lambda part, rows: part.gather(1, classes[rows]))
        assert (module.forwards, module.backwards) == (5, 10)
        assert view.gradients.tolist() == [2] * 5

        def largest(part: Tensor, rows: Tensor, gradient: object) -> Tensor:
            first = gradient(part.gather(1, classes[rows, :1])[:, 0], rows >= 0)  # type: ignore[operator]
            second = gradient(part.gather(1, classes[rows, 1:])[:, 0], rows == 0)  # type: ignore[operator]
            return torch.stack([first, second], 1)

        again, made_of_them = view.backwards(images, of, largest)
        assert (module.forwards, module.backwards) == (10, 20)
        assert view.gradients.tolist() == [4, 3, 3, 3, 3]
        torch.testing.assert_close(again, logits)
        torch.testing.assert_close(made_of_them, gradients)
        for column in range(2):
            leaf = images.clone().requires_grad_()
            (expected,) = torch.autograd.grad(net.logits(leaf).gather(1, classes)[:, column].sum(), leaf)
            torch.testing.assert_close(gradients[:, column], expected)


def test_several_gradients_in_any_batch_measured_or_not() -> None:
    net = classifier(FAMILIES["vgg"]())
    images = photos(1).expand(70, -1, -1, -1) * torch.linspace(0.5, 1, 70).view(-1, 1, 1, 1)
    found = []
    for batch in (None, 3, 70):
        net.engine.batch = batch
        view = WhiteBox(net).opened(70)
        with net.session():
            work = lambda part, rows, gradient: gradient(part[:, 1], rows % 2 == 0)  # noqa: E731
            found.append(view.backwards(images, torch.arange(70), work))
        assert view.queries.tolist() == [1] * 70
        assert view.gradients.tolist() == [1, 0] * 35
    for logits, gradients in found[1:]:
        torch.testing.assert_close(logits, found[0][0])
        torch.testing.assert_close(gradients, found[0][1])


def test_a_rounded_view_gives_the_model_eight_bits() -> None:
    net, module = counted()
    view = WhiteBox(net, rounded=True).opened(2)
    images, of = photos(2), torch.arange(2)
    with net.session():
        view.labels(images, of)
        view.gradient(images, of, lambda part, rows: part[:, 0])
    for given in module.given:
        torch.testing.assert_close(given * 255, (given * 255).round(), atol=1e-4, rtol=0)
        torch.testing.assert_close(given, as_saved(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("view", [LabelsOnly, Scores])
@pytest.mark.parametrize("attack", [FGSM, PGD, DeepFool])
def test_a_view_that_shows_too_little_is_refused_in_a_sentence(view: type[View], attack: type[PGD]) -> None:
    net = classifier(FAMILIES["vgg"]())
    with pytest.raises(InputError) as caught:
        attack()(view(net), photos(1))
    assert str(caught.value) == (
        f"{attack.name} needs gradients, and got a view that shows {view.sees}; give the classifier itself, or take an "
        f"attack that needs no more than {view.sees}"
    )


class Masked(nn.Module):
    """Says nothing by its gradient: it is zero for dark images and not a number for the others."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        dead = torch.where(mean < 0.5, mean * 0, (mean - mean.detach()).sqrt())
        return torch.stack([1 + dead, 0 * dead], 1)


@pytest.mark.parametrize("attack", [FGSM(), IFGSM(eps=(0.1,)), PGD(eps=(0.1,)), DeepFool()], ids=lambda each: each.name)
def test_masked_gradients_are_said(attack: Attack[WhiteBox]) -> None:
    images = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 0.8)])
    found = attack(Classifier(Masked(), size=4, check=False), images)
    assert not found.success.any()
    assert torch.isfinite(found.images).all()
    assert any("for 2 of 2 images a gradient is zero or not a number" in note for note in found.notes)


@pytest.mark.parametrize("name", ATTACKS)
def test_that_nothing_was_there_to_attack_is_said(name: str) -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(2)
    labels = (net.predict(images).argmax(1) + 1) % 5
    found = made(name)(net, images, labels)
    assert found.wrong_at_start.all()
    assert not found.success.any()
    assert any("every image is misclassified from the start" in note for note in found.notes)
    assert found.queries.tolist() == [0, 0]


def test_levels_that_repeat_an_image_are_judged_once() -> None:
    net, module = counted()
    images = as_saved(photos(2))
    found = IFGSM(eps=(1.0, 0.9, 0.8), step=1, steps=1, refine=0)(net, images)
    assert found.success_8bit[0].all()
    # the clean image, two looks, the rounded one unless it is the same, and the judgement of one level of three
    assert module.forwards <= 2 * (1 + 2 + 1 + 2)
    judged = net.predict(found.images.flatten(0, 1)).unflatten(0, (3, 2))
    torch.testing.assert_close(found.probabilities, judged.softmax(-1))
    saved = net.predict(as_saved(found.images.flatten(0, 1))).argmax(1).unflatten(0, (3, 2))
    assert torch.equal(found.success_8bit, saved != found.labels)


def test_swept_tries_sizes_until_the_first_success_and_narrows_it_down() -> None:
    pixels, needed = torch.zeros(4, 3, 1, 1), torch.tensor([0.05, 0.25, 0.9, 0.3])
    tried: list[tuple[int, float]] = []

    def within(rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tried.extend(zip(rows.tolist(), sizes.tolist(), strict=True))
        return sizes.view(-1, 1, 1, 1).expand(-1, 3, 1, 1), sizes >= needed[rows], rows >= 0

    found = swept(within, pixels, (0.1, 0.3, 0.5), refine=6)
    assert found.notes == ()
    assert found.untried is not None
    assert not found.untried.any()
    torch.testing.assert_close(found.eps[:3], torch.tensor([0.1, 0.3, 0.5])[:, None].expand(-1, 4))
    torch.testing.assert_close(found.images[:3, 0, 0, 0, 0], torch.tensor([0.1, 0.1, 0.1]))
    torch.testing.assert_close(found.images[:3, 1, 0, 0, 0], torch.tensor([0.1, 0.3, 0.3]))
    torch.testing.assert_close(found.images[:3, 2, 0, 0, 0], torch.tensor([0.1, 0.3, 0.5]))
    for row, low in ((0, 0.0), (1, 0.1), (3, 0.1)):
        assert needed[row] <= found.eps[3, row] <= needed[row] + (0.3 - low) / 2**6
    assert found.eps[3, 2] == 0.5
    assert sum(row == 2 for row, _ in tried) == 3
    assert sum(row == 0 for row, _ in tried) == 1 + 6


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nearest_found_has_a_level_for_each_size_on_the_way(norm: str) -> None:
    pixels = photos(3)
    found = (pixels + torch.tensor([0.0, 0.01, 0.2]).view(-1, 1, 1, 1) * torch.randn(3, 24, 24)).clamp(0, 1)
    own = size_of(found - pixels, norm)
    eps = (float(own[1]) * 5, float(own[1]) * 3, float(own[1]) / 2)
    answer: Perturbed = nearest_found(found, pixels, eps, norm)
    assert torch.equal(answer.images[-1], found)
    torch.testing.assert_close(answer.eps[-1], own)
    for level, size in enumerate(sorted(eps)):
        torch.testing.assert_close(answer.eps[level], torch.full((3,), size))
        torch.testing.assert_close(
            size_of(answer.images[level] - pixels, norm), own.clamp_max(size), rtol=1e-4, atol=1e-6
        )
        near = own <= size
        torch.testing.assert_close(answer.images[level, near], found[near])
    saved = (pixels + 4 * (found - pixels)).clamp(0, 1)
    both = nearest_found(found, pixels, eps, norm, saved)
    assert torch.equal(both.images[-1], saved)
    far = size_of(saved - pixels, norm)
    torch.testing.assert_close(both.eps[-2:], torch.stack([own, far]))
    for level, size in enumerate(sorted(eps)):
        assert torch.equal(both.images[level, far <= size], saved[far <= size])
        torch.testing.assert_close(both.images[level, far > size], answer.images[level, far > size])


class Poisoned(nn.Module):
    """Answers what is no number for every image that is not grey all over."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        plain = torch.stack([1 + mean[:, 0], mean[:, 1], mean[:, 2], mean[:, 0] / 2, mean[:, 1] / 3], 1)
        changed = (x - 0.5).abs().amax((1, 2, 3)) > 1e-5
        nan = torch.zeros_like(plain)
        nan[changed, 3] = torch.nan
        return plain + nan


@pytest.mark.parametrize("name", ATTACKS)
def test_an_answer_that_is_no_number_is_no_success(name: str) -> None:
    net, images = classifier(Poisoned(), mean=(0, 0, 0), std=(1, 1, 1), check=False), torch.full((2, 3, 24, 24), 0.5)
    for target in (None, 3):
        found = made(name)(net, images, target=target)
        assert not found.wrong_at_start.any()
        assert not found.success.any()
        assert not found.success_8bit.any()
        assert torch.isfinite(found.images).all()
        assert any("for 2 of 2 images the model answered a changed one with logits" in note for note in found.notes)


def test_a_model_may_exclude_classes_by_minus_infinity() -> None:
    logits = torch.tensor([[1.0, -torch.inf], [1, torch.nan], [torch.inf, 0], [-torch.inf, -torch.inf], [0, 2]])
    assert predicted(logits).tolist() == [0, -1, -1, -1, 1]
    assert Goal(torch.tensor([1] * 5)).reached(predicted(logits)).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("name", ATTACKS)
def test_doubles_and_pixels_a_rounding_past_one_are_attacked_as_they_are_meant(name: str) -> None:
    net = classifier(FAMILIES["mobilenet"]())
    plain = photos(2)
    plain[:, :, 0, 0], plain[:, :, 0, 1] = 0, 1
    images = plain.double()
    images[:, :, 0, 0] -= 5e-7
    images[:, :, 0, 1] += 5e-7
    found, meant = made(name)(net, Images(images, ("a", "b"))), made(name)(net, plain)
    assert torch.equal(found.original.pixels, plain)
    assert found.images.dtype == torch.float32
    assert torch.equal(found.images, meant.images)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.original.names == ("a", "b")
