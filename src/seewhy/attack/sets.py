"""Adversarial sets as files: PNG images and one CSV table, which load again and are judged again."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.attack.base import Adversarial, Goal, size_of
from seewhy.attack.oracles import as_saved, predicted
from seewhy.classifier import Classifier
from seewhy.data.folders import there
from seewhy.data.images import Images
from seewhy.data.photo import open_photo
from seewhy.errors import DataError, InputError, RunError

#: the table's name in the folder, and its columns
TABLE = "adversarial.csv"
COLUMNS = (
    *("file", "original", "image", "method", "norm", "size", "label", "class", "target", "target_class", "predicted"),
    *(
        "predicted_class",
        "probability",
        "fools",
        "l0",
        "l2",
        "linf",
        "rms",
        "queries",
        "gradients",
        "model",
        "fingerprint",
    ),
)


def row(net: Classifier, found: Adversarial, index: int, file: str, original: str) -> dict[str, Any]:
    """What the table says of one image, judged as it is saved: in 8 bits.

    Sizes are those of the change as saved, from the image as the model saw it; `size` is the one that the attack had.
    """
    level = int(found.best[index]) if int(found.best[index]) >= 0 else int(found.eps[:, index].argmax())
    saved = as_saved(found.images[level, index])
    probabilities = net.predict(saved[None]).softmax(-1)[0]
    predicted, label = int(probabilities.argmax()), int(found.labels[index])
    target = None if found.target is None else int(found.target[index])
    change = saved - found.original.pixels[index]
    return {
        "file": file,
        "original": original,
        "image": found.original.names[index],
        "method": found.method,
        "norm": found.norm,
        "size": float(found.eps[level, index]),
        "label": label,
        "class": found.names[label],
        "target": "" if target is None else target,
        "target_class": "" if target is None else found.names[target],
        "predicted": predicted,
        "predicted_class": found.names[predicted],
        "probability": float(probabilities[predicted]),
        "fools": bool(found.best[index] >= 0),
        **{norm: float(size_of(change, norm)) for norm in ("l0", "l2", "linf")},
        "rms": float(change.square().mean().sqrt()),
        "queries": int(found.queries[index]),
        "gradients": int(found.gradients[index]),
        "model": net.name,
        "fingerprint": net.fingerprint,
    }


def write(folder: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the table of images that are in a folder.

    Where it has one, its rows stay, but those of files written again, and of originals written again: they may be others now.
    """
    path = Path(folder) / TABLE
    kept: list[Mapping[str, Any]] = []
    if path.exists():
        files, originals = ({each[kind] for each in rows} for kind in ("file", "original"))
        kept = [each for each in _rows(path) if each["file"] not in files and each["original"] not in originals]
    staged = path.with_suffix(".part")  # the table that is there outlives whatever stops the writing
    with staged.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()
        table.writerows([*kept, *rows])
    os.replace(staged, path)
    return path


def _rows(path: Path) -> tuple[Mapping[str, str], ...]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = tuple(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table {path} cannot be read: {error}") from None
    lacking = [
        column for column in ("file", "original", "label", "target", "predicted") if not rows or column not in rows[0]
    ]
    if lacking:
        raise DataError(
            f"expected a table of adversarial images in {path}, got one without {lacking[0] if rows else 'rows'}"
        )
    return rows


def export(
    net: Classifier, found: Sequence[Adversarial], folder: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Save what attacks on `net` found as PNG, with the images as the model saw them and a table; answers the table's path.

    The image of each is the smallest that fools, in 8 bits too; where none does, the one at the largest size, and the table
    says so. Raises `RunError` where the folder holds a set already, unless `overwrite`, and `InputError` where attacks on
    different images would give their originals one name.
    """
    path = Path(folder)
    if (path / TABLE).exists() and not overwrite:
        raise RunError(f"{path} holds an adversarial set already; choose another folder, or say overwrite")
    originals: dict[str, Tensor] = {}
    planned: list[tuple[Adversarial, int, Tensor, str, str]] = []
    for number, each in enumerate(found, 1):
        fooling = each.fooling
        for index, name in enumerate(each.original.names):
            stem = f"{index + 1:04d}-" + re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40]
            pixels = each.original.pixels[index]
            if not torch.equal(originals.setdefault(f"{stem}.png", pixels), pixels):
                raise InputError(
                    f"expected attacks on the same images, or on images of other names; {each.method} had another {name} in its "
                    "place than an attack before it; export them to folders of their own"
                )
            planned.append((each, index, fooling[index], f"{stem}.{number}.png", f"{stem}.png"))
    path.mkdir(parents=True, exist_ok=True)
    for original, pixels in originals.items():
        save_pixels(pixels, path / original)
    rows = []
    for each, index, changed, file, original in planned:
        save_pixels(changed, path / file)
        rows.append(row(net, each, index, file, original))
    return write(path, rows)


def save_pixels(pixels: Tensor, path: Path) -> None:
    """Write pixels (3, H, W) in [0, 1] as a picture of 8 bits."""
    Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy()).save(path)


@dataclass(frozen=True)
class Judged:
    """What a model says of an adversarial set: `predictions` (N,), `fools` (N,), and `right` (N,) on the originals.

    An image fools where the model, right on the original, is led away from its class or, where the attack had a target, to it.
    `as_told` (N,): whether the model gives the class that the table says.
    """

    predictions: Tensor
    fools: Tensor
    right: Tensor
    as_told: Tensor

    def words(self) -> str:
        """How many images fool, in a sentence."""
        return (
            f"right on {int(self.right.sum())} of {len(self.right)} originals, and fooled by {int(self.fools.sum())} of those; "
            f"{int(self.as_told.sum())} of {len(self.right)} images get the class that the table says"
        )


@dataclass(frozen=True)
class AdversarialSet:
    """A set that was loaded: the changed `images` (with their true classes), their `originals`, and the table's rows."""

    images: Images
    originals: Images
    rows: tuple[Mapping[str, str], ...]

    def judged(self, net: Classifier) -> Judged:
        """Show the set to a model, by plain forward passes.

        Raises `InputError` where its input is another, where it lacks classes of the set, or has them in another order.
        """
        if tuple(self.images.shape[2:]) != net.size:
            height, width = self.images.shape[2:]
            raise InputError(
                f"expected images of {net.size[0]} × {net.size[1]} pixels, as {net.name} takes, got a set of {height} × {width}"
            )
        truth = self.images.labels
        targets = torch.tensor([int(each["target"] or -1) for each in self.rows])
        if truth is None or int(torch.maximum(truth, targets).max()) >= net.classes:
            raise InputError(f"the set speaks of classes that {net.name}, which has {net.classes}, does not have")
        self._in_order(net)
        logits = net.predict(self.images).cpu()
        predictions, named = logits.argmax(1), predicted(logits)
        right = predicted(net.predict(self.originals).cpu()) == truth
        reached = torch.where(targets < 0, Goal(truth).reached(named), Goal(truth, targets).reached(named))
        told = torch.tensor([int(each["predicted"]) for each in self.rows])
        return Judged(predictions, reached & right, right, predictions == told)

    def _in_order(self, net: Classifier) -> None:
        """Raise `InputError` where a model has the names of the set's classes, and gives them to other classes.

        Where it lacks one of them it has words of its own, and only the number of the class counts.
        """
        named = {
            (int(each[index]), each[name])
            for each in self.rows
            for index, name in (("label", "class"), ("target", "target_class"), ("predicted", "predicted_class"))
            if each.get(index) and each.get(name)
        }
        if not net.labels_given or not {name for _, name in named} <= set(net.labels):
            return
        for index, name in sorted(named):
            if net.labels[index : index + 1] != (name,):
                raise InputError(
                    f'expected the same classes in the same order, got "{name}" as class {index} in the set and as class '
                    f"{net.labels.index(name)} in {net.name}"
                )


def load(folder: str | os.PathLike[str]) -> AdversarialSet:
    """Read an adversarial set. Raises `DataError` where its table or one of its images is missing or damaged."""
    root = there(folder)
    path = root / TABLE
    if not path.exists():
        raise DataError(f"{root} holds no adversarial set: expected the table {TABLE} in it")
    rows = _rows(path)
    for number, each in enumerate(rows, 1):
        if None in each.values():
            raise DataError(f"row {number} of the table {path} is cut off; restore it, or export the set again")
    names = list(dict.fromkeys(name for each in rows for name in (each["file"], each["original"]) if name))
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"the adversarial set {root} lacks the image {missing[0]}{more}, which its table names; restore it, or export the "
            "set again"
        )
    try:
        labels = torch.tensor([int(each["label"]) for each in rows])
        [int(each["predicted"]) + int(each["target"] or 0) for each in rows]
    except ValueError as error:
        raise DataError(f"the table {path} has a class that is no whole number: {error}") from None
    images, originals = (_read(root, [each[kind] for each in rows]) for kind in ("file", "original"))
    if images.shape != originals.shape:
        raise DataError(f"the adversarial images in {root} and their originals differ in size")
    shown = tuple(each["file"] for each in rows)
    return AdversarialSet(Images(images, shown, labels=labels), Images(originals, shown, labels=labels), rows)


def _read(root: Path, names: Sequence[str]) -> Tensor:
    pixels: list[Tensor] = []
    for name in names:
        picture, _ = open_photo(root / name, f"the image {name} of the adversarial set {root}")
        values = np.asarray(picture, dtype=np.float32) / 255
        pixels.append(torch.from_numpy(values).permute(2, 0, 1))
        if pixels[-1].shape != pixels[0].shape:
            raise DataError(f"the image {name} of the adversarial set {root} has another size than {names[0]}")
    return torch.stack(pixels)
