"""Verified messages in slot order, per camera. Knows nothing of MQTT: bytes in, releases out, refusals counted.

    accept(camera, payload) --size, signature, form, model, values--> boot id --> slot --> [releases in order]

A refused message changes nothing but a counter. Counters exist for configured cameras and a fixed set of reasons
alone, so no sender can make them grow. A higher boot id begins a new stream; what the old one still held comes first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud_bridge.store.journal import CameraRecord
from wire.artifact.manifest import EngineManifest
from wire.errors import MessageError
from wire.privacy.level_rule import Witness
from wire.protocol.keys import PublicKey
from wire.protocol.message import FLAG_ADAPTIVE, FLAG_SPENT, FeatureMessage, open_features

__all__ = ["REASONS", "Intake", "Release"]

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
"""Why a message is refused -> in words."""

_RECENT = 256  # slots within which a repeated one counts as a duplicate, and a late one as late


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """One verified release. z: int16 (n,). spent: noise alone, the budget is spent. gap: slots missing before it.

    level: whose noise, an index into the manifest's levels.
    """

    camera: str
    boot_id: int
    slot: int
    z: npt.NDArray[np.int16]
    spent: bool
    gap: int
    level: int = 0


class _Stream:
    """One camera: the reorder buffer and what was read lately."""

    __slots__ = ("pending", "public", "read", "record", "witness")

    def __init__(self, public: PublicKey, record: CameraRecord, witness: Witness | None) -> None:
        self.public = public
        self.record = record
        self.witness = witness
        self.pending: dict[int, FeatureMessage] = {}
        self.read: deque[int] = deque(maxlen=_RECENT)


class Intake:
    """Messages of all configured cameras -> releases in slot order.

    cameras: name -> public key. records: name -> where the stream stands; kept current here, made durable by the
    caller. reorder_slots: a missing slot is given up when one that many later has come; 0 waits for none. A release
    louder than the manifest's profile is refused, unless the level rule is at work and can have chosen its level:
    the rule is computed again here, from the messages alone.
    """

    def __init__(
        self,
        cameras: Mapping[str, PublicKey],
        manifest: EngineManifest,
        records: Mapping[str, CameraRecord],
        reorder_slots: int = 2,
    ) -> None:
        self._streams = {
            name: _Stream(public, records[name], manifest.make_witness()) for name, public in cameras.items()
        }
        self._manifest = manifest
        self._model = (manifest.n, manifest.model_id, len(manifest.sigmas))
        self._reorder_slots = reorder_slots
        self.received = 0
        self.gaps: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        """(camera, reason) -> messages; camera "" for all that is not configured."""

    def refuse(self, camera: str, reason: str) -> None:
        """Count a message that is refused for `reason`, a key of REASONS."""
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not among REASONS")
        self.refused[camera if camera in self._streams else "", reason] += 1

    def accept(self, camera: str, payload: bytes) -> list[Release]:
        """Take one message of `camera` (site/camera); the releases now in order, oldest first. Never raises."""
        self.received += 1
        stream = self._streams.get(camera)
        if stream is None:
            self.refuse(camera, "unknown")
            return []
        try:
            message = open_features(payload, stream.public, *self._model)
        except MessageError as error:
            self.refuse(camera, error.reason)
            return []
        if message.boot_id < stream.record.boot_id:
            self.refuse(camera, "replayed")
            return []
        out: list[Release] = []
        if message.boot_id > stream.record.boot_id:
            out = self.flush(camera)
            self._restart(stream, message.boot_id, message.slot)
        reason = _repeated(stream, message.slot)
        if reason:
            self.refuse(camera, reason)
            return out
        stream.pending[message.slot] = message
        return out + self._in_order(camera, stream, self._reorder_slots)

    def flush(self, camera: str) -> list[Release]:
        """Hand out what `camera` still has in its buffer, in order, waiting for nothing."""
        return self._in_order(camera, self._streams[camera], 0)

    def _restart(self, stream: _Stream, boot_id: int, slot: int) -> None:
        stream.record.boot_id = boot_id
        # A stream that is already running is joined where it stands: what came before is no gap of ours.
        stream.record.next_slot = 0 if slot <= self._reorder_slots else slot
        stream.read.clear()
        if stream.witness is not None:
            stream.witness.begin()

    def _in_order(self, camera: str, stream: _Stream, patience: int) -> list[Release]:
        out: list[Release] = []
        while stream.pending:
            slot, record = min(stream.pending), stream.record
            if slot > record.next_slot and max(stream.pending) - record.next_slot < patience:
                break  # what is missing may still come
            gap = slot - record.next_slot
            self.gaps[camera] += gap
            message = stream.pending.pop(slot)
            spent = bool(message.flags & FLAG_SPENT)
            stream.read.append(slot)
            record.next_slot = slot + 1
            if self._level_is_sound(stream, message, spent):
                out.append(Release(camera, message.boot_id, slot, message.z, spent, gap, message.level))
            else:
                self.refuse(camera, "level")
        return out

    def _level_is_sound(self, stream: _Stream, message: FeatureMessage, spent: bool) -> bool:
        """Whether the release may have been made at the level it states; the messages come here in slot order."""
        if not message.flags & FLAG_ADAPTIVE:
            return message.level <= self._manifest.level
        z = None if spent else message.z
        return stream.witness is not None and stream.witness.see(message.slot, message.level, z)


def _repeated(stream: _Stream, slot: int) -> str:
    """Why `slot` may not be read (again); empty where it may."""
    if slot in stream.pending or slot in stream.read:
        return "duplicate"
    if slot >= stream.record.next_slot:
        return ""
    return "late" if stream.read and slot > stream.read[0] else "replayed"
