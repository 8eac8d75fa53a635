"""The table `commands`: what devices were ordered to do, by whom, and whether the outbox has it.

A number is given once: it is larger than that of every command to the camera before it, over restarts, and at least the
milliseconds since 1970, so that a store that is restored from a backup gives none again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cloud_bridge.store import tables
from cloud_bridge.store.database import reading, writing
from cloud_bridge.store.retention import write_audit
from cloud_bridge.store.shard import Shard, lane_of
from wire.errors import DataError

__all__ = [
    "TooManyCommands",
    "UnknownCamera",
    "Unsent",
    "add_command",
    "commands_of",
    "hold_camera",
    "mark_sent",
    "unsent",
]

_HOUR_S = 3600.0
_MOST_AN_HOUR = 60
_AT_ONCE = 100


class TooManyCommands(DataError):
    """A camera was ordered to do something too often."""


class UnknownCamera(DataError):
    """No camera of that name was ever here."""


class Unsent(NamedTuple):
    """A command that no outbox has yet."""

    camera: str
    number: int
    payload: bytes


def add_command(
    engine: Engine,
    who: str,
    camera: str,
    profile: str,
    seal: Callable[[int], bytes],
    now_s: float | None = None,
    shard_name: str = "",
) -> dict[str, Any]:
    """Number, sign and keep a command, with its entry in the audit log, in one transaction.

    Args:
        engine: The store's.
        who: Who orders it.
        camera: `site/camera`.
        profile: What is ordered.
        seal: Number -> the signed payload.
        now_s: UTC; None: this machine's clock.
        shard_name: By which name the camera falls to a shard, where that is another camera's of its scene.

    Raises:
        UnknownCamera: The store knows no such camera.
        TooManyCommands: 60 in the last hour.
        StoreAway: Nothing was kept.
    """
    now_s, table = time.time() if now_s is None else now_s, tables.commands
    with writing(engine) as connection:
        hold_camera(connection, camera)
        lately = sa.select(sa.func.count()).where(table.c.camera == camera, table.c.made_s > now_s - _HOUR_S)
        if int(connection.scalar(lately) or 0) >= _MOST_AN_HOUR:
            raise TooManyCommands(f"{camera} was ordered {_MOST_AN_HOUR} times within an hour; wait")
        last = connection.scalar(sa.select(sa.func.max(table.c.number)).where(table.c.camera == camera))
        number = max(int(now_s * 1000), int(last or 0) + 1)
        row = {"camera": camera, "number": number, "profile": profile, "who": who, "made_s": now_s, "sent_s": 0.0}
        made = {**row, "lane": lane_of(shard_name or camera), "message": seal(number)}
        connection.execute(sa.insert(table), [made])
        write_audit(connection, who, "command", f"{camera}: profile {profile}, number {number}")
    return row


def hold_camera(connection: Connection, camera: str) -> None:
    """Let nobody else ask anything of a camera until the transaction ends. Raises UnknownCamera."""
    query = sa.select(tables.cameras.c.id).where(tables.cameras.c.camera == camera).with_for_update()
    if not connection.scalars(query).all():
        raise UnknownCamera(f"the store knows no camera {camera!r}; write site/camera")


def commands_of(engine: Engine, camera: str, limit: int) -> list[dict[str, Any]]:
    """The newest commands to a camera, the newest first. Raises StoreAway."""
    table = tables.commands
    columns = (table.c.camera, table.c.number, table.c.profile, table.c.who, table.c.made_s, table.c.sent_s)
    query = sa.select(*columns).where(table.c.camera == camera).order_by(table.c.number.desc()).limit(limit)
    with reading(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def unsent(engine: Engine, shard: Shard) -> list[Unsent]:
    """Commands to the cameras of a shard that no outbox has yet, in the order of their numbers. Raises StoreAway."""
    table = tables.commands
    query = sa.select(table.c.camera, table.c.number, table.c.message).where(table.c.sent_s == 0.0)
    query = query.where(shard.rows(table.c.lane)).order_by(table.c.number).limit(_AT_ONCE)
    with reading(engine) as connection:
        return [Unsent(row.camera, row.number, bytes(row.message)) for row in connection.execute(query)]


def mark_sent(connection: Connection, sent: Sequence[Unsent]) -> None:
    """Say that the outbox has these commands, in the transaction that puts them there."""
    table = tables.commands
    for each in sent:
        place = sa.and_(table.c.camera == each.camera, table.c.number == each.number)
        connection.execute(sa.update(table).where(place).values(sent_s=time.time()))
