"""DeepMimic's archive of captured motions -> Motion, checked and within limits.

    FILE.tar.xz -> read_archive() -> {name: Motion}

The archive is read in memory, and nothing of it is written to disk or shipped. The folder `sie`, whose terms forbid
commercial use, is left out by rule: only the motions under DeepMimic's own MIT licence are read.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from familial.synth.capture import BONES, PARENTS, Motion, world_rotations
from familial.synth.skeleton import Floats
from wire.errors import DataError

__all__ = ["read_archive"]

_PACKED, _UNPACKED, _MEMORY = 64 << 20, 128 << 20, 256 << 20  # bytes at most: archive, its content, xz's dictionary
_FRAMES = 4_000  # of one motion, at most
_CURE = "use DeepMimic's archive of humanoid3d_*.txt with data/characters/humanoid3d.txt"


_JOINT_KINDS = {"root": "none", "knee": "revolute", "elbow": "revolute", "wrist": "fixed"}
_WIDTH = {"none": 4, "spherical": 4, "revolute": 1, "fixed": 0}


@dataclass(frozen=True, slots=True, eq=False)
class _Skeleton:
    """The captured skeleton.

    Attributes:
        order: The joints as a frame lists them.
        offsets: (15, 3) of each joint from its parent.
        centres: (15, 3) of each joint's body from the joint.
        halves: (15, 3) half extents of that body without its rounding.
        rounds: (15,) rounding radius.
    """

    order: tuple[str, ...]
    offsets: Floats
    centres: Floats
    halves: Floats
    rounds: Floats


def read_archive(path: Path | str) -> dict[str, Motion]:
    """Every motion under the MIT licence in DeepMimic's archive, by name.

    Raises:
        DataError: The archive cannot be used; the message names the cure.
    """
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
    # sie/ is under CC BY-NC: not to be trained on
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
    """Check that this is the known humanoid, joint for joint, and read its lengths and bodies."""
    try:
        joints, bodies = document["Skeleton"]["Joints"], document["BodyDefs"]
        names = [joint["Name"] for joint in joints]
        found = {
            joint["Name"]: (joint["Type"], names[joint["Parent"]] if joint["Parent"] >= 0 else "") for joint in joints
        }
        shapes = {body["Name"]: body for body in bodies}
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{where}: no Skeleton.Joints and BodyDefs as expected ({error!r}); {_CURE}") from error
    known = {n: (_JOINT_KINDS.get(n.split("_")[-1], "spherical"), parent) for n, parent in PARENTS.items()}
    odd = sorted({str(n) for n in known.keys() | found.keys() if known.get(n) != found.get(n)})
    if odd or len(names) != len(known) or known.keys() - shapes.keys():
        lacking = odd or sorted(known.keys() - shapes.keys()) or ["a joint named twice"]
        raise DataError(f"{where}: unknown, missing or other joints: {', '.join(lacking)}; {_CURE}")
    offsets, centres, halves = (np.zeros((len(known), 3)) for _ in range(3))
    rounds = np.zeros(len(known))
    for joint in joints:
        at, shape = BONES[joint["Name"]], shapes[joint["Name"]]
        if any(_vector(joint, "AttachThetaX AttachThetaY AttachThetaZ", where)):
            raise DataError(f"{where}: joint {joint['Name']} has a turned frame, which is not read; {_CURE}")
        offsets[at] = _from_deepmimic(np.array(_vector(joint, "AttachX AttachY AttachZ", where)))
        centres[at] = _from_deepmimic(np.array(_vector(shape, "AttachX AttachY AttachZ", where)))
        wide, high, deep = (v / 2 for v in _vector(shape, "Param0 Param1 Param2", where))
        if shape.get("Shape") == "box":
            halves[at] = wide, deep, high
        else:
            rounds[at], halves[at, 2] = wide, high if shape.get("Shape") == "capsule" else 0.0
    return _Skeleton(tuple(names), offsets, centres, halves, rounds)


def _from_deepmimic(points: Floats) -> Floats:
    """DeepMimic's axes (x ahead, y up, z right) -> ours (x ahead, y left, z up), for (..., 3)."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


def _motion(name: str, text: bytes, skeleton: _Skeleton, where: str) -> Motion:
    document = _document(text, where)
    wide = 4 + sum(_WIDTH[_JOINT_KINDS.get(n.split("_")[-1], "spherical")] for n in skeleton.order)
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
    turns = np.zeros((len(frames), len(BONES), 4))
    turns[..., 0] = 1.0
    column = 4
    for joint in skeleton.order:
        kind = _JOINT_KINDS.get(joint.split("_")[-1], "spherical")
        values = frames[:, column : column + _WIDTH[kind]]
        column += _WIDTH[kind]
        if kind == "revolute":  # about DeepMimic's z, which points right: our -y
            turns[:, BONES[joint], 0], turns[:, BONES[joint], 2] = np.cos(values[:, 0] / 2), -np.sin(values[:, 0] / 2)
        elif kind != "fixed":
            size = np.linalg.norm(values, axis=1, keepdims=True)
            if not ((size > 0.5) & (size < 1.5)).all():
                raise DataError(f"{where}: the rotations of {joint} are far from unit quaternions; {_CURE}")
            turns[:, BONES[joint]] = np.concatenate([values[:, :1], _from_deepmimic(values[:, 1:])], 1) / size
    places = _from_deepmimic(frames[:, 1:4])
    low = _lowest(skeleton, turns) + places[:, 2]
    clear = _airborne(low, times)
    leg = float(sum(np.linalg.norm(skeleton.offsets[BONES["left_" + n]]) for n in ("knee", "ankle")))
    return Motion(name, document.get("Loop") == "wrap", times, turns, places[:, :2], clear, leg)


def _lowest(skeleton: _Skeleton, turns: Floats) -> Floats:
    """Height (F,) of the captured body's lowest point against its pelvis."""
    up = world_rotations(turns)[:, :, 2]  # (F, 15, 3): the world's z in each bone's axes
    height = np.zeros(up.shape[:2])
    for name, parent in PARENTS.items():
        if parent:
            height[:, BONES[name]] = height[:, BONES[parent]] + up[:, BONES[parent]] @ skeleton.offsets[BONES[name]]
    low = height + (up * skeleton.centres).sum(-1) - (np.abs(up) * skeleton.halves).sum(-1) - skeleton.rounds
    return np.asarray(low.min(1))


def _airborne(low: Floats, times: Floats) -> Floats:
    """Height (F,) of a jumping body above the floor, from its lowest point (F,) and the floor of the 1.2 s around.

    The floor is a low quantile there, since a capture's contacts drift and dip by centimetres; 3 cm are no jump.
    """
    near = np.abs(times[:, None] - times) <= 0.6
    high = low - np.nanquantile(np.where(near, low, np.nan), 0.2, axis=1)
    return np.asarray(np.maximum(high, 0.0) * np.clip((high - 0.03) / 0.05, 0, 1))
