"""A broker that moves, holds back, reorders, repeats and forges: each ends with its reason, never as a false "now"."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cloud_bridge.alerts.lifecycle import LATE, NOT_WATCHING
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.freshness import Freshness, IngestRule
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.store.database import StoreConfig
from cloud_bridge.store.records import CameraRecord, Work
from cloud_bridge.store.store import Store
from tests.support.bridge_factory import DEVICE, OTHER, Harness, a_state, make_manifest, release
from wire.errors import MessageError
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time, open_alert, open_verdict

MANIFEST = make_manifest(slot_s=1.0)
RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2)
NOON = 1_800_000_000.0
OURS = MANIFEST.certificate().to_json().encode()


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    made = Harness(tmp_path, MANIFEST, RULE)
    made.now_s = NOON
    return made


def at(slot: int, value: int = 0, made_s: float = NOON, boot: int = 1) -> bytes:
    return release(slot, value, boot=boot, manifest=MANIFEST, time_s=coarse_time(made_s + slot))


def refused(harness: Harness) -> dict[str, int]:
    return dict(harness.bridge.sessions["lab/door"].refused)


def turns(harness: Harness) -> list[tuple[str, bool]]:
    return [(alert.label, alert.raised) for alert in harness.alerts()]


def live(harness: Harness, count: int, value: int = 0, first: int = 0) -> None:
    """Deliver releases as they are made."""
    for slot in range(first, first + count):
        harness.now_s = NOON + slot
        harness.send(at(slot, value))


# --- held back


def test_what_is_delivered_as_it_is_made_is_now(harness: Harness) -> None:
    live(harness, 10, value=90)
    assert turns(harness) == [("fall", True)]
    assert not any(verdict.late for verdict in harness.verdicts())
    assert {verdict.time_s for verdict in harness.verdicts()} == {coarse_time(NOON)}


def test_what_is_held_back_is_read_late_and_raises_no_risk(harness: Harness) -> None:
    """A fall, held back for three hours and delivered in order."""
    harness.now_s = NOON + 3 * 3600
    harness.send(*(at(slot, 90) for slot in range(20)))
    assert turns(harness) == [(LATE, True)]
    assert "s old, or the device's clock is behind" in harness.alerts()[0].sentence
    assert len(harness.verdicts()) == 13 and all(verdict.late for verdict in harness.verdicts())
    assert "(late: not now)" in harness.people.getvalue() and "late RAISED" in harness.people.getvalue()
    documents = [json.loads(line) for line in harness.programs.getvalue().splitlines()]
    assert all(document["late"] for document in documents if document["type"] == "verdict")


def test_what_is_held_back_clears_no_risk(harness: Harness) -> None:
    """Quiet scenes of before, delivered after a fall: they are later slots, and no news."""
    live(harness, 10, value=90)
    harness.now_s = NOON + 3600
    harness.send(*(at(slot) for slot in range(10, 30)))
    assert turns(harness) == [("fall", True), (LATE, True)]


def test_a_stream_that_comes_back_to_now_is_read_as_now_from_there(harness: Harness) -> None:
    """After an outage the device's queue comes first; counts of verdicts in a row begin where now begins."""
    harness.now_s = NOON + 300
    harness.send(*(at(slot, 90) for slot in range(101)))  # 60 s and 120 s are allowed, so slot 120 is the first
    assert turns(harness) == [(LATE, True)]
    harness.send(*(at(slot, 90) for slot in range(101, 300)))
    assert turns(harness) == [(LATE, True), (LATE, False), ("fall", True)]
    first_now = next(verdict.last_slot for verdict in harness.verdicts() if not verdict.late)
    raised = next(alert for alert in harness.alerts() if alert.label == "fall")
    assert raised.slot == first_now + 1
    assert NOON + 300 - (NOON + first_now) <= 120 + 60


def test_verdicts_in_a_row_are_not_counted_over_what_was_late(harness: Harness) -> None:
    """One verdict of a fall, an hour of held-back quiet, one verdict of a fall: two, but not in a row."""
    live(harness, 8, value=90)
    harness.now_s = NOON + 3600
    harness.send(at(8))
    harness.send(at(9, 90, made_s=NOON + 3600))
    assert ("fall", True) not in turns(harness)
    harness.send(at(10, 90, made_s=NOON + 3600))
    assert turns(harness)[-1] == ("fall", True)


def test_the_end_of_a_short_stream_is_late_where_it_is_read_long_after(harness: Harness) -> None:
    """Releases in no event yet are read when the next start comes: their age counts then, not when they came."""
    live(harness, 3, value=90)
    harness.now_s = NOON + 7200
    harness.send(at(0, made_s=NOON + 7200, boot=2))
    assert [(verdict.boot_id, verdict.late) for verdict in harness.verdicts()] == [(1, True)]
    assert turns(harness) == []


@pytest.mark.parametrize("off_s", [-7200.0, 7200.0])
def test_a_wrong_clock_is_not_silent(harness: Harness, off_s: float, caplog: pytest.LogCaptureFixture) -> None:
    harness.send(*(at(slot, 90, NOON + off_s) for slot in range(10)))
    assert turns(harness) == [(LATE, True)] and len(harness.verdicts()) == 3
    assert caplog.text.count("Set the clocks of the device and of this machine") == 1


def test_a_clock_that_is_known_to_be_behind_is_now() -> None:
    freshness = Freshness("lab/door", IngestRule(), clock_behind_s=7200)
    assert freshness.complaint(coarse_time(NOON - 7200), NOON) == ""
    assert freshness.complaint(coarse_time(NOON), NOON)  # 2 hours ahead of what it should say


@pytest.mark.parametrize(
    ("age_s", "now"), [(0, True), (119, True), (120, True), (179, True), (180, True), (181, False), (-120, True)]
)
def test_the_bound_is_max_age_and_a_minute(age_s: int, now: bool) -> None:
    """Times are rounded down, so a message may look up to a minute older than it is."""
    assert (Freshness("lab/door", IngestRule(120.0)).complaint(60_000, 60_000.0 + age_s) == "") is now


def test_a_clock_that_is_set_back_costs_one_release(harness: Harness) -> None:
    harness.send(at(0), at(1), at(2, made_s=NOON - 600), at(3, made_s=NOON - 600), at(4, made_s=NOON - 600))
    assert refused(harness) == {"clock": 1}
    assert harness.bridge.sessions["lab/door"].place == (1, 4)


# --- moved


def test_a_release_of_another_camera_is_forged_here(harness: Harness) -> None:
    """Even where both cameras had the same key."""
    hall = release(0, manifest=MANIFEST, camera="hall", time_s=coarse_time(NOON))
    harness.send(hall)
    harness.send(a_state("online", camera="hall"), name="state")
    assert refused(harness) == {"forged": 2}


def test_verdicts_and_alerts_cannot_be_moved(harness: Harness) -> None:
    live(harness, 10, value=90)
    verdict = next(payload for topic, payload in harness.published if topic.endswith("verdict/cloud"))
    alert = next(payload for topic, payload in harness.published if topic.endswith("alert"))
    for site, camera in (("lab", "hall"), ("other", "door")):
        for opened, payload in ((open_verdict, verdict), (open_alert, alert)):
            with pytest.raises(MessageError, match="forged"):
                opened(payload, harness.key.public, site, camera, MANIFEST.model_id)


# --- replayed and reordered


def test_recordings_are_refused_after_a_restart(harness: Harness, tmp_path: Path) -> None:
    live(harness, 8)
    again = Harness(tmp_path, MANIFEST, RULE)
    again.now_s = NOON
    again.send(*(at(slot) for slot in range(8)))
    assert refused(again) == {"duplicate": 8}


def test_an_old_state_is_not_put_over_a_newer_one(harness: Harness, tmp_path: Path) -> None:
    old, new = a_state("online", count=3), a_state("online", count=4, watching=False)
    harness.send(old, new, old, name="state")
    assert refused(harness) == {"replayed": 1} and turns(harness) == [(NOT_WATCHING, True)]
    again = Harness(tmp_path, MANIFEST, RULE)  # the store knows
    again.send(old, name="state", retained=True)
    assert refused(again) == {"replayed": 1}
    again.send(a_state("online", boot=2), name="state")
    assert [(alert.label, alert.raised) for alert in again.alerts()] == [(NOT_WATCHING, False)]


# --- states


def test_a_device_that_does_not_watch_is_an_alert(harness: Harness) -> None:
    live(harness, 3)
    harness.send(a_state("online", count=2, watching=False), name="state")
    assert turns(harness) == [(NOT_WATCHING, True)]
    assert "ALERT not watching RAISED (1.00)  the device's eye does not answer" in harness.people.getvalue()
    harness.send(a_state("offline", count=3), name="state")  # says nothing about the eye
    assert turns(harness) == [(NOT_WATCHING, True)]
    harness.send(a_state("online", count=4), name="state")
    assert turns(harness) == [(NOT_WATCHING, True), (NOT_WATCHING, False)]
    assert harness.alerts()[0].slot == 2


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (a_state("offline", key=OTHER), "forged"),
        (a_state("online", count=9, watching=False, key=OTHER), "forged"),
        (a_state("online").replace(b'"watching": true', b'"watching": null'), "forged"),
        (a_state("online").replace(b'"online"', b'"offline"'), "forged"),
        (a_state("gone"), "values"),
        (a_state("online", count=0), "values"),
        (a_state("online", watching=1), "malformed"),
        (a_state("online", reason="a\x1bb"), "values"),
        (json.dumps({"status": "offline", "reason": "", "boot_id": 1}).encode(), "schema"),
        (a_state("online") + b" " * 1000, "oversized"),
        (b'{"schema": 2, "a": "' + b"[" * 10 + b'"}', "malformed"),
        (b"[" * 1000, "malformed"),
    ],
)
def test_a_bad_state_is_refused_with_its_reason(harness: Harness, payload: bytes, why: str) -> None:
    live(harness, 3)
    harness.send(payload, name="state")
    assert refused(harness) == {why: 1}
    assert not harness.bridge.sessions["lab/door"].ended and turns(harness) == []


def test_an_offline_gives_up_no_slot_that_may_still_come(harness: Harness) -> None:
    """The Last Will is replayed while slot 3 is overtaken by slot 4: slot 3 is read when it comes."""
    will = a_state("offline", count=0, reason="connection lost")
    live(harness, 3)
    harness.send(at(4))
    harness.send(will, will, name="state")
    harness.bridge.settle()
    assert not harness.bridge.sessions["lab/door"].ended
    harness.send(at(3), *(at(slot) for slot in range(5, 8)))
    assert refused(harness) == {} and harness.bridge.sessions["lab/door"].gaps == 0
    assert harness.spans[-1] == (0, 7) and harness.member.events[-1].present.all()


def test_live_releases_override_an_offline(harness: Harness) -> None:
    live(harness, 3)
    harness.send(a_state("offline", count=0), name="state")
    assert harness.bridge.sessions["lab/door"].ended
    live(harness, 1, first=3)
    assert not harness.bridge.sessions["lab/door"].ended


def test_a_last_will_changes_nothing_but_that_it_is_offline(harness: Harness) -> None:
    harness.send(a_state("online", count=5), name="state")
    harness.send(a_state("offline", count=0, watching=False), name="state")
    assert turns(harness) == [] and refused(harness) == {}
    harness.send(a_state("online", count=4), name="state")
    assert refused(harness) == {"replayed": 1}


def test_an_offline_device_is_read_to_its_end_after_a_while(harness: Harness) -> None:
    live(harness, 3)
    harness.send(at(4))
    harness.send(a_state("offline", count=2), name="state")
    harness.now_s += 6
    harness.bridge.settle()
    assert harness.spans == [(0, 4)] and harness.bridge.sessions["lab/door"].ended


# --- certificates


def test_a_swapped_certificate_counts_for_nothing(harness: Harness) -> None:
    """One that promises more than the engine gives, and one of another engine: the signed state names neither."""
    generous = dataclasses.replace(MANIFEST.certificate(), sigma=MANIFEST.sigma * 2).to_json().encode()
    harness.send(a_state("online", certificate=OURS), name="state")
    harness.send(OURS, generous, b"{}", name="certificate")
    live(harness, 8)
    assert refused(harness) == {"swapped": 2} and harness.spans == [(0, 7)]


def test_a_certificate_that_the_device_signs_for_stops_it_where_it_is_of_another_engine(harness: Harness) -> None:
    """Also after the broker has put the right one beside it."""
    foreign = b'{"of": "another engine"}'
    harness.send(a_state("online", certificate=foreign), name="state")
    harness.send(foreign, OURS, name="certificate")
    live(harness, 8)
    assert refused(harness) == {"untrusted": 9, "swapped": 1} and harness.spans == []


@pytest.mark.parametrize(("cameras", "trusted"), [(1, True), (2, False), (3, True), (4, True)])
def test_a_certificate_of_fewer_cameras_than_the_bridges_scene_stops_its_camera(cameras: int, trusted: bool) -> None:
    """Three cameras are known to see the same people: a device that counts two states too little."""
    text = MANIFEST.certificate().of_scene(cameras).to_json().encode()
    session = CameraSession("lab/door", DEVICE.public, engines_of(MANIFEST), CameraRecord(), views=3)
    session.receive("state", a_state("online", certificate=text))
    session.receive("certificate", text)
    assert session.refused["untrusted"] == (not trusted)
    session.receive("features", bytes(release(0, 0, manifest=MANIFEST)))
    assert session.refused["untrusted"] == 2 * (not trusted)


def test_a_certificate_before_any_state_waits_for_one(harness: Harness) -> None:
    harness.send(b"{}", name="certificate", retained=True)
    live(harness, 1)
    assert refused(harness) == {}
    harness.send(a_state("online", certificate=OURS), name="state")
    assert refused(harness) == {"swapped": 1}


# --- keys


def test_a_new_key_has_a_new_record_and_the_old_one_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = DeviceKey(b"n" * 32)
    first = Store.open(StoreConfig(), tmp_path)
    record = first.record("lab/door", DEVICE.public.hex)
    record.boot_id, record.next_slot, record.raised = 9, 100, ["fall"]
    first.commit(Work({"lab/door": record}))
    second = Store.open(StoreConfig(), tmp_path)
    registered = second.record("lab/door", new.public.hex)
    assert (registered.boot_id, registered.next_slot, registered.raised) == (-1, 0, ["fall"])
    assert caplog.text.count("has a new key") == 1
    registered.boot_id = 1
    second.commit(Work({"lab/door": registered}))
    third = Store.open(StoreConfig(), tmp_path)
    assert third.record("lab/door", new.public.hex).boot_id == 1
    assert third.record("lab/door", DEVICE.public.hex).boot_id == 9  # recordings stay refused


def test_recordings_under_the_old_key_stay_refused(tmp_path: Path) -> None:
    """The device was given a new ledger and a new key; then its operator goes back to the old key by mistake."""
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.send(*(release(slot, boot=5, manifest=MANIFEST) for slot in range(8)))
    again = Harness(tmp_path, MANIFEST, RULE)
    again.send(*(release(slot, boot=1, manifest=MANIFEST) for slot in range(8)))
    again.send(*(release(slot, boot=5, manifest=MANIFEST) for slot in range(8)))
    assert refused(again) == {"replayed": 8, "duplicate": 8} and again.spans == []


def test_an_unregistered_key_is_logged_once_with_the_cure(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    thief = DeviceKey(b"t" * 32)
    harness.send(*(release(slot, manifest=MANIFEST, key=thief) for slot in range(5)))
    assert refused(harness) == {"forged": 5}
    assert caplog.text.count("register it") == 1
