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

    spec, source = _network(net, base)
    if source is not None and source.resolve() != (folder / BASE).resolve():
        shutil.copyfile(source, folder / BASE)
    write(folder / "model.py", _code(net, spec, base, source is not None).encode())
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
        "network": spec,
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
    spec, source = _network(net, base)
    made = architecture(spec if source is None else spec.replace(BASE, str(source), 1), len(net.labels))
    own = {key: value.shape for key, value in net.module.state_dict().items()}
    if own != {key: value.shape for key, value in made.state_dict().items()}:
        raise ModelError(f"{base} makes another network without its weights than with them, so it could not be saved")


def _network(net: Classifier, base: str) -> tuple[str, Path | None]:
    """The spec of the network without its weights, and the user's own file where it is made by one, which `BASE` then names."""
    from seewhy import zoo

    name, options = zoo.named(base)
    given = ["weights=none", f"size={net.size[0]}+{net.size[1]}", *(["grey=true"] if options.grey else [])]
    if not name.startswith("file:"):
        return ",".join([name, *given]), None
    held = Path(name.removeprefix("file:")).expanduser()
    if held.is_dir():
        about = json.loads((held / "model.json").read_text(encoding="utf-8"))
        if "network" in about:  # tuned before: the same network as then
            return about["network"], held / BASE if BASE in about["network"] else None
        file, function = str(held / "model.py"), "model"
    else:
        file, _, function = name.removeprefix("file:").partition("@")[0].rpartition(":")
    return ",".join([f"file:{BASE}:{function}", *given]), Path(file).expanduser()


def _code(net: Classifier, spec: str, base: str, local: bool) -> str:
    """model.py."""
    written = f"{spec!r}"
    if local:
        written = "f" + repr(spec.replace(f"file:{BASE}", f"file:{{HERE / '{BASE}'}}", 1))
    code = _CODE.format(model=base.partition(",")[0].rpartition("/")[2], classes=len(net.labels), spec=written)
    if local:
        return code
    return code.replace("from pathlib import Path\n\n", "").replace("HERE = Path(__file__).parent\n\n\n", "\n")


def write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    staged = file.with_name(file.name + ".part")
    staged.write_bytes(content)
    os.replace(staged, file)
