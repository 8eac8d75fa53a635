"""The bridge: messages -> sessions -> events -> member -> verdicts and alerts. One thread does all of it.

    for batch in mailbox:                       # run
        taken = session.receive(message)        # one session for each camera; pure
        journal.save()                          # durable before anything is read: no message is ever read twice
        for event, reading in member.read(...): # all cameras in one forward
            publish(verdict); publish(alerts)

Nothing that a camera sends stops it: a message is read, or refused and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cloud_bridge.alerts.lifecycle import AlertBook, AlertChange
from cloud_bridge.config import BridgeConfig
from cloud_bridge.inference.member import Member, Reading
from cloud_bridge.ingest.events import Event, Release
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.ingest.transport import Inbound, Publish
from cloud_bridge.messages import fill_alert, fill_verdict
from cloud_bridge.store.journal import Journal
from cloud_bridge.timeline import Timeline
from familial.evaluate.ood_detector import OodDetector, ReferenceDistribution
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import DeviceKey
from wire.protocol.topics import TOPICS, topic

__all__ = ["SUBSCRIPTIONS", "Bridge", "run"]

SUBSCRIPTIONS = ("features", "state", "certificate")
"""What the bridge reads of each camera; names of topics."""

_IDLE_S = 0.5  # how long the mailbox must be empty before the end is believed
_BLIND = "noise alone: the budget is spent"


class Bridge:
    """Everything between the mailbox and the publisher.

    Attributes:
        sessions: `site/camera` -> the camera's session.
        verdicts: Verdicts published since the start.
        alerts: Alerts published since the start.
    """

    def __init__(
        self,
        config: BridgeConfig,
        manifest: EngineManifest,
        member: Member,
        key: DeviceKey,
        journal: Journal,
        publish: Publish,
        timeline: Timeline,
        reference: ReferenceDistribution | None = None,
    ) -> None:
        """Continue every camera where the journal stands.

        Args:
            config: Cameras and the alert rule.
            manifest: Of the engine that the devices run.
            member: Reads events.
            key: Signs verdicts and alerts.
            journal: Where each camera's stream stands.
            publish: Called with what is said; it must return at once.
            timeline: Says the same to people and programs.
            reference: Which scenes are known; None: verdicts have no OOD p-value.
        """
        self._manifest, self._member, self._key, self._journal = manifest, member, key, journal
        self._publish, self._timeline = publish, timeline
        self._unsure_below = config.alerts.unsure_below
        self._cameras = {camera.name: camera for camera in config.cameras}
        self.sessions: dict[str, CameraSession] = {}
        self._books: dict[str, AlertBook] = {}
        for name, camera in self._cameras.items():
            detector = OodDetector(reference, manifest.sigmas) if reference else None
            self.sessions[name] = CameraSession(name, camera.public, manifest, journal.record(name), detector)
            self._books[name] = AlertBook(config.alerts, journal.record(name).raised)
        self._unknown = self.verdicts = self.alerts = 0

    @property
    def finished(self) -> bool:
        """Whether every camera has said offline and was read to its end."""
        return all(session.ended for session in self.sessions.values())

    def handle(self, batch: Sequence[Inbound]) -> None:
        """Take messages in order of arrival, read the events they complete, publish what the member says."""
        events: list[Event] = []
        blind: list[tuple[Release, AlertChange]] = []
        for item in batch:
            session = self.sessions.get(item.camera)
            if session is None:
                self._unknown += item.name == "features"
                continue
            taken = session.receive(item.name, item.payload, item.retained)
            events += taken.events
            blind += [(r, change) for r in taken.releases for change in self._books[item.camera].blind(r.spent)]
        self._journal.save()
        for release, change in blind:
            self._tell_alert(release.camera, release.boot_id, release.slot, change, _BLIND)
        readings = self._member.read(events) if events else []
        for event, reading in zip(events, readings, strict=True):
            self._tell(event, reading)
        self._journal.save()

    def stats(self) -> dict[str, Any]:
        """Counts since the start; `refused` by reason, `refused_by_camera` in full ("": no camera of ours)."""
        sessions = sorted(self.sessions.items())
        by_camera = {"": {"unknown": self._unknown}} if self._unknown else {}
        by_camera |= {name: dict(sorted(each.refused.items())) for name, each in sessions if each.refused}
        by_reason: Counter[str] = Counter()
        for counts in by_camera.values():
            by_reason.update(counts)
        return {
            "received": self._unknown + sum(session.received for session in self.sessions.values()),
            "refused": dict(by_reason),
            "refused_by_camera": by_camera,
            "gaps": sum(session.gaps for session in self.sessions.values()),
            "verdicts": self.verdicts,
            "alerts": self.alerts,
        }

    def _tell(self, event: Event, reading: Reading) -> None:
        """Publish the verdict on an event, and every alert that it changes."""
        verdict = fill_verdict(self._manifest, event, reading, self._unsure_below)
        self.verdicts += 1
        self._send(event.camera, "verdict/cloud", verdict.seal(self._key))
        self._timeline.verdict(event.camera, verdict)
        for change in self._books[event.camera].update(reading.probabilities):
            self._tell_alert(event.camera, event.boot_id, event.last_slot, change, reading.sentence)

    def _tell_alert(self, camera: str, boot_id: int, slot: int, change: AlertChange, sentence: str) -> None:
        alert = fill_alert(self._manifest, boot_id, slot, change, sentence)
        self.alerts += 1
        self._send(camera, "alert", alert.seal(self._key))
        self._timeline.alert(camera, alert)

    def _send(self, camera: str, name: str, payload: bytes) -> None:
        who, row = self._cameras[camera], TOPICS[name]
        self._publish(topic(who.site, who.camera, name), payload, row.qos, row.retain)


def run(
    bridge: Bridge,
    take: Callable[[float], Sequence[Inbound]],
    exit_when_offline: bool,
    stopped: Callable[[], bool],
) -> None:
    """Serve until `stopped()`, or until all cameras are offline where that ends it. take: as `Mailbox.take`."""
    while not stopped():
        batch = take(_IDLE_S)
        if batch:
            bridge.handle(batch)
        elif exit_when_offline and bridge.finished:
            return
