"""Which files make a checkpoint folder, and the hash that a manifest pins as "checkpoint". No torch.

config.json + vocab.json + model.safetensors, or model.safetensors.index.json and the shards that it names
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from wire.errors import CheckpointError

__all__ = ["CONFIG", "INDEX", "VOCABULARY", "WEIGHTS", "checkpoint_hash", "weight_files"]

CONFIG, VOCABULARY = "config.json", "vocab.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}\.safetensors")
_CHUNK = 1 << 20


def weight_files(folder: Path | str) -> tuple[str, ...]:
    """List the files that hold the weights: one, or the shards in order of name. Raises CheckpointError."""
    index = Path(folder) / INDEX
    if not index.is_file():
        return (WEIGHTS,)
    try:
        names = sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not a list of shards ({error!r}); copy the folder again") from error
    for name in names:
        if not _SHARD.fullmatch(name):
            raise CheckpointError(
                f"{index}: {name!r} is no valid name of a shard in this folder; copy the folder again"
            )
    return tuple(names)


def checkpoint_hash(folder: Path | str) -> str:
    """Hash the names, sizes and contents of a checkpoint's files; the noise table beside them has its own hash.

    Returns:
        sha256 in hex.

    Raises:
        CheckpointError: A file is missing.
    """
    folder = Path(folder)
    sharded = (INDEX,) if (folder / INDEX).is_file() else ()
    digest = hashlib.sha256()
    for name in (CONFIG, *sharded, *weight_files(folder), VOCABULARY):
        try:
            digest.update(f"{name} {(folder / name).stat().st_size}\n".encode())
            with (folder / name).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            cure = f"run: python -m familial.train --out {folder}"
            raise CheckpointError(f"{folder / name}: {error.strerror}; {cure}") from error
    return digest.hexdigest()
