"""Fine-tune a classifier on a data set: split, train, measure, and keep it with a card."""

from __future__ import annotations

from seewhy.tune.augment import augmented
from seewhy.tune.balance import offsets, weights
from seewhy.tune.marks import Marks, marks
from seewhy.tune.network import architecture
from seewhy.tune.recipe import Recipe
from seewhy.tune.tuning import Tuned, tune

__all__ = ["Marks", "Recipe", "Tuned", "architecture", "augmented", "marks", "offsets", "tune", "weights"]
