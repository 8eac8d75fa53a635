"""What becomes of a picture at once: small and grey for the window, and in colour for the person network.

    picture --shrink--> grey uint8 (H, W), squashed        --fit--> RGB uint8 (h, w, 3), proportions kept, black margin

OpenCV is imported where a picture has another size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.capture.sources import Picture
from wire.people.decode import place

__all__ = ["fit", "shrink"]


def shrink(picture: Picture, height: int, width: int) -> Picture:
    """Make a picture grey uint8 (height, width), squashed to that shape and averaged by area."""
    if picture.shape == (height, width):
        return picture
    import cv2

    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def fit(picture: Picture, into: npt.NDArray[np.uint8]) -> None:
    """Write a picture into the person network's frame, as `wire.people.decode.place` says; the rest becomes black.

    Args:
        picture: Grey or BGR.
        into: uint8 (h, w, 3), RGB.

    Raises:
        CameraError: The picture is too small for the person network.
    """
    height, width = picture.shape[:2]
    placed = place(height, width, (into.shape[0], into.shape[1]))
    if (placed.rows, placed.columns) != (height, width):
        import cv2

        how = cv2.INTER_AREA if placed.rows < height else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, (placed.columns, placed.rows), interpolation=how), np.uint8)
    into[placed.rows :] = 0
    into[: placed.rows, placed.columns :] = 0
    into[: placed.rows, : placed.columns] = picture[..., None] if picture.ndim == 2 else picture[..., ::-1]
