"""Atomic file writes: a reader finds the old content or the new one, never a part of it.

    write_whole, whole_file   write beside --> rename over                      for caches, reports, weights
    write_durably             write beside --fsync--> rename over --fsync of the folder-->  for what must survive

`write_durably` returns when the content is on the disk. If the file system keeps what was fsynced, and renames
atomically, a power cut at any instant leaves the old file or the new one. Counts also carry a checksum, so that a
damaged or edited file is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["load_counts", "save_counts", "whole_file", "write_durably", "write_whole"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to. It is renamed to `path` at the end of the block, or deleted on an error.

    It has the suffix of `path`, for writers that choose the format by it, and the process id in its name, so that two
    processes never write to the same one. Raises OSError.
    """
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace `path` (its folder exists) atomically; text is written as UTF-8. Raises OSError."""
    with whole_file(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` (its folder exists) and return when the new content is on the disk; mode 0600. Raises OSError."""
    beside = path.with_name(path.name + ".new")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_counts(path: Path, counts: Mapping[str, int]) -> None:
    """Write `counts` and their checksum durably. Raises OSError."""
    write_durably(path, json.dumps(_document(counts)).encode())


def load_counts(path: Path, empty: Mapping[str, int]) -> dict[str, int]:
    """Read what `save_counts` wrote; `empty` where there is no file.

    Raises:
        ValueError: The file is damaged, or holds other names than `empty`.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return dict(empty)
    except RecursionError as error:
        raise ValueError("not a document of counts") from error
    counts = found.get("counts") if isinstance(found, dict) else None
    if not isinstance(counts, dict) or counts.keys() != empty.keys():
        raise ValueError(f"it does not hold {', '.join(empty)}")
    if not all(type(value) is int and value >= 0 for value in counts.values()) or found != _document(counts):
        raise ValueError("its checksum is not that of its content")
    return counts


def _document(counts: Mapping[str, int]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(counts, sort_keys=True).encode()).hexdigest()
    return {"counts": dict(counts), "sha256": digest}
