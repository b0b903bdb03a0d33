"""Deconvolution and guided backpropagation: one mechanism, two rules for the rectifiers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.explain.at_layer import at_layer
from seewhy.explain.base import Explainer, Map, Question
from seewhy.lens.backward import Backward, Rule


@dataclass(frozen=True)
class Deconvolution(Explainer):
    """The target's logit sent back, rectified at each rectifier: R ← max(R, 0), whatever the activation was.

    Sees every rectifier, however it is written (ReLU, ReLU6, in place, functional). Values (N, 3, H, W), in logits per unit
    of pixel; with `layer`, an address as `seewhy model` prints it, (N, C, h, w), in logits per unit of that layer's maps.
    Cost: one forward and one backward pass an image.
    Limits: it depends little on the class, less still on what the deep layers have learned: no evidence by itself.
    Deviation: the paper starts from one unit of a layer; here from a class's logit.
    Source: Zeiler & Fergus 2014, arXiv 1311.2901, section 2.1.

    >>> Deconvolution(layer="layer1").spec
    'deconvolution:layer=layer1'
    """

    layer: str | None = None

    name = "deconvolution"
    shows = "The pattern that the network's filters, run backwards, paint for the class."
    reading = "Sharp where filters agree. Known to depend little on the class: do not read it as evidence by itself."
    source = "Zeiler & Fergus 2014, arXiv 1311.2901"

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return _sent_back(net, pixels, question, "deconvolution", self.layer)


@dataclass(frozen=True)
class GuidedBackprop(Explainer):
    """The gradient that at each rectifier keeps only what is positive: R ← σ′(x)·max(R, 0).

    Sees every rectifier, however it is written (ReLU, ReLU6, in place, functional). Values (N, 3, H, W), in logits per unit
    of pixel; with `layer`, an address as `seewhy model` prints it, (N, C, h, w), in logits per unit of that layer's maps.
    Cost: one forward and one backward pass an image.
    Limits: it draws the image's edges almost whatever the class and the weights are: no evidence by itself.
    Source: Springenberg et al. 2015, arXiv 1412.6806, section 3.4.

    >>> GuidedBackprop(layer="layer1").spec
    'guided-backprop:layer=layer1'
    """

    layer: str | None = None

    name = "guided-backprop"
    shows = "The gradient through those units only that are active and whose effect stays positive on the way back."
    reading = (
        "Very sharp, and close to an edge detector: it changes little even when the network's weights are randomised."
    )
    source = "Springenberg et al. 2015, arXiv 1412.6806"

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return _sent_back(net, pixels, question, "guided", self.layer)


def _sent_back(net: Classifier, pixels: Tensor, question: Question, rule: Rule, layer: str | None) -> Map:
    lenses: list[Backward] = []

    def lens() -> Backward:
        lenses.append(Backward(net.module, rule))
        return lenses[-1]

    if layer:
        values = at_layer(net, pixels, question, layer, lambda _, gradient: gradient, lens)
    else:
        values = net.gradient(pixels, question, lens)[1]
    notes = sorted(lenses[-1].notes)
    if not lenses[-1].rectifiers:
        after = f" after {layer}" if layer else ""
        notes.append(f"{net.name} has no rectifier{after}: this is the plain gradient")
    return Map(values, layer=layer or "", notes=tuple(notes))
