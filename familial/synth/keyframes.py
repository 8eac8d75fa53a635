"""Key frames: an actor's channels over time, written one movement after another.

go, hold, face, walk -> channels (N, C), RATE rows a second -> kinematics.perform -> joints
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from familial.synth.body import Body
from familial.synth.grips import Grip
from familial.synth.postures import posture_row, set_channels
from familial.synth.skeleton import CHANNEL, RATE, Floats

__all__ = ["KeyFrames", "smooth"]


def smooth(u: Floats) -> Floats:
    """Minimum jerk from 0 to 1 (Flash and Hogan 1985)."""
    return u * u * u * (10.0 + u * (6.0 * u - 15.0))


def _fast(u: Floats) -> Floats:
    return 1.0 - (1.0 - u) ** 2.2  # quick at first: blows, recoil


def _drop(u: Floats) -> Floats:
    return u**1.8  # slow at first: what gravity does


_EASINGS: dict[str, Callable[[Floats], Floats]] = {"smooth": smooth, "fast": _fast, "drop": _drop, "even": lambda u: u}


class KeyFrames:
    """The channels of one person, written one movement after another.

    Values are named by CHANNELS; `hip`, `knee`, `sho`, ... without `_l` or `_r` mean both sides.

    Args:
        body: The person's build.
        rng: The person's own random numbers.
        at: Where the feet stand first, in metres.
        yaw: Where the body faces first, in degrees.

    Attributes:
        grips: What the hands hold when.
    """

    def __init__(self, body: Body, rng: Generator, at: tuple[float, float], yaw: float) -> None:
        self.body = body
        self.rng = rng
        self.grips: list[Grip] = []
        self._blocks: list[Floats] = []
        self._count = 0
        self._row = posture_row(body, "stand")
        self._row[:3] = at[0], at[1], yaw

    @property
    def now(self) -> float:
        """Seconds written so far."""
        return self._count / RATE

    @property
    def place(self) -> Floats:
        """Where the feet stand (2,), in metres."""
        return self._row[:2].copy()

    @property
    def yaw(self) -> float:
        """Where the body faces, in degrees."""
        return float(self._row[2])

    @property
    def spin(self) -> float:
        """How far the body is turned about its own length, in degrees."""
        return float(self._row[CHANNEL["spin"]])

    def angle(self, channel: str) -> float:
        """The present value of a channel."""
        return float(self._row[CHANNEL[channel]])

    @property
    def lies(self) -> bool:
        """Whether the body is down."""
        return float(np.hypot(self._row[CHANNEL["tip_f"]], self._row[CHANNEL["tip_l"]])) > 50

    def restart(self, at: Floats, yaw: float) -> None:
        """Forget what was written and begin, standing, at another place."""
        self._blocks.clear()
        self.grips.clear()
        self._count = 0
        self._row = posture_row(self.body, "stand")
        self._row[:3] = at[0], at[1], yaw

    def channels(self) -> Floats:
        """All that was written: (N, C), RATE rows a second."""
        return np.concatenate(self._blocks) if self._blocks else self._row[None].copy()

    def _write(self, block: Floats) -> None:
        self._blocks.append(block)
        self._count += len(block)
        self._row = block[-1].copy()

    def write(self, block: Floats, points: Floats | None = None, weights: Floats | None = None) -> None:
        """Append channels (n, C), RATE rows a second.

        Args:
            block: The channels.
            points: (n, 2, 3) metres: what the left and the right hand hold; None for nothing.
            weights: (n, 2) how much they hold it, 0 to 1; None for 1.
        """
        if points is not None:
            self.hold_grips(self._count, points, np.ones(points.shape[:2]) if weights is None else weights)
        self._write(block)

    def hold_grips(self, first: int, points: Floats, weights: Floats) -> None:
        """Have the hands hold `points` (n, 2, 3) by `weights` (n, 2) from the row `first` on, which may be written."""
        self.grips.append(Grip(first, points, weights))

    def go(
        self,
        seconds: float,
        pose: str | None = None,
        angles: Mapping[str, float] | None = None,
        *,
        ease: str = "smooth",
        flip: bool = False,
        **values: float,
    ) -> None:
        """Move to `pose` (or stay in the present one) with `angles` and `values` on top, in `seconds`."""
        target = self.target(pose, {**(angles or {}), **values}, flip=flip)
        n = max(1, round(seconds * RATE))
        u = _EASINGS[ease](np.arange(1, n + 1) / n)[:, None]
        self._write(self._row + u * (target - self._row))

    def target(
        self, pose: str | None = None, angles: Mapping[str, float] | None = None, *, flip: bool = False
    ) -> Floats:
        """The channels (C,) that `go` would end with."""
        target = self._row.copy()
        if pose is not None:
            target[3:] = posture_row(self.body, pose, flip)[3:]
        set_channels(target, angles or {})
        return target

    def hold(self, seconds: float) -> None:
        """Keep the pose."""
        if seconds > 0:
            self.go(seconds)

    def hold_until(self, time_s: float) -> None:
        """Keep the pose until `time_s`."""
        self.hold(time_s - self.now)

    def face(self, yaw: float, seconds: float | None = None) -> None:
        """Turn on the spot, the short way round."""
        turn = (yaw - self.yaw + 180.0) % 360.0 - 180.0
        self.go(seconds if seconds is not None else 0.15 + abs(turn) / 220.0, yaw=self.yaw + turn)

    def walk(self, to: Floats, *, speed: float | None = None, until: float = math.inf, stop: bool = True) -> None:
        """Walk (above 2.2 m/s: run) straight to `to`, no longer than `until`."""
        away = np.asarray(to, dtype=float) - self.place
        length = float(np.hypot(*away))
        left = until - self.now
        if length < 0.05 or left < 0.1:
            return
        speed = speed or self.body.pace * float(self.rng.uniform(0.85, 1.15))
        heading = math.degrees(math.atan2(away[1], away[0]))
        turn = (heading - self.yaw + 180.0) % 360.0 - 180.0
        if abs(turn) > 70:
            self.go(min(left, 0.1 + (abs(turn) - 50) / 200.0), "stand", yaw=self.yaw + turn * (1 - 50 / abs(turn)))
            turn = math.copysign(50, turn)
        ramp = 0.35
        n = max(2, round((length / speed + (ramp if stop else ramp / 2)) * RATE))
        t = np.arange(1, n + 1) / RATE
        pace = np.minimum(1.0, t / ramp)
        if stop:
            pace = np.minimum(pace, np.maximum(0.02, (t[-1] - t) / ramp))
        gone = np.cumsum(pace)
        gone *= length / gone[-1]
        target = posture_row(self.body, "stand")
        if speed > 2.2:
            set_channels(target, {"elb": 85, "lean": 14, "sho": -5})
        block = self._row + smooth(np.minimum(1.0, t / 0.4))[:, None] * (target - self._row)
        block[:, :2] = self.place + gone[:, None] / length * away
        block[:, 2] = self.yaw + turn * smooth(np.minimum(1.0, t / (0.2 + abs(turn) / 150)))
        keep = n if until == math.inf else max(1, min(n, round((until - self.now) * RATE)))
        self._write(block[:keep])

    def shift(self, forward: float, left: float = 0.0) -> dict[str, float]:
        """The x and y that lie `forward` and `left` of the feet, in metres: values for `go`."""
        c, s = math.cos(math.radians(self.yaw)), math.sin(math.radians(self.yaw))
        return {"x": float(self._row[0] + c * forward - s * left), "y": float(self._row[1] + s * forward + c * left)}
