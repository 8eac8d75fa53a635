"""Fights in which one holds the other: a headlock, pulling somebody away; and scuffles of several people, far off."""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.blow_styles import blow_of
from familial.synth.actions.cast import Cast, direction_to, unwrapped
from familial.synth.actions.fight_moves import blows, catch_up, grapple, kicks, shove
from familial.synth.actions.fight_poses import pose_of
from familial.synth.actions.fights import exchange
from familial.synth.actions.one_blow import strike
from familial.synth.actions.opposite import after_it, face_off
from familial.synth.actions.shared import approach, ordinary_life
from familial.synth.actor import Actor
from familial.synth.skeleton import Floats

__all__ = ["headlock", "pull_away", "scuffle"]


@action("headlock", "fight", "a person holds another person by the head", weight=0.9, people=2)
def headlock(cast: Cast) -> Span:
    """Lunge, clamp the other's head under the arm, and drag them round until they break free or go down."""
    rng = cast.rng
    one, other = face_off(cast, float(rng.uniform(0.7, 1.8)))
    start = one.now
    stop = min(cast.seconds + 0.3, start + float(rng.uniform(2.5, 7.0)))
    side, sign = ("_l", 1.0) if rng.random() < 0.5 else ("_r", -1.0)
    _, heading, _ = direction_to(one, other)
    approach(one, other.place, 0.5, float(rng.uniform(1.5, 2.8)))
    other.hold_until(one.now)
    bent = 0.36 * other.body.height  # metres from the feet of somebody bent over to the head
    heading += 90.0 * sign
    centre, spin = one.place, float(rng.normal(0, 60))
    seconds = float(rng.uniform(0.3, 0.5))
    while one.now < stop:
        way = math.radians(heading)
        ahead, left = np.array([math.cos(way), math.sin(way)]), np.array([-math.sin(way), math.cos(way)])
        feet = centre + 0.2 * sign * left - (bent - 0.16) * ahead
        clamp = {"sho" + side: 38.0, "elb" + side: float(rng.uniform(95, 120)), "arm" + side: float(rng.uniform(8, 18))}
        one.go(seconds, "stand", clamp | _strain(one) | _held(one, cast.in_view(centre), heading))
        hands = {"sho_l": float(rng.uniform(45, 80)), "sho_r": float(rng.uniform(45, 80)), "elb": 30.0, "nod": 10.0}
        bow = {"lean": float(rng.uniform(62, 80)), "curl": 16.0, "hip": 16.0, "knee": 24.0}
        other.go(seconds, "stand", hands | bow | _held(other, feet, heading))
        seconds = float(rng.uniform(0.2, 0.45))
        spin = float(np.clip(0.8 * spin + rng.normal(0, 60), -150, 150))
        heading += spin * seconds
        centre = cast.in_view(centre + rng.normal(0, 0.09, 2))
    _break(cast, one, other)
    return start, min(one.now, cast.seconds)


@action("pull_away", "fight", "a person holds and pulls another person away", weight=0.8, people=2)
def pull_away(cast: Cast) -> Span:
    """Grab the other's arm or coat and drag them along; they brace themselves and are torn off again and again."""
    rng = cast.rng
    one, other = face_off(cast, float(rng.uniform(0.6, 1.5)))
    start = one.now
    stop = min(cast.seconds + 0.3, start + float(rng.uniform(2.0, 6.0)))
    approach(one, other.place, 0.6, float(rng.uniform(1.3, 2.4)))
    other.hold_until(one.now)
    along, heading, _ = direction_to(other, one)
    turn = float(rng.normal(0, 14))
    s = "_l" if rng.random() < 0.5 else "_r"
    while one.now < stop:
        seconds, tug = float(rng.uniform(0.22, 0.5)), float(rng.uniform(0.02, 0.4))
        heading += turn + float(rng.normal(0, 10))
        along = np.array([math.cos(math.radians(heading)), math.sin(math.radians(heading))])
        gap = float(rng.uniform(0.5, 0.72))
        feet = cast.in_view(other.place + tug * along)
        grip = {"sho": float(rng.uniform(45, 75)), "elb": float(rng.uniform(15, 60)), "arm": 2.0}
        haul = {"lean": float(rng.uniform(-26, -4)), "knee": 24.0, "hip": 10.0}
        one.go(seconds, "stand", grip | haul | _held(one, feet + gap * along, heading + 180), ease="fast")
        resist = {"sho" + s: float(rng.uniform(65, 90)), "elb" + s: float(rng.uniform(2, 25)), "knee": 26.0}
        lean = float(rng.uniform(14, 44) if rng.random() < 0.5 else rng.uniform(-24, -6))
        other.go(seconds, "stand", resist | _held(other, feet, heading), ease="fast", lean=lean)
    _break(cast, one, other)
    return start, min(one.now, cast.seconds)


@action("scuffle", "fight", "many people fight together", weight=1.0, people=4)
def scuffle(cast: Cast) -> Span:
    """A knot of people far from the camera: they rush in, push, pull, strike and kick; some run off or go down."""
    rng, stage = cast.rng, cast.stage
    far = stage.spots[np.argsort(-np.hypot(*(stage.spots - stage.eye).T))[: max(6, len(stage.spots) // 3)]]
    middle = far[rng.integers(len(far))]
    count = int(rng.integers(3, min(7, len(cast.actors)) + 1))
    fighters = cast.actors[:count]
    for i, fighter in enumerate(fighters):
        turn = 2 * math.pi * i / count + rng.normal(0, 0.3)
        place = middle + rng.uniform(0.4, 1.1) * np.array([math.cos(turn), math.sin(turn)])
        if rng.random() < 0.5:
            fighter.restart(cast.in_view(place), math.degrees(turn) + 180)
            fighter.gesture(cast.onset, float(rng.uniform(0.3, 1.5)))
        else:
            ordinary_life(cast, fighter, cast.onset - float(rng.uniform(1.0, 3.0)))
            approach(fighter, middle, float(rng.uniform(0.4, 1.0)), float(rng.uniform(1.2, 3.2)))
    start = min(max(fighter.now for fighter in fighters[:2]), cast.seconds - 2.0)
    stop = min(cast.seconds + 0.3, start + float(rng.uniform(3.0, 9.0)))
    exchange(cast, fighters, {shove: 4, blows: 4, kicks: 2, grapple: 3, _single: 3}, stop, math.inf, False)
    for fighter in fighters:
        if not fighter.lies:
            fighter.go(0.4, "stand")
            if rng.random() < 0.4:
                fighter.walk(cast.spot(fighter, 1.5), speed=float(rng.uniform(1.5, 3.8)))
        elif rng.random() < 0.5:
            fighter.lie(max(0.1, cast.seconds + 0.5 - fighter.now), still=0.4)
        else:
            fighter.get_up()
    for other in cast.actors[count:]:  # look on, some from near by
        ordinary_life(cast, other, start + float(rng.uniform(-0.5, 1.5)))
        if rng.random() < 0.5:
            approach(other, middle, float(rng.uniform(1.4, 2.6)), float(rng.uniform(0.9, 2.2)))
            other.gesture(stop, float(rng.uniform(0.2, 1.2)))
    return start, min(stop, cast.seconds)


def _single(cast: Cast, one: Actor, other: Actor) -> None:
    """One aimed blow or kick, as of somebody who runs in."""
    style = str(cast.rng.choice(["swing", "cross", "overhand", "front", "low", "two_hands"]))
    strike(cast, one, other, blow_of(style, cast.rng), reaction="stagger" if cast.rng.random() < 0.7 else "")
    catch_up(one, other)


def _held(actor: Actor, place: Floats, heading: float) -> dict[str, float]:
    yaw = unwrapped(actor, heading + float(actor.rng.normal(0, 6)))
    return {"x": float(place[0]), "y": float(place[1]), "yaw": yaw}


def _strain(actor: Actor) -> dict[str, float]:
    rng = actor.rng
    lean, side, twist = float(rng.uniform(8, 24)), float(rng.uniform(-14, 14)), float(rng.uniform(-20, 20))
    return {"lean": lean, "side": side, "twist": twist, "knee": float(rng.uniform(8, 30)), "nod": 10.0}


def _break(cast: Cast, one: Actor, other: Actor) -> None:
    """Let go: push each other away, or the held one goes down."""
    rng = cast.rng
    if one.now > cast.seconds:
        return
    if rng.random() < 0.25:
        other.fall(float(rng.choice([0.0, 90.0, -90.0])))
        other.lie(max(0.1, cast.seconds + 0.5 - other.now), still=0.2)
        one.go(0.4, "stand", pose_of("hit", rng))
    elif rng.random() < 0.6:
        other.go(0.3, "stand")
        catch_up(one, other)
        shove(cast, other, one)
    for actor in (one, other):
        if not actor.lies:
            actor.go(0.4, "stand")
    after_it(cast, one, other)
