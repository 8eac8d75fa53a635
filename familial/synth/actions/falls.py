"""The first person falls at the onset and lies on the floor; some get up again, and others may come to help."""

from __future__ import annotations

import math

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, bed_of
from familial.synth.actions.falling import (
    after_fall,
    fall_in,
    sit_until_onset,
    turn_unless_walking,
    walk_or_stand,
    walk_until_onset,
)

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
    momentum = walk_or_stand(cast)
    turn_unless_walking(cast, momentum)
    return fall_in(cast, (0.0,), momentum=momentum)


@action("fall_back", "fall", "a person falls backward and lies on the floor", weight=1.2)
def fall_back(cast: Cast) -> Span:
    momentum = walk_or_stand(cast)
    turn_unless_walking(cast, momentum)
    return fall_in(cast, (180.0,), momentum=momentum)


@action("fall_side", "fall", "a person falls sideways and lies on the floor", weight=1.2)
def fall_side(cast: Cast) -> Span:
    momentum = walk_or_stand(cast)
    turn_unless_walking(cast, momentum)
    return fall_in(cast, (90.0, -90.0), momentum=momentum)


@action("fall_trip", "fall", "a person trips while walking and falls to the floor", weight=1.0)
def fall_trip(cast: Cast) -> Span:
    return fall_in(cast, (0.0,), momentum=walk_until_onset(cast))


@action("fall_chair", "fall", "a person falls from a chair and lies on the floor", weight=0.9)
def fall_chair(cast: Cast) -> Span:
    sit_until_onset(cast)
    return fall_in(cast, (0.0, 90.0, -90.0))


@action("fall_faint", "fall", "a person faints and lies on the floor", weight=1.1)
def fall_faint(cast: Cast) -> Span:
    momentum = walk_or_stand(cast)
    return fall_in(cast, (0.0, 60.0, 90.0, -60.0, -90.0, 180.0), "fold", momentum)


@action("fall_slip", "fall", "a person slips while walking and falls backward", weight=0.9)
def fall_slip(cast: Cast) -> Span:
    return fall_in(cast, (180.0, 150.0, -150.0), "slip", walk_until_onset(cast))


@action("fall_knees", "fall", "a person sinks to the knees and falls to the floor", weight=0.9)
def fall_knees(cast: Cast) -> Span:
    momentum = walk_or_stand(cast)
    return fall_in(cast, (0.0, 40.0, -40.0), "knees", momentum)


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
        actor.go(rng.uniform(0.35, 0.7), None, edge | actor.limp(spin=actor.spin + side))
        actor.go(math.sqrt(2 * max(0.05, height) / 9.81), lift=0.0, ease="drop")
        impact = actor.now
        actor.go(0.4, None, actor.limp(spin=actor.spin + float(rng.uniform(-20, 20))))
    return after_fall(cast, actor, start, impact)


@action("fall_slump", "fall", "a person slowly sinks to the floor and lies there", weight=0.7)
def fall_slump(cast: Cast) -> Span:
    momentum = walk_or_stand(cast)
    turn_unless_walking(cast, momentum)
    return fall_in(cast, (90.0, -90.0), "slump", momentum)
