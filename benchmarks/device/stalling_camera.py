"""A camera on the network (MJPEG over HTTP) that stalls, hangs up, and comes back."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

import cv2
import numpy as np

__all__ = ["StallingCamera"]

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
_HEIGHT, _WIDTH, _PERIOD_S = 120, 160, 0.1


class StallingCamera:
    """Serves ten pictures a second on a listening socket, which is closed with its block.

    Attributes:
        stalled: Connections stay open and no picture comes.
        away: Connections end, and new ones are refused after they were accepted.
    """

    def __init__(self, server: socket.socket) -> None:
        self.stalled = self.away = False
        self._server, self._stopping = server, threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """What `[camera] source` is."""
        host, port = self._server.getsockname()
        return f"http://{host}:{port}/stream.mjpg"

    def _accept(self) -> None:
        self._server.settimeout(0.1)
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(1.0)
        with client, suppress(OSError):
            client.recv(4096)
            client.sendall(_HEAD)
            while not (self._stopping.is_set() or self.away):
                if not self.stalled:
                    data = _picture()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    client.sendall(head.encode() + data + b"\r\n")
                time.sleep(_PERIOD_S)

    def __enter__(self) -> StallingCamera:
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._server.close()


def _picture() -> bytes:
    """A JPEG of a square that crosses a grey room once in four seconds."""
    frame = np.full((_HEIGHT, _WIDTH), 90, np.uint8)
    left = int(time.monotonic() % 4 / 4 * (_WIDTH - 30))
    frame[40:90, left : left + 30] = 210
    encoded: bytes = cv2.imencode(".jpg", frame)[1].tobytes()
    return encoded
