"""Synthetic cameras for the OOD score: codes near the rim of the ball, about an angle of their own."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from familial.evaluate.ood_detector import Camera
from tests.support.bridge_factory import make_manifest

__all__ = ["BALANCED", "MANIFEST", "PLANE", "SPANS", "STRICT", "C", "make_cameras"]

MANIFEST = make_manifest()
BALANCED, STRICT = MANIFEST.sigma, MANIFEST.sigma * Fraction(3, 2)
C, SPANS = MANIFEST.clip_norm, (60, 300)
PLANE = np.linalg.qr(np.random.default_rng(7).standard_normal((64, 2)))[0]


def make_cameras(count: int, seed: int, angle: float = 0.3) -> list[Camera]:
    """Cameras of five clips, 12 releases each: codes near the rim, about an angle that differs by camera and clip."""
    rng = np.random.default_rng(seed)
    found: list[Camera] = []
    for own in rng.normal(angle, 0.25, count):
        clips = [own + rng.normal(0, 0.3) + rng.normal(0, 0.3, 12) for _ in range(5)]
        found.append([0.95 * np.exp(1j * clip) for clip in clips])
    return found
