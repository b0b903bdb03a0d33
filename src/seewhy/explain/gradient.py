"""The gradient of a class's logit with respect to the pixels, or to a layer, and what is made of it directly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.explain.at_layer import at_layer
from seewhy.explain.base import Explainer, Map, Question


@dataclass(frozen=True)
class Gradient(Explainer):
    """The gradient of the target's logit: ∂f_c/∂x, in logits per unit of pixel in [0, 1].

    Values (N, 3, H, W). With `layer`, an address as `seewhy model` prints it, x is that layer's maps, the values are
    (N, C, h, w), in logits per their unit, and the backward pass ends there.
    Cost: one forward and one backward pass an image.
    Limits: it says what a small change would do, not what made the logit; noisy on deep networks of rectifiers, and near
    zero where the class is saturated.
    Source: Simonyan, Vedaldi & Zisserman 2014, arXiv 1312.6034, section 3.1.

    >>> import torch
    >>> from seewhy import Classifier
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> net = Classifier(module, size=2)
    >>> found = Gradient()(net, torch.rand(1, 3, 2, 2), target=1)
    >>> torch.allclose(found.values.flatten(), module[1].weight[1])
    True
    """

    layer: str | None = None

    name = "gradient"
    shows = "How the logit of the class changes when a pixel changes a little."
    reading = "Strong pixels are those whose small change would matter; not those that made the logit what it is. Often noisy."
    source = "Simonyan, Vedaldi & Zisserman 2014, arXiv 1312.6034"
    default_sign = "absolute"

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        if self.layer:
            return Map(at_layer(net, pixels, question, self.layer, lambda _, gradient: gradient), layer=self.layer)
        return Map(net.gradient(pixels, question)[1])


@dataclass(frozen=True)
class GradientTimesInput(Explainer):
    """Gradient times input: x·∂f_c/∂x, what each pixel contributes if the network is linear from black to here.

    Values (N, 3, H, W), in logits. With `layer`, an address as `seewhy model` prints it, x is that layer's maps, and the
    values are (N, C, h, w). Cost: one forward and one backward pass an image.
    Limits: exact for networks of rectifiers without biases and normalisation; elsewhere the values do not add up.
    Deviation: the input is the pixel in [0, 1], so that black contributes nothing, whatever the model's normalisation.
    Source: Shrikumar et al. 2016, arXiv 1605.01713.

    >>> import torch
    >>> from seewhy import Classifier
    >>> net = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2, bias=False)), size=2)
    >>> found = GradientTimesInput()(net, torch.rand(1, 3, 2, 2))
    >>> torch.allclose(found.values.sum(), found.score, atol=1e-5)
    True
    """

    layer: str | None = None

    name = "gradient-times-input"
    shows = "What each pixel adds to the logit, as if the network were linear between black and the image."
    reading = "Positive values speak for the class, negative ones against it; black pixels can never count."
    source = "Shrikumar et al. 2016, arXiv 1605.01713"

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        if self.layer:
            values = at_layer(net, pixels, question, self.layer, lambda maps, gradient: maps * gradient)
            return Map(values, layer=self.layer)
        return Map(net.gradient(pixels, question)[1].cpu() * pixels.cpu())
