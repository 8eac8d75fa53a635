"""The sampler of rounded Gaussian noise, and the single-use noise sample.

    getrandom(2) --> U (128 bits a coordinate) and a sign --pinned table--> NoiseSample --once--> engine

The bits are those of the kernel's ChaCha20 generator, which forgets its key at every call. This process holds no key
and no state of it, so no copy, fork or restart can repeat a sample. The bits are overwritten before `draw` returns.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import secrets
from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from edge_runtime.fleeting import Fleeting
from wire.errors import NoiseError
from wire.privacy.noise_table import NoiseTable

__all__ = ["NoiseSample", "Sampler"]

_getrandom = ctypes.CDLL(None, use_errno=True).getrandom
_FRACTION, _ONE, _NOUGHT = np.array(2**52 - 1, np.uint64), np.array(1023 << 52, np.uint64), np.array(0.0)


class NoiseSample(Fleeting):
    """Noise for one release, int32 (n,). Used once, by the engine or by `alone`, and overwritten after use."""

    def __init__(self, noise: npt.NDArray[np.int32]) -> None:
        self._array, self._owner = noise, os.getpid()

    def take(self) -> npt.NDArray[np.int32]:
        """The noise, int32 (n,); NoiseError the second time, or in another process than that which drew it."""
        if self._owner != os.getpid():
            raise NoiseError("a noise sample was used twice, or by a forked process; draw one for every release")
        self._owner = 0
        return self._array

    __enter__ = take

    def alone(self) -> npt.NDArray[np.int16]:
        """A release of noise alone, int16 (n,), for a slot about which nothing may be revealed. Uses the sample up."""
        with self as noise:
            return np.clip(noise, -32768, 32767).astype(np.int16)

    def wipe(self) -> None:
        """Overwrite the noise; the sample is used up."""
        self._owner = 0
        super().wipe()


class Sampler(Fleeting):
    """Draws noise samples by inversion of the pinned table. For one thread.

    With U uniform on 128 bits, the magnitude of a coordinate is the number of table entries <= U. The first 52 bits of
    U and of each entry are held as floats in [1, 2), whose sums below are exact in any order. The entries lie in
    blocks: U is compared with the first of every block, a matrix product gives from that the entries of U's own block
    minus U, and those that are not positive are counted. No branch and no address depends on U; only if an entry ties
    with U, once in 10^11 coordinates, 76 more bits decide.

    Args:
        table: Of |X| for one sigma.
        n: Coordinates of the code.

    Raises:
        NoiseError: The table is not the one of its sigma.
    """

    def __init__(self, table: NoiseTable, n: int) -> None:
        table.check()
        self.sigma, self._table, self._n = table.sigma, table, n
        first = 1.0 + (table.high >> np.uint64(12)) * 2.0**-52
        first = first[: int(np.searchsorted(first, first[-1])) + 1]  # whatever follows ties with this one
        length = min(255, math.isqrt(len(first)) + 1)  # 255 hits fit a byte-wide counter
        blocks, columns = -(-len(first) // length), -(-self._n // 8) * 8
        entries = np.full((blocks, length), 2.0)
        entries.flat[: len(first)] = first
        self._starts = np.where(np.arange(blocks) > 0, entries[:, 0], 0.0)[:, None]
        self._steps = np.zeros((length + 1, blocks + 1))  # (blocks reached, U) -> (entries - U, index)
        self._steps[:-1] = np.vstack([np.diff(entries, axis=0, prepend=0.0), np.full(length, -1.0)]).T
        self._steps[-1, 1:blocks] = length
        sizes = np.array([1, blocks + 1, length + 1, length / 8, 1 / 8]) * columns
        super().__init__(np.zeros(int(sizes.sum()), np.uint64))
        self._words, seen, gaps, hits, counts = np.split(self._array, sizes.cumsum()[:-1].astype(int))
        self._bits = (ctypes.c_char * self._words.nbytes).from_buffer(self._words.data)
        u, rows, left = seen[-columns:], *(part.view(np.float64).reshape(-1, columns) for part in (seen, gaps))
        self._found = u, rows[-1], rows[:-1], rows, left, gaps[:-columns]
        self._counted = left[:-1], hits.view(np.bool_).reshape(length, -1), hits.reshape(length, -1), counts
        self._made = left[-1], counts.view(np.uint8), self._words.view(np.float64), left[-1, : self._n]

    def draw(self) -> NoiseSample:
        """Draw a fresh noise sample. Raises NoiseError where the kernel gives no bits."""
        with self:
            while (got := _getrandom(self._bits, len(self._bits), 0)) != len(self._bits):  # a signal cuts it short
                if got < 0 and ctypes.get_errno() != errno.EINTR:
                    raise NoiseError(f"getrandom: {os.strerror(ctypes.get_errno())}; it needs Linux 3.17 or later")
            return NoiseSample(self._invert())

    def _invert(self) -> npt.NDArray[np.int32]:
        """The noise, int32 (n,), of the random words: 52 bits are U's fraction, the sign bit is the sign."""
        fraction, u, reached, rows, left, ties = self._found
        made, tally, signed, whole = self._made
        np.bitwise_and(self._words, _FRACTION, fraction)
        np.bitwise_or(fraction, _ONE, fraction)
        np.less_equal(self._starts, u, reached)
        np.dot(self._steps, rows, left)
        if np.count_nonzero(ties) == len(ties):
            under, hits, eights, counts = self._counted
            np.less_equal(under, _NOUGHT, hits)
            np.add.reduce(eights, out=counts)
            np.add(made, tally, made)
        else:
            self._settle(made)
        np.copysign(made, signed, made)
        return whole.astype(np.int32)

    def _settle(self, made: npt.NDArray[np.float64]) -> None:
        """Set the magnitudes by all 128 bits, of which the last 76 are drawn here."""
        entries, tops = self._table.entries, [int(word) % 2**52 for word in self._words]
        made[:] = [bisect_right(entries, top << 76 | secrets.randbits(76)) for top in tops]
