"""Score-CAM: maps weighed by the logit of what they let through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.cam import fused, layers, number_of, weighed
from seewhy.lens.capture import capture


@dataclass(frozen=True)
class ScoreCAM(Explainer):
    """Score-CAM: max(0, Σ_k α_k A_k), α = softmax over k of f_c(x ∘ H_k), H_k being the map A_k enlarged and scaled to [0, 1].

    The image is masked as the network gets it, normalised: where H_k is 0 the model's mean colour shows. A map that is
    constant has an empty mask: it gets the weight zero and no pass. The paper's baseline f_c(0) cancels out in the softmax.
    `layer`: one or several joined by `+`, as for grad-cam. Values (N, 1, h, w), of the layer's size, in the maps' unit.
    Needs no gradient. Bears bfloat16, if the engine is allowed it.
    Cost: 2 forward passes and one for each channel that is not constant, an image and layer; all targets share them.
    Limits: the softmax runs over logits, so that where they differ by much a single map takes all, where they hardly differ
    the map is nearly the mean of all maps, whatever the class. A map that responds everywhere masks nothing.
    Source: Wang et al. 2020, arXiv 1910.01279, equations 6 to 8 and algorithm 1.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> found = ScoreCAM()(Classifier(module, size=8), torch.rand(1, 3, 8, 8))
    >>> found.cost.forward <= 2 + 4 + 1, found.cost.backward
    (True, 0)
    """

    layer: str | None = None

    name = "score-cam"
    shows = (
        "Where those of the last feature maps respond that, laid over the image as a mask, keep the class's logit high."
    )
    reading = "As Grad-CAM, without a gradient. Where the logits of the masked images hardly differ it shows all that is seen."
    source = "Wang et al. 2020, arXiv 1910.01279"
    default_sign = "positive"
    bears_bf16 = True

    @property
    def passes(self) -> tuple[int, int]:
        # networks' last maps have some thousands of channels at most
        return 1 + number_of(self.layer) * (1 + 2048), 0

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        chosen = layers(net, self.layer)
        for question in questions:
            question.settle(net, pixels)
        targets = torch.stack([question.target for question in questions], 1)  # (N, questions)
        each = [self._look(net, pixels, layer, targets) for layer in chosen]
        return [Map(fused([maps[:, i] for maps in each]), layer="+".join(chosen)) for i in range(len(questions))]

    def _look(self, net: Classifier, pixels: Tensor, layer: str, targets: Tensor) -> Tensor:
        """The maps (N, questions, 1, h, w) of one layer."""
        rows = []
        for image, target in zip(pixels.split(1), targets, strict=True):
            maps = capture(net, image, [layer])[layer].float()
            live = (maps.amax((0, 2, 3)) > maps.amin((0, 2, 3))).nonzero()[:, 0]
            weights = maps.new_zeros(len(target), maps.shape[1], 1, 1)
            if len(live):
                scores = self._scores(net, image, maps[0, live], target)
                weights[:, live, 0, 0] = scores.T.softmax(1).to(weights)
            rows.append(weighed(weights, maps))
        return torch.stack(rows)

    def _scores(self, net: Classifier, image: Tensor, maps: Tensor, target: Tensor) -> Tensor:
        """The targets' logits (K, questions) of an image under each of K maps, as many masks at a time as the engine runs."""
        mean = image.new_tensor(net.mean).view(1, 3, 1, 1)

        def run(part: Tensor, _: slice) -> Tensor:
            masks = F.interpolate(part[:, None], image.shape[2:], mode="bilinear", align_corners=False)
            low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            masks = ((masks - low) / torch.where(high > low, high - low, 1)).to(image)
            return net.logits(torch.lerp(mean, image, masks))[:, target].float()

        with torch.no_grad(), net.engine.half():
            return net.engine.map(run, maps, "forward")
