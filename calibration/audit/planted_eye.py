"""The audit's own eyes: they see nothing, and say or do what an attacker would, to the real gate over its real socket.

    python -m calibration.audit.planted_eye --codes --descriptor N               answers with codes that it was given
    python -m calibration.audit.planted_eye --behaviour NAME@KEY --descriptor N  acts by a secret bit a slot

The first is asked as fast as it answers. The others confine themselves as the product's eye does, and stand for a
graph, a camera library or a runtime whose maker wants to tell what is seen: the secret is the scene.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from edge_runtime.child import ChildProcess, run_child
from edge_runtime.gate.core import HEADER_BYTES
from edge_runtime.link import MAX_SETTINGS, Link
from edge_runtime.record import BEGIN, QUESTION_BYTES, READY, Question, Said, write_said

__all__ = ["BEHAVIOURS", "MARK_BYTES", "SIGN", "main", "mark", "secret", "written"]

SIGN = 1
"""First coordinate of the code by which a planted eye asks a leaky gate to wait."""
MARK_BYTES = 5
"""Bytes of a mark: as many as a record's header has room for."""

_IDLE_S = 60.0
_BUSY_S, _BUSY_THREADS = 0.06, 4  # from the gate's question until after the release, on the audit's clock
_LATE_S = 0.12


def secret(key: int, slot: int) -> int:
    """Return the bit of a slot that the eye wants to tell: what the scene would be."""
    return _digest(key, slot)[0] & 1


def mark(key: int) -> bytes:
    """Return MARK_BYTES bytes that stand for pixels: wherever they are found, they came from the eye."""
    return _digest(key, -1)[:MARK_BYTES]


def written(found: bytes) -> tuple[bytes, ...]:
    """Return bytes in the forms in which a program may write them: raw, hex, a list of numbers, base64."""
    return found, found.hex().encode(), ", ".join(map(str, found)).encode(), base64.b64encode(found)[:6]


def _digest(key: int, slot: int) -> bytes:
    return hashlib.blake2b(f"{key} {slot}".encode(), digest_size=8).digest()


class _Talk:
    """The eye's side of the socket. code: int16 (n,), what the next answer holds."""

    def __init__(self, link: Link, n: int) -> None:
        self.link, self._record = link, np.zeros(HEADER_BYTES + 2 * n, np.uint8)
        self.code = self._record[HEADER_BYTES:].view("<i2")

    def slots(self) -> Iterator[int]:
        """Say that the eye is open, and yield each slot that the gate asks for until it is gone."""
        self.answer(READY)
        question = np.zeros(QUESTION_BYTES + 1, np.uint8)
        while (length := self.link.receive(question, _IDLE_S)) > 0:
            if length == QUESTION_BYTES and (slot := Question.read(question).slot) != BEGIN:
                yield slot

    def answer(self, slot: int, hidden: bytes = b"") -> None:
        """Send the record; hidden: bytes for the header's end, which no product reads."""
        write_said(self._record, Said(slot))
        self._record[HEADER_BYTES - len(hidden) : HEADER_BYTES] = np.frombuffer(hidden, np.uint8)
        self.link.send(self._record)


# --- what the hostile ones do in a slot whose secret is 1 -------------------------------------------------------------

_Act = Callable[[_Talk, int, int], None]


def _sleep(talk: _Talk, slot: int, key: int) -> None:
    """Answer long after the deadline."""
    time.sleep(_LATE_S)
    talk.answer(slot)


def _hesitate(talk: _Talk, slot: int, key: int) -> None:
    """Answer in time, and later than otherwise."""
    time.sleep(_LATE_S / 6)
    talk.answer(slot)


def _load(talk: _Talk, slot: int, key: int) -> None:
    """Load the processor until after the release."""
    for _ in range(_BUSY_THREADS):
        threading.Thread(target=_burn, args=(time.monotonic() + _BUSY_S,), daemon=True).start()
    talk.answer(slot)


def _burn(until: float) -> None:
    block = np.ones((128, 128), np.float32)
    while time.monotonic() < until:
        block @ block  # without the interpreter's lock


def _die(talk: _Talk, slot: int, key: int) -> None:
    """Die as a trap in native code does, before any answer."""
    os.kill(os.getpid(), signal.SIGKILL)


def _speak(talk: _Talk, slot: int, key: int) -> None:
    """Print pixels in every form, hide them where a record has room, and send records that cannot be read."""
    pixels = mark(key)
    for form in written(pixels):
        for descriptor in (1, 2):
            os.write(descriptor, form + b"\n")
        talk.link.send(form)
    print(list(pixels), file=sys.stderr, flush=True)
    talk.link.send(pixels * 4000)
    talk.answer(slot, pixels)


def _tell(talk: _Talk, slot: int, key: int) -> None:
    """What a leaky gate passes on: a sign, silence, and pixels."""
    if _digest(key, slot)[1] & 1:
        talk.code[0] = SIGN
        talk.answer(slot, mark(key))
        talk.code[0] = 0


BEHAVIOURS: Mapping[str, _Act] = {
    "sleeps": _sleep,
    "hesitates": _hesitate,
    "loads": _load,
    "dies": _die,
    "speaks": _speak,
    "tells": _tell,
}
"""Name -> what the eye does in a slot whose secret is 1."""


# --- the process ------------------------------------------------------------------------------------------------------


def _act(name: str, key: int, child: ChildProcess) -> None:
    talk = _Talk(child.link, child.manifest.n)
    for slot in talk.slots():
        if secret(key, slot):
            BEHAVIOURS[name](talk, slot, key)
        else:
            talk.answer(slot)


def _read_out(descriptor: int) -> int:
    """Answer slot s with row `index[s]` of `codes`, both in the file whose name the gate's side sends first."""
    link, settings = Link.of_descriptor(descriptor), np.zeros(MAX_SETTINGS + 1, np.uint8)
    length = link.receive(settings, _IDLE_S)
    with np.load(settings[: max(0, length)].tobytes().decode()) as plan:
        codes, index = plan["codes"], plan["index"]
    talk = _Talk(link, codes.shape[1])
    for slot in talk.slots():
        talk.code[:] = codes[index[slot]]
        talk.answer(slot)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the eye and return its exit status."""
    parser = argparse.ArgumentParser(prog="calibration.audit.planted_eye", allow_abbrev=False, description="for audits")
    parser.add_argument("--behaviour", default="", metavar="NAME@KEY", help=", ".join(BEHAVIOURS))
    parser.add_argument("--codes", action="store_true", help="answer with the codes of a file")
    given, own = parser.parse_known_args(argv)
    if given.codes:
        return _read_out(int(own[own.index("--descriptor") + 1]))
    name, _, key = given.behaviour.partition("@")
    return run_child("eye", own, partial(_act, name, int(key)))


if __name__ == "__main__":
    sys.exit(main())
