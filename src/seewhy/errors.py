"""What can go wrong: each error is one readable sentence that says what was expected, what came, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SeewhyError(Exception):
    """Base of every error that seewhy raises on purpose."""


class SpecError(SeewhyError, ValueError):
    """A spec string, an option or a value that cannot be understood."""


class ModelError(SeewhyError):
    """A model that cannot be loaded, or is not an image classifier."""


class MissingExtra(ModelError, ImportError):
    """A part that needs packages which are not installed."""

    def __init__(self, what: str, extra: str, missing: str = "") -> None:
        because = f" ({missing} is missing)" if missing else ""
        super().__init__(f"{what} needs more packages{because}; install them with: pip install 'seewhy[{extra}]'")


class DataError(SeewhyError):
    """An image or a data set that cannot be read."""


class InputError(SeewhyError, ValueError):
    """Images, targets or labels that do not fit the contract."""


class LayerError(SeewhyError, LookupError):
    """A layer or operation that the network does not have."""


class UnknownOperation(SeewhyError):
    """A lens met an operation that it has no rule for."""


class NothingToExplain(SeewhyError):
    """The output does not depend on what was asked about."""


class BudgetSpent(SeewhyError):
    """An attack asked for more queries than its view grants."""


class RunError(SeewhyError):
    """A run's directory that cannot be used."""


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """Return `; did you mean "a" or "b"?` for the names nearest to `name`, or an empty string.

    >>> nearest("tigr cat", ["tiger cat", "tabby"])
    '; did you mean "tiger cat"?'
    """
    by_lower: dict[str, str] = {}
    for candidate in names:
        by_lower.setdefault(candidate.lower(), candidate)
    wanted = name.lower()
    found = difflib.get_close_matches(wanted, by_lower, n=count, cutoff=0.6)
    found += [key for key in by_lower if wanted and wanted in key and key not in found][: count - len(found)]
    quoted = " or ".join(f'"{by_lower[key]}"' for key in found)
    return f"; did you mean {quoted}?" if found else ""
