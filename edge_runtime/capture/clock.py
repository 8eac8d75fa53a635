"""The clocks of capture: the release clock, which every slot follows, and those of a video's and a stream's frames.

Times are seconds on the release clock: monotonic, 0 where slot 0 begins.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator

__all__ = ["FrameClock", "SlotClock", "StreamClock"]

_LATE_S = 2.0  # behind a stream's own clock, which buffers and networks do not explain
_PATIENCE_S = 5.0  # of lateness without a break, before something is done about it
_DRIFT = 1e-3  # a camera's clock may run slower than ours by this share
_SPREAD = 0.2  # of a slot: over so long after its deadline a release leaves at random
_BUSY = 0.5  # share of a core from which the decoder is what is slow, and not the stream's clock


class SlotClock:
    """The release clock: slot s lasts from s * slot_s to (s + 1) * slot_s, and its deadline is release_delay_s later.

    It leaves at a random time of the fifth of a slot after that. What else runs on the processor delays a release by a
    millisecond or so, which depends on the scene: in an exact time that shows, in a random one it hardly does.

    Args:
        slot_s: Length of a slot in seconds.
        release_delay_s: From a slot's end to its deadline; at most half a slot is used.
        speed: Seconds of the release clock in a real second; other than 1 for files and synthetic scenes only.
    """

    def __init__(self, slot_s: float, release_delay_s: float, speed: float = 1.0) -> None:
        self.slot_s, self.speed, self.release_delay_s = slot_s, speed, min(release_delay_s, slot_s / 2)
        self.stop, self.skipped, self._zero = threading.Event(), 0, 0.0
        self._chance = random.SystemRandom()  # the kernel's: no state that could be read or guessed

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
        """When the code of `slot` is due."""
        return self.end(slot) + self.release_delay_s

    def leaves(self, slot: int) -> float:
        """When `slot` leaves: drawn anew by each call."""
        return self.deadline(slot) + self._chance.uniform(0.0, _SPREAD * self.slot_s)

    def figures(self) -> dict[str, float]:
        """For the local page: how many slots were not released in time."""
        return {"skipped_slots": self.skipped}

    def left(self, until: float) -> float:
        """Real seconds until the time `until`; at least 0."""
        return max(0.0, (until - self.now()) / self.speed)

    def wait(self, until: float) -> bool:
        """Sleep until the time `until`; False where the process was asked to stop meanwhile."""
        return not self.stop.wait(self.left(until))

    def wait_to_release(self, slot: int) -> bool:
        """Sleep until `slot` may leave; False where it must not: a stop was asked for, or it was missed."""
        return self.wait(self.leaves(slot)) and not self.missed(slot)

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


class StreamClock:
    """Places the frames of a network stream on the release clock by the stream's own time stamps.

    A frame that was decoded late keeps the time at which it was taken: slow decoding leaves frames out of windows, and
    never shows a slow motion. What arrives fastest is taken to be on time, so a constant delay changes nothing.

    Args:
        paced: The server may send ahead of time (HTTP): the first frame is on time, and later ones wait for theirs.

    Attributes:
        late_s: How far the last frame was behind, in seconds.
    """

    def __init__(self, paced: bool) -> None:
        self._paced, self.late_s = paced, 0.0
        self._ahead_s, self._now_s, self._trusted = math.nan, math.nan, True  # release clock less the stream's
        self._since_s, self._busy_s = 0.0, 0.0  # when frames were last on time, and this thread's CPU time then

    def place(self, at_s: float, now_s: float, busy_s: float) -> float:
        """When a frame was taken, on the release clock; after `now_s` where it came ahead of its time.

        Args:
            at_s: By the stream's clock, in seconds; NaN: it has none.
            now_s: On the release clock.
            busy_s: CPU time of the thread that decodes.
        """
        if math.isnan(at_s) or not self._trusted:
            self.late_s = 0.0
            return now_s
        ahead_s = now_s - at_s
        if math.isnan(self._ahead_s):
            self._ahead_s = ahead_s
        elif not self._paced:
            self._ahead_s = min(ahead_s, self._ahead_s + _DRIFT * (now_s - self._now_s))
        self._now_s, self.late_s = now_s, max(0.0, ahead_s - self._ahead_s)
        if not self.late:
            self._since_s, self._busy_s = now_s, busy_s
        return self._ahead_s + at_s

    @property
    def late(self) -> bool:
        """Whether the last frame was further behind than buffers and networks explain."""
        return self.late_s > _LATE_S

    def give_up(self, busy_s: float) -> bool:
        """Whether frames have been late for so long that the stream must be opened again, in the present.

        A server that waits for us cannot be caught up by that: its frames are on time from here on. Nor can a stream
        whose clock is slow while the decoder is idle: it is not believed any more.
        """
        waited_s = self._now_s - self._since_s
        if not self.late or waited_s <= _PATIENCE_S:
            return False
        self._trusted = busy_s - self._busy_s >= _BUSY * waited_s
        self._ahead_s = math.nan
        return self._trusted and not self._paced
