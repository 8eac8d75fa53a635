"""Two people touch or come close without harm, some of it fast: they clap hands, pat a back, throw, squeeze past."""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.aim import aimed, join_hands, stand_to_reach
from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, direction_to, unwrapped
from familial.synth.actions.opposite import after_it, face_off, go_up_to, idle, look_at
from familial.synth.actions.shared import approach, meet, ordinary_life, separate, wait_for_each_other
from familial.synth.actor import Actor
from familial.synth.kinematics import present
from familial.synth.skeleton import JOINT

__all__ = ["brush_past", "high_five", "lift_up", "lively_talk", "pat", "throw", "walk_arm"]


@action("high_five", "normal", "two people clap hands", weight=0.7, people=2)
def high_five(cast: Cast) -> Span:
    """Raise a hand each, clap them together high up or low, once or a few times, and part."""
    rng = cast.rng
    a, b = face_off(cast, float(rng.uniform(0.8, 2.2)))
    start = a.now
    sides = ("_r", "_r") if rng.random() < 0.7 else ("_r", "_l")
    height = float(rng.uniform(0.9, 1.12) if rng.random() < 0.75 else rng.uniform(0.55, 0.7))
    for _ in range(int(rng.integers(1, 3))):
        for actor, side in ((a, sides[0]), (b, sides[1])):
            ready = {"sho" + side: float(rng.uniform(70, 150)), "elb" + side: float(rng.uniform(40, 90))}
            actor.go(float(rng.uniform(0.3, 0.6)), None, ready)
        arm = {"sho": 95.0, "elb": float(rng.uniform(10, 40)), "arm": 6.0, "lean": 5.0}
        wait_for_each_other(a, b)
        join_hands(cast, a, b, sides, arm, height, float(rng.uniform(0.16, 0.36)), "fast")
        a.hold(0.06)
        b.hold(0.06)
    for actor in (a, b):
        actor.go(float(rng.uniform(0.3, 0.6)), "stand")
    stop = a.now
    after_it(cast, a, b)
    return start, stop


@action("pat", "normal", "a person puts a hand on another person", weight=0.8, people=2)
def pat(cast: Cast) -> Span:
    """Walk up, lay a hand on the other's shoulder or back, pat it a few times or leave it there."""
    rng = cast.rng
    a, b = face_off(cast, float(rng.uniform(0.8, 2.2)))
    start = a.now
    if rng.random() < 0.5:  # from the side or from behind
        b.face(b.yaw + float(rng.choice([-1, 1]) * rng.uniform(60, 170)))
        a.hold_until(b.now)
    s = "_r" if rng.random() < 0.65 else "_l"
    body = present(b)
    target = body[JOINT[str(rng.choice(["shoulder_l", "shoulder_r", "chest"]))]]
    _, heading, _ = direction_to(a, b)
    arm = {"sho" + s: 70.0, "elb" + s: float(rng.uniform(15, 50)), "arm" + s: float(rng.uniform(0, 12))}
    aim = aimed(a, "stand", arm, "hand" + s, "sho" + s, float(target[2]) + 0.05)
    place, yaw = stand_to_reach(a, aim, target[:2], heading)
    go_up_to(a, place, yaw, float(rng.uniform(0.8, 1.6)))
    a.go(float(rng.uniform(0.5, 0.9)), "stand", aim.angles | {"x": float(place[0]), "y": float(place[1]), "yaw": yaw})
    beat, bend = float(rng.uniform(0.14, 0.28)), a.angle("elb" + s)
    for _ in range(int(rng.integers(0, 5))):
        a.go(beat, None, {"elb" + s: bend + float(rng.uniform(12, 30))})
        a.go(beat, None, {"elb" + s: bend})
    a.hold(float(rng.uniform(0.2, 2.0)))
    idle(b, a.now)
    a.go(float(rng.uniform(0.4, 0.8)), "stand")
    stop = a.now
    look_at(b, a)
    after_it(cast, a, b)
    return start, stop


@action("lively_talk", "normal", "two people talk and move the hands", weight=1.0, people=2)
def lively_talk(cast: Cast) -> Span:
    """Stand close and talk with large, quick gestures, a step to and fro, a hand on the other's arm now and then."""
    rng = cast.rng
    a, b = face_off(cast, float(rng.uniform(0.5, 1.2)))
    start = a.now
    stop = min(cast.seconds, start + float(rng.uniform(3.0, 8.0)))
    for actor, life in ((a, rng.uniform(0.8, 1.6)), (b, rng.uniform(0.1, 1.4))):
        home = actor.place
        while actor.now < stop:
            high = life * rng.uniform(0, 56, 2)
            arms = {"sho_l": float(high[0]), "sho_r": float(high[1]), "arm": float(rng.uniform(2, 32))}
            arms |= {"elb_l": float(rng.uniform(35, 120)), "elb_r": float(rng.uniform(35, 120))}
            place = home + rng.normal(0, 0.05, 2)
            at = {"x": float(place[0]), "y": float(place[1]), "yaw": actor.yaw + float(rng.normal(0, 6))}
            trunk = {"lean": float(rng.uniform(-5, 14)), "twist": float(rng.normal(0, 10))}
            actor.go(
                float(rng.uniform(0.2, 0.7)) / life**0.3, "stand", arms | at | trunk, nod=float(rng.uniform(-8, 14))
            )
            actor.hold(float(rng.exponential(0.3)))
    separate(cast, a, b)
    return start, stop


@action("brush_past", "normal", "two people walk past each other", weight=0.8, people=2)
def brush_past(cast: Cast) -> Span:
    """Pass so close that the shoulders touch, one turns aside or stumbles a little, and walk on."""
    rng = cast.rng
    a, b = meet(cast, float(rng.uniform(1.8, 3.2)))
    start, speed = a.now, float(rng.uniform(0.9, 2.0))
    ends = a.place, b.place
    across = ends[1] - ends[0]
    aside = float(rng.uniform(0.1, 0.18)) * np.array([-across[1], across[0]]) / max(0.1, float(np.hypot(*across)))
    half = 0.5 * (ends[0] + ends[1])
    turn = float(rng.uniform(10, 50))
    for actor, sign, end in ((a, 1.0, ends[1]), (b, -1.0, ends[0])):
        actor.walk(half + sign * aside, speed=speed, stop=False)
        actor.go(0.25, None, actor.shift(0.25 * speed, 0.06), twist=-turn, lean=float(rng.uniform(0, 12)))
        actor.walk(end + sign * aside, speed=speed)
        if rng.random() < 0.3:
            actor.face(actor.yaw + 180 * float(rng.choice([-1, 1])), 0.6)
            actor.gesture(actor.now + 1.0, 0.6)
    return start, max(a.now, b.now)


@action("throw", "normal", "a person throws something to another person", weight=0.6, people=2)
def throw(cast: Cast) -> Span:
    """Swing an arm back and throw from a few metres off; the other catches it, or bends for it, and throws it back."""
    rng = cast.rng
    a, b = face_off(cast, float(rng.uniform(1.6, 3.2)))
    start = a.now
    for _ in range(int(rng.integers(1, 5))):
        a, b = (b, a) if rng.random() < 0.6 else (a, b)
        wait_for_each_other(a, b)
        s = "_r" if rng.random() < 0.8 else "_l"
        over = rng.random() < 0.5
        back = {"sho" + s: 150.0 if over else -45.0, "elb" + s: 70.0 if over else 10.0, "lean": -6.0 if over else 14.0}
        fore = {"sho" + s: float(rng.uniform(60, 90)), "elb" + s: float(rng.uniform(2, 20)), "lean": 16.0}
        a.go(float(rng.uniform(0.3, 0.6)), "stand", back, twist=-20.0)
        a.go(float(rng.uniform(0.16, 0.32)), "guard", fore, twist=20.0, ease="fast")
        b.go(a.now - b.now, "stand", sho=float(rng.uniform(40, 60)), elb=float(rng.uniform(40, 80)), lean=6.0)
        caught = rng.random() < 0.7
        b.go(0.3, "stand", sho=float(rng.uniform(35, 110)), elb=float(rng.uniform(20, 60)), knee=20.0, ease="fast")
        if not caught:
            b.pick_up(quick=float(rng.uniform(1.0, 1.8)))
        b.go(0.4, "stand", sho_r=25.0, elb_r=80.0)
        a.go(0.5, "stand")
    stop = max(a.now, b.now)
    separate(cast, a, b)
    return start, stop


@action("lift_up", "normal", "a person helps another person to get up from the floor", weight=0.7, people=2)
def lift_up(cast: Cast) -> Span:
    """One lies or sits on the floor of their own will; the other comes, bends or kneels, and raises them slowly."""
    rng = cast.rng
    a, b = cast.actors[:2]
    ordinary_life(cast, a, float(np.clip(cast.onset - 3.0, 0.3, cast.seconds - 8.5)))
    start = a.now
    a.lie_down(float(rng.uniform(0.3, 1.5)), rise=False)
    ordinary_life(cast, b, max(0.0, a.now - 3.0))
    body = present(a)
    head = body[JOINT["head"], :2]
    approach(b, 0.5 * (head + body[JOINT["pelvis"], :2]), 0.55, float(rng.uniform(1.0, 2.0)))
    wait_for_each_other(a, b)
    kneels = rng.random() < 0.5
    pose = "half_kneel" if kneels else "squat_reach"
    b.go(float(rng.uniform(0.7, 1.2)), pose, sho=float(rng.uniform(55, 80)), elb=20.0, lean=28.0 if kneels else 54.0)
    a.hold_until(b.now)
    slow = float(rng.uniform(1.0, 1.8))
    if a.angle("tip_f") < -30:
        a.go(slow, "sit_floor", pin=1.0, sho=float(rng.uniform(40, 70)))
        a.go(0.8 * slow, "crouch", pin=1.0, sho=60.0)
    else:
        a.go(slow, "fours")
        a.go(0.9 * slow, "half_kneel", pin=1.0)
    b.go(a.now - b.now, None, lean=24.0 if kneels else 44.0)
    rise = float(rng.uniform(0.9, 1.6))
    a.go(rise, "stand", sho=45.0, elb=30.0, lean=14.0, pin=0.5)
    a.go(0.1, "stand", sho=45.0, elb=30.0, lean=14.0)
    b.go(rise, "stand", sho=52.0, elb=40.0, lean=8.0)
    b.hold_until(a.now)
    stop = b.now
    for actor in (a, b):
        actor.gesture(actor.now + float(rng.uniform(0.5, 2.0)), 0.3)
    separate(cast, a, b)
    return start, stop


@action("walk_arm", "normal", "two people walk together and hold each other", weight=0.6, people=2)
def walk_arm(cast: Cast) -> Span:
    """Walk slowly, an arm about the other's shoulders or under the arm, as one who leads or supports somebody."""
    rng = cast.rng
    a, b = meet(cast, float(rng.uniform(0.5, 0.8)))
    start = a.now
    gap, speed = float(rng.uniform(0.32, 0.42)), float(rng.uniform(0.35, 1.0))
    bent = float(rng.uniform(0, 28)) if rng.random() < 0.5 else 0.0
    for _ in range(int(rng.integers(1, 3))):
        goal = cast.spot(a, 1.2, 4.0)
        away = goal - a.place
        heading = math.degrees(math.atan2(away[1], away[0]))
        left = np.array([-math.sin(math.radians(heading)), math.cos(math.radians(heading))])
        beside = {"x": float((a.place + gap * left)[0]), "y": float((a.place + gap * left)[1])}
        _support(a, b, heading, beside, 1.0, bent)
        wait_for_each_other(a, b)
        seconds = float(np.hypot(*away)) / speed
        for actor, end in ((a, goal), (b, goal + gap * left)):
            actor.go(seconds, None, {"x": float(end[0]), "y": float(end[1])}, ease="even")
    stop = a.now
    separate(cast, a, b)
    return start, stop


def _support(a: Actor, b: Actor, heading: float, beside: dict[str, float], seconds: float, bent: float) -> None:
    """Come side by side, facing `heading` degrees: `a`, on the right, lays the left arm about `b`."""
    a.go(seconds, "stand", sho_l=18.0, arm_l=70.0, elb_l=40.0, side=-4.0, yaw=unwrapped(a, heading))
    grip = {"sho_r": 20.0, "arm_r": 40.0, "elb_r": 60.0, "lean": bent, "nod": 0.4 * bent}
    b.go(seconds, "stand", beside | grip, yaw=unwrapped(b, heading))
