"""The gradient with respect to a layer's output: one pass, cut where the layer answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from seewhy.classifier import Classifier, Lens
from seewhy.engine import count
from seewhy.errors import LayerError, NothingToExplain
from seewhy.lens.capture import Cut, find, trace

Score = Callable[[Tensor, slice], Tensor]


def maps_at(net: Classifier, layer: str) -> str:
    """The address of a layer that answers maps (N, C, h, w); raises `LayerError` for any other."""
    address = find(net, layer)
    seen = next(each for each in trace(net) if each.address == address)
    if len(seen.shape) != 4 or not seen.channels_first:
        last = "" if seen.channels_first else ", its channels last"
        raise LayerError(f"this needs a layer that answers maps (N, C, H, W); {layer} answers {seen.shape}{last}")
    return layer


def at_layer(
    net: Classifier,
    pixels: Tensor,
    score: Score,
    layer: str,
    make: Callable[[Tensor, Tensor], Tensor],
    lens: Lens | None = None,
) -> Tensor:
    """What `make(maps, gradient)` makes of a layer's maps and the gradient of a score with respect to them.

    One forward pass an image and the backward pass of what follows the layer, in the engine's batches. `lens` sees the
    operations as in `Classifier.logits`. Raises `LayerError` where the layer does not answer maps, `NothingToExplain`
    where the score does not depend on it.
    """
    layer = maps_at(net, layer)

    def run(part: Tensor, where: slice) -> Tensor:
        cut = Cut(net.module, layer)
        with torch.enable_grad():
            scored = score(net.logits(part, lambda: _both(lens, cut)), where)
        if cut.leaf is None or not scored.requires_grad:
            raise NothingToExplain(f"the logits of {net.name} do not depend on {layer}")
        (gradient,) = torch.autograd.grad(scored.sum(), cut.leaf)
        count(backward=len(part))
        return make(cut.leaf.detach(), gradient)

    return net.engine.map(run, pixels, "gradient")


@contextmanager
def _both(lens: Lens | None, cut: Cut) -> Iterator[None]:
    with lens() if lens else nullcontext(), cut:  # the cut inside, so that the lens sees nothing of it
        yield
