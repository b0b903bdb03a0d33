"""`export:PATH.pt2`: a classifier that `torch.export.save` wrote."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import torch
from torch import nn

from seewhy.data.images import Preprocess
from seewhy.errors import ModelError
from seewhy.zoo.source import Found, Options, described, existing, for_batches


def load(name: str, options: Options) -> Found:
    """The input's size comes from the exported program; the rest from options or the sidecar PATH.json.

    An archive that holds pickles or compiled code is refused unless `trust_pickle` is given. The graph itself is read
    by torch's own parser, which is not made for files of strangers.
    """
    path = existing(Path(name), "an exported program")
    if options.weights:
        raise ModelError(f"an exported program holds its own weights: leave out weights={options.weights}")
    unsafe = _needs_trust(path)
    if unsafe and not options.trust_pickle:
        raise ModelError(
            f"{path} holds more than a graph and tensors ({unsafe}), and reading it could run any code; trust it by "
            "--trust-pickle (trust_pickle=True) if you know its maker"
        )
    try:
        program = torch.export.load(path)
    except Exception as error:  # versions, operators that this torch does not have, damage
        raise ModelError(f"torch cannot load the exported program {path}: {str(error)[:200]}") from error
    inputs = set(program.graph_signature.user_inputs)
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    shapes = [tuple(node.meta["val"].shape) for node in placeholders]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ModelError(f"expected one input of images (N, 3, H, W) in {path}, got {shapes}")
    module: nn.Module = program.module()
    found = described(module, path)
    preprocess = found.preprocess
    height, width = shapes[0][2:]
    if preprocess is None and isinstance(height, int) and isinstance(width, int):
        preprocess = Preprocess((height, width))
    notes: tuple[str, ...] = ()
    size = options.side or (preprocess.size if preprocess else None)
    if size is not None and shapes[0][1] != 1:
        module, notes = for_batches(module, size)
    return Found(module, found.mean, found.std, preprocess, found.labels, found.probabilities, notes, file=path)


def _needs_trust(path: Path) -> str:
    """What in the archive torch would unpickle or run: a member's name, or nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                inside = member.partition("/")[2]
                if inside.startswith("data/aotinductor/") or inside.endswith(".so"):
                    return inside
                if inside.startswith("data/constants/") and ("custom_obj" in inside or "opaque_obj" in inside):
                    return inside
                if inside.endswith("_config.json"):
                    held = json.loads(archive.read(member)).get("config", {})
                    pickled = [str(key) for key, entry in held.items() if entry.get("use_pickle")]
                    if pickled:
                        return pickled[0]
                if inside.endswith(".pt") and archive.getinfo(member).file_size:
                    try:
                        torch.load(io.BytesIO(archive.read(member)), weights_only=True)
                    except (pickle.UnpicklingError, RuntimeError):
                        return inside
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(f"{path} is no archive that torch.export.save wrote: {error}") from error
    return ""
