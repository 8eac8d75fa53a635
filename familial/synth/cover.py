"""What objects hide: how far they are at each pixel of each picture.

moving objects (S, V, 3) --project, fill far to near--> depth (S, H, W) in metres
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from familial.synth.camera import Camera
from familial.synth.moving_objects import MovingObject
from familial.synth.shapes import SHIFT, fixed_point

__all__ = ["FAR", "depth_before"]

FAR = 1000.0
"""Metres to where nothing is."""
_NEAR = 0.25  # metres before the lens at which nothing is painted


def depth_before(camera: Camera, objects: Sequence[MovingObject], moments: int) -> NDArray[np.float32] | None:
    """Metres (S, H, W) to the middle of the nearest of `objects`, FAR where there is none; None without objects."""
    if not objects:
        return None
    found = np.full((moments, *camera.size), FAR, np.float32)
    seen = [camera.project(each.corners) for each in objects]
    outlines = [fixed_point(pixels) for pixels, _ in seen]
    middles, nearest = np.stack([d.mean(1) for _, d in seen], 1), np.stack([d.min(1) for _, d in seen], 1)
    for s, plane in enumerate(found):
        for i in np.argsort(-middles[s]):
            if nearest[s, i] > _NEAR:
                hull = cv2.convexHull(outlines[i][s])
                cv2.fillConvexPoly(plane, hull, float(middles[s, i]), cv2.LINE_8, SHIFT)
    return found
