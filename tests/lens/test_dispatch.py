"""What lenses let pass unseen, and what is kept although the network works in place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets import classifier, photos
from seewhy.errors import UnknownOperation
from seewhy.explain import GuidedBackprop
from seewhy.lens import capture


class Disguised(nn.Module):
    """A rectifier written as a product with a mask, after a product that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) * 2
        return (x * (x > 0)).mean((2, 3))


def test_an_operation_that_passed_once_is_looked_at_again_when_there_are_masks() -> None:
    with pytest.raises(UnknownOperation, match="mask"):
        GuidedBackprop()(classifier(Disguised()), photos(1), 0)


class Dropping(nn.Module):
    """Dropout in place, which evaluating writes nothing, and then a rectifier in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.conv(x), training=False, inplace=True)
        return F.relu(x, inplace=True).mean((2, 3))


def test_what_is_kept_outlasts_a_dropout_in_place() -> None:
    kept = capture(classifier(Dropping()), photos(1))
    assert (kept["conv"] < 0).any()


class Sum(nn.Module):
    """Minus a map and its rectifier: what reaches the rectifier is negative, and a sum hands both the same gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return -(x + x.relu()).flatten(1).sum(1, keepdim=True)


def test_the_guided_rule_spares_the_other_branch_of_a_sum() -> None:
    net, images = classifier(Sum(), labels=None, check=False), photos(1)
    found = GuidedBackprop()(net, images, 0).values * torch.tensor(net.std).view(1, 3, 1, 1)
    torch.testing.assert_close(found, torch.full_like(found, -1.0))
