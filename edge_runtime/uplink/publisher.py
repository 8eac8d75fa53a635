"""What leaves the device, over MQTT: filling a message, and a publisher that never blocks the loop.

    release + charge --fill_message--> FeatureMessage --seal--> bytes --send--> bounded queue --paho--> broker

QoS 1, MQTT 5 or else 3.1.1, Last Will, retained state and certificate after every connection. While the broker is away
the queue keeps the newest messages and counts what it drops; a retry sends the same bytes. The loop's thread alone
publishes, paho's network thread alone talks to the socket.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_runtime.config import Config
from edge_runtime.gate.ledger import Charge
from wire.artifact.manifest import EngineManifest
from wire.errors import BrokerError, ConfigError
from wire.protocol.command import MAX_COMMAND
from wire.protocol.event import EventWindow
from wire.protocol.message import FLAG_SPENT, FeatureMessage, Verdict
from wire.protocol.topics import TOPICS, topic

__all__ = ["Publisher", "Release", "fill_message", "fill_verdict"]

log = logging.getLogger("veilsight.publisher")
_IN_FLIGHT = 64
_PATIENCE_S = 5.0
Release = npt.NDArray[np.int16]


def fill_message(
    boot_id: int, model_id: int, charge: Charge, z: Release, level: int = 0, flags: int = 0
) -> FeatureMessage:
    """A release as a message; z with the noise of `level`."""
    return FeatureMessage(boot_id, charge.slot, model_id, flags | (0 if charge.granted else FLAG_SPENT), z, level)


def fill_verdict(boot_id: int, manifest: EngineManifest, event: EventWindow, said: Mapping[str, float]) -> Verdict:
    """What the edge member said of an event, label -> probability; a sentence is the cloud's to write."""
    first, last, present = event.first_slot, event.last_slot, tuple(event.present.tolist())
    start_s, end_s = first * manifest.window.slot_s, (last + 1) * manifest.window.slot_s
    return Verdict(boot_id, first, last, manifest.model_id, "edge", present, said, "", start_s, end_s)


class Publisher:
    """One camera's connection, a context manager. state: the fields of the state topic but for status and reason.

    `reason` is what the last state will give. `commands` holds what came under `command`, the newest 8, where the
    configuration names an operator. Raises BrokerError or ConfigError where the configuration cannot be meant
    and, with `[broker] required`, BrokerError where nobody answers at the start. Else it tries for ever and says so.
    """

    def __init__(self, config: Config, state: Mapping[str, Any], certificate: bytes) -> None:
        url, site, camera = urlsplit(config.broker_url), config.device_site, config.device_camera
        match = re.fullmatch(r"mqtts?://(?:\[[0-9a-fA-F:.]+\]|[^@/:\[\]]+)(?::([0-9]{1,5}))?/?", config.broker_url)
        if match is None or int(match[1] or 1) not in range(1, 65536):
            cure = "use mqtt://host:port or mqtts://host:port, and username and password_file for the rest"
            raise ConfigError(f"[broker] url is not the address of a broker; {cure}")
        self._config, self._host, self._tls = config, url.hostname or "", url.scheme == "mqtts"
        self._port = url.port or (8883 if self._tls else 1883)
        self._name = f"veilsight-{site}-{camera}"  # fixed, so that our next connection ends a half-open one
        self._topics = {name: topic(site, camera, name) for name in TOPICS}
        self._state, self._certificate = state, certificate
        self._queue: deque[tuple[str, bytes]] = deque()
        self._in_flight: deque[mqtt.MQTTMessageInfo] = deque()
        self._sessions = self._greeted = 0  # connections made; the one that last got state and certificate
        self._connected, self.reason, self._refusal, self._told_at = False, "error", "", -1e9
        self.sent = self.bytes = self.dropped = 0
        self.commands: deque[bytes] = deque(maxlen=8)

    def _dial(self, version: MQTTProtocolVersion) -> None:
        """Make a client that speaks `version`, and let it connect in its own time."""
        config = self._config
        self._client = client = mqtt.Client(CallbackAPIVersion.VERSION2, self._name, protocol=version)
        try:
            if config.broker_username:
                file = config.broker_password_file
                client.username_pw_set(config.broker_username, Path(file).read_text().strip() if file else None)
            if self._tls:
                client.tls_set(config.broker_ca or None, config.broker_cert or None, config.broker_key or None)
        except (OSError, ValueError) as error:
            raise BrokerError(f"[broker] password_file, ca, cert or key cannot be used: {error}") from error
        client.will_set(self._topics["state"], self._state_bytes("offline", "connection lost"), qos=1, retain=True)
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_message = lambda _, __, message: self.commands.append(bytes(message.payload[: MAX_COMMAND + 1]))
        client.on_connect_fail, client.connect_timeout = self._complain, _PATIENCE_S
        client.connect_async(self._host, self._port, keepalive=30)
        client.loop_start()

    def __enter__(self) -> Publisher:
        self._dial(MQTTProtocolVersion.MQTTv5)
        give_up = time.monotonic() + _PATIENCE_S
        while self._config.broker_required and not self._connected:
            time.sleep(0.01)
            if time.monotonic() > give_up:
                self._client.disconnect()
                raise BrokerError(self._complaint())
        return self

    def __exit__(self, *_: object) -> None:
        if self._connected and self.flush(_PATIENCE_S):
            self._publish("state", self._state_bytes("offline", self.reason))
        if not self.flush(_PATIENCE_S if self._connected else 0.0):
            log.warning("%d messages were not delivered", len(self._queue) + len(self._in_flight))
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, name: str, payload: bytes) -> None:
        """Queue a payload for the topic `name`; drops the oldest where the queue is full. Never waits."""
        if len(self._queue) >= self._config.broker_queue:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append((name, payload))
        self._pump()

    def tell(self, **fields: Any) -> None:
        """Change fields of the state, and publish it where that is news."""
        if fields.items() <= self._state.items():
            return
        self._state = {**self._state, **fields}
        log.warning("the state says now: %s", fields)
        self.send("state", self._state_bytes("online", ""))

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has everything; False where it does not within `timeout_s`."""
        give_up = time.monotonic() + timeout_s
        while self._pump() and time.monotonic() < give_up:
            time.sleep(0.005)
        return not self._queue and not self._in_flight

    def figures(self) -> dict[str, float]:
        """Counters for the local page."""
        made = {"sent": self.sent, "bytes": self.bytes, "dropped": self.dropped, "connected": self._connected}
        return {**made, "queued": len(self._queue) + len(self._in_flight), "reconnects": max(0, self._sessions - 1)}

    def _pump(self) -> bool:
        """Hand paho what it may have in flight, after a new connection state and certificate first: is any left?"""
        while self._in_flight and self._in_flight[0].is_published():
            self._in_flight.popleft()
        if self._connected and self._greeted != self._sessions:
            self._greeted = self._sessions
            self._publish("state", self._state_bytes("online", ""))
            self._publish("certificate", self._certificate)
        while self._connected and self._queue and len(self._in_flight) < _IN_FLIGHT:
            self._publish(*self._queue.popleft())
        return bool(self._queue or self._in_flight)

    def _publish(self, name: str, payload: bytes) -> None:
        sent = self._client.publish(self._topics[name], payload, TOPICS[name].qos, TOPICS[name].retain)
        self._in_flight.append(sent)
        self.sent, self.bytes = self.sent + 1, self.bytes + len(payload)

    def _state_bytes(self, status: str, reason: str) -> bytes:
        return json.dumps({"status": status, "reason": reason, **self._state}).encode()

    # From here on: paho's network thread. Nothing waits and nothing is published here.
    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure:
            self._sessions, self._connected, self._refusal = self._sessions + 1, True, ""
            if self._config.privacy_operator_key:
                client.subscribe(self._topics["command"], TOPICS["command"].qos)
        elif reason.value == 132:  # unsupported protocol version
            self._speak_older(client)
        else:
            self._refusal = str(reason)

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is not self._client:
            return
        greeted, self._connected = self._connected, False
        if not greeted and not self._refusal:  # hung up on our greeting: a broker of before MQTT 5
            self._speak_older(client)
        elif reason.is_failure:
            self._complain(client)

    def _speak_older(self, client: mqtt.Client) -> None:
        """Go on with MQTT 3.1.1, once: a broker that closes its door on both is only complained about."""
        if self._sessions or client.protocol == MQTTProtocolVersion.MQTTv311:
            self._complain(client)
        elif client is self._client:
            self._dial(MQTTProtocolVersion.MQTTv311)
            client.disconnect()
            client.loop_stop()

    def _complaint(self) -> str:
        refusal = f"refuses us: {self._refusal}; check [broker] username and password_file" if self._refusal else ""
        return f"broker {self._host}:{self._port} {refusal or 'cannot be reached; start it, or correct [broker] url'}"

    def _complain(self, client: mqtt.Client, data: Any = None) -> None:
        """Say what is wrong, at most once a minute; paho doubles its pauses between two bounds, drawn anew here."""
        client.reconnect_delay_set(random.uniform(0.5, 1.5), random.uniform(15, 30))  # type: ignore[arg-type]  # floats do
        if time.monotonic() - self._told_at > 60.0:
            self._told_at = time.monotonic()
            log.warning("%s; trying again, %d messages wait", self._complaint(), len(self._queue))
