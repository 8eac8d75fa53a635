"""The camera: a capture thread that makes every picture small and grey at once, and the window of each slot.

    source --frames--> upright picture --shrink, overwrite--> FrameBuffer --a slot is asked for--> Window
                                       --fit--> the same in colour, for the person network where there is one

A file or a synthetic scene is played on the release clock, decoded a little ahead. A live camera is read as fast as it
delivers, or as its time stamps say where a server sends ahead of time (HTTP); frames that come too densely are dropped,
and pictures that were delivered before are not kept as new (stillness.py). A live camera that fails is opened again and
again, while its slots go on with black frames; one that refuses our password is asked again only after minutes, so that
it does not lock the account.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from edge_runtime.capture.address import LIVE, backend_of, is_http, masked
from edge_runtime.capture.clock import SlotClock, StreamClock
from edge_runtime.capture.opening import LoginRefused
from edge_runtime.capture.pictures import fit, shrink
from edge_runtime.capture.sources import Frame, Picture, open_frames, unreadable
from edge_runtime.capture.stillness import Stillness
from edge_runtime.capture.turning import as_mounted, turned
from edge_runtime.child_settings import ChildSettings
from edge_runtime.eye.sightings import Sightings
from edge_runtime.eye.window import FrameBuffer, Window
from wire.artifact.manifest import WindowSpec
from wire.errors import CameraError
from wire.people.decode import place

__all__ = ["Camera"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0  # before a live camera is opened again
_LOGIN_PAUSE_S = 300.0  # twice as long again and again, up to three times, where it refuses our password
_TOLD_S = 30.0  # for so long it is told that frames came late or damaged


class Camera:
    """A source, its capture thread and the frames of the last seconds; a context manager.

    Args:
        settings: What of `[camera]` it needs.
        spec: Which frames a window takes, and their size.
        clock: The release clock; it runs when the camera is entered.
        person_frame: Height and width of the person network's frame; None: there is none.

    Attributes:
        name: The source without what may be secret.
        frames: Pictures that were kept so far.
        problem: Why the last attempt to open a live camera failed, or why its pictures are no use, for the check of an
            installation; "" where none did.
        too_small: Whether its last picture was too small for the person network.

    Raises:
        CameraError: The source is a file without a readable frame, cannot be opened on this machine, or has pictures
            too small for the person network.
    """

    def __init__(
        self,
        settings: ChildSettings,
        spec: WindowSpec,
        clock: SlotClock,
        person_frame: tuple[int, int] | None = None,
    ) -> None:
        self._source, self._rotate, self._loop = settings.camera_source, settings.camera_rotate, settings.camera_loop
        self._timeout_s, self._lost_after_s = settings.camera_timeout_s, settings.camera_lost_after_s
        self._spec, self._clock = spec, clock
        self.name, backend = masked(self._source), backend_of(self._source)
        self._live = backend in LIVE
        if self._live and clock.speed != 1.0:
            raise CameraError(f"[camera] speed is {clock.speed}; a live camera has no other speed than 1.0")
        self._ahead_s = max(1.0, clock.speed / 4)  # how far files are decoded ahead
        self._buffer, self._stillness = FrameBuffer(spec, self._ahead_s, person_frame=person_frame), Stillness()
        self._colour = None if person_frame is None else np.zeros((*person_frame, 3), np.uint8)
        self._kept_s = spec.receptive_field_s + spec.slot_s
        self._opened = self._open_early(backend)
        self._thread = threading.Thread(target=self._follow if self._live else self._play, name="capture", daemon=True)
        self._end_s, self._alive_at, self.frames, self.problem = math.inf, time.monotonic(), 0, ""
        self._refused, self.too_small, self._late_at, self._damaged_at = False, False, -math.inf, -math.inf

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
        picture = None if first is None else first[1]()
        if first is None or picture is None:
            raise CameraError(f"{self.name}: no frame can be read; the file is empty or damaged")
        if self._colour is not None:
            place(picture.shape[0], picture.shape[1], (self._colour.shape[0], self._colour.shape[1]))
        return itertools.chain([first], frames)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.stop.set()
        self._thread.join(timeout=2.0)  # a read that hangs ends with the process
        self._buffer.wipe()
        self._stillness.wipe()

    @property
    def sightings(self) -> Sightings | None:
        """What the person network has to see, and has found; None where there is none."""
        return self._buffer.sightings

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
        """Whether a live camera was silent for so long that a new process may help; none changes a wrong password."""
        return 0 < self._lost_after_s < self.silent_s and not self._refused

    @property
    def late(self) -> bool:
        """Whether pictures came later than their time stamps say: this machine decodes them too slowly."""
        return time.monotonic() - self._late_at < _TOLD_S

    @property
    def damaged(self) -> bool:
        """Whether pictures could not be decoded, a moment ago."""
        return time.monotonic() - self._damaged_at < _TOLD_S

    def first_frame(self, timeout_s: float) -> str:
        """Wait for the first picture, for the check of an installation; returns what came, in words.

        Raises:
            CameraError: None came; the message says why.
        """
        until = time.monotonic() + timeout_s
        while not (self.frames or self.problem) and time.monotonic() < until:
            time.sleep(0.05)
        if not self.frames:
            raise CameraError(self.problem or f"{self.name}: no picture within {timeout_s:g} s")
        return f"{self.name}: pictures come" + (f", and are turned by {self._rotate} degrees" if self._rotate else "")

    def _frames(self) -> Iterator[Frame]:
        size = (self._spec.height, self._spec.width) if self._colour is None else self._colour.shape[:2]
        frames = open_frames(self._source, self._timeout_s, *as_mounted(*size, self._rotate))
        return turned(frames, self._rotate)

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
                    if picture is unreadable or last_s > self._clock.now() - self._kept_s:
                        self._keep(picture, last_s)
                begin_s = last_s + step_s
        finally:
            self._end_s = begin_s

    def _follow(self) -> None:
        """Read a live camera until the process stops; open it again whenever it fails, with growing, random pauses."""
        pause_s = _FIRST_PAUSE_S
        while not self._clock.stop.is_set():
            before = self.frames
            try:
                self._read(StreamClock(is_http(self._source)))
                self._refused, pause_s = False, min(_LONGEST_PAUSE_S, pause_s * 2)
            except LoginRefused as error:
                pause_s = min(3 * _LOGIN_PAUSE_S, pause_s + _LOGIN_PAUSE_S) if self._refused else _LOGIN_PAUSE_S
                self._refused, self.problem = True, str(error)
            except CameraError as error:
                pause_s = _FIRST_PAUSE_S if self._refused else min(_LONGEST_PAUSE_S, pause_s * 2)
                self._refused, self.problem = False, str(error)
            if self.frames > before:
                pause_s = _FIRST_PAUSE_S
            self._clock.stop.wait(pause_s * random.uniform(1.0 if self._refused else 0.5, 1.5))

    def _read(self, stream: StreamClock) -> None:
        """Read a live camera until it ends, or until its pictures come so late that it must be opened again."""
        clock = self._clock
        for at_s, picture in self._frames():
            now_s = clock.now()
            taken_s = stream.place(at_s, now_s, time.thread_time())
            if stream.late:
                self._late_at = time.monotonic()
            if stream.give_up(time.thread_time()):
                return
            if not clock.wait(taken_s):  # at once, but for a picture that came ahead of its time
                return
            self._keep(picture, taken_s)

    def _keep(self, fetch: Callable[[], Picture | None], at_s: float) -> None:
        """Decode a frame, store it small and grey, and overwrite the picture."""
        if fetch is not unreadable and not self._buffer.wants(at_s):
            return
        picture = fetch()
        if picture is None:
            self._damaged_at = time.monotonic()
            return
        small = shrink(picture, self._spec.height, self._spec.width)
        if self._live and not self._stillness.is_new(small, self._clock.now()):
            picture[:] = 0  # an old picture is no sign that the camera lives
            return
        self._push(at_s, small, picture)
        picture[:] = 0

    def _push(self, at_s: float, small: Picture, picture: Picture) -> None:
        """Store a frame, and in colour too where there is a person network; not one that is too small for it."""
        if self._colour is not None:
            try:
                fit(picture, self._colour)
            except CameraError as error:
                self.too_small, self.problem = True, f"{self.name}: {error}"
                return
        self._buffer.push(at_s, small, self._colour, (picture.shape[0], picture.shape[1]))
        if self._colour is not None:
            self._colour.fill(0)
        self._alive_at, self.frames, self.too_small = time.monotonic(), self.frames + 1, False
