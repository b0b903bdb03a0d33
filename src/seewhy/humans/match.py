"""Which picture of a data set a vote is about, and which of the model's classes a category stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, final

import numpy as np

from seewhy.data.tables import grid_of
from seewhy.errors import DataError, InputError, SpecError, nearest
from seewhy.humans.answers import listed, picture, plainly, shown_in
from seewhy.humans.votes import Floats, Integers, Votes

Combine = Literal["mean", "sum"]

#: the usual names of a label map's columns
MODEL_SIDE = ("imagenet_index", "model_class", "model", "class", "index", "label", "from")
PEOPLE_SIDE = ("category", "people", "people_class", "human", "human_class", "to")


@final
@dataclass(frozen=True, eq=False)
class Matched:
    """Votes for the pictures of a data set, in the set's order.

    `places` (N,) are the pictures' places in the set. `strangers` are images that were voted for and are not in the set;
    `silent` are pictures of the set without votes. `how` says by which part of the names they were found.
    """

    votes: Votes
    places: Integers
    strangers: tuple[str, ...]
    silent: tuple[str, ...]
    how: str

    def notes(self) -> tuple[str, ...]:
        """What was left out on either side, in sentences."""
        said = [] if self.how.endswith(("names", "folders")) else [f"images were found by {self.how}"]
        for names, what in (
            (self.strangers, "images that were voted for and are not in the data set, left out"),
            (self.silent, "images of the data set without votes, left out"),
        ):
            if names:
                said.append(f"{what}: {len(names):,} ({listed(names)})")
        return tuple(said)


def matched(votes: Votes, names: Sequence[str]) -> Matched:
    """The votes of those images that a data set has, found by their names.

    Compared are the whole names, or else the names without folders, or without what the model-vs-human toolbox wrote before
    and after them, or without endings: whichever finds the most. An image without votes counts as silent. Raises
    `DataError` where no image is found, or where several are equally well.
    """
    voted = votes.counts.sum(1) > 0
    if votes.trials is not None:
        voted[np.unique(votes.trials.image)] = True
    ways: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("their names", str),
        ("their names without folders", _base),
        ("the condition and the picture's own name within theirs", _stimulus),
        ("the picture's own name within theirs", lambda name: picture(_base(name))),
        ("their names without folders and endings", lambda name: PurePosixPath(picture(_base(name))).stem.lower()),
    )
    best: tuple[str, list[tuple[int, int]], int] = ("", [], 0)
    for how, key in ways:
        pairs, doubled = _pairs([key(name) for name in votes.images], [key(name) for name in names])
        if len(pairs) > len(best[1]):
            best = (how, pairs, doubled)
        elif not best[1] and doubled > best[2]:
            best = (how, [], doubled)
    how, pairs, doubled = best
    if not pairs and doubled:
        way_out = "; choose one of the conditions" if votes.conditions else ""
        raise DataError(
            f"{doubled:,} images of {votes.name} fit the data set only by {how}, where several have the same{way_out}"
        )
    pairs = sorted((place, index) for index, place in pairs if voted[index])
    if not pairs:
        example = votes.images[int(voted.argmax())]
        raise DataError(
            f'none of the {int(voted.sum()):,} images that {votes.name} has votes for is in the data set, "{example}" for '
            f'one; the data set names its images as "{names[0]}"{nearest(example, names)}'
        )
    places = np.array([place for place, _ in pairs], dtype=np.int64)
    indices = np.array([index for _, index in pairs], dtype=np.int64)
    found = set(places.tolist())
    held = np.zeros(len(votes), bool)
    held[indices] = True
    return Matched(
        votes.subset(indices),
        places,
        tuple(name for name, keep in zip(votes.images, voted & ~held, strict=True) if keep),
        tuple(name for place, name in enumerate(names) if place not in found),
        how,
    )


@final
@dataclass(frozen=True, eq=False)
class LabelMap:
    """Which of people's categories each of a model's classes belongs to; −1 in `place` (classes,) for none.

    `combine="sum"` adds the probabilities of a category's classes up: the model's own probability of it. `"mean"` takes
    their mean, as the model-vs-human toolbox does: the same as if all categories were equally frequent, however many classes
    each has. Either way they are divided by their sum, so that classes of no category don't count.

    >>> map = LabelMap(("tabby", "tiger cat", "beagle", "mop"), ("cat", "dog"), np.array([0, 0, 1, -1]))
    >>> map(np.array([[0.2, 0.2, 0.2, 0.4]])).tolist()
    [[0.5, 0.5]]
    """

    labels: tuple[str, ...]
    categories: tuple[str, ...]
    place: Integers
    combine: Combine = "mean"
    source: str = "the classes' names"

    def __post_init__(self) -> None:
        if self.combine not in ("mean", "sum"):
            raise SpecError(f'expected probabilities to be combined by "mean" or "sum", got "{self.combine}"')
        if self.place.shape != (len(self.labels),):
            raise InputError(f"expected a place for each of {len(self.labels)} classes, got {self.place.shape}")

    def __call__(self, probabilities: np.ndarray[Any, Any]) -> Floats:
        """Probabilities (N, classes) of a model as those of people's categories (N, K), each row adding up to 1."""
        if probabilities.ndim != 2 or probabilities.shape[1] != len(self.labels):
            raise InputError(f"expected probabilities (N, {len(self.labels)}), got {probabilities.shape}")
        used = self.place >= 0
        matrix = np.zeros((len(self.labels), len(self.categories)))
        matrix[np.flatnonzero(used), self.place[used]] = 1
        if self.combine == "mean":
            matrix /= np.maximum(matrix.sum(0), 1)
        held = probabilities.astype(np.float64) @ matrix
        total = held.sum(1, keepdims=True)
        return np.divide(held, total, out=np.full_like(held, 1 / len(self.categories)), where=total > 0)

    @property
    def missing(self) -> tuple[str, ...]:
        """The categories that no class of the model belongs to: it can never answer them."""
        has = np.isin(np.arange(len(self.categories)), self.place)
        return tuple(name for name, there in zip(self.categories, has, strict=True) if not there)

    def notes(self) -> tuple[str, ...]:
        """How the model's classes became people's categories, in sentences; nothing where they are the same."""
        used = self.place >= 0
        several = np.bincount(self.place[used], minlength=len(self.categories)).max(initial=0) > 1
        said = []
        if several:
            way = "their mean" if self.combine == "mean" else "their sum"
            said.append(
                f"{int(used.sum()):,} of the model's {len(self.labels):,} classes make up people's {len(self.categories)} "
                f"categories by {self.source}; a category's probability is {way} over its classes, divided by all categories'"
            )
        if not used.all():
            names = [name for name, keep in zip(self.labels, used, strict=True) if not keep]
            said.append(
                f"{len(names):,} of the model's classes belong to no category of people's; their probability is left out, "
                f"so that the model, too, can answer nothing else: {listed(names)}"
            )
        if self.missing:
            said.append(f"no class of the model belongs to {listed(self.missing)}: it never answers so")
        return tuple(said)

    @staticmethod
    def by_name(labels: Sequence[str], categories: Sequence[str]) -> LabelMap:
        """The model's class of the same name for each category; case and underscores don't count, nor what follows a comma.

        Raises `DataError` with the nearest names where a category has none.
        """
        full = {plainly(name): index for index, name in reversed(list(enumerate(labels)))}
        first = {plainly(name.partition(",")[0]): index for index, name in reversed(list(enumerate(labels)))}
        place = np.full(len(labels), -1, dtype=np.int64)
        lost = []
        for index, name in enumerate(categories):
            found = full.get(plainly(name), first.get(plainly(name)))
            if found is None:
                lost.append(name)
            else:
                place[found] = index
        if lost:
            more = f", nor {len(lost) - 1} more of people's {len(categories)} categories" if len(lost) > 1 else ""
            raise DataError(
                f'the model has no class "{lost[0]}"{more}{nearest(lost[0], labels)}'
                " (give --label-map, a CSV of the model's classes and people's categories, where names differ)"
            )
        return LabelMap(tuple(labels), tuple(categories), place)

    @staticmethod
    def read(path: str | Path, labels: Sequence[str], categories: Sequence[str], combine: Combine = "mean") -> LabelMap:
        """A map of a CSV or TSV with two columns: the model's class, by number or name, and the category.

        A class that is not listed, or has an empty category, belongs to none. Raises `DataError` with the nearest names
        where a class or a category is not known, and where a class is given two categories.
        """
        file = Path(path)
        header, rows = grid_of(file)
        ours, theirs = _columns(header, file)
        by_name = {plainly(name): index for index, name in reversed(list(enumerate(labels)))}
        by_name |= {key: by_name.get(key, index) for key, index in _firsts(labels).items()}
        known = {plainly(name): index for index, name in enumerate(categories)}
        place = np.full(len(labels), -1, dtype=np.int64)
        for number, row in enumerate(rows, 2):
            name, category = row[ours].strip(), row[theirs].strip()
            if not category:
                continue
            index = int(name) if name.isdecimal() and plainly(name) not in by_name else by_name.get(plainly(name))
            if index is None or not index < len(labels):
                raise DataError(
                    f'{file}, row {number}: the model has no class "{name}"; expected one of its {len(labels)} names, or a '
                    f"number from 0 to {len(labels) - 1}{nearest(name, labels)}"
                )
            if plainly(category) not in known:
                raise DataError(
                    f'{file}, row {number}: people were not asked for "{category}"{nearest(category, categories)} '
                    f"(there are: {listed(list(categories), 20)})"
                )
            if place[index] not in (-1, known[plainly(category)]):
                raise DataError(f'{file}, row {number}: the class "{labels[index]}" was given another category before')
            place[index] = known[plainly(category)]
        if (place < 0).all():
            raise DataError(f"{file} maps none of the model's classes to a category")
        return LabelMap(tuple(labels), tuple(categories), place, combine, file.name)


def truth(
    votes: Votes, labels: Sequence[int | None] | None, map: LabelMap, classes: Sequence[str] | None
) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """The true category of each of the votes' images, and what is to be said of it.

    `labels` are a data set's true classes of the same images, `classes` their names: people's categories, or the model's
    classes, which `map` takes to categories. Where the data set does not know, the votes' own word counts. Raises
    `DataError` where a true class is no category, or nothing is known at all.
    """
    own = votes.labels or (None,) * len(votes)
    if labels is None or all(label is None for label in labels):
        if all(label is None for label in own):
            raise DataError(
                f"neither the data set nor {votes.name} tells the images' true classes, and without them nobody is right or "
                "wrong; give data with labels"
            )
        return own, ("the true classes are those that the votes' file tells",)
    table = _categories(votes.classes, map, classes)
    found = tuple(None if label is None else table(label) for label in labels)
    both = [(mine, theirs) for mine, theirs in zip(found, own, strict=True) if mine is not None and theirs is not None]
    differ = sum(mine != theirs for mine, theirs in both)
    notes = []
    if differ:
        notes.append(
            "images on whose true class the data set and the votes' file disagree, the data set's counting: "
            f"{differ:,} of {len(both):,}"
        )
    unknown = sum(mine is None and theirs is None for mine, theirs in zip(found, own, strict=True))
    if unknown:
        notes.append(f"images whose true class is not known, or no category of people's: {unknown:,}")
    return tuple(theirs if mine is None else mine for mine, theirs in zip(found, own, strict=True)), tuple(notes)


def _categories(categories: Sequence[str], map: LabelMap, classes: Sequence[str] | None) -> Callable[[int], int | None]:
    """From a data set's class to people's category."""
    if classes is None:
        if len(map.labels) == len(categories):
            return lambda label: int(map.place[label])
        raise DataError("the data set's classes have no names, so that people's categories cannot be found among them")
    known = {plainly(name): index for index, name in enumerate(categories)}
    models = {plainly(name): index for index, name in reversed(list(enumerate(map.labels)))} | _firsts(map.labels)
    if all(plainly(name) in known for name in classes):
        places: list[int | None] = [known[plainly(name)] for name in classes]
        return lambda label: places[label]
    if sum(plainly(name) in models for name in classes) > sum(plainly(name) in known for name in classes):
        through = [models.get(plainly(name)) for name in classes]
        lifted = [None if each is None or map.place[each] < 0 else int(map.place[each]) for each in through]
        return lambda label: lifted[label]
    partly = [known.get(plainly(name)) for name in classes]

    def answer(label: int) -> int | None:
        if partly[label] is None:
            name = classes[label]
            raise DataError(
                f'the data set has images of "{name}", which people were not asked for{nearest(name, categories)} '
                f"(there are: {listed(list(categories), 20)})"
            )
        return partly[label]

    return answer


def _firsts(labels: Sequence[str]) -> dict[str, int]:
    return {plainly(name.partition(",")[0]): index for index, name in reversed(list(enumerate(labels)))}


def _columns(header: Sequence[str], file: Path) -> tuple[int, int]:
    lower = [name.lower().replace(" ", "_") for name in header]
    theirs = next((lower.index(name) for name in PEOPLE_SIDE if name in lower), None)
    ours = next((lower.index(name) for name in MODEL_SIDE if name in lower and lower.index(name) != theirs), None)
    if ours is not None and theirs is not None:
        return ours, theirs
    if len(header) == 2:
        return 0, 1
    raise DataError(
        f"{file}: expected a header of two columns, the model's class and people's category (as in index,category), got "
        f"{', '.join(header)}"
    )


def _base(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _stimulus(name: str) -> str:
    """Condition and picture, of a name that the model-vs-human toolbox made, or that has a folder."""
    base = _base(name)
    condition = shown_in(base)
    return f"{condition}/{picture(base)}" if condition else "/".join(PurePosixPath(name).parts[-2:])


def _pairs(mine: Sequence[str], theirs: Sequence[str]) -> tuple[list[tuple[int, int]], int]:
    """Places of names that both have once each, and how many both have where one has several."""
    often = Counter(mine), Counter(theirs)
    place = {name: index for index, name in enumerate(theirs)}
    pairs, doubled = [], 0
    for index, name in enumerate(mine):
        if name in place:
            if often[0][name] == 1 == often[1][name]:
                pairs.append((index, place[name]))
            else:
                doubled += 1
    return pairs, doubled
