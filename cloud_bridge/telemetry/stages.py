"""When the newest batch came, was read and was written: what the bridge's thread notes for traces, and nothing else.

begin(batch) --> member_began, member_ended --> store_began, store_ended --> whoever listens to the commit
"""

from __future__ import annotations

import time
from collections.abc import Iterable
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
    """

    came: dict[str, float] = field(default_factory=dict)
    taken: float = 0.0
    member: tuple[float, float] = (0.0, 0.0)
    store: tuple[float, float] = (0.0, 0.0)
    _began: float = 0.0

    def begin(self, arrivals: Iterable[tuple[str, float | None]]) -> None:
        """Take a batch: camera, and when its message came."""
        self.taken, self.member = time.time(), (0.0, 0.0)
        self.came = {camera: self.taken if came is None else came for camera, came in arrivals}

    def reading(self) -> None:
        """The member begins."""
        self._began = time.time()

    def read(self) -> None:
        """The member has read."""
        self.member = (self._began, time.time())

    def writing(self) -> None:
        """The commit begins."""
        self._began = time.time()

    def written(self) -> None:
        """The commit is made."""
        self.store = (self._began, time.time())
