"""The bridge as a process of its own on a real broker, and a plain client in the place of its cameras."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.broker import end
from tests.support.bridge_factory import DEVICE, OTHER, make_manifest
from tests.support.services import PATIENCE_S, ROOT, until
from wire.artifact.manifest import EngineManifest
from wire.protocol.document import read_document
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Alert, Verdict, open_alert, open_verdict

__all__ = ["KEYS", "Peer", "bridge_process", "save_checkpoint", "wait_for", "write_config"]

KEYS: Mapping[str, DeviceKey] = {"door": DEVICE, "hall": OTHER}
_CLOUD = ("lab/+/verdict/cloud", "lab/+/alert", "lab/+/alert/open", "lab/+/contour", "bridges/+/bridge")


class Peer:
    """A plain MQTT client in the place of the devices, which also receives what the cloud publishes.

    Attributes:
        got: (topic, payload) of what the bridge has published, in order.
    """

    def __init__(self, port: int) -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.kept: list[tuple[str, bytes]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(2000)
        self._client.on_message = lambda client, data, message: self.got.put((message.topic, bytes(message.payload)))
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_connect = lambda client, *_: client.subscribe([(f"veilsight/v1/{name}", 1) for name in _CLOUD])
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def publish(self, name: str, *payloads: bytes, retain: bool = False, camera: str = "door") -> None:
        """Publish, and return once the broker has them."""
        sent = [self._client.publish(f"veilsight/v1/lab/{camera}/{name}", each, 1, retain) for each in payloads]
        for each in sent:
            each.wait_for_publish(PATIENCE_S)

    def heard(self) -> list[tuple[str, bytes]]:
        """Everything that came so far: (topic without its head, payload)."""
        with contextlib.suppress(queue.Empty):
            while True:
                topic, payload = self.got.get_nowait()
                self.kept.append((topic.removeprefix("veilsight/v1/"), payload))
        return self.kept

    def verdicts(self, bridge: DeviceKey, manifest: EngineManifest, camera: str = "door") -> list[Verdict]:
        """The verdicts on a camera so far, verified."""
        found = [payload for topic, payload in self.heard() if topic == f"lab/{camera}/verdict/cloud"]
        return [open_verdict(payload, bridge.public, "lab", camera, manifest.model_id) for payload in found]

    def alerts(self, bridge: DeviceKey, manifest: EngineManifest, camera: str = "door") -> list[Alert]:
        """The alerts on a camera so far, verified."""
        found = [payload for topic, payload in self.heard() if topic == f"lab/{camera}/alert"]
        return [open_alert(payload, bridge.public, "lab", camera, manifest.model_id) for payload in found]

    def documents(self, bridge: DeviceKey, kind: str, site: str, camera: str) -> list[Mapping[str, object]]:
        """The JSON documents under a topic so far, verified."""
        found = [read_document(payload) for topic, payload in self.heard() if topic == f"{site}/{camera}/{kind}"]
        for document in found:
            document.verify(kind, bridge.public, site, camera)
        return [document.fields for document in found]

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._client)


def save_checkpoint(folder: Path) -> tuple[Path, EngineManifest]:
    """An untrained nano, and a manifest that names it, saved in `folder`."""
    from familial.model.checkpoint import checkpoint_hash, save
    from familial.model.config import nano
    from familial.model.family import Family

    checkpoint = folder / "checkpoint"
    save(Family(nano(("<pad>", "<end>", "<normal>", "<fall>", "<fight>", "nothing"))), checkpoint)
    manifest = make_manifest(checkpoint=checkpoint_hash(checkpoint))
    manifest.save(folder)
    return checkpoint, manifest


def write_config(folder: Path, port: int, **sections: Mapping[str, object]) -> Path:
    """The file of a bridge for lab/door and lab/hall that lives in `folder`; `sections` add keys."""
    tables: dict[str, dict[str, object]] = {
        "broker": {"url": f"mqtt://127.0.0.1:{port}"},
        "model": {"checkpoint": str(folder / "checkpoint"), "engine": str(folder), "threads": 1},
        "state": {"dir": str(folder / "state")},
        "ingest": {"shed_after_s": 1e6},  # every verdict is asked for, on whatever machine
    }
    for name, values in sections.items():
        tables.setdefault(name, {}).update(values)
    rows = [(f"[{name}]", values) for name, values in tables.items()]
    for name, key in KEYS.items():
        rows.append(("[[cameras]]", {"site": "lab", "camera": name, "public_key": key.public.hex}))
    text = "\n".join(
        f"{head}\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) for head, values in rows
    )
    file = folder / "bridge.toml"
    file.write_text(text + "\n")
    return file


@contextlib.contextmanager
def bridge_process(config: Path, *more: str, ready: bool = True) -> Iterator[subprocess.Popen[str]]:
    """`python -m cloud_bridge`, ready where that is asked for; killed at the end of the block."""
    command = [sys.executable, "-m", "cloud_bridge", "--config", str(config), *more]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if ready:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("ready: 2 camera"), line
            yield process
        finally:
            process.kill()


def wait_for(peer: Peer, topic: str, count: int = 1) -> None:
    """Return once so many messages came under a topic (without its head)."""
    until(lambda: sum(name == topic for name, _ in peer.heard()) >= count)
