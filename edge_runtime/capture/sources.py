"""Sources of frames by URI, and the camera: a capture thread that makes every picture small and grey at once.

    path, file://, /dev/video0, 0, rtsp://, http://, udp://, csi://0, synthetic://walk
        --reader--> picture --shrink, overwrite--> FrameBuffer --slot end--> Window

Files and synthetic scenes are played on the release clock, decoded a little ahead. Live cameras are read as fast as
they deliver: the newest frame wins, what is too dense is dropped and counted, a camera that vanishes is opened again,
for ever, while the slots go on with black frames. OpenCV is imported only where a source needs it.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from edge_runtime.config import Config
from edge_runtime.eye.window import FrameBuffer, SlotClock, Window
from wire.artifact.manifest import WindowSpec
from wire.errors import CameraError

__all__ = ["Camera", "CameraLost", "backend_of", "masked", "open_frames", "shrink"]

log = logging.getLogger("veilsight.camera")
Picture = npt.NDArray[np.uint8]  # (H, W) grey or (H, W, 3) BGR
Frame = tuple[float, Callable[[], "Picture | None"]]  # seconds from the first (of a file); fetches the picture
_STREAMS = dict.fromkeys(("rtsp", "rtsps", "http", "https", "udp", "tcp", "rtmp"), "stream")
_BACKENDS = {"synthetic": "synthetic", "csi": "gstreamer", **_STREAMS}
_LIVE = ("stream", "gstreamer", "v4l2")
_SCENES = ("walk", "empty", "noise")
_CSI = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! "
    "videoconvert ! video/x-raw,format=BGR ! queue leaky=2 max-size-buffers=1 ! "
    "appsink drop=true max-buffers=1 sync=false"
)


class CameraLost(CameraError):
    """A live camera gave no frame for so long that a restart of the process is worth a try."""


def backend_of(source: str) -> str:
    """What reads `source`: "synthetic", "file", or for a live camera "stream", "gstreamer" or "v4l2"."""
    device = source.isdigit() or source.startswith("/dev/video")
    return "v4l2" if device else _BACKENDS.get(source.partition("://")[0], "file")


def masked(source: str) -> str:
    """`source` for logs and messages: no user, no password, no query."""
    parts = urlsplit(source)
    host = ("***@" if "@" in parts.netloc else "") + parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else source


def shrink(picture: Picture, height: int, width: int) -> Picture:
    """A picture -> grey uint8 (height, width), squashed, averaged by area."""
    if picture.shape == (height, width):
        return picture
    import cv2

    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def open_frames(source: str, timeout_s: float, height: int, width: int) -> Iterator[Frame]:
    """The frames of what `source` names, as they come. Raises CameraError, naming the source and the cure."""
    backend = backend_of(source)
    if backend == "synthetic":
        return _scene(source.partition("://")[2], height, width)
    source = source.removeprefix("file://")
    if backend == "file" and not Path(source).is_file():
        cure = "[camera] source takes a path, a device, a stream's URL or synthetic://walk"
        raise CameraError(f"{masked(source)}: no such file; {cure}")
    return _video(_open_capture(source, backend, timeout_s))


def _scene(scene: str, height: int, width: int) -> Iterator[Frame]:
    """A cheap endless scene at 25 frames a second: `walk` moves, `empty` does not, `noise` is random."""
    if scene not in _SCENES:
        raise CameraError(f"synthetic://{scene}: no such scene; there are {', '.join(_SCENES)}")
    room = (np.linspace(40, 120, height)[:, None] + np.linspace(0, 40, width)).astype(np.uint8)
    for index in itertools.count():
        picture = room.copy()
        if scene == "noise":
            picture[:] = np.frombuffer(os.urandom(picture.size), np.uint8).reshape(picture.shape)
        elif scene == "walk":
            left = int(index / 125 % 1.0 * (width - width // 8))
            picture[height // 3 : height * 7 // 8, left : left + width // 8] = 220
        yield index / 25, picture.view


def _video(capture: Any) -> Iterator[Frame]:
    """The frames of an open cv2.VideoCapture; one array, reused, holds the last picture."""
    rate = float(capture.get(5))  # CAP_PROP_FPS
    usual_s = 1.0 / rate if 1.0 <= rate <= 240.0 else 1.0 / 25.0
    at_ms, time_s = math.nan, 0.0
    held: list[Picture | None] = [None]

    def picture() -> Picture | None:
        good, held[0] = capture.retrieve(held[0])
        return held[0] if good else None

    try:
        while capture.grab():
            before, at_ms = at_ms, float(capture.get(0))  # CAP_PROP_POS_MSEC
            step_s = (at_ms - before) / 1000
            if not math.isnan(step_s):  # timestamps that stand still, run back or leap are not used: the rate is
                time_s += step_s if 0.0 < step_s < 10.0 else usual_s
            yield time_s, picture
    finally:
        capture.release()


def _open_capture(source: str, backend: str, timeout_s: float) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our messages say what matters
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    try:
        import cv2
    except ImportError as error:
        cure = "pip install 'veilsight[camera]'; on a Jetson use JetPack's own OpenCV"
        raise CameraError(f"this source needs OpenCV, which does not import ({error}); {cure}") from error
    cv2.setNumThreads(1)
    if backend == "gstreamer":
        if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
            raise CameraError(f"{source}: needs an OpenCV with GStreamer: JetPack's; pip uninstall opencv-python*")
        capture = cv2.VideoCapture(_CSI.format(source.partition("://")[2] or 0), cv2.CAP_GSTREAMER)
    elif backend == "v4l2":
        capture = cv2.VideoCapture(int(source) if source.isdigit() else source, cv2.CAP_V4L2)
    else:
        patience = max(1, int(timeout_s * 1000))
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience]
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [*limits, cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        cure = "is it reachable, and free?" if backend in _LIVE else "it is damaged, or no video that FFmpeg reads"
        raise CameraError(f"{masked(source)}: cannot be opened; {cure}")
    return capture


class Camera:
    """A source, its capture thread and the frames of the last seconds; a context manager. Checks a file: CameraError.

    lost_after_s: a live camera without a frame for so long ends `windows` with CameraLost; 0 for never. at_once: slot 0
    begins with the process; of a file it begins with the first frame.
    """

    def __init__(self, config: Config, spec: WindowSpec, clock: SlotClock, lost_after_s: float) -> None:
        self._source, self._loop, self._timeout_s = config.camera_source, config.camera_loop, config.camera_timeout_s
        self._spec, self._clock, self._lost_after_s = spec, clock, lost_after_s
        self.name, backend = masked(self._source), backend_of(self._source)
        self._live, self.at_once = backend in _LIVE, backend != "file"
        if self._live and clock.speed != 1.0:
            raise CameraError(f"[camera] speed is {clock.speed}; a live camera has no other speed than 1.0")
        self._ahead_s = max(1.0, clock.speed / 4)  # how far files are decoded ahead
        self._buffer = FrameBuffer(spec, self._ahead_s)
        self._opened: Iterator[Frame] | None = None
        if backend not in ("stream", "v4l2"):  # a file without a frame, an OpenCV that lacks GStreamer: at once
            frames = self._frames()
            first = None if self._live else next(frames, None)
            if not self._live and (first is None or first[1]() is None):
                raise CameraError(f"{self.name}: no frame can be read; the file is empty or damaged")
            self._opened = None if first is None else itertools.chain([first], frames)
        self._thread = threading.Thread(target=self._follow if self._live else self._play, name="capture", daemon=True)
        self._end_s, self._alive_at, self.frames, self.dropped, self.reconnects = math.inf, time.monotonic(), 0, 0, 0

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.stop.set()
        self._thread.join(timeout=2.0)  # a read that hangs ends with the process
        self._buffer.wipe()

    def windows(self) -> Iterator[Window]:
        """The window of each slot, at its end. A file ends when its last picture is out of every window's reach."""
        for slot in self._clock.slots():
            if math.isfinite(self._end_s) and slot >= self._spec.releases_of(self._end_s):
                return
            if self._live and 0 < self._lost_after_s < time.monotonic() - self._alive_at:
                raise CameraLost(f"{self.name}: no frame for {self._lost_after_s:.0f} s; restarting may help")
            yield self._buffer.window(slot, self._clock.end(slot))

    def figures(self) -> dict[str, float]:
        """For the local page only: these follow the scene's timing."""
        counts = {"frames": self.frames, "dropped": self.dropped, "reconnects": self.reconnects}
        age_s = self._clock.now() - self._buffer.newest_s if self.frames else -1.0
        return {**counts, "skipped_slots": self._clock.skipped, "frame_age_s": age_s}

    def _frames(self) -> Iterator[Frame]:
        return open_frames(self._source, self._timeout_s, self._spec.height, self._spec.width)

    def _play(self) -> None:
        """Push the frames of a file or a scene, a little before they are due; then say when it ended."""
        begin_s, last_s, step_s = 0.0, 0.0, 0.04
        try:
            while not self._clock.stop.is_set() and (self._loop or not begin_s):
                frames, self._opened = self._opened or self._frames(), None
                for at_s, picture in frames:
                    if not self._clock.wait(begin_s + at_s - self._ahead_s):
                        break
                    step_s = begin_s + at_s - last_s or step_s
                    last_s = begin_s + at_s
                    self._keep(picture, last_s)
                begin_s = last_s + step_s
        finally:
            self._end_s = begin_s

    def _follow(self) -> None:
        """Read a live camera until stopped; open it again whenever it fails, later and later, with jitter."""
        pause_s = 0.5
        while not self._clock.stop.is_set():
            before = self.frames
            try:
                for _, picture in self._frames():
                    if self._clock.stop.is_set():
                        return
                    self._keep(picture, self._clock.now())
                log.warning("%s: no more frames; opening it again", self.name)
            except CameraError as error:
                log.warning("%s; trying again", error)
            self.reconnects += 1
            pause_s = 0.5 if self.frames > before else min(30.0, pause_s * 2)
            self._clock.stop.wait(pause_s * random.uniform(0.5, 1.5))

    def _keep(self, fetch: Callable[[], Picture | None], at_s: float) -> None:
        """Make the grabbed frame small, keep that, and overwrite the picture."""
        picture = fetch() if self._buffer.wants(at_s) else None
        if picture is None:
            self.dropped += 1
            return
        self._buffer.push(at_s, shrink(picture, self._spec.height, self._spec.width))
        picture[:] = 0
        self._alive_at, self.frames = time.monotonic(), self.frames + 1
