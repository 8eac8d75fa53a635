"""The store of one bridge: what it has read, made and still has to publish, in one commit after the other.

    Work --commit--> one transaction: releases, verdicts, alerts, cameras, outboxes; less what the broker has
    recent(record)   the releases of a camera's event, for the next start
    outbox(after)    what the broker has not confirmed

A commit counts the batch in the row of `bridge`, and only the bridge that holds this row may count. So a commit whose
answer was lost is not made twice, and a bridge whose place was taken writes nothing more.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from cloud_bridge.store import tables
from cloud_bridge.store.database import StoreConfig, open_engine, reading, writing
from cloud_bridge.store.records import CameraRecord, Stored, Work, boot_text
from wire.errors import StoreAway, StoreError
from wire.mqtt import Message

__all__ = ["LEASE_S", "Store"]

_LOG = logging.getLogger("cloud_bridge")
LEASE_S = 10.0
"""A bridge that has not written for so long has lost its place."""

_LOOK_S = 0.25
_RENEW_S = 2.0


class Store:
    """Everything durable. One thread writes.

    Attributes:
        away_s: For how long no bridge had written when this one came; 0: none ever had.
    """

    def __init__(self, engine: Engine) -> None:
        """Take the place of the store's one bridge. Raises StoreError where another bridge has it."""
        self.engine = engine
        self.away_s = 0.0
        self._owner = f"{socket.gethostname()}, process {os.getpid()}"
        self._epoch = self._batch = 0
        self._take_place()
        self._records = self._read_records()
        self._written = {row["id"]: row for row in (record.row() for record in self._all())}
        self._outbox_id = self._newest_outbox()
        self._wrote_s = time.monotonic()

    @classmethod
    def open(cls, config: StoreConfig, folder: Path) -> Store:
        """Open the database that `config` names, in the state folder or elsewhere. Raises as both parts of it."""
        engine = open_engine(config, folder)
        try:
            return cls(engine)
        except BaseException:
            engine.dispose()
            raise

    def close(self) -> None:
        """Give the place back; where the database is away, it is free in some seconds."""
        gone = {"until_s": 0.0}
        with suppress(StoreAway), writing(self.engine) as connection:
            connection.execute(sa.update(tables.bridge).where(tables.bridge.c.epoch == self._epoch).values(gone))
        self.engine.dispose()

    # --- cameras

    def record(self, camera: str, key: str) -> CameraRecord:
        """Return the record of a camera under a key, made where there is none; a commit makes it durable.

        Args:
            camera: `site/camera`.
            key: The camera's public key, hex.
        """
        keys = self._records.setdefault(camera, {})
        if key not in keys:
            former = list(keys.values())[-1] if keys else CameraRecord()
            if keys:
                _LOG.warning("%s: has a new key; what was signed with the old one stays refused", camera)
            number = 1 + max((record.id for record in self._all()), default=0)
            keys[key] = CameraRecord(number, camera, key, raised=[*former.raised], open={**former.open})
        return keys[key]

    def recent(self, record: CameraRecord, slots: int) -> list[Stored]:
        """Return the releases of a camera's start from `slots` before the next slot on, in slot order."""
        table = tables.releases
        place = sa.and_(table.c.camera_id == record.id, table.c.boot_id == boot_text(record.boot_id))
        wanted = sa.select(table.c.slot, table.c.refused, table.c.message).where(
            place, table.c.slot >= record.next_slot - slots
        )
        with reading(self.engine) as connection:
            return [Stored(*row) for row in connection.execute(wanted.order_by(table.c.slot))]

    def _all(self) -> list[CameraRecord]:
        return [record for keys in self._records.values() for record in keys.values()]

    def _read_records(self) -> dict[str, dict[str, CameraRecord]]:
        found: dict[str, dict[str, CameraRecord]] = {}
        with reading(self.engine) as connection:
            rows = connection.execute(sa.select(tables.cameras).order_by(tables.cameras.c.id)).mappings().all()
        for row in rows:
            try:
                record = CameraRecord.of(dict(row))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise StoreError(
                    f"the store's record of camera {row['camera']} is damaged ({error!r}); restore the database from "
                    "a backup. Never delete the record: under the same key, recordings would be read as new"
                ) from error
            found.setdefault(record.camera, {})[record.public_key] = record
        return found

    # --- commits

    def commit(self, work: Work, delivered: int = 0) -> list[tuple[int, Message]]:
        """Write everything of `work` and forget the outbox up to `delivered`, in one transaction.

        Returns:
            The messages of `work` with their numbers in the outbox.

        Raises:
            StoreAway: Nothing was written, as far as is known; call it again with the same arguments.
            StoreError: Another bridge has taken our place.
        """
        numbered = [(self._outbox_id + n, message) for n, (_, message) in enumerate(work.outbox, 1)]
        rows = {record.id: record.row() for record in work.records.values()}
        changed = [row for number, row in rows.items() if row != self._written.get(number)]
        with writing(self.engine) as connection:
            if self._count_batch(connection):
                self._write_cameras(connection, changed)
                _insert(connection, tables.releases, work.releases)
                _refuse(connection, work.refused)
                _insert(connection, tables.verdicts, work.verdicts)
                _insert(connection, tables.alerts, work.alerts)
                _insert(connection, tables.webhooks, work.webhooks)
                self._write_outbox(connection, work, delivered)
        self._batch += 1
        self._outbox_id += len(numbered)
        self._written |= {row["id"]: row for row in changed}
        self._wrote_s = time.monotonic()
        return numbered

    @property
    def resting(self) -> bool:
        """Whether nothing was written for a while: time for an empty commit, which keeps our place."""
        return time.monotonic() - self._wrote_s > _RENEW_S

    def outbox(self, after: int, limit: int) -> list[tuple[int, Message]]:
        """Return messages that are not confirmed, the oldest first: (number, message). Raises StoreAway."""
        table = tables.outbox
        wanted = sa.select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        with reading(self.engine) as connection:
            rows = connection.execute(wanted).all()
        return [(row.id, Message(row.topic, row.payload, row.qos, row.retain)) for row in rows]

    def seen(self, alerts: Collection[str]) -> set[str]:
        """Which of these alerts, by the id of the change that raised each, somebody has seen. Raises StoreAway."""
        table = tables.alerts
        wanted = sa.select(table.c.first_id).where(table.c.first_id.in_(alerts), table.c.seen_by != "")
        with reading(self.engine) as connection:
            return set(connection.scalars(wanted))

    def _newest_outbox(self) -> int:
        with reading(self.engine) as connection:
            return int(connection.scalar(sa.select(sa.func.max(tables.outbox.c.id))) or 0)

    def _count_batch(self, connection: Connection) -> bool:
        """Count this batch; False where the store has counted it: our last commit was made, its answer was lost."""
        table, now_s = tables.bridge, _now(connection)
        ours = sa.and_(table.c.epoch == self._epoch, table.c.batch == self._batch)
        counted = {"batch": self._batch + 1, "until_s": now_s + LEASE_S, "wrote_s": now_s}
        done = connection.execute(sa.update(table).where(ours).values(counted))
        if done.rowcount == 1:
            return True
        owner, epoch, batch, _ = _place(connection)
        if (epoch, batch) == (self._epoch, self._batch + 1):
            return False
        raise StoreError(f"{owner} has taken our place in the store; stop one of the two bridges")

    def _write_cameras(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        table = tables.cameras
        _insert(connection, table, [row for row in rows if row["id"] not in self._written])
        former = [{**row, "of_id": row["id"]} for row in rows if row["id"] in self._written]
        if former:
            connection.execute(sa.update(table).where(table.c.id == sa.bindparam("of_id")), former)

    def _write_outbox(self, connection: Connection, work: Work, delivered: int) -> None:
        now_s = time.time()
        rows = [
            {"id": self._outbox_id + n, "camera_id": camera, "created_s": now_s, **message._asdict()}
            for n, (camera, message) in enumerate(work.outbox, 1)
        ]
        _insert(connection, tables.outbox, rows)
        if delivered:
            connection.execute(sa.delete(tables.outbox).where(tables.outbox.c.id <= delivered))

    # --- one bridge at a time

    def _take_place(self) -> None:
        """Become the store's bridge; wait once for a place whose bridge may be dead."""
        before_s = LEASE_S + 1.0
        while 0.0 < (left_s := self._try_to_take()) < before_s:  # more than before: its bridge lives
            before_s = left_s
            time.sleep(_LOOK_S)
        if not self._epoch:
            with reading(self.engine) as connection:
                owner = _place(connection)[0]
            raise StoreError(
                f"the store is in use by another bridge ({owner}); stop that one, or give each bridge a database and "
                "cameras of its own: two on one store would read every message twice"
            )

    def _try_to_take(self) -> float:
        """Take the place where it is free, or its bridge dead; returns for how many seconds it may be taken."""
        with writing(self.engine) as connection:
            now_s = _now(connection)
            found = connection.execute(sa.select(tables.bridge)).first()
            left_s = 0.0 if found is None else found.until_s - now_s
            if found is not None and left_s > 0.0 and not self._was_ours(found.owner):
                return left_s
            epoch, batch = (1, 0) if found is None else (found.epoch + 1, found.batch)
            row = {"id": 1, "owner": self._owner, "epoch": epoch, "batch": batch}
            row |= {"until_s": now_s + LEASE_S, "wrote_s": now_s}
            connection.execute(sa.delete(tables.bridge))
            connection.execute(sa.insert(tables.bridge), [row])
        self._epoch, self._batch = epoch, batch
        self.away_s = max(0.0, now_s - found.wrote_s) if found is not None and found.wrote_s else 0.0
        return 0.0

    def _was_ours(self, owner: str) -> bool:
        """Whether the bridge of this place was a process on this machine that is gone, or is this process."""
        host, _, number = owner.rpartition(", process ")
        if host != socket.gethostname() or not number.isdecimal():
            return False
        return int(number) == os.getpid() or not Path(f"/proc/{number}").exists() and Path("/proc/self").exists()


def _place(connection: Connection) -> tuple[str, int, int, float]:
    row = connection.execute(sa.select(tables.bridge)).first()
    return ("nobody", 0, 0, 0.0) if row is None else (row.owner, row.epoch, row.batch, row.until_s)


def _now(connection: Connection) -> float:
    """The clock that all bridges of a database share: PostgreSQL's own; with SQLite they are on one machine."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")))
    return time.time()


def _insert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert what is not there yet: ids are deterministic, so a repeat is the same again."""
    if rows:
        kind = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(kind.insert(table).on_conflict_do_nothing(), rows)


def _refuse(connection: Connection, rows: list[dict[str, Any]]) -> None:
    table = tables.releases
    if rows:
        place: Mapping[str, sa.Column[Any]] = {"of_camera": table.c.camera_id, "of_boot": table.c.boot_id}
        where = [column == sa.bindparam(name) for name, column in place.items()]
        where.append(table.c.slot == sa.bindparam("of_slot"))
        connection.execute(sa.update(table).where(*where), rows)
