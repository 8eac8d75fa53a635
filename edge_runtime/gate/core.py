"""The trusted core: an untrusted code + one noise sample -> z, all that leaves.

Whatever the code is, z is the Gaussian mechanism on a point of the ball of radius C.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["release"]


def release(code: npt.NDArray[np.int16] | None, noise: npt.NDArray[np.int32], clip_norm: int) -> npt.NDArray[np.int16]:
    """Return z = saturate(mu + noise), int16 (n,); mu is `code` where it is n int16 of norm at most C, else 0."""
    mu = np.zeros(noise.shape, np.int64)
    if code is not None and code.dtype == np.int16 and code.shape == noise.shape:
        given = code.astype(np.int64)
        if int((given * given).sum()) <= clip_norm**2:
            mu = given
    z: npt.NDArray[np.int16] = np.clip(mu + noise, -32768, 32767).astype(np.int16)
    return z
