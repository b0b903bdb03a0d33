"""Why a change fools: what the attack's direction has that random noise of the same size has not, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, median_low
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seewhy.attack.base import Adversarial
from seewhy.attack.oracles import predicted
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, LayerError, NothingToExplain, SpecError
from seewhy.explain.base import Explainer, flatten
from seewhy.explain.compare import GRID, correlated, on_grid
from seewhy.lens.capture import capture, find, last_map, trace
from seewhy.result import save, shown
from seewhy.rng import generator

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

#: shares of the change at which the logits are looked at, from none to all of it
SHARES = tuple(step / 8 for step in range(9))

#: how many times the change's own length a direction is followed in search of another decision, and how often it is halved
REACH, HALVINGS = 64, 5

#: edges of the frequency bands, in cycles a pixel; the last band also holds the corners of the spectrum, up to √½
BANDS = tuple(step / 16 for step in range(9))

#: layers at most through which the growth is followed, units that are named, and classes that may have the nearest boundary
LAYERS, UNITS, RIVALS = 12, 8, 5


@dataclass(frozen=True)
class Diagnosis:
    """Why M images are fooled. Wherever an axis D stands, row 0 is the attack's change and the others are random noise.

    Noise is the control: the same change with its positions shuffled and its signs drawn anew, so that it has the same size
    in every norm (but for what black and white cut off), and no direction. `before` and `after` (M,) are the classes;
    `gaps` (S, M) the logit of the one before less that of the one after, at `SHARES` of the change; `falls` (D, M) how far
    that gap falls under each whole change, and `linear` (D, M) how far its gradient at the photograph says that it falls.
    `distances` (D, M) are ℓ₂ lengths at which the decision first changes along each direction, infinite where none does
    within `REACH` times the change. `growth` (L, D, M) is the length of the change of each layer's answer over the length
    of the answer. `spectrum` (D, M, B) is the share of the change's energy in each of `BANDS`. `rank` (M,) is the place of
    the class after among the classes other than the one before (0: the runner-up), `nearest` (M,) that of the best five and the
    class after whose boundary the gradient places nearest. `correlation` and `mass` (D, M), for each explainer: the rank
    correlation of the maps of the class before, and the share of their mass that lies elsewhere. `units` (M, U) are the
    channels of `layer` whose maps change most, `answers` (M, U, 1 + D) their means on the photograph and on each change.
    `transfer` (D, M), for each other model: whether it too leaves the class before, where `fair` (M,) says that it had it.
    """

    method: str
    images: Images
    attacked: int
    names: tuple[str, ...]
    before: Tensor
    after: Tensor
    gaps: Tensor
    falls: Tensor
    linear: Tensor
    lengths: Tensor
    distances: Tensor
    layers: tuple[str, ...]
    growth: Tensor
    spectrum: Tensor
    rank: Tensor
    nearest: Tensor
    correlation: Mapping[str, Tensor]
    mass: Mapping[str, Tensor]
    layer: str
    units: Tensor
    answers: Tensor
    transfer: Mapping[str, Tensor]
    fair: Mapping[str, Tensor]
    cost: Cost
    notes: tuple[str, ...]

    @property
    def straightness(self) -> Tensor:
        """How straight the gap falls along the attack (M,): R² of the best line through it at `SHARES`."""
        at = torch.tensor(SHARES, dtype=torch.float64)
        at, gaps = at - at.mean(), self.gaps.double() - self.gaps.double().mean(0)
        slope = at @ gaps / at.square().sum()
        left = (gaps - at[:, None] * slope).square().sum(0)
        return 1 - left / gaps.square().sum(0).clamp_min(1e-30)

    @property
    def explained(self) -> Tensor:
        """The share of the gap's fall that the gradient at the photograph foresees (M,): 1 for a linear model."""
        return self.linear[0] / self.falls[0]

    def rows(self) -> list[dict[str, Any]]:
        """The numbers of each image as plain values, `noise` being a list of one for each direction; None for infinite."""
        straight, explained = self.straightness, self.explained
        pixels = self.images.pixels[0].numel()
        return [
            {
                "image": name,
                "before": self.names[int(self.before[i])],
                "after": self.names[int(self.after[i])],
                "rank": int(self.rank[i]),
                "nearest": self.names[int(self.nearest[i])],
                "gaps": self.gaps[:, i].tolist(),
                "straightness": float(straight[i]),
                "explained": float(explained[i]),
                "falls": self.falls[:, i].tolist(),
                "rms": float(self.lengths[0, i]) / math.sqrt(pixels),
                "distances": [_finite(each / math.sqrt(pixels)) for each in self.distances[:, i].tolist()],
                "layers": list(self.layers),
                "growth": self.growth[:, :, i].tolist(),
                "spectrum": self.spectrum[:, i].tolist(),
                "moved": {
                    spec: {
                        "correlation": [_finite(each) for each in self.correlation[spec][:, i].tolist()],
                        "mass": [_finite(each) for each in self.mass[spec][:, i].tolist()],
                    }
                    for spec in self.correlation
                },
                "layer": self.layer,
                "units": [
                    {"channel": channel, "answers": answers}
                    for channel, answers in zip(self.units[i].tolist(), self.answers[i].tolist(), strict=True)
                ],
                "transfer": {
                    name: self.transfer[name][:, i].tolist() for name, fair in self.fair.items() if bool(fair[i])
                },
            }
            for i, name in enumerate(self.images.names)
        ]

    def words(self) -> str:
        """A paragraph made of the numbers, which says no more than they do."""
        return paragraph(self.rows(), self.attacked)

    def plot(self, index: int = 0) -> Figure:
        """One image's fall of the gap, growth through the layers, spectrum and changed units, each beside its control."""
        from seewhy.report.attacks import diagnosis

        return diagnosis(self, index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.words())


def diagnose(
    net: Classifier,
    found: Adversarial,
    *,
    explainers: Sequence[Explainer] = (),
    others: Mapping[str, Classifier] | None = None,
    noises: int = 4,
    layer: str | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Measure why the images that an attack fooled are fooled, each measure against `noises` random changes of the same size.

    Looked at are the smallest changes that fool. `explainers`: whose maps are compared before and after; `others`: models, by
    name, that are shown the same images; `layer`: whose units are named (None: the last maps). Raises `NothingToExplain`
    where the attack fooled none, `InputError` for a model with other classes or another input size. Cost: `passes(noises)`
    at most, and 2 + `noises` times an explainer's.

    >>> from torch import nn
    >>> from seewhy.attack import FGSM
    >>> _ = torch.manual_seed(0)
    >>> module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> net = Classifier(module, size=2)
    >>> found = FGSM(eps=(1.0,))(net, torch.full((1, 3, 2, 2), 0.5))
    >>> round(float(diagnose(net, found).explained), 4)
    1.0
    """
    rows = (found.best >= 0).nonzero()[:, 0]
    if not len(rows):
        raise NothingToExplain(f"{found.method} fooled no image, so there is no failure to look into")
    diagnosis = between(
        net,
        Images(found.original.pixels[rows], tuple(found.original.names[row] for row in rows.tolist())),
        found.fooling[rows],
        found.labels[rows],
        method=found.method,
        norm=found.norm,
        explainers=explainers,
        others=others,
        noises=noises,
        layer=layer,
        seed=seed,
    )
    return replace(diagnosis, attacked=int((~found.wrong_at_start).sum()), notes=found.notes)


def passes(noises: int) -> tuple[int, int]:
    """Images passed forward and backward for one image, at most, without explainers."""
    steps = int(math.log2(4 * REACH)) + 1 + HALVINGS
    return (1 + noises) * (2 + steps) + len(SHARES) + 1, RIVALS + 1


def between(
    net: Classifier,
    images: Images,
    ends: Tensor,
    before: Tensor,
    *,
    method: str = "",
    norm: str = "linf",
    explainers: Sequence[Explainer] = (),
    others: Mapping[str, Classifier] | None = None,
    noises: int = 4,
    layer: str | None = None,
    seed: int = 0,
) -> Diagnosis:
    """The diagnosis of images (M) and what they were changed to, `ends` (M, 3, H, W), whoever did it; see `diagnose`.

    `before` (M,) are the classes that they had, and no longer have.
    """
    if noises < 1:
        raise SpecError(f"expected at least one noise as a control, got {noises}")
    others = others or {}
    for name, other in others.items():
        if (other.classes, other.size) != (net.classes, net.size):
            raise InputError(
                f"expected models of {net.classes} classes and {net.size[0]} × {net.size[1]} pixels, as {net.name} has, got "
                f"{name} with {other.classes} and {other.size[0]} × {other.size[1]}"
            )
    pixels = net.check(images).cpu()
    with Meter(net.engine.device) as meter, net.session():
        every = torch.stack([ends, *(_noise(pixels, ends, seed, number) for number in range(noises))])
        flat = every.flatten(0, 1)
        clean = net.predict(pixels).cpu()
        answers = net.predict(flat).cpu().unflatten(0, every.shape[:2])
        after = answers[0].argmax(1)
        if not bool(_elsewhere(answers[0], before).all()):
            raise InputError(
                "expected changed images that the model gives another class than before, got some that it does not"
            )
        gap, slope, nearest = _slopes(net, pixels, clean, before, after, norm)
        ended = _gap(answers, before, after)
        along = torch.cat([torch.lerp(pixels, ends, share) for share in SHARES[1:-1]])
        middle = _gap(net.predict(along).cpu().unflatten(0, (-1, len(pixels))), before, after)
        layers, named = _followed(net), _named(net, layer)
        growth, units, means = _through(net, layers, named, pixels, every, clean, answers)
        moved = {explainer.spec: _moved(net, explainer, pixels, every, before) for explainer in explainers}
        distances = _crossings(net, pixels, every, before)
        transfer = {
            name: _elsewhere(other.predict(flat).unflatten(0, every.shape[:2]), before)
            for name, other in others.items()
        }
        fair = {name: other.predict(pixels).cpu().argmax(1) == before for name, other in others.items()}
    changes = every - pixels
    above = clean.scatter(1, before[:, None], -torch.inf) > clean.gather(1, after[:, None])
    return Diagnosis(
        method=method,
        images=images,
        attacked=len(images),
        names=net.labels,
        before=before,
        after=after,
        gaps=torch.cat([gap[None], middle, ended[:1]]),
        falls=gap - ended,
        linear=-(changes.double() * slope).flatten(2).sum(2).float(),
        lengths=changes.flatten(2).norm(dim=2),
        distances=distances,
        layers=("input", *layers, "logits"),
        growth=growth,
        spectrum=spectrum(changes),
        rank=above.sum(1),
        nearest=nearest,
        correlation={spec: each[0] for spec, each in moved.items()},
        mass={spec: each[1] for spec, each in moved.items()},
        layer=named or "",
        units=units,
        answers=means,
        transfer=transfer,
        fair=fair,
        cost=meter.cost,
        notes=(),
    )


def spectrum(changes: Tensor) -> Tensor:
    """The share (…, B) of the energy of changes (…, 3, H, W) in each of `BANDS` of spatial frequency."""
    height, width = changes.shape[-2:]
    down, across = torch.fft.fftfreq(height).double(), torch.fft.fftfreq(width).double()
    band = torch.bucketize(
        (down[:, None].square() + across.square()).sqrt(), torch.tensor(BANDS[1:-1]).double(), right=True
    )
    energy = torch.fft.fft2(changes.double()).abs().square().sum(-3).flatten(-2)
    shares = torch.zeros(*energy.shape[:-1], len(BANDS) - 1, dtype=torch.float64)
    shares.index_add_(-1, band.flatten(), energy)
    return (shares / shares.sum(-1, keepdim=True).clamp_min(1e-30)).float()


def _noise(pixels: Tensor, ends: Tensor, seed: int, number: int) -> Tensor:
    """The images `ends` with their change shuffled over the positions and its signs drawn anew, the same way for every image.

    Where a value would leave [0, 1] the other sign is taken, so that hardly anything is cut off.
    """
    draw = generator(seed, "why it fails", number)
    change = (ends - pixels).flatten(2)
    order = torch.randperm(change.shape[2], generator=draw)
    sign = torch.randint(0, 2, change.shape[1:], generator=draw) * 2 - 1
    noise = (change[:, :, order].abs() * sign).reshape(pixels.shape)
    outside = (pixels + noise < 0) | (pixels + noise > 1)
    return (pixels + torch.where(outside, -noise, noise)).clamp(0, 1)


def _gap(logits: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The logit of the class before less that of the class after (…, M), of logits (…, M, C)."""
    every = torch.arange(len(before))
    return logits[..., every, before] - logits[..., every, after]


def _slopes(
    net: Classifier, pixels: Tensor, clean: Tensor, before: Tensor, after: Tensor, norm: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The gap to the class after (M,), its gradient (M, 3, H, W), and the class (M,) whose boundary that places nearest.

    The boundary of class k lies at |f_y − f_k| / ‖∇f_y − ∇f_k‖, in the norm that is dual to the attack's.
    """
    best = clean.scatter(1, before[:, None], -torch.inf).topk(min(RIVALS, clean.shape[1] - 1)).indices
    rivals = torch.cat([after[:, None], best], 1)

    def score(logits: Tensor, where: slice) -> Tensor:
        own, others = before[where, None].to(logits.device), rivals[where].to(logits.device)
        return logits.gather(1, own) - logits.gather(1, others)

    gaps, gradients = (each.cpu().float() for each in net.gradient(pixels, score))
    flat = gradients.flatten(2)
    steepness = flat.abs().sum(2) if norm == "linf" else flat.norm(dim=2)
    nearest = rivals.gather(1, (gaps.abs() / steepness.clamp_min(1e-30)).argmin(1)[:, None])[:, 0]
    return gaps[:, 0], gradients[:, 0], nearest


def _crossings(net: Classifier, pixels: Tensor, ends: Tensor, before: Tensor) -> Tensor:
    """The ℓ₂ lengths (D, M) at which the decision first leaves the class before on the way to `ends` (D, M, …) and past them.

    Found by doubling from a quarter of the way on, then halving; what lies beyond black and white is cut off.
    """
    count = len(pixels)
    flat, of = ends.flatten(0, 1), torch.arange(count).repeat(len(ends))
    low, high = torch.zeros(len(flat)), torch.full((len(flat),), torch.inf)

    def at(rows: Tensor, shares: Tensor) -> Tensor:
        return torch.lerp(pixels[of[rows]], flat[rows], shares.view(-1, 1, 1, 1)).clamp(0, 1)

    def left(rows: Tensor, shares: Tensor) -> Tensor:
        return _elsewhere(net.predict(at(rows, shares)), before[of[rows]])

    rows, share = torch.arange(len(flat)), 1 / 4
    while share <= REACH and len(rows):
        gone = left(rows, torch.full((len(rows),), share))
        high[rows[gone]], low[rows[~gone]] = share, share
        rows, share = rows[~gone], 2 * share
    rows = high.isfinite().nonzero()[:, 0]
    for _ in range(HALVINGS if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        gone = left(rows, middle)
        high[rows[gone]], low[rows[~gone]] = middle[gone], middle[~gone]
    lengths = torch.full((len(flat),), torch.inf)
    if len(rows):
        lengths[rows] = (at(rows, high[rows]) - pixels[of[rows]]).flatten(1).norm(dim=1)
    return lengths.unflatten(0, (-1, count))


def _elsewhere(logits: Tensor, before: Tensor) -> Tensor:
    """Whether logits (..., C) name a class, and not the one before: NaN names none."""
    classes = predicted(logits.cpu())
    return (classes != before) & (classes >= 0)


def _followed(net: Classifier) -> tuple[str, ...]:
    """Addresses of at most `LAYERS` modules from shallow to deep: the outermost ones, and those just inside them."""
    outputs = [each for each in trace(net) if not each.op and each.address]
    depth = min((each.address.count(".") for each in outputs), default=0) + 1
    chosen: dict[str, str] = {}  # modules that hand on one result are one; the innermost ran first
    for each in outputs:
        if each.address.count(".") <= depth:
            chosen[each.made_by or each.address] = each.address
    addresses = list(chosen.values())
    count = min(LAYERS, len(addresses))
    return tuple(addresses[round(k * (len(addresses) - 1) / max(count - 1, 1))] for k in range(count))


def _named(net: Classifier, layer: str | None) -> str | None:
    if layer is not None:
        return find(net, layer)
    try:
        return last_map(net)
    except LayerError:
        return None


def _through(
    net: Classifier,
    layers: Sequence[str],
    named: str | None,
    pixels: Tensor,
    every: Tensor,
    clean: Tensor,
    answers: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Growth (L, D, M) of the changes through the layers, units (M, U) that change most, and their means (M, U, 1 + D).

    Image by image, each with its changes in one pass, so that a layer's answers are held for one image alone.
    """
    growth = torch.zeros(len(layers) + 2, *every.shape[:2])
    units, means = [], []
    wanted = dict.fromkeys([*layers, *([named] if named else [])])
    for i in range(len(pixels)):
        batch = torch.cat([pixels[i : i + 1], every[:, i]])
        kept = capture(net, batch, wanted) if wanted else {}
        growth[0, :, i] = _relative(batch)
        for place, layer in enumerate(layers, 1):
            growth[place, :, i] = _relative(kept[layer])
        growth[-1, :, i] = _relative(torch.cat([clean[i : i + 1], answers[:, i]]))
        if named:
            maps = kept[named].float().flatten(2) if kept[named].ndim > 2 else kept[named].float()[..., None]
            change = (maps[1] - maps[0]).abs().mean(1)
            most = change.topk(min(UNITS, len(change))).indices
            units.append(most.cpu())
            means.append(maps[:, most].mean(2).T.cpu())
    none = torch.zeros(len(pixels), 0, dtype=torch.long)
    if not named:
        return growth, none, torch.zeros(len(pixels), 0, len(every) + 1)
    return growth, torch.stack(units), torch.stack(means)


def _relative(answers: Tensor) -> Tensor:
    """How long the change of each answer (1 + D, …) from the first is, over the first's length (D,)."""
    flat = answers.flatten(1).double()
    return ((flat[1:] - flat[0]).norm(dim=1) / flat[0].norm().clamp_min(1e-30)).float().cpu()


def _moved(
    net: Classifier, explainer: Explainer, pixels: Tensor, every: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    """Rank correlation with the map before and share of its mass that lies elsewhere (D, M), of the class before."""
    started = explainer(net, pixels, before).values
    ended = explainer(net, every.flatten(0, 1), before.repeat(len(every))).values.unflatten(0, every.shape[:2])
    correlation = torch.zeros(every.shape[:2])
    for i in range(len(pixels)):
        maps = [started[i], *ended[:, i]]
        correlation[:, i] = correlated(maps, [explainer.default_sign] * len(maps))[0, 1:].float()
    first, second = _mass(started), _mass(ended.flatten(0, 1)).unflatten(0, every.shape[:2])
    return correlation, (first - second).abs().sum((2, 3)) / 2


def _mass(values: Tensor) -> Tensor:
    """Where the mass of maps (N, C, h, w) lies: absolute values on a grid, of sum one."""
    cells = on_grid(flatten(values, "absolute"))
    return cells / cells.sum((1, 2), keepdim=True)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def paragraph(rows: Sequence[Mapping[str, Any]], attacked: int, fooled: int | None = None) -> str:
    """What the rows of `Diagnosis.rows` say together, `attacked` being the images that were right at the start.

    Numbers are medians over the images, noise's over images and directions. `fooled` are the images that the attack fooled,
    where the rows are not of all of them.
    """
    if not rows:
        return f"The attack fooled none of {attacked} images, so there is no failure to look into."
    count = len(rows)
    said = []
    if attacked > 1:
        if fooled is None or fooled == count:
            those = "that one" if count == 1 else f"those {count}, numbers being medians"
        else:
            those = "the one looked into" if count == 1 else f"the {count} looked into, numbers being medians"
        said.append(f"The attack fooled {fooled or count} of {attacked} images; what follows is of {those}.")
    fall = _number(_medians(rows, "falls", 0))
    noise = _number(median(abs(each) for row in rows for each in row["falls"][1:]))
    said.append(
        f"Under the change the logit of the class before falls by {fall} against that of the class "
        f"after; noise of the same size moves it by {noise}. The gradient at the photograph alone foresees "
        f"{_percent(median(row['explained'] for row in rows))} of the fall, and a straight line fits the fall with R² = "
        f"{median(row['straightness'] for row in rows):.2f}.".replace("-", "−")
    )
    reached = [row for row in rows if row["distances"][0]]
    if reached:
        own = median(row["distances"][0] for row in reached)
        times = [
            math.inf if far is None else far / row["distances"][0] for row in reached for far in row["distances"][1:]
        ]
        beyond = sum(map(math.isinf, times))
        far = median_low(times) if 2 * beyond == len(times) else median(times)  # half of them is not most
        there = (
            "not reached along most noise" if math.isinf(far) else f"reached along noise at {_number(far)} times that"
        )
        most = f" (on {beyond} of {len(times)} directions not within {REACH} times the change)" if beyond else ""
        said.append(
            f"Along the change the decision flips at {_number(255 * own)}/255 in root mean square; another decision is "
            f"{there}{most}."
        )
    share, control = ([_medians(rows, "growth", layer, place) for layer in (0, -1)] for place in (0, 1))
    said.append(
        f"From the pixels to the logits the change goes from {_percent(share[0])} to {_percent(share[1])} of the length of "
        f"what it changes, noise from {_percent(control[0])} to {_percent(control[1])}."
    )
    half = len(BANDS) // 2
    low = [median(sum(row["spectrum"][0][:half]) for row in rows)]
    low.append(median(sum(each[:half]) for row in rows for each in row["spectrum"][1:]))
    said.append(
        f"{_percent(low[0])} of its energy lies below a quarter of a cycle a pixel, of noise's {_percent(low[1])}."
    )
    second, near = sum(row["rank"] == 0 for row in rows), sum(row["nearest"] == row["after"] for row in rows)
    if count == 1:
        named = "was the runner-up" if second else f"was number {rows[0]['rank'] + 2} before"
        said.append(
            f"{rows[0]['after']} {named}; of at most {RIVALS + 1} classes looked at, {'it' if near else rows[0]['nearest']} is "
            "the one whose boundary the gradient places nearest."
        )
    else:
        said.append(
            f"The class after was the runner-up on {second} of {count}, and on {near} the one, of at most {RIVALS + 1} looked "
            "at, whose boundary the gradient places nearest."
        )
    for spec in rows[0]["moved"]:
        # a map that is zero everywhere has neither order nor mass
        moved = [each for row in rows if None not in (each := row["moved"][spec])["correlation"] + each["mass"]]
        if not moved:
            continue
        kept, gone = ([_medians(moved, key, place) for place in (0, 1)] for key in ("correlation", "mass"))
        some = "" if len(moved) == count else f" (on {len(moved)} of them)"
        rho = [f"{each:.2f}".replace("-", "−") for each in kept]
        said.append(
            f"On {GRID} × {GRID} cells the {spec} map of the class before keeps a rank correlation of {rho[0]} with its own "
            f"before the change (noise: {rho[1]}), and {_percent(gone[0])} of its mass lies elsewhere "
            f"(noise: {_percent(gone[1])}){some}."
        )
    for name in dict.fromkeys(name for row in rows for name in row["transfer"]):
        fair = [row["transfer"][name] for row in rows if name in row["transfer"]]
        directions = [each for row in fair for each in row[1:]]
        said.append(
            f"{name}, right on {len(fair)} of these before, is fooled by {sum(row[0] for row in fair)} of the changes, and by "
            f"{sum(directions)} of {len(directions)} noises."
        )
    return " ".join(said)


def _medians(rows: Sequence[Mapping[str, Any]], key: str, *path: int) -> float:
    """The median over images of a number that stands at `path`; a last place of 1 means every noise."""
    found = []
    for row in rows:
        held = row[key]
        for place in path[:-1]:
            held = held[place]
        found += held[:1] if path[-1] == 0 else held[1:]
    return median(found)


def _number(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if abs(share) < 0.1 else f"{100 * share:.0f} %"
