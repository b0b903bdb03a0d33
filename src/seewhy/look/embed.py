"""The map of codes: every image of a set as a point, near those that a layer answers alike to."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.sets import DataSet
from seewhy.engine import Cost, Meter
from seewhy.errors import DataError, InputError, SpecError
from seewhy.look.base import Look
from seewhy.look.encode import POOLS, Seen, code_layer, seen_by
from seewhy.look.exemplars import chosen_layers
from seewhy.look.stream import Pictures
from seewhy.method import parse
from seewhy.result import save, shown

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

#: how far the classes may be more or less apart in a map than among the codes before it is said aloud
FAR = 0.03

#: the share of a map's own codes that lie nearer to their next one than what is called strange
STRANGE = 0.99

LAYOUTS = ("tsne", "umap", "pca")


@dataclass(frozen=True)
class MappedCodes:
    """N images as points, and how far the picture of them can be read. By image:

    `coordinates` (N, 2), centred; `labels` and `predictions` (N,), class indices of `classes` and of `outputs`, −1 where a class
    is not known; `confidence` (N,) in [0, 1]; `indices` (N,) the image's place in the data and `names`; `thumbnails`
    (N, 3, h, w), 8 bits. `wrong` (N,): 1 where the model errs, 0 where it is right, −1 where that cannot be told.

    `right_map` and `right_codes` (N,): whether the class that most of the `k` nearest have is the image's own, in the map and
    among the codes (1, 0, −1: not asked); `knn_map` and `knn_codes` the shares. `chance` is that of the largest class;
    `trustworthiness` in [0, 1], `kept` the share of the k nearest by code that are so in the map, `divergence` t-SNE's KL in
    nats; None where there is none. `reduced` (N, C) are the codes along principal axes `directions` (C, D) from `mean`
    (D,), in which neighbours were sought; `nearest` (N,) the distance of each code to the next. `layout` is what drew it,
    `given` how the model is given images, in words, "" in maps of older versions.
    """

    method: str
    model: str
    fingerprint: str
    layer: str
    layout: str
    classes: tuple[str, ...]
    outputs: tuple[str, ...]
    comparable: bool
    coordinates: Tensor
    labels: Tensor
    predictions: Tensor
    confidence: Tensor
    indices: Tensor
    names: tuple[str, ...]
    thumbnails: Tensor
    reduced: Tensor
    mean: Tensor
    directions: Tensor
    right_map: Tensor
    right_codes: Tensor
    nearest: Tensor
    k: int
    perplexity: float
    chance: float
    trustworthiness: float | None
    kept: float | None
    divergence: float | None
    failed: tuple[tuple[int, str], ...]
    cost: Cost
    notes: tuple[str, ...]
    given: str = ""

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def wrong(self) -> Tensor:
        """Where the model errs (N,): 1, 0, or −1 where that cannot be told."""
        told = (self.labels >= 0) & self.comparable
        return (self.labels != self.predictions).long().where(told, -1)

    @property
    def knn_map(self) -> float | None:
        """The share of images whose class most of their k nearest in the map have."""
        return _share(self.right_map)

    @property
    def knn_codes(self) -> float | None:
        """The same among the codes."""
        return _share(self.right_codes)

    def facts(self) -> dict[str, Any]:
        """How far the map keeps what is near by code, as plain values."""
        return {
            "images": len(self),
            "k": self.k,
            "accuracy in the map": self.knn_map,
            "accuracy by code": self.knn_codes,
            "largest class": self.chance,
            "trustworthiness": self.trustworthiness,
            "neighbours kept": self.kept,
            "divergence": self.divergence,
        }

    def words(self) -> tuple[str, ...]:
        """How far the picture can be read, in sentences."""
        from seewhy.report.codemap import reading

        return reading(self)

    def place(self, net: Classifier, images: Pictures) -> PlacedCodes:
        """Lay new images onto the map, each as if it came alone; the map stays as it is.

        Answers a `PlacedCodes`. True classes are found among the map's by their names, see `DataSet.aligned`; images of others
        have none. Raises `InputError` for another model than the map's, or one that is given images in another way. Cost: one
        forward pass an image and, for t-SNE, 250 short steps; for UMAP, the graph of the map's codes anew.
        """
        from seewhy.look import layout

        if net.fingerprint != self.fingerprint:
            raise InputError(
                f"the map is of {self.model}, and {net.name} has other weights; give the model that the map was made with "
                "(--model)"
            )
        if self.given not in ("", _given(net)):
            raise InputError(
                f"the map is of images of {self.given}, and {net.name} is given them of {_given(net)}, which makes other "
                "codes; give the model as the map was made with it (--model)"
            )
        method = parse(self.method, "look")
        if not isinstance(method, CodeMap):
            raise InputError(f'expected a map made by "map", got one by "{self.method}"')
        with Meter(net.engine.device) as meter:
            notes: list[str] = []
            given, classes = _among(images, self, notes)
            seen = seen_by(net, given, self.layer, method.pool, notes, classes)
            axes = layout.Axes(self.mean.numpy(), self.directions.numpy(), method.metric == "cosine")
            new = axes(seen.codes.numpy())
            old, where, jobs = self.reduced.double().numpy(), self.coordinates.double().numpy(), layout.threads()
            neighbours = layout.nearest(old, new, min(self.k or 1, len(self)), jobs)
            if self.layout == "tsne":
                placed = layout.onto_tsne(old, where, new, method.seed, jobs)
            elif self.layout == "umap":
                placed = layout.onto_umap(old, where, new, round(self.perplexity), method.iterations, method.seed)
            else:
                placed = layout.along_axes(new)
        labels = seen.labels
        if classes != self.classes and bool((labels >= 0).any()):
            labels = torch.full_like(labels, -1)
            notes.append(
                "the images' labels count the model's classes, and the map has others, so that they are left out; a data set "
                "has them by name"
            )
        far = torch.from_numpy(neighbours[1][:, 0]).float()
        known = self.nearest[self.nearest.isfinite()]
        strange = far > (known.quantile(STRANGE) if len(known) else torch.inf)
        if strange.any():
            notes.append(
                f"{int(strange.sum())} of {len(far)} images are further from every image of the map than "
                f"{STRANGE:.0%} of its own are from each other: a map has a place for anything, and theirs says little"
            )
        return PlacedCodes(
            method=self.method,
            layer=self.layer,
            classes=self.classes,
            outputs=self.outputs,
            map=replace(self, thumbnails=self.thumbnails[:0]),
            coordinates=torch.from_numpy(placed).float(),
            labels=labels,
            predictions=seen.predictions,
            confidence=seen.confidence,
            indices=seen.indices,
            names=seen.names,
            thumbnails=seen.thumbnails,
            neighbours=torch.from_numpy(neighbours[0]).long(),
            distance=far,
            strange=strange,
            failed=seen.failed,
            cost=meter.cost,
            notes=tuple(notes),
        )

    def plot(self, colour: str = "class", thumbnails: int = 80, placed: PlacedCodes | None = None) -> Figure:
        """The points, coloured by "class", "prediction" or "error", and so many thumbnails on them, spread out."""
        from seewhy.report.maps import points

        return points(self, colour, thumbnails, placed)

    def plot_grid(self, limit: int = 1600, colour: str = "class") -> Figure:
        """The thumbnails on a grid, none over another, each as near as can be to its place on the map."""
        from seewhy.report.maps import sheet

        return sheet(self, limit, colour)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the map as a page to look around in: one file that loads nothing."""
        from seewhy.report.codemap import write

        return write(self, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`; `load` reads it."""
        save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> MappedCodes:
        """Read what `save` wrote; raises `InputError` where it is something else."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
                about = json.loads(str(held["about"]))
                found: dict[str, Any] = {key: torch.from_numpy(held[key]) for key in held.files if key != "about"}
            found |= {"given": ""} | about  # older versions kept none
            found["cost"] = Cost(**about["cost"])
            found["failed"] = tuple((index, sentence) for index, sentence in about["failed"])
            for key in ("classes", "outputs", "names", "notes"):
                found[key] = tuple(about[key])
            return MappedCodes(**{field.name: found[field.name] for field in fields(MappedCodes)})
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{os.fspath(path)} is not a saved map of codes: {error}") from None

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class PlacedCodes:
    """M new images on an existing `map`: `coordinates` (M, 2), `labels` (M,) among the map's `classes` (−1: not known, or none
    of them), `predictions` among `outputs` and `confidence` (M,), `indices`, `names`, `thumbnails`; `neighbours` (M, k), the
    nearest images of the map by code, the nearest first; `distance` (M,) to the first of them; `strange` (M,): further from
    it than nearly all of the map's own are from theirs.
    """

    method: str
    layer: str
    classes: tuple[str, ...]
    outputs: tuple[str, ...]
    map: MappedCodes
    coordinates: Tensor
    labels: Tensor
    predictions: Tensor
    confidence: Tensor
    indices: Tensor
    names: tuple[str, ...]
    thumbnails: Tensor
    neighbours: Tensor
    distance: Tensor
    strange: Tensor
    failed: tuple[tuple[int, str], ...]
    cost: Cost
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.coordinates)

    def facts(self) -> dict[str, Any]:
        """Where each image lies, what the model says of it, and the images of the map that it is nearest to by code, as plain
        values.
        """
        placed = [
            {
                "image": name,
                "at": self.coordinates[row].tolist(),
                "class": self.classes[label] if label >= 0 else None,
                "predicted": self.outputs[int(self.predictions[row])],
                "confidence": float(self.confidence[row]),
                "nearest": [self.map.names[near] for near in self.neighbours[row].tolist()],
                "distance": float(self.distance[row]),
                "strange": bool(self.strange[row]),
            }
            for row, (name, label) in enumerate(zip(self.names, self.labels.tolist(), strict=True))
        ]
        return {
            "images": len(self),
            "map": len(self.map),
            "strange": int(self.strange.sum()),
            "placed": placed,
            "failed": [{"image": index, "error": sentence} for index, sentence in self.failed],
        }

    def plot(self, colour: str = "class") -> Figure:
        """The map in pale, and the new images on it."""
        return self.map.plot(colour, 0, self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the map to one open file, see `seewhy.result.save`."""
        save(replace(self, map=None), path)  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class CodeMap(Look):
    """A map of images: the codes a(x) of a layer, along principal axes, laid out in the plane by t-SNE.

    t-SNE moves points y so that Q fits P, by KL(P ‖ Q) = Σ p_ij log(p_ij / q_ij): p_ij is high for codes that are neighbours
    (a Gaussian as wide as `perplexity` neighbours), q_ij ∝ 1 / (1 + ‖y_i − y_j‖²). Attraction is between exact neighbours,
    repulsion by FFT from 10,000 images on, by a Barnes–Hut tree below (openTSNE); the start is the first two principal axes.

    `layer`: an address as `seewhy model` prints it (none: the last answer before the classes). `pool`: of a map's positions
    "mean", "max", or "flat", all of them. `metric`: "euclidean", or "cosine" (codes of length 1). `components`: how many axes.
    `layout`: "tsne", "umap" (the extra `umap`; `perplexity` is its number of neighbours), or "pca", the first two axes.
    `k`: neighbours in what is measured, fewer where classes are smaller. `iterations`: after 250 early ones. Answers a
    `MappedCodes`, whose `place` lays new images onto the map.

    Raises `LayerError` for a layer that answers no maps or vectors, `InputError` where no image can be read. Images that
    cannot be read, or whose codes are not finite, are left out and told. A perplexity that is too high for the set is lowered,
    and a note; fewer than five images, or six for UMAP, are drawn along their axes.
    Cost: one forward pass an image; neighbours O(N²), t-SNE O(N) a step; memory up to 26 bytes an image and number of its
    code, and 0.2 GB.
    Limits: distances between groups, and their sizes, mean nothing in t-SNE; a map of a set is of that set alone. The last
    digits of codes decide much, so that passes run in batches of 16, and other machines may draw another map.
    Deviation: the gradient is as precise as FFT interpolation; openTSNE's defaults but for exact neighbours.
    Source: van der Maaten & Hinton 2008, JMLR 9; Linderman et al. 2019, arXiv 1712.09005; Poličar et al. 2024, openTSNE.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = CodeMap(perplexity=3, iterations=50)(Classifier(module, size=8), torch.rand(12, 3, 8, 8))
    >>> found.layer, found.coordinates.shape
    ('2', torch.Size([12, 2]))
    """

    layer: str | None = None
    pool: str = "mean"
    metric: str = "euclidean"
    components: int = 50
    layout: str = "tsne"
    perplexity: float = 30.0
    iterations: int = 500
    k: int = 10
    seed: int = 0

    name = "map"
    needs_images = True
    of_sets = True
    shows = "Which images a layer answers alike to: each image is a point, near those that it is like."
    reading = (
        "Points that lie together are alike to the layer; a point among another class is where it errs, or will. Distances "
        "between groups, and how large or dense they are, mean nothing. Look at the accuracy of neighbours in the map and in "
        "the codes: where they differ, believe the codes."
    )
    source = "van der Maaten & Hinton 2008, JMLR 9, 2579–2605; Linderman et al. 2019, arXiv 1712.09005"

    def __post_init__(self) -> None:
        for word, value, known in (
            ("pool", self.pool, POOLS),
            ("metric", self.metric, ("euclidean", "cosine")),
            ("layout", self.layout, LAYOUTS),
        ):
            if value not in known:
                raise SpecError(f'expected {word} to be one of {", ".join(known)}, got "{value}"')
        if self.components < 2 or self.iterations < 1 or self.k < 1 or not self.perplexity >= 1:
            raise SpecError(
                "expected components ≥ 2, iterations, k and perplexity ≥ 1, got "
                f"components={self.components}, iterations={self.iterations}, k={self.k}, perplexity={self.perplexity:g}"
            )
        if self.layout == "umap" and self.perplexity < 2:
            raise SpecError(
                f"expected a perplexity of at least 2 for UMAP, whose number of neighbours it is, got {self.perplexity:g}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 1, 0

    def check(self, net: Classifier) -> None:
        self._layer(net)

    def _layer(self, net: Classifier) -> str:
        """The address of the layer; raises before the pass what could be wrong after it."""
        if self.layout == "umap":
            from seewhy.look.layout import umap_class

            umap_class()
        return chosen_layers(net, (self.layer or code_layer(net),))[0]

    def __call__(self, net: Classifier, images: Pictures | None = None) -> MappedCodes:
        if images is None:
            raise InputError("a map is of images: give some")
        notes: list[str] = []
        with Meter(net.engine.device) as meter:
            layer = self._layer(net)
            given, classes, comparable = _aligned(images, net.labels, notes)
            found = self._mapped(net, seen_by(net, given, layer, self.pool, notes, classes), layer, notes)
        return replace(found, classes=classes, comparable=comparable, cost=meter.cost)

    def _mapped(self, net: Classifier, seen: Seen, layer: str, notes: list[str]) -> MappedCodes:
        from seewhy.look import layout
        from seewhy.look.neighbours import ALL, SOME, faithfulness

        codes, n = seen.codes.numpy(), len(seen.codes)
        unit, jobs = self.metric == "cosine", layout.threads()
        alike = bool((seen.codes == seen.codes[:1]).all())
        way, perplexity = self._fitting(n, alike, notes)
        axes = layout.principal(codes, self.components, unit, self.seed)
        reduced = axes(codes)
        divergence: float | None = None
        if way == "tsne":
            coordinates, divergence = layout.tsne(reduced, perplexity, self.iterations, self.seed, jobs)
        elif way == "umap":
            coordinates = layout.umap(reduced, round(perplexity), self.iterations, self.seed)
        else:
            coordinates = layout.along_axes(reduced)
        known = bool((seen.labels >= 0).any())
        stand = seen.labels if known else seen.predictions
        if not known:
            notes.append("no true classes are known: those that the model predicts stand in, and cannot be wrong")
        k = 0 if alike else min(self.k, n - 1)
        if 0 < k < self.k:
            notes.append(f"k = {self.k} of {n} images: each has {k} others")
        k = _within_classes(k, stand, notes)
        measured = faithfulness(layout.scaled(codes, unit), coordinates, stand.numpy(), k, self.seed)
        if n > ALL and k:
            notes.append(f"neighbours were compared for {SOME:,} of {n:,} images, drawn by lot")
        if not alike:
            notes += _repeated(codes)
        there = stand[stand >= 0].bincount()
        if n > 1 and int((there > 0).sum()) == 1:
            notes.append("all images are of one class, so that the accuracy of neighbours says nothing")
        if axes.directions.shape[0] < codes.shape[1] and not alike:
            notes.append(f"t-SNE sees {len(axes.directions)} of {codes.shape[1]} axes" if way == "tsne" else
                         f"{len(axes.directions)} of {codes.shape[1]} axes are used")  # fmt: skip
        return MappedCodes(
            method=self.spec,
            model=net.name,
            fingerprint=net.fingerprint,
            layer=layer,
            layout=way,
            classes=(),
            outputs=net.labels,
            comparable=False,
            coordinates=torch.from_numpy(coordinates).float(),
            labels=seen.labels,
            predictions=seen.predictions,
            confidence=seen.confidence,
            indices=seen.indices,
            names=seen.names,
            thumbnails=seen.thumbnails,
            reduced=torch.from_numpy(reduced).float(),
            mean=torch.from_numpy(axes.mean),
            directions=torch.from_numpy(axes.directions),
            right_map=measured.right_map,
            right_codes=measured.right_codes,
            nearest=_next(reduced) if k else torch.full((n,), torch.nan),
            k=k,
            perplexity=perplexity,
            chance=float(there.max() / there.sum()) if len(there) else 0.0,
            trustworthiness=measured.trustworthiness,
            kept=measured.kept,
            divergence=divergence,
            failed=seen.failed,
            cost=Cost(),
            notes=tuple(notes),
            given=_given(net),
        )

    def _fitting(self, n: int, alike: bool, notes: list[str]) -> tuple[str, float]:
        """What can lay out so many codes, and with which perplexity."""
        from seewhy.look.layout import FEWEST

        if n == 1:
            notes.append("one image is one point, and no map")
        elif alike:
            notes.append(f"all {n:,} codes are the same, so that every image lies at one point")
        elif n < FEWEST[self.layout]:
            notes.append(f"{n} images are too few for {_NAMES[self.layout]}; they are drawn along their principal axes")
        if n < FEWEST[self.layout] or alike:
            return "pca", self.perplexity
        most = (n - 1) / 3 if self.layout == "tsne" else n - 1
        if self.layout != "pca" and self.perplexity > most:
            notes.append(
                f"a perplexity of {self.perplexity:g} is too high for {n} images; it was lowered to {most:.3g}"
            )
        return self.layout, min(self.perplexity, most)


def _within_classes(k: int, classes: Tensor, notes: list[str]) -> int:
    """As many neighbours as half of the images can have of their own class: more would vote for others on any map."""
    known = classes[classes >= 0]
    there = known.bincount()
    if not k or int((there > 0).sum()) < 2:
        return k
    others = int((there[known] - 1).median())
    if not 0 < others < k:
        return k
    notes.append(f"k = {others} instead of {k}: half of the images have no more others of their class")
    return others


_NAMES = {"tsne": "t-SNE", "umap": "UMAP", "pca": "principal axes"}


def _given(net: Classifier) -> str:
    """How a model is given images: their size, how they are brought to it, and the normalisation."""
    way = net.preprocess
    fitted = way.fit if way.resize is None else f"{way.fit} of {way.resize}"
    mean, std = (", ".join(f"{each:.6g}" for each in values) for values in (net.mean, net.std))
    return f"{way.size[0]}×{way.size[1]} pixels ({fitted}, {way.interpolation}; mean {mean}; deviation {std})"


def _aligned(images: Pictures, outputs: Sequence[str], notes: list[str]) -> tuple[Pictures, tuple[str, ...], bool]:
    """The images with the model's class indices if its classes are the set's, the classes' names, and whether they are."""
    if not isinstance(images, DataSet) or images.labels is None:
        return images, tuple(outputs), True
    try:
        return images.aligned(outputs), tuple(outputs), True
    except DataError as error:
        notes.append(f"the model's classes are not the set's, so that errors cannot be told: {error}")
        highest = max((label for label in images.labels if label is not None), default=0)
        return images, images.classes or tuple(str(label) for label in range(highest + 1)), False


def _among(images: Pictures, found: MappedCodes, notes: list[str]) -> tuple[Pictures, tuple[str, ...]]:
    """New images with their classes as indices of a map's, None where it has no such class; and whose indices they are.

    Labels without names are of the model's classes.
    """
    if not isinstance(images, DataSet) or images.labels is None:
        return images, found.outputs
    try:
        return images.aligned(found.classes), found.classes
    except DataError:
        moved: dict[int | None, int | None] = {None: None}
    for label in sorted({label for label in images.labels if label is not None}):
        try:
            one = images.subset([images.labels.index(label)]).aligned(found.classes)
            moved[label] = one.labels[0] if one.labels else None
        except DataError:
            moved[label] = None
    names = [images.classes[label] if images.classes else str(label)
             for label, place in moved.items() if label is not None and place is None]  # fmt: skip
    labels = tuple(moved[label] for label in images.labels)
    lost = labels.count(None) - images.labels.count(None)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    notes.append(
        f"{lost} of {len(images):,} images have no class on the map, which lacks theirs: {', '.join(names[:3])}{more}"
    )
    return replace(images, labels=labels, classes=found.classes), found.classes


def _repeated(codes: np.ndarray[Any, Any]) -> Iterator[str]:
    """A note on codes that are exactly the same."""
    several = np.unique(codes, axis=0, return_counts=True)[1]
    if several.max() > 1:
        count = int(several[several > 1].sum())
        yield f"{count} images share their code with another, to the last digit"


def _next(reduced: np.ndarray[Any, Any]) -> Tensor:
    """The distance (N,) of each code to the next one, where new ones will be compared."""
    from seewhy.look import layout

    return torch.from_numpy(layout.nearest(reduced, None, 1, layout.threads())[1][:, 0]).float()


def _share(right: Tensor) -> float | None:
    asked = right[right >= 0]
    return float(asked.double().mean()) if len(asked) else None
