"""Garbage in cycles is looked for between batches, not in the middle of a message.

A look at everything takes 10 ms of a bridge that has read for minutes, 0.3 s with all that a start has loaded, and one
at what is new 3 to 5 ms of a slow processor. So what is loaded is left out, and Python looks for nothing by itself.
"""

from __future__ import annotations

import gc

__all__ = ["Garbage"]

_NEW = 700  # objects that came and did not go, from which a look is worth it: as Python counts
_MIDDLE = 11 * _NEW  # from which also what was there at the last looks is looked at
_ALL = 50 * _MIDDLE  # and everything; Python itself begins to think of it after a fifth of that


class Garbage:
    """For the length of a block; of the whole process, so one at a time.

    with Garbage() as garbage:
        while ...:
            garbage.look()      # where nothing waits for it
    """

    def __init__(self) -> None:
        self._middle = self._all = 0  # what came since the last look of either kind

    def __enter__(self) -> Garbage:
        self._enabled = gc.isenabled()
        gc.disable()
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            gc.enable()
        gc.unfreeze()

    def look(self) -> None:
        """Look at what came since the block began, as far as that is due."""
        new = gc.get_count()[0]
        if new < _NEW:
            return
        self._middle, self._all = self._middle + new, self._all + new
        generation = 2 if self._all >= _ALL else 1 if self._middle >= _MIDDLE else 0
        gc.collect(generation)
        self._middle = 0 if generation else self._middle
        self._all = 0 if generation == 2 else self._all

    def renew(self) -> None:
        """Let go of what is no longer used, and leave all that is there now out of the looks to come."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._middle = self._all = 0
