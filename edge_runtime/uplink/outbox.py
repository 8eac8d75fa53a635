"""The outbox: what is released and not yet delivered, in order, on disk where that is possible.

    put --> memory --save--> disk (edge_runtime/uplink/shelf.py)
            |                |
            +------ take ----+--> the network --settle--> forgotten

It takes sealed messages alone, so nothing but what was to be published can be in it; what is read back must be signed
by this device's key, or it is left out. Bounded by bytes and age: the oldest goes first, and is counted. Where the disk
takes nothing, the newest messages are kept in memory. Which message goes when follows from the connection, the clock
and the order of the messages alone. One thread calls it, and nothing of it raises for what a disk does.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from edge_runtime.uplink.segment import KINDS, Mark, Record, Stamp
from edge_runtime.uplink.shelf import Shelf
from wire.errors import MessageError
from wire.files import disk_is_full
from wire.protocol.message import Sealed

__all__ = ["Bounds", "Outbox", "Parcel"]

log = logging.getLogger("veilsight.outbox")
_AT_HAND = 64  # messages that are in memory as well as on disk
_SYNC_S = 60.0  # while something waits: what a power cut may lose
_CLOCK_SET_S = 1_700_000_000  # a wall clock before 2023 was never set


class Bounds(NamedTuple):
    """What the outbox may hold.

    Attributes:
        bytes: On disk, at most; 0: nothing is written there.
        age_s: What is older is dropped.
        memory: Messages that the disk has not taken.
    """

    bytes: int
    age_s: float
    memory: int


class Parcel(NamedTuple):
    """A message to be sent now. number: for `settle`; left_s: until it is too old."""

    number: int
    name: str
    message: Sealed
    left_s: float


class _Item(NamedTuple):
    number: int
    record: Record
    message: Sealed


class Outbox:
    """A queue of messages that outlives the process.

    Attributes:
        dropped: Messages given up since the start since the bound on bytes, or the disk's or the memory's end, was met.
        expired: ... since they were too old.
    """

    def __init__(
        self,
        folder: Path,
        bounds: Bounds,
        check: Callable[[str, bytes], Sealed],
        now: Callable[[], Stamp] | None = None,
        run: bytes | None = None,
    ) -> None:
        """Open the outbox in `folder`, or one in memory where that cannot be.

        Args:
            folder: Its own; made where it is missing.
            bounds: What it may hold.
            check: (topic's name, payload) -> the payload, where this device signed it; else MessageError.
            now: The clocks of the system.
            run: Names this run of the system, 16 bytes.
        """
        self._bounds, self._check, self._now = bounds, check, now or _now
        self._run = run or _run()
        self._memory: deque[_Item] = deque()  # the newest messages, in order
        self._done: set[int] = set()  # delivered, after others that are not
        self._skips: dict[int, int] = {}  # first number of messages that are gone -> the number after them
        self._refused = self.dropped = self.expired = 0
        self._complained, self._synced_s = False, time.monotonic()
        self._shelf = self._open(folder) if bounds.bytes else None
        mark = self._shelf.mark if self._shelf else Mark(0, 0)
        self._next = self._saved = self._shelf.next if self._shelf else 0
        self._first = self._next  # number of the first message of this process
        self._settled = self._cursor = min(mark.settled, self._next)
        self._held: _Item | None = None  # read from disk and not taken
        self._lost_before = mark.lost
        if self.waiting:
            log.warning("%d messages of before wait to be sent", self.waiting)

    def _open(self, folder: Path) -> Shelf | None:
        try:
            return Shelf(folder, self._bounds.bytes, self._bounds.age_s, self._now, self._run)
        except OSError as error:
            self._complain(f"{folder}: {error.strerror}")
            return None

    # --- in and out

    def put(self, name: str, message: Sealed) -> None:
        """Take a message; `save` writes it. Raises TypeError for what is not sealed."""
        if not isinstance(message, Sealed):
            raise TypeError(f"{type(message).__name__} is not a sealed message; nothing else is kept or sent")
        self._memory.append(_Item(self._next, Record(name, bytes(message), self._now()), message))
        self._next += 1

    @property
    def name(self) -> str:
        """Topic's name of the message that `take` would give; "" where there is none. What is too old goes now."""
        self._expire()
        item = self._ahead()
        return item.record.name if item else ""

    def take(self) -> Parcel | None:
        """The next message that was not taken since the start; None where there is none."""
        item = self._ahead()
        if item is None:
            return None
        self._cursor = item.number + 1
        return Parcel(item.number, item.record.name, item.message, self._bounds.age_s - self._age(item))

    def settle(self, number: int) -> None:
        """Note that a message needs not be sent again."""
        if number >= self._settled:
            self._done.add(number)
            self._advance()

    def save(self) -> None:
        """Write what is new, and drop what the bounds do not allow. Never raises for a disk that fails."""
        if self._shelf is not None:
            self._save_to(self._shelf)
        self._trim()

    def close(self) -> None:
        """Leave everything on disk, for the next start."""
        self.save()
        if self._shelf is None:
            return
        try:
            self._shelf.note(self._mark)
        except OSError as error:
            log.warning("what was delivered may be sent again: %s", error.strerror)
        self._shelf.close()

    @property
    def waiting(self) -> int:
        """Messages that are not delivered, those that are being sent included."""
        on_disk = self._shelf.waiting(self._settled) if self._shelf else 0
        unsaved = self._next - max(self._saved, self._settled, self._next - len(self._memory))
        return max(0, on_disk + unsaved - len(self._done))

    @property
    def behind(self) -> bool:
        """Whether something waits to be taken."""
        return self._cursor < self._next

    def figures(self) -> dict[str, float | str]:
        """For the local page."""
        return {
            "waiting": self.waiting,
            "bytes": self._shelf.size if self._shelf else 0,
            "dropped": self.dropped,
            "expired": self.expired,
            "damaged": self._damaged,
            "lost_in_all": self._mark.lost,
            "kept": "memory" if self._shelf is None or self._complained else "disk",
        }

    @property
    def _damaged(self) -> int:
        return self._refused + (self._shelf.damaged if self._shelf else 0)

    @property
    def _mark(self) -> Mark:
        return Mark(self._settled, self._lost_before + self.dropped + self.expired + self._damaged)

    # --- numbers

    def _ahead(self) -> _Item | None:
        """The message at the cursor, which moves over those that are gone."""
        while self._cursor < self._next:
            first = self._memory[0].number if self._memory else self._next
            if self._cursor >= first:
                return self._memory[self._cursor - first]
            if self._held is None or self._held.number != self._cursor:
                self._held = self._from_disk(first)
            if self._held is not None:
                return self._held
        return None

    def _from_disk(self, before: int) -> _Item | None:
        """The message at the cursor; None where it cannot be had, and the cursor has moved on, to `before` at most."""
        number = self._cursor
        record, after = self._shelf.read(number, before) if self._shelf else (None, before)
        if record is None:
            self._skip(after)
            return None
        try:
            return _Item(number, record, self._check(record.name, record.payload))
        except MessageError as error:
            if not self._refused:
                log.error("a message on disk is not one of this device, and left out: %s", error)
            self._refused += 1
            self._skip(number + 1)
            return None

    def _skip(self, after: int) -> None:
        """Go on at `after`: what is before it and not taken is gone."""
        self._skips[self._cursor] = after
        self._cursor = after
        self._advance()

    def _advance(self) -> None:
        while True:
            if self._settled in self._done:
                self._done.remove(self._settled)
                self._settled += 1
            elif self._settled in self._skips:
                self._settled = self._skips.pop(self._settled)
            else:
                return

    def _drop_before(self, number: int) -> None:
        """Give up everything before `number`, what is being sent included."""
        self._cursor, self._settled = max(self._cursor, number), max(self._settled, number)
        self._done = {each for each in self._done if each >= number}
        self._skips = {first: after for first, after in self._skips.items() if first >= number}
        self._advance()

    # --- age

    def _age(self, item: _Item) -> float:
        earlier = self._shelf if item.number < self._first else None
        return self._age_of(item.record.put, earlier.run_of(item.number) if earlier else self._run)

    def _age_of(self, put: Stamp, run: bytes) -> float:
        """Seconds since an instant. Of another run of the system only the wall clock tells, where both times were set.

        0 where nothing tells.
        """
        now = self._now()
        if run == self._run:
            return max(0, now.boot_s - put.boot_s)
        return max(0, now.wall_s - put.wall_s) if put.wall_s >= _CLOCK_SET_S else 0

    def _expire(self) -> None:
        """Give up what is too old: whole releases, with the verdicts that follow them."""
        expiring = False
        while (item := self._ahead()) is not None:
            expiring = self._age(item) > self._bounds.age_s if item.record.name == KINDS[0] else expiring
            if not expiring:
                return
            self.expired += 1
            self._skip(item.number + 1)

    # --- the disk

    def _save_to(self, shelf: Shelf) -> None:
        try:
            self._write(shelf)
            shelf.forget(self._settled)
        except OSError as error:
            self._complain(f"the outbox: {error.strerror}")
        else:
            if self._complained:
                log.warning("the outbox is on disk again")
            self._complained = False
        while shelf.droppable and shelf.age(self._age_of) > self._bounds.age_s:
            self.expired += self._drop_file(shelf)
        if self._settled < self._saved and time.monotonic() - self._synced_s > _SYNC_S:
            self._synced_s = time.monotonic()
            shelf.sync()

    def _write(self, shelf: Shelf) -> None:
        """Write what is new; where the disk is full, the oldest makes room. Raises OSError."""
        begin = max(self._saved, self._settled) - self._memory[0].number if self._memory else 0
        for item in islice(self._memory, max(0, begin), None):
            while shelf.droppable and shelf.too_long(len(item.message)):
                self.dropped += self._drop_file(shelf)
            self._append(shelf, item)
            self._saved = item.number + 1

    def _append(self, shelf: Shelf, item: _Item) -> None:
        try:
            shelf.append(item.number, item.record, self._mark)
        except OSError as error:
            if not (disk_is_full(error) and shelf.droppable):
                raise
            self.dropped += self._drop_file(shelf)
            shelf.append(item.number, item.record, self._mark)

    def _drop_file(self, shelf: Shelf) -> int:
        """Remove the oldest file; returns how many of its messages were not delivered."""
        first, after, following = shelf.span
        gone = max(0, after - max(first, self._settled))
        shelf.drop()
        self._drop_before(following)
        return gone

    def _trim(self) -> None:
        """Keep in memory what the disk does not have, and a few messages beside."""
        memory = self._memory
        while memory:
            first, room = memory[0].number, len(memory)
            if first >= self._settled and room <= min(_AT_HAND, self._bounds.memory):
                return
            if first >= max(self._saved, self._settled):
                if room <= self._bounds.memory:
                    return
                self.dropped += first >= self._cursor
            memory.popleft()

    def _complain(self, words: str) -> None:
        """Say once what is wrong with the disk."""
        if not self._complained:
            log.error("%s; until that is mended, messages that wait are in memory alone", words)
        self._complained = True


def _now() -> Stamp:
    return Stamp(int(time.clock_gettime(time.CLOCK_BOOTTIME)), max(0, int(time.time())))


def _run() -> bytes:
    """Name this run of the system; where it has no name, what is on disk is of another one."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)
