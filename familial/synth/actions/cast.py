"""The actors of one clip, where they start, and where they can go."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from familial.synth.actor import Actor
from familial.synth.aids import Aid
from familial.synth.body import Body
from familial.synth.kinematics import present
from familial.synth.moving_objects import Thing
from familial.synth.skeleton import JOINT, Floats
from familial.synth.stage import Stage

__all__ = ["Cast", "bed_of", "direction_to", "seat_gap", "unwrapped"]


class Cast:
    """The actors of one clip and what they share.

    Attributes:
        stage: Where there is place to act.
        rng: The random numbers that the actors share; each actor has its own besides.
        seconds: Length of the clip.
        onset: When the action begins, in seconds, drawn evenly over the clip.
        lying: Spans in which somebody lies on the floor after a fall, in seconds.
        things: What is let fall.
        aids: Wheelchairs and walking frames.
        actors: One for each body.
    """

    def __init__(self, bodies: list[Body], stage: Stage, rng: Generator, seconds: float) -> None:
        self.stage, self.rng, self.seconds = stage, rng, seconds
        self.onset = float(rng.uniform(2.5, seconds - 3.5)) if bodies else 0.0
        self.lying: list[tuple[float, float]] = []
        self.things: list[Thing] = []
        self.aids: list[Aid] = []
        self.actors: list[Actor] = []
        order = rng.permutation(len(stage.spots))
        for i, body in enumerate(bodies):
            own = np.random.default_rng([int(rng.integers(1 << 31)), i])
            at = stage.spots[order[i % len(order)]] + own.uniform(-0.1, 0.1, 2)
            outside = len(stage.wings) and own.random() < 0.4
            if outside:
                at = stage.wings[own.integers(len(stage.wings))]
            actor = Actor(body, own, (float(at[0]), float(at[1])), float(own.uniform(0, 360)))
            if outside:  # comes in after a while
                actor.hold(own.exponential(0.5))
                actor.walk(self.spot(actor), until=self.onset)
            self.actors.append(actor)

    def spot(self, actor: Actor, low: float = 0.8, high: float = 6.0) -> Floats:
        """A place in view that the actor can walk to, between `low` and `high` metres off where there is one."""
        rng, spots = actor.rng, self.stage.spots
        distances = np.hypot(*(spots - actor.place).T)
        good = np.flatnonzero((distances > low) & (distances < high))
        for i in rng.permutation(good)[:6]:
            if self.stage.clear(actor.place, spots[i]):
                return np.asarray(spots[i] + rng.uniform(-0.12, 0.12, 2))
        return np.asarray(spots[rng.integers(len(spots))])

    def let_fall(self, actor: Actor, side: str) -> None:
        """Let what is in the hand (`side` is "_l" or "_r") fall to the floor now."""
        hand = present(actor)[JOINT["hand" + side]]
        self.things.append(Thing(actor.now, (float(hand[0]), float(hand[1]), float(hand[2]))))

    def in_view(self, point: Floats) -> Floats:
        """`point` (2,), moved to within 0.35 m of the nearest place in view."""
        spots = self.stage.spots
        nearest = spots[np.hypot(*(spots - point).T).argmin()]
        away = point - nearest
        length = float(np.hypot(*away))
        return point if length < 0.35 else np.asarray(nearest + away * 0.35 / length)


def seat_gap(actor: Actor) -> float:
    """Metres from the middle of a seat to where the actor's feet stand while sitting on it."""
    return 0.245 * actor.body.height + 0.02


def bed_of(cast: Cast, actor: Actor) -> tuple[float, float]:
    """Height of the bed in metres (0 for a mat) and how far the actor moves onto it."""
    couch = cast.stage.couch
    return couch.height if couch.height > 0.3 else 0.0, max(0.0, couch.half + 0.1 - 0.245 * actor.body.height)


def direction_to(one: Actor, other: Actor) -> tuple[Floats, float, float]:
    """Unit vector (2,) from one to the other, its heading in degrees, and the distance in metres."""
    away = other.place - one.place
    gap = float(np.hypot(*away))
    if gap < 0.05:
        away, gap = np.array([math.cos(math.radians(one.yaw)), math.sin(math.radians(one.yaw))]), 0.05
    return away / gap, math.degrees(math.atan2(away[1], away[0])), gap


def unwrapped(actor: Actor, heading: float) -> float:
    """`heading` in degrees, a whole number of turns added, so that the actor turns to it the short way."""
    return actor.yaw + (heading - actor.yaw + 180) % 360 - 180
