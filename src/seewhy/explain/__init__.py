"""Why this decision? A method is one file here and one line below."""

from seewhy.explain.ablation_cam import AblationCAM
from seewhy.explain.backward import Deconvolution, GuidedBackprop
from seewhy.explain.base import Attribution, Explainer, Map, Question
from seewhy.explain.cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from seewhy.explain.compare import Agreement, agreement, contrast, side_by_side
from seewhy.explain.deep_shap import DeepShap
from seewhy.explain.deep_taylor import DeepTaylor
from seewhy.explain.expected_gradients import ExpectedGradients
from seewhy.explain.gradient import Gradient, GradientTimesInput
from seewhy.explain.guided_grad_cam import GuidedGradCAM
from seewhy.explain.integrated_gradients import IntegratedGradients
from seewhy.explain.lime import Lime
from seewhy.explain.lrp import LRP
from seewhy.explain.occlusion import Occlusion
from seewhy.explain.rise import Rise
from seewhy.explain.score_cam import ScoreCAM
from seewhy.explain.shap import Shap, ShapPartition
from seewhy.explain.smoothgrad import SmoothGrad

__all__ = [
    "LRP",
    "AblationCAM",
    "Agreement",
    "Attribution",
    "Deconvolution",
    "DeepShap",
    "DeepTaylor",
    "EigenCAM",
    "ExpectedGradients",
    "Explainer",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "IntegratedGradients",
    "LayerCAM",
    "Lime",
    "Map",
    "Occlusion",
    "Question",
    "Rise",
    "ScoreCAM",
    "Shap",
    "ShapPartition",
    "SmoothGrad",
    "XGradCAM",
    "agreement",
    "contrast",
    "side_by_side",
]
