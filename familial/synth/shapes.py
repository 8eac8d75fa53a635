"""Bodies and objects in the picture: outlines, depths and colours of every part at every moment, and shadows.

joints (S, P, J, 3) + outfits -> Shape per part, far and near edge known -> painter.Painter
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from familial.synth.moving_objects import MovingObject
from familial.synth.outfit import Part
from familial.synth.scene import Scene
from familial.synth.skeleton import JOINT, Floats

__all__ = ["SHIFT", "Shape", "body_shapes", "fixed_point", "object_shape", "shadow_lines", "vignetted"]

SHIFT = 4  # fractional bits of the coordinates that OpenCV draws with
_CIRCLE = np.stack([np.cos(np.arange(10) * np.pi / 5), np.sin(np.arange(10) * np.pi / 5)], -1)  # a circle's outline


@dataclass(frozen=True, slots=True)
class Shape:
    """One part of one person, or one object, over S moments.

    Attributes:
        person: Index of the person; -1 for an object.
        outline: (S, V, 2) pixels in fixed point; its convex hull is painted.
        depth: (S,) metres to its middle.
        near: (S,) metres to its nearest point.
        colours: (S, 3) BGR, 0..255.
        bright: (S, V, 2) outline of its lighter side, where it has one.
        bands: (S, 5, 2, 2) ends of its stripes, where it has any.
        band_colour: (3,) BGR, 0..1.
    """

    person: int
    outline: NDArray[np.int32]
    depth: Floats
    near: Floats
    colours: Floats
    bright: NDArray[np.int32] | None = None
    bands: NDArray[np.int32] | None = None
    band_colour: Floats | None = None


def fixed_point(points: Floats) -> NDArray[np.int32]:
    """Pixels in OpenCV's fixed point, with SHIFT fractional bits."""
    return np.clip(np.rint(points * (1 << SHIFT)), -(1 << 18), 1 << 18).astype(np.int32)


@dataclass(frozen=True, slots=True)
class _Projected:
    """One person in the picture: pixels (S, J, 2), depth (S, J) metres, pixels a metre (S, J), brightness (S, J)."""

    pixels: Floats
    depth: Floats
    scale: Floats
    bright: Floats


def body_shapes(
    scene: Scene, joints: Floats, outfits: list[tuple[Part, ...]], vignette: float, gain: float
) -> list[Shape]:
    """The shapes of every part of every person, for joints (S, P, J, 3) in metres."""
    camera, light = scene.camera, scene.light
    pixels, depth = camera.project(joints)
    scale = camera.focal_length / np.maximum(depth, 0.2)
    bright = 0.88 * gain * light.on(joints, None, camera.position) * vignetted(camera.size, pixels, vignette)
    return [
        _part_shape(scene, person, part, _Projected(*(a[:, person] for a in (pixels, depth, scale, bright))))
        for person, outfit in enumerate(outfits)
        for part in outfit
    ]


def _part_shape(scene: Scene, person: int, part: Part, seen: _Projected) -> Shape:
    camera, light, at, moments = scene.camera, scene.light, part.joints, len(seen.pixels)
    circle = _CIRCLE * np.array([camera.pixel_aspect, 1.0])
    centre, radius = seen.pixels[:, at], seen.scale[:, at] * part.radii
    outline = (centre[:, :, None] + radius[:, :, None, None] * circle).reshape(moments, -1, 2)
    tone = part.colour.mean() * np.ones(3) if light.night else part.colour * light.tint
    glow = seen.bright[:, at].mean(1)
    colours = np.clip(255 * tone * glow[:, None], 0, 255)
    inner = None
    if part.lit:  # its lighter side looks up, and to the lamp
        side = 0.0 if light.night else float(np.sign((light.lamps[0] - camera.position) @ camera.rotation[0]))
        move = radius.mean(1)[:, None, None] * np.array([0.22 * side, -0.16])
        small = (centre + move)[:, :, None] + 0.62 * radius[:, :, None, None] * circle
        inner = fixed_point(small.reshape(moments, -1, 2))
    bands = None
    if part.stripes is not None:
        u = np.linspace(0.05, 0.8, 5)[:, None]
        pair = [(JOINT["shoulder" + s], JOINT["hip" + s]) for s in ("_l", "_r")]
        ends = [seen.pixels[:, a, None] * (1 - u) + seen.pixels[:, b, None] * u for a, b in pair]
        bands = fixed_point(np.stack(ends, 2))
    near = (seen.depth[:, at] - part.radii).min(1)
    depth = seen.depth[:, at].mean(1)
    return Shape(person, fixed_point(outline), depth, near, colours, inner, bands, part.stripes)


def object_shape(scene: Scene, thing: MovingObject, vignette: float, gain: float) -> Shape:
    """The shape of a moving object; as nobody's part, it has no silhouette."""
    camera, light = scene.camera, scene.light
    pixels, depth = camera.project(thing.corners)
    glow = np.full(depth.shape, 1.0) if thing.shines else 0.88 * gain * light.on(thing.corners, None, camera.position)
    glow = (glow * vignetted(camera.size, pixels, vignette)).mean(1)
    tone = thing.colours.mean(1, keepdims=True) if light.night else thing.colours * light.tint
    colours = np.clip(255 * np.broadcast_to(tone, (len(depth), 3)) * glow[:, None], 0, 255)
    return Shape(-1, fixed_point(pixels), depth.mean(1), depth.min(1), colours)


def vignetted(size: tuple[int, int], pixels: Floats, strength: float) -> Floats:
    """Vignette at pixels (..., 2)."""
    away = (pixels - np.array([size[1] / 2, size[0] / 2])) / (0.5 * math.hypot(*size))
    return np.asarray(1.0 - strength * np.clip((away**2).sum(-1), 0, 1.5))


_BONES = [
    ("neck", "pelvis", 0.3),
    ("shoulder_l", "elbow_l", 0.1),
    ("shoulder_r", "elbow_r", 0.1),
    ("elbow_l", "hand_l", 0.08),
    ("elbow_r", "hand_r", 0.08),
    ("hip_l", "knee_l", 0.15),
    ("hip_r", "knee_r", 0.15),
    ("knee_l", "ankle_l", 0.11),
    ("knee_r", "ankle_r", 0.11),
    ("neck", "crown", 0.18),
]


def shadow_lines(scene: Scene, joints: Floats) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The bones' shadows on the floor: ends (S, P * B, 2, 2) fixed point and thickness (S, P * B) in pixels."""
    lamp = scene.light.lamps[np.argmin(np.hypot(*(scene.light.lamps[:, :2] - joints[0, 0, 0, :2]).T))]
    lamp = np.array([*joints[0, 0, 0, :2] + np.clip(lamp[:2] - joints[0, 0, 0, :2], -1.5, 1.5), max(lamp[2], 3.2)])
    high = np.clip(joints[..., 2:], 0, 2.2)
    floor = joints + (joints - lamp) * high / (lamp[2] - high)
    floor[..., 2] = 0.0
    pixels, depth = scene.camera.project(floor)
    ends = np.stack(
        [pixels[:, :, [JOINT[a] for a, _, _ in _BONES]], pixels[:, :, [JOINT[b] for _, b, _ in _BONES]]], -2
    )
    wide = np.array([w for *_, w in _BONES]) * scene.camera.focal_length / np.maximum(depth[:, :, :1], 0.5)
    wide = np.where(depth[:, :, :1] > 0.4, wide, 0)
    moments = len(joints)
    return fixed_point(ends).reshape(moments, -1, 2, 2), np.clip(np.rint(wide), 0, 60).astype(np.int32).reshape(
        moments, -1
    )
