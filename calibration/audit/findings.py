"""What an attack found, beside what it could have found: values, intervals, and the rule that names the outcome.

    value and interval + chance, certificate, preset limit, control --status--> one row of the audit

The rule, in this order: a control that failed says nothing of the defence; a certificate of 0.99 or more leaves nothing
to test; an attack beyond its preset limit, or whose whole interval lies beyond the certificate, breaks the promise.
Every certificate here is computed from S by `wire.privacy.certificate`; nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.privacy.certificate import guess_bound

__all__ = [
    "ATTRIBUTE_LIMIT",
    "NAMING_LIMIT",
    "VACUOUS",
    "Control",
    "Finding",
    "auc_bound",
    "beyond_certificate",
    "binomial_interval",
    "dependence_bound",
    "gain_shown",
    "macro_accuracy",
    "naming_bound",
    "number",
    "pair_bound",
    "resample_auc",
    "rounding_slack",
    "why",
]

NAMING_LIMIT = 2.0
"""Preset empirical limit of naming a person or a place, in multiples of chance."""
ATTRIBUTE_LIMIT = 0.60
"""Preset empirical limit of an attribute's AUC."""
VACUOUS = 0.99
"""A certificate from here on promises nothing that could be tested."""

_NORMAL = NormalDist()
_RESAMPLES = 1000
_LEVEL = 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Control:
    """The same attack where there is something to find: its value, and what it must reach to count as an attack."""

    value: float
    needed: float
    what: str

    @property
    def succeeded(self) -> bool:
        """Whether the attack found what was put there; a value that is no number did not."""
        return self.value >= self.needed


@dataclass(frozen=True, slots=True)
class Finding:
    """One row. `attack` is the family it belongs to; `shift` is S per event, `releases` what the attacker read.

    certificate: what `value` can be at most; for metrics that are no probability (`probability` False), a number in
    the metric's own unit. beyond: whether the preset limit is exceeded, by the rule that the attack states.
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
        """`attack failed its control`, `not testable`, `broken` or `holds`."""
        if not self.control.succeeded or not math.isfinite(self.value):
            return "attack failed its control"
        if self.probability and self.certificate >= VACUOUS:
            return "not testable"
        return "broken" if self.beyond or self.interval[0] > self.certificate else "holds"

    def document(self) -> dict[str, Any]:
        """The row as JSON."""
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
            "certificate": _short(self.certificate),
            "limit": _short(self.limit),
            "beyond_limit": self.beyond,
            "control": control | {"succeeded": self.control.succeeded},
            "status": self.status,
            **self.detail,
        }


def _short(value: float) -> float | None:
    """Five significant digits; what is no number is null in JSON."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def number(value: float | None) -> str:
    """A value of a row as it is shown."""
    return "none" if value is None else f"{value:.4g}"


def beyond_certificate(row: Mapping[str, Any]) -> bool:
    """Whether a row (a `Finding.document`) is broken beyond a preset limit: noise, core or certificate is wrong."""
    return bool(row["status"] == "broken" and row["ci"][0] > row["certificate"])


def why(row: Mapping[str, Any]) -> str:
    """In words, why a row (a `Finding.document`) does not hold, and what follows; empty where it does."""
    if row["status"] == "attack failed its control":
        control = row["control"]
        if control["succeeded"]:
            return "the attack's value is no number; it says nothing, mend the attack"
        return (
            f"its control reached {number(control['value'])}, {control['needed']:g} is needed ({control['what']}): "
            "the attack would not find what is there, so it says nothing; mend the attack, or give it more clips"
        )
    if row["status"] != "broken":
        return ""
    if beyond_certificate(row):
        return (
            f"the whole interval lies beyond what is certified, {number(row['certificate'])}: noise, core or "
            "certificate is wrong, whatever the network is; do not use this engine"
        )
    return (
        f"beyond the preset limit of {number(row['limit'])}, within the certificate of {number(row['certificate'])}: "
        "the promise stands, but this network tells more than we allow; train it further, or take a stricter profile"
    )


# --- certificates -----------------------------------------------------------------------------------------------------


def naming_bound(shift: float, among: int) -> float:
    """At most this chance to name one of `among`, equally likely, from releases of total shift `shift`."""
    return guess_bound(shift, 1.0 / among)


def auc_bound(shift: float, slack: float) -> float:
    """At most this AUC for any attribute: Phi(sqrt(2) S), plus twice the `slack` of `rounding_slack`.

    Codes lie within 2 C of each other, so by Neyman and Pearson no test of two scenes beats the ROC of two Gaussians
    2 S apart; that ROC is concave, so neither does a test of two mixtures of scenes; the area under it is
    Phi(2 S / sqrt(2)) (Dong, Roth and Su, "Gaussian Differential Privacy", 2022, for trade-off functions).
    """
    return min(1.0, _NORMAL.cdf(math.sqrt(2.0) * shift) + 2.0 * slack)


def pair_bound(shift: float, slack: float) -> float:
    """At most this chance to tell which of two equally likely scenes was released: Phi(S), for the same reason."""
    return min(1.0, guess_bound(shift, 0.5), _NORMAL.cdf(shift) + slack)


def rounding_slack(sigma: float, coordinates: int) -> float:
    """At most the total variation between `coordinates` draws of the discrete Gaussian and of a rounded Gaussian.

    A code is made of integers, so rounding a Gaussian that was added to it is processing after a Gaussian mechanism:
    what is proved of that holds for our noise, up to this. Summed exactly over 14 sigmas; beyond lies less than 1e-40.
    """
    reach = range(-int(14 * sigma) - 2, int(14 * sigma) + 3)
    weights = [math.exp(-k * k / (2.0 * sigma * sigma)) for k in reach]
    total, scale = math.fsum(weights), sigma * math.sqrt(2.0)
    rounded = [(math.erf((k + 0.5) / scale) - math.erf((k - 0.5) / scale)) / 2.0 for k in reach]
    each = math.fsum(abs(w / total - p) for w, p in zip(weights, rounded, strict=True)) / 2.0
    return coordinates * each


def dependence_bound(shift: float) -> float:
    """At most so much can the mean of any score in 0..1 of (picture, release) differ from that of shuffled pairs.

    That is the total variation between the joint law and the product of its margins; the information is at most
    S^2 / 2 nats, so Pinsker gives S / 2, and Bretagnolle and Huber sqrt(1 - exp(-S^2 / 2)). Where the shuffled pairs
    leave out a share q of the product (those of one owner) their mean may be lower by q at most: add it.
    """
    return min(shift / 2.0, math.sqrt(-math.expm1(-shift * shift / 2.0)))


# --- intervals --------------------------------------------------------------------------------------------------------


def binomial_interval(hits: int, trials: int, level: float = _LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval: each end errs with probability (1 - level) / 2 at most."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if hits == 0 else _beta_quantile(tail, hits, trials - hits + 1)
    high = 1.0 if hits == trials else _beta_quantile(1.0 - tail, hits + 1, trials - hits)
    return low, high


def _beta_quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _beta_cdf(middle, a, b) < p else (low, middle)
    return (low + high) / 2.0


def _beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Lentz's method)."""
    if not 0.0 < x < 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_cdf(1.0 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(tiny, 1.0 - (a + b) * x / (a + 1.0))
    total = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            total *= c * d
        if abs(c * d - 1.0) < 1e-13:
            break
    return front * total


def macro_accuracy(
    hits: Floats, label: npt.NDArray[np.int64], unit: npt.NDArray[np.int64], seed: int, level: float = _LEVEL
) -> tuple[float, tuple[float, float]]:
    """Mean over labels of each label's share of `hits` float (E,), and its interval.

    Observations of one `unit` (a clip) hang together, so whole units are drawn anew, within each label.
    """
    rng, resamples = np.random.default_rng([seed, 0]), _RESAMPLES if level == _LEVEL else 8 * _RESAMPLES
    mean, draws = 0.0, np.zeros(resamples)
    labels = np.unique(label)
    for name in labels:
        mine = label == name
        _, of = np.unique(unit[mine], return_inverse=True)
        total, count = np.bincount(of, weights=hits[mine]), np.bincount(of)
        mean += float(total.sum() / count.sum()) / len(labels)
        drawn = rng.integers(0, len(count), (resamples, len(count)))
        draws += total[drawn].sum(axis=1) / count[drawn].sum(axis=1) / len(labels)
    return mean, _percentiles(draws, level)


def resample_auc(
    scores: Floats, label: npt.NDArray[np.bool_], unit: npt.NDArray[np.int64], part: npt.NDArray[np.int64], seed: int
) -> tuple[float, tuple[float, float]]:
    """AUC of `scores` float (E,) for `label`, pairs within one `part` only (each part was scored by its own reader),
    and its interval over `unit`s (people), drawn anew within each label."""
    wins, pairs, owners = _pair_table(scores, label, unit, part)
    rng = np.random.default_rng([seed, 1])
    counts = [rng.multinomial(size, np.full(size, 1.0 / size), _RESAMPLES).astype(float) for size in owners]
    drawn = [np.einsum("rp,pn,rn->r", counts[0], table, counts[1], optimize=True) for table in (wins, pairs)]
    return float(wins.sum() / pairs.sum()), _percentiles(drawn[0] / np.maximum(drawn[1], 1e-9))


def _pair_table(
    scores: Floats, label: npt.NDArray[np.bool_], unit: npt.NDArray[np.int64], part: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, tuple[int, int]]:
    """Won and all pairs between each unit that has the attribute and each that has not, float (P, N) each."""
    yes, no = ([(u, p) for u, p in sorted({*zip(unit[m], part[m], strict=True)})] for m in (label, ~label))
    wins, pairs = np.zeros((len(yes), len(no))), np.zeros((len(yes), len(no)))
    sorted_no = [np.sort(scores[(unit == u) & (part == p) & ~label]) for u, p in no]
    for i, (u, p) in enumerate(yes):
        mine = scores[(unit == u) & (part == p) & label]
        for j, (_, other) in enumerate(no):
            if other != p:
                continue
            below = np.searchsorted(sorted_no[j], mine, "left") + np.searchsorted(sorted_no[j], mine, "right")
            wins[i, j], pairs[i, j] = below.sum() / 2.0, len(mine) * len(sorted_no[j])
    return wins, pairs, (len(yes), len(no))


def gain_shown(gain: Floats, unit: npt.NDArray[np.int64], seed: int, tests: int) -> tuple[float, float]:
    """Interval of the mean of `gain` float (E,) over units, whose low end is above 0 by luck with probability 0.05 in
    `tests` such tests TOGETHER: an audit that asks often enough would else find something in nothing."""
    level = 1.0 - 2.0 * (1.0 - _LEVEL) / tests
    return macro_accuracy(gain, np.zeros(len(gain), np.int64), unit, seed, level)[1]


def _percentiles(draws: Floats, level: float = _LEVEL) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)
