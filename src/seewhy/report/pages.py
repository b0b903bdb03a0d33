"""What a method's docstring says, in its parts: the page that the terminal and the documents show."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass

from seewhy.errors import SpecError
from seewhy.method import Method, Option, options
from seewhy.report import words

#: the parts that begin with a word of their own, in the order in which a page has them, and those that none may lack
PARTS = ("Values", "Raises", "Cost", "Limits", "Deviation", "Source")
NEEDED = {
    "explain": ("Values", "Cost", "Limits", "Source"),
    **dict.fromkeys(("attack", "look"), ("Cost", "Limits", "Source")),
}

_BEGINS = re.compile(
    r"(?:^|(?<=[.;:)\]] ))"
    r"(?:(Values) (?=\()|(Raises) (?=`|[A-Z])|(Cost) (?=at most: |for [^:.]{1,60}: )|(Cost|Limits|Deviation|Source): )"
)

#: what the attacks have in common that see as much of the model, from what sees most
_VIEWS = {
    "gradients": "With the model in hand: gradients",
    "scores": "From outside: the probabilities of all classes",
    "labels": "From outside: the predicted class alone",
}


#: what the looks look at, from nothing but the model to many images
_LOOKS = ("At the model alone", "At one image, or at two", "At many images together")


@dataclass(frozen=True)
class Page:
    """A method: its formula, what its options mean, and its parts by their names; `example` is runnable."""

    name: str
    room: str
    title: str
    family: str
    shows: str
    reading: str
    formula: str
    about: tuple[str, ...]
    parts: Mapping[str, str]
    example: str
    options: tuple[Option, ...]


def family(cls: type[Method]) -> str:
    """What a method has in common with others, as a heading: what a map shows, or what an attack sees of the model."""
    if cls.room == "attack":
        return _VIEWS[cls.view.sees]  # type: ignore[attr-defined]
    if cls.room == "look":
        return _LOOKS[_seen(cls)]
    return words.family(cls.name) if cls.room == "explain" else ""


def _seen(cls: type[Method]) -> int:
    """What a look looks at, as a place in `_LOOKS`."""
    of_sets = cls.of_sets and not cls.of_pairs  # type: ignore[attr-defined]
    return 2 if of_sets else int(cls.needs_images)  # type: ignore[attr-defined]


def rank(cls: type[Method]) -> tuple[int, int, str]:
    """The place of a method among the others of its room, family by family."""
    if cls.room == "attack":
        return (list(_VIEWS).index(cls.view.sees), *words.rank(cls.name))  # type: ignore[attr-defined]
    if cls.room == "look":
        return (_seen(cls), *words.rank(cls.name))
    return (0, *words.rank(cls.name))


def page(cls: type[Method], *, whole: bool = False) -> Page:
    """A method's page, made of its docstring; `whole` refuses one that lacks a part or an example (`SpecError`).

    >>> from seewhy.method import registry
    >>> page(registry()["gradient"]).parts["Source"][:8]
    'Simonyan'
    """
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(cls.__doc__ or ""))
    example = "\n\n".join(block for block in blocks if block.startswith(">>>"))
    told: list[str] = []
    parts: dict[str, str] = {}
    for block in blocks:
        if block.startswith(">>>"):
            continue
        before, *pieces = re.split(_BEGINS, " ".join(block.split()))
        if before.strip():
            told.append(before.strip())
        for place in range(0, len(pieces), 5):
            name = next(filter(None, pieces[place : place + 4]))
            said = pieces[place + 4].strip()
            parts[name] = f"{parts[name]} {said}" if name in parts else said
    needed = NEEDED.get(cls.room, NEEDED["explain"])
    lacking = [part for part in needed if part not in parts] + ([] if example else ["an example (>>>)"])
    if not told:
        lacking.insert(0, "a first sentence with the formula")
    if whole and lacking:
        raise SpecError(
            f"the docstring of {cls.__module__}.{cls.__qualname__} lacks {words.listed(lacking)}; a method's page is made "
            f"of it: its parts begin with {', '.join(f'{part}:' for part in needed)} or Values (N, …)"
        )
    return Page(
        name=cls.name,
        room=cls.room,
        title=words.title(cls.name),
        family=family(cls),
        shows=cls.shows,
        reading=cls.reading,
        formula=told[0] if told else "",
        about=tuple(told[1:]),
        parts={name: parts[name] for name in PARTS if name in parts},
        example=example,
        options=options(cls),
    )
