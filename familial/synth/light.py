"""The light in a room: ambient light, lamps, or the camera's infrared light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from familial.synth.room import Room
from familial.synth.skeleton import Floats

__all__ = ["Light", "draw_light"]


@dataclass(frozen=True, slots=True)
class Light:
    """What shines.

    Attributes:
        ambient: The part that comes from everywhere.
        lamps: (N, 3) metres.
        power: Of each lamp.
        night: Whether only the camera's own infrared light shines.
        tint: (3,) BGR.
        level: Brightness before exposure.
        exposure: The mean grey level that the camera gives the empty room.
    """

    ambient: float
    lamps: Floats
    power: float
    night: bool
    tint: Floats
    level: float
    exposure: float

    def on(self, points: Floats, normals: Floats | None, eye: Floats) -> Floats:
        """Brightness (...) of points (..., 3) with normals (..., 3), or of round bodies where None."""
        if self.night:
            away = ((points - eye) ** 2).sum(-1)
            return np.asarray(self.level * (self.ambient + 1.5 / (0.7 + away / 9.0)))
        total = np.full(points.shape[:-1], self.ambient)
        for lamp in self.lamps:
            way = lamp - points
            square = (way**2).sum(-1)
            cosine = 0.62 if normals is None else np.abs((way * normals).sum(-1)) / np.sqrt(square + 1e-6)
            total = total + self.power * cosine / (0.5 + square / 6.0)
        return np.asarray(self.level * total)


def draw_light(rng: Generator, room: Room) -> Light:
    """Lamps or, in one room of eleven, the camera's infrared light."""
    night = rng.random() < 0.09
    open_air = room.ceiling > 50
    span = np.array([room.width, room.depth])
    count = 1 if open_air else int(rng.integers(1, 4))
    lamps = np.column_stack(
        [rng.uniform(0.1, 0.9, (count, 2)) * span, np.full(count, 14.0 if open_air else room.ceiling - 0.15)]
    )
    power = 0.0 if night else float(rng.uniform(0.5, 1.3)) / count * (30.0 if open_air else 1.6)
    tint = np.array([rng.uniform(0.75, 1.05), rng.uniform(0.92, 1.02), rng.uniform(0.9, 1.1)])
    return Light(
        ambient=float(rng.uniform(0.02, 0.15) if night else rng.uniform(0.3, 0.65)),
        lamps=lamps,
        power=power,
        night=night,
        tint=np.ones(3) if night else tint,
        level=1.0,
        exposure=float(rng.uniform(38, 70) if rng.random() < 0.12 else rng.uniform(75, 165)),
    )
