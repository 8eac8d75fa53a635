"""Bounds on what a caller may send: bytes of a body, and requests a second.

    bytes --BodyLimit--> the application        413 beyond 16 KB, whether stated or not
    caller or address --Rates.take--> True, or False: 429

The memory of the rates is bounded: beyond 10,000 callers the one that was quiet longest is forgotten.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BodyLimit", "Rates"]

_MOST_BYTES = 16 * 1024
_MOST_CALLERS = 10_000
_WORDS = f"the body is longer than {_MOST_BYTES} bytes"


class Rates:
    """A bucket of requests for each caller. Any thread may take."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._left = OrderedDict[str, tuple[float, float]]()  # caller -> requests left, when
        self._lock = threading.Lock()

    def take(self, caller: str) -> bool:
        """Take a request from the caller's bucket; False where it is empty."""
        now_s = self._clock()
        with self._lock:
            left, then_s = self._left.pop(caller, (self._burst, now_s))
            left = min(self._burst, left + max(0.0, now_s - then_s) * self._per_s)
            allowed = left >= 1.0
            self._left[caller] = (left - 1.0 if allowed else left, now_s)
            if len(self._left) > _MOST_CALLERS:
                self._left.popitem(last=False)
        return allowed


class BodyLimit:
    """Refuses a request whose body is longer than 16 KB."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or len(stated) > 9 or int(stated) > _MOST_BYTES:
            await _refuse(send)
            return
        await self._app(scope, _counted(receive), send)


def _counted(receive: Receive) -> Receive:
    """Count what comes, whatever length was stated."""
    count = [0]

    async def counted() -> Message:
        message = await receive()
        count[0] += len(message.get("body", b""))
        if count[0] > _MOST_BYTES:
            raise HTTPException(413, _WORDS)
        return message

    return counted


async def _refuse(send: Send) -> None:
    body = json.dumps({"detail": _WORDS}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
