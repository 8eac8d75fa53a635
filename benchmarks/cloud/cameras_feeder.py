"""The cameras of `cameras.py`, a process of their own: it publishes releases on time, and times their verdicts.

    seal all --> "sending" --> a release of each camera a second, spread over it --> the last verdicts --> JSON
    --flood RATE: one camera more, which sends as fast as that; --stranger: in the name of the first, not signed by it

What is sent is whole packets, made before: the feeder takes little of the processors that it measures.
`python -m benchmarks.cloud.cameras_feeder PORT CAMERAS SECONDS ENGINE OUT.json`
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.broker import end
from benchmarks.runner import percentiles
from wire.artifact.manifest import EngineManifest
from wire.errors import BrokerError
from wire.mqtt_bulk import BulkClient
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage, coarse_time
from wire.protocol.topics import topic

__all__ = ["SITE", "key_of", "main"]

SITE = "ward"

_QUIET_S = 10.0  # without a verdict, after which no more are waited for
_PATIENCE_S = 30.0
_STEP_S = 0.002  # between two writes
_CONNECT, _PUBLISH_1 = 0x10, 0x32
_ACCEPTED = b"\x20\x02\x00\x00"


def key_of(number: int) -> DeviceKey:
    """The key of a camera."""
    return DeviceKey((number + 1).to_bytes(32, "big"))


def _packet(kind: int, content: bytes) -> bytes:
    """An MQTT packet."""
    length, left = bytearray(), len(content)
    while True:
        left, byte = left >> 7, left & 127
        length.append(byte | 128 if left else byte)
        if not left:
            return bytes([kind]) + bytes(length) + content


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _publish(name: str, payload: bytes, number: int) -> bytes:
    """A PUBLISH at QoS 1 of MQTT 3.1.1."""
    return _packet(_PUBLISH_1, _text(name) + (number % 65_535 + 1).to_bytes(2, "big") + payload)


class _Sender:
    """A connection to the broker that sends whole packets, and forgets what the broker answers."""

    def __init__(self, port: int, name: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_packet(_CONNECT, b"\x00\x04MQTT\x04\x02\x00\x00" + _text(name)))
        if self._socket.recv(4) != _ACCEPTED:
            raise BrokerError("the broker does not accept the cameras")
        threading.Thread(target=self._forget, daemon=True).start()

    def _forget(self) -> None:
        while self._socket.recv(64 * 1024):
            pass

    def send(self, packets: Sequence[bytes]) -> None:
        """Send; waits while the broker takes no more."""
        self._socket.sendall(b"".join(packets))


class _Listener:
    """Takes verdicts: how long after its release each came."""

    def __init__(self, port: int) -> None:
        self.sent_s, self.took_ms, self.last_s = dict[tuple[bytes, int], float](), list[float](), 0.0
        self._there = threading.Event()
        self._client = BulkClient(
            self._take, CallbackAPIVersion.VERSION2, "listener", protocol=MQTTProtocolVersion.MQTTv311
        )
        self._client.on_subscribe = lambda *_: self._there.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(topic(SITE, "+", "verdict/cloud"), 0)
        if not self._there.wait(_PATIENCE_S):
            raise BrokerError("the broker does not answer a subscription")

    def _take(self, client: BulkClient, name: bytes, payload: bytes, retained: bool, number: int) -> None:
        came_s = time.perf_counter()
        verdict = pb.Verdict.FromString(pb.Signed.FromString(payload).body)
        sent_s = self.sent_s.pop((name.split(b"/")[3], verdict.last_slot), None)
        if sent_s is not None:
            self.took_ms.append(1000.0 * (came_s - sent_s))
            self.last_s = came_s

    def close(self) -> None:
        end(self._client)


def _sealed(manifest: EngineManifest, cameras: int, slots: int) -> list[list[bytes]]:
    """Slot -> the payload of each camera: noise alone."""
    noise = np.random.default_rng(7).integers(-200, 200, (slots, manifest.n), np.int16)
    keys, now_s = [key_of(number) for number in range(cameras)], coarse_time(time.time())
    return [
        [
            FeatureMessage(1, slot, manifest.model_id, 0, noise[slot], 0, now_s).seal(key, SITE, f"c{number}")
            for number, key in enumerate(keys)
        ]
        for slot in range(slots)
    ]


def _flood(manifest: EngineManifest, camera: int, key: DeviceKey, count: int) -> list[bytes]:
    """Packets under the name of one camera, signed by `key`."""
    z, now_s, name = np.zeros(manifest.n, np.int16), coarse_time(time.time()), f"c{camera}"
    made = [FeatureMessage(1, slot, manifest.model_id, 0, z, 0, now_s).seal(key, SITE, name) for slot in range(count)]
    return [_publish(topic(SITE, name, "features"), payload, number) for number, payload in enumerate(made)]


def _pour(port: int, packets: Sequence[bytes], rate: int, over: threading.Event) -> None:
    """Send a flood, from a thread of its own, until it is over."""
    sender, began_s, done = _Sender(port, "flood"), time.perf_counter(), 0
    while done < len(packets) and not over.wait(_STEP_S):
        due = min(len(packets), int(rate * (time.perf_counter() - began_s)))
        sender.send(packets[done:due])
        done = due


def _send(port: int, packets: Sequence[bytes], cameras: int, first: int, listener: _Listener) -> tuple[float, float]:
    """Send every camera's releases on time; returns how long it took, and how late it was at most, seconds."""
    sender, began_s, late_s, done = _Sender(port, "fleet"), time.perf_counter() + 0.1, 0.0, 0
    while done < len(packets):
        now_s = time.perf_counter()
        due = min(len(packets), int(cameras * (now_s - began_s)) + 1)
        if due <= done:
            time.sleep(_STEP_S)
            continue
        late_s = max(late_s, now_s - began_s - done / cameras)
        for index in range(max(done, first * cameras), due):
            listener.sent_s[(b"c%d" % (index % cameras), index // cameras)] = now_s
        sender.send(packets[done:due])
        done = due
    return time.perf_counter() - began_s, late_s


def _told(
    listener: _Listener, sent: tuple[int, int, int], took_s: float, answered_s: float, late_s: float
) -> dict[str, float]:
    """The figures. sent: cameras, slots of each, and the first slot that has a verdict."""
    cameras, seconds, first = sent
    found = percentiles(listener.took_ms) or {"p50": float("nan"), "p99": float("nan")}
    return {
        "sent_per_s": cameras * seconds / took_s,
        "verdicts_per_s": len(listener.took_ms) / max(1.0, answered_s - first),
        "missing": len(listener.sent_s),
        "without_newest": sum(slot == seconds - 1 for _, slot in listener.sent_s),
        "p50_ms": found["p50"],
        "p99_ms": found["p99"],
        "most_ms": max(listener.took_ms, default=float("nan")),
        "late_ms": 1000.0 * late_s,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Send and listen; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cloud.cameras_feeder", description=__doc__)
    for name in ("port", "cameras", "seconds"):
        parser.add_argument(name, type=int)
    for name in ("engine", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--flood", type=int, default=0)
    parser.add_argument("--stranger", action="store_true")
    args = parser.parse_args(argv)
    port, cameras, seconds = args.port, args.cameras, args.seconds
    manifest = EngineManifest.load(args.engine)
    first = manifest.event_releases - 1
    topics = [topic(SITE, f"c{n}", "features") for n in range(cameras)]
    packets = [
        _publish(topics[number], payload, slot * cameras + number)
        for slot, row in enumerate(_sealed(manifest, cameras, seconds))
        for number, payload in enumerate(row)
    ]
    camera, key = (0, key_of(cameras + 1)) if args.stranger else (cameras, key_of(cameras))
    flood = _flood(manifest, camera, key, args.flood * seconds)
    listener, over = _Listener(port), threading.Event()
    print("sending", flush=True)
    pouring = threading.Thread(target=_pour, args=(port, flood, args.flood, over))
    pouring.start()
    took_s, late_s = _send(port, packets, cameras, first, listener)
    over.set()
    pouring.join()
    sent_s = time.perf_counter()
    while listener.sent_s and time.perf_counter() - max(listener.last_s, sent_s) < _QUIET_S:
        time.sleep(0.05)
    listener.close()
    answered_s = took_s + max(0.0, listener.last_s - sent_s)
    args.out.write_text(json.dumps(_told(listener, (cameras, seconds, first), took_s, answered_s, late_s)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
