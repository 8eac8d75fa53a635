"""The bridge's MQTT connection, and the mailbox between the network thread and the main thread.

    broker --network thread--> Mailbox.put (never waits) | Mailbox.take --main thread--> the bridge --publish--> broker

The MQTT client is in wire/mqtt.py. The session survives short interruptions: the broker keeps what cameras send
meanwhile. There is no `$share`: one consumer per camera keeps its messages in order.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from wire.broker import BrokerConfig
from wire.errors import BrokerError
from wire.mqtt import Message, MqttClient
from wire.protocol.message import MAX_PAYLOAD

__all__ = ["Inbound", "Mailbox", "MqttTransport", "Publish", "Receive"]

_CONNECT_S = 10.0  # for the broker to accept us and our subscriptions
_DRAIN_S = 5.0  # for the acknowledgements still open at the end
_SESSION_S = 3600  # for which the broker keeps our session (MQTT 5)
_QUEUE = 10_000
_IN_FLIGHT = 1024

Publish = Callable[[str, bytes, int, bool], None]
"""(topic, payload, qos, retain): returns at once; delivery is the transport's work."""

Receive = Callable[[str, bytes, bool], None]
"""(topic, payload, retained): called on the network's thread; must not wait."""


class Inbound(NamedTuple):
    """A message as it came.

    Attributes:
        camera: `site/camera`.
        name: Last part of the topic.
        payload: Its bytes.
        retained: It was there before the bridge subscribed.
    """

    camera: str
    name: str
    payload: bytes
    retained: bool


class Mailbox:
    """A bounded queue for each camera: a flood of one camera drops the oldest messages of that camera only."""

    def __init__(self, cameras: Iterable[str], depth: int = 512) -> None:
        self._queues = {name: deque[Inbound]() for name in ("", *cameras)}
        self._depth = depth
        self._ready = threading.Condition()
        self.dropped: Counter[str] = Counter()

    def put(self, item: Inbound) -> None:
        """Add a message; never waits. A payload longer than any valid message is cut, and later refused for it."""
        name = item.camera if item.camera in self._queues else ""
        queue = self._queues[name]
        with self._ready:
            if len(queue) >= self._depth:
                queue.popleft()
                self.dropped[name] += 1
            queue.append(item._replace(payload=item.payload[: MAX_PAYLOAD + 1]))
            self._ready.notify()

    def take(self, timeout_s: float) -> list[Inbound]:
        """Take all waiting messages, camera by camera in order of arrival; [] where none arrives within `timeout_s`."""
        with self._ready:
            self._ready.wait_for(lambda: any(self._queues.values()), timeout_s)
            items = [item for queue in self._queues.values() for item in queue]
            for queue in self._queues.values():
                queue.clear()
        return items


class MqttTransport:
    """One connection, as a context manager.

    Entering connects and subscribes (BrokerError where that fails), leaving waits for open acknowledgements, a few
    seconds at most. A connection that is lost later is made again for ever.

    Attributes:
        unpublished: Messages that the broker did not get: dropped from a full queue, or still waiting at the end.
    """

    def __init__(
        self, config: BrokerConfig, client_id: str, topics: Sequence[tuple[str, int]], receive: Receive
    ) -> None:
        self.unpublished = 0
        self._client = MqttClient(
            config,
            client_id,
            queue=_QUEUE,
            in_flight=_IN_FLIGHT,
            session_s=_SESSION_S,
            subscriptions=topics,
            receive=receive,
            inbound_bytes=MAX_PAYLOAD,
            keep_trying=False,
        )

    def __enter__(self) -> MqttTransport:
        self._client.open()
        if not self._client.wait(_CONNECT_S):
            self._client.close()
            raise BrokerError(self._client.complaint)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.flush(_DRAIN_S)
        self.unpublished = self._client.waiting + self._client.dropped
        self._client.close()

    @property
    def connections(self) -> int:
        """Connections made so far."""
        return self._client.sessions

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Queue a message; while the broker is away it waits here, up to a bound; beyond, the oldest is lost."""
        self._client.send(Message(topic, payload, qos, retain))

    def pump(self) -> None:
        """Send what waited while the broker was away; call it regularly while nothing is published."""
        self._client.pump()
