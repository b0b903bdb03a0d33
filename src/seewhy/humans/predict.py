"""A classifier's probabilities for a whole data set, kept in a folder and taken from there while nothing has changed."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.engine import Cost, Meter
from seewhy.errors import DataError
from seewhy.humans.votes import Floats

#: the file in the folder, and how many images are in memory at once
FILE, PART = "predictions.npz", 256


@final
@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities (N, classes) for the images of a data set, NaN for those of which `failed` says why they cannot be read.

    `kept` says whether they were taken from a folder instead of being computed.
    """

    probabilities: Floats
    failed: dict[str, str]
    kept: bool
    cost: Cost


def predicted(
    net: Classifier,
    data: DataSet,
    folder: Path | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> Predictions:
    """The probabilities of every image, one forward pass each; read from `folder` where the model and the images are the same.

    The same are a model of equal weights, normalisation and size, and a data set of equal names and bytes. Images that
    cannot be read get NaN; raises `DataError` if none can.
    """
    key = fingerprint(net, data)
    file = folder / FILE if folder else None
    found = _kept(file, key) if file else None
    if found is not None:
        return found
    probabilities = np.full((len(data), net.classes), np.nan)
    failed: dict[str, str] = {}
    with Meter(net.engine.device) as meter:
        for start in range(0, len(data), PART):
            places, held = [], []
            for index in range(start, min(start + PART, len(data))):
                item = data.item(index)
                try:
                    held.append(item.read(net.preprocess))
                    places.append(index)
                except DataError as error:
                    failed[item.name] = str(error)
            if held:
                probabilities[places] = net.predict(Images.join(held)).double().softmax(1).cpu().numpy()
            if progress is not None:
                progress(min(start + PART, len(data)), len(data), "images")
    if len(failed) == len(data):
        raise DataError(f"none of {len(data):,} images of {data.name} can be read: {next(iter(failed.values()))}")
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"key": key, "failed": failed, "model": net.name, "images": len(data)})
        part = file.with_name(f".{file.name}.{os.getpid()}")
        with part.open("wb") as stream:
            np.savez_compressed(stream, about=np.array(about), probabilities=probabilities.astype(np.float32))
        part.replace(file)  # there or not, never half of it
        probabilities = probabilities.astype(np.float32).astype(np.float64)  # as it will be read again
    return Predictions(probabilities, failed, False, meter.cost)


def fingerprint(net: Classifier, data: DataSet) -> str:
    """What a prediction depends on, as one hash: weights, code, its own summary of the model, how pixels are made, images."""
    told: tuple[Any, ...] = (net.fingerprint, net.code, net.name, str(net.module), net.preprocess, net.mean, net.std)
    return hashlib.sha256(repr((*told, data.fingerprint())).encode()).hexdigest()


def _kept(file: Path, key: str) -> Predictions | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
            about = json.loads(str(held["about"]))
            if about["key"] != key:
                return None
            return Predictions(held["probabilities"].astype(np.float64), about["failed"], True, Cost())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
