"""One person on the floor or a bed: kneels, crawls, exercises, drops onto a bed."""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, bed_of
from familial.synth.actions.shared import begin, begin_at
from familial.synth.actor import Actor

__all__ = ["crawl", "flop", "floor_exercise", "kneel"]


@action("kneel", "normal", "a person kneels and stands up", weight=0.6)
def kneel(cast: Cast) -> Span:
    """Kneel on one knee or both, the hands busy on the floor, and stand up again."""
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    rng = actor.rng
    pose = str(rng.choice(["kneel", "half_kneel", "fours"]))
    actor.go(rng.uniform(0.5, 1.2), pose)
    while actor.now < until:
        actor.go(
            rng.uniform(0.3, 0.8),
            lean=rng.uniform(0, 30) if pose != "fours" else rng.uniform(-4, 4),
            sho_l=rng.uniform(20, 70) if pose != "fours" else 88,
            sho_r=rng.uniform(20, 80),
            elb_r=rng.uniform(10, 70),
            nod=rng.uniform(-10, 30),
        )
    actor.go(rng.uniform(0.7, 1.3), "stand")
    return start, actor.now


@action("crawl", "normal", "a person crawls on the floor", weight=0.4)
def crawl(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    rng = actor.rng
    actor.go(rng.uniform(0.6, 1.0), "half_kneel")
    actor.go(rng.uniform(0.5, 0.9), "fours")
    speed, sign = rng.uniform(0.25, 0.7), 1.0
    while actor.now < until:
        sign = -sign
        beat = rng.uniform(0.35, 0.5)
        heading = math.radians(actor.yaw)
        place = cast.in_view(actor.place + speed * beat * np.array([math.cos(heading), math.sin(heading)]))
        actor.go(
            beat,
            x=float(place[0]),
            y=float(place[1]),
            sho_l=88 + 18 * sign,
            sho_r=88 - 18 * sign,
            hip_l=86 - 14 * sign,
            hip_r=86 + 14 * sign,
            yaw=actor.yaw + rng.normal(0, 5),
        )
    actor.go(0.9, "half_kneel", pin=1)
    actor.go(0.9, "stand", pin=0.5)
    actor.go(0.1, "stand")
    return start, actor.now


@action("floor_exercise", "normal", "a person exercises on the floor", weight=0.7)
def floor_exercise(cast: Cast) -> Span:
    """Do push-ups, sit-ups or leg raises."""
    actor, start, stay = begin(cast)
    until = start + 1.5 + stay
    rng = actor.rng
    beat, exercise = rng.uniform(0.4, 0.9), int(rng.integers(3))
    if exercise == 0:
        _push_ups(actor, beat, until)
    else:
        _on_the_back(actor, beat, until, sit_ups=exercise == 1)
    actor.go(0.9, "stand", pin=0.5)
    actor.go(0.1, "stand")
    return start, actor.now


def _push_ups(actor: Actor, beat: float, until: float) -> None:
    actor.go(0.8, "half_kneel")
    actor.go(0.8, "fours")
    actor.go(0.7, "prone", sho=80, elb=5, arm=15, tip_f=72)
    while actor.now < until:
        actor.go(beat, elb=75, sho=45, tip_f=86)
        actor.go(beat, elb=5, sho=80, tip_f=72)
    actor.go(0.7, "fours")
    actor.go(0.8, "half_kneel", pin=1)


def _on_the_back(actor: Actor, beat: float, until: float, sit_ups: bool) -> None:
    actor.go(0.8, "crouch", sho=20)
    actor.go(0.7, "sit_floor", pin=1)
    actor.go(0.9, "supine", hip=45, knee=80)
    while actor.now < until:
        if sit_ups:
            actor.go(beat, lean=62, sho=70)
            actor.go(beat, lean=0, sho=20)
        else:
            actor.go(beat, hip=80, knee=10)
            actor.go(beat, hip=15, knee=10)
    actor.go(0.8, "sit_floor", pin=1)
    actor.go(0.8, "crouch", pin=1)


@action("flop", "normal", "a person drops quickly onto a bed and lies", weight=0.9)
def flop(cast: Cast) -> Span:
    """Drop fast onto the bed, sofa or mat behind, and lie there."""
    actor, start, stay = begin_at(cast, cast.stage.couch, cast.stage.couch.half + 0.1)
    until = start + 1.5 + stay
    height, depth = bed_of(cast, actor)
    rise = bool(actor.rng.random() < 0.3)
    actor.lie_down(max(1.0, until - actor.now), height=height, depth=depth, rise=rise, quick=2.2)
    if actor.lies:
        actor.lie(max(0.1, cast.seconds + 0.5 - actor.now), still=0.4)
    return start, actor.now
