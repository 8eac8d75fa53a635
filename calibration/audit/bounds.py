"""What the certificate allows each kind of attack to reach, computed from S alone; nothing is fitted.

    S of what the attacker read --> chance to name, AUC, chance to tell a pair, change of any score

A release is a rounded Gaussian about an integer code, and so processing after the plain Gaussian mechanism: what is
proved of that holds for a release as it is, without slack. `wire.privacy.certificate` bounds any guess of a given prior
chance; the other bounds here follow from the same S.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from wire.privacy.certificate import guess_bound

__all__ = ["auc_bound", "dependence_bound", "naming_bound", "pair_bound"]

_NORMAL = NormalDist()


def naming_bound(shift: float, among: int) -> float:
    """Return the largest chance to name one of `among` equally likely people from releases of total shift `shift`."""
    return guess_bound(shift, 1.0 / among)


def auc_bound(shift: float) -> float:
    """Return the largest AUC for any attribute: Phi(sqrt(2) S).

    Codes lie within 2 C of each other, so by Neyman and Pearson no test of two scenes beats the ROC of two Gaussians
    2 S apart. That ROC is concave, so neither does a test of two mixtures of scenes. The area under it is
    Phi(2 S / sqrt(2)) (Dong, Roth and Su, "Gaussian Differential Privacy", 2022, for trade-off functions).
    """
    return _NORMAL.cdf(math.sqrt(2.0) * shift)


def pair_bound(shift: float) -> float:
    """Return the largest chance to tell which of two equally likely scenes was released: Phi(S)."""
    return guess_bound(shift, 0.5)


def dependence_bound(shift: float) -> float:
    """Return how far the mean of any score in 0..1 of (picture, release) can lie from that of shuffled pairs.

    This is the total variation between the joint distribution and the product of its margins: the least of three
    bounds. The mutual information is at most S^2 / 2 nats, so Pinsker gives S / 2, and Bretagnolle and Huber give
    sqrt(1 - exp(-S^2 / 2)). And it is at most the mean, over two scenes drawn apart, of the total variation of their
    releases, 2 Phi(D / 2) - 1 at codes D sigma apart. That is concave in D^2, whose mean is twice the variance of the
    codes, at most 2 S^2; so 2 Phi(S / sqrt(2)) - 1. Where the shuffled pairs leave out a share q of the product (pairs
    of one owner), their mean may be lower by up to q: the caller adds q.
    """
    apart = math.erf(shift / 2.0)  # 2 Phi(S / sqrt(2)) - 1
    return min(shift / 2.0, math.sqrt(-math.expm1(-shift * shift / 2.0)), apart)
