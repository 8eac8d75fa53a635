"""Alerts about a camera itself, their ids and severities, and what is told again because nobody has seen it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.severity import next_severity, severity_of
from cloud_bridge.store import tables
from cloud_bridge.store.database import reading, writing
from tests.support.bridge_factory import OTHER, Harness, a_state, make_manifest, release
from wire.protocol.message import Alert

MANIFEST = make_manifest(slot_s=1.0)
RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2)
TOLD_AGAIN = dataclasses.replace(RULE, escalate_s=100.0)
NOON = 1_800_000_000


def at(slot: int, value: int = 0, time_s: int = 0, **more: Any) -> bytes:
    return release(slot, value, manifest=MANIFEST, time_s=time_s, **more)


def told(harness: Harness) -> list[tuple[str, bool, str]]:
    return [(alert.label, alert.raised, alert.severity) for alert in harness.alerts()]


def rows(harness: Harness) -> list[Any]:
    with reading(harness.bridge._store.engine) as connection:
        return list(connection.execute(sa.select(tables.alerts).order_by(tables.alerts.c.made_s)))


def a_fall(folder: Path, now_s: float = 1000.0) -> Harness:
    """A bridge in which a fall is open, told at `now_s`."""
    harness = Harness(folder, MANIFEST, TOLD_AGAIN)
    harness.now_s = now_s
    harness.send(*(at(slot, 90 if slot > 7 else 0, 960) for slot in range(10)))
    assert told(harness) == [("fall", True, "critical")]
    return harness


def watch(harness: Harness, *times: float) -> None:
    for now_s in times:
        harness.now_s = now_s
        harness.bridge.watch()


# --- who and when


def test_an_alert_is_the_same_in_message_store_and_stream(tmp_path: Path) -> None:
    harness, heard = Harness(tmp_path, MANIFEST, RULE), list[str]()
    harness.bridge.listeners.append(lambda _, made, number: heard.extend([number] * isinstance(made, Alert)))
    harness.now_s = NOON + 42.0
    harness.send(*(at(slot, 90 if 7 < slot < 10 else 0, NOON) for slot in range(14)))
    up, down = harness.alerts()
    assert (up.id, down.first_id) == (up.first_id, up.id) and up.id != down.id and len(up.id) == 32
    assert (up.severity, down.severity, up.device_time_s) == ("critical", "critical", NOON)
    assert heard == [up.id, down.id]
    assert {(row.id, row.first_id, row.severity, row.device_s, row.made_s) for row in rows(harness)} == {
        (each.id, up.id, "critical", float(NOON), NOON + 42.0) for each in (up, down)
    }


def test_a_risk_is_more_severe_than_a_camera_that_does_not_watch() -> None:
    assert [severity_of(label) for label in ("fall", "fight", "lying still", "anything")] == ["critical"] * 4
    assert [severity_of(label) for label in ("stale", "not watching", "bridge lost", "clock skew")] == [
        "warning",
        "warning",
        "warning",
        "info",
    ]
    assert [next_severity(each) for each in ("info", "warning", "critical", "emergency", "")] == [
        "",
        "critical",
        "emergency",
        "",
        "",
    ]


# --- a key, a clock, a bridge


def test_a_strange_signature_is_told_once_and_cleared_when_it_ends(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.send(*(at(slot) for slot in range(3)))
    watch(harness, 1.0)
    assert told(harness) == []
    harness.now_s = 10.0
    harness.send(at(3, key=OTHER), at(4, key=OTHER))
    watch(harness, 11.0, 12.0)
    assert told(harness) == [("untrusted key", True, "warning")]
    assert "another key" in harness.alerts()[0].sentence and harness.open_alerts() == ["untrusted key"]
    harness.send(a_state("online", key=OTHER), name="state")  # at 12 s: 600 s begin anew
    for slot in range(3, 30):
        harness.now_s = 12.0 + 20.0 * (slot - 2)
        harness.send(at(slot, time_s=int(harness.now_s) // 60 * 60))
        watch(harness, harness.now_s)
    assert told(harness)[1:] == []
    harness.now_s = 611.0
    harness.send(at(30, time_s=600))
    watch(harness, 611.0, 612.0)
    assert told(harness)[1:] == [("untrusted key", False, "warning")]


def test_a_clock_that_is_ahead_is_told_and_counted(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.now_s = NOON + 35.0  # the device's is 30 s ahead: its minute has begun, ours has not
    harness.send(at(0, time_s=NOON))
    watch(harness, NOON + 36.0)
    assert told(harness) == [] and harness.bridge.stats()["skewed"] == 0
    harness.send(at(1, time_s=NOON + 60))
    watch(harness, NOON + 37.0)
    assert told(harness) == [("clock skew", True, "info")] and harness.bridge.stats()["skewed"] == 1
    assert "24 s ahead" in harness.alerts()[0].sentence
    for slot in range(2, 11):
        harness.now_s = NOON + 37.0 + 15.0 * (slot - 1)
        harness.send(at(slot, time_s=int(harness.now_s) // 60 * 60))
        watch(harness, harness.now_s)
    assert told(harness)[1:] == []
    harness.now_s = NOON + 190.0
    harness.send(at(11, time_s=NOON + 180))
    watch(harness, NOON + 190.0)
    assert told(harness)[1:] == [("clock skew", False, "info")]


def test_a_clock_that_is_behind_is_late_and_no_skew(tmp_path: Path) -> None:
    """It looks like messages that a broker holds back."""
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.now_s = NOON + 300.0
    harness.send(at(0, time_s=NOON))
    watch(harness, NOON + 301.0)
    assert told(harness) == [("late", True, "warning")] and harness.bridge.stats()["skewed"] == 0


def test_a_known_error_of_a_clock_is_no_skew(tmp_path: Path) -> None:
    session = Harness(tmp_path, MANIFEST, RULE).bridge.sessions["lab/door"]
    session._freshness._behind_s = -3600
    session.receive("features", at(0, time_s=NOON + 3600), now_s=NOON)
    assert session.skewed == 0 and session.device_s == NOON + 3600


def away(harness: Harness, seconds: float) -> None:
    """Let the last commit be so long ago."""
    with writing(harness.bridge._store.engine) as connection:
        connection.execute(sa.update(tables.bridge).values(wrote_s=tables.bridge.c.wrote_s - seconds))


def test_a_bridge_that_was_lost_is_told_by_the_next_one(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    first.send(*(at(slot) for slot in range(3)))
    away(first, 29.0)
    second = Harness(tmp_path, MANIFEST, RULE)
    second.bridge.watch()
    assert told(second) == []
    away(second, 500.0)
    third = Harness(tmp_path, MANIFEST, RULE)
    third.bridge.watch()
    assert told(third) == [("bridge lost", True, "warning")] and third.alerts("hall") == []
    assert third.alerts()[0].sentence.startswith("no bridge was there for 500 s")
    third.send(at(3))
    assert told(third)[1:] == [("bridge lost", False, "warning")]


# --- nobody has seen it


def test_what_nobody_acknowledges_goes_one_severity_up_and_is_told_again(tmp_path: Path) -> None:
    harness = a_fall(tmp_path)
    harness.bridge._began_s = 1e9  # nothing is stale
    watch(harness, 1099.0)
    assert len(told(harness)) == 1
    watch(harness, 1100.0, 1101.0)
    assert told(harness)[1:] == [("fall", True, "emergency")]
    up, again = harness.alerts()
    assert again.first_id == up.id != again.id and again.sentence == "nobody has acknowledged it for 100 s"
    assert again.probability == up.probability and harness.open_alerts() == ["fall", "fall"]
    watch(harness, 5000.0)
    assert len(told(harness)) == 2
    harness.send(*(at(slot, 0, 4980) for slot in range(10, 14)))
    assert told(harness)[2:] == [("fall", False, "emergency")] and harness.open_alerts()[-1] == ""
    assert "now emergency" in harness.people.getvalue()


def test_what_somebody_has_acknowledged_is_not_told_again(tmp_path: Path) -> None:
    harness = a_fall(tmp_path)
    harness.bridge._began_s = 1e9
    with writing(harness.bridge._store.engine) as connection:
        connection.execute(sa.update(tables.alerts).values(seen_by="nora"))
    watch(harness, 1200.0, 1300.0)
    assert len(told(harness)) == 1


def test_it_is_told_again_by_the_next_bridge_too(tmp_path: Path) -> None:
    a_fall(tmp_path)
    second = Harness(tmp_path, MANIFEST, TOLD_AGAIN)
    second.bridge._began_s = 1e9
    watch(second, 1099.0, 1100.0)
    second.bridge.rest()
    assert told(second)[-1] == ("fall", True, "emergency")


def test_nothing_is_told_again_where_that_is_off(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.send(*(at(slot, 90 if slot > 7 else 0) for slot in range(10)))
    harness.bridge._began_s = 1e9
    watch(harness, 1e6)
    assert len(told(harness)) == 1


# --- a store of before


def test_an_alert_that_was_open_before_the_severities_is_cleared(tmp_path: Path) -> None:
    first = a_fall(tmp_path)
    with writing(first.bridge._store.engine) as connection:
        former = connection.scalar(sa.select(tables.cameras.c.alerts).limit(1))
        assert former is not None
        kept = former[: former.index(', "open"')] + "}"
        connection.execute(sa.update(tables.cameras).where(tables.cameras.c.id == 1).values(alerts=kept))
    second = Harness(tmp_path, MANIFEST, TOLD_AGAIN)
    second.now_s = 1010.0
    second.send(*(at(slot, 0, 960) for slot in range(10, 14)))
    assert told(second)[-1] == ("fall", False, "critical")
