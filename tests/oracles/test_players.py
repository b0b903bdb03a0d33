"""Segments, and what a net answers when some are hidden: against loops, files made by hand, and passes one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nets import SIZE, Mobile, classifier, photos
from seewhy.engine import Meter
from seewhy.errors import InputError, SpecError
from seewhy.explain import players
from seewhy.explain.baseline import baseline
from seewhy.explain.players import hidden, known_segments, play, segments, spread


@pytest.mark.parametrize("how", ["slic", "grid"])
def test_segments_have_no_gaps_and_are_the_same_every_time(how: str) -> None:
    image = torch.nn.functional.interpolate(photos(1), size=(60, 80), mode="bicubic").clamp(0, 1)[0]
    labels = segments(image, how, 20)
    assert labels.shape == (60, 80)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))
    assert 10 <= int(labels.max()) + 1 <= 24
    assert torch.equal(labels, segments(image, how, 20))


def test_a_grid_is_rectangles_of_nearly_one_size_even_where_pixels_are_few() -> None:
    labels = segments(torch.zeros(3, 30, 40), "grid", 12)
    assert labels[::10, ::10].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert labels.flatten().bincount().tolist() == [100] * 12
    assert segments(torch.zeros(3, 2, 2), "grid", 50).tolist() == [[0, 1], [2, 3]]


def test_superpixels_follow_an_edge() -> None:
    image = torch.zeros(3, 40, 40)
    image[:, :, 17:] = 0.9
    labels = segments(image, "slic", 8)
    assert not set(labels[:, :16].unique().tolist()) & set(labels[:, 18:].unique().tolist())


def test_a_label_map_is_read_from_either_kind_of_file(tmp_path: Path) -> None:
    held = np.array([[7, 7, 200], [0, 7, 200]])
    np.save(tmp_path / "map.npy", held)
    Image.fromarray(held.astype(np.uint8)).save(tmp_path / "map.png")
    for name in ("map.npy", "map.png"):
        found = segments(torch.rand(3, 2, 3), str(tmp_path / name), 50)
        assert found.tolist() == [[1, 1, 2], [0, 1, 2]]
        with pytest.raises(InputError, match=r"4 × 3 pixels, got 2 × 3"):
            segments(torch.rand(3, 4, 3), str(tmp_path / name), 50)


def test_what_is_no_label_map_is_refused_in_a_sentence(tmp_path: Path) -> None:
    image = torch.rand(3, 4, 4)
    np.save(tmp_path / "real.npy", np.random.default_rng(0).random((4, 4)))
    np.save(tmp_path / "one.npy", np.ones((4, 4), dtype=int))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.png").write_text("not a picture")
    for name, words in {
        "real.npy": "one whole number a pixel",
        "one.npy": "at least two segments .* label map of two or more",
        "object.npy": "expected a label map",
        "text.png": "expected a label map",
        "none.npy": "expected a label map",
    }.items():
        with pytest.raises(InputError, match=words):
            segments(image, str(tmp_path / name), 50)
    with pytest.raises(InputError, match="segments=grid or a larger count"):
        segments(torch.full((3, 4, 4), 0.5), "slic", 2)
    with pytest.raises(SpecError, match='did you mean "slic"'):
        known_segments("slik", 50, "segments")
    with pytest.raises(SpecError, match="count=1"):
        known_segments("grid", 1, "segments")


def test_hidden_segments_show_the_stand_in_and_the_others_the_image_to_the_bit() -> None:
    image, stand_in = photos(1)[0], baseline("blur", photos(1))[0]
    labels = segments(image, "grid", 9)
    kept = torch.rand(5, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    found = hidden(image, stand_in, labels, kept)
    for row, picture in zip(kept, found, strict=True):
        for y in range(SIZE):
            for x in range(SIZE):
                shown = image if row[labels[y, x]] else stand_in
                assert torch.equal(picture[:, y, x], shown[:, y, x])


def test_values_are_spread_over_their_segments() -> None:
    labels = torch.tensor([[0, 0, 1], [2, 1, 1]])
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert spread(values, labels).tolist() == [[[1, 1, 2], [3, 2, 2]], [[4, 4, 5], [6, 5, 5]]]


def test_play_is_a_pass_for_each_coalition_and_holds_one_batch_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = classifier(Mobile(nn.ReLU6)), photos(1)[0]
    net.engine.batch = 7
    stand_in, labels = torch.zeros_like(image), segments(image, "grid", 9)
    kept = torch.rand(40, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    sizes: list[int] = []

    def watched(*given: torch.Tensor) -> torch.Tensor:
        sizes.append(len(given[3]))
        return hidden(*given)

    monkeypatch.setattr(players, "hidden", watched)
    with Meter() as meter:
        found = play(net, image, stand_in, labels, kept)
    assert meter.cost.forward == 40
    assert sizes == [7, 7, 7, 7, 7, 5]
    assert not found.requires_grad
    for row, logits in zip(kept, found, strict=True):
        one = net.predict((image * row[labels])[None])[0]
        torch.testing.assert_close(logits, one, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="each of 9 segments, got 8"):
        play(net, image, stand_in, labels, kept[:, :8])
