"""When a slot was captured, from what a device's messages say to everybody: the minute of its clock, and the slot.

    time_s <= device's clock at the slot's end < time_s + 60, for every release of a start
    --see--> bounds on when slot 0 began --span--> when any slot of that start was, and how well that is known

A minute that ends between two releases says it to within a slot. No field of a message is there for this.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CaptureClock", "Captured"]

_COARSE_S = 60.0


class Captured(NamedTuple):
    """When a slot was, by the device's clock, seconds since 1970; it may be later, by `unknown_s` at most."""

    begin_s: float
    end_s: float
    unknown_s: float


class CaptureClock:
    """The clock of one camera's present start."""

    def __init__(self, slot_s: float) -> None:
        self._slot_s, self._boot_id = slot_s, -1
        self._low = self._high = 0.0  # when slot 0 began

    def see(self, boot_id: int, slot: int, time_s: int) -> Captured:
        """Take a release, and return when its slot was.

        Args:
            boot_id: Of its start: another one begins anew, and so does a clock that was set.
            slot: Its slot.
            time_s: Its time, a whole minute.
        """
        low = time_s - (slot + 1) * self._slot_s
        high = low + _COARSE_S
        if boot_id == self._boot_id and max(low, self._low) < min(high, self._high):
            low, high = max(low, self._low), min(high, self._high)
        self._boot_id, self._low, self._high = boot_id, low, high
        begin = low + slot * self._slot_s
        return Captured(begin, begin + self._slot_s, high - low)
