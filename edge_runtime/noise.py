"""The sampler of discrete Gaussian noise, the single-use draw, and the check that noise is in every release.

    os.urandom --key--> ChaCha20 --> U (128 bits a coordinate) + signs --pinned table--> NoiseDraw --once--> engine

A draw takes a fresh key and nonce from the operating system, so two draws share nothing and a forked process cannot
repeat one: there is no state to copy. The key stream is overwritten within the draw. Does not know what is encoded.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections import deque
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from wire.errors import NoiseError
from wire.noise_table import NoiseTable

from .window import Fleeting

__all__ = ["NoiseCheck", "NoiseDraw", "Sampler"]

_LANES = 16  # table rows compared in one run of memory: numpy's cost is per run
_FALSE_STOP = 40 * math.log(2)  # -ln of the chance that one check stops a device with sound noise, per release


class NoiseDraw(Fleeting):
    """Noise for one release, int32 (1, K, d). Taken once, by the engine or by `alone`, and overwritten after use."""
    __slots__ = ("_taken",)

    def __init__(self, noise: npt.NDArray[np.int32]) -> None:
        super().__init__(noise)
        self._taken = False

    def take(self) -> npt.NDArray[np.int32]:
        """The noise, int32 (1, K, d), the first time. Raises NoiseError from then on."""
        if self._taken:
            raise NoiseError("a noise draw was used twice; draw once for every release")
        self._taken = True
        return self._array

    __enter__ = take

    def alone(self) -> npt.NDArray[np.int16]:
        """A release of noise alone, int16 (n,): what fills a slot of which nothing may be told. Uses the draw up."""
        with self as noise:
            return np.clip(noise, -32768, 32767).astype(np.int16).reshape(-1)

    def wipe(self) -> None:
        """Overwrite the noise; the draw is used up."""
        self._taken = True
        super().wipe()


class Sampler:
    """Draws for codes of shape (tokens, width), by the inverse of the pinned table. For one thread.

    With U uniform on 128 bits the magnitude is the number of table entries <= U. The first 64 bits of U are compared
    with every distinct high word, whatever U is (no branch and no address depends on it); a second word decides where
    the first one ties, about once in 2^49 draws. Raises NoiseError for a table that is not the one of its sigma.
    """
    def __init__(self, table: NoiseTable, tokens: int, width: int) -> None:
        _check_table(table)
        self.sigma, self._shape, self._n = table.sigma, (1, tokens, width), tokens * width
        self._columns = -(-self._n // 8) * 8
        repeats = np.flatnonzero(table.high[1:] == table.high[:-1])
        rows = int(repeats[0]) if len(repeats) else len(table.high) - 1
        self._limit = table.high[rows]  # from here on several entries share a high word: the second word decides
        lanes = np.full(-(-rows // _LANES) * _LANES, self._limit, np.uint64)
        lanes[:rows] = table.high[:rows]
        self._high = np.repeat(lanes, self._columns).reshape(-1, _LANES * self._columns)
        self._below, self._tied = np.empty(self._high.shape, np.bool_), np.empty(self._high.shape, np.bool_)
        self._chunks = np.arange(0, len(lanes), 255)  # 255 rows fit a byte-wide counter
        self._entries = [int(high) << 64 | int(low) for high, low in zip(table.high, table.low, strict=True)]
        self._zeros = bytes(self._columns * 16 + self._columns // 8)
        self._stream = bytearray(len(self._zeros) + 63)

    def draw(self) -> NoiseDraw:
        """A fresh draw: new key, new nonce, buffers overwritten afterwards."""
        secret = os.urandom(48)
        cipher = Cipher(algorithms.ChaCha20(secret[:32], secret[32:]), mode=None).encryptor()
        cipher.update_into(self._zeros, self._stream)
        noise = self._from_bytes(self._stream)
        self._stream[:] = bytes(len(self._stream))
        return NoiseDraw(noise.reshape(self._shape))

    def _from_bytes(self, stream: bytes | bytearray) -> npt.NDArray[np.int32]:
        """int32 (n,) of `columns` high words, as many low words, and a bit per column for the signs."""
        columns = self._columns
        high = np.frombuffer(stream, np.uint64, columns)
        run = np.tile(high, _LANES)
        np.less_equal(self._high, run, out=self._below)
        np.equal(self._high, run, out=self._tied)
        packed = np.add.reduceat(self._below.view(np.uint64).reshape(-1, columns // 8), self._chunks, axis=0)
        magnitude = packed.view(np.uint8).sum(axis=0, dtype=np.int32)
        if self._tied.any() or (high >= self._limit).any():
            low = np.frombuffer(stream, np.uint64, columns, columns * 8)
            whole = (int(h) << 64 | int(w) for h, w in zip(high, low, strict=True))
            magnitude[:] = [bisect_right(self._entries, u) for u in whole]
        signs = np.unpackbits(np.frombuffer(stream, np.uint8, columns // 8, columns * 16))
        noise: npt.NDArray[np.int32] = magnitude * (1 - 2 * signs.astype(np.int32))
        for used in (run, magnitude, signs, self._below, self._tied):
            used.fill(0)
        return noise[: self._n]


class NoiseCheck:
    """Stops the process when a release shows that its noise is not there: fail closed, before it is published.

    Three lower-tail tests: on |z|^2, on |z - previous z|^2 (a stuck buffer), and on the sum of |z|^2 over an event
    (noise too small). With sound noise each fails with probability at most 2^-40 a release, for ANY codes. By Chernoff:
    for a discrete Gaussian X, any real u, any t > 0, and theta(s) = sum over the integers z of exp(-z^2 / (2 s^2)),
        E exp(-t (X + u)^2) <= g(t) exp(-k u^2)
        with k = t / (1 + 2 t sigma^2) and g(t) = theta(sigma sqrt(k / t)) / theta(sigma)
    (complete the square; a shifted theta sum is never above the centred one, by Poisson summation). So u = 0 is the
    worst case, and a difference of two releases has g(t) g(k). A threshold is the largest over a grid of t.
    """
    def __init__(self, sigma: Fraction, n: int, releases: int) -> None:
        variance = float(sigma) ** 2
        rates = np.logspace(-3, 3, 121) / (2 * variance)
        again = rates / (1 + 2 * rates * variance)  # k
        log_g = [np.log([_theta(variance / (1 + 2 * t * variance)) for t in ts]) for ts in (rates, again)]
        once, twice = log_g[0] - math.log(_theta(variance)), sum(log_g) - 2 * math.log(_theta(variance))
        totals = (n * once, n * twice, n * releases * once)
        self.thresholds = [max(0.0, float(((-_FALSE_STOP - total) / rates).max())) for total in totals]
        self._squares: deque[float] = deque(maxlen=releases)
        self._previous: npt.NDArray[np.float64] | None = None

    def check(self, z: npt.NDArray[np.int16]) -> None:
        """Look at the next release, int16 (n,). Raises NoiseError; the process must stop."""
        least_square, least_change, least_event = self.thresholds
        now = z.astype(np.float64)
        square = float(now @ now)
        change = math.inf if self._previous is None else float(((now - self._previous) ** 2).sum())
        self._previous = now
        self._squares.append(square)
        if square < least_square:
            raise NoiseError(f"|z|^2 is {square:.0f}, below {least_square:.0f}: the noise did not reach the release")
        if change < least_change:
            raise NoiseError(f"|z - z'|^2 is {change:.0f}, below {least_change:.0f}: the noise buffer is stuck")
        if len(self._squares) == self._squares.maxlen and sum(self._squares) < least_event:
            raise NoiseError("an event's releases hold less noise than sigma: do not trust this sampler or engine")


def _theta(variance: float) -> float:
    reach = np.arange(1, int(14 * math.sqrt(variance)) + 12)
    return 1.0 + 2.0 * float(np.exp(-(reach**2) / (2 * variance)).sum())


def _check_table(table: NoiseTable) -> None:
    """A table whose words are not the distribution of the sigma that it names is refused, whatever its hash."""
    sigma, reach = float(table.sigma), np.arange(len(table.high))
    weights = np.exp(-(reach**2) / (2 * sigma**2)) * np.where(reach == 0, 1.0, 2.0)
    expected = np.cumsum(weights) / _theta(sigma**2)
    cut = int(table.high[-1]) != 2**64 - 1 or int(table.low[-1]) < 2**64 - 2 * len(reach)
    if cut or np.abs(table.high / 2.0**64 - expected).max() > 1e-12:
        raise NoiseError(f"noise table: not the distribution of sigma {table.sigma}; run calibration.noise")
