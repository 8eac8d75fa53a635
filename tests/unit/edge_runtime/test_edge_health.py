"""The local page answers its readers alone, whoever else connects; figures and texts of its parts are shown."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping

import pytest

from edge_runtime import page_server
from edge_runtime.health import Health
from tests.support.services import PATIENCE_S, until

PARTS: Mapping[str, Mapping[str, float | str]] = {
    "camera": {"dropped": 3, "frame_age_s": 0.25},
    "eye": {"word": "camera lost", "odd": '<b>"x"'},
}


@pytest.fixture
def health() -> Iterator[Health]:
    made = Health(":0", {name: lambda values=values: values for name, values in PARTS.items()}, stalled_s=60)  # type: ignore[misc]  # mypy cannot type the default
    yield made
    made.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def raw(port: int, request: bytes) -> bytes:
    """All bytes that answer a request."""
    with connect(port) as peer:
        with contextlib.suppress(ConnectionError):  # it was cut off: what was answered is read all the same
            peer.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := peer.recv(65536):
                answer += part
        return answer


def status(port: int, request: bytes) -> int:
    answer = raw(port, request)
    return int(answer.split()[1]) if answer else 0


def get(port: int, path: str = "/health", host: str = "localhost") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def test_texts_are_shown_beside_figures(health: Health) -> None:
    body = raw(health.port, get(health.port)).partition(b"\r\n\r\n")[2]
    assert json.loads(body)["eye"]["word"] == "camera lost"
    metrics = raw(health.port, get(health.port, "/metrics")).decode()
    assert 'veilsight_eye_word{text="camera lost"} 1\n' in metrics and "veilsight_camera_dropped 3\n" in metrics
    page = raw(health.port, get(health.port, "/")).decode()
    assert "<td>word<td>camera lost" in page and "&lt;b&gt;&quot;x&quot;" in page and "<b>" not in page


def test_silent_connections_cost_no_thread_and_do_not_keep_readers_out(health: Health) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(health.port)) for _ in range(200)]
        assert status(health.port, get(health.port)) == 200
        assert threading.active_count() == before
        assert health._server is not None and len(health._server._peers) <= 8
        assert all(peer.fileno() >= 0 for peer in silent)


def test_a_connection_that_says_nothing_is_closed_in_time(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "_ALIVE_S", 0.2)
    with connect(health.port) as silent, connect(health.port) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert (silent.recv(1), slow.recv(1)) == (b"", b"")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"])
def test_a_reader_on_this_machine_is_answered(health: Health, host: str) -> None:
    assert status(health.port, get(health.port, host=host)) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5", "", "x" * 300],
)
def test_a_foreign_name_that_points_here_is_refused(health: Health, host: str) -> None:
    answer = raw(health.port, get(health.port, host=host))
    assert answer.split()[1] == b"421" and b"camera" not in answer


def test_a_request_has_exactly_one_host(health: Health) -> None:
    for lines in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        assert status(health.port, b"GET / HTTP/1.1\r\n" + lines + b"\r\n") == 421


def test_the_configured_address_is_a_host_too() -> None:
    health = Health("0.0.0.0:0", {}, 60)
    assert status(health.port, get(health.port, host="192.168.1.5:80")) == 200
    assert status(health.port, get(health.port, host="camera.evil.example")) == 421
    health.close()
    health = Health("localhost:0", {}, 60)
    assert status(health.port, get(health.port, host="192.168.1.5")) == 421
    health.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "CONNECT", "TRACE"])
def test_nothing_but_get_is_answered(health: Health, method: str) -> None:
    request = (
        get(health.port).replace(b"GET", method.encode()).replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nbody")
    )
    assert status(health.port, request) == 405


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
        (b"\xff\x00\xfe" * 100 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 5000, 431),
        (b"a" * 5000, 431),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ],
)
def test_odd_requests_are_refused(health: Health, request_bytes: bytes, expected: int) -> None:
    assert status(health.port, request_bytes) == expected
    assert status(health.port, get(health.port)) == 200


def test_a_reader_that_goes_away_harms_nobody(health: Health) -> None:
    for request in (b"", b"GET", get(health.port)):
        with connect(health.port) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # ends with RST
            peer.sendall(request)
    assert status(health.port, get(health.port)) == 200
    server = health._server
    assert server is not None
    until(lambda: not server._peers)


def test_a_closed_page_listens_no_more() -> None:
    health = Health(":0", {}, 60)
    with connect(health.port) as peer:
        health.close()
        with contextlib.suppress(ConnectionResetError):  # it was not accepted yet
            assert peer.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(health.port)
