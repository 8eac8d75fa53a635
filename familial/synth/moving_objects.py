"""What moves besides people: cars, doors, screens, curtains, pets, branches, headlights, things that fall.

    draw_objects(rng, scene, moments) -> MovingObject, ...: corners over time in metres, and their colours

Drawn from a stream of their own, apart from what happens, so that nothing that moves reveals the label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from familial.synth.scene import Scene
from familial.synth.skeleton import Floats

__all__ = ["MovingObject", "Thing", "draw_objects", "fallen"]


@dataclass(frozen=True, slots=True)
class MovingObject:
    """A convex thing over S moments: corners (S, V, 3) in metres, colours (S, 3) BGR 0..1, and whether it shines."""

    corners: Floats
    colours: Floats
    shines: bool = False


@dataclass(frozen=True, slots=True)
class Thing:
    """A coat, a bag or the like that falls to the floor: let go at `time_s` seconds, at `place` (x, y, z) in metres."""

    time_s: float
    place: tuple[float, float, float]


def fallen(rng: Generator, things: Sequence[Thing], moments: Floats) -> list[MovingObject]:
    """What is seen of `things` at `moments` (S,): in free fall, then flat on the floor; nothing before."""
    found = []
    for thing in things:
        soft, size = rng.random() < 0.6, float(rng.uniform(0.14, 0.34))
        after = np.maximum(moments - thing.time_s, 0.0)
        low = np.maximum(thing.place[2] - 0.5 * 9.81 * after**2, 0.0)
        flat = np.where(low > 0.0, 1.0, 0.3 if soft else 0.9)
        at = np.tile(np.array(thing.place[:2]), (len(moments), 1))
        corners = _box(at, np.full(len(moments), rng.uniform(0, 3)), (size, 0.7 * size), 0.0, size, 0.3)
        corners[..., 2] = corners[..., 2] * flat[:, None] + low[:, None]
        corners[..., :2] += (corners[..., :2] - at[:, None]) * (0.3 / flat - 0.3)[:, None, None]
        corners[moments < thing.time_s, :, 2] -= 30.0  # not there yet: hidden by the floor
        found.append(MovingObject(corners, _tone(rng, moments, 0.03, 0.9)))
    return found


def draw_objects(rng: Generator, scene: Scene, moments: Floats) -> list[MovingObject]:
    """None, or a few, of what may move in such a place at `moments` (S,) in seconds."""
    objects: list[MovingObject] = []
    if scene.room.ceiling > 50:
        if rng.random() < 0.25:
            objects += _car(rng, scene, moments)
        if rng.random() < 0.2:
            objects += _branch(rng, scene, moments)
    else:
        if rng.random() < 0.1:
            objects.append(_screen(rng, scene, moments))
        if rng.random() < 0.12:
            objects.append(_door(rng, scene, moments))
        if rng.random() < 0.08:
            objects.append(_curtain(rng, scene, moments))
    if rng.random() < 0.09:
        objects += _pet(rng, scene, moments)
    if rng.random() < 0.04:
        objects += _falling(rng, scene, moments)
    if rng.random() < 0.06:
        objects += _headlights(rng, scene, moments)
    return objects


def _tone(rng: Generator, moments: Floats, dark: float = 0.05, light: float = 0.9) -> Floats:
    tone = rng.uniform(dark, light) * (1 + 0.3 * rng.uniform(-1, 1, 3))
    return np.tile(np.clip(tone, 0.02, 1.0), (len(moments), 1))


def _box(at: Floats, yaw: Floats, half: tuple[float, float], low: float, high: float, inset: float = 0.0) -> Floats:
    """Corners (S, 8, 3) of a box that stands at `at` (S, 2), turned by `yaw` (S,) radians, its top drawn in."""
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    u = half[0] * np.array([-1, 1, 1, -1, -1 + inset, 1 - inset, 1 - inset, -1 + inset])
    v = half[1] * np.array([-1, -1, 1, 1, -1, -1, 1, 1])
    z = np.array([low] * 4 + [high] * 4)
    x, y = at[:, :1] + c * u - s * v, at[:, 1:] + s * u + c * v
    return np.stack([x, y, np.broadcast_to(z, x.shape)], -1)


def _car(rng: Generator, scene: Scene, moments: Floats) -> list[MovingObject]:
    """Drives across behind the people or among them; or stands, and leaves."""
    eye, spots = scene.camera.position[:2], scene.stage.spots
    middle = spots.mean(0)
    away = (middle - eye) / max(0.5, float(np.hypot(*(middle - eye))))
    centre = middle + rng.uniform(1.0, 9.0) * away
    way = math.atan2(away[1], away[0]) + math.pi / 2 * rng.choice([-1, 1]) + rng.normal(0, 0.35)
    speed, passes = rng.uniform(1.5, 10.0), rng.uniform(-1.0, moments[-1] + 1.0)
    gone = speed * (moments - passes)
    if rng.random() < 0.35:
        gone = np.maximum(gone, 0.0) if rng.random() < 0.5 else np.minimum(gone, 0.0)
    at = centre + gone[:, None] * np.array([math.cos(way), math.sin(way)])
    yaw, long, wide = np.full(len(moments), way), rng.uniform(1.7, 2.6), rng.uniform(0.75, 1.0)
    high = rng.uniform(1.35, 2.2)
    tone = _tone(rng, moments)
    return [
        MovingObject(_box(at, yaw, (long, wide), 0.2, 0.62 * high), tone),
        MovingObject(_box(at, yaw, (0.6 * long, 0.9 * wide), 0.62 * high, high, 0.25), tone * rng.uniform(0.2, 0.7)),
    ]


def _branch(rng: Generator, scene: Scene, moments: Floats) -> list[MovingObject]:
    """Leaves that the wind moves, at the picture's edge."""
    camera = scene.camera
    right, down, forward = camera.rotation
    far = rng.uniform(1.2, 5.0)
    side = rng.choice([-1, 1]) * camera.size[1] / camera.focal_length / camera.pixel_aspect * 0.5
    base = camera.position + far * (forward + side * rng.uniform(0.6, 1.0) * right - rng.uniform(-0.1, 0.5) * down)
    tone, rate = _tone(rng, moments, 0.05, 0.4), rng.uniform(0.3, 1.5)
    found = []
    for _ in range(int(rng.integers(4, 12))):
        middle = base + far * rng.normal(0, 0.12, 3)
        sway = far * 0.02 * np.sin(2 * np.pi * rate * moments + rng.uniform(0, 6))[:, None]
        sway = sway + far * 0.01 * np.sin(2 * np.pi * 2.3 * rate * moments + rng.uniform(0, 6))[:, None]
        leaf = far * rng.normal(0, 0.035, (5, 3))
        corners = middle + leaf + (sway * (right + 0.4 * down))[:, None]
        found.append(MovingObject(corners, tone * rng.uniform(0.6, 1.4)))
    return found


def _on_wall(scene: Scene, wall: int, u: Floats, z: Floats, off: Floats) -> Floats:
    """Points (..., 3) at `u` metres along a wall, `z` high and `off` metres before it."""
    room = scene.room
    near = off if wall % 2 == 0 else (room.width, room.depth)[wall // 2] - off
    return np.stack([near, u, z] if wall < 2 else [u, near, z], -1)


def _span(rng: Generator, scene: Scene, wide: float) -> tuple[int, float]:
    """A wall and where on it something `wide` metres wide begins."""
    wall = int(rng.integers(4))
    length = scene.room.depth if wall < 2 else scene.room.width
    return wall, float(rng.uniform(0.05, max(0.06, length - wide)))


def _quad(scene: Scene, wall: int, left: float, right: float, low: float, high: float) -> Floats:
    u, z = np.array([left, right, right, left]), np.array([low, low, high, high])
    return _on_wall(scene, wall, u, z, np.full(4, 0.03))


def _screen(rng: Generator, scene: Scene, moments: Floats) -> MovingObject:
    """A screen whose picture changes."""
    wide = rng.uniform(0.5, 1.6)
    wall, left = _span(rng, scene, wide)
    low = rng.uniform(0.7, 1.5)
    corners = _quad(scene, wall, left, left + wide, low, low + 0.6 * wide)
    cuts = np.cumsum(rng.exponential(rng.uniform(0.15, 1.5), 400))
    levels = rng.uniform(0.1, 1.0, (401, 3))
    return MovingObject(np.tile(corners, (len(moments), 1, 1)), levels[np.searchsorted(cuts, moments)], True)


def _door(rng: Generator, scene: Scene, moments: Floats) -> MovingObject:
    """A door that opens, and mostly closes again."""
    doors = [p for p in scene.room.panels if p.low == 0.0]
    wall, left = _span(rng, scene, 0.9)
    if doors:
        panel = doors[int(rng.integers(len(doors)))]
        wall, left = panel.wall, panel.left
    opens = rng.uniform(0, moments[-1])
    u = np.clip((moments - opens) / rng.uniform(0.5, 1.5), 0, 1)
    u = u - np.clip((moments - opens - rng.uniform(1.5, 6.0)) / rng.uniform(0.6, 2.0), 0, 1)
    angle = np.radians(rng.uniform(60, 110)) * u * u * (3 - 2 * u)
    reach = np.stack([np.zeros_like(angle), np.ones_like(angle), np.ones_like(angle), np.zeros_like(angle)], -1) * 0.88
    along, off = left + reach * np.cos(angle)[:, None], 0.03 + reach * np.sin(angle)[:, None]
    high = np.broadcast_to(np.array([0.0, 0.0, 2.02, 2.02]), along.shape)
    return MovingObject(_on_wall(scene, wall, along, high, off), _tone(rng, moments, 0.15))


def _curtain(rng: Generator, scene: Scene, moments: Floats) -> MovingObject:
    """Cloth before a window that a draught moves."""
    wide, rate = rng.uniform(0.4, 1.4), rng.uniform(0.2, 0.9)
    wall, left = _span(rng, scene, wide)
    wave = rng.uniform(0.03, 0.2) * (1 + np.sin(2 * np.pi * rate * moments)) * np.abs(np.sin(0.7 * moments + left))
    corners = np.tile(_quad(scene, wall, left, left + wide, rng.uniform(0.1, 0.9), 2.15), (len(moments), 1, 1))
    sign = 1.0 if wall % 2 == 0 else -1.0
    corners[:, :2, 0 if wall < 2 else 1] += sign * wave[:, None]
    corners[:, :2, 1 if wall < 2 else 0] += 0.5 * wave[:, None]
    return MovingObject(corners, _tone(rng, moments, 0.3, 1.0))


def _falling(rng: Generator, scene: Scene, moments: Floats) -> list[MovingObject]:
    """A coat slips off its hook, a bag off a table, a broom falls: nobody is near."""
    spots = scene.stage.spots
    x, y = spots[rng.integers(len(spots))] + rng.normal(0, 0.4, 2)
    thing = Thing(float(rng.uniform(0, moments[-1])), (float(x), float(y), float(rng.uniform(0.5, 2.0))))
    return fallen(rng, [thing], moments)


def _headlights(rng: Generator, scene: Scene, moments: Floats) -> list[MovingObject]:
    """Patches of light that wander over walls and floor, as of a car that turns outside or a torch."""
    room, spots = scene.room, scene.stage.spots
    passes, lasts = rng.uniform(0.0, moments[-1]), rng.uniform(0.8, 4.0)
    u = (moments - passes) / lasts
    high, wide = float(rng.uniform(0.3, 1.2)), float(rng.uniform(0.25, 0.9))
    tone = np.tile(
        np.clip(rng.uniform(0.8, 1.0) * np.array([rng.uniform(0.75, 1.0), 0.95, 1.0]), 0, 1), (len(moments), 1)
    )
    wall, low = int(rng.integers(4)), float(rng.uniform(0.1, 1.4))
    length = room.depth if wall < 2 else room.width
    found = []
    for offset in (0.0, 1.6 * wide)[: int(rng.integers(1, 3))]:
        left = -2.0 + u * (length + 3.0) + offset
        corners = np.stack([_quad(scene, wall, at, at + wide, low, low + high) for at in left])
        if room.ceiling > 50:  # in the open the light lies on the ground
            spot = spots[rng.integers(len(spots))]
            ring = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (0.6 * wide, wide)
            path = spot + (u[:, None] - 0.5) * np.array([6.0, 2.0 * rng.uniform(-1, 1)]) + (0.0, offset)
            corners = np.concatenate([path[:, None] + ring, np.full((len(u), 4, 1), 0.01)], -1)
        corners[(u < 0) | (u > 1), :, 2] -= 30.0
        found.append(MovingObject(corners, tone, True))
    return found


def _pet(rng: Generator, scene: Scene, moments: Floats) -> list[MovingObject]:
    """A cat or a dog that walks about and stops."""
    spots = scene.stage.spots
    size = rng.uniform(0.5, 2.3)  # up to a large dog
    places, times = [spots[rng.integers(len(spots))]], [0.0]
    while times[-1] < moments[-1]:
        goal = spots[rng.integers(len(spots))]
        times += [times[-1] + rng.exponential(1.5) + 0.1]
        places += [places[-1]]
        times += [times[-1] + 0.2 + float(np.hypot(*(goal - places[-1]))) / rng.uniform(0.4, 2.0)]
        places += [goal]
    track = np.stack(places)
    at = np.stack([np.interp(moments, times, track[:, axis]) for axis in (0, 1)], -1)
    moves = np.gradient(at, axis=0)
    yaw = np.arctan2(moves[:, 1], moves[:, 0])
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], -1)
    bob = 0.01 * np.sin(9 * moments)[:, None, None] * np.array([0, 0, 1.0])
    tone = _tone(rng, moments, 0.03, 0.7)
    return [
        MovingObject(_box(at, yaw, (0.22 * size, 0.07 * size), 0.0, 0.28 * size, 0.1) + bob, tone),
        MovingObject(
            _box(at + 0.26 * size * ahead, yaw, (0.08 * size, 0.06 * size), 0.2 * size, 0.38 * size) + bob, tone
        ),
    ]
