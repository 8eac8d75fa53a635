"""What stands beside the bounds: trade-off curve, reconstruction, randomised response, Fisher leakage.

    S --> trade-off curve of any test     S, chance of a good enough rebuild without releases --> the chance with them
    S, number of labels --> the best way to tell a label          Jacobian of a code, sigma --> dFIL and what it bounds

All but the Fisher leakage hold for every network, by the same argument as the certificate's guessing bound: the joint
law of (scene, release) and the product of the scene's law with pure noise cannot be told apart better than N(0, 1) and
N(S, 1) can (Dong, Roth and Su, "Gaussian Differential Privacy", 2022). The Fisher leakage is a local measure of one
network; it is no guarantee, and is shown beside the others because readers of that literature ask for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from wire.errors import ConfigError
from wire.privacy.certificate import guess_bound

__all__ = [
    "Leakage",
    "best_response",
    "fisher_leakage",
    "kappa_of_disc",
    "kappa_of_normal",
    "kappa_of_picture",
    "rebuild_bound",
    "response_bits",
    "trade_off",
]

_NORMAL = NormalDist()


def trade_off(shift: float, false_alarm: float) -> float:
    """Return the least type II error of any test at type I error `false_alarm`: Phi(Phi^-1(1 - a) - S).

    The test asks whether releases of total shift S come of one given scene or of pure noise. Between two given scenes
    the codes are up to 2 C apart: pass 2 S.

    Args:
        shift: S, at least 0.
        false_alarm: a, in 0..1.

    Raises:
        ConfigError: an argument is out of range.
    """
    _check_shift(shift)
    if not 0.0 <= false_alarm <= 1.0:
        raise ConfigError(f"false_alarm is {false_alarm}; it is a probability, give a number from 0 to 1")
    if false_alarm in (0.0, 1.0):
        return 1.0 - false_alarm
    return _NORMAL.cdf(_NORMAL.inv_cdf(1.0 - false_alarm) - shift)


def rebuild_bound(shift: float, kappa: float) -> float:
    """Return gamma: the largest chance of a rebuild within eta of the truth, after releases of total shift S.

    `kappa` is the same chance without any release, of the best constant guess: sup over z0 of P(loss(Z, z0) <= eta)
    under the stated prior of Z. "The rebuild is within eta" is a test between (scene, release) and (scene, pure noise).
    Under the second it is true with at most kappa, since the noise does not depend on the scene; so under the first
    with at most Phi(Phi^-1(kappa) + S). Definition: Balle, Cherubin and Hayes, "Reconstructing Training Data with
    Informed Adversaries", 2022; this form for Gaussian noise: Hayes, Mahloujifar and Balle, "Bounding Training Data
    Reconstruction in DP-SGD", 2023.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not 0.0 < kappa < 1.0:
        raise ConfigError(f"kappa is {kappa}; it must lie between 0 and 1, such as 0.04")
    return guess_bound(shift, kappa)


def kappa_of_disc(radius: float, area: float) -> float:
    """Return kappa for a place on a floor of `area` where every point is equally likely, found within `radius`."""
    if not 0.0 < math.pi * radius * radius < area:
        raise ConfigError(f"radius {radius} and area {area}: the disc must have an area, and less than the floor")
    return math.pi * radius * radius / area


def kappa_of_normal(spread: float, eta: float) -> float:
    """Return kappa for a normal quantity of standard deviation `spread`, told within +- `eta`: 2 Phi(eta / spread) - 1.

    The best constant guess is the mean, where the density is largest.
    """
    if not (spread > 0 and eta > 0):
        raise ConfigError(f"spread is {spread}, eta is {eta}; both must be positive")
    return math.erf(eta / spread / math.sqrt(2.0))


def kappa_of_picture(pixels: int, spread: float, eta: float) -> float:
    """Return kappa for a picture of independent normal grey levels: P(chi-square of `pixels` <= that (eta / spread)^2).

    Args:
        pixels: how many; real pictures have neighbours that depend on each other, so count blocks that do not.
        spread: standard deviation of each about its best guess, in grey levels.
        eta: root mean square error that counts as a rebuild, in grey levels.
    """
    if pixels < 1 or not (spread > 0 and eta > 0):
        raise ConfigError(f"pixels is {pixels}, spread {spread}, eta {eta}; all must be positive")
    half, y = pixels / 2.0, pixels * (eta / spread) ** 2 / 2.0
    term, total, step = 1.0, 1.0, 0
    while term > 1e-17 * total:  # the series of the incomplete gamma function, all of its terms positive
        step += 1
        term *= y / (half + step)
        total += term
    return min(1.0, math.exp(half * math.log(y) - y - math.lgamma(half + 1.0)) * total)


# --- a label alone ----------------------------------------------------------------------------------------------------


def best_response(shift: float, labels: int) -> float:
    """Return how often randomised response may say the true one of `labels` labels within S: Phi(Phi^-1(1 / k) + S).

    It says the true label with p, each other one with (1 - p) / (k - 1). Held against a label drawn evenly, its
    trade-off curve is two straight lines that meet at (1 / k, 1 - p). The curve of S is convex, so lines between points
    of it lie above it: the response is within S as soon as that corner is. No mechanism within S names one of k equally
    likely labels more often, since the same number is the bound on any guess of prior 1 / k.

    Raises:
        ConfigError: an argument is out of range.
    """
    if labels < 2:
        raise ConfigError(f"labels is {labels}; a choice has at least 2")
    return rebuild_bound(shift, 1.0 / labels)


def response_bits(right: float, labels: int) -> float:
    """Return the mutual information in bits of randomised response with equally likely labels."""
    wrong = (1.0 - right) / (labels - 1)
    entropy = -sum(p * math.log2(p) for p in (right, *[wrong] * (labels - 1)) if p > 0.0)
    return math.log2(labels) - entropy


# --- Fisher information -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leakage:
    """Fisher information of one release about the pixels of its window.

    Attributes:
        dfil: trace of the Fisher information over the number of pixels.
        error: 1 / dfil: mean squared error of a pixel, in grey levels squared, of any unbiased rebuild, at least.
        clearest: standard deviation in grey levels, over the whole pattern, with which an unbiased reader sees the one
            pattern of pixels that the code tells best; a pattern has length 1 over all pixels.
        directions: how many patterns the code tells at all (rank of the Jacobian).
    """

    dfil: float
    error: float
    clearest: float
    directions: int


def fisher_leakage(jacobian: npt.NDArray[np.float64], sigma: float) -> Leakage:
    """Return the leakage of a code with Gaussian noise: information J^T J / sigma^2.

    Source: Maeng, Guo, Kariyappa and Suh, "Bounding the Invertibility of Privacy-preserving Instance Encoding using
    Fisher Information", 2023 (dFIL; by Cramer and Rao an unbiased rebuild has a mean squared error of at least
    1 / dFIL).

    Args:
        jacobian: float (n, pixels), of the code before rounding.
        sigma: of the noise.
    """
    if not sigma > 0:
        raise ConfigError(f"sigma is {sigma}; without noise there is no bound, give a positive number")
    spectrum = np.linalg.eigvalsh(jacobian @ jacobian.T) / sigma**2  # (n,), those of J^T J that are not 0
    largest, trace = float(spectrum[-1]), float(np.maximum(spectrum, 0.0).sum())
    if largest <= 0.0:
        return Leakage(0.0, math.inf, math.inf, 0)
    dfil = trace / jacobian.shape[1]
    return Leakage(dfil, 1.0 / dfil, largest**-0.5, int((spectrum > 1e-6 * largest).sum()))


def _check_shift(shift: float) -> None:
    if not (math.isfinite(shift) and shift >= 0.0):
        raise ConfigError(f"S is {shift}; it must be a number of at least 0")
