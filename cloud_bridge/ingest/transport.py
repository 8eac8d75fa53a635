"""The only file that knows MQTT: a connection that comes back by itself, and the mailbox between its thread and ours.

    broker --paho's thread--> Mailbox.put (never waits) | Mailbox.take --our thread--> the bridge --publish--> broker

MQTT 5 where the broker speaks it, 3.1.1 else. The session outlives short absences, so the broker keeps what cameras
send meanwhile. There is no `$share`: one consumer per camera keeps its messages in order.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from cloud_bridge.config import BrokerConfig
from wire.errors import BrokerError, ConfigError
from wire.protocol.message import MAX_PAYLOAD

__all__ = ["Inbound", "Mailbox", "MqttTransport", "Publish", "Receive"]

_LOG = logging.getLogger("cloud_bridge")

_ANSWER_S = 10.0  # for the broker's first answer
_DRAIN_S = 5.0  # for the acknowledgements still open at the end
_SESSION_S = 3600  # the broker keeps our session (MQTT 5) this long
_MAX_PACKET = 256 * 1024
_MAX_QUEUED = 10_000
_WELCOME, _CLOSED, _UNSUPPORTED = "Success", "Closed", "Unsupported protocol version"

Publish = Callable[[str, bytes, int, bool], None]
"""(topic, payload, qos, retain): returns at once; delivery is the transport's work."""

Receive = Callable[[str, bytes, bool], None]
"""(topic, payload, retained): called on the network's thread; must not wait."""


class Inbound(NamedTuple):
    """A message as it came. camera: `site/camera`; name: last part of the topic; retained: it was there before us."""

    camera: str
    name: str
    payload: bytes
    retained: bool


class Mailbox:
    """A bounded lane for each camera: a flood on one lane drops that lane's oldest messages and no others."""

    def __init__(self, cameras: Iterable[str], depth: int = 512) -> None:
        self._lanes = {name: deque[Inbound]() for name in ("", *cameras)}
        self._depth = depth
        self._ready = threading.Condition()
        self.dropped: Counter[str] = Counter()

    def put(self, item: Inbound) -> None:
        """Leave a message; never waits. A payload longer than any message of ours is cut, and refused by its length."""
        name = item.camera if item.camera in self._lanes else ""
        lane = self._lanes[name]
        with self._ready:
            if len(lane) >= self._depth:
                lane.popleft()
                self.dropped[name] += 1
            lane.append(item._replace(payload=item.payload[: MAX_PAYLOAD + 1]))
            self._ready.notify()

    def take(self, timeout_s: float) -> list[Inbound]:
        """Everything that waits, camera by camera in order of arrival; empty where nothing came within `timeout_s`."""
        with self._ready:
            self._ready.wait_for(lambda: any(self._lanes.values()), timeout_s)
            items = [item for lane in self._lanes.values() for item in lane]
            for lane in self._lanes.values():
                lane.clear()
        return items


class MqttTransport:
    """One connection, as a context manager: entering connects and subscribes (BrokerError where that fails), leaving
    waits for open acknowledgements, a few seconds at most. A connection lost later is made again for ever, after delays
    that double from about a second up to half a minute, each client on a clock of its own.
    """

    def __init__(
        self, config: BrokerConfig, client_id: str, topics: Sequence[tuple[str, int]], receive: Receive
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._topics = list(topics)
        self._receive = receive
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._subscribed = threading.Event()
        self._acknowledged = threading.Condition()
        self._open = 0
        self.connections = 0
        self.unpublished = 0
        self._client = self._make(MQTTProtocolVersion.MQTTv5, probe=True)

    def __enter__(self) -> MqttTransport:
        # A broker of 3.1.1 can say no to MQTT 5 only while the properties are empty, hence the probe.
        five = self._connect(MQTTProtocolVersion.MQTTv5, probe=True)
        if five:
            self._client.disconnect()
            self._client.loop_stop()
        if not self._connect(MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311):
            raise BrokerError(f"{self._config.url}: closes the connection; it speaks neither MQTT 5 nor 3.1.1")
        if not self._subscribed.wait(_ANSWER_S):
            self._client.loop_stop()
            raise BrokerError(f"{self._config.url}: no answer to our subscriptions; look into the broker's log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._acknowledged:
            self._acknowledged.wait_for(lambda: self._open == 0, _DRAIN_S)
            self.unpublished += self._open
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Queue a message; while the broker is away it waits here, up to a bound; beyond, it is counted and lost."""
        with self._acknowledged:
            self._open += 1
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            with self._acknowledged:
                self._open -= 1
                self.unpublished += 1

    def _make(self, protocol: MQTTProtocolVersion, probe: bool) -> mqtt.Client:
        """A client of that version with our credentials and TLS, and our callbacks for the connection."""
        config, five = self._config, protocol == MQTTProtocolVersion.MQTTv5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            self._client_id + ("p" if probe else ""),
            clean_session=None if five else False,
            protocol=protocol,
        )
        client.max_queued_messages_set(_MAX_QUEUED)
        if config.username:
            client.username_pw_set(config.username, _password(config.password_file))
        if config.tls:
            try:
                client.tls_set(config.ca or None, config.cert or None, config.key or None)
            except (OSError, ValueError) as error:
                raise ConfigError(f"broker: ca, cert or key cannot be used ({error})") from error
        client.on_connect = self._on_probe if probe else self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _connect(self, protocol: MQTTProtocolVersion, probe: bool = False) -> bool:
        """Connect and wait for the broker's answer; False where it does not speak `protocol`. A probe leaves nothing
        behind and subscribes to nothing."""
        url = self._config.url
        self._client = self._make(protocol, probe)
        self._answers = queue.SimpleQueue()
        only_five: dict[str, Any] = {}
        if probe:
            only_five = {"clean_start": True}
        elif protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.SessionExpiryInterval = _SESSION_S
            properties.MaximumPacketSize = _MAX_PACKET
            only_five = {"clean_start": False, "properties": properties}
        try:
            self._client.connect(self._config.host, self._config.port, keepalive=30, **only_five)
        except OSError as error:
            raise BrokerError(f"{url}: cannot connect ({error}); is a broker running at that address?") from error
        self._client.loop_start()
        try:
            answer = self._answers.get(timeout=_ANSWER_S)
        except queue.Empty:
            answer = f"no answer in {_ANSWER_S:.0f} s"
        if answer == _WELCOME:
            return True
        self._client.loop_stop()
        if answer in (_CLOSED, _UNSUPPORTED):
            return False
        raise BrokerError(f"{url}: {answer}; check user, password and the broker's access list")

    # --- on the network's thread: note it down and return

    def _on_probe(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._answers.put(str(code) if code.is_failure else _WELCOME)

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if not code.is_failure:
            self.connections += 1
            client.subscribe(self._topics)
            if self.connections > 1:
                _LOG.warning("broker %s: connected again", self._config.url)
        if self.connections <= 1:
            self._answers.put(str(code) if code.is_failure else _WELCOME)

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        first = random.uniform(0.5, 1.5)
        client.reconnect_delay_set(first, 32 * first)  # type: ignore[arg-type]  # paho says int and only adds and compares
        if not self.connections:
            self._answers.put(_CLOSED)
        elif code.is_failure:
            _LOG.warning("broker %s: connection lost (%s), trying again", self._config.url, code)

    def _on_subscribe(self, client: mqtt.Client, data: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        for (topic, _), code in zip(self._topics, codes, strict=False):
            if code.is_failure:
                _LOG.error("broker %s: refuses our subscription to %s (%s)", self._config.url, topic, code)
        self._subscribed.set()

    def _on_publish(self, client: mqtt.Client, data: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        with self._acknowledged:
            self._open -= 1
            self._acknowledged.notify_all()

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._receive(message.topic, bytes(message.payload), message.retain)


def _password(file: str) -> str | None:
    """The password in `file`, without the line's end; None where no file is named."""
    if not file:
        return None
    try:
        return Path(file).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"broker.password_file {file}: {error}") from error
