"""Which files make a checkpoint folder, and the hash that a manifest pins as "checkpoint". No torch.

config.json + vocab.json + model.safetensors, or model.safetensors.index.json and the shards that it names
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from wire.errors import CheckpointError

__all__ = ["CONFIG", "INDEX", "VOCABULARY", "WEIGHTS", "base_hash", "checkpoint_hash", "weight_files"]

CONFIG, VOCABULARY = "config.json", "vocab.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}\.safetensors")
_HASH = re.compile(r"[0-9a-f]{64}")
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


def base_hash(folder: Path | str) -> str:
    """The hash of the checkpoint that this one was quantised from, as its config says; "" where it was not.

    The edge's half of both is the same, so whoever has the base's engine may read with either.

    Raises:
        CheckpointError: config.json is damaged.
    """
    path = Path(folder) / CONFIG
    if not path.exists():
        return ""
    try:
        quantization = json.loads(path.read_text()).get("quantization")
        base = "" if quantization is None else quantization["base"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: says nothing of its quantization ({error!r}); copy the folder again") from error
    if quantization is not None and not (isinstance(base, str) and _HASH.fullmatch(base)):
        raise CheckpointError(f"{path}: quantization names the base {base!r}, no hash; copy the folder again")
    return str(base)


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
