"""Files whose hashes are pinned: what is read is what was hashed.

file --sha256--> compared with the pinned hash          files --copied and hashed in one pass--> a private folder
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wire.errors import ManifestError

__all__ = ["CURE", "copied", "read", "same"]

CURE = "build the engine again: python -m export.build_engine"

_CHUNK = 1 << 20


def same(name: str, found: str, pinned: str) -> None:
    """Raise ManifestError unless the hash of the file `name` is the pinned one."""
    if found != pinned:
        raise ManifestError(f"{name}: sha256 {found[:12]}..., but the manifest says {pinned[:12]}...; {CURE}")


def read(file: Path, pinned: str) -> bytes:
    """Read a file once: what is returned has the pinned hash. Raises ManifestError."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ManifestError(f"{file}: {error.strerror}; {CURE}") from error
    same(file.name, hashlib.sha256(data).hexdigest(), pinned)
    return data


@contextmanager
def copied(folder: Path | str, pinned: Mapping[str, str], scratch: Path | str | None = None) -> Iterator[Path]:
    """Give a private copy of files whose bytes cannot change after they were hashed; deleted at the end of the block.

    Args:
        folder: Where the files lie.
        pinned: File name -> sha256 hex.
        scratch: Where to put the copy; None: where the system keeps temporary files.

    Raises:
        ManifestError: A file has another hash, or cannot be copied.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="veilsight-", dir=scratch) as copy:
            for name, expected in pinned.items():
                with (Path(folder) / name).open("rb") as source, (Path(copy) / name).open("xb") as target:
                    digest = hashlib.sha256()
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        target.write(chunk)
                same(name, digest.hexdigest(), expected)
            yield Path(copy)
    except OSError as error:
        raise ManifestError(f"{error.filename}: {error.strerror}; {CURE}") from error
