"""Somebody in a wheelchair: rolls by pushing the rims, is pushed, turns, rests, reaches, gets out and in.

Each method writes the motion of the rider, of the wheelchair and of whoever pushes it, so that all three stay together.
"""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.cast import Cast
from familial.synth.actor import Actor
from familial.synth.aid_forms import ridden, seated_row, wheelchair
from familial.synth.aids import Aid, Wheel
from familial.synth.keyframes import smooth
from familial.synth.postures import posture_row, set_channels
from familial.synth.skeleton import CHANNEL, RATE, Floats

__all__ = ["Rider", "heading", "open_spot"]

_AT_RIMS = {"sho": -18.0, "elb": 56.0, "arm": 18.0, "nod": 4.0, "twist": 0.0, "side": 0.0}
_IN_LAP = {"sho": 24.0, "elb": 62.0, "arm": 8.0, "nod": 6.0, "twist": 0.0, "side": 0.0, "lean": -4.0}
_BEHIND = 0.42  # metres from the handles back to the feet of who pushes, of a body of 1.75 m
_BACK, _AHEAD = -32.0, 44.0  # degrees from the top of the wheel at which a push begins and ends


def heading(yaw: float) -> Floats:
    """The unit vector (2,) of a heading in degrees."""
    return np.array([math.cos(math.radians(yaw)), math.sin(math.radians(yaw))])


def open_spot(cast: Cast, actor: Actor, place: Floats, low: float, high: float, margin: float = 0.38) -> Floats | None:
    """A place in view between `low` and `high` metres from `place` with a way of `margin` metres to it, or None."""
    spots = cast.stage.spots
    far = np.hypot(*(spots - place).T)
    for i in actor.rng.permutation(np.flatnonzero((far > low) & (far < high)))[:12]:
        way = place + np.linspace(0.15, 1.0, 10)[:, None] * (spots[i] - place)
        if cast.stage.free(way, margin).all():
            return np.asarray(spots[i])
    return None


class Rider:
    """Somebody who sits in a wheelchair from the clip's beginning.

    Args:
        cast: The actors of the clip; the wheelchair is added to its aids.
        actor: Who sits in it.
        at: Where it stands first (2,), in metres.
        yaw: Where it faces, in degrees.
        pusher: Who walks behind it; None: the rider pushes the rims.
    """

    def __init__(self, cast: Cast, actor: Actor, at: Floats, yaw: float, pusher: Actor | None = None) -> None:
        self.cast, self.actor, self.pusher = cast, actor, pusher
        self.chair = Aid(wheelchair(actor.body), at, yaw)
        cast.aids.append(self.chair)
        actor.restart(at, yaw)
        if pusher is not None:
            pusher.restart(self._pushing_place(self.chair.poses())[0], yaw)
        self.ride(self.chair.path(0.02), seated_row(actor.body)[None])

    def ride(
        self,
        poses: Floats,
        rows: Floats,
        hands: Floats | None = None,
        weights: Floats | None = None,
        slid: float | Floats = 0.0,
    ) -> None:
        """Write poses (n, 6) of the wheelchair and channels (n, C) of who sits in it.

        Args:
            poses: Of the wheelchair.
            rows: The rider's posture; place, heading and tilt follow the wheelchair.
            hands: (n, 2, 3) what the hands hold, in the wheelchair's axes; None for nothing.
            weights: (n, 2) how much they hold it.
            slid: Metres by which the pelvis has slid forward on the seat, one or (n,).
        """
        chair, rows = self.chair, rows.copy()
        rows[:, 2:5] = poses[:, 2:5]
        seats = np.tile(chair.form.seat, (len(poses), 1, 1))
        seats[:, 0, 0] += slid
        block = ridden(self.actor.body, rows, chair.world(poses, seats)[:, 0])
        self.actor.write(block, None if hands is None else chair.world(poses, hands), weights)
        chair.write(poses)
        if self.pusher is not None:
            self._push(poses)

    def toward(self, count: int, **values: float) -> Floats:
        """Channels (count, C) that lead smoothly from the present posture to `values`."""
        now = self.actor.target()
        end = self.actor.target(None, values)
        return np.asarray(now + smooth(np.arange(1, count + 1) / count)[:, None] * (end - now))

    def move(self, seconds: float, **values: float) -> None:
        """Move to `values` while the wheelchair stands."""
        poses = self.chair.path(seconds)
        self.ride(poses, self.toward(len(poses), **values))

    def roll(self, length: float, speed: float) -> None:
        """Roll `length` metres straight ahead at about `speed` m/s, push by push."""
        seconds = length / speed + 0.7
        n = max(2, round(seconds * RATE))
        t = np.arange(1, n + 1) / RATE
        pace = np.minimum(1.0, np.minimum(t / 0.7, (t[-1] - t + 0.02) / 0.7))
        beat = float(np.clip(0.95 + self.actor.rng.normal(0, 0.08), 0.75, 1.2))
        phase = t / beat % 1.0
        if self.pusher is None:
            pace = pace * (1.0 + 0.22 * np.sin(2 * np.pi * (phase - 0.2)))
        gone = np.cumsum(pace) * length / pace.sum()
        poses = np.repeat(self.chair.path(0.02), n, axis=0)
        poses[:, :2] = self.chair.place + gone[:, None] * heading(self.chair.yaw)
        if self.pusher is not None:
            self.ride(poses, self.toward(n, **_IN_LAP))
        else:
            self._by_hand(poses, np.stack([phase, phase], 1), lean=float(self.actor.rng.uniform(7, 15)))

    def turn(self, to: float, rate: float = 65.0) -> None:
        """Turn on the spot to the heading `to`, the short way round, at about `rate` degrees a second."""
        by = (to - self.chair.yaw + 180.0) % 360.0 - 180.0
        if abs(by) < 3.0:
            return
        poses = self.chair.path(abs(by) / rate + 0.5, yaw=self.chair.yaw + by)
        if self.pusher is not None:
            self.ride(poses, self.toward(len(poses), **_IN_LAP))
            return
        phase = np.arange(1, len(poses) + 1) / RATE / 0.95 % 1.0
        back = (0.45 - phase) % 1.0  # the inner hand pulls where the outer one pushes
        hands = np.stack([back, phase] if by > 0 else [phase, back], 1)
        self._by_hand(poses, hands, lean=3.0)

    def go_to(self, goal: Floats, until: float) -> None:
        """Turn to `goal` (2,) and roll there, no further than there is time for."""
        away = goal - self.chair.place
        self.turn(math.degrees(math.atan2(away[1], away[0])), 38.0 if self.pusher is not None else 65.0)
        rng = self.actor.rng
        speed = float(rng.uniform(0.55, 0.95) if self.pusher is not None else rng.uniform(0.5, 0.95))
        length = min(float(np.hypot(*away)), speed * (until - self.actor.now - 0.7))
        if length > 0.25:
            self.roll(length, speed)

    def rest(self, until: float) -> None:
        """Sit with small movements until `until` seconds."""
        rng = self.actor.rng
        while (left := until - self.actor.now) > 0.05:
            arms = {
                "sho_l": float(rng.uniform(14, 34)),
                "sho_r": float(rng.uniform(14, 40)),
                "elb_l": float(rng.uniform(40, 80)),
                "elb_r": float(rng.uniform(40, 92)),
            }
            trunk = {"lean": float(rng.uniform(-8, 8)), "twist": float(rng.uniform(-14, 14)), "side": 0.0, "arm": 8.0}
            self.move(min(left, float(rng.uniform(0.5, 1.2))), **arms, **trunk, nod=float(rng.uniform(-6, 22)))
            if (left := until - self.actor.now) > 0.05:
                self.move(min(left, float(rng.uniform(0.2, 1.6))))

    def reach(self) -> None:
        """Reach out for something at the height of a table or a shelf, take it, and lean back."""
        rng = self.actor.rng
        s, sign = ("_l", 1.0) if rng.random() < 0.5 else ("_r", -1.0)
        arm = {"sho" + s: float(rng.uniform(70, 125)), "elb" + s: float(rng.uniform(5, 30))}
        arm |= {"arm" + s: float(rng.uniform(0, 45))}
        trunk = {"lean": float(rng.uniform(8, 30)), "twist": -12.0 * sign, "side": sign * float(rng.uniform(0, 14))}
        self.move(float(rng.uniform(0.7, 1.3)), **arm, **trunk)
        self.move(float(rng.uniform(0.2, 1.2)))
        self.move(float(rng.uniform(0.7, 1.2)), **_IN_LAP)

    def pick_up(self) -> None:
        """Bend down beside a wheel, take something from the floor, and come up."""
        rng, k = self.actor.rng, self.actor.body.height / 1.75
        sign = 1.0 if rng.random() < 0.5 else -1.0
        s, o = ("_l", "_r") if sign > 0 else ("_r", "_l")
        point = k * np.array([rng.uniform(0.3, 0.48), sign * rng.uniform(0.42, 0.52), 0.07])
        down, stays, up = (float(rng.uniform(*span)) for span in ((0.7, 1.6), (0.3, 1.4), (0.8, 1.7)))
        n = [max(2, round(each * RATE)) for each in (down, stays, up)]
        low = {"lean": float(rng.uniform(66, 80)), "side": 22.0 * sign, "curl": 12.0, "sho" + s: 80.0, "elb" + s: 10.0}
        low |= {"sho" + o: 20.0, "elb" + o: 40.0, "nod": 6.0, "twist": -8.0 * sign}
        hand = 0 if sign > 0 else 1
        for count, values, ramp in (
            (n[0], low, np.clip((np.arange(1, n[0] + 1) / n[0] - 0.4) / 0.5, 0, 1)),
            (n[1], {"nod": 12.0}, np.ones(n[1])),
            (n[2], _IN_LAP | {"curl": 0.0}, np.clip(1 - np.arange(1, n[2] + 1) / n[2] / 0.4, 0, 1)),
        ):
            weights = np.zeros((count, 2))
            weights[:, hand] = smooth(ramp)
            poses = np.repeat(self.chair.path(0.02), count, axis=0)
            self.ride(poses, self.toward(count, **values), np.tile(point, (count, 2, 1)), weights)

    def life(self, until: float) -> None:
        """Roll about, turn, reach and rest until `until` seconds."""
        rng = self.actor.rng
        while (left := until - self.actor.now) > 0.3:
            goal = open_spot(self.cast, self.actor, self.chair.place, 0.8, 4.0) if left > 3.5 else None
            if goal is not None and rng.random() < 0.6:
                self.go_to(goal, until)
            elif left > 3.5 and rng.random() < 0.25:
                self.reach()
            else:
                self.rest(min(until, self.actor.now + float(rng.uniform(0.8, 3.0))))

    def get_out(self, slow: float) -> None:
        """Put the feet on the floor, lean far forward and stand up, `slow` times as slowly as others."""
        actor, side = self.actor, {"sho": -16.0, "elb": 36.0, "arm": 16.0}
        actor.go(
            0.7 * slow, None, actor.shift(-0.13 * actor.body.height / 1.75) | side, hip=84, knee=98, lean=34, lift=0
        )
        actor.go(0.6 * slow, None, hip=58, knee=78, lean=44, sho=4)
        actor.go(0.7 * slow, "stand", lean=actor.body.stoop + 10.0, sho=24, elb=40, knee=10, hip=6)
        self.chair.hold_until(actor.now)

    def get_in(self, slow: float) -> None:
        """Sit down in the wheelchair that stands behind, `slow` times as slowly as others; the feet go up last."""
        actor, side = self.actor, {"sho": -14.0, "elb": 34.0, "arm": 16.0}
        actor.go(0.7 * slow, None, side, hip=58, knee=78, lean=42, gait=0)
        pose = self.chair.path(0.02)
        row = seated_row(actor.body)[None]
        row[:, 2] = self._near(actor.yaw, pose[0, 2])
        seats = self.chair.world(pose, self.chair.form.seat[None])[:, 0]
        end = ridden(actor.body, row, seats)[0]
        now, n = actor.target(), round(0.9 * slow * RATE)
        actor.write(now + smooth(np.arange(1, n + 1) / n)[:, None] * (end - now))
        self.chair.hold_until(actor.now)

    @staticmethod
    def _near(yaw: float, to: float) -> float:
        return yaw + (to - yaw + 180.0) % 360.0 - 180.0

    def _by_hand(self, poses: Floats, phase: Floats, lean: float) -> None:
        """Ride with the hands at the rims: `phase` (n, 2) of each hand's push, 0 to 0.45, and way back."""
        n = len(poses)
        push = np.clip(phase / 0.45, 0, 1)
        back = np.clip((phase - 0.45) / 0.55, 0, 1)
        angle = _BACK + (_AHEAD - _BACK) * np.where(phase < 0.45, smooth(push), 1 - smooth(back))
        off = np.where(phase < 0.45, 0.0, np.sin(np.pi * back))
        assert self.chair.form.rims is not None
        hands = np.stack(
            [_on_rim(rim, angle[:, i], off[:, i]) for i, rim in enumerate(self.chair.form.rims)], 1
        )  # (n, 2, 3)
        edge = np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) / (0.3 * RATE)
        rows = self.toward(n, **_AT_RIMS)
        bend = np.sin(np.pi * np.clip(phase.mean(1) / 0.6, 0, 1)) * smooth(np.clip(edge, 0, 1))
        rows[:, CHANNEL["lean"]] += lean * bend
        self.ride(poses, rows, hands, np.tile(smooth(np.clip(edge, 0, 1))[:, None], (1, 2)))

    def _pushing_place(self, poses: Floats) -> Floats:
        assert self.pusher is not None
        behind = self.chair.form.grips.mean(0) - (_BEHIND * self.pusher.body.height / 1.75, 0.0, 0.0)
        return self.chair.world(poses, behind[None])[:, 0, :2]

    def _push(self, poses: Floats) -> None:
        pusher = self.pusher
        assert pusher is not None
        now, end = pusher.target(), posture_row(pusher.body, "stand")
        set_channels(
            end, {"lean": pusher.body.stoop + 11.0, "sho": 34.0, "elb": 42.0, "arm": 6.0, "nod": 4.0, "sway": 0.6}
        )
        rows = now + smooth(np.minimum(1.0, np.arange(1, len(poses) + 1) / (0.5 * RATE)))[:, None] * (end - now)
        rows[:, :2] = self._pushing_place(poses)
        rows[:, 2] = poses[:, 2]
        pusher.write(rows, self.chair.world(poses, self.chair.form.grips))


def _on_rim(rim: Wheel, angle: Floats, off: Floats) -> Floats:
    """Points (n, 3) on a rim at `angle` (n,) degrees forward of its top; `off` (n,) is 1 where a hand swings back."""
    a, radius = np.radians(angle), rim.radius + 0.025 + 0.035 * off
    aside = math.copysign(1.0, rim.middle[1]) * (0.025 + 0.03 * off)
    x = rim.middle[0] + radius * np.sin(a)
    return np.stack([x, rim.middle[1] + aside, rim.middle[2] + radius * np.cos(a)], -1)
