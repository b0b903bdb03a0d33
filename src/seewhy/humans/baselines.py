"""Published results of people, with their caveats; what can be said beside them is indirect."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, final

from seewhy.errors import SpecError, nearest
from seewhy.humans import say
from seewhy.humans.estimate import Estimate
from seewhy.intervals import wilson

#: said with every comparison
INDIRECT = "an indirect comparison: not the same images, and not the same people looking"


@final
@dataclass(frozen=True)
class Beside:
    """Another result of the same source on the same images."""

    who: str
    value: float


@final
@dataclass(frozen=True)
class Baseline:
    """A published result: who did what on which images, how well, and what one must know of it.

    `value` is a share of `metric`; `people` is 0 where it is falsely said to be people's. `interval` is one of 95 %:
    the source's, or Wilson's for `images` answered once each, or None where the source allows none.
    """

    name: str
    title: str
    population: str
    people: int
    data: str
    task: str
    metric: str
    value: float
    source: str
    year: int
    caveats: tuple[str, ...]
    classes: int | None = None
    images: int | None = None
    answers: int | None = None
    right: int | None = None
    interval: tuple[float, float] | None = None
    interval_by: str = ""
    beside: tuple[Beside, ...] = ()
    doi: str = ""
    arxiv: str = ""
    url: str = ""

    @property
    def of_people(self) -> bool:
        """Whether people did it at all."""
        return self.people > 0

    @property
    def links(self) -> tuple[str, ...]:
        """Where the source is found."""
        known = (
            self.doi and f"https://doi.org/{self.doi}",
            self.arxiv and f"https://arxiv.org/abs/{self.arxiv}",
            self.url,
        )
        return tuple(link for link in known if link)

    def told(self) -> str:
        """The number with its interval.

        >>> baselines()["dermatologists-image"].told().replace(say.NBSP, " ")
        'accuracy 69.4 % (95 %: 68.4 to 70.3)'
        """
        low, high = self.interval or (math.nan, math.nan)
        found = Estimate(self.value, low, high)
        return f"{self.metric} {say.shares(found) if self.interval else say.percent(self.value)}"

    def compare(self, found: Estimate, metric: str = "accuracy") -> str:
        """What can be said of a model's share of `metric` beside this one, in words; never more."""
        mine = say.shares(found)
        if not self.of_people:
            return f"{self.title}: not a result of people ({self.population}); nothing follows from {mine}."
        if metric != self.metric:
            return f"{self.title}: {self.told()}. The model's {metric}, {mine}, is another measure and cannot be laid beside it."
        bottom, top = self.interval or (self.value, self.value)
        above, below = found.above(top), found.below(bottom)
        better = below if "error" in metric else above
        verdict = f"{'above' if above else 'below'} it ({'better' if better else 'worse'})"
        verdict = verdict if above or below else "not told apart from it"
        unsure = "" if self.interval else "; the source gives people's number no interval, and it is taken as it stands"
        return f"{self.title}: {self.told()}. The model's {mine} is {verdict}, in {INDIRECT}{unsure}."


@cache
def baselines() -> Mapping[str, Baseline]:
    """The published results that seewhy knows, by name.

    >>> round(baselines()["imagenet-top5"].value, 3)
    0.051
    """
    text = files("seewhy.humans").joinpath("baselines.toml").read_text(encoding="utf-8")
    return MappingProxyType({name: _baseline(name, row) for name, row in tomllib.loads(text).items()})


def baseline(name: str) -> Baseline:
    """One of them; raises `SpecError` with the nearest names."""
    known = baselines()
    if name not in known:
        way_out = nearest(name, known) or f"; there are: {', '.join(known)}"
        raise SpecError(f'there is no baseline "{name}"{way_out}')
    return known[name]


def _baseline(name: str, row: dict[str, Any]) -> Baseline:
    once = row.pop("answered_once", False)
    strange = row.keys() - {field.name for field in fields(Baseline)}
    if strange:
        raise SpecError(f"the baseline {name} has unknown fields: {', '.join(sorted(strange))}")
    row["caveats"] = tuple(row["caveats"])
    row["beside"] = tuple(Beside(**each) for each in row.get("beside", ()))
    if "interval" in row:
        row["interval"] = tuple(row["interval"])
        row["interval_by"] = "the source"
    elif once:
        total = row["images"]
        count = row.get("right", round(row["value"] * total))
        row["interval"] = wilson(count, total)
        row["interval_by"] = f"Wilson, of {say.counted(total, 'image')}"
    return Baseline(name=name, **row)
