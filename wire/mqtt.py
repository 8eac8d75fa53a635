"""The MQTT client of device and cloud: a connection that reconnects by itself, behind a bounded queue.

    caller's thread:   send --> bounded queue --pump--> at most `in_flight` messages in paho --> broker
    network thread:    broker --> payload cut to its bound --> receive, or hold (must return at once)

It speaks MQTT 5 where the broker does and 3.1.1 otherwise. One thread of the caller sends, pumps and flushes; the
network thread never publishes and never waits. paho-mqtt is imported when a client is made, so this module loads
without it.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from wire.broker import BrokerConfig
from wire.errors import BrokerError
from wire.mqtt_message import Message, OnWire, Queued, Receipt

if TYPE_CHECKING:
    from paho.mqtt import client as mqtt
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from wire.mqtt_bulk import BulkClient

__all__ = ["Message", "MqttClient", "Receipt"]

log = logging.getLogger("veilsight.mqtt")

_MAX_PACKET = 256 * 1024  # bytes; a broker that speaks MQTT 5 withholds longer messages
_UNACKNOWLEDGED = 20  # messages of QoS 1 on the wire at once: no common broker allows fewer
_UNREAD = 65_535  # messages that the broker may send before we acknowledge one (MQTT 5; its own bound may be lower)
_CONNECT_S = 5.0
_CLOSE_S = 1.0
_ASK_S = 0.1  # whether a connection may be made
_KEEPALIVE_S = 30
_LOG_EVERY_S = 60.0
_SHORT_S = 30.0  # a session that ends sooner makes the pause before the next one longer
_SMALL = 1024  # bytes of a message that no common broker refuses for its size
_SHOWN = 3  # topics that a complaint names
_UNSUPPORTED_VERSION, _TAKEN_OVER, _TOO_LARGE = 132, 142, 149  # reason codes of MQTT 5
_UNREACHED = "cannot be reached; start it, or correct [broker] url"
_NO_MQTT = "closes the connection; it speaks neither MQTT 5 nor 3.1.1"
_NO_SUBACK = "does not answer our subscriptions; look into the broker's log"


class MqttClient:
    """A connection to one broker. `open` starts it, `close` ends it; between them it reconnects for ever.

    The pause before each new attempt doubles from 0.5 to 1.5 seconds up to 15 to 30; both bounds are chosen at random.
    It grows as well where connections are made and break at once. What the broker refuses for its size is not sent
    again: the message is left out, with a word in the log.

    Attributes:
        sessions: Connections made so far.
        connected: Whether the broker has accepted the current connection.
        sent: Messages that the broker has accepted; at QoS 0, that left.
        sent_bytes: Bytes of their payloads.
        dropped: Messages dropped because the queue was full, the oldest first.
        refused: Messages that the broker has not accepted, such as by its access list (told by MQTT 5 alone).
        too_long: Messages left out since the broker takes none of their size.
    """

    def __init__(
        self,
        broker: BrokerConfig,
        client_id: str,
        *,
        queue: int = 600,
        in_flight: int = 64,
        session_s: int = 0,
        will: Message | None = None,
        greeting: Callable[[], Iterable[Message]] = tuple,
        subscriptions: Sequence[tuple[str, int]] = (),
        receive: Callable[[str, bytes, bool], None] | None = None,
        hold: Callable[[str, bytes, bool, Receipt], None] | None = None,
        inbound_bytes: int = 0,
        settled: Callable[[int], None] = lambda tag: None,
        keep_trying: bool = True,
        may_connect: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare a client; nothing is connected yet.

        Args:
            broker: Where the broker is.
            client_id: MQTT client identifier. It is fixed, so that a new connection ends a half-open old one.
            queue: Messages kept until they can be sent; beyond that the oldest is dropped.
            in_flight: Messages handed to the network and not acknowledged yet; the others wait in the queue.
            session_s: Seconds for which the broker keeps our subscriptions and their messages while we are away.
            will: What the broker publishes when the connection breaks (MQTT's Last Will).
            greeting: What is published first after every connection.
            subscriptions: (topic filter, QoS) of what we receive.
            receive: Called with (topic, payload, retained) on the network thread; it must return at once.
            hold: In place of `receive`: called with a receipt, too. The broker sends the message again after every new
                connection until `acknowledge` was called with it.
            inbound_bytes: Longest payload that is meant to arrive; a longer one is cut to one byte more.
            settled: Called on the caller's thread with the tag of each message of QoS 1 that needs no more care: the
                broker has accepted or refused it, or it was left out for its size.
            keep_trying: False: the first failure before the first connection ends `wait`.
            may_connect: Whether a connection may be made now: it would end that of another process of our name.

        Raises:
            BrokerError: paho-mqtt is not installed.
        """
        _require_paho()
        self._broker, self._client_id = broker, client_id
        self._queue_size, self._window, self._session_s = queue, in_flight, session_s
        self._will, self._greeting = will, greeting
        self._subscriptions, self._receive, self._inbound_bytes = list(subscriptions), receive, inbound_bytes
        self._hold, self._settled, self._keep_trying, self._may_connect = hold, settled, keep_trying, may_connect
        self._queue: deque[Queued] = deque()
        self._in_flight: deque[OnWire] = deque()
        self._answers: dict[int, ReasonCode | None] = {}  # of the broker, by number; None: accepted
        self._expiry: tuple[int, Properties | None] = (0, None)  # the last one that was asked for
        self._told: set[str] = set()  # topics of which a refusal was logged
        self._most = self._suspect = 0  # bytes that the broker takes (0: any); of a message that may be too long
        self._broke: ReasonCode | None = None  # why the last session ended, until the caller's thread has seen it
        self._began, self._short, self._taken_over, self._doubled = 0.0, 0, 0, False
        self._ready, self._failed, self._breaks = threading.Event(), threading.Event(), threading.Lock()
        self._problem, self._refused, self._logged_at = _UNREACHED, False, -1e9
        self._greeted = 0  # the session that was greeted last
        self.sessions = self.sent = self.sent_bytes = self.dropped = self.refused = self.too_long = 0
        self.connected = self._closed = False

    # --- the caller's thread

    def open(self) -> None:
        """Start to connect in the background. Raises ConfigError where password or TLS files cannot be used."""
        self._password, self._tls = self._broker.password(), self._broker.tls_context()
        # A broker of 3.1.1 refuses MQTT 5 properly only if CONNECT has no properties: try with an empty one first.
        self._dial(five=True, probe=self._has_properties)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the broker has accepted us and our subscriptions; False where it has not within `timeout_s`."""
        give_up = time.monotonic() + timeout_s
        while not self._ready.wait(0.01) and time.monotonic() < give_up:
            if self._failed.is_set() and not self._keep_trying:
                return False
        return self._ready.is_set()

    def close(self) -> None:
        """Disconnect, within a second; what still waits is lost (see `flush`)."""
        self._closed = True
        _retire(self._client).join(_CLOSE_S)

    def send(self, message: Message, tag: int = -1, expires_s: int = 0) -> None:
        """Queue a message and return at once; drops the oldest one where the queue is full.

        `tag` is given to `settled`. The broker need not deliver it after `expires_s` (MQTT 5 alone); 0: no limit.
        """
        if len(self._queue) >= self._queue_size:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(Queued(message, tag, expires_s))
        self.pump()

    def pump(self) -> int:
        """Hand what may be in flight to the network, the greeting of a new connection first.

        Returns:
            How many messages the broker has not acknowledged.
        """
        while self._in_flight and self._in_flight[0].mid in self._answers:
            self._settle(self._in_flight.popleft())
        if self._broke is not None:
            self._learn()
        if self.connected and self._greeted != self.sessions and self._may_connect():
            self._greeted = self.sessions
            for message in self._greeting():
                self._publish(Queued(message))
        while self.connected and self._queue and len(self._in_flight) < self._window:
            self._publish(self._queue.popleft())
        return self.waiting

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has everything; False where it has not within `timeout_s`."""
        give_up = time.monotonic() + timeout_s
        while self.pump() and time.monotonic() < give_up:
            time.sleep(0.005)
        return not self.waiting

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Tell the broker that these messages need not come again. Any thread may call it.

        Those of a connection that is gone are left out: the broker has sent the messages again, under new receipts. One
        that was queued while there is no connection would go out on the next, where it may be another message's number.
        """
        with self._breaks:
            if self.connected:
                self._client.acknowledge([each.mid for each in receipts if each.session == self.sessions and each.mid])

    @property
    def waiting(self) -> int:
        """Messages that the broker has not acknowledged."""
        return len(self._queue) + len(self._in_flight)

    @property
    def room(self) -> int:
        """Messages that may be handed to the network now; 0 while there is no connection."""
        return max(0, self._window - self.waiting) if self.connected else 0

    @property
    def complaint(self) -> str:
        """What is wrong with the connection, and the cure."""
        return f"broker {self._broker.host}:{self._broker.port} {self._problem}"

    def _publish(self, what: Queued) -> None:
        message = what.message
        if 0 < self._most < message.size:
            self.too_long += 1
            cure = "raise what it takes (max_packet_size, message_size_limit)"
            self._tell(message.topic, f"takes no {message.size} bytes: this message is left out; {cure}")
            self._settled(what.tag)
            return
        expiry = self._expires(what.expires_s) if what.expires_s else None
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain, expiry)
        if info.rc <= 0 or message.qos:
            self._in_flight.append(OnWire(info.mid, what))
        # Where the connection broke a moment ago paho keeps a message of QoS 1, and sends it when it is back; one of
        # QoS 0 is lost, as QoS 0 allows.

    def _expires(self, seconds: int) -> Properties | None:
        """What asks the broker to forget a message after some seconds; only MQTT 5 can."""
        if not self._speaks_five:
            return None
        if self._expiry[0] != seconds:
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.MessageExpiryInterval = seconds
            self._expiry = (seconds, properties)
        return self._expiry[1]

    def _settle(self, done: OnWire) -> None:
        """Count a message that the broker has answered."""
        reason = self._answers.pop(done.mid)
        self._settled(done.what.tag)
        if reason is None:
            self.sent, self.sent_bytes = self.sent + 1, self.sent_bytes + len(done.what.message.payload)
            return
        self.refused += 1
        self._tell(done.what.message.topic, f"refuses our message ({reason}); look into its access list and its log")

    def _tell(self, topic: str, what: str) -> None:
        """Log once for each topic what the broker does with its messages."""
        if topic not in self._told:
            self._told.add(topic)
            log.error("broker %s:%d: %s: %s", self._broker.host, self._broker.port, topic, what)

    def _learn(self) -> None:
        """Find out whether the last session ended because of the size of a message, which is then left out.

        MQTT 5 may say so. Otherwise it is the longest message that was not acknowledged, where two short sessions in a
        row ended with it. After a long session everything is tried again.
        """
        reason, self._broke = self._broke, None
        waiting = [sent.what for sent in self._in_flight if sent.mid not in self._answers]
        size = max((each.message.size for each in waiting), default=0)
        if not self._short or size <= _SMALL:
            self._suspect, self._most = 0, self._most if self._short else 0
            return
        known = reason is not None and reason.value == _TOO_LARGE
        guilty, self._suspect = known or size == self._suspect, size
        if not guilty:
            return
        self._most = size - 1
        # A new paho client, since this one would send it again and again.
        self._begin_anew(size)

    def _begin_anew(self, size: int = 0) -> None:
        """Replace the paho client. What waits is sent again, less what the greeting says anew, or has `size` bytes."""
        waiting = [sent.what for sent in self._in_flight if sent.mid not in self._answers]
        kept = [each for each in waiting if not each.message.retain and not 0 < size <= each.message.size]
        self._queue.extendleft(reversed(kept))
        for sent in self._in_flight:
            if sent.mid in self._answers:
                self._settle(sent)
            elif sent.what not in kept:
                self._settled(sent.what.tag)
        self._in_flight.clear()
        self._answers.clear()
        self._replace(self._client, five=self._speaks_five)

    # --- both threads: a new paho client

    @property
    def _speaks_five(self) -> bool:
        from paho.mqtt.enums import MQTTProtocolVersion

        return self._client.protocol == MQTTProtocolVersion.MQTTv5

    @property
    def _has_properties(self) -> bool:
        return bool(self._session_s or self._subscriptions)

    def _dial(self, five: bool, probe: bool = False) -> None:
        """Make a paho client that speaks MQTT 5 or 3.1.1, and let it connect in the background."""
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        from wire.mqtt_bulk import BulkClient

        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        name = self._client_id + ("p" if probe else "")
        clean = None if five else not self._session_s
        self._client = client = BulkClient(
            self._on_message, CallbackAPIVersion.VERSION2, name, clean_session=clean, protocol=version
        )
        self._probing = probe
        if self._broker.username:
            client.username_pw_set(self._broker.username, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None and not probe:
            client.will_set(*self._will[:4])
        client.max_inflight_messages_set(_UNACKNOWLEDGED)
        client.connect_timeout = _CONNECT_S
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_pre_connect = self._on_pre_connect
        client.on_connect_fail, client.on_subscribe = self._on_connect_fail, self._on_subscribe
        client.on_publish = self._on_publish
        _choose_pauses(client)
        only_five = self._properties() if five and not probe and self._has_properties else {}
        client.connect_async(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_S, **only_five)
        client.loop_start()

    def _properties(self) -> dict[str, Any]:
        """What only MQTT 5 can ask for: a kept session and a bound on the size of what we receive."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        properties.MaximumPacketSize = _MAX_PACKET
        properties.ReceiveMaximum = _UNREAD
        if not self._session_s:
            return {"properties": properties}
        properties.SessionExpiryInterval = self._session_s
        return {"properties": properties, "clean_start": False}

    # --- the network thread: record what happened and return

    def _on_pre_connect(self, client: mqtt.Client, data: Any) -> None:
        """Wait until a connection may be made; paho has no other way to say "not yet".

        A client that is closed meanwhile must not connect, since paho would send again what was on its way: an OSError.
        """
        while not self._may_connect():
            if self._closed or client is not self._client:
                raise ConnectionAbortedError("this client was closed before it might connect")
            time.sleep(_ASK_S)

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if client is not self._client:
            return
        if code.value == _UNSUPPORTED_VERSION:
            self._fall_back(client)
        elif code.is_failure:
            self._refused = True
            self._fail(f"refuses us: {code}; check [broker] username, password_file and the broker's access list")
        elif self._probing:
            self._replace(client, five=True)
        else:
            self._most = getattr(properties, "MaximumPacketSize", self._most)
            self._welcome(client)

    def _welcome(self, client: mqtt.Client) -> None:
        self._began = time.monotonic()
        self.sessions, self._refused = self.sessions + 1, False
        self._problem = _NO_SUBACK if self._subscriptions else ""
        self.connected = True
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        else:
            self._ready.set()
        again, level = (" again", logging.WARNING) if self.sessions > 1 else ("", logging.INFO)
        log.log(level, "broker %s:%d: connected%s", self._broker.host, self._broker.port, again)

    def _on_subscribe(self, client: mqtt.Client, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        refused = [
            f"{topic} ({code})" for (topic, _), code in zip(self._subscriptions, codes, strict=False) if code.is_failure
        ]
        if refused:
            self._problem = f"refuses our subscription to {', '.join(refused[:_SHOWN])}; let its access list read there"
            log.error("%s", self.complaint)
        if refused and not self._keep_trying:
            self._failed.set()
            return
        self._problem = self._problem if refused else ""
        self._ready.set()

    def _on_message(self, client: BulkClient, name: bytes, payload: bytes, retained: bool, number: int) -> None:
        if client is not self._client:  # a former one: the broker sends it again
            return
        try:
            topic = name.decode()
        except UnicodeDecodeError:  # from a broker that does not check it
            topic = ""
        if len(payload) > self._inbound_bytes:
            payload = payload[: self._inbound_bytes + 1]
        if self._hold is not None:
            self._hold(topic, payload, retained, Receipt(self.sessions, number))
            return
        if self._receive is not None:
            self._receive(topic, payload, retained)
        client.acknowledge([number] if number else [])

    def _on_publish(self, client: mqtt.Client, data: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        if client is self._client:
            self._answers[mid] = code if code.is_failure else None

    def _on_connect_fail(self, client: mqtt.Client, data: Any) -> None:
        if client is self._client and not self._closed:
            self._fail(f"{_UNREACHED} ({sys.exc_info()[1]})")  # paho calls this while it handles the exception

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if client is not self._client:
            return
        with self._breaks:
            was_connected, self.connected = self.connected, False
        if not was_connected and not self._refused:  # it closed the connection without a CONNACK
            self._fall_back(client)
        elif was_connected and code.is_failure:
            self._short = self._short + 1 if time.monotonic() - self._began < _SHORT_S else 0
            _choose_pauses(client, self._short)
            self._broke = code
            self._suspect_double(code)
            self._fail(f"has closed the connection, or it broke ({code})")

    def _suspect_double(self, code: ReasonCode) -> None:
        """Say once that another client may have our name: after the second takeover, or short session in a row.

        Brokers of MQTT 3.1.1, and some of MQTT 5, give no reason when they end a connection for that.
        """
        self._taken_over += code.value == _TAKEN_OVER
        if max(self._taken_over, self._short) == 2 and not self._doubled:
            self._doubled = True
            name = self._client_id
            log.error("connections as %s break at once: have two devices one key, or do two processes run?", name)

    def _fall_back(self, client: mqtt.Client) -> None:
        """Try MQTT 3.1.1, once; where the broker does not speak that either, only report it."""
        from paho.mqtt.enums import MQTTProtocolVersion

        if self.sessions or client.protocol == MQTTProtocolVersion.MQTTv311:
            self._fail(_NO_MQTT)
        else:
            self._replace(client, five=False)

    def _replace(self, client: mqtt.Client, five: bool) -> None:
        self._dial(five)
        _retire(client)

    def _fail(self, problem: str) -> None:
        """Remember what is wrong, and log it at most once a minute."""
        self._problem = problem
        self._failed.set()
        quiet = not (self._keep_trying or self.sessions)
        if quiet or time.monotonic() - self._logged_at < _LOG_EVERY_S:
            return
        self._logged_at = time.monotonic()
        waits = f", {len(self._queue)} messages wait" if self._queue else ""
        log.warning("%s; trying again%s", self.complaint, waits)


def _choose_pauses(client: mqtt.Client, short: int = 0) -> None:
    """Choose the bounds of the pauses between attempts at random, after `short` short sessions in a row.

    The next pause is then the lower bound.
    """
    first, most = random.uniform(0.5, 1.5) * 2 ** min(short, 5), random.uniform(15, 30)
    client.reconnect_delay_set(min(first, most), most)  # type: ignore[arg-type]  # floats work


def _retire(client: mqtt.Client) -> threading.Thread:
    """End a paho client without waiting for its thread, which may be connecting; returns the thread that waits."""
    client.disconnect()
    waiting = threading.Thread(target=_wait_for_end, args=(client,), name="mqtt-end", daemon=True)
    waiting.start()
    return waiting


def _wait_for_end(client: mqtt.Client) -> None:
    client.loop_stop()
    if (left := client.socket()) is not None:
        left.close()


def _require_paho() -> None:
    try:
        import paho.mqtt.client  # noqa: F401 - only whether it is there
    except ImportError as error:
        cure = "install it: pip install 'paho-mqtt>=2.1,<3' (it is in the extras `edge` and `cloud`)"
        raise BrokerError(f"paho-mqtt cannot be imported ({error}); {cure}") from error
