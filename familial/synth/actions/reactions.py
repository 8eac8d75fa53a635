"""How somebody takes a blow: the head flies back, they stagger, bend, cover the face, or go down.

take(cast, other, along, where) writes the motion of `other` from the moment of contact on
"""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.cast import Cast, unwrapped
from familial.synth.actor import Actor
from familial.synth.skeleton import Floats

__all__ = ["brace", "recover", "stumble_back", "take"]

_HEAD = {"head_back": 3.0, "head_turn": 3.0, "stagger": 2.0, "cover": 1.5, "barely": 0.7, "down": 0.7}
_BODY = {"bend": 4.0, "stagger": 3.0, "barely": 0.7, "down": 0.5}
_LEG = {"buckle": 3.0, "stagger": 1.5, "barely": 0.8}
_PUSH = {"stumble": 6.0, "stagger": 2.0, "down": 1.0}
_BY_PLACE = {"head": _HEAD, "body": _BODY, "leg": _LEG, "push": _PUSH}


def brace(other: Actor, until: float) -> None:
    """See the blow come: lift the hands or lean away, or see nothing, until `until` seconds."""
    rng = other.rng
    left = until - other.now
    if left > 0.12 and rng.random() < 0.45:
        lead = min(left, float(rng.uniform(0.12, 0.3)))
        other.hold_until(until - lead)
        high = float(rng.uniform(15, 70))
        other.go(until - other.now, sho=high, elb=float(rng.uniform(40, 115)), lean=float(rng.uniform(-7, 4)))
    other.hold_until(until)


def take(cast: Cast, other: Actor, along: Floats, where: str, style: str = "") -> str:
    """Take a blow that came in the direction `along` (2,) and hit `where`: head, body, leg or push.

    `style`, a key of the tables above, is drawn where empty; returns it.
    """
    table = _BY_PLACE[where]
    odds = np.array(list(table.values()))
    style = style or str(cast.rng.choice(list(table), p=odds / odds.sum()))
    _TAKES[style](cast, other, along)
    return style


def stumble_back(cast: Cast, other: Actor, along: Floats, far: float) -> None:
    """Be carried back `far` metres in a few quick steps, the arms rowing, and catch oneself."""
    rng = other.rng
    seconds = 0.25 + far / float(rng.uniform(1.3, 2.2))
    first = cast.in_view(other.place + 0.45 * far * along + rng.normal(0, 0.05, 2))
    high = float(rng.uniform(20, 75))
    other.go(
        0.4 * seconds,
        "stand",
        _at(first),
        ease="fast",
        lean=float(rng.uniform(-24, -6)),
        sho=high,
        elb=float(rng.uniform(20, 60)),
        arm=float(rng.uniform(15, 55)),
        nod=float(rng.uniform(-8, 16)),
        knee=16.0,
        hip=6.0,
    )
    last = cast.in_view(other.place + 0.55 * far * along + rng.normal(0, 0.06, 2))
    other.go(
        0.6 * seconds,
        "stand",
        _at(last),
        lean=float(rng.uniform(4, 26)),
        sho=0.5 * high,
        elb=float(rng.uniform(20, 70)),
        arm=float(rng.uniform(10, 40)),
        yaw=other.yaw + float(rng.normal(0, 20)),
        knee=12.0,
    )


def recover(other: Actor, where: str) -> None:
    """Come upright again; the hands stay for a while where it hurts."""
    rng = other.rng
    if where == "head" and rng.random() < 0.45:
        hand = {"sho" + s: float(rng.uniform(50, 70)) for s in _some_sides(other)}
        hand |= {name.replace("sho", "elb"): float(rng.uniform(122, 140)) for name in hand}
        other.go(0.35, "stand", hand, nod=float(rng.uniform(5, 25)), lean=float(rng.uniform(0, 18)))
        other.hold(float(rng.uniform(0.4, 1.6)))
    elif where == "body" and rng.random() < 0.6:
        other.go(0.4, None, lean=float(rng.uniform(15, 40)), sho=22.0, elb=88.0, arm=2.0)
        other.hold(float(rng.uniform(0.3, 1.4)))
    other.go(float(rng.uniform(0.4, 0.9)), "stand")


def _some_sides(other: Actor) -> tuple[str, ...]:
    return (("_l",), ("_r",), ("_l", "_r"))[int(other.rng.integers(3))]


def _at(place: Floats) -> dict[str, float]:
    return {"x": float(place[0]), "y": float(place[1])}


def _back(cast: Cast, other: Actor, along: Floats, low: float, high: float) -> dict[str, float]:
    step = float(other.rng.uniform(low, high)) * along + other.rng.normal(0, 0.03, 2)
    return _at(cast.in_view(other.place + step))


def _head_back(cast: Cast, other: Actor, along: Floats) -> None:
    rng = other.rng
    step = _back(cast, other, along, 0.02, 0.25)
    recoil = {"nod": float(rng.uniform(-38, -20)), "lean": float(rng.uniform(-24, -8)), "arm": 24.0, "knee_r": 18.0}
    other.go(float(rng.uniform(0.14, 0.24)), None, recoil | step, ease="fast")
    step = _back(cast, other, along, 0.1, 0.45)
    other.go(0.4, "stand", step, lean=float(rng.uniform(0, 14)), nod=8.0, sho=20.0, elb=40.0)


def _head_turn(cast: Cast, other: Actor, along: Floats) -> None:
    rng = other.rng
    sign = 1.0 if rng.random() < 0.5 else -1.0
    step = _back(cast, other, along, 0.0, 0.2)
    turn = {"twist": sign * float(rng.uniform(25, 48)), "side": sign * float(rng.uniform(4, 20)), "nod": 10.0}
    other.go(float(rng.uniform(0.14, 0.26)), None, turn | step, ease="fast", lean=float(rng.uniform(-8, 14)))
    away = other.yaw + sign * float(rng.uniform(10, 60))
    other.go(0.45, "stand", _back(cast, other, along, 0.05, 0.4), yaw=away, nod=14.0, lean=12.0, twist=sign * 12.0)


def _stagger(cast: Cast, other: Actor, along: Floats) -> None:
    rng = other.rng
    other.go(0.14, None, ease="fast", nod=float(rng.uniform(-30, -5)), lean=float(rng.uniform(-18, -4)))
    stumble_back(cast, other, along, float(rng.uniform(0.35, 1.1)))


def _cover(cast: Cast, other: Actor, along: Floats) -> None:
    rng = other.rng
    shield = {"sho": float(rng.uniform(60, 85)), "elb": float(rng.uniform(118, 138)), "arm": -4.0, "nod": 22.0}
    step = _back(cast, other, along, 0.05, 0.35)
    other.go(float(rng.uniform(0.16, 0.28)), "stand", shield | step, lean=float(rng.uniform(10, 34)), knee=24.0)
    other.hold(float(rng.uniform(0.2, 1.0)))


def _barely(cast: Cast, other: Actor, along: Floats) -> None:
    step = _back(cast, other, along, 0.0, 0.15)
    other.go(0.18, None, step, ease="fast", lean=float(other.rng.uniform(-10, 0)), nod=-8.0)
    other.go(0.4, "guard" if other.rng.random() < 0.4 else "stand")


def _bend(cast: Cast, other: Actor, along: Floats) -> None:
    rng = other.rng
    fold = {"lean": float(rng.uniform(38, 72)), "curl": float(rng.uniform(8, 25)), "nod": 14.0, "arm": 2.0}
    fold |= {"sho": float(rng.uniform(40, 62)), "elb": float(rng.uniform(60, 100)), "knee": 26.0, "hip": 12.0}
    other.go(float(rng.uniform(0.2, 0.34)), "stand", fold | _back(cast, other, along, 0.1, 0.5), ease="fast")
    other.hold(float(rng.uniform(0.2, 1.2)))


def _buckle(cast: Cast, other: Actor, along: Floats) -> None:
    rng = other.rng
    s = "_l" if rng.random() < 0.5 else "_r"
    give = {"knee" + s: float(rng.uniform(35, 70)), "hip" + s: float(rng.uniform(15, 40)), "arm": 30.0}
    other.go(0.2, "stand", give | _back(cast, other, along, 0.0, 0.2), ease="fast", lean=float(rng.uniform(10, 35)))
    other.go(0.5, "stand", _back(cast, other, along, 0.05, 0.4), lean=20.0, sho=30.0)


def _stumble(cast: Cast, other: Actor, along: Floats) -> None:
    stumble_back(cast, other, along, float(other.rng.uniform(0.45, 1.7)))


def _down(cast: Cast, other: Actor, along: Floats) -> None:
    """Go down the way the blow came, and lie or sit there."""
    rng = other.rng
    way = math.degrees(math.atan2(along[1], along[0]))
    direction = unwrapped(other, way) - other.yaw + float(rng.uniform(-35, 35))
    other.go(0.12, None, ease="fast", nod=-24.0, lean=-12.0)
    other.fall(direction, momentum=0.0)


_TAKES = {
    "head_back": _head_back,
    "head_turn": _head_turn,
    "stagger": _stagger,
    "cover": _cover,
    "barely": _barely,
    "bend": _bend,
    "buckle": _buckle,
    "stumble": _stumble,
    "down": _down,
}
