"""Activation maximization against finite differences, closed forms, planted units and counted operations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import FAMILIES, SIZE, SPELLINGS, Mobile, Spelled, classifier, lively, photos
from seewhy.classifier import Classifier
from seewhy.errors import InputError, LayerError, ModelError, NothingToExplain, SpecError
from seewhy.lens import capture
from seewhy.lens.reach import reach
from seewhy.look import DeepDream, Invert, Maximize
from seewhy.look.maximize import counterparts
from seewhy.look.objectives import (
    L2,
    Blur,
    Channel,
    Direction,
    Diversity,
    Layer,
    Logit,
    Neuron,
    Objective,
    TotalVariation,
    View,
    objective,
)
from seewhy.look.parametrize import Frequencies, Moves, Phases, Pixels, colours, measured, natural, shifted
from seewhy.method import from_json, parse
from seewhy.rng import generator


def seen(net: Classifier, wanted: Objective, pixels: Tensor, unit: Tensor | None = None) -> Tensor:
    """An objective of pixels, by the lens."""
    answers = reach(net, pixels, wanted.layers, logits=wanted.logits)
    return wanted(View(pixels, answers, torch.zeros(len(pixels), dtype=torch.long) if unit is None else unit), net)


OBJECTIVES = (
    "channel(stem;2)",
    "neuron(stem;1)",
    "neuron(stem;1;2;3)",
    "direction(project;1;-2;0.5;0;1;0;0;3)",
    "logit(cat)",
    "layer(stem)",
    "diversity(stem)",
    "tv",
    "tv(1.5)",
    "l2",
    "blur",
    "0.5*channel(stem;2)+2*logit(1)-3*tv-blur",
)


@pytest.mark.parametrize("text", OBJECTIVES)
def test_gradients_agree_with_finite_differences(text: str) -> None:
    net = classifier(Mobile(nn.SiLU).double(), check=False)
    wanted, pixels = objective(text), photos(2).double().requires_grad_()
    value = seen(net, wanted, pixels).sum()
    (gradient,) = torch.autograd.grad(value, pixels)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        step = torch.randn(pixels.shape, generator=draw, dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (seen(net, wanted, pixels + sign * 1e-5 * step).sum() for sign in (1, -1))
        assert float((gradient * step).sum()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("text", OBJECTIVES)
def test_values_stay_where_the_answers_are(text: str) -> None:
    """On a device that is not the CPU's; the images' units are numbers on the CPU. "meta" is one that every machine has."""
    net, wanted = classifier(FAMILIES["mobilenet"]()), objective(text)
    answers = reach(net, photos(2), wanted.layers, logits=wanted.logits)
    there = {layer: answer.to("meta") for layer, answer in answers.items()}
    assert wanted(View(photos(2).to("meta"), there, torch.tensor([0, 0])), net).device.type == "meta"


def test_values_agree_with_the_layers_own() -> None:
    net, pixels = classifier(FAMILIES["mobilenet"]()), photos(3)
    maps, logits = capture(net, pixels, ["stem"])["stem"], net.predict(pixels)
    unit = torch.tensor([0, 1, 2])
    expected = {
        "channel(stem;2)": maps[:, 2].mean((1, 2)),
        "channel(stem;2;0;5)": torch.stack([maps[0, 2].mean(), maps[1, 0].mean(), maps[2, 5].mean()]),
        "neuron(stem;1;2;3)": maps[:, 1, 2, 3],
        "neuron(stem;1)": maps[:, 1, maps.shape[2] // 2, maps.shape[3] // 2],
        "direction(stem;3;0;0;0;0;0;0;4)": 0.6 * maps[:, 0].mean((1, 2)) + 0.8 * maps[:, 7].mean((1, 2)),
        "logit(cat;0;dog)": torch.stack([logits[0, 2], logits[1, 0], logits[2, 3]]),
        "layer(stem)": maps.square().mean((1, 2, 3)),
        "l2": (pixels - 0.5).square().mean((1, 2, 3)),
        "-2*logit(1)+channel(stem;3)": maps[:, 3].mean((1, 2)) - 2 * logits[:, 1],
    }
    for text, value in expected.items():
        with torch.no_grad():
            torch.testing.assert_close(seen(net, objective(text), pixels, unit), value, msg=text)
    flat = torch.full((1, 3, 4, 4), 0.3)
    ramp = (torch.arange(4.0) / 10).expand(1, 3, 4, 4)
    view = View(flat, {}, torch.zeros(1))
    assert float(TotalVariation().value(view, net)) == float(Blur().value(view, net)) == 0
    view = View(ramp, {}, torch.zeros(1))
    assert float(TotalVariation().value(view, net)) == pytest.approx(0.01)
    assert float(TotalVariation(1).value(view, net)) == pytest.approx(0.1)
    same = pixels[:1].expand(2, -1, -1, -1)
    with torch.no_grad():
        assert seen(net, 1 * Diversity("stem"), same).tolist() == pytest.approx([-1, -1])
        assert seen(net, 1 * Diversity("stem"), same, torch.tensor([0, 1])).tolist() == [0, 0]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_written_over_later_is_as_it_was(spelling: str) -> None:
    net, pixels = classifier(Spelled(spelling)), photos(2)
    expected = capture(net, pixels, ["bn1", "conv1", "bn2:batch_norm"])
    found = reach(net, pixels.requires_grad_(), ["bn1", "conv1", "bn2:batch_norm"], logits=True)
    assert all(value.requires_grad for value in found.values())
    for layer, value in expected.items():
        torch.testing.assert_close(found[layer].detach(), value)


def test_algebra_and_text_go_round() -> None:
    made = 0.5 * Channel("layer3.1:add", (0, 1, 2, 7)) + Logit("tiger cat") - 2 * TotalVariation(1) - L2()
    assert str(made) == "0.5*channel(layer3.1:add;0-2;7)+logit(tiger cat)-2*tv(1)-l2"
    assert objective(str(made)) == made
    assert objective(" - 2 * tv + 1e-3*l2") == -2 * TotalVariation() + 1e-3 * L2()
    assert (2 * made).terms[0][0] == 1
    assert -(made - made) == objective(str(-(made - made)))
    for term in (Neuron("a", 1), Neuron("a", 1, 2, 3), Direction("a", (0.25, -1)), Layer("a"), Diversity("a"), Blur()):
        assert objective(str(term)) == 1.0 * term
    method = Maximize(made, steps=3)  # type: ignore[arg-type]
    assert parse(method.spec) == from_json(method.to_json()) == method


class Stripes(nn.Module):
    """One filter that detects vertical stripes of a period of four pixels, and later parts that count their calls."""

    def __init__(self) -> None:
        super().__init__()
        wave = torch.tensor([1.0, 1, -1, -1]).repeat(2).expand(3, 8, 8)
        wave = wave * (0.5 + torch.rand(3, 8, 8, generator=generator(0)))
        self.first = nn.Conv2d(3, 2, 8, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.stack([wave, wave.mT]) / 192)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(10 * torch.eye(2))
        self.later = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = F.relu(x)
        self.later += 1
        return self.head(x.amax((2, 3)))


@pytest.mark.parametrize(("parametrization", "rate", "share"), [("frequency", 0.05, 0.8), ("pixels", 0.2, 1)])
def test_the_pattern_of_a_planted_filter_is_found(parametrization: str, rate: float, share: float) -> None:
    net = Classifier(Stripes(), size=8, check=False)
    found = Maximize(
        "neuron(first;0)", steps=300, rate=rate, parametrization=parametrization, jitter=0, scale=0, rotate=0,
        decorrelate=False,
    )(net)  # fmt: skip
    wave = net.module.get_parameter("first.weight")[0].detach()
    optimum = (wave > 0).float()  # of a linear unit in [0, 1]: one where its weight is positive, zero elsewhere
    # in frequencies a step moves all pixels, and a few get stuck far out on the sigmoid's wrong side
    assert float(((found.images.pixels[0] - optimum).abs() < 0.1).float().mean()) >= share
    assert float(found.scores) == pytest.approx(float((wave * optimum).sum()), rel=0.05 if share == 1 else 0.3)
    assert found.history.shape == (300, 1)
    assert float(found.history[-1]) == pytest.approx(float(found.scores), rel=0.01)


def test_the_pass_stops_at_the_last_layer_that_is_needed() -> None:
    net = Classifier(Stripes(), size=12, check=False)
    module = net.module
    Maximize("channel(first;0)", steps=1)(net)  # the first look at the network is a whole pass
    module.later = 0  # type: ignore[assignment]
    found = Maximize("channel(first;0-1)-tv", steps=7)(net)
    assert module.later == 1  # what the model says of the final images
    assert (found.cost.forward, found.cost.backward) == (2 * (7 + 3), 2 * 7)
    Maximize("channel(first;0)+neuron(:relu;1)", steps=5)(net)
    assert module.later == 2
    Maximize("logit(0)", steps=5)(net)
    assert module.later == 2 + 5 + 3


@pytest.mark.parametrize("size", [(8, 8), (7, 12), (9, 5)])
def test_frequencies_are_the_inverse_of_their_inverse_and_waves(size: tuple[int, int]) -> None:
    made = Frequencies(size)
    field = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made.field(made.inverse(field)), field, rtol=1e-4, atol=1e-5)
    parameters = torch.zeros(1, 3, size[0], size[1] // 2 + 1, 2)
    parameters[0, 1, 0, 1, 0] = 1  # one cycle across, its length 1 / width cycles a pixel
    length = max(1 / size[1], 1 / max(size))
    wave = 2 * torch.cos(math.tau * torch.arange(size[1]) / size[1]) / (4 * length) / math.sqrt(size[0] * size[1])
    torch.testing.assert_close(made.field(parameters)[0, 1], wave.expand(size))
    pixels = made.image(parameters)
    torch.testing.assert_close(pixels[0, 1], wave.expand(size).sigmoid())
    assert pixels[0, 0].unique().tolist() == [0.5]


def test_colours_and_pixels_are_in_range_and_correlated() -> None:
    draws = [generator(0, row) for row in range(2)]
    field = 100 * Pixels((6, 6)).start(draws)
    mixed = Pixels((6, 6), colours()).image(field)
    expected = torch.einsum("ij,njhw->nihw", colours(), field).sigmoid()
    torch.testing.assert_close(mixed, expected)
    many = torch.randn(3, 100_000, generator=generator(0))
    assert float(torch.corrcoef(colours() @ many)[0, 1]) == pytest.approx(0.895, abs=0.01)


def test_phases_keep_the_magnitudes() -> None:
    size = (10, 12)
    magnitudes = measured(photos(3)[..., :10, :12], colours())
    made = Phases(magnitudes, size, colours())
    # phases of a real picture: those of any other would be changed by the transform itself
    phases = torch.fft.rfft2(torch.randn(1, 3, *size, generator=generator(0)), norm="ortho").angle()
    torch.testing.assert_close(
        torch.fft.rfft2(made.field(phases), norm="ortho").abs()[0], magnitudes, rtol=1e-4, atol=1e-5
    )
    logits = torch.einsum("ij,njhw->nihw", torch.linalg.inv(colours()), made.image(phases).logit())
    assert float(logits.mean()) == pytest.approx(0, abs=1e-4)
    assert float(logits.std()) == pytest.approx(1, abs=1e-3)
    assert float(natural(size)[0, 0, 0]) == 0
    net = classifier(FAMILIES["mobilenet"]())
    plain, given = (
        Maximize("logit(0-1)", parametrization="maco", steps=15)(net, images) for images in (None, photos())
    )
    assert any("1/f" in note for note in plain.notes)
    assert not any("1/f" in note for note in given.notes)
    assert not torch.equal(plain.images.pixels, given.images.pixels)
    assert (given.scores > given.start).all()


@pytest.mark.parametrize("count", [1, 2])  # one image is sampled in two halves
def test_moves_against_shifts_and_quarter_turns(count: int) -> None:
    picture = photos(count)
    still, right = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([2.0, 3.0, 1.0, 0.0])
    torch.testing.assert_close(Moves(4, 0.1, 5)(picture, still), picture, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Moves(4, 0, 0)(picture, right)[..., 2:, 3:], picture[..., :-2, :-3])
    resampled = Moves(4, 0.1, 5)(picture, right)
    torch.testing.assert_close(resampled[..., 2:, 3:], picture[..., :-2, :-3], rtol=1e-4, atol=1e-4)
    turned = Moves(0, 0, 180)(picture, torch.tensor([0.0, 0.0, 1.0, math.pi / 2]))
    torch.testing.assert_close(turned, picture.rot90(1, (2, 3)), rtol=1e-4, atol=1e-4)
    assert shifted(picture, -100, 0).shape == picture.shape
    drawn = Moves(4, 0.1, 90).draw(0, "a", 500)
    assert float(drawn[:, 0].abs().max()) == 4
    assert 0.9 <= float(drawn[:, 2].min()) < 0.91


@pytest.mark.parametrize("parametrization", ["frequency", "pixels", "maco"])
def test_impressions_of_classes_are_recognised(parametrization: str) -> None:
    net = Classifier(Stripes(), size=16, labels=["upright", "lying"], check=False)
    found = Maximize("logit(0-1)", steps=40, rate=0.2, parametrization=parametrization, snapshots=1)(net)
    assert found.recognised.tolist() == [True, True]
    assert found.probabilities.diagonal().min() > 0.75
    torch.testing.assert_close(found.probabilities, net.predict(found.images).softmax(1))
    assert "the model recognises 2 of 2 images as their class" in found.notes
    assert found.images.names == net.labels
    assert found.steps.tolist() == [20]
    assert found.snapshots.shape == (1, 2, 3, 16, 16)
    assert float(found.images.pixels.min()) >= 0
    assert float(found.images.pixels.max()) <= 1
    assert len(found.plot().axes) == 4
    wrong = Maximize("logit(0)-2*logit(0)", steps=20)(net)  # the weights say to leave the class
    assert not wrong.recognised.any()


def test_another_model_says_what_it_recognises() -> None:
    net = classifier(FAMILIES["mobilenet"]())
    found = Maximize("logit(cat;ant)", steps=40, rate=0.1)(net)
    names = ["dog", "cat", "ant", "bee", "elk"]

    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net.module

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)[:, [3, 2, 0, 1, 4]]

    other = Classifier(Renamed(), mean=net.mean, std=net.std, size=SIZE, labels=names)
    torch.testing.assert_close(found.by(other), found.probabilities[[0, 1], [2, 0]])
    assert torch.equal(found.recognised_by(other), found.recognised)
    told = Maximize("logit(cat;ant)", steps=40, rate=0.1)(net, also=[other, net])
    assert told.others == (other.name, net.name)
    torch.testing.assert_close(told.others_probability[0], found.by(other))
    assert torch.equal(told.others_recognise[1], found.recognised)
    right = int(found.recognised.sum())
    assert f"{other.name} recognises {right} of 2 images as their class" in told.notes
    assert told.facts()["images"][0]["others"][other.name]["recognised"] == bool(found.recognised[0])
    larger = classifier(FAMILIES["resnet"](), size=32)
    assert found.by(larger).shape == (2,)
    with pytest.raises(InputError, match='no class "cat"'):
        found.by(classifier(FAMILIES["resnet"](), labels=["a", "b", "c", "d", "e"]))
    assert Maximize("channel(stem;1)", steps=2)(net).by(other).isnan().all()


def test_a_class_is_the_one_of_any_of_its_names_and_one_that_another_model_lacks_is_a_note() -> None:
    labels = ["tench, Tinca tinca", "3", "crane", "crane", "dog"]
    net = classifier(FAMILIES["mobilenet"](), labels=labels)
    wanted = torch.tensor([0, 1, 2, 3, 4, -1])
    same = classifier(FAMILIES["resnet"](), labels=labels)
    assert counterparts(labels, wanted, same).tolist() == wanted.tolist()
    other = classifier(FAMILIES["resnet"](), labels=["hound, dog", "cat", "Tench", "elk", "ant"], name="other")
    assert counterparts(labels, wanted, other).tolist() == [2, -1, -1, -1, 0, -1]  # and the fourth class is not "3"
    found = Maximize("logit(0;1;4)", steps=2)(net, also=[other])
    assert found.others_probability.isnan().tolist() == [[False, True, False]]
    said = other.predict(found.images).softmax(1)
    torch.testing.assert_close(found.others_probability[0, [0, 2]], said[[0, 2], [2, 0]])
    assert 'other lacks the class "3": it cannot recognise those images' in found.notes
    assert any(note.startswith("other recognises") and " of 2 images" in note for note in found.notes)
    assert found.facts()["images"][1]["others"]["other"] == {"probability": None, "recognised": False}
    assert found.plot() is not None


def test_models_whose_classes_cannot_be_told_are_refused_before_the_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.look.maximize.climb", lambda *_, **__: pytest.fail("it climbed"))
    net = classifier(FAMILIES["mobilenet"]())
    bare = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 3)), size=SIZE, check=False)
    with pytest.raises(InputError, match="same 5 classes"):
        Maximize("logit(0)")(net, also=[bare])


def test_memory_that_does_not_suffice_for_all_images_together_says_what_to_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("seewhy.look.maximize._ascend", full)
    with pytest.raises(SpecError, match=r"all 3 images run together.*a smaller number"):
        Maximize("logit(0)+diversity(stem)", number=3)(classifier(FAMILIES["mobilenet"]()))
    with pytest.raises(MemoryError):
        Maximize("logit(0)", number=3)(classifier(FAMILIES["mobilenet"]()))


def test_seeds_batches_and_neighbours() -> None:
    net = classifier(FAMILIES["densenet"]())
    first = Maximize("channel(stem;0-4)", steps=8)(net)
    assert torch.equal(first.images.pixels, Maximize("channel(stem;0-4)", steps=8)(net).images.pixels)
    assert not torch.equal(first.images.pixels, Maximize("channel(stem;0-4)", steps=8, seed=1)(net).images.pixels)
    net.engine.batch = 2
    halved = Maximize("channel(stem;0-4)", steps=8)(net)
    torch.testing.assert_close(halved.images.pixels, first.images.pixels, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(halved.history, first.history, rtol=1e-3, atol=1e-4)
    alone = Maximize("channel(stem;0)", number=2, steps=8)(net)
    torch.testing.assert_close(alone.images.pixels[0], first.images.pixels[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(alone.images.pixels[1], alone.images.pixels[0])


def test_diversity_makes_images_differ() -> None:
    net = classifier(FAMILIES["mobilenet"]())
    settings = {"number": 3, "steps": 60, "seed": 2}
    plain, diverse = (
        Maximize(text, **settings)(net)  # type: ignore[arg-type]
        for text in ("channel(stem;1)", "channel(stem;1)+5*diversity(stem)")
    )
    apart = [float(seen(net, 1 * Diversity("stem"), each.images.pixels).mean()) for each in (plain, diverse)]
    assert apart[1] > apart[0]
    assert "there is one" in Maximize("logit(0)+diversity(stem)", steps=2)(net).notes[0]


def test_penalties_do_what_they_say() -> None:
    net = classifier(FAMILIES["mobilenet"]())
    for name in ("tv", "l2", "blur"):
        plain, held = (
            Maximize(f"logit(0)-{weight}*{name}", steps=40, parametrization="pixels")(net).images.pixels
            for weight in (0, 300)
        )
        measure = objective(name)
        view = [View(each, {}, torch.zeros(1, dtype=torch.long)) for each in (plain, held)]
        assert float(measure(view[1], net)) < 0.5 * float(measure(view[0], net)), name


def test_dead_units_and_bad_rates_are_told() -> None:
    class Dead(Stripes):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.first(x) - 100).mean((2, 3)))

    net = Classifier(Dead(), size=8, check=False)
    found = Maximize("channel(:relu;0)", steps=3)(net)
    assert any("no gradient ever reached 1 of 1" in note for note in found.notes)
    assert any("may be dead" in note for note in found.notes)
    assert any("may be dead" in note for note in Maximize("channel(:relu;0)-tv", steps=3)(net).notes)
    with pytest.raises(ModelError, match="NaN"):
        Maximize("logit(0)", steps=3)(Classifier(NotANumber(), size=8, check=False))

    class Cut(Stripes):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    with pytest.raises(NothingToExplain, match="does not depend"):
        Maximize("logit(0)", steps=3)(Classifier(Cut(), size=8, check=False))


class NotANumber(Stripes):
    """Answers NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("maximize:objective=chanel(stem;1)", SpecError, 'did you mean "channel"'),
        ("maximize:objective=channel(stem)", SpecError, "expected channel"),
        ("maximize:objective=channel(stem;x)", SpecError, "whole number"),
        ("maximize:objective=channel(stem;3-1)", SpecError, "range"),
        ("maximize:objective=neuron(stem;1;2)", SpecError, "row and column"),
        ("maximize:objective=direction(stem;0;0)", SpecError, "not all zero"),
        ("maximize:objective=channel(stem;1", SpecError, "expected terms"),
        ("maximize:objective=", SpecError, "expected terms"),
        ("maximize:objective=tv l2", SpecError, "expected terms"),
        ("maximize:objective=tv(0)", SpecError, "exponent"),
        ("maximize:objective=l2(3)", SpecError, "expected l2"),
        ("maximize:objective=channel(stem;0-2)+logit(0-1)", SpecError, "as many units"),
        ("maximize:parametrization=paint", SpecError, "frequency, pixels, maco"),
        ("maximize:steps=0", SpecError, "steps ≥ 1"),
        ("maximize:rate=0", SpecError, "rate > 0"),
        ("maximize:scale=1", SpecError, "scale"),
        ("maximize:objective=channel(stem;8)", LayerError, "from 0 to 7, got 8"),
        ("maximize:objective=channel(stm;1)", LayerError, 'no layer or operation "stm"'),
        ("maximize:objective=neuron(stem;1;99;0)", LayerError, "a row of stem"),
        ("maximize:objective=neuron(fc;1;0;0)", LayerError, "no row and column"),
        ("maximize:objective=direction(stem;1;2)", LayerError, "direction of 8 numbers"),
        ("maximize:objective=logit(5)", InputError, "from 0 to 4"),
        ("maximize:objective=logit(catt)", InputError, 'did you mean "cat"'),
        ("deepdream:octaves=0", SpecError, "octaves ≥ 1"),
        ("deepdream:objective=logit(0-2)", SpecError, "one unit"),
        ("deepdream:objective=neuron(stem;1;2;3)", SpecError, "expected octaves=1 for neuron"),
        ("deepdream", InputError, "at least one"),
        ("invert:steps=0", SpecError, "steps ≥ 1"),
        ("invert", InputError, "at least one"),
    ],
)
def test_bad_input_is_one_clear_sentence(spec: str, error: type[Exception], words: str) -> None:
    net = classifier(FAMILIES["mobilenet"]())
    with pytest.raises(error, match=words) as caught:
        parse(spec)(net)
    assert "\n" not in str(caught.value)


def test_layers_without_maps_or_codes_and_names_with_commas() -> None:
    net = classifier(FAMILIES["convnext"]())
    with pytest.raises(LayerError, match="channels last"):
        Maximize("channel(norm;0)")(net)
    with pytest.raises(SpecError, match="synonym"):
        Logit("tabby, tabby cat")
    with pytest.raises(SpecError, match="semicolons"):
        Maximize("channel(stem,1)")


def test_dreams_rise_and_sizes_are_fixed_only_where_they_must() -> None:
    net, images = classifier(lively_flat()), photos(2)
    found = DeepDream("layer(0)", octaves=3, steps=4)(net, images)
    assert (found.scores > found.start).all()
    assert float(found.dreams.min()) >= 0
    assert float(found.dreams.max()) <= 1
    torch.testing.assert_close(found.start, capture(net, images, ["0"])["0"].square().mean((1, 2, 3)))
    torch.testing.assert_close(found.scores, capture(net, found.dreams, ["0"])["0"].square().mean((1, 2, 3)))
    assert (found.cost.forward, found.cost.backward) == (2 * 14 + 1, 2 * 12)
    assert len(found.plot().axes) == 4
    with pytest.raises(LayerError, match="use octaves=1"):
        DeepDream("logit(0)", octaves=2, steps=1)(net, images)
    assert not DeepDream("logit(0)", octaves=1, steps=4, jitter=0)(net, images).notes


def lively_flat() -> nn.Module:
    return lively(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 5)))


def test_an_invertible_layer_is_inverted() -> None:
    """A 1 × 1 convolution with an orthogonal matrix keeps all: the inversion is the image."""

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = nn.Conv2d(3, 3, 1, bias=False)
            with torch.no_grad():
                self.turn.weight.copy_(torch.linalg.qr(torch.randn(3, 3, generator=generator(0)))[0][..., None, None])

        def forward(self, x: Tensor) -> Tensor:
            return self.turn(x).mean((2, 3))

    net = Classifier(Kept(), size=SIZE, check=False)
    images = 0.2 + 0.6 * photos(2)
    found = Invert("turn", tv=0, steps=200, rate=0.1, snapshots=1)(net, images)
    assert float((found.inversions - images).abs().mean()) < 0.02
    with torch.no_grad():
        codes, other = (capture(net, each, ["turn"])["turn"].flatten(1) for each in (images, found.inversions))
    torch.testing.assert_close(found.errors, (codes - other).norm(dim=1) / codes.norm(dim=1), rtol=1e-2, atol=1e-4)
    assert (found.errors < 0.05 * found.start).all()
    assert found.kept.all()
    smooth = Invert("turn", tv=100, steps=100)(net, images)
    view = [View(each, {}, torch.zeros(2)) for each in (smooth.inversions, found.inversions)]
    assert (TotalVariation().value(view[0], net) < TotalVariation().value(view[1], net)).all()


def test_an_image_that_a_layer_answers_nothing_to_has_no_inversion() -> None:
    net = Classifier(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)), size=8, check=False)
    with torch.no_grad():
        net.module.get_submodule("0").get_parameter("bias").fill_(-100)
    with pytest.raises(NothingToExplain, match="1 answers zero everywhere to image 1"):
        Invert("1", steps=2)(net, torch.rand(2, 3, 8, 8))
