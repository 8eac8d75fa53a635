"""The device and a real broker that goes away, and a gate that is killed meanwhile: what the bridge then reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.broker import end
from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.store.records import CameraRecord
from edge_runtime.uplink.segment import HEADER_BYTES, Record, parse, parse_header
from tests.support.engine_factory import make_edge_config, make_engine
from tests.support.services import PATIENCE_S, ROOT, Broker, Listener, until
from wire.protocol.keys import PublicKey
from wire.protocol.message import open_features, open_verdict

SLOT_S = 0.1
pytestmark = pytest.mark.usefixtures("nobody_left")


@pytest.fixture
def nobody_left() -> Iterator[None]:
    """No gate outlives its test."""
    yield
    for run in Device.started:
        if run.poll() is None:
            run.kill()
    Device.started.clear()


class Device:
    """A gate in a folder, that can be started and killed."""

    started: list[subprocess.Popen[str]] = []

    def __init__(self, folder: Path, port: int, **outbox: Any) -> None:
        self.manifest = make_engine(folder / "engine", slot_s=SLOT_S)
        self._folder, self._port, self._outbox = folder, port, {"replay_per_s": 200.0, **outbox}

    def start(self, windows: int = 0) -> subprocess.Popen[str]:
        how: dict[str, Any] = {"port": self._port, "windows": windows, "outbox": self._outbox}
        config = make_edge_config(self._folder, engine=self._folder / "engine", **how)
        command = [sys.executable, "-m", "edge_runtime", "--config", str(config)]
        command += ["--summary", str(self._folder / "summary.json")]
        run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
        self.started.append(run)
        return run

    @property
    def key(self) -> PublicKey:
        return PublicKey.parse(str(self._folder / "device.key.pub"))

    @property
    def waits(self) -> int:
        """Bytes of messages on disk."""
        return sum(path.stat().st_size for path in (self._folder / "state" / "outbox").glob("*.log"))

    def kept(self) -> list[bytes]:
        """The releases on disk, in order."""
        found = list[bytes]()
        for path in sorted((self._folder / "state" / "outbox").glob("*.log")):
            data, place = path.read_bytes(), HEADER_BYTES
            header = parse_header(data)
            assert header is not None
            number = header.first
            while (got := parse(data, place, number)) is not None:
                content, place = got
                number += isinstance(content, Record)
                found += [content.payload] if isinstance(content, Record) and content.name == "features" else []
        return found

    def figures(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads((self._folder / "summary.json").read_text())
        return made

    def slots(self, payloads: list[bytes]) -> list[tuple[int, int]]:
        """(start, slot) of releases, in the order in which they came; each payload is new."""
        seen = [
            open_features(each, self.key, "lab", "door", self.manifest.n, self.manifest.model_id) for each in payloads
        ]
        return [(each.boot_id >> 32, each.slot) for each in seen]


def read_by_bridge(device: Device, payloads: list[bytes]) -> CameraSession:
    """A session of the bridge that has read the releases, by its default rules."""
    session = CameraSession("lab/door", device.key, engines_of(device.manifest), CameraRecord())
    for each in payloads:
        session.receive("features", each, now_s=time.time())
    session.drain()
    return session


def test_what_was_released_while_the_broker_was_away_comes_in_order(tmp_path: Path, broker: Broker) -> None:
    device = Device(tmp_path, broker.port)
    listener = Listener(broker.port)
    run = device.start(windows=60)
    until(lambda: len(listener.of("features")) >= 3)
    broker.stop()
    listener.close()
    first = listener.of("features")
    until(lambda: device.waits > 4000)
    broker.start()
    listener = Listener(broker.port)
    assert run.wait(PATIENCE_S) == 0
    until(lambda: ("offline", "end of source") in listener.states() or ("offline", "stopped") in listener.states())
    assert device.figures()["outbox"]["waiting"] == 0
    slots = device.slots(first + listener.of("features"))
    once = sorted(set(slots))
    skipped = device.figures()["clock"]["skipped_slots"]
    assert len(once) == 60 and once[-1][1] == 59 + skipped
    assert [each for k, each in enumerate(slots) if each not in slots[:k]] == once
    session = read_by_bridge(device, first + listener.of("features"))
    assert session.gaps == skipped and not set(session.refused) - {"duplicate"}
    listener.close()


def test_a_gate_that_is_killed_while_the_broker_is_away_loses_nothing(tmp_path: Path, broker: Broker) -> None:
    """Three starts that are killed, one that ends: every release that reached the outbox, in order, noised once."""
    device = Device(tmp_path, broker.port)
    broker.stop()
    for _ in range(3):
        before = device.waits
        run = device.start()
        until(lambda: device.waits > before + 4000)  # noqa: B023 - waited for here
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    kept = device.kept()
    broker.start()
    listener = Listener(broker.port)
    assert device.start(windows=40).wait(PATIENCE_S) == 0
    until(lambda: len(listener.states()) >= 2)
    payloads = listener.of("features")
    slots = device.slots(payloads)
    assert slots == sorted(slots) and len(set(slots)) == len(set(payloads))  # in order, and no slot has two noises
    assert {boot for boot, _ in slots} == {1, 2, 3, 4}
    assert payloads[: len(kept)] == kept and len(kept) > 20  # all that was on disk
    for boot in range(1, 5):
        of_it = [slot for each, slot in slots if each == boot]
        assert len(of_it) >= 5 and of_it[0] == 0
    session = read_by_bridge(device, payloads)
    assert not set(session.refused) - {"duplicate"}
    verdicts = [
        open_verdict(each, device.key, "lab", "door", device.manifest.model_id) for each in listener.of("verdict/edge")
    ]
    places = [(each.boot_id >> 32, each.last_slot) for each in verdicts]
    assert places and places == sorted(places)
    assert device.figures()["outbox"]["lost_in_all"] == 0
    listener.close()


def test_a_stop_while_the_broker_is_away_leaves_everything_for_the_next_start(tmp_path: Path, broker: Broker) -> None:
    device = Device(tmp_path, broker.port)
    broker.stop()
    run = device.start()
    until(lambda: device.waits > 4000)
    run.send_signal(signal.SIGTERM)
    assert run.wait(PATIENCE_S) == 0
    waiting, windows = device.figures()["outbox"]["waiting"], device.figures()["loop"]["windows"]
    assert waiting == windows + device.figures()["loop"]["verdicts"]
    broker.start()
    listener = Listener(broker.port)
    assert device.start(windows=5).wait(PATIENCE_S) == 0
    until(lambda: len(listener.states()) >= 2)
    assert len([boot for boot, _ in device.slots(listener.of("features")) if boot == 1]) == windows
    listener.close()


def test_the_broker_is_told_when_a_message_is_too_old(tmp_path: Path, broker: Broker) -> None:
    """MQTT 5: what waits for a subscriber that is away longer than that is not delivered to it."""
    expiries: list[int] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe("veilsight/v1/lab/door/features", qos=1)
    client.on_message = lambda _c, _d, m: expiries.append(getattr(m.properties, "MessageExpiryInterval", 0))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    until(client.is_connected)
    device = Device(tmp_path, broker.port, max_age_h=2.0)
    assert device.start(windows=5).wait(PATIENCE_S) == 0
    until(lambda: len(expiries) >= 5)
    assert all(7200 - 120 <= each <= 7200 for each in expiries)
    end(client)


def test_a_folder_that_cannot_be_written_is_said_on_the_local_page(tmp_path: Path, broker: Broker) -> None:
    device = Device(tmp_path, broker.port)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "outbox").write_text("in the way")
    listener = Listener(broker.port)
    assert device.start(windows=10).wait(PATIENCE_S) == 0
    until(lambda: len(listener.of("features")) >= 10)
    assert device.figures()["outbox"]["kept"] == "memory"
    listener.close()
