"""The bridge: messages -> sessions -> events -> member -> verdicts and alerts. One thread does all of it.

A large batch's signatures alone are looked at by others, too (ingest/signatures.py).

    for batch in mailbox:                       # loop.py: at most 256 messages, a message of each camera in turn
        taken = session.receive(message, now)   # one session for each camera; pure
        for event, reading in member.read(...): # all cameras of one model in one forward
            work += verdict, alerts
        store.commit(work)                      # releases, verdicts, alerts and outbox, one transaction
        acknowledge the batch; publisher.pump() # the broker has what is in the outbox, or will

So what the broker no longer keeps for us is in the store, with all that follows from it. A crash at any point leaves
the store as the last commit made it; the broker sends the rest again. While the store cannot be written, nothing is
read on and nothing acknowledged.

No message of a camera can stop it: each is read, or refused and counted. Nothing late raises or clears a risk.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cloud_bridge.alerts.conditions import CameraConditions, Turn
from cloud_bridge.alerts.lifecycle import AlertBook, AlertChange
from cloud_bridge.alerts.quiet import QuietHours
from cloud_bridge.alerts.scenes import SceneBook, Scenes
from cloud_bridge.alerts.severity import next_severity
from cloud_bridge.config import BridgeConfig
from cloud_bridge.documents import fill_open_alerts
from cloud_bridge.inference.member import Reading
from cloud_bridge.ingest.engines import Engines
from cloud_bridge.ingest.events import NOTHING, Event, Taken
from cloud_bridge.ingest.freshness import Allowance, Freshness
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.ingest.signatures import Signatures
from cloud_bridge.ingest.transport import Inbound, Link
from cloud_bridge.messages import fill_alert, fill_verdict
from cloud_bridge.models import Models, ask_each, engines, first_of
from cloud_bridge.publisher import Publisher
from cloud_bridge.requests import Requests
from cloud_bridge.store.records import CameraRecord, Work
from cloud_bridge.store.retention import Retention
from cloud_bridge.store.store import Store
from cloud_bridge.telemetry.stages import Stages
from cloud_bridge.timeline import Timeline
from cloud_bridge.webhooks.letters import Letters
from familial.evaluate.sequential import Moment
from wire.errors import StoreAway
from wire.mqtt import Message, Receipt
from wire.protocol.contour import Contour, seal_contour
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Alert, Verdict, coarse_time
from wire.protocol.topics import TOPICS, topic

__all__ = ["SUBSCRIPTIONS", "Bridge"]

SUBSCRIPTIONS = ("features", "state", "certificate")
"""What the bridge reads of each camera; names of topics."""

_LOG = logging.getLogger("cloud_bridge")

_DRAIN_S = 5.0  # for the outbox at the end
_LOOK_S = 1.0  # between two counts
_SILENT_S = 20.0  # without a release, after which a camera's health is bad
_STALE_SLOTS = 10  # a camera is never stale before so many slots have passed
_BEHIND = 64  # messages that wait for the broker, from which no figure is added to them


class Bridge:
    """Everything between the mailbox and the MQTT connection.

    Attributes:
        sessions: `site/camera` -> the camera's session.
        models: What reads events.
        publisher: Takes the outbox to the broker.
        trouble: Why the store cannot be written; "" where it can.
        listeners: Called after each commit with (camera, verdict or alert, the alert's id or "").
        viewers: Called with camera and figure when it is published.
        stages: When the newest batch came, was read and was written.
        health: The counts of a moment ago; any thread may look.
        verdicts: Verdicts made since the start.
        alerts: Alerts made since the start.
        degraded: Events that the edge's exit has read since the start.
    """

    def __init__(
        self,
        config: BridgeConfig,
        models: Models,
        key: DeviceKey,
        store: Store,
        link: Link,
        timeline: Timeline,
        clock: Callable[[], float] = time.time,
        told: Callable[[str], None] = lambda trouble: None,
    ) -> None:
        """Continue every camera where the store's last commit left it. Raises StoreError.

        Args:
            config: Cameras and the alert rule.
            models: Of the engines that the devices run.
            key: Signs verdicts and alerts.
            store: What was read and made so far; this bridge writes it.
            link: The connection to the broker.
            timeline: Prints the same for people and programs.
            clock: Seconds since 1970.
            told: Called with `trouble` when it begins and when it ends.
        """
        self.models, self._key, self._store = models, key, store
        self._link, self._timeline, self._clock = link, timeline, clock
        self._unsure_below = config.alerts.unsure_below
        shape = first_of(models).manifest  # slot and event, in which all agree
        self._slot_s, few_s = shape.window.slot_s, _STALE_SLOTS * shape.window.slot_s
        stale_after_s, self._silent_s = max(config.ingest.stale_after_s, few_s), max(_SILENT_S, few_s)
        self._escalate_s, self._shed_after_s = config.alerts.escalate_s, config.ingest.shed_after_s
        self._requests = Requests(
            store, bool(config.commands.operator_key), config.model.sentence_every_s, self._slot_s
        )
        self._letters = Letters(config.webhooks, QuietHours(config.alerts.quiet, config.alerts.quiet_zone))
        self.publisher, self.trouble, self._tell = Publisher(store, link), "", told
        self._receipts, self._retention = list[Receipt](), Retention(config.store, store.engine)
        self.listeners, self.health = list[Callable[[str, Verdict | Alert, str], None]](), dict[str, Any]()
        self._work, self._told, self.stages = Work(), list[tuple[str, Verdict | Alert, str]](), Stages()
        self._cameras = {camera.name: camera for camera in config.cameras}
        self.sessions: dict[str, CameraSession] = {}
        self._books: dict[str, AlertBook] = {}
        self._records, self._conditions = dict[str, CameraRecord](), dict[str, CameraConditions]()
        self._scenes = Scenes(config.scenes, shape.event_releases * self._slot_s)
        self._figures, self.viewers = list[tuple[str, Contour]](), list[Callable[[str, Contour], None]]()
        known = engines(models)
        for name, camera in self._cameras.items():
            record = store.record(name, camera.public.hex)
            self._books[name] = self._book(name, config, record)
            self.sessions[name] = self._session(name, config, known, record)
            self._records[name] = record
            self._conditions[name] = CameraConditions(self.sessions[name], self._books[name], stale_after_s)
        self._signatures = Signatures(self.sessions)
        store.commit(self._begin_work())
        self._began_s, self._looked_s = clock(), -_LOOK_S
        self._unknown = self.verdicts = self.alerts = self.degraded = self._forgotten = 0
        self._behind = set[str]()  # cameras of which something in this batch is overdue
        for name, record in self._records.items():
            if record.boot_id >= 0:
                self._publish_alerts([(name, turn) for turn in self._conditions[name].begin(store.place.away_s)])

    def _session(self, name: str, config: BridgeConfig, known: Engines, record: CameraRecord) -> CameraSession:
        """Make the session of a camera, with what the store has of its event."""
        camera, releases = self._cameras[name], first_of(self.models).manifest.event_releases
        return CameraSession(
            name,
            camera.public,
            known,
            record,
            freshness=Freshness(name, config.ingest, camera.clock_behind_s),
            allowance=Allowance(config.ingest, self._slot_s),
            recent=self._store.recent(record, releases) if record.boot_id >= 0 else (),
            views=1 + len(self._scenes.others(name)),
        )

    def _book(self, name: str, config: BridgeConfig, record: CameraRecord) -> AlertBook:
        """Make the book of a camera's alerts; what it keeps of evidence is of one model."""
        if self._scenes.has(name):
            return SceneBook(config.alerts, record.raised, record.in_a_row)
        weighed = record.event.get("weighed", record.event.get("model"))
        former = next((number for number in self.models if weighed == f"{number:016x}"), None)
        number = next(iter(self.models)) if former is None else former
        budget = self.models[number].budget
        keeps = former is not None if budget else "weighed" not in record.event
        return AlertBook(config.alerts, record.raised, record.in_a_row if keeps else {}, budget, number)

    def _begin_work(self) -> Work:
        """What the first commit writes: all records, and what of them can be read by no model any more."""
        work = Work(records=dict(self._records))
        for name, session in self.sessions.items():
            for place in session.given_up:
                work.refuse(self._records[name], *place)
        return work

    @property
    def finished(self) -> bool:
        """Whether every camera is offline and was read to its end."""
        return all(session.ended for session in self.sessions.values())

    def handle(self, batch: Sequence[Inbound]) -> None:
        """Take messages in order of arrival, read the events that they complete, publish verdicts and alerts."""
        now_s, took = self._clock(), list[tuple[str, Taken]]()
        self.stages.begin((item.camera, item.came_s) for item in batch)
        before_s = now_s - self._shed_after_s
        overdue_s = before_s if self._began_s < before_s else -math.inf  # while we did not read, nothing was overdue
        for item, ahead in zip(batch, self._signatures.ahead(batch, now_s), strict=True):
            session = self.sessions.get(item.camera)
            if session is None:
                self._unknown += item.name == "features"
                continue
            shed = item.followed and item.came_s is not None and item.came_s < overdue_s
            if shed:
                self._behind.add(item.camera)
            taken = session.receive(item.name, item.payload, item.retained, now_s, item.came_s, shed, ahead)
            took.append((item.camera, taken))
        self._receipts += [item.receipt for item in batch if item.receipt is not None]
        self._use(took)
        self._behind.clear()
        self._commit()

    def change(self, models: Models) -> None:
        """Read with these models from now on. What came of one that is not among them is read with it before."""
        now_s, known = self._clock(), engines(models)
        self._use([(camera, session.change(known, now_s)) for camera, session in self.sessions.items()])
        former, self.models = self.models, models
        if self._work:
            self._commit()
        for number, model in former.items():
            if models.get(number) is not model:
                model.close()

    def settle(self) -> None:
        """Read what waits for slots that will not come; call it while no message comes."""
        now_s = self._clock()
        self._use([(camera, session.settle(now_s)) for camera, session in self.sessions.items()])
        if self._work:
            self._commit()

    def watch(self) -> None:
        """Raise and clear the alerts that time alone decides; call it regularly."""
        if self.trouble:
            return  # the last commit may have been made, and is asked for again as it was
        now_s = self._clock()
        for camera, conditions in self._conditions.items():
            self._publish_alerts([(camera, turn) for turn in conditions.watch(now_s, self._began_s)])
        if self._escalate_s:
            self._escalate(now_s)
        if self._work:
            self._commit()

    def _escalate(self, now_s: float) -> None:
        """Tell again, as more severe, what nobody has acknowledged in time."""
        due = [
            (camera, label, opened)
            for camera, record in self._records.items()
            for label, opened in record.open.items()
            if opened.told_s >= 0.0 and now_s - opened.told_s >= self._escalate_s and next_severity(opened.severity)
        ]
        try:
            seen = self._store.seen([opened.id for _, _, opened in due]) if due else set[str]()
        except StoreAway:
            return  # the next commit says so
        for camera, label, opened in due:
            if opened.id in seen:
                self._records[camera].open[label] = opened._replace(told_s=-1.0)
                self._work.records[camera] = self._records[camera]
                continue
            change = AlertChange(label, True, opened.probability, next_severity(opened.severity))
            words = f"nobody has acknowledged it for {now_s - opened.told_s:.0f} s"
            self._publish_alerts([(camera, Turn(*self.sessions[camera].place, change, words))])

    def rest(self) -> None:
        """Do what is due while nothing comes: keep our place in the store, forget what is published."""
        self.publisher.pump()
        if self._store.resting or self.publisher.delivered > self._forgotten:
            self._commit()

    def tidy(self) -> None:
        """Delete some of what is too old, where that is due, and count what there is to know; call it regularly."""
        self._retention.step(self._clock())
        self._look_at_requests()
        self.look()

    def _look_at_requests(self) -> None:
        """Put commands that the API has taken into the outbox, in one commit with the word that they are there."""
        for each in () if self.trouble else self._requests.look():
            if each.camera in self._records and each not in self._work.commands:
                message = self._message(each.camera, "command", each.payload)
                self._work.outbox.append((self._records[each.camera].id, message))
                self._work.commands.append(each)
        if self._work:
            self._commit()

    def look(self) -> None:
        """Make `health` anew, where it is a second old."""
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._looked_s, now_s = time.monotonic(), self._clock()
            silent = [c for c, each in self._conditions.items() if each.silent_s(now_s, self._began_s) > self._silent_s]
            link = {"connected": self._link.connected, "silent": silent, "looked_s": self._looked_s}
            unknown = {c: each.unknown_model for c, each in self.sessions.items() if each.unknown_model}
            run = Counter(each.model_id for each in self.sessions.values())
            models = {f"{number:016x}": run[number] for number in self.models}
            about = {"models": models, "unknown_models": unknown}
            self.health = {**self.stats(), "trouble": self.trouble, **link, **about}

    def close(self) -> None:
        """Make everything durable, and publish what is in the outbox as far as the broker takes it within 5 s."""
        self._commit()
        give_up = time.monotonic() + _DRAIN_S
        while self.publisher.waiting and self._link.connected and not self.trouble and time.monotonic() < give_up:
            self.publisher.pump()
            time.sleep(0.005)
        self._commit()
        self._signatures.close()

    def open_alerts(self) -> list[Message]:
        """The open alerts of each camera, for the beginning of a connection."""
        return [self._open_alerts(camera) for camera in self._cameras]

    def retry(self) -> bool:
        """Try again to write what could not be written; returns whether it is."""
        if self.trouble:
            self.publisher.pump()
            self._commit()
        return not self.trouble

    def _commit(self) -> None:
        """Write what was read and made; then acknowledge, tell and publish it. Sets `trouble` where that fails."""
        work, delivered = self._work, self.publisher.delivered
        for camera, record in work.records.items():
            book = self._books[camera]
            record.event, record.in_a_row = {**self.sessions[camera].saved(), **book.weighed}, book.in_a_row
        due = bool(work) or delivered > self._forgotten or self._store.resting  # rubbish alone costs no commit
        self.stages.writing()
        try:
            numbered = self._store.commit(work, delivered) if due else []
        except StoreAway as error:
            self._begin_trouble(str(error))
            return
        self.stages.written()
        self._end_trouble()
        self._work, self._forgotten = Work(), delivered
        self._link.acknowledge(self._receipts)
        self._receipts.clear()
        for camera, made, number in self._told:
            self._timeline.show(camera, made)
            for listener in self.listeners:
                listener(camera, made, number)
        self._told.clear()
        self.publisher.add(numbered)
        self.publisher.pump()
        self._show()

    def _show(self) -> None:
        """Publish the figures of this commit: not stored, never again, and none where the broker is behind."""
        listens = self._link.connected and self._store.place.held and self.publisher.waiting < _BEHIND
        shown, self._figures = self._figures, []
        for camera, contour in shown:
            for viewer in self.viewers:
                viewer(camera, contour)
            if listens:
                payload = seal_contour(contour, self._key, *self._names(camera))
                self._link.publish(self._message(camera, "contour", payload))

    def _begin_trouble(self, words: str) -> None:
        if not self.trouble:
            _LOG.error("nothing is read or acknowledged until the store can be written: %s", words)
            self._tell(f"the store cannot be written: {words}")
        self._figures.clear()  # they would be old
        self.trouble = words

    def _end_trouble(self) -> None:
        if self.trouble:
            _LOG.warning("the store can be written again")
            self._began_s = self._clock()  # no camera was silent: we did not listen
            self._tell("")
        self.trouble = ""

    def _use(self, took: Sequence[tuple[str, Taken]]) -> None:
        """Keep the releases, read the events, and make verdicts and alerts."""
        for camera, taken in took:
            self._keep(camera, taken)
        self._publish_alerts(
            [(camera, turn) for camera, taken in took for turn in self._conditions[camera].take(taken)]
        )
        events = [event for _, taken in took for event in taken.events]
        self.stages.reading(len(events))
        readings = ask_each(self.models, events, lambda member, own: member.read(own))
        self.stages.read()
        now_s, cloud = self._clock(), [reading.member == "cloud" for reading in readings]
        for event, answered in zip(events, cloud, strict=True):
            self._conditions[event.camera].answered(answered, now_s)
        self.degraded += cloud.count(False)
        turned = [self._turn(event, reading) for event, reading in zip(events, readings, strict=True)]
        wants = self._requests.wants_words
        self._requests.begin(len(events))
        asked = [
            answered
            and wants(event, bool(changes), self._records[event.camera], self._work, event.camera in self._behind)
            for answered, event, changes in zip(cloud, events, turned, strict=True)
        ]
        wanted = [event for event, has_words in zip(events, asked, strict=True) if has_words]
        words = iter(ask_each(self.models, wanted, lambda member, own: member.describe(own)))
        for event, reading, changes, has_words in zip(events, readings, turned, asked, strict=True):
            said, model = next(words) if has_words else "" if changes else None, self.models[event.model_id]
            if reading.member == "cloud" or not event.late:  # the device's own verdict stands; ours could not say late
                self._publish_verdict(event, reading, model.sentence(event, reading, said))
            place = (event.boot_id, event.last_slot)
            told = [(change, model.sentence(event, reading, said, change)) for change in changes]
            self._publish_alerts([(event.camera, Turn(*place, *each)) for each in told], event.model_id)
        self._draw([event for event in events if event.camera not in self._behind])

    def _draw(self, events: Sequence[Event]) -> None:
        """Draw the newest event of each camera, where its model has an artist."""
        newest = {event.camera: event for event in events}
        raised = {camera: self._books[camera].raised for camera in newest}
        for number, model in self.models.items() if newest else ():
            own = [event for event in newest.values() if event.model_id == number]
            if model.artist is not None:
                self._figures += model.artist.draw(own, raised, coarse_time(self._clock()))

    def _keep(self, camera: str, taken: Taken) -> None:
        """Put what a camera has sent into the work of this commit."""
        if taken is NOTHING:
            return
        record, now_s = self._records[camera], self._clock()
        self._work.records[camera] = record
        for accepted in taken.accepted:
            self._work.release(record, accepted, now_s)
        for place in taken.unread:
            self._work.refuse(record, *place)

    def _turn(self, event: Event, reading: Reading) -> list[AlertChange]:
        """The alerts that an event changes: none where it is late."""
        book = self._books[event.camera]
        book.follow(event.model_id, self.models[event.model_id].budget)
        if event.late:
            book.pause()
            return []
        present = sum(1 << k for k, there in enumerate(reversed(event.present.tolist())) if there)
        weights = None if event.weights is None else event.weights[::-1]
        at = Moment(event.boot_id, event.last_slot, present, event.z[::-1].reshape(len(event.z), -1), weights)
        raised = {
            other: self._books[other].raised for other in self._scenes.others(event.camera) if other in self._books
        }
        views = self._scenes.take(event.camera, reading.probabilities, self._clock(), raised)
        return book.update(reading.probabilities, reading.attributes, at, views)

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
            "shed": sum(session.shed for session in self.sessions.values()),
            "skewed": sum(session.skewed for session in self.sessions.values()),
            "verdicts": self.verdicts,
            "alerts": self.alerts,
            "degraded": self.degraded,
        }

    def _publish_verdict(self, event: Event, reading: Reading, sentence: str) -> None:
        now_s, record = self._clock(), self._records[event.camera]
        manifest = self.models[event.model_id].manifest
        verdict = fill_verdict(manifest, event, reading, sentence, self._unsure_below, coarse_time(now_s))
        self.verdicts += 1
        sealed = verdict.seal(self._key, *self._names(event.camera))
        self._work.verdict(record, verdict, self._message(event.camera, "verdict/cloud", sealed), now_s)
        self._told.append((event.camera, verdict, ""))

    def _publish_alerts(self, changes: Sequence[tuple[str, Turn]], model_id: int | None = None) -> None:
        """Publish alerts that change, and what is open after them.

        Args:
            changes: Camera, change.
            model_id: Of the event that they are of; None: they are of no event.
        """
        now_s = self._clock()
        for camera, turn in changes:
            self.alerts += 1
            record = self._work.records[camera] = self._records[camera]
            session = self.sessions[camera]
            engine = session.engine if model_id is None else self.models[model_id].engine
            made = fill_alert(engine.manifest, turn, coarse_time(now_s), session.device_s)
            alert = record.change(made, now_s)
            sealed = alert.seal(self._key, *self._names(camera))
            self._work.alert(record, alert, self._message(camera, "alert", sealed), now_s)
            self._work.webhooks += self._letters.rows(record, alert, now_s)
            self._told.append((camera, alert, alert.id))
        for camera in dict.fromkeys(camera for camera, _ in changes):
            self._work.outbox.append((self._records[camera].id, self._open_alerts(camera)))

    def _open_alerts(self, camera: str) -> Message:
        labels, opened = self._books[camera].raised, self._records[camera].open
        own = (coarse_time(self._clock()), self._key, *self._names(camera))
        return self._message(camera, "alert/open", fill_open_alerts(labels, opened, *own))

    def _message(self, camera: str, name: str, payload: bytes) -> Message:
        row = TOPICS[name]
        return Message(topic(*self._names(camera), name), payload, row.qos, row.retain)

    def _names(self, camera: str) -> tuple[str, str]:
        return self._cameras[camera].site, self._cameras[camera].camera
