"""Cameras on the network that refuse, are not there, or send a file as fast as it is read."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["files_over_http", "refusing_http", "refusing_rtsp"]


@contextmanager
def refusing_rtsp(status: str) -> Iterator[tuple[int, list[str]]]:
    """A camera that answers every DESCRIBE with `status`: its port, and the lines `Authorization:` that it read."""
    server, asked = socket.create_server(("127.0.0.1", 0)), list[str]()

    def serve(peer: socket.socket) -> None:
        with peer, peer.makefile("r") as lines:
            head: list[str] = []
            for line in lines:
                head.append(line.strip())
                if head[-1]:
                    continue
                asked.extend(line for line in head if line.startswith("Authorization:"))
                first = "200 OK" if head[0].startswith("OPTIONS") else status
                number = next(line for line in head if line.lower().startswith("cseq"))
                login = 'WWW-Authenticate: Basic realm="camera"'
                peer.sendall(f"RTSP/1.0 {first}\r\n{number}\r\n{login}\r\n\r\n".encode())
                head.clear()

    with _served(server, serve):
        yield server.getsockname()[1], asked


@contextmanager
def refusing_http(status: str) -> Iterator[int]:
    """A server that answers every request with `status`: its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer:
            peer.recv(4096)
            login = 'WWW-Authenticate: Basic realm="camera"\r\nContent-Length: 0\r\nConnection: close'
            peer.sendall(f"HTTP/1.1 {status}\r\n{login}\r\n\r\n".encode())

    with _served(server, serve):
        yield server.getsockname()[1]


@contextmanager
def files_over_http(folder: Path) -> Iterator[int]:
    """A web server that gives the files of `folder`: its port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(folder))  # type: ignore[arg-type]  # as socketserver calls it

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                return  # the camera was closed

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextmanager
def _served(server: socket.socket, serve: object) -> Iterator[None]:
    def accept() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()  # type: ignore[arg-type]  # a function

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
