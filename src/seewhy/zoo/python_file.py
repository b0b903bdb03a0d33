"""`file:PATH.py:FUNCTION@WEIGHTS`: the user's own model, made by a function of theirs; or `file:FOLDER`, which holds both."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

from torch import nn

from seewhy.errors import ModelError, SpecError, nearest
from seewhy.zoo.source import Found, Options, described, existing, fill, read_weights


def load(name: str, options: Options) -> Found:
    """Runs the file and calls the function without arguments; a class, or a module that is there, will do as well.

    A folder stands for its model.py, the function model in it, and the weights model.safetensors beside it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        existing(folder / "model.safetensors", "a model's weights")
        name = f"{folder / 'model.py'}:model" + ("" if options.weights else f"@{folder / 'model.safetensors'}")
    left, _, weights = name.partition("@")
    file, colon, function = left.rpartition(":")
    if not colon or not file or not function:
        raise SpecError(f'expected file:PATH.py:FUNCTION@WEIGHTS, got "file:{name}"')
    if weights and options.weights:
        raise SpecError(f'expected the weights once, got "@{weights}" and "weights={options.weights}"')
    weights = weights or options.weights
    path = existing(Path(file), "a Python file")
    made = _made(path, function)
    if not weights:
        note = f"the weights are those that {function}() made: none were given"
        return Found(made, notes=(note,), file=path)
    if weights.lower() == "none":
        return Found(made, random=True, file=path)
    held = Path(weights).expanduser()
    fill(made, read_weights(held, options.trust_pickle), held.name)
    return replace(described(made, held), file=path)


def _made(path: Path, function: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location(f"seewhy_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"expected a Python file (.py), got {path}")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # dataclasses and pickles look their module up
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # the file may import its neighbours
    try:
        spec.loader.exec_module(code)
        made = getattr(code, function, None)
        if made is None:
            names = [each for each in vars(code) if not each.startswith("_")]
            raise ModelError(f'{path} has no function "{function}"{nearest(function, names) or _list(code)}')
        model = made if isinstance(made, nn.Module) else made() if callable(made) else made
    except ModelError:
        raise
    except Exception as error:  # the user's code raises what it likes
        raise ModelError(f"{path} fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected {function}() of {path} to return a torch.nn.Module, got {type(model).__name__}")
    return model


def _list(code: object) -> str:
    here = getattr(code, "__name__", "")
    own = [name for name, made in vars(code).items() if callable(made) and getattr(made, "__module__", "") == here]
    return f"; it has: {', '.join(own)}" if own else ""
