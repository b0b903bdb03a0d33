"""How is it fooled? An attack is one file here and one line below."""

from seewhy.attack import sets
from seewhy.attack.apgd import APGD
from seewhy.attack.base import Adversarial, Attack, Goal, Perturbed
from seewhy.attack.boundary import Boundary
from seewhy.attack.carlini_wagner import CarliniWagner
from seewhy.attack.compare import Comparison, Transfer, compare, transferred
from seewhy.attack.dbge import DBGE
from seewhy.attack.deepfool import DeepFool
from seewhy.attack.defences import (
    BitDepth,
    Control,
    Defence,
    Detector,
    Jpeg,
    Median,
    Resize,
    controls,
    defended,
    feature_squeezing,
)
from seewhy.attack.fgsm import FGSM
from seewhy.attack.ifgsm import IFGSM
from seewhy.attack.jsma import JSMA
from seewhy.attack.lbfgs import LBFGS
from seewhy.attack.mifgsm import MIFGSM
from seewhy.attack.nes import NES
from seewhy.attack.oracles import LabelsOnly, Scores, View, WhiteBox
from seewhy.attack.pgd import PGD
from seewhy.attack.square import Square
from seewhy.attack.why_it_fails import Diagnosis, diagnose
from seewhy.attack.zoo import ZOO

__all__ = [
    "APGD",
    "DBGE",
    "FGSM",
    "IFGSM",
    "JSMA",
    "LBFGS",
    "MIFGSM",
    "NES",
    "PGD",
    "ZOO",
    "Adversarial",
    "Attack",
    "BitDepth",
    "Boundary",
    "CarliniWagner",
    "Comparison",
    "Control",
    "DeepFool",
    "Defence",
    "Detector",
    "Diagnosis",
    "Goal",
    "Jpeg",
    "LabelsOnly",
    "Median",
    "Perturbed",
    "Resize",
    "Scores",
    "Square",
    "Transfer",
    "View",
    "WhiteBox",
    "compare",
    "controls",
    "defended",
    "diagnose",
    "feature_squeezing",
    "sets",
    "transferred",
]
