"""Captured motion on the renderer's bodies: DeepMimic's joints, and the joints of any build with that motion.

    Motion + Body + times -> pose(): joints (T, J, 3), path (T, 2)

Joint angles are the capture's, proportions the body's; the lowest point of the body is as high above the floor as it
was in the capture, 0 while anything touched it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from familial.synth.body import Body, radii
from familial.synth.kinematics import forward_kinematics
from familial.synth.rotations import about_z, mixed, product, to_matrices, turned
from familial.synth.skeleton import CHANNELS, JOINT, JOINTS, Floats

__all__ = ["BONES", "PARENTS", "Motion", "pose", "world_rotations"]

# DeepMimic's humanoid: joint -> parent
_LIMB = {"hip": "root", "knee": "hip", "ankle": "knee", "shoulder": "chest", "elbow": "shoulder", "wrist": "elbow"}
PARENTS = {"root": "", "chest": "root", "neck": "chest"} | {
    f"{side}_{joint}": parent if parent in ("root", "chest") else f"{side}_{parent}"
    for side in ("right", "left")
    for joint, parent in _LIMB.items()
}


BONES = {name: i for i, name in enumerate(PARENTS)}


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


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """One captured motion of F frames, in the renderer's axes (x ahead, y left, z up), metres and seconds.

    Attributes:
        name: As the archive names it.
        repeats: Whether its end leads into its beginning.
        times_s: (F,) from 0.
        turns: (F, 15, 4) unit quaternions w, x, y, z of DeepMimic's joints against their parents.
        path: (F, 2) where the pelvis is over the floor.
        clear: (F,) height of the lowest point above the floor.
        leg: Length of the captured skeleton's leg, hip to ankle.
    """

    name: str
    repeats: bool
    times_s: Floats
    turns: Floats
    path: Floats
    clear: Floats
    leg: float


def world_rotations(turns: Floats) -> Floats:
    """Bones' rotations in the world (T, 15, 3, 3) from quaternions against their parents (T, 15, 4)."""
    world = turns.copy()
    for name, parent in PARENTS.items():
        if parent:
            world[:, BONES[name]] = product(world[:, BONES[parent]], turns[:, BONES[name]])
    return to_matrices(world)


def pose(motion: Motion, body: Body, times_s: Floats, rng: Generator | None = None) -> tuple[Floats, Floats]:
    """Pose `body` as captured.

    A motion that repeats continues from where it ended; a punch or a kick first returns to its stance; one that ends in
    another posture than it began (getting up) is held at its end.

    Args:
        motion: The capture.
        body: Whose proportions the joints have.
        times_s: (T,) seconds of the motion; times before 0 hold its first frame.
        rng: Adds a little sway.

    Returns:
        Joints (T, J, 3) above the origin, and where the body is (T, 2), in metres.
    """
    turns, path, clear = _unrolled(motion, times_s)
    if rng is not None:
        turns = _with_sway(turns, times_s, rng)
    rest = forward_kinematics(np.zeros((1, len(CHANNELS))), body)[0]  # upright, limbs down: the build's own proportions
    frames = world_rotations(turns)
    joints = np.zeros((len(times_s), len(JOINTS), 3))
    waist = np.array([0.0, 0.0, 0.13 * body.height])
    for name, (bone, pivot) in _CARRIED.items():
        turn = frames[:, BONES[bone]]
        if pivot == "waist":
            joints[:, JOINT[name]] = frames[:, 0] @ waist + turn @ (rest[JOINT[name]] - waist)
        else:
            joints[:, JOINT[name]] = joints[:, JOINT[pivot]] + turn @ (rest[JOINT[name]] - rest[JOINT[pivot]])
    bottom = joints[:, :, 2] - radii(body)
    bottom[:, JOINT["tail"]] += 3.0  # hair carries no weight
    scale = float(np.linalg.norm(rest[JOINT["ankle_l"]] - rest[JOINT["hip_l"]])) / motion.leg
    joints[:, :, 2] += (scale * clear - bottom.min(1))[:, None]
    return joints, scale * path


def _unrolled(motion: Motion, times_s: Floats) -> tuple[Floats, Floats, Floats]:
    """Quaternions (T, 15, 4), path (T, 2) from (0, 0) and clearance (T,) at `times_s`, over as many cycles as it takes.

    The end of a cycle is blended into the next one's first pose: within the last moments where the motion repeats,
    over an added moment where it does not.
    """
    length, first, last = float(motion.times_s[-1]), motion.turns[0], motion.turns[-1]
    back = product(last[0], first[0] * np.array([1.0, -1.0, -1.0, -1.0]))
    heading = 2 * math.atan2(back[3], back[0])  # how far a cycle turns the body about the vertical
    upright = world_rotations(motion.turns[[0, -1]])[:, 0, 2, 2]
    once = not motion.repeats and abs(upright[0] - upright[1]) > 0.4
    blend = min(0.3, length / 4) if motion.repeats else 0.8
    period = math.inf if once else length + (0.0 if motion.repeats else blend)
    cycle = np.floor(np.maximum(times_s, 0.0) / period)
    inside = np.maximum(times_s, 0.0) - (cycle * period if not once else 0.0)
    at = np.interp(inside, motion.times_s, np.arange(len(motion.times_s)))
    low = np.minimum(at.astype(np.int64), len(motion.times_s) - 2)
    part = at - low
    turns = mixed(motion.turns[low], motion.turns[low + 1], np.repeat(part[:, None], len(BONES), 1))
    path = motion.path[low] + part[:, None] * (motion.path[low + 1] - motion.path[low]) - motion.path[0]
    clear = motion.clear[low] + part * (motion.clear[low + 1] - motion.clear[low])
    if once:
        return turns, path, clear
    u = np.clip((inside - (period - blend)) / blend, 0, 1)
    u = u * u * (3 - 2 * u)
    goal = first.copy()
    goal[0] = product(about_z(np.array(heading)), first[0])
    turns = mixed(turns, np.broadcast_to(goal, turns.shape), np.repeat(u[:, None], len(BONES), 1))
    clear = clear * (1 - u) + motion.clear[0] * u
    each, starts = motion.path[-1] - motion.path[0], [np.zeros(2)]
    for i in range(int(cycle.max())):
        starts.append(starts[-1] + turned(each, np.array(i * heading)))
    turns[:, 0] = product(about_z(cycle * heading), turns[:, 0])
    return turns, np.array(starts)[cycle.astype(np.int64)] + turned(path, cycle * heading), clear


def _with_sway(turns: Floats, times_s: Floats, rng: Generator) -> Floats:
    """Sway trunk, head and arms by about a degree: nobody repeats a motion exactly, or stands perfectly still."""
    out = turns.copy()
    for name in ("chest", "neck", "left_shoulder", "right_shoulder"):
        rates, phases, sizes = rng.uniform(0.5, 2.5, 3), rng.uniform(0, 6.28, 3), rng.normal(0, 0.015, 3)
        small = sizes * np.sin(times_s[:, None] * rates + phases)  # half angles in radians
        wave = np.concatenate([np.sqrt(1 - (small**2).sum(1, keepdims=True)), small], 1)
        out[:, BONES[name]] = product(out[:, BONES[name]], wave)
    return out
