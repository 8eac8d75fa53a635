"""What was acknowledged was read, told and recorded; cameras take turns; and what is open is known."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.bridge import run
from cloud_bridge.ingest.freshness import Allowance, IngestRule
from cloud_bridge.ingest.transport import Inbound, Mailbox
from cloud_bridge.store.journal import Journal, own_folder
from tests.support.bridge_factory import DEVICE, OTHER, Harness, a_state, make_manifest, release
from wire.errors import ConfigError
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


def recorded(folder: Path) -> int:
    rows = json.loads((folder / "journal.json").read_text())["cameras"]["lab/door"]
    return int(rows[DEVICE.public.hex]["next_slot"])


# --- no loss


def test_a_batch_is_acknowledged_after_its_verdicts_and_the_journal(harness: Harness, tmp_path: Path) -> None:
    steps: list[str] = []
    flush, save = harness.link.flush, harness.bridge._journal.save
    harness.link.flush = lambda: steps.append("flush") or flush()  # type: ignore[method-assign,func-returns-value]
    harness.bridge._journal.save = lambda: steps.append("save") or save()  # type: ignore[method-assign,func-returns-value]
    harness.link.acknowledge = lambda receipts: steps.append("acknowledge")  # type: ignore[method-assign]
    harness.link.publish = lambda *_: steps.append("publish")  # type: ignore[method-assign]
    harness.bridge.handle(items(range(8)))
    assert steps == ["publish", "flush", "save", "acknowledge"]


def test_what_the_broker_did_not_get_is_neither_recorded_nor_acknowledged(harness: Harness, tmp_path: Path) -> None:
    harness.bridge.handle(items(range(2)))
    harness.link.away = True
    harness.bridge.handle(items(range(2, 8)))
    assert [receipt.mid for receipt in harness.link.acknowledged] == [1, 2] and recorded(tmp_path) == 2
    harness.link.away = False
    harness.bridge.settle()
    assert [receipt.mid for receipt in harness.link.acknowledged] == [*range(1, 9)] and recorded(tmp_path) == 8


def test_a_crash_before_the_verdict_lets_the_messages_come_again(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST)
    first.bridge.handle(items(range(7)))
    first.member.read = lambda events: (_ for _ in ()).throw(RuntimeError("power cut"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        first.bridge.handle(items(range(7, 8)))
    assert len(first.link.acknowledged) == 7 and recorded(tmp_path) == 7
    second = Harness(tmp_path, MANIFEST)
    second.bridge.handle(items(range(7, 15)))
    assert second.bridge.stats()["refused"] == {} and second.spans == [(7, 14)]


def test_every_message_is_acknowledged_whatever_it_is(harness: Harness) -> None:
    junk = [
        Inbound("lab/door", "features", b"x", False, Receipt(1, 1)),
        Inbound("lab/nobody", "features", b"x", False, Receipt(1, 2)),
        Inbound("lab/door", "state", b"{", True, Receipt(1, 3)),
        Inbound("lab/door", "features", at(3), False, Receipt(1, 4)),  # waits for slots 0 to 2
    ]
    harness.bridge.handle(junk)
    assert [receipt.mid for receipt in harness.link.acknowledged] == [1, 2, 3, 4]


def test_a_graceful_end_keeps_the_window_and_the_count_of_verdicts(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    first.send(*(at(slot) for slot in range(8)), at(8, 90))
    first.bridge.close()
    second = Harness(tmp_path, MANIFEST, RULE)
    second.send(at(9, 90))
    assert second.spans == [(2, 9)] and second.member.events[0].present.all()
    assert second.member.events[0].z[:, 0, 0].tolist() == [0] * 6 + [90] * 2
    assert [(alert.label, alert.slot) for alert in second.alerts()] == [("fall", 9)]
    second.send(at(10, 90))  # a crash after this: the window is gone, and not the one of before
    third = Harness(tmp_path, MANIFEST, RULE)
    third.send(at(11, 90))
    assert third.spans == []


def test_a_graceful_end_reads_what_waits_and_goes_on_with_a_short_stream(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    first.send(at(0), at(1), at(3))
    first.bridge.close()
    assert first.spans == []
    second = Harness(tmp_path, MANIFEST, RULE)
    second.send(*(at(slot) for slot in range(4, 8)))
    assert second.spans == [(0, 7)]
    assert second.member.events[0].present.tolist() == [True, True, False, True, True, True, True, True]


@pytest.mark.parametrize(
    "window", [{"last_slot": 3}, {"last_slot": "x"}, {"start": 0, "time_s": 0, "last_slot": 1, "unread": 0, "z": "!"}]
)
def test_a_window_that_cannot_be_is_left(
    tmp_path: Path, window: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal.open(tmp_path / "journal.json")
    record = journal.record("lab/door", DEVICE.public.hex)
    record.boot_id, record.next_slot = 1, 8
    record.window = {"model": f"{MANIFEST.model_id:016x}", "present": [True] * 8, **window}
    journal.save()
    harness = Harness(tmp_path, MANIFEST)
    assert "its last releases cannot be used" in caplog.text
    harness.send(*(at(slot) for slot in range(8, 16)))
    assert harness.spans == [(8, 15)]


def test_a_window_of_another_engine_is_left(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST)
    first.send(*(at(slot) for slot in range(8)))
    first.bridge.close()
    other = make_manifest(family="another")
    second = Harness(tmp_path, other)
    second.send(release(8, manifest=other))
    assert second.spans == []


def test_a_stop_reads_the_batch_that_was_taken(harness: Harness, tmp_path: Path) -> None:
    batches = [items(range(8))]
    run(harness.bridge, lambda _: batches.pop(0), False, lambda: not batches)
    assert harness.spans == [(0, 7)] and len(harness.link.acknowledged) == 8 and recorded(tmp_path) == 8


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
    assert len(harness.verdicts("hall")) == 1 and len(harness.verdicts("door")) == 64 - 8 - 7
    while batch := mailbox.take(0):
        assert len(batch) <= 64
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
        again.link.publish(*message)
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
    began = time.process_time()
    for _ in range(1000):
        harness.bridge.handle([Inbound("lab/door", "alert", b"[" * 16_000, False)])
    assert time.process_time() - began < 5.0 and harness.bridge.stats()["refused"] == {}
