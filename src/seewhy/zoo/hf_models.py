"""`hf:NAME` or `hf:FOLDER`: Hugging Face image classifiers, with their preprocessor's settings and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from seewhy.data.images import Interpolation, Preprocess
from seewhy.data.photo import fit
from seewhy.errors import ModelError
from seewhy.zoo.source import BlueFirst, Found, Options, fill, need, read_weights, unavailable

#: by Pillow's numbers, as the preprocessors write them; hamming (5) is not among ours, and bicubic is nearest to it
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "bicubic"}

#: what a preprocessor does only where it says so
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


def load(name: str, options: Options) -> Found:
    """Weights come as safetensors, or by `weights_only`; no code of the model's own is run.

    Where the model's own preprocessor makes another input of a photograph than ours does, a note says so.
    """
    transformers = need("transformers", "zoo", f"hf:{name}")
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ModelError(f"expected a folder with a Hugging Face model at {name}, which does not exist")
    where = str(Path(name).expanduser()) if name.startswith("~") else name
    auto = transformers.AutoModelForImageClassification
    path = Path(options.weights) if options.weights and not options.random else None
    try:
        if options.random or path is not None:
            module = auto.from_config(transformers.AutoConfig.from_pretrained(where, trust_remote_code=False))
            missing: list[str] = []
        else:
            module, told = auto.from_pretrained(where, trust_remote_code=False, output_loading_info=True)
            missing = [*told["missing_keys"], *map(str, told.get("mismatched_keys", ()))]
        settings, processor = _settings(transformers, where)
    except Exception as error:  # the hub, the network, the configuration: each has errors of its own
        if Path(where).is_dir():
            raise ModelError(f"{name} cannot be loaded as a Hugging Face image classifier: {error}") from error
        raise unavailable(f"hf:{name}", error) from error
    if missing:
        raise ModelError(
            f"hf:{name} has no weights for {', '.join(sorted(missing)[:4])}{', …' if len(missing) > 4 else ''}: as an "
            "image classifier it was not trained"
        )
    if path is not None:
        fill(module, read_weights(path, options.trust_pickle), path.name)
    side = getattr(module.config, "image_size", None)
    fallback = None if side is None else Preprocess((side, side) if isinstance(side, int) else tuple(side))
    found = Found(module, None, None, _preprocess(settings) or fallback, _labels(module.config))
    if not settings:
        return found
    mean, std = normalisation(settings)
    if settings.get("do_flip_channel_order"):
        found = replace(found, module=nn.Sequential(BlueFirst(), module))
    return replace(found, mean=mean, std=std, notes=_doubts(processor, settings, found.preprocess))


def _settings(transformers: Any, where: str) -> tuple[dict[str, Any], Any]:
    """What the model's own preprocessor is set to, and itself; nothing where the model comes without one.

    Where it cannot be made (a kind that this release lacks, or with code of its own): what its file says, and None.
    """
    if Path(where).is_dir() and not (Path(where) / "preprocessor_config.json").is_file():
        return {}, None
    settings: dict[str, Any]
    settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(where)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(where, backend="pil", trust_remote_code=False)
    except Exception:  # noqa: BLE001  a note says that it could not be made
        return settings, None
    return dict.fromkeys(_STEPS, False) | processor.to_dict(), processor  # with its kind's defaults


def _doubts(processor: Any, settings: Mapping[str, Any], preprocess: Preprocess | None) -> tuple[str, ...]:
    """A note where the model's own preprocessor makes another input of a photograph than ours; tried on a smooth one.

    Two levels of 255 and a shift by one pixel pass: there are several ways to round where a crop begins.
    """
    if processor is None:
        return (
            "its own preprocessor cannot be made here: photographs are prepared as its settings say, and what they "
            "leave out is guessed",
        )
    if preprocess is None:
        return ()
    across, down = np.meshgrid(np.linspace(0, 255, 720), np.linspace(0, 255, 480))
    photo = Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in normalisation(settings))
    ours = (fit(photo, preprocess)[0] - mean) / std
    try:
        theirs = torch.as_tensor(np.ascontiguousarray(processor(photo)["pixel_values"][0])).float()
    except Exception as error:  # noqa: BLE001  some want more than a photograph
        told = f"it fails with {type(error).__name__}"
    else:
        if theirs.shape != ours.shape:
            told = f"{_written(theirs)} values instead of {_written(ours)}"
        else:
            turned = theirs.flip(0) if settings.get("do_flip_channel_order") else theirs
            apart = 255 * float(((ours - turned) * std).abs().max())
            if apart <= 2 + 255 / min(preprocess.size):
                return ()
            told = f"up to {apart:.0f} of 255 levels apart"
    return (
        f"its own preprocessor ({settings.get('image_processor_type', 'without a name')}) makes another input of a "
        f"photograph than seewhy does ({told}), so its answers may be others than its makers'; give size=, resize=, "
        "fit=, mean= or std= where they are known",
    )


def _written(image: torch.Tensor) -> str:
    return " × ".join(map(str, image.shape))


def normalisation(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation on [0, 1] pixels of what a preprocessor does to bytes: rescale, offset, normalise."""
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    offset = 1.0 if settings.get("rescale_offset") else 0.0
    plain = not settings.get("do_normalize", True)
    mean = (0.0,) * 3 if plain else _three(settings.get("image_mean", 0.0))
    std = (1.0,) * 3 if plain else _three(settings.get("image_std", 1.0))
    scale = 255 * factor
    again = std if settings.get("include_top") else (1.0,) * 3  # EfficientNet's divides a second time
    return (
        tuple((each + offset) / scale for each in mean),
        tuple(each * second / scale for each, second in zip(std, again, strict=True)),
    )


def _three(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))


def _side(value: Any) -> tuple[int, int] | int | None:
    """A size as preprocessors write it: (height, width), the shorter side alone, or nothing."""
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, Mapping):
        if "height" in value:
            return (int(value["height"]), int(value["width"]))
        if "shortest_edge" in value:
            return int(value["shortest_edge"])
    return None


def _preprocess(settings: Mapping[str, Any]) -> Preprocess | None:
    size, share = settings.get("size") if settings.get("do_resize", True) else None, settings.get("crop_pct")
    size = size if share and isinstance(size, int) else _side(size)
    crop = _side(settings.get("crop_size")) if settings.get("do_center_crop", False) else None
    resample = settings.get("resample", 2)
    interpolation = _RESAMPLE.get(resample if isinstance(resample, int) else 2, "bilinear")
    if isinstance(crop, int):
        crop = (crop, crop)
    if crop is not None:
        shorter = size if isinstance(size, int) else min(size) if size else None
        if shorter and share:  # PoolFormer's preprocessor
            shorter = int(shorter / share)
        # a resize smaller than the crop would leave a border that no photograph fills: the crop alone then
        if not shorter or shorter < min(crop):
            return Preprocess(crop, None, "crop", interpolation)
        return Preprocess(crop, shorter, "squash" if isinstance(size, tuple) and not share else "crop", interpolation)
    if isinstance(size, int):
        if share and size < 384:  # ConvNeXT's preprocessor, which ResNet shares: larger sides are squashed
            return Preprocess((size, size), int(size / share), "crop", interpolation)
        return Preprocess((size, size), None, "squash" if share else "crop", interpolation)
    return Preprocess(size, None, "squash", interpolation) if size else None


def _labels(config: Any) -> list[str] | None:
    names = getattr(config, "id2label", None)
    if not names or all(str(name) == f"LABEL_{i}" for i, name in names.items()):
        return None
    return [str(names[i]) for i in sorted(names)]
