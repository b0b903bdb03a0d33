"""The filters of a convolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Cost, Meter
from seewhy.errors import LayerError, SpecError, nearest
from seewhy.lens.lens import Lens
from seewhy.lens.ops import Call
from seewhy.look.base import Look
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


#: up to how many filters the order by similarity is the best of its tree's, which takes time by their cube
_FEW = 600

VIEWS, ORDERS = ("colour", "slices", "norm"), ("index", "norm", "similarity")


@dataclass(frozen=True)
class FilterGrid:
    """The filters of one convolution: `weights` (O, I, h, w), `norms` (O,) and the order in which to show them.

    `tiles` (T, h, w, 3) or (T, h, w) are ready to draw, all on one scale: ±`scale` is white and black, 0 is mid-grey. In
    colour for a layer on pixels; else one tile for each input slice or for the norm over the inputs. `numbers` (T,) are the
    filters that the tiles are of, `groups` into how many parts the layer splits its inputs. `dead` (D,) are the filters
    that are as good as zero, `alike` (P, 2) the pairs that are nearly the same, the most alike first, and `cosines` (P,)
    how alike.
    """

    method: str
    layer: str
    weights: Tensor
    groups: int
    norms: Tensor
    order: Tensor
    tiles: Tensor
    numbers: Tensor
    titles: tuple[str, ...]
    scale: float
    view: str
    dead: Tensor
    alike: Tensor
    cosines: Tensor
    cost: Cost
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What was found, as plain values."""
        pairs = zip(self.alike.tolist(), self.cosines.tolist(), strict=True)
        return {
            "filters": len(self.norms),
            "shape": list(self.weights.shape[1:]),
            "groups": self.groups,
            "scale": self.scale,
            "dead": self.dead.tolist(),
            "alike": [{"filters": pair, "cosine": cosine} for pair, cosine in pairs],
        }

    def plot(self) -> Figure:
        """The grid, with its scale."""
        from seewhy.report.learned import filters

        return filters(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


class _Convolutions(Lens):
    """Keeps the weights of every convolution that runs, and into how many groups it splits its inputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.found: dict[str, tuple[Tensor, int]] = {}

    def operation(self, call: Call) -> Any:
        if call.op == "conv2d":
            given = call.arguments
            self.found[call.address] = (given["weight"].detach().float().cpu(), int(given.get("groups") or 1))
        return call.run()


def convolutions(net: Classifier) -> dict[str, Tensor]:
    """The weights (O, I, h, w) of every convolution, by address, in the order in which they run. One forward pass."""
    return {address: weight for address, (weight, _) in _all(net).items()}


def _all(net: Classifier) -> dict[str, tuple[Tensor, int]]:
    lens = _Convolutions(net.module)
    with torch.no_grad():
        net.logits(torch.full((1, 3, *net.size), 0.5), lambda: lens)
    return lens.found


@dataclass(frozen=True)
class Filters(Look):
    """w_o, the weights of each filter o of a convolution, as pictures on one scale: −max|w| is black, 0 grey, max|w| white.

    `layer`: a module or an address (none: the first convolution). `view`: "colour" (a layer on pixels), "slices" (one tile
    for each input of a filter: the sign is seen) or "norm" (root of the sum of squares over the inputs); none chooses colour
    where it can, slices where a filter has one input (depthwise), else norm. `order`: "index", "norm" (strongest first) or
    "similarity" (filters that are alike side by side: the leaves of a tree of average cosine distances). `limit`: how many
    tiles at most.

    A filter is called dead if its norm is below `dead` times the layer's median, and two that are not dead are called nearly
    the same if their cosine w_i·w_j / ‖w_i‖‖w_j‖ is at least `alike`; filters of one single weight have no shape to compare.
    Answers a `FilterGrid`: weights (O, I, h, w) in the units of normalised pixels (first layer) or of the maps before it.

    Raises `LayerError` for a layer that is no convolution, or a view that it has not.
    Cost: one forward pass, to find the convolutions; comparing O filters takes O² products.
    Limits: filters of deeper layers act on maps, and show little by themselves; a normalisation that follows may silence a
    filter that is strong, or make a weak one loud.
    Source: Krizhevsky, Sutskever & Hinton 2012, figure 3; order of the leaves: Bar-Joseph, Gifford & Jaakkola 2001.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> found = Filters(order="similarity")(net)
    >>> found.tiles.shape, sorted(found.order.tolist())
    (torch.Size([4, 3, 3, 3]), [0, 1, 2, 3])
    """

    layer: str | None = None
    view: str | None = None
    order: str = "index"
    limit: int = 256
    dead: float = 0.01
    alike: float = 0.95

    name = "filters"
    shows = "What the filters of a convolution are tuned to."
    reading = (
        "In the first layer: edges, colours, blobs. Grey means zero. Smooth and varied filters are well trained; noise or "
        "empty ones are unused. Deeper filters act on maps, not on pixels, and show little by themselves."
    )
    source = "Krizhevsky, Sutskever & Hinton 2012, figure 3"

    def __post_init__(self) -> None:
        if self.view not in (None, *VIEWS) or self.order not in ORDERS or self.limit < 1:
            raise SpecError(
                f"expected view {', '.join(VIEWS)}, order {', '.join(ORDERS)}, and limit ≥ 1, "
                f"got view={self.view}, order={self.order}, limit={self.limit}"
            )
        if not (0 <= self.dead < 1 and 0 < self.alike <= 1):
            raise SpecError(
                f"expected dead from 0 to below 1 and alike above 0 to 1, got dead={self.dead:g}, alike={self.alike:g}"
            )

    def check(self, net: Classifier) -> None:
        self._chosen(net)

    def _chosen(self, net: Classifier) -> tuple[str, Tensor, int, str]:
        """The address of the convolution, its weights and groups, and the view that it has."""
        known = _all(net)
        address = self._find(net, known)
        weights, groups = known[address]
        inputs = weights.shape[1]
        on_pixels = inputs == 3 and groups == 1
        view = self.view or ("colour" if on_pixels else "slices" if inputs == 1 else "norm")
        if view == "colour" and not on_pixels:
            raise LayerError(f"{address} works on {inputs * groups} maps, not on colours; use view=slices or view=norm")
        return address, weights, groups, view

    def __call__(self, net: Classifier, images: Tensor | Images | None = None) -> FilterGrid:
        with Meter(net.engine.device) as meter:
            address, weights, groups, view = self._chosen(net)
        norms = weights.flatten(1).norm(dim=1)
        dead = (norms <= self.dead * norms.median()).nonzero()[:, 0]
        pairs, cosines = _alike(weights, dead, self.alike)
        order = _ordered(self.order, weights, norms)
        tiles, numbers, titles = _tiles(weights, groups, order, view, self.limit)
        return FilterGrid(
            method=self.spec,
            layer=address,
            weights=weights,
            groups=groups,
            norms=norms,
            order=order,
            tiles=tiles,
            numbers=numbers,
            titles=titles,
            scale=float(tiles.abs().max()) or 1.0,
            view=view,
            dead=dead,
            alike=pairs,
            cosines=cosines,
            cost=meter.cost,
            notes=tuple(self._notes(weights, tiles, view, dead, pairs, cosines)),
        )

    def _notes(
        self, weights: Tensor, tiles: Tensor, view: str, dead: Tensor, pairs: Tensor, cosines: Tensor
    ) -> Iterator[str]:
        from seewhy.report.words import percent, some

        count = len(weights)
        if len(dead):
            which = some([str(each) for each in dead.tolist()], 12)
            yield (
                f"{len(dead)} of {count} filters are dead, their norm at most {percent(self.dead)} of the median: {which}"
            )
        if len(pairs):
            told = [f"{i} and {j} ({c:.3f})" for (i, j), c in zip(pairs.tolist(), cosines.tolist(), strict=True)]
            noun = "pair is" if len(pairs) == 1 else "pairs are"
            yield f"{len(pairs)} {noun} nearly the same, their cosine at least {self.alike:g}: {some(told, 6)}"
        if weights[0].numel() == 1 and count > 1:
            yield "each filter is a single weight, so they are not compared"
        total = count * (weights.shape[1] if view == "slices" else 1)
        if len(tiles) < total:
            yield f"{len(tiles)} of {total} tiles are shown"

    def _find(self, net: Classifier, known: Mapping[str, object]) -> str:
        if not known:
            raise LayerError(f"{net.name} has no convolution on images")
        if self.layer is None:
            return next(iter(known))
        for address in known:
            path = address.partition(":")[0]
            if self.layer in (address, path) or path.startswith(self.layer + "."):
                return address
        from seewhy.report.words import some

        hint = nearest(self.layer, known) or f"; it has {some(list(known), 3)}"
        raise LayerError(f'{net.name} has no convolution "{self.layer}"{hint}')


def _alike(weights: Tensor, dead: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Pairs (P, 2) of living filters whose cosine is at least so much, the most alike first, and their cosines (P,)."""
    flat = F.normalize(weights.flatten(1), dim=1)
    flat[dead] = 0
    cosine = (flat @ flat.T).triu(1)
    pairs = (cosine >= least).nonzero() if flat.shape[1] > 1 else torch.zeros(0, 2, dtype=torch.int64)
    found = cosine[pairs[:, 0], pairs[:, 1]].clamp_max(1)
    order = found.argsort(descending=True, stable=True)
    return pairs[order], found[order]


def _ordered(order: str, weights: Tensor, norms: Tensor) -> Tensor:
    if order == "norm":
        return norms.argsort(descending=True, stable=True)
    if order == "index" or len(weights) < 3:
        return torch.arange(len(weights))
    from scipy.cluster.hierarchy import leaves_list, linkage  # type: ignore[import-untyped]

    flat = F.normalize(weights.flatten(1).double(), dim=1)
    apart = (1 - flat @ flat.T).clamp_min(0)
    upper = torch.triu_indices(len(flat), len(flat), 1)
    tree = linkage(apart[upper[0], upper[1]].numpy(), "average", optimal_ordering=len(flat) <= _FEW)
    return torch.from_numpy(leaves_list(tree).astype("int64"))


def _tiles(
    weights: Tensor, groups: int, order: Tensor, view: str, limit: int
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Tiles, the filter of each, and what each is."""
    chosen = order[:limit]
    if view != "slices":
        tiles = weights[chosen].permute(0, 2, 3, 1) if view == "colour" else weights[chosen].norm(dim=1)
        return tiles, chosen, tuple(f"filter {i}" for i in chosen.tolist())
    inputs = weights.shape[1]
    rows = order[: -(-limit // inputs)]
    each = len(weights) // groups  # of its own inputs, the filters of a group see those of the group
    titles = tuple(f"filter {i}, input {i // each * inputs + j}" for i in rows.tolist() for j in range(inputs))
    return weights[rows].flatten(0, 1)[:limit], rows.repeat_interleave(inputs)[:limit], titles[:limit]
