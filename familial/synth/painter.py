"""The painter: people and objects over the picture of the empty room, far to near.

Shapes of all moments -> moment(s): frame (H, W, 3) and silhouettes (H, W)
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from familial.synth.moving_objects import MovingObject
from familial.synth.outfit import Part
from familial.synth.raycast import Still
from familial.synth.scene import Scene
from familial.synth.sensor import Sensor
from familial.synth.shapes import SHIFT, Shape, body_shapes, object_shape, shadow_lines, vignetted
from familial.synth.skeleton import Floats

__all__ = ["Painter"]


class Painter:
    """Paints people over one still room. Holds its buffers; `moment` gives views that the next call overwrites."""

    def __init__(
        self,
        scene: Scene,
        still: Still,
        joints: Floats,
        outfits: list[tuple[Part, ...]],
        sensor: Sensor,
        objects: Sequence[MovingObject],
    ) -> None:
        self._behind = still.depth + 0.1  # what is farther than this is hidden by things of the room
        h, w = scene.camera.size
        rows, columns = np.mgrid[0:h, 0:w]
        pixels = np.stack([columns, rows], -1).astype(float)
        picture = still.picture * vignetted((h, w), pixels, sensor.vignette)[..., None]
        self.room = np.clip(picture, 0, 255).astype(np.uint8)
        self._frame = self.room.copy()
        self._layer = np.zeros((h, w, 2), np.float32)  # whose, and how far
        self._shapes = body_shapes(scene, joints, outfits, sensor.vignette, still.gain) if outfits else []
        self._shapes += [object_shape(scene, each, sensor.vignette, still.gain) for each in objects]
        self._order = np.argsort(-np.stack([p.depth for p in self._shapes], 1), 1) if self._shapes else None
        self._shade = sensor.shadow
        self._bones: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]] = []
        if outfits and sensor.shadow > 0.03:
            bones, wide = shadow_lines(scene, joints)
            rim = wide.max(1)[:, None] + 6
            low, high = (bones.min((1, 2)) >> SHIFT) - rim, (bones.max((1, 2)) >> SHIFT) + rim + 1
            self._bones = list(zip(bones, wide, low, high, strict=True))

    def moment(self, s: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Frame (H, W, 3) and silhouettes (H, W) of moment `s`."""
        frame, layer = self._frame, self._layer
        frame[:] = self.room
        layer[:] = 0.0
        if self._order is None:
            return frame, layer[..., 0].astype(np.uint8)
        self._cast_shadows(s)
        for i in self._order[s]:
            part = self._shapes[i]
            if part.near[s] > 0.25:
                self._paint_shape(part, s)
        owner, depth = cv2.split(layer)
        hidden = cv2.compare(depth, self._behind, cv2.CMP_GT)
        cv2.copyTo(self.room, hidden, frame)
        owner[hidden > 0] = 0.0
        return frame, owner.astype(np.uint8)

    def _paint_shape(self, part: Shape, s: int) -> None:
        hull = cv2.convexHull(part.outline[s])
        b, g, r = part.colours[s].tolist()
        rim = 0.86 if part.bright is not None else 1.0
        cv2.fillConvexPoly(self._frame, hull, (b * rim, g * rim, r * rim), cv2.LINE_AA, SHIFT)
        cv2.fillConvexPoly(self._layer, hull, (part.person + 1, float(part.near[s])), cv2.LINE_8, SHIFT)
        if part.bright is not None:
            cv2.fillConvexPoly(
                self._frame, cv2.convexHull(part.bright[s]), (b * 1.06, g * 1.06, r * 1.06), cv2.LINE_AA, SHIFT
            )
        if part.bands is not None and part.band_colour is not None:
            tone = (part.band_colour * 255 * part.colours[s].max() / 255).tolist()
            thick = max(1, round(self._frame.shape[0] / 110))
            cv2.polylines(self._frame, list(part.bands[s]), False, tone, thick, cv2.LINE_AA, SHIFT)

    def _cast_shadows(self, s: int) -> None:
        if not self._bones:
            return
        h, w = self._behind.shape
        bones, wide, low, high = self._bones[s]
        x0, y0, x1, y1 = max(0, int(low[0])), max(0, int(low[1])), min(w, int(high[0])), min(h, int(high[1]))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        corner = np.array([x0, y0], np.int32) << SHIFT
        for (start, end), thick in zip(bones - corner, wide.tolist(), strict=True):
            if thick:
                cv2.line(mask, start.tolist(), end.tolist(), 255, thick, cv2.LINE_8, SHIFT)
        mask = cv2.blur(mask, (5, 5) if h < 200 else (9, 9)).astype(np.uint8)
        keep = 255 - cv2.convertScaleAbs(mask, alpha=self._shade)
        view = self._frame[y0:y1, x0:x1]
        view[:] = cv2.multiply(view, cv2.merge([keep, keep, keep]), scale=1 / 255)
