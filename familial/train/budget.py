"""The wall clock of one training: how long each stage may take, so that all of them together keep --minutes.

    |-- clips, first weights --|-- stages 1 and 2, with their validation --|-- clip stage --|-- calibration --|
    began                                                                          reserved for the end       minutes

What the end needs is measured before stage 1 and every half minute (`Pace`), on one clip, so that every clip can be
read in the clip stage and the held-out ones at the end. A stage that is late takes from the next one, never from the
whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from wire.errors import ConfigError

__all__ = ["Budget", "Pace", "Reserve", "minutes_text", "reserve"]

_MOST_END = 0.5  # of all the time, for clip stage and calibration
_MOST_CALIBRATION = 0.25
_SPARE = 1.3  # what is measured on one clip, on others
_SAVING_S = 2.0


class Budget:
    """Seconds of one training, from its first clip to its checkpoint.

    Args:
        minutes: how long, at most.
        now: a clock in seconds.
    """

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        if not minutes > 0:
            raise ConfigError(f"--minutes {minutes:g}: the wall clock of one training; give more than 0")
        self.now, self.total, self._began = now, 60.0 * minutes, now()

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return self.now() - self._began

    @property
    def left(self) -> float:
        """Seconds until it ends, not below 0."""
        return max(0.0, self.total - self.spent)

    def was_spent(self, seconds: float) -> None:
        """Count `seconds` that an earlier process, which --resume goes on from, has spent."""
        self._began -= seconds

    def refuse_slow(self, done: int, total: int, doing: str, cure: str, since: float = 0.0) -> None:
        """Raise ConfigError where `doing` all of `total` would take more than half of the time.

        Args:
            done: how many are done.
            total: how many there are.
            doing: what is done, for the message.
            cure: another way out than more minutes, for the message.
            since: what was spent when the first of them began, seconds.
        """
        own = self.spent - since
        if done and own > min(10.0, 0.1 * self.total) and since + own * total / done > self.total / 2:
            takes = own * total / done / 60
            raise ConfigError(
                f"--minutes {self.total / 60:g}: {doing} takes about {takes:.1f} min of it; give --minutes "
                f"{3 * takes:.0f}, or {cure}; what is done already is kept"
            )


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured before the training began.

    Attributes:
        slot_s: seconds to encode one slot.
        event_s: seconds to read one event at both exits.
    """

    slot_s: float
    event_s: float

    def slower(self, other: Pace) -> Pace:
        """Return the slower of both, each by itself."""
        return Pace(max(self.slot_s, other.slot_s), max(self.event_s, other.event_s))


@dataclass(frozen=True, slots=True)
class Reserve:
    """Seconds that are kept for the end."""

    clip_stage: float
    calibration: float

    @property
    def total(self) -> float:
        """Of both, and of writing the checkpoint."""
        return self.clip_stage + self.calibration + _SAVING_S


def reserve(
    total: float, clip_stage: float, clip_slots: int, calibration: tuple[int, int], pace: Pace, left: float
) -> Reserve:
    """Plan the end of a training.

    Args:
        total: seconds of the budget.
        clip_stage: share of it for the clip stage; 0: there is none.
        clip_slots: slots of all clips that the clip stage encodes at least once.
        calibration: slots and events that the calibration reads.
        pace: as measured.
        left: seconds that were left of the budget when stage 1 began; the end gets half of them at most.
    """
    ends = _SPARE * (calibration[0] * pace.slot_s + calibration[1] * pace.event_s)
    ends = min(ends, _MOST_CALIBRATION * left)
    clips = max(clip_stage * total, 2.0 * _SPARE * clip_slots * pace.slot_s) if clip_stage else 0.0
    return Reserve(min(clips, _MOST_END * left - ends), ends)


def minutes_text(seconds: float) -> str:
    """Seconds for people: "40 s", "3.2 min", "2.1 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
