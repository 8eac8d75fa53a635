"""The ledger: the durable sum of S^2 that this device has spent, and its boot counter.

    charge(slot, cost) --> reserved on disk, in blocks, before it is granted --> Charge

The sum on disk is never below what was published: a block of slots is written and fsynced before its first release is
granted, and after a crash the whole block counts as spent. Time is counted in slots, never read from a clock, which
may jump; a slot that the device missed is charged like any other. So whether a slot is granted depends only on its
number, the costs, the budgets and what the ledger held at the start.
"""

from __future__ import annotations

import fcntl
import math
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from wire import files as durable
from wire.errors import LedgerError
from wire.privacy.budget import slots_an_hour
from wire.privacy.level_rule import UNIT, units

__all__ = ["Charge", "Ledger"]

_BLOCK = 120  # slots that one write covers
_NONE = Fraction(0)
_CURE = "restore it from a backup, or delete it to start a new ledger (bridges must then register the device again)"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a slot may reveal.

    Attributes:
        slot: Its number.
        granted: The window may be encoded; else the release is noise alone.
        cost: What was charged, in units of S^2 (`wire.privacy.level_rule.UNIT`).
    """

    slot: int
    granted: bool
    cost: int = 0


_Book = dict[str, int]  # on disk, "slots" is at most the true number and all others are at least the true ones
_EMPTY: _Book = {"boots": 0, "slots": 0, "releases": 0, "spent": 0, "hour_spent": 0, "day_spent": 0}


class Ledger:
    """One open ledger; `close` gives back what was reserved and not used.

    Args:
        folder: Where its file is.
        price: S^2 of one release, where `charge` is given no cost.
        slot_s: Seconds of a slot.
        per_hour: S^2 after which nothing is granted until an hour's slots are over; 0: no limit. Hours and days do not
            slide: a span across two of them holds twice as much at most.
        per_day: Likewise, for 24 times as many slots.

    Raises:
        LedgerError: The file is corrupt, cannot be written, or is in use.
    """

    def __init__(
        self, folder: Path | str, price: Fraction, slot_s: float, per_hour: Fraction = _NONE, per_day: Fraction = _NONE
    ) -> None:
        self._folder, self._file = Path(folder), Path(folder) / "ledger.json"
        self._price, self._hour, self._day = units(price), slots_an_hour(slot_s), 24 * slots_an_hour(slot_s)
        self._budgets = {"hour_spent": units(per_hour), "day_spent": units(per_day)}
        self._slot, self._left, self._written = -1, 0, 0  # last slot charged; units that the disk covers; its slots
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

    def charge(self, slot: int, *costs: int) -> Charge:
        """Charge `slot`, durably, before anything of it is published, with the first of `costs` that the budgets allow.

        Args:
            slot: Greater than any before; the slots in between are charged as well.
            costs: Units of S^2 above 0; none: the ledger's price.

        Raises:
            LedgerError: The disk fails, or the arguments are not as above; the process must stop.
        """
        if slot <= self._slot or not all(cost > 0 for cost in costs):
            raise LedgerError(f"slot {slot} at {costs} after slot {self._slot}; a slot is charged once, above 0")
        passed, self._slot, before = slot - self._slot, slot, self._book["spent"]
        if passed > 2 * self._day:  # days without a release: whole days but one are only counted
            self._book["slots"] += (skipped := passed // self._day * self._day - self._day)
            passed -= skipped
        for _ in range(passed):
            cost = self._pass(costs or (self._price,))
        self._left -= self._book["spent"] - before
        if self._left < 0 or self._book["slots"] - self._written >= _BLOCK:
            self._left = max(0, min([(_BLOCK - 1) * cost, *(left for left in self._remaining() if left is not None)]))
            self._write(self._plus(_BLOCK - 1, self._left))
        return Charge(slot, cost > 0, cost)

    def _pass(self, costs: tuple[int, ...]) -> int:
        """Charge one slot in memory; returns its cost, 0 where no budget is left for it."""
        for name, length in (("hour_spent", self._hour), ("day_spent", self._day)):
            if self._book["slots"] % length == 0:
                self._book[name], self._left = 0, -1  # a new hour has a block of its own
        self._book["slots"] += 1
        fits = (cost for cost in costs if all(left is None or cost <= left for left in self._remaining()))
        cost = next(fits, 0)
        self._book = self._plus(cost > 0, cost)
        return cost

    def _remaining(self) -> list[int | None]:
        """What this hour and this day have left, in units; None where there is no budget."""
        return [budget - self._book[name] if budget else None for name, budget in self._budgets.items()]

    def _plus(self, releases: int, cost: int) -> _Book:
        """The book after `releases` more, which cost `cost` in all."""
        more = {"releases": releases, "spent": cost, "hour_spent": cost, "day_spent": cost}
        return {name: value + more.get(name, 0) for name, value in self._book.items()}

    def totals(self) -> dict[str, float]:
        """S^2 and bits spent in this hour, this day and in total; releases; boots."""
        made: dict[str, float] = {"releases_total": self._book["releases"], "boots": self.boots}
        for name, of in (("hour", "hour_spent"), ("day", "day_spent"), ("total", "spent")):
            s_squared = self._book[of] / UNIT
            made |= {f"s2_{name}": s_squared, f"bits_{name}": s_squared / math.log(4)}
        return made

    def close(self) -> None:
        """Write what was spent exactly; without this the whole reserved block counts as spent."""
        self._write(self._book)
        os.close(self._lock)

    def _read(self) -> _Book:
        """Lock the ledger against other processes, and read what is on disk."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return durable.load_counts(self._file, _EMPTY)
        except BlockingIOError as error:
            raise LedgerError(f"{self._file}: in use; run one process per [device] state_dir") from error
        except (OSError, ValueError) as error:
            raise LedgerError(f"{self._file}: unreadable ({error}); {_CURE}") from error

    def _write(self, book: _Book) -> None:
        """Replace the file and wait until it is on the disk."""
        try:
            durable.save_counts(self._file, book)
        except OSError as error:
            raise LedgerError(f"{self._file}: {error.strerror}; free space, make state_dir writable") from error
        self._written = book["slots"]
