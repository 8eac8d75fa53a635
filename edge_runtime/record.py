"""What the gate and its children say to each other, byte by byte.

    gate -> eye    Question: slot, zero of the release clock                           16 bytes
    eye -> gate    Record: slot, word, pace, last, n coordinates of the code           16 + 2 n bytes
    gate -> reader Event: last slot, one byte a release, z int32 (R, K, d)             8 + R + 4 R n bytes
    reader -> gate Verdict: last slot, one float32 a label                             8 + 4 L bytes

All numbers are little-endian. `gate/core.py` reads slot and coordinates, and nothing else of a record reaches it. Word
and pace are numbers of the tables below: they are shown on the local page, and nothing that the eye writes is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wire.protocol.event import EventWindow

__all__ = [
    "BEGIN",
    "CAMERA_DAMAGED",
    "CAMERA_FAILED",
    "CAMERA_LATE",
    "CAMERA_SILENT",
    "ENGINE_FAILED",
    "ENGINE_STOPPED",
    "NOT_CONFINED",
    "PACES",
    "QUESTION_BYTES",
    "READY",
    "TOO_SLOW",
    "WATCHES",
    "WORDS",
    "Question",
    "Said",
    "event_bytes",
    "event_size",
    "read_event",
    "read_said",
    "verdict_bytes",
    "write_said",
]

WORDS = (
    "watching",
    "no new picture from the camera",
    "too slow for the slot",
    "the engine failed",
    "the camera cannot be opened, or its pictures are too small",
    "the engine cannot be loaded",
    "pictures are decoded too late; let the camera send a smaller stream",
    "some pictures cannot be decoded",
    "it is not confined",
)
"""What the eye can say of itself, by number; any other number reads as the last."""

CAMERA_SILENT, TOO_SLOW, ENGINE_STOPPED, CAMERA_FAILED, ENGINE_FAILED = range(1, 6)
CAMERA_LATE, CAMERA_DAMAGED, NOT_CONFINED = range(6, 9)
WATCHES = (0, CAMERA_DAMAGED)
"""Words of an eye that sees: a picture that cannot be decoded now and then leaves the others."""

PACES = ("none", "1 to 4", "5 to 9", "10 to 14", "15 to 19", "20 to 24", "25 or more")
"""Frames a second that the camera gave, by number."""

BEGIN = 2**64 - 1
"""A question's slot that asks for nothing: it says when slot 0 began."""

READY = 2**64 - 2
"""A record's slot that answers no question: the eye is open, or its word says why it cannot be."""

_QUESTION = struct.Struct("<Qd")
_HEADER = struct.Struct("<QBBB5x")  # HEADER_BYTES
_SLOT = struct.Struct("<Q")
QUESTION_BYTES = _QUESTION.size


@dataclass(frozen=True, slots=True)
class Question:
    """What the gate asks.

    Attributes:
        slot: Whose code is wanted; BEGIN: none.
        zero_s: When slot 0 began, on the system's monotonic clock, in seconds.
    """

    slot: int
    zero_s: float

    def to_bytes(self) -> bytes:
        """As it is sent."""
        return _QUESTION.pack(self.slot, self.zero_s)

    @classmethod
    def read(cls, data: npt.NDArray[np.uint8]) -> Question:
        """Read what `to_bytes` wrote, uint8 (at least QUESTION_BYTES,)."""
        return cls(*_QUESTION.unpack_from(data.data))


@dataclass(frozen=True, slots=True)
class Said:
    """What a record says beside the code.

    Attributes:
        slot: Whose code it is; READY: none.
        word: Index into WORDS.
        pace: Index into PACES.
        last: A file or scene ends with this slot; read for those alone.
    """

    slot: int
    word: int = 0
    pace: int = 0
    last: bool = False


def read_said(record: npt.NDArray[np.uint8]) -> Said:
    """Read the header of a record, uint8 (at least HEADER_BYTES,); numbers beyond the tables become their last."""
    slot, word, pace, last = _HEADER.unpack_from(record.data)
    return Said(slot, min(word, len(WORDS) - 1), min(pace, len(PACES) - 1), last == 1)


def write_said(record: npt.NDArray[np.uint8], said: Said) -> None:
    """Write the header of a record, uint8 (HEADER_BYTES + 2 n,)."""
    _HEADER.pack_into(record.data, 0, said.slot, said.word, said.pace, said.last)


def event_bytes(event: EventWindow) -> bytes:
    """An event as the reader gets it."""
    return b"".join((_SLOT.pack(event.last_slot), event.present.tobytes(), event.z.astype("<i4", copy=False).tobytes()))


def read_event(data: npt.NDArray[np.uint8], into: EventWindow) -> None:
    """Fill `into` with what `event_bytes` wrote, uint8 (event_size(into),)."""
    releases = len(into.present)
    (into.last_slot,) = _SLOT.unpack_from(data.data)
    into.present[:] = data[_SLOT.size : _SLOT.size + releases] == 1
    into.z.flat[:] = data[_SLOT.size + releases : event_size(into)].copy().view("<i4")


def event_size(event: EventWindow) -> int:
    """Bytes of an event."""
    return _SLOT.size + len(event.present) + 4 * event.z.size


def verdict_bytes(slot: int, probabilities: Sequence[float]) -> bytes:
    """The reader's answer about the event whose last slot is `slot`."""
    return _SLOT.pack(slot) + np.asarray(probabilities, "<f4").tobytes()
