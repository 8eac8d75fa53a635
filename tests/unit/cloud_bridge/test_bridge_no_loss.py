"""What was acknowledged is in the store with all that follows; cameras take turns; and what is open is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.ingest import transport
from cloud_bridge.ingest.freshness import Allowance, IngestRule
from cloud_bridge.ingest.transport import Inbound, Mailbox
from cloud_bridge.loop import run
from cloud_bridge.store import tables
from cloud_bridge.store.database import reading
from cloud_bridge.store.folder import own_folder
from cloud_bridge.store.records import Work
from tests.support.bridge_factory import OTHER, Harness, a_state, make_manifest, release
from wire.errors import ConfigError, StoreAway
from wire.mqtt import Receipt

MANIFEST = make_manifest(slot_s=1.0)
RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path, MANIFEST, RULE)


def at(slot: int, value: int = 0, boot: int = 1) -> bytes:
    return release(slot, value, boot=boot, manifest=MANIFEST)


def items(slots: range, value: int = 0) -> list[Inbound]:
    return [Inbound("lab/door", "features", at(slot, value), False, Receipt(1, slot + 1)) for slot in slots]


def recorded(harness: Harness) -> int:
    """The next slot of lab/door as a restart would find it."""
    with reading(harness.bridge._store.engine) as connection:
        where = tables.cameras.c.camera == "lab/door"
        return int(connection.scalar(sa.select(tables.cameras.c.next_slot).where(where)) or 0)


def stored(harness: Harness, table: sa.Table) -> int:
    """Rows of a table."""
    with reading(harness.bridge._store.engine) as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


# --- no loss


def test_a_batch_is_acknowledged_and_published_after_the_commit(harness: Harness) -> None:
    steps: list[str] = []
    store, link = harness.bridge._store, harness.link
    commit = store.commit
    store.commit = lambda *what: steps.append("commit") or commit(*what)  # type: ignore[method-assign,func-returns-value]
    link.acknowledge = lambda receipts: steps.append("acknowledge")  # type: ignore[method-assign]
    link.publish = lambda *what: steps.append("publish")  # type: ignore[method-assign]
    harness.bridge.handle(items(range(8)))
    assert steps == ["commit", "acknowledge", "publish"]


def test_one_commit_has_releases_verdict_and_outbox(harness: Harness) -> None:
    harness.link.connected = False
    harness.bridge.handle(items(range(9)))
    assert [stored(harness, table) for table in (tables.releases, tables.verdicts, tables.outbox)] == [9, 2, 2]
    assert recorded(harness) == 9 and len(harness.link.acknowledged) == 9 and harness.link.sent == []


def test_the_outbox_is_published_in_order_and_forgotten(harness: Harness) -> None:
    harness.link.connected = False
    harness.bridge.handle(items(range(20)))
    harness.link.connected = True
    harness.bridge.rest()
    assert [verdict.last_slot for verdict in harness.verdicts()] == list(range(7, 20))
    harness.bridge.rest()
    assert stored(harness, tables.outbox) == 0


def test_what_was_not_published_is_published_by_the_next_start(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    first.link.connected = False
    first.bridge.handle(items(range(8)) + items(range(8, 12), 90))
    second = Harness(tmp_path, MANIFEST, RULE)
    second.bridge.rest()
    assert [verdict.last_slot for verdict in second.verdicts()] == list(range(7, 12))
    assert [alert.label for alert in second.alerts()] == ["fall"]
    assert second.bridge.publisher.waiting == 0


def test_an_outbox_longer_than_the_publisher_holds_is_read_on(harness: Harness) -> None:
    harness.link.connected = False
    for first in range(0, 5400, 200):
        harness.now_s += 1000.0
        harness.bridge.handle(items(range(first, first + 200)))
    assert len(harness.bridge.publisher._held) + len(harness.bridge.publisher._sent) <= 4096 + 1024
    harness.link.connected = True
    for _ in range(10):
        harness.bridge.rest()
    assert [verdict.last_slot for verdict in harness.verdicts()] == list(range(7, 5400))


def test_a_crash_before_the_commit_lets_the_messages_come_again(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST)
    first.bridge.handle(items(range(7)))
    first.member.read = lambda events: (_ for _ in ()).throw(RuntimeError("power cut"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        first.bridge.handle(items(range(7, 8)))
    assert len(first.link.acknowledged) == 7 and recorded(first) == 7
    second = Harness(tmp_path, MANIFEST)
    second.bridge.handle(items(range(7, 15)))
    assert second.bridge.stats()["refused"] == {} and second.spans == [(slot - 7, slot) for slot in range(7, 15)]


def test_no_kill_between_two_batches_changes_a_verdict(tmp_path: Path) -> None:
    """Falls, gaps and releases out of order, and a new bridge after every message: all is as without."""
    values = [0] * 9 + [90] * 4 + [10] * 4 + [90] * 3
    order = [0, 1, 2, 4, 3, 5, 6, 7, 8, 9, 11, 10, 12, 14, 15, 16, 17, 18, 19]  # 13 is lost
    whole = Harness(tmp_path / "whole", MANIFEST, RULE)
    whole.send(*(at(slot, values[slot]) for slot in order))
    verdicts, alerts = [], []
    for slot in order:
        part = Harness(tmp_path / "parts", MANIFEST, RULE)
        part.send(at(slot, values[slot]))
        part.bridge.rest()
        verdicts += part.verdicts()
        alerts += part.alerts()
    assert len(verdicts) == 12 and verdicts == whole.verdicts()
    assert [alert.raised for alert in alerts] == [True, False, True] and alerts == whole.alerts()
    for table in (tables.verdicts, tables.alerts, tables.releases):
        assert stored(part, table) == stored(whole, table)


def test_every_message_is_acknowledged_whatever_it_is(harness: Harness) -> None:
    junk = [
        Inbound("lab/door", "features", b"x", False, Receipt(1, 1)),
        Inbound("lab/nobody", "features", b"x", False, Receipt(1, 2)),
        Inbound("lab/door", "state", b"{", True, Receipt(1, 3)),
        Inbound("lab/door", "features", at(3), False, Receipt(1, 4)),  # waits for slots 0 to 2
    ]
    harness.bridge.handle(junk)
    assert [receipt.mid for receipt in harness.link.acknowledged] == [1, 2, 3, 4]


def test_a_window_that_cannot_be_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Harness(tmp_path, MANIFEST)
    first.send(*(at(slot) for slot in range(8)))
    record = first.bridge._records["lab/door"]
    record.event = {**record.event, "start": "x"}
    first.bridge._store.commit(Work({"lab/door": record}))
    harness = Harness(tmp_path, MANIFEST)
    assert "its last releases cannot be used" in caplog.text
    harness.send(*(at(slot) for slot in range(8, 16)))
    assert harness.spans == [(8, 15)]


def test_a_release_that_was_changed_in_the_store_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Harness(tmp_path, MANIFEST)
    first.send(*(at(slot) for slot in range(8)))
    other = release(5, 90, manifest=MANIFEST, key=OTHER)
    with first.bridge._store.engine.begin() as connection:
        connection.execute(sa.update(tables.releases).where(tables.releases.c.slot == 5).values(message=other))
    second = Harness(tmp_path, MANIFEST)
    second.send(at(8))
    assert second.spans == [] and "forged" in caplog.text


def test_a_deleted_window_is_a_gap(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST)
    first.send(*(at(slot) for slot in range(8)))
    with first.bridge._store.engine.begin() as connection:
        connection.execute(sa.delete(tables.releases))
    second = Harness(tmp_path, MANIFEST)
    second.send(at(8))
    assert second.spans == [(1, 8)] and second.member.events[0].present.tolist() == [False] * 7 + [True]


def test_a_window_of_another_engine_is_left(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST)
    first.send(*(at(slot) for slot in range(8)))
    other = make_manifest(family="another")
    second = Harness(tmp_path, other)
    second.send(release(8, manifest=other))
    assert second.spans == []


def test_a_stop_reads_the_batch_that_was_taken(harness: Harness, tmp_path: Path) -> None:
    batches = [items(range(8))]
    run(harness.bridge, lambda _: batches.pop(0), False, lambda: not batches)
    assert harness.spans == [(0, 7)] and len(harness.link.acknowledged) == 8 and recorded(harness) == 8


def test_two_bridges_do_not_share_a_folder(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match=r"in use by another bridge \(process [0-9]+\)")
    with own_folder(tmp_path), refused, own_folder(tmp_path):
        pass
    with own_folder(tmp_path):
        pass


# --- turns


def test_cameras_are_read_in_turns(tmp_path: Path) -> None:
    """690 messages of one, 8 of another: the other is read with the first batch."""
    mailbox, harness = Mailbox(["lab/door", "lab/hall"]), Harness(tmp_path, MANIFEST)
    for item in items(range(690)):
        mailbox.put(item)
    for slot in range(8):
        payload = release(slot, manifest=MANIFEST, key=OTHER, camera="hall")
        mailbox.put(Inbound("lab/hall", "features", payload, False))
    harness.bridge.handle(mailbox.take(0))
    assert len(harness.verdicts("hall")) == 1 and len(harness.verdicts("door")) == 256 - 8 - 7
    while batch := mailbox.take(0):
        assert len(batch) <= 256
        harness.bridge.handle(batch)
    assert harness.bridge.stats()["refused"] == {"flood": 90}
    assert len(harness.verdicts("door")) == 593


def test_many_cameras_with_a_flood_each_get_their_turn() -> None:
    names = [f"lab/c{number}" for number in range(100)]
    mailbox = Mailbox(names)
    for name in names:
        for _ in range(3):
            mailbox.put(Inbound(name, "features", b"", False))
    order = [item.camera for _ in range(5) for item in mailbox.take(0)]
    assert order == names * 3


def test_what_is_dropped_comes_back_to_be_acknowledged() -> None:
    mailbox = Mailbox(["lab/door"], depth=1)
    assert mailbox.put(Inbound("lab/door", "features", b"1", False, Receipt(1, 1))) is None
    dropped = mailbox.put(Inbound("lab/door", "features", b"2", False, Receipt(1, 2)))
    assert dropped is not None and dropped.receipt == Receipt(1, 1)


def test_what_was_kept_is_read_before_anything_is_dropped_again() -> None:
    mailbox = Mailbox(["lab/door", "lab/hall"], depth=2)
    waiting = items(range(6))
    assert [mailbox.put(item, keep=True) for item in waiting[:4]] == [None] * 4
    assert mailbox.put(waiting[4]) is None  # the store is back, and four wait still
    assert [item.payload for item in mailbox.take(0)] == [item.payload for item in waiting[:5]]
    assert [mailbox.put(item) for item in waiting[:3]] == [None, None, waiting[0]]


def test_all_that_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MOST_WAITING", 3)
    mailbox, waiting = Mailbox(["lab/door", "lab/hall"], depth=2), items(range(5))
    assert [mailbox.put(item, keep=True) for item in waiting] == [None, None, None, waiting[0], waiting[1]]
    other = Inbound("lab/hall", "features", b"", False)
    assert mailbox.put(other, keep=True) is other
    assert [item.payload for item in mailbox.take(0)] == [item.payload for item in waiting[2:]]
    assert mailbox.put(other) is None


def test_a_camera_is_held_to_its_rate_and_may_catch_up() -> None:
    allowance = Allowance(IngestRule(burst=10.0, rate=2.0), slot_s=0.5)
    assert [allowance.take(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert [allowance.take(101.0) for _ in range(5)] == [True] * 4 + [False]
    assert not allowance.take(50.0)  # our clock was set back
    assert [allowance.take(1000.0) for _ in range(12)] == [True] * 10 + [False] * 2


def test_forged_messages_use_up_nothing_of_a_camera(harness: Harness) -> None:
    harness.send(*[release(0, manifest=MANIFEST, key=OTHER)] * 700)
    harness.send(*(at(slot) for slot in range(8)))
    assert harness.bridge.stats()["refused"] == {"forged": 700} and harness.spans == [(0, 7)]


# --- what is open


def test_open_alerts_are_kept_at_the_broker_and_cleared(harness: Harness) -> None:
    falls = [0] * 8 + [90] * 3 + [10] * 3
    harness.send(*(at(slot, value) for slot, value in enumerate(falls)))
    assert harness.open_alerts() == ["fall", ""] and harness.open_alerts("hall") == []
    assert len(harness.bridge.open_alerts()) == 2


def test_a_restart_tells_what_is_open(tmp_path: Path) -> None:
    Harness(tmp_path, MANIFEST, RULE).send(*(at(slot, 90) for slot in range(9)))
    again = Harness(tmp_path, MANIFEST, RULE)
    for message in again.bridge.open_alerts():
        again.link.publish(message)
    assert again.open_alerts() == ["fall"] and again.open_alerts("hall") == [""]


def test_silence_is_stale_and_the_next_release_ends_it(harness: Harness) -> None:
    harness.send(*(at(slot) for slot in range(3)))
    harness.now_s = 30.0
    harness.bridge.watch()
    assert harness.alerts() == []
    harness.now_s = 31.0
    harness.bridge.watch()
    harness.bridge.watch()
    (alert,) = harness.alerts()
    assert (alert.label, alert.raised, alert.slot) == ("stale", True, 2)
    assert "nothing has come for 31 s" in alert.sentence and "access list" in alert.sentence
    assert "ALERT stale RAISED (1.00)  nothing has come" in harness.people.getvalue()
    assert [alert.label for alert in harness.alerts("hall")] == ["stale"]  # of which nothing came ever
    harness.send(at(3))
    assert harness.open_alerts() == ["stale", ""] and not harness.alerts()[-1].raised


def test_forged_messages_do_not_end_silence(harness: Harness) -> None:
    harness.now_s = 31.0
    harness.bridge.watch()
    harness.send(release(0, manifest=MANIFEST, key=OTHER), b"x")
    assert harness.open_alerts() == ["stale"]


def test_a_camera_that_goes_offline_while_a_fall_is_open_is_stale_at_once(harness: Harness) -> None:
    harness.send(*(at(slot, 90) for slot in range(9)))
    harness.send(a_state("offline"), name="state")
    harness.bridge.watch()
    assert harness.open_alerts() == ["fall", "fall, stale"]
    assert "the device is offline" in harness.alerts()[-1].sentence


def test_a_camera_that_goes_offline_in_peace_is_stale_later(harness: Harness) -> None:
    harness.send(*(at(slot) for slot in range(9)))
    harness.send(a_state("offline"), name="state")
    harness.bridge.watch()
    assert harness.alerts() == []


# --- sentences


def test_sentences_come_with_alerts_and_now_and_then(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE, sentences_s=10.0)
    values = [0] * 8 + [90] * 3 + [10] * 3 + [0] * 20
    harness.send(*(at(slot, value) for slot, value in enumerate(values)))
    assert [event.last_slot for event in harness.member.described] == [7, 9, 12, 22, 32]
    assert [alert.sentence for alert in harness.alerts()] == ["someone lies on the floor", ""]
    said = {verdict.last_slot for verdict in harness.verdicts() if verdict.sentence}
    assert said == {9}


def test_a_sentence_is_that_of_its_own_event(tmp_path: Path) -> None:
    """Some events of a batch have one, some have none."""
    harness = Harness(tmp_path, MANIFEST, RULE, sentences_s=1000.0)
    harness.bridge.handle(items(range(8)) + items(range(8, 12), 90))
    assert [bool(verdict.sentence) for verdict in harness.verdicts()] == [False, False, True, False, False]


def test_a_message_of_another_topic_costs_nothing(harness: Harness) -> None:
    began = time.thread_time()
    for _ in range(1000):
        harness.bridge.handle([Inbound("lab/door", "alert", b"[" * 16_000, False)])
    assert time.thread_time() - began < 5.0 and harness.bridge.stats()["refused"] == {}


def test_a_commit_whose_answer_was_lost_is_asked_for_again_as_it_was(harness: Harness) -> None:
    """The database wrote it and ended; what time alone would raise meanwhile is not put into it."""
    store, commit = harness.bridge._store, harness.bridge._store.commit
    harness.bridge.handle(items(range(8)))

    def answer_lost(*what: Any) -> Any:
        commit(*what)
        store.place._batch -= 1  # as far as the bridge knows
        raise StoreAway("the connection has ended")

    store.commit = answer_lost  # type: ignore[method-assign,assignment]
    harness.bridge.handle(items(range(8, 9)))
    harness.now_s = 1000.0
    harness.bridge.watch()  # the camera has been silent for long
    store.commit = commit  # type: ignore[method-assign]
    assert harness.bridge.retry()
    harness.now_s = 2000.0
    harness.bridge.watch()
    told = sorted(alert.id for camera in ("door", "hall") for alert in harness.alerts(camera))
    with reading(store.engine) as connection:
        kept = sorted(connection.scalars(sa.select(tables.alerts.c.id)))
    assert kept == told and len(told) == 2  # each camera is stale
