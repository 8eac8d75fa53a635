"""Rooms, the camera in them and their light: the still picture in which bodies are drawn.

    draw_scene(rng) -> Scene: Room (walls, boxes, panels) + Camera + Light + Stage (where there is place to act)
    paint(scene)    -> picture (H, W, 3) and depth (H, W), by one ray per sample against planes and boxes

Nothing here depends on what will happen in the room: a scene is drawn before, and apart from, the label. World axes: x
and y on the floor, z up, metres; a room fills [0, width] x [0, depth] x [0, ceiling]. Colours are BGR floats in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from familial.synth.bodies import Floats

__all__ = [
    "Box",
    "Camera",
    "Light",
    "Panel",
    "Place",
    "Room",
    "Scene",
    "Stage",
    "Still",
    "draw_scene",
    "paint",
    "plain_scene",
]

_NEAR = 0.15  # metres before the lens at which points are cut off


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera with a little barrel distortion. `turn` rows: right, down, forward in world axes."""

    at: Floats  # (3,) metres
    turn: Floats  # (3, 3)
    focal: float  # pixels
    bend: float  # radial distortion k1, at most 0
    size: tuple[int, int]  # (H, W)
    squeeze: float = 1.0  # width of a pixel's view against its height: wide pictures squashed into `size` have < 1

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixels (..., 2) and depth (...) in metres of world points (..., 3)."""
        seen = (points - self.at) @ self.turn.T
        depth = np.maximum(seen[..., 2], _NEAR)
        flat = seen[..., :2] / depth[..., None]
        # beyond its turning point the polynomial would fold the far side back into the picture
        limit = 0.9 / (3 * -self.bend) if self.bend < 0 else np.inf
        square = np.minimum((flat**2).sum(-1, keepdims=True), limit)
        centre = np.array([self.size[1] / 2, self.size[0] / 2])
        scale = np.array([self.focal * self.squeeze, self.focal])
        return flat * (1 + self.bend * square) * scale + centre, seen[..., 2]

    def rays(self, fine: int) -> Floats:
        """World directions (H * fine * W * fine, 3), of unit depth, one for each sample of a pixel."""
        h, w = self.size[0] * fine, self.size[1] * fine
        v, u = np.mgrid[0:h, 0:w].astype(np.float32)
        bent = np.stack([(u + 0.5) / fine - self.size[1] / 2, (v + 0.5) / fine - self.size[0] / 2], -1) / self.focal
        bent[..., 0] /= self.squeeze
        flat = bent.copy()
        for _ in range(5):
            flat = bent / (1 + self.bend * (flat**2).sum(-1, keepdims=True))
        seen = np.concatenate([flat, np.ones_like(flat[..., :1])], -1).reshape(-1, 3)
        return (seen @ self.turn).astype(np.float32)


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
    solid: bool = True  # nobody walks through it


@dataclass(frozen=True, slots=True)
class Panel:
    """A flat thing on a wall (0: x = 0, 1: x = width, 2: y = 0, 3: y = depth): poster, window, door, shelf."""

    wall: int
    left: float
    right: float
    low: float
    high: float
    colour: tuple[float, float, float]
    frame: tuple[float, float, float]
    glow: bool  # a window or a screen: bright by itself


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
    """Where there is place to act: floor points seen by the camera, and points just out of view. Metres."""

    spots: Floats  # (N, 2), in view, free
    wings: Floats  # (M, 2), out of view, free; M may be 0
    blocks: Floats  # (B, 5) x, y, half_x, half_y, yaw of what stands in the way
    seat: Place
    couch: Place
    eye: Floats  # (2,) below the camera

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


@dataclass(frozen=True, slots=True)
class Light:
    """What shines: an ambient part, lamps, and (at night) the camera's own infrared light."""

    ambient: float
    lamps: Floats  # (N, 3)
    power: float
    night: bool
    tint: Floats  # (3,) BGR
    level: float  # before exposure, brightness
    exposure: float  # the mean grey level that the camera gives the empty room

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


@dataclass(frozen=True, slots=True)
class Room:
    """What the camera looks at: extents in metres, surfaces, furniture."""

    width: float
    depth: float
    ceiling: float
    wall_height: float  # above it there is sky; equal to `ceiling` indoors
    floor: tuple[str, Floats, Floats, float]  # pattern, two colours, pitch in metres
    walls: Floats  # (4, 3)
    skirting: Floats  # (3,)
    stripes: float  # strength of the wallpaper
    top: Floats  # (3,) ceiling or sky
    boxes: tuple[Box, ...]
    panels: tuple[Panel, ...]
    grain: int  # seed of the surfaces' texture
    wall_pattern: str = "plain"
    stains: float = 0.0  # strength of large soft spots: dirt, leaves, folds, reflections
    rough: float = 0.018  # strength of the fine texture


@dataclass(frozen=True, slots=True)
class Scene:
    """A room, the camera in it, its light and the place to act."""

    room: Room
    camera: Camera
    light: Light
    stage: Stage


# -- drawing a scene ---------------------------------------------------------------------------------------------------


def _colour(rng: Generator, dark: float = 0.15, light: float = 0.9, vivid: float = 0.3) -> tuple[float, float, float]:
    base = rng.uniform(dark, light)
    b, g, r = np.clip(base * (1 + vivid * rng.uniform(-1, 1, 3)), 0.03, 1.0)
    return float(b), float(g), float(r)


def draw_scene(rng: Generator, size: tuple[int, int]) -> Scene:
    """A scene drawn from `rng` for pictures of `size` (H, W), with enough floor in view to act on."""
    while True:
        shell = _draw_shell(rng)
        camera = _draw_camera(rng, shell, size)
        scene = _furnish(rng, shell, camera)
        if scene is not None:
            return scene


def _draw_shell(rng: Generator) -> Room:
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
    first = np.array(_colour(rng, 0.2, 0.85, 0.22))
    second = np.clip(first * rng.uniform(0.72, 1.2), 0, 1)
    wall = np.array(_colour(rng, 0.35, 0.97, 0.15))
    walls = np.stack([np.clip(wall * rng.uniform(0.85, 1.1), 0, 1) for _ in range(4)])
    return Room(
        width=width,
        depth=depth,
        ceiling=ceiling,
        wall_height=float(rng.uniform(1.5, 7.0)) if style == "open" else ceiling,
        floor=(floor, first, second, float(rng.uniform(0.12, 0.7))),
        walls=walls,
        skirting=np.array(_colour(rng, 0.1, 0.9, 0.1)),
        stripes=float(rng.uniform(0.02, 0.12)) if rng.random() < 0.2 else 0.0,
        top=np.array(_colour(rng, 0.75, 1.0, 0.06)),
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
                    _colour(rng, 0.75, 1.0, 0.1) if kind == "window" else _colour(rng, 0.08, 0.9, 0.4),
                    _colour(rng, 0.1, 0.95, 0.1),
                    bool(kind == "window" and rng.random() < 0.7),
                )
            )
            at += span + rng.uniform(0.2, 2.5)
    return tuple(panels)


def _look(at: Floats, yaw: float, pitch: float, roll: float) -> Floats:
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


def _draw_camera(rng: Generator, room: Room, size: tuple[int, int]) -> Camera:
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
        at, _look(at, yaw, pitch, roll), focal * (1.0 if style == "long" else max(1.0, squeeze)), bend, size, squeeze
    )


def _grid(room: Room, camera: Camera) -> tuple[Floats, Floats]:
    """Floor points where a standing person is whole in the picture, and points near by where they are out of it."""
    middle = camera.at[:2]
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


def _chair(rng: Generator, place: Place) -> list[Box]:
    colour, second = _colour(rng, 0.08, 0.85, 0.5), _colour(rng, 0.08, 0.6, 0.2)
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


def _couch(rng: Generator, place: Place, style: str) -> list[Box]:
    colour, second = _colour(rng, 0.15, 0.95, 0.4), _colour(rng, 0.15, 0.95, 0.4)
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


def _blocks(boxes: list[Box]) -> Floats:
    rows = [(b.x, b.y, b.half_x, b.half_y, b.yaw) for b in boxes if b.solid and b.low < 1.2]
    return np.array(rows).reshape(-1, 5)


def _furnish(rng: Generator, room: Room, camera: Camera) -> Scene | None:
    """Put a seat, a place to lie and other things into the room; None where too little floor stays in view."""
    spots, wings = _grid(room, camera)
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
    boxes = _chair(rng, seat) + _couch(rng, couch, style)
    boxes += _clutter(rng, room, camera) if not narrow else []
    boxes += _foreground(rng, camera)
    stage = Stage(spots, wings, _blocks(boxes), seat, couch, camera.at[:2])
    keep = stage.free(spots)
    fronts = np.stack([seat.front(0.48), couch.front(couch.half + 0.3)])
    if keep.sum() < (5 if narrow else 14) or not stage.free(fronts, 0.1).all():
        return None
    free_wings = wings[stage.free(wings)] if len(wings) else wings
    room = Room(**{**{n: getattr(room, n) for n in Room.__slots__}, "boxes": tuple(boxes)})
    stage = Stage(spots[keep], free_wings, stage.blocks, seat, couch, camera.at[:2])
    return Scene(room, camera, _draw_light(rng, room), stage)


def _clutter(rng: Generator, room: Room, camera: Camera) -> list[Box]:
    """Cupboards and tables along the walls, a few things in the open; none right before the lens."""
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
        if math.hypot(x - camera.at[0], y - camera.at[1]) < 1.6 + half_x:
            continue
        colour, second = _colour(rng, 0.1, 0.9, 0.35), _colour(rng, 0.1, 0.9, 0.3)
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


def _foreground(rng: Generator, camera: Camera) -> list[Box]:
    """Now and then something stands close before the lens, at a side or below: a pillar, a shelf, a counter."""
    if rng.random() > 0.12:
        return []
    right, _, forward = camera.turn
    far, half = rng.uniform(0.7, 1.8), rng.uniform(0.04, 0.25)
    edge = far * camera.size[1] / 2 / camera.focal / camera.squeeze
    at = camera.at + far * forward + rng.choice([-1, 1]) * rng.uniform(0.45, 1.0) * edge * right
    high = camera.at[2] + rng.choice([-0.5, 0.6], p=[0.4, 0.6])
    colour, second = _colour(rng, 0.05, 0.8, 0.3), _colour(rng, 0.05, 0.8, 0.3)
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


def _draw_light(rng: Generator, room: Room) -> Light:
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
        at, _look(at, math.pi / 2, math.radians(20), 0.0), size[1] / 2 / math.tan(math.radians(39)), -0.03, size
    )
    spots, wings = _grid(room, camera)
    place = Place(5.0, 4.6, 180.0, 0.45, 0.3)
    stage = Stage(spots, wings, _blocks(list(room.boxes)), place, place, at[:2])
    lamps = np.array([[2.0, 2.5, 2.75], [4.0, 2.5, 2.75]])
    return Scene(room, camera, Light(0.5, lamps, 0.85, False, np.ones(3), 1.0, 150.0), stage)


# -- painting it -------------------------------------------------------------------------------------------------------


def _pattern(name: str, u: Floats, v: Floats, pitch: float, first: Floats, second: Floats) -> Floats:
    """Colours (N, 3) of a patterned surface at coordinates u, v (N,) in metres."""
    if name == "tiles":
        joint = (np.minimum(u % pitch, v % pitch) < 0.02)[:, None]
        return np.where(joint, second * 0.8, first)
    if name == "brick":
        row = np.floor(v / (pitch * 0.4))
        joint = ((u + row * 0.5 * pitch) % pitch < 0.02) | (v % (pitch * 0.4) < 0.015)
        return np.where(joint[:, None], second * 0.75, first)
    if name == "goods":  # things side by side, as on a shelf: each of its own tone
        cell = np.floor(u / (0.35 * pitch)) * 12.9898 + np.floor(v / (0.6 * pitch)) * 78.233
        tone = ((np.sin(cell) * 43758.5453) % 1.0)[:, None]
        return np.where(((v % (0.6 * pitch)) < 0.03)[:, None], second * 0.3, first * (0.25 + 1.1 * tone))
    if name == "planks":
        row = np.floor(v / pitch)
        tone = (np.sin(row * 12.9898 + np.floor((u + row * 0.37) / 1.3) * 4.1414) * 0.5 + 0.5)[:, None]
        return first * (1 - tone) + second * tone
    if name == "checks":
        odd = ((np.floor(u / pitch) + np.floor(v / pitch)) % 2 > 0)[:, None]
        return np.where(odd, second, first)
    if name == "stripes":
        return np.where((np.floor(u / (pitch * 0.5)) % 2 > 0)[:, None], second, first)
    if name == "speckle":
        tone = 0.5 + 0.25 * np.sin(7 * u / pitch) * np.sin(6.1 * v / pitch + 1) + 0.25 * np.sin(17 * u + 13 * v)
        tone = tone[:, None]
        return first * (1 - tone) + second * tone
    return np.broadcast_to(first, (len(u), 3)).copy()


def _shell(room: Room, eye: Floats, ways: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Where rays meet floor, walls or ceiling: depth (N,), points, normals, colours (N, 3) and glow (N,)."""
    top = np.array([room.width, room.depth, room.ceiling])
    safe = np.where(np.abs(ways) < 1e-6, 1e-6, ways)
    t = np.where(safe > 0, (top - eye) / safe, -eye / safe)
    axis = t.argmin(1)
    depth = t.min(1)
    points = eye + depth[:, None] * ways
    normals = np.eye(3)[axis]
    colours = np.broadcast_to(room.top, points.shape).copy()
    glow = np.zeros(len(points))
    ground = (axis == 2) & (ways[:, 2] < 0)
    pattern, first, second, pitch = room.floor
    colours[ground] = _pattern(pattern, points[ground, 0], points[ground, 1], pitch, first, second)
    outside = room.ceiling > 50
    glow[(axis == 2) & ~ground] = 1.0 if outside else 0.0
    for wall in range(4):
        across = wall // 2
        mine = np.flatnonzero((axis == across) & ((ways[:, across] > 0) == bool(wall % 2)))
        if not len(mine):
            continue
        u, z = points[mine, 1 - across], points[mine, 2]
        tone = room.walls[wall]
        paint_ = _pattern(room.wall_pattern, u, z, 0.45, tone, tone * 0.8) if room.wall_pattern != "plain" else tone
        paint_ = np.broadcast_to(paint_, (len(mine), 3)) * (1 - room.stripes * (u % 0.3 < 0.15))[:, None]
        paint_ = np.where((z < 0.1)[:, None], room.skirting, paint_)
        shine = np.zeros(len(mine))
        for panel in (p for p in room.panels if p.wall == wall):
            inner = (u > panel.left) & (u < panel.right) & (z > panel.low) & (z < panel.high)
            core = (u > panel.left + 0.06) & (u < panel.right - 0.06) & (z < panel.high - 0.06) & (z > panel.low + 0.06)
            paint_ = np.where(inner[:, None], np.array(panel.frame), paint_)
            paint_ = np.where((inner & core)[:, None], np.array(panel.colour), paint_)
            shine = np.where(inner & core & panel.glow, 1.0, shine)
        sky = z > room.wall_height
        colours[mine] = np.where(sky[:, None], room.top, paint_)
        glow[mine] = np.where(sky, 1.0, shine)
    return depth, points, normals, colours, glow


def _add_box(
    box: Box,
    eye: Floats,
    ways: Floats,
    square: Floats,
    depth: Floats,
    points: Floats,
    normals: Floats,
    colours: Floats,
    glow: Floats,
) -> None:
    """Put the box into what the rays see, in place."""
    c, s = math.cos(math.radians(box.yaw)), math.sin(math.radians(box.yaw))
    turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    start = turn @ (eye - (box.x, box.y, (box.low + box.high) / 2))
    half = np.array([box.half_x, box.half_y, (box.high - box.low) / 2])
    # rays that pass the box's bounding ball, before the exact test
    along = -(ways @ (turn.T @ start)) / square
    miss = (start @ start) - along**2 * square
    some = np.flatnonzero((miss < half @ half) & (along > 0))
    if not len(some):
        return
    way = ways[some] @ turn.T
    way = np.where(np.abs(way) < 1e-7, 1e-7, way)
    one, two = (-half - start) / way, (half - start) / way
    into, out = np.minimum(one, two), np.maximum(one, two).min(1)
    axis, t = into.argmax(1), into.max(1)
    hit = (t < out) & (t > _NEAR) & (t < depth[some])
    some, axis, t = some[hit], axis[hit], t[hit]
    if not len(some):
        return
    local = start + t[:, None] * way[hit]
    depth[some] = t
    points[some] = eye + t[:, None] * ways[some]
    normals[some] = turn[axis]
    u = np.where(axis == 0, local[:, 1], local[:, 0])
    v = np.where(axis == 2, local[:, 1], local[:, 2])
    shade = np.array([0.82, 0.9, 1.0])[axis][:, None]
    colours[some] = _pattern(box.pattern, u, v, 0.24, np.array(box.colour), np.array(box.second)) * shade
    glow[some] = 0.0


Still = tuple[NDArray[np.float32], NDArray[np.float32], float]


def _stains(grain: int) -> Floats:
    """Soft spots of several sizes, repeated: (256, 256), mean 0 and spread 1."""
    noise = np.random.default_rng([grain, 1]).standard_normal((64, 64)).astype(np.float32)
    noise = np.tile(noise, (2, 2))
    fine = cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)[128:384, 128:384]
    wide = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 3), (512, 512), interpolation=cv2.INTER_CUBIC)[128:384, 128:384]
    both = fine / fine.std() + wide / wide.std()
    return np.asarray((both - both.mean()) / both.std(), dtype=np.float64)


def paint(scene: Scene, fine: int = 2) -> Still:
    """The empty room: picture float32 (H, W, 3) BGR, 0..255; depth float32 (H, W) in metres; the camera's gain."""
    room, camera, light = scene.room, scene.camera, scene.light
    h, w = camera.size
    ways = camera.rays(fine)
    depth, points, normals, colours, glow = _shell(room, camera.at, ways)
    square = (ways**2).sum(1)
    for box in room.boxes:
        _add_box(box, camera.at, ways, square, depth, points, normals, colours, glow)
    bright = light.on(points, normals, camera.at)
    inside = np.minimum(points[:, :2], np.array([room.width, room.depth]) - points[:, :2]).min(1)
    corner = np.minimum(np.abs(points[:, 2]) + 0.15, np.abs(inside) + 0.15)  # soft dark where surfaces meet
    bright *= np.clip(0.72 + 0.5 * corner, 0, 1)
    noise = np.random.default_rng(room.grain).standard_normal((64, 64))
    across, along = (points[:, 0] + points[:, 1]) * 8, (points[:, 0] - points[:, 1]) * 8 + points[:, 2] * 11
    rough = noise[across.astype(np.int64) % 64, along.astype(np.int64) % 64]
    bright *= 1 + room.rough * rough
    if room.stains > 0.01:
        bright *= np.exp(room.stains * _stains(room.grain)[across.astype(np.int64) % 256, along.astype(np.int64) % 256])
    bright = np.where(glow > 0, np.maximum(bright, 0.1 if light.night else 1.3 * np.median(bright)), bright)
    if light.night:
        colours = np.repeat(colours.mean(1, keepdims=True), 3, axis=1)
    picture = 255.0 * colours * light.tint * bright[:, None]
    picture = picture.reshape(h, fine, w, fine, 3).mean((1, 3))
    gain = light.exposure / max(1.0, float(picture.mean()))
    return (picture * gain).astype(np.float32), depth.reshape(h, fine, w, fine).mean((1, 3)).astype(np.float32), gain
