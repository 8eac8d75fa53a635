"""The retained list of open alerts: whoever subscribes late knows what is open, since when, and acknowledges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloud_bridge.alerts.lifecycle import CONDITIONS
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.bridge import Bridge
from cloud_bridge.documents import fill_open_alerts
from cloud_bridge.store.records import OpenAlert
from cloud_bridge.store.retention import delete
from tests.support.api_server import MANIFEST, Api
from tests.support.bridge_factory import DEVICE, OTHER, Harness, release
from wire.protocol.document import MAX_DOCUMENT, read_document
from wire.protocol.message import MAX_SENTENCE

RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2, escalate_s=100.0)
WORDS = "someone lies on the floor"


def lists(fields: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(label, id, severity, when, sentence) of each alert that a document names."""
    columns = [fields[name].split(", ") for name in ("open", "ids", "severities", "raised_s")]
    return list(zip(*columns, fields["sentences"].split("\n"), strict=True)) if fields["open"] else []


def retained(harness: Harness, camera: str = "door") -> list[tuple[str, ...]]:
    """What the broker gives to whoever subscribes now."""
    payload = [m.payload for m in harness.link.sent if m.topic == f"veilsight/v1/lab/{camera}/alert/open"][-1]
    document = read_document(payload)
    document.verify("alert/open", harness.key.public, "lab", camera)
    return lists(document.fields)


def a_fall(harness: Harness, now_s: float = 1000.0) -> str:
    """Let somebody fall at the door; returns the alert's id."""
    harness.now_s = now_s
    harness.send(*(release(slot, 90 if slot > 7 else 0, manifest=MANIFEST, time_s=960) for slot in range(10)))
    return harness.alerts()[-1].id


def filled(labels: Sequence[str], sentence: str, severity: str = "critical") -> Mapping[str, Any]:
    opened = {
        label: OpenAlert(f"{number:032x}", severity, 0.0, 0.9, 1_764_417_795.0, sentence)
        for number, label in enumerate(labels)
    }
    payload = fill_open_alerts(labels, opened, 60, DEVICE, "lab", "door")
    assert len(payload) <= MAX_DOCUMENT
    document = read_document(payload)
    document.verify("alert/open", DEVICE.public, "lab", "door")
    return document.fields


def test_a_late_subscriber_acknowledges_by_the_id_that_it_finds(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        api.fall()
        ((label, number, severity, raised_s, sentence),) = retained(api.harness)
        (row,) = api.rows("/v1/alerts")
        assert (label, number, severity) == ("fall", row["id"], "critical")
        assert int(raised_s) == row["made_s"] // 60 * 60 and sentence == row["sentence"] == WORDS
        answer = api.ask(f"/v1/alerts/{number}/acknowledge", "nurse", "POST")
        assert answer.status_code == 200 and answer.json()["seen_by"] == "nurse"


def test_what_was_acknowledged_by_that_id_is_not_told_again(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        api.harness.bridge._escalate_s = 100.0
        api.fall()
        ((_, number, *_),) = retained(api.harness)
        api.ask(f"/v1/alerts/{number}/acknowledge", "nurse", "POST")
        api.harness.now_s += 101.0
        api.harness.bridge.watch()
        assert [alert.label for alert in api.harness.alerts()] == ["fall", "stale"]


def test_what_is_told_again_keeps_its_id_its_time_and_its_sentence(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    number = a_fall(harness)
    assert retained(harness) == [("fall", number, "critical", "960", WORDS)]
    harness.now_s = 1200.0
    harness.bridge.watch()
    assert harness.alerts()[-1].severity == "emergency"
    found = {each[0]: each[1:] for each in retained(harness)}
    assert found["fall"] == (number, "emergency", "960", WORDS)


def test_a_new_bridge_says_the_same_and_so_does_one_after_a_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    expected = ("fall", a_fall(first), "critical", "960", WORDS)
    first.bridge._store.close()

    def said(bridge: Bridge) -> tuple[str, ...]:
        payload = next(m.payload for m in bridge.open_alerts() if "/door/" in m.topic)
        return next(each for each in lists(read_document(payload).fields) if each[0] == "fall")

    second = Harness(tmp_path, MANIFEST, RULE)
    assert said(second.bridge) == expected
    second.bridge._store.close()
    monkeypatch.setattr("tests.support.bridge_factory.DEVICE", OTHER)  # the door has a new key
    monkeypatch.setattr("tests.support.bridge_factory.OTHER", DEVICE)
    assert said(Harness(tmp_path, MANIFEST, RULE).bridge) == expected


def test_the_store_s_record_holds_no_sentence_so_deleting_the_alert_deletes_it(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    number = a_fall(first)
    assert WORDS not in str(first.bridge._records["lab/door"].row())
    delete(first.bridge._store.engine, "admin", "lab/door")
    first.bridge._store.close()
    second = Harness(tmp_path, MANIFEST, RULE)
    (payload, _) = (message.payload for message in second.bridge.open_alerts())
    assert [each for each in lists(read_document(payload).fields) if each[0] == "fall"] == [
        ("fall", number, "critical", "", "")
    ]


def test_every_kind_at_once_has_its_id_and_sentences_give_way() -> None:
    labels = ["fall", "fight", "lying still", *CONDITIONS]
    for severity in ("critical", "emergency"):
        found = lists(filled(labels, "x" * MAX_SENTENCE, severity))
        assert [each[:3] for each in found] == [(label, f"{n:032x}", severity) for n, label in enumerate(labels)]


def test_sentences_are_shortened_no_more_than_the_document_needs() -> None:
    sentence = "very probably a fall about 3 seconds ago; " + "a person falls forward " * 13
    (alone,) = lists(filled(["fall"], sentence))
    assert alone[4] == sentence
    found = filled(["fall", "fight", "stale"], sentence)
    said = [each[4] for each in lists(found)]
    assert len(set(said)) == 1 and said[0].endswith("...") and sentence.startswith(said[0][:-3])
    assert len(said[0]) > 100


def test_what_does_not_fit_is_counted_whatever_it_is_called() -> None:
    for labels in ([f"risk {n}" for n in range(100)], ["跌倒" * 30 + str(n) for n in range(30)]):
        found = filled(labels, "a sentence")
        assert found["count"] == len(labels) > len(lists(found)) > 0
        assert [each[0] for each in lists(found)] == labels[: len(lists(found))]


def test_a_label_of_which_the_store_knows_no_more_is_there_all_the_same() -> None:
    payload = fill_open_alerts(["fall", "stale"], {}, 60, DEVICE, "lab", "door")
    fields = read_document(payload).fields
    assert (fields["open"], fields["count"]) == ("fall, stale", 2)
    assert lists(fields) == [("fall", "", "", "", ""), ("stale", "", "", "", "")]


def test_a_camera_without_alerts_has_empty_lists() -> None:
    fields = filled([], "")
    assert {name: fields[name] for name in ("open", "ids", "severities", "raised_s", "sentences")} == dict.fromkeys(
        ("open", "ids", "severities", "raised_s", "sentences"), ""
    )
