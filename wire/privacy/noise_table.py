"""The noise table: the cumulative distribution of |X|, X rounded Gaussian, in 128-bit fixed point.

    X = round(g), g normal of mean 0 and deviation sigma;   entry j = floor(2^128 P(|X| <= j))
    P(|X| <= j) = P(|g| < j + 1/2) = erf((j + 1/2) / (sigma sqrt 2))

A code mu is an integer, so mu + X = round(mu + g): post-processing of the Gaussian mechanism. With U uniform on 128
bits, the magnitude is the number of entries <= U; the sign is an independent fair bit.
Built offline (`calibration.noise`, mpmath), pinned by its hash in the manifest, used by `edge_runtime.gate.sampler`.

File layout, little-endian: magic `VSNOISE2`, sigma's numerator and denominator (uint64 each), J (uint64),
then J high words and J low words (uint64). A file holds one table, or several back to back: that of the profile first,
then those of the other levels at which a release may be made.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wire.errors import NoiseError
from wire.files import write_whole

__all__ = ["NoiseTable"]

_MAGIC, _FORMER = b"VSNOISE2", b"VSNOISE1"  # the former tables are those of the discrete Gaussian
_HEADER = struct.Struct("<8sQQQ")
_MAX_ENTRIES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class NoiseTable:
    """The table of one sigma.

    Attributes:
        sigma: Noise parameter, lattice units, exact.
        high: High words of the J entries, uint64 (J,); the entries increase strictly.
        low: Low words of the entries, uint64 (J,).

    Raises:
        NoiseError: The words are not a table.
    """

    sigma: Fraction
    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]

    def __post_init__(self) -> None:
        if self.high.shape != self.low.shape or self.high.ndim != 1 or len(self.high) == 0:
            raise NoiseError(
                f"noise table: words of shapes {self.high.shape} and {self.low.shape}; run calibration.noise"
            )
        later, earlier = slice(1, None), slice(None, -1)
        higher = self.high[later] > self.high[earlier]
        tied = (self.high[later] == self.high[earlier]) & (self.low[later] > self.low[earlier])
        if not bool(np.all(higher | tied)):
            raise NoiseError(
                "noise table: the entries do not increase, so this is no distribution; run calibration.noise"
            )

    @property
    def entries(self) -> list[int]:
        """The entries as 128-bit integers."""
        return [int(high) << 64 | int(low) for high, low in zip(self.high, self.low, strict=True)]

    def check(self) -> None:
        """Raise NoiseError unless the entries are the distribution of sigma, which no hash can show."""
        halves = (np.arange(len(self.high)) + 0.5) / (float(self.sigma) * math.sqrt(2.0))
        expected = np.array([math.erf(half) for half in halves])
        cut = int(self.high[-1]) != 2**64 - 1 or int(self.low[-1]) < 2**64 - 2 * len(halves)
        if cut or np.abs(self.high / 2.0**64 - expected).max() > 1e-12:
            raise NoiseError(f"noise table: not the distribution of sigma {self.sigma}; run calibration.noise")

    def to_bytes(self) -> bytes:
        """Serialise the table: the same bytes for the same table."""
        header = _HEADER.pack(_MAGIC, self.sigma.numerator, self.sigma.denominator, len(self.high))
        return header + self.high.astype("<u8").tobytes() + self.low.astype("<u8").tobytes()

    def save(self, path: Path | str) -> None:
        """Write the table as a file of its own."""
        write_whole(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: Path | str, sha256: str | None = None) -> NoiseTable:
        """Read the first table of a file, that of the profile; as `load_all`."""
        return cls.load_all(path, sha256)[0]

    @classmethod
    def load_all(cls, path: Path | str, sha256: str | None = None) -> tuple[NoiseTable, ...]:
        """Read all tables of a file. Raises NoiseError where it is malformed, or not the file of hash `sha256`."""
        file = Path(path)
        try:
            data = file.read_bytes()
        except OSError as error:
            raise NoiseError(
                f"noise table {file}: {error.strerror}; run calibration.noise, then build_engine"
            ) from error
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise NoiseError(
                f"noise table {file}: its hash is not the pinned one; build the engine again from its checkpoint"
            )
        tables = [cls.from_bytes(data)]
        while len(data) > (read := tables[-1].size):
            data = data[read:]
            tables.append(cls.from_bytes(data))
        return tuple(tables)

    @property
    def size(self) -> int:
        """Bytes of this table in a file."""
        return _HEADER.size + 16 * len(self.high)

    @classmethod
    def from_bytes(cls, data: bytes) -> NoiseTable:
        """Read the table that `data` begins with; every length is checked before an array is made."""
        if len(data) < _HEADER.size:
            raise NoiseError(f"noise table: {len(data)} bytes are too few; run calibration.noise")
        magic, numerator, denominator, entries = _HEADER.unpack_from(data)
        if magic == _FORMER:
            raise NoiseError(
                "noise table: it is of the discrete Gaussian, this software draws the rounded one; run "
                "calibration.noise, then build the engine again: python -m export.build_engine"
            )
        if magic != _MAGIC or denominator == 0 or not 0 < entries <= _MAX_ENTRIES:
            raise NoiseError("noise table: the header is not one of ours; run calibration.noise")
        if len(data) < _HEADER.size + 16 * entries:
            raise NoiseError(
                f"noise table: {len(data)} bytes for {entries} entries; the file is cut; run calibration.noise"
            )
        words = np.frombuffer(data, "<u8", 2 * entries, _HEADER.size).astype(np.uint64)
        return cls(Fraction(numerator, denominator), words[:entries], words[entries:])
