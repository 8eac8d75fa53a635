"""paho's client, reading what the socket has at once: a message costs it a tenth of the time, and many acknowledgements
are one write.

    socket --at most 64 KiB--> whole packets --PUBLISH of QoS 0, 1--> `arrived`
                                            |-- PUBACK of what was taken --> paho's queue
                                            `-- all others --> paho, as if they had come alone

paho reads the socket four times for a packet, asks the kernel before each whether there is one, and makes ten objects
of each acknowledgement. Nothing else of it changes: its connections, keep-alives and publishing are its own.
`tests/unit/wire/test_wire_mqtt_bulk.py` says which of paho's private names this needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

__all__ = ["Arrived", "BulkClient"]

Arrived = Callable[["BulkClient", bytes, bytes, bool, int], None]
"""(client, topic, payload, retained, number): called on the network's thread. number: to acknowledge; 0 at QoS 0."""

_CHUNK = 64 * 1024
_MOST_LENGTH_BYTES = 4
_PUBLISH, _PUBACK = 0x30, 0x40
_NONE = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]  # paho leaves it untyped
_WELL, _UNREAD = (ReasonCode(PacketTypes.PUBACK, identifier=code) for code in (0x00, 0x10))  # nobody has subscribed
_TAKEN = {
    MQTTProtocolVersion.MQTTv5: {b"\x40\x02": _WELL, b"\x40\x03\x00": _WELL, b"\x40\x03\x10": _UNREAD},
    MQTTProtocolVersion.MQTTv311: {b"\x40\x02": _WELL},
}
"""Protocol -> a PUBACK without its number -> its reason; of failures, and with properties, paho makes what it needs."""


class BulkClient(mqtt.Client):
    """A client that acknowledges nothing by itself; see `acknowledge`."""

    def __init__(self, arrived: Arrived, *args: Any, **options: Any) -> None:
        """Prepare it. arrived: takes each message; the rest are arguments of paho's client."""
        super().__init__(*args, **{**options, "manual_ack": True})
        self._arrived, self._taken = arrived, _TAKEN.get(self._protocol, {})
        self._unread, self._wanted = bytearray(), 0  # the begin of a packet, and how long that is, as far as known
        self._alone = memoryview(b"")  # what is left of a packet that paho reads

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Acknowledge messages of QoS 1 of this connection, in one packet of the network. Any thread may call it."""
        if numbers:
            packet = b"".join(b"\x40\x02" + number.to_bytes(2, "big") for number in numbers)
            self._packet_queue(_PUBACK, packet, numbers[0], 1)

    def reconnect(self) -> MQTTErrorCode:
        """Connect; what was left of the former connection is forgotten."""
        self._unread, self._wanted = bytearray(), 0
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read what is there, and deal with every packet that is whole; paho calls it where the socket has data."""
        try:
            data = super()._sock_recv(_CHUNK)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError:
            data = b""
        if not data:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        self._unread += data
        if len(self._unread) < self._wanted:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        rc = self._deal_with(bytes(self._unread))
        return self._loop_rc_handle(rc) if rc > 0 else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _deal_with(self, packets: bytes) -> MQTTErrorCode:
        """Deal with the packets that are whole, and keep the rest."""
        begin, self._wanted = 0, 0
        while (head := _length(packets, begin)) is not None:
            at, end = head
            if end > len(packets):
                self._wanted = end - begin
                break
            if packets[begin] & 0xF0 == _PUBLISH:
                rc = self._take(packets, begin, at, end)
            elif (reason := self._taken.get(packets[begin:at] + packets[at + 2 : end])) is not None:
                rc = self._forget(int.from_bytes(packets[at : at + 2], "big"), reason)
            else:
                rc = self._leave_to_paho(packets[begin:end])
            if rc > 0 or self._sock is None:
                return rc
            begin = end
        self._unread = bytearray(packets[begin:])
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _take(self, packets: bytes, begin: int, at: int, end: int) -> MQTTErrorCode:
        """Hand over a PUBLISH, of QoS 0 or 1 as we ask for, whose content begins at `at`."""
        numbered = packets[begin] & 6  # twice the QoS: at QoS 1 a number of two bytes stands before the payload
        topic_end = at + 2 + int.from_bytes(packets[at : at + 2], "big")
        payload = topic_end + numbered
        if numbered > 2 or payload > end:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        number = int.from_bytes(packets[topic_end:payload], "big")
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            properties = _length(packets, payload - 1)
            if properties is None or properties[1] > end:
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            payload = properties[1]
        self._arrived(self, packets[at + 2 : topic_end], packets[payload:end], bool(packets[begin] & 1), number)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _forget(self, number: int, reason: ReasonCode) -> MQTTErrorCode:
        """The broker has the message of this number."""
        with self._out_message_mutex:
            if number in self._out_messages:
                return self._do_on_publish(number, reason, _NONE)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _leave_to_paho(self, packet: bytes) -> MQTTErrorCode:
        self._alone = memoryview(packet)
        return self._packet_read()

    def _sock_recv(self, bufsize: int) -> bytes:
        """What paho reads: the one packet that it was given."""
        found, self._alone = bytes(self._alone[:bufsize]), self._alone[bufsize:]
        if not found:
            raise BlockingIOError
        return found


def _length(packets: bytes, begin: int) -> tuple[int, int] | None:
    """Where the content of the packet at `begin` begins and ends; None where its length is not there yet.

    A length of more than four bytes is no length: the packet ends after it, and paho refuses it.
    """
    length = shift = 0
    for at in range(begin + 1, min(begin + 1 + _MOST_LENGTH_BYTES, len(packets))):
        byte = packets[at]
        length |= (byte & 127) << shift
        if byte < 128:
            return at + 1, at + 1 + length
        shift += 7
    after = begin + 2 + _MOST_LENGTH_BYTES
    return (after, after) if after <= len(packets) else None
