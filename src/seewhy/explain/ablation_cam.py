"""Ablation-CAM: maps weighed by what the logit loses without them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.cam import NOTHING, fused, layers, number_of, weighed
from seewhy.lens.capture import capture, trace
from seewhy.lens.replay import Kept, replay


@dataclass(frozen=True)
class AblationCAM(Explainer):
    """Ablation-CAM: max(0, Σ_k w_k A_k), w_k = f_c(x) − f_c(x with A_k set to zero): what the logit loses without map k.

    Exact: each channel is set to zero by itself; but only what follows the layer is computed, from kept activations, and a
    map that is zero already needs no pass. `layer`: one or several joined by `+`, as for grad-cam. What passes the
    layer by, such as a residual way around it, stays. Values (N, 1, h, w), of the layer's size, at least 0, in logits times
    the maps' unit. Needs no gradient.
    Cost: 2 forward passes, and the part of one that follows the layer for each channel, an image and layer; all targets
    share them. (They are counted as whole passes.)
    Limits: channels that stand in for one another all seem to matter little; a zero may be a value that never occurs.
    Deviation: the paper divides w_k by f_c(x), which only scales the map, and where the logit is negative turns it over.
    Source: Desai & Ramaswamy 2020, Ablation-CAM, WACV, equations 4 and 5.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> found = AblationCAM()(Classifier(module, size=8), torch.rand(1, 3, 8, 8))
    >>> found.layer, found.cost.backward
    ('1', 0)
    """

    layer: str | None = None

    name = "ablation-cam"
    shows = "Where those of the last feature maps respond without which the class's logit falls."
    reading = "As Grad-CAM, without a gradient, so that saturation does not hide a map. What speaks against is cut off."
    source = "Desai & Ramaswamy 2020, Ablation-CAM, WACV"
    default_sign = "positive"
    nothing = NOTHING

    @property
    def passes(self) -> tuple[int, int]:
        # a bound for layers of up to 2,048 channels; most of them are parts of a pass only
        return number_of(self.layer) * (2 + 2048), 0

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        chosen = layers(net, self.layer)
        each = [self._look(net, pixels, layer, questions) for layer in chosen]
        return [Map(fused([maps[:, i] for maps in each]), layer="+".join(chosen)) for i in range(len(questions))]

    def _look(self, net: Classifier, pixels: Tensor, layer: str, questions: Sequence[Question]) -> Tensor:
        """The maps (N, questions, 1, h, w) of one layer."""
        together = _together(net, layer)
        rows = []
        for index, image in enumerate(pixels.split(1)):
            kept = Kept(net, image, at=layer)
            where = slice(index, index + 1)
            whole = torch.cat([question(kept.logits, where) for question in questions]).float()
            targets = torch.cat([question.target[where] for question in questions])
            maps = capture(net, image, [layer])[layer]
            live = (maps != 0).any(3).any(2)[0].nonzero()[:, 0]
            weights = maps.new_zeros(len(questions), maps.shape[1], 1, 1)
            if len(live):
                without = self._without(kept, maps, layer, live, targets, together)
                weights[:, live, 0, 0] = (whole - without).T.to(weights)
            rows.append(weighed(weights, maps))
        return torch.stack(rows)

    def _without(self, kept: Kept, maps: Tensor, layer: str, live: Tensor, targets: Tensor, together: int) -> Tensor:
        """The targets' logits (channels, questions) without each of the live channels."""

        def run(part: Tensor, _: slice) -> Tensor:
            channels = part.flatten()
            value = maps.repeat(len(channels), 1, 1, 1)
            value[torch.arange(len(channels)), channels] = 0
            return replay(kept, at=layer, value=value)[:, targets].float().unflatten(0, part.shape)

        groups = -(-len(live) // together)
        padded = torch.cat([live, live[-1:].expand(groups * together - len(live))])
        with torch.no_grad():
            found = kept.net.engine.map(run, padded.view(groups, together), f"replay at {layer}")
        return found.flatten(0, 1)[: len(live)]


def _together(net: Classifier, layer: str) -> int:
    """How many replays take about the memory of one pass: by the sizes of what follows the layer, the layer included."""
    seen = [each for each in trace(net) if each.op or each.address == layer]
    start = next(position for position, each in enumerate(seen) if each.address == layer)
    sizes = [math.prod(each.shape) for each in seen]
    return max(1, sum(sizes) // sum(sizes[start:]))
