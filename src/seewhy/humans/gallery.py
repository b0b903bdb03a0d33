"""The images on which people and a network part most clearly, with what each answered and why the network did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.engine import Cost
from seewhy.errors import InputError, NothingToExplain
from seewhy.explain.base import Attribution, Explainer
from seewhy.explain.cam import GradCAM
from seewhy.humans.parting import PARTED, Parting
from seewhy.result import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: classes that are named for an image, of people and of the network
NAMED = 4

Shares = tuple[tuple[str, float], ...]


@final
@dataclass(frozen=True)
class Case:
    """One image of a set: its true class, what people and the network answered, and how sure both are.

    `votes` and `chances` are the same classes in the same order, the ones that matter to either: `(class, share of votes)`
    and `(class, the network's probability)`. `place` is the image's among those that were compared.
    """

    group: str
    image: str
    place: int
    truth: str
    people: str
    answer: str
    clarity: float
    votes: Shares
    chances: Shares

    def row(self) -> dict[str, Any]:
        """The case as plain values."""
        return {
            "set": self.group,
            "image": self.image,
            "place": self.place,
            "truth": self.truth,
            "people": self.people,
            "answer": self.answer,
            "clarity": self.clarity,
            "votes": [[name, share] for name, share in self.votes],
            "chances": [[name, chance] for name, chance in self.chances],
        }

    @staticmethod
    def of(row: Mapping[str, Any]) -> Case:
        """The inverse of `row`."""
        return Case(
            group=row["set"],
            **{key: row[key] for key in ("image", "place", "truth", "people", "answer", "clarity")},
            votes=tuple((name, share) for name, share in row["votes"]),
            chances=tuple((name, chance) for name, chance in row["chances"]),
        )


def cases(found: Parting, group: str, count: int) -> tuple[Case, ...]:
    """The most clear-cut images of a set."""
    return tuple(_case(found, group, int(place)) for place in found.of(group, count))


def _case(found: Parting, group: str, place: int) -> Case:
    votes, chances = found.shares[place], found.probabilities[place]
    matter = {int(found.labels[place]), int(found.people[place]), int(found.answers[place])} - {-1}
    order = sorted(range(len(votes)), key=lambda k: (-max(votes[k], chances[k]), k))
    named = sorted(
        [*matter, *(k for k in order if k not in matter and max(votes[k], chances[k]) >= 0.01)][:NAMED],
        key=lambda k: (-votes[k], -chances[k], k),
    )
    people = int(found.people[place])
    return Case(
        group,
        found.images[place],
        place,
        found.classes[int(found.labels[place])],
        found.classes[people] if people >= 0 else "",
        found.classes[int(found.answers[place])],
        float(found.clarity[place]),
        tuple((found.classes[k], float(votes[k])) for k in named),
        tuple((found.classes[k], float(chances[k])) for k in named),
    )


@final
@dataclass(frozen=True, eq=False)
class Gallery:
    """Cases with their pixels and explanations: for each case one of the network's class, and one of people's where it has it."""

    cases: tuple[Case, ...]
    images: Images
    explanations: tuple[tuple[Attribution, ...], ...]
    model: str
    cost: Cost
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cases)

    def rows(self) -> list[dict[str, Any]]:
        """A row a case as plain values."""
        return [case.row() for case in self.cases]

    def plot(self) -> Figure:
        """A row a case: the photograph, the explanations, and people's votes beside the network's probabilities."""
        from seewhy.report.parting import gallery

        return gallery(self)

    def _repr_html_(self) -> str:
        return shown(self.plot(), "where people and the network part")


def gallery(
    net: Classifier,
    data: DataSet,
    found: Parting,
    *,
    explainer: Explainer | None = None,
    sets: Sequence[str] = PARTED,
    count: int = 3,
) -> Gallery:
    """The `count` most clear-cut images of each set, explained by `explainer` (Grad-CAM where none is given).

    `data` holds the images by the names that `found` has for them. Raises `InputError` where an image is not there, and
    where no set holds any. Cost: the explainer's for each image, twice where people answered another class of the network's.
    """
    chosen = [case for group in sets for case in cases(found, group, count)]
    if not chosen:
        raise InputError(
            f"{found.model} and people part on none of the {len(found):,} images: there is nothing to show"
        )
    places = {name: place for place, name in enumerate(data.names)}
    lost = [case.image for case in chosen if case.image not in places]
    if lost:
        raise InputError(
            f'{data.name} has no image "{lost[0]}", which people voted on; give the images that were compared'
        )
    parts, explanations, cost = [], [], Cost()
    notes: list[str] = []
    for case in chosen:
        images = data.item(places[case.image]).read(net.preprocess)
        answered, more, took = explained(net, images, case, explainer or GradCAM())
        parts.append(images)
        explanations.append(answered)
        notes += more
        cost += took
    return Gallery(
        tuple(chosen), Images.join(parts), tuple(explanations), found.model, cost, tuple(dict.fromkeys(notes))
    )


def explained(
    net: Classifier, images: Images, case: Case, explainer: Explainer
) -> tuple[tuple[Attribution, ...], tuple[str, ...], Cost]:
    """Why the network answers what it does on one image, and what speaks for people's class where it has that class."""
    predicted = int(net.predict(images)[0].argmax())
    targets = [predicted]
    there = {label.partition(",")[0].strip().lower(): place for place, label in enumerate(net.labels)}
    other = there.get(case.people.lower())
    if other is not None and other != predicted:
        targets.append(other)
    found: list[Attribution] = []
    notes: list[str] = []
    for target in targets:
        try:
            found.append(explainer(net, images, target))
        except NothingToExplain as error:
            notes.append(str(error))
    cost = Cost(forward=1)
    for each in found:
        cost += each.cost
    return tuple(found), (*notes, *(note for each in found for note in each.notes)), cost
