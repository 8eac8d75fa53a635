"""The whole loop as processes: source -> edge -> broker -> bridge -> verdicts; and what must not stop it."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.broker import EmbeddedBroker, end
from benchmarks.harness import Rig
from benchmarks.listener import Heard, Listener, Record
from tests.support.loop_factory import a_clip, make_pair
from tests.support.services import PATIENCE_S, Broker
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage
from wire.protocol.topics import topic

LATE = 5
"""Slots after a source's last one: noise alone, until the eye has said in time that it ended."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def rig(tmp_path: Path, pair: tuple[Path, Path]) -> Iterator[Rig]:
    with EmbeddedBroker(tmp_path) as broker:
        yield Rig(tmp_path, broker, *pair)


def slots(heard: Heard) -> list[int]:
    """Released since the device's last start."""
    return [message.slot for _, message in heard.features if message.boot_id == heard.boot_id]


def several_read(rig: Rig, count: int, after: int = -1) -> Callable[[list[Record]], bool]:
    """Make a condition: the cloud has read `count` events that end after slot `after`."""

    def holds(records: list[Record]) -> bool:
        return sum(v.last_slot > after for _, v in rig.hear(records).of("cloud")) >= count

    return holds


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_every_clip_gets_a_verdict_of_both_members(rig: Rig, tmp_path: Path, seconds: float) -> None:
    """A clip shorter than an event as well as a longer one; both processes end by themselves, without errors."""
    clip = a_clip(tmp_path / "clip.mp4", seconds)
    with Listener(rig.broker) as listener, rig.bridge(exit_when_offline=True) as bridge:
        bridge.wait_for_line("ready", PATIENCE_S)
        with rig.edge(str(clip)) as edge:
            assert edge.wait(PATIENCE_S) == 0, edge.output()
        assert bridge.wait(PATIENCE_S) == 0, bridge.output()
        heard = rig.hear(listener.records())
    count = rig.manifest.window.releases_of(seconds)
    released = slots(heard)  # all, except slots that a busy machine missed; more where the last answer came late
    assert len(released) > 0.7 * count and released == sorted(set(released)) and released[-1] < count + LATE
    whole = [slot for slot in released if slot >= 7] or released[-1:]
    for member in ("edge", "cloud"):
        spans = [(v.first_slot, v.last_slot) for _, v in heard.of(member)]
        assert spans == [(max(0, last - 7), last) for last in whole], member
    assert [state["status"] for _, state in heard.states] == ["online", "offline"]
    assert heard.states[-1][1]["reason"] == "end of source"
    assert not heard.refused
    assert not edge.error_lines() + bridge.error_lines()


def test_the_loop_survives_a_broker_that_dies(tmp_path: Path, pair: tuple[Path, Path], broker: Broker) -> None:
    """Slots go on, no message changes, and the cloud reads again, without a restart of either process."""
    rig = Rig(tmp_path, broker, *pair)
    with Listener(broker) as listener, rig.bridge() as bridge:
        bridge.wait_for_line("ready", PATIENCE_S)
        with rig.edge("synthetic://walk") as edge:
            assert listener.wait_for(several_read(rig, 2), PATIENCE_S), edge.output() + bridge.output()
            broker.stop()
            before = slots(rig.hear(listener.records()))[-1]
            assert edge.running and bridge.running
            broker.start()
            assert listener.wait_for(several_read(rig, 2, before + 8), PATIENCE_S), edge.output() + bridge.output()
            assert edge.running and bridge.running
    heard = rig.hear(listener.records())
    by_slot: dict[int, set[bytes]] = {}
    for _, message in heard.features:
        by_slot.setdefault(message.slot, set()).add(message.z.tobytes())
    assert all(len(found) == 1 for found in by_slot.values()), "a slot was released twice, with other noise"
    assert not heard.refused


def test_forged_messages_stop_nothing(rig: Rig, tmp_path: Path) -> None:
    """Whatever else is published under the camera's topic is refused and counted; every event is still read."""
    clip = a_clip(tmp_path / "clip.mp4", 5.0)
    features = topic("site", "camera", "features")
    thief = DeviceKey.load_or_make(tmp_path / "thief.key")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.connect("127.0.0.1", rig.broker.port)
    client.loop_start()
    manifest, key, here = rig.manifest, rig.key("camera"), ("site", "camera")
    with Listener(rig.broker) as listener, rig.bridge(exit_when_offline=True) as bridge:
        bridge.wait_for_line("ready", PATIENCE_S)
        with rig.edge(str(clip)) as edge:
            assert listener.wait_for(lambda records: len(rig.hear(records).features) >= 4, PATIENCE_S), edge.output()
            seen = rig.hear(listener.records())
            boot, z = seen.boot_id or 0, seen.features[0][1].z
            real = next(r.payload for r in listener.records() if r.topic == features)
            for payload in (
                b"",
                b"{}",
                real,
                real[:-1],
                real + b"x",
                bytes(len(real)),
                bytes(100_000),
                FeatureMessage(boot, 10_000, manifest.model_id, 0, z).seal(thief, *here),
                FeatureMessage(boot, 10_001, manifest.model_id ^ 1, 0, z).seal(key, *here),
                FeatureMessage(boot, 10_002, manifest.model_id, 4, z).seal(key, *here),
                FeatureMessage(0, 10_003, manifest.model_id, 0, z).seal(key, *here),
            ):
                client.publish(features, payload, qos=1)
            client.publish(topic("site", "camera", "state"), b'{"status": 7}', qos=1)
            client.publish(topic("site", "nobody", "features"), real, qos=1)
            assert edge.wait(PATIENCE_S) == 0, edge.output()
        assert bridge.wait(PATIENCE_S) == 0, bridge.output()
        heard = rig.hear(listener.records())
    end(client)
    read = [v.last_slot for _, v in heard.of("cloud")]
    assert read == [slot for slot in slots(heard) if slot >= 7], bridge.output()
    last = bridge.output().strip().splitlines()[-1]
    for reason in ("truncated", "oversized", "forged", "model", "flags", "replayed"):
        assert reason in last, last


@pytest.mark.parametrize("content", [None, b"", b"not a video" * 1000])
def test_a_clip_that_cannot_be_played_is_a_clear_error(rig: Rig, tmp_path: Path, content: bytes | None) -> None:
    """Exit status 2 and the file's name; nothing was published."""
    clip = tmp_path / "clip.mp4"
    if content is not None:
        clip.write_bytes(content)
    with Listener(rig.broker) as listener, rig.edge(str(clip)) as edge:
        assert edge.wait(PATIENCE_S) == 2
        assert listener.records() == []
    assert len(edge.error_lines()) == 1
    assert "clip.mp4" in edge.error_lines()[0]


def test_a_damaged_clip_is_played_to_the_damage(rig: Rig, tmp_path: Path) -> None:
    """A file whose second half is garbage: the process releases the first half, and ends."""
    whole = a_clip(tmp_path / "whole.mp4", 4.0)
    data = bytearray(whole.read_bytes())
    index = data.find(b"moov")
    middle = slice(len(data) // 3, (index if index > 0 else len(data)) * 2 // 3)
    data[middle] = random.Random(1).randbytes(len(data[middle]))
    clip = tmp_path / "cut.mp4"
    clip.write_bytes(bytes(data))
    with Listener(rig.broker) as listener, rig.edge(str(clip)) as edge:
        assert edge.wait(PATIENCE_S) in (0, 2), edge.output()
        heard = rig.hear(listener.records())
    assert heard.states == [] or heard.states[-1][1]["status"] == "offline"
    assert "Traceback" not in edge.output()


def test_an_engine_of_another_checkpoint_is_refused_by_the_bridge(rig: Rig, tmp_path: Path) -> None:
    manifest = EngineManifest.load(rig.engine)
    other = dataclasses.replace(manifest, hashes={**manifest.hashes, "checkpoint": "0" * 64})
    folder = tmp_path / "other"
    folder.mkdir()
    other.save(folder)
    with Rig(tmp_path, rig.broker, folder, rig.checkpoint).bridge() as bridge:
        assert bridge.wait(PATIENCE_S) == 2
    assert "checkpoint" in bridge.output()


def test_the_retained_messages_describe_the_camera(rig: Rig, tmp_path: Path) -> None:
    """A subscriber learns from the retained messages alone whose camera this is and what it can reveal."""
    clip = a_clip(tmp_path / "clip.mp4", 0.5)
    with Listener(rig.broker) as listener, rig.edge(str(clip)) as edge:
        assert edge.wait(PATIENCE_S) == 0, edge.output()
        assert listener.wait_for(lambda records: len(rig.hear(records).states) >= 2, PATIENCE_S)
    with Listener(rig.broker) as late:
        assert late.wait_for(lambda records: len(records) >= 2, PATIENCE_S)
        retained = {record.topic.split("/", 4)[-1]: record for record in late.records()}
    assert set(retained) == {"state", "certificate"} and all(r.retained for r in retained.values())
    state = json.loads(retained["state"].payload)
    assert state["public_key"] == rig.key("camera").public.hex
    assert int(state["model_id"], 16) == rig.manifest.model_id
    assert retained["certificate"].payload == rig.manifest.certificate().to_json().encode()
