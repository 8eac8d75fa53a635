"""The server of the local page: one thread, few connections, GET alone, and no request that a foreign page could send.

    connection --head, bounded in bytes and time--> method, Host, path --> page(path) --> answer, close

It knows nothing of what it serves. Whoever opens connections and says nothing holds one of eight, until a newer one
needs it: neither threads nor memory grow, and the page still answers. A web page whose own name was pointed at this
address (DNS rebinding) is told from a reader by the Host header.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Answer", "PageServer"]

Answer = tuple[int, str, str]
"""HTTP status, content type, body."""

_CONNECTIONS = 8
_WAITING = 128  # connections that the system holds until they are accepted
_HEAD_BYTES = 4096
_ALIVE_S = 5.0  # a connection's whole life
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_REQUEST = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,255}) HTTP/1\.[01]")
_HEADERS = "Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'\r\nX-Content-Type-Options: nosniff"


@dataclass
class _Peer:
    """A connection: what came, what is left to send, and until when it may live (monotonic seconds)."""

    socket: socket.socket
    until_s: float
    came: bytearray = field(default_factory=bytearray)
    left: bytes | None = None  # None: the request is not complete yet

    def close(self) -> None:
        self.socket.close()


class PageServer:
    """Serves `page` until `close`.

    Args:
        host: Where to listen: a name or an IPv4 address; "0.0.0.0" for all.
        port: Likewise; 0 for any free one.
        page: Path -> answer; called in the server's thread.

    Attributes:
        port: Where it listens.

    Raises:
        OSError, OverflowError: Nothing can listen there.
    """

    def __init__(self, host: str, port: int, page: Callable[[str], Answer]) -> None:
        self._host, self._page = host.lower(), page
        self._listener = socket.create_server((host, port), backlog=_WAITING)
        self.port = int(self._listener.getsockname()[1])
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._peers: list[_Peer] = []  # oldest first
        for one in (self._listener, self._woken):
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and close every connection."""
        self._wake.close()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            for one in (self._selector, self._listener, self._woken):
                stack.callback(one.close)
            stack.callback(self._drop_all)
            while True:
                ready = [key for key, _ in self._selector.select(1.0 if self._peers else None)]
                if any(key.fileobj is self._woken for key in ready):
                    return
                for key in ready:
                    self._handle(key)
                for late in [peer for peer in self._peers if time.monotonic() > peer.until_s]:
                    self._drop(late)

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
            return
        peer: _Peer = key.data
        if peer not in self._peers:  # dropped for a newer one since
            return
        try:
            self._read(peer) if not peer.left else self._write(peer)
        except OSError:
            self._drop(peer)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            accepted, _ = self._listener.accept()
            accepted.setblocking(False)
            if len(self._peers) >= _CONNECTIONS:
                self._drop(self._peers[0])
            peer = _Peer(accepted, time.monotonic() + _ALIVE_S)
            self._peers.append(peer)
            self._selector.register(accepted, selectors.EVENT_READ, peer)

    def _drop_all(self) -> None:
        for peer in [*self._peers]:
            self._drop(peer)

    def _drop(self, peer: _Peer) -> None:
        self._peers.remove(peer)
        self._selector.unregister(peer.socket)
        peer.close()

    def _read(self, peer: _Peer) -> None:
        """Take what came; answer where the head is complete. After the answer, what still comes is thrown away."""
        part = peer.socket.recv(_HEAD_BYTES)
        if not part:
            self._drop(peer)
        if not part or peer.left is not None:
            return
        peer.came += part
        head, end, _ = peer.came.partition(b"\r\n\r\n")
        if end and len(head) <= _HEAD_BYTES:
            peer.left = _encoded(self._answer(head.decode("latin-1")))
        elif len(peer.came) > _HEAD_BYTES:
            peer.left = _encoded((431, "text/plain", f"a request has at most {_HEAD_BYTES} bytes\n"))
        if peer.left:
            self._selector.modify(peer.socket, selectors.EVENT_WRITE, peer)

    def _write(self, peer: _Peer) -> None:
        left = peer.left or b""
        peer.left = left[peer.socket.send(left) :]
        if not peer.left:  # wait for the other side's end, so that it reads all of ours
            peer.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(peer.socket, selectors.EVENT_READ, peer)

    def _answer(self, head: str) -> Answer:
        first, *lines = head.split("\r\n")
        request = _REQUEST.fullmatch(first)
        if request is None:
            return 400, "text/plain", "this is no HTTP request\n"
        hosts = [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.lower() == "host"]
        if len(hosts) != 1 or not self._is_ours(hosts[0].lower()):
            return 421, "text/plain", "open this page by its address, or as localhost\n"
        if request[1] != "GET":
            return 405, "text/plain", "this page is read with GET\n"
        return self._page(request[2])

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine: the loopback, or what `[health] listen` says."""
        name = re.sub(r":[0-9]{0,5}$", "", host)
        if name == "localhost" or name == self._host:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or self._host == "0.0.0.0"  # an address cannot be pointed elsewhere, as a name can


def _encoded(answer: Answer) -> bytes:
    status, kind, text = answer
    body = text.encode()
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{_HEADERS}\r\nConnection: close\r\n\r\n".encode() + body
