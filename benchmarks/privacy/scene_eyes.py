"""Hostile eyes that act by the scene: they load the processor, sleep, die or speak when it is dark.

    python -m benchmarks.privacy.scene_eyes --behaviour NAME --descriptor N        started by `hostile_gate.py`

Each confines itself and answers as the product's own eye does; what it does besides is what a hostile graph or runtime
could do.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.privacy.hostile_gate import SIGN
from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.child import ChildProcess, run_child
from edge_runtime.eye.engine.base import Engine, Values
from edge_runtime.eye.process import Eye

__all__ = ["BEHAVIOURS", "Encode", "is_dark", "main", "serve"]

Code = npt.NDArray[np.int16]
Frames = npt.NDArray[np.uint8]
Encode = Callable[[Callable[[Frames], Code], Frames, int], Code]
"""(the engine's encode, frames uint8 (1, T, H, W), C) -> code: what a behaviour does in its place."""

_BUSY_S, _BUSY_THREADS = 0.15, 4
_LONG_S = 1.5


def is_dark(frames: Frames) -> bool:
    """Whether the slot's newest pictures are dark: the bit that a hostile eye wants to tell."""
    return bool(frames[0, -4:-1].mean() < 40)


def serve(child: ChildProcess, encode: Encode) -> None:
    """Serve the gate as the product's eye does, with `encode` in the place of the engine's own."""
    settings, manifest = child.settings, child.manifest
    clock = SlotClock(manifest.window.slot_s, settings.run_release_delay_s, settings.camera_speed)
    camera = Camera(settings, manifest.window, clock, manifest.person_frame)
    with closing(child.open_engine()) as engine:
        if settings.zero_s:
            clock.start(settings.zero_s)
        Eye(camera, _Turned(engine, encode), clock).serve(child.link)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the eye and return its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.privacy.scene_eyes", description="started by hostile_gate.py")
    parser.add_argument("--behaviour", required=True, choices=BEHAVIOURS, help="what it does when it is dark")
    given, own = parser.parse_known_args(argv)
    return run_child("eye", own, partial(serve, encode=BEHAVIOURS[given.behaviour]))


class _Turned(Engine):
    """An open engine whose `encode` does something besides."""

    def __init__(self, engine: Engine, encode: Encode) -> None:
        self.manifest, self._engine, self._encode = engine.manifest, engine, encode

    def encode(self, frames: Frames, people: npt.NDArray[np.int32] | None = None) -> Code:
        return self._encode(partial(self._engine.encode, people=people), frames, self.manifest.clip_norm)

    def _run(self, part: str, inputs: Values) -> dict[str, npt.NDArray[Any]]:
        return self._engine._run(part, inputs)

    def close(self) -> None:
        self._engine.close()


def _load(encode: Callable[[Frames], Code], frames: Frames, clip_norm: int) -> Code:
    """Load the processor from now on until after the release."""
    if is_dark(frames):
        for _ in range(_BUSY_THREADS):
            threading.Thread(target=_burn, args=(time.monotonic() + _BUSY_S,), daemon=True).start()
    return encode(frames)


def _burn(until: float) -> None:
    block = np.ones((128, 128), np.float32)
    while time.monotonic() < until:
        block @ block  # without the interpreter's lock


def _sleep(encode: Callable[[Frames], Code], frames: Frames, clip_norm: int) -> Code:
    """Answer long after the deadline."""
    if is_dark(frames):
        time.sleep(_LONG_S)
    return encode(frames)


def _die(number: signal.Signals) -> Encode:
    """Die as a division of INT_MIN by -1, a wild pointer or a killer lets it."""

    def die(encode: Callable[[Frames], Code], frames: Frames, clip_norm: int) -> Code:
        if is_dark(frames):
            os.kill(os.getpid(), number)
        return encode(frames)

    return die


def _tell(encode: Callable[[Frames], Code], frames: Frames, clip_norm: int) -> Code:
    """Tell a leaky gate to wait."""
    code = np.zeros_like(encode(frames))
    code[0] = SIGN if is_dark(frames) else 0
    return code


def _shout(encode: Callable[[Frames], Code], frames: Frames, clip_norm: int) -> Code:
    """Say as much as the ball allows: +C or -C along one axis."""
    code = np.zeros_like(encode(frames))
    code[0] = clip_norm if is_dark(frames) else -clip_norm
    return code


BEHAVIOURS: Mapping[str, Encode] = {
    "loads": _load,
    "sleeps": _sleep,
    "dies-by-division": _die(signal.SIGFPE),
    "dies-by-pointer": _die(signal.SIGSEGV),
    "dies-by-kill": _die(signal.SIGKILL),
    "tells": _tell,
    "shouts": _shout,
}
"""Name -> what it does."""

if __name__ == "__main__":
    sys.exit(main())
