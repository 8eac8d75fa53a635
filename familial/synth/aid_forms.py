"""The forms of a wheelchair and of a walking frame, made to the measure of a body."""

from __future__ import annotations

import numpy as np

from familial.synth.aids import Form, Piece, Wheel
from familial.synth.body import Body
from familial.synth.kinematics import posed
from familial.synth.postures import posture_row, set_channels
from familial.synth.skeleton import CHANNEL, JOINT, Floats

__all__ = ["SEATED", "frame_ahead", "ridden", "seated_row", "walking_frame", "wheelchair"]

SEATED = {"hip": 84.0, "knee": 80.0, "lean": -4.0, "sho": 24.0, "elb": 62.0, "arm": 8.0, "abd": 5.0, "sway": 0.3}
"""How somebody sits in a wheelchair: channels on top of the posture `sit`."""

_AROUND = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
_SEGMENTS = 14  # of a tyre


def seated_row(body: Body) -> Floats:
    """The channels (C,) of `body` in a wheelchair, at the origin."""
    row = posture_row(body, "sit")
    set_channels(row, SEATED)
    return row


def wheelchair(body: Body) -> Form:
    """A wheelchair for `body`; its origin is the floor between the large wheels."""
    k = body.height / 1.75
    joints = posed(seated_row(body)[None], body)[0]
    lift = 0.09 * k
    seat = np.array([0.06 * k, 0.0, joints[JOINT["pelvis"], 2] + lift])
    foot = seat + joints[JOINT["ankle_l"]] - joints[JOINT["pelvis"]]
    low = seat[2] - 0.115 * k * max(1.0, body.mass)  # the seat's upper side
    half, back = 0.225 * k * max(1.0, body.mass**0.5), -0.115 * k * max(1.0, body.mass)
    top, front = low + 0.40 * k, 0.36 * k
    pieces = [
        _box((back, -half, low - 0.045 * k), (front, half, low), "cloth"),
        _box((back - 0.04 * k, -half, low), (back, half, top), "cloth"),
    ]
    rims = []
    for sign in (1.0, -1.0):
        side, wide = sign * half, sign * (half + 0.05 * k)
        wheel = Wheel((0.0, wide, 0.305 * k), 0.305 * k)
        rims.append(wheel)
        pieces += _wheel(wheel, 0.016 * k)
        pieces += [
            _tube((back - 0.02 * k, side, 0.2 * k), (back - 0.02 * k, side, top + 0.08 * k), 0.013 * k),
            _tube((back - 0.02 * k, side, top + 0.08 * k), (back - 0.16 * k, side, top + 0.09 * k), 0.016 * k),
            _tube((back, side, 0.2 * k), (front, side, 0.2 * k), 0.012 * k),
            _tube((back, side, low + 0.19 * k), (front - 0.1 * k, side, low + 0.19 * k), 0.02 * k),
            _tube((front - 0.1 * k, side, low + 0.19 * k), (front - 0.02 * k, side, 0.2 * k), 0.012 * k),
            _tube((front, side, low - 0.03 * k), (foot[0] + 0.02 * k, sign * 0.13 * k, lift), 0.013 * k),
            _disc((front - 0.04 * k, side, 0.085 * k), 0.085 * k, 0.015 * k),
            _box(
                (foot[0] - 0.05 * k, min(sign * 0.03, sign * 0.19) * k, lift - 0.025 * k),
                (foot[0] + 0.14 * k, max(sign * 0.03, sign * 0.19) * k, lift - 0.005 * k),
                "tube",
            ),
        ]
    grips = np.array([[back - 0.13 * k, sign * half, top + 0.1 * k] for sign in (1.0, -1.0)])
    return Form(tuple(pieces), seat, grips, (rims[0], rims[1]), (foot[0] + 0.1 * k, -0.02 * k, half + 0.06 * k))


def walking_frame(body: Body, wheels: bool) -> Form:
    """A walking frame for `body`, with four small wheels and a seat or without; its origin is between its legs."""
    k = body.height / 1.75
    high, half = 0.47 * body.height, 0.27 * k
    front, back, foot = 0.2 * k, -0.24 * k, 0.045 * k
    seat = np.array([0.0, 0.0, 0.3 * body.height])
    pieces = []
    for sign in (1.0, -1.0):
        side, splay = sign * half, sign * (half + 0.02 * k)
        pieces += [
            _tube((front, splay, foot), (front - 0.13 * k, side, high - 0.02 * k), 0.014 * k),
            _tube((back, splay, foot), (back + 0.07 * k, side, high - 0.02 * k), 0.014 * k),
            _tube((front - 0.13 * k, side, high), (back - 0.04 * k, side, high), 0.015 * k),
            _tube(
                (back - 0.06 * k, side, high + 0.005 * k), (back + 0.07 * k, side, high + 0.005 * k), 0.022 * k, "tyre"
            ),
            _tube((front - 0.06 * k, side, 0.45 * high), (back + 0.03 * k, side, 0.45 * high), 0.011 * k),
        ]
        for end in (front, back):
            if wheels:
                pieces.append(_disc((end, splay, 0.09 * k), 0.09 * k, 0.016 * k))
            else:
                pieces.append(_tube((end, splay, 0.0), (end, splay, 2 * foot), 0.02 * k, "tyre"))
    for at, level in ((front - 0.1 * k, 0.78 * high), (front - 0.06 * k, 0.45 * high)):
        pieces.append(_tube((at, -half, level), (at, half, level), 0.013 * k))
    if wheels:
        level = seat[2] - 0.115 * k
        pieces.append(_box((back + 0.1 * k, -half, level - 0.03 * k), (front - 0.08 * k, half, level), "cloth"))
    grips = np.array([[back + 0.01 * k, sign * half, high + 0.03 * k] for sign in (1.0, -1.0)])
    return Form(tuple(pieces), seat, grips, None, (front, back, half))


def frame_ahead(body: Body) -> float:
    """Metres from the feet of `body` to the origin of its walking frame."""
    return 0.5 * body.height / 1.75


def ridden(body: Body, rows: Floats, seats: Floats) -> Floats:
    """Channels (n, C) moved so that the pelvis is at `seats` (n, 3) in metres."""
    out = rows.copy()
    away = seats - posed(rows, body)[:, JOINT["pelvis"]]
    out[:, :2] += away[:, :2]
    out[:, CHANNEL["lift"]] = np.maximum(rows[:, CHANNEL["lift"]] + away[:, 2], 0.0)
    return out


Point = tuple[float, float, float]


def _box(low: Point, high: Point, made_of: str) -> Piece:
    ends = np.array([low, high])
    corners = [(ends[a, 0], ends[b, 1], ends[c, 2]) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    return Piece(np.array(corners), made_of)


def _tube(start: Point, end: Point, radius: float, made_of: str = "tube") -> Piece:
    return Piece(np.concatenate([start + radius * _AROUND, end + radius * _AROUND]), made_of)


def _disc(middle: Point, radius: float, half: float) -> Piece:
    """A small wheel, upright, that rolls forward."""
    turns = np.arange(10) * np.pi / 5
    ring = np.stack([radius * np.cos(turns), np.zeros(10), radius * np.sin(turns)], -1)
    return Piece(np.concatenate([middle + ring + (0.0, half, 0.0), middle + ring - (0.0, half, 0.0)]), "tyre")


def _wheel(wheel: Wheel, half: float) -> list[Piece]:
    """A large wheel: a tyre that one sees through, and spokes."""
    turns = np.arange(_SEGMENTS + 1) * 2 * np.pi / _SEGMENTS
    around = np.stack([np.cos(turns), np.zeros(len(turns)), np.sin(turns)], -1)
    pieces = []
    for one, two in zip(around[:-1], around[1:], strict=True):
        arc = [part * wheel.radius * way for part in (0.87, 1.0) for way in (one, two)]
        corners = np.array([wheel.middle + each + (0.0, y, 0.0) for each in arc for y in (-half, half)])
        pieces.append(Piece(corners, "tyre"))
    for turn in np.arange(4) * np.pi / 4:
        spoke = 0.88 * wheel.radius * np.array([np.cos(turn), 0.0, np.sin(turn)])
        ends = [np.asarray(wheel.middle) - spoke, np.asarray(wheel.middle) + spoke]
        corners = np.concatenate([end + 0.3 * half * _AROUND for end in ends])
        pieces.append(Piece(corners, "tube", wheel))
    return pieces
