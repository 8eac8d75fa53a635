"""What an attack found, beside what it could have found, and the rule that names the outcome.

    value and interval + chance, certificate, preset limit, control --status--> one row of the audit

The rule, in this order:

1. If the control failed, the row says nothing about the defence.
2. If the certificate is 0.99 or more, there is nothing to test.
3. If the whole interval lies beyond the certificate, the promise is broken; else it holds.

A value beyond the preset limit, which is stricter and our own, breaks no promise: `beyond_limit` says it, whether the
certificate could be tested or not, and `BEYOND` is what tables and the page show in place of the status.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wire.privacy.certificate import round_up

__all__ = [
    "ATTRIBUTE_LIMIT",
    "BEYOND",
    "NAMING_LIMIT",
    "STATUSES",
    "VACUOUS",
    "Control",
    "Finding",
    "bound",
    "number",
    "shown",
    "why",
]

NAMING_LIMIT = 2.0
"""Preset empirical limit of naming a person or a place, in multiples of chance."""
ATTRIBUTE_LIMIT = 0.60
"""Preset empirical limit of an attribute's AUC."""
VACUOUS = 0.99
"""From this value on, a certificate excludes nothing that could be tested."""
STATUSES = ("broken", "attack failed its control", "not testable", "holds")
"""Outcomes of a row, the worst first."""

BEYOND = "beyond our own limit"
"""What is shown of a row that holds, or cannot be tested, and lies beyond the preset limit."""

_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Control:
    """The same attack where there is something to find.

    Attributes:
        value: what it reached.
        needed: what it must reach to count as an attack.
        what: the control in words, for the page.
    """

    value: float
    needed: float
    what: str

    @property
    def succeeded(self) -> bool:
        """Whether the attack found what was planted; False for a value that is not a number."""
        return self.value >= self.needed


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the audit.

    Attributes:
        attack: name of the attack it belongs to.
        name: what was attacked, in words.
        metric: what `value` counts.
        shift: S per event.
        releases: how many releases the attacker read.
        value: what the attack reached.
        interval: of the value.
        chance: what a guess without any release reaches.
        certificate: the largest value that the certificate allows; for a metric that is not a probability
            (`probability` is False), in the metric's own unit.
        limit: the preset empirical limit.
        beyond: whether the limit is exceeded, by the rule that the attack states.
        control: the same attack where there is something to find.
        probability: whether the metric is a probability or an AUC.
        detail: more keys of the JSON row.
    """

    attack: str
    name: str
    metric: str
    shift: float
    releases: int
    value: float
    interval: tuple[float, float]
    chance: float
    certificate: float
    limit: float
    beyond: bool
    control: Control
    probability: bool = True
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """One of `STATUSES`."""
        if not self.control.succeeded or not math.isfinite(self.value):
            return "attack failed its control"
        if self.probability and self.certificate >= VACUOUS:
            return "not testable"
        return "broken" if self.interval[0] > self.certificate else "holds"

    def document(self) -> dict[str, Any]:
        """Return the row as JSON, in five significant digits; the certificate is rounded up."""
        control = {"value": _short(self.control.value), "needed": self.control.needed, "what": self.control.what}
        return {
            "attack": self.attack,
            "name": self.name,
            "metric": self.metric,
            "S_event": self.shift,
            "releases": self.releases,
            "value": _short(self.value),
            "ci": [_short(end) for end in self.interval],
            "chance": _short(self.chance),
            "certificate": float(round_up(self.certificate, _DIGITS)),
            "limit": _short(self.limit),
            "beyond_limit": self.beyond,
            "control": control | {"succeeded": self.control.succeeded},
            "status": self.status,
            **self.detail,
        }


def _short(value: float) -> float | None:
    """Round to nearest; a value that is not a number is null in JSON."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def number(value: float | None) -> str:
    """Return a measured value of a row as text."""
    return "none" if value is None else f"{value:.4g}"


def bound(value: float) -> str:
    """Return the certificate of a row as text, rounded up."""
    return round_up(value, 4)


def shown(row: Mapping[str, Any]) -> str:
    """Return what is shown as the outcome of a row (a `Finding.document`): its status, or `BEYOND`."""
    return BEYOND if row["beyond_limit"] and row["status"] in ("holds", "not testable") else str(row["status"])


def why(row: Mapping[str, Any]) -> str:
    """Return in words what is wrong with a row (a `Finding.document`), and what to do; empty where nothing is."""
    if row["status"] == "attack failed its control":
        control = row["control"]
        if control["succeeded"]:
            return "the attack's value is not a number; the row says nothing, repair the attack"
        return (
            f"its control reached {number(control['value'])}, {control['needed']:g} is needed ({control['what']}): "
            "the attack would not find what is there, so it says nothing; repair the attack, or give it more clips"
        )
    if row["status"] == "broken":
        return (
            f"the whole interval lies beyond what is certified, {bound(row['certificate'])}: noise, core or "
            "certificate is wrong, whatever the network is; do not use this engine"
        )
    if shown(row) != BEYOND:
        return ""
    return (
        f"beyond our own limit of {number(row['limit'])}, within the certificate of {bound(row['certificate'])}: the "
        "promise holds, but this device reveals more than we want; train the network further, or choose a stricter "
        "profile"
    )
