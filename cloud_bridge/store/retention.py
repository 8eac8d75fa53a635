"""Deletes from the store: what is too old, by kind; and all of a camera or a span, with an entry in the audit log.

The row of a camera in `cameras` is never deleted: it knows what was read, and without it recordings would be read as
new. It holds boot ids, slot numbers and labels of what is raised; nothing else of the scene.

What the broker keeps of a camera in our name is taken back as well. The one who deletes may be no bridge, and numbers
of the outbox are given by the bridge of the camera's shard alone: so he leaves an empty message in the outbox under a
number below zero, which that bridge takes with its next commit (`left`, `taken`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cloud_bridge.store import tables
from cloud_bridge.store.database import StoreConfig, reading, writing
from cloud_bridge.store.shard import Shard, lane_of
from cloud_bridge.store.statements import Statement
from wire.errors import DataError, StoreAway
from wire.mqtt import Message
from wire.protocol.topics import TOPICS, topic

__all__ = ["Left", "Retention", "delete", "left", "taken", "write_audit"]

_LOG = logging.getLogger("cloud_bridge")
_CHUNK = 1000  # rows of one transaction, so that no commit of the bridge waits long
_EVERY_S = 60.0
_DAY_S = 86_400.0
_RETAINED = "alert/open"  # all that the broker keeps in our name under a camera's
_MOST_LEFT = 1000  # messages that one commit takes
_TIMES: dict[str, sa.Column[Any]] = {
    "releases": tables.releases.c.received_s,
    "verdicts": tables.verdicts.c.made_s,
    "alerts": tables.alerts.c.made_s,
    "comments": tables.comments.c.at_s,
    "commands": tables.commands.c.made_s,
    "audit": tables.audit.c.at_s,
}


class Left(NamedTuple):
    """A message for the broker that no bridge has numbered yet. number: below zero."""

    number: int
    lane: int
    camera_id: int
    message: Message


class Retention:
    """Deletes what is older than it may be, a little at a time."""

    def __init__(self, config: StoreConfig, engine: Engine) -> None:
        self._engine = engine
        days = {
            "releases": config.keep_releases_days,
            "verdicts": config.keep_verdicts_days,
            "alerts": config.keep_alerts_days,
            "comments": config.keep_alerts_days,
            "commands": config.keep_audit_days,
            "audit": config.keep_audit_days,
        }
        self._keep_s = {kind: kept * _DAY_S for kind, kept in days.items()}
        self._next_s = 0.0

    def step(self, now_s: float) -> int:
        """Delete at most 1,000 rows of each kind, at most once a minute where nothing is left; returns how many."""
        if time.monotonic() < self._next_s:
            return 0
        try:
            counts = [self._delete(kind, now_s - keep_s) for kind, keep_s in self._keep_s.items()]
        except StoreAway as error:
            _LOG.warning("what is too old was not deleted: %s", error)
            counts = [0]
        self._next_s = 0.0 if max(counts) >= _CHUNK else time.monotonic() + _EVERY_S
        return sum(counts)

    def _delete(self, kind: str, before_s: float) -> int:
        when = _TIMES[kind]
        with reading(self._engine) as connection:
            oldest = sa.select(when).where(when < before_s).order_by(when).limit(_CHUNK)
            times = connection.scalars(oldest).all()
        if not times:
            return 0
        with writing(self._engine) as connection:
            return connection.execute(sa.delete(when.table).where(when <= times[-1])).rowcount


def delete(
    engine: Engine, who: str, camera: str = "", since_s: float = 0.0, until_s: float = math.inf
) -> dict[str, int]:
    """Delete releases, verdicts, alerts, comments and commands, and what is still to be published, posted or ordered.

    Without a span, also what the broker keeps in our name: counted as "retained". An entry in the audit log says all.

    Args:
        engine: The store's.
        who: Who asks, for the audit log.
        camera: `site/camera`; "": all of them.
        since_s: From then on, UTC,
        until_s: and before then; both by the time of receipt.

    Returns:
        Kind -> rows that were deleted.

    Raises:
        DataError: No camera of that name was ever here, or the span is empty.
        StoreAway: Nothing was deleted.
    """
    if not since_s < until_s:
        raise DataError(f"the span from {since_s} to {until_s} is empty; give its beginning first")
    counts = dict[str, int]()
    with writing(engine) as connection:
        numbers = _numbers(connection, camera)
        counts["comments"] = _delete_comments(connection, numbers, since_s, until_s)
        for kind in ("releases", "verdicts", "alerts"):
            counts[kind] = _delete_span(connection, _TIMES[kind], numbers, since_s, until_s)
        for kind, when in (("outbox", tables.outbox.c.created_s), ("webhooks", tables.webhooks.c.created_s)):
            counts[kind] = _delete_span(connection, when, numbers, since_s, until_s)
        counts["commands"] = _delete_commands(connection, camera, since_s, until_s)
        whole = not since_s and until_s == math.inf
        counts["retained"] = _take_back(connection, camera) if whole else 0
        span = "all" if whole else f"{since_s:.0f} to {until_s:.0f}"
        told = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        write_audit(connection, who, "delete", f"{camera or 'all cameras'}, {span}: {told}")
    return counts


def left(engine: Engine, shard: Shard) -> list[Left]:
    """What was left for the bridge of a shard to number, the oldest first. Raises StoreAway."""
    table = tables.outbox
    query = sa.select(table).where(table.c.id < 0, shard.rows(table.c.lane)).order_by(table.c.created_s, table.c.id)
    with reading(engine) as connection:
        rows = connection.execute(query.limit(_MOST_LEFT)).all()
    return [
        Left(row.id, row.lane, row.camera_id, Message(row.topic, bytes(row.payload), row.qos, row.retain))
        for row in rows
    ]


def taken(connection: Connection, numbered: Sequence[Left]) -> None:
    """Forget what was left, in the transaction that gives it numbers."""
    if numbered:
        table = tables.outbox
        connection.execute(sa.delete(table).where(table.c.id.in_([each.number for each in numbered])))


def write_audit(connection: Connection, who: str, what: str, detail: str) -> None:
    """Add an entry to the audit log, in the caller's transaction."""
    row = {"at_s": time.time(), "who": who[:64], "what": what[:64], "detail": detail[:2000]}
    connection.execute(sa.insert(tables.audit), [row])


def _numbers(connection: Connection, camera: str) -> list[int] | None:
    """The numbers of a camera in the store, one for each of its keys; None for all cameras."""
    if not camera:
        return None
    found = connection.scalars(sa.select(tables.cameras.c.id).where(tables.cameras.c.camera == camera)).all()
    if not found:
        raise DataError(f"the store knows no camera {camera!r}; write site/camera")
    return list(found)


def _span(
    when: sa.Column[Any], numbers: list[int] | None, since_s: float, until_s: float
) -> list[sa.ColumnElement[bool]]:
    where = [when >= since_s] + ([when < until_s] if until_s < math.inf else [])
    return where + ([when.table.c.camera_id.in_(numbers)] if numbers is not None else [])


def _delete_span(
    connection: Connection, when: sa.Column[Any], numbers: list[int] | None, since_s: float, until_s: float
) -> int:
    return connection.execute(sa.delete(when.table).where(*_span(when, numbers, since_s, until_s))).rowcount


def _delete_commands(connection: Connection, camera: str, since_s: float, until_s: float) -> int:
    """Delete commands to a camera, those that no outbox has yet as well; "": to all."""
    table = tables.commands
    where = _span(table.c.made_s, None, since_s, until_s) + ([table.c.camera == camera] if camera else [])
    return connection.execute(sa.delete(table).where(*where)).rowcount


def _take_back(connection: Connection, camera: str) -> int:
    """Leave an empty retained message for each camera, under its newest key's number; returns for how many."""
    query = sa.select(tables.cameras.c.camera, sa.func.max(tables.cameras.c.id)).group_by(tables.cameras.c.camera)
    row, now_s = TOPICS[_RETAINED], time.time()
    rows = [
        {
            "id": -number,
            "lane": lane_of(name),
            "camera_id": number,
            "topic": topic(name.partition("/")[0], name.partition("/")[2], _RETAINED),
            "payload": b"",
            "qos": row.qos,
            "retain": row.retain,
            "created_s": now_s,
        }
        for name, number in connection.execute(query.where(tables.cameras.c.camera == camera) if camera else query)
    ]
    if rows:
        Statement.insert(connection.dialect, tables.outbox).run(connection, rows)
    return len(rows)


def _delete_comments(connection: Connection, numbers: list[int] | None, since_s: float, until_s: float) -> int:
    """Delete the comments on the alerts of the span."""
    alerts = sa.select(tables.alerts.c.id).where(*_span(tables.alerts.c.made_s, numbers, since_s, until_s))
    return connection.execute(sa.delete(tables.comments).where(tables.comments.c.alert_id.in_(alerts))).rowcount
