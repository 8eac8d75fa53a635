"""A budget of false alerts a day -> the threshold of each label's evidence, by the checkpoint's table.

[alerts] false_per_day, alert_calibration.json --AlertBudget.of--> label -> OperatingPoint, or an error with its cure
events of one camera --EvidenceRule--> which alerts turn
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloud_bridge.alerts.rules import AlertRule
from familial.evaluate.lying import ARMING_PER_DAY, LOW, LYING_STILL, LyingTest, SequentialTest, score
from familial.evaluate.sequential import AlertCalibration, EventTest, Moment, OperatingPoint, ScoreLaw
from wire.errors import ConfigError
from wire.privacy.certificate import round_up

__all__ = ["AlertBudget", "EvidenceRule"]

_LOG = logging.getLogger("cloud_bridge")
_SCALE = 1000  # evidence is kept over a restart in thousandths of a nat
_FALL = "fall"


@dataclass(frozen=True, slots=True)
class AlertBudget:
    """What a budget came to.

    Attributes:
        laws: label -> law of its score.
        points: label -> where its test stands, of the labels that have a budget.
        labels: of the family, in the model's order.
        releases: of an event, R.
        slot_s: seconds of a slot.
        long_lie_s: as in `AlertRule`.
        arming: evidence of a fall from which lying counts.
    """

    laws: Mapping[str, ScoreLaw]
    points: Mapping[str, OperatingPoint]
    labels: Sequence[str]
    releases: int
    slot_s: float
    long_lie_s: float = 0.0
    arming: float = 0.0

    @classmethod
    def of(
        cls,
        rule: AlertRule,
        calibration: AlertCalibration | None,
        labels: Sequence[str],
        releases: int,
        slot_s: float,
        checkpoint: str,
    ) -> AlertBudget | None:
        """Turn the budget of `rule` into thresholds; None where it has none.

        Args:
            rule: `[alerts]`.
            calibration: of the checkpoint; None where it has none.
            labels: of the family; the first is no risk.
            releases: of an event, R.
            slot_s: seconds of a slot.
            checkpoint: its folder, for the cure.

        Raises:
            ConfigError: the table cannot support the budget, or there is none; every problem is listed.
        """
        if rule.false_per_day is None:
            return None
        cure = f"run python -m calibration.alerts --checkpoint {checkpoint}"
        if calibration is None:
            raise ConfigError(
                f"[alerts] false_per_day is {rule.false_per_day}, but {checkpoint} has no table of alerts; {cure}, "
                "or give raise_at and raise_for instead"
            )
        asked, problems = _asked(rule, labels), list[str]()
        points = dict[str, OperatingPoint]()
        for label, budget in asked.items():
            point, problem = _point(label, budget, calibration, cure)
            problems += [problem] if problem else []
            points |= {label: point} if point else {}
        fall = calibration.laws.get(_FALL)
        armed = fall.at_most(ARMING_PER_DAY) if fall else None
        if LYING_STILL in asked and (fall is None or armed is None):
            problems.append(f"long_lie_s is {rule.long_lie_s:g}, but {checkpoint} cannot tell a fall; leave it out")
        if problems:
            raise ConfigError("\n".join(f"[alerts] {problem}" for problem in problems))
        arming = armed.threshold if armed else 0.0
        return cls(calibration.laws, points, labels, releases, slot_s, rule.long_lie_s, arming)

    def told(self) -> Iterator[str]:
        """Say what the budget costs, one line for each label."""
        for label, point in self.points.items():
            delay = f"delay {point.delay_p50_s:.1f} s (p50), {point.delay_p90_s:.1f} s (p90)"
            cost = f"of the calibration's {point.found:.0%} found, {delay}" if point.found else "none found"
            rate = f"at most {round_up(point.false_per_day, 2)} false a day, evidence {point.threshold:.2f}"
            yield f"alert {label}: {rate}; {cost}"

    def warn(self) -> None:
        """Log each label whose budget leaves next to nothing found."""
        for label, point in self.points.items():
            if point.found < 0.5:
                _LOG.warning(
                    "alert %s: with this budget only %.0f %% of the calibration's are found; allow more in "
                    "[alerts] false_per_day, or use a checkpoint that tells it better",
                    label,
                    100 * point.found,
                )


def _asked(rule: AlertRule, labels: Sequence[str]) -> dict[str, float]:
    """Label -> its budget; a number is shared alike by all risks."""
    risks = [*labels[1:], *([LYING_STILL] if rule.long_lie_s else [])]
    if not isinstance(rule.false_per_day, Mapping):
        return {label: float(rule.false_per_day or 0.0) / len(risks) for label in risks}
    unknown = [label for label in rule.false_per_day if label not in risks]
    if unknown:
        hint = " (it needs long_lie_s)" if LYING_STILL in unknown else ""
        raise ConfigError(
            f"[alerts] false_per_day.{unknown[0]}: there is no such risk{hint}; there are {', '.join(risks)}"
        )
    if rule.long_lie_s and LYING_STILL not in rule.false_per_day:
        raise ConfigError(
            f'[alerts] false_per_day has no budget for "{LYING_STILL}", which long_lie_s asks for; add one'
        )
    return {label: float(value) for label, value in rule.false_per_day.items()}


def _point(label: str, budget: float, calibration: AlertCalibration, cure: str) -> tuple[OperatingPoint | None, str]:
    """The operating point of a label, or why there is none."""
    law = calibration.laws.get(label)
    if law is None and label == LYING_STILL:
        return None, f"long_lie_s: this checkpoint does not tell who lies (no attribute {LOW!r}); leave it out"
    if law is None:
        return None, f"false_per_day: the table has no {label}; {cure}"
    point = law.at_most(budget)
    if point is None:
        return None, (
            f"false_per_day for {label} is {budget:g}, but {calibration.hours:g} hours of calibration support "
            f"{round_up(law.least, 2)} at least; allow more, or {cure} --hours with more hours"
        )
    return point, ""


class EvidenceRule:
    """The tests of one camera: of each label, and of somebody who lies still. They read z, whichever exit reads.

    Of the risks only the likeliest raises its alert, the one with the largest claim: prototypes are less than a right
    angle apart, so a fight looks a little like a fall.
    """

    def __init__(self, budget: AlertBudget, saved: Mapping[str, int]) -> None:
        """Begin, or go on with what `saved` returned before a restart."""
        self._budget = budget
        self._tests = {
            label: EventTest(budget.laws[label], budget.releases, point.threshold)
            for label, point in budget.points.items()
            if label != LYING_STILL
        }
        self._rivals = {
            label: EventTest(law, budget.releases, math.inf)
            for label, law in budget.laws.items()
            if law.direction and label not in self._tests
        }
        self._lying, self._fall = self._lying_test()
        for label, test in (*self._tests.items(), *self._rivals.items()):
            test.baseline = saved.get(f"{label} baseline", round(_SCALE * test.baseline)) / _SCALE

    def _lying_test(self) -> tuple[LyingTest | None, EventTest | None]:
        """The test of lying, and that of the fall before it: its threshold is the arming one."""
        budget = self._budget
        point = budget.points.get(LYING_STILL)
        if point is None:
            return None, None
        low = SequentialTest(budget.laws[LYING_STILL], budget.releases, point.threshold)
        slots = round(budget.long_lie_s / budget.slot_s)
        fall = EventTest(budget.laws[_FALL], budget.releases, budget.arming)
        return LyingTest(low, slots, budget.releases), fall

    def turning(
        self, probabilities: Mapping[str, float], attributes: Mapping[str, float], at: Moment, raised: Collection[str]
    ) -> list[tuple[str, float]]:
        """Take the next event; returns the labels whose alert turns, with their probability."""
        found = list[tuple[str, float]]()
        tests = (*self._tests.values(), *self._rivals.values())
        for test in tests:
            test.read(at)
        most = max((test.claim for test in tests), default=0.0)
        for label, test in self._tests.items():
            turns = test.clears if label in raised else test.raises and test.claim >= most
            found += [(label, probabilities[label])] if turns else []
        dropped = [label for label in self._budget.labels if label in raised and label not in self._tests]
        found += [(label, probabilities[label]) for label in dropped]  # no budget any more: nothing would clear it
        return found + self._lies(attributes, at, LYING_STILL in raised)

    def _lies(self, attributes: Mapping[str, float], at: Moment, is_raised: bool) -> list[tuple[str, float]]:
        if self._lying is None or self._fall is None:
            return [(LYING_STILL, 0.0)] if is_raised else []
        self._lying.is_raised = is_raised
        self._fall.read(at)
        if LOW not in attributes:
            return []  # the edge's exit does not say who lies: no evidence for it, and none against
        share = attributes[LOW]
        lies = self._lying.step(self._fall.raises, score(share, 1.0 - share), at)
        turns = self._lying.gone if is_raised else lies
        return [(LYING_STILL, share)] if turns else []

    def pause(self) -> None:
        """Begin anew what is told over minutes; an event's evidence is its own."""
        if self._lying is not None:
            self._lying.pause()

    @property
    def saved(self) -> dict[str, int]:
        """The cameras' baselines, for a restart; evidence is of a moment, and begins anew."""
        tests = self._tests | self._rivals
        return {f"{label} baseline": round(_SCALE * test.baseline) for label, test in tests.items()}
