"""Whether what a camera says is now. Pure: it is told the time.

    time_s of a signed message + this machine's clock --Freshness.complaint--> "" (now), or why it is not

A broker can hold messages back and deliver them later, in order and genuine. So each states its device's clock, rounded
down to a minute, and what is older than `max_age_s` is read late: it has its place in the timeline, and neither raises
nor clears an alert. A device whose clock is wrong looks the same; nothing is learned from the stream itself, because
whoever holds back its first message would choose what is learned. Its operator can state the error, `clock_behind_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloud_bridge.log import log_of
from wire.errors import ConfigError
from wire.settings import Positive

__all__ = ["Allowance", "Freshness", "IngestRule"]

_COARSE_S = 60  # a stated time is up to this much too early
_STEP_S = 120  # that a clock may be set back without remark
_MOST_WAIT_MS = 500.0  # half of the time in which a verdict is due


@dataclass(frozen=True, slots=True)
class IngestRule:
    """What is read as now: the `[ingest]` section of the bridge's file.

    Attributes:
        max_age_s: A message whose time differs from this machine's by more is late. A device keeps its messages
            while the broker is away; those older than this come too late for an alert.
        stale_after_s: A camera of which nothing came for so long is stale.
        skew_s: A device whose messages are dated so much after this machine's clock has a clock that is ahead.
        burst: Releases that a camera may send at once, after an outage.
        rate: Releases that it may send in each slot's time in the long run: more than 1, since a device sends what
            waited ([outbox] replay_per_s there) beside what is new. What is beyond is refused.
        shed_after_s: Where a message has waited here for longer, and newer ones of its camera wait, there is more than
            can be read: each release is in one verdict then, and the verdicts that overlap are left out.
        batch_wait_ms: For which the first message of a batch waits for those of other cameras, since each batch costs a
            commit; 64 wait for no more. 0: none waits.

    Raises:
        ConfigError: batch_wait_ms is out of its bounds.
    """

    max_age_s: Positive = 120.0
    stale_after_s: Positive = 30.0
    skew_s: Positive = 10.0
    burst: Positive = 600.0
    rate: Positive = 15.0
    shed_after_s: Positive = 1.0
    batch_wait_ms: float = 50.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.batch_wait_ms <= _MOST_WAIT_MS:
            raise ConfigError(
                f"batch_wait_ms is {self.batch_wait_ms:g}; write milliseconds from 0 (wait for nothing) "
                f"to {_MOST_WAIT_MS:g}"
            )


class Allowance:
    """How many more releases a camera may send now. It keeps a genuine camera that floods from taking all the time."""

    def __init__(self, rule: IngestRule, slot_s: float) -> None:
        self._burst, self._per_s = rule.burst, rule.rate / slot_s
        self._left, self._then_s = rule.burst, 0.0

    def has(self, now_s: float, count: int = 1) -> bool:
        """Whether there are so many, at `now_s` of this machine's clock."""
        return min(self._burst, self._left + max(0.0, now_s - self._then_s) * self._per_s) >= count

    def take(self, now_s: float) -> bool:
        """Take one, at `now_s` of this machine's clock; False where there is none."""
        passed = max(0.0, now_s - self._then_s)
        self._left, self._then_s = min(self._burst, self._left + passed * self._per_s), now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Freshness:
    """The clock of one camera, beside ours."""

    def __init__(self, camera: str, rule: IngestRule, clock_behind_s: int = 0) -> None:
        """Begin.

        Args:
            camera: `site/camera`.
            rule: What is late.
            clock_behind_s: By how much the device's clock is known to be behind.
        """
        self._camera, self._rule, self._behind_s = camera, rule, clock_behind_s
        self._log = log_of(camera)
        self._newest = 0
        self._late = False

    def begin(self) -> None:
        """The device has started again: its clock may have been set."""
        self._newest = 0

    def set_back(self, time_s: int) -> bool:
        """Take the time of the next release of a start; return whether the clock was set back before it.

        That release alone is refused: its time and those before it cannot all be right.
        """
        back = time_s < self._newest - _STEP_S
        self._newest = time_s
        return back

    def complaint(self, time_s: int, now_s: float) -> str:
        """Say why a message is not read as now; "" where it is.

        Args:
            time_s: As the message states it.
            now_s: This machine's clock, seconds since 1970.
        """
        age_s = now_s - time_s - self._behind_s
        if age_s - _COARSE_S > self._rule.max_age_s:
            return f"messages are {age_s - _COARSE_S:.0f} s old, or the device's clock is behind"
        if -age_s > self._rule.max_age_s:
            return f"the device's clock is {-age_s:.0f} s ahead, or this machine's is behind"
        return ""

    def ahead_s(self, time_s: int, now_s: float) -> float:
        """By how much a message is dated later than now; 0 where that is within `skew_s`.

        Nobody can send a message of the future, so a clock is wrong, and by up to a minute more than this says.
        """
        lead_s = time_s + self._behind_s - now_s
        return lead_s if lead_s > self._rule.skew_s else 0.0

    @property
    def device_s(self) -> int:
        """The device's clock, as its newest release of this start says; 0: none was read."""
        return self._newest

    def take(self, time_s: int, now_s: float) -> str:
        """Do as `complaint` for the next release; the first of a row that is late is logged, with the cure."""
        words = self.complaint(time_s, now_s)
        if words and not self._late:
            self._log.warning(
                "%s: %s; nothing of it is read as now. Set the clocks of the device and of this machine (NTP); where "
                "the device has no way to, read its clock there and state its error as [[cameras]] clock_behind_s",
                self._camera,
                words,
            )
        self._late = bool(words)
        return words
