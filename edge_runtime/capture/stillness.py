"""Tells pictures that a live camera took just now from old ones that are delivered again.

    small grey frame, time --keyed hash--> first seen more than STILL_S ago? --> repeated or frozen: not kept

An incident is charged for the releases that can hold its pictures, counted from when they were taken. A camera that
stalls, or a decoder that delivers a group of pictures twice, puts a picture into later windows as if it were new. A
sensor has noise, so its pictures differ; but a camera that compresses a still scene may send the same one for seconds,
and somebody who lies still must stay visible. So a picture is kept for `STILL_S` after it first came, and no longer: a
camera that freezes stretches an incident by that much at most. Nothing but the same in every byte is found: a camera
that compresses one old picture anew each time, or draws a clock into it, is not.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

__all__ = ["REMEMBERED_S", "STILL_S", "Stillness"]

STILL_S = 10.0
"""For how long after it first came the same picture is kept as a new one, seconds."""

REMEMBERED_S = 60.0
"""How long a picture is remembered after it was last seen, seconds: far longer than a decoder's buffer."""

_MOST = 4096  # pictures that are remembered: 40 a second for `REMEMBERED_S`, and room


class Stillness:
    """What one live camera has shown in the last minute, as keyed hashes; the key is drawn here and is stored nowhere.

    Attributes:
        repeated: How many frames were old ones.
    """

    def __init__(self) -> None:
        # hash -> when the picture came first and last; longest unseen first
        self._key, self._seen = os.urandom(32), OrderedDict[bytes, tuple[float, float]]()
        self.repeated = 0

    def is_new(self, frame: npt.NDArray[np.uint8], at_s: float) -> bool:
        """Whether a frame is one of now: not seen before, or for less than STILL_S; it is remembered.

        Args:
            frame: Small and grey, uint8 (H, W).
            at_s: When it came, seconds; never decreases.
        """
        while self._seen and (at_s - next(iter(self._seen.values()))[1] > REMEMBERED_S or len(self._seen) > _MOST):
            self._seen.popitem(last=False)
        digest = hashlib.blake2b(frame.tobytes(), key=self._key, digest_size=16).digest()
        first_s = self._seen.get(digest, (at_s, at_s))[0]
        self._seen[digest] = first_s, at_s
        self._seen.move_to_end(digest)
        old = at_s - first_s > STILL_S
        self.repeated += old
        return not old

    def wipe(self) -> None:
        """Forget everything, the key too."""
        self._seen.clear()
        self._key = os.urandom(32)
