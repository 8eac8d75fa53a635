"""The bridge on a real broker: the whole process once, and a connection that is made again."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.broker import end
from cloud_bridge.ingest.transport import Inbound, MqttTransport
from tests.support.bridge_factory import DEVICE, OTHER, Harness, a_state, make_manifest, release
from tests.support.bridge_process import save_checkpoint
from tests.support.services import PATIENCE_S, ROOT, Broker, free_port, until
from wire.artifact.manifest import EngineManifest
from wire.broker import BrokerConfig
from wire.errors import BrokerError
from wire.mqtt import Message, Receipt
from wire.privacy.certificate import MAX_CERTIFICATE
from wire.protocol.keys import PublicKey
from wire.protocol.message import coarse_time, open_verdict

BASE = "veilsight/v1/lab/door"


class Peer:
    """A plain MQTT client in the place of the device, which also receives what the cloud publishes."""

    def __init__(self, port: int) -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_message = lambda client, data, message: self.got.put((message.topic, bytes(message.payload)))
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"{BASE}/verdict/cloud", 1), (f"{BASE}/alert", 1)]
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def publish(self, name: str, *payloads: bytes, retain: bool = False) -> None:
        for payload in payloads:
            self._client.publish(f"{BASE}/{name}", payload, 1, retain).wait_for_publish(10)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._client)


def write_config(folder: Path, port: int, checkpoint: Path) -> Path:
    file = folder / "bridge.toml"
    file.write_text(
        f"""
        [broker]
        url = "mqtt://127.0.0.1:{port}"
        [model]
        checkpoint = "{checkpoint}"
        engine = "{folder}"
        threads = 1
        [[cameras]]
        site = "lab"
        camera = "door"
        public_key = "{DEVICE.public.hex}"
        [state]
        dir = "{folder / "state"}"
        [run]
        exit_when_offline = true
        """
    )
    return file


@contextlib.contextmanager
def bridge_process(config: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "cloud_bridge", "--config", str(config), *more]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, EngineManifest]:
    return save_checkpoint(tmp_path)


def test_the_process_reads_a_stream_refuses_bad_messages_and_ends_by_itself(
    mosquitto: int, tmp_path: Path, checkpoint: tuple[Path, EngineManifest]
) -> None:
    folder, manifest = checkpoint
    now_s = coarse_time(time.time())
    good = [release(slot, slot, manifest=manifest, time_s=now_s) for slot in range(10)]
    bad = [
        good[0],
        good[1][:-1],
        good[1] + b"\0" * 20_000,
        release(3, manifest=manifest, key=OTHER),
        release(3, manifest=make_manifest(family="another")),
        b"\0" * len(good[0]),
    ]
    lines = tmp_path / "lines.json"
    config = write_config(tmp_path, mosquitto, folder)
    with Peer(mosquitto) as peer:
        peer.publish("state", a_state("offline", boot=0, reason="an earlier run"), retain=True)
        with bridge_process(config, "--json-lines", str(lines)) as process:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("ready: 1 camera")
            certificate = manifest.certificate().to_json().encode()
            peer.publish("state", a_state("online", certificate=certificate), retain=True)
            peer.publish("certificate", certificate, retain=True)
            peer.publish("features", *good[:4], *bad, *good[4:])
            peer.publish("state", a_state("offline", count=2, certificate=certificate), retain=True)
            out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        assert [line.split(": ")[0] for line in err.splitlines()] == ["WARNING cloud_bridge"] * 3
        assert "(forged: " in err and "(model: " in err and "verdicts in a row raise alerts" in err  # it has no table
        public = PublicKey.parse(str(tmp_path / "state" / "bridge.key.pub"))
        assert public.hex in ready
        until(lambda: peer.got.qsize() >= 3)
        verdicts = [open_verdict(peer.got.get()[1], public, "lab", "door", manifest.model_id) for _ in range(3)]
    assert [(v.first_slot, v.last_slot, v.present) for v in verdicts] == [(k, k + 7, (True,) * 8) for k in range(3)]
    assert out.splitlines()[-1].startswith(
        "received 16, refused: duplicate 1, forged 1, malformed 1, model 1, oversized 1"
    )
    stats = json.loads(lines.read_text().splitlines()[-1])
    assert stats["type"] == "stats" and stats["verdicts"] == 3 and stats["refused"]["truncated"] == 1
    assert stats["gaps"] == stats["dropped"] == stats["unpublished"] == 0


def test_no_broker_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="cannot be reached.*refused"):
        MqttTransport(BrokerConfig(f"mqtt://127.0.0.1:{free_port()}"), "t", [], lambda *_: None).__enter__()


def test_something_that_is_no_broker_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(2):
                server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BrokerError, match="neither MQTT 5 nor 3.1.1"):
            MqttTransport(BrokerConfig(url), "t", [], lambda *_: None).__enter__()


def test_a_wrong_password_is_a_clear_error(tmp_path: Path, broker: Broker) -> None:
    broker.stop()
    config = tmp_path / "mosquitto.conf"
    config.write_text(config.read_text().replace("allow_anonymous true", "allow_anonymous false"))
    broker.start()
    with pytest.raises(BrokerError, match=r"refuses us: Not authorized; check \[broker\] username"):
        MqttTransport(BrokerConfig(f"mqtt://127.0.0.1:{broker.port}"), "t", [], lambda *_: None).__enter__()


def test_a_broker_that_dies_and_returns_loses_no_message(broker: Broker, tmp_path: Path) -> None:
    manifest = make_manifest()
    harness = Harness(tmp_path / "state", manifest)
    inbox: queue.Queue[Inbound] = queue.Queue()

    def receive(topic: str, payload: bytes, retained: bool, receipt: Receipt) -> None:
        inbox.put(Inbound("lab/door", "features", payload, retained))
        transport.acknowledge([receipt])

    def serve(slots: range) -> None:
        with Peer(broker.port) as peer:
            peer.publish("features", *(release(slot, manifest=manifest) for slot in slots))
        for _ in slots:
            harness.bridge.handle([inbox.get(timeout=PATIENCE_S)])

    url = f"mqtt://127.0.0.1:{broker.port}"
    with MqttTransport(BrokerConfig(url), "vsb-test", [(f"{BASE}/features", 1)], receive) as transport:
        serve(range(4))
        broker.stop()
        transport.publish(Message(f"{BASE}/verdict/cloud", b"published while the broker was away", 1, False))
        broker.start()
        until(lambda: transport.connections == 2)
        serve(range(4, 9))
        until(transport.flush)
    assert harness.spans == [(0, 7), (1, 8)]
    assert not harness.bridge.stats()["refused"]


def test_messages_that_come_while_the_bridge_restarts_are_kept(mosquitto: int) -> None:
    manifest, got = make_manifest(), queue.Queue[bytes]()
    config, topics = BrokerConfig(f"mqtt://127.0.0.1:{mosquitto}"), [(f"{BASE}/features", 1)]
    with MqttTransport(config, "vsb-test", topics, lambda topic, payload, retained, receipt: got.put(payload)):
        pass
    sent = [release(slot, manifest=manifest) for slot in range(3)]
    with Peer(mosquitto) as peer:
        peer.publish("features", *sent)
    with MqttTransport(config, "vsb-test", topics, lambda topic, payload, retained, receipt: got.put(payload)):
        assert [got.get(timeout=PATIENCE_S) for _ in sent] == sent


def test_a_message_beyond_the_packet_size_does_not_reach_the_bridge(mosquitto: int) -> None:
    """MQTT 5: the broker itself withholds what is beyond our packet size."""
    got = queue.Queue[bytes]()
    config, topics = BrokerConfig(f"mqtt://127.0.0.1:{mosquitto}"), [(f"{BASE}/features", 1)]
    with (
        MqttTransport(config, "vsb-test", topics, lambda topic, payload, retained, receipt: got.put(payload)),
        Peer(mosquitto) as peer,
    ):
        peer.publish("features", bytes(1_000_000), bytes(MAX_CERTIFICATE), b"end")
        assert [len(got.get(timeout=PATIENCE_S)), got.get(timeout=PATIENCE_S)] == [MAX_CERTIFICATE, b"end"]
