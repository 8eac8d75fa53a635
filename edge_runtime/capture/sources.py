"""Sources: what a URI names, as a stream of frames. OpenCV is imported only where a source needs it.

path, file://                                    a video file                      FFmpeg
rtsp:// rtsps:// http:// https:// udp:// ...     a camera on the network           FFmpeg
0, /dev/video0                                   a USB camera                      V4L2
csi://0                                          a Jetson's CSI camera             GStreamer
synthetic://walk                                 a rendered scene                  NumPy alone
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from edge_runtime.capture.clock import FrameClock
from wire.errors import CameraError

__all__ = ["LIVE", "Frame", "Picture", "backend_of", "check_source", "masked", "open_frames"]

Picture = npt.NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) BGR."""
Frame = tuple[float, Callable[[], "Picture | None"]]
"""Seconds from the source's first frame, and what decodes the picture; None where it cannot be decoded."""

LIVE = ("stream", "gstreamer", "v4l2")
"""Backends of live cameras, which deliver frames at their own rate; the other backends deliver one when it is read."""

_STREAMS = dict.fromkeys(("rtsp", "rtsps", "http", "https", "udp", "tcp", "rtmp"), "stream")
_BACKENDS = {"synthetic": "synthetic", "csi": "gstreamer", **_STREAMS}  # of a URI's scheme
_CSI = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! "
    "videoconvert ! video/x-raw,format=BGR ! queue leaky=2 max-size-buffers=1 ! "
    "appsink drop=true max-buffers=1 sync=false"
)
_SCENE_FPS = 25


def backend_of(source: str) -> str:
    """Return the backend that reads `source`: "synthetic", "file", or one of LIVE."""
    device = source.isdigit() or source.startswith("/dev/video")
    return "v4l2" if device else _BACKENDS.get(source.partition("://")[0], "file")


def masked(source: str) -> str:
    """Return `source` for logs and messages: without user, password and query."""
    parts = urlsplit(source)
    host = ("***@" if "@" in parts.netloc else "") + parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else source


def open_frames(source: str, timeout_s: float, height: int, width: int) -> Iterator[Frame]:
    """Open `source` and return its frames.

    Args:
        source: A URI, path or device.
        timeout_s: How long a network camera may take to open or to deliver a frame.
        height: Of a synthetic scene's pictures; other sources have their own size.
        width: Likewise.

    Raises:
        CameraError: The source cannot be opened; names it and the cure.
    """
    check_source(source)
    backend = backend_of(source)
    if backend == "synthetic":
        return _scene(source.partition("://")[2], height, width)
    return _video(_open_capture(source.removeprefix("file://"), backend, timeout_s))


def check_source(source: str) -> None:
    """Raise CameraError where `source` is a file that is not there, or a scene that is not one; nothing is opened."""
    backend, path = backend_of(source), source.removeprefix("file://")
    if backend == "file" and not Path(path).is_file():
        cure = "[camera] source takes a path, a device, a stream's URL or synthetic://walk"
        raise CameraError(f"{masked(path)}: no such file; {cure}")
    scene = source.partition("://")[2]
    if backend == "synthetic" and scene not in _SCENES:
        raise CameraError(f"{source}: no such scene; there are {', '.join(_SCENES)}")


def _draw_walk(picture: Picture, index: int) -> None:
    height, width = picture.shape
    left = int(index / 125 % 1.0 * (width - width // 8))
    picture[height // 3 : height * 7 // 8, left : left + width // 8] = 220


def _draw_noise(picture: Picture, index: int) -> None:
    picture[:] = np.frombuffer(os.urandom(picture.size), np.uint8).reshape(picture.shape)


_SCENES: Mapping[str, Callable[[Picture, int], None]] = {
    "walk": _draw_walk,  # a bright block that crosses the picture every 5 s
    "empty": lambda picture, index: None,
    "noise": _draw_noise,
}
"""Name of a synthetic scene -> what draws frame `index` into the background."""


def _scene(scene: str, height: int, width: int) -> Iterator[Frame]:
    """The endless frames of a synthetic scene, 25 a second."""
    background = (np.linspace(40, 120, height)[:, None] + np.linspace(0, 40, width)).astype(np.uint8)
    for index in itertools.count():
        picture = background.copy()
        _SCENES[scene](picture, index)
        yield index / _SCENE_FPS, picture.view


def _video(capture: Any) -> Iterator[Frame]:
    """The frames of an open cv2.VideoCapture; one array, used again and again, holds the last picture."""
    clock = FrameClock(float(capture.get(5)))  # CAP_PROP_FPS
    held: list[Picture | None] = [None]

    def picture() -> Picture | None:
        good, held[0] = capture.retrieve(held[0])
        return held[0] if good else None

    try:
        while capture.grab():
            yield clock.tick(float(capture.get(0))), picture  # CAP_PROP_POS_MSEC
    finally:
        capture.release()


def _open_capture(source: str, backend: str, timeout_s: float) -> Any:
    """An open cv2.VideoCapture; raises CameraError."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own messages are enough
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    try:
        import cv2
    except ImportError as error:
        cure = "pip install 'veilsight[camera]'; on a Jetson use JetPack's own OpenCV"
        raise CameraError(f"this source needs OpenCV, which does not import ({error}); {cure}") from error
    cv2.setNumThreads(1)
    capture = _CAPTURES[backend](cv2, source, timeout_s)
    if not capture.isOpened():
        cure = "is it reachable, and free?" if backend in LIVE else "it is damaged, or no video that FFmpeg reads"
        raise CameraError(f"{masked(source)}: cannot be opened; {cure}")
    return capture


def _open_with_ffmpeg(cv2: Any, source: str, timeout_s: float) -> Any:
    timeout_ms = max(1, int(timeout_s * 1000))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, [*limits, cv2.CAP_PROP_N_THREADS, 1])


def _open_with_v4l2(cv2: Any, source: str, timeout_s: float) -> Any:
    return cv2.VideoCapture(int(source) if source.isdigit() else source, cv2.CAP_V4L2)


def _open_with_gstreamer(cv2: Any, source: str, timeout_s: float) -> Any:
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise CameraError(f"{source}: needs an OpenCV with GStreamer: JetPack's; pip uninstall opencv-python*")
    return cv2.VideoCapture(_CSI.format(source.partition("://")[2] or 0), cv2.CAP_GSTREAMER)


_CAPTURES: Mapping[str, Callable[[Any, str, float], Any]] = {
    "file": _open_with_ffmpeg,
    "stream": _open_with_ffmpeg,
    "v4l2": _open_with_v4l2,
    "gstreamer": _open_with_gstreamer,
}
"""Backend -> what makes a cv2.VideoCapture of a source, with a timeout in seconds."""
