"""A tuned classifier as a folder that every command takes: `file:FOLDER`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from seewhy.classifier import Classifier
from seewhy.errors import ModelError
from seewhy.tune.network import architecture

_CODE = '''\
"""The network of a classifier that `seewhy tune` made of {model}, with {classes} outputs; its weights lie beside it."""

from pathlib import Path

from seewhy.tune import architecture

HERE = Path(__file__).parent


def model():
    return architecture({spec}, {classes})
'''

#: the user's own file, where the model that was tuned came from one
BASE = "base.py"


def save(net: Classifier, base: str, folder: Path, record: dict[str, Any]) -> Classifier:
    """Write model.py, model.safetensors and model.json, read them back, and answer the classifier that was read.

    `base` is the spec of the model that was tuned. Raises `ModelError` where what was written does not answer the same.
    """
    from seewhy import zoo

    code, source = _code(net, base)
    if source is not None and source.resolve() != (folder / BASE).resolve():
        shutil.copyfile(source, folder / BASE)
    write(folder / "model.py", code.encode())
    weights = folder / "model.safetensors"
    staged = weights.with_suffix(".part")
    save_file({key: value.detach().cpu().contiguous() for key, value in net.module.state_dict().items()}, staged)
    about = {
        "mean": list(net.mean),
        "std": list(net.std),
        "size": list(net.size),
        "fit": net.preprocess.fit,
        "interpolation": net.preprocess.interpolation,
        "labels": list(net.labels),
        "probabilities": net.answers_probabilities,
        "sha256": hashlib.sha256(staged.read_bytes()).hexdigest(),
        **record,
    }
    os.replace(staged, weights)
    write(folder / "model.json", json.dumps(about, ensure_ascii=False, indent=2).encode())
    read = zoo.load(f"file:{folder}", engine=net.engine, device=net.engine.device)
    images = torch.rand(2, 3, *net.size, generator=torch.Generator().manual_seed(0))
    if not torch.allclose(read.predict(images), net.predict(images), atol=1e-3, rtol=1e-3):
        raise ModelError(f"what was written to {folder} does not answer as the tuned classifier did")
    return read


def check(net: Classifier, base: str) -> None:
    """Raise `ModelError`, before any training, where a model of this spec could not be made again from its weights."""
    name, options = _bare(net, base)
    made = architecture(f"{name},{options}", len(net.labels))
    own = {key: value.shape for key, value in net.module.state_dict().items()}
    if own != {key: value.shape for key, value in made.state_dict().items()}:
        raise ModelError(f"{base} makes another network without its weights than with them, so it could not be saved")


def _bare(net: Classifier, base: str) -> tuple[str, str]:
    """The name of a spec without its weights, and the options with which it makes a network without them."""
    from seewhy import zoo

    name, options = zoo.named(base)
    if name.startswith("file:"):
        path, function = _python(name)
        name = f"file:{path}:{function}"
    given = ["weights=none", f"size={net.size[0]}+{net.size[1]}", *(["grey=true"] if options.grey else [])]
    return name, ",".join(given)


def _python(name: str) -> tuple[Path, str]:
    """The file and the function of a `file:` spec."""
    held = Path(name.removeprefix("file:")).expanduser()
    if held.is_dir():
        return held / "model.py", "model"
    left, _, _ = name.removeprefix("file:").partition("@")
    file, _, function = left.rpartition(":")
    return Path(file).expanduser(), function


def _code(net: Classifier, base: str) -> tuple[str, Path | None]:
    name, options = _bare(net, base)
    source: Path | None = None
    spec = repr(f"{name},{options}")
    if name.startswith("file:"):
        source, function = _python(name)
        spec = f'f"file:{{HERE / {BASE!r}}}:{function},{options}"'
    code = _CODE.format(model=base.partition(",")[0].rpartition("/")[2], classes=len(net.labels), spec=spec)
    return code if source else code.replace("from pathlib import Path\n\n", "").replace(
        "HERE = Path(__file__).parent\n\n\n", "\n"
    ), source


def write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    staged = file.with_name(file.name + ".part")
    staged.write_bytes(content)
    os.replace(staged, file)
