"""People meet, or pass: they talk, hug, shake hands, dance, or walk through in a crowd."""

from __future__ import annotations

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast
from familial.synth.actions.shared import begin, meet, separate

__all__ = ["crowd", "dance", "handshake", "hug", "pass_by", "point", "talk"]


@action("talk", "normal", "two people stand and talk", weight=0.9, people=2)
def talk(cast: Cast) -> Span:
    a, b = meet(cast, cast.rng.uniform(0.6, 1.3))
    start = a.now
    stop = start + cast.rng.uniform(3.0, 8.0)
    for actor in (a, b):
        actor.gesture(stop, cast.rng.uniform(0.4, 1.2))
    separate(cast, a, b)
    return start, stop


@action("hug", "normal", "two people hug", weight=1.1, people=2)
def hug(cast: Cast) -> Span:
    a, b = meet(cast, 0.62)
    start = a.now
    stop = start + cast.rng.uniform(1.5, 5.0)
    for actor, high in ((a, 72.0), (b, 52.0)):
        actor.go(0.5, None, actor.shift(0.08), sho=high, elb=20, arm=22)
        actor.go(0.4, None, actor.shift(0.06), sho=high, elb=70, arm=20, lean=9)
        while actor.now < stop - 0.4:
            actor.go(0.22, elb_r=cast.rng.uniform(55, 85), side=cast.rng.uniform(-4, 4))
        actor.hold_until(stop)
    separate(cast, a, b)
    return start, stop


@action("handshake", "normal", "two people shake hands", weight=0.9, people=2)
def handshake(cast: Cast) -> Span:
    a, b = meet(cast, 0.85)
    start = a.now
    beats = int(cast.rng.integers(3, 9))
    for actor in (a, b):
        actor.go(0.5, sho_r=42, elb_r=38, arm_r=-4, lean=8)
        for _ in range(beats):
            actor.go(0.16, sho_r=50)
            actor.go(0.16, sho_r=38)
    stop = a.now
    separate(cast, a, b)
    return start, stop


@action("point", "normal", "a person points and another person looks", weight=0.6, people=2)
def point(cast: Cast) -> Span:
    a, b = meet(cast, cast.rng.uniform(0.8, 1.6))
    start, turn = a.now, cast.rng.uniform(-60, 60)
    for actor, high in ((a, 88.0), (b, 6.0)):
        actor.go(0.35, yaw=actor.yaw + turn * (1 if actor is a else -1), sho_r=high, elb_r=4, arm_r=8)
        actor.hold(cast.rng.uniform(0.8, 2.5))
        actor.gesture(start + 4.0, 0.8)
    separate(cast, a, b)
    return start, start + 4.0


@action("pass", "normal", "two people walk past each other", weight=0.8, people=2)
def pass_by(cast: Cast) -> Span:
    a, b = meet(cast, cast.rng.uniform(2.0, 3.0))
    start = a.now
    ends = a.place, b.place
    across = ends[1] - ends[0]
    aside = 0.28 * np.array([-across[1], across[0]]) / max(0.1, float(np.hypot(*across)))
    speed = cast.rng.uniform(0.8, 2.4)
    a.walk(ends[1] + aside, speed=speed)
    b.walk(ends[0] - aside, speed=speed)
    return start, max(a.now, b.now)


@action("dance", "normal", "two people dance", weight=0.6, people=2)
def dance(cast: Cast) -> Span:
    a, b = meet(cast, cast.rng.uniform(0.7, 1.1))
    start, beat = a.now, cast.rng.uniform(0.35, 0.6)
    stop = start + cast.rng.uniform(4.0, 8.0)
    together = cast.rng.random() < 0.5
    for actor in (a, b):
        home, sign = actor.place, 1.0
        while actor.now < stop:
            sign = -sign
            high = 70.0 if together else cast.rng.uniform(0, 120)
            actor.go(
                beat,
                sho_l=high,
                sho_r=high * 0.9,
                elb=50,
                side=7 * sign,
                twist=10 * sign,
                hip_l=10 + 12 * sign,
                knee_l=15 + 12 * sign,
                knee_r=15 - 12 * sign,
                hip_r=10 - 12 * sign,
                x=home[0] + 0.09 * sign,
                y=home[1] - 0.09 * sign,
            )
    separate(cast, a, b)
    return start, stop


@action("crowd", "normal", "many people walk through the room", weight=0.8, people=5)
def crowd(cast: Cast) -> Span:
    actor, start, _ = begin(cast)
    for each in cast.actors:
        each.walk(cast.spot(each, 2.0, 9.0))
    return start, actor.now
