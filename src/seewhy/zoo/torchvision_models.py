"""`torchvision:NAME`: torchvision's image classifiers, with what their weights say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seewhy.data.images import Interpolation, Preprocess
from seewhy.errors import ModelError, nearest
from seewhy.zoo.source import IMAGENET, Found, Options, fill, need, read_weights, unavailable

_INTERPOLATIONS: dict[str, Interpolation] = {
    "nearest": "nearest",
    "nearest-exact": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
    "box": "box",
}


def load(name: str, options: Options) -> Found:
    """`weights` may be the name of one of the model's sets of weights (IMAGENET1K_V1), or a state dict's path."""
    models = need("torchvision", "zoo", f"torchvision:{name}").models
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f'torchvision has no classifier "{name}"{nearest(name, known)}')
    sets = models.get_model_weights(name)
    chosen, path = sets.DEFAULT, None
    if options.weights and not options.random:
        if options.weights in sets.__members__:
            chosen = sets[options.weights]
        elif options.weights.upper() != "DEFAULT":
            path = Path(options.weights)
            if not path.suffix:
                way_out = nearest(options.weights, list(sets.__members__))
                raise ModelError(f'torchvision\'s {name} has no weights "{options.weights}"{way_out}')
    if options.random or path is not None:
        given: dict[str, Any] = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        module = models.get_model(name, weights=None, **given)
        if path is not None:
            weights = read_weights(path, options.trust_pickle)
            if name == "googlenet" and not any(key.startswith("aux1.") for key in weights):
                module.aux1 = module.aux2 = None  # torchvision's own weights come without them
                module.aux_logits = False
            fill(module, weights, path.name)
            # the pretrained Inception and GoogLeNet were trained on another scale than their transforms give
            module.transform_input = name in ("googlenet", "inception_v3")
    else:
        try:
            module = models.get_model(name, weights=chosen)
        except (OSError, RuntimeError, ValueError) as error:  # no network, or half a file
            raise unavailable(f"torchvision's weights {chosen} of {name}", error) from error
    transforms = chosen.transforms()
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if getattr(module, "transform_input", False):
        # The model would undo ImageNet's normalisation to put (x − 0.5) / 0.5 in its place: it gets that at once.
        if (mean, std) == IMAGENET:
            module.transform_input = False
            mean, std = (0.5,) * 3, (0.5,) * 3
        else:
            raise ModelError(
                f"torchvision:{name} expects ImageNet's normalisation, and its weights say {mean} and {std}"
            )
    height, width = (list(transforms.crop_size) * 2)[:2]
    resize = list(transforms.resize_size)
    preprocess = Preprocess(
        (height, width),
        resize[0] if len(resize) == 1 else min(resize),
        "crop",
        _INTERPOLATIONS.get(transforms.interpolation.value, "bilinear"),
    )
    return Found(module, mean, std, preprocess, chosen.meta.get("categories"))
