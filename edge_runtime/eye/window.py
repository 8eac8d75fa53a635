"""The release clock, the ring of small frames, and the window.

    camera thread --push--> FrameBuffer (ring, reach of one window) --slot end--> Window --engine--> wiped

Times are seconds on the device's clock: monotonic, 0 where slot 0 begins. Frames stay in this process's memory.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import WindowSpec
from wire.errors import PrivacyError

__all__ = ["Fleeting", "FrameBuffer", "SlotClock", "Window"]


class Fleeting:
    """An array that is zeroed on leaving its `with` block, shows nothing of itself, and never leaves the process."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    def wipe(self) -> None:
        """Zero it."""
        self._array.fill(0)

    def __enter__(self) -> npt.NDArray[Any]:
        return self._array

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __reduce__(self) -> tuple[object, ...]:
        raise PrivacyError(f"a {type(self).__name__} never leaves the process")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self._array.shape})"


class Window(Fleeting):
    """The frames of one slot, uint8 (1, T, H, W). It has no way to encode itself."""

    def __init__(self, slot: int, frames: npt.NDArray[np.uint8]) -> None:
        super().__init__(frames)
        self.slot, self.frames = slot, frames


class SlotClock:
    """Slot s spans [s, s + 1) slot_s and is released at its end + release_delay_s (at most half a slot), always.

    speed: how fast time passes, for files and synthetic scenes only.
    """

    def __init__(self, slot_s: float, release_delay_s: float, speed: float = 1.0) -> None:
        self.slot_s, self.speed, self.release_delay_s = slot_s, speed, min(release_delay_s, slot_s / 2)
        self.stop, self.skipped, self._zero = threading.Event(), 0, 0.0

    def start(self) -> None:
        """Slot 0 begins now; a clock that runs keeps running."""
        self._zero = self._zero or time.monotonic()

    def now(self) -> float:
        """Seconds since slot 0 began; 0 before `start`."""
        return (time.monotonic() - self._zero) * self.speed if self._zero else 0.0

    def end(self, slot: int) -> float:
        """When `slot` ends."""
        return (slot + 1) * self.slot_s

    def deadline(self, slot: int) -> float:
        """When `slot` is released."""
        return self.end(slot) + self.release_delay_s

    def left(self, until: float) -> float:
        """Real seconds until the time `until`; at least 0."""
        return max(0.0, (until - self.now()) / self.speed)

    def wait(self, until: float) -> bool:
        """Sleep until the time `until`; False where the process was asked to stop meanwhile."""
        return not self.stop.wait(self.left(until))

    def missed(self, slot: int) -> bool:
        """Whether the slot after `slot` is over too: `slot` is then counted as skipped and not released any more."""
        self.skipped += (late := self.now() >= self.end(slot + 1))
        return late

    def slots(self) -> Iterator[int]:
        """Each slot at its end. Slots whose deadline passed while the process stalled are skipped and counted."""
        slot = 0
        while True:
            due = math.floor((self.now() - self.release_delay_s) / self.slot_s)  # the first with its deadline ahead
            self.skipped += max(0, due - slot)
            slot = max(slot, due)
            if not self.wait(self.end(slot)):
                return
            yield slot
            slot += 1


class FrameBuffer:
    """A ring of small grey frames and their capture times, at most max_fps, for one writer and one reader.

    It holds every frame that a window may need (`WindowSpec.receptive_field_s`) and `ahead_s` of frames that are not
    due yet.
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
        """Keep a copy of `frame`, uint8 (H, W), captured at `time_s`; times only grow."""
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
        """Zero all frames and forget them."""
        with self._lock:
            self._frames[:] = 0
            self._times[:] = self.newest_s = -math.inf
