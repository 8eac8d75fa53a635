"""The ledger: the durable sum of S^2 that this device has spent, and its boot counter.

    open_key   no key, no ledger --> empty ledger of a new key --fsync--> the key       (a cut between: done again)
    charge(slot, cost) --> reserved on disk, in blocks, before it is granted --> Charge

A ledger belongs to one key, and a key to one ledger. A bridge knows by the boot counter which messages of a key are
old; a lost ledger would begin to count again, and recordings would pass as new. So a key whose ledger is gone is
refused: a new ledger means a new key, and with it the bridge refuses every recording.

The sum on disk is never below what was published: a block of slots is written and fsynced before its first release is
granted, and after a crash the whole block counts as spent. Time is counted in slots, never read from a clock, which
may jump; a slot that the device missed is charged like any other. So whether a slot is granted depends only on its
number, the costs, the budgets and what the ledger held at the start.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from wire import files as durable
from wire.errors import LedgerError
from wire.privacy.budget import slots_an_hour
from wire.privacy.level_rule import UNIT, units
from wire.protocol.keys import DeviceKey

__all__ = ["Charge", "Ledger", "open_key", "start_ledger"]

log = logging.getLogger("veilsight.ledger")
_BLOCK = 120  # slots that one write covers
_TRIES = 200  # a child that is being spawned has our locks, too, until it is another program
_NONE = Fraction(0)
_NAME = "ledger.json"
_CURE = (
    "a new ledger needs a new key: remove both, the ledger and [device] key; the next start makes them, and the new "
    "public key must be registered at the bridge"
)


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
_SUMS = ("spent", "hour_spent", "day_spent")
_EMPTY: _Book = {"boots": 0, "slots": 0, "releases": 0, **dict.fromkeys(_SUMS, 0)}


def open_key(path: Path | str, folder: Path | str) -> DeviceKey:
    """Read the device's key; where there is neither a key nor a used ledger, make a key and a ledger for it.

    The ledger is written first. Where the power is cut before the key is, it names a key that never signed anything,
    and the next start does both again.

    Args:
        path: `[device] key`.
        folder: `[device] state_dir`.

    Raises:
        DeviceKeyError: The key cannot be read or written.
        LedgerError: The key is missing, but its ledger was used; or the ledger is in use.
    """
    with suppress(FileNotFoundError):
        return DeviceKey.load(path)
    with _locked(Path(folder)):
        with suppress(FileNotFoundError):
            return DeviceKey.load(path)  # another process made it in the meantime
        key = DeviceKey.new()
        _start(Path(folder), key.public.hex)
        key.save(path)
        return key


def start_ledger(folder: Path | str, key_id: str) -> None:
    """Write an empty ledger for a key that never signed anything. Raises LedgerError where there is a used one."""
    with _locked(Path(folder)):
        _start(Path(folder), key_id)


def _start(folder: Path, key_id: str) -> None:
    file = folder / _NAME
    try:
        book, owner = durable.load_counts(file, _EMPTY)
        if any(book.values()):
            raise LedgerError(
                f"{file}: belongs to the key {owner[:16]}, which is missing; restore the key, or: {_CURE}"
            )
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise LedgerError(f"{file}: unreadable ({error}); {_CURE}") from error
    try:
        durable.save_counts(file, _EMPTY, key_id)
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}; free space, make state_dir writable") from error


def _lock(folder: Path) -> int:
    """Lock the ledger of `folder` against other processes; returns the file to close."""
    file = folder / _NAME
    try:
        durable.make_folder(folder)
        lock = os.open(folder / "ledger.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}; make [device] state_dir writable") from error
    for _ in range(_TRIES):
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(0.01)
    os.close(lock)
    raise LedgerError(f"{file}: in use; run one process per [device] state_dir")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _lock(folder)
    try:
        yield
    finally:
        os.close(lock)


class Ledger:
    """One open ledger; `close` gives back what was reserved and not used.

    Args:
        folder: Where its file is.
        price: S^2 of one release, where `charge` is given no cost.
        slot_s: Seconds of a slot.
        per_hour: S^2 after which nothing is granted until an hour's slots are over; 0: no limit. Hours and days do not
            slide: a span across two of them holds twice as much at most.
        per_day: Likewise, for 24 times as many slots.
        key_id: The device's public key in hex. A ledger of 0.1 names none: it goes on as this key's.

    Raises:
        LedgerError: The file is missing, corrupt, another key's, cannot be written, or is in use.
    """

    def __init__(
        self,
        folder: Path | str,
        price: Fraction,
        slot_s: float,
        per_hour: Fraction = _NONE,
        per_day: Fraction = _NONE,
        *,
        key_id: str,
    ) -> None:
        self._file, self._key_id = Path(folder) / _NAME, key_id
        self._price, self._hour, self._day = units(price), slots_an_hour(slot_s), 24 * slots_an_hour(slot_s)
        self._budgets = {"hour_spent": units(per_hour), "day_spent": units(per_day)}
        self._slot, self._left, self._written = -1, 0, 0  # last slot charged; units that the disk covers; its slots
        self._full = False  # the disk, when it was last written to
        self._lock_file = _lock(Path(folder))
        try:
            self._book = self._read()
            self.boots = self._book["boots"] = self._book["boots"] + 1  # how often it was opened: it only grows
            self._write(self._book)
        except BaseException:
            os.close(self._lock_file)
            raise

    def charge(self, slot: int, *costs: int) -> Charge:
        """Charge `slot`, durably, before anything of it is published, with the first of `costs` that the budgets allow.

        Args:
            slot: Greater than any before; the slots in between are charged as well.
            costs: Units of S^2 above 0; none: the ledger's price.

        Where the disk is full or read-only, nothing is granted until it is not: noise alone costs nothing.

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
            cost = self._reserve(cost)
        return Charge(slot, cost > 0, cost)

    def _reserve(self, cost: int) -> int:
        """Write the block that begins with the slot just charged; returns its cost, 0 where the disk takes nothing."""
        try:
            self._write(self._plus(_BLOCK - 1, self._left))
        except LedgerError as error:
            if not durable.disk_takes_nothing(error):
                raise
            if not self._full:
                log.error("%s; until then every release is noise alone", error)
            self._book = self._plus(-(cost > 0), -cost)  # it is not granted, so it reveals nothing
            self._left, self._full = -1, True  # the next one tries again
            return 0
        if self._full:
            log.warning("%s: it can be written again", self._file)
        self._full = False
        return cost

    def _pass(self, costs: tuple[int, ...]) -> int:
        """Charge one slot in memory; returns its cost, 0 where no budget is left for it."""
        for name, length in (("hour_spent", self._hour), ("day_spent", self._day)):
            if self._book["slots"] % length == 0:
                self._book[name], self._left = 0, -1  # a new hour has a block of its own
        self._book["slots"] += 1
        cost = next((cost for cost in costs if self._fits(cost)), 0)
        self._book["releases"] += cost > 0
        for name in _SUMS:
            self._book[name] += cost
        return cost

    def _fits(self, cost: int) -> bool:
        """Whether no budget forbids `cost`."""
        return all(not budget or cost <= budget - self._book[name] for name, budget in self._budgets.items())

    def _remaining(self) -> list[int | None]:
        """What this hour and this day have left, in units; None where there is no budget."""
        return [budget - self._book[name] if budget else None for name, budget in self._budgets.items()]

    def _plus(self, releases: int, cost: int) -> _Book:
        """The book after `releases` more, which cost `cost` in all."""
        more = {"releases": releases, **dict.fromkeys(_SUMS, cost)}
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
        try:
            self._write(self._book)
        except LedgerError as error:
            if not durable.disk_takes_nothing(error):
                raise
            log.error("%s; the block that was reserved counts as spent", error)
        os.close(self._lock_file)

    def _read(self) -> _Book:
        """Read what is on disk, which must be this key's."""
        try:
            book, owner = durable.load_counts(self._file, _EMPTY)
        except FileNotFoundError as error:
            raise LedgerError(f"{self._file}: missing, but there is a key that it belonged to; {_CURE}") from error
        except (OSError, ValueError) as error:
            raise LedgerError(f"{self._file}: unreadable ({error}); {_CURE}") from error
        if owner not in ("", self._key_id):
            raise LedgerError(f"{self._file}: is of the key {owner[:16]}, this is {self._key_id[:16]}; {_CURE}")
        return book

    def _write(self, book: _Book) -> None:
        """Replace the file and wait until it is on the disk."""
        try:
            durable.save_counts(self._file, book, self._key_id)
        except OSError as error:
            raise LedgerError(f"{self._file}: {error.strerror}; free space, make state_dir writable") from error
        self._written = book["slots"]
