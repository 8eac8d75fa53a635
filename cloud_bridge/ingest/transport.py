"""The bridge's MQTT connection, and the mailbox between the network thread and the main thread.

    broker --network thread--> Mailbox.put (never waits) | Mailbox.take --main thread--> the bridge --publish--> broker
    broker <--acknowledge-- what the store has

The MQTT client is in wire/mqtt.py. The session survives short interruptions: the broker keeps what cameras send
meanwhile, and sends again what was not acknowledged. There is no `$share`: one consumer per camera keeps its messages
in order.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from wire.broker import BrokerConfig
from wire.errors import BrokerError
from wire.mqtt import Message, MqttClient, Receipt
from wire.privacy.certificate import MAX_CERTIFICATE
from wire.protocol.message import MAX_PAYLOAD

__all__ = ["Hold", "Inbound", "Link", "Mailbox", "MqttTransport"]

_CONNECT_S = 10.0  # for the broker to accept us and our subscriptions
_DRAIN_S = 5.0  # for the acknowledgements still open at the end
_SESSION_S = 3600  # for which the broker keeps our session (MQTT 5)
_QUEUE = 10_000
_IN_FLIGHT = 1024

_BATCH = 256  # messages of one commit, before which nothing of them is published
_MOST_WAITING = 65_536  # messages of all cameras that wait to be read

Hold = Callable[[str, bytes, bool, Receipt], None]
"""(topic, payload, retained, receipt): called on the network's thread; must not wait."""


class Inbound(NamedTuple):
    """A message as it came.

    Attributes:
        camera: `site/camera`.
        name: Last part of the topic.
        payload: Its bytes.
        retained: It was there before the bridge subscribed.
        receipt: What the broker is to be told once the message is dealt with; None: nothing.
        came_s: This machine's clock when it came; None: when it is read.
        followed: Newer ones of its camera wait.
    """

    camera: str
    name: str
    payload: bytes
    retained: bool
    receipt: Receipt | None = None
    came_s: float | None = None
    followed: bool = False


class Link(Protocol):
    """What the bridge needs of its connection."""

    @property
    def connected(self) -> bool:
        """Whether there is a broker at the moment."""

    def publish(self, message: Message, number: int = -1) -> None:
        """Queue a message and return at once. `settled` is told its number once the broker has it."""

    def pump(self) -> None:
        """Send what waits, and hear what the broker has; call it regularly."""

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Tell the broker that these messages were dealt with."""


class Mailbox:
    """A queue for each camera, read in turns.

    A flood under the name of one camera drops messages of that camera only, and delays those of another by no more than
    one batch. Of what is there, the oldest is dropped that the camera has not signed, that is there twice or was read
    before: whoever may write under its name, without its key, pushes nothing of it out. While the store is away
    everything is kept, up to a bound on all of it, which a broker of MQTT 5 does not reach: it sends no more before we
    acknowledge something.

    A batch costs a commit, however small it is. So the first message waits for others, for `wait_s` from when it came,
    or until `enough` are there: while a batch is read, the time of the next one passes.
    """

    def __init__(
        self,
        cameras: Iterable[str],
        depth: int = 1024,
        wanted: Callable[[Inbound], bool] = lambda item: False,
        enough: int = 1,
        wait_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin empty.

        Args:
            cameras: `site/camera` of each.
            depth: Messages of one that may wait.
            wanted: Whether a message is the camera's, and new; asked on the network's thread, in a flood alone.
            enough: Messages that wait for no others.
            wait_s: For which the first message waits for others.
            clock: Seconds.
        """
        self._queues = {name: deque[Inbound]() for name in ("", *cameras)}
        self._kept = {name: dict[bytes, Inbound]() for name in self._queues}  # found to be wanted; read first
        self._wanted = wanted
        self._turns = deque[str]()  # cameras with messages, the next one first
        self._deep = set[str]()  # cameras with more messages than `depth`: of a time when all was kept
        self._depth, self._count = depth, 0
        self._enough, self._wait_s, self._clock = enough, wait_s, clock
        self._first_s, self._hurried = 0.0, False  # when the first that is there came; whether a wait is to end
        self._ready = threading.Condition()
        self.dropped: Counter[str] = Counter()

    def put(self, item: Inbound, keep: bool = False) -> Inbound | None:
        """Add a message and return the one that it drops; never waits.

        A payload longer than any valid message is cut, and later refused for it.

        Args:
            item: The message.
            keep: Drop none for it, as what waits is not the camera's fault.
        """
        name = item.camera if item.camera in self._queues else ""
        queue, dropped = self._queues[name], None
        most = MAX_CERTIFICATE if item.name == "certificate" else MAX_PAYLOAD
        with self._ready:
            full, has_turn = len(queue) >= self._depth, bool(queue or self._kept[name])
            if full and keep:
                self._deep.add(name)
            if self._count >= _MOST_WAITING or (full and name not in self._deep):
                dropped = self._drop(name, item) if queue else item
            if dropped is not None:
                self.dropped[name] += 1
                self._count -= 1
            if not self._turns:
                self._first_s = self._clock()
            if not has_turn and dropped is not item:
                self._turns.append(name)
            if dropped is not item:
                queue.append(item if len(item.payload) <= most else item._replace(payload=item.payload[: most + 1]))
            self._count += 1
            if self._count in (1, self._enough):  # what `take` waits for; each other call would wake it in vain
                self._ready.notify()
        return dropped

    def _drop(self, name: str, newest: Inbound) -> Inbound | None:
        """Take out the oldest message that is not wanted; where a whole queue is wanted, `newest`. None: there is room.

        A camera that floods by itself is not asked about for each message: that took the network's thread all its time.
        """
        queue, kept = self._queues[name], self._kept[name]
        while queue and len(kept) < self._depth:
            oldest = queue.popleft()
            if oldest.payload in kept or not self._wanted(oldest):
                return oldest
            kept[oldest.payload] = oldest
        return newest if queue or self._count >= _MOST_WAITING else None

    def _next(self, name: str) -> Inbound:
        kept = self._kept[name]
        return kept.pop(next(iter(kept))) if kept else self._queues[name].popleft()

    def leave(self, camera: str) -> None:
        """Count a message of `site/camera` that nobody is to read."""
        with self._ready:
            self.dropped[camera if camera in self._queues else ""] += 1

    def hurry(self) -> None:
        """End a wait now, for the first message and for others, with what is there. Any thread; no signal handler."""
        with self._ready:
            self._hurried = True
            self._ready.notify()

    def take(self, timeout_s: float) -> list[Inbound]:
        """Take the next batch, a message of each camera in turn; [] where none arrives within `timeout_s`."""
        items = list[Inbound]()
        with self._ready:
            if self._ready.wait_for(lambda: self._hurried or bool(self._turns), timeout_s):
                left_s = self._first_s + self._wait_s - self._clock()
                self._ready.wait_for(lambda: self._hurried or self._count >= self._enough, max(0.0, left_s))
            self._hurried = False
            while self._turns and len(items) < _BATCH:
                name = self._turns.popleft()
                item = self._next(name)
                if self._kept[name] or self._queues[name]:
                    self._turns.append(name)
                    item = item._replace(followed=True)
                items.append(item)
                if len(self._queues[name]) < self._depth:
                    self._deep.discard(name)
            self._count -= len(items)
        return items


class MqttTransport:
    """One connection, as a context manager.

    Entering connects and subscribes (BrokerError where that fails), leaving waits for open acknowledgements, a few
    seconds at most. A connection that is lost later is made again for ever.
    """

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str,
        topics: Sequence[tuple[str, int]],
        hold: Hold,
        will: Message | None = None,
        greeting: Callable[[], Iterable[Message]] = tuple,
        settled: Callable[[int], None] = lambda number: None,
        may_connect: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare the connection; the arguments are as those of `MqttClient`."""
        self._client = MqttClient(
            config,
            client_id,
            queue=_QUEUE,
            in_flight=_IN_FLIGHT,
            session_s=_SESSION_S,
            subscriptions=topics,
            hold=hold,
            will=will,
            greeting=greeting,
            inbound_bytes=MAX_CERTIFICATE,
            keep_trying=False,
            settled=settled,
            may_connect=may_connect,
        )

    def __enter__(self) -> MqttTransport:
        self._client.open()
        if not self._client.wait(_CONNECT_S):
            self._client.close()
            raise BrokerError(self._client.complaint)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.flush(_DRAIN_S)
        self._client.close()

    @property
    def connections(self) -> int:
        """Connections made so far."""
        return self._client.sessions

    @property
    def connected(self) -> bool:
        """Whether there is a broker at the moment."""
        return self._client.connected

    def publish(self, message: Message, number: int = -1) -> None:
        """Queue a message; beyond a bound the oldest is lost, which the publisher never reaches."""
        self._client.send(message, number)

    def flush(self) -> bool:
        """Wait some seconds until the broker has everything; False where it has not."""
        return self._client.connected and self._client.flush(_DRAIN_S)

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Tell the broker that these messages were dealt with."""
        self._client.acknowledge(receipts)

    def pump(self) -> None:
        """Send what waits, and hear what the broker has; call it regularly."""
        self._client.pump()
