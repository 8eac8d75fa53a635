"""The space of codes: where the class prototypes lie, and noise on codes for training and offline evaluation.

The noise of a device is another: `edge_runtime/gate/sampler.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from familial.model.desensitizer import code_plane

__all__ = ["MOST_LABELS", "prototypes", "risk_directions", "rounded_gaussian"]

MOST_LABELS = 6
"""Labels that a family may have: with more, prototypes lie closer together than the noise lets anybody tell."""

# degrees of normal, fall, fight: risks lie far from normal (1.92 C and 1.88 C), then from each other (1.19 C)
_ANGLES = (0.0, 147.0, 220.0)


def prototypes(labels: int, tokens: int, width: int, radius: float) -> Tensor:
    """Return the class prototypes: one code for each label, float (L, K, d) of norm `radius`.

    They are points of a circle in `desensitizer.code_plane`. All norms are equal, so the log-likelihood of a label
    given a noisy release is linear in z. Those of more labels begin with those of fewer, from three on, so a family
    that gets another label keeps what it knows.
    """
    circle = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in _angles(labels)])
    return radius * torch.einsum("kdp,lp->lkd", code_plane(tokens, width), circle)


def risk_directions(labels: int, tokens: int, width: int) -> Tensor:
    """Return unit vectors from the prototype of no risk to each risk's, float (L - 1, K * d)."""
    found = prototypes(labels, tokens, width, 1.0).flatten(1)
    return torch.nn.functional.normalize(found[1:] - found[0], dim=1)


def _angles(labels: int) -> list[float]:
    """Degrees of the prototypes: further ones lie in the middle of the widest gap."""
    if labels < len(_ANGLES):
        return [360.0 * index / labels for index in range(labels)]
    found = list(_ANGLES)
    while len(found) < labels:
        around = [*sorted(found), sorted(found)[0] + 360.0]
        width, start = max((b - a, a) for a, b in zip(around, around[1:], strict=False))
        found.append(start + width / 2)
    return found


def rounded_gaussian(like: Tensor, sigma: float) -> Tensor:
    """Return noise for training, float in whole numbers, shape of `like`. The device samples from the exact table."""
    return torch.round(torch.randn_like(like) * sigma)
