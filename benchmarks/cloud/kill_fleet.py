"""The parts of `kills.py` that nobody doubts: cameras, a broker that keeps what it has, a subscriber, a nurse.

Cameras wait for the acknowledgement of one release before they send the next, as a device's outbox does. Of every ten
releases five are noise alone, so that `blind` is raised and cleared at slots that are known.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import queue
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.broker import Mosquitto, end
from cloud_bridge.alerts.rules import IN_A_ROW, AlertRule
from cloud_bridge.inference.member import Member
from cloud_bridge.ingest.events import EventReader, Release
from wire.artifact.manifest import EngineManifest
from wire.errors import BrokerError
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FLAG_SPENT, FeatureMessage, coarse_time
from wire.protocol.topics import PREFIX, topic

__all__ = [
    "CAMERAS",
    "NURSE",
    "SITE",
    "Fleet",
    "Nurse",
    "PersistentMosquitto",
    "Subscriber",
    "late_subscriber_s",
    "spent",
    "wavering",
    "write_bridge",
]

SITE = "ward"
CAMERAS = tuple(f"camera-{number}" for number in range(1, 7))
NURSE = "nurse"  # the name of her token

_PERIOD_S = 0.1  # between two releases of a camera
_SESSION_S = 3600
_WRITE_S = 60.0
_LOOK_S = 0.25  # between two alerts that the nurse has seen
_ANSWER_S = 5.0
_LATE_S = 60.0


def _key_of(camera: str) -> DeviceKey:
    """The key of a camera."""
    return DeviceKey(hashlib.sha256(camera.encode()).digest())


def spent(slot: int) -> bool:
    """Whether a camera's release for a slot is noise alone."""
    return slot // 5 % 2 == 1


def _noise(manifest: EngineManifest, seed: int) -> npt.NDArray[np.int16]:
    """What the cameras send, again and again, int16 (97, n)."""
    return np.random.default_rng(seed).integers(-150, 150, (97, manifest.n), np.int16)


def wavering(member: Member, manifest: EngineManifest, seed: int) -> AlertRule:
    """A rule by which the fleet's noise raises and clears risks often, as this member reads it."""
    reader = EventReader("", manifest.event_releases, manifest.tokens, manifest.width, manifest.weights)
    sent = [Release("", 1, slot, z, spent(slot), 0) for slot, z in enumerate(_noise(manifest, seed))]
    readings = member.read([event for release in sent for event in reader.push(release)])
    low, high = np.percentile([reading.probabilities[manifest.labels[1]] for reading in readings], [50, 70])
    return AlertRule(raise_at=round(float(high), 4), raise_for=2, clear_at=round(float(low), 4), clear_for=2)


class PersistentMosquitto(Mosquitto):
    """A Mosquitto that writes what it has to its disk once a second, and reads it at its start.

    With `autosave_on_changes` it would write all of it at every message: a backlog then grows for ever.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._disk = folder / "mosquitto.db"
        lines = ("user root", "persistence true", f"persistence_location {folder}/", "autosave_interval 1")
        with self._config.open("a") as file:
            file.write("\n".join((*lines, "")))

    def write(self) -> None:
        """Have it write what it has now, sessions and subscriptions among it. Raises BrokerError where it does not."""
        before, deadline = self._written(), time.monotonic() + _WRITE_S
        if self._process is not None:
            self._process.send_signal(signal.SIGUSR1)
        while self._written() == before:
            if time.monotonic() > deadline:
                raise BrokerError(f"the broker has not written {self._disk} for {_WRITE_S:.0f} s")
            time.sleep(0.02)

    def _written(self) -> int:
        return self._disk.stat().st_mtime_ns if self._disk.exists() else 0

    def kill(self) -> None:
        """Kill it: it writes nothing more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.stop()


def _client(port: int, name: str) -> mqtt.Client:
    """A client whose session outlives its connections, and the broker; it reconnects within a second."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
    client.reconnect_delay_set(min_delay=1, max_delay=1)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval = _SESSION_S
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    return client


class Fleet:
    """The cameras, each in a thread of its own; for a `with` block."""

    def __init__(self, port: int, manifest: EngineManifest, seed: int) -> None:
        self._port, self._manifest, self._over = port, manifest, threading.Event()
        self._noise = _noise(manifest, seed)
        self._acknowledged: dict[str, list[tuple[int, float]]] = {name: [] for name in CAMERAS}
        self._threads = list[threading.Thread]()

    def start(self) -> None:
        """Connect, and begin to publish."""
        for name in CAMERAS:
            connected = (name, _client(self._port, name))
            self._threads.append(threading.Thread(target=self._send, args=connected, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Publish no more; what was sent is acknowledged before this returns."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def acknowledged(self) -> Mapping[str, Sequence[int]]:
        """`site/camera` -> slots that the broker has acknowledged, in order."""
        return {f"{SITE}/{name}": [slot for slot, _ in each] for name, each in self._acknowledged.items()}

    def when(self) -> Mapping[tuple[str, int], float]:
        """(`site/camera`, slot) -> when it was acknowledged, seconds since 1970."""
        return {(f"{SITE}/{name}", slot): at for name, each in self._acknowledged.items() for slot, at in each}

    def _send(self, name: str, client: mqtt.Client) -> None:
        key, slot = _key_of(name), 0
        there = threading.Event()
        client.on_publish = lambda *_: there.set()
        client.loop_start()
        while not self._over.wait(_PERIOD_S):
            flags, z = FLAG_SPENT if spent(slot) else 0, self._noise[(slot * 7 + len(name)) % 97]
            made = FeatureMessage(1, slot, self._manifest.model_id, flags, z, 0, coarse_time(time.time()))
            there.clear()
            client.publish(topic(SITE, name, "features"), made.seal(key, SITE, name), 1)
            there.wait()  # while the broker is away, paho keeps it
            self._acknowledged[name].append((slot, time.time()))
            slot += 1
        end(client)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Subscriber:
    """Keeps what the cloud publishes; for a `with` block. Its session outlives the broker."""

    def __init__(self, port: int) -> None:
        self._client, self._got = _client(port, "subscriber"), queue.SimpleQueue[tuple[str, bytes]]()
        self._there = threading.Event()
        names = ("verdict/cloud", "alert", "alert/open")
        topics = [(topic(SITE, "+", name), 1) for name in names]
        self._client.on_message = lambda client, data, message: self._got.put((message.topic, bytes(message.payload)))
        self._client.on_subscribe = lambda *_: self._there.set()
        self._client.on_connect = lambda client, *_: client.subscribe(topics)
        self._kept = list[tuple[str, bytes]]()

    def heard(self, name: str) -> Mapping[str, Sequence[bytes]]:
        """`site/camera` -> payloads under the topic `name`, in the order in which they came."""
        while not self._got.empty():
            self._kept.append(self._got.get())
        found: dict[str, list[bytes]] = {}
        for where, payload in self._kept:
            site, camera, last = where.removeprefix(f"{PREFIX}/").split("/", 2)
            if last == name:
                found.setdefault(f"{site}/{camera}", []).append(payload)
        return found

    def __enter__(self) -> Subscriber:
        self._client.loop_start()
        self._there.wait(30.0)
        return self

    def __exit__(self, *_: object) -> None:
        end(self._client)


class Nurse:
    """Acknowledges alerts over the API of whichever bridge answers; for a `with` block.

    Attributes:
        seen: Ids of alerts whose acknowledgement a bridge has confirmed.
    """

    def __init__(self, ports: Sequence[int], token: str, seed: int) -> None:
        self._ports, self._token, self._rng = ports, token, random.Random(seed)
        self._over, self.seen = threading.Event(), list[str]()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            with suppress(OSError, http.client.HTTPException):  # that bridge is not there, or its store is not
                self._acknowledge(self._rng.choice(self._ports))

    def _acknowledge(self, port: int) -> None:
        new = [row for row in self._ask(port, "/v1/alerts?limit=20")["rows"] if not row["seen_by"]]
        if new:
            number = str(self._rng.choice(new)["id"])
            if self._ask(port, f"/v1/alerts/{number}/acknowledge", b"")["seen_by"] == NURSE:
                self.seen.append(number)

    def _ask(self, port: int, path: str, body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            refused.close()  # it holds the connection
            raise

    def stop(self) -> None:
        """Acknowledge no more."""
        self._over.set()
        self._thread.join()

    def __enter__(self) -> Nurse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def late_subscriber_s(port: int) -> float:
    """Seconds until a subscriber that was never there knows what is open of each camera, from before it connects."""
    missing, there = set(CAMERAS), threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def take(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        missing.discard(message.topic.split("/")[3])
        if not missing:
            there.set()

    client.on_message = take
    client.on_connect = lambda client, *_: client.subscribe(topic(SITE, "+", "alert/open"), 1)
    began_s = time.monotonic()
    client.connect("127.0.0.1", port)
    client.loop_start()
    known = there.wait(_LATE_S)
    took_s = time.monotonic() - began_s
    end(client)
    return took_s if known else math.inf


def write_bridge(
    file: Path, port: int, model: Mapping[str, object], url: str, shard: str, rule: AlertRule, tokens: Path, api: int
) -> Path:
    """Write the file of a bridge that reads the fleet. model: its section; api: the port, another for each process."""
    folder = file.parent
    tables: Sequence[tuple[str, Mapping[str, object]]] = (
        ("[broker]", {"url": f"mqtt://127.0.0.1:{port}"}),
        ("[model]", model),
        ("[state]", {"dir": str(folder / "state")}),
        ("[store]", {"url": url}),
        ("[ingest]", {"max_age_s": 1e6, "stale_after_s": 1e6, "burst": 1e9, "shed_after_s": 1e6}),
        ("[run]", {"shard": shard}),
        ("[alerts]", {name: getattr(rule, name) for name in IN_A_ROW}),
        ("[api]", {"listen": f"127.0.0.1:{api}", "tokens": str(tokens)}),
        *(("[[cameras]]", {"site": SITE, "camera": name, "public_key": _key_of(name).public.hex}) for name in CAMERAS),
    )
    lines = [f"{head}\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) for head, values in tables]
    file.write_text("\n".join(lines) + "\n")
    return file
