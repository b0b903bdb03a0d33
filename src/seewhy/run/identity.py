"""Who a model is: its hash, its size, its cost, and its operations as the lenses see them."""

from __future__ import annotations

from typing import Any

from seewhy.classifier import Classifier
from seewhy.errors import SeewhyError
from seewhy.lens.network import Network, describe


def identity(net: Classifier, spec: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A model's record as docs/run-format.md says, and what a reader should know."""
    notes = list(net.notes)
    network: Network | None = None
    try:
        network = describe(net)
        notes += network.notes
    except SeewhyError as error:
        notes.append(f"the lens cannot describe this network: {error}")
    layers = [
        {
            "address": row.address,
            "op": row.op,
            "shape": list(row.shape),
            "window": None if row.window is None else list(row.window),
            "stride": None if row.stride is None else list(row.stride),
            "multiply_adds": row.multiply_adds,
        }
        for row in (network.rows if network else ())
    ]
    record = {
        "name": net.name,
        "spec": spec,
        "fingerprint": net.fingerprint,
        "parameters": net.parameters,
        "classes": net.classes,
        "size": list(net.size),
        "mean": list(net.mean),
        "std": list(net.std),
        "multiply_adds": network.multiply_adds if network else None,
        "layers": layers,
        "missing_rules": {lens: list(found) for lens, found in network.lacking.items()} if network else {},
    }
    return record, tuple(notes)
