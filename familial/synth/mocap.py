"""Captured motion, as an option beside the renderer's own: DeepMimic's clips -> joints of any build -> frames.

    FILE.tar.xz -> read_archive() -> {name: Motion}
    seed + Motion -> the seed's room, camera, light, sensor, person -> render_motion() -> RenderedClip, label normal

The archive is read in memory, within limits, and nothing of it is written to disk or shipped. Joint angles are the
capture's, proportions the body's; the lowest point of the body is as high above the floor as it was in the capture, 0
while anything touched it. The folder `sie`, whose terms forbid commercial use, is left out by rule: only the motions
under DeepMimic's own MIT licence are read.

    python -m familial.synth.mocap --archive FILE.tar.xz --out DIR --clips N     mp4 files and manifest.csv
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import lzma
import math
import re
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from familial.synth.actions.catalogue import CAPTIONS
from familial.synth.actions.plan import Annotation, Plan
from familial.synth.bodies import CHANNELS, JOINTS, Body, Floats, _kinematics, radii
from familial.synth.clip import RenderedClip, _draw_sensor, _film, _headcount, _moments, _stream, body_of
from familial.synth.disk import Row, save_all, save_video
from familial.synth.scene import Scene, Still, draw_scene, paint
from wire.errors import DataError

__all__ = ["Motion", "main", "pose", "read_archive", "render_motion"]

_PACKED, _UNPACKED, _MEMORY = 64 << 20, 128 << 20, 256 << 20  # bytes at most: archive, its content, xz's dictionary
_FRAMES = 4_000  # of one motion, at most
_CURE = "use DeepMimic's archive of humanoid3d_*.txt with data/characters/humanoid3d.txt"
_FPS = 12.0
_J = {name: i for i, name in enumerate(JOINTS)}

# DeepMimic's humanoid: joint -> parent, and the kind that says how many numbers a frame holds for it
_LIMB = {"hip": "root", "knee": "hip", "ankle": "knee", "shoulder": "chest", "elbow": "shoulder", "wrist": "elbow"}
_PARENTS = {"root": "", "chest": "root", "neck": "chest"} | {
    f"{side}_{joint}": parent if parent in ("root", "chest") else f"{side}_{parent}"
    for side in ("right", "left")
    for joint, parent in _LIMB.items()
}
_KINDS = {"root": "none", "knee": "revolute", "elbow": "revolute", "wrist": "fixed"}
_WIDTH = {"none": 4, "spherical": 4, "revolute": 1, "fixed": 0}
_BONES = {name: i for i, name in enumerate(_PARENTS)}

# the renderer's joints: which bone carries each, and about which joint it turns ("waist" lies between pelvis and chest)
_CARRIED = {"belly": ("root", "pelvis"), "chest": ("chest", "waist"), "neck": ("chest", "waist")}
_HEAD = ("head", "chin", "crown", "tail", "nose", "eye_l", "eye_r", "ear_l", "ear_r")
_CARRIED |= dict.fromkeys(_HEAD, ("neck", "neck"))
for _s, _side in (("_l", "left_"), ("_r", "right_")):
    _CARRIED |= {
        "shoulder" + _s: ("chest", "waist"),
        "elbow" + _s: (_side + "shoulder", "shoulder" + _s),
        "wrist" + _s: (_side + "elbow", "elbow" + _s),
        "hand" + _s: (_side + "elbow", "elbow" + _s),
        "hip" + _s: ("root", "pelvis"),
        "knee" + _s: (_side + "hip", "hip" + _s),
        "ankle" + _s: (_side + "knee", "knee" + _s),
        "toe" + _s: (_side + "ankle", "ankle" + _s),
        "heel" + _s: (_side + "ankle", "ankle" + _s),
    }
_SWAPPED = [_J[n[:-1] + {"l": "r", "r": "l"}[n[-1]]] if n[-2] == "_" else _J[n] for n in JOINTS]

_SAYS = {"walk": "walk", "stealthy_walk": "walk", "zombie_walk": "walk", "run": "run", "jog": "run", "jump": "jump",
         "getup_facedown": "get_up", "getup_faceup": "get_up"}  # fmt: skip  # all else: exercise


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """One captured motion. F frames; world axes of the renderer (x ahead, y left, z up), metres, seconds."""

    name: str
    repeats: bool  # its end leads into its beginning
    times_s: Floats  # (F,) from 0
    turns: Floats  # (F, 15, 4) unit quaternions w, x, y, z of DeepMimic's joints against their parents
    path: Floats  # (F, 2) where the pelvis is over the floor
    clear: Floats  # (F,) of the lowest point, above the floor
    leg: float  # the captured skeleton's, hip to ankle


@dataclass(frozen=True, slots=True, eq=False)
class _Skeleton:
    order: tuple[str, ...]  # the joints as a frame lists them
    offsets: Floats  # (15, 3) of each joint from its parent
    centres: Floats  # (15, 3) of each joint's body from the joint
    halves: Floats  # (15, 3) half extents of that body without its rounding
    rounds: Floats  # (15,) rounding radius


# -- the archive -------------------------------------------------------------------------------------------------------


def read_archive(path: Path | str) -> dict[str, Motion]:
    """Every MIT motion of DeepMimic's archive by name. Raises DataError, naming the cure, for what cannot be used."""
    texts = _texts(Path(path))
    skeleton = texts.pop("", None)
    if skeleton is None:
        raise DataError(f"{path}: data/characters/humanoid3d.txt is missing; {_CURE}")
    if not texts:
        raise DataError(f"{path}: holds no humanoid3d_*.txt outside sie/; {_CURE}")
    body = _skeleton(_document(skeleton, f"{path}: data/characters/humanoid3d.txt"), f"{path}: humanoid3d.txt")
    return {name: _motion(name, text, body, f"{path}: humanoid3d_{name}.txt") for name, text in sorted(texts.items())}


def _texts(path: Path) -> dict[str, bytes]:
    """Motion files by name, and the skeleton as "". Everything stays in memory and within limits."""
    try:
        with path.open("rb") as file:
            packed = file.read(_PACKED + 1)
    except OSError as error:
        raise DataError(f"{path}: not readable ({error}); give the path of DeepMimic's .tar.xz") from error
    if len(packed) > _PACKED:
        raise DataError(f"{path}: more than {_PACKED >> 20} MiB; {_CURE}")
    try:
        opener = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        raw = opener.decompress(packed, _UNPACKED + 1)
    except lzma.LZMAError as error:
        raise DataError(f"{path}: not an intact .tar.xz ({error}); fetch it again") from error
    if len(raw) > _UNPACKED:
        raise DataError(f"{path}: unpacks to more than {_UNPACKED >> 20} MiB; {_CURE}")
    if not opener.eof:
        raise DataError(f"{path}: ends too early; fetch it again")
    texts: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
            for member in tar:
                key = _key(member, path)
                file_ = tar.extractfile(member) if key is not None else None
                if key is None or file_ is None:
                    continue
                if key in texts:
                    raise DataError(f"{path}: holds {member.name!r} twice; keep one of them")
                texts[key] = file_.read()
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not an intact .tar.xz ({error}); fetch it again") from error
    return texts


def _key(member: tarfile.TarInfo, path: Path) -> str | None:
    """The motion's name, "" for the skeleton, None for what is not read: links, devices, other files, and sie/."""
    parts = PurePosixPath(member.name).parts
    if ".." in parts or member.name.startswith("/"):
        raise DataError(f"{path}: entry {member.name!r} points outside the archive; fetch it from its origin")
    # CC BY-NC: not ours to train on
    if not member.isreg() or any(part.lower() == "sie" or part.lower().startswith("sie_") for part in parts):
        return None
    if parts[-3:] == ("data", "characters", "humanoid3d.txt"):
        return ""
    named = re.fullmatch(r"humanoid3d_([a-z0-9_]{1,40})\.txt", parts[-1]) if parts else None
    return named.group(1) if named else None


def _document(text: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: broken JSON ({error}); fetch the archive again") from error
    if not isinstance(document, dict):
        raise DataError(f"{where}: a JSON object is expected, not {type(document).__name__}; {_CURE}")
    return document


def _vector(row: dict[str, Any], names: str, where: str) -> list[float]:
    """The numbers of `row` under `names`, in our axes where they are X Y Z."""
    try:
        values = [float(row[name]) for name in names.split()]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {row.get('Name')!r} needs the numbers {names} ({error}); {_CURE}") from error
    if not all(math.isfinite(v) and abs(v) < 10 for v in values):
        raise DataError(f"{where}: {row.get('Name')!r}: {names} are {values}, expected metres below 10; {_CURE}")
    return values


def _skeleton(document: dict[str, Any], where: str) -> _Skeleton:
    """Check that this is the humanoid we know, joint for joint, and take its lengths and bodies."""
    try:
        joints, bodies = document["Skeleton"]["Joints"], document["BodyDefs"]
        names = [joint["Name"] for joint in joints]
        found = {
            joint["Name"]: (joint["Type"], names[joint["Parent"]] if joint["Parent"] >= 0 else "") for joint in joints
        }
        shapes = {body["Name"]: body for body in bodies}
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{where}: no Skeleton.Joints and BodyDefs as expected ({error!r}); {_CURE}") from error
    known = {n: (_KINDS.get(n.split("_")[-1], "spherical"), parent) for n, parent in _PARENTS.items()}
    odd = sorted({str(n) for n in known.keys() | found.keys() if known.get(n) != found.get(n)})
    if odd or len(names) != len(known) or known.keys() - shapes.keys():
        lacking = odd or sorted(known.keys() - shapes.keys()) or ["a joint named twice"]
        raise DataError(f"{where}: unknown, missing or other joints: {', '.join(lacking)}; {_CURE}")
    offsets, centres, halves = (np.zeros((len(known), 3)) for _ in range(3))
    rounds = np.zeros(len(known))
    for joint in joints:
        at, shape = _BONES[joint["Name"]], shapes[joint["Name"]]
        if any(_vector(joint, "AttachThetaX AttachThetaY AttachThetaZ", where)):
            raise DataError(f"{where}: joint {joint['Name']} has a turned frame, which is not read; {_CURE}")
        offsets[at] = _axes(np.array(_vector(joint, "AttachX AttachY AttachZ", where)))
        centres[at] = _axes(np.array(_vector(shape, "AttachX AttachY AttachZ", where)))
        wide, high, deep = (v / 2 for v in _vector(shape, "Param0 Param1 Param2", where))
        if shape.get("Shape") == "box":
            halves[at] = wide, deep, high
        else:
            rounds[at], halves[at, 2] = wide, high if shape.get("Shape") == "capsule" else 0.0
    return _Skeleton(tuple(names), offsets, centres, halves, rounds)


def _axes(points: Floats) -> Floats:
    """DeepMimic's axes (x ahead, y up, z right) -> ours (x ahead, y left, z up), for (..., 3)."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


def _motion(name: str, text: bytes, skeleton: _Skeleton, where: str) -> Motion:
    document = _document(text, where)
    wide = 4 + sum(_WIDTH[_KINDS.get(n.split("_")[-1], "spherical")] for n in skeleton.order)
    rows = document.get("Frames")
    if not isinstance(rows, list) or not 2 <= len(rows) <= _FRAMES:
        raise DataError(f"{where}: Frames must be a list of 2 to {_FRAMES} frames; {_CURE}")
    odd = next((i for i, row in enumerate(rows) if not isinstance(row, list) or len(row) != wide), None)
    if odd is not None:
        raise DataError(f"{where}: frame {odd} does not hold the {wide} numbers of the skeleton's joints; {_CURE}")
    try:
        frames = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: a frame holds what is no number ({error}); {_CURE}") from error
    steps = frames[:-1, 0]
    if not np.isfinite(frames).all() or np.abs(frames[:, 1:4]).max() > 100 or steps.min() < 0 or steps.max() > 1:
        raise DataError(f"{where}: times, places or angles out of range (seconds of 0..1, metres below 100); {_CURE}")
    times = np.concatenate([[0.0], np.cumsum(np.where(steps > 0, steps, 1e-3))])
    turns = np.zeros((len(frames), len(_BONES), 4))
    turns[..., 0] = 1.0
    column = 4
    for joint in skeleton.order:
        kind = _KINDS.get(joint.split("_")[-1], "spherical")
        values = frames[:, column : column + _WIDTH[kind]]
        column += _WIDTH[kind]
        if kind == "revolute":  # about DeepMimic's z, which points right: our -y
            turns[:, _BONES[joint], 0], turns[:, _BONES[joint], 2] = np.cos(values[:, 0] / 2), -np.sin(values[:, 0] / 2)
        elif kind != "fixed":
            size = np.linalg.norm(values, axis=1, keepdims=True)
            if not ((size > 0.5) & (size < 1.5)).all():
                raise DataError(f"{where}: the rotations of {joint} are far from unit quaternions; {_CURE}")
            turns[:, _BONES[joint]] = np.concatenate([values[:, :1], _axes(values[:, 1:])], 1) / size
    places = _axes(frames[:, 1:4])
    low = _lowest(skeleton, turns) + places[:, 2]
    clear = _airborne(low, times)
    leg = float(sum(np.linalg.norm(skeleton.offsets[_BONES["left_" + n]]) for n in ("knee", "ankle")))
    return Motion(name, document.get("Loop") == "wrap", times, turns, places[:, :2], clear, leg)


# -- rotations ---------------------------------------------------------------------------------------------------------


def _times(a: Floats, b: Floats) -> Floats:
    """Quaternion products (..., 4): first b, then a."""
    (aw, ax, ay, az), (bw, bx, by, bz) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def _mix(a: Floats, b: Floats, part: Floats) -> Floats:
    """Unit quaternions (..., 4), `part` (...) of the shorter way from a to b."""
    b = b * np.where((a * b).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    mixed = a + part[..., None] * (b - a)
    return np.asarray(mixed / np.linalg.norm(mixed, axis=-1, keepdims=True))


def _about_z(angle: Floats) -> Floats:
    zero = np.zeros_like(angle)
    return np.stack([np.cos(angle / 2), zero, zero, np.sin(angle / 2)], -1)


def _frames(turns: Floats) -> Floats:
    """Bones' rotations in the world (T, 15, 3, 3) from quaternions against their parents (T, 15, 4)."""
    world = turns.copy()
    for name, parent in _PARENTS.items():
        if parent:
            world[:, _BONES[name]] = _times(world[:, _BONES[parent]], turns[:, _BONES[name]])
    w, x, y, z = np.moveaxis(world, -1, 0)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return np.stack(rows, -1).reshape(*w.shape, 3, 3)


def _lowest(skeleton: _Skeleton, turns: Floats) -> Floats:
    """Height (F,) of the captured body's lowest point against its pelvis."""
    up = _frames(turns)[:, :, 2]  # (F, 15, 3): the world's z in each bone's axes
    height = np.zeros(up.shape[:2])
    for name, parent in _PARENTS.items():
        if parent:
            height[:, _BONES[name]] = height[:, _BONES[parent]] + up[:, _BONES[parent]] @ skeleton.offsets[_BONES[name]]
    low = height + (up * skeleton.centres).sum(-1) - (np.abs(up) * skeleton.halves).sum(-1) - skeleton.rounds
    return np.asarray(low.min(1))


def _airborne(low: Floats, times: Floats) -> Floats:
    """How high a body flies (F,), from its lowest point (F,): what it rises above the floor of the 1.2 s around.

    The floor is a low quantile there, since a capture's contacts drift and dip by centimetres; 3 cm are no jump.
    """
    near = np.abs(times[:, None] - times) <= 0.6
    high = low - np.nanquantile(np.where(near, low, np.nan), 0.2, axis=1)
    return np.asarray(np.maximum(high, 0.0) * np.clip((high - 0.03) / 0.05, 0, 1))


def _turned(points: Floats, angle: Floats) -> Floats:
    """Points (..., 2 or 3) turned about the vertical by `angle` (...)."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = points[..., 0] * c - points[..., 1] * s, points[..., 0] * s + points[..., 1] * c
    return np.concatenate([np.stack([x, y], -1), points[..., 2:]], -1)


# -- from the capture to joints ----------------------------------------------------------------------------------------


def pose(motion: Motion, body: Body, times_s: Floats, rng: Generator | None = None) -> tuple[Floats, Floats]:
    """Joints (T, J, 3) of `body` above the origin, and where it is (T, 2), in metres, while it moves as captured.

    A motion that repeats goes on from where it ended; a punch or a kick comes back to its stance first; one that ends
    elsewhere than it began (getting up) is held. Times before 0 hold the beginning. `rng` adds a little sway.
    """
    turns, path, clear = _unrolled(motion, times_s)
    if rng is not None:
        turns = _with_sway(turns, times_s, rng)
    rest = _kinematics(np.zeros((1, len(CHANNELS))), body)[0]  # upright, limbs down: the build's own proportions
    frames = _frames(turns)
    joints = np.zeros((len(times_s), len(JOINTS), 3))
    waist = np.array([0.0, 0.0, 0.13 * body.height])
    for name, (bone, pivot) in _CARRIED.items():
        turn = frames[:, _BONES[bone]]
        if pivot == "waist":
            joints[:, _J[name]] = frames[:, 0] @ waist + turn @ (rest[_J[name]] - waist)
        else:
            joints[:, _J[name]] = joints[:, _J[pivot]] + turn @ (rest[_J[name]] - rest[_J[pivot]])
    bottom = joints[:, :, 2] - radii(body)
    bottom[:, _J["tail"]] += 3.0  # hair carries nobody
    scale = float(np.linalg.norm(rest[_J["ankle_l"]] - rest[_J["hip_l"]])) / motion.leg
    joints[:, :, 2] += (scale * clear - bottom.min(1))[:, None]
    return joints, scale * path


def _unrolled(motion: Motion, times_s: Floats) -> tuple[Floats, Floats, Floats]:
    """Quaternions (T, 15, 4), path (T, 2) from (0, 0) and clearance (T,) at `times_s`, over as many cycles as it takes.

    The end of a cycle is blended into the next one's first pose: within the last moments where the motion repeats,
    over an added moment where it does not.
    """
    length, first, last = float(motion.times_s[-1]), motion.turns[0], motion.turns[-1]
    back = _times(last[0], first[0] * np.array([1.0, -1.0, -1.0, -1.0]))
    heading = 2 * math.atan2(back[3], back[0])  # how far a cycle turns the body about the vertical
    upright = _frames(motion.turns[[0, -1]])[:, 0, 2, 2]
    once = not motion.repeats and abs(upright[0] - upright[1]) > 0.4
    blend = min(0.3, length / 4) if motion.repeats else 0.8
    period = math.inf if once else length + (0.0 if motion.repeats else blend)
    cycle = np.floor(np.maximum(times_s, 0.0) / period)
    inside = np.maximum(times_s, 0.0) - (cycle * period if not once else 0.0)
    at = np.interp(inside, motion.times_s, np.arange(len(motion.times_s)))
    low = np.minimum(at.astype(np.int64), len(motion.times_s) - 2)
    part = at - low
    turns = _mix(motion.turns[low], motion.turns[low + 1], np.repeat(part[:, None], len(_BONES), 1))
    path = motion.path[low] + part[:, None] * (motion.path[low + 1] - motion.path[low]) - motion.path[0]
    clear = motion.clear[low] + part * (motion.clear[low + 1] - motion.clear[low])
    if once:
        return turns, path, clear
    u = np.clip((inside - (period - blend)) / blend, 0, 1)
    u = u * u * (3 - 2 * u)
    goal = first.copy()
    goal[0] = _times(_about_z(np.array(heading)), first[0])
    turns = _mix(turns, np.broadcast_to(goal, turns.shape), np.repeat(u[:, None], len(_BONES), 1))
    clear = clear * (1 - u) + motion.clear[0] * u
    each, starts = motion.path[-1] - motion.path[0], [np.zeros(2)]
    for i in range(int(cycle.max())):
        starts.append(starts[-1] + _turned(each, np.array(i * heading)))
    turns[:, 0] = _times(_about_z(cycle * heading), turns[:, 0])
    return turns, np.array(starts)[cycle.astype(np.int64)] + _turned(path, cycle * heading), clear


def _with_sway(turns: Floats, times_s: Floats, rng: Generator) -> Floats:
    """Trunk, head and arms waver by a degree or so: nobody repeats to the bone, nor holds dead still."""
    out = turns.copy()
    for name in ("chest", "neck", "left_shoulder", "right_shoulder"):
        rates, phases, sizes = rng.uniform(0.5, 2.5, 3), rng.uniform(0, 6.28, 3), rng.normal(0, 0.015, 3)
        small = sizes * np.sin(times_s[:, None] * rates + phases)  # half angles in radians
        wave = np.concatenate([np.sqrt(1 - (small**2).sum(1, keepdims=True)), small], 1)
        out[:, _BONES[name]] = _times(out[:, _BONES[name]], wave)
    return out


# -- in a room ---------------------------------------------------------------------------------------------------------

_CORE = [_J[n] for n in ("head", "chest", "pelvis", "knee_l", "knee_r", "ankle_l", "ankle_r", "hand_l", "hand_r")]


def _place(scene: Scene, still: Still, joints: Floats, path: Floats, times_s: Floats, rng: Generator) -> Floats:
    """Joints (T, J, 3) in the room: the start, heading and curve, of many drawn, that keep clear of things and in view.

    A motion that travels is bent into a curve, since no room is as long as a run; where even that finds no way, its
    steps are shortened too, down to nearly on the spot.
    """
    speed = float(np.hypot(*(path[-1] - path[0])) / max(1e-6, times_s[-1] - times_s[0]))
    some = np.linspace(0, len(times_s) - 1, min(len(times_s), 60)).astype(np.int64)
    best, most = joints, -math.inf
    for attempt in range(240):
        short = 1.0 if attempt < 140 else float(rng.uniform(0.05, 0.8))
        radius = rng.uniform(0.6, 2.6) if attempt < 140 else rng.uniform(0.25, 1.2)
        # radians a second
        curve = float(rng.choice([-1, 1]) * min(short * speed / radius, 2.2)) if speed > 0.12 else 0.0
        bend = curve * (times_s - times_s[0]) + rng.uniform(0, 2 * math.pi)
        steps = short * _turned(np.diff(path, axis=0), 0.5 * (bend[1:] + bend[:-1]))
        at = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
        at += scene.stage.spots[rng.integers(len(scene.stage.spots))] - at[rng.integers(len(at))]
        core = _turned(joints[some][:, _CORE], bend[some, None])
        core[..., :2] += at[some, None]
        score = _score(scene, still[1], core)
        if score > most:
            most, best = score, _turned(joints, bend[:, None])
            best[..., :2] += at[:, None]
        if score > 0.93:
            break
    return best


def _score(scene: Scene, room_depth: NDArray[np.float32], core: Floats) -> float:
    """The share of core joints (N, K, 3) in view, less twice the share of moments in walls and things: at most 1."""
    room, (h, w) = scene.room, scene.camera.size
    floor = core[..., :2]
    inside = ((floor > 0.12) & (floor < np.array([room.width, room.depth]) - 0.12)).all((1, 2))
    free = scene.stage.free(floor.reshape(-1, 2), 0.08).reshape(core.shape[:2]).all(1)
    pixels, depth = scene.camera.project(core)
    x, y = pixels[..., 0], pixels[..., 1]
    column, row = np.clip(x, 0, w - 1).astype(np.int64), np.clip(y, 0, h - 1).astype(np.int64)
    seen = (x > 2) & (x < w - 2) & (y > 2) & (y < h - 2) & (depth > 0.6) & (room_depth[row, column] > depth - 0.3)
    return float(seen.mean() - 2 * (1 - (inside & free).mean()))


def render_motion(
    seed: int, motion: Motion, *, size: tuple[int, int] = (120, 160), fps: float = _FPS, seconds: float | None = None
) -> RenderedClip:
    """One person who moves as captured, in the room and before the camera of `seed`; label normal.

    The same arguments give the same bytes. `size` is (H, W); `seconds` defaults to the length `render_clip` draws.
    Room, camera, light, sensor and person are those of `render_clip(seed)`; half of the seeds mirror the motion.
    """
    length = float(_stream(seed, 3).uniform(10.0, 16.0)) if seconds is None else seconds
    times = np.arange(max(2, round(length * fps))) / fps
    scene = draw_scene(_stream(seed, 0), size)
    sensor = _draw_sensor(_stream(seed, 1), times, scene.light.night)
    people = _stream(seed, 2)
    _headcount(people)  # drawn before the first person there, so here too
    identity = int(people.integers(1 << 31))
    body, still, rng = body_of(identity), paint(scene), _stream(seed, 60)
    wait = rng.uniform(0, max(0.0, length - float(motion.times_s[-1])) / 2)  # what does not repeat comes at any time
    phase = wait if not motion.repeats else -rng.uniform(0, float(motion.times_s[-1]))
    moments = _moments(sensor, times)
    joints, path = pose(motion, body, (moments - phase) * rng.uniform(0.9, 1.1), rng)
    if rng.random() < 0.5:
        joints, path = joints[:, _SWAPPED] * np.array([1, -1, 1]), path * np.array([1, -1])
    joints = _place(scene, still, joints, path, moments, rng)[:, None]  # (S, 1, J, 3)
    annotation = Annotation("normal", motion.name, 0.0, length)
    plan = Plan((), (annotation,), (), CAPTIONS[_SAYS.get(motion.name, "exercise")], 1)
    return _film(scene, still, sensor, plan, [body], joints, times, _stream(seed, 6))


# -- the command -------------------------------------------------------------------------------------------------------


def _write_clip(task: tuple[int, Motion], folder: Path, size: tuple[int, int]) -> Row:
    """Render one clip into `folder` unless it is there; returns its manifest row."""
    seed, motion = task
    path = folder / f"mocap_{motion.name}_{seed:08d}.mp4"
    if not path.exists():
        save_video(path, render_motion(seed, motion, size=size).frames, _FPS)
    return {"file": path.name, "label": "normal", "set": "mocap", "group": motion.name, "note": motion.name}


def main(argv: list[str] | None = None) -> int:
    """Write clips of captured motions with a manifest."""
    parser = argparse.ArgumentParser(prog="python -m familial.synth.mocap", description=__doc__.split("\n")[0])
    parser.add_argument("--archive", type=Path, required=True, help="DeepMimic's motions, a .tar.xz")
    parser.add_argument("--out", type=Path, required=True, help="folder for mp4 files and manifest.csv; goes on there")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="the first clip's seed")
    parser.add_argument("--size", default="120x160", help="HxW")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    height, width = (int(v) for v in args.size.split("x"))
    try:
        motions = list(read_archive(args.archive).values())
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    work = functools.partial(_write_clip, folder=args.out, size=(height, width))
    tasks = [(seed, motions[seed % len(motions)]) for seed in range(args.seed, args.seed + args.clips)]
    try:
        save_all(work, tasks, args.out, args.workers)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
