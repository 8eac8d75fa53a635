"""Ray casting: the picture and the depth of an empty room, by one ray per sample against planes and boxes.

render_still(scene) -> Still: picture (H, W, 3), depth (H, W), gain
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from familial.synth.camera import NEAR
from familial.synth.room import Box, Room
from familial.synth.scene import Scene
from familial.synth.skeleton import Floats

__all__ = ["Still", "render_still", "still_depth"]


@dataclass(frozen=True, slots=True)
class Still:
    """The picture of an empty room.

    Attributes:
        picture: float32 (H, W, 3) BGR, 0..255.
        depth: float32 (H, W) in metres.
        gain: The camera's exposure: what brightness was multiplied by.
    """

    picture: NDArray[np.float32]
    depth: NDArray[np.float32]
    gain: float


@dataclass(frozen=True, slots=True)
class _Hits:
    """Where N rays meet what is there first: depth (N,), points, normals, colours (N, 3), and glow (N,) 0 or 1."""

    depth: Floats
    points: Floats
    normals: Floats
    colours: Floats
    glow: Floats


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


def _reach(room: Room, eye: Floats, ways: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """How far rays (N, 3) from `eye` go to floor, walls or ceiling, and across which axis that lies: (N,), (N,)."""
    top = np.array([room.width, room.depth, room.ceiling])
    safe = np.where(np.abs(ways) < 1e-6, 1e-6, ways)
    t = np.where(safe > 0, (top - eye) / safe, -eye / safe)
    return t.min(1), t.argmin(1)


def _cast_on_surfaces(room: Room, eye: Floats, ways: Floats) -> _Hits:
    """Where rays (N, 3) from `eye` meet floor, walls or ceiling."""
    depth, axis = _reach(room, eye, ways)
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
        tones, shine = _wall_surface(room, wall, u, z)
        sky = z > room.wall_height
        colours[mine] = np.where(sky[:, None], room.top, tones)
        glow[mine] = np.where(sky, 1.0, shine)
    return _Hits(depth, points, normals, colours, glow)


def _wall_surface(room: Room, wall: int, u: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Colours (N, 3) and glow (N,) of a wall at `u` metres along it and `z` high (N,)."""
    tone = room.walls[wall]
    tones = _pattern(room.wall_pattern, u, z, 0.45, tone, tone * 0.8) if room.wall_pattern != "plain" else tone
    tones = np.broadcast_to(tones, (len(u), 3)) * (1 - room.stripes * (u % 0.3 < 0.15))[:, None]
    tones = np.where((z < 0.1)[:, None], room.skirting, tones)
    shine = np.zeros(len(u))
    for panel in (p for p in room.panels if p.wall == wall):
        inner = (u > panel.left) & (u < panel.right) & (z > panel.low) & (z < panel.high)
        core = (u > panel.left + 0.06) & (u < panel.right - 0.06) & (z < panel.high - 0.06) & (z > panel.low + 0.06)
        tones = np.where(inner[:, None], np.array(panel.frame), tones)
        tones = np.where((inner & core)[:, None], np.array(panel.colour), tones)
        shine = np.where(inner & core & panel.glow, 1.0, shine)
    return tones, shine


@dataclass(frozen=True, slots=True)
class _BoxHits:
    """Which rays meet a box before anything else: `rays` (n,), how far, on which axis' face, and where on the box."""

    rays: NDArray[np.int64]
    depth: Floats
    axis: NDArray[np.int64]
    local: Floats
    turn: Floats


def _meet(box: Box, eye: Floats, ways: Floats, square: Floats, depth: Floats) -> _BoxHits | None:
    """Which rays (N, 3) of squared lengths (N,) from `eye` meet the box before `depth` (N,)."""
    c, s = math.cos(math.radians(box.yaw)), math.sin(math.radians(box.yaw))
    turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    start = turn @ (eye - (box.x, box.y, (box.low + box.high) / 2))
    half = np.array([box.half_x, box.half_y, (box.high - box.low) / 2])
    # rays that pass the box's bounding ball, before the exact test
    along = -(ways @ (turn.T @ start)) / square
    miss = (start @ start) - along**2 * square
    some = np.flatnonzero((miss < half @ half) & (along > 0))
    if not len(some):
        return None
    way = ways[some] @ turn.T
    way = np.where(np.abs(way) < 1e-7, 1e-7, way)
    one, two = (-half - start) / way, (half - start) / way
    into, out = np.minimum(one, two), np.maximum(one, two).min(1)
    axis, t = into.argmax(1), into.max(1)
    hit = (t < out) & (t > NEAR) & (t < depth[some])
    if not hit.any():
        return None
    return _BoxHits(some[hit], t[hit], axis[hit], start + t[hit][:, None] * way[hit], turn)


def _cast_on_box(box: Box, eye: Floats, ways: Floats, square: Floats, hits: _Hits) -> None:
    """Put the box into what rays (N, 3) of squared lengths (N,) from `eye` hit, in place."""
    met = _meet(box, eye, ways, square, hits.depth)
    if met is None:
        return
    some, axis, local = met.rays, met.axis, met.local
    hits.depth[some] = met.depth
    hits.points[some] = eye + met.depth[:, None] * ways[some]
    hits.normals[some] = met.turn[axis]
    u = np.where(axis == 0, local[:, 1], local[:, 0])
    v = np.where(axis == 2, local[:, 1], local[:, 2])
    shade = np.array([0.82, 0.9, 1.0])[axis][:, None]
    hits.colours[some] = _pattern(box.pattern, u, v, 0.24, np.array(box.colour), np.array(box.second)) * shade
    hits.glow[some] = 0.0


def _stains(grain: int) -> Floats:
    """Soft spots of several sizes, repeated: (256, 256), mean 0 and spread 1."""
    noise = np.random.default_rng([grain, 1]).standard_normal((64, 64)).astype(np.float32)
    noise = np.tile(noise, (2, 2))
    fine = cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)[128:384, 128:384]
    wide = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 3), (512, 512), interpolation=cv2.INTER_CUBIC)[128:384, 128:384]
    both = fine / fine.std() + wide / wide.std()
    return np.asarray((both - both.mean()) / both.std(), dtype=np.float64)


def _add_texture(room: Room, points: Floats, bright: Floats) -> None:
    """Darken corners and add fine texture and soft spots to brightness (N,) at points (N, 3), in place."""
    inside = np.minimum(points[:, :2], np.array([room.width, room.depth]) - points[:, :2]).min(1)
    corner = np.minimum(np.abs(points[:, 2]) + 0.15, np.abs(inside) + 0.15)  # soft dark where surfaces meet
    bright *= np.clip(0.72 + 0.5 * corner, 0, 1)
    noise = np.random.default_rng(room.grain).standard_normal((64, 64))
    across, along = (points[:, 0] + points[:, 1]) * 8, (points[:, 0] - points[:, 1]) * 8 + points[:, 2] * 11
    rough = noise[across.astype(np.int64) % 64, along.astype(np.int64) % 64]
    bright *= 1 + room.rough * rough
    if room.stains > 0.01:
        bright *= np.exp(room.stains * _stains(room.grain)[across.astype(np.int64) % 256, along.astype(np.int64) % 256])


def still_depth(scene: Scene, fine: int = 2) -> NDArray[np.float32]:
    """`render_still(scene, fine).depth` (H, W) in metres, without its picture: several times faster."""
    room, camera = scene.room, scene.camera
    (h, w), ways = camera.size, camera.rays(fine)
    depth, _ = _reach(room, camera.position, ways)
    square = (ways**2).sum(1)
    for box in room.boxes:
        met = _meet(box, camera.position, ways, square, depth)
        if met is not None:
            depth[met.rays] = met.depth
    return np.asarray(depth.reshape(h, fine, w, fine).mean((1, 3)), np.float32)


def render_still(scene: Scene, fine: int = 2) -> Still:
    """The picture of the empty room, with `fine` x `fine` rays for each pixel."""
    room, camera, light = scene.room, scene.camera, scene.light
    h, w = camera.size
    ways = camera.rays(fine)
    hits = _cast_on_surfaces(room, camera.position, ways)
    square = (ways**2).sum(1)
    for box in room.boxes:
        _cast_on_box(box, camera.position, ways, square, hits)
    points, colours = hits.points, hits.colours
    bright = light.on(points, hits.normals, camera.position)
    _add_texture(room, points, bright)
    bright = np.where(hits.glow > 0, np.maximum(bright, 0.1 if light.night else 1.3 * np.median(bright)), bright)
    if light.night:
        colours = np.repeat(colours.mean(1, keepdims=True), 3, axis=1)
    picture = 255.0 * colours * light.tint * bright[:, None]
    picture = picture.reshape(h, fine, w, fine, 3).mean((1, 3))
    gain = light.exposure / max(1.0, float(picture.mean()))
    depth = hits.depth.reshape(h, fine, w, fine).mean((1, 3))
    return Still((picture * gain).astype(np.float32), depth.astype(np.float32), gain)
