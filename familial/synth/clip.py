"""Bodies in rooms -> frames, with labels, key points and silhouettes for free.

    seed -> scene, people, sensor, length   (each from a stream of its own, none of them told the label)
         -> plan of what happens            -> joints -> hulls of spheres, painted far to near over the still room

`render_clip(seed)` is the whole of it. Scene, camera, light, sensor, clip length and number of people come from streams
that do not know the label; so the same seed with another kind shows the same room. The one exception is what a kind
needs to make sense: a fight, or a handshake, brings in a second person where the seed has one, and an empty room shows
nobody.

    python -m familial.synth.clip --out DIR --clips N     mp4 files and manifest.csv; --truth: what is known, as .npz
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.random import Generator
from numpy.typing import NDArray

from familial.synth.actions.base import LABELS
from familial.synth.actions.catalogue import KINDS, SHARES, draw_kind, people_needed
from familial.synth.actions.plan import Annotation, Plan, make_plan
from familial.synth.bodies import COCO, JOINTS, Actor, Body, Floats, draw_body, perform, radii
from familial.synth.disk import Row, save_all, save_truth, save_video
from familial.synth.scene import Scene, Still, draw_scene, paint, plain_scene
from familial.synth.tags import Tag, read_tags, spans
from familial.synth.things import Thing, draw_things
from wire.errors import DataError

__all__ = ["KINDS", "Annotation", "RenderedClip", "Tag", "body_of", "clip_label", "demo_clip", "main", "render_clip"]

_J = {name: i for i, name in enumerate(JOINTS)}
_FPS = 12.0
_SEEN = 0.001  # of the picture: who fills less is not seen
_SHIFT = 4  # fractional bits of the coordinates OpenCV draws with
_ROUND = np.stack([np.cos(np.arange(10) * np.pi / 5), np.sin(np.arange(10) * np.pi / 5)], -1)  # a circle's outline


@dataclass(frozen=True, slots=True)
class RenderedClip:
    """A made clip and all that is known of it. T frames of H x W pixels, P people (0 in an empty room)."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) BGR
    times_s: Floats  # (T,)
    label: str
    caption: str
    annotations: tuple[Annotation, ...]
    lying_s: tuple[tuple[float, float], ...]  # spans in which somebody lies on the floor after a fall
    keypoints: NDArray[np.float32]  # (T, P, 17, 3) x, y in pixels and visible (0 or 1), COCO order
    silhouettes: NDArray[np.uint8]  # (T, H, W), 0 is background, p + 1 is person p
    identities: NDArray[np.int64]  # (P,) the seed of each person's build and clothes
    count: NDArray[np.int64]  # (T,) how many people are seen
    tags: tuple[Tag, ...]  # lying, crouching, running, smoking, loitering, per person


def _stream(seed: int, number: int) -> Generator:
    return np.random.default_rng([seed, number])


# -- people ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a body: the convex hull of spheres about joints, of one colour (BGR, 0..1)."""

    joints: NDArray[np.int64]  # (n,)
    radii: Floats  # (n,) metres
    colour: Floats  # (3,)
    lit: bool = False  # large enough to show a lighter side
    stripes: Floats | None = None


_SKINS = np.array([[0.72, 0.80, 0.92], [0.60, 0.70, 0.88], [0.45, 0.57, 0.78], [0.30, 0.42, 0.62], [0.18, 0.26, 0.42]])


def _dress(body: Body, rng: Generator, room_tone: Floats | None, prop: str = "") -> tuple[_Part, ...]:
    """Clothes, hair and skin drawn from `rng`, as parts to paint, and what is carried.

    `room_tone` (3,) asks for clothes near it.
    """

    def cloth() -> Floats:
        if room_tone is not None:
            return np.asarray(np.clip(room_tone * rng.uniform(0.8, 1.2) + rng.normal(0, 0.03, 3), 0.03, 1))
        return np.asarray(np.clip(rng.uniform(0.04, 0.95) * (1 + 0.6 * rng.uniform(-1, 1, 3)), 0.03, 1.0))

    size = radii(body)
    skin = _SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.9, 1.08)
    hair_colour = (
        np.array([0.9, 0.92, 0.93]) * rng.uniform(0.5, 1)
        if rng.random() < 0.2
        else rng.uniform(0.02, 0.35) * np.array([0.6, 0.8, 1.0])
    )
    top, legs, shoe = cloth(), cloth(), np.full(3, rng.choice([rng.uniform(0.03, 0.2), rng.uniform(0.2, 0.95)]))
    legs = top * rng.uniform(0.85, 1.1) if rng.random() < 0.15 else legs
    sleeve, trouser = skin if rng.random() < 0.45 else top, skin if rng.random() < 0.15 else legs
    lower = str(rng.choice(["trousers", "skirt", "coat"], p=[0.74, 0.14, 0.12]))
    wide = rng.uniform(1.0, 1.25)  # loose or tight
    stripes = cloth() if rng.random() < 0.22 else None
    parts: list[_Part] = []

    def add(names: str, scale: float, colour: Floats, *, lit: bool = False, stripes: Floats | None = None) -> None:
        at = np.array([_J[n] for n in names.split()])
        parts.append(_Part(at, size[at] * scale, np.asarray(colour), lit, stripes))

    for s in ("_l", "_r"):
        add(f"heel{s} toe{s}", 1.0, shoe)
        add(f"knee{s} ankle{s}", wide if trouser is not skin else 1.0, trouser)
        add(f"hip{s} knee{s}", wide, legs, lit=True)
        add(f"shoulder{s} elbow{s}", wide, top)
        add(f"elbow{s} wrist{s}", wide if sleeve is not skin else 1.0, sleeve)
        add(f"wrist{s} hand{s}", 0.95, skin)
    add("hip_l hip_r pelvis belly", 1.0, legs, lit=True)
    add("shoulder_l shoulder_r chest belly pelvis", 1.0 if lower != "coat" else 1.08, top, lit=True, stripes=stripes)
    if lower != "trousers":
        at = np.array([_J[n] for n in ("hip_l", "hip_r", "knee_l", "knee_r")])
        flare = rng.uniform(1.6, 2.4) if lower == "skirt" else rng.uniform(1.5, 1.9)
        grow = np.array([1.1, 1.1, flare, flare])
        parts.append(_Part(at, size[at] * grow, top if lower == "coat" else legs, True))
    add("neck head", 0.55, skin)
    add("head chin", 1.0, skin, lit=True)
    if rng.random() < 0.92:
        add("crown", rng.uniform(0.96, 1.06), hair_colour)
        if rng.random() < 0.35:
            add("crown tail", 0.95, hair_colour)
    if prop:
        hands = np.array([_J["hand_l"], _J["hand_r"]] if prop == "box" else [_J["hand_r"]])
        parts.append(_Part(hands, np.full(len(hands), 0.16 if prop == "box" else 0.13), cloth(), prop == "box"))
    return tuple(parts)


# -- the camera's electronics ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sensor:
    """What happens between the light and the frame."""

    exposures: int  # moments averaged into one frame
    shutter_s: float
    soft: int  # blur kernel, 0 is none
    noise: float  # grey levels
    quality: int  # JPEG, 0 is none
    smear: float  # how much of the last frame stays
    vignette: float
    gains: Floats  # (T,) brightness over time
    shadow: float
    low_contrast: bool
    bars: float  # black bars left and right, as a share of the width
    stamp: int  # the clock written into the picture: seconds of the day at the start, -1 is none
    curve: NDArray[np.uint8] | None = None  # (256,) tone curve
    coarse: float = 1.0  # the sensor's own pixels against the picture's
    codec: float = 0.0  # blocks that changed by fewer grey levels are not sent again, 0 sends all
    refresh: int = 40  # frames between whole pictures of that codec
    held: NDArray[np.int64] | None = None  # (T,) the frame that is shown instead: a lower frame rate, lost frames
    shake: Floats | None = None  # (T, 2, 3) where an unsteady camera puts the picture
    title: str = ""  # a line written into the picture
    cap: float = 0.0  # black bars above and below, as a share of the height
    cut: bool = False  # the stream is entered between whole pictures: grey until something moves


def _draw_sensor(rng: Generator, times: Floats, night: bool) -> _Sensor:
    gains = np.ones(len(times))
    style = rng.choice(["steady", "flicker", "drift", "switch"], p=[0.6, 0.16, 0.16, 0.08])
    if style == "flicker":
        gains += rng.uniform(0.01, 0.05) * np.sin(2 * np.pi * rng.uniform(0.5, 5) * times)
        gains += rng.normal(0, 0.01, len(times))
    elif style == "drift":
        gains += rng.uniform(0.05, 0.25) * np.sin(2 * np.pi * rng.uniform(0.02, 0.12) * times + rng.uniform(0, 6))
    elif style == "switch":
        dim = rng.uniform(0.35, 0.7)
        before = times < rng.uniform(1.0, times[-1] - 1.0)
        gains = np.where(before == (rng.random() < 0.5), 1.0, dim)
    return _Sensor(
        exposures=2 if rng.random() < 0.22 else 1,
        shutter_s=float(rng.uniform(0.02, 0.05)),
        soft=int(rng.choice([0, 3, 5], p=[0.74, 0.24, 0.02])),
        noise=float(rng.uniform(0.5, 4.0) * (2.2 if night else 1.0)),
        quality=int(rng.integers(18, 85)) if rng.random() < 0.6 else 0,
        smear=float(rng.uniform(0.1, 0.4)) if rng.random() < 0.2 else 0.0,
        vignette=float(rng.uniform(0, 0.35)),
        gains=gains,
        shadow=0.0 if night else float(rng.uniform(0.0, 0.5)),
        low_contrast=bool(rng.random() < 0.05),
        bars=float(rng.uniform(0.02, 0.1)) if rng.random() < 0.1 else 0.0,
        stamp=int(rng.integers(86400)) if rng.random() < 0.25 else -1,
        curve=_draw_curve(rng) if rng.random() < 0.55 else None,
        coarse=float(rng.uniform(0.55, 0.9)) if rng.random() < 0.25 else 1.0,
        codec=float(rng.uniform(2.0, 9.0)) if rng.random() < 0.5 else 0.0,
        refresh=int(rng.integers(12, 80)),
        held=_draw_held(rng, times) if rng.random() < 0.2 else None,
        shake=_draw_shake(rng, times) if rng.random() < 0.14 else None,
        title=str(rng.choice(["CAM 03", "CH 01", "Camera 2", "LIVE", "REC", "IPC-7"])) if rng.random() < 0.15 else "",
        cap=float(rng.uniform(0.03, 0.14)) if rng.random() < 0.12 else 0.0,
        cut=bool(rng.random() < 0.04),
    )


def _draw_curve(rng: Generator) -> NDArray[np.uint8]:
    """A tone curve: contrast, crushed blacks, blown highlights."""
    x = np.linspace(0, 1, 256) ** rng.uniform(0.6, 1.15)
    x = 0.5 + (x - 0.42) * rng.uniform(0.85, 1.9)
    return np.asarray(np.clip(255 * x, 0, 255), dtype=np.uint8)


def _draw_held(rng: Generator, times: Floats) -> NDArray[np.int64]:
    """Frames of a camera that sends fewer, or loses some now and then."""
    index = np.arange(len(times))
    if rng.random() < 0.6:
        rate = rng.uniform(3.5, 9.0)
        return np.searchsorted(times, np.floor(times * rate + 1e-6) / rate - 1e-6).astype(np.int64)
    for _ in range(int(rng.integers(1, 5))):
        first, count = int(rng.integers(len(times))), int(rng.integers(2, 14))
        index[first : first + count] = index[first]
    return index


def _draw_shake(rng: Generator, times: Floats) -> Floats:
    """Where the picture goes: a hand's tremor and drift, a pole in the wind, or a slow pan or zoom. Pixels of 160."""
    n, style = len(times), rng.choice(["hand", "pole", "pan"], p=[0.45, 0.3, 0.25])
    x, y, turn, zoom = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, 1.03)
    if style == "hand":
        knots = np.arange(0, times[-1] + 1.0, 0.25)
        size = rng.uniform(0.3, 2.2)
        x, y, turn = (np.interp(times, knots, rng.normal(0, s, len(knots))) for s in (size, size, 0.25 * size))
        zoom += 0.02
    elif style == "pole":
        rate = rng.uniform(0.6, 3.0)
        x = rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * rate * times + rng.uniform(0, 6))
        y = rng.uniform(0.1, 0.6) * np.sin(2 * np.pi * 1.3 * rate * times)
    else:
        u = np.clip((times - rng.uniform(0, times[-1] * 0.7)) / rng.uniform(1.0, 6.0), 0, 1)
        x, y, zoom = rng.uniform(-7, 7) * (u - 0.5), rng.uniform(-4, 4) * (u - 0.5), 1.1 + rng.uniform(0, 0.25) * u
    turn = np.radians(turn)
    moves = np.zeros((n, 2, 3))
    moves[:, 0, 0] = moves[:, 1, 1] = zoom * np.cos(turn)
    moves[:, 0, 1], moves[:, 1, 0] = -zoom * np.sin(turn), zoom * np.sin(turn)
    moves[:, 0, 2], moves[:, 1, 2] = x, y
    return moves


def _moved(shake: Floats, t: int, size: tuple[int, int]) -> Floats:
    """The (2, 3) matrix of moment `t` for pictures of `size`, about their middle."""
    move = shake[t].copy()
    middle = np.array([size[1] / 2, size[0] / 2])
    move[:, 2] = move[:, 2] * size[1] / 160 + middle - move[:, :2] @ middle
    return np.asarray(move)


_CLEAR = _Sensor(2, 0.03, 0, 1.0, 0, 0.0, 0.05, np.ones(0), 0.35, False, 0.0, -1)


# -- painting bodies ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Painted:
    """One part of one person over all moments: outline (S, V, 2) fixed point, depth, near edge (S,), colours (S, 3)."""

    person: int
    outline: NDArray[np.int32]
    depth: Floats
    near: Floats
    colours: Floats
    bright: NDArray[np.int32] | None
    bands: NDArray[np.int32] | None
    band_colour: Floats | None


def _fixed(points: Floats) -> NDArray[np.int32]:
    return np.clip(np.rint(points * (1 << _SHIFT)), -(1 << 18), 1 << 18).astype(np.int32)


def _prepare(
    scene: Scene, joints: Floats, outfits: list[tuple[_Part, ...]], vignette: float, gain: float
) -> list[_Painted]:
    """Outlines, depths and colours of every part at every moment: joints (S, P, J, 3)."""
    camera, light = scene.camera, scene.light
    pixels, depth = camera.project(joints)
    circle = _ROUND * np.array([camera.squeeze, 1.0])
    scale = camera.focal / np.maximum(depth, 0.2)
    bright = 0.88 * gain * light.on(joints, None, camera.at) * _fall_off(camera.size, pixels, vignette)
    # a part's lighter side looks up, and to the lamp
    lean = 0.0 if light.night else float(np.sign((light.lamps[0] - camera.at) @ camera.turn[0]))
    painted: list[_Painted] = []
    for person, outfit in enumerate(outfits):
        for part in outfit:
            at = part.joints
            centre, radius = pixels[:, person, at], scale[:, person, at] * part.radii
            outline = (centre[:, :, None] + radius[:, :, None, None] * circle).reshape(len(joints), -1, 2)
            tone = part.colour.mean() * np.ones(3) if light.night else part.colour * light.tint
            glow = bright[:, person, at].mean(1)
            colours = np.clip(255 * tone * glow[:, None], 0, 255)
            inner = None
            if part.lit:
                move = radius.mean(1)[:, None, None] * np.array([0.22 * lean, -0.16])
                small = (centre + move)[:, :, None] + 0.62 * radius[:, :, None, None] * circle
                inner = _fixed(small.reshape(len(joints), -1, 2))
            bands = None
            if part.stripes is not None:
                u = np.linspace(0.05, 0.8, 5)[:, None]
                pair = [(_J["shoulder" + s], _J["hip" + s]) for s in ("_l", "_r")]
                ends = [pixels[:, person, a, None] * (1 - u) + pixels[:, person, b, None] * u for a, b in pair]
                bands = _fixed(np.stack(ends, 2))  # (S, 5, 2, 2)
            near = (depth[:, person, at] - part.radii).min(1)
            back = depth[:, person, at].mean(1)
            painted.append(_Painted(person, _fixed(outline), back, near, colours, inner, bands, part.stripes))
    return painted


def _prepare_thing(scene: Scene, thing: Thing, vignette: float, gain: float) -> _Painted:
    """The outline, depths and colours of a thing at every moment; as nobody's part, it has no silhouette."""
    camera, light = scene.camera, scene.light
    pixels, depth = camera.project(thing.corners)
    glow = np.full(depth.shape, 1.0) if thing.shines else 0.88 * gain * light.on(thing.corners, None, camera.at)
    glow = (glow * _fall_off(camera.size, pixels, vignette)).mean(1)
    tone = thing.colours.mean(1, keepdims=True) if light.night else thing.colours * light.tint
    colours = np.clip(255 * np.broadcast_to(tone, (len(depth), 3)) * glow[:, None], 0, 255)
    return _Painted(-1, _fixed(pixels), depth.mean(1), depth.min(1), colours, None, None, None)


def _fall_off(size: tuple[int, int], pixels: Floats, strength: float) -> Floats:
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


def _shadows(scene: Scene, joints: Floats) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The bones' shadows on the floor: ends (S, P * B, 2, 2) fixed point and thickness (S, P * B) in pixels."""
    lamp = scene.light.lamps[np.argmin(np.hypot(*(scene.light.lamps[:, :2] - joints[0, 0, 0, :2]).T))]
    lamp = np.array([*joints[0, 0, 0, :2] + np.clip(lamp[:2] - joints[0, 0, 0, :2], -1.5, 1.5), max(lamp[2], 3.2)])
    high = np.clip(joints[..., 2:], 0, 2.2)
    floor = joints + (joints - lamp) * high / (lamp[2] - high)
    floor[..., 2] = 0.0
    pixels, depth = scene.camera.project(floor)
    ends = np.stack([pixels[:, :, [_J[a] for a, _, _ in _BONES]], pixels[:, :, [_J[b] for _, b, _ in _BONES]]], -2)
    wide = np.array([w for *_, w in _BONES]) * scene.camera.focal / np.maximum(depth[:, :, :1], 0.5)
    wide = np.where(depth[:, :, :1] > 0.4, wide, 0)
    moments = len(joints)
    return _fixed(ends).reshape(moments, -1, 2, 2), np.clip(np.rint(wide), 0, 60).astype(np.int32).reshape(moments, -1)


class _Painter:
    """Paints people over one still room. Holds its buffers; `moment` gives views that the next call overwrites."""

    def __init__(
        self,
        scene: Scene,
        still: Still,
        joints: Floats,
        outfits: list[tuple[_Part, ...]],
        sensor: _Sensor,
        things: Sequence[Thing],
    ) -> None:
        bare, depth, gain = still
        self._behind = depth + 0.1  # farther than this, things hide what is there
        h, w = scene.camera.size
        rows, columns = np.mgrid[0:h, 0:w]
        picture = bare * _fall_off((h, w), np.stack([columns, rows], -1).astype(float), sensor.vignette)[..., None]
        self.room = np.clip(picture, 0, 255).astype(np.uint8)
        self._frame = self.room.copy()
        self._layer = np.zeros((h, w, 2), np.float32)  # whose, and how far
        self._parts = _prepare(scene, joints, outfits, sensor.vignette, gain) if outfits else []
        self._parts += [_prepare_thing(scene, thing, sensor.vignette, gain) for thing in things]
        self._order = np.argsort(-np.stack([p.depth for p in self._parts], 1), 1) if self._parts else None
        self._shade = sensor.shadow
        self._bones: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]] = []
        if outfits and sensor.shadow > 0.03:
            bones, wide = _shadows(scene, joints)
            rim = wide.max(1)[:, None] + 6
            low, high = (bones.min((1, 2)) >> _SHIFT) - rim, (bones.max((1, 2)) >> _SHIFT) + rim + 1
            self._bones = list(zip(bones, wide, low, high, strict=True))

    def moment(self, s: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Frame (H, W, 3) and silhouettes (H, W) of moment `s`."""
        frame, layer = self._frame, self._layer
        frame[:] = self.room
        layer[:] = 0.0
        if self._order is None:
            return frame, layer[..., 0].astype(np.uint8)
        self._cast_shadows(s)
        for i in self._order[s]:
            part = self._parts[i]
            if part.near[s] > 0.25:
                self._paint_part(part, s)
        owner, depth = cv2.split(layer)
        hidden = cv2.compare(depth, self._behind, cv2.CMP_GT)
        cv2.copyTo(self.room, hidden, frame)
        owner[hidden > 0] = 0.0
        return frame, owner.astype(np.uint8)

    def _paint_part(self, part: _Painted, s: int) -> None:
        hull = cv2.convexHull(part.outline[s])
        b, g, r = part.colours[s].tolist()
        rim = 0.86 if part.bright is not None else 1.0
        cv2.fillConvexPoly(self._frame, hull, (b * rim, g * rim, r * rim), cv2.LINE_AA, _SHIFT)
        cv2.fillConvexPoly(self._layer, hull, (part.person + 1, float(part.near[s])), cv2.LINE_8, _SHIFT)
        if part.bright is not None:
            cv2.fillConvexPoly(
                self._frame, cv2.convexHull(part.bright[s]), (b * 1.06, g * 1.06, r * 1.06), cv2.LINE_AA, _SHIFT
            )
        if part.bands is not None and part.band_colour is not None:
            tone = (part.band_colour * 255 * part.colours[s].max() / 255).tolist()
            thick = max(1, round(self._frame.shape[0] / 110))
            cv2.polylines(self._frame, list(part.bands[s]), False, tone, thick, cv2.LINE_AA, _SHIFT)

    def _cast_shadows(self, s: int) -> None:
        if not self._bones:
            return
        h, w = self._behind.shape
        bones, wide, low, high = self._bones[s]
        x0, y0, x1, y1 = max(0, int(low[0])), max(0, int(low[1])), min(w, int(high[0])), min(h, int(high[1]))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        corner = np.array([x0, y0], np.int32) << _SHIFT
        for (start, end), thick in zip(bones - corner, wide.tolist(), strict=True):
            if thick:
                cv2.line(mask, start.tolist(), end.tolist(), 255, thick, cv2.LINE_8, _SHIFT)
        mask = cv2.blur(mask, (5, 5) if h < 200 else (9, 9)).astype(np.uint8)
        keep = 255 - cv2.convertScaleAbs(mask, alpha=self._shade)
        view = self._frame[y0:y1, x0:x1]
        view[:] = cv2.multiply(view, cv2.merge([keep, keep, keep]), scale=1 / 255)


def _exposed(room: NDArray[np.uint8], curve: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """The sensor's tone curve, raised and stretched where the empty room would come out black, white or flat.

    So much every camera does by itself; people who cannot be seen at all teach nothing.
    """
    grey = cv2.cvtColor(room, cv2.COLOR_BGR2GRAY)
    seen = grey if curve is None else cv2.LUT(grey, curve)
    mean, spread = float(seen.mean()), float(seen.std())
    goal, stretch = float(np.clip(mean, 50, 190)), max(1.0, 22 / max(6.0, spread))
    if stretch == 1.0 and goal == mean:
        return curve
    levels = np.arange(256.0) if curve is None else curve.astype(np.float64)
    lift = min(4.0, goal / max(1.0, mean)) if goal > mean else goal / mean
    return np.asarray(np.clip(goal + stretch * lift * (levels - mean), 0, 255), dtype=np.uint8)


class _Electronics:
    """Turns painted moments into frames: light level, softness, smear, noise, compression."""

    def __init__(
        self, sensor: _Sensor, size: tuple[int, int], night: bool, rng: Generator, room: NDArray[np.uint8]
    ) -> None:
        self._tone = _exposed(room, sensor.curve)
        self._sensor, self._size, self._rng = sensor, size, rng
        h, w = size
        grain = rng.standard_normal((h + 16, w + 16, 1 if night else 3)).astype(np.float32)
        grain = cv2.blur(grain, (2, 2)) * 2.0 if rng.random() < 0.4 else grain
        grain = grain.reshape(h + 16, w + 16, -1) * sensor.noise
        self._grain = np.ascontiguousarray(np.broadcast_to(grain, (h + 16, w + 16, 3))).astype(np.int16)
        self._last: NDArray[np.uint8] | None = None
        self._sent: NDArray[np.uint8] | None = None
        self._before: NDArray[np.uint8] | None = None
        self._count = 0

    def frame(self, picture: MatLike, gain: float, time_s: float) -> NDArray[np.uint8]:
        """A frame (H, W, 3) of what was painted, at brightness `gain`."""
        sensor, (h, w) = self._sensor, self._size
        out: MatLike = cv2.convertScaleAbs(picture, alpha=gain) if gain != 1.0 else picture
        if sensor.coarse < 1.0:
            small = cv2.resize(out, None, fx=sensor.coarse, fy=sensor.coarse, interpolation=cv2.INTER_AREA)
            out = cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
        if self._tone is not None:
            out = cv2.LUT(out, self._tone)
        if sensor.soft:
            out = cv2.GaussianBlur(out, (sensor.soft, sensor.soft), 0)
        if sensor.smear:
            out = out if self._last is None else cv2.addWeighted(out, 1 - sensor.smear, self._last, sensor.smear, 0)
            self._last = out.astype(np.uint8)
        y, x = self._rng.integers(0, 16, 2)
        out = cv2.add(out, self._grain[y : y + h, x : x + w], dtype=cv2.CV_8U)
        if sensor.stamp >= 0:
            clock = sensor.stamp + int(time_s)
            text = f"{clock // 3600 % 24:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"
            corner = (w // 20, h // 12 if sensor.stamp % 2 else h - h // 20)
            cv2.putText(out, text, corner, cv2.FONT_HERSHEY_SIMPLEX, h / 380, (230, 235, 235), 1, cv2.LINE_AA)
        if sensor.title:
            corner = (w - w // 3, h - h // 16) if sensor.refresh % 2 else (w // 24, h // 9)
            cv2.putText(out, sensor.title, corner, cv2.FONT_HERSHEY_SIMPLEX, h / 300, (240, 240, 240), 1, cv2.LINE_AA)
        if sensor.bars:
            edge = round(sensor.bars * w)
            out[:, :edge] = out[:, w - edge :] = 0
        if sensor.cap:
            edge = round(sensor.cap * h)
            out[:edge] = out[h - edge :] = 0
        if sensor.quality:
            _, packed = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, sensor.quality])
            out = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
        if sensor.codec or sensor.cut:
            out = self._coded(np.asarray(out, dtype=np.uint8))
        return np.asarray(out, dtype=np.uint8)

    def _coded(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What arrives after a codec that sends only the blocks that changed, and now and then the whole picture.

        Where the stream is entered between whole pictures, blocks stay grey until they change.
        """
        sensor, (h, w), made = self._sensor, self._size, picture
        if self._before is None and sensor.cut:
            picture = np.full_like(picture, 128)
        elif self._before is not None and self._sent is not None and (sensor.cut or self._count % sensor.refresh):
            change = cv2.cvtColor(cv2.absdiff(picture, self._before if sensor.cut else self._sent), cv2.COLOR_BGR2GRAY)
            blocks = cv2.resize(change, (max(1, w // 8), max(1, h // 8)), interpolation=cv2.INTER_AREA)
            still = np.asarray(blocks < max(sensor.codec, 3.0), dtype=np.uint8)
            picture = picture.copy()
            cv2.copyTo(self._sent, cv2.resize(still, (w, h), interpolation=cv2.INTER_NEAREST), picture)
        self._sent, self._before, self._count = picture, made, self._count + 1
        return picture


# -- clips -------------------------------------------------------------------------------------------------------------


def _shows(scene: Scene, room_depth: NDArray[np.float32], plan: Plan) -> bool:
    """Whether the plan's leads are mostly in the picture, and not behind things or people, while it happens."""
    if not plan.leads:
        return True
    event = plan.annotations[0]
    times = np.linspace(event.start_s, max(event.end_s, event.start_s + 1.0) + 0.5, 8)
    core = [_J[n] for n in ("head", "chest", "pelvis", "knee_l", "knee_r", "ankle_l", "ankle_r")]
    joints = np.stack([perform(a, times)[:, core] for a in plan.actors], 1)  # (8, P, 7, 3)
    pixels, depth = scene.camera.project(joints)
    h, w = scene.camera.size
    x, y = pixels[..., 0], pixels[..., 1]
    seen = (x > 2) & (x < w - 2) & (y > 2) & (y < h - 2) & (depth > 0.6)
    column, row = np.clip(x, 0, w - 1).astype(np.int64), np.clip(y, 0, h - 1).astype(np.int64)
    seen &= room_depth[row, column] > depth - 0.3
    for other in range(plan.leads, len(plan.actors)):
        away = np.linalg.norm(pixels[:, : plan.leads, :, None] - pixels[:, other, None, None], axis=-1)
        wide = 0.16 * scene.camera.focal / np.maximum(depth[:, other], 0.3)[:, None, None]
        nearer = depth[:, other, None, None] < depth[:, : plan.leads, :, None]
        seen[:, : plan.leads] &= ~(nearer & (away < wide)).any(-1)
    return bool(seen[:, : plan.leads].mean() > 0.7)


def _moments(sensor: _Sensor, times: Floats) -> Floats:
    """The moments (T * exposures,) that the frames at `times` (T,) see, in seconds."""
    back = np.arange(sensor.exposures - 1, -1, -1) * sensor.shutter_s / max(1, sensor.exposures)
    return np.asarray((times[:, None] - back).reshape(-1))


def _played(actors: Sequence[Actor], moments: Floats) -> Floats:
    """Joints (S, P, J, 3) of all actors at `moments` (S,)."""
    if not actors:
        return np.zeros((len(moments), 0, len(JOINTS), 3))
    return np.stack([perform(a, moments) for a in actors], 1)


def _film(
    scene: Scene,
    still: Still,
    sensor: _Sensor,
    plan: Plan,
    bodies: Sequence[Body],
    joints: Floats,
    times: Floats,
    rng: Generator,
    things: Sequence[Thing] = (),
) -> RenderedClip:
    """Film bodies whose joints are (T * exposures, P, J, 3); the plan tells what they do, not where they are."""
    h, w = scene.camera.size
    tone = None
    if sensor.low_contrast:
        tone = scene.room.walls.mean(0) if bodies and bodies[0].seed % 2 else scene.room.floor[1]
    props = plan.props or ("",) * len(bodies)
    outfits = [_dress(b, _stream(b.seed, 1), tone, prop) for b, prop in zip(bodies, props, strict=True)]
    painter = _Painter(scene, still, joints, outfits, sensor, things)
    electronics = _Electronics(sensor, (h, w), scene.light.night, rng, painter.room)
    frames = np.zeros((len(times), h, w, 3), np.uint8)
    silhouettes = np.zeros((len(times), h, w), np.uint8)
    for t in range(len(times)):
        picture, silhouettes[t] = painter.moment(t * sensor.exposures)
        if sensor.exposures == 2:
            first = picture.copy()
            picture, silhouettes[t] = painter.moment(2 * t + 1)
            picture = cv2.addWeighted(first, 0.5, picture, 0.5, 0).astype(np.uint8)
        if sensor.shake is not None:
            move = _moved(sensor.shake, t, (h, w))
            picture = cv2.warpAffine(picture, move, (w, h), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
            silhouettes[t] = cv2.warpAffine(silhouettes[t], move, (w, h), flags=cv2.INTER_NEAREST)
        frames[t] = electronics.frame(picture, float(sensor.gains[t]), float(times[t]))
    if edge := round(sensor.bars * w):
        silhouettes[:, :, :edge] = silhouettes[:, :, w - edge :] = 0
    if edge := round(sensor.cap * h):
        silhouettes[:, :edge] = silhouettes[:, h - edge :] = 0
    joints = joints[sensor.exposures - 1 :: sensor.exposures]
    points, _ = scene.camera.project(joints[:, :, list(COCO)])
    if sensor.shake is not None:
        moves = np.stack([_moved(sensor.shake, t, (h, w)) for t in range(len(times))])
        points = np.einsum("tij,tpkj->tpki", moves[..., :2], points) + moves[:, None, None, :, 2]
    areas = [np.count_nonzero(silhouettes == p + 1, axis=(1, 2)) for p in range(len(bodies))]
    shares = np.array(areas).reshape(len(bodies), len(times)).T / (h * w)
    seen = shares > _SEEN
    tags = read_tags(joints, [b.height for b in bodies], seen, times) + _told(plan, seen, times)
    if sensor.held is not None:
        frames, silhouettes, points = frames[sensor.held], silhouettes[sensor.held], points[sensor.held]
        seen = seen[sensor.held]
    return RenderedClip(
        frames,
        times,
        plan.annotations[0].label,
        plan.caption,
        plan.annotations,
        plan.lying_s,
        _seen(points, silhouettes),
        silhouettes,
        np.array([b.seed for b in bodies], dtype=np.int64),
        seen.sum(1).astype(np.int64),
        tags,
    )


_SAYS = {"smoke": "smoking", "loiter": "loitering"}


def _told(plan: Plan, seen: NDArray[np.bool_], times: Floats) -> tuple[Tag, ...]:
    """Tags that no posture tells: what the plan's first person was told to do, while seen."""
    found = []
    for happening in (h for h in plan.annotations if h.kind in _SAYS):
        during = (times >= happening.start_s) & (times <= happening.end_s) & seen[:, 0]
        found += [Tag(_SAYS[happening.kind], 0, start, end) for start, end in spans(during, times)]
    return tuple(found)


def _seen(points: Floats, silhouettes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Key points (T, P, 17, 3): a point is visible where its pixel shows its own person."""
    t, h, w = silhouettes.shape
    x, y = np.floor(points[..., 0]).astype(np.int64), np.floor(points[..., 1]).astype(np.int64)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    owner = silhouettes[np.arange(t)[:, None, None], np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)]
    mine = owner == np.arange(1, points.shape[1] + 1)[:, None]
    return np.concatenate([points, (inside & mine)[..., None]], -1).astype(np.float32)


def _headcount(rng: Generator) -> int:
    return int(rng.choice([1, 2, 3, 4, 5, 6, 7], p=[0.36, 0.27, 0.14, 0.1, 0.06, 0.04, 0.03]))


def body_of(identity: int) -> Body:
    """The build that `identity` has in every clip; its clothes come from the same seed."""
    return draw_body(_stream(identity, 0), identity)


def clip_label(seed: int) -> str:
    """The label that `render_clip(seed)` draws, with the shares of SHARES."""
    return str(_stream(seed, 4).choice(LABELS, p=SHARES))


def render_clip(
    seed: int,
    kind: str | None = None,
    *,
    size: tuple[int, int] = (120, 160),
    fps: float = _FPS,
    seconds: float | None = None,
    cast: Sequence[int] = (),
) -> RenderedClip:
    """The clip of `seed`: the same arguments give the same bytes.

    `kind` is a key of KINDS, a label (a kind of it is drawn), or None (label drawn too, by SHARES). `size` is
    (H, W). `seconds` defaults to 10 to 16, drawn without regard to the label. `cast` names who is there by the seeds
    of their builds and clothes (`RenderedClip.identities`), else drawn. Raises ValueError for an unknown kind and for
    fewer people than it needs.
    """
    if kind is not None and kind not in KINDS and kind not in LABELS:
        raise ValueError(f"kind is {kind!r}: use one of {', '.join((*LABELS, *KINDS))}, or None")
    length = float(_stream(seed, 3).uniform(10.0, 16.0))
    seconds = length if seconds is None else seconds
    times = np.arange(max(2, round(seconds * fps))) / fps
    label = clip_label(seed) if kind is None else KINDS.get(kind, kind)
    kind = kind if kind in KINDS else draw_kind(_stream(seed, 7), label)
    scene = draw_scene(_stream(seed, 0), size)
    sensor = _draw_sensor(_stream(seed, 1), times, scene.light.night)
    people = _stream(seed, 2)
    need, count = people_needed(kind), _headcount(people)
    identities = [int(people.integers(1 << 31)) for _ in range(9)][: max(need, count) if need else 0]
    if cast:
        identities = list(cast)
    if len(identities) < need:
        raise ValueError(f"cast has {len(identities)} people: {kind} needs {need}")
    bodies = [body_of(identity) for identity in identities]
    still = paint(scene)
    for take in range(6):  # what a clip is named for is to be seen: else it is directed anew
        plan = make_plan(kind, bodies, scene.stage, _stream(seed, 50 + take), float(times[-1]) + 1 / fps)
        if _shows(scene, still[1], plan):
            break
    moments = _moments(sensor, times)
    things = draw_things(_stream(seed, 8), scene, moments)
    joints = _played(plan.actors, moments)
    return _film(scene, still, sensor, plan, bodies, joints, times, _stream(seed, 6), things)


def demo_clip(
    size: tuple[int, int] = (240, 320), fps: float = 15.0, *, onset_s: float = 7.02, seconds: float = 15.0
) -> RenderedClip:
    """One person walks in and about, falls with onset at `onset_s` and lies still to the end; the same every time.

    The onset is just after a tick of the clock: four releases end within four seconds of it. It comes in the eighth
    slot, so the first whole event, the first that is read, already holds it.
    """
    scene = plain_scene(size)
    times = np.arange(round(seconds * fps)) / fps
    identity = 31
    body = replace(body_of(identity), height=1.76, mass=1.0, limb=1.0, stoop=2.0, pace=1.1)
    actor = Actor(body, _stream(identity, 2), (0.35, 2.3), 20.0)
    actor.hold(0.6)
    actor.walk(np.array([3.28, 2.62]), until=onset_s)
    actor.walk(np.array([4.02, 3.02]), until=onset_s)
    actor.hold(min(0.4, max(0.0, onset_s - actor.now)))
    actor.walk(np.array([3.03, 3.40]), until=onset_s, stop=False)
    actor.hold_until(onset_s)
    start, impact = actor.fall(-15.0, momentum=0.61)
    actor.lie(seconds + 0.5 - actor.now, still=1.0)
    plan = Plan(
        (actor,),
        (Annotation("fall", "fall_forward", start, impact),),
        ((impact, seconds),),
        "a person walks in, falls forward and lies on the floor",
        1,
    )
    sensor = replace(_CLEAR, gains=np.ones(len(times)))
    joints = _played(plan.actors, _moments(sensor, times))
    return _film(scene, paint(scene), sensor, plan, [body], joints, times, _stream(identity, 6))


# -- the command -------------------------------------------------------------------------------------------------------


def _write_clip(seed: int, folder: Path, size: tuple[int, int], truth: bool) -> Row:
    """Render the clip of `seed` into `folder` unless it is there; returns its manifest row."""
    label = clip_label(seed)
    path = folder / f"{label}_{seed:08d}.mp4"
    known = path.with_suffix(".npz")
    if not path.exists() or (truth and not known.exists()):
        clip = render_clip(seed, size=size)
        if truth:
            save_truth(known, clip)
        save_video(path, clip.frames, _FPS)
    return {"file": path.name, "label": label, "set": "rendered", "group": f"seed{seed}", "note": ""}


def main(argv: list[str] | None = None) -> int:
    """Write clips with a manifest."""
    parser = argparse.ArgumentParser(prog="python -m familial.synth.clip", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for mp4 files and manifest.csv; goes on there")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="the first clip's seed")
    parser.add_argument("--size", default="120x160", help="HxW")
    parser.add_argument("--truth", action="store_true", help="also write silhouettes, key points, tags, ... as .npz")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    height, width = (int(v) for v in args.size.split("x"))
    size = (height, width)
    args.out.mkdir(parents=True, exist_ok=True)
    work = functools.partial(_write_clip, folder=args.out, size=size, truth=args.truth)
    try:
        save_all(work, range(args.seed, args.seed + args.clips), args.out, args.workers)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
