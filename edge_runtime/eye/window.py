"""The ring of small frames, and the window that is read from it at a slot's end.

    capture thread --push--> FrameBuffer (as far back as a window's receptive field) --slot end--> Window --> wiped
                                |  Sightings: whose people are known                      + people, by `perception`

Times are seconds on the release clock. Frames and people stay in this process's memory.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt

from edge_runtime.eye.sightings import Sightings
from edge_runtime.fleeting import Fleeting
from wire.artifact.manifest import WindowSpec
from wire.people.packed import VALUES
from wire.people.tracks import TRACKS

__all__ = ["FrameBuffer", "Window"]


class Window(Fleeting):
    """The frames of one slot, uint8 (1, T, H, W). It has no method that encodes it.

    Args:
        slot: Whose it is.
        frames: See above.
        numbers: Of the frames in their buffer, int64 (T,), -1 for black; None where there is no person network.
        new_frames: How many of them, at the end, are the slot's own.

    Attributes:
        people: Their tracks, int32 (1, T, TRACKS, VALUES), zeros until `Perception.complete`; None without a person
            network.
    """

    def __init__(
        self,
        slot: int,
        frames: npt.NDArray[np.uint8],
        numbers: npt.NDArray[np.int64] | None = None,
        new_frames: int = 0,
    ) -> None:
        super().__init__(frames)
        self.slot, self.frames = slot, frames
        self.numbers = np.zeros(0, np.int64) if numbers is None else numbers
        self.newest = self.numbers[len(self.numbers) - new_frames :]
        shape = (1, frames.shape[1], TRACKS, VALUES)
        self.people: npt.NDArray[np.int32] | None = None if numbers is None else np.zeros(shape, np.int32)

    def wipe(self) -> None:
        """Zero frames and people."""
        super().wipe()
        if self.people is not None:
            self.people.fill(0)


class FrameBuffer:
    """A ring of small grey frames and their capture times, for one writer and one reader.

    It holds every frame that a window may need (`WindowSpec.receptive_field_s`).

    Args:
        spec: Which frames a window takes, and their size.
        ahead_s: How long before its capture time a frame may be pushed: files are decoded ahead.
        max_fps: More frames a second than this are not wanted.
        person_frame: Height and width of the person network's frame; None: there is none.

    Attributes:
        sightings: What the person network has to see and has found; None where there is none.
    """

    def __init__(
        self,
        spec: WindowSpec,
        ahead_s: float = 1.0,
        max_fps: float = 40.0,
        person_frame: tuple[int, int] | None = None,
    ) -> None:
        self.spec = spec
        size = math.ceil((spec.receptive_field_s + spec.slot_s + ahead_s) * max_fps) + 2
        self._frames, self._times = np.zeros((size, spec.height, spec.width), np.uint8), np.full(size, -np.inf)
        self._pushed = 0  # frame k is in place k % size
        self.sightings = None if person_frame is None else Sightings(spec, person_frame, size, ahead_s)
        self._lock = threading.Lock() if self.sightings is None else self.sightings.lock
        self._gap_s, self.newest_s = 1.0 / max_fps, -math.inf

    def wants(self, time_s: float) -> bool:
        """Whether a frame captured at `time_s` should be pushed."""
        return time_s - self.newest_s >= self._gap_s - 1e-6

    def push(
        self,
        time_s: float,
        frame: npt.NDArray[np.uint8],
        picture: npt.NDArray[np.uint8] | None = None,
        size: tuple[int, int] = (0, 0),
    ) -> None:
        """Keep a copy of `frame`, captured at `time_s`; times must not decrease.

        Args:
            time_s: When it was captured.
            frame: Grey, uint8 (H, W).
            picture: The same in colour for the person network, uint8 (h, w, 3); given where there is one.
            size: Height and width of the camera's picture.
        """
        with self._lock:
            place = self._pushed % len(self._times)
            self._frames[place][:] = frame
            self._times[place] = self.newest_s = time_s
            if self.sightings is not None and picture is not None:
                self.sightings.add(self._pushed, time_s, picture, size)
            self._pushed += 1

    def window(self, slot: int, end_s: float) -> Window:
        """The window of `slot`, which ends at `end_s`; missing frames are black. Older frames than its are forgotten.

        Where there is a person network, the people of its frames are asked for.
        """
        frames = np.zeros((1, self.spec.frames, self.spec.height, self.spec.width), np.uint8)
        with self._lock:
            self._forget(end_s - self.spec.receptive_field_s)
            count = len(self._times)
            order = (np.arange(count) + self._pushed) % count
            index = self.spec.pick(self._times[order], end_s)
            frames[0, index >= 0] = self._frames[order[index[index >= 0]]]
            if self.sightings is None:
                return Window(slot, frames)
            window = Window(slot, frames, np.where(index < 0, -1, index + self._pushed - count), self.spec.new_frames)
            self.sightings.want(window.numbers, window.newest, end_s)
            return window

    def _forget(self, before_s: float) -> None:
        """Zero the frames and people of before `before_s`: no window can hold them any more."""
        old = (self._times < before_s) & np.isfinite(self._times)
        self._frames[old], self._times[old] = 0, -np.inf
        if self.sightings is not None:
            self.sightings.forget(old)

    def wipe(self) -> None:
        """Zero all frames and people, and forget their times."""
        with self._lock:
            self._frames[:] = 0
            self._times[:] = self.newest_s = -math.inf
            if self.sightings is not None:
                self.sightings.wipe()
