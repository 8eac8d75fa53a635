"""Ground floor. A small file that is either the old one or the new one, whatever happens while it is replaced.

    write beside --fsync--> rename over --fsync of the folder--> it is on the disk

On a file system that keeps what fsync returned for and renames in one step, a power cut at any instant leaves one of
the two whole. Whoever reads the file holds its content against a checksum or a signature all the same.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["replace"]


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
