"""What `[camera] source` names: its kind, its host, and how it is shown without what may be secret.

    source --backend_of--> how it is read      --masked--> scheme, host and port, for logs and messages

Cameras take passwords before the host, in the path and in the query. So of a stream's address nothing but scheme, host
and port is ever shown, and of one that cannot be parsed nothing at all: nobody knows where its password is.
"""

from __future__ import annotations

import re

from wire.errors import CameraError

__all__ = ["LIVE", "backend_of", "check_address", "host_of", "is_http", "masked", "tells_secrets"]

LIVE = ("stream", "gstreamer", "v4l2")
"""Backends of live cameras, which deliver frames at their own rate; the other backends deliver one when it is read."""

_STREAMS = ("rtsp", "rtsps", "http", "https", "udp", "tcp", "rtmp")
_BACKENDS = {"synthetic": "synthetic", "csi": "gstreamer", **dict.fromkeys(_STREAMS, "stream")}  # of a URI's scheme
_HOSTLESS = ("udp", "tcp")  # udp://@:5000 listens
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:(?P<login>[^@/?#\s]*)@)?(?P<host>\[[0-9a-z:.%]+\]|[^@/?#:\[\]\s]*)"
    r"(?P<port>:[0-9]{1,5})?(?P<rest>[/?][^@#\s]*)?",
    re.IGNORECASE,
)


def backend_of(source: str) -> str:
    """Return the backend that reads `source`: "synthetic", "file", or one of LIVE."""
    device = source.isdigit() or source.startswith("/dev/video")
    return "v4l2" if device else _BACKENDS.get(_scheme(source), "file")


def is_http(source: str) -> bool:
    """Whether `source` comes over HTTP, where a server may send faster than the pictures were taken."""
    return _scheme(source) in ("http", "https")


def check_address(source: str) -> None:
    """Raise CameraError, with nothing of `source` in it, where a stream's address cannot be parsed."""
    if "://" not in source or source.startswith("file://"):
        return
    if _scheme(source) not in _BACKENDS:
        raise CameraError(f"[camera] source: its scheme is none of {', '.join(_BACKENDS)}, file")
    found = _URL.fullmatch(source)
    if found is None or not (found["host"] or _scheme(source) in (*_HOSTLESS, "csi", "synthetic")):
        raise CameraError(
            f"[camera] source: this {_scheme(source)} address cannot be parsed, and is not shown, since it may hold a "
            "password; write SCHEME://USER:PASSWORD@HOST:PORT/PATH, with %40 for @, %2F for /, %23 for #, %3A for :, "
            "%3F for ? in user and password"
        )


def host_of(source: str) -> str:
    """Return name or address of a stream's host, without brackets; "" where it has none. Raises CameraError."""
    check_address(source)
    found = _URL.fullmatch(source)
    return found["host"].strip("[]") if found else ""


def masked(source: str) -> str:
    """Return `source` for logs and messages: of an address only scheme, host and port; a path or device as it is."""
    if "://" not in source or source.startswith("file://"):
        return source
    found = _URL.fullmatch(source)
    return f"{_scheme(source)}://{found['host']}{found['port'] or ''}" if found else "an address that cannot be parsed"


def tells_secrets(source: str) -> bool:
    """Whether a command line with `source` may show a password to every user of this machine."""
    found = _URL.fullmatch(source)
    return "://" in source and (found is None or bool(found["login"] or "?" in (found["rest"] or "")))


def _scheme(source: str) -> str:
    return source.partition("://")[0].lower() if "://" in source else ""
