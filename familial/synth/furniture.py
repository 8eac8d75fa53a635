"""What stands in a room: a seat, a place to lie, cupboards and tables, and what is close to the lens."""

from __future__ import annotations

import math

from numpy.random import Generator

from familial.synth.camera import Camera
from familial.synth.room import Box, Room, draw_colour
from familial.synth.stage import Place

__all__ = ["draw_clutter", "draw_couch", "draw_foreground", "draw_seat"]


def draw_seat(rng: Generator, place: Place) -> list[Box]:
    """A chair, armchair, stool or office chair at `place`."""
    colour, second = draw_colour(rng, 0.08, 0.85, 0.5), draw_colour(rng, 0.08, 0.6, 0.2)
    a = math.radians(place.yaw)
    c, s = math.cos(a), math.sin(a)
    half, high = place.half, place.height

    def part(u: float, v: float, hu: float, hv: float, low: float, top: float) -> Box:
        x, y = place.x + c * u - s * v, place.y + s * u + c * v
        return Box(x, y, hu, hv, low, top, place.yaw, colour, second)

    boxes = [part(0, 0, half, half, high - 0.06, high)]
    style = rng.choice(["chair", "armchair", "stool", "office"])
    if style == "armchair":
        boxes = [part(0, 0, half, half, 0.05, high), part(-half - 0.07, 0, 0.08, half + 0.1, 0.05, high + 0.45)]
        boxes += [part(0, v, half, 0.06, 0.05, high + 0.2) for v in (-half - 0.06, half + 0.06)]
    elif style == "office":
        boxes += [part(0, 0, 0.04, 0.04, 0.05, high), part(0, 0, 0.25, 0.04, 0.0, 0.06)]
        boxes += [part(-half, 0, 0.03, half * 0.9, high + 0.1, high + 0.5)]
    else:
        ends = (-half + 0.03, half - 0.03)
        boxes += [part(u, v, 0.02, 0.02, 0, high) for u in ends for v in ends]
        if style == "chair":
            boxes.append(part(-half, 0, 0.02, half, high, high + 0.45))
    return boxes


def draw_couch(rng: Generator, place: Place, style: str) -> list[Box]:
    """A place to lie: `style` is bed, sofa, mat or rug."""
    colour, second = draw_colour(rng, 0.15, 0.95, 0.4), draw_colour(rng, 0.15, 0.95, 0.4)
    pattern = str(rng.choice(["plain", "stripes", "checks", "speckle"]))
    a = math.radians(place.yaw)
    c, s = math.cos(a), math.sin(a)

    def part(u: float, v: float, hu: float, hv: float, low: float, top: float, kind: str = pattern) -> Box:
        x, y = place.x + c * u - s * v, place.y + s * u + c * v
        return Box(x, y, hu, hv, low, top, place.yaw, colour, second, kind, solid=place.height > 0.15)

    boxes = [part(0, 0, place.half, 1.0, 0.0, place.height)]
    if style == "bed":
        boxes.append(part(0, 0.98, place.half, 0.04, 0.0, 0.9, "plain"))
        boxes.append(part(0, 0.78, place.half * 0.7, 0.18, place.height, place.height + 0.09, "plain"))
    elif style == "sofa":
        boxes.append(part(-place.half - 0.08, 0, 0.1, 1.1, 0.0, 0.82, "plain"))
        boxes += [part(0, v, place.half, 0.09, 0.0, 0.6, "plain") for v in (-1.08, 1.08)]
    return boxes


def draw_clutter(rng: Generator, room: Room, camera: Camera) -> list[Box]:
    """Cupboards and tables along the walls, a few things in the open; none close to the lens."""
    boxes: list[Box] = []
    for _ in range(int(rng.integers(1, 8 if rng.random() < 0.6 else 18))):
        half_x, half_y = rng.uniform(0.15, 0.75), rng.uniform(0.15, 0.35)
        high = float(rng.choice([rng.uniform(0.3, 0.8), rng.uniform(0.8, 2.0)], p=[0.7, 0.3]))
        x, y = rng.uniform(0.2, room.width - 0.2), rng.uniform(0.2, room.depth - 0.2)
        turned = 0.0
        if rng.random() < 0.75:  # along a wall
            wall = int(rng.integers(4))
            turned = 90.0 if wall < 2 else 0.0
            if wall < 2:
                x = half_y + 0.02 if wall == 0 else room.width - half_y - 0.02
            else:
                y = half_y + 0.02 if wall == 2 else room.depth - half_y - 0.02
        if math.hypot(x - camera.position[0], y - camera.position[1]) < 1.6 + half_x:
            continue
        colour, second = draw_colour(rng, 0.1, 0.9, 0.35), draw_colour(rng, 0.1, 0.9, 0.3)
        if high < 0.8 and rng.random() < 0.5:  # a table: a top on four legs
            boxes.append(Box(x, y, half_x, half_y, high - 0.05, high, turned, colour, second))
            legs = [(u, v) for u in (-0.9, 0.9) for v in (-0.85, 0.85)]
            c, s = math.cos(math.radians(turned)), math.sin(math.radians(turned))
            for u, v in legs:
                lx, ly = c * u * half_x - s * v * half_y, s * u * half_x + c * v * half_y
                boxes.append(Box(x + lx, y + ly, 0.025, 0.025, 0.0, high - 0.05, turned, second, second))
        else:
            pattern = str(rng.choice(["plain", "stripes", "checks", "goods"], p=[0.42, 0.18, 0.1, 0.3]))
            boxes.append(Box(x, y, half_x, half_y, 0.0, high, turned, colour, second, pattern))
    return boxes


def draw_foreground(rng: Generator, camera: Camera) -> list[Box]:
    """In about one room of eight, something close to the lens, at a side or below: a pillar, a shelf, a counter."""
    if rng.random() > 0.12:
        return []
    right, _, forward = camera.rotation
    far, half = rng.uniform(0.7, 1.8), rng.uniform(0.04, 0.25)
    edge = far * camera.size[1] / 2 / camera.focal_length / camera.pixel_aspect
    at = camera.position + far * forward + rng.choice([-1, 1]) * rng.uniform(0.45, 1.0) * edge * right
    high = camera.position[2] + rng.choice([-0.5, 0.6], p=[0.4, 0.6])
    colour, second = draw_colour(rng, 0.05, 0.8, 0.3), draw_colour(rng, 0.05, 0.8, 0.3)
    turned = math.degrees(math.atan2(forward[1], forward[0]))
    return [
        Box(
            float(at[0]),
            float(at[1]),
            half,
            half * rng.uniform(1, 3),
            0.0,
            float(max(0.2, high)),
            turned,
            colour,
            second,
            str(rng.choice(["plain", "goods", "stripes"])),
        )
    ]
