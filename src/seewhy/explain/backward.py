"""Deconvolution and guided backpropagation: one mechanism, two rules for the rectifiers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.explain.base import Explainer, Map, Question
from seewhy.lens.backward import Backward, Rule


@dataclass(frozen=True)
class Deconvolution(Explainer):
    """The target's logit sent back, rectified at each rectifier: R ← max(R, 0), whatever the activation was.

    Sees every rectifier, however it is written (ReLU, ReLU6, in place, functional). Values (N, 3, H, W), in logits per unit
    of pixel. Cost: one forward and one backward pass an image.
    Deviation: the paper starts from one unit of a layer; here from a class's logit.
    Source: Zeiler & Fergus 2014, arXiv 1311.2901, section 2.1.
    """

    name = "deconvolution"
    shows = "The pattern that the network's filters, run backwards, paint for the class."
    reading = "Sharp where filters agree. Known to depend little on the class: do not read it as evidence by itself."
    source = "Zeiler & Fergus 2014, arXiv 1311.2901"

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return _sent_back(net, pixels, question, "deconvolution")


@dataclass(frozen=True)
class GuidedBackprop(Explainer):
    """The gradient that at each rectifier keeps only what is positive: R ← σ′(x)·max(R, 0).

    Sees every rectifier, however it is written (ReLU, ReLU6, in place, functional). Values (N, 3, H, W), in logits per unit
    of pixel. Cost: one forward and one backward pass an image.
    Source: Springenberg et al. 2015, arXiv 1412.6806, section 3.4.
    """

    name = "guided-backprop"
    shows = "The gradient through those units only that are active and whose effect stays positive on the way back."
    reading = (
        "Very sharp, and close to an edge detector: it changes little even when the network's weights are randomised."
    )
    source = "Springenberg et al. 2015, arXiv 1412.6806"

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return _sent_back(net, pixels, question, "guided")


def _sent_back(net: Classifier, pixels: Tensor, question: Question, rule: Rule) -> Map:
    lenses: list[Backward] = []

    def lens() -> Backward:
        lenses.append(Backward(net.module, rule))
        return lenses[-1]

    values = net.gradient(pixels, question, lens)[1]
    notes = sorted(lenses[-1].notes)
    if not lenses[-1].rectifiers:
        notes.append(f"{net.name} has no rectifier: this is the plain gradient")
    return Map(values, notes=tuple(notes))
