"""Attacks without gradients: their estimates against autograd, scale included; their counters; exact distances on linear nets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.black_box import reached
from nets import FAMILIES, classifier, photos
from seewhy.attack import (
    DBGE,
    JSMA,
    LBFGS,
    NES,
    ZOO,
    Attack,
    Boundary,
    CarliniWagner,
    DeepFool,
    Goal,
    LabelsOnly,
    Scores,
    Square,
)
from seewhy.attack.dbge import (
    COLOURS,
    RINGS,
    SPACES,
    Belief,
    across,
    bands,
    basis,
    energies,
    evened,
    normal,
    surroundings,
)
from seewhy.attack.decisions import Search
from seewhy.attack.nes import antithetic
from seewhy.attack.oracles import as_saved
from seewhy.attack.sizes import LONGER, STEPS, longer
from seewhy.attack.square import bump
from seewhy.attack.zoo import Known, Space, nearby, promise
from seewhy.classifier import Classifier
from seewhy.errors import SpecError
from seewhy.rng import generator

BLACK_BOX: tuple[Attack, ...] = (  # type: ignore[type-arg]
    DBGE(queries=150),
    DBGE(queries=150, norm="linf"),
    DBGE(queries=150, space="resize", step="geometric", curve=(50, 100)),
    Boundary(queries=100),
    NES(queries=120, eps=(0.03, 0.1), pairs=5, refine=1),
    Square(queries=120, eps=(0.03, 0.1), refine=1),
    Square(queries=120, eps=(0.5, 2), norm="l2", refine=1),
    ZOO(queries=600, sides=(2, 4), coordinates=24),
    ZOO(queries=600, sides=(4,), coordinates=24, solver="adam", box="tanh"),
)


def linear(classes: int = 2, size: int = 4) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, classes)), size=size, check=False)


def mid_grey(count: int, size: int = 4) -> Tensor:
    """Images away from black and white, so that nothing is clipped."""
    return 0.4 + 0.2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def exact(net: Classifier, images: Tensor) -> dict[str, Tensor]:
    """Distances (N,) to the boundary between two classes of a linear net."""
    weight, bias = net.module.get_parameter("1.weight").detach(), net.module.get_parameter("1.bias").detach()
    logits = images.flatten(1) @ weight.T + bias
    margin, across = (logits[:, 0] - logits[:, 1]).abs(), weight[0] - weight[1]
    return {"l2": margin / across.norm(), "linf": margin / across.abs().sum()}


def smooth() -> tuple[Classifier, Tensor, Goal]:
    """A net without kinks, and images whose margins are asked about."""
    net, images = classifier(FAMILIES["efficientnet"]()), 0.2 + 0.6 * photos(2)
    return net, images, Goal(net.predict(images).argmax(1))


def slopes(net: Classifier, images: Tensor, goal: Goal) -> Tensor:
    """The margin's gradient by autograd."""
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(goal.margin(net.logits(leaf).log_softmax(1)).sum(), leaf)[0]


def test_zoos_differences_are_the_gradient() -> None:
    net, images, goal = smooth()
    view = Scores(net).opened(2)
    gradient = slopes(net, images, goal).flatten(1)
    rows = torch.tensor([1, 0])
    coordinates = torch.randperm(gradient.shape[1], generator=torch.Generator().manual_seed(0))[:60].view(2, 30)

    def values(moved: Tensor, of: Tensor) -> Tensor:
        return torch.stack(
            [goal.of(of).margin(view.scores(images[of] + moved, of)), moved.flatten(1).square().sum(1)], 1
        )

    around = nearby(values, torch.zeros_like(images), rows, coordinates, 0.01, images[0].numel())
    first = (around[:, :, 0] - around[:, :, 1]) / 0.02
    second = around.sum(2) / 0.01**2  # the squared distance is nothing at the image itself
    true = gradient[rows].gather(1, coordinates)
    torch.testing.assert_close(first[..., 0], true, rtol=0, atol=0.02 * float(true.abs().max()))
    torch.testing.assert_close(second[..., 1], torch.full((2, 30), 2.0), rtol=1e-3, atol=0)
    assert view.queries.tolist() == [60, 60]


def test_what_was_seen_moves_together_to_the_nearest_zero_of_a_linear_margin() -> None:
    net, images = linear(), mid_grey(3)
    goal = Goal(net.predict(images).argmax(1))
    space = Space(Scores(net).opened(3), Search(Scores(net), images, goal, "l2"), tanh=False)
    rows, whole = torch.arange(3), images[0].numel()
    now, chosen = space.values(torch.zeros_like(images), rows), torch.arange(whole).expand(3, -1)
    around = nearby(space.values, torch.zeros_like(images), rows, chosen, 0.01, whole)
    first, second = (around[:, :, 0] - around[:, :, 1]) / 0.02, (around.sum(2) - 2 * now[:, None]) / 0.01**2
    gradient = slopes(net, images, goal).flatten(1)
    for seen in (whole // 2, whole):  # of those seen alone, too, it is the nearest that their slopes allow
        known = Known(now[:, 0], torch.zeros(3, whole))
        known.note(rows, chosen[:, :seen], torch.zeros(3, seen), first[:, :seen], second[:, :seen, 1])
        c, moved = known.joint(rows, torch.ones(3))
        some = torch.where(torch.arange(whole) < seen, gradient, 0)
        wanted = -now[:, :1] * some / some.square().sum(1, keepdim=True)
        torch.testing.assert_close(moved, wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))
        torch.testing.assert_close(c, 2 * now[:, 0] / some.square().sum(1), rtol=0.03, atol=0)
    torch.testing.assert_close(moved.norm(dim=1), exact(net, images)["l2"], rtol=0.02, atol=0)
    half = known.joint(rows, torch.full((3,), 0.5))[1]
    torch.testing.assert_close(half, moved / 2)


def test_zoo_fools_long_before_it_has_seen_every_coordinate() -> None:
    net, images = linear(), mid_grey(6)
    found = ZOO(queries=85, coordinates=6)(net, images)  # 48 coordinates take 96, and what comes after is paid too
    assert found.success[-2].all()
    # of a half of the coordinates, drawn blindly, the slopes are shorter by √2
    assert 1.1 <= float((found.eps[-2] / exact(net, images)["l2"]).median()) <= 2


def test_zoo_pays_in_a_small_space_for_the_coordinates_that_it_has() -> None:
    """12 coordinates of 2 × 2 pixels take 2·12 + 4 queries a turn, however many are asked about at once."""
    net, images = linear(3), mid_grey(4)
    found = ZOO(queries=60, sides=(2,), coordinates=64)(net, images)
    assert found.queries.min() > 1 + 2 * 12
    assert not any("did not suffice" in note for note in found.notes)
    none = ZOO(queries=30, sides=(2,), coordinates=64)(net, images)
    assert none.queries.tolist() == [0] * 4
    assert none.notes[0] == "the queries did not suffice for one turn at 2 × 2, which takes 28: nothing was tried"
    some = ZOO(queries=110, sides=(2, 4), coordinates=64)(net, images)
    assert some.queries.min() > 1 + 2 * 12
    assert some.notes[0] == "the queries did not suffice for one turn at 4 × 4, which takes 100"


def test_what_promises_most_lies_near_what_is_steep() -> None:
    slopes, seen = torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 12, dtype=torch.bool)
    seen[0, 0, ::3, ::3] = True
    slopes[0, 0, ::3, ::3] = 0.1
    slopes[0, 0, 3, 3] = -4.0  # steep is steep in either direction
    found = promise(slopes, seen.flatten(1)).view(3, 12, 12)
    assert torch.equal(found[0], found[2])  # other channels of the same place, too
    assert found[1, 3, 3] > 1.5 * found[1, 9, 9]
    assert found[1, 5, 5] > found[1, 6, 6]
    nothing = promise(slopes * 0, seen.flatten(1))
    assert torch.isfinite(nothing).all()


def test_the_antithetic_estimate_is_the_gradient_also_in_length() -> None:
    net, images, goal = smooth()
    view = Scores(net).opened(2)
    true = slopes(net, images, goal)
    every = torch.arange(2)
    noise = torch.randn((500, *images.shape[1:]), generator=torch.Generator().manual_seed(0))
    found = antithetic(view, goal, images, every, noise, 0.003)
    # of each direction exactly the slope: Σ_b (g·u_b)·u_b / B
    wanted = (true.flatten(1) @ noise.flatten(1).T) @ noise.flatten(1) / len(noise)
    torch.testing.assert_close(found.flatten(1), wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))
    along = (found * true).flatten(1).sum(1) / true.flatten(1).square().sum(1)
    torch.testing.assert_close(along, torch.ones(2), rtol=0, atol=0.15)  # 1, ± 2·√(2/500)
    assert view.queries.tolist() == [1000, 1000]


def drawn(count: int, size: int, draw: torch.Generator) -> Tensor:
    """Directions (count, 3, size, size), uniform and of length one."""
    noise = torch.randn(count, 3 * size**2, generator=draw)
    return F.normalize(noise, dim=1).view(count, 3, size, size)


@pytest.mark.parametrize(
    "attack",
    [
        *(DBGE(space=space, colour=1, learn=False, step="geometric") for space in SPACES),
        *(DBGE(space=space, colour=0.3) for space in SPACES),
    ],
    ids=lambda attack: attack.spec,
)
def test_the_estimate_from_labels_is_the_unit_normal_also_in_length(attack: DBGE) -> None:
    net, images, goal = smooth()
    attack = replace(attack, queries=100_000, reach=0.01, bisections=16)
    search = Search(LabelsOnly(net).opened(2), images, goal, "l2")
    draw = generator(0, "test")
    rows = search.start(50, 20, draw)
    assert len(rows) == 2
    rows_basis = basis(attack.space, 12, 24)
    assert torch.allclose(rows_basis @ rows_basis.T, torch.eye(len(rows_basis)), atol=1e-5)
    size, count = len(rows_basis), 1500
    density = 0.1 + torch.rand(2, 3 * size**2, generator=draw) if attack.learn else torch.ones(2, 3 * size**2)
    shaped = attack._shape(search, rows, density, rows_basis, rows_basis, 0)
    # what the normal, towards what fools, is to coefficients: by autograd through their shape
    leaf = torch.zeros(2, 3, size, size, requires_grad=True)
    (shaped(leaf, torch.arange(2)) * -slopes(net, search.images, goal)).sum().backward()
    assert leaf.grad is not None
    true = F.normalize(leaf.grad.flatten(1), dim=1)
    noise = drawn(count, size, draw)
    decisions, asked = attack._decisions(search, rows, noise, torch.full((2,), count), shaped)
    found = normal(decisions, asked, noise).flatten(1)
    along = (found * true).sum(1)
    torch.testing.assert_close(along, torch.ones(2), rtol=0, atol=0.12)  # 1, ± 4·√(π/2 − 1)/√1500
    # what is across is the noise that so many samples leave, no more
    rest = (found - along[:, None] * true).norm(dim=1)
    expected = (torch.pi / 2 * 3 * size**2 / count) ** 0.5
    torch.testing.assert_close(rest, torch.full((2,), expected), rtol=0.1, atol=0)


def test_a_shape_is_frequencies_and_colours_spread_where_changes_are() -> None:
    net, images, goal = smooth()
    search = Search(LabelsOnly(net).opened(2), images, goal, "l2")
    rows = search.start(50, 20, generator(0, "test"))
    rows_basis, which = basis("dct", 24, 24), torch.arange(2)
    coefficients = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    density = torch.rand(2, 3 * 24 * 24, generator=torch.Generator().manual_seed(1))
    away = search.images - images
    unit = F.normalize(away.flatten(1), dim=1)

    def made(attack: DBGE, density: Tensor, even: float = 0) -> Tensor:
        return attack._shape(search, rows, density, rows_basis, rows_basis, even)(coefficients, which)

    plain = made(DBGE(learn=False, step="geometric"), torch.ones_like(density))
    torch.testing.assert_close(plain.flatten(1).norm(dim=1), coefficients.flatten(1).norm(dim=1))
    grey = torch.cat([torch.ones(2, 24 * 24), torch.zeros(2, 2 * 24 * 24)], 1)
    found = made(DBGE(learn=False, step="geometric"), grey)
    torch.testing.assert_close(found, plain.mean(1, keepdim=True).expand_as(found), rtol=0, atol=1e-5)
    # all at once: frequencies, colours, surroundings, and the right angle
    gained = (density.sqrt().view_as(coefficients) * coefficients).movedim(1, -1) @ torch.tensor(COLOURS)
    spread = surroundings(away).sqrt() * (rows_basis.T @ gained.movedim(-1, 1) @ rows_basis)
    flat = spread.flatten(1)
    wanted = flat - (flat * unit).sum(1, keepdim=True) * unit
    torch.testing.assert_close(made(DBGE(), density).flatten(1), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(made(DBGE(norm="linf"), density), spread, rtol=0, atol=1e-4)
    even = made(DBGE(norm="linf"), torch.ones_like(density), even=1)
    torch.testing.assert_close(even, plain)


def test_surroundings_are_the_energy_around_and_nowhere_nothing() -> None:
    away = torch.zeros(2, 3, 32, 32)
    away[0, :, 4, 4] = 0.5
    away[1] = 0.1
    found = surroundings(away)
    torch.testing.assert_close(found[1], torch.ones(1, 32, 32))
    seen = found[0, 0]
    torch.testing.assert_close(seen.mean(), torch.ones(()))
    assert float(seen[20, 20]) == pytest.approx(0.1)
    torch.testing.assert_close(seen[2:7, 2:7], torch.full((5, 5), 0.1 + 0.9 * 1024 / 25))
    assert int((seen > 0.11).sum()) == 25
    assert torch.isfinite(surroundings(torch.rand(1, 3, 2, 5))).all()


def test_what_is_across_is_at_right_angles() -> None:
    images, along = torch.randn(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    along = along / along.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = across(images, along)
    torch.testing.assert_close((found * along).flatten(1).sum(1), torch.zeros(4), rtol=0, atol=1e-5)
    kept = (images * along).flatten(1).sum(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found + kept * along, images)


def test_evened_ends_with_all_alike() -> None:
    densities = torch.tensor([0.1, 2.0])
    assert torch.equal(evened(densities, 0), densities)
    torch.testing.assert_close(evened(densities, 0.5), torch.tensor([0.55, 1.5]))
    torch.testing.assert_close(evened(densities, 1), torch.ones(2))


def test_bands_are_rings_of_frequencies_of_grey_and_of_colour() -> None:
    members = bands("dct", 16, 16)
    assert torch.equal(members.sum(1), torch.ones(3 * 256))
    of = members.argmax(1).view(3, 16, 16)
    assert of[0, 0, 0] == 0
    assert of[0, 15, 15] == RINGS - 1
    assert of[0, 0, 15] == of[0, 15, 0] == int(RINGS * 15 / 16 / 2**0.5)
    assert torch.equal(of[1], of[0] + RINGS)
    assert torch.equal(of[2], of[1])
    assert torch.equal(bands("full", 4, 5).sum(0).nonzero()[:, 0], torch.tensor([0, RINGS]))


def test_energies_are_without_bias_and_deviate_as_is_thought() -> None:
    """Labels on a flat boundary; the exact parts are those of the normal that made them."""
    draw = torch.Generator().manual_seed(0)
    members = bands("dct", 8, 8)
    members = members[:, members.sum(0) > 0]
    true = F.normalize(
        torch.randn(192, generator=draw) * (members @ torch.rand(members.shape[1], generator=draw)), dim=0
    )
    count, turns, found = 100, 400, []
    for _ in range(turns):
        directions = drawn(count, 8, draw)
        decisions = torch.where(directions.flatten(1) @ true > 0, 1.0, -1.0)[None]
        found.append(energies(decisions, torch.ones_like(decisions, dtype=torch.bool), directions, members)[0])
    parts, wanted = torch.stack(found), true.square() @ members
    deviation = torch.pi * (members.sum(0) / 2).sqrt() / count
    # noise by itself, and with the normal's part
    both = (deviation.square() + 2 * torch.pi * wanted / count).sqrt()
    torch.testing.assert_close(parts.std(0), both, rtol=0.25, atol=0)
    error = (parts.mean(0) - wanted).abs()
    assert (error < 4 * both / turns**0.5 + 0.02 * wanted).all()


def test_a_belief_comes_from_its_first_thought_to_what_was_found() -> None:
    members = bands("dct", 8, 8)
    sizes = members.sum(0)
    density = torch.linspace(2, 0.3, 2 * RINGS).expand(2, -1)
    belief, rows = Belief(2, 0.3), torch.tensor([1])
    first = belief.density(rows)
    torch.testing.assert_close(first[0], torch.tensor([1.0] * RINGS + [0.09] * RINGS))
    for _ in range(300):
        drawn_with = belief.density(rows)
        parts = F.normalize(drawn_with * density[1:] * sizes, p=1, dim=1)  # as directions of these densities find it
        belief.learn(rows, drawn_with, members, parts, torch.tensor([500]))
    found = belief.density(rows)[0]
    full = sizes > 0
    torch.testing.assert_close((found / found[0])[full], (density[1] / density[1, 0])[full], rtol=0.05, atol=0)
    assert torch.equal(found[~full], first[0][~full])  # nothing was found where nothing is
    assert torch.equal(belief.density(torch.tensor([0])), first)  # each image has its own
    # a few decisions say little
    belief = Belief(1, 0.3)
    belief.learn(torch.tensor([0]), first[:1], members, torch.full((1, 2 * RINGS), 3.0), torch.tensor([8]))
    torch.testing.assert_close(belief.density(torch.tensor([0])), first, rtol=0.2, atol=0.05)
    # where nothing agrees all are looked at alike
    for _ in range(200):
        belief.learn(torch.tensor([0]), first[:1], members, torch.full((1, 2 * RINGS), -1.0), torch.tensor([500]))
    assert len(belief.density(torch.tensor([0]))[:, full].unique()) == 1
    assert (belief.density(torch.tensor([0])) > 0).all()


def chequered(size: int, side: int, bias: float) -> Classifier:
    """A linear net whose normal is a grey chequerboard in the upper left corner."""
    net = linear(size=size)
    board = (-1.0) ** (torch.arange(size)[:, None] + torch.arange(size))
    board[side:] = board[:, side:] = 0
    with torch.no_grad():
        weight = net.module.get_parameter("1.weight")
        weight.copy_(torch.stack([board, -board]).unsqueeze(1).expand(-1, 3, -1, -1).flatten(1))
        net.module.get_parameter("1.bias").copy_(torch.tensor([bias, -bias]))
    return net


@pytest.mark.parametrize(("side", "part"), [(12, 0.4), (32, 0.8)])
def test_what_was_found_shapes_what_is_drawn(side: int, part: float) -> None:
    """A normal that is fine, in a corner or everywhere: nearer to the exact distance, if that is learned."""
    net, images = chequered(32, side, 5), mid_grey(4, 32)
    wanted = exact(net, images)["l2"]

    def beyond(**options: bool) -> float:
        return float((DBGE(queries=1000, **options)(net, images).eps[-2] / wanted - 1).median())  # type: ignore[arg-type]

    assert beyond() < part * beyond(learn=False)


def test_a_small_image_is_seen_whole_from_the_start_and_grey_is_tried_first() -> None:
    """A normal that is fine and grey, as those of networks for small images are."""
    net, images = chequered(16, 16, 20), mid_grey(4, 16)
    wanted = exact(net, images)["l2"]

    def farther(**options: float) -> float:
        return float((DBGE(queries=600, **options)(net, images).eps[-2] / wanted).median())  # type: ignore[arg-type]

    found, coarse, coloured = farther(), farther(side=4), farther(colour=1)
    assert found < 0.8 * coloured
    assert coloured < 0.8 * coarse


def test_the_baseline_lowers_the_variance_off_the_boundary() -> None:
    noise = drawn(4000, 4, torch.Generator().manual_seed(0))
    decisions = torch.where(noise.flatten(1)[:, 0] > -0.2, 1.0, -1.0)[None]
    asked = torch.ones_like(decisions, dtype=torch.bool)
    found = normal(decisions, asked, noise).flatten(1)[0]
    plain = (decisions @ noise.flatten(1) / 4000)[0]
    assert F.normalize(found, dim=0)[0] > F.normalize(plain, dim=0)[0]
    agreed = normal(torch.ones_like(decisions), asked, noise)
    assert torch.isfinite(agreed).all()
    assert agreed.norm() > 0
    few = asked.clone()
    few[:, 100:] = False
    torch.testing.assert_close(
        normal(decisions * few, few, noise), normal(decisions[:, :100], asked[:, :100], noise[:100])
    )


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradient: Tensor) -> Tensor:
        raise RuntimeError("an attack without gradients asked for one")


class Hidden(nn.Module):
    """A net whose backward pass raises, that counts its images, and may hide all but the winning class."""

    def __init__(self, module: nn.Module, scores: bool) -> None:
        super().__init__()
        self.module, self.scores, self.images = module, scores, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        logits: Tensor = _Cut.apply(self.module(x))  # type: ignore[no-untyped-call]
        return logits if self.scores else F.one_hot(logits.argmax(1), logits.shape[1]).float()


@pytest.mark.parametrize("attack", BLACK_BOX, ids=lambda attack: attack.spec)
def test_sees_no_more_than_it_says_and_counts_every_query(attack: Attack) -> None:  # type: ignore[type-arg]
    plain, images = linear(3), mid_grey(4)
    hidden = Hidden(plain.module, scores=attack.view is Scores)
    net = Classifier(hidden, size=4, check=False)
    net.engine.batch = plain.engine.batch = 7
    labels = plain.predict(images).argmax(1)
    found, open_ = attack(net, images, labels), attack(plain, images, labels)
    torch.testing.assert_close(found.images, open_.images)
    assert torch.equal(found.queries, open_.queries)
    assert found.gradients.sum() == 0
    view, hidden.images = attack.view(net).opened(4), 0
    attack.perturb(view, images, Goal(labels))
    assert hidden.images == int(view.queries.sum())
    assert torch.equal(view.queries, found.queries)
    assert found.queries.max() <= attack.queries  # type: ignore[attr-defined]
    for budget in (1, 13, 60):
        found = attack(attack.view(plain, budget), images, labels)
        assert found.queries.max() <= budget
        # what asked nothing says so
        assert found.queries.min() >= 1 or any("the queries did not suffice" in note for note in found.notes)


@pytest.mark.parametrize(
    "attack",
    [
        DBGE(queries=5),
        Boundary(queries=5),
        NES(queries=5, pairs=2, eps=(0.1,), refine=0),
        Square(queries=5),
        ZOO(queries=30, coordinates=2),
    ],
    ids=lambda attack: attack.spec,
)
def test_the_fewest_queries_are_used_and_no_more(attack: Attack) -> None:  # type: ignore[type-arg]
    net, images = linear(3), mid_grey(4)
    found = attack(net, images)
    assert found.queries.min() >= 1
    assert found.queries.max() <= attack.queries  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attack", "within"),
    [
        (DBGE(queries=2000, curve=(300, 1000)), 1.06),
        (DBGE(queries=2000, space="full", step="geometric"), 1.1),
        (DBGE(queries=2500, norm="linf"), 1.12),
        (Boundary(queries=2000, curve=(300, 1000)), 1.12),
        (ZOO(queries=2000, coordinates=24, sides=(4,)), 1.03),
        (ZOO(queries=4000, coordinates=24, sides=(4,), solver="adam"), 1.3),
    ],
    ids=lambda value: value.spec if isinstance(value, Attack) else "",
)
def test_comes_near_the_exact_distance_on_a_linear_net(attack: Attack, within: float) -> None:  # type: ignore[type-arg]
    net, images = linear(), mid_grey(6)
    nearest = exact(net, images)[attack.norm]
    found = attack(net, images)
    assert found.success[-2].all()
    assert (found.eps[-2] >= nearest * 0.999).all()
    assert float((found.eps[-2] / nearest).median()) <= within
    assert found.success_8bit[-1].all()
    assert found.success[-1].all()
    torch.testing.assert_close(found.eps[-2:], found.distances[attack.norm][-2:])
    if attack.curve:  # type: ignore[attr-defined]
        assert (found.eps[:-1].diff(dim=0) <= 1.002 * found.eps[1:-1] - found.eps[1:-1]).all()


@pytest.mark.parametrize("attack", [DBGE(queries=600), Boundary(queries=600), ZOO(queries=1000, coordinates=24)])
def test_reaches_a_target(attack: Attack) -> None:  # type: ignore[type-arg]
    net, images = linear(3), mid_grey(4)
    labels = net.predict(images).argmax(1)
    target = (labels + 1) % 3
    found = attack(net, images, labels, target)
    reached = found.success[-1]
    assert reached.any()
    assert torch.equal(found.predictions[-1][reached], target[reached])
    assert torch.equal(found.images[-1][~reached], images[~reached])
    assert reached.all() or any("nothing that fools was found" in note for note in found.notes)


def barely(distance: float) -> tuple[Classifier, Tensor]:
    """A linear net, and an image of 8 bits that lies so far from its boundary in linf."""
    net, image = linear(), as_saved(mid_grey(1))
    weight, bias = net.module.get_parameter("1.weight"), net.module.get_parameter("1.bias")
    with torch.no_grad():
        across = weight[0] - weight[1]
        bias.copy_(torch.stack([distance * across.abs().sum() - image.flatten() @ across, torch.zeros(())]))
    return net, image


@pytest.mark.parametrize("refine", [0, 3])
@pytest.mark.parametrize("attack", [NES(queries=1000, pairs=20), Square(queries=500)], ids=lambda attack: attack.name)
def test_a_success_that_rounding_undoes_is_none(attack: NES | Square, refine: int) -> None:
    net, image = barely(0.05 / 255)
    found = replace(attack, eps=(0.4 / 255, 6 / 255), refine=refine)(net, image)
    assert found.success[0].all()  # so near an image of 8 bits that rounding leads back to it
    assert not found.success_8bit[0].any()
    assert found.success_8bit[1:].all()
    assert found.best.tolist() == [1 + bool(refine)]
    assert float(found.smallest_eps) > 0.5 / 255


@pytest.mark.parametrize(
    "attack",
    [
        DeepFool(),
        DeepFool(norm="linf"),
        LBFGS(),
        CarliniWagner(searches=3, steps=100),
        DBGE(queries=2000),
        DBGE(queries=2500, norm="linf"),
        Boundary(queries=2000),
        ZOO(queries=2000, coordinates=24, sides=(4,)),
    ],
    ids=lambda attack: attack.spec,
)
def test_what_is_nearest_of_all_is_fooled_in_8_bits_too(attack: DeepFool | DBGE) -> None:
    net, image = barely(0.01 / 255)
    found = replace(attack, eps=(1.0,))(net, image)
    assert found.success[-2].all()
    assert not found.success_8bit[-2].any()
    assert float(found.distances["linf"][-2]) < 0.5 / 255 / 8  # eight times as far, rounding leads back still
    assert found.best.tolist() == [2]
    assert float(found.distances["linf"][-1]) <= 16.4 / 255
    assert torch.equal(found.images[0], found.images[-1])  # what lies within a size counts at it
    assert found.success_8bit[0].all()


def test_changes_are_made_longer_until_rounding_leaves_something_of_them() -> None:
    changes = torch.tensor([0.3, 0.4 / 255, 0.001 / 255, 0.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    factors = longer(changes)
    torch.testing.assert_close(factors[:, 0], torch.tensor(LONGER))
    assert (factors[0] == 1).all()
    greatest = factors[1:] * changes.amax((1, 2, 3)) * 255
    torch.testing.assert_close(greatest[:, 1], torch.tensor([0.51, 1.02, 2.04, 4.08, 8.16, 16.32]))
    torch.testing.assert_close(greatest[:, 2], greatest[:, 1])
    assert (greatest[:, 3] == 0).all()


def test_features_changed_by_less_than_rounding_are_changed_again() -> None:
    net, image = barely(1e-5)
    found = JSMA(theta=0.4 / 255, gamma=1.0)(net, image)
    assert found.success.all()
    assert found.success_8bit.all()
    once = JSMA(theta=0.4 / 255, gamma=1.0, steps=1)(net, image)  # fooled in floating point alone
    assert once.success.all()
    assert not once.success_8bit.any()


@pytest.mark.parametrize(
    ("attack", "left_out"), [(NES(queries=500), 6), (Square(queries=5, refine=0), 6), (Square(queries=50), 0)]
)
def test_sizes_without_queries_are_left_out_and_said(attack: NES | Square, left_out: int) -> None:
    net, images = linear(), as_saved(mid_grey(2))
    with torch.no_grad():
        net.module.get_parameter("1.bias").copy_(torch.tensor([100.0, 0]))  # nothing fools
    found = attack(net, images)
    untried, eps = found.untried[:11], found.eps[:11]
    assert untried[:left_out].all()
    assert not untried[left_out:].any()
    assert (eps[:left_out] == 0).all()
    assert torch.equal(found.images[:left_out], images.expand(left_out, -1, -1, -1, -1))
    assert eps[left_out:, 0].tolist() == pytest.approx([step / 255 for step in STEPS[left_out:]])
    said = [note for note in found.notes if "the queries did not suffice to try 12 of 22 sizes" in note]
    assert len(said) == bool(left_out)
    assert float(found.eps[-1].max()) == pytest.approx(32 / 255)


def test_a_search_that_failed_is_not_near() -> None:
    net, images = linear(), mid_grey(2)
    with torch.no_grad():
        net.module.get_parameter("1.bias").copy_(torch.tensor([100.0, 0]))
    found = DBGE(queries=60, curve=(30,))(net, images)
    assert (found.distances["l2"] == 0).all()  # they come back as they were
    assert reached(found).isinf().all()
    close = DBGE(queries=200, curve=(100,))(linear(), images)
    assert torch.equal(reached(close)[close.success], close.distances["l2"][close.success])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [Square, NES])
def test_stays_in_its_ball_and_fools_where_that_is_large(attack: type[Square] | type[NES], norm: str) -> None:
    net, images = linear(), mid_grey(6)
    images[0] = (images[0] > 0.5).float()  # black and white: clipping matters
    sizes = tuple(float(exact(net, images)[norm].max()) * factor for factor in (0.5, 2.5))
    found = attack(queries=800, eps=sizes, norm=norm, refine=3)(net, images)
    assert (found.distances[norm] <= found.eps * (1 + 1e-5)).all()
    assert found.success[1].all()
    assert found.success[-1].all()
    assert (found.smallest_eps >= exact(net, images)[norm] * 0.999).all()
    assert (found.eps[-1] <= found.eps[1]).all()


def test_a_bump_is_a_hill_and_a_valley_of_length_one() -> None:
    for side in (1, 2, 3, 6, 7):
        shape = bump(side)
        assert shape.shape == (side, side)
        torch.testing.assert_close(shape.norm(), torch.tensor(1.0))
        assert (shape[: side // 2] > 0).all()
        assert (shape[side // 2 :] < 0).all()


def test_rounded_scores_and_images_are_attacked_too() -> None:
    net, images = linear(), mid_grey(4)
    view = Scores(net, budget=1500, rounded=True, decimals=3)
    found = ZOO(coordinates=24, h=0.05)(view, images)
    assert found.success_8bit[-1].all()
    assert DBGE(queries=800)(LabelsOnly(net, rounded=True), images).success_8bit[-1].all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DBGE(queries=0), "queries ≥ 1"),
        (lambda: DBGE(curve=(9000,)), "from 1 to queries=5000"),
        (lambda: DBGE(space="dcd"), 'did you mean "dct"'),
        (lambda: DBGE(step="ark"), 'did you mean "arc"'),
        (lambda: DBGE(samples=1), "samples ≥ 8"),
        (lambda: DBGE(side=0), "side, bisections and tries ≥ 1"),
        (lambda: DBGE(colour=0), "colour above 0"),
        (lambda: DBGE(norm="l1"), "norm linf or l2"),
        (lambda: DBGE(reach=0), "reach > 0"),
        (lambda: Boundary(towards=1), "towards < 1"),
        (lambda: NES(pairs=0), "pairs ≥ 1"),
        (lambda: NES(queries=50), r"= 51 queries, .* got 50"),
        (lambda: NES(eps=8 / 255), r"as in eps=\(8/255,\), got the number 0.0313"),  # type: ignore[arg-type]
        (lambda: NES(eps=(8,)), "8/255"),
        (lambda: NES(sigma=0), "sigma > 0"),
        (lambda: Square(share=0), "share ≤ 1"),
        (lambda: ZOO(solver="adan"), 'did you mean "adam"'),
        (lambda: ZOO(box="clap"), 'did you mean "clip"'),
        (lambda: ZOO(sides=()), "sides ≥ 1"),
        (lambda: ZOO(h=0), "0 < h"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        make()  # type: ignore[operator]
