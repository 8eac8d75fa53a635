"""How fast what waited is sent: so many releases a second, and on top of them as many as are new."""

from __future__ import annotations

__all__ = ["Pace"]

_LONGEST_S = 10.0  # without a look at the clock


class Pace:
    """Says whether one more release may go now. It is told the time.

    Args:
        per_s: Releases a second, beside the new ones.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s, self._then_s = per_s, 0.0
        self._left = self._most = max(1.0, per_s)

    def rest(self, now_s: float) -> None:
        """Nothing waits, or nothing can be sent: what was not used is not saved up, beyond a second's worth."""
        self._left, self._then_s = self._most, now_s

    def look(self, now_s: float) -> None:
        """Time has passed."""
        self._left += min(max(0.0, now_s - self._then_s), _LONGEST_S) * self._per_s
        self._then_s = now_s

    def add(self) -> None:
        """A new release has come."""
        self._left += 1.0

    def take(self) -> bool:
        """Take the turn of one release; False where it must wait."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
