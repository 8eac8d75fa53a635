"""Tells pictures that a live camera took just now from old ones that are delivered again.

    small grey frame, time --keyed hash--> seen in the last seconds? --> new: kept;  repeated, frozen: not

An incident is charged for the releases that can hold its pictures, counted from when they were taken. A camera that
stalls, or a decoder that delivers a group of pictures twice, would put a picture into later windows as if it were new.
A sensor has noise, so two pictures of a live camera are never the same in every byte: one that was seen before in the
last `REMEMBERED_S` is not kept as a new one. Nothing but the same in every byte is found: a camera that compresses one
old picture anew each time, or draws a clock into it, is not.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

__all__ = ["REMEMBERED_S", "Stillness"]

REMEMBERED_S = 60.0
"""How long a picture is remembered after it was last seen, seconds: far longer than a decoder's buffer."""

_MOST = 4096  # pictures that are remembered: 40 a second for `REMEMBERED_S`, and room


class Stillness:
    """What one live camera has shown in the last minute, as keyed hashes; the key is drawn here and is stored nowhere.

    Attributes:
        repeated: How many frames were no new ones.
    """

    def __init__(self) -> None:
        self._key, self._seen = os.urandom(32), OrderedDict[bytes, float]()  # longest unseen first
        self.repeated = 0

    def is_new(self, frame: npt.NDArray[np.uint8], at_s: float) -> bool:
        """Whether a frame was not seen before; it is remembered.

        Args:
            frame: Small and grey, uint8 (H, W).
            at_s: When it came, seconds; never decreases.
        """
        while self._seen and (at_s - next(iter(self._seen.values())) > REMEMBERED_S or len(self._seen) > _MOST):
            self._seen.popitem(last=False)
        digest = hashlib.blake2b(frame.tobytes(), key=self._key, digest_size=16).digest()
        known = digest in self._seen
        self._seen[digest] = at_s
        self._seen.move_to_end(digest)
        self.repeated += known
        return not known

    def wipe(self) -> None:
        """Forget everything, the key too."""
        self._seen.clear()
        self._key = os.urandom(32)
