"""The benchmarks run, clean up, and end with the one JSON document they promise; their numbers are the machine's."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.broker import EmbeddedBroker, Tap, end
from benchmarks.device import edge_loop, noise, wire
from benchmarks.listener import Listener
from benchmarks.model import clips
from tests.support.loop_factory import a_clip, make_pair
from tests.support.services import PATIENCE_S
from wire.artifact.manifest import EngineManifest


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pair(tmp_path_factory.mktemp("pair"))


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last line of stdout, which is JSON with the keys of the contract."""
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {"name", "ratio", "of", "figures", "machine"} <= found.keys()
    return dict(found)


def test_a_noise_sample_is_timed_against_opendp(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert noise.COMMAND.main(["--engine", str(pair[0]), "--noise-samples", "400"]) == 0
    found = document(capsys)
    assert found["ratio"] is None or 0.0 < found["ratio"] < 1.0
    assert found["figures"]["us"]["p50"] > 0.0


def test_bytes_are_counted_against_video(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = a_clip(tmp_path / "clip.mp4", 4.0)
    monkeypatch.setattr(wire, "rendered_clip", lambda: (clip, 1.0))
    monkeypatch.delenv("VEILSIGHT_DATA", raising=False)
    assert wire.COMMAND.main(["--engine", str(pair[0]), "--seconds", "3"]) == 0
    figures = document(capsys)["figures"]
    assert figures["payload_bytes"] <= 256
    assert figures["bytes_per_window"] > figures["mqtt_bytes_up"] > figures["payload_bytes"] + figures["verdict_bytes"]
    assert figures["video_bytes_per_s"]["demo clip"]["jpeg"] > 0


def test_the_devices_own_work_is_measured(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = a_clip(tmp_path / "clip.mp4", 4.0)
    monkeypatch.setattr(edge_loop, "rendered_clip", lambda: (clip, 1.0))
    assert edge_loop.COMMAND.main(["--engine", str(pair[0]), "--windows", "100", "--seconds", "3"]) == 0
    found = document(capsys)
    assert found["ratio"] > 0.0
    for run in found["figures"]["runs"].values():
        assert run["windows"] == 12
        assert 0.0 < run["first_message_s"] <= run["first_release_s"]
        assert 0.0 <= run["busy"] < 3.0  # cores; 0 where a busy machine left no two looks
        assert run["latency_ms"]["p50"] <= run["latency_ms"]["p99"]


def test_every_labelled_clip_gets_a_verdict(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seconds in (("a", 0.5), ("b", 3.0)):
        a_clip(tmp_path / f"{name}.mp4", seconds)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,label,set,group,note\na.mp4,normal,s,1,\nb.mp4,fall,s,2,\n")
    engine, checkpoint = (str(path) for path in pair)
    arguments = ["--data", str(manifest), "--engine", engine, "--checkpoint", checkpoint, "--speed", "2"]
    assert clips.COMMAND.main(arguments) == 0
    figures = document(capsys)["figures"]
    window = EngineManifest.load(pair[0]).window
    most = {f"{name}.mp4": window.releases_of(seconds) for name, seconds in (("a", 0.5), ("b", 3.0))}
    found = {row["file"]: row["windows"] for row in figures["clips"]}
    assert found.keys() == most.keys()
    # A busy machine skips slots, and adds some where the last answer comes late.
    assert all(most[name] // 2 <= count <= most[name] + 5 for name, count in found.items())
    assert all(row["predicted"] in ("normal", "fall", "fight") for row in figures["clips"])
    assert figures["overall"]["n"] == 2


def test_the_embedded_broker_refuses_mqtt_5_clients_at_once(tmp_path: Path) -> None:
    """It speaks 3.1.1; a client that connects in MQTT 5 gets a refusal and is not left waiting."""
    answers: list[tuple[float, int]] = []
    with EmbeddedBroker(tmp_path) as broker:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        began = time.monotonic()
        client.on_connect = lambda c, d, f, code, p: answers.append((time.monotonic() - began, code.value))
        client.connect("127.0.0.1", broker.port)
        while not answers and time.monotonic() - began < 10:
            client.loop(0.05)
    assert answers and answers[0][1] == 132
    assert answers[0][0] < 5.0


def test_a_broker_that_is_away_keeps_its_port(tmp_path: Path) -> None:
    """Nobody else's connection, or server, gets it while the broker is stopped."""
    with EmbeddedBroker(tmp_path) as broker:
        broker.stop()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", broker.port))
        broker.start()
        with socket.create_connection(("127.0.0.1", broker.port), timeout=PATIENCE_S):
            pass
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", broker.port))


def test_a_tap_counts_what_passes_and_changes_nothing(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker, Tap(broker, keep=True) as tap, Listener(broker) as listener:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        client.connect("127.0.0.1", tap.port)
        client.loop_start()
        client.publish("veilsight/x", b"payload" * 10, qos=1).wait_for_publish(PATIENCE_S)
        assert listener.wait_for(lambda records: len(records) == 1, PATIENCE_S)
        end(client)
        counts = tap.counts()
    assert listener.records()[0].payload == b"payload" * 10
    assert b"payload" * 10 in tap.sent
    assert counts["bytes_up"] > 70 and counts["bytes_down"] >= 8
