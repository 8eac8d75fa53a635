"""The bridge: messages -> sessions -> events -> member -> verdicts and alerts. One thread does all of it.

    for batch in mailbox:                       # run
        taken = session.receive(message, now)   # one session for each camera; pure
        journal.save()                          # durable before an event is read: no message is ever read twice
        for event, reading in member.read(...): # all cameras in one forward
            publish(verdict); publish(alerts)

No message of a camera can stop it: each is read, or refused and counted. Nothing late raises or clears a risk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cloud_bridge.alerts.lifecycle import BLIND, LATE, NOT_WATCHING, AlertBook, AlertChange
from cloud_bridge.config import BridgeConfig
from cloud_bridge.inference.member import Member, Reading
from cloud_bridge.ingest.events import Event
from cloud_bridge.ingest.freshness import Freshness
from cloud_bridge.ingest.session import CameraSession, Taken
from cloud_bridge.ingest.transport import Inbound, Publish
from cloud_bridge.messages import fill_alert, fill_verdict
from cloud_bridge.store.journal import Journal
from cloud_bridge.timeline import Timeline
from familial.evaluate.ood_detector import OodDetector, ReferenceDistribution
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time
from wire.protocol.topics import TOPICS, topic

__all__ = ["SUBSCRIPTIONS", "Bridge", "run"]

SUBSCRIPTIONS = ("features", "state", "certificate")
"""What the bridge reads of each camera; names of topics."""

_IDLE_S = 0.5  # the mailbox must be empty for so long before the bridge may end
_BLIND = "noise alone: the budget is spent"
_NOT_WATCHING = "the device's eye does not answer: nothing is seen"


class Bridge:
    """Everything between the mailbox and the MQTT connection.

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Continue every camera after the last slot in the journal.

        Args:
            config: Cameras and the alert rule.
            manifest: Of the engine that the devices run.
            member: Reads events.
            key: Signs verdicts and alerts.
            journal: The last slot read of each camera, and its raised alerts.
            publish: Called with each message; it must return at once.
            timeline: Prints the same for people and programs.
            reference: The known scenes; None: verdicts have no OOD p-value.
            clock: Seconds since 1970.
        """
        self._manifest, self._member, self._key, self._journal = manifest, member, key, journal
        self._publish, self._timeline, self._clock = publish, timeline, clock
        self._unsure_below = config.alerts.unsure_below
        self._cameras = {camera.name: camera for camera in config.cameras}
        self.sessions: dict[str, CameraSession] = {}
        self._books: dict[str, AlertBook] = {}
        for name, camera in self._cameras.items():
            detector = OodDetector(reference, manifest.sigmas) if reference else None
            record = journal.record(name, camera.public.hex)
            fresh = Freshness(name, config.ingest, camera.clock_behind_s)
            self.sessions[name] = CameraSession(name, camera.public, manifest, record, detector, freshness=fresh)
            self._books[name] = AlertBook(config.alerts, record.raised)
        self._unknown = self.verdicts = self.alerts = 0

    @property
    def finished(self) -> bool:
        """Whether every camera is offline and was read to its end."""
        return all(session.ended for session in self.sessions.values())

    def handle(self, batch: Sequence[Inbound]) -> None:
        """Take messages in order of arrival, read the events that they complete, publish verdicts and alerts."""
        now_s, took = self._clock(), list[tuple[str, Taken]]()
        for item in batch:
            session = self.sessions.get(item.camera)
            if session is None:
                self._unknown += item.name == "features"
                continue
            took.append((item.camera, session.receive(item.name, item.payload, item.retained, now_s)))
        self._use(took)

    def settle(self) -> None:
        """Read what waits for slots that will not come; call it while no message comes."""
        now_s = self._clock()
        self._use([(camera, session.settle(now_s)) for camera, session in self.sessions.items()])

    def _use(self, took: Sequence[tuple[str, Taken]]) -> None:
        """Read the events and publish verdicts and alerts, after the journal is durable."""
        events = [event for _, taken in took for event in taken.events]
        changes = [(camera, *change) for camera, taken in took for change in self._conditions(camera, taken)]
        self._journal.save()
        for change in changes:
            self._publish_alert(*change)
        readings = self._member.read(events) if events else []
        for event, reading in zip(events, readings, strict=True):
            self._publish_verdict(event, reading)
        self._journal.save()

    def _conditions(self, camera: str, taken: Taken) -> list[tuple[int, int, AlertChange, str]]:
        """Alerts about the camera itself that change: (boot id, slot, change, sentence) of each."""
        book, out = self._books[camera], list[tuple[int, int, AlertChange, str]]()
        for release in taken.releases:
            place = (release.boot_id, release.slot)
            out += [(*place, change, release.complaint) for change in book.condition(LATE, bool(release.complaint))]
            if not release.complaint:
                out += [(*place, change, _BLIND) for change in book.condition(BLIND, release.spent)]
        if taken.state is not None:
            place, holds = self.sessions[camera].place, not taken.state.watching
            out += [(*place, change, _NOT_WATCHING) for change in book.condition(NOT_WATCHING, holds)]
        return [(boot_id, slot, change, words if change.raised else "") for boot_id, slot, change, words in out]

    def stats(self) -> dict[str, Any]:
        """Counts since the start; in `refused_by_camera`, "" stands for cameras that are not configured."""
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

    def _publish_verdict(self, event: Event, reading: Reading) -> None:
        """Publish the verdict on an event, and every alert that it changes."""
        book, time_s = self._books[event.camera], coarse_time(self._clock())
        verdict = fill_verdict(self._manifest, event, reading, self._unsure_below, time_s)
        self.verdicts += 1
        self._send(event.camera, "verdict/cloud", verdict.seal(self._key, *self._names(event.camera)))
        self._timeline.verdict(event.camera, verdict)
        if event.late:
            book.pause()
            return
        for change in book.update(reading.probabilities):
            self._publish_alert(event.camera, event.boot_id, event.last_slot, change, reading.sentence)

    def _publish_alert(self, camera: str, boot_id: int, slot: int, change: AlertChange, sentence: str) -> None:
        alert = fill_alert(self._manifest, boot_id, slot, change, sentence, coarse_time(self._clock()))
        self.alerts += 1
        self._send(camera, "alert", alert.seal(self._key, *self._names(camera)))
        self._timeline.alert(camera, alert)

    def _send(self, camera: str, name: str, payload: bytes) -> None:
        row = TOPICS[name]
        self._publish(topic(*self._names(camera), name), payload, row.qos, row.retain)

    def _names(self, camera: str) -> tuple[str, str]:
        return self._cameras[camera].site, self._cameras[camera].camera


def run(
    bridge: Bridge,
    take: Callable[[float], Sequence[Inbound]],
    exit_when_offline: bool,
    stopped: Callable[[], bool],
) -> None:
    """Serve until `stopped()`, or until all cameras are offline where that ends it.

    Args:
        bridge: The bridge.
        take: As `Mailbox.take`.
        exit_when_offline: Whether to end once every camera is offline and was read to its end.
        stopped: Whether to end now.
    """
    while not stopped():
        batch = take(_IDLE_S)
        if batch:
            bridge.handle(batch)
            continue
        bridge.settle()
        if exit_when_offline and bridge.finished:
            return
