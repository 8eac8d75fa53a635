"""Garbage in cycles is looked for between batches, not in the middle of a message.

A look at everything takes 10 ms of a bridge that has read for minutes, and 0.3 s with all that a start has loaded. So
what is loaded is left out of it, and Python no longer decides when it is due. The quick looks at what is new stay.
"""

from __future__ import annotations

import gc

__all__ = ["Garbage"]

_NEVER = 1 << 30
_DUE = 50  # looks at what is new since the last one at everything; Python itself begins to think of it after 10


class Garbage:
    """For the length of a block; of the whole process, so one at a time.

    with Garbage() as garbage:
        while ...:
            garbage.look()      # where nothing waits for it
    """

    def __enter__(self) -> Garbage:
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*self._thresholds[:2], _NEVER)
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    def look(self) -> None:
        """Look at everything that came since the block began, if it is due."""
        if gc.get_count()[2] >= _DUE:
            gc.collect()

    def renew(self) -> None:
        """Let go of what is no longer used, and leave all that is there now out of the looks to come."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
