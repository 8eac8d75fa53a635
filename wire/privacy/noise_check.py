"""The check that every release contains noise: the device runs it before it publishes, and stops where it fails.

release z --> |z|^2, |z - previous z|^2, |z|^2 over an event --each against a lower tail--> publish, or NoiseError
"""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from wire.errors import NoiseError
from wire.privacy.noise_table import theta

__all__ = ["NoiseCheck"]

_FALSE_STOP = 40 * math.log(2)  # -ln of the chance that one check stops a device with sound noise, per release
_WHY = ("the noise did not reach the release", "the noise buffer is stuck", "an event holds too little noise")


class NoiseCheck:
    """Raises NoiseError when a release shows that its noise is missing; the process must then stop.

    Three lower-tail tests: on |z|^2, on |z - previous z|^2 (a stuck buffer), and on the sum of |z|^2 over an event
    (noise too small). With sound noise each fails with probability at most 2^-40 a release, for ANY codes. By Chernoff:
    for a discrete Gaussian X, any real u, any t > 0, and theta(s) = sum over the integers z of exp(-z^2 / (2 s^2)),
        E exp(-t (X + u)^2) <= g(t) exp(-k u^2)
        with k = t / (1 + 2 t sigma^2) and g(t) = theta(sigma sqrt(k / t)) / theta(sigma)
    (complete the square; a shifted theta sum is never above the centred one, by Poisson summation). So u = 0 is worst,
    and a difference of two releases has g(t) g(k). A threshold is the largest over a grid of t.
    """

    def __init__(self, sigma: Fraction, n: int, releases: int) -> None:
        variance = float(sigma) ** 2
        rates = np.logspace(-3, 3, 121) / (2 * variance)
        again = rates / (1 + 2 * rates * variance)  # k
        log_g = [np.log([theta(variance / (1 + 2 * t * variance)) for t in ts]) for ts in (rates, again)]
        once, twice = log_g[0] - math.log(theta(variance)), sum(log_g) - 2 * math.log(theta(variance))
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
        for found, least, why in zip((square, change, event), self.thresholds, _WHY, strict=True):
            if found < least:
                raise NoiseError(f"{why}: {found:.0f} is below {least:.0f}; do not trust this sampler or engine")
