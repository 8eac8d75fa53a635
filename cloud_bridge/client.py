"""A client of the bridge's API: what there is, and what happens, as asynchronous iterators.

    async with BridgeClient("https://bridge.example:8443", token) as bridge:
        async for alert in bridge.alerts():
            print(alert["camera"], alert["label"], alert["raised"])
            await bridge.acknowledge(alert["id"])

`alerts` and `verdicts` begin with what is new; `history` reads back. A stream that breaks is made again, and what was
missed meanwhile is asked for. It needs httpx: the extra `client`.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import httpx

__all__ = ["BridgeClient"]

_TIMEOUT_S = 10.0
_SILENCE_S = 40.0  # a stream has a sign of life every 5 s
_MOST_PAUSE_S = 30.0


class BridgeClient:
    """One bridge, for an `async with` block. Errors are those of httpx."""

    def __init__(
        self,
        url: str,
        token: str,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client.

        Args:
            url: Of the API, such as https://bridge.example:8443.
            token: As `python -m cloud_bridge.api` has printed it.
            verify: How the server's certificate is checked.
            transport: In place of the network, for tests.
        """
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            verify=verify,
            transport=transport,
        )

    async def __aenter__(self) -> BridgeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def cameras(self) -> list[dict[str, Any]]:
        """Every camera that the token shows."""
        return list(await self._json("GET", "/v1/cameras"))

    async def acknowledge(self, number: str) -> dict[str, Any]:
        """Say that you have seen an alert."""
        return dict(await self._json("POST", f"/v1/alerts/{number}/acknowledge"))

    async def comment(self, number: str, words: str) -> dict[str, Any]:
        """Add a comment to an alert."""
        return dict(await self._json("POST", f"/v1/alerts/{number}/comments", json={"words": words}))

    async def ask_sentence(self, camera: str) -> dict[str, Any]:
        """Ask that the next verdict on `site/camera` has a sentence; `verdicts` brings it. Returns when you asked."""
        return dict(await self._json("POST", f"/v1/cameras/{camera}/sentence"))

    async def order(self, camera: str, profile: str) -> dict[str, Any]:
        """Order the device of a camera, `site/camera`, to change to a profile; returns the command."""
        return dict(await self._json("POST", f"/v1/devices/{camera}/commands", json={"profile": profile}))

    async def history(self, kind: str, **wanted: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield stored "verdicts" or "alerts", the newest first. wanted: camera, label, since, until."""
        after = ""
        while True:
            page = await self._json("GET", f"/v1/{kind}", params={**wanted, "limit": 500, "after": after})
            for row in page["rows"]:
                yield row
            after = page["next"]
            if not after:
                return

    async def alerts(self, camera: str = "") -> AsyncIterator[dict[str, Any]]:
        """Yield changes of alerts as they are made, for ever."""
        async for event in self._follow("alert", camera):
            yield event

    async def verdicts(self, camera: str = "") -> AsyncIterator[dict[str, Any]]:
        """Yield verdicts as they are made, for ever."""
        async for event in self._follow("verdict", camera):
            yield event

    async def _follow(self, kind: str, camera: str) -> AsyncIterator[dict[str, Any]]:
        """Follow a stream, and make it again where it breaks; then what was missed comes first."""
        newest_s, seen, pause_s = await self._newest(kind, camera), set[tuple[Any, ...]](), 0.5
        while True:
            try:
                async for event in self._stream(kind, camera):
                    if event["type"] in ("ready", "lost"):
                        missed = await self._since(kind, camera, newest_s)
                    else:
                        missed = [event]
                    for each in missed:
                        name = _name(each)
                        newest_s = max(newest_s, each.get("made_s", newest_s))
                        if name not in seen:
                            seen.add(name)
                            yield each
                    seen = set(list(seen)[-4096:]) if len(seen) > 8192 else seen
                    pause_s = 0.5
            except httpx.TransportError:
                await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)
                pause_s = min(_MOST_PAUSE_S, 2.0 * pause_s)

    async def _newest(self, kind: str, camera: str) -> float:
        """When the newest stored one was made."""
        page = await self._json("GET", f"/v1/{kind}s", params={"camera": camera, "limit": 1})
        return float(page["rows"][0]["made_s"]) if page["rows"] else 0.0

    async def _since(self, kind: str, camera: str, since_s: float) -> list[dict[str, Any]]:
        """What was made after a moment, the oldest first."""
        found = [row async for row in self.history(f"{kind}s", camera=camera, since=since_s) if row["made_s"] > since_s]
        return found[::-1]

    async def _stream(self, kind: str, camera: str) -> AsyncIterator[dict[str, Any]]:
        timeout = httpx.Timeout(_TIMEOUT_S, read=_SILENCE_S)
        wanted = {"kind": kind, "camera": camera}
        async with self._http.stream("GET", "/v1/stream", params=wanted, timeout=timeout) as response:
            response.raise_for_status()
            name = ""
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield {"type": name, **json.loads(line.removeprefix("data: "))}

    async def _json(self, method: str, path: str, **how: Any) -> Any:
        response = await self._http.request(method, path, **how)
        response.raise_for_status()
        return response.json()


def _name(event: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a verdict or an alert the same one."""
    return (event["camera"], event["boot_id"], event.get("id") or event.get("last_slot"))
