"""The bridge: messages -> sessions -> events -> member -> verdicts and alerts. One thread does all of it.

    for batch in mailbox:                       # run: at most 64 messages, a message of each camera in turn
        taken = session.receive(message, now)   # one session for each camera; pure
        for event, reading in member.read(...): # all cameras in one forward
            publish(verdict); publish(alerts)
        wait for the broker to have them; journal.save(); acknowledge the batch

So what the broker no longer keeps for us was read, its verdicts are with the broker, and no restart reads it again. A
crash in between repeats verdicts: boot id and last slot name them.

No message of a camera can stop it: each is read, or refused and counted. Nothing late raises or clears a risk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cloud_bridge.alerts.budget import AlertBudget
from cloud_bridge.alerts.lifecycle import BLIND, LATE, NOT_WATCHING, STALE, AlertBook, AlertChange
from cloud_bridge.config import BridgeConfig
from cloud_bridge.documents import fill_open_alerts
from cloud_bridge.inference.member import Member, Reading
from cloud_bridge.ingest.events import Event
from cloud_bridge.ingest.freshness import Allowance, Freshness
from cloud_bridge.ingest.session import CameraSession, Taken
from cloud_bridge.ingest.transport import Inbound, Link
from cloud_bridge.messages import fill_alert, fill_verdict
from cloud_bridge.store.journal import CameraRecord, Journal
from cloud_bridge.timeline import Timeline
from familial.evaluate.ood_detector import OodDetector, ReferenceDistribution
from familial.evaluate.sequential import Moment
from wire.artifact.manifest import EngineManifest
from wire.mqtt import Message, Receipt
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time
from wire.protocol.topics import TOPICS, topic

__all__ = ["SUBSCRIPTIONS", "Bridge", "run"]

SUBSCRIPTIONS = ("features", "state", "certificate")
"""What the bridge reads of each camera; names of topics."""

_IDLE_S = 0.5  # the mailbox must be empty for so long before the bridge may end
_STALE_SLOTS = 10  # a camera is never stale before so many slots have passed
_OFFLINE = "the device is offline, or has lost its connection"
_SILENT = "look at the device, and whether the broker's access list lets the bridge read it"
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
        link: Link,
        timeline: Timeline,
        reference: ReferenceDistribution | None = None,
        clock: Callable[[], float] = time.time,
        budget: AlertBudget | None = None,
    ) -> None:
        """Continue every camera after the last slot in the journal.

        Args:
            config: Cameras and the alert rule.
            manifest: Of the engine that the devices run.
            member: Reads events.
            key: Signs verdicts and alerts.
            journal: The last slot read of each camera, and its raised alerts.
            link: The connection to the broker.
            timeline: Prints the same for people and programs.
            reference: The known scenes; None: verdicts have no OOD p-value.
            clock: Seconds since 1970.
            budget: Of false alerts; None: by the counts of the alert rule.
        """
        self._manifest, self._member, self._key, self._journal = manifest, member, key, journal
        self._link, self._timeline, self._clock = link, timeline, clock
        self._unsure_below, self._sentence_every_s = config.alerts.unsure_below, config.model.sentence_every_s
        self._stale_after_s = max(config.ingest.stale_after_s, _STALE_SLOTS * manifest.window.slot_s)
        self._receipts = list[Receipt]()
        self._described: dict[str, tuple[int, int]] = {}  # camera -> boot id and last slot of its newest sentence
        self._cameras = {camera.name: camera for camera in config.cameras}
        self.sessions: dict[str, CameraSession] = {}
        self._books: dict[str, AlertBook] = {}
        self._records: dict[str, CameraRecord] = {}
        for each in manifest.accepted:
            each.difference({})  # computed now, so that no message waits for it
        for name, camera in self._cameras.items():
            detector = OodDetector(reference, manifest.sigmas) if reference else None
            record = journal.record(name, camera.public.hex)
            fresh = Freshness(name, config.ingest, camera.clock_behind_s)
            allowance = Allowance(config.ingest, manifest.window.slot_s)
            self.sessions[name] = CameraSession(
                name, camera.public, manifest, record, detector, freshness=fresh, allowance=allowance
            )
            self._books[name] = AlertBook(config.alerts, record.raised, record.in_a_row, budget)
            self._records[name], record.in_a_row = record, {}
        self._began_s = clock()
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
        self._receipts += [item.receipt for item in batch if item.receipt is not None]
        self._use(took)
        self._commit()

    def settle(self) -> None:
        """Read what waits for slots that will not come; call it while no message comes."""
        now_s = self._clock()
        self._use([(camera, session.settle(now_s)) for camera, session in self.sessions.items()])
        self._commit()

    def watch(self) -> None:
        """Raise an alert for each camera of which nothing comes; call it regularly."""
        now_s = self._clock()
        for camera, session in self.sessions.items():
            silent_s = now_s - max(session.fresh_s, self._began_s)
            if silent_s > self._stale_after_s or (session.ended and self._books[camera].risk):
                why = f"nothing has come for {silent_s:.0f} s; {_OFFLINE if session.offline else _SILENT}"
                place, changes = session.place, self._books[camera].condition(STALE, True)
                self._publish_alerts([(camera, *place, change, why) for change in changes])

    def close(self) -> None:
        """Read what waits for slots that may still come, and keep what the next start goes on with."""
        self._use([(camera, session.close()) for camera, session in self.sessions.items()])
        for camera, book in self._books.items():
            self._records[camera].in_a_row = book.in_a_row
        self._commit()

    def open_alerts(self) -> list[Message]:
        """The open alerts of each camera, for the beginning of a connection."""
        return [self._open_alerts(camera) for camera in self._cameras]

    def _commit(self) -> None:
        """Acknowledge what was read, once the broker has its verdicts and the journal is durable."""
        if not self._link.flush():
            return  # the broker sends again what was not acknowledged, or we acknowledge it later
        self._journal.save()
        self._link.acknowledge(self._receipts)
        self._receipts.clear()

    def _use(self, took: Sequence[tuple[str, Taken]]) -> None:
        """Read the events and publish verdicts and alerts."""
        self._publish_alerts(
            [(camera, *change) for camera, taken in took for change in self._conditions(camera, taken)]
        )
        events = [event for _, taken in took for event in taken.events]
        readings = self._member.read(events) if events else []
        turned = [self._turn(event, reading) for event, reading in zip(events, readings, strict=True)]
        asked = [self._wants_words(event, changes) for event, changes in zip(events, turned, strict=True)]
        wanted = [event for event, wants in zip(events, asked, strict=True) if wants]
        words = iter(self._member.describe(wanted) if wanted else [])
        for event, reading, changes, wants in zip(events, readings, turned, asked, strict=True):
            sentence = next(words) if wants else ""
            self._publish_verdict(event, reading, sentence)
            place = (event.camera, event.boot_id, event.last_slot)
            self._publish_alerts([(*place, change, sentence) for change in changes])

    def _turn(self, event: Event, reading: Reading) -> list[AlertChange]:
        """The alerts that an event changes: none where it is late."""
        book = self._books[event.camera]
        if event.late:
            book.pause()
            return []
        present = sum(1 << k for k, there in enumerate(reversed(event.present.tolist())) if there)
        at = Moment(event.boot_id, event.last_slot, present)
        return book.update(reading.probabilities, reading.attributes, at)

    def _wants_words(self, event: Event, changes: Sequence[AlertChange]) -> bool:
        """Whether a verdict has a sentence: making one takes ten times as long as reading the event."""
        boot_id, slot = self._described.get(event.camera, (-1, 0))
        passed_s = (event.last_slot - slot) * self._manifest.window.slot_s
        wants = bool(changes) or boot_id != event.boot_id or passed_s >= self._sentence_every_s
        if wants:
            self._described[event.camera] = (event.boot_id, event.last_slot)
        return wants

    def _conditions(self, camera: str, taken: Taken) -> list[tuple[int, int, AlertChange, str]]:
        """Alerts about the camera itself that change: (boot id, slot, change, sentence) of each."""
        book, out = self._books[camera], list[tuple[int, int, AlertChange, str]]()
        if taken.releases:
            place = (taken.releases[-1].boot_id, taken.releases[-1].slot)
            out += [(*place, change, "") for change in book.condition(STALE, False)]
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

    def _publish_verdict(self, event: Event, reading: Reading, sentence: str) -> None:
        time_s = coarse_time(self._clock())
        verdict = fill_verdict(self._manifest, event, reading, sentence, self._unsure_below, time_s)
        self.verdicts += 1
        self._send(event.camera, "verdict/cloud", verdict.seal(self._key, *self._names(event.camera)))
        self._timeline.verdict(event.camera, verdict)

    def _publish_alerts(self, changes: Sequence[tuple[str, int, int, AlertChange, str]]) -> None:
        """Publish alerts that change, and what is open after them. changes: camera, boot id, slot, change, sentence."""
        for camera, boot_id, slot, change, sentence in changes:
            alert = fill_alert(self._manifest, boot_id, slot, change, sentence, coarse_time(self._clock()))
            self.alerts += 1
            self._send(camera, "alert", alert.seal(self._key, *self._names(camera)))
            self._timeline.alert(camera, alert)
        for camera in dict.fromkeys(change[0] for change in changes):
            self._link.publish(*self._open_alerts(camera))

    def _open_alerts(self, camera: str) -> Message:
        labels, time_s = self._books[camera].raised, coarse_time(self._clock())
        return self._message(camera, "alert/open", fill_open_alerts(labels, time_s, self._key, *self._names(camera)))

    def _send(self, camera: str, name: str, payload: bytes) -> None:
        self._link.publish(*self._message(camera, name, payload))

    def _message(self, camera: str, name: str, payload: bytes) -> Message:
        row = TOPICS[name]
        return Message(topic(*self._names(camera), name), payload, row.qos, row.retain)

    def _names(self, camera: str) -> tuple[str, str]:
        return self._cameras[camera].site, self._cameras[camera].camera


def run(
    bridge: Bridge,
    take: Callable[[float], Sequence[Inbound]],
    exit_when_offline: bool,
    stopped: Callable[[], bool],
) -> None:
    """Serve until `stopped()`, or until all cameras are offline where that ends it; a batch that was taken is read.

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
        else:
            bridge.settle()
        if not exit_when_offline:
            bridge.watch()
        elif not batch and bridge.finished:
            break
    bridge.close()
