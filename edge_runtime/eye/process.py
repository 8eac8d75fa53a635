"""The eye: the process that sees. It answers the gate with the code of a slot, and can reach nothing else.

    gate --Question--> the slot's window --encode--> code --Record--> gate, and both are wiped
    camera --each frame that a window takes--> person network --> people, for the windows of a family that sees people

    python -m edge_runtime.eye.process --descriptor N | --socket /run/veilsight/eye.sock

It is not trusted: camera, decoders, network and runtime are in it. It has no broker, key, ledger, noise or writable
disk, it confines itself before it opens anything, and what it prints is dropped. A question that is older than the one
after it is not answered, and no window is encoded twice.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext

import numpy as np

from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.child import ChildProcess, run_child
from edge_runtime.eye.engine.base import Engine, self_test
from edge_runtime.eye.perception import Perception
from edge_runtime.eye.window import Window
from edge_runtime.gate.core import HEADER_BYTES
from edge_runtime.link import Link
from edge_runtime.memory import give_back
from edge_runtime.record import (
    BEGIN,
    CAMERA_DAMAGED,
    CAMERA_FAILED,
    CAMERA_LATE,
    CAMERA_SILENT,
    ENGINE_STOPPED,
    PACES,
    QUESTION_BYTES,
    READY,
    TOO_SLOW,
    Question,
    Said,
    write_said,
)
from wire.errors import EngineError

__all__ = ["Eye", "main"]

_IDLE_S = 1.0  # between looks at the camera while nobody asks
_SILENT_S = 5.0  # without a picture, after which the camera is said to be silent
_PACE_S = 2.0  # over which frames are counted


class Eye:
    """An open camera and an open encoder.

    Args:
        camera: Not entered yet; it is once the clock runs.
        engine: With `encode`, and `perceive` where the camera keeps pictures for it.
        clock: The release clock; each question says when it began.
    """

    def __init__(self, camera: Camera, engine: Engine, clock: SlotClock) -> None:
        self._camera, self._engine, self._clock = camera, engine, clock
        sightings = camera.sightings
        self._perception = None if sightings is None else Perception(engine, sightings)
        n = engine.manifest.n
        self._record = np.zeros(HEADER_BYTES + 2 * n, np.uint8)
        self._code = self._record[HEADER_BYTES:].view("<i2")
        self._counted: tuple[float, int] = (time.monotonic(), 0)
        self._pace, self._slow = 0, False

    def serve(self, link: Link) -> None:
        """Answer until the gate is gone, or the camera is lost for so long that a new process may help."""
        link.send(self._filled(Said(READY)))
        question = np.zeros(QUESTION_BYTES + 1, np.uint8)
        while not self._clock.zero_s:
            if (length := link.newest(question, _IDLE_S)) == 0:
                return
            if length == QUESTION_BYTES:
                self._clock.start(Question.read(question).zero_s)
        perceiving: AbstractContextManager[object] = self._perception or nullcontext()
        with self._camera, perceiving:
            while not self._camera.lost and (length := link.newest(question, _IDLE_S)) != 0:
                if length == QUESTION_BYTES and (slot := Question.read(question).slot) != BEGIN:
                    link.send(self._answer(slot))
                    self._record.fill(0)

    def _answer(self, slot: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """The record of `slot`: its code, or zeros and the word that says why."""
        began, word = time.monotonic(), self._word()
        window = self._camera.window(slot)
        try:
            with window as frames:
                if self._is_complete(window):
                    self._code[:] = self._engine.encode(frames, window.people)
                else:
                    word = TOO_SLOW
        except EngineError:
            word = ENGINE_STOPPED
        self._slow = time.monotonic() - began > self._clock.slot_s / self._clock.speed
        return self._filled(Said(slot, word, self._frames_a_second(), self._camera.last(slot)))

    def _is_complete(self, window: Window) -> bool:
        """Wait for the people of a window, where there are some; False where they miss its slot's deadline."""
        if self._perception is None:
            return True
        return self._perception.complete(window, self._clock.left(self._clock.deadline(window.slot)))

    def _word(self) -> int:
        """Index into WORDS."""
        camera = self._camera
        holds = (
            (CAMERA_FAILED, camera.too_small),
            (CAMERA_SILENT, camera.silent_s > _SILENT_S),
            (TOO_SLOW, self._slow),
            (CAMERA_LATE, camera.late),
            (CAMERA_DAMAGED, camera.damaged),
        )
        return next((word for word, does in holds if does), 0)

    def _filled(self, said: Said) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        write_said(self._record, said)
        return self._record

    def _frames_a_second(self) -> int:
        """Index into PACES."""
        now, (since, frames) = time.monotonic(), self._counted
        if now - since >= _PACE_S:
            rate = (self._camera.frames - frames) / (now - since) / self._clock.speed
            self._counted, self._pace = (now, self._camera.frames), min(len(PACES) - 1, math.ceil(rate / 5))
        return self._pace


def main(argv: Sequence[str] | None = None) -> int:
    """Run the eye and return its exit status."""
    return run_child("eye", argv, _open)


def _open(child: ChildProcess) -> None:
    """Open camera and engine, then serve the gate, or only report them where an installation is checked."""
    settings, manifest = child.settings, child.manifest
    clock = SlotClock(manifest.window.slot_s, settings.run_release_delay_s, settings.camera_speed)
    camera = Camera(settings, manifest.window, clock, manifest.person_frame)
    with closing(child.open_engine()) as engine:
        self_test(engine)
        if settings.zero_s or child.checks:
            clock.start(settings.zero_s)
        give_back()
        if not child.checks:
            Eye(camera, engine, clock).serve(child.link)
            return
        with camera:
            child.say(f"camera: {camera.first_frame(1.5 * settings.camera_timeout_s)}")


if __name__ == "__main__":
    sys.exit(main())
