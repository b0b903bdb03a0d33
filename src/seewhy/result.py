"""What every result can do besides holding its numbers: be kept in one open file, and be shown in a notebook."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from seewhy.data.images import Images

if TYPE_CHECKING:
    import os

    from _typeshed import DataclassInstance
    from matplotlib.figure import Figure


def save(result: DataclassInstance, path: str | os.PathLike[str]) -> None:
    """Write a result to one `.npz` file of plain arrays and a JSON text, `about`; needs nothing of seewhy to be read.

    An array for each tensor or array by its field's name (`measures.completeness error` for one in a mapping,
    `images.pixels` for the images' pixels); everything else stands in `about`.
    """
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for field in fields(result):
        _sort(field.name, getattr(result, field.name), arrays, about)
    with Path(path).open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)


def _sort(name: str, value: Any, arrays: dict[str, Any], about: dict[str, Any]) -> None:
    if isinstance(value, Tensor):
        arrays[name] = value.detach().cpu().numpy()
    elif isinstance(value, np.ndarray):
        arrays[name] = value
    elif isinstance(value, Images):
        _sort(f"{name}.pixels", value.pixels, arrays, about)
        about[f"{name}.names"] = value.names
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _sort(f"{name}.{key}", part, arrays, about)
    else:
        about[name] = _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def shown(figure: Figure, words: str) -> str:
    """A figure as HTML for a notebook, with `words` for those who cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    picture = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{picture}">'
