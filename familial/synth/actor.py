"""An actor: a person whose movements (sit, lie, fall, ...) are written one after another.

Each method writes key frames from the present moment (`now`) on. Nothing here knows of cameras, rooms or labels.
"""

from __future__ import annotations

import math

import numpy as np

from familial.synth.keyframes import KeyFrames, smooth
from familial.synth.kinematics import posed
from familial.synth.postures import posture_row, set_channels, sprawl
from familial.synth.skeleton import CHANNEL, JOINT, RATE, Floats

__all__ = ["Actor"]


class Actor(KeyFrames):
    """A person to direct: each method appends one movement to the key frames."""

    def gesture(self, until: float, liveliness: float = 1.0) -> None:
        """Stand and move the hands now and then, as people do who talk."""
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
            block[:, CHANNEL["lift"]] = 4 * height * u * (1 - u)
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
        if height == 0 and self._row[CHANNEL["tip_f"]] > 30:
            rest = "prone" if rng.random() < 0.5 else "aside"
        self.go(1.0 * slow, rest, flip=side, lift=height)
        self.lie(seconds, still=0.4)
        if rise:
            self.get_up(height=height, depth=depth)

    def lie(self, seconds: float, still: float = 0.7) -> None:
        """Stay lying: still with probability `still`, else with small movements."""
        stop = self.now + seconds
        restless = self.rng.random() > still
        while restless and self.now < stop - 1.0:
            self.go(
                min(self.rng.uniform(0.5, 1.2), stop - self.now),
                nod=self.rng.uniform(-12, 20),
                elb_l=self.rng.uniform(10, 80),
                elb_r=self.rng.uniform(10, 80),
                knee_l=self.rng.uniform(8, 60),
                hip_l=self.rng.uniform(0, 5 if self._row[CHANNEL["tip_f"]] > 45 else 45),
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
        elif self._row[CHANNEL["tip_f"]] < -30:
            self.go(0.9 * slow, "sit_floor", pin=1)
            self.go(0.8 * slow, "crouch", pin=1)
        else:
            self.go(1.0 * slow, "fours")
            self.go(0.9 * slow, "half_kneel", pin=1)
        self.go(0.9 * slow, "stand", pin=0.5)
        self.go(0.1, "stand")

    def struggle(self) -> None:
        """Try to get up from lying, come half-way, and sink back."""
        rng, down = self.rng, {name: float(self._row[i]) for name, i in CHANNEL.items() if i > CHANNEL["yaw"]}
        up = float(rng.uniform(0.7, 1.6))
        if down["tip_f"] > 45:  # on the belly: push the trunk up
            self.go(
                up, None, lean=float(rng.uniform(-46, -20)), sho=float(rng.uniform(50, 75)), elb=20, nod=-16, knee=30
            )
        elif down["tip_f"] < -45:  # on the back: up on the elbows, or half to sitting
            self.go(up, None, lean=float(rng.uniform(22, 58)), sho=float(rng.uniform(-40, 30)), elb=60, hip=24, knee=44)
        else:
            part = float(rng.uniform(0.4, 0.75))
            self.go(up, None, tip_l=part * down["tip_l"], lean=20, sho=60, elb=30, hip=62, knee=84)
        self.hold(float(rng.uniform(0.1, 0.9)))
        self.go(float(rng.uniform(0.3, 0.7)), None, down, ease="drop")

    def sit_up(self) -> None:
        """From lying to sitting on the floor."""
        slow = self.rng.uniform(0.8, 1.5)
        if self._row[CHANNEL["tip_f"]] > 30:
            self.go(slow, "fours")
        self.go(slow, "sit_floor", lean=float(self.rng.uniform(-14, 20)), nod=float(self.rng.uniform(0, 25)), pin=1)

    def fall(self, direction: float, *, style: str = "tip", momentum: float = 0.0) -> tuple[float, float]:
        """Lose balance and end on the floor; returns (onset, impact) in seconds.

        `direction` in degrees: 0 forward, 90 to the left, 180 backward. Styles: `tip` (the body as an inverted
        pendulum, the feet its pivot), `fold` (the knees give way first, as in fainting), `slump` (slowly down to
        sitting, then over), `slip` (the feet first), `knees` (down on them, then over) and `heap` (straight down,
        folded up, then over). `momentum` in m/s carries the body on along its heading while it tips.
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
        elif style == "heap":
            heap = {"hip": self.rng.uniform(86, 112), "knee": self.rng.uniform(122, 146), "sho": 10.0, "elb": 14.0}
            lean, down = float(self.rng.uniform(24, 62)), float(self.rng.uniform(0.34, 0.5))
            self.go(down, None, heap, lean=lean, nod=30, gait=0, pin=1, ease="drop")
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
        end = posture_row(self.body, pose)
        flat = {"prone": 0.0, "supine": 180.0}.get(pose, 90.0 if s > 0 else -90.0)
        end[:6] = *self._row[:3], 0, 0, (direction - flat + 180) % 360 - 180  # turns so as to land flat
        set_channels(end, sprawl(pose, s > 0, rng))
        # the arms reach for the ground before the body is there; the legs and trunk buckle on the way
        # who is low already unfolds late: what falls does not rise
        low = 1.0 - self._tallness()
        late = 1.0 + 4.0 * low
        legs = [CHANNEL[name + side] for name in ("hip", "knee") for side in ("_l", "_r")]
        if pose != "prone":
            end[legs] += low * (self._row[legs] - end[legs])
        block = self._row + smooth(np.clip(u * 1.1, 0, 1))[:, None] ** late * (end - self._row)
        reach = np.sin(np.pi * np.clip(u, 0, 1))[:, None]
        arms = [CHANNEL["sho_l"], CHANNEL["sho_r"]]
        block[:, arms] += reach * (45 if c > -0.3 else -35) * rng.uniform(0.3, 1.2, 2)
        block[:, [CHANNEL["knee_l"], CHANNEL["knee_r"]]] += reach * rng.uniform(5, 55)
        block[:, [CHANNEL["hip_l"], CHANNEL["hip_r"]]] += reach * rng.uniform(0, 30)
        block[:, CHANNEL["lean"]] += reach[:, 0] * (24 if c < -0.3 else 10)
        block[:, CHANNEL["pin"]] = np.clip((u - 0.75) * 4, 0, 1)
        block[:, CHANNEL["gait"]] = np.clip(1 - 6 * u, 0, 1) * self._row[CHANNEL["gait"]]
        fade = np.clip(1 - u / 0.25, 0, 1)
        block[:, CHANNEL["tip_f"]] = angle * c + self._row[CHANNEL["tip_f"]] * fade
        block[:, CHANNEL["tip_l"]] = angle * s + self._row[CHANNEL["tip_l"]] * fade
        run = momentum * np.cumsum(np.clip(1 - u, 0, 1)) / RATE
        heading = math.radians(self.yaw)
        block[:, 0] = self._row[0] + run * math.cos(heading)
        block[:, 1] = self._row[1] + run * math.sin(heading)
        self._write(block)

    def limp(self, **values: float) -> dict[str, float]:
        """Limbs that let the body lie as low as it can, with `values` (a new `spin`, say): values for `go`."""
        n = 48
        names = [name + side for name in ("sho", "elb", "hip", "knee") for side in ("_l", "_r")]
        low, high = np.repeat([-10.0, 5.0, 0.0, 4.0], 2), np.repeat([165.0, 70.0, 50.0, 75.0], 2)
        tried = self.rng.uniform(low, high, (n, len(names)))
        straight = low + self.rng.choice([0.06, 0.94], (n, len(names)), p=[0.75, 0.25]) * (high - low)
        tried = np.where(self.rng.random((n, len(names))) < 0.6, straight, tried)
        rows = np.repeat(self.target(None, values)[None], n, axis=0)
        rows[:, [CHANNEL[name] for name in names]] = tried
        heights = posed(rows, self.body)[:, [JOINT["pelvis"], JOINT["chest"], JOINT["head"]], 2].sum(1)
        best = tried[int(heights.argmin())]
        return dict(values) | {name: float(value) for name, value in zip(names, best, strict=True)}

    def _tallness(self) -> float:
        """How high the lower of pelvis and head is, against standing: 0 to 1."""
        rows = np.stack([self._row, posture_row(self.body, "stand")])
        low = posed(rows, self.body)[:, [JOINT["pelvis"], JOINT["head"]], 2]
        return float(np.clip(low[0] / low[1], 0, 1).min())

    def _settle(self) -> None:
        """The bounce after the impact: a damped swing of limbs and trunk, then a roll to rest."""
        n = round(self.rng.uniform(0.35, 0.6) * RATE)
        t = np.arange(1, n + 1) / RATE
        ring = np.exp(-7 * t) * np.sin(2 * np.pi * 3.2 * t)
        block = np.repeat(self._row[None], n, axis=0)
        block[:, CHANNEL["lift"]] += 0.03 * np.abs(ring)
        for name, size in (("lean", 9), ("nod", 14), ("hip_l", 9), ("hip_r", -7), ("sho_l", 16), ("sho_r", 13)):
            block[:, CHANNEL[name]] += size * ring * self.rng.uniform(0.4, 1.2)
        self._write(block)
        if self.rng.random() < 0.35:
            roll = self.rng.uniform(-18, 18)
            self.go(self.rng.uniform(0.3, 0.8), spin=float(self._row[CHANNEL["spin"]] + roll))


def _pendulum(height: float, start_deg: float, rate_deg: float) -> Floats:
    """Degrees from upright, tick by tick, of a uniform rod of `height` that tips over its foot; ends at 90."""
    angle, rate, angles = math.radians(start_deg * 0.3), math.radians(rate_deg), []
    while angle < math.pi / 2:
        rate += 1.5 * 9.81 / height * math.sin(angle + 0.03) / RATE
        angle += rate / RATE
        angles.append(min(angle, math.pi / 2))
    return np.asarray(np.degrees(angles), dtype=np.float64)
