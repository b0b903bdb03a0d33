"""The machine set up for the work of a whole process; imports no torch, for half of it has effect only before that."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_memory() -> bool:
    """Let the allocator keep what it has got, instead of returning every large tensor to the system.

    The same results, at up to twice the speed on a CPU, for a process that stays as large as it was at its peak.
    Only glibc has it; returns whether it took effect. The command line and the page call it at start; importing
    the library never does.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def short_spin() -> None:
    """Ask OpenMP's waiting threads to spin briefly, so that a busy machine does not slow down tenfold.

    Has effect only before torch is imported, and never over the user's own setting.
    """
    if "GOMP_SPINCOUNT" not in os.environ and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = "10000"
