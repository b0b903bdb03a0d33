"""`timm:NAME`: models of PyTorch Image Models, with what their pretrained configuration says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from seewhy.data.images import Fit, Interpolation, Preprocess
from seewhy.errors import ModelError, nearest
from seewhy.zoo.source import Found, Options, fill, need, read_weights, unavailable

_INTERPOLATIONS: dict[str, Interpolation] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
    "box": "box",
}
_FITS: dict[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}


def load(name: str, options: Options) -> Found:
    """Input size and crop are those that timm recommends for inference; `size` sets another."""
    timm = need("timm", "zoo", f"timm:{name}")
    local = name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    if not local and not timm.is_model(name.partition(".")[0]):
        raise ModelError(f'timm has no model "{name}"{nearest(name, timm.list_models())}')
    tags = timm.list_pretrained(name.partition(".")[0] + ".*") if "." in name and not local else []
    if tags and name not in tags:
        raise ModelError(f'timm has no weights "{name}"{nearest(name, tags)}')
    path = Path(options.weights) if options.weights and not options.random else None
    pretrained = path is None and not options.random
    try:
        module = timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # a download fails in many ways: the hub's own, the network's, a half-written file
        if not pretrained and not local:
            raise ModelError(f"timm cannot make {name}: {error}") from error
        raise unavailable(f"timm's {name}", error) from error
    if path is not None:
        fill(module, read_weights(path, options.trust_pickle), path.name)
    config: dict[str, Any] = timm.data.resolve_data_config(model=module)
    height, width = config["input_size"][-2:]
    preprocess = Preprocess(
        (height, width),
        math.floor(min(height, width) / config["crop_pct"]),
        _FITS.get(config.get("crop_mode") or "center", "crop"),
        _INTERPOLATIONS.get(config["interpolation"], "bicubic"),
    )
    return Found(module, tuple(config["mean"]), tuple(config["std"]), preprocess, _labels(timm, module))


def _labels(timm: Any, module: Any) -> list[str] | None:
    config = getattr(module, "pretrained_cfg", None) or {}
    names = config.get("label_names")
    if names:
        described = config.get("label_descriptions") or {}
        return [str(described.get(each, each)) for each in names]
    subset = timm.data.infer_imagenet_subset(module)
    if not subset:
        return None
    descriptions: list[str] = timm.data.ImageNetInfo(subset).label_descriptions()
    return descriptions
