"""What did it learn? A look is one file here and one line below."""

from seewhy.look.activations import ActivationMaps, Activations
from seewhy.look.base import Look
from seewhy.look.before_after import BeforeAfter, BeforeAfterMaps
from seewhy.look.deepdream import DeepDream, Dream
from seewhy.look.embed import CodeMap, MappedCodes, PlacedCodes
from seewhy.look.encode import codes
from seewhy.look.exemplars import Exemplars, ExemplarSet
from seewhy.look.filters import FilterGrid, Filters, convolutions
from seewhy.look.invert import Invert, Inverted
from seewhy.look.maximize import Maximize, Maximized
from seewhy.look.statistics import ActivationStatistics, Statistics
from seewhy.look.tally import Tally
from seewhy.look.units import NamedUnits, Units

__all__ = [
    "ActivationMaps",
    "ActivationStatistics",
    "Activations",
    "BeforeAfter",
    "BeforeAfterMaps",
    "CodeMap",
    "DeepDream",
    "Dream",
    "ExemplarSet",
    "Exemplars",
    "FilterGrid",
    "Filters",
    "Invert",
    "Inverted",
    "Look",
    "MappedCodes",
    "Maximize",
    "Maximized",
    "NamedUnits",
    "PlacedCodes",
    "Statistics",
    "Tally",
    "Units",
    "codes",
    "convolutions",
]
