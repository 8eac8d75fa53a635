"""What the API reads from the store and writes into it. Every value is bound, none is part of a statement.

Rows come newest first, a page at a time; `next` names the last row of a page, so a page never repeats or skips a row,
whatever is written meanwhile. A camera that is not the caller's is not there at all.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from cloud_bridge.alerts.severity import severity_of
from cloud_bridge.api.tokens import Caller
from cloud_bridge.store import tables
from cloud_bridge.store.database import reading, writing
from cloud_bridge.store.retention import write_audit
from wire.errors import DataError
from wire.protocol.message import trace_id

__all__ = [
    "Missing",
    "Wanted",
    "acknowledge",
    "alert",
    "alerts",
    "audit_log",
    "cameras",
    "comment",
    "counts",
    "open_alerts",
    "verdicts",
]

_MOST_COMMENTS = 100  # on one alert
_CURSOR_BYTES = 400
_UNSEEN_S = 12 * 3600.0  # for so long a risk that is over, and that nobody has seen, is still told
_UNSEEN, _MOST_UNSEEN = 50, 500


class Missing(Exception):
    """There is no such thing, or none for this caller."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows are asked for.

    Attributes:
        camera: `site/camera`; "": all of the caller's.
        label: "": any.
        since_s: From then on, UTC,
        until_s: and before then.
        limit: Rows of a page.
        after: `next` of the page before; "": the first page.
    """

    camera: str = ""
    label: str = ""
    since_s: float = 0.0
    until_s: float = math.inf
    limit: int = 100
    after: str = ""


def cameras(engine: Engine, caller: Caller) -> list[dict[str, Any]]:
    """The caller's cameras, under their newest key: how far each was read, and what is open."""
    with reading(engine) as connection:
        rows = connection.execute(sa.select(tables.cameras).order_by(tables.cameras.c.id)).mappings().all()
    newest = {row["camera"]: row for row in rows if caller.sees(row["camera"])}
    return [
        {
            "camera": name,
            "boot_id": row["boot_id"],
            "next_slot": row["next_slot"],
            "open": json.loads(row["alerts"])["raised"],
        }
        for name, row in sorted(newest.items())
    ]


def verdicts(engine: Engine, caller: Caller, wanted: Wanted) -> dict[str, Any]:
    """A page of verdicts. Raises Missing or DataError."""
    table = tables.verdicts
    key = (table.c.made_s, table.c.camera_id, table.c.boot_id, table.c.last_slot)
    return _page(engine, caller, wanted, table, key, (float, int, str, int), _verdict)


def alerts(engine: Engine, caller: Caller, wanted: Wanted) -> dict[str, Any]:
    """A page of changes of alerts. Raises Missing or DataError."""
    table = tables.alerts
    return _page(engine, caller, wanted, table, (table.c.made_s, table.c.id), (float, str), _alert)


def alert(engine: Engine, caller: Caller, number: str) -> dict[str, Any]:
    """One change of an alert with its comments. Raises Missing."""
    with reading(engine) as connection:
        row = _own_alert(connection, caller, number)
        query = sa.select(tables.comments).where(tables.comments.c.alert_id == number).order_by(tables.comments.c.id)
        comments = connection.execute(query).mappings().all()
    said = [{"who": each["who"], "at_s": each["at_s"], "words": each["words"]} for each in comments]
    return {**_alert(row, row["camera"]), "comments": said}


def open_alerts(engine: Engine, caller: Caller) -> list[dict[str, Any]]:
    """Every open alert as it was raised, then the risks of the last hours that are over and that nobody has seen.

    A row has `open`; an open alert that the store no longer has is there by its label, with no id.
    """
    names, raised = dict[str, list[int]](), dict[str, list[str]]()
    with reading(engine) as connection:
        for row in connection.execute(sa.select(tables.cameras).order_by(tables.cameras.c.id)).mappings():
            if caller.sees(row["camera"]):
                names.setdefault(row["camera"], []).append(row["id"])
                raised[row["camera"]] = json.loads(row["alerts"])["raised"]
        found = [_raised(connection, camera, names[camera], label) for camera, each in raised.items() for label in each]
        own = {number: camera for camera, numbers in names.items() for number in numbers}
        over = _unseen(connection, list(own), {each["first_id"] for each in found})
    return found + [{**_alert(row, own[row["camera_id"]]), "open": False} for row in over]


def _raised(connection: Connection, camera: str, numbers: Sequence[int], label: str) -> dict[str, Any]:
    """The newest change that raised an open alert, under any key of the camera, and who has seen any of its changes."""
    table = tables.alerts
    row = _newest(connection, numbers, label)
    if row is None:
        gone = {"id": "", "first_id": "", "label": label, "raised": True, "severity": severity_of(label)}
        unseen = {"made_s": 0.0, "sentence": "", "seen_by": "", "seen_s": 0.0, "trace": ""}
        return {"camera": camera, **gone, **unseen, "open": True}
    same = sa.and_(table.c.first_id == row["first_id"], table.c.seen_by != "")
    first = sa.select(table.c.seen_by, table.c.seen_s).where(same).order_by(table.c.seen_s).limit(1)
    seen = connection.execute(first).mappings().first()
    return {**_alert(dict(row), camera), **(seen or {}), "open": True}


def _newest(connection: Connection, numbers: Sequence[int], label: str) -> RowMapping | None:
    """The newest change that raised a label, of some cameras. One by one: with all at once SQLite would sort them."""
    table, found = tables.alerts, list[RowMapping]()
    for number in numbers:
        place = sa.and_(table.c.camera_id == number, table.c.label == label, table.c.raised)
        query = sa.select(table).where(place).order_by(table.c.made_s.desc()).limit(1)
        found += connection.execute(query).mappings().all()
    return max(found, key=lambda row: float(row["made_s"]), default=None)


def _unseen(connection: Connection, numbers: Sequence[int], opened: set[str]) -> list[dict[str, Any]]:
    """The newest change of each risk of the last hours that is over, and of which nobody has seen any change."""
    table = tables.alerts
    query = sa.select(table).where(table.c.camera_id.in_(numbers), table.c.made_s >= time.time() - _UNSEEN_S)
    query = query.where(tables.UNSEEN_RISK)
    found = dict[str, dict[str, Any]]()
    for row in connection.execute(query.order_by(table.c.made_s.desc()).limit(_MOST_UNSEEN)).mappings():
        if row["first_id"] not in opened:
            found.setdefault(row["first_id"], dict(row))
    seen = sa.select(table.c.first_id).where(table.c.first_id.in_(list(found)), table.c.seen_by != "")
    known = set(connection.scalars(seen))
    return [row for first, row in found.items() if first not in known][:_UNSEEN]


def acknowledge(engine: Engine, caller: Caller, number: str) -> dict[str, Any]:
    """Say that the caller has seen an alert; the first who says so stays. Raises Missing."""
    table = tables.alerts
    with writing(engine) as connection:
        camera = _own_alert(connection, caller, number)["camera"]
        seen = {"seen_by": caller.name, "seen_s": time.time()}
        first = sa.update(table).where(table.c.id == number, table.c.seen_by == "").values(seen)
        if connection.execute(first).rowcount:
            write_audit(connection, caller.name, "acknowledge", f"{camera}: alert {number}")
    return alert(engine, caller, number)


def comment(engine: Engine, caller: Caller, number: str, words: str) -> dict[str, Any]:
    """Add words to an alert. Raises Missing; DataError where it has too many, or they cannot be shown."""
    if not words.strip() or any(not letter.isprintable() and letter != "\n" for letter in words):
        raise DataError("words are empty, or have a character that cannot be shown")
    table = tables.comments
    with writing(engine) as connection:
        camera = _own_alert(connection, caller, number)["camera"]
        there = sa.select(sa.func.count()).select_from(table).where(table.c.alert_id == number)
        if int(connection.scalar(there) or 0) >= _MOST_COMMENTS:
            raise DataError(f"the alert has {_MOST_COMMENTS} comments, and takes no more")
        row = {"alert_id": number, "who": caller.name, "at_s": time.time(), "words": words}
        connection.execute(sa.insert(table), [row])
        write_audit(connection, caller.name, "comment", f"{camera}: alert {number}")
    return alert(engine, caller, number)


def audit_log(engine: Engine, limit: int) -> list[dict[str, Any]]:
    """The newest entries of the audit log."""
    query = sa.select(tables.audit).order_by(tables.audit.c.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def counts(engine: Engine) -> dict[str, int]:
    """Rows of the outbox and of the open alerts, for the metrics."""
    with reading(engine) as connection:
        waiting = connection.scalar(sa.select(sa.func.count()).select_from(tables.outbox))
        letters = connection.scalar(sa.select(sa.func.count()).select_from(tables.webhooks))
        opened = connection.scalars(sa.select(tables.cameras.c.alerts)).all()
    rows = {"outbox": int(waiting or 0), "webhooks_waiting": int(letters or 0)}
    return {**rows, "open_alerts": sum(len(json.loads(each)["raised"]) for each in opened)}


# --- parts


def _page(
    engine: Engine,
    caller: Caller,
    wanted: Wanted,
    table: sa.Table,
    key: Sequence[sa.Column[Any]],
    kinds: Sequence[type],
    show: Any,
) -> dict[str, Any]:
    with reading(engine) as connection:
        names = _own_cameras(connection, caller, wanted.camera)
        # Rows of all cameras are read by time up to the limit, unless an index knows the label. The sum keeps SQLite
        # from an index by camera, with which it would read every row there is and sort them.
        narrow = wanted.camera or (wanted.label and table is tables.alerts)
        whose = table.c.camera_id if narrow else table.c.camera_id + 0
        query = sa.select(table).where(whose.in_(list(names)), table.c.made_s >= wanted.since_s)
        if wanted.until_s < math.inf:
            query = query.where(table.c.made_s < wanted.until_s)
        if wanted.label:
            query = query.where(table.c.label == wanted.label)
        if wanted.after:
            query = query.where(sa.tuple_(*key) < sa.tuple_(*_cursor(wanted.after, key, kinds)))
        query = query.order_by(*(column.desc() for column in key)).limit(wanted.limit)
        rows = connection.execute(query).mappings().all()
    last = [rows[-1][column.name] for column in key] if len(rows) == wanted.limit else []
    after = base64.urlsafe_b64encode(json.dumps(last).encode()).decode() if last else ""
    return {"rows": [show(row, names[row["camera_id"]]) for row in rows], "next": after}


def _cursor(text: str, key: Sequence[sa.Column[Any]], kinds: Sequence[type]) -> list[Any]:
    """Read `next`. It is no secret and no right: whatever it says, the caller sees their own cameras alone."""
    try:
        if len(text) > _CURSOR_BYTES:
            raise ValueError("too long")
        found = json.loads(base64.urlsafe_b64decode(text.encode()))
        if type(found) is not list or [type(value) for value in found] != [*kinds]:
            raise ValueError("not what a page has said")
        if any(not math.isfinite(v) or abs(v) >= 1 << 62 for v in found if type(v) in (int, float)):
            raise ValueError("numbers that cannot be")
        if any("\0" in value for value in found if type(value) is str):
            raise ValueError("text that cannot be")
    except (ValueError, binascii.Error, RecursionError) as error:
        raise DataError("after is not the `next` of a page; leave it out for the first page") from error
    return [sa.literal(value, column.type) for value, column in zip(found, key, strict=True)]


def _own_cameras(connection: Connection, caller: Caller, camera: str) -> dict[int, str]:
    """Number in the store -> name, of the caller's cameras. Raises Missing where the one that is asked for is none."""
    query = sa.select(tables.cameras.c.id, tables.cameras.c.camera)
    query = query.where(tables.cameras.c.camera == camera) if camera else query
    found = {number: name for number, name in connection.execute(query) if caller.sees(name)}
    if camera and not found:
        raise Missing(f"no camera {camera!r}")
    return found


def _own_alert(connection: Connection, caller: Caller, number: str) -> Mapping[str, Any]:
    query = sa.select(tables.alerts, tables.cameras.c.camera).join_from(
        tables.alerts, tables.cameras, tables.alerts.c.camera_id == tables.cameras.c.id
    )
    row = connection.execute(query.where(tables.alerts.c.id == number)).mappings().first()
    if row is None or not caller.sees(row["camera"]):
        raise Missing("no such alert")
    return dict(row)


def _verdict(row: Mapping[str, Any], camera: str) -> dict[str, Any]:
    names = ("boot_id", "last_slot", "made_s", "label", "probability", "late", "unsure", "sentence")
    shown = {name: row[name] for name in names}
    return {"camera": camera, **shown, "trace": trace_id(camera, int(row["boot_id"], 16), row["last_slot"])}


def _alert(row: Mapping[str, Any], camera: str) -> dict[str, Any]:
    place = ("id", "first_id", "boot_id", "slot", "label", "raised", "severity", "made_s", "device_s")
    names = (*place, "probability", "sentence", "seen_by", "seen_s")
    trace = trace_id(camera, int(row["boot_id"], 16), row["slot"])
    return {"camera": camera, **{name: row[name] for name in names}, "trace": trace}
