"""Verdicts and alerts as they are made, from the bridge's thread to those who listen over HTTP.

    the bridge's thread --publish--> the server's loop --> a bounded queue for each listener --> text/event-stream

A listener that does not keep up loses the oldest events, and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["Full", "Hub", "Listener"]

_ASKED_FOR = "contour"  # a kind that nobody gets who does not name it: it comes for every release of every camera
_MOST_LISTENERS = 64
_DEPTH = 256


class Full(Exception):
    """There are as many listeners as may be."""


class Listener:
    """The queue of one listener. Only the server's loop touches it."""

    def __init__(self, kind: str, wants: Callable[[str], bool]) -> None:
        self._kind, self._wants = kind, wants
        self._queue = deque[dict[str, Any]]()
        self._lost, self._ready, self._over = 0, asyncio.Event(), False

    def put(self, kind: str, event: dict[str, Any]) -> None:
        """Add an event where it is wanted; never waits."""
        wanted = self._kind == kind or (not self._kind and kind != _ASKED_FOR)
        if not wanted or not self._wants(str(event["camera"])):
            return
        if len(self._queue) >= _DEPTH:
            self._queue.popleft()
            self._lost += 1
        self._queue.append({"type": kind, **event})
        self._ready.set()

    def end(self) -> None:
        """Let `events` end."""
        self._over = True
        self._ready.set()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield events until `end`."""
        while not self._over:
            await self._ready.wait()
            self._ready.clear()
            if self._lost:
                lost, self._lost = self._lost, 0
                yield {"type": "lost", "count": lost}
            while self._queue:
                yield self._queue.popleft()


class Hub:
    """All listeners."""

    def __init__(self) -> None:
        self._listeners = set[Listener]()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Serve listeners in the running loop."""
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """Serve nobody any more: every stream ends. Any thread may call it."""
        loop, self._loop = self._loop, None
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended in this moment
                loop.call_soon_threadsafe(self._end_all)

    def _end_all(self) -> None:
        for listener in self._listeners:
            listener.end()

    @property
    def count(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @property
    def full(self) -> bool:
        """Whether as many listen as may."""
        return self.count >= _MOST_LISTENERS

    def publish(self, kind: str, event: dict[str, Any]) -> None:
        """Give an event to all who want it. Any thread may call it; it never waits."""
        loop = self._loop
        if loop is not None and self._listeners:
            with suppress(RuntimeError):  # the loop has ended in this moment
                loop.call_soon_threadsafe(self._spread, kind, event)

    def _spread(self, kind: str, event: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener.put(kind, event)

    @contextmanager
    def listening(self, kind: str, wants: Callable[[str], bool]) -> Iterator[Listener]:
        """A listener for the block. Raises Full."""
        if self.full:
            raise Full
        listener = Listener(kind, wants)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
