"""What the fuzzing campaign found: floods under a camera's name, releases that come too late, and logs that grow."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_bridge.config import BridgeConfig, CameraConfig
from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.ingest.transport import Inbound, Mailbox
from cloud_bridge.log import BoundedRate
from cloud_bridge.service import Service
from cloud_bridge.store import tables
from cloud_bridge.store.database import StoreConfig, reading
from cloud_bridge.store.records import CameraRecord
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from tests.support.bridge_factory import DEVICE, OTHER, FakeMember, Harness, a_state, make_manifest, models_of, release
from wire.broker import BrokerConfig
from wire.mqtt import Receipt
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage, open_features

MANIFEST = make_manifest()
OURS = MANIFEST.certificate().to_json().encode()


def junk(number: int) -> Inbound:
    return Inbound("lab/door", "features", b"junk %d" % number, False)


def genuine(slot: int) -> Inbound:
    return Inbound("lab/door", "features", release(slot, manifest=MANIFEST), False)


def wanted_by(session: CameraSession) -> Callable[[Inbound], bool]:
    return lambda item: session.wants(item.name, item.payload)


def new_session() -> CameraSession:
    return CameraSession("lab/door", DEVICE.public, engines_of(MANIFEST), CameraRecord())


def test_a_flood_pushes_nothing_out_that_the_camera_has_signed() -> None:
    """An outsider writes thirty times as much under its name as may wait."""
    mailbox, dropped = Mailbox(["lab/door"], depth=8, wanted=wanted_by(new_session())), list[Inbound]()
    for slot in range(8):
        for item in [genuine(slot), *(junk(number) for number in range(30))]:
            dropped += [out for out in [mailbox.put(item)] if out is not None]
    assert all(item.payload.startswith(b"junk") for item in dropped) and len(dropped) == 8 * 31 - 16
    left = [item.payload for item in mailbox.take(0) if not item.payload.startswith(b"junk")]
    assert left == [genuine(slot).payload for slot in range(8)]
    assert mailbox.take(0) == [] and mailbox.dropped == {"lab/door": len(dropped)}


def test_a_camera_that_floods_itself_loses_its_newest_and_no_time_is_spent_on_them() -> None:
    """Each signature that was checked to drop a message kept the neighbours waiting: 7.7 s at 4,400 a second."""
    asked, session = [0], new_session()

    def wanted(item: Inbound) -> bool:
        asked[0] += 1
        return session.wants(item.name, item.payload)

    mailbox = Mailbox(["lab/door"], depth=4, wanted=wanted)
    dropped = [mailbox.put(genuine(slot)) for slot in range(30)]
    assert [item.payload for item in mailbox.take(0)] == [genuine(slot).payload for slot in range(8)]
    assert [item for item in dropped if item is not None] == [genuine(slot) for slot in range(8, 30)]
    assert asked[0] == 4


def test_a_release_that_is_sent_again_and_again_keeps_no_other_out() -> None:
    """Whoever listens can repeat what waits to be read, and it is the camera's own each time."""
    mailbox = Mailbox(["lab/door"], depth=4, wanted=wanted_by(new_session()))
    for _ in range(50):
        mailbox.put(genuine(0))
    for slot in range(1, 4):
        mailbox.put(genuine(slot))
    read = [item.payload for item in mailbox.take(0)]
    assert list(dict.fromkeys(read)) == [genuine(slot).payload for slot in range(4)]


def test_beyond_its_allowance_no_signature_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    session, opened = new_session(), [0]

    def counted(*arguments: Any) -> FeatureMessage:
        opened[0] += 1
        return open_features(*arguments)

    monkeypatch.setattr("cloud_bridge.ingest.session.open_features", counted)
    for slot in range(700):
        session.receive("features", release(slot, manifest=MANIFEST), now_s=1000.0)
    assert opened == [600] and session.refused == {"flood": 100}


def test_a_queue_of_one_has_one_turn() -> None:
    mailbox = Mailbox(["lab/door"], depth=1)
    for number in range(3):
        mailbox.put(junk(number))
    assert mailbox.take(0) == [junk(2)] and mailbox.take(0) == []


def test_wanted_is_what_the_camera_signed_and_nobody_has_read() -> None:
    session = new_session()
    session.receive("state", a_state("online", count=3, certificate=OURS))
    for slot in range(4):
        session.receive("features", release(slot, manifest=MANIFEST))
    assert [session.wants("features", release(slot, manifest=MANIFEST)) for slot in (3, 4, 99)] == [False, True, True]
    assert not session.wants("features", release(9, manifest=MANIFEST, key=OTHER))
    assert not session.wants("features", release(9, manifest=MANIFEST)[:-1])
    assert [session.wants("state", a_state("online", count=count)) for count in (3, 4)] == [False, True]
    assert not session.wants("state", a_state("online", count=9, key=OTHER))
    assert session.wants("certificate", OURS) and not session.wants("certificate", OURS + b" ")
    assert session.received == 4 and not session.refused


@pytest.fixture
def service(tmp_path: Path) -> Service:
    cameras = (CameraConfig("lab", "door", DEVICE.public.hex),)
    config = BridgeConfig(cameras=cameras, broker=BrokerConfig("mqtt://127.0.0.1:1"))
    store, timeline = Store.open(StoreConfig(), tmp_path), Timeline(io.StringIO())
    return Service(config, models_of(MANIFEST, FakeMember()), DeviceKey(b"b" * 32), store, timeline)


def test_what_comes_at_qos_0_is_left(service: Service) -> None:
    """It overtakes what waits at QoS 1: a recording of the next slots makes the bridge give up those on their way."""
    where = "veilsight/v1/lab/door/features"
    for slot, number in ((2, 0), (3, 0), (0, 1), (1, 2)):
        service._hold(where, release(slot, manifest=MANIFEST), False, Receipt(1, number))
    found = service._mailbox.take(0)
    assert [item.payload for item in found] == [release(slot, manifest=MANIFEST) for slot in (0, 1)]
    assert service._mailbox.dropped == {"lab/door": 2}


def test_the_service_asks_the_session_in_a_flood(service: Service) -> None:
    where = "veilsight/v1/lab/door/features"
    service._hold(where, release(0, manifest=MANIFEST), False, Receipt(1, 1))
    for number in range(2000):
        service._hold(where, b"junk", False, Receipt(1, 2 + number))
    assert service._mailbox.take(0)[0].payload == release(0, manifest=MANIFEST)


def test_a_release_that_comes_too_late_is_kept_once_and_not_read(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.send(*(release(slot, manifest=MANIFEST) for slot in (0, 1, 3, 4, 2, 2, 5)))
    assert harness.bridge.sessions["lab/door"].refused == {"late": 1, "duplicate": 1}
    with reading(harness.bridge._store.engine) as connection:
        rows = connection.execute(tables.releases.select().order_by(tables.releases.c.slot)).all()
    assert [(row.slot, row.refused) for row in rows] == [(0, ""), (1, ""), (2, "late"), (3, ""), (4, ""), (5, "")]
    again = Harness(tmp_path, MANIFEST)
    again.send(release(2, manifest=MANIFEST), release(6, manifest=MANIFEST))
    assert again.bridge.sessions["lab/door"].refused == {"duplicate": 1}


def test_states_turn_alerts_no_faster_than_slots_pass(tmp_path: Path) -> None:
    """A device whose key is stolen says at full speed that it watches, and that it does not."""
    harness = Harness(tmp_path, MANIFEST)
    for count in range(1, 1001):
        harness.now_s = count * 0.01
        harness.send(a_state("online", count=count, watching=bool(count % 2)), name="state")
    assert len(harness.alerts()) <= 60 + 10 + 1
    assert harness.bridge.sessions["lab/door"].refused["flood"] >= 1000 - 72


def test_a_last_will_that_is_repeated_keeps_no_state_out(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.send(*[a_state("offline", count=0)] * 500, a_state("online", count=1, watching=False), name="state")
    assert [alert.label for alert in harness.alerts()] == ["not watching"]


# --- the log


class Lines(logging.Handler):
    def __init__(self, filter: BoundedRate) -> None:
        super().__init__()
        self.addFilter(filter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_the_same_words_are_logged_five_times_and_then_once_a_minute() -> None:
    now = [0.0]
    handler, log = Lines(BoundedRate(lambda: now[0])), logging.Logger("a")
    log.addHandler(handler)
    for second in range(600):
        now[0] = float(second)
        log.warning("%s: refused %d", "lab/door", second)
        if not second:
            log.warning("%s: refused %d", "lab/hall", second)
    door = [line for line in handler.lines if "door" in line]
    assert 12 <= len(door) <= 15 and len(handler.lines) == len(door) + 1
    assert "more like it, left out)" in door[6]


def test_the_memory_of_the_log_is_bounded() -> None:
    bound = BoundedRate()
    for number in range(5000):
        bound.filter(logging.LogRecord("a", 30, "", 0, f"text {number}", (), None))
    assert len(bound._left) == 1024
