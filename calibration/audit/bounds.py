"""What the certificate allows each kind of attack to reach, computed from S alone; nothing is fitted.

    S of what the attacker read --> chance to name, AUC, chance to tell a pair, change of any score

`wire.privacy.certificate` bounds any guess of a given prior chance; the other bounds here follow from the same S.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from wire.privacy.certificate import guess_bound

__all__ = ["auc_bound", "dependence_bound", "naming_bound", "pair_bound", "rounding_slack"]

_NORMAL = NormalDist()


def naming_bound(shift: float, among: int) -> float:
    """Return the largest chance to name one of `among` equally likely people from releases of total shift `shift`."""
    return guess_bound(shift, 1.0 / among)


def auc_bound(shift: float, slack: float) -> float:
    """Return the largest AUC for any attribute: Phi(sqrt(2) S), plus twice the slack.

    Codes lie within 2 C of each other, so by Neyman and Pearson no test of two scenes beats the ROC of two Gaussians
    2 S apart. That ROC is concave, so neither does a test of two mixtures of scenes. The area under it is
    Phi(2 S / sqrt(2)) (Dong, Roth and Su, "Gaussian Differential Privacy", 2022, for trade-off functions).

    Args:
        shift: S of everything that the attacker read.
        slack: from `rounding_slack`.
    """
    return min(1.0, _NORMAL.cdf(math.sqrt(2.0) * shift) + 2.0 * slack)


def pair_bound(shift: float, slack: float) -> float:
    """Return the largest chance to tell which of two equally likely scenes was released: Phi(S), see `auc_bound`."""
    return min(1.0, guess_bound(shift, 0.5), _NORMAL.cdf(shift) + slack)


def rounding_slack(sigma: float, coordinates: int) -> float:
    """Return a bound on the total variation between discrete and rounded Gaussian noise on so many coordinates.

    A code is made of integers, so rounding a Gaussian that was added to it is processing after a Gaussian mechanism:
    what is proved of that holds for our noise, up to this slack. The sum over 14 sigmas is exact; less than 1e-40 lies
    beyond.
    """
    support = range(-int(14 * sigma) - 2, int(14 * sigma) + 3)
    weights = [math.exp(-k * k / (2.0 * sigma * sigma)) for k in support]
    total, scale = math.fsum(weights), sigma * math.sqrt(2.0)
    rounded = [(math.erf((k + 0.5) / scale) - math.erf((k - 0.5) / scale)) / 2.0 for k in support]
    each = math.fsum(abs(w / total - p) for w, p in zip(weights, rounded, strict=True)) / 2.0
    return coordinates * each


def dependence_bound(shift: float) -> float:
    """Return how far the mean of any score in 0..1 of (picture, release) can lie from that of shuffled pairs.

    This is the total variation between the joint distribution and the product of its margins. The mutual information
    is at most S^2 / 2 nats, so Pinsker gives S / 2, and Bretagnolle and Huber give sqrt(1 - exp(-S^2 / 2)). Where the
    shuffled pairs leave out a share q of the product (pairs of one owner), their mean may be lower by up to q: the
    caller adds q.
    """
    return min(shift / 2.0, math.sqrt(-math.expm1(-shift * shift / 2.0)))
