"""Photographs: what each kind of file becomes, where the model looks, and what bad files get."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.images import Fit, Geometry, Interpolation, Preprocess
from seewhy.data.photo import fit, from_array, open_photo, original, picture_of, read
from seewhy.errors import DataError, InputError, SpecError

PLAIN = Preprocess((8, 8))


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path: Path, picture: Image.Image, **words: Any) -> Path:
    picture.save(path, **words)
    return path


def pixels(path: Path) -> np.ndarray:
    picture, _ = open_photo(path)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


# What each kind of file becomes


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "webp", "gif", "jpg"])
def test_each_format_gives_the_picture_back(tmp_path: Path, ending: str) -> None:
    coarse = np.kron(np.array([[0, 255], [128, 64]], np.uint8), np.ones((16, 16), np.uint8))
    truth = np.stack([coarse, coarse.T, 255 - coarse], -1)
    best: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    found = pixels(saved(tmp_path / f"a.{ending}", Image.fromarray(truth), **best.get(ending, {})))
    assert np.abs(found - truth).max() <= (3 if ending == "jpg" else 0)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_makes_every_photograph_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    upright = np.kron(np.array([[255, 0, 128], [64, 200, 20]], np.uint8), np.ones((16, 16), np.uint8))
    # how a camera held so stores the scene: EXIF 2.3, table 6 (where the 0th row and the 0th column lie)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright[::-1, ::-1].T,
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(np.ascontiguousarray(stored)).convert("RGB"), exif=exif)
    picture, notes = open_photo(path)
    assert picture.size == (48, 32)
    assert np.abs(np.asarray(picture)[8::16, 8::16, 0].astype(int) - upright[8::16, 8::16]).max() <= 8
    assert any("upright" in note for note in notes) == (orientation != 1)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 100).astype(np.uint16).reshape(4, 25)  # not in steps of 257
    for ending in ("png", "tiff"):
        picture, notes = open_photo(saved(tmp_path / f"a.{ending}", Image.fromarray(values)))
        assert (np.asarray(picture)[..., 0] == np.rint(values / 65535 * 255)).all()
        assert "16 bits scaled to 8" in notes


def test_sixteen_bits_white_is_zero(tmp_path: Path) -> None:
    values = np.full((2, 2), 65535, np.uint16)
    path = saved(tmp_path / "a.tiff", Image.fromarray(values), tiffinfo={262: 0})
    assert (pixels(path) == 0).all()


def test_floating_point_tiff(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.array([[0.0, 0.5], [0.25, 1.0]], np.float32)))
    assert pixels(path)[..., 0].tolist() == [[0, 128], [64, 255]]
    path = saved(tmp_path / "b.tiff", Image.fromarray(np.array([[-3.0, 7.0]], np.float32)))
    picture, notes = open_photo(path)
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 255]
    assert "values from -3 to 7 stretched to black and white" in notes
    with pytest.raises(DataError, match="NaN"):
        open_photo(saved(tmp_path / "c.tiff", Image.fromarray(np.array([[np.nan, 7.0]], np.float32))))


def test_grey_palette_and_black_and_white(tmp_path: Path) -> None:
    grey = noise(9, 7)[..., 0]
    assert (pixels(saved(tmp_path / "l.png", Image.fromarray(grey))) == grey[..., None]).all()
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    indexed = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    assert (pixels(saved(tmp_path / "p.png", indexed)) == colours).all()
    two = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert pixels(saved(tmp_path / "1.png", two))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "key", "16"])
def test_transparent_parts_lie_over_white_and_the_notes_say_so(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "RGBA":
        Image.fromarray(np.array([[[200, 100, 0, 255], [200, 100, 0, 128], [0, 0, 0, 0]]], np.uint8)).save(path)
        truth = [[200, 100, 0], [227, 177, 127], [255, 255, 255]]
    elif mode == "LA":
        Image.merge("LA", [Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 64)]).save(path)
        truth = [[191, 191, 191]]
    elif mode == "P":
        indexed = Image.new("P", (1, 1), 1)
        indexed.putpalette([9, 9, 9, 0, 0, 255])
        indexed.save(path, transparency=bytes([255, 0]))
        truth = [[255, 255, 255]]
    elif mode == "key":
        Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)).save(path, transparency=(1, 2, 3))
        truth = [[255, 255, 255], [4, 5, 6]]
    else:
        Image.fromarray(np.array([[257, 514]], np.uint16)).save(path, transparency=257)
        truth = [[255, 255, 255], [2, 2, 2]]
    picture, notes = open_photo(path)
    assert np.abs(np.asarray(picture)[0].astype(int) - truth).max() <= 1
    assert "transparent parts laid over white" in notes


def test_an_opaque_alpha_channel_is_no_news(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGBA", (3, 3), (1, 2, 3, 255)))
    assert open_photo(path)[1] == ()


@pytest.mark.parametrize("ending", ["jpg", "tiff"])
def test_cmyk(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path / f"a.{ending}", Image.new("CMYK", (16, 16), (0, 255, 255, 0)))
    picture, notes = open_photo(path)
    assert np.abs(np.asarray(picture).astype(int) - [255, 0, 0]).max() <= 6
    assert any("CMYK" in note for note in notes)


def linear_profile(space: bytes = b"RGB ") -> bytes:
    """An ICC profile with sRGB's primaries (adapted to D50) and no gamma, put together from the specification."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    straight = b"curv\0\0\0\0\0\0\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 7) + b"linear\0" + bytes(78)
    tags = {b"desc": text, b"wtpt": xyz(0.9642, 1.0, 0.8249), b"cprt": b"text\0\0\0\0free\0"}
    if space == b"GRAY":
        tags[b"kTRC"] = straight
    else:
        columns = {b"r": (0.4360, 0.2225, 0.0139), b"g": (0.3851, 0.7169, 0.0971), b"b": (0.1431, 0.0606, 0.7141)}
        for colour, values in columns.items():
            tags[colour + b"XYZ"], tags[colour + b"TRC"] = xyz(*values), straight
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += padded
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sI4s4s8sI12s48x",
        *(128 + 4 + len(table) + len(body), b"\0\0\0\0", 0x02100000, b"mntr", space, b"XYZ ", bytes(12)),
        *(b"acsp", b"\0\0\0\0", 0, b"\0\0\0\0", b"\0\0\0\0", bytes(8), 0, xyz(0.9642, 1.0, 0.8249)[8:]),
    )
    return header + struct.pack(">I", len(tags)) + table + body


def encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB's transfer function (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_colour_profiles_are_converted_to_srgb(tmp_path: Path, mode: str) -> None:
    values = noise(16, 16)
    truth = encoded(values / 255) * 255
    picture = Image.fromarray(values)
    if mode == "L":
        picture, truth = Image.fromarray(values[..., 0]), np.repeat(truth[..., :1], 3, -1)
    profile = linear_profile(b"GRAY" if mode == "L" else b"RGB ")
    path = saved(tmp_path / "a.png", picture.convert(mode), icc_profile=profile)
    found, notes = open_photo(path)
    # the colour engine is coarse in the deepest shadows of a grey profile without gamma
    assert np.abs(np.asarray(found) - truth)[values.min(-1) >= 10].max() <= 2
    assert notes == ("its colour profile converted to sRGB",)


def test_an_srgb_profile_changes_nothing_and_a_broken_one_is_said(tmp_path: Path) -> None:
    from PIL import ImageCms

    values = noise(16, 16)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found, notes = open_photo(saved(tmp_path / "a.png", Image.fromarray(values), icc_profile=srgb))
    assert (np.asarray(found) == values).all()
    assert notes == ()
    found, notes = open_photo(saved(tmp_path / "b.png", Image.fromarray(values), icc_profile=b"no profile"))
    assert (np.asarray(found) == values).all()
    assert "could not be used" in notes[0]


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    picture, notes = open_photo(path)
    assert (np.asarray(picture) == [255, 0, 0]).all()
    assert notes == ("the first of several frames",)


# What the model sees


SIZES = [(33, 47), (47, 33), (40, 40), (101, 57), (300, 31)]
RECIPES = [
    Preprocess((32, 32), 37, interpolation="bilinear"),
    Preprocess((32, 32), None, interpolation="bicubic"),
    Preprocess((31, 31), 36, interpolation="lanczos"),
    Preprocess((33, 33), 36, interpolation="box"),
    Preprocess((32, 32), 40, interpolation="nearest"),
    Preprocess((40, 40), 25, interpolation="bicubic"),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_resize_and_crop_equal_torchvisions(size: tuple[int, int], recipe: Preprocess) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    picture = Image.fromarray(noise(*size))
    resize = transforms.Resize(recipe.resize or recipe.size[0], transforms.InterpolationMode(recipe.interpolation))
    cropped = transforms.CenterCrop(recipe.size)(resize(picture))
    found, _, _ = fit(picture, recipe)
    assert torch.equal(found, transforms.ToTensor()(cropped))


def test_squash_and_pad() -> None:
    picture = Image.new("RGB", (60, 30), "white")
    found, geometry, _ = fit(picture, Preprocess((20, 20), fit="squash"))
    assert found.min() == 1
    assert list(geometry.box) == [0, 0, 60, 30]
    found, geometry, _ = fit(picture, Preprocess((20, 20), fit="pad"))
    assert list(geometry.box) == [0, -15, 60, 45]
    assert found[0].sum() == 200
    assert found[0, 5:15].min() == 1


@pytest.mark.parametrize("kind", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(97, 61), (61, 97), (64, 64), (85, 40)])
@pytest.mark.parametrize(("target", "resize"), [((48, 48), 55), ((48, 48), None), ((31, 44), None), ((47, 47), 36)])
def test_a_map_of_the_crop_laid_back_lands_on_the_right_pixels(
    kind: Fit, size: tuple[int, int], target: tuple[int, int], resize: int | None
) -> None:
    width, height = size
    truth = np.zeros((height, width, 3))
    truth[..., 0], truth[..., 1] = np.arange(width) * 2, np.arange(height)[:, None] * 2
    picture = Image.fromarray(truth.astype(np.uint8))
    found, geometry, _ = fit(picture, Preprocess(target, resize, kind, "bilinear"))
    laid = geometry.project(found * 255)
    assert laid.shape == (3, height, width)
    left, top, right, bottom = geometry.box
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    # a filter flattens the ramp at the picture's edge, so a margin of three of the model's pixels is left out
    across, down = 3 * (right - left) / target[1], 3 * (bottom - top) / target[0]
    inner = np.outer(
        (rows > max(top, 0) + down) & (rows < min(bottom, height) - down),
        (columns > max(left, 0) + across) & (columns < min(right, width) - across),
    )
    assert inner.sum() > 100
    for channel in (0, 1):
        off = laid[channel].numpy()[inner] - truth[..., channel][inner]
        assert abs(off.mean()) < 0.3  # 0.15 of a pixel; rounding halves up alone makes 0.25
        assert np.abs(off).max() < 1.5
    near = 1e-3  # a pixel's centre may lie on the edge
    for inside, grown in ((True, -near), (False, near)):
        seen = np.outer(
            (rows > top - grown) & (rows < bottom + grown), (columns > left - grown) & (columns < right + grown)
        )
        assert not (torch.isnan(laid[0]).numpy() if inside else ~torch.isnan(laid[0]).numpy())[seen == inside].any()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
def test_a_picture_of_the_models_size_stays_bit_for_bit(interpolation: Interpolation) -> None:
    values = noise(32, 32)
    for kind in get_args(Fit):
        recipe = Preprocess((32, 32), None, kind, interpolation)
        images = from_array(values, recipe)
        assert torch.equal(images.pixels[0], torch.from_numpy(values).permute(2, 0, 1).float() / 255)
        assert images.geometry[0] == Geometry((32, 32), (0.0, 0.0, 32.0, 32.0), (32, 32))
        assert images.notes == ((),)


def test_a_very_long_strip_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import seewhy.data.photo as photo

    picture = Image.fromarray(noise(40_000, 3))
    recipe = Preprocess((64, 64), 72, interpolation="bilinear")
    usual, geometry, notes = fit(picture, recipe)
    assert any("middle" in note for note in notes)
    monkeypatch.setattr(photo, "LIMIT", 10_000)
    sparing, same, _ = fit(picture, recipe)
    assert same == geometry
    assert (usual - sparing).abs().max() <= 1.01 / 255
    started = time.perf_counter()
    monkeypatch.undo()
    fit(Image.new("RGB", (2_000_000, 1)), Preprocess((224, 224), 256))
    assert time.perf_counter() - started < 20


def test_read_names_and_notes(tmp_path: Path) -> None:
    images = read(saved(tmp_path / "cat.png", Image.new("L", (50, 40), 51)), PLAIN)
    assert images.names == ("cat.png",)
    assert images.pixels.shape == (1, 3, 8, 8)
    assert torch.allclose(images.pixels, torch.tensor(0.2))
    assert images.labels is None


def test_a_single_pixel_works_and_is_noted(tmp_path: Path) -> None:
    images = read(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), (255, 0, 51))), Preprocess((224, 224), 256))
    assert torch.allclose(images.pixels.mean((0, 2, 3)), torch.tensor([1.0, 0.0, 0.2]))
    assert images.notes[0][0] == "only 1 × 1 pixels, enlarged 256 times"


def test_original_is_upright_and_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (400, 100)), exif=exif)
    assert original(path).size == (100, 400)
    assert original(path, longest=200).size == (50, 200)
    assert original(path, longest=1000).size == (100, 400)


def test_arrays_that_are_no_pictures() -> None:
    assert np.asarray(picture_of(np.array([[65535, 0]], np.uint16)))[0, :, 0].tolist() == [255, 0]
    for array in (np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8)):
        with pytest.raises(InputError, match="expected an array"):
            picture_of(array)


def test_recipes_that_make_no_sense() -> None:
    picture = Image.new("RGB", (4, 4))
    for recipe in (Preprocess((0, 4)), Preprocess((4, 4), 0), Preprocess((4, 4), fit="bend"),  # type: ignore[arg-type]
                   Preprocess((4, 4), interpolation="cubic")):  # type: ignore[arg-type]  # fmt: skip
        with pytest.raises(SpecError, match="expected"):
            fit(picture, recipe)


# What bad files get


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def test_each_bad_file_gets_one_clear_sentence(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(stream, "JPEG")
    png = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(png, "PNG")
    files = {
        "text.jpg": (
            b"Dear diary, today",
            r'not an image: expected JPEG, PNG.* got text that begins "Dear diary, today"',
        ),
        "data.png": (bytes(range(128, 228)), "is not an image: .* got other data"),
        "empty.png": (b"", "is empty"),
        "cut.jpg": (stream.getvalue()[:-700], "cannot be decoded, it is damaged or cut off"),
        "head.jpg": (stream.getvalue()[:30], "cannot be decoded"),
        "cut.png": (png.getvalue()[:6000], "cannot be decoded"),
        "garbled.png": (png.getvalue()[:41] + bytes(9) + png.getvalue()[50:], "cannot be decoded"),
        "flipped.png": (png.getvalue()[:60] + bytes(9) + png.getvalue()[69:], "cannot be decoded"),
        "sound.webp": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "cannot be decoded"),
        "bomb.png": (bomb(60_000, 60_000), "60,000 × 60,000 pixels, past the limit of 120 million.*SEEWHY_MAX_PIXELS"),
    }
    for name, (content, message) in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        started = time.perf_counter()
        with pytest.raises(DataError, match=message) as caught:
            open_photo(path)
        assert time.perf_counter() - started < 5  # the machine may be busy
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match=message):
            open_photo(content, name)
    with pytest.raises(DataError, match="there is no file"):
        open_photo(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="expected an image file, got a folder"):
        open_photo(tmp_path)


def test_the_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (100, 100)))
    monkeypatch.setenv("SEEWHY_MAX_PIXELS", "9_999")
    with pytest.raises(DataError, match="past the limit"):
        open_photo(path)
    monkeypatch.setenv("SEEWHY_MAX_PIXELS", "10000")
    assert open_photo(path)[0].size == (100, 100)
    monkeypatch.setenv("SEEWHY_MAX_PIXELS", "many")
    with pytest.raises(SpecError, match="SEEWHY_MAX_PIXELS"):
        open_photo(path)
    # past Pillow's own limit too, which warns from 89 million pixels on and refuses from 179 million on
    monkeypatch.setenv("SEEWHY_MAX_PIXELS", "200000000")
    (tmp_path / "large.png").write_bytes(bomb(14_000, 13_000))
    with pytest.raises(DataError, match="damaged or cut off"):
        open_photo(tmp_path / "large.png")
