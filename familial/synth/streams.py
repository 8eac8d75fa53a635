"""Streams of random numbers: each thing that is drawn for a clip has a stream of its own.

Nothing is drawn from another thing's stream, so the same seed shows the same room whatever happens there. The numbers
decide which clip a seed gives: with another number a seed gives other clips (then raise `RENDERER_VERSION`).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.random import Generator

__all__ = ["Person", "Stream", "stream"]


class Stream(IntEnum):
    """What is drawn for the seed of a clip."""

    SCENE = 0
    SENSOR = 1
    PEOPLE = 2
    LENGTH = 3
    LABEL = 4
    ELECTRONICS = 6
    KIND = 7
    OBJECTS = 8
    THINGS = 9
    AIDS = 10
    PLAN = 50  # and the numbers after it, for each further attempt
    MOTION = 60


class Person(IntEnum):
    """What is drawn for the identity of a person, the same in every clip."""

    BUILD = 0
    CLOTHES = 1
    BAG = 9
    AGE = 10


def stream(seed: int, number: int) -> Generator:
    """The random numbers of one thing (a `Stream` of a clip's seed, or a `Person` of an identity)."""
    return np.random.default_rng([seed, number])
