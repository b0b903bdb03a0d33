"""Guided Grad-CAM: guided backpropagation where Grad-CAM looks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.explain.backward import GuidedBackprop
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.cam import GradCAM, number_of


@dataclass(frozen=True)
class GuidedGradCAM(Explainer):
    """Guided Grad-CAM: guided backpropagation × Grad-CAM, the latter enlarged to the image bilinearly.

    `layer`: Grad-CAM's, one or several joined by `+`. Values (N, 3, H, W), signed, in logits per unit of pixel times
    Grad-CAM's unit. Cost: 2 forward passes, one backward pass and one of what follows the layer, an image.
    Limits: its fine structure is that of guided backpropagation, which hardly depends on the class or even the weights; only
    its coarse place is evidence.
    Source: Selvaraju et al. 2017, arXiv 1610.02391, section 3.2.

    >>> GuidedGradCAM(layer="layer4").spec
    'guided-grad-cam:layer=layer4'
    """

    layer: str | None = None

    name = "guided-grad-cam"
    shows = "The fine pattern of guided backpropagation, where Grad-CAM finds evidence for the class."
    reading = (
        "Trust the place, not the pattern: the fine lines are there for every class, and nearly for every network."
    )
    source = "Selvaraju et al. 2017, arXiv 1610.02391"

    @property
    def passes(self) -> tuple[int, int]:
        return 1 + number_of(self.layer), 1 + number_of(self.layer)

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        place = GradCAM(self.layer).attribute(net, pixels, question)
        pattern = GuidedBackprop().attribute(net, pixels, question)
        enlarged = F.interpolate(place.values, pixels.shape[2:], mode="bilinear", align_corners=False)
        return Map(
            pattern.values * enlarged.to(pattern.values.device), layer=place.layer, notes=place.notes + pattern.notes
        )
