"""Wheelchairs and walking frames: where they are over time, and what is seen of them.

    pieces + poses written one movement after another --> corners over time: MovingObject, ...

An aid stands on the floor by its lowest point, as a body does, and stays where it was left. Own axes: x forward, y
left, z up, metres; the origin is on the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from familial.synth.keyframes import smooth
from familial.synth.kinematics import rotation, tilt
from familial.synth.moving_objects import MovingObject
from familial.synth.skeleton import RATE, Floats

__all__ = ["POSE", "Aid", "Form", "Piece", "Wheel", "aid_objects"]

POSE = ("x", "y", "yaw", "tip_f", "tip_l", "lift")
"""Of an aid: metres, heading in degrees, degrees that it is tipped forward and to the left, metres off the floor."""

_TONES = {"tube": (0.1, 0.75, 0.15), "cloth": (0.03, 0.45, 0.5), "tyre": (0.03, 0.15, 0.1)}  # dark, light, tinted


@dataclass(frozen=True, slots=True)
class Wheel:
    """A large wheel: its middle in the aid's axes, and its radius in metres."""

    middle: tuple[float, float, float]
    radius: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A convex piece of an aid.

    Attributes:
        corners: (V, 3) metres in the aid's axes.
        made_of: "tube", "cloth" or "tyre".
        wheel: The wheel that it turns with, where it does.
    """

    corners: Floats
    made_of: str
    wheel: Wheel | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """What an aid is made of, and where people touch it; all in its own axes, metres.

    Attributes:
        pieces: What is seen.
        seat: (3,) where the pelvis of somebody who sits on it is.
        grips: (2, 3) where the left and the right hand hold it: a frame's grips, a wheelchair's handles.
        rims: The left and the right wheel that hands push; None on a frame.
        feet: How far forward, back and aside it touches the floor: what it tips over.
    """

    pieces: tuple[Piece, ...]
    seat: Floats
    grips: Floats
    rims: tuple[Wheel, Wheel] | None
    feet: tuple[float, float, float]


class Aid:
    """A wheelchair or a walking frame, and where it is: poses (n, 6), RATE a second, written one after another."""

    def __init__(self, form: Form, at: Floats, yaw: float) -> None:
        self.form = form
        self._blocks: list[Floats] = []
        self._count = 0
        self._row = np.array([at[0], at[1], yaw, 0.0, 0.0, 0.0])

    @property
    def now(self) -> float:
        """Seconds written so far."""
        return self._count / RATE

    @property
    def place(self) -> Floats:
        """Where its origin is (2,), in metres."""
        return self._row[:2].copy()

    @property
    def yaw(self) -> float:
        """Where it faces, in degrees."""
        return float(self._row[2])

    def poses(self) -> Floats:
        """All that was written: (N, 6), RATE rows a second."""
        return np.concatenate(self._blocks) if self._blocks else self._row[None].copy()

    def path(self, seconds: float, ease: str = "smooth", **values: float) -> Floats:
        """Poses (n, 6) from the present one to `values` (names of POSE) in `seconds`; they are not written."""
        target = self._row.copy()
        for name, value in values.items():
            target[POSE.index(name)] = value
        n = max(1, round(seconds * RATE))
        u = np.arange(1, n + 1) / n
        u = smooth(u) if ease == "smooth" else u**1.8 if ease == "drop" else u
        return np.asarray(self._row + u[:, None] * (target - self._row))

    def write(self, block: Floats) -> None:
        """Append poses (n, 6), RATE rows a second."""
        self._blocks.append(block)
        self._count += len(block)
        self._row = block[-1].copy()

    def hold_until(self, time_s: float) -> None:
        """Stay until `time_s`."""
        if (n := round((time_s - self.now) * RATE)) > 0:
            self.write(np.repeat(self._row[None], n, axis=0))

    def world(self, poses: Floats, points: Floats) -> Floats:
        """Points (k, 3) or (n, k, 3) of its own axes, in the room: (n, k, 3) for poses (n, 6)."""
        turn, shift = self._placing(poses)
        own = np.broadcast_to(points, (len(poses), *points.shape[-2:]))
        return np.asarray(np.einsum("nij,nkj->nki", turn, own) + shift[:, None])

    def _placing(self, poses: Floats) -> tuple[Floats, Floats]:
        """Rotations (n, 3, 3) and shifts (n, 3) of poses (n, 6): tipped about an edge of its feet, on the floor."""
        forward, back, aside = self.form.feet
        lean = tilt(poses[:, 3], poses[:, 4])
        over = np.abs(poses[:, 3]) >= np.abs(poses[:, 4])
        edge = np.zeros((len(poses), 3))
        edge[:, 0] = np.where(over, np.where(poses[:, 3] > 0, forward, np.where(poses[:, 3] < 0, back, 0.0)), 0.0)
        edge[:, 1] = np.where(over, 0.0, np.sign(poses[:, 4]) * aside)
        heading = rotation(2, poses[:, 2])
        shift = np.einsum("nij,nj->ni", heading, edge - np.einsum("nij,nj->ni", lean, edge))
        turn = heading @ lean
        corners = np.concatenate([piece.corners for piece in self.form.pieces])
        low = np.einsum("nj,kj->nk", turn[:, 2], corners).min(1)
        shift[:, :2] += poses[:, :2]
        shift[:, 2] = poses[:, 5] - low
        return turn, shift

    def rolled(self, wheel: Wheel, poses: Floats) -> Floats:
        """Degrees (n,) by which a wheel has turned along poses (n, 6)."""
        yaw = np.radians(poses[:, 2])
        middle = poses[:, :2] + wheel.middle[1] * np.stack([-np.sin(yaw), np.cos(yaw)], -1)
        step = np.diff(middle, axis=0, prepend=middle[:1])
        return np.asarray(
            np.degrees(np.cumsum(step[:, 0] * np.cos(yaw) + step[:, 1] * np.sin(yaw)) / max(wheel.radius, 0.01))
        )

    def objects(self, rng: Generator, moments: Floats) -> list[MovingObject]:
        """What is seen of it at `moments` (S,) in seconds; colours come from `rng`."""
        tones = {}
        for name, (dark, light, tinted) in _TONES.items():
            tones[name] = np.clip(rng.uniform(dark, light) * (1 + tinted * rng.uniform(-1, 1, 3)), 0.02, 1.0)
        rows = self.poses()
        nearest = np.clip(np.rint(moments * RATE - 1.0), 0, len(rows) - 1).astype(np.int64)
        poses, found = rows[nearest], []
        for piece in self.form.pieces:
            own = piece.corners
            if piece.wheel is not None:
                middle = np.array(piece.wheel.middle)
                spin = rotation(1, self.rolled(piece.wheel, rows)[nearest])
                own = middle + np.einsum("sij,kj->ski", spin, piece.corners - middle)
            colours = np.tile(tones[piece.made_of], (len(moments), 1))
            found.append(MovingObject(self.world(poses, own), colours))
        return found


def aid_objects(rng: Generator, aids: Sequence[Aid], moments: Floats) -> list[MovingObject]:
    """What is seen of all `aids` at `moments` (S,) in seconds."""
    return [each for aid in aids for each in aid.objects(rng, moments)]
