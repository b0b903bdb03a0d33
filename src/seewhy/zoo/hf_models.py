"""`hf:NAME` or `hf:FOLDER`: Hugging Face image classifiers, with their preprocessor's settings and labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seewhy.data.images import Interpolation, Preprocess
from seewhy.errors import ModelError
from seewhy.zoo.source import Found, Options, fill, need, read_weights, unavailable

#: by Pillow's numbers, as the preprocessors write them; hamming (5) is not among ours, and bicubic is nearest to it
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "bicubic"}


def load(name: str, options: Options) -> Found:
    """Weights come as safetensors, or by `weights_only`; no code of the model's own is run."""
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
        settings = _settings(transformers, where)
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
    mean, std = normalisation(settings) if settings else (None, None)
    side = getattr(module.config, "image_size", None)
    fallback = None if side is None else Preprocess((side, side) if isinstance(side, int) else tuple(side))
    return Found(module, mean, std, _preprocess(settings) or fallback, _labels(module.config))


def _settings(transformers: Any, where: str) -> dict[str, Any]:
    """preprocessor_config.json, or nothing where the model comes without one."""
    if Path(where).is_dir() and not (Path(where) / "preprocessor_config.json").is_file():
        return {}
    settings: dict[str, Any]
    settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(where)
    return settings


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
    size = _side(settings.get("size")) if settings.get("do_resize", True) else None
    crop = _side(settings.get("crop_size")) if settings.get("do_center_crop", False) else None
    resample = settings.get("resample", 2)
    interpolation = _RESAMPLE.get(resample if isinstance(resample, int) else 2, "bilinear")
    if isinstance(crop, int):
        crop = (crop, crop)
    if crop is not None:
        shorter = size if isinstance(size, int) else min(size) if size else None
        # a resize smaller than the crop would leave a border that no photograph fills: the crop alone then
        return Preprocess(crop, shorter if shorter and shorter >= min(crop) else None, "crop", interpolation)
    if isinstance(size, int):
        share = settings.get("crop_pct")
        if share and size < 384:  # ConvNeXT's preprocessor, which ResNet shares: larger sides are squashed
            return Preprocess((size, size), int(size / share), "crop", interpolation)
        return Preprocess((size, size), None, "squash" if share else "crop", interpolation)
    return Preprocess(size, None, "squash", interpolation) if size else None


def _labels(config: Any) -> list[str] | None:
    names = getattr(config, "id2label", None)
    if not names or all(str(name) == f"LABEL_{i}" for i, name in names.items()):
        return None
    return [str(names[i]) for i in sorted(names)]
