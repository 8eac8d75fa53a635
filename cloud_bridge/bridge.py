"""The bridge, whole: messages -> intake -> events -> member -> verdicts and alerts. One thread does all of it.

    for batch in mailbox:                       # bridge.run
        events = dispatch(batch)                # intake, events: pure
        journal.save()                          # durable before anything is read: no message is ever read twice
        for event, reading in member.read(...): # all cameras in one forward
            publish(verdict); publish(alerts)

Nothing that a camera sends stops it: a message is read, or refused and counted.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cloud_bridge.config import BridgeConfig
from cloud_bridge.inference.member import Member, Reading
from cloud_bridge.ingest.events import BLIND, AlertBook, AlertChange, Event, EventReader
from cloud_bridge.ingest.intake import Intake, Release
from cloud_bridge.ingest.transport import Inbound, Publish
from cloud_bridge.store.journal import Journal
from cloud_bridge.timeline import Timeline
from familial.evaluate.ood import OodDetector, Reference
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Alert, Verdict
from wire.protocol.topics import TOPICS, topic

__all__ = ["SUBSCRIPTIONS", "Bridge", "run"]

_LOG = logging.getLogger("cloud_bridge")

SUBSCRIPTIONS = ("features", "state", "certificate")
"""What the bridge reads of each camera; names of topics."""

_IDLE_S = 0.5  # how long the mailbox must be empty before the end is believed


class Bridge:
    """Everything between the mailbox and the publisher. `publish` must return at once.

    reference: what scenes are known; None: verdicts do not say how familiar theirs is.
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
        reference: Reference | None = None,
    ) -> None:
        self._manifest = manifest
        self._member = member
        self._key = key
        self._journal = journal
        self._publish = publish
        self._timeline = timeline
        self._cameras = {camera.name: camera for camera in config.cameras}
        records = {name: journal.record(name) for name in self._cameras}
        self._records = records
        publics = {name: camera.public for name, camera in self._cameras.items()}
        self.intake = Intake(publics, manifest, records)
        shape = (manifest.event_releases, manifest.tokens, manifest.width)
        gauges = {name: OodDetector(reference, manifest.sigmas) if reference else None for name in self._cameras}
        self._readers = {name: EventReader(name, *shape, manifest.weights, gauges[name]) for name in self._cameras}
        self._unsure_below = config.alerts.unsure_below
        self._books = {name: AlertBook(config.alerts, records[name].raised) for name in self._cameras}
        self._untrusted: set[str] = set()
        self._seen: set[tuple[str, int]] = set()  # (camera, boot id) of the streams read since the start
        self._ended: set[str] = set()
        self._warned: set[str] = set()
        self._turned_blind: list[tuple[Release, AlertChange]] = []
        self.verdicts = 0
        self.alerts = 0

    @property
    def finished(self) -> bool:
        """Whether every camera has said offline and was read to its end."""
        return len(self._ended) == len(self._cameras)

    def handle(self, batch: Sequence[Inbound]) -> None:
        """Take messages in order of arrival, read the events they complete, publish what the member says."""
        events = [event for item in batch for event in self._dispatch(item)]
        self._journal.save()
        for release, change in self._turned_blind:
            self._tell_alert(release.camera, release.boot_id, release.slot, change, "noise alone: the budget is spent")
        self._turned_blind.clear()
        readings = self._member.read(events) if events else []
        for event, reading in zip(events, readings, strict=True):
            self._tell(event, reading)
        self._journal.save()

    def stats(self) -> dict[str, Any]:
        """Counts since the start; `refused` by reason, `refused_by_camera` in full."""
        by_reason: Counter[str] = Counter()
        by_camera: dict[str, dict[str, int]] = {}
        for (camera, reason), count in sorted(self.intake.refused.items()):
            by_reason[reason] += count
            by_camera.setdefault(camera, {})[reason] = count
        return {
            "received": self.intake.received,
            "refused": dict(by_reason),
            "refused_by_camera": by_camera,
            "gaps": sum(self.intake.gaps.values()),
            "verdicts": self.verdicts,
            "alerts": self.alerts,
        }

    # --- in: one message -> events

    def _dispatch(self, item: Inbound) -> list[Event]:
        if item.name == "features" and item.camera in self._untrusted:
            self.intake.received += 1
            self.intake.refuse(item.camera, "untrusted")
            return []
        if item.name == "features":
            self._ended.discard(item.camera)
            releases = self.intake.accept(item.camera, item.payload)
            self._warn_of_replays(item.camera)
            return self._events(releases)
        if item.camera not in self._cameras or not item.payload:
            return []
        if item.name == "state":
            return self._state(item)
        self._certificate(item)
        return []

    def _warn_of_replays(self, camera: str) -> None:
        if self.intake.refused[camera, "replayed"] and camera not in self._warned:
            self._warned.add(camera)
            _LOG.warning(
                "%s: refuses messages of an earlier start, or read before; if the device's ledger was made anew, "
                "delete the camera's entry in the state folder's journal.json",
                camera,
            )

    def _events(self, releases: Sequence[Release]) -> list[Event]:
        events: list[Event] = []
        for release in releases:
            self._seen.add((release.camera, release.boot_id))
            self._turned_blind += [(release, change) for change in self._books[release.camera].blind(release.spent)]
            events += self._readers[release.camera].push(release)
        return events

    def _state(self, item: Inbound) -> list[Event]:
        """Offline: read what is left. An offline of a stream that is over, or that was never ours, says nothing."""
        state = _parse_state(item.payload)
        if state is None:
            self.intake.refuse(item.camera, "malformed")
            return []
        status, boot_id = state
        if status == "online":
            self._ended.discard(item.camera)
            return []
        if boot_id < self._records[item.camera].boot_id:
            return []
        if not item.retained or (item.camera, boot_id) in self._seen:
            self._ended.add(item.camera)
        return self._events(self.intake.flush(item.camera)) + self._readers[item.camera].flush()

    def _certificate(self, item: Inbound) -> None:
        """A camera whose certificate is not this engine's, or a stricter one, is not read until it publishes one."""
        if self._manifest.covers(item.payload):
            self._untrusted.discard(item.camera)
            return
        self._untrusted.add(item.camera)
        self.intake.refuse(item.camera, "untrusted")
        _LOG.error(
            "%s: its certificate is not that of engine %016x; its messages are refused until it publishes the right "
            "one (is the engine on the device the one in [model] engine?)",
            item.camera,
            self._manifest.model_id,
        )

    # --- out: one event's reading -> a verdict and, where something turns, alerts

    def _tell(self, event: Event, reading: Reading) -> None:
        slot_s = self._manifest.window.slot_s
        verdict = Verdict(
            boot_id=event.boot_id,
            first_slot=event.first_slot,
            last_slot=event.last_slot,
            model_id=self._manifest.model_id,
            member="cloud",
            present=tuple(bool(here) for here in event.present),
            probabilities=reading.probabilities,
            sentence=reading.sentence,
            start_s=event.first_slot * slot_s,
            end_s=(event.last_slot + 1) * slot_s,
            ood_p_value=event.ood_p_value,
            unsure=event.ood_p_value is not None and event.ood_p_value < self._unsure_below,
            attributes=reading.attributes,
        )
        self.verdicts += 1
        self._send(event.camera, "verdict/cloud", verdict.seal(self._key))
        self._timeline.verdict(event.camera, verdict)
        for change in self._books[event.camera].update(reading.probabilities):
            self._tell_alert(event.camera, event.boot_id, event.last_slot, change, reading.sentence)

    def _tell_alert(self, camera: str, boot_id: int, slot: int, change: AlertChange, sentence: str) -> None:
        alert = Alert(
            boot_id=boot_id,
            slot=slot,
            model_id=self._manifest.model_id,
            raised=change.raised,
            label=change.label,
            probability=change.probability,
            sentence="" if change.label == BLIND and not change.raised else sentence,
            at_s=(slot + 1) * self._manifest.window.slot_s,
        )
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


def _parse_state(payload: bytes) -> tuple[str, int] | None:
    """(status, boot id) of a state message; None where it is not one."""
    try:
        document = json.loads(payload)
        status, boot_id = document["status"], document["boot_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = isinstance(boot_id, int) and not isinstance(boot_id, bool) and 0 <= boot_id < 2**64
    return (status, boot_id) if status in ("online", "offline") and whole else None
