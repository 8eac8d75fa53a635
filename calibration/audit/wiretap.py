"""The hostile broker: it takes everything that a device sends, keeps it with the time it came, and passes nothing on.

    device --MQTT 3.1.1 over TCP, on the loopback--> Wiretap --acknowledges--> Packets, as they came

It speaks as much of MQTT as a publisher needs (OASIS, "MQTT Version 3.1.1", section 3), and refuses version 5, after
which our client speaks 3.1.1.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["CONNECT", "DISCONNECT", "GONE", "PUBLISH", "Packet", "Wiretap"]

CONNECT, PUBLISH, DISCONNECT, GONE = 1, 3, 14, 16
"""Kinds of a packet: MQTT's control packet types, and GONE, the end of a connection."""

_SUBSCRIBE, _PING = 8, 12
_ACCEPTED, _PONG = b"\x20\x02\x00\x00", b"\xd0\x00"
_ONLY_3 = b"\x20\x03\x00\x84\x00"  # CONNACK of MQTT 5: unsupported protocol version
_LEVEL, _NAME = 6, 10  # where CONNECT's body has the protocol's version, and the client's name
_MQTT_5, _QOS = 5, 0b110


@dataclass(frozen=True, slots=True)
class Packet:
    """What came.

    Attributes:
        at: seconds of the wall clock.
        client: the MQTT client that its connection named.
        kind: CONNECT, PUBLISH, DISCONNECT or GONE.
        topic: of a message; "" of other packets.
        body: a message's payload; the whole body of other packets.
    """

    at: float
    client: str
    kind: int
    topic: str
    body: bytes


class Wiretap:
    """Listens on a free port of the loopback while its block lasts."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._packets: list[Packet] = []

    def __enter__(self) -> Wiretap:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._server.close()

    def packets(self) -> list[Packet]:
        """What has come so far."""
        return list(self._packets)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._server.accept()[0]
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        name = ""
        with client, client.makefile("rb") as stream, contextlib.suppress(OSError, IndexError):
            while first := stream.read(1):
                head, body = first[0], stream.read(_length(stream))
                if head >> 4 == CONNECT and body[_LEVEL] == _MQTT_5:
                    client.sendall(_ONLY_3)
                    return
                name = name or body[_NAME + 2 : _NAME + 2 + int.from_bytes(body[_NAME : _NAME + 2], "big")].decode()
                client.sendall(self._take(name, head, body))
        if name:
            self._packets.append(Packet(time.time(), name, GONE, "", b""))

    def _take(self, client: str, head: int, body: bytes) -> bytes:
        """Keep a packet; return what is answered."""
        now, kind = time.time(), head >> 4
        if kind == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            number = body[end : end + 2] if head & _QOS else b""
            topic = body[2:end].decode(errors="replace")
            self._packets.append(Packet(now, client, kind, topic, body[end + len(number) :]))
            return b"\x40\x02" + number if number else b""
        self._packets.append(Packet(now, client, kind, "", body))
        return {CONNECT: _ACCEPTED, _PING: _PONG, _SUBSCRIBE: b"\x90\x03" + body[:2] + b"\x01"}.get(kind, b"")


def _length(stream: BinaryIO) -> int:
    """Read MQTT's remaining length: seven bits a byte, the least first."""
    length = shift = 0
    while True:
        byte = stream.read(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return length
