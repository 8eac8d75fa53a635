"""Check that this machine has the memory and the disk for a job before the job begins. No torch."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

from wire.errors import CheckpointError

__all__ = ["available_memory", "map_large_arrays", "require_disk", "require_memory"]

_GB = 1e9
_M_MMAP_THRESHOLD, _MAPPED_FROM = -3, 1 << 20  # of malloc.h; bytes


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping (Linux), or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(found["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in found else None


_CURE = "end other programs, take a smaller base, or use a machine with more"


def require_memory(needed: int, doing: str, cure: str = _CURE) -> None:
    """Raise CheckpointError, with the cure, unless `needed` bytes of memory are available for `doing`."""
    there = available_memory()
    if there is not None and there < needed:
        raise CheckpointError(
            f"{doing} needs {needed / _GB:.1f} GB of memory, {there / _GB:.1f} GB are available; {cure}"
        )


def require_disk(folder: Path, needed: int, doing: str) -> None:
    """Raise CheckpointError unless the disk of `folder`, which need not exist yet, has `needed` bytes free."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise CheckpointError(
            f"{doing} writes {needed / _GB:.1f} GB, {free / _GB:.1f} GB are free at {place}; "
            "free some, or give a folder on another disk with --out"
        )


def map_large_arrays() -> bool:
    """Let every array of this process from 1 MB on be a mapping of its own, which goes back when it is freed.

    glibc otherwise takes arrays of up to 32 MB from one heap once one of that size was freed. Those of a training come
    and go in an order that leaves gaps, and the heap grows to far more than is in use.

    Returns:
        Whether the C library took it; another one than glibc has no such heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM) == 1
