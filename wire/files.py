"""A small file that is either the old one or the new one, whatever happens while it is replaced.

    write beside --fsync--> rename over --fsync of the folder--> it is on the disk

On a file system that keeps what fsync returned for and renames in one step, a power cut at any instant leaves one of
the two whole. Counts are kept with a checksum all the same: what was torn or edited is refused, never believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["load_counts", "replace", "save_counts"]


def replace(path: Path, content: bytes) -> None:
    """Replace `path` (its folder exists) and return when the new content is on the disk. Raises OSError."""
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
    """`replace` the file by `counts` and their checksum. Raises OSError."""
    replace(path, json.dumps(_document(counts)).encode())


def load_counts(path: Path, empty: Mapping[str, int]) -> dict[str, int]:
    """What `save_counts` wrote; `empty` where there is no file. ValueError unless it is whole and has empty's names."""
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
