"""Where an audit's numbers come from: when it was made, with what software, and on which clips.

    manifests + the files they list --SHA-256--> a line for each list: name, clips, hash of the list and of all it lists

Two audits with the same hashes attacked with the same clips. The hash of a list's files is that of their own hashes in
the order of the list.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from familial.data.clips import read_manifests
from wire import __version__
from wire.errors import DataError

__all__ = ["origin"]

_SOFTWARE = ("numpy", "onnxruntime", "torch")


def origin(manifests: Sequence[Path], labels: Sequence[str], faces: Path | None) -> dict[str, Any]:
    """Return date, versions and data of an audit, as JSON values.

    Args:
        manifests: the lists of clips.
        labels: that the lists may use.
        faces: archive or folder of face pictures, where there is one.

    Raises:
        DataError: a list or a file of it cannot be read.
    """
    data = [_entry(path, [clip.file for clip in read_manifests([path], labels)]) for path in manifests]
    if faces is not None:
        files = sorted(path for path in faces.rglob("*") if path.is_file()) if faces.is_dir() else []
        data.append({"list": faces.name, "files": len(files) or 1, "sha256": _hash(files or [faces])})
    versions = {"veilsight": __version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in _SOFTWARE}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "versions": versions,
        "data": data,
    }


def _entry(path: Path, files: Sequence[Path]) -> dict[str, Any]:
    return {"list": path.name, "files": len(files), "sha256_list": _hash([path]), "sha256": _hash(files)}


def _hash(files: Iterable[Path]) -> str:
    """SHA-256 of the hashes of some files, in their order; of a single file, its own."""
    each = [hashlib.sha256(_read(path)) for path in files]
    return each[0].hexdigest() if len(each) == 1 else hashlib.sha256(b"".join(h.digest() for h in each)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); mend the list, or bring the file back") from error
