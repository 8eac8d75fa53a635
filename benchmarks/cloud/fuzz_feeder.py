"""The processes that send: hostile messages as fast as the bridge takes them, and beside them one genuine camera.

Fuzzer --QoS 0 and 1--> broker, at most `_AHEAD` messages before what the bridge has read
genuine camera --QoS 1, ten releases a second--> broker; what the broker has acknowledged must be in the store
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.broker import end
from benchmarks.cloud.fuzz_messages import READ, Fuzzer
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage, coarse_time
from wire.protocol.state import seal_state
from wire.protocol.topics import parse_topic, topic

__all__ = ["GENUINE", "LIARS", "OTHER", "SITE", "Feed", "feed", "keys"]

SITE, GENUINE, OTHER = "ward", "genuine", "quiet"
LIARS = ("liar-1", "liar-2", "liar-3", "liar-4")

_AHEAD = 1500
_STUCK_S = 2.0  # what the bridge has not read by then was withheld by the broker
_PERIOD_S = 0.1  # of the genuine camera's releases; its slots are longer, and [ingest] rate allows fifteen in one
_PATIENCE_S = 60.0


def keys() -> dict[str, DeviceKey]:
    """Camera -> its key."""
    return {name: DeviceKey(hashlib.sha256(name.encode()).digest()) for name in (GENUINE, OTHER, *LIARS)}


@dataclass
class Feed:
    """What the sender needs, and what it tells.

    Attributes:
        port: The broker's.
        seed: Of the hostile messages.
        engine: The engine folder, for the manifest.
        count: Hostile messages to be sent, at most.
        read: How many messages the bridge has read so far, shared.
        done: Set once all hostile messages are sent.
        stop: Ends the hostile messages.
        end: Ends the genuine camera, too.
        told: Receives one dict at the end: `kinds`, `sent` (on topics that are read), `acknowledged` (slots).
    """

    port: int
    seed: int
    engine: Path
    count: int
    read: Any
    done: Event
    stop: Event
    end: Event
    told: Queue[dict[str, Any]]
    _later: list[tuple[str, bytes]] = field(default_factory=list)


@contextmanager
def _client(port: int, name: str) -> Iterator[mqtt.Client]:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield client
    finally:
        end(client)


def feed(task: Feed) -> None:
    """Send until told to end."""
    manifest = EngineManifest.load(task.engine)
    fuzzer = Fuzzer(task.seed, manifest, SITE, [GENUINE, OTHER], {name: keys()[name] for name in LIARS})
    slots = list[int]()
    camera = threading.Thread(target=_genuine, args=(task, manifest, slots), daemon=True)
    camera.start()
    with _client(task.port, "hostile") as client:
        kinds, sent = _hostile(task, fuzzer, client)
        task.done.set()
    task.end.wait()
    camera.join(_PATIENCE_S)
    task.told.put({"kinds": dict(kinds), "sent": sent, "acknowledged": slots})


def _hostile(task: Feed, fuzzer: Fuzzer, client: mqtt.Client) -> tuple[Counter[str], int]:
    kinds, sent, behind = Counter[str](), 0, 0
    while not task.stop.is_set() and kinds.total() < task.count:
        while task._later:
            fuzzer.remember(*task._later.pop())
        made = fuzzer.next()
        client.publish(made.topic, made.payload, made.qos, made.retain)
        kinds[made.kind] += 1
        parsed = parse_topic(made.topic)
        sent += parsed is not None and parsed[2] in READ
        if sent - behind - task.read.value > _AHEAD:
            behind = _wait(task, sent, behind)
    return kinds, sent


def _wait(task: Feed, sent: int, behind: int) -> int:
    """Wait for the bridge; returns how many messages it will never get, as far as is known."""
    last, since = task.read.value, time.monotonic()
    while not task.stop.is_set():
        time.sleep(0.002)
        found = task.read.value
        if sent - behind - found <= _AHEAD:
            return behind
        if found != last:
            last, since = found, time.monotonic()
        elif time.monotonic() - since > _STUCK_S:
            return int(sent - found)
    return behind


def _genuine(task: Feed, manifest: EngineManifest, slots: list[int]) -> None:
    """Publish as a device does, and note each slot that the broker has acknowledged."""
    key, certificate = keys()[GENUINE], manifest.certificate().to_json().encode()
    noise = np.random.default_rng(task.seed).integers(-60, 60, (64, manifest.n), np.int16)
    state = seal_state(
        {
            "status": "online",
            "reason": "",
            "boot_id": 1,
            "count": 1,
            "certificate": hashlib.sha256(certificate).hexdigest(),
            "blind": False,
            "watching": True,
        },
        key,
        SITE,
        GENUINE,
    )
    with _client(task.port, "genuine") as client:
        for name, payload in (("state", state), ("certificate", certificate)):
            client.publish(topic(SITE, GENUINE, name), payload, 1, True).wait_for_publish(_PATIENCE_S)
            task._later.append((name, payload))
        slot, next_s = 0, time.monotonic()
        while not task.end.is_set():
            z, now_s = noise[slot % 64], coarse_time(time.time())
            made = FeatureMessage(1, slot, manifest.model_id, 0, z, manifest.level, now_s)
            payload = made.seal(key, SITE, GENUINE)
            sent = client.publish(topic(SITE, GENUINE, "features"), payload, 1)
            sent.wait_for_publish(_PATIENCE_S)
            if not sent.is_published():
                break
            slots.append(slot)
            task._later.append(("features", payload))
            slot, next_s = slot + 1, next_s + _PERIOD_S
            task.end.wait(max(0.0, next_s - time.monotonic()))
