"""A room without furniture: its extents, surfaces, and what hangs on its walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from familial.synth.skeleton import Floats

__all__ = ["Box", "Panel", "Room", "draw_colour", "draw_room"]


@dataclass(frozen=True, slots=True)
class Box:
    """A solid that stands in the room; `yaw` in degrees; patterns: plain, stripes, checks, speckle."""

    x: float
    y: float
    half_x: float
    half_y: float
    low: float
    high: float
    yaw: float
    colour: tuple[float, float, float]
    second: tuple[float, float, float]
    pattern: str = "plain"
    solid: bool = True  # people walk round it


@dataclass(frozen=True, slots=True)
class Panel:
    """Something flat on a wall (0: x = 0, 1: x = width, 2: y = 0, 3: y = depth): poster, window, door, shelf."""

    wall: int
    left: float
    right: float
    low: float
    high: float
    colour: tuple[float, float, float]
    frame: tuple[float, float, float]
    glow: bool  # a window or a screen: bright by itself


@dataclass(frozen=True, slots=True)
class Room:
    """What the camera looks at; lengths in metres, colours BGR 0..1.

    Attributes:
        width: Along x.
        depth: Along y.
        ceiling: Height of the ceiling; above 50 in the open.
        wall_height: Above it there is sky; equal to `ceiling` indoors.
        floor: Pattern, two colours (3,), and the pattern's pitch.
        walls: (4, 3) colours.
        skirting: (3,) colour of the skirting board.
        stripes: Strength of the wallpaper's stripes.
        top: (3,) colour of the ceiling or the sky.
        boxes: Furniture.
        panels: What hangs on the walls.
        grain: Seed of the surfaces' texture.
        wall_pattern: A pattern of `raycast`.
        stains: Strength of large soft spots: dirt, leaves, folds, reflections.
        rough: Strength of the fine texture.
    """

    width: float
    depth: float
    ceiling: float
    wall_height: float
    floor: tuple[str, Floats, Floats, float]
    walls: Floats
    skirting: Floats
    stripes: float
    top: Floats
    boxes: tuple[Box, ...]
    panels: tuple[Panel, ...]
    grain: int
    wall_pattern: str = "plain"
    stains: float = 0.0
    rough: float = 0.018


def draw_colour(
    rng: Generator, dark: float = 0.15, light: float = 0.9, vivid: float = 0.3
) -> tuple[float, float, float]:
    """A colour (BGR, 0..1) between `dark` and `light` whose channels differ by up to `vivid`."""
    base = rng.uniform(dark, light)
    b, g, r = np.clip(base * (1 + vivid * rng.uniform(-1, 1, 3)), 0.03, 1.0)
    return float(b), float(g), float(r)


def draw_room(rng: Generator) -> Room:
    """A home, hall, corridor or lift, or a place in the open, without furniture."""
    style = rng.choice(["home", "hall", "open", "corridor", "lift"], p=[0.38, 0.23, 0.26, 0.08, 0.05])
    low, high = {
        "home": (3.6, 6.5),
        "hall": (6.5, 13.0),
        "open": (14.0, 26.0),
        "corridor": (1.6, 3.0),
        "lift": (1.5, 2.6),
    }[style]
    width, depth = (float(v) for v in rng.uniform(low, high, 2))
    if style == "corridor":
        depth = float(rng.uniform(7.0, 18.0))
        width, depth = (width, depth) if rng.random() < 0.5 else (depth, width)
    ceiling = 60.0 if style == "open" else float(rng.uniform(2.5, 3.4) + (style == "hall") * rng.uniform(0, 1.5))
    patterns = ["plain", "tiles", "planks", "speckle", "checks"]
    floor = str(rng.choice(patterns, p=[0.25, 0.2, 0.25, 0.2, 0.1]))
    first = np.array(draw_colour(rng, 0.2, 0.85, 0.22))
    second = np.clip(first * rng.uniform(0.72, 1.2), 0, 1)
    wall = np.array(draw_colour(rng, 0.35, 0.97, 0.15))
    walls = np.stack([np.clip(wall * rng.uniform(0.85, 1.1), 0, 1) for _ in range(4)])
    return Room(
        width=width,
        depth=depth,
        ceiling=ceiling,
        wall_height=float(rng.uniform(1.5, 7.0)) if style == "open" else ceiling,
        floor=(floor, first, second, float(rng.uniform(0.12, 0.7))),
        walls=walls,
        skirting=np.array(draw_colour(rng, 0.1, 0.9, 0.1)),
        stripes=float(rng.uniform(0.02, 0.12)) if rng.random() < 0.2 else 0.0,
        top=np.array(draw_colour(rng, 0.75, 1.0, 0.06)),
        boxes=(),
        panels=_draw_panels(rng, width, depth, ceiling),
        grain=int(rng.integers(1 << 31)),
        wall_pattern=str(rng.choice(["plain", "brick", "goods", "speckle"], p=[0.7, 0.1, 0.12, 0.08])),
        stains=float(min(0.2, rng.exponential(0.05))),
        rough=float(min(0.12, rng.exponential(0.035))),
    )


def _draw_panels(rng: Generator, width: float, depth: float, ceiling: float) -> tuple[Panel, ...]:
    panels: list[Panel] = []
    for wall in range(4):
        length = depth if wall < 2 else width
        at = rng.uniform(0.1, 1.0)
        while at < length - 0.8:
            kind = rng.choice(["door", "window", "poster", "shelf"], p=[0.25, 0.3, 0.3, 0.15])
            span = float(
                {
                    "door": 0.9,
                    "window": rng.uniform(0.8, 2.0),
                    "poster": rng.uniform(0.3, 1.1),
                    "shelf": rng.uniform(0.5, 1.6),
                }[kind]
            )
            low, high = {"door": (0.0, 2.05), "window": (0.9, 2.1), "poster": (1.1, 1.9), "shelf": (0.1, 1.9)}[kind]
            panels.append(
                Panel(
                    wall,
                    at,
                    min(at + span, length - 0.05),
                    low,
                    min(high, ceiling - 0.1),
                    draw_colour(rng, 0.75, 1.0, 0.1) if kind == "window" else draw_colour(rng, 0.08, 0.9, 0.4),
                    draw_colour(rng, 0.1, 0.95, 0.1),
                    bool(kind == "window" and rng.random() < 0.7),
                )
            )
            at += span + rng.uniform(0.2, 2.5)
    return tuple(panels)
