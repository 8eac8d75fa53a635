"""A receiver of webhooks on a real port, which behaves as badly as it is told."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from tests.support.services import PATIENCE_S

__all__ = ["Heard", "Receiver", "answer"]


class Heard(NamedTuple):
    """A request. headers: names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


def answer(status: int, *more: str) -> Callable[[Receiver, socket.socket], None]:
    """Behave: answer with this status and these headers."""
    head = "\r\n".join([f"HTTP/1.1 {status} x", "Content-Length: 2", *more, "", ""])
    return lambda receiver, line: line.sendall(head.encode() + b"ok")


class Receiver:
    """Listens on 127.0.0.1, a thread for each connection, one request each.

    Attributes:
        heard: Requests so far.
        behave: What to do with a request, once it is in `heard`; a row of such, of which the last one stays.
    """

    def __init__(self, *behave: Callable[[Receiver, socket.socket], None]) -> None:
        self.behave = list(behave) or [answer(200)]
        self.heard = list[Heard]()
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/hook?token=hidden"
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with suppress(OSError):
            socket.create_connection(self._server.getsockname(), 1.0).close()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._server.close()

    def _listen(self) -> None:
        while not self.over.is_set():
            line, _ = self._server.accept()
            thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, line: socket.socket) -> None:
        with suppress(OSError), line:
            line.settimeout(PATIENCE_S)
            found = b""
            while b"\r\n\r\n" not in found:
                more = line.recv(65536)
                if not more:
                    return
                found += more
            head, _, body = found.partition(b"\r\n\r\n")
            first, *rows = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
            while len(body) < int(headers["content-length"]):
                body += line.recv(65536)
            with self._lock:
                self.heard.append(Heard(first.split()[1], headers, body, time.time()))
                does = self.behave.pop(0) if len(self.behave) > 1 else self.behave[0]
            does(self, line)

    # --- ways to behave

    def hang(self, line: socket.socket) -> None:
        """Say nothing until the end."""
        self.over.wait(PATIENCE_S)

    def reset(self, line: socket.socket) -> None:
        """Break the connection."""
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def drip(self, line: socket.socket) -> None:
        """Answer one byte after the other, for ever: no single wait is long."""
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000:
            line.sendall(bytes([byte]))
            if self.over.wait(0.02):
                return

    def flood(self, line: socket.socket) -> None:
        """Answer 200 with a body that never ends."""
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while not self.over.is_set():
            line.sendall(bytes(65536))

    def babble(self, line: socket.socket) -> None:
        """Answer with a head that never ends."""
        line.sendall(b"HTTP/1.1 200 OK\r\n")
        while not self.over.is_set():
            line.sendall(b"X: " + b"x" * 60_000 + b"\r\n")

    def rubbish(self, line: socket.socket) -> None:
        """Answer what is no HTTP."""
        line.sendall(b"\x00\xff nonsense\r\n\r\n")
