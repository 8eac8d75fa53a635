"""The ways to strike one blow: how the body winds up, how it looks at the moment of contact, and what is hit.

style, random numbers --blow_of--> Blow (angles in degrees by channel)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

__all__ = ["KICKS", "PUNCHES", "PUSHES", "SLAPS", "Blow", "blow_of"]

Angles = dict[str, float]

PUNCHES = ("jab", "cross", "hook", "swing", "overhand", "uppercut", "body")
KICKS = ("front", "side", "low", "round", "knee", "stamp")
PUSHES = ("two_hands", "one_hand", "shoulder")
SLAPS = ("slap", "backhand")


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow of one limb.

    Attributes:
        joint: The end that hits; without `_l` or `_r` both.
        channel: The angle that is changed to hit at the right height.
        target: The joint of the other person that is hit.
        windup: Angles before the strike; empty means none.
        strike: Angles at contact, on top of `pose`.
        pose: A key of POSTURES.
        windup_s: Seconds of the wind-up.
        speed: The limb's end, at its fastest, in metres a second.
    """

    joint: str
    channel: str
    target: str
    windup: Angles
    strike: Angles
    pose: str
    windup_s: float
    speed: float


def blow_of(style: str, rng: Generator) -> Blow:
    """A blow of `style`, one of PUNCHES, KICKS, PUSHES and SLAPS; the side, the angles and the times are drawn.

    Raises:
        KeyError: There is no such style.
    """
    return _STYLES[style](rng, *(("_l", "_r", -1.0) if rng.random() < 0.4 else ("_r", "_l", 1.0)))


def _arm(
    rng: Generator, s: str, target: str, windup: Angles, strike: Angles, slow: tuple[float, float] = (0.16, 0.34)
) -> Blow:
    free = "_l" if s == "_r" else "_r"
    guard = {"sho" + free: rng.uniform(5, 55), "elb" + free: rng.uniform(40, 115)}
    return Blow(
        "hand" + s,
        "sho" + s,
        target,
        guard | windup,
        guard | strike,
        "guard",
        float(rng.uniform(*slow)),
        float(rng.uniform(3.5, 9.0)),
    )


def _jab(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(20, 45), "elb" + s: rng.uniform(105, 130), "twist": -8 * sign, "lean": 4.0}
    strike = {"sho" + s: 86.0, "elb" + s: rng.uniform(2, 14), "arm" + s: rng.uniform(-2, 8)}
    strike |= {"twist": rng.uniform(14, 26) * sign, "lean": rng.uniform(6, 16), "nod": rng.uniform(-6, 6)}
    return _arm(rng, s, "head", windup, strike, (0.08, 0.18))


def _cross(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(-20, 25), "elb" + s: rng.uniform(95, 125), "arm" + s: rng.uniform(15, 35)}
    windup |= {"twist": -rng.uniform(18, 40) * sign, "lean": rng.uniform(-4, 6), "knee": 25.0}
    strike = {"sho" + s: 90.0, "elb" + s: rng.uniform(2, 16), "arm" + s: rng.uniform(-4, 8)}
    strike |= {"twist": rng.uniform(30, 46) * sign, "lean": rng.uniform(12, 26), "hip" + o: 28.0, "hip" + s: -16.0}
    return _arm(rng, s, "head", windup, strike)


def _hook(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(5, 35), "elb" + s: rng.uniform(70, 100), "arm" + s: rng.uniform(45, 75)}
    windup |= {"twist": -rng.uniform(25, 42) * sign, "side": 8.0 * sign}
    strike = {"sho" + s: 84.0, "elb" + s: rng.uniform(28, 50), "arm" + s: rng.uniform(4, 22)}
    strike |= {"twist": rng.uniform(38, 55) * sign, "lean": rng.uniform(8, 18), "side": -6.0 * sign}
    return _arm(rng, s, "head", windup, strike)


def _swing(rng: Generator, s: str, o: str, sign: float) -> Blow:
    """A wide round punch with a long arm, as of people who never learned it."""
    windup = {"sho" + s: rng.uniform(-30, 20), "elb" + s: rng.uniform(20, 60), "arm" + s: rng.uniform(60, 100)}
    windup |= {"twist": -rng.uniform(30, 50) * sign, "lean": rng.uniform(-8, 4), "hip" + s: -18.0}
    strike = {"sho" + s: 88.0, "elb" + s: rng.uniform(8, 30), "arm" + s: rng.uniform(-6, 14)}
    strike |= {"twist": rng.uniform(40, 60) * sign, "lean": rng.uniform(14, 32), "hip" + o: 32.0, "knee" + o: 30.0}
    return _arm(rng, s, "head", windup, strike, (0.22, 0.42))


def _overhand(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(130, 165), "elb" + s: rng.uniform(60, 105), "arm" + s: rng.uniform(10, 30)}
    windup |= {"twist": -rng.uniform(8, 25) * sign, "lean": rng.uniform(-14, 0)}
    strike = {"sho" + s: 86.0, "elb" + s: rng.uniform(5, 25), "arm" + s: rng.uniform(0, 14)}
    strike |= {"twist": rng.uniform(20, 38) * sign, "lean": rng.uniform(18, 34), "hip" + o: 26.0}
    return _arm(rng, s, "head", windup, strike, (0.2, 0.4))


def _uppercut(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(-35, -5), "elb" + s: rng.uniform(70, 100), "knee": rng.uniform(30, 48)}
    windup |= {"hip": 26.0, "lean": rng.uniform(14, 26), "twist": -18.0 * sign}
    strike = {"sho" + s: 72.0, "elb" + s: rng.uniform(55, 80), "arm" + s: 4.0, "knee": 8.0, "hip": 4.0}
    strike |= {"twist": rng.uniform(22, 40) * sign, "lean": rng.uniform(-4, 10)}
    return _arm(rng, s, "chin", windup, strike)


def _body(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(-30, 10), "elb" + s: rng.uniform(90, 120), "twist": -22.0 * sign, "lean": 14.0}
    strike = {"sho" + s: 60.0, "elb" + s: rng.uniform(10, 40), "arm" + s: 4.0, "lean": rng.uniform(22, 38)}
    strike |= {"twist": rng.uniform(24, 40) * sign, "knee": rng.uniform(25, 45), "hip": rng.uniform(15, 30)}
    return _arm(rng, s, "belly", windup, strike)


def _slap(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(40, 90), "elb" + s: rng.uniform(20, 60), "arm" + s: rng.uniform(50, 85)}
    windup |= {"twist": -rng.uniform(12, 32) * sign}
    strike = {"sho" + s: 88.0, "elb" + s: rng.uniform(14, 34), "arm" + s: rng.uniform(-8, 10)}
    strike |= {"twist": rng.uniform(16, 34) * sign, "lean": rng.uniform(2, 12), "arm" + o: 8.0, "sho" + o: 4.0}
    return _arm(rng, s, "ear" + o, windup, strike, (0.14, 0.3))


def _backhand(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(60, 90), "elb" + s: rng.uniform(70, 100), "arm" + s: rng.uniform(-25, -5)}
    windup |= {"twist": rng.uniform(20, 40) * sign}
    strike = {"sho" + s: 86.0, "elb" + s: rng.uniform(5, 20), "arm" + s: rng.uniform(14, 32)}
    strike |= {"twist": -rng.uniform(4, 18) * sign, "lean": rng.uniform(2, 10)}
    return _arm(rng, s, "head", windup, strike, (0.14, 0.3))


def _leg(
    rng: Generator, s: str, target: str, windup: Angles, strike: Angles, joint: str = "toe", pose: str = "stand"
) -> Blow:
    still = {"gait": 0.0, "pin": 1.0, "arm": rng.uniform(12, 50), "elb": rng.uniform(15, 80)}
    still |= {"sho_l": rng.uniform(0, 50), "sho_r": rng.uniform(0, 50)}
    return Blow(
        joint + s,
        "hip" + s,
        target,
        still | windup,
        still | strike,
        pose,
        float(rng.uniform(0.18, 0.36)),
        float(rng.uniform(3.5, 9.0)),
    )


def _front(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"hip" + s: rng.uniform(70, 100), "knee" + s: rng.uniform(90, 120), "lean": rng.uniform(-8, 6)}
    strike = {"hip" + s: 84.0, "knee" + s: rng.uniform(4, 18), "lean": rng.uniform(-28, -10), "knee" + o: 14.0}
    return _leg(rng, s, "belly", windup, strike, "ankle")


def _side(rng: Generator, s: str, o: str, sign: float) -> Blow:
    """The body turned away, the leg straight out to the side."""
    windup = {"hip" + s: rng.uniform(60, 80), "knee" + s: rng.uniform(80, 110), "abd" + s: 18.0, "side": 6.0 * sign}
    strike = {"hip" + s: 46.0, "knee" + s: rng.uniform(2, 12), "abd" + s: rng.uniform(48, 66), "knee" + o: 14.0}
    strike |= {"side": -rng.uniform(18, 34) * sign, "lean": rng.uniform(-6, 10)}
    return _leg(rng, s, "belly", windup, strike, "ankle")


def _low(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"hip" + s: rng.uniform(-30, -8), "knee" + s: rng.uniform(45, 80), "lean": rng.uniform(-4, 8)}
    windup["twist"] = -12.0 * sign
    strike = {"hip" + s: 36.0, "knee" + s: rng.uniform(2, 16), "lean": rng.uniform(-14, 2), "twist": 14.0 * sign}
    return _leg(rng, s, "knee" + o, windup, strike)


def _round(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"hip" + s: rng.uniform(10, 40), "knee" + s: rng.uniform(80, 110), "abd" + s: rng.uniform(30, 45)}
    windup["twist"] = -20.0 * sign
    strike = {"hip" + s: 66.0, "knee" + s: rng.uniform(6, 24), "abd" + s: rng.uniform(18, 40)}
    strike |= {"side": -rng.uniform(10, 24) * sign, "lean": rng.uniform(-22, -4), "twist": 26.0 * sign}
    return _leg(rng, s, str(rng.choice(["belly", "chest", "hip" + o])), windup, strike, "ankle")


def _knee(rng: Generator, s: str, o: str, sign: float) -> Blow:
    hold = {"sho": rng.uniform(65, 95), "elb": rng.uniform(30, 65), "arm": rng.uniform(2, 14)}
    windup = hold | {"hip" + s: -18.0, "knee" + s: 40.0, "lean": 14.0}
    strike = hold | {"hip" + s: 92.0, "knee" + s: rng.uniform(95, 125), "lean": rng.uniform(-10, 10)}
    return _leg(rng, s, "belly", windup, strike, "knee")


def _stamp(rng: Generator, s: str, o: str, sign: float) -> Blow:
    """Push the other away with the sole."""
    windup = {"hip" + s: rng.uniform(85, 110), "knee" + s: rng.uniform(105, 125), "lean": rng.uniform(0, 12)}
    strike = {"hip" + s: 70.0, "knee" + s: rng.uniform(2, 16), "lean": rng.uniform(-18, 4), "knee" + o: 20.0}
    return _leg(rng, s, str(rng.choice(["pelvis", "hip" + o, "belly"])), windup, strike, "heel")


def _two_hands(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho": rng.uniform(20, 50), "elb": rng.uniform(90, 120), "arm": 10.0, "lean": rng.uniform(-6, 8)}
    strike = {"sho": 84.0, "elb": rng.uniform(6, 28), "arm": rng.uniform(2, 10), "lean": rng.uniform(14, 32)}
    strike |= {"hip" + o: 30.0, "knee" + o: 26.0, "hip" + s: -14.0}
    return Blow(
        "hand", "sho", "chest", windup, strike, "guard", float(rng.uniform(0.14, 0.32)), float(rng.uniform(2.0, 5.0))
    )


def _one_hand(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"sho" + s: rng.uniform(10, 45), "elb" + s: rng.uniform(80, 115), "twist": -14.0 * sign}
    strike = {"sho" + s: 84.0, "elb" + s: rng.uniform(6, 26), "arm" + s: rng.uniform(0, 12)}
    strike |= {"twist": rng.uniform(14, 30) * sign, "lean": rng.uniform(8, 22), "sho" + o: 6.0, "elb" + o: 20.0}
    return _arm(rng, s, "shoulder" + s, windup, strike)


def _shoulder(rng: Generator, s: str, o: str, sign: float) -> Blow:
    windup = {"lean": 6.0, "twist": -10.0 * sign}
    strike = {"lean": rng.uniform(16, 30), "twist": rng.uniform(18, 34) * sign, "sho": 15.0, "elb": 60.0}
    strike |= {"hip" + o: 30.0, "knee" + o: 26.0}
    return Blow("shoulder" + s, "lean", "chest", windup, strike, "guard", 0.16, float(rng.uniform(1.5, 3.5)))


_STYLES: dict[str, Callable[[Generator, str, str, float], Blow]] = {
    "jab": _jab,
    "cross": _cross,
    "hook": _hook,
    "swing": _swing,
    "overhand": _overhand,
    "uppercut": _uppercut,
    "body": _body,
    "slap": _slap,
    "backhand": _backhand,
    "front": _front,
    "side": _side,
    "low": _low,
    "round": _round,
    "knee": _knee,
    "stamp": _stamp,
    "two_hands": _two_hands,
    "one_hand": _one_hand,
    "shoulder": _shoulder,
}
