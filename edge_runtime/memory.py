"""Memory that is not used goes back to the system: what loading a model or a library needed is needed once."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["give_back"]

_M_MMAP_THRESHOLD = -3  # of glibc's mallopt


def give_back() -> None:
    """Make glibc return memory to the system: what is free, now; later, every block of 64 kB at its `free`."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
