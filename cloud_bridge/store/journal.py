"""The durable state of the bridge: per camera the last boot id and slot it has read, and the raised alerts.

One small JSON file, replaced atomically. It is written BEFORE what it records is acted on, so that a message that was
read once is refused after any restart; a crash in between loses verdicts, and never reads a release twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from wire.errors import ConfigError
from wire.files import make_folder, read_trusted, write_durably

__all__ = ["CameraRecord", "Journal"]

_MOST = 1 << 28  # bytes of the file: a line for each camera


@dataclass(slots=True)
class CameraRecord:
    """How far one camera's stream was read.

    Attributes:
        boot_id: Of the stream; -1: nothing was ever read.
        next_slot: The first slot that was not read yet.
        raised: Labels of the alerts that are raised.
    """

    boot_id: int = -1
    next_slot: int = 0
    raised: list[str] = field(default_factory=list)


class Journal:
    """The records of all cameras, by `site/camera`, and the file they are kept in."""

    def __init__(self, path: Path, records: dict[str, CameraRecord]) -> None:
        self._path = path
        self._records = records
        self._written = self._text()

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read the file, or begin a new one. Raises ConfigError where it is damaged: without it replays would pass."""
        try:
            make_folder(path.parent)
            try:
                found = json.loads(read_trusted(path, _MOST))
            except FileNotFoundError:
                found = {}
            records = {
                str(name): CameraRecord(int(row["boot_id"]), int(row["next_slot"]), [str(x) for x in row["raised"]])
                for name, row in found.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}: unreadable ({error!r}); delete it to accept every camera's next message as its first"
            ) from error
        return cls(path, records)

    def record(self, camera: str) -> CameraRecord:
        """Return the record of a camera, made where there is none; change it in place, then `save`."""
        return self._records.setdefault(camera, CameraRecord())

    def save(self) -> None:
        """Make the records durable; writes nothing where nothing has changed."""
        text = self._text()
        if text == self._written:
            return
        write_durably(self._path, text.encode())
        self._written = text

    def _text(self) -> str:
        rows = {
            name: {"boot_id": row.boot_id, "next_slot": row.next_slot, "raised": row.raised}
            for name, row in sorted(self._records.items())
        }
        return json.dumps(rows, indent=1) + "\n"
