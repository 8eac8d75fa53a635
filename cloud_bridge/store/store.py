"""The store of one bridge, or shard: what it has read, made and still has to publish, one commit after the other.

    Work --commit--> one transaction: releases, verdicts, alerts, cameras, outboxes; less what the broker has
    recent(record)   the releases of a camera's event, for the next start
    outbox(after)    what the broker has not confirmed

A commit also numbers what others have left in the outbox (retention.py), once a second at most.

A commit counts the batch in the row of `bridge` (place.py), and only the bridge that holds this row may count. So a
commit whose answer was lost is not made twice, and a bridge whose place was taken writes nothing more. Shards share the
tables: each writes and publishes rows of its own cameras alone, under numbers that no other shard gives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cloud_bridge.log import log_of
from cloud_bridge.store import tables
from cloud_bridge.store.commands import Unsent, mark_sent, unsent
from cloud_bridge.store.database import StoreConfig, open_engine, reading, writing
from cloud_bridge.store.place import RENEW_S, Place
from cloud_bridge.store.records import CameraRecord, Stored, Work, boot_text
from cloud_bridge.store.retention import Left, left, taken
from cloud_bridge.store.sentence_requests import answered, asked
from cloud_bridge.store.shard import Shard, lane_of
from cloud_bridge.store.statements import Statement
from wire.errors import StoreError
from wire.mqtt import Message

__all__ = ["Store"]

_ALL = Shard()
_LOOK_S = 1.0  # between two looks at what others have left


class Store:
    """Everything durable. One thread writes.

    Attributes:
        place: The right to write, and the shard.
    """

    def __init__(self, engine: Engine, wanted: Shard = _ALL, stopped: Callable[[], bool] = lambda: False) -> None:
        """Take the place of a shard's one bridge. Raises as `Place` does."""
        self.engine = engine
        self.place = Place(engine, wanted, stopped)
        self._records = self._read_records()
        self._lanes = {record.id: lane_of(record.camera) for record in self._all()}
        self._written = {row["id"]: row for row in (record.row() for record in self._all())}
        self._newest_id = max((record.id for record in self._all()), default=0)
        self._outbox_id = self._newest_outbox()
        self._left = list[Left]()  # by others, for the commit that is to be made
        self._wrote_s, self._looked_s = time.monotonic(), -math.inf

    @classmethod
    def open(
        cls, config: StoreConfig, folder: Path, wanted: Shard = _ALL, stopped: Callable[[], bool] = lambda: False
    ) -> Store:
        """Open the database that `config` names, in the state folder or elsewhere. Raises as both parts of it.

        Args:
            config: Names the database.
            folder: The state folder.
            wanted: The shard to read; one whose number is 0 waits until any is free.
            stopped: Whether to wait no longer.
        """
        engine = open_engine(config, folder)
        try:
            return cls(engine, wanted, stopped)
        except BaseException:
            engine.dispose()
            raise

    def close(self) -> None:
        """Give the place back."""
        self.place.give_back()
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
                log_of(camera).warning("%s: has a new key; what was signed with the old one stays refused", camera)
            number = self._newest_id = self.place.shard.following(self._newest_id)
            self._lanes[number] = lane_of(camera)
            keys[key] = CameraRecord(number, camera, key, raised=[*former.raised], open={**former.open})
        if keys[key].open:
            self._complete(keys[key])
        return keys[key]

    def _complete(self, record: CameraRecord) -> None:
        """Read when its open alerts were raised, and what was said then; where that was deleted, it is not known."""
        table = tables.alerts
        wanted = sa.select(table.c.id, table.c.made_s, table.c.sentence)
        wanted = wanted.where(table.c.id.in_([each.id for each in record.open.values()]))
        with reading(self.engine) as connection:
            found = {row.id: (row.made_s, row.sentence) for row in connection.execute(wanted)}
        for label, each in record.open.items():
            raised_s, sentence = found.get(each.id, (each.raised_s, each.sentence))
            record.open[label] = each._replace(raised_s=raised_s, sentence=sentence)

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
            The messages of `work`, and of what others have left, with their numbers in the outbox.

        Raises:
            StoreAway: Nothing was written, as far as is known; call it again with the same arguments.
            StoreError: Another bridge has taken our place.
        """
        self._left = self._left or self._look()
        outbox = [*work.outbox, *((each.camera_id, each.message) for each in self._left)]
        numbers = self._numbers(len(outbox))
        numbered = [(number, message) for number, (_, message) in zip(numbers, outbox, strict=True)]
        rows = {record.id: record.row() for record in work.records.values()}
        changed = [row for number, row in rows.items() if row != self._written.get(number)]
        with writing(self.engine) as connection:
            if self.place.count(connection):
                self._write_cameras(connection, changed)
                _insert(connection, tables.releases, work.releases)
                _refuse(connection, work.refused)
                _insert(connection, tables.verdicts, work.verdicts)
                _insert(connection, tables.alerts, work.alerts)
                _insert(connection, tables.webhooks, work.webhooks)
                mark_sent(connection, work.commands)
                taken(connection, self._left)
                answered(connection, work.answered)
                self._write_outbox(connection, outbox, numbers, delivered)
        self.place.counted()
        self._left = []
        self._outbox_id = numbers[-1] if numbers else self._outbox_id
        self._written |= {row["id"]: row for row in changed}
        self._wrote_s = time.monotonic()
        return numbered

    def _look(self) -> list[Left]:
        """What others have left for us to number, where it is a second since we looked."""
        if time.monotonic() - self._looked_s < _LOOK_S:
            return []
        found = left(self.engine, self.place.shard)
        self._looked_s = time.monotonic()
        self._lanes |= {each.camera_id: each.lane for each in found}
        return found

    @property
    def resting(self) -> bool:
        """Whether nothing was written for a while: time for an empty commit, which keeps our place."""
        return time.monotonic() - self._wrote_s > RENEW_S

    def outbox(self, after: int, limit: int) -> list[tuple[int, Message]]:
        """Return messages that are not confirmed, the oldest first: (number, message). Raises StoreAway."""
        table = tables.outbox
        ours = self.place.shard.rows(table.c.lane)
        wanted = sa.select(table).where(table.c.id > after, ours).order_by(table.c.id).limit(limit)
        with reading(self.engine) as connection:
            rows = connection.execute(wanted).all()
        return [(row.id, Message(row.topic, row.payload, row.qos, row.retain)) for row in rows]

    def seen(self, alerts: Collection[str]) -> set[str]:
        """Which of these alerts, by the id of the change that raised each, somebody has seen. Raises StoreAway."""
        table = tables.alerts
        wanted = sa.select(table.c.first_id).where(table.c.first_id.in_(alerts), table.c.seen_by != "")
        with reading(self.engine) as connection:
            return set(connection.scalars(wanted))

    def commands(self) -> list[Unsent]:
        """Commands to our cameras that no outbox has yet. Raises StoreAway."""
        return unsent(self.engine, self.place.shard)

    def asked_sentences(self) -> dict[str, float]:
        """Cameras of ours that are asked for a sentence, and when. Raises StoreAway."""
        return asked(self.engine, self.place.shard)

    def _newest_outbox(self) -> int:
        with reading(self.engine) as connection:
            return max(0, int(connection.scalar(sa.select(sa.func.max(tables.outbox.c.id))) or 0))

    def _write_cameras(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        _insert(connection, tables.cameras, [row for row in rows if row["id"] not in self._written])
        former = [{**row, "of_id": row["id"]} for row in rows if row["id"] in self._written]
        if former:
            Statement.change_camera(connection.dialect).run(connection, former)

    def _numbers(self, count: int) -> list[int]:
        """The next numbers of the outbox that are ours."""
        numbers, last = list[int](), self._outbox_id
        for _ in range(count):
            last = self.place.shard.following(last)
            numbers.append(last)
        return numbers

    def _write_outbox(
        self, connection: Connection, outbox: Sequence[tuple[int, Message]], numbers: list[int], delivered: int
    ) -> None:
        now_s, table = time.time(), tables.outbox
        rows = [
            {"id": number, "lane": self._lanes[camera], "camera_id": camera, "created_s": now_s, **message._asdict()}
            for number, (camera, message) in zip(numbers, outbox, strict=True)
        ]
        _insert(connection, table, rows)
        if delivered:
            gone = table.c.id.between(1, delivered)
            connection.execute(sa.delete(table).where(gone, self.place.shard.rows(table.c.lane)))


def _insert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert what is not there yet: ids are deterministic, so a repeat is the same again."""
    if rows:
        Statement.insert(connection.dialect, table).run(connection, rows)


def _refuse(connection: Connection, rows: list[dict[str, Any]]) -> None:
    table = tables.releases
    if rows:
        place: Mapping[str, sa.Column[Any]] = {"of_camera": table.c.camera_id, "of_boot": table.c.boot_id}
        where = [column == sa.bindparam(name) for name, column in place.items()]
        where.append(table.c.slot == sa.bindparam("of_slot"))
        connection.execute(sa.update(table).where(*where), rows)
