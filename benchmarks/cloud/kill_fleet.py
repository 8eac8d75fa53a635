"""The parts of `kills.py` that nobody doubts: cameras, a broker that keeps what it has on its disk, a subscriber.

Cameras wait for the acknowledgement of one release before they send the next, as a device's outbox does. Of every ten
releases five are noise alone, so that `blind` is raised and cleared at slots that are known.
"""

from __future__ import annotations

import hashlib
import json
import queue
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.broker import Mosquitto
from wire.artifact.manifest import EngineManifest
from wire.errors import BrokerError
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FLAG_SPENT, FeatureMessage, coarse_time
from wire.protocol.topics import PREFIX, topic

__all__ = ["CAMERAS", "SITE", "Fleet", "PersistentMosquitto", "Subscriber", "spent", "write_bridge"]

SITE = "ward"
CAMERAS = tuple(f"camera-{number}" for number in range(1, 7))

_PERIOD_S = 0.1  # between two releases of a camera
_SESSION_S = 3600
_WRITE_S = 60.0


def _key_of(camera: str) -> DeviceKey:
    """The key of a camera."""
    return DeviceKey(hashlib.sha256(camera.encode()).digest())


def spent(slot: int) -> bool:
    """Whether a camera's release for a slot is noise alone."""
    return slot // 5 % 2 == 1


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
        self._noise = np.random.default_rng(seed).integers(-150, 150, (97, manifest.n), np.int16)
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
        client.disconnect()
        client.loop_stop()

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
        self._client.disconnect()
        self._client.loop_stop()


def write_bridge(folder: Path, port: int, model: Mapping[str, object], url: str, shard: str) -> Path:
    """Write the file of a bridge that reads the fleet; every process of it uses the same. model: its section."""
    tables: Sequence[tuple[str, Mapping[str, object]]] = (
        ("[broker]", {"url": f"mqtt://127.0.0.1:{port}"}),
        ("[model]", model),
        ("[state]", {"dir": str(folder / "state")}),
        ("[store]", {"url": url}),
        ("[ingest]", {"max_age_s": 1e6, "stale_after_s": 1e6, "burst": 1e9, "shed_after_s": 1e6}),
        ("[run]", {"shard": shard}),
        *(("[[cameras]]", {"site": SITE, "camera": name, "public_key": _key_of(name).public.hex}) for name in CAMERAS),
    )
    lines = [f"{head}\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) for head, values in tables]
    file = folder / "bridge.toml"
    file.write_text("\n".join(lines) + "\n")
    return file
