"""When the newest batch came, was read and was written: what the bridge's thread notes for traces and metrics.

begin(batch) --> member_began, member_ended --> store_began, store_ended --> whoever listens to the commit
                              `--> watchers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["Stages"]


@dataclass(slots=True)
class Stages:
    """Moments of this machine's clock, seconds since 1970; 0: not yet.

    Attributes:
        came: `site/camera` -> when the network's thread had its newest message of the batch.
        taken: When the bridge took the batch.
        member: Begin and end of the member's reading.
        store: Begin and end of the commit.
        watchers: Called with how many events the member has read, and in how many seconds.
    """

    came: dict[str, float] = field(default_factory=dict)
    taken: float = 0.0
    member: tuple[float, float] = (0.0, 0.0)
    store: tuple[float, float] = (0.0, 0.0)
    watchers: list[Callable[[int, float], None]] = field(default_factory=list)
    _began: float = 0.0
    _events: int = 0
    _since: float = 0.0  # of a clock that nobody sets

    def begin(self, arrivals: Iterable[tuple[str, float | None]]) -> None:
        """Take a batch: camera, and when its message came."""
        self.taken, self.member = time.time(), (0.0, 0.0)
        self.came = {camera: self.taken if came is None else came for camera, came in arrivals}

    def reading(self, events: int) -> None:
        """The member begins to read so many events."""
        self._began, self._events, self._since = time.time(), events, time.perf_counter()

    def read(self) -> None:
        """The member has read."""
        self.member = (self._began, time.time())
        for watcher in self.watchers if self._events else ():
            watcher(self._events, time.perf_counter() - self._since)

    def writing(self) -> None:
        """The commit begins."""
        self._began = time.time()

    def written(self) -> None:
        """The commit is made."""
        self.store = (self._began, time.time())
