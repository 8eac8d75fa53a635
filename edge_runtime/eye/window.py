"""The ring of small frames, and the window that is read from it at a slot's end.

    capture thread --push--> FrameBuffer (as far back as a window's receptive field) --slot end--> Window --> wiped

Times are seconds on the release clock. Frames stay in this process's memory.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt

from edge_runtime.fleeting import Fleeting
from wire.artifact.manifest import WindowSpec

__all__ = ["FrameBuffer", "Window"]


class Window(Fleeting):
    """The frames of one slot, uint8 (1, T, H, W). It has no method that encodes it."""

    def __init__(self, slot: int, frames: npt.NDArray[np.uint8]) -> None:
        super().__init__(frames)
        self.slot, self.frames = slot, frames


class FrameBuffer:
    """A ring of small grey frames and their capture times, for one writer and one reader.

    It holds every frame that a window may need (`WindowSpec.receptive_field_s`).

    Args:
        spec: Which frames a window takes, and their size.
        ahead_s: How long before its capture time a frame may be pushed: files are decoded ahead.
        max_fps: More frames a second than this are not wanted.
    """

    def __init__(self, spec: WindowSpec, ahead_s: float = 1.0, max_fps: float = 40.0) -> None:
        self.spec = spec
        size = math.ceil((spec.receptive_field_s + spec.slot_s + ahead_s) * max_fps) + 2
        self._frames, self._times = np.zeros((size, spec.height, spec.width), np.uint8), np.full(size, -np.inf)
        self._next = 0  # the oldest, overwritten next
        self._lock, self._gap_s, self.newest_s = threading.Lock(), 1.0 / max_fps, -math.inf

    def wants(self, time_s: float) -> bool:
        """Whether a frame captured at `time_s` should be pushed."""
        return time_s - self.newest_s >= self._gap_s - 1e-6

    def push(self, time_s: float, frame: npt.NDArray[np.uint8]) -> None:
        """Keep a copy of `frame`, uint8 (H, W), captured at `time_s`; times must not decrease."""
        with self._lock:
            self._frames[self._next][:] = frame
            self._times[self._next] = self.newest_s = time_s
            self._next = (self._next + 1) % len(self._times)

    def window(self, slot: int, end_s: float) -> Window:
        """The window of `slot`, which ends at `end_s`; missing frames are black."""
        frames = np.zeros((1, self.spec.frames, self.spec.height, self.spec.width), np.uint8)
        with self._lock:
            order = np.roll(np.arange(len(self._times)), -self._next)
            index = self.spec.pick(self._times[order], end_s)
            frames[0, index >= 0] = self._frames[order[index[index >= 0]]]
        return Window(slot, frames)

    def wipe(self) -> None:
        """Zero all frames and forget their times."""
        with self._lock:
            self._frames[:] = 0
            self._times[:] = self.newest_s = -math.inf
