"""Hands that hold something: where they are held, and arms that reach there.

Grip, ... of an actor -> arms of the joints (N, J, 3) bent so that the hands are on the points held

The upper arm and the forearm keep their lengths; a hand comes no nearer to a point out of reach than the arm is long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from familial.synth.skeleton import JOINT, Floats

__all__ = ["Grip", "held"]

_WRIST = 0.146 / 0.19  # of the way from the elbow to the hand
_SHORTEST = 0.25  # of the arm's length: a hand comes no nearer to its shoulder


@dataclass(frozen=True, slots=True)
class Grip:
    """Hands on points for some time.

    Attributes:
        first: The first row of the actor's channels in which it holds.
        points: (n, 2, 3) metres, for the left and the right hand.
        weights: (n, 2) how much the hand is there, and not where the channels have it: 0 to 1.
    """

    first: int
    points: Floats
    weights: Floats


def held(joints: Floats, grips: Sequence[Grip]) -> Floats:
    """Joints (N, J, 3) in metres with the hands where `grips` hold them."""
    out = joints.copy()
    for grip in grips:
        rows = slice(grip.first, grip.first + len(grip.points))
        for hand, side in enumerate(("_l", "_r")):
            _reach(out[rows], side, grip.points[:, hand], grip.weights[:, hand, None])
    return out


def _reach(joints: Floats, side: str, points: Floats, weights: Floats) -> None:
    """Bend the arms of joints (n, J, 3) in place, so that the hands are at `points` (n, 3)."""
    shoulder, elbow, hand = (joints[:, JOINT[name + side]].copy() for name in ("shoulder", "elbow", "hand"))
    upper, fore = np.linalg.norm(elbow - shoulder, axis=1), np.linalg.norm(hand - elbow, axis=1)
    way = hand + weights * (points - hand) - shoulder
    length = np.linalg.norm(way, axis=1)
    reach = np.clip(length, _SHORTEST * (upper + fore), 0.995 * (upper + fore))
    way = way / np.maximum(length, 1e-6)[:, None]
    along = (upper**2 + reach**2 - fore**2) / (2 * reach)
    bulge = elbow - shoulder
    bulge = bulge - (bulge * way).sum(1, keepdims=True) * way  # the elbow stays on the side on which it was
    bulge = bulge / np.maximum(np.linalg.norm(bulge, axis=1, keepdims=True), 1e-6)
    off = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    moved = shoulder + along[:, None] * way + off[:, None] * bulge
    end = shoulder + reach[:, None] * way
    changed = weights[:, 0] > 0
    joints[changed, JOINT["elbow" + side]] = moved[changed]
    joints[changed, JOINT["hand" + side]] = end[changed]
    joints[changed, JOINT["wrist" + side]] = (moved + _WRIST * (end - moved))[changed]
