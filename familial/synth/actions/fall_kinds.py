"""More ways to fall: straight down, down a wall, past the chair, in getting up, at a run, dizzy; children, the old."""

from __future__ import annotations

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast
from familial.synth.actions.falling import (
    after_fall,
    fall_in,
    sit_until_onset,
    turn_unless_walking,
    walk_or_stand,
    walk_until_onset,
)
from familial.synth.actions.shared import ordinary_life
from familial.synth.actor import Actor

__all__ = [
    "fall_bend",
    "fall_child",
    "fall_dizzy",
    "fall_grab",
    "fall_heap",
    "fall_miss",
    "fall_old",
    "fall_rise",
    "fall_run",
    "fall_wall",
]


@action("fall_heap", "fall", "a person faints and sinks to the floor", weight=0.9)
def fall_heap(cast: Cast) -> Span:
    """Collapse straight down where one stands, in a heap, and roll over."""
    momentum = walk_or_stand(cast)
    return fall_in(cast, (90.0, -90.0), "heap", 0.3 * momentum)


@action("fall_wall", "fall", "a person slowly sinks to the floor and sits there", weight=0.7)
def fall_wall(cast: Cast) -> Span:
    """Slide down with the back against something, to a slumped seat; tip over to a side, or stay so."""
    actor = cast.actors[0]
    rng = actor.rng
    turn_unless_walking(cast, walk_or_stand(cast))
    start, slow = actor.now, float(rng.uniform(0.6, 2.4))
    actor.go(0.3, None, lean=-4.0, nod=float(rng.uniform(5, 25)), sho=8.0, elb=14.0)
    actor.go(0.6 * slow, None, hip=58.0, knee=88.0, lean=-4.0, gait=0.0, tip_f=-10.0)
    knee = float(rng.uniform(12, 70))
    slump = {"hip": 88.0 + 0.43 * knee, "knee": knee, "lean": float(rng.uniform(-12, 14)), "sho": 8.0, "elb": 10.0}
    slump |= {"nod": float(rng.uniform(15, 38)), "side": float(rng.normal(0, 10)), "arm": float(rng.uniform(6, 30))}
    actor.go(0.4 * slow, "sit_floor", slump, ease="drop")
    impact = actor.now
    actor.hold(float(rng.uniform(0.3, 2.0)))
    if rng.random() < 0.5:
        actor.go(float(rng.uniform(0.5, 1.2)), "aside", flip=bool(rng.random() < 0.5), ease="drop")
        return after_fall(cast, actor, start, impact)
    while actor.now < cast.seconds + 0.5:
        small = {"nod": float(rng.uniform(15, 38)), "side": float(rng.normal(0, 8)), "elb_r": float(rng.uniform(5, 60))}
        actor.go(float(rng.uniform(0.6, 1.5)), None, small)
        actor.hold(float(rng.uniform(0.5, 3.0)))
    cast.lying.append((impact, cast.seconds))
    for other in cast.actors[1:]:
        ordinary_life(cast, other, cast.seconds + 0.5)
    return start, impact


@action("fall_miss", "fall", "a person falls from a chair and lies on the floor", weight=0.8)
def fall_miss(cast: Cast) -> Span:
    """Sit down beside or past the chair, drop onto the buttocks, tip back with the legs up."""
    actor = cast.actors[0]
    rng = actor.rng
    turn_unless_walking(cast, walk_or_stand(cast))
    actor.go(float(rng.uniform(0.4, 0.7)), hip=58.0, knee=76.0, lean=34.0, sho=30.0, gait=0.0)
    start = actor.now
    flung = {"sho": float(rng.uniform(20, 80)), "arm": float(rng.uniform(20, 60)), "elb": 20.0, "tip_f": -8.0}
    actor.go(float(rng.uniform(0.3, 0.45)), "sit_floor", flung, ease="drop", lean=-12.0)
    impact = actor.now
    if rng.random() < 0.75:
        up = float(rng.uniform(40, 95))
        actor.go(float(rng.uniform(0.3, 0.5)), "supine", {"hip": up, "knee": float(rng.uniform(20, 70))}, ease="drop")
        impact = actor.now
        actor.go(0.5, None, hip=float(rng.uniform(10, 50)), knee=float(rng.uniform(20, 80)))
    else:
        actor.go(0.4, None, nod=14.0, lean=10.0)
    return after_fall(cast, actor, start, impact)


@action("fall_rise", "fall", "a person gets up from a chair and falls", weight=0.9)
def fall_rise(cast: Cast) -> Span:
    """Try to stand up, once or twice in vain, then lose balance half-way or at the first step."""
    actor = cast.actors[0]
    rng = actor.rng
    cast.onset = max(1.0, cast.onset - 2.5)  # the attempts take time
    sit_until_onset(cast)
    for _ in range(int(rng.integers(0, 2))):
        actor.go(0.5, hip=76.0, knee=84.0, lean=44.0, sho=45.0)
        actor.go(0.5, "sit")
    actor.go(0.6, hip=70.0, knee=80.0, lean=42.0, sho=40.0)
    actor.go(
        float(rng.uniform(0.4, 0.8)), None, hip=float(rng.uniform(20, 50)), knee=float(rng.uniform(28, 64)), lean=30.0
    )
    if rng.random() < 0.4:
        actor.go(0.4, "stand", actor.shift(float(rng.uniform(0.1, 0.3))), side=float(rng.normal(0, 10)), arm=30.0)
    return fall_in(cast, (0.0, 40.0, -40.0, 90.0, -90.0), "fold" if rng.random() < 0.5 else "tip")


@action("fall_grab", "fall", "a person holds on to something and falls to the floor", weight=0.8)
def fall_grab(cast: Cast) -> Span:
    """Lose balance, reach out for a hold with one arm or both, find none or lose it, and fall."""
    actor = cast.actors[0]
    rng = actor.rng
    momentum = walk_or_stand(cast)
    turn_unless_walking(cast, momentum)
    start = actor.now
    s = "_l" if rng.random() < 0.5 else "_r"
    for _ in range(int(rng.integers(1, 3))):
        grip = {
            "sho" + s: float(rng.uniform(30, 130)),
            "elb" + s: float(rng.uniform(4, 40)),
            "arm" + s: float(rng.uniform(0, 70)),
        }
        sway = {
            "side": float(rng.normal(0, 14)),
            "lean": float(rng.uniform(-18, 26)),
            "knee": float(rng.uniform(6, 30)),
        }
        actor.go(float(rng.uniform(0.2, 0.45)), None, grip | sway | actor.shift(float(rng.normal(0, 0.1))), ease="fast")
    _, impact = fall_in(cast, (0.0, 90.0, -90.0, 180.0), str(rng.choice(["tip", "fold"])), 0.5 * momentum)
    return start, impact


@action("fall_run", "fall", "a person runs and falls to the floor", weight=0.7)
def fall_run(cast: Cast) -> Span:
    """Trip at a run and slide on."""
    momentum = walk_until_onset(cast, speed=float(cast.actors[0].rng.uniform(2.3, 3.8)))
    return fall_in(cast, (0.0, 20.0, -20.0), momentum=0.7 * momentum)


@action("fall_dizzy", "fall", "a person stands, faints and falls to the floor", weight=0.8)
def fall_dizzy(cast: Cast) -> Span:
    """Sway, take a few steps to and fro, a hand to the head or the chest, then fall any way."""
    actor = cast.actors[0]
    rng = actor.rng
    ordinary_life(cast, actor, max(0.3, cast.onset - float(rng.uniform(1.5, 3.5))))
    hand = {"sho_r": float(rng.uniform(40, 62)), "elb_r": float(rng.uniform(110, 138))} if rng.random() < 0.7 else {}
    while actor.now < cast.onset:
        step = cast.in_view(actor.place + rng.normal(0, 0.14, 2))
        at = {"x": float(step[0]), "y": float(step[1]), "yaw": actor.yaw + float(rng.normal(0, 12))}
        sway = {"side": float(rng.normal(0, 9)), "lean": float(rng.uniform(-8, 24)), "nod": float(rng.uniform(0, 28))}
        actor.go(float(rng.uniform(0.4, 0.8)), "stand", hand | at | sway)
    style = str(rng.choice(["fold", "tip", "heap", "slump", "knees"]))
    ways = {"knees": (0.0, 90.0, -90.0), "heap": (90.0, -90.0), "slump": (90.0, -90.0)}
    return fall_in(cast, ways.get(style, (0.0, 90.0, -90.0, 180.0)), style)


@action("fall_bend", "fall", "a person bends down and falls to the floor", weight=0.8)
def fall_bend(cast: Cast) -> Span:
    """Bend, crouch or reach for something, overbalance, and fall forward, over a shoulder or back."""
    actor = cast.actors[0]
    rng = actor.rng
    ordinary_life(cast, actor, max(0.3, cast.onset - 1.0))
    pose = str(rng.choice(["bend", "crouch", "squat_reach", "half_kneel"]))
    actor.go(float(rng.uniform(0.6, 1.1)), pose)
    actor.hold(float(rng.uniform(0.1, 1.0)))
    return fall_in(cast, (90.0, -90.0, 180.0) if pose == "crouch" else (0.0, 60.0, -60.0, 90.0, -90.0))


@action("fall_child", "fall", "a child runs and falls to the floor", weight=0.5, who="child")
def fall_child(cast: Cast) -> Span:
    """A child trips at a run, or slips; most sit up or get up again."""
    actor = cast.actors[0]
    rng = actor.rng
    momentum = walk_until_onset(cast, speed=float(rng.uniform(1.4, 3.0)))
    if rng.random() < 0.25:
        return fall_in(cast, (180.0, 150.0, -150.0), "slip", 0.6 * momentum)
    return fall_in(cast, (0.0, 25.0, -25.0, 90.0, -90.0), momentum=0.6 * momentum)


@action("fall_old", "fall", "a person walks slowly and falls to the floor", weight=1.0, who="old")
def fall_old(cast: Cast) -> Span:
    """Short steps, a foot that drags or a turn that goes wrong, a slow loss of balance; many cannot get up."""
    actor = cast.actors[0]
    rng = actor.rng
    ordinary_life(cast, actor, max(0.3, cast.onset - float(rng.uniform(1.5, 3.0))))
    actor.walk(cast.spot(actor, 1.0, 4.0), speed=float(rng.uniform(0.35, 0.7)), until=cast.onset, stop=False)
    start = actor.now
    _sways(actor, int(rng.integers(1, 4)))
    style = str(rng.choice(["tip", "tip", "fold", "knees", "slump"]))
    ways = (90.0, -90.0) if style == "slump" else (0.0, 90.0, -90.0, 130.0, -130.0, 180.0)
    _, impact = fall_in(cast, ways, style)
    return start, impact


def _sways(actor: Actor, times: int) -> None:
    rng = actor.rng
    for _ in range(times):
        step = actor.shift(float(rng.uniform(-0.12, 0.16)), float(rng.normal(0, 0.1)))
        trunk = {"side": float(rng.normal(0, 10)), "lean": float(rng.uniform(4, 30)), "arm": float(rng.uniform(10, 50))}
        hands = {"sho_l": float(rng.uniform(0, 60)), "sho_r": float(rng.uniform(0, 60))}
        actor.go(float(np.clip(rng.normal(0.35, 0.1), 0.2, 0.6)), "stand", step | trunk | hands)
