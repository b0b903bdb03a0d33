"""Randomness that belongs to a method: a seed and words name a generator, and nothing global is touched."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, *words: object) -> torch.Generator:
    """Return a CPU generator that depends on `seed` and `words` alone.

    >>> a, b = generator(0, "noise"), generator(0, "noise")
    >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
    True
    """
    digest = hashlib.sha256(repr((seed, *words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def uniform(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Numbers of [0, 1), drawn by a CPU generator and so the same on any device, where tensors are made at present."""
    return _here(torch.rand(shape, generator=draw, device="cpu"))


def normal(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Normal numbers, likewise."""
    return _here(torch.randn(shape, generator=draw, device="cpu"))


def signs(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """−1 or 1, likewise."""
    return _here(torch.randint(0, 2, shape, generator=draw, device="cpu") * 2.0 - 1)


def _here(drawn: Tensor) -> Tensor:
    return drawn.to(torch.empty(0).device)
