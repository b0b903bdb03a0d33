"""What several commands take: a model and how to run it, images, and a folder for what is made."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.shell import Shell
from seewhy.errors import RunError, SpecError

if TYPE_CHECKING:
    from seewhy.classifier import Classifier
    from seewhy.data.sets import DataSet
    from seewhy.engine import Engine

Body = Callable[..., Any]

DEFAULT_MODEL = "efficientnet-lite0"


@dataclass(frozen=True)
class Machine:
    """How passes are to run."""

    device: str
    precision: str
    batch: int | None
    trust_pickle: bool

    def engine(self) -> Engine:
        """The engine on the device that was asked for, checked to be there; raises `SpecError`."""
        import torch

        from seewhy.engine import Engine

        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError, AttributeError):
            there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
            raise SpecError(f'there is no device "{name}" here; there are: {", ".join(there)}') from None
        return Engine(device, self.precision, self.batch)  # type: ignore[arg-type]

    def said(self) -> dict[str, Any]:
        """What was said of them beside the precision, which the engine knows."""
        given = {"device": self.device, "batch": self.batch, "trust_pickle": self.trust_pickle}
        return {name: value for name, value in given.items() if value not in ("auto", None, False)}

    def load(self, spec: str, spoken: Shell) -> Classifier:
        """The model of a spec, with what there is to know about it said on stderr."""
        from seewhy import zoo

        engine = self.engine()
        net = zoo.load(spec, device=engine.device, trust_pickle=self.trust_pickle, engine=engine)
        for note in net.notes:
            spoken.say(f"note: {net.name}: {note}")
        return net


def with_machine(body: Body) -> Body:
    """Options for how passes run; the command gets them as `machine`."""

    @click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1, …")
    @click.option(
        "--precision",
        type=click.Choice(["float32", "bf16"]),
        default="float32",
        show_default=True,
        help="bf16 lets the methods whose samples bear it run in bfloat16.",
    )
    @click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Images at a time [default: measured].")
    @click.option("--trust-pickle", is_flag=True, help="Read weights that could run code; only from makers you know.")
    @functools.wraps(body)
    def taking(*args: Any, device: str, precision: str, batch: int | None, trust_pickle: bool, **words: Any) -> Any:
        return body(*args, machine=Machine(device, precision, batch, trust_pickle), **words)

    return taking


def with_model(body: Body) -> Body:
    """The option for the model; the command gets its spec as `model`."""
    option = click.option(
        "--model", "-m", default=DEFAULT_MODEL, show_default=True, metavar="SPEC", help="See `seewhy models`."
    )
    return option(body)


def with_images(body: Body) -> Body:
    """Options that choose among images; the command gets them as `split` and `limit`."""
    body = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N images only.")(body)
    return click.option("--split", metavar="NAME", help="The part of a data set, such as test.")(body)


def with_folder(default: str) -> Callable[[Body], Body]:
    """Options for what a command makes; the command gets them as `folder`."""

    def decorate(body: Body) -> Body:
        @click.option("--out", default=default, show_default=True, metavar="DIR", help="Where the pictures go.")
        @click.option("--overwrite", is_flag=True, help="Replace pictures that are there.")
        @functools.wraps(body)
        def taking(*args: Any, out: str, overwrite: bool, **words: Any) -> Any:
            return body(*args, folder=Folder(Path(out).expanduser(), overwrite), **words)

        return taking

    return decorate


@dataclass(frozen=True)
class Folder:
    """A folder for files that a command makes; what is there is not overwritten unless the user says so."""

    path: Path
    overwrite: bool = False

    def prepare(self, names: Iterable[str]) -> None:
        """Make the folder, and raise `RunError` before any work if these files could not be written to it."""
        writable(self.path)
        there = [name for name in names if (self.path / name).exists()]
        if there and not self.overwrite:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise RunError(
                f"{self.path / there[0]}{more} would be overwritten; choose another folder with --out, or say "
                "--overwrite"
            )

    def file(self, name: str) -> Path:
        """The path of a file in it."""
        return self.path / name


def writable(path: Path) -> None:
    """Make a folder, parents too; raises `RunError` where nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror or str(error)
        raise RunError(f"nothing can be written to the folder {path}: {reason}; choose another with --out") from None


def open_images(given: Sequence[str], split: str | None = None, limit: int | None = None) -> DataSet:
    """What a user means by one data set, or by any number of photographs and folders of them."""
    from seewhy import data
    from seewhy.data.folders import images_in
    from seewhy.data.photo import SUFFIXES

    paths = [Path(each).expanduser() for each in given]
    if len(given) == 1 and not (paths[0].is_file() and paths[0].suffix.lower() in SUFFIXES):
        found = data.load(given[0], split)
    else:
        if split is not None:
            raise SpecError(f'photographs have no splits; got the split "{split}"')
        files: list[Path] = []
        for path in paths:
            inside = list(images_in(path)) if path.is_dir() else [path]
            files += inside or [path]  # an empty folder shows as an image that cannot be read
        found = data.photos(list(dict.fromkeys(files)))
    return found if limit is None else found.subset(slice(0, limit))


def slug(text: str) -> str:
    """A text as a part of a file's name, the same for the same text.

    >>> slug("smoothgrad:samples=4,noise=8/255")
    'smoothgrad-samples=4-noise=8-255'
    """
    short = re.sub(r"[^\w.=+-]+", "-", text).strip("-.")
    if len(short) > 80 or not short:
        short = f"{short[:70]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return short


def slugs(texts: Iterable[str]) -> dict[str, str]:
    """The slug of each text, all different: those that would be the same end in a hash of what they are.

    >>> slugs(["map", "maximize:objective=logit(1;3)", "maximize:objective=logit(1-3)"])["map"]
    'map'
    >>> len(set(slugs(["logit(1;3)", "logit(1-3)"]).values()))
    2
    """
    short = {text: slug(text) for text in texts}
    held = Counter(each.casefold() for each in short.values())
    return {
        text: each if held[each.casefold()] == 1 else f"{each}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        for text, each in short.items()
    }


def stems(names: Sequence[str]) -> dict[str, str]:
    """A file's stem for each image's name, all different.

    >>> stems(["a/cat.jpg", "dog.png", "dog.jpg"])
    {'a/cat.jpg': 'a-cat', 'dog.png': 'dog.png', 'dog.jpg': 'dog.jpg'}
    """
    short = {name: slug(os.path.splitext(name)[0]) for name in names}
    held = Counter(short.values())
    short = {name: stem if held[stem] == 1 else slug(name) for name, stem in short.items()}
    held = Counter(short.values())
    return {
        name: stem if held[stem] == 1 else f"{stem}-{position}"
        for position, (name, stem) in enumerate(short.items(), 1)
    }


def share(text: str) -> float:
    """A share from 0 to 1, as a number or in per cent.

    >>> share("0.915"), share("91.5%")
    (0.915, 0.915)
    """
    from seewhy.units import number

    value = number(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    if not 0 <= value <= 1:
        raise SpecError(f'expected a share such as 0.915 or 91.5%, got "{text}"')
    return value
