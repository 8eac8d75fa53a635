"""What leaves the device, over MQTT: fills a message, and publishes without ever blocking the loop.

    release + charge --fill_message--> FeatureMessage --seal--> Sealed --send--> outbox --> MqttClient (wire/mqtt.py)
    fields of the state --update_state--> signed and counted here ---------------------------^

Everything is QoS 1, with a Last Will, and state and certificate are retained and sent after every connection. A release
is handed to the network at once where nothing is before it, and then written to the outbox until the broker has it.
What waited goes in order, the same bytes, at a pace; a new release then waits behind it, with its verdict.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.config import Config
from edge_runtime.gate.ledger import Charge
from edge_runtime.uplink.outbox import Bounds, Outbox, Parcel
from edge_runtime.uplink.pace import Pace
from wire.artifact.manifest import EngineManifest
from wire.broker import BrokerConfig
from wire.errors import BrokerError, ConfigError
from wire.mqtt import Message, MqttClient
from wire.protocol.command import Inbox
from wire.protocol.document import MAX_DOCUMENT
from wire.protocol.event import EventSpan
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.message import FLAG_SPENT, FeatureMessage, Sealed, Verdict
from wire.protocol.state import seal_state
from wire.protocol.topics import TOPICS, topic

__all__ = ["Publisher", "Release", "fill_message", "fill_verdict"]

log = logging.getLogger("veilsight.publisher")
_PATIENCE_S = 5.0
_FAREWELL_S = 1.2  # for what waits, and again for the last state: a stop ends in time, whatever the broker does
_IN_FLIGHT = 64  # messages handed to the network, at least
_MINUTE_S = 60
_CLOCK_SET_S = 60  # a wall clock that jumps by more was set
Release = npt.NDArray[np.int16]
"""A noised code, int16 (n,)."""


def fill_message(
    boot_id: int, model_id: int, charge: Charge, z: Release, level: int, flags: int, time_s: int
) -> FeatureMessage:
    """Make a message of a release; z carries the noise of `level`, time_s is `coarse_time` before the eye was asked."""
    flags |= 0 if charge.granted else FLAG_SPENT
    return FeatureMessage(boot_id, charge.slot, model_id, flags, z, level, time_s)


def fill_verdict(
    boot_id: int, manifest: EngineManifest, event: EventSpan, probabilities: Mapping[str, float], time_s: int
) -> Verdict:
    """Make the edge member's verdict on an event, from label -> probability; only the cloud writes a sentence.

    time_s: of the slot with which it is published, as in that slot's release.
    """
    first, last, present = event.first_slot, event.last_slot, event.present
    start_s, end_s = first * manifest.window.slot_s, (last + 1) * manifest.window.slot_s
    span = (boot_id, first, last, manifest.model_id)
    return Verdict(*span, "edge", present, probabilities, "", start_s, end_s, time_s=time_s)


class Publisher:
    """One camera's connection, as a context manager.

    Where `[broker] required` is set, entering waits for the broker a few seconds; otherwise the connection is made in
    the background, and tried again for ever.

    Attributes:
        reason: The reason in the last state message, which `__exit__` sends.
        commands: Verified commands that wait; none where the configuration names no operator.
    """

    def __init__(self, config: Config, key: DeviceKey, state: Mapping[str, Any], certificate: bytes) -> None:
        """Prepare the connection.

        Args:
            config: The device's configuration.
            key: Signs states.
            state: Fields of the state topic; the publisher itself writes status, reason, count and certificate.
            certificate: What is published under `certificate`.

        Raises:
            ConfigError: `[broker]` has a fault.
            BrokerError: paho-mqtt is not installed.
        """
        site, camera, pace = config.device_site, config.device_camera, config.outbox_replay_per_s
        self._required, self._certificate = config.broker_required, certificate
        self._seal, self._count = (key, site, camera), 0
        digest = hashlib.sha256(certificate).hexdigest()
        self._state: Mapping[str, Any] = {"blind": False, "watching": True, **state, "certificate": digest}
        self._began = time.monotonic()
        self._topics = {name: topic(site, camera, name) for name in TOPICS}
        operator = config.privacy_operator_key
        self.reason, self.commands = "error", Inbox(PublicKey.parse(operator) if operator else None, f"{site}/{camera}")
        bounds = Bounds(round(config.outbox_max_mb * 1e6), config.outbox_max_age_h * 3600, config.broker_queue)
        check = partial(_checked, key.public, site, camera)
        self.outbox, self._pace = Outbox(Path(config.device_state_dir) / "outbox", bounds, check), Pace(pace)
        self._client = MqttClient(
            _broker(config),
            f"veilsight-{site}-{camera}-{key.public.hex[:8]}",  # devices of one name do not end each other's connection
            in_flight=max(_IN_FLIGHT, round(4 * pace)),
            will=self._message("state", self._state_bytes("offline", "connection lost")),  # count 0
            greeting=self._birth,
            subscriptions=[(self._topics["command"], TOPICS["command"].qos)] if operator else [],
            receive=lambda _topic, payload, _retained: self.commands.put(payload),
            inbound_bytes=MAX_DOCUMENT,
            settled=self._settled,
        )

    def __enter__(self) -> Publisher:
        self._client.open()
        if self._required and not self._client.wait(_PATIENCE_S):
            self._client.close()
            self.outbox.close()
            raise BrokerError(self._client.complaint)
        return self

    def __exit__(self, *_: object) -> None:
        client = self._client
        if client.connected:
            self.flush(_FAREWELL_S)  # what still waits is sent after the next start
            client.send(self._message("state", self._state_bytes("offline", self.reason)))
        if not client.flush(_FAREWELL_S if client.connected else 0.0) or self.outbox.waiting:
            log.warning("%d messages are not delivered; those on disk wait for the next start", self.outbox.waiting)
        client.close()
        self.outbox.close()

    def send(self, name: str, message: Sealed) -> None:
        """Send a sealed message to the topic `name`: now, or later where others wait. Never waits for the network."""
        self.outbox.put(name, message)
        if name == "features":
            self._pace.add()
        self._feed()
        self.outbox.save()

    def _feed(self) -> None:
        """Hand over what may go now, in order: as many releases as the pace allows, each with its verdict."""
        client, outbox, pace, now_s = self._client, self.outbox, self._pace, time.monotonic()
        client.pump()
        if not client.connected:
            pace.rest(now_s)
            return
        pace.look(now_s)
        while client.room and (name := outbox.name):
            if name == "features" and not pace.take():
                return
            parcel = outbox.take()
            if parcel is not None:
                self._hand_over(parcel)
        if not outbox.behind:
            pace.rest(now_s)

    def _hand_over(self, parcel: Parcel) -> None:
        """Give a parcel to the network. The broker may forget it when it is too old, in whole minutes."""
        left_s = max(_MINUTE_S, int(parcel.left_s) // _MINUTE_S * _MINUTE_S)
        self._client.send(self._message(parcel.name, parcel.message), parcel.number, left_s)

    def _settled(self, number: int) -> None:
        if number >= 0:
            self.outbox.settle(number)

    def update_state(self, **fields: Any) -> None:
        """Set fields of the state, and publish it if one of them has changed, or if the wall clock was set."""
        started_at = round(time.time() - (time.monotonic() - self._began))
        if abs(started_at - self._state.get("started_at", started_at)) > _CLOCK_SET_S:
            fields["started_at"] = started_at
        if fields.items() <= self._state.items():
            return
        self._state = {**self._state, **fields}
        log.warning("state changed: %s", fields)
        self._client.send(self._message("state", self._state_bytes("online", "")))

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has everything; False where it has not within `timeout_s`."""
        give_up = time.monotonic() + timeout_s
        while True:
            self._feed()
            left_s = give_up - time.monotonic()
            done = self._client.flush(min(0.05, max(0.0, left_s))) and not self.outbox.waiting
            if done or left_s <= 0:
                self.outbox.save()
                return done

    def figures(self) -> dict[str, float]:
        """Counters for the local page."""
        client = self._client
        return {
            "sent": client.sent,
            "bytes": client.sent_bytes,
            "dropped": client.dropped,
            "refused": client.refused,
            "too_long": client.too_long,
            "connected": client.connected,
            "queued": client.waiting,
            "reconnects": max(0, client.sessions - 1),
            "commands_dropped": self.commands.dropped,
        }

    def _birth(self) -> list[Message]:
        """The first messages of every connection."""
        return [
            self._message("state", self._state_bytes("online", "")),
            self._message("certificate", self._certificate),
        ]

    def _message(self, name: str, payload: bytes) -> Message:
        return Message(self._topics[name], payload, TOPICS[name].qos, TOPICS[name].retain)

    def _state_bytes(self, status: str, reason: str) -> bytes:
        """Sign the state; one of a larger count is newer."""
        fields = {"status": status, "reason": reason, "count": self._count, **self._state}
        self._count += 1
        return seal_state(fields, *self._seal)


def _checked(public: PublicKey, site: str, camera: str, name: str, payload: bytes) -> Sealed:
    """A payload that was on disk, where this device signed it for the topic `name`. Raises MessageError."""
    return Sealed.checked(name.partition("/")[0], payload, public, site, camera)


def _broker(config: Config) -> BrokerConfig:
    """The `[broker]` section as the client wants it. Raises ConfigError."""
    names = ("url", "username", "password_file", "ca", "cert", "key")
    try:
        return BrokerConfig(**{name: getattr(config, f"broker_{name}") for name in names})
    except ConfigError as error:
        raise ConfigError(f"[broker] {error}") from error
