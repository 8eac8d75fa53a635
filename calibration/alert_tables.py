"""Scores of normal life and of risks -> the law of a score and its table of thresholds.

    scores of releases of hours, by camera --evidence_of--> evidence of every event --> alerts a day, upper bound, by
        threshold
    scores of risks behind life            --the same----------------------------> share found, delay, by threshold

The rate of a threshold is the upper end of an 80 % interval: over cameras (bootstrap) or of the count (exact), the
higher one. Beyond the last threshold that was passed five times, rates fall exponentially with the slope seen before
it, which is slower than a Gaussian's tail, and for one decade at most: the table supports no smaller budget than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from familial.evaluate.lying import LyingTest, SequentialTest
from familial.evaluate.sequential import SHORTEST, Moment, OperatingPoint, ScoreLaw, Weighed
from wire.errors import DataError

__all__ = [
    "Evidence",
    "Recorded",
    "contested",
    "evidence_of",
    "fit",
    "fit_lying",
    "law_of",
    "lying_raised",
    "raised",
    "upper_rates",
]

_STEPS, _FEW_STEPS = 120, 12  # thresholds of a table; of that of lying still, which is tried one by one
_TOO_LITTLE = 1e-9  # nats: above zero, below every threshold
_FEWEST = 5  # alerts from which on a rate is extended
_DECADE = 10.0  # by how much at most
_LEVEL = 0.8
_RESAMPLES = 500
_WITHIN = 20  # releases after its onset in which a risk must raise its alert

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Scores of one label.

    Attributes:
        normal: of consecutive releases of normal life, one array (N,) a camera; of "low", of events (E,).
        risks: of each risk behind a minute of normal life, likewise, and its onset: in releases, from the first.
    """

    normal: Sequence[Floats]
    risks: Sequence[tuple[Floats, float]]


class Evidence(NamedTuple):
    """Of the whole events of one stream, as `EventTest` gives them.

    Attributes:
        nats: evidence (E,).
        claim: (E,); of two risks the one with the larger is the likelier.
    """

    nats: Floats
    claim: Floats


def evidence_of(law: ScoreLaw, scores: Floats, releases: int, noise: float = 1.0) -> Evidence:
    """Return the evidence of the N - R + 1 whole events of one stream of releases (N,).

    noise: of their level, in units of that of the law.
    """
    levels, row, found, baseline = [noise] * releases, scores.tolist(), list[Weighed](), law.mean
    for end in range(releases, len(row) + 1):
        event = row[end - releases : end]
        found.append(law.event(event[::-1], baseline, levels))
        for each in event if end == releases else event[-1:]:
            baseline += law.drift(each, baseline, noise)
    return Evidence(*np.array(found).T)


def contested(own: Evidence, rivals: Sequence[Evidence]) -> Floats:
    """Return the evidence (E,) of a risk; where another is likelier, too little to raise its alert, enough to keep it.

    Args:
        own: of the risk.
        rivals: of the others, in the same events.
    """
    most = np.max([own.claim, *(rival.claim for rival in rivals)], axis=0)
    return np.where((most > own.claim) & (own.nats > 0.0), _TOO_LITTLE, own.nats)


def raised(evidence: Floats, thresholds: Floats) -> list[list[int]]:
    """Return for each threshold (H,) at which events (E,) of one stream the bridge would raise an alert."""
    is_raised = np.zeros(len(thresholds), bool)
    found: list[list[int]] = [[] for _ in thresholds]
    for index, each in enumerate(evidence.tolist()):
        begins = ~is_raised & (each >= thresholds)
        for number in np.flatnonzero(begins):
            found[number].append(index)
        is_raised = (is_raised & (each > 0.0)) | begins
    return found


def _residuals(law: ScoreLaw, scores: Floats) -> Floats:
    """Scores (N,) less the baseline of their camera."""
    out, baseline = np.empty(len(scores)), law.mean
    for index, score in enumerate(scores.tolist()):
        out[index] = score - baseline
        baseline += law.drift(score, baseline)
    return out


def law_of(recorded: Recorded, releases: int, direction: Sequence[float] = ()) -> ScoreLaw:
    """Fit the law of a label's score, without its table.

    Args:
        recorded: the label's scores.
        releases: of an event, R.
        direction: that they were projected on.

    Raises:
        DataError: the risk does not raise the score, or there is none.
    """
    if not recorded.normal or not recorded.risks:
        raise DataError("there is no normal life, or no risk to compare it with")
    every = np.concatenate(recorded.normal)
    shortest = math.ceil(SHORTEST * releases)
    law = ScoreLaw(float(every.mean()), float(every.std()) or 1.0, 1.0, (), True, tuple(direction), shortest)
    spread = float(np.concatenate([_residuals(law, scores) for scores in recorded.normal]).std()) or 1.0
    shown = np.concatenate([_during(_residuals(law, scores), onset, releases) for scores, onset in recorded.risks])
    rise = float(shown.mean())
    if rise <= 0.0:
        raise DataError("the score of normal life is as high as that of the risk; no rule can tell them apart")
    return replace(law, spread=spread, rise=rise)


def _during(residuals: Floats, onset: float, releases: int) -> Floats:
    """Of the event that begins with the first whole release after the onset."""
    first = max(0, math.ceil(onset))
    return residuals[first : first + releases]


def fit(
    law: ScoreLaw,
    recorded: Recorded,
    releases: int,
    slot_s: float,
    rivals: Sequence[tuple[ScoreLaw, Recorded]] = (),
) -> ScoreLaw:
    """Return the law of a label's score with its table.

    Args:
        law: as `law_of` gives it.
        recorded: the label's scores.
        releases: of an event, R.
        slot_s: seconds of a slot.
        rivals: laws of the other risks, and their scores of the same streams: where one of them is likelier, it alone
            raises its alert.
    """
    normal, risks = (
        [
            contested(
                evidence_of(law, scores, releases),
                [evidence_of(other, side(those)[number], releases) for other, those in rivals],
            )
            for number, scores in enumerate(side(recorded))
        ]
        for side in (_normal, _risks)
    )
    highest = max(0.1, *(float(each.max()) for each in normal))
    thresholds = np.geomspace(highest / 100.0, 3.0 * highest, _STEPS)
    counts = np.array([[len(at) for at in raised(each, thresholds)] for each in normal])  # (cameras, H)
    rates = upper_rates(counts, np.array([len(each) for each in normal]), thresholds) * 86400.0 / slot_s
    delays = [
        _delays(evidence, onset, releases, thresholds)
        for evidence, (_, onset) in zip(risks, recorded.risks, strict=True)
    ]
    table = np.array(delays).reshape(len(risks), len(thresholds)) * slot_s
    points = (
        _point(float(threshold), float(rate), column)
        for threshold, rate, column in zip(thresholds, rates, table.T, strict=True)
        if math.isfinite(rate)
    )
    return replace(law, points=tuple(points))


def _normal(recorded: Recorded) -> Sequence[Floats]:
    return recorded.normal


def _risks(recorded: Recorded) -> Sequence[Floats]:
    return [scores for scores, _ in recorded.risks]


def _point(threshold: float, rate: float, delays: Floats) -> OperatingPoint:
    found = delays[np.isfinite(delays)]
    p50, p90 = np.percentile(found, [50, 90]) if len(found) else (math.nan, math.nan)
    return OperatingPoint(threshold, rate, len(found) / max(1, len(delays)), float(p50), float(p90))


def upper_rates(counts: Integers, events: Integers, thresholds: Floats) -> Floats:
    """Return the upper end of the alerts an event (H,), infinite beyond what the counts can be extended to.

    Args:
        counts: alerts of each camera at each threshold, int (cameras, H).
        events: of each camera (cameras,).
        thresholds: rising (H,).
    """
    from familial.evaluate.intervals import binomial_interval, quantile_interval

    total, trials = counts.sum(axis=0), int(events.sum())
    exact = np.array([binomial_interval(int(hits), trials, _LEVEL)[1] for hits in total])
    chosen = np.random.default_rng(0).integers(0, len(events), (_RESAMPLES, len(events)))
    resampled = counts[chosen].sum(axis=1) / events[chosen].sum(axis=1)[:, None]  # (resamples, H)
    rooms = np.array([quantile_interval(column, _LEVEL)[1] for column in resampled.T])
    rates = np.maximum(exact, rooms)
    rates = np.maximum.accumulate(rates[::-1])[::-1]  # a higher threshold never has more
    return _extended(rates, total, thresholds)


def _extended(rates: Floats, total: Integers, thresholds: Floats) -> Floats:
    """Rates beyond the last threshold that was passed `_FEWEST` times, by the slope before it."""
    counted = np.flatnonzero(total >= _FEWEST)
    if not len(counted):
        return rates
    last = int(counted[-1])
    seen = [index for index in counted if total[index] <= _DECADE * total[last]]
    if len(seen) < 3:
        return rates
    slope = -float(np.polyfit(thresholds[seen], np.log(total[seen]), 1)[0])
    beyond = rates[last] * np.exp(-max(0.0, slope) * (thresholds - thresholds[last]))
    beyond[beyond < rates[last] / _DECADE] = math.inf
    return np.where(np.arange(len(rates)) > last, np.where(np.isfinite(beyond), beyond, math.inf), rates)


def _delays(evidence: Floats, onset: float, releases: int, thresholds: Floats) -> list[float]:
    """Releases from the onset to the end of the event that raises the alert, infinite where none does in time."""
    out = []
    for at in raised(evidence, thresholds):
        after = [index + releases - onset for index in at if 0 <= index + releases - onset <= _WITHIN]
        out.append(after[0] if after else math.inf)
    return out


# --- lying still


def lying_raised(
    laws: tuple[ScoreLaw, ScoreLaw],
    scores: tuple[Floats, Floats],
    releases: int,
    arming: float,
    slots: int,
    noise: float = 1.0,
) -> Callable[[float], list[int]]:
    """Return a function: threshold -> events of one stream at which "lying still" would be raised.

    Args:
        laws: of a fall, and of somebody who is low.
        scores: of releases (N,) for a fall, and of events (E,) for somebody who is low.
        releases: of an event, R.
        arming: evidence of a fall from which low evidence counts.
        slots: for so long it must stay.
        noise: as in `evidence_of`.
    """
    limit = laws[0].threshold_at(arming, [noise] * releases)
    fell = (evidence_of(laws[0], scores[0], releases, noise).nats >= limit).tolist()

    def at(threshold: float) -> list[int]:
        low = SequentialTest(laws[1], releases, threshold)
        test, found, open_now = LyingTest(low, slots, releases), list[int](), False
        for index, (one, other) in enumerate(zip(fell, scores[1].tolist(), strict=True)):
            moment = Moment(1, index + releases, (1 << releases) - 1)
            test.is_raised = open_now
            lies = test.step(one, other, moment)
            if lies and not open_now:
                found.append(index)
            open_now = (open_now and not test.gone) or lies
        return found

    return at


def fit_lying(
    fall: ScoreLaw, falls: Recorded, low: Recorded, releases: int, slot_s: float, arming: float, lie_s: float
) -> ScoreLaw:
    """Fit the law of the score of "low", and the table of "lying still".

    Args:
        fall: law of a fall.
        falls: scores of falls; its risks are falls after which somebody lies for minutes.
        low: scores of "low" in the same streams.
        releases: of an event, R.
        slot_s: seconds of a slot.
        arming: evidence of a fall from which low evidence counts.
        lie_s: for so long it must stay.

    Raises:
        DataError: who lies is no lower than others.
    """
    if not low.normal or not low.risks:
        raise DataError("there is no normal life, or nobody who stays down")
    every = np.concatenate(low.normal)
    lying = np.concatenate([scores[math.ceil(onset) + 2 * releases :] for scores, onset in low.risks])
    law = ScoreLaw(
        float(every.mean()), float(every.std()) or 1.0, float(lying.mean() - every.mean()), own_baseline=False
    )
    if law.rise <= 0.0:
        raise DataError(f"the attribute low is {law.rise:.2f} higher where somebody lies; it tells nothing")
    slots = round(lie_s / slot_s)
    thresholds = np.geomspace(0.5, max(1.0, law.increment(float(lying.mean()), law.mean) * slots), _FEW_STEPS)

    def streams(pairs: Sequence[tuple[Floats, Floats]]) -> list[list[list[int]]]:
        tries = [lying_raised((fall, law), pair, releases, arming, slots) for pair in pairs]
        return [[attempt(float(threshold)) for threshold in thresholds] for attempt in tries]

    normal = streams(list(zip(falls.normal, low.normal, strict=True)))
    counts = np.array([[len(at) for at in camera] for camera in normal])
    rates = upper_rates(counts, np.array([len(scores) for scores in low.normal]), thresholds) * 86400.0 / slot_s
    found = streams([(one, other) for (one, _), (other, _) in zip(falls.risks, low.risks, strict=True)])
    delays = np.array(
        [
            [
                min((index + releases - onset for index in at if index + releases >= onset), default=math.inf)
                for at in each
            ]
            for each, (_, onset) in zip(found, falls.risks, strict=True)
        ]
    ).reshape(len(falls.risks), len(thresholds))
    points = [
        _point(float(step), float(rate), column * slot_s)
        for step, rate, column in zip(thresholds, rates, delays.T, strict=True)
        if math.isfinite(rate)
    ]
    return replace(law, points=tuple(_not_dominated(points)))


def _not_dominated(points: Sequence[OperatingPoint]) -> Iterator[OperatingPoint]:
    """Those of rising thresholds that find as many as any higher one, or more.

    Evidence of lying has a ceiling a little above its threshold. Under a low one, a single event of nobody low empties
    it, and the time on the floor begins anew: more is missed, and nothing is spared.
    """
    for number, point in enumerate(points):
        if point.found >= max(later.found for later in points[number:]):
            yield point
