"""Unit quaternions w, x, y, z, and turns about the vertical."""

from __future__ import annotations

import numpy as np

from familial.synth.skeleton import Floats

__all__ = ["about_z", "mixed", "product", "to_matrices", "turned"]


def product(a: Floats, b: Floats) -> Floats:
    """Quaternion products (..., 4): first b, then a."""
    (aw, ax, ay, az), (bw, bx, by, bz) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def mixed(a: Floats, b: Floats, part: Floats) -> Floats:
    """Unit quaternions (..., 4), `part` (...) of the shorter way from a to b."""
    b = b * np.where((a * b).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    mixed = a + part[..., None] * (b - a)
    return np.asarray(mixed / np.linalg.norm(mixed, axis=-1, keepdims=True))


def about_z(angle: Floats) -> Floats:
    zero = np.zeros_like(angle)
    return np.stack([np.cos(angle / 2), zero, zero, np.sin(angle / 2)], -1)


def to_matrices(quaternions: Floats) -> Floats:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    w, x, y, z = np.moveaxis(quaternions, -1, 0)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return np.stack(rows, -1).reshape(*w.shape, 3, 3)


def turned(points: Floats, angle: Floats) -> Floats:
    """Points (..., 2 or 3) turned about the vertical by `angle` (...)."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = points[..., 0] * c - points[..., 1] * s, points[..., 0] * s + points[..., 1] * c
    return np.concatenate([np.stack([x, y], -1), points[..., 2:]], -1)
