"""The gate's side of its two children: asks the eye for the code of a slot, and the reader for the verdict of an event.

    EyeClient.code(slot) --> the n integers of a record, or None
    ReaderClient.ask(event) ... .answer() --> label probabilities, or None

Nothing that a child does can delay the gate beyond the time that the gate gives it. What a child sends is read by size
and slot alone; `gate/core.py` makes a code of it that is safe, whatever it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.gate.children import Child
from edge_runtime.gate.core import HEADER_BYTES, read_code
from edge_runtime.link import Link
from edge_runtime.record import BEGIN, PACES, READY, WATCHES, WORDS, Question, Said, event_bytes, read_said
from wire.protocol.event import EventSpan, EventWindow

__all__ = ["EyeClient", "ReaderClient"]

_TRIES = 8  # datagrams that are read for one question: late answers to earlier ones come first
_SILENT = 30  # questions after which an eye is started anew from which nothing came, not even late
_OPENS_S = 60.0  # before that, for an eye that opens camera and engine on a busy machine


class EyeClient:
    """Asks the eye.

    Args:
        child: The eye.
        n: Coordinates of a code.
        follows: Whether the eye may say where the source ends: for files and scenes alone.

    Attributes:
        zero_s: When slot 0 began, in seconds of the monotonic clock.
        ended: The source's last slot was answered.
        counts: Questions that were answered and missed, and datagrams of a wrong size.
    """

    def __init__(self, child: Child, n: int, follows: bool) -> None:
        self._child, self._n, self._follows = child, n, follows
        self._record = np.zeros(HEADER_BYTES + 2 * n + 1, np.uint8)
        self._said, self._silent = Said(READY, 1), 0
        self._mute, self._spoke, self._came_s = 0, False, time.monotonic()  # of the child that has this link:
        self._of: Link | None = None
        self.zero_s, self.ended = 0.0, False
        self.counts = {"answered": 0, "missed": 0, "malformed": 0}

    def ready(self, timeout_s: float) -> bool:
        """Wait until the eye says that it is open; False where it says that it cannot be, or says nothing in time."""
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            link = self._child.link(left)
            if link is None:
                continue
            length = link.receive(self._record, max(0.0, until - time.monotonic()))
            if length == 0:
                self._child.restart()
            if length >= HEADER_BYTES and (said := read_said(self._record)).slot == READY:
                self._said, self._of, self._spoke = said, link, True
                return said.word == 0
        return False

    def begin(self, zero_s: float) -> None:
        """Say when slot 0 began, in seconds of the monotonic clock."""
        self.zero_s = zero_s
        if (link := self._child.link()) is not None:
            link.send(Question(BEGIN, zero_s).to_bytes())

    def code(self, slot: int, timeout_s: float) -> npt.NDArray[np.int16] | None:
        """Ask for the code of `slot`.

        Returns:
            int16 (n,), any values, to be given to `core.release` at once; None where no record of the right size for
            this slot came within `timeout_s` (real seconds).
        """
        until = time.monotonic() + timeout_s
        link, record = self._child.link(), self._record
        if link is not self._of:
            self._of, self._mute, self._spoke, self._came_s = link, 0, False, time.monotonic()
        if link is None or not self._drained(link):  # none is there, or it is gone, or it never stops sending
            self._miss(gone=link is not None)
            return None
        link.send(Question(slot, self.zero_s).to_bytes())
        for _ in range(_TRIES):
            length = link.receive(record, max(0.0, until - time.monotonic()))
            if length <= 0:
                self._miss(gone=length == 0)
                return None
            self._mute, self._spoke = 0, True
            code = read_code(record, length, slot, self._n)
            if code is not None:
                return self._answered(code)
            self.counts["malformed"] += length != len(record) - 1
        self._miss(gone=False)
        return None

    @property
    def watching(self) -> bool:
        """Whether the last question was answered, and the eye says that it sees."""
        return self._silent == 0 and self._said.word in WATCHES

    @property
    def says(self) -> str:
        """What the eye says of itself, in the words of the table."""
        return WORDS[self._said.word]

    def figures(self) -> dict[str, float | str]:
        """For the local page alone: what the eye says of itself depends on the scene."""
        says = {"says": self.says, "frames_a_second": PACES[self._said.pace]}
        return {**self.counts, **says, "starts": self._child.starts}

    def restart(self) -> None:
        """Start the eye anew, so that whatever it holds is forgotten."""
        self._child.restart()

    def close(self) -> None:
        """End the eye."""
        self._record.fill(0)
        self._child.close()

    def _answered(self, code: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        self._said, self._silent = read_said(self._record), 0
        self.ended = self._follows and self._said.last
        self.counts["answered"] += 1
        return code

    def _drained(self, link: Link) -> bool:
        """Drop what came since the last question: a late answer is no code, and a sign of life."""
        if (length := link.receive(self._record)) > 0:
            self._mute, self._spoke = 0, True
            return link.drain(self._record)
        return length < 0

    def _miss(self, gone: bool) -> None:
        self.counts["missed"] += 1
        self._silent += 1
        self._mute += self._of is not None
        self._record.fill(0)
        opens = not self._spoke and time.monotonic() - self._came_s < _OPENS_S
        if gone or (self._mute >= _SILENT and not opens):
            self._mute = 0
            self._child.restart()


class ReaderClient:
    """Asks the reader for verdicts, one at a time.

    Args:
        child: The reader.
        labels: Of the family, in its order.
    """

    def __init__(self, child: Child, labels: Sequence[str]) -> None:
        self._child, self._labels = child, tuple(labels)
        self._reply = np.zeros(8 + 4 * len(labels) + 1, np.uint8)
        self._asked: EventSpan | None = None

    def ask(self, event: EventWindow) -> None:
        """Send an event, all of which was published."""
        self._asked = event.span()
        link = self._child.link()
        if link is not None and link.drain(self._reply):
            link.send(event_bytes(event))
        elif link is not None:
            self._child.restart()

    def answer(self, timeout_s: float = 0.0) -> tuple[EventSpan, Mapping[str, float] | None] | None:
        """The event that was asked about and its label -> probability, or None in place of those; None: no question."""
        span, self._asked = self._asked, None
        link = self._child.link(timeout_s if span is not None else 0.0)
        if span is None:
            return None
        length = link.receive(self._reply, timeout_s) if link is not None else -1
        if length == 0:
            self._child.restart()
        if length != len(self._reply) - 1 or int(self._reply[:8].view("<u8")[0]) != span.last_slot:
            return span, None
        values = self._reply[8:-1].view("<f4").astype(np.float64).tolist()
        sound = all(0.0 <= value <= 1.0 for value in values) and math.isclose(sum(values), 1.0, abs_tol=1e-3)
        return span, dict(zip(self._labels, values, strict=True)) if sound else None

    def figures(self) -> dict[str, float]:
        """For the local page."""
        return {"starts": self._child.starts}

    def close(self) -> None:
        """End the reader."""
        self._child.close()
