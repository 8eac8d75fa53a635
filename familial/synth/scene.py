"""A scene: a room with its furniture, the camera in it, its light, and the place to act.

    draw_scene(rng, size) -> Scene: Room (walls, boxes, panels) + Camera + Light + Stage

Nothing here depends on what will happen in the room: a scene is drawn before, and apart from, the label. World axes: x
and y on the floor, z up, metres; a room fills [0, width] x [0, depth] x [0, ceiling]. Colours are BGR floats in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from familial.synth.camera import Camera, draw_camera, orientation
from familial.synth.furniture import draw_clutter, draw_couch, draw_foreground, draw_seat
from familial.synth.light import Light, draw_light
from familial.synth.room import Box, Panel, Room, draw_room
from familial.synth.stage import Place, Stage, blocks_of, floor_points

__all__ = ["Scene", "draw_scene", "plain_scene"]


@dataclass(frozen=True, slots=True)
class Scene:
    """A room, the camera in it, its light and the place to act."""

    room: Room
    camera: Camera
    light: Light
    stage: Stage


def draw_scene(rng: Generator, size: tuple[int, int]) -> Scene:
    """A scene drawn from `rng` for pictures of `size` (H, W), with enough floor in view to act on."""
    while True:
        shell = draw_room(rng)
        camera = draw_camera(rng, shell, size)
        scene = _furnished(rng, shell, camera)
        if scene is not None:
            return scene


def _furnished(rng: Generator, room: Room, camera: Camera) -> Scene | None:
    """Put a seat, a place to lie and other things into the room; None where too little floor stays in view."""
    spots, wings = floor_points(room, camera)
    narrow = min(room.width, room.depth) < 3.1
    if len(spots) < (8 if narrow else 22):
        return None
    at = spots[rng.integers(len(spots))] + rng.uniform(-0.1, 0.1, 2)
    seat = Place(float(at[0]), float(at[1]), float(rng.uniform(0, 360)), float(rng.uniform(0.41, 0.48)), 0.22)
    style = str(rng.choice(["bed", "sofa", "mat", "rug"], p=[0.2, 0.2, 0.4, 0.2])) if not narrow else "rug"
    height = {"bed": 0.5, "sofa": 0.42, "mat": float(rng.uniform(0.04, 0.16)), "rug": 0.012}[style]
    at = spots[rng.integers(len(spots))]
    yaw = float(rng.choice([0.0, 90.0, 180.0, 270.0]) if rng.random() < 0.7 else rng.uniform(0, 360))
    couch = Place(float(at[0]), float(at[1]), yaw, height, float(rng.uniform(0.4, 0.75)))
    if math.hypot(seat.x - couch.x, seat.y - couch.y) < (0.7 if narrow else 1.7):
        return None
    boxes = draw_seat(rng, seat) + draw_couch(rng, couch, style)
    boxes += draw_clutter(rng, room, camera) if not narrow else []
    boxes += draw_foreground(rng, camera)
    stage = Stage(spots, wings, blocks_of(boxes), seat, couch, camera.position[:2])
    keep = stage.free(spots)
    fronts = np.stack([seat.front(0.48), couch.front(couch.half + 0.3)])
    if keep.sum() < (5 if narrow else 14) or not stage.free(fronts, 0.1).all():
        return None
    free_wings = wings[stage.free(wings)] if len(wings) else wings
    room = replace(room, boxes=tuple(boxes))
    stage = Stage(spots[keep], free_wings, stage.blocks, seat, couch, camera.position[:2])
    return Scene(room, camera, draw_light(rng, room), stage)


def plain_scene(size: tuple[int, int]) -> Scene:
    """A plain, well-lit room with a clear view from 2.4 m: the same every time."""
    room = Room(
        width=6.0,
        depth=5.4,
        ceiling=2.9,
        wall_height=2.9,
        floor=("planks", np.array([0.42, 0.55, 0.66]), np.array([0.37, 0.49, 0.60]), 0.22),
        walls=np.array([[0.86, 0.90, 0.92]] * 4),
        skirting=np.array([0.95, 0.95, 0.95]),
        stripes=0.0,
        top=np.array([0.97, 0.97, 0.97]),
        boxes=(
            Box(0.8, 5.05, 0.6, 0.28, 0.0, 0.85, 0.0, (0.3, 0.4, 0.5), (0.3, 0.4, 0.5)),
            Box(5.6, 3.6, 0.75, 0.33, 0.0, 0.42, 90.0, (0.5, 0.4, 0.25), (0.5, 0.4, 0.25)),
            Box(5.9, 3.6, 0.75, 0.1, 0.0, 0.85, 90.0, (0.46, 0.36, 0.22), (0.46, 0.36, 0.22)),
        ),
        panels=(
            Panel(3, 2.1, 3.7, 1.0, 2.1, (0.98, 0.95, 0.92), (0.9, 0.9, 0.9), True),
            Panel(3, 4.5, 5.2, 1.3, 1.9, (0.55, 0.45, 0.2), (0.2, 0.2, 0.2), False),
            Panel(0, 2.6, 3.5, 0.0, 2.05, (0.35, 0.48, 0.6), (0.3, 0.4, 0.5), False),
        ),
        grain=7,
    )
    at = np.array([3.0, 0.15, 2.4])
    camera = Camera(
        at, orientation(math.pi / 2, math.radians(20), 0.0), size[1] / 2 / math.tan(math.radians(39)), -0.03, size
    )
    spots, wings = floor_points(room, camera)
    place = Place(5.0, 4.6, 180.0, 0.45, 0.3)
    stage = Stage(spots, wings, blocks_of(list(room.boxes)), place, place, at[:2])
    lamps = np.array([[2.0, 2.5, 2.75], [4.0, 2.5, 2.75]])
    return Scene(room, camera, Light(0.5, lamps, 0.85, False, np.ones(3), 1.0, 150.0), stage)
