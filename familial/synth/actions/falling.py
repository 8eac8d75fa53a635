"""What all falls have in common: what comes before, the direction with most room, and what somebody does who lies.

walk_or_stand, sit_until_onset -> fall_in -> after_fall
"""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.base import Span
from familial.synth.actions.cast import Cast, seat_gap
from familial.synth.actions.shared import ordinary_life, walk_to_place
from familial.synth.actor import Actor

__all__ = [
    "after_fall",
    "fall_in",
    "most_open",
    "sit_until_onset",
    "turn_unless_walking",
    "walk_or_stand",
    "walk_until_onset",
]


def walk_until_onset(cast: Cast, speed: float | None = None) -> float:
    """Have the first actor walk, at `speed` in m/s, at the onset; returns the momentum in m/s."""
    actor, onset = cast.actors[0], cast.onset
    ordinary_life(cast, actor, onset - actor.rng.uniform(1.0, 2.5))
    actor.walk(cast.spot(actor, 2.5, 7.0), speed=speed, until=onset, stop=False)
    actor.hold_until(onset)
    return speed or actor.body.pace * 0.9


def walk_or_stand(cast: Cast) -> float:
    """Have the first actor walk at the onset, or mostly stand; returns the momentum in m/s."""
    actor, rng, onset = cast.actors[0], cast.actors[0].rng, cast.onset
    momentum = 0.0
    ordinary_life(cast, actor, onset - rng.uniform(1.0, 2.5))
    if rng.random() < 0.4:
        actor.walk(cast.spot(actor, 2.5, 7.0), until=onset, stop=False)
        momentum = actor.body.pace * rng.uniform(0.1, 0.7)
    else:
        actor.gesture(onset, 0.3)
    actor.hold_until(onset)
    return momentum


def turn_unless_walking(cast: Cast, momentum: float) -> None:
    """Have the first actor turn a little where they stand."""
    actor = cast.actors[0]
    if momentum == 0.0:
        actor.face(actor.yaw + actor.rng.uniform(-25, 25), 0.3)


def sit_until_onset(cast: Cast) -> None:
    """Have the first actor sit on the seat until the onset: from the start, or after some ordinary life."""
    actor, seat, until = cast.actors[0], cast.stage.seat, cast.onset
    gap = seat_gap(actor)
    if actor.rng.random() < 0.5:
        ordinary_life(cast, actor, until - actor.rng.uniform(5.0, 8.0))
    if actor.now == 0.0 or not walk_to_place(cast, actor, seat, until + 0.5, gap):
        actor.restart(seat.front(gap), seat.yaw)
    actor.sit(max(0.4, until - actor.now - 1.1), rise=False)


def fall_in(cast: Cast, directions: tuple[float, ...], style: str = "tip", momentum: float = 0.0) -> Span:
    """Fall in one of `directions` (degrees from the heading); `style` and `momentum` are those of `Actor.fall`."""
    actor = cast.actors[0]
    direction = most_open(cast, actor, directions)
    start, impact = actor.fall(direction, style=style, momentum=momentum)
    return after_fall(cast, actor, start, impact)


def most_open(cast: Cast, actor: Actor, directions: tuple[float, ...]) -> float:
    """Of `directions` (degrees from the heading), each varied a little, the one with most room in view."""
    options = [float(each + actor.rng.uniform(-18, 18)) for each in directions for _ in range(3)]

    def cost(direction: float) -> float:
        a = math.radians(actor.yaw + direction)
        ahead = np.array([math.cos(a), math.sin(a)])
        return sum(cast.stage.near(actor.place + r * ahead) for r in (0.7, 1.4)) + float(actor.rng.uniform(0, 0.3))

    return min(options, key=cost)


def after_fall(cast: Cast, actor: Actor, start: float, impact: float, *, rises: bool = True) -> Span:
    """Lie still, move a little, try in vain to get up, sit up, or get up after a while; others may come to help.

    Who does not have the strength (`rises` is False) tries in vain instead of getting up.
    """
    rng = actor.rng
    does = str(rng.choice(["lie", "struggle", "sit", "rise"], p=[0.5, 0.2, 0.1, 0.2]))
    does = "struggle" if does == "rise" and not rises else does
    until = cast.seconds + 0.5
    if does == "struggle":
        actor.lie(float(rng.uniform(0.3, 2.0)), still=0.3)
        for _ in range(int(rng.integers(1, 4))):
            actor.struggle()
            actor.lie(float(rng.uniform(0.3, 2.0)), still=0.3)
    elif does == "sit":
        actor.lie(float(rng.uniform(0.8, 3.0)), still=0.3)
        actor.sit_up()
        while actor.now < until:
            hand = {"sho_r": float(rng.uniform(20, 65)), "elb_r": float(rng.uniform(40, 135))}
            actor.go(float(rng.uniform(0.5, 1.2)), None, hand, nod=float(rng.uniform(0, 25)))
            actor.hold(float(rng.uniform(0.2, 1.5)))
    if does == "rise":
        actor.lie(float(rng.uniform(1.5, 4.0)), still=0.3)
        cast.lying.append((impact, min(actor.now, cast.seconds)))
        actor.get_up()
    else:
        actor.lie(max(0.5, until - actor.now), still=0.6)
        cast.lying.append((impact, cast.seconds))
    for other in cast.actors[1:]:
        ordinary_life(cast, other, impact + float(rng.uniform(0.5, 2.0)))
        if rng.random() < 0.35:  # comes to help
            away = other.place - actor.place
            beside = actor.place + 0.6 * away / max(0.3, float(np.hypot(*away)))
            other.walk(beside, speed=float(rng.uniform(1.2, 2.4)))
            other.crouch(float(rng.uniform(1.5, 4.0)))
    return start, impact
