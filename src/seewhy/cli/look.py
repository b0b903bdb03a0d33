"""`seewhy look`: what a model learned; one look, or a few, at the model, at each image, or at a whole set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seewhy.cli.options import (
    Folder,
    Machine,
    open_images,
    slugs,
    stems,
    with_folder,
    with_images,
    with_machine,
    with_model,
)
from seewhy.cli.place import place
from seewhy.cli.shell import Command, Shell, shell
from seewhy.cli.work import Work, about, cost_of, draw, methods_of, remark
from seewhy.errors import DataError, InputError, SeewhyError, SpecError

if TYPE_CHECKING:
    from seewhy.classifier import Classifier
    from seewhy.data.sets import DataSet
    from seewhy.look import Exemplars, ExemplarSet, MappedCodes

#: how many images the magnitudes of MACO's spectrum are taken from at most
_SPECTRA = 256


@click.command(
    cls=Command,
    short_help="What the model learned: filters, maps, exemplars, units, optimised images.",
    examples=[
        "seewhy look",
        "seewhy look --method filters:layer=_conv_head,order=similarity --out filters",
        "seewhy look cat.jpg --method activations:layer=_blocks.4,channels=32 --over",
        "seewhy look photos/ --method exemplars:layers=_blocks.4+_blocks.10 --method statistics",
        'seewhy look --method "maximize:objective=logit(tabby;goldfish)" --also torchvision:resnet50',
        "seewhy look cat.jpg --method deepdream --method invert:layer=_blocks.4",
        "seewhy look drawings/ --method units --masks silhouettes/ --json",
        "seewhy look cat.png fooling.png --method before-after",
        "seewhy look photos/ --method map --out map",
        "seewhy look new/ --onto map/map.npz",
    ],
)
@click.argument("images", nargs=-1)
@with_model
@click.option(
    "--method", "specs", multiple=True, metavar="SPEC", help="Or `all` [default: filters; activations for images]."
)
@click.option("--also", multiple=True, metavar="MODEL", help="Show optimised images of classes to this model, too.")
@click.option("--masks", metavar="DIR", help="Masks under the images' names, for `units`: concepts beside classes.")
@click.option(
    "--onto", metavar="MAP", help="Place IMAGES on a map that `--method map` saved (.npz), and do nothing else."
)
@click.option("--over", is_flag=True, help="Lay activation maps over the photograph.")
@click.option("--arrays", is_flag=True, help="Keep the values too, as .npz beside each picture.")
@with_folder("seewhy-look")
@with_images
@with_machine
def look(
    images: tuple[str, ...],
    model: str,
    specs: tuple[str, ...],
    also: tuple[str, ...],
    masks: str | None,
    onto: str | None,
    over: bool,
    arrays: bool,
    folder: Folder,
    split: str | None,
    limit: int | None,
    machine: Machine,
) -> None:
    """Show what a model learned: its filters, what excites its units most, or how its layers answer IMAGES.

    IMAGES are photographs, folders of them, or one data set. Some looks need none, some look at each image, and some
    (exemplars, statistics, units, map) at all of them together. Layers are addresses as `seewhy model SPEC` lists them.
    """
    from seewhy.engine import out_of_memory

    spoken = shell()
    if onto is not None:
        if specs or also or masks or over:
            raise SpecError(
                "--onto places images on a map that is there, and does nothing else; leave out --method, --also, "
                "--masks and --over"
            )
        if not images:
            raise SpecError(
                f"--onto places images on a map; give at least one, as in seewhy look cat.jpg --onto {onto}"
            )
        place(spoken, machine, model, open_images(images, split, limit), onto, folder, arrays)
        return
    methods = methods_of(specs or (("activations",) if images else ("filters",)), "look")
    if not images:
        alone = {spec: method for spec, method in methods.items() if not method.needs_images}
        if specs and "all" not in specs and len(alone) < len(methods):
            spec = next(spec for spec in methods if spec not in alone)
            raise SpecError(
                f"{spec} looks at a model's answers to images; give at least one, as in seewhy look cat.jpg"
            )
        methods = alone
    _check_given(methods, also, masks, over)
    found = open_images(images, split, limit) if images else None
    net = machine.load(model, spoken)
    others = [machine.load(each, spoken) for each in also]
    names = stems(found.names) if found else {}
    job = _Looking(spoken, net, found, folder, names, slugs(methods), arrays, over)
    possible = job.possible(methods, every="all" in specs)
    answering = {spec: method for spec, method in possible.items() if method.needs_images and not method.of_sets}
    of_model = {spec: method for spec, method in possible.items() if spec not in answering}
    job.prepare(of_model, answering)
    more: dict[str, Any] = {}
    if masks is not None and found is not None:
        from seewhy.data.masks import masks as read

        more["units"] = {"masks": read(masks, found, net.preprocess)}
    if others:
        more["maximize"] = {"also": others}
    for spec, method in of_model.items():
        try:
            job.whole(spec, method, more.get(method.name, {}))
        except (SeewhyError, RuntimeError, MemoryError) as error:
            if len(methods) == 1 or not (isinstance(error, SeewhyError) or out_of_memory(error)):
                raise
            job.fail(spec, error)
    if found and answering:
        steps = [(spec, "") for spec in answering]
        work = Work(spoken, net, found, "looking", steps, names, job.failed, beside=bool(job.rows))
        for image, spec, _ in work.each():
            with _heard(net, work.within):
                answer = work.run(partial(answering[spec], net, image), image.names[0])
            if answer is not None:
                job.keep(answer, image.names[0], spec)
    if not job.rows:
        raise InputError("there is nothing to show, for the reasons above")
    made = [(row, layer, picture) for row in job.rows for layer, picture in _pictures(row)]
    spoken.say(f"{len(made)} {'picture' if len(made) == 1 else 'pictures'} in {folder.path}")

    def show() -> None:
        spoken.table(
            ("image", "method", "layer", "picture"),
            [(row["image"] or "", row["method"], layer, picture) for row, layer, picture in made],
        )
        for row in job.rows:
            if "words" in row:
                click.echo("\n" + "\n".join([*row["words"], f"to look around in: {row['page']}"]))

    spoken.answer({"model": about(net), "looks": job.rows, "failed": job.failed}, show)
    remark(spoken, job.rows)


def _check_given(methods: dict[str, Any], also: Sequence[str], masks: str | None, over: bool) -> None:
    """Raise where an option is for a look that was not asked for."""
    asked = {method.name for method in methods.values()}
    for option, given, name in (
        ("--also", also, "maximize"),
        ("--masks", masks, "units"),
        ("--over", over, "activations"),
    ):
        if given and name not in asked:
            raise SpecError(f"{option} is for {name}, which was not asked for; add --method {name}")


class _Looking:
    """The looks of one command: what was made, and what could not be."""

    def __init__(
        self,
        spoken: Shell,
        net: Classifier,
        images: DataSet | None,
        folder: Folder,
        stem: dict[str, str],
        slug: dict[str, str],
        arrays: bool,
        over: bool,
    ) -> None:
        self.spoken, self.net, self.images, self.folder, self.stem, self.slug = spoken, net, images, folder, stem, slug
        self.arrays, self.over = arrays, over
        self.rows: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []

    def file(self, image: str, spec: str, *parts: str) -> str:
        return ".".join(filter(None, (image and self.stem[image], self.slug[spec], *parts, "png")))

    def fail(self, spec: str, error: Exception) -> None:
        """Say that a look failed, and go on with the others."""
        sentence = str(error) if isinstance(error, SeewhyError) else "memory ran out"
        self.failed.append({"method": spec, "error": sentence})
        self.spoken.failed(spec, sentence)

    def possible(self, methods: dict[str, Any], every: bool) -> dict[str, Any]:
        """The looks that the network has the layers, units and classes for; with `every`, those that it has not are told."""
        good = {}
        for spec, method in methods.items():
            try:
                method.check(self.net)
            except SeewhyError as error:
                if not every:
                    raise
                self.fail(spec, error)
            else:
                good[spec] = method
        return good

    def prepare(self, of_model: dict[str, Any], answering: dict[str, Any]) -> None:
        """Raise before any work where a file is in the way."""
        files = [self.file("", spec) for spec in of_model]
        for spec, method in of_model.items():
            if method.name == "exemplars":
                for part in _parts(dict.fromkeys(method.layers)).values() or ("",):
                    files += [self.file("", spec, part), self.file("", spec, part, "classes")]
        files += [self.file(image, spec) for image in self.stem for spec in answering]
        maps = [self.file("", spec) for spec, method in of_model.items() if method.name == "map"]
        files += [
            str(Path(name).with_suffix(suffix))
            for name in maps
            for suffix in _BESIDE
            if suffix != ".npz" or not self.arrays
        ]
        stopped = any(
            self.state(spec, method).exists() for spec, method in of_model.items() if method.name == "exemplars"
        )
        there = Folder(
            self.folder.path, overwrite=self.folder.overwrite or stopped
        )  # what it made before, it makes again
        there.prepare([*files, *(str(Path(file).with_suffix(".npz")) for file in files if self.arrays)])

    def whole(self, spec: str, method: Any, more: dict[str, Any]) -> None:
        """One look at the model, or at all images together, with the share that is done."""
        state: Path | None = None
        with self.spoken.progress("looking") as tell, _heard(self.net, lambda share: tell(share, 1, spec)):
            tell(0, 1, spec)
            if method.name == "exemplars" and self.images is not None:
                state = self.state(spec, method)
                answer: Any = self._exemplars(state, method, self.images)
            elif method.of_sets:
                answer = method(self.net, self.images, **more)
            else:
                answer = method(self.net, self._spectra(method), **more)
        self.keep(answer, "", spec)
        if state is not None:
            self._keep_classes(answer, spec)
            state.unlink(missing_ok=True)  # what it was for is there

    @cached_property
    def stamp(self) -> str:
        """Which images these are, and which model looks at them."""
        net, images = self.net, self.images
        seen = (net.fingerprint, net.preprocess, net.mean, net.std, None if images is None else images.stamp())
        return hashlib.sha256(repr(seen).encode()).hexdigest()

    def state(self, spec: str, method: Exemplars) -> Path:
        """Where the pass over these images keeps what it has found so far."""
        which = hashlib.sha256(repr((self.stamp, method.layers)).encode()).hexdigest()[:12]
        return self.folder.file(f"{self.slug[spec]}.{which}.state")

    def _exemplars(self, state: Path, method: Exemplars, images: DataSet) -> ExemplarSet:
        """Exemplars by a pass that goes on where a stopped one was."""
        self.spoken.stopped = "the same command goes on from here"
        if state.exists():
            self.spoken.say(f"going on with the pass that was stopped: {state}")
        tally = method.tally(self.net, images, path=state)
        self.spoken.stopped = ""
        return method.result(self.net, tally, images)

    def _keep_classes(self, answer: ExemplarSet, spec: str) -> None:
        """Draw units by class, of each layer, where images have classes; a note where no unit tells them apart."""
        row = self.rows[-1]
        for layer, part in _parts(answer.layers).items():
            if bool(answer.class_means[layer].isnan().all()):
                continue
            path = self.folder.file(self.file("", spec, part, "classes"))
            try:
                draw(answer.plot_classes(layer), path)
            except InputError as error:
                row["notes"].append(str(error))
                continue
            row.setdefault("classes", path)
            if part:
                row["layers"][layer]["classes"] = path

    def _spectra(self, method: Any) -> Any:
        """The images whose magnitudes an optimised image is to have, where it is to have some."""
        if self.images is None or getattr(method, "parametrization", "") != "maco":
            return None
        from seewhy.data.images import Images

        few = self.images.subset(slice(0, _SPECTRA))
        if len(few) < len(self.images):
            self.spoken.say(f"note: the magnitudes are those of the first {len(few)} images")
        read = [found for _, found in few.each(self.net.preprocess)]
        bad = [found for found in read if isinstance(found, DataError)]
        if len(bad) == len(read):
            raise bad[0]
        if bad:
            self.spoken.say(f"note: {len(bad)} of {len(read)} images have no part in the magnitudes: {bad[0]}")
        return Images.join([found for found in read if not isinstance(found, DataError)])

    def keep(self, answer: Any, image: str, spec: str) -> None:
        """Write a picture, and the values if they are wanted, and note what was found."""
        path = self.folder.file(self.file(image, spec))
        name = answer.method.partition(":")[0]
        layers: dict[str, dict[str, Path]] = {}
        if name == "exemplars" and len(answer.layers) > 1:
            for layer, part in _parts(answer.layers).items():
                layers[layer] = {"picture": self.folder.file(self.file(image, spec, part))}
                draw(answer.plot(layer), layers[layer]["picture"])
        else:
            draw(answer.plot(over=True) if self.over and name == "activations" else answer.plot(), path)
        if self.arrays:
            answer.save(path.with_suffix(".npz"))
        self.rows.append(
            {
                "image": image or None,
                "method": answer.method,
                "layer": answer.layer,
                "found": answer.facts(),
                "notes": [*answer.notes, *self.net.engine.notes],
                "cost": cost_of(answer.cost),
                "picture": layers[answer.layers[0]]["picture"] if layers else path,
            }
        )
        if layers:
            self.rows[-1]["layers"] = layers
        if name == "map":
            self.rows[-1] |= _mapped(answer, path)


def _parts(layers: Iterable[str]) -> dict[str, str]:
    """What the name of each layer's picture says of the layer: nothing where there is one."""
    named = slugs(layers)
    return named if len(named) > 1 else dict.fromkeys(named, "")


def _pictures(row: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The pictures of a look, each with its layer."""
    layers = row.get("layers", {row["layer"]: row})
    return ((layer, each["picture"]) for layer, each in layers.items())


#: what a map of codes is written as, beside its picture
_BESIDE = (".grid.png", ".html", ".npz")


def _mapped(answer: MappedCodes, path: Path) -> dict[str, Any]:
    """A map of codes on a grid, as a page, and as a file that new images can be laid onto; with its numbers."""
    grid, page, saved = (path.with_suffix(suffix) for suffix in _BESIDE)
    draw(answer.plot_grid(), grid)
    answer.write(page)
    answer.save(saved)
    return {"grid": grid, "page": page, "saved": saved, **answer.facts(), "words": answer.words()}


@contextmanager
def _heard(net: Classifier, tell: Any) -> Iterator[None]:
    """Inside, what the engine says of its progress is told as a share."""
    with net.engine.telling(lambda done, total: tell(min(done / max(total, 1), 0.99))):
        yield
