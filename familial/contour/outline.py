"""A body as a closed outline about its own middle: key points dressed as capsules, seen along rays.

key points (N, 17, 2), body heights (N,) --middle, unit of a height, capsules--> radii (N, RAYS)

An outline says how far the body reaches from the middle of its trunk in each of RAYS directions, in units of its own
height: a closed curve without a place, a size or a person. Which side is which is not in a code either, so outlines are
turned to one side: the head to the right of the feet, or the other person to the right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wire.protocol.contour import LONGEST, RAYS

__all__ = ["mirrored", "overlap", "radii"]

Floats = npt.NDArray[np.floating]

_STEPS = 50  # along a ray
_TRUNK, _ARM, _HAND, _THIGH, _SHIN, _SHOULDER = 0.06, 0.03, 0.025, 0.042, 0.03, 0.05
_LIMBS = (  # ends in COCO's order, and the flesh about them in shares of the height
    (5, 7, _ARM),
    (7, 9, _HAND),
    (6, 8, _ARM),
    (8, 10, _HAND),
    (11, 13, _THIGH),
    (13, 15, _SHIN),
    (12, 14, _THIGH),
    (14, 16, _SHIN),
    (5, 6, _SHOULDER),
    (11, 12, _TRUNK),
    (5, 11, _TRUNK),
    (6, 12, _TRUNK),
    (5, 12, _TRUNK),
    (6, 11, _TRUNK),
)
_NECK, _HEAD = 0.045, 0.075
_FACE = (0, 3, 4)  # nose and ears
_BLOCK = 4096  # bodies at once


def radii(points: npt.NDArray[np.generic], heights: npt.NDArray[np.generic]) -> Floats:
    """Dress bodies and return their outlines.

    Args:
        points: (N, 17, 2) y downwards and x, key points in COCO's order.
        heights: (N,) each body's own height were it upright where it is, in the same unit; above 0.

    Returns:
        float (N, RAYS), 0 to LONGEST.
    """
    parts = [
        _radii(points[i : i + _BLOCK].astype(np.float64), heights[i : i + _BLOCK].astype(np.float64))
        for i in range(0, len(points), _BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, RAYS))


def mirrored(outlines: Floats) -> Floats:
    """Outlines (..., RAYS) with left and right changed."""
    return outlines[..., (RAYS // 2 - np.arange(RAYS)) % RAYS]


def overlap(one: Floats, other: Floats) -> Floats:
    """Intersection over union of the areas within outlines (..., RAYS) about the same middle."""
    both, either = np.minimum(one, other), np.maximum(one, other)
    return np.asarray((both**2).sum(-1) / np.maximum((either**2).sum(-1), 1e-12))


def _radii(points: Floats, heights: Floats) -> Floats:
    shoulders, hips = points[:, (5, 6)].mean(1), points[:, (11, 12)].mean(1)
    middle = (shoulders + hips) / 2
    body = (points - middle[:, None]) / heights[:, None, None]
    neck, head = (shoulders - middle) / heights[:, None], body[:, _FACE].mean(1)
    turn, along = 2 * np.pi * np.arange(RAYS) / RAYS, np.linspace(0.0, LONGEST, _STEPS + 1)
    places = (np.stack([-np.sin(turn), np.cos(turn)], -1)[:, None] * along[:, None]).reshape(-1, 2)
    within = np.zeros((len(body), len(places)), bool)
    for start, end, flesh in _LIMBS:
        within |= _in_capsule(places, body[:, start], body[:, end], flesh)
    within |= _in_capsule(places, neck, head, _NECK) | _in_capsule(places, head, head, _HEAD)
    return np.asarray(np.where(within.reshape(len(body), RAYS, -1), along, 0.0).max(-1))


def _in_capsule(places: Floats, start: Floats, end: Floats, flesh: float) -> npt.NDArray[np.bool_]:
    """(N, places): whether each place lies within `flesh` of the line from start to end, (N, 2) each."""
    way = (end - start)[:, None]
    square = np.maximum((way**2).sum(-1), 1e-9)
    share = np.clip(((places - start[:, None]) * way).sum(-1) / square, 0.0, 1.0)
    return np.asarray(((places - start[:, None] - share[..., None] * way) ** 2).sum(-1) < flesh**2)
