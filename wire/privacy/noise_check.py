"""The check that every release contains noise: the device runs it before it publishes, and stops where it fails.

release z --> |z|^2, |z - previous z|^2, |z|^2 over an event --each against a lower tail--> publish, or NoiseError
"""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from wire.errors import NoiseError

__all__ = ["NoiseCheck"]

_FALSE_STOP = 40 * math.log(2)  # -ln of the chance that one check stops a device with sound noise, per release
_WHY = ("the noise did not reach the release", "the noise buffer is stuck", "an event holds too little noise")


class NoiseCheck:
    """Raises NoiseError when a release shows that its noise is missing; the process must then stop.

    Three lower-tail tests: on |z|^2, on |z - previous z|^2 (a stuck buffer), and on the sum of |z|^2 over an event
    (noise too small). With sound noise each fails with probability at most 2^-40 a release, for ANY integer codes that
    were made without knowledge of the noise. By Chernoff, P(sum of squares < c) <= e^(t c) times the product over the
    coordinates of E exp(-t (X + u)^2), where X is the noise and u the code's integer; for any t > 0

        E exp(-t (X + u)^2) <= E exp(-t X^2):  u = 0 is worst.

    Proof. P(X = k) is symmetric in k and falls with |k|, and so does e^(-t k^2): each is a mixture of uniform
    distributions on {-a, ..., a}. The expectation at u is their convolution at u. The convolution of two such uniform
    ones at u counts the points that {-a, ..., a} and {u - b, ..., u + b} share, most at u = 0; so does the mixture.
    In z - previous z the noise is X - X', again symmetric and falling with |k| by the same argument. A threshold is the
    largest over a grid of t.
    """

    def __init__(self, sigma: Fraction, n: int, releases: int) -> None:
        rates = np.logspace(-3, 3, 121) / (2 * float(sigma) ** 2)
        once, twice = (_log_means(law, rates) for law in _laws(float(sigma)))
        totals = (n * once, n * twice, n * releases * once)
        self.thresholds = [max(0.0, float(((-_FALSE_STOP - total) / rates).max())) for total in totals]
        self._squares: deque[float] = deque(maxlen=releases)
        self._previous = np.full(n, np.inf)

    def check(self, z: npt.NDArray[np.int16]) -> None:
        """Test the next release, z int16 (n,). Raises NoiseError; the process must then stop."""
        now = z.astype(np.float64)
        square = float(now @ now)
        step, self._previous = now - self._previous, now
        change = float(step @ step)
        self._squares.append(square)
        event = sum(self._squares) if len(self._squares) == self._squares.maxlen else math.inf
        once, twice, together = self.thresholds
        if not (square >= once and change >= twice and event >= together):
            self._refuse((square, change, event))

    def _refuse(self, found: tuple[float, float, float]) -> NoReturn:
        for value, least, why in zip(found, self.thresholds, _WHY, strict=True):
            if not value >= least:
                raise NoiseError(f"{why}: {value:.0f} is below {least:.0f}; do not trust this sampler or engine")
        raise NoiseError(f"the noise is not a number: {found}; do not trust this sampler or engine")


def _laws(sigma: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """P(X = k) and P(X - X' = k) for k = 0, 1, ...; what lies beyond 9 sigma is counted at its edge."""
    last = math.ceil(9 * sigma) + 1
    inside = np.array([0.0, *(math.erf((k + 0.5) / (sigma * math.sqrt(2))) for k in range(last)), 1.0])
    half = np.diff(inside) / 2  # of |X| = 0, 1, ..., last; one sign
    half[0] *= 2
    whole = np.concatenate([half[:0:-1], half])
    power = np.abs(np.fft.rfft(whole, 2 * len(whole))) ** 2  # of the autocorrelation
    return half, np.maximum(np.fft.irfft(power)[: len(whole)], 0.0)


def _log_means(law: npt.NDArray[np.float64], rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ln E exp(-t X^2) for every t of `rates`, on the safe side by far more than floating point may lose."""
    squares, weights = np.arange(len(law)) ** 2.0, np.concatenate([law[:1], 2 * law[1:]])
    means = np.array([float(weights @ np.exp(-t * squares)) for t in rates])
    return np.asarray(np.log(means) + 1e-9)
