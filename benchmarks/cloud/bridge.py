"""`python -m benchmarks.bridge`: releases that the bridge takes in and keeps, and verdicts that it makes, a second.

    signed releases of many cameras --> Mosquitto's queue --> bare paho, QoS 1, Ed25519 verified   (the peer)
                                                         `--> the bridge: intake; with verdicts; with the real member

All are read from a standing queue, so that the time is the reader's own; it begins with the first release. Intake
alone: the cameras have sent too few releases for an event. With verdicts: every further release makes one, of a member
that costs nothing, which is signed, stored and published. The store is SQLite with synced commits in a temporary
folder. Processor time is told beside: on a machine that others use it is the ratio that says something. Everything that
was sent must be read, and intake must be at least 0.8 of the bare client's.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.broker import Mosquitto, end
from benchmarks.harness import CHECKPOINT, add_checkpoint, add_engine, add_untimed, engine_folder
from benchmarks.runner import Benchmark, Report
from cloud_bridge.config import BridgeConfig, CameraConfig
from cloud_bridge.inference.member import FamilyMember, Member, Reading
from cloud_bridge.ingest.engines import Engine
from cloud_bridge.ingest.events import Event
from cloud_bridge.ingest.freshness import IngestRule
from cloud_bridge.models import Model, by_id
from cloud_bridge.service import Service
from cloud_bridge.store.database import StoreConfig
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from wire.artifact.manifest import EngineManifest
from wire.broker import BrokerConfig
from wire.errors import BrokerError
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage, coarse_time
from wire.protocol.topics import signed_context, topic

__all__ = ["COMMAND", "judge", "verdicts_per_s"]

_SITE = "site"
_PATIENCE_S = 300.0
_LEAST = 0.8  # of the bare client's rate


class _Nothing:
    """A member that costs nothing."""

    def __init__(self, labels: Sequence[str]) -> None:
        rest = 0.1 / (len(labels) - 1)
        self._reading = Reading({label: rest if n else 0.9 for n, label in enumerate(labels)})

    def read(self, events: Sequence[Event]) -> list[Reading]:
        return [self._reading] * len(events)

    def describe(self, events: Sequence[Event]) -> list[str]:
        return [""] * len(events)


class _Fleet:
    """Cameras with keys, and their releases: noise alone, in turns, as cameras send them."""

    def __init__(self, manifest: EngineManifest, cameras: int, slots: int) -> None:
        self.keys = {f"c{number}": DeviceKey(number.to_bytes(32, "big")) for number in range(1, cameras + 1)}
        self.manifest, self.slots = manifest, slots

    @property
    def count(self) -> int:
        return len(self.keys) * self.slots

    def config(self, port: int, folder: Path) -> BridgeConfig:
        return BridgeConfig(
            cameras=tuple(CameraConfig(_SITE, name, key.public.hex) for name, key in self.keys.items()),
            broker=BrokerConfig(f"mqtt://127.0.0.1:{port}"),
            ingest=IngestRule(burst=1e9, stale_after_s=1e9, shed_after_s=1e9),
        )

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """(topic, payload) of every release."""
        noise = np.random.default_rng(7).integers(-200, 200, (self.slots, self.manifest.n), np.int16)
        now_s = coarse_time(time.time())
        for slot in range(self.slots):
            for name, key in self.keys.items():
                made = FeatureMessage(1, slot, self.manifest.model_id, 0, noise[slot], 0, now_s)
                yield topic(_SITE, name, "features"), made.seal(key, _SITE, name)


@contextmanager
def _client(port: int, name: str, session_s: int = 3600) -> Iterator[mqtt.Client]:
    """A connected paho client whose session the broker keeps."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval, properties.ReceiveMaximum = session_s, 65_535
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    client.loop_start()
    try:
        yield client
    finally:
        end(client)


def _queue(port: int, fleet: _Fleet, readers: Sequence[str]) -> None:
    """Make a session for each reader, then publish everything into their queues."""
    topics = [(topic(_SITE, name, "features"), 1) for name in fleet.keys]
    for reader in readers:
        there = threading.Event()
        with _client(port, reader) as client:
            client.on_subscribe = lambda *_, there=there: there.set()
            client.subscribe(topics)
            if not there.wait(_PATIENCE_S):
                raise BrokerError("the broker does not answer a subscription")
    with _client(port, "fleet", 0) as client:
        for sent in [client.publish(name, payload, 1) for name, payload in fleet.messages()]:
            sent.wait_for_publish(_PATIENCE_S)


def _bare(port: int, fleet: _Fleet) -> tuple[float, float]:
    """Seconds, and those of the processor, in which a bare client reads and verifies everything."""
    known = {
        topic(_SITE, name, "features"): (key.public, signed_context("features", _SITE, name))
        for name, key in fleet.keys.items()
    }
    good, done, began_s = [0], threading.Event(), list[float]()

    def verify(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        if not began_s:
            began_s.append(time.perf_counter())
        public, context = known[message.topic]
        signed = pb.Signed.FromString(bytes(message.payload))
        good[0] += public.verify(signed.signature, context + signed.body)
        if good[0] == fleet.count:
            done.set()

    before_s = time.process_time()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "bare", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = verify
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval, properties.ReceiveMaximum = 3600, 65_535
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    client.loop_start()
    if not done.wait(_PATIENCE_S):
        raise BrokerError(f"the bare client got {good[0]} of {fleet.count} releases")
    took_s, worked_s = time.perf_counter() - began_s[0], time.process_time() - before_s
    end(client)
    return took_s, worked_s


def _ours(port: int, fleet: _Fleet, folder: Path, member: Member, key: DeviceKey) -> tuple[float, float]:
    """Seconds, and those of the processor, in which the bridge reads, keeps and acknowledges everything."""
    store, began_s, ended_s = Store.open(StoreConfig(), folder), list[float](), [0.0, 0.0]
    before_s = list[float]()
    models = by_id(Model(Engine(fleet.manifest), member))
    service = Service(fleet.config(port, folder), models, key, store, Timeline(io.StringIO()))
    give_up = time.monotonic() + _PATIENCE_S

    def stopped() -> bool:
        """Asked before the first batch, and after every commit."""
        if not before_s:
            before_s.append(time.process_time())
        if service.bridge.stages.came and not began_s:
            began_s.append(min(service.bridge.stages.came.values()))
        received = sum(session.received for session in service.bridge.sessions.values())
        over = received >= fleet.count or time.monotonic() > give_up
        ended_s[:] = (time.time(), time.process_time()) if over else (0.0, 0.0)
        return over

    stats = service.run(stopped)
    store.close()
    if stats["received"] < fleet.count or stats["refused"]:
        raise BrokerError(f"the bridge got {stats['received']} of {fleet.count} releases, refused: {stats['refused']}")
    return ended_s[0] - began_s[0], ended_s[1] - before_s[0]


@dataclass(frozen=True, slots=True)
class _Rates:
    """Releases a second, and microseconds of the processor for each; of the bare client 0 where it is not asked for."""

    bare: float
    ours: float
    bare_us: float
    ours_us: float

    @property
    def share(self) -> float:
        """The bridge's rate over the bare client's."""
        return self.ours / self.bare if self.bare else self.ours


def _rates(fleet: _Fleet, member: Member, bare: bool) -> _Rates:
    """What the bare client, where it is asked for, and the bridge come to."""
    key = DeviceKey(b"k" * 32)
    with tempfile.TemporaryDirectory(prefix="veilsight-bridge-") as name, Mosquitto(Path(name)) as broker:
        _queue(broker.port, fleet, [f"vsb-{key.public.hex[:16]}", *(["bare"] if bare else [])])
        peer_s, peer_cpu_s = _bare(broker.port, fleet) if bare else (0.0, 0.0)
        ours_s, ours_cpu_s = _ours(broker.port, fleet, Path(name), member, key)
    count = fleet.count
    return _Rates(count / peer_s if bare else 0.0, count / ours_s, 1e6 * peer_cpu_s / count, 1e6 * ours_cpu_s / count)


def verdicts_per_s(
    manifest: EngineManifest, checkpoint: Path, cameras: int = 50, slots: int = 60, repeats: int = 3
) -> float:
    """Verdicts a second that one bridge makes with the real member from a standing queue: the best of some times."""
    member, fleet = FamilyMember.load(checkpoint, manifest, 1), _Fleet(manifest, cameras, slots)
    best = max(_rates(fleet, member, False).ours for _ in range(repeats))
    return best * (slots - manifest.event_releases + 1) / slots


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    add_checkpoint(parser)
    parser.add_argument("--cameras", type=int, default=200, help="cameras (default 200)")
    parser.add_argument("--slots", type=int, default=60, help="releases of each, where verdicts are made (default 60)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; the median counts (default 3)")
    add_untimed(parser)


def judge(share: float) -> list[str]:
    """What must hold and does not. share: the bridge's intake over the bare client's."""
    return [] if share >= _LEAST else [f"intake is {share:.2f} of the bare client's; {_LEAST:g} at least"]


def _median(measure: Callable[[], _Rates], repeats: int) -> _Rates:
    found = sorted((measure() for _ in range(repeats)), key=lambda rates: rates.share)
    return found[len(found) // 2]


def _measure(args: argparse.Namespace) -> Report:
    manifest = EngineManifest.load(engine_folder(args))
    few = manifest.event_releases - 1
    nothing, real = _Nothing(manifest.labels), FamilyMember.load(args.checkpoint or CHECKPOINT, manifest, 1)
    many = _Fleet(manifest, args.cameras * args.slots // few, few)
    fleet, small = _Fleet(manifest, args.cameras, args.slots), _Fleet(manifest, max(1, args.cameras // 8), args.slots)
    intake = _median(lambda: _rates(many, nothing, True), args.repeats)
    told = _median(lambda: _rates(fleet, nothing, False), args.repeats)
    read = _median(lambda: _rates(small, real, False), args.repeats)
    share, bare = (args.slots - few) / args.slots, intake.bare
    rows = [
        ["what", "releases/s", "verdicts/s", "of bare", "CPU us"],
        ["bare paho, QoS 1, verified", f"{bare:.0f}", "", "1", f"{intake.bare_us:.0f}"],
        ["intake into the store", f"{intake.ours:.0f}", "", f"{intake.share:.2f}", f"{intake.ours_us:.0f}"],
        *(
            [name, f"{each.ours:.0f}", f"{each.ours * share:.0f}", f"{each.ours / bare:.2f}", f"{each.ours_us:.0f}"]
            for name, each in (("with a verdict each, no member", told), ("with the real member", read))
        ),
    ]
    figures = {
        "bare_per_s": bare,
        "intake_per_s": intake.ours,
        "with_verdicts_per_s": told.ours,
        "with_member_per_s": read.ours,
        "member_verdicts_per_s": read.ours * share,
        "bare_cpu_us": intake.bare_us,
        "intake_cpu_us": intake.ours_us,
        "with_member_cpu_us": read.ours_us,
        "cameras": len(many.keys),
        "messages": many.count,
    }
    notes = [
        f"{many.count} releases of {len(many.keys)} cameras; one process; load {os.getloadavg()[0]:.1f}",
        f"by processor time: {intake.bare_us / intake.ours_us:.2f} of bare",
    ]
    return Report(intake.share, figures, rows, notes, [] if args.untimed else judge(intake.share))


COMMAND = Benchmark(
    "bridge", __doc__, "a bare paho client that verifies the same releases at QoS 1", _options, _measure
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
