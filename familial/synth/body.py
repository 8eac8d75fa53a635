"""The build of one person: drawn, or known by an identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from familial.synth.skeleton import JOINTS, Floats
from familial.synth.streams import Person, stream

__all__ = ["AGES", "Body", "body_of", "draw_body", "radii", "with_first"]

AGES = ("adult", "child", "old")


@dataclass(frozen=True, slots=True)
class Body:
    """One person's build and manner of moving.

    Attributes:
        seed: The identity; clothes come from it, too.
        height: Metres.
        mass: Scales the thickness of the trunk; 1 is average.
        limb: Scales the thickness of the limbs; 1 is average.
        stoop: Degrees by which the trunk leans by habit.
        pace: Metres a second of an easy walk.
        swing: How far the arms swing; 1 is average.
        age: One of AGES.
    """

    seed: int
    height: float
    mass: float
    limb: float
    stoop: float
    pace: float
    swing: float
    age: str = "adult"


def draw_body(rng: Generator, seed: int) -> Body:
    """A build drawn from `rng`: mostly adults, some children, some old."""
    child = rng.random() < 0.09
    old = rng.random() < 0.25 and not child
    return Body(
        seed=seed,
        height=float(rng.uniform(0.9, 1.5) if child else np.clip(rng.normal(1.70, 0.1), 1.48, 1.98)),
        mass=float(np.clip(rng.normal(1.05, 0.16), 0.78, 1.6)),
        limb=float(np.clip(rng.normal(1.05, 0.13), 0.8, 1.4)),
        stoop=float(rng.uniform(4, 22) if old else rng.uniform(-2, 6)),
        pace=float(rng.uniform(0.45, 0.9) if old else rng.uniform(0.6, 1.2) if child else rng.uniform(0.9, 1.45)),
        swing=float(rng.uniform(0.3, 1.3)),
        age="child" if child else "old" if old else "adult",
    )


def body_of(identity: int) -> Body:
    """The build that `identity` has in every clip; its clothes come from the same seed."""
    return draw_body(stream(identity, Person.BUILD), identity)


def with_first(age: str, identities: Sequence[int]) -> list[int]:
    """`identities`, with somebody of `age` first; any age where it is "".

    Who of them is of that age comes first; where nobody is, another person takes the first one's place.
    """
    people = list(identities)
    if not age:
        return people
    of_age = [i for i, identity in enumerate(people) if body_of(identity).age == age]
    if of_age:
        people.insert(0, people.pop(of_age[0]))
        return people
    others = stream(people[0], Person.AGE)
    while body_of(people[0]).age != age:
        people[0] = int(others.integers(1 << 31))
    return people


def radii(body: Body) -> Floats:
    """The radius in metres of the sphere that stands for the flesh at each joint: (J,)."""
    k, m, limb = body.height / 1.75, body.mass, body.limb
    by_name = {
        "pelvis": 0.115 * m,
        "belly": 0.12 * m,
        "chest": 0.115 * m,
        "neck": 0.055,
        "head": 0.098,
        "chin": 0.062,
        "crown": 0.088,
        "tail": 0.06,
        "shoulder_l": 0.068 * limb,
        "elbow_l": 0.045 * limb,
        "wrist_l": 0.034 * limb,
        "hand_l": 0.045,
        "hip_l": 0.092 * m,
        "knee_l": 0.058 * limb,
        "ankle_l": 0.043 * limb,
        "toe_l": 0.036,
        "heel_l": 0.04,
    }
    return np.array([k * by_name.get(n, by_name.get(n.replace("_r", "_l"), 0.01)) for n in JOINTS])
