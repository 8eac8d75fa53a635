"""Where people are in every frame, exactly: what a perfect person network would be asked for.

    joints, camera (`people_clip`) -> ExactPeople -> `detector_errors.detect` -> what the network would say

Places are in the units of `wire.people.packed`: multiples of 1/UNIT of the picture's larger side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ABSENT", "HIDDEN", "SEEN", "TURNED", "ExactPeople"]

ABSENT, HIDDEN, TURNED, SEEN = 0, 1, 2, 3
"""A key point is behind the camera; behind things or other people; behind the person's own body; or seen. That a point
lies out of the picture is said by its place alone."""


@dataclass(frozen=True, slots=True)
class ExactPeople:
    """P people in T frames.

    Attributes:
        points: int16 (T, P, 17, 2) y and x.
        visible: uint8 (T, P, 17) ABSENT, HIDDEN, TURNED or SEEN.
        length: int16 (T, P) the body's own height, were it upright where it is.
        times_s: float64 (T,) seconds.
        shown: int64 (T,) the frame that is shown instead: a lower frame rate, or lost frames.
        window: (top, left, bottom, right) of the picture's part that is no black bar.
        night: Whether the light is infrared, or poor.
    """

    points: npt.NDArray[np.int16]
    visible: npt.NDArray[np.uint8]
    length: npt.NDArray[np.int16]
    times_s: npt.NDArray[np.float64]
    shown: npt.NDArray[np.int64]
    window: tuple[int, int, int, int]
    night: bool
