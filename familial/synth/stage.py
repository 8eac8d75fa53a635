"""Where there is place to act: floor in view, seats, and what stands in the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from familial.synth.camera import Camera
from familial.synth.room import Box, Room
from familial.synth.skeleton import Floats

__all__ = ["Place", "Stage", "blocks_of", "floor_points"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one can sit or lie: its middle, the way its open side faces (degrees), height and half depth in metres."""

    x: float
    y: float
    yaw: float
    height: float
    half: float

    def front(self, distance: float) -> Floats:
        """The floor point `distance` metres before the middle, on the open side."""
        a = math.radians(self.yaw)
        return np.array([self.x + distance * math.cos(a), self.y + distance * math.sin(a)])


@dataclass(frozen=True, slots=True)
class Stage:
    """Where there is place to act; lengths in metres.

    Attributes:
        spots: (N, 2) free floor points in view.
        wings: (M, 2) free floor points just out of view; M may be 0.
        blocks: (B, 5) x, y, half_x, half_y and yaw (degrees) of what stands in the way.
        seat: Where one can sit.
        couch: Where one can lie.
        eye: (2,) the floor point below the camera.
    """

    spots: Floats
    wings: Floats
    blocks: Floats
    seat: Place
    couch: Place
    eye: Floats

    def free(self, points: Floats, margin: float = 0.25) -> NDArray[np.bool_]:
        """Whether nothing stands at `points` (N, 2), within `margin` metres."""
        ok = np.ones(len(points), dtype=bool)
        for x, y, half_x, half_y, yaw in self.blocks:
            c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
            away = points - (x, y)
            along, across = away[:, 0] * c + away[:, 1] * s, away[:, 1] * c - away[:, 0] * s
            ok &= (np.abs(along) > half_x + margin) | (np.abs(across) > half_y + margin)
        return ok

    def clear(self, start: Floats, end: Floats) -> bool:
        """Whether one can walk straight from `start` to `end`."""
        u = np.linspace(0.0, 1.0, 14)[1:, None]
        return bool(self.free(start + u * (end - start), 0.2).all())

    def near(self, point: Floats) -> float:
        """Metres from `point` to the nearest spot in view."""
        return float(np.hypot(*(self.spots - point).T).min())


def floor_points(room: Room, camera: Camera) -> tuple[Floats, Floats]:
    """Floor points where a standing person is whole in the picture, and points near by where they are out of it."""
    middle = camera.position[:2]
    x = np.arange(max(0.3, middle[0] - 18), min(room.width - 0.3, middle[0] + 18), 0.3)
    y = np.arange(max(0.3, middle[1] - 18), min(room.depth - 0.3, middle[1] + 18), 0.3)
    floor = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    h, w = camera.size
    feet, depth = camera.project(np.column_stack([floor, np.full(len(floor), 0.0)]))
    head, _ = camera.project(np.column_stack([floor, np.full(len(floor), 1.75)]))
    tall = np.hypot(*(feet - head).T) / h
    narrow = min(room.width, room.depth) < 3.1
    cut = 1.45 if narrow else 1.08  # where space is short, legs are cut off by the lower edge
    seen = (depth > (0.7 if narrow else 1.0)) & (tall > 0.25) & (tall < (1.6 if narrow else 1.15))
    for point in (feet, head):
        seen &= (point[:, 0] > 0.06 * w) & (point[:, 0] < 0.94 * w)
        seen &= (point[:, 1] > -0.06 * h) & (point[:, 1] < cut * h)
    spots = floor[seen]
    if not len(spots):
        return spots, spots
    beside = (feet[:, 0] < -0.12 * w) | (feet[:, 0] > 1.12 * w) | (depth < 0)
    wings = floor[beside & (np.hypot(*(floor - middle).T) > 0.5)][:: max(1, int(beside.sum()) // 400)]
    some = spots[:: max(1, len(spots) // 200)]
    far = np.hypot(*(wings[:, None] - some[None]).transpose(2, 0, 1)).min(1) if len(wings) else np.zeros(0)
    return spots, wings[far < 2.5]


def blocks_of(boxes: list[Box]) -> Floats:
    """Footprints (B, 5) of the solid boxes that reach below 1.2 m: `Stage.blocks`."""
    rows = [(b.x, b.y, b.half_x, b.half_y, b.yaw) for b in boxes if b.solid and b.low < 1.2]
    return np.array(rows).reshape(-1, 5)
