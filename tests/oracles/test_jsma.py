"""JSMA's saliency map against the full Jacobian by autograd, and its search for a pair against all pairs."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from nets import FAMILIES, classifier, photos
from seewhy.attack import JSMA, WhiteBox
from seewhy.attack.jsma import best_one, best_pair
from seewhy.attack.oracles import as_saved
from seewhy.classifier import Classifier
from seewhy.errors import SpecError


def all_pairs(rise: Tensor, fall: Tensor) -> Tensor:
    """The table (N, n, n) of what each pair is worth: the product of two positive sums, else 0."""
    x, y = (each.double()[:, :, None] + each.double()[:, None] for each in (rise, fall))
    return torch.where((x > 0) & (y > 0), x * y, 0) * (1 - torch.eye(rise.shape[1], dtype=torch.double))


@pytest.mark.parametrize(
    "kind", ["independent", "alike", "opposed", "few values", "almost all negative", "some kept out"]
)
def test_best_pair_is_the_best_of_all(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    for size in (1, 2, 3, 5, 8, 13, 40, 90) * 12:
        rise, fall = torch.randn(2, 4, size, generator=draw)
        if kind == "alike":
            fall = rise + 0.1 * fall
        elif kind == "opposed":
            fall = 0.05 * fall - rise
        elif kind == "few values":
            rise, fall = (rise * 2).round(), (fall * 2).round()
        elif kind == "almost all negative":
            rise, fall = rise - 2, fall - 1.5
        elif kind == "some kept out":
            out = torch.rand(rise.shape, generator=draw) < 0.6
            rise, fall = rise.masked_fill(out, -torch.inf), fall.masked_fill(out, -torch.inf)
        value, pair = best_pair(rise, fall)
        worth = all_pairs(rise.clamp_min(-1e9), fall.clamp_min(-1e9))
        torch.testing.assert_close(value, worth.flatten(1).amax(1), rtol=1e-5, atol=1e-12)
        for row in (value > 0).nonzero()[:, 0].tolist():
            i, j = pair[row].tolist()
            torch.testing.assert_close(worth[row, i, j], value[row])


def test_best_pair_of_many_features_needs_no_table() -> None:
    """150,528 features whose pairs almost cancel; the table of all pairs would take 181 GB."""
    draw = torch.Generator().manual_seed(1)
    rise, noise = torch.randn(2, 1, 3 * 224 * 224, generator=draw)
    fall = 0.05 * noise - rise
    started = time.perf_counter()
    value, pair = best_pair(rise, fall)
    assert time.perf_counter() - started < 10
    chosen = rise[0, pair[0]].double().sum() * fall[0, pair[0]].double().sum()
    torch.testing.assert_close(value[0], chosen)
    for one in pair[0].tolist():  # no other partner is better for either
        x, y = rise[0].double() + rise[0, one].double(), fall[0].double() + fall[0, one].double()
        worth = torch.where((x > 0) & (y > 0), x * y, 0)
        worth[one] = 0
        assert worth.max() <= value[0] * (1 + 1e-9)


def test_best_one_is_the_saliency_maps_maximum() -> None:
    rise, fall = torch.tensor([[3.0, -5, 1, 2], [-1, -1, -1, -1]]), torch.tensor([[1.0, -5, 9, 2], [1, 2, 3, 4]])
    value, chosen = best_one(rise, fall)
    assert value.tolist() == [9, 0]
    assert chosen[0].item() == 2


@pytest.mark.parametrize("theta", [1.0, -0.3])
@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("pairs", [True, False])
def test_a_step_changes_what_the_full_jacobian_says(theta: float, targeted: bool, pairs: bool) -> None:
    """Equations 8 to 10 of the paper, from all classes' gradients and a table of all pairs."""
    net, images = (
        classifier(FAMILIES["efficientnet"](), size=12),
        torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(2)),
    )
    labels = net.predict(images).argmax(1)
    target = (labels + 1) % 5
    found = JSMA(theta=theta, pairs=pairs, steps=1)(net, images, labels, target if targeted else None)
    net.module.eval()
    named = target if targeted else labels
    for row in range(3):
        full = jacobian(lambda x: net.logits(x)[0], images[row : row + 1]).flatten(1)  # (5, n)
        alpha, beta = full[named[row]], full.sum(0) - full[named[row]]
        up = (theta > 0) == targeted  # raising the named class by raising pixels, or both the other way round
        first, second = (alpha, -beta) if up else (-alpha, beta)
        if pairs:
            place = int(all_pairs(first[None], second[None]).argmax())
            wanted = {place // len(alpha), place % len(alpha)}
        else:
            wanted = {int(torch.where((first > 0) & (second > 0), first * second, 0).argmax())}
        changed = (found.images[0, row] != images[row]).flatten().nonzero()[:, 0]
        assert set(changed.tolist()) == wanted
        expected = (images[row].flatten()[changed] + theta).clamp(0, 1)
        assert torch.equal(found.images[0, row].flatten()[changed], expected)


def test_two_gradients_a_step_whatever_the_number_of_classes() -> None:
    for classes in (5, 200):
        torch.manual_seed(0)
        net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(432, classes)), size=12, check=False)
        images = as_saved(torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(3)))
        labels = net.predict(images).argmax(1)
        found = JSMA(gamma=1.0)(net, images, labels, (labels + classes // 2) % classes)
        assert found.success.all()
        assert found.queries.min() >= 2
        assert found.queries.max() > 5
        assert torch.equal(found.gradients, 2 * found.queries)
        assert found.cost.backward == int(found.gradients.sum())
        steps = found.queries - 1  # the last pass has seen that it is over
        changed = (found.images[0] != images).flatten(1).sum(1)
        assert torch.equal(changed, 2 * steps)
        assert found.distances["l0"].max() < 1


def test_several_pairs_of_one_map_are_those_of_single_steps_where_slopes_do_not_change() -> None:
    torch.manual_seed(0)
    net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(432, 6)), size=12, check=False)
    images = as_saved(torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(3)))
    labels = net.predict(images).argmax(1)
    target = net.predict(images).argmin(1)
    for pairs in (True, False):
        one, four = (JSMA(gamma=0.025, pairs=pairs, at_once=count)(net, images, labels, target) for count in (1, 4))
        assert not one.success.any()  # all its changes were made
        assert torch.equal(one.images, four.images)
        tries = [
            -(-one.queries // 4) + 1,
            -(-one.queries // 2) + 1,
            one.queries,
        ]  # and a look at what the first two came to
        assert torch.equal(four.queries, torch.stack(tries).sum(0))
    one, four = (JSMA(gamma=1.0, at_once=count)(net, images, labels, target) for count in (1, 4))
    assert four.success.all()
    changed, more = ((found.images[0] != images).flatten(1) for found in (one, four))
    assert (changed <= more).all()
    assert ((more.sum(1) - changed.sum(1)) < 8).all()
    assert (four.queries <= one.queries // 4 + 2).all()


def test_what_many_pairs_of_one_map_do_not_fool_is_tried_with_fewer() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(8)[:2]
    labels, far = net.predict(images).argmax(1), net.predict(images).argmin(1)
    one, many = JSMA(gamma=0.05), JSMA(gamma=0.05, at_once=16)
    steps = int(0.05 * images[0].numel() / 2)
    first = many(WhiteBox(net, budget=-(-steps // 16) + 1), images, labels, far)
    assert one(net, images, labels, far).success[-1].tolist() == [True, False]
    assert first.success[-1].tolist() == [False, False]
    found = many(net, images, labels, far)
    assert found.success[-1].tolist() == [True, False]
    assert found.queries[0] < found.queries[1] <= many.passes[0]
    for size in (0.005, 0.01, 0.02, 0.04):  # the pixels that its last try changed first, and none of another's
        few = JSMA(gamma=0.05, at_once=16, eps=(size,))(net, images, labels, far)
        changed = (few.images[0, 0] != images[0]).any(0)
        assert int(changed.sum()) == int(size * changed.numel())
    # what nothing fools comes back as one pair a map leaves it, from the original
    assert torch.equal(found.images[-1, 1], one(net, images, labels, far).images[-1, 1])


def test_keeps_to_its_share_of_features_and_to_a_budget() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(3)
    labels = net.predict(images).argmax(1)
    far = net.predict(images).argmin(1)
    count = images[0].numel()
    found = JSMA(gamma=0.01, theta=0.1)(net, images, labels, far)
    assert (found.queries == int(0.01 * count / 2)).all()
    assert ((found.images[0] != images).flatten(1).sum(1) <= 0.01 * count).all()
    assert (found.images[0] - images).max() > 0.11  # what has room is taken again
    assert JSMA()(WhiteBox(net, budget=4), images, labels, far).queries.tolist() == [4, 4, 4]


def test_sizes_are_shares_of_the_pixels_that_were_changed_first() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), photos(2)
    labels, far = net.predict(images).argmax(1), net.predict(images).argmin(1)
    found = JSMA(steps=20, eps=(0.01, 0.001, 1.0))(net, images, labels, far)
    assert found.eps[:3, 0].tolist() == pytest.approx([0.001, 0.01, 1.0])
    assert (found.images[0] == images).all()  # less than a pixel
    assert torch.equal(found.images[2], found.images[3])
    few = JSMA(steps=20, eps=(0.01,))
    for row in range(2):
        changed = (found.images[1, row] != images[row]).any(0)
        assert int(changed.sum()) == int(0.01 * 24 * 24)
        assert torch.equal(found.images[1, row][:, changed], found.images[3, row][:, changed])
    shorter = JSMA(steps=2)(net, images, labels, far).images[0]  # two steps, four pixels at most: among the first five
    assert (((shorter != images).any(1)) <= (found.images[1] != images).any(1)).all()
    assert few.passes[0] == JSMA(steps=20).passes[0] + 2


def test_an_image_without_a_pair_is_said_to_be_one() -> None:
    class Common(nn.Module):
        """All logits rise and fall together, as with a bias that the image sets."""

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None] + torch.tensor([1.0, 0, 0])

    found = JSMA()(Classifier(Common(), size=4, check=False), torch.rand(2, 3, 4, 4), target=1)
    assert "for 2 of 2 images no features" in found.notes[0]
    assert not found.success.any()
    assert torch.equal(found.images[0], found.original.pixels)


def test_bad_settings_are_refused() -> None:
    for words in ({"theta": 0.0}, {"theta": 2.0}, {"gamma": 0.0}, {"gamma": 14.5}, {"steps": 0}, {"at_once": 0}):
        with pytest.raises(SpecError, match="expected"):
            JSMA(**words)
    with pytest.raises(SpecError, match="sizes eps ≤ 1"):
        JSMA(eps=(3.0,))
