"""Forward kinematics: from channels to the places of joints.

    channels (N, C) -> gait and sway added -> joints about the pelvis -> on the floor -> hands on what they hold
                    -> joints (T, J, 3) in metres

The gait follows from the path of the feet; the body stands on the floor by its lowest point.
"""

from __future__ import annotations

import math

import numpy as np

from familial.synth.body import Body, radii
from familial.synth.grips import held
from familial.synth.keyframes import KeyFrames
from familial.synth.skeleton import CHANNEL, CHANNELS, JOINT, JOINTS, RATE, Floats

__all__ = ["forward_kinematics", "perform", "posed", "present", "rotation", "tilt"]


def perform(actor: KeyFrames, times_s: Floats) -> Floats:
    """Where the joints are at `times_s` (T,): float64 (T, J, 3) in metres."""
    rows = _with_sway(_with_gait(actor.channels(), actor.body), actor)
    joints = _placed(forward_kinematics(rows, actor.body), rows, radii(actor.body))
    if actor.grips:
        joints = held(joints, actor.grips)
    at = np.clip(times_s * RATE - 1.0, 0.0, len(rows) - 1.0)
    low = np.minimum(at.astype(np.int64), max(0, len(rows) - 2))
    high = np.minimum(low + 1, len(rows) - 1)
    part = (at - low)[:, None, None]
    return np.asarray(joints[low] * (1.0 - part) + joints[high] * part)


def present(actor: KeyFrames) -> Floats:
    """Where the joints are at the end of what is written: (J, 3) in metres, without sway."""
    rows = _with_gait(actor.channels(), actor.body)
    return np.asarray(_placed(forward_kinematics(rows, actor.body), rows, radii(actor.body))[-1])


def _low_pass(x: Floats, width: int) -> Floats:
    """Moving average down the first axis, edges held."""
    padded = np.concatenate([np.repeat(x[:1], width, axis=0), x, np.repeat(x[-1:], width, axis=0)])
    sums = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0)
    span = 2 * width + 1
    return np.asarray((sums[span:] - sums[:-span]) / span)


def _with_gait(rows: Floats, body: Body) -> Floats:
    """Add the steps that the path of the feet asks for, longer and quicker with speed."""
    if len(rows) < 3:
        return rows
    yaw = np.radians(rows[:, 2])
    velocity = _low_pass(np.gradient(rows[:, :2], axis=0) * RATE, 4)
    turning = np.abs(_low_pass(np.gradient(yaw) * RATE, 4))
    ahead = velocity[:, 0] * np.cos(yaw) + velocity[:, 1] * np.sin(yaw)
    beside = velocity[:, 1] * np.cos(yaw) - velocity[:, 0] * np.sin(yaw)
    speed = np.hypot(ahead, beside) + 1e-6
    pace = speed + 0.14 * turning
    period = np.clip(1.12 * (1.2 / np.maximum(pace, 0.2)) ** 0.5 * math.sqrt(body.height / 1.75), 0.45, 1.8)
    phase = np.cumsum(2 * np.pi / (RATE * period) * (pace > 0.06)) + body.seed % 7
    weight = np.clip(pace / 0.35, 0, 1) * rows[:, CHANNEL["gait"]]
    swing = np.degrees(np.arcsin(np.clip(pace * period / 4 / (0.53 * body.height), 0, 0.62)))
    forward = np.clip(np.where(ahead < -0.05, -1, 1) * np.maximum(np.abs(ahead) / speed, 0.3), -1, 1)
    run = np.clip((speed - 1.9) / 1.0, 0, 1)
    out = rows.copy()
    for side, offset in (("_l", 0.0), ("_r", np.pi)):
        p = (phase + offset) % (2 * np.pi)
        lift = np.exp(-(((p - 4.75) / 0.85) ** 2)) + np.exp(-(((p - 4.75 + 2 * np.pi) / 0.85) ** 2))
        load = np.exp(-(((p - 0.75) / 0.5) ** 2))
        out[:, CHANNEL["hip" + side]] += weight * (swing * np.cos(p) * forward + 5 + 22 * run * lift)
        out[:, CHANNEL["knee" + side]] += weight * ((18 + 1.5 * swing + 30 * run) * lift + 10 * load)
        out[:, CHANNEL["abd" + side]] += weight * swing * 0.5 * np.cos(p) * np.clip(beside / speed, -1, 1)
        free = np.clip(1 - np.abs(rows[:, CHANNEL["sho" + side]]) / 40, 0, 1)
        out[:, CHANNEL["sho" + side]] -= weight * free * swing * np.cos(p) * forward * body.swing * (0.75 + 0.5 * run)
    out[:, CHANNEL["side"]] += weight * 2.0 * np.sin(phase)
    out[:, CHANNEL["twist"]] += weight * 4.0 * np.cos(phase)
    out[:, CHANNEL["lift"]] += weight * run * 0.07 * np.abs(np.sin(phase))
    return out


def _with_sway(rows: Floats, actor: KeyFrames) -> Floats:
    """Add slow random motion of a degree or two: nobody stands perfectly still, except where `sway` is small."""
    n, out = len(rows), rows.copy()
    knots = actor.rng.standard_normal((n // 25 + 5, len(CHANNELS)))
    knots[:, : CHANNEL["lean"]] = 0.0
    knots[:, CHANNEL["lift"] :] = 0.0
    at = np.arange(n) / 25.0 + 1.0
    low = at.astype(np.int64)
    part = (at - low)[:, None]
    part = part * part * (3 - 2 * part)
    out += (knots[low] * (1 - part) + knots[low + 1] * part) * 2.2 * rows[:, CHANNEL["sway"], None]
    return out


def rotation(axis: int, degrees: Floats) -> Floats:
    """Rotation matrices (T, 3, 3) about axis 0, 1 or 2."""
    a = np.radians(degrees)
    c, s = np.cos(a), np.sin(a)
    out = np.zeros((len(a), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[:, axis, axis] = 1.0
    out[:, i, i] = out[:, j, j] = c
    out[:, i, j], out[:, j, i] = -s, s
    return out


def tilt(forward: Floats, left: Floats) -> Floats:
    """Rotations (T, 3, 3) that carry the upright towards (forward, left) by hypot(forward, left) degrees."""
    angle = np.radians(np.hypot(forward, left))
    way = np.arctan2(left, forward)
    kx, ky = -np.sin(way), np.cos(way)  # the axis: horizontal, across the way
    c, s = np.cos(angle), np.sin(angle)
    out = np.zeros((len(angle), 3, 3))
    out[:, 0, 0], out[:, 0, 1], out[:, 0, 2] = c + kx * kx * (1 - c), kx * ky * (1 - c), ky * s
    out[:, 1, 0], out[:, 1, 1], out[:, 1, 2] = kx * ky * (1 - c), c + ky * ky * (1 - c), -kx * s
    out[:, 2, 0], out[:, 2, 1], out[:, 2, 2] = -ky * s, kx * s, c
    return out


def _limb(flex: Floats, spread: Floats, side: float) -> Floats:
    """Directions (T, 3) of a hanging limb swung forward by `flex` and outward by `spread` degrees."""
    f, a = np.radians(flex), np.radians(spread)
    return np.stack([np.sin(f) * np.cos(a), side * np.sin(a), -np.cos(f) * np.cos(a)], axis=1)


def forward_kinematics(rows: Floats, body: Body) -> Floats:
    """Joints (T, J, 3) about the pelvis, turned to the heading, from channels (T, C)."""
    h = body.height
    ch = {name: rows[:, i] for name, i in CHANNEL.items()}
    joints = np.zeros((len(rows), len(JOINTS), 3))

    def put(name: str, base: Floats, frame: Floats, offset: Floats) -> Floats:
        place: Floats = base + np.einsum("tij,tj->ti", frame, np.broadcast_to(offset, base.shape))
        joints[:, JOINT[name]] = place
        return place

    root = rotation(2, ch["yaw"]) @ tilt(ch["tip_f"], ch["tip_l"]) @ rotation(2, ch["spin"])
    trunk = root @ rotation(1, ch["lean"]) @ rotation(0, -ch["side"])
    upper = trunk @ rotation(2, ch["twist"]) @ rotation(1, ch["curl"])
    skull = upper @ rotation(1, ch["nod"])
    pelvis = joints[:, 0]
    put("belly", pelvis, trunk, np.array([0.008 * h, 0, 0.09 * h]))
    middle = pelvis + np.einsum("tij,j->ti", trunk, np.array([0, 0, 0.13 * h]))
    put("chest", middle, upper, np.array([0, 0, 0.085 * h]))
    neck = put("neck", middle, upper, np.array([0, 0, 0.165 * h]))
    head = put("head", neck, skull, np.array([0.012 * h, 0, 0.087 * h]))
    face = 0.057 * h
    put("chin", head, skull, face * np.array([0.35, 0, -0.75]))
    put("crown", head, skull, face * np.array([-0.5, 0, 0.36]))
    put("tail", head, skull, face * np.array([-0.85, 0, -1.7]))
    put("nose", head, skull, face * np.array([1.08, 0, -0.2]))
    for side, sign in (("_l", 1.0), ("_r", -1.0)):
        put("eye" + side, head, skull, face * np.array([0.9, 0.32 * sign, 0.15]))
        put("ear" + side, head, skull, face * np.array([0.0, 0.95 * sign, 0.0]))
        shoulder = put("shoulder" + side, middle, upper, np.array([0, 0.099 * h * sign, 0.142 * h]))
        flex, out = ch["sho" + side], ch["arm" + side]
        bend = flex + ch["elb" + side]
        inward = out - 0.3 * ch["elb" + side]
        elbow = put("elbow" + side, shoulder, upper, 0.168 * h * _limb(flex, out, sign))
        forearm = _limb(bend, inward, sign)
        put("wrist" + side, elbow, upper, 0.146 * h * forearm)
        put("hand" + side, elbow, upper, 0.19 * h * forearm)
        hip = put("hip" + side, pelvis, root, np.array([0, 0.05 * h * sign, -0.01 * h]))
        flex, out = ch["hip" + side], ch["abd" + side]
        knee = put("knee" + side, hip, root, 0.245 * h * _limb(flex, out, sign))
        low = flex - ch["knee" + side]
        ankle = put("ankle" + side, knee, root, 0.235 * h * _limb(low, out * 0.6, sign))
        # the sole stays flat while someone stands, and points on with the shin when the leg is off the ground
        upright = np.clip(1.6 - np.hypot(ch["tip_f"], ch["tip_l"]) / 40, 0, 1)
        pitch = np.radians(np.clip(low, -70, 50) * (1 - 0.75 * upright) - 25 * (1 - upright))
        toe = np.stack([np.cos(pitch), np.zeros_like(pitch), np.sin(pitch)], axis=1)
        heel_drop = np.stack([np.sin(pitch), np.zeros_like(pitch), -np.cos(pitch)], axis=1)
        put("toe" + side, ankle, root, 0.1 * h * toe + 0.026 * h * heel_drop)
        put("heel" + side, ankle, root, -0.022 * h * toe + 0.024 * h * heel_drop)
    return joints


def _placed(joints: Floats, rows: Floats, flesh: Floats) -> Floats:
    """Give pelvis-centred joints their place: feet (or pelvis) where the path says, lowest point on the floor."""
    ankles = joints[:, [JOINT["ankle_l"], JOINT["ankle_r"]], :2].mean(axis=1)
    hold = 1.0 - rows[:, CHANNEL["pin"], None]
    step = np.diff(rows[:, :2], axis=0) - 0.5 * (hold[1:] + hold[:-1]) * np.diff(ankles, axis=0)
    place = rows[0, :2] - ankles[0] + np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])
    out = joints.copy()
    out[:, :, :2] += place[:, None]
    out[:, :, 2] += (rows[:, CHANNEL["lift"]] - _bottom(joints, rows, flesh))[:, None]
    return out


def _bottom(joints: Floats, rows: Floats, flesh: Floats) -> Floats:
    """Height (N,) of the lowest point that carries weight, of pelvis-centred joints."""
    bottom = joints[:, :, 2] - flesh
    # hands and elbows carry weight only when the body is down, so that reaching for the floor lifts no one
    upright = np.clip((60 - np.hypot(rows[:, CHANNEL["tip_f"]], rows[:, CHANNEL["tip_l"]])) / 30, 0, 1)
    reach = [JOINT[n] for n in ("hand_l", "hand_r", "wrist_l", "wrist_r", "elbow_l", "elbow_r", "tail")]
    bottom[:, reach] += upright[:, None]
    bottom[:, JOINT["tail"]] += 3.0
    return np.asarray(bottom.min(axis=1))


def posed(rows: Floats, body: Body) -> Floats:
    """Joints (N, J, 3) in metres of single postures, channels (N, C): the feet's middle at the place of each row.

    No motion leads from one row to the next, so neither gait nor sway is added.
    """
    joints = forward_kinematics(rows, body)
    ankles = joints[:, [JOINT["ankle_l"], JOINT["ankle_r"]], :2].mean(axis=1)
    joints[:, :, :2] += (rows[:, :2] - ankles)[:, None]
    joints[:, :, 2] += (rows[:, CHANNEL["lift"]] - _bottom(joints, rows, radii(body)))[:, None]
    return joints
