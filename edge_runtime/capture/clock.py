"""The two clocks of capture: the release clock, which every slot follows, and the clock of a video's frames.

Times are seconds on the release clock: monotonic, 0 where slot 0 begins.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

__all__ = ["FrameClock", "SlotClock"]


class SlotClock:
    """The release clock: slot s lasts from s * slot_s to (s + 1) * slot_s and is released release_delay_s later.

    Args:
        slot_s: Length of a slot in seconds.
        release_delay_s: From a slot's end to its release; at most half a slot is used.
        speed: Seconds of the release clock in a real second; other than 1 for files and synthetic scenes only.
    """

    def __init__(self, slot_s: float, release_delay_s: float, speed: float = 1.0) -> None:
        self.slot_s, self.speed, self.release_delay_s = slot_s, speed, min(release_delay_s, slot_s / 2)
        self.stop, self.skipped, self._zero = threading.Event(), 0, 0.0

    def start(self, zero_s: float = 0.0) -> None:
        """Begin slot 0 at `zero_s` of the system's monotonic clock, or now; no effect where the clock runs already."""
        self._zero = self._zero or zero_s or time.monotonic()

    @property
    def zero_s(self) -> float:
        """When slot 0 began, in seconds of the monotonic clock; 0.0 before `start`."""
        return self._zero

    def now(self) -> float:
        """Seconds since slot 0 began; 0 before `start`."""
        return (time.monotonic() - self._zero) * self.speed if self._zero else 0.0

    def end(self, slot: int) -> float:
        """When `slot` ends."""
        return (slot + 1) * self.slot_s

    def deadline(self, slot: int) -> float:
        """When `slot` is released."""
        return self.end(slot) + self.release_delay_s

    def figures(self) -> dict[str, float]:
        """For the local page: how many slots were not released in time."""
        return {"skipped_slots": self.skipped}

    def left(self, until: float) -> float:
        """Real seconds until the time `until`; at least 0."""
        return max(0.0, (until - self.now()) / self.speed)

    def wait(self, until: float) -> bool:
        """Sleep until the time `until`; False where the process was asked to stop meanwhile."""
        return not self.stop.wait(self.left(until))

    def missed(self, slot: int) -> bool:
        """Whether the slot after `slot` has ended too: `slot` then counts as skipped and must not be released."""
        self.skipped += (late := self.now() >= self.end(slot + 1))
        return late

    def slots(self) -> Iterator[int]:
        """Yield each slot at its end. Slots whose deadline passed while the process stalled are skipped and counted."""
        slot = 0
        while True:
            due = math.floor((self.now() - self.release_delay_s) / self.slot_s)  # the first with its deadline ahead
            self.skipped += max(0, due - slot)
            slot = max(slot, due)
            if not self.wait(self.end(slot)):
                return
            yield slot
            slot += 1


class FrameClock:
    """The times of a video's frames in seconds from its first frame.

    A timestamp that repeats, goes backwards or jumps by 10 s or more is replaced by one frame period.

    Args:
        rate: The video's frame rate in frames a second; outside 1 to 240 it is taken for 25.
    """

    def __init__(self, rate: float) -> None:
        self._period_s = 1.0 / rate if 1.0 <= rate <= 240.0 else 1.0 / 25.0
        self._last_ms, self._time_s = math.nan, 0.0

    def tick(self, timestamp_ms: float) -> float:
        """The time of the next frame, whose timestamp in the video is `timestamp_ms`."""
        step_s = (timestamp_ms - self._last_ms) / 1000
        self._last_ms = timestamp_ms
        if not math.isnan(step_s):
            self._time_s += step_s if 0.0 < step_s < 10.0 else self._period_s
        return self._time_s
