"""Where people are in every frame, exactly: what a perfect person network would be asked for.

    joints, camera (`people_clip`) -> ExactPeople -> `detector_errors.detect` -> what the network would say

Places are in the units of `wire.people.packed`: multiples of 1/UNIT of the picture's larger side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["ABSENT", "EXACT_VERSION", "HIDDEN", "SEEN", "TURNED", "ExactPeople", "Framing"]

EXACT_VERSION = 1
"""Of stored exact people: raise it with any change after which the same rendered clip gives others."""

ABSENT, HIDDEN, TURNED, SEEN = 0, 1, 2, 3
"""A key point is behind the camera; behind things or other people; behind the person's own body; or seen. That a point
lies out of the picture is said by its place alone."""


@dataclass(frozen=True, slots=True)
class Framing:
    """The part of the picture that the camera shows, in the exact people's units; it may reach beyond the picture."""

    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True, slots=True)
class ExactPeople:
    """P people in T frames.

    Attributes:
        points: int16 (T, P, 17, 2) y and x.
        visible: uint8 (T, P, 17) ABSENT, HIDDEN, TURNED or SEEN.
        length: int16 (T, P) the body's own height, were it upright where it is.
        times_s: float64 (T,) seconds.
        shown: int64 (T,) the frame that is shown instead: a lower frame rate, or lost frames.
        sides: The picture's height and width.
        window: (top, left, bottom, right) of the picture's part that is no black bar.
        night: Whether the light is infrared, or poor.
    """

    points: npt.NDArray[np.int16]
    visible: npt.NDArray[np.uint8]
    length: npt.NDArray[np.int16]
    times_s: npt.NDArray[np.float64]
    shown: npt.NDArray[np.int64]
    sides: tuple[int, int]
    window: tuple[int, int, int, int]
    night: bool

    def whole(self) -> Framing:
        """The picture as it is, with its bars."""
        return Framing(0.0, 0.0, *self.sides)

    def at(self, frame: int) -> ExactPeople:
        """The one frame alone."""
        one = slice(frame, frame + 1)
        return replace(
            self,
            points=self.points[one],
            visible=self.visible[one],
            length=self.length[one],
            times_s=self.times_s[one],
            shown=np.zeros(1, np.int64),
        )
