"""The space of codes: where the class prototypes lie, and noise on codes for training and offline evaluation.

The noise of a device is another: `edge_runtime/gate/sampler.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from familial.model.desensitizer import code_plane

__all__ = ["prototypes", "rounded_gaussian"]

# degrees of normal, fall, fight: risks lie far from normal (1.92 C and 1.88 C), then from each other (1.19 C)
_ANGLES = (0.0, 147.0, 220.0)


def prototypes(labels: int, tokens: int, width: int, radius: float) -> Tensor:
    """Return the class prototypes: one code for each label, float (L, K, d) of norm `radius`.

    They are points of a circle in `desensitizer.code_plane`. All norms are equal, so the log-likelihood of a label
    given a noisy release is linear in z.
    """
    angles = _ANGLES if labels == len(_ANGLES) else tuple(360.0 * index / labels for index in range(labels))
    circle = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles])
    return radius * torch.einsum("kdp,lp->lkd", code_plane(tokens, width), circle)


def rounded_gaussian(like: Tensor, sigma: float) -> Tensor:
    """Return noise for training, float in whole numbers, shape of `like`. The device samples from the exact table."""
    return torch.round(torch.randn_like(like) * sigma)
