"""Signatures of a large batch, verified on several processors before the batch is read.

    batch --a camera's key for each features message--> threads: look --> the same keys, which answer at once

A signature is almost half of what it costs to take a release, and `cryptography` lets other threads run meanwhile. One
thread reads all the rest, so while more comes than it can read, it waits for half of the signatures or fewer. A batch
as it comes while nothing waits is smaller: there it would save nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.ingest.transport import Inbound
from wire.protocol.keys import KeyAhead

__all__ = ["Signatures"]

_LARGE = 128  # messages; half of the most that a batch has
_MOST_THREADS = 4


class Signatures:
    """The threads, and what they are given."""

    def __init__(self, sessions: Mapping[str, CameraSession], threads: int | None = None) -> None:
        """Begin without a thread; they start with the first large batch.

        Args:
            sessions: `site/camera` -> its session.
            threads: That verify, the caller's included; None: one for each processor, up to 4.
        """
        self._sessions = sessions
        self._threads = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._pool: ThreadPoolExecutor | None = None

    def ahead(self, batch: Sequence[Inbound], now_s: float) -> Sequence[KeyAhead | None]:
        """A key for each message that has verified it; None: it was not looked at.

        Args:
            batch: Messages, in the order in which they will be taken.
            now_s: This machine's clock, for those that do not say when they came.
        """
        if len(batch) < _LARGE or self._threads < 2:
            return [None] * len(batch)
        nth = Counter[str]()
        keys = [self._key(item, now_s, nth) for item in batch]
        asked = [key for key in keys if key is not None]
        self._pool = self._pool or ThreadPoolExecutor(self._threads - 1, "signatures")
        left = iter(asked)  # each takes the next one that is left
        parts = [self._pool.submit(_look, left) for _ in range(1, self._threads)]
        _look(left)
        for part in parts:
            part.result()
        return keys

    def close(self) -> None:
        """End the threads. They start again where another large batch comes."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _key(self, item: Inbound, now_s: float, nth: Counter[str]) -> KeyAhead | None:
        session = self._sessions.get(item.camera)
        if session is None or item.name != "features":
            return None
        nth[item.camera] += 1
        return session.ahead(item.payload, now_s if item.came_s is None else item.came_s, nth[item.camera])


def _look(keys: Iterator[KeyAhead]) -> None:
    for key in keys:
        key.look()
