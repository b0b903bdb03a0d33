"""The filters of a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True)
class FilterGrid:
    """The filters of one convolution: `weights` (O, I, h, w), `norms` (O,) and the order in which to show them.

    `tiles` (T, h, w, 3) or (T, h, w) are ready to draw, all on one scale: ±`scale` is white and black (or red and blue), 0 is
    mid-grey. In colour for a layer on pixels; else one tile for each input slice or for the norm over the inputs.
    """

    method: str
    layer: str
    weights: Tensor
    norms: Tensor
    order: Tensor
    tiles: Tensor
    titles: tuple[str, ...]
    scale: float
    view: str
    cost: Cost
    notes: tuple[str, ...]

    def plot(self) -> Figure:
        """The grid, with its scale."""
        from seewhy.report.figures import filters

        return filters(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


class _Convolutions(Lens):
    """Keeps the weights of every convolution that runs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.weights: dict[str, Tensor] = {}

    def operation(self, call: Call) -> Any:
        if call.op == "conv2d":
            self.weights[call.address] = call.arguments["weight"].detach().float().cpu()
        return call.run()


def convolutions(net: Classifier) -> dict[str, Tensor]:
    """The weights (O, I, h, w) of every convolution, by address, in the order in which they run. One forward pass."""
    lens = _Convolutions(net.module)
    with torch.no_grad():
        net.logits(torch.full((1, 3, *net.size), 0.5), lambda: lens)
    return lens.weights


@dataclass(frozen=True)
class Filters(Look):
    """The weights of a convolution as pictures, on one common scale.

    `layer`: a module or an address (None: the first convolution). `view`: "colour" (a layer on pixels), "slices" (one tile
    for each input of the strongest filters) or "norm" (root of the sum of squares over the inputs); None chooses colour
    where it can, else norm. `order`: "index" or "norm" (strongest first). `limit`: how many tiles at most.
    The first layer's weights are those on normalised pixels. Cost: one forward pass, to find the convolutions.
    """

    layer: str | None = None
    view: str | None = None
    order: str = "index"
    limit: int = 256

    name = "filters"
    shows = "What the filters of a convolution are tuned to."
    reading = (
        "In the first layer: edges, colours, blobs. Grey means zero. Smooth and varied filters are well trained; noise or "
        "empty ones are unused. Deeper filters act on maps, not on pixels, and show little by themselves."
    )
    source = "Krizhevsky, Sutskever & Hinton 2012, figure 3"

    def __post_init__(self) -> None:
        if self.view not in (None, "colour", "slices", "norm") or self.order not in ("index", "norm") or self.limit < 1:
            raise SpecError(
                "expected view colour, slices or norm, order index or norm, and limit ≥ 1, "
                f"got view={self.view}, order={self.order}, limit={self.limit}"
            )

    def __call__(self, net: Classifier, images: Tensor | Images | None = None) -> FilterGrid:
        with Meter() as meter:
            known = convolutions(net)
        address = self._find(net, known)
        weights = known[address]
        view = self.view or ("colour" if weights.shape[1] == 3 else "norm")
        if view == "colour" and weights.shape[1] != 3:
            raise LayerError(
                f"{address} works on {weights.shape[1]} maps, not on colours; use view=slices or view=norm"
            )
        norms = weights.flatten(1).norm(dim=1)
        order = norms.argsort(descending=True) if self.order == "norm" else torch.arange(len(weights))
        tiles, titles = _tiles(weights, order, view, self.limit)
        scale = float(tiles.abs().max()) or 1.0
        notes = []
        dead = int((norms <= 1e-6 * norms.max()).sum())
        if dead:
            notes.append(f"{dead} of {len(norms)} filters are zero")
        shown = len(tiles)
        total = weights.shape[0] * (weights.shape[1] if view == "slices" else 1)
        if shown < total:
            notes.append(f"{shown} of {total} tiles are shown")
        return FilterGrid(
            self.spec, address, weights, norms, order, tiles, titles, scale, view, meter.cost, tuple(notes)
        )

    def _find(self, net: Classifier, known: dict[str, Tensor]) -> str:
        if not known:
            raise LayerError(f"{net.name} has no convolution on images")
        if self.layer is None:
            return next(iter(known))
        for address in known:
            path = address.partition(":")[0]
            if self.layer in (address, path) or path.startswith(self.layer + "."):
                return address
        raise LayerError(f'{net.name} has no convolution "{self.layer}"{nearest(self.layer, known)}')


def _tiles(weights: Tensor, order: Tensor, view: str, limit: int) -> tuple[Tensor, tuple[str, ...]]:
    chosen = order[:limit]
    if view == "colour":
        return weights[chosen].permute(0, 2, 3, 1), tuple(f"filter {i}" for i in chosen.tolist())
    if view == "norm":
        return weights[chosen].norm(dim=1), tuple(f"filter {i}" for i in chosen.tolist())
    inputs = weights.shape[1]
    rows = order[: max(1, limit // inputs)]
    titles = tuple(f"filter {i}, input {j}" for i in rows.tolist() for j in range(inputs))
    return weights[rows].flatten(0, 1)[:limit], titles[:limit]
