"""The sampler of discrete Gaussian noise, the single-use draw, and the check that noise is in every release.

    os.urandom --key--> ChaCha20 --> U (128 bits a coordinate) + signs --pinned table--> NoiseDraw --once--> engine

A draw takes a fresh key and nonce from the operating system, so two draws share nothing and a forked process cannot
repeat one: there is no state to copy. The key stream is overwritten within the draw.
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

_FALSE_STOP = 40 * math.log(2)  # -ln of the chance that one check stops a device with sound noise, per release
_WHY = ("the noise did not reach the release", "the noise buffer is stuck", "an event holds too little noise")


class NoiseDraw(Fleeting):
    """Noise for one release, int32 (1, K, d). Taken once, by the engine or by `alone`, and overwritten after use."""
    _taken = False

    def take(self) -> npt.NDArray[np.int32]:
        """The noise, int32 (1, K, d), the first time; then NoiseError."""
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

    With U uniform on 128 bits the magnitude is the number of table entries <= U. The first 32 bits of U are compared
    with every distinct first word of the table, whatever U is (no branch and no address depends on it); where one ties,
    about once in 10^5 draws, the other 96 bits decide. Raises NoiseError for a table that is not the one of its sigma.
    """
    def __init__(self, table: NoiseTable, tokens: int, width: int) -> None:
        _check_table(table)
        self.sigma, self._shape, self._n = table.sigma, (1, tokens, width), tokens * width
        words = (table.high >> np.uint64(32)).astype(np.uint32)
        rows = int(np.flatnonzero(np.append(words[1:] == words[:-1], True))[0])
        self._limit = words[rows]  # from here on several entries share a first word, or there are none
        self._words = np.full(-(-rows // 8) * 8, self._limit, np.uint32)
        self._words[:rows] = words[:rows]
        self._hits = np.empty((self._n, len(self._words)), np.bool_)
        self._chunks = np.arange(0, len(self._words) // 8, 255)  # 255 hits fit a byte-wide counter
        self._entries = [int(high) << 64 | int(low) for high, low in zip(table.high, table.low, strict=True)]
        self._zeros = bytes(self._n * 16 + -(-self._n // 8))
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
        """int32 (n,) of n first words of 4 bytes, n rests of 12 bytes, and a bit for each sign, all little-endian."""
        n, hits = self._n, self._hits
        first = np.frombuffer(stream, np.uint32, n)[:, None]
        np.less_equal(self._words, first, out=hits)
        packed = np.add.reduceat(hits.view(np.uint64), self._chunks, axis=1)
        magnitude = packed.view(np.uint8).sum(axis=1, dtype=np.int32)
        np.equal(self._words, first, out=hits)
        if hits.any() or (first >= self._limit).any():
            rests = [int.from_bytes(stream[at : at + 12], "little") for at in range(4 * n, 16 * n, 12)]
            magnitude[:] = [bisect_right(self._entries, int(first[k, 0]) << 96 | rests[k]) for k in range(n)]
        signs = np.unpackbits(np.frombuffer(stream, np.uint8, -1, 16 * n), count=n)
        noise: npt.NDArray[np.int32] = magnitude * (1 - 2 * signs.astype(np.int32))
        for used in (packed, magnitude, signs, hits):
            used.fill(0)
        return noise


class NoiseCheck:
    """Stops the process when a release shows that its noise is not there: fail closed, before it is published.

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
        log_g = [np.log([_theta(variance / (1 + 2 * t * variance)) for t in ts]) for ts in (rates, again)]
        once, twice = log_g[0] - math.log(_theta(variance)), sum(log_g) - 2 * math.log(_theta(variance))
        totals = (n * once, n * twice, n * releases * once)
        self.thresholds = [max(0.0, float(((-_FALSE_STOP - total) / rates).max())) for total in totals]
        self._squares: deque[float] = deque(maxlen=releases)
        self._previous = np.full(n, np.inf)

    def check(self, z: npt.NDArray[np.int16]) -> None:
        """Look at the next release, int16 (n,). Raises NoiseError; the process must stop."""
        now = z.astype(np.float64)
        square = float(now @ now)
        step, self._previous = now - self._previous, now
        change = float(step @ step)
        self._squares.append(square)
        event = sum(self._squares) if len(self._squares) == self._squares.maxlen else math.inf
        for found, least, why in zip((square, change, event), self.thresholds, _WHY, strict=True):
            if found < least:
                raise NoiseError(f"{why}: {found:.0f} is below {least:.0f}; do not trust this sampler or engine")


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
