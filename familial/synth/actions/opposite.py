"""Two people stand face to face and wait, before something happens between them or nothing does.

The same waiting opens a handshake, a hug and a blow, so that it reveals no label.
"""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.cast import Cast, direction_to
from familial.synth.actions.shared import meet, wait_for_each_other
from familial.synth.actor import Actor
from familial.synth.skeleton import Floats

__all__ = ["after_it", "face_off", "go_up_to", "idle", "look_at"]


def idle(actor: Actor, until: float) -> None:
    """Stand as people do who wait: arms hanging, folded, on the hips or in the pockets; they shift now and then."""
    rng = actor.rng
    style = rng.choice(["hang", "hips", "folded", "pockets", "talk"], p=[0.4, 0.12, 0.12, 0.16, 0.2])
    if style == "talk":
        actor.gesture(until, float(rng.uniform(0.1, 1.0)))
    arms = {
        "hips": {"sho": -22.0, "elb": 75.0, "arm": 38.0},
        "folded": {"sho": 26.0, "elb": 105.0, "arm": 2.0},
        "pockets": {"sho": -8.0, "elb": 32.0, "arm": 12.0},
    }.get(str(style), {})
    if until - actor.now > 0.6:
        actor.go(min(0.6, until - actor.now), None, arms)
    while until - actor.now > 0.9:
        actor.hold(float(rng.uniform(0.3, 1.4)))
        left = until - actor.now
        if left > 0.3:
            shift = {
                "side": float(rng.normal(0, 3)),
                "nod": float(rng.uniform(-6, 12)),
                "twist": float(rng.normal(0, 6)),
            }
            actor.go(min(left, float(rng.uniform(0.3, 0.7))), None, shift)
    actor.hold_until(until)


def face_off(cast: Cast, gap: float) -> tuple[Actor, Actor]:
    """Bring the first two face to face, `gap` metres apart, where they wait until about the onset.

    They stand so from the beginning of the clip, or come there; which of the two is returned first is drawn.
    """
    rng = cast.rng
    a, b = cast.actors[:2]
    if comes := rng.random() < 0.5:
        meet(cast, gap)
        comes = a.now < cast.seconds - 3.5
    if not comes:
        _place(cast, gap)
    until = max(cast.onset, a.now) + float(rng.uniform(0.0, 0.8))
    for actor in (a, b):
        idle(actor, until)
    wait_for_each_other(a, b)
    return (a, b) if rng.random() < 0.5 else (b, a)


def _place(cast: Cast, gap: float) -> None:
    """Have the first two stand face to face from the beginning, where both are in view and nothing stands."""
    rng, stage = cast.rng, cast.stage
    tried = []
    for _ in range(12):
        middle, way = stage.spots[rng.integers(len(stage.spots))], float(rng.uniform(0, 2 * math.pi))
        half = 0.5 * gap * np.array([math.cos(way), math.sin(way)])
        ends = np.stack([middle - half, middle + half])
        hidden = sum(stage.near(end) for end in ends) + 2.0 * float((~stage.free(ends)).sum())
        across = abs(float((stage.eye - middle) @ half)) / (0.5 * gap * float(np.hypot(*(stage.eye - middle))) + 0.1)
        tried.append((hidden + 0.3 * across, math.degrees(way), ends))
    _, heading, ends = min(tried, key=lambda each: each[0])
    a, b = cast.actors[:2]
    a.restart(ends[0], heading + float(rng.normal(0, 8)))
    b.restart(ends[1], heading + 180 + float(rng.normal(0, 8)))


def look_at(actor: Actor, other: Actor) -> None:
    """Turn to where the other stands."""
    actor.face(direction_to(actor, other)[1])


def go_up_to(one: Actor, place: Floats, yaw: float, speed: float) -> None:
    """Walk up to `place` (2,) and face `yaw` degrees; a step of less than 0.3 m is left to the next movement."""
    if float(np.hypot(*(place - one.place))) > 0.3:
        one.walk(place, speed=speed)
        one.face(yaw, 0.12)


def after_it(cast: Cast, *actors: Actor) -> None:
    """Stand there for a while, walk away, or hurry away."""
    for actor in actors:
        rng = actor.rng
        does = rng.choice(["stay", "walk", "hurry"], p=[0.55, 0.3, 0.15])
        if actor.lies:
            continue
        if does == "stay":
            idle(actor, actor.now + float(rng.uniform(1.0, 4.0)))
        else:
            speed = None if does == "walk" else float(rng.uniform(1.6, 3.2))
            actor.walk(cast.spot(actor, 1.0), speed=speed)
