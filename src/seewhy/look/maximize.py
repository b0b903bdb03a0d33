"""Activation maximization: images that a unit, a direction or a class answers to most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seewhy import rng
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter, count, out_of_memory
from seewhy.errors import InputError, ModelError, NothingToExplain, SpecError, nearest
from seewhy.lens.reach import reach
from seewhy.look.base import Look
from seewhy.look.objectives import Logit, Objective, Term, View, objective
from seewhy.look.parametrize import (
    Frequencies,
    Moves,
    Parametrization,
    Phases,
    Pixels,
    colours,
    measured,
    natural,
)
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

PARAMETRIZATIONS = ("frequency", "pixels", "maco")

#: how many classes are shown where no objective is given
FIRST = 4

#: Adam's decay of means and squares, and what keeps it from dividing by nothing
DECAY, EPSILON = (0.9, 0.999), 1e-8

#: pixels (n, 3, H, W) before any move, the same moved, which of all images they are -> the objective (n,)
Score = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Maximized:
    """Images that were optimised: `images` (N), in [0, 1], with what they were optimised for as their names.

    `scores` (N,) is the objective of each final image, without moves, and `start` (N,) of the first; `history` (steps, N)
    that of each step, moved. `snapshots` (K, N, 3, H, W) are images on the way, after `steps` (K,). `wanted` (N,) is the
    class that each is an image of (−1: none), `probabilities` (N, C) what the model says of them, `labels` its classes.
    `others` are the names of other models that were asked, `others_probability` and `others_recognise` (M, N) their
    probability of each image's class (NaN for images of no class, or of one that they lack) and whether it is their first.
    """

    method: str
    layer: str
    objective: str
    images: Images
    scores: Tensor
    start: Tensor
    history: Tensor
    snapshots: Tensor
    steps: Tensor
    wanted: Tensor
    probabilities: Tensor
    labels: tuple[str, ...]
    others: tuple[str, ...]
    others_probability: Tensor
    others_recognise: Tensor
    cost: Cost
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What each image reached and what is said of it, as plain values."""
        rows: list[dict[str, Any]] = []
        for row, name in enumerate(self.images.names):
            rows.append({"for": name, "start": float(self.start[row]), "score": float(self.scores[row])})
            if self.wanted[row] >= 0:
                rows[-1] |= {
                    "probability": float(self.probabilities[row, self.wanted[row]]),
                    "recognised": bool(self.recognised[row]),
                    "others": {
                        other: {
                            "probability": _finite(float(self.others_probability[at, row])),
                            "recognised": bool(self.others_recognise[at, row]),
                        }
                        for at, other in enumerate(self.others)
                    },
                }
        return {"objective": self.objective, "images": rows}

    @property
    def recognised(self) -> Tensor:
        """Whether the model says the class that each image is of (N,); False for images of no class."""
        return self.probabilities.argmax(1) == self.wanted

    def by(self, other: Classifier) -> Tensor:
        """The probability (N,) that another model gives to each image's class, and NaN for images of no class.

        Classes are found by their names and synonyms, or by their indices where the other has no names and as many; images
        are resized to the other's input. One of its forward passes an image. Raises `InputError` for a class that it lacks.
        """
        return self._asked(other, self._places(other))[0]

    def recognised_by(self, other: Classifier) -> Tensor:
        """Whether another model says the class that each image is of (N,), as in `by`."""
        return self._asked(other, self._places(other))[1]

    def asked(self, others: Sequence[Classifier]) -> Maximized:
        """The same with what other models say of the images, one of their forward passes an image; see `by`.

        A class that one of them lacks is a note, and NaN.
        """
        if not others:
            return self
        at = [counterparts(self.labels, self.wanted, other) for other in others]
        said = [self._asked(other, places) for other, places in zip(others, at, strict=True)]
        told = [
            note
            for other, places, (_, recognised) in zip(others, at, said, strict=True)
            for note in self._told(other.name, places, int(recognised.sum()))
        ]
        return replace(
            self,
            others=tuple(other.name for other in others),
            others_probability=torch.stack([probability for probability, _ in said]),
            others_recognise=torch.stack([recognised for _, recognised in said]),
            notes=(*self.notes, *dict.fromkeys(told)),
        )

    def _told(self, other: str, at: Tensor, right: int) -> Iterator[str]:
        """What a reader must know of another model's answer, which has the images' classes `at` (N,) these indices."""
        from seewhy.report.words import some

        known, wanted = at >= 0, self.wanted >= 0
        if not wanted.any():
            yield "images of no class cannot be recognised, so no other model was asked"
        if known.any():
            yield f"{other} recognises {right} of {int(known.sum())} images as their class"
        lacking = dict.fromkeys(f'"{self.labels[index]}"' for index in self.wanted[wanted & ~known].tolist())
        if lacking:
            noun = "class" if len(lacking) == 1 else "classes"
            yield f"{other} lacks the {noun} {some(list(lacking), 3)}: it cannot recognise those images"

    def _places(self, other: Classifier) -> Tensor:
        """As `counterparts`; raises `InputError` for a class that the other model lacks."""
        at = counterparts(self.labels, self.wanted, other)
        lacking = [self.labels[index] for index in self.wanted[(self.wanted >= 0) & (at < 0)].tolist()]
        if lacking:
            raise InputError(f'{other.name} has no class "{lacking[0]}"{nearest(lacking[0], other.labels)}')
        return at

    def _asked(self, other: Classifier, at: Tensor) -> tuple[Tensor, Tensor]:
        """Another model's probability of each image's class, at these of its indices, and whether it is its first, (N,)."""
        probability = torch.full((len(at),), math.nan)
        of = (at >= 0).nonzero()[:, 0]
        if not len(of):
            return probability, torch.zeros(len(at), dtype=torch.bool)
        pixels = self.images.pixels
        if tuple(pixels.shape[2:]) != other.size:
            pixels = torch.nn.functional.interpolate(
                pixels, other.size, mode="bilinear", antialias=True, align_corners=False
            ).clamp(0, 1)
        said = other.predict(pixels).cpu()
        probability[of] = said.softmax(1)[of, at[of]]
        return probability, said.argmax(1) == at

    def plot(self) -> Figure:
        """The images, those on the way before them, with what the model says of them."""
        from seewhy.report.learned import maximized

        return maximized(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


def _finite(value: float) -> float | None:
    """A number as JSON can have it."""
    return value if math.isfinite(value) else None


def counterparts(labels: Sequence[str], wanted: Tensor, other: Classifier) -> Tensor:
    """Another model's index of each image's class (N,), −1 for images of no class and for classes that it lacks.

    Raises `InputError` where its classes cannot be told from each other: it has no names for them, and not as many.
    """
    if not other.labels_given and other.classes != len(labels) and bool((wanted >= 0).any()):
        raise InputError(f"expected a model of the same {len(labels)} classes, or one that names them, got {other!r}")
    known = {index: _counterpart(labels[index], index, other) for index in set(wanted.tolist()) if index >= 0}
    return torch.tensor([known.get(index, -1) for index in wanted.tolist()], dtype=torch.long)


def _counterpart(label: str, index: int, other: Classifier) -> int:
    """Another model's index of a class: by its name, else by one of the synonyms in it; −1 where it has none of them."""
    if not other.labels_given or (index < other.classes and other.labels[index] == label):
        return index
    for name in filter(None, (label, *map(str.strip, label.split(",")))):
        if name.lstrip("-").isdecimal() and name not in other.labels:
            continue  # would be taken for an index
        with suppress(InputError):
            return other.index(name)
    return -1


@dataclass(frozen=True)
class Maximize(Look):
    """x* = argmax over images of an objective, by gradient ascent: what a unit answers to most, or the image of a class.

    `objective`: terms with weights, joined by + and −, arguments separated by semicolons: `channel(layer3;12)` (mean over
    positions; `0-7` for an image each), `neuron(layer3;12;7;7)` (the central one without a position), `direction(fc;1;0;-1)`,
    `logit(tabby;281)`, `layer(layer3)` (DeepDream), `diversity(layer3)`; penalties to take away: `tv`, `l2`, `blur`. In
    Python also `Channel("layer3", 12) - 2 * TotalVariation()`. None: the logits of the first four classes. `number`: images of
    each unit, from different starts. `parametrization`: "frequency" (spectrum over 1/f), "pixels" or "maco" (phases alone are
    optimised, the magnitudes being those of the images given, or 1/f), each through a sigmoid into [0, 1]; `decorrelate`: with
    ImageNet's correlation of colours (`seewhy.look.parametrize.colours`). `jitter` (a share of the shorter side), `scale` ± and
    `rotate` degrees move the picture at random before each pass; `rate` is Adam's, `snapshots` how many images of the way
    are kept.

    `also` are other models that are shown the images of classes: an image that others recognise, too, has more of the class in it
    than of the model. A class that one of them lacks is a note, and NaN.

    Answers `Maximized`: images (N, 3, H, W), objectives in the network's units, probabilities. Images that do not depend on
    `diversity` do not depend on each other. Raises `SpecError` for an objective that cannot be read, `LayerError` for a layer or
    a unit that is not there, `InputError` for a class, or another model whose classes cannot be told.
    Cost: a forward and a backward pass a step and image, each ended at the last layer that the objective needs; three
    forward passes more.
    Limits: a local maximum, one of many; strongly shaped by the parametrization; people predict units better from natural
    images (Borowski et al. 2021, arXiv 2010.12606).
    Deviation: for MACO, moves in place of random crops and noise, and Adam; the paper's magnitudes are ImageNet's mean.
    Source: Erhan et al. 2009; Simonyan et al. 2014, arXiv 1312.6034, section 2; Olah et al. 2017, doi:10.23915/distill.00007;
    Fel et al. 2023, arXiv 2306.06805.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> found = Maximize("channel(0;0-3)-0.1*tv", steps=20)(net)
    >>> found.images.shape, bool((found.scores >= found.start).all())
    (torch.Size([4, 3, 8, 8]), True)
    """

    objective: str | None = None
    number: int = 1
    steps: int = 256
    rate: float = 0.05
    parametrization: str = "frequency"
    decorrelate: bool = True
    jitter: float = 0.035
    scale: float = 0.1
    rotate: float = 5.0
    snapshots: int = 4
    seed: int = 0

    name = "maximize"
    shows = "The image that a unit answers to most, or the model's own idea of a class."
    reading = (
        "Made from noise, not found in data: it shows what drives the unit, exaggerated. Repeated parts are normal. It is one "
        "answer of many; look at natural images that excite the unit as well."
    )
    source = "Erhan et al. 2009; Simonyan et al. 2014, arXiv 1312.6034; Olah et al. 2017, doi:10.23915/distill.00007"

    def __post_init__(self) -> None:
        given: object = self.objective
        if isinstance(given, Term | Objective):
            object.__setattr__(self, "objective", str(given))
        if self.objective is not None:
            if "," in self.objective:
                raise SpecError(f'expected semicolons between the arguments of an objective, got "{self.objective}"')
            objective(self.objective)
        if self.parametrization not in PARAMETRIZATIONS:
            raise SpecError(f'expected parametrization {", ".join(PARAMETRIZATIONS)}, got "{self.parametrization}"')
        for good, words in (
            (self.number >= 1, f"number ≥ 1, got {self.number}"),
            (self.steps >= 1, f"steps ≥ 1, got {self.steps}"),
            (self.rate > 0, f"rate > 0, got {self.rate:g}"),
            (0 <= self.jitter < 1, f"jitter from 0 to below 1, got {self.jitter:g}"),
            (0 <= self.scale < 1, f"scale from 0 to below 1, got {self.scale:g}"),
            (0 <= self.rotate <= 180, f"rotate from 0 to 180 degrees, got {self.rotate:g}"),
            (self.snapshots >= 0, f"snapshots ≥ 0, got {self.snapshots}"),
        ):
            if not good:
                raise SpecError(f"expected {words}")

    @property
    def passes(self) -> tuple[int, int]:
        made = self.number * (objective(self.objective).units if self.objective else FIRST)
        return made * (self.steps + 3), made * self.steps

    def check(self, net: Classifier) -> None:
        self._wanted(net).check(net)

    def _wanted(self, net: Classifier) -> Objective:
        return objective(self.objective) if self.objective else 1.0 * Logit(tuple(range(min(FIRST, net.classes))))

    def __call__(
        self, net: Classifier, images: Tensor | Images | None = None, *, also: Sequence[Classifier] = ()
    ) -> Maximized:
        wanted = self._wanted(net)
        unit = torch.arange(wanted.units).repeat_interleave(self.number)
        of = _classes(net, wanted, unit)
        for other in also:  # what would be wrong after the climb is wrong before it
            counterparts(net.labels, of, other)
        with Meter(net.engine.device) as meter:
            names = [name for name in wanted.check(net) for _ in range(self.number)]
            made = self._parametrization(net, images)
            kept = on_the_way(self.steps, self.snapshots)
            draws = [rng.generator(self.seed, self.name, row) for row in range(len(unit))]
            moves = Moves(round(self.jitter * min(net.size)), self.scale, self.rotate)

            def score(pixels: Tensor, moved: Tensor, rows: Tensor) -> Tensor:
                answers = reach(net, moved, wanted.layers, logits=wanted.logits)
                return wanted(View(pixels, answers, unit[rows]), net)

            climbed = climb(
                net,
                score,
                made,
                made.start(draws),
                self.rate,
                moves,
                moves.draw(self.seed, self.name, self.steps),
                kept,
                together=wanted.together,
            )
            logits = net.predict(climbed.pixels).cpu()
        probabilities = logits.softmax(1)
        found = Maximized(
            method=self.spec,
            layer=", ".join((*wanted.layers, *["logits"] * wanted.logits)),
            objective=str(wanted),
            images=Images(climbed.pixels, tuple(names)),
            scores=climbed.scores,
            start=climbed.start,
            history=climbed.history,
            snapshots=climbed.snapshots,
            steps=torch.tensor(kept, dtype=torch.long),
            wanted=of,
            probabilities=probabilities,
            labels=net.labels,
            others=(),
            others_probability=torch.zeros(0, len(unit)),
            others_recognise=torch.zeros(0, len(unit), dtype=torch.bool),
            cost=meter.cost,
            notes=(
                *self._notes(wanted, images),
                *_silent(wanted, net, climbed, unit, names),
                *risen(climbed),
                *_recognised(probabilities, of),
            ),
        )
        return found.asked(also)

    def _parametrization(self, net: Classifier, images: Tensor | Images | None) -> Parametrization:
        mix = colours() if self.decorrelate else None
        if self.parametrization == "pixels":
            return Pixels(net.size, mix)
        if self.parametrization == "frequency":
            return Frequencies(net.size, mix)
        if images is None:
            return Phases(natural(net.size), net.size, mix)
        pixels = net.check(images)
        if tuple(pixels.shape[2:]) != net.size:
            raise InputError(f"expected images of {net.size} pixels, got {tuple(pixels.shape[2:])}")
        return Phases(measured(pixels, mix), net.size, mix)

    def _notes(self, wanted: Objective, images: Tensor | Images | None) -> list[str]:
        notes = []
        if self.parametrization == "maco" and images is None:
            notes.append("no images were given, so the magnitudes are 1/f")
        if wanted.together and self.number == 1:
            notes.append("diversity is between the images of one unit, and there is one: give number=4, say")
        return notes


@dataclass(frozen=True)
class Climbed:
    """What a climb came to: pixels (n, 3, H, W), values at the end and at the start (n,) and on the way (steps, n), images on
    the way (k, n, 3, H, W), and whether an image never had a gradient (n,)."""

    pixels: Tensor
    scores: Tensor
    start: Tensor
    history: Tensor
    snapshots: Tensor
    stuck: Tensor


def on_the_way(steps: int, snapshots: int) -> list[int]:
    """After which steps an image is kept: evenly spread, neither the first nor the last.

    >>> on_the_way(100, 4)
    [20, 40, 60, 80]
    """
    return sorted({round(steps * (k + 1) / (snapshots + 1)) for k in range(snapshots)} - {0, steps})


def climb(
    net: Classifier,
    score: Score,
    made: Parametrization,
    first: Tensor,
    rate: float,
    moves: Moves,
    move: Tensor,
    kept: Sequence[int],
    *,
    together: bool = False,
) -> Climbed:
    """Adam's ascent of a score from the parameters `first` (n, …), a step for each of `move` (steps, 4).

    In the engine's batches, but all images at once where they depend on each other (`together`). One forward and one backward
    pass a step and image, and two forward passes more: for the values of the first and the last image, unmoved.
    """
    parts: dict[int, Climbed] = {}
    rows = torch.arange(len(first))
    with steps_told(net, len(rows) * len(move)) as tell:

        def run(of: Tensor, _: slice) -> Tensor:
            parts[int(of[0])] = found = _ascend(net, score, made, first[of], of, rate, moves, move, kept, tell)
            return found.pixels

        if together:
            try:
                run(rows, slice(0, len(rows)))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise SpecError(
                    f"memory ran out: all {len(rows)} images run together, since they depend on each other by diversity; "
                    "take a smaller number, or fewer units"
                ) from error
        else:
            in_batches(net, run, rows, "maximize")
    done = [parts[row] for row in sorted(parts)]
    return Climbed(
        torch.cat([each.pixels for each in done]),
        torch.cat([each.scores for each in done]),
        torch.cat([each.start for each in done]),
        torch.cat([each.history for each in done], 1),
        torch.cat([each.snapshots for each in done], 1),
        torch.cat([each.stuck for each in done]),
    )


@contextmanager
def steps_told(net: Classifier, total: int) -> Iterator[Callable[[int], None]]:
    """Inside, the engine's listener hears how many of all images' steps are done, and not of each batch.

    The model is in one session for all of them: each pass would begin one of its own.
    """
    listener, done = net.engine.progress, 0

    def tell(more: int) -> None:
        nonlocal done
        done = min(done + more, total)  # a batch that ran out of memory begins again
        if listener is not None:
            listener(done, total)

    with net.session(), net.engine.telling(None):
        yield tell


def in_batches(net: Classifier, run: Callable[[Tensor, slice], Tensor], images: Tensor, kind: str) -> Tensor:
    """The engine's `map` for work of many passes: no batch size is measured, which would cost as much as the work."""
    few = net.engine.MANY - 1
    starts = range(0, len(images), few)

    def moved(part: Tensor, where: slice, by: int) -> Tensor:
        return run(part, slice(where.start + by, where.stop + by))

    return torch.cat([net.engine.map(partial(moved, by=by), images[by : by + few], kind) for by in starts])


def _ascend(
    net: Classifier,
    score: Score,
    made: Parametrization,
    first: Tensor,
    of: Tensor,
    rate: float,
    moves: Moves,
    move: Tensor,
    kept: Sequence[int],
    tell: Callable[[int], None],
) -> Climbed:
    leaf = first.to(net.engine.device).clone().requires_grad_()
    mean, square = torch.zeros_like(leaf), torch.zeros_like(leaf)
    values: list[Tensor] = []
    snapshots: list[Tensor] = []
    stuck = torch.ones(len(of), dtype=torch.bool)
    for step in range(len(move)):
        with torch.enable_grad():
            pixels = made.image(leaf)
            value = score(pixels, moves(pixels, move[step]), of)
        if step in kept:
            snapshots.append(pixels.detach().float().cpu())
        values.append(value.detach())
        if not value.requires_grad:
            raise NothingToExplain(
                f"the objective does not depend on the input of {net.name} by any differentiable way; "
                "a detach(), an argmax or a no_grad() inside the model cuts it off"
            )
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        count(backward=len(of))
        if stuck.any():
            stuck &= gradient.flatten(1).abs().amax(1).cpu() == 0
        with torch.no_grad():  # Adam, in place
            mean.lerp_(gradient, 1 - DECAY[0])
            square.mul_(DECAY[1]).addcmul_(gradient, gradient, value=1 - DECAY[1])
            unbiased = math.sqrt(1 - DECAY[1] ** (step + 1))
            root = square.sqrt().add_(EPSILON * unbiased)
            leaf.addcdiv_(mean, root, value=rate * unbiased / (1 - DECAY[0] ** (step + 1)))
        tell(len(of))
    with torch.no_grad():
        for parameters in (first.to(leaf.device), leaf):
            pixels = made.image(parameters)
            values.append(score(pixels, pixels, of))
    told = torch.stack(values).float().cpu()
    if not told.isfinite().all():
        raise ModelError(
            f"the objective became NaN or infinite in {net.name}; take a smaller rate, or look for a division, a logarithm or "
            "a root of zero inside the model"
        )
    way = torch.stack(snapshots) if snapshots else torch.empty(0, *pixels.shape)
    return Climbed(pixels.float().cpu(), told[-1], told[-2], told[:-2], way, stuck)


def risen(climbed: Climbed) -> list[str]:
    """What a reader must know of a climb that did not go up."""
    told = []
    stuck = int(climbed.stuck.sum())
    if stuck:
        told.append(f"no gradient ever reached {stuck} of {len(climbed.stuck)} images: they are as they started")
    lower = int(((climbed.scores <= climbed.start) & ~climbed.stuck).sum())
    if lower:
        told.append(
            f"the objective of {lower} of {len(climbed.stuck)} images did not rise; take more steps, or another rate"
        )
    return told


def _classes(net: Classifier, wanted: Objective, unit: Tensor) -> Tensor:
    """The class (N,) that each image is of: that of the first logit with a positive weight, or −1."""
    for weight, term in wanted.terms:
        if isinstance(term, Logit) and weight > 0:
            classes = torch.tensor(term.classes(net))
            return classes.expand(len(unit)).clone() if len(classes) == 1 else classes[unit]
    return torch.full_like(unit, -1)


def _silent(wanted: Objective, net: Classifier, climbed: Climbed, unit: Tensor, names: Sequence[str]) -> list[str]:
    """Units that answer nothing at the end: what is left of the objective are its penalties."""
    view = View(climbed.pixels, {}, unit)
    left = climbed.scores - wanted.penalties(view, net).cpu()
    silent = (left.abs() <= 1e-6 * climbed.scores.abs().clamp_min(1e-3)).nonzero()[:, 0].tolist()
    which = ", ".join(dict.fromkeys(names[row] for row in silent))
    return [f"{which}: no answer at all, the unit may be dead; try another start (seed)"] if silent else []


def _recognised(probabilities: Tensor, of: Tensor) -> list[str]:
    if not bool((of >= 0).any()):
        return []
    right = int((probabilities.argmax(1) == of).sum())
    return [f"the model recognises {right} of {len(of)} images as their class"]
