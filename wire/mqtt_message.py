"""What the MQTT client holds of a message on its way: `mqtt.py` sends and receives them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Message", "OnWire", "Queued", "Receipt"]

_HEADERS = 16  # bytes of a PUBLISH besides topic and payload, at most


class Message(NamedTuple):
    """A message to be published. retain: the broker keeps it for later subscribers."""

    topic: str
    payload: bytes
    qos: int
    retain: bool

    @property
    def size(self) -> int:
        """Bytes on the wire, at most."""
        return len(self.payload) + len(self.topic.encode()) + _HEADERS


class Queued(NamedTuple):
    """A message with what only its sender knows of it."""

    message: Message
    tag: int = -1
    expires_s: int = 0


class OnWire(NamedTuple):
    """A message that paho has, under the number `mid`, and the broker has not acknowledged."""

    mid: int
    what: Queued


class Receipt(NamedTuple):
    """Names a message that came and is not acknowledged. session: the connection; mid: its number, 0 at QoS 0."""

    session: int
    mid: int
