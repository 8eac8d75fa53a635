"""The durable state of the bridge: per camera and key the last boot id and slot it has read, and the raised alerts.

One small JSON file, replaced atomically, mode 0600. It is written BEFORE what it records is acted on, so that a message
that was read once is refused after any restart; a crash in between loses verdicts, and never reads a release twice.

A record belongs to a key as well. A device whose ledger was made anew counts from 1 again, and has a new key: once that
key is registered (`[[cameras]] public_key`), the camera has a new record. The old one stays, and nothing that was
signed with the old key is ever read again. No entry is ever to be deleted: recordings would be read as new.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wire.errors import ConfigError
from wire.files import make_folder, read_trusted, write_durably

__all__ = ["CameraRecord", "Journal"]

_LOG = logging.getLogger("cloud_bridge")
_VERSION = 2
_FORMER = {"boot_id", "next_slot", "raised"}  # fields of a record of version 1, which knew no keys
_MOST = 1 << 28  # bytes of the file


@dataclass(slots=True)
class CameraRecord:
    """How far one camera's stream was read, under one key.

    Attributes:
        boot_id: Of the stream; -1: nothing was ever read.
        next_slot: The first slot that was not read yet.
        raised: Labels of the alerts that are raised.
        state_boot_id: Of the newest state; -1: none was ever read.
        state_count: Its number within that start.
    """

    boot_id: int = -1
    next_slot: int = 0
    raised: list[str] = field(default_factory=list)
    state_boot_id: int = -1
    state_count: int = -1


_Records = dict[str, dict[str, CameraRecord]]  # `site/camera` -> public key, hex -> record


class Journal:
    """The records of all cameras, and the file they are kept in."""

    def __init__(self, path: Path, records: _Records) -> None:
        self._path = path
        self._records = records
        self._written = self._text()

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read the file, or begin a new one. Raises ConfigError where it is damaged: without it replays would pass."""
        try:
            make_folder(path.parent)
            records = _read(json.loads(read_trusted(path, _MOST)))
        except FileNotFoundError:
            records = {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{path}: unreadable ({error!r}); restore it from a backup. Without one, give every device a new key "
                "and register it (docs/bridge.md), then name another folder in [state] dir: under the "
                "old keys, recordings would be read as new"
            ) from error
        return cls(path, records)

    def record(self, camera: str, key: str) -> CameraRecord:
        """Return the record of a camera under a key, made where there is none; change it in place, then `save`.

        Args:
            camera: `site/camera`.
            key: The camera's public key, hex.
        """
        keys = self._records.setdefault(camera, {})
        if key not in keys:
            raised = [*list(keys.values())[-1].raised] if keys else []
            if keys:
                _LOG.warning("%s: has a new key; what was signed with the old one stays refused", camera)
            keys[key] = CameraRecord(raised=raised)
        return keys[key]

    def save(self) -> None:
        """Make the records durable; writes nothing where nothing has changed."""
        text = self._text()
        if text == self._written:
            return
        write_durably(self._path, text.encode())
        self._written = text

    def _text(self) -> str:
        rows = {
            camera: {key: asdict(record) for key, record in keys.items()}
            for camera, keys in sorted(self._records.items())
        }
        return json.dumps({"version": _VERSION, "cameras": rows}, indent=1) + "\n"


def _read(found: Any) -> _Records:
    """Records of a parsed file. One of version 1 gives none: its messages are of schema 1, and refused for that."""
    if "version" not in found and all(set(row) == _FORMER for row in found.values()):
        return {}
    if found["version"] != _VERSION:
        raise ValueError(f"version {found['version']!r}, expected {_VERSION}")
    return {
        str(camera): {str(key): _record(row) for key, row in keys.items()} for camera, keys in found["cameras"].items()
    }


def _record(row: Mapping[str, Any]) -> CameraRecord:
    numbers = {name: int(row[name]) for name in ("boot_id", "next_slot", "state_boot_id", "state_count")}
    return CameraRecord(raised=[str(label) for label in row["raised"]], **numbers)
