"""Webhooks: what is sent, to whom, in which order, and what a receiver that misbehaves can do: delay itself."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timezone
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.api.shown import WebhookBody
from cloud_bridge.config import BridgeConfig
from cloud_bridge.store import tables
from cloud_bridge.store.database import reading, writing
from cloud_bridge.store.place import Place
from cloud_bridge.store.records import Work
from cloud_bridge.webhooks.config import WebhookConfig
from cloud_bridge.webhooks.courier import Courier, _asked
from cloud_bridge.webhooks.outbox import remove
from tests.support.bridge_factory import DEVICE, OTHER, Harness, make_manifest, release
from tests.support.receiver import Receiver, answer
from tests.support.services import ROOT, until
from wire.errors import ConfigError, StoreAway
from wire.mqtt import Message
from wire.protocol.message import coarse_time, trace_id

MANIFEST = make_manifest(slot_s=1.0)
SECRET = b"a secret of many bytes"
RULE = AlertRule(raise_at=0.6, raise_for=1, clear_at=0.4, clear_for=1)

pytestmark = pytest.mark.usefixtures("every_engine_is_closed")


@pytest.fixture
def secret(tmp_path: Path) -> str:
    file = tmp_path / "secret"
    file.write_bytes(SECRET + b"\n")
    file.chmod(0o600)
    return str(file)


class Ward:
    """A bridge of lab/door and lab/hall whose alerts go to receivers."""

    def __init__(self, folder: Path, *receivers: WebhookConfig, rule: AlertRule = RULE) -> None:
        self.harness = Harness(folder / "state", MANIFEST, rule, webhooks=receivers)
        self.minute = coarse_time(time.time())
        self.receivers, self.engine = receivers, self.harness.bridge._store.engine
        self._slots = {"door": 0, "hall": 0}
        self.harness.now_s = float(self.minute)  # of the past: letters are due at once

    def turn(self, camera: str = "door", times: int = 1) -> None:
        """Raise a fall, or clear it."""
        for _ in range(times):
            slot = self._slots[camera] = max(8, self._slots[camera] + 1)
            key, first = OTHER if camera == "hall" else DEVICE, range(8) if slot == 8 else ()
            for each in (*first, slot):
                value = 90 if each == slot and slot % 2 == 0 else 0
                about = {"time_s": self.minute, "slot": each, "value": value}
                payload = release(**about, manifest=MANIFEST, key=key, camera=camera)
                self.harness.send(payload, camera=f"lab/{camera}")

    @property
    def waiting(self) -> int:
        with reading(self.engine) as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(tables.webhooks)) or 0)

    def courier(self, **how: Any) -> Courier:
        return Courier(self.receivers, self.harness.bridge._store, **{"answer_s": 0.5, "pause_s": 0.05, **how})


def bodies(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in receiver.heard]


# --- what is sent


def test_each_change_of_an_alert_is_posted_with_a_signature(tmp_path: Path, secret: str) -> None:
    with Receiver() as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier() as courier:
            ward.turn(times=2)
            courier.wake()
            until(lambda: ward.waiting == 0)
            assert courier.counts() == {receiver.url[7:].split("/")[0]: {"delivered": 2, "failed": 0, "given_up": 0}}
        up, down = bodies(receiver)
        alerts = ward.harness.alerts()
    assert [up["id"], down["id"]] == [alert.id for alert in alerts] and down["first_id"] == up["id"]
    assert [up["change"], down["change"]] == ["raised", "cleared"]
    assert (up["camera"], up["label"], up["severity"]) == ("lab/door", "fall", "critical")
    at = datetime.fromtimestamp(ward.minute, timezone.utc)
    assert up["time"] == at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert up["device_time_s"] == ward.minute and up["boot_id"] == f"{1:016x}"
    assert [up["trace"], down["trace"]] == [trace_id("lab/door", 1, alert.slot) for alert in alerts]
    assert up["trace"] != down["trace"] and list(up) == [field.name for field in fields(WebhookBody)]
    for heard in receiver.heard:
        sent = heard.headers["veilsight-time"]
        expected = hmac.new(SECRET, sent.encode() + b"." + heard.body, hashlib.sha256).hexdigest()
        assert heard.headers["veilsight-signature"] == f"v1={expected}" and abs(int(sent) - heard.at) < 60
        assert heard.headers["veilsight-id"] == json.loads(heard.body)["id"] and heard.path == "/hook?token=hidden"


def documented() -> Callable[[bytes, Mapping[str, str], bytes], bool]:
    """The function of docs/webhooks.md."""
    page = (ROOT / "docs" / "webhooks.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "def genuine" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[[bytes, Mapping[str, str], bytes], bool] = names["genuine"]
    return found


def test_the_documented_check_takes_what_we_send_and_nothing_else(tmp_path: Path, secret: str) -> None:
    genuine = documented()
    with Receiver() as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier():
            ward.turn()
            until(lambda: ward.waiting == 0)
    heard = receiver.heard[0]
    headers = {"-".join(part.title() for part in name.split("-")): value for name, value in heard.headers.items()}
    assert genuine(SECRET, headers, heard.body)
    assert not genuine(SECRET, headers, heard.body + b" ") and not genuine(b"another", headers, heard.body)
    assert not genuine(SECRET, {**headers, "Veilsight-Signature": "v1=é"}, heard.body)
    for wrong in ("nonsense", "²", ""):
        assert not genuine(SECRET, {**headers, "Veilsight-Time": wrong}, heard.body)
    for wrong in (str(int(time.time()) - 301), str(int(time.time()) + 400), "-1"):
        digest = hmac.new(SECRET, wrong.encode() + b"." + heard.body, hashlib.sha256).hexdigest()
        assert not genuine(SECRET, {"Veilsight-Time": wrong, "Veilsight-Signature": f"v1={digest}"}, heard.body), wrong
    again = str(int(time.time()) - 200)
    digest = hmac.new(SECRET, again.encode() + b"." + heard.body, hashlib.sha256).hexdigest()
    assert genuine(SECRET, {"Veilsight-Time": again, "Veilsight-Signature": f"v1={digest}"}, heard.body)


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ({}, 2),
        ({"labels": ["fall"]}, 2),
        ({"labels": ["fight"]}, 0),
        ({"severities": ["critical", "emergency"]}, 2),
        ({"severities": ["info"]}, 0),
        ({"sites": ["lab"]}, 2),
        ({"sites": ["ward"], "labels": ["fall"]}, 0),
    ],
)
def test_a_receiver_is_told_what_it_asks_for(tmp_path: Path, secret: str, asks: dict[str, Any], told: int) -> None:
    ward = Ward(tmp_path, WebhookConfig("https://receiver.example/", secret, **asks))
    ward.turn(times=2)
    assert ward.waiting == told


def test_a_letter_is_in_the_transaction_of_its_alert(tmp_path: Path, secret: str) -> None:
    ward = Ward(tmp_path, WebhookConfig("https://receiver.example/", secret))
    store = ward.harness.bridge._store
    commits, commit = list[tuple[int, int]](), store.commit

    def watched(work: Work, delivered: int = 0) -> list[tuple[int, Message]]:
        commits.append((len(work.alerts), len(work.webhooks)))
        if commits[-1] == (1, 1):
            with pytest.raises(RuntimeError), pytest.MonkeyPatch.context() as patch:
                patch.setattr(store, "_write_outbox", die)
                commit(work, delivered)
            with reading(ward.engine) as connection:
                assert not connection.execute(sa.select(tables.webhooks)).all()
                assert not connection.execute(sa.select(tables.alerts)).all()
        return commit(work, delivered)

    def die(*_: object) -> None:
        raise RuntimeError("power cut")

    store.commit = watched  # type: ignore[method-assign]
    ward.turn()
    assert (1, 1) in commits and ward.waiting == 1


def test_what_is_told_again_is_posted_as_escalated(tmp_path: Path, secret: str) -> None:
    rule = AlertRule(raise_at=0.6, raise_for=1, clear_at=0.4, clear_for=1, escalate_s=60.0)
    ward = Ward(tmp_path, WebhookConfig("https://receiver.example/", secret, severities=["emergency"]), rule=rule)
    ward.turn()
    ward.harness.bridge._began_s = 1e9
    ward.harness.now_s += 60.0
    ward.harness.bridge.watch()
    with reading(ward.engine) as connection:
        (body,) = connection.scalars(sa.select(tables.webhooks.c.body)).all()
    assert json.loads(body)["change"] == "escalated" and json.loads(body)["severity"] == "emergency"


def test_quiet_hours_hold_back_the_letter_alone(tmp_path: Path, secret: str) -> None:
    rule = AlertRule(raise_at=0.6, raise_for=1, clear_at=0.4, clear_for=1, quiet=["00:00-06:00 critical"])
    with Receiver() as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret), rule=rule)
        day = ward.minute // 86_400 * 86_400
        ward.minute, ward.harness.now_s = day + 86_400, day + 86_460.0  # tomorrow, a minute after midnight
        ward.turn()
        assert len(ward.harness.alerts()) == 1 and ward.harness.open_alerts() == ["fall"]
        with reading(ward.engine) as connection:
            assert connection.scalar(sa.select(tables.webhooks.c.due_s)) == day + 30 * 3600.0
        with ward.courier():
            time.sleep(0.7)
            assert receiver.heard == []
            with writing(ward.engine) as connection:
                connection.execute(sa.update(tables.webhooks).values(due_s=time.time(), next_s=0.0))
            until(lambda: ward.waiting == 0)
        assert [body["change"] for body in bodies(receiver)] == ["raised"]


# --- receivers that misbehave


@pytest.mark.parametrize("way", ["hang", "reset", "drip", "babble", "rubbish"])
def test_a_letter_that_was_not_taken_comes_again_with_its_id(tmp_path: Path, secret: str, way: str) -> None:
    with Receiver(getattr(Receiver, way), answer(500), answer(200)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier() as courier:
            ward.turn()
            until(lambda: ward.waiting == 0)
            (counts,) = courier.counts().values()
        assert counts == {"delivered": 1, "failed": 2, "given_up": 0}
    assert len({heard.headers["veilsight-id"] for heard in receiver.heard}) == 1 and len(receiver.heard) == 3
    assert len({heard.body for heard in receiver.heard}) == 1


def test_a_body_without_end_is_not_read(tmp_path: Path, secret: str) -> None:
    with Receiver(Receiver.flood) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier():
            ward.turn(times=4)
            until(lambda: ward.waiting == 0)
    assert len(receiver.heard) == 4


def test_a_redirect_is_not_followed(tmp_path: Path, secret: str) -> None:
    with Receiver() as elsewhere, Receiver(answer(307, f"Location: {elsewhere.url}"), answer(200)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier():
            ward.turn()
            until(lambda: ward.waiting == 0)
        assert len(receiver.heard) == 2 and elsewhere.heard == []


def test_one_that_hangs_delays_nobody_else(tmp_path: Path, secret: str) -> None:
    with Receiver(Receiver.hang) as hanging, Receiver() as receiver:
        ward = Ward(tmp_path, WebhookConfig(hanging.url, secret), WebhookConfig(receiver.url, secret))
        with ward.courier(answer_s=1000.0):
            ward.turn(times=20)
            ward.turn("hall", times=20)
            until(lambda: len(receiver.heard) == 40)
            assert len(hanging.heard) == 2  # a letter of each camera
            until(lambda: ward.waiting == 40)


def test_letters_of_a_camera_keep_their_order_and_cameras_do_not_wait(tmp_path: Path, secret: str) -> None:
    with Receiver(answer(500), answer(503), answer(500), Receiver.reset, answer(200)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        ward.turn(times=6)
        ward.turn("hall", times=6)
        with ward.courier():
            until(lambda: ward.waiting == 0)
        found = bodies(receiver)
    for camera in ("door", "hall"):
        alerts = [alert.id for alert in ward.harness.alerts(camera)]
        order = [body["id"] for body in found if body["camera"] == f"lab/{camera}"]
        assert list(dict.fromkeys(order)) == alerts and sorted(order, key=alerts.index) == order
    assert len(found) == 16


def test_no_more_than_four_are_on_their_way(tmp_path: Path, secret: str) -> None:
    with Receiver(Receiver.hang) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        ward.turn()
        with writing(ward.engine) as connection:
            row = dict(connection.execute(sa.select(tables.webhooks)).mappings().one())
            more = [{**row, "alert_id": f"{n:032x}", "camera_id": n} for n in range(10, 30)]
            connection.execute(sa.insert(tables.webhooks), more)
        with ward.courier(answer_s=1000.0) as courier:
            until(lambda: len(receiver.heard) == 4)
            for _ in range(5):
                courier.wake()
                time.sleep(0.05)
            assert len(receiver.heard) == 4


def test_retry_after_is_honoured(tmp_path: Path, secret: str) -> None:
    with Receiver(answer(429, "Retry-After: 2"), answer(200)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier():
            ward.turn()
            until(lambda: len(receiver.heard) == 1)
            ward.turn("hall")
            until(lambda: ward.waiting == 0)
        assert receiver.heard[1].at - receiver.heard[0].at >= 1.9  # of all its letters


def test_the_pause_before_an_attempt_doubles(tmp_path: Path, secret: str) -> None:
    with Receiver(answer(500), answer(500), answer(500), answer(200)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        ward.turn()
        with ward.courier(pause_s=0.6):
            until(lambda: ward.waiting == 0)
    passed = [after.at - before.at for before, after in pairwise(receiver.heard)]
    assert len(passed) == 3 and all(each >= 0.29 * 2**n for n, each in enumerate(passed))


def test_a_retry_after_is_a_number_or_a_date_and_no_more_than_an_hour() -> None:
    assert [_asked(text) for text in ("7", "", "-3", "soon", "9" * 30, "²", "1e9")] == [7, 0, 0, 0, 3600, 0, 0]
    assert 100 < _asked(formatdate(time.time() + 120, usegmt=True)) <= 120
    assert _asked(formatdate(0, usegmt=True)) == 0 and _asked(formatdate(time.time() + 1e6, usegmt=True)) == 3600


@pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
def test_a_letter_that_is_refused_for_good_is_given_up_counted_and_audited(
    tmp_path: Path, secret: str, status: int
) -> None:
    with Receiver(answer(status), answer(200)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        ward.turn(times=2)
        with ward.courier() as courier:
            until(lambda: ward.waiting == 0)
            (counts,) = courier.counts().values()
    assert counts == {"delivered": 1, "failed": 1, "given_up": 1}
    with reading(ward.engine) as connection:
        (entry,) = connection.execute(sa.select(tables.audit)).all()
    assert entry.what == "webhook given up" and ward.harness.alerts()[0].id in entry.detail
    assert f"it answers {status}" in entry.detail and "hidden" not in entry.detail


def test_a_letter_is_given_up_after_its_time(tmp_path: Path, secret: str) -> None:
    with Receiver(answer(500)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret, give_up_h=1.0))
        ward.turn()
        with writing(ward.engine) as connection:
            connection.execute(sa.update(tables.webhooks).values(due_s=time.time() - 3590.0))
        with ward.courier() as courier:
            until(lambda: len(receiver.heard) >= 2)
            assert ward.waiting == 1
            with writing(ward.engine) as connection:
                connection.execute(sa.update(tables.webhooks).values(due_s=time.time() - 3601.0))
            until(lambda: ward.waiting == 0)
            assert next(iter(courier.counts().values()))["given_up"] == 1


def test_letters_to_a_receiver_that_is_configured_no_more_are_dropped(tmp_path: Path, secret: str) -> None:
    ward = Ward(tmp_path, WebhookConfig("https://former.example/", secret))
    ward.turn()
    with Receiver() as receiver:
        ward.receivers = (WebhookConfig(receiver.url, secret),)
        with ward.courier():
            assert ward.waiting == 0
    with reading(ward.engine) as connection:
        assert connection.scalar(sa.select(tables.audit.c.detail)) == "1 to receivers that are configured no more"


def test_a_store_that_is_away_for_a_moment_loses_nothing(
    tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[object]()

    def away(*what: Any) -> None:
        calls.append(what)
        if len(calls) == 1:
            raise StoreAway("away")
        remove(*what)

    monkeypatch.setattr("cloud_bridge.webhooks.courier.remove", away)
    with Receiver() as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier():
            ward.turn()
            until(lambda: ward.waiting == 0)
    assert len({heard.headers["veilsight-id"] for heard in receiver.heard}) == 1 and len(receiver.heard) == 2


def test_nothing_is_sent_while_our_place_in_the_store_is_not_sure(
    tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = [False]
    monkeypatch.setattr(Place, "held", property(lambda place: may[0]))
    with Receiver() as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        ward.turn()
        with ward.courier() as courier:
            courier.wake()
            time.sleep(0.7)
            assert receiver.heard == [] and ward.harness.published == []
            may[0] = True
            until(lambda: ward.waiting == 0)


def test_no_log_has_a_secret_or_an_address(tmp_path: Path, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), Receiver(answer(500), Receiver.reset, answer(400)) as receiver:
        ward = Ward(tmp_path, WebhookConfig(receiver.url, secret))
        with ward.courier():
            ward.turn()
            until(lambda: ward.waiting == 0)
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "it answers 500; it is tried again" in text and "is given up: it answers 400" in text
    assert "hidden" not in text and "/hook" not in text and SECRET.decode() not in text


# --- the file


def table(**keys: Any) -> dict[str, Any]:
    camera = {"site": "lab", "camera": "door", "public_key": "01" * 32}
    return {"cameras": [camera], "webhooks": [{"url": "https://a.example/x", "secret_file": "s", **keys}]}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "http://a.example/x"}, "begins with http://, which others can read"),
        ({"url": "ftp://a.example/x", "insecure": True}, "begins with ftp://"),
        ({"url": "https://me:hidden@a.example/"}, "has a name or a password in it"),
        ({"url": "https:///x"}, "url is no address"),
        ({"url": "https://a.example:99999/"}, "url is no address"),
        ({"url": "https://a b/"}, "url is no address"),
        ({"url": 'https://a"b/'}, "url is no address"),
        ({"url": "https://a.example/\r\nX: y"}, "url is no address"),
        ({"severities": ["loud"]}, "severities has loud; there are info, warning, critical, emergency"),
        ({"labels": [3]}, "labels holds something that is no name"),
        ({"labels": "fall"}, r"\[\[webhooks\]\] 1 labels is 'fall'; expected list"),
        ({"give_up_h": 0}, "give_up_h is 0; expected a number above 0"),
        ({"retries": 3}, "retries is unknown"),
    ],
)
def test_a_receiver_that_cannot_be_meant_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        BridgeConfig.parse(table(**keys))
    assert "hidden" not in str(caught.value)


def test_http_is_for_this_machine_or_where_that_is_said() -> None:
    for url in ("http://127.0.0.1:80/", "http://[::1]/", "http://localhost/"):
        BridgeConfig.parse(table(url=url))
    assert BridgeConfig.parse(table(url="http://a.example/", insecure=True)).webhooks[0].shown == "a.example"


def test_one_address_is_one_receiver() -> None:
    document = table()
    document["webhooks"] *= 2
    with pytest.raises(ConfigError, match=r"\[\[webhooks\]\] 2 has the url of one before it"):
        BridgeConfig.parse(document)


def test_a_secret_that_is_weak_or_open_to_others_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    config = WebhookConfig("https://a.example/", str(file))
    with pytest.raises(ConfigError, match="secret_file"):
        config.secret()
    file.write_bytes(b"short\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="5 bytes, which can be guessed; make it with openssl rand"):
        config.secret()
    file.write_bytes(SECRET)
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="lets others write it"):
        config.secret()
