"""What did it learn? A look is one file here and one line below."""

from seewhy.look.activations import ActivationMaps, Activations
from seewhy.look.base import Look
from seewhy.look.filters import FilterGrid, Filters, convolutions

__all__ = ["ActivationMaps", "Activations", "FilterGrid", "Filters", "Look", "convolutions"]
