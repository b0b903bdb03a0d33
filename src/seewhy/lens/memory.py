"""Values kept by a tensor's memory: views of one tensor, and what overwrites it, share them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

Value = TypeVar("Value")


class ByMemory(Generic[Value]):
    """A mapping from the memory that tensors live in to values; it keeps no memory alive.

    >>> kept = ByMemory[str]()
    >>> image = torch.rand(4)
    >>> kept[image] = "an image"
    >>> kept.get(image[1:3]), kept.get(image + 1)
    ('an image', None)
    """

    def __init__(self) -> None:
        # a weak reference keeps the key from being given to other memory, so no key stands for two
        self._kept: dict[int, tuple[StorageWeakRef, Value]] = {}

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        reference = StorageWeakRef(tensor.untyped_storage())
        self._kept[reference.cdata] = (reference, value)

    def get(self, tensor: Tensor) -> Value | None:
        """The value of the memory that a tensor lives in, if it has one."""
        found = self._kept.get(tensor.untyped_storage()._cdata)
        return None if found is None else found[1]

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._kept

    def __iter__(self) -> Iterator[Value]:
        return (value for _, value in self._kept.values())


class Place:
    """Where a tensor lies in its memory, without keeping the memory alive."""

    def __init__(self, tensor: Tensor) -> None:
        self._memory = StorageWeakRef(tensor.untyped_storage())
        self._geometry = (tensor.storage_offset(), tensor.shape, tensor.stride())
        self.shape, self.dtype, self.device = tuple(tensor.shape), tensor.dtype, tensor.device

    def tensor(self) -> Tensor | None:
        """What lies there now; None once the memory was given back."""
        if self._memory.expired():
            return None
        storage = torch.UntypedStorage._new_with_weak_ptr(self._memory.cdata)
        return torch.empty(0, dtype=self.dtype, device=self.device).set_(storage, *self._geometry)
