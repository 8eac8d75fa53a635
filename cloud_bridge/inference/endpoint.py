"""One address of a server that answers requests over HTTP: bounded in time and bytes, and trusted in nothing.

    body --POST--> status 200, at most so many bytes, as they came --> the answer's bytes
                   anything else: a redirect, a refusal, a break, a compressed or too long answer --> RemoteError

The caller bounds the time of all of it, the name's resolution and a head that drips included (asyncio.timeout,
asyncio.wait). What a server says in words is shown to nobody: it may be anything.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from wire.errors import RemoteError

__all__ = ["Endpoint"]

_AT_ONCE = 4
_AGAIN_S = 0.05  # before the second attempt
_BUSY = (408, 425, 429)  # answers that say: later


class Endpoint:
    """The address, and the connections to it; of one event loop."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext, answer_s: float) -> None:
        """Connect to nothing yet.

        Args:
            url: Where requests are posted.
            token: Shown as `Authorization: Bearer`; "": none.
            tls: Whom to believe, for https://.
            answer_s: Without a byte for so long, the connection is given up.
        """
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log whole addresses
        about = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._about = about | ({"Authorization": f"Bearer {token}"} if token else {})
        none = CookieJar(DefaultCookiePolicy(allowed_domains=()))  # a server would fill our memory with them
        options: Mapping[str, Any] = {"verify": tls, "trust_env": False, "follow_redirects": False, "cookies": none}
        limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
        self._url, self._http = url, httpx.AsyncClient(**options, limits=limits, timeout=answer_s)

    async def ask(self, body: bytes, most: int) -> bytes:
        """Post `body`, and once more where that may help. Raises RemoteError."""
        try:
            return await self.post(body, most)
        except RemoteError as error:
            if not error.again:
                raise
        await asyncio.sleep(_AGAIN_S * random.uniform(1.0, 2.0))
        return await self.post(body, most)

    async def post(self, body: bytes, most: int) -> bytes:
        """Send `body` and return the answer's, at most `most` bytes. Raises RemoteError."""
        try:
            async with self._http.stream("POST", self._url, content=body, headers=self._about) as answer:
                return await _read(answer, most)
        except (httpx.HTTPError, OSError) as error:
            raise RemoteError(type(error).__name__, again=True) from error  # its words hold the address

    async def close(self) -> None:
        """End all connections."""
        await self._http.aclose()


async def _read(answer: httpx.Response, most: int) -> bytes:
    if answer.status_code != 200:
        again = answer.status_code in _BUSY or answer.status_code >= 500
        raise RemoteError(f"it answers with status {answer.status_code}", again)
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise RemoteError("its answer is compressed, which was not asked for")
    parts, size = list[bytes](), 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > most:
            raise RemoteError(f"its answer has more than {most} bytes")
        parts.append(part)
    return b"".join(parts)
