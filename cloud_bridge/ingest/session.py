"""The bridge's state of one camera, which every message of the camera goes through once. No MQTT here.

    features     --size, signature, form, model, values--> boot id --> slot --> releases in order --> events
    state        --> online, or offline: the releases that still wait are read
    certificate  --> if it is not this engine's, the camera is not read until it publishes the right one

A refused message changes nothing but a counter. There is a counter for each of a fixed set of reasons, so no sender can
make the memory grow. A higher boot id begins a new stream, after the waiting releases of the old one were read.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloud_bridge.ingest.events import Event, EventReader, Release
from cloud_bridge.store.journal import CameraRecord
from familial.evaluate.ood_detector import OodDetector
from wire.artifact.manifest import EngineManifest
from wire.errors import CertificateError, MessageError
from wire.privacy.certificate import Certificate, round_up
from wire.protocol.keys import PublicKey
from wire.protocol.message import FLAG_ADAPTIVE, FLAG_SPENT, FeatureMessage, open_features

__all__ = ["REASONS", "CameraSession", "Taken"]

_LOG = logging.getLogger("cloud_bridge")

REASONS: Mapping[str, str] = {
    "unknown": "no camera of that name is configured",
    "untrusted": "the camera published a certificate that is not this engine's",
    "truncated": "shorter than a release of this model",
    "oversized": "longer than a release of this model",
    "forged": "not signed by the camera's key",
    "malformed": "not a message of ours, or not in canonical form",
    "schema": "of a schema this software does not read",
    "flags": "flags without a meaning",
    "level": "at a level that this model does not have, or that its rule cannot have chosen",
    "shape": "z of another length",
    "model": "made by another model",
    "values": "values that cannot be",
    "replayed": "an older boot id, or a slot read long ago",
    "duplicate": "a slot that was read a moment ago",
    "late": "a slot that was waited for and given up",
}
"""Reason why a message is refused -> explanation."""

_RECENT = 256  # slots within which a repeated one counts as a duplicate, and a late one as late


class Taken(NamedTuple):
    """What a message gave: releases that are now in order, oldest first, and the events that they complete."""

    releases: list[Release]
    events: list[Event]


class CameraSession:
    """Verification, order, events and counters of one camera.

    Attributes:
        received: Features messages that came, refused ones included.
        refused: Reason (a key of REASONS) -> messages.
        gaps: Slots that were given up as missing.
        ended: The camera is offline and was read to its end.
    """

    def __init__(
        self,
        camera: str,
        public: PublicKey,
        manifest: EngineManifest,
        record: CameraRecord,
        detector: OodDetector | None = None,
        reorder_slots: int = 2,
    ) -> None:
        """Continue after the last slot in `record`.

        Args:
            camera: `site/camera`.
            public: The only key whose signature on features of this camera is accepted.
            manifest: Of the engine that the device must run.
            record: How far the stream was read; it is updated here and made durable by the caller.
            detector: Computes the OOD p-value of events; None: they have none.
            reorder_slots: A missing slot is given up when one that many later has come; 0: nothing is waited for.
        """
        self._camera, self._public, self._manifest, self._record = camera, public, manifest, record
        self._model = (manifest.n, manifest.model_id, len(manifest.sigmas))
        self._reorder_slots = reorder_slots
        self._witness = manifest.make_witness()
        self._pending: dict[int, FeatureMessage] = {}  # slot -> verified message that waits for an earlier slot
        self._recent: deque[int] = deque(maxlen=_RECENT)  # slots read lately
        self._boot_read = -1  # boot id of the last release that was read since the bridge's start
        self._trusted, self._warned, self.ended = True, False, False
        shape = (manifest.event_releases, manifest.tokens, manifest.width)
        self._reader = EventReader(camera, *shape, manifest.weights, detector)
        self.received = self.gaps = 0
        self.refused: Counter[str] = Counter()

    def receive(self, name: str, payload: bytes, retained: bool = False) -> Taken:
        """Take one message and return what it gave. Never raises.

        Args:
            name: Last part of the topic: features, state or certificate.
            payload: The message as it came.
            retained: It was there before the bridge subscribed.
        """
        if name == "features":
            return self._read(self.accept(payload))
        if name == "state" and payload:
            return self._state(payload, retained)
        if name == "certificate" and payload:
            self._certificate(payload)
        return Taken([], [])

    def refuse(self, reason: str) -> None:
        """Count a message that is refused for `reason`, a key of REASONS."""
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not among REASONS")
        self.refused[reason] += 1

    def drain(self) -> Taken:
        """Read everything that is left, in order, waiting for nothing."""
        releases, events = self._read(self._in_order(0))
        return Taken(releases, events + self._reader.flush())

    # --- features

    def accept(self, payload: bytes) -> list[Release]:
        """Verify a features message and return the releases that are now in order, oldest first. Never raises."""
        self.received += 1
        if not self._trusted:
            self.refuse("untrusted")
            return []
        self.ended = False
        try:
            message = open_features(payload, self._public, *self._model)
        except MessageError as error:
            self.refuse(error.reason)
            return []
        if message.boot_id < self._record.boot_id:
            self._refuse_replay()
            return []
        before: list[Release] = []
        if message.boot_id > self._record.boot_id:
            before = self._in_order(0)
            self._restart(message.boot_id, message.slot)
        return before + self._put_in_order(message)

    def _put_in_order(self, message: FeatureMessage) -> list[Release]:
        slot = message.slot
        if slot in self._pending or slot in self._recent:
            self.refuse("duplicate")
        elif slot >= self._record.next_slot:
            self._pending[slot] = message
            return self._in_order(self._reorder_slots)
        elif self._recent and slot > self._recent[0]:
            self.refuse("late")
        else:
            self._refuse_replay()
        return []

    def _refuse_replay(self) -> None:
        self.refuse("replayed")
        if self._warned:
            return
        self._warned = True
        _LOG.warning(
            "%s: refuses messages of an earlier start, or read before; if the device's ledger was made anew, "
            "delete the camera's entry in the state folder's journal.json",
            self._camera,
        )

    def _restart(self, boot_id: int, slot: int) -> None:
        self._record.boot_id = boot_id
        # A stream that is already running is joined at this slot: the slots before it are not a gap.
        self._record.next_slot = 0 if slot <= self._reorder_slots else slot
        self._recent.clear()
        if self._witness is not None:
            self._witness.begin()

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
            if self._level_is_sound(message, spent):
                out.append(Release(self._camera, message.boot_id, slot, message.z, spent, gap, message.level))
            else:
                self.refuse("level")
        return out

    def _level_is_sound(self, message: FeatureMessage, spent: bool) -> bool:
        """Return whether the release can have been made at the level that it states. Called in slot order.

        A level that reveals more than the manifest's profile is refused, unless the level rule is at work and can have
        chosen it: the rule is computed again here, from the messages alone.
        """
        if not message.flags & FLAG_ADAPTIVE:
            return message.level <= self._manifest.level
        z = None if spent else message.z
        return self._witness is not None and self._witness.see(message.slot, message.level, z)

    def _read(self, releases: Sequence[Release]) -> Taken:
        if releases:
            self._boot_read = releases[-1].boot_id
        return Taken(list(releases), [event for release in releases for event in self._reader.push(release)])

    # --- state and certificate

    def _state(self, payload: bytes, retained: bool) -> Taken:
        """On offline, read what still waits. An offline of an earlier stream, or of one never read here, is ignored."""
        state = _parse_state(payload)
        if state is None:
            self.refuse("malformed")
            return Taken([], [])
        status, boot_id = state
        if status == "online":
            self.ended = False
        if status == "online" or boot_id < self._record.boot_id:
            return Taken([], [])
        if not retained or boot_id == self._boot_read:
            self.ended = True
        return self.drain()

    def _certificate(self, payload: bytes) -> None:
        """Trust the camera only while its certificate is this engine's, or one that reveals less."""
        self._trusted = self._manifest.covers(payload)
        if self._trusted:
            return
        self.refuse("untrusted")
        _LOG.error(
            "%s: its certificate is not that of engine %016x (%s); its messages are refused until it publishes the "
            "right one (is the engine on the device the one in [model] engine?)",
            self._camera,
            self._manifest.model_id,
            _describe(payload),
        )


def _describe(certificate: bytes) -> str:
    """Describe a certificate that is not ours; one of another schema version says how to replace it."""
    try:
        found = Certificate.from_json(certificate.decode())
    except (CertificateError, UnicodeDecodeError) as error:
        return str(error)
    return f"it is that of another engine, with S = {round_up(found.s_release, 4)} a release"


def _parse_state(payload: bytes) -> tuple[str, int] | None:
    """(status, boot id) of a state message; None where it is not one."""
    try:
        document = json.loads(payload)
        status, boot_id = document["status"], document["boot_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = isinstance(boot_id, int) and not isinstance(boot_id, bool) and 0 <= boot_id < 2**64
    return (status, boot_id) if status in ("online", "offline") and whole else None
