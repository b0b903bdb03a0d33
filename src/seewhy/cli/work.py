"""What the commands that work on images share: their turns, what went wrong with some, and how answers are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seewhy.cli.options import Folder
from seewhy.cli.shell import Shell
from seewhy.errors import DataError, InputError, LayerError, NothingToExplain, UnknownOperation

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from seewhy.classifier import Classifier
    from seewhy.data.images import Images
    from seewhy.data.sets import DataSet, Item
    from seewhy.engine import Cost
    from seewhy.method import Method

T = TypeVar("T")

#: what a method refuses about the network, with every image
REFUSED = (LayerError, UnknownOperation)
#: what is wrong with one image, its answer or one method, so that the others go on
ITS_OWN = (DataError, InputError, NothingToExplain, *REFUSED)


@dataclass
class Work:
    """The images of a command, one after the other, and what could not be done with some of them."""

    spoken: Shell
    net: Classifier
    images: DataSet
    text: str
    steps: Sequence[tuple[str, str]]
    stem: dict[str, str]
    failed: list[dict[str, str]] = field(default_factory=list)
    #: whether other work was done beside, which must not be lost
    beside: bool = False
    item: Item | None = None
    spec: str = ""
    #: told what share of the step in hand is done
    within: Callable[[float], None] = lambda share: None

    def picture(self) -> Picture:
        """The photograph of the image that is worked on, upright."""
        if self.item is None:
            raise DataError("no image is being worked on")
        return self.item.open()[0]

    def each(self) -> Iterator[tuple[Images, str, str]]:
        """Every image that can be read with every step (a method's spec, and a class or nothing)."""
        total, done = len(self.images) * len(self.steps), 0
        with self.spoken.progress(self.text) as tell:
            self.within = lambda share: tell(done + share, total, f"{item.name}, {spec}")
            for item, found in self.images.each(self.net.preprocess):
                if isinstance(found, Exception):
                    self.fail(item.name, found, alone=len(self.images) == 1)
                    done += len(self.steps)
                    continue
                for note in found.notes[0]:
                    self.spoken.say(f"note: {item.name}: {note}")
                self.item = item
                for spec, name in self.steps:
                    self.spec = spec
                    tell(done, total, f"{item.name}, {spec}")
                    yield found, spec, name
                    done += 1
            tell(done, total, "")

    def run(self, call: Callable[[], T], name: str) -> T | None:
        """A method's answer, or None where this image has none, which is said; of a network that it refuses, once."""
        try:
            return call()
        except ITS_OWN as error:
            refused = isinstance(error, REFUSED)
            left = len(self.steps) * (1 if refused else len(self.images))
            self.fail(name, error, alone=left == 1, refused=self.spec if refused else "")
            return None

    def also(self, call: Callable[[], T], name: str) -> T | None:
        """What is asked beside a method's answer, or None where this image has none, which is said; that answer stands."""
        try:
            return call()
        except ITS_OWN as error:
            self.fail(name, error, alone=False)
            return None

    def fail(self, name: str, error: Exception, alone: bool, refused: str = "") -> None:
        """Say what went wrong and go on, or raise it where nothing else is left to do.

        `refused` is the method that refuses the network, where one does.
        """
        if alone and not self.beside:
            raise error
        row = {"image": name, **({"method": refused} if refused else {}), "error": str(error)}
        known = refused and any({**each, "image": name} == row for each in self.failed)
        self.failed.append(row)
        if not known:
            self.spoken.failed(refused or name, str(error))

    def finish(self, made: int, folder: Folder) -> None:
        if not made:
            raise DataError("nothing could be done with any image, for the reasons above")
        self.spoken.say(f"{made} {'picture' if made == 1 else 'pictures'} in {folder.path}")


def methods_of(specs: Sequence[str], room: str) -> dict[str, Any]:
    """The methods of specs, each once, by the spec that says all that differs from the defaults."""
    from seewhy.method import parse, registry

    parsed: list[Method] = []
    for spec in specs:
        parsed += [cls() for cls in registry(room).values()] if spec == "all" else [parse(spec, room)]
    return {method.spec: method for method in parsed}


def warn_of_time(spoken: Shell, net: Classifier, methods: dict[str, Any], images: int, classes: int) -> None:
    """Say beforehand about how long it takes, where that is long enough to be worth two passes to find out."""
    if images * sum(sum(method.passes_on(net.size)) for method in methods.values()) < 500:
        return
    from seewhy.run.pace import pace
    from seewhy.units import seconds

    speed = pace(net)
    most = images * sum(speed.cost(method, classes) for method in methods.values())
    spoken.say(f"this takes up to about {seconds(most)}; methods that stop when they know enough take less")


def draw(figure: Any, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", dpi=150)


def cost_of(cost: Cost) -> dict[str, Any]:
    return dict(vars(cost))


def about(net: Classifier) -> dict[str, Any]:
    return {"name": net.name, "fingerprint": net.fingerprint, "notes": net.notes}


def remark(spoken: Shell, rows: Sequence[dict[str, Any]]) -> None:
    """What readers must know of the answers, each sentence once."""
    for note in dict.fromkeys(f"note: {row['method']}: {note}" for row in rows for note in row["notes"]):
        spoken.say(note)
