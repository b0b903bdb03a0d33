"""Masks of concepts, dense or of those images alone that have one, as network dissection takes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seewhy.errors import InputError

#: of one concept (N, H, W), true where an image shows it; or (H, W) by the place of each image that has a mask of it
Mask = Tensor | Mapping[int, Tensor]
Masks = Mapping[str, Mask]


def checked(masks: Masks | None, count: int, size: tuple[int, int]) -> tuple[str, ...]:
    """The concepts; raises `InputError` for masks that do not fit so many images of this size."""
    if masks is not None and not masks:
        raise InputError("expected masks of at least one concept, got none")
    for name, mask in (masks or {}).items():
        if isinstance(mask, Tensor):
            if tuple(mask.shape) != (count, *size):
                raise InputError(
                    f'expected masks {(count, *size)}, one for each image, got {tuple(mask.shape)} for "{name}"'
                )
            continue
        for place, own in mask.items():
            if not 0 <= place < count or tuple(own.shape) != size:
                raise InputError(
                    f"expected masks {size} of images 0 to {count - 1}, got {tuple(own.shape)} of image {place} "
                    f'for "{name}"'
                )
    return tuple(masks or ())


def shown(masks: Masks, image: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Which of the concepts (J,) an image shows, and on which pixels (J, H·W): those that it does not show take no memory."""
    places: list[int] = []
    found = [torch.zeros(0, *size, dtype=torch.bool)]
    for place, mask in enumerate(masks.values()):
        own = mask[image] if isinstance(mask, Tensor) else mask.get(image)
        if own is not None and bool(own.any()):
            places.append(place)
            found.append(own[None].bool())
    return torch.tensor(places, dtype=torch.long), torch.cat(found).flatten(1).float()


def showing(mask: Mask, images: Tensor) -> Tensor:
    """Which of the images at these places show a concept."""
    if isinstance(mask, Tensor):
        return mask.flatten(1).any(1)[images]
    return torch.tensor([image in mask and bool(mask[image].any()) for image in images.tolist()])
