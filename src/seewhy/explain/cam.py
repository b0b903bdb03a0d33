"""Class activation maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.engine import count
from seewhy.errors import LayerError, NothingToExplain
from seewhy.explain.base import Explainer, Map, Question
from seewhy.lens.capture import Cut, find, last_map


@dataclass(frozen=True)
class GradCAM(Explainer):
    """Grad-CAM: max(0, Σ_k w_k A_k), w_k being the mean over positions of ∂f_c/∂A_k, A the maps of `layer`.

    `layer` is an address as `seewhy model` prints it; by default the last spatial map before the network pools it away,
    found by the lens and named in the result. Values (N, 1, h, w), of the layer's size, at least 0, in logits per unit of
    the layer's mean; enlarging them is left to `heatmap`. Cost: one forward pass and the backward pass of what
    follows the layer; once a network one more forward pass, to find the layer.
    Source: Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2.
    """

    layer: str | None = None

    name = "grad-cam"
    shows = "Where the last feature maps respond that raise the class's logit."
    reading = "Coarse but dependable: the region that speaks for the class. What speaks against it is cut off."
    source = "Selvaraju et al. 2017, arXiv 1610.02391"
    default_sign = "positive"

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        layer = find(net, self.layer) if self.layer else last_map(net)

        def run(part: Tensor, where: slice) -> Tensor:
            maps, gradient = _maps_and_gradient(net, part, where, layer, question)
            weights = gradient.mean((2, 3), keepdim=True)
            return (weights * maps).sum(1, keepdim=True).clamp_min(0)

        return Map(net.engine.map(run, pixels, "gradient"), layer=layer)


def _maps_and_gradient(
    net: Classifier, part: Tensor, where: slice, layer: str, question: Question
) -> tuple[Tensor, Tensor]:
    """The maps (n, C, h, w) of a layer, and the gradient of the asked logits with respect to them."""
    cut = Cut(net.module, layer)
    with torch.enable_grad():
        score = question(net.logits(part, lambda: cut), where)
    maps = cut.leaf
    if maps is None or maps.ndim != 4:
        shape = None if maps is None else tuple(maps.shape)
        raise LayerError(f"grad-cam needs a layer that answers maps (N, C, H, W); {layer} answers {shape}")
    if not score.requires_grad:
        raise NothingToExplain(f"the logits of {net.name} do not depend on {layer}")
    (gradient,) = torch.autograd.grad(score.sum(), maps)
    count(backward=len(part))
    return maps.detach(), gradient
