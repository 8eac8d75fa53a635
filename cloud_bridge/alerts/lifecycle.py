"""Which alerts of one camera are raised. Pure: no clock, no network, no model.

probabilities of an event --rule--> which labels turn --> raised / cleared

The rule counts verdicts in a row (`CountingRule`) or weighs evidence (`budget.EvidenceRule`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cloud_bridge.alerts.budget import AlertBudget, EvidenceRule
from cloud_bridge.alerts.rules import AlertRule
from familial.evaluate.lying import LYING_STILL
from familial.evaluate.sequential import Moment

__all__ = [
    "BLIND",
    "BRIDGE_LOST",
    "CLOCK_SKEW",
    "CONDITIONS",
    "DEGRADED",
    "LATE",
    "NOT_WATCHING",
    "STALE",
    "UNTRUSTED_KEY",
    "AlertBook",
    "AlertChange",
    "CountingRule",
    "Together",
]

BLIND = "blind"
"""The alert for a camera that sends noise alone, because its budget is spent."""

LATE = "late"
"""The alert for a camera whose messages cannot be read as now: they are held back somewhere, or a clock is wrong."""

NOT_WATCHING = "not watching"
"""The alert for a camera whose device says that its eye does not answer: no risk would be seen."""

STALE = "stale"
"""The alert for a camera of which nothing comes: what is open was true when it was last seen."""

UNTRUSTED_KEY = "untrusted key"
"""The alert for a camera under whose name messages come that another key has signed."""

CLOCK_SKEW = "clock skew"
"""The alert for a device whose clock is ahead of ours. One that is behind looks like messages held back: LATE."""

BRIDGE_LOST = "bridge lost"
"""The alert for a camera that no bridge read for a while; it is told by the next bridge."""

DEGRADED = "degraded"
"""The alert for a camera whose events the edge's exit reads, since the cloud member's server does not answer."""

CONDITIONS = (BLIND, LATE, NOT_WATCHING, STALE, UNTRUSTED_KEY, CLOCK_SKEW, BRIDGE_LOST, DEGRADED)
"""The alerts about a camera itself; all others are risks."""

_NOWHERE = Moment(0, 0, 0)  # a rule that counts verdicts does not look where they lie


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert that is raised now (`raised` True) or cleared now.

    Attributes:
        severity: "": the label's own.
        words: What is said before the sentence of the event.
    """

    label: str
    raised: bool
    probability: float
    severity: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Together:
    """What the views of a scene say of one event.

    Attributes:
        probabilities: Label -> probability by all views; at least the camera's own, for each risk.
        open: Labels whose alert is open for another camera of the scene.
        words: Which views said what, for an alert.
    """

    probabilities: Mapping[str, float]
    open: Collection[str] = ()
    words: Mapping[str, str] = field(default_factory=dict)


class CountingRule:
    """Verdicts in a row raise and clear: values between `clear_at` and `raise_at` begin both counts anew."""

    def __init__(self, rule: AlertRule, saved: Mapping[str, int] = MappingProxyType({})) -> None:
        """Begin with what `saved` was before a restart."""
        self._rule = rule
        self._in_a_row = dict(saved)

    def turning(
        self, probabilities: Mapping[str, float], attributes: Mapping[str, float], at: Moment, raised: Collection[str]
    ) -> list[tuple[str, float]]:
        """Take the next event; returns the labels whose alert turns, with their probability."""
        risks = list(probabilities.items())[1:]
        turned = [(label, p) for label, p in risks if self._turns(label, p, label in raised)]
        return turned + ([(LYING_STILL, 0.0)] if LYING_STILL in raised else [])  # of a budget that is no more

    def _turns(self, label: str, p: float, is_raised: bool) -> bool:
        rule = self._rule
        asks = p <= rule.clear_at if is_raised else p >= rule.raise_at
        self._in_a_row[label] = self._in_a_row.get(label, 0) + 1 if asks else 0
        if self._in_a_row[label] < (rule.clear_for if is_raised else rule.raise_for):
            return False
        self._in_a_row[label] = 0
        return True

    def pause(self) -> None:
        """Begin all counts anew."""
        self._in_a_row.clear()

    @property
    def saved(self) -> dict[str, int]:
        """Label -> verdicts in a row that ask for a change."""
        return dict(self._in_a_row)


class AlertBook:
    """The raised alerts of one camera. For every label raise and clear alternate, whatever the probabilities do."""

    def __init__(
        self,
        rule: AlertRule,
        raised: list[str],
        in_a_row: Mapping[str, int] = MappingProxyType({}),
        budget: AlertBudget | None = None,
        model_id: int = -1,
    ) -> None:
        """Begin with what is raised.

        Args:
            rule: When alerts turn.
            raised: The caller's durable list of labels; it is kept current.
            in_a_row: As `in_a_row` was at a graceful end.
            budget: Of false alerts; it takes the place of the counts of `rule`.
            model_id: Of the model whose tables `budget` is made of.
        """
        self._counts, self._model_id = rule, model_id
        self._rule: EvidenceRule | CountingRule = (
            EvidenceRule(budget, in_a_row) if budget else CountingRule(rule, in_a_row)
        )
        self._raised = raised

    @property
    def raised(self) -> Sequence[str]:
        """Labels of the alerts that are raised, the oldest first."""
        return self._raised

    @property
    def risk(self) -> bool:
        """Whether a risk is raised."""
        return any(label not in CONDITIONS for label in self._raised)

    @property
    def in_a_row(self) -> dict[str, int]:
        """What the rule keeps over a restart, in whole numbers."""
        return self._rule.saved

    @property
    def weighed(self) -> dict[str, str]:
        """Of which model `in_a_row` is, for the record; empty where verdicts are counted, whatever model made them."""
        return {"weighed": f"{self._model_id:016x}"} if isinstance(self._rule, EvidenceRule) else {}

    def update(
        self,
        probabilities: Mapping[str, float],
        attributes: Mapping[str, float] = MappingProxyType({}),
        at: Moment = _NOWHERE,
        views: Together | None = None,
    ) -> list[AlertChange]:
        """Take the reading of the next event and return what changes.

        Args:
            probabilities: Label -> probability, in the model's order; the first label is no risk.
            attributes: Attribute -> share; empty where the family has none.
            at: Where the event lies in its stream.
            views: Of its scene, for a book that reads them (`scenes.SceneBook`).
        """
        return [self._turn(*turned) for turned in self._rule.turning(probabilities, attributes, at, self._raised)]

    def follow(self, model_id: int, budget: AlertBudget | None) -> None:
        """Weigh by the tables of the model whose events come now, or count; what is raised stays raised."""
        former, self._model_id = self._model_id, model_id
        if model_id == former or (budget is None and isinstance(self._rule, CountingRule)):
            return
        self._rule = EvidenceRule(budget, {}) if budget is not None else CountingRule(self._counts)

    def pause(self) -> None:
        """Begin all counts anew: what was read is not of now, so it can neither raise nor clear."""
        self._rule.pause()

    def condition(self, label: str, holds: bool) -> list[AlertChange]:
        """Raise `label` (one of CONDITIONS) once it holds, clear it once it does not; no verdict decides it."""
        return [self._turn(label, 1.0 if holds else 0.0)] if holds != (label in self._raised) else []

    def _turn(self, label: str, p: float) -> AlertChange:
        if label in self._raised:
            self._raised.remove(label)
        else:
            self._raised.append(label)
        return AlertChange(label, label in self._raised, p)
