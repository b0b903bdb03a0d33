"""The average over the weights of all steps, which judges better than the last of them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of a module's parameters and buffers, in a copy of it.

    After step t (from 1) the copy moves by 1 − d towards the module, with d = min(decay, (1 + t) / (10 + t)), so that the first
    steps are not remembered for long. Counters are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay
        self._pairs: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._counters: list[tuple[Tensor, Tensor]] = []
        for own, given in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if own.is_floating_point():
                self._pairs[0].append(own)
                self._pairs[1].append(given)
            else:
                self._counters.append((own, given))

    def update(self, step: int) -> None:
        """Take in the module's weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self._pairs[0], self._pairs[1], 1 - decay)
            for own, given in self._counters:
                own.copy_(given)
