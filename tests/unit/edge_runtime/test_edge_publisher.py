"""The publisher on a real broker: first and last state, retries, a bounded queue, and messages about faults."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.config import Config, load_config
from edge_runtime.gate.ledger import Charge
from edge_runtime.uplink import publisher as publisher_module
from edge_runtime.uplink.publisher import Publisher, fill_message, fill_verdict
from tests.support.engine_factory import make_edge_config, make_engine
from tests.support.services import PATIENCE_S, Broker, Listener, free_port, until
from tests.support.timekeeping import Wakeups
from wire.errors import BrokerError, ConfigError
from wire.protocol.event import EventWindow
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FLAG_SPENT, Sealed
from wire.protocol.state import open_state

STATE = {"boot_id": 7, "slot_s": 1.0}
KEY, OPERATOR = DeviceKey(b"d" * 32), DeviceKey(b"o" * 32)


def config_of(folder: Path, port: int, **broker: Any) -> Config:
    return load_config(make_edge_config(folder, engine="/none", port=port, broker=broker))


def test_state_and_certificate_come_first_and_offline_last(tmp_path: Path, mosquitto: int, listener: Listener) -> None:
    with Publisher(config_of(tmp_path, mosquitto, required=True), KEY, STATE, b"the certificate") as publisher:
        publisher.send("features", Sealed(b"one"))
        publisher.reason = "end of source"
    until(lambda: len(listener.messages) >= 4)
    names = [topic.removeprefix("veilsight/v1/lab/door/") for topic, _, _ in listener.messages]
    assert names == ["state", "certificate", "features", "state"]
    assert listener.states() == [("online", ""), ("offline", "end of source")]
    first, last = (open_state(payload, KEY.public, "lab", "door") for payload in listener.of("state"))
    assert (first.online, first.boot_id, first.blind, first.watching, last.online) == (True, 7, False, True, False)
    assert (first.count, last.count) == (1, 2) and first.fields["slot_s"] == 1.0
    assert first.certificate == hashlib.sha256(b"the certificate").hexdigest()
    late = Listener(mosquitto)
    until(lambda: len(late.messages) >= 2)
    assert sorted(name for name, _, retained in late.messages if retained) == [
        "veilsight/v1/lab/door/certificate",
        "veilsight/v1/lab/door/state",
    ]
    assert late.states() == [("offline", "end of source")]
    late.close()


def test_the_last_will_is_published_when_the_process_dies(tmp_path: Path, mosquitto: int, listener: Listener) -> None:
    publisher = Publisher(config_of(tmp_path, mosquitto, required=True), KEY, STATE, b"c")
    publisher.__enter__()
    publisher.send("features", Sealed(b"one"))
    publisher.flush(5)
    client = publisher._client._client  # paho's
    client.loop_stop()
    sock = client.socket()
    assert sock is not None
    sock.close()
    until(lambda: ("offline", "connection lost") in listener.states())


def test_a_broker_that_dies_and_returns_gets_everything(tmp_path: Path, broker: Broker) -> None:
    with Publisher(config_of(tmp_path, broker.port, required=True), KEY, STATE, b"c") as publisher:
        publisher.send("features", Sealed(b"before"))
        assert publisher.flush(PATIENCE_S)
        broker.stop()
        until(lambda: not publisher._client.connected)
        took = []
        with Wakeups() as wakeups:
            for k in range(5):
                began = time.monotonic()
                publisher.send("features", Sealed(b"away %d" % k))
                took.append(time.monotonic() - began)
                time.sleep(0.02)
        assert max(took) < 0.05 + wakeups.worst_s
        broker.start()
        listener = Listener(broker.port)
        until(lambda: publisher._client.connected)
        publisher.send("features", Sealed(b"after"))
        assert publisher.flush(PATIENCE_S)
        until(lambda: len(listener.of("features")) >= 6)
        assert listener.of("features") == [b"away %d" % k for k in range(5)] + [b"after"]
        assert listener.states()[-1] == ("online", "")
        assert listener.of("certificate") == [b"c"]
        assert publisher.figures()["reconnects"] == 1
        listener.close()


def test_what_waits_without_a_disk_is_bounded_and_the_newest(tmp_path: Path) -> None:
    port, outbox = free_port(), {"max_mb": 0.0}
    path = make_edge_config(tmp_path, engine="/none", port=port, broker={"queue": 10}, outbox=outbox)
    publisher = Publisher(load_config(path), KEY, STATE, b"c")
    for k in range(25):
        publisher.send("features", Sealed(bytes([k])))
    kept = [parcel.message for parcel in iter(publisher.outbox.take, None)]
    assert kept == [bytes([k]) for k in range(15, 25)]
    assert (publisher.outbox.dropped, publisher.outbox.waiting) == (15, 10)
    assert not (tmp_path / "state").exists()


def test_a_wrong_address_is_named_with_its_cure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caplog.set_level(logging.WARNING)
    with Publisher(config_of(tmp_path, port), KEY, STATE, b"c"):
        until(lambda: "cannot be reached" in caplog.text)
    assert f"broker 127.0.0.1:{port} cannot be reached; start it, or correct [broker] url" in caplog.text


def test_a_required_broker_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_PATIENCE_S", 0.5)
    port = free_port()
    with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{port} cannot be reached"):
        Publisher(config_of(tmp_path, port, required=True), KEY, STATE, b"c").__enter__()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:1883",
        "http://localhost",
        "mqtt://",
        "mqtt://me:secret@host",
        "mqtt://h:x",
        "mqtt://h:0",
        "mqtt://h:99999",
    ],
)
def test_a_malformed_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[broker\] url .*mqtt://HOST") as caught:
        Publisher(config_of(tmp_path, 1, url=url), KEY, STATE, b"c")
    assert "secret" not in str(caught.value)


def test_a_missing_password_file_is_named(tmp_path: Path) -> None:
    config = config_of(tmp_path, 1, username="me", password_file="none.txt")
    with pytest.raises(ConfigError, match=r"none\.txt"):
        Publisher(config, KEY, STATE, b"c").__enter__()


def test_the_client_falls_back_to_mqtt_3_1_1(tmp_path: Path) -> None:
    """A broker from before MQTT 5 closes the connection when it reads a CONNECT of a version that it does not know."""
    server = socket.create_server(("127.0.0.1", 0))
    versions: list[int] = []

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            greeting = peer.recv(1024)
            versions.append(greeting[greeting.find(b"MQTT") + 4] if greeting else 0)  # protocol level of CONNECT
            if versions[-1] == 4:
                peer.sendall(b"\x20\x02\x00\x00")
                time.sleep(0.5)
            peer.close()

    threading.Thread(target=serve, daemon=True).start()
    publisher = Publisher(config_of(tmp_path, server.getsockname()[1]), KEY, STATE, b"c")
    publisher.__enter__()
    until(lambda: publisher._client.sessions)
    assert versions[:2] == [5, 4]
    server.close()
    publisher._client.close()


def test_a_message_holds_its_slot_and_whether_it_was_granted() -> None:
    z = np.arange(4, dtype=np.int16)
    assert fill_message(1, 2, Charge(3, True), z, 0, 0, 60).flags == 0
    spent = fill_message(1, 2, Charge(3, False), z, 0, 0, 60)
    assert (spent.boot_id, spent.model_id, spent.slot, spent.flags) == (1, 2, 3, FLAG_SPENT)


def test_a_verdict_spans_its_event(tmp_path: Path) -> None:
    manifest = make_engine(tmp_path, slot_s=0.5)
    event = EventWindow(8, 4, 16)
    for slot in (0, 1, 4):
        event.push(slot, np.ones(64, np.int16))
    verdict = fill_verdict(9, manifest, event.span(), {"normal": 0.75, "fall": 0.25}, 60)
    assert (verdict.first_slot, verdict.last_slot, verdict.start_s, verdict.end_s) == (0, 4, 0.0, 2.5)
    assert verdict.present == (False, False, False, True, True, False, False, True)
    assert (verdict.member, verdict.sentence, verdict.label) == ("edge", "", "normal")
