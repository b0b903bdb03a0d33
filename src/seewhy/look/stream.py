"""Images as they come, in memory, from a data set or as a stream of batches, a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet, Item
from seewhy.errors import DataError, InputError
from seewhy.look.tally import Tally

#: pictures in memory, a data set that is read as it goes, or any stream of batches: `Images`, pixels, (pixels, labels),
#: or what `DataSet.each` gives; a `DataError` in it is a picture that cannot be read
Pictures = Tensor | Images | DataSet | Iterable[Any]

#: how many images are in memory at once
PART = 64


@final
@dataclass(frozen=True)
class Part:
    """Images of a stream, their numbers, and what could not be read among them."""

    images: Images | None
    indices: Tensor
    labels: Tensor
    names: tuple[str, ...]
    failed: list[tuple[int, str]]
    stretches: list[tuple[int, int]]


def parts(net: Classifier, images: Pictures, first: int, state: Tally) -> Iterator[Part]:
    """The images that a state has not seen, `PART` at a time."""
    size, classes = net.size, len(state.classes)
    if isinstance(images, Tensor | Images):
        net.check(images)
    waiting: list[tuple[int, Images | DataError]] = []
    for each in _stream(net, images, first, state):
        waiting.append(each)
        if len(waiting) == PART:
            yield _part(net, waiting, size, classes)
            waiting = []
    if waiting:
        yield _part(net, waiting, size, classes)


@contextmanager
def watched(net: Classifier, images: Pictures) -> Iterator[Callable[[int], None]]:
    """Inside, the engine's listener hears how many of all images are done, and not of each part's."""
    listener = net.engine.progress
    total = len(images) if isinstance(images, Tensor | Images | DataSet) else 0

    def tell(done: int) -> None:
        if listener is not None and total:
            listener(min(done, total), total)

    with net.engine.telling(None):
        yield tell


def _stream(net: Classifier, images: Pictures, first: int, state: Tally) -> Iterator[tuple[int, Images | DataError]]:
    """Every image that was not seen, one at a time, with its number; those that were seen are checked to be the same."""
    if isinstance(images, DataSet):
        for place in range(len(images)):
            if state.has(first + place):  # what was seen is not read again
                state.recognise(first + place, images.names[place])
            else:
                item = images.item(place)
                try:
                    yield first + place, item.read(net.preprocess)
                except DataError as error:
                    yield first + place, error
        return
    number = first
    for batch in [images] if isinstance(images, Tensor | Images) else images:
        if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[0], Item):
            batch = batch[1]  # what `DataSet.each` gives
        if isinstance(batch, DataError):
            if not state.has(number):
                yield number, batch
            number += 1
            continue
        held = _batch(batch)
        for place in range(len(held)):
            if state.has(number):
                state.recognise(number, held.names[place], held.pixels[place])
            else:
                yield number, held[place]
            number += 1


def _batch(given: Any) -> Images:
    """What comes in a stream as `Images`."""
    if isinstance(given, Images):
        return given
    if isinstance(given, Tensor) and given.ndim == 4:
        return Images(given, names=("",) * len(given))
    if isinstance(given, Sequence) and len(given) == 2 and isinstance(given[0], Tensor):
        return Images(given[0], names=("",) * len(given[0]), labels=torch.as_tensor(given[1]))
    raise InputError(
        f"expected a stream of Images, of pixels (N, 3, H, W), or of (pixels, labels), got {type(given).__name__}"
    )


def _part(
    net: Classifier, waiting: Sequence[tuple[int, Images | DataError]], size: tuple[int, int], classes: int
) -> Part:
    read = [(number, each) for number, each in waiting if isinstance(each, Images)]
    labels = [-1 if each.labels is None else int(each.labels[0]) for _, each in read]
    for (number, each), label in zip(read, labels, strict=True):
        if tuple(each.shape[2:]) != size:
            got = f"{each.shape[2]}×{each.shape[3]}"
            raise InputError(f"expected images of {size[0]}×{size[1]}, got {got}: number {number}; resize them first")
        if label >= classes:
            raise InputError(f"image {number} has the label {label}; expected −1 to {classes - 1}")
    joined = None
    if read:
        pixels = torch.cat([each.pixels for _, each in read])
        joined = Images(net.check(pixels))
    stretches: list[tuple[int, int]] = []
    for number, _ in waiting:
        start = stretches.pop()[0] if stretches and stretches[-1][1] == number else number
        stretches.append((start, number + 1))
    return Part(
        joined,
        torch.tensor([number for number, _ in read], dtype=torch.int64),
        torch.tensor(labels, dtype=torch.int64),
        tuple(each.names[0] or f"image {number + 1}" for number, each in read),
        [(number, str(each)) for number, each in waiting if isinstance(each, DataError)],
        stretches,
    )


def unread(failed: Sequence[tuple[int, str]]) -> InputError:
    """What to raise where no image came that could be read."""
    because = f": {failed[0][1]}" if failed else ""
    return InputError(f"expected at least one image that can be read, got none{because}")


def left_out(which: Sequence[tuple[int, str]], total: int) -> str:
    """That some of all images are left out, and why the first of them is."""
    index, because = which[0]
    more = f", and {len(which) - 1} more" if len(which) > 1 else ""
    return f"{len(which)} of {total:,} images {'is' if len(which) == 1 else 'are'} left out: number {index}, {because}{more}"


def one_of(images: Images | Tensor | DataSet, index: int, net: Classifier) -> Tensor:
    """The pixels (3, H, W) of one of the images that were looked at."""
    if not 0 <= index < len(images):
        raise InputError(f"exemplar {index} is not among the {len(images)} images given; give all that were looked at")
    if isinstance(images, DataSet):
        return images.item(index).read(net.preprocess).pixels[0]
    return (images.pixels if isinstance(images, Images) else images)[index].detach().cpu()
