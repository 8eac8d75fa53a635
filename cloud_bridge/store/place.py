"""The right to write for one shard: one process at a time, by a row of the table `bridge`.

    take --> epoch --> count, in each commit's own transaction --> give_back
                  `-> held: whether it may still publish

The row says until when its process need not write. A process that finds it lapsed takes the place under a new epoch.
The former one can come back at any time: its next commit finds another epoch, writes nothing, and ends it. Until then
it knows by its own clock, which runs on while it is stopped, that it may have lost the place.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row

from cloud_bridge.store import tables
from cloud_bridge.store.database import reading, writing
from cloud_bridge.store.shard import Shard
from wire.errors import StoreAway, StoreError

__all__ = ["LEASE_S", "RENEW_S", "Place", "Unneeded"]

LEASE_S = 6.0
"""A bridge that has not written for so long has lost its place."""

RENEW_S = 2.0
"""Where nothing is written for so long, an empty commit keeps the place."""

_MARGIN_S = 1.0  # before the lease ends, from which nothing is published
_LOOK_S = 0.25
_ONE_AT_A_TIME = 0x7665696D  # PostgreSQL's advisory lock of those that take a place


class Unneeded(StoreError):
    """The process was told to end while it waited for a place."""


class Place:
    """A place that was taken.

    Attributes:
        shard: Which one.
        away_s: For how long nobody had written for it before; 0: nobody ever had.
    """

    def __init__(self, engine: Engine, wanted: Shard, stopped: Callable[[], bool] = lambda: False) -> None:
        """Take a place. A shard's own process waits for one that may be dead, a spare for any, for ever.

        Raises:
            StoreError: Another process has the place, or others run with another number of shards.
            Unneeded: `stopped()` while a spare waited.
        """
        self._engine, self._owner = engine, f"{socket.gethostname()}, process {os.getpid()}"
        self.shard, self.away_s = wanted, 0.0
        self._epoch = self._batch = 0
        self._began_s = self._until_s = 0.0
        if wanted.number:
            self._take_one()
        else:
            self._take_any(stopped)

    def _take_one(self) -> None:
        """Take the shard's place; wait once for one whose process may be dead."""
        before_s = LEASE_S + 1.0
        while 0.0 < (left_s := self._try(self.shard)) < before_s:  # more than before: its bridge lives
            before_s = left_s
            time.sleep(_LOOK_S)
        if not self._epoch:
            with reading(self._engine) as connection:
                owner = _row(connection, self.shard.number)[0]
            raise StoreError(
                f"the store is in use by another bridge ({owner}); stop that one, or give each bridge a database and "
                f"cameras of its own, or a shard: two on one shard ({self.shard}) would read every message twice"
            )

    def _take_any(self, stopped: Callable[[], bool]) -> None:
        of, fenced = self.shard.of, self.shard.fenced
        while not self._epoch:
            for number in range(1, of + 1):
                with suppress(StoreAway):
                    self._try(Shard(number, of, fenced))
                if self._epoch or stopped():
                    break
            if not self._epoch:
                if stopped():
                    raise Unneeded("stopped while it waited for a shard")
                time.sleep(_LOOK_S)

    def _try(self, shard: Shard) -> float:
        """Take a place where it is free, or its bridge dead; returns for how many seconds it may be taken."""
        began_s = _running_s()
        with writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
            now_s, table = _now(connection), tables.bridge
            rows = connection.execute(sa.select(table)).all()
            _refuse_other_numbers([row for row in rows if self._lives(row, now_s)], shard)
            found = next((row for row in rows if row.id == shard.number), None)
            if found is not None and self._lives(found, now_s):
                return float(found.until_s - now_s)
            for row in rows:
                lapsed = sa.and_(table.c.id == row.id, table.c.epoch == row.epoch, table.c.until_s == row.until_s)
                gone = row is found or row.shards != shard.of
                if gone and connection.execute(sa.delete(table).where(lapsed)).rowcount == 0:
                    return LEASE_S  # its bridge lives after all: it has written in this moment
            epoch = 1 + max((row.epoch for row in rows), default=0)
            batch = found.batch if found is not None else 0
            made = {"id": shard.number, "shards": shard.of, "owner": self._owner, "epoch": epoch, "batch": batch}
            connection.execute(sa.insert(table), [made | {"until_s": now_s + LEASE_S, "wrote_s": now_s}])
        wrote_s = found.wrote_s if found is not None else max((row.wrote_s for row in rows), default=0.0)
        self.away_s = max(0.0, now_s - wrote_s) if wrote_s else 0.0
        self.shard, self._epoch, self._batch = shard, epoch, batch
        self._until_s = began_s + LEASE_S
        return 0.0

    def _lives(self, row: Row[Any], now_s: float) -> bool:
        return bool(row.until_s > now_s) and not self.was_ours(row.owner)

    def was_ours(self, owner: str) -> bool:
        """Whether the bridge of a place was a process on this machine that is gone, or is this process."""
        host, _, number = owner.rpartition(", process ")
        if host != socket.gethostname() or not number.isdecimal():
            return False
        return int(number) == os.getpid() or not Path(f"/proc/{number}").exists() and Path("/proc/self").exists()

    # --- while it is held

    @property
    def held(self) -> bool:
        """Whether the place is surely ours now; one that nobody waits for always is."""
        return not self.shard.fenced or _running_s() < self._until_s - _MARGIN_S

    def count(self, connection: Connection) -> bool:
        """Count a commit, in its own transaction; False where it was counted: it was made, and its answer lost.

        Raises StoreError where another bridge has taken the place.
        """
        self._began_s = _running_s()
        table, now_s = tables.bridge, _now(connection)
        ours = sa.and_(table.c.id == self.shard.number, table.c.epoch == self._epoch, table.c.batch == self._batch)
        counted = {"batch": self._batch + 1, "until_s": now_s + LEASE_S, "wrote_s": now_s}
        if connection.execute(sa.update(table).where(ours).values(counted)).rowcount == 1:
            return True
        owner, epoch, batch = _row(connection, self.shard.number)
        if (epoch, batch) == (self._epoch, self._batch + 1):
            return False
        raise StoreError(f"{owner} has taken our place in the store (shard {self.shard}); this bridge ends")

    def counted(self) -> None:
        """The commit was made: the place is ours from its beginning on."""
        self._batch += 1
        self._until_s = self._began_s + LEASE_S

    def give_back(self) -> None:
        """Let another bridge take the place at once; where the database is away, it is free in some seconds."""
        table = tables.bridge
        with suppress(StoreAway), writing(self._engine) as connection:
            connection.execute(sa.update(table).where(table.c.epoch == self._epoch).values(until_s=0.0))


def _refuse_other_numbers(living: Sequence[Row[Any]], shard: Shard) -> None:
    others = [row for row in living if row.shards != shard.of]
    if others:
        raise StoreError(
            f"another bridge ({others[0].owner}) reads shard {others[0].id}/{others[0].shards}, and we are to read "
            f"{shard}; stop all bridges before you change how many shards there are"
        )


def _row(connection: Connection, number: int) -> tuple[str, int, int]:
    row = connection.execute(sa.select(tables.bridge).where(tables.bridge.c.id == number)).first()
    return ("nobody", 0, 0) if row is None else (row.owner, row.epoch, row.batch)


def _now(connection: Connection) -> float:
    """The clock that all bridges of a database share: PostgreSQL's own; with SQLite they are on one machine."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")))
    return time.time()


def _running_s() -> float:
    """A clock of this machine that nobody sets, and that runs while the process, or the machine, sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
