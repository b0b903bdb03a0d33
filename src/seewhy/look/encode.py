"""Codes: one vector of a layer for each image of a set, in one pass, with what the model says of it and a thumbnail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.engine import Engine
from seewhy.errors import InputError, SpecError
from seewhy.lens.capture import Capture, capture, last_map, trace
from seewhy.look.exemplars import chosen_layers
from seewhy.look.stream import Pictures, parts, unread, watched
from seewhy.look.tally import Tally

#: images a pass, whatever the engine's size: a map makes much of the last digits of a code, and they change with the size
BATCH = 16

#: pixels of a thumbnail's longer side
SIDE = 32

#: what becomes of the positions of a layer's maps
POOLS = ("mean", "max", "flat")


def code_layer(net: Classifier) -> str:
    """The address of what the last layer with weights is given: the code that the classes are told from.

    Named by the outermost module that hands it on, if there is one; before a flattening of one position.
    """
    seen = trace(net)
    last = max((i for i, each in enumerate(seen) if each.op in ("linear", "conv2d")), default=0)
    before = [each for each in seen[:last] if each.op and "dropout" not in each.op and len(each.shape) in (2, 4)]
    if not before or not any(each.op in ("linear", "conv2d") for each in before):
        return last_map(net)
    chosen = before[-1]
    for each in reversed(before):
        chosen = each
        if each.kind != "layout" or each.shape[1:2] != before[-1].shape[1:2]:
            break
    if chosen.shape[1] != before[-1].shape[1] or not chosen.channels_first:
        chosen = before[-1]  # positions are told apart after it: they stay so
    modules = [each.address for each in seen if not each.op and each.address and each.made_by == chosen.address]
    return min(modules, key=lambda address: address.count("."), default=chosen.address)


@final
@dataclass(frozen=True)
class Seen:
    """What a pass over images keeps of each."""

    codes: Tensor
    labels: Tensor
    predictions: Tensor
    confidence: Tensor
    indices: Tensor
    names: tuple[str, ...]
    thumbnails: Tensor
    failed: tuple[tuple[int, str], ...]


def seen_by(
    net: Classifier, images: Pictures, layer: str, pool: str, notes: list[str], classes: Sequence[str] = ()
) -> Seen:
    """Codes, predictions and thumbnails, in one pass over a stream of images."""

    def run(batch: Tensor, where: slice) -> Tensor:
        lens = Capture(net.module, [layer], stop=False)
        with torch.no_grad():
            said = net.logits(batch, lambda: lens).float().softmax(1).max(1)
        code = pooled(lens.kept[layer].float(), pool)
        return torch.cat([code, said.indices[:, None].float(), said.values[:, None]], 1).cpu()

    answers, labels, indices, thumbnails = [], [], [], []
    names: list[str] = []
    failed: list[tuple[int, str]] = []
    with _steady(net.engine), watched(net, images) as tell:
        for part in parts(net, images, 0, Tally.empty(classes or net.labels)):
            failed += part.failed
            if part.images is not None:
                answers.append(net.engine.map(run, part.images.pixels, "codes"))
                labels.append(part.labels)
                indices.append(part.indices)
                names += part.names
                thumbnails.append(_thumbnails(part.images.pixels))
            tell(len(names) + len(failed))
    if not answers:
        raise unread(failed)
    answer, index = torch.cat(answers), torch.cat(indices)
    good = answer.isfinite().all(1)
    failed += [(int(i), f"{layer} answers infinite values or no numbers to {names[int(p)]}")
               for p, i in zip((~good).nonzero()[:, 0], index[~good], strict=True)]  # fmt: skip
    if not good.any():
        raise InputError(f"{layer} answers infinite values or no numbers to every image; choose another layer")
    failed.sort()
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        total = len(index) + len(failed) - int((~good).sum())
        notes.append(f"{len(failed)} of {total:,} images are left out: number {failed[0][0]}, {failed[0][1]}{more}")
    shape = next(each.shape for each in trace(net) if each.address == layer)
    if len(shape) == 4 and shape[2] * shape[3] > 1:
        done = {"mean": "averaged over", "max": "the largest of", "flat": "one after the other, all"}[pool]
        notes.append(f"a code is {shape[1]} maps of {shape[2]} × {shape[3]}, {done} positions")
    keep = good.nonzero()[:, 0].tolist()
    return Seen(
        codes=answer[good, :-2].contiguous(),
        labels=torch.cat(labels)[good],
        predictions=answer[good, -2].long(),
        confidence=answer[good, -1].clone(),
        indices=index[good],
        names=tuple(names[place] for place in keep),
        thumbnails=torch.cat(thumbnails)[good],
        failed=tuple(failed),
    )


def codes(net: Classifier, images: Tensor, layer: str | None = None, pool: str = "mean") -> Tensor:
    """The codes (N, D) of a layer (none: the last before the classes), in the engine's batches; passes end at the layer.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> codes(net, torch.rand(5, 3, 8, 8), "1").shape
    torch.Size([5, 4])
    """
    if pool not in POOLS:
        raise SpecError(f'expected pool to be one of {", ".join(POOLS)}, got "{pool}"')
    (address,) = chosen_layers(net, (layer or code_layer(net),))
    pixels = net.check(images)
    with _steady(net.engine):
        return net.engine.map(
            lambda part, _: pooled(capture(net, part, [address])[address].float(), pool).cpu(), pixels, "codes"
        )


def pooled(answer: Tensor, pool: str) -> Tensor:
    """One vector (N, D) of each answer (N, C) or (N, C, h, w)."""
    if answer.ndim == 2 or pool == "flat":
        return answer.flatten(1)
    return answer.mean((2, 3)) if pool == "mean" else answer.amax((2, 3))


def _thumbnails(pixels: Tensor) -> Tensor:
    """Images (N, 3, H, W) in small, 8 bits."""
    ratio = SIDE / max(pixels.shape[2:])
    small = pixels.detach().cpu().float()
    if ratio < 1:
        size = [max(1, round(length * ratio)) for length in pixels.shape[2:]]
        small = F.interpolate(small, size=size, mode="bilinear", antialias=True)
    return (small.clamp(0, 1) * 255).round().byte()


@contextmanager
def _steady(engine: Engine) -> Iterator[None]:
    """Inside, passes run in batches of one size (smaller ones where memory asks for it)."""
    before, engine.batch = engine.batch, BATCH
    try:
        yield
    finally:
        engine.batch = before
