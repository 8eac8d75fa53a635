"""Joint angles at the end of one move of a fight: punch, kick, push, grab, being hit, guard."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

__all__ = ["pose_of"]

Angles = dict[str, float]


def pose_of(move: str, rng: Generator) -> Angles:
    """Joint angles in degrees, by channel, at the end of `move`, a key of _POSES; the side is drawn.

    Raises:
        KeyError: There is no such move.
    """
    side, other = ("_l", "_r") if rng.random() < 0.5 else ("_r", "_l")
    return _POSES[move](rng, side, other)


def _punch(rng: Generator, side: str, other: str) -> Angles:
    return {
        "sho" + side: rng.uniform(75, 105),
        "elb" + side: rng.uniform(2, 30),
        "arm" + side: rng.uniform(-5, 30),
        "sho" + other: rng.uniform(10, 60),
        "elb" + other: 110,
        "twist": 32 if side == "_r" else -32,
        "lean": rng.uniform(8, 24),
        "hip" + other: 25,
    }


def _kick(rng: Generator, side: str, other: str) -> Angles:
    return {
        "hip" + side: rng.uniform(50, 100),
        "knee" + side: rng.uniform(5, 35),
        "abd" + side: rng.uniform(0, 30),
        "lean": rng.uniform(-28, -5),
        "arm": rng.uniform(15, 55),
        "hip" + other: 0,
        "knee" + other: 12,
        "gait": 0,
    }


def _push(rng: Generator, side: str, other: str) -> Angles:
    return {
        "sho": rng.uniform(70, 95),
        "elb": rng.uniform(2, 25),
        "arm": 8,
        "lean": rng.uniform(12, 32),
        "hip" + other: 30,
        "knee" + other: 25,
    }


def _grab(rng: Generator, side: str, other: str) -> Angles:
    return {
        "sho": rng.uniform(55, 95),
        "elb": rng.uniform(25, 80),
        "arm": rng.uniform(5, 25),
        "lean": rng.uniform(5, 38),
        "side": rng.uniform(-22, 22),
        "twist": rng.uniform(-30, 30),
        "knee": rng.uniform(10, 45),
        "hip": rng.uniform(5, 35),
        "nod": rng.uniform(0, 25),
    }


def _hit(rng: Generator, side: str, other: str) -> Angles:
    return {
        "lean": rng.uniform(-26, 12),
        "side": rng.uniform(-24, 24),
        "twist": rng.uniform(-35, 35),
        "nod": rng.uniform(-30, 20),
        "arm": rng.uniform(10, 60),
        "sho": rng.uniform(0, 60),
        "hip" + side: -15,
        "knee" + side: 30,
    }


def _guard(rng: Generator, side: str, other: str) -> Angles:
    return {
        "sho": rng.uniform(30, 65),
        "elb": rng.uniform(80, 125),
        "lean": rng.uniform(4, 20),
        "side": rng.uniform(-10, 10),
    }


_POSES: dict[str, Callable[[Generator, str, str], Angles]] = {
    "punch": _punch,
    "kick": _kick,
    "push": _push,
    "grab": _grab,
    "hit": _hit,
    "guard": _guard,
}
