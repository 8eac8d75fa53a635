"""The process that asks: requests made of the API's own OpenAPI document, and broken HTTP.

    /openapi.json --schemathesis--> cases of every operation, under a token of each role --> no status of 500 or more
                                    with headers that nobody asked for; of the stream only its beginning is read
    genuine requests --bytes changed--> the port

The admin's token is for a site without cameras: whoever may delete everything is no attacker.
"""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

from wire.errors import DataError

__all__ = ["Ask", "ask"]

_CASES = 40  # of one operation, before the next one's turn
_RAW = 60  # broken requests between two operations
_WAIT_S = 10.0
_RED = (503, "GET /v1/health")  # what it is documented to say where a camera is silent
_LONGEST = 20  # faults that are told
_SOME = 64  # bytes of a stream that are read
_OURS = ("Accept", "Accept-Encoding", "Cache-Control", "If-Modified-Since", "If-None-Match", "Last-Event-ID")
_HEADERS = (*_OURS, "Origin", "Range", "X-Forwarded-For")
_VALUES = ("", "*/*", "bytes=0-", "bytes=-0", "bytes=9-1", "bytes=0-1,2-3,4-", "gzip;q=x", "0", "text/event-stream")
_LETTERS = "".join(map(chr, (*range(33, 127), *range(161, 256))))
_HEADS = (b"Content-Length: -1", b"Content-Length: 5\r\nContent-Length: 6", b"Transfer-Encoding: chunked", b"Expect: x")


@dataclass
class Ask:
    """What the sender needs, and what it tells.

    Attributes:
        url: The API's.
        tokens: Role -> token.
        seed: Of everything that is drawn.
        stop: Ends it.
        told: Receives one dict at the end: `cases`, `streams`, `raw`, `statuses`, `longest_ms`, `wrong`.
    """

    url: str
    tokens: Mapping[str, str]
    seed: int
    stop: Event
    told: Queue[dict[str, Any]]


class _Asked:
    """What came of the requests."""

    def __init__(self) -> None:
        self.statuses = Counter[int]()
        self.cases = self.streams = self.raw = 0
        self.longest_s = 0.0
        self.wrong = list[str]()

    def take(self, status: int, took_s: float, what: str) -> None:
        self.statuses[status] += 1
        self.longest_s = max(self.longest_s, took_s)
        if status >= 500 and (status, what) != _RED and len(self.wrong) < _LONGEST:
            self.wrong.append(f"{what}: {status}")


def ask(task: Ask) -> None:
    """Ask until told to end."""
    asked, rng, turn = _Asked(), random.Random(task.seed), 0
    try:
        operations = _operations(task.url)
        while not task.stop.is_set():
            _cases(task, operations[turn % len(operations)], task.seed + turn, asked)
            for _ in range(_RAW):
                if not task.stop.is_set():
                    _broken(task, rng, asked)
            turn += 1
    except BaseException as error:
        asked.wrong.append(f"the sender itself has ended: {error!r}")
        raise
    finally:
        task.told.put(
            {
                "cases": asked.cases,
                "streams": asked.streams,
                "raw": asked.raw,
                "statuses": {str(status): count for status, count in sorted(asked.statuses.items())},
                "longest_ms": round(asked.longest_s * 1e3, 1),
                "wrong": asked.wrong,
            }
        )


def _operations(url: str) -> Sequence[Any]:
    """Every operation of the document."""
    try:
        import schemathesis
    except ImportError as error:
        raise DataError(f"schemathesis cannot be imported ({error}); pip install '.[test]'") from error
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    return [result.ok() for result in document.get_all_operations()]


def _cases(task: Ask, operation: Any, number: int, asked: _Asked) -> None:
    """Draw cases of one operation, those that its schema allows and those that it does not, and send them."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    roles, rng = [*task.tokens], random.Random(number)

    def send(case: Any) -> None:
        if task.stop.is_set():
            return
        headers = {**_headers(rng), "Authorization": f"Bearer {task.tokens[rng.choice(roles)]}"}
        is_stream, began = operation.path == "/v1/stream", time.monotonic()
        status = (_begin if is_stream else _whole)(case, task.url, headers)
        asked.cases, asked.streams = asked.cases + 1, asked.streams + (is_stream and status == 200)
        asked.take(status, time.monotonic() - began, f"{operation.method.upper()} {operation.path}")

    quiet = settings(
        max_examples=_CASES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    mode = rng.choice((GenerationMode.POSITIVE, GenerationMode.NEGATIVE))
    with suppress(Unsatisfiable):  # an operation without parameters has no wrong case
        seed(number)(quiet(given(case=operation.as_strategy(generation_mode=mode))(send)))()


def _headers(rng: random.Random) -> dict[str, str]:
    """Headers that a server may look at, with whatever is in them."""
    made = dict[str, str]()
    for name in rng.sample(_HEADERS, rng.choice((0, 0, 1, 3))):
        drawn = "".join(rng.choices(_LETTERS, k=rng.choice((1, 20, 4000))))
        made[name] = rng.choice((*_VALUES, drawn, drawn))
    return made


def _whole(case: Any, url: str, headers: Mapping[str, str]) -> int:
    """Send a case and read the whole answer; its status."""
    return int(case.call(base_url=url, headers=headers, timeout=_WAIT_S).status_code)


def _begin(case: Any, url: str, headers: Mapping[str, str]) -> int:
    """Send a case whose answer need not end, and read its beginning; its status."""
    import requests  # what schemathesis asks with

    asks = case.as_transport_kwargs(base_url=url, headers=headers)
    with requests.request(**asks, stream=True, timeout=_WAIT_S) as answer:
        next(answer.iter_content(_SOME), b"")
        return int(answer.status_code)


def _broken(task: Ask, rng: random.Random, asked: _Asked) -> None:
    """Send a request whose bytes were changed, and read what comes; a connection that is closed is an answer."""
    host, port = task.url.removeprefix("http://").rsplit(":", 1)
    path = rng.choice(("/v1/alerts", "/v1/verdicts?limit=1", "/v1/export/verdicts", "/", "/v1/stream", "/static/x"))
    token = task.tokens[rng.choice([*task.tokens])]
    head = rng.choice((b"X: y", b"X: " + rng.randbytes(20), b"A: " + b"b" * 40_000, *_HEADS))
    first = f"{rng.choice(('GET', 'POST', 'DELETE'))} {path} HTTP/1.1".encode()
    lines = (first, b"Host: x", f"Authorization: Bearer {token}".encode(), head, b"Connection: close", b"", b"")
    request = bytearray(b"\r\n".join(lines))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(request))
        request[at : at + rng.choice((0, 1, 4))] = rng.randbytes(rng.choice((0, 1, 4)))
    began, answer = time.monotonic(), b""
    try:
        with socket.create_connection((host, int(port)), _WAIT_S) as raw:
            raw.settimeout(0.2)
            raw.sendall(request)
            answer = raw.recv(64)
    except OSError:
        pass  # the server waits for the rest of the request, or has closed the connection
    asked.raw += 1
    if answer[:5] == b"HTTP/" and answer[9:12].isdigit():
        asked.take(int(answer[9:12]), time.monotonic() - began, f"broken request {bytes(request[:80])!r}")
