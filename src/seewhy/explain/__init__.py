"""Why this decision? A method is one file here and one line below."""

from seewhy.explain.backward import Deconvolution, GuidedBackprop
from seewhy.explain.base import Attribution, Explainer, Map, Question
from seewhy.explain.cam import GradCAM
from seewhy.explain.gradient import Gradient, GradientTimesInput
from seewhy.explain.integrated_gradients import IntegratedGradients
from seewhy.explain.smoothgrad import SmoothGrad

__all__ = [
    "Attribution",
    "Deconvolution",
    "Explainer",
    "GradCAM",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "IntegratedGradients",
    "Map",
    "Question",
    "SmoothGrad",
]
