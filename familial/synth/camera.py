"""The pinhole camera: where it hangs, how it projects, and what it sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from familial.synth.room import Room
from familial.synth.skeleton import Floats

__all__ = ["NEAR", "Camera", "draw_camera", "orientation"]

NEAR = 0.15  # metres before the lens at which points are cut off


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera with a little barrel distortion.

    Attributes:
        position: (3,) metres.
        rotation: (3, 3) rows right, down, forward in world axes.
        focal_length: Pixels.
        distortion: Radial coefficient k1, at most 0.
        size: (H, W) pixels.
        pixel_aspect: Width of a pixel's view against its height; below 1 where a wide picture is squashed into `size`.
    """

    position: Floats
    rotation: Floats
    focal_length: float
    distortion: float
    size: tuple[int, int]
    pixel_aspect: float = 1.0

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixels (..., 2) and depth (...) in metres of world points (..., 3)."""
        seen = (points - self.position) @ self.rotation.T
        depth = np.maximum(seen[..., 2], NEAR)
        flat = seen[..., :2] / depth[..., None]
        # beyond its turning point the polynomial would fold the far side back into the picture
        limit = 0.9 / (3 * -self.distortion) if self.distortion < 0 else np.inf
        square = np.minimum((flat**2).sum(-1, keepdims=True), limit)
        centre = np.array([self.size[1] / 2, self.size[0] / 2])
        scale = np.array([self.focal_length * self.pixel_aspect, self.focal_length])
        return flat * (1 + self.distortion * square) * scale + centre, seen[..., 2]

    def rays(self, fine: int) -> Floats:
        """World directions (H * fine * W * fine, 3), of unit depth, one for each sample of a pixel."""
        h, w = self.size[0] * fine, self.size[1] * fine
        v, u = np.mgrid[0:h, 0:w].astype(np.float32)
        bent = (
            np.stack([(u + 0.5) / fine - self.size[1] / 2, (v + 0.5) / fine - self.size[0] / 2], -1) / self.focal_length
        )
        bent[..., 0] /= self.pixel_aspect
        flat = bent.copy()
        for _ in range(5):
            flat = bent / (1 + self.distortion * (flat**2).sum(-1, keepdims=True))
        seen = np.concatenate([flat, np.ones_like(flat[..., :1])], -1).reshape(-1, 3)
        return (seen @ self.rotation).astype(np.float32)

    def sees(self, points: Floats, room_depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether points (...) of the world (..., 3) are well in the picture and not behind things of the room.

        Args:
            points: Metres.
            room_depth: (H, W) metres to the empty room.
        """
        pixels, depth = self.project(points)
        (h, w), x, y = self.size, pixels[..., 0], pixels[..., 1]
        column, row = np.clip(x, 0, w - 1).astype(np.int64), np.clip(y, 0, h - 1).astype(np.int64)
        inside = (x > 2) & (x < w - 2) & (y > 2) & (y < h - 2) & (depth > 0.6)
        return np.asarray(inside & (room_depth[row, column] > depth - 0.3))


def orientation(yaw: float, pitch: float, roll: float) -> Floats:
    """Rows right, down, forward for a camera turned `yaw`, tilted down `pitch` and rolled `roll` radians."""
    forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), -math.sin(pitch)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward])


# of each kind of camera in homes, halls and in the open: a camera of a room, one high under the ceiling or on a pole,
# one far off with a long lens, one low on a shelf
_CAMERAS = {
    "home": (0.55, 0.3, 0.0, 0.15),
    "hall": (0.35, 0.5, 0.08, 0.07),
    "open": (0.15, 0.35, 0.5, 0.0),
    "narrow": (0.35, 0.6, 0.0, 0.05),
}


def draw_camera(rng: Generator, room: Room, size: tuple[int, int]) -> Camera:
    """A camera in `room` for pictures of `size` (H, W), by a wall or in a corner indoors."""
    narrow = min(room.width, room.depth) < 3.1
    place = "narrow" if narrow else "hall" if max(room.width, room.depth) > 6.5 else "home"
    place = "open" if room.ceiling > 50 else place
    style = rng.choice(["room", "high", "long", "low"], p=_CAMERAS[place])
    low, high = {"room": (1.2, 3.2), "high": (2.5, 5.5), "long": (1.6, 7.0), "low": (0.5, 1.3)}[style]
    height = float(min(rng.uniform(low, high), room.ceiling - 0.12))
    # metres to what it looks at
    reach = float(rng.uniform(*{"room": (2.2, 5.2), "high": (1.8, 6.5), "long": (6.0, 15.0), "low": (2.2, 5.0)}[style]))
    tight = 0.6 if not narrow else 0.35
    reach = min(reach, 0.45 * math.hypot(room.width, room.depth)) if narrow else reach
    for _ in range(30):
        at = np.array([rng.uniform(0.1, room.width - 0.1), rng.uniform(0.1, room.depth - 0.1), height])
        if room.ceiling < 50:  # indoors cameras hang by a wall or in a corner
            side = int(rng.integers(2))
            at[side] = 0.12 if rng.random() < 0.5 else (room.width, room.depth)[side] - 0.12
        yaw = rng.uniform(0, 2 * math.pi)
        aim = at[:2] + reach * np.array([math.cos(yaw), math.sin(yaw)])
        if tight < aim[0] < room.width - tight and tight < aim[1] < room.depth - tight:
            break
    else:
        aim = np.array([room.width / 2, room.depth / 2])
        yaw = math.atan2(*(aim - at[:2])[::-1])
        reach = float(np.hypot(*(aim - at[:2])))
    pitch = math.atan2(height - rng.uniform(0.6, 1.1), reach) + math.radians(rng.normal(0, 2.5))
    roll = math.radians(rng.normal(0, 1.8 if rng.random() < 0.85 else 6.0))
    field = math.radians(rng.uniform(*{"room": (50, 100), "high": (58, 108), "long": (0, 1), "low": (50, 90)}[style]))
    focal = size[1] / 2 / math.tan(field / 2)
    if style == "long":  # people fill a third to most of the picture's height
        focal = float(rng.uniform(0.3, 0.72)) * size[0] * math.hypot(height, reach) / 1.7
    bend = -float(rng.uniform(0, 0.02 if style == "long" else 0.09))
    squeeze = float(rng.choice([1.0, 0.75, rng.uniform(0.75, 1.3)], p=[0.45, 0.35, 0.2]))
    return Camera(
        at,
        orientation(yaw, pitch, roll),
        focal * (1.0 if style == "long" else max(1.0, squeeze)),
        bend,
        size,
        squeeze,
    )
