"""One person moves about a home: picks up in passing, sweeps, scrubs, reaches up and down, lets something fall."""

from __future__ import annotations

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast
from familial.synth.actions.shared import begin
from familial.synth.actor import Actor

__all__ = ["drop_thing", "reach_low", "reach_up", "scrub", "slip_catch", "snatch", "squat", "sweep", "unsteady"]


@action("snatch", "normal", "a person bends down quickly and picks something up", weight=0.8)
def snatch(cast: Cast) -> Span:
    """Pick something up with one hand in passing, fast, hardly stopping; or grope for it slowly."""
    actor, start, _ = begin(cast)
    rng = actor.rng
    for _ in range(int(rng.integers(1, 4))):
        s, o = ("_l", "_r") if rng.random() < 0.4 else ("_r", "_l")
        quick = float(rng.uniform(0.26, 0.5) if rng.random() < 0.7 else rng.uniform(1.0, 2.0))
        down = {
            "lean": float(rng.uniform(66, 92)),
            "sho" + s: 82.0,
            "elb" + s: 4.0,
            "sho" + o: float(rng.uniform(-30, 20)),
        }
        down |= {
            "hip" + s: -8.0,
            "hip" + o: 42.0,
            "knee" + o: 52.0,
            "knee" + s: 34.0,
            "twist": float(rng.normal(0, 10)),
        }
        if rng.random() < 0.5:
            actor.walk(cast.spot(actor, 0.8, 3.0), stop=False)
        actor.go(quick, "bend", down | actor.shift(float(rng.uniform(0.0, 0.3))))
        actor.hold(float(rng.uniform(0.0, 0.3)))
        actor.go(1.1 * quick, "stand", {"sho" + s: 30.0, "elb" + s: 75.0})
    actor.walk(cast.spot(actor, 0.8))
    return start, actor.now


@action("sweep", "normal", "a person works on the floor with the hands", weight=0.8)
def sweep(cast: Cast) -> Span:
    """Sweep, mop or vacuum: both hands on a stick, strokes from side to side or to and fro, a step now and then."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    lean, beat = float(rng.uniform(10, 38)), float(rng.uniform(0.35, 0.9))
    pushes, sign = rng.random() < 0.45, 1.0
    while actor.now < start + 3.0 + stay:
        sign = -sign
        hands = {
            "sho_l": 30.0 + 12 * sign,
            "sho_r": 52.0 + 14 * sign,
            "elb_l": 55.0,
            "elb_r": 26.0 - 10 * sign,
            "arm": 2.0,
        }
        trunk = {"lean": lean + (10 * sign if pushes else 0.0), "twist": 0.0 if pushes else 26.0 * sign, "nod": 14.0}
        legs = {"hip_l": 12.0 + 10 * sign, "knee_l": 16.0, "hip_r": -4.0 - 6 * sign, "knee_r": 14.0}
        step = actor.shift(float(rng.uniform(-0.03, 0.14)), float(rng.normal(0, 0.04)))
        place = cast.in_view(np.array([step["x"], step["y"]]))
        actor.go(beat, "stand", hands | trunk | legs | {"x": float(place[0]), "y": float(place[1])})
        if rng.random() < 0.15:
            actor.face(actor.yaw + float(rng.uniform(-90, 90)))
        if rng.random() < 0.06:
            actor.pick_up()
    actor.go(0.5, "stand")
    return start, actor.now


@action("scrub", "normal", "a person kneels and works on the floor", weight=0.6)
def scrub(cast: Cast) -> Span:
    """On hands and knees or bent over: rub the floor in strokes, and move on."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    fours = rng.random() < 0.6
    actor.go(float(rng.uniform(0.6, 1.0)), "half_kneel")
    if fours:
        actor.go(0.7, "fours")
    s = "_l" if rng.random() < 0.4 else "_r"
    beat = float(rng.uniform(0.2, 0.5))
    while actor.now < start + 2.5 + stay:
        for high in (rng.uniform(95, 125), rng.uniform(55, 80)):
            arm = {"sho" + s: float(high), "elb" + s: float(rng.uniform(0, 30)), "arm" + s: float(rng.uniform(-10, 25))}
            actor.go(beat, None, arm if fours else arm | {"lean": float(rng.uniform(44, 62))})
        if fours and rng.random() < 0.2:
            actor.go(0.5, None, actor.shift(float(rng.uniform(-0.25, 0.25))), yaw=actor.yaw + float(rng.normal(0, 20)))
    if fours:
        actor.go(0.8, "half_kneel", pin=1.0)
    actor.go(0.9, "stand", pin=0.5)
    actor.go(0.1, "stand")
    return start, actor.now


@action("reach_low", "normal", "a person bends down and looks for something", weight=0.8)
def reach_low(cast: Cast) -> Span:
    """Bend or kneel deep into a low cupboard or under a table, grope about with the head down, and come up."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    pose = str(rng.choice(["bend", "half_kneel", "kneel", "crouch"]))
    deep = {"bend": 92.0, "half_kneel": 66.0, "kneel": 72.0, "crouch": 58.0}[pose]
    actor.go(float(rng.uniform(0.5, 1.2)), pose, lean=deep, curl=18.0, sho=80.0, elb=12.0, nod=-8.0)
    until = actor.now + 0.8 + stay
    while actor.now < until:
        arms = {"sho_l": float(rng.uniform(55, 110)), "sho_r": float(rng.uniform(55, 110))}
        arms |= {"elb_l": float(rng.uniform(2, 50)), "elb_r": float(rng.uniform(2, 50))}
        trunk = {"lean": deep + float(rng.uniform(-10, 8)), "twist": float(rng.normal(0, 12))}
        actor.go(float(rng.uniform(0.3, 0.9)), None, arms | trunk, nod=float(rng.uniform(-20, 20)))
        actor.hold(float(rng.exponential(0.4)))
    actor.go(float(rng.uniform(0.6, 1.2)), "stand", sho=30.0, elb=75.0)
    actor.go(0.4, "stand")
    return start, actor.now


@action("reach_up", "normal", "a person stands and works with the hands up", weight=0.7)
def reach_up(cast: Cast) -> Span:
    """Reach up to a shelf, a lamp or a clothes line with one hand or both, bend to the basket, and reach up again."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    while actor.now < start + 2.0 + stay:
        both = rng.random() < 0.6
        high = {"sho_l": float(rng.uniform(130, 170)) if both else 15.0, "sho_r": float(rng.uniform(130, 172))}
        high |= {"elb_l": float(rng.uniform(4, 50)), "elb_r": float(rng.uniform(4, 50)), "nod": -22.0, "lean": -6.0}
        actor.go(float(rng.uniform(0.5, 0.9)), "stand", high, lift=float(rng.choice([0.0, 0.04])))
        for _ in range(int(rng.integers(0, 5))):
            actor.go(0.25, None, elb_l=float(rng.uniform(4, 60)), elb_r=float(rng.uniform(4, 60)))
        actor.go(float(rng.uniform(0.4, 0.8)), "stand", sho=30.0, elb=80.0)
        if rng.random() < 0.35:
            actor.pick_up(quick=1.2)
        if rng.random() < 0.3:
            actor.walk(cast.spot(actor, 0.4, 1.5))
    actor.go(0.4, "stand")
    return start, actor.now


@action("squat", "normal", "a person crouches and waits", weight=0.5)
def squat(cast: Cast) -> Span:
    """Drop into a deep squat and rest there, the arms on the knees; or squat down and up in exercise."""
    actor, start, stay = begin(cast)
    rng = actor.rng
    if rng.random() < 0.5:
        beat = float(rng.uniform(0.35, 0.9))
        while actor.now < start + 2.0 + stay:
            actor.go(beat, hip=92.0, knee=108.0, lean=40.0, sho=80.0, elb=6.0, gait=0.0)
            actor.go(beat, "stand")
    else:
        actor.go(float(rng.uniform(0.4, 0.9)), "crouch", sho=46.0, elb=24.0)
        until = actor.now + 1.5 + stay
        while actor.now < until:
            actor.go(0.5, None, nod=float(rng.uniform(-14, 20)), twist=float(rng.normal(0, 10)))
            actor.hold(float(rng.uniform(0.2, 1.2)))
    actor.go(float(rng.uniform(0.5, 1.0)), "stand")
    return start, actor.now


@action("drop_thing", "normal", "a person drops something onto the floor", weight=0.8)
def drop_thing(cast: Cast) -> Span:
    """Take off a coat or a bag and let it fall, or lose what is in the hands; leave it, or bend for it."""
    actor, start, _ = begin(cast)
    rng = actor.rng
    s = "_r"
    if rng.random() < 0.5:  # off the shoulders, one arm after the other
        actor.go(0.5, None, {"sho_l": -30.0, "elb_l": 70.0, "arm_l": 20.0}, twist=-16.0)
        actor.go(0.5, None, {"sho_l": 20.0, "elb_l": 60.0, "sho" + s: -35.0, "elb" + s: 60.0}, twist=18.0)
        actor.go(0.4, None, {"sho" + s: 55.0, "elb" + s: 10.0, "arm" + s: float(rng.uniform(10, 45))}, twist=0.0)
    else:
        actor.go(0.4, None, {"sho" + s: float(rng.uniform(20, 60)), "elb" + s: float(rng.uniform(10, 70))})
    cast.let_fall(actor, s)
    startled = rng.random() < 0.4
    if startled:
        actor.go(0.25, None, ease="fast", lean=12.0, nod=24.0, sho=float(rng.uniform(20, 60)), knee=14.0)
    actor.go(0.4, "stand", nod=20.0)
    if rng.random() < 0.5:
        actor.pick_up(quick=float(rng.uniform(0.9, 1.8)))
    actor.walk(cast.spot(actor, 1.0))
    return start, actor.now


@action("slip_catch", "normal", "a person slips while walking and walks on", weight=0.7)
def slip_catch(cast: Cast) -> Span:
    """A foot slides away, the arms row, the trunk jerks back or aside; the other foot catches the body."""
    actor, start, _ = begin(cast)
    rng = actor.rng
    actor.walk(cast.spot(actor, 1.5), until=actor.now + float(rng.uniform(0.8, 2.0)), stop=False)
    s, o = ("_l", "_r") if rng.random() < 0.5 else ("_r", "_l")
    slide = {"hip" + s: float(rng.uniform(28, 52)), "knee" + s: float(rng.uniform(4, 22)), "hip" + o: -4.0}
    slide |= {"knee" + o: float(rng.uniform(25, 55)), "lean": float(rng.uniform(-28, 0)), "gait": 0.0}
    arms = {
        "sho_l": float(rng.uniform(-30, 90)),
        "sho_r": float(rng.uniform(-30, 90)),
        "arm": float(rng.uniform(30, 80)),
    }
    actor.go(
        float(rng.uniform(0.16, 0.3)), None, slide | arms | actor.shift(0.2), ease="fast", side=float(rng.normal(0, 12))
    )
    actor.go(
        float(rng.uniform(0.25, 0.45)),
        "stand",
        lean=float(rng.uniform(10, 34)),
        arm=float(rng.uniform(20, 60)),
        knee=22.0,
    )
    actor.go(0.5, "stand")
    actor.hold(float(rng.uniform(0.0, 1.0)))
    actor.walk(cast.spot(actor, 1.0))
    return start, actor.now


@action("unsteady", "normal", "a person walks slowly and holds on", weight=0.6, who="old")
def unsteady(cast: Cast) -> Span:
    """Short, careful steps, swaying, bent, a hand on furniture or the knee; rests, and goes on."""
    actor, start, _ = begin(cast)
    rng = actor.rng
    stop = min(cast.seconds, start + float(rng.uniform(4.0, 9.0)))
    while actor.now < stop:
        _totter(cast, actor, float(rng.uniform(1.5, 3.5)))
        if rng.random() < 0.5:
            actor.go(0.6, "stand", lean=float(rng.uniform(18, 36)), sho_r=float(rng.uniform(30, 60)), elb_r=20.0)
            actor.hold(float(rng.uniform(0.5, 2.0)))
    actor.go(0.5, "stand")
    return start, actor.now


def _totter(cast: Cast, actor: Actor, seconds: float) -> None:
    """Walk with short steps and sway for `seconds`."""
    rng, until = actor.rng, actor.now + seconds
    goal = cast.spot(actor, 0.8, 4.0)
    while actor.now < until:
        away = goal - actor.place
        far = float(np.hypot(*away))
        if far < 0.2:
            return
        heading = float(np.degrees(np.arctan2(away[1], away[0])))
        turn = (heading - actor.yaw + 180.0) % 360.0 - 180.0
        step = float(rng.uniform(0.12, 0.3))
        place = cast.in_view(actor.place + min(far, step) * away / far + rng.normal(0, 0.04, 2))
        at = {"x": float(place[0]), "y": float(place[1]), "yaw": actor.yaw + float(np.clip(turn, -40, 40))}
        sway = {"side": float(rng.normal(0, 7)), "lean": float(rng.uniform(6, 26)), "arm": float(rng.uniform(6, 28))}
        actor.go(float(rng.uniform(0.35, 0.6)), "stand", at | sway, nod=float(rng.uniform(0, 16)))
