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
a little like a risk all day must not be one. A release of another noise level than the table's is a score of the same
mean with more or less noise, so it speaks less or more. The threshold of its event lies as many standard deviations
above nothing as the table's: noise alone then passes it as often. No clock, no network, no model here, and no torch.
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
from wire.protocol.event import level_noise

__all__ = [
    "FILE",
    "MEMORY",
    "SHORTEST",
    "AlertCalibration",
    "EventTest",
    "Moment",
    "OperatingPoint",
    "ScoreLaw",
    "Weighed",
]

FILE = "alert_calibration.json"
LEAST_PRESENT = 0.5
"""Share of its releases that an event must have to clear an alert: what is missing speaks against nothing."""
SHORTEST = 0.5
"""Share of an event's releases that evidence is summed over at least: no release decides alone."""
MEMORY = 600
"""Releases over which a camera's baseline is averaged."""

_OUTLIER = 3.0  # spreads beyond which a score counts no more
_LEAST = 1e-9  # nats: above zero

Floats = npt.NDArray[np.float64]


class Moment(NamedTuple):
    """Where an event lies in its stream.

    Attributes:
        boot_id: names the stream.
        slot: of its last release.
        present: which releases it has, as in a verdict: bit k is that of `slot` - k.
        z: float or int (R, n), row k being that of `slot` - k; None where nothing asks for it.
        weights: float (R,), what each row of `z` was multiplied by for its noise level (`wire.protocol.event`); None:
            1, all of them.
    """

    boot_id: int
    slot: int
    present: int
    z: npt.NDArray[Any] | None = None
    weights: Floats | None = None


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


class Weighed(NamedTuple):
    """What an event says of one label.

    Attributes:
        nats: evidence for the risk; below zero where it speaks against it.
        claim: of two risks the one with the larger is the likelier.
    """

    nats: float
    claim: float


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

    def variance(self, noise: float = 1.0) -> float:
        """Return the variance of one score at a level: of its noise, and of scenes, which no level changes.

        Args:
            noise: of the level, in units of that of the table.
        """
        own = self.spread * self.spread
        return own if noise == 1.0 else own + min(1.0, own) * (noise * noise - 1.0)

    def excess(self, score: float, baseline: float, noise: float = 1.0) -> float:
        """Return by how much one score is above the baseline.

        It counts as no farther away than a risk's and some spreads: no release decides alone.
        """
        reach = self.rise + _OUTLIER * math.sqrt(self.variance(noise))
        return min(max(score - baseline, -reach), reach)

    def increment(self, score: float, baseline: float, noise: float = 1.0) -> float:
        """Return the nats by which one score speaks for a risk."""
        return self.rise / self.variance(noise) * (self.excess(score, baseline, noise) - self.rise / 2.0)

    def event(self, scores: Sequence[float | None], baseline: float, noise: Sequence[float] = ()) -> Weighed:
        """Weigh an event: largest sums over its newest releases, `shortest` of them or more.

        Args:
            scores: of its releases (R,), the newest first; None where one is absent, which counts nothing.
            baseline: of the camera.
            noise: of their levels (R,), in units of that of the table; empty: 1, all of them.
        """
        shortest, own, half = self.shortest or len(scores), self.variance(), self.rise / 2.0
        nats = risen = 0.0
        evidence = claim = -math.inf
        for count, (score, level) in enumerate(zip(scores, noise or (1.0,) * len(scores), strict=True), 1):
            if score is not None:
                excess, variance = self.excess(score, baseline, level), self.variance(level)
                nats += self.rise / variance * (excess - half)
                risen += excess * own / variance
            if count >= shortest:
                evidence, claim = max(evidence, nats), max(claim, risen)
        return Weighed(evidence, claim if self.shortest else evidence)

    def threshold_at(self, threshold: float, noise: Sequence[float]) -> float:
        """Return the threshold of an event at other levels, as far out as `threshold` is at the table's, in deviations.

        The sum of an event has mean -d^2 / 2 and deviation d where there is nothing, d^2 being rise^2 / variance of all
        its releases. It is above zero: what would clear an alert raises none.

        Args:
            threshold: of the table, in nats.
            noise: as in `event`, (R,).
        """
        own = self.rise * math.sqrt(len(noise) / self.variance())
        here = self.rise * math.sqrt(sum(1.0 / self.variance(level) for level in noise))
        return max(_LEAST, here * (threshold / own + own / 2.0 - here / 2.0))

    def drift(self, score: float, baseline: float, noise: float = 1.0) -> float:
        """Return by how much one fresh release moves the baseline."""
        reach = _OUTLIER * math.sqrt(self.variance(noise)) if self.own_baseline else 0.0
        return min(max(score - baseline, -reach), reach) / MEMORY

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
        evidence: of the newest event, in nats; below zero where it speaks against the risk.
        claim: of two risks the one with the larger is the likelier.
        baseline: the camera's own mean score.
    """

    def __init__(self, law: ScoreLaw, releases: int, threshold: float) -> None:
        """Begin without evidence.

        Args:
            law: of the score of a release.
            releases: of an event, R.
            threshold: from which on an alert is raised, at the table's noise level.
        """
        self._law, self._releases, self._threshold = law, releases, threshold
        self._direction = np.asarray(law.direction)
        self._last: Moment | None = None
        self._there, self._limit = 0, threshold
        self.evidence, self.claim, self.baseline = 0.0, 0.0, law.mean

    def read(self, at: Moment) -> float:
        """Take the next event by its z and return the evidence. Raises ValueError where it brings no z."""
        if at.z is None or at.z.shape != (self._releases, len(self._direction)):
            shape = None if at.z is None else at.z.shape
            raise ValueError(f"z is {shape}: give ({self._releases}, {len(self._direction)})")
        scores = at.z @ self._direction
        if at.weights is None or (at.weights == 1.0).all():
            return self.step(scores.tolist(), at)
        return self.step((scores / at.weights).tolist(), at, level_noise(at.weights).tolist())

    def step(self, scores: Sequence[float], at: Moment, noise: Sequence[float] = ()) -> float:
        """Take the scores (R,) of the next event's releases, row k that of `slot` - k, and return the evidence.

        Releases that are absent, and scores that are no number, count nothing. An event that repeats, or comes from
        before, changes nothing.

        Args:
            scores: of the releases.
            at: where the event lies.
            noise: of their levels (R,), in units of that of the table; empty: 1, all of them.
        """
        last = self._last if self._last is not None and self._last.boot_id == at.boot_id else None
        if last is not None and at.slot <= last.slot:
            return self.evidence
        self._last = at
        kept = [each if at.present >> age & 1 and math.isfinite(each) else None for age, each in enumerate(scores)]
        self.evidence, self.claim = self._law.event(kept, self.baseline, noise)
        self._there = len(kept) - kept.count(None)
        self._limit = self._law.threshold_at(self._threshold, noise) if noise else self._threshold
        fresh = self._releases if last is None else at.slot - last.slot
        for age, each in reversed([*enumerate(kept[:fresh])]):  # the oldest first
            if each is not None:
                self.baseline += self._law.drift(each, self.baseline, noise[age] if noise else 1.0)
        return self.evidence

    @property
    def raises(self) -> bool:
        """Whether the newest event raises an alert."""
        return self.evidence >= self._limit

    @property
    def clears(self) -> bool:
        """Whether the newest event clears one: it speaks against the risk, and holds enough to say so."""
        return self.evidence <= 0.0 and self._there >= LEAST_PRESENT * self._releases


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
