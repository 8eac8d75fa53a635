"""What releases of total shift S reveal at most: Gaussian differential privacy, every number rounded up.

    S ──► guess_bound: success of any guess     scene and releases against scene and pure noise, a shift of S
      ──► bits: mutual information              codes of squared norm S^2 sigma^2 in all
      ──► eps_at_delta, zcdp_rho                any two scenes: codes at most 2 C apart, a shift of 2 S

A release is mu + round(g) = round(mu + g) with g normal, since mu is an integer: post-processing of the Gaussian
mechanism, whose trade-off curve is that of two normal distributions of deviation 1, S apart (Dong, Roth and Su,
"Gaussian Differential Privacy", 2022). docs/proofs.md derives what is here.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal
from statistics import NormalDist

from wire.errors import CertificateError

__all__ = ["bits", "delta_at_eps", "eps_at_delta", "guess_bound", "round_up", "zcdp_rho"]

_QUANTILE = NormalDist().inv_cdf
_SLACK = 1.0 + 1e-10  # more than the relative error that floating point makes below, at any S of a certificate
_FAR = 25.0  # from here on the asymptotic series of Mills' ratio is exact to 1e-9


def guess_bound(shift: float, prior: float) -> float:
    """The largest success probability of any guess whose prior success is `prior`, after releases of total shift S.

    Phi(Phi^-1(prior) + S): "the guess is right" is a test of scene and releases against scene and pure noise, and under
    pure noise it is right with at most `prior`. The same formula at 2 S says how often a test finds the one of two
    scenes that it looks for, if it finds it with chance `prior` where the other was.

    Args:
        shift: S of the releases, at least 0.
        prior: In (0, 1): 1/M to name one of M, k/M for rank k, the majority's share for an attribute.

    Raises:
        CertificateError: An argument is out of range.
    """
    if not 0.0 < prior < 1.0:
        raise CertificateError(f"prior is {prior}; it must lie between 0 and 1: 1/M to name one of M people")
    _check_shift(shift)
    if shift == 0.0:
        return prior
    return max(prior, min(1.0, _normal(_QUANTILE(prior) + shift) * _SLACK))


def bits(shift: float, coordinates: float = math.inf) -> float:
    """Mutual information in bits between the scene and releases of total shift S: at most (n/2) log2(1 + S^2 / n).

    The capacity of n Gaussian channels that share the power S^2. It is never above S^2 / (2 ln 2), its limit for n
    without end, which a caller who knows no n gets.

    Args:
        shift: S of the releases.
        coordinates: n, of all these releases together.
    """
    _check_shift(shift)
    square = shift * shift
    nats = square / 2.0 if math.isinf(coordinates) else coordinates / 2.0 * math.log1p(square / coordinates)
    return nats / math.log(2.0)


def zcdp_rho(shift: float) -> float:
    """zCDP between any two scenes: codes are at most 2 C apart, so rho = (2 S)^2 / 2 = 2 S^2."""
    return 2.0 * shift * shift


def delta_at_eps(shift: float, eps: float) -> float:
    """The delta that goes with `eps` between any two scenes: Phi(S - eps / 2S) - e^eps Phi(-S - eps / 2S).

    The second term is phi(S - eps / 2S) times Mills' ratio Phi(-x) / phi(x) at x = S + eps / 2S, in which no large
    number is left.
    """
    _check_shift(shift)
    if shift == 0.0:
        return 0.0
    near, far = shift - eps / (2.0 * shift), shift + eps / (2.0 * shift)
    density = math.exp(-near * near / 2.0) / math.sqrt(2.0 * math.pi)
    return min(1.0, max(0.0, _normal(near) * _SLACK - density * _mills(far)))


def eps_at_delta(shift: float, delta: float) -> float:
    """The least epsilon that goes with `delta` between any two scenes, by bisection; its upper end is returned.

    Raises:
        CertificateError: An argument is out of range.
    """
    if not 0.0 < delta < 1.0:
        raise CertificateError(f"delta is {delta}; it must lie between 0 and 1, such as 1e-6")
    if delta_at_eps(shift, 0.0) <= delta:
        return 0.0
    rho = zcdp_rho(shift)
    low, high = 0.0, rho + 2.0 * math.sqrt(rho * math.log(1.0 / delta))  # by zCDP (Bun and Steinke 2016, Prop. 1.3)
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if delta_at_eps(shift, middle) <= delta else (middle, high)
    return high


def round_up(value: float, digits: int = 3) -> str:
    """Return a bound as text in `digits` significant digits, never below the value; an exact value gets no zeros.

    Every bound that people read is written with it: 6.43581 becomes "6.44", 0.464051 "0.465", 3.0 "3". A probability
    stays a probability, since nothing up to 1 is rounded past 1.
    """
    if not math.isfinite(value):
        raise CertificateError(f"a bound is {value}; only a finite one can be written")
    exact = Decimal(repr(float(value)))  # as the number is written: 0.198 stays 0.198, whatever its last binary digits
    rounded = Context(prec=digits, rounding=ROUND_CEILING).plus(exact)
    if rounded == exact:
        return f"{rounded.normalize():f}"
    return f"{rounded.quantize(Decimal(1).scaleb(rounded.adjusted() - digits + 1)):f}"


def _check_shift(shift: float) -> None:
    if not (math.isfinite(shift) and shift >= 0.0):
        raise CertificateError(f"S is {shift}; it must be a number of at least 0")


def _normal(x: float) -> float:
    """Phi(x), exact to the last digits in both tails."""
    return math.erfc(-x / math.sqrt(2.0)) / 2.0


def _mills(x: float) -> float:
    """Phi(-x) / phi(x) for x > 0, from below."""
    if x < _FAR:
        return math.sqrt(math.pi / 2.0) * math.exp(x * x / 2.0) * math.erfc(x / math.sqrt(2.0)) / _SLACK
    square = 1.0 / (x * x)
    return (1.0 - square + 3.0 * square**2 - 15.0 * square**3) / x
