"""The durable state of the bridge: per camera and key the last boot id and slot it has read, and the raised alerts.

One small JSON file, replaced atomically, mode 0600. It is written once the broker has the verdicts on what it records,
and before the broker is told that the messages need not come again. So a crash repeats verdicts (their boot id and last
slot are the same), and loses none of messages that were acknowledged. A message that the journal records is refused
after any restart. A graceful end also keeps the releases of each camera's window.

A record belongs to a key as well. A device whose ledger was made anew counts from 1 again, and has a new key: once that
key is registered (`[[cameras]] public_key`), the camera has a new record. The old one stays, and nothing that was
signed with the old key is ever read again. No entry is ever to be deleted: recordings would be read as new.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wire.errors import ConfigError
from wire.files import make_folder, read_trusted, write_durably

__all__ = ["CameraRecord", "Journal", "own_folder"]

_LOG = logging.getLogger("cloud_bridge")
_VERSION = 3  # 3 has the windows; one of version 2 is read, too
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
        window: What a graceful end has kept of the stream (`CameraSession.close`); empty otherwise.
        in_a_row: As `AlertBook` counts, at a graceful end; empty otherwise.
    """

    boot_id: int = -1
    next_slot: int = 0
    raised: list[str] = field(default_factory=list)
    state_boot_id: int = -1
    state_count: int = -1
    window: dict[str, Any] = field(default_factory=dict)
    in_a_row: dict[str, int] = field(default_factory=dict)


_Records = dict[str, dict[str, CameraRecord]]  # `site/camera` -> public key, hex -> record


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Keep other bridges out of a state folder for the block. Raises ConfigError where one is in it."""
    file = folder / "bridge.lock"
    try:
        make_folder(folder)
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; make [state] dir writable") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, b"%d" % os.getpid())
        yield
    except BlockingIOError as error:
        owner = os.read(lock, 20).decode(errors="replace")
        raise ConfigError(
            f"[state] dir {folder} is in use by another bridge (process {owner}); stop that one, or give each bridge "
            "its own [state] dir and its own cameras: two on one state would read every message twice"
        ) from error
    finally:
        os.close(lock)


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
    if found["version"] not in (2, _VERSION):
        raise ValueError(f"version {found['version']!r}, expected {_VERSION}")
    return {
        str(camera): {str(key): _record(row) for key, row in keys.items()} for camera, keys in found["cameras"].items()
    }


def _record(row: Mapping[str, Any]) -> CameraRecord:
    numbers = {name: int(row[name]) for name in ("boot_id", "next_slot", "state_boot_id", "state_count")}
    window, in_a_row = row.get("window", {}), row.get("in_a_row", {})
    if not isinstance(window, dict) or not all(type(count) is int for count in in_a_row.values()):
        raise ValueError("window or in_a_row is not what a graceful end has written")
    return CameraRecord(
        raised=[str(label) for label in row["raised"]], window=window, in_a_row=dict(in_a_row), **numbers
    )
