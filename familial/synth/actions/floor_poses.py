"""One person low on purpose: yoga, push-ups, praying, sitting on the floor, sleeping, tying shoes, a child at play."""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, bed_of, seat_gap
from familial.synth.actions.shared import begin, begin_at
from familial.synth.actor import Actor

__all__ = [
    "crawl_child",
    "floor_sit",
    "play_child",
    "pray",
    "push_ups",
    "sleep_bed",
    "sleep_floor",
    "tie_shoes",
    "yoga",
]

_DOG = {"tip_f": 30.0, "lean": 100.0, "hip": 0.0, "knee": 6.0, "sho": 168.0, "elb": 4.0, "nod": 12.0, "gait": 0.0}
_CHILD = {"tip_f": 0.0, "hip": 80.0, "knee": 168.0, "lean": 90.0, "curl": 12.0, "sho": 178.0, "elb": 6.0, "gait": 0.0}
_HEELS = {"tip_f": 0.0, "hip": 80.0, "knee": 166.0, "lean": 4.0, "sho": 28.0, "elb": 30.0, "gait": 0.0}
_PLANK = {"tip_f": 72.0, "sho": 80.0, "elb": 5.0, "arm": 6.0, "hip": 0.0, "knee": 4.0}
_COBRA = {"tip_f": 90.0, "lean": -48.0, "sho": -8.0, "elb": 95.0, "arm": 6.0, "nod": -14.0}
_WARRIOR = {"hip_l": 58.0, "knee_l": 72.0, "hip_r": -34.0, "knee_r": 6.0, "arm": 88.0, "elb": 4.0, "gait": 0.0}
_TREE = {"hip_r": 42.0, "abd_r": 58.0, "knee_r": 118.0, "sho": 168.0, "elb": 10.0, "gait": 0.0}
_FOLD = {"hip": 88.0, "knee": 6.0, "lean": 58.0, "curl": 24.0, "sho": 158.0, "elb": 6.0}


@action("yoga", "normal", "a person exercises slowly on the floor", weight=1.1)
def yoga(cast: Cast) -> Span:
    """Some postures, slowly, one after another: dog, child, plank, cobra, lying, sitting, standing on one leg."""
    _early(cast)
    actor, start, _ = begin(cast)
    rng = actor.rng
    slow = float(rng.uniform(0.8, 1.6))
    for _ in range(2):
        if rng.random() < 0.25:
            stand = _WARRIOR if rng.random() < 0.5 else _TREE
            actor.go(slow, "stand", stand)
            _breathe(actor, float(rng.uniform(0.8, 2.5)))
    actor.go(slow, "stand")
    actor.go(slow, "half_kneel" if rng.random() < 0.5 else "bend")
    _to_fours(actor, slow)
    stop = min(cast.seconds + 0.3, actor.now + float(rng.uniform(4.0, 9.0)))
    flows = {"dog": _dog, "child": _child_pose, "plank": _plank, "cobra": _cobra, "back": _on_back, "cat": _cat}
    while actor.now < stop:
        flows[str(rng.choice(list(flows)))](actor, slow)
    _rise_from_fours(actor)
    return start, actor.now


@action("push_ups", "normal", "a person exercises on the floor", weight=0.6)
def push_ups(cast: Cast) -> Span:
    """Push-ups on the feet or on the knees, quick or slow, or a plank; or burpees, which go down fast."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    until, beat = start + 2.0 + stay, float(rng.uniform(0.35, 0.9))
    if rng.random() < 0.35:
        while actor.now < until:
            actor.go(0.5 * beat + 0.15, "crouch", sho=70.0, elb=10.0, lean=48.0)
            actor.go(0.3, "prone", _PLANK)
            if rng.random() < 0.6:
                actor.go(beat, elb=72.0, sho=45.0, tip_f=86.0)
                actor.go(beat, None, _PLANK)
            actor.go(0.35, "crouch", pin=1.0, sho=70.0)
            if rng.random() < 0.6:
                actor.jump(1)
            else:
                actor.go(0.4, "stand")
        actor.go(0.3, "stand")
        return start, actor.now
    knees = {"knee": 82.0} if rng.random() < 0.35 else {}
    actor.go(0.7, "half_kneel")
    _to_fours(actor, 0.7)
    actor.go(0.7, "prone", _PLANK | knees)
    hold = rng.random() < 0.25
    while actor.now < until:
        if hold:
            _breathe(actor, 0.8)
        else:
            actor.go(beat, elb=75.0, sho=45.0, tip_f=86.0)
            actor.go(beat, None, _PLANK | knees)
    actor.go(0.7, "fours")
    _rise_from_fours(actor)
    return start, actor.now


@action("pray", "normal", "a person kneels and bends down to the floor", weight=0.5)
def pray(cast: Cast) -> Span:
    """Kneel, sit on the heels, bow until the head is on the floor, and come up, again and again."""
    _early(cast)
    actor, start, stay = begin(cast)
    rng = actor.rng
    slow = float(rng.uniform(0.7, 1.3))
    if rng.random() < 0.5:
        actor.go(slow, "bend", sho=40.0, elb=30.0, lean=68.0)
        actor.go(slow, "stand")
    actor.go(slow, "kneel")
    while actor.now < start + 3.0 + stay:
        actor.go(0.8 * slow, None, _HEELS, pin=1.0)
        actor.hold(float(rng.uniform(0.2, 1.5)))
        actor.go(slow, None, _CHILD, sho=float(rng.uniform(150, 178)), elb=float(rng.uniform(6, 30)), pin=1.0)
        actor.hold(float(rng.uniform(0.3, 1.8)))
    actor.go(slow, None, _HEELS, pin=1.0)
    actor.go(0.8, "half_kneel", pin=0.5)
    actor.go(0.9, "stand")
    return start, actor.now


@action("floor_sit", "normal", "a person sits down on the floor and gets up", weight=0.8)
def floor_sit(cast: Cast) -> Span:
    """Go down by a knee, a crouch or the hands; sit with legs crossed, stretched or drawn up; and get up."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    slow = float(rng.uniform(0.5, 1.2))
    if rng.random() < 0.4:
        actor.go(slow, "half_kneel")
        actor.go(slow, None, _HEELS, pin=1.0)
    else:
        actor.go(slow, "crouch", sho=25.0)
    back = {"sho": -28.0, "elb": 12.0, "lean": -16.0}
    seats = (
        {"hip": 114.0, "knee": 150.0, "abd": 42.0, "lean": 8.0},
        {"hip": 88.0, "knee": 8.0} | back,
        {"hip": 138.0, "knee": 118.0, "sho": 60.0, "elb": 40.0, "lean": 8.0},
        {"hip": 126.0, "knee": 90.0} | (back if rng.random() < 0.5 else {}),
    )
    seat = seats[int(rng.integers(len(seats)))]
    actor.go(slow, "sit_floor", seat, pin=1.0)
    until = actor.now + stay
    while actor.now < until:
        hand = {"sho_r": float(rng.uniform(10, 70)), "elb_r": float(rng.uniform(10, 90))} if "sho" not in seat else {}
        actor.go(
            float(rng.uniform(0.4, 1.0)), None, hand, twist=float(rng.normal(0, 10)), nod=float(rng.uniform(-5, 24))
        )
        actor.hold(float(rng.uniform(0.0, 1.2)))
    if rng.random() < 0.5:
        actor.go(0.8, "crouch", pin=1.0)
    else:
        _to_fours(actor, 0.8)
        actor.go(0.8, "half_kneel", pin=1.0)
    actor.go(float(rng.uniform(0.7, 1.2)), "stand", pin=0.5)
    actor.go(0.1, "stand")
    return start, actor.now


@action("sleep_bed", "normal", "a person slowly lies down on a bed", weight=0.9)
def sleep_bed(cast: Cast) -> Span:
    """Sit on the edge, lie back, draw the legs up, turn over and sleep."""
    _early(cast)
    actor, start, _ = begin_at(cast, cast.stage.couch, cast.stage.couch.half + 0.1)
    height, depth = bed_of(cast, actor)
    actor.lie_down(0.3, height=height, depth=depth, rise=False, quick=float(actor.rng.uniform(0.45, 0.8)))
    _sleep(cast, actor)
    return start, actor.now


@action("sleep_floor", "normal", "a person slowly lies down on the floor", weight=0.8)
def sleep_floor(cast: Cast) -> Span:
    """Go down by the knees and hands, lie, find a comfortable posture, and sleep."""
    _early(cast)
    actor, start, _ = begin(cast)
    rng = actor.rng
    slow = float(rng.uniform(0.9, 1.6))
    actor.go(slow, "half_kneel")
    actor.go(0.7 * slow, "kneel", lean=30.0, sho=40.0)
    if rng.random() < 0.6:
        _to_fours(actor, slow)
        left = rng.random() < 0.5
        actor.go(1.4 * slow, "aside", flip=left, sho=70.0, elb=60.0)
    else:
        actor.go(slow, None, _HEELS, pin=1.0)
        actor.go(slow, "sit_floor", lean=-24.0, sho=-35.0, elb=14.0, pin=1.0)
        actor.go(1.2 * slow, "supine", hip=40.0, knee=70.0)
        actor.go(0.6 * slow, hip=8.0, knee=10.0)
    _sleep(cast, actor)
    return start, actor.now


@action("tie_shoes", "normal", "a person bends down to the shoes", weight=0.9)
def tie_shoes(cast: Cast) -> Span:
    """Tie the laces on one knee, bent over with straight legs, crouching, or sitting on a chair."""
    rng = cast.rng
    sits = rng.random() < 0.35
    if sits:
        actor, start, stay = begin_at(cast, cast.stage.seat, seat_gap(cast.actors[0]))
        actor.sit(0.4, rise=False)
    else:
        actor, start, stay = begin(cast)
    feet = ("_l", "_r") if rng.random() < 0.5 else ("_r", "_l")
    for s in feet[: int(rng.integers(1, 3))]:
        pose = "sit" if sits else str(rng.choice(["half_kneel", "bend", "crouch"]))
        down = {
            "sit": {"lean": 62.0, "curl": 22.0, "sho": 78.0, "elb": 12.0, "hip" + s: 92.0, "knee" + s: 78.0},
            "half_kneel": {"lean": 58.0, "curl": 24.0, "sho": 62.0, "elb": 24.0, "nod": 22.0},
            "bend": {"lean": 92.0, "curl": 30.0, "sho": 86.0, "elb": 8.0, "nod": 10.0},
            "crouch": {"lean": 48.0, "curl": 18.0, "sho": 62.0, "elb": 20.0, "nod": 22.0},
        }[pose]
        actor.go(float(rng.uniform(0.6, 1.2)), pose, down, flip=s == "_r")
        until = actor.now + float(rng.uniform(1.5, 2.0 + stay))
        while actor.now < until:
            busy = {
                "elb_l": down["elb"] + float(rng.uniform(-8, 14)),
                "elb_r": down["elb"] + float(rng.uniform(-8, 14)),
            }
            busy |= {"arm_l": float(rng.uniform(-2, 12)), "arm_r": float(rng.uniform(-2, 12))}
            actor.go(float(rng.uniform(0.14, 0.4)), None, busy)
        if not sits or rng.random() < 0.6:
            actor.go(float(rng.uniform(0.5, 1.1)), "sit" if sits else "stand")
    if sits:
        actor.go(0.5, hip=80.0, knee=88.0, lean=40.0, sho=35.0)
    actor.go(0.8, "stand")
    return start, actor.now


@action("crawl_child", "normal", "a child crawls on the floor", weight=0.6, who="child")
def crawl_child(cast: Cast) -> Span:
    """A small child crawls fast, sits up, and crawls on."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    actor.go(0.5, "half_kneel")
    _to_fours(actor, 0.4)
    while actor.now < start + 3.0 + stay:
        _crawl(cast, actor, float(rng.uniform(0.4, 1.1)), actor.now + float(rng.uniform(1.0, 3.0)))
        if rng.random() < 0.5:
            actor.go(0.6, None, _HEELS, pin=1.0)
            actor.hold(float(rng.uniform(0.3, 1.5)))
            _to_fours(actor, 0.5)
    _rise_from_fours(actor)
    return start, actor.now


@action("play_child", "normal", "a child sits and crawls on the floor", weight=0.6, who="child")
def play_child(cast: Cast) -> Span:
    """A child plunges to the knees, plays, lies on the belly, jumps up, runs a few steps, and is down again."""
    actor, start, _ = begin(cast)
    rng = actor.rng
    stop = min(cast.seconds, start + float(rng.uniform(4.0, 9.0)))
    while actor.now < stop:
        does = rng.choice(["kneel", "belly", "sit", "run"], p=[0.35, 0.2, 0.25, 0.2])
        if does == "run":
            actor.go(0.4, "stand")
            actor.walk(cast.spot(actor, 0.8, 3.0), speed=float(rng.uniform(1.4, 2.6)))
            continue
        actor.go(float(rng.uniform(0.3, 0.6)), "kneel")
        if does == "belly":
            _to_fours(actor, 0.3)
            actor.go(0.5, "prone", {"lean": -14.0, "sho": 70.0, "elb": 60.0, "knee": 70.0})
        elif does == "sit":
            actor.go(0.4, "sit_floor", {"abd": 28.0, "hip": 92.0, "knee": 20.0}, pin=1.0)
        until = actor.now + float(rng.uniform(0.8, 2.5))
        while actor.now < until:
            hands = {"sho_l": float(rng.uniform(30, 80)), "sho_r": float(rng.uniform(30, 80))}
            actor.go(float(rng.uniform(0.2, 0.6)), None, hands, nod=float(rng.uniform(0, 24)))
        if does == "belly":
            _to_fours(actor, 0.4)
        actor.go(0.4, "half_kneel", pin=1.0)
        actor.go(0.4, "stand", pin=0.5)
        actor.go(0.05, "stand")
    return start, actor.now


def _early(cast: Cast) -> None:
    """Have what takes long begin in the first half of the clip."""
    cast.onset = min(cast.onset, 0.5 * cast.seconds)


def _crawl(cast: Cast, actor: Actor, speed: float, until: float) -> None:
    rng, sign = actor.rng, 1.0
    while actor.now < until:
        sign = -sign
        beat = 0.14 / speed + 0.14
        way = math.radians(actor.yaw)
        place = cast.in_view(actor.place + speed * beat * np.array([math.cos(way), math.sin(way)]))
        limbs = {"sho_l": 88 + 16 * sign, "sho_r": 88 - 16 * sign, "hip_l": 86 - 14 * sign, "hip_r": 86 + 14 * sign}
        at = {"x": float(place[0]), "y": float(place[1]), "yaw": actor.yaw + float(rng.normal(0, 9))}
        actor.go(beat, None, limbs | at)


def _breathe(actor: Actor, seconds: float) -> None:
    actor.go(0.5 * seconds, None, nod=float(actor.rng.uniform(-4, 8)))
    actor.hold(0.5 * seconds)


def _to_fours(actor: Actor, seconds: float) -> None:
    actor.go(seconds, "fours")


def _dog(actor: Actor, slow: float) -> None:
    actor.go(slow, None, _DOG, pin=1.0)
    _breathe(actor, float(actor.rng.uniform(0.6, 2.5)))
    _to_fours(actor, slow)


def _child_pose(actor: Actor, slow: float) -> None:
    actor.go(slow, None, _CHILD, pin=1.0)
    _breathe(actor, float(actor.rng.uniform(0.8, 3.0)))
    _to_fours(actor, slow)


def _plank(actor: Actor, slow: float) -> None:
    actor.go(0.7 * slow, "prone", _PLANK)
    _breathe(actor, float(actor.rng.uniform(0.5, 2.0)))
    _to_fours(actor, slow)


def _cobra(actor: Actor, slow: float) -> None:
    actor.go(0.7 * slow, "prone", _PLANK)
    actor.go(slow, "prone", _COBRA)
    _breathe(actor, float(actor.rng.uniform(0.5, 2.0)))
    _to_fours(actor, slow)


def _on_back(actor: Actor, slow: float) -> None:
    rng = actor.rng
    actor.go(slow, None, _HEELS, pin=1.0)
    actor.go(slow, "sit_floor", lean=-10.0, pin=1.0)
    if rng.random() < 0.4:
        actor.go(slow, "sit_floor", _FOLD, pin=1.0)
        _breathe(actor, float(rng.uniform(0.5, 2.0)))
    actor.go(1.2 * slow, "supine", hip=40.0, knee=70.0)
    drawn = rng.random() < 0.5
    actor.go(slow, None, hip=105.0 if drawn else 4.0, knee=120.0 if drawn else 6.0)
    _breathe(actor, float(rng.uniform(0.8, 3.0)))
    actor.go(slow, "sit_floor", pin=1.0)
    _to_fours(actor, slow)


def _cat(actor: Actor, slow: float) -> None:
    actor.go(0.7 * slow, "fours", curl=26.0, nod=20.0)
    actor.go(0.7 * slow, "fours", curl=-14.0, nod=-30.0)


def _rise_from_fours(actor: Actor) -> None:
    rng = actor.rng
    actor.go(float(rng.uniform(0.7, 1.1)), "half_kneel", pin=1.0)
    actor.go(float(rng.uniform(0.7, 1.2)), "stand", pin=0.5)
    actor.go(0.1, "stand")


def _sleep(cast: Cast, actor: Actor) -> None:
    """Find a comfortable posture, turn over perhaps, and lie still to the end."""
    rng = actor.rng
    for _ in range(int(rng.integers(0, 3))):
        knee = float(rng.uniform(10, 70))
        draw = {"knee_l": knee, "hip_l": 0.7 * knee, "sho_r": float(rng.uniform(10, 80)), "elb_r": 80.0}
        actor.go(float(rng.uniform(0.7, 1.4)), None, draw, spin=actor.spin + float(rng.uniform(-40, 40)))
        actor.hold(float(rng.uniform(0.3, 1.5)))
    actor.lie(max(0.1, cast.seconds + 0.5 - actor.now), still=0.8)
