"""Sources of frames by URI, and the camera: a capture thread that makes every picture small and grey at once.

    path, file://, /dev/video0, 0, rtsp://, http://, udp://, csi://0, synthetic://walk
        --reader--> picture --shrink, overwrite--> FrameBuffer --slot end--> Window

Files and synthetic scenes are played on the release clock, decoded a little ahead; live cameras are read as fast as they
deliver, the newest frame wins, and what is too dense is dropped and counted. A live camera that vanishes is opened again for
ever, while the slots go on with black frames. OpenCV is imported only where a source needs it.
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
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from wire.errors import CameraError
from wire.manifest import WindowSpec

from . import config
from .window import FrameBuffer, SlotClock, Window

__all__ = ["Camera", "CameraLost", "Reader", "backend_of", "masked", "open_reader", "shrink"]

log = logging.getLogger("veilsight.camera")

Picture = npt.NDArray[np.uint8]  # (H, W) grey or (H, W, 3) BGR

_SCENES = ("walk", "empty", "noise")
_STREAMS = ("rtsp", "rtsps", "http", "https", "udp", "tcp", "rtmp")
_LIVE = ("stream", "gstreamer", "v4l2")
_AHEAD_S = 1.0  # how far files are decoded ahead, in real seconds at speeds above 1 in quarters of that
_JUMP_S = 10.0  # two timestamps of a file that are further apart are no timestamps
_CSI = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! "
    "videoconvert ! video/x-raw,format=BGR ! queue leaky=2 max-size-buffers=1 ! "
    "appsink drop=true max-buffers=1 sync=false"
)


class CameraLost(CameraError):
    """A live camera gave no frame for so long that a restart of the process is the next thing to try."""


class Reader(Protocol):
    """An open source."""

    def grab(self) -> float | None:
        """Step to the next frame: its time in seconds from the first (of a file), None at the end or on a failure."""

    def picture(self) -> Picture | None:
        """The frame of the last grab; the array is the reader's and reused."""

    def close(self) -> None:
        """Release the source."""


def backend_of(source: str) -> str:
    """What reads `source`: "synthetic", "file", or for a live camera "stream", "gstreamer" or "v4l2"."""
    if source.isdigit() or source.startswith("/dev/video"):
        return "v4l2"
    scheme = source.partition("://")[0] if "://" in source else "file"
    return "stream" if scheme in _STREAMS else {"synthetic": "synthetic", "csi": "gstreamer"}.get(scheme, "file")


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


def open_reader(source: str, timeout_s: float, height: int, width: int) -> Reader:
    """Open what `source` names. Raises CameraError, naming the source (without its password) and the cure."""
    backend = backend_of(source)
    if backend == "synthetic":
        return _Synthetic(source.partition("://")[2], height, width)
    if backend == "file":
        source = source.removeprefix("file://")
        if not Path(source).is_file():
            cure = "[camera] source takes a path, a device, a stream's URL or synthetic://walk"
            raise CameraError(f"{source}: no such file; {cure}")
    return _Video(source, backend, timeout_s)


class _Synthetic:
    """A cheap endless scene at 25 frames a second: `walk` moves, `empty` does not, `noise` is random."""

    def __init__(self, scene: str, height: int, width: int) -> None:
        if scene not in _SCENES:
            raise CameraError(f"synthetic://{scene}: no such scene; there are {', '.join(_SCENES)}")
        self._scene, self._index = scene, -1
        self._room = (np.linspace(40, 120, height)[:, None] + np.linspace(0, 40, width)).astype(np.uint8)
        self._rng = np.random.default_rng(0)

    def grab(self) -> float:
        self._index += 1
        return self._index / 25

    def picture(self) -> Picture:
        height, width = self._room.shape
        if self._scene == "noise":
            return self._rng.integers(0, 256, (height, width), np.uint8)
        picture = self._room.copy()
        if self._scene == "walk":
            left = int(self._index / 125 % 1.0 * (width - width // 8))
            picture[height // 3 : height * 7 // 8, left : left + width // 8] = 220
        return picture

    def close(self) -> None:
        pass


class _Video:
    """Whatever OpenCV opens."""

    def __init__(self, source: str, backend: str, timeout_s: float) -> None:
        self._picture: Picture | None = None
        self._capture = self._open(source, backend, timeout_s)
        rate = float(self._capture.get(5))  # CAP_PROP_FPS
        self._step_s = 1.0 / rate if 1.0 <= rate <= 240.0 else 1.0 / 25.0
        self._at_ms = math.nan
        self._time_s = 0.0

    def _open(self, source: str, backend: str, timeout_s: float) -> Any:
        cv2 = _opencv()
        if backend == "gstreamer":
            if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
                raise CameraError(f"{source}: needs an OpenCV with GStreamer; pip uninstall opencv-python*, use JetPack's")
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

    def grab(self) -> float | None:
        if not self._capture.grab():
            return None
        at_ms, before = float(self._capture.get(0)), self._at_ms  # CAP_PROP_POS_MSEC
        self._at_ms = at_ms
        if not math.isnan(before):
            step_s = (at_ms - before) / 1000
            # Timestamps that stand still, run back or leap are not used: the frame rate is.
            self._time_s += step_s if 0.0 < step_s < _JUMP_S else self._step_s
        return self._time_s

    def picture(self) -> Picture | None:
        good, self._picture = self._capture.retrieve(self._picture)
        return self._picture if good else None

    def close(self) -> None:
        self._capture.release()


def _opencv() -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our messages say what matters
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    try:
        import cv2
    except ImportError as error:
        cure = "pip install 'veilsight[camera]'; on a Jetson use JetPack's own OpenCV"
        raise CameraError(f"this source needs OpenCV, which does not import ({error}); {cure}") from error
    cv2.setNumThreads(1)
    return cv2


class Camera:
    """A source, its capture thread and the frames of the last seconds; a context manager.

    lost_after_s: a live camera without a frame for so long ends `windows` with CameraLost; 0 for never. A file is checked
    here, before anything else happens: CameraError.
    """

    def __init__(self, section: config.Camera, spec: WindowSpec, clock: SlotClock, lost_after_s: float) -> None:
        self._source, self._loop, self._timeout_s = section.source, section.loop, section.timeout_s
        self._clock, self._lost_after_s = clock, lost_after_s
        self.name, self._backend = masked(section.source), backend_of(section.source)
        self.live = self._backend in _LIVE
        if self.live and clock.speed != 1.0:
            raise CameraError(f"[camera] speed is {clock.speed}; a live camera has no other speed than 1.0")
        self._ahead_s = _AHEAD_S * max(1.0, clock.speed / 4)
        self._buffer = FrameBuffer(spec, self._ahead_s)
        if self._backend in ("file", "gstreamer"):
            self._probe()
        self._thread = threading.Thread(target=self._follow if self.live else self._play, name="capture", daemon=True)
        self._end_s: float | None = None
        self._alive_at = time.monotonic()
        self.frames = self.dropped = self.black = self.reconnects = 0

    @property
    def starts_at_once(self) -> bool:
        """Whether slot 0 begins with the process; of a file it begins with the first frame."""
        return self._backend != "file"

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
            end_s = self._end_s
            if end_s is not None and slot >= max(1, math.floor(end_s / self._clock.slot_s + 0.5)):
                return
            if self.live and 0 < self._lost_after_s < time.monotonic() - self._alive_at:
                raise CameraLost(f"{self.name}: no frame for {self._lost_after_s:.0f} s; restarting may help")
            window = self._buffer.window(slot, self._clock.end(slot))
            self.black += window.black
            yield window

    def figures(self) -> dict[str, float]:
        """For the local page only: these follow the scene's timing."""
        age = self._clock.now() - self._buffer.newest_s
        counts = {name: float(getattr(self, name)) for name in ("frames", "dropped", "black", "reconnects")}
        counts["skipped_slots"] = float(self._clock.skipped)
        return {**counts, "frame_age_s": round(age, 3) if math.isfinite(age) else -1.0}

    def _open(self) -> Reader:
        return open_reader(self._source, self._timeout_s, self._buffer.spec.height, self._buffer.spec.width)

    def _probe(self) -> None:
        """A file whose first frame cannot be read, or an OpenCV that cannot read this camera, is an error at once."""
        reader = self._open()
        readable = self.live or (reader.grab() is not None and reader.picture() is not None)
        reader.close()
        if not readable:
            raise CameraError(f"{self.name}: no frame can be read; the file is empty or damaged")

    def _play(self) -> None:
        """Push the frames of a file or a scene, a little before they are due; then say when it ended."""
        begin_s = last_s = 0.0
        step_s = 0.04
        again = True
        try:
            while again and not self._clock.stop.is_set():
                reader = self._open()
                while (at := reader.grab()) is not None and self._clock.wait(begin_s + at - self._ahead_s):
                    step_s = begin_s + at - last_s or step_s
                    last_s = begin_s + at
                    self._keep(reader, last_s)
                reader.close()
                begin_s = last_s + step_s
                again = self._loop
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

    def _keep(self, reader: Reader, at_s: float) -> None:
        """Make the grabbed frame small, keep that, and overwrite the picture."""
        picture = reader.picture() if self._buffer.wants(at_s) else None
        if picture is None:
            self.dropped += 1
            return
        self._buffer.push(at_s, shrink(picture, self._buffer.spec.height, self._buffer.spec.width))
        picture[:] = 0
        self._alive_at = time.monotonic()
        self.frames += 1
