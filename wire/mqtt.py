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
import re
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from wire.errors import BrokerError, ConfigError
from wire.files import read_trusted
from wire.settings import FilePath

if TYPE_CHECKING:
    from paho.mqtt import client as mqtt
    from paho.mqtt.reasoncodes import ReasonCode

__all__ = ["BrokerConfig", "Message", "MqttClient", "Receipt"]

log = logging.getLogger("veilsight.mqtt")

_URL = re.compile(r"mqtts?://(?:\[[0-9a-fA-F:.]+\]|[^@/:\[\]]+)(?::([0-9]{1,5}))?/?")
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MAX_PACKET = 256 * 1024  # bytes; a broker that speaks MQTT 5 withholds longer messages
_UNACKNOWLEDGED = 20  # messages of QoS 1 on the wire at once: no common broker allows fewer
_UNREAD = 65_535  # messages that the broker may send before we acknowledge one (MQTT 5; its own bound may be lower)
_CONNECT_S = 5.0
_KEEPALIVE_S = 30
_LOG_EVERY_S = 60.0
_SHOWN = 3  # topics that a complaint names
_UNSUPPORTED_VERSION = 132  # reason code of CONNACK
_UNREACHED = "cannot be reached; start it, or correct [broker] url"
_NO_MQTT = "closes the connection; it speaks neither MQTT 5 nor 3.1.1"
_NO_SUBACK = "does not answer our subscriptions; look into the broker's log"


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Where the broker is, and how we log in.

    Attributes:
        url: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS.
        username: User name; "" for none.
        password_file: File whose first line is the password; "" for none.
        ca: PEM file of the authority that signed the broker's certificate; "" for the system's authorities.
        cert: PEM file of our own certificate, for mutual TLS.
        key: PEM file of that certificate's key.

    Raises:
        ConfigError: A value is malformed, or the values contradict each other.
    """

    url: str = "mqtt://127.0.0.1:1883"
    username: str = ""
    password_file: FilePath = ""
    ca: FilePath = ""
    cert: FilePath = ""
    key: FilePath = ""

    def __post_init__(self) -> None:
        if "@" in self.url:
            raise ConfigError(
                "url holds a user or a password; write mqtt://HOST[:PORT], and use username and password_file"
            )
        match = _URL.fullmatch(self.url)
        if match is None:
            raise ConfigError(f"url is {self.url!r}; write mqtt://HOST[:PORT], or mqtts://HOST[:PORT] for TLS")
        if match[1] and not 1 <= int(match[1]) <= 65535:
            raise ConfigError(f"url is {self.url!r}; write mqtt://HOST[:PORT], where ports are 1 to 65535")
        if bool(self.cert) != bool(self.key):
            raise ConfigError("cert and key belong together; give both, or neither")
        if (self.ca or self.cert) and not self.tls:
            raise ConfigError(f"ca, cert and key are for TLS, but url is {self.url!r}; write mqtts://")

    @property
    def host(self) -> str:
        """Name or address of the broker."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """TCP port; 1883, or 8883 with TLS, where the URL has none."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    def password(self) -> str | None:
        """Read the password, without the line's end; None where no file is named. Raises ConfigError."""
        if not self.password_file:
            return None
        try:
            return read_trusted(Path(self.password_file)).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"[broker] password_file {self.password_file} cannot be read ({error})") from error

    def tls_context(self) -> ssl.SSLContext | None:
        """Load the TLS files; None without TLS. Raises ConfigError."""
        if not self.tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and the host name
        try:
            for file in filter(None, (self.ca, self.cert, self.key)):
                read_trusted(Path(file))  # no symbolic link, nothing that others may write
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
            if self.ca:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
        except (OSError, ValueError) as error:
            raise ConfigError(f"[broker] ca, cert or key cannot be used ({error})") from error
        return context


class Message(NamedTuple):
    """A message to be published. retain: the broker keeps it for later subscribers."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Receipt(NamedTuple):
    """Names a message that came and is not acknowledged yet. session: the connection; mid: its number there."""

    session: int
    mid: int


class MqttClient:
    """A connection to one broker. `open` starts it, `close` ends it; between them it reconnects for ever.

    The pause before each new attempt doubles from 0.5 to 1.5 seconds up to 15 to 30; both bounds are chosen at random.

    Attributes:
        sessions: Connections made so far.
        connected: Whether the broker has accepted the current connection.
        sent: Messages handed to the network.
        sent_bytes: Bytes of their payloads.
        dropped: Messages dropped because the queue was full, the oldest first.
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
        keep_trying: bool = True,
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
            keep_trying: False: the first failure before the first connection ends `wait`.

        Raises:
            BrokerError: paho-mqtt is not installed.
        """
        _require_paho()
        self._broker, self._client_id = broker, client_id
        self._queue_size, self._window, self._session_s = queue, in_flight, session_s
        self._will, self._greeting = will, greeting
        self._subscriptions, self._receive, self._inbound_bytes = list(subscriptions), receive, inbound_bytes
        self._hold, self._keep_trying = hold, keep_trying
        self._queue: deque[Message] = deque()
        self._in_flight: deque[mqtt.MQTTMessageInfo] = deque()
        self._ready, self._failed = threading.Event(), threading.Event()
        self._problem, self._refused, self._logged_at = _UNREACHED, False, -1e9
        self._greeted = 0  # the session that was greeted last
        self.sessions = self.sent = self.sent_bytes = self.dropped = 0
        self.connected = False

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
        """Disconnect; what still waits is lost (see `flush`)."""
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, message: Message) -> None:
        """Queue a message and return at once; drops the oldest one where the queue is full."""
        if len(self._queue) >= self._queue_size:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(message)
        self.pump()

    def pump(self) -> int:
        """Hand what may be in flight to the network, the greeting of a new connection first.

        Returns:
            How many messages the broker has not acknowledged.
        """
        while self._in_flight and self._in_flight[0].is_published():
            self._in_flight.popleft()
        if self.connected and self._greeted != self.sessions:
            self._greeted = self.sessions
            for message in self._greeting():
                self._publish(message)
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

        Those of a connection that is gone are left out: the broker has sent the messages again, under new receipts.
        """
        for receipt in receipts:
            if receipt.session == self.sessions and receipt.mid:
                self._client.ack(receipt.mid, 1)

    @property
    def waiting(self) -> int:
        """Messages that the broker has not acknowledged."""
        return len(self._queue) + len(self._in_flight)

    @property
    def complaint(self) -> str:
        """What is wrong with the connection, and the cure."""
        return f"broker {self._broker.host}:{self._broker.port} {self._problem}"

    def _publish(self, message: Message) -> None:
        info = self._client.publish(*message)
        self.sent, self.sent_bytes = self.sent + 1, self.sent_bytes + len(message.payload)
        if info.rc <= 0:
            self._in_flight.append(info)
        # Otherwise the connection broke a moment ago. paho keeps a message of QoS 1 and sends it when it is back, but
        # `info` reports the error for ever; a message of QoS 0 is lost, as QoS 0 allows.

    # --- both threads: a new paho client

    @property
    def _has_properties(self) -> bool:
        return bool(self._session_s or self._subscriptions)

    def _dial(self, five: bool, probe: bool = False) -> None:
        """Make a paho client that speaks MQTT 5 or 3.1.1, and let it connect in the background."""
        from paho.mqtt import client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        name = self._client_id + ("p" if probe else "")
        clean = None if five else not self._session_s
        held = self._hold is not None
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, name, clean_session=clean, protocol=version, manual_ack=held
        )
        self._probing = probe
        if self._broker.username:
            client.username_pw_set(self._broker.username, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None and not probe:
            client.will_set(*self._will)
        client.max_inflight_messages_set(_UNACKNOWLEDGED)
        client.connect_timeout = _CONNECT_S
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_subscribe = self._on_connect_fail, self._on_subscribe
        client.on_message = self._on_message
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
            self._welcome(client)

    def _welcome(self, client: mqtt.Client) -> None:
        self.sessions, self._refused = self.sessions + 1, False
        self._problem = _NO_SUBACK if self._subscriptions else ""
        self.connected = True
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        else:
            self._ready.set()
        if self.sessions > 1:
            log.warning("broker %s:%d: connected again", self._broker.host, self._broker.port)

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

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        payload, receipt = bytes(message.payload[: self._inbound_bytes + 1]), Receipt(self.sessions, message.mid)
        try:
            topic = message.topic
        except UnicodeDecodeError:  # from a broker that does not check it
            topic = ""
        if self._hold is not None:
            self._hold(topic, payload, message.retain, receipt)
        elif self._receive is not None:
            self._receive(topic, payload, message.retain)

    def _on_connect_fail(self, client: mqtt.Client, data: Any) -> None:
        if client is self._client:
            self._fail(f"{_UNREACHED} ({sys.exc_info()[1]})")  # paho calls this while it handles the exception

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if client is not self._client:
            return
        was_connected, self.connected = self.connected, False
        if not was_connected and not self._refused:  # it closed the connection without a CONNACK
            self._fall_back(client)
        elif was_connected and code.is_failure:
            _choose_pauses(client)
            self._fail(f"has closed the connection, or it broke ({code})")

    def _fall_back(self, client: mqtt.Client) -> None:
        """Try MQTT 3.1.1, once; where the broker does not speak that either, only report it."""
        from paho.mqtt.enums import MQTTProtocolVersion

        if self.sessions or client.protocol == MQTTProtocolVersion.MQTTv311:
            self._fail(_NO_MQTT)
        else:
            self._replace(client, five=False)

    def _replace(self, client: mqtt.Client, five: bool) -> None:
        self._dial(five)
        client.disconnect()
        client.loop_stop()

    def _fail(self, problem: str) -> None:
        """Remember what is wrong, and log it at most once a minute."""
        self._problem = problem
        self._failed.set()
        quiet = not (self._keep_trying or self.sessions)
        if quiet or time.monotonic() - self._logged_at < _LOG_EVERY_S:
            return
        self._logged_at = time.monotonic()
        log.warning("%s; trying again, %d messages wait", self.complaint, len(self._queue))


def _choose_pauses(client: mqtt.Client) -> None:
    """Choose the bounds of the pauses between attempts at random; the next pause is then the lower bound."""
    client.reconnect_delay_set(random.uniform(0.5, 1.5), random.uniform(15, 30))  # type: ignore[arg-type]  # floats work


def _require_paho() -> None:
    try:
        import paho.mqtt.client  # noqa: F401 - only whether it is there
    except ImportError as error:
        cure = "install it: pip install 'paho-mqtt>=2.1,<3' (it is in the extras `edge` and `cloud`)"
        raise BrokerError(f"paho-mqtt cannot be imported ({error}); {cure}") from error
