"""The MQTT client by itself: addresses, bounds, pauses between attempts, and its messages about faults.

The tests of its users, the device's publisher and the bridge's transport, cover what it does on a real broker.
"""

from __future__ import annotations

import logging
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.services import Broker, free_port, until
from wire.broker import BrokerConfig
from wire.errors import BrokerError, ConfigError
from wire.mqtt import Message, MqttClient, Receipt

TOPIC = "veilsight/v1/lab/door/features"


def message(payload: bytes, qos: int = 1) -> Message:
    return Message(TOPIC, payload, qos, False)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker.example", ("broker.example", 1883, False)),
        ("mqtt://broker.example:1234/", ("broker.example", 1234, False)),
        ("mqtts://10.0.0.7", ("10.0.0.7", 8883, True)),
        ("mqtts://[fe80::1]:99", ("fe80::1", 99, True)),
    ],
)
def test_an_address_is_read(url: str, address: tuple[str, int, bool]) -> None:
    config = BrokerConfig(url)
    assert (config.host, config.port, config.tls) == address


@pytest.mark.parametrize(
    ("values", "cure"),
    [
        ({"url": "localhost:1883"}, "write mqtt://HOST"),
        ({"url": "http://localhost"}, "write mqtt://HOST"),
        ({"url": "mqtt://"}, "write mqtt://HOST"),
        ({"url": "mqtt://h/path"}, "write mqtt://HOST"),
        ({"url": "mqtt://h:x"}, "write mqtt://HOST"),
        ({"url": "mqtt://h:0"}, "ports are 1 to 65535"),
        ({"url": "mqtt://h:99999"}, "ports are 1 to 65535"),
        ({"url": "mqtt://me:secret@h"}, "use username and password_file"),
        ({"url": "http://me:secret@h"}, "use username and password_file"),
        ({"ca": "ca.pem"}, "write mqtts://"),
        ({"url": "mqtts://h", "key": "k.pem"}, "belong together"),
    ],
)
def test_a_malformed_address_is_refused_with_its_cure(values: dict[str, str], cure: str) -> None:
    with pytest.raises(ConfigError, match=cure) as caught:
        BrokerConfig(**values)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["ca", "password_file"])
def test_a_file_that_cannot_be_read_is_named_before_anything_connects(name: str) -> None:
    client = MqttClient(BrokerConfig("mqtts://127.0.0.1", **{name: "/nowhere"}), "t")
    with pytest.raises(ConfigError, match=r"\[broker\] .*" + name):
        client.open()


def test_a_password_keeps_its_spaces_and_loses_its_line_end(tmp_path: Any) -> None:
    (tmp_path / "password").write_text(" open sesame \r\n")
    assert BrokerConfig(password_file=str(tmp_path / "password")).password() == " open sesame "


def test_the_module_loads_without_paho_and_a_client_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['paho'] = None\n"
        "from wire.errors import BrokerError\nfrom wire.mqtt import BrokerConfig, MqttClient\n"
        "try:\n    MqttClient(BrokerConfig(), 't')\nexcept BrokerError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "paho-mqtt cannot be imported" in said and "pip install" in said


@pytest.fixture
def stalled() -> Iterator[tuple[int, Callable[[], None]]]:
    """A broker of MQTT 5 that accepts the connection and then reads nothing: its port, and how to end it."""
    server, peers = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def serve() -> None:
        peer, _ = server.accept()
        peers.append(peer)
        peer.recv(1024)
        peer.sendall(b"\x20\x03\x00\x00\x00")  # CONNACK: success, no properties

    def end() -> None:
        for peer in (server, *peers):
            peer.close()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1], end
    end()


@pytest.mark.parametrize("qos", [0, 1])
def test_the_queue_is_bounded_at_every_qos_while_the_broker_reads_nothing(
    stalled: tuple[int, Callable[[], None]], qos: int
) -> None:
    """paho alone keeps whatever it is given: at QoS 0 without any bound."""
    port, end = stalled
    client = MqttClient(BrokerConfig(f"mqtt://127.0.0.1:{port}"), "t", queue=8, in_flight=4)
    client.open()
    assert client.wait(60)
    payload = bytes(4 << 20)  # more than the system's own buffers take
    for _ in range(40):
        client.send(message(payload, qos))
    assert client.waiting <= 12
    assert client.sent + client.dropped + client.waiting == 40
    end()
    client.close()


def test_a_connection_that_breaks_between_check_and_send_raises_nothing() -> None:
    """paho's record of such a message raises whenever it is asked, though paho itself sends it later."""

    class Info:
        rc, mid = MQTTErrorCode.MQTT_ERR_NO_CONN, 7

        def is_published(self) -> bool:
            raise RuntimeError("Message publish failed")

    class Paho:
        def publish(self, *_: Any) -> Info:
            return Info()

    settled: list[int] = []
    client = MqttClient(BrokerConfig(), "t", settled=settled.append)
    paho: Any = Paho()
    client._client, client.connected = paho, True  # a connection that has just gone
    client.send(message(b"one"), tag=5)
    assert client.pump() == 1 and not settled  # it is not lost
    client._on_publish(paho, None, 7, ReasonCode(PacketTypes.PUBACK), None)
    assert client.pump() == 0 and settled == [5]


def test_pauses_between_attempts_grow(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low / 10)
    attempts: list[float] = []
    client = MqttClient(BrokerConfig(f"mqtt://127.0.0.1:{free_port()}"), "t")
    fail = client._on_connect_fail

    def note(*given: Any) -> None:
        attempts.append(time.monotonic())
        fail(*given)

    monkeypatch.setattr(client, "_on_connect_fail", note)
    with caplog.at_level(logging.WARNING):
        client.open()
        until(lambda: len(attempts) >= 5)
        client.close()
    gaps = [later - earlier for earlier, later in zip(attempts, attempts[1:], strict=False)]
    assert gaps[2] > 1.5 * gaps[0] and gaps[3] > 1.5 * gaps[1]
    assert caplog.text.count("cannot be reached; start it, or correct [broker] url") == 1  # once a minute


def test_an_inbound_payload_is_cut_to_its_bound(broker: Broker) -> None:
    got: list[bytes] = []
    config = BrokerConfig(f"mqtt://127.0.0.1:{broker.port}")
    client = MqttClient(
        config, "t", subscriptions=[(TOPIC, 1)], receive=lambda _t, payload, _r: got.append(payload), inbound_bytes=10
    )
    client.open()
    assert client.wait(60)
    for size in (10, 11, 100_000, 1_000_000):  # the last is longer than we allow the broker to send
        client.send(message(bytes(size)))
    client.send(message(b"end"))
    assert client.flush(60)
    until(lambda: got and got[-1] == b"end")
    assert [len(payload) for payload in got] == [10, 11, 11, 3]
    client.close()


def test_a_refused_subscription_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    client = MqttClient(BrokerConfig(), "t", subscriptions=[(TOPIC, 1), ("other", 1)])
    codes = [ReasonCode(PacketTypes.SUBACK, identifier=code) for code in (135, 1)]  # not authorised; granted
    client._on_subscribe(None, None, 1, codes, None)  # type: ignore[arg-type]  # as paho calls it
    assert caplog.text.count("refuses our subscription") == 1 and f"to {TOPIC} (Not authorized)" in caplog.text
    assert client.wait(60)  # a device goes on without its commands


def test_without_keep_trying_a_refused_subscription_ends_the_wait() -> None:
    """Whoever only reads is not ready while it can hear nothing."""
    client = MqttClient(BrokerConfig(), "t", subscriptions=[(TOPIC, 1), ("other", 1)], keep_trying=False)
    codes = [ReasonCode(PacketTypes.SUBACK, identifier=code) for code in (1, 135)]
    client._on_subscribe(None, None, 1, codes, None)  # type: ignore[arg-type]  # as paho calls it
    assert not client.wait(60)
    assert "refuses our subscription to other (Not authorized); let its access list read there" in client.complaint


def test_what_is_held_comes_again_until_it_is_acknowledged(broker: Broker) -> None:
    """After a new connection the broker sends what was not acknowledged, and nothing else."""
    got = queue.Queue[tuple[bytes, Receipt]]()
    config = BrokerConfig(f"mqtt://127.0.0.1:{broker.port}")

    def connect() -> MqttClient:
        client = MqttClient(
            config,
            "t",
            session_s=600,
            subscriptions=[(TOPIC, 1)],
            hold=lambda _t, payload, _r, receipt: got.put((payload, receipt)),
            inbound_bytes=10,
        )
        client.open()
        assert client.wait(60)
        return client

    client = connect()
    for number in range(50):  # more than the 20 that a broker keeps in flight by default
        client.send(message(b"%d" % number))
    assert client.flush(60)
    came = [got.get(timeout=60) for _ in range(50)]
    client.acknowledge(receipt for payload, receipt in came if payload != b"7")
    client.acknowledge([Receipt(client.sessions + 1, came[7][1].mid)])  # of no connection of ours
    client.send(message(b"end"))
    assert client.flush(60) and got.get(timeout=60)[0] == b"end"
    client.close()
    client = connect()
    assert {got.get(timeout=60)[0] for _ in range(2)} == {b"7", b"end"}
    client.close()


def test_without_keep_trying_the_first_failure_ends_the_wait() -> None:
    client = MqttClient(BrokerConfig(f"mqtt://127.0.0.1:{free_port()}"), "t", keep_trying=False)
    client.open()
    began = time.monotonic()
    assert not client.wait(60)
    assert time.monotonic() - began < 30
    client.close()
    with pytest.raises(BrokerError, match="cannot be reached"):
        raise BrokerError(client.complaint)


def test_nothing_is_acknowledged_while_there_is_no_connection() -> None:
    """A broker that was killed gives the numbers of what it had not saved to other messages, which would be lost."""
    client = MqttClient(BrokerConfig(f"mqtt://127.0.0.1:{free_port()}"), "vsb-test", hold=lambda *what: None)
    sent: list[int] = []

    class Paho:
        def acknowledge(self, numbers: Sequence[int]) -> None:
            sent.extend(numbers)

    client._client, client.sessions = Paho(), 1  # type: ignore[assignment]
    client.acknowledge([Receipt(1, 7)])
    assert sent == []
    client.connected = True
    client.acknowledge([Receipt(1, 7), Receipt(0, 8), Receipt(1, 0)])
    assert sent == [7]


def test_a_connection_breaks_before_or_after_an_acknowledgement_but_not_meanwhile() -> None:
    client = MqttClient(BrokerConfig(f"mqtt://127.0.0.1:{free_port()}"), "vsb-test", hold=lambda *what: None)
    seen: list[bool] = []

    class Paho:
        def acknowledge(self, numbers: Sequence[int]) -> None:
            broke = (self, None, None, ReasonCode(PacketTypes.DISCONNECT), None)
            threading.Thread(target=client._on_disconnect, args=broke).start()
            time.sleep(0.05)
            seen.append(client.connected)

    client._client, client.sessions, client.connected = Paho(), 1, True  # type: ignore[assignment]
    client.acknowledge([Receipt(1, 7)])
    assert seen == [True]
    until(lambda: not client.connected)
