"""The ledger: the durable sum of S^2 that this device has spent, and its boot counter.

    charge(slot) --> reserved on disk, in blocks, before it is granted --> Charge

What is on disk is never below what was published: a block of releases is written and fsynced before its first one is
granted, and after a crash the whole block counts as spent. Time is counted in slots, never read from the wall clock,
which may jump. A charge is a function of slot and configuration alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from wire.errors import LedgerError

__all__ = ["Charge", "Ledger"]

_BLOCK = 120  # slots reserved with one write
_UNIT = 10**12  # S^2 is kept in integer units of 10^-12, rounded up
_CURE = "restore it from a backup, or delete it to start a new ledger (bridges must then register the device again)"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a slot may reveal. granted: the window may be encoded; else the release is noise alone."""
    slot: int
    granted: bool


_Book = dict[str, int]  # what is on disk; day_slots is never above the truth, the others are never below it
_EMPTY: _Book = {"boots": 0, "spent": 0, "releases": 0, "day_slots": 0, "day_releases": 0}


class Ledger:
    """One open ledger in `folder`; `close` gives back what was reserved and not used.

    s_squared: S^2 of one release. slot_s: seconds. max_releases_per_day: 0, or the cut-off after which nothing is
    granted until a day's worth of slots is over. Raises LedgerError where the file is corrupt, unwritable or in use.
    """
    def __init__(self, folder: Path | str, s_squared: Fraction, slot_s: float, max_releases_per_day: int = 0) -> None:
        self._folder, self._file = Path(folder), Path(folder) / "ledger.json"
        self._price, self._maximum = math.ceil(s_squared * _UNIT), max_releases_per_day
        self._day, self._hour = max(1, round(86400 / slot_s)), max(1, round(3600 / slot_s))
        self._slot, self._left = -1, 0  # the last slot charged; how many more the block on disk covers
        self._hour_slots = self._hour_releases = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "ledger.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LedgerError(f"{self._file}: {error.strerror}; make [device] state_dir writable") from error
        try:
            self._book = self._read()
            self.boots = self._book["boots"] = self._book["boots"] + 1  # how often it was opened: it only grows
            self._write(self._book)
        except LedgerError:
            os.close(self._lock)
            raise

    def charge(self, slot: int) -> Charge:
        """Charge `slot`, durably, before anything of it is published. Slots only grow; LedgerError else."""
        if slot <= self._slot:
            raise LedgerError(f"slot {slot} was charged after slot {self._slot}; a slot is charged once")
        self._advance(slot - self._slot)
        self._slot = slot
        if self._left == 0:
            self._write(self._plus(min(_BLOCK, self._allowance())))
            self._left = _BLOCK
        self._left -= 1
        granted = self._allowance() > 0
        if granted:
            self._book = self._plus(1)
            self._hour_releases += 1
        return Charge(slot, granted)

    def _allowance(self) -> int:
        """Releases that may still be granted in this day."""
        return max(0, self._maximum - self._book["day_releases"]) if self._maximum else _BLOCK

    def _plus(self, releases: int) -> _Book:
        """The book with so many more releases."""
        more = {"spent": releases * self._price, "releases": releases, "day_releases": releases}
        return {name: value + more.get(name, 0) for name, value in self._book.items()}

    def _advance(self, slots: int) -> None:
        """Let `slots` slots pass; a new day begins with a block of its own."""
        self._book["day_slots"] += slots
        if self._book["day_slots"] >= self._day:
            self._book["day_slots"] %= self._day
            self._book["day_releases"] = self._left = 0
        self._hour_slots += slots
        if self._hour_slots >= self._hour:
            self._hour_slots %= self._hour
            self._hour_releases = 0

    def totals(self) -> dict[str, float]:
        """S^2 spent in all, in this day and in this hour of slots (the hour since start), and what lies behind it."""
        book, price = self._book, self._price / _UNIT
        made = {"s2_total": book["spent"] / _UNIT, "s2_day": book["day_releases"] * price}
        made |= {"s2_hour": self._hour_releases * price, "spent": float(self._allowance() == 0)}
        return {**made, "releases_total": book["releases"], "releases_day": book["day_releases"], "boots": self.boots}

    def close(self) -> None:
        """Write what was spent to the last release; without this the whole block counts as spent."""
        self._write(self._book)
        os.close(self._lock)

    def _read(self) -> _Book:
        """What is on disk, locked against other processes from here on."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = json.loads(self._file.read_text())
            book: _Book = found["book"]
            counts = all(type(value) is int and value >= 0 for value in book.values())
            sound = counts and book.keys() == _EMPTY.keys() and found == _document(book)
        except FileNotFoundError:
            return dict(_EMPTY)
        except BlockingIOError as error:
            raise LedgerError(f"{self._file}: in use; run one process per [device] state_dir") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LedgerError(f"{self._file}: unreadable ({error!r}); {_CURE}") from error
        if not sound:
            raise LedgerError(f"{self._file}: its checksum is not that of its content; {_CURE}")
        return book

    def _write(self, book: _Book) -> None:
        """Replace the file atomically and wait until file and name are on the disk."""
        new = self._file.with_suffix(".new")
        try:
            with open(new, "w") as out:
                out.write(json.dumps(_document(book)))
                out.flush()
                os.fsync(out.fileno())
            os.replace(new, self._file)
            folder = os.open(self._folder, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except OSError as error:
            raise LedgerError(f"{self._file}: {error.strerror}; free space, make state_dir writable") from error


def _document(book: Mapping[str, int]) -> dict[str, Any]:
    return {"book": book, "sha256": hashlib.sha256(json.dumps(book, sort_keys=True).encode()).hexdigest()}
