"""HTTP servers that misbehave: each takes one connection after the other, reads a request, and does its worst."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

__all__ = ["WORST", "hostile_server"]

_STEP_S = 0.02


def _head(more: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}\r\n\r\n".encode()


def _drip(link: socket.socket, ended: threading.Event, text: bytes) -> None:
    for byte in text:
        link.sendall(bytes([byte]))
        if ended.wait(_STEP_S):
            return


def _endless(link: socket.socket, ended: threading.Event) -> None:
    link.sendall(_head("Transfer-Encoding: chunked"))
    while not ended.is_set():
        link.sendall(b"10000\r\n" + b"[" * 0x10000 + b"\r\n")


def _for_ever(link: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


Worst = Callable[[socket.socket, threading.Event], object]

WORST: dict[str, Worst] = {
    "no answer": lambda link, ended: ended.wait(),
    "closes": lambda link, ended: None,
    "not HTTP": lambda link, ended: link.sendall(b"\x00\xff" * 512),
    "a head that drips": lambda link, ended: _drip(link, ended, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000),
    "a body that drips": lambda link, ended: _drip(link, ended, _head("Content-Length: 100000") + b" " * 100_000),
    "an endless body": _endless,
    "nothing but Continue": _for_ever,
    "cookies": lambda link, ended: link.sendall(_head("Set-Cookie: a=b\r\nContent-Length: 0", "503 Busy")),
    "an endless head": lambda link, ended: link.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000_000),
    "half a body": lambda link, ended: link.sendall(_head("Content-Length: 1000") + b'{"choices": ['),
    "half a chunk": lambda link, ended: link.sendall(_head("Transfer-Encoding: chunked") + b"ff\r\n{"),
    "two lengths": lambda link, ended: link.sendall(_head("Content-Length: 2\r\nContent-Length: 9") + b"{}"),
    "a redirect": lambda link, ended: link.sendall(
        _head("Content-Length: 0\r\nLocation: http://127.0.0.1:9/", "307 Temporary Redirect")
    ),
    "no content": lambda link, ended: link.sendall(_head("Content-Length: 0", "204 No Content")),
    "compressed": lambda link, ended: link.sendall(_head("Content-Encoding: gzip\r\nContent-Length: 2") + b"{}"),
    "an error": lambda link, ended: link.sendall(_head("Content-Length: 2", "500 Oh") + b"{}"),
}


@contextlib.contextmanager
def hostile_server(worst: Worst) -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and the requests that it got."""
    requests, ended, links = list[bytes](), threading.Event(), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = server.accept()
                    links.append(link)
                    threading.Thread(target=one, args=(link,), daemon=True).start()

        def one(link: socket.socket) -> None:
            with link, contextlib.suppress(OSError):
                requests.append(link.recv(1 << 16))
                worst(link, ended)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/completions", requests
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            for link in links:
                link.close()
