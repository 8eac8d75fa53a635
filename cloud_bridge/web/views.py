"""What the page asks the store for: everything at once when it begins, the last minute, and one device.

    overview   who asks, their cameras, open alerts and those that nobody has seen      one answer, before anything else
    minute     camera -> verdicts of the last minute, as short rows
    device     one camera: key, place in its stream, counts

A camera that is not the caller's is not there at all.
"""

from __future__ import annotations

import json
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cloud_bridge.api import queries
from cloud_bridge.api.queries import Missing
from cloud_bridge.api.tokens import Caller
from cloud_bridge.store import tables
from cloud_bridge.store.database import reading
from cloud_bridge.web.facts import Facts

__all__ = ["device", "minute", "overview"]

_MINUTE_S = 60.0
_MOST_ROWS = 100_000  # of the last minute: 1,600 cameras


def overview(engine: Engine, caller: Caller, facts: Facts) -> dict[str, Any]:
    """Everything that a page must know when it begins."""
    with reading(engine) as connection:
        rows = connection.execute(sa.select(tables.cameras).order_by(tables.cameras.c.id)).mappings().all()
        newest = {row["camera"]: row for row in rows if caller.sees(row["camera"])}
        shown = [_camera(connection, dict(row), facts) for _, row in sorted(newest.items())]
    return {
        "who": {"name": caller.name, "role": caller.role, "until_s": caller.until_s},
        "now_s": time.time(),
        "quiet": facts.labels[0],
        "slot_s": facts.engine()["slot_s"],
        "draws": facts.draws,
        "cameras": shown,
        "alerts": queries.open_alerts(engine, caller),
    }


def minute(engine: Engine, caller: Caller) -> dict[str, Any]:
    """Camera -> [[UTC, label, probability, late, unsure], ...] of the last minute, the oldest first."""
    table = tables.verdicts
    columns = (table.c.camera_id, table.c.made_s, table.c.label, table.c.probability, table.c.late, table.c.unsure)
    now_s = time.time()
    query = sa.select(*columns).where(table.c.made_s >= now_s - _MINUTE_S).order_by(table.c.made_s).limit(_MOST_ROWS)
    found: dict[str, list[list[Any]]] = {}
    with reading(engine) as connection:
        cameras = connection.execute(sa.select(tables.cameras.c.id, tables.cameras.c.camera))
        names = {number: name for number, name in cameras if caller.sees(name)}
        for number, *row in connection.execute(query.where(table.c.camera_id.in_(list(names)))):
            found.setdefault(names[number], []).append([round(row[0], 1), row[1], round(row[2], 3), *row[3:]])
    return {"now_s": now_s, "rows": found}


def device(engine: Engine, caller: Caller, camera: str, facts: Facts) -> dict[str, Any]:
    """One camera, under its newest key. Raises Missing."""
    table = tables.cameras
    query = sa.select(table).where(table.c.camera == camera).order_by(table.c.id.desc()).limit(1)
    with reading(engine) as connection:
        row = connection.execute(query).mappings().first()
        if row is None or not caller.sees(camera):
            raise Missing(f"no camera {camera!r}")
        shown = _camera(connection, dict(row), facts)
        first = sa.select(sa.func.min(tables.releases.c.received_s)).where(
            tables.releases.c.camera_id == row["id"], tables.releases.c.boot_id == row["boot_id"]
        )
        since_s = connection.scalar(first)
    keys = {"public_key": row["public_key"], "since_s": float(since_s or 0.0)}
    return {**shown, **keys, "engine": facts.engine(camera), "counts": facts.device(camera)}


def _camera(connection: Connection, row: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """One camera for people: what is raised, whether its device is there, and when it was heard last."""
    found = facts.device(row["camera"])
    heard_s = found["heard_s"] if found else 0.0
    return {
        "camera": row["camera"],
        "boot_id": row["boot_id"],
        "next_slot": row["next_slot"],
        "open": json.loads(row["alerts"])["raised"],
        "offline": bool(found and found["offline"]),
        "heard_s": heard_s or _heard_s(connection, row),
    }


def _heard_s(connection: Connection, row: dict[str, Any]) -> float:
    """When the newest release of a camera came, by the store; 0: none is there."""
    table = tables.releases
    place = sa.and_(table.c.camera_id == row["id"], table.c.boot_id == row["boot_id"])
    query = sa.select(table.c.received_s).where(place).order_by(table.c.slot.desc()).limit(1)
    return float(connection.scalar(query) or 0.0)
