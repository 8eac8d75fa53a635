"""Actors in an empty, plain place: for tests of single movements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from familial.synth.actions.cast import Cast
from familial.synth.body import body_of
from familial.synth.scene import plain_scene

__all__ = ["bare_cast"]


def bare_cast(along_m: Sequence[float], seed: int, seconds: float = 12.0) -> Cast:
    """People on a line in a plain room, `along_m` metres from its beginning; every second one faces back."""
    stage = plain_scene((24, 32)).stage
    bodies = [body_of(seed * 17 + i) for i in range(len(along_m))]
    cast = Cast(bodies, stage, np.random.default_rng(seed), seconds)
    begin = stage.spots.mean(0) - (0.8, 0.0)
    for i, (actor, along) in enumerate(zip(cast.actors, along_m, strict=True)):
        actor.restart(begin + (along, 0.0), 180.0 * (i % 2))
    return cast
