"""engine.json: the record, beside a device's engine files, of what they were made from and for which device.

    manifest + the device's own facts --> key        engine files --sha256--> record

An engine file is run only if every field of its record's key is that of the device and its hash is the recorded one: a
file of another GPU, TensorRT, system release, graph or precision is refused with the field that differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError
from wire.files import write_whole

__all__ = ["ENGINES", "RECORD", "EngineRecord", "engine_key", "engine_parts"]

ENGINES: Mapping[str, str] = {"perceive": "perceive.engine", "encode": "encode.engine"}
"""Graph -> its engine file: exactly the bytes that the builder returned. `perceive` only where the folder has it."""
RECORD = "engine.json"
_PARTS = {"encode"}  # of every record
_CURE = "make it again: python -m export.install"


def engine_parts(manifest: EngineManifest) -> tuple[str, ...]:
    """The graphs of an engine folder that are run as engine files, in the order in which they are run."""
    return tuple(part for part in ENGINES if part in manifest.graphs())


def engine_key(manifest: EngineManifest, backend: str, device: Mapping[str, str]) -> dict[str, str]:
    """Compute the key that must equal the recorded one before an engine file is run.

    Args:
        manifest: Of the engine folder.
        backend: Such as "tensorrt".
        device: Facts of the device, such as its TensorRT version.
    """
    external = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(manifest.external.items()))
    return {
        "backend": backend,
        **{part: manifest.hashes[part] for part in engine_parts(manifest)},
        "external": hashlib.sha256(external.encode()).hexdigest() if external else "",
        "precision": manifest.precision,
        "calibration": manifest.hashes["calibration"],
        **device,
    }


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What the engine files of a device were made from, and how.

    Attributes:
        key: See `engine_key`.
        options: How the files were made.
        engines: Graph -> sha256 hex of its file.
    """

    key: Mapping[str, str]
    options: Mapping[str, str]
    engines: Mapping[str, str]

    def save(self, folder: Path) -> None:
        """Write engine.json."""
        write_whole(folder / RECORD, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> EngineRecord:
        """Read engine.json. Raises EngineError where it is missing or malformed."""
        try:
            found = json.loads((folder / RECORD).read_text())
            tables = {str(name): {str(k): str(v) for k, v in table.items()} for name, table in found.items()}
            if set(tables) != {"key", "options", "engines"} or not _PARTS <= set(tables["engines"]) <= set(ENGINES):
                raise ValueError(f"holds {sorted(tables)}")
            return cls(**tables)
        except OSError as error:
            raise EngineError(f"{folder / RECORD}: {error.strerror}; {_CURE}") from error
        except (ValueError, AttributeError) as error:
            raise EngineError(f"{folder / RECORD}: unreadable ({error}); {_CURE}") from error

    def why_stale(self, key: Mapping[str, str]) -> str:
        """Name every field in which `key` differs from this record's; "" where there is none."""
        names = sorted({*self.key, *key})
        pairs = ((name, self.key.get(name, "nothing"), key.get(name, "nothing")) for name in names)
        return "; ".join(f"{name} changed ({_short(a)} -> {_short(b)})" for name, a, b in pairs if a != b)

    def read(self, folder: Path, part: str) -> bytes:
        """Read `part`'s engine file. Raises EngineError unless it is the recorded one."""
        if part not in self.engines:
            raise EngineError(f"{folder / RECORD}: holds no engine file of {part}; {_CURE}")
        file = folder / ENGINES[part]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise EngineError(f"{file}: {error.strerror}; {_CURE}") from error
        if hashlib.sha256(data).hexdigest() != self.engines[part]:
            raise EngineError(f"{file}: not the file that {RECORD} records; {_CURE}")
        return data


def _short(value: str) -> str:
    return value[:12] if len(value) == 64 else value or "nothing"
