"""The bridge's state of one camera, which every message of the camera goes through once. No MQTT here.

    features     --the model that it states--> its engine; none of that id: refused (model), or
                 --size, signature, form, values--> boot id, slot --> releases in order --> events, now or late
    state        --size, form, signature, number--> online or offline, watching or not, the certificate's hash
    certificate  --the hash in the state--> if it is not the engine's, the camera is not read until the right one comes

A refused message changes nothing but a counter. There is a counter for each of a fixed set of reasons, so no sender can
make the memory grow. A higher boot id begins a new stream, after the waiting releases of the old one were read. A start
has one model, that of its first release: a device changes its engine between two starts, so no event mixes two.

The broker is not trusted: it may hold messages back, drop, repeat and reorder them, and publish a Last Will when it
likes. So an offline gives up no slot that may still come, and the next release overrides it (certificates: trust.py).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cloud_bridge.ingest.engines import Engine, Engines
from cloud_bridge.ingest.events import NOTHING, Event, Release, Taken
from cloud_bridge.ingest.freshness import Allowance, Freshness, IngestRule
from cloud_bridge.ingest.reasons import LOGGED, REASONS
from cloud_bridge.ingest.trust import Trust
from cloud_bridge.log import log_of
from cloud_bridge.store.records import Accepted, CameraRecord, Stored
from wire.errors import MessageError
from wire.privacy.level_rule import Witness
from wire.protocol.keys import KeyAhead, PublicKey
from wire.protocol.message import FLAG_ADAPTIVE, FLAG_SPENT, FeatureMessage, open_features
from wire.protocol.release_layout import features_size, read_release, stated_in
from wire.protocol.state import open_state
from wire.protocol.topics import signed_context

__all__ = ["CameraSession"]

_FLOOD = MessageError("flood", "faster than its slots pass; [ingest] burst and rate allow more")
_QUIET_S = 5.0  # after an offline, before a slot that is missing is given up
_STATES = IngestRule(burst=60.0, rate=1.0)  # that a camera may send: each can turn an alert
_RECENT = 256  # slots within which a repeated one counts as a duplicate, and a late one as late


class CameraSession:
    """Verification, order, events and counters of one camera.

    Attributes:
        received: Features messages that came, refused ones included.
        refused: Reason (a key of REASONS) -> messages.
        gaps: Slots that were given up as missing.
        fresh_s: When its last new release came, by this machine's clock; 0: none since the start.
        profile: That the newest state says is in force; "": none came since the start.
        forged_at_s: When a message last came that another key has signed.
        ahead_at_s: When a release last came that was dated after our clock, or a clock was set back;
        ahead_s: by how much it was dated after it,
        skewed: and how many there were.
        engine: Of the newest release; before any, the first that is known.
        unknown_model: Model id, hex, of the newest message, where no engine of that id is known; else "".
        given_up: Boot id, slot and reason of releases that the store has, and that nothing is left to read with.
    """

    def __init__(
        self,
        camera: str,
        public: PublicKey,
        engines: Engines,
        record: CameraRecord,
        reorder_slots: int = 2,
        freshness: Freshness | None = None,
        allowance: Allowance | None = None,
        recent: Iterable[Stored] = (),
        views: int = 1,
    ) -> None:
        """Continue after the last slot in `record`.

        Args:
            camera: `site/camera`.
            public: The only key whose signature on features of this camera is accepted.
            engines: Those that the device may run.
            record: How far the stream was read; it is updated here and made durable by the caller.
            reorder_slots: A missing slot is given up when one that many later has come; 0: nothing is waited for.
            freshness: Says what is now; None: by the default rule.
            allowance: Says how many releases may come; None: by the default rule.
            recent: Releases of the stream in `record`: those of its event, and those that wait for an earlier slot.
            views: Cameras that are known to see the same people; a certificate of a smaller scene is not trusted.
        """
        site, _, name = camera.partition("/")
        self._names, self._trust = (site, name), Trust(camera, views)
        self._engines, self.engine = engines, next(iter(engines.values()))
        slot_s = self.engine.manifest.window.slot_s
        self._freshness = freshness or Freshness(camera, IngestRule())
        self._allowance = allowance or Allowance(IngestRule(), slot_s)
        self._states = Allowance(_STATES, slot_s)
        self._now_s = self._came_s = self._heard_s = self.fresh_s = self.ahead_s = 0.0
        self.forged_at_s = self.ahead_at_s = -math.inf
        self._camera, self._public, self._record, self._reorder_slots = camera, public, record, reorder_slots
        self._log = log_of(camera)
        self._pending: dict[int, FeatureMessage] = {}  # slot -> verified message that waits for an earlier slot
        self._recent: deque[int] = deque(maxlen=_RECENT)  # slots read lately
        self._boot_read = -1  # boot id of the last release that was read since the bridge's start
        self._warned, self._offline = False, False
        self._bound = False  # the start in the record is one of `engine`
        self._shed = self.received = self.gaps = self.skewed = 0
        self.profile = self.unknown_model = ""
        self.refused: Counter[str] = Counter()
        self._accepted, self._unread, self._ended = list[Accepted](), list[tuple[int, int, str]](), list[Event]()
        self.given_up = list[tuple[int, int, str]]()
        self._reader = self.engine.reader(camera)
        self._witness: Witness | None = None  # from the first message on whose level adapts
        self._resume([*recent])

    @property
    def shed(self) -> int:
        """Events that were left out, since more came than could be read."""
        return self._shed + self._reader.shed

    @property
    def offline(self) -> bool:
        """The device says that it is offline, or a Last Will does, and nothing came since."""
        return self._offline

    @property
    def ended(self) -> bool:
        """The camera is offline and was read to its end."""
        return self._offline and not self._pending

    @property
    def model_id(self) -> int:
        """Of the start that was read last; -1: none was, or its engine is not known any more."""
        return self.engine.id if self._bound else -1

    @property
    def device_s(self) -> int:
        """The device's clock, as its newest release says; 0: none was read since the start."""
        return self._freshness.device_s

    @property
    def place(self) -> tuple[int, int]:
        """Boot id and slot of the last release read; 0, 0 before any."""
        return max(0, self._record.boot_id), max(0, self._record.next_slot - 1)

    def receive(
        self,
        name: str,
        payload: bytes,
        retained: bool = False,
        now_s: float = 0.0,
        came_s: float | None = None,
        shed: bool = False,
        ahead: PublicKey | None = None,
    ) -> Taken:
        """Take one message and return what it gave. Never raises.

        Args:
            name: Last part of the topic: features, state or certificate.
            payload: The message as it came.
            retained: It was there before the bridge subscribed.
            now_s: This machine's clock, seconds since 1970.
            came_s: What it was when the message came; None: the same.
            shed: Leave out an event that a later one will have in it.
            ahead: As `ahead` made it for this message; None: its signature was not looked at.
        """
        self._now_s, self._came_s = now_s, now_s if came_s is None else came_s
        if name == "features":
            return self._read(self.accept(payload, ahead), shed)
        if name == "state" and payload:
            return self._state(payload, retained)
        if name == "certificate" and payload:
            self._doubt(self._trust.take(payload, self._engines))
        return NOTHING

    def wants(self, name: str, payload: bytes) -> bool:
        """Whether a message is the camera's own and newer than what was read. Changes nothing; any thread may ask."""
        record = self._record
        try:
            if name == "features":
                message = open_features(payload, self._public, *self._names, *self._stated(payload)[0].shape)
                return (message.boot_id, message.slot) >= (record.boot_id, record.next_slot)
            if name == "state":
                state = open_state(payload, self._public, *self._names)
                return (state.boot_id, state.count) > (record.state_boot_id, record.state_count)
        except MessageError:
            return False
        return hashlib.sha256(payload).hexdigest() == self._trust.named

    def change(self, engines: Engines, now_s: float) -> Taken:
        """Read these engines from now on. What waits of one that is not among them is read now, and its event ends."""
        self._now_s, self._engines, engine = now_s, engines, engines.get(self.engine.id)
        if engine is not None:
            self.engine = engine
            return NOTHING
        taken = self.drain()
        self._begin(next(iter(engines.values())), bound=False)
        return taken

    def settle(self, now_s: float) -> Taken:
        """Read what waits for a missing slot, where the camera has been offline and silent for some seconds.

        And the event that was left out for a later one, if that did not come.
        """
        self._now_s = now_s
        if self._reader.owes:
            return Taken([], self._dated(self._reader.flush()))
        quiet = abs(now_s - self._heard_s) >= _QUIET_S
        return self.drain() if self._offline and self._pending and quiet else NOTHING

    def refuse(self, reason: str) -> None:
        """Count a message that is refused for `reason`, a key of REASONS."""
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not among REASONS")
        self.refused[reason] += 1

    def _doubt(self, reason: str) -> None:
        """Count a certificate that is refused, "" for one that is not."""
        if reason:
            self.refuse(reason)

    def _refuse_for(self, error: MessageError) -> None:
        """Count a refused message; log the first of a reason that somebody must act upon."""
        if error.reason == "forged":
            self.forged_at_s = self._now_s
        if error.reason in LOGGED and not self.refused[error.reason]:
            self._log.warning("%s: a message is refused (%s)%s", self._camera, error, LOGGED[error.reason])
        self.refuse(error.reason)

    def drain(self) -> Taken:
        """Read everything that is left, in order, waiting for nothing."""
        taken = self._read(self._in_order(0))
        return taken._replace(events=taken.events + self._dated(self._reader.flush()))

    def saved(self) -> dict[str, Any]:
        """What the next start needs besides the stored releases, as JSON."""
        return {"model": f"{self.engine.id:016x}", **self._reader.saved()} if self._bound else {}

    def _resume(self, recent: Sequence[Stored]) -> None:
        """Go on with the event and with what waits, where both are of a model that is known."""
        saved, record = self._record.event, self._record
        engine = next((each for each in self._engines.values() if saved.get("model") == f"{each.id:016x}"), None)
        if engine is None:
            self._give_up(recent)
            return
        self._begin(engine, bound=True)
        try:
            read = [release for stored in recent if (release := self._take_stored(stored)) is not None]
            if "start" in saved:
                self._reader.resume(saved, record.boot_id, read)
        except (KeyError, TypeError, ValueError, MessageError) as error:
            self._log.warning("%s: its last releases cannot be used (%r); events begin anew", self._camera, error)

    def _give_up(self, recent: Iterable[Stored]) -> None:
        """Note what the store has of a model that is not known any more, and that is in no verdict."""
        record, unread = self._record, self._record.event.get("unread")
        first = unread if type(unread) is int else record.next_slot
        slots = [stored.slot for stored in recent if stored.slot >= first and not stored.refused]
        self.given_up = [(record.boot_id, slot, "model") for slot in slots]
        for slot in slots:
            self.refuse("model")
            record.next_slot = max(record.next_slot, slot + 1)
        if slots:
            text = "%s: %d releases in the store are of model %s, and no engine has that id: they stay there, unread"
            self._log.warning(text, self._camera, len(slots), record.event.get("model"))
            record.event = {}

    def _take_stored(self, stored: Stored) -> Release | None:
        """Take a release of the store, as it once came; returns it where it was read. Raises MessageError."""
        if stored.slot < self._record.next_slot:
            self._recent.append(stored.slot)
        if stored.refused:
            return None
        message = open_features(stored.message, self._public, *self._names, *self.engine.shape)
        if stored.slot >= self._record.next_slot:
            self._pending[stored.slot] = message
            return None
        spent = bool(message.flags & FLAG_SPENT)
        return Release(self._camera, message.boot_id, message.slot, message.z, spent, 0, message.level, message.time_s)

    # --- features

    def ahead(self, payload: bytes, came_s: float, nth: int) -> KeyAhead | None:
        """The camera's key, to verify a features message before it is taken. Changes nothing.

        None: it will be refused without a look at its signature, or it has an unusual form. nth: So many of the
        camera are looked at together, this one included.
        """
        engine, trusted = self._stated(payload)
        n = engine.shape[0]
        if not trusted or len(payload) != features_size(n) or not self._allowance.has(came_s, nth):
            return None
        found = read_release(payload, n)
        if found is None:
            return None
        return KeyAhead(self._public, found.signature, signed_context("features", *self._names) + found.body)

    def accept(self, payload: bytes, ahead: PublicKey | None = None) -> list[Release]:
        """Verify a features message and return the releases that are now in order, oldest first. Never raises.

        What a camera sends beyond its allowance is refused unseen: its signature would cost more than all the rest.
        """
        self.received += 1
        engine, trusted = self._stated(payload)
        if not trusted:
            self.refuse("untrusted")
            return []
        if not self._allowance.has(self._came_s):
            self._refuse_for(_FLOOD)
            return []
        try:
            message = open_features(payload, ahead or self._public, *self._names, *engine.shape)
        except MessageError as error:
            self._refuse_for(error)
            boot_id, model_id = stated_in(payload) or (-1, 0)
            if error.reason == "model" and boot_id >= self._record.boot_id:
                self.unknown_model = f"{model_id:016x}"
            return []
        if message.slot >= engine.lifetime:
            self.refuse("values")
            return []
        if message.boot_id < self._record.boot_id:
            self._refuse_replay()
            return []
        begins = message.boot_id > self._record.boot_id or not self._bound
        if not begins and engine.id != self.engine.id:
            self.refuse("model")
            return []
        new, missed = self._is_new(message), self._is_missed(message)
        if not (new or missed):
            return []
        self.unknown_model = ""
        self._allowance.take(self._came_s)
        self._accepted.append(Accepted(message.boot_id, message.slot, payload))
        if missed:
            self._recent.append(message.slot)
            self._leave(message, "late")
            return []
        before = self._end_stream() if begins else []
        if begins:
            self._restart(engine, message.boot_id, message.slot)
        return before + self._put_in_order(message)

    def _stated(self, payload: bytes) -> tuple[Engine, bool]:
        """The engine of the model that a message states, and whether the camera's certificate allows it.

        Where that model is not known it is the camera's engine, which refuses the message.
        """
        boot_id, model_id = stated_in(payload) or (0, -1)
        engine = self._engines.get(model_id)
        if engine is None:
            return self.engine, True
        return engine, self._trust.allows(engine, boot_id, self._engines)

    def _is_new(self, message: FeatureMessage) -> bool:
        """Return whether a release was neither read nor given up; else count it."""
        slot, record = message.slot, self._record
        if message.boot_id > record.boot_id:
            return True
        if slot in self._pending or slot in self._recent:
            self.refuse("duplicate")
        elif slot >= record.next_slot:
            return True
        elif not self._is_missed(message):
            self._refuse_replay()
        return False

    def _is_missed(self, message: FeatureMessage) -> bool:
        """Whether a release comes after its slot was given up, a short while ago: it is kept, and not read."""
        slot, record = message.slot, self._record
        passed = message.boot_id == record.boot_id and slot < record.next_slot and slot not in self._recent
        return passed and bool(self._recent) and slot > self._recent[0]

    def _put_in_order(self, message: FeatureMessage) -> list[Release]:
        self._offline = False  # whatever a Last Will said
        self._heard_s = self.fresh_s = self._now_s
        self._pending[message.slot] = message
        return self._in_order(self._reorder_slots)

    def _refuse_replay(self) -> None:
        self.refuse("replayed")
        if self._warned:
            return
        self._warned = True
        self._log.warning(
            "%s: refuses messages of an earlier start, or read before. A device whose ledger was made anew has a new "
            "key too: register it as [[cameras]] public_key. Leave the store's record of it, or recordings would pass",
            self._camera,
        )

    def _end_stream(self) -> list[Release]:
        """Read what waits of the start that ends, and make its last event."""
        releases = self._in_order(0)
        self._ended += [event for release in releases for event in self._reader.push(release)] + self._reader.flush()
        return releases

    def _restart(self, engine: Engine, boot_id: int, slot: int) -> None:
        record = self._record
        if boot_id > record.boot_id:
            record.boot_id = boot_id
            # A stream that is already running is joined at this slot: the slots before it are not a gap.
            record.next_slot = 0 if slot <= self._reorder_slots else slot
        self._begin(engine, bound=True)

    def _begin(self, engine: Engine, bound: bool) -> None:
        """Begin a stream of an engine; its last one was read to its end."""
        self._shed += self._reader.shed
        self.engine, self._bound = engine, bound
        self._reader, self._witness = engine.reader(self._camera), None
        self._recent.clear()
        self._freshness.begin()

    def _in_order(self, patience: int) -> list[Release]:
        out: list[Release] = []
        record = self._record
        while self._pending:
            slot = min(self._pending)
            if slot > record.next_slot and max(self._pending) - record.next_slot < patience:
                break  # what is missing may still come
            gap = slot - record.next_slot
            self.gaps += gap
            message = self._pending.pop(slot)
            spent = bool(message.flags & FLAG_SPENT)
            self._recent.append(slot)
            record.next_slot = slot + 1
            set_back = self._freshness.set_back(message.time_s)
            ahead_s = self._freshness.ahead_s(message.time_s, self._now_s)
            if set_back or ahead_s:
                self.skewed, self.ahead_at_s, self.ahead_s = self.skewed + 1, self._now_s, ahead_s
            if not self._level_is_sound(message, spent):
                self._leave(message, "level")
            elif set_back:
                self._leave(message, "clock")
            else:
                complaint = self._freshness.take(message.time_s, self._now_s)
                what = (message.z, spent, gap, message.level, message.time_s, complaint)
                out.append(Release(self._camera, message.boot_id, slot, *what))
        return out

    def _leave(self, message: FeatureMessage, reason: str) -> None:
        """Count a release that was accepted, and is not read."""
        self.refuse(reason)
        self._unread.append((message.boot_id, message.slot, reason))

    def _level_is_sound(self, message: FeatureMessage, spent: bool) -> bool:
        """Return whether the release can have been made at the level that it states. Called in slot order.

        A level that reveals more than the manifest's profile is refused, unless the level rule is at work and can have
        chosen it: the rule is computed again here, from the messages alone.
        """
        if not message.flags & FLAG_ADAPTIVE:
            return message.level <= self.engine.level
        z = None if spent else message.z
        self._witness = self._witness or self.engine.manifest.make_witness()
        return self._witness is not None and self._witness.see(message.slot, message.level, z)

    def _read(self, releases: Sequence[Release], shed: bool = False) -> Taken:
        if releases:
            self._boot_read = releases[-1].boot_id
        new = [release for release in releases if release.boot_id == self._record.boot_id]
        events = self._dated([*self._ended, *(e for release in new for e in self._reader.push(release, shed))])
        accepted, unread = self._accepted, self._unread
        self._accepted, self._unread, self._ended = [], [], []
        return Taken(list(releases), events, None, accepted, unread)

    def _dated(self, events: Iterable[Event]) -> list[Event]:
        """Mark events that are late now, when they are read: releases may have waited for a long time."""
        return [replace(e, late=bool(self._freshness.complaint(e.time_s, self._now_s))) for e in events]

    # --- state and certificate

    def _state(self, payload: bytes, retained: bool) -> Taken:
        """Take a state: signed, of this camera, and none older than the newest one that came."""
        try:
            state = open_state(payload, self._public, *self._names)
        except MessageError as error:
            self._refuse_for(error)
            return NOTHING
        record = self._record
        newest = (record.state_boot_id, record.state_count if state.count else 0)  # a Last Will is of its start alone
        if (state.boot_id, state.count) < newest or state.boot_id < record.boot_id:
            self.refuse("replayed")
            return NOTHING
        if state.count and not self._states.take(self._came_s):  # a Last Will, which anybody can replay, takes none
            self._refuse_for(MessageError("flood", "states faster than its slots pass"))
            return NOTHING
        if state.online:
            self._offline = False
        elif not retained or state.boot_id == self._boot_read:
            self._offline, self._heard_s = True, self._now_s
        if state.count:
            record.state_boot_id, record.state_count = state.boot_id, state.count
            self.profile = str(state.fields.get("profile", ""))
            self._doubt(self._trust.name(state.certificate, state.boot_id, self._engines))
        events = self._dated(self._reader.flush()) if self.ended else []
        return Taken([], events, state if state.count and state.online else None)
