"""The desensitizer (features -> x) and the integer core (x -> code).

    features (B, F) --Desensitizer--> x float (B, K, d), |x| < C             learned
                    --integer_code--> mu int32 (B, K, d), |mu| <= C          integers only, holds for ANY x

C is `clip_norm`; norms are Euclidean, over all n = K * d coordinates of one code. Whatever a network computes, NaN and
infinity included, mu lies in the ball of radius C. The promise does not rest on that: on a device the gate holds every
code against C again, and adds the noise (`edge_runtime/gate/core.py`). Here it makes training, every precision and
every engine speak of the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

__all__ = [
    "ASIDE",
    "Desensitizer",
    "LateFusion",
    "SOMEBODY",
    "Sharpen",
    "code_plane",
    "integer_code",
    "straight_through",
]

ASIDE = 0.5
"""Largest part of a code outside the labels' plane, towards the attributes, as a share of its radius."""

SOMEBODY = -2
"""Place among the features of a fused tower of the share of the time in which somebody is seen."""

_BOUND = 16.0  # limit of the map's output, which keeps its squares finite in half precision
_PLANE_SEED = 5


# --- the integer core -------------------------------------------------------------------------------------------------


def integer_code(x: Tensor, clip_norm: int) -> Tensor:
    """Make an integer code of norm at most C out of any floats.

    Let a be x rounded and b be x truncated, both clipped per coordinate to [-C, C], which also catches whatever NaN and
    infinity became as integers. The code is a where |a| <= C, else b where |b| <= C, else 0. Squared norms are compared
    as integers; the config holds n * C^2 < 2^31, so int32 sums are exact.

    Args:
        x: float (B, K, d), in units of the code's lattice.
        clip_norm: C.

    Returns:
        mu int32 (B, K, d) with |mu| <= C for each of the B codes.
    """
    a = torch.round(x).to(torch.int32).clamp(-clip_norm, clip_norm)
    b = torch.trunc(x).to(torch.int32).clamp(-clip_norm, clip_norm)
    a_fits = (a * a).sum(dim=(1, 2), keepdim=True, dtype=torch.int32) <= clip_norm * clip_norm
    b_fits = (b * b).sum(dim=(1, 2), keepdim=True, dtype=torch.int32) <= clip_norm * clip_norm
    return torch.where(a_fits, a, torch.where(b_fits, b, torch.zeros_like(b)))


def straight_through(x: Tensor, clip_norm: int) -> Tensor:
    """For training: the value of `integer_code` as float, with the gradient of the identity (straight-through)."""
    return x + (integer_code(x.detach(), clip_norm).to(x.dtype) - x.detach())


# --- the learned map, which nothing relies on -------------------------------------------------------------------------


class Desensitizer(nn.Module):
    """Features -> x float (B, K, d) of norm below C - 1, so that rounding practically never leaves the ball.

    The norm is bounded softly, h / sqrt(1 + |h|^2): where the network is unsure, the code may lie near the centre.

    Args:
        features: width of the tower's output.
        hidden: inner width.
        tokens: K.
        width: d.
        clip_norm: C.
        rank: number of directions (`code_plane`) that the labels have, 0 for all n. The noise bounds what a release
            says of anything; a code of few directions can carry little more than the verdict.
        aside: number of further directions, for attributes. The part of a code in them is at most `ASIDE` of its
            radius, which leaves the labels at least sqrt(1 - ASIDE^2) = 0.87 of it.
        drop: dropout rate, in training.
        sharpen: applied to the labels' part of the code, or None.
        fusion: gives the labels' logits, which `sharpen` makes a code of; the map itself then gives the attributes'
            part alone, in the measure in which label 0 holds. None: the map gives all.
    """

    plane: Tensor | None

    def __init__(
        self,
        features: int,
        hidden: int,
        tokens: int,
        width: int,
        clip_norm: int,
        rank: int = 0,
        aside: int = 0,
        drop: float = 0.0,
        sharpen: Sharpen | None = None,
        fusion: LateFusion | None = None,
    ) -> None:
        super().__init__()
        self.sharpen, self.fusion = sharpen, fusion
        self.tokens, self.width, self.radius, self.rank = tokens, width, float(clip_norm - 1), rank
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, aside if fusion else rank + aside or tokens * width)
        self.drop = nn.Dropout(drop)
        plane = code_plane(tokens, width, rank + aside).flatten(0, 1).T if rank else None
        self.register_buffer("plane", plane, persistent=False)
        nn.init.normal_(self.outer.weight, std=0.005)  # codes begin near the centre: at the rim they would hardly move
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) -> x float (B, K, d), in units of the code's lattice."""
        h = self.outer(self.drop(torch.nn.functional.gelu(self.inner(self.drop(features)))))
        h = torch.clamp(h, -_BOUND, _BOUND)
        if self.plane is None or len(self.plane) == self.rank:
            x = self._along(h) * self.radius
        else:
            along, aside = self._parts(features, h)
            along = along * torch.sqrt(1.0 - (aside * aside).sum(dim=1, keepdim=True))
            x = torch.cat((along, aside), dim=1) * self.radius
        if self.plane is not None:
            x = x @ self.plane
        return x.reshape(-1, self.tokens, self.width)

    def _parts(self, features: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Features and h (B, rank + aside) -> the labels' part (B, rank) and the attributes' (B, aside).

        With a late fusion h is (B, aside).
        """
        if self.fusion is None or self.sharpen is None:
            return self._along(h[:, : self.rank]), ASIDE * _soft(h[:, self.rank :])
        weights = self.sharpen.weights(self.fusion(features))
        return weights @ self.sharpen.corners, ASIDE * _soft(h) * weights[:, :1].detach()

    def _along(self, h: Tensor) -> Tensor:
        """h (B, rank) -> the labels' part of the code (B, rank), of length 1 at most."""
        along = _soft(h)
        return along if self.sharpen is None else cast(Tensor, self.sharpen(along))


class LateFusion(nn.Module):
    """Features of motion and of people -> logits of the labels: each tower's by a linear head, weighed and added.

    A product of experts (Hinton 2002, Neural Computation 14): no tower outvotes another on what that one is sure of.
    Where nobody is seen, the people's head is not asked: it learned from clips of which half show a risk, and most of a
    day is an empty room.

    Args:
        motion: width of the motion tower's features, which come first.
        people: width of the people tower's.
        shares: weights of the logits of both.
        nobody: the people's logit of label 0 where nobody is seen; those of the others are 0.
        labels: L.
    """

    nobody: Tensor

    def __init__(self, motion: int, people: int, shares: tuple[float, float], nobody: float, labels: int) -> None:
        super().__init__()
        self.shares = shares
        self.motion, self.people = nn.Linear(motion, labels), nn.Linear(people, labels)
        self.register_buffer("nobody", nobody * torch.eye(labels)[:1], persistent=False)

    def each(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) -> logits (B, L) of motion, and of people as the head gives them."""
        motion, people = torch.split(features, [self.motion.in_features, self.people.in_features], dim=1)
        return self.motion(motion), self.people(people)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) -> logits (B, L)."""
        motion, people = self.each(features)
        somebody = torch.clamp(20.0 * features[:, SOMEBODY : SOMEBODY + 1], 0.0, 1.0)
        return self.shares[0] * motion + self.shares[1] * (somebody * people + (1.0 - somebody) * self.nobody)


class Sharpen(nn.Module):
    """A point of the labels' plane -> the mean of the class prototypes, weighed by softmax(gain * cosine + bias).

    Noise drowns small differences, so a code is to lie at a prototype or at another, and between them only where the
    network is unsure. The bias moves the border: a label whose evidence is strong can ask for more of it, and what
    looks a little like it then lies at the prototype of label 0.

    Args:
        corners: float (L, 2), the prototypes in the plane, of length 1.
        gain: above 0.
        bias: of each label.
    """

    corners: Tensor
    bias: Tensor

    def __init__(self, corners: Tensor, gain: float, bias: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("bias", torch.tensor(bias), persistent=False)
        self.gain = gain

    def forward(self, along: Tensor) -> Tensor:
        """Along float (B, 2), of length 1 at most -> float (B, 2), likewise."""
        return self.weights(along @ self.corners.T) @ self.corners

    def weights(self, logits: Tensor) -> Tensor:
        """Of the prototypes (B, L), which sum to 1, by cosines or logits (B, L)."""
        return torch.softmax(self.gain * logits + self.bias, dim=1)


def _soft(h: Tensor) -> Tensor:
    """h (B, n) of any length -> the same direction, length below 1."""
    return h * torch.rsqrt(1.0 + (h * h).sum(dim=1, keepdim=True))


def code_plane(tokens: int, width: int, rank: int = 2) -> Tensor:
    """Orthonormal directions in which codes lie: float (K, d, rank), random but the same for every family.

    The first two are the same at any rank. Random directions, since along the axes all coordinates would be rounded
    alike, which takes codes out of the ball.
    """
    source = torch.Generator().manual_seed(_PLANE_SEED)
    counts = (rank,) if rank <= 2 else (2, rank - 2)
    with torch.device("cpu"):  # the same numbers on every device
        drawn = [torch.randn(tokens * width, count, generator=source, dtype=torch.float64) for count in counts]
        directions: Tensor = torch.linalg.qr(torch.cat(drawn, dim=1))[0]
    return directions.float().reshape(tokens, width, rank).to(torch.get_default_device())
