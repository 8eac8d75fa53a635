"""Sources: what a URI names, as a stream of frames. OpenCV is imported only where a source needs it.

path, file://                                    a video file                      FFmpeg
rtsp:// rtsps:// http:// https:// udp:// ...     a camera on the network           FFmpeg
0, /dev/video0                                   a USB camera                      V4L2
csi://0                                          a Jetson's CSI camera             GStreamer
synthetic://walk                                 a rendered scene                  NumPy alone
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.capture.address import backend_of, check_address, is_http, masked
from edge_runtime.capture.clock import FrameClock
from edge_runtime.capture.opening import open_capture
from wire.errors import CameraError

__all__ = ["Frame", "Picture", "check_source", "open_frames", "unreadable"]

Picture = npt.NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) BGR."""
Frame = tuple[float, Callable[[], "Picture | None"]]
"""Seconds from the source's first frame, NaN where it has no time stamps that can be relied on, and what decodes the
picture; None where it cannot be decoded."""

_SCENE_FPS = 25
_POS_MSEC, _FPS, _FOURCC, _FRAME_COUNT = 0, 5, 6, 7  # OpenCV's numbers of a capture's properties
_MJPG = int.from_bytes(b"MJPG", "little")
_TRIES = 100  # at a damaged place of a file, each of 64 packets, before it counts as the end


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
    capture = open_capture(source.removeprefix("file://"), backend, timeout_s)
    if backend == "file":
        return _video(capture, _TRIES)
    # An MJPEG camera on HTTP sends no time stamps: FFmpeg invents 25 a second. V4L2's and Argus' follow no stream.
    invented = is_http(source) and int(capture.get(_FOURCC)) == _MJPG and capture.get(_FRAME_COUNT) <= 0
    timed = backend == "stream" and not invented
    frames = _video(capture, 1)
    return frames if timed else ((math.nan, fetch) for _, fetch in frames)


def check_source(source: str) -> None:
    """Raise CameraError where `source` is an address that cannot be parsed, a file that is not there, or no scene.

    Nothing is opened.
    """
    check_address(source)
    backend, path = backend_of(source), source.removeprefix("file://")
    if backend == "file" and not Path(path).is_file():
        shown = "[camera] source, which has an @ and is not shown" if "@" in path else path
        cure = "[camera] source takes a path, a device, a stream's URL or synthetic://walk"
        raise CameraError(f"{shown}: no such file; {cure}")
    scene = source.partition("://")[2]
    if backend == "synthetic" and scene not in _SCENES:
        raise CameraError(f"{masked(source)}: no such scene; there are {', '.join(_SCENES)}")


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


def _video(capture: Any, tries: int) -> Iterator[Frame]:
    """The frames of an open cv2.VideoCapture; one array, used again and again, holds the last picture.

    Args:
        capture: It is released at the end.
        tries: How often a frame is asked for at a place where none can be read. A frame without a picture follows on
            each such place, and on an end long before the one that the file's header tells.
    """
    clock = FrameClock(float(capture.get(_FPS)))
    held: list[Picture | None] = [None]
    read, at_s = 0, 0.0

    def picture() -> Picture | None:
        good, held[0] = capture.retrieve(held[0])
        return held[0] if good else None

    try:
        while missed := next((k for k in range(1, tries + 1) if capture.grab()), 0):
            read, at_s = read + 1, clock.tick(float(capture.get(_POS_MSEC)))
            yield at_s, picture
            if missed > 1:
                yield at_s, unreadable
        if tries > 1 and read < 0.75 * float(capture.get(_FRAME_COUNT)):
            yield at_s, unreadable
    finally:
        capture.release()


def unreadable() -> None:
    """The picture of a frame that stands for a damaged place."""
