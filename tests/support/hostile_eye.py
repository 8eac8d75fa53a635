"""Eyes that do what a hostile camera library, runtime or graph could do, run by the real gate in place of its own.

CONFINED      it confines itself, as the product's eye does, and attacks from inside; it has the camera's pixels
CONVERSATIONS it confines nothing, and says to the gate whatever it likes whenever `secret(slot)` is 1

python -m tests.support.hostile_eye --behaviour NAME@FOLDER --descriptor N     FOLDER holds targets.json
python -m tests.support.hostile_eye --attack FOLDER                            the attacks, free of all confinement
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.privacy.scene_eyes import Encode, serve
from edge_runtime import child as frame
from edge_runtime.child import ChildProcess, run_child
from edge_runtime.child_settings import ChildSettings
from edge_runtime.gate.core import HEADER_BYTES
from edge_runtime.link import MAX_SETTINGS, Link
from edge_runtime.record import BEGIN, CAMERA_SILENT, QUESTION_BYTES, READY, Question, Said, write_said
from tests.support.attacks import attempt_all, speak
from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError

__all__ = ["CONFINED", "CONVERSATIONS", "main", "read_targets", "secret"]

_AGES = 10.0


def secret(slot: int) -> int:
    """The bit of a slot that the eye wants to tell."""
    return slot * 2654435761 >> 7 & 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the eye and return its exit status."""
    parser = argparse.ArgumentParser(description="a hostile eye", allow_abbrev=False)
    parser.add_argument("--behaviour", default="")
    parser.add_argument("--attack", type=Path)
    given, own = parser.parse_known_args(argv)
    if given.attack:
        print(f"\n{json.dumps(attempt_all(read_targets(given.attack), b'pixels' * 9))}")
        return 0
    name, _, folder = given.behaviour.removeprefix("free-").partition("@")
    if given.behaviour.startswith("free-"):  # what the confinement is for
        frame._confine = lambda settings, link, networks: []
    if name in CONVERSATIONS:
        return _converse(own, CONVERSATIONS[name])
    targets = read_targets(Path(folder))
    return run_child("eye", own, lambda child: serve(child, CONFINED[name](child, targets)))


def read_targets(folder: Path) -> dict[str, Any]:
    """What it may attack; read before it is confined."""
    return {**json.loads((folder / "targets.json").read_text()), "gate": os.getppid()}


# --- confined ---------------------------------------------------------------------------------------------------------


def _attacks(child: ChildProcess, targets: dict[str, Any]) -> Encode:
    """Everything at every slot, with the pixels; the gate is told when anything went well."""

    def encode(real: Callable[[Any], Any], frames: Any, clip_norm: int) -> Any:
        if done := attempt_all(targets, frames[0, 1].tobytes(), child.link.descriptor):
            raise EngineError(f"an attack went well: {done}")
        return real(frames)

    return encode


def _heap(child: ChildProcess, targets: dict[str, Any]) -> Encode:
    """The code is what lies in memory: whole pixels, far outside of the ball."""
    return lambda real, frames, clip_norm: np.resize(frames[0, 3].ravel(), real(frames).shape).astype(np.int16)


def _speaks(child: ChildProcess, targets: dict[str, Any]) -> Encode:
    """It prints and logs pixels, and fails with them in the error's text."""

    def encode(real: Callable[[Any], Any], frames: Any, clip_norm: int) -> Any:
        speak(frames[0, 1].tobytes())
        if frames.sum() % 2:
            raise EngineError(f"indices element out of data bounds, idx={frames[0, 1].tolist()}")
        return real(frames)

    return encode


def _crashes(child: ChildProcess, targets: dict[str, Any]) -> Encode:
    """It ends with a traceback that holds pixels."""

    def encode(real: Callable[[Any], Any], frames: Any, clip_norm: int) -> Any:
        raise ValueError(frames[0, 1].tolist())

    return encode


CONFINED: Mapping[str, Callable[[ChildProcess, dict[str, Any]], Encode]] = {
    "attacks": _attacks,
    "heap": _heap,
    "speaks": _speaks,
    "crashes": _crashes,
}
"""Name -> what makes its encode."""

# --- conversations ----------------------------------------------------------------------------------------------------


class _Talk:
    """One side of the conversation with the gate, and how to say what."""

    def __init__(self, link: Link, n: int, clip_norm: int) -> None:
        self.link, self.n, self.clip_norm = link, n, clip_norm
        self.kept: list[Any] = []

    def record(self, slot: int, values: Any = 0, **said: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """A record of the right form; values: of the code."""
        data = np.zeros(HEADER_BYTES + 2 * self.n, np.uint8)
        write_said(data, Said(slot, **said))
        data[HEADER_BYTES:].view("<i2")[:] = values
        return data

    def axis(self, length: int) -> np.ndarray[Any, np.dtype[np.int16]]:
        """A code of this length along the first axis."""
        code = np.zeros(self.n, np.int16)
        code[0] = length
        return code


def _converse(argv: Sequence[str], say: Callable[[_Talk, int], object]) -> int:
    """Answer honestly with a code of zeros, and say something else in the slots whose secret is 1."""
    link = Link.of_descriptor(int(argv[argv.index("--descriptor") + 1]))
    data = np.zeros(MAX_SETTINGS + 1, np.uint8)
    length = link.receive(data, 30.0)
    settings = ChildSettings.read(data[:length].tobytes())
    manifest = EngineManifest.load(settings.engine_folder)
    talk = _Talk(link, manifest.n, manifest.clip_norm)
    link.send(talk.record(READY))
    while (length := link.receive(data, _AGES)) != 0:
        slot = Question.read(data).slot if length == QUESTION_BYTES else BEGIN
        if slot == BEGIN:
            continue
        if secret(slot) or say in _ALWAYS:
            say(talk, slot)
        else:
            link.send(talk.record(slot))
    return 0


def _send(make: Callable[[_Talk, int], Sequence[Any]]) -> Callable[[_Talk, int], None]:
    """Send these datagrams."""

    def say(talk: _Talk, slot: int) -> None:
        for data in make(talk, slot):
            talk.link.send(data)

    return say


def _late(talk: _Talk, slot: int) -> None:
    time.sleep(0.3)
    talk.link.send(talk.record(slot, talk.axis(talk.clip_norm)))


def _flood(talk: _Talk, slot: int) -> None:
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        talk.link.send(b"pixels" * 300)


def _descriptors(talk: _Talk, slot: int) -> None:
    """A record with open files beside it, as many as go into one datagram."""
    with socket.socket(fileno=os.dup(talk.link.descriptor)) as end, open("/etc/passwd") as file:
        rights = array.array("i", [file.fileno()] * 200)
        for _ in range(3):
            with contextlib.suppress(OSError):
                end.sendmsg([talk.record(slot).tobytes()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _never_read(talk: _Talk, slot: int) -> None:
    time.sleep(_AGES)


def _close(talk: _Talk, slot: int) -> None:
    talk.link.close()
    time.sleep(_AGES)


def _die(number: signal.Signals) -> Callable[[_Talk, int], None]:
    return lambda talk, slot: os.kill(os.getpid(), number)


def _load(talk: _Talk, slot: int) -> None:
    talk.link.send(talk.record(slot))
    until = time.monotonic() + 0.1
    threads = [threading.Thread(target=_burn, args=(until,)) for _ in range(4)]
    for thread in threads:
        thread.start()


def _burn(until: float) -> None:
    block = np.ones((128, 128), np.float32)
    while time.monotonic() < until:
        block @ block


def _eat(talk: _Talk, slot: int) -> None:
    talk.kept = [np.ones(25_000_000)]  # 200 MB, touched
    talk.link.send(talk.record(slot))
    talk.kept.clear()


def _children(talk: _Talk, slot: int) -> None:
    """Processes that outlive it, hold the socket open and answer in its place."""
    for _ in range(3):
        if os.fork() == 0:
            talk.link.send(talk.record(slot))
            time.sleep(1.0)
            os._exit(0)


def _shout(times: int) -> Callable[[_Talk, int], None]:
    """Say the secret as loudly as the ball allows, or several times louder."""

    def say(talk: _Talk, slot: int) -> None:
        talk.link.send(talk.record(slot, talk.axis(times * talk.clip_norm * (2 * secret(slot) - 1))))

    return say


def _shout_ahead(talk: _Talk, slot: int) -> None:
    """Say the secret of every slot, in a record of another slot."""
    talk.link.send(talk.record(slot + 1, talk.axis(talk.clip_norm * (2 * secret(slot) - 1))))


def _hesitate(talk: _Talk, slot: int) -> None:
    """In time, but later than otherwise."""
    time.sleep(0.02)
    talk.link.send(talk.record(slot))


def _print(talk: _Talk, slot: int) -> None:
    speak(b"pixels of a room " * 40)
    talk.link.send(talk.record(slot))


CONVERSATIONS: Mapping[str, Callable[[_Talk, int], object]] = {
    "honest": _send(lambda t, slot: [t.record(slot)]),
    "too-long": _send(lambda t, slot: [t.record(slot).tobytes() + b"pixels"]),
    "too-short": _send(lambda t, slot: [t.record(slot)[:-1]]),
    "empty": _send(lambda t, slot: [b""]),
    "huge": _send(lambda t, slot: [b"pixels" * 20_000]),
    "late": _late,
    "early": _send(lambda t, slot: [t.record(slot), t.record(slot + 1, t.axis(t.clip_norm))]),
    "twice": _send(lambda t, slot: [t.record(slot), t.record(slot)]),
    "tomorrow": _send(lambda t, slot: [t.record(slot + 864_000, t.axis(t.clip_norm))]),
    "of-no-slot": _send(lambda t, slot: [t.record(READY, t.axis(t.clip_norm)), t.record(BEGIN)]),
    "beyond": _send(lambda t, slot: [t.record(slot, 32767)]),
    "lowest": _send(lambda t, slot: [t.record(slot, -32768)]),
    "one-beyond": _send(lambda t, slot: [t.record(slot, t.axis(t.clip_norm + 1))]),
    "not-a-number": _send(lambda t, slot: [t.record(slot, np.full(t.n // 4, np.nan).view("<i2"))]),
    "floods": _flood,
    "descriptors": _descriptors,
    "never-reads": _never_read,
    "silent": lambda talk, slot: None,
    "closes": _close,
    "dies-by-division": _die(signal.SIGFPE),
    "dies-by-pointer": _die(signal.SIGSEGV),
    "dies-by-kill": _die(signal.SIGKILL),
    "stops": _die(signal.SIGSTOP),
    "exits": lambda talk, slot: sys.exit(7),
    "crashes": lambda talk, slot: 1 // 0,
    "loads": _load,
    "eats": _eat,
    "children": _children,
    "prints": _print,
    "words": _send(lambda t, slot: [t.record(slot, word=CAMERA_SILENT + slot % 250, pace=slot % 250)]),
    "hesitates": _hesitate,
    "shouts": _shout(1),
    "overshouts": _shout(3),
    "shouts-ahead": _shout_ahead,
    "says-last": _send(lambda t, slot: [t.record(slot, last=True)]),
}
"""Name -> what it says in a slot whose secret is 1."""
_ALWAYS = [CONVERSATIONS[name] for name in ("shouts", "overshouts", "shouts-ahead")]  # and otherwise as well

if __name__ == "__main__":
    sys.exit(main())
