"""The trusted core: a record from a process that nobody trusts, and fresh noise, make what leaves the device.

    record --read_code--> a, n integers, or none            z = saturate(mu + noise),  mu = a where |a| <= C, else 0

The promise rests on these lines and on the noise that they are given, and on nothing that made the record: whatever the
record holds, mu is an integer point of the ball of radius C, so one person's whole presence shifts z by at most C.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wire.errors import PrivacyError

__all__ = ["HEADER_BYTES", "read_code", "release"]

HEADER_BYTES = 16
"""The record's slot (uint64, little-endian) and 8 bytes that are not the core's; then n coordinates, int16."""


def read_code(record: npt.NDArray[np.uint8], received: int, slot: int, n: int) -> npt.NDArray[np.int16] | None:
    """Read the n coordinates of `record`, of which `received` bytes came; None unless it has their size and `slot`."""
    if received != HEADER_BYTES + 2 * n or int(record[:8].view("<u8")[0]) != slot:
        return None
    return record[HEADER_BYTES:received].view("<i2")


def release(code: npt.NDArray[np.int16] | None, noise: npt.NDArray[np.int32], clip_norm: int) -> npt.NDArray[np.int16]:
    """Make the release of one slot, and zero `code` and `noise`.

    Args:
        code: int16 (n,), any values; None where there is none: then mu = 0.
        noise: int32 (n,), one fresh sample, used nowhere else.
        clip_norm: C, lattice units.

    Returns:
        z, int16 (n,).

    Raises:
        PrivacyError: `code` or `noise` has another type or shape, or C is not a positive integer.
    """
    a = np.zeros(noise.shape, np.int16) if code is None else code
    if noise.dtype != np.int32 or noise.ndim != 1 or a.dtype != np.int16 or a.shape != noise.shape or clip_norm < 1:
        raise PrivacyError(f"a release of {a.dtype} {a.shape}, {noise.dtype} {noise.shape}, C {clip_norm}; stop")
    mu = a.astype(np.int64)  # |a| <= 2^15, so the sum of n squares is exact for n < 2^33
    mu *= int(mu @ mu) <= clip_norm * clip_norm
    mu += noise
    z = np.minimum(np.maximum(mu, -32768), 32767).astype(np.int16)
    for used in (a, mu, noise):
        used.fill(0)
    return z
