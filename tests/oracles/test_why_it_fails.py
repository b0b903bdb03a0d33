"""The diagnosis against closed forms: linear and quadratic nets, planted frequencies, and direct answers."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from nets import FAMILIES, classifier, photos
from seewhy.attack import FGSM
from seewhy.attack.base import size_of
from seewhy.attack.why_it_fails import (
    BANDS,
    HALVINGS,
    SHARES,
    Diagnosis,
    _crossings,
    _noise,
    diagnose,
    paragraph,
    passes,
    spectrum,
)
from seewhy.classifier import Classifier
from seewhy.errors import InputError, LayerError, NothingToExplain, SpecError
from seewhy.explain import GradCAM, Gradient
from seewhy.explain.base import flatten
from seewhy.explain.compare import on_grid
from seewhy.lens.capture import capture


def linear(classes: int = 3, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, classes)), size=4, check=False)


def grey(count: int) -> Tensor:
    return 0.4 + 0.2 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    net = linear()
    return diagnose(net, FGSM(eps=(0.3,), refine=0)(net, grey(8)))


def weights(net: Classifier) -> tuple[Tensor, Tensor]:
    return net.module.get_parameter("1.weight").detach(), net.module.get_parameter("1.bias").detach()


def test_a_linear_net_fails_linearly_and_its_distances_are_margins_over_slopes(found: Diagnosis) -> None:
    weight, bias = weights(linear())
    pixels = found.images.pixels
    torch.testing.assert_close(found.explained, torch.ones(len(pixels)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.straightness, torch.ones(len(pixels), dtype=torch.float64), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.linear, found.falls, rtol=1e-3, atol=1e-5)  # noise too: the gradient foresees all
    torch.testing.assert_close(found.gaps[0] - found.gaps[-1], found.falls[0])
    logits = pixels.flatten(1) @ weight.T + bias
    gaps = logits.gather(1, found.before[:, None]) - logits.gather(1, found.after[:, None])
    torch.testing.assert_close(found.gaps[0], gaps[:, 0])
    for image in range(len(pixels)):
        own = logits[image, found.before[image]]
        lengths = []
        for other in set(range(3)) - {int(found.before[image])}:
            slope = weight[found.before[image]] - weight[other]
            lengths.append(float((own - logits[image, other]) / slope.abs().sum()))
        nearest = sorted(set(range(3)) - {int(found.before[image])})[int(np.argmin(lengths))]
        assert int(found.nearest[image]) == nearest
        order = logits[image].argsort(descending=True).tolist()
        assert int(found.rank[image]) == order.index(int(found.after[image])) - 1


def test_the_decision_changes_where_the_gap_is_zero() -> None:
    net = linear(2)
    logits = net.predict(grey(60))
    net.module.get_parameter("1.bias").data[0] -= (logits[:, 0] - logits[:, 1]).mean()  # so that the boundary is near
    attacked = FGSM(eps=(0.05,), refine=0)(net, grey(60))
    found = diagnose(net, attacked)
    share = found.gaps[0] / found.falls  # of each direction, by the linear net's own formula
    exact = share * found.lengths
    there = (share > 0) & (share < 7.5)  # nothing is cut off until 0.4 / 0.05 of the way
    assert there[0].all()
    assert there[1:].any()
    assert (found.distances[there] >= exact[there] - 1e-5).all()
    assert (found.distances[there] <= (exact * (1 + 2.0**-HALVINGS) + found.lengths / 2 ** (2 + HALVINGS))[there]).all()
    never = found.falls <= 0  # a straight line away from the boundary
    assert never.any()
    assert found.distances[never & (share.abs() < 7.5)].isinf().all()


def test_noise_has_the_same_size_in_every_norm_and_no_direction() -> None:
    pixels = photos(3)
    ends = (pixels + 0.1 * (torch.rand(pixels.shape, generator=torch.Generator().manual_seed(3)) - 0.5)).clamp(0, 1)
    ends[:, :, ::2] = pixels[:, :, ::2]
    noisy = _noise(pixels, ends, 0, 0)
    for norm in ("l0", "l2", "linf"):
        torch.testing.assert_close(size_of(noisy - pixels, norm), size_of(ends - pixels, norm), rtol=1e-5, atol=1e-5)
    change, noise = (ends - pixels).flatten(1), (noisy - pixels).flatten(1)
    assert (torch.nn.functional.cosine_similarity(change, noise) < 0.1).all()
    assert torch.equal(_noise(pixels[1:2], ends[1:2], 0, 0), noisy[1:2])
    assert not torch.equal(_noise(pixels, ends, 0, 1), noisy)


class Curved(nn.Module):
    """Two logits whose difference falls as −s − k·s², s being the mean less a half."""

    bend = 4.0

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((1, 2, 3)) - 0.5
        return torch.stack([0.1 - s - self.bend * s * s.abs(), torch.zeros_like(s)], 1)


def test_what_is_not_linear_is_not_explained_by_the_gradient() -> None:
    net = Classifier(Curved(), size=4, check=False)
    found = diagnose(net, FGSM(eps=(0.2,), refine=0)(net, torch.full((1, 3, 4, 4), 0.5)))
    fall = 0.2 + 4 * 0.04
    assert float(found.falls[0]) == pytest.approx(fall, rel=1e-4)
    assert float(found.explained) == pytest.approx(0.2 / fall, rel=1e-4)
    at = np.array(SHARES)
    curve = 0.1 - 0.2 * at - 4 * 0.04 * at**2
    np.testing.assert_allclose(found.gaps[:, 0].numpy(), curve, atol=1e-5)
    assert float(found.straightness) == pytest.approx(scipy.stats.linregress(at, curve).rvalue ** 2, abs=1e-4)


def test_growth_is_the_length_of_the_change_over_that_of_the_answer(found: Diagnosis) -> None:
    weight, bias = weights(linear())
    net = linear()
    attacked = FGSM(eps=(0.3,), refine=0)(net, grey(8))
    kept = attacked.best >= 0
    pixels, change = grey(8)[kept], (attacked.images[0] - grey(8))[kept]
    assert found.layers == ("input", "0", "1", "logits")
    answers = pixels.flatten(1) @ weight.T + bias
    grown = (change.flatten(1) @ weight.T).norm(dim=1) / answers.norm(dim=1)
    plain = change.flatten(1).norm(dim=1) / pixels.flatten(1).norm(dim=1)
    for layer, exact in ((0, plain), (1, plain), (2, grown), (3, grown)):
        torch.testing.assert_close(found.growth[layer, 0], exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.growth[0, 1:], plain.expand(4, -1), rtol=1e-4, atol=1e-5)
    assert (found.growth[-1, 1:].mean(0) < found.growth[-1, 0]).all()


def test_a_planted_frequency_stands_in_its_band() -> None:
    y, x = torch.meshgrid(torch.arange(32), torch.arange(48), indexing="ij")
    for down, across in ((5, 0), (0, 9), (3, 4), (16, 24), (0, 3)):
        wave = torch.cos(2 * math.pi * (down * y / 32 + across * x / 48)).expand(1, 3, -1, -1)
        shares = spectrum(wave)[0]
        frequency = math.hypot(down / 32, across / 48)
        band = min(int(np.searchsorted(BANDS, frequency, side="right")) - 1, len(BANDS) - 2)
        assert float(shares[band]) == pytest.approx(1, abs=1e-5)
    shares = spectrum(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    frequencies = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    white = np.histogram(frequencies.clip(max=0.49999), BANDS)[0] / 64**2
    np.testing.assert_allclose(shares.mean(0).numpy(), white, atol=0.01)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))


@pytest.fixture(scope="module")
def deep() -> tuple[Classifier, Any]:
    net = classifier(FAMILIES["resnet"]())
    return net, FGSM(eps=(0.3,))(net, photos(4))


def test_units_and_maps_are_those_that_the_net_and_the_explainers_answer(deep: tuple[Classifier, Any]) -> None:
    net, attacked = deep
    before = [parameter.clone() for parameter in net.module.parameters()]
    found = diagnose(net, attacked, explainers=[GradCAM(), Gradient()], noises=2)
    assert all(map(torch.equal, before, net.module.parameters()))
    kept = attacked.best >= 0
    pixels, ends = attacked.original.pixels[kept], attacked.fooling[kept]
    clean, after = (capture(net, each, [found.layer])[found.layer] for each in (pixels, ends))
    change = (after - clean).abs().mean((2, 3))
    torch.testing.assert_close(change.gather(1, found.units), change.topk(8).values)
    torch.testing.assert_close(found.answers[:, :, 0], clean.mean((2, 3)).gather(1, found.units))
    torch.testing.assert_close(found.answers[:, :, 1], after.mean((2, 3)).gather(1, found.units))
    for explainer in (GradCAM(), Gradient()):
        maps = [explainer(net, each, found.before).values for each in (pixels, ends)]
        for image in range(len(pixels)):
            cells = [on_grid(flatten(each[image : image + 1], explainer.default_sign)).flatten() for each in maps]
            rho = scipy.stats.spearmanr(*[each.numpy() for each in cells]).statistic
            assert float(found.correlation[explainer.spec][0, image]) == pytest.approx(rho, abs=1e-6)
            mass = [on_grid(flatten(each[image : image + 1], "absolute")).flatten().double() for each in maps]
            moved = 1 - torch.minimum(*[each / each.sum() for each in mass]).sum()  # what does not overlap
            assert float(found.mass[explainer.spec][0, image]) == pytest.approx(float(moved), abs=1e-5)


def test_batches_are_singles(deep: tuple[Classifier, Any]) -> None:
    net, attacked = deep
    together = diagnose(net, attacked, explainers=[Gradient()])
    alone = FGSM(eps=(0.3,))(net, photos(4)[2:3])
    assert together.images.names[2] == "image 3"
    one = diagnose(net, alone, explainers=[Gradient()])
    for name in ("gaps", "falls", "linear", "distances", "growth", "spectrum"):
        dim = getattr(one, name).shape.index(1) if name != "spectrum" else 1
        torch.testing.assert_close(
            getattr(one, name).select(dim, 0), getattr(together, name).select(dim, 2), rtol=1e-3, atol=1e-5
        )


def test_transfer_counts_the_images_that_the_other_model_had_right(deep: tuple[Classifier, Any]) -> None:
    _, attacked = deep
    stubborn = classifier(FAMILIES["resnet"]())
    others = {"itself": classifier(FAMILIES["resnet"]()), "vgg": classifier(FAMILIES["vgg"]())}
    found = diagnose(stubborn, attacked, others=others)
    assert found.transfer["itself"][0].all()
    assert found.fair["itself"].all()
    assert torch.equal(found.fair["vgg"], others["vgg"].predict(found.images).argmax(1) == found.before)
    assert "itself, right on 4 of these before, is fooled by 4 of the changes" in found.words()


def test_the_paragraph_says_the_numbers(found: Diagnosis) -> None:
    rows = found.rows()
    said = found.words()
    assert f"The attack fooled {len(rows)} of 8 images" in said
    assert "foresees 100 % of the fall" in said
    assert "R² = 1.00" in said
    low = re.search(r"([\d.]+) % of its energy", said)
    assert low is not None
    assert float(low[1]) == pytest.approx(100 * np.median([sum(row["spectrum"][0][:4]) for row in rows]), rel=0.06)
    times = [far / row["distances"][0] if far else math.inf for row in rows for far in row["distances"][1:]]
    assert f"on {sum(map(math.isinf, times))} of {len(times)} directions" in said
    assert "grad-cam" not in said
    assert "The attack fooled" not in paragraph(rows[:1], 1)
    assert rows[0]["after"] in paragraph(rows[:1], 1)
    assert "fooled none of 3" in paragraph([], 3)


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([0.3, 0.4, 0.5, 0.6], "reached along noise at 4.5 times that."),
        (
            [0.3, 0.4, None, None],
            "reached along noise at 4 times that (on 2 of 4 directions not within 64 times the change).",
        ),
        (
            [0.3, None, None, None],
            "not reached along most noise (on 3 of 4 directions not within 64 times the change).",
        ),
    ],
)
def test_most_noise_is_more_than_half(found: Diagnosis, distances: list[float | None], said: str) -> None:
    row = {**found.rows()[0], "distances": [0.1, *distances]}
    assert f"another decision is {said}" in paragraph([row], 1)


def test_the_nearest_boundary_is_one_of_those_looked_at(found: Diagnosis) -> None:
    row = {**found.rows()[0], "before": "cat", "after": "dog", "rank": 0, "nearest": "dog"}
    assert "dog was the runner-up; of at most 6 classes looked at, it is the one whose boundary" in paragraph([row], 1)
    other = {**row, "nearest": "elk"}
    assert "of at most 6 classes looked at, elk is the one whose boundary the gradient places" in paragraph([other], 1)
    both = paragraph([row, other], 2)
    assert "the runner-up on 2 of 2, and on 1 the one, of at most 6 looked at, whose boundary the gradient" in both


def test_what_cannot_be_diagnosed_is_said() -> None:
    net = linear()
    weak = FGSM(eps=(1e-6,), refine=0)(net, grey(2))
    with pytest.raises(NothingToExplain, match="fooled no image"):
        diagnose(net, weak)
    strong = FGSM(eps=(0.3,))(net, grey(2))
    with pytest.raises(SpecError, match="at least one noise"):
        diagnose(net, strong, noises=0)
    with pytest.raises(InputError, match="expected models of 3 classes and 4 × 4 pixels"):
        diagnose(net, strong, others={"two": linear(2)})
    with pytest.raises(LayerError, match="no layer"):
        diagnose(net, strong, layer="nix")


def test_no_more_passes_than_said(deep: tuple[Classifier, Any]) -> None:
    net, attacked = deep
    found = diagnose(net, attacked, noises=3)
    forward, backward = passes(3)
    count = len(found.before)
    assert 0 < found.cost.forward <= forward * count
    assert found.cost.backward <= backward * count


def test_the_nearest_boundary_is_nearest_in_the_attacks_norm() -> None:
    """A slope of one value, and a flatter one of many: each is the steeper one in one norm."""
    layer = nn.Linear(48, 3, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 0], layer.weight[2] = 1.0, 0.1
        net = Classifier(nn.Sequential(nn.Flatten(), layer), size=4, check=False)
        layer.bias = nn.Parameter(torch.tensor([0.0, -0.51, -2.41]))  # on mid-grey both are 0.01 below the first
    images = torch.full((1, 3, 4, 4), 0.5)
    for norm, nearest in (("linf", 2), ("l2", 1)):
        found = diagnose(net, FGSM(eps=(0.3,), norm=norm, refine=0)(net, images))
        assert int(found.nearest) == nearest


def test_nan_is_no_other_class() -> None:
    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            """The first class from white down to half grey, NaN where it is darker."""
            level = pixels.mean((1, 2, 3))[:, None]
            logits = torch.cat([level, level - 1], 1)
            return logits.where(level >= 0.5, torch.nan)

    broken = Classifier(Broken(), size=4, check=False)
    bright = torch.ones(1, 3, 4, 4)
    lengths = _crossings(broken, bright, torch.zeros(1, 1, 3, 4, 4), torch.tensor([0]))
    assert not lengths.isfinite().any()
