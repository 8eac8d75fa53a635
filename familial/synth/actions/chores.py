"""One person is busy: trips and walks on, carries, works, smokes, waits about, comes near the camera."""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast
from familial.synth.actions.shared import begin

__all__ = ["carry", "loiter", "near", "smoke", "stumble", "work"]


@action("stumble", "normal", "a person trips while walking and walks on", weight=0.7)
def stumble(cast: Cast) -> Span:
    """Trip or sway while walking, recover within a step or two, and walk on."""
    actor, start, _ = begin(cast)
    rng = actor.rng
    for _ in range(int(rng.integers(1, 3))):
        actor.walk(cast.spot(actor, 1.5), until=actor.now + rng.uniform(0.8, 2.0), stop=False)
        actor.go(
            rng.uniform(0.18, 0.35),
            None,
            actor.shift(rng.uniform(0.2, 0.5)),
            lean=rng.uniform(25, 55),
            arm=rng.uniform(20, 60),
            sho=rng.uniform(20, 80),
            hip_l=rng.uniform(20, 50),
            knee_l=rng.uniform(20, 50),
            side=rng.uniform(-15, 15),
            ease="fast",
        )
        actor.go(
            rng.uniform(0.2, 0.4),
            None,
            actor.shift(rng.uniform(0.1, 0.4)),
            lean=rng.uniform(5, 25),
            arm=rng.uniform(15, 40),
            side=rng.uniform(-10, 10),
        )
        actor.go(rng.uniform(0.3, 0.6), "stand")
    actor.walk(cast.spot(actor, 1.0))
    return start, actor.now


@action("carry", "normal", "a person carries something through the room", weight=0.6, prop="box")
def carry(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    rng = actor.rng
    actor.go(0.7, "squat_reach" if rng.random() < 0.5 else "bend")
    while actor.now < until:
        high, bend = rng.uniform(15, 45), rng.uniform(60, 95)
        actor.go(0.6, "stand", sho=high, elb=bend, arm=14, lean=rng.uniform(-8, 6))
        goal = cast.spot(actor, 1.2)
        away, far = goal - actor.place, float(np.hypot(*(goal - actor.place)))
        actor.face(math.degrees(math.atan2(away[1], away[0])))
        actor.go(far / rng.uniform(0.6, 1.1) + 0.3, x=float(goal[0]), y=float(goal[1]), ease="even")
    actor.go(0.7, "bend")
    actor.go(0.8, "stand")
    return start, actor.now


@action("work", "normal", "a person works with the hands", weight=0.6)
def work(cast: Cast) -> Span:
    """Mop, sweep, wipe, stack or cook: bent a little, the arms in rhythm, with a step now and then."""
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    rng = actor.rng
    lean, beat, high = rng.uniform(5, 48), rng.uniform(0.3, 0.8), rng.uniform(30, 100)
    while actor.now < until:
        for sign in (1.0, -1.0):
            step = cast.in_view(actor.place + rng.normal(0, 0.06, 2))
            actor.go(
                beat,
                "stand",
                lean=lean + rng.uniform(-6, 6),
                sho=high + 18 * sign,
                elb=35 - 20 * sign,
                twist=20 * sign,
                nod=rng.uniform(5, 25),
                x=float(step[0]),
                y=float(step[1]),
            )
        if rng.random() < 0.25:
            actor.go(0.5, yaw=actor.yaw + rng.uniform(-60, 60))
    actor.go(0.5, "stand")
    return start, actor.now


@action("smoke", "normal", "a person stands and smokes", weight=0.5)
def smoke(cast: Cast) -> Span:
    """Stand, and bring a hand to the mouth and back, again and again."""
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    rng = actor.rng
    s, o = ("_l", "_r") if rng.random() < 0.5 else ("_r", "_l")
    while actor.now < until + 3.0:
        actor.go(
            rng.uniform(0.4, 0.7),
            None,
            {
                "sho" + s: rng.uniform(48, 62),
                "elb" + s: rng.uniform(122, 140),
                "arm" + s: rng.uniform(-4, 8),
                "nod": rng.uniform(-2, 8),
            },
        )
        actor.hold(rng.uniform(0.5, 1.3))
        actor.go(
            rng.uniform(0.4, 0.8),
            None,
            {
                "sho" + s: rng.uniform(0, 25),
                "elb" + s: rng.uniform(20, 85),
                "sho" + o: rng.uniform(0, 20),
                "nod": rng.uniform(-18, 4),
            },
        )
        actor.hold(rng.uniform(0.3, 1.5))
        if rng.random() < 0.2:
            actor.face(actor.yaw + rng.uniform(-50, 50))
    actor.go(0.4, "stand")
    return start, actor.now


@action("loiter", "normal", "a person waits and walks about", weight=0.5)
def loiter(cast: Cast) -> Span:
    """Stay about one place, walk a few steps to and fro, and look round."""
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    rng, home = actor.rng, actor.place
    while actor.now < max(until, cast.seconds - 1.0):
        actor.hold(rng.uniform(0.4, 2.0))
        actor.go(0.4, nod=rng.uniform(-8, 20), twist=rng.uniform(-35, 35))
        goal = home + rng.normal(0, 0.7, 2)
        if cast.stage.clear(actor.place, goal):
            actor.walk(cast.in_view(goal), speed=actor.body.pace * rng.uniform(0.5, 0.9))
    return start, actor.now


@action("near", "normal", "a person walks up to the camera", weight=0.6)
def near(cast: Cast) -> Span:
    """Walk to where the camera sees one largest, and away again."""
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    stage = cast.stage
    close = stage.spots[np.argsort(np.hypot(*(stage.spots - stage.eye).T))[:6]]
    actor.walk(close[actor.rng.integers(len(close))])
    if actor.rng.random() < 0.5:
        actor.gesture(until, actor.rng.uniform(0, 1))
        actor.go(0.2, "stand")
    actor.walk(cast.spot(actor, 1.5))
    return start, actor.now
