"""What is sent again and when: in order, at a pace, and a function of the connection and the clock alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.store.records import CameraRecord
from edge_runtime.config import load_config
from edge_runtime.uplink import publisher as publisher_module
from edge_runtime.uplink.pace import Pace
from edge_runtime.uplink.publisher import Publisher
from edge_runtime.uplink.segment import Stamp
from tests.support.engine_factory import make_edge_config, make_engine
from wire.mqtt import Message
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage, Sealed, Verdict

KEY = DeviceKey(b"d" * 32)
PER_S = 5


class Network:
    """In place of `MqttClient`: a connection that a test makes and breaks; it notes what is sent, and when."""

    def __init__(self, *_: Any, settled: Callable[[int], None], in_flight: int = 64, **__: Any) -> None:
        self.connected, self.now_s, self.settled, self.most = True, 1000.0, settled, in_flight
        self.sent: list[tuple[float, Message]] = []
        self.shown: list[tuple[float, str, int, int, int]] = []
        self.open_: list[int] = []
        self.sessions = self.sent_bytes = self.dropped = self.refused = self.too_long = 0

    @property
    def waiting(self) -> int:
        return len(self.open_)

    @property
    def room(self) -> int:
        return self.most - len(self.open_) if self.connected else 0

    def send(self, message: Message, tag: int = -1, expires_s: int = 0) -> None:
        self.sent.append((self.now_s, message))
        self.shown.append((self.now_s, message.topic, len(message.payload), expires_s, tag))
        self.open_.append(tag)

    def pump(self) -> int:
        while self.connected and self.open_:
            self.settled(self.open_.pop(0))
        return len(self.open_)

    def flush(self, timeout_s: float) -> bool:
        self.now_s += timeout_s
        return not self.pump()

    def close(self) -> None:
        pass

    def features(self) -> list[tuple[float, bytes]]:
        return [(at, message.payload) for at, message in self.sent if message.topic.endswith("/features")]


def publisher_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Publisher, Network]:
    monkeypatch.setattr(publisher_module, "MqttClient", Network)
    config = load_config(make_edge_config(folder, engine="/none", outbox={"replay_per_s": float(PER_S)}))
    publisher = Publisher(config, KEY, {"boot_id": 1}, b"c")
    network: Any = publisher._client
    monkeypatch.setattr(time, "monotonic", lambda: network.now_s)
    publisher.outbox._now = lambda: Stamp(int(network.now_s), 0)
    return publisher, network


def play(
    publisher: Publisher, network: Network, away: Sequence[bool], contents: Callable[[int], tuple[Sealed, Sealed]]
) -> None:
    """A slot a second; `away` says whether the broker is, slot by slot."""
    for slot, gone in enumerate(away):
        network.now_s, network.connected = 1001.0 + slot, not gone
        for name, message in zip(("features", "verdict/edge"), contents(slot), strict=True):
            publisher.send(name, message)


def scene(seed: int) -> Callable[[int], tuple[Sealed, Sealed]]:
    """Releases and verdicts of another scene for each seed."""
    rng = np.random.default_rng(seed)

    def contents(slot: int) -> tuple[Sealed, Sealed]:
        z = rng.integers(-9000, 9000, 64).astype(np.int16)
        p = float(rng.uniform())
        said = Verdict(1, slot, slot + 7, 2, "edge", (True,) * 8, {"normal": p, "fall": 1 - p}, "", 0.0, 8.0)
        return FeatureMessage(1, slot, 2, 0, z).seal(KEY, "lab", "door"), said.seal(KEY, "lab", "door")

    return contents


def outages(seed: int, slots: int = 300) -> list[bool]:
    """A connection that comes and goes."""
    rng, away = random.Random(seed), list[bool]()
    while len(away) < slots:
        away += [False] * rng.randrange(1, 60) + [True] * rng.randrange(1, 60)
    return [*away[:slots], *[False] * 200]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_sent_and_when_depends_on_the_connection_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Two scenes, one connection: number, topic, size, expiry and time of every message are the same."""
    seen = []
    for each in (0, 1):
        publisher, network = publisher_in(tmp_path / str(each), monkeypatch)
        play(publisher, network, outages(seed), scene(each + 10))
        seen.append((network.shown, [m.payload for _, m in network.sent]))
    assert seen[0][0] == seen[1][0] and len(seen[0][0]) == 1000
    assert seen[0][1] != seen[1][1]


@pytest.mark.parametrize("seed", range(4))
def test_all_is_sent_once_in_order_and_a_release_keeps_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    publisher, network = publisher_in(tmp_path, monkeypatch)
    made: list[bytes] = []

    def noted(slot: int) -> tuple[Sealed, Sealed]:
        pair = scene(slot)(slot)
        made.extend(pair)
        return pair

    play(publisher, network, outages(seed), noted)
    assert [message.payload for _, message in network.sent] == made


def test_a_release_goes_at_its_deadline_unless_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, network = publisher_in(tmp_path, monkeypatch)
    away = [False] * 20 + [True] * 100 + [False] * 60
    play(publisher, network, away, scene(1))
    times = [at for at, _ in network.features()]
    due = [1001.0 + slot for slot in range(len(away))]
    assert times[:20] == due[:20]
    assert times[-30:] == due[-30:]


def test_what_waited_goes_at_its_pace_beside_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, network = publisher_in(tmp_path, monkeypatch)
    play(publisher, network, [True] * 200 + [False] * 60, scene(1))
    times = [at for at, _ in network.features()]
    each_second = [times.count(1201.0 + k) for k in range(60)]
    assert each_second[0] <= 2 * PER_S + 1  # one second's worth that was saved up
    assert set(each_second[1:35]) == {PER_S + 1}
    assert sum(each_second) == 260 and each_second[-1] == 1


def test_the_bridge_reads_all_of_a_long_outage_by_its_default_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rate of 2 that it had, most of this was refused as a flood."""
    manifest = make_engine(tmp_path / "engine", slot_s=1.0)
    publisher, network = publisher_in(tmp_path, monkeypatch)
    z = np.zeros(manifest.n, np.int16)

    def contents(slot: int) -> tuple[Sealed, Sealed]:
        release = FeatureMessage(1, slot, manifest.model_id, 0, z).seal(KEY, "lab", "door")
        return release, scene(0)(slot)[1]

    play(publisher, network, [True] * 1500 + [False] * 350, contents)
    session = CameraSession("lab/door", KEY.public, engines_of(manifest), CameraRecord())
    for at, payload in network.features():
        session.receive("features", payload, now_s=at)
    assert (session.received, session.gaps, dict(session.refused)) == (1850, 0, {})


def test_a_pace_saves_up_a_second_and_no_more() -> None:
    pace = Pace(5.0)
    pace.rest(100.0)
    pace.look(100.0)
    assert sum(pace.take() for _ in range(100)) == 5
    pace.look(101.0)
    assert sum(pace.take() for _ in range(100)) == 5
    pace.look(100.5)  # a clock that goes back gives nothing
    assert not pace.take()
    pace.add()
    assert pace.take() and not pace.take()
