"""What is asked of the cloud member on Ray Serve, and what it answers: JSON within bounds, made and read at both ends.

    {"checkpoint": hash, "ask": "readings" or "sentences", "present": ["11111110", ...], "z": base64 of int32}
    {"checkpoint": hash, "readings": [[probabilities of labels, of attributes], ...]}
    {"checkpoint": hash, "sentences": ["a person falls", ...]}
    {"checkpoint": hash}: another checkpoint is served than the one that was asked for

Nothing is pickled: neither end can run code in the other.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud_bridge.inference.member import MAX_BATCH, Reading
from cloud_bridge.ingest.events import Event
from wire.bounded_json import read_json
from wire.errors import RemoteError

__all__ = ["ASKS", "READINGS", "SENTENCES", "Form", "Question"]

READINGS, SENTENCES = "readings", "sentences"
ASKS = (READINGS, SENTENCES)
"""What may be asked."""

_HEAD = 1024  # bytes of a document around its events
_NUMBER, _WORD = 32, 64  # bytes of a probability, of a word, at most
_ROUNDING = 1e-6  # by which probabilities may miss a sum of 1
_INT32 = np.dtype("<i4")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about events.

    Attributes:
        checkpoint: Whose readings are wanted.
        ask: One of ASKS.
        events: At most 64.
    """

    checkpoint: str
    ask: str
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Form:
    """The sizes by which both ends check what they get.

    Attributes:
        checkpoint: The family's hash.
        shape: R, K, d of an event.
        labels: Of the family.
        attributes: Of the family.
        words: That a sentence may consist of.
        sentence: Words of a sentence, at most.
    """

    checkpoint: str
    shape: tuple[int, int, int]
    labels: Sequence[str]
    attributes: Sequence[str]
    words: Collection[str]
    sentence: int

    @property
    def most_asked(self) -> int:
        """Bytes of a question, at most."""
        per_event = (4 * int(np.prod(self.shape)) + 2) * 4 // 3 + 8 + self.shape[0] + 8
        return _HEAD + MAX_BATCH * per_event

    def most_answered(self, ask: str, count: int) -> int:
        """Bytes of an answer about `count` events, at most."""
        numbers = (len(self.labels) + len(self.attributes) + 2) * _NUMBER
        return _HEAD + count * (numbers if ask == READINGS else (self.sentence + 1) * _WORD)

    # --- the bridge's end

    def question(self, ask: str, events: Sequence[Event]) -> bytes:
        """Write what is asked."""
        z = np.stack([event.z for event in events]).astype(_INT32)
        present = ["".join("01"[bool(there)] for there in event.present) for event in events]
        about = {"checkpoint": self.checkpoint, "ask": ask, "present": present}
        return json.dumps({**about, "z": base64.b64encode(z.tobytes()).decode()}).encode()

    def readings(self, body: bytes, count: int) -> list[Reading]:
        """Read the answer about `count` events. Raises RemoteError where it is none."""
        rows = self._rows(body, READINGS, count)
        return [self._reading(row) for row in rows]

    def sentences(self, body: bytes, count: int) -> list[str]:
        """Read the answer about `count` events. Raises RemoteError where it is none, or not in the family's words."""
        rows = self._rows(body, SENTENCES, count)
        for row in rows:
            words = row.split(" ") if isinstance(row, str) and row else []
            if not isinstance(row, str) or len(words) > self.sentence or not all(word in self.words for word in words):
                raise RemoteError("a sentence is not of the family's words, or has too many")
        return rows

    def _rows(self, body: bytes, ask: str, count: int) -> list[Any]:
        values = 16 + count * (8 + len(self.labels) + len(self.attributes))
        try:
            answer = read_json(body, self.most_answered(ask, count), 4, values)
        except (ValueError, RecursionError) as error:
            raise RemoteError("its answer is no JSON object, or too long or too deep") from error
        if answer.get("checkpoint") != self.checkpoint:
            raise RemoteError(f"its answer is not of checkpoint {self.checkpoint[:12]}...; serve that of the engine")
        rows = answer.get(ask)
        if not isinstance(rows, list) or len(rows) != count:
            raise RemoteError(f"its answer has not one of the {ask} for each of {count} events")
        return rows

    def _reading(self, row: Any) -> Reading:
        if not isinstance(row, list) or len(row) != 2:
            raise RemoteError("a reading is not two lists of probabilities")
        labels, attributes = (_shares(*pair) for pair in zip(row, (self.labels, self.attributes), strict=True))
        return Reading(labels, attributes)

    # --- the server's end

    def asked(self, body: bytes) -> Question:
        """Read what is asked. Raises ValueError with one sentence where that is not it; it may be anything."""
        fields = read_json(body, self.most_asked, 2, 16 + MAX_BATCH)
        checkpoint, ask, present, z = (fields.get(name) for name in ("checkpoint", "ask", "present", "z"))
        if not isinstance(checkpoint, str) or ask not in ASKS:
            raise ValueError(f"checkpoint is no text, or ask is none of {', '.join(ASKS)}")
        if checkpoint != self.checkpoint:
            return Question(checkpoint, ask, ())
        if not isinstance(present, list) or not 1 <= len(present) <= MAX_BATCH:
            raise ValueError(f"present is no list of 1 to {MAX_BATCH} events")
        if not all(isinstance(each, str) and len(each) == self.shape[0] and set(each) <= {*"01"} for each in present):
            raise ValueError(f"present: one event is not {self.shape[0]} digits 0 or 1")
        codes = self._codes(z, len(present))
        there = [np.array([digit == "1" for digit in each]) for each in present]
        events = [Event("", 0, 0, 0, code, mask) for code, mask in zip(codes, there, strict=True)]
        return Question(checkpoint, ask, events)

    def _codes(self, text: Any, count: int) -> npt.NDArray[np.int32]:
        try:
            raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except (binascii.Error, ValueError) as error:
            raise ValueError("z is no base64") from error
        shape = (count, *self.shape)
        if len(raw) != int(np.prod(shape)) * _INT32.itemsize:
            raise ValueError(f"z has {len(raw)} bytes, not those of int32 {shape}")
        return np.frombuffer(raw, _INT32).reshape(shape).astype(np.int32)

    def answer(self, ask: str, rows: Sequence[Reading | str] | None) -> bytes:
        """Write the answer; rows None: the question was about another checkpoint."""
        if rows is None:
            return json.dumps({"checkpoint": self.checkpoint}).encode()
        written = [
            row if isinstance(row, str) else [[*row.probabilities.values()], [*row.attributes.values()]] for row in rows
        ]
        return json.dumps({"checkpoint": self.checkpoint, ask: written}).encode()


def _shares(row: Any, names: Sequence[str]) -> dict[str, float]:
    """Name -> probability; they sum to 1."""
    if not isinstance(row, list) or len(row) != len(names):
        raise RemoteError(f"a reading has not {len(names)} probabilities")
    if not all(type(value) in (int, float) and 0.0 <= value <= 1.0 for value in row):
        raise RemoteError("a probability is none")
    if names and abs(sum(row) - 1.0) > _ROUNDING:
        raise RemoteError("probabilities do not sum to 1")
    return {name: float(value) for name, value in zip(names, row, strict=True)}
