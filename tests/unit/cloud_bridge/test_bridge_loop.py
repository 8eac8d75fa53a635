"""The bridge without MQTT: it turns messages into verdicts and alerts, and no message stops it."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.ingest.transport import Inbound, Mailbox
from cloud_bridge.loop import run
from familial.evaluate.ood_detector import ReferenceDistribution
from tests.support.bridge_factory import DEVICE, OTHER, Harness, a_state, make_manifest, release
from wire.protocol.message import FLAG_SPENT, MAX_PAYLOAD, open_verdict
from wire.protocol.topics import parse_topic

MANIFEST = make_manifest(slot_s=0.5)
RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path, MANIFEST, RULE)


def at(slot: int, value: int = 0, boot: int = 1, flags: int = 0) -> bytes:
    return release(slot, value, boot=boot, flags=flags, manifest=MANIFEST)


def names(harness: Harness) -> list[str]:
    return [parts[2] for topic, _ in harness.published if (parts := parse_topic(topic))]


def test_a_fall_becomes_verdicts_and_an_alert_that_clears(harness: Harness) -> None:
    falls = [0] * 8 + [90] * 3 + [10] * 3
    harness.send(*(at(slot, value) for slot, value in enumerate(falls)))
    assert harness.spans == [(k, k + 7) for k in range(7)]
    assert names(harness) == [*["verdict/cloud"] * 3, "alert", *["verdict/cloud"] * 3, "alert", "verdict/cloud"]
    alerts = harness.alerts()
    assert [(a.label, a.raised, a.slot, a.at_s) for a in alerts] == [("fall", True, 9, 5.0), ("fall", False, 12, 6.5)]
    assert alerts[0].sentence == "someone lies on the floor"


def test_a_verdict_carries_its_span_and_is_signed_by_the_bridge(harness: Harness) -> None:
    harness.send(*(at(slot, 30) for slot in (0, 1, 3, 5, 6, 7)))
    topic, payload = harness.published[0]
    assert topic == "veilsight/v1/lab/door/verdict/cloud"
    verdict = open_verdict(payload, harness.key.public, "lab", "door", MANIFEST.model_id)
    assert (verdict.start_s, verdict.end_s, verdict.first_slot, verdict.last_slot) == (0.0, 4.0, 0, 7)
    assert verdict.present == (True, True, False, True, False, True, True, True)
    assert (verdict.member, verdict.label) == ("cloud", "normal")
    assert verdict.probability == pytest.approx(0.7)


def test_events_of_all_cameras_are_read_in_one_forward(harness: Harness) -> None:
    batch = [Inbound("lab/door", "features", at(slot), False) for slot in range(8)]
    batch += [
        Inbound("lab/hall", "features", release(slot, manifest=MANIFEST, key=OTHER, camera="hall"), False)
        for slot in range(8)
    ]
    harness.bridge.handle(batch)
    assert harness.member.batches == [2]


def test_offline_reads_what_is_left_once(harness: Harness) -> None:
    harness.send(at(0), at(1), at(3))
    harness.send(a_state("offline"), a_state("offline"), name="state")
    harness.bridge.settle()
    assert harness.spans == [] and not harness.bridge.sessions["lab/door"].ended  # slot 2 may still come
    harness.now_s = 6.0
    harness.bridge.settle()
    harness.bridge.settle()
    assert harness.spans == [(0, 3)] and harness.bridge.sessions["lab/door"].ended


def test_an_offline_of_an_older_start_is_ignored(harness: Harness) -> None:
    harness.send(at(0, boot=5))
    harness.send(a_state("offline", boot=4), name="state")
    assert harness.spans == [] and harness.bridge.stats()["refused"] == {"replayed": 1} and not harness.bridge.finished


def test_the_bridge_is_finished_when_every_camera_is_offline(harness: Harness) -> None:
    hall: dict[str, Any] = {"key": OTHER, "camera": "hall"}
    harness.send(a_state("offline"), name="state")
    assert not harness.bridge.finished
    harness.send(a_state("offline", **hall), name="state", camera="lab/hall")
    assert harness.bridge.finished
    harness.send(a_state("online", count=2, **hall), name="state", camera="lab/hall")
    assert not harness.bridge.finished


def test_a_retained_offline_of_an_earlier_run_does_not_end_this_one(harness: Harness) -> None:
    for key, camera in ((DEVICE, "door"), (OTHER, "hall")):
        payload = a_state("offline", boot=7, key=key, camera=camera)
        harness.send(payload, name="state", camera=f"lab/{camera}", retained=True)
    assert not harness.bridge.finished


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"schema": 2, "status": "offline"}',
        b'{"schema": true, "status": "offline"}',
        b"[" * 1000,
        b'{"a": ' * 100 + b"1" + b"}" * 100,
        b'{"schema": ' + b"2" * 1000 + b"}",
        b'{"schema": 2, "schema": 2}',
        b'{"schema": NaN}',
        b'{"schema": 1e999}',
    ],
)
def test_a_malformed_state_is_counted(harness: Harness, payload: bytes) -> None:
    harness.send(payload, name="state")
    assert harness.bridge.sessions["lab/door"].refused == {"malformed": 1}


def test_a_foreign_certificate_stops_its_camera_with_an_error_until_the_right_one_comes(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    foreign, ours = b'{"of": "another engine"}', MANIFEST.certificate().to_json().encode()
    harness.send(a_state("online", certificate=foreign), name="state")
    harness.send(foreign, name="certificate")
    assert "its certificate is not that of engine" in caplog.text
    harness.send(*(at(slot) for slot in range(8)))
    assert harness.spans == []
    harness.send(*(release(slot, manifest=MANIFEST, key=OTHER, camera="hall") for slot in range(8)), camera="lab/hall")
    assert harness.spans == [(0, 7)]
    assert harness.bridge.stats()["refused_by_camera"] == {"lab/door": {"untrusted": 9}}
    harness.send(a_state("online", count=2, certificate=ours), name="state")
    harness.send(ours, name="certificate")
    harness.send(*(at(slot) for slot in range(8)))
    assert harness.spans == [(0, 7), (0, 7)]


def test_a_certificate_of_the_version_before_is_refused_with_the_cure(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """Its receptive field was called `reach_s`."""
    document = json.loads(MANIFEST.certificate().to_json())
    document["version"] = 2
    document["inputs"]["reach_s"] = document["inputs"].pop("receptive_field_s")
    former = json.dumps(document).encode()
    harness.send(a_state("online", certificate=former), name="state")
    harness.send(former, name="certificate")
    cure = "version is 2, this software reads version 4; build the engine again: python -m export.build_engine"
    assert cure in caplog.text
    harness.send(at(0))
    assert harness.bridge.stats()["refused"] == {"untrusted": 2}


@pytest.mark.parametrize("payload", [b"[" * 10_000, b"\xff", b'{"version": 3, "inputs": {"slot_s": 1e999}}', b"3"])
def test_a_malformed_certificate_stops_only_its_camera(harness: Harness, payload: bytes) -> None:
    harness.send(payload, name="certificate")  # before the state that names it
    harness.send(a_state("online", certificate=payload), name="state")
    harness.send(at(0))
    assert harness.bridge.stats()["refused"] == {"untrusted": 2}


def test_unknown_cameras_share_one_counter(harness: Harness) -> None:
    for number in range(100):
        harness.send(at(0), camera=f"lab/camera{number}")
    assert harness.bridge.stats()["refused_by_camera"] == {"": {"unknown": 100}}
    assert harness.bridge.stats()["received"] == 100 and harness.spans == []


def test_a_spent_budget_is_a_blind_alert_and_no_verdict(harness: Harness) -> None:
    harness.send(*(at(slot) for slot in range(8)), *(at(slot, flags=FLAG_SPENT) for slot in range(8, 12)), at(12))
    assert names(harness) == ["verdict/cloud", "alert", "alert", "verdict/cloud"]
    alerts = harness.alerts()
    assert [(a.label, a.raised) for a in alerts] == [("blind", True), ("blind", False)]


def test_a_replay_after_a_restart_is_refused_and_alerts_stay_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    first.send(*(at(slot, 90) for slot in range(10)))
    assert names(first).count("alert") == 1
    second = Harness(tmp_path, MANIFEST, RULE)
    second.send(*(at(slot, 90) for slot in range(10)))
    assert caplog.text.count("refuses messages of an earlier start") == 1
    assert second.spans == [] and second.bridge.stats()["refused"] == {"duplicate": 8, "replayed": 2}
    second.send(*(at(slot, 90) for slot in range(10, 20)))
    assert names(second).count("alert") == 0
    # The first one was told that the last of its verdicts is with the broker, and had no commit to forget it in.
    assert [verdict.last_slot for verdict in second.verdicts()] == [9, *range(10, 20)]


def test_the_timeline_prints_verdicts_and_alerts(harness: Harness) -> None:
    harness.send(*(at(slot, 90) for slot in (0, 1, 2, 3, 4, 5, 7, 8)))
    lines = harness.people.getvalue().splitlines()
    assert lines[0] == (
        "00:00.0-00:04.0  lab/door  fall    0.90 |##################..|  someone lies on the floor"
        "  (1 of 8 releases missing)"
    )
    assert lines[2] == "00:04.5  lab/door  >>> ALERT fall RAISED (0.90)"
    documents = [json.loads(line) for line in harness.programs.getvalue().splitlines()]
    assert [d["type"] for d in documents] == ["verdict", "verdict", "alert"]
    assert {"start_s", "end_s", "label", "probability", "member"} <= set(documents[0])


MESSAGES = [at(slot, value, boot) for boot in (1, 2) for slot, value in ((s, v) for s in range(20) for v in (0, 90))]
MESSAGES += [b"", b"\0" * 40_000, at(3)[:-5], release(3, manifest=MANIFEST, key=OTHER)]
ITEMS = [Inbound("lab/door", "features", payload, False) for payload in MESSAGES]
ITEMS += [
    Inbound("lab/door", "state", a_state(status, boot, count), kept)
    for status in ("online", "offline")
    for boot in (1, 2, 3)
    for count in ((0, 1) if status == "offline" else (1, 2))
    for kept in (False, True)
]
ITEMS += [Inbound("lab/door", "state", b"{", False), Inbound("lab/nobody", "state", a_state("offline"), False)]
ITEMS += [Inbound("lab/door", "certificate", text, True) for text in (b"x", MANIFEST.certificate().to_json().encode())]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(ITEMS), max_size=12), max_size=12), st.integers())
def test_no_interleaving_crashes_it_or_yields_an_event_out_of_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Inbound]], seed: int
) -> None:
    harness = Harness(tmp_path_factory.mktemp("state"), MANIFEST, RULE)
    stream = [Inbound("lab/door", "features", at(slot, 50), False) for slot in range(12)]
    for batch in [*batches, stream]:
        mixed = batch + stream[:4]
        random.Random(seed).shuffle(mixed)
        harness.bridge.handle(mixed)
    order = [(event.boot_id, event.last_slot) for event in harness.member.events]
    assert order == sorted(set(order))
    turns = [json.loads(line) for line in harness.programs.getvalue().splitlines()]
    raised = [turn["raised"] for turn in turns if turn["type"] == "alert" and turn["label"] == "fall"]
    assert raised == [number % 2 == 0 for number in range(len(raised))]


def test_a_flood_of_one_camera_drops_its_own_oldest_messages() -> None:
    mailbox = Mailbox(["lab/door", "lab/hall"], depth=4)
    mailbox.put(Inbound("lab/hall", "features", b"kept", False))
    for number in range(100):
        mailbox.put(Inbound("lab/door", "features", bytes([number]), False))
        mailbox.put(Inbound(f"lab/{number}", "features", b"", False))
    items = mailbox.take(0)
    assert [i.payload for i in items if i.camera == "lab/hall"] == [b"kept"]
    assert [i.payload[0] for i in items if i.camera == "lab/door"] == [96, 97, 98, 99]
    assert mailbox.dropped == {"lab/door": 96, "": 96}
    assert mailbox.take(0) == []


def test_a_giant_payload_is_not_kept() -> None:
    mailbox = Mailbox(["lab/door"])
    mailbox.put(Inbound("lab/door", "features", bytes(10_000_000), False))
    assert len(mailbox.take(0)[0].payload) == MAX_PAYLOAD + 1


def test_the_bridge_ends_when_all_cameras_are_offline_or_on_a_stop(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    mailbox = Mailbox(["lab/door", "lab/hall"])
    stop = threading.Event()
    mailbox.put(Inbound("lab/door", "features", at(0), False))
    for key, camera in ((DEVICE, "door"), (OTHER, "hall")):
        mailbox.put(Inbound(f"lab/{camera}", "state", a_state("offline", key=key, camera=camera), False))
    run(harness.bridge, mailbox.take, True, stop.is_set)
    assert harness.spans == [(0, 0)]
    stop.set()
    run(harness.bridge, mailbox.take, False, stop.is_set)
    assert DEVICE.public.hex not in repr(harness.key)


def reference_at(centre: float) -> ReferenceDistribution:
    """A reference of known scenes: after four releases, the means of all features are `centre`."""
    plane = np.linalg.qr(np.random.default_rng(0).standard_normal((MANIFEST.n, 2)))[0]
    ladder, wide = np.linspace(0.0, 20.0, 199)[None], np.eye(7)[None, None]
    return ReferenceDistribution(
        "", "", MANIFEST.clip_norm, MANIFEST.sigmas, (4,), plane, np.full((1, 7), centre), wide, ladder
    )


def test_out_of_distribution_a_normal_verdict_is_unsure_and_a_risk_stays_a_risk(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE, reference_at(5.0))
    harness.send(*(at(slot) for slot in range(9)), *(at(slot, 90) for slot in range(9, 12)))
    verdicts = harness.verdicts()
    assert [verdict.says for verdict in verdicts] == ["unsure", "unsure", "fall", "fall", "fall"]
    assert [verdict.label for verdict in verdicts[:2]] == ["normal", "normal"]
    assert all(verdict.unsure and verdict.ood_p_value == pytest.approx(1 / 200) for verdict in verdicts)
    assert names(harness).count("alert") == 1
    lines = harness.people.getvalue().splitlines()
    assert "unsure" in lines[0] and "unsure" not in lines[-1]
    document = json.loads(harness.programs.getvalue().splitlines()[0])
    assert (document["label"], document["unsure"]) == ("normal", True)


def test_a_known_scene_is_not_unsure_and_without_a_reference_there_is_no_p_value(tmp_path: Path) -> None:
    for folder, reference, expected in (("a", reference_at(0.0), 1.0), ("b", None, None)):
        harness = Harness(tmp_path / folder, MANIFEST, RULE, reference)
        harness.send(*(at(slot) for slot in range(8)))
        verdict = open_verdict(harness.published[0][1], harness.key.public, "lab", "door", MANIFEST.model_id)
        assert (verdict.ood_p_value, verdict.unsure, verdict.says) == (expected, False, "normal")


def test_the_ood_score_restarts_with_the_device(tmp_path: Path) -> None:
    """Eight slots of which four were missing or spent: too few releases since the start for a p-value."""
    harness = Harness(tmp_path, MANIFEST, RULE, reference_at(5.0))
    harness.send(*(at(slot) for slot in range(8)))
    harness.send(*(at(slot, boot=2) for slot in (0, 1, 2)), *(at(slot, 0, 2, FLAG_SPENT) for slot in (3, 4, 5)))
    harness.send(at(7, boot=2))
    harness.send(a_state("offline", boot=2), name="state")
    harness.now_s = 6.0
    harness.bridge.settle()
    verdicts = harness.verdicts()
    assert [verdict.boot_id for verdict in verdicts] == [1, 2]
    assert verdicts[0].unsure and verdicts[1].ood_p_value is None
