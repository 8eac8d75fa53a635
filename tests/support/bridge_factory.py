"""What the bridge's tests share: a manifest, sealed messages, a member without a model, a bridge without MQTT."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloud_bridge.alerts.budget import AlertBudget
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.scenes import SceneConfig
from cloud_bridge.bridge import Bridge
from cloud_bridge.config import BridgeConfig, CameraConfig, ModelConfig
from cloud_bridge.contour.artist import Artist
from cloud_bridge.inference.member import Member, Reading
from cloud_bridge.ingest.engines import Engine
from cloud_bridge.ingest.events import Event
from cloud_bridge.ingest.transport import Inbound
from cloud_bridge.models import Model, Models, by_id
from cloud_bridge.narrator import Narrator
from cloud_bridge.store.database import StoreConfig
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from cloud_bridge.webhooks.config import WebhookConfig
from familial.evaluate.ood_detector import ReferenceDistribution
from wire.artifact.manifest import EngineManifest, WindowSpec
from wire.mqtt import Message, Receipt
from wire.privacy.certificate import sigma_for
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.document import read_document
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Alert, FeatureMessage, Verdict, open_alert, open_verdict
from wire.protocol.state import seal_state

__all__ = ["DEVICE", "OTHER", "FakeLink", "FakeMember", "Harness", "a_state", "make_manifest", "models_of", "release"]

DEVICE, OTHER = DeviceKey(b"d" * 32), DeviceKey(b"o" * 32)


def make_manifest(slot_s: float = 1.0, checkpoint: str = "c" * 64, family: str = "test") -> EngineManifest:
    """A manifest of the shipped family's shapes; the bridge needs no engine folder beside it."""
    hashes = {"checkpoint": checkpoint, "encode": "e", "decide": "d", "noise_table": "t", "calibration": ""}
    values = {
        "family": family,
        "labels": ("normal", "fall", "fight"),
        "window": WindowSpec(96, 96, slot_s, 8, 8, slot_s / 2, slot_s / 2),
        "tokens": 4,
        "width": 16,
        "event_releases": 8,
        "clip_norm": 64,
        "sigma": sigma_for(64, 3.0),
        "profile": "balanced",
        "precision": "fp32",
        "opset": 18,
    }
    first = EngineManifest(**values, hashes={**hashes, "certificate": ""})  # type: ignore[arg-type]  # a test's shorthand
    return EngineManifest(**values, hashes={**hashes, "certificate": first.certificate().sha256()})  # type: ignore[arg-type]


def release(
    slot: int,
    value: int = 0,
    *,
    boot: int = 1,
    manifest: EngineManifest,
    key: DeviceKey = DEVICE,
    flags: int = 0,
    time_s: int = 0,
    camera: str = "door",
    level: int | None = None,
) -> bytes:
    """A sealed release of lab/`camera` whose every coordinate is `value`; level: None for the manifest's own."""
    z, at = np.full(manifest.n, value, np.int16), manifest.level if level is None else level
    message = FeatureMessage(
        boot_id=boot, slot=slot, model_id=manifest.model_id, flags=flags, z=z, level=at, time_s=time_s
    )
    return message.seal(key, "lab", camera)


def a_state(
    status: str, boot: int = 1, count: int = 1, *, key: DeviceKey = DEVICE, camera: str = "door", **fields: Any
) -> bytes:
    """A sealed state of lab/`camera`; `certificate` is the payload that it names."""
    certificate = hashlib.sha256(fields.pop("certificate", b"")).hexdigest()
    made = {"status": status, "reason": "end of source", "boot_id": boot, "count": count, "certificate": certificate}
    return seal_state({**made, "blind": False, "watching": True, **fields}, key, "lab", camera)


def models_of(manifest: EngineManifest, member: Member) -> Models:
    """One model."""
    return by_id(Model(Engine(manifest), member))


class FakeMember:
    """Reads the newest release's first coordinate as the percentage of a fall.

    Attributes:
        exit: Whose readings its are.
    """

    def __init__(self) -> None:
        self.exit = "cloud"
        self.events: list[Event] = []
        self.described: list[Event] = []
        self.batches: list[int] = []

    def read(self, events: Sequence[Event]) -> list[Reading]:
        self.events += events
        self.batches.append(len(events))
        return [self._one(event) for event in events]

    def _one(self, event: Event) -> Reading:
        newest = int(np.flatnonzero(event.present)[-1])
        p = float(np.clip(event.z[newest, 0, 0] / 100.0, 0.0, 1.0))
        return Reading({"normal": 1.0 - p, "fall": p, "fight": 0.0}, member=self.exit)

    def describe(self, events: Sequence[Event]) -> list[str]:
        """Count what it is asked for, too."""
        self.described += events
        return ["someone lies on the floor" if self._one(e).probabilities["fall"] > 0.5 else "" for e in events]


class FakeLink:
    """A broker that keeps everything, in the order of what happens.

    Attributes:
        sent: Messages that were published.
        acknowledged: Receipts that came back.
        settled: Told the number of each message that the broker has.
        connected: Whether it is there.
    """

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.acknowledged: list[Receipt] = []
        self.settled: Callable[[int], None] = lambda number: None
        self.connected = True
        self._waiting: list[tuple[Message, int]] = []

    def publish(self, message: Message, number: int = -1) -> None:
        self._waiting.append((message, number))
        self.pump()

    def pump(self) -> None:
        while self.connected and self._waiting:
            message, number = self._waiting.pop(0)
            self.sent.append(message)
            self.settled(number)

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        self.acknowledged += receipts


class Harness:
    """A bridge with two cameras, lab/door and lab/hall, which keeps everything it publishes and prints.

    Attributes:
        now_s: What its clock says.
    """

    def __init__(
        self,
        folder: Path,
        manifest: EngineManifest,
        rule: AlertRule | None = None,
        reference: ReferenceDistribution | None = None,
        sentences_s: float = 0.0,
        budget: AlertBudget | None = None,
        store: StoreConfig | None = None,
        webhooks: Sequence[WebhookConfig] = (),
        artist: Artist | None = None,
        scenes: Sequence[SceneConfig] = (),
        more: Sequence[Model] = (),
        narrator: Narrator | None = None,
    ) -> None:
        self.manifest = manifest
        self.member = FakeMember()
        self.key = DeviceKey(b"b" * 32)
        self.link = FakeLink()
        self.now_s = 0.0
        self.people, self.programs = io.StringIO(), io.StringIO()
        cameras = (CameraConfig("lab", "door", DEVICE.public.hex), CameraConfig("lab", "hall", OTHER.public.hex))
        model = ModelConfig(sentence_every_s=sentences_s)
        engine = Engine(manifest, reference)
        self.bridge = Bridge(
            BridgeConfig(
                cameras=cameras, alerts=rule or AlertRule(), model=model, webhooks=tuple(webhooks), scenes=tuple(scenes)
            ),
            by_id(Model(engine, self.member, budget, artist, narrator), *more),
            self.key,
            Store.open(store or StoreConfig(), folder),
            self.link,
            Timeline(self.people, self.programs),
            lambda: self.now_s,
        )
        self.link.settled = self.bridge.publisher.settled

    @property
    def published(self) -> list[tuple[str, bytes]]:
        """Verdicts and alerts that were published: topic, payload."""
        return [(m.topic, m.payload) for m in self.link.sent if not m.topic.endswith("/alert/open")]

    def open_alerts(self, camera: str = "door") -> list[str]:
        """Everything that was published as the open alerts of a camera, verified."""
        found = [m for m in self.link.sent if m.topic == f"veilsight/v1/lab/{camera}/alert/open"]
        documents = [read_document(message.payload) for message in found]
        for document, message in zip(documents, found, strict=True):
            document.verify("alert/open", self.key.public, "lab", camera)
            assert message.retain
        return [document.fields["open"] for document in documents]

    def send(self, *payloads: bytes, camera: str = "lab/door", name: str = "features", retained: bool = False) -> None:
        """Hand messages in, each as a batch of its own."""
        for payload in payloads:
            self.bridge.handle([Inbound(camera, name, payload, retained)])

    def verdicts(self, camera: str = "door") -> list[Verdict]:
        """Everything that was published as a verdict on a camera, verified."""
        sent = [payload for topic, payload in self.published if topic.endswith(f"/{camera}/verdict/cloud")]
        return [open_verdict(p, self.key.public, "lab", camera, self._model_of(pb.Verdict(), p)) for p in sent]

    def alerts(self, camera: str = "door") -> list[Alert]:
        """Everything that was published as an alert on a camera, verified."""
        sent = [payload for topic, payload in self.published if topic.endswith(f"/{camera}/alert")]
        return [open_alert(p, self.key.public, "lab", camera, self._model_of(pb.Alert(), p)) for p in sent]

    def _model_of(self, message: pb.Verdict | pb.Alert, payload: bytes) -> int:
        """Which of the bridge's models a message names; a stranger's is for `open_verdict` to refuse."""
        message.ParseFromString(pb.Signed.FromString(payload).body)
        return message.model_id if message.model_id in self.bridge.models else self.manifest.model_id

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(first slot, last slot) of all events read."""
        return [(event.first_slot, event.last_slot) for event in self.member.events]
