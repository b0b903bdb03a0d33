"""Models of torchvision, timm and Hugging Face: the values are those of the libraries' own pipelines."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seewhy.data.images import Preprocess
from seewhy.errors import MissingExtra, ModelError
from seewhy.zoo import load
from seewhy.zoo.source import Options


def same(found: Tensor, expected: Tensor | None) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub says at once that it cannot be reached, instead of trying for a minute."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def images(side: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


# torchvision


def test_torchvision_equals_its_own_transforms() -> None:
    models = pytest.importorskip("torchvision").models
    net = load("torchvision:squeezenet1_1,weights=none")
    assert net.notes[0].startswith("RANDOM WEIGHTS")
    assert net.labels[282] == "tiger cat"
    assert net.preprocess == Preprocess((224, 224), 256, "crop", "bilinear")
    pixels = (images(224) * 255).round() / 255
    transform = models.SqueezeNet1_1_Weights.DEFAULT.transforms(resize_size=224)
    given = torch.stack([transform(each) for each in (pixels * 255).to(torch.uint8)])
    torch.testing.assert_close(net.normalise(pixels), given.contiguous(), rtol=1e-5, atol=1e-5)
    same(net.logits(pixels), net.module.eval()(given))


def test_torchvision_reads_a_photograph_as_its_transforms_do(tmp_path: Path) -> None:
    """The whole way from the file: torchvision's own resize and crop on the PIL image."""
    models = pytest.importorskip("torchvision").models
    ramp = np.linspace(0, 255, 300 * 260 * 3).reshape(300, 260, 3)
    photo = Image.fromarray(((ramp + 40 * np.sin(ramp / 3)) % 256).astype(np.uint8))
    photo.save(tmp_path / "photo.png")
    net = load("torchvision:squeezenet1_1,weights=none")
    given = models.SqueezeNet1_1_Weights.DEFAULT.transforms()(photo)[None]
    difference = (net.normalise(net.read(tmp_path / "photo.png").pixels) - given).abs()
    assert difference.max() <= 1.01 / 255 / 0.224  # Pillow rounds to bytes after the resize: at most one step


def test_torchvision_takes_a_state_dict_from_a_file(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(1)
    module = models.squeezenet1_1().eval()
    torch.save(module.state_dict(), tmp_path / "w.pth")
    net = load(f"torchvision:squeezenet1_1,weights={tmp_path / 'w.pth'}")
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    same(net.logits(images(224)), module((images(224) - mean) / std))
    assert not any("RANDOM" in note for note in net.notes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_transform_input_is_not_a_second_normalisation(name: str, tmp_path: Path) -> None:
    """The pretrained nets undo ImageNet's normalisation inside; ours get the right scale at once."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(1)
    reference = models.get_model(name, weights=None, transform_input=True, aux_logits=True, init_weights=False).eval()
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    net = load(f"torchvision:{name},weights={tmp_path / 'w.pth'}")
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = images(net.size[0])
    same(net.logits(pixels), reference((pixels - mean) / std))
    assert net.mean == (0.5, 0.5, 0.5)


def test_torchvision_without_a_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    with pytest.raises(ModelError, match=r"could not fetch torchvision's weights .*weights=none"):
        load("torchvision:squeezenet1_1")


def test_torchvision_uses_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real way of pretrained weights, with a cache that holds a file of the right name and checksum."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(2)
    module = models.squeezenet1_1().eval()
    name = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    (tmp_path / "checkpoints").mkdir()
    torch.save(module.state_dict(), tmp_path / "checkpoints" / name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    net = load("torchvision:squeezenet1_1,weights=IMAGENET1K_V1")
    assert torch.equal(net.module.state_dict()["features.0.weight"], module.state_dict()["features.0.weight"])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("torchvision:resnet51", r'no classifier "resnet51"; did you mean "resnet50"'),
        ("torchvision:fcn_resnet50", "no classifier"),
        ("torchvision:squeezenet1_1,weights=IMAGENET1K_V9", 'no weights "IMAGENET1K_V9"; did you mean "IMAGENET1K_V1"'),
        ("torchvision:squeezenet1_1,weights=not.pth", "does not exist"),
        ("timm:resnet19", 'no model "resnet19"; did you mean "resnet'),
        ("timm:resnet18.a9_in1k", 'no weights "resnet18.a9_in1k"; did you mean "resnet18.a'),
        ("timm:resnet18.a1_in1k", "could not fetch timm's resnet18.a1_in1k"),
        ("hf:someone/nothing", "could not fetch hf:someone/nothing"),
        ("hf:./nowhere", "does not exist"),
    ],
)
def test_models_that_are_not_there(spec: str, said: str) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match=said):
        load(spec)


def test_weights_of_another_model_name_the_keys(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    torch.save(models.squeezenet1_0(num_classes=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"shape: features.0.weight \(96, 3, 7, 7\) instead of \(64, 3, 3, 3\)"):
        load(f"torchvision:squeezenet1_1,weights={tmp_path / 'w.pth'}")


# timm


def test_timm_equals_its_own_transform(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = load("timm:test_resnet.r160_in1k,weights=none")
    config = timm.data.resolve_model_data_config(net.module)
    transform = timm.data.create_transform(**config, is_training=False)
    ramp = np.linspace(0, 255, 300 * 260 * 3).reshape(300, 260, 3)
    photo = Image.fromarray(((ramp + 40 * np.sin(ramp / 3)) % 256).astype(np.uint8))
    photo.save(tmp_path / "photo.png")
    read = net.read(tmp_path / "photo.png")
    given = transform(photo)[None]
    assert read.pixels.shape == given.shape
    assert (net.normalise(read.pixels) - given).abs().max() <= 1.01 / 255 / min(config["std"])
    same(net.logits(read.pixels), net.module.eval()(net.normalise(read.pixels)))
    assert net.labels[282] == "tiger cat"
    assert net.index("tabby") == 281


def test_timm_takes_weights_of_a_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(4)
    module = timm.create_model("test_resnet.r160_in1k").eval()
    torch.save({"state_dict": module.state_dict()}, tmp_path / "w.pth")
    net = load(f"timm:test_resnet.r160_in1k,weights={tmp_path / 'w.pth'}")
    same(net.logits(images(160)), module(net.normalise(images(160))))


# Hugging Face


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny ResNet as `save_pretrained` leaves it, with the settings of microsoft/resnet-50's preprocessor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "cat", 1: "dog", 2: "emu"},
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    settings = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_normalize": True,
        "do_resize": True,
        "crop_pct": 0.875,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "size": {"shortest_edge": 224},
    }
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path / "net"


def test_hf_answers_as_the_model(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    net = load(f"hf:{folder}")
    module = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = module(pixel_values=(images(224) - mean) / std).logits
    same(net.logits(images(224)), expected)
    assert net.labels == ("cat", "dog", "emu")
    assert net.preprocess == Preprocess((224, 224), 256, "crop", "bicubic")
    assert net.notes == ()


def test_hf_random_weights(folder: Path) -> None:
    nets = [load(f"hf:{folder},weights=none") for _ in range(2)]
    assert nets[0].fingerprint == nets[1].fingerprint != load(f"hf:{folder}").fingerprint
    assert nets[0].notes[0].startswith("RANDOM WEIGHTS")


def test_hf_a_head_that_was_never_trained_is_refused(folder: Path) -> None:
    """transformers makes one of random numbers, with a warning that scrolls by."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "classifier" not in k}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for classifier\.1\.bias, classifier\.1\.weight"):
        load(f"hf:{folder}")


def test_hf_folders_that_hold_no_classifier(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match="cannot be loaded as a Hugging Face image classifier"):
        load(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("settings", "preprocess", "first"),
    [
        ({"size": {"height": 224, "width": 224}}, Preprocess((224, 224), None, "squash", "bilinear"), 1.0),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
            | {"resample": 3},
            Preprocess((224, 224), 256, "crop", "bicubic"),
            1.0,
        ),
        ({"size": 224, "crop_pct": 0.875}, Preprocess((224, 224), 256, "crop", "bilinear"), 1.0),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, Preprocess((384, 384), None, "squash", "bilinear"), 1.0),
        ({"size": 224}, Preprocess((224, 224), None, "squash", "bilinear"), 1.0),
        ({"size": 8, "do_normalize": False}, Preprocess((8, 8), None, "squash", "bilinear"), None),
    ],
)
def test_hf_preprocessors(settings: dict[str, Any], preprocess: Preprocess, first: float | None) -> None:
    from seewhy.zoo import hf_models

    whole = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, **settings}
    assert hf_models._preprocess(whole) == preprocess
    mean, std = hf_models.normalisation(whole)
    assert (mean, std) == ((((0.5,) * 3, (0.25,) * 3)) if first else ((0.0,) * 3, (1.0,) * 3))


OWN: dict[str, dict[str, Any]] = {
    "a whole number": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875},
    "the kind's own share": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 160}},
    "large": {"image_processor_type": "ConvNextImageProcessor"},
    "of the model's kind": {"size": 64},
    "blue first": {"image_processor_type": "MobileViTImageProcessor", "size": 288, "crop_size": 256},
    "red first": {
        **{"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": False},
        **{"size": {"shortest_edge": 288}, "crop_size": {"height": 256, "width": 256}, "resample": 2},
    },
    "share and crop": {"image_processor_type": "PoolFormerImageProcessor", "crop_pct": 0.875, "resample": 3},
    "share and crop by its kind": {"image_processor_type": "PoolFormerImageProcessor"},
    "squashed and cropped": {"image_processor_type": "DeiTImageProcessor"},
    "squashed": {"image_processor_type": "ViTImageProcessor", "size": 224, "image_mean": [0.1, 0.2, 0.3]},
}


@pytest.mark.parametrize("name", OWN)
def test_hf_prepares_a_photograph_as_its_own_preprocessor(name: str, folder: Path, tmp_path: Path) -> None:
    """Also where the file says little, or as files did of old: the rest is that kind's own."""
    transformers = pytest.importorskip("transformers")
    (folder / "preprocessor_config.json").write_text(json.dumps(OWN[name]))
    spots = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    photo = Image.fromarray(spots).resize((450, 300), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.png")
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    expected = torch.as_tensor(np.ascontiguousarray(processor(photo)["pixel_values"][0]))[None]
    net = load(f"hf:{folder}")
    pixels = net.read(tmp_path / "photo.png").pixels
    given = net.normalise(pixels)
    if isinstance(net.module, torch.nn.Sequential):
        given = net.module[0](given)
    same(given, expected.float())
    module = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    same(net.logits(pixels), module(pixel_values=expected.float()).logits)
    assert isinstance(net.module, torch.nn.Sequential) == (name == "blue first")
    assert net.notes == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"image_processor_type": "LevitImageProcessor"},
            r"\(LevitImageProcessor\) makes another input .*levels apart",
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 64}},
            "3 × 64 × 96 values instead of 3 × 64 × 64",
        ),
        ({"image_processor_type": "SomebodysImageProcessor", "size": 64}, "its own preprocessor cannot be made here"),
    ],
)
def test_hf_a_preprocessor_that_does_otherwise_is_told(settings: dict[str, Any], said: str, folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (note,) = load(f"hf:{folder}").notes
    assert re.search(said, note)


def test_hf_normalisation_is_what_the_processor_computes() -> None:
    """Against transformers' EfficientNet preprocessor, which scales with an offset and divides twice."""
    transformers = pytest.importorskip("transformers")
    from seewhy.zoo import hf_models

    kind = getattr(transformers, "EfficientNetImageProcessorPil", None) or transformers.EfficientNetImageProcessor
    for words in ({"rescale_offset": True, "rescale_factor": 1 / 127.5}, {"rescale_offset": False}):
        processor = kind(size={"height": 16, "width": 16}, include_top=True, do_resize=False, **words)
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        expected = torch.as_tensor(np.asarray(processor(Image.fromarray(pixels))["pixel_values"][0]))
        mean, std = hf_models.normalisation(processor.to_dict())
        given = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        found = (given - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# Packages that are missing or broken


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("torchvision:resnet18", "torchvision", "zoo"),
        ("timm:resnet18", "timm", "zoo"),
        ("hf:microsoft/resnet-50", "transformers", "zoo"),
        ("onnx:net.onnx", "onnx2torch", "onnx"),
    ],
)
def test_a_missing_package_names_the_extra(
    spec: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} is missing.*pip install 'seewhy\[{extra}\]'"):
        load(spec)


def test_a_torchvision_of_another_torch_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from seewhy.zoo import torchvision_models

    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [each for each in sys.modules if each.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"torchvision::nms does not exist.*must be of one release and one kind"):
        torchvision_models.load("resnet18", Options())
