"""The camera: a capture thread that makes every picture small and grey at once, and the window of each slot.

    source --frames--> picture --shrink, overwrite--> FrameBuffer --a slot is asked for--> Window

A file or a synthetic scene is played on the release clock, decoded a little ahead. A live camera is read as fast as it
delivers: the newest frame wins, frames that come too densely are dropped and counted, and pictures that were delivered
before are not kept as new (stillness.py). A live camera that fails is opened again and again, while its slots go on
with black frames.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from edge_runtime.capture.clock import SlotClock
from edge_runtime.capture.sources import LIVE, Frame, Picture, backend_of, masked, open_frames
from edge_runtime.capture.stillness import Stillness
from edge_runtime.child_settings import ChildSettings
from edge_runtime.eye.window import FrameBuffer, Window
from wire.artifact.manifest import WindowSpec
from wire.errors import CameraError

__all__ = ["Camera", "shrink"]

log = logging.getLogger("veilsight.camera")


def shrink(picture: Picture, height: int, width: int) -> Picture:
    """Make a picture grey uint8 (height, width), squashed to that shape and averaged by area."""
    if picture.shape == (height, width):
        return picture
    import cv2

    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class Camera:
    """A source, its capture thread and the frames of the last seconds; a context manager.

    Args:
        settings: What of `[camera]` it needs.
        spec: Which frames a window takes, and their size.
        clock: The release clock; it runs when the camera is entered.

    Attributes:
        name: The source without user and password.
        frames: Pictures that were kept so far.

    Raises:
        CameraError: The source is a file without a readable frame, or cannot be opened on this machine.
    """

    def __init__(self, settings: ChildSettings, spec: WindowSpec, clock: SlotClock) -> None:
        self._source, self._loop = settings.camera_source, settings.camera_loop
        self._timeout_s, self._lost_after_s = settings.camera_timeout_s, settings.camera_lost_after_s
        self._spec, self._clock = spec, clock
        self.name, backend = masked(self._source), backend_of(self._source)
        self._live = backend in LIVE
        if self._live and clock.speed != 1.0:
            raise CameraError(f"[camera] speed is {clock.speed}; a live camera has no other speed than 1.0")
        self._ahead_s = max(1.0, clock.speed / 4)  # how far files are decoded ahead
        self._buffer, self._stillness = FrameBuffer(spec, self._ahead_s), Stillness()
        self._kept_s = spec.receptive_field_s + spec.slot_s
        self._opened = self._open_early(backend)
        self._thread = threading.Thread(target=self._follow if self._live else self._play, name="capture", daemon=True)
        self._end_s, self._alive_at, self.frames = math.inf, time.monotonic(), 0

    def _open_early(self, backend: str) -> Iterator[Frame] | None:
        """Find out before the loop starts that a file has no frame, or that OpenCV lacks GStreamer.

        Returns:
            The frames of a file or a scene; None for a live camera, which the capture thread opens.
        """
        if backend in ("stream", "v4l2"):  # it may be switched on later
            return None
        frames = self._frames()
        if self._live:
            return None
        first = next(frames, None)
        if first is None or first[1]() is None:
            raise CameraError(f"{self.name}: no frame can be read; the file is empty or damaged")
        return itertools.chain([first], frames)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.stop.set()
        self._thread.join(timeout=2.0)  # a read that hangs ends with the process
        self._buffer.wipe()
        self._stillness.wipe()

    def window(self, slot: int) -> Window:
        """The window of `slot`, whose end has come."""
        return self._buffer.window(slot, self._clock.end(slot))

    def last(self, slot: int) -> bool:
        """Whether no window after `slot` can hold a picture of the file or scene, which has ended; False where live."""
        return math.isfinite(self._end_s) and slot + 1 >= self._spec.releases_of(self._end_s)

    @property
    def silent_s(self) -> float:
        """Seconds since a live camera gave its last picture; 0 for a file or a scene."""
        return time.monotonic() - self._alive_at if self._live else 0.0

    @property
    def lost(self) -> bool:
        """Whether a live camera was silent for so long that a new process may help."""
        return 0 < self._lost_after_s < self.silent_s

    def first_frame(self, timeout_s: float) -> str:
        """Wait for the first picture, for the check of an installation; returns what came, in words."""
        until = time.monotonic() + timeout_s
        while not self.frames and time.monotonic() < until:
            time.sleep(0.05)
        return f"{self.name}: {'pictures come' if self.frames else f'no picture within {timeout_s:g} s'}"

    def _frames(self) -> Iterator[Frame]:
        return open_frames(self._source, self._timeout_s, self._spec.height, self._spec.width)

    def _play(self) -> None:
        """Push the frames of a file or a scene, a little before they are due; then note when it ended.

        In an eye that was started anew the clock is ahead: frames that are due no more are passed over undecoded.
        """
        begin_s, last_s, step_s = 0.0, 0.0, 0.04
        try:
            while not self._clock.stop.is_set() and (self._loop or not begin_s):
                frames, self._opened = self._opened or self._frames(), None
                for at_s, picture in frames:
                    if not self._clock.wait(begin_s + at_s - self._ahead_s):
                        break
                    step_s = begin_s + at_s - last_s or step_s
                    last_s = begin_s + at_s
                    if last_s > self._clock.now() - self._kept_s:
                        self._keep(picture, last_s)
                begin_s = last_s + step_s
        finally:
            self._end_s = begin_s

    def _follow(self) -> None:
        """Read a live camera until the process stops; open it again whenever it fails, with growing, random pauses."""
        pause_s = 0.5
        while not self._clock.stop.is_set():
            before = self.frames
            try:
                for _, picture in self._frames():
                    if self._clock.stop.is_set():
                        return
                    self._keep(picture, self._clock.now())
            except CameraError as error:
                log.info("%s; trying again", error)  # seen in a check alone
            pause_s = 0.5 if self.frames > before else min(30.0, pause_s * 2)
            self._clock.stop.wait(pause_s * random.uniform(0.5, 1.5))

    def _keep(self, fetch: Callable[[], Picture | None], at_s: float) -> None:
        """Decode a frame, store it small and grey, and overwrite the picture."""
        picture = fetch() if self._buffer.wants(at_s) else None
        if picture is None:
            return
        small = shrink(picture, self._spec.height, self._spec.width)
        if self._live and not self._stillness.is_new(small, at_s):
            picture[:] = 0  # an old picture is no sign that the camera lives
            return
        self._buffer.push(at_s, small)
        picture[:] = 0
        self._alive_at, self.frames = time.monotonic(), self.frames + 1
