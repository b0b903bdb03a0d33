"""The model: who it is, and its operations as the lens sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seewhy import units
from seewhy.report.parts import Section
from seewhy.report.reading import Reading
from seewhy.run.store import MODEL


def section(reading: Reading) -> Section:
    """The section."""
    return Section(
        "model",
        "The model",
        "model.html",
        {
            "facts": facts(reading),
            "passes": passes(reading),
            "notes": reading.identity.get("notes", []),
            "layers": reading.identity.get("layers", []),
            "missing": reading.identity.get("missing_rules", {}),
            "window": _window,
            "count": units.count,
        },
    )


def facts(reading: Reading) -> list[tuple[str, str]]:
    """What the model is."""
    identity = reading.identity
    if not identity:
        return []
    height, width = identity["size"]
    found = [
        ("Specification", str(identity["spec"])),
        ("Fingerprint (SHA-256 of names, types, shapes and values)", str(identity["fingerprint"])),
        ("Parameters", f"{identity['parameters']:,}"),
        ("Classes", f"{identity['classes']:,}"),
        ("Input", f"{height} × {width} pixels, RGB"),
        ("Normalisation", f"(pixel − {_three(identity['mean'])}) / {_three(identity['std'])}, pixels in [0, 1]"),
    ]
    if identity.get("multiply_adds") is not None:
        found.append(("One forward pass", f"{units.count(identity['multiply_adds'])} multiply-adds"))
    return found


def passes(reading: Reading) -> list[str]:
    """What plain passes took here, where they were measured."""
    kinds = ("forward pass", "forward and backward pass")
    found = [(kind, timing) for kind in kinds if (timing := reading.run.timing(MODEL, kind)) is not None]
    return [f"one {kind} {units.seconds(timing.seconds)}" for kind, timing in found]


def _three(values: Sequence[float]) -> str:
    """Three numbers, or one where they are the same."""
    written = [f"{value:.4g}" for value in values]
    return written[0] if len(set(written)) == 1 else f"[{', '.join(written)}]"


def _window(layer: Mapping[str, Any]) -> str:
    """A unit's window of the input and its step, in pixels."""
    window, stride = layer.get("window"), layer.get("stride")
    if not window:
        return "–"
    both = " × ".join(f"{side:g}" for side in window) if isinstance(window, list) else f"{window:g}"
    if not stride:
        return both
    return f"{both}, every {' × '.join(f'{side:g}' for side in stride) if isinstance(stride, list) else f'{stride:g}'}"
