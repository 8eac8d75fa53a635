"""Somebody who stays on the floor after a fall: told over minutes, by a CUSUM of the share that verdicts give to `low`.

    share of `low` in a verdict --score--> its log odds --SequentialTest--> evidence that somebody is low
    evidence of a fall, be it too little for an alert of its own --LyingTest--> it counts from here on: lying still

No clock, no network, no model here, and no torch.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from familial.evaluate.sequential import Moment, ScoreLaw

__all__ = [
    "ARMING_PER_DAY",
    "CEILING",
    "CLEAR",
    "LEAST_LIE_S",
    "LOW",
    "LYING_STILL",
    "LyingTest",
    "SequentialTest",
    "log_odds",
    "score",
]

CLEAR = 0.25
"""Lying still is cleared where evidence has fallen to this share of its threshold,"""
CEILING = 1.25
"""beyond which multiple evidence does not grow, so that a long risk is cleared as soon as a short one."""
LYING_STILL = "lying still"
"""The alert of somebody who stays on the floor after a fall."""
LOW = "low"
"""The family's attribute that it is read from."""
ARMING_PER_DAY = 24.0
"""Evidence of a fall that normal life gives so often a day lets evidence of lying count."""
LEAST_LIE_S = 60.0
"""The time on the floor for which a table counts false alerts; a longer time has fewer."""

_RAREST = 1e-6  # bounds probabilities, so that no event decides alone
_GAP = 2  # events' lengths without a release, after which evidence is of another moment

Floats = npt.NDArray[np.float64]


def score(probability: float, other: float) -> float:
    """Return the log odds of `probability` against `other`, both bounded."""
    return math.log(max(probability, _RAREST)) - math.log(max(other, _RAREST))


def log_odds(probabilities: Floats, index: int, other: Floats) -> Floats:
    """Scores (E,) of column `index` of (E, L) against `other` (E,)."""
    pairs = zip(probabilities[:, index].tolist(), other.tolist(), strict=True)
    return np.array([score(one, two) for one, two in pairs])


class SequentialTest:
    """The evidence for somebody who is low, before one camera: a CUSUM over verdicts.

    An event of R releases shares R - 1 of them with the next, so u is multiplied by f / R, f being how many releases of
    the event were in none before: over a stream every release then counts once.

    Attributes:
        evidence: in nats, 0 to CEILING thresholds.
        is_raised: whether its alert is; the caller keeps it current. Evidence that begins anew then begins at the
            threshold, so that nothing but verdicts clears an alert.
    """

    def __init__(self, law: ScoreLaw, releases: int, threshold: float) -> None:
        """Begin without evidence.

        Args:
            law: of the label's score.
            releases: of an event, R.
            threshold: from which on an alert is raised.
        """
        self._law, self._releases, self.threshold = law, releases, threshold
        self._last: Moment | None = None
        self.evidence, self.is_raised = 0.0, False

    def step(self, score: float, at: Moment) -> float:
        """Take the score of the next event and return the evidence.

        A new start of the device, and a gap of two events' lengths, begin the evidence anew.
        An event that repeats, or comes from before, adds nothing.
        """
        fresh = self._fresh(at)
        if fresh <= 0 or not math.isfinite(score):
            return self.evidence
        gained = self._law.increment(score, self._law.mean) * fresh / self._releases
        self.evidence = min(max(0.0, self.evidence + gained), CEILING * self.threshold)
        return self.evidence

    def pause(self) -> None:
        """Begin the evidence anew: what comes next is not of the same moment."""
        self._last = None
        self._restart()

    def _restart(self) -> None:
        self.evidence = self.threshold if self.is_raised else 0.0

    def _fresh(self, at: Moment) -> int:
        """Releases of an event that none before it had."""
        before, self._last = self._last, at
        if before is None or before.boot_id != at.boot_id:
            self._restart()
            return at.present.bit_count()
        if at.slot <= before.slot:
            self._last = before
            return 0
        if at.slot - before.slot > _GAP * self._releases:
            self._restart()
        return (at.present & ((1 << min(at.slot - before.slot, self._releases)) - 1)).bit_count()


class LyingTest:
    """Whether somebody has been lying for long after a fall: evidence for "low" that began with a fall and stayed.

    Each release says weakly whether somebody is low; minutes say it surely. A bed says the same, so nothing counts
    before there was evidence of a fall, be it too little for an alert of its own.
    """

    def __init__(self, low: SequentialTest, slots: int, releases: int) -> None:
        """Begin unarmed.

        Args:
            low: evidence that somebody is low.
            slots: for so long it must have stayed above zero.
            releases: of an event, R; within two events of a fall low evidence must have begun.
        """
        self._low, self._slots, self._grace = low, slots, _GAP * releases
        self._boot_id = -1
        self._armed: int | None = None  # slot of the newest evidence of a fall
        self._since: int | None = None  # slot since which low evidence is above zero

    def step(self, fell: bool, low: float, at: Moment) -> bool:
        """Take whether there is evidence of a fall, and the score of "low"; return whether somebody lies for long."""
        if at.boot_id != self._boot_id:
            self._boot_id = at.boot_id
            self.pause()
        if fell:
            self._armed = at.slot
        if self._armed is None and not self.is_raised:
            self._low.pause()
            return False
        evidence = self._low.step(low, at)
        if evidence > 0.0:
            self._since = at.slot if self._since is None else self._since
        elif self._armed is not None and at.slot - self._armed > self._grace:
            self.pause()
        else:
            self._since = None
        lasted = self._since is not None and at.slot - self._since >= self._slots
        return lasted and evidence >= self._low.threshold

    @property
    def is_raised(self) -> bool:
        """Whether its alert is raised, as in `SequentialTest`."""
        return self._low.is_raised

    @is_raised.setter
    def is_raised(self, holds: bool) -> None:
        self._low.is_raised = holds

    @property
    def gone(self) -> bool:
        """Whether the evidence has fallen so far that an alert is cleared."""
        return self._low.evidence <= CLEAR * self._low.threshold

    def pause(self) -> None:
        """Begin anew, unarmed."""
        self._low.pause()
        self._armed = self._since = None
