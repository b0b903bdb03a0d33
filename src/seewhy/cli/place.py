"""`seewhy look IMAGES --onto MAP`: new images on a map of codes that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import Folder, Machine, slug
from seewhy.cli.shell import Shell
from seewhy.cli.work import about, cost_of, draw, remark
from seewhy.errors import InputError

if TYPE_CHECKING:
    from seewhy.data.sets import DataSet
    from seewhy.look import MappedCodes

#: images that the table lists; the document of --json has all
_LISTED = 50


def _opened(path: Path) -> MappedCodes:
    """The map in a file; raises `InputError` where there is none."""
    from seewhy.look import MappedCodes

    saved = "give the .npz that `seewhy look IMAGES --method map` saved"
    if not path.is_file():
        raise InputError(f"there is no file {path}; {saved}")
    try:
        return MappedCodes.load(path)
    except InputError as error:
        raise InputError(f"{error}; {saved}") from None


def place(
    spoken: Shell, machine: Machine, model: str, images: DataSet, onto: str, folder: Folder, arrays: bool
) -> None:
    """Lay images onto a saved map, draw them on it, and say what each lies near."""
    held = _opened(Path(onto).expanduser())
    net = machine.load(model, spoken)
    path = folder.file(f"{slug(Path(onto).stem)}.placed.png")
    folder.prepare([path.name, *([path.with_suffix(".npz").name] if arrays else [])])
    with (
        spoken.progress("placing") as tell,
        net.engine.telling(lambda done, total: tell(min(done / max(total, 1), 0.99), 1, onto)),
    ):
        found = held.place(net, images)
    draw(found.plot(), path)
    if arrays:
        found.save(path.with_suffix(".npz"))
    row: dict[str, Any] = {
        "image": None,
        "method": found.method,
        "layer": found.layer,
        "map": onto,
        "found": found.facts(),
        "notes": found.notes,
        "cost": cost_of(found.cost),
        "picture": path,
    }
    spoken.say(f"1 picture in {folder.path}")

    def show() -> None:
        placed = row["found"]["placed"]
        spoken.table(
            ("image", "class", "predicted", "nearest on the map", ""),
            [
                (
                    *(each["image"], each["class"] or "–", each["predicted"], each["nearest"][0]),
                    "far from all of it" if each["strange"] else "",
                )
                for each in placed[:_LISTED]
            ],
        )
        if len(placed) > _LISTED:
            click.echo(f"and {len(placed) - _LISTED:,} more, which --json lists")
        click.echo("\n" + "\n".join([*held.words(), f"drawn on the map: {path}"]))

    spoken.answer({"model": about(net), "looks": [row], "failed": []}, show)
    remark(spoken, [row])
