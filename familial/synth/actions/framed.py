"""Somebody with a walking frame: walks, turns, stops, sits down from it. The frame and the hands go together.

With wheels the frame rolls ahead all the time; without, it is lifted, put down a little further on, and followed.
"""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.cast import Cast
from familial.synth.actions.riding import heading
from familial.synth.actor import Actor
from familial.synth.aid_forms import frame_ahead, walking_frame
from familial.synth.aids import Aid
from familial.synth.keyframes import smooth
from familial.synth.postures import posture_row, set_channels
from familial.synth.skeleton import RATE, Floats

__all__ = ["FrameUser"]

_STEP_S = 1.15  # seconds in which the feet follow a frame that was put down


class FrameUser:
    """Somebody who holds on to a walking frame from the clip's beginning.

    Args:
        cast: The actors of the clip; the frame is added to its aids.
        actor: Who walks with it.
        at: Where the feet stand first (2,), in metres.
        yaw: Where the actor faces, in degrees.
        wheels: Whether the frame rolls, and has a seat.
    """

    def __init__(self, cast: Cast, actor: Actor, at: Floats, yaw: float, wheels: bool) -> None:
        self.cast, self.actor, self.wheels = cast, actor, wheels
        self.ahead = frame_ahead(actor.body)
        self.bend = float(np.clip(actor.body.stoop + actor.rng.uniform(4, 12), 12, 30))
        self.speed = float(actor.rng.uniform(0.3, 0.55))
        self.frame = Aid(walking_frame(actor.body, wheels), at + self.ahead * heading(yaw), yaw)
        cast.aids.append(self.frame)
        actor.restart(at, yaw)
        actor.write(self._posture()[None])
        self.frame.hold_until(actor.now)

    def _posture(self, **values: float) -> Floats:
        """The channels (C,) of who stands at the frame, at the actor's place."""
        row = posture_row(self.actor.body, "stand")
        hold = {"lean": self.bend, "sho": 18.0, "elb": 42.0, "arm": 12.0, "knee": 12.0, "hip": 6.0, "sway": 0.45}
        set_channels(row, hold | {"nod": 6.0} | values)
        row[:3] = *self.actor.place, self.actor.yaw
        return row

    def _write(self, feet: Floats, yaw: Floats, off: Floats, lift: Floats, end: Floats) -> None:
        """Write n rows: feet (n, 2), headings (n,), the frame's distance and height (n,), and the posture `end`."""
        n, now = len(feet), self.actor.target()
        u = smooth(np.minimum(1.0, np.arange(1, n + 1) / min(n, 0.6 * RATE)))[:, None]
        rows = now + u * (end - now)
        rows[:, :2], rows[:, 2] = feet, yaw
        a, poses = np.radians(yaw), np.zeros((n, 6))
        poses[:, :2] = feet + off[:, None] * np.stack([np.cos(a), np.sin(a)], -1)
        poses[:, 2], poses[:, 5] = yaw, lift
        grips = self.frame.world(poses, self.frame.form.grips)
        self.actor.write(rows, grips)
        self.frame.write(poses)

    def _off(self) -> float:
        return float(np.hypot(*(self.frame.place - self.actor.place)))

    def walk_to(self, goal: Floats, until: float, *, stop: bool = True) -> None:
        """Turn to `goal` (2,) and walk there with short, slow steps, no longer than until `until` seconds."""
        away = goal - self.actor.place
        self.turn(math.degrees(math.atan2(away[1], away[0])), until)
        length = float(np.hypot(*(goal - self.actor.place)))
        if self.wheels:
            length = min(length, self.speed * (until - self.actor.now - 0.5))
            if length > 0.1:
                self._rolls(length, stop)
            return
        while length > 0.12 and until - self.actor.now > _STEP_S + 0.8:
            length -= self._puts(min(length, float(self.actor.rng.uniform(0.2, 0.34))))

    def _rolls(self, length: float, stop: bool) -> None:
        n = max(2, round((length / self.speed + 0.5) * RATE))
        t = np.arange(1, n + 1) / RATE
        pace = np.minimum(1.0, t / 0.5)
        if stop:
            pace = np.minimum(pace, (t[-1] - t + 0.02) / 0.5)
        gone = np.cumsum(pace) * length / pace.sum()
        feet = self.actor.place + gone[:, None] * heading(self.actor.yaw)
        self._write(feet, np.full(n, self.actor.yaw), self._eased(n), np.zeros(n), self._posture())

    def _puts(self, step: float) -> float:
        """Lift the frame, put it `step` metres further, follow with two steps, and pause; returns `step`."""
        rng, actor = self.actor.rng, self.actor
        n = round(float(rng.uniform(0.5, 0.8)) * RATE)
        u = np.arange(1, n + 1) / n
        still, yaw = np.tile(actor.place, (n, 1)), np.full(n, actor.yaw)
        first, reach = self._off(), self.ahead + step
        off, up = first + smooth(u) * (reach - first), 0.05 * np.sin(np.pi * u) ** 2
        self._write(still, yaw, off, up, self._posture(lean=self.bend + 9.0))
        n = round(float(rng.uniform(0.9, 1.15)) * _STEP_S * RATE)
        u = smooth(np.arange(1, n + 1) / n)
        feet = actor.place + (u * step)[:, None] * heading(actor.yaw)
        self._write(feet, np.full(n, actor.yaw), reach - step * u, np.zeros(n), self._posture())
        if rng.random() < 0.4:
            self.rest(actor.now + float(rng.uniform(0.1, 0.7)))
        return step

    def _eased(self, n: int) -> Floats:
        first = self._off()
        return np.asarray(first + smooth(np.minimum(1.0, np.arange(1, n + 1) / (0.5 * RATE))) * (self.ahead - first))

    def turn(self, to: float, until: float = math.inf) -> None:
        """Turn to the heading `to` the short way round, bit by bit, the frame first in each."""
        by = (to - self.actor.yaw + 180.0) % 360.0 - 180.0
        bits = max(1, math.ceil(abs(by) / (50.0 if self.wheels else 32.0)))
        for _ in range(bits if abs(by) > 4.0 else 0):
            n = round((abs(by) / bits / 42.0 + 0.3) * RATE)
            if self.actor.now + n / RATE > until:
                return
            u = np.arange(1, n + 1) / n
            up = np.zeros(n) if self.wheels else 0.035 * np.sin(np.pi * u) ** 2
            yaw = self.actor.yaw + smooth(u) * by / bits
            self._write(np.tile(self.actor.place, (n, 1)), yaw, self._eased(n), up, self._posture(nod=12.0))

    def rest(self, until: float) -> None:
        """Stand still, bent on the frame, and look round until `until` seconds."""
        rng = self.actor.rng
        while (left := until - self.actor.now) > 0.05:
            n = max(1, round(min(left, float(rng.uniform(0.6, 1.5))) * RATE))
            look = {"nod": float(rng.uniform(-8, 16)), "twist": float(rng.normal(0, 5)), "lean": self.bend + 3.0}
            feet, yaw = np.tile(self.actor.place, (n, 1)), np.full(n, self.actor.yaw)
            self._write(feet, yaw, np.full(n, self._off()), np.zeros(n), self._posture(**look))

    def life(self, until: float) -> None:
        """Walk about and stand until `until` seconds."""
        rng = self.actor.rng
        while (left := until - self.actor.now) > 0.3:
            if left > 3.0 and rng.random() < 0.75:
                self.walk_to(self.cast.spot(self.actor, 0.6, 3.5), until)
            self.rest(min(until, self.actor.now + float(rng.uniform(0.4, 2.0))))

    def sit_down(self, stay: float, slow: float, high: float = 0.0) -> None:
        """Let go of the frame, feel for the seat behind, and sit on it; `high` is how much it is higher than usual."""
        actor = self.actor
        actor.go(0.6, None, sho=-12, elb=30, arm=16, lean=self.bend + 8.0, gait=0)
        actor.go(0.8 * slow, None, hip=60, knee=79, lean=42)
        actor.go(0.7 * slow, "sit", sway=0.5, lift=high)
        self.seated(actor.now + stay)

    def seated(self, until: float) -> None:
        """Sit with small movements until `until` seconds; the frame stays where it is."""
        actor, rng = self.actor, self.actor.rng
        while actor.now < until:
            hands = {"sho_r": float(rng.uniform(10, 45)), "elb_l": float(rng.uniform(25, 80))}
            hands |= {"elb_r": float(rng.uniform(25, 90)), "lean": float(rng.uniform(-8, 14))}
            actor.go(float(rng.uniform(0.5, 1.2)), None, hands, nod=float(rng.uniform(-5, 22)))
            actor.hold(float(rng.uniform(0.0, 1.3)))
        self.frame.hold_until(actor.now)

    def rise(self, slow: float) -> None:
        """Stand up from a seat, push off it, and take hold of the frame that stands ahead."""
        actor = self.actor
        actor.go(0.6 * slow, hip=84, knee=97, lean=40, sho=-8, elb=40, lift=0)
        actor.go(0.7 * slow, None, hip=48, knee=66, lean=44, sho=14)
        self.frame.hold_until(actor.now)
        n = round(0.8 * slow * RATE)
        u = np.arange(1, n + 1) / n
        now, end = actor.target(), self._posture()
        grips = self.frame.world(self.frame.path(n / RATE), self.frame.form.grips)
        actor.write(
            now + smooth(u)[:, None] * (end - now),
            grips,
            np.repeat(smooth(np.clip(u * 1.6 - 0.6, 0, 1))[:, None], 2, 1),
        )
        self.frame.hold_until(actor.now)
