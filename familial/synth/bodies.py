"""Bodies that move: build, joint angles over time, and the joints' places in metres.

    Body + Actor (key frames, gait, falling)  ->  channels (T, C)  ->  perform()  ->  joints (T, J, 3)

An Actor is told what to do (`walk`, `sit`, `fall`, ...) and writes joint angles at RATE ticks a second. `perform`
adds the gait that the path implies and a little sway, finds each joint by forward kinematics, and stands the body on
the floor by its lowest point. World axes: x and y on the floor, z up, metres. Body axes: x forward, y left, z up.
Angles of channels are degrees. This module knows nothing of cameras, rooms or labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

__all__ = ["CHANNELS", "COCO", "JOINTS", "RATE", "Actor", "Body", "Floats", "draw_body", "perform", "radii"]

Floats = NDArray[np.float64]

RATE = 50.0  # ticks a second of every actor's channels

CHANNELS = (
    "x",
    "y",
    "yaw",  # where the feet stand, and where the body faces
    "tip_f",
    "tip_l",
    "spin",  # the whole body tips forward and to the left; then turns about its own length
    "lean",
    "side",
    "twist",
    "curl",
    "nod",  # the trunk against the legs; the upper spine; the head
    "hip_l",
    "hip_r",
    "abd_l",
    "abd_r",
    "knee_l",
    "knee_r",
    "sho_l",
    "sho_r",
    "arm_l",
    "arm_r",
    "elb_l",
    "elb_r",
    "lift",  # metres above the floor of the body's lowest point
    "pin",  # what keeps its place when the pose changes: 0 the feet, 1 the pelvis
    "gait",  # how much the legs step when the feet's place moves
    "sway",  # how much idle motion there is
)
_AT = {name: i for i, name in enumerate(CHANNELS)}
_PAIRS = {"hip", "abd", "knee", "sho", "arm", "elb"}

JOINTS = (
    "pelvis",
    "belly",
    "chest",
    "neck",
    "head",
    "chin",
    "crown",
    "tail",
    "shoulder_l",
    "shoulder_r",
    "elbow_l",
    "elbow_r",
    "wrist_l",
    "wrist_r",
    "hand_l",
    "hand_r",
    "hip_l",
    "hip_r",
    "knee_l",
    "knee_r",
    "ankle_l",
    "ankle_r",
    "toe_l",
    "toe_r",
    "heel_l",
    "heel_r",
    "nose",
    "eye_l",
    "eye_r",
    "ear_l",
    "ear_r",
)
_J = {name: i for i, name in enumerate(JOINTS)}
COCO = tuple(
    _J[name]
    for name in (
        "nose",
        "eye_l",
        "eye_r",
        "ear_l",
        "ear_r",
        "shoulder_l",
        "shoulder_r",
        "elbow_l",
        "elbow_r",
        "wrist_l",
        "wrist_r",
        "hip_l",
        "hip_r",
        "knee_l",
        "knee_r",
        "ankle_l",
        "ankle_r",
    )
)

_STAND = {"arm": 7.0, "elb": 12.0, "abd": 3.0, "knee": 3.0, "hip": 1.0, "gait": 1.0, "sway": 1.0}
_POSES: dict[str, dict[str, float]] = {
    "stand": {},
    "sit": {"hip": 84, "knee": 86, "lean": -6, "sho": 22, "elb": 55, "abd": 9, "gait": 0, "sway": 0.8},
    "sit_floor": {"hip": 92, "knee": 55, "lean": -8, "sho": 30, "elb": 40, "abd": 16, "gait": 0},
    "kneel": {"hip": 10, "knee": 100, "lean": 12, "gait": 0},
    "half_kneel": {"hip_l": 88, "knee_l": 92, "hip_r": 5, "knee_r": 95, "lean": 18, "sho": 35, "elb": 40, "gait": 0},
    "crouch": {"hip": 112, "knee": 128, "lean": 38, "sho": 55, "elb": 30, "abd": 12, "tip_f": 2, "gait": 0},
    "bend": {"hip": 10, "knee": 14, "lean": 78, "curl": 22, "sho": 74, "elb": 12, "nod": 5, "tip_f": -8, "gait": 0},
    "squat_reach": {"hip": 72, "knee": 88, "lean": 52, "curl": 15, "sho": 66, "elb": 8, "gait": 0},
    "fours": {"tip_f": 84, "hip": 86, "knee": 92, "sho": 88, "elb": 8, "nod": -25, "gait": 0, "pin": 1},
    "supine": {"tip_f": -90, "hip": 8, "knee": 12, "arm": 18, "elb": 15, "abd": 9, "gait": 0, "pin": 1, "sway": 0.25},
    "prone": {
        "tip_f": 90,
        "hip": 0,
        "knee": 8,
        "sho": 168,
        "arm": 35,
        "elb": 12,
        "abd": 10,
        "gait": 0,
        "pin": 1,
        "sway": 0.25,
    },
    "aside": {"tip_l": 90, "hip": 42, "knee": 60, "lean": 6, "sho": 55, "elb": 60, "gait": 0, "pin": 1, "sway": 0.25},
    "guard": {"sho": 48, "elb": 105, "arm": 12, "hip_l": 18, "knee_l": 22, "hip_r": -8, "knee_r": 18, "lean": 10},
}
_DOWN = {"supine", "prone", "aside", "fours"}


@dataclass(frozen=True, slots=True)
class Body:
    """One person's build and manner. Lengths in metres; `mass` and `limb` scale thickness (1 is average)."""

    seed: int
    height: float
    mass: float
    limb: float
    stoop: float  # degrees the trunk leans by habit
    pace: float  # metres a second of an easy walk
    swing: float  # how far the arms swing, 1 is average


def draw_body(rng: Generator, seed: int) -> Body:
    """A build drawn from `rng`: mostly adults, some children, some old."""
    child = rng.random() < 0.06
    old = rng.random() < 0.25
    return Body(
        seed=seed,
        height=float(rng.uniform(1.15, 1.45) if child else np.clip(rng.normal(1.70, 0.1), 1.48, 1.98)),
        mass=float(np.clip(rng.normal(1.05, 0.16), 0.78, 1.6)),
        limb=float(np.clip(rng.normal(1.05, 0.13), 0.8, 1.4)),
        stoop=float(rng.uniform(4, 22) if old else rng.uniform(-2, 6)),
        pace=float(rng.uniform(0.45, 0.9) if old else rng.uniform(0.9, 1.45)),
        swing=float(rng.uniform(0.3, 1.3)),
    )


def _smooth(u: Floats) -> Floats:
    return u * u * u * (10.0 + u * (6.0 * u - 15.0))  # minimum jerk


def _fast(u: Floats) -> Floats:
    return 1.0 - (1.0 - u) ** 2.2  # quick at first: blows, recoil


def _drop(u: Floats) -> Floats:
    return u**1.8  # slow at first: what gravity does


_EASES: dict[str, Callable[[Floats], Floats]] = {"smooth": _smooth, "fast": _fast, "drop": _drop, "even": lambda u: u}


class Actor:
    """Someone who does what they are told, one thing after another. `now` is the time written so far, in seconds.

    Pose values are named by CHANNELS; `hip`, `knee`, `sho`, ... without `_l` or `_r` mean both sides.
    """

    def __init__(self, body: Body, rng: Generator, at: tuple[float, float], yaw: float) -> None:
        self.body = body
        self.rng = rng
        self._blocks: list[Floats] = []
        self._count = 0
        self._row = self._full("stand")
        self._row[:3] = at[0], at[1], yaw

    @property
    def now(self) -> float:
        return self._count / RATE

    @property
    def place(self) -> Floats:
        return self._row[:2].copy()

    @property
    def yaw(self) -> float:
        return float(self._row[2])

    @property
    def spin(self) -> float:
        return float(self._row[_AT["spin"]])

    @property
    def lies(self) -> bool:
        """Whether the body is down."""
        return float(np.hypot(self._row[_AT["tip_f"]], self._row[_AT["tip_l"]])) > 50

    def restart(self, at: Floats, yaw: float) -> None:
        """Forget what was written and begin, standing, at another place."""
        self._blocks.clear()
        self._count = 0
        self._row = self._full("stand")
        self._row[:3] = at[0], at[1], yaw

    def channels(self) -> Floats:
        """All that was written: (N, C), RATE rows a second."""
        return np.concatenate(self._blocks) if self._blocks else self._row[None].copy()

    def _full(self, pose: str, flip: bool = False) -> Floats:
        row = np.zeros(len(CHANNELS))
        self._set(row, _STAND)
        row[_AT["lean"]] = self.body.stoop
        self._set(row, _POSES[pose])
        if pose in _DOWN:
            row[_AT["lean"]] = _POSES[pose].get("lean", 0.0)
        return _mirrored(row) if flip else row

    @staticmethod
    def _set(row: Floats, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name in _PAIRS:
                row[_AT[name + "_l"]] = row[_AT[name + "_r"]] = value
            else:
                row[_AT[name]] = value

    def _write(self, block: Floats) -> None:
        self._blocks.append(block)
        self._count += len(block)
        self._row = block[-1].copy()

    # -- plain key frames -------------------------------------------------------------------------------------------

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
        target = self._row.copy()
        if pose is not None:
            target[3:] = self._full(pose, flip)[3:]
        self._set(target, {**(angles or {}), **values})
        n = max(1, round(seconds * RATE))
        u = _EASES[ease](np.arange(1, n + 1) / n)[:, None]
        self._write(self._row + u * (target - self._row))

    def hold(self, seconds: float) -> None:
        """Stay as one is."""
        if seconds > 0:
            self.go(seconds)

    def hold_until(self, time_s: float) -> None:
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
        target = self._full("stand")
        if speed > 2.2:
            self._set(target, {"elb": 85, "lean": 14, "sho": -5})
        block = self._row + _smooth(np.minimum(1.0, t / 0.4))[:, None] * (target - self._row)
        block[:, :2] = self.place + gone[:, None] / length * away
        block[:, 2] = self.yaw + turn * _smooth(np.minimum(1.0, t / (0.2 + abs(turn) / 150)))
        keep = n if until == math.inf else max(1, min(n, round((until - self.now) * RATE)))
        self._write(block[:keep])

    def shift(self, forward: float, left: float = 0.0) -> dict[str, float]:
        """The x and y that lie so far ahead of and beside the feet: values for `go`."""
        c, s = math.cos(math.radians(self.yaw)), math.sin(math.radians(self.yaw))
        return {"x": float(self._row[0] + c * forward - s * left), "y": float(self._row[1] + s * forward + c * left)}

    # -- what people do ---------------------------------------------------------------------------------------------

    def gesture(self, until: float, liveliness: float = 1.0) -> None:
        """Stand and move the hands now and then, as one who talks does."""
        rng = self.rng
        while self.now < until - 0.1:
            reach = liveliness * rng.uniform(0, 1, 2)
            self.go(
                min(rng.uniform(0.35, 0.9), until - self.now),
                sho_l=60 * reach[0],
                elb_l=15 + 80 * reach[0],
                sho_r=60 * reach[1],
                elb_r=15 + 80 * reach[1],
                arm_l=7 + 12 * reach[0],
                arm_r=7 + 12 * reach[1],
                nod=rng.uniform(-8, 12),
                twist=rng.uniform(-12, 12),
            )
            self.hold(min(rng.uniform(0, 0.9), until - self.now))

    def phone(self, until: float) -> None:
        """Stand and look at something in the hand."""
        self.go(0.7, sho_r=35, elb_r=100, nod=30, curl=10)
        self.hold_until(until - 0.5)
        self.go(0.5, "stand")

    def sit(self, seconds: float, *, down: float = 1.1, rise: bool = True) -> None:
        """Sit down on what stands behind the feet, stay, and (with `rise`) stand up again."""
        self.go(down * 0.55, hip=62, knee=80, lean=36, sho=30, gait=0)
        self.go(down * 0.45, "sit")
        stop = self.now + seconds
        while self.now < stop - 0.3:
            self.go(
                min(self.rng.uniform(0.5, 1.2), stop - self.now),
                lean=self.rng.uniform(-10, 14),
                sho_r=self.rng.uniform(10, 45),
                elb_l=self.rng.uniform(25, 80),
                elb_r=self.rng.uniform(25, 95),
                nod=self.rng.uniform(-5, 25),
                twist=self.rng.uniform(-12, 12),
            )
            self.hold(min(self.rng.uniform(0, 1.5), stop - self.now))
        if rise:
            self.go(0.5, hip=80, knee=88, lean=40, sho=35, elb=40)
            self.go(self.rng.uniform(0.6, 1.1), "stand")

    def pick_up(self, *, quick: float = 1.0) -> None:
        """Bend or squat, take something from the floor, and rise."""
        pose = "bend" if self.rng.random() < 0.5 else "squat_reach"
        self.go(0.8 / quick, pose)
        self.go(0.35 / quick, nod=20, elb=25)
        self.go(0.9 / quick, "stand", sho_r=30, elb_r=80)
        self.go(0.4, "stand")

    def crouch(self, seconds: float) -> None:
        """Crouch or kneel, busy with the hands, and rise."""
        pose = "crouch" if self.rng.random() < 0.6 else "half_kneel"
        self.go(self.rng.uniform(0.6, 1.1), pose)
        stop = self.now + seconds
        while self.now < stop - 0.1:
            low, high = (45, 70) if pose == "crouch" else (20, 60)
            self.go(min(0.5, stop - self.now), sho_l=self.rng.uniform(low, high), sho_r=self.rng.uniform(low, high))
        self.go(self.rng.uniform(0.7, 1.2), "stand")

    def jump(self, times: int = 1) -> None:
        """Jump on the spot: a ballistic flight between two knee bends."""
        for _ in range(times):
            height = self.rng.uniform(0.12, 0.32)
            self.go(0.3, hip=45, knee=62, lean=25, sho=-30, gait=0)
            self.go(0.12, hip=0, knee=3, lean=4, sho=110, ease="drop")
            n = max(2, round(2 * math.sqrt(2 * height / 9.81) * RATE))
            u = np.arange(1, n + 1) / n
            block = np.repeat(self._row[None], n, axis=0)
            block[:, _AT["lift"]] = 4 * height * u * (1 - u)
            self._write(block)
            self.go(0.16, hip=35, knee=48, lean=18, sho=20, lift=0, ease="fast")
            self.go(0.3, "stand")

    def exercise(self, until: float) -> None:
        """Squats, jumping jacks, arm swings or toe touches, in rhythm."""
        beat = self.rng.uniform(0.3, 0.6)
        kind = int(self.rng.integers(4))
        while self.now < until - 2.2 * beat:
            if kind == 0:
                self.go(beat * 1.4, hip=80, knee=95, lean=38, sho=85, elb=5, gait=0)
            elif kind == 1:
                self.go(beat, arm=150, elb=8, abd=22, lift=0.06)
            elif kind == 2:
                self.go(beat, sho_l=self.rng.uniform(100, 170), sho_r=self.rng.uniform(-40, 60), twist=30, elb=10)
            else:
                self.go(beat * 1.3, "bend")
            self.go(beat, "stand")
        self.go(0.3, "stand")

    def wave(self, until: float) -> None:
        """Wave a raised arm."""
        self.go(0.5, arm_r=120, elb_r=50)
        while self.now < until - 0.6:
            self.go(0.22, elb_r=10, arm_r=135)
            self.go(0.22, elb_r=60, arm_r=115)
        self.go(0.5, "stand")

    def lie_down(
        self, seconds: float, *, height: float = 0.0, depth: float = 0.2, rise: bool = True, quick: float = 1.0
    ) -> None:
        """Lie down under control and (with `rise`) get up again.

        On the floor (`height` 0) by way of kneeling or sitting; on a bed of `height` metres by sitting on its edge,
        which stands behind the feet, and swinging round, `depth` metres further onto it.
        """
        rng = self.rng
        slow = rng.uniform(0.8, 1.4) / quick
        side = rng.random() < 0.5
        if height > 0:
            self.go(0.7 * slow, hip=62, knee=80, lean=36, gait=0)
            self.go(0.5 * slow, "sit", lift=max(0.0, height - 0.45 * self.body.height / 1.75))
            self.go(0.02, pin=1)
            onto = self.shift(-depth)
            self.go(0.9 * slow, "supine", onto, lift=height, tip_f=-48, lean=20, hip=55, knee=45, yaw=self.yaw - 88)
        elif rng.random() < 0.5:
            self.go(0.9 * slow, "half_kneel", flip=side)
            self.go(0.9 * slow, "fours")
        else:
            self.go(0.8 * slow, "crouch", sho=20)
            self.go(0.8 * slow, "sit_floor", lean=-20, sho=-25, elb=10, pin=1)
        rest = "aside" if rng.random() < 0.35 else "supine"
        if height == 0 and self._row[_AT["tip_f"]] > 30:
            rest = "prone" if rng.random() < 0.5 else "aside"
        self.go(1.0 * slow, rest, flip=side, lift=height)
        self.lie(seconds, still=0.4)
        if rise:
            self.get_up(height=height, depth=depth)

    def lie(self, seconds: float, still: float = 0.7) -> None:
        """Lie where one lies: still, or with small movements with probability 1 - `still`."""
        stop = self.now + seconds
        restless = self.rng.random() > still
        while restless and self.now < stop - 1.0:
            self.go(
                min(self.rng.uniform(0.5, 1.2), stop - self.now),
                nod=self.rng.uniform(-12, 20),
                elb_l=self.rng.uniform(10, 80),
                elb_r=self.rng.uniform(10, 80),
                knee_l=self.rng.uniform(8, 60),
                hip_l=self.rng.uniform(0, 5 if self._row[_AT["tip_f"]] > 45 else 45),
            )
            self.hold(min(self.rng.uniform(0.2, 2.0), max(0.02, stop - self.now)))
        self.hold_until(stop)

    def get_up(self, *, height: float = 0.0, depth: float = 0.2) -> None:
        """From lying to standing: by the edge of a bed, or by all fours and one knee."""
        slow = self.rng.uniform(0.8, 1.5)
        if height > 0:
            up = max(0.0, height - 0.45 * self.body.height / 1.75)
            self.go(0.9 * slow, "sit", self.shift(0.0, -depth), yaw=self.yaw + 88, lift=up, pin=1)
            self.go(0.6 * slow, hip=80, knee=88, lean=40, sho=35, lift=0, pin=0)
        elif self._row[_AT["tip_f"]] < -30:
            self.go(0.9 * slow, "sit_floor", pin=1)
            self.go(0.8 * slow, "crouch", pin=1)
        else:
            self.go(1.0 * slow, "fours")
            self.go(0.9 * slow, "half_kneel", pin=1)
        self.go(0.9 * slow, "stand", pin=0.5)
        self.go(0.1, "stand")

    def fall(self, direction: float, *, style: str = "tip", momentum: float = 0.0) -> tuple[float, float]:
        """Lose balance and end on the floor; returns (onset, impact) in seconds.

        `direction` in degrees: 0 forward, 90 to the left, 180 backward. Styles: `tip` (the body as an inverted
        pendulum, the feet its pivot), `fold` (the knees give way first, as in fainting), `slump` (slowly down to
        sitting, then over), `slip` (the feet first) and `knees` (down on them, then over). `momentum` in m/s carries
        the body on along its heading while it tips.
        """
        onset = self.now
        if style == "slip":  # the feet shoot ahead, the body drops behind them
            self.go(
                self.rng.uniform(0.15, 0.28),
                None,
                self.shift(0.25 + 0.2 * momentum),
                hip=30,
                knee=12,
                lean=-14,
                sho=-10,
                arm=55,
                elb=25,
                gait=0,
                tip_f=-20,
                ease="fast",
            )
            momentum = 0.3 * momentum
        elif style == "knees":
            self.go(self.rng.uniform(0.35, 0.7), "kneel", nod=15, lean=20, ease="drop")
            self.go(self.rng.uniform(0.05, 0.6), lean=28, nod=22)
        elif style == "slump":
            slow = self.rng.uniform(0.9, 2.2)
            self.go(slow * 0.5, hip=45, knee=62, lean=20, nod=20, gait=0, tip_f=-6, sho=5)
            self.go(slow * 0.5, "sit_floor", nod=25, sho=8, elb=10, pin=0, ease="drop")
        elif style == "fold":
            self.go(self.rng.uniform(0.3, 0.5), hip=35, knee=95, lean=24, nod=28, sho=8, gait=0, ease="drop")
        self._topple(direction, start=22.0 if style != "tip" else 5.0, momentum=momentum)
        impact = self.now
        self._settle()
        return onset, impact

    def _topple(self, direction: float, *, start: float, momentum: float) -> None:
        rng = self.rng
        c, s = math.cos(math.radians(direction)), math.sin(math.radians(direction))
        angle = _pendulum(self.body.height, start, rng.uniform(15, 55) + 25 * momentum)
        u = angle / 90.0
        pose = "prone" if c > 0.6 else "supine" if c < -0.6 else "aside"
        end = self._full(pose)
        flat = {"prone": 0.0, "supine": 180.0}.get(pose, 90.0 if s > 0 else -90.0)
        end[:6] = *self._row[:3], 0, 0, (direction - flat + 180) % 360 - 180  # turns so as to land flat
        self._set(end, _sprawl(pose, s > 0, rng))
        # the arms reach for the ground before the body is there; the legs and trunk buckle on the way
        block = self._row + _smooth(np.clip(u * 1.1, 0, 1))[:, None] * (end - self._row)
        reach = np.sin(np.pi * np.clip(u, 0, 1))[:, None]
        arms = [_AT["sho_l"], _AT["sho_r"]]
        block[:, arms] += reach * (45 if c > -0.3 else -35) * rng.uniform(0.3, 1.2, 2)
        block[:, [_AT["knee_l"], _AT["knee_r"]]] += reach * rng.uniform(5, 55)
        block[:, [_AT["hip_l"], _AT["hip_r"]]] += reach * rng.uniform(0, 30)
        block[:, _AT["lean"]] += reach[:, 0] * (24 if c < -0.3 else 10)
        block[:, _AT["pin"]] = np.clip((u - 0.75) * 4, 0, 1)
        block[:, _AT["gait"]] = np.clip(1 - 6 * u, 0, 1) * self._row[_AT["gait"]]
        fade = np.clip(1 - u / 0.25, 0, 1)
        block[:, _AT["tip_f"]] = angle * c + self._row[_AT["tip_f"]] * fade
        block[:, _AT["tip_l"]] = angle * s + self._row[_AT["tip_l"]] * fade
        run = momentum * np.cumsum(np.clip(1 - u, 0, 1)) / RATE
        heading = math.radians(self.yaw)
        block[:, 0] = self._row[0] + run * math.cos(heading)
        block[:, 1] = self._row[1] + run * math.sin(heading)
        self._write(block)

    def _settle(self) -> None:
        """The bounce after the impact: a damped swing of limbs and trunk, then a roll to rest."""
        n = round(self.rng.uniform(0.35, 0.6) * RATE)
        t = np.arange(1, n + 1) / RATE
        ring = np.exp(-7 * t) * np.sin(2 * np.pi * 3.2 * t)
        block = np.repeat(self._row[None], n, axis=0)
        block[:, _AT["lift"]] += 0.03 * np.abs(ring)
        for name, size in (("lean", 9), ("nod", 14), ("hip_l", 9), ("hip_r", -7), ("sho_l", 16), ("sho_r", 13)):
            block[:, _AT[name]] += size * ring * self.rng.uniform(0.4, 1.2)
        self._write(block)
        if self.rng.random() < 0.35:
            roll = self.rng.uniform(-18, 18)
            self.go(self.rng.uniform(0.3, 0.8), spin=float(self._row[_AT["spin"]] + roll))


def _sprawl(pose: str, left: bool, rng: Generator) -> dict[str, float]:
    """How the limbs come to lie in `pose` (on the `left` side or the right), none of them below the floor."""
    values = {"nod": rng.uniform(-10, 15), "sway": rng.uniform(0.05, 0.3)}
    if pose == "prone":
        for side in ("_l", "_r"):
            up = rng.random() < 0.6
            values |= {
                "sho" + side: rng.uniform(160, 178) if up else rng.uniform(-8, 6),
                "elb" + side: rng.uniform(0, 20),
                "arm" + side: rng.uniform(15, 75),
                "abd" + side: rng.uniform(0, 28),
                "hip" + side: rng.uniform(-4, 5),
                "knee" + side: rng.uniform(2, 30),
            }
    elif pose == "supine":
        for side in ("_l", "_r"):
            bent = rng.uniform(0, 45) if rng.random() < 0.6 else rng.uniform(0, 8)
            if rng.random() < 0.3:  # a hand on the belly
                values |= {"sho" + side: 12.0, "elb" + side: rng.uniform(85, 105), "arm" + side: 12.0}
            else:
                values |= {
                    "sho" + side: rng.uniform(-6, 4),
                    "elb" + side: rng.uniform(0, 18),
                    "arm" + side: rng.uniform(8, 95),
                }
            values |= {"abd" + side: rng.uniform(2, 25), "hip" + side: bent, "knee" + side: bent * 1.8 + 4}
    else:
        low, high = ("_l", "_r") if left else ("_r", "_l")
        values |= {
            "sho" + low: rng.uniform(10, 130),
            "arm" + low: rng.uniform(-6, 6),
            "elb" + low: rng.uniform(0, 90),
            "sho" + high: rng.uniform(10, 110),
            "arm" + high: rng.uniform(-25, 5),
            "elb" + high: rng.uniform(0, 90),
            "abd" + low: 0.0,
            "abd" + high: rng.uniform(-8, 4),
            "hip" + low: rng.uniform(5, 70),
            "hip" + high: rng.uniform(5, 70),
            "knee" + low: rng.uniform(10, 90),
            "knee" + high: rng.uniform(10, 90),
            "side": rng.uniform(-6, 0) if left else rng.uniform(0, 6),
        }
    return values


def _pendulum(height: float, start_deg: float, rate_deg: float) -> Floats:
    """Degrees from upright, tick by tick, of a uniform rod of `height` that tips over its foot; ends at 90."""
    angle, rate, angles = math.radians(start_deg * 0.3), math.radians(rate_deg), []
    while angle < math.pi / 2:
        rate += 1.5 * 9.81 / height * math.sin(angle + 0.03) / RATE
        angle += rate / RATE
        angles.append(min(angle, math.pi / 2))
    return np.asarray(np.degrees(angles), dtype=np.float64)


def _mirrored(row: Floats) -> Floats:
    out = row.copy()
    for name in _PAIRS:
        out[_AT[name + "_l"]], out[_AT[name + "_r"]] = row[_AT[name + "_r"]], row[_AT[name + "_l"]]
    for name in ("tip_l", "spin", "side", "twist"):
        out[_AT[name]] = -row[_AT[name]]
    return out


# -- from channels to joints -------------------------------------------------------------------------------------------


def radii(body: Body) -> Floats:
    """The radius in metres of the sphere that stands for the flesh at each joint: (J,)."""
    k, m, limb = body.height / 1.75, body.mass, body.limb
    by_name = {
        "pelvis": 0.115 * m,
        "belly": 0.12 * m,
        "chest": 0.115 * m,
        "neck": 0.055,
        "head": 0.098,
        "chin": 0.062,
        "crown": 0.088,
        "tail": 0.06,
        "shoulder_l": 0.068 * limb,
        "elbow_l": 0.045 * limb,
        "wrist_l": 0.034 * limb,
        "hand_l": 0.045,
        "hip_l": 0.092 * m,
        "knee_l": 0.058 * limb,
        "ankle_l": 0.043 * limb,
        "toe_l": 0.036,
        "heel_l": 0.04,
    }
    return np.array([k * by_name.get(n, by_name.get(n.replace("_r", "_l"), 0.01)) for n in JOINTS])


def perform(actor: Actor, times_s: Floats) -> Floats:
    """Where the joints are at `times_s` (T,): float64 (T, J, 3) in metres."""
    rows = _with_sway(_with_gait(actor.channels(), actor.body), actor)
    joints = _stand(_kinematics(rows, actor.body), rows, radii(actor.body))
    at = np.clip(times_s * RATE - 1.0, 0.0, len(rows) - 1.0)
    low = np.minimum(at.astype(np.int64), max(0, len(rows) - 2))
    high = np.minimum(low + 1, len(rows) - 1)
    part = (at - low)[:, None, None]
    return np.asarray(joints[low] * (1.0 - part) + joints[high] * part)


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
    weight = np.clip(pace / 0.35, 0, 1) * rows[:, _AT["gait"]]
    swing = np.degrees(np.arcsin(np.clip(pace * period / 4 / (0.53 * body.height), 0, 0.62)))
    forward = np.clip(np.where(ahead < -0.05, -1, 1) * np.maximum(np.abs(ahead) / speed, 0.3), -1, 1)
    run = np.clip((speed - 1.9) / 1.0, 0, 1)
    out = rows.copy()
    for side, offset in (("_l", 0.0), ("_r", np.pi)):
        p = (phase + offset) % (2 * np.pi)
        lift = np.exp(-(((p - 4.75) / 0.85) ** 2)) + np.exp(-(((p - 4.75 + 2 * np.pi) / 0.85) ** 2))
        load = np.exp(-(((p - 0.75) / 0.5) ** 2))
        out[:, _AT["hip" + side]] += weight * (swing * np.cos(p) * forward + 5 + 22 * run * lift)
        out[:, _AT["knee" + side]] += weight * ((18 + 1.5 * swing + 30 * run) * lift + 10 * load)
        out[:, _AT["abd" + side]] += weight * swing * 0.5 * np.cos(p) * np.clip(beside / speed, -1, 1)
        free = np.clip(1 - np.abs(rows[:, _AT["sho" + side]]) / 40, 0, 1)
        out[:, _AT["sho" + side]] -= weight * free * swing * np.cos(p) * forward * body.swing * (0.75 + 0.5 * run)
    out[:, _AT["side"]] += weight * 2.0 * np.sin(phase)
    out[:, _AT["twist"]] += weight * 4.0 * np.cos(phase)
    out[:, _AT["lift"]] += weight * run * 0.07 * np.abs(np.sin(phase))
    return out


def _with_sway(rows: Floats, actor: Actor) -> Floats:
    """Add slow random motion of a degree or two: nobody is a statue, except where `sway` is small."""
    n, out = len(rows), rows.copy()
    knots = actor.rng.standard_normal((n // 25 + 5, len(CHANNELS)))
    knots[:, : _AT["lean"]] = 0.0
    knots[:, _AT["lift"] :] = 0.0
    at = np.arange(n) / 25.0 + 1.0
    low = at.astype(np.int64)
    part = (at - low)[:, None]
    part = part * part * (3 - 2 * part)
    out += (knots[low] * (1 - part) + knots[low + 1] * part) * 2.2 * rows[:, _AT["sway"], None]
    return out


def _turn(axis: int, degrees: Floats) -> Floats:
    """Rotation matrices (T, 3, 3) about axis 0, 1 or 2."""
    a = np.radians(degrees)
    c, s = np.cos(a), np.sin(a)
    out = np.zeros((len(a), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[:, axis, axis] = 1.0
    out[:, i, i] = out[:, j, j] = c
    out[:, i, j], out[:, j, i] = -s, s
    return out


def _tip(forward: Floats, left: Floats) -> Floats:
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


def _kinematics(rows: Floats, body: Body) -> Floats:
    """Joints (T, J, 3) about the pelvis, turned to the heading, from channels (T, C)."""
    h = body.height
    ch = {name: rows[:, i] for name, i in _AT.items()}
    joints = np.zeros((len(rows), len(JOINTS), 3))

    def put(name: str, base: Floats, frame: Floats, offset: Floats) -> Floats:
        place: Floats = base + np.einsum("tij,tj->ti", frame, np.broadcast_to(offset, base.shape))
        joints[:, _J[name]] = place
        return place

    root = _turn(2, ch["yaw"]) @ _tip(ch["tip_f"], ch["tip_l"]) @ _turn(2, ch["spin"])
    trunk = root @ _turn(1, ch["lean"]) @ _turn(0, -ch["side"])
    upper = trunk @ _turn(2, ch["twist"]) @ _turn(1, ch["curl"])
    skull = upper @ _turn(1, ch["nod"])
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


def _stand(joints: Floats, rows: Floats, flesh: Floats) -> Floats:
    """Give pelvis-centred joints their place: feet (or pelvis) where the path says, lowest point on the floor."""
    ankles = joints[:, [_J["ankle_l"], _J["ankle_r"]], :2].mean(axis=1)
    hold = 1.0 - rows[:, _AT["pin"], None]
    step = np.diff(rows[:, :2], axis=0) - 0.5 * (hold[1:] + hold[:-1]) * np.diff(ankles, axis=0)
    place = rows[0, :2] - ankles[0] + np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)])
    bottom = joints[:, :, 2] - flesh
    # hands and elbows carry weight only when the body is down, so that reaching for the floor lifts no one
    upright = np.clip((60 - np.hypot(rows[:, _AT["tip_f"]], rows[:, _AT["tip_l"]])) / 30, 0, 1)
    reach = [_J[n] for n in ("hand_l", "hand_r", "wrist_l", "wrist_r", "elbow_l", "elbow_r", "tail")]
    bottom[:, reach] += upright[:, None]
    bottom[:, _J["tail"]] += 3.0
    out = joints.copy()
    out[:, :, :2] += place[:, None]
    out[:, :, 2] += (rows[:, _AT["lift"]] - bottom.min(axis=1))[:, None]
    return out
