"""The test behind alerts: the releases of an event -> evidence for a risk, and the table that sets its level.

    z of a release --projected on a law's direction--> score, in units of the noise
    score - baseline of this camera --increment--> nats that the release speaks for the risk
    largest sum of an event's newest releases --EventTest--> evidence >= threshold? raised; <= 0? cleared
    false alerts a day --alert_calibration.json--> threshold, share of risks found, delay

The noise is Gaussian and its law is known exactly, so the log likelihood ratio of "the score has risen by `rise`"
against "it has not" is linear in the score: u = rise / spread^2 (score - baseline - rise / 2), where `spread` is the
standard deviation of a score, noise and scenes together. Summed over an event, that is the matched filter of a risk
that lasts as long as one, which is about as long as a fall stays in the receptive field. When the risk began is not
known, so an event's evidence is the largest sum over its newest releases, half of them or more: the generalised
likelihood ratio of the onset (Lorden 1971), a CUSUM (Page 1954) that is no longer than an event. What was before a fall
then does not speak against it. Nothing adds up beyond an event, and no release counts twice in one. Of two risks the
one whose score has risen more, in units of the noise, is the likelier one: prototypes have equal norms, so the nearer
one in angle. It needs z alone, so it is the same whichever exit reads.

The baseline is the camera's own slow mean of its score: rooms differ by more than the noise does, and a room that looks
a little like a risk all day must not be one. "Lying still" is told over minutes, by a CUSUM of the share that verdicts
give to `low`: `SequentialTest`. No clock, no network, no model here, and no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wire.artifact.checkpoint import base_hash, checkpoint_hash
from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError
from wire.files import write_whole

__all__ = [
    "ARMING_PER_DAY",
    "CEILING",
    "CLEAR",
    "FILE",
    "LEAST_LIE_S",
    "LOW",
    "LYING_STILL",
    "MEMORY",
    "SHORTEST",
    "AlertCalibration",
    "EventTest",
    "LyingTest",
    "Moment",
    "OperatingPoint",
    "ScoreLaw",
    "SequentialTest",
    "log_odds",
    "score",
]

FILE = "alert_calibration.json"
CLEAR = 0.25
"""Lying still is cleared where evidence has fallen to this share of its threshold,"""
CEILING = 1.25
"""beyond which multiple evidence does not grow, so that a long risk is cleared as soon as a short one."""
LEAST_PRESENT = 0.5
"""Share of its releases that an event must have to clear an alert: what is missing speaks against nothing."""
SHORTEST = 0.5
"""Share of an event's releases that evidence is summed over at least: no release decides alone."""
MEMORY = 600
"""Releases over which a camera's baseline is averaged."""
LYING_STILL = "lying still"
"""The alert of somebody who stays on the floor after a fall."""
LOW = "low"
"""The family's attribute that it is read from."""
ARMING_PER_DAY = 24.0
"""Evidence of a fall that normal life gives so often a day lets evidence of lying count."""
LEAST_LIE_S = 60.0
"""The time on the floor for which a table counts false alerts; a longer time has fewer."""

_RAREST = 1e-6  # bounds probabilities, so that no event decides alone
_OUTLIER = 3.0  # spreads beyond which a score counts no more
_GAP = 2  # events' lengths without a release, after which evidence is of another moment

Floats = npt.NDArray[np.float64]


class Moment(NamedTuple):
    """Where an event lies in its stream.

    Attributes:
        boot_id: names the stream.
        slot: of its last release.
        present: which releases it has, as in a verdict: bit k is that of `slot` - k.
        z: float or int (R, n), row k being that of `slot` - k; None where nothing asks for it.
    """

    boot_id: int
    slot: int
    present: int
    z: npt.NDArray[Any] | None = None


def score(probability: float, other: float) -> float:
    """Return the log odds of `probability` against `other`, both bounded."""
    return math.log(max(probability, _RAREST)) - math.log(max(other, _RAREST))


def log_odds(probabilities: Floats, index: int, other: Floats) -> Floats:
    """Scores (E,) of column `index` of (E, L) against `other` (E,)."""
    pairs = zip(probabilities[:, index].tolist(), other.tolist(), strict=True)
    return np.array([score(one, two) for one, two in pairs])


class OperatingPoint(NamedTuple):
    """One row of a table.

    Attributes:
        threshold: of the evidence, in nats.
        false_per_day: false alerts a day of one camera, at most (the upper end of the calibration's interval).
        found: share of the calibration's risks that raise an alert.
        delay_p50_s: from onset to alert, of those found; NaN where none is.
        delay_p90_s: the same, nine in ten.
    """

    threshold: float
    false_per_day: float
    found: float
    delay_p50_s: float
    delay_p90_s: float


@dataclass(frozen=True, slots=True)
class ScoreLaw:
    """What a label's score is like, and what follows from that.

    Attributes:
        mean: in normal life; every camera's baseline begins there.
        spread: standard deviation about a camera's baseline.
        rise: by how much a risk raises it.
        points: by rising threshold.
        own_baseline: whether the baseline follows the camera; otherwise it stays at `mean`.
        direction: (n,) on which a release is projected, so that the noise of its score is 1; empty: the score is of
            something else.
        shortest: releases that an event's evidence is summed over at least; 0: all of them, and of two risks the one
            with more evidence is the likelier, as in tables that were made before this was there.
    """

    mean: float
    spread: float
    rise: float
    points: tuple[OperatingPoint, ...] = ()
    own_baseline: bool = True
    direction: tuple[float, ...] = ()
    shortest: int = 0

    def excess(self, score: Floats | float, baseline: Floats | float) -> Any:
        """Return by how much one score is above the baseline.

        It counts as no farther away than a risk's and some spreads: no release decides alone.
        """
        reach = self.rise + _OUTLIER * self.spread
        return np.clip(score - baseline, -reach, reach)

    def increment(self, score: Floats | float, baseline: Floats | float) -> Any:
        """Return the nats by which one score speaks for a risk."""
        return self.rise / self.spread**2 * (self.excess(score, baseline) - self.rise / 2.0)

    def event(self, scores: Floats, baseline: float, there: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Return the evidence of an event in nats, and its claim: of two risks the one with the larger is the likelier.

        Both are largest sums over its newest releases, `shortest` of them or more.

        Args:
            scores: of its releases (R,), the newest first.
            baseline: of the camera.
            there: bool (R,); what is absent counts nothing.
        """
        evidence = self._newest(np.where(there, self.increment(scores, baseline), 0.0))
        if not self.shortest:
            return evidence, evidence
        return evidence, self._newest(np.where(there, self.excess(scores, baseline), 0.0))

    def _newest(self, values: Floats) -> float:
        return float(np.cumsum(values)[(self.shortest or len(values)) - 1 :].max())

    def drift(self, score: Floats | float, baseline: Floats | float) -> Any:
        """Return by how much one fresh release moves the baseline."""
        reach = _OUTLIER * self.spread if self.own_baseline else 0.0
        return np.clip(score - baseline, -reach, reach) / MEMORY

    def at_most(self, false_per_day: float) -> OperatingPoint | None:
        """Return the lowest threshold that keeps a budget; None where the table has none."""
        kept = [point for point in self.points if point.false_per_day <= false_per_day]
        return kept[0] if kept else None

    @property
    def least(self) -> float:
        """The smallest budget that the table can support, in false alerts a day."""
        return min((point.false_per_day for point in self.points), default=math.inf)


class EventTest:
    """The evidence of an event for one label, before one camera.

    Attributes:
        threshold: from which on an alert is raised.
        evidence: of the newest event, in nats; below zero where it speaks against the risk.
        claim: of two risks the one with the larger is the likelier.
        baseline: the camera's own mean score.
    """

    def __init__(self, law: ScoreLaw, releases: int, threshold: float) -> None:
        """Begin without evidence.

        Args:
            law: of the score of a release.
            releases: of an event, R.
            threshold: from which on an alert is raised.
        """
        self._law, self._releases, self.threshold = law, releases, threshold
        self._last: Moment | None = None
        self._there = 0
        self.evidence, self.claim, self.baseline = 0.0, 0.0, law.mean

    def read(self, at: Moment) -> float:
        """Take the next event by its z and return the evidence. Raises ValueError where it brings no z."""
        if at.z is None or at.z.shape != (self._releases, len(self._law.direction)):
            shape = None if at.z is None else at.z.shape
            raise ValueError(f"z is {shape}: give ({self._releases}, {len(self._law.direction)})")
        return self.step((at.z @ np.asarray(self._law.direction)).tolist(), at)

    def step(self, scores: Sequence[float], at: Moment) -> float:
        """Take the scores (R,) of the next event's releases, row k that of `slot` - k, and return the evidence.

        Releases that are absent, and scores that are no number, count nothing. An event that repeats, or comes from
        before, changes nothing.
        """
        last = self._last if self._last is not None and self._last.boot_id == at.boot_id else None
        if last is not None and at.slot <= last.slot:
            return self.evidence
        self._last = at
        there = [(age, each) for age, each in enumerate(scores) if at.present >> age & 1 and math.isfinite(each)]
        row, present = np.zeros(self._releases), np.zeros(self._releases, bool)
        for age, each in there:
            row[age], present[age] = each, True
        self.evidence, self.claim = self._law.event(row, self.baseline, present)
        self._there = len(there)
        fresh = self._releases if last is None else at.slot - last.slot
        for _, each in reversed([pair for pair in there if pair[0] < fresh]):  # the oldest first
            self.baseline += float(self._law.drift(each, self.baseline))
        return self.evidence

    @property
    def raises(self) -> bool:
        """Whether the newest event raises an alert."""
        return self.evidence >= self.threshold

    @property
    def clears(self) -> bool:
        """Whether the newest event clears one: it speaks against the risk, and holds enough to say so."""
        return self.evidence <= 0.0 and self._there >= LEAST_PRESENT * self._releases


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
        gained = float(self._law.increment(score, self._law.mean)) * fresh / self._releases
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

    def __init__(self, low: SequentialTest, arming: float, slots: int, releases: int) -> None:
        """Begin unarmed.

        Args:
            low: evidence that somebody is low.
            arming: evidence of a fall from which on low evidence counts.
            slots: for so long it must have stayed above zero.
            releases: of an event, R; within two events of a fall low evidence must have begun.
        """
        self._low, self._arming, self._slots, self._grace = low, arming, slots, _GAP * releases
        self._boot_id = -1
        self._armed: int | None = None  # slot of the newest evidence of a fall
        self._since: int | None = None  # slot since which low evidence is above zero

    def step(self, fall: float, low: float, at: Moment) -> bool:
        """Take the evidence of a fall and the score of "low"; return whether somebody lies for long."""
        if at.boot_id != self._boot_id:
            self._boot_id = at.boot_id
            self.pause()
        if fall >= self._arming:
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


@dataclass(frozen=True, slots=True)
class AlertCalibration:
    """The tables of a checkpoint.

    Attributes:
        checkpoint: hash of the weights.
        sigma: of the noise, in lattice units, as text.
        made_of: of what, in words.
        hours: of normal life.
        laws: label -> law.
    """

    checkpoint: str
    sigma: str
    made_of: str
    hours: float
    laws: Mapping[str, ScoreLaw]

    def save(self, folder: Path | str) -> Path:
        """Write alert_calibration.json beside the weights; it is no part of their hash."""
        document = {**asdict(self), "laws": {label: _written(law) for label, law in self.laws.items()}}
        path = Path(folder) / FILE
        write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls, folder: Path | str, manifest: EngineManifest) -> AlertCalibration | None:
        """Read the tables of the checkpoint that `manifest` names; None where there is no file.

        Raises:
            CheckpointError: the file is damaged, or of other weights, noise or codes.
        """
        made, path = cls.read(folder), Path(folder) / FILE
        if made is None:
            return None
        cure, risks = f"run: python -m calibration.alerts --checkpoint {folder}", set(manifest.labels[1:])
        wanted = manifest.hashes["checkpoint"]
        if base_hash(folder) == wanted:
            wanted = checkpoint_hash(folder)  # quantised weights have laws of their own
        if made.checkpoint != wanted:
            raise CheckpointError(f"{path}: made for weights {made.checkpoint[:12]}..., these are others; {cure}")
        if made.sigma != str(manifest.sigma):
            raise CheckpointError(f"{path}: made for sigma {made.sigma}, the engine has {manifest.sigma}; {cure}")
        for label, law in ((label, law) for label, law in made.laws.items() if label in risks):
            size, releases = len(law.direction), manifest.event_releases
            if size != manifest.n:
                raise CheckpointError(f"{path}: {label} has a direction of {size}, codes have {manifest.n}; {cure}")
            if law.shortest > releases:
                raise CheckpointError(f"{path}: {label} sums {law.shortest} of the {releases} of an event; {cure}")
        return made

    @classmethod
    def read(cls, folder: Path | str) -> AlertCalibration | None:
        """Read the file, whatever weights it is of; None where there is none. Raises CheckpointError where damaged."""
        path = Path(folder) / FILE
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
            laws = {str(label): _law(row) for label, row in found["laws"].items()}
            made = cls(
                str(found["checkpoint"]), str(found["sigma"]), str(found["made_of"]), float(found["hours"]), laws
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
            cure = f"run: python -m calibration.alerts --checkpoint {folder}"
            raise CheckpointError(f"{path}: unreadable ({error!r}); {cure}") from error
        return made


def _written(law: ScoreLaw) -> dict[str, Any]:
    rows = [[_short(value) for value in point] for point in law.points]
    numbers = {name: _short(getattr(law, name)) for name in ("mean", "spread", "rise")}
    direction = [_short(value) for value in law.direction]
    kept = {"own_baseline": law.own_baseline, "shortest": law.shortest}
    return {**numbers, **kept, "direction": direction, "points": rows}


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _law(row: Mapping[str, Any]) -> ScoreLaw:
    points = [
        OperatingPoint(*(math.nan if value is None else float(value) for value in point)) for point in row["points"]
    ]
    mean, spread, rise = (float(row[name]) for name in ("mean", "spread", "rise"))
    direction = tuple(float(value) for value in row["direction"])
    law = ScoreLaw(mean, spread, rise, tuple(points), bool(row["own_baseline"]), direction, int(row.get("shortest", 0)))
    if law.shortest < 0:
        raise ValueError("an event cannot be summed over fewer than no releases")
    if not all(map(math.isfinite, direction)):
        raise ValueError("a direction has no number in it")
    steps = [point.threshold for point in points]
    if not (math.isfinite(law.mean) and 0 < law.spread < math.inf and 0 < law.rise < math.inf):
        raise ValueError("mean, spread or rise cannot be")
    if not points or steps != sorted(steps) or not all(0 < step < math.inf for step in steps):
        raise ValueError("thresholds are missing or do not rise")
    if not all(0 <= point.false_per_day < math.inf and 0 <= point.found <= 1 for point in points):
        raise ValueError("a rate or a share cannot be")
    return law
