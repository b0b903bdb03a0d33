"""Imports run one way: the ground never knows the rooms above it."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "seewhy"

#: from the ground up; a room may import from its own floor and from those below
FLOORS = (
    {"errors", "units", "rng", "machine", "intervals"},
    {"data", "engine", "classifier", "method", "selftest", "result"},
    {"lens", "zoo"},
    {"look", "explain", "attack", "tune"},
    {"humans"},
    {"run"},
    {"report"},
    {"cli", "__main__", "__init__"},
)
#: what a lower floor may ask of a higher one, at the moment when it is called
LATE = {
    ("method", "look"),  # the registry imports the rooms, which fill it
    ("method", "explain"),
    ("method", "attack"),
    ("look", "report"),  # a result draws itself
    ("explain", "report"),
    ("attack", "report"),
    ("humans", "report"),
}


def floor(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seewhy"):
        parts = (node.module or "").split(".")
        return [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("seewhy.")]
    return []


def test_imports_run_one_way() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        tree = ast.parse(path.read_text())
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            for other in imported(node):
                if other in ("__version__",) or floor(other) <= floor(room):
                    continue
                if (room, other) in LATE and id(node) not in top:
                    continue
                wrong.append(f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_the_core_needs_no_torchvision() -> None:
    allowed = {"zoo/torchvision_models.py", "zoo/timm_models.py"}
    for path in SOURCE.rglob("*.py"):
        names = {
            (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        if str(path.relative_to(SOURCE)) not in allowed:
            assert not names & {"torchvision", "timm"}, path
