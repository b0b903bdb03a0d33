"""How is it fooled? An attack is one file here and one line below."""

from seewhy.attack.base import Adversarial, Attack, Goal, Perturbed
from seewhy.attack.fgsm import FGSM

__all__ = ["FGSM", "Adversarial", "Attack", "Goal", "Perturbed"]
