"""How is it fooled? An attack is one file here and one line below."""

from seewhy.attack.base import Adversarial, Attack, Goal, Perturbed
from seewhy.attack.fgsm import FGSM
from seewhy.attack.oracles import LabelsOnly, Scores, View, WhiteBox

__all__ = ["FGSM", "Adversarial", "Attack", "Goal", "LabelsOnly", "Perturbed", "Scores", "View", "WhiteBox"]
