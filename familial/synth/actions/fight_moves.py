"""What two people do to each other in a fight, a few seconds at a time.

Each function writes the motion of `one`, who acts, and of `other`, who is acted upon; both start at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from familial.synth.actions.cast import Cast, direction_to, unwrapped
from familial.synth.actions.fight_poses import pose_of
from familial.synth.actor import Actor
from familial.synth.skeleton import Floats

__all__ = ["Move", "blows", "catch_up", "chase", "grapple", "kicks", "lull", "on_the_floor", "shove"]

Move = Callable[[Cast, Actor, Actor], None]


def catch_up(*actors: Actor) -> None:
    """Let those who are behind in time shift from foot to foot until all are level."""
    now = max(a.now for a in actors)
    for actor in actors:
        while now - actor.now > 0.45:
            guard = pose_of("guard", actor.rng)
            actor.go(0.4, "guard", None if actor.lies else guard)
        actor.hold_until(now)


def _step_to(cast: Cast, actor: Actor, place: Floats, heading: float) -> dict[str, float]:
    goal = cast.in_view(place)
    return {"x": float(goal[0]), "y": float(goal[1]), "yaw": unwrapped(actor, heading)}


def blows(cast: Cast, one: Actor, other: Actor) -> None:
    """Punch a few times; the other is hit, shields, ducks, steps back or strikes back."""
    _strike(cast, one, other, "punch")


def kicks(cast: Cast, one: Actor, other: Actor) -> None:
    """Kick a few times; the other reacts as to punches."""
    _strike(cast, one, other, "kick")


def _strike(cast: Cast, one: Actor, other: Actor, move: str) -> None:
    rng = cast.rng
    style = rng.choice(["hit", "guard", "duck", "punch"], p=[0.4, 0.25, 0.1, 0.25])
    for _ in range(int(rng.integers(1, 5))):
        along, heading, gap = direction_to(one, other)
        seconds = float(rng.uniform(0.13, 0.32))
        reach = float(rng.uniform(0.4, 0.62) if move == "punch" else rng.uniform(0.65, 0.9))
        close = np.clip(gap - reach, -0.25, 0.45) * along
        back = rng.uniform(-0.05, 0.22 if style != "punch" else 0.05) * along + rng.normal(0, 0.05, 2)
        one.go(
            seconds,
            "guard" if move == "punch" else "stand",
            pose_of(move, one.rng) | _step_to(cast, one, one.place + close, heading),
            ease="fast",
        )
        other.go(
            seconds,
            "crouch" if style == "duck" else "guard",
            pose_of("guard" if style == "duck" else str(style), other.rng)
            | _step_to(cast, other, other.place + back, heading + 180 + rng.normal(0, 15)),
            ease="fast",
        )
        pause = float(rng.uniform(0.08, 0.3))
        one.go(pause, "guard", pose_of("guard", one.rng))
        other.go(pause, "guard", pose_of("guard" if rng.random() < 0.7 else "hit", other.rng))


def shove(cast: Cast, one: Actor, other: Actor) -> None:
    """Push with both hands; the other staggers back, and sometimes comes back at once."""
    rng = cast.rng
    along, heading, gap = direction_to(one, other)
    lunge = float(rng.uniform(0.15, 0.3))
    close = np.clip(gap - 0.45, -0.2, 0.6) * along
    one.go(lunge, "guard", pose_of("push", one.rng) | _step_to(cast, one, one.place + close, heading), ease="fast")
    other.go(lunge, "guard", pose_of("guard", other.rng))
    far, seconds = rng.uniform(0.25, 1.3), float(rng.uniform(0.35, 0.8))
    back = other.place + far * along + rng.normal(0, 0.12, 2)
    values = pose_of("hit", other.rng) | _step_to(cast, other, back, heading + 180 + rng.normal(0, 35))
    other.go(seconds, "stand", values | {"lean": float(rng.uniform(-24, 5))}, ease="fast")
    chase = rng.random() < 0.6
    follow = one.place + (far * rng.uniform(0.4, 0.9) if chase else 0.0) * along
    one.go(seconds, "guard" if chase else "stand", pose_of("guard", one.rng) | _step_to(cast, one, follow, heading))
    if rng.random() < 0.4:
        other.go(0.3, "stand")
        one.go(0.3, "stand", arm_l=float(rng.uniform(10, 45)), sho_r=float(rng.uniform(10, 100)), elb_r=30)


def grapple(cast: Cast, one: Actor, other: Actor) -> None:
    """Hold on to each other, pull and turn."""
    rng = cast.rng
    spin, radius = rng.normal(0, 60), float(rng.uniform(0.17, 0.3))
    drift = rng.normal(0, 0.35, 2)
    centre = 0.5 * (one.place + other.place)
    _, heading, _ = direction_to(one, other)
    for _ in range(int(rng.integers(3, 9))):
        seconds = float(rng.uniform(0.16, 0.42))
        spin = float(np.clip(0.8 * spin + rng.normal(0, 50), -160, 160))
        heading += spin * seconds
        centre = cast.in_view(centre + drift * seconds + rng.normal(0, 0.04, 2))
        half = radius * np.array([math.cos(math.radians(heading)), math.sin(math.radians(heading))])
        for actor, sign in ((one, -1.0), (other, 1.0)):
            place = centre + sign * half
            values = pose_of("grab" if rng.random() < 0.85 else "punch", actor.rng)
            values |= {"x": float(place[0]), "y": float(place[1])}
            values["yaw"] = unwrapped(actor, heading + (0 if sign < 0 else 180) + rng.normal(0, 14))
            actor.go(seconds, "stand", values)


def lull(cast: Cast, one: Actor, other: Actor) -> None:
    """Circle, threaten and shout for a moment."""
    rng = cast.rng
    along, heading, gap = direction_to(one, other)
    across = np.array([-along[1], along[0]]) * rng.normal(0, 0.25)
    seconds = float(rng.uniform(0.4, 1.0))
    for actor, sign in ((one, 1.0), (other, -1.0)):
        away = np.clip(0.9 - gap, -0.3, 0.3) * 0.5 * along
        pose, values = (
            ("guard", pose_of("guard", actor.rng))
            if rng.random() < 0.6
            else ("stand", {"arm": float(rng.uniform(10, 55)), "elb": float(rng.uniform(10, 60)), "lean": 10.0})
        )
        step = _step_to(cast, actor, actor.place + sign * across - sign * away, heading + (0 if sign > 0 else 180))
        actor.go(seconds, pose, values | step)


def chase(cast: Cast, one: Actor, other: Actor) -> None:
    """Run after the other, who runs away."""
    goal = cast.spot(other, 1.5, 6.0)
    speed = float(cast.rng.uniform(2.3, 4.2))
    other.walk(goal, speed=speed)
    one.hold(float(cast.rng.uniform(0.05, 0.3)))
    along = (goal - one.place) / max(0.3, float(np.hypot(*(goal - one.place))))
    one.walk(cast.in_view(goal - 0.6 * along), speed=speed * cast.rng.uniform(0.95, 1.15))
    _, heading, _ = direction_to(one, other)
    other.face(heading + 180, 0.25)
    catch_up(one, other)


def on_the_floor(cast: Cast, one: Actor, other: Actor, stop: float) -> None:
    """Bring the other down and go on from above (kneeling, kicking or wrestling) until `stop` seconds."""
    rng = cast.rng
    along, heading, _ = direction_to(one, other)
    other.go(0.2, yaw=unwrapped(other, heading + 180))
    style = rng.choice(["kneel", "stand", "wrestle"], p=[0.4, 0.25, 0.35])
    one.go(0.2, "guard", pose_of("push" if style != "wrestle" else "grab", one.rng), ease="fast")
    began = other.now
    other.fall(float(rng.choice([180.0, 150.0, -150.0, 90.0, -90.0])))
    tall = 0.5 * other.body.height
    at = cast.in_view(other.place + tall * along)
    place = at - along * (0.1 if style == "wrestle" else 0.35 if style == "kneel" else 0.7)
    if style == "stand":
        one.go(0.5, "stand", _step_to(cast, one, place, heading))
    else:
        one.go(
            max(0.4, other.now - began - 0.2),
            "half_kneel" if style == "kneel" else "fours",
            _step_to(cast, one, place, heading),
        )
    attack = {"stand": _kick_down, "kneel": _punch_down, "wrestle": _wrestle}[str(style)]
    while min(one.now, other.now) < stop:
        beat = float(rng.uniform(0.18, 0.45))
        if one.now <= other.now:
            attack(cast, one, beat)
        else:
            _defend(cast, other, beat, 12 if style == "wrestle" else 5)


def _kick_down(cast: Cast, one: Actor, beat: float) -> None:
    kick = pose_of("kick", one.rng) | {"lean": float(cast.rng.uniform(-5, 20))}
    one.go(beat, "stand", kick, ease="fast")
    one.go(beat, "stand")


def _punch_down(cast: Cast, one: Actor, beat: float) -> None:
    punch = {k: v for k, v in pose_of("punch", one.rng).items() if not k.startswith(("hip", "knee"))}
    one.go(beat, "half_kneel", punch | {"lean": float(cast.rng.uniform(20, 55))}, ease="fast")


def _wrestle(cast: Cast, one: Actor, beat: float) -> None:
    rng = cast.rng
    angles = {
        "sho_l": float(rng.uniform(40, 120)),
        "sho_r": float(rng.uniform(40, 120)),
        "elb": float(rng.uniform(5, 70)),
        "yaw": one.yaw + float(rng.normal(0, 14)),
        "hip_l": float(rng.uniform(50, 100)),
        "knee_l": float(rng.uniform(60, 110)),
        "side": float(rng.uniform(-20, 20)),
    }
    one.go(beat, "fours", angles)


def _defend(cast: Cast, other: Actor, beat: float, roll: float) -> None:
    """Shield oneself lying down, and roll by about `roll` degrees."""
    rng = cast.rng
    knee = float(rng.uniform(10, 90))
    spin = other.spin + float(rng.normal(0, roll))
    other.go(
        beat,
        sho_l=float(rng.uniform(10, 110)),
        sho_r=float(rng.uniform(10, 110)),
        elb_l=float(rng.uniform(20, 120)),
        elb_r=float(rng.uniform(20, 120)),
        knee_l=knee,
        hip_l=knee * 0.6,
        nod=float(rng.uniform(-15, 30)),
        spin=spin,
    )
