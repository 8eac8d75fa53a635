"""Packets in bulk: the same messages however the network cuts them, and nothing of a malformed one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion, _ConnectionState

from wire.mqtt_bulk import BulkClient

Found = list[tuple[bytes, bytes, bool, int]]


def remaining(length: int) -> bytes:
    out = bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([*out, length])


def publish(topic: bytes, payload: bytes, qos: int = 1, retain: int = 0, number: int = 7, five: bool = True) -> bytes:
    content = len(topic).to_bytes(2, "big") + topic + (number.to_bytes(2, "big") if qos else b"")
    content += (b"\x05\x02\x00\x00\x00\x09" if five else b"") + payload  # a message expiry interval
    return bytes([0x30 | qos << 1 | retain]) + remaining(len(content)) + content


class Line:
    """A client on one end of a pair of sockets; the test is the broker on the other."""

    def __init__(self, five: bool = True) -> None:
        self.found: Found = []
        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        self.client = BulkClient(
            lambda client, *what: self.found.append(what), CallbackAPIVersion.VERSION2, "t", protocol=version
        )
        self.ours, self.broker = socket.socketpair()
        self.ours.setblocking(False)
        self.client._sock = self.ours

    def close(self) -> None:
        self.client._sock = None
        self.ours.close()
        self.broker.close()

    def feed(self, data: bytes) -> MQTTErrorCode:
        self.broker.sendall(data)
        return self.client.loop_read()


@pytest.fixture
def line() -> Iterator[Line]:
    with closing(Line()) as line:
        yield line


def test_paho_has_the_names_that_we_need(line: Line) -> None:
    """They are private to it: another version may have others."""
    for name in ("_sock_recv", "_packet_read", "_packet_queue", "_loop_rc_handle", "_do_on_publish"):
        assert callable(getattr(mqtt.Client, name)), name
    assert isinstance(line.client._last_bytes_received, float)
    assert line.client._out_messages == {} and line.client._out_message_mutex


@pytest.mark.parametrize("five", [True, False], ids=["MQTT 5", "MQTT 3.1.1"])
def test_messages_are_the_same_however_the_network_cuts_them(five: bool) -> None:
    rng = random.Random(3)
    sent: Found = []
    stream = b""
    for number in range(1, 60):
        payload = rng.randbytes(rng.choice([0, 1, 100, 127, 128, 300, 20_000]))
        qos, retain = rng.randrange(2), rng.randrange(2)
        sent.append((b"a/%d" % number, payload, bool(retain), number if qos else 0))
        stream += publish(b"a/%d" % number, payload, qos, retain, number, five)
        stream += b"\xd0\x00" if rng.random() < 0.2 else b""  # PINGRESP, which is paho's
    for largest in (40, 1000, 60_000):
        with closing(Line(five)) as line:
            at = 0
            while at < len(stream):
                step = rng.randint(1, largest)
                assert line.feed(stream[at : at + step]) == MQTTErrorCode.MQTT_ERR_SUCCESS
                at += step
            assert line.found == sent


def test_a_packet_of_paho_s_own_is_paho_s(line: Line) -> None:
    line.client._ping_t = 5.0
    line.feed(publish(b"a", b"1") + b"\xd0\x00" + publish(b"a", b"2"))
    assert line.client._ping_t == 0 and [each[1] for each in line.found] == [b"1", b"2"]


@pytest.mark.parametrize(
    "packet",
    [
        b"\x32\x04\x00\x09ab",  # a topic that is longer than the packet
        b"\x32\x03\x00\x01a",  # no number
        b"\x32\x05\x00\x01a\x00\x07",  # no properties
        b"\x32\x07\x00\x01a\x00\x07\x20\x00",  # properties beyond the end
        publish(b"a", b"x", qos=2),  # that nobody asked for
        publish(b"a", b"x", qos=3),
        b"\x32\xff\xff\xff\xff\xff\x00",  # a length that is none
        b"\x32\x00",
    ],
)
def test_a_malformed_message_ends_the_connection_and_is_not_handed_over(line: Line, packet: bytes) -> None:
    assert line.feed(publish(b"a", b"good") + packet + publish(b"a", b"after")) > 0
    assert [each[1] for each in line.found] == [b"good"] and line.client._sock is None


def test_a_new_connection_begins_with_nothing_of_the_former_one(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.feed(publish(b"a", b"0123456789")[:-3])
    monkeypatch.setattr(mqtt.Client, "reconnect", lambda self: MQTTErrorCode.MQTT_ERR_SUCCESS)
    line.client.reconnect()
    line.feed(publish(b"a", b"new"))
    assert [each[1] for each in line.found] == [b"new"]


def test_a_broker_that_closes_ends_the_connection(line: Line) -> None:
    line.broker.close()
    assert line.client.loop_read() == MQTTErrorCode.MQTT_ERR_CONN_LOST and line.client._sock is None


def test_many_messages_are_acknowledged_in_one_packet_of_the_network(line: Line) -> None:
    queued = list[Any]()
    line.client._packet_queue = lambda *what: queued.append(what)  # type: ignore[assignment, method-assign]
    line.client.acknowledge([])
    line.client.acknowledge([1, 258])
    assert [(what[0], what[1]) for what in queued] == [(0x40, b"\x40\x02\x00\x01\x40\x02\x01\x02")]


ANSWERS = {
    "taken": (b"\x40\x02\x00\x01", 0),
    "taken, with its reason": (b"\x40\x03\x00\x01\x00", 0),
    "nobody reads it": (b"\x40\x03\x00\x01\x10", 0x10),
    "taken, with properties": (b"\x40\x04\x00\x01\x00\x00", 0),
    "not allowed": (b"\x40\x03\x00\x01\x87", 0x87),
    "not allowed, with properties": (b"\x40\x08\x00\x01\x87\x04\x1f\x00\x01x", 0x87),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_acknowledgement_is_what_paho_makes_of_it(line: Line, answer: str) -> None:
    """The packet alone, then among messages; of a message that is not on its way nothing is told."""
    packet, code = ANSWERS[answer]
    told = list[tuple[int, int, bool]]()
    line.client.on_publish = lambda client, data, mid, reason, properties: told.append(
        (mid, reason.value, reason.is_failure)
    )
    for count, data in ((0, b""), (1, publish(b"a", b"1"))):
        line.client._state = _ConnectionState.MQTT_CS_CONNECTED
        line.client._last_mid = 0
        sent = line.client.publish("a", b"x", qos=1)
        assert sent.mid == 1 and not sent.is_published()
        assert line.feed(data + packet + data + packet) == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert sent.is_published() and told == [(1, code, code >= 0x80)] * (count + 1)
        assert not line.client._out_messages and line.client._inflight_messages == 0
    assert len(line.found) == 2


def test_in_mqtt_3_1_1_an_acknowledgement_has_no_reason() -> None:
    with closing(Line(five=False)) as line:
        assert line.feed(b"\x40\x02\x00\x01") == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert line.feed(b"\x40\x03\x00\x01\x00") == MQTTErrorCode.MQTT_ERR_PROTOCOL
