"""Opens a cv2.VideoCapture for a source, and says why one cannot be opened. OpenCV is imported only here.

    source --FFmpeg, V4L2 or GStreamer--> capture        or CameraError: refused, not there, unreachable, damaged

FFmpeg tells its reasons on standard output or error alone. While it opens, both are a pipe of ours. Of what it writes
we take which of the known reasons it names, and nothing else: its lines may hold the address.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edge_runtime.capture.address import LIVE, masked
from wire.errors import CameraError

__all__ = ["LoginRefused", "open_capture"]

_CSI = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! "
    "videoconvert ! video/x-raw,format=BGR ! queue leaky=2 max-size-buffers=1 ! "
    "appsink drop=true max-buffers=1 sync=false"
)
_WARNINGS = "24"  # FFmpeg's level: it names HTTP's refusals there
_MOST = 1 << 16  # bytes of its lines that are kept
_LOGIN = "refuses user and password (401 or 403); correct them in [camera] source. It is asked again only after minutes"
_REASONS: tuple[tuple[str, str], ...] = (
    (r"\b40[13] \(?(?:Unauthorized|Forbidden)|(?:HTTP error|failed:) 40[13]\b", _LOGIN),
    (
        r"\b404 \(?Not Found|(?:HTTP error|failed:) 404\b",
        "has no such stream (404); correct the path in [camera] source",
    ),
    (r"moov atom not found", "has no index, since its recording was cut off; repair it, for example with untrunc"),
    (r"Connection refused", "nobody listens at this port; correct the port, or switch the stream on"),
    (r"Failed to resolve|Name or service not known", "the name of its host is not known; use its address"),
    (r"timed out|No route to host|Network is unreachable", "cannot be reached; look at cable, address and firewall"),
    (r"[Cc]ertificate|TLS|SSL", "its TLS certificate or handshake is refused; use rtsp:// or http:// within the house"),
    (r"Invalid data found|could not find codec", "what it sends is no video that FFmpeg reads"),
)
"""What FFmpeg writes, as a pattern -> the reason in our words; the first that fits."""


class LoginRefused(CameraError):
    """A camera that refuses user and password; whoever goes on asking may lock the account."""


def open_capture(source: str, backend: str, timeout_s: float) -> Any:
    """Open a cv2.VideoCapture.

    Args:
        source: A path, device or address.
        backend: Of `address.backend_of`, but for "synthetic".
        timeout_s: How long a network camera may take to open or to deliver a frame.

    Raises:
        LoginRefused: A network camera refuses user and password.
        CameraError: It cannot be opened; the message says why and names the cure.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _WARNINGS)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    try:
        import cv2
    except ImportError as error:
        cure = "pip install 'veilsight[camera]'; on a Jetson use JetPack's own OpenCV"
        raise CameraError(f"this source needs OpenCV, which does not import ({error}); {cure}") from error
    cv2.setNumThreads(1)
    with _written() as written:
        capture = _CAPTURES[backend](cv2, source, timeout_s)
    if not capture.isOpened():
        why = _reason(written[0]) or f"cannot be opened; {_guess(backend, timeout_s)}"
        raise (LoginRefused if why == _LOGIN else CameraError)(f"{masked(source)}: {why}")
    return capture


def _guess(backend: str, timeout_s: float) -> str:
    """What it may be where FFmpeg said nothing that we know."""
    if backend == "stream":
        return f"no answer within {timeout_s:g} s: is it switched on, and its address right?"
    return "is it plugged in, and free?" if backend in LIVE else "it is damaged, or no video that FFmpeg reads"


def _reason(text: str) -> str:
    """The known reason that FFmpeg's lines name; "" where none does."""
    return next((words for pattern, words in _REASONS if re.search(pattern, text)), "")


@contextmanager
def _written() -> Iterator[list[str]]:
    """Give a list whose one element is, at the end of the block, what native code wrote in it to output and error."""
    written, flush = [""], ctypes.CDLL(None).fflush
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # a full pipe drops lines, and never stops FFmpeg
    flush(None)
    before = {standard: os.dup(standard) for standard in (1, 2)}
    for standard in before:
        os.dup2(writing, standard)
    try:
        yield written
    finally:
        flush(None)
        for standard, own in before.items():
            os.dup2(own, standard)
        for descriptor in (*before.values(), writing):
            os.close(descriptor)
        with os.fdopen(reading, "rb") as lines:
            written[0] = lines.read(_MOST).decode(errors="replace")


def _open_with_ffmpeg(cv2: Any, source: str, timeout_s: float) -> Any:
    timeout_ms = max(1, int(timeout_s * 1000))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, [*limits, cv2.CAP_PROP_N_THREADS, 1])


def _open_with_v4l2(cv2: Any, source: str, timeout_s: float) -> Any:
    return cv2.VideoCapture(int(source) if source.isdigit() else source, cv2.CAP_V4L2)


def _open_with_gstreamer(cv2: Any, source: str, timeout_s: float) -> Any:
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise CameraError(f"{masked(source)}: needs an OpenCV with GStreamer: JetPack's; pip uninstall opencv-python*")
    return cv2.VideoCapture(_CSI.format(source.partition("://")[2] or 0), cv2.CAP_GSTREAMER)


_CAPTURES: Mapping[str, Callable[[Any, str, float], Any]] = {
    "file": _open_with_ffmpeg,
    "stream": _open_with_ffmpeg,
    "v4l2": _open_with_v4l2,
    "gstreamer": _open_with_gstreamer,
}
"""Backend -> what makes a cv2.VideoCapture of a source, with a timeout in seconds."""
