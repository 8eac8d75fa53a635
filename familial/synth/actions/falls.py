"""The first person falls at the onset and lies on the floor; some get up again, and others may come to help."""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, bed_of, seat_gap
from familial.synth.actions.shared import ordinary_life, walk_to_place
from familial.synth.actor import Actor

__all__ = [
    "fall_back",
    "fall_bed",
    "fall_chair",
    "fall_faint",
    "fall_forward",
    "fall_knees",
    "fall_side",
    "fall_slip",
    "fall_slump",
    "fall_trip",
]


@action("fall_forward", "fall", "a person falls forward and lies on the floor", weight=1.2)
def fall_forward(cast: Cast) -> Span:
    momentum = _walk_or_stand(cast)
    _turn_unless_walking(cast, momentum)
    return _fall(cast, (0.0,), momentum=momentum)


@action("fall_back", "fall", "a person falls backward and lies on the floor", weight=1.2)
def fall_back(cast: Cast) -> Span:
    momentum = _walk_or_stand(cast)
    _turn_unless_walking(cast, momentum)
    return _fall(cast, (180.0,), momentum=momentum)


@action("fall_side", "fall", "a person falls sideways and lies on the floor", weight=1.2)
def fall_side(cast: Cast) -> Span:
    momentum = _walk_or_stand(cast)
    _turn_unless_walking(cast, momentum)
    return _fall(cast, (90.0, -90.0), momentum=momentum)


@action("fall_trip", "fall", "a person trips while walking and falls to the floor", weight=1.0)
def fall_trip(cast: Cast) -> Span:
    return _fall(cast, (0.0,), momentum=_walk(cast))


@action("fall_chair", "fall", "a person falls from a chair and lies on the floor", weight=0.9)
def fall_chair(cast: Cast) -> Span:
    _sit_until_onset(cast)
    return _fall(cast, (0.0, 90.0, -90.0))


@action("fall_faint", "fall", "a person faints and lies on the floor", weight=1.1)
def fall_faint(cast: Cast) -> Span:
    momentum = _walk_or_stand(cast)
    return _fall(cast, (0.0, 60.0, 90.0, -60.0, -90.0, 180.0), "fold", momentum)


@action("fall_slip", "fall", "a person slips while walking and falls backward", weight=0.9)
def fall_slip(cast: Cast) -> Span:
    return _fall(cast, (180.0, 150.0, -150.0), "slip", _walk(cast))


@action("fall_knees", "fall", "a person sinks to the knees and falls to the floor", weight=0.9)
def fall_knees(cast: Cast) -> Span:
    momentum = _walk_or_stand(cast)
    return _fall(cast, (0.0, 40.0, -40.0), "knees", momentum)


@action("fall_bed", "fall", "a person falls from a bed and lies on the floor", weight=0.6)
def fall_bed(cast: Cast) -> Span:
    """Sit or lie on the bed from the beginning, and slide or roll over its edge at the onset."""
    actor, couch = cast.actors[0], cast.stage.couch
    rng = actor.rng
    height, depth = bed_of(cast, actor)
    actor.restart(couch.front(couch.half + 0.1), couch.yaw)
    if rng.random() < 0.6:  # sits on the edge, and slides or tips off it
        actor.sit(max(0.5, cast.onset - 1.5), rise=False)
        actor.go(0.3, lean=30, nod=20)
        start, impact = actor.fall(float(rng.uniform(-70, 70)))
    else:
        actor.lie_down(max(0.3, cast.onset - 4.0), height=height, depth=depth, rise=False)
        start = actor.now
        edge = actor.shift(0.0, -(depth + rng.uniform(0.2, 0.5)))
        side = float(rng.uniform(-140, -70))
        actor.go(rng.uniform(0.35, 0.7), None, edge, spin=actor.spin + side, hip=40, knee=50, sho=60)
        actor.go(math.sqrt(2 * max(0.05, height) / 9.81), lift=0.0, ease="drop")
        impact = actor.now
        actor.go(0.4, hip_l=20, knee_l=45, sho_l=40, spin=actor.spin + rng.uniform(-20, 20))
    return _after_fall(cast, actor, start, impact)


@action("fall_slump", "fall", "a person slowly sinks to the floor and lies there", weight=0.7)
def fall_slump(cast: Cast) -> Span:
    momentum = _walk_or_stand(cast)
    _turn_unless_walking(cast, momentum)
    return _fall(cast, (90.0, -90.0), "slump", momentum)


# -- before the fall ---------------------------------------------------------------------------------------------------


def _walk(cast: Cast) -> float:
    """Have the first actor walk at the onset; returns the momentum in m/s."""
    actor, onset = cast.actors[0], cast.onset
    ordinary_life(cast, actor, onset - actor.rng.uniform(1.0, 2.5))
    actor.walk(cast.spot(actor, 2.5, 7.0), until=onset, stop=False)
    actor.hold_until(onset)
    return actor.body.pace * 0.9


def _walk_or_stand(cast: Cast) -> float:
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


def _turn_unless_walking(cast: Cast, momentum: float) -> None:
    """Have the first actor turn a little where they stand."""
    actor = cast.actors[0]
    if momentum == 0.0:
        actor.face(actor.yaw + actor.rng.uniform(-25, 25), 0.3)


def _sit_until_onset(cast: Cast) -> None:
    """Have the first actor sit on the seat until the onset: from the start, or after some ordinary life."""
    actor, seat, until = cast.actors[0], cast.stage.seat, cast.onset
    gap = seat_gap(actor)
    if actor.rng.random() < 0.5:
        ordinary_life(cast, actor, until - actor.rng.uniform(5.0, 8.0))
    if actor.now == 0.0:
        actor.restart(seat.front(gap), seat.yaw)
    elif not walk_to_place(cast, actor, seat, until - 1.2, gap):
        actor.walk(seat.front(gap), speed=2.0)
        actor.face(seat.yaw)
    actor.sit(max(0.4, until - actor.now - 1.1), rise=False)


# -- the fall and after it ---------------------------------------------------------------------------------------------


def _fall(cast: Cast, directions: tuple[float, ...], style: str = "tip", momentum: float = 0.0) -> Span:
    """Fall in one of `directions` (degrees from the heading); `style` and `momentum` are those of `Actor.fall`."""
    actor = cast.actors[0]
    direction = _most_open(cast, actor, directions)
    start, impact = actor.fall(direction, style=style, momentum=momentum)
    return _after_fall(cast, actor, start, impact)


def _most_open(cast: Cast, actor: Actor, directions: tuple[float, ...]) -> float:
    """Of `directions` (degrees from the heading), each varied a little, the one with most room in view."""
    options = [float(each + actor.rng.uniform(-18, 18)) for each in directions for _ in range(3)]

    def cost(direction: float) -> float:
        a = math.radians(actor.yaw + direction)
        ahead = np.array([math.cos(a), math.sin(a)])
        return sum(cast.stage.near(actor.place + r * ahead) for r in (0.7, 1.4)) + float(actor.rng.uniform(0, 0.3))

    return min(options, key=cost)


def _after_fall(cast: Cast, actor: Actor, start: float, impact: float) -> Span:
    """Lie, or get up again after a while; others may come to help."""
    rng = actor.rng
    rises = rng.random() < 0.2
    lying = actor.now
    if rises:
        actor.lie(rng.uniform(1.5, 4.0), still=0.3)
        cast.lying.append((impact, min(actor.now, cast.seconds)))
        actor.get_up()
    else:
        actor.lie(max(0.5, cast.seconds + 0.5 - lying), still=0.6)
        cast.lying.append((impact, cast.seconds))
    for other in cast.actors[1:]:
        ordinary_life(cast, other, impact + rng.uniform(0.5, 2.0))
        if rng.random() < 0.35:  # comes to help
            away = other.place - actor.place
            beside = actor.place + 0.6 * away / max(0.3, float(np.hypot(*away)))
            other.walk(beside, speed=rng.uniform(1.2, 2.4))
            other.crouch(rng.uniform(1.5, 4.0))
    return start, impact
