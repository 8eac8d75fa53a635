"""What a subscriber hears of a run: every MQTT message as it came, and one camera's messages opened and verified.

broker --veilsight/#--> Listener: Records  --hear, with the keys of their signers--> Heard
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.broker import Broker, end
from wire.artifact.manifest import EngineManifest
from wire.errors import BrokerError, MessageError
from wire.protocol.keys import PublicKey
from wire.protocol.message import Alert, FeatureMessage, Verdict, open_alert, open_features, open_verdict
from wire.protocol.state import open_state
from wire.protocol.topics import parse_topic

__all__ = ["Heard", "Listener", "Record", "hear"]


@dataclass(frozen=True, slots=True)
class Record:
    """One MQTT message as it came. at: seconds on this machine's wall clock, read in the network thread."""

    topic: str
    payload: bytes
    at: float
    retained: bool


class Listener:
    """Keeps every message under `veilsight/#`; subscribes again when the broker comes back."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._news = threading.Condition()
        self._records: list[Record] = []
        self._subscribed = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        client.reconnect_delay_set(min_delay=1, max_delay=1)
        client.on_connect = lambda c, *_: c.subscribe("veilsight/#", qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._keep
        self._client = client

    def _keep(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        record = Record(message.topic, bytes(message.payload), time.time(), message.retain)
        with self._news:
            self._records.append(record)
            self._news.notify_all()

    def records(self, start: int = 0) -> list[Record]:
        """All messages so far, from number `start` on, in the order they came."""
        with self._news:
            return self._records[start:]

    def wait_for(self, condition: Callable[[list[Record]], bool], seconds: float) -> bool:
        """Wait until `condition` holds of all messages so far; False when `seconds` pass first."""
        deadline = time.monotonic() + seconds
        with self._news:
            while not condition(self._records):
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(timeout=left):
                    return condition(self._records)
        return True

    def wait_more(self, count: int, seconds: float) -> None:
        """Return when there are more than `count` messages, or after `seconds`."""
        with self._news:
            if len(self._records) <= count:
                self._news.wait(timeout=seconds)

    def __enter__(self) -> Listener:
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        if not self._subscribed.wait(timeout=10):
            self._client.loop_stop()
            raise BrokerError("the broker accepted no subscription within 10 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._client)


@dataclass(frozen=True, slots=True)
class Heard:
    """One camera's messages, opened and verified; each with the second it came (wall clock)."""

    features: list[tuple[float, FeatureMessage]]
    verdicts: list[tuple[float, Verdict]]
    alerts: list[tuple[float, Alert]]
    states: list[tuple[float, dict[str, Any]]]
    refused: list[str]

    @property
    def boot_id(self) -> int | None:
        """The boot that the camera's last state names; None before any."""
        return int(self.states[-1][1]["boot_id"]) if self.states else None

    def of(self, member: str) -> list[tuple[float, Verdict]]:
        """Verdicts of `edge` or `cloud`, in slot order."""
        return sorted((v for v in self.verdicts if v[1].member == member), key=lambda v: v[1].last_slot)


def hear(
    records: Iterable[Record], camera: str, manifest: EngineManifest, edge: PublicKey, cloud: PublicKey | None
) -> Heard:
    """Open every message of `camera` with its signer's key; what does not open is named in `refused`."""
    heard = Heard([], [], [], [], [])
    for record in records:
        parsed = parse_topic(record.topic)
        if parsed is None or parsed[1] != camera or not record.payload:
            continue
        try:
            _open_into(heard, parsed, record, manifest, edge, cloud)
        except MessageError as error:
            heard.refused.append(f"{record.topic}: {error}")
    return heard


def _open_into(
    heard: Heard,
    where: tuple[str, str, str],
    record: Record,
    manifest: EngineManifest,
    edge: PublicKey,
    cloud: PublicKey | None,
) -> None:
    site, camera, name = where
    model, event = manifest.model_id, (manifest.model_id, manifest.event_releases)
    if name == "features":
        read = open_features(record.payload, edge, site, camera, manifest.n, model, len(manifest.sigmas))
        heard.features.append((record.at, read))
    elif name == "verdict/edge":
        heard.verdicts.append((record.at, open_verdict(record.payload, edge, site, camera, *event)))
    elif name == "state":
        heard.states.append((record.at, dict(open_state(record.payload, edge, site, camera).fields)))
    elif cloud is not None and name == "verdict/cloud":
        heard.verdicts.append((record.at, open_verdict(record.payload, cloud, site, camera, *event)))
    elif cloud is not None and name == "alert":
        heard.alerts.append((record.at, open_alert(record.payload, cloud, site, camera, model)))
