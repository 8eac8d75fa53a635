"""Which alerts of one camera are raised. Pure: no clock, no network, no model.

probabilities of an event --rule--> count of verdicts in a row, per label --> raised / cleared
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cloud_bridge.alerts.rules import AlertRule

__all__ = ["BLIND", "CONDITIONS", "LATE", "NOT_WATCHING", "STALE", "AlertBook", "AlertChange"]

BLIND = "blind"
"""The alert for a camera that sends noise alone, because its budget is spent."""

LATE = "late"
"""The alert for a camera whose messages cannot be read as now: they are held back somewhere, or a clock is wrong."""

NOT_WATCHING = "not watching"
"""The alert for a camera whose device says that its eye does not answer: no risk would be seen."""

STALE = "stale"
"""The alert for a camera of which nothing comes: what is open was true when it was last seen."""

CONDITIONS = (BLIND, LATE, NOT_WATCHING, STALE)
"""The alerts about a camera itself; all others are risks."""


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert that is raised now (`raised` True) or cleared now."""

    label: str
    raised: bool
    probability: float


class AlertBook:
    """The raised alerts of one camera.

    For every label raise and clear alternate, whatever the probabilities do. Values between `clear_at` and `raise_at`
    change nothing and begin both counts anew.
    """

    def __init__(self, rule: AlertRule, raised: list[str], in_a_row: Mapping[str, int] = MappingProxyType({})) -> None:
        """Begin with what is raised.

        Args:
            rule: When alerts turn.
            raised: The caller's durable list of labels; it is kept current.
            in_a_row: As `in_a_row` was at a graceful end.
        """
        self._rule = rule
        self._raised = raised
        self._in_a_row = dict(in_a_row)

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
        """Label -> verdicts in a row that ask for a change."""
        return dict(self._in_a_row)

    def update(self, probabilities: Mapping[str, float]) -> list[AlertChange]:
        """Take the probabilities of the next event and return what changes.

        Args:
            probabilities: Label -> probability, in the model's order; the first label is no risk.
        """
        risks = list(probabilities.items())[1:]
        return [change for label, p in risks for change in self._step(label, p)]

    def pause(self) -> None:
        """Begin all counts anew: what was read is not of now, so it can neither raise nor clear."""
        self._in_a_row.clear()

    def condition(self, label: str, holds: bool) -> list[AlertChange]:
        """Raise `label` (one of CONDITIONS) once it holds, clear it once it does not; no verdict decides it."""
        return self._turn(label, 1.0 if holds else 0.0) if holds != (label in self._raised) else []

    def _step(self, label: str, p: float) -> list[AlertChange]:
        rule, is_raised = self._rule, label in self._raised
        asks = p <= rule.clear_at if is_raised else p >= rule.raise_at
        self._in_a_row[label] = self._in_a_row.get(label, 0) + 1 if asks else 0
        if self._in_a_row[label] < (rule.clear_for if is_raised else rule.raise_for):
            return []
        return self._turn(label, p)

    def _turn(self, label: str, p: float) -> list[AlertChange]:
        self._in_a_row[label] = 0
        if label in self._raised:
            self._raised.remove(label)
        else:
            self._raised.append(label)
        return [AlertChange(label, label in self._raised, p)]
