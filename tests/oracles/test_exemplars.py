"""Exemplars against a pass that stores everything, windows against gradients, and a unit planted by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets import FAMILIES, SIZE, Dividing, classifier, photos
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.photo import Picture
from seewhy.data.sets import Arrays, DataSet
from seewhy.errors import DataError, InputError, LayerError, SpecError
from seewhy.lens.capture import capture, last_map
from seewhy.lens.receptive import receptive_fields
from seewhy.look.exemplars import Exemplars, ExemplarSet
from seewhy.look.tally import BINS, Tally, bins, edges


def brute(net: Classifier, images: Tensor, layer: str) -> Tensor:
    """Every response to every image, one at a time."""
    return torch.cat([capture(net, image[None], [layer])[layer] for image in images])


def labelled(count: int, seed: int = 1) -> Images:
    return Images(photos(count, seed), labels=torch.arange(count) % 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_images_and_places_are_those_of_a_pass_that_stores_everything(family: str) -> None:
    net, images = classifier(FAMILIES[family]()), photos(70)  # more than one part
    net.engine.batch = 1  # as the other side has it, so that equal means equal
    found = Exemplars(k=5)(net, images)
    layer = found.layer
    maps = brute(net, images, layer)
    n, units, _, width = maps.shape
    for unit in range(units):
        peaks = maps[:, unit].flatten(1).max(1).values.tolist()
        best = sorted(range(n), key=lambda image: (-peaks[image], image))[:5]
        assert found.images[layer][unit].tolist() == best
        assert found.values[layer][unit].tolist() == [peaks[image] for image in best]
        for slot, image in enumerate(best):
            place = int(np.argmax(maps[image, unit].numpy()))
            assert found.positions[layer][unit, slot].tolist() == [place // width, place % width]
    assert found.count == 70
    assert found.names[int(torch.searchsorted(found.named, found.images[layer][0, 0]))] == found.name(
        int(found.images[layer][0, 0])
    )


def test_all_layers_at_once_are_each_alone_and_any_batch_size_will_do() -> None:
    net, images = classifier(FAMILIES["densenet"]()), photos(40)
    together = Exemplars(layers=("stem", "convs.1"), k=3)(net, images)
    for layer in together.layers:
        for batch in (1, 7):
            net.engine.batch = batch
            alone = Exemplars(layers=(layer,), k=3)(net, images)
            assert torch.equal(alone.images[layer], together.images[layer])
            assert torch.equal(alone.positions[layer], together.positions[layer])
            assert torch.equal(alone.histogram[layer].sum(1), together.histogram[layer].sum(1))
        net.engine.batch = None


def test_windows_are_where_the_gradient_of_the_unit_is() -> None:
    net, images = classifier(FAMILIES["densenet"]()), photos(12)
    found = Exemplars(layers=("convs.0",), k=4)(net, images)
    net.module.eval()
    for unit in range(4):
        for slot in range(4):
            image = images[found.images["convs.0"][unit, slot]][None].clone().requires_grad_()
            kept: list[Tensor] = []
            handle = net.module.get_submodule("convs.0").register_forward_hook(lambda _, __, out: kept.append(out))  # noqa: B023
            net.logits(image)
            handle.remove()
            down, across = found.positions["convs.0"][unit, slot].tolist()
            kept[0][0, unit, down, across].backward()
            assert image.grad is not None
            reached = (image.grad[0] != 0).any(0).nonzero()
            low, high = reached.amin(0).tolist(), (reached.amax(0) + 1).tolist()
            top, left, bottom, right = found.windows["convs.0"][unit, slot].tolist()
            # rectified units may hide some of the window from the gradient, and never show it more
            assert top <= low[0] and left <= low[1] and bottom >= high[0] and right >= high[1]  # noqa: PT018
            assert (bottom - top) * (right - left) <= 25
    stem = Exemplars(layers=("stem",), k=2)(net, images)
    top, left, bottom, right = stem.windows["stem"][0, 0].tolist()
    down, across = stem.positions["stem"][0, 0].tolist()
    wanted = (max(down - 1, 0), max(across - 1, 0), min(down + 2, SIZE), min(across + 2, SIZE))
    assert (top, left, bottom, right) == wanted
    crop = stem.cut("stem", 0, images, net)[0]
    assert torch.equal(crop, images[stem.images["stem"][0, 0], :, top:bottom, left:right])


def test_several_of_one_image_do_not_overlap_as_a_greedy_search_finds_them() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(6)
    net.engine.batch = 1
    layer, k = "1", 9
    found = Exemplars(layers=(layer,), k=k, per_image=4)(net, images)
    maps, field = brute(net, images, layer), receptive_fields(net)[layer]
    for unit in range(maps.shape[1]):
        wanted = []
        for index, image in enumerate(maps[:, unit]):
            order = sorted(np.ndindex(*image.shape), key=lambda place: -float(image[place]))
            taken: list[tuple[int, int, int, int]] = []
            for place in order:
                a = field.window(*place)
                apart = (max(a[0], b[0]) >= min(a[2], b[2]) or max(a[1], b[1]) >= min(a[3], b[3]) for b in taken)
                if all(apart):
                    taken.append(a)
                    wanted.append((-float(image[place]), index, place))
                if len(taken) == 4:
                    break
        got = list(
            zip(
                (-found.values[layer][unit]).tolist(),
                found.images[layer][unit].tolist(),
                map(tuple, found.positions[layer][unit].tolist()),
                strict=True,
            )
        )
        assert [each[0] for each in got] == [each[0] for each in sorted(wanted)[:k]]
        strict = [each for each in got if sum(other[0] == each[0] for other in wanted) == 1]
        assert set(strict) <= set(wanted)


def test_two_halves_and_a_pass_that_was_stopped_are_the_whole(tmp_path: Path) -> None:
    net, images, method = classifier(FAMILIES["resnet"]()), labelled(30), Exemplars(k=6)
    whole = method.tally(net, images)
    first, second = method.tally(net, images[:13]), method.tally(net, images[13:], first=13)
    for a, b in ((first, second), (method.tally(net, images[13:], first=13), method.tally(net, images[:13]))):
        assert same(a.merge(b), whole)
    with pytest.raises(InputError, match="have seen image 0"):
        first.merge(whole)

    def stopping() -> Iterator[Images]:
        yield images[:11]
        raise KeyboardInterrupt

    half = method.tally(net, images[:11])
    half.save(tmp_path / "state.npz")
    assert same(Tally.load(tmp_path / "state.npz"), half)
    before = net.engine.batch
    assert same(method.tally(net, images, path=tmp_path / "state.npz"), whole)
    again = Tally.load(tmp_path / "state.npz")
    assert same(method.tally(net, images, path=tmp_path / "state.npz"), again)  # nothing is counted twice
    assert net.engine.batch == before
    with pytest.raises(KeyboardInterrupt):
        method.tally(net, stopping())
    with pytest.raises(InputError, match="this method, model and layers"):
        Exemplars(k=7).tally(net, images, again)
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not the whole state"):
        Tally.load(tmp_path / "other.npz")
    read, direct = method.result(net, whole, images), method(net, images)
    assert torch.equal(read.images[read.layer], direct.images[read.layer])
    assert read.crops is not None and direct.crops is not None  # noqa: PT018
    assert torch.equal(read.crops[read.layer], direct.crops[read.layer])


def test_the_order_of_the_images_decides_between_equals_whenever_they_come() -> None:
    net, images, method = classifier(FAMILIES["mobilenet"]()), labelled(30), Exemplars(layers=("head",), k=3)
    net.engine.batch = 1
    late = method.tally(net, images[13:], first=13)
    whole = method.tally(net, images)
    assert (whole.layers["head"].values == 6).all(1).any()  # rectified from above, too
    assert same(method.tally(net, images, late), whole)
    assert late.seen == [(0, 30)]


def test_peaks_that_a_ceiling_makes_the_same_are_said_and_not_chosen() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), labelled(30)
    assert last_map(net) == "head"
    cut = Exemplars(layers=("head",), k=3)(net, images)
    best = cut.values["head"]
    tied = int(((best[:, 0] == best[:, 1]) & (best[:, 0] > 0)).sum())
    assert tied
    assert any(
        note.startswith(f"{tied} of 12 units of head answer their largest value to several") for note in cut.notes
    )
    whole = Exemplars(k=3)(net, images)
    assert whole.layer == "head.0"  # what goes into its ReLU6
    assert not any("largest value" in note for note in whole.notes)
    assert Exemplars(k=3)(classifier(FAMILIES["resnet"]()), images).layer == "relu2"  # without a ceiling


def test_the_units_drawn_stand_out_and_differ() -> None:
    net, images = classifier(FAMILIES["mobilenet"]()), labelled(60)
    found = Exemplars(layers=("expand.1",), k=3, limit=4)(net, images)
    peaks = brute(net, images.pixels, "expand.1").amax((2, 3))
    middle = found.edges
    counted = torch.stack([torch.histogram(peaks[:, unit].double(), middle.double()).hist for unit in range(16)])
    share = counted.cumsum(1) / 60
    low, high = (
        torch.tensor([float(middle[i] + middle[i + 1]) / 2 for i in (share >= q).int().argmax(1)]) for q in (0.1, 0.9)
    )
    beyond = (peaks.topk(3, dim=0).values.mean(0) - high) / (high - low)
    expected: list[int] = []
    for unit in beyond.argsort(descending=True).tolist():
        own = set(found.images["expand.1"][unit].tolist())
        if len(expected) < 4 and all(
            len(own & set(found.images["expand.1"][other].tolist())) <= 1 for other in expected
        ):
            expected.append(unit)
    assert found.drawn["expand.1"].tolist() == sorted(expected)
    every = Exemplars(layers=("expand.1",), k=3, limit=99)(net, images)
    assert every.drawn["expand.1"].tolist() == list(range(16))
    told = found.facts()["layers"]["expand.1"]["drawn"][0]
    assert told["unit"] == sorted(expected)[0]
    assert [each["image"] for each in told["exemplars"]] == [
        found.name(index) for index in found.images["expand.1"][told["unit"]].tolist()
    ]


def test_a_pass_writes_its_state_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle, nothing that was written is looked at again."""
    monkeypatch.setattr("seewhy.look.exemplars.EVERY", 0.0)
    net, method, images, path = classifier(FAMILIES["vgg"]()), Exemplars(k=3), labelled(150), tmp_path / "state"

    class Killed(BaseException):
        pass

    def stream() -> Iterator[Images]:
        yield images[:130]
        raise Killed

    with pytest.raises(Killed):
        method.tally(net, stream(), path=path)
    assert len(Tally.load(path)) == 128  # two parts of 64
    seen: list[int] = []
    net.engine.progress = lambda done, total: seen.append(done)
    assert same(method.tally(net, images, path=path), method.tally(classifier(FAMILIES["vgg"]()), images))
    assert seen[0] == 150  # of all images
    assert net.engine.progress is not None


def same(one: Tally, two: Tally) -> bool:
    plain = ("key", "classes", "seen", "names", "failed", "strange")
    for address, rows in one.layers.items():
        for mine, theirs in zip(vars(rows).values(), vars(two.layers[address]).values(), strict=True):
            if isinstance(mine, Tensor):
                torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    return all(getattr(one, name) == getattr(two, name) for name in plain) and torch.equal(one.per_class, two.per_class)


def test_the_state_is_of_one_size_whatever_the_number_of_images(tmp_path: Path) -> None:
    net, method = classifier(FAMILIES["inception"]()), Exemplars(layers=("stem", "a"), k=3)
    sizes = []
    for count in (40, 200):
        state = method.tally(net, (photos(20, seed) for seed in range(count // 20)))
        assert len(state) == state.images == count
        assert len(state.names) <= 3 * (6 + 4)
        state.save(tmp_path / "state.npz")
        sizes.append(
            sum(
                value.numel()
                for rows in state.layers.values()
                for value in vars(rows).values()
                if isinstance(value, Tensor)
            )
        )
    assert sizes[0] == sizes[1]
    whole = (tmp_path / "state.npz").read_bytes()
    for cut in (0, 100, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"not the whole state.*without it the pass begins anew"):
            Tally.load(tmp_path / "cut.npz")


def test_histograms_sums_classes_and_purity_are_those_of_all_peaks() -> None:
    net, images = classifier(FAMILIES["densenet"]()), labelled(33)
    found = Exemplars(layers=("convs.2",), k=4)(net, images)
    peaks = brute(net, images.pixels, "convs.2").amax((2, 3))
    assert images.labels is not None
    for unit in range(4):
        counted = np.histogram(peaks[:, unit].numpy(), edges().numpy())[0]
        assert np.array_equal(found.histogram["convs.2"][unit].numpy(), counted)
        best = peaks[:, unit].argsort(descending=True)[:4]
        counts = torch.bincount(images.labels[best], minlength=5)
        assert float(found.purity["convs.2"][unit]) == pytest.approx(int(counts.max()) / 4)
        assert sum(count for _, count, _ in found.classes_of("convs.2", unit)) == 4
    torch.testing.assert_close(found.mean["convs.2"], peaks.mean(0))
    torch.testing.assert_close(found.deviation["convs.2"], peaks.std(0, correction=0), rtol=1e-4, atol=1e-6)
    means = torch.stack([peaks[images.labels == label].mean(0) for label in range(5)], 1)
    torch.testing.assert_close(found.class_means["convs.2"], means)
    score = (means[:, 3] - peaks.mean(0)) / peaks.std(0, correction=0)
    assert [unit for unit, _ in found.units_of("convs.2", 3)] == score.argsort(descending=True).tolist()


def test_units_that_answer_alike_to_all_images_have_no_deviation_and_no_class() -> None:
    net = classifier(FAMILIES["densenet"]())
    images = Images(photos(1).repeat(7, 1, 1, 1), labels=torch.arange(7) % 2)
    net.engine.batch = 2  # the last one comes alone, and its last digits may differ
    found = Exemplars(layers=("convs.2",), k=2)(net, images)
    assert float(found.deviation["convs.2"].max()) == 0
    assert found.units_of("convs.2", 0) == []
    with pytest.raises(InputError, match="answer alike to all images"):
        found.plot_classes()


def test_the_sketch_puts_every_number_between_its_edges() -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).exp() * torch.tensor([1, -1]).repeat(2500)
    border, placed = edges(), bins(values)
    assert len(border) == BINS + 1
    assert (border.diff() > 0).all()
    assert ((border[placed] <= values) & (values <= border[placed + 1])).all()
    assert bins(torch.tensor([0.0, -0.0, 1e-9, 1e9, -1e9])).tolist() == [BINS // 2] * 3 + [BINS - 1, 0]


PATTERN = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])


def planted() -> tuple[Classifier, Images, list[tuple[int, int]]]:
    """A net whose unit 2 is a filter for a small checkerboard, and images of which every third one has it somewhere."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    net = Classifier(module, size=SIZE, labels=["plain", "board"], check=False)
    with torch.no_grad():
        module[0].get_parameter("weight").copy_(0.01 * torch.ones(4, 3, 3, 3))
        module[0].get_parameter("weight")[2] = PATTERN
    draw = torch.Generator().manual_seed(3)
    pixels = 0.4 + 0.2 * torch.rand(30, 3, SIZE, SIZE, generator=draw)
    where = []
    for index in range(0, 30, 3):
        down, across = torch.randint(0, SIZE - 3, (2,), generator=draw).tolist()
        pixels[index, :, down : down + 3, across : across + 3] = 0.5 + 0.5 * PATTERN
        where.append((down, across))
    return net, Images(pixels, labels=(torch.arange(30) % 3 == 0).long()), where


def test_a_planted_unit_is_found_with_its_places_and_its_class() -> None:
    net, images, where = planted()
    found = Exemplars(layers=("1",), k=10)(net, images)
    assert sorted(found.images["1"][2].tolist()) == list(range(0, 30, 3))
    for index, window in zip(found.images["1"][2].tolist(), found.windows["1"][2].tolist(), strict=True):
        down, across = where[index // 3]
        assert window == [down, across, down + 3, across + 3]
    assert found.purity["1"][2] == 1
    assert found.classes_of("1", 2)[0][:2] == ("board", 10)
    assert found.units_of("1", 1)[0][0] == 2
    for crop in found.cut("1", 2, images, net):
        assert torch.equal(crop, (0.5 + 0.5 * PATTERN).expand(3, 3, 3))


class _Broken:
    """A source of pictures of which one is damaged."""

    def __init__(self, array: np.ndarray, bad: int) -> None:
        self.inner, self.bad, self.opened = Arrays(array), bad, 0

    def picture(self, position: int) -> Picture:
        self.opened += 1
        if position == self.bad:
            raise DataError("row 17 is damaged")
        return self.inner.picture(position)

    def content(self, position: int) -> bytes:
        return self.inner.content(position)


def data(count: int, bad: int) -> DataSet:
    array = (photos(count).permute(0, 2, 3, 1) * 255).round().byte().numpy()
    labels = tuple(index % 5 for index in range(count))
    names = tuple(f"picture {index}" for index in range(count))
    return DataSet("pictures", names, _Broken(array, bad), labels, ("ant", "bee", "cat", "dog", "elk"))


def test_a_damaged_picture_in_the_middle_is_a_note_and_nothing_else_is_lost() -> None:
    net, method, pictures = classifier(FAMILIES["resnet"]()), Exemplars(k=3), data(40, 17)
    found = method(net, pictures)
    assert found.failed == ((17, "row 17 is damaged"),)
    assert found.count == 39
    assert "1 of 40 images could not be read: number 17, row 17 is damaged" in found.notes
    good = [index for index in range(40) if index != 17]
    alone = method(net, pictures.subset(good))
    moved = torch.tensor(good)[alone.images[alone.layer]]
    assert torch.equal(found.images[found.layer], moved)
    assert found.name(int(moved[0, 0])) == f"picture {int(moved[0, 0])}"
    streamed = method(net, pictures.each(net.preprocess))
    assert torch.equal(streamed.images[found.layer], moved)
    assert streamed.crops is None
    assert any("as a stream" in note for note in streamed.notes)
    assert streamed.plot() is not None
    with pytest.raises(InputError, match=r"at least one image that can be read, got none: row 17"):
        method(net, pictures.subset([17]))


def test_images_that_leave_a_rectified_unit_silent_are_no_exemplars_of_it() -> None:
    """Unit 0 answers to the red images alone, which are of class 1; all come after others that it does not answer to."""
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    net = Classifier(module, size=8, labels=["plain", "red"], check=False)
    with torch.no_grad():
        module[0].get_parameter("weight").zero_()[0, 0] = 1
        module[0].get_parameter("weight")[1] = 1
        module[0].get_parameter("bias").copy_(torch.tensor([-0.5, 0.1]))
    pixels = torch.full((40, 3, 8, 8), 0.2)
    pixels[30:34, 0, 4, 5] = 1
    images = Images(pixels, labels=torch.arange(40) // 20)
    found = Exemplars(layers=("1",), k=9)(net, images)
    assert found.images["1"][0].tolist() == [30, 31, 32, 33, *[-1] * 5]
    assert found.labels["1"][0].tolist() == [1] * 4 + [-1] * 5
    assert found.values["1"][0].tolist() == [0.5] * 4 + [-torch.inf] * 5
    assert found.positions["1"][0].tolist() == [[4, 5]] * 4 + [[-1, -1]] * 5
    assert found.windows["1"][0].tolist() == [[4, 5, 5, 6]] * 4 + [[0] * 4] * 5
    assert found.purity["1"][0] == 1
    assert [each[:2] for each in found.classes_of("1", 0)] == [("red", 4)]
    assert (found.images["1"][1] >= 0).all()  # all images excite the other unit
    assert "1 of 2 units of 1 have fewer exemplars than asked for: all else leaves them at zero" in found.notes
    assert len(found.cut("1", 0, images, net)) == len(found.facts()["layers"]["1"]["drawn"][0]["exemplars"]) == 4
    assert found.crops is not None
    assert (found.crops["1"][0, 4:] == 255).all()
    assert found.mean["1"][0] == pytest.approx(0.05)  # zeros count for the mean and the histogram
    assert int(found.histogram["1"][0].sum()) == 40
    below = Exemplars(layers=("0",), k=9)(net, images)
    assert (below.images["0"] >= 0).all()  # not rectified: the least negative are the strongest
    several = Exemplars(layers=("1",), k=9, per_image=3)(net, images)
    assert several.images["1"][0].tolist() == [30, 31, 32, 33, *[-1] * 5]


def test_silent_units_are_drawn_last() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(12)
    with torch.no_grad():
        net.module.get_submodule("3").get_parameter("bias")[:4] = -1000
    assert min(Exemplars(layers=("4",), k=9, limit=8)(net, images).drawn["4"].tolist()) == 4
    assert Exemplars(layers=("4",), k=9, limit=12)(net, images).drawn["4"].tolist() == list(range(12))


def test_what_was_read_is_not_read_again() -> None:
    net, pictures = classifier(FAMILIES["resnet"]()), data(12, -1)
    state = Exemplars().tally(net, pictures.subset(range(8)))
    source = pictures.source
    assert isinstance(source, _Broken)
    before = source.opened
    Exemplars().tally(net, pictures, state)
    assert source.opened - before == 4


def call(found: ExemplarSet) -> tuple[str, ...]:
    return found.notes


def test_bad_input_is_a_clear_sentence_or_note() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(3)
    assert "k = 9 of 3 images: fewer exemplars than asked for" in call(Exemplars()(net, images))
    one = Exemplars(layers=("11",), k=2)(net, Images(images[:1], labels=torch.zeros(1, dtype=torch.long)))
    assert one.windows["11"][0].tolist() == [[0, 0, SIZE, SIZE], [0] * 4]  # a vector's units see the whole image
    assert one.images["11"][0].tolist() == [0, -1]
    assert any("one class" in note for note in one.notes)
    for error, words, method, given in (
        (InputError, "give some", Exemplars(), None),
        (InputError, "units 0 to 11; there is no unit 12", Exemplars(units=(12,)), images),
        (LayerError, "did you mean|seewhy model", Exemplars(layers=("40",)), images),
        (InputError, "expected images of 24×24, got 30×30", Exemplars(), torch.rand(2, 3, 30, 30)),
        (InputError, "has the label 7", Exemplars(), Images(images, labels=torch.tensor([0, 7, 1]))),
        (InputError, "a stream of Images", Exemplars(), iter(["cat"])),
        (InputError, "got none", Exemplars(), iter([])),
    ):
        with pytest.raises(error, match=words):
            method(net, given)
    with pytest.raises(SpecError, match="k=0"):
        Exemplars(k=0)
    with pytest.raises(LayerError, match="there are none of"):
        one.classes_of("12", 0)
    with pytest.raises(LayerError, match="choose another"):
        Exemplars(layers=("norm",))(classifier(FAMILIES["convnext"]()), images)


def test_dead_units_and_answers_that_are_no_numbers_are_said() -> None:
    net, images = classifier(FAMILIES["vgg"]()), photos(4)
    with torch.no_grad():
        net.module.get_submodule("3").get_parameter("bias")[5] = -1000
    found = Exemplars(k=2)(net, images)
    assert "1 of 12 units of 4 answer above zero to no image" in found.notes
    with torch.no_grad():
        net.module.get_submodule("3").get_parameter("bias")[5] = torch.inf
    strange = Exemplars(k=2)(net, images)
    assert strange.images["4"][5].tolist() == [-1, -1]
    assert "4 responses were infinite or not a number, and are not counted" in strange.notes


def test_good_images_are_not_lost_among_many_that_answer_no_numbers() -> None:
    net = Classifier(Dividing(), size=SIZE, check=False)
    images = photos(8)
    images[:5] = 0
    found = Exemplars(layers=("same",), k=2)(net, images)
    best = images.amax((2, 3))[5:].topk(2, dim=0).indices.T + 5
    assert torch.equal(found.images["same"], best)
    assert "15 responses were infinite or not a number, and are not counted" in found.notes
    assert "the windows are not known, so whole images are shown" in found.notes[0]
    assert (found.windows["same"] == torch.tensor([0, 0, SIZE, SIZE])).all()
