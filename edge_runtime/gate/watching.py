"""Not watching: what the device says about its own eye, by a public rule that is too coarse to speak of the scene.

An eye that is down, late or without a picture is covered like any other: its slots are released as noise. Somebody must
learn of it all the same. So `state.watching` is set at fixed slots alone, an hour apart: whether at least half of the
slots before were answered. An honest eye decides nothing by it; a hostile one says at most one bit an hour. The log
says it at the same slots, and nothing else of the eye.
"""

from __future__ import annotations

import logging

from wire.privacy.budget import slots_an_hour

__all__ = ["FIRST_S", "Watching"]

log = logging.getLogger("veilsight.watching")

FIRST_S = 60.0
"""Seconds after slot 0 at which the rule is applied for the first time; then once an hour."""

_SPAN_S = 600.0  # before that time: what counts


class Watching:
    """The rule on one start of the device.

    Args:
        slot_s: Seconds of a slot.

    Attributes:
        holds: What `state.watching` is now; True until the rule is applied for the first time.
    """

    def __init__(self, slot_s: float) -> None:
        self.holds, self._hour = True, slots_an_hour(slot_s)
        self._at, self._span = max(1, round(FIRST_S / slot_s)), max(1, round(FIRST_S / slot_s))
        self._next_span = min(self._hour, max(1, round(_SPAN_S / slot_s)))
        self._answered = 0

    def note(self, slot: int, answered: bool) -> bool:
        """Take whether `slot` was answered; slots that the device missed count as not answered. Returns `holds`."""
        while slot >= self._at:  # the first slot after the span: the span is over, whatever was missed of it
            self.holds = 2 * self._answered >= self._span
            log.info("the camera is %s", "watched" if self.holds else "NOT watched: the local page or --check says why")
            self._at, self._span, self._answered = self._at + self._hour, self._next_span, 0
        self._answered += answered and slot >= self._at - self._span
        return self.holds
