"""People meet, or pass: they talk, hug, shake hands, dance, or walk through in a crowd."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from familial.synth.actions.aim import aimed, join_hands
from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, direction_to, unwrapped
from familial.synth.actions.opposite import after_it, face_off, idle
from familial.synth.actions.shared import begin, meet, separate, wait_for_each_other
from familial.synth.actor import Actor

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


@action("hug", "normal", "two people hug", weight=1.3, people=2)
def hug(cast: Cast) -> Span:
    """Walk up to each other, open the arms, hold each other for a moment or for long, pat the back, and part."""
    rng = cast.rng
    a, b = face_off(cast, float(rng.uniform(0.6, 2.4)))
    start = a.now
    lasts = float(rng.uniform(0.5, 1.4) if rng.random() < 0.45 else rng.uniform(1.4, 5.5))
    comes_up = 1.0 if rng.random() < 0.5 else 0.5  # one of them walks up, or both do
    _, heading, gap = direction_to(a, b)
    left = max(0.0, gap - 0.75)
    _step_up(a, comes_up * left, heading, rng)
    _step_up(b, (1.0 - comes_up) * left, heading + 180, rng)
    b.go(min(0.7, max(0.1, a.now - b.now)), None, arm=float(rng.uniform(15, 55)), sho=float(rng.uniform(15, 45)))
    wait_for_each_other(a, b)
    centre, tight = 0.5 * (a.place + b.place), 0.5 * float(rng.uniform(0.26, 0.36))
    for actor, other, sign, share in ((a, b, -1.0, rng.uniform(0.7, 0.8)), (b, a, 1.0, rng.uniform(0.58, 0.7))):
        place = centre + sign * tight * direction_to(a, b)[0]
        arms = {"sho": 60.0, "arm": float(rng.uniform(14, 24)), "elb": float(rng.uniform(50, 76)), "lean": 6.0}
        closed = aimed(actor, "stand", arms, "hand", "sho", share * other.body.height).angles
        actor.go(float(rng.uniform(0.35, 0.8)), None, closed | {"arm": float(rng.uniform(24, 42)), "elb": 20.0})
        closed |= {"x": float(place[0]), "y": float(place[1]), "side": 6.0 * sign, "nod": float(rng.uniform(0, 18))}
        actor.go(float(rng.uniform(0.3, 0.6)), None, closed)
    stop = max(a.now, b.now) + lasts
    for actor in (a, b):
        pats = rng.random() < 0.5
        while actor.now < stop - 0.3:
            bend = float(rng.uniform(50, 84))
            beat = float(rng.uniform(0.16, 0.3) if pats else rng.uniform(0.5, 1.1))
            actor.go(min(beat, stop - actor.now), elb_r=bend, side=float(rng.uniform(-5, 5)))
        actor.hold_until(stop)
    for actor in (a, b):
        actor.go(float(rng.uniform(0.5, 0.9)), "stand", actor.shift(-float(rng.uniform(0.15, 0.4))))
    stop = a.now
    after_it(cast, a, b)
    return start, stop


@action("handshake", "normal", "two people shake hands", weight=1.0, people=2)
def handshake(cast: Cast) -> Span:
    """Step up, give each other a hand, shake it a few times, and go on holding it or let go."""
    rng = cast.rng
    a, b = face_off(cast, float(rng.uniform(0.8, 2.4)))
    start = a.now
    hands = {"sho": 40.0, "elb": float(rng.uniform(25, 50)), "arm": float(rng.uniform(-4, 6)), "lean": 6.0}
    join_hands(cast, a, b, ("_r", "_r"), hands, 0.57, float(rng.uniform(0.4, 0.8)))
    beats, size, beat = int(rng.integers(1, 8)), float(rng.uniform(3, 10)), float(rng.uniform(0.12, 0.24))
    for actor in (a, b):
        high = actor.angle("sho_r")
        for _ in range(beats):
            actor.go(beat, sho_r=high + size)
            actor.go(beat, sho_r=high - size)
        actor.hold(float(rng.uniform(0.0, 1.5)))
        actor.go(float(rng.uniform(0.35, 0.7)), "stand")
    stop = max(a.now, b.now)
    after_it(cast, a, b)
    return start, stop


@action("point", "normal", "a person points and another person looks", weight=0.8, people=2)
def point(cast: Cast) -> Span:
    """Point at the other or at something else, for a moment or again and again; the other may take no notice."""
    rng = cast.rng
    a, b = face_off(cast, float(rng.uniform(0.7, 3.0)))
    start, turn = a.now, float(0.0 if rng.random() < 0.5 else rng.uniform(-80, 80))
    s = "_r" if rng.random() < 0.7 else "_l"
    for _ in range(int(rng.integers(1, 4))):
        arm = {"sho" + s: float(rng.uniform(72, 102)), "elb" + s: float(rng.uniform(0, 18)), "arm" + s: 6.0}
        a.go(float(rng.uniform(0.25, 0.7)), None, arm, yaw=a.yaw + turn, lean=float(rng.uniform(-4, 12)))
        a.hold(float(rng.uniform(0.3, 2.2)))
        turn = float(rng.uniform(-25, 25))
        rest = {"sho" + s: float(rng.uniform(5, 60)), "elb" + s: float(rng.uniform(20, 90))}
        a.go(float(rng.uniform(0.3, 0.6)), None, rest)
    stop = a.now
    if rng.random() < 0.6:
        b.hold(float(rng.uniform(0.2, 0.6)))
        b.face(b.yaw + float(rng.uniform(-90, 90)), float(rng.uniform(0.4, 0.8)))
    idle(b, stop)
    a.go(0.4, "stand")
    after_it(cast, a, b)
    return start, stop


def _step_up(actor: Actor, far: float, heading: float, rng: Generator) -> None:
    """Walk `far` metres in the direction `heading` in degrees, and face it."""
    way = math.radians(heading)
    if far > 0.15:
        goal = actor.place + far * np.array([math.cos(way), math.sin(way)])
        actor.walk(goal, speed=float(rng.uniform(0.8, 1.8)))
    actor.face(heading, 0.3)


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


@action("dance", "normal", "two people dance", weight=0.8, people=2)
def dance(cast: Cast) -> Span:
    """Dance in each other's arms and turn, or apart with the arms flung about."""
    a, b = meet(cast, cast.rng.uniform(0.7, 1.1))
    start = a.now
    stop = start + cast.rng.uniform(4.0, 8.0)
    if cast.rng.random() < 0.5:
        _dance_together(cast, a, b, stop)
    else:
        for actor in (a, b):
            _dance_alone(actor, stop, wild=bool(cast.rng.random() < 0.5))
    separate(cast, a, b)
    return start, stop


def _dance_together(cast: Cast, a: Actor, b: Actor, stop: float) -> None:
    rng = cast.rng
    beat, spin = float(rng.uniform(0.35, 0.7)), float(rng.normal(0, 45))
    centre, half, sign = 0.5 * (a.place + b.place), 0.5 * float(rng.uniform(0.34, 0.5)), 1.0
    heading = direction_to(a, b)[1]
    while a.now < stop:
        sign = -sign
        heading += spin * beat
        centre = cast.in_view(centre + rng.normal(0, 0.12, 2))
        ahead = half * np.array([math.cos(math.radians(heading)), math.sin(math.radians(heading))])
        for actor, turned in ((a, 0.0), (b, 180.0)):
            place = centre - ahead if actor is a else centre + ahead
            hold = {"sho": 62.0, "elb": 48.0, "arm": 22.0, "side": 5.0 * sign, "knee": 12.0 + 8.0 * sign}
            step = {"x": float(place[0]), "y": float(place[1]), "yaw": unwrapped(actor, heading + turned)}
            actor.go(beat, "stand", hold | step)


def _dance_alone(actor: Actor, stop: float, *, wild: bool) -> None:
    rng = actor.rng
    home, sign, beat = actor.place, 1.0, float(rng.uniform(0.25, 0.6))
    while actor.now < stop:
        sign = -sign
        high = rng.uniform(0, 165 if wild else 100, 2)
        arms = {"sho_l": float(high[0]), "sho_r": float(high[1]), "elb_l": float(rng.uniform(10, 100))}
        arms |= {"elb_r": float(rng.uniform(10, 100)), "arm": float(rng.uniform(5, 60 if wild else 25))}
        legs = {"hip_l": 10 + 14 * sign, "knee_l": 17 + 16 * sign, "hip_r": 10 - 14 * sign, "knee_r": 17 - 16 * sign}
        place = home + 0.12 * sign * np.array([1.0, -1.0]) + rng.normal(0, 0.06 if wild else 0.02, 2)
        turn = float(rng.normal(0, 40)) if wild and rng.random() < 0.4 else 0.0
        trunk = {"side": 9.0 * sign, "twist": (24.0 if wild else 10.0) * sign, "lean": float(rng.uniform(-4, 14))}
        at = {"x": float(place[0]), "y": float(place[1]), "yaw": actor.yaw + turn}
        actor.go(beat, None, arms | legs | trunk | at)


@action("crowd", "normal", "many people walk through the room", weight=0.8, people=5)
def crowd(cast: Cast) -> Span:
    actor, start, _ = begin(cast)
    for each in cast.actors:
        each.walk(cast.spot(each, 2.0, 9.0))
    return start, actor.now
