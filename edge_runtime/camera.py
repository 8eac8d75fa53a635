"""Sources of frames by URI, and the camera: a capture thread that makes every picture small and grey at once.

    path, file://, /dev/video0, 0, rtsp://, http://, udp://, csi://0, synthetic://walk
        --reader--> picture --shrink, overwrite--> FrameBuffer --slot end--> Window

Files and synthetic scenes are played on the release clock, decoded a little ahead. Live cameras are read as fast as
they deliver: the newest frame wins, what is too dense is dropped and counted, a camera that vanishes is opened again,
for ever, while the slots go on with black frames. OpenCV is imported only where a source needs it.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from wire.errors import CameraError
from wire.manifest import WindowSpec

from .config import Config
from .window import FrameBuffer, SlotClock, Window

__all__ = ["Camera", "CameraLost", "backend_of", "masked", "open_reader", "shrink"]

log = logging.getLogger("veilsight.camera")

Picture = npt.NDArray[np.uint8]  # (H, W) grey or (H, W, 3) BGR

_STREAMS = ("rtsp", "rtsps", "http", "https", "udp", "tcp", "rtmp")
_BACKENDS = {"synthetic": "synthetic", "csi": "gstreamer", **dict.fromkeys(_STREAMS, "stream")}
_LIVE = ("stream", "gstreamer", "v4l2")
_SCENES = ("walk", "empty", "noise")
_AHEAD_S = 1.0  # how far files are decoded ahead; faster ones further
_JUMP_S = 10.0  # two timestamps of a file that are further apart are no timestamps
_CSI = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! "
    "videoconvert ! video/x-raw,format=BGR ! queue leaky=2 max-size-buffers=1 ! "
    "appsink drop=true max-buffers=1 sync=false"
)


class CameraLost(CameraError):
    """A live camera gave no frame for so long that a restart of the process is the next thing to try."""

def backend_of(source: str) -> str:
    """What reads `source`: "synthetic", "file", or for a live camera "stream", "gstreamer" or "v4l2"."""
    if source.isdigit() or source.startswith("/dev/video"):
        return "v4l2"
    return _BACKENDS.get(source.partition("://")[0], "file")


def masked(source: str) -> str:
    """`source` for logs and messages: no user, no password, no query."""
    parts = urlsplit(source)
    user = "***@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else source


def shrink(picture: Picture, height: int, width: int) -> Picture:
    """A picture -> grey uint8 (height, width), squashed, averaged by area."""
    if picture.shape == (height, width):
        return picture
    import cv2

    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def open_reader(source: str, timeout_s: float, height: int, width: int) -> _Synthetic | _Video:
    """Open what `source` names. Raises CameraError, naming the source (without its password) and the cure."""
    backend = backend_of(source)
    if backend == "synthetic":
        return _Synthetic(source.partition("://")[2], height, width)
    if backend == "file":
        source = source.removeprefix("file://")
        if not Path(source).is_file():
            cure = "[camera] source takes a path, a device, a stream's URL or synthetic://walk"
            raise CameraError(f"{masked(source)}: no such file; {cure}")
    return _Video(source, backend, timeout_s)


class _Synthetic:
    """A cheap endless scene at 25 frames a second: `walk` moves, `empty` does not, `noise` is random."""
    def __init__(self, scene: str, height: int, width: int) -> None:
        if scene not in _SCENES:
            raise CameraError(f"synthetic://{scene}: no such scene; there are {', '.join(_SCENES)}")
        self._scene, self._index = scene, -1
        self._room = (np.linspace(40, 120, height)[:, None] + np.linspace(0, 40, width)).astype(np.uint8)

    def grab(self) -> float:
        self._index += 1
        return self._index / 25

    def picture(self) -> Picture:
        height, width = self._room.shape
        picture = self._room.copy()
        if self._scene == "noise":
            picture[:] = np.frombuffer(os.urandom(picture.size), np.uint8).reshape(picture.shape)
        elif self._scene == "walk":
            left = int(self._index / 125 % 1.0 * (width - width // 8))
            picture[height // 3 : height * 7 // 8, left : left + width // 8] = 220
        return picture

    def close(self) -> None:
        pass


class _Video:
    """Whatever OpenCV opens."""
    def __init__(self, source: str, backend: str, timeout_s: float) -> None:
        self._capture = _open_capture(source, backend, timeout_s)
        rate = float(self._capture.get(5))  # CAP_PROP_FPS
        self._step_s = 1.0 / rate if 1.0 <= rate <= 240.0 else 1.0 / 25.0
        self._at_ms, self._time_s = math.nan, 0.0
        self._picture: Picture | None = None

    def grab(self) -> float | None:
        """Step to the next frame: its time in seconds from the first (of a file), None at the end or on a failure."""
        if not self._capture.grab():
            return None
        at_ms = float(self._capture.get(0))  # CAP_PROP_POS_MSEC
        if not math.isnan(self._at_ms):
            step_s = (at_ms - self._at_ms) / 1000
            # Timestamps that stand still, run back or leap are not used: the frame rate is.
            self._time_s += step_s if 0.0 < step_s < _JUMP_S else self._step_s
        self._at_ms = at_ms
        return self._time_s

    def picture(self) -> Picture | None:
        """The frame of the last grab; the array is the reader's and reused."""
        good, self._picture = self._capture.retrieve(self._picture)
        return self._picture if good else None

    def close(self) -> None:
        self._capture.release()


def _open_capture(source: str, backend: str, timeout_s: float) -> Any:
    """An open cv2.VideoCapture, or CameraError."""
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
    """A source, its capture thread and the frames of the last seconds; a context manager.

    lost_after_s: a live camera without a frame for so long ends `windows` with CameraLost; 0 for never. A file is
    checked here, before anything else happens: CameraError. at_once: whether slot 0 begins with the process; of a file
    it begins with the first frame.
    """
    def __init__(self, config: Config, spec: WindowSpec, clock: SlotClock, lost_after_s: float) -> None:
        self._source, self._loop, self._timeout_s = config.camera_source, config.camera_loop, config.camera_timeout_s
        self._spec, self._clock, self._lost_after_s = spec, clock, lost_after_s
        self.name, backend = masked(self._source), backend_of(self._source)
        self._live, self.at_once = backend in _LIVE, backend != "file"
        if self._live and clock.speed != 1.0:
            raise CameraError(f"[camera] speed is {clock.speed}; a live camera has no other speed than 1.0")
        self._ahead_s = _AHEAD_S * max(1.0, clock.speed / 4)
        self._buffer = FrameBuffer(spec, self._ahead_s)
        if backend in ("file", "gstreamer"):
            self._probe()
        self._thread = threading.Thread(target=self._follow if self._live else self._play, name="capture", daemon=True)
        self._end_s, self._alive_at = math.inf, time.monotonic()
        self.frames = self.dropped = self.black = self.reconnects = 0

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.stop.set()
        self._thread.join(timeout=2.0)  # a read that hangs ends with the process
        self._buffer.wipe()

    def windows(self) -> Iterator[Window]:
        """The window of each slot, at its end. A file ends with the last slot of which it covers at least half."""
        for slot in self._clock.slots():
            if slot >= max(1.0, self._end_s / self._clock.slot_s + 0.5) // 1:
                return
            if self._live and 0 < self._lost_after_s < time.monotonic() - self._alive_at:
                raise CameraLost(f"{self.name}: no frame for {self._lost_after_s:.0f} s; restarting may help")
            window = self._buffer.window(slot, self._clock.end(slot))
            self.black += window.black
            yield window

    def figures(self) -> dict[str, float]:
        """For the local page only: these follow the scene's timing."""
        made = {name: float(getattr(self, name)) for name in ("frames", "dropped", "black", "reconnects")}
        age_s = self._clock.now() - self._buffer.newest_s
        return {**made, "skipped_slots": self._clock.skipped, "frame_age_s": age_s if math.isfinite(age_s) else -1.0}

    def _open(self) -> _Synthetic | _Video:
        return open_reader(self._source, self._timeout_s, self._spec.height, self._spec.width)

    def _probe(self) -> None:
        """A file whose first frame cannot be read, or an OpenCV that cannot read this camera, is an error at once."""
        reader = self._open()
        readable = self._live or (reader.grab() is not None and reader.picture() is not None)
        reader.close()
        if not readable:
            raise CameraError(f"{self.name}: no frame can be read; the file is empty or damaged")

    def _play(self) -> None:
        """Push the frames of a file or a scene, a little before they are due; then say when it ended."""
        begin_s, last_s, step_s = 0.0, 0.0, 0.04
        try:
            while not self._clock.stop.is_set():
                reader = self._open()
                while (at := reader.grab()) is not None and self._clock.wait(begin_s + at - self._ahead_s):
                    step_s = begin_s + at - last_s or step_s
                    last_s = begin_s + at
                    self._keep(reader, last_s)
                reader.close()
                begin_s = last_s + step_s
                if not self._loop:
                    return
        finally:
            self._end_s = begin_s

    def _follow(self) -> None:
        """Read a live camera until stopped; open it again whenever it fails, later and later, with jitter."""
        pause_s = 0.5
        while not self._clock.stop.is_set():
            before = self.frames
            try:
                reader = self._open()
                while not self._clock.stop.is_set() and reader.grab() is not None:
                    self._keep(reader, self._clock.now())
                reader.close()
                log.warning("%s: no more frames; opening it again", self.name)
            except CameraError as error:
                log.warning("%s; trying again", error)
            self.reconnects += 1
            pause_s = 0.5 if self.frames > before else min(30.0, pause_s * 2)
            self._clock.stop.wait(pause_s * random.uniform(0.5, 1.5))

    def _keep(self, reader: _Synthetic | _Video, at_s: float) -> None:
        """Make the grabbed frame small, keep that, and overwrite the picture."""
        picture = reader.picture() if self._buffer.wants(at_s) else None
        if picture is None:
            self.dropped += 1
            return
        self._buffer.push(at_s, shrink(picture, self._spec.height, self._spec.width))
        picture[:] = 0
        self._alive_at = time.monotonic()
        self.frames += 1
