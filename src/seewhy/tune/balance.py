"""Classes of unlike sizes: how often each picture is drawn, or how far the logits are moved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def counts_of(labels: Sequence[int], classes: int) -> Tensor:
    """How many pictures each class has, (classes,) float64."""
    return torch.bincount(torch.tensor(labels, dtype=torch.long), minlength=classes).double()


def weights(labels: Sequence[int], classes: int, power: float) -> Tensor:
    """The probability (N,) of each picture to be drawn, so that a class of n pictures is drawn in proportion to n^power.

    >>> weights([0, 0, 0, 1], 2, 0.0).tolist()[-1]
    0.5
    """
    counts = counts_of(labels, classes)
    wanted = torch.where(counts > 0, counts.clamp_min(1) ** power, 0)
    return (wanted / wanted.sum() / counts.clamp_min(1))[torch.tensor(labels, dtype=torch.long)]


def offsets(labels: Sequence[int], classes: int, power: float) -> Tensor:
    """What is added to the logits in the loss, (classes,): (1 − power) · log prior.

    Logit adjustment of Menon et al. 2021 (arXiv 2007.07314). Trained so on pictures as they come, a classifier's own logits
    answer log p(class | picture) + (power − 1) · log prior, which is what they answer where pictures are drawn by `weights`.
    """
    counts = counts_of(labels, classes)
    return ((1 - power) * (counts.clamp_min(1) / counts.sum()).log()).float()
