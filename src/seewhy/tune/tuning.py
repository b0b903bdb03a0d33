"""From a data set and a model to a tuned classifier in a folder, with its card."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from seewhy import __version__
from seewhy.classifier import Classifier
from seewhy.data.sets import DataSet
from seewhy.engine import Engine
from seewhy.errors import DataError, RunError
from seewhy.tune import card as cards
from seewhy.tune import saved
from seewhy.tune.loop import Loop, Progress, predicted
from seewhy.tune.marks import Marks, marks
from seewhy.tune.network import with_classes
from seewhy.tune.pictures import Pictures, keep, split, without_empty_classes
from seewhy.tune.recipe import Recipe

#: the shares of the progress that reading, training and measuring are told as
READING, TRAINING = 0.05, 0.9


@final
@dataclass(frozen=True)
class Tuned:
    """A tuned classifier: the folder that holds it, and its card as plain values."""

    folder: Path
    card: dict[str, Any]

    @property
    def spec(self) -> str:
        """What every command takes as a model."""
        return f"file:{self.folder}"

    def load(self, **words: Any) -> Classifier:
        """The classifier."""
        from seewhy import zoo

        return zoo.load(self.spec, **words)


def tune(
    data: DataSet,
    model: str,
    folder: Path,
    recipe: Recipe | None = None,
    *,
    test: DataSet | None = None,
    licence: str = "",
    engine: Engine | None = None,
    trust_pickle: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> Tuned:
    """Tune a model on a data set, and write the classifier, its card and its predictions into a folder.

    The hold-out is parted off by group and class before anything else, and measured once, at the end; then `test` is, if
    there is one, without the pictures that are also in `data`. The same call again finishes a training that was stopped,
    to the same weights; on a finished one it answers what is there, and measures a test set where none was measured.
    Raises `DataError`, `ModelError` or `RunError` in one sentence.
    """
    from seewhy import zoo

    recipe, engine = recipe or Recipe(), engine or Engine()
    folder = folder.expanduser()
    scratch = folder / "training"
    scratch.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # weights and data are rarely meant for a repository
    with _alone(folder):
        data, notes = without_empty_classes(data)
        base = zoo.load(model, device=engine.device, trust_pickle=trust_pickle, engine=engine)
        net, head = with_classes(base, data.classes or (), recipe.seed)
        saved.check(net, model)
        about = _about(data, base, recipe)
        _same(folder, about)
        finished = folder / "card.json"
        if finished.is_file():
            tuned = Tuned(folder, json.loads(finished.read_text(encoding="utf-8")))
        else:
            pictures = keep(data, net.preprocess, scratch / "pictures.npy", _reading(progress))
            tuned = _trained(net, head, pictures, model, base, folder, recipe, about, notes, licence, progress)
        if test is not None:
            tuned = _tested(tuned, test, engine, progress)
        shutil.rmtree(scratch)
        progress(1, 1, "done")
        return tuned


def _trained(
    net: Classifier,
    head: str,
    pictures: Pictures,
    model: str,
    base: Classifier,
    folder: Path,
    recipe: Recipe,
    about: dict[str, Any],
    notes: tuple[str, ...],
    licence: str,
    progress: Progress,
) -> Tuned:
    before, spent = _before(model)
    parts = split(pictures, recipe.hold_out, recipe.seed, watched=recipe.patience > 0, spent=spent)
    data = pictures.data
    loop = Loop(
        net,
        head,
        pictures,
        parts,
        recipe,
        folder / "training" / "checkpoint.pt",
        json.dumps(about),
        lambda done, total, what: progress(READING + TRAINING * done / total, 1, what),
    )
    made = loop.train()
    labels = data.classes or ()
    read = saved.save(made, model, folder, {"tuned": about})
    progress(READING + TRAINING, 1, "measuring on the hold-out")
    held = [pictures.labels[place] for place in parts.held]
    logits, found = _measured(folder, pictures, parts.held, labels, recipe.views, net.engine)
    lines = cards.rows("held out", [data.names[place] for place in parts.held], held, logits, labels)
    lines += [
        [part, data.names[place], labels[pictures.labels[place]], "", *("" for _ in labels)]
        for part, places in (("train", parts.train), ("watched", parts.watch))
        for place in places
    ]
    card = {
        "schema": 1,
        "name": f"{data.name}, {model.partition(',')[0].rpartition('/')[2]}",
        "labels": list(labels),
        "model": {
            "spec": model,
            "fingerprint": base.fingerprint,
            "parameters": net.parameters,
            "last_layer": head,
            "tuned_before": before,
        },
        "classifier": {"fingerprint": read.fingerprint, "size": list(read.size)},
        "data": cards.about(data, pictures.left_out, licence),
        "split": {
            "train": len(parts.train),
            "watched": len(parts.watch),
            "held": len(parts.held),
            "unit": "" if data.groups is None else ", and none of their group was",
        },
        "recipe": recipe.to_json(),
        "recipe_spec": recipe.spec,
        "precision": loop.precision,
        "history": loop.history,
        "seconds": sum(row["seconds"] for row in loop.history),
        "machine": f"{torch.get_num_threads()} threads of {platform.machine()}, torch {torch.__version__.partition('+')[0]}"
        if net.engine.device.type == "cpu"
        else f"{net.engine.device}, torch {torch.__version__}",
        "seewhy": __version__,
        "made": time.strftime("%Y-%m-%d"),
        "notes": [*notes, *parts.notes],
        "hold_out": found,
        "test": None,
        "about": about,
    }
    trained = {pictures.digests[place] for place in (*parts.train, *parts.watch)} | spent
    saved.write(folder / "digests.txt", "\n".join(sorted(trained)).encode())
    return _kept(folder, card, cards.table(lines, labels))


def _tested(tuned: Tuned, test: DataSet, engine: Engine, progress: Progress) -> Tuned:
    """The same classifier, measured on a test set that is not measured on yet."""
    known = tuned.card["test"]
    labels = tuned.card["labels"]
    aligned = test.aligned(labels)
    fingerprint = aligned.fingerprint()
    if known is not None and known["data"]["fingerprint"] == fingerprint:
        return tuned
    if known is not None:
        raise RunError(
            f"{tuned.folder} was tested on {known['data']['name']} already: a test set is looked at once; measure on "
            "another by seewhy check"
        )
    net = tuned.load(engine=engine, device=engine.device)
    views = tuned.card["recipe"].get("views", 1)
    pictures = keep(
        aligned,
        net.preprocess,
        tuned.folder / "training" / "test.npy",
        lambda done, total, what: progress(READING + TRAINING + 0.02 * done / total, 1, "reading the test set"),
    )
    seen = set((tuned.folder / "digests.txt").read_text(encoding="utf-8").split())
    places = [place for place, digest in enumerate(pictures.digests) if digest not in seen]
    if not places:
        raise DataError(f"all pictures of {test.name} are among those of the training: that is no test")
    progress(READING + TRAINING + 0.02, 1, "measuring on the test set")
    logits, found = _measured(tuned.folder, pictures, places, labels, views, engine)
    true = [pictures.labels[place] for place in places]
    notes = list(aligned.notes)
    if len(places) < len(pictures.digests):
        notes.append(
            f"{len(pictures.digests) - len(places):,} pictures are, pixel for pixel, among those of the training, and are "
            "left out"
        )
    about = {**cards.about(aligned, pictures.left_out), "notes": notes}
    card = {**tuned.card, "test": {"data": about, **found}}
    lines = cards.table(
        cards.rows("test", [pictures.data.names[place] for place in places], true, logits, labels), labels
    )
    there = (tuned.folder / "predictions.csv").read_text(encoding="utf-8")
    return _kept(tuned.folder, card, there + lines.partition("\n")[2])


def _measured(
    folder: Path, pictures: Pictures, places: Sequence[int], labels: Sequence[str], views: int, engine: Engine
) -> tuple[Tensor, dict[str, Any]]:
    """The logits of the classifier as it was written, and its marks; with those of the mean over mirror images, if wanted."""
    from seewhy import zoo

    true = [pictures.labels[place] for place in places]
    logits = predicted(zoo.load(f"file:{folder}", engine=engine, device=engine.device), pictures, places)
    found = {**marks(logits, true, labels).to_json(), "views": None}
    if views > 1:
        averaging = zoo.load(f"file:{folder},views={views}", engine=engine, device=engine.device)
        averaged = predicted(averaging, pictures, places)
        found["views"] = {"count": views, **marks(averaged, true, labels).to_json()}
    return logits, found


def _kept(folder: Path, card: dict[str, Any], predictions: str) -> Tuned:
    """Write what was found; card.json last, for it says that all the rest is there."""
    saved.write(folder / "predictions.csv", predictions.encode())
    saved.write(folder / "MODEL-CARD.md", cards.page(card).encode())
    saved.write(folder / "card.json", json.dumps(card, ensure_ascii=False, indent=2, allow_nan=False).encode())
    return Tuned(folder, card)


def _before(model: str) -> tuple[dict[str, Any] | None, frozenset[str]]:
    """What a model was tuned on before, if it was: its card's main points, and the digests of the pictures that trained."""
    from seewhy import zoo

    folder = Path(zoo.named(model)[0].removeprefix("file:")).expanduser()
    if not model.startswith("file:") or not (folder / "card.json").is_file():
        return None, frozenset()
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    points = {key: card[key] for key in ("name", "recipe", "recipe_spec", "seconds", "precision")}
    spent = frozenset((folder / "digests.txt").read_text(encoding="utf-8").split())
    return {**points, "data": card["data"]["fingerprint"], "model": card["model"]}, spent


def _about(data: DataSet, base: Classifier, recipe: Recipe) -> dict[str, Any]:
    """What makes a training this one and no other."""
    whose = hashlib.sha256(repr((data.names, data.labels, data.classes, data.groups)).encode()).hexdigest()
    return {"data": data.name, "list": whose, "model": base.fingerprint, "recipe": recipe.to_json()}


def _same(folder: Path, about: dict[str, Any]) -> None:
    """Raise `RunError` where the folder holds another training, naming what differs."""
    file = folder / "training.json"
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known == about:
            return
        options = [key for key, value in about["recipe"].items() if known.get("recipe", {}).get(key) != value]
        differs = [key for key in about if known.get(key) != about[key] and key != "recipe"]
        named = ", ".join([*(f"recipe's {key}" for key in options), *(f"{key}" for key in differs)])
        raise RunError(
            f"{folder} holds a training of something else (another {named}); choose another folder with --out"
        )
    if any((folder / name).exists() for name in ("model.py", "model.safetensors", "card.json")):
        raise RunError(f"{folder} holds another model; choose another folder with --out")
    saved.write(file, json.dumps(about, ensure_ascii=False, indent=2).encode())


def _reading(progress: Progress) -> Callable[[int, int, str], None]:
    return lambda done, total, what: progress(READING * done / total, 1, "reading the pictures")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock that the process's end lets go, where the system has such locks."""
    try:
        import fcntl
    except ImportError:  # another system than Unix
        yield
        return
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"another process is training in {folder}; wait for it, or choose another folder with --out"
            ) from None
        yield


__all__ = ["Marks", "Tuned", "tune"]
