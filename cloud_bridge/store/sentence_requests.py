"""Cameras whose next verdict is to have a sentence, as somebody has asked by API: a row each, until it has.

API --ask_sentence--> the table `sentence_requests` --asked, once a second--> the bridge that reads the camera
the commit of the verdict that has it --answered--> no row

Whatever process the API and the bridge are in, and wherever one of them ends: what was asked is answered, once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cloud_bridge.store import tables
from cloud_bridge.store.commands import hold_camera
from cloud_bridge.store.database import reading, writing
from cloud_bridge.store.shard import Shard, lane_of

__all__ = ["answered", "ask_sentence", "asked"]


def ask_sentence(engine: Engine, camera: str, now_s: float | None = None, shard_name: str = "") -> dict[str, Any]:
    """Ask; who asks again before the answer asks for the same.

    Args:
        engine: The store's.
        camera: `site/camera`.
        now_s: UTC; None: this machine's clock.
        shard_name: By which name the camera falls to a shard, where that is another camera's of its scene.

    Returns:
        `camera`, and `asked_s`: a verdict that is made later has a sentence.

    Raises:
        UnknownCamera: The store knows no such camera.
        StoreAway: Nothing was asked.
    """
    table, row = tables.sentence_requests, {"camera": camera, "asked_s": time.time() if now_s is None else now_s}
    with writing(engine) as connection:
        hold_camera(connection, camera)
        connection.execute(sa.delete(table).where(table.c.camera == camera))
        connection.execute(sa.insert(table), [{**row, "lane": lane_of(shard_name or camera)}])
    return row


def asked(engine: Engine, shard: Shard) -> dict[str, float]:
    """Cameras of a shard that are asked for a sentence, and when. Raises StoreAway."""
    table = tables.sentence_requests
    query = sa.select(table.c.camera, table.c.asked_s).where(shard.rows(table.c.lane))
    with reading(engine) as connection:
        return {row.camera: row.asked_s for row in connection.execute(query)}


def answered(connection: Connection, cameras: Mapping[str, float]) -> None:
    """Forget what was asked up to these times, in the transaction that writes the answers."""
    table = tables.sentence_requests
    for camera, asked_s in cameras.items():
        connection.execute(sa.delete(table).where(table.c.camera == camera, table.c.asked_s <= asked_s))
