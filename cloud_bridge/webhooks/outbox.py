"""The letters in the store that are still to be delivered: which come next, and what became of them.

The letters of one camera to one receiver go in order: the next one is not there before the one before it has gone, was
given up, or waits for the end of quiet hours.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cloud_bridge.store import tables
from cloud_bridge.store.database import reading, writing
from cloud_bridge.store.retention import write_audit
from cloud_bridge.store.shard import Shard

__all__ = ["Letter", "about", "drop_others", "give_up", "next_letters", "put_off", "remove"]

_T = tables.webhooks


class Letter(NamedTuple):
    """A letter to one receiver."""

    receiver: str
    alert_id: str
    camera_id: int
    body: str
    due_s: float
    tries: int


def about(letter: Letter) -> dict[str, str]:
    """What a line of the log says of a letter, beside its words. A letter of an older version has no trace."""
    body = json.loads(letter.body)
    return {"alert": letter.alert_id, "camera": body["camera"], "trace": body.get("trace", "")}


def next_letters(
    engine: Engine, receiver: str, shard: Shard, now_s: float, busy: Collection[int], limit: int
) -> list[Letter]:
    """The first due letter of each camera of a shard that is not busy, if it may be tried now. Raises StoreAway."""
    first = (
        sa.select(_T.c.camera_id, sa.func.min(_T.c.number).label("number"))
        .where(_T.c.receiver == receiver, _T.c.due_s <= now_s, _T.c.camera_id.not_in(list(busy)))
        .where(shard.rows(_T.c.lane))
        .group_by(_T.c.camera_id)
        .subquery()
    )
    columns = (_T.c.receiver, _T.c.alert_id, _T.c.camera_id, _T.c.body, _T.c.due_s, _T.c.tries)
    query = (
        sa.select(*columns)
        .join(first, sa.and_(_T.c.camera_id == first.c.camera_id, _T.c.number == first.c.number))
        .where(_T.c.receiver == receiver, _T.c.next_s <= now_s)
        .order_by(_T.c.next_s, _T.c.camera_id)
        .limit(limit)
    )
    with reading(engine) as connection:
        return [Letter(*row) for row in connection.execute(query)]


def remove(engine: Engine, letter: Letter) -> None:
    """Forget a letter that was delivered. Raises StoreAway."""
    with writing(engine) as connection:
        connection.execute(sa.delete(_T).where(*_is(letter)))


def put_off(engine: Engine, letter: Letter, until_s: float) -> None:
    """Count an attempt, and wait until then for the next. Raises StoreAway."""
    with writing(engine) as connection:
        counted = {"tries": letter.tries + 1, "next_s": until_s}
        connection.execute(sa.update(_T).where(*_is(letter)).values(counted))


def give_up(engine: Engine, letter: Letter, shown: str, why: str) -> None:
    """Forget a letter that cannot be delivered, and write that into the audit log. Raises StoreAway."""
    with writing(engine) as connection:
        connection.execute(sa.delete(_T).where(*_is(letter)))
        write_audit(connection, "bridge", "webhook given up", f"alert {letter.alert_id} to {shown}: {why}")


def drop_others(engine: Engine, receivers: Collection[str]) -> int:
    """Forget the letters to receivers that are not configured any more; returns how many. Raises StoreAway."""
    with writing(engine) as connection:
        gone = connection.execute(sa.delete(_T).where(_T.c.receiver.not_in(list(receivers)))).rowcount
        if gone:
            write_audit(connection, "bridge", "webhook given up", f"{gone} to receivers that are configured no more")
    return gone


def _is(letter: Letter) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _T.c.receiver == letter.receiver, _T.c.alert_id == letter.alert_id
