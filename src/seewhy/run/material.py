"""The images of an audit: photographs, folders and data sets as one row of entries, and a draw from them."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from seewhy.data.folders import photos
from seewhy.data.load import load
from seewhy.data.photo import SUFFIXES, Picture
from seewhy.data.sets import UNREADABLE, DataSet, Files, Item
from seewhy.data.tables import rows_of
from seewhy.errors import DataError, SpecError
from seewhy.look.units import Units
from seewhy.method import Method
from seewhy.run.store import printable

#: where the photographs come from that scikit-image ships, and on what terms
DEMONSTRATION: Mapping[str, str] = {
    "astronaut.png": "Eileen Collins, NASA Great Images; public domain (shipped with scikit-image)",
    "chelsea.png": "Chelsea the cat, Stéfan van der Walt; CC0 (shipped with scikit-image)",
    "coffee.png": "Cup of coffee, Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0 (shipped with scikit-image)",
    "rocket.jpg": "Falcon 9 with DSCOVR, SpaceX; public domain (shipped with scikit-image)",
}

_TABLES = (".csv", ".tsv", ".npz", ".tgz", ".tar.gz", ".tar")


@dataclass(frozen=True)
class Entry:
    """One image that was given, not read yet."""

    item: Item
    path: str | None
    content: Callable[[], bytes]
    credit: str | None


class Material(NamedTuple):
    """The images that were given, and what a reader should know of them.

    `sets` have the model's class indices, `given` their own classes; both hold the entries in their order. `masks` is the
    folder of what the images show, where there is one.
    """

    entries: tuple[Entry, ...]
    sets: tuple[DataSet, ...]
    notes: tuple[str, ...]
    given: tuple[DataSet, ...]
    demonstration: bool = False
    masks: Path | None = None


#: what an audit takes: paths, specs of data sets, and data sets
Given = str | os.PathLike[str] | DataSet


def gather(sources: Sequence[Given], labels: Sequence[str], split: str | None = None) -> Material:
    """The images of photographs, folders and data sets, in order; without any, the photographs that scikit-image ships.

    True classes come with a model's class indices where the names of the classes allow it. `split` chooses a part of the
    data sets that have parts; raises `SpecError` where there is none among them. What is given twice is taken once. One of
    several sources that holds no images is an image that cannot be read; raises `DataError` where it is the only one.
    """
    unique = list({each if isinstance(each, DataSet) else Path(each).expanduser(): each for each in sources}.values())
    if split is not None and all(isinstance(each, DataSet) or _is_photo(each) for each in unique):
        raise SpecError(f'photographs have no splits; got the split "{split}"')
    if not unique:
        return _demonstration()
    sets: list[DataSet] = []
    notes: list[str] = []
    single: list[str | os.PathLike[str]] = []
    for source in unique:
        if not isinstance(source, DataSet) and _is_photo(source):
            single.append(source)
            continue
        if single:
            sets.append(photos(single))
            single = []
        sets.append(source if isinstance(source, DataSet) else _loaded(source, split, alone=len(unique) == 1))
    if single:
        sets.append(photos(single))
    sets = list(map(_legible, sets))
    given = tuple(sets)
    entries: list[Entry] = []
    for number, data in enumerate(sets):
        fitting, said = data.aligned_or_bare(labels)
        notes += (*data.notes, *said)
        sets[number] = fitting
        entries += [_entry(fitting, index) for index in range(len(fitting))]
    return Material(tuple(entries), tuple(sets), tuple(notes), given)


def _loaded(source: str | os.PathLike[str], split: str | None, *, alone: bool) -> DataSet:
    """The data set of a source; where there are others, one picture that cannot be read stands for it if it cannot."""
    try:
        return load(source, split)
    except DataError as error:
        if alone:
            raise
        name = os.fspath(source)
        return DataSet(name, (name,), _Missing(str(error)))


def _legible(data: DataSet) -> DataSet:
    """The same set, its names and classes in letters that files can hold."""
    return replace(
        data,
        name=printable(data.name),
        names=tuple(map(printable, data.names)),
        classes=None if data.classes is None else tuple(map(printable, data.classes)),
        notes=tuple(map(printable, data.notes)),
    )


def masked(material: Material, root: str | os.PathLike[str] | None, methods: Sequence[Method]) -> Material:
    """The same images with the folder of their masks; raises `SpecError` where nothing that is asked for takes masks."""
    if root is None:
        return material
    if material.demonstration:
        raise SpecError("masks are of images that are given; give them, as in seewhy audit photos/ --masks masks/")
    if methods and not any(isinstance(method, Units) for method in methods):
        raise SpecError(f"masks are for {Units.name}, which was not asked for; add --method {Units.name}")
    return material._replace(masks=Path(root).expanduser())


def _is_photo(source: str | os.PathLike[str]) -> bool:
    path = Path(source).expanduser()
    if path.is_dir():
        return False
    return path.suffix.lower() in SUFFIXES or (path.is_file() and not path.name.lower().endswith(_TABLES))


def _entry(data: DataSet, index: int, credit: str | None = None) -> Entry:
    place = data.positions[index]
    path = printable(str(data.source.paths[place])) if isinstance(data.source, Files) else None
    return Entry(data.item(index), path, lambda: data.source.content(place), credit)


def _demonstration() -> Material:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise DataError("the photographs of the demonstration come with scikit-image: install it, or name your own")
    data = photos([Path(found.origin).parent / "data" / name for name in DEMONSTRATION])
    credits = list(DEMONSTRATION.values())
    return Material(
        tuple(_entry(data, index, credits[index]) for index in range(len(data))),
        (data,),
        (),
        (data,),
        demonstration=True,
    )


def untrained(material: Material, spec: str) -> Material:
    """The images that a tuned classifier (`file:FOLDER`) was not trained on, where its folder tells which ones it was.

    They are known by the data set's name and their own, as predictions.csv has them; where nothing else is left all stay,
    and a note says so.
    """
    notes = list(material.notes)
    entries: list[Entry] = []
    kept: list[tuple[DataSet, DataSet]] = []
    start = 0
    for fitting, given in zip(material.sets, material.given, strict=True):
        left, said = unseen(given, spec)
        notes += said
        entries += [material.entries[start + place] for place in left]
        if len(left) < len(given):
            name = f"{given.name}, held out"
            kept.append((replace(fitting.subset(left), name=name), replace(given.subset(left), name=name)))
        else:
            kept.append((fitting, given))
        start += len(given)
    sets, own = zip(*kept, strict=True)
    return Material(tuple(entries), sets, tuple(notes), own, material.demonstration, material.masks)


def unseen(data: DataSet, spec: str) -> tuple[list[int], tuple[str, ...]]:
    """The places of a set's images that a tuned classifier was not trained on, and what is to be said.

    All, where it was trained on all of them.
    """
    trained = _trained(spec)
    if trained is None or data.name != trained[0]:
        return list(range(len(data))), ()
    left = [place for place, name in enumerate(data.names) if name not in trained[1]]
    if not left:
        return list(range(len(data))), (
            f"the model was trained on all images of {data.name}: what is right there says nothing",
        )
    if len(left) == len(data):
        return left, ()
    seen = len(data) - len(left)
    return left, (f"{seen:,} of {len(data):,} images of {data.name} are left out: the model was trained on them",)


def _trained(spec: str) -> tuple[str, set[str]] | None:
    """The data set that a tuned classifier's folder names, and the images that it was trained on; None for another model."""
    folder = Path(spec.removeprefix("file:").partition(",")[0]).expanduser()
    card, table = folder / "card.json", folder / "predictions.csv"
    if not spec.startswith("file:") or not card.is_file() or not table.is_file():
        return None
    try:
        name = str(json.loads(card.read_text(encoding="utf-8"))["data"]["name"])
        header, rows = rows_of(table)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{folder} does not say what its classifier was trained on ({error}); tune it again") from None
    if not {"part", "image"} <= set(header):
        raise DataError(f"{table} has no columns part and image, which say what the classifier was trained on")
    return name, {row["image"] for row in rows if row["part"] in ("train", "watched")}


@dataclass(frozen=True)
class _Missing:
    """The one picture of a source that cannot be opened, and why."""

    sentence: str

    def picture(self, position: int) -> Picture:
        raise DataError(self.sentence)

    def content(self, position: int) -> bytes:
        return UNREADABLE


@dataclass(frozen=True, eq=False)
class _Entries:
    """Pictures of several sets as one source."""

    entries: tuple[Entry, ...]

    def picture(self, position: int) -> Picture:
        return self.entries[position].item.open()

    def content(self, position: int) -> bytes:
        return self.entries[position].content()


def whole(material: Material) -> DataSet:
    """Everything that was given as one set: with classes of its own, or those of the model where there are several sets."""
    if len(material.given) == 1:
        return material.given[0]
    entries = material.entries
    labels = tuple(entry.item.label for entry in entries)
    classes = next((data.classes for data in material.sets if data.classes), None)
    known = any(label is not None for label in labels)
    return DataSet(
        f"{len(material.sets)} sets of images",
        tuple(entry.item.name for entry in entries),
        _Entries(entries),
        labels if known else None,
        classes if known else None,
    )


def draw(material: Material, count: int) -> list[int]:
    """The positions of the images that are taken: of one set by chance, each class with its share; else evenly."""
    total = len(material.entries)
    if count >= total:
        return list(range(total))
    if len(material.sets) > 1:
        return [number * total // count for number in range(count)]
    data = material.sets[0]
    places = {place: index for index, place in enumerate(data.positions)}
    return [places[place] for place in data.sample(count, seed=0).positions]


def how(material: Material) -> str:
    """In which way `draw` draws, in words."""
    return " evenly" if len(material.sets) > 1 else " by chance (seed 0)"
