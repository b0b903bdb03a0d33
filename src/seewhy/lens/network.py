"""The network as the lenses see it: what `seewhy model` prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seewhy.classifier import Classifier
from seewhy.errors import SeewhyError
from seewhy.lens import backward, ops, receptive, relevance, rescale
from seewhy.lens.cost import OperationCost, cost

#: For each lens, whether it knows what to do with an operation. A lens is added here, in one line.
LENSES: dict[str, Callable[[OperationCost], bool]] = {
    # whatever is not a rectifier has its ordinary gradient; in a comparison a rectifier may hide
    "backward": lambda each: each.op in backward.RULES or (each.op not in ops.COMPARISONS and not _makes_map(each)),
    "rescale": lambda each: each.op in rescale.RULES or (each.op not in ops.COMPARISONS and not _makes_map(each)),
    # refused only where relevance comes there
    "relevance": lambda each: each.op in relevance.RULES or each.op in ops.COMPARISONS or not _makes_map(each),
    "receptive field": lambda each: (
        each.op in receptive.RULES or each.op in ops.COMPARISONS or (not each.kind and not _makes_map(each))
    ),
    # what has no rule is computed in full, but for what is written into a part of a map
    "incremental": lambda each: each.op not in ("setitem", "copy") and bool(each.kind or not each.in_place),
    "cost": lambda each: each.op in ops.VOCABULARY or each.op in ops.COMPARISONS or not _makes_map(each),
}


def _makes_map(each: OperationCost) -> bool:
    """Whether its answer is a map: indices and masks are not."""
    return each.dtype.is_floating_point


@dataclass(frozen=True)
class Row:
    """One operation.

    `shape` is its output's for one image; `window` and `stride` are (down, right) in pixels, `window` the largest one
    and strict, `local_window` without gates (see `seewhy.lens.receptive.Field`); None where there is no map of the image.
    `multiply_adds`, `parameters` and `bytes` are for one image, see `seewhy.lens.cost.OperationCost`.
    """

    address: str
    op: str
    kind: str
    shape: tuple[int, ...]
    window: tuple[int, int] | None
    local_window: tuple[int, int] | None
    stride: tuple[float, float] | None
    multiply_adds: int
    parameters: int
    bytes: int
    in_place: bool


@dataclass(frozen=True)
class Network:
    """A network's operations in the order in which they run, their totals, and what the lenses lack.

    `lacking` has, for each lens, the operations that it has no rule for, as `op in path`; `notes` say in words what could
    not be found out.
    """

    rows: tuple[Row, ...]
    multiply_adds: int
    parameters: int
    bytes: int
    lacking: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]


def describe(net: Classifier) -> Network:
    """A network as the lenses see it. Two forward passes of one image.

    A lens that fails on the network is reported in `notes`, and leaves its columns empty.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> network = describe(net)
    >>> [(row.address, row.window, row.multiply_adds) for row in network.rows][:2]
    [('0:conv2d', (3, 3), 3888), ('1:relu', (3, 3), 0)]
    >>> network.lacking["receptive field"]
    ()
    """
    costs = cost(net)
    notes: list[str] = []
    fields: dict[str, receptive.Field] = {}
    try:
        fields = receptive.receptive_fields(net)
    except SeewhyError as error:
        notes.append(f"no receptive fields: {error}")
    if not costs.operations:
        notes.append("the lens sees no operation; a scripted module hides them: load the module that it was made from")
    return Network(
        rows=tuple(_row(each, fields.get(each.address)) for each in costs.operations),
        multiply_adds=costs.multiply_adds,
        parameters=costs.parameters,
        bytes=costs.bytes,
        lacking={name: _lacking(costs.operations, knows) for name, knows in LENSES.items()},
        notes=tuple(notes),
    )


def _row(each: OperationCost, field: receptive.Field | None) -> Row:
    return Row(
        address=each.address,
        op=each.op,
        kind=each.kind,
        shape=each.shape,
        window=None if field is None else field.size,
        local_window=None if field is None else field.local_size,
        stride=None if field is None else field.stride,
        multiply_adds=each.multiply_adds,
        parameters=each.parameters,
        bytes=each.bytes,
        in_place=each.in_place,
    )


def _lacking(operations: tuple[OperationCost, ...], knows: Callable[[OperationCost], bool]) -> tuple[str, ...]:
    found = (
        f"{each.op} in {each.address.rpartition(':')[0] or 'the model itself'}"
        for each in operations
        if not knows(each)
    )
    return tuple(dict.fromkeys(found))
