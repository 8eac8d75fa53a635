"""The publisher on brokers that refuse: by size, by access list, for another client of its name, by silence."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from edge_runtime.config import Config, load_config
from edge_runtime.uplink import publisher as publisher_module
from edge_runtime.uplink.publisher import Publisher
from tests.support.engine_factory import make_edge_config
from tests.support.services import Broker, Listener, find, until
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Sealed

STATE = {"boot_id": 7, "slot_s": 1.0}
KEY = DeviceKey(b"d" * 32)
CERTIFICATE = b"c" * 16_000


def config_of(folder: Path, port: int) -> Config:
    return load_config(make_edge_config(folder, engine="/none", port=port, broker={"required": True}))


def broker_with(tmp_path: Path, *lines: str) -> Broker:
    """A Mosquitto with further lines in its configuration, started."""
    broker = Broker(find("mosquitto"), tmp_path)
    file = tmp_path / "mosquitto.conf"
    file.write_text(file.read_text() + "".join(f"{line}\n" for line in lines))
    broker.start()
    return broker


def speak_3_1_1(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a publisher speak MQTT 3.1.1, as with an old broker."""
    client, dial = publisher._client, publisher._client._dial
    monkeypatch.setattr(client, "_dial", lambda five, probe=False: dial(False))


@pytest.mark.parametrize("limit", ["max_packet_size 4096", "message_size_limit 4096"])
@pytest.mark.parametrize("version", [5, 4])
def test_a_broker_that_takes_no_long_message_gets_the_others(
    tmp_path: Path, limit: str, version: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate was sent again and again, and each time the connection broke."""
    caplog.set_level(logging.INFO)
    broker = broker_with(tmp_path, limit)
    listener = Listener(broker.port)
    publisher = Publisher(config_of(tmp_path, broker.port), KEY, STATE, CERTIFICATE)
    if version == 4:
        speak_3_1_1(publisher, monkeypatch)
    silent = version == 4 and limit.startswith("message")  # Mosquitto then drops it, and acknowledges it

    def settled() -> bool:
        publisher.send("features", Sealed(b"one"))
        time.sleep(0.05)
        return publisher._client.connected and (silent or publisher._client.too_long > 0) and publisher.flush(1)

    with publisher:
        until(settled, 60)
        sessions = publisher._client.sessions
        assert sessions <= 4
        time.sleep(1.5)
        publisher.send("features", Sealed(b"last"))
        assert publisher.flush(60)
        assert publisher._client.sessions == sessions  # it holds
        assert publisher._client._client.protocol == MQTTProtocolVersion(version)
    until(lambda: b"last" in listener.of("features"), 60)
    assert listener.of("certificate") == []
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == (not silent)
    if told:
        assert "lab/door/certificate" in told[0] and "max_packet_size" in told[0]
    listener.close()
    broker.stop()


def test_what_an_access_list_denies_is_counted_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PUBACK 135 was ignored, and the message counted as sent."""
    rules = tmp_path / "acl"
    allowed = [f"topic write veilsight/v1/lab/door/{name}" for name in ("state", "certificate")]
    rules.write_text("\n".join(["topic read #", *allowed, ""]))
    rules.chmod(0o600)
    broker = broker_with(tmp_path, f"acl_file {rules}", "user root")
    with Publisher(config_of(tmp_path, broker.port), KEY, STATE, b"c") as publisher:
        for _ in range(3):
            publisher.send("features", Sealed(b"one"))
        assert publisher.flush(60)
        figures = publisher.figures()
    assert (figures["refused"], figures["sent"]) == (3, 2)  # the state and the certificate were sent
    told = [record.getMessage() for record in caplog.records if "refuses our message" in record.getMessage()]
    assert len(told) == 1 and "lab/door/features" in told[0] and "Not authorized" in told[0]
    broker.stop()


def test_two_devices_of_one_name_leave_each_other_alone(tmp_path: Path, mosquitto: int) -> None:
    with (
        Publisher(config_of(tmp_path, mosquitto), KEY, STATE, b"c") as one,
        Publisher(config_of(tmp_path, mosquitto), DeviceKey(b"e" * 32), STATE, b"c") as other,
    ):
        for publisher in (one, other):
            publisher.send("features", Sealed(b"x"))
            assert publisher.flush(60)
        assert (one._client.sessions, other._client.sessions) == (1, 1)


def test_two_devices_of_one_key_are_named_after_the_second_takeover(
    tmp_path: Path, mosquitto: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Publisher(config_of(tmp_path, mosquitto), KEY, STATE, b"c") as one,
        Publisher(config_of(tmp_path, mosquitto), KEY, STATE, b"c") as other,
    ):
        until(lambda: "have two devices one key" in caplog.text, 60)
        assert one._client._short + other._client._short >= 2  # and the pauses grow
    assert f"veilsight-lab-door-{KEY.public.hex[:8]}" in caplog.text


def test_a_stop_ends_in_time_whatever_the_broker_does(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a broker that was halted it took 10.3 s, and systemd killed the process."""
    publisher = Publisher(config_of(tmp_path, broker.port), KEY, STATE, b"c")
    publisher.__enter__()
    process: Any = broker._process
    process.send_signal(signal.SIGSTOP)
    try:
        publisher.send("features", Sealed(b"x"))
        waits: list[float] = []

        def only_asks(timeout_s: float) -> bool:
            waits.append(timeout_s)
            return False

        class Time:
            monotonic = staticmethod(lambda: sum(waits))
            time = staticmethod(time.time)

        publisher._client.flush = only_asks  # type: ignore[method-assign]
        monkeypatch.setattr(publisher_module, "time", Time)
        publisher.__exit__()
        assert sum(waits) < 3.0
    finally:
        process.send_signal(signal.SIGCONT)


def test_the_state_is_published_again_when_the_clock_is_set(
    tmp_path: Path, mosquitto: int, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that starts in 1970 said so for as long as it ran."""
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: 86_403.0)
    with Publisher(config_of(tmp_path, mosquitto), KEY, {**STATE, "started_at": 86_403}, b"c") as publisher:
        publisher.update_state(blind=False)
        assert publisher.flush(60)
        monkeypatch.setattr(time, "time", lambda: real)
        publisher.update_state(blind=False)
        assert publisher.flush(60)
        publisher.update_state(blind=False)
    until(lambda: len(listener.states()) == 3, 60)
    started = [int(state.split(b'"started_at":')[1].split(b",")[0]) for state in listener.of("state")]
    assert started[0] == 86_403 and abs(started[1] - real) < 600 and started[1] == started[2]
